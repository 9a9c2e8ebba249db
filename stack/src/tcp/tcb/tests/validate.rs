//! PAWS, RST, SYN and ACK checks, replies and their limit.

use std::time::Duration;

use super::harness::Out::{Ack, Sack};
use super::harness::*;
use crate::tcp::Counter::*;
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::State;
use crate::wire::Segment;

const LIMIT: Duration = Duration::from_millis(500);

#[test]
fn a_timestamp_one_tick_back_is_tolerated_and_two_are_not() {
    let mut c = Conn::with_ts(1000);
    assert_eq!(c.on(data(1, 3).ts(999)), [Ack(4)]);
    assert_eq!(c.raw[0].ts.unwrap().ecr, 1000, "it does not become the echo");
    assert_eq!(c.on(data(4, 3).ts(998)), [Ack(4)]);
    assert_eq!((c.count(PAWSEstab), c.readable()), (1, 3));
}

#[test]
fn timestamps_are_compared_around_the_wrap() {
    let mut c = Conn::with_ts(u32::MAX);
    assert_eq!(c.on(data(1, 3).ts(5)), [Ack(4)]);
    assert_eq!(c.on(data(4, 3).ts(u32::MAX)), [Ack(4)]);
    assert_eq!(c.count(PAWSEstab), 1);
}

#[test]
fn an_old_timestamp_excuses_itself_after_a_long_silence() {
    let mut c = Conn::with_ts(1000);
    c.wait(24 * 24 * 3600 * 1000);
    assert_eq!(c.on(data(1, 3).ts(5)), [Ack(4)]);
    assert_eq!((c.count(PAWSEstab), c.raw[0].ts.unwrap().ecr), (0, 5));
}

#[test]
fn a_peer_whose_clock_started_at_zero_is_not_rejected() {
    let mut c = Conn::with_ts(0);
    assert_eq!(c.on(data(1, 3).ts(0xf000_0000)), [Ack(4)]);
}

#[test]
fn a_segment_without_the_negotiated_timestamps_is_taken() {
    let mut c = Conn::with_ts(1000);
    assert_eq!(c.on(data(1, 3)), [Ack(4)]);
    assert_eq!(c.readable(), 3);
}

#[test]
fn a_rst_with_an_old_timestamp_resets() {
    let mut c = Conn::with_ts(1000);
    assert_eq!(c.on(rst(1).ts(1)), []);
    assert_eq!(c.state(), State::Closed);
}

#[test]
fn a_syn_with_an_old_timestamp_is_challenged() {
    let mut c = Conn::with_ts(1000);
    assert_eq!(c.on(syn(1).ts(1)), [Ack(1)]);
    assert_eq!((c.count(TCPSYNChallenge), c.count(PAWSEstab)), (1, 0));
}

#[test]
fn an_old_pure_ack_below_rcv_nxt_is_dropped_silently() {
    let mut c = Conn::with_ts(1000);
    c.on(data(1, 3).ts(1000));
    assert_eq!(c.on(ack(2).ts(900)), []);
    assert_eq!((c.count(PAWSOldAck), c.count(PAWSEstab)), (1, 0));
}

#[test]
fn an_overtaken_duplicate_ack_is_excused_within_the_replay_window() {
    let mut c = Conn::with_ts(10_000);
    c.on(ack(1).ts(10_000));
    // The timeout is three seconds: 3600 ticks are excused, if nothing else is new.
    assert_eq!(c.on(ack(1).ts(10_000 - 3600)), []);
    assert_eq!(c.count(PAWSEstab), 0);
    assert_eq!(c.on(ack(1).ts(10_000 - 3601)), [Ack(1)]);
    assert_eq!(c.on(ack(1).ts(9_900).window(2000)), [Ack(1)]);
    assert_eq!(c.on(ack(2).ts(9_900)), [Ack(1)]);
    assert_eq!(c.count(PAWSEstab), 3);
}

#[test]
fn data_below_the_last_window_taken_does_not_make_it_older() {
    let mut c = Conn::with_ts(10_000);
    c.on(ack(5000).ts(10_000));
    c.on(data(1, 1000).ts(10_000));
    // The next ACK would otherwise be an update, which no replay is excused for.
    assert_eq!(c.on(ack(1001).ts(9_999 - 1)), []);
    assert_eq!(c.count(PAWSEstab), 0);
}

#[test]
fn the_echo_is_that_of_the_earliest_segment_not_acknowledged() {
    let mut c = Conn::with_ts(1000);
    assert_eq!(c.burst(&[data(1, 3).ts(1001), data(4, 3).ts(1005)]), [Ack(7)]);
    assert_eq!(c.raw[0].ts.unwrap().ecr, 1001);
    // The same where the second one's header is not predicted.
    c.burst(&[data(7, 3).ts(1006), data(10, 3).ts(1009).window(1001)]);
    assert_eq!(c.raw[1].ts.unwrap().ecr, 1006);
}

