//! The stack: from EAL arguments and an address to a port that can be listened on.
//!
//! A [`Stack`] owns a device and one poll thread per queue; application threads get listeners and
//! streams from it in the manner of [`std::net`]. Everything that can be wrong with what it is given
//! is found before a thread starts, and told in a sentence that says what to do.

mod builder;
mod error;
mod listening;
mod prepare;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::dpdk::{Clock, Link, Mbuf, Mempool, Port, PortStats};
use crate::lcore::poll::Board;
use crate::lcore::{Bind, Holder, Interface, Listeners, Population};
use crate::sight::Sight;
use crate::socket::{self, AcceptQueue, Waiting};
use crate::tcp::{Counters, Settings};

pub use builder::StackBuilder;
pub use error::{ListenError, StartError};
pub use listening::ListenOptions;
pub(crate) use listening::bind_to;
pub(crate) use prepare::{Prepared, fragments, plan};

/// A connection of a [`Stack`].
///
/// See [`socket::TcpStream`] for all it can do. Handles of one connection may be used by any number of
/// threads at once; dropping the last closes it.
///
/// ```no_run
/// use std::io::Read;
/// use std::time::Duration;
///
/// use prequeue::TcpStream;
///
/// fn first_line(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
///     stream.set_read_timeout(Some(Duration::from_secs(5)))?;
///     let mut line = Vec::new();
///     let mut byte = [0];
///     while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
///         line.push(byte[0]);
///     }
///     Ok(line)
/// }
/// ```
pub type TcpStream = socket::TcpStream<Mbuf>;

/// A listener of a [`Stack`].
///
/// See [`socket::TcpListener`] for all it can do. Any number of threads may accept at once; dropping it
/// closes the port.
///
/// ```no_run
/// use prequeue::{TcpListener, TcpStream};
///
/// fn each(listener: &TcpListener, work: fn(TcpStream)) -> std::io::Result<()> {
///     loop {
///         let (stream, _peer) = listener.accept()?;
///         std::thread::spawn(move || work(stream));
///     }
/// }
/// ```
pub type TcpListener = socket::TcpListener<Mbuf>;

/// A running stack. Dropping it stops it: see [`Stack::stop`].
///
/// Any thread may listen and look at counters, several at once; the poll threads are the stack's own,
/// and nothing that is asked here holds them up. The EAL starts once per process: a later stack must be
/// given the same EAL arguments.
///
/// ```no_run
/// use std::io::Read;
///
/// use prequeue::Stack;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stack = Stack::builder()
///     .eal_args(["-l", "0", "--vdev=net_tap0,iface=tap0"])
///     .address("10.99.0.2/24")
///     .start()?;
/// let listener = stack.listen(7000)?;
/// let (mut stream, peer) = listener.accept()?;
/// let mut text = String::new();
/// stream.read_to_string(&mut text)?;
/// println!("{peer} says {text}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Stack {
    port: Port,
    interface: Interface,
    settings: Settings,
    waiting: Waiting,
    listeners: Listeners<Mbuf>,
    boards: Vec<Arc<Board>>,
    /// What is shown through DPDK's telemetry socket, for as long as the stack lives.
    _sight: Arc<Sight>,
    /// The pool of each lcore for what is received, to ask how full it is.
    pools: Vec<Mempool>,
    threads: Vec<JoinHandle<()>>,
    clock: Clock,
    yields: bool,
}

/// Time that lcores get to notice a new listener; they look at every poll.
const NOTICE: Duration = Duration::from_secs(2);

impl Stack {
    /// A stack to be set up.
    pub fn builder() -> StackBuilder {
        StackBuilder::new()
    }

    /// Listens on a port, at every address, with the usual backlog.
    ///
    /// # Errors
    /// If somebody listens there already, the port is 0, or the stack has stopped.
    pub fn listen(&self, port: u16) -> Result<TcpListener, ListenError> {
        self.listen_with(port, ListenOptions::default())
    }

