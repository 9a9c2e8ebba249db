//! Multicast listener discovery (RFC 3810): what routers ask, and the reports that switches listen to.
//!
//! Called by the lcore that heard the question or has joined groups. A switch that snoops delivers a
//! group's frames only to where a report came from, neighbour solicitations among them; that is why a host
//! that receives no multicast at all reports. When to report is decided there; here are bytes alone.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::icmpv6::seal_message;
use super::ipv6::{self, Ipv6};

/// Type of a question.
pub(super) const QUERY: u8 = 130;
/// Type of the answer that the first version has.
const REPORT_V1: u8 = 131;
/// Type of the answer that the second version has.
const REPORT_V2: u8 = 143;

/// Bytes of a question of the first version; one of the second is longer.
const QUERY_LEN_V1: usize = 24;
/// Bytes of the shortest question of the second version.
const QUERY_LEN_V2: usize = 28;

/// Bytes of a report before its records, and of one record without sources.
const REPORT_LEN: usize = 8;
const RECORD_LEN: usize = 20;

/// Behind the fixed header: options with a router alert, which every message of this kind must have (RFC
/// 3810 §5, RFC 2711), and padding. The first byte is what follows.
const ROUTER_ALERT: [u8; 8] = [ipv6::ICMP, 0, 5, 2, 0, 0, 1, 0];

/// Hop limit: no router passes it on.
const ON_LINK: u8 = 1;

/// Where reports of the second version go: all routers that know it.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// Groups that one report names at most.
pub const MOST_GROUPS: usize = 16;

/// Bytes of a datagram with the longest report.
pub const MAX_REPORT_LEN: usize =
    ipv6::HEADER_LEN + ROUTER_ALERT.len() + REPORT_LEN + MOST_GROUPS * RECORD_LEN;

/// A question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Query {
    /// The group that is asked about; unspecified if it is all.
    pub group: Ipv6Addr,
    /// An answer is to come within this time, whenever its sender likes.
    pub within: Duration,
    /// The version in which it is asked, and in which an answer is understood.
    pub version: Version,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// RFC 2710.
    V1,
    /// RFC 3810.
    V2,
}

/// Why a group is reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It was asked for: we listen, whatever source it is from.
    Asked = 2,
    /// We have begun to.
    Joined = 4,
}

/// Reads a question, the payload of `ip`; `None` if it is none that a router on this link sends (RFC 3810
/// §6.2).
pub fn parse_query(ip: &Ipv6, message: &[u8]) -> Option<Query> {
    let version = match message.len() {
        QUERY_LEN_V1 => Version::V1,
        len if len >= QUERY_LEN_V2 => Version::V2,
        _ => return None,
    };
    if ip.hop_limit != ON_LINK || !ip.src.is_unicast_link_local() {
        return None;
    }
    let [_, _, _, _, c0, c1, _, _, group @ ..] = message.first_chunk::<QUERY_LEN_V1>()?;
    let code = u16::from_be_bytes([*c0, *c1]);
    let within = match version {
        Version::V1 => u64::from(code),
        Version::V2 => milliseconds(code),
    };
    Some(Query {
        group: Ipv6Addr::from(*group.first_chunk::<16>()?),
        within: Duration::from_millis(within),
        version,
    })
}

/// What a code of the second version says: a number, or one with an exponent (RFC 3810 §5.1.3).
fn milliseconds(code: u16) -> u64 {
    if code < 0x8000 {
        return code.into();
    }
    let (exponent, mantissa) = (code >> 12 & 7, u64::from(code & 0xfff));
    (mantissa | 0x1000) << (exponent + 3)
}

/// Writes a datagram that reports these groups, the first [`MOST_GROUPS`] of them, to all routers; returns
/// its length.
///
/// # Panics
/// If `buf` is shorter than [`MAX_REPORT_LEN`].
pub fn emit_report(
    buf: &mut [u8],
    src: Ipv6Addr,
    groups: impl Iterator<Item = Ipv6Addr>,
    reason: Reason,
) -> usize {
    let at = ipv6::HEADER_LEN + ROUTER_ALERT.len();
    let (mut n, mut end) = (0, at + REPORT_LEN);
    for group in groups.take(MOST_GROUPS) {
        let record = &mut buf[end..end + RECORD_LEN];
        record[..4].copy_from_slice(&[reason as u8, 0, 0, 0]);
        record[4..].copy_from_slice(&group.octets());
        (n, end) = (n + 1, end + RECORD_LEN);
    }
    buf[at..at + REPORT_LEN].copy_from_slice(&[REPORT_V2, 0, 0, 0, 0, 0, 0, n]);
    finish(&mut buf[..end], src, ALL_ROUTERS)
}

/// Writes a datagram that reports a group as the first version does, to the group itself; returns its
/// length.
///
/// # Panics
/// If `buf` is shorter than [`MAX_REPORT_LEN`].
pub fn emit_report_v1(buf: &mut [u8], src: Ipv6Addr, group: Ipv6Addr) -> usize {
    let at = ipv6::HEADER_LEN + ROUTER_ALERT.len();
    let end = at + QUERY_LEN_V1;
    buf[at..at + 8].copy_from_slice(&[REPORT_V1, 0, 0, 0, 0, 0, 0, 0]);
    buf[at + 8..end].copy_from_slice(&group.octets());
    finish(&mut buf[..end], src, group)
}

