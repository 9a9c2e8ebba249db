//! Scenarios: engines under a virtual clock, with peers that are written down segment by segment.
//!
//! A [`World`] has one or more engines and their wire; a [`Peer`] remembers numbers so that tests can
//! say what is sent and expected in words of TCP. Nothing here knows threads or devices.

mod chain;
mod closing;
mod cookies;
mod counting;
mod datagrams;
mod ecn;
#[cfg(all(feature = "dpdk", not(loom)))]
mod fragments;
#[cfg(all(feature = "dpdk", not(loom)))]
mod fragments6;
mod icmp;
mod inherited;
mod ipv6;
mod local;
mod local_calls;
mod low_latency;
#[cfg(all(feature = "dpdk", not(loom)))]
mod mbufs;
mod memory;
#[cfg(not(loom))]
mod model;
mod opening;
mod polling;
mod prequeue;
mod presence;
mod several;
mod watching;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::buf::HeapBuf;
use crate::socket::{Recv, RecvError, RecvFlags, Step, TcpListener, TcpStream};
use crate::tcp::isn::Secret;
use crate::tcp::{Counter, Settings};
use crate::time::Instant;
use crate::wire::frame::TcpFrame;
use crate::wire::{
    Flags, FourTuple, MacAddr, Outgoing, Segment, SynOptions, ethernet, parse_tcp, tcp,
};

use super::hash::HashKey;
use super::neighbour::News;
use super::*;

const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const PORT: u16 = 7000;

const FIN: Flags = Flags::FIN;
const SYN: Flags = Flags::SYN;
const RST: Flags = Flags::RST;
const ACK: Flags = Flags::ACK;

/// Engines and their wire.
struct World {
    engines: Vec<Engine<HeapBuf>>,
    listeners: Listeners<HeapBuf>,
    now: Instant,
    /// Frames that engines have sent, oldest first.
    sent: VecDeque<Vec<u8>>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self::with_lcores(settings, 1)
    }

    fn with_lcores(settings: Settings, lcores: usize) -> Self {
        let interface = Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24);
        Self::with_interface(settings, interface, lcores)
    }

    fn with_interface(settings: Settings, interface: Interface, lcores: usize) -> Self {
        let config = EngineConfig {
            settings,
            interface,
            secret: Secret::from_seed(1),
            key: HashKey::new([3, 4]),
            max_connections: 100,
        };
        let (engines, listeners) = engines(&config, lcores);
        let now = Instant::from_millis(1000);
        let mut world = Self { engines, listeners, now, sent: VecDeque::new() };
        world.turn();
        world
    }

    /// Gives frames to an lcore in one burst, and every lcore its turns until all is quiet.
    fn receive_on(&mut self, lcore: usize, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut tx = Vec::new();
        let mut burst: Vec<_> =
            frames.into_iter().map(|frame| Some(HeapBuf::new(&frame))).collect();
        self.engines[lcore].input(&mut burst, self.now, &mut tx);
        assert!(burst.iter().all(Option::is_none), "the engine takes every frame");
        self.sent.extend(tx);
        self.turn();
    }

    fn receive(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.receive_on(0, frames);
    }

    fn turn(&mut self) {
        let mut tx = Vec::new();
        let now = self.now;
        for engine in &mut self.engines {
            // The peer's address never grows old: these are tests of TCP.
            engine.learn_neighbour(News { addr: PEER_ADDR.into(), mac: PEER_MAC }, now, &mut tx);
        }
        while self.engines.iter_mut().any(|engine| engine.turn(now, &mut tx)) {}
        self.sent.extend(tx);
    }

    /// Lets time pass, from deadline to deadline.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let next = self.engines.iter().filter_map(Engine::next_deadline).min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            self.turn();
        }
        self.now = end;
        self.turn();
    }

    /// Lets time pass until a segment leaves; says after how many milliseconds.
    fn wait_for_segment(&mut self) -> (u64, Sent) {
        let start = self.now;
        while self.sent.is_empty() {
            let next = self.engines.iter().filter_map(Engine::next_deadline).min();
            self.now = self.now.max(next.expect("a timer should be running"));
            self.turn();
        }
        (self.now.since(start).as_millis() as u64, self.expect_segment())
    }

    #[track_caller]
    fn expect_segment(&mut self) -> Sent {
        let frame = self.sent.pop_front().expect("a segment should have been sent");
        let header = ethernet::parse(&frame).expect("a frame");
        assert_eq!((header.src, header.dst), (OUR_MAC, PEER_MAC));
        let parsed = parse_tcp(&frame, Default::default()).expect("a segment with good checksums");
        let TcpFrame { tuple, segment, header, payload, .. } = parsed;
        let header = &frame[usize::from(header)..usize::from(payload)];
        let sack = tcp::sack_blocks(header).to_vec();
        Sent { tuple, segment, options: tcp::syn_options(header), sack }
    }

    #[track_caller]
    fn expect_nothing(&self) {
        assert!(self.sent.is_empty(), "nothing should have been sent: {:02x?}", self.sent);
    }

    fn set_pressure(&mut self, pressure: Pressure) {
        self.engines[0].set_pressure(pressure, self.now);
    }

    fn count(&self, counter: Counter) -> u64 {
        self.engines.iter().map(|engine| engine.counters().value(counter)).sum()
    }

    fn population(&self) -> Population {
        self.engines[0].population()
    }
}

/// A segment that an engine has sent; the tuple is as the peer sees it.
#[derive(Debug)]
struct Sent {
    tuple: FourTuple,
    segment: Segment,
    options: SynOptions,
    sack: Vec<(u32, u32)>,
}

