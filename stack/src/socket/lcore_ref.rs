//! The lcore's reference to a socket, and the work that waits there while a thread owns it.
//!
//! [`LcoreRef`] stays on the lcore that runs the connection; nothing here waits. What finds the socket
//! owned is kept here, where no thread can see it, until the doorbell says that the thread has gone.
//! What the lcore does as the owner is in `claim.rs`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::buf::PacketBuf;
use crate::tcp::icmp::Report;
use crate::tcp::tcb::Tcb;
use crate::tcp::{Counter, Counters, SeqNum};
use crate::watch::Span;
use crate::wire::{Flags, FourTuple, Segment};

use super::claim::Claim;
use super::conn::Connection;
use super::handle::Handle;
use super::home::Home;
use super::owner::Ref;
use super::socket::{Socket, SocketId};

/// The lcore's own reference to a socket.
#[derive(Debug)]
pub struct LcoreRef<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    pub(super) socket: Ref<Socket<B, C>>,
    pub(super) waiting: RefCell<Waiting<B>>,
}

/// What found the socket owned.
#[derive(Debug)]
pub enum Deferred<B> {
    /// A segment: kept in the backlog, if there is room.
    Segment(Segment, B),
    /// A deadline has passed: ask [`Tcb::on_timer`].
    Timer,
    /// The doorbell rang: look at [`Claim::take_requests`] and the reader's progress.
    Bell,
    /// Buffers of this truesize came back.
    Uncharge(u32),
    /// An ICMP error about a segment that began at this number.
    Icmp(u32, Report),
}

/// Work for later, in the order in which it is to be done.
#[derive(Debug)]
pub(super) struct Waiting<B> {
    /// Whether there is any: mostly there is none.
    any: bool,
    uncharge: u32,
    backlog: VecDeque<(Segment, B)>,
    /// Truesize in the backlog, and how much may be, both in bytes.
    bytes: u32,
    pub(super) room: u32,
    timer: bool,
    bell: bool,
    /// The last error of each kind.
    too_big: Option<(u32, Report)>,
    lost: Option<(u32, Report)>,
}

impl<B: PacketBuf, C: Connection<B>> LcoreRef<B, C> {
    /// Shares a connection: the lcore's reference, and the application's first handle.
    pub fn new(
        tcb: C,
        home: &Arc<Home<B, C>>,
        id: SocketId,
        tuple: FourTuple,
    ) -> (Self, Handle<B, C>) {
        let room = tcb.backlog_room();
        let socket = Socket::new(tcb, home, id, tuple);
        let waiting = Waiting {
            any: false,
            uncharge: 0,
            backlog: VecDeque::new(),
            bytes: 0,
            room,
            timer: false,
            bell: false,
            too_big: None,
            lost: None,
        };
        let handle = Handle::first(socket.clone());
        (Self { socket, waiting: RefCell::new(waiting) }, handle)
    }

    /// Which socket this is.
    pub fn id(&self) -> SocketId {
        self.socket.id()
    }

    /// The connection's addresses.
    pub fn tuple(&self) -> &FourTuple {
        &self.socket.tuple
    }

