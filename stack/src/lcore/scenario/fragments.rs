//! Fragments of segments: dropped, or put together from real mbufs and run through a connection.

use super::mbufs::{MbufWorld, recv};
use super::*;
use crate::buf::PacketBuf;
use crate::dpdk::{Eal, Fragments, TEST_ARGS};
use crate::wire::ipv4;

/// A world that puts fragments together.
fn world() -> MbufWorld {
    let mut world = MbufWorld::new(1023, 4 << 20);
    let eal = Eal::init(TEST_ARGS).unwrap();
    let fragments = Fragments::new(eal, 8, Duration::from_secs(30), None).unwrap();
    world.engine.set_reassembly(Box::new(fragments));
    world
}

/// A frame's datagram in fragments of so many bytes of payload.
fn fragments(frame: &[u8], id: u16, len: usize) -> Vec<Vec<u8>> {
    let (headers, payload) = frame.split_at(34);
    let last = payload.len().div_ceil(len) - 1;
    let fragment = |(n, payload): (usize, &[u8])| {
        let mut fragment = [headers, payload].concat();
        let field = (n * len / 8) as u16 | if n < last { 0x2000 } else { 0 };
        fragment[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        fragment[18..20].copy_from_slice(&id.to_be_bytes());
        fragment[20..22].copy_from_slice(&field.to_be_bytes());
        ipv4::write_checksum(&mut fragment[14..34]);
        fragment.resize(fragment.len().max(60), 0xee);
        fragment
    };
    payload.chunks(len).enumerate().map(fragment).collect()
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|n| (n / 7) as u8).collect()
}

#[test]
fn a_segment_in_fragments_is_read_like_any_other() {
    for len in [8, 24, 1000, 1480] {
        let mut world = world();
        let (mut peer, stream) = world.connect();
        // Eight fragments are the most.
        let sent = bytes((len * 8 - 20).min(3000));
        let mut all = fragments(&peer.data(&sent), 1, len);
        all.reverse();
        let n = all.len() as u64;
        world.poll(&all);
        assert_eq!(recv(&stream, 4000), sent, "{n} fragments of {len}");
        let counted =
            [Counter::ReasmReqds, Counter::ReasmOKs, Counter::ReasmFails, Counter::InErrs];
        assert_eq!(counted.map(|counter| world.count(counter)), [n, 1, 0, 0]);
        world.turn();
        assert_eq!(world.pool.in_use(), 0, "every mbuf is back");
        drop(stream);
        world.end();
    }
}

#[test]
fn a_handshake_may_be_fragmented_too() {
    let mut world = world();
    let mut peer = Peer::new(40_000);
    world.poll(&fragments(&peer.syn(), 9, 16));
    assert_eq!(world.last_sent().flags, SYN.with(ACK));
    peer.seq += 1;
    peer.ack = world.last_sent().seq.wrapping_add(1);
    let first = peer.data(&bytes(2000));
    world.poll(&fragments(&first, 10, 1000));
    world.listener.set_nonblocking(true).unwrap();
    let (stream, _) = world.listener.accept().unwrap();
    assert_eq!(recv(&stream, 4000), bytes(2000));
    drop(stream);
    world.end();
}

#[test]
fn what_is_damaged_is_found_when_it_is_whole() {
    let mut world = world();
    let (peer, stream) = world.connect();
    let mut all = fragments(&peer.segment(ACK, 0, &bytes(3000)), 1, 1000);
    all[1][500] ^= 1;
    world.poll(&all);
    assert_eq!((world.count(Counter::ReasmOKs), world.count(Counter::InCsumErrors)), (1, 1));
    assert_eq!(world.pool.in_use(), 0);
    drop(stream);
    world.end();
}

