//! The stack: from EAL arguments and an address to a port that can be listened on.
//!
//! A [`Stack`] owns a device and one poll thread per queue; application threads get listeners and
//! streams from it in the manner of [`std::net`]. Everything that can be wrong with what it is given
//! is found before a thread starts, and told in a sentence that says what to do.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::dpdk::{
    Clock, Eal, EalError, Fragments, FragmentsError, Link, Mbuf, Mempool, PoolConfig, PoolError,
    PoolPlan, Port, PortConfig, PortError, PortId, PortStats, RxQueue, SpareMbufs, TxQueue,
    run_args,
};
use crate::lcore::fault::Faults;
use crate::lcore::hash::HashKey;
use crate::lcore::poll::{Board, PollLoop};
use crate::lcore::{
    self, Bind, EngineConfig, Holder, Interface, Listeners, MOST_ADDRESSES, Net, Population,
    engines,
};
use crate::sight::Sight;
use crate::socket::{self, AcceptQueue, Mode, Waiting};
use crate::tcp::isn::Secret;
use crate::tcp::{Counters, Settings, listen};
use crate::wire::{Family, MacAddr, ipv6};

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

/// How a stack is set up. Only the EAL arguments and the address are needed.
///
/// Nothing is looked at before [`StackBuilder::start`], which says what is wrong.
///
/// ```no_run
/// use prequeue::Stack;
/// use prequeue::tcp::Settings;
///
/// let stack = Stack::builder()
///     .eal_args(["-l", "0,1", "-a", "0000:3b:00.0"])
///     .address("192.0.2.10/24")
///     .gateway("192.0.2.1")
///     .settings(Settings { tcp_fin_timeout: std::time::Duration::from_secs(10), ..Settings::default() })
///     .start()?;
/// # Ok::<(), prequeue::StartError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs until start() is called"]
pub struct StackBuilder {
    eal_args: Vec<String>,
    addresses: Vec<String>,
    gateways: Vec<String>,
    mac: Option<String>,
    mtu: Option<u16>,
    port: Option<String>,
    queues: Option<usize>,
    mbufs: Option<u32>,
    buffer_room: Option<u16>,
    max_connections: u32,
    settings: Settings,
    rx_timestamps: bool,
    waiting: Waiting,
    pub(crate) faults: Faults,
}

