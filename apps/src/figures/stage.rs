//! The stage: one engine, one connection, threads that read, and a clock that a script moves.
//!
//! Everything that happens is done by the library itself: segments go in as frames, readers run the
//! library's own recv step, timers fire when the virtual clock has come to them. After each step the
//! stage looks and writes a [`Row`]. In the middle of a reader's step it looks too, and can let a
//! segment arrive there: what a second CPU would do, at a moment that can be chosen.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::Duration;

use prequeue::lcore::hash::HashKey;
use prequeue::lcore::neighbour::News;
use prequeue::lcore::{Engine, EngineConfig, Interface, Listeners, Transmit, engines};
use prequeue::socket::{Recv, RecvError, RecvFlags, Sleep, SocketGuard, Step, TcpListener};
use prequeue::tcp::isn::Secret;
use prequeue::tcp::tcb::{ConnError, Tcb};
use prequeue::tcp::{Counter, Settings};
use prequeue::time::Instant;
use prequeue::watch::{ConnectionSeen, Moment, Owner, ReaderSeen, Seen, Span};

use super::buf::{StageBuf, ask_owner, met, note_owner, observed};
use super::peer::{self, Arrival, Link, Sent, TUPLE, byte_at};
use super::row::{Actor, ReaderState, Row};

/// A connection on stage.
pub type Stream = prequeue::socket::TcpStream<StageBuf>;

/// When the curtain rises; any time but 0, which calls that do not wait take for "now".
const START: Instant = Instant::from_millis(1000);

/// See the module's head.
pub struct Stage(Rc<RefCell<World>>);

struct World {
    engine: Engine<StageBuf>,
    _listeners: Listeners<StageBuf>,
    now: Instant,
    /// What the peer acknowledges: the stack's next number.
    ack: u32,
    /// A handle to look through.
    witness: Rc<Stream>,
    connection: ConnectionSeen,
    reader: ReaderSeen,
    calls: Vec<CallState>,
    /// Segments that the backlog had no room for, as far as a row has told.
    dropped: u64,
    /// Bytes that the lcore has copied to readers itself, as far as a row has told.
    direct: u64,
    /// What arrives in the middle of the next step of a reader.
    meanwhile: VecDeque<(During, Vec<Arrival>)>,
    rows: Vec<Row>,
}

/// A call that has not returned.
struct CallState {
    name: &'static str,
    state: ReaderState,
    /// Wake-ups before it went to sleep.
    wakes: u32,
    /// Bytes copied so far.
    copied: usize,
    /// While it lends its memory: what it had copied before, and the reader's progress then.
    lends: Option<(usize, u32)>,
}

/// A moment of a reader's step in which something else may happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum During {
    /// The thread owns the socket, to take the receive queue out of it.
    Takes,
    /// The thread owns the socket, to remove the ring.
    Uninstalls,
    /// The thread copies, and owns nothing.
    Copies,
}

/// A recv under way.
pub struct Call<'a> {
    name: &'static str,
    recv: Option<Recv<'a, StageBuf, Tcb<StageBuf>>>,
    len: usize,
    flags: RecvFlags,
    sleep: Option<Sleep>,
    begun: bool,
}

impl Stage {
    /// A stack with these settings, and a connection that somebody has accepted.
    pub fn new(settings: Settings) -> (Self, Stream) {
        let config = EngineConfig {
            settings,
            interface: Interface::new(peer::OUR_MAC, 1500).with_address(peer::OUR_ADDR, 24),
            secret: Secret::from_seed(1),
            key: HashKey::new([1, 2]),
            max_connections: 1,
        };
        let (mut engines, listeners) = engines(&config, 1);
        let mut engine = engines.remove(0);
        let mut tx = Wire::default();
        engine.learn_neighbour(
            News { addr: peer::PEER_ADDR.into(), mac: peer::PEER_MAC },
            START,
            &mut tx,
        );
        let queue = listeners.listen(peer::PORT, 1).expect("nobody else listens");
        let listener = TcpListener::new(queue, SocketAddrV4::new(peer::OUR_ADDR, peer::PORT));
        engine.turn(START, &mut tx);
        engine.input(&mut [Some(StageBuf::new(&peer::syn(&Link::STAGE)))], START, &mut tx);
        let ack = tx.0.last().expect("SYN is answered").seq.wrapping_add(1);
        let opens = Arrival::ack(peer::FIRST).frame(&Link::STAGE, ack);
        engine.input(&mut [Some(StageBuf::new(&opens))], START, &mut tx);
        let (stream, _) = listener.accept().expect("the connection is established");
        let witness = Rc::new(stream.try_clone().expect("never fails"));
        ask_owner(Some(Box::new({
            let witness = witness.clone();
            move || witness.handle().seen().owner
        })));
        let mut world = World {
            engine,
            _listeners: listeners,
            now: START,
            ack,
            witness,
            connection: ConnectionSeen::default(),
            reader: ReaderSeen::default(),
            calls: Vec::new(),
            dropped: 0,
            direct: 0,
            meanwhile: VecDeque::new(),
            rows: Vec::new(),
        };
        let seen = world.witness.handle().seen();
        world.push(Actor::Lcore, "connected".to_owned(), &seen, vec![], vec![]);
        (Self(Rc::new(RefCell::new(world))), stream)
    }

