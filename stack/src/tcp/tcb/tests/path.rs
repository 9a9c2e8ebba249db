//! What ICMP errors do to a connection: little.

use std::time::Duration;

use super::harness::Out::Fin;
use super::harness::*;
use crate::tcp::Counter::*;
use crate::tcp::icmp::Report;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{ConnError, State};
use crate::tcp::{PathError, SeqNum};

const REFUSED: Report = Report::Lost { error: PathError::Refused, ends_requests: false };
const TOO_BIG: Report = Report::TooBig { mtu: 1000 };

const HOURS: u64 = 4 * 3600 * 1000;

/// An error about the segment that began at a number of ours.
fn told(c: &mut Conn, seq: u32, report: Report) {
    c.tcb.on_icmp(&mut c.world.cx(), seq.wrapping_add(ISS), report);
}

fn mtu_and_mss(c: &Conn) -> (u16, u16) {
    let info = c.tcb.info(c.world.now);
    assert_eq!(u32::from(c.tcb.effective_mss(c.world.now)), info.tcpi_snd_mss);
    (c.tcb.path_mtu(c.world.now), c.tcb.effective_mss(c.world.now))
}

/// A connection on a link of 1500 bytes.
fn on_link(opened: &Opened) -> Conn {
    Conn::of(opened)
}

#[test]
fn no_error_ends_a_synchronised_connection() {
    for error in PathError::ALL {
        for ends_requests in [false, true] {
            let mut c = Conn::new();
            told(&mut c, 1, Report::Lost { error, ends_requests });
            assert_eq!((c.state(), c.tcb.error()), (State::Established, None));
            c.on(data(1, 100));
            assert_eq!((c.readable(), c.count(OutOfWindowIcmps)), (100, 0));
        }
    }
}

#[test]
fn a_time_out_is_called_by_the_last_error() {
    let end = |c: &mut Conn| {
        c.wait(HOURS);
        (c.state(), c.tcb.error())
    };
    let mut c = Conn::new();
    assert_eq!(c.shutdown_write(), [Fin(1, 1)]);
    assert_eq!(end(&mut c), (State::Closed, Some(ConnError::TimedOut)));

    let mut c = Conn::new();
    c.shutdown_write();
    told(&mut c, 1, TOO_BIG);
    told(&mut c, 1, REFUSED);
    assert_eq!(end(&mut c), (State::Closed, Some(ConnError::Path(PathError::Refused))));
}

#[test]
fn an_ack_shows_that_the_path_works() {
    // Payload the usual way, and a bare ACK: both say so.
    for seg in [data(1, 100), ack(1)] {
        let mut c = Conn::new();
        told(&mut c, 1, REFUSED);
        c.on(seg);
        c.shutdown_write();
        c.wait(HOURS);
        assert_eq!(c.tcb.error(), Some(ConnError::TimedOut), "{seg:?}");
    }
    // What is not acceptable says nothing.
    let mut c = Conn::new();
    told(&mut c, 1, REFUSED);
    c.on(ack(1).acking(5));
    c.shutdown_write();
    c.wait(HOURS);
    assert_eq!(c.tcb.error(), Some(ConnError::Path(PathError::Refused)));
}

#[test]
fn header_prediction_goes_on_behind_the_ack() {
    let mut c = Conn::new();
    c.on(data(1, 100));
    told(&mut c, 1, REFUSED);
    c.on(data(101, 100));
    let before = c.count(TCPHPHits);
    c.on(data(201, 100));
    assert_eq!(c.count(TCPHPHits), before + 1);
}

#[test]
fn a_quoted_number_that_is_not_under_way_is_none() {
    let mut c = on_link(&opened());
    for seq in [0, 2, u32::MAX, 0x8000_0000] {
        told(&mut c, seq, REFUSED);
        told(&mut c, seq, TOO_BIG);
    }
    assert_eq!((c.count(OutOfWindowIcmps), mtu_and_mss(&c)), (8, (1500, 1460)));
    // With our FIN under way there are two numbers: its own, and the one behind it.
    c.shutdown_write();
    for (seq, known) in [(0, false), (1, true), (2, true), (3, false)] {
        let before = c.count(OutOfWindowIcmps);
        told(&mut c, seq, REFUSED);
        assert_eq!(c.count(OutOfWindowIcmps) == before, known, "{seq}");
    }
}

#[test]
fn the_segment_size_follows_the_path_downwards() {
    let mut c = on_link(&opened());
    assert_eq!(mtu_and_mss(&c), (1500, 1460));
    for (said, mtu) in [(1400, 1400), (1500, 1400), (1400, 1400), (9000, 1400), (600, 600)] {
        told(&mut c, 1, Report::TooBig { mtu: said });
        assert_eq!(mtu_and_mss(&c), (mtu, mtu - 40), "behind {said}");
    }
    let info = c.tcb.info(c.world.now);
    assert_eq!((info.tcpi_advmss, info.tcpi_pmtu), (1460, 600), "the handshake is settled");
    c.wait(600_000);
    assert_eq!(mtu_and_mss(&c), (1500, 1460), "forgotten after ten minutes");
}

#[test]
fn the_segment_size_knows_options_and_the_peers_limits() {
    let ts = Conn::with_ts(5);
    let recent = crate::tcp::timestamps::TsState { recent: 5, offset: 0, recent_at: ts.world.now };
    let mut c = on_link(&Opened { ts: Some(recent), advmss: 1448, ..opened() });
    assert_eq!(mtu_and_mss(&c).1, 1448);
    told(&mut c, 1, TOO_BIG);
    assert_eq!(mtu_and_mss(&c), (1000, 948));

    let c = on_link(&Opened { mss: 500, ..opened() });
    assert_eq!(mtu_and_mss(&c).1, 500);
}

#[test]
fn a_connection_that_is_over_is_told_nothing() {
    let mut c = Conn::new();
    c.on(rst(1));
    assert_eq!(c.state(), State::Closed);
    told(&mut c, 77, REFUSED);
    assert_eq!((c.tcb.error(), c.count(OutOfWindowIcmps)), (Some(ConnError::Reset), 0));
}

#[test]
fn keepalive_ends_by_the_last_error_too() {
    let mut c = Conn::new();
    let second = Duration::from_secs(1);
    let keepalive = crate::tcp::tcb::KeepAlive::new(5 * second, second, 2);
    c.tcb.set_keepalive(Some(keepalive));
    let cx = c.world.cx();
    c.tcb.on_options(&cx);
    c.wait(5500);
    let sent = c.raw.last().unwrap().seq;
    assert_eq!(sent, ISS, "a probe repeats a number that was acknowledged");
    // So that what is quoted of it is not under way, as in Linux; other segments of ours are.
    let at = SeqNum::new(sent).minus(ISS).raw();
    told(&mut c, at, REFUSED);
    assert_eq!(c.count(OutOfWindowIcmps), 1);
    told(&mut c, 1, REFUSED);
    c.wait(5000);
    assert_eq!(c.tcb.error(), Some(ConnError::Path(PathError::Refused)));
}
