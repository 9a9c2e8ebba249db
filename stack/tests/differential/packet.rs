//! Packets as bytes: those that the peer sends, however odd, and those that come back.
//!
//! Written apart from the library's own parser and writer, which are on trial here.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

pub const FIN: u16 = 0x01;
pub const SYN: u16 = 0x02;
pub const RST: u16 = 0x04;
pub const PSH: u16 = 0x08;
pub const ACK: u16 = 0x10;
pub const URG: u16 = 0x20;
pub const ECE: u16 = 0x40;
pub const CWR: u16 = 0x80;

/// What the header's four reserved bits look like above the flags.
pub const RESERVED: u16 = 0xf00;

/// A segment to be sent.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    /// With the reserved bits.
    pub flags: u16,
    pub window: u16,
    pub urgent: u16,
    /// At most 40 bytes; padded with zeros.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// Of the IP header, with the ECN field.
    pub tos: u8,
    /// The checksum is wrong.
    pub corrupt: bool,
}

impl Segment {
    /// The IPv4 packet.
    pub fn packet(&self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let header = 20 + self.options.len().next_multiple_of(4);
        let total = 20 + header + self.payload.len();
        let mut packet = vec![0; total];
        packet[0] = 0x45;
        packet[1] = self.tos;
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        packet[6] = 0x40; // not to be fragmented
        packet[8] = 64;
        packet[9] = 6;
        packet[12..16].copy_from_slice(&from.ip().octets());
        packet[16..20].copy_from_slice(&to.ip().octets());
        let sum = !sum(0, &packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());

        let tcp = &mut packet[20..];
        tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        let offset = (header as u16 / 4) << 12;
        tcp[12..14].copy_from_slice(&(offset | self.flags).to_be_bytes());
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        tcp[20..20 + self.options.len()].copy_from_slice(&self.options);
        tcp[header..].copy_from_slice(&self.payload);
        let sum = !tcp_sum(*from.ip(), *to.ip(), tcp) ^ u16::from(self.corrupt);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// A segment that came back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    pub seq: u32,
    pub ack: u32,
    pub flags: u16,
    pub window: u16,
    pub urgent: u16,
    pub tos: u8,
    pub payload: usize,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub ts: Option<(u32, u32)>,
    pub sack: Vec<(u32, u32)>,
    /// Kinds of other options.
    pub others: Vec<u8>,
}

impl Answer {
    /// Reads an IPv4 packet that goes to `port`; `None` if it is something else.
    pub fn parse(packet: &[u8], port: u16) -> Option<Self> {
        if packet.len() < 40 || packet[0] != 0x45 || packet[9] != 6 {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let tcp = packet.get(20..total)?;
        if word(tcp, 2) != port {
            return None;
        }
        let addr =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        assert_eq!(sum(0, &packet[..20]), 0xffff, "IP checksum of an answer: {packet:02x?}");
        assert_eq!(
            tcp_sum(addr(12), addr(16), tcp),
            0xffff,
            "checksum of an answer: {packet:02x?}"
        );
        let header = usize::from(tcp[12] >> 4) * 4;
        let mut answer = Self {
            seq: long(tcp, 4),
            ack: long(tcp, 8),
            flags: word(tcp, 12) & 0xfff,
            window: word(tcp, 14),
            urgent: word(tcp, 18),
            tos: packet[1],
            payload: tcp.len() - header,
            ..Self::default()
        };
        answer.read_options(&tcp[20..header]);
        Some(answer)
    }

    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    fn read_options(&mut self, mut options: &[u8]) {
        while let Some(&kind) = options.first() {
            match kind {
                0 => return,
                1 => {
                    options = &options[1..];
                    continue;
                }
                _ => {}
            }
            let len = usize::from(options[1]);
            let (option, rest) = options.split_at(len);
            match (kind, len) {
                (2, 4) => self.mss = Some(word(option, 2)),
                (3, 3) => self.scale = Some(option[2]),
                (4, 2) => self.sack_permitted = true,
                (5, _) => {
                    let blocks = option[2..].chunks_exact(8);
                    self.sack = blocks.map(|block| (long(block, 0), long(block, 4))).collect();
                }
                (8, 10) => self.ts = Some((long(option, 2), long(option, 6))),
                _ => self.others.push(kind),
            }
            options = rest;
        }
    }
}

/// The names of flags, as tcpdump would have them.
pub struct Flags(pub u16);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (SYN, 'S'),
            (FIN, 'F'),
            (RST, 'R'),
            (PSH, 'P'),
            (URG, 'U'),
            (ECE, 'E'),
            (CWR, 'W'),
            (ACK, '.'),
        ];
        for (flag, name) in names {
            if self.0 & flag != 0 {
                write!(f, "{name}")?;
            }
        }
        match self.0 >> 8 {
            0 if self.0 == 0 => write!(f, "-"),
            0 => Ok(()),
            reserved => write!(f, "+{reserved:x}"),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn tcp_sum(from: Ipv4Addr, to: Ipv4Addr, tcp: &[u8]) -> u16 {
    let mut start = u32::from(sum(0, &from.octets())) + u32::from(sum(0, &to.octets()));
    start += 6 + tcp.len() as u32;
    sum(start, tcp)
}

/// The ones' complement sum of 16-bit words.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
