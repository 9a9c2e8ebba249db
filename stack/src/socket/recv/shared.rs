//! Reading a socket that threads share with an lcore: what the steps of a call want of it, the ring
//! installed and removed, the reader token waited for.
//!
//! Run by application threads. The owner word is claimed under the token, for a moment: to take the
//! receive queue, to install the ring or to remove it. Nothing here copies a byte of the stream.

use std::mem;
use std::time::Duration;

use crate::buf::{BufQueue, PacketBuf, Returns};
use crate::tcp::SeqNum;
use crate::tcp::tcb::ConnError;
use crate::time::Instant;
use crate::watch::Moment;

use super::super::conn::Connection;
use super::super::direct;
use super::super::options::Options;
use super::super::owner::{Ref, ThreadClaim};
use super::super::park::{Status, UrgentRead, UrgentWord};
use super::super::ring::{Consumer, Producer};
use super::super::socket::Socket;
use super::super::sync::mutant;
use super::call::Call;
use super::{ReaderSide, RecvError, Seen, Sleep, Source, Step};

/// How long a thread sleeps between looks at a reader token that another one holds for a step.
const PATIENCE: Duration = Duration::from_micros(50);

impl<B: PacketBuf, C: Connection<B>> Source<B> for Ref<Socket<B, C>> {
    const PREQUEUE: bool = true;

    fn status(&self) -> Status {
        self.park().status()
    }

    fn urgent(&self) -> UrgentWord {
        self.park().urgent()
    }

    fn urgent_read(&self) -> &UrgentRead {
        &self.shared.urgent_read
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn is_guarded(&self) -> bool {
        self.is_guarded_by_this_thread()
    }

    fn pending_error(&self) -> Option<ConnError> {
        self.take_error()
    }

    fn publish(&self, side: &mut ReaderSide<B>) {
        if mutant!(ProgressBeforeBuffers) {
            self.tell_progress(side);
        }
        if let Some(batch) = side.spent.take() {
            self.home.returns().give_batch(batch);
        }
        self.tell_progress(side);
    }

    /// The ring is empty, and stays so until the queue is: the lcore puts nothing into it while older
    /// data waits elsewhere.
    fn take_queue(&self, side: &mut ReaderSide<B>) {
        let mut owner = self.own();
        debug_assert!(
            mutant!(StatusBeforeRingNotRead) || side.ring.as_ref().is_none_or(Consumer::is_empty),
            "the ring holds data older than the receive queue"
        );
        side.taken.append(&mut owner.take_receive_queue());
        side.urgency.learn(owner.tcb.urgent(), side.copied_seq);
        self.watch(Moment::Takes, side, Some(&owner));
    }

    fn take_everything(&self, side: &mut ReaderSide<B>) -> Result<(), RecvError> {
        if self.is_guarded_by_this_thread() {
            return Err(RecvError::Deadlock);
        }
        let mut owner = self.own();
        side.empty_ring();
        side.taken.append(&mut owner.take_receive_queue());
        side.urgency.learn(owner.tcb.urgent(), side.copied_seq);
        self.watch(Moment::Takes, side, Some(&owner));
        Ok(())
    }

    /// What has come to the receive queue in the meantime is taken with it.
    fn install(&self, side: &mut ReaderSide<B>) {
        let (producer, consumer) = self.home.rings.take();
        let mut owner = self.own();
        side.taken.append(&mut owner.take_receive_queue());
        side.urgency.learn(owner.tcb.urgent(), side.copied_seq);
        owner.sink.0 = Some(producer);
        side.ring = Some(consumer);
        self.watch(Moment::Installs, side, Some(&owner));
    }

    fn remove_ring(&self, side: &mut ReaderSide<B>) {
        let mut owner = self.own();
        let producer = owner.sink.0.take();
        if !mutant!(SwitchForgetsRing) {
            side.empty_ring();
        }
        let consumer = side.ring.take();
        self.watch(Moment::Uninstalls, side, Some(&owner));
        drop(owner);
        self.give_up_ring(producer, consumer);
    }

    #[inline(always)]
    fn has_copied(&self, side: &mut ReaderSide<B>, copied: usize) {
        self.watch(Moment::Copied(copied), side, None);
    }
}

impl<B: PacketBuf, C: Connection<B>> Ref<Socket<B, C>> {
    /// Begins low-latency mode or ends it, for calls that wait from now on; those that sleep look
    /// again. What is in the ring is read first.
    pub(in crate::socket) fn set_low_latency(&self, on: bool) {
        let park = self.park();
        if on {
            park.set(Status::LOW_LATENCY);
            // A reader that always finds enough in the ring would not look at the status for long.
            // If the token is taken, its holder does what the status says when it finds no more.
            if !self.is_guarded_by_this_thread()
                && let Some(mut side) = self.reader.try_claim_thread()
                && side.ring.is_some()
            {
                self.remove_ring(&mut side);
            }
        } else {
            park.clear(Status::LOW_LATENCY);
        }
        park.wake_all();
    }

