//! Counters of what no connection sees alone: how many there are, who owned them, what was received by
//! its ECN field, how long buffers were short.

use super::*;

fn connected() -> (World, TcpListener<HeapBuf>) {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    (world, listener)
}

#[test]
fn connections_are_established_until_one_of_the_ends_says_so_here() {
    let (mut world, listener) = connected();
    let established = |world: &World| world.count(Counter::CurrEstab);
    let (mut first, first_stream) = Peer::connected(&mut world, 40_000, &listener);
    let (second, _second_stream) = Peer::connected(&mut world, 40_001, &listener);
    let (mut third, third_stream) = Peer::connected(&mut world, 40_002, &listener);
    world.receive([Peer::new(40_003).syn()]);
    assert_eq!(established(&world), 3, "a request is none");
    // CLOSE-WAIT counts; what follows does not.
    world.receive([first.fin()]);
    assert_eq!(established(&world), 3);
    drop(first_stream);
    world.turn();
    assert_eq!(established(&world), 2);
    first.ack += 1;
    world.receive([first.ack()]);
    assert_eq!((established(&world), world.population().sockets), (2, 2));
    // A reset by the peer.
    world.receive([second.segment(RST, 0, &[])]);
    assert_eq!(established(&world), 1);
    // A reset by us.
    world.receive([third.data(b"unread")]);
    drop(third_stream);
    world.turn();
    assert_eq!(established(&world), 0);
}

#[test]
fn a_delayed_ack_that_meets_an_owner_is_counted_and_sent_later() {
    let (mut world, listener) = connected();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let counted = |world: &World| {
        [Counter::DelayedACKs, Counter::DelayedACKLocked].map(|counter| world.count(counter))
    };
    world.receive([peer.fin()]);
    let guard = stream.lock();
    world.wait(Duration::from_millis(60));
    world.expect_nothing();
    drop(guard);
    world.turn();
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    assert_eq!(counted(&world), [1, 1]);
    // Without an owner, or with one but nothing delayed, it is not.
    let (mut peer, _stream) = Peer::connected(&mut world, 40_001, &listener);
    world.receive([peer.fin()]);
    world.wait(Duration::from_millis(60));
    assert_eq!(counted(&world), [2, 1]);
}

#[test]
fn datagrams_are_counted_by_their_ecn_field_whatever_they_carry() {
    let (mut world, listener) = connected();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let counted = |world: &World| {
        [Counter::InNoECTPkts, Counter::InECT1Pkts, Counter::InECT0Pkts, Counter::InCEPkts]
            .map(|counter| world.count(counter))
    };
    assert_eq!(counted(&world), [2, 0, 0, 0], "the handshake, and nothing for ARP");
    let tuple = FourTuple {
        local_addr: PEER_ADDR.into(),
        remote_addr: OUR_ADDR.into(),
        local_port: peer.port,
        remote_port: PORT,
    };
    let mut with = |tos: u8| {
        let out =
            Outgoing { seq: peer.seq, ack: peer.ack, flags: ACK, window: 9, ..Outgoing::default() };
        peer.seq += 4;
        marked(&tuple, &out, tos, b"data")
    };
    // Marked ones among others, in one burst; the upper bits are the service's.
    let burst = [with(0), with(2), with(2 | 0x28), with(0x28), with(3), with(1), with(0)];
    world.receive(burst);
    assert_eq!(counted(&world), [5, 1, 2, 1]);
    assert_eq!(read(&stream, 100).unwrap(), b"data".repeat(7), "in order, all the same");
    assert_eq!(world.count(Counter::InSegs), 9);

    // Not TCP, not well, over IPv6, not for us.
    let mut udp = with(3);
    udp[ethernet::HEADER_LEN + 9] = 17;
    let mut damaged = with(2);
    damaged[50] ^= 1;
    let mut six = vec![0; 100];
    ethernet::emit(&mut six, OUR_MAC, PEER_MAC, None, ethernet::IPV6);
    six[ethernet::HEADER_LEN..][..2].copy_from_slice(&[0x60, 0x10]);
    let mut elsewhere = with(3);
    elsewhere[..6].copy_from_slice(&PEER_MAC.0);
    world.receive([udp, damaged, six, elsewhere]);
    assert_eq!(counted(&world), [5, 2, 3, 2]);
}

#[test]
fn the_spans_in_which_buffers_are_short_are_added_up() {
    let mut world = World::new(Settings::default());
    let counted = |world: &World| {
        [Counter::TCPMemoryPressures, Counter::TCPMemoryPressuresChrono].map(|c| world.count(c))
    };
    world.set_pressure(Pressure::None);
    world.set_pressure(Pressure::High);
    world.now = world.now + Duration::from_millis(30);
    world.set_pressure(Pressure::Critical);
    assert_eq!(counted(&world), [1, 0]);
    world.now = world.now + Duration::from_millis(12);
    world.set_pressure(Pressure::None);
    assert_eq!(counted(&world), [1, 42]);
    world.now = world.now + Duration::from_secs(1);
    world.set_pressure(Pressure::Critical);
    world.now = world.now + Duration::from_millis(8);
    world.set_pressure(Pressure::None);
    assert_eq!(counted(&world), [2, 50]);
}
