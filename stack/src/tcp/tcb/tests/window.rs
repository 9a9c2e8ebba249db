//! What window is advertised.

use super::harness::Out::Ack;
use super::harness::*;
use crate::buf::HeapBuf;
use crate::tcp::Counter::*;
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{State, UNPREDICTABLE};
use crate::tcp::testing::World;

const TRUESIZE: u32 = (HeapBuf::ROOM + HeapBuf::OVERHEAD) as u32;

fn last_window(c: &Conn) -> u32 {
    u32::from(c.raw.last().unwrap().window)
}

fn with_rcvbuf(rcvbuf: u32, opened: &Opened) -> Conn {
    let mut world = World::default();
    world.settings.tcp_rmem[1] = rcvbuf;
    world.settings.tcp_moderate_rcvbuf = false;
    Conn::in_world(world, opened)
}

#[test]
fn an_unscaled_window_is_a_multiple_of_the_segment_size_or_all_that_16_bits_hold() {
    let mut c = Conn::new();
    for i in 0..30 {
        c.on(data(1 + 1460 * i, 1460));
        let window = last_window(&c);
        assert!(window.is_multiple_of(1460) || window == 65_535, "{window}");
    }
}

#[test]
fn a_scaled_window_is_sent_shifted_and_rounded_up() {
    let mut c = Conn::with_scale(7);
    c.on(data(1, 1460));
    let field = last_window(&c);
    assert_eq!(field << 7, c.tcb.offered_window());
    assert!(field << 7 >= W);
}

#[test]
fn the_window_never_shrinks_until_the_buffer_is_full() {
    for mut c in [Conn::new(), Conn::with_scale(4)] {
        let mut seq = 1;
        let mut edge = c.right_edge();
        while c.tcb.offered_window() >= 1460 {
            c.on(data(seq, 1460));
            seq += 1460;
            assert!(c.right_edge() >= edge, "{} < {edge}", c.right_edge());
            edge = c.right_edge();
        }
        assert_eq!(c.readable(), seq - 1);
        assert!(c.tcb.rmem() <= c.tcb.rcvbuf() + TRUESIZE);
    }
}

#[test]
fn a_full_buffer_closes_the_window_and_reading_opens_it_again() {
    let mut c = with_rcvbuf(20_000, &Opened { rcv_wnd: 8760, ..opened() });
    let mut seq = 1;
    while c.tcb.offered_window() > 0 {
        let len = c.tcb.offered_window().min(1460);
        c.on(data(seq, len));
        seq += len;
        c.wait(300);
    }
    assert_eq!(c.count(TCPToZeroWindowAdv), 1);
    assert_eq!(c.on(data(seq, 1)), [Ack(seq)]);
    assert_eq!((c.count(BeyondWindow), last_window(&c)), (1, 0));
    let notify = c.tcb.notify_at().expect("an update will be owed");
    assert!(notify.at_or_before(c.tcb.edge()));

    let mut updates = Vec::new();
    while updates.is_empty() {
        updates = c.read(500);
    }
    assert_eq!(updates, [Ack(seq)]);
    assert!(last_window(&c) >= 1460);
    assert_eq!(c.count(TCPFromZeroWindowAdv), 1);
    assert!(c.readable() > 0, "it is not waited until all is read");
    let hits = c.count(TCPHPHits);
    c.on(data(seq, 100));
    assert_eq!(c.count(TCPHPHits), hits + 1, "prediction is on again");
}

#[test]
fn no_update_is_sent_before_a_whole_buffer_is_free() {
    let mut c = with_rcvbuf(20_000, &Opened { rcv_wnd: 8760, ..opened() });
    let mut seq = 1;
    while c.tcb.offered_window() > 0 {
        let len = c.tcb.offered_window().min(1460);
        c.on(data(seq, len));
        seq += len;
        c.wait(300);
    }
    for _ in 0..14 {
        assert_eq!(c.read(100), []);
    }
    assert_eq!(c.tcb.offered_window(), 0);
}

