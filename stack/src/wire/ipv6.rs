//! IPv6 headers (RFC 8200): the few fields a TCP receiver needs, extension headers skipped, and emission.
//!
//! Called by the parsers of the poll loop, layer by layer, and by every emitter. There is no checksum
//! in the header; that of the payload covers the addresses. Nothing here puts fragments together, and
//! the work per datagram is bounded whatever it carries.

use std::net::{IpAddr, Ipv6Addr};

use super::MacAddr;

/// Bytes of a header without extension headers.
pub const HEADER_LEN: usize = 40;

/// Next header: ICMPv6.
pub const ICMP: u8 = 58;
/// Next header: hop-by-hop options.
pub(super) const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
const ROUTING: u8 = 43;
/// Next header: a fragment.
pub(super) const FRAGMENT: u8 = 44;
/// Next header: nothing follows.
const NO_NEXT: u8 = 59;
/// Next header: options for the destination.
const DESTINATION: u8 = 60;

/// The group of all hosts of a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Extension headers that a datagram may have. RFC 8200 §4.1 knows an order of seven, each once but for
/// destination options.
const MOST_HEADERS: usize = 8;

/// Options that one header may have besides padding, and bytes of padding in a row (Linux's
/// max_hbh_opts_number and max_dst_opts_number; RFC 9099 §2.1.9.1).
const MOST_OPTIONS: usize = 8;
const MOST_PADDING: usize = 7;

/// Hop limit of what is sent: Linux's default.
const HOP_LIMIT: u8 = 64;

/// A validated header, and what its extension headers come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ipv6 {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Protocol of the payload: the next header behind the last extension header that was skipped. A
    /// fragment's is what stands in its fragment header.
    pub protocol: u8,
    /// Where that number stands in the datagram.
    pub protocol_at: usize,
    /// Bytes before the payload, extension headers included.
    pub header_len: usize,
    /// Bytes of the datagram, header included: at least `header_len`, at most what was parsed from.
    pub total_len: usize,
    /// The traffic class: DSCP and ECN.
    pub tos: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// The datagram is a fragment: more follow, or its offset is not 0 (RFC 6946).
    pub fragment: bool,
}

impl Ipv6 {
    /// The ECN field: 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE (RFC 3168 §5).
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// The payload, `datagram` being the bytes that the header was parsed from.
    pub fn payload<'a>(&self, datagram: &'a [u8]) -> &'a [u8] {
        datagram.get(self.header_len..self.total_len).unwrap_or_default()
    }
}

/// Why bytes are not an IPv6 datagram that can be taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ipv6Error {
    /// Fewer bytes than a header, or than the payload length or that of an extension header says.
    Truncated,
    /// The version is not 6.
    BadVersion,
    /// More extension headers, options or padding than anybody means well.
    TooMuch,
    /// An option that says of itself that whoever does not know it drops the datagram.
    Unwelcome,
    /// A header that asks for more than is done here: its sender is to be told (RFC 4443 §3.4), if
    /// its addresses are such that one may.
    Problem(Problem),
}

/// What an ICMPv6 Parameter Problem says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Problem {
    /// What is wrong.
    pub code: ProblemCode,
    /// Where in the datagram.
    pub pointer: u16,
    /// It is told even if the datagram was for a group (RFC 8200 §4.2).
    pub of_groups_too: bool,
}

/// Codes of Parameter Problem.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProblemCode {
    /// A field has a value that is not supported.
    Field = 0,
    /// The next header is not known here.
    NextHeader = 1,
    /// An option is not known here.
    Option = 2,
    /// The first fragment does not hold all headers (RFC 7112 §5).
    Incomplete = 3,
}

impl Problem {
    /// The one of a field that stands at `pointer`.
    pub const fn of_field(pointer: usize) -> Self {
        Self { code: ProblemCode::Field, pointer: pointer as u16, of_groups_too: false }
    }

    /// The one of a first fragment that is too short for all headers.
    pub const INCOMPLETE: Self =
        Self { code: ProblemCode::Incomplete, pointer: 0, of_groups_too: false };

    fn error(code: ProblemCode, at: usize) -> Ipv6Error {
        // Within a datagram, whose length fits in 16 bits and a header.
        Ipv6Error::Problem(Self { code, pointer: at as u16, of_groups_too: false })
    }

