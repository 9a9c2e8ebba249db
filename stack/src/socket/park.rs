//! What a socket publishes, and how readers sleep on it without losing a wake-up.
//!
//! The owner publishes the in-sequence edge and a status word when it leaves; any thread may look
//! without claiming anything. A reader that has nothing to do publishes the smallest sequence
//! number that is worth waking for. Both sides publish, fence, and look at the other's word, so
//! that at least one sees the other. Nothing here touches data.

use crate::tcp::SeqNum;
use crate::tcp::tcb::Urgent;

use super::sync::{
    AtomicU32, AtomicU64, FutexWord, Ordering, fence, fence_behind_exchange, mutant,
};

/// Facts about a socket that readers act upon.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Status(u32);

impl Status {
    /// In-sequence data is in the receive queue.
    pub(crate) const QUEUED: Self = Self(1);
    /// The peer's FIN is in sequence: nothing follows the edge.
    pub(crate) const EOF: Self = Self(1 << 1);
    /// The connection has ended by an error.
    pub(crate) const ERROR: Self = Self(1 << 2);
    /// The connection is closed: no data can arrive any more.
    pub(crate) const CLOSED: Self = Self(1 << 3);
    /// The application has shut the reading side.
    pub(crate) const SHUT: Self = Self(1 << 4);
    /// The stack has stopped, or failed while it owned the socket.
    pub(crate) const DEAD: Self = Self(1 << 5);
    /// Memory or window is short: take what there is, though it be less than wanted.
    pub(crate) const PRESSED: Self = Self(1 << 6);
    /// An urgent mark is pending, as [`Park::urgent`] has it.
    pub(crate) const URGENT: Self = Self(1 << 7);
    /// Our FIN is acknowledged, or the connection is over: closing need not linger.
    pub(crate) const FLUSHED: Self = Self(1 << 8);
    /// The application wants low-latency mode: no ring.
    pub(crate) const LOW_LATENCY: Self = Self(1 << 15);
    /// Nothing will arrive that is not in yet.
    const OVER: Self = Self(Self::EOF.0 | Self::ERROR.0 | Self::CLOSED.0 | Self::DEAD.0);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether waiting is pointless, whatever is wanted.
    pub(crate) const fn ends_waiting(self) -> bool {
        self.0 & (Self::OVER.0 | Self::SHUT.0) != 0
    }

    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What of `mask` is set.
    #[cfg(not(loom))]
    #[must_use]
    pub(crate) const fn only(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    /// Whether a flag of `other` is set.
    pub(crate) const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn any(self) -> bool {
        self.0 != 0
    }

    #[must_use]
    pub(crate) const fn only_if(self, condition: bool) -> Self {
        if condition { self } else { Self(0) }
    }
}

/// An urgent mark as one number: its sequence number, whether there is one, whether its byte is in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct UrgentWord(u64);

impl UrgentWord {
    const PENDING: u64 = 1 << 32;
    const ARRIVED: u64 = 1 << 33;

    pub(crate) fn of(urgent: Option<Urgent>) -> Self {
        Self(urgent.map_or(0, |Urgent { mark, arrived, replaced: _ }| {
            let arrived = if arrived { Self::ARRIVED } else { 0 };
            u64::from(mark.raw()) | Self::PENDING | arrived
        }))
    }

    /// The mark, though a reader may have passed it.
    pub(crate) fn mark(self) -> Option<SeqNum> {
        (self.0 & Self::PENDING != 0).then(|| SeqNum::new(self.0 as u32))
    }

    /// How many of `unread` bytes from `read` on come before the urgent byte.
    pub(crate) fn before(self, read: SeqNum, unread: u32) -> u32 {
        match self.mark() {
            Some(mark) if mark.at_or_after(read) => unread.min(mark.since(read)),
            _ => unread,
        }
    }

