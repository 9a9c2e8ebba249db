//! An lcore whose connection is read by another thread, and the clock that both go by.

use std::net::SocketAddrV4;
use std::sync::OnceLock;

use prequeue::dpdk::{Clock, Mbuf, Mempool};
use prequeue::lcore::neighbour::News;
use prequeue::lcore::{Engine, Listeners, Transmit, engines};
use prequeue::socket::{TcpListener, TcpStream};
use prequeue::tcp::Counter;

use crate::contender::Burst;
use crate::engine;
use crate::frames::{self, Client};

/// An engine with one listener and at most one connection. What it sends is built and dropped.
#[derive(Debug)]
pub struct Lcore {
    engine: Engine<Mbuf>,
    _listeners: Listeners<Mbuf>,
    listener: TcpListener<Mbuf>,
    clock: Clock,
    answers: Answers,
    /// The client of the last connection, and our ISS of it.
    pub client: Client,
    /// See [`Self::client`].
    pub iss: u32,
}

/// What would be sent: counted, and the last one kept while a connection opens.
#[derive(Debug, Default)]
struct Answers {
    sent: u64,
    keep: bool,
    last: Vec<u8>,
}

impl Transmit for Answers {
    fn send(&mut self, frame: &[u8]) {
        self.sent += 1;
        if self.keep {
            self.last = frame.to_vec();
        }
    }
}

impl Lcore {
    /// One without a connection.
    ///
    /// # Panics
    /// Never: nobody else listens.
    pub fn new(clock: Clock) -> Self {
        let (mut engines, listeners) = engines(&engine::config(), 1);
        let queue = listeners.listen(frames::PORT, 128).expect("a free port");
        let local = SocketAddrV4::new(frames::OUR_ADDR, frames::PORT);
        let mut lcore = Self {
            engine: engines.pop().expect("one engine"),
            _listeners: listeners,
            listener: TcpListener::new(queue, local),
            clock,
            answers: Answers::default(),
            client: Client::any(),
            iss: 0,
        };
        lcore.turn();
        let client = News { addr: frames::CLIENT_ADDR.into(), mac: frames::CLIENT_MAC };
        lcore.engine.learn_neighbour(client, lcore.clock.now(), &mut lcore.answers);
        lcore
    }

    /// Opens a connection from a fresh client. Dropping the stream resets it.
    ///
    /// # Panics
    /// If it does not open.
    pub fn open(&mut self, pool: &Mempool) -> TcpStream<Mbuf> {
        self.turn();
        self.client = Client::any();
        self.exchange(pool, &self.client.syn());
        self.iss = self.client.iss_of(&self.answers.last).expect("a SYN-ACK");
        self.exchange(pool, &self.client.ack(self.iss));
        let stream = self.listener.accept().expect("a connection").0;
        stream.set_linger_zero();
        stream
    }

    /// What follows the device's giving of a burst: the clock is read, the burst worked on, and what
    /// threads left is taken.
    #[inline]
    pub fn input(&mut self, burst: &mut Burst) {
        let now = self.clock.now();
        if !burst.is_empty() {
            self.engine.input(&mut burst.take_places(), now, &mut self.answers);
        }
        self.engine.turn(now, &mut self.answers);
    }

    /// A poll without frames.
    pub fn turn(&mut self) {
        self.engine.turn(self.clock.now(), &mut self.answers);
    }

    /// What has been counted of something.
    pub fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().value(counter)
    }

    fn exchange(&mut self, pool: &Mempool, frame: &[u8]) {
        let mut mbuf = pool.alloc().expect("an mbuf");
        mbuf.extend(frame.len()).expect("room for a frame").copy_from_slice(frame);
        let mut burst = Burst::new();
        burst.push(mbuf).expect("room for one");
        self.answers.keep = true;
        self.input(&mut burst);
        self.turn();
        self.turn();
        self.answers.keep = false;
    }
}

/// Nanoseconds on a clock that both threads have, read when all loads before are done. The system's
/// clock sees to that; stores may still be on their way, which nobody waits for.
#[inline(always)]
pub fn now() -> u64 {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    // From 1, because 0 is taken for "not yet".
    1 + ORIGIN.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}
