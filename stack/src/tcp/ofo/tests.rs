//! Tests of the out-of-order queue: the tables of the overlap rules row by row, a dumb twin under
//! random segments, and the count of steps under a hostile peer.

use super::segments::tests::take_steps;
use super::*;
use crate::buf::HeapBuf;

/// `fill` for every byte of `[start, end)`.
fn segment(start: u32, end: u32, fill: u8) -> HeapBuf {
    let mut buf = HeapBuf::new(&vec![fill; end.wrapping_sub(start) as usize]);
    buf.cb_mut().seq = start;
    buf
}

impl OutOfOrder<HeapBuf> {
    /// Takes one of the segments that `rcv_nxt` has reached.
    pub(super) fn pop_ready(&mut self, walk: &mut Walk, rcv_nxt: SeqNum) -> Option<HeapBuf> {
        let mut ready = None;
        self.drain_ready(walk, rcv_nxt, |buf| {
            ready = Some(buf);
            ControlFlow::Break(())
        });
        ready
    }
}

fn with_fin(mut buf: HeapBuf) -> HeapBuf {
    buf.cb_mut().fin = true;
    buf
}

fn range(start: u32, end: u32) -> SeqRange {
    SeqRange::new(SeqNum::new(start), SeqNum::new(end))
}

fn holding(segments: &[(u32, u32)]) -> OutOfOrder<HeapBuf> {
    let mut queue = OutOfOrder::new();
    for (start, end) in segments {
        assert_eq!(queue.insert(segment(*start, *end, b'o')).outcome, Outcome::Queued);
    }
    queue
}

/// What the reader gets once everything below `rcv_nxt` has arrived in order.
fn delivered(mut queue: OutOfOrder<HeapBuf>, rcv_nxt: u32) -> String {
    let mut walk = Walk::new(SeqNum::new(rcv_nxt), None);
    let mut rcv_nxt = SeqNum::new(rcv_nxt);
    let mut bytes = Vec::new();
    while let Some(buf) = queue.pop_ready(&mut walk, rcv_nxt) {
        assert_eq!(buf.cb().seq, rcv_nxt.raw());
        rcv_nxt = numbers_of(&buf).end;
        bytes.extend_from_slice(buf.data());
    }
    assert!(queue.is_empty());
    String::from_utf8(bytes).unwrap()
}

/// Delivered from 10 on, `o`ld `[10, 20)` stored first; what is missing below 10 comes in order.
#[track_caller]
fn old_then_new(start: u32, end: u32) -> String {
    let mut queue = holding(&[(10, 20)]);
    queue.insert(segment(start, end, b'n'));
    let from = start.min(10);
    delivered(queue, from).split_off((10 - from) as usize)
}

const N: &str = "nnnnnnnnnn";
const O: &str = "oooooooooo";

#[test]
fn an_arrival_that_starts_within_gives_way() {
    assert_eq!(old_then_new(15, 25), format!("{O}nnnnn"));
}

#[test]
fn an_arrival_that_ends_within_wins() {
    assert_eq!(old_then_new(5, 15), "nnnnnooooo");
}

#[test]
fn an_exact_copy_gives_way() {
    assert_eq!(old_then_new(10, 20), O);
}

#[test]
fn an_arrival_inside_gives_way() {
    assert_eq!(old_then_new(12, 18), O);
}

#[test]
fn an_arrival_with_the_same_start_wins_if_it_is_longer() {
    assert_eq!(old_then_new(10, 30), format!("{N}{N}"));
}

#[test]
fn an_arrival_around_wins() {
    assert_eq!(old_then_new(5, 30), format!("{N}{N}"));
}

#[test]
fn an_arrival_around_with_the_same_end_wins() {
    assert_eq!(old_then_new(5, 20), N);
}

#[test]
fn in_order_data_wins_over_the_part_it_covers() {
    assert_eq!(delivered(holding(&[(10, 20)]), 15), "ooooo");
}

#[test]
fn in_order_data_wins_over_all_it_covers() {
    let mut queue = holding(&[(10, 20)]);
    let mut walk = Walk::new(SeqNum::new(30), None);
    let freed = queue.truesize();
    assert!(queue.pop_ready(&mut walk, SeqNum::new(30)).is_none());
    assert_eq!((walk.freed, walk.dsack), (freed, Some(range(10, 20))));
    assert!(queue.is_empty());
}

