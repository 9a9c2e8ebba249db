//! Payload in an established connection: in order, duplicate, beyond, partial, out of order.

use std::ops::RangeInclusive;

use prequeue::tcp::Counter;

use crate::dsl::{Scene, ack, acks, data, fin, scenario, scenario_with, syn, syn_ack};

/// When an ACK may leave that need not leave at once.
const SOON: RangeInclusive<u64> = 0..=45;

/// When a SACK may leave that compression holds back.
const ALMOST_AT_ONCE: RangeInclusive<u64> = 0..=2;

/// A connection with SACK.
fn opens_with_sack(s: &mut Scene) -> &mut Scene {
    s.opens_with(syn().sack_permitted())
}

#[test]
fn data_in_order_is_acknowledged_and_delivered() {
    scenario(|s| {
        s.opens().send(data(1, 100)).expect_after(SOON, acks(101)).reads(1..101);
        s.send(data(101, 1460)).expect_after(SOON, acks(1561)).reads(101..1561).reads_nothing();
    });
}

#[test]
fn a_burst_in_order_is_acknowledged_once() {
    scenario(|s| {
        s.opens().send_burst(&[data(1, 1460), data(1461, 1460), data(2921, 1460)]);
        s.expect_after(SOON, acks(4381)).reads(1..4381);
    });
}

#[test]
fn reads_take_what_fits_and_leave_the_rest() {
    scenario(|s| {
        s.opens().send(data(1, 1000)).expect_after(SOON, acks(1001));
        s.reads_up_to(1, 1..2).reads_up_to(500, 2..502).reads_up_to(4096, 502..1001);
        s.reads_nothing();
    });
}

#[test]
fn full_segments_are_acknowledged_at_least_every_second_one() {
    scenario(|s| {
        s.opens();
        let (mut seq, mut unacked) = (1, 0);
        for _ in 0..40 {
            s.send(data(seq, 1460));
            seq += 1460;
            unacked += 1;
            if unacked == 2 || s.has_sent() {
                s.expect(acks(seq));
                unacked = 0;
            }
            s.reads(seq - 1460..seq);
            if s.has_sent() {
                s.expect(acks(seq));
                unacked = 0;
            }
        }
        if unacked > 0 {
            s.expect_after(1..=500, acks(seq));
        }
    });
}

#[test]
fn a_duplicate_is_acknowledged_at_once_and_not_delivered_again() {
    scenario(|s| {
        s.opens().send(data(1, 100)).expect_after(SOON, acks(101)).reads(1..101);
        s.send(data(1, 100).fill(b'x')).expect(acks(101)).reads_nothing();
        s.send(data(51, 50).fill(b'x')).expect(acks(101)).reads_nothing();
        s.counted(Counter::DelayedACKLost, 2);
    });
}

#[test]
fn a_duplicate_is_reported_by_dsack() {
    scenario(|s| {
        opens_with_sack(s).send(data(1, 100)).expect_after(SOON, acks(101)).reads(1..101);
        s.send(data(21, 50)).expect(acks(101).sack(&[(21, 71)]));
        s.counted(Counter::TCPDSACKOldSent, 1);
    });
}

#[test]
fn data_beyond_the_window_is_dropped_and_answered() {
    scenario(|s| {
        s.opens().send(data(1 + 64_240, 1)).expect(acks(1));
        s.send(data(1 + 70_000, 10)).expect(acks(1));
        s.send(data(1, 100)).expect_after(SOON, acks(101)).reads(1..101).reads_nothing();
    });
}

#[test]
fn data_that_begins_before_its_turn_is_taken_from_there() {
    scenario(|s| {
        s.opens().send(data(1, 100)).expect_after(SOON, acks(101)).reads(1..101);
        s.send(data(51, 100)).expect_after(SOON, acks(151)).reads(101..151);
    });
}

#[test]
fn bytes_that_were_acknowledged_never_change() {
    scenario(|s| {
        s.opens().send(data(1, 100)).expect_after(SOON, acks(101));
        s.send(data(51, 100).fill(b'x')).expect_after(SOON, acks(151));
        s.reads_bytes(100, &(1..101).map(crate::dsl::pattern).collect::<Vec<_>>());
        s.reads_bytes(100, &[b'x'; 50]);
    });
}

#[test]
fn a_hole_is_answered_at_once_and_filling_it_delivers_all() {
    scenario(|s| {
        s.opens().send(data(101, 100)).expect(acks(1)).reads_nothing();
        s.send(data(301, 100)).expect(acks(1)).reads_nothing();
        s.send(data(201, 100)).expect(acks(1)).reads_nothing();
        s.counted(Counter::TCPOFOQueue, 3);
        s.send(data(1, 100)).expect(acks(401)).reads(1..401);
    });
}

#[test]
fn each_segment_above_a_hole_demands_its_own_ack_without_sack() {
    scenario(|s| {
        s.opens().send_burst(&[data(101, 100), data(201, 100), data(301, 100)]);
        s.expect(acks(1)).expect(acks(1)).expect(acks(1));
        s.send(data(1, 100)).expect(acks(401));
    });
}

#[test]
fn part_of_a_hole_filled_is_acknowledged_at_once() {
    scenario(|s| {
        s.opens().send(data(201, 100)).expect(acks(1));
        s.send(data(1, 100)).expect(acks(101)).reads(1..101);
        s.send(data(101, 100)).expect(acks(301)).reads(101..301);
    });
}

