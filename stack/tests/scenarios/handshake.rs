//! From the SYN to the connection, and every segment that can come between.

use std::time::Duration;

use prequeue::tcp::Counter;
use prequeue::wire::Flags;

use crate::dsl::{
    Scene, ack, acks, data, fin, rst, rst_ack, rst_of, scenario, scenario_with, seg, syn, syn_ack,
};

const SYN: Flags = Flags::SYN;
const ACK: Flags = Flags::ACK;

/// A half-open connection.
fn half_open(s: &mut Scene) -> &mut Scene {
    s.send(syn()).expect(syn_ack())
}

/// `n` numbers before the peer's SYN.
fn back(n: u32) -> u32 {
    0_u32.wrapping_sub(n)
}

#[test]
fn the_final_ack_opens_and_is_not_answered() {
    scenario(|s| {
        half_open(s).accepts_nothing();
        s.send(ack(1)).expect_nothing().accepts().reads_nothing();
        s.counted(Counter::PassiveOpens, 1);
    });
}

#[test]
fn without_options_the_window_is_whole_segments_of_1460_bytes() {
    scenario(|s| {
        s.send(seg(SYN, 0))
            .expect(syn_ack().window(64_240).options(1460, None, false).without_ts());
    });
}

#[test]
fn with_all_options_the_syn_ack_has_them_too() {
    scenario(|s| {
        let syn = syn().sack_permitted().ts(700, 0).scale(7);
        s.send(syn).expect(syn_ack().window(65_160).options(1460, Some(10), true).ts(700));
    });
}

#[test]
fn each_option_is_answered_only_if_it_was_offered() {
    scenario(|s| {
        s.send(syn().scale(14)).expect(syn_ack().options(1460, Some(10), false).without_ts());
        s.peer(1).send(syn().sack_permitted());
        s.expect(syn_ack().options(1460, None, true).without_ts());
        s.peer(2).send(syn().ts(5, 0)).expect(syn_ack().options(1460, None, false).ts(5));
    });
}

#[test]
fn options_that_are_switched_off_are_not_answered() {
    scenario_with(
        |settings| {
            settings.tcp_timestamps = 0;
            settings.tcp_sack = false;
            settings.tcp_window_scaling = false;
        },
        |s| {
            let syn = syn().sack_permitted().ts(700, 0).scale(7);
            s.send(syn).expect(syn_ack().window(64_240).options(1460, None, false).without_ts());
        },
    );
}

#[test]
fn syn_acks_are_repeated_five_times_and_then_forgotten() {
    scenario(|s| {
        half_open(s);
        for gap in [1000, 2000, 4000, 8000, 16_000] {
            s.expect_after(gap..=gap + 10, syn_ack());
        }
        s.counted(Counter::TCPSynRetrans, 5).wait(32_100);
        s.send(ack(1)).expect(rst_of(1));
    });
}

#[test]
fn a_repeated_syn_is_answered_at_once_but_once_in_500_ms() {
    scenario(|s| {
        half_open(s).wait(10);
        s.send(syn()).expect(syn_ack()).wait(50);
        s.send(syn()).expect_nothing();
        s.counted(Counter::TCPACKSkippedSynRecv, 1).wait(550);
        s.send(syn()).expect(syn_ack());
    });
}

#[test]
fn another_syn_in_the_window_ends_the_request() {
    scenario(|s| {
        half_open(s).send(syn().seq(500)).expect(rst_ack(501));
        s.send(ack(1)).expect(rst_of(1)).accepts_nothing();
        s.counted(Counter::AttemptFails, 1).counted(Counter::EmbryonicRsts, 1);
    });
}

#[test]
fn an_old_syn_is_told_where_we_are() {
    scenario(|s| {
        half_open(s).send(syn().seq(back(500))).expect(acks(1));
        s.send(ack(1)).accepts();
    });
}

#[test]
fn an_exact_rst_ends_the_request() {
    scenario(|s| {
        half_open(s).send(rst(1)).expect_nothing();
        s.counted(Counter::AttemptFails, 1).counted(Counter::EmbryonicRsts, 1);
        s.send(ack(1)).expect(rst_of(1));
    });
}

#[test]
fn a_rst_elsewhere_in_the_window_is_challenged() {
    scenario(|s| {
        half_open(s).send(rst(100)).expect(acks(1));
        s.send(ack(1)).accepts();
    });
}

#[test]
fn a_rst_outside_of_the_window_is_ignored() {
    scenario(|s| {
        half_open(s).send(rst(back(100))).expect_nothing();
        s.send(ack(1)).accepts();
    });
}

#[test]
fn an_ack_of_something_else_is_reset_and_the_right_one_still_opens() {
    scenario(|s| {
        half_open(s).send(ack(2)).expect(rst_of(2));
        s.send(ack(1)).accepts();
    });
}

#[test]
fn an_ack_beyond_the_window_is_told_where_we_are() {
    scenario(|s| {
        half_open(s).send(ack(1).seq(200_000)).expect(acks(1));
        s.send(ack(1)).accepts();
    });
}

