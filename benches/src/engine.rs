//! The receiver of this project: engine, owner word, recv step, buffers back by the return stack.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use prequeue::buf::PacketBuf;
use prequeue::dpdk::{Mbuf, Mempool, TxQueue};
use prequeue::lcore::hash::HashKey;
use prequeue::lcore::neighbour::News;
use prequeue::lcore::{Engine, EngineConfig, Interface, Listeners, Transmit, engines};
use prequeue::socket::{Mode, RecvFlags, TcpListener, TcpStream, Threaded};
use prequeue::tcp::Settings;
use prequeue::tcp::isn::Secret;
use prequeue::time::Instant;
use prequeue::wire::frame::MAX_CONTROL_LEN;

use crate::contender::{Application, Burst, Contender, READ_BUFFER};
use crate::frames::{self, Client};

/// One engine with one listener and at most one connection.
pub struct Receiver {
    wired: Wired<Threaded>,
    _listeners: Listeners<Mbuf>,
    listener: TcpListener<Mbuf>,
    stream: Option<TcpStream<Mbuf>>,
    out: Box<[u8]>,
}

impl Receiver {
    /// A receiver without a connection that sends from `pool` through `tx`.
    ///
    /// # Panics
    /// Never: nobody else listens.
    pub fn new(pool: &Mempool, tx: SharedTx) -> Self {
        let config = config();
        let (mut engines, listeners) = engines(&config, 1);
        let queue_of_listener = listeners.listen(frames::PORT, 128).expect("a free port");
        let local = std::net::SocketAddrV4::new(frames::OUR_ADDR, frames::PORT);
        Self {
            wired: Wired::new(engines.pop().expect("one engine"), pool, tx),
            _listeners: listeners,
            listener: TcpListener::new(queue_of_listener, local),
            stream: None,
            out: vec![0; READ_BUFFER].into(),
        }
    }

    /// The connection, for an application in another thread. Bursts are taken without reading then.
    pub fn take_stream(&mut self) -> Option<TcpStream<Mbuf>> {
        self.stream.take()
    }
}

impl Contender for Receiver {
    fn name(&self) -> &'static str {
        "prequeue"
    }

    fn open(&mut self, client: &Client) -> u32 {
        if let Some(stream) = self.stream.take() {
            stream.set_linger_zero();
        }
        let iss = self.wired.open(client);
        self.stream = Some(self.listener.accept().expect("a connection").0);
        iss
    }

    fn burst(&mut self, burst: &mut Burst, application: &mut dyn Application) -> usize {
        let Wired { engine, now, tx, .. } = self.wired.moved_on();
        let tx = &mut *tx.borrow_mut();
        engine.input(&mut burst.take_places(), *now, tx);
        let mut bytes = 0;
        if let Some(stream) = &self.stream {
            while let Ok(n @ 1..) = stream.recv(&mut self.out, RecvFlags::DONTWAIT) {
                application.read(&self.out[..n]);
                bytes += n;
                if n < self.out.len() {
                    break;
                }
            }
        }
        engine.turn(*now, tx);
        tx.flush();
        bytes
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An engine at the one TX queue, with a clock that moves from burst to burst.
pub(crate) struct Wired<M: Mode<Mbuf>> {
    pub engine: Engine<Mbuf, M>,
    pub now: Instant,
    pub tx: SharedTx,
    pool: Mempool,
}

impl<M: Mode<Mbuf>> Wired<M> {
    /// An engine that knows nobody yet.
    pub fn new(engine: Engine<Mbuf, M>, pool: &Mempool, tx: SharedTx) -> Self {
        Self { engine, now: Instant::from_millis(1000), tx, pool: pool.clone() }
    }

    /// Opens a connection, which the listener then has; our ISS.
    ///
    /// # Panics
    /// If it does not open.
    pub fn open(&mut self, client: &Client) -> u32 {
        while self.engine.turn(self.now, &mut *self.tx.borrow_mut()) {}
        let news = News { addr: frames::CLIENT_ADDR.into(), mac: frames::CLIENT_MAC };
        self.engine.learn_neighbour(news, self.now, &mut *self.tx.borrow_mut());
        self.exchange(&client.syn());
        let iss = client.iss_of(&self.tx.borrow().last).expect("a SYN-ACK");
        self.exchange(&client.ack(iss));
        iss
    }

    /// At the time of the next burst: of 32 frames, a few microseconds apart. The clock is not read.
    #[inline]
    pub fn moved_on(&mut self) -> &mut Self {
        self.now = self.now + Duration::from_micros(10);
        self
    }

    fn exchange(&mut self, frame: &[u8]) {
        let mut mbuf = self.pool.alloc().expect("a pool larger than a chunk");
        assert!(mbuf.append(frame), "room for a frame");
        let tx = &mut *self.tx.borrow_mut();
        tx.keep = true;
        self.engine.input(&mut [Some(mbuf)], self.now, tx);
        while self.engine.turn(self.now, tx) {}
        tx.flush();
        tx.keep = false;
    }
}

/// The engine's set-up, the same for all forms of our receiver.
pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        // Room for what a delayed segment holds up, as the peers have it.
        settings: Settings { tcp_rmem: [4096, 1 << 20, 1 << 22], ..Settings::default() },
        interface: Interface::new(frames::OUR_MAC, 1500).with_address(frames::OUR_ADDR, 24),
        secret: Secret::from_seed(fastrand::u64(..)),
        key: HashKey::new([fastrand::u64(..), fastrand::u64(..)]),
        max_connections: 1024,
    }
}

/// The one TX queue of the bench, for all forms of our receiver.
pub type SharedTx = Rc<RefCell<Tx>>;

/// Frames put into mbufs of their own and sent by the burst.
pub struct Tx {
    queue: TxQueue,
    pool: Mempool,
    staged: Burst,
    pub(crate) last: Vec<u8>,
    pub(crate) keep: bool,
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl Tx {
    /// Sends from `pool` through `queue`.
    pub fn new(pool: &Mempool, queue: TxQueue) -> SharedTx {
        let pool = pool.clone();
        let (staged, last) = (Burst::new(), Vec::new());
        Rc::new(RefCell::new(Self { queue, pool, staged, last, keep: false }))
    }

    pub(crate) fn flush(&mut self) {
        if !self.staged.is_empty() {
            self.queue.send(&mut self.staged);
        }
    }

    #[inline]
    fn stage(&mut self, fill: impl FnOnce(&mut Mbuf) -> bool) {
        if let Some(mut mbuf) = self.pool.alloc()
            && fill(&mut mbuf)
        {
            if self.keep {
                self.last = mbuf.data().to_vec();
            }
            let _ = self.staged.push(mbuf);
        }
        if self.staged.is_full() {
            self.flush();
        }
    }
}

impl Transmit for Tx {
    fn send(&mut self, frame: &[u8]) {
        self.stage(|mbuf| mbuf.append(frame));
    }

    #[inline]
    fn send_written(&mut self, write: impl FnOnce(&mut [u8; MAX_CONTROL_LEN]) -> usize) {
        self.stage(|mbuf| mbuf.append_written(write));
    }
}
