//! The flow table of one lcore: which connection a segment belongs to.
//!
//! Open addressing with linear probing under a secret key, sixteen bytes an entry, four to a cache
//! line. The lcore's thread calls it for each burst: hash all frames first, then find them all, so
//! that the loads of a burst overlap. It never stores sockets themselves and never runs TCP.
//!
//! The table doubles when half full, which keeps the expected probe near one and a half entries. A
//! doubling moves nothing at once: each later insertion moves a few entries over, because moving a
//! million in one go would stop the lcore for longer than an RX ring lasts.

use crate::wire::FourTuple;

use super::hash::HashKey;

/// What a four-tuple leads to: the kind of record and its index in that kind's slab.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// A connection in a synchronised state.
    Socket(u32),
    /// A connection in SYN-RECEIVED.
    Request(u32),
    /// A connection in TIME-WAIT, or an orphan in FIN-WAIT-2.
    TimeWait(u32),
}

impl Target {
    /// Indices are below this: two bits of a word hold the kind.
    pub const INDEX_LIMIT: u32 = 1 << 30;

    /// Never 0, which marks an empty entry.
    pub(super) const fn pack(self) -> u32 {
        let (kind, index) = match self {
            Self::Socket(index) => (1, index),
            Self::Request(index) => (2, index),
            Self::TimeWait(index) => (3, index),
        };
        debug_assert!(index < Self::INDEX_LIMIT);
        kind << 30 | index
    }

    /// Reverses [`Self::pack`]; `None` for an empty entry.
    pub(super) const fn unpack(word: u32) -> Option<Self> {
        let index = word & (Self::INDEX_LIMIT - 1);
        match word >> 30 {
            0 => None,
            1 => Some(Self::Socket(index)),
            2 => Some(Self::Request(index)),
            _ => Some(Self::TimeWait(index)),
        }
    }
}

/// A four-tuple's place under the table's secret key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowHash(u64);

/// The table.
#[derive(Debug)]
pub struct FlowTable {
    key: HashKey,
    new: Slots,
    /// What a doubling has not moved yet; empty at other times.
    old: Slots,
    /// First entry of `old` that has not been moved.
    cursor: usize,
}

/// Entries of the old table looked at for each insertion. Two would do (a table of n entries takes
/// n / 2 insertions to fill again); sixteen end the time of two look-ups sooner.
const MOVED_PER_INSERTION: usize = 16;

impl FlowTable {
    /// A table that holds `flows` before it grows.
    pub fn new(key: HashKey, flows: usize) -> Self {
        let new = Slots::with_capacity((flows.max(8) * 2).next_power_of_two());
        Self { key, new, old: Slots::default(), cursor: 0 }
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.new.used + self.old.used
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash to give to [`Self::find`].
    pub fn hash(&self, tuple: &FourTuple) -> FlowHash {
        let (addrs, ports) = words(tuple);
        FlowHash(self.key.mix(addrs, u64::from(ports)))
    }

    /// What `tuple`, whose hash is `hash`, leads to.
    pub fn find(&self, hash: FlowHash, tuple: &FourTuple) -> Option<Target> {
        let (addrs, ports) = words(tuple);
        let target = match self.new.position(hash, addrs, ports) {
            Some(at) => self.new.entry(at).target(),
            None if self.old.used == 0 => return None,
            None => {
                let at = self.old.position(hash, addrs, ports)?;
                self.old.entry(at).target()
            }
        };
        Target::unpack(target)
    }

    /// Lets `tuple` lead to `target`, whatever it led to before.
    pub fn insert(&mut self, tuple: &FourTuple, target: Target) {
        let hash = self.hash(tuple);
        let (addrs, ports) = words(tuple);
        let entry = Entry::new(addrs, ports, target.pack());
        if let Some(at) = self.new.position(hash, addrs, ports) {
            self.new.words[at] = entry.0;
            return;
        }
        if let Some(at) = self.old.position(hash, addrs, ports) {
            self.old.words[at] = entry.0;
            return;
        }
        if 2 * (self.len() + 1) > self.new.len() {
            self.double();
        }
        self.new.put(hash, entry);
        self.move_some();
    }

    /// Forgets `tuple`; says what it led to.
    pub fn remove(&mut self, tuple: &FourTuple) -> Option<Target> {
        let hash = self.hash(tuple);
        let (addrs, ports) = words(tuple);
        for slots in [&mut self.new, &mut self.old] {
            if let Some(at) = slots.position(hash, addrs, ports) {
                let target = slots.entry(at).target();
                slots.take(self.key, at);
                return Target::unpack(target);
            }
        }
        None
    }

    /// Every flow, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (FourTuple, Target)> {
        let entries = self.new.words.iter().chain(&self.old.words).copied().map(Entry);
        entries.filter_map(|entry| Some((entry.tuple(), Target::unpack(entry.target())?)))
    }

