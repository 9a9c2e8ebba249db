//! A connection between its peer, its lcore and its readers, all in random steps, against an array.
//!
//! The array says which bytes the peer has ever sent. After each step: what can be read is a run of
//! those, never takes anything back, and is exactly what is acknowledged; the right edge stays; who
//! sleeps has no reason to be awake. In the end everything arrives, each byte at one reader, in order,
//! and all memory is back. Interleaved are bursts, turns, timers, guards, several readers, time limits,
//! buffers in pieces, exclusive readers, a ring that is too small, low-latency mode and lent memory,
//! relief of the pool, FIN, RST and shutdowns; numbers cross the wrap.

use std::io::IoSliceMut;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::buf::HeapSpare;
use crate::socket::{Connection, Sleep, Slices, SocketGuard};
use crate::tcp::tcb::Tcb;

/// Bytes of the stream: several receive buffers, and more segments than the ring holds.
const TOTAL: usize = 150_000;

/// Calls that a test makes at most, and the longest.
const CALLS: usize = 24;
const LONGEST: usize = 40_000;

#[derive(Clone, Debug)]
enum Op {
    /// A burst of segments, each at a distance from the edge: so many bytes, and perhaps the FIN if
    /// it reaches the end.
    Burst(Vec<(i32, usize)>),
    /// The next segments in order, of one length.
    InOrder(usize, usize),
    Turn,
    Wait(u64),
    /// A call begins: its length, which flags, and how many milliseconds it has.
    Call(usize, RecvFlags, Option<u64>),
    /// An exclusive reader comes, reads once, and goes; while it waits, if it does, so many segments of
    /// one length come.
    Exclusive(usize, RecvFlags, usize, usize),
    /// One of the calls takes a step.
    Step(usize),
    /// A call that sleeps lends its memory, if that is the mode, while so many segments of one
    /// length come.
    Lend(usize, usize, usize),
    /// Low-latency mode begins or ends.
    LowLatency(bool),
    /// One of the calls is given up, as by a signal.
    Drop(usize),
    Lock,
    Unlock,
    Relieve(u32),
    Pressure(Pressure),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Fin,
    Reset,
    ShutRead,
    Dropped,
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![1..100_usize, Just(1460_usize), 200..400_usize];
    let place = prop_oneof![
        4 => Just(0),
        3 => 1..6000_i32,
        1 => -3000..0_i32,
        1 => 0..80_000_i32,
    ];
    let flags = prop_oneof![
        4 => Just(RecvFlags::NONE),
        4 => Just(RecvFlags::WAITALL),
        2 => Just(RecvFlags::DONTWAIT),
        1 => Just(RecvFlags::PEEK),
        1 => Just(RecvFlags::PEEK.with(RecvFlags::WAITALL)),
        1 => Just(RecvFlags::TRUNC),
    ];
    // Most of them wait for as long as it takes.
    let limit = prop_oneof![4 => Just(None), 1 => (1..400_u64).prop_map(Some)];
    let size = prop_oneof![0..300_usize, 0..LONGEST];
    let pressure = prop_oneof![3 => Just(Pressure::None), 1 => Just(Pressure::High), 1 => Just(Pressure::Critical)];
    prop_oneof![
        10 => vec((place, len.clone()), 1..12).prop_map(Op::Burst),
        12 => (1..400_usize, len.clone()).prop_map(|(n, len)| Op::InOrder(n, len)),
        4 => Just(Op::Turn),
        3 => (0..300_u64).prop_map(Op::Wait),
        6 => (size.clone(), flags.clone(), limit).prop_map(|(len, flags, limit)| {
            // A peek frees nothing: more than fits never comes.
            let most = if flags.has(RecvFlags::PEEK) { 1000 } else { LONGEST };
            Op::Call(len.min(most), flags, limit)
        }),
        4 => (size, flags, 0..40_usize, len.clone())
            .prop_map(|(size, flags, many, len)| Op::Exclusive(size, flags, many, len)),
        12 => (0..CALLS).prop_map(Op::Step),
        8 => (0..CALLS, 1..40_usize, len).prop_map(|(n, many, len)| Op::Lend(n, many, len)),
        3 => prop_oneof![2 => Just(true), 1 => Just(false)].prop_map(Op::LowLatency),
        1 => (0..CALLS).prop_map(Op::Drop),
        3 => Just(Op::Lock),
        5 => Just(Op::Unlock),
        3 => (0..20_u32).prop_map(Op::Relieve),
        2 => pressure.prop_map(Op::Pressure),
    ]
}

