//! Install, push, spill, uninstall, and the way back: the socket itself over a toy connection.

use std::collections::VecDeque;
use std::sync::Arc;

use loom::thread;

use super::{explore, explore_bounded};
use crate::buf::{HeapBuf, PacketBuf, Returns, advance};
use crate::socket::sync::mutants::{self, Mutant};
use crate::socket::{
    Claim, Connection, Deferred, Handle, Home, LcoreRef, RecvFlags, SocketId, TcpStream, Waiting,
};
use crate::tcp::tcb::{ConnError, Sink};
use crate::tcp::{Counters, SeqNum};
use crate::wire::{FourTuple, Segment};

/// A connection that only queues.
#[derive(Debug, Default)]
pub(super) struct Toy {
    queue: VecDeque<HeapBuf>,
    edge: u32,
    eof: bool,
    /// Where it wants to be told of the reader's progress.
    mark: Option<u32>,
    /// Segments that were copied to a reader that waited.
    direct: u32,
}

impl Toy {
    fn input(&mut self, mut buf: HeapBuf, sink: &mut impl Sink<HeapBuf>) {
        assert_eq!(buf.cb().seq, self.edge, "the backlog is out of order");
        self.edge += buf.len() as u32;
        let sticky = mutants::chosen() != Some(Mutant::SpillNotSticky);
        if !self.queue.is_empty() && sticky {
            self.queue.push_back(buf);
        } else if let Err(refused) = sink.push(buf) {
            buf = refused;
            let n = sink.copy(&buf);
            self.direct += u32::from(n != 0);
            if n != buf.len() {
                advance(&mut buf, n);
                self.queue.push_back(buf);
            }
        }
    }
}

impl Connection<HeapBuf> for Toy {
    fn edge(&self) -> SeqNum {
        SeqNum::new(self.edge)
    }
    fn eof(&self) -> bool {
        self.eof
    }
    fn error(&self) -> Option<ConnError> {
        None
    }
    fn is_closed(&self) -> bool {
        false
    }
    fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }
    fn is_pressed(&self) -> bool {
        false
    }
    fn notify_at(&self) -> Option<SeqNum> {
        self.mark.map(SeqNum::new)
    }
    fn backlog_room(&self) -> u32 {
        1 << 20
    }
    fn take_receive_queue(&mut self) -> VecDeque<HeapBuf> {
        std::mem::take(&mut self.queue)
    }
    fn put_back(&mut self, mut older: VecDeque<HeapBuf>) {
        older.append(&mut self.queue);
        self.queue = older;
    }
}

type ToyHome = Home<HeapBuf, Toy>;

/// The lcore of one socket.
pub(super) struct Lcore {
    home: Arc<ToyHome>,
    socket: LcoreRef<HeapBuf, Toy>,
    /// What was deferred and not yet worked off.
    deferred: u32,
    /// Buffers that have come back, as far as somebody counts them.
    returned: u32,
    counters: Counters,
}

pub(super) fn open() -> (Lcore, Handle<HeapBuf, Toy>) {
    let home = Arc::new(ToyHome::default());
    let tuple = FourTuple {
        local_addr: [10, 0, 0, 1].into(),
        remote_addr: [10, 0, 0, 2].into(),
        local_port: 1,
        remote_port: 2,
    };
    let id = SocketId { slot: 0, generation: 0 };
    let (socket, handle) = LcoreRef::new(Toy::default(), &home, id, tuple);
    (Lcore { home, socket, deferred: 0, returned: 0, counters: Counters::default() }, handle)
}

fn segment() -> Segment {
    Segment {
        seq: 0,
        ack: 0,
        len: 1,
        window: 0,
        urgent: 0,
        flags: crate::wire::Flags::ACK,
        ecn: 0,
        ts: None,
    }
}

fn byte(seq: u32) -> HeapBuf {
    let mut buf = HeapBuf::new(&[seq as u8]);
    buf.cb_mut().seq = seq;
    buf
}

