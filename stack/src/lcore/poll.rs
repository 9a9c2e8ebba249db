//! The poll loop of one lcore: a queue pair, an engine, and the thread that drives both.
//!
//! Each lcore has a thread of ours, pinned to its CPU and registered with the EAL, which reads the
//! clock once per burst and never sleeps. Where pollers leave no CPU to anybody else they yield when
//! idle. It publishes its counters now and then, and ends when it is told to: sockets first, then
//! the buffers, then the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::dpdk::{
    Clock, Eal, EalThread, Lcore, Mbuf, Mempool, PoolOwner, PoolPlan, RxQueue, SpareMbufs, TxQueue,
};
use crate::socket::{Mode, Threaded};
use crate::tcp::{Counter, Counters};

use super::census::{Census, Desk};
use super::claims::Role;
use super::drive::Drive;
use super::engine::{Engine, Population};
use super::fault::Faults;

/// Polls between two publications of the counters while there is work: some hundred microseconds.
const POLLS_PER_SNAPSHOT: u32 = 1024;

/// Idle polls before a poller that shares its CPU lets others run: about ten microseconds, the time
/// in which an answer to what was just sent may come.
const IDLE_POLLS: u32 = 200;

/// What a poll loop is made of.
#[derive(Debug)]
pub(crate) struct PollLoop {
    pub lcore: Lcore,
    pub rx: RxQueue,
    pub tx: TxQueue,
    /// For what is received.
    pub pool: Mempool,
    /// For what is sent: small, and never held by a socket, so that ACKs go out however full the
    /// other is.
    pub tx_pool: Mempool,
    /// For what is acknowledged and not read, when the pool runs out.
    pub spare: SpareMbufs,
    pub plan: PoolPlan,
    pub engine: Engine<Mbuf>,
    pub clock: Clock,
    pub faults: Faults,
    /// Let others run when idle.
    pub yields: bool,
    /// What this lcore does to claim the addresses; they are just used if nothing.
    pub claims: Option<Role>,
    pub board: Arc<Board>,
}

/// What an lcore shows to other threads, and the one thing that it is told.
#[derive(Debug)]
pub(crate) struct Board {
    stop: AtomicBool,
    listeners_version: AtomicU32,
    counters: [AtomicU64; Counter::ALL.len()],
    population: [AtomicU32; 3],
    standings: AtomicU32,
    /// Where its largest holders of buffers are asked for.
    pub desk: Desk,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            stop: AtomicBool::new(false),
            listeners_version: AtomicU32::new(0),
            counters: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            population: [const { AtomicU32::new(0) }; 3],
            standings: AtomicU32::new(0),
            desk: Desk::default(),
        }
    }
}

// Relaxed throughout: each number stands for itself, with a single writer; a snapshot may mix two
// moments.
impl Board {
    /// Tells the lcore to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The version of the list of listeners that the lcore knows.
    pub fn listeners_version(&self) -> u32 {
        self.listeners_version.load(Ordering::Relaxed)
    }

    /// Adds the lcore's counters to `sum`.
    pub fn add_to(&self, sum: &mut Counters) {
        for (counter, value) in Counter::ALL.iter().zip(&self.counters) {
            sum.add(*counter, value.load(Ordering::Relaxed));
        }
    }

    /// What the lcore holds.
    pub fn population(&self) -> Population {
        let [sockets, requests, time_waits] =
            self.population.each_ref().map(|n| n.load(Ordering::Relaxed));
        Population { sockets, requests, time_waits }
    }

    /// How the addresses stand, for [`Interface::with_standings`](super::Interface::with_standings).
    pub fn standings(&self) -> u32 {
        self.standings.load(Ordering::Relaxed)
    }

    fn publish<M: Mode<Mbuf>>(&self, engine: &Engine<Mbuf, M>) {
        for (place, value) in self.counters.iter().zip(engine.counters().values()) {
            place.store(*value, Ordering::Relaxed);
        }
        self.standings.store(engine.interface().standings(), Ordering::Relaxed);
        let Population { sockets, requests, time_waits } = engine.population();
        for (place, value) in self.population.iter().zip([sockets, requests, time_waits]) {
            place.store(value, Ordering::Relaxed);
        }
    }
}