fn byte(at: usize) -> u8 {
    (at.wrapping_mul(0x9E37_79B9) >> 11) as u8
}

fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte).collect()
}

/// A call, and what it should have been given.
struct Running<'a> {
    call: Option<Recv<'a, HeapBuf, Tcb<HeapBuf>>>,
    sleep: Option<Sleep>,
    flags: RecvFlags,
    len: usize,
    /// When its time is up.
    until: Option<Instant>,
    /// What it has consumed; of a peek, what it has seen.
    expected: Vec<u8>,
}

/// The memory of a call: in one piece, or in three.
enum Memory<'a, 'p, 'b> {
    Flat(&'a mut [u8]),
    Pieces(&'a mut Slices<'p, 'b>),
}

struct Model<'a, 'p, 'b> {
    world: World,
    peer: Peer,
    scale: u8,
    stream: &'a TcpStream<HeapBuf>,
    guard: Option<SocketGuard<'a, HeapBuf>>,
    calls: Vec<Running<'a>>,
    free: std::vec::IntoIter<Memory<'a, 'p, 'b>>,
    /// Bytes that were sent, ever.
    sent: Vec<bool>,
    fin_sent: bool,
    /// Bytes that were consumed, and the edge as last seen.
    copied: usize,
    edge: usize,
    right_edge: u64,
    over: bool,
}

impl<'a, 'p, 'b> Model<'a, 'p, 'b> {
    /// The peer's number for a byte.
    fn frame(&self, from: usize, len: usize) -> Vec<u8> {
        let flags = if from + len == TOTAL { FIN.with(ACK) } else { ACK };
        self.peer.segment(flags, from as u32, &bytes(from, len))
    }

    fn send(&mut self, segments: &[(usize, usize)]) {
        let mut frames = Vec::new();
        for &(from, len) in segments {
            let len = len.min(TOTAL.saturating_sub(from));
            if len == 0 {
                continue;
            }
            self.sent[from..from + len].fill(true);
            self.fin_sent |= from + len == TOTAL;
            frames.push(self.frame(from, len));
        }
        for burst in frames.chunks(32) {
            self.world.receive(burst.to_vec());
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Burst(segments) => {
                let edge = self.edge as i64;
                let place =
                    |&(at, len): &(i32, usize)| ((edge + i64::from(at)).max(0) as usize, len);
                let segments: Vec<_> = segments.iter().map(place).collect();
                self.send(&segments);
            }
            Op::InOrder(n, len) => {
                let edge = self.edge;
                let segments: Vec<_> = (0..*n).map(|i| (edge + i * len, *len)).collect();
                self.send(&segments);
            }
            Op::Turn => self.world.turn(),
            Op::Wait(ms) => self.world.wait(Duration::from_millis(*ms)),
            Op::Call(len, flags, limit) => {
                self.call(*len, *flags, limit.map(Duration::from_millis))
            }
            Op::Exclusive(size, flags, many, len) => self.exclusive(*size, *flags, *many, *len),
            Op::Step(n) => self.step(*n),
            Op::Lend(n, many, len) => self.lend(*n, *many, *len),
            Op::LowLatency(on) => self.stream.set_low_latency(*on),
            Op::Drop(n) => {
                if let Some(running) = self.calls.get_mut(*n) {
                    running.call = None;
                    running.sleep = None;
                }
            }
            Op::Lock => {
                if self.guard.is_none() {
                    self.guard = Some(self.stream.lock());
                }
            }
            Op::Unlock => self.unlock(),
            Op::Relieve(large) => {
                let mut spare = HeapSpare { small: *large, large: *large };
                let mut tx = Vec::new();
                self.world.engines[0].relieve(self.world.now, &mut tx, &mut spare);
                self.world.sent.extend(tx);
            }
            Op::Pressure(pressure) => self.world.set_pressure(*pressure),
        }
        self.check();
    }

