//! The engine of one lcore, without device, thread or clock: bursts and the time in, frames out.
//!
//! The poll loop drives it on an lcore's thread; tests, fuzzers and simulations drive it under a
//! virtual clock. It works by the burst: parse all, hash all, find all, then connection by
//! connection, each claimed once. It never waits, and allocates only when a connection opens.

use std::iter::Sum;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::buf::{Checksum, PacketBuf, Reassembly, Spare};
use crate::socket::{Local, Mode, Threaded};
use crate::tcp::isn::Secret;
use crate::tcp::ratelimit::RstLimiter;
use crate::tcp::{Counter, Counters, Settings};
use crate::time::Instant;
use crate::watch::Span;
use crate::wire::frame::{self, Station, TcpFrame};
use crate::wire::words::{self, Alike, Likeness, Words};
use crate::wire::{FourTuple, frame6};

use super::claims::Role;
use super::dispatch::Frame;
use super::flow::{Flow, FlowHash, Target};
use super::groups::{BURST, Groups};
use super::hash::HashKey;
use super::limits::{EchoLimit, ProblemLimit};
use super::memory::{Holder, HolderScan};
use super::mesh::{Mesh, Message, mesh};
use super::neighbour::{Neighbours, News};
use super::presence::Presence;
use super::shared::{Listeners, Shared};
use super::tables::Tables;
use super::work::{Base, Work};
use super::{Interface, Pressure, Transmit};

/// Messages of other lcores, and timers, that one turn takes: a burst's worth each, so that neither
/// keeps the RX queue waiting for long. What is left is taken in the next turn.
const PER_TURN: usize = BURST;

/// Timer entries that may fall a level in one turn; moving one takes a few nanoseconds.
const FALLS_PER_TURN: u32 = 256;

/// What an engine is made for.
///
/// See [`Engine`] for an example.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The settings of the stack.
    pub settings: Settings,
    /// The interface whose frames it gets.
    pub interface: Interface,
    /// Key of ISNs and timestamp offsets: the same for all engines of a stack.
    pub secret: Secret,
    /// Key of the tables.
    pub key: HashKey,
    /// Connections that the engine will hold, beside requests and TIME-WAIT entries.
    pub max_connections: u32,
}

/// The engine.
///
/// It belongs to the thread that polls with it; other threads reach its connections through listeners
/// and streams alone. Nothing it is given makes it fail: a reason to drop is a counter.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::lcore::hash::HashKey;
/// use prequeue::lcore::{EngineConfig, Interface, engines};
/// use prequeue::tcp::isn::Secret;
/// use prequeue::tcp::{Counter, Settings};
/// use prequeue::time::Instant;
/// use prequeue::wire::MacAddr;
///
/// let config = EngineConfig {
///     settings: Settings::default(),
///     interface: Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500).with_address([10, 0, 0, 1], 24),
///     secret: Secret::from_seed(1),
///     key: HashKey::new([1, 2]),
///     max_connections: 100,
/// };
/// let (mut engines, listeners) = engines::<HeapBuf>(&config, 1);
/// let _accept_queue = listeners.listen(7000, 128).expect("nobody listens there yet");
/// let mut sent: Vec<Vec<u8>> = Vec::new();
/// let mut burst = [Some(HeapBuf::new(b"too short for a frame"))];
/// engines[0].input(&mut burst, Instant::from_millis(1), &mut sent);
/// engines[0].turn(Instant::from_millis(1), &mut sent);
/// assert!(sent.is_empty());
/// assert_eq!(engines[0].counters().value(Counter::InSegs), 0);
/// ```
#[derive(Debug)]
pub struct Engine<B: PacketBuf, M: Mode<B> = Threaded> {
    base: Base,
    tables: Tables<B, M>,
}

/// The engines of a stack with `lcores` lcores, without connections, and the way to listen on them.
pub fn engines<B: PacketBuf>(
    config: &EngineConfig,
    lcores: usize,
) -> (Vec<Engine<B>>, Listeners<B>) {
    let listeners = Listeners::default();
    let mut mesh = mesh(lcores).into_iter();
    let engine = |_| Engine::new(config.clone(), listeners.shared().clone(), mesh.next());
    ((0..lcores).map(engine).collect(), listeners)
}