/// What is done after each poll for those who look at an lcore.
#[derive(Debug)]
pub(crate) struct Shown {
    pub board: Arc<Board>,
    census: Census,
    until_snapshot: u32,
    was_busy: bool,
}

impl Shown {
    pub fn new(board: Arc<Board>) -> Self {
        let census = Census::default();
        Self { board, census, until_snapshot: POLLS_PER_SNAPSHOT, was_busy: true }
    }

    /// Answers, and publishes the counters now and then. `busy` is what the poll returned.
    #[inline]
    pub fn after_poll<M: Mode<Mbuf>>(&mut self, drive: &mut Drive<M>, busy: bool) {
        let Drive { engine, now, .. } = drive;
        self.census.work(engine, &self.board.desk, *now);
        self.until_snapshot -= 1;
        // The first idle poll after work: whoever waits for it to be counted sees it.
        let turned_idle = self.was_busy && !busy;
        self.was_busy = busy;
        if self.until_snapshot == 0 || turned_idle {
            self.until_snapshot = POLLS_PER_SNAPSHOT;
            self.board.publish(engine);
        }
    }
}

impl PollLoop {
    /// Runs until told to stop. `ready` is called when the thread is pinned, registered and owns its
    /// pools, or with the reason why it cannot; in the latter case that was all.
    pub fn run(self, eal: &'static Eal, ready: impl FnOnce(Result<(), String>)) {
        let Self { lcore, pool, tx_pool, spare, .. } = &self;
        if !core_affinity::set_for_current(core_affinity::CoreId { id: lcore.cpu as usize }) {
            return ready(Err(format!(
                "cannot pin the thread of {lcore}: is that CPU allowed to this process (taskset, cgroup)?"
            )));
        }
        // Given up last, in this order, when no buffer of theirs is left on this thread.
        let _claims = match Claims::of_this_thread(eal, pool, tx_pool, spare) {
            Ok(claims) => claims,
            Err(reason) => return ready(Err(reason)),
        };
        ready(Ok(()));
        Running::new(self).poll();
    }
}

/// What makes a thread an lcore: the EAL knows it, and the pools are its own. Given up in this order.
#[derive(Debug)]
pub(crate) struct Claims {
    _pools: [PoolOwner; 4],
    _thread: EalThread,
}

impl Claims {
    /// For the calling thread; or the reason why not.
    pub fn of_this_thread(
        eal: &'static Eal,
        rx: &Mempool,
        tx: &Mempool,
        spare: &SpareMbufs,
    ) -> Result<Self, String> {
        let thread = EalThread::register(eal).map_err(|error| error.to_string())?;
        let own = |pool: &Mempool| pool.own().map_err(|error| error.to_string());
        let [small, large] = spare.pools();
        Ok(Self { _pools: [own(rx)?, own(tx)?, own(small)?, own(large)?], _thread: thread })
    }
}

/// A poll loop at work. Dropping it, also in a panic, leaves no thread asleep on its sockets.
#[derive(Debug)]
struct Running {
    drive: Drive<Threaded>,
    yields: bool,
    shown: Shown,
}

impl Running {
    fn new(parts: PollLoop) -> Self {
        let PollLoop {
            lcore: _,
            rx,
            tx,
            pool,
            tx_pool,
            spare,
            plan,
            engine,
            clock,
            faults,
            yields,
            claims,
            board,
        } = parts;
        let pools = (pool, tx_pool, spare);
        let mut drive = Drive::new(engine, (rx, tx), pools, plan, clock, faults);
        if let Some(role) = claims {
            drive.claim_addresses(role);
        }
        Self { drive, yields, shown: Shown::new(board) }
    }

