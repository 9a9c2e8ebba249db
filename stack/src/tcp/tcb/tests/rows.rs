//! One segment in, the reaction: what Linux 6.18 was seen to do, row by row.

use std::time::Duration;

use super::harness::Out::{Ack, Fin, Rst};
use super::harness::*;
use crate::tcp::Counter::*;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{ConnError, State, TcpInfo};
use crate::wire::{Flags, Segment};

#[test]
fn a_pure_ack_in_the_window_is_accepted_silently() {
    for seq in [1, 101, 1 + W] {
        let mut c = Conn::new();
        assert_eq!(c.on(ack(seq)), []);
        assert_eq!(c.wait(1000), []);
        assert_eq!(c.count(BeyondWindow), 0);
    }
}

#[test]
fn a_pure_ack_beyond_the_window_is_answered() {
    let mut c = Conn::new();
    assert_eq!(c.on(ack(2 + W)), [Ack(1)]);
    assert_eq!(c.counted(), [(BeyondWindow, 1)]);
}

#[test]
fn data_across_the_right_edge_is_kept_whole_while_nothing_is_unread() {
    let mut c = Conn::new();
    assert_eq!(c.on(data(1 + W - 10, 20)), [Ack(1)]);
    assert_eq!(c.counted(), [(TCPOFOQueue, 1)]);
    assert_eq!(c.tcb.ofo.end().unwrap().raw().wrapping_sub(IRS), 1 + W + 10);
    let mut c = Conn::new();
    c.on(data(1, 1));
    assert_eq!(c.on(data(1 + W - 10, 20)), [Ack(2)]);
    assert_eq!((c.count(TCPOFOQueue), c.count(BeyondWindow)), (0, 1));
}

#[test]
fn data_at_the_right_edge_is_answered_and_dropped() {
    let mut c = Conn::new();
    assert_eq!(c.on(data(1 + W, 1)), [Ack(1)]);
    assert!(c.tcb.ofo.is_empty());
}

#[test]
fn data_without_ack_is_dropped_silently() {
    let mut c = Conn::new();
    assert_eq!(c.on(data(1, 3).flags(Flags::PSH)), []);
    assert_eq!((c.readable(), c.counted()), (0, vec![]));
}

#[test]
fn data_that_acknowledges_what_was_never_sent_is_challenged() {
    let mut c = Conn::new();
    assert_eq!(c.on(data(1, 3).acking(2)), [Ack(1)]);
    assert_eq!((c.readable(), c.counted()), (0, vec![(TCPChallengeACK, 1)]));
}

#[test]
fn a_rst_at_rcv_nxt_resets_whatever_its_ack_says() {
    for seg in [rst(1), Segment { flags: Flags::RST.with(Flags::ACK), ack: 77_777, ..ack(1) }] {
        let mut c = Conn::new();
        assert_eq!(c.on(seg), []);
        assert_eq!((c.state(), c.tcb.error()), (State::Closed, Some(ConnError::Reset)));
        assert_eq!(c.counted(), [(EstabResets, 1)]);
        assert_eq!(c.tcb.next_deadline(), None);
    }
}

#[test]
fn a_rst_elsewhere_in_the_window_is_challenged() {
    for seq in [2, 100, 1 + W] {
        let mut c = Conn::new();
        assert_eq!(c.on(rst(seq)), [Ack(1)]);
        assert_eq!((c.state(), c.counted()), (State::Established, vec![(TCPChallengeACK, 1)]));
    }
}

#[test]
fn a_rst_outside_the_window_is_dropped_silently() {
    for seq in [0, 2 + W] {
        let mut c = Conn::new();
        assert_eq!(c.on(rst(seq)), []);
        assert_eq!((c.state(), c.counted()), (State::Established, vec![]));
    }
}

#[test]
fn a_syn_is_challenged_whatever_its_number() {
    let syn_ack = syn(0).flags(Flags::SYN.with(Flags::ACK)).acking(1);
    let syn_fin = fin(1).flags(Flags::SYN.with(Flags::FIN).with(Flags::ACK));
    for seg in [syn(1), syn(0), syn_ack, syn_fin, syn(3_000_000_000), syn(100)] {
        let mut c = Conn::new();
        assert_eq!(c.on(seg), [Ack(1)], "{seg:?}");
        assert_eq!(c.counted(), [(InErrs, 1), (TCPChallengeACK, 1), (TCPSYNChallenge, 1)]);
        assert_eq!(c.rcv_nxt(), 1);
    }
}

