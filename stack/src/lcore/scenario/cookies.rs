//! SYN cookies, and what a listener is like under a flood of SYNs.

use super::*;
use crate::tcp::SynCookies;
use crate::wire::Timestamps;

fn settings(tcp_syncookies: SynCookies) -> Settings {
    Settings { tcp_syncookies, ..Settings::default() }
}

/// A SYN with timestamps and all else.
fn syn_with_timestamps(peer: &Peer, val: u32) -> Vec<u8> {
    let out = Outgoing {
        seq: peer.seq,
        flags: SYN,
        window: 65_535,
        mss: Some(1000),
        window_scale: Some(7),
        sack_permitted: true,
        ts: Some(Timestamps { val, ecr: 0 }),
        ..Outgoing::default()
    };
    peer.frame(out, &[])
}

/// The next bytes of a peer that sends timestamps.
fn data_with_timestamps(peer: &Peer, ts: Timestamps, offset: u32, payload: &[u8]) -> Vec<u8> {
    let out = Outgoing {
        seq: peer.seq.wrapping_add(offset),
        ack: peer.ack,
        flags: ACK,
        window: 1000,
        ts: Some(ts),
        ..Outgoing::default()
    };
    peer.frame(out, payload)
}

/// Fills a SYN queue with `backlog + 1` requests of nobody.
fn fill_syn_queue(world: &mut World, backlog: u16) {
    world.receive((0..=backlog).map(|n| Peer::new(1000 + n).syn()));
    assert_eq!(world.sent.drain(..).count(), usize::from(backlog) + 1);
    assert_eq!(world.population().requests, u32::from(backlog) + 1);
}

#[test]
fn with_tcp_syncookies_at_0_a_full_queue_drops_syns_and_no_ack_is_taken_for_a_cookie() {
    let mut world = World::new(settings(SynCookies::Never));
    let _listener = listening(&mut world, 3);
    fill_syn_queue(&mut world, 3);
    let peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::TCPReqQFullDrop), 1);
    world.receive([peer.segment(ACK, 1, &[])]);
    assert_eq!(world.expect_segment().segment.flags, RST);
    assert_eq!(world.count(Counter::SyncookiesFailed), 0);
}

