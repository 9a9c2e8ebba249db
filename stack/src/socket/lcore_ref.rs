//! The lcore's side of a socket: claim, backlog, leave.
//!
//! [`LcoreRef`] stays on the lcore that runs the connection; nothing here waits, and the only
//! system call is the one that wakes a thread which sleeps. What finds the socket owned is kept
//! here, where no thread can see it, until the doorbell says that the thread has gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::buf::PacketBuf;
use crate::tcp::icmp::Report;
use crate::tcp::tcb::Tcb;
use crate::tcp::{Counter, Counters, SeqNum};
use crate::watch::Span;
use crate::wire::{Flags, FourTuple, Segment};

use super::conn::Connection;
use super::direct::Slot;
use super::home::Home;
use super::owner::{LcoreClaim, Owned, Ref, ThreadClaim};
use super::park::{Status, UrgentWord};
use super::recv::ReaderSide;
use super::socket::{Handle, Inner, Requests, RingSink, Socket, SocketId};
use super::sync::mutant;

/// The lcore's own reference to a socket.
#[derive(Debug)]
pub struct LcoreRef<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    socket: Ref<Socket<B, C>>,
    waiting: RefCell<Waiting<B>>,
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
struct Waiting<B> {
    uncharge: u32,
    backlog: VecDeque<(Segment, B)>,
    /// Truesize in the backlog, and how much may be, both in bytes.
    bytes: u32,
    room: u32,
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
    fn next(&mut self) -> Option<Deferred<B>> {
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

    fn is_empty(&self) -> bool {
        let Self { uncharge, backlog, bytes: _, room: _, timer, bell, too_big, lost } = self;
        let is_told = too_big.is_some() || lost.is_some();
        backlog.is_empty() && *uncharge == 0 && !timer && !bell && !is_told
    }
}

/// The lcore owns the socket. [`Self::leave`], or dropping it, publishes and releases.
#[derive(Debug)]
pub struct Claim<'a, B: PacketBuf, C: Connection<B> = Tcb<B>> {
    lcore: &'a LcoreRef<B, C>,
    /// Always there until dropped.
    inner: Option<LcoreClaim<'a, Inner<B, C>>>,
    /// What the lcore holds for as long as it has a reader's loan.
    reader: Option<ReaderClaim<'a, B>>,
    /// Whether a reader lends was not asked yet.
    may_ask: bool,
}

/// The reader token, and the slot that a loan was taken out of.
#[derive(Debug)]
struct ReaderClaim<'a, B: PacketBuf> {
    slot: ThreadClaim<'a, Slot>,
    side: ThreadClaim<'a, ReaderSide<B>>,
}

impl<'a, B: PacketBuf, C: Connection<B>> Claim<'a, B, C> {
    fn new(lcore: &'a LcoreRef<B, C>, inner: LcoreClaim<'a, Inner<B, C>>) -> Self {
        Self { lcore, inner: Some(inner), reader: None, may_ask: true }
    }

    /// The connection.
    pub fn tcb(&mut self) -> &mut C {
        &mut self.inner().tcb
    }

    /// The connection, and where it puts in-sequence data.
    ///
    /// Without a ring, which is the case in low-latency mode, the first call borrows the memory that
    /// a waiting reader lends, unless somebody else has the reader token.
    #[inline]
    pub fn parts(&mut self) -> (&mut C, &mut RingSink<B>) {
        if self.may_ask && self.inner().sink.0.is_none() {
            self.borrow_memory();
        }
        let inner = self.inner();
        (&mut inner.tcb, &mut inner.sink)
    }

    /// What was deferred, oldest first; to be worked off before anything new.
    pub fn next_deferred(&mut self) -> Option<Deferred<B>> {
        self.lcore.waiting.borrow_mut().next()
    }

    /// What handles have asked for since the last time, and the end of a connection in whose
    /// ownership the library has failed.
    pub fn take_requests(&mut self) -> Requests {
        let socket = &self.lcore.socket;
        let failed = socket.park().status().has(Status::DEAD);
        let all = socket.requests() | if failed { Requests::ABORT } else { 0 };
        let taken = std::mem::replace(&mut self.inner().requests_taken, all);
        Requests::news(all, taken)
    }

    /// The reader's progress.
    pub fn copied_seq(&self) -> SeqNum {
        self.lcore.socket.progress.copied_seq()
    }

    /// Tries the reader token once, and takes the reader's loan if there is one.
    #[inline(never)]
    fn borrow_memory(&mut self) {
        self.may_ask = false;
        let socket = &self.lcore.socket;
        if !socket.shared.offer.is_made() {
            return;
        }
        let (Some(side), Some(mut slot)) = (
            try_claim(&socket.reader, mutant!(DirectWithoutToken)),
            try_claim(&socket.slot, mutant!(DirectWithoutSlot)),
        ) else {
            return;
        };
        if let Some(loan) = slot.take_out(side.copied_seq()) {
            self.inner().sink.1 = Some(loan);
            self.reader = Some(ReaderClaim { slot, side });
        } else {
            unclaim(slot, mutant!(DirectWithoutSlot));
            unclaim(side, mutant!(DirectWithoutToken));
        }
    }

    /// Gives the reader's memory back, and publishes how far it has been filled; whether it has been.
    pub fn return_memory(&mut self) -> bool {
        let Some(inner) = &mut self.inner else { return false };
        let (Some(claimed), Some(loan)) = (self.reader.take(), inner.sink.1.take()) else {
            return false;
        };
        let ReaderClaim { mut slot, mut side } = claimed;
        let socket = &self.lcore.socket;
        side.read_up_to(slot.put_back(loan));
        unclaim(slot, mutant!(DirectWithoutSlot));
        let moved = socket.progress.is_behind(side.copied_seq());
        if moved {
            // Nobody has to be rung: the lcore looks at the progress itself before it leaves.
            let _ = socket.progress.publish(side.copied_seq(), &socket.shared.notify_at);
        }
        unclaim(side, mutant!(DirectWithoutToken));
        moved
    }