#[test]
fn what_was_delivered_never_comes_again() {
    let mut queue = holding(&[(10, 20), (18, 28)]);
    let mut walk = Walk::new(SeqNum::new(12), None);
    let first = queue.pop_ready(&mut walk, SeqNum::new(12)).unwrap();
    assert_eq!((first.cb().seq, first.len()), (12, 8));
    let second = queue.pop_ready(&mut walk, SeqNum::new(20)).unwrap();
    assert_eq!((second.cb().seq, second.len()), (20, 8));
    // [18, 20) was reported when it was queued: it was above the rcv_nxt that began the walk.
    assert_eq!(walk.dsack, Some(range(10, 12)));
}

#[test]
fn a_fin_is_the_number_after_the_bytes() {
    let mut queue = holding(&[(10, 20)]);
    let inserted = queue.insert(with_fin(segment(20, 320, b'n')));
    assert_eq!((inserted.outcome, inserted.range), (Outcome::Queued, range(20, 321)));
    assert_eq!(queue.end(), Some(SeqNum::new(321)));
    // All bytes of the last segment came in order, its FIN did not.
    let mut walk = Walk::new(SeqNum::new(320), None);
    let fin = queue.pop_ready(&mut walk, SeqNum::new(320)).unwrap();
    assert!(fin.is_empty() && fin.cb().fin && fin.cb().seq == 320);
    assert_eq!(walk.dsack, Some(range(10, 320)));
}

#[test]
fn a_queue_that_was_never_needed_is_one_null_pointer_and_one_that_was_keeps_its_room() {
    assert_eq!(size_of::<OutOfOrder<Box<u64>>>(), size_of::<usize>());
    assert!(OutOfOrder::<HeapBuf>::new().0.is_none());
    let mut queue = holding(&[(10, 20), (30, 40)]);
    let room = std::ptr::from_ref(queue.0.as_deref().unwrap());
    for seq in [10, 30].map(SeqNum::new) {
        assert!(!queue.is_empty());
        queue.pop_ready(&mut Walk::new(seq, None), seq).unwrap();
    }
    assert!(queue.is_empty() && queue.truesize() == 0 && queue.end().is_none());
    queue.insert(segment(50, 60, b'n'));
    assert!(std::ptr::eq(room, queue.0.as_deref().unwrap()));
    assert_eq!((queue.len(), queue.end()), (1, Some(SeqNum::new(60))));
}

#[test]
fn a_run_ends_at_a_gap_an_overlap_and_a_fin_and_does_not_begin_with_a_small_segment() {
    let large = |start: u32| segment(start, start + 300, b'o');
    for other in [large(1001), large(999), with_fin(large(1000))] {
        let mut queue = OutOfOrder::new();
        for start in [100, 400, 700] {
            queue.insert(large(start));
        }
        let rest = other.truesize();
        queue.insert(other);
        let mut next = SeqNum::new(99);
        assert_eq!(queue.take_run(&mut next).count(), 0, "nothing begins there");
        next = SeqNum::new(100);
        let starts: Vec<_> = queue.take_run(&mut next).map(|buf| buf.cb().seq).collect();
        assert_eq!((starts, next), (vec![100, 400, 700], SeqNum::new(1000)));
        assert_eq!((queue.len(), queue.truesize()), (1, rest));
    }
    let mut small = holding(&[(100, 100 + COPY_LIMIT as u32)]);
    assert_eq!(small.take_run(&mut SeqNum::new(100)).count(), 0);
}

#[test]
fn a_small_segment_behind_the_last_is_copied_into_it() {
    let mut queue = holding(&[(10, 20)]);
    let before = queue.truesize();
    let inserted = queue.insert(segment(20, 20 + 256, b'n'));
    let expected = Inserted {
        outcome: Outcome::Merged,
        range: range(20, 276),
        dsack: None,
        freed: before,
        merged: 0,
    };
    assert_eq!(inserted, expected);
    assert_eq!((queue.len(), queue.truesize(), queue.end()), (1, before, Some(SeqNum::new(276))));
    assert_eq!(delivered(queue, 10), format!("{O}{}", "n".repeat(256)));
}

#[test]
fn a_larger_segment_behind_the_last_stays_apart() {
    let mut queue = holding(&[(10, 20)]);
    let inserted = queue.insert(segment(20, 20 + 257, b'n'));
    assert_eq!((inserted.outcome, inserted.freed, queue.len()), (Outcome::Queued, 0, 2));
}

#[test]
fn a_small_segment_that_finds_no_room_stays_apart() {
    let mut queue = holding(&[(10, 10 + HeapBuf::ROOM as u32)]);
    let inserted = queue.insert(segment(10 + HeapBuf::ROOM as u32, 2060, b'n'));
    assert_eq!((inserted.outcome, queue.len()), (Outcome::Queued, 2));
}

