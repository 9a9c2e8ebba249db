//! The estimator: the sum over chunks of the minimum of several fresh runs.
//!
//! A machine that others use too can only make a run slower, never faster; the minimum of a chunk
//! over the rounds is its undisturbed time, and chunks are short enough to be undisturbed once.

use std::time::Duration;

/// The best time seen of each chunk.
#[derive(Clone, Debug)]
pub struct Minima(Vec<Duration>);

impl Minima {
    /// No chunk has been run yet.
    pub fn new(chunks: usize) -> Self {
        Self(vec![Duration::MAX; chunks])
    }

    /// One run of one chunk.
    pub fn record(&mut self, chunk: usize, time: Duration) {
        self.0[chunk] = self.0[chunk].min(time);
    }

    /// Nanoseconds per segment, for chunks of `segments` each.
    pub fn ns_per_segment(&self, segments: usize) -> f64 {
        let total: Duration = self.0.iter().sum();
        total.as_nanos() as f64 / (self.0.len() * segments) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_round_does_not_count() {
        let mut minima = Minima::new(2);
        for ns in [(100, 900), (700, 200)] {
            minima.record(0, Duration::from_nanos(ns.0));
            minima.record(1, Duration::from_nanos(ns.1));
        }
        assert_eq!(minima.ns_per_segment(10), 15.0);
    }
}