    /// Listens on a port, at every address. When this returns every lcore knows.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub fn listen_with(
        &self,
        port: u16,
        options: ListenOptions,
    ) -> Result<TcpListener, ListenError> {
        let queue = self.bind(port, Bind::ALL, options)?;
        self.announced(TcpListener::new(queue, self.interface.listening_at(port)))
    }

    /// Listens at an address and port of ours. `0.0.0.0` stands for all of IPv4, and `[::]` for all, of
    /// IPv4 too unless the options say otherwise: as in Linux the addresses of such peers are then told as
    /// those of IPv6 that stand for them (`::ffff:192.0.2.1`). When this returns every lcore knows.
    ///
    /// # Errors
    /// As [`Self::listen`], or if the address is not the stack's.
    pub fn listen_at(
        &self,
        local: SocketAddr,
        options: ListenOptions,
    ) -> Result<TcpListener, ListenError> {
        let bind = Bind::at(local.ip(), options.only_v6);
        let queue = self.bind(local.port(), bind, options)?;
        let listener = TcpListener::new(queue, local);
        self.announced(if local.is_ipv6() { listener.with_mapped_addresses() } else { listener })
    }

    /// The accept queue of a new listener.
    fn bind(
        &self,
        port: u16,
        bind: Bind,
        options: ListenOptions,
    ) -> Result<Arc<AcceptQueue<Mbuf>>, ListenError> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err(ListenError::Stopped);
        }
        bind_to(&self.listeners, &self.interface, &self.settings, (port, bind), options)
    }

    /// The listener, once every lcore knows of it.
    fn announced(&self, listener: TcpListener) -> Result<TcpListener, ListenError> {
        listener.set_waiting(self.waiting);
        let version = self.listeners.version();
        let end = Instant::now() + NOTICE;
        let knows =
            |board: &Arc<Board>| version.wrapping_sub(board.listeners_version()) as i32 <= 0;
        while !self.boards.iter().all(knows) {
            if Instant::now() > end {
                return Err(ListenError::Stopped);
            }
            thread::sleep(Duration::from_micros(50));
        }
        Ok(listener)
    }

    /// What all lcores have counted, as of a fraction of a millisecond ago.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for board in &self.boards {
            board.add_to(&mut sum);
        }
        sum
    }

    /// What each lcore has counted, in the order of `-l`.
    pub fn counters_by_lcore(&self) -> Vec<Counters> {
        let one = |board: &Arc<Board>| {
            let mut counters = Counters::default();
            board.add_to(&mut counters);
            counters
        };
        self.boards.iter().map(one).collect()
    }

    /// Packet buffers that are not in their pool: on the device's rings, in a queue, or with a
    /// reader. The device's own are a fixed number once there has been traffic.
    pub fn mbufs_in_use(&self) -> u32 {
        self.pools.iter().map(Mempool::in_use).sum()
    }

    /// The connections that hold most of the packet buffers, largest first: up to sixteen of each
    /// lcore. The lcores are asked, and answer within a few polls; one that has ended says nothing.
    pub fn memory_holders(&self) -> Vec<Holder> {
        let questions: Vec<_> = self.boards.iter().map(|board| board.desk.ask()).collect();
        let end = Instant::now() + NOTICE;
        let mut all = Vec::new();
        for ((board, question), lcore) in self.boards.iter().zip(questions).zip(&self.threads) {
            while !lcore.is_finished() && Instant::now() < end {
                if let Some(holders) = board.desk.answer(question) {
                    all.extend(holders);
                    break;
                }
                thread::sleep(Duration::from_micros(50));
            }
        }
        all.sort_by_key(|holder| std::cmp::Reverse(holder.rmem));
        all
    }

    /// As [`Self::memory_holders`], but of the last time that segments were dropped because the
    /// buffers were running out (`PoolPressureDrop`). Empty if none ever was.
    pub fn holders_at_pressure(&self) -> Vec<Holder> {
        let mut all: Vec<_> =
            self.boards.iter().flat_map(|board| board.desk.at_pressure()).collect();
        all.sort_by_key(|holder| std::cmp::Reverse(holder.rmem));
        all
    }

    /// How many connections there are, on all lcores.
    pub fn population(&self) -> Population {
        self.boards.iter().map(|board| board.population()).sum()
    }

    /// The device's own counters.
    pub fn port_stats(&self) -> PortStats {
        self.port.stats()
    }

    /// The state of the link.
    pub fn link(&self) -> Link {
        self.port.link()
    }

    /// The interface: addresses and MTU as they came to be, and how the addresses stand, as an lcore has
    /// published it.
    pub fn interface(&self) -> Interface {
        let standings = self.boards.first().map_or(0, |board| board.standings());
        self.interface.with_standings(standings)
    }

    /// Number of lcores, each with a poll thread and a queue pair.
    pub fn lcores(&self) -> usize {
        self.boards.len()
    }

    /// Whether the device notes when it received each frame.
    pub fn rx_timestamps(&self) -> bool {
        self.port.rx_timestamps()
    }

    /// The clock of the stack: what a time of arrival that the device did not note is read from.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether the poll threads let others run when they are idle, because there are as many of
    /// them as CPUs. Give the EAL fewer CPUs (`-l`) for the lowest latency.
    pub fn yields(&self) -> bool {
        self.yields
    }

    /// Stops: calls that wait in accept or read return an error, and so do all that follow; then
    /// the poll threads end, and the port is closed. Peers are told nothing, but for resets of the
    /// connections that nobody had accepted.
    pub fn stop(mut self) {
        self.stop_threads();
    }

    fn stop_threads(&mut self) {
        self.listeners.close_all();
        for board in &self.boards {
            board.stop();
        }
        for thread in self.threads.drain(..) {
            // A poll thread that panicked has said so, and has left its sockets dead.
            let _ = thread.join();
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop_threads();
    }
}
