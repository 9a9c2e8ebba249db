//! IPv6 headers (RFC 8200): the few fields a TCP receiver needs, and emission.
//!
//! Called by every emitter on lcores. There is no checksum in the header; that of the payload covers
//! the addresses.

use std::net::{IpAddr, Ipv6Addr};

use super::MacAddr;

/// Bytes of a header without extension headers.
pub const HEADER_LEN: usize = 40;

/// Hop limit of what is sent: Linux's default.
const HOP_LIMIT: u8 = 64;

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
    let payload_len = u16::try_from(payload_len).expect("payload fits a datagram");
    let header = &mut buf[..HEADER_LEN];
    header[0..4].copy_from_slice(&(0x6000_0000 | u32::from(class) << 20).to_be_bytes());
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6..8].copy_from_slice(&[next_header, HOP_LIMIT]);
    header[8..24].copy_from_slice(&src.octets());
    header[24..40].copy_from_slice(&dst.octets());
    HEADER_LEN
}

/// Whether a host can have this address: not unspecified, loopback, a group's, or one that stands
/// for an IPv4 address.
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

/// The address of an interface on its link that is made of its Ethernet address (RFC 4291 App. A).
pub const fn link_local(MacAddr([a, b, c, d, e, f]): MacAddr) -> Ipv6Addr {
    let pair = u16::from_be_bytes;
    let interface = [pair([a ^ 2, b]), pair([c, 0xff]), pair([0xfe, d]), pair([e, f])];
    Ipv6Addr::new(0xfe80, 0, 0, 0, interface[0], interface[1], interface[2], interface[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_stands_between_version_and_flow_label() {
        let mut header = [0xaa; HEADER_LEN];
        emit(&mut header, Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, 6, 0xb9, 0x1234);
        assert_eq!(header[..8], [0x6b, 0x90, 0, 0, 0x12, 0x34, 6, 64]);
        assert_eq!((header[23], header[39]), (1, 0));
    }

    #[test]
    fn a_link_local_address_has_the_universal_bit_flipped() {
        let addr = link_local(MacAddr([0x00, 0x11, 0x22, 0x33, 0x44, 0x55]));
        assert_eq!(addr, "fe80::211:22ff:fe33:4455".parse::<Ipv6Addr>().unwrap());
    }
}
