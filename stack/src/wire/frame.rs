//! The one-pass parser: from the bytes of a frame to connection, segment and payload.
//!
//! That of IPv6 is in [`frame6`], and asked for what this one does not take.
//! Called by the poll loop for every received frame. The usual shape (no tag, no IP options) is read
//! straight from fixed offsets; everything else, and everything wrong, goes through the [`layers`], which
//! also name the reason. It never looks at state: neither addresses nor ports are judged here.

use std::net::{IpAddr, Ipv4Addr};

use super::checksum::Sum;
use super::ipv4::{self, Ipv4Error};
use super::ipv6::{self, Ipv6Error};
use super::tcp::{self, TcpError};
use super::{FourTuple, MacAddr, Segment, ethernet, frame6, layers, options};
use crate::buf::Checksum;

/// Bytes of the longest frame without payload: tagged Ethernet, IPv4, TCP with all options.
pub const MAX_CONTROL_LEN: usize = ethernet::MAX_HEADER_LEN + tcp::MAX_HEADERS_LEN;

/// Offset of the TCP header in a frame of the usual shape.
pub(super) const TCP_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
/// EtherType, IP version and header length of the usual shape, the type of service left out.
pub(super) const IPV4_WITHOUT_OPTIONS: u32 = (ethernet::IPV4 as u32) << 16 | 0x45 << 8;
/// What tells in the word of fragmentation, time to live and protocol.
const FRAGMENT_AND_PROTOCOL: u32 = (ipv4::FRAGMENT_MASK as u32) << 16 | 0xff;
/// That word for a TCP segment in one piece.
const WHOLE_TCP: u32 = ipv4::TCP as u32;
/// Bytes of the headers of a frame of the usual shape, without TCP options.
pub(super) const HEADERS_LEN: usize = TCP_AT + tcp::HEADER_LEN;
/// The same, of the datagram alone.
const DATAGRAM_HEADERS_LEN: usize = ipv4::HEADER_LEN + tcp::HEADER_LEN;

/// A TCP segment in an Ethernet frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpFrame {
    /// The connection: the local end is the segment's destination.
    pub tuple: FourTuple,
    /// What the header says. `segment.len` bytes of payload begin at `payload`.
    pub segment: Segment,
    /// Where the TCP header begins in the frame.
    pub header: u16,
    /// Where the payload begins in the frame.
    pub payload: u16,
    /// The former type of service: DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// VLAN identifier, if the frame is tagged.
    pub vlan: Option<u16>,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reject {
    /// Not TCP: ARP, ICMP, another protocol, or too short for an Ethernet header.
    NotTcp,
    /// A fragment of a TCP segment.
    Fragment,
    /// Not a valid IPv4 datagram.
    Ip(Ipv4Error),
    /// Not an IPv6 datagram that can be taken.
    Ip6(Ipv6Error),
    /// Not a valid segment. To be counted if `dst` is this host.
    Tcp {
        /// Destination of the datagram.
        dst: IpAddr,
        /// What is wrong.
        error: TcpError,
    },
}

/// The two ends of a segment as they stand in the frame: enough to tell connections apart, and
/// cheaper to read and compare than a [`FourTuple`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ends {
    /// Source and destination address, in memory order.
    addrs: u64,
    /// Source and destination port, in memory order.
    ports: u32,
}

impl Ends {
    /// The ends of a segment that this tuple's remote end sends; `None` if it is not of IPv4.
    pub fn of(tuple: &FourTuple) -> Option<Self> {
        let FourTuple { local_addr, remote_addr, local_port, remote_port } = *tuple;
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (remote_addr, local_addr) else { return None };
        let (src, dst) = (src.to_bits(), dst.to_bits());
        Some(Self {
            addrs: (u64::from(src) << 32 | u64::from(dst)).to_be(),
            ports: (u32::from(remote_port) << 16 | u32::from(local_port)).to_be(),
        })
    }

    /// Source address and, in the lower half, destination address.
    #[inline(always)]
    pub fn addrs(&self) -> u64 {
        u64::from_be(self.addrs)
    }

    /// Source port and, in the lower half, destination port.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        u32::from_be(self.ports)
    }

    /// The connection: the local end is the segment's destination.
    pub fn tuple(&self) -> FourTuple {
        let (addrs, ports) = (self.addrs(), self.ports());
        FourTuple {
            local_addr: IpAddr::V4(Ipv4Addr::from_bits(addrs as u32)),
            remote_addr: IpAddr::V4(Ipv4Addr::from_bits((addrs >> 32) as u32)),
            local_port: ports as u16,
            remote_port: (ports >> 16) as u16,
        }
    }
}

