//! A socket's options that reading calls look at: set by any handle at any time.
//!
//! Atomics of their own, read at the beginning of a call by the thread that reads. What concerns the
//! connection is no option of this kind: it is changed under the owner word.

use std::net::SocketAddr;
use std::time::Duration;

use super::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use super::wait::Waiting;

/// A socket's options that calls read: set by any handle at any time.
#[derive(Debug)]
pub(super) struct Options {
    /// SO_RCVTIMEO in nanoseconds; [`FOREVER`] if there is none.
    timeout: AtomicU64,
    /// SO_RCVLOWAT in bytes.
    low_water: AtomicU32,
    nonblocking: AtomicBool,
    /// SO_OOBINLINE.
    urgent_inline: AtomicBool,
    /// As [`Waiting::code`].
    waiting: AtomicU8,
    /// SO_PEEK_OFF in bytes; [`OFF`] if peeks start at the first byte. Moved by whoever holds the
    /// reader token, set by anybody.
    peek_offset: AtomicU32,
    /// SO_LINGER in nanoseconds; [`FOREVER`] if closing does not wait.
    linger: AtomicU64,
    /// Addresses of IPv4 are told as those of IPv6 that stand for them.
    mapped: AtomicBool,
}

const FOREVER: u64 = u64::MAX;

/// No peek offset. None is as large: a receive buffer is smaller.
const OFF: u32 = u32::MAX;

// Options are read at the beginning of a call. Relaxed throughout: nothing else hangs on them.
impl Options {
    pub(super) fn set_timeout(&self, timeout: Option<Duration>) {
        let nanos = timeout.map_or(FOREVER, |t| u64::try_from(t.as_nanos()).unwrap_or(FOREVER));
        self.timeout.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        let nanos = self.timeout.load(Ordering::Relaxed);
        (nanos != FOREVER).then(|| Duration::from_nanos(nanos))
    }

    pub(super) fn set_low_water(&self, bytes: u32) {
        self.low_water.store(bytes.max(1), Ordering::Relaxed);
    }

    pub(super) fn low_water(&self) -> usize {
        self.low_water.load(Ordering::Relaxed) as usize
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    pub(super) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    pub(super) fn set_waiting(&self, waiting: Waiting) {
        self.waiting.store(waiting.code(), Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting::of_code(self.waiting.load(Ordering::Relaxed))
    }

    pub(super) fn set_urgent_inline(&self, inline: bool) {
        self.urgent_inline.store(inline, Ordering::Relaxed);
    }

    pub(super) fn is_urgent_inline(&self) -> bool {
        self.urgent_inline.load(Ordering::Relaxed)
    }

    pub(super) fn set_peek_offset(&self, bytes: Option<u32>) {
        let offset = bytes.map_or(OFF, |bytes| bytes.min(OFF - 1));
        self.peek_offset.store(offset, Ordering::Relaxed);
    }

    pub(super) fn peek_offset(&self) -> Option<u32> {
        let offset = self.peek_offset.load(Ordering::Relaxed);
        (offset != OFF).then_some(offset)
    }

    /// `n` bytes were looked at, or read: the next look starts behind the former, and the latter
    /// bring it nearer. For the holder of the reader token.
    pub(super) fn move_peek_offset(&self, n: usize, peek: bool) {
        let n = u32::try_from(n).unwrap_or(OFF);
        let mut seen = self.peek_offset.load(Ordering::Relaxed);
        while seen != OFF && n != 0 {
            let moved =
                if peek { seen.saturating_add(n).min(OFF - 1) } else { seen.saturating_sub(n) };
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.peek_offset.compare_exchange(seen, moved, success, failure) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    pub(super) fn set_mapped(&self) {
        self.mapped.store(true, Ordering::Relaxed);
    }

    /// An end of the connection in the form that the application has asked for.
    pub(super) fn form(&self, end: SocketAddr) -> SocketAddr {
        match end {
            SocketAddr::V4(v4) if self.mapped.load(Ordering::Relaxed) => {
                SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
            }
            end => end,
        }
    }

    pub(super) fn set_linger(&self, linger: Option<Duration>) {
        let nanos = linger
            .map_or(FOREVER, |t| u64::try_from(t.as_nanos()).unwrap_or(FOREVER).min(FOREVER - 1));
        self.linger.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn linger(&self) -> Option<Duration> {
        let nanos = self.linger.load(Ordering::Relaxed);
        (nanos != FOREVER).then(|| Duration::from_nanos(nanos))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: AtomicU64::new(FOREVER),
            low_water: AtomicU32::new(1),
            nonblocking: AtomicBool::new(false),
            urgent_inline: AtomicBool::new(false),
            waiting: AtomicU8::new(Waiting::default().code()),
            peek_offset: AtomicU32::new(OFF),
            linger: AtomicU64::new(FOREVER),
            mapped: AtomicBool::new(false),
        }
    }
}
