//! FINs, resets, orphans, timers of closing.

use std::time::Duration;

use super::harness::Out::{Ack, Fin, Rst, RstAck};
use super::harness::*;
use crate::tcp::Counter::*;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{ConnError, State};
use crate::tcp::time_wait::Phase;

const MINUTE: Duration = Duration::from_secs(60);

fn phase(c: &Conn) -> Option<Phase> {
    c.tcb.time_wait(&c.world.settings).map(|ending| ending.phase)
}

#[test]
fn close_sends_fin_and_a_fin_in_answer_ends_in_time_wait() {
    let mut c = Conn::new();
    assert_eq!(c.close(), [Fin(1, 1)]);
    assert_eq!(c.state(), State::FinWait1);
    assert_eq!(phase(&c), None);
    assert_eq!(c.on(ack(1).acking(2)), []);
    assert_eq!((c.state(), c.tcb.next_deadline()), (State::FinWait2, None));
    assert_eq!(phase(&c), Some(Phase::FinWait2(MINUTE)));
    assert_eq!(c.on(fin(1).acking(2)), [Ack(2)]);
    assert_eq!((c.state(), phase(&c)), (State::TimeWait, Some(Phase::TimeWait)));
    let ending = c.tcb.time_wait(&c.world.settings).unwrap();
    assert_eq!(ending.snd_nxt.raw(), ISS.wrapping_add(2));
    assert_eq!(ending.rcv_nxt.raw(), IRS.wrapping_add(2));
}

#[test]
fn simultaneous_close_passes_through_closing() {
    let mut c = Conn::new();
    c.close();
    assert_eq!(c.on(fin(1)), [Ack(2)]);
    assert_eq!((c.state(), phase(&c)), (State::Closing, None));
    assert_eq!(c.on(ack(2).acking(2)), []);
    assert_eq!(phase(&c), Some(Phase::TimeWait));
}

#[test]
fn close_after_the_peers_fin_ends_with_the_ack_of_ours() {
    let mut c = Conn::new();
    c.on(fin(1));
    assert_eq!(c.close(), [Fin(1, 2)]);
    assert_eq!(c.state(), State::LastAck);
    assert_eq!(c.wait(100), [], "the FIN carried the ACK");
    assert_eq!(c.on(ack(2).acking(2)), []);
    assert_eq!((c.state(), c.tcb.error(), phase(&c)), (State::Closed, None, None));
    assert_eq!(c.count(EstabResets), 0);
}

#[test]
fn a_fin_above_a_hole_resets_what_nobody_will_read() {
    let mut c = Conn::new();
    c.tcb.shutdown_read();
    c.shutdown_write();
    assert_eq!(c.on(fin(1)), [Ack(2)], "in sequence it is welcome");
    let mut c = Conn::new();
    c.tcb.shutdown_read();
    c.shutdown_write();
    assert_eq!(c.on(fin(500)), [Rst(1)]);
    assert_eq!((c.state(), c.count(TCPAbortOnData)), (State::Closed, 1));
}

#[test]
fn a_fin_that_ends_no_hole_frees_nothing() {
    let mut c = Conn::new();
    let mut seq = c.settle();
    c.on(data(seq, 1460));
    seq += 1460;
    c.wait(300);
    c.tcb.ack.quick = 0;
    // The window falls behind what was promised: the ACK waits for the reader.
    c.tcb.window.rmem += c.tcb.rcvbuf() / 3;
    assert_eq!(c.on(data_fin(seq, 1460)), []);
    assert_eq!(c.read(0), [], "nobody has read, and nothing has come back");
}

#[test]
fn half_close_lets_data_flow_for_ever() {
    let mut c = Conn::new();
    assert_eq!(c.shutdown_write(), [Fin(1, 1)]);
    assert_eq!(c.shutdown_write(), []);
    c.on(ack(1).acking(2));
    assert_eq!((c.state(), phase(&c)), (State::FinWait2, None));
    c.wait(10 * 24 * 3600 * 1000);
    c.on(data(1, 1000).acking(2));
    c.wait(300);
    assert_eq!(c.readable(), 1000);
    c.read_all();
    assert_eq!(c.close(), []);
    assert_eq!(phase(&c), Some(Phase::FinWait2(MINUTE)));
}

