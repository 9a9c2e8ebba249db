//! What a Poller costs with one active connection among many idle ones, on heap buffers.
//!
//! One iteration is one segment of 64 bytes: the engine takes it, a poll that does not wait reports
//! it, a read takes it. The time of the poll by itself is what must not grow with the idle ones.

use std::hint::black_box;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant as Clock};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prequeue::buf::HeapBuf;
use prequeue::lcore::hash::HashKey;
use prequeue::lcore::neighbour::News;
use prequeue::lcore::{Engine, EngineConfig, Interface, engines};
use prequeue::socket::{
    Events, Interest, Poller, RecvFlags, TcpListener, TcpStream, Token, Trigger,
};
use prequeue::tcp::Settings;
use prequeue::tcp::isn::Secret;
use prequeue::time::Instant;
use prequeue_benches::frames::{self, Client};
use prequeue_benches::workload::Piece;

const LEN: usize = 64;

/// An engine with many connections, of which the first is active.
struct Many {
    engine: Engine<HeapBuf>,
    _listener: TcpListener<HeapBuf>,
    streams: Vec<TcpStream<HeapBuf>>,
    active: Client,
    iss: u32,
    offset: u32,
    now: Instant,
    tx: Vec<Vec<u8>>,
}

impl Many {
    fn new(idle: u16) -> Self {
        let config = EngineConfig {
            settings: Settings::default(),
            interface: Interface {
                mac: frames::OUR_MAC,
                addr: frames::OUR_ADDR,
                prefix_len: 24,
                gateway: None,
                mtu: 1500,
            },
            secret: Secret::from_seed(1),
            key: HashKey::new([2, 3]),
            max_connections: 1 << 15,
        };
        let (mut engines, listeners) = engines(&config, 1);
        let queue = listeners.listen(frames::PORT, 128).expect("a free port");
        let local = SocketAddrV4::new(frames::OUR_ADDR, frames::PORT);
        let active = Client { port: 1024, isn: 1 };
        let mut many = Self {
            engine: engines.pop().expect("one engine"),
            _listener: TcpListener::new(queue, local),
            streams: Vec::new(),
            active,
            iss: 0,
            offset: 0,
            now: Instant::from_millis(1000),
            tx: Vec::new(),
        };
        let client = News { addr: frames::CLIENT_ADDR, mac: frames::CLIENT_MAC };
        while many.engine.turn(many.now, &mut many.tx) {}
        many.engine.learn_neighbour(client, many.now, &mut many.tx);
        many.iss = many.open(active);
        for port in 0..idle {
            many.open(Client { port: 1025 + port, isn: 1 });
        }
        many
    }

    fn open(&mut self, client: Client) -> u32 {
        self.input(&client.syn());
        let iss = self.tx.last().and_then(|frame| client.iss_of(frame)).expect("a SYN-ACK");
        self.input(&client.ack(iss));
        self.streams.push(self._listener.accept().expect("a connection").0);
        iss
    }

    fn input(&mut self, frame: &[u8]) {
        self.tx.clear();
        self.engine.input(&mut [Some(HeapBuf::new(frame))], self.now, &mut self.tx);
    }

    /// The next segment of the active connection; the time that the engine took.
    fn segment(&mut self) -> Duration {
        let piece = Piece { offset: self.offset, len: LEN as u32 };
        let frame = self.active.data(self.iss, piece, &[7; 2 * LEN]);
        self.offset = self.offset.wrapping_add(LEN as u32);
        self.now = self.now + Duration::from_micros(10);
        self.tx.clear();
        let mut burst = [Some(HeapBuf::new(&frame))];
        let start = Clock::now();
        self.engine.input(black_box(&mut burst), self.now, &mut self.tx);
        start.elapsed()
    }

    /// Reads what the active connection has; the time that it took.
    fn read(&mut self) -> Duration {
        let start = Clock::now();
        let n = self.streams[0].recv(&mut [0; 2 * LEN], RecvFlags::DONTWAIT);
        let time = start.elapsed();
        assert_eq!(n.expect("data"), LEN);
        self.engine.turn(self.now, &mut self.tx);
        time
    }
}

fn poller(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("poller");
    for idle in [0, 100, 10_000] {
        let mut many = Many::new(idle);
        group.bench_function(BenchmarkId::new("segment, unwatched", idle), |bencher| {
            bencher.iter_custom(|n| {
                let one = |_| {
                    let time = many.segment();
                    many.read();
                    time
                };
                (0..n).map(one).sum()
            });
        });
        let poller = Poller::new().expect("a descriptor");
        for (i, stream) in many.streams.iter().enumerate() {
            poller.register(stream, Token(i), Interest::READ, Trigger::Level).expect("new");
        }
        let mut events = Events::with_capacity(256);
        let mut poll = || {
            let start = Clock::now();
            let n = poller.poll(&mut events, Some(Duration::ZERO)).expect("does not sleep");
            (start.elapsed(), n)
        };
        group.bench_function(BenchmarkId::new("segment, watched", idle), |bencher| {
            bencher.iter_custom(|n| {
                let one = |_| {
                    let time = many.segment();
                    assert_eq!(poll().1, 1);
                    many.read();
                    time
                };
                (0..n).map(one).sum()
            });
        });
        group.bench_function(BenchmarkId::new("poll, one ready", idle), |bencher| {
            bencher.iter_custom(|n| {
                let one = |_| {
                    many.segment();
                    let (time, ready) = poll();
                    assert_eq!(ready, 1);
                    many.read();
                    time
                };
                (0..n).map(one).sum()
            });
        });
        group.bench_function(BenchmarkId::new("poll, none ready", idle), |bencher| {
            poll();
            bencher.iter(&mut poll);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = poller
}
criterion_main!(benches);
