//! The ranges of a SACK option: as many as a header holds, in place, so that a segment to be sent is
//! copied like a number.
//!
//! Filled by the connection or the options' parser, read by the emitter, on any thread. It does not look
//! at what the ranges say.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Ranges that fit in a header without other options, (40 − 4) / 8.
const MOST: usize = 4;

/// Half-open ranges of sequence numbers in a SACK option, DSACK first if there is one: four at most, as
/// many as there is room for (RFC 2018 §3).
///
/// ```
/// use prequeue::wire::SackBlocks;
///
/// let blocks: SackBlocks = (0..9).map(|n| (10 * n, 10 * n + 5)).collect();
/// assert_eq!(blocks[..], [(0, 5), (10, 15), (20, 25), (30, 35)], "what finds no room is left out");
/// ```
#[derive(Clone, Copy, Default)]
pub struct SackBlocks {
    blocks: [(u32, u32); MOST],
    len: u8,
}

impl SackBlocks {
    /// None.
    pub const fn new() -> Self {
        Self { blocks: [(0, 0); MOST], len: 0 }
    }

    /// The first `len` of them.
    #[inline]
    pub const fn first_of(blocks: [(u32, u32); MOST], len: usize) -> Self {
        Self { blocks, len: if len < MOST { len as u8 } else { MOST as u8 } }
    }

    /// Puts one behind the others, if there is room.
    #[inline]
    pub fn push(&mut self, start: u32, end: u32) {
        if let Some(place) = self.blocks.get_mut(usize::from(self.len)) {
            *place = (start, end);
            self.len += 1;
        }
    }

    /// Keeps the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len.min(MOST) as u8);
    }
}

impl Deref for SackBlocks {
    type Target = [(u32, u32)];

    #[inline]
    fn deref(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.len)]
    }
}

impl DerefMut for SackBlocks {
    fn deref_mut(&mut self) -> &mut [(u32, u32)] {
        &mut self.blocks[..usize::from(self.len)]
    }
}

impl FromIterator<(u32, u32)> for SackBlocks {
    #[inline]
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(blocks: I) -> Self {
        let mut all = Self::new();
        blocks.into_iter().take(MOST).for_each(|(start, end)| all.push(start, end));
        all
    }
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SackBlocks {}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_makes_no_difference() {
        let mut some: SackBlocks = [(1, 2), (3, 4), (5, 6)].into_iter().collect();
        assert_eq!(format!("{some:?}"), "[(1, 2), (3, 4), (5, 6)]");
        some.truncate(9);
        assert_eq!(some.len(), 3);
        some.truncate(1);
        assert_eq!(some, [(1, 2)].into_iter().collect());
        some.push(7, 8);
        assert_eq!(some[..], [(1, 2), (7, 8)]);
    }
}