/// The ends of a segment for this station whose headers stand where they usually do and whose
/// checksums are right; `None` for everything else, which [`parse_tcp`] has to look at.
///
/// `checksum` is the device's word. What [`parse_checked`] says of the frame is still to be seen.
#[inline(always)]
pub fn usual_ends(frame: &[u8], us: Station, checksum: Checksum) -> Option<Ends> {
    let headers = frame.first_chunk()?;
    let (ip, tcp) = usual_headers(headers)?;
    if !us.is_addressed_by(headers) || (checksum != Checksum::Good && !is_intact(frame)) {
        return None;
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
    let [p0, p1, p2, p3, ..] = *tcp;
    Some(Ends {
        addrs: u64::from_ne_bytes([s0, s1, s2, s3, d0, d1, d2, d3]),
        ports: u32::from_ne_bytes([p0, p1, p2, p3]),
    })
}

/// An Ethernet address made ready to be compared with every frame's destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Station(u64);

impl Station {
    /// The station with this address.
    pub const fn new(MacAddr([a, b, c, d, e, f]): MacAddr) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    #[inline(always)]
    pub(super) fn is_addressed_by<const LEN: usize>(self, headers: &[u8; LEN]) -> bool {
        const { assert!(LEN >= 8) };
        let bytes = headers.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        bytes << 16 == self.0 << 16
    }
}

/// Parses a frame; `checksum` is the device's word on it.
///
/// # Errors
/// See [`Reject`]. Frames that are not TCP are parsed again by the caller, layer by layer.
#[inline]
pub fn parse_tcp(frame: &[u8], checksum: Checksum) -> Result<TcpFrame, Reject> {
    let usual = frame.first_chunk().is_some_and(|headers| usual_headers(headers).is_some());
    let usual6 = frame.first_chunk::<{ frame6::HEADERS_LEN }>().is_some_and(frame6::is_usual);
    let transport = matches!(checksum, Checksum::Good | Checksum::Transport);
    if usual && (checksum == Checksum::Good || is_intact(frame))
        || usual6 && (transport || frame6::is_intact(frame))
    {
        parse_checked(frame)
    } else {
        layers::parse(frame, checksum)
    }
}

/// Parses a frame that [`usual_ends`] or [`parse_tcp`] has looked at, and whose checksums are right.
///
/// # Errors
/// See [`Reject`].
#[inline(always)]
pub fn parse_checked(frame: &[u8]) -> Result<TcpFrame, Reject> {
    match parse_usual(frame) {
        Some(parsed) => Ok(parsed),
        None => parse_less_usual(frame),
    }
}

/// The usual frame of IPv6, and all others.
#[inline(never)]
fn parse_less_usual(frame: &[u8]) -> Result<TcpFrame, Reject> {
    match frame6::parse_usual(frame) {
        Some(parsed) => Ok(parsed),
        None => layers::parse(frame, Checksum::Good),
    }
}

/// Parses a frame as [`parse_checked`] does if it has the usual shape with nothing wrong and no
/// options but aligned timestamps; `None` for all else.
#[inline(always)]
pub fn parse_usual(frame: &[u8]) -> Option<TcpFrame> {
    let (headers, rest) = frame.split_first_chunk::<HEADERS_LEN>()?;
    let (ethernet, datagram) = headers.split_first_chunk::<{ ethernet::HEADER_LEN }>()?;
    let (ip, tcp) = datagram.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let tcp: &[u8; tcp::HEADER_LEN] = tcp.first_chunk()?;
    let [.., t0, t1] = *ethernet;
    if u16::from_be_bytes([t0, t1]) != ethernet::IPV4 || ip[0] != 0x45 {
        return None;
    }
    let [_, tos, l0, l1, _, _, _, _, ttl, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
    let [p0, p1, p2, p3, ..] = *tcp;
    // Read at once: the two ports stand in a FourTuple as they do in the number.
    let ports = u32::from_be_bytes([p0, p1, p2, p3]);

    let rest_len = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(DATAGRAM_HEADERS_LEN)?;
    let rest = rest.get(..rest_len)?;
    let (ts, options_len) = match tcp[12] >> 4 {
        5 => (None, 0),
        8 => {
            (Some(options::aligned_timestamps(rest.first_chunk()?)?), options::TIMESTAMPS_ONLY_LEN)
        }
        _ => return None,
    };
    Some(TcpFrame {
        tuple: FourTuple {
            local_addr: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
            remote_addr: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
            local_port: ports as u16,
            remote_port: (ports >> 16) as u16,
        },
        segment: tcp::segment(tcp, ts, (rest_len - options_len) as u32, tos & 3),
        header: TCP_AT as u16,
        payload: (HEADERS_LEN + options_len) as u16,
        tos,
        ttl,
        vlan: None,
    })
}

/// The IPv4 and TCP headers, if they stand where they usually do.
#[inline(always)]
fn usual_headers(
    headers: &[u8; HEADERS_LEN],
) -> Option<(&[u8; ipv4::HEADER_LEN], &[u8; tcp::HEADER_LEN])> {
    let (_, datagram) = headers.split_first_chunk::<{ ethernet::HEADER_LEN }>()?;
    let (ip, tcp) = datagram.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
    // EtherType, version and header length; then fragmentation and protocol.
    let usual = word::<12, HEADERS_LEN>(headers) & 0xffff_ff00 == IPV4_WITHOUT_OPTIONS
        && word::<20, HEADERS_LEN>(headers) & FRAGMENT_AND_PROTOCOL == WHOLE_TCP;
    if usual { Some((ip, tcp.first_chunk()?)) } else { None }
}

/// Four bytes of the headers, read as one.
#[inline(always)]
pub(super) fn word<const AT: usize, const LEN: usize>(headers: &[u8; LEN]) -> u32 {
    const { assert!(AT + 4 <= LEN) };
    headers[AT..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The ECN field of the datagram in a frame, whatever it carries (RFC 3168 §5); `None` if it is none of
/// IP.
pub fn ecn(frame: &[u8]) -> Option<u8> {
    let ethernet = ethernet::parse(frame)?;
    let [first, second, ..] = *frame.get(ethernet.header_len..)? else { return None };
    match (ethernet.ethertype, first >> 4) {
        (ethernet::IPV4, 4) => Some(second & 3),
        (ethernet::IPV6, 6) => Some(second >> 4 & 3),
        _ => None,
    }
}

/// Where the datagram of a frame ends, by its own word: what is behind that is padding. `None` if it
/// is none of IP.
pub fn end_of_datagram(frame: &[u8]) -> Option<usize> {
    let ethernet = ethernet::parse(frame)?;
    let datagram = frame.get(ethernet.header_len..)?;
    let len = match ethernet.ethertype {
        ethernet::IPV4 => ipv4::total_len(datagram)?,
        ethernet::IPV6 => ipv6::total_len(datagram)?,
        _ => return None,
    };
    Some(ethernet.header_len + len)
}

/// Whether a frame has the usual shape and both checksums are right. The rest is left to the layers.
#[inline(never)]
fn is_intact(frame: &[u8]) -> bool {
    let Some((ip, _)) = frame.first_chunk().and_then(usual_headers) else {
        return false;
    };
    let [_, _, l0, l1, _, _, _, _, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
    let end = ethernet::HEADER_LEN + usize::from(u16::from_be_bytes([l0, l1]));
    let Some(segment) = frame.get(TCP_AT..end) else { return false };
    let (src, dst) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    // A total length fits in 16 bits, and so does what is behind the header.
    let pseudo = Sum::pseudo_header(src, dst, ipv4::TCP, segment.len() as u16);
    Sum::new().plus(ip).is_valid() && pseudo.plus(segment).is_valid()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{TUPLE, emitted, frame, spoiled_frame};
    use super::super::words::Words;
    use super::super::{Flags, Outgoing, Timestamps};
    use super::*;

    const WORDS: [Checksum; 3] = [Checksum::Unknown, Checksum::Good, Checksum::Bad];

    fn sent(out: &Outgoing, payload: &[u8]) -> Vec<u8> {
        emitted(&TUPLE, out, payload)
    }

    #[test]
    fn ethernet_padding_is_no_payload() {
        let mut bytes = sent(&Outgoing { flags: Flags::ACK, ..Outgoing::default() }, &[]);
        bytes.resize(60, 0);
        for word in WORDS {
            let parsed = parse_tcp(&bytes, word).unwrap();
            assert_eq!((parsed.segment.len, parsed.header, parsed.payload), (0, 34, 54));
        }
    }

    #[test]
    fn the_local_end_is_the_destination() {
        let ts = Some(Timestamps { val: 5, ecr: 6 });
        let bytes = sent(&Outgoing { seq: 9, ts, ..Outgoing::default() }, b"hello");
        let parsed = parse_tcp(&bytes, Checksum::Unknown).unwrap();
        let TcpFrame { tuple, segment, payload, .. } = parsed;
        assert_eq!((tuple.local_addr, tuple.local_port), (TUPLE.remote_addr, TUPLE.remote_port));
        assert_eq!((tuple.remote_addr, tuple.remote_port), (TUPLE.local_addr, TUPLE.local_port));
        assert_eq!((segment.seq, segment.ts, segment.len), (9, ts, 5));
        assert_eq!(&bytes[usize::from(payload)..], b"hello");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = sent(&Outgoing::default(), b"12345678");
        let error = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            parse_tcp(&bytes, Checksum::Good).unwrap_err()
        };
        let dst = TUPLE.remote_addr;
        assert_eq!(error(13, 6), Reject::NotTcp);
        assert_eq!(error(14, 0x65), Reject::Ip(Ipv4Error::BadVersion));
        assert_eq!(error(14, 0x44), Reject::Ip(Ipv4Error::BadLength));
        assert_eq!(error(17, 49), Reject::Ip(Ipv4Error::Truncated));
        assert_eq!(error(17, 39), Reject::Tcp { dst, error: TcpError::Truncated });
        assert_eq!(error(20, 0x20), Reject::Fragment);
        assert_eq!(error(21, 1), Reject::Fragment);
        assert_eq!(error(23, 17), Reject::NotTcp);
        assert_eq!(error(46, 0x40), Reject::Tcp { dst, error: TcpError::BadOffset });
        assert_eq!(error(46, 0x80), Reject::Tcp { dst, error: TcpError::BadLength });
        assert_eq!(parse_tcp(&good[..13], Checksum::Good), Err(Reject::NotTcp));

        let mut flipped = good.clone();
        flipped[55] ^= 1;
        let rejected = Err(Reject::Tcp { dst, error: TcpError::BadChecksum });
        assert_eq!(parse_tcp(&flipped, Checksum::Unknown), rejected);
        flipped[22] ^= 1;
        let rejected = Err(Reject::Ip(Ipv4Error::BadChecksum));
        assert_eq!(parse_tcp(&flipped, Checksum::Unknown), rejected);
        assert!(parse_tcp(&flipped, Checksum::Good).is_ok());
    }

    #[test]
    fn usual_segments_do_not_go_through_the_layers() {
        for ts in [None, Some(Timestamps { val: 5, ecr: 6 })] {
            let mut bytes = sent(&Outgoing { ts, ..Outgoing::default() }, b"hello");
            assert!(is_intact(&bytes));
            assert_eq!(parse_usual(&bytes).unwrap().segment.ts, ts);
            bytes.extend([0; 3]);
            assert!(is_intact(&bytes));
            assert_eq!(parse_usual(&bytes).unwrap().segment.len, 5);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn one_pass_agrees_with_the_layers(bytes in prop_oneof![frame(), spoiled_frame()]) {
            let us = bytes.first_chunk().map(|mac| Station::new(MacAddr(*mac)));
            for word in WORDS {
                // What the two steps of the poll loop say.
                if let Some(ends) = us.and_then(|us| usual_ends(&bytes, us, word)) {
                    let parsed = parse_checked(&bytes);
                    prop_assert_eq!(parsed, layers::parse(&bytes, word));
                    if let Ok(TcpFrame { tuple, tos, .. }) = parsed {
                        prop_assert_eq!(ecn(&bytes), Some(tos & 3));
                        prop_assert_eq!(
                            Words::ecn::<{ Words::WITHOUT_OPTIONS }>(&bytes),
                            tos & 3
                        );
                        prop_assert_eq!((ends.tuple(), ends), (tuple, Ends::of(&tuple).unwrap()));
                    }
                }
                prop_assert_eq!(parse_tcp(&bytes, word), layers::parse(&bytes, word));
            }
        }

        #[test]
        fn what_parses_is_in_bounds(bytes in spoiled_frame()) {
            if let Ok(parsed) = parse_tcp(&bytes, Checksum::Good) {
                prop_assert!(parsed.header + tcp::HEADER_LEN as u16 <= parsed.payload);
                let end = usize::from(parsed.payload) + parsed.segment.len as usize;
                prop_assert!(end <= bytes.len());
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            for word in WORDS {
                let _ = parse_tcp(&bytes, word);
            }
        }
    }
}
