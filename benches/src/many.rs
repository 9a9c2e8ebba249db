//! One active connection among many idle ones, on heap buffers: what a Poller has to cope with.

use std::hint::black_box;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant as Clock};

use prequeue::buf::HeapBuf;
use prequeue::lcore::neighbour::News;
use prequeue::lcore::{Engine, EngineConfig, engines};
use prequeue::socket::{RecvFlags, TcpListener, TcpStream};
use prequeue::time::Instant;

use crate::engine;
use crate::frames::{self, Client};

/// Payload bytes of a segment.
const LEN: usize = 64;

/// An engine with many connections, of which the first is active.
#[derive(Debug)]
pub struct Many {
    engine: Engine<HeapBuf>,
    listener: TcpListener<HeapBuf>,
    /// Our ends of all of them.
    pub streams: Vec<TcpStream<HeapBuf>>,
    active: Client,
    iss: u32,
    offset: u32,
    now: Instant,
    tx: Vec<Vec<u8>>,
}

impl Many {
    /// With so many idle ones.
    ///
    /// # Panics
    /// If a connection does not open.
    pub fn new(idle: u16) -> Self {
        let config = EngineConfig { max_connections: 1 << 15, ..engine::config() };
        let (mut engines, listeners) = engines(&config, 1);
        let queue = listeners.listen(frames::PORT, 128).expect("a free port");
        let local = SocketAddrV4::new(frames::OUR_ADDR, frames::PORT);
        let active = Client { port: 1024, isn: 1 };
        let mut many = Self {
            engine: engines.pop().expect("one engine"),
            listener: TcpListener::new(queue, local),
            streams: Vec::new(),
            active,
            iss: 0,
            offset: 0,
            now: Instant::from_millis(1000),
            tx: Vec::new(),
        };
        let client = News { addr: frames::CLIENT_ADDR.into(), mac: frames::CLIENT_MAC };
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
        self.streams.push(self.listener.accept().expect("a connection").0);
        iss
    }

    fn input(&mut self, frame: &[u8]) {
        self.tx.clear();
        self.engine.input(&mut [Some(HeapBuf::new(frame))], self.now, &mut self.tx);
    }

    /// The next segment of the active connection; the time that the engine took.
    pub fn segment(&mut self) -> Duration {
        let frame = self.active.segment(self.iss, self.offset, &[7; LEN]);
        self.offset = self.offset.wrapping_add(LEN as u32);
        self.now = self.now + Duration::from_micros(10);
        self.tx.clear();
        let mut burst = [Some(HeapBuf::new(&frame))];
        let start = Clock::now();
        self.engine.input(black_box(&mut burst), self.now, &mut self.tx);
        start.elapsed()
    }

    /// Reads what the active connection has; the time that it took.
    ///
    /// # Panics
    /// If that is not one segment.
    pub fn read(&mut self) -> Duration {
        let start = Clock::now();
        let n = self.streams[0].recv(&mut [0; 2 * LEN], RecvFlags::DONTWAIT);
        let time = start.elapsed();
        assert_eq!(n.expect("data"), LEN);
        self.engine.turn(self.now, &mut self.tx);
        time
    }
}