impl Lcore {
    /// One segment of one byte in a burst of its own.
    pub(super) fn push(&mut self, seq: u32) {
        if let Some(mut claim) = self.socket.claim() {
            drain(&mut claim, &mut self.deferred);
            let (tcb, sink) = claim.parts();
            tcb.input(byte(seq), sink);
            claim.leave();
        } else {
            self.deferred += 1;
            let what = Deferred::Segment(segment(), byte(seq));
            if let Some(mut claim) = self.socket.defer(what, &mut self.counters) {
                drain(&mut claim, &mut self.deferred);
                claim.leave();
            }
        }
    }

    fn poll(&mut self) {
        if self.home.take_bells().count() != 0 {
            if let Some(mut claim) = self.socket.claim() {
                drain(&mut claim, &mut self.deferred);
                claim.leave();
            } else {
                self.deferred += 1;
                if let Some(mut claim) = self.socket.defer(Deferred::Bell, &mut self.counters) {
                    drain(&mut claim, &mut self.deferred);
                    claim.leave();
                }
            }
        }
        self.home.returns().free_all(|_, _| self.returned += 1);
    }

    /// Polls until nothing is deferred: a stranded segment never ends this, which loom reports.
    pub(super) fn settle(&mut self) {
        while self.deferred != 0 {
            self.poll();
            thread::yield_now();
        }
    }

    fn end_of_stream(&mut self) {
        self.settle();
        self.change(|tcb| tcb.eof = true);
    }

    /// Changes the connection. A thread may own at the moment: this waits like everything else.
    fn change(&mut self, what: impl Fn(&mut Toy)) {
        loop {
            if let Some(mut claim) = self.socket.claim() {
                drain(&mut claim, &mut self.deferred);
                what(claim.tcb());
                claim.leave();
                return;
            }
            thread::yield_now();
        }
    }

    /// Waits to be rung for the reader's progress beyond `mark`: for ever, which loom reports, if it never
    /// is. What was read until then must be back.
    fn await_progress(&mut self, mark: u32) {
        self.change(|tcb| tcb.mark = Some(mark));
        while self.home.take_bells().count() == 0
            || self.socket.copied_seq().before(SeqNum::new(mark))
        {
            thread::yield_now();
        }
        self.home.returns().free_all(|_, _| self.returned += 1);
        assert!(self.returned >= mark, "told of more than has come back");
    }

    /// Segments that were copied to a reader that waited. When nobody owns any more.
    pub(super) fn direct_copies(&mut self) -> u32 {
        self.socket.claim().map_or(0, |mut claim| claim.tcb().direct)
    }

    /// Whether somebody has asked for it.
    pub(super) fn is_to_be_reset(&mut self) -> bool {
        assert_eq!(self.home.take_bells().count(), 1);
        self.socket.claim().is_some_and(|mut claim| claim.take_requests().abort())
    }

    /// After all threads have gone: everything ends.
    pub(super) fn finish(mut self) {
        self.poll();
        let Self { home, socket, .. } = self;
        drop(socket);
        assert_eq!(home.take_bells().count(), 0);
        assert_eq!(home.reap(), 1, "the socket has not come to its end");
    }
}

fn drain(claim: &mut Claim<'_, HeapBuf, Toy>, deferred: &mut u32) {
    while let Some(what) = claim.next_deferred() {
        if let Deferred::Segment(_, buf) = what {
            let (tcb, sink) = claim.parts();
            tcb.input(buf, sink);
        }
    }
    *deferred = 0;
}

/// Reads one byte at a time until `n` are read.
pub(super) fn read_singly(stream: &TcpStream<HeapBuf, Toy>, n: u8) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < usize::from(n) {
        let mut buf = [0];
        assert_eq!(stream.recv(&mut buf, RecvFlags::NONE).unwrap(), 1);
        read.push(buf[0]);
    }
    read
}

/// What an lcore and a thread that reads do.
#[derive(Clone, Copy)]
pub(super) struct Play {
    /// Involuntary switches that are explored.
    pub(super) switches: usize,
    /// Segments of one byte each, in bursts of their own.
    pub(super) bytes: u32,
    pub(super) low_latency: bool,
}

