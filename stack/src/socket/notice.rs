//! No window update is lost: the reader's progress, and the mark at which the lcore wants to know.
//!
//! The reader publishes what it has read on a line of its own, fences, and looks at the mark; the
//! lcore publishes the mark only when it changes, fences, and looks at the progress again. At least
//! one of them sees that the mark was passed: the reader rings the doorbell then, the lcore acts.

use crate::tcp::SeqNum;

use super::sync::{AtomicU32, AtomicU64, Ordering, fence, mutant};

/// Not a sequence number: nobody has to be told.
const NEVER: u64 = 1 << 32;

/// What has been read: written by whoever holds the reader token, or has the loan of who holds it.
#[derive(Debug)]
pub(crate) struct Progress(AtomicU32);

/// The progress at which a window update is owed: written by the lcore.
#[derive(Debug)]
pub(crate) struct NotifyAt(AtomicU64);

impl Progress {
    pub(crate) fn new(copied_seq: SeqNum) -> Self {
        Self(AtomicU32::new(copied_seq.raw()))
    }

    /// The first sequence number that has not been read.
    pub(crate) fn copied_seq(&self) -> SeqNum {
        // Acquire pairs with the Release of `publish`: buffers given back before are seen.
        SeqNum::new(self.0.load(Ordering::Acquire))
    }

    /// Whether `copied_seq` is news. For whoever may publish.
    pub(crate) fn is_behind(&self, copied_seq: SeqNum) -> bool {
        self.0.load(Ordering::Relaxed) != copied_seq.raw()
    }

    /// Publishes the progress; whether the lcore has to be told by a ring.
    #[must_use]
    pub(crate) fn publish(&self, copied_seq: SeqNum, mark: &NotifyAt) -> bool {
        // Release pairs with the Acquire of `copied_seq`.
        self.0.store(copied_seq.raw(), Ordering::Release);
        // Pairs with the fence between `NotifyAt::publish` and the lcore's second look.
        if !mutant!(NoticeWithoutFence) {
            fence(Ordering::SeqCst);
        }
        mark.passed_by(copied_seq)
    }
}

impl NotifyAt {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(NEVER))
    }

    /// Publishes the mark; [`super::park::Park::fence`] and a look at the progress must follow.
    pub(crate) fn publish(&self, mark: Option<SeqNum>) {
        // Relaxed: only the number matters, the fence that follows orders it.
        self.0.store(mark.map_or(NEVER, |seq| seq.raw().into()), Ordering::Relaxed);
    }

    /// Whether `copied_seq` has reached the mark.
    pub(crate) fn passed_by(&self, copied_seq: SeqNum) -> bool {
        let mark = self.0.load(Ordering::Relaxed);
        mark != NEVER && copied_seq.at_or_after(SeqNum::new(mark as u32))
    }
}
