//! A stack and a sender on a bad wire, under a virtual clock: whatever the wire does, the stream
//! comes out whole, the connection closes, and no buffer is left.

mod counted;
mod peer;

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use prequeue::buf::PacketBuf;
use prequeue::lcore::fault::{BadWire, Faults};
use prequeue::lcore::hash::HashKey;
use prequeue::lcore::neighbour::News;
use prequeue::lcore::{Engine, EngineConfig, Interface, Population, engines};
use prequeue::socket::{Recv, RecvError, RecvFlags, Step, TcpListener, TcpStream};
use prequeue::tcp::isn::Secret;
use prequeue::tcp::{Counter, Counters, Settings};
use prequeue::time::Instant;

use counted::{Counted, Dice, live};
use peer::{OUR_ADDR, OUR_MAC, PEER_ADDR, PEER_MAC, PORT, Peer, byte_at};

/// Nothing may take longer than this of virtual time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What happens in every run of the test, many times.
const OFTEN_MET: [Counter; 16] = [
    Counter::InCsumErrors,
    Counter::TCPHPHits,
    Counter::TCPOFOQueue,
    Counter::TCPOFOMerge,
    Counter::TCPRcvCoalesce,
    Counter::DelayedACKs,
    Counter::DelayedACKLost,
    Counter::TCPDSACKOldSent,
    Counter::TCPDSACKOfoSent,
    Counter::TCPAckCompressed,
    Counter::TCPToZeroWindowAdv,
    Counter::TCPFromZeroWindowAdv,
    Counter::BeyondWindow,
    Counter::PruneCalled,
    Counter::RetransSegs,
    Counter::TCPSynRetrans,
];

/// One direction: a bad wire, and the time light takes.
struct Link {
    wire: BadWire<Counted>,
    latency: Duration,
    pipe: VecDeque<(Instant, Counted)>,
}

impl Link {
    fn new(dice: &mut Dice, latency: Duration) -> Self {
        let faults = Faults {
            seed: dice.next(),
            loss: dice.of(&[0.0, 0.01, 0.1, 0.3]),
            duplicate: dice.of(&[0.0, 0.05, 0.3]),
            corrupt: dice.of(&[0.0, 0.01, 0.1]),
            reorder: dice.of(&[0.0, 0.05, 0.4]),
            reorder_span: dice.of(&[1, 3, 10]),
            delay: dice.of(&[0.0, 0.02, 0.2]),
            delay_by: Duration::from_millis(dice.of(&[1, 20, 300])),
        };
        Self { wire: BadWire::new(faults), latency, pipe: VecDeque::new() }
    }

    fn send(&mut self, frame: &[u8], now: Instant) {
        let mut out = Vec::new();
        self.wire.carry(Counted::new(frame), now, || Some(Counted::new(&[])), &mut out);
        self.pipe.extend(out.into_iter().map(|frame| (now + self.latency, frame)));
    }

    fn arrivals(&mut self, now: Instant) -> Vec<Counted> {
        let mut out = Vec::new();
        self.wire.wait(now, &mut out);
        self.pipe.extend(out.into_iter().map(|frame| (now + self.latency, frame)));
        let due = self.pipe.iter().take_while(|(at, _)| *at <= now).count();
        self.pipe.drain(..due).map(|(_, frame)| frame).collect()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let front = self.pipe.front().map(|(at, _)| *at);
        front.into_iter().chain(self.wire.next_deadline()).min()
    }
}

/// The stack, the sender, and what lies between them.
struct World {
    now: Instant,
    engine: Engine<Counted>,
    peer: Peer,
    inward: Link,
    outward: Link,
}

impl World {
    /// Lets what is due happen.
    fn run(&mut self) {
        let mut tx: Vec<Vec<u8>> = Vec::new();
        let mut burst: Vec<_> = self.inward.arrivals(self.now).into_iter().map(Some).collect();
        self.engine.input(&mut burst, self.now, &mut tx);
        self.turn(&mut tx);
        for frame in tx {
            self.outward.send(&frame, self.now);
        }
        for frame in self.outward.arrivals(self.now) {
            self.peer.on_frame(frame.data(), self.now);
        }
        self.peer.on_timer(self.now);
        for frame in self.peer.take_out() {
            self.inward.send(&frame, self.now);
        }
    }

