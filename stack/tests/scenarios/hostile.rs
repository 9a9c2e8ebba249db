//! Segments that a blind attacker, a broken peer or an old connection sends to an established one.

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::time::Duration;

use prequeue::tcp::Counter;
use prequeue::wire::Flags;

use crate::dsl::{Scene, ack, acks, data, fin, rst, rst_of, scenario, scenario_with, seg, syn};

const SOON: RangeInclusive<u64> = 0..=45;

/// The window of the SYN-ACK and of the first ACKs.
const W: u32 = 64_240;

/// An established connection whose replies are not limited.
fn unlimited(play: impl Fn(&mut Scene)) {
    scenario_with(
        |settings| settings.tcp_invalid_ratelimit = Duration::ZERO,
        |s| {
            s.opens();
            play(s);
        },
    );
}

/// The connection still works.
fn is_alive(s: &mut Scene) {
    s.send(data(1, 10)).expect_after(SOON, acks(11)).reads(1..11);
}

#[test]
fn empty_acks_in_the_window_are_accepted_silently() {
    unlimited(|s| {
        s.send(ack(1).seq(101)).expect_nothing();
        s.send(ack(1).seq(1 + W)).expect_nothing();
        s.send(ack(1).seq(2 + W)).expect(acks(1)).counted(Counter::BeyondWindow, 1);
        is_alive(s);
    });
}

#[test]
fn data_that_ends_beyond_the_window_does_not_get_further_than_its_edge() {
    unlimited(|s| {
        s.send(data(1 + W - 10, 20)).expect(acks(1)).reads_nothing();
    });
}

#[test]
fn data_without_ack_is_dropped() {
    unlimited(|s| {
        s.send(data(1, 3).without(Flags::ACK)).expect_nothing().reads_nothing();
        s.send(seg(Flags::default(), 1).len(3)).expect_nothing().reads_nothing();
        is_alive(s);
    });
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_challenged() {
    unlimited(|s| {
        s.send(data(1, 3).ack(2)).expect(acks(1)).counted(Counter::TCPChallengeACK, 1);
        s.reads_nothing();
        is_alive(s);
    });
}

#[test]
fn an_acknowledgement_far_too_old_is_challenged_and_its_data_dropped() {
    unlimited(|s| {
        s.send(data(1, 3).ack(1_u32.wrapping_sub(70_000))).expect(acks(1)).reads_nothing();
        is_alive(s);
    });
}

#[test]
fn an_exact_rst_resets() {
    unlimited(|s| {
        s.send(rst(1)).expect_nothing().counted(Counter::EstabResets, 1);
        s.reads_error(ErrorKind::ConnectionReset).reads_eof();
        s.send(data(1, 1)).expect(rst_of(1));
    });
}

#[test]
fn the_acknowledgement_of_a_rst_does_not_matter() {
    unlimited(|s| {
        s.send(rst(1).and(Flags::ACK).ack(0x5555_5555)).expect_nothing();
        s.counted(Counter::EstabResets, 1).reads_error(ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_rst_elsewhere_in_the_window_is_challenged() {
    unlimited(|s| {
        s.send(rst(2)).expect(acks(1)).send(rst(1 + W)).expect(acks(1));
        s.counted(Counter::TCPChallengeACK, 2).counted(Counter::EstabResets, 0);
        is_alive(s);
    });
}

#[test]
fn a_rst_outside_of_the_window_is_ignored() {
    unlimited(|s| {
        s.send(rst(0)).expect_nothing().send(rst(2 + W)).expect_nothing();
        is_alive(s);
    });
}

#[test]
fn a_rst_at_the_end_of_the_highest_sack_block_resets() {
    scenario(|s| {
        s.opens_with(syn().sack_permitted());
        s.send(data(101, 100)).expect(acks(1).sack(&[(101, 201)]));
        s.send(rst(201)).expect_nothing().reads_error(ErrorKind::ConnectionReset);
    });
}

#[test]
fn data_that_came_before_the_rst_stays_readable() {
    unlimited(|s| {
        s.send(data(1, 100)).expect_after(SOON, acks(101));
        s.send(rst(101)).expect_nothing();
        s.reads(1..101).reads_error(ErrorKind::ConnectionReset).reads_eof();
    });
}

#[test]
fn every_syn_is_challenged() {
    unlimited(|s| {
        for syn in [
            seg(Flags::SYN, 1),
            seg(Flags::SYN, 0),
            seg(Flags::SYN.with(Flags::ACK), 0),
            seg(Flags::SYN.with(Flags::ACK).with(Flags::FIN), 1),
            seg(Flags::SYN, 0x4000_0000),
        ] {
            s.send(syn).expect(acks(1));
        }
        s.counted(Counter::TCPSYNChallenge, 5).counted(Counter::TCPChallengeACK, 5);
        is_alive(s);
    });
}

#[test]
fn challenges_are_limited_to_two_a_second() {
    scenario(|s| {
        s.opens().send(rst(2)).expect(acks(1));
        s.send(seg(Flags::SYN, 1)).expect_nothing();
        s.send(rst(3)).expect_nothing().wait(500);
        s.send(rst(4)).expect(acks(1)).counted(Counter::TCPChallengeACK, 2);
    });
}

#[test]
fn a_fin_alone_is_acknowledged_late() {
    unlimited(|s| {
        s.send(fin(1)).expect_after(1..=60, acks(2)).reads_eof();
        s.counted(Counter::DelayedACKs, 1);
    });
}

#[test]
fn a_fin_with_data_is_acknowledged_with_it() {
    unlimited(|s| {
        s.send(fin(1).len(3)).expect_after(0..=60, acks(5)).reads(1..4).reads_eof();
    });
}

#[test]
fn an_urgent_pointer_does_not_hold_data_up() {
    unlimited(|s| {
        s.send(data(1, 5).urgent(3)).expect_after(SOON, acks(6));
        s.send(data(6, 5).urgent(100)).expect_after(SOON, acks(11));
    });
}

#[test]
fn ecn_bits_and_odd_options_do_not_hinder_data() {
    unlimited(|s| {
        s.send(data(1, 3).and(Flags::CWR.with(Flags::ECE))).expect_after(SOON, acks(4)).reads(1..4);
        let mut seq = 4;
        for options in [&[5, 0, 1, 1][..], &[5, 7, 0, 0], &[8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 1]] {
            s.send(data(seq, 3).option(options)).expect_after(SOON, acks(seq + 3));
            s.reads(seq..seq + 3);
            seq += 3;
        }
    });
}

#[test]
fn a_segment_with_a_bad_checksum_changes_nothing() {
    unlimited(|s| {
        s.send(rst(1).bad_checksum()).expect_nothing();
        s.send(data(1, 10).fill(b'x').bad_checksum()).expect_nothing().reads_nothing();
        s.counted(Counter::InCsumErrors, 2).counted(Counter::EstabResets, 0);
        is_alive(s);
    });
}