#[test]
fn probes_of_a_closed_window_are_answered_each_time() {
    let mut c = Conn::with_sack();
    c.tcb.window.wnd = 0;
    c.tcb.window.rmem = c.tcb.window.rcvbuf;
    c.tcb.predict();
    for _ in 0..5 {
        assert_eq!(c.on(data(1, 1)), [Ack(1)]);
        assert_eq!(last_window(&c), 0);
    }
    // No challenge, which has a limit: what they acknowledge is not looked at.
    for _ in 0..2 {
        assert_eq!(c.on(data(1, 1).acking(9)), [Ack(1)]);
    }
    assert_eq!((c.count(BeyondWindow), c.count(TCPZeroWindowDrop)), (7, 0), "something is unread");
    c.tcb.window.rmem = 0;
    assert_eq!(c.on(data(1, 1)), [Ack(1)]);
    assert_eq!((c.count(BeyondWindow), c.count(TCPZeroWindowDrop)), (7, 1));
}

#[test]
fn a_bare_fin_and_a_rst_are_taken_at_window_zero() {
    let closed = || {
        let mut c = Conn::new();
        c.tcb.window.wnd = 0;
        c.tcb.window.rmem = c.tcb.window.rcvbuf;
        c.tcb.predict();
        c
    };
    let mut c = closed();
    c.on(fin(1));
    assert!(c.tcb.eof());
    let mut c = closed();
    c.on(data_fin(1, 1));
    assert!(!c.tcb.eof());
    let mut c = closed();
    c.on(rst(1));
    assert_eq!(c.state(), crate::tcp::tcb::State::Closed);
}

#[test]
fn a_fin_may_lie_behind_the_right_edge() {
    let mut c = Conn::of(&Opened { rcv_wnd: 1000, ..opened() });
    c.on(data_fin(1, 1000));
    assert_eq!((c.rcv_nxt(), c.tcb.eof(), c.count(BeyondWindow)), (1002, true, 0));
}

#[test]
fn an_overshooting_segment_is_taken_whole_only_while_nothing_is_unread() {
    let mut c = Conn::of(&Opened { rcv_wnd: 1000, ..opened() });
    c.on(data(1, 1400));
    assert_eq!((c.rcv_nxt(), c.count(BeyondWindow)), (1401, 0));
    assert_ne!(c.tcb.prediction, UNPREDICTABLE, "the ACK has offered more");

    let mut c = Conn::of(&Opened { rcv_wnd: 1000, ..opened() });
    c.on(data(1, 10));
    let edge = c.tcb.right_edge();
    let len = edge.since(c.tcb.rcv_nxt()) + 1;
    assert_eq!(c.on(data(11, len)), [Ack(11)]);
    assert_eq!((c.readable(), c.count(BeyondWindow), c.tcb.right_edge()), (10, 1, edge));
    c.read_all();
    c.on(data(11, len));
    assert_eq!(c.rcv_nxt(), 11 + len);
}

#[test]
fn what_has_no_room_has_an_ack_and_an_urgent_pointer_all_the_same() {
    let mut c = Conn::of(&Opened { rcv_wnd: 100, ..opened() });
    c.on(data(1, 10));
    c.tcb.shutdown_write(&mut c.world.cx());
    c.tcb.window.wnd = 0;
    c.tcb.predict();
    c.on(data(11, 1).acking(2).urgent(1));
    assert_eq!((c.state(), c.count(BeyondWindow)), (State::FinWait2, 1));
    assert!(c.tcb.urgent().is_some());
}

#[test]
fn data_above_a_hole_opens_the_limit_before_it_is_charged_and_duplicates_do_not() {
    let opened = Opened { rcv_wnd: 2920, sack_ok: true, ..opened() };
    let mut c = with_rcvbuf(8192, &opened);
    c.on(data(1001, 1448));
    let ratio = (1448 << 8) / TRUESIZE;
    assert_eq!(c.tcb.window.ssthresh, (8192 * ratio) >> 8, "all of the buffer");
    let mut c = with_rcvbuf(65_536, &opened);
    c.on(data(1001, 1448));
    let before = c.tcb.window.ssthresh;
    c.on(data(1101, 1000));
    assert_eq!(c.tcb.window.ssthresh, before);
    // What a larger one replaces is given up first.
    let mut c = with_rcvbuf(8192, &opened);
    c.on(data(1001, 1000));
    c.on(data(901, 1448));
    assert_eq!(c.tcb.window.ssthresh, (8192 * ratio) >> 8);
}

#[test]
fn a_segment_that_fills_its_buffer_as_the_last_one_leaves_the_limit() {
    let mut c = with_rcvbuf(65_536, &Opened { rcv_wnd: 32_120, ..opened() });
    for (seq, len) in [(1, 1460), (1461, 1000), (2461, 1000)] {
        c.on(data(seq, len));
    }
    c.tcb.window.ssthresh = 20_000;
    c.tcb.window.wnd = 30_000;
    c.tcb.ack.rcv_mss = 1000;
    let load =
        crate::tcp::tcb::ack::Load::of(1460, crate::wire::Flags::ACK, &payload(&data(1, 1460)));
    c.tcb.ack.measure(&mut c.tcb.window, load);
    assert_eq!((c.tcb.rcv_mss(), c.tcb.window.ssthresh), (1460, 20_000));
}

