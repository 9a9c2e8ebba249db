//! The SACK list of a receiver (RFC 2018) and the one duplicate it reports (RFC 2883).
//!
//! [`SackList`] remembers the up to four ranges that arrived last above rcv_nxt, newest first; it
//! is apart from the out-of-order queue because it must keep the order of arrival, and may forget.
//! Called by the connection's state machine on its lcore. It never looks at a buffer.

use super::{SeqNum, SeqRange};
use crate::wire::SackBlocks;

/// Ranges kept: as many as fit in a header without other options, (40 − 4) / 8.
const SLOTS: usize = 4;

/// The ranges held above rcv_nxt, newest first; no two of them touch.
#[derive(Clone, Debug)]
pub struct SackList {
    ranges: [SeqRange; SLOTS],
    len: u8,
}

impl SackList {
    /// The list of a connection that holds nothing out of order.
    pub const fn new() -> Self {
        let none = SeqRange::new(SeqNum::new(0), SeqNum::new(0));
        Self { ranges: [none; SLOTS], len: 0 }
    }

    /// Records that `range` has arrived above rcv_nxt; a FIN counts as one number.
    ///
    /// It goes to the front (RFC 2018 §4: the first block holds the segment that triggered the
    /// ACK), grown by every range it touches. When there is no room the oldest is forgotten, and
    /// stays so even if its data is still held: the order matters more than completeness.
    #[inline(always)] // where each segment above a hole comes by
    pub fn note(&mut self, range: SeqRange) {
        // By far the most frequent: the next one behind the only range.
        if self.len == 1 && self.ranges[0].end == range.start {
            self.ranges[0].end = range.end;
        } else if !range.is_empty() {
            self.note_among(range);
        }
    }

    #[inline(never)]
    fn note_among(&mut self, range: SeqRange) {
        let mut grown = range;
        let mut kept = 0;
        for i in 0..self.len() {
            let old = self.ranges[i];
            // What touches `grown` touches `range`: no two ranges of the list touch each other.
            if old.touches(range) {
                grown.start = grown.start.min(old.start);
                grown.end = grown.end.max(old.end);
            } else {
                self.ranges[kept] = old;
                kept += 1;
            }
        }
        let shifted = kept.min(SLOTS - 1);
        self.ranges.copy_within(..shifted, 1);
        self.ranges[0] = grown;
        self.len = (shifted + 1) as u8;
    }

    /// How many ranges stand before the first that `range` touches: all of them if it touches none.
    pub fn place_of(&self, range: SeqRange) -> usize {
        let ranges = self.ranges();
        ranges.iter().position(|held| held.touches(range)).unwrap_or(ranges.len())
    }

    /// Removes every range whose start `rcv_nxt` has reached.
    pub fn advance(&mut self, rcv_nxt: SeqNum) {
        let mut kept = 0;
        for i in 0..self.len() {
            if self.ranges[i].start.after(rcv_nxt) {
                self.ranges[kept] = self.ranges[i];
                kept += 1;
            }
        }
        self.len = kept as u8;
    }

    /// Forgets everything: the out-of-order queue is empty, or was pruned (RFC 2018 §8 lets a
    /// receiver renege; what it dropped must not be reported).
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Whether there is nothing to report but perhaps a duplicate.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ranges, newest first.
    pub fn ranges(&self) -> &[SeqRange] {
        &self.ranges[..self.len()]
    }

    /// The blocks of the next ACK, at most `max`: the duplicate, then the range that holds it if
    /// it lies above rcv_nxt (RFC 2883 §4), then the others, newest first.
    #[inline]
    pub fn blocks(&self, dsack: Option<SeqRange>, max: usize) -> SackBlocks {
        match dsack {
            None => SackBlocks::first_of(self.ranges.map(block), self.len().min(max)),
            Some(dsack) => self.blocks_behind(dsack, max),
        }
    }

    #[inline(never)]
    fn blocks_behind(&self, dsack: SeqRange, max: usize) -> SackBlocks {
        let holds =
            |r: &SeqRange| r.start.at_or_before(dsack.start) && r.end.at_or_after(dsack.end);
        let around = self.ranges().iter().position(holds);
        let others = (0..self.len()).filter(|i| Some(*i) != around);
        let held = around.into_iter().chain(others).map(|i| self.ranges[i]);
        std::iter::once(dsack).chain(held).take(max).map(block).collect()
    }

    /// The right edge of the highest range: a RST there is taken as one at rcv_nxt, since a peer
    /// whose ACK field we advance may place it behind what it has sent (Linux does the same).
    pub fn highest_right_edge(&self) -> Option<SeqNum> {
        self.ranges().iter().map(|r| r.end).reduce(SeqNum::max)
    }

    const fn len(&self) -> usize {
        self.len as usize
    }
}

impl Default for SackList {
    fn default() -> Self {
        Self::new()
    }
}

const fn block(range: SeqRange) -> (u32, u32) {
    (range.start.raw(), range.end.raw())
}

