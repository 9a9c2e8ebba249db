//! The segments of an out-of-order queue in order of sequence: chunks of up to 64, in a list.
//!
//! It finds, inserts and removes, and knows nothing of overlaps, which are [`super::OutOfOrder`]'s
//! business. A list of sorted chunks is a tree of two floors, enough for the few thousand segments
//! there may be: two binary searches find a place, making room there moves at most half a chunk,
//! and both ends, where a burst behind one lost segment is put and taken, cost no search at all.

use std::collections::VecDeque;
use std::mem;

use crate::tcp::{SeqNum, SeqRange};

/// Segments in a full chunk: the square root of the most there may be in the queue, so that
/// neither floor is longer than the other. Half of it is 512 bytes to move for an mbuf.
const CHUNK: usize = 64;

/// Room of the first chunk when it is made: losing one segment of a burst is by far the most
/// frequent case. Later ones are made in full size.
const FIRST: usize = 32;

/// One segment and the numbers it takes, FIN included: a search never looks into a buffer.
#[derive(Debug)]
pub(super) struct Slot<B> {
    pub(super) range: SeqRange,
    pub(super) buf: B,
}

/// Slots in order of their starts, which are unique and within 2^31 of each other.
///
/// No chunk is empty, but for the highest when all are; and two neighbours together hold more than half a
/// chunk, except at both ends: so the list is short whatever was removed.
#[derive(Debug)]
pub(super) struct Segments<B> {
    /// All chunks but the highest, in order.
    lower: Vec<Chunk<B>>,
    /// Where nearly all is put, at hand. It keeps its room when it is emptied.
    highest: Chunk<B>,
    len: usize,
}

type Chunk<B> = VecDeque<Slot<B>>;

/// A place between two slots: before slot `slot` of chunk `chunk`, or at that chunk's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    chunk: usize,
    slot: usize,
}

