//! The one-pass parser for TCP over IPv6: what [`frame`](super::frame) is for IPv4.
//!
//! Called by the poll loop for every frame that is not the usual one of IPv4. The usual shape (no tag,
//! no extension headers) is read straight from fixed offsets; everything else, and everything wrong,
//! goes through the [`layers`](super::layers). It never looks at state.

use std::net::{IpAddr, Ipv6Addr};

use super::checksum::Sum;
use super::frame::{Station, TcpFrame, word};
use super::{FourTuple, ethernet, ipv4, ipv6, options, tcp};
use crate::buf::Checksum;

/// Offset of the TCP header in a frame of the usual shape.
pub(super) const TCP_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
/// Bytes of the headers of a frame of the usual shape, without TCP options.
pub(super) const HEADERS_LEN: usize = TCP_AT + tcp::HEADER_LEN;

/// What tells in the word of EtherType, version and class.
const TYPE_AND_VERSION: u32 = 0xffff_f000;
/// That word for IPv6.
const IPV6: u32 = (ethernet::IPV6 as u32) << 16 | 0x6000;
/// What tells in the word of payload length, next header and hop limit.
const NEXT_HEADER: u32 = 0xff00;
/// That word for a TCP segment.
const TCP: u32 = (ipv4::TCP as u32) << 8;

/// The two ends of a segment as they stand in the frame: see [`Ends`](super::frame::Ends).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends6 {
    /// The halves of the source address and of the destination address.
    pub addrs: [u64; 4],
    /// Source port and, in the lower half, destination port.
    pub ports: u32,
}

/// The ends of a segment for this station whose headers stand where they usually do and whose
/// checksum is right; `None` for everything else.
///
/// `checksum` is the device's word. What [`parse_checked`](super::frame::parse_checked) says of the
/// frame is still to be seen.
#[inline]
pub fn usual_ends(frame: &[u8], us: Station, checksum: Checksum) -> Option<Ends6> {
    let headers = frame.first_chunk::<HEADERS_LEN>()?;
    if !is_usual(headers) || !us.is_addressed_by(headers) {
        return None;
    }
    if !matches!(checksum, Checksum::Good | Checksum::Transport) && !is_intact(frame) {
        return None;
    }
    let (addrs, _) = headers[ethernet::HEADER_LEN + 8..].as_chunks::<8>();
    let half = |at: usize| addrs.get(at).map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Some(Ends6 {
        addrs: [half(0), half(1), half(2), half(3)],
        ports: word::<TCP_AT, HEADERS_LEN>(headers),
    })
}

/// Parses a frame that has the usual shape with nothing wrong and no options but aligned timestamps;
/// `None` for all else. The checksum is not looked at.
#[inline]
pub fn parse_usual(frame: &[u8]) -> Option<TcpFrame> {
    let (headers, rest) = frame.split_first_chunk::<HEADERS_LEN>()?;
    if !is_usual(headers) {
        return None;
    }
    let (_, datagram) = headers.split_first_chunk::<{ ethernet::HEADER_LEN }>()?;
    let (ip, tcp) = datagram.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    let tcp: &[u8; tcp::HEADER_LEN] = tcp.first_chunk()?;
    let [v0, v1, _, _, l0, l1, _, ttl, ..] = *ip;
    let tos = v0 << 4 | v1 >> 4;

    let rest_len = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(tcp::HEADER_LEN)?;
    let rest = rest.get(..rest_len)?;
    let (ts, options_len) = match tcp[12] >> 4 {
        5 => (None, 0),
        8 => {
            (Some(options::aligned_timestamps(rest.first_chunk()?)?), options::TIMESTAMPS_ONLY_LEN)
        }
        _ => return None,
    };
    let (src, dst) = addresses(ip);
    let [p0, p1, p2, p3, ..] = *tcp;
    Some(TcpFrame {
        tuple: FourTuple {
            local_addr: IpAddr::V6(dst),
            remote_addr: IpAddr::V6(src),
            local_port: u16::from_be_bytes([p2, p3]),
            remote_port: u16::from_be_bytes([p0, p1]),
        },
        segment: tcp::segment(tcp, ts, (rest_len - options_len) as u32, tos & 3),
        header: TCP_AT as u16,
        payload: (HEADERS_LEN + options_len) as u16,
        tos,
        ttl,
        vlan: None,
    })
}

/// Whether the headers stand where they usually do.
#[inline(always)]
pub(super) fn is_usual<const LEN: usize>(headers: &[u8; LEN]) -> bool {
    word::<12, LEN>(headers) & TYPE_AND_VERSION == IPV6
        && word::<18, LEN>(headers) & NEXT_HEADER == TCP
}