    /// Lends what readers have taken, or find in the ring, and have not read: unless a call is just
    /// at work on it, or an exclusive reader has it for good. A try, which waits for nobody.
    pub fn with_unread<R>(&mut self, work: impl FnOnce(&mut C, &mut B::Queue) -> R) -> Option<R> {
        let mut side = self.lcore.socket.reader.try_claim_thread()?;
        Some(work(&mut self.inner().tcb, side.unread()))
    }

    /// Publishes what has changed, gives the socket up and wakes whoever waits for it.
    pub fn leave(self) {}

    fn inner(&mut self) -> &mut Inner<B, C> {
        self.inner.as_mut().expect("owned until dropped")
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Claim<'_, B, C> {
    fn drop(&mut self) {
        // Whatever happens: the reader does not return without it.
        self.return_memory();
        let socket = &self.lcore.socket;
        let Some(mut inner) = self.inner.take() else { return };
        if std::thread::panicking() {
            // The lcore is going down with the state unknown: readers must not wait for it.
            drop(inner);
            socket.kill();
            return;
        }
        let mut waiting = self.lcore.waiting.borrow_mut();
        debug_assert!(waiting.is_empty(), "deferred work was left behind");
        waiting.room = inner.tcb.backlog_room();
        let news = inner.publish(socket);
        let edge = inner.edge;
        // A woken reader wants the word next: free it first. The published words, not the
        // ownership, are what a wake-up hangs on.
        drop(inner);
        match news {
            News::None => {}
            News::Some { wake, mark, poll } => {
                socket.park().wake_if_wanted(edge, wake == Wake::Everybody);
                if poll {
                    socket.notify_pollers();
                }
                // The second look: the reader may have passed the mark before it could see it.
                if mark && socket.shared.notify_at.passed_by(socket.progress.copied_seq()) {
                    socket.home.ring(socket);
                }
            }
        }
    }
}

/// Claims like a thread if nobody owns; a mutant claims in any case.
fn try_claim<T>(owned: &Owned<T>, anyway: bool) -> Option<ThreadClaim<'_, T>> {
    #[cfg(all(test, loom))]
    if anyway {
        return Some(owned.pretend_claim());
    }
    debug_assert!(!anyway);
    owned.try_claim_thread()
}

/// Gives up a claim of [`try_claim`].
fn unclaim<T>(claim: ThreadClaim<'_, T>, pretended: bool) {
    if pretended {
        std::mem::forget(claim);
    }
}

/// What the lcore has published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum News {
    None,
    Some {
        /// Who has to be woken.
        wake: Wake,
        /// Whether there is a new mark for the reader.
        mark: bool,
        /// Whether pollers are told: of data, or of a change of status.
        poll: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wake {
    /// Whoever wanted no more than has arrived.
    Satisfied,
    /// All sleepers, whatever they want.
    Everybody,
}

impl<B: PacketBuf, C: Connection<B>> Inner<B, C> {
    /// Publishes edge, status and mark where they have changed, and fences if any has.
    fn publish(&mut self, socket: &Socket<B, C>) -> News {
        let Self { tcb, sink: _, edge, status, urgent, notify_at, requests_taken: _ } = self;
        let park = socket.park();
        let error = tcb.error();
        let mark = UrgentWord::of(tcb.urgent());
        let now = Status::of(tcb);
        let advanced = tcb.edge() != *edge;
        let new_status = now != *status;
        let new_mark = tcb.notify_at() != *notify_at;
        let new_urgent = mark != *urgent;
        if !(advanced || new_status || new_mark || new_urgent) {
            return News::None;
        }
        if new_urgent {
            *urgent = mark;
            park.publish_urgent(mark);
        }
        // QUEUED before the edge: who sees the edge beyond what the ring holds finds the bit.
        let set = now.without(*status);
        if let Some(error) = error.filter(|_| set.has(Status::ERROR)) {
            socket.put_error(error);
        }
        if set.any() {
            park.set(set);
        }
        let cleared = status.without(now);
        if cleared.any() {
            park.clear(cleared);
        }
        *status = now;
        if advanced {
            *edge = tcb.edge();
            park.publish_edge(*edge);
        }
        if new_mark {
            *notify_at = tcb.notify_at();
            socket.shared.notify_at.publish(*notify_at);
        }
        park.fence();
        let pressed = now.has(Status::PRESSED) && advanced;
        let changed = set.without(Status::QUEUED).any() || new_urgent;
        let wake = if changed || pressed { Wake::Everybody } else { Wake::Satisfied };
        News::Some { wake, mark: new_mark, poll: advanced || changed }
    }
}

impl Status {
    /// What a connection says of itself.
    pub(super) fn of<B: PacketBuf>(connection: &impl Connection<B>) -> Self {
        let urgent = UrgentWord::of(connection.urgent());
        Self::QUEUED
            .only_if(connection.has_queued())
            .with(Self::EOF.only_if(connection.eof()))
            .with(Self::ERROR.only_if(connection.error().is_some()))
            .with(Self::CLOSED.only_if(connection.is_closed()))
            .with(Self::PRESSED.only_if(connection.is_pressed()))
            .with(Self::FLUSHED.only_if(connection.is_flushed()))
            .with(Self::URGENT.only_if(urgent.mark().is_some()))
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
