//! ICMP errors on their way to whoever has sent what they quote.

use crate::tcp::PathError;
use crate::tcp::tcb::ConnError;
use crate::wire::checksum::Sum;
use crate::wire::ipv4;

use super::*;

/// An ICMP message from a router.
fn message(kind: u8, code: u8, last: u16, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(last.to_be_bytes());
    message.extend(quoted);
    let field = Sum::new().plus(&message).field();
    message[2..4].copy_from_slice(&field);
    let mut frame = vec![0; 14 + 20];
    ethernet::emit(&mut frame, OUR_MAC, PEER_MAC, None, ethernet::IPV4);
    let router = Ipv4Addr::new(192, 0, 2, 1);
    ipv4::emit(&mut frame[14..], router, OUR_ADDR, ipv4::ICMP, 0, message.len());
    frame.extend(message);
    frame
}

/// An error about the segment with this number that we have sent to a peer.
fn error(peer: &Peer, kind: u8, code: u8, last: u16, seq: u32) -> Vec<u8> {
    let tuple = FourTuple {
        local_addr: OUR_ADDR.into(),
        remote_addr: PEER_ADDR.into(),
        local_port: PORT,
        remote_port: peer.port,
    };
    let mut quoted = [0; 100];
    tcp::emit(&mut quoted, &tuple, &Outgoing { seq, ..Outgoing::default() }, 0, &[]);
    message(kind, code, last, &quoted[..28])
}

fn path_mtu(stream: &TcpStream<HeapBuf>, world: &World) -> u16 {
    stream.lock().connection().path_mtu(world.now)
}

