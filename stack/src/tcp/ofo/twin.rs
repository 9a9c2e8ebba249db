//! A dumb twin of the out-of-order queue, and random segments to compare the two.
//!
//! The twin is an array with one mark per sequence number. Which copy of a number wins is decided
//! number by number; the duplicate to report is the first run of marks under a segment.

use proptest::prelude::*;

use super::*;
use crate::buf::HeapBuf;

/// Sequence numbers in play; offset 0 is the first rcv_nxt.
const SPACE: usize = 12_000;

/// What a number that is held stands for: a byte of the payload, or a FIN.
const FIN: u16 = 256;

#[derive(Clone, Copy, Debug)]
struct Mark {
    symbol: u16,
    owner: Held,
}

/// A segment by its offsets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Held {
    start: usize,
    end: usize,
    fin: bool,
}

#[derive(Debug)]
struct Twin {
    marks: Vec<Option<Mark>>,
    held: Vec<Held>,
    rcv_nxt: usize,
}

impl Twin {
    fn new() -> Self {
        Self { marks: vec![None; SPACE], held: Vec::new(), rcv_nxt: 0 }
    }

    fn insert(&mut self, new: Held, symbols: &[u16]) -> (Outcome, Option<(usize, usize)>, u32) {
        let dsack = self.first_run(new.start, new.end);
        if self.held.iter().any(|old| old.start <= new.start && new.end <= old.end) {
            return (Outcome::Duplicate, dsack, 1);
        }
        let len = new.end - new.start - usize::from(new.fin);
        let joined = self.held.iter().copied().find(|old| {
            let room = old.end - old.start + len <= HeapBuf::ROOM;
            let between = |other: &Held| old.start < other.start && other.start <= new.start;
            old.end == new.start
                && !old.fin
                && len <= COPY_LIMIT
                && room
                && !self.held.iter().any(between)
        });
        let owner = joined.map_or(new, |old| Held { start: old.start, ..new });
        self.held.retain(|old| Some(*old) != joined);
        for mark in self.marks.iter_mut().flatten().filter(|mark| Some(mark.owner) == joined) {
            mark.owner = owner;
        }
        let before = self.held.len();
        self.held.retain(|old| !(new.start <= old.start && old.end <= new.end));
        let covered = (before - self.held.len()) as u32;
        for (mark, symbol) in self.marks[new.start..new.end].iter_mut().zip(symbols) {
            // The smaller start wins, of equal starts the longer, of equals the older.
            let wins =
                mark.is_none_or(|old| (owner.start, old.owner.end) < (old.owner.start, owner.end));
            if wins {
                *mark = Some(Mark { symbol: *symbol, owner });
            }
        }
        self.held.push(owner);
        (if joined.is_some() { Outcome::Merged } else { Outcome::Queued }, dsack, covered)
    }

    /// Everything up to `edge` has come in order: what follows from there, and the duplicate.
    fn advance(&mut self, edge: usize) -> (Vec<u16>, Option<(usize, usize)>) {
        let dsack = self.first_run(self.rcv_nxt, edge);
        let mut symbols = Vec::new();
        self.rcv_nxt = edge;
        while let Some(mark) = self.marks[self.rcv_nxt] {
            symbols.push(mark.symbol);
            self.rcv_nxt += 1;
            if mark.symbol == FIN {
                self.held.clear();
                self.marks.fill(None);
            }
        }
        self.held.retain(|old| old.end > self.rcv_nxt);
        self.marks[..self.rcv_nxt].fill(None);
        (symbols, dsack)
    }

    fn prune(&mut self, at_least: u32, lowest: usize) -> u32 {
        self.held.sort_by_key(|old| old.start);
        let mut freed = 0;
        while freed < at_least
            && let Some(last) = self.held.pop_if(|last| last.start >= lowest)
        {
            freed += TRUESIZE;
            for mark in &mut self.marks[last.start..last.end] {
                if mark.is_some_and(|mark| mark.owner == last) {
                    *mark = None;
                }
            }
        }
        freed
    }

    fn first_run(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let first = (start..end).find(|n| self.marks[*n].is_some())?;
        let behind = (first..end).find(|n| self.marks[*n].is_none()).unwrap_or(end);
        Some((first, behind))
    }
}

