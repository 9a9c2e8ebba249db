//! After the end: what a closed connection's four-tuple answers, and how it is used again.

use prequeue::tcp::Counter;
use prequeue::wire::Flags;

use crate::dsl::{Scene, ack, acks, data, fin, fin_ack, rst, rst_of, scenario, scenario_with};
use crate::dsl::{seg, syn, syn_ack};

/// A connection that we closed first: both FINs are acknowledged. Next are their 2 and our 2.
fn time_wait(s: &mut Scene) -> &mut Scene {
    s.opens().closes().expect(fin_ack(1));
    s.send(fin(1).ack(2)).expect(acks(2))
}

/// The same with timestamps, the last one being 700.
fn time_wait_with_timestamps(s: &mut Scene) -> &mut Scene {
    s.send(syn().ts(700, 0)).expect(syn_ack());
    s.send(ack(1).ts(700, 0)).accepts().closes().expect(fin_ack(1));
    s.send(fin(1).ack(2).ts(700, 0)).expect(acks(2))
}

/// The SYN opens a new connection, as far beyond the old one as it has to be.
fn opens_again(s: &mut Scene, syn_at: u32, syn: crate::dsl::Seg) {
    let old = s.reborn(syn_at);
    s.send(syn).expect(syn_ack());
    assert_eq!(s.iss(), old.wrapping_add(2 + 65_537));
    s.send(ack(1)).accepts().send(data(1, 10)).expect_after(0..=45, acks(11)).reads(1..11);
    s.counted(Counter::TWRecycled, 1);
}

#[test]
fn it_lasts_a_minute() {
    scenario(|s| {
        time_wait(s).wait(59_900);
        s.send(seg(Flags::SYN, 1)).expect(acks(2)).wait(200);
        s.send(ack(2).seq(2)).expect(rst_of(2)).counted(Counter::TW, 1);
    });
}

#[test]
fn a_repeated_fin_is_acknowledged_and_starts_another_minute() {
    scenario(|s| {
        time_wait(s).wait(30_000);
        s.send(fin(1).ack(2)).expect(acks(2)).wait(59_900);
        s.send(data(1, 1).ack(2)).expect(acks(2)).wait(59_900);
        s.send(fin(1).ack(2)).expect(acks(2)).wait(60_100);
        s.send(fin(1).ack(2)).expect(rst_of(2));
    });
}

#[test]
fn the_expected_empty_ack_is_not_answered() {
    scenario(|s| {
        time_wait(s).send(ack(2).seq(2)).expect_nothing();
    });
}

#[test]
fn data_is_acknowledged_and_never_reset() {
    scenario(|s| {
        time_wait(s);
        for seq in [1, 2, 50, 100_000] {
            s.send(data(seq, 10).ack(2)).expect(acks(2));
        }
    });
}

#[test]
fn a_newer_syn_opens_again() {
    scenario(|s| {
        time_wait(s);
        opens_again(s, 3, syn());
    });
    scenario(|s| {
        time_wait(s);
        opens_again(s, 1_000_000, syn());
    });
}

#[test]
fn an_older_syn_does_not() {
    scenario(|s| {
        time_wait(s).send(seg(Flags::SYN, 2)).expect(acks(2));
        s.send(seg(Flags::SYN, 1)).expect_nothing();
        s.counted(Counter::TCPACKSkippedTimeWait, 1).counted(Counter::TWRecycled, 0);
    });
}

#[test]
fn a_newer_timestamp_lets_an_older_syn_open_again() {
    scenario(|s| {
        time_wait_with_timestamps(s);
        let old = s.reborn(0_u32.wrapping_sub(5000));
        s.send(syn().ts(701, 0)).expect(syn_ack().ts(701));
        assert_eq!(s.iss(), old.wrapping_add(2 + 65_537));
    });
}

#[test]
fn an_older_timestamp_keeps_even_a_newer_syn_out() {
    scenario(|s| {
        time_wait_with_timestamps(s).send(seg(Flags::SYN, 500).ts(699, 0)).expect(acks(2));
        s.counted(Counter::PAWSTimewait, 1).counted(Counter::TWRecycled, 0);
    });
}

#[test]
fn an_exact_rst_ends_it() {
    scenario(|s| {
        time_wait(s).send(rst(2)).expect_nothing();
        s.send(fin(1).ack(2)).expect(rst_of(2));
    });
}

#[test]
fn tcp_rfc1337_ignores_the_rst() {
    scenario_with(
        |settings| settings.tcp_rfc1337 = true,
        |s| {
            time_wait(s).send(rst(2)).expect_nothing();
            s.send(fin(1).ack(2)).expect(acks(2));
        },
    );
}

#[test]
fn any_other_rst_is_ignored() {
    scenario(|s| {
        time_wait(s).send(rst(1)).expect_nothing().send(rst(3)).expect_nothing();
        s.send(fin(1).ack(2)).expect(acks(2));
    });
}
