//! Socket addresses as C lays them out, and the ends of packets.
//!
//! Used by the C functions, and by the world for what comes from the network. An address of IPv4 that a
//! socket of AF_INET6 has in its mapped form is one of IPv4 everywhere else.

use std::ffi::c_int;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::socket::Domain;

/// Bytes of the fixed header of IPv6.
const IPV6_HEADER: usize = 40;

/// Protocol number of TCP.
const TCP: u8 = 6;

/// What is said in the head of a packet, as far as it matters before the stack has seen it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Where it goes; port 0 if it is not TCP.
    pub to: SocketAddr,
    /// Bytes of payload behind the header of TCP.
    pub payload: usize,
}

impl Head {
    /// Reads a packet of either family, without extension headers: packetdrill writes none.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let (at, protocol, to) = match packet.first()? >> 4 {
            4 => {
                let to = Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?);
                (usize::from(packet[0] & 0xf) * 4, packet[9], IpAddr::V4(to))
            }
            6 => {
                let to = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
                (IPV6_HEADER, packet[6], IpAddr::V6(to))
            }
            _ => return None,
        };
        let head = Self { to: SocketAddr::new(to, 0), payload: 0 };
        let Some(tcp) = packet.get(at..).filter(|_| protocol == TCP) else { return Some(head) };
        let Some(&[_, _, high, low, .., offset]) = tcp.first_chunk::<13>() else {
            return Some(head);
        };
        let payload = tcp.len().saturating_sub(usize::from(offset >> 4) * 4);
        let to = SocketAddr::new(to, u16::from_be_bytes([high, low]));
        Some(Self { to, payload })
    }
}

/// The address in a `struct sockaddr_in` or a `struct sockaddr_in6`, in its own family.
pub fn parse_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let addr = match c_int::from(family) {
        libc::AF_INET => IpAddr::V4((*bytes.get(4..)?.first_chunk::<4>()?).into()),
        libc::AF_INET6 => IpAddr::V6((*bytes.get(8..)?.first_chunk::<16>()?).into()).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(addr, port))
}

/// The bytes of the structure that [`parse_addr`] reads, as a socket of this domain is told. One of
/// AF_INET has no peers of IPv6.
pub fn emit_addr(addr: SocketAddr, domain: Domain) -> Vec<u8> {
    let mut bytes = Vec::new();
    let family = if domain == Domain::V4 { libc::AF_INET } else { libc::AF_INET6 };
    bytes.extend((family as u16).to_ne_bytes());
    bytes.extend(addr.port().to_be_bytes());
    let in6 = |addr: Ipv6Addr| {
        // Flow information before the address, the scope behind it.
        let mut rest = [0; mem::size_of::<libc::sockaddr_in6>() - 4];
        rest[4..20].copy_from_slice(&addr.octets());
        rest.to_vec()
    };
    match (domain, addr.ip()) {
        (Domain::V4, IpAddr::V4(addr)) => {
            bytes.extend(addr.octets());
            bytes.resize(mem::size_of::<libc::sockaddr_in>(), 0);
        }
        (Domain::V6, IpAddr::V4(addr)) => bytes.extend(in6(addr.to_ipv6_mapped())),
        (_, IpAddr::V6(addr)) => bytes.extend(in6(addr)),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (peer, domain, len) in [
            ("192.0.2.1:8080", Domain::V4, 16),
            ("192.0.2.1:8080", Domain::V6, 28),
            ("[fd3d::1]:8080", Domain::V6, 28),
        ] {
            let bytes = emit_addr(addr(peer), domain);
            assert_eq!((bytes.len(), parse_addr(&bytes)), (len, Some(addr(peer))));
            assert_eq!(parse_addr(&bytes[..7]), None);
        }
        let mapped = emit_addr(addr("192.0.2.1:1"), Domain::V6);
        assert_eq!(mapped[8..], [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &[0; 4]].concat());
    }

    #[test]
    fn heads_of_both_families_are_read() {
        let tcp = [&[9, 9, 31, 144, 0, 0, 0, 0, 0, 0, 0, 0, 0x80][..], &[0; 20]].concat();
        let mut v4 = [0; 20];
        (v4[0], v4[9]) = (0x45, TCP);
        v4[16..].copy_from_slice(&[192, 168, 0, 1]);
        let mut v6 = [0; 40];
        (v6[0], v6[6], v6[24], v6[39]) = (0x60, TCP, 0xfd, 7);
        for (header, ours) in [(&v4[..], "192.168.0.1:8080"), (&v6, "[fd00::7]:8080")] {
            let head = Head::of(&[header, &tcp].concat());
            assert_eq!(head, Some(Head { to: addr(ours), payload: 1 }));
            let none = Head { to: SocketAddr::new(addr(ours).ip(), 0), payload: 0 };
            assert_eq!(Head::of(header), Some(none));
        }
        for short in [&[][..], &[0x45; 19], &[0x60; 39]] {
            assert_eq!(Head::of(short), None);
        }
    }
}
