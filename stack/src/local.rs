//! Run to completion: a stack that the application's own thread polls and reads, with no other in
//! between.
//!
//! The same builder, device, engine and step of a read as [`Stack`](crate::Stack), and no poll
//! thread, ring, atomic operation or lock: a poll takes a burst, runs TCP on it, sends the answers,
//! and returns with the bytes where the device has put them. For whoever wants the first byte as
//! early as it can be had, and has a CPU to spend on it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::dpdk::{Clock, Lcore, Link, Mbuf, Mempool, Port, PortStats};
use crate::lcore::drive::Drive;
use crate::lcore::poll::{Board, Claims, Shown};
use crate::lcore::{
    Bind, Holder, HolderScan, Interface, Listeners, Population, Role, local_engine,
};
use crate::sight::Sight;
use crate::socket::{self, Local, LocalBlocking, SocketId};
use crate::stack::{
    ListenError, ListenOptions, Prepared, StackBuilder, StartError, bind_to, fragments, plan,
};
use crate::tcp::{Counters, Settings};
use crate::time::Instant;

/// A connection of a [`LocalStack`].
///
/// See [`socket::LocalStream`] for all it can do. It stays on its thread; dropping it closes the
/// connection.
///
/// ```no_run
/// use prequeue::LocalStream;
/// use prequeue::socket::Arrival;
///
/// /// The first segment that waits: its length, and when it came.
/// fn first(stream: &mut LocalStream) -> std::io::Result<Option<(usize, Arrival)>> {
///     let mut segments = stream.segments()?;
///     Ok(segments.next_segment().map(|segment| (segment.len(), segment.view().arrival())))
/// }
/// ```
pub type LocalStream = socket::LocalStream<Mbuf>;

/// A listener of a [`LocalStack`].
///
/// See [`socket::LocalListener`] for all it can do. It stays on its thread; dropping it closes the
/// port.
///
/// ```no_run
/// use prequeue::{LocalListener, LocalStack};
///
/// fn first(stack: &mut LocalStack, listener: &LocalListener) -> prequeue::LocalStream {
///     loop {
///         stack.poll();
///         if let Ok((stream, _peer)) = listener.accept() {
///             return stream;
///         }
///     }
/// }
/// ```
pub type LocalListener = socket::LocalListener<Mbuf>;

/// A stack that belongs to the thread that has started it, on one queue pair of a port.
///
/// Nothing happens between two calls of [`poll`](Self::poll): who does not poll does not acknowledge,
/// and peers send again, slow down and give up in the end. The thread is registered with the EAL and
/// owns the packet pools as long as this lives; it stays on this thread, and so does everything that
/// comes of it. For the lowest latency it should have its CPU to itself: [`pin`](Self::pin).
///
/// ```no_run
/// use std::collections::HashMap;
/// use std::io;
///
/// use prequeue::Stack;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut stack = Stack::builder()
///     .eal_args(["-l", "1", "-a", "0000:01:00.0"])
///     .address("192.0.2.10/24")
///     .start_local()?;
/// stack.pin();
/// let listener = stack.listen(7000)?;
/// let mut streams = HashMap::new();
/// loop {
///     stack.poll();
///     while let Ok((stream, _peer)) = listener.accept() {
///         streams.insert(stream.id(), stream);
///     }
///     while let Some(id) = stack.next_readable() {
///         let Some(stream) = streams.get_mut(&id) else { continue };
///         let seen = stream.read_in_place(|segment| {
///             println!("{} bytes, {:?}", segment.data().len(), segment.arrival());
///         });
///         let ended = match seen {
///             Ok(bytes) => bytes == 0,
///             Err(error) => error.kind() != io::ErrorKind::WouldBlock,
///         };
///         if ended {
///             streams.remove(&id);
///         }
///     }
/// }
/// # }
/// ```
///
/// ```compile_fail,E0277
/// fn elsewhere<T: Send>() {}
/// elsewhere::<prequeue::LocalStack>();
/// ```
pub struct LocalStack {
    drive: Drive<Local>,
    listeners: Listeners<Mbuf, Local>,
    port: Port,
    interface: Interface,
    settings: Settings,
    pool: Mempool,
    lcore: Lcore,
    shown: Shown,
    /// What is shown through DPDK's telemetry socket, for as long as the stack lives.
    _sight: Arc<Sight>,
    // Given up last, when nothing of ours is freed on this thread any more.
    _claims: Claims,
}

