//! The flow table of one lcore: which connection a segment belongs to.
//!
//! Open addressing with linear probing under a secret key; sixteen bytes an entry of IPv4, four to a
//! cache line, and forty of IPv6, which are a table of their own. The lcore's thread calls it for
//! each burst: hash all frames first, then find them all, so that the loads of a burst overlap. It
//! never stores sockets themselves and never runs TCP.
//!
//! The table doubles when half full, which keeps the expected probe near one and a half entries. A
//! doubling moves nothing at once: each later insertion moves a few entries over, because moving a
//! million in one go would stop the lcore for longer than an RX ring lasts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::frame::Ends;
use crate::wire::frame6::Ends6;
use crate::wire::{FourTuple, ipv6};

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
///
/// One for each family inside: the entries of IPv4, which are small, stay so.
#[derive(Debug)]
pub struct FlowTable {
    key: HashKey,
    v4: Table<2>,
    v6: Table<5>,
}

impl FlowTable {
    /// A table that holds `flows` of IPv4 before it grows; as many of IPv6 as come.
    pub fn new(key: HashKey, flows: usize) -> Self {
        Self { key, v4: Table::new(flows), v6: Table::new(0) }
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash to give to [`Self::find`].
    #[inline]
    pub fn hash(&self, flow: &Flow) -> FlowHash {
        match flow.0 {
            Words::V4(flow) => flow.hash(self.key),
            Words::V6(flow) => flow.hash(self.key),
            Words::Unknown => FlowHash::default(),
        }
    }

    /// What `flow`, whose hash is `hash`, leads to.
    #[inline]
    pub fn find(&self, hash: FlowHash, flow: &Flow) -> Option<Target> {
        match flow.0 {
            Words::V4(flow) => self.v4.find(hash, flow),
            Words::V6(flow) => self.v6.find(hash, flow),
            Words::Unknown => None,
        }
    }

    /// What `tuple` leads to.
    pub fn look_up(&self, tuple: &FourTuple) -> Option<Target> {
        let flow = Flow::of(tuple);
        self.find(self.hash(&flow), &flow)
    }

    /// Lets `tuple` lead to `target`, whatever it led to before.
    pub fn insert(&mut self, tuple: &FourTuple, target: Target) {
        match Flow::of(tuple).0 {
            Words::V4(flow) => self.v4.insert(self.key, flow.to(target)),
            Words::V6(flow) => self.v6.insert(self.key, flow.to(target)),
            Words::Unknown => {}
        }
    }

    /// Forgets `tuple`; says what it led to.
    pub fn remove(&mut self, tuple: &FourTuple) -> Option<Target> {
        match Flow::of(tuple).0 {
            Words::V4(flow) => self.v4.remove(self.key, flow),
            Words::V6(flow) => self.v6.remove(self.key, flow),
            Words::Unknown => None,
        }
    }

    /// Every flow, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (FourTuple, Target)> {
        let v4 = self.v4.iter().map(|entry| (entry.tuple(), entry.target()));
        let v6 = self.v6.iter().map(|entry| (entry.tuple(), entry.target()));
        v4.chain(v6).filter_map(|(tuple, target)| Some((tuple, Target::unpack(target)?)))
    }
}

/// The entries of one family, of `N` words each.
#[derive(Debug)]
struct Table<const N: usize> {
    new: Slots<N>,
    /// What a doubling has not moved yet; empty at other times.
    old: Slots<N>,
    /// First entry of `old` that has not been moved.
    cursor: usize,
}

/// Entries of the old table looked at for each insertion. Two would do (a table of n entries takes
/// n / 2 insertions to fill again); sixteen end the time of two look-ups sooner.
const MOVED_PER_INSERTION: usize = 16;

impl<const N: usize> Table<N> {
    fn new(flows: usize) -> Self {
        let new = Slots::with_capacity((flows.max(8) * 2).next_power_of_two());
        Self { new, old: Slots::default(), cursor: 0 }
    }