#[test]
fn payload_of_the_final_ack_is_delivered() {
    scenario(|s| {
        half_open(s).send(data(1, 5)).expect_after(0..=45, acks(6)).accepts().reads(1..6);
    });
}

#[test]
fn payload_and_fin_of_the_final_ack_are_delivered() {
    scenario(|s| {
        half_open(s).send(fin(1).len(5)).expect_after(0..=45, acks(7));
        s.accepts().reads(1..6).reads_eof();
    });
}

#[test]
fn data_without_ack_is_lost() {
    scenario(|s| {
        half_open(s).send(data(1, 5).without(ACK)).expect_nothing();
        s.send(ack(1)).expect_nothing().accepts().reads_nothing();
    });
}

#[test]
fn a_fin_without_ack_is_ignored() {
    scenario(|s| {
        half_open(s).send(fin(1).without(ACK)).expect_nothing();
        s.send(ack(1)).expect_nothing().accepts().reads_nothing();
    });
}

#[test]
fn data_ahead_of_its_turn_opens_and_waits_for_it() {
    scenario(|s| {
        half_open(s).send(data(11, 5)).expect(acks(1)).accepts().reads_nothing();
        s.send(data(1, 10)).expect(acks(16)).reads(1..16);
    });
}

#[test]
fn a_syn_ack_is_told_where_we_are() {
    scenario(|s| {
        half_open(s).send(syn().and(ACK).ack(1)).expect(acks(1)).accepts_nothing();
        s.send(ack(1)).accepts();
    });
}

#[test]
fn payload_of_the_syn_is_not_acknowledged() {
    scenario(|s| {
        s.send(syn().len(500)).expect(syn_ack());
        s.send(data(1, 500)).expect_after(0..=45, acks(501)).accepts().reads(1..501);
    });
}

#[test]
fn an_older_timestamp_does_not_open() {
    scenario(|s| {
        s.send(syn().ts(700, 0)).expect(syn_ack().ts(700));
        s.send(ack(1).ts(699, 0)).expect(acks(1).ts(700)).accepts_nothing();
        s.counted(Counter::PAWSEstab, 1);
        s.send(ack(1).ts(700, 0)).expect_nothing().accepts();
    });
}

#[test]
fn a_full_accept_queue_drops_syns_silently() {
    scenario(|s| {
        s.listen(7001, 0);
        s.send(syn()).expect(syn_ack());
        s.send(ack(1)).expect_nothing();
        s.peer(1).send(syn()).expect_nothing().wait(3000);
        s.counted(Counter::ListenOverflows, 1).counted(Counter::ListenDrops, 1);
        s.peer(0).accepts();
        s.peer(1).send(syn()).expect(syn_ack());
    });
}

/// The request of peer 1 is complete when those of peers 0 and 2 have filled the accept queue.
fn finds_the_queue_full(s: &mut Scene) {
    s.listen(7001, 1);
    s.send(syn()).expect(syn_ack()).send(ack(1)).expect_nothing();
    s.peer(1).send(syn()).expect(syn_ack());
    s.peer(2).send(syn()).expect(syn_ack()).send(ack(1)).expect_nothing();
    s.peer(1).send(ack(1));
}

#[test]
fn a_final_ack_that_finds_the_accept_queue_full_is_as_good_as_lost() {
    scenario(|s| {
        finds_the_queue_full(s);
        s.expect_nothing().counted(Counter::ListenOverflows, 1);
        s.expect_after(1000..=1010, syn_ack());
        s.send(data(1, 100)).expect_nothing();
        s.expect_after(2000..=2010, syn_ack());
        s.peer(0).accepts().peer(2).accepts();
        s.peer(1).send(data(1, 100)).expect_after(0..=45, acks(101)).accepts().reads(1..101);
    });
}

#[test]
fn a_client_that_found_the_accept_queue_full_to_the_end_is_reset() {
    scenario(|s| {
        finds_the_queue_full(s);
        for gap in [1000, 2000, 4000, 8000, 16_000] {
            s.expect_after(gap..=gap + 10, syn_ack());
        }
        s.wait(32_100);
        s.send(data(1, 10)).expect(rst_of(1));
    });
}

#[test]
fn tcp_abort_on_overflow_resets_the_client() {
    scenario_with(
        |settings| settings.tcp_abort_on_overflow = true,
        |s| {
            finds_the_queue_full(s);
            s.expect(rst_of(1)).counted(Counter::EmbryonicRsts, 1);
            s.send(data(1, 100)).expect(rst_of(1));
        },
    );
}

#[test]
fn tcp_synack_retries_bounds_the_repetitions() {
    scenario_with(
        |settings| settings.tcp_synack_retries = 1,
        |s| {
            half_open(s).expect_after(1000..=1010, syn_ack()).wait(10_000);
            s.send(ack(1)).expect(rst_of(1));
        },
    );
}

#[test]
fn tcp_invalid_ratelimit_of_zero_answers_every_time() {
    scenario_with(
        |settings| settings.tcp_invalid_ratelimit = Duration::ZERO,
        |s| {
            half_open(s);
            for _ in 0..3 {
                s.send(syn()).expect(syn_ack());
            }
        },
    );
}
