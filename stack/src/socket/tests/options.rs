//! Options of the connection: what they grant, and what the lcore makes of them.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use super::hand::{Hand, Outcome, open, open_with};
use crate::buf::HeapBuf;
use crate::socket::{RecvError, RecvFlags, TcpStream};
use crate::tcp::tcb::{ConnError, KeepAlive, Linger2, State};
use crate::tcp::{Counter, Settings};
use crate::wire::{Flags, Outgoing};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn state(stream: &TcpStream<HeapBuf>) -> State {
    stream.lock().connection().state()
}

fn rsts(sent: &[Outgoing]) -> usize {
    sent.iter().filter(|out| out.flags.has(Flags::RST)).count()
}

#[test]
fn the_receive_buffer_is_doubled_and_clamped() {
    let (_hand, stream) = open();
    assert_eq!(stream.receive_buffer().unwrap(), 131_072);
    for (asked, granted) in [(10_000, 20_000), (1, 2304), (0, 2304), (u32::MAX, 8_388_608)] {
        stream.set_receive_buffer(asked).unwrap();
        assert_eq!(stream.receive_buffer().unwrap(), granted);
    }
}

#[test]
fn a_larger_buffer_opens_the_window_further_and_a_smaller_one_keeps_what_was_offered() {
    let offered = |asked: u32| {
        let (mut hand, stream) = open();
        stream.set_receive_buffer(asked).unwrap();
        let before = stream.lock().connection().right_edge();
        for _ in 0..2000 {
            hand.data(&[0; 1460]);
            hand.recv(&stream, 1460, RecvFlags::DONTWAIT);
        }
        let guard = stream.lock();
        let tcb = guard.connection();
        assert!(tcb.right_edge().at_or_after(before));
        tcb.offered_window()
    };
    let (small, usual, large) = (offered(10_000), offered(65_536), offered(1 << 20));
    assert!(small <= 20_000 && small < usual && usual < large, "{small} {usual} {large}");
}

#[test]
fn the_low_water_mark_makes_room_for_itself_as_far_as_it_may() {
    let (_hand, stream) = open();
    for (asked, granted) in [(500, 500), (0, 1), (u32::MAX, 16_777_216)] {
        stream.set_receive_low_water(asked).unwrap();
        assert_eq!(stream.receive_low_water(), granted);
    }
    assert!(stream.receive_buffer().unwrap() >= 16_777_216, "it has grown");
    let (_hand, stream) = open();
    stream.set_receive_buffer(10_000).unwrap();
    stream.set_receive_low_water(u32::MAX).unwrap();
    assert_eq!(stream.receive_low_water(), 10_000, "half of what was set");
    assert_eq!(stream.receive_buffer().unwrap(), 20_000);
}

