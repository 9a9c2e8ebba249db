//! IPv4 headers (RFC 791): validation, the few fields a TCP receiver needs, and emission.
//!
//! Called by the poll loop's parsers and by every emitter. Options are skipped, fragments are only
//! recognised: nothing here reassembles.

use std::net::Ipv4Addr;

use super::checksum::{Sum, Writer};
use crate::buf::Checksum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;

/// Time to live of what is sent: the recommended default (RFC 1700), and Linux's.
pub const TTL: u8 = 64;

/// The word of identification and fragmentation of what is sent: never to be fragmented, and so without an
/// identification (RFC 6864 §4.1).
const DONT_FRAGMENT: u32 = 0x4000;

/// The More-Fragments bit and the fragment offset: any of them set means a fragment.
pub(super) const FRAGMENT_MASK: u16 = 0x3fff;

/// A validated header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ipv4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Bytes of the header, options included: 20 to 60.
    pub header_len: usize,
    /// Bytes of the datagram, header included: at least `header_len`, at most what was parsed from.
    /// What is behind it in the frame is padding.
    pub total_len: usize,
    /// The former type of service: DSCP and ECN (RFC 2474, RFC 3168).
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// The datagram is a fragment: more follow, or its offset is not 0.
    pub fragment: bool,
}

impl Ipv4 {
    /// The ECN field: 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE (RFC 3168 §5).
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// The payload, `datagram` being the bytes that the header was parsed from.
    pub fn payload<'a>(&self, datagram: &'a [u8]) -> &'a [u8] {
        datagram.get(self.header_len..self.total_len).unwrap_or_default()
    }
}

/// Why bytes are not an IPv4 datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ipv4Error {
    /// Fewer bytes than a header, or than the total length says.
    Truncated,
    /// The version is not 4.
    BadVersion,
    /// The header length is below 20 bytes, or above the total length.
    BadLength,
    /// The header checksum is wrong.
    BadChecksum,
}

/// Parses and validates the header at the front of `datagram`, which may be padded behind its end.
///
/// The header checksum is verified unless the device has found it good. The device's "bad" does not
/// say which checksum it means, and Linux does not rely on it either, so it counts as unknown.
///
/// # Errors
/// See [`Ipv4Error`]; the checks are made in RFC 1122 §3.2.1's and Linux's order.
pub fn parse(datagram: &[u8], checksum: Checksum) -> Result<Ipv4, Ipv4Error> {
    let header = datagram.first_chunk::<HEADER_LEN>().ok_or(Ipv4Error::Truncated)?;
    let [vihl, tos, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *header;
    if vihl >> 4 != 4 {
        return Err(Ipv4Error::BadVersion);
    }
    let header_len = usize::from(vihl & 0x0f) * 4;
    if header_len < HEADER_LEN {
        return Err(Ipv4Error::BadLength);
    }
    let with_options = datagram.get(..header_len).ok_or(Ipv4Error::Truncated)?;
    if checksum != Checksum::Good && !Sum::new().plus(with_options).is_valid() {
        return Err(Ipv4Error::BadChecksum);
    }
    let total_len = usize::from(u16::from_be_bytes([l0, l1]));
    if total_len > datagram.len() {
        return Err(Ipv4Error::Truncated);
    }
    if total_len < header_len {
        return Err(Ipv4Error::BadLength);
    }
    Ok(Ipv4 {
        src: Ipv4Addr::new(s0, s1, s2, s3),
        dst: Ipv4Addr::new(d0, d1, d2, d3),
        protocol,
        header_len,
        total_len,
        tos,
        ttl,
        fragment: is_fragment([f0, f1]),
    })
}

/// Verifies the checksum of the header at the front of `datagram`, and that there is one.
///
/// # Errors
/// As of [`parse`].
pub fn verify_header(datagram: &[u8]) -> Result<(), Ipv4Error> {
    let first = datagram.first().ok_or(Ipv4Error::Truncated)?;
    let header_len = usize::from(first & 0x0f) * 4;
    let header = datagram.get(..header_len).ok_or(Ipv4Error::Truncated)?;
    if header_len < HEADER_LEN {
        return Err(Ipv4Error::BadLength);
    }
    if Sum::new().plus(header).is_valid() { Ok(()) } else { Err(Ipv4Error::BadChecksum) }
}

/// Writes the checksum of a header that is as long as `header`.
///
/// # Panics
/// If that is shorter than 20 bytes.
pub fn write_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let field = Sum::new().plus(header).field();
    header[10..12].copy_from_slice(&field);
}

/// Bytes that the header at the front of `datagram` says the datagram has.
pub fn total_len(datagram: &[u8]) -> Option<usize> {
    let [_, _, l0, l1, ..] = *datagram else { return None };
    Some(usize::from(u16::from_be_bytes([l0, l1])))
}

