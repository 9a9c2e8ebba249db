//! What is given back when the pool runs out: copied or pruned, never lost.

use super::harness::*;
use crate::buf::{HeapBuf, HeapSpare, PacketBuf};
use crate::tcp::Counter::*;
use crate::tcp::testing::World;

const TRUESIZE: u32 = (HeapBuf::ROOM + HeapBuf::OVERHEAD) as u32;
const PLENTY: HeapSpare = HeapSpare { small: 1000, large: 1000 };

/// A connection with a megabyte to receive into, and `n` unread segments of `len` bytes.
fn holding(n: u32, len: u32) -> Conn {
    let mut world = World::default();
    world.settings.tcp_rmem[1] = 1 << 20;
    let mut c = Conn::in_world(world, &opened());
    (0..n).for_each(|i| drop(c.on(data(1 + len * i, len))));
    assert_eq!(c.readable(), n * len);
    c
}

#[test]
fn what_is_acknowledged_is_copied_into_few_buffers_and_none_of_it_lost() {
    for (n, len, buffers) in [(100, 300, 2), (48, 1000, 3), (30, 257, 1)] {
        let mut c = holding(n, len);
        let mut spare = PLENTY;
        let before = c.tcb.rmem();
        let won = c.tcb.compact(&mut c.world.cx(), &mut spare, usize::MAX);
        assert_eq!((won.buffers, won.copied), (n, (n * len) as usize));
        assert_eq!(c.count(TCPRcvCollapsed), u64::from(n));
        assert_eq!((c.tcb.receive.len(), PLENTY.large - spare.large), (buffers, buffers as u32));
        assert_eq!(c.tcb.rmem(), before - won.truesize);
        c.on(data(1 + n * len, 100));
        c.read_all();
        assert_eq!((c.copied, c.tcb.rmem()), (1 + n * len + 100, 0));
    }
}

#[test]
fn one_small_segment_goes_to_a_small_buffer_and_a_full_one_stays() {
    let mut spare = PLENTY;
    let mut c = holding(1, 200);
    let won = c.tcb.compact(&mut c.world.cx(), &mut spare, usize::MAX);
    assert_eq!((won.buffers, PLENTY.small - spare.small), (1, 1));
    let mut c = holding(1, 1400);
    let won = c.tcb.compact(&mut c.world.cx(), &mut spare, usize::MAX);
    assert_eq!((won.buffers, c.tcb.rmem()), (0, TRUESIZE));
}

#[test]
fn what_was_copied_is_not_copied_again() {
    let mut c = holding(50, 300);
    let mut spare = PLENTY;
    c.tcb.compact(&mut c.world.cx(), &mut spare, usize::MAX);
    let again = c.tcb.compact(&mut c.world.cx(), &mut spare, usize::MAX);
    assert_eq!(again.copied, 0);
    // What has come since is put behind it.
    let next = 1 + 50 * 300;
    c.on(data(next, 300));
    let large = spare.large;
    let more = c.tcb.compact(&mut c.world.cx(), &mut spare, usize::MAX);
    assert_eq!((more.buffers, spare.large), (1, large));
}

#[test]
fn a_call_copies_no_more_than_it_may_and_a_buffers_worth() {
    let mut c = holding(200, 1000);
    let mut spare = PLENTY;
    let mut calls = 0;
    loop {
        let won = c.tcb.compact(&mut c.world.cx(), &mut spare, 20_000);
        if won.copied == 0 {
            break;
        }
        assert!(won.copied < 20_000 + HeapSpare::ROOMS[1]);
        calls += 1;
    }
    assert!((6..=10).contains(&calls), "{calls}");
    c.read_all();
    assert_eq!(c.copied, 200_001);
}

#[test]
fn without_spare_buffers_nothing_moves() {
    let mut c = holding(50, 300);
    let (rmem, len) = (c.tcb.rmem(), c.tcb.receive.len());
    let won = c.tcb.compact(&mut c.world.cx(), &mut HeapSpare::default(), usize::MAX);
    assert_eq!((won, c.tcb.rmem(), c.tcb.receive.len()), (Default::default(), rmem, len));
}

#[test]
fn the_end_of_the_stream_is_copied_too() {
    let mut c = holding(20, 300);
    c.on(data_fin(1 + 20 * 300, 300));
    let mut spare = PLENTY;
    c.tcb.compact(&mut c.world.cx(), &mut spare, usize::MAX);
    assert!(c.tcb.eof() && c.tcb.receive.back().unwrap().cb().fin);
    c.read_all();
    assert_eq!(c.copied, 1 + 21 * 300);
}

#[test]
fn what_waits_above_holes_is_pruned_by_the_eighth_from_above_and_its_report_forgotten() {
    let mut c = Conn::with_sack();
    c.on(data(1, 500));
    (0..20).for_each(|i| drop(c.on(data(2001 + 1000 * i, 500))));
    assert!(!c.tcb.sack.is_empty());
    let eighth = c.tcb.rcvbuf() / 8;
    let mut rounds = 0;
    while c.tcb.has_out_of_order() {
        let rmem = c.tcb.rmem();
        let won = c.tcb.prune(&mut c.world.cx());
        assert!(won.truesize >= eighth || !c.tcb.has_out_of_order());
        assert!(won.truesize < eighth + TRUESIZE);
        assert_eq!(c.tcb.rmem(), rmem - won.truesize);
        assert!(c.tcb.sack.is_empty());
        rounds += 1;
    }
    assert_eq!((c.count(OfoPruned), c.count(PruneCalled)), (rounds, rounds));
    assert_eq!((c.readable(), c.tcb.rmem()), (500, TRUESIZE), "what is acknowledged stays");
    // All of it comes again, and is predicted again behind the last segment whose window was taken.
    (0..45).for_each(|i| drop(c.on(data(501 + 500 * i, 500))));
    assert_eq!(c.count(TCPHPHits), 1 + 4);
}

#[test]
fn a_squeezed_connection_wakes_its_readers_until_memory_comes_back() {
    let mut c = holding(2, 1000);
    c.tcb.squeeze();
    assert!(c.tcb.is_squeezed());
    c.read_all();
    assert!(!c.tcb.is_squeezed());
}

#[test]
fn queues_are_told_without_walking_them() {
    let mut c = Conn::with_sack();
    c.ring.room = 2;
    (0..5).for_each(|i| drop(c.on(data(1 + 1000 * i, 1000))));
    c.on(data(9001, 100));
    let queues = c.tcb.queues(c.tcb.rcv_nxt().minus(5000));
    assert_eq!((queues.receive_queue, queues.out_of_order, queues.with_readers), (3, 1, 2000));
}
