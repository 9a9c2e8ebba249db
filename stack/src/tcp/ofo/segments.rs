//! The segments of an out-of-order queue in order of sequence: an array while they are few, a tree
//! beyond.
//!
//! It finds, inserts and removes by start in O(log n) and knows nothing of overlaps, which are
//! [`super::OutOfOrder`]'s business. Few means a handful: losing one segment of a burst is by far
//! the most frequent case, and an array of that size is one or two cache lines.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::tcp::{SeqNum, SeqRange};

/// Segments kept in the array. Moving all of them by one place costs about as much as one step
/// down a tree.
const FEW: usize = 8;

/// One segment and the numbers it takes, FIN included.
#[derive(Debug)]
pub(super) struct Slot<B> {
    pub(super) range: SeqRange,
    pub(super) buf: B,
}

/// Slots in order of their start, which is unique; all starts lie within 2^31 of each other.
#[derive(Debug)]
pub(super) enum Segments<B> {
    Few(SmallVec<[Slot<B>; FEW]>),
    Many(Tree<B>),
}

impl<B> Segments<B> {
    pub(super) fn new() -> Self {
        Self::Few(SmallVec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(slots) => slots.len(),
            Self::Many(tree) => tree.slots.len(),
        }
    }

    /// The numbers of the lowest segment.
    pub(super) fn first(&self) -> Option<SeqRange> {
        match self {
            Self::Few(slots) => slots.first().map(|slot| slot.range),
            Self::Many(tree) => tree.slots.first_key_value().map(|(_, slot)| slot.range),
        }
    }

    /// The numbers of the highest segment.
    pub(super) fn last(&self) -> Option<SeqRange> {
        match self {
            Self::Few(slots) => slots.last().map(|slot| slot.range),
            Self::Many(tree) => (!tree.slots.is_empty()).then_some(tree.last),
        }
    }

    /// The segment with the greatest start at or before `seq`.
    pub(super) fn at_or_before(&mut self, seq: SeqNum) -> Option<&mut Slot<B>> {
        match self {
            Self::Few(slots) => {
                let place = place_behind(slots, seq);
                slots[..place].last_mut()
            }
            Self::Many(tree) => tree.at_or_before(seq),
        }
    }

    /// The numbers of the segment with the smallest start after `seq`.
    pub(super) fn after(&self, seq: SeqNum) -> Option<SeqRange> {
        match self {
            Self::Few(slots) => slots.get(place_behind(slots, seq)).map(|slot| slot.range),
            Self::Many(tree) => tree.after(seq),
        }
    }

    /// Adds a segment. No other may start where it does.
    pub(super) fn insert(&mut self, slot: Slot<B>) {
        match self {
            Self::Few(slots) if slots.len() < FEW => {
                slots.insert(place_behind(slots, slot.range.start), slot);
            }
            Self::Few(slots) => {
                let mut tree = Tree::new(slot.range);
                slots.drain(..).for_each(|old| tree.insert(old));
                tree.insert(slot);
                *self = Self::Many(tree);
            }
            Self::Many(tree) => tree.insert(slot),
        }
    }

    /// Tells that the segment that starts at `range.start` now ends at `range.end`.
    pub(super) fn extend(&mut self, range: SeqRange) {
        if let Some(slot) = self.at_or_before(range.start) {
            debug_assert_eq!(slot.range.start, range.start);
            slot.range.end = range.end;
        }
        if let Self::Many(tree) = self
            && tree.last.start == range.start
        {
            tree.last = range;
        }
    }

    /// Takes the segment that starts at `start`.
    pub(super) fn remove(&mut self, start: SeqNum) -> Option<Slot<B>> {
        match self {
            Self::Few(slots) => {
                let index = place_behind(slots, start).checked_sub(1)?;
                (slots[index].range.start == start).then(|| slots.remove(index))
            }
            Self::Many(tree) => tree.remove(start),
        }
    }

    /// Takes the lowest segment.
    pub(super) fn pop_first(&mut self) -> Option<Slot<B>> {
        match self {
            Self::Few(slots) => (!slots.is_empty()).then(|| slots.remove(0)),
            // The hint to the last is void only if this was the last, and then nobody asks.
            Self::Many(tree) => tree.slots.pop_first().map(|(_, slot)| slot),
        }
    }

    /// Takes the highest segment.
    pub(super) fn pop_last(&mut self) -> Option<Slot<B>> {
        match self {
            Self::Few(slots) => slots.pop(),
            Self::Many(tree) => tree.remove(tree.last.start),
        }
    }
}

/// The tree, and what would cost a descent to find out.
#[derive(Debug)]
pub(super) struct Tree<B> {
    slots: BTreeMap<Place, Slot<B>>,
    /// Numbers of the highest segment: most arrivals belong behind it.
    last: SeqRange,
    /// Where that segment is: the base from which every other place is counted.
    last_place: Place,
}

impl<B> Tree<B> {
    /// An empty tree for segments near `any`.
    fn new(any: SeqRange) -> Self {
        Self { slots: BTreeMap::new(), last: any, last_place: Place::origin(any.start) }
    }

    fn place(&self, seq: SeqNum) -> Place {
        self.last_place.near(seq)
    }

    fn at_or_before(&mut self, seq: SeqNum) -> Option<&mut Slot<B>> {
        let place = self.place(seq);
        self.slots.range_mut(..=place).next_back().map(|(_, slot)| slot)
    }

    fn after(&self, seq: SeqNum) -> Option<SeqRange> {
        if seq.at_or_after(self.last.start) {
            return None;
        }
        let place = self.place(seq.plus(1));
        self.slots.range(place..).next().map(|(_, slot)| slot.range)
    }

    fn insert(&mut self, slot: Slot<B>) {
        let place = self.place(slot.range.start);
        if self.slots.is_empty() || place > self.last_place {
            self.last = slot.range;
            self.last_place = place;
        }
        let same = self.slots.insert(place, slot);
        debug_assert!(same.is_none());
    }

    fn remove(&mut self, start: SeqNum) -> Option<Slot<B>> {
        let place = self.place(start);
        let slot = self.slots.remove(&place);
        if place == self.last_place
            && let Some((&place, slot)) = self.slots.last_key_value()
        {
            self.last = slot.range;
            self.last_place = place;
        }
        slot
    }
}

/// A place in the stream that does not wrap: its low half is the sequence number.
#[derive(Clone, Copy, Debug)]
struct Place(u64);

impl Place {
    /// The place of `seq` in the second round of the sequence space, so that there is room below.
    fn origin(seq: SeqNum) -> Self {
        Self(1 << 32 | u64::from(seq.raw()))
    }

    /// The place of `seq`, which is within 2^31 of this one.
    fn near(self, seq: SeqNum) -> Self {
        let distance = seq.offset_from(SeqNum::new(self.0 as u32));
        Self(self.0.wrapping_add_signed(i64::from(distance)))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        step();
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Place {}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// How many of the slots start at or before `seq`; looks from the end, where most arrivals belong.
fn place_behind<B>(slots: &[Slot<B>], seq: SeqNum) -> usize {
    let behind = |slot: &Slot<B>| {
        step();
        slot.range.start.at_or_before(seq)
    };
    slots.iter().rposition(behind).map_or(0, |index| index + 1)
}

/// One comparison of two places. Tests count them: the work per arrival must stay bounded.
#[inline]
fn step() {
    #[cfg(test)]
    tests::STEPS.with(|steps| steps.set(steps.get() + 1));
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// Comparisons made on this thread.
        pub(in super::super) static STEPS: Cell<u64> = const { Cell::new(0) };
    }
}
