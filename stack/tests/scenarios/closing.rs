//! The end of a connection, from every state and from both sides.

use std::io::ErrorKind;
use std::ops::RangeInclusive;

use prequeue::tcp::Counter;
use prequeue::wire::Flags;

use crate::dsl::{
    How, Scene, Want, ack, acks, data, fin, fin_ack, rst, rst_of, scenario, scenario_with,
};

const SOON: RangeInclusive<u64> = 0..=60;

/// The peer has sent FIN as its number 1, and it is acknowledged.
fn close_wait(s: &mut Scene) -> &mut Scene {
    s.opens().send(fin(1)).expect_after(SOON, acks(2))
}

/// The application has shut down writing; our FIN, number 1, is not acknowledged.
fn fin_wait_1(s: &mut Scene) -> &mut Scene {
    s.opens().shuts_down(How::Write).expect(fin_ack(1))
}

/// Our FIN is acknowledged, and the application still reads.
fn fin_wait_2(s: &mut Scene) -> &mut Scene {
    fin_wait_1(s).send(ack(2)).expect_nothing()
}

/// Both FINs have crossed.
fn closing(s: &mut Scene) -> &mut Scene {
    fin_wait_1(s).send(fin(1)).expect(acks(2))
}

/// The peer has closed first and then the application; our FIN is not acknowledged.
fn last_ack(s: &mut Scene) -> &mut Scene {
    close_wait(s).closes().expect(fin_ack(2))
}

/// Brings a scene into a state.
type Enter = fn(&mut Scene) -> &mut Scene;

/// The states before TIME-WAIT and the number that the connection then waits for.
const STATES: [(Enter, u32); 5] =
    [(close_wait, 2), (fin_wait_1, 1), (fin_wait_2, 1), (closing, 2), (last_ack, 2)];

/// Nothing knows the connection any more.
fn is_gone(s: &mut Scene) {
    s.send(ack(2).seq(2)).expect(rst_of(2));
}

/// A TIME-WAIT entry answers old segments.
fn is_time_wait(s: &mut Scene) {
    s.send(fin(1).ack(2)).expect(acks(2));
}

#[test]
fn the_peer_closes_then_the_application() {
    scenario(|s| {
        close_wait(s).reads_eof().reads_eof().closes().expect(fin_ack(2));
        s.send(ack(2).seq(2)).expect_nothing();
        is_gone(s);
    });
}

#[test]
fn our_fin_carries_the_ack_of_the_peers() {
    scenario(|s| {
        s.opens().send(fin(1));
        if !s.has_sent() {
            s.closes().expect(fin_ack(2));
        } else {
            s.expect(acks(2)).closes().expect(fin_ack(2));
        }
        s.send(ack(2).seq(2)).expect_nothing().wait(1000);
    });
}

#[test]
fn the_application_closes_then_the_peer() {
    scenario(|s| {
        s.opens().closes().expect(fin_ack(1));
        s.send(ack(2)).expect_nothing().wait(100);
        s.send(fin(1).ack(2)).expect(acks(2));
        is_time_wait(s);
    });
}

#[test]
fn the_peers_fin_acknowledges_ours() {
    scenario(|s| {
        s.opens().closes().expect(fin_ack(1));
        s.send(fin(1).ack(2)).expect(acks(2));
        is_time_wait(s);
    });
}

#[test]
fn both_close_at_once() {
    scenario(|s| {
        s.opens().closes().expect(fin_ack(1));
        s.send(fin(1)).expect(acks(2));
        s.send(ack(2).seq(2)).expect_nothing();
        is_time_wait(s);
    });
}

#[test]
fn a_half_closed_connection_goes_on_receiving() {
    scenario(|s| {
        fin_wait_1(s).send(data(1, 100)).expect_after(SOON, acks(101)).reads(1..101);
        s.send(ack(2).seq(101)).expect_nothing();
        s.send(data(101, 100).ack(2)).expect_after(SOON, acks(201)).reads(101..201);
        s.wait(200_000);
        s.send(data(201, 100).ack(2)).expect_after(SOON, acks(301)).reads(201..301);
        s.send(fin(301).ack(2)).expect(acks(302)).reads_eof();
    });
}

#[test]
fn an_unacknowledged_fin_is_sent_again_and_again() {
    scenario(|s| {
        s.opens().closes().expect(fin_ack(1));
        let again = || fin_ack(1).any_seq();
        s.expect_after(200..=1100, again()).expect_after(400..=2200, again());
        s.expect_after(800..=4400, again()).send(ack(2)).expect_nothing().wait(20_000);
    });
}

#[test]
fn an_orphan_whose_fin_is_never_acknowledged_is_given_up() {
    scenario_with(
        |settings| settings.tcp_orphan_retries = 2,
        |s| {
            s.opens().closes().expect(fin_ack(1));
            let again = || fin_ack(1).any_seq();
            s.expect_after(200..=1100, again()).expect_after(400..=2200, again());
            let last = s.outputs_within(10_000);
            assert!(last <= 1, "the time of two retransmissions may have room for one more");
            s.send(fin(1)).expect(rst_of(1));
        },
    );
}