impl StackBuilder {
    /// Starts a stack without poll threads on the first queue pair: the calling thread polls. Of the
    /// CPUs in the EAL's `-l` the first is where [`LocalStack::pin`] goes; the number of
    /// [`queues`](Self::queues) is one, whatever was said.
    ///
    /// # Errors
    /// See [`StartError`]: each says what to do.
    pub fn start_local(self) -> Result<LocalStack, StartError> {
        let Prepared { eal, port, mut pairs, mut pools, engine } = self.prepare(Some(1))?;
        let (Some(pair), Some(pools)) = (pairs.pop(), pools.pop()) else {
            return Err(StartError::QueuesAndLcores { queues: 0, lcores: eal.lcores().len() });
        };
        let claims = Claims::of_this_thread(eal, &pools.rx, &pools.tx, &pools.spare);
        let claims = claims.map_err(StartError::Thread)?;
        let interface = engine.interface;
        let settings = engine.settings.clone();
        let fragments = fragments(eal, &settings, &pools, eal.lcores()[0].numa_node)?;
        let (mut engine, listeners) = local_engine(&engine);
        if let Some(fragments) = fragments {
            engine.set_reassembly(Box::new(fragments));
        }
        let clock = Clock::new(eal);
        engine.home().set_clock(move || clock.now());
        let plan = plan(pair.0.descriptors());
        let pool = pools.rx.clone();
        let pools = (pools.rx, pools.tx, pools.spare);
        let mut drive = Drive::new(engine, pair, pools, plan, clock, self.faults);
        drive.claim_addresses(Role::Speaks);
        let lcore = eal.lcores()[0];
        let board = Arc::new(Board::default());
        let sight = Sight {
            settings: settings.clone(),
            interface,
            device: port.id().name().unwrap_or_default(),
            lcores: vec![lcore],
            boards: vec![board.clone()],
            pools: vec![pool.clone()],
            // Listeners of this kind stay on their thread.
            listening: Box::new(Vec::new),
            list: Mutex::default(),
        };
        let (shown, _sight) = (Shown::new(board), sight.show(eal));
        let _claims = claims;
        Ok(LocalStack {
            drive,
            listeners,
            port,
            interface,
            settings,
            pool,
            lcore,
            shown,
            _sight,
            _claims,
        })
    }
}

impl LocalStack {
    /// Takes a burst from the device, runs what is due (segments, timers, what streams have asked for)
    /// and sends what is to be sent. It never waits. Whether there was anything to do.
    pub fn poll(&mut self) -> bool {
        let busy = self.drive.poll();
        self.shown.after_poll(&mut self.drive, busy);
        busy
    }

    /// The next connection to which something has happened since it was last given: data, the end of
    /// the stream, an error. One that is read in part, or has its end behind the data, is given again;
    /// one that is not read at all is not. Connections that nobody has accepted are not among them.
    pub fn next_readable(&mut self) -> Option<SocketId> {
        self.drive.engine.home().next_ready()
    }

