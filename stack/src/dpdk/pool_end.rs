//! The end of a pool without a lock: whoever frees last, when all handles have gone, destroys it.
//!
//! Threads that free into a pool which they do not own visit it: they enter, put their mbufs back, and
//! leave. As long as there are handles that is all. Later each that leaves looks whether the pool is full
//! again, which nobody can take away from it while it is inside; the one that finds it full, and nobody
//! else inside, has the pool to itself. Knows no mempool, so that a model checker can run it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// No handle is left, and none will be.
const CLOSED: u64 = 1 << 31;
/// Threads inside.
const VISITORS: u64 = CLOSED - 1;
/// Visits that have ended, modulo 2³²: who has come and gone between two looks is noticed.
const ENDED: u64 = 1 << 32;
/// Nobody may enter any more: somebody destroys it.
const GONE: u64 = u64::MAX;

/// Who is inside, and whether the end has begun.
#[derive(Debug)]
pub(crate) struct Visits(AtomicU64);

/// What leaving has come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "who is the last destroys the pool"]
pub(crate) enum Left {
    /// The pool stays; if its end has begun, somebody else will see to it.
    ToOthers,
    /// Nobody else refers to the pool, nor ever will.
    Last,
}

impl Visits {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Enters: the pool stays until [`Self::leave`]. For whoever has an mbuf of the pool, or a handle.
    pub(crate) fn enter(&self) {
        // Relaxed: what the pool is was known before, with the mbuf or the handle.
        let seen = self.0.fetch_add(1, Ordering::Relaxed);
        debug_assert!(seen & VISITORS < VISITORS - 1, "a pool that has gone");
    }

    /// No handle is left. For whoever drops the last, and is inside.
    pub(crate) fn close(&self) {
        // Relaxed: leaving orders it.
        self.0.fetch_or(CLOSED, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Relaxed: a snapshot.
        self.0.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Leaves. `is_full` looks whether every mbuf is back; it is asked only when no handle is left.
    pub(crate) fn leave(&self, is_full: impl FnMut() -> bool) -> Left {
        self.leave_by::<true, ENDED>(is_full, Ordering::Release)
    }

    /// The same, with what the model checker's mutants change as parameters.
    fn leave_by<const LOOK_AGAIN: bool, const END: u64>(
        &self,
        mut is_full: impl FnMut() -> bool,
        order: Ordering,
    ) -> Left {
        let mut stale = None;
        loop {
            // Acquire pairs with the Release of those who have left: what they have put back is counted.
            let seen = self.0.load(Ordering::Acquire);
            let alone = seen & (CLOSED | VISITORS) == CLOSED | 1;
            // Looked at between two looks at who is inside. Whoever comes or goes in the meantime, and may
            // be counted twice or not at all just then, makes the exchange fail; who came leaves later, and
            // looks then.
            let full = seen & CLOSED != 0
                && if LOOK_AGAIN { is_full() } else { *stale.get_or_insert_with(&mut is_full) };
            let left = if alone && full { Left::Last } else { Left::ToOthers };
            let next = if left == Left::Last { GONE } else { (seen - 1).wrapping_add(END) };
            // Release pairs with that Acquire. Each failure is somebody's success.
            if self.0.compare_exchange(seen, next, order, Ordering::Relaxed).is_ok() {
                return left;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_last_when_all_is_back_is_told_so() {
        let visits = Visits::new();
        visits.enter();
        assert_eq!(visits.leave(|| unreachable!("there are handles")), Left::ToOthers);
        visits.enter();
        visits.enter();
        visits.close();
        assert!(visits.is_closed());
        assert_eq!(visits.leave(|| false), Left::ToOthers);
        assert_eq!(visits.leave(|| false), Left::ToOthers, "one is still out");
        visits.enter();
        visits.enter();
        assert_eq!(visits.leave(|| true), Left::ToOthers, "somebody is inside");
        assert_eq!(visits.leave(|| true), Left::Last);
    }
}

/// Every interleaving of two threads that free, each its mbuf, and the last handle.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;

    type Leave = fn(&Visits, &mut dyn FnMut() -> bool) -> Left;

    /// A pool of which two mbufs are out.
    struct Pool {
        visits: Visits,
        back: AtomicU32,
        /// Read by whoever is inside, written by whoever destroys it.
        memory: UnsafeCell<()>,
        destroyed: AtomicU32,
    }

    // SAFETY: loom complains if what it is for does not hold.
    unsafe impl Sync for Pool {}

    impl Pool {
        fn visit(&self, leave: Leave, work: impl FnOnce(&Self)) {
            self.visits.enter();
            self.memory.with(|_| work(self));
            let mut is_full = || {
                // Relaxed, as DPDK counts.
                self.memory.with(|_| self.back.load(Ordering::Relaxed) >= 2)
            };
            if leave(&self.visits, &mut is_full) == Left::Last {
                self.memory.with_mut(|_| ());
                self.destroyed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn model(leave: Leave) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let pool = Arc::new(Pool {
                visits: Visits::new(),
                back: AtomicU32::new(0),
                memory: UnsafeCell::new(()),
                destroyed: AtomicU32::new(0),
            });
            let threads = [(); 2].map(|()| {
                let pool = pool.clone();
                // On its way from a cache to the ring it is in both.
                let free = |pool: &Pool| {
                    pool.back.fetch_add(2, Ordering::Relaxed);
                    pool.back.fetch_sub(1, Ordering::Relaxed);
                };
                loom::thread::spawn(move || pool.visit(leave, free))
            });
            pool.visit(leave, |pool| pool.visits.close());
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(pool.destroyed.load(Ordering::Relaxed), 1, "nobody, or two, destroyed it");
        });
    }

    #[test]
    fn loom_a_pool_is_destroyed_once_and_by_the_last() {
        model(|visits, is_full| visits.leave(is_full));
    }

    #[test]
    #[should_panic]
    fn loom_mutant_leave_without_release_is_caught() {
        model(|visits, is_full| visits.leave_by::<true, ENDED>(is_full, Ordering::Relaxed));
    }

    #[test]
    #[should_panic]
    fn loom_mutant_look_once_is_caught() {
        model(|visits, is_full| visits.leave_by::<false, ENDED>(is_full, Ordering::Release));
    }

    #[test]
    #[should_panic]
    fn loom_mutant_visits_not_counted_is_caught() {
        model(|visits, is_full| visits.leave_by::<true, 0>(is_full, Ordering::Release));
    }
}