    /// The one of a payload that nobody here knows.
    pub const fn of_protocol(ip: &Ipv6) -> Self {
        let pointer = ip.protocol_at as u16;
        Self { code: ProblemCode::NextHeader, pointer, of_groups_too: false }
    }
}

/// Parses and validates the header at the front of `datagram`, which may be padded behind its end, and
/// skips extension headers as far as the payload or a fragment.
///
/// # Errors
/// See [`Ipv6Error`]. A payload of an unknown protocol is none: that is for the caller to know.
pub fn parse(datagram: &[u8]) -> Result<Ipv6, Ipv6Error> {
    skip_all(datagram, whole(datagram)?, 0)
}

/// As [`parse`], of the front of a datagram, the rest of which is elsewhere: its headers are there.
///
/// # Errors
/// As [`parse`].
pub fn parse_front(front: &[u8]) -> Result<Ipv6, Ipv6Error> {
    skip_all(front, fixed(front)?, 0)
}

/// Goes on behind the fragment header of the first fragment `ip`, of which `front` is the front.
///
/// # Errors
/// As [`parse`]; [`Ipv6Error::Truncated`] if the headers go on in another fragment.
pub fn parse_behind_fragment_header(front: &[u8], ip: &Ipv6) -> Result<Ipv6, Ipv6Error> {
    // Of those that the whole datagram may have, one at least has been there.
    skip_all(front, Ipv6 { fragment: false, ..*ip }, 1)
}

/// The header alone, nothing being skipped: of a datagram that [`parse`] may not have taken.
pub fn parse_fixed(datagram: &[u8]) -> Option<Ipv6> {
    whole(datagram).ok()
}

/// Skips extension headers, of which so many have been skipped before, as far as the payload or a fragment.
fn skip_all(datagram: &[u8], mut ip: Ipv6, skipped: usize) -> Result<Ipv6, Ipv6Error> {
    for number in skipped.. {
        if !is_extension(ip.protocol) || ip.fragment {
            return Ok(ip);
        }
        if number == MOST_HEADERS {
            break;
        }
        skip(datagram, &mut ip, number)?;
    }
    Err(Ipv6Error::TooMuch)
}

/// Whether a header with this number is skipped.
pub const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// The fixed header of a datagram that is all there.
fn whole(datagram: &[u8]) -> Result<Ipv6, Ipv6Error> {
    let ip = fixed(datagram)?;
    if ip.total_len > datagram.len() { Err(Ipv6Error::Truncated) } else { Ok(ip) }
}

fn fixed(datagram: &[u8]) -> Result<Ipv6, Ipv6Error> {
    let fixed = datagram.first_chunk::<HEADER_LEN>().ok_or(Ipv6Error::Truncated)?;
    let [v0, v1, _, _, l0, l1, next, hop_limit, addrs @ ..] = fixed;
    if v0 >> 4 != 6 {
        return Err(Ipv6Error::BadVersion);
    }
    let payload_len = usize::from(u16::from_be_bytes([*l0, *l1]));
    Ok(Ipv6 {
        src: address(addrs),
        dst: address(&addrs[16..]),
        protocol: *next,
        // Behind version, class, flow label and length.
        protocol_at: 6,
        header_len: HEADER_LEN,
        total_len: HEADER_LEN + payload_len,
        tos: v0 << 4 | v1 >> 4,
        hop_limit: *hop_limit,
        fragment: false,
    })
}

/// Whether there is no payload, and is not meant to be (RFC 8200 §4.7).
pub const fn is_empty(ip: &Ipv6) -> bool {
    ip.protocol == NO_NEXT
}

/// Goes over one extension header.
fn skip(datagram: &[u8], ip: &mut Ipv6, number: usize) -> Result<(), Ipv6Error> {
    let at = ip.header_len;
    let rest = datagram.get(at..ip.total_len.min(datagram.len())).unwrap_or_default();
    let [next, len, b2, b3, ..] = *rest.first_chunk::<8>().ok_or(Ipv6Error::Truncated)?;
    // A fragment header has no length; it is always eight bytes.
    let len = if ip.protocol == FRAGMENT { 8 } else { 8 * (usize::from(len) + 1) };
    let header = rest.get(..len).ok_or(Ipv6Error::Truncated)?;
    match ip.protocol {
        // It may only stand behind the fixed header.
        HOP_BY_HOP if number > 0 => {
            return Err(Problem::error(ProblemCode::NextHeader, ip.protocol_at));
        }
        HOP_BY_HOP | DESTINATION => options(header, at)?,
        // Another host is still to be visited. Nobody forwards here, and no type is known.
        ROUTING if b3 != 0 => return Err(Problem::error(ProblemCode::Field, at + 2)),
        FRAGMENT => {
            // Offset and the flag that more follows; two bits between them are reserved.
            ip.fragment = u16::from_be_bytes([b2, b3]) & 0xfff9 != 0;
        }
        _ => {}
    }
    ip.protocol = next;
    ip.protocol_at = at;
    ip.header_len = at + len;
    Ok(())
}

