//! Explicit congestion notification, from the bits of the SYN to those of the ACKs.

use super::*;

const ASKING: Flags = SYN.with(Flags::ECE).with(Flags::CWR);
const CE: u8 = 3;
const ECT_0: u8 = 2;

fn tuple(peer: &Peer) -> FourTuple {
    FourTuple {
        local_addr: PEER_ADDR.into(),
        remote_addr: OUR_ADDR.into(),
        local_port: peer.port,
        remote_port: PORT,
    }
}

/// A SYN that asks for it, with this field in its IP header.
fn asking(peer: &Peer, ecn: u8) -> Vec<u8> {
    let out = Outgoing {
        seq: peer.seq,
        flags: ASKING,
        window: 65_535,
        mss: Some(1460),
        ..Outgoing::default()
    };
    marked(&tuple(peer), &out, ecn, &[])
}

/// The peer's next bytes, marked so.
fn data(peer: &mut Peer, flags: Flags, ecn: u8, payload: &[u8]) -> Vec<u8> {
    let out = Outgoing { seq: peer.seq, ack: peer.ack, flags, window: 1000, ..Outgoing::default() };
    peer.seq += payload.len() as u32;
    marked(&tuple(peer), &out, ecn, payload)
}

/// A peer that has asked for it and got it.
fn connected(world: &mut World) -> (Peer, TcpStream<HeapBuf>) {
    let listener = listening(world, 5);
    let mut peer = Peer::new(40_000);
    world.receive([asking(&peer, 0)]);
    let syn_ack = world.expect_segment();
    syn_ack.is(SYN.with(ACK).with(Flags::ECE), syn_ack.segment.seq, peer.seq + 1);
    peer.seq += 1;
    peer.ack = syn_ack.segment.seq + 1;
    world.receive([peer.ack()]);
    let stream = accept(&listener).expect("the connection should wait to be accepted");
    std::mem::forget(listener);
    (peer, stream)
}

#[test]
fn who_asks_gets_an_echo_of_each_mark_until_it_slows_down() {
    let mut world = World::new(Settings::default());
    let (mut peer, stream) = connected(&mut world);
    let echo = ACK.with(Flags::ECE);
    world.receive([data(&mut peer, ACK, ECT_0, &[7; 1000]), data(&mut peer, ACK, CE, &[7; 1000])]);
    world.expect_segment().is(echo, peer.ack, peer.seq);
    world.receive([data(&mut peer, ACK, ECT_0, &[7; 1000])]);
    world.expect_segment().is(echo, peer.ack, peer.seq);
    world.receive([data(&mut peer, ACK.with(Flags::CWR), ECT_0, &[7; 1000])]);
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    assert_eq!(read(&stream, 5000).unwrap(), [7; 4000]);
}

#[test]
fn a_syn_that_is_marked_itself_gets_none() {
    let mut world = World::new(Settings::default());
    let _listener = listening(&mut world, 5);
    world.receive([asking(&Peer::new(40_000), ECT_0)]);
    let syn_ack = world.expect_segment();
    syn_ack.is(SYN.with(ACK), syn_ack.segment.seq, 1001);
}

#[test]
fn what_is_sent_is_not_marked_as_able_to_be_marked() {
    let mut world = World::new(Settings::default());
    let (mut peer, stream) = connected(&mut world);
    world.receive([data(&mut peer, ACK, CE, &[7; 1000])]);
    assert_eq!(read(&stream, 1000).unwrap().len(), 1000);
    drop(stream);
    world.turn();
    assert_eq!(world.sent.len(), 2, "an ACK and a FIN");
    for frame in &world.sent {
        let tos = frame[ethernet::HEADER_LEN + 1];
        assert_eq!(tos & CE, 0);
    }
}
