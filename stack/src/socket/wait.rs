//! How a thread waits for data: it spins for as long as a wake-up would cost, then sleeps.
//!
//! The clock and the sleeping are behind [`Waiter`], so that virtual time can take their place.

use std::sync::OnceLock;

use crate::time::Instant;

use super::sync::{FutexWord, Woken};

/// Looks at the published words before a thread sleeps: some ten microseconds, twice the time that
/// waking a sleeping thread takes.
const SPINS: u32 = if cfg!(loom) { 0 } else { 2_000 };

/// Looks between two looks at the clock, which takes as long as several of them.
const LOOKS_PER_CLOCK: u32 = 64;

/// How a thread waits for something to come.
///
/// ```
/// use prequeue::socket::{Poller, Waiting};
///
/// // A thread with a CPU to itself, for which ten microseconds are long.
/// let poller = Poller::with_waiting(Waiting::Spin)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Waiting {
    /// Looks again and again, for a CPU of its own; never sleeps, and does not see signals.
    Spin,
    /// Looks for some ten microseconds, which is what a wake-up costs, then sleeps.
    #[default]
    SpinThenPark,
    /// Sleeps at once.
    Park,
}

impl Waiting {
    /// Looks for as long as the strategy says; whether the caller has to look again, because there
    /// is news or the deadline has passed, instead of sleeping.
    pub(crate) fn spin(self, until: Option<Instant>, has_news: impl Fn() -> bool) -> bool {
        let look = |times: u32| {
            (0..times).any(|_| {
                let news = has_news();
                std::hint::spin_loop();
                news
            })
        };
        match self {
            Self::Park => false,
            Self::SpinThenPark => look(SPINS),
            Self::Spin => {
                while !look(LOOKS_PER_CLOCK) {
                    if until.is_some_and(|until| until <= ThreadWaiter.now()) {
                        break;
                    }
                }
                true
            }
        }
    }
}

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