#[test]
fn a_segment_above_a_hole_does_not_set_the_echo_and_the_one_that_fills_it_does() {
    let mut c = Conn::with_ts(1000);
    c.on(data(4, 3).ts(1010));
    assert_eq!(c.raw[0].ts.unwrap().ecr, 1000);
    c.on(data(1, 3).ts(1020));
    assert_eq!(c.raw[1].ts.unwrap().ecr, 1020);
}

#[test]
fn a_segment_with_a_bad_ack_does_not_set_the_echo() {
    let mut c = Conn::with_ts(1000);
    c.on(data(1, 3).ts(1010).acking(2));
    assert_eq!(c.raw[0].ts.unwrap().ecr, 1000);
}

#[test]
fn our_timestamp_is_the_clock_in_milliseconds() {
    let mut c = Conn::with_ts(1000);
    c.wait(234);
    c.on(data(1, 3).ts(1001));
    assert_eq!(c.raw[0].ts.unwrap().val, 1234);
}

#[test]
fn a_rst_at_the_right_edge_of_the_highest_sack_block_resets() {
    let mut c = Conn::with_sack();
    c.on(data(11, 10));
    c.on(data(31, 10));
    assert_eq!(c.on(rst(21)).len(), 1);
    assert_eq!(c.state(), State::Established);
    assert_eq!(c.on(rst(41)), []);
    assert_eq!(c.state(), State::Closed);
    assert_eq!((c.tcb.ofo.len(), c.tcb.rmem()), (0, 0));
}

#[test]
fn a_rst_one_below_rcv_nxt_resets_only_after_a_fin() {
    let mut c = Conn::new();
    c.on(data(1, 3));
    assert_eq!(c.on(rst(3)), []);
    assert_eq!(c.state(), State::Established);
}

#[test]
fn data_received_before_a_rst_stays_readable() {
    let mut c = Conn::new();
    c.on(data(1, 300));
    c.on(rst(301));
    assert_eq!(c.readable(), 300);
    assert_eq!(c.read_all(), []);
    assert_eq!((c.copied, c.tcb.rmem()), (301, 0));
}

#[test]
fn empty_invalid_segments_are_answered_once_in_half_a_second() {
    let mut c = Conn::new();
    c.world.settings.tcp_invalid_ratelimit = LIMIT;
    assert_eq!(c.on(ack(0)), [Ack(1)]);
    assert_eq!(c.on(ack(0)), []);
    assert_eq!(c.on(ack(2 + W)), []);
    assert_eq!(c.count(TCPACKSkippedSeq), 2);
    c.wait(499);
    assert_eq!(c.on(ack(0)), []);
    c.wait(1);
    assert_eq!(c.on(ack(0)), [Ack(1)]);
}

#[test]
fn challenges_and_duplicate_acks_share_one_stamp() {
    let mut c = Conn::with_ts(1000);
    c.world.settings.tcp_invalid_ratelimit = LIMIT;
    assert_eq!(c.on(rst(2)), [Ack(1)]);
    assert_eq!(c.on(ack(0).ts(1000)), []);
    assert_eq!(c.on(syn(1)), []);
    assert_eq!(c.on(ack(1).acking(2)), []);
    assert_eq!(c.on(ack(2).ts(1)), []);
    assert_eq!(
        (c.count(TCPACKSkippedSeq), c.count(TCPACKSkippedChallenge), c.count(TCPACKSkippedPAWS)),
        (1, 2, 1)
    );
    assert_eq!((c.count(TCPChallengeACK), c.count(TCPSYNChallenge)), (1, 1));
}

#[test]
fn a_probe_with_a_byte_is_always_answered_with_its_duplicate() {
    let mut c = Conn::with_sack();
    c.world.settings.tcp_invalid_ratelimit = LIMIT;
    c.on(data(1, 3));
    for _ in 0..3 {
        assert_eq!(c.on(data(3, 1)), [Sack(4, vec![(3, 4)])]);
    }
    assert_eq!((c.count(TCPDSACKOldSent), c.count(DelayedACKLost)), (3, 3));
}

#[test]
fn an_empty_probe_is_answered_without_a_duplicate_report() {
    let mut c = Conn::with_sack();
    assert_eq!(c.on(ack(0)), [Ack(1)]);
    assert_eq!((c.count(DelayedACKLost), c.tcb.ack.quick), (0, 0));
}

#[test]
fn old_data_out_of_window_is_reported_as_duplicate() {
    let mut c = Conn::with_sack();
    c.on(data(1, 1000));
    assert_eq!(c.on(data(101, 100)), [Sack(1001, vec![(101, 201)])]);
    assert_eq!((c.count(DelayedACKLost), c.count(TCPDSACKOldSent)), (1, 1));
}

