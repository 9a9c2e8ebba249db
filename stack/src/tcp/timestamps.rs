//! The timestamps option of one connection: what to send, what to believe (RFC 7323).
//!
//! Requests, connections and TIME-WAIT entries carry a [`TsState`] from one to the next. It decides
//! and remembers; whether a segment may update it is the caller's to know.

use std::time::Duration;

use crate::time::Instant;
use crate::wire::Timestamps;

/// Timestamps older than this say nothing any more: a connection that was idle for longer must
/// not be stuck (RFC 7323 §5.5 gives 24 days; Linux since 6.8 takes half the range of its
/// microsecond clock, and so do we).
const OUTDATED_AFTER: Duration = Duration::from_secs(2147);

/// Timestamps of a connection that negotiated them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TsState {
    /// TS.Recent: the peer's value that we echo.
    pub recent: u32,
    /// Added to our clock in every TSval, so that it does not reveal how long we have been up.
    pub offset: u32,
    /// When `recent` was learnt.
    pub recent_at: Instant,
}

impl TsState {
    /// Our TSval at `now`: milliseconds, and the offset.
    pub const fn val(&self, now: Instant) -> u32 {
        ts_val(now, self.offset)
    }

    /// The option of a segment sent at `now`.
    pub const fn option(&self, now: Instant) -> Timestamps {
        Timestamps { val: self.val(now), ecr: self.recent }
    }

    /// Whether PAWS rejects `val` (RFC 7323 §5.3): it is more than `tolerance` ticks before
    /// TS.Recent, and that is neither zero nor outdated.
    ///
    /// Linux tolerates one tick on an established connection and none elsewhere.
    pub fn rejects(&self, val: u32, now: Instant, tolerance: i32) -> bool {
        let behind = self.recent.wrapping_sub(val) as i32;
        behind > tolerance && self.recent != 0 && now.since(self.recent_at) < OUTDATED_AFTER
    }

    /// Takes `val` as TS.Recent.
    pub fn learn(&mut self, val: u32, now: Instant) {
        self.recent = val;
        self.recent_at = now;
    }
}

/// Our TSval at `now` for a connection with this offset.
pub const fn ts_val(now: Instant, offset: u32) -> u32 {
    (now.as_millis() as u32).wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEARNT: Instant = Instant::from_millis(1000);

    fn state(recent: u32) -> TsState {
        TsState { recent, offset: 0, recent_at: LEARNT }
    }

    #[test]
    fn older_values_are_rejected_beyond_the_tolerance() {
        for recent in [100, 1, 0x8000_0000, u32::MAX] {
            let ts = state(recent);
            let back = |n: u32| recent.wrapping_sub(n);
            assert!(!ts.rejects(back(0), LEARNT, 0));
            assert!(ts.rejects(back(1), LEARNT, 0));
            assert!(!ts.rejects(back(1), LEARNT, 1));
            assert!(ts.rejects(back(2), LEARNT, 1));
            assert!(ts.rejects(back(0x7fff_ffff), LEARNT, 1));
            assert!(!ts.rejects(recent.wrapping_add(0x7fff_ffff), LEARNT, 0));
        }
    }

    #[test]
    fn nothing_is_rejected_before_a_value_is_known() {
        assert!(!state(0).rejects(u32::MAX - 5, LEARNT, 0));
    }

    #[test]
    fn an_outdated_value_rejects_nothing() {
        let ts = state(100);
        assert!(ts.rejects(50, LEARNT + Duration::from_secs(2146), 0));
        assert!(!ts.rejects(50, LEARNT + Duration::from_secs(2147), 0));
    }

    #[test]
    fn our_clock_ticks_in_milliseconds_from_the_offset_and_wraps() {
        assert_eq!(ts_val(Instant::from_millis(5), u32::MAX), 4);
        let option = state(77).option(Instant::from_nanos(2_999_999));
        assert_eq!(option, Timestamps { val: 2, ecr: 77 });
    }
}
