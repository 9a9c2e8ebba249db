//! Ports made of rings: every frame arrives, and what should not is counted.

use super::*;

fn config(pools: &[&Mempool]) -> PortConfig {
    PortConfig {
        pools: pools.iter().map(|pool| (*pool).clone()).collect(),
        rx_descriptors: 64,
        tx_descriptors: 64,
        ..PortConfig::default()
    }
}

#[test]
fn a_pair_carries_frames_both_ways_in_order() {
    let (near_pool, far_pool) = (pool(), pool());
    let (near, far) = RingPort::pair(eal(), 2, 64).unwrap();
    let mut near = near.configure(config(&[&near_pool, &near_pool])).unwrap();
    let mut far = far.configure(config(&[&far_pool, &far_pool])).unwrap();
    let mut ends = [near.start().unwrap(), far.start().unwrap()];
    assert!(near.start().unwrap().is_empty(), "queues are given once");
    assert!(near.link().up && !near.rss());
    let mut burst = Burst::<32>::new();
    for round in 0..50 {
        for (queue, end) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let pool = [&near_pool, &far_pool][end];
            (0..20).for_each(|n| burst.push(numbered(pool, round * 100 + n)).unwrap());
            assert_eq!(ends[end][queue].1.send(&mut burst), 20);
            assert!(burst.is_empty());
            let other = &mut ends[1 - end][queue].0;
            assert_eq!(other.rx(&mut burst), 20);
            assert!(burst.drain().map(|mbuf| number(&mbuf)).eq((0..20).map(|n| round * 100 + n)));
        }
    }
    assert_eq!(near.stats().rx_packets, 2000);
    assert_eq!(far.stats().tx_packets, 2000);
    drop((ends, near, far));
    assert_eq!((near_pool.in_use(), far_pool.in_use()), (0, 0));
}

#[test]
fn what_a_full_device_refuses_stays_in_order() {
    let pool = pool();
    let port = RingPort::loopback(eal(), 1, 40).unwrap();
    let mut port = port.configure(config(&[&pool])).unwrap();
    let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
    let mut burst = Burst::<64>::new();
    (0..64).for_each(|n| burst.push(numbered(&pool, n)).unwrap());
    assert_eq!(tx.send(&mut burst), 40);
    assert!(burst.as_slice().iter().map(number).eq(40..64));
    let mut came = Burst::<64>::new();
    assert_eq!(rx.rx(&mut came), 40);
    assert_eq!(tx.send(&mut burst), 24);
    assert_eq!(rx.rx(&mut came), 24, "behind what the burst holds");
    assert!(came.as_slice().iter().map(number).eq(0..64));
    assert_eq!(rx.rx(&mut came), 0, "no place is left");
    // What is still in the ring when the port goes is freed with it.
    assert_eq!(tx.send(&mut came), 40);
    drop((came, rx, tx, port));
    assert_eq!(pool.in_use(), 0);
}

/// Two mbufs as one packet of two segments.
fn chained(pool: &Mempool, first: &[u8], second: &[u8]) -> Mbuf {
    let (first, second) = (frame(pool, first), frame(pool, second));
    let len = (first.len() + second.len()) as u32;
    // SAFETY: the chain's fields, as DPDK has them; the burst hands it straight to the device.
    unsafe {
        write(&first, sys::PQS_OFF_NB_SEGS, 2_u16);
        write(&first, sys::PQS_OFF_PKT_LEN, len);
        write(&first, sys::PQS_OFF_NEXT, second.into_raw());
    }
    first
}