impl Play {
    /// Explores it: what `read` returns are the bytes, in order.
    pub(super) fn run(self, read: fn(Handle<HeapBuf, Toy>) -> Vec<u8>) {
        self.run_then(read, |_| {});
    }

    /// The same, with a look at the lcore when the reader has gone.
    pub(super) fn run_then(
        self,
        read: fn(Handle<HeapBuf, Toy>) -> Vec<u8>,
        then: impl Fn(&mut Lcore) + Send + Sync + 'static,
    ) {
        let Self { switches, bytes, low_latency } = self;
        explore_bounded(switches, move || {
            let (mut lcore, handle) = open();
            if low_latency {
                handle.set_low_latency(true);
            }
            let reader = thread::spawn(move || read(handle));
            for seq in 0..bytes {
                lcore.push(seq);
            }
            lcore.settle();
            assert_eq!(reader.join().unwrap(), (0..bytes as u8).collect::<Vec<_>>());
            then(&mut lcore);
            lcore.finish();
        });
    }
}

/// Two readers of one stream, each of which reads a byte.
pub(super) fn two_readers(low_latency: bool) {
    let play = Play { switches: 2, bytes: 2, low_latency };
    play.run(|handle| {
        let other = TcpStream::from(handle.another());
        let other = thread::spawn(move || read_singly(&other, 1)[0]);
        let own = read_singly(&handle.into(), 1)[0];
        let mut read = vec![own, other.join().unwrap()];
        read.sort_unstable();
        read
    });
}

/// A shared reader that installs and uninstalls with each call, against three segments of which
/// the third does not fit into the ring.
fn shared_reader() {
    let play = Play { switches: 2, bytes: 3, low_latency: false };
    play.run(|handle| read_singly(&handle.into(), 3));
}

#[test]
fn loom_bytes_reach_a_shared_reader_in_order() {
    shared_reader();
}

#[test]
fn loom_mutant_put_back_behind() {
    mutants::must_fail(Mutant::PutBackBehind, "loom_bytes_reach_a_shared_reader_in_order");
}

/// A reader that stays installed: ring, spill, and ring again.
fn exclusive_reader() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        let reader = thread::spawn(move || {
            let mut stream = TcpStream::from(handle);
            let mut reader = stream.reader().unwrap();
            let mut read = Vec::new();
            let mut buf = [0; 8];
            loop {
                match reader.recv(&mut buf, RecvFlags::NONE).unwrap() {
                    0 => return read,
                    n => read.extend_from_slice(&buf[..n]),
                }
            }
        });
        for seq in 0..4 {
            lcore.push(seq);
        }
        lcore.end_of_stream();
        assert_eq!(reader.join().unwrap(), [0, 1, 2, 3]);
        lcore.finish();
    });
}

#[test]
fn loom_spilled_bytes_reach_an_installed_reader_in_order() {
    exclusive_reader();
}

#[test]
fn loom_mutant_spill_not_sticky() {
    mutants::must_fail(
        Mutant::SpillNotSticky,
        "loom_spilled_bytes_reach_an_installed_reader_in_order",
    );
}

#[test]
fn loom_mutant_status_before_ring_not_read() {
    mutants::must_fail(
        Mutant::StatusBeforeRingNotRead,
        "loom_spilled_bytes_reach_an_installed_reader_in_order",
    );
}

/// Reads one byte after the other as the only reader, spinning.
fn spin(handle: Handle<HeapBuf, Toy>) -> Vec<u8> {
    handle.socket.options.set_waiting(Waiting::Spin);
    let mut stream = TcpStream::from(handle);
    let mut reader = stream.reader().unwrap();
    let mut buf = [9];
    let mut read = || {
        assert_eq!(reader.recv(&mut buf, RecvFlags::NONE).unwrap(), 1);
        buf[0]
    };
    (0..3).map(|_| read()).collect()
}

