//! A burst sorted by connection, in arrays on the stack.
//!
//! Frames of one connection that follow each other are a run; the engine notes runs as it parses,
//! finds each one's socket, and then goes from socket to socket. Frames of one connection stay in
//! order. A burst has few connections, or all different ones: both are cheap with a search from the
//! newest on through at most thirty-two numbers.

use std::ops::Range;

use super::engine::BURST;

/// The runs of a burst that belong to sockets.
#[derive(Debug)]
pub(super) struct Groups {
    sockets: [u32; BURST],
    first: [u8; BURST],
    last: [u8; BURST],
    len: usize,
    runs: [Run; BURST],
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

impl Default for Groups {
    fn default() -> Self {
        Self {
            sockets: [0; BURST],
            first: [0; BURST],
            last: [0; BURST],
            len: 0,
            runs: [Run { from: 0, to: 0, next: END }; BURST],
        }
    }
}

impl Groups {
    /// Adds run number `run`, a later one than all before, to the group of `socket`.
    pub fn add(&mut self, run: usize, frames: Range<usize>, socket: u32) {
        // Places in a burst fit in a byte.
        self.runs[run] = Run { from: frames.start as u8, to: frames.end as u8, next: END };
        match self.sockets[..self.len].iter().rposition(|&other| other == socket) {
            Some(group) => {
                let last = std::mem::replace(&mut self.last[group], run as u8);
                self.runs[usize::from(last)].next = run as u8;
            }
            None => {
                let group = self.len;
                self.len += 1;
                self.sockets[group] = socket;
                (self.first[group], self.last[group]) = (run as u8, run as u8);
            }
        }
    }

    /// The sockets in the order of their first frames, with their frames.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Members<'_>)> {
        (0..self.len).map(|group| {
            let next = self.first[group];
            (self.sockets[group], Members { runs: &self.runs, frames: 0..0, next })
        })
    }
}

/// The places of one socket's frames, in order.
#[derive(Debug)]
pub(super) struct Members<'a> {
    runs: &'a [Run; BURST],
    frames: Range<usize>,
    next: u8,
}

impl Iterator for Members<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.frames.is_empty() {
            let Run { from, to, next } = *self.runs.get(usize::from(self.next))?;
            self.frames = usize::from(from)..usize::from(to);
            self.next = next;
        }
        self.frames.next()
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
            for (run, frames) in burst.chunk_by(|a, b| a == b).enumerate() {
                groups.add(run, at..at + frames.len(), frames[0]);
                at += frames.len();
            }
            let mut seen = Vec::new();
            for (socket, members) in groups.iter() {
                let members: Vec<_> = members.collect();
                let expected: Vec<_> =
                    (0..burst.len()).filter(|&at| burst[at] == socket).collect();
                prop_assert_eq!(&members, &expected);
                seen.push(members[0]);
            }
            prop_assert!(seen.is_sorted(), "groups come in the order of their first frames");
            let sockets = burst.iter().collect::<std::collections::BTreeSet<_>>();
            prop_assert_eq!(seen.len(), sockets.len());
        }
    }
}