    /// Whether the urgent byte is in.
    pub(crate) const fn has_arrived(self) -> bool {
        self.0 & Self::ARRIVED != 0
    }
}

/// The mark whose byte was read alone. Written by the holder of the reader token.
#[derive(Debug, Default)]
pub(crate) struct UrgentRead(AtomicU64);

// Relaxed: a number that stands for itself.
impl UrgentRead {
    pub(crate) fn set(&self, mark: SeqNum) {
        self.0.store(u64::from(mark.raw()) | UrgentWord::PENDING, Ordering::Relaxed);
    }

    pub(crate) fn is(&self, mark: SeqNum) -> bool {
        self.0.load(Ordering::Relaxed) == u64::from(mark.raw()) | UrgentWord::PENDING
    }
}

/// What is published, and who sleeps on it.
#[derive(Debug)]
pub(crate) struct Park {
    /// First sequence number that is not in yet, FIN not counted.
    edge: AtomicU32,
    /// The facts that owners publish, and those that anybody may.
    owned: AtomicU32,
    anyones: AtomicU32,
    /// The urgent mark, which the status tells of.
    urgent: AtomicU64,
    /// Smallest sequence number that a sleeper wants the edge to reach, or [`NOBODY`].
    wanted: AtomicU64,
    /// Changes at every wake-up; the word that readers sleep on.
    wakes: FutexWord,
}

/// No sequence number: they have 32 bits.
const NOBODY: u64 = 1 << 32;

impl Park {
    pub(crate) fn new(edge: SeqNum) -> Self {
        Self {
            edge: AtomicU32::new(edge.raw()),
            owned: AtomicU32::new(0),
            anyones: AtomicU32::new(0),
            urgent: AtomicU64::new(0),
            wanted: AtomicU64::new(NOBODY),
            wakes: FutexWord::new(0),
        }
    }

    /// The published edge. Data may be in the ring already that is beyond it.
    pub(crate) fn edge(&self) -> SeqNum {
        // Acquire pairs with the Release of `publish_edge`: what is below it can be found.
        SeqNum::new(self.edge.load(Ordering::Acquire))
    }

    /// The published status.
    pub(crate) fn status(&self) -> Status {
        // Acquire pairs with the Release of `publish_status`, `set` and `clear`: what a bit says is so.
        // In this order: who sees that reading was shut sees the data that was published before.
        let early = if mutant!(OwnedStatusFirst) { Some(self.owned()) } else { None };
        let anyones = self.anyones.load(Ordering::Acquire);
        Status(anyones | early.unwrap_or_else(|| self.owned()))
    }

    fn owned(&self) -> u32 {
        // Acquire pairs with the Release of `publish_status`.
        self.owned.load(Ordering::Acquire)
    }

    /// Publishes the facts that the owner alone knows of. For the owner.
    pub(crate) fn publish_status(&self, status: Status) {
        // Release pairs with the Acquire of `status`.
        self.owned.store(status.0, Ordering::Release);
    }

    /// Publishes the edge. For the owner.
    pub(crate) fn publish_edge(&self, edge: SeqNum) {
        // Release pairs with the Acquire of `edge`.
        self.edge.store(edge.raw(), Ordering::Release);
    }

    /// The published urgent mark.
    pub(crate) fn urgent(&self) -> UrgentWord {
        // Relaxed: a number that stands for itself. What is at the mark is found under the owner word.
        UrgentWord(self.urgent.load(Ordering::Relaxed))
    }

    /// Publishes the urgent mark; [`Self::fence`] must follow. For the owner.
    pub(crate) fn publish_urgent(&self, urgent: UrgentWord) {
        // Relaxed: the fence orders it, and the status bit that is set later.
        self.urgent.store(urgent.0, Ordering::Relaxed);
    }

    /// Sets bits of the status that are nobody's in particular, such as DEAD, SHUT and LOW_LATENCY.
    pub(crate) fn set(&self, bits: Status) {
        // Release pairs with the Acquire of `status`.
        self.anyones.fetch_or(bits.0, Ordering::Release);
    }