#[test]
fn close_with_unread_data_resets() {
    let mut c = Conn::new();
    c.on(data(1, 100));
    assert_eq!(c.close(), [RstAck(1, 101)]);
    assert_eq!((c.state(), c.count(TCPAbortOnClose), c.tcb.rmem()), (State::Closed, 1, 0));
}

#[test]
fn close_with_a_partly_read_segment_resets_and_with_a_read_one_does_not() {
    let mut c = Conn::new();
    c.on(data(1, 100));
    c.read(99);
    let copied = c.copied;
    assert_eq!(copied, 100);
    let mut other = Conn::new();
    other.on(data(1, 100));
    other.read(100);
    assert_eq!(other.close(), [Fin(1, 101)]);
    assert_eq!(c.close(), [RstAck(1, 101)]);
}

#[test]
fn close_in_time_wait_or_after_a_reset_sends_nothing_even_if_data_is_unread() {
    let mut c = Conn::new();
    c.shutdown_write();
    c.on(data_fin(1, 100).acking(2));
    assert_eq!((c.state(), c.readable()), (State::TimeWait, 100));
    assert_eq!(c.close(), []);
    assert_eq!(phase(&c), Some(Phase::TimeWait));

    let mut c = Conn::new();
    c.on(data(1, 100));
    c.on(rst(101));
    assert_eq!(c.close(), []);
    assert_eq!((c.count(TCPAbortOnClose), c.tcb.rmem()), (0, 0));
}

#[test]
fn close_with_only_out_of_order_data_sends_fin() {
    let mut c = Conn::new();
    c.on(data(101, 100));
    assert_eq!(c.close(), [Fin(1, 1)]);
    assert_eq!(c.count(TCPAbortOnClose), 0);
}

#[test]
fn a_rst_of_ours_carries_the_options_of_an_ack() {
    let mut c = Conn::with_sack();
    c.on(data(1, 100));
    c.on(data(201, 100));
    assert_eq!(c.close(), [RstAck(1, 101)]);
    let block = [201, 301].map(|seq| IRS.wrapping_add(seq));
    assert_eq!(c.raw.last().unwrap().sack[..], [(block[0], block[1])]);
}

#[test]
fn an_unread_fin_is_not_unread_data() {
    let mut c = Conn::new();
    c.on(fin(1));
    assert_eq!(c.close(), [Fin(1, 2)]);
}

#[test]
fn linger_zero_resets() {
    let mut c = Conn::new();
    let out = c.tcb.close(&mut c.world.cx(), c.tcb.edge(), true).unwrap();
    assert_eq!(Out::of(&out), RstAck(1, 1));
    assert_eq!((c.state(), c.count(TCPAbortOnData)), (State::Closed, 1));
}

#[test]
fn data_to_an_orphan_resets() {
    for acking in [1, 2] {
        let mut c = Conn::new();
        c.close();
        assert_eq!(c.on(data(1, 5).acking(acking)), [Rst(acking)]);
        assert_eq!((c.state(), c.count(TCPAbortOnData)), (State::Closed, 1));
    }
}

#[test]
fn old_data_to_an_orphan_is_acknowledged() {
    let mut c = Conn::new();
    c.on(data(1, 5));
    c.read_all();
    c.close();
    assert_eq!(c.on(data(1, 5)), [Ack(6)]);
    assert_eq!(c.state(), State::FinWait1);
    assert_eq!(c.on(data(1, 5).acking(2)), [], "what acknowledges our FIN makes a record of it");
    assert_eq!(c.state(), State::FinWait2);
    assert!(c.tcb.time_wait(&c.world.settings).is_some());
    let mut c = Conn::new();
    c.close();
    assert_eq!(c.on(fin(0).acking(2)), [Ack(1)], "it had better know that its FIN was none");
}

/// A connection whose retransmission timeout is a second, by a third of one there and back.
fn with_timeout_of_a_second() -> Conn {
    Conn::of(&Opened { synack_rtt: Some(Duration::from_micros(333_333)), ..opened() })
}

