//! Install, push, spill, uninstall, and the way back: the socket itself over a toy connection.

use std::collections::VecDeque;
use std::sync::Arc;

use loom::thread;

use super::{explore, explore_bounded};
use crate::buf::{HeapBuf, PacketBuf, Returns, advance};
use crate::socket::sync::mutants::{self, Mutant};
use crate::socket::{
    Claim, Connection, Deferred, Handle, Home, LcoreRef, RecvFlags, SocketId, TcpStream,
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
        None
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
    (Lcore { home, socket, deferred: 0, counters: Counters::default() }, handle)
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
        self.home.returns().free_all(|_, _| {});
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
        // A thread may own at the moment: the FIN waits like everything else.
        loop {
            if let Some(mut claim) = self.socket.claim() {
                drain(&mut claim, &mut self.deferred);
                claim.tcb().eof = true;
                claim.leave();
                return;
            }
            thread::yield_now();
        }
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

/// A shared reader that installs and uninstalls with each call, against three segments of which
/// the third does not fit into the ring.
fn shared_reader() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        let reader = thread::spawn(move || read_singly(&handle.into(), 3));
        for seq in 0..3 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        lcore.finish();
    });
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

/// Two readers on one stream share three bytes; the last to leave uninstalls.
fn two_readers() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        let streams = [TcpStream::from(handle.another()), TcpStream::from(handle)];
        let readers = streams.map(|stream| thread::spawn(move || read_singly(&stream, 1)[0]));
        for seq in 0..2 {
            lcore.push(seq);
        }
        lcore.settle();
        let mut read = readers.map(|reader| reader.join().unwrap());
        read.sort_unstable();
        assert_eq!(read, [0, 1]);
        lcore.finish();
    });
}

#[test]
fn loom_two_readers_get_each_byte_once() {
    two_readers();
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