#[test]
fn nothing_is_copied_behind_a_fin() {
    let mut queue = OutOfOrder::new();
    queue.insert(with_fin(segment(10, 20, b'o')));
    assert_eq!(queue.insert(segment(21, 25, b'n')).outcome, Outcome::Queued);
    let mut walk = Walk::new(SeqNum::new(10), None);
    let last = queue.pop_ready(&mut walk, SeqNum::new(10)).unwrap();
    assert!(last.cb().fin && last.len() == 10);
    // The connection purges what the peer sent behind its FIN.
    assert!(queue.clear() > 0 && queue.is_empty());
}

#[test]
fn a_copied_segment_brings_its_fin() {
    let mut queue = holding(&[(10, 20)]);
    assert_eq!(queue.insert(with_fin(segment(20, 25, b'n'))).outcome, Outcome::Merged);
    assert_eq!(queue.insert(with_fin(segment(25, 25, b'n'))).outcome, Outcome::Duplicate);
    assert_eq!(queue.end(), Some(SeqNum::new(26)));
    let mut walk = Walk::new(SeqNum::new(10), None);
    let buf = queue.pop_ready(&mut walk, SeqNum::new(10)).unwrap();
    assert!(buf.cb().fin && buf.len() == 15);
}

#[test]
fn a_small_segment_joins_one_in_the_middle_and_drops_what_it_covers() {
    let mut queue = holding(&[(10, 20), (25, 28), (30, 40)]);
    let each = queue.truesize() / 3;
    let inserted = queue.insert(segment(20, 32, b'n'));
    // [25, 28) is the first duplicate; [30, 32) does not touch it and is not reported.
    let expected = Inserted {
        outcome: Outcome::Merged,
        range: range(20, 32),
        dsack: Some(range(25, 28)),
        freed: 2 * each,
        merged: 1,
    };
    assert_eq!(inserted, expected);
    assert_eq!(held(&queue), [range(10, 32), range(30, 40)]);
    assert_eq!(delivered(queue, 10), format!("{O}nnnnnnnnnnnnoooooooo"));
}

#[test]
fn what_lies_within_a_segment_is_a_duplicate() {
    for (start, end) in [(10, 20), (12, 18), (10, 15), (15, 20)] {
        let mut queue = holding(&[(10, 20), (30, 40)]);
        let each = queue.truesize() / 2;
        let expected = Inserted {
            outcome: Outcome::Duplicate,
            range: range(start, end),
            dsack: Some(range(start, end)),
            freed: each,
            merged: 1,
        };
        assert_eq!(queue.insert(segment(start, end, b'n')), expected);
        assert_eq!((queue.len(), queue.truesize()), (2, 2 * each));
    }
}

#[test]
fn what_starts_within_is_kept_beside() {
    let mut queue = holding(&[(10, 20)]);
    let inserted = queue.insert(segment(15, 25, b'n'));
    assert_eq!((inserted.dsack, inserted.merged, inserted.freed), (Some(range(15, 20)), 0, 0));
    assert_eq!(held(&queue), [range(10, 20), range(15, 25)]);
}

#[test]
fn a_longer_segment_with_the_same_start_replaces() {
    let mut queue = holding(&[(10, 20)]);
    let each = queue.truesize();
    let inserted = queue.insert(segment(10, 30, b'n'));
    assert_eq!((inserted.outcome, inserted.dsack), (Outcome::Queued, Some(range(10, 20))));
    assert_eq!((inserted.merged, inserted.freed, queue.truesize()), (1, each, each));
    assert_eq!(held(&queue), [range(10, 30)]);
}

#[test]
fn covered_followers_go_and_the_partly_covered_one_stays() {
    let mut queue = holding(&[(300, 310), (315, 320), (600, 610)]);
    let each = queue.truesize() / 3;
    queue.insert(segment(310, 315, b'o'));
    assert_eq!(held(&queue), [range(300, 315), range(315, 320), range(600, 610)]);
    let inserted = queue.insert(segment(290, 605, b'n'));
    // The duplicates [300, 315) and [315, 320) touch; [600, 605) does not.
    assert_eq!((inserted.outcome, inserted.dsack), (Outcome::Queued, Some(range(300, 320))));
    assert_eq!((inserted.merged, inserted.freed), (2, 2 * each));
    assert_eq!(held(&queue), [range(290, 605), range(600, 610)]);
    assert_eq!(queue.truesize(), 2 * each);
}

