//! How connections end.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::*;
use crate::tcp::tcb::{ConnError, KeepAlive};

fn connected(settings: Settings) -> (World, Peer, TcpStream<HeapBuf>) {
    let mut world = World::new(settings);
    let listener = listening(&mut world, 5);
    let (peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    std::mem::forget(listener);
    (world, peer, stream)
}

#[test]
fn the_peer_closes_first() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    world.receive([peer.data(b"bye"), peer.fin()]);
    let (ms, ack) = world.wait_for_segment();
    ack.is(ACK, peer.ack, peer.seq);
    assert_eq!(ms, 40, "a FIN is acknowledged late, in the hope of a FIN of ours");
    assert_eq!(read(&stream, 10).unwrap(), b"bye");
    assert_eq!(read(&stream, 10).unwrap(), b"");
    drop(stream);
    world.turn();
    world.expect_segment().is(FIN.with(ACK), peer.ack, peer.seq);
    peer.ack += 1;
    world.receive([peer.ack()]);
    world.expect_nothing();
    assert_eq!(world.population(), Population::default());
}

#[test]
fn we_close_first_and_a_record_waits() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    drop(stream);
    world.turn();
    world.expect_segment().is(FIN.with(ACK), peer.ack, peer.seq);
    peer.ack += 1;
    world.receive([peer.ack()]);
    assert_eq!(
        world.population(),
        Population { time_waits: 1, ..Population::default() },
        "an orphan in FIN-WAIT-2 needs no socket"
    );
    world.receive([peer.fin()]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    world.wait(Duration::from_secs(59));
    assert_eq!(world.population().time_waits, 1);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.population(), Population::default());
    assert_eq!(world.count(Counter::TW), 1);
}

#[test]
fn unread_data_makes_close_a_reset() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    world.receive([peer.data(b"unread")]);
    world.sent.clear();
    drop(stream);
    world.turn();
    world.expect_segment().is(RST.with(ACK), peer.ack, peer.seq);
    assert_eq!(world.population(), Population::default());
    assert_eq!(world.count(Counter::TCPAbortOnClose), 1);
}

#[test]
fn linger_zero_makes_close_a_reset_whatever_was_asked_between() {
    let (mut world, peer, stream) = connected(Settings::default());
    stream.set_linger_zero();
    stream.shutdown(std::net::Shutdown::Read).unwrap();
    world.turn();
    world.expect_nothing();
    drop(stream);
    world.turn();
    world.expect_segment().is(RST.with(ACK), peer.ack, peer.seq);
    assert_eq!(world.population(), Population::default());
}

#[test]
fn data_that_came_before_a_reset_stays_readable() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    world.receive([peer.data(b"last words")]);
    world.sent.clear();
    world.receive([peer.segment(RST, 0, &[])]);
    world.expect_nothing();
    assert_eq!(world.population().sockets, 0, "the lcore has let go");
    assert_eq!(read(&stream, 100).unwrap(), b"last words");
    let error = read(&stream, 100).unwrap_err();
    assert_eq!(format!("{error:?}"), "Connection(Reset)");
    drop(stream);
    world.turn();
    world.expect_nothing();
}

#[test]
fn what_follows_a_reset_in_the_same_burst_meets_no_connection() {
    let (mut world, peer, _stream) = connected(Settings::default());
    world.receive([peer.segment(RST, 0, &[]), peer.segment(ACK, 0, b"x")]);
    world.expect_segment().is(RST, peer.ack, 0);
    world.expect_nothing();
}

#[test]
fn a_fin_is_repeated_and_an_orphan_given_up() {
    let (mut world, peer, stream) = connected(Settings::default());
    drop(stream);
    world.turn();
    world.expect_segment().is(FIN.with(ACK), peer.ack, peer.seq);
    let mut fins = 0;
    world.wait(Duration::from_secs(300));
    while !world.sent.is_empty() {
        world.expect_segment().is(FIN.with(ACK), peer.ack, peer.seq);
        fins += 1;
    }
    assert_eq!(fins, 9, "a probe, and the time of 8 that tcp_orphan_retries 0 means");
    assert_eq!(world.population(), Population::default());
}

#[test]
fn orphans_beyond_the_limit_are_reset() {
    let settings = Settings { tcp_max_orphans: 1, ..Settings::default() };
    let mut world = World::new(settings);
    let listener = listening(&mut world, 5);
    let (_first, first) = Peer::connected(&mut world, 40_000, &listener);
    let (_second, second) = Peer::connected(&mut world, 40_001, &listener);
    drop(first);
    world.turn();
    assert_eq!(world.expect_segment().segment.flags, FIN.with(ACK));
    drop(second);
    world.turn();
    assert_eq!(world.expect_segment().segment.flags, FIN.with(ACK));
    assert!(world.expect_segment().segment.flags.has(RST));
    assert_eq!((world.population().sockets, world.count(Counter::TCPAbortOnMemory)), (1, 1));
}