    fn len(&self) -> usize {
        self.new.used + self.old.used
    }

    #[inline]
    fn find(&self, hash: FlowHash, flow: Entry<N>) -> Option<Target> {
        let target = match self.new.position(hash, flow) {
            Some(at) => self.new.entry(at).target(),
            None if self.old.used == 0 => return None,
            None => {
                let at = self.old.position(hash, flow)?;
                self.old.entry(at).target()
            }
        };
        Target::unpack(target)
    }

    fn insert(&mut self, key: HashKey, entry: Entry<N>) {
        let hash = entry.hash(key);
        if let Some(at) = self.new.position(hash, entry) {
            self.new.words[at] = entry.0;
            return;
        }
        if let Some(at) = self.old.position(hash, entry) {
            self.old.words[at] = entry.0;
            return;
        }
        if 2 * (self.len() + 1) > self.new.len() {
            self.double(key);
        }
        self.new.put(hash, entry);
        self.move_some(key);
    }

    fn remove(&mut self, key: HashKey, flow: Entry<N>) -> Option<Target> {
        let hash = flow.hash(key);
        for slots in [&mut self.new, &mut self.old] {
            if let Some(at) = slots.position(hash, flow) {
                let target = slots.entry(at).target();
                slots.take(key, at);
                return Target::unpack(target);
            }
        }
        None
    }

    /// Every entry, those without a target included.
    fn iter(&self) -> impl Iterator<Item = Entry<N>> {
        self.new.words.iter().chain(&self.old.words).copied().map(Entry)
    }

    /// Starts a doubling, having finished the one before.
    fn double(&mut self, key: HashKey) {
        while self.old.used > 0 {
            self.move_some(key);
        }
        let larger = Slots::with_capacity(2 * self.new.len());
        self.old = std::mem::replace(&mut self.new, larger);
        self.cursor = 0;
    }

    /// Moves the next few entries of a doubling. Each is deleted properly from the old table, so
    /// that probes there stay right at every moment.
    fn move_some(&mut self, key: HashKey) {
        if self.old.used == 0 {
            return;
        }
        for _ in 0..MOVED_PER_INSERTION {
            let entry = self.old.entry(self.cursor);
            if entry.target() == 0 {
                self.cursor += 1;
            } else {
                self.old.take(key, self.cursor);
                self.new.put(entry.hash(key), entry);
            }
            if self.old.used == 0 {
                self.old = Slots::default();
                return;
            }
        }
    }
}

/// Addresses, then ports, the peer's before ours as they stand in its segments, and target: two
/// words for IPv4, five for IPv6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry<const N: usize>([u64; N]);

/// A four-tuple as the table has it: few words to compare and hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow(Words);

/// An entry without a target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Words {
    V4(Entry<2>),
    V6(Entry<5>),
    Unknown,
}

impl Flow {
    /// That of what is no segment, or has yet to be looked at. It leads nowhere.
    pub const UNKNOWN: Self = Self(Words::Unknown);

    /// The flow of a connection.
    pub fn of(tuple: &FourTuple) -> Self {
        let FourTuple { local_addr, remote_addr, local_port, remote_port } = *tuple;
        let ports = u32::from(remote_port) << 16 | u32::from(local_port);
        let (local, remote) = match (local_addr, remote_addr) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let addrs = u64::from(remote.to_bits()) << 32 | u64::from(local.to_bits());
                return Self::v4(addrs, ports);
            }
            // No connection is of both families. If one were, it would be found again.
            (local, remote) => (ipv6::or_mapped(local), ipv6::or_mapped(remote)),
        };
        let halves = |addr: Ipv6Addr| ((addr.to_bits() >> 64) as u64, addr.to_bits() as u64);
        let ((l0, l1), (r0, r1)) = (halves(local), halves(remote));
        Self(Words::V6(Entry([r0, r1, l0, l1, u64::from(ports) << 32])))
    }

    /// The flow of a segment that was received.
    #[inline(always)]
    pub fn of_ends(ends: Ends) -> Self {
        Self::v4(ends.addrs(), ends.ports())
    }

    /// The flow of a segment that was received over IPv6.
    #[inline]
    pub fn of_ends6(ends: &Ends6) -> Self {
        let [s0, s1, d0, d1] = ends.addrs;
        Self(Words::V6(Entry([s0, s1, d0, d1, u64::from(ends.ports) << 32])))
    }

    #[inline(always)]
    fn v4(addrs: u64, ports: u32) -> Self {
        Self(Words::V4(Entry([addrs, u64::from(ports) << 32])))
    }
}

