//! Two stacks of one process as pq-stat tells them apart: one with a poll thread, one that this thread
//! polls.
//!
//! A process of its own, for the EAL starts once in each. Over ports made of rings, which need neither
//! root nor device.

use std::{
    fs,
    process::{Command, Output},
};

use prequeue::Stack;
use prequeue_apps::stat::client::runtime_dirs;

fn stat(prefix: &str, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pq-stat"))
        .args(["--file-prefix", prefix])
        .args(arguments.split_whitespace())
        .output()
        .expect("pq-stat can be started")
}

/// What it prints of a command that succeeds, and what it has to say besides.
fn told(prefix: &str, arguments: &str) -> (String, String) {
    let output = stat(prefix, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments}: {said}");
    (out, said)
}

/// What DPDK keeps of the process in files, gone with the test.
struct Prefix(String);

impl Drop for Prefix {
    fn drop(&mut self) {
        for dir in runtime_dirs() {
            // It is in one of them.
            let _ = fs::remove_dir_all(dir.join(&self.0));
        }
    }
}

#[test]
fn pq_stat_tells_the_stacks_of_a_process_apart() {
    let prefix = Prefix(format!("pqseveral{}", std::process::id()));
    let prefix = &prefix.0;
    let eal = format!(
        "-l 0 --no-pci --no-huge -m 256 --vdev net_ring0 --vdev net_ring1 --telemetry \
         --file-prefix {prefix}"
    );
    let builder = |port: &str, address: &str| {
        Stack::builder().eal_args(eal.split_whitespace()).port(port).address(address)
    };
    let first = builder("net_ring0", "10.99.0.2/24").start().expect("the first stack starts");
    let second =
        builder("net_ring1", "10.99.1.2/24").start_local().expect("the second stack starts");

    let (stacks, said) = told(prefix, "stacks");
    assert!(stacks.contains("net_ring0") && stacks.contains("10.99.1.2/24"), "{stacks}");
    assert_eq!(said, "");

    let (info, said) = told(prefix, "info");
    assert!(info.contains("10.99.0.2/24") && !info.contains("10.99.1.2/24"), "{info}");
    assert!(said.contains("2 stacks run; this is 0 (net_ring0)"), "{said}");
    for stack in ["net_ring1", "1"] {
        let (info, said) = told(prefix, &format!("info --stack {stack}"));
        assert!(info.contains("10.99.1.2/24") && !info.contains("10.99.0.2/24"), "{info}");
        assert_eq!(said, "");
    }
    let output = stat(prefix, "memory --stack net_ring2");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3));
    assert!(said.contains("no stack net_ring2: there is 0 (net_ring0); 1 (net_ring1)"), "{said}");

    drop(first);
    let (info, said) = told(prefix, "info");
    assert!(info.contains("10.99.1.2/24"), "{info}");
    assert_eq!(said, "");
    drop(second);
}