#[test]
fn time_wait_entries_are_bounded() {
    let settings = Settings { tcp_max_tw_buckets: 1, ..Settings::default() };
    let mut world = World::new(settings);
    let listener = listening(&mut world, 5);
    for port in [40_000, 40_001] {
        let (mut peer, stream) = Peer::connected(&mut world, port, &listener);
        drop(stream);
        world.turn();
        peer.ack += 1;
        world.receive([peer.fin()]);
        world.sent.clear();
    }
    assert_eq!(world.population(), Population { time_waits: 1, ..Population::default() });
    assert_eq!(world.count(Counter::TCPTimeWaitOverflow), 1);
}

#[test]
fn a_new_connection_replaces_a_time_wait_entry() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    drop(stream);
    world.turn();
    let fin = world.expect_segment();
    peer.ack += 1;
    world.receive([peer.fin()]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);

    peer.seq += 100_000;
    world.receive([peer.syn()]);
    let syn_ack = world.expect_segment();
    assert_eq!(syn_ack.segment.seq, fin.segment.seq + 1 + 65_537);
    peer.take(&syn_ack);
    world.receive([peer.ack()]);
    assert_eq!(world.population(), Population { sockets: 1, ..Population::default() });
    assert_eq!(world.count(Counter::TWRecycled), 1);
}

#[test]
fn a_time_wait_entry_answers_a_syn_if_nobody_listens() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    drop(stream);
    world.turn();
    peer.ack += 1;
    world.receive([peer.fin()]);
    drop(listener);
    world.sent.clear();
    let next = Peer { seq: peer.seq + 100_000, ..peer };
    world.receive([next.syn(), next.syn()]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    world.expect_nothing();
    assert_eq!(world.count(Counter::TCPACKSkippedTimeWait), 1, "twice a second at most");
    assert_eq!(world.population().time_waits, 1);
}

#[test]
fn every_segment_is_counted_once() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let mut peer = Peer::new(40_000);
    let mut segments = 0;
    let mut receive = |world: &mut World, frame| {
        world.receive([frame]);
        segments += 1;
        assert_eq!(world.count(Counter::InSegs), segments);
    };
    receive(&mut world, peer.syn());
    peer.take(&world.expect_segment());
    receive(&mut world, peer.segment(ACK, u32::MAX, &[]));
    receive(&mut world, peer.ack());
    drop(accept(&listener));
    world.turn();
    peer.ack += 1;
    receive(&mut world, peer.fin());
    assert_eq!(world.population().time_waits, 1);
    receive(&mut world, peer.ack());
    receive(&mut world, Peer::new(40_001).ack());
    receive(&mut world, Peer::new(40_002).syn());
    drop(listener);
    receive(&mut world, Peer::new(40_002).ack());
}

/// A device that breaks.
struct Broken;

impl Transmit for Broken {
    fn send(&mut self, _: &[u8]) {
        panic!("a bug");
    }
}

#[test]
fn an_engine_that_fails_leaves_nobody_waiting() {
    let mut world = World::with_lcores(Settings::default(), 2);
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let (_, other) = Peer::connected(&mut world, 40_001, &listener);
    listener.set_nonblocking(false).unwrap();
    listener.set_accept_timeout(Some(Duration::from_secs(10)));
    let acceptor = std::thread::spawn(move || listener.accept().map(|_| ()));
    let fin = HeapBuf::new(&peer.fin());
    let now = world.now + Duration::from_secs(1);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        world.engines[0].input(&mut [Some(fin)], now, &mut Broken);
        world.engines[0].turn(now + Duration::from_secs(1), &mut Broken);
    }));
    assert!(failed.is_err());
    world.engines[0].stop();
    for stream in [stream, other] {
        let error = stream.recv(&mut [0; 9], RecvFlags::NONE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }
    let error = acceptor.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
}