/// Why a stack did not start.
///
/// Each says in a sentence what is wrong and what to do, for people to read.
///
/// ```no_run
/// use prequeue::{Stack, StartError};
///
/// let error = Stack::builder().eal_args(["-l", "0", "--no-pci"]).start().unwrap_err();
/// assert_eq!(error, StartError::NoAddress);
/// eprintln!("{error}");
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No EAL arguments.
    #[error(
        "no EAL arguments: say at least which CPUs and which device, as -l 0 --vdev=net_tap0,iface=tap0, or -l 0 -a 0000:3b:00.0"
    )]
    NoEalArguments,
    /// The EAL, or a device of its arguments.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// No address.
    #[error(
        "no address: give the stack one with the length of its prefix, as 10.99.0.2/24 or fd00:99::2/64"
    )]
    NoAddress,
    /// The address is none, or none that a host can have.
    #[error(
        "{0:?} is no address for a host: write it with the length of its prefix, as 10.99.0.2/24 or fd00:99::2/64; not a broadcast, multicast or loopback address"
    )]
    BadAddress(String),
    /// There are more addresses than an interface can have, or one twice.
    #[error("{0:?} is one address too many: there may be eight, each once")]
    TooManyAddresses(String),
    /// The gateway is no address, not on the link, or a second one.
    #[error(
        "{gateway:?} cannot be the gateway of {address}: it must be another host on that link, one for IPv4 and one for IPv6"
    )]
    BadGateway {
        /// The gateway asked for.
        gateway: String,
        /// The stack's addresses.
        address: String,
    },
    /// The Ethernet address is malformed, or a group's.
    #[error(
        "{0:?} is no Ethernet address for a host: write six pairs of hex digits, 02:00:00:00:00:01; the first must be even"
    )]
    BadMac(String),
    /// Packet buffers would not take the headers of a frame.
    #[error("packet buffers of {0} bytes are too small: headers want 256, and 32768 are the most")]
    BadBufferRoom(u16),
    /// The MTU is too small for TCP over IPv4.
    #[error("an MTU of {0} is too small: IPv4 hosts take datagrams of 576 bytes")]
    BadMtu(u16),
    /// The MTU is too small for IPv6.
    #[error("an MTU of {0} is too small for IPv6: every link of it takes datagrams of 1280 bytes")]
    BadMtuOfIpv6(u16),
    /// The device would keep nearly all packet buffers, and no data could be received.
    #[error(
        "{mbufs} packet buffers per lcore are too few: the device and the poll loop keep {reserve} of them for themselves, so ask for {least} at least"
    )]
    TooFewMbufs {
        /// Those asked for.
        mbufs: u32,
        /// Those that sockets never hold.
        reserve: u32,
        /// The least with which data can be received.
        least: u32,
    },
    /// There are several ports, and none was chosen.
    #[error("there are several ports ({names}): choose one by its name or number")]
    SeveralPorts {
        /// Their names.
        names: String,
    },
    /// The port chosen is not there.
    #[error("there is no port {wanted}: there is {names}")]
    NoSuchPort {
        /// The one asked for.
        wanted: String,
        /// Those that there are.
        names: String,
    },
    /// Queues and lcores do not fit together.
    #[error(
        "{queues} queues and {lcores} lcores do not fit together: each queue has an lcore of its own; name as many CPUs with -l"
    )]
    QueuesAndLcores {
        /// Queues asked for.
        queues: usize,
        /// Lcores of `-l`.
        lcores: usize,
    },
    /// A packet pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The table of fragments.
    #[error(transparent)]
    Fragments(#[from] FragmentsError),
    /// A poll thread.
    #[error("a poll thread cannot start: {0}")]
    Thread(String),
}

/// How a port is listened on.
///
/// ```
/// use prequeue::ListenOptions;
///
/// use prequeue::socket::SocketOptions;
///
/// let low_latency = SocketOptions { low_latency: Some(true), ..SocketOptions::default() };
/// let options = ListenOptions { sockets: low_latency, ..ListenOptions::default() };
/// assert_eq!(options.backlog, 128);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted, less one; at most the setting `somaxconn`.
    /// Negative means as many as that.
    pub backlog: i32,
    /// Largest MSS to announce, in bytes (TCP_MAXSEG); what the interface allows if `None`.
    pub mss: Option<u16>,
    /// The options that its connections begin with.
    pub sockets: socket::SocketOptions,
    /// Whether a listener at the unspecified address of IPv6 takes connections of IPv6 alone
    /// (IPV6_V6ONLY), or of IPv4 too.
    pub only_v6: bool,
}

/// Why a port cannot be listened on.
///
/// ```no_run
/// use prequeue::{ListenError, Stack, TcpListener};
///
/// fn first_free(stack: &Stack) -> Result<TcpListener, ListenError> {
///     match stack.listen(80) {
///         Err(ListenError::PortInUse(_)) => stack.listen(8080),
///         other => other,
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody listens there.
    #[error(
        "port {0} is in use: another listener of this stack has it; drop that or take another port"
    )]
    PortInUse(u16),
    /// Port 0 is no port.
    #[error("port 0 cannot be listened on: this stack does not choose ports, name one")]
    PortZero,
    /// The address is not the stack's.
    #[error(
        "{0} is none of the stack's addresses: listen at one of them, or at 0.0.0.0 or :: for all"
    )]
    NotOurs(IpAddr),
    /// The lcores are gone.
    #[error("the stack has stopped")]
    Stopped,
}

/// Time that lcores get to notice a new listener; they look at every poll.
const NOTICE: Duration = Duration::from_secs(2);

/// RX descriptors per queue, and TX descriptors: a millisecond of minimum frames at a gigabit.
const RX_DESCRIPTORS: u16 = 1024;
const TX_DESCRIPTORS: u16 = 512;

