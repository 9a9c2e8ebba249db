//! Frames below TCP: admission, ARP, ICMP.

use std::num::NonZeroU8;

use crate::wire::arp::{self, Arp, Operation};
use crate::wire::checksum::Sum;
use crate::wire::ipv4;

use super::*;

/// A TCP segment between any two ends.
fn from(remote: Ipv4Addr, local: Ipv4Addr) -> Vec<u8> {
    let tuple = FourTuple {
        local_addr: remote.into(),
        remote_addr: local.into(),
        local_port: 9,
        remote_port: 9,
    };
    frame(&tuple, &Outgoing { flags: SYN, ..Outgoing::default() }, &[])
}

#[test]
fn what_no_host_may_send_gets_no_answer() {
    let mut world = World::new(Settings::default());
    let broadcast = Ipv4Addr::new(10, 0, 0, 255);
    let zero = Ipv4Addr::UNSPECIFIED;
    let nobody = FourTuple {
        local_addr: zero.into(),
        remote_addr: zero.into(),
        local_port: 0,
        remote_port: 0,
    };
    let from_nobody = frame(&nobody, &Outgoing { flags: SYN, ..Outgoing::default() }, &[]);
    let martians = [
        from_nobody.clone(),
        from(Ipv4Addr::UNSPECIFIED, OUR_ADDR),
        from(Ipv4Addr::LOCALHOST, OUR_ADDR),
        from(Ipv4Addr::BROADCAST, OUR_ADDR),
        from(Ipv4Addr::new(224, 0, 0, 1), OUR_ADDR),
        from(broadcast, OUR_ADDR),
        from(OUR_ADDR, OUR_ADDR),
        from_nobody.clone(),
        from(PEER_ADDR, broadcast),
        from(PEER_ADDR, Ipv4Addr::new(10, 0, 0, 2)),
    ];
    let n = martians.len() as u64;
    world.receive(martians);
    world.expect_nothing();
    assert_eq!((world.count(Counter::InAddrErrors), world.count(Counter::InSegs)), (n, 0));
}

#[test]
fn frames_for_others_are_not_looked_at() {
    let mut world = World::new(Settings::default());
    let mut for_other = from(PEER_ADDR, OUR_ADDR);
    for_other[..6].copy_from_slice(&[2, 0, 0, 0, 0, 77]);
    let mut for_all = from(PEER_ADDR, OUR_ADDR);
    for_all[..6].copy_from_slice(&[0xff; 6]);
    let mut tagged = from(PEER_ADDR, OUR_ADDR);
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    world.receive([for_other, for_all, tagged, vec![0; 5], vec![]]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::InSegs), 0);
}

#[test]
fn a_vlan_has_no_say_in_the_connections_of_the_link() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let tagged = |mut frame: Vec<u8>, id: u8| {
        frame.splice(12..12, [0x81, 0x00, 0xe0, id]);
        frame
    };
    world.receive([tagged(peer.segment(ACK, 0, b"foreign"), 5)]);
    world.receive([tagged(peer.segment(RST, 0, &[]), 5)]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::InAddrErrors), 2);
    world.receive([tagged(peer.data(b"ours"), 0)]);
    assert_eq!(read(&stream, 100).unwrap(), b"ours", "a priority is no VLAN");
}

#[test]
fn bad_segments_are_counted_and_change_nothing() {
    let mut world = World::new(Settings::default());
    let _listener = listening(&mut world, 5);
    let peer = Peer::new(40_000);
    let spoilt = |at: usize, value: u8| {
        let mut frame = peer.syn();
        frame[at] ^= value;
        frame
    };
    world.receive([
        spoilt(14 + 20 + 4, 1),     // a sequence number: the checksum is wrong
        spoilt(14 + 20 + 12, 0xc0), // the data offset: four words
        spoilt(14 + 8, 1),          // the time to live: the header checksum is wrong
    ]);
    world.expect_nothing();
    assert_eq!(world.population(), Population::default());
    assert_eq!(world.count(Counter::InHdrErrors), 1);
    assert_eq!(world.count(Counter::InCsumErrors), 1);
    assert_eq!(world.count(Counter::InErrs), 2);
    assert_eq!(world.count(Counter::InSegs), 2);
}

#[test]
fn fragments_are_not_put_together() {
    let mut world = World::new(Settings::default());
    let mut fragment = Peer::new(40_000).syn();
    fragment[14 + 6] = 0x20;
    fragment[14 + 10..14 + 12].fill(0);
    let field = Sum::new().plus(&fragment[14..34]).field();
    fragment[24..26].copy_from_slice(&field);
    world.receive([fragment]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::ReasmFails), 1);
}

fn ping() -> Vec<u8> {
    let message = {
        let mut message = [8, 0, 0, 0, 0, 1, 0, 2, 0xaa, 0xbb];
        let field = Sum::new().plus(&message).field();
        message[2..4].copy_from_slice(&field);
        message
    };
    let mut frame = vec![0; 14 + 20];
    ethernet::emit(&mut frame, OUR_MAC, PEER_MAC, None, ethernet::IPV4);
    ipv4::emit(&mut frame[14..], PEER_ADDR, OUR_ADDR, ipv4::ICMP, 0, message.len());
    frame.extend(message);
    frame.resize(60, 0);
    frame
}

