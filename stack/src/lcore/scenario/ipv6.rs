//! Connections over IPv6, and what else a host with an address of IPv6 is asked.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::wire::checksum::Sum;
use crate::wire::icmpv6::{self, Message};
use crate::wire::ipv6;

use super::*;

pub(super) const OUR_ADDR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(super) const PEER_ADDR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

/// A world whose interface has an address of either family, and whose peer is known.
fn both(lcores: usize) -> World {
    let interface =
        Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24).with_address(OUR_ADDR6, 64);
    let mut world = World::with_interface(Settings::default(), interface, lcores);
    let mut tx = Vec::new();
    for engine in &mut world.engines {
        let news = News { addr: PEER_ADDR6.into(), mac: PEER_MAC };
        engine.learn_neighbour(news, world.now, &mut tx);
    }
    world
}

fn tuple(port: u16) -> FourTuple {
    FourTuple {
        local_addr: PEER_ADDR6.into(),
        remote_addr: OUR_ADDR6.into(),
        local_port: port,
        remote_port: PORT,
    }
}

/// A segment of the peer's.
fn segment(port: u16, out: Outgoing, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; crate::wire::frame::MAX_CONTROL_LEN + payload.len()];
    let at = ethernet::emit(&mut frame, OUR_MAC, PEER_MAC, None, ethernet::IPV6);
    let len = tcp::emit(&mut frame[at..], &tuple(port), &out, 0, payload);
    frame.truncate(at + len);
    frame
}

pub(super) fn syn(port: u16, mss: Option<u16>) -> Vec<u8> {
    segment(
        port,
        Outgoing { seq: 1000, flags: SYN, window: 65_535, mss, ..Outgoing::default() },
        &[],
    )
}

pub(super) fn said(port: u16, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    segment(port, Outgoing { seq, ack, flags, window: 1000, ..Outgoing::default() }, payload)
}

/// A connection, and the number of our first byte.
fn connected(
    world: &mut World,
    port: u16,
    listener: &TcpListener<HeapBuf>,
) -> (u32, TcpStream<HeapBuf>) {
    world.receive([syn(port, Some(1440))]);
    let syn_ack = world.expect_segment();
    assert_eq!((syn_ack.options.mss, syn_ack.tuple), (Some(1440), tuple(port)));
    let ours = syn_ack.segment.seq.wrapping_add(1);
    world.receive([said(port, ACK, 1001, ours, &[])]);
    (ours, accept(listener).expect("the connection should wait to be accepted"))
}

/// A datagram from the peer in a frame.
pub(super) fn framed(dst: MacAddr, datagram: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    ethernet::emit(&mut frame, dst, PEER_MAC, None, ethernet::IPV6);
    frame.extend_from_slice(datagram);
    frame
}

/// The one message of ICMPv6 that was sent.
#[track_caller]
fn message(world: &mut World) -> (Vec<u8>, Message) {
    let frame = world.sent.pop_front().expect("a message should have been sent");
    let datagram = frame[14..].to_vec();
    let ip = ipv6::parse(&datagram).unwrap();
    let message = icmpv6::parse(&ip, ip.payload(&datagram)).expect("a good message");
    (datagram, message)
}

#[test]
fn a_connection_runs_from_syn_to_time_wait() {
    let mut world = both(1);
    let listener = listening(&mut world, 5);
    let (ours, stream) = connected(&mut world, 40_000, &listener);
    assert_eq!(stream.peer_addr().unwrap(), SocketAddr::from((PEER_ADDR6, 40_000)));
    assert_eq!(stream.local_addr().unwrap(), SocketAddr::from((OUR_ADDR6, PORT)));
    // In order, above a hole, into it.
    world.receive([said(40_000, ACK, 1001, ours, b"one "), said(40_000, ACK, 1009, ours, b"two")]);
    let dupack = world.sent.pop_back().map(|_| world.sent.clear());
    assert!(dupack.is_some(), "what is above a hole is answered at once");
    world.receive([said(40_000, ACK, 1005, ours, b"and ")]);
    world.expect_segment().is(ACK, ours, 1012);
    assert_eq!(read(&stream, 100).unwrap(), b"one and two");

    drop(stream);
    world.turn();
    world.expect_segment().is(FIN.with(ACK), ours, 1012);
    let fin = said(40_000, FIN.with(ACK), 1012, ours.wrapping_add(1), &[]);
    world.receive([fin.clone()]);
    world.expect_segment().is(ACK, ours.wrapping_add(1), 1013);
    assert_eq!(world.population().time_waits, 1);
    world.wait(Duration::from_secs(1));
    world.receive([fin]);
    world.expect_segment().is(ACK, ours.wrapping_add(1), 1013);
    world.wait(Duration::from_secs(61));
    assert_eq!(world.population(), Population::default());
}

