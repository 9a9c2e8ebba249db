//! Accepts many TCP connections at once on a DPDK port, counts their bytes and discards them.

use std::{
    error::Error,
    io::{self, Read, Write},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use prequeue::{TcpListener, TcpStream};
use prequeue_apps::{
    args::{CommandLine, EAL_HELP, Network},
    exit::{self, Exit},
    report::{Ending, Rate, Summary, Tally},
    signals::on_stop,
    start::{finish, start},
};

const HELP: &str = "\
Example: a tap, with the kernel's TCP as the sender. As root, in one shell:
  pq-sink -l 1 --no-pci --no-huge -m 512 --vdev net_tap0,iface=pqtap0 \\
      -- --address 10.99.0.2/24 --listen 7000
and when it says that it is listening, in another (bash, which opens the connection):
  ip address add 10.99.0.1/24 dev pqtap0 && ip link set pqtap0 up
  head -c 1G /dev/zero >/dev/tcp/10.99.0.2/7000

A line of rates per second goes to stdout; status, a summary at the end (Ctrl-C), and what DPDK has to
say go to stderr. (Of a tap it says that a qdisc and a request to a secondary failed: no harm.)";

/// Accept TCP connections on a DPDK port, count their bytes and discard them
#[derive(Parser)]
#[command(
    name = "pq-sink",
    version,
    override_usage = "pq-sink [EAL arguments] -- --address ADDRESS/PREFIX --listen PORT [options]",
    after_help = format!("{HELP}\n\n{EAL_HELP}\n\n{}", exit::HELP),
)]
struct Arguments {
    #[command(flatten)]
    network: Network,
}

fn main() -> ExitCode {
    let CommandLine { eal, own } = CommandLine::parse();
    run(eal, &own).unwrap_or_else(|error| exit::cannot_start("pq-sink", &error)).into()
}

fn run(eal: Vec<String>, own: &Arguments) -> Result<Exit, Box<dyn Error>> {
    let stack = start(eal, &own.network)?;
    let (stop, stopped) = mpsc::channel();
    on_stop(stop)?;
    let listener = stack.listen(own.network.listen)?;
    eprintln!("pq-sink: listening on {}", listener.local_addr()?);

    let tally = Tally::default();
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &tally));
        report_rates(&tally, &stopped);
        // Accept and every read that waits get an error, and their threads end.
        let counters = finish(stack);
        eprint!("{}", Summary { tally: &tally, counters: &counters });
    });
    Ok(Exit::Done)
}

/// One thread a connection, until the stack is stopped.
fn serve(listener: &TcpListener, tally: &Tally) {
    thread::scope(|scope| {
        while let Ok((stream, peer)) = listener.accept() {
            tally.opened();
            let reader = thread::Builder::new().name("reader".into());
            let spawned = reader.spawn_scoped(scope, move || tally.ended(drain(stream, tally)));
            if let Err(error) = spawned {
                // The stream went with the closure and is closed.
                eprintln!("pq-sink: no thread for {peer}: {error}");
                tally.ended(Ending::Cut);
            }
        }
    });
}

fn drain(mut stream: TcpStream, tally: &Tally) -> Ending {
    // One read should take what a burst of segments brings.
    let mut buf = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return Ending::Complete,
            Ok(n) => tally.read(n),
            Err(_) => return Ending::Cut,
        }
    }
}

/// A line per second, until something comes through the channel.
fn report_rates(tally: &Tally, stopped: &mpsc::Receiver<()>) {
    let (mut bytes, mut accepted, mut at) = (0, 0, Instant::now());
    while stopped.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
        let (bytes_now, accepted_now, now) = (tally.bytes(), tally.accepted(), Instant::now());
        let rate = Rate { bytes: bytes_now - bytes, elapsed: now - at };
        let new = accepted_now - accepted;
        // If nobody reads the rates any more, the counting goes on all the same.
        let _ = writeln!(io::stdout(), "{rate}, {} open, {new} new", tally.open());
        (bytes, accepted, at) = (bytes_now, accepted_now, now);
    }
}