/// Adds a duplicate range to the one to be reported, if it touches it.
///
/// One segment reports one range; a second one apart from the first is not reported (RFC 2883 §4).
pub fn note_duplicate(dsack: &mut Option<SeqRange>, range: SeqRange) {
    match dsack {
        None => *dsack = Some(range),
        Some(noted) if noted.touches(range) => {
            noted.start = noted.start.min(range.start);
            noted.end = noted.end.max(range.end);
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u32, end: u32) -> SeqRange {
        SeqRange::new(SeqNum::new(start), SeqNum::new(end))
    }

    fn thousand(start: u32) -> SeqRange {
        range(start, start + 1000)
    }

    fn noted(starts: &[u32]) -> SackList {
        let mut list = SackList::new();
        starts.iter().for_each(|start| list.note(thousand(*start)));
        list
    }

    #[test]
    fn order_is_that_of_linux() {
        let mut list = noted(&[1001]);
        assert_eq!(list.blocks(None, 4)[..], [(1001, 2001)]);
        list.note(thousand(3001));
        assert_eq!(list.blocks(None, 4)[..], [(3001, 4001), (1001, 2001)]);
        list.note(thousand(5001));
        list.note(thousand(7001));
        let four = [(7001, 8001), (5001, 6001), (3001, 4001), (1001, 2001)];
        assert_eq!(list.blocks(None, 4)[..], four);
        list.note(thousand(9001));
        let forgotten = [(9001, 10001), (7001, 8001), (5001, 6001), (3001, 4001)];
        assert_eq!(list.blocks(None, 4)[..], forgotten);
        list.note(thousand(2001));
        let joined = [(2001, 4001), (9001, 10001), (7001, 8001), (5001, 6001)];
        assert_eq!(list.blocks(None, 4)[..], joined);
        list.note(range(5501, 5601));
        let dsack = [(5501, 5601), (5001, 6001), (2001, 4001), (9001, 10001)];
        assert_eq!(list.blocks(Some(range(5501, 5601)), 4)[..], dsack);
        list.advance(SeqNum::new(4001));
        let left = [(5001, 6001), (9001, 10001), (7001, 8001)];
        assert_eq!(list.blocks(None, 4)[..], left);
    }

    #[test]
    fn with_timestamps_three_blocks_fit_and_the_duplicate_is_one_of_them() {
        let list = noted(&[1001, 3001, 5001, 7001]);
        assert_eq!(list.blocks(None, 3)[..], [(7001, 8001), (5001, 6001), (3001, 4001)]);
        let old = Some(range(1, 501));
        assert_eq!(list.blocks(old, 3)[..], [(1, 501), (7001, 8001), (5001, 6001)]);
        assert!(list.blocks(old, 0).is_empty());
    }

    #[test]
    fn the_range_around_a_duplicate_follows_it_wherever_it_stands() {
        let list = noted(&[1001, 3001, 5001]);
        let blocks = list.blocks(Some(range(1101, 1201)), 4);
        assert_eq!(blocks[..], [(1101, 1201), (1001, 2001), (5001, 6001), (3001, 4001)]);
    }

    #[test]
    fn one_range_can_join_all_others() {
        let mut list = noted(&[1001, 3001, 5001, 7001]);
        list.note(range(1501, 7001));
        assert_eq!(list.ranges(), [range(1001, 8001)]);
    }

    #[test]
    fn a_reached_start_removes_the_range_and_keeps_the_order_of_others() {
        let mut list = noted(&[5001, 1001, 3001]);
        list.advance(SeqNum::new(1000));
        assert_eq!(list.ranges().len(), 3);
        list.advance(SeqNum::new(1001));
        assert_eq!(list.ranges(), [thousand(3001), thousand(5001)]);
        list.clear();
        assert!(list.is_empty() && list.highest_right_edge().is_none());
    }

    #[test]
    fn ranges_join_and_compare_across_the_wrap() {
        let mut list = SackList::new();
        let base = SeqNum::new(u32::MAX - 99);
        list.note(SeqRange::new(base, base.plus(100)));
        list.note(SeqRange::new(base.plus(300), base.plus(400)));
        assert_eq!(list.highest_right_edge(), Some(base.plus(400)));
        list.note(SeqRange::new(base.plus(100), base.plus(200)));
        assert_eq!(list.ranges()[0], SeqRange::new(base, base.plus(200)));
        list.advance(base.plus(50));
        assert_eq!(list.blocks(None, 4)[..], [(200, 300)]);
    }

    #[test]
    fn only_touching_duplicates_are_reported_together() {
        let mut dsack = None;
        note_duplicate(&mut dsack, range(10, 20));
        note_duplicate(&mut dsack, range(30, 40));
        assert_eq!(dsack, Some(range(10, 20)));
        note_duplicate(&mut dsack, range(20, 25));
        note_duplicate(&mut dsack, range(5, 12));
        assert_eq!(dsack, Some(range(5, 25)));
    }
    proptest! {
        #[test]
        fn the_newest_comes_first_and_ranges_stay_apart(
            base in any::<u32>().prop_map(SeqNum::new),
            notes in prop::collection::vec((1..2000_u32, 1..100_u32, 0..200_u32), 1..100),
        ) {
            let mut list = SackList::new();
            let mut rcv_nxt = base;
            for (gap, len, progress) in notes {
                let before = list.clone();
                let start = rcv_nxt.plus(gap);
                let noted = SeqRange::new(start, start.plus(len));
                list.note(noted);
                let holds = |a: SeqRange, b: SeqRange| {
                    a.start.at_or_before(b.start) && a.end.at_or_after(b.end)
                };
                let ranges = list.ranges();
                assert!(holds(ranges[0], noted));
                for (i, range) in ranges.iter().enumerate() {
                    assert!(ranges[i + 1..].iter().all(|other| !range.touches(*other)));
                }
                // Whatever touched it is in it; of the rest at most the oldest is forgotten.
                let (joined, apart): (Vec<_>, Vec<_>) =
                    before.ranges().iter().copied().partition(|old| old.touches(noted));
                assert!(joined.iter().all(|old| holds(ranges[0], *old)));
                assert_eq!(ranges[1..], apart[..apart.len().min(SLOTS - 1)]);
                let most = joined.iter().fold(noted.len(), |sum, old| sum + old.len());
                assert!(ranges[0].len() <= most);

                rcv_nxt = rcv_nxt.plus(progress.saturating_sub(150));
                list.advance(rcv_nxt);
                assert!(list.ranges().iter().all(|range| range.start.after(rcv_nxt)));
            }
        }
    }
}
