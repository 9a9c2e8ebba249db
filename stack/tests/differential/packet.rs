//! Packets as bytes: those that the peer sends, however odd, and those that come back.
//!
//! Written apart from the library's own parser and writer, which are on trial here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const FIN: u16 = 0x01;
pub const SYN: u16 = 0x02;
pub const RST: u16 = 0x04;
pub const PSH: u16 = 0x08;
pub const ACK: u16 = 0x10;
pub const URG: u16 = 0x20;
pub const ECE: u16 = 0x40;
pub const CWR: u16 = 0x80;

/// The protocol's number in IP headers.
const TCP: u8 = 6;

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
    /// The IP packet, of the addresses' family.
    pub fn packet(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let header = 20 + self.options.len().next_multiple_of(4);
        let mut packet = ip_header(from.ip(), to.ip(), self.tos, header + self.payload.len());
        let tcp = packet.len();
        packet.resize(tcp + header + self.payload.len(), 0);
        let tcp = &mut packet[tcp..];
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
        let sum = !tcp_sum(from.ip(), to.ip(), tcp) ^ u16::from(self.corrupt);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// The header in front of so many bytes of TCP.
fn ip_header(from: IpAddr, to: IpAddr, tos: u8, len: usize) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0; 20];
            header[0] = 0x45;
            header[1] = tos;
            header[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
            header[6] = 0x40; // not to be fragmented
            header[8] = 64;
            header[9] = TCP;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = !sum(0, &header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0; 40];
            header[..4].copy_from_slice(&(0x6000_0000 | u32::from(tos) << 20).to_be_bytes());
            header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            header[6] = TCP;
            header[7] = 64;
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
            header
        }
        _ => panic!("addresses of two families"),
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
    /// Reads a packet that goes to `port`; `None` if it is something else.
    pub fn parse(packet: &[u8], port: u16) -> Option<Self> {
        let Ip { from, to, tos, tcp } = Ip::parse(packet)?;
        if word(tcp, 2) != port {
            return None;
        }
        assert_eq!(tcp_sum(from, to, tcp), 0xffff, "checksum of an answer: {packet:02x?}");
        let header = usize::from(tcp[12] >> 4) * 4;
        let mut answer = Self {
            seq: long(tcp, 4),
            ack: long(tcp, 8),
            flags: word(tcp, 12) & 0xfff,
            window: word(tcp, 14),
            urgent: word(tcp, 18),
            tos,
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

/// What matters of an IP packet with TCP in it.
struct Ip<'a> {
    from: IpAddr,
    to: IpAddr,
    tos: u8,
    tcp: &'a [u8],
}

impl<'a> Ip<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 if packet.len() >= 40 && packet[0] == 0x45 && packet[9] == TCP => {
                assert_eq!(sum(0, &packet[..20]), 0xffff, "checksum of IP: {packet:02x?}");
                let addr = |at: usize| {
                    let octets: [u8; 4] = packet[at..at + 4].try_into().expect("four bytes");
                    Ipv4Addr::from(octets).into()
                };
                let tcp = packet.get(20..word(packet, 2).into())?;
                Some(Self { from: addr(12), to: addr(16), tos: packet[1], tcp })
            }
            6 if packet.len() >= 60 && packet[6] == TCP => {
                let addr = |at: usize| {
                    let octets: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen bytes");
                    Ipv6Addr::from(octets).into()
                };
                let tcp = packet.get(40..40 + usize::from(word(packet, 4)))?;
                let tos = (word(packet, 0) >> 4) as u8;
                Some(Self { from: addr(8), to: addr(24), tos, tcp })
            }
            _ => None,
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

fn tcp_sum(from: IpAddr, to: IpAddr, tcp: &[u8]) -> u16 {
    let of = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u32::from(sum(0, &addr.octets())),
        IpAddr::V6(addr) => u32::from(sum(0, &addr.octets())),
    };
    sum(of(from) + of(to) + u32::from(TCP) + tcp.len() as u32, tcp)
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
