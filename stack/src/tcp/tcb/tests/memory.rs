//! Charging, small segments, pruning, and what happens without memory.

use super::harness::Out::Ack;
use super::harness::*;
use crate::buf::{HeapBuf, PacketBuf};
use crate::tcp::Counter::*;
use crate::tcp::testing::World;

const TRUESIZE: u32 = (HeapBuf::ROOM + HeapBuf::OVERHEAD) as u32;

/// Buffers that are kept apart: more would be over a quarter of the receive buffer.
const APART: u32 = 131_072 / 4 / TRUESIZE + 1;

/// A connection whose reader is so far behind that small payloads are copied together from now on.
fn behind(len: u32) -> (Conn, u32) {
    let mut c = Conn::new();
    (0..APART).for_each(|i| drop(c.on(data(1 + len * i, len))));
    assert_eq!((c.tcb.rmem(), c.count(TCPRcvCoalesce)), (APART * TRUESIZE, 0));
    (c, 1 + len * APART)
}

#[test]
fn small_segments_share_a_buffer_when_the_reader_is_behind() {
    let (mut c, next) = behind(64);
    for i in 0..30 {
        c.on(data(next + 64 * i, 64));
    }
    assert_eq!((c.tcb.rmem(), c.count(TCPRcvCoalesce)), (APART * TRUESIZE, 30));
    c.read_all();
    assert_eq!((c.copied, c.tcb.rmem()), (next + 30 * 64, 0));
}

#[test]
fn a_thousand_unread_small_segments_fit_whether_there_is_a_ring_or_not() {
    for room in [0, 10, 10_000] {
        let mut c = Conn::new();
        c.ring.room = room;
        for i in 0..1000 {
            c.on(data(1 + 64 * i, 64));
        }
        assert_eq!((c.rcv_nxt(), c.readable()), (64_001, 64_000), "with room for {room}");
        assert!(c.tcb.rmem() < c.tcb.rcvbuf(), "with room for {room}");
        c.read_all();
        assert_eq!((c.copied, c.tcb.rmem()), (64_001, 0));
    }
}

#[test]
fn a_reader_that_keeps_up_is_spared_the_copy() {
    let mut c = Conn::new();
    for i in 0..100 {
        c.on(data(1 + 64 * i, 64));
        c.read_all();
    }
    assert_eq!((c.copied, c.count(TCPRcvCoalesce)), (6401, 0));
}

#[test]
fn segments_above_the_limit_of_copying_keep_their_buffers() {
    let (mut c, next) = behind(64);
    c.on(data(next, 256));
    assert_eq!(c.tcb.rmem(), APART * TRUESIZE);
    c.on(data(next + 256, 257));
    assert_eq!(c.tcb.rmem(), (APART + 1) * TRUESIZE);
}

#[test]
fn memory_of_out_of_order_data_is_charged_once_and_moves_with_it() {
    let mut c = Conn::with_sack();
    c.on(data(1001, 1000));
    c.on(data(3001, 1000));
    assert_eq!(c.tcb.rmem(), 2 * TRUESIZE);
    c.on(data(3001, 1000));
    assert_eq!(c.tcb.rmem(), 2 * TRUESIZE);
    c.on(data(1, 1000));
    assert_eq!((c.tcb.rmem(), c.readable()), (3 * TRUESIZE, 2000));
    c.read_all();
    assert_eq!(c.tcb.rmem(), TRUESIZE);
    c.on(data(2001, 1000));
    c.read_all();
    assert_eq!((c.tcb.rmem(), c.copied), (0, 4001));
}

#[test]
fn a_fin_above_a_hole_waits_for_it() {
    let mut c = Conn::with_sack();
    assert_eq!(c.on(fin(101)), [Out::Sack(1, vec![(101, 102)])]);
    assert!(!c.tcb.eof());
    c.on(data(1, 100));
    assert!(c.tcb.eof());
    assert_eq!((c.rcv_nxt(), c.readable(), c.tcb.rmem()), (102, 100, TRUESIZE));
}

#[test]
fn what_lies_behind_a_fin_is_thrown_away() {
    let mut c = Conn::with_sack();
    c.on(data(201, 100));
    c.on(data_fin(1, 50));
    assert_eq!((c.rcv_nxt(), c.tcb.eof(), c.tcb.rmem()), (52, true, TRUESIZE));
    assert_eq!(c.wait(40), [Ack(52)]);
}

/// Fills the connection beyond its limit with out-of-order segments that fill their buffers badly.
fn overfull() -> Conn {
    let mut c = Conn::with_sack();
    let mut seq = 10_001;
    while c.tcb.rmem() <= c.tcb.rcvbuf() {
        c.on(data(seq, 300));
        seq += 600;
    }
    c
}