    /// Waits as `wait` does: in low-latency mode with the rest of the call's memory lent to the lcore. Who
    /// has the reader token gives copied_seq, so that the lcore can do without.
    pub(in crate::socket) fn lending<R>(
        &self,
        call: &mut Call<'_>,
        copied_seq: Option<&mut SeqNum>,
        wait: impl FnOnce() -> R,
    ) -> R {
        if !self.is_low_latency() {
            return wait();
        }
        let Some(memory) = call.lendable() else { return wait() };
        let (slot, offer) = (&self.slot, &self.shared.offer);
        let (filled, result) = direct::lend(slot, offer, memory, copied_seq, wait);
        call.copied += filled;
        self.options.move_peek_offset(filled, false);
        result
    }

    /// Publishes how far the reader is, and rings if the lcore wants to know.
    #[inline]
    fn tell_progress(&self, side: &ReaderSide<B>) {
        if self.progress.is_behind(side.copied_seq)
            && self.progress.publish(side.copied_seq, &self.shared.notify_at)
        {
            self.home.ring(self);
        }
    }

    /// The end of a call: the last one uninstalls the ring.
    pub(in crate::socket) fn leave(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        if mem::take(&mut call.installed) {
            side.installed_for -= 1;
            if side.installed_for == 0 {
                self.uninstall(side);
            }
        }
    }

    /// Puts what was taken, and then what is in the ring, back in front of the receive queue. Under
    /// the thread's own guard the ring stays, and the next call to leave does it.
    pub(in crate::socket) fn uninstall(&self, side: &mut ReaderSide<B>) {
        if self.is_guarded_by_this_thread() {
            return;
        }
        let mut owner = self.own();
        let producer = owner.sink.0.take();
        side.empty_ring();
        let consumer = side.ring.take();
        let older = mem::take(&mut side.taken);
        if mutant!(PutBackBehind) {
            let mut queue = owner.take_receive_queue();
            let mut older = older;
            queue.append(&mut older);
            owner.put_back(queue);
        } else {
            owner.put_back(older);
        }
        self.watch(Moment::Uninstalls, side, Some(&owner));
        drop(owner);
        self.give_up_ring(producer, consumer);
    }

    /// Leaves an empty ring to whoever needs one next.
    fn give_up_ring(&self, producer: Option<Producer<B>>, consumer: Option<Consumer<B>>) {
        if let (Some(producer), Some(consumer)) = (producer, consumer) {
            self.home.rings.give(producer, consumer);
        }
    }

    /// The reader token, or nothing while an exclusive reader has it. Others hold it for a step, for
    /// which this waits as one waits for a lock.
    pub(super) fn claim_reader_unless_exclusive(&self) -> Option<ThreadClaim<'_, ReaderSide<B>>> {
        let mut turn = 0_u32;
        loop {
            if let Some(side) = self.reader.try_claim_thread() {
                return Some(side);
            }
            if self.is_exclusive() {
                return None;
            }
            // The holder may be a thread that waits for this CPU, in which case yielding to it may not
            // be enough.
            match turn {
                0..64 => std::hint::spin_loop(),
                64..128 => std::thread::yield_now(),
                _ => std::thread::sleep(PATIENCE),
            }
            turn = turn.saturating_add(1);
        }
    }

    /// What becomes of a call that finds an exclusive reader.
    #[cold]
    pub(super) fn wait_for_reader(&self, call: &Call<'_>, now: Instant) -> Step {
        if self.park().status().has(Status::DEAD) {
            return Step::Failed(RecvError::Dead);
        }
        if call.has_expired(now) {
            return call.break_off(RecvError::WouldBlock);
        }
        if call.interrupted {
            return call.break_off(RecvError::Interrupted);
        }
        // Nothing that arrives concerns it; who looks for nothing is in nobody's way at the far end.
        let read = self.progress.copied_seq();
        let wanted = read.plus(i32::MAX as u32);
        Step::Sleep(Sleep { wanted, read, seen: Seen::ExclusiveReader, until: call.deadline })
    }
}
