//! Each scenario in a process and a network namespace of its own.
//!
//! DPDK starts once in a process's life, and a tap's names are the namespace's, so a test runs its
//! own program again, asking for itself alone; that child does the work. Scenarios take turns, since
//! each wants a CPU to poll on. The parent keeps the time.

use std::{
    env, fs,
    io::Read,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Set in the child.
const CHILD: &str = "PREQUEUE_KERNEL_PEER_CHILD";

/// Runs `body` in a child process and namespace, as the test called `name`.
///
/// # Panics
/// The scenario failed, or took longer than `limit`.
pub fn scenario(name: &str, limit: Duration, body: fn()) {
    if env::var_os(CHILD).is_some() {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("root can make a network namespace");
        return body();
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("{name}: passed over: a tap and a network namespace need root");
        return;
    }
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());

    let mut child = Command::new(env::current_exe().expect("the test program has a path"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test program can be started again");
    let stdout = collect(child.stdout.take().expect("it is piped"));
    let stderr = collect(child.stderr.take().expect("it is piped"));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if started.elapsed() > limit {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let text = [stdout, stderr].map(|reader| reader.join().expect("the reader does not panic"));
    eprintln!("{name}: {:.1} s\n{}", started.elapsed().as_secs_f64(), text.concat());
    match status {
        None => panic!("{name} was not done after {limit:?}"),
        Some(status) => {
            assert!(status.success(), "{name}: {status}");
            // A name that matches no test would make an empty run, which is a success too.
            assert!(text[0].contains("1 passed"), "{name} is not what the function is called");
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A killed child's pipe may end in an error; what came before it counts.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The memory part of the EAL arguments: hugepages if there are enough free ones.
pub fn memory_args() -> Vec<String> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    let free_kib = field("HugePages_Free").zip(field("Hugepagesize")).map(|(n, size)| n * size);
    let args: &[&str] = match free_kib {
        Some(kib) if kib >= 256 * 1024 => &["--in-memory"],
        _ => &["--no-huge", "-m", "512", "--no-shconf"],
    };
    args.iter().map(ToString::to_string).collect()
}

/// The CPUs that this process may run on, ascending.
pub fn cpus() -> Vec<usize> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
        .expect("a process may ask for its own affinity");
    (0..nix::sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("VmRSS is a number of KiB");
    kib * 1024
}