    /// Starts a doubling, having finished the one before.
    fn double(&mut self) {
        while self.old.used > 0 {
            self.move_some();
        }
        let larger = Slots::with_capacity(2 * self.new.len());
        self.old = std::mem::replace(&mut self.new, larger);
        self.cursor = 0;
    }

    /// Moves the next few entries of a doubling. Each is deleted properly from the old table, so
    /// that probes there stay right at every moment.
    fn move_some(&mut self) {
        if self.old.used == 0 {
            return;
        }
        for _ in 0..MOVED_PER_INSERTION {
            let entry = self.old.entry(self.cursor);
            if entry.target() == 0 {
                self.cursor += 1;
            } else {
                self.old.take(self.key, self.cursor);
                self.new.put(entry.hash(self.key), entry);
            }
            if self.old.used == 0 {
                self.old = Slots::default();
                return;
            }
        }
    }
}

/// The tuple as two words to compare and hash.
fn words(tuple: &FourTuple) -> (u64, u32) {
    let addrs =
        u64::from(tuple.local_addr.to_bits()) << 32 | u64::from(tuple.remote_addr.to_bits());
    (addrs, u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port))
}

/// Addresses, then ports and target.
#[derive(Clone, Copy, Debug)]
struct Entry([u64; 2]);

impl Entry {
    fn new(addrs: u64, ports: u32, target: u32) -> Self {
        Self([addrs, u64::from(ports) << 32 | u64::from(target)])
    }

    fn target(self) -> u32 {
        self.0[1] as u32
    }

    fn is(self, addrs: u64, ports: u32) -> bool {
        self.0[0] == addrs && (self.0[1] >> 32) as u32 == ports
    }

    fn hash(self, key: HashKey) -> FlowHash {
        FlowHash(key.mix(self.0[0], self.0[1] >> 32))
    }

    fn tuple(self) -> FourTuple {
        FourTuple {
            local_addr: ((self.0[0] >> 32) as u32).into(),
            remote_addr: (self.0[0] as u32).into(),
            local_port: (self.0[1] >> 48) as u16,
            remote_port: (self.0[1] >> 32) as u16,
        }
    }
}

/// One array of entries; its length is a power of two, or nought.
#[derive(Debug, Default)]
struct Slots {
    /// [`Entry`]s as bare words, because the allocator hands out zero words without writing them: a
    /// doubling costs no page fault until its pages are used.
    words: Vec<[u64; 2]>,
    used: usize,
    /// The hash's top bits are the home place.
    shift: u32,
}

impl Slots {
    fn with_capacity(capacity: usize) -> Self {
        Self { words: vec![[0; 2]; capacity], used: 0, shift: 64 - capacity.trailing_zeros() }
    }

    fn len(&self) -> usize {
        self.words.len()
    }

    fn entry(&self, at: usize) -> Entry {
        Entry(self.words[at])
    }

    fn home(&self, hash: FlowHash) -> usize {
        (hash.0 >> self.shift) as usize
    }

    /// Where the entry stands. Ends at the first empty place; there always is one.
    fn position(&self, hash: FlowHash, addrs: u64, ports: u32) -> Option<usize> {
        let mask = self.len().checked_sub(1)?;
        let mut at = self.home(hash);
        loop {
            let entry = self.entry(at & mask);
            if entry.is(addrs, ports) && entry.target() != 0 {
                return Some(at & mask);
            }
            if entry.target() == 0 {
                return None;
            }
            at += 1;
        }
    }

