//! The programs as a user meets them: what bad input gets, what `--help` says, how they stop.
//!
//! Over a port made of rings, which needs neither root nor device. What crosses a tap is the affair
//! of `kernel_peer`.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PROGRAMS: [(&str, &str); 2] =
    [("pq-cat", env!("CARGO_BIN_EXE_pq-cat")), ("pq-sink", env!("CARGO_BIN_EXE_pq-sink"))];

/// A port without a device, in ordinary memory.
const RINGS: &str = "--no-pci --no-huge -m 128 --vdev net_ring0";

/// What every program needs of its own.
const OWN: &str = "--address 10.99.0.2/24 --listen 7000";

fn run(program: &str, arguments: &str) -> Output {
    Command::new(program)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started")
}

/// Runs both with `arguments`: they end with `code` and say `what`, and nothing on stdout, which is for
/// data.
fn refused(arguments: &str, code: i32, what: &str) {
    for (name, program) in PROGRAMS {
        let output = run(program, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name} {arguments}: {said}");
        assert!(said.contains(what), "{name} {arguments}: no {what:?} in {said}");
        let data = String::from_utf8_lossy(&output.stdout);
        assert!(data.is_empty(), "{name} {arguments} wrote to stdout: {data}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_explained() {
    refused("", 2, "there is no `--`");
    refused(&format!("-- {OWN}"), 2, "there are no EAL arguments");
    refused(&format!("{RINGS} -- --listen 7000"), 2, "--address");
    refused(&format!("{RINGS} -- --address 10.99.0.2/24"), 2, "--listen");
    refused(&format!("{RINGS} -- {OWN} --colour"), 2, "--colour");
    for port in ["70000", "0", "http"] {
        let line = format!("{RINGS} -- --address 10.99.0.2/24 --listen {port}");
        refused(&line, 2, port);
        refused(&line, 2, "a TCP port is a number from 1 to 65535");
    }
}

#[test]
fn a_wrong_address_is_explained() {
    for address in
        ["10.99.0/24", "10.99.0.2", "10.99.0.2/33", "10.99.0.255/24", "224.0.0.1/24", "::1/64"]
    {
        let line = format!("{RINGS} -- --address {address} --listen 7000");
        refused(&line, 2, "is no address for a host: write it with the length of its prefix");
    }
    refused(&format!("{RINGS} -- {OWN} --mac zz"), 2, "write six pairs of hex digits");
    refused(&format!("{RINGS} -- {OWN} --mac 01:00:5e:00:00:01"), 2, "the first must be even");
    refused(
        &format!("{RINGS} -- {OWN} --gateway 11.0.0.1"),
        2,
        "must be another host on that link",
    );
    refused(&format!("{RINGS} -- {OWN} --mtu 100"), 2, "too small");
}

#[test]
fn wrong_settings_are_explained() {
    let refused = |arguments: &str, what: &str| {
        refused(&format!("{RINGS} -- {OWN} {arguments}"), 2, what);
    };
    refused("--set tcp_rmen=1", "did you mean tcp_rmem?");
    refused("--set tcp_sack=2", "tcp_sack takes 0 or 1; not \"2\"");
    refused("--set tcp_sack", "write NAME=VALUE");
    refused("--config /nowhere/pq.toml", "cannot read /nowhere/pq.toml: No such file");
    let path = std::env::temp_dir().join(format!("pq-wrong-{}.toml", std::process::id()));
    for (text, what) in
        [("tcp_sack = [", "is no TOML"), ("\nsack = 3", "line 2: there is no setting")]
    {
        std::fs::write(&path, text).expect("a file can be written");
        refused(&format!("--config {}", path.display()), what);
    }
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn all_settings_can_be_listed() {
    for (_, program) in PROGRAMS {
        let output = run(program, "--list-settings");
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stdout).expect("text");
        for line in ["tcp_rmem = 4096 131072 33554432", "tcp_fin_timeout = 60"] {
            assert!(said.lines().any(|l| l == line), "{line} in {said}");
        }
    }
}

#[test]
fn a_machine_that_does_not_fit_is_explained() {
    refused(&format!("--no-pci --no-huge -m 128 -- {OWN}"), 3, "the EAL found no port");
    let bogus = format!("--no-pci --no-huge -m 128 --vdev net_bogus0 -- {OWN}");
    refused(&bogus, 3, "the EAL refused to start (No such device)");
    refused(
        &format!("--no-pci --no-huge -m 8 --vdev net_ring0 -- {OWN}"),
        3,
        "give the EAL more with -m",
    );
    refused(&format!("{RINGS} -l 4000 -- {OWN}"), 3, "the EAL refused to start");
    refused(&format!("{RINGS} -- {OWN} --port net_tap7"), 3, "net_tap7");
}

#[test]
fn the_eal_says_what_is_wrong_without_its_usage() {
    for (name, program) in PROGRAMS {
        let output = run(program, &format!("{RINGS} --colour -- {OWN}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("unrecognized option '--colour'"), "{said}");
        assert!(!said.contains("Usage") && said.lines().count() < 15, "{said}");
        let last = said.lines().rfind(|line| !line.is_empty()).expect("something is said");
        assert!(last.starts_with(&format!("{name}: the EAL refused to start")), "{last:?}");
        assert_eq!(output.stdout, b"");
    }
}

#[test]
fn the_eal_explains_its_arguments_to_who_asks() {
    for (name, program) in PROGRAMS {
        let output = run(program, &format!("--help -- {OWN}"));
        assert_eq!(output.status.code(), Some(0), "{name}");
        let said = [output.stdout, output.stderr].concat();
        assert!(String::from_utf8_lossy(&said).contains("--vdev"), "{name}");
    }
}

#[test]
fn a_tap_limits_the_mtu() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("passed over: a tap needs root");
        return;
    }
    // Both have their turn with the name, which is the kernel's.
    let tap = "--no-pci --no-huge -m 128 --vdev net_tap0,iface=pqmtu0";
    refused(&format!("{tap} -- {OWN} --mtu 9000"), 3, "takes an MTU of at most");
}

#[test]
fn help_teaches() {
    for (name, program) in PROGRAMS {
        let output = run(program, "--help");
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stdout).expect("text");
        for word in ["net_tap0,iface=", "ip address add", "--address", "--gateway", "Exit codes"] {
            assert!(said.contains(word), "{name} --help says nothing of {word}");
        }
    }
}

/// A program that listens; ended if the test fails.
struct Listening {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Listening {
    fn start(program: &str) -> Self {
        let mut child = Command::new(program)
            .args(format!("{RINGS} -- {OWN}").split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            let n = stderr.read_line(&mut line).expect("stderr can be read");
            assert_ne!(n, 0, "{program} ended instead of listening");
        }
        Self { child, stderr }
    }

    /// How it ends after a signal, and what it says until then.
    fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = i32::try_from(self.child.id()).expect("a process number");
        kill(Pid::from_raw(pid), signal).expect("a child can be signalled");
        let asked = Instant::now();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).expect("text");
        let status = self.child.wait().expect("a child can be waited for");
        assert!(asked.elapsed() < Duration::from_secs(20), "it took its time to stop");
        (status.code(), said)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
    }
}

#[test]
fn signals_stop_them_with_a_summary() {
    for (name, program) in PROGRAMS {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let (code, said) = Listening::start(program).stop(signal);
            assert_eq!(code, Some(0), "{name}, {signal}: {said}");
            assert!(said.contains("segments"), "{name}, {signal}: no summary in {said}");
        }
    }
}