    /// Reads of a stream that wait: they poll until there is what they want, or its time limit has
    /// passed. Other connections are served meanwhile, but not read.
    ///
    /// ```no_run
    /// use std::io::Read;
    /// use std::time::Duration;
    ///
    /// use prequeue::{LocalListener, LocalStack};
    ///
    /// fn greeting(stack: &mut LocalStack, listener: &LocalListener) -> std::io::Result<[u8; 16]> {
    ///     let (mut stream, _peer) = stack.accept(listener)?;
    ///     stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    ///     let mut greeting = [0; 16];
    ///     stack.blocking(&mut stream).read_exact(&mut greeting)?;
    ///     Ok(greeting)
    /// }
    /// ```
    pub fn blocking<'a>(
        &'a mut self,
        stream: &'a mut LocalStream,
    ) -> LocalBlocking<'a, Mbuf, impl FnMut() -> Instant + use<'a>> {
        stream.polling(|| self.poll_and_look())
    }

    /// Takes the oldest connection, and polls until there is one, or the listener's time limit
    /// ([`set_accept_timeout`](socket::LocalListener::set_accept_timeout)) has passed.
    ///
    /// # Errors
    /// `WouldBlock` if none has come in time.
    pub fn accept(&mut self, listener: &LocalListener) -> io::Result<(LocalStream, SocketAddr)> {
        listener.accept_polling(|| self.poll_and_look())
    }

    /// One poll, and the time behind it.
    fn poll_and_look(&mut self) -> Instant {
        self.poll();
        self.drive.clock.now()
    }

    /// Listens on a port, at every address, with the usual backlog.
    ///
    /// # Errors
    /// If there is a listener already, or the port is 0.
    pub fn listen(&mut self, port: u16) -> Result<LocalListener, ListenError> {
        self.listen_with(port, ListenOptions::default())
    }

    /// Listens on a port, at every address.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub fn listen_with(
        &mut self,
        port: u16,
        options: ListenOptions,
    ) -> Result<LocalListener, ListenError> {
        let to = (port, Bind::ALL);
        let queue = bind_to(&self.listeners, &self.interface, &self.settings, to, options)?;
        self.drive.turn();
        Ok(LocalListener::new(queue, self.interface.listening_at(port)))
    }

    /// Listens at an address and port of ours: see [`Stack::listen_at`](crate::Stack::listen_at).
    ///
    /// # Errors
    /// As [`Self::listen`], or if the address is not the stack's.
    pub fn listen_at(
        &mut self,
        local: SocketAddr,
        options: ListenOptions,
    ) -> Result<LocalListener, ListenError> {
        let to = (local.port(), Bind::at(local.ip(), options.only_v6));
        let queue = bind_to(&self.listeners, &self.interface, &self.settings, to, options)?;
        self.drive.turn();
        let listener = LocalListener::new(queue, local);
        Ok(if local.is_ipv6() { listener.with_mapped_addresses() } else { listener })
    }

    /// Pins the calling thread to the first CPU of the EAL's `-l`; whether that was allowed.
    pub fn pin(&self) -> bool {
        core_affinity::set_for_current(core_affinity::CoreId { id: self.lcore.cpu as usize })
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        self.drive.engine.counters()
    }

    /// When a poll will have something to do if nothing comes before, for who would rather not poll
    /// all the time.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.drive.engine.next_deadline()
    }

    /// The clock that this stack goes by: what times of arrival are read from.
    pub fn clock(&self) -> Clock {
        self.drive.clock
    }

    /// How many connections there are.
    pub fn population(&self) -> Population {
        self.drive.engine.population()
    }

    /// Packet buffers that are not in their pool: on the device's ring, in a queue, or lent.
    pub fn mbufs_in_use(&self) -> u32 {
        self.pool.in_use()
    }

    /// The connections that hold most of the packet buffers, largest first: up to sixteen.
    pub fn memory_holders(&mut self) -> Vec<Holder> {
        let mut scan = HolderScan::default();
        loop {
            if let Some(holders) = self.drive.engine.find_holders(&mut scan) {
                return holders;
            }
        }
    }

    /// Whether the device notes when it received each frame.
    pub fn rx_timestamps(&self) -> bool {
        self.port.rx_timestamps()
    }

    /// The device's own counters.
    pub fn port_stats(&self) -> PortStats {
        self.port.stats()
    }

    /// The state of the link.
    pub fn link(&self) -> Link {
        self.port.link()
    }

    /// The interface: addresses and MTU as they came to be, and how the addresses stand.
    pub fn interface(&self) -> &Interface {
        self.drive.engine.interface()
    }
}

/// Calls on what is left of it fail, and peers are told nothing, but for resets of the connections
/// that nobody had accepted.
impl Drop for LocalStack {
    fn drop(&mut self) {
        self.listeners.close_all();
        self.drive.turn();
        self.drive.stop();
    }
}

impl fmt::Debug for LocalStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStack")
            .field("interface", &self.interface)
            .field("population", &self.population())
            .finish_non_exhaustive()
    }
}
