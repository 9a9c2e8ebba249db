//! The steps of a call, the same whoever shares the socket: what is copied, in which order, and
//! what ends a call.
//!
//! [`Source`] is what a socket must tell and do for them. Run by threads that read, with the reader
//! token held, or by the one thread of a stack without; nothing here sleeps or knows who owns what.

use std::mem;

use crate::buf::{BufQueue, PacketBuf, SPENT_AT_ONCE};
use crate::tcp::tcb::ConnError;
use crate::time::Instant;

use super::super::options::Options;
use super::super::park::{Status, UrgentRead, UrgentWord};
use super::super::ring::Consumer;
use super::super::sync::mutant;
use super::call::{Call, fill};
use super::urgent::ReadUrgent;
use super::{ReaderSide, RecvError, Seen, Sleep, Step};

/// Buffers that a reader gives back at once: one compare-exchange per chain, and at most this many
/// withheld from the lcore by a reader that is preempted.
const CHAIN: usize = if cfg!(loom) { 2 } else { SPENT_AT_ONCE };

/// What the steps of a call read from: a socket that threads share, or one of a single thread.
///
/// The steps are the same for both, whoever owns what.
pub(in crate::socket) trait Source<B: PacketBuf> {
    /// Whether calls that wait have a ring.
    const PREQUEUE: bool;

    /// The facts that end or delay a call.
    fn status(&self) -> Status;
    /// Where urgent data is.
    fn urgent(&self) -> UrgentWord;
    /// The last urgent byte that was read by itself.
    fn urgent_read(&self) -> &UrgentRead;
    /// What was set for all calls.
    fn options(&self) -> &Options;
    /// Whether to wait for the owner would be to wait for oneself.
    fn is_guarded(&self) -> bool;
    /// Takes the error, once.
    fn pending_error(&self) -> Option<ConnError>;
    /// Gives back what is read, then says how far that is: whoever is told of the progress finds
    /// the memory.
    fn publish(&self, side: &mut ReaderSide<B>);
    /// Takes the whole receive queue behind what was taken before.
    fn take_queue(&self, side: &mut ReaderSide<B>);
    /// Takes the ring and the receive queue behind what was taken before, and looks at the mark.
    fn take_everything(&self, side: &mut ReaderSide<B>) -> Result<(), RecvError>;
    /// Installs a ring, for a call that is going to wait.
    fn install(&self, side: &mut ReaderSide<B>);
    /// Low-latency mode has begun: what is in the ring is older than whatever comes from now on.
    fn remove_ring(&self, side: &mut ReaderSide<B>);
    /// The call has copied as much by now; for whoever watches.
    #[inline(always)]
    fn has_copied(&self, _side: &mut ReaderSide<B>, _copied: usize) {}

    /// One step of a call, with the token held. Leaves the token's state published.
    fn step(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>, now: Instant) -> Step {
        let before = call.copied;
        side.urgency.begin(side.copied_seq);
        let step = self.gather(side, call, now);
        // Who comes back at once tells it when it finds nothing: its bytes do not wait for two lines
        // that the lcore looks at.
        let comes_back = matches!(step, Step::Done(_)) || mutant!(SpinnerNeverTells);
        let later = call.hurries && comes_back;
        if !later {
            self.publish(side);
        }
        match step {
            Step::Done(n) if call.is_peek() && !call.is_looking() => {
                self.options().move_peek_offset(n, true)
            }
            _ if call.is_peek() => {}
            _ => self.options().move_peek_offset(call.copied - before, false),
        }
        step
    }

    fn gather(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>, now: Instant) -> Step {
        if call.is_urgent() {
            return self.recv_urgent(side, call);
        }
        loop {
            if side.urgency.is_pending()
                && let Some(step) = self.mind_mark(side, call)
            {
                return step;
            }
            // The ring first: a reader that keeps up looks at nothing else that is shared.
            if call.looks_at(side) {
                self.copy(side, call);
            }
            if call.is_full() || call.suffices() {
                return Step::Done(call.copied);
            }
            // The status, and then the ring again: what went into it before the status was
            // published is older than what the status speaks of.
            let status = self.status();
            if call.looks_at(side) && !mutant!(StatusBeforeRingNotRead) {
                self.copy(side, call);
            }
            if status.has(Status::DEAD) {
                return call.break_off(RecvError::Dead);
            }
            if call.is_full() {
                return Step::Done(call.copied);
            }
            // A call of length 0 waits for data too, and takes none: the ring keeps what it holds, and
            // the queue behind it must stay where it is.
            if call.len == 0 && side.has_data() {
                return Step::Done(0);
            }
            let low_latency = status.has(Status::LOW_LATENCY);
            if low_latency && side.ring.is_some() && !self.is_guarded() {
                self.remove_ring(side);
                continue;
            }
            let marked = status.has(Status::URGENT) && self.urgent() != side.urgency.seen();
            if status.has(Status::QUEUED) || marked {
                // For exclusive readers; other calls ask at the beginning of each step.
                if self.is_guarded() {
                    return call.break_off(RecvError::Deadlock);
                }
                self.take_queue(side);
                continue;
            }
            if call.copied >= call.target {
                return Step::Done(call.copied);
            }
            if let Some(step) = self.cannot_wait(call, status, now) {
                return step;
            }
            // A look frees nothing: where no more fits, no more will come.
            if call.is_peek() && call.copied > 0 && status.has(Status::PRESSED) {
                return Step::Done(call.copied);
            }
            if Self::PREQUEUE && !call.is_peek() && !low_latency {
                self.count_in(side, call);
                if side.ring.is_none() {
                    self.install(side);
                    continue;
                }
            }
            return Step::Sleep(self.sleep(side, call));
        }
    }

