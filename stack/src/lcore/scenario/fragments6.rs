//! Fragments of IPv6: put together and run through a connection, or refused, some with a word why.

use super::ipv6::{OUR_ADDR6, PEER_ADDR6, framed, said, syn};
use super::mbufs::{MbufWorld, recv};
use super::*;
use crate::dpdk::{Eal, Fragments, TEST_ARGS};
use crate::wire::{icmpv6, ipv6};

/// Destination options that are only padding.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

fn world(puts_together: bool) -> MbufWorld {
    let interface =
        Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24).with_address(OUR_ADDR6, 64);
    let mut world = MbufWorld::with_interface(1023, 4 << 20, interface);
    if puts_together {
        let eal = Eal::init(TEST_ARGS).unwrap();
        let fragments = Fragments::new(eal, 8, Duration::from_secs(30), None).unwrap();
        world.engine.set_reassembly(Box::new(fragments));
    }
    let news = News { addr: PEER_ADDR6.into(), mac: PEER_MAC };
    world.engine.learn_neighbour(news, world.now, &mut world.sent);
    world
}

/// A datagram's payload, which begins with a header of this number, in fragments of so many bytes, behind
/// options that say nothing if they are wanted.
fn fragments(next: u8, payload: &[u8], id: u8, len: usize, options: bool) -> Vec<Vec<u8>> {
    let last = payload.len().div_ceil(len) - 1;
    let fragment = |(n, payload): (usize, &[u8])| {
        let mut datagram = vec![0; ipv6::HEADER_LEN];
        if options {
            datagram.extend([44]);
            datagram.extend(&PADDING[1..]);
        }
        let [f0, f1] = ((n * len) as u16 | u16::from(n < last)).to_be_bytes();
        datagram.extend([next, 0, f0, f1, 0, 0, 0, id]);
        datagram.extend(payload);
        let (first, rest) = (if options { 60 } else { 44 }, datagram.len() - ipv6::HEADER_LEN);
        ipv6::emit(&mut datagram, PEER_ADDR6, OUR_ADDR6, first, 0, rest);
        framed(OUR_MAC, &datagram)
    };
    payload.chunks(len).enumerate().map(fragment).collect()
}

/// The segment of a frame without extension headers.
fn segment_of(frame: &[u8]) -> &[u8] {
    &frame[14 + ipv6::HEADER_LEN..]
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|n| (n / 7) as u8).collect()
}

/// What the last error that was sent says: code and pointer.
fn told(world: &MbufWorld) -> (u8, u32) {
    let frame = world.sent.last().expect("something was sent");
    let ip = ipv6::parse(&frame[14..]).unwrap();
    let message = ip.payload(&frame[14..]);
    assert!(matches!(icmpv6::parse(&ip, message), Ok(icmpv6::Message::Error(_))));
    (message[1], u32::from_be_bytes(message[4..8].try_into().unwrap()))
}

#[test]
fn a_connection_in_fragments_is_read_like_any_other() {
    for options in [false, true] {
        let mut world = world(true);
        world.poll(&[syn(40_000, None)]);
        let ack = world.last_sent().seq.wrapping_add(1);
        assert_eq!(world.last_sent().flags, SYN.with(ACK));
        world.poll(&[said(40_000, ACK, 1001, ack, &[])]);
        world.listener.set_nonblocking(true).unwrap();
        let (stream, _) = world.listener.accept().unwrap();
        let frame = said(40_000, ACK, 1001, ack, &bytes(3000));
        let mut all = fragments(6, segment_of(&frame), 2, 1000, options);
        all.swap(0, 2);
        // The second one's header says something else, which does not count.
        let next_at = all[1].len() - 1000 - 8;
        all[1][next_at] = 60;
        world.poll(&all);
        assert_eq!(recv(&stream, 4000), bytes(3000));
        // With options behind the fragment header, too.
        let frame = said(40_000, ACK, 4001, ack, &bytes(2000));
        let mut payload = vec![6];
        payload.extend(&PADDING[1..]);
        payload.extend(segment_of(&frame));
        world.poll(&fragments(60, &payload, 3, 1200, options));
        assert_eq!(recv(&stream, 4000), bytes(2000));
        let counted = [Counter::ReasmOKs, Counter::ReasmFails, Counter::InErrs];
        assert_eq!(counted.map(|counter| world.count(counter)), [2, 0, 0]);
        world.turn();
        assert_eq!(world.pool.in_use(), 0, "every mbuf is back");
        drop(stream);
        world.end();
    }
}