impl<const N: usize> Entry<N> {
    fn to(mut self, target: Target) -> Self {
        self.0[N - 1] |= u64::from(target.pack());
        self
    }

    fn target(self) -> u32 {
        self.0[N - 1] as u32
    }

    /// The ports, local and remote.
    fn ports(self) -> (u16, u16) {
        ((self.0[N - 1] >> 32) as u16, (self.0[N - 1] >> 48) as u16)
    }

    /// Whether both are of the same flow, whatever it leads to.
    fn is(self, flow: Self) -> bool {
        self.0[..N - 1] == flow.0[..N - 1] && (self.0[N - 1] ^ flow.0[N - 1]) >> 32 == 0
    }

    fn hash(self, key: HashKey) -> FlowHash {
        let ports = self.0[N - 1] >> 32;
        let (first, more) = self.0[..N - 1].split_first().unwrap_or((&0, &[]));
        // A chain, so that no part can make up for another without the key.
        let addrs = more.iter().fold(*first, |so_far, word| key.mix(so_far, *word));
        FlowHash(key.mix(addrs, ports))
    }
}

impl Entry<2> {
    fn tuple(self) -> FourTuple {
        let (local_port, remote_port) = self.ports();
        FourTuple {
            local_addr: Ipv4Addr::from_bits(self.0[0] as u32).into(),
            remote_addr: Ipv4Addr::from_bits((self.0[0] >> 32) as u32).into(),
            local_port,
            remote_port,
        }
    }
}

impl Entry<5> {
    fn tuple(self) -> FourTuple {
        let (local_port, remote_port) = self.ports();
        let addr = |high: u64, low: u64| {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
        };
        let [r0, r1, l0, l1, _] = self.0;
        FourTuple { local_addr: addr(l0, l1), remote_addr: addr(r0, r1), local_port, remote_port }
    }
}

/// One array of entries; its length is a power of two, or nought.
#[derive(Debug)]
struct Slots<const N: usize> {
    /// [`Entry`]s as bare words, because the allocator hands out zero words without writing them: a
    /// doubling costs no page fault until its pages are used.
    words: Vec<[u64; N]>,
    used: usize,
    /// The hash's top bits are the home place.
    shift: u32,
}

impl<const N: usize> Default for Slots<N> {
    fn default() -> Self {
        Self { words: Vec::new(), used: 0, shift: 0 }
    }
}

impl<const N: usize> Slots<N> {
    fn with_capacity(capacity: usize) -> Self {
        Self { words: vec![[0; N]; capacity], used: 0, shift: 64 - capacity.trailing_zeros() }
    }

    fn len(&self) -> usize {
        self.words.len()
    }

    fn entry(&self, at: usize) -> Entry<N> {
        Entry(self.words[at])
    }

    fn home(&self, hash: FlowHash) -> usize {
        (hash.0 >> self.shift) as usize
    }

    /// Where the entry stands. Ends at the first empty place; there always is one.
    #[inline]
    fn position(&self, hash: FlowHash, flow: Entry<N>) -> Option<usize> {
        let mask = self.len().checked_sub(1)?;
        let mut at = self.home(hash);
        loop {
            let entry = self.entry(at & mask);
            if entry.is(flow) && entry.target() != 0 {
                return Some(at & mask);
            }
            if entry.target() == 0 {
                return None;
            }
            at += 1;
        }
    }