#[test]
fn a_follower_that_ends_together_goes() {
    let mut queue = holding(&[(10, 20)]);
    assert_eq!(queue.insert(segment(5, 20, b'n')).merged, 1);
    assert_eq!(held(&queue), [range(5, 20)]);
}

#[test]
fn a_segment_without_bytes_and_fin_is_dropped() {
    let mut queue = OutOfOrder::new();
    let inserted = queue.insert(segment(10, 10, b'n'));
    assert_eq!((inserted.outcome, inserted.dsack), (Outcome::Duplicate, None));
    assert!(inserted.freed > 0 && queue.is_empty());
}

#[test]
fn a_full_queue_takes_only_what_needs_no_place() {
    let all: Vec<_> = (0..MAX_SEGMENTS as u32).map(|n| (10 * n, 10 * n + 4)).collect();
    let mut queue = holding(&all);
    let truesize = queue.truesize();
    let each = truesize / MAX_SEGMENTS as u32;
    let full = queue.insert(segment(1006, 1012, b'n'));
    let expected = Inserted {
        outcome: Outcome::Full,
        range: range(1006, 1012),
        dsack: None,
        freed: each,
        merged: 0,
    };
    assert_eq!(full, expected);
    assert_eq!((queue.len(), queue.truesize()), (MAX_SEGMENTS, truesize));
    assert_eq!(queue.insert(segment(1004, 1006, b'n')).outcome, Outcome::Merged);
    assert_eq!(queue.insert(segment(1001, 1003, b'n')).outcome, Outcome::Duplicate);
    assert_eq!(queue.insert(segment(2000, 2008, b'n')).outcome, Outcome::Queued);
    assert_eq!(queue.insert(segment(1999, 2008, b'n')).outcome, Outcome::Queued);
    assert_eq!((queue.len(), queue.truesize()), (MAX_SEGMENTS, truesize));
    // It covers two and so makes room for itself.
    assert_eq!(queue.insert(segment(3006, 3024, b'n')).merged, 2);
    assert_eq!(queue.insert(segment(3006, 3008, b'n')).outcome, Outcome::Duplicate);
    assert_eq!(queue.len(), MAX_SEGMENTS - 1);
}

#[test]
fn pruning_starts_with_the_highest_and_spares_what_is_needed_first() {
    let mut queue = holding(&[(10, 20), (30, 40), (50, 60), (70, 80)]);
    let each = queue.truesize() / 4;
    let one = queue.prune(each, SeqNum::new(0));
    assert_eq!(one, Pruned { freed: each, segments: 1 });
    let at_least = queue.prune(1, SeqNum::new(0));
    assert_eq!(at_least, Pruned { freed: each, segments: 1 });
    assert_eq!(queue.prune(u32::MAX, SeqNum::new(30)), Pruned { freed: each, segments: 1 });
    assert_eq!(held(&queue), [range(10, 20)]);
    assert_eq!(queue.prune(u32::MAX, SeqNum::new(5)).segments, 1);
    assert_eq!(queue.prune(u32::MAX, SeqNum::new(5)), Pruned::default());
    assert!(queue.is_empty());
}

#[test]
fn a_walk_reports_what_was_held_below_its_begin_and_adds_to_what_was_noted() {
    let mut queue = holding(&[(10, 20), (30, 40), (50, 60)]);
    let each = queue.truesize() / 3;
    let mut walk = Walk::new(SeqNum::new(55), Some(range(5, 10)));
    let buf = queue.pop_ready(&mut walk, SeqNum::new(55)).unwrap();
    assert_eq!((buf.cb().seq, buf.len()), (55, 5));
    assert_eq!((walk.dsack, walk.freed), (Some(range(5, 20)), 2 * each));
}

/// One-byte segments at all odd offsets in random order, then at all even ones.
#[test]
fn a_hostile_peer_cannot_make_an_arrival_expensive() {
    const SEGMENTS: u32 = MAX_SEGMENTS as u32;
    let base = SeqNum::new(u32::MAX - SEGMENTS);
    let mut queue = OutOfOrder::new();
    let mut most = 0;
    let mut sum = 0;
    take_steps();
    for (first, outcome) in [(1, Outcome::Queued), (2, Outcome::Merged)] {
        for n in shuffled(SEGMENTS) {
            let seq = base.plus(first + 2 * n);
            let inserted = queue.insert(segment(seq.raw(), seq.plus(1).raw(), n as u8));
            assert_eq!((inserted.outcome, inserted.dsack), (outcome, None));
            let steps = take_steps();
            most = most.max(steps);
            sum += steps;
        }
    }
    assert_eq!(queue.len(), MAX_SEGMENTS);
    // Comparisons: two binary searches. Moves: half a chunk, and seldom a split, which moves half
    // a chunk more and part of the list.
    assert!(most <= 14 + 32 + 32 + 128, "{most} steps for one arrival");
    assert!(sum / (2 * MAX_SEGMENTS) <= 24, "{sum} steps in all");
}

