//! How a thread waits for data: it spins for as long as a wake-up would cost, then sleeps.
//!
//! The clock and the sleeping are behind [`Waiter`], so that virtual time can take their place.

use std::sync::OnceLock;

use crate::time::Instant;

use super::sync::{FutexWord, Woken};

/// Looks at the published words before a thread sleeps: some ten microseconds, twice the time that
/// waking a sleeping thread takes.
const SPINS: u32 = if cfg!(loom) { 0 } else { 2_000 };

/// The clock and the patience of a waiting thread.
pub(crate) trait Waiter {
    /// The time on the clock that deadlines are measured by.
    fn now(&self) -> Instant;
    /// How often to look before sleeping.
    fn spins(&self) -> u32;
    /// Sleeps while the word is `seen`, until the deadline at most.
    fn sleep(&self, word: &FutexWord, seen: u32, until: Option<Instant>) -> Woken;
}

/// Real threads in real time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ThreadWaiter;

impl Waiter for ThreadWaiter {
    fn now(&self) -> Instant {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        let origin = ORIGIN.get_or_init(std::time::Instant::now);
        // From 1, because 0 means "has passed" to calls that do not wait.
        Instant::from_nanos(1 + origin.elapsed().as_nanos() as u64)
    }

    fn spins(&self) -> u32 {
        SPINS
    }

    fn sleep(&self, word: &FutexWord, seen: u32, until: Option<Instant>) -> Woken {
        word.wait(seen, until.map(|until| until.since(self.now())))
    }
}

/// Spins and sleeps until there is news or the deadline has passed, or a bit less: the caller looks
/// again in any case. Signals are noticed by a thread that sleeps, not by one that spins.
pub(crate) fn wait(
    waiter: &impl Waiter,
    word: &FutexWord,
    until: Option<Instant>,
    has_news: impl Fn() -> bool,
    announce: impl FnOnce() -> Option<u32>,
) -> Woken {
    for _ in 0..waiter.spins() {
        if has_news() {
            return Woken::Otherwise;
        }
        std::hint::spin_loop();
    }
    announce().map_or(Woken::Otherwise, |seen| waiter.sleep(word, seen, until))
}
