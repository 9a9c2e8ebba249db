//! When ACKs are sent: quick mode, delay, compression, duplicates.

use std::time::Duration;

use super::harness::Out::{Ack, Sack};
use super::harness::*;
use crate::tcp::Counter::*;
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::testing::World;

#[test]
fn the_first_sixteen_segments_are_acknowledged_at_once_the_next_is_delayed() {
    let mut c = Conn::new();
    for i in 0..16 {
        assert_eq!(c.on(data(1 + 100 * i, 100)), [Ack(101 + 100 * i)]);
    }
    assert_eq!(c.on(data(1601, 100)), []);
    assert_eq!(c.due_in(), Some(40));
    assert_eq!(c.wait(39), []);
    assert_eq!(c.wait(1), [Ack(1701)]);
    // The timer has doubled the delay to 80 ms, the gap of 43 ms makes it 40 + 43.
    c.wait(3);
    assert_eq!(c.on(data(1701, 100)), []);
    assert_eq!(c.due_in(), Some(83));
    assert_eq!(c.count(DelayedACKs), 1);
}

#[test]
fn quick_mode_is_worth_the_window() {
    // 4000 / (2 * 536) = 3.
    let mut c = Conn::of(&Opened { rcv_wnd: 4000, snd_wnd: 2000, ..opened() });
    for i in 0..3 {
        assert_eq!(c.on(data(1 + i, 1)).len(), 1);
    }
    assert_eq!(c.on(data(4, 1)), []);
}

#[test]
fn segments_are_taken_to_be_no_larger_than_half_of_the_peers_window() {
    for (snd_wnd, shift, rcv_mss) in [
        (1000, 0, 500),
        (1072, 0, 536),
        (536, 0, 536),
        (500, 0, 500),
        (60, 0, 88),
        (0, 0, 536),
        (63, 4, 504),
    ] {
        let scale = Some(Scale { rcv: 0, snd: shift });
        let c = Conn::of(&Opened { snd_wnd, scale, ..opened() });
        assert_eq!(c.tcb.rcv_mss(), rcv_mss, "a window of {snd_wnd} << {shift}");
    }
}

#[test]
fn data_out_of_the_window_spends_none_of_the_quick_acks() {
    // 1460 / (2 * 536) = 1.
    let small = Opened { rcv_wnd: 1460, snd_wnd: 2000, ..opened() };
    let mut c = Conn::of(&small);
    assert_eq!(c.on(data(0_u32.wrapping_sub(200), 100)), [Ack(1)]);
    assert_eq!(c.on(data(1, 100)), [Ack(101)]);
    assert_eq!(c.on(data(101, 100)), []);
    // But at the edge it is looked at as data.
    let mut c = Conn::of(&small);
    assert_eq!(c.on(data(1461, 100)), [Ack(1)]);
    assert_eq!(c.on(data(1, 100)), []);
}

#[test]
fn a_connection_just_opened_has_not_paused() {
    let mut c = Conn::of(&Opened { rcv_wnd: 1460, snd_wnd: 2000, ..opened() });
    c.on(data(1461, 100));
    assert_eq!(c.tcb.ack.quick, 0);
    c.wait(10);
    assert_eq!(c.on(data(1, 100)), [], "no new quick mode: nothing was missed in 10 ms");
}

#[test]
fn a_duplicate_whose_ack_was_put_off_is_not_reported_behind_newer_data() {
    let mut c = Conn::with_sack();
    let seq = c.settle();
    assert_eq!(c.on(data(seq - 2, 100)), [], "delayed");
    assert_eq!(c.on(data(seq + 98, 2000)), [Ack(seq + 2098)]);
    // Nothing newer has come: the delayed ACK reports it.
    let mut c = Conn::with_sack();
    let seq = c.settle();
    assert_eq!(c.on(data(seq - 2, 100)), []);
    assert_eq!(c.wait(300), [Sack(seq + 98, vec![(seq - 2, seq)])]);
    // A duplicate itself is newer, too.
    let mut c = Conn::with_sack();
    let seq = c.settle();
    c.on(data(seq - 2, 100));
    assert_eq!(c.on(data(1, 10)), [Sack(seq + 98, vec![(1, 11)])]);
    // Above a hole.
    let mut c = Conn::with_sack();
    let seq = c.settle();
    c.on(data(seq - 2, 100));
    assert_eq!(c.on(data(seq + 500, 100)), [Sack(seq + 98, vec![(seq + 500, seq + 600)])]);
}