#[test]
fn an_atomic_fragment_is_whole_even_where_none_are_put_together() {
    for puts_together in [false, true] {
        let mut world = world(puts_together);
        world.poll(&fragments(6, segment_of(&syn(40_000, None)), 1, 1000, true));
        assert_eq!(world.last_sent().flags, SYN.with(ACK));
        assert_eq!((world.count(Counter::ReasmReqds), world.count(Counter::ReasmFails)), (0, 0));
        world.end();
    }
}

#[test]
fn fragments_are_dropped_and_counted_where_none_are_put_together() {
    let mut world = world(false);
    let all = fragments(6, segment_of(&said(40_000, ACK, 1, 1, &bytes(100))), 1, 24, false);
    world.poll(&all);
    let n = all.len() as u64;
    assert_eq!((world.count(Counter::ReasmReqds), world.count(Counter::ReasmFails)), (n, n));
    assert!(world.sent.is_empty() && world.pool.in_use() == 0);
    world.end();
}

#[test]
fn what_cannot_be_part_of_a_datagram_is_not_kept_and_told_where_that_is_due() {
    let mut world = world(true);
    let frame = said(40_000, ACK, 1001, 1, &bytes(3000));
    let good = fragments(6, segment_of(&frame), 1, 1000, false);
    let with = |which: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut fragment = good[which].clone();
        change(&mut fragment);
        fragment
    };
    for (misfit, answer) in [
        // Not a multiple of eight; beyond the end; headers in the next one; UDP.
        (with(0, &|f| f[19] -= 1), Some((0, 4))),
        (with(1, &|f| f[56..58].copy_from_slice(&[0xff, 0xf9])), Some((0, 42))),
        (with(0, &|f| f[18..20].copy_from_slice(&[0, 8 + 16])), Some((3, 0))),
        (with(0, &|f| f[54] = 17), None),
        (with(1, &|f| f[54] = 17), None),
    ] {
        world.sent.clear();
        world.poll(&[misfit]);
        match answer {
            Some(answer) => assert_eq!(told(&world), answer),
            None => assert!(world.sent.is_empty()),
        }
        assert_eq!(world.pool.in_use(), 0);
    }
    assert_eq!((world.count(Counter::ReasmReqds), world.count(Counter::ReasmFails)), (5, 5));
    assert_eq!(world.count(Counter::Icmp6OutParmProblems), 3);
    // From a group; for somebody else.
    world.poll(&[with(0, &|f| f[22] = 0xff), with(0, &|f| f[53] = 77)]);
    assert_eq!((world.count(Counter::InAddrErrors), world.pool.in_use()), (2, 0));
    world.end();
}

#[test]
fn what_overlaps_is_not_read() {
    let mut world = world(true);
    let mut all = fragments(6, segment_of(&said(40_000, ACK, 1, 1, &bytes(100))), 1, 64, false);
    // The second one begins within the first.
    assert_eq!(all[1][56..58], [0, 64]);
    all[1][57] = 56;
    world.sent.clear();
    world.poll(&all);
    assert_eq!((world.count(Counter::ReasmOKs), world.pool.in_use()), (0, 0));
    assert_eq!(world.count(Counter::ReasmFails), 1);
    assert!(world.sent.is_empty());
    world.end();
}