#[test]
fn chains_stay_chains_unless_little_is_to_be_copied() {
    let pool = pool();
    let port = RingPort::loopback(eal(), 1, 64).unwrap();
    let mut port = port.configure(config(&[&pool])).unwrap();
    let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
    let mut burst = Burst::<8>::new();
    burst.push(numbered(&pool, 1)).unwrap();
    // No room for what is little; too much to be copied.
    burst.push(chained(&pool, &[1; 2000], &[2; 100])).unwrap();
    burst.push(chained(&pool, &[1; 100], &[2; 1000])).unwrap();
    burst.push(chained(&pool, &[1, 2], &[3, 4, 5])).unwrap();
    let shared = chained(&pool, &[1, 2], &[3, 4, 5]);
    // SAFETY: another reference to the second segment, as if somebody else read it, too.
    unsafe { write(shared.rest().unwrap(), sys::PQS_OFF_REFCNT, 2_u16) };
    let other = shared.rest().unwrap().as_raw();
    burst.push(shared).unwrap();
    burst.push(numbered(&pool, 2)).unwrap();
    assert_eq!(pool.in_use(), 10);
    assert_eq!(tx.send(&mut burst), 6);
    assert_eq!(rx.rx(&mut burst), 6);
    assert!(burst.as_slice().iter().map(|mbuf| mbuf.len()).eq([4, 2000, 100, 5, 5, 4]));
    assert_eq!(burst.as_slice()[1].rest().unwrap().data(), [2; 100]);
    assert_eq!(burst.as_slice()[2].chain_truesize(), 2 * burst.as_slice()[0].truesize());
    assert_eq!(burst.as_slice()[3].data(), [1, 2, 3, 4, 5]);
    assert_eq!(burst.as_slice()[4].data(), [1, 2, 3, 4, 5]);
    let expected = RxCounters { chained: 2, linearised: 2, rejected_chains: 0, foreign: 0 };
    assert_eq!(rx.counters(), expected);
    assert_eq!(pool.in_use(), 9, "the other reference is still out");
    // SAFETY: the last reference to it.
    unsafe { sys::pqs_free(other.as_ptr()) };
    assert_eq!(pool.in_use(), 8);
    let mut jumbo = burst.drain().nth(1).unwrap();
    assert!(!jumbo.gather(2050), "there is no room for more");
    jumbo.trim_front(1990);
    jumbo.cut_chain(50);
    assert_eq!((jumbo.len(), jumbo.rest().unwrap().len()), (10, 40));
    assert!(jumbo.gather(20) && jumbo.rest().is_some());
    assert_eq!(jumbo.data(), [&[1; 10][..], &[2; 10]].concat());
    assert!(jumbo.gather(50) && jumbo.rest().is_none() && !jumbo.gather(51));
    assert_eq!(pool.in_use(), 1);
    drop(jumbo);
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn mbufs_of_somebody_elses_pool_are_dropped_and_counted() {
    // SAFETY: the EAL is up; a plain DPDK pool, freed below.
    let strange = unsafe {
        eal();
        sys::rte_pktmbuf_pool_create(c"strange".as_ptr(), 31, 0, 0, 2176, -1)
    };
    assert!(!strange.is_null());
    let (pool, other) = (pool(), pool_of(63, Sharing::AnyThread));
    let port = RingPort::loopback(eal(), 1, 64).unwrap();
    let mut port = port.configure(config(&[&pool])).unwrap();
    let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
    let mut burst = Burst::<8>::new();
    let mut raw = std::ptr::null_mut();
    // SAFETY: one place; the mbuf goes to the device without being touched as one of ours.
    unsafe {
        assert_eq!(sys::pqs_alloc_bulk(strange, &mut raw, 1), 0);
        burst.push(Mbuf::from_raw(NonNull::new(raw).unwrap())).unwrap();
    }
    burst.push(numbered(&other, 5)).unwrap();
    assert_eq!(tx.send(&mut burst), 2);
    assert_eq!(rx.rx(&mut burst), 1, "another pool of ours is welcome");
    assert_eq!(number(&burst.as_slice()[0]), 5);
    assert_eq!(rx.counters().foreign, 1);
    // SAFETY: its only mbuf is back.
    unsafe {
        assert_eq!(sys::rte_mempool_in_use_count(strange), 0);
        sys::rte_mempool_free(strange);
    }
    drop(burst);
    assert_eq!(other.in_use(), 0);
}

#[test]
fn wrong_settings_say_what_to_do() {
    let pool = pool();
    let eal = eal();
    let configure =
        |config: PortConfig| RingPort::loopback(eal, 1, 64).unwrap().configure(config).unwrap_err();
    assert_eq!(configure(config(&[])), PortError::NoQueues);
    let error = configure(config(&[&pool; 100]));
    assert!(matches!(error, PortError::TooManyQueues { want: 100, .. }), "{error}");
    let error = configure(PortConfig { mtu: Some(9000), ..config(&[&pool]) });
    // It would scatter, so that the room is no reason; but rings have no MTU.
    assert!(matches!(error, PortError::Driver { step: "setting the MTU", .. }), "{error}");

    let port = RingPort::loopback(eal, 1, 64).unwrap();
    let id = port.id();
    let _port = port.configure(config(&[&pool])).unwrap();
    let again = Port::configure(id, config(&[&pool])).unwrap_err();
    assert_eq!(again, PortError::InUse(id));
}

#[test]
fn an_lcore_thread_polls_while_another_sends() {
    const FRAMES: u32 = 20_000;
    let (pool, peer_pool) = (pool(), pool_of(255, Sharing::AnyThread));
    let (near, far) = RingPort::pair(eal(), 1, 64).unwrap();
    let mut near = near.configure(config(&[&pool])).unwrap();
    let mut far = far.configure(config(&[&peer_pool])).unwrap();
    let (mut rx, _) = near.start().unwrap().pop().unwrap();
    let (_, mut tx) = far.start().unwrap().pop().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _thread = EalThread::register(eal()).unwrap();
            let _owner = pool.own().unwrap();
            let (mut burst, mut next) = (Burst::<32>::new(), 0);
            while next < FRAMES {
                if rx.rx(&mut burst) == 0 {
                    thread::yield_now();
                }
                for mbuf in burst.drain() {
                    assert_eq!(number(&mbuf), next);
                    next += 1;
                }
            }
        });
        let (mut burst, mut next) = (Burst::<32>::new(), 0);
        while next < FRAMES || !burst.is_empty() {
            while next < FRAMES && !burst.is_full() {
                let Some(mut mbuf) = peer_pool.alloc() else { break };
                assert!(mbuf.append(&next.to_be_bytes()));
                burst.push(mbuf).unwrap();
                next += 1;
            }
            if tx.send(&mut burst) == 0 {
                thread::yield_now();
            }
        }
    });
    assert_eq!((pool.in_use(), peer_pool.in_use()), (0, 0));
}
