//! What the lcore does as the owner of a socket: the connection lent out, a reader's memory borrowed,
//! and at the end everything that has changed published, and whoever waits for it woken.
//!
//! Made by `lcore_ref.rs`, used on the lcore that runs the connection. Nothing here waits, and the only
//! system call is the one that wakes a thread which sleeps.

use crate::buf::PacketBuf;
use crate::tcp::SeqNum;
use crate::tcp::tcb::Tcb;

use super::conn::Connection;
use super::direct::Slot;
use super::handle::Requests;
use super::lcore_ref::{Deferred, LcoreRef};
use super::owner::{LcoreClaim, Owned, ThreadClaim};
use super::park::{Status, UrgentWord};
use super::recv::ReaderSide;
use super::socket::{Inner, RingSink, Socket};
use super::sync::mutant;

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
    /// Whether anything can have changed: else there is nothing to publish.
    is_touched: bool,
}

/// The slot that a loan was taken out of, and the reader token, unless the lender has that.
#[derive(Debug)]
struct ReaderClaim<'a, B: PacketBuf> {
    slot: ThreadClaim<'a, Slot>,
    side: Option<ThreadClaim<'a, ReaderSide<B>>>,
}

impl<'a, B: PacketBuf, C: Connection<B>> Claim<'a, B, C> {
    pub(super) fn new(lcore: &'a LcoreRef<B, C>, inner: LcoreClaim<'a, Inner<B, C>>) -> Self {
        Self { lcore, inner: Some(inner), reader: None, may_ask: true, is_touched: false }
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

    /// Tries the reader token once, and takes the reader's loan if there is one, or that of an exclusive
    /// reader, who has the token.
    #[inline(never)]
    fn borrow_memory(&mut self) {
        self.may_ask = false;
        let socket = &self.lcore.socket;
        if !socket.shared.offer.is_made() {
            return;
        }
        let side = try_claim(&socket.reader, mutant!(DirectWithoutToken));
        let slot = try_claim(&socket.slot, mutant!(DirectWithoutSlot));
        if let Some(mut slot) = slot {
            if let Some(loan) = slot.take_out(side.as_ref().map(|side| side.copied_seq())) {
                self.inner().sink.1 = Some(loan);
                self.reader = Some(ReaderClaim { slot, side });
                return;
            }
            unclaim(slot, mutant!(DirectWithoutSlot));
        }
        if let Some(side) = side {
            unclaim(side, mutant!(DirectWithoutToken));
        }
    }

    /// Gives the reader's memory back, and publishes how far it has been filled; whether it has been.
    #[inline]
    pub fn return_memory(&mut self) -> bool {
        self.reader.is_some() && self.return_loan()
    }

    #[inline(never)]
    fn return_loan(&mut self) -> bool {
        let Some(inner) = &mut self.inner else { return false };
        let (Some(claimed), Some(loan)) = (self.reader.take(), inner.sink.1.take()) else {
            return false;
        };
        let ReaderClaim { mut slot, mut side } = claimed;
        let socket = &self.lcore.socket;
        let copied_seq = slot.put_back(loan);
        if let Some(side) = &mut side {
            side.read_up_to(copied_seq);
        }
        let moved = socket.progress.is_behind(copied_seq);
        // Before the slot is given up: a lender that has the token publishes from then on.
        if moved {
            // Nobody has to be rung: the lcore looks at the progress itself before it leaves.
            let _ = socket.progress.publish(copied_seq, &socket.shared.notify_at);
        }
        unclaim(slot, mutant!(DirectWithoutSlot));
        if let Some(side) = side {
            unclaim(side, mutant!(DirectWithoutToken));
        }
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
        self.is_touched = true;
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
        if !self.is_touched {
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
                socket.park().fence_behind_release();
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
    /// Publishes edge, status and mark where they have changed. A fence must follow if any has.
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
        if new_status {
            park.publish_status(now);
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