/// Mbufs that each lcore's pool keeps apart.
const CACHE: u32 = 256;

/// Mbufs that sockets must be able to hold: twice what a default receive buffer of 128 KiB takes,
/// and the bursts below which no data is received any more.
const LEAST_HELD: u32 = 2 * 56 + 64;

/// Mbufs per lcore if the user does not say: as many as the memory has room for.
const MBUFS: [u32; 3] = [16_383, 8_191, 4_095];

/// Mbufs per lcore for what is sent: the TX ring, a burst to come, and what the cache keeps.
const TX_MBUFS: u32 = 1023;
const TX_CACHE: u32 = 128;

/// Headroom of an mbuf, and what a frame has besides the datagram.
const HEADROOM: u16 = 128;
const FRAME_OVERHEAD: u16 = 22;

/// What packet buffers may be asked to take: all headers at least, and no more than their length can say.
const BUFFER_ROOMS: std::ops::RangeInclusive<u16> = 256..=32_768;

/// Data room of an mbuf as everybody has it; larger only for a larger MTU, on devices that do not scatter.
const DATA_ROOM: u16 = 2048;

impl Stack {
    /// A stack to be set up.
    pub fn builder() -> StackBuilder {
        StackBuilder {
            eal_args: Vec::new(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            mac: None,
            mtu: None,
            port: None,
            queues: None,
            mbufs: None,
            buffer_room: None,
            max_connections: 1 << 20,
            settings: Settings::default(),
            rx_timestamps: false,
            waiting: Waiting::default(),
            faults: Faults::default(),
        }
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
        let mut sum = Population::default();
        for board in &self.boards {
            let Population { sockets, requests, time_waits } = board.population();
            sum.sockets += sockets;
            sum.requests += requests;
            sum.time_waits += time_waits;
        }
        sum
    }

    /// The device's own counters.
    pub fn port_stats(&self) -> PortStats {
        self.port.stats()
    }

    /// The state of the link.
    pub fn link(&self) -> Link {
        self.port.link()
    }

    /// The interface: addresses and MTU as they came to be.
    pub fn interface(&self) -> &Interface {
        &self.interface
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

/// The accept queue of a new listener, or what stands in its way.
pub(crate) fn bind_to<M: Mode<Mbuf>>(
    listeners: &Listeners<Mbuf, M>,
    interface: &Interface,
    settings: &Settings,
    (port, bind): (u16, Bind),
    options: ListenOptions,
) -> Result<M::Accept, ListenError> {
    let ListenOptions { backlog, mss, sockets, only_v6: _ } = options;
    if port == 0 {
        return Err(ListenError::PortZero);
    }
    if let Some(addr) = interface.foreign(&bind) {
        return Err(ListenError::NotOurs(addr));
    }
    let backlog = listen::backlog(settings, backlog);
    let options = lcore::ListenOptions { backlog, mss, sockets, bind };
    listeners.listen_with(port, options).ok_or(ListenError::PortInUse(port))
}

impl Default for ListenOptions {
    /// 128 connections, as in std, and both families.
    fn default() -> Self {
        Self { backlog: 128, mss: None, sockets: socket::SocketOptions::default(), only_v6: false }
    }
}

impl StackBuilder {
    /// The arguments for DPDK's environment layer, without a program name. `--no-telemetry` and
    /// `--in-memory` are added unless they say otherwise; with `--telemetry` the stack can be looked at
    /// from outside, by `pq-stat` or `dpdk-telemetry.py`.
    pub fn eal_args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.eal_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// An address of ours and the length of its link's prefix, as `10.99.0.2/24` or `fd00:99::2/64`. Each
    /// call adds one, up to [`MOST_ADDRESSES`]; with one of IPv6 there is a
    /// link-local one besides.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// The router for whoever is not on the link; one for each family. Without one they cannot be
    /// answered.
    pub fn gateway(mut self, gateway: impl Into<String>) -> Self {
        self.gateways.push(gateway.into());
        self
    }

    /// Our Ethernet address, as `02:00:00:00:00:01`; the device's own if not given.
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// Bytes of the longest datagram; the device's own if not given. See [`Self::buffer_room`].
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// The port to use, by name (`net_tap0`, `0000:3b:00.0`) or number, if there are several.
    pub fn port(mut self, port: impl Into<String>) -> Self {
        self.port = Some(port.into());
        self
    }

    /// Queue pairs; as many as lcores if not given, which they have to be.
    pub fn queues(mut self, queues: usize) -> Self {
        self.queues = Some(queues);
        self
    }

    /// Packet buffers per lcore, some 3 KiB each with the spare ones for the case that they run out.
    /// 2ⁿ − 1 wastes no memory; some 1650 are the least, for the device keeps a thousand.
    pub fn mbufs(mut self, mbufs: u32) -> Self {
        self.mbufs = Some(mbufs);
        self
    }

    /// Bytes of a frame that a packet buffer takes, at least 256; 2048 if not given. A longer frame lies in
    /// several where the device can do that; where it cannot, buffers are as large as the MTU wants.
    pub fn buffer_room(mut self, bytes: u16) -> Self {
        self.buffer_room = Some(bytes);
        self
    }

    /// Connections that each lcore will hold; 2²⁰ if not given. Memory is taken as they come.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// The settings known as sysctls in Linux.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Has the device note when it received each frame, in ticks of its own clock, if it can: see
    /// [`socket::Arrival`]. Whether it can, [`Stack::rx_timestamps`] tells.
    pub fn rx_timestamps(mut self, wanted: bool) -> Self {
        self.rx_timestamps = wanted;
        self
    }

    /// How threads wait that accept or read, unless a listener, a stream or a call says otherwise:
    /// [`Waiting::SpinThenPark`] if this is not said. Threads that spin are to have a CPU each, beside
    /// those of the lcores.
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }

    /// Puts a bad wire between port and stack, for tests.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Starts the EAL if this process has none, sets up the port, starts the poll threads.
    ///
    /// # Errors
    /// See [`StartError`]: each says what to do.
    pub fn start(self) -> Result<Stack, StartError> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let Prepared { eal, port, pairs, pools, engine } = self.prepare(None)?;
        let (lcores, queues) = (eal.lcores(), pairs.len());
        let (engines, listeners) = engines(&engine, queues);
        let clock = Clock::new(eal);
        let yields = queues >= cpus;
        let boards: Vec<_> = (0..queues).map(|_| Arc::new(Board::default())).collect();
        let rx_pools: Vec<_> = pools.iter().map(|pools| pools.rx.clone()).collect();
        let listening = {
            let listeners = listeners.clone();
            Box::new(move || listeners.queues())
        };
        let sight = Sight {
            settings: self.settings.clone(),
            interface: engine.interface,
            device: port.id().name().unwrap_or_default(),
            lcores: lcores.to_vec(),
            boards: boards.clone(),
            pools: rx_pools.clone(),
            listening,
            list: Mutex::default(),
        };
        let mut stack = Stack {
            port,
            interface: engine.interface,
            settings: self.settings,
            waiting: self.waiting,
            listeners,
            boards: boards.clone(),
            _sight: sight.show(eal),
            pools: rx_pools,
            threads: Vec::new(),
            clock,
            yields,
        };
        let (ready, started) = mpsc::channel();
        let parts = lcores.iter().zip(pairs).zip(engines).zip(pools).zip(boards);
        for ((((lcore, (rx, tx)), mut engine), pools), board) in parts {
            if let Some(fragments) = fragments(eal, &stack.settings, &pools, lcore.numa_node)? {
                engine.set_reassembly(Box::new(fragments));
            }
            engine.home().set_clock(move || clock.now());
            let poll_loop = PollLoop {
                lcore: *lcore,
                plan: plan(rx.descriptors()),
                rx,
                tx,
                pool: pools.rx,
                tx_pool: pools.tx,
                spare: pools.spare,
                engine,
                clock,
                faults: self.faults,
                yields,
                board,
            };
            let ready = ready.clone();
            let run = move || {
                poll_loop.run(eal, move |outcome| {
                    let _ = ready.send(outcome);
                });
            };
            let thread = thread::Builder::new().name(format!("prequeue-{}", lcore.id)).spawn(run);
            stack.threads.push(thread.map_err(|error| StartError::Thread(error.to_string()))?);
        }
        drop(ready);
        for _ in 0..queues {
            let outcome = started.recv().unwrap_or_else(|_| Err("it has panicked".to_owned()));
            outcome.map_err(StartError::Thread)?;
        }
        Ok(stack)
    }

    /// Everything up to the port at work, with `queues` queue pairs; if that is not said, as the
    /// builder has it.
    pub(crate) fn prepare(&self, queues: Option<usize>) -> Result<Prepared, StartError> {
        let mut interface = self.interface()?;
        self.check_mbufs()?;
        if let Some(room) = self.buffer_room.filter(|room| !BUFFER_ROOMS.contains(room)) {
            return Err(StartError::BadBufferRoom(room));
        }
        if self.eal_args.is_empty() {
            return Err(StartError::NoEalArguments);
        }
        let eal = Eal::init(run_args(self.eal_args.clone()))?;
        let id = self.choose_port(&eal.require_ports()?)?;
        let lcores = eal.lcores().len();
        let queues = match (queues, self.queues.unwrap_or(lcores)) {
            (Some(queues), _) => queues,
            (None, queues) if queues == lcores => queues,
            (None, queues) => return Err(StartError::QueuesAndLcores { queues, lcores }),
        };

        let pools = self.pools(eal, id, queues)?;
        let config = PortConfig {
            pools: pools.iter().map(|pools| pools.rx.clone()).collect(),
            rx_descriptors: RX_DESCRIPTORS,
            tx_descriptors: TX_DESCRIPTORS,
            mtu: self.mtu,
            mac: (interface.mac != NO_MAC).then_some(interface.mac.0),
            rx_timestamps: self.rx_timestamps,
            ..PortConfig::default()
        };
        let mut port = Port::configure(id, config)?;
        let pairs = port.start()?;
        interface.mac = MacAddr(port.mac());
        interface.mtu = port.mtu();
        let mut groups: Vec<_> = interface.groups().map(|group| ipv6::group_mac(group).0).collect();
        if !groups.is_empty() {
            if interface.mtu < LEAST_MTU_OF_IPV6 {
                return Err(StartError::BadMtuOfIpv6(interface.mtu));
            }
            port.join(&mut groups);
        }
        let engine = EngineConfig {
            settings: self.settings.clone(),
            interface,
            secret: Secret::new(random_key()),
            key: HashKey::random(),
            max_connections: self.max_connections,
        };
        Ok(Prepared { eal, port, pairs, pools, engine })
    }

    /// What was said about the interface, checked. Ethernet address and MTU may be the device's.
    fn interface(&self) -> Result<Interface, StartError> {
        let mac = match &self.mac {
            None => NO_MAC,
            Some(text) => text
                .parse()
                .ok()
                .filter(|mac: &MacAddr| !mac.is_multicast() && *mac != NO_MAC)
                .ok_or_else(|| StartError::BadMac(text.clone()))?,
        };
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < LEAST_MTU) {
            return Err(StartError::BadMtu(mtu));
        }
        let mut interface = Interface::new(mac, LEAST_MTU);
        for text in &self.addresses {
            let bad = || StartError::BadAddress(text.clone());
            let net = text.parse().ok().filter(Net::is_of_a_host).ok_or_else(bad)?;
            if interface.nets().len() == MOST_ADDRESSES || interface.is_ours(net.addr) {
                return Err(StartError::TooManyAddresses(text.clone()));
            }
            interface = interface.with_net(net);
        }
        if interface.nets().is_empty() {
            return Err(StartError::NoAddress);
        }
        for text in &self.gateways {
            let fits = |gateway: &IpAddr| {
                !interface.is_ours(*gateway)
                    && interface.is_on_link(*gateway)
                    && interface.gateway(Family::of(*gateway)).is_none()
            };
            let gateway: Option<IpAddr> = text.parse().ok().filter(fits);
            let gateway = gateway.ok_or_else(|| StartError::BadGateway {
                gateway: text.clone(),
                address: self.addresses.join(", "),
            })?;
            interface = interface.with_gateway(gateway);
        }
        Ok(interface)
    }