#[test]
fn buffers_come_home_and_open_the_window() {
    let settings = Settings { tcp_rmem: [4096, 16_384, 16_384], ..Settings::default() };
    let (mut world, mut peer, stream) = connected(settings);
    let start = peer.seq;
    let last = loop {
        let segment = peer.data(&[1; 1000]);
        world.receive([segment]);
        world.wait(Duration::from_millis(50));
        let mut acks =
            std::iter::from_fn(|| (!world.sent.is_empty()).then(|| world.expect_segment()));
        let first = acks.next().expect("an ACK");
        let last = acks.last().unwrap_or(first);
        // What did not fit was dropped, and is sent again.
        peer.seq = last.segment.ack;
        assert!(peer.seq - start < 17_000, "a buffer of 16 KiB took {}", peer.seq - start);
        if last.segment.window == 0 {
            break last;
        }
    };
    assert!(last.segment.ack > start);

    let mut taken = 0;
    while let Ok(bytes) = read(&stream, 4096) {
        taken += bytes.len() as u32;
    }
    assert_eq!(taken, peer.seq - start);
    world.turn();
    let update = world.expect_segment();
    update.is(ACK, peer.ack, peer.seq);
    assert!(update.segment.window > 0);
    world.expect_nothing();
}

#[test]
fn what_comes_while_a_thread_owns_the_socket_waits_for_it() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    let guard = stream.lock();
    world.receive([peer.data(b"patience"), peer.fin()]);
    world.expect_nothing();
    assert_eq!(guard.connection().rcv_nxt().raw(), peer.seq - 9);
    drop(guard);
    world.turn();
    world.wait_for_segment().1.is(ACK, peer.ack, peer.seq);
    assert_eq!(read(&stream, 100).unwrap(), b"patience");
    assert_eq!(read(&stream, 100).unwrap(), b"");
}

#[test]
fn what_a_call_has_taken_comes_before_the_end() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    world.receive([peer.data(b"taken")]);
    // To where the next call finds it without asking the lcore.
    assert_eq!(stream.peek(&mut [0; 9]).unwrap(), 5);
    world.engines[0].stop();
    assert_eq!(read(&stream, 100).unwrap(), b"taken");
    assert_eq!(read(&stream, 100).unwrap_err(), RecvError::Dead);
}

#[test]
fn a_stopped_engine_leaves_dead_sockets() {
    let (mut world, mut peer, stream) = connected(Settings::default());
    world.receive([peer.data(b"lost")]);
    world.engines[0].stop();
    assert_eq!(world.population(), Population::default());
    while let Ok(bytes) = read(&stream, 100) {
        assert_eq!(bytes, b"lost");
    }
    assert_eq!(format!("{:?}", read(&stream, 100).unwrap_err()), "Dead");
    drop(stream);
}

#[test]
fn what_comes_back_while_a_thread_owns_the_socket_opens_the_window_too() {
    let settings = Settings {
        tcp_rmem: [4096, 32_768, 32_768],
        tcp_window_scaling: false,
        ..Settings::default()
    };
    let (mut world, mut peer, stream) = connected(settings);
    world.receive([peer.data(&[1; 1460]), peer.data(&[2; 1460])]);
    let window = world.expect_segment().segment.window;
    // Moves the data out of the receive queue, so that reading it needs no claim.
    assert_eq!(stream.peek(&mut [0; 2920]).unwrap(), 2920);

    let guard = stream.lock();
    let burst: Vec<_> = (0..window / 1460).map(|_| peer.data(&[3; 1460])).collect();
    let all = burst.len() * 1460;
    world.receive(burst);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(read(&stream, 2920).unwrap().len(), 2920));
    });
    world.turn();
    drop(guard);
    world.turn();
    world.sent.clear();

    assert_eq!(read(&stream, all).unwrap().len(), all);
    world.turn();
    let update = world.expect_segment();
    update.is(ACK, peer.ack, peer.seq);
    assert!(update.segment.window >= window, "{} of {window}", update.segment.window);
}

#[test]
fn a_peer_that_has_vanished_is_noticed_by_keepalive() {
    let (mut world, peer, stream) = connected(Settings::default());
    let second = Duration::from_secs(1);
    stream.set_keepalive(Some(KeepAlive::new(5 * second, second, 2))).unwrap();
    world.turn();
    for after in [5000, 1000] {
        let (ms, probe) = world.wait_for_segment();
        // A number of ours that the peer has acknowledged, so that it answers.
        probe.is(ACK, peer.ack - 1, peer.seq);
        assert_eq!(ms, after);
    }
    let (ms, reset) = world.wait_for_segment();
    reset.is(RST.with(ACK), peer.ack, peer.seq);
    assert_eq!(ms, 1000);
    let timed_out = RecvError::Connection(ConnError::TimedOut);
    assert_eq!(read(&stream, 9).unwrap_err(), timed_out);
    assert_eq!(world.population(), Population::default());
}