/// Writes the total length into the header at the front of `datagram`, whose checksum is wrong then.
///
/// # Panics
/// If it is shorter than four bytes, or `len` does not fit 16 bits.
pub fn set_total_len(datagram: &mut [u8], len: usize) {
    let len = u16::try_from(len).expect("a datagram's length fits 16 bits");
    datagram[2..4].copy_from_slice(&len.to_be_bytes());
}

/// Writes a header without options, with its checksum, into the front of `buf`; returns its length.
///
/// Don't-Fragment is set, so the identification may be constant (RFC 6864 §4.1); it is 0.
///
/// # Panics
/// If `buf` is shorter than 20 bytes, or `payload_len` is more than a datagram holds.
pub fn emit(
    buf: &mut [u8],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    tos: u8,
    payload_len: usize,
) -> usize {
    let total_len = u16::try_from(HEADER_LEN + payload_len).expect("payload fits a datagram");
    let header: &mut [u8; HEADER_LEN] = buf.first_chunk_mut().expect("room for a header");
    let mut words = Writer::new(header);
    words.words([
        0x4500_0000 | u32::from(tos) << 16 | u32::from(total_len),
        DONT_FRAGMENT,
        u32::from(TTL) << 24 | u32::from(protocol) << 16,
        src.to_bits(),
        dst.to_bits(),
    ]);
    let field = words.sum().field();
    header[10..12].copy_from_slice(&field);
    HEADER_LEN
}

/// Whether no host may send from `addr` to another host: multicast, limited broadcast, "this
/// network" (0/8) or loopback (RFC 1122 §3.2.1.3, RFC 9293 §3.9.2.3). A segment from there is dropped
/// silently.
///
/// Broadcast addresses of a subnet are known only with its prefix: [`is_subnet_broadcast`].
pub const fn is_martian_source(addr: Ipv4Addr) -> bool {
    let [first, ..] = addr.octets();
    first == 0 || addr.is_multicast() || addr.is_broadcast() || addr.is_loopback()
}

/// Whether `addr` is a group or all hosts: a SYN sent there is dropped silently (RFC 9293 §3.9.2.3).
pub const fn is_multicast_or_broadcast(addr: Ipv4Addr) -> bool {
    addr.is_multicast() || addr.is_broadcast()
}

/// Whether `addr` is the broadcast address, or the network's own address as 4.2BSD used it, of the
/// subnet in which `local` has a prefix of `prefix_len` bits. A /31 or /32 has none (RFC 3021).
pub const fn is_subnet_broadcast(addr: Ipv4Addr, local: Ipv4Addr, prefix_len: u8) -> bool {
    if prefix_len > 30 {
        return false;
    }
    let host_mask = u32::MAX >> prefix_len;
    let (addr, local) = (addr.to_bits(), local.to_bits());
    let host = addr & host_mask;
    addr & !host_mask == local & !host_mask && (host == 0 || host == host_mask)
}