#[test]
fn the_window_is_clamped() {
    let (mut hand, stream) = open();
    assert_eq!(stream.set_window_clamp(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    stream.set_window_clamp(1).unwrap();
    assert_eq!(stream.window_clamp().unwrap(), 1152);
    // Before segments of their size are known, it would be gone with the first.
    hand.data(&[0; 1460]);
    assert!(stream.window_clamp().unwrap() > 10_000);
    stream.set_window_clamp(10_000).unwrap();
    for _ in 0..200 {
        hand.data(&[0; 1460]);
        hand.recv(&stream, 1460, RecvFlags::DONTWAIT);
    }
    let window = stream.lock().connection().offered_window();
    assert!((5000..=10_000 + 128).contains(&window), "{window}");
    assert_eq!(stream.window_clamp().unwrap(), 10_000);
}

#[test]
fn quick_acks_are_asked_for_and_the_one_that_waits_goes() {
    let (mut hand, stream) = open();
    stream.set_quickack(false).unwrap();
    assert!(!stream.quickack().unwrap());
    hand.data(b"0");
    hand.recv(&stream, 1, RecvFlags::DONTWAIT);
    hand.take_sent();
    hand.data(b"1");
    assert!(hand.take_sent().is_empty(), "it is delayed");
    hand.recv(&stream, 1, RecvFlags::DONTWAIT);
    hand.take_sent();
    stream.set_quickack(true).unwrap();
    hand.poll();
    assert!(stream.quickack().unwrap());
    hand.data(b"2");
    assert_eq!(hand.take_sent().len(), 1);
}

#[test]
fn a_silent_peer_is_probed_and_given_up() {
    let (mut hand, stream) = open();
    let (idle, interval) = (10 * SECOND, 3 * SECOND);
    stream.set_keepalive(Some(KeepAlive::new(idle, interval, 2))).unwrap();
    hand.poll();
    hand.pass(9 * SECOND);
    assert!(hand.take_sent().is_empty());
    hand.data(b"0");
    hand.take_sent();
    hand.pass(Duration::from_millis(9_900));
    assert_eq!(hand.counters.value(Counter::TCPKeepAlive), 0, "data counts as life");
    hand.pass(SECOND);
    assert_eq!(hand.counters.value(Counter::TCPKeepAlive), 1);
    let probe = hand.take_sent().pop().unwrap();
    // Our initial number is 1000: a byte that was acknowledged long ago.
    assert_eq!((probe.seq, probe.ack, probe.flags), (1000, hand.seq, Flags::ACK));
    hand.data(b"");
    hand.pass(9 * SECOND);
    assert_eq!(hand.counters.value(Counter::TCPKeepAlive), 1, "its answer counts as well");
    hand.pass(SECOND + 2 * interval);
    assert_eq!(hand.counters.value(Counter::TCPKeepAlive), 3);
    assert_eq!(rsts(&hand.take_sent()), 1);
    assert_eq!(hand.read(&stream, 9, RecvFlags::NONE), b"0");
    let timed_out = Outcome::Fails(RecvError::Connection(ConnError::TimedOut));
    assert_eq!(hand.recv(&stream, 9, RecvFlags::NONE).0, timed_out);
    assert_eq!(hand.recv(&stream, 9, RecvFlags::NONE).0, Outcome::Bytes(0));
}

#[test]
fn keepalive_can_be_turned_off_and_waits_for_what_is_under_way() {
    let (mut hand, stream) = open();
    let keepalive = KeepAlive::new(10 * SECOND, SECOND, 1);
    for bad in [
        KeepAlive { idle: Some(Duration::ZERO), ..keepalive },
        KeepAlive { interval: Some(40_000 * SECOND), ..keepalive },
        KeepAlive { probes: Some(0), ..keepalive },
        KeepAlive { probes: Some(128), ..keepalive },
    ] {
        let error = stream.set_keepalive(Some(bad)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    stream.set_keepalive(Some(keepalive)).unwrap();
    assert_eq!(stream.keepalive().unwrap(), Some(keepalive));
    hand.poll();
    assert_eq!(hand.deadline(), Some(hand.now + 10 * SECOND));
    stream.set_keepalive(None).unwrap();
    hand.poll();
    assert_eq!(hand.deadline(), None);

    stream.set_keepalive(Some(keepalive)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    hand.poll();
    hand.pass(SECOND / 100);
    hand.ack_fin();
    assert_eq!(state(&stream), State::FinWait2);
    hand.pass(9 * SECOND);
    assert_eq!(state(&stream), State::FinWait2);
    hand.pass(3 * SECOND);
    assert_eq!(state(&stream), State::Closed, "half-closed connections are probed, too");
}

#[test]
fn the_user_timeout_replaces_the_number_of_repetitions() {
    let (mut hand, stream) = open();
    let keepalive = KeepAlive::new(10 * SECOND, SECOND, 100);
    stream.set_keepalive(Some(keepalive)).unwrap();
    stream.set_user_timeout(Some(Duration::from_millis(12_500))).unwrap();
    assert_eq!(stream.user_timeout().unwrap(), Some(Duration::from_millis(12_500)));
    hand.poll();
    hand.pass(12 * SECOND);
    assert_eq!(state(&stream), State::Established);
    hand.pass(SECOND);
    assert_eq!(state(&stream), State::Closed);
    assert_eq!(hand.counters.value(Counter::TCPKeepAlive), 3);

    // Our FIN, which would be repeated fifteen times. The time counts from the first repetition on: after a
    // probe, and a timeout behind it.
    let (mut hand, stream) = open();
    stream.set_user_timeout(Some(2 * SECOND)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    hand.poll();
    hand.pass(2 * SECOND + Duration::from_millis(2 * 201 - 1));
    assert_eq!(state(&stream), State::FinWait1);
    hand.pass(Duration::from_millis(2));
    assert_eq!(state(&stream), State::Closed);
    let error = stream.take_error().unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

/// Closes with a wish for the time behind it, and has the peer acknowledge that; before or after.
fn half_closed(linger2: Linger2, acked_before: bool) -> Hand {
    let (mut hand, stream) = open();
    stream.set_linger2(linger2).unwrap();
    hand.take_sent();
    if acked_before {
        stream.shutdown(Shutdown::Write).unwrap();
        hand.poll();
        hand.ack_fin();
        hand.take_sent();
        drop(stream);
        hand.poll();
    } else {
        drop(stream);
        hand.poll();
        hand.take_sent();
        hand.ack_fin();
    }
    hand
}

#[test]
fn orphans_wait_for_the_peers_end_as_long_as_is_asked() {
    for acked_before in [false, true] {
        let mut hand = half_closed(Linger2::Reset, acked_before);
        assert_eq!(rsts(&hand.take_sent()), 1);
        assert_eq!(hand.state(), State::Closed);
        let counter =
            if acked_before { Counter::TCPAbortOnLinger } else { Counter::TCPAbortOnData };
        assert_eq!(hand.counters.value(counter), 1);

        for (asked, beyond_a_minute) in [
            (Linger2::Setting, None),
            (Linger2::For(Duration::ZERO), None),
            (Linger2::For(5 * SECOND), None),
            (Linger2::For(90 * SECOND), Some(30 * SECOND)),
            (Linger2::For(1000 * SECOND), Some(MINUTE)),
        ] {
            let mut hand = half_closed(asked, acked_before);
            assert_eq!(rsts(&hand.take_sent()), 0);
            assert_eq!(hand.state(), State::FinWait2);
            assert_eq!(hand.deadline(), beyond_a_minute.map(|rest| hand.now + rest), "{asked:?}");
            hand.pass(MINUTE);
            let life = hand.last_life();
            let expected = match asked {
                Linger2::For(span) if span == 5 * SECOND => span,
                _ => MINUTE,
            };
            assert_eq!(life, Some(expected), "{asked:?}");
        }
    }
}

#[test]
fn closing_lingers_until_the_end_is_acknowledged_or_the_time_is_over() {
    let (mut hand, stream) = open();
    stream.set_linger(Some(Duration::from_secs(100))).unwrap();
    assert_eq!(stream.linger().unwrap(), Some(Duration::from_secs(100)));
    thread::scope(|scope| {
        let closing = scope.spawn(move || drop(stream));
        while hand.take_sent().is_empty() {
            thread::yield_now();
            hand.poll();
        }
        thread::sleep(Duration::from_millis(5));
        assert!(!closing.is_finished(), "nobody has acknowledged anything");
        hand.ack_fin();
        closing.join().unwrap();
    });

    let (mut hand, stream) = open();
    stream.set_linger(Some(Duration::from_millis(20))).unwrap();
    let start = std::time::Instant::now();
    drop(stream);
    assert!(start.elapsed() >= Duration::from_millis(20));
    hand.poll();
    assert_eq!(rsts(&hand.take_sent()), 0, "it goes on without us");

    let (mut hand, stream) = open();
    stream.set_linger(Some(Duration::ZERO)).unwrap();
    stream.set_linger(None).unwrap();
    stream.set_linger_zero();
    drop(stream);
    hand.poll();
    assert_eq!(rsts(&hand.take_sent()), 1);
}

#[test]
fn options_under_ones_own_guard_are_an_error() {
    let (_hand, stream) = open_with(Settings::default());
    let guard = stream.lock();
    for result in [
        stream.set_receive_buffer(1),
        stream.set_receive_low_water(1),
        stream.set_keepalive(None),
        stream.receive_buffer().map(drop),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Deadlock);
    }
    drop(guard);
    stream.set_receive_buffer(1).unwrap();
}

#[test]
fn nobody_is_probed_unasked() {
    let (mut hand, stream) = open();
    hand.data(b"0");
    hand.pass(24 * 60 * MINUTE);
    hand.take_sent();
    assert_eq!(stream.keepalive().unwrap(), None);
    assert_eq!(hand.deadline(), None);
    hand.pass(24 * 60 * MINUTE);
    assert!(hand.take_sent().is_empty());
    assert_eq!(state(&stream), State::Established);
}

#[test]
fn by_default_two_hours_pass_before_a_probe() {
    let (mut hand, stream) = open();
    stream.set_keepalive(Some(KeepAlive::default())).unwrap();
    hand.poll();
    hand.pass(120 * MINUTE - SECOND);
    assert_eq!(hand.counters.value(Counter::TCPKeepAlive), 0);
    hand.pass(SECOND);
    assert_eq!(hand.counters.value(Counter::TCPKeepAlive), 1);
}
