//! The owner word: which of the lcore and the threads may touch what it guards.
//!
//! The lcore claims it once per burst and never waits; threads claim it briefly, or for as long as
//! they hold a guard, and sleep if it is taken. The word knows nothing of what it guards and is not
//! the one to ring the doorbell: [`Released::Due`] tells its caller to.
//!
//! | word | means |
//! |---|---|
//! | FREE | nobody owns |
//! | LCORE | the lcore owns |
//! | THREAD | a thread owns |
//! | LCORE_DUE | nobody owns, and only the lcore may claim |
//! | + PENDING | the lcore has work here that it could not do; FREE with PENDING is LCORE_DUE |
//! | + WAITERS | threads may be asleep on the word; never together with FREE alone |

use crate::watch::Owner;

use super::super::sync::{AtomicU32, FutexWord, Ordering, mutant};

const FREE: u32 = 0;
const LCORE: u32 = 1;
const THREAD: u32 = 2;
const LCORE_DUE: u32 = 3;
const STATE: u32 = 3;
const PENDING: u32 = 4;
const WAITERS: u32 = 8;

/// Tries before a thread sleeps: about a microsecond, the time of a burst's work on one socket.
const SPINS: u32 = if cfg!(loom) { 0 } else { 64 };

/// What a thread's release came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Released {
    /// The word is free.
    Free,
    /// Only the lcore may claim now, and the caller owes it a ring of the doorbell.
    Due,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct OwnerWord(FutexWord);

impl OwnerWord {
    pub(crate) fn new() -> Self {
        Self(FutexWord::new(FREE))
    }

    /// The state without its bits.
    pub(crate) fn owner(&self) -> Owner {
        // Relaxed: nothing is done with it but to show it.
        match self.word().load(Ordering::Relaxed) & STATE {
            LCORE => Owner::Lcore,
            THREAD => Owner::Thread,
            LCORE_DUE => Owner::LcoreDue,
            _ => Owner::Nobody,
        }
    }

    /// FREE or LCORE_DUE becomes LCORE, WAITERS kept. Tries a bounded number of times.
    pub(crate) fn claim_lcore(&self) -> bool {
        let word = self.word();
        let seen = word.load(Ordering::Relaxed);
        let state = seen & STATE;
        if state == THREAD || state == LCORE {
            return false;
        }
        // Acquire pairs with the Release of `release_thread` and `release_lcore`. It fails when a
        // thread got in between or began to wait: then deferring settles it without a loop.
        let order = if mutant!(ClaimRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
        word.compare_exchange(seen, LCORE | seen & WAITERS, order, Ordering::Relaxed).is_ok()
    }

    /// Sets PENDING; if nobody owns by then, claims for the lcore. Two operations whatever the
    /// threads do. What was deferred must have been recorded before.
    pub(crate) fn defer(&self) -> bool {
        let word = self.word();
        // Acquire pairs with the Release of `release_thread`.
        let seen = word.fetch_or(PENDING, Ordering::Acquire);
        let state = seen & STATE;
        debug_assert_ne!(state, LCORE, "the lcore defers only what it does not own");
        if state == THREAD || mutant!(DeferDoesNotClaim) {
            return false;
        }
        // FREE with PENDING or LCORE_DUE: threads can only add WAITERS now, so that turning the
        // state and clearing PENDING in one exclusive-or is exact.
        word.fetch_xor((state ^ LCORE) | PENDING, Ordering::Acquire);
        true
    }

    /// LCORE becomes FREE; one waiter is woken.
    pub(crate) fn release_lcore(&self) {
        // Release pairs with the Acquire of all three ways to claim. Only the lcore sets PENDING,
        // and not while it owns: WAITERS is the only bit that can be there.
        let seen = self.word().swap(FREE, Ordering::Release);
        debug_assert_eq!(seen & (STATE | PENDING), LCORE);
        self.wake_one(seen);
    }

    /// FREE becomes THREAD, or nothing happens.
    pub(crate) fn try_claim_thread(&self) -> bool {
        // Acquire pairs with the Release of both releases.
        self.word().compare_exchange(FREE, THREAD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Claims for a thread: spins briefly, then sleeps, whatever signals arrive.
    pub(crate) fn claim_thread(&self) {
        if self.try_claim_thread() {
            return;
        }
        for _ in 0..SPINS {
            std::hint::spin_loop();
            if self.word().load(Ordering::Relaxed) == FREE && self.try_claim_thread() {
                return;
            }
        }
        self.claim_thread_asleep();
    }

    /// The waiting of [`Self::claim_thread`]. A thread that was woken cannot know whether others
    /// still sleep, so that it claims with WAITERS and its release wakes the next.
    #[cold]
    fn claim_thread_asleep(&self) {
        let word = self.word();
        let claimed = if mutant!(SleeperForgetsOthers) { THREAD } else { THREAD | WAITERS };
        loop {
            // Acquire pairs with the Release of both releases.
            match word.compare_exchange(FREE, claimed, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => {
                    let waiting = seen | WAITERS;
                    // Relaxed: nothing travels with the bit; the futex compares the word itself.
                    if seen == waiting
                        || word
                            .compare_exchange(seen, waiting, Ordering::Relaxed, Ordering::Relaxed)
                            .is_ok()
                    {
                        // Whatever has woken it: the owner will not wait for signals either.
                        let _ = self.0.wait(waiting, None);
                    }
                }
            }
        }
    }

    /// THREAD becomes FREE and one waiter is woken; or, with PENDING set or `due` asked for, it
    /// becomes LCORE_DUE, waiters stay asleep until the lcore's own release, and the caller rings.
    pub(crate) fn release_thread(&self, due: bool) -> Released {
        let word = self.word();
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(seen & STATE, THREAD);
            let to_lcore = due || (seen & PENDING != 0 && !mutant!(ReleaseIgnoresPending));
            let next = if to_lcore { LCORE_DUE | seen & WAITERS } else { FREE };
            // Release pairs with the Acquire of all three ways to claim. It fails at most twice:
            // when PENDING and when WAITERS appears.
            match word.compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) if to_lcore => return Released::Due,
                Ok(_) => {
                    self.wake_one(seen);
                    return Released::Free;
                }
                Err(changed) => seen = changed,
            }
        }
    }

    fn wake_one(&self, released: u32) {
        if released & WAITERS != 0 && !mutant!(ReleaseWakesNobody) {
            self.0.wake(1);
        }
    }

    fn word(&self) -> &AtomicU32 {
        self.0.value()
    }
}
