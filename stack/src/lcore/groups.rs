//! A burst sorted by connection, in arrays on the stack.
//!
//! The engine adds frames in the order of their arrival and then goes from connection to connection;
//! frames of one connection stay in order. A burst has few connections, or all different ones: both
//! are cheap with a search from the newest on through at most thirty-two numbers.

use super::engine::BURST;

/// The frames of a burst that belong to sockets.
#[derive(Debug)]
pub(super) struct Groups {
    sockets: [u32; BURST],
    first: [u8; BURST],
    last: [u8; BURST],
    len: usize,
    /// The group that was last added to.
    current: usize,
    /// The frame that follows in the same group.
    next: [u8; BURST],
}

/// No frame.
const END: u8 = u8::MAX;

impl Default for Groups {
    fn default() -> Self {
        Self {
            sockets: [0; BURST],
            first: [0; BURST],
            last: [0; BURST],
            len: 0,
            current: 0,
            next: [END; BURST],
        }
    }
}

impl Groups {
    /// Adds the frame at `at`, a later one than all before, to the group of `socket`.
    pub fn add(&mut self, at: usize, socket: u32) {
        match self.sockets[..self.len].iter().rposition(|&other| other == socket) {
            Some(group) => {
                self.current = group;
                self.add_to_last(at);
            }
            None => {
                let group = self.len;
                self.len += 1;
                self.current = group;
                self.sockets[group] = socket;
                (self.first[group], self.last[group]) = (at as u8, at as u8);
            }
        }
    }

    /// Adds the frame at `at` to the group that was last added to. There must be one.
    #[inline]
    pub fn add_to_last(&mut self, at: usize) {
        let last = std::mem::replace(&mut self.last[self.current % BURST], at as u8);
        self.next[usize::from(last) % BURST] = at as u8;
    }

    /// The sockets in the order of their first frames, with their frames.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Members<'_>)> {
        (0..self.len)
            .map(|group| (self.sockets[group], Members { next: &self.next, at: self.first[group] }))
    }
}

/// The frames of one socket, in order.
#[derive(Debug)]
pub(super) struct Members<'a> {
    next: &'a [u8; BURST],
    at: u8,
}

impl Iterator for Members<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let at = usize::from(self.at);
        self.at = *self.next.get(at)?;
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
            burst in proptest::collection::vec(proptest::option::of(0..8u32), 0..=BURST),
        ) {
            let mut groups = Groups::default();
            for (at, socket) in burst.iter().enumerate() {
                if let Some(socket) = socket {
                    groups.add(at, *socket);
                }
            }
            let mut seen = Vec::new();
            for (socket, members) in groups.iter() {
                let members: Vec<_> = members.collect();
                let expected: Vec<_> =
                    (0..burst.len()).filter(|&at| burst[at] == Some(socket)).collect();
                prop_assert_eq!(&members, &expected);
                seen.push(members[0]);
            }
            prop_assert!(seen.is_sorted(), "groups come in the order of their first frames");
            let sockets = burst.iter().flatten().collect::<std::collections::BTreeSet<_>>();
            prop_assert_eq!(seen.len(), sockets.len());
        }
    }
}
