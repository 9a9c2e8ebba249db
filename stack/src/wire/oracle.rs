//! A second opinion on every frame: the one-pass parser against smoltcp's `wire`.
//!
//! Where the two differ by right, [`opinion`] states the rule.

use proptest::prelude::*;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet,
    TcpOption, TcpPacket,
};

use super::frame::{Reject, TcpFrame, parse_tcp};
use super::samples::{frame, frame6, spoiled, spoiled_frame};
use super::{Flags, FourTuple, SackBlocks, Segment, SynOptions, Timestamps, ethernet, tcp};
use crate::buf::Checksum;

/// What smoltcp makes of a frame: the segment and its SYN and SACK options.
#[derive(Debug, PartialEq)]
struct Opinion {
    tuple: FourTuple,
    segment: Segment,
    payload: Vec<u8>,
    ttl: u8,
    syn: SynOptions,
    sack: Vec<(u32, u32)>,
}

fn opinion(bytes: &[u8]) -> Option<Opinion> {
    // smoltcp knows no VLAN tags: one is cut out before.
    let mut bytes = bytes.to_vec();
    if bytes.get(12..14) == Some(&ethernet::VLAN.to_be_bytes()) && bytes.len() >= 18 {
        bytes.drain(12..16);
    }
    let frame = EthernetFrame::new_checked(&bytes[..]).ok()?;
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
            let fragment = ip.more_frags() || ip.frag_offset() != 0;
            let is_segment = ip.version() == 4
                && ip.verify_checksum()
                && !fragment
                && ip.next_header() == IpProtocol::Tcp;
            let ends = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
            is_segment.then(|| of_segment(ip.payload(), ends, ip.ecn(), ip.hop_limit()))?
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_checked(frame.payload()).ok()?;
            let mut payload = ip.payload();
            let mut protocol = ip.next_header();
            // Here there are no others than these.
            while protocol == IpProtocol::Ipv6Opts {
                let header = Ipv6ExtHeader::new_checked(payload).ok()?;
                protocol = header.next_header();
                payload = payload.get(8 * (usize::from(header.header_len()) + 1)..)?;
            }
            let is_segment = ip.version() == 6 && protocol == IpProtocol::Tcp;
            let ends = (IpAddress::Ipv6(ip.src_addr()), IpAddress::Ipv6(ip.dst_addr()));
            let ecn = ip.traffic_class() & 3;
            is_segment.then(|| of_segment(payload, ends, ecn, ip.hop_limit()))?
        }
        _ => None,
    }
}

fn of_segment(
    bytes: &[u8],
    (src, dst): (IpAddress, IpAddress),
    ecn: u8,
    ttl: u8,
) -> Option<Opinion> {
    let tcp = TcpPacket::new_checked(bytes).ok()?;
    if !tcp.verify_checksum(&src, &dst) {
        return None;
    }
    // Ports of 0 and odd combinations of flags are legal input here: smoltcp's `Packet` takes them,
    // its `Repr` does not, so the comparison stays with `Packet`.
    let flags = [
        (tcp.fin(), Flags::FIN),
        (tcp.syn(), Flags::SYN),
        (tcp.rst(), Flags::RST),
        (tcp.psh(), Flags::PSH),
        (tcp.ack(), Flags::ACK),
        (tcp.urg(), Flags::URG),
        (tcp.ece(), Flags::ECE),
        (tcp.cwr(), Flags::CWR),
    ];
    let flags = flags.into_iter().filter(|(set, _)| *set);
    let (syn, ts, sack) = options(tcp.options());
    Some(Opinion {
        tuple: FourTuple {
            local_addr: dst.into(),
            remote_addr: src.into(),
            local_port: tcp.dst_port(),
            remote_port: tcp.src_port(),
        },
        segment: Segment {
            seq: tcp.seq_number().0 as u32,
            ack: tcp.ack_number().0 as u32,
            len: tcp.payload().len() as u32,
            window: tcp.window_len(),
            urgent: tcp.urgent_at(),
            flags: flags.fold(Flags::default(), |all, (_, flag)| all.with(flag)),
            ecn,
            ts,
        },
        payload: tcp.payload().to_vec(),
        ttl,
        syn,
        sack,
    })
}

