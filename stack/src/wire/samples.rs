//! Random but valid connections, segments and frames for this room's tests, and ways to spoil them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::checksum::Sum;
use super::ethernet::{self, MacAddr};
use super::{Family, Flags, FourTuple, Outgoing, Timestamps, ipv4, ipv6, tcp};

/// A connection for tests that need only one.
pub(super) const TUPLE: FourTuple = FourTuple {
    local_addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    remote_addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
    local_port: 7,
    remote_port: 40_000,
};

/// The same over IPv6.
pub(super) const TUPLE6: FourTuple = FourTuple {
    local_addr: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    remote_addr: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
    ..TUPLE
};

/// A frame of the usual shape around a segment.
pub(super) fn emitted(tuple: &FourTuple, out: &Outgoing, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; tcp::MAX_HEADERS_LEN + payload.len()];
    let len = tcp::emit(&mut datagram, tuple, out, 0, payload);
    datagram.truncate(len);
    in_frame(None, tuple.family(), &datagram)
}

/// A datagram behind an Ethernet header.
fn in_frame(vlan: Option<u16>, family: Family, datagram: &[u8]) -> Vec<u8> {
    let ethertype = match family {
        Family::V4 => ethernet::IPV4,
        Family::V6 => ethernet::IPV6,
    };
    let mut frame = vec![0; ethernet::MAX_HEADER_LEN];
    let (dst, src) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let len = ethernet::emit(&mut frame, dst, src, vlan, ethertype);
    frame.truncate(len);
    frame.extend(datagram);
    frame
}

pub(super) fn tuple6() -> impl Strategy<Value = FourTuple> {
    any::<(u128, u128, u16, u16)>().prop_map(|(local, remote, local_port, remote_port)| FourTuple {
        local_addr: Ipv6Addr::from(local).into(),
        remote_addr: Ipv6Addr::from(remote).into(),
        local_port,
        remote_port,
    })
}

pub(super) fn tuple() -> impl Strategy<Value = FourTuple> {
    any::<(u32, u32, u16, u16)>().prop_map(|(local, remote, local_port, remote_port)| FourTuple {
        local_addr: Ipv4Addr::from(local).into(),
        remote_addr: Ipv4Addr::from(remote).into(),
        local_port,
        remote_port,
    })
}

pub(super) fn outgoing() -> impl Strategy<Value = Outgoing> {
    let fixed = any::<(u32, u32, u8, u16)>();
    let syn = any::<(Option<u16>, Option<u8>, bool)>();
    let ts = prop::option::of(any::<(u32, u32)>());
    let sack = prop::collection::vec(any::<(u32, u32)>(), 0..6);
    (fixed, syn, ts, sack).prop_map(|(fixed, syn, ts, sack)| {
        let (seq, ack, flags, window) = fixed;
        let (mss, window_scale, sack_permitted) = syn;
        Outgoing {
            seq,
            ack,
            flags: Flags(flags),
            window,
            mss,
            window_scale,
            sack_permitted,
            ts: ts.map(|(val, ecr)| Timestamps { val, ecr }),
            sack: sack.into_iter().collect(),
            ..Outgoing::default()
        }
    })
}

/// A whole frame around a segment: tagged or not, with or without IP options, padded or not.
pub(super) fn frame() -> impl Strategy<Value = Vec<u8>> {
    let segment = (tuple(), outgoing(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..100));
    // Mostly the usual shape, so that both ways through the parser are tried.
    let vlan = prop::option::weighted(0.2, 0_u16..4096);
    let ip_option_words = prop_oneof![4 => Just(0_usize), 1 => 1_usize..=10];
    (segment, vlan, ip_option_words, 0_usize..8).prop_map(
        |((tuple, out, tos, payload), vlan, ip_option_words, padding)| {
            let mut datagram = vec![0; tcp::MAX_HEADERS_LEN + payload.len()];
            let len = tcp::emit(&mut datagram, &tuple, &out, tos, &payload);
            datagram.truncate(len);
            add_ip_options(&mut datagram, ip_option_words);
            let mut frame = in_frame(vlan, Family::V4, &datagram);
            frame.resize(frame.len() + padding, 0xaa);
            frame
        },
    )
}

/// A frame of which bytes were changed at random, the first hundred most often, and the end cut off
/// or not; in half of the cases the checksums are made right again where the headers still allow it.
pub(super) fn spoiled_frame() -> impl Strategy<Value = Vec<u8>> {
    spoiled(frame())
}