/// The gaps between the FINs of a connection that hears nothing, and the last one before it is given up
/// without a word.
fn gaps(c: &mut Conn) -> Vec<u64> {
    let mut gaps = Vec::new();
    loop {
        let gap = c.due_in().unwrap();
        gaps.push(gap);
        if c.wait(gap) != [Fin(1, 1)] {
            assert_eq!((c.state(), c.tcb.error()), (State::Closed, Some(ConnError::TimedOut)));
            assert_eq!(c.tcb.next_deadline(), None);
            return gaps;
        }
    }
}

#[test]
fn an_orphans_fin_is_repeated_for_as_long_as_eight_least_timeouts_double() {
    let mut c = with_timeout_of_a_second();
    c.close();
    assert_eq!(gaps(&mut c), [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000]);
    let counted = [TCPTimeouts, RetransSegs, TCPAbortOnTimeout].map(|counter| c.count(counter));
    assert_eq!(counted, [7, 6, 1]);
}

#[test]
fn an_orphan_whose_timeout_is_at_its_most_is_given_up() {
    let mut c = Conn::of(&Opened { synack_rtt: Some(Duration::from_millis(10)), ..opened() });
    c.world.settings.tcp_rto_max_ms = Duration::from_secs(1);
    c.close();
    assert_eq!(gaps(&mut c), [210, 420, 840, 1000]);
}

#[test]
fn limits_of_retransmissions_are_a_time_that_fewer_take_on_a_distant_path() {
    for (rtt, retries, expected) in [
        (10, 2, &[210, 420, 840, 1680][..]),
        (500, 4, &[1500, 3000, 6000]),
        (500, 1, &[1500, 3000]),
        (10, 1, &[210, 420, 840]),
    ] {
        for orphan in [false, true] {
            let rtt = Some(Duration::from_millis(rtt));
            let mut c = Conn::of(&Opened { synack_rtt: rtt, ..opened() });
            if orphan {
                c.world.settings.tcp_orphan_retries = retries;
                c.close();
            } else {
                c.world.settings.tcp_retries2 = retries;
                c.shutdown_write();
            }
            assert_eq!(gaps(&mut c), expected, "{rtt:?}, {retries} retransmissions");
        }
    }
}

#[test]
fn a_user_timeout_counts_from_the_first_repetition() {
    let rtt = Some(Duration::from_millis(10));
    let mut c = Conn::of(&Opened { synack_rtt: rtt, ..opened() });
    c.tcb.set_user_timeout(Some(Duration::from_secs(1)));
    c.shutdown_write();
    assert_eq!(gaps(&mut c), [210, 420, 580]);
    let mut c = Conn::of(&Opened { synack_rtt: rtt, ..opened() });
    c.tcb.set_user_timeout(Some(Duration::from_millis(1)));
    c.close();
    assert_eq!(gaps(&mut c), [210, 1], "once at least");
}

#[test]
fn with_sack_the_fin_is_probed_for_before_its_timeout() {
    let rtt = Some(Duration::from_millis(500));
    let mut c = Conn::of(&Opened { synack_rtt: rtt, sack_ok: true, ..opened() });
    c.close();
    let mut gaps = Vec::new();
    for _ in 0..4 {
        let gap = c.due_in().unwrap();
        gaps.push(gap);
        assert_eq!(c.wait(gap), [Fin(1, 1)]);
    }
    assert_eq!(gaps, [1200, 1500, 3000, 6000], "the probe does not back off");
    let counted = [TCPLossProbes, TCPTimeouts, RetransSegs].map(|counter| c.count(counter));
    assert_eq!(counted, [1, 3, 4]);
    let mut c = Conn::of(&Opened { sack_ok: true, ..opened() });
    c.close();
    assert_eq!(c.due_in(), Some(1000), "no later than the timeout");
}

#[test]
fn the_fin_of_a_held_socket_is_repeated_for_a_quarter_of_an_hour() {
    let mut c = with_timeout_of_a_second();
    c.shutdown_write();
    let gaps = gaps(&mut c);
    assert_eq!(gaps[..8], [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 120_000]);
    // 924.6 s from the first on, which tcp_retries2 is known for.
    assert_eq!(gaps[1..].iter().sum::<u64>().div_ceil(1000), 966);
}