/// The engine of a stack that belongs to the thread that polls it, and the way to listen on it.
pub fn local_engine<B: PacketBuf>(
    config: &EngineConfig,
) -> (Engine<B, Local>, Listeners<B, Local>) {
    let listeners = Listeners::default();
    (Engine::new(config.clone(), listeners.shared().clone(), None), listeners)
}

/// Frames of one connection that follow each other, up to the next run.
#[derive(Clone, Copy, Debug)]
struct Run {
    flow: Flow,
    hash: FlowHash,
    start: usize,
}

/// The runs of a burst, in order.
type Runs = SmallVec<[Run; BURST]>;

impl<B: PacketBuf, M: Mode<B>> Engine<B, M> {
    fn new(config: EngineConfig, shared: Arc<Shared<B, M>>, mesh: Option<Mesh<B>>) -> Self {
        let EngineConfig { settings, interface, secret, key, max_connections } = config;
        let time_waits = settings.tcp_max_tw_buckets;
        Self {
            base: Base {
                settings,
                interface,
                secret,
                counters: Counters::default(),
                neighbours: Neighbours::new(interface, key),
                rsts: RstLimiter::new(secret),
                echoes: EchoLimit::default(),
                problems: ProblemLimit::default(),
                pressure: Pressure::None,
                presence: Presence::new(secret),
                pressed_since: Instant::ZERO,
            },
            tables: Tables::new(key, max_connections, time_waits, shared, mesh),
        }
    }

    /// Takes received frames out of `frames`, works on them, and sends what is due through `tx`.
    /// `now` is when they were read, and never goes back.
    pub fn input(&mut self, frames: &mut [Option<B>], now: Instant, tx: &mut impl Transmit) {
        let mut work = Work { base: &mut self.base, now, tx };
        for burst in frames.chunks_mut(BURST) {
            self.tables.input(&mut work, burst);
        }
    }

    /// Does what does not wait for frames: what threads rang for, buffers that came back, messages
    /// of other lcores, timers. To be called after each burst, and at [`Self::next_deadline`].
    /// Whether there was anything to do.
    pub fn turn(&mut self, now: Instant, tx: &mut impl Transmit) -> bool {
        let mut work = Work { base: &mut self.base, now, tx };
        self.tables.turn(&mut work)
    }