const TRUESIZE: u32 = (HeapBuf::ROOM + HeapBuf::OVERHEAD) as u32;

#[derive(Clone, Debug)]
enum Op {
    /// A segment `gap` + 1 above rcv_nxt.
    Insert {
        gap: usize,
        len: usize,
        fin: bool,
    },
    /// In-order data of this length.
    Advance(usize),
    Prune {
        at_least: u32,
        above: usize,
    },
}

fn prune() -> impl Strategy<Value = Op> {
    (0..4 * TRUESIZE, 0..3000_usize).prop_map(|(at_least, above)| Op::Prune { at_least, above })
}

/// Anything, mostly close to rcv_nxt.
fn any_op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![
        8 => 1..40_usize,
        2 => 0..4_usize,
        1 => 250..262_usize,
        1 => 700..HeapBuf::ROOM,
    ];
    let fin = prop::bool::weighted(0.03);
    let gap = prop_oneof![3 => 0..120_usize, 2 => 0..1500_usize];
    let insert = (gap, len, fin).prop_map(|(gap, len, fin)| Op::Insert { gap, len, fin });
    prop_oneof![40 => insert, 3 => (1..60_usize).prop_map(Op::Advance), 1 => prune()]
}

/// Small segments far apart, so that there are several chunks of them, and a few that cover many.
fn scattered_op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![60 => 1..6_usize, 1 => 300..HeapBuf::ROOM];
    let insert = (0..9000_usize, len).prop_map(|(gap, len)| Op::Insert { gap, len, fin: false });
    prop_oneof![200 => insert, 2 => (1..400_usize).prop_map(Op::Advance), 1 => prune()]
}

/// Segments of a size or two that stand side by side, as those of a sender do.
fn side_by_side_op() -> impl Strategy<Value = Op> {
    let (place, length) = (0..12_usize, prop_oneof![5 => Just(1_usize), 1 => Just(2)]);
    let fin = prop::bool::weighted(0.01);
    let insert = (place, length, fin).prop_map(|(place, length, fin)| Op::Insert {
        gap: 300 * place + 299,
        len: 300 * length,
        fin,
    });
    let advance = prop_oneof![4 => Just(300_usize), 1 => 1..600_usize].prop_map(Op::Advance);
    prop_oneof![20 => insert, 4 => advance, 1 => prune()]
}

/// Where a connection's first number lies: the whole test is run across both wraps.
fn base() -> impl Strategy<Value = SeqNum> {
    let near = |edge: u32| (0..SPACE as u32).prop_map(move |n| SeqNum::new(edge.wrapping_sub(n)));
    prop_oneof![near(0), near(1 << 31), any::<u32>().prop_map(SeqNum::new)]
}

/// The twin, and what it is compared with.
struct Pair {
    twin: Twin,
    queue: OutOfOrder<HeapBuf>,
    base: SeqNum,
    /// Truesize of what was inserted and not yet dropped or taken.
    charged: u32,
    segments: u8,
}

impl Pair {
    fn seq(&self, offset: usize) -> SeqNum {
        self.base.plus(offset as u32)
    }

    fn range(&self, offsets: (usize, usize)) -> SeqRange {
        SeqRange::new(self.seq(offsets.0), self.seq(offsets.1))
    }

    fn insert(&mut self, start: usize, len: usize, fin: bool) {
        let end = start + len + usize::from(fin);
        if end >= SPACE || start == end {
            return;
        }
        // Every segment has bytes of its own, so that it shows whose copy won.
        self.segments = self.segments.wrapping_add(1);
        let bytes: Vec<u8> =
            (0..len).map(|n| self.segments.wrapping_mul(37).wrapping_add(n as u8)).collect();
        let symbols: Vec<u16> =
            bytes.iter().map(|byte| u16::from(*byte)).chain(fin.then_some(FIN)).collect();
        let mut buf = HeapBuf::new(&bytes);
        buf.cb_mut().seq = self.seq(start).raw();
        buf.cb_mut().fin = fin;
        self.charged += buf.truesize();

        let (outcome, dsack, merged) = self.twin.insert(Held { start, end, fin }, &symbols);
        let inserted = match self.queue.push(buf) {
            Ok(range) => Inserted::stored(range),
            Err(buf) => self.queue.insert(buf),
        };
        self.charged -= inserted.freed;
        let expected = Inserted {
            outcome,
            range: self.range((start, end)),
            dsack: dsack.map(|run| self.range(run)),
            freed: inserted.freed,
            merged,
        };
        assert_eq!(inserted, expected);
    }