#[test]
fn an_old_ack_does_not_bring_an_old_window_back() {
    let mut c = Conn::new();
    c.on(data(1, 3).window(5000));
    c.on(data(4, 3).window(6000));
    // Same header as the one that was overtaken: its window is not taken.
    c.on(ack(4).window(5000));
    let hits = c.count(TCPHPHits);
    c.on(data(7, 3).window(6000));
    assert_eq!(c.count(TCPHPHits), hits + 1);
}

#[test]
fn an_ack_may_be_as_old_as_the_largest_window_that_the_peer_ever_had() {
    let mut c = Conn::of(&Opened { scale: Some(Scale { rcv: 0, snd: 4 }), ..opened() });
    let old = |by: u32| 1_u32.wrapping_sub(by);
    c.on(data(1, 3).acking(old(16_001)));
    assert_eq!((c.readable(), c.count(TCPChallengeACK)), (0, 1));
    c.on(data(1, 3).window(5000));
    c.on(data(4, 3).acking(old(80_000)).window(5000));
    assert_eq!(c.readable(), 6);
    c.on(data(7, 3).acking(old(80_001)).window(5000));
    assert_eq!((c.readable(), c.count(TCPChallengeACK)), (6, 2));
}

#[test]
fn what_was_not_predicted_may_not_acknowledge_less_than_was_acknowledged() {
    let old = |seg: Segment| seg.acking(0);
    for seg in [ack(1), ack(50), fin(1), data(2, 3), data(1, 3).window(99)] {
        let mut c = Conn::new();
        assert_eq!(c.on(old(seg)), [Ack(1)], "{seg:?}");
        assert_eq!((c.rcv_nxt(), c.count(TCPChallengeACK)), (1, 1), "{seg:?}");
    }
    let mut c = Conn::new();
    c.on(data(1, 3));
    assert_eq!(c.on(old(data(4, 3))), [Ack(7)]);
    c.shutdown_write();
    c.on(ack(7).acking(2));
    assert_eq!(c.on(ack(7).acking(1)), [], "the FIN was acknowledged");
}

#[test]
fn a_rst_with_a_syn_behind_the_edge_is_out_of_the_window() {
    let both = crate::wire::Flags::SYN.with(crate::wire::Flags::RST);
    for (unread, sent) in [(false, 1), (true, 0)] {
        let mut c = Conn::of(&Opened { rcv_wnd: 4000, ..opened() });
        if unread {
            c.on(data(1, 10));
        }
        let edge = c.right_edge();
        assert_eq!(c.on(data(edge - 100, 100).flags(both)).len(), sent, "{unread}");
    }
}

#[test]
fn nothing_but_syn_rst_or_ack_is_looked_at() {
    let mut c = Conn::new();
    for flags in [0x00, 0x01, 0x08, 0x20, 0x29, 0xc0] {
        let seg = Segment { flags: crate::wire::Flags(flags), ..data(1, 5) };
        assert_eq!(c.on(seg), []);
    }
    assert_eq!((c.rcv_nxt(), c.counted()), (1, vec![]));
}

#[test]
fn a_mark_that_is_replaced_before_its_byte_has_come_takes_nothing_out_of_the_stream() {
    for (len, replaced) in [(0, None), (100, Some(1))] {
        let mut c = Conn::new();
        c.on(data(1, len).urgent(1));
        c.on(data(1 + len, 100).urgent(1000));
        let urgent = c.tcb.urgent().expect("a mark is pending");
        let taken = urgent.replaced.map(|range| range.start.raw().wrapping_sub(IRS));
        assert_eq!((urgent.mark.raw().wrapping_sub(IRS), taken), (1000 + len, replaced));
    }
}

#[test]
fn an_urgent_pointer_counts_at_window_zero_and_is_replaced_only_by_a_newer_one() {
    let mut c = Conn::new();
    let mark = |c: &Conn| c.tcb.urgent().map(|u| u.mark.raw().wrapping_sub(IRS));
    c.tcb.window.wnd = 0;
    c.tcb.predict();
    c.on(data(1, 1).urgent(50));
    assert_eq!((mark(&c), c.rcv_nxt()), (Some(50), 1));
    c.on(ack(1).urgent(40));
    assert_eq!(mark(&c), Some(50));
    c.on(ack(1).urgent(60));
    assert_eq!(mark(&c), Some(60));
}

#[test]
fn an_urgent_mark_below_rcv_nxt_is_ignored() {
    let mut c = Conn::new();
    c.on(data(1, 5));
    c.on(data(1, 10).urgent(2));
    assert_eq!((c.tcb.urgent(), c.readable()), (None, 10));
}

#[test]
fn the_fast_path_rests_until_the_reader_has_passed_the_urgent_mark() {
    let mut c = Conn::new();
    c.on(data(1, 5).urgent(3));
    c.on(data(6, 5));
    assert_eq!(c.count(TCPHPHits), 0);
    c.read(2);
    assert!(c.tcb.urgent().is_some());
    c.read(2);
    assert_eq!(c.tcb.urgent(), None);
    c.on(data(11, 5));
    assert_eq!(c.count(TCPHPHits), 1);
}