impl Sent {
    #[track_caller]
    fn is(&self, flags: Flags, seq: u32, ack: u32) {
        let Segment { seq: got_seq, ack: got_ack, flags: got, .. } = self.segment;
        assert_eq!((got, got_seq, got_ack), (flags, seq, ack), "flags, seq, ack");
    }
}

/// A peer's connection: what it will say next.
#[derive(Clone, Copy, Debug)]
struct Peer {
    port: u16,
    seq: u32,
    ack: u32,
}

impl Peer {
    /// A peer that has said nothing yet.
    fn new(port: u16) -> Self {
        Self { port, seq: 1000, ack: 0 }
    }

    /// A peer that has a connection, and the application's handle on it.
    fn connected(
        world: &mut World,
        port: u16,
        listener: &TcpListener<HeapBuf>,
    ) -> (Self, TcpStream<HeapBuf>) {
        let mut peer = Self::new(port);
        peer.shake_hands(world);
        let handle = accept(listener).expect("the connection should wait to be accepted");
        (peer, handle)
    }

    fn shake_hands(&mut self, world: &mut World) {
        world.receive([self.syn()]);
        let syn_ack = world.expect_segment();
        self.take(&syn_ack);
        world.receive([self.ack()]);
    }

    /// As [`Self::shake_hands`], with a way that takes its time and the frames of others on it.
    fn shake_hands_later(&mut self, world: &mut World, round_trip: Duration) {
        world.receive([self.syn()]);
        let syn_ack =
            std::iter::from_fn(|| (!world.sent.is_empty()).then(|| world.expect_segment()))
                .find(|sent| sent.tuple.local_port == self.port)
                .expect("the SYN should have been answered");
        self.take(&syn_ack);
        world.wait(round_trip);
        world.receive([self.ack()]);
        world.sent.clear();
    }

    /// Notes what a SYN-ACK says.
    fn take(&mut self, syn_ack: &Sent) {
        syn_ack.is(SYN.with(ACK), syn_ack.segment.seq, self.seq.wrapping_add(1));
        self.seq = self.seq.wrapping_add(1);
        self.ack = syn_ack.segment.seq.wrapping_add(1);
    }

    fn frame(&self, out: Outgoing, payload: &[u8]) -> Vec<u8> {
        let tuple = FourTuple {
            local_addr: PEER_ADDR.into(),
            remote_addr: OUR_ADDR.into(),
            local_port: self.port,
            remote_port: PORT,
        };
        frame(&tuple, &out, payload)
    }

    fn syn(&self) -> Vec<u8> {
        let out = Outgoing {
            seq: self.seq,
            flags: SYN,
            window: 65_535,
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            ..Outgoing::default()
        };
        self.frame(out, &[])
    }

    /// A segment with these flags, at `offset` from the next number.
    fn segment(&self, flags: Flags, offset: u32, payload: &[u8]) -> Vec<u8> {
        let out = Outgoing {
            seq: self.seq.wrapping_add(offset),
            ack: self.ack,
            flags,
            window: 1000,
            ..Outgoing::default()
        };
        self.frame(out, payload)
    }

    fn ack(&self) -> Vec<u8> {
        self.segment(ACK, 0, &[])
    }

    /// The next bytes.
    fn data(&mut self, payload: &[u8]) -> Vec<u8> {
        let frame = self.segment(ACK, 0, payload);
        self.seq = self.seq.wrapping_add(payload.len() as u32);
        frame
    }

    fn fin(&mut self) -> Vec<u8> {
        let frame = self.segment(FIN.with(ACK), 0, &[]);
        self.seq = self.seq.wrapping_add(1);
        frame
    }
}

fn frame(tuple: &FourTuple, out: &Outgoing, payload: &[u8]) -> Vec<u8> {
    marked(tuple, out, 0, payload)
}

/// A frame with this former type of service: DSCP and ECN.
fn marked(tuple: &FourTuple, out: &Outgoing, tos: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; crate::wire::frame::MAX_CONTROL_LEN + payload.len()];
    let at = ethernet::emit(&mut frame, OUR_MAC, PEER_MAC, None, ethernet::IPV4);
    let len = tcp::emit(&mut frame[at..], tuple, out, tos, payload);
    frame.truncate(at + len);
    // As a device would: no frame is shorter than 60 bytes.
    frame.resize(frame.len().max(60), 0xee);
    frame
}

/// A call of recv, of which the test takes the steps.
fn call<'a>(
    stream: &'a TcpStream<HeapBuf>,
    buf: &'a mut [u8],
    flags: RecvFlags,
) -> Recv<'a, HeapBuf, crate::tcp::tcb::Tcb<HeapBuf>> {
    Recv::new(stream.handle(), buf, flags, || Instant::ZERO)
}

/// What a read that does not wait returns.
fn read(stream: &TcpStream<HeapBuf>, len: usize) -> Result<Vec<u8>, RecvError> {
    let mut buf = vec![0; len];
    let step = call(stream, &mut buf, RecvFlags::DONTWAIT).step(Instant::ZERO);
    match step {
        Step::Done(n) => {
            buf.truncate(n);
            Ok(buf)
        }
        Step::Failed(error) => Err(error),
        Step::Sleep(_) => panic!("a read that does not wait sleeps"),
    }
}

/// The oldest connection that waits to be accepted.
fn accept(listener: &TcpListener<HeapBuf>) -> Option<TcpStream<HeapBuf>> {
    listener.set_nonblocking(true).unwrap();
    listener.accept().ok().map(|(stream, _)| stream)
}

fn listening(world: &mut World, backlog: u32) -> TcpListener<HeapBuf> {
    let queue = world.listeners.listen(PORT, backlog).expect("nobody listens yet");
    world.turn();
    TcpListener::new(queue, SocketAddrV4::new(OUR_ADDR, PORT))
}