    /// Whether the pool asked for leaves anything to sockets.
    fn check_mbufs(&self) -> Result<(), StartError> {
        let reserve = plan(RX_DESCRIPTORS).reserve();
        let least = reserve + LEAST_HELD;
        match self.mbufs {
            Some(mbufs) if mbufs < least => Err(StartError::TooFewMbufs { mbufs, reserve, least }),
            _ => Ok(()),
        }
    }

    /// The port that was asked for, or the only one.
    fn choose_port(&self, ports: &[PortId]) -> Result<PortId, StartError> {
        let name = |port: &PortId| port.name().unwrap_or_else(|| port.number().to_string());
        let names = || ports.iter().map(name).collect::<Vec<_>>().join(", ");
        match (&self.port, ports) {
            (None, [only]) => Ok(*only),
            (None, _) => Err(StartError::SeveralPorts { names: names() }),
            (Some(wanted), _) => ports
                .iter()
                .find(|port| name(port) == *wanted || port.number().to_string() == *wanted)
                .copied()
                .ok_or_else(|| StartError::NoSuchPort { wanted: wanted.clone(), names: names() }),
        }
    }

    /// The pools of each lcore.
    fn pools(
        &self,
        eal: &'static Eal,
        port: PortId,
        queues: usize,
    ) -> Result<Vec<Pools>, StartError> {
        // Where the device scatters long frames over several, large ones would be a waste on short
        // frames, each of which keeps a whole one.
        let mtu = if port.scatters() { 0 } else { self.mtu.unwrap_or(0) };
        let room = self.buffer_room.unwrap_or(DATA_ROOM).max(mtu.saturating_add(FRAME_OVERHEAD));
        let data_room = room.next_multiple_of(64) + HEADROOM;
        let make = |mbufs: u32| -> Result<Vec<Pools>, PoolError> {
            let pools = (0..queues).map(|lcore| {
                let numa_node = eal.lcores().get(lcore).map(|lcore| lcore.numa_node);
                let config = PoolConfig {
                    mbufs,
                    cache: CACHE,
                    data_room,
                    numa_node,
                    ..PoolConfig::default()
                };
                let rx = Mempool::new(eal, &config)?;
                let spare = SpareMbufs::new(eal, mbufs, numa_node)?;
                let data_room = DATA_ROOM + HEADROOM;
                let config = PoolConfig { mbufs: TX_MBUFS, cache: TX_CACHE, data_room, ..config };
                Ok(Pools { rx, tx: Mempool::new(eal, &config)?, spare })
            });
            pools.collect()
        };
        if let Some(mbufs) = self.mbufs {
            return Ok(make(mbufs)?);
        }
        let [more @ .., least] = MBUFS;
        match more.into_iter().find_map(|mbufs| make(mbufs).ok()) {
            Some(pools) => Ok(pools),
            None => Ok(make(least)?),
        }
    }
}

