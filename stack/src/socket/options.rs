//! A socket's options that reading calls look at: set by any handle at any time.
//!
//! Atomics of their own, read at the beginning of a call by the thread that reads. What concerns the
//! connection is no option of this kind: it is changed under the owner word.

use std::time::Duration;

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// A socket's options that calls read: set by any handle at any time.
#[derive(Debug)]
pub(super) struct Options {
    /// SO_RCVTIMEO in nanoseconds; [`FOREVER`] if there is none.
    timeout: AtomicU64,
    /// SO_RCVLOWAT in bytes.
    low_water: AtomicU32,
    nonblocking: AtomicU32,
}

const FOREVER: u64 = u64::MAX;

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
        self.nonblocking.store(nonblocking.into(), Ordering::Relaxed);
    }

    pub(super) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed) != 0
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: AtomicU64::new(FOREVER),
            low_water: AtomicU32::new(1),
            nonblocking: AtomicU32::new(0),
        }
    }
}