#[test]
fn the_round_trip_of_the_handshake_sets_the_timeout() {
    let due = |synack_rtt, sack_ok| {
        let mut c = Conn::of(&Opened { synack_rtt, sack_ok, ..opened() });
        c.close();
        c.due_in().unwrap()
    };
    assert_eq!(due(Some(Duration::from_millis(10)), false), 210);
    assert_eq!(due(Some(Duration::from_millis(400)), false), 400 + 4 * 200);
    // A SYN-ACK that had to be repeated measures nothing: three seconds, or one to a probe.
    assert_eq!((due(None, false), due(None, true)), (3000, 1000));
}

#[test]
fn a_long_fin_timeout_keeps_the_orphan_until_a_minute_is_left() {
    let mut c = Conn::new();
    c.world.settings.tcp_fin_timeout = Duration::from_secs(100);
    c.close();
    c.on(ack(1).acking(2));
    assert_eq!((phase(&c), c.due_in()), (None, Some(40_000)));
    assert_eq!(c.wait(40_000), []);
    assert_eq!((phase(&c), c.tcb.next_deadline()), (Some(Phase::FinWait2(MINUTE)), None));
}

#[test]
fn an_orphan_waits_at_least_three_and_a_half_timeouts() {
    let rtt = Some(Duration::from_secs(10));
    let mut c = Conn::of(&Opened { synack_rtt: rtt, ..opened() });
    c.close();
    // 10 s and four times 5 s: 30 s; after the FIN's own sample of 10 s the deviation is 3.75 s.
    c.wait(10_000);
    c.on(ack(1).acking(2));
    assert_eq!(c.due_in(), Some(25_000 * 7 / 2 - 60_000));
}

#[test]
fn abort_resets_and_leaves_nothing_to_do() {
    let mut c = Conn::new();
    c.on(data(1, 100));
    let out = c.tcb.abort(&mut c.world.cx()).unwrap();
    assert_eq!(Out::of(&out), RstAck(1, 101));
    assert_eq!(c.tcb.abort(&mut c.world.cx()), None);
    assert_eq!(c.tcb.next_deadline(), None);
    assert_eq!(c.on(data(101, 100)), []);
    assert_eq!(c.readable(), 100);
}

#[test]
fn an_orphan_too_many_is_reset() {
    let mut c = Conn::new();
    c.close();
    assert!(c.tcb.is_orphan());
    let out = c.tcb.abort_orphan(&mut c.world.cx()).unwrap();
    assert_eq!((Out::of(&out), c.count(TCPAbortOnMemory)), (RstAck(2, 1), 1));
}

#[test]
fn a_rst_ends_every_closing_state() {
    let closed = |mut c: Conn, seq| {
        assert_eq!(c.on(rst(seq)), []);
        assert_eq!(c.state(), State::Closed);
        assert_eq!(c.count(EstabResets), 0);
    };
    let mut c = Conn::new();
    c.close();
    closed(c, 1);
    let mut c = Conn::new();
    c.close();
    c.on(fin(1));
    closed(c, 1);
    let mut c = Conn::new();
    c.on(fin(1));
    c.close();
    closed(c, 2);
}

#[test]
fn a_fin_repeated_in_closing_is_acknowledged() {
    let mut c = Conn::new();
    c.close();
    c.on(fin(1));
    assert_eq!(c.on(fin(1)), [Ack(2)]);
    assert_eq!(c.state(), State::Closing);
}

#[test]
fn a_second_fin_behind_the_first_moves_nothing() {
    let mut c = Conn::new();
    c.on(data_fin(1, 10));
    assert_eq!((c.rcv_nxt(), c.state()), (12, State::CloseWait));
    // Its payload is old, and its FIN would stand where the stream has ended.
    assert_eq!(c.on(data_fin(10, 2)), [Ack(12)]);
    assert_eq!((c.rcv_nxt(), c.readable()), (12, 10));
}