    /// Stores an entry that is not there yet.
    fn put(&mut self, hash: FlowHash, entry: Entry<N>) {
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
        self.words[hole] = [0; N];
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Few enough tuples that they meet again; every third is of IPv6.
    fn tuple(n: u16) -> FourTuple {
        let (local_addr, remote_addr): (IpAddr, IpAddr) = match n % 3 {
            0 => ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, n, 0, 0, 0, 0, n, 2].into()),
            _ => ([10, 0, 0, 1].into(), [192, 168, (n >> 8) as u8, n as u8].into()),
        };
        FourTuple { local_addr, remote_addr, local_port: 80, remote_port: n ^ 0x5555 }
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
                    prop_assert_eq!(table.look_up(&tuple(n)), map.get(&n).copied());
                }
            }
            prop_assert_eq!(table.len(), map.len());
        }
        for (&n, &t) in &map {
            prop_assert_eq!(table.look_up(&tuple(n)), Some(t));
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
            let port = |n| FourTuple { remote_port: n, ..tuple(1) };
            let Words::V4(Entry([addrs, _])) = Flow::of(&port(0)).0 else {
                return Err(TestCaseError::fail("it is of IPv4"));
            };
            same_as_a_map(HashKey::new([addrs, 0]), port, &ops)?;
        }
    }

    #[test]
    fn growing_keeps_every_flow_and_ends() {
        let mut table = FlowTable::new(HashKey::random(), 8);
        for n in 0..20_000 {
            table.insert(&tuple(n), Target::Socket(u32::from(n)));
            let early = tuple(n / 2);
            assert_eq!(table.look_up(&early), Some(Target::Socket(u32::from(n / 2))));
        }
        assert_eq!(table.len(), 20_000);
        assert!(table.v4.old.words.is_empty(), "two thirds are well behind the last doubling");
        assert!(table.v6.old.words.is_empty(), "and so is a third");
        for n in 0..20_000 {
            assert_eq!(table.remove(&tuple(n)), Some(Target::Socket(u32::from(n))));
        }
        assert!(table.is_empty());
        assert!(table.v4.new.words.iter().all(|words| *words == [0; 2]));
        assert!(table.v6.new.words.iter().all(|words| *words == [0; 5]));
    }

    #[test]
    fn every_bit_of_a_tuple_decides() {
        let key = HashKey::new([0x0123_4567_89ab_cdef, 0xfeed_face_cafe_beef]);
        let mut table = FlowTable::new(key, 8);
        let all: Vec<_> = (0..128)
            .flat_map(|bit| {
                let addr = IpAddr::V6(Ipv6Addr::from_bits(tuple_bits() ^ 1 << bit));
                [
                    FourTuple { local_addr: addr, ..tuple(0) },
                    FourTuple { remote_addr: addr, ..tuple(0) },
                ]
            })
            .chain((0..16).flat_map(|bit| {
                [
                    FourTuple { local_port: 80 ^ 1 << bit, ..tuple(0) },
                    FourTuple { remote_port: 80 ^ 1 << bit, ..tuple(0) },
                ]
            }))
            .collect();
        for (n, tuple) in (0..).zip(&all) {
            assert_eq!(table.look_up(tuple), None);
            table.insert(tuple, Target::Socket(n));
        }
        for (n, tuple) in (0..).zip(&all) {
            assert_eq!(table.look_up(tuple), Some(Target::Socket(n)));
        }
    }

    /// An address that is neither end of any tuple, nor one bit from it.
    fn tuple_bits() -> u128 {
        0x2001_0db8_0123_4567_89ab_cdef_0000_ffff
    }

    #[test]
    fn targets_survive_packing() {
        for t in (0..6).chain([Target::INDEX_LIMIT - 1]).map(target) {
            assert_eq!(Target::unpack(t.pack()), Some(t));
        }
        assert_eq!(Target::unpack(0), None);
    }
}