#[test]
fn a_third_range_sends_what_was_held_back_and_is_held_back_itself() {
    let mut c = Conn::with_sack();
    let seq = c.settle();
    let at = |n: u32| seq + 1000 * n;
    for (start, sent) in [(at(2), 1), (at(4), 1), (at(4) + 100, 1), (at(4) + 200, 0)] {
        assert_eq!(c.on(data(start, 100)).len(), sent);
    }
    let two = vec![(at(4), at(4) + 300), (at(2), at(2) + 100)];
    assert_eq!(c.on(data(at(6), 100)), [Sack(seq, two)]);
    let three = vec![(at(6), at(6) + 100), (at(4), at(4) + 300), (at(2), at(2) + 100)];
    assert_eq!(c.wait(1), [Sack(seq, three)]);
}

#[test]
fn a_burst_gets_one_ack() {
    let mut c = Conn::new();
    let segs: Vec<_> = (0..20).map(|i| data(1 + 1460 * i, 1460)).collect();
    assert_eq!(c.burst(&segs), [Ack(29_201)]);
}

#[test]
fn every_second_full_segment_is_acknowledged() {
    let mut c = Conn::new();
    let mut seq = c.settle();
    // Teach it the segment size, and use up what quick ACKs the growing window brings.
    for _ in 0..40 {
        c.on(data(seq, 1460));
        seq += 1460;
        c.read_all();
    }
    c.wait(300);
    c.read_all();
    c.tcb.ack.quick = 0;
    let mut acks = Vec::new();
    for _ in 0..10 {
        let arrival = c.on(data(seq, 1460)).len();
        // What is unread holds a window down that is fully open, and the ACK waits for the reader.
        acks.push(arrival + c.read_all().len());
        seq += 1460;
    }
    // The first ones find the window still opening.
    let steady = &acks[2..];
    assert!(steady == [0, 1].repeat(4) || steady == [1, 0].repeat(4), "{acks:?}");
}

#[test]
fn a_timer_that_is_about_to_fire_is_not_waited_for() {
    let mut c = Conn::new();
    let seq = c.settle();
    assert_eq!(c.on(data(seq, 10)), []);
    let left = c.due_in().unwrap();
    c.wait(left - 5);
    assert_eq!(c.on(data(seq + 10, 10)), [Ack(seq + 20)]);
}

#[test]
fn an_earlier_deadline_is_kept() {
    let mut c = Conn::new();
    let seq = c.settle();
    c.tcb.ack.enter_quick(&c.tcb.window);
    c.tcb.ack.settle();
    c.tcb.ack.quick = 0;
    assert_eq!(c.on(data(seq, 10)), []);
    assert_eq!(c.due_in(), Some(40));
    // The gap stretches the delay to 20 + 25, which would end later.
    c.wait(25);
    assert_eq!(c.on(data(seq + 10, 10)), []);
    assert_eq!(c.due_in(), Some(15));
}

#[test]
fn a_delay_is_cut_to_the_round_trip_time_but_not_below_the_least() {
    let delay = |rtt| {
        let mut c = Conn::of(&Opened { synack_rtt: rtt, ..opened() });
        let seq = c.settle();
        c.on(data(seq, 10));
        c.tcb.ack.quick = 0;
        // Gaps of 100 ms stretch the adaptive delay up to them.
        let mut at = seq + 10;
        for _ in 0..6 {
            c.on(data(at, 10));
            c.wait(100);
            at += 10;
        }
        c.on(data(at, 10));
        c.due_in().unwrap()
    };
    assert!(delay(None) > 60);
    assert_eq!(delay(Some(Duration::from_millis(1))), 40);
    assert_eq!(delay(Some(Duration::from_millis(60))), 60);
}