#[test]
fn bursts_of_both_families_are_kept_apart() {
    let mut world = both(1);
    let listener = listening(&mut world, 5);
    let (mut four, four_stream) = Peer::connected(&mut world, 40_000, &listener);
    let (ours, six_stream) = connected(&mut world, 40_000, &listener);
    let mut frames = Vec::new();
    let mut seq = 1001;
    for n in 0..8_u8 {
        frames.push(four.data(&[n; 100]));
        for _ in 0..2 {
            frames.push(said(40_000, ACK, seq, ours, &[n + 100; 100]));
            seq += 100;
        }
    }
    world.receive(frames);
    let expected = |first: u8, times: usize| -> Vec<u8> {
        (first..first + 8).flat_map(|n| vec![n; 100 * times]).collect()
    };
    assert_eq!(read(&four_stream, 4096).unwrap(), expected(0, 1));
    assert_eq!(read(&six_stream, 4096).unwrap(), expected(100, 2));
    assert!(world.count(Counter::TCPHPHits) > 16, "most go the short way");
}

#[test]
fn segments_find_their_lcore() {
    let mut world = both(3);
    let listener = listening(&mut world, 5);
    let (ours, stream) = connected(&mut world, 40_000, &listener);
    world.receive_on(2, [said(40_000, ACK, 1001, ours, b"astray")]);
    assert_eq!(read(&stream, 100).unwrap(), b"astray");
    assert!(world.count(Counter::LcorePassed) > 0);
}

#[test]
fn a_closed_port_refuses_and_a_foreign_address_is_nobody() {
    let mut world = both(1);
    world.receive([syn(40_000, None)]);
    world.expect_segment().is(RST.with(ACK), 0, 1001);
    let mut foreign = syn(40_000, None);
    foreign[14 + 39] = 77;
    // The checksum is to be that of the other address.
    let dst = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 77);
    foreign[14 + 40 + 16..][..2].fill(0);
    let sum = Sum::pseudo_header_v6(PEER_ADDR6, dst, 6, (foreign.len() - 54) as u32);
    let field = sum.plus(&foreign[54..]).field();
    foreign[14 + 40 + 16..][..2].copy_from_slice(&field);
    world.receive([foreign]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::InAddrErrors), 1);
}

#[test]
fn a_peer_without_mss_takes_1220() {
    let mut world = both(1);
    let listener = listening(&mut world, 5);
    world.receive([syn(40_000, None)]);
    let ours = world.expect_segment().segment.seq.wrapping_add(1);
    world.receive([said(40_000, ACK, 1001, ours, &[])]);
    let stream = accept(&listener).unwrap();
    assert_eq!(stream.lock().connection().effective_mss(world.now), 1220);
}

#[test]
fn listeners_of_a_family_or_an_address_leave_the_rest_of_the_port_to_others() {
    let mut world = both(1);
    let listen = |world: &World, addr: IpAddr, only_v6| {
        let options = ListenOptions { bind: Bind::at(addr, only_v6), ..ListenOptions::default() };
        let queue = world.listeners.listen_with(PORT, options);
        queue.map(|queue| TcpListener::new(queue, (addr, PORT)))
    };
    let six = listen(&world, Ipv6Addr::UNSPECIFIED.into(), true).expect("it is free");
    assert!(listen(&world, OUR_ADDR6.into(), false).is_none(), "it is a part of that");
    world.turn();
    world.receive([Peer::new(40_000).syn()]);
    world.expect_segment().is(RST.with(ACK), 0, 1001);
    let four = listen(&world, OUR_ADDR.into(), false).expect("nobody has it");
    world.turn();
    let (_, stream) = Peer::connected(&mut world, 40_000, &four);
    assert!(stream.peer_addr().unwrap().is_ipv4());
    let (_, stream6) = connected(&mut world, 40_000, &six);
    assert!(stream6.peer_addr().unwrap().is_ipv6());

    drop((four, six, stream, stream6));
    world.turn();
    world.sent.clear();
    let all = listen(&world, Ipv6Addr::UNSPECIFIED.into(), false).expect("all have gone");
    let all = all.with_mapped_addresses();
    world.turn();
    let (_, stream) = Peer::connected(&mut world, 40_001, &all);
    let mapped = PEER_ADDR.to_ipv6_mapped();
    assert_eq!(stream.peer_addr().unwrap(), SocketAddr::from((mapped, 40_001)));
}

#[test]
fn who_asks_for_us_is_answered_whoever_asks_for_others_is_not() {
    let mut world = both(2);
    let group = ipv6::solicited_node(OUR_ADDR6);
    let mut datagram = [0; icmpv6::MAX_DISCOVERY_LEN];
    let moved = MacAddr([2, 0, 0, 0, 0, 10]);
    icmpv6::emit_solicitation(&mut datagram, (PEER_ADDR6, Some(moved)), group, OUR_ADDR6);
    world.receive([framed(ipv6::group_mac(group), &datagram)]);
    let (_, answer) = message(&mut world);
    let Message::Advertisement(told) = answer else { panic!("an answer") };
    assert_eq!((told.target, told.target_mac), (OUR_ADDR6, Some(OUR_MAC)));

    let other = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 77);
    let others = ipv6::solicited_node(other);
    icmpv6::emit_solicitation(&mut datagram, (PEER_ADDR6, Some(moved)), others, other);
    world.receive([framed(ipv6::group_mac(others), &datagram)]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::InAddrErrors), 0, "groups of others are nobody's error");
    // What one lcore has learnt the other knows too.
    world.receive_on(1, [syn(40_000, None)]);
    let frame = world.sent.pop_front().expect("a RST");
    assert_eq!(ethernet::parse(&frame).unwrap().dst, moved);
}

