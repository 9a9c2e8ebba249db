//! Header bytes and nothing else: views, parsing, validation, emission. No state, no clock.
//!
//! A frame is parsed once into small `Copy` structs. What parsed is in bounds: no accessor panics.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod fragment;
pub mod frame;
pub mod frame6;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod layers;
pub mod mld;
mod options;
#[cfg(test)]
mod oracle;
mod sack_blocks;
#[cfg(test)]
mod samples;
pub mod tcp;
pub mod words;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;

pub use ethernet::MacAddr;
pub use frame::parse_tcp;
pub use sack_blocks::SackBlocks;

/// The version of IP: of an address, of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address. One of IPv6 that stands for one of IPv4 is of IPv6.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The two ends of a connection as this host sees them, in host byte order.
///
/// Both addresses are of one family.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FourTuple {
    /// Our address.
    pub local_addr: IpAddr,
    /// The peer's address.
    pub remote_addr: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl FourTuple {
    /// The version of IP that the connection goes by.
    pub const fn family(&self) -> Family {
        Family::of(self.remote_addr)
    }

    /// Our end.
    pub const fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local_addr, self.local_port)
    }

    /// The peer's end.
    pub const fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_addr, self.remote_port)
    }

    /// Whether a segment claims to come from the very end it is sent to (the "land" attack).
    pub fn is_land(&self) -> bool {
        self.local() == self.remote()
    }
}

/// The control bits of a TCP header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// Whether every bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A timestamps option (RFC 7323).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub val: u32,
    /// TSecr: the echo of ours.
    pub ecr: u32,
}

/// What the TCP header of one received segment says, parsed and validated once.
///
/// Timestamps are the one option that matters outside of a SYN to a receiver; they are recorded if
/// present, whether or not the connection negotiated them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Sequence number of the first octet (SYN included).
    pub seq: u32,
    /// Acknowledgement number; meaningful with ACK.
    pub ack: u32,
    /// Payload bytes, from the IP total length (SYN and FIN not counted).
    pub len: u32,
    /// Window field as it stands in the header, unscaled.
    pub window: u16,
    /// Urgent pointer; meaningful with URG.
    pub urgent: u16,
    /// Control bits.
    pub flags: Flags,
    /// The ECN field of the IP header (0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE).
    pub ecn: u8,
    /// Timestamps option.
    pub ts: Option<Timestamps>,
}

impl Segment {
    /// Sequence number behind the segment: payload, SYN and FIN counted (modulo 2^32).
    pub const fn end_seq(&self) -> u32 {
        let syn_fin = self.flags.has(Flags::SYN) as u32 + self.flags.has(Flags::FIN) as u32;
        self.seq.wrapping_add(self.len).wrapping_add(syn_fin)
    }
}

/// The options of a received SYN (or SYN-ACK) besides timestamps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SynOptions {
    /// Maximum segment size; 0 is reported as absent.
    pub mss: Option<u16>,
    /// Window scale, as sent (may exceed 14).
    pub window_scale: Option<u8>,
    /// SACK-permitted.
    pub sack_permitted: bool,
}

/// A segment to be sent: what [`tcp::emit`] needs beyond addresses and ports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outgoing {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; written only with ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window field as it goes into the header (already shifted).
    pub window: u16,
    /// MSS option (SYN only).
    pub mss: Option<u16>,
    /// Window-scale option (SYN only).
    pub window_scale: Option<u8>,
    /// SACK-permitted option (SYN only).
    pub sack_permitted: bool,
    /// Timestamps option.
    pub ts: Option<Timestamps>,
    /// SACK option; empty for none.
    pub sack: SackBlocks,
    /// Diffserv field of the IP header, in the upper six bits; what we send is not ECN-capable. For whoever
    /// sends: [`tcp::emit`] is told.
    pub tos: u8,
    /// Time to live or hop limit, unless it is the stack's. For whoever sends, too: [`tcp::set_ttl`].
    pub ttl: Option<NonZeroU8>,
}