    /// Clears such bits.
    pub(crate) fn clear(&self, bits: Status) {
        // Release pairs with the Acquire of `status`.
        self.anyones.fetch_and(!bits.0, Ordering::Release);
    }

    /// Whether a reader that waits for the edge to reach `wanted`, and has read up to `read`,
    /// would find something to do.
    pub(crate) fn has_news(&self, wanted: SeqNum, read: SeqNum) -> bool {
        let edge = self.edge();
        let status = self.status();
        edge.at_or_after(wanted)
            || status.ends_waiting()
            || status.has(Status::PRESSED) && edge.after(read)
    }

    /// Announces that the caller is about to sleep until the edge reaches `wanted`. Returns what to
    /// hand to [`Self::word`]'s `wait`, unless the look that must follow finds news.
    #[must_use]
    pub(crate) fn announce(&self, wanted: SeqNum) -> u32 {
        // Relaxed: read before the announcement, hence before the wake-up that takes it away.
        let seen = self.wakes.value().load(Ordering::Relaxed);
        let mut before = self.wanted.load(Ordering::Relaxed);
        loop {
            if before != NOBODY && SeqNum::new(before as u32).at_or_before(wanted) {
                // A lower number stands there. Written over by itself, for the same order.
                if self.exchange_wanted(before, before).is_ok() {
                    break;
                }
            } else if self.exchange_wanted(before, wanted.raw().into()).is_ok() {
                break;
            }
            before = self.wanted.load(Ordering::Relaxed);
        }
        // Pairs with the fence of `wake`: either it sees the announcement or the look that follows
        // sees its news.
        if !mutant!(ParkWithoutFence) {
            fence(Ordering::SeqCst);
        }
        seen
    }

    fn exchange_wanted(&self, before: u64, after: u64) -> Result<u64, u64> {
        // Release pairs with the Acquire of the swap in `wake_if_wanted`: the look at `wakes` is
        // over when the announcement can be taken.
        self.wanted.compare_exchange(before, after, Ordering::Release, Ordering::Relaxed)
    }

    /// Wake-ups so far, modulo 2³².
    pub(crate) fn wakes(&self) -> u32 {
        // Relaxed: nothing is done with it but to show it.
        self.wakes.value().load(Ordering::Relaxed)
    }

    /// The word to sleep on.
    pub(crate) fn word(&self) -> &FutexWord {
        &self.wakes
    }

    /// The one fence between what was published and what is looked at: `wanted` here, and the reader's
    /// progress if `notify_at` was published.
    pub(crate) fn fence(&self) {
        // Pairs with the fences of `announce` and of `Progress::publish`.
        if !mutant!(WakeWithoutFence) {
            fence(Ordering::SeqCst);
        }
    }

    /// The same for an owner that has just given up the word.
    #[inline(always)]
    pub(crate) fn fence_behind_release(&self) {
        // Pairs with the same.
        if !mutant!(WakeWithoutFence) {
            fence_behind_exchange();
        }
    }

    /// Wakes all sleepers if one of them wants no more than `edge`, or whatever they want if
    /// `anyway`. After [`Self::fence`].
    pub(crate) fn wake_if_wanted(&self, edge: SeqNum, anyway: bool) {
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted == NOBODY || !anyway && SeqNum::new(wanted as u32).after(edge) {
            return;
        }
        // Acquire pairs with the Release of `exchange_wanted`.
        if self.wanted.swap(NOBODY, Ordering::Acquire) != NOBODY {
            self.wakes.value().fetch_add(1, Ordering::Relaxed);
            if mutant!(WakeOne) {
                self.wakes.wake(1);
            } else {
                self.wakes.wake_all();
            }
        }
    }

    /// Wakes all sleepers after a change that was not made by the owner.
    pub(crate) fn wake_all(&self) {
        self.fence();
        self.wake_if_wanted(self.edge(), true);
    }
}
