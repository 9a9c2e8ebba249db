//! The timers of one lcore: a hierarchical wheel with one entry per socket, request or TIME-WAIT.
//!
//! The lcore's thread arms an entry when a deadline comes nearer and asks after each burst what is
//! due. Entries are lazy: a deadline that moves away leaves its entry where it is; the owner, woken
//! too early, compares with the deadline it keeps itself and arms again. So a deadline that is put
//! off with each segment costs nothing per segment, and nothing allocates once the entries exist.

use crate::time::Instant;

use super::flow::Target;

/// Nanoseconds of a tick, as a power of two: 65.5 µs, well below the shortest timer of the receive
/// side (SACK compression, at most 1 ms). A shift, because dividing by a million costs more.
const TICK_SHIFT: u32 = 16;

/// Places of a level, as a power of two: one bit each in a word.
const DIGIT_BITS: u32 = 6;

const PLACES: usize = 1 << DIGIT_BITS;

/// Eight digits hold every tick of a 64-bit nanosecond clock, so no deadline is too far away.
const LEVELS: usize = 8;

/// End of a list.
const NONE: u32 = u32::MAX;

/// Lists beside those of the levels.
const DUE: u16 = (LEVELS * PLACES) as u16;
const FALLING: u16 = DUE + 1;
const LISTS: usize = FALLING as usize + 1;
/// The list of an entry that is on none.
const UNARMED: u16 = FALLING + 1;

/// Names a wheel entry; its owner keeps it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timer(u32);

/// The wheel.
///
/// An entry stands on the level of the highest digit in which its tick differs from the wheel's. So
/// whatever is on a lower level is due before anything on a higher one, and finding the next entry
/// is finding the lowest set bit. When the wheel reaches a place of a higher level, its entries fall
/// to lower ones, a few per call.
#[derive(Debug)]
pub struct Wheel {
    entries: Vec<Entry>,
    /// First of the chain of free entries.
    free: u32,
    /// First entry of each list: the levels' places, what is due, what is falling.
    heads: [u32; LISTS],
    /// Which places of each level have entries.
    occupied: [u64; LEVELS],
    /// The wheel's tick: everything up to it is on the list of what is due, or falling.
    tick: u64,
    /// Nothing happens before this tick.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    tick: u64,
    prev: u32,
    next: u32,
    target: Target,
    list: u16,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            heads: [NONE; LISTS],
            occupied: [0; LEVELS],
            tick: 0,
            next: u64::MAX,
        }
    }
}

impl Wheel {
    /// Makes an entry for `target`, not armed.
    pub fn add(&mut self, target: Target) -> Timer {
        let entry = Entry { tick: u64::MAX, prev: NONE, next: NONE, target, list: UNARMED };
        if self.free == NONE {
            self.entries.push(entry);
            return Timer(self.entries.len() as u32 - 1);
        }
        let id = self.free;
        self.free = self.entries[id as usize].next;
        self.entries[id as usize] = entry;
        Timer(id)
    }

    /// Removes the entry; the name is void from now on.
    pub fn remove(&mut self, timer: Timer) {
        self.unlink(timer.0);
        self.entries[timer.0 as usize].next = self.free;
        self.free = timer.0;
    }

    /// Sees to it that the entry fires at `deadline` or before. Never moves it to a later time.
    pub fn arm(&mut self, timer: Timer, deadline: Instant) {
        let tick = tick_after(deadline);
        let entry = &self.entries[timer.0 as usize];
        if entry.list != UNARMED {
            if entry.tick <= tick {
                return;
            }
            self.unlink(timer.0);
        }
        self.entries[timer.0 as usize].tick = tick;
        self.place(timer.0);
    }

    /// Takes the next entry that is due at `now`; it is not armed any more. `budget` bounds how many
    /// entries may fall a level in this call and those that share it.
    pub fn pop(&mut self, now: Instant, budget: &mut u32) -> Option<Target> {
        let now = now.as_nanos() >> TICK_SHIFT;
        while now >= self.next {
            if let Some(id) = self.first(DUE) {
                self.unlink(id);
                return Some(self.entries[id as usize].target);
            }
            if let Some(id) = self.first(FALLING) {
                if *budget == 0 {
                    return None;
                }
                *budget -= 1;
                self.unlink(id);
                self.place(id);
                continue;
            }
            self.next = match self.earliest() {
                Some((level, place)) => {
                    let start = self.start(level, place);
                    if start <= now {
                        self.tick = start;
                        self.let_fall(level, place);
                    }
                    start
                }
                None => u64::MAX,
            };
        }
        self.tick = self.tick.max(now);
        None
    }