#[test]
fn pruning_starts_at_the_highest_and_frees_an_eighth() {
    let mut c = overfull();
    let (rmem, segments) = (c.tcb.rmem(), c.tcb.ofo.len());
    c.on(data(5001, 300));
    assert_eq!((c.count(PruneCalled), c.count(OfoPruned), c.count(TCPOFODrop)), (1, 1, 0));
    assert!(rmem - c.tcb.rmem() >= c.tcb.rcvbuf() / 8 - TRUESIZE);
    assert!(c.tcb.ofo.len() < segments);
    assert_eq!(c.tcb.sack.ranges().len(), 1, "what was dropped is not reported");
    assert_eq!(c.held(), c.tcb.rmem());
}

#[test]
fn nothing_below_the_arriving_segment_is_pruned_for_it() {
    let mut c = overfull();
    let segments = c.tcb.ofo.len();
    assert_eq!(c.on(data(60_001, 300)), []);
    assert_eq!((c.count(TCPOFODrop), c.count(RcvPruned)), (1, 1));
    assert_eq!(c.tcb.ofo.len(), segments);
}

#[test]
fn in_order_data_prunes_what_is_out_of_order() {
    let mut c = overfull();
    c.on(data(1, 300));
    assert_eq!((c.readable(), c.count(OfoPruned)), (300, 1));
}

#[test]
fn without_memory_data_in_order_is_dropped_and_the_window_closed() {
    let mut c = Conn::new();
    // Full segments make it believe that buffers are well filled; these are not.
    c.on(data(1, 1460));
    let mut seq = 1461;
    while c.tcb.rmem() <= c.tcb.rcvbuf() {
        c.on(data(seq, 400));
        seq += 400;
    }
    let copied = (HeapBuf::ROOM - 400) as u32 / 400;
    for _ in 0..copied {
        c.on(data(seq, 400));
        seq += 400;
    }
    assert_eq!(c.count(TCPRcvCoalesce), u64::from(copied), "the last buffer has room");
    assert_eq!((c.count(TCPRcvQDrop), c.readable()), (0, seq - 1));
    assert!(c.tcb.offered_window() > 1000);

    assert_eq!(c.on(data(seq, 400)), [Ack(seq)]);
    assert_eq!((c.raw.last().unwrap().window, c.count(TCPRcvQDrop)), (0, 1));
    assert_eq!(c.on(data(seq, 400)), [Ack(seq)]);
    assert_eq!(c.count(BeyondWindow), 1);
    assert_eq!(c.read_all(), [Ack(seq)]);
    assert!(c.raw.last().unwrap().window > 0);
    assert_eq!(c.on(data(seq, 400)), [Ack(seq + 400)]);
}

#[test]
fn out_of_order_data_alone_never_keeps_data_in_order_out() {
    let mut world = World::default();
    world.settings.tcp_rmem[1] = 2000;
    world.settings.tcp_moderate_rcvbuf = false;
    let mut c = Conn::in_world(world, &opened());
    c.on(data(2001, 1000));
    assert!(c.tcb.rmem() > c.tcb.rcvbuf());
    c.on(data(1, 1000));
    assert_eq!((c.readable(), c.tcb.ofo.len(), c.count(TCPRcvQDrop)), (1000, 0, 0));
}

#[test]
fn buffers_in_the_hands_of_readers_count() {
    let mut c = Conn::new();
    c.ring.room = 1000;
    c.on(data(1, 1000));
    assert_eq!(c.tcb.rmem(), TRUESIZE);
    let buf = c.ring.bufs.pop_front().unwrap();
    c.tcb.uncharge(buf.truesize());
    assert_eq!(c.tcb.rmem(), 0);
}

#[test]
fn seven_eighths_are_told() {
    let mut c = Conn::new();
    let mut seq = 1;
    while c.tcb.rmem() <= c.tcb.rcvbuf() / 8 * 7 {
        assert!(!c.tcb.over_seven_eighths());
        c.on(data(seq, 1000));
        seq += 1000;
    }
    assert!(c.tcb.over_seven_eighths());
}

#[test]
fn a_flood_of_tiny_segments_stays_within_the_buffer() {
    let mut c = Conn::with_sack();
    for i in 0..20_000_u32 {
        let seq = 2 + (i * 7919) % (W - 10);
        c.arrive(&data(seq, 1), payload(&data(seq, 1)));
        assert!(c.tcb.rmem() <= c.tcb.rcvbuf() + TRUESIZE);
    }
    assert_eq!(c.held(), c.tcb.rmem());
}

#[test]
fn the_control_block_says_where_the_bytes_belong() {
    let mut c = Conn::new();
    c.on(data(1, 1000));
    c.on(data_fin(501, 1000));
    let cb: Vec<_> = c.tcb.take_receive_queue().iter().map(|b| (b.cb().seq, b.cb().fin)).collect();
    assert_eq!(cb, [(IRS.wrapping_add(1), false), (IRS.wrapping_add(1001), true)]);
}