#[test]
fn a_fin_before_any_data_is_acknowledged_at_the_next_tick() {
    let mut c = Conn::new();
    assert_eq!(c.on(fin(1)), []);
    assert_eq!((c.state(), c.tcb.eof(), c.readable()), (State::CloseWait, true, 0));
    assert_eq!(c.wait(1), [Ack(2)]);
    assert_eq!(c.counted(), [(DelayedACKs, 1)]);
}

#[test]
fn a_fin_after_data_is_acknowledged_after_the_delay() {
    let mut c = Conn::new();
    c.on(data(1, 3));
    c.read_all();
    assert_eq!(c.on(fin(4)), []);
    assert_eq!(c.wait(39), []);
    assert_eq!(c.wait(1), [Ack(5)]);
    assert_eq!(c.count(DelayedACKs), 1);
}

#[test]
fn data_and_fin_in_one_segment_get_one_delayed_ack() {
    let mut c = Conn::new();
    assert_eq!(c.on(data_fin(1, 3)), []);
    assert_eq!(c.wait(40), [Ack(5)]);
    c.read_all();
    assert_eq!((c.copied, c.tcb.eof()), (4, true));
}

#[test]
fn urgent_data_is_acknowledged_and_marked() {
    let mut c = Conn::new();
    assert_eq!(c.on(data(1, 5).urgent(3)), [Ack(6)]);
    let urgent = c.tcb.urgent().unwrap();
    assert_eq!((urgent.mark.raw().wrapping_sub(IRS), urgent.arrived), (3, true));

    let mut c = Conn::new();
    assert_eq!(c.on(data(1, 5).urgent(100)), [Ack(6)]);
    let urgent = c.tcb.urgent().unwrap();
    assert_eq!((urgent.mark.raw().wrapping_sub(IRS), urgent.arrived), (100, false));
    assert_eq!(c.readable(), 5);
}

#[test]
fn ecn_bits_and_timestamps_that_were_not_negotiated_change_nothing() {
    let ce = data(1, 3).flags(Flags::ACK.with(Flags::CWR).with(Flags::ECE));
    for seg in [ce, data(1, 3).ts(77)] {
        let mut c = Conn::new();
        assert_eq!(c.on(seg), [Ack(4)]);
        assert_eq!(c.readable(), 3);
        assert_eq!(c.raw[0].ts, None);
    }
}

#[test]
fn a_fin_in_fin_wait_1_is_acknowledged_at_once() {
    let mut c = Conn::new();
    assert_eq!(c.shutdown_write(), [Fin(1, 1)]);
    assert_eq!(c.on(fin(1)), [Ack(2)]);
    assert_eq!(c.state(), State::Closing);
}

#[test]
fn a_fin_that_acknowledges_ours_leads_to_time_wait() {
    let mut c = Conn::new();
    c.shutdown_write();
    assert_eq!(c.on(fin(1).acking(2)), [Ack(2)]);
    assert_eq!(c.state(), State::TimeWait);
}

#[test]
fn what_repeats_in_close_wait_is_acknowledged_at_once() {
    let mut c = Conn::new();
    c.on(fin(1));
    c.wait(100);
    for seg in [fin(1), data(0, 1)] {
        let before = c.count(DelayedACKLost);
        assert_eq!(c.on(seg), [Ack(2)]);
        assert_eq!(c.count(DelayedACKLost), before + 1);
    }
}

#[test]
fn data_behind_the_fin_is_ignored() {
    for seg in [data(2, 5), fin(2), data_fin(3, 5)] {
        let mut c = Conn::new();
        c.on(fin(1));
        c.wait(100);
        assert_eq!(c.on(seg), []);
        assert_eq!(c.wait(1000), []);
        assert_eq!((c.state(), c.rcv_nxt()), (State::CloseWait, 2));
    }
}