#[test]
fn no_delay_reaches_two_hundred_milliseconds() {
    let mut c = Conn::new();
    let mut seq = c.settle();
    for gap in [150, 180, 199, 300, 400, 900, 900, 900] {
        c.on(data(seq, 10));
        assert!(c.due_in().is_none_or(|ms| ms <= 199));
        seq += 10;
        c.wait(gap);
    }
}

#[test]
fn a_pause_beyond_the_retransmission_timeout_brings_quick_mode_back() {
    let mut c = Conn::new();
    let seq = c.settle();
    assert_eq!(c.on(data(seq, 10)), []);
    c.wait(3001);
    assert_eq!(c.on(data(seq + 10, 10)), [Ack(seq + 20)]);
}

#[test]
fn duplicates_bring_quick_mode_back() {
    let mut c = Conn::new();
    let seq = c.settle();
    assert_eq!(c.on(data(1, 10)), [Ack(seq)]);
    assert_eq!(c.on(data(seq, 10)), [Ack(seq + 10)]);
}

#[test]
fn without_sack_every_segment_above_a_hole_and_every_duplicate_is_acknowledged() {
    let mut c = Conn::new();
    c.on(data(1, 10));
    let above: Vec<_> = (0..10).map(|i| data(100 + 10 * i, 10)).collect();
    assert_eq!(c.burst(&above), vec![Ack(11); 10]);
    assert_eq!(c.burst(&[data(1, 10), data(1, 10)]), [Ack(11), Ack(11)]);
}

#[test]
fn with_sack_three_duplicate_acks_go_at_once_and_then_one_for_many() {
    let mut c = Conn::with_sack();
    let seq = c.settle();
    c.tcb.ack.quick = 0;
    let above = |i: u32| data(seq + 1000 + 1460 * i, 1460);
    let block = |i: u32| Sack(seq, vec![(seq + 1000, seq + 1000 + 1460 * i)]);
    for i in 0..3 {
        c.tcb.ack.quick = 0;
        assert_eq!(c.on(above(i)), [block(i + 1)]);
    }
    for i in 3..6 {
        c.tcb.ack.quick = 0;
        assert_eq!(c.on(above(i)), []);
    }
    assert_eq!(c.due_in(), Some(1));
    assert_eq!(c.wait(1), [block(6)]);
    assert_eq!((c.count(TCPAckCompressed), c.count(DelayedACKs)), (3, 1));
}

#[test]
fn in_quick_mode_a_burst_above_a_hole_gets_three_acks_and_one_at_its_end() {
    let mut c = Conn::with_sack();
    c.on(data(1, 100));
    assert!(c.tcb.ack.quick > 10);
    let above: Vec<_> = (0..8).map(|i| data(1001 + 100 * i, 100)).collect();
    let out = c.burst(&above);
    assert_eq!(out.len(), 4);
    assert_eq!(out[3], Sack(101, vec![(1001, 1801)]));
    assert_eq!(c.tcb.next_deadline(), None);
}

#[test]
fn compression_waits_for_a_twentieth_of_the_round_trip() {
    let rtt = Duration::from_micros(2000);
    let mut c = Conn::of(&Opened { sack_ok: true, synack_rtt: Some(rtt), ..opened() });
    let seq = c.settle();
    for i in 0..4 {
        c.on(data(seq + 1000 + 100 * i, 100));
        c.tcb.ack.quick = 0;
    }
    let wait = c.tcb.next_deadline().unwrap().since(c.world.now);
    assert_eq!(wait, Duration::from_micros(100));
}

#[test]
fn compression_ends_after_forty_four() {
    let mut c = Conn::with_sack();
    let seq = c.settle();
    let mut sent = 0;
    for i in 0..48 {
        c.tcb.ack.quick = 0;
        sent += c.on(data(seq + 1000 + 100 * i, 100)).len();
    }
    assert_eq!((sent, c.count(TCPAckCompressed)), (4, 44));
}

#[test]
fn a_third_range_ends_compression() {
    let mut c = Conn::with_sack();
    let seq = c.settle();
    for i in 0..4 {
        c.tcb.ack.quick = 0;
        c.on(data(seq + 1000 + 100 * i, 100));
    }
    c.tcb.ack.quick = 0;
    assert_eq!(c.on(data(seq + 3000, 100)), []);
    c.tcb.ack.quick = 0;
    assert_eq!(c.on(data(seq + 5000, 100)).len(), 1);
}