    /// When [`Self::turn`] should be called next if no frame and no ring comes before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let neighbours = self.base.neighbours.next_deadline();
        let fragments = self.tables.fragments.as_ref().and_then(|table| table.next_deadline());
        let presence = self.base.presence.next_deadline();
        let others = neighbours.into_iter().chain(fragments).chain(presence);
        self.tables.wheel.next_deadline().into_iter().chain(others).min()
    }

    /// Has the addresses be claimed from the next turn on: it is asked whether somebody else has one, they
    /// are announced and defended, and the groups of IPv6 reported. Of several engines one speaks.
    pub fn claim_addresses(&mut self, role: Role) {
        self.base.presence.begin(role);
    }

    /// The interface, and how its addresses stand.
    pub fn interface(&self) -> &Interface {
        &self.base.interface
    }

    /// Has fragments of TCP segments be put together from now on.
    pub fn set_reassembly(&mut self, fragments: Box<dyn Reassembly<B>>) {
        self.tables.fragments = Some(fragments);
    }

    /// Tells how far the buffer pool has been used up.
    pub fn set_pressure(&mut self, pressure: Pressure, now: Instant) {
        let Base { counters, pressure: before, pressed_since, .. } = &mut self.base;
        match (std::mem::replace(before, pressure), pressure) {
            (Pressure::None, Pressure::High | Pressure::Critical) => {
                counters.bump(Counter::TCPMemoryPressures);
                *pressed_since = now;
            }
            (Pressure::High | Pressure::Critical, Pressure::None) => {
                let span = now.since(*pressed_since).as_millis();
                counters.add(Counter::TCPMemoryPressuresChrono, span as u64);
            }
            _ => {}
        }
    }

    /// How far the buffer pool has been used up, as last told.
    pub fn pressure(&self) -> Pressure {
        self.base.pressure
    }

    /// Wins buffers back for the pool, from the largest holders first. To be called once per poll
    /// while there is [`pressure`](Self::set_pressure): the work of a call is bounded. How many
    /// buffers were won.
    pub fn relieve(
        &mut self,
        now: Instant,
        tx: &mut impl Transmit,
        spare: &mut impl Spare<B>,
    ) -> u32 {
        let mut work = Work { base: &mut self.base, now, tx };
        self.tables.relieve(&mut work, spare)
    }

    /// Goes on looking for the largest holders of buffers; they are told when all sockets have been
    /// seen, largest first. The work of a call is bounded.
    pub fn find_holders(&mut self, scan: &mut HolderScan) -> Option<Vec<Holder>> {
        self.tables.find_holders(scan)
    }

    pub(super) fn tables_mut(&mut self) -> &mut Tables<B, M> {
        &mut self.tables
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        &self.base.counters
    }

    /// Counts what the caller has found out, such as frames that the device did not take.
    pub fn count(&mut self, counter: Counter, n: u64) {
        self.base.counters.add(counter, n);
    }

    /// The settings, to be changed: they hold for what begins from now on.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.base.settings
    }

    /// The version of the list of listeners that the engine knows: see [`Listeners::version`].
    pub fn listeners_version(&self) -> u32 {
        self.tables.version
    }

    /// Tells where a neighbour is, as if it had been heard of.
    pub fn learn_neighbour(&mut self, news: News, now: Instant, tx: &mut impl Transmit) {
        self.base.neighbours.learn(news, now, tx);
    }

    /// Numbers of sockets, requests and TIME-WAIT entries.
    pub fn population(&self) -> Population {
        Population {
            sockets: self.tables.sockets.len(),
            requests: self.tables.requests.len(),
            time_waits: self.tables.time_waits.len(),
        }
    }

    /// What waits in the backlog of a connection, oldest first; nothing if there is none.
    pub fn backlog(&self, tuple: &FourTuple) -> Vec<Span> {
        match self.tables.flows.look_up(tuple) {
            Some(Target::Socket(index)) => self.tables.backlog(index),
            _ => Vec::new(),
        }
    }

    /// Where the application leaves things for the engine, and the engine for it.
    pub fn home(&self) -> &M::Home {
        &self.tables.home
    }

    /// Ends everything: each socket is marked dead and its sleepers are woken; no frame is sent.
    pub fn stop(&mut self) {
        self.tables.stop();
    }
}

/// How much an engine holds.
///
/// ```
/// use prequeue::lcore::Population;
///
/// let Population { sockets, requests, time_waits } = Population::default();
/// assert_eq!(sockets + requests + time_waits, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Population {
    /// Connections that have a socket, those included that the application has yet to let go of.
    pub sockets: u32,
    /// Half-open connections.
    pub requests: u32,
    /// TIME-WAIT entries, and orphans in FIN-WAIT-2.
    pub time_waits: u32,
}

impl Sum for Population {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |sum, Self { sockets, requests, time_waits }| Self {
            sockets: sum.sockets + sockets,
            requests: sum.requests + requests,
            time_waits: sum.time_waits + time_waits,
        })
    }
}