    /// These segments arrive in one burst.
    pub fn arrive(&self, segments: &[Arrival]) {
        let mut world = self.0.borrow_mut();
        let witness = world.witness.clone();
        world.arrive(segments, &mut || witness.handle().seen());
    }

    /// These segments will arrive in the middle of a reader's next step; if there are none, the lcore
    /// has its turn there. A script owes it one where the reader will want the socket again that was
    /// left to the lcore: there is one thread here, and it would wait for itself.
    pub fn meanwhile(&self, during: During, segments: &[Arrival]) {
        self.0.borrow_mut().meanwhile.push_back((during, segments.to_vec()));
    }

    /// A thread calls recv; it does not run yet.
    pub fn call<'a>(
        &self,
        name: &'static str,
        stream: &'a Stream,
        buf: &'a mut [u8],
        flags: RecvFlags,
    ) -> Call<'a> {
        let now = self.0.borrow().now;
        let len = buf.len();
        let recv = Some(Recv::new(stream.handle(), buf, flags, || now));
        Call { name, recv, len, flags, sleep: None, begun: false }
    }

    /// The thread of a call runs, until the call sleeps or returns.
    pub fn run(&self, call: &mut Call<'_>) -> Step {
        let recv = call.recv.as_mut().expect("the call has not returned");
        let now = {
            let mut world = self.0.borrow_mut();
            world.enters(call.name, call.len, call.flags, call.begun);
            world.now
        };
        call.begun = true;
        let observer = {
            let (world, name) = (self.0.clone(), call.name);
            Box::new(move |moment, look: &mut dyn FnMut() -> Seen| {
                world.borrow_mut().on_moment(name, moment, look);
            })
        };
        let step = observed(observer, || recv.step(now));
        let mut world = self.0.borrow_mut();
        match step {
            Step::Sleep(sleep) => {
                call.sleep = Some(sleep);
                let sleeps = recv.announce(&sleep);
                assert!(sleeps, "news came in between, which no script has");
                world.sleeps(call.name);
            }
            Step::Done(n) => world.returns(call.name, format!("recv returns {n}")),
            Step::Failed(error) => {
                world.returns(call.name, format!("recv fails: {}", errno(error)));
            }
        }
        world.turn_now();
        assert!(world.meanwhile.is_empty(), "the moment that the script waits for did not come");
        step
    }

    /// What happens while the call sleeps with its memory lent, as a thread's does.
    pub fn asleep(&self, call: &mut Call<'_>, what: impl FnOnce()) {
        let recv = call.recv.as_mut().expect("the call has not returned");
        self.0.borrow_mut().lends(call.name, true);
        recv.lending(what);
        self.0.borrow_mut().lends(call.name, false);
    }

    /// Time passes; whatever timers do is done.
    pub fn wait(&self, span: Duration) {
        self.0.borrow_mut().wait(span);
    }

    /// A thread that does not read takes the socket.
    pub fn lock<'a>(&self, stream: &'a Stream) -> SocketGuard<'a, StageBuf> {
        let guard = stream.lock();
        self.0.borrow_mut().look(Actor::Thread, "another thread locks the socket");
        guard
    }

    /// It gives the socket up.
    pub fn unlock(&self, guard: SocketGuard<'_, StageBuf>) {
        drop(guard);
        let mut world = self.0.borrow_mut();
        world.look(Actor::Thread, "it unlocks the socket");
        world.turn_now();
    }

    /// Checks that the bytes are those that the peer sent from `seq` on.
    #[track_caller]
    pub fn check(&self, bytes: &[u8], seq: u32) {
        for (byte, seq) in bytes.iter().zip(seq..) {
            assert_eq!(*byte, byte_at(seq), "the byte at {seq}");
        }
    }

    /// What was observed.
    pub fn rows(self) -> Vec<Row> {
        ask_owner(None);
        std::mem::take(&mut self.0.borrow_mut().rows)
    }
}