    /// When [`Self::pop`] should be called next: at the earliest deadline or somewhat before it.
    pub fn next_deadline(&self) -> Option<Instant> {
        let pending = self.heads[DUE as usize] != NONE || self.heads[FALLING as usize] != NONE;
        let tick = if pending {
            self.tick
        } else {
            let (level, place) = self.earliest()?;
            self.start(level, place)
        };
        Some(Instant::from_nanos(tick << TICK_SHIFT))
    }

    /// The lowest level's first place that has entries.
    fn earliest(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&places| places != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The first tick of a place: the wheel's digits above, the place's own, and noughts below.
    fn start(&self, level: usize, place: usize) -> u64 {
        let shift = level as u32 * DIGIT_BITS;
        let above = self.tick >> shift >> DIGIT_BITS << DIGIT_BITS;
        (above | place as u64) << shift
    }

    /// Puts an entry where its tick belongs.
    fn place(&mut self, id: u32) {
        let tick = self.entries[id as usize].tick;
        if tick <= self.tick {
            self.link(id, DUE);
            self.next = 0;
            return;
        }
        let level = (63 - (tick ^ self.tick).leading_zeros()) / DIGIT_BITS;
        let place = (tick >> (level * DIGIT_BITS)) as usize % PLACES;
        self.link(id, (level as usize * PLACES + place) as u16);
        self.occupied[level as usize] |= 1 << place;
        self.next = self.next.min(self.start(level as usize, place));
    }

    /// Makes the entries of a place, whose time has come, those that fall.
    fn let_fall(&mut self, level: usize, place: usize) {
        let list = level * PLACES + place;
        self.occupied[level] &= !(1 << place);
        // The list moves as a whole; each entry learns of it only when it is next in line, which
        // `unlink` allows for.
        let first = std::mem::replace(&mut self.heads[list], NONE);
        debug_assert_eq!(self.heads[FALLING as usize], NONE);
        self.heads[FALLING as usize] = first;
        self.entries[first as usize].list = FALLING;
    }

    fn first(&self, list: u16) -> Option<u32> {
        Some(self.heads[list as usize]).filter(|&id| id != NONE)
    }

    fn link(&mut self, id: u32, list: u16) {
        let next = std::mem::replace(&mut self.heads[list as usize], id);
        if next != NONE {
            self.entries[next as usize].prev = id;
        }
        let entry = &mut self.entries[id as usize];
        (entry.prev, entry.next, entry.list) = (NONE, next, list);
    }

    /// Takes an entry off its list, if it is on one. An entry that is not the first may still name
    /// the place from which its list fell; only the first one's name is used.
    fn unlink(&mut self, id: u32) {
        let Entry { prev, next, list, .. } = self.entries[id as usize];
        if list == UNARMED {
            return;
        }
        if prev != NONE {
            self.entries[prev as usize].next = next;
        } else {
            self.heads[list as usize] = next;
            let level = list as usize / PLACES;
            if next != NONE {
                self.entries[next as usize].list = list;
            } else if level < LEVELS {
                self.occupied[level] &= !(1 << (list as usize % PLACES));
            }
        }
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        self.entries[id as usize].list = UNARMED;
    }
}

/// The first tick that does not begin before `deadline`: nothing fires early.
fn tick_after(deadline: Instant) -> u64 {
    deadline.as_nanos().div_ceil(1 << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Add,
        Remove(usize),
        Arm(usize, u64),
        Advance(u64),
    }

    /// Spans of all magnitudes, so that every level is met.
    fn span() -> impl Strategy<Value = u64> {
        (0..44u32, 1..1000u64).prop_map(|(shift, n)| n << shift >> 4)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            1 => Just(Op::Add),
            1 => any::<prop::sample::Index>().prop_map(|i| Op::Remove(i.index(1 << 16))),
            6 => (any::<prop::sample::Index>(), span())
                .prop_map(|(i, ns)| Op::Arm(i.index(1 << 16), ns)),
            4 => span().prop_map(Op::Advance),
        ]
    }