/// As [`spoiled_frame`], of these frames.
pub(super) fn spoiled(frames: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (0_usize..100, any::<u8>());
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    (frames, prop::collection::vec(change, 0..4), cut, any::<bool>()).prop_map(
        |(mut frame, changes, cut, seal)| {
            for (at, mask) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= mask;
                }
            }
            if let Some(cut) = cut {
                frame.truncate(cut.index(frame.len()));
            }
            if seal {
                self::seal(&mut frame);
            }
            frame
        },
    )
}

/// As [`frame`] over IPv6, with or without extension headers that are skipped.
pub(super) fn frame6() -> impl Strategy<Value = Vec<u8>> {
    let segment = (tuple6(), outgoing(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..100));
    let vlan = prop::option::weighted(0.2, 0_u16..4096);
    let extensions = prop_oneof![4 => Just(0_usize), 1 => 1_usize..=9];
    (segment, vlan, extensions, 0_usize..8).prop_map(
        |((tuple, out, tos, payload), vlan, extensions, padding)| {
            let mut datagram = vec![0; tcp::MAX_HEADERS_LEN + payload.len()];
            let len = tcp::emit(&mut datagram, &tuple, &out, tos, &payload);
            datagram.truncate(len);
            add_extensions(&mut datagram, extensions);
            let mut frame = in_frame(vlan, Family::V6, &datagram);
            frame.resize(frame.len() + padding, 0xaa);
            frame
        },
    )
}

/// Puts so many headers of destination options before the segment, with nothing but padding in them.
fn add_extensions(datagram: &mut Vec<u8>, number: usize) {
    const DESTINATION: u8 = 60;
    for _ in 0..number {
        let next = datagram[6];
        datagram[6] = DESTINATION;
        let at = ipv6::HEADER_LEN;
        datagram.splice(at..at, [next, 0, 1, 4, 0, 0, 0, 0]);
    }
    let payload_len = (datagram.len() - ipv6::HEADER_LEN) as u16;
    datagram[4..6].copy_from_slice(&payload_len.to_be_bytes());
}

fn add_ip_options(datagram: &mut Vec<u8>, words: usize) {
    let at = ipv4::HEADER_LEN;
    datagram.splice(at..at, std::iter::repeat_n(1, 4 * words));
    datagram[0] = 0x45 + words as u8;
    let total_len = datagram.len() as u16;
    datagram[2..4].copy_from_slice(&total_len.to_be_bytes());
    seal_ip(datagram);
}

fn seal6(datagram: &mut [u8]) {
    let Ok(ip) = ipv6::parse(datagram) else { return };
    let bytes = &mut datagram[ip.header_len..ip.total_len];
    if bytes.len() >= tcp::HEADER_LEN {
        bytes[16..18].fill(0);
        let pseudo = Sum::pseudo_header_v6(ip.src, ip.dst, ipv4::TCP, bytes.len() as u32);
        let field = pseudo.plus(bytes).field();
        bytes[16..18].copy_from_slice(&field);
    }
}

/// Makes both checksums right if lengths permit.
fn seal(frame: &mut [u8]) {
    let Some(ethernet) = ethernet::parse(frame) else { return };
    let datagram = &mut frame[ethernet.header_len..];
    if ethernet.ethertype == ethernet::IPV6 {
        return seal6(datagram);
    }
    if datagram.len() >= ipv4::HEADER_LEN {
        seal_ip(datagram);
    }
    let Ok(ip) = ipv4::parse(datagram, crate::buf::Checksum::Unknown) else { return };
    let bytes = &mut datagram[ip.header_len..ip.total_len];
    if bytes.len() < tcp::HEADER_LEN {
        return;
    }
    bytes[16..18].fill(0);
    let pseudo = Sum::pseudo_header(ip.src, ip.dst, ipv4::TCP, bytes.len() as u16);
    let field = pseudo.plus(bytes).field();
    bytes[16..18].copy_from_slice(&field);
}

fn seal_ip(datagram: &mut [u8]) {
    let header_len = usize::from(datagram[0] & 0x0f) * 4;
    if header_len < ipv4::HEADER_LEN || header_len > datagram.len() {
        return;
    }
    datagram[10..12].fill(0);
    let field = Sum::new().plus(&datagram[..header_len]).field();
    datagram[10..12].copy_from_slice(&field);
}
