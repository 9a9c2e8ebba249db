//! How news of a socket reaches a poller: watches, the list of those with news, and the alarm.
//!
//! A socket has a chain of watches, one per poller that it was ever registered with; the chain only
//! grows, so that the lcore walks it without a lock. The lcore, and threads that change what is
//! published, put a watch on its poller's list and ring the alarm if it is set. Nothing here waits,
//! allocates or takes a lock but for registering.
//!
//! ```text
//!   lcore                                  poller
//!     publish                                register: interest, count       (or: set the alarm)
//!     fence                                  fence
//!     any watch?                             look at what is published       (look at the list)
//!     list, fence, alarm set? ring
//! ```

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::super::owner::{Last, List, Parcel, Ref};
use super::super::sync::{AtomicBool, AtomicU32, EventFd, Ordering, fence, mutant};
use super::ready::Readiness;
use super::registry::Core;

/// The list of watches with news.
pub(super) type Arrived = List<Watch, 0>;

/// A place in no poller.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Who is to be told of a socket's news: lives in the socket.
#[derive(Default)]
pub struct Watchers {
    /// Registrations. Zero is all that the lcore ever sees of a socket without any.
    live: AtomicU32,
    first: OnceLock<Ref<Watch>>,
}

/// A socket's link to a poller: registered there, or once registered.
pub(in crate::socket) struct Watch {
    pub(super) core: Arc<Core>,
    /// Bits of [`Readiness`] that are wanted; none while not registered, or after a oneshot.
    interest: AtomicU32,
    /// Which of the poller's entries: read and written under its lock.
    place: AtomicU32,
    next: OnceLock<Ref<Watch>>,
}

impl Watchers {
    /// Tells pollers of a change that was published before. After a SeqCst fence.
    #[inline]
    pub(in crate::socket) fn notify(&self, readiness: impl FnOnce() -> Readiness) {
        // Relaxed: the caller's fence pairs with the one of `joined`. If this misses a
        // registration, the look that follows it finds what was published.
        if self.live.load(Ordering::Relaxed) != 0 {
            self.notify_all(readiness());
        }
    }

    #[cold]
    #[inline(never)]
    fn notify_all(&self, readiness: Readiness) {
        // Pairs with the Release of `joined`: the watch is found that was counted.
        fence(Ordering::Acquire);
        let mut next = self.first.get();
        while let Some(watch) = next {
            Watch::tell(watch, readiness);
            next = watch.next.get();
        }
    }

    /// The watch for a poller, made if there is none.
    pub(super) fn watch_of(&self, core: &Arc<Core>) -> &Ref<Watch> {
        let mut place = &self.first;
        loop {
            let watch = place.get_or_init(|| Ref::new(Watch::new(core)));
            if Arc::ptr_eq(&watch.core, core) {
                return watch;
            }
            place = &watch.next;
        }
    }

    /// A watch was registered; a look at what is published must follow.
    pub(super) fn joined(&self) {
        // Release pairs with the fence of `notify_all`.
        self.live.fetch_add(1, Ordering::Release);
    }

    /// The fence between registering, or changing an interest, and looking.
    pub(super) fn fence(&self) {
        // Pairs with the fence that precedes `notify`: either the notifier sees the registration
        // or the look sees what it has published.
        if !mutant!(RegisterWithoutFence) {
            fence(Ordering::SeqCst);
        }
    }

    /// A watch is not registered any more.
    pub(super) fn left(&self) {
        // Relaxed: nothing hangs on a count that is too high for a moment.
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// The socket is gone for its application: every registration ends.
    pub(in crate::socket) fn forget(&self) {
        if self.live.load(Ordering::Relaxed) == 0 {
            return;
        }
        fence(Ordering::Acquire);
        let mut next = self.first.get();
        while let Some(watch) = next {
            watch.core.remove(watch);
            next = watch.next.get();
        }
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchers").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Watch {
    fn new(core: &Arc<Core>) -> Self {
        Self {
            core: core.clone(),
            interest: AtomicU32::new(0),
            place: AtomicU32::new(NOWHERE),
            next: OnceLock::new(),
        }
    }

    /// Puts the watch on its poller's list if it wants any of this.
    pub(super) fn tell(watch: &Ref<Self>, readiness: Readiness) {
        // Relaxed: whoever changes it looks at the socket afterwards, as for `live`.
        let interest = watch.interest.load(Ordering::Relaxed);
        if readiness.wanted(interest).is_empty() {
            return;
        }
        // If it is on the list, whoever put it there rings, and who takes it sees our news.
        if watch.core.arrived.push(watch) {
            watch.core.alarm.ring_if_set();
        }
    }

    pub(super) fn set_interest(&self, bits: u32) {
        self.interest.store(bits, Ordering::Relaxed);
    }

    /// The entry; Relaxed, because the poller's lock orders it.
    pub(super) fn place(&self) -> Option<u32> {
        Some(self.place.load(Ordering::Relaxed)).filter(|&place| place != NOWHERE)
    }

    pub(super) fn set_place(&self, place: Option<u32>) {
        self.place.store(place.unwrap_or(NOWHERE), Ordering::Relaxed);
    }
}

impl Last for Watch {
    fn last(parcel: Parcel<Self>) {
        drop(parcel);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("interest", &self.interest).finish_non_exhaustive()
    }
}

/// Nobody has to be woken.
const OFF: u32 = 0;
/// Somebody sleeps, or a foreign loop waits for the descriptor.
const SET: u32 = 1;
/// It was rung since it was set.
const RUNG: u32 = 2;

/// Wakes those that sleep for a poller: at most once for each time that it is set.
#[derive(Debug)]
pub(super) struct Alarm {
    state: AtomicU32,
    /// Asked to return without an event.
    pub(super) woken: AtomicBool,
    pub(super) fd: EventFd,
}

impl Alarm {
    pub(super) fn new(fd: EventFd) -> Self {
        Self { state: AtomicU32::new(OFF), woken: AtomicBool::new(false), fd }
    }

    /// From now on news rings. A look at the list must follow.
    pub(super) fn set(&self) {
        self.state.store(SET, Ordering::Relaxed);
        // Pairs with the fence of `ring_if_set`: either it sees the alarm set, or the look finds
        // what it has put on the list.
        if !mutant!(DozeWithoutFence) {
            fence(Ordering::SeqCst);
        }
    }

    /// Nobody sleeps.
    pub(super) fn off(&self) {
        // Relaxed: a ring too many ends one sleep early.
        if self.state.load(Ordering::Relaxed) != OFF {
            self.state.store(OFF, Ordering::Relaxed);
        }
    }

    /// Rings once for all news since it was set.
    pub(super) fn ring_if_set(&self) {
        // Pairs with the fence of `set`.
        if !mutant!(AlarmWithoutFence) {
            fence(Ordering::SeqCst);
        }
        let state = &self.state;
        if state.load(Ordering::Relaxed) == SET
            && state.compare_exchange(SET, RUNG, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.fd.ring();
        }
    }
}
