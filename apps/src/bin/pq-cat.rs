//! Accepts TCP connections on a DPDK port and writes their bytes to stdout, one after the other.

use std::{
    error::Error,
    fs::File,
    io::{self, Read, Write},
    process::ExitCode,
    sync::mpsc,
    thread,
};

use clap::Parser;
use prequeue::{TcpListener, TcpStream};
use prequeue_apps::{
    args::{CommandLine, EAL_HELP, Network},
    exit::{self, Exit},
    report::{Ending, Summary, Tally},
    signals::on_stop,
    start::{finish, start},
    stdout,
};

const HELP: &str = "\
Example: a tap, with the kernel's TCP as the sender. As root, in one shell:
  pq-cat -l 1 --no-pci --no-huge -m 512 --vdev net_tap0,iface=pqtap0 \\
      -- --address 10.99.0.2/24 --listen 7000 --once >received
and when it says that it is listening, in another (bash, which opens the connection):
  ip address add 10.99.0.1/24 dev pqtap0 && ip link set pqtap0 up
  cat file >/dev/tcp/10.99.0.2/7000

The bytes go to stdout and nothing else does; status, a summary at the end, and what DPDK has to say
go to stderr. (Of a tap it says that a qdisc and a request to a secondary failed: no harm.)";

/// Accept TCP connections on a DPDK port and write their bytes to stdout, one after the other
#[derive(Parser)]
#[command(
    name = "pq-cat",
    version,
    override_usage = "pq-cat [EAL arguments] -- --address ADDRESS/PREFIX --listen PORT [options]",
    after_help = format!("{HELP}\n\n{EAL_HELP}\n\n{}", exit::HELP),
)]
struct Arguments {
    #[command(flatten)]
    network: Network,
    /// End after the first connection
    #[arg(long)]
    once: bool,
}

fn main() -> ExitCode {
    let CommandLine { eal, own } = CommandLine::parse();
    run(eal, &own).unwrap_or_else(|error| exit::cannot_start("pq-cat", &*error)).into()
}

fn run(eal: Vec<String>, own: &Arguments) -> Result<Exit, Box<dyn Error>> {
    let mut out = stdout::take()?;
    let stack = start(eal, &own.network)?;
    // Whichever comes first: a signal, or the end of the work.
    let (done, ended) = mpsc::channel();
    on_stop(done.clone())?;
    let listener = stack.listen(own.network.listen)?;
    eprintln!("pq-cat: listening on {}", listener.local_addr()?);

    let tally = Tally::default();
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let exit = serve(listener, &mut out, own.once, &tally);
            // After a signal nobody waits for this any more.
            let _ = done.send(());
            exit
        });
        let _ = ended.recv();
        // If the worker still waits in accept or read, it gets an error from there.
        let counters = finish(stack);
        let exit = worker.join().expect("copying does not panic");
        eprint!("{}", Summary { tally: &tally, counters: &counters });
        Ok(exit)
    })
}

fn serve(listener: TcpListener, out: &mut File, once: bool, tally: &Tally) -> Exit {
    let mut exit = Exit::Done;
    // Accept fails when the stack is stopped, and only then.
    while let Ok((mut stream, peer)) = listener.accept() {
        eprintln!("pq-cat: {peer} connected");
        tally.opened();
        match copy(&mut stream, out, tally) {
            Ok(()) => {
                eprintln!("pq-cat: {peer} ended");
                tally.ended(Ending::Complete);
            }
            Err(Stopped::In(error)) => {
                eprintln!("pq-cat: {peer} cut: {error}");
                tally.ended(Ending::Cut);
                exit = Exit::Cut;
            }
            // Whoever reads our output has had enough; so have we.
            Err(Stopped::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                tally.ended(Ending::Cut);
                return exit;
            }
            Err(Stopped::Out(error)) => {
                eprintln!("pq-cat: cannot write to stdout: {error}");
                tally.ended(Ending::Cut);
                return Exit::Cut;
            }
        }
        if once {
            break;
        }
    }
    exit
}

/// Which end a copy stopped at.
enum Stopped {
    In(io::Error),
    Out(io::Error),
}

/// Copies until the peer's FIN.
fn copy(stream: &mut TcpStream, out: &mut File, tally: &Tally) -> Result<(), Stopped> {
    // Large enough that a system call per buffer does not show, small enough for the L2 cache.
    let mut buf = vec![0; 256 * 1024];
    loop {
        let n = stream.read(&mut buf).map_err(Stopped::In)?;
        if n == 0 {
            return Ok(());
        }
        tally.read(n);
        out.write_all(&buf[..n]).map_err(Stopped::Out)?;
    }
}
