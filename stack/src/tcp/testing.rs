//! What the tests of the core share: a virtual clock with settings and counters beside it.

use crate::time::Instant;

use super::negotiate::Bounds;
use super::{Counter, Counters, Cx, Settings};

/// An Ethernet link, and a listener without wishes.
pub(crate) const FREE: Bounds = Bounds { mtu: 1500, window_clamp: 0 };

/// Owns what a [`Cx`] borrows.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
}

impl World {
    pub(crate) fn cx(&mut self) -> Cx<'_> {
        Cx { now: self.now, settings: &self.settings, counters: &mut self.counters }
    }

    /// Sets the clock.
    pub(crate) fn at_ms(&mut self, ms: u64) {
        self.now = Instant::from_millis(ms);
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counters.value(counter)
    }

    /// All counters that are not zero, in order of declaration, but for gauges, which count nothing.
    pub(crate) fn counted(&self) -> Vec<(Counter, u64)> {
        let counters = Counter::ALL.iter().filter(|counter| !counter.is_gauge());
        let pairs = counters.map(|&c| (c, self.count(c)));
        pairs.filter(|&(_, n)| n != 0).collect()
    }
}