#[test]
fn a_ping_is_answered_but_not_a_flood() {
    let mut world = World::new(Settings::default());
    world.receive([ping()]);
    let reply = world.sent.pop_front().expect("a reply");
    let ip = ipv4::parse(&reply[14..], Default::default()).unwrap();
    assert_eq!((ip.src, ip.dst, ip.total_len), (OUR_ADDR, PEER_ADDR, 30));
    assert_eq!((reply[34], &reply[38..44]), (0, &[0, 1, 0, 2, 0xaa, 0xbb][..]));
    for _ in 0..100 {
        world.receive(vec![ping(); 32]);
    }
    assert_eq!(world.sent.len(), 999);
    assert_eq!(world.count(Counter::EchosSkipped), 3201 - 1000);
    world.wait(Duration::from_secs(1));
    world.sent.clear();
    world.receive([ping()]);
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn a_stranger_is_asked_for_before_it_is_answered() {
    let mut world = World::new(Settings::default());
    let stranger = Ipv4Addr::new(10, 0, 0, 50);
    let mac = MacAddr([2, 0, 0, 0, 0, 50]);
    world.receive([from(stranger, OUR_ADDR)]);
    let question = world.sent.pop_front().expect("a question");
    let asked = arp::parse(&question[14..]).expect("ARP");
    assert_eq!((asked.operation, asked.target_addr), (Operation::Request, stranger));
    let answer = Arp {
        operation: Operation::Reply,
        sender_mac: mac,
        sender_addr: stranger,
        target_mac: OUR_MAC,
        target_addr: OUR_ADDR,
    };
    let mut frame = vec![0; 60];
    let at = ethernet::emit(&mut frame, OUR_MAC, mac, None, ethernet::ARP);
    arp::emit(&mut frame[at..], &answer);
    world.receive([frame]);
    let reset = world.sent.pop_front().expect("the RST that waited");
    assert_eq!(&reset[..6], &mac.0);
    assert_eq!(parse_tcp(&reset, Default::default()).unwrap().segment.flags, RST.with(ACK));
}

#[test]
fn resets_are_limited_by_source() {
    let mut world = World::new(Settings::default());
    for _ in 0..100 {
        world.receive((0..32).map(|n| Peer::new(n).syn()));
    }
    let limit = crate::tcp::ratelimit::RSTS_PER_PREFIX;
    assert_eq!(world.sent.len(), limit as usize);
    assert_eq!(world.count(Counter::RstsSkipped), 3200 - u64::from(limit));
}

/// Diffserv field and time to live of the segment that was sent last, and only that.
fn marks(world: &mut World) -> (u8, u8) {
    let frame = world.sent.pop_front().expect("a segment");
    world.expect_nothing();
    let ip = ipv4::parse(&frame[14..], Default::default()).unwrap();
    (ip.tos, ip.ttl)
}

#[test]
fn segments_carry_the_marks_that_the_application_has_asked_for_until_the_last_ack() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    assert_eq!((stream.tos().unwrap(), stream.ttl().unwrap()), (0, None));
    world.receive([peer.data(b"1")]);
    assert_eq!(marks(&mut world), (0, 64));

    let ttl = NonZeroU8::new(7);
    stream.set_tos(0xbb).unwrap();
    stream.set_ttl(ttl).unwrap();
    assert_eq!((stream.tos().unwrap(), stream.ttl().unwrap()), (0xb8, ttl), "ECN is not theirs");
    world.receive([peer.data(b"2")]);
    assert_eq!(marks(&mut world), (0xb8, 7));
    stream.set_ttl(None).unwrap();
    stream.set_tos(0x20).unwrap();
    world.receive([peer.data(b"3")]);
    assert_eq!(marks(&mut world), (0x20, 64), "they may change");
    assert_eq!(read(&stream, 3).unwrap(), b"123");

    world.sent.clear();
    drop(stream);
    world.turn();
    assert_eq!(marks(&mut world), (0x20, 64));
    peer.ack += 1;
    world.receive([peer.ack()]);
    world.receive([peer.fin()]);
    assert_eq!(marks(&mut world), (0x20, 64), "a record answers as its connection did");
}

#[test]
fn the_setting_is_the_time_to_live_of_all_others() {
    let mut world = World::new(Settings { ip_default_ttl: 200, ..Settings::default() });
    world.receive([Peer::new(40_000).syn()]);
    assert_eq!(marks(&mut world), (0, 200));
    let listener = listening(&mut world, 5);
    let (mut peer, _stream) = Peer::connected(&mut world, 40_001, &listener);
    world.receive([peer.data(b"1")]);
    assert_eq!(marks(&mut world), (0, 200));
}

/// A frame that a router has marked: congestion (RFC 3168 §5).
fn marked(mut frame: Vec<u8>) -> Vec<u8> {
    frame[15] |= 3;
    frame[24..26].fill(0);
    let field = Sum::new().plus(&frame[14..34]).field();
    frame[24..26].copy_from_slice(&field);
    frame
}

#[test]
fn nothing_that_is_sent_is_ecn_capable() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let mut peer = Peer::new(40_000);
    let mut sent = Vec::new();
    let mut hears = |world: &mut World, frame| {
        world.receive([frame]);
        let frame = world.sent.pop_front().expect("a segment");
        world.expect_nothing();
        sent.push(ipv4::parse(&frame[14..], Default::default()).unwrap().ecn());
        parse_tcp(&frame, Default::default()).unwrap().segment
    };
    let syn = SYN.with(Flags::ECE).with(Flags::CWR);
    let syn_ack = hears(&mut world, peer.segment(syn, 0, &[]));
    (peer.seq, peer.ack) = (peer.seq + 1, syn_ack.seq.wrapping_add(1));
    world.receive([peer.ack()]);
    let stream = accept(&listener).unwrap();
    stream.set_tos(0xff).unwrap();
    for byte in [b"1", b"2"] {
        let data = marked(peer.data(byte));
        assert_eq!(hears(&mut world, data).ack, peer.seq);
    }
    let reset = hears(&mut world, marked(Peer::new(1).segment(ACK, 0, b"3")));
    assert_eq!(reset.flags, RST);
    assert_eq!(sent, [0; 4]);
}
