//! Frames in several buffers, as devices leave those that are longer than one.

use proptest::prelude::*;

use crate::buf::{Checksum, PacketBuf};

use super::*;

/// A frame in buffers of these lengths, the last one taking what is left.
fn chain(frame: &[u8], lens: &[usize], checksum: Checksum) -> HeapBuf {
    let mut pieces = Vec::new();
    let mut bytes = frame;
    for &len in lens {
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    let whole =
        pieces.into_iter().rev().filter(|piece| !piece.is_empty()).fold(None, |rest, piece| {
            Some(HeapBuf::new(piece).with_checksum(checksum).with_rest(rest))
        });
    whole.expect("a frame")
}

impl World {
    fn receive_bufs(&mut self, bufs: impl IntoIterator<Item = HeapBuf>) {
        let mut tx = Vec::new();
        let mut burst: Vec<_> = bufs.into_iter().map(Some).collect();
        self.engines[0].input(&mut burst, self.now, &mut tx);
        self.sent.extend(tx);
        self.turn();
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|n| (n / 3) as u8).collect()
}

#[test]
fn a_jumbo_frame_is_read_wherever_it_lies() {
    for checksum in [Checksum::Unknown, Checksum::Good, Checksum::Bad] {
        for lens in [&[2048; 4][..], &[54, 3000, 1], &[60, 61, 63, 7], &[14, 20, 20], &[1, 2, 3]] {
            let mut world = World::new(Settings::default());
            let listener = listening(&mut world, 5);
            let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
            let sent = bytes(8901);
            let frame = peer.data(&sent);
            world.receive_bufs([chain(&frame, lens, checksum)]);
            assert_eq!(read(&stream, 10_000).unwrap(), sent, "{lens:?}");
            let ack = world.expect_segment();
            ack.is(ACK, peer.ack, peer.seq);
            assert_eq!(world.count(Counter::InSegs), 3);
        }
    }
}

#[test]
fn damage_in_any_buffer_is_found() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let good = peer.segment(ACK, 0, &bytes(5000));
    let turned = |at: usize| {
        let mut frame = good.clone();
        frame[at] ^= 4;
        chain(&frame, &[1001, 2000], Checksum::Unknown)
    };
    world.receive_bufs([40, 900, 1001, 1002, 3000, 3001, 5053].map(turned));
    assert_eq!(world.count(Counter::InCsumErrors), 7);
    world.receive_bufs([turned(22)]);
    assert_eq!(world.count(Counter::InHdrErrors), 1);
    assert!(read(&stream, 1).is_err());
    // Shorter than it says it is.
    let mut cut = chain(&good, &[1001, 2000], Checksum::Good);
    cut.cut_chain(5053);
    world.receive_bufs([cut]);
    assert_eq!(world.count(Counter::InHdrErrors), 2);
    world.expect_nothing();
}

#[test]
fn a_connection_may_begin_with_chains() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let mut peer = Peer::new(40_000);
    // Headers end behind the second buffer; with the options the SYN says what it wants.
    let syn = peer.syn();
    world.receive_bufs([chain(&syn, &[20, 30], Checksum::Unknown)]);
    let syn_ack = world.expect_segment();
    assert!(syn_ack.options.sack_permitted && syn_ack.options.window_scale.is_some());
    peer.take(&syn_ack);
    let first = peer.data(&bytes(4000));
    world.receive_bufs([chain(&first, &[2048], Checksum::Unknown)]);
    let stream = accept(&listener).expect("the ACK came with data");
    assert_eq!(read(&stream, 5000).unwrap(), bytes(4000));
    // A stranger is refused.
    world.sent.clear();
    world.receive_bufs([chain(&Peer::new(1).segment(ACK, 0, &bytes(4000)), &[99], Checksum::Good)]);
    world.expect_segment().is(RST, 0, 0);
}

#[test]
fn what_meets_an_owned_socket_waits_as_a_chain() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let guard = stream.lock();
    let frame = peer.data(&bytes(8000));
    world.receive_bufs([chain(&frame, &[2048; 3], Checksum::Unknown)]);
    drop(guard);
    world.turn();
    assert_eq!(read(&stream, 9000).unwrap(), bytes(8000));
    world.expect_segment().is(ACK, peer.ack, peer.seq);
}

#[test]
fn a_chain_for_others_is_nobodys() {
    let mut world = World::new(Settings::default());
    let _listener = listening(&mut world, 5);
    let mut other = Peer::new(40_000).syn();
    other[5] ^= 1;
    let mut arp = Peer::new(40_000).syn();
    arp[13] = 6;
    world.receive_bufs([other, arp].map(|frame| chain(&frame, &[20], Checksum::Good)));
    world.expect_nothing();
    assert_eq!((world.count(Counter::InSegs), world.count(Counter::InHdrErrors)), (0, 0));
}

proptest! {
    #[test]
    fn any_chain_is_survived(
        frame in prop::collection::vec(any::<u8>(), 1..200),
        looks_right in any::<bool>(),
        lens in prop::collection::vec(1_usize..80, 0..6),
        is_good in any::<bool>(),
    ) {
        let mut frame = frame;
        if looks_right && frame.len() > 24 {
            frame[..6].copy_from_slice(&OUR_MAC.0);
            frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            frame[23] = 6;
        }
        let mut world = World::new(Settings::default());
        let checksum = if is_good { Checksum::Good } else { Checksum::Unknown };
        world.receive_bufs([chain(&frame, &lens, checksum)]);
    }
}