/// A port at work, and all that an engine needs.
pub(crate) struct Prepared {
    pub eal: &'static Eal,
    pub port: Port,
    pub pairs: Vec<(RxQueue, TxQueue)>,
    pub pools: Vec<Pools>,
    pub engine: EngineConfig,
}

/// What of an lcore's pool is never lent to sockets. What is sent has a pool of its own.
pub(crate) fn plan(rx_descriptors: u16) -> PoolPlan {
    let rx_descriptors = rx_descriptors.into();
    PoolPlan { rx_descriptors, tx_descriptors: 0, held: 0, cache: CACHE }
}

/// The pools of one lcore.
#[derive(Debug)]
pub(crate) struct Pools {
    pub rx: Mempool,
    pub tx: Mempool,
    pub spare: SpareMbufs,
}

/// Where an lcore's fragments wait, if the settings want them put together: for as many datagrams as
/// they allow, but no more than an eighth of the pool.
pub(crate) fn fragments(
    eal: &'static Eal,
    settings: &Settings,
    pools: &Pools,
    numa_node: u32,
) -> Result<Option<Fragments>, FragmentsError> {
    if !settings.ip_reassembly {
        return Ok(None);
    }
    let truesize = pools.rx.frame_room() + u32::from(HEADROOM);
    let allowed = settings.ipfrag_high_thresh / (Fragments::MOST * truesize);
    let datagrams = allowed.min(pools.rx.capacity() / 8 / Fragments::MOST);
    Fragments::new(eal, datagrams, settings.ipfrag_time, Some(numa_node)).map(Some)
}