/// Goes over the options of a header that stands at `at`. None is known here but padding: what is to
/// happen then, each says in its two upper bits.
fn options(header: &[u8], at: usize) -> Result<(), Ipv6Error> {
    let (mut place, mut seen, mut padding) = (2, 0, 0);
    while let Some(&kind) = header.get(place) {
        let len = match kind {
            0 => 1,
            _ => 2 + usize::from(*header.get(place + 1).ok_or(Ipv6Error::Truncated)?),
        };
        if place + len > header.len() {
            return Err(Ipv6Error::Truncated);
        }
        match kind {
            0 | 1 => padding += len,
            _ => {
                (seen, padding) = (seen + 1, 0);
                let (code, pointer) = (ProblemCode::Option, (at + place) as u16);
                match kind >> 6 {
                    0 => {}
                    1 => return Err(Ipv6Error::Unwelcome),
                    action => {
                        let of_groups_too = action == 2;
                        return Err(Ipv6Error::Problem(Problem { code, pointer, of_groups_too }));
                    }
                }
            }
        }
        if seen > MOST_OPTIONS || padding > MOST_PADDING {
            return Err(Ipv6Error::TooMuch);
        }
        place += len;
    }
    Ok(())
}

/// The address in the first 16 of these bytes.
fn address(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(bytes.first_chunk::<16>().copied().unwrap_or_default())
}

/// Writes a header without extension headers for `payload_len` bytes of the protocol `next_header`
/// into the front of `buf`, and returns its length. The flow label is 0.
///
/// # Panics
/// If `buf` is shorter than 40 bytes, or `payload_len` is more than a datagram holds.
pub fn emit(
    buf: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    next_header: u8,
    class: u8,
    payload_len: usize,
) -> usize {
    emit_with_hop_limit(buf, src, dst, next_header, class, payload_len, HOP_LIMIT)
}

/// As [`emit`], with a hop limit.
///
/// # Panics
/// As [`emit`].
pub fn emit_with_hop_limit(
    buf: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    next_header: u8,
    class: u8,
    payload_len: usize,
    hop_limit: u8,
) -> usize {
    let payload_len = u16::try_from(payload_len).expect("payload fits a datagram");
    let header = &mut buf[..HEADER_LEN];
    header[0..4].copy_from_slice(&(0x6000_0000 | u32::from(class) << 20).to_be_bytes());
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6..8].copy_from_slice(&[next_header, hop_limit]);
    header[8..24].copy_from_slice(&src.octets());
    header[24..40].copy_from_slice(&dst.octets());
    HEADER_LEN
}

/// Bytes that the header at the front of `datagram` says the datagram has, header included.
pub fn total_len(datagram: &[u8]) -> Option<usize> {
    let [_, _, _, _, l0, l1, ..] = *datagram else { return None };
    Some(HEADER_LEN + usize::from(u16::from_be_bytes([l0, l1])))
}

/// Writes what follows into the header at the front of `datagram`, if it is long enough to be one.
pub(super) fn set_next_header(datagram: &mut [u8], protocol: u8) {
    if let Some(field) = datagram.get_mut(6) {
        *field = protocol;
    }
}