#[test]
fn sack_blocks_come_newest_first_and_join() {
    scenario(|s| {
        let unit = |n: u32| data(n * 1000 + 1, 1000);
        opens_with_sack(s);
        s.send(unit(1)).expect_after(ALMOST_AT_ONCE, acks(1).sack(&[(1001, 2001)]));
        s.send(unit(3)).expect_after(ALMOST_AT_ONCE, acks(1).sack(&[(3001, 4001), (1001, 2001)]));
        s.send(unit(5)).expect_after(
            ALMOST_AT_ONCE,
            acks(1).sack(&[(5001, 6001), (3001, 4001), (1001, 2001)]),
        );
        let four = [(7001, 8001), (5001, 6001), (3001, 4001), (1001, 2001)];
        s.send(unit(7)).expect_after(ALMOST_AT_ONCE, acks(1).sack(&four));
        let four = [(9001, 10_001), (7001, 8001), (5001, 6001), (3001, 4001)];
        s.send(unit(9)).expect_after(ALMOST_AT_ONCE, acks(1).sack(&four));
        let joined = [(2001, 4001), (9001, 10_001), (7001, 8001), (5001, 6001)];
        s.send(unit(2)).expect_after(ALMOST_AT_ONCE, acks(1).sack(&joined));
        let reported = [(5501, 5601), (5001, 6001), (2001, 4001), (9001, 10_001)];
        s.send(data(5501, 100)).expect_after(ALMOST_AT_ONCE, acks(1).sack(&reported));
        let left = [(5001, 6001), (9001, 10_001), (7001, 8001)];
        s.send(data(1, 1000)).expect(acks(4001).sack(&left));
        s.reads(1..4001);
    });
}

#[test]
fn a_fin_above_a_hole_waits_for_its_turn() {
    scenario(|s| {
        opens_with_sack(s);
        s.send(fin(101).len(50)).expect(acks(1).sack(&[(101, 152)])).reads_nothing();
        s.send(data(1, 100)).expect(acks(152)).reads(1..151).reads_eof();
    });
}

#[test]
fn data_behind_the_fin_is_discarded() {
    scenario(|s| {
        s.opens().send(data(201, 100)).expect(acks(1));
        s.send(fin(1).len(100)).expect_after(0..=60, acks(102)).reads(1..101).reads_eof();
    });
}

#[test]
fn a_reader_that_does_not_read_closes_the_window_and_reopens_it() {
    scenario_with(
        |settings| settings.tcp_rmem = [4096, 40_000, 40_000],
        |s| {
            s.opens();
            let end = s.fills_the_window(1);
            s.send(data(end, 1)).expect(acks(end).window(0));
            s.send(data(end, 1)).expect(acks(end).window(0));
            s.reads(1..end);
            let reopened = s.window_update();
            assert!(reopened > 0);
            s.send(data(end, 1)).expect_after(SOON, acks(end + 1)).reads(end..end + 1);
        },
    );
}

#[test]
fn a_window_never_shrinks() {
    scenario_with(
        |settings| settings.tcp_rmem = [4096, 40_000, 40_000],
        |s| {
            s.opens();
            // `fills_the_window` checks the right edge of every ACK.
            s.fills_the_window(1);
        },
    );
}

#[test]
fn a_probe_of_one_old_byte_is_always_answered() {
    scenario(|s| {
        opens_with_sack(s).send(data(1, 10)).expect_after(SOON, acks(11)).reads(1..11);
        for _ in 0..3 {
            s.send(data(10, 1)).expect(acks(11).sack(&[(10, 11)]));
        }
    });
}

#[test]
fn an_empty_probe_is_answered_twice_a_second() {
    scenario(|s| {
        s.opens().send(ack(1).seq(0)).expect(acks(1));
        s.send(ack(1).seq(0)).expect_nothing().wait(500);
        s.send(ack(1).seq(0)).expect(acks(1));
        s.counted(Counter::TCPACKSkippedSeq, 1);
    });
}

#[test]
fn timestamps_are_echoed_from_the_segment_that_is_acknowledged() {
    scenario(|s| {
        s.send(syn().ts(700, 0)).expect(syn_ack().ts(700));
        s.send(ack(1).ts(701, 0)).accepts();
        s.send(data(1, 100).ts(710, 0)).expect_after(SOON, acks(101).ts(710)).reads(1..101);
        s.send(data(201, 100).ts(730, 0)).expect(acks(101).ts(710));
        s.send(data(101, 100).ts(720, 0)).expect(acks(301).ts(720)).reads(101..301);
    });
}

#[test]
fn an_older_timestamp_is_rejected_unless_it_is_one_tick() {
    scenario(|s| {
        s.send(syn().ts(700, 0)).expect(syn_ack().ts(700));
        s.send(ack(1).ts(700, 0)).accepts();
        s.send(data(1, 100).ts(698, 0)).expect(acks(1).ts(700)).reads_nothing();
        s.counted(Counter::PAWSEstab, 1);
        s.send(data(1, 100).ts(699, 0)).expect_after(SOON, acks(101).ts(700)).reads(1..101);
    });
}

#[test]
fn data_without_the_timestamp_agreed_on_is_taken() {
    scenario(|s| {
        s.send(syn().ts(700, 0)).expect(syn_ack().ts(700));
        s.send(ack(1).ts(700, 0)).accepts();
        s.send(data(1, 100)).expect_after(SOON, acks(101).ts(700)).reads(1..101);
    });
}