    /// What the call ends with instead of waiting, in the order of Linux.
    fn cannot_wait(&self, call: &Call<'_>, status: Status, now: Instant) -> Option<Step> {
        let expired = call.has_expired(now);
        if call.copied > 0 {
            let over = status.ends_waiting() || expired || call.interrupted;
            return over.then_some(Step::Done(call.copied));
        }
        if status.has(Status::EOF) {
            return Some(Step::Done(0));
        }
        if status.has(Status::ERROR) {
            // Taken already: the connection is over like one that has ended well.
            return Some(
                self.pending_error()
                    .map_or(Step::Done(0), |error| Step::Failed(RecvError::Connection(error))),
            );
        }
        if status.has(Status::SHUT) {
            return Some(Step::Done(0));
        }
        if status.has(Status::CLOSED) {
            return Some(Step::Failed(RecvError::NotConnected));
        }
        if expired {
            return Some(Step::Failed(RecvError::WouldBlock));
        }
        call.interrupted.then_some(Step::Failed(RecvError::Interrupted))
    }

    /// Copies from the taken list, then from the ring, until there is nothing or no room.
    fn copy(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        if call.is_peek() {
            side.empty_ring();
            call.copied = 0;
            let mut skip = call.skip as usize;
            for buf in side.taken.iter() {
                if call.is_full() {
                    break;
                }
                let data = buf.data();
                call.take(data.get(skip..).unwrap_or_default());
                skip = skip.saturating_sub(data.len());
            }
            return self.has_copied(side, call.copied);
        }
        while call.room() != 0 {
            if !side.taken.is_empty() {
                self.copy_taken(side, call);
                self.has_copied(side, call.copied);
                continue;
            }
            // From the ring to the caller's memory; only what is read in part stays here.
            let Some(element) = side.ring.as_mut().and_then(Consumer::pop) else { return };
            debug_assert_eq!(element.seq, side.copied_seq, "gap in the ring");
            let data = element.data();
            let n = call.take(data);
            side.copied_seq = side.copied_seq.plus(n as u32);
            let is_part = n < data.len();
            if is_part {
                side.taken.push_back(element.buf);
                side.taken.trim_front(n);
            } else {
                // Which is not looked at: its lines are the lcore's.
                let truesize = element.truesize();
                self.spend(side, element.buf, truesize);
            }
            self.has_copied(side, call.copied);
            if is_part {
                return;
            }
        }
    }

    /// Copies whole buffers from the taken list as long as they fit, then part of one that does not.
    fn copy_taken(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        let before = call.copied;
        side.urgency.begin(side.copied_seq);
        let most = CHAIN.saturating_sub(side.spent.len());
        let ReaderSide { taken, spent, .. } = side;
        let n = if let Some(mut room) = call.flat_room() {
            // What `take_whole` does, with the place of the next byte in a register.
            let n = spent.add_front(taken, most, |buf| fill(&mut room, buf.data()));
            let left = room.len();
            call.copied = call.most - left;
            n
        } else {
            spent.add_front(taken, most, |buf| call.take_whole(buf.data()))
        };
        side.copied_seq = side.copied_seq.plus((call.copied - before) as u32);
        if n == most {
            return self.publish(side);
        }
        if let Some(head) = side.taken.front() {
            let n = call.take(head.data());
            side.copied_seq = side.copied_seq.plus(n as u32);
            side.taken.trim_front(n);
        }
    }

    /// Notes that a buffer is read. They are given back so many at once.
    fn give_back(&self, side: &mut ReaderSide<B>, buf: B) {
        let truesize = buf.truesize();
        self.spend(side, buf, truesize);
    }

    /// The same of a buffer that need not be looked at.
    fn spend(&self, side: &mut ReaderSide<B>, buf: B, truesize: u32) {
        side.spent.add(buf, truesize);
        if side.spent.len() >= CHAIN {
            self.publish(side);
        }
    }

    fn count_in(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        if !mem::replace(&mut call.installed, true) {
            side.installed_for += 1;
        }
    }

    /// What the call waits for now.
    fn sleep(&self, side: &ReaderSide<B>, call: &Call<'_>) -> Sleep {
        // Before a mark the call ends, however much it wants.
        let target = if call.most < call.len { call.target.min(call.most) } else { call.target };
        // A peek counts from where it began, everything else from what it has consumed.
        let (missing, read) = if call.is_peek() {
            let start = side.copied_seq.plus(call.skip);
            (target + call.skip as usize, start.plus(call.copied as u32))
        } else {
            let to_skip = usize::from(side.urgency.is_at(side.copied_seq));
            (target - call.copied + to_skip, side.copied_seq)
        };
        // Sequence numbers compare within 2^31, which a call's length respects.
        let wanted = side.copied_seq.plus(missing.min(i32::MAX as usize) as u32);
        let seen = Seen::Urgent(side.urgency.seen());
        Sleep { wanted, read, seen, until: call.deadline }
    }
}
