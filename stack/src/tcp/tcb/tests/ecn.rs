//! Marks that are echoed until the sender has slowed down.

use super::harness::*;
use crate::tcp::request::Opened;
use crate::tcp::tcb::TcpInfo;
use crate::wire::{Flags, Segment};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// A connection with ECN and SACK that is past its first ACKs at once.
fn conn() -> Conn {
    let mut c = Conn::of(&Opened { ecn_ok: true, sack_ok: true, ..opened() });
    for n in 0..20 {
        c.on(marked(ECT_0, data(1 + 1000 * n, 1000)));
        c.read(1000);
    }
    c.wait(500);
    c.raw.clear();
    c
}

/// Where [`conn`] is.
const NEXT: u32 = 20_001;

fn marked(ecn: u8, seg: Segment) -> Segment {
    Segment { ecn, ..seg }
}

fn cwr(seg: Segment) -> Segment {
    Segment { flags: seg.flags.with(Flags::CWR), ..seg }
}

/// Whether each of what was sent since the last call has ECE.
fn echoes(c: &mut Conn) -> Vec<bool> {
    c.raw.drain(..).map(|out| out.flags.has(Flags::ECE)).collect()
}

#[test]
fn a_mark_is_echoed_by_every_ack_until_the_sender_has_slowed_down() {
    let mut c = conn();
    c.on(marked(CE, data(NEXT, 1000)));
    assert_eq!(echoes(&mut c), [true], "at once, and with the echo");
    c.on(marked(ECT_0, data(NEXT + 1000, 1000)));
    // A duplicate, a segment above a hole, a probe from below the window.
    c.on(marked(ECT_0, data(NEXT, 1000)));
    c.on(marked(ECT_0, data(NEXT + 5000, 1000)));
    c.on(ack(NEXT - 1));
    assert_eq!(echoes(&mut c), [true; 4]);
    c.on(cwr(marked(ECT_0, data(NEXT + 2000, 1000))));
    c.on(marked(ECT_0, data(NEXT + 3000, 1000)));
    c.wait(500);
    let after = echoes(&mut c);
    assert!(!after.is_empty() && after.iter().all(|&echo| !echo), "{after:?}");
}

#[test]
fn an_echo_is_answered_by_cwr_without_payload_too() {
    let mut c = conn();
    c.on(marked(CE, data(NEXT, 1000)));
    c.on(cwr(ack(NEXT + 1000)));
    c.on(marked(ECT_0, data(NEXT, 1000)));
    assert_eq!(echoes(&mut c), [true, false]);
}

#[test]
fn the_ack_of_a_marked_segment_with_a_fin_waits_for_our_own() {
    let mut c = conn();
    assert_eq!(c.on(marked(CE, data_fin(NEXT, 100))), []);
    c.wait(500);
    assert_eq!(echoes(&mut c), [true]);
}

#[test]
fn a_delayed_ack_echoes_a_mark_of_any_of_its_segments() {
    let mut c = conn();
    for seg in [
        marked(ECT_0, data(NEXT, 100)),
        marked(CE, data(NEXT + 100, 100)),
        marked(ECT_0, data(NEXT + 200, 100)),
    ] {
        let buf = payload(&seg);
        c.arrive(&seg, buf);
    }
    c.end_burst();
    c.wait(500);
    assert_eq!(echoes(&mut c), [true]);
}

#[test]
fn the_answer_to_an_echo_comes_before_the_mark_of_the_same_segment() {
    let mut c = conn();
    c.on(marked(CE, data(NEXT, 1000)));
    c.on(cwr(marked(CE, data(NEXT + 1000, 1000))));
    assert_eq!(echoes(&mut c), [true, true]);
    c.on(cwr(marked(ECT_1, data(NEXT + 2000, 1000))));
    assert_eq!(echoes(&mut c), [false]);
}