fn options(mut list: &[u8]) -> (SynOptions, Option<Timestamps>, Vec<(u32, u32)>) {
    let (mut syn, mut ts, mut sack) = (SynOptions::default(), None, Vec::new());
    while !list.is_empty() {
        match TcpOption::parse(list) {
            Ok((rest, option)) => {
                match option {
                    TcpOption::EndOfList => break,
                    // An MSS of 0 is no MSS.
                    TcpOption::MaxSegmentSize(0) => {}
                    TcpOption::MaxSegmentSize(mss) => syn.mss = Some(mss),
                    TcpOption::WindowScale(shift) => syn.window_scale = Some(shift),
                    TcpOption::SackPermitted => syn.sack_permitted = true,
                    // smoltcp keeps three ranges; the caller compares no more.
                    TcpOption::SackRange(ranges) => sack = ranges.into_iter().flatten().collect(),
                    TcpOption::TimeStamp { tsval: val, tsecr: ecr } => {
                        ts = Some(Timestamps { val, ecr });
                    }
                    _ => {}
                }
                list = rest;
            }
            // smoltcp refuses the list; here a known kind of wrong length is skipped, and a length
            // that leads nowhere ends the list, neither costing the segment.
            Err(_) => match list.get(1).map(|len| usize::from(*len)) {
                Some(len) if 2 <= len && len <= list.len() => list = &list[len..],
                _ => break,
            },
        }
    }
    (syn, ts, sack)
}

fn ours(bytes: &[u8]) -> Option<Opinion> {
    let TcpFrame { tuple, segment, header, payload, tos, ttl, vlan: _ } =
        parse_tcp(bytes, Checksum::Unknown).ok()?;
    assert_eq!(segment.ecn, tos & 3);
    let (header, payload) = (usize::from(header), usize::from(payload));
    let mut sack: SackBlocks = tcp::sack_blocks(&bytes[header..payload]);
    sack.truncate(3);
    Some(Opinion {
        tuple,
        segment,
        payload: bytes[payload..payload + segment.len as usize].to_vec(),
        ttl,
        syn: tcp::syn_options(&bytes[header..payload]),
        sack: sack.to_vec(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn smoltcp_reads_valid_frames_alike(bytes in frame()) {
        let ours = ours(&bytes);
        prop_assert!(ours.is_some());
        prop_assert_eq!(ours, opinion(&bytes));
    }

    #[test]
    fn smoltcp_reads_spoiled_frames_alike(bytes in spoiled_frame()) {
        prop_assert_eq!(ours(&bytes), opinion(&bytes));
    }

    #[test]
    fn smoltcp_reads_valid_frames_of_ipv6_alike(bytes in frame6()) {
        let ours = ours(&bytes);
        // Nine headers are more than we take.
        let many = bytes.windows(8).filter(|eight| eight[1..] == [0, 1, 4, 0, 0, 0, 0]).count();
        prop_assert!(ours.is_some() || many > 8);
        if ours.is_some() {
            prop_assert_eq!(ours, opinion(&bytes));
        }
    }

    #[test]
    fn smoltcp_reads_spoiled_frames_of_ipv6_alike(bytes in spoiled(frame6())) {
        // What stands in extension headers smoltcp judges otherwise.
        let is_plain = ethernet::parse(&bytes)
            .is_some_and(|header| bytes.get(header.header_len + 6) == Some(&6));
        prop_assume!(is_plain);
        prop_assert_eq!(ours(&bytes), opinion(&bytes));
    }

    #[test]
    fn smoltcp_reads_options_alike(list in prop::collection::vec(0_u8..12, 0..=40)) {
        let mut header = vec![0; 20];
        let words = list.len() / 4;
        header[12] = ((5 + words) as u8) << 4;
        header.extend(&list[..4 * words]);
        let (syn, _, sack) = options(&header[20..]);
        prop_assert_eq!(tcp::syn_options(&header), syn);
        prop_assert_eq!(tcp::sack_blocks(&header).to_vec(), sack);
    }
}

#[test]
fn a_tag_in_a_tag_is_not_followed() {
    let mut bytes = vec![0; 100];
    bytes[12..14].copy_from_slice(&ethernet::VLAN.to_be_bytes());
    bytes[16..18].copy_from_slice(&ethernet::VLAN.to_be_bytes());
    assert_eq!(parse_tcp(&bytes, Checksum::Unknown), Err(Reject::NotTcp));
}