/// Whether a frame of the usual shape has the right checksum. The rest is left to the layers.
#[inline(never)]
pub(super) fn is_intact(frame: &[u8]) -> bool {
    let Some(headers) = frame.first_chunk::<HEADERS_LEN>().filter(|headers| is_usual(headers))
    else {
        return false;
    };
    let payload_len = word::<18, HEADERS_LEN>(headers) >> 16;
    let Some(segment) = frame.get(TCP_AT..TCP_AT + payload_len as usize) else { return false };
    // The addresses as they stand, which is all of the pseudo header but length and protocol.
    let addrs = &headers[ethernet::HEADER_LEN + 8..TCP_AT];
    Sum::pseudo_header_tail(ipv4::TCP, payload_len).plus(addrs).plus(segment).is_valid()
}

fn addresses(ip: &[u8; ipv6::HEADER_LEN]) -> (Ipv6Addr, Ipv6Addr) {
    let addr = |at: usize| ip[at..].first_chunk::<16>().copied().unwrap_or_default();
    (addr(8).into(), addr(24).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{self, Reject, parse_checked, parse_tcp};
    use super::super::ipv6::Ipv6Error;
    use super::super::samples::{TUPLE6, emitted, frame6, spoiled};
    use super::super::tcp::TcpError;
    use super::super::{MacAddr, Outgoing, Timestamps, layers};
    use super::*;

    const WORDS: [Checksum; 4] =
        [Checksum::Unknown, Checksum::Good, Checksum::Transport, Checksum::Bad];

    fn sent(out: &Outgoing, payload: &[u8]) -> Vec<u8> {
        emitted(&TUPLE6, out, payload)
    }

    #[test]
    fn the_local_end_is_the_destination() {
        let ts = Some(Timestamps { val: 5, ecr: 6 });
        let bytes = sent(&Outgoing { seq: 9, ts, ..Outgoing::default() }, b"hello");
        let parsed = parse_tcp(&bytes, Checksum::Unknown).unwrap();
        assert_eq!(
            (parsed.tuple.local(), parsed.tuple.remote()),
            (TUPLE6.remote(), TUPLE6.local())
        );
        assert_eq!((parsed.segment.seq, parsed.segment.ts, parsed.segment.len), (9, ts, 5));
        assert_eq!(&bytes[usize::from(parsed.payload)..], b"hello");
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

    #[test]
    fn what_is_wrong_is_named() {
        let good = sent(&Outgoing::default(), b"12345678");
        let error = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            parse_tcp(&bytes, Checksum::Good).unwrap_err()
        };
        let dst = TUPLE6.remote_addr;
        assert_eq!(error(14, 0x45), Reject::Ip6(Ipv6Error::BadVersion));
        assert_eq!(error(19, 29), Reject::Ip6(Ipv6Error::Truncated));
        assert_eq!(error(19, 19), Reject::Tcp { dst, error: TcpError::Truncated });
        assert_eq!(error(20, 17), Reject::NotTcp);
        assert_eq!(error(66, 0x40), Reject::Tcp { dst, error: TcpError::BadOffset });
        assert_eq!(error(66, 0x80), Reject::Tcp { dst, error: TcpError::BadLength });
        let mut flipped = good.clone();
        flipped[75] ^= 1;
        let rejected = Err(Reject::Tcp { dst, error: TcpError::BadChecksum });
        assert_eq!(parse_tcp(&flipped, Checksum::Unknown), rejected);
        assert_eq!(parse_tcp(&flipped, Checksum::Bad), rejected);
        assert!(parse_tcp(&flipped, Checksum::Transport).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn one_pass_agrees_with_the_layers(bytes in prop_oneof![frame6(), spoiled(frame6())]) {
            let us = bytes.first_chunk().map(|mac| Station::new(MacAddr(*mac)));
            for word in WORDS {
                prop_assert_eq!(parse_tcp(&bytes, word), layers::parse(&bytes, word));
                let Some(ends) = us.and_then(|us| usual_ends(&bytes, us, word)) else { continue };
                let parsed = parse_checked(&bytes);
                prop_assert_eq!(parsed, layers::parse(&bytes, word));
                if let Ok(TcpFrame { tuple, tos, .. }) = parsed {
                    prop_assert_eq!(frame::ecn(&bytes), Some(tos & 3));
                    let [s0, s1, d0, d1] = ends.addrs;
                    let addr = |high: u64, low: u64| {
                        IpAddr::from(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
                    };
                    prop_assert_eq!((addr(d0, d1), addr(s0, s1)), (tuple.local_addr, tuple.remote_addr));
                    let ports = u32::from(tuple.remote_port) << 16 | u32::from(tuple.local_port);
                    prop_assert_eq!(ends.ports, ports);
                }
            }
        }

        #[test]
        fn what_parses_is_in_bounds(bytes in spoiled(frame6())) {
            if let Ok(parsed) = parse_tcp(&bytes, Checksum::Good) {
                prop_assert!(parsed.header + tcp::HEADER_LEN as u16 <= parsed.payload);
                let end = usize::from(parsed.payload) + parsed.segment.len as usize;
                prop_assert!(end <= bytes.len());
            }
        }
    }
}
