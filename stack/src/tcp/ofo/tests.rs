//! Tests of the out-of-order queue: the tables of the overlap rules row by row, a dumb twin under
//! random segments, and the count of steps under a hostile peer.

use super::*;
use crate::buf::HeapBuf;

/// `fill` for every byte of `[start, end)`.
fn segment(start: u32, end: u32, fill: u8) -> HeapBuf {
    let mut buf = HeapBuf::new(&vec![fill; end.wrapping_sub(start) as usize]);
    buf.cb_mut().seq = start;
    buf
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