    fn advance(&mut self, edge: usize) {
        let edge = edge.min(SPACE - 1);
        let (symbols, dsack) = self.twin.advance(edge);
        let mut rcv_nxt = self.seq(edge);
        let mut walk = Walk::new(rcv_nxt, None);
        let mut got = Vec::new();
        for buf in self.queue.take_run(&mut rcv_nxt) {
            assert_eq!(buf.cb().seq, self.base.plus((edge + got.len()) as u32).raw());
            self.charged -= buf.truesize();
            got.extend(buf.data().iter().map(|byte| u16::from(*byte)));
        }
        while let Some(buf) = self.queue.pop_ready(&mut walk, rcv_nxt) {
            assert_eq!(buf.cb().seq, rcv_nxt.raw());
            self.charged -= buf.truesize();
            rcv_nxt = numbers_of(&buf).end;
            got.extend(buf.data().iter().map(|byte| u16::from(*byte)));
            if buf.cb().fin {
                got.push(FIN);
                self.charged -= self.queue.clear();
            }
        }
        self.charged -= walk.freed;
        assert_eq!(got, symbols);
        assert_eq!(rcv_nxt, self.seq(self.twin.rcv_nxt));
        assert_eq!(walk.dsack, dsack.map(|run| self.range(run)));
    }

    fn prune(&mut self, at_least: u32, lowest: usize) {
        let expected = self.twin.prune(at_least, lowest);
        let pruned = self.queue.prune(at_least, self.seq(lowest));
        assert_eq!((pruned.freed, pruned.segments * TRUESIZE), (expected, expected));
        self.charged -= pruned.freed;
    }

    fn check(&mut self) {
        self.twin.held.sort_by_key(|held| held.start);
        let expected: Vec<_> =
            self.twin.held.iter().map(|held| self.range((held.start, held.end))).collect();
        let held = tests::held(&self.queue);
        assert_eq!(held, expected);
        assert!(held.iter().all(|range| range.start.after(self.seq(self.twin.rcv_nxt))));
        assert_eq!(self.queue.len(), held.len());
        assert_eq!(self.queue.is_empty(), held.is_empty());
        assert_eq!(self.queue.truesize(), TRUESIZE * held.len() as u32);
        assert_eq!(self.queue.truesize(), self.charged);
        assert_eq!(self.queue.end(), held.last().map(|last| last.end));
    }
}

fn compare(base: SeqNum, ops: Vec<Op>) {
    let mut pair =
        Pair { twin: Twin::new(), queue: OutOfOrder::new(), base, charged: 0, segments: 0 };
    for op in ops {
        let rcv_nxt = pair.twin.rcv_nxt;
        match op {
            Op::Insert { gap, len, fin } => pair.insert(rcv_nxt + 1 + gap, len, fin),
            Op::Advance(len) => pair.advance(rcv_nxt + len),
            Op::Prune { at_least, above } => pair.prune(at_least, rcv_nxt + above),
        }
        pair.check();
    }
    // The rest: every hole is filled by just as much as is missing.
    while let Some(first) = pair.twin.held.first() {
        pair.advance(first.start);
        pair.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn does_what_marks_on_an_array_do(
        base in base(),
        ops in prop::collection::vec(any_op(), 1..300),
    ) {
        compare(base, ops);
    }

    #[test]
    fn does_what_marks_do_with_segments_side_by_side(
        base in base(),
        ops in prop::collection::vec(side_by_side_op(), 1..80),
    ) {
        compare(base, ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn does_what_marks_do_with_hundreds_of_segments(
        base in base(),
        ops in prop::collection::vec(scattered_op(), 300..1200),
    ) {
        compare(base, ops);
    }
}