/// Writes what stands before a message, and its checksum.
fn finish(datagram: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) -> usize {
    let len = datagram.len();
    let at = ipv6::HEADER_LEN;
    ipv6::emit_with_hop_limit(datagram, src, dst, ipv6::HOP_BY_HOP, 0, len - at, ON_LINK);
    datagram[at..at + ROUTER_ALERT.len()].copy_from_slice(&ROUTER_ALERT);
    seal_message(&mut datagram[at + ROUTER_ALERT.len()..], src, dst);
    len
}

/// Whether a report names the group.
#[cfg(test)]
pub(crate) fn is_reported(ip: &Ipv6, message: &[u8], group: Ipv6Addr) -> bool {
    let is_good = super::icmpv6::parse(ip, message).is_ok();
    is_good
        && match message {
            [REPORT_V1, _, _, _, _, _, _, _, groups @ ..] => *groups == group.octets(),
            [REPORT_V2, _, _, _, _, _, _, _, records @ ..] => {
                records.chunks_exact(RECORD_LEN).any(|record| record[4..] == group.octets())
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::icmpv6::{self, Message};
    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    /// A question with what follows its group.
    fn query(code: u16, group: Ipv6Addr, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; ipv6::HEADER_LEN + ROUTER_ALERT.len()];
        bytes.extend([QUERY, 0, 0, 0]);
        bytes.extend(code.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(group.octets());
        bytes.extend(rest);
        finish(&mut bytes, ROUTER, ipv6::ALL_NODES);
        bytes
    }

    fn read(datagram: &[u8]) -> Option<Query> {
        let ip = ipv6::parse(datagram).unwrap();
        match icmpv6::parse(&ip, ip.payload(datagram)) {
            Ok(Message::Query(query)) => Some(query),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    #[test]
    fn questions_of_both_versions_are_read() {
        let any = Ipv6Addr::UNSPECIFIED;
        let expected =
            |ms, group, version| Some(Query { group, within: Duration::from_millis(ms), version });
        assert_eq!(read(&query(10_000, any, &[])), expected(10_000, any, Version::V1));
        assert_eq!(read(&query(0xffff, any, &[])), expected(65_535, any, Version::V1));
        let group = "ff02::1:ff00:1".parse().unwrap();
        assert_eq!(
            read(&query(10_000, group, &[2, 125, 0, 0])),
            expected(10_000, group, Version::V2)
        );
        // A mantissa of twelve bits behind a one, and an exponent.
        assert_eq!(read(&query(0x8000, any, &[0; 4])), expected(32_768, any, Version::V2));
        assert_eq!(read(&query(0xffff, any, &[0; 4])), expected(0x1fff << 10, any, Version::V2));
        assert_eq!(read(&query(1, any, &[0; 3])), None, "neither");
    }

    #[test]
    fn what_did_not_come_from_a_router_of_this_link_is_no_question() {
        let good = query(10, Ipv6Addr::UNSPECIFIED, &[]);
        let change = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            let (src, dst) =
                (Ipv6Addr::from(*bytes[8..].first_chunk::<16>().unwrap()), ipv6::ALL_NODES);
            seal_message(&mut bytes[48..], src, dst);
            read(&bytes)
        };
        assert!(change(7, 1).is_some());
        assert_eq!(change(7, 64), None, "hop limit");
        assert_eq!(change(8, 0xfd), None, "source");
    }

    #[test]
    fn a_report_names_its_groups() {
        let groups = ["ff02::1:ff00:1", "ff02::1:ff00:2"].map(|group| group.parse().unwrap());
        let mut buf = [0xaa; MAX_REPORT_LEN];
        let len = emit_report(&mut buf, ROUTER, groups.into_iter(), Reason::Joined);
        let ip = ipv6::parse(&buf[..len]).unwrap();
        assert_eq!((ip.dst, ip.hop_limit, ip.protocol), (ALL_ROUTERS, 1, ipv6::ICMP));
        assert_eq!(buf[40..48], ROUTER_ALERT);
        let message = ip.payload(&buf);
        assert_eq!(message[..2], [143, 0]);
        assert_eq!(message[6..12], [0, 2, 4, 0, 0, 0]);
        assert!(groups.iter().all(|group| is_reported(&ip, message, *group)));
        assert!(!is_reported(&ip, message, ipv6::ALL_NODES));

        let len = emit_report_v1(&mut buf, ROUTER, groups[1]);
        let ip = ipv6::parse(&buf[..len]).unwrap();
        assert_eq!((ip.dst, ip.hop_limit, ip.total_len), (groups[1], 1, 72));
        assert!(is_reported(&ip, ip.payload(&buf), groups[1]));
        assert!(!is_reported(&ip, ip.payload(&buf), groups[0]));
    }

    proptest! {
        #[test]
        fn any_question_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..80), hops in 0_u8..3) {
            let mut datagram = vec![0; ipv6::HEADER_LEN];
            ipv6::emit_with_hop_limit(
                &mut datagram, ROUTER, ipv6::ALL_NODES, ipv6::ICMP, 0, bytes.len(), hops);
            datagram.extend(&bytes);
            let ip = ipv6::parse(&datagram).unwrap();
            let query = parse_query(&ip, &bytes);
            prop_assert_eq!(query.is_some(), hops == 1 && (bytes.len() == 24 || bytes.len() >= 28));
            // Less than three hours, whatever is said.
            prop_assert!(query.is_none_or(|query| query.within.as_secs() < 3 * 3600));
        }
    }
}