/// Writes the length of the datagram, header included, into the header at the front of `datagram`, if it
/// is long enough to be one.
///
/// # Panics
/// If `len` does not fit.
pub fn set_total_len(datagram: &mut [u8], len: usize) {
    if let (Some(field), Some(len)) = (datagram.get_mut(4..6), len.checked_sub(HEADER_LEN)) {
        let len = u16::try_from(len).expect("a payload's length fits 16 bits");
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// Whether a host can have this address: not unspecified, loopback, a group's, or one that stands
/// for an IPv4 address. Segments that claim to come from any of these are dropped: one that stands for
/// an IPv4 address would pass for a peer that speaks IPv4.
pub fn is_unicast(addr: Ipv6Addr) -> bool {
    let none = addr.is_unspecified() || addr.is_loopback() || addr.is_multicast();
    !none && addr.to_ipv4_mapped().is_none()
}

/// The address, or the one that stands for it in IPv6 (RFC 4291 §2.5.5.2).
pub const fn or_mapped(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// The address on its link of an interface that calls itself so.
pub const fn link_local(interface: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfe80 << 112 | interface as u128)
}

/// The group in which whoever has `addr` is asked for its Ethernet address (RFC 4291 §2.7.1).
pub const fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let low = addr.to_bits() & 0xff_ffff;
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | low)
}