    fn call(&mut self, len: usize, flags: RecvFlags, limit: Option<Duration>) {
        let Some(memory) = self.free.next() else { return };
        let now = self.world.now;
        let handle = self.stream.handle();
        self.stream.set_read_timeout(limit).unwrap();
        let (call, len) = match memory {
            Memory::Flat(dst) => (Recv::new(handle, &mut dst[..len], flags, || now), len),
            Memory::Pieces(slices) => (Recv::vectored(handle, slices, flags, || now), LONGEST),
        };
        self.stream.set_read_timeout(None).unwrap();
        let until = limit.map(|limit| now + limit);
        let expected = Vec::new();
        self.calls.push(Running { call: Some(call), sleep: None, flags, len, until, expected });
        self.step(self.calls.len() - 1);
    }

    /// An exclusive reader reads once. In low-latency mode it lends what it waits with.
    fn exclusive(&mut self, size: usize, flags: RecvFlags, many: usize, len: usize) {
        let mut stream = self.stream.try_clone().unwrap();
        if self.guard.is_some() {
            assert!(stream.reader().is_err(), "it would wait for itself");
            return;
        }
        let mut reader = stream.reader().unwrap();
        let mut buf = vec![0; size];
        let edge = self.edge;
        let segments: Vec<_> = (0..many).map(|i| (edge + i * len, len)).collect();
        let step = reader.recv_while(&mut buf, flags, || self.send(&segments));
        drop(reader);
        let copied = self.edge_of_connection() - self.stream.readable() as usize;
        let expected = bytes(self.copied, copied - self.copied);
        assert!(flags.has(RecvFlags::TRUNC) || buf.starts_with(&expected), "wrong bytes");
        match step {
            Step::Done(n) if flags.has(RecvFlags::PEEK) => {
                assert!(expected.is_empty() && buf.starts_with(&bytes(self.copied, n)));
            }
            Step::Done(n) => assert_eq!(n, expected.len()),
            // It is given up with what it has.
            Step::Sleep(_) => {}
            Step::Failed(error) => {
                assert_eq!((error, expected.len()), (RecvError::WouldBlock, 0));
                assert!(flags.has(RecvFlags::DONTWAIT));
            }
        }
        self.copied = copied;
    }

    /// How many bytes are in sequence, read or not.
    fn edge_of_connection(&self) -> usize {
        let edge = match &self.guard {
            Some(guard) => guard.connection().edge(),
            None => self.stream.lock().connection().edge(),
        };
        edge.raw().wrapping_sub(self.peer.seq) as usize
    }

    fn unlock(&mut self) {
        self.guard = None;
        self.world.turn();
    }

    /// One step of a call; what it consumes is the next of the stream.
    fn step(&mut self, n: usize) {
        let Some(running) = self.calls.get_mut(n) else { return };
        let Some(call) = &mut running.call else { return };
        let before = self.stream.readable() as usize;
        let step = call.step(self.world.now);
        let consumed = before - self.stream.readable() as usize;
        running.sleep = None;
        if self.guard.is_some() {
            assert_eq!((step, consumed), (Step::Failed(RecvError::Deadlock), 0));
            return;
        }
        let is_peek = running.flags.has(RecvFlags::PEEK);
        running.expected.extend(bytes(self.copied, consumed));
        self.copied += consumed;
        match step {
            Step::Sleep(sleep) => running.sleep = Some(sleep),
            Step::Done(done) => {
                if is_peek {
                    assert_eq!(consumed, 0);
                    running.expected = bytes(self.copied, done);
                }
                assert_eq!(running.expected.len(), done);
                // Without an end a call returns what it was made for; a look makes no room, and does
                // not wait for what there is no memory for.
                let in_vain = is_peek && Connection::is_pressed(self.stream.lock().connection());
                let whole = running.flags.has(RecvFlags::WAITALL) && !in_vain;
                let enough = if whole { running.len } else { 1 };
                let late = running.until.is_some_and(|until| until <= self.world.now);
                let ended = self.over || late || self.fin_sent && self.edge == TOTAL;
                assert!(ended || done >= enough.min(running.len), "{done} of {enough}");
                running.call = None;
            }
            Step::Failed(error) => {
                assert!(running.expected.is_empty());
                let late = running.until.is_some_and(|until| until <= self.world.now);
                let expected = running.flags.has(RecvFlags::DONTWAIT) || late || self.over;
                assert!(expected, "{error:?}");
                running.call = None;
            }
        }
    }

