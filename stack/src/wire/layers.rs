//! Any frame with a TCP segment, of either version of IP, layer by layer.
//!
//! Called by the one-pass parsers for every frame that has not the usual shape, and for every one in
//! which something is wrong: it names the reason. Tests and fuzzers hold the one pass against it. It
//! never looks at state.

use std::net::IpAddr;

use super::ethernet::{self, Ethernet};
use super::frame::{Reject, TcpFrame};
use super::tcp::{self, TcpError, TcpView};
use super::{FourTuple, ipv4, ipv6};
use crate::buf::Checksum;

/// Parses a frame; `checksum` is the device's word on it.
///
/// # Errors
/// See [`Reject`].
#[cold]
#[inline(never)]
pub fn parse(frame: &[u8], checksum: Checksum) -> Result<TcpFrame, Reject> {
    let ethernet = ethernet::parse(frame).ok_or(Reject::NotTcp)?;
    let datagram = frame.get(ethernet.header_len..).unwrap_or_default();
    match ethernet.ethertype {
        ethernet::IPV4 => {
            let ip = ipv4::parse(datagram, checksum).map_err(Reject::Ip)?;
            if ip.protocol != ipv4::TCP {
                return Err(Reject::NotTcp);
            }
            if ip.fragment {
                return Err(Reject::Fragment);
            }
            let tcp = tcp::parse(&ip, ip.payload(datagram), checksum);
            let ipv4::Ipv4 { src, dst, header_len, tos, ttl, .. } = ip;
            put_together(
                &ethernet,
                Ip { src: src.into(), dst: dst.into(), header_len, tos, ttl },
                tcp,
            )
        }
        ethernet::IPV6 => {
            let ip = ipv6::parse(datagram).map_err(Reject::Ip6)?;
            // A fragment of whatever it may be: what its parts would come to is not known.
            if ip.fragment {
                return Err(Reject::Fragment);
            }
            if ip.protocol != ipv4::TCP {
                return Err(Reject::NotTcp);
            }
            let tcp = tcp::parse(&ip, ip.payload(datagram), checksum);
            let ipv6::Ipv6 { src, dst, header_len, tos, hop_limit: ttl, .. } = ip;
            put_together(
                &ethernet,
                Ip { src: src.into(), dst: dst.into(), header_len, tos, ttl },
                tcp,
            )
        }
        _ => Err(Reject::NotTcp),
    }
}

/// What both versions of IP say.
struct Ip {
    src: IpAddr,
    dst: IpAddr,
    header_len: usize,
    tos: u8,
    ttl: u8,
}

fn put_together(
    ethernet: &Ethernet,
    ip: Ip,
    tcp: Result<TcpView, TcpError>,
) -> Result<TcpFrame, Reject> {
    let Ip { src, dst, header_len, tos, ttl } = ip;
    let tcp = tcp.map_err(|error| Reject::Tcp { dst, error })?;
    let header = ethernet.header_len + header_len;
    Ok(TcpFrame {
        tuple: FourTuple {
            local_addr: dst,
            remote_addr: src,
            local_port: tcp.dst_port,
            remote_port: tcp.src_port,
        },
        segment: tcp.segment,
        // A datagram is of 64 KiB at most, and a header behind it within; their sum may be just more.
        header: u16::try_from(header).map_err(|_| Reject::NotTcp)?,
        payload: u16::try_from(header + tcp.header_len).map_err(|_| Reject::NotTcp)?,
        tos,
        ttl,
        vlan: ethernet.vlan,
    })
}