impl World {
    /// Writes a row from what is seen, and from what nobody can have changed since it was seen.
    fn push(
        &mut self,
        actor: Actor,
        event: String,
        seen: &Seen,
        arrived: Vec<(&'static str, Span)>,
        sent: Vec<String>,
    ) {
        if let Some(connection) = &seen.connection {
            self.connection = connection.clone();
        }
        if let Some(reader) = &seen.reader {
            self.reader = reader.clone();
        }
        for call in &mut self.calls {
            if call.state == ReaderState::Asleep && call.wakes != seen.wakes {
                call.state = ReaderState::Woken;
            }
            if let Some((copied, copied_seq)) = call.lends {
                call.copied = copied + self.reader.copied_seq.wrapping_sub(copied_seq) as usize;
            }
        }
        self.rows.push(Row {
            time: self.now.since(START),
            actor,
            event,
            receive: self.connection.receive.clone(),
            out_of_order: self.connection.out_of_order.clone(),
            prequeue: self.reader.ring.clone(),
            taken: self.reader.taken.clone(),
            backlog: self.engine.backlog(&TUPLE),
            rcv_nxt: self.connection.rcv_nxt,
            copied_seq: self.reader.copied_seq,
            owner: seen.owner,
            met: met(),
            readers: self.calls.iter().map(|call| (call.name, call.state)).collect(),
            // Of several calls the one that runs, or has just been woken by name.
            copied: self.calls.iter().max_by_key(|call| call.state).map(|call| call.copied),
            arrived,
            sent,
        });
    }

    fn look(&mut self, actor: Actor, event: &str) {
        let seen = self.witness.handle().seen();
        self.push(actor, event.to_owned(), &seen, vec![], vec![]);
    }

    fn arrive(&mut self, segments: &[Arrival], look: &mut dyn FnMut() -> Seen) {
        let mut burst: Vec<_> = segments
            .iter()
            .map(|s| Some(StageBuf::new(&s.frame(&Link::STAGE, self.ack))))
            .collect();
        let mut tx = Wire::default();
        self.engine.input(&mut burst, self.now, &mut tx);
        self.engine.turn(self.now, &mut tx);
        let event = match segments {
            [one] => format!("lcore: {}", one.text()),
            [first, .., last] if first.name() == last.name() => {
                format!("lcore: {} segments like {}", segments.len(), first.name())
            }
            [first, .., last] => {
                format!("lcore: {} segments, {} to {}", segments.len(), first.name(), last.name())
            }
            [] => unreachable!("a burst has segments"),
        };
        let dropped = self.engine.counters().value(Counter::TCPBacklogDrop);
        let news = dropped - std::mem::replace(&mut self.dropped, dropped);
        let event = if news == 0 { event } else { format!("{event}; {news} dropped") };
        let direct = self.engine.counters().value(Counter::DirectCopiedBytes);
        let news = direct - std::mem::replace(&mut self.direct, direct);
        let event = if news == 0 { event } else { format!("{event}; copies {news}") };
        let arrived = segments.iter().map(Arrival::named_span).collect();
        self.push(Actor::Lcore, event, &look(), arrived, tx.texts());
    }

    /// The lcore looks for what was left to it; a row only if that was anything.
    fn turn(&mut self, look: &mut dyn FnMut() -> Seen) {
        let due = self.rows.last().is_some_and(|row| row.owner == Owner::LcoreDue);
        let mut tx = Wire::default();
        while self.engine.turn(self.now, &mut tx) {}
        let sent = tx.texts();
        if due || !sent.is_empty() {
            let event =
                if due { "lcore: works off the backlog" } else { "lcore: turns to the socket" };
            self.push(Actor::Lcore, event.to_owned(), &look(), vec![], sent);
        }
    }

    /// The same when no reader is in the middle of a step.
    fn turn_now(&mut self) {
        let witness = self.witness.clone();
        self.turn(&mut || witness.handle().seen());
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        let rows = self.rows.len();
        while let Some(next) = self.engine.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            let mut tx = Wire::default();
            while self.engine.turn(self.now, &mut tx) {}
            let sent = tx.texts();
            if !sent.is_empty() {
                let seen = self.witness.handle().seen();
                self.push(Actor::Lcore, "lcore: a timer".to_owned(), &seen, vec![], sent);
            }
        }
        self.now = end;
        if self.rows.len() == rows {
            self.look(Actor::Lcore, &format!("{} ms pass", span.as_millis()));
        }
    }

