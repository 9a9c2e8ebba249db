//! Numbered records with generations: sockets, requests and TIME-WAIT entries of one lcore.
//!
//! The lcore's thread creates and removes them; others only carry their [`Key`]s around, and a key
//! that outlived its record finds nothing. Removing gives no memory back to the allocator, so that a
//! steady coming and going allocates nothing.

/// Names a record: its index, and how often that index was used before.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    /// Index in the slab.
    pub index: u32,
    /// Distinguishes the successive users of the index.
    pub generation: u32,
}

/// The records.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// First of the chain of free slots, or [`END`].
    free: u32,
    len: u32,
    limit: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Used(T),
    /// The next free slot, or [`END`].
    Free(u32),
}

/// End of the chain of free slots.
const END: u32 = u32::MAX;

impl<T> Slab<T> {
    /// An empty slab that will hold at most `limit` records.
    pub const fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), free: END, len: 0, limit }
    }

    /// Indices that have ever been used: all records are below.
    pub const fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Number of records.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no record.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether another record would exceed the limit.
    pub const fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    /// Stores what `make` returns for the key it will have; `None`, without calling it, if full.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.is_full() {
            return None;
        }
        let key = match self.free {
            END => Key { index: self.slots.len() as u32, generation: 0 },
            index => Key { index, generation: self.slots[index as usize].generation },
        };
        let value = make(key);
        if self.free == END {
            self.slots.push(Slot { generation: 0, state: State::Used(value) });
        } else {
            let slot = &mut self.slots[key.index as usize];
            if let State::Free(next) = std::mem::replace(&mut slot.state, State::Used(value)) {
                self.free = next;
            }
        }
        self.len += 1;
        Some(key)
    }

    /// The record at `index`, whichever generation it is of.
    pub fn at(&self, index: u32) -> Option<&T> {
        match self.slots.get(index as usize) {
            Some(Slot { state: State::Used(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// The record at `index`, whichever generation it is of, to be changed.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slots.get_mut(index as usize) {
            Some(Slot { state: State::Used(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// The record of that very generation.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.at(key.index).filter(|_| self.slots[key.index as usize].generation == key.generation)
    }

    /// The record of that very generation, to be changed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot { generation, state: State::Used(value) })
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// The generation of whatever is at `index`.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        self.at(index).map(|_| Key { index, generation: self.slots[index as usize].generation })
    }

    /// Takes the record at `index` out; its key is void from now on.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        if matches!(slot.state, State::Free(_)) {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        let state = std::mem::replace(&mut slot.state, State::Free(self.free));
        self.free = index;
        self.len -= 1;
        match state {
            State::Used(value) => Some(value),
            State::Free(_) => None,
        }
    }

    /// All records with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| match &slot.state {
            State::Used(value) => Some((index, value)),
            State::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_record() {
        let mut slab = Slab::new(2);
        let a = slab.insert_with(|_| 'a').unwrap();
        let b = slab.insert_with(|_| 'b').unwrap();
        assert_eq!(slab.insert_with(|_| 'c'), None, "the limit holds");
        assert_eq!(slab.remove(a.index), Some('a'));
        assert_eq!((slab.remove(a.index), slab.get(a), slab.at(a.index)), (None, None, None));

        let c = slab.insert_with(|key| if key.index == a.index { 'c' } else { '?' }).unwrap();
        assert_eq!(c, Key { index: a.index, generation: a.generation + 1 });
        assert_eq!((slab.get(a), slab.get(c), slab.get(b)), (None, Some(&'c'), Some(&'b')));
        assert_eq!(slab.key_at(c.index), Some(c));
        assert_eq!((slab.len(), slab.iter().count()), (2, 2));
    }

    #[test]
    fn coming_and_going_uses_the_same_slots() {
        let mut slab = Slab::new(100);
        for round in 0..1000 {
            let keys: Vec<_> = (0..10).map(|n| slab.insert_with(|_| round * n).unwrap()).collect();
            for key in keys {
                slab.remove(key.index);
            }
        }
        assert_eq!(slab.slots.len(), 10);
    }
}