#[test]
fn a_new_hole_gets_its_three_acks_again() {
    let mut c = Conn::with_sack();
    let seq = c.settle();
    for i in 0..5 {
        c.tcb.ack.quick = 0;
        c.on(data(seq + 1000 + 200 * i, 100));
    }
    c.tcb.ack.quick = 0;
    let out = c.on(data(seq, 500));
    assert_eq!(out.len(), 1, "rcv_nxt moved, the hole did not close");
    assert_eq!(c.rcv_nxt(), seq + 500);
}

#[test]
fn a_filled_hole_is_acknowledged_at_once() {
    let mut c = Conn::with_sack();
    let seq = c.settle();
    c.tcb.ack.quick = 0;
    c.on(data(seq + 100, 100));
    c.tcb.ack.quick = 0;
    assert_eq!(c.on(data(seq, 100)), [Ack(seq + 200)]);
}

#[test]
fn sack_blocks_come_in_the_order_of_arrival() {
    let mut c = Conn::with_sack();
    let block = |start: u32| (start, start + 1000);
    let last = |c: &mut Conn, seq: u32, len: u32| {
        let mut out = c.on(data(seq, len));
        out.extend(c.wait(1));
        out.pop().unwrap()
    };
    assert_eq!(last(&mut c, 1001, 1000), Sack(1, vec![block(1001)]));
    assert_eq!(last(&mut c, 3001, 1000), Sack(1, vec![block(3001), block(1001)]));
    last(&mut c, 5001, 1000);
    last(&mut c, 7001, 1000);
    let four = vec![block(9001), block(7001), block(5001), block(3001)];
    assert_eq!(last(&mut c, 9001, 1000), Sack(1, four));
    let joined = vec![(2001, 4001), block(9001), block(7001), block(5001)];
    assert_eq!(last(&mut c, 2001, 1000), Sack(1, joined));
    let duplicate = vec![(5501, 5601), block(5001), (2001, 4001), block(9001)];
    assert_eq!(last(&mut c, 5501, 100), Sack(1, duplicate));
    let rest = vec![block(5001), block(9001), block(7001)];
    assert_eq!(last(&mut c, 1, 1000), Sack(4001, rest));
    assert_eq!((c.count(TCPDSACKOfoSent), c.count(TCPOFOMerge)), (1, 1));
}

#[test]
fn beside_timestamps_there_is_room_for_three_blocks() {
    let mut c = Conn::with_ts(1);
    c.tcb.sack_ok = true;
    for i in 0..4 {
        c.on(data(1001 + 2000 * i, 1000).ts(2));
    }
    assert_eq!(c.raw.last().unwrap().sack.len(), 3);
}

#[test]
fn each_of_several_duplicates_is_reported_once() {
    let mut c = Conn::with_sack();
    c.on(data(1, 1000));
    let out = c.burst(&[data(101, 100), data(301, 100), data(501, 100)]);
    let report = |seq| Sack(1001, vec![(seq, seq + 100)]);
    assert_eq!(out, [report(101), report(301), report(501)]);
    assert_eq!(c.on(data(1001, 10)), [Ack(1011)]);
}

#[test]
fn a_partly_old_segment_reports_its_old_part_and_is_taken() {
    let mut c = Conn::with_sack();
    c.on(data(1, 100));
    assert_eq!(c.on(data(51, 100)), [Sack(151, vec![(51, 101)])]);
    assert_eq!(c.readable(), 150);
    c.read_all();
}

#[test]
fn duplicates_are_not_reported_if_the_setting_is_off() {
    let mut c = Conn::with_sack();
    c.world.settings.tcp_dsack = false;
    c.on(data(1, 100));
    assert_eq!(c.on(data(1, 100)), [Ack(101)]);
    assert_eq!(c.count(TCPDSACKOldSent), 0);
}

#[test]
fn an_overlap_found_while_a_hole_is_filled_is_reported() {
    let mut c = Conn::with_sack();
    c.on(data(101, 100));
    assert_eq!(c.on(data(1, 150)), [Sack(201, vec![(101, 151)])]);
    assert_eq!(c.read_all(), []);
    assert_eq!(c.copied, 201);
}