    fn turn(&mut self, tx: &mut Vec<Vec<u8>>) {
        // This is a test of TCP: the peer's address never grows old.
        self.engine.learn_neighbour(News { addr: PEER_ADDR.into(), mac: PEER_MAC }, self.now, tx);
        while self.engine.turn(self.now, tx) {}
    }

    fn next_deadline(&self) -> Option<Instant> {
        let wires = [self.inward.next_deadline(), self.outward.next_deadline()];
        let ends = [self.engine.next_deadline(), self.peer.next_deadline()];
        wires.into_iter().chain(ends).flatten().min()
    }

    /// Runs until it is `enough`, from one deadline to the next.
    #[track_caller]
    fn run_until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let end = self.now + PATIENCE;
        self.run();
        while !enough(self) {
            let next = self.next_deadline();
            let next = next.unwrap_or_else(|| panic!("{what}: nothing will happen any more"));
            assert!(next < end, "{what}: not within an hour; {:?}", self.peer);
            self.now = self.now.max(next);
            self.run();
        }
    }

    /// Lets time pass.
    fn pause(&mut self, span: Duration) {
        let end = self.now + span;
        self.run();
        while let Some(next) = self.next_deadline().filter(|&next| next < end) {
            self.now = self.now.max(next);
            self.run();
        }
        self.now = end;
    }

    fn is_quiet(&self) -> bool {
        self.engine.population() == Population::default()
            && self.inward.next_deadline().is_none()
            && self.outward.next_deadline().is_none()
    }
}

/// How the application reads.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Calls that wait, for a byte or for all.
    Waiting { all: bool },
    /// Calls that do not wait, now and then.
    Polling,
    /// A reader that keeps the ring installed.
    Exclusive,
}

/// The application: reads the stream to its end.
struct App {
    way: Way,
    most: u64,
    idle: Duration,
    copied: u64,
    dice: Dice,
}

impl App {
    fn new(dice: &mut Dice) -> Self {
        let mut dice = Dice(dice.next());
        let ways =
            [Way::Waiting { all: false }, Way::Waiting { all: true }, Way::Polling, Way::Exclusive];
        Self {
            way: dice.of(&ways),
            most: dice.of(&[100, 3000, 40_000]),
            idle: Duration::from_millis(dice.of(&[0, 1, 50, 900])),
            copied: 0,
            dice,
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            assert_eq!(byte, byte_at(self.copied), "byte {}", self.copied);
            self.copied += 1;
        }
    }

    /// Reads to the end of the stream.
    fn read_all(
        &mut self,
        world: &mut World,
        mut stream: TcpStream<Counted>,
    ) -> TcpStream<Counted> {
        let mut buf = vec![0; self.most as usize];
        loop {
            let len = 1 + self.dice.below(self.most) as usize;
            self.interfere(world, &stream, &mut buf[..len]);
            let n = match self.way {
                Way::Waiting { all } => wait_for(world, &stream, &mut buf[..len], all),
                Way::Polling => poll(world, &stream, &mut buf[..len]),
                Way::Exclusive => {
                    self.read_exclusively(world, &mut stream, &mut buf);
                    0
                }
            };
            self.check(&buf[..n]);
            if n == 0 {
                return stream;
            }
            if self.dice.one_in(3) {
                world.pause(self.idle);
            }
        }
    }

    /// Looks at what will be read, or keeps the lcore away for a while.
    fn interfere(&mut self, world: &mut World, stream: &TcpStream<Counted>, buf: &mut [u8]) {
        let flags = RecvFlags::PEEK.with(RecvFlags::DONTWAIT);
        if self.dice.one_in(6)
            && let Ok(n) = stream.recv(buf, flags)
        {
            let expected = (self.copied..).map(byte_at);
            assert!(buf[..n].iter().copied().eq(expected.take(n)), "a peek at {}", self.copied);
        }
        if self.dice.one_in(6) {
            let guard = stream.lock();
            world.pause(Duration::from_millis(5) + self.idle / 4);
            drop(guard);
            // The socket waits for its lcore, and the next claim would wait for that.
            world.run();
        }
    }

