//! Socket addresses as C lays them out.

use std::ffi::c_int;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use crate::socket::Family;

/// The address in a `struct sockaddr_in`, or mapped in a `struct sockaddr_in6`.
pub fn parse_addr(bytes: &[u8]) -> Option<SocketAddrV4> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let addr = match c_int::from(family) {
        libc::AF_INET => Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?),
        libc::AF_INET6 => {
            let addr = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
            if addr.is_unspecified() { Ipv4Addr::UNSPECIFIED } else { addr.to_ipv4_mapped()? }
        }
        _ => return None,
    };
    Some(SocketAddrV4::new(addr, port))
}

/// The bytes of the structure that [`parse_addr`] reads.
pub fn emit_addr(addr: SocketAddrV4, family: Family) -> Vec<u8> {
    let mut bytes = Vec::new();
    match family {
        Family::V4 => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(addr.port().to_be_bytes());
            bytes.extend(addr.ip().octets());
            bytes.resize(mem::size_of::<libc::sockaddr_in>(), 0);
        }
        Family::Mapped => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(addr.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(addr.ip().to_ipv6_mapped().octets());
            bytes.resize(mem::size_of::<libc::sockaddr_in6>(), 0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let addr = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8080);
        for family in [Family::V4, Family::Mapped] {
            let bytes = emit_addr(addr, family);
            assert_eq!(parse_addr(&bytes), Some(addr));
            assert_eq!(parse_addr(&bytes[..7]), None);
        }
    }
}