#[test]
fn a_ping_is_answered() {
    let mut world = both(1);
    let mut ping = vec![0; 40];
    ipv6::emit(&mut ping, PEER_ADDR6, OUR_ADDR6, ipv6::ICMP, 0, 12);
    ping.extend([128, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let sum = Sum::pseudo_header_v6(PEER_ADDR6, OUR_ADDR6, ipv6::ICMP, 12);
    let field = sum.plus(&ping[40..]).field();
    ping[42..44].copy_from_slice(&field);
    world.receive([framed(OUR_MAC, &ping)]);
    assert_eq!(message(&mut world).1, Message::EchoReply);
    assert_eq!(world.count(Counter::OutEchoReps), 1);
}

#[test]
fn what_is_not_known_here_is_said_and_limited() {
    let mut world = both(1);
    let of = |next: u8, body: &[u8]| {
        let mut datagram = vec![0; 40];
        ipv6::emit(&mut datagram, PEER_ADDR6, OUR_ADDR6, next, 0, body.len());
        datagram.extend(body);
        datagram
    };
    for (next, body, code, pointer) in [
        (17, &[0; 8][..], 1, 6),
        (60, &[6, 0, 0x9e, 4, 0, 0, 0, 0][..], 2, 42),
        (43, &[6, 0, 0, 1, 0, 0, 0, 0][..], 0, 42),
    ] {
        world.receive([framed(OUR_MAC, &of(next, body))]);
        let (datagram, _) = message(&mut world);
        assert_eq!((datagram[40], datagram[41], datagram[47]), (4, code, pointer), "{next}");
    }
    // Nothing is said of an error, nor of a fragment, nor of what says nothing.
    for datagram in
        [of(58, &[1, 0, 0, 0, 0, 0, 0, 0]), of(44, &[6, 0, 0, 1, 0, 0, 0, 0]), of(59, &[])]
    {
        world.receive([framed(OUR_MAC, &datagram)]);
        world.expect_nothing();
    }
    assert_eq!(world.count(Counter::ReasmFails), 1);
    world.receive((0..200).map(|_| framed(OUR_MAC, &of(17, &[0; 8]))));
    assert_eq!(world.count(Counter::Icmp6OutParmProblems), 100, "a second's worth");
}

#[test]
fn extension_headers_that_are_skipped_do_not_part_a_segment_from_its_connection() {
    let mut world = both(1);
    let listener = listening(&mut world, 5);
    let (ours, stream) = connected(&mut world, 40_000, &listener);
    let plain = said(40_000, ACK, 1001, ours, b"hello");
    let mut frame = plain[..54].to_vec();
    frame[14 + 6] = 60;
    let payload_len = (plain.len() - 54 + 8) as u16;
    frame[18..20].copy_from_slice(&payload_len.to_be_bytes());
    frame.extend([6, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend(&plain[54..]);
    world.receive([frame]);
    assert_eq!(read(&stream, 100).unwrap(), b"hello");
}

#[test]
fn an_error_reaches_its_connection() {
    let mut world = both(1);
    let listener = listening(&mut world, 5);
    let (ours, stream) = connected(&mut world, 40_000, &listener);
    let mut quoted = vec![0; 100];
    let theirs = tuple(40_000);
    let sent = FourTuple {
        local_addr: theirs.remote_addr,
        remote_addr: theirs.local_addr,
        local_port: PORT,
        remote_port: 40_000,
    };
    let len = tcp::emit(&mut quoted, &sent, &Outgoing { seq: ours, ..Outgoing::default() }, 0, &[]);
    let router = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    for (mtu, believed) in [(1400_u32, 1400), (100, 1280)] {
        let mut body = vec![2, 0, 0, 0];
        body.extend(mtu.to_be_bytes());
        body.extend(&quoted[..len]);
        let total = body.len();
        let sum = Sum::pseudo_header_v6(router, OUR_ADDR6, ipv6::ICMP, total as u32);
        let field = sum.plus(&body).field();
        body[2..4].copy_from_slice(&field);
        let mut datagram = vec![0; 40];
        ipv6::emit(&mut datagram, router, OUR_ADDR6, ipv6::ICMP, 0, total);
        datagram.extend(body);
        world.receive([framed(OUR_MAC, &datagram)]);
        assert_eq!(stream.lock().connection().path_mtu(world.now), believed);
    }
    world.expect_nothing();
}