/// Whether the flags and the offset, as they stand in the header, are those of a fragment.
#[inline]
pub(super) const fn is_fragment(flags_and_offset: [u8; 2]) -> bool {
    u16::from_be_bytes(flags_and_offset) & FRAGMENT_MASK != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::FourTuple;
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn datagram(payload_len: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN + payload_len];
        emit(&mut bytes, A, B, TCP, 0, payload_len);
        bytes
    }

    /// Changes bytes of the header and makes its checksum right again.
    fn changed(mut bytes: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
        change(&mut bytes);
        let header_len = usize::from(bytes[0] & 0x0f) * 4;
        bytes[10..12].fill(0);
        let field = Sum::new().plus(&bytes[..header_len]).field();
        bytes[10..12].copy_from_slice(&field);
        bytes
    }

    #[test]
    fn padding_behind_the_total_length_is_cut() {
        let mut bytes = datagram(20);
        bytes.extend([0xaa; 6]);
        let ip = parse(&bytes, Checksum::Unknown).unwrap();
        assert_eq!((ip.header_len, ip.total_len, ip.payload(&bytes).len()), (20, 40, 20));
    }

    #[test]
    fn options_are_skipped() {
        let bytes = changed(datagram(8), |bytes| bytes[0] = 0x47);
        let ip = parse(&bytes, Checksum::Unknown).unwrap();
        assert_eq!((ip.header_len, ip.total_len, ip.payload(&bytes).len()), (28, 28, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |bytes: &[u8]| parse(bytes, Checksum::Unknown).unwrap_err();
        assert_eq!(error(&datagram(0)[..19]), Ipv4Error::Truncated);
        assert_eq!(error(&datagram(9)[..28]), Ipv4Error::Truncated);
        assert_eq!(error(&changed(datagram(0), |bytes| bytes[0] = 0x65)), Ipv4Error::BadVersion);
        assert_eq!(error(&changed(datagram(0), |bytes| bytes[0] = 0x44)), Ipv4Error::BadLength);
        assert_eq!(error(&changed(datagram(0), |bytes| bytes[3] = 19)), Ipv4Error::BadLength);
        let mut longer = datagram(0);
        longer[0] = 0x46;
        assert_eq!(error(&longer), Ipv4Error::Truncated);
        let mut flipped = datagram(0);
        flipped[8] ^= 1;
        assert_eq!(error(&flipped), Ipv4Error::BadChecksum);
    }

    #[test]
    fn only_a_device_that_found_it_good_spares_the_checksum() {
        let mut flipped = datagram(0);
        flipped[8] ^= 1;
        assert!(parse(&flipped, Checksum::Good).is_ok());
        assert_eq!(parse(&flipped, Checksum::Bad), Err(Ipv4Error::BadChecksum));
        assert!(parse(&datagram(0), Checksum::Bad).is_ok());
    }

    #[test]
    fn fragments_are_recognised() {
        for (field, fragment) in [
            ([0x00, 0x00], false),
            ([0x40, 0x00], false),
            ([0x80, 0x00], false),
            ([0x20, 0x00], true),
            ([0x00, 0x01], true),
            ([0x1f, 0xff], true),
        ] {
            let bytes = changed(datagram(8), |bytes| bytes[6..8].copy_from_slice(&field));
            assert_eq!(parse(&bytes, Checksum::Unknown).unwrap().fragment, fragment, "{field:?}");
        }
    }

    #[test]
    fn ecn_and_ttl_are_shown() {
        let bytes = changed(datagram(0), |bytes| (bytes[1], bytes[8]) = (0xbb, 7));
        let ip = parse(&bytes, Checksum::Unknown).unwrap();
        assert_eq!((ip.tos, ip.ecn(), ip.ttl), (0xbb, 3, 7));
    }

    #[test]
    fn sources_that_cannot_be() {
        for addr in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255"]
        {
            assert!(is_martian_source(addr.parse().unwrap()), "{addr}");
        }
        for addr in ["10.0.0.1", "192.168.255.255", "1.1.1.1", "223.255.255.255", "240.0.0.1"] {
            assert!(!is_martian_source(addr.parse().unwrap()), "{addr}");
        }
    }

    #[test]
    fn broadcast_addresses_of_a_subnet() {
        let is = |addr: [u8; 4], len| is_subnet_broadcast(addr.into(), A, len);
        assert!(is([10, 0, 0, 255], 24) && is([10, 0, 0, 0], 24) && is([10, 255, 255, 255], 8));
        assert!(!is([10, 0, 0, 2], 24) && !is([10, 0, 1, 255], 24) && !is([10, 0, 0, 255], 8));
        assert!(!is([10, 0, 0, 0], 31) && !is([10, 0, 0, 1], 32) && !is([10, 0, 0, 1], 255));
        assert!(is([10, 0, 0, 3], 30) && is([255, 255, 255, 255], 0));
    }

    #[test]
    fn land_is_the_same_end_twice() {
        let land = FourTuple {
            local_addr: A.into(),
            remote_addr: A.into(),
            local_port: 7,
            remote_port: 7,
        };
        assert!(land.is_land());
        assert!(!FourTuple { remote_port: 8, ..land }.is_land());
        assert!(!FourTuple { remote_addr: B.into(), ..land }.is_land());
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            ends in any::<(u32, u32)>(),
            protocol in any::<u8>(),
            tos in any::<u8>(),
            payload_len in 0_usize..100,
        ) {
            let (src, dst) = (Ipv4Addr::from(ends.0), Ipv4Addr::from(ends.1));
            let mut bytes = vec![0xaa; HEADER_LEN + payload_len];
            let header_len = emit(&mut bytes, src, dst, protocol, tos, payload_len);
            let total_len = bytes.len();
            let expected =
                Ipv4 { src, dst, protocol, header_len, total_len, tos, ttl: 64, fragment: false };
            prop_assert_eq!(parse(&bytes, Checksum::Unknown), Ok(expected));
            // One identification for all: what may not be fragmented needs none (RFC 6864 §4.1).
            prop_assert_eq!(&bytes[4..8], [0, 0, 0x40, 0]);
        }

        #[test]
        fn what_parses_is_in_bounds(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(first) = bytes.first_mut() {
                *first = 0x40 | *first & 0x0f;
            }
            if let Some([high, low]) = bytes.get_mut(2..4) {
                (*high, *low) = (0, *low & 0x7f);
            }
            if let Ok(ip) = parse(&bytes, Checksum::Good) {
                prop_assert!(20 <= ip.header_len && ip.header_len <= ip.total_len);
                prop_assert_eq!(ip.payload(&bytes).len(), ip.total_len - ip.header_len);
            }
        }
    }
}
