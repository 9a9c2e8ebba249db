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
const LOOKS_PER_CLOCK: u32 = if cfg!(loom) { 1 } else { 64 };

/// Between two looks.
#[inline(always)]
fn pause() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    // Somebody else's turn, or what is waited for would never come.
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// How a thread waits for something to come.
///
/// Said for a whole stack when it is built, for a listener and the streams that it accepts, for a
/// stream, for a [`Poller`](super::Poller), and for a single call
/// ([`RecvFlags::SPIN`](super::RecvFlags::SPIN), [`RecvFlags::PARK`](super::RecvFlags::PARK)).
///
/// * **CPU.** A thread that spins keeps its CPU busy, and whoever shares it waiting: spin where there is
///   a CPU for each such thread and each lcore, else the lcore may be the one that waits.
/// * **Latency.** To wake a thread costs the lcore a system call of some microseconds, and the message
///   takes some ten to twenty. Who spins has it within a fraction of one.
/// * **Signals.** A thread that sleeps notices signals as in a system call: the call ends with
///   `Interrupted`, or goes on after a handler that restarts. A handler that runs in a thread that spins
///   ends nothing: the thread goes on looking for data. Have the handler set a flag, and give calls a
///   time limit to look at it.
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
    /// Looks again and again, for a CPU of its own; never sleeps, and does not see signals. An exclusive
    /// [`Reader`](super::Reader) tells late what it has read, and returns with what came by the prequeue if
    /// that is as much as it wants, whatever waits behind.
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
    pub(crate) fn spin(
        self,
        waiter: &impl Waiter,
        until: Option<Instant>,
        has_news: impl Fn() -> bool,
    ) -> bool {
        let look = |times: u32| {
            (0..times).any(|_| {
                let news = has_news();
                pause();
                news
            })
        };
        match self {
            Self::Park => false,
            Self::SpinThenPark => look(SPINS),
            Self::Spin => {
                while !look(LOOKS_PER_CLOCK) {
                    if until.is_some_and(|until| until <= waiter.now()) {
                        break;
                    }
                }
                true
            }
        }
    }

    /// As one number, for a place that several threads read.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::SpinThenPark => 0,
            Self::Spin => 1,
            Self::Park => 2,
        }
    }

    /// What [`Self::code`] made of it.
    pub(crate) const fn of_code(code: u8) -> Self {
        match code {
            1 => Self::Spin,
            2 => Self::Park,
            _ => Self::SpinThenPark,
        }
    }
}

/// The clock and the sleep of a waiting thread.
pub(crate) trait Waiter {
    /// The time on the clock that deadlines are measured by.
    fn now(&self) -> Instant;
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

    fn sleep(&self, word: &FutexWord, seen: u32, until: Option<Instant>) -> Woken {
        word.wait(seen, until.map(|until| until.since(self.now())))
    }
}

/// Looks and sleeps, as `waiting` says, until there is news or the deadline has passed, or a bit less:
/// the caller looks again in any case. Signals are noticed by a thread that sleeps, not by one that
/// spins.
pub(crate) fn wait(
    waiter: &impl Waiter,
    waiting: Waiting,
    word: &FutexWord,
    until: Option<Instant>,
    has_news: impl Fn() -> bool,
    announce: impl FnOnce() -> Option<u32>,
) -> Woken {
    if waiting.spin(waiter, until, has_news) {
        return Woken::Otherwise;
    }
    announce().map_or(Woken::Otherwise, |seen| waiter.sleep(word, seen, until))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A clock that moves by a microsecond whenever somebody looks at it, and sleeps that are counted.
    #[derive(Default)]
    struct Virtual {
        nanos: Cell<u64>,
        sleeps: Cell<u32>,
    }

    impl Waiter for Virtual {
        fn now(&self) -> Instant {
            self.nanos.set(self.nanos.get() + 1000);
            Instant::from_nanos(self.nanos.get())
        }

        fn sleep(&self, _word: &FutexWord, _seen: u32, _until: Option<Instant>) -> Woken {
            self.sleeps.set(self.sleeps.get() + 1);
            Woken::BySignal
        }
    }

    /// Looks and sleeps until news that come with the look of that number, or the deadline.
    fn looks_and_sleeps(waiting: Waiting, news_at: u32, until: Option<Instant>) -> (u32, u32) {
        let (waiter, looks) = (Virtual::default(), Cell::new(0));
        let has_news = || {
            looks.set(looks.get() + 1);
            looks.get() == news_at
        };
        let word = FutexWord::new(0);
        let woken = wait(&waiter, waiting, &word, until, has_news, || Some(0));
        assert_eq!(woken == Woken::BySignal, waiter.sleeps.get() > 0);
        (looks.get(), waiter.sleeps.get())
    }

    #[test]
    fn a_strategy_looks_and_sleeps_as_it_says() {
        use Waiting::{Park, Spin, SpinThenPark};
        const LATE: u32 = 50 * SPINS;
        assert_eq!(looks_and_sleeps(Park, 1, None), (0, 1));
        assert_eq!(looks_and_sleeps(SpinThenPark, 7, None), (7, 0));
        assert_eq!(looks_and_sleeps(SpinThenPark, LATE, None), (SPINS, 1));
        assert_eq!(looks_and_sleeps(Spin, 7, None), (7, 0));
        assert_eq!(looks_and_sleeps(Spin, LATE, None), (LATE, 0));
    }

    #[test]
    fn spinning_ends_with_the_time_limit() {
        let until = Some(Instant::from_nanos(3000));
        assert_eq!(looks_and_sleeps(Waiting::Spin, u32::MAX, until), (3 * LOOKS_PER_CLOCK, 0));
    }

    #[test]
    fn a_strategy_is_read_as_it_was_written() {
        for waiting in [Waiting::Spin, Waiting::SpinThenPark, Waiting::Park] {
            assert_eq!(Waiting::of_code(waiting.code()), waiting);
        }
    }
}
