//! How connections begin.

use std::num::NonZeroU8;

use super::*;
use crate::tcp::SynCookies;

#[test]
fn a_connection_is_opened_and_read_from() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let mut peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    let syn_ack = world.expect_segment();
    peer.take(&syn_ack);
    assert_eq!((syn_ack.tuple.local_port, syn_ack.tuple.remote_port), (40_000, PORT));
    assert_eq!((syn_ack.options.mss, syn_ack.options.sack_permitted), (Some(1460), true));
    assert_eq!(world.population(), Population { requests: 1, ..Population::default() });

    world.receive([peer.ack()]);
    world.expect_nothing();
    assert_eq!(world.population(), Population { sockets: 1, ..Population::default() });
    let stream = accept(&listener).expect("accepted");
    assert_eq!(stream.peer_addr().unwrap().to_string(), "10.0.0.9:40000");
    assert_eq!(stream.local_addr().unwrap().to_string(), "10.0.0.1:7000");

    world.receive([peer.data(b"hello, "), peer.data(b"world")]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    world.expect_nothing();
    assert_eq!(read(&stream, 100).unwrap(), b"hello, world");
    assert_eq!(world.count(Counter::PassiveOpens), 1);
    assert_eq!(world.count(Counter::InSegs), 4);
}

#[test]
fn a_handshake_and_its_data_may_come_in_one_burst() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let mut peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    peer.take(&world.expect_segment());
    let burst = [peer.data(b"a"), peer.data(b"b"), peer.segment(ACK, 1, b"d"), peer.data(b"c")];
    world.receive(burst);
    let stream = accept(&listener).expect("accepted");
    assert_eq!(read(&stream, 10).unwrap(), b"abcd");
}

#[test]
fn a_listener_may_announce_a_smaller_mss_than_the_link_allows() {
    for (asked, announced) in [(700, 700), (9000, 1460)] {
        let mut world = World::new(Settings::default());
        let options = ListenOptions { backlog: 5, mss: Some(asked), ..ListenOptions::default() };
        let _queue = world.listeners.listen_with(PORT, options).unwrap();
        world.turn();
        world.receive([Peer::new(40_000).syn()]);
        assert_eq!(world.expect_segment().options.mss, Some(announced));
    }
}

#[test]
fn a_reset_takes_the_type_of_service_but_not_the_ecn_field_of_what_it_answers() {
    for (theirs, ours) in [(0x00, 0x00), (0xb8, 0xb8), (0xbb, 0xb8), (0x02, 0x00)] {
        let mut world = World::new(Settings::default());
        let mut frame = Peer::new(40_000).ack();
        let header = &mut frame[ethernet::HEADER_LEN..][..20];
        header[1] = theirs;
        header[10..12].fill(0);
        let checksum = crate::wire::checksum::Sum::new().plus(header).field();
        header[10..12].copy_from_slice(&checksum);
        world.receive([frame]);
        let sent = world.sent.pop_front().expect("a RST");
        assert_eq!(sent[ethernet::HEADER_LEN + 1], ours, "{theirs:#x}");
    }
}

#[test]
fn a_closed_port_refuses() {
    let mut world = World::new(Settings::default());
    let peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    world.expect_segment().is(RST.with(ACK), 0, peer.seq + 1);
    world.receive([peer.segment(RST, 0, &[])]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::OutRsts), 1);
}

#[test]
fn syn_acks_are_repeated_and_given_up() {
    let mut world = World::new(Settings::default());
    let _listener = listening(&mut world, 5);
    let peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    world.expect_segment();
    let mut waited = Vec::new();
    for _ in 0..5 {
        let (ms, segment) = world.wait_for_segment();
        assert_eq!(segment.segment.flags, SYN.with(ACK));
        waited.push(ms);
    }
    assert_eq!(waited, [1000, 2000, 4000, 8000, 16_000]);
    assert_eq!(world.population().requests, 1);
    world.wait(Duration::from_secs(33));
    world.expect_nothing();
    assert_eq!(world.population(), Population::default());
    world.receive([peer.ack()]);
    assert_eq!(world.expect_segment().segment.flags, RST);
}