#[test]
fn the_window_opens_by_two_segments_for_each_well_filled_one() {
    let mut c = Conn::of(&Opened { rcv_wnd: 8760, ..opened() });
    let before = c.tcb.window.ssthresh;
    c.on(data(1, 1460));
    assert_eq!(c.tcb.window.ssthresh, before + 2 * 1460);
    c.on(data(1461, 100));
    assert_eq!(c.tcb.window.ssthresh, before + 2 * 1460, "small ones do not count");
}

#[test]
fn full_segments_show_how_much_of_a_buffer_they_fill() {
    let mut c = Conn::new();
    assert_eq!(c.tcb.window.clamp, 65_536 - 1460, "half of the buffer, less a segment");
    c.on(data(1, 1460));
    assert_eq!(c.tcb.rcv_mss(), 1460);
    let ratio = (1460 << 8) / TRUESIZE;
    let clamp = (u64::from(c.tcb.rcvbuf()) * u64::from(ratio)) >> 8;
    assert_eq!(u64::from(c.tcb.window.clamp), clamp);
}

#[test]
fn the_segment_size_falls_only_with_two_equal_segments_that_end_no_write() {
    let mut c = Conn::new();
    c.on(data(1, 1460));
    c.on(data(1461, 800));
    assert_eq!(c.tcb.rcv_mss(), 1460);
    c.on(data(2261, 700));
    assert_eq!(c.tcb.rcv_mss(), 1460);
    c.on(data(2961, 700));
    assert_eq!(c.tcb.rcv_mss(), 700);
    c.on(data(3661, 200).push());
    c.on(data(3861, 200).push());
    assert_eq!(c.tcb.rcv_mss(), 700);
    c.on(data(4061, 200));
    c.on(data(4261, 200));
    assert_eq!(c.tcb.rcv_mss(), 200);
}

#[test]
fn a_larger_buffer_opens_a_larger_window() {
    let mut c = with_rcvbuf(4 << 20, &Opened { scale: Conn::with_scale_of(7), ..opened() });
    let mut seq = 1;
    for _ in 0..2000 {
        c.on(data(seq, 1460));
        seq += 1460;
        c.read_all();
    }
    assert!(c.tcb.offered_window() > 2 << 20, "{}", c.tcb.offered_window());
}

/// A reader takes its time: what it has left is `rmem`.
fn target(rcvbuf: u32, rmem: u32, shift: u8, rcv_mss: u32) -> u32 {
    let mut c = with_rcvbuf(rcvbuf, &Opened { scale: Conn::with_scale_of(shift), ..opened() });
    c.tcb.window.ssthresh = u32::MAX;
    c.tcb.window.rmem = rmem;
    c.tcb.window.target(rcv_mss).window
}

#[test]
fn a_silly_window_is_not_offered() {
    // Half of truesize is payload: 100,000 bytes of buffer are a window of 50,000.
    assert_eq!(target(100_000, 0, 1, 1460), 50_000);
    assert_eq!(target(100_000, 93_000, 1, 1460), 3500);
    assert_eq!(target(100_000, 93_800, 1, 1460), 0, "less than a sixteenth");
    assert_eq!(target(20_000, 17_080, 1, 1460), 1460);
    assert_eq!(target(20_000, 17_084, 1, 1460), 0, "less than a segment");
    assert_eq!(target(2000, 0, 1, 1460), 1000, "the whole buffer is less than a segment");
}

#[test]
fn little_room_is_rounded_down_and_much_is_rounded_up() {
    assert_eq!(target(100_000, 70_001, 10, 1460), 14_336);
    assert_eq!(target(100_000, 10_000, 10, 1460), 45_056);
}

#[test]
fn low_memory_ends_quick_mode() {
    let mut c = Conn::new();
    c.on(data(1, 1460));
    assert!(c.tcb.ack.quick > 0);
    c.tcb.window.rmem += c.tcb.rcvbuf() / 4 * 3;
    c.on(data(1461, 1460));
    assert_eq!(c.tcb.ack.quick, 0);
}