/// A reader that spins tells late what it has read: when it finds nothing, or has read as many buffers
/// as go back at once, which are two here. The last byte comes only when it has.
fn spinner(first: u32) {
    explore_bounded(2, move || {
        let (mut lcore, handle) = open();
        let reader = thread::spawn(move || spin(handle));
        (0..first).for_each(|seq| lcore.push(seq));
        lcore.settle();
        lcore.await_progress(first);
        (first..3).for_each(|seq| lcore.push(seq));
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        lcore.finish();
    });
}

#[test]
fn loom_a_spinner_that_finds_nothing_tells_how_far_it_is() {
    spinner(1);
}

#[test]
fn loom_buffers_come_back_in_batches_before_the_lcore_is_told() {
    spinner(2);
}

#[test]
fn loom_mutant_spinner_never_tells() {
    mutants::must_fail(
        Mutant::SpinnerNeverTells,
        "loom_a_spinner_that_finds_nothing_tells_how_far_it_is",
    );
}

#[test]
fn loom_mutant_progress_before_buffers() {
    mutants::must_fail(
        Mutant::ProgressBeforeBuffers,
        "loom_buffers_come_back_in_batches_before_the_lcore_is_told",
    );
}

#[test]
fn loom_two_readers_get_each_byte_once() {
    two_readers(false);
}

/// The lcore copies what a reader has and has not read into other buffers, whatever that is doing.
fn relief() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        let reader = thread::spawn(move || read_singly(&handle.into(), 2));
        for seq in 0..2 {
            lcore.push(seq);
            lcore.settle();
            if let Some(mut claim) = lcore.socket.claim() {
                drain(&mut claim, &mut lcore.deferred);
                claim.with_unread(|_, queue| {
                    for old in std::mem::take(queue) {
                        queue.push_back(byte(old.cb().seq));
                    }
                });
                claim.leave();
            }
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1]);
        lcore.finish();
    });
}

#[test]
fn loom_what_a_reader_has_is_exchanged_in_order() {
    relief();
}

#[test]
fn loom_mutant_ring_before_taken() {
    mutants::must_fail(Mutant::RingBeforeTaken, "loom_what_a_reader_has_is_exchanged_in_order");
}

/// The last handle goes while the lcore stops: the socket's end comes once, and somebody has it.
fn teardown() {
    explore(|| {
        let (mut lcore, handle) = open();
        lcore.push(0);
        let closer = thread::spawn(move || drop(handle));
        let Lcore { home, socket, .. } = lcore;
        socket.kill();
        drop(socket);
        home.close();
        closer.join().unwrap();
        assert_eq!(home.reap(), 0, "left on the list of a closed home");
        let mut back = 0;
        home.returns().free_all(|_, _| back += 1);
        assert_eq!(back, 1, "the buffer did not come back");
    });
}

#[test]
fn loom_the_last_one_out_leaves_nothing_behind() {
    teardown();
}

#[test]
fn loom_mutant_reap_without_second_look() {
    mutants::must_fail(
        Mutant::ReapWithoutSecondLook,
        "loom_the_last_one_out_leaves_nothing_behind",
    );
}

/// A call with a time limit, which does not wait for the token of an exclusive reader as such, sleeps
/// where it would sleep for data; the reader goes.
fn exclusive_reader_goes() {
    explore(|| {
        let (lcore, handle) = open();
        handle.socket.set_exclusive(true);
        let waiting = {
            let handle = handle.another();
            thread::spawn(move || {
                let socket = &handle.socket;
                while socket.is_exclusive() {
                    let park = socket.park();
                    let seen = park.announce(park.edge().plus(1));
                    if socket.is_exclusive() {
                        let _ = park.word().wait(seen, None);
                    }
                }
            })
        };
        handle.socket.set_exclusive(false);
        waiting.join().unwrap();
        drop(handle);
        lcore.finish();
    });
}

#[test]
fn loom_a_call_that_waits_for_a_reader_is_woken() {
    exclusive_reader_goes();
}

#[test]
fn loom_mutant_exclusive_wake_without_fence() {
    mutants::must_fail(Mutant::WakeWithoutFence, "loom_a_call_that_waits_for_a_reader_is_woken");
}