#[test]
fn data_across_the_fin_resets() {
    let mut c = Conn::new();
    c.on(fin(1));
    c.wait(100);
    assert_eq!(c.on(data(1, 5)), [Rst(1)]);
    assert_eq!((c.state(), c.tcb.error()), (State::Closed, Some(ConnError::BrokenPipe)));
    assert_eq!(c.count(TCPAbortOnData), 1);
}

#[test]
fn a_rst_at_the_fin_or_behind_it_resets() {
    for seq in [2, 1] {
        let mut c = Conn::new();
        c.on(fin(1));
        c.wait(100);
        assert_eq!(c.on(rst(seq)), []);
        assert_eq!((c.state(), c.tcb.error()), (State::Closed, Some(ConnError::BrokenPipe)));
        assert!(c.tcb.eof(), "the reader still sees the end of the stream first");
        assert_eq!(c.count(EstabResets), 1);
    }
}

#[test]
fn data_after_shutting_only_the_read_side_is_taken() {
    let mut c = Conn::new();
    c.tcb.shutdown_read();
    assert_eq!(c.on(data(1, 3)), [Ack(4)]);
    assert_eq!(c.readable(), 3);
}

#[test]
fn data_after_shutting_both_sides_resets() {
    let mut c = Conn::new();
    c.tcb.shutdown_read();
    assert_eq!(c.shutdown_write(), [Fin(1, 1)]);
    assert_eq!(c.on(data(1, 3)), [Rst(1)]);
    assert_eq!((c.state(), c.tcb.error()), (State::Closed, Some(ConnError::Reset)));
    assert_eq!(c.counted(), [(TCPAbortOnData, 1)]);
}

#[test]
fn a_fin_after_shutting_both_sides_is_acknowledged_at_once() {
    let mut c = Conn::new();
    c.tcb.shutdown_read();
    c.shutdown_write();
    assert_eq!(c.on(fin(1)), [Ack(2)]);
    assert_eq!(c.state(), State::Closing);
}

#[test]
fn data_with_a_slightly_old_ack_is_taken() {
    let mut c = Conn::new();
    let old = 1_u32.wrapping_sub(10);
    assert_eq!(c.on(data(1, 3).acking(old)), [Ack(1)], "but not the first of all");
    c.on(data(1, 3));
    assert_eq!(c.on(data(4, 3).acking(old)), [Ack(7)]);
    assert_eq!(c.readable(), 6);
}

#[test]
fn data_with_a_far_too_old_ack_is_challenged_even_where_its_header_was_predicted() {
    let mut c = Conn::new();
    assert_eq!(c.on(data(1, 3)), [Ack(4)]);
    assert_eq!(c.count(TCPHPHits), 1);
    assert_eq!(c.on(data(4, 3).acking(1_u32.wrapping_sub(70_000))), [Ack(4)]);
    assert_eq!((c.count(TCPChallengeACK), c.count(TCPHPHits)), (1, 1));
    assert_eq!(c.readable(), 3);
}

#[test]
fn a_connection_tells_what_was_agreed_on_and_where_it_stands() {
    let scale = Conn::with_scale_of(3);
    let mut c = Conn::of(&Opened { scale, sack_ok: true, mss: 1000, ..opened() });
    c.on(data(1, 700));
    c.on(fin(701));
    let info = c.tcb.info(c.world.now + Duration::from_millis(30));
    assert_eq!((info.tcpi_state, info.tcpi_options), (8, TcpInfo::SACK | TcpInfo::WSCALE));
    assert_eq!((info.tcpi_rcv_wscale, info.tcpi_snd_wscale), (3, 0));
    assert_eq!((info.tcpi_snd_mss, info.tcpi_advmss, info.tcpi_rcv_mss), (1000, 1460, 700));
    assert_eq!(info.tcpi_pmtu, 1500);
    // The FIN counts, as in Linux.
    assert_eq!(info.tcpi_bytes_received, 701);
    assert_eq!((info.tcpi_segs_in, info.tcpi_data_segs_in, info.tcpi_segs_out), (3, 1, 1));
    assert_eq!((info.tcpi_last_data_recv, info.tcpi_last_ack_recv), (30, 30));
    assert_eq!((info.tcpi_ato, c.tcb.is_quick_ack()), (40_000, false));
    assert_eq!(c.tcb.mem_info().rmem_alloc, c.tcb.rmem());
}
