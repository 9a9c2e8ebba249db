//! What a process can do once only: each in a process of its own.

use super::*;

/// Runs `body` in a process of its own, whose EAL nobody has started: this very test again.
fn alone(test: &str, body: impl FnOnce()) {
    const CHILD: &str = "PREQUEUE_TEST_CHILD";
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("dpdk::tests::process::{test}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the child ran nothing: {said}");
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TEST_ARGS.into_iter().chain(more.iter().copied()).collect()
}

fn affinity() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
}

#[test]
fn starts_once_and_leaves_the_host_thread_alone() {
    alone("starts_once_and_leaves_the_host_thread_alone", || {
        assert_eq!(Eal::adopt().unwrap_err(), EalError::NotUp);
        let before = affinity();
        let eal = Eal::init(TEST_ARGS).unwrap();
        assert_eq!(affinity(), before);
        assert!(std::ptr::eq(eal, Eal::init(TEST_ARGS).unwrap()));
        assert!(std::ptr::eq(eal, Eal::adopt().unwrap()));
        let error = Eal::init(["-l", "0"]).unwrap_err();
        assert_eq!(error, EalError::OtherArguments(TEST_ARGS.join(" ")));
        assert_eq!(eal.lcores().len(), 1);
        assert!(eal.version().starts_with("DPDK "));
        assert_eq!(eal.require_ports().unwrap_err(), EalError::NoPorts);
    });
}

#[test]
fn a_host_that_runs_dpdk_is_adopted() {
    alone("a_host_that_runs_dpdk_is_adopted", || {
        let argv: Vec<_> = ["host"]
            .into_iter()
            .chain(TEST_ARGS)
            .map(|arg| std::ffi::CString::new(arg).unwrap().into_raw())
            .collect();
        // SAFETY: as main() gets it; leaked.
        let ret = unsafe { sys::rte_eal_init(argv.len() as i32, argv.leak().as_mut_ptr()) };
        assert!(ret >= 0);
        assert_eq!(Eal::init(TEST_ARGS).unwrap_err(), EalError::AlreadyUp);
        let eal = Eal::adopt().unwrap();
        assert_eq!(eal.lcores().len(), 1);
        assert_eq!(Eal::init(TEST_ARGS).unwrap_err(), EalError::AlreadyUp);
        drop(Mempool::new(eal, &PoolConfig::default()).unwrap());
    });
}

#[test]
fn bad_arguments_are_refused_for_good() {
    alone("bad_arguments_are_refused_for_good", || {
        let nul = Eal::init(["-l\0"]).unwrap_err();
        assert_eq!(nul, EalError::NulInArgument("-l\0".to_owned()));
        let args = with(&["--vdev=net_nosuch0"]);
        let error = Eal::init(args.clone()).unwrap_err();
        assert!(matches!(error, EalError::Refused { .. }), "{error}");
        assert_eq!(Eal::init(args).unwrap_err(), error);
    });
}

#[test]
fn a_device_that_does_not_come_up_is_named() {
    alone("a_device_that_does_not_come_up_is_named", || {
        let eal = Eal::init(with(&["--vdev=net_null0", "--vdev=net_null7,nonsense=1"])).unwrap();
        assert_eq!(eal.ports().len(), 1);
        assert_eq!(eal.ports()[0].name().unwrap(), "net_null0");
        let error = eal.require_ports().unwrap_err();
        assert_eq!(error, EalError::VdevFailed("net_null7".to_owned()));
    });
}

#[test]
fn lcores_come_in_the_users_order() {
    alone("lcores_come_in_the_users_order", || {
        let args = TEST_ARGS.into_iter().filter(|arg| !["-l", "0"].contains(arg));
        let eal = Eal::init(args.chain(["--lcores=5@0,2@0,7@0", "--main-lcore=2"])).unwrap();
        let lcores: Vec<_> = eal.lcores().iter().map(|lcore| (lcore.id, lcore.cpu)).collect();
        assert_eq!(lcores, [(5, 0), (2, 0), (7, 0)]);
    });
}

#[test]
fn a_pool_larger_than_the_memory_leaves_it_whole() {
    // Alone, because it takes all memory before it gives up.
    alone("a_pool_larger_than_the_memory_leaves_it_whole", || {
        let eal = eal();
        let config = PoolConfig { mbufs: 1 << 20, ..PoolConfig::default() };
        for _ in 0..3 {
            let error = Mempool::new(eal, &config).unwrap_err();
            assert!(matches!(error, PoolError::NoMemory { mib: 2368, .. }), "{error}");
            assert!(error.to_string().contains("hugepages"));
        }
        drop(Mempool::new(eal, &PoolConfig::default()).unwrap());
    });
}

#[test]
fn a_null_device_is_polled_like_any_other() {
    alone("a_null_device_is_polled_like_any_other", || {
        let eal = Eal::init(with(&["--vdev=net_null0,size=64"])).unwrap();
        let id = eal.require_ports().unwrap()[0];
        let pool = PoolConfig { mbufs: 4095, ..PoolConfig::default() };
        let pool = Mempool::new(eal, &pool).unwrap();
        let config = PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
        let mut port = Port::configure(id, config.clone()).unwrap();
        let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
        let mut burst = Burst::<32>::new();
        assert_eq!(rx.rx(&mut burst), 32);
        assert!(burst.as_slice().iter().all(|mbuf| mbuf.len() == 64));
        assert_eq!(tx.send(&mut burst), 32);
        assert_eq!((port.stats().rx_packets, port.stats().tx_packets), (32, 32));
        drop((burst, rx, tx, port));
        assert_eq!(pool.in_use(), 0);
        assert!(eal.ports().is_empty(), "closed");
        assert_eq!(Port::configure(id, config).unwrap_err(), PortError::NoSuchPort(id));
    });
}