#[test]
fn closing_with_unread_data_resets() {
    scenario(|s| {
        s.opens().send(data(1, 100)).expect_after(SOON, acks(101));
        s.closes().expect(Want::aborting(101)).counted(Counter::TCPAbortOnClose, 1);
        s.send(data(101, 1)).expect(rst_of(1));
    });
}

#[test]
fn closing_with_partly_read_data_resets() {
    scenario(|s| {
        s.opens().send(data(1, 100)).expect_after(SOON, acks(101)).reads_up_to(99, 1..100);
        s.closes().expect(Want::aborting(101)).counted(Counter::TCPAbortOnClose, 1);
    });
}

#[test]
fn closing_with_unread_data_and_fin_resets() {
    scenario(|s| {
        s.opens().send(fin(1).len(10)).expect_after(SOON, acks(12));
        s.closes().expect(Want::aborting(12)).counted(Counter::TCPAbortOnClose, 1);
    });
}

#[test]
fn closing_with_data_above_a_hole_only_sends_a_fin() {
    scenario(|s| {
        s.opens().send(data(101, 100)).expect(acks(1));
        s.closes().expect(fin_ack(1)).counted(Counter::TCPAbortOnClose, 0);
    });
}

#[test]
fn linger_zero_resets() {
    scenario(|s| {
        s.opens().aborts().expect(Want::aborting(1)).counted(Counter::TCPAbortOnData, 1);
        is_gone(s);
    });
}

#[test]
fn data_after_close_is_reset() {
    scenario(|s| {
        s.opens().closes().expect(fin_ack(1));
        s.send(data(1, 3)).expect(rst_of(1)).counted(Counter::TCPAbortOnData, 1);
        is_gone(s);
    });
}

#[test]
fn data_after_shutting_both_down_is_reset() {
    scenario(|s| {
        s.opens().shuts_down(How::Both).expect(fin_ack(1));
        s.send(data(1, 3).ack(2)).expect(rst_of(2)).counted(Counter::TCPAbortOnData, 1);
        s.reads_error(ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_fin_after_shutting_both_down_is_acknowledged() {
    scenario(|s| {
        s.opens().shuts_down(How::Both).expect(fin_ack(1));
        s.send(fin(1)).expect(acks(2)).reads_eof();
    });
}

#[test]
fn data_after_shutting_down_reading_is_still_received() {
    scenario(|s| {
        s.opens().shuts_down(How::Read).expect_nothing();
        s.send(data(1, 3)).expect_after(SOON, acks(4)).reads(1..4).reads_eof();
    });
}

#[test]
fn data_for_an_orphan_whose_fin_is_acknowledged_is_reset_every_time() {
    scenario(|s| {
        s.opens().closes().expect(fin_ack(1));
        s.send(ack(2)).expect_nothing();
        s.send(data(1, 10).ack(2)).expect(rst_of(2));
        s.send(data(1, 10).ack(2)).expect(rst_of(2));
    });
}

#[test]
fn an_orphan_waits_a_minute_for_the_peers_fin() {
    scenario(|s| {
        s.opens().closes().expect(fin_ack(1));
        s.send(ack(2)).expect_nothing().wait(59_900);
        s.send(ack(2)).expect_nothing().wait(200);
        s.send(fin(1).ack(2)).expect(rst_of(2));
    });
}

#[test]
fn in_close_wait_old_segments_are_acknowledged_and_new_data_ignored() {
    scenario(|s| {
        close_wait(s).send(fin(1)).expect(acks(2));
        s.send(data(2, 10)).expect_nothing().reads_eof();
    });
}

#[test]
fn a_rst_ends_close_wait_silently() {
    for seq in [1, 2] {
        scenario(|s| {
            close_wait(s).send(rst(seq)).expect_nothing().counted(Counter::EstabResets, 1);
            s.reads_eof();
            is_gone(s);
        });
    }
}

#[test]
fn a_rst_ends_every_state_before_time_wait() {
    for (state, rcv_nxt) in STATES {
        scenario(|s| {
            state(s).send(rst(rcv_nxt)).expect_nothing();
            is_gone(s);
        });
    }
}

#[test]
fn a_syn_is_challenged_in_every_state_before_time_wait() {
    for (state, rcv_nxt) in STATES {
        scenario(|s| {
            state(s).wait(100);
            s.send(crate::dsl::seg(Flags::SYN, 5)).expect(acks(rcv_nxt));
        });
    }
}

#[test]
fn the_ack_of_our_fin_ends_last_ack() {
    scenario(|s| {
        last_ack(s).send(ack(1).seq(2)).expect_nothing();
        s.send(ack(2).seq(2)).expect_nothing();
        is_gone(s);
    });
}

#[test]
fn the_ack_of_our_fin_ends_closing_in_time_wait() {
    scenario(|s| {
        closing(s).send(ack(2).seq(2)).expect_nothing().reads_eof();
        is_time_wait(s);
    });
}