#[test]
fn a_full_accept_queue_drops_syns() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 1);
    for port in [40_000, 40_001] {
        Peer::new(port).shake_hands(&mut world);
    }
    world.receive([Peer::new(40_002).syn()]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::ListenOverflows), 1);
    drop(accept(&listener));
    world.turn();
    world.sent.clear();
    Peer::new(40_002).shake_hands(&mut world);
    assert_eq!(world.count(Counter::PassiveOpens), 3);
}

/// The queue is filled by other connections between SYN and ACK.
fn overflow(settings: Settings) -> (World, TcpListener<HeapBuf>, Peer) {
    let mut world = World::new(settings);
    let listener = listening(&mut world, 1);
    let mut peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    peer.take(&world.expect_segment());
    Peer::new(40_001).shake_hands(&mut world);
    Peer::new(40_002).shake_hands(&mut world);
    world.receive([peer.ack()]);
    (world, listener, peer)
}

#[test]
fn an_ack_that_meets_a_full_queue_is_as_good_as_lost() {
    let (mut world, listener, mut peer) = overflow(Settings::default());
    world.expect_nothing();
    let (ms, syn_ack) = world.wait_for_segment();
    assert_eq!((ms, syn_ack.segment.flags), (1000, SYN.with(ACK)));

    drop(accept(&listener));
    world.turn();
    world.sent.clear();
    world.receive([peer.data(b"late")]);
    let mut accepted = std::iter::from_fn(|| accept(&listener));
    let stream = accepted.find(|stream| stream.peer_addr().unwrap().port() == 40_000);
    let stream = stream.expect("the data has completed the handshake");
    assert_eq!(read(&stream, 10).unwrap(), b"late");
}

#[test]
fn an_ack_that_meets_a_full_queue_is_refused_with_abort_on_overflow() {
    let settings = Settings { tcp_abort_on_overflow: true, ..Settings::default() };
    let (mut world, _listener, peer) = overflow(settings);
    world.expect_segment().is(RST, peer.ack, 0);
    assert_eq!(world.population().requests, 0);
    assert_eq!(world.count(Counter::EmbryonicRsts), 1);
}

#[test]
fn requests_vanish_with_their_listener_and_connections_are_reset() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let mut half_open = Peer::new(40_000);
    world.receive([half_open.syn()]);
    half_open.take(&world.expect_segment());
    let mut waiting = Peer::new(40_001);
    waiting.shake_hands(&mut world);

    drop(listener);
    world.turn();
    world.expect_segment().is(RST.with(ACK), waiting.ack, waiting.seq);
    world.expect_nothing();
    world.receive([half_open.ack()]);
    world.expect_segment().is(RST, half_open.ack, 0);
    assert_eq!(world.population(), Population::default());
    assert!(world.listeners.listen(PORT, 1).is_some(), "the port is free again");
}

#[test]
fn the_syn_queue_is_bounded() {
    let settings = Settings { tcp_syncookies: SynCookies::Never, ..Settings::default() };
    let mut world = World::new(settings);
    let _listener = listening(&mut world, 3);
    world.receive((0..20).map(|n| Peer::new(40_000 + n).syn()));
    assert_eq!((world.sent.len(), world.population().requests), (4, 4));
    assert_eq!(world.count(Counter::TCPReqQFullDrop), 16);
    world.wait(Duration::from_secs(100));
    assert_eq!(world.population(), Population::default());
}