/// How many frames at the beginning of `places` are like `first`, and verified as it is.
#[inline(never)] // so that what it compares with stays in registers
fn count_like<B: PacketBuf>(first: &B, places: &[Option<B>]) -> usize {
    if first.checksum() != Checksum::Good {
        return 0;
    }
    let Some(likeness) = Likeness::of(first.data()) else { return 0 };
    let is_like =
        |frame: &B| frame.checksum() == Checksum::Good && likeness.is_that_of(frame.data());
    places.iter().take_while(|place| place.as_ref().is_some_and(is_like)).count()
}

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    fn input<T: Transmit>(&mut self, work: &mut Work<'_, T>, burst: &mut [Option<B>]) {
        self.free_returned();
        // Frames of one connection that follow each other are found with one look-up. Most are just like
        // the one before them, which is all that is looked at.
        let mut runs = Runs::new();
        let mut last = None;
        let mut alike = Alike::default();
        let mut are_usual = true;
        let us = Station::new(work.base.interface.mac);
        let mut at = 0;
        while let Some(slot) = burst.get(at) {
            let start = at;
            at += 1;
            let Some(frame) = slot else { continue };
            let ends = frame::usual_ends(frame.data(), us, frame.checksum());
            let flow = ends.map_or(Flow::UNKNOWN, Flow::of_ends);
            if ends.is_none() || ends != last {
                runs.push(Run { flow, hash: self.flows.hash(&flow), start });
            }
            last = ends;
            if ends.is_none() {
                are_usual = false;
                continue;
            }
            // Where each frame is of another connection, no more than that is to be found out.
            if let Some(Some(next)) = burst.get(at)
                && words::have_same_ports(frame.data(), next.data())
            {
                at += count_like(frame, &burst[at..]);
                alike.note(start + 1..at);
            }
            let field = Counter::of_ecn(Words::ecn::<{ Words::WITHOUT_OPTIONS }>(frame.data()));
            work.base.counters.add(field, (at - start) as u64);
        }
        if !are_usual {
            self.find_flows(work, burst, &mut runs);
        }

        // All look-ups in a row: none depends on another, so that their cache misses overlap.
        let mut groups = Groups::new(alike);
        let mut others = 0_u32;
        for (number, run) in runs.iter().enumerate() {
            let end = runs.get(number + 1).map_or(burst.len(), |next| next.start);
            match self.flows.find(run.hash, &run.flow) {
                Some(Target::Socket(index)) => groups.add(run.start..end, index),
                _ => (run.start..end).for_each(|at| others |= 1 << at),
            }
        }

        // One connection after the other; then, one by one, what belongs to none, or to one that
        // has just begun or ended.
        for (index, mut members) in groups.iter() {
            self.run(work, index, burst, &mut members);
            members.for_each(|at| others |= 1 << at);
        }
        while others != 0 {
            let at = others.trailing_zeros() as usize;
            others &= others - 1;
            if let Some(frame) = burst[at].take() {
                self.on_other(work, frame, None);
            }
        }
    }

    /// Finds out of which flow the frames are that are not the usual ones of IPv4, and makes one run of
    /// those that follow each other. What was nothing for a connection is dealt with here, and gone.
    #[inline(never)]
    fn find_flows(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        burst: &mut [Option<B>],
        runs: &mut Runs,
    ) {
        let us = Station::new(work.base.interface.mac);
        let mut kept: Option<Run> = None;
        runs.retain(|run| {
            if run.flow == Flow::UNKNOWN {
                let place = &mut burst[run.start];
                let Some(frame) = place.as_mut() else { return true };
                let (data, checksum) = (frame.data(), frame.checksum());
                work.count_ecn(data);
                let usual = frame6::usual_ends(data, us, checksum);
                let usual = usual.map(|ends| Flow::of_ends6(&ends));
                match usual.or_else(|| self.unusual_flow(work, place)) {
                    Some(flow) => run.flow = flow,
                    None => *place = None,
                }
                if kept.is_some_and(|kept| kept.flow == run.flow) {
                    return false;
                }
                run.hash = self.flows.hash(&run.flow);
            }
            kept = Some(*run);
            true
        });
    }

    /// The flow of a segment for our Ethernet address that is not as usual, but right up to the
    /// checksums. Everything else is dealt with here, and was nothing for a connection.
    #[cold]
    #[inline(never)]
    fn unusual_flow(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        place: &mut Option<B>,
    ) -> Option<Flow> {
        let frame = place.as_mut()?;
        let what = match frame.rest() {
            None => work.classify(frame.data(), frame.checksum()),
            Some(_) => work.classify_chain(frame),
        };
        match what {
            Frame::Tcp(tcp) => Some(Flow::of(&tcp.tuple)),
            Frame::Done => None,
            Frame::Fragment => {
                *place = self.put_together(work, place.take()?);
                match work.classify_chain(place.as_mut()?) {
                    Frame::Tcp(tcp) => Some(Flow::of(&tcp.tuple)),
                    _ => None,
                }
            }
            Frame::Told(told) => {
                self.on_told(work, &told, None);
                None
            }
            Frame::Lost(addr) => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.tell_lost(addr, mesh.id());
                }
                None
            }
            Frame::News(news) => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.tell(news);
                }
                None
            }
        }
    }

    fn turn(&mut self, work: &mut Work<'_, impl Transmit>) -> bool {
        self.look_for_listeners();
        let mut busy = self.take_messages(work);
        self.free_returned();
        busy |= !self.with_returns.is_empty();
        self.visit_returned(work);
        let home = self.home.clone();
        for id in M::take_bells(&home) {
            busy = true;
            self.on_bell(work, id);
        }
        busy |= self.run_timers(work);
        busy |= M::reap(&home) > 0;
        busy
    }

    /// A segment that no socket has taken. `origin` is the lcore that received it, if another.
    fn on_other(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        mut frame: B,
        origin: Option<usize>,
    ) {
        let Some(tcp) = work.parse(&mut frame) else { return };
        // Looked up once more, since the burst may have opened or closed the connection.
        let target = self.flows.look_up(&tcp.tuple);
        let Some(target) = target else {
            return self.on_stranger(work, &tcp, frame, origin);
        };
        match target {
            Target::Socket(index) => self.run_one(work, index, frame),
            Target::Request(index) => self.on_request_segment(work, index, &tcp, frame),
            Target::TimeWait(index) => self.on_time_wait_segment(work, index, &tcp, &frame),
        }
    }

    /// A segment of no connection that this lcore knows: it goes round the other lcores, if there
    /// are any, and when it has come home it is judged here.
    fn on_stranger(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        tcp: &TcpFrame,
        frame: B,
        origin: Option<usize>,
    ) {
        if !work.admits(tcp) {
            return;
        }
        if let Some(mesh) = &mut self.mesh
            && origin != Some(mesh.id())
        {
            let counter = match mesh.pass_on(frame, origin.unwrap_or(mesh.id())) {
                Ok(()) => Counter::LcorePassed,
                Err(_) => Counter::LcorePassDrop,
            };
            return work.bump(counter);
        }
        self.judge(work, tcp, frame);
    }

    /// Takes what the lcore before us has passed on.
    fn take_messages(&mut self, work: &mut Work<'_, impl Transmit>) -> bool {
        let mut busy = false;
        for _ in 0..PER_TURN {
            let Some(message) = self.mesh.as_mut().and_then(Mesh::take) else { break };
            busy = true;
            match message {
                Message::Segment { frame, origin } => {
                    // It was verified before it was passed on.
                    self.on_other(work, frame, Some(origin));
                }
                Message::Error { told, origin } => self.on_told(work, &told, Some(origin)),
                Message::Lost { addr, origin } => {
                    let is_news = work.lose(addr);
                    if let Some(mesh) = self.mesh.as_mut().filter(|mesh| mesh.id() != origin)
                        && is_news
                    {
                        mesh.tell_lost(addr, origin);
                    }
                }
                Message::Neighbour { news, origin } => {
                    work.base.neighbours.learn(news, work.now, work.tx);
                    if let Some(mesh) = self.mesh.as_mut().filter(|mesh| mesh.id() != origin) {
                        mesh.tell_of(news, origin);
                    }
                }
            }
        }
        busy
    }

    fn run_timers(&mut self, work: &mut Work<'_, impl Transmit>) -> bool {
        let mut budget = FALLS_PER_TURN;
        let mut busy = false;
        for _ in 0..PER_TURN {
            let Some(target) = self.wheel.pop(work.now, &mut budget) else { break };
            busy = true;
            match target {
                Target::Socket(index) => self.on_socket_timer(work, index),
                Target::Request(index) => self.on_request_timer(work, index),
                Target::TimeWait(index) => self.on_time_wait_timer(work, index),
            }
        }
        if work.base.neighbours.next_deadline().is_some_and(|deadline| deadline <= work.now) {
            busy = true;
            let dropped = work.base.neighbours.on_timer(work.now, work.tx);
            work.base.counters.add(Counter::OutDiscards, dropped as u64);
        }
        busy |= work.keep_present();
        busy | self.expire_fragments(work)
    }

    /// Follows the list of listeners.
    fn look_for_listeners(&mut self) {
        let version = self.shared.version();
        if version != self.version {
            self.version = version;
            self.listeners = self.shared.listeners();
            self.listeners.sort_by_key(|listening| listening.port);
        }
    }

    fn stop(&mut self) {
        self.let_go_of_all();
        self.listeners.clear();
        // Closed already, unless this lcore ends by a failure: acceptors would wait for it for ever.
        self.shared.close_all();
        while self.mesh.as_mut().and_then(Mesh::take).is_some() {}
        M::close(&self.home);
    }
}
