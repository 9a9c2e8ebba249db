//! Segments of no connection: at a listener, at a closed port, and malformed ones.

use prequeue::tcp::Counter;
use prequeue::wire::Flags;

use crate::dsl::{ack, data, fin, rst, rst_ack, rst_of, scenario, seg, syn, syn_ack};

/// Where nobody listens.
const CLOSED: u16 = 7999;

#[test]
fn a_closed_port_refuses() {
    scenario(|s| {
        s.aims_at(CLOSED).send(syn()).expect(rst_ack(1));
        s.send(ack(555)).expect(rst_of(555));
        s.send(fin(100).len(3).without(Flags::ACK)).expect(rst_ack(104));
        s.counted(Counter::OutRsts, 3);
        s.send(rst(1)).expect_nothing();
        s.send(rst(1).and(Flags::ACK)).expect_nothing();
    });
}

#[test]
fn a_listener_ignores_what_neither_asks_nor_acknowledges() {
    scenario(|s| {
        let flags = [
            Flags::default(),
            Flags::FIN,
            Flags::PSH,
            Flags::RST,
            Flags::SYN.with(Flags::FIN),
            Flags::SYN.with(Flags::RST),
            Flags::RST.with(Flags::ACK),
        ];
        for flags in flags {
            s.send(seg(flags, 100)).expect_nothing();
        }
        s.counted(Counter::OutRsts, 0).counted(Counter::ListenDrops, 0);
    });
}

#[test]
fn a_listener_resets_whoever_acknowledges() {
    scenario(|s| {
        s.send(syn().and(Flags::ACK).ack(77)).expect(rst_of(77));
        s.send(ack(78)).expect(rst_of(78));
        s.send(data(5, 10).ack(79)).expect(rst_of(79));
        s.counted(Counter::OutRsts, 3);
    });
}

#[test]
fn push_urgent_and_ecn_bits_do_not_hinder_a_syn() {
    scenario(|s| {
        s.send(syn().and(Flags::PSH).urgent(5)).expect(syn_ack());
        let asks = Flags::ECE.with(Flags::CWR);
        s.peer(1).send(syn().and(asks)).expect(syn_ack().and(Flags::ECE).any_seq());
    });
}

#[test]
fn malformed_options_do_not_hinder_a_syn() {
    scenario(|s| {
        let lists: [&[u8]; 9] = [
            &[2],
            &[2, 0],
            &[2, 1],
            &[2, 5, 5, 0xb4],
            &[3, 40, 7, 0],
            &[8, 10, 1, 2],
            &[0, 2, 4, 5],
            &[1; 40],
            &[254, 2, 255, 2],
        ];
        for (n, list) in lists.into_iter().enumerate() {
            s.peer(n).send(seg(Flags::SYN, 0).option(list));
            s.expect(syn_ack().options(1460, None, false).without_ts());
        }
    });
}

#[test]
fn options_before_the_malformed_one_count_and_those_behind_do_not() {
    scenario(|s| {
        let syn = seg(Flags::SYN, 0).sack_permitted().option(&[8, 1]).scale(7);
        s.send(syn).expect(syn_ack().options(1460, None, true));
        let syn = seg(Flags::SYN, 0).sack_permitted().option(&[0]).scale(7);
        s.peer(1).send(syn).expect(syn_ack().options(1460, None, true));
    });
}

#[test]
fn a_known_option_of_a_wrong_length_is_skipped() {
    scenario(|s| {
        let syn = seg(Flags::SYN, 0).option(&[4, 3, 0]).scale(7);
        s.send(syn).expect(syn_ack().options(1460, Some(10), false));
    });
}

#[test]
fn bad_checksums_and_offsets_are_counted_and_never_answered() {
    scenario(|s| {
        s.send(syn().bad_checksum()).expect_nothing();
        s.counted(Counter::InErrs, 1).counted(Counter::InCsumErrors, 1);
        s.send(syn().data_offset(4)).expect_nothing();
        s.counted(Counter::InErrs, 2).counted(Counter::InCsumErrors, 1);
        s.send(seg(Flags::SYN, 0).data_offset(15)).expect_nothing();
        s.send(syn().cut_to(10)).expect_nothing();
        s.counted(Counter::InErrs, 2).counted(Counter::InSegs, 4);
        s.aims_at(CLOSED).send(syn().bad_checksum()).expect_nothing();
        s.send(rst(1).bad_checksum()).expect_nothing();
    });
}

#[test]
fn the_padding_of_a_short_frame_is_not_payload() {
    scenario(|s| {
        s.opens();
        s.send(ack(1)).expect_nothing().reads_nothing();
        s.send(data(1, 1)).expect_after(0..=45, crate::dsl::acks(2)).reads(1..2);
    });
}