    /// A call that sleeps lends its memory while segments come in order; what is written to it is the
    /// next of the stream.
    fn lend(&mut self, n: usize, many: usize, len: usize) {
        let sleeps = |at: &usize| self.calls[*at].call.is_some() && self.calls[*at].sleep.is_some();
        let sleeping: Vec<_> = (0..self.calls.len()).filter(sleeps).collect();
        let Some(&n) = sleeping.get(n % sleeping.len().max(1)) else { return };
        // It takes what there is, and goes on sleeping if it wants more.
        self.step(n);
        let Some(mut call) = self.calls[n].call.take() else { return };
        self.edge = self.copied + self.stream.readable() as usize;
        let edge = self.edge;
        let segments: Vec<_> = (0..many).map(|i| (edge + i * len, len)).collect();
        call.lending(|| self.send(&segments));
        let copied = self.edge_of_connection() - self.stream.readable() as usize;
        let running = &mut self.calls[n];
        running.expected.extend(bytes(self.copied, copied - self.copied));
        assert!(copied == self.copied || self.stream.is_low_latency());
        self.copied = copied;
        running.call = Some(call);
    }

    fn check(&mut self) {
        let edge = self.copied + self.stream.readable() as usize;
        assert!(edge >= self.edge, "what could be read was taken back");
        assert!(self.sent[self.edge..edge].iter().all(|&sent| sent), "a byte from nowhere");
        assert!(self.guard.is_none() || edge == self.edge, "TCP ran under a guard");
        self.edge = edge;
        for frame in self.world.sent.drain(..) {
            let segment = parse_tcp(&frame, Default::default()).unwrap().segment;
            if segment.flags.has(RST) || self.over {
                continue;
            }
            let acked = u64::from(segment.ack.wrapping_sub(self.peer.seq));
            let fin = u64::from(self.fin_sent);
            assert!(acked <= self.edge as u64 + fin, "{acked} is acknowledged");
            let window = u64::from(segment.window) << self.scale;
            let right_edge = acked + window;
            // No window at all says that memory was refused, and takes back what was promised.
            assert!(window == 0 || right_edge >= self.right_edge, "the right edge moved left");
            self.right_edge = right_edge;
        }
        if self.guard.is_some() {
            return;
        }
        let readable = self.stream.readable() as usize;
        for running in &self.calls {
            if let (Some(call), Some(sleep)) = (&running.call, &running.sleep) {
                let whole = running.flags.has(RecvFlags::WAITALL);
                let target = if whole { running.len } else { 1 }.max(1);
                let has =
                    if running.flags.has(RecvFlags::PEEK) { 0 } else { running.expected.len() };
                // What was copied to memory that it had lent may be all that it waited for.
                if has < target && readable >= target - has {
                    assert!(call.has_news(sleep), "asleep over what it wants");
                }
            }
        }
    }

    /// What the calls should have been given.
    fn into_results(self) -> (World, Vec<(RecvFlags, Vec<u8>)>) {
        let calls = self.calls.into_iter().map(|running| (running.flags, running.expected));
        (self.world, calls.collect())
    }

    /// Whoever still waits takes what there is, and the stream comes to its end.
    fn finish(&mut self, ending: Ending) {
        self.unlock();
        self.world.set_pressure(Pressure::None);
        self.check();
        match ending {
            Ending::Fin => {}
            Ending::Reset => {
                let rcv_nxt = self.stream.lock().connection().rcv_nxt();
                let at = rcv_nxt.raw().wrapping_sub(self.peer.seq);
                self.over = true;
                let rst = self.peer.segment(RST, at, &[]);
                self.world.receive([rst]);
            }
            Ending::ShutRead => {
                self.over = true;
                self.stream.shutdown(std::net::Shutdown::Read).unwrap();
                self.world.turn();
            }
            Ending::Dropped => {
                self.calls.iter_mut().for_each(|running| running.call = None);
            }
        }
        let mut round = 0;
        while ending != Ending::Reset && ending != Ending::ShutRead && self.copied < TOTAL {
            let edge = self.edge;
            self.send(&[(edge, 1460), (edge + 1460, 1460), (edge + 2920, 1460)]);
            self.check();
            for n in 0..self.calls.len() {
                self.step(n);
            }
            self.check();
            if self.calls.iter().all(|running| running.call.is_none()) {
                let rest = read(self.stream, 100_000).unwrap_or_default();
                assert_eq!(rest, bytes(self.copied, rest.len()));
                self.copied += rest.len();
            }
            self.world.turn();
            // A closed window opens when memory comes back, unasked; here the peer probes as well.
            self.world.wait(Duration::from_millis(300));
            round += 1;
            assert!(round < 500, "it stays at {} of {TOTAL}", self.edge);
        }
        self.over = true;
        for n in 0..self.calls.len() {
            for _ in 0..3 {
                self.step(n);
            }
            assert!(self.calls[n].call.is_none(), "asleep behind the end");
        }
        self.world.turn();
        while let Ok(rest) = read(self.stream, 100_000) {
            if rest.is_empty() {
                break;
            }
            assert_eq!(rest, bytes(self.copied, rest.len()));
            self.copied += rest.len();
        }
        self.world.turn();
        self.check();
        assert!(ending == Ending::ShutRead || self.stream.readable() == 0);
        if ending == Ending::Fin {
            // What came back is uncharged at the next visit.
            let ack = self.peer.segment(ACK, TOTAL as u32 + 1, &[]);
            self.world.receive([ack]);
            let guard = self.stream.lock();
            assert_eq!(guard.connection().rmem(), 0, "memory has not come back");
        }
    }
}