#[test]
fn segments_that_come_from_above_fill_chunks_too() {
    let mut queue = holding(&(0..64).map(|n| (10 * n, 10 * n + 4)).collect::<Vec<_>>());
    queue.insert(segment(10_000, 10_001, b'o'));
    take_steps();
    for n in (100..1000).rev() {
        queue.insert(segment(10 * n, 10 * n + 4, b'o'));
        held(&queue);
    }
    assert!(take_steps() / 900 <= 12);
}

#[test]
fn removals_are_paid_by_what_they_remove() {
    let mut queue = OutOfOrder::new();
    take_steps();
    // Fill, then cover a stretch of a hundred with one segment, over and over at other places.
    let mut arrivals = 0;
    for round in 0..40 {
        for n in shuffled(2000) {
            queue.insert(segment(10 * n + round % 5, 10 * n + round % 5 + 3, b'o'));
            arrivals += 1;
        }
        for n in shuffled(18) {
            queue.insert(segment(1000 * n + 7 * round, 1000 * n + 7 * round + 1000, b'n'));
            arrivals += 1;
            held(&queue);
        }
    }
    let sum = take_steps();
    assert!(sum / arrivals <= 40, "{sum} steps for {arrivals} arrivals");
}

/// Tiny segments for ever, far more than fit: SegmentSmack. An eighth of the buffer is pruned at once,
/// so that the search for memory is paid by hundreds of arrivals, and the number of segments, and with
/// it that of holes, has its own cap where the buffer is huge.
#[test]
fn a_flood_of_tiny_segments_is_pruned_in_batches_at_few_steps_each() {
    let truesize = segment(0, 1, 0).truesize();
    for (rcvbuf, prunes) in [(131_072, true), (6 << 20, true), (64 << 20, false)] {
        let mut queue = OutOfOrder::new();
        let (mut pruned, mut batches, mut most, mut full) = (0, 0, 0, 0);
        take_steps();
        let mut sum = 0;
        const ARRIVALS: u32 = 50_000;
        for n in 0..ARRIVALS {
            // Every second number, so that nothing is ever adjacent: each is a hole of its own.
            let seq = 2 + 2 * (n.wrapping_mul(2_654_435_761) >> 15);
            if queue.truesize() > rcvbuf {
                let batch = queue.prune(rcvbuf / 8, SeqNum::new(1));
                assert!(batch.freed >= rcvbuf / 8, "a batch is an eighth");
                pruned += batch.segments as usize;
                batches += 1;
            }
            let inserted = queue.insert(segment(seq, seq + 1, b'x'));
            full += u32::from(inserted.outcome == Outcome::Full);
            let steps = take_steps();
            most = most.max(steps);
            sum += steps;
        }
        assert!(queue.len() <= MAX_SEGMENTS && queue.truesize() <= rcvbuf + truesize);
        assert_eq!((batches > 0, full > 0), (prunes, !prunes));
        assert!(pruned <= ARRIVALS as usize, "each removal is paid by an arrival");
        let per_batch = rcvbuf / 8 / truesize;
        assert!(batches <= ARRIVALS / per_batch.max(1), "{batches} batches");
        assert!((sum + pruned) / ARRIVALS as usize <= 40, "{sum} steps, {pruned} removals");
        let batch = per_batch as usize + 1;
        assert!(most <= 14 + 32 + 32 + 128 + batch, "{most} steps for one arrival");
    }
}

/// The numbers below `n` in an order that is the same every time.
fn shuffled(n: u32) -> Vec<u32> {
    let mut order: Vec<_> = (0..n).collect();
    let mut state = 1_u32;
    for i in (1..order.len()).rev() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        order.swap(i, (state >> 8) as usize % (i + 1));
    }
    order
}

/// The numbers of all segments, after a look at how they lie.
pub(super) fn held(queue: &OutOfOrder<HeapBuf>) -> Vec<SeqRange> {
    let ranges = queue.0.as_ref().map_or_else(Vec::new, |queue| queue.segments.checked_ranges());
    for pair in ranges.windows(2) {
        assert!(pair[0].start.before(pair[1].start) && pair[0].end.before(pair[1].end));
    }
    ranges
}