fn connected(lcores: usize) -> (World, Peer, TcpStream<HeapBuf>) {
    let mut world = World::with_lcores(Settings::default(), lcores);
    let listener = listening(&mut world, 5);
    let (peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    (world, peer, stream)
}

#[test]
fn an_error_reaches_its_connection_and_does_not_end_it() {
    let (mut world, mut peer, stream) = connected(1);
    for code in 0..=15 {
        world.receive([error(&peer, 3, code, 1000, peer.ack)]);
    }
    for (kind, code) in [(4, 0), (5, 1), (11, 0), (11, 1), (12, 0)] {
        world.receive([error(&peer, kind, code, 0, peer.ack)]);
    }
    world.expect_nothing();
    assert_eq!(path_mtu(&stream, &world), 1000);
    world.receive([peer.data(b"still here")]);
    assert_eq!(read(&stream, 100).unwrap(), b"still here");
    for (counter, n) in [
        (Counter::IcmpInMsgs, 21),
        (Counter::IcmpInDestUnreachs, 16),
        (Counter::IcmpInSrcQuenchs, 1),
        (Counter::IcmpInRedirects, 1),
        (Counter::IcmpInTimeExcds, 2),
        (Counter::IcmpInParmProbs, 1),
        (Counter::IcmpInErrors, 0),
        (Counter::OutOfWindowIcmps, 0),
    ] {
        assert_eq!(world.count(counter), n, "{counter:?}");
    }
}

#[test]
fn a_close_that_is_never_acknowledged_ends_by_the_error() {
    let (mut world, peer, stream) = connected(1);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    world.turn();
    world.expect_segment().is(FIN.with(ACK), peer.ack, peer.seq);
    world.receive([error(&peer, 3, 1, 0, peer.ack)]);
    world.wait(Duration::from_secs(4 * 3600));
    let unreachable = RecvError::Connection(ConnError::Path(PathError::HostUnreachable));
    assert_eq!(read(&stream, 9).unwrap_err(), unreachable);
    let error = std::io::Error::from(unreachable);
    assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
}

#[test]
fn a_number_that_is_not_under_way_is_counted_and_no_more() {
    let (mut world, peer, stream) = connected(1);
    for seq in [peer.ack.wrapping_sub(1), peer.ack.wrapping_add(1)] {
        world.receive([error(&peer, 3, 4, 1000, seq), error(&peer, 3, 1, 0, seq)]);
    }
    assert_eq!((world.count(Counter::OutOfWindowIcmps), path_mtu(&stream, &world)), (4, 1500));
}

#[test]
fn an_error_about_nothing_of_ours_is_counted_as_one() {
    let (mut world, peer, _stream) = connected(1);
    let stranger = Peer { port: 1, ..peer };
    world.receive([error(&stranger, 3, 1, 0, peer.ack)]);
    // A segment that somebody else has sent.
    let mut foreign = error(&peer, 3, 1, 0, peer.ack);
    foreign[14 + 20 + 8 + 15] ^= 7;
    foreign[14 + 20 + 2..][..2].fill(0);
    let field = Sum::new().plus(&foreign[34..]).field();
    foreign[36..38].copy_from_slice(&field);
    world.receive([foreign]);
    assert_eq!(world.count(Counter::IcmpInErrors), 2);
    // One that is damaged, and one that quotes too little.
    let mut damaged = error(&peer, 3, 1, 0, peer.ack);
    damaged[60] ^= 1;
    world.receive([damaged, message(3, 1, 0, &[0x45; 27])]);
    assert_eq!(
        (world.count(Counter::IcmpInErrors), world.count(Counter::IcmpInCsumErrors)),
        (4, 1)
    );
}

#[test]
fn a_request_ends_by_an_error_about_its_syn_ack() {
    let mut world = World::new(Settings::default());
    let _listener = listening(&mut world, 5);
    let peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    let iss = world.expect_segment().segment.seq;
    world.receive([error(&peer, 3, 1, 0, iss.wrapping_add(1)), error(&peer, 3, 3, 0, iss)]);
    assert_eq!((world.population().requests, world.count(Counter::OutOfWindowIcmps)), (1, 1));
    world.receive([error(&peer, 3, 1, 0, iss)]);
    assert_eq!((world.population().requests, world.count(Counter::ListenDrops)), (0, 1));
    world.wait(Duration::from_secs(3));
    world.expect_nothing();
}

#[test]
fn a_record_in_time_wait_is_told_nothing() {
    let (mut world, mut peer, stream) = connected(1);
    drop(stream);
    world.turn();
    world.sent.clear();
    peer.ack = peer.ack.wrapping_add(1);
    let fin = peer.fin();
    world.receive([fin]);
    assert_eq!(world.population().time_waits, 1);
    world.receive([error(&peer, 3, 1, 0, peer.ack)]);
    assert_eq!(world.population().time_waits, 1);
    assert_eq!(world.count(Counter::IcmpInErrors), 0);
}

#[test]
fn what_meets_an_owned_socket_waits() {
    let (mut world, peer, stream) = connected(1);
    let guard = stream.lock();
    world.receive([
        error(&peer, 3, 3, 0, peer.ack),
        error(&peer, 3, 1, 0, peer.ack),
        error(&peer, 3, 4, 1300, peer.ack),
        error(&peer, 3, 4, 1200, peer.ack),
    ]);
    assert_eq!(world.count(Counter::LockDroppedIcmps), 2);
    assert_eq!(guard.connection().path_mtu(world.now), 1500);
    drop(guard);
    world.turn();
    assert_eq!(path_mtu(&stream, &world), 1200);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    world.turn();
    world.wait(Duration::from_secs(4 * 3600));
    let unreachable = RecvError::Connection(ConnError::Path(PathError::HostUnreachable));
    assert_eq!(read(&stream, 9).unwrap_err(), unreachable);
}

#[test]
fn an_error_finds_its_connection_on_another_lcore() {
    let (mut world, peer, stream) = connected(3);
    for lcore in 0..3_u16 {
        let mtu = 1400 - 100 * lcore;
        world.receive_on(lcore.into(), [error(&peer, 3, 4, mtu, peer.ack)]);
        assert_eq!(path_mtu(&stream, &world), mtu);
    }
    let stranger = Peer { port: 1, ..peer };
    world.receive_on(1, [error(&stranger, 3, 4, 600, peer.ack)]);
    assert_eq!(world.count(Counter::IcmpInErrors), 1, "counted once, where it came in");
    assert_eq!(path_mtu(&stream, &world), 1200);
}