#[test]
fn a_reset_tells_the_window_that_is_left_without_what_was_unread() {
    let mut c = with_rcvbuf(20_000, &Opened { rcv_wnd: 8760, snd_wnd: 2000, ..opened() });
    c.on(data(1, 1460));
    c.on(data(1461, 1448));
    let told = last_window(&c);
    c.close();
    let rst = c.raw.last().unwrap();
    assert!(rst.flags.has(crate::wire::Flags::RST));
    assert!(u32::from(rst.window) > told, "{} after {told}", rst.window);
}

#[test]
fn an_ack_that_would_not_move_the_edge_waits_for_the_reader() {
    let mut c = Conn::new();
    let mut seq = c.settle();
    c.on(data(seq, 1460));
    seq += 1460;
    c.wait(300);
    c.tcb.ack.quick = 0;
    // A third is taken by others: the window falls behind what was promised.
    c.tcb.window.rmem += c.tcb.rcvbuf() / 3;
    let two = [data(seq, 1460), data(seq + 1460, 1460)];
    assert_eq!(c.burst(&two), []);
    assert!(c.tcb.next_deadline().is_some());
    let held = c.tcb.rcvbuf() / 3;
    c.tcb.uncharge(held);
    assert_eq!(c.read(1), [Ack(seq + 2920)]);
}

#[test]
fn an_update_is_sent_when_the_window_can_double() {
    let update = |limit| {
        let mut c = Conn::with_scale(0);
        c.tcb.window.wnd = 10_000;
        c.tcb.window.ssthresh = limit;
        c.tcb.window.charge(100);
        c.tcb.uncharge(100);
        c.read(0).len()
    };
    assert_eq!(update(18_980), 0);
    assert_eq!(update(20_440), 1);
}

#[test]
fn an_update_is_due_up_to_a_segment_however_low_the_limit() {
    let scale = Some(Scale { snd: 2, rcv: 2 });
    let mut c = with_rcvbuf(40_000, &Opened { scale, ..opened() });
    assert_eq!(c.on(data(1, 1460)), [Ack(1461)]);
    // The limit was set for segments of next to no payload, and little is open.
    c.tcb.window.ssthresh = 100;
    c.tcb.window.wnd = 60;
    assert_eq!((c.tcb.rcv_mss(), c.tcb.offered_window()), (1460, 60));
    assert!(c.tcb.wants_memory());
    assert_eq!(c.read_all(), [Ack(1461)]);
    assert!(c.tcb.offered_window() >= 1460);
}

#[test]
fn a_window_that_was_tightened_for_small_segments_opens_for_larger_ones() {
    let mut world = World::default();
    world.settings.tcp_rmem[1] = 5000;
    world.settings.tcp_moderate_rcvbuf = false;
    let mut c = Conn::in_world(world, &Opened { rcv_wnd: 2500, ..opened() });
    // Three buffers of little payload are more than there may be.
    c.on(data(2, 537));
    c.on(data(540, 1));
    c.on(data(1, 1));
    // A buffer that is better filled: it fits as the one above the hole is given up.
    c.on(data(539, 1962));
    assert_eq!((c.rcv_nxt(), c.tcb.offered_window()), (2501, 0));
    assert_eq!(c.read_all(), [Ack(2501)]);
    assert!(c.tcb.offered_window() >= 1460);
}

#[test]
fn a_window_that_the_handshake_could_not_tell_is_told_by_the_first_ack() {
    let scale = Conn::with_scale_of(8);
    let whole = 270_000 - 270_000 % 1460;
    let mut c = with_rcvbuf(540_000, &Opened { rcv_wnd: whole, scale, ..opened() });
    assert_eq!(c.tcb.offered_window(), whole);
    assert_eq!(c.on(ack(100_001)), [], "inside of what was meant");
    c.on(data(1, 100));
    assert_eq!(last_window(&c), (270_000_u32 - 1460).div_ceil(256), "one segment is kept back");
}

#[test]
fn a_window_that_no_header_can_tell_is_open_all_the_same() {
    let mut c = with_rcvbuf(540_000, &Opened { rcv_wnd: 268_640, ..opened() });
    c.on(data(1, 1000));
    assert_eq!(last_window(&c), 65_535);
    assert_eq!(c.tcb.offered_window(), 267_640, "the edge stays");
    assert_eq!(c.on(rst(268_641)), [Ack(1001)], "at the edge, so challenged");
    assert_eq!(c.on(rst(268_642)), []);
}