impl<B> Segments<B> {
    pub(super) fn new() -> Self {
        Self { lower: Vec::new(), highest: VecDeque::with_capacity(FIRST), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The highest segment.
    pub(super) fn last(&self) -> Option<&Slot<B>> {
        self.highest.back()
    }

    /// The place behind every segment that starts at or before `seq`.
    pub(super) fn place_behind(&self, seq: SeqNum) -> Place {
        let starts_at_or_before = |slot: &Slot<B>| {
            count_steps(1);
            slot.range.start.at_or_before(seq)
        };
        let begins = |chunk: &Chunk<B>| chunk.front().is_some_and(starts_at_or_before);
        let mut behind = self.lower.partition_point(begins);
        if behind == self.lower.len() && begins(&self.highest) {
            behind += 1;
        }
        let chunk = behind.saturating_sub(1);
        Place {
            chunk,
            slot: self.chunk(chunk).map_or(0, |c| c.partition_point(starts_at_or_before)),
        }
    }

    /// The segment before `place`, which must come from [`Self::place_behind`].
    pub(super) fn before(&mut self, place: Place) -> Option<&mut Slot<B>> {
        // A place found by a search is at the front of a chunk only if it is before everything.
        self.chunk_mut(place.chunk)?.get_mut(place.slot.checked_sub(1)?)
    }

    /// The segment behind `place`.
    pub(super) fn after(&self, place: Place) -> Option<&Slot<B>> {
        match self.chunk(place.chunk)?.get(place.slot) {
            Some(slot) => Some(slot),
            None => self.chunk(place.chunk + 1)?.front(),
        }
    }

    /// The highest segment, to be appended to.
    pub(super) fn last_mut(&mut self) -> Option<&mut Slot<B>> {
        self.highest.back_mut()
    }

    /// Puts a segment behind all others: data that keeps coming in order fills whole chunks.
    #[inline(always)] // as what it is part of
    pub(super) fn push_back(&mut self, slot: Slot<B>) {
        count_steps(1);
        self.len += 1;
        if self.highest.len() >= CHUNK {
            self.begin_chunk();
        }
        self.highest.push_back(slot);
    }

    #[inline(never)]
    fn begin_chunk(&mut self) {
        self.insert_chunk(self.lower.len() + 1, VecDeque::with_capacity(CHUNK));
    }

    /// Puts a segment at `place`.
    pub(super) fn insert(&mut self, mut place: Place, slot: Slot<B>) {
        match self.chunk_mut(place.chunk) {
            None => return self.push_back(slot),
            Some(chunk) if chunk.len() < CHUNK => {}
            // The front of the next chunk is the same place.
            Some(_) if place.slot == CHUNK => {
                place = Place { chunk: place.chunk + 1, slot: 0 };
                if self.chunk(place.chunk).is_none_or(|next| next.len() == CHUNK) {
                    self.insert_chunk(place.chunk, VecDeque::with_capacity(CHUNK));
                }
            }
            Some(chunk) => {
                let mut upper = VecDeque::with_capacity(CHUNK);
                upper.extend(chunk.drain(CHUNK / 2..));
                count_steps(upper.len());
                self.insert_chunk(place.chunk + 1, upper);
                if place.slot > CHUNK / 2 {
                    place = Place { chunk: place.chunk + 1, slot: place.slot - CHUNK / 2 };
                }
            }
        }
        if let Some(chunk) = self.chunk_mut(place.chunk) {
            count_steps(place.slot.min(chunk.len() - place.slot));
            chunk.insert(place.slot, slot);
            self.len += 1;
        }
    }

    /// Takes the segment behind `place`. `place` stays good; [`Self::tidy`] is due in the end.
    pub(super) fn remove_after(&mut self, place: Place) -> Option<Slot<B>> {
        let chunk = self.chunk_mut(place.chunk)?;
        count_steps(place.slot.min(chunk.len() - place.slot));
        let removed = match chunk.remove(place.slot) {
            Some(slot) => slot,
            None => {
                let next = self.chunk_mut(place.chunk + 1)?;
                let slot = next.pop_front()?;
                if next.is_empty() {
                    self.remove_chunk(place.chunk + 1);
                }
                slot
            }
        };
        self.len -= 1;
        Some(removed)
    }

    /// Joins the chunks around `place` if removals have left little in them. Makes places void.
    pub(super) fn tidy(&mut self, place: Place) {
        for lower in (place.chunk.saturating_sub(1)..=place.chunk + 1).rev() {
            let pair = match self.lower.get_mut(lower..) {
                Some([low, high, ..]) => Some((low, high)),
                Some([low]) => Some((low, &mut self.highest)),
                _ => None,
            };
            if let Some((low, high)) = pair
                && low.len() + high.len() <= CHUNK / 2
            {
                count_steps(high.len());
                low.append(high);
                self.remove_chunk(lower + 1);
            }
        }
    }

    /// Takes the lowest segment if `is_due` says so.
    #[inline(always)] // into the loops that do
    pub(super) fn pop_first_if(
        &mut self,
        is_due: impl FnOnce(&Slot<B>) -> bool,
    ) -> Option<Slot<B>> {
        let slot = match self.lower.first_mut() {
            None => self.highest.pop_front_if(|slot| is_due(slot))?,
            Some(lowest) => {
                let slot = lowest.pop_front_if(|slot| is_due(slot))?;
                if lowest.is_empty() {
                    self.remove_chunk(0);
                }
                slot
            }
        };
        self.len -= 1;
        Some(slot)
    }

    /// Takes the highest segment.
    pub(super) fn pop_last(&mut self) -> Option<Slot<B>> {
        count_steps(1);
        let slot = self.highest.pop_back()?;
        if self.highest.is_empty() {
            self.remove_chunk(self.lower.len());
        }
        self.len -= 1;
        Some(slot)
    }

    /// All slots, lowest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<B>> {
        self.lower.iter().chain([&self.highest]).flatten()
    }

    /// All buffers, lowest first.
    pub(super) fn into_buffers(self) -> impl Iterator<Item = B> {
        self.lower.into_iter().chain([self.highest]).flatten().map(|slot| slot.buf)
    }

    /// The highest stands behind all others.
    fn chunk(&self, index: usize) -> Option<&Chunk<B>> {
        match self.lower.get(index) {
            None if index == self.lower.len() => Some(&self.highest),
            lower => lower,
        }
    }

    fn chunk_mut(&mut self, index: usize) -> Option<&mut Chunk<B>> {
        if index == self.lower.len() { Some(&mut self.highest) } else { self.lower.get_mut(index) }
    }

    fn insert_chunk(&mut self, index: usize, chunk: Chunk<B>) {
        count_steps(self.lower.len() + 1 - index);
        if index > self.lower.len() {
            self.lower.push(mem::replace(&mut self.highest, chunk));
        } else {
            self.lower.insert(index, chunk);
        }
    }

    /// Removes one that has become empty.
    #[inline(never)]
    fn remove_chunk(&mut self, index: usize) {
        count_steps(self.lower.len() + 1 - index);
        if index < self.lower.len() {
            self.lower.remove(index);
        } else if let Some(chunk) = self.lower.pop() {
            self.highest = chunk;
        }
    }
}

/// Counts comparisons, and slots and chunks moved: tests bound the work an arrival can cause.
#[inline]
fn count_steps(_steps: usize) {
    #[cfg(test)]
    tests::STEPS.with(|sum| sum.set(sum.get() + _steps));
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// The steps counted on this thread since the last call.
    pub(in super::super) fn take_steps() -> usize {
        STEPS.take()
    }

    impl<B> Segments<B> {
        /// The numbers of all segments in order, after a look at the chunks.
        pub(in super::super) fn checked_ranges(&self) -> Vec<SeqRange> {
            let chunks: Vec<_> = self.lower.iter().chain([&self.highest]).collect();
            let least = usize::from(self.len > 0);
            assert!(chunks.iter().all(|chunk| (least..=CHUNK).contains(&chunk.len())));
            let inner = chunks.get(1..chunks.len() - 1).unwrap_or(&[]);
            for pair in inner.windows(2) {
                assert!(pair[0].len() + pair[1].len() > CHUNK / 2, "the list has not been tidied");
            }
            let ranges: Vec<_> = self.iter().map(|slot| slot.range).collect();
            assert_eq!(ranges.len(), self.len);
            ranges
        }
    }
}