fn run(irs: u32, rcvbuf: u32, ops: &[Op], ending: Ending) {
    let mut settings = Settings::default();
    settings.tcp_rmem[1] = rcvbuf;
    let mut world = World::new(settings);
    let listener = listening(&mut world, 5);
    let mut peer = Peer { seq: irs, ..Peer::new(40_000) };
    world.receive([peer.syn()]);
    let syn_ack = world.expect_segment();
    peer.take(&syn_ack);
    world.receive([peer.ack()]);
    let stream = accept(&listener).unwrap();
    let mut bufs = vec![vec![0; LONGEST]; CALLS];
    // Every third is in pieces.
    let (flat, cut) = bufs.split_at_mut(CALLS - CALLS / 3);
    let mut pieces: Vec<_> = cut
        .iter_mut()
        .map(|buf| {
            let (head, rest) = buf.split_at_mut(100);
            let (body, tail) = rest.split_at_mut(2000);
            [head, body, tail].map(IoSliceMut::new)
        })
        .collect();
    let mut slices: Vec<_> = pieces.iter_mut().map(|pieces| Slices::new(pieces)).collect();
    let mut flat = flat.iter_mut().enumerate();
    let mut cut = slices.iter_mut().enumerate();
    let mut memory = Vec::new();
    let mut order = Vec::new();
    for nth in 0..CALLS {
        if nth % 3 == 2 {
            let (at, slices) = cut.next().expect("a third of them");
            memory.push(Memory::Pieces(slices));
            order.push(CALLS - CALLS / 3 + at);
        } else {
            let (at, buf) = flat.next().expect("the others");
            memory.push(Memory::Flat(buf));
            order.push(at);
        }
    }
    let mut model = Model {
        world,
        peer,
        scale: syn_ack.options.window_scale.unwrap_or(0),
        stream: &stream,
        guard: None,
        calls: Vec::new(),
        free: memory.into_iter(),
        sent: vec![false; TOTAL],
        fin_sent: false,
        copied: 0,
        edge: 0,
        right_edge: 0,
        over: false,
    };
    for op in ops {
        model.run(op);
    }
    model.finish(ending);
    let (mut world, calls) = model.into_results();
    for (at, (flags, expected)) in order.into_iter().zip(&calls) {
        assert!(flags.has(RecvFlags::TRUNC) || bufs[at].starts_with(expected), "wrong bytes");
    }
    drop(stream);
    world.turn();
}

proptest! {
    // A third of what others do: each is a whole connection. PROPTEST_CASES says how many.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 3))]

    #[test]
    fn peers_lcores_and_readers_in_any_order_lose_nothing(
        irs in prop_oneof![Just(u32::MAX - 50), Just(u32::MAX - 60_000), any::<u32>()],
        rcvbuf in prop_oneof![Just(20_000_u32), Just(131_072), Just(1_000_000)],
        ops in vec(op(), 1..120),
        ending in prop_oneof![
            4 => Just(Ending::Fin),
            2 => Just(Ending::Reset),
            1 => Just(Ending::ShutRead),
            1 => Just(Ending::Dropped),
        ],
    ) {
        run(irs, rcvbuf, &ops, ending);
    }
}