#[test]
fn a_read_that_empties_the_queue_sends_the_ack_a_small_segment_waits_for() {
    let mut c = Conn::new();
    let seq = c.settle();
    assert_eq!(c.on(data(seq, 10)), []);
    assert_eq!(c.tcb.notify_at(), Some(c.tcb.edge()));
    assert_eq!(c.read(5), []);
    assert_eq!(c.read(5), [Ack(seq + 10)]);
    assert_eq!((c.tcb.notify_at(), c.tcb.next_deadline()), (None, None));
}

#[test]
fn an_ack_behind_the_fin_is_owed_to_the_reader_as_well() {
    // The window would not move on by what came: the reader will send the ACK.
    let mut world = World::default();
    world.settings.tcp_rmem[1] = 20_000;
    let mut c = Conn::in_world(world, &Opened { rcv_wnd: 10_000, ..opened() });
    c.on(data(1, 1));
    assert_eq!(c.on(data_fin(2, 1460)), []);
    let notify = c.tcb.notify_at().expect("an ACK is owed");
    assert_eq!(c.read(notify.raw().wrapping_sub(IRS) - 1), [Ack(1463)]);
}

#[test]
fn a_sink_gets_segments_in_order_and_the_queue_the_rest() {
    let mut c = Conn::new();
    c.ring.room = 2;
    for i in 0..4 {
        c.on(data(1 + 1000 * i, 1000));
    }
    assert_eq!((c.ring.bufs.len(), c.tcb.receive.len()), (2, 2));
    c.ring.bufs.clear();
    c.on(data(4001, 1000));
    assert_eq!((c.ring.bufs.len(), c.tcb.receive.len()), (0, 3), "the queue is older");
}

#[test]
fn the_timer_ends_interactive_mode() {
    let mut c = Conn::new();
    c.on(fin(1));
    assert!(c.tcb.ack.pingpong);
    assert_eq!(c.wait(40), [Ack(2)]);
    assert!(!c.tcb.ack.pingpong);
}

#[test]
fn the_end_of_quick_mode_brings_the_least_delay() {
    let mut c = Conn::new();
    for i in 0..16 {
        c.on(data(1 + 10 * i, 10));
        c.wait(30);
    }
    assert_eq!(c.on(data(161, 10)), []);
    // 20 + 30 from the least; a delay carried through quick mode would be longer.
    assert_eq!(c.due_in(), Some(50));
}

#[test]
fn a_fin_in_order_ends_the_reports_of_duplicates() {
    let mut c = Conn::with_sack();
    c.on(data_fin(101, 100));
    c.on(data(51, 100));
    assert_eq!(c.on(data(1, 100)), [Ack(202)], "the overlap below is not reported");
    assert_eq!((c.count(TCPDSACKOfoSent), c.count(TCPDSACKOldSent)), (1, 1));
}

#[test]
fn quick_acks_can_be_asked_for_and_declined() {
    let mut c = Conn::new();
    c.tcb.set_quick_ack(false);
    assert_eq!(c.on(data(1, 100)), []);
    c.tcb.set_quick_ack(true);
    c.end_burst();
    assert_eq!(c.sent(), [], "some is unread");
    assert_eq!(c.wait(40), [Ack(101)]);
    assert_eq!(c.on(data(101, 100)), [Ack(201)]);
    c.read_all();
    c.tcb.set_quick_ack(false);
    assert_eq!(c.on(data(201, 1)), []);
    c.tcb.reader_progress(&mut c.world.cx(), c.tcb.edge());
    c.tcb.set_quick_ack(true);
    c.end_burst();
    assert_eq!(c.sent(), [Ack(202)], "nothing is unread");
}

#[test]
fn the_end_of_an_empty_burst_does_not_hurry_an_ack() {
    let mut c = Conn::new();
    let seq = c.settle();
    assert_eq!(c.on(data(seq, 100)), []);
    for _ in 1..c.due_in().unwrap() {
        assert_eq!(c.wait(1), []);
        c.end_burst();
    }
    assert_eq!((c.sent(), c.due_in()), (vec![], Some(1)));
}