    fn read_exclusively(
        &mut self,
        world: &mut World,
        stream: &mut TcpStream<Counted>,
        buf: &mut [u8],
    ) {
        let mut reader = stream.reader().expect("no guard is held");
        loop {
            let len = 1 + self.dice.below(self.most) as usize;
            match reader.recv(&mut buf[..len], RecvFlags::DONTWAIT) {
                Ok(0) => return,
                Ok(n) => self.check(&buf[..n]),
                Err(_) => world.pause(Duration::from_millis(1) + self.idle),
            }
        }
    }
}

/// One call that waits for a byte, or for all.
fn wait_for(world: &mut World, stream: &TcpStream<Counted>, buf: &mut [u8], all: bool) -> usize {
    let flags = if all { RecvFlags::WAITALL } else { RecvFlags::NONE };
    let now = world.now;
    let mut call = Recv::new(stream.handle(), buf, flags, || now);
    loop {
        match call.step(world.now) {
            Step::Done(n) => return n,
            Step::Failed(error) => panic!("{error:?}; {:?}", world.peer),
            Step::Sleep(sleep) => world.run_until("recv", |_| call.has_news(&sleep)),
        }
    }
}

/// Calls that do not wait, until one has something.
fn poll(world: &mut World, stream: &TcpStream<Counted>, buf: &mut [u8]) -> usize {
    loop {
        let now = world.now;
        match Recv::new(stream.handle(), buf, RecvFlags::DONTWAIT, || now).step(now) {
            Step::Done(n) => return n,
            Step::Failed(RecvError::WouldBlock) => world.pause(Duration::from_millis(7)),
            step => panic!("{step:?}; {:?}", world.peer),
        }
    }
}

/// One connection from SYN to the last ACK; what the stack counted.
fn connection(seed: u64) -> Counters {
    let mut dice = Dice(seed);
    let mut settings = Settings::default();
    settings.tcp_rmem[1] = dice.of(&[8000, 30_000, 131_072]);
    let config = EngineConfig {
        settings,
        interface: Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24),
        secret: Secret::from_seed(dice.next()),
        key: HashKey::new([dice.next(), dice.next()]),
        max_connections: 10,
    };
    let (mut engines, listeners) = engines(&config, 1);
    let latency = Duration::from_micros(dice.of(&[0, 50, 20_000]));
    let len = dice.of(&[0, 1, 5000, 60_000]);
    let len = dice.below(len + 1);
    let mut world = World {
        now: Instant::from_millis(1000),
        engine: engines.remove(0),
        peer: Peer::new(len, &mut dice),
        inward: Link::new(&mut dice, latency),
        outward: Link::new(&mut dice, latency),
    };
    let queue = listeners.listen(PORT, 5).expect("nobody listens yet");
    let listener = TcpListener::new(queue, SocketAddrV4::new(OUR_ADDR, PORT));
    listener.set_nonblocking(true).expect("a flag");
    world.turn(&mut Vec::new());

    world.peer.open(world.now);
    world.run_until("accept", |world| world.engine.population().sockets == 1);
    let (stream, _) = listener.accept().expect("a connection");
    if dice.one_in(4) {
        stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    }
    let mut app = App::new(&mut dice);
    let stream = app.read_all(&mut world, stream);
    assert_eq!(app.copied, len, "the end came at another byte");
    drop(stream);
    world.run_until("close", |world| world.peer.is_done());
    world.run_until("end", World::is_quiet);
    assert_eq!(live(), 0, "buffers are left");
    world.engine.counters().clone()
}

#[test]
fn streams_come_through_bad_wires_whole() {
    let mut met = vec![0; Counter::ALL.len()];
    for seed in 0..1500 {
        match std::panic::catch_unwind(|| connection(seed)) {
            Ok(counters) => met.iter_mut().zip(counters.values()).for_each(|(met, n)| *met += n),
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // Otherwise the wires are not as bad as they should be.
    for counter in OFTEN_MET {
        assert!(met[counter as usize] > 20, "{}: {}", counter.name(), met[counter as usize]);
    }
}