/// No Ethernet address was given: the device's is taken.
const NO_MAC: MacAddr = MacAddr([0; 6]);

/// Datagrams that every IPv4 host takes (RFC 791).
const LEAST_MTU: u16 = 576;

/// Datagrams that every link of IPv6 takes (RFC 8200 §5).
const LEAST_MTU_OF_IPV6: u16 = 1280;

/// 128 random bits.
fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    for half in key.chunks_exact_mut(8) {
        half.copy_from_slice(&HashKey::random().mix(0, 0).to_le_bytes());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(builder: StackBuilder) -> String {
        builder.start().expect_err("should be refused").to_string()
    }

    fn with_args() -> StackBuilder {
        Stack::builder().eal_args(["-l", "0"]).address("10.99.0.2/24")
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_starts() {
        assert!(error(Stack::builder().address("10.99.0.2/24")).contains("--vdev=net_tap0"));
        assert!(error(Stack::builder().eal_args(["-l", "0"])).contains("10.99.0.2/24"));
        for address in [
            "",
            "10.99.0.2",
            "10.99.0/24",
            "10.99.0.2/33",
            "10.99.0.255/24",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "fd00::2",
            "fd00::2/129",
            "::1/128",
            "ff02::1/16",
            "::ffff:10.0.0.1/96",
        ] {
            let text = error(with_args().address(address));
            assert!(text.contains(&format!("{address:?}")), "{text}");
        }
        for gateway in ["10.98.0.1", "10.99.0.2", "10.99.0.255", "router"] {
            assert!(error(with_args().gateway(gateway)).contains(gateway));
        }
        let second = error(with_args().gateway("10.99.0.1").gateway("10.99.0.3"));
        assert!(second.contains("one for IPv4"), "{second}");
        let twice = error(with_args().address("10.99.0.2/16"));
        assert!(twice.contains("\"10.99.0.2/16\""), "{twice}");
        let many = (3..20).fold(with_args(), |b, n| b.address(format!("10.99.0.{n}/24")));
        assert!(error(many).contains("\"10.99.0.10/24\""));
        for gateway in ["fe80::1", "fd00::1"] {
            assert!(error(with_args().gateway(gateway)).contains(gateway), "there is no IPv6");
        }
        for mac in ["02:00", "01:00:00:00:00:01", "00:00:00:00:00:00"] {
            assert!(error(with_args().mac(mac)).contains(mac));
        }
        assert!(error(with_args().mtu(500)).contains("576"));
        assert!(error(with_args().buffer_room(255)).contains("256"));
        assert!(error(with_args().mbufs(1023)).contains("1648 at least"));
    }

    #[test]
    fn a_gateway_on_the_link_is_taken() {
        let interface = with_args().gateway("10.99.0.1").interface().unwrap();
        assert_eq!(interface.gateway(Family::V4), Some([10, 99, 0, 1].into()));
        assert_eq!(
            interface.to_string(),
            "10.99.0.2/24 (00:00:00:00:00:00, MTU 576, gateway 10.99.0.1)"
        );
        let both = with_args().address("fd00:99::2/64").gateway("fe80::1").gateway("10.99.0.1");
        assert_eq!(
            both.interface().unwrap().to_string(),
            "10.99.0.2/24, fd00:99::2/64 (00:00:00:00:00:00, MTU 576, gateway 10.99.0.1, \
             gateway fe80::1)"
        );
    }
}