#[test]
fn a_clamp_is_gone_when_buffers_are_found_to_be_filled_otherwise() {
    let mut c = Conn::new();
    c.on(data(1, 1460));
    let measured = c.tcb.window_clamp();
    c.tcb.set_window_clamp(5000);
    c.on(data(1461, 1460));
    assert_eq!(c.tcb.window_clamp(), 5000);
    let seg = data(2921, 1460);
    c.arrive(&seg, payload(&seg).with_room(3000));
    assert_eq!(c.tcb.window_clamp(), 5000, "no larger segment, nothing is measured");
    let seg = data(4381, 1461);
    c.arrive(&seg, payload(&seg).with_room(3000));
    let now = c.tcb.window_clamp();
    assert!(now != 5000 && now < measured, "{now}");
}

#[test]
fn segments_merged_by_the_device_count_by_the_size_they_were_sent_in() {
    let mut c = Conn::new();
    let seg = data(1, 10_000);
    c.arrive(&seg, payload(&seg).with_merged_from(1000));
    assert_eq!(c.tcb.rcv_mss(), 1000);
    let seg = data(20_001, 10_000);
    c.arrive(&seg, payload(&seg).with_merged_from(1200));
    assert_eq!(c.tcb.rcv_mss(), 1200);
}

#[test]
fn data_that_fills_half_of_the_buffer_is_acknowledged_when_it_is_read() {
    let mut c = with_rcvbuf(65_536, &Opened { rcv_wnd: 32_120, ..opened() });
    let seg = data(1, 30_000);
    c.arrive(&seg, payload(&seg).with_merged_from(1000).with_room(33_000));
    c.end_burst();
    assert_eq!((c.sent(), c.due_in()), (vec![], Some(40)), "not even in quick mode");
}

#[test]
fn a_scaled_window_shrinks_with_memory_if_it_may() {
    let fill = |may_shrink: bool, shift: u8| {
        let mut world = World::default();
        world.settings.tcp_rmem[1] = 40_000;
        world.settings.tcp_moderate_rcvbuf = false;
        world.settings.tcp_shrink_window = may_shrink;
        let scale = if shift == 0 { None } else { Conn::with_scale_of(shift) };
        let mut c = Conn::in_world(world, &Opened { rcv_wnd: 20_000, scale, ..opened() });
        // Small segments take more memory than the window has reckoned with.
        c.on(data(1, 1460));
        let edge = c.tcb.right_edge();
        for i in 0..14 {
            c.on(data(1461 + 700 * i, 700));
        }
        c.tcb.ack_now(&mut c.world.cx());
        (edge, c.tcb.right_edge())
    };
    let (before, after) = fill(true, 4);
    assert!(after.before(before), "{before:?} {after:?}");
    for (may_shrink, shift) in [(false, 4), (true, 0)] {
        let (before, after) = fill(may_shrink, shift);
        assert!(after.at_or_after(before), "{may_shrink} {shift}");
    }
}

/// The round trip that autotuning reckons with, in milliseconds.
fn round_trip(c: &Conn) -> u32 {
    c.tcb.info(c.world.now).tcpi_rcv_rtt / 1000
}

#[test]
fn the_round_trip_by_the_window_begins_with_the_first_data_in_sequence() {
    let mut c = Conn::with_sack();
    c.wait(50);
    // Above a hole first: it makes ACKs quick, as data does.
    c.on(data(1001, 1000));
    c.on(data(1, 1000));
    assert_eq!(round_trip(&c), 0);
    c.wait(50);
    c.on(data(2001, 1000));
    assert_eq!(round_trip(&c), 0, "far less than a window");
}

#[test]
fn a_longer_round_trip_by_timestamps_counts_if_nothing_was_unread_before() {
    for read in [true, false] {
        let mut c = Conn::with_ts(1000);
        let mut seq = 1;
        let mut echo = |c: &mut Conn, back: u32| {
            let ecr = c.tcb.ts.unwrap().val(c.world.now).wrapping_sub(back);
            let mut seg = data(seq, 1000).ts(1000);
            seg.ts.as_mut().unwrap().ecr = ecr;
            c.on(seg);
            seq += 1000;
        };
        echo(&mut c, 10);
        c.read(1000);
        echo(&mut c, 11);
        assert_eq!(round_trip(&c), 10);
        if read {
            c.read(1000);
        }
        echo(&mut c, 90);
        assert_eq!(round_trip(&c), if read { 20 } else { 10 }, "an eighth of the difference");
    }
}
