//! The whole stack without device and threads: an engine, its sockets, and the API of streams.
//!
//! Frames go in and come out as on an lcore; the application reads by the calls that programs use.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddrV4};

use prequeue::buf::HeapBuf;
use prequeue::lcore::hash::HashKey;
use prequeue::lcore::{Engine, EngineConfig, Interface, Listeners, engines};
use prequeue::socket::{RecvFlags, TcpListener, TcpStream};
use prequeue::tcp::isn::Secret;
use prequeue::tcp::{Counter, Settings, listen};
use prequeue::time::Instant;

use crate::dsl::{Conn, How, Received, Subject};

/// One engine, as on a stack with one lcore.
pub fn make(settings: Settings, seed: u64) -> Box<dyn Subject> {
    let config = EngineConfig {
        settings: settings.clone(),
        interface: Interface::new(crate::OUR_MAC, 1500).with_address(crate::OUR_ADDR, 24),
        secret: Secret::from_seed(seed),
        key: HashKey::new([seed, 1]),
        max_connections: 100,
    };
    let (mut engines, listeners) = engines(&config, 1);
    let engine = engines.remove(0);
    Box::new(EngineHost {
        settings,
        engine,
        listeners,
        listening: HashMap::new(),
        streams: Vec::new(),
        sent: VecDeque::new(),
    })
}

#[derive(Debug)]
struct EngineHost {
    settings: Settings,
    engine: Engine<HeapBuf>,
    listeners: Listeners<HeapBuf>,
    listening: HashMap<u16, TcpListener<HeapBuf>>,
    /// By [`Conn`]; none once it is closed.
    streams: Vec<Option<TcpStream<HeapBuf>>>,
    sent: VecDeque<Vec<u8>>,
}

impl EngineHost {
    /// Gives the engine its turns until there is nothing more to do.
    fn turn(&mut self, now: Instant) {
        let mut tx = Vec::new();
        while self.engine.turn(now, &mut tx) {}
        self.sent.extend(tx);
    }

    fn stream(&self, Conn(index): Conn) -> &TcpStream<HeapBuf> {
        self.streams[index].as_ref().expect("the script uses no closed connection")
    }
}

impl Subject for EngineHost {
    fn input(&mut self, burst: &[Vec<u8>], now: Instant) {
        let mut tx = Vec::new();
        let mut frames: Vec<_> = burst.iter().map(|frame| Some(HeapBuf::new(frame))).collect();
        self.engine.input(&mut frames, now, &mut tx);
        self.sent.extend(tx);
        self.turn(now);
    }

    fn advance(&mut self, now: Instant) {
        self.turn(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.engine.next_deadline()
    }

    fn output(&mut self) -> Option<Vec<u8>> {
        self.sent.pop_front()
    }

    fn listen(&mut self, port: u16, backlog: i32, now: Instant) {
        let backlog = listen::backlog(&self.settings, backlog);
        let queue = self.listeners.listen(port, backlog).expect("the script listens once");
        let listener = TcpListener::new(queue, SocketAddrV4::new(crate::OUR_ADDR, port));
        listener.set_nonblocking(true).expect("never fails");
        self.listening.insert(port, listener);
        self.turn(now);
    }

    fn accept(&mut self, port: u16) -> Option<(Conn, u16)> {
        let (stream, peer) = self.listening.get(&port)?.accept().ok()?;
        self.streams.push(Some(stream));
        Some((Conn(self.streams.len() - 1), peer.port()))
    }

    fn recv(&mut self, conn: Conn, into: &mut [u8], now: Instant) -> Received {
        let received = match self.stream(conn).recv(into, RecvFlags::DONTWAIT) {
            Ok(0) => Received::Eof,
            Ok(n) => Received::Bytes(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Received::WouldBlock,
            Err(error) => Received::Failed(error.kind()),
        };
        self.turn(now);
        received
    }

    fn shutdown(&mut self, conn: Conn, how: How, now: Instant) {
        let how = match how {
            How::Read => Shutdown::Read,
            How::Write => Shutdown::Write,
            How::Both => Shutdown::Both,
        };
        self.stream(conn).shutdown(how).expect("never fails");
        self.turn(now);
    }

    fn close(&mut self, conn: Conn, linger_zero: bool, now: Instant) {
        if linger_zero {
            self.stream(conn).set_linger_zero();
        }
        self.streams[conn.0] = None;
        self.turn(now);
    }

    fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().value(counter)
    }
}