    /// Claims the socket unless a thread owns it. What was deferred comes first:
    /// [`Claim::next_deferred`].
    pub fn claim(&self) -> Option<Claim<'_, B, C>> {
        self.socket.inner.claim_lcore().map(|inner| Claim::new(self, inner))
    }

    /// Records what found the socket owned, and claims if nobody owns it by then; what was
    /// recorded is then the last that [`Claim::next_deferred`] gives of its kind.
    ///
    /// A segment that the backlog has no room for is dropped and counted (`TCPBacklogDrop`): the
    /// peer sends it again.
    pub fn defer(&self, what: Deferred<B>, counters: &mut Counters) -> Option<Claim<'_, B, C>> {
        self.waiting.borrow_mut().record(what, counters);
        self.socket.inner.defer().map(|inner| Claim::new(self, inner))
    }

    /// The segments in the backlog, oldest first.
    pub fn backlog(&self) -> Vec<Span> {
        let span = |segment: &Segment| Span {
            seq: segment.seq,
            len: segment.len,
            fin: segment.flags.has(Flags::FIN),
        };
        self.waiting.borrow().backlog.iter().map(|(segment, _)| span(segment)).collect()
    }

    /// Whether anything waits for the next claim.
    pub fn has_deferred(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Buffers in the backlog.
    pub fn backlog_len(&self) -> usize {
        self.waiting.borrow().backlog.len()
    }

    /// The reader's progress as published, without owning.
    pub fn copied_seq(&self) -> SeqNum {
        self.socket.progress.copied_seq()
    }

    /// The lcore stops: every call on the socket returns an error from now on, also those that
    /// sleep.
    pub fn kill(&self) {
        self.socket.kill();
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for LcoreRef<B, C> {
    fn drop(&mut self) {
        self.socket.retire();
        // If the word is LCORE_DUE nobody but us can make it FREE; if a thread owns with PENDING
        // set, its ring comes and `Home::take_bells` does it.
        drop(self.socket.claim_for_nobody());
    }
}

impl<B: PacketBuf> Waiting<B> {
    fn record(&mut self, what: Deferred<B>, counters: &mut Counters) {
        self.any = true;
        match what {
            // One segment may overshoot, as in Linux.
            Deferred::Segment(segment, buf) if self.bytes <= self.room => {
                counters.bump(Counter::ToBacklog);
                self.bytes = self.bytes.saturating_add(buf.chain_truesize());
                self.backlog.push_back((segment, buf));
            }
            Deferred::Segment(..) => counters.bump(Counter::TCPBacklogDrop),
            Deferred::Timer => self.timer = true,
            Deferred::Bell => self.bell = true,
            Deferred::Uncharge(truesize) => self.uncharge += truesize,
            Deferred::Icmp(seq, report @ Report::TooBig { .. }) => {
                self.too_big = Some((seq, report));
            }
            Deferred::Icmp(seq, report @ Report::Lost { .. }) => {
                counters.bump(Counter::LockDroppedIcmps);
                self.lost = Some((seq, report));
            }
        }
    }

    /// Memory first, so that the segments find it; then segments, timers, requests.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Deferred<B>> {
        if self.any { self.next_of_some() } else { None }
    }

    #[inline(never)]
    fn next_of_some(&mut self) -> Option<Deferred<B>> {
        let next = self.take_next();
        self.any = next.is_some();
        next
    }

    fn take_next(&mut self) -> Option<Deferred<B>> {
        if self.uncharge != 0 {
            return Some(Deferred::Uncharge(std::mem::take(&mut self.uncharge)));
        }
        if let Some((segment, buf)) = self.backlog.pop_front() {
            return Some(Deferred::Segment(segment, buf));
        }
        // Counted until all of it was worked off.
        self.bytes = 0;
        if std::mem::take(&mut self.timer) {
            return Some(Deferred::Timer);
        }
        if std::mem::take(&mut self.bell) {
            return Some(Deferred::Bell);
        }
        let (seq, report) = self.too_big.take().or_else(|| self.lost.take())?;
        Some(Deferred::Icmp(seq, report))
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::buf::HeapBuf;
    use crate::tcp::tcb::ConnError;

    /// A connection with room for three buffers in the backlog, and one that overshoots.
    #[derive(Debug)]
    struct Three;

    impl Connection<HeapBuf> for Three {
        fn edge(&self) -> SeqNum {
            SeqNum::new(0)
        }
        fn eof(&self) -> bool {
            false
        }
        fn error(&self) -> Option<ConnError> {
            None
        }
        fn is_closed(&self) -> bool {
            false
        }
        fn has_queued(&self) -> bool {
            false
        }
        fn is_pressed(&self) -> bool {
            false
        }
        fn notify_at(&self) -> Option<SeqNum> {
            None
        }
        fn backlog_room(&self) -> u32 {
            3 * HeapBuf::new(&[]).truesize() - 1
        }
        fn take_receive_queue(&mut self) -> VecDeque<HeapBuf> {
            VecDeque::new()
        }
        fn put_back(&mut self, _: VecDeque<HeapBuf>) {}
    }

    type TestHome = Arc<Home<HeapBuf, Three>>;

    fn open() -> (TestHome, LcoreRef<HeapBuf, Three>, Handle<HeapBuf, Three>) {
        let home = TestHome::default();
        let tuple = FourTuple {
            local_addr: [10, 0, 0, 1].into(),
            remote_addr: [10, 0, 0, 2].into(),
            local_port: 1,
            remote_port: 2,
        };
        let id = SocketId { slot: 7, generation: 2 };
        let (lcore, handle) = LcoreRef::new(Three, &home, id, tuple);
        (home, lcore, handle)
    }

    fn segment(seq: u32) -> Deferred<HeapBuf> {
        let flags = crate::wire::Flags::ACK;
        let ts = None;
        let segment = Segment { seq, ack: 0, len: 0, window: 0, urgent: 0, flags, ecn: 0, ts };
        Deferred::Segment(segment, HeapBuf::new(&[]))
    }

    #[test]
    fn what_meets_a_guard_is_worked_off_in_order_after_it() {
        let (home, lcore, handle) = open();
        let mut counters = Counters::default();
        let guard = handle.lock();
        assert!(lcore.claim().is_none());
        assert!(lcore.defer(Deferred::Bell, &mut counters).is_none());
        assert!(lcore.defer(Deferred::Timer, &mut counters).is_none());
        for seq in 0..5 {
            assert!(lcore.defer(segment(seq), &mut counters).is_none());
        }
        assert!(lcore.defer(Deferred::Uncharge(5), &mut counters).is_none());
        assert!(lcore.defer(Deferred::Uncharge(6), &mut counters).is_none());
        assert_eq!(counters.value(Counter::TCPBacklogDrop), 2);

        assert_eq!(home.take_bells().count(), 0);
        drop(guard);
        assert_eq!(home.take_bells().collect::<Vec<_>>(), [lcore.id()]);
        let mut claim = lcore.claim().expect("only the lcore may claim now");
        assert!(matches!(claim.next_deferred(), Some(Deferred::Uncharge(11))));
        for expected in 0..3 {
            let next = claim.next_deferred();
            assert!(matches!(next, Some(Deferred::Segment(s, _)) if s.seq == expected));
        }
        assert!(matches!(claim.next_deferred(), Some(Deferred::Timer)));
        assert!(matches!(claim.next_deferred(), Some(Deferred::Bell)));
        assert!(claim.next_deferred().is_none());
        claim.leave();
        drop(handle.lock());
        assert_eq!(home.take_bells().count(), 0, "nothing was deferred this time");
    }

    #[test]
    fn requests_are_given_once() {
        let (home, lcore, handle) = open();
        handle.shutdown_write();
        handle.shutdown_write();
        assert_eq!(home.take_bells().count(), 1);
        let mut claim = lcore.claim().unwrap();
        let requests = claim.take_requests();
        assert!(requests.shut_write() && !requests.shut_read() && requests.close().is_none());
        assert!(claim.take_requests().is_empty());
        claim.leave();
        handle.set_linger_zero();
        drop(handle);
        assert_eq!(home.take_bells().count(), 1);
        assert_eq!(lcore.claim().unwrap().take_requests().close(), Some(true));
        drop(lcore);
        assert_eq!(home.reap(), 1);
    }

    #[test]
    fn a_failure_while_owning_has_the_connection_reset() {
        let (home, lcore, handle) = open();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _owner = handle.socket.own();
            panic!("a bug");
        }));
        assert!(panicked.is_err());
        assert_eq!(home.take_bells().collect::<Vec<_>>(), [lcore.id()]);
        let mut claim = lcore.claim().expect("left to the lcore");
        assert!(claim.take_requests().abort());
        assert!(claim.take_requests().is_empty(), "given once");
    }

    #[test]
    fn a_socket_without_its_lcore_can_still_be_locked() {
        let (home, lcore, handle) = open();
        let guard = handle.lock();
        assert!(lcore.defer(Deferred::Bell, &mut Counters::default()).is_none());
        drop(lcore);
        drop(guard);
        // The word is LCORE_DUE now, and the doorbell's list the one place that knows.
        assert_eq!(home.take_bells().count(), 0);
        drop(handle.lock());
        drop(handle);
        assert_eq!(home.take_bells().count(), 0);
        assert_eq!(home.reap(), 1);
    }
}