    /// Stores an entry that is not there yet.
    fn put(&mut self, hash: FlowHash, entry: Entry) {
        let mask = self.len() - 1;
        let mut at = self.home(hash);
        while self.entry(at & mask).target() != 0 {
            at += 1;
        }
        self.words[at & mask] = entry.0;
        self.used += 1;
    }

    /// Deletes the entry at `hole` by shifting back those behind it that may move, so that no
    /// tombstones pile up under a flood of short connections.
    fn take(&mut self, key: HashKey, mut hole: usize) {
        let mask = self.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entry(at);
            if entry.target() == 0 {
                break;
            }
            let home = self.home(entry.hash(key));
            // It may move if its home does not lie behind the hole, going round.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.words[hole] = entry.0;
                hole = at;
            }
        }
        self.words[hole] = [0; 2];
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Few enough tuples that they meet again.
    fn tuple(n: u16) -> FourTuple {
        FourTuple {
            local_addr: [10, 0, 0, 1].into(),
            remote_addr: [192, 168, (n >> 8) as u8, n as u8].into(),
            local_port: 80,
            remote_port: n ^ 0x5555,
        }
    }

    fn target(n: u32) -> Target {
        match n % 3 {
            0 => Target::Socket(n),
            1 => Target::Request(n),
            _ => Target::TimeWait(n),
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16, u32),
        Remove(u16),
        Find(u16),
    }

    fn op(range: u16) -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..range, 0..1000u32).prop_map(|(n, t)| Op::Insert(n, t)),
            3 => (0..range).prop_map(Op::Remove),
            2 => (0..range).prop_map(Op::Find),
        ]
    }

    /// Runs `ops` on table and map; the keys may be bad, which makes long runs of entries.
    fn same_as_a_map(
        key: HashKey,
        tuple: impl Fn(u16) -> FourTuple,
        ops: &[Op],
    ) -> Result<(), TestCaseError> {
        let mut table = FlowTable::new(key, 8);
        let mut map = HashMap::new();
        for op in ops {
            match *op {
                Op::Insert(n, t) => {
                    table.insert(&tuple(n), target(t));
                    map.insert(n, target(t));
                }
                Op::Remove(n) => prop_assert_eq!(table.remove(&tuple(n)), map.remove(&n)),
                Op::Find(n) => {
                    let hash = table.hash(&tuple(n));
                    prop_assert_eq!(table.find(hash, &tuple(n)), map.get(&n).copied());
                }
            }
            prop_assert_eq!(table.len(), map.len());
        }
        for (&n, &t) in &map {
            prop_assert_eq!(table.find(table.hash(&tuple(n)), &tuple(n)), Some(t));
        }
        let listed: HashMap<_, _> = table.iter().collect();
        prop_assert_eq!(listed.len(), map.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(ops in proptest::collection::vec(op(300), 0..1500)) {
            same_as_a_map(HashKey::random(), tuple, &ops)?;
        }

        #[test]
        fn behaves_as_a_map_when_everything_collides(ops in proptest::collection::vec(op(40), 0..300)) {
            // Where the addresses equal the key, the first product is nought whatever the ports.
            let port = |n| FourTuple { remote_port: n, ..tuple(0) };
            same_as_a_map(HashKey::new([words(&tuple(0)).0, 0]), port, &ops)?;
        }
    }

    #[test]
    fn growing_keeps_every_flow_and_ends() {
        let mut table = FlowTable::new(HashKey::random(), 8);
        for n in 0..20_000 {
            table.insert(&tuple(n), Target::Socket(u32::from(n)));
            let early = tuple(n / 2);
            assert_eq!(
                table.find(table.hash(&early), &early),
                Some(Target::Socket(u32::from(n / 2)))
            );
        }
        assert_eq!(table.len(), 20_000);
        assert!(table.old.words.is_empty(), "20,000 is well behind the last doubling");
        for n in 0..20_000 {
            assert_eq!(table.remove(&tuple(n)), Some(Target::Socket(u32::from(n))));
        }
        assert!(table.is_empty() && table.new.words.iter().all(|words| *words == [0; 2]));
    }

    #[test]
    fn targets_survive_packing() {
        for t in (0..6).chain([Target::INDEX_LIMIT - 1]).map(target) {
            assert_eq!(Target::unpack(t.pack()), Some(t));
        }
        assert_eq!(Target::unpack(0), None);
    }
}