/// The Ethernet address of a group (RFC 2464 §7).
pub const fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [a, b, c, d] = (group.to_bits() as u32).to_be_bytes();
    MacAddr([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const TCP: u8 = 6;

    /// A datagram of these extension headers, each with its number, whose own first byte is filled in.
    fn datagram(headers: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let mut next_at = 6;
        for (number, header) in headers {
            bytes[next_at] = *number;
            next_at = bytes.len();
            bytes.extend_from_slice(header);
        }
        bytes[next_at] = TCP;
        bytes.extend_from_slice(payload);
        let (next, payload_len) = (bytes[6], bytes.len() - HEADER_LEN);
        emit(&mut bytes, A, B, next, 0, payload_len);
        bytes
    }

    fn problem(code: ProblemCode, pointer: u16, of_groups_too: bool) -> Result<Ipv6, Ipv6Error> {
        Err(Ipv6Error::Problem(Problem { code, pointer, of_groups_too }))
    }

    #[test]
    fn the_class_stands_between_version_and_flow_label() {
        let mut header = [0xaa; HEADER_LEN];
        emit(&mut header, Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, 6, 0xb9, 0x1234);
        assert_eq!(header[..8], [0x6b, 0x90, 0, 0, 0x12, 0x34, 6, 64]);
        assert_eq!((header[23], header[39]), (1, 0));
    }

    #[test]
    fn groups_are_made_of_the_end_of_an_address() {
        let addr = "2001:db8::1:2:345:6789".parse().unwrap();
        let group = solicited_node(addr);
        assert_eq!(group, "ff02::1:ff45:6789".parse::<Ipv6Addr>().unwrap());
        assert_eq!(group_mac(group), MacAddr([0x33, 0x33, 0xff, 0x45, 0x67, 0x89]));
    }

    #[test]
    fn known_extension_headers_are_skipped() {
        let padded: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
        let alert: &[u8] = &[0, 0, 5, 2, 0, 0, 1, 0];
        let routing: &[u8] =
            &[0, 2, 77, 0, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let atomic: &[u8] = &[0, 0, 0, 0, 1, 2, 3, 4];
        let bytes = datagram(
            &[(0, alert), (60, padded), (43, routing), (44, atomic), (60, padded)],
            b"segment",
        );
        let ip = parse(&bytes).unwrap();
        assert_eq!((ip.protocol, ip.header_len, ip.fragment), (TCP, 40 + 4 * 8 + 24, false));
        assert_eq!(ip.payload(&bytes), b"segment");
        assert_eq!(usize::from(bytes[ip.protocol_at]), usize::from(TCP));
    }

    #[test]
    fn fragments_are_recognised_and_not_looked_into() {
        for offset in [[0, 1], [0, 8], [0xff, 0xf8]] {
            let header = [0, 0, offset[0], offset[1], 1, 2, 3, 4];
            let bytes = datagram(&[(44, &header), (60, &[0, 200, 0, 0, 0, 0, 0, 0])], b"");
            let ip = parse(&bytes).unwrap();
            assert!(ip.fragment, "{offset:?}");
            assert_eq!((ip.protocol, ip.header_len), (60, 48));
        }
    }

    #[test]
    fn what_is_not_done_here_is_named_with_its_place() {
        let routing: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(parse(&datagram(&[(43, routing)], b"")), problem(ProblemCode::Field, 42, false));
        let none: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(
            parse(&datagram(&[(60, none), (0, none)], b"")),
            problem(ProblemCode::NextHeader, 40, false)
        );
        for (kind, expected) in [
            (0x1e, None),
            (0x5e, Some(Err(Ipv6Error::Unwelcome))),
            (0x9e, Some(problem(ProblemCode::Option, 43, true))),
            (0xde, Some(problem(ProblemCode::Option, 43, false))),
            (0xc2, Some(problem(ProblemCode::Option, 43, false))),
        ] {
            let header = [0, 0, 0, kind, 3, 9, 9, 9];
            let parsed = parse(&datagram(&[(60, &header)], b""));
            match expected {
                None => assert_eq!(parsed.unwrap().protocol, TCP),
                Some(expected) => assert_eq!(parsed, expected, "{kind:x}"),
            }
        }
    }

    #[test]
    fn the_work_is_bounded() {
        let none: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
        let of = |n| parse(&datagram(&vec![(60, none); n], b""));
        assert_eq!(of(8).unwrap().protocol, TCP);
        assert_eq!(of(9), Err(Ipv6Error::TooMuch));
        let options = |n: usize, filler: u8| {
            let mut header = vec![filler; 64];
            header[..2].copy_from_slice(&[0, 7]);
            for option in header[2..].chunks_exact_mut(2).take(n) {
                option.copy_from_slice(&[0x1e, 0]);
            }
            // The rest is one option.
            let place = 2 + 2 * n;
            header[place..place + 2].copy_from_slice(&[0x1e, (62 - 2 * n - 2) as u8]);
            parse(&datagram(&[(60, &header)], b""))
        };
        assert_eq!(options(7, 0).unwrap().protocol, TCP);
        assert_eq!(options(8, 0), Err(Ipv6Error::TooMuch));
        let mut padding = [0; 16];
        padding[1] = 1;
        assert_eq!(parse(&datagram(&[(60, &padding)], b"")), Err(Ipv6Error::TooMuch));
    }

    #[test]
    fn bad_lengths_and_versions_are_named() {
        let good = datagram(&[(60, &[0, 0, 1, 4, 0, 0, 0, 0])], b"12345678");
        for (at, value, error) in [
            (0, 0x45, Ipv6Error::BadVersion),
            (5, 17, Ipv6Error::Truncated),
            (5, 7, Ipv6Error::Truncated),
            (41, 2, Ipv6Error::Truncated),
            (43, 5, Ipv6Error::Truncated),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(parse(&bytes), Err(error), "{value} at {at}");
        }
        assert_eq!(parse(&good[..39]), Err(Ipv6Error::Truncated));
        let mut padded = good.clone();
        padded.extend([7; 9]);
        assert_eq!(parse(&padded).unwrap().payload(&padded), b"12345678");
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            ends in any::<(u128, u128)>(),
            class in any::<u8>(),
            protocol in 61_u8..,
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let (src, dst) = (Ipv6Addr::from_bits(ends.0), Ipv6Addr::from_bits(ends.1));
            let mut bytes = vec![0xaa; HEADER_LEN];
            emit(&mut bytes, src, dst, protocol, class, payload.len());
            bytes.extend(&payload);
            let ip = parse(&bytes).unwrap();
            prop_assert_eq!((ip.src, ip.dst, ip.protocol, ip.tos), (src, dst, protocol, class));
            prop_assert_eq!((ip.header_len, ip.hop_limit, ip.fragment), (HEADER_LEN, 64, false));
            prop_assert_eq!(ip.payload(&bytes), &payload[..]);
        }

        #[test]
        fn any_extension_headers_are_survived(
            first in prop::sample::select(vec![0_u8, 6, 43, 44, 58, 59, 60, 135]),
            mut bytes in prop::collection::vec(
                prop_oneof![4 => Just(0_u8), 2 => 0_u8..4, 1 => any::<u8>(),
                    1 => prop::sample::select(vec![0_u8, 43, 44, 60])],
                0..200,
            ),
        ) {
            let mut all = vec![0; HEADER_LEN];
            emit(&mut all, A, B, first, 0, bytes.len());
            all.append(&mut bytes);
            if let Ok(ip) = parse(&all) {
                prop_assert!(ip.header_len <= ip.total_len && ip.total_len <= all.len());
                prop_assert_eq!(all[ip.protocol_at], ip.protocol);
            }
        }
    }
}