    proptest! {
        #[test]
        fn fires_what_a_sorted_map_would(ops in proptest::collection::vec(op(), 1..400), budget in 1..5u32) {
            let mut wheel = Wheel::default();
            let mut now = Instant::from_millis(1_700_000_000);
            let mut timers: Vec<(Timer, u32)> = Vec::new();
            let mut armed: BTreeMap<u32, Instant> = BTreeMap::new();
            let mut named = 0;
            for op in ops {
                match op {
                    Op::Add => {
                        timers.push((wheel.add(Target::Socket(named)), named));
                        named += 1;
                    }
                    Op::Remove(_) | Op::Arm(..) if timers.is_empty() => {}
                    Op::Remove(i) => {
                        let (timer, name) = timers.swap_remove(i % timers.len());
                        wheel.remove(timer);
                        armed.remove(&name);
                    }
                    Op::Arm(i, ns) => {
                        let (timer, name) = timers[i % timers.len()];
                        let deadline = now + Duration::from_nanos(ns);
                        wheel.arm(timer, deadline);
                        let at = armed.entry(name).or_insert(deadline);
                        *at = deadline.min(*at);
                    }
                    Op::Advance(ns) => {
                        now = now + Duration::from_nanos(ns);
                        let mut fired = Vec::new();
                        loop {
                            let mut left = budget;
                            while let Some(Target::Socket(name)) = wheel.pop(now, &mut left) {
                                fired.push(name);
                            }
                            if left > 0 {
                                break;
                            }
                        }
                        let tick = now.as_nanos() >> TICK_SHIFT;
                        let due = |at: Instant| tick_after(at) <= tick;
                        fired.sort_unstable();
                        let expected: Vec<u32> =
                            armed.iter().filter(|(_, at)| due(**at)).map(|(name, _)| *name).collect();
                        prop_assert_eq!(fired, expected);
                        armed.retain(|_, at| !due(*at));
                    }
                }
                match (wheel.next_deadline(), armed.values().min()) {
                    (None, None) => {}
                    (Some(next), Some(&first)) => {
                        prop_assert!(next.as_nanos() >> TICK_SHIFT <= tick_after(first));
                    }
                    (next, first) => prop_assert!(false, "{next:?} but {first:?}"),
                }
            }
        }
    }

    /// Follows `next_deadline` like a virtual clock does; says when the timer fired.
    fn fires_at(wheel: &mut Wheel) -> Instant {
        for _ in 0..LEVELS + 1 {
            let now = wheel.next_deadline().expect("armed");
            if wheel.pop(now, &mut 100).is_some() {
                return now;
            }
        }
        panic!("the wheel should fall at most once per level");
    }

    #[test]
    fn a_virtual_clock_reaches_a_deadline_in_a_few_steps_and_never_early() {
        for ms in [1, 40, 200, 60_000, 86_400_000] {
            let mut wheel = Wheel::default();
            wheel.pop(Instant::from_millis(123_456), &mut 0);
            let timer = wheel.add(Target::TimeWait(0));
            let deadline = Instant::from_millis(123_456 + ms);
            wheel.arm(timer, deadline);
            let late = fires_at(&mut wheel).since(deadline);
            assert!(late < Duration::from_nanos(1 << TICK_SHIFT), "{ms} ms fired {late:?} late");
        }
    }

    #[test]
    fn a_deadline_put_off_does_not_move_the_entry() {
        let mut wheel = Wheel::default();
        let timer = wheel.add(Target::Request(7));
        wheel.arm(timer, Instant::from_millis(5));
        wheel.arm(timer, Instant::from_millis(50));
        let mut budget = 10;
        assert_eq!(wheel.pop(Instant::from_millis(4), &mut budget), None);
        assert_eq!(wheel.pop(Instant::from_millis(6), &mut budget), Some(Target::Request(7)));
        assert_eq!(wheel.pop(Instant::from_millis(60), &mut budget), None, "not armed any more");
        assert_eq!(wheel.next_deadline(), None);
    }
}