#[test]
fn a_connection_keeps_the_address_it_was_opened_at() {
    let second = Ipv4Addr::new(10, 0, 0, 2);
    let interface = Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24);
    let interface = interface.with_address(second, 24);
    let mut world = World::with_interface(Settings::default(), interface, 1);
    let listener = listening(&mut world, 5);
    let to = |addr: Ipv4Addr, out: &Outgoing, payload: &[u8]| {
        let tuple = FourTuple {
            local_addr: PEER_ADDR.into(),
            remote_addr: addr.into(),
            local_port: 40_000,
            remote_port: PORT,
        };
        frame(&tuple, out, payload)
    };
    let out = Outgoing { seq: 1000, flags: SYN, window: 65_535, ..Outgoing::default() };
    world.receive([to(second, &out, &[])]);
    let syn_ack = world.expect_segment();
    assert_eq!(syn_ack.tuple.remote_addr, second);
    let out = Outgoing { seq: 1001, ack: syn_ack.segment.seq.wrapping_add(1), flags: ACK, ..out };
    world.receive([to(second, &out, b"here")]);
    assert_eq!(world.expect_segment().tuple.remote_addr, second);
    // The same ports at our other address are nobody's.
    world.receive([to(OUR_ADDR, &out, b"there")]);
    let rst = world.expect_segment();
    rst.is(RST, out.ack, 0);
    assert_eq!(rst.tuple.remote_addr, OUR_ADDR);
    let stream = accept(&listener).expect("accepted");
    assert_eq!(stream.local_addr().unwrap().to_string(), "10.0.0.2:7000");
    assert_eq!(read(&stream, 100).unwrap(), b"here");
}

#[test]
fn a_new_listener_leaves_what_was_there_before_it_alone() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let mut half = Peer::new(40_001);
    world.receive([half.syn()]);
    half.take(&world.expect_segment());
    // At another port, while a connection of this one is being opened.
    let _other = world.listeners.listen(PORT + 1, 5).expect("free");
    world.turn();
    world.receive([half.ack()]);
    assert!(accept(&listener).is_some(), "it opens all the same");
    // At this one anew, while a connection of it is being opened, and with one that stands.
    world.receive([Peer::new(40_002).syn()]);
    world.sent.clear();
    drop(listener);
    assert_eq!(world.population().requests, 1);
    let listener = listening(&mut world, 5);
    world.receive([peer.data(b"as before")]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    assert_eq!(read(&stream, 100).unwrap(), b"as before");
    let (mut newer, newer_stream) = Peer::connected(&mut world, 40_003, &listener);
    world.receive([newer.data(b"anew")]);
    assert_eq!(read(&newer_stream, 100).unwrap(), b"anew");
}

#[test]
fn a_port_is_listened_on_once() {
    let world = World::new(Settings::default());
    let first = world.listeners.listen(PORT, 1).expect("free");
    assert!(world.listeners.listen(PORT, 1).is_none());
    first.close();
    assert!(world.listeners.listen(PORT, 1).is_some());
}

#[test]
fn a_connection_may_wait_for_its_first_data_to_be_accepted() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    listener.set_deferaccept(Duration::from_secs(3));
    assert_eq!(listener.deferaccept(), Duration::from_secs(3));
    let mut peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    peer.take(&world.expect_segment());
    world.receive([peer.ack()]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::TCPDeferAcceptDrop), 1);
    assert!(accept(&listener).is_none(), "it has brought nothing");
    world.receive([peer.data(b"hello")]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    let stream = accept(&listener).expect("it has now");
    assert_eq!(read(&stream, 9).unwrap(), b"hello");

    // One that stays silent is asked for another ACK at the end of the time, and accepted.
    let mut peer = Peer::new(40_001);
    world.receive([peer.syn()]);
    peer.take(&world.expect_segment());
    world.receive([peer.ack()]);
    let (ms, segment) = world.wait_for_segment();
    assert_eq!((ms, segment.segment.flags), (3000, SYN.with(ACK)));
    world.receive([peer.ack()]);
    assert!(accept(&listener).is_some(), "it has waited long enough");
}

#[test]
fn a_listener_may_have_its_own_number_of_repetitions() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    assert_eq!(listener.syncnt(), None);
    listener.set_syncnt(NonZeroU8::new(2));
    assert_eq!(listener.syncnt(), NonZeroU8::new(2));
    world.receive([Peer::new(40_000).syn()]);
    world.wait(Duration::from_secs(100));
    assert_eq!(world.sent.len(), 3);
    assert_eq!(world.population(), Population::default());
}