#[test]
fn with_tcp_syncookies_at_1_a_full_queue_gives_cookies_and_data_may_come_with_them() {
    let mut world = World::new(settings(SynCookies::OnOverflow));
    let listener = listening(&mut world, 3);
    fill_syn_queue(&mut world, 3);
    let mut peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    let syn_ack = world.expect_segment();
    peer.take(&syn_ack);
    let SynOptions { mss, window_scale, sack_permitted } = syn_ack.options;
    assert_eq!((mss, window_scale, sack_permitted), (Some(1460), None, false));
    assert_eq!(world.population().requests, 4, "nothing is kept of it");
    assert_eq!(world.count(Counter::TCPReqQFullDoCookies), 1);
    assert_eq!(world.count(Counter::SyncookiesSent), 1);

    world.receive([peer.data(b"hello")]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    let stream = accept(&listener).expect("the cookie has opened it");
    assert_eq!(read(&stream, 9).unwrap(), b"hello");
    assert_eq!(world.count(Counter::SyncookiesRecv), 1);
    assert_eq!(world.count(Counter::PassiveOpens), 1);
    assert_eq!(world.count(Counter::InSegs), 6, "each is counted once");
}

#[test]
fn with_tcp_syncookies_at_2_no_request_is_ever_made() {
    let mut world = World::new(settings(SynCookies::Always));
    let listener = listening(&mut world, 3);
    let (_, stream) = Peer::connected(&mut world, 40_000, &listener);
    assert_eq!(stream.peer_addr().unwrap().port(), 40_000);
    assert_eq!(world.population(), Population { sockets: 1, ..Population::default() });
    assert_eq!(world.count(Counter::SyncookiesRecv), 1);

    // A SYN-ACK with a cookie is never sent again.
    world.receive([Peer::new(40_001).syn()]);
    world.expect_segment();
    world.wait(Duration::from_secs(10));
    world.expect_nothing();
}

#[test]
fn timestamps_carry_scale_and_sack_through_a_cookie() {
    let mut world = World::new(settings(SynCookies::Always));
    let listener = listening(&mut world, 3);
    world.wait(Duration::from_millis(12_345));
    let mut peer = Peer::new(40_000);
    world.receive([syn_with_timestamps(&peer, 77)]);
    let syn_ack = world.expect_segment();
    peer.take(&syn_ack);
    assert_eq!(syn_ack.options.window_scale, Some(10));
    assert!(syn_ack.options.sack_permitted);
    let theirs = syn_ack.segment.ts.expect("timestamps");
    assert_eq!(theirs.ecr, 77);

    let ts = Timestamps { val: 78, ecr: theirs.val };
    let above_hole = data_with_timestamps(&peer, ts, 10, b"later");
    let first = data_with_timestamps(&peer, ts, 0, b"0123456789");
    // What is above a hole brings no cookie: it does not tell where the stream begins.
    world.receive([above_hole.clone()]);
    world.expect_segment().is(RST, peer.ack, 0);
    world.receive([data_with_timestamps(&peer, ts, 0, b"")]);
    world.expect_nothing();
    let stream = accept(&listener).expect("opened");

    world.receive([above_hole]);
    let ack = world.expect_segment();
    ack.is(ACK, peer.ack, peer.seq);
    let back = ack.segment.ts.expect("timestamps");
    assert_eq!(back.ecr, 78);
    assert!((back.val.wrapping_sub(theirs.val) as i32) >= 0, "time does not go back");
    assert!(ack.segment.window < 100, "scaled by 10");
    assert_eq!(ack.sack, [(peer.seq.wrapping_add(10), peer.seq.wrapping_add(15))]);
    world.receive([first]);
    assert_eq!(read(&stream, 20).unwrap(), b"0123456789later");
}

#[test]
fn an_ack_to_a_listener_that_has_sent_no_cookie_for_two_minutes_is_reset_unseen() {
    let mut world = World::new(settings(SynCookies::Always));
    let _listener = listening(&mut world, 3);
    let mut peer = Peer::new(40_000);
    let stray = Peer::new(40_001).segment(ACK, 1, &[]);
    world.receive([stray.clone()]);
    assert_eq!(world.expect_segment().segment.flags, RST);
    assert_eq!(world.count(Counter::SyncookiesFailed), 0, "no cookie was ever sent");

    world.receive([peer.syn()]);
    peer.take(&world.expect_segment());
    world.receive([stray.clone()]);
    assert_eq!(world.expect_segment().segment.flags, RST);
    assert_eq!(world.count(Counter::SyncookiesFailed), 1);

    world.wait(Duration::from_secs(120));
    world.receive([peer.ack()]);
    assert_eq!(world.expect_segment().segment.flags, RST, "too old");
    assert_eq!(world.count(Counter::SyncookiesFailed), 2);
    world.wait(Duration::from_secs(1));
    world.receive([stray, peer.ack()]);
    assert_eq!(world.sent.drain(..).count(), 2);
    assert_eq!(world.count(Counter::SyncookiesFailed), 2);
    assert_eq!(world.population(), Population::default());
}

#[test]
fn cookies_that_are_out_are_taken_after_a_change_to_1_but_not_to_0() {
    for (later, taken) in [(SynCookies::OnOverflow, true), (SynCookies::Never, false)] {
        let mut world = World::new(settings(SynCookies::Always));
        let listener = listening(&mut world, 3);
        let mut peer = Peer::new(40_000);
        world.receive([peer.syn()]);
        peer.take(&world.expect_segment());
        world.engines[0].settings_mut().tcp_syncookies = later;
        world.receive([peer.ack()]);
        assert_eq!(accept(&listener).is_some(), taken, "{later:?}");
        assert_eq!(world.sent.is_empty(), taken, "else a RST");
    }
}

#[test]
fn a_cookie_that_meets_a_full_accept_queue_is_dropped_whatever_tcp_abort_on_overflow_says() {
    for tcp_abort_on_overflow in [false, true] {
        let settings = Settings { tcp_abort_on_overflow, ..settings(SynCookies::Always) };
        let mut world = World::new(settings);
        let listener = listening(&mut world, 0);
        let mut peer = Peer::new(40_000);
        world.receive([peer.syn()]);
        peer.take(&world.expect_segment());
        Peer::new(40_001).shake_hands(&mut world);
        world.receive([peer.ack()]);
        world.wait(Duration::from_secs(10));
        world.expect_nothing();
        assert_eq!(world.count(Counter::ListenOverflows), 1);
        assert_eq!(world.count(Counter::ListenDrops), 1);
        assert_eq!(world.population().sockets, 1);

        // The client holds the connection to be open; what it sends tries again.
        drop(accept(&listener));
        world.turn();
        world.sent.clear();
        world.receive([peer.data(b"still here")]);
        let stream = accept(&listener).expect("there is room now");
        assert_eq!(read(&stream, 20).unwrap(), b"still here");
    }
}

#[test]
fn a_cookie_prevails_over_a_request_that_a_later_syn_has_made() {
    let mut world = World::new(settings(SynCookies::Always));
    let listener = listening(&mut world, 3);
    let mut peer = Peer::new(40_000);
    let syn = peer.syn();
    world.receive([syn.clone()]);
    peer.take(&world.expect_segment());
    // The SYN again, when the queue has room: a request with another number of ours.
    world.engines[0].settings_mut().tcp_syncookies = SynCookies::OnOverflow;
    world.receive([syn]);
    assert_ne!(world.expect_segment().segment.seq.wrapping_add(1), peer.ack);
    assert_eq!(world.population().requests, 1);
    // The client goes by the answer that came first.
    world.receive([peer.data(b"hello")]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    assert_eq!(world.population(), Population { sockets: 1, ..Population::default() });
    let stream = accept(&listener).expect("open");
    assert_eq!(read(&stream, 9).unwrap(), b"hello");
    // An ACK that is neither is reset, and harms no request.
    let mut half_open = Peer::new(40_001);
    world.receive([half_open.syn()]);
    half_open.take(&world.expect_segment());
    world.receive([Peer { ack: half_open.ack.wrapping_add(9), ..half_open }.ack()]);
    world.expect_segment().is(RST, half_open.ack.wrapping_add(9), 0);
    world.receive([half_open.ack()]);
    assert!(accept(&listener).is_some());
}

#[test]
fn a_syn_that_replaces_a_time_wait_entry_gets_no_cookie() {
    let mut world = World::new(settings(SynCookies::OnOverflow));
    let listener = listening(&mut world, 3);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    drop(stream);
    world.turn();
    world.expect_segment();
    peer.ack = peer.ack.wrapping_add(1);
    world.receive([peer.fin()]);
    world.sent.clear();
    assert_eq!(world.population().time_waits, 1);
    fill_syn_queue(&mut world, 3);
    world.receive([Peer { seq: peer.seq.wrapping_add(10), ..peer }.syn()]);
    let syn_ack = world.expect_segment();
    assert_eq!(syn_ack.segment.seq, peer.ack.wrapping_add(65_537));
    assert_eq!(world.population().requests, 5);
    assert_eq!(world.count(Counter::SyncookiesSent), 0);
}

#[test]
fn a_cookie_of_one_lcore_comes_back_to_another() {
    let mut world = World::with_lcores(settings(SynCookies::Always), 3);
    let listener = listening(&mut world, 3);
    let mut peer = Peer::new(40_000);
    world.receive_on(0, [peer.syn()]);
    peer.take(&world.expect_segment());
    world.receive_on(2, [peer.data(b"round")]);
    let stream = accept(&listener).expect("all lcores have the same secret");
    assert_eq!(read(&stream, 9).unwrap(), b"round");
}

#[test]
fn a_flood_of_syns_neither_fills_memory_nor_hinders_those_who_play_by_the_rules() {
    const BACKLOG: u16 = 127;
    let mut world = World::new(settings(SynCookies::OnOverflow));
    let listener = listening(&mut world, BACKLOG.into());
    let (mut old, stream) = Peer::connected(&mut world, 60_000, &listener);
    let mut received = Vec::new();
    let mut admitted = 0_u32;
    for round in 0..200_u32 {
        // Nobody ever answers these; their numbers are their sender's whim.
        let syns: Vec<_> = (0..250)
            .map(|n| {
                let mut nobody = Peer::new(1024 + ((round * 250 + n) % 50_000) as u16);
                nobody.seq = round.wrapping_mul(0x9e37_79b9) ^ n;
                if n % 2 == 0 { nobody.syn() } else { syn_with_timestamps(&nobody, round) }
            })
            .collect();
        world.receive(syns);
        world.sent.clear();
        assert!(world.population().requests <= u32::from(BACKLOG) + 1);
        assert!(world.engines[0].next_deadline().is_some());

        world.receive([old.data(&round.to_be_bytes())]);
        world.wait(Duration::from_millis(300));
        let sent = std::iter::from_fn(|| (!world.sent.is_empty()).then(|| world.expect_segment()));
        let newest = sent.filter(|sent| sent.tuple.local_port == old.port).last();
        assert_eq!(newest.expect("an ACK").segment.ack, old.seq);
        received.extend(read(&stream, 100).unwrap());

        if round % 10 == 0 {
            let mut honest = Peer::new(50_000 + round as u16);
            honest.shake_hands_later(&mut world, Duration::from_millis(80));
            world.receive([honest.data(b"let me in")]);
            let stream = accept(&listener).expect("an honest client gets in");
            assert_eq!(read(&stream, 20).unwrap(), b"let me in");
            admitted += 1;
            world.receive([honest.segment(RST, 0, &[])]);
            world.sent.clear();
        }
    }
    let expected: Vec<u8> = (0..200_u32).flat_map(u32::to_be_bytes).collect();
    assert_eq!(received, expected);
    assert_eq!(admitted, 20);
    assert!(world.count(Counter::SyncookiesSent) > 45_000);
    assert!(world.count(Counter::SyncookiesRecv) > 0);
    assert_eq!(world.count(Counter::SyncookiesFailed), 0);
    assert_eq!(world.population().sockets, 1);
    world.wait(Duration::from_secs(130));
    assert_eq!(world.population().requests, 0);
}
