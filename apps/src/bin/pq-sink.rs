//! Accepts many TCP connections at once on a DPDK port, counts their bytes and discards them.

use std::{
    collections::HashMap,
    error::Error,
    fs::File,
    io::{self, Read, Write},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use prequeue::{LocalStream, TcpListener, TcpStream};
use prequeue_apps::{
    args::{CommandLine, EAL_HELP, Network},
    exit::{self, Exit},
    report::{Ending, Rate, Summary, Tally},
    signals::on_stop,
    start::{finish, finish_local, start, start_local},
    stdout,
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
    /// Poll and read on one thread, in place, with no poll thread in between; -l says where
    #[arg(long)]
    run_to_completion: bool,
}

fn main() -> ExitCode {
    let CommandLine { eal, own } = CommandLine::parse();
    run(eal, &own).unwrap_or_else(|error| exit::cannot_start("pq-sink", &*error)).into()
}

fn run(eal: Vec<String>, own: &Arguments) -> Result<Exit, Box<dyn Error>> {
    let out = stdout::take()?;
    if own.run_to_completion {
        run_to_completion(eal, own, out)
    } else {
        run_threads(eal, own, out)
    }
}

/// The stack polls on threads of its own; each connection is read by one of ours.
fn run_threads(eal: Vec<String>, own: &Arguments, out: File) -> Result<Exit, Box<dyn Error>> {
    let stack = start(eal, &own.network)?;
    let (stop, stopped) = mpsc::channel();
    on_stop(stop)?;
    let listener = stack.listen(own.network.listen)?;
    eprintln!("pq-sink: listening on {}", listener.local_addr()?);

    let tally = Tally::default();
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &tally));
        report_rates(Rates::new(&tally, out), &stopped);
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

/// One thread does it all: it polls, and looks at the bytes where the device has put them.
fn run_to_completion(eal: Vec<String>, own: &Arguments, out: File) -> Result<Exit, Box<dyn Error>> {
    let mut stack = start_local(eal, &own.network)?;
    if !stack.pin() {
        eprintln!("pq-sink: not pinned: the CPU of -l is not allowed to this process");
    }
    let listener = stack.listen(own.network.listen)?;
    eprintln!("pq-sink: listening on {}", listener.local_addr());

    let (stop, stopped) = mpsc::channel();
    on_stop(stop)?;
    let tally = Tally::default();
    let mut rates = Rates::new(&tally, out);
    let mut streams = HashMap::new();
    let mut polls = 0_u32;
    loop {
        stack.poll();
        while let Ok((stream, _)) = listener.accept() {
            tally.opened();
            streams.insert(stream.id(), stream);
        }
        while let Some(id) = stack.next_readable() {
            if let Some(stream) = streams.get_mut(&id)
                && let Some(ending) = drain_in_place(stream, &tally)
            {
                tally.ended(ending);
                streams.remove(&id);
            }
        }
        polls = polls.wrapping_add(1);
        // The clock, and the channel, once in a while.
        if polls.is_multiple_of(1024) {
            if stopped.try_recv().is_ok() {
                break;
            }
            if rates.at.elapsed() >= Duration::from_secs(1) {
                rates.report();
            }
        }
    }
    streams.values().for_each(|_| tally.ended(Ending::Cut));
    drop((streams, listener));
    let counters = finish_local(stack);
    eprint!("{}", Summary { tally: &tally, counters: &counters });
    Ok(Exit::Done)
}

/// Looks at what there is; how the stream has ended, if it has.
fn drain_in_place(stream: &mut LocalStream, tally: &Tally) -> Option<Ending> {
    match stream.segments() {
        Ok(segments) if segments.is_end() => Some(Ending::Complete),
        Ok(mut segments) => {
            let mut n = 0;
            while let Some(segment) = segments.next_segment() {
                n += segment.len();
            }
            tally.read(n);
            None
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(_) => Some(Ending::Cut),
    }
}

/// A line per second, until something comes through the channel.
fn report_rates(mut rates: Rates<'_>, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
        rates.report();
    }
}

/// What was told last.
struct Rates<'a> {
    tally: &'a Tally,
    out: File,
    bytes: u64,
    accepted: u64,
    at: Instant,
}

impl<'a> Rates<'a> {
    fn new(tally: &'a Tally, out: File) -> Self {
        Self { tally, out, bytes: 0, accepted: 0, at: Instant::now() }
    }

    /// Tells what has changed.
    fn report(&mut self) {
        let (tally, now) = (self.tally, Instant::now());
        let (bytes, accepted) = (tally.bytes(), tally.accepted());
        let rate = Rate { bytes: bytes - self.bytes, elapsed: now - self.at };
        let new = accepted - self.accepted;
        // If nobody reads the rates any more, the counting goes on all the same.
        let _ = writeln!(self.out, "{rate}, {} open, {new} new", tally.open());
        (self.bytes, self.accepted, self.at) = (bytes, accepted, now);
    }
}