#[test]
fn payload_of_a_sender_that_slows_down_is_acknowledged_at_once_a_bare_ack_of_it_not() {
    let mut c = conn();
    assert_eq!(c.on(marked(ECT_0, data(NEXT, 100))), [], "delayed");
    assert_eq!(c.on(cwr(marked(ECT_0, data(NEXT + 100, 100)))), [Out::Ack(NEXT + 200)]);
    assert_eq!(c.on(cwr(ack(NEXT + 200))), []);
}

#[test]
fn payload_behind_the_fin_of_a_sender_that_slows_down_is_answered_at_once() {
    let mut c = conn();
    c.on(marked(CE, data_fin(NEXT, 100)));
    assert_eq!(c.on(data(NEXT + 5000, 100)), [], "it says nothing");
    assert_eq!(c.on(cwr(data(NEXT + 5000, 100))), [Out::Ack(NEXT + 101)]);
    assert_eq!(echoes(&mut c), [false]);
    assert_eq!(c.on(cwr(data(NEXT + 5000, 100))), [], "nothing is owed");
}

#[test]
fn payload_without_the_field_after_some_with_it_is_acknowledged_at_once() {
    let mut c = conn();
    assert_eq!(c.on(marked(ECT_0, data(NEXT, 100))), []);
    assert_eq!(c.on(marked(NOT_ECT, data(NEXT + 100, 100))), [Out::Ack(NEXT + 200)]);
    assert_eq!(echoes(&mut c), [false]);
}

#[test]
fn marks_of_what_is_dropped_are_not_echoed() {
    let mut c = conn();
    // Beyond the window, an old duplicate, one that acknowledges what was never sent, no payload.
    c.on(marked(CE, data(NEXT + 200_000, 100)));
    c.on(marked(CE, data(NEXT - 1000, 1000)));
    c.on(marked(CE, data(NEXT, 100).acking(9)));
    c.on(marked(CE, ack(NEXT)));
    c.on(marked(ECT_0, data(NEXT, 100)));
    c.wait(500);
    let sent = echoes(&mut c);
    assert!(sent.len() >= 3 && sent.iter().all(|&echo| !echo), "{sent:?}");
}

#[test]
fn a_mark_above_a_hole_is_echoed_by_the_duplicate_ack() {
    let mut c = conn();
    c.on(marked(CE, data(NEXT + 1000, 1000)));
    assert_eq!(echoes(&mut c), [true]);
}

#[test]
fn fin_and_reset_carry_the_echo_too() {
    let mut c = conn();
    c.on(marked(CE, data(NEXT, 100)));
    c.read(100);
    c.raw.clear();
    c.shutdown_write();
    assert_eq!(
        c.raw.last().map(|out| out.flags),
        Some(Flags::FIN.with(Flags::ACK).with(Flags::ECE))
    );
}

#[test]
fn without_ecn_marks_mean_nothing() {
    let mut c = Conn::new();
    c.on(marked(CE, data(1, 1000)));
    c.on(marked(CE, data(1001, 1000)));
    assert!(echoes(&mut c).iter().all(|&echo| !echo));
    let options = c.tcb.info(c.world.now).tcpi_options;
    assert_eq!(options & (TcpInfo::ECN | TcpInfo::ECN_SEEN), 0);
}

#[test]
fn tcp_info_says_that_ecn_was_agreed_on_and_that_the_peer_uses_it() {
    let mut c = Conn::of(&Opened { ecn_ok: true, ..opened() });
    assert_eq!(c.tcb.info(c.world.now).tcpi_options, TcpInfo::ECN);
    c.on(marked(NOT_ECT, data(1, 10)));
    assert_eq!(c.tcb.info(c.world.now).tcpi_options, TcpInfo::ECN);
    c.on(marked(ECT_0, data(11, 10)));
    assert_eq!(c.tcb.info(c.world.now).tcpi_options, TcpInfo::ECN | TcpInfo::ECN_SEEN);
}
