//! How much of what nobody has asked for an lcore sends in a second.
//!
//! Part of the engine's work, on its lcore's thread; it knows of time and numbers alone.

use std::time::Duration;

use crate::time::Instant;

/// Counts what is sent in answer in the current second, up to `N`.
#[derive(Debug, Default)]
pub(super) struct PerSecond<const N: u32> {
    since: Instant,
    sent: u32,
}

/// ICMP echo requests that an lcore answers in a second: enough for any monitoring, and a flood does
/// not make a poll loop into a pinging one.
pub(super) type EchoLimit = PerSecond<1000>;

/// ICMPv6 errors that an lcore sends in a second: enough to find out what is wrong (RFC 4443 §2.4 (f)).
pub(super) type ProblemLimit = PerSecond<100>;

impl<const N: u32> PerSecond<N> {
    pub(super) fn permits(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, sent: 0 };
        }
        self.sent += 1;
        self.sent <= N
    }
}
