//! A burst sorted by connection, in arrays on the stack.
//!
//! Frames of one connection that follow each other are a run; the engine notes runs as it parses,
//! finds each one's socket, and then goes from socket to socket. Frames of one connection stay in
//! order. A burst has few connections, or all different ones: both are cheap with a search from the
//! newest on through at most thirty-two numbers.

use std::ops::Range;

use smallvec::SmallVec;

use crate::wire::words::Alike;

/// Frames that are worked on together. As many as a device gives at once, and few enough that
/// what is parsed of them stays in the first-level cache.
pub const BURST: usize = 32;

/// The runs of a burst that belong to sockets.
#[derive(Debug, Default)]
pub(super) struct Groups {
    alike: Alike,
    groups: SmallVec<[Group; BURST]>,
    runs: SmallVec<[Run; BURST]>,
}

/// A socket, and its first and last run.
#[derive(Clone, Copy, Debug)]
struct Group {
    socket: u32,
    first: u8,
    last: u8,
}

/// Frames that follow each other, and the run that follows in the same group.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: u8,
    to: u8,
    next: u8,
}

/// No run.
const END: u8 = u8::MAX;

impl Groups {
    /// Of a burst of which these frames are like the one before.
    pub fn new(alike: Alike) -> Self {
        Self { alike, ..Self::default() }
    }

    /// Adds a run of frames, later ones than all before, to the group of `socket`.
    #[inline]
    pub fn add(&mut self, frames: Range<usize>, socket: u32) {
        // Runs and places in a burst are few enough for a byte.
        let run = self.runs.len() as u8;
        self.runs.push(Run { from: frames.start as u8, to: frames.end as u8, next: END });
        match self.groups.iter_mut().rev().find(|group| group.socket == socket) {
            Some(group) => {
                let last = std::mem::replace(&mut group.last, run);
                self.runs[usize::from(last)].next = run;
            }
            None => self.groups.push(Group { socket, first: run, last: run }),
        }
    }

    /// The sockets in the order of their first frames, with their frames.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Members<'_>)> {
        self.groups.iter().map(|group| {
            let Self { runs, alike, .. } = self;
            let members = Members { runs, frames: 0..0, next: group.first, alike: *alike };
            (group.socket, members)
        })
    }
}

/// The places of one socket's frames, in order.
#[derive(Debug)]
pub(super) struct Members<'a> {
    runs: &'a [Run],
    frames: Range<usize>,
    next: u8,
    alike: Alike,
}

impl Members<'_> {
    /// The one place of a single frame.
    pub fn single() -> Self {
        Self { runs: &[], frames: 0..1, next: END, alike: Alike::default() }
    }

    /// Which frames of [`Self::run`] are like the one before.
    #[inline]
    pub fn alike(&self) -> Alike {
        self.alike.from(self.frames.start)
    }

    /// The places that follow each other from the next one on; empty if there is none.
    #[inline]
    pub fn run(&mut self) -> Range<usize> {
        if self.frames.is_empty()
            && let Some(&Run { from, to, next }) = self.runs.get(usize::from(self.next))
        {
            self.frames = usize::from(from)..usize::from(to);
            self.next = next;
        }
        self.frames.clone()
    }

    /// Passes over that many places of the run.
    #[inline]
    pub fn skip_places(&mut self, n: usize) {
        self.frames.start += n;
        debug_assert!(self.frames.start <= self.frames.end, "beyond the run");
    }
}

impl Iterator for Members<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let at = self.run().next()?;
        self.frames.start += 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_frame_is_in_its_group_in_order(
            burst in proptest::collection::vec(0..5u32, 0..=BURST),
        ) {
            let mut groups = Groups::default();
            let mut at = 0;
            for frames in burst.chunk_by(|a, b| a == b) {
                groups.add(at..at + frames.len(), frames[0]);
                at += frames.len();
            }
            let mut seen = Vec::new();
            for ((socket, members), (_, mut again)) in groups.iter().zip(groups.iter()) {
                let members: Vec<_> = members.collect();
                let mut by_runs = Vec::new();
                while let run = again.run()
                    && !run.is_empty()
                {
                    again.skip_places(run.len());
                    by_runs.extend(run);
                }
                let expected: Vec<_> =
                    (0..burst.len()).filter(|&at| burst[at] == socket).collect();
                prop_assert_eq!(&members, &expected);
                prop_assert_eq!(&by_runs, &expected);
                seen.push(members[0]);
            }
            prop_assert!(seen.is_sorted(), "groups come in the order of their first frames");
            let sockets = burst.iter().collect::<std::collections::BTreeSet<_>>();
            prop_assert_eq!(seen.len(), sockets.len());
        }
    }
}