#[test]
fn what_cannot_be_part_of_a_datagram_is_not_kept() {
    let mut world = world();
    let (peer, stream) = world.connect();
    let good = fragments(&peer.segment(ACK, 0, &bytes(3000)), 1, 1000);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut fragment = good[0].clone();
        change(&mut fragment);
        ipv4::write_checksum(&mut fragment[14..34]);
        fragment
    };
    world.poll(&[
        with(&|f| f[17] -= 1), // no multiple of eight, and not the last
        with(&|f| f[16..18].copy_from_slice(&[0, 20])), // empty
        with(&|f| f[20..22].copy_from_slice(&[0x3f, 0xff])), // ends beyond a datagram
        with(&|f| f[23] = 17), // UDP
    ]);
    assert_eq!((world.count(Counter::ReasmReqds), world.count(Counter::ReasmFails)), (4, 4));
    // From nobody; for somebody else; with a wrong header.
    world.poll(&[with(&|f| f[26] = 127), with(&|f| f[33] = 77), {
        let mut damaged = good[0].clone();
        damaged[22] ^= 1;
        damaged
    }]);
    assert_eq!((world.count(Counter::InAddrErrors), world.count(Counter::InHdrErrors)), (2, 1));
    assert_eq!(world.pool.in_use(), 0);
    drop(stream);
    world.end();
}

#[test]
fn what_waits_in_vain_is_given_up_by_the_engine() {
    let mut world = world();
    let (peer, stream) = world.connect();
    let all = fragments(&peer.segment(ACK, 0, &bytes(3000)), 1, 1000);
    world.poll(&all[..2]);
    assert_eq!(world.pool.in_use(), 2);
    let begun = world.now;
    while world.pool.in_use() > 0 {
        world.now = world.now.max(world.engine.next_deadline().expect("fragments wait"));
        world.turn();
    }
    assert_eq!(world.now.since(begun).as_secs(), 31, "looked at every second");
    assert_eq!((world.count(Counter::ReasmTimeout), world.count(Counter::ReasmFails)), (1, 1));
    assert_eq!(world.pool.in_use(), 0);
    // What the engine has when it goes is freed with it.
    world.poll(&all[..1]);
    drop(stream);
    world.end();
}

#[test]
fn without_memory_to_spare_none_are_kept() {
    let mut world = world();
    let (peer, stream) = world.connect();
    let all = fragments(&peer.segment(ACK, 0, &bytes(3000)), 1, 1000);
    world.engine.set_pressure(Pressure::High, world.now);
    world.poll(&all[..1]);
    assert_eq!((world.count(Counter::ReasmFails), world.pool.in_use()), (1, 0));
    drop(stream);
    world.end();
}

#[test]
fn frames_in_several_mbufs_run_through_the_poll_loops_engine() {
    let mut world = world();
    let (mut peer, stream) = world.connect();
    // Fragments as large as a jumbo frame: two of them, five mbufs each.
    let sent = bytes(15_000);
    let frame = peer.data(&sent);
    let mut burst: Vec<_> = fragments(&frame, 3, 8000)
        .iter()
        .map(|fragment| Some(world.chained(fragment, 1900)))
        .collect();
    world.engine.input(&mut burst, world.now, &mut world.sent);
    world.turn();
    assert_eq!(recv(&stream, 20_000), sent);
    assert!(burst.iter().all(Option::is_none));
    world.turn();
    assert_eq!(world.pool.in_use(), 0);
    drop(stream);
    world.end();
}

impl MbufWorld {
    /// A frame in mbufs of so many bytes, as a driver leaves it.
    fn chained(&self, frame: &[u8], len: usize) -> crate::dpdk::Mbuf {
        let mut chain = None;
        for piece in frame.chunks(len).collect::<Vec<_>>().into_iter().rev() {
            let mut mbuf = self.pool.alloc().unwrap();
            assert!(mbuf.append(piece));
            if let Some(rest) = chain.take() {
                mbuf.attach(rest);
            }
            chain = Some(mbuf);
        }
        chain.unwrap()
    }
}
