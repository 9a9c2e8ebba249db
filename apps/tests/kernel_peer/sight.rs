//! A program at work as pq-stat sees it: pq-sink on a tap, the kernel as the sender.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    harness::{cpus, memory_args, scenario},
    lab::{HERE, PORT, connect, eventually, set_up_peer},
    {LIMIT, MIB},
};

/// pq-sink on the tap, ended if the test fails.
struct Sink {
    child: Child,
    _stderr: BufReader<ChildStderr>,
    prefix: String,
}

impl Sink {
    fn start(own: &str) -> Self {
        let prefix = format!("pqsight{}", std::process::id());
        let cpu = cpus().last().expect("there is a CPU").to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pq-sink"))
            .args(["-l", &cpu, "--no-pci", "--vdev", "net_tap0,iface=pqtap0"])
            .args(["--file-prefix", &prefix])
            .args(memory_args())
            .args(["--", "--address", &format!("{HERE}/24"), "--listen", &PORT.to_string()])
            .args(["--set", "tcp_rmem=4096 262144 6291456", "--set", "tcp_moderate_rcvbuf=0"])
            .args(own.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pq-sink can be started");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            let n = stderr.read_line(&mut line).expect("stderr can be read");
            assert_ne!(n, 0, "pq-sink ended instead of listening");
        }
        set_up_peer();
        Self { child, _stderr: stderr, prefix }
    }

    fn stat(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pq-stat"))
            .args(["--file-prefix", &self.prefix])
            .args(arguments.split_whitespace())
            .output()
            .expect("pq-stat can be started")
    }

    /// What pq-stat prints.
    fn told(&self, arguments: &str) -> String {
        let output = self.stat(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "pq-stat {arguments}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn counter(&self, name: &str) -> u64 {
        let text = self.told(&format!("-z counters {name}"));
        let value = text.split_whitespace().nth(1).unwrap_or_else(|| panic!("no {name}: {text}"));
        value.parse().expect("a number")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(format!("/var/run/dpdk/{}", self.prefix));
    }
}

/// One connection that has sent 3 MiB and stays, and the numbers that are then to be seen.
fn seen_at_work(own: &str) {
    let mut sink = Sink::start(own);
    let mut client = connect();
    let local = client.local_addr().expect("it is connected");
    client.write_all(&vec![7; 3 * MIB as usize]).expect("the sink reads");
    eventually("all bytes are received", || {
        let sockets = sink.told("sockets -i");
        sockets.contains(&format!("bytes_received:{} ", 3 * MIB)) && sockets.contains("ESTAB ")
    });
    let sockets = sink.told("sockets");
    let line = sockets.lines().find(|line| line.contains(&local.to_string()));
    let line = line.unwrap_or_else(|| panic!("no {local} in {sockets}"));
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!((words[0], words[1], words[3]), ("ESTAB", "0", "262144"), "{line}");

    assert_eq!(sink.counter("TcpPassiveOpens"), 1);
    let data_segs = 3 * MIB / 1448;
    assert!(sink.counter("TcpInSegs") > data_segs);
    assert!(sink.counter("TcpExtTCPHPHits") > data_segs / 2);
    assert_eq!(sink.counter("TcpInErrs"), 0);
    assert!(!sink.told("counters").contains("TcpInErrs"), "zeros are left out");

    assert!(sink.told("settings").contains("tcp_rmem                  4096 262144 6291456"));
    assert!(sink.told("lcores").contains("sockets                 1"));
    assert!(sink.told("--json memory").contains("\"sockets\":1,"));
    assert!(sink.told("info").contains(&format!("{HERE}/24")));

    // Increments of a tenth of a second in which a byte comes.
    client.write_all(&[7]).expect("the sink reads");
    let output = sink.told("-d 0.1 -c 1");
    assert!(output.starts_with(&format!("#{HERE}/24\n")), "{output}");
    assert!(!output.contains("TcpPassiveOpens"), "nothing was opened: {output}");

    drop(client);
    eventually("the connection is gone", || !sink.told("sockets").contains(&local.to_string()));

    // A list longer than one message of DPDK's holds.
    let clients: Vec<_> = (0..50).map(|_| connect()).collect();
    eventually("all are listed", || {
        let sockets = sink.told("sockets");
        clients.iter().all(|client| {
            let local = client.local_addr().expect("it is connected").to_string();
            sockets.lines().filter(|line| line.contains(&local)).count() == 1
        })
    });

    let pid = Pid::from_raw(i32::try_from(sink.child.id()).expect("a process number"));
    kill(pid, Signal::SIGTERM).expect("a child can be signalled");
    let status = sink.child.wait().expect("a child can be waited for");
    assert_eq!(status.code(), Some(0));
    let output = sink.stat("");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing to look at"), "{said}");
}

#[test]
fn pq_stat_sees_a_program_at_work() {
    scenario("sight::pq_stat_sees_a_program_at_work", LIMIT, || {
        seen_at_work("");
    });
}

#[test]
fn pq_stat_sees_a_program_that_runs_to_completion() {
    scenario("sight::pq_stat_sees_a_program_that_runs_to_completion", LIMIT, || {
        seen_at_work("--run-to-completion");
    });
}