    fn enters(&mut self, name: &'static str, len: usize, flags: RecvFlags, begun: bool) {
        let found = self.calls.iter_mut().find(|call| call.name == name);
        let event = match found {
            None => {
                let state = ReaderState::Runs;
                self.calls.push(CallState { name, state, wakes: 0, copied: 0, lends: None });
                format!("{name}: recv({len}{})", flag_names(flags))
            }
            Some(call) => {
                let woken = call.state == ReaderState::Woken;
                call.state = ReaderState::Runs;
                if woken { format!("{name} runs again") } else { format!("{name}: time is up") }
            }
        };
        debug_assert_eq!(begun, event.contains("again") || event.contains("time"));
        self.look(Actor::Thread, &event);
    }

    fn on_moment(&mut self, name: &str, moment: Moment, look: &mut dyn FnMut() -> Seen) {
        let (event, during) = match moment {
            Moment::Takes => (format!("{name} owns: takes the receive queue"), During::Takes),
            // Nothing arrives here that could not arrive while the queue is taken.
            Moment::Installs => (format!("{name} owns: installs the ring"), During::Takes),
            Moment::Uninstalls => (format!("{name} owns: removes the ring"), During::Uninstalls),
            Moment::Copied(n) => {
                let Some(call) = self.calls.iter_mut().find(|call| call.name == name) else {
                    return;
                };
                if std::mem::replace(&mut call.copied, n) == n {
                    return;
                }
                (format!("{name} copies, owning nothing"), During::Copies)
            }
        };
        if self.rows.last().is_some_and(|row| row.event == event) {
            // Buffer after buffer with nothing in between: one step.
            self.rows.pop();
        }
        self.push(Actor::Thread, event, &look(), vec![], vec![]);
        if moment != Moment::Installs
            && let Some((_, segments)) = self.meanwhile.pop_front_if(|(when, _)| *when == during)
        {
            if segments.is_empty() {
                self.turn(look);
            } else {
                self.arrive(&segments, look);
            }
        }
    }

    fn sleeps(&mut self, name: &str) {
        let seen = self.witness.handle().seen();
        if let Some(call) = self.calls.iter_mut().find(|call| call.name == name) {
            call.state = ReaderState::Asleep;
            call.wakes = seen.wakes;
        }
        self.push(Actor::Thread, format!("{name} sleeps"), &seen, vec![], vec![]);
    }

    fn lends(&mut self, name: &str, lends: bool) {
        let copied_seq = self.reader.copied_seq;
        if let Some(call) = self.calls.iter_mut().find(|call| call.name == name) {
            call.lends = lends.then_some((call.copied, copied_seq));
        }
    }

    fn returns(&mut self, name: &str, event: String) {
        let at = self.calls.iter().position(|call| call.name == name).expect("it was called");
        let call = self.calls.remove(at);
        let seen = self.witness.handle().seen();
        self.push(Actor::Thread, format!("{name}: {event}"), &seen, vec![], vec![]);
        if let Some(row) = self.rows.last_mut() {
            row.copied = Some(call.copied);
        }
    }
}

/// The way out of the engine.
#[derive(Default)]
struct Wire(Vec<Sent>);

impl Transmit for Wire {
    fn send(&mut self, frame: &[u8]) {
        note_owner();
        self.0.extend(Sent::read(frame));
    }
}

impl Wire {
    fn texts(&self) -> Vec<String> {
        self.0.iter().map(Sent::text).collect()
    }
}

fn flag_names(flags: RecvFlags) -> String {
    let names = [
        (RecvFlags::PEEK, ", PEEK"),
        (RecvFlags::WAITALL, ", WAITALL"),
        (RecvFlags::DONTWAIT, ", DONTWAIT"),
        (RecvFlags::TRUNC, ", TRUNC"),
    ];
    names.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect()
}

fn errno(error: RecvError) -> &'static str {
    match error {
        RecvError::WouldBlock => "EAGAIN",
        RecvError::Interrupted => "EINTR",
        RecvError::NoUrgentByte => "EINVAL",
        RecvError::NotConnected => "ENOTCONN",
        RecvError::Connection(ConnError::Reset) => "ECONNRESET",
        RecvError::Connection(ConnError::BrokenPipe) => "EPIPE",
        RecvError::Connection(ConnError::TimedOut) => "ETIMEDOUT",
        RecvError::Connection(ConnError::Path(error)) => error.name(),
        RecvError::Deadlock => "EDEADLK",
        RecvError::Dead => "ECONNABORTED",
    }
}
