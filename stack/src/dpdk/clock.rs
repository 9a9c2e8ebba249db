//! The time stamp counter as the stack's clock.
//!
//! Read once per burst by each lcore, and by threads that wait. All copies of one clock have one
//! origin. It never does a system call, and never goes back on a machine whose TSCs agree.

use dpdk_sys as sys;

use super::eal::Eal;
use crate::time::Instant;

/// Ticks of the TSC as nanoseconds since the clock was made.
///
/// A copy may be used on any thread.
///
/// ```no_run
/// use prequeue::dpdk::{Clock, Eal, EalError, TEST_ARGS};
///
/// let clock = Clock::new(Eal::init(TEST_ARGS)?);
/// let before = clock.now();
/// assert!(clock.now() >= before);
/// # Ok::<(), EalError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: u64,
    /// Nanoseconds per tick, times 2³².
    scale: u64,
}

impl Clock {
    /// A clock that begins now, at the rate that the EAL measured.
    pub fn new(_eal: &'static Eal) -> Self {
        // SAFETY: the EAL is up, so the rate is known.
        Self::calibrated(unsafe { sys::rte_get_tsc_hz() }, ticks())
    }

    /// The time.
    #[inline]
    pub fn now(&self) -> Instant {
        self.at(ticks())
    }

    /// The time at which the TSC stood at `tsc`. Before the origin: the origin.
    #[inline]
    pub fn at(&self, tsc: u64) -> Instant {
        let ticks = tsc.saturating_sub(self.origin);
        // The product has up to 128 bits; the result overflows after 584 years.
        Instant::from_nanos(((u128::from(ticks) * u128::from(self.scale)) >> 32) as u64)
    }

    /// A clock of `hz` ticks a second that begins at `origin`. The scale is cut off by less than one
    /// part in 2³⁰ at any rate below 4 GHz, which is far less than a crystal's error.
    fn calibrated(hz: u64, origin: u64) -> Self {
        let scale = (1_000_000_000_u128 << 32) / u128::from(hz.max(1));
        Self { origin, scale: scale as u64 }
    }
}

#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { sys::pqs_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_a_second_at_any_rate() {
        for hz in [1_000_000, 24_000_000, 1_000_000_000, 2_600_000_000, 3_999_999_999] {
            let clock = Clock::calibrated(hz, 1_000);
            assert_eq!(clock.at(1_000), Instant::ZERO);
            assert_eq!(clock.at(999), Instant::ZERO);
            let day = clock.at(1_000 + hz * 86_400).as_nanos();
            assert!(day.abs_diff(86_400 * 1_000_000_000) < 100_000, "{hz} Hz: {day} ns a day");
        }
    }

    #[test]
    fn never_goes_back_and_outlasts_the_machine() {
        let clock = Clock::calibrated(2_600_000_000, 0);
        let year = 2_600_000_000 * 86_400 * 365;
        assert!(clock.at(u64::MAX) > clock.at(u64::MAX - 10));
        assert!(clock.at(100 * year).as_nanos() > 99 * 365 * 86_400 * 1_000_000_000);
    }
}