    fn poll(&mut self) {
        let mut idle = 0_u32;
        let board = self.shown.board.clone();
        while !board.stop.load(Ordering::Relaxed) {
            let busy = self.drive.poll();
            idle = if busy { 0 } else { idle.saturating_add(1) };
            self.shown.after_poll(&mut self.drive, busy);
            let version = self.drive.engine.listeners_version();
            if version != board.listeners_version() {
                board.listeners_version.store(version, Ordering::Relaxed);
            }
            if idle >= IDLE_POLLS {
                if self.yields {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drive.stop();
        self.shown.board.publish(&self.drive.engine);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{Ipv4Addr, SocketAddrV4};
    use std::time::{Duration, Instant};

    use crate::buf::PacketBuf;
    use crate::dpdk::Burst;
    use crate::dpdk::ring_port::RingPort;
    use crate::dpdk::{PoolConfig, PortConfig, Sharing, TEST_ARGS};
    use crate::lcore::hash::HashKey;
    use crate::lcore::{EngineConfig, Interface, engines};
    use crate::socket::{RecvFlags, TcpListener};
    use crate::tcp::Settings;
    use crate::tcp::isn::Secret;
    use crate::wire::arp::{self, Arp};
    use crate::wire::{Flags, FourTuple, MacAddr, Outgoing, ethernet, parse_tcp, tcp};

    use super::*;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    /// A peer at the other end of the rings, which talks in frames.
    struct Peer {
        rx: RxQueue,
        tx: TxQueue,
        pool: Mempool,
        /// Of the connection that it talks on.
        port: u16,
    }

    impl Peer {
        fn send(&mut self, frame: &[u8]) {
            let mut burst = Burst::<1>::new();
            let mut mbuf = self.pool.alloc().expect("the peer's pool is large enough");
            assert!(mbuf.append(frame) && burst.push(mbuf).is_ok());
            assert_eq!(self.tx.send(&mut burst), 1);
        }

        fn receive(&mut self) -> Vec<u8> {
            let end = Instant::now() + Duration::from_secs(10);
            let mut burst = Burst::<1>::new();
            while self.rx.rx(&mut burst) == 0 {
                assert!(Instant::now() < end, "a frame should come");
                std::thread::yield_now();
            }
            burst.as_slice()[0].data().to_vec()
        }

        /// Opens a connection; the number that it acknowledges.
        fn connect(&mut self) -> u32 {
            self.segment(Flags::SYN, 99, 0, &[]);
            // Behind what is left of other connections.
            let syn_ack = loop {
                let segment = parse_tcp(&self.receive(), Default::default()).unwrap().segment;
                if segment.flags.has(Flags::SYN) {
                    break segment;
                }
            };
            let ack = syn_ack.seq.wrapping_add(1);
            self.segment(Flags::ACK, 100, ack, &[]);
            ack
        }

        fn segment(&mut self, flags: Flags, seq: u32, ack: u32, payload: &[u8]) {
            let tuple = FourTuple {
                local_addr: PEER_ADDR.into(),
                remote_addr: OUR_ADDR.into(),
                local_port: self.port,
                remote_port: 7000,
            };
            let out = Outgoing { seq, ack, flags, window: 1000, ..Outgoing::default() };
            let mut frame = vec![0; 100 + payload.len()];
            let at = ethernet::emit(&mut frame, US, PEER, None, ethernet::IPV4);
            let len = tcp::emit(&mut frame[at..], &tuple, &out, 0, payload);
            self.send(&frame[..at + len]);
        }
    }

    #[test]
    fn a_thread_polls_and_leaves_nothing_behind() {
        let eal = Eal::init(TEST_ARGS).unwrap();
        let pool = || {
            let config = PoolConfig {
                mbufs: 1023,
                cache: 32,
                sharing: Sharing::AnyThread,
                ..PoolConfig::default()
            };
            Mempool::new(eal, &config).unwrap()
        };
        let (pool, tx_pool, peer_pool) = (pool(), pool(), pool());
        let (near, far) = RingPort::pair(eal, 1, 256).unwrap();
        let config =
            |pool: &Mempool| PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
        let mut near = near.configure(config(&pool)).unwrap();
        let mut far = far.configure(config(&peer_pool)).unwrap();
        let (rx, tx) = near.start().unwrap().pop().unwrap();
        let (peer_rx, peer_tx) = far.start().unwrap().pop().unwrap();
        let mut peer = Peer { rx: peer_rx, tx: peer_tx, pool: peer_pool.clone(), port: 40_000 };

        let config = EngineConfig {
            settings: Settings::default(),
            interface: Interface::new(US, 1500).with_address(OUR_ADDR, 24),
            secret: Secret::from_seed(1),
            key: HashKey::random(),
            max_connections: 10,
        };
        let (mut engines, listeners) = engines(&config, 1);
        let board = Arc::new(Board::default());
        let poll_loop = PollLoop {
            lcore: eal.lcores()[0],
            rx,
            tx,
            pool: pool.clone(),
            tx_pool: tx_pool.clone(),
            spare: SpareMbufs::new(eal, 1023, None).unwrap(),
            plan: PoolPlan { rx_descriptors: 0, tx_descriptors: 0, held: 0, cache: 32 },
            engine: engines.pop().unwrap(),
            clock: Clock::new(eal),
            faults: Faults::default(),
            yields: true,
            claims: None,
            board: board.clone(),
        };
        let lcore = std::thread::spawn(move || poll_loop.run(eal, |outcome| outcome.unwrap()));
        let queue = listeners.listen(7000, 5).unwrap();
        let listener = TcpListener::new(queue, SocketAddrV4::new(OUR_ADDR, 7000));
        while board.listeners_version() != listeners.version() {
            std::thread::yield_now();
        }

        let mut frame = [0; 60];
        let at = ethernet::emit(&mut frame, MacAddr::BROADCAST, PEER, None, ethernet::ARP);
        arp::emit(&mut frame[at..], &Arp::question(PEER, PEER_ADDR, OUR_ADDR));
        peer.send(&frame);
        assert_eq!(arp::parse(&peer.receive()[at..]).unwrap().sender_mac, US);

        let ack = peer.connect();
        let (mut stream, _) = listener.accept().unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut seq = 100;
        for n in 0..200_u8 {
            peer.segment(Flags::ACK, seq, ack, &[n; 100]);
            seq += 100;
            // The receive buffer takes some fifty; ACKs say how far it has come.
            while n % 20 == 19
                && parse_tcp(&peer.receive(), Default::default()).unwrap().segment.ack != seq
            {
            }
        }
        peer.segment(Flags::FIN.with(Flags::ACK), seq, ack, &[]);
        let bytes = reader.join().unwrap().unwrap();
        assert_eq!(bytes.len(), 20_000);
        assert!(bytes.chunks(100).zip(0_u8..).all(|(chunk, n)| chunk == [n; 100]));

        // One is held longer than the lcore lives: with data that was looked at, that was not, that
        // waits above a hole; and one waits to be accepted.
        peer.port += 1;
        let ack = peer.connect();
        let (held, _) = listener.accept().unwrap();
        peer.segment(Flags::ACK, 100, ack, &[1; 1000]);
        assert_eq!(held.peek(&mut [0; 1000]).unwrap(), 1000);
        peer.segment(Flags::ACK, 1100, ack, &[2; 1000]);
        peer.segment(Flags::ACK, 2101, ack, &[3; 1000]);
        while !held.lock().connection().has_out_of_order() {
            std::thread::yield_now();
        }
        peer.port += 1;
        peer.connect();
        while listener.queue().is_empty() {
            std::thread::yield_now();
        }

        board.stop();
        lcore.join().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(held.recv(&mut [0; 2000], RecvFlags::NONE).unwrap(), 1000);
        let error = held.recv(&mut [0; 2000], RecvFlags::NONE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        drop((held, listener));
        let mut counters = Counters::default();
        board.add_to(&mut counters);
        assert_eq!(counters.value(Counter::PassiveOpens), 3);
        assert_eq!(board.population(), Population::default());
        // Closing the ports empties the rings.
        drop((peer, near, far));
        for pool in [pool, tx_pool, peer_pool] {
            assert_eq!(pool.in_use(), 0, "every mbuf is back");
        }
    }
}
