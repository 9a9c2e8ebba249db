//! The sender at the other end: frames as it would send them, and a reading of what it is sent.
//!
//! Used by the stage and by the live run. Its numbers are those of the tables: the first byte is 1000.

use std::net::{IpAddr, Ipv4Addr};

use prequeue::watch::Span;
use prequeue::wire::arp::{self, Arp};
use prequeue::wire::frame::{MAX_CONTROL_LEN, TcpFrame};
use prequeue::wire::{Flags, FourTuple, MacAddr, Outgoing, ethernet, parse_tcp, tcp};

/// Ethernet addresses of the stack and of the peer.
pub const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// See [`OUR_MAC`].
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
/// The stack's address.
pub const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The peer's address.
pub const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
/// The port that the stack listens on.
pub const PORT: u16 = 7000;
/// The peer's port, on stage.
pub const PEER_PORT: u16 = 40_000;

/// Sequence number of the first byte.
pub const FIRST: u32 = 1000;

/// The connection as the stack sees it.
pub const TUPLE: FourTuple = FourTuple {
    local_addr: IpAddr::V4(OUR_ADDR),
    remote_addr: IpAddr::V4(PEER_ADDR),
    local_port: PORT,
    remote_port: PEER_PORT,
};

/// How the peer reaches the stack, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The stack's Ethernet address.
    pub mac: MacAddr,
    /// The peer's port.
    pub port: u16,
}

impl Link {
    /// The one on stage.
    pub const STAGE: Self = Self { mac: OUR_MAC, port: PEER_PORT };

    /// The question where the stack is, which tells it where the peer is.
    pub fn arp_request() -> Vec<u8> {
        let mut frame = vec![0; 60];
        let at = ethernet::emit(&mut frame, MacAddr::BROADCAST, PEER_MAC, None, ethernet::ARP);
        arp::emit(&mut frame[at..], &Arp::question(PEER_MAC, PEER_ADDR, OUR_ADDR));
        frame
    }
}

/// A segment of the peer.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    name: &'static str,
    seq: u32,
    len: u32,
    flags: Flags,
}

impl Arrival {
    /// Data, with a name by which the table calls it.
    pub const fn data(name: &'static str, seq: u32, end: u32) -> Self {
        Self { name, seq, len: end - seq, flags: Flags::ACK }
    }

    /// A FIN without data.
    pub const fn fin(seq: u32) -> Self {
        Self { name: "FIN", seq, len: 0, flags: Flags::ACK.with(Flags::FIN) }
    }

    /// The same segment with FIN.
    pub const fn and_fin(self) -> Self {
        Self { flags: self.flags.with(Flags::FIN), ..self }
    }

    /// A RST.
    pub const fn rst(seq: u32) -> Self {
        Self { name: "RST", seq, len: 0, flags: Flags::ACK.with(Flags::RST) }
    }

    /// An ACK without data.
    pub const fn ack(seq: u32) -> Self {
        Self { name: "ACK", seq, len: 0, flags: Flags::ACK }
    }

    /// What the tables call it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its name, and its place in the stream.
    pub const fn named_span(&self) -> (&'static str, Span) {
        let Self { name, seq, len, flags } = *self;
        (name, Span { seq, len, fin: flags.has(Flags::FIN) })
    }

    /// As `A[1000,1100)`, or the name alone if there is no data.
    pub fn text(&self) -> String {
        let Self { name, seq, len, flags } = *self;
        match (len, flags.has(Flags::FIN)) {
            (0, _) => format!("{name} {seq}"),
            (_, fin) => format!("{name}[{seq},{}){}", seq + len, if fin { "+FIN" } else { "" }),
        }
    }

    /// The frame, in a connection on which the stack is at `ack`.
    pub fn frame(&self, link: &Link, ack: u32) -> Vec<u8> {
        let Self { seq, len, flags, .. } = *self;
        let payload: Vec<u8> = (seq..seq + len).map(byte_at).collect();
        let out = Outgoing { seq, ack, flags, window: 1000, ..Outgoing::default() };
        frame(link, &out, &payload)
    }
}

/// The byte that the peer sends under this number.
pub const fn byte_at(seq: u32) -> u8 {
    (seq % 251) as u8
}

/// The SYN that opens the connection.
pub fn syn(link: &Link) -> Vec<u8> {
    let out = Outgoing {
        seq: FIRST - 1,
        flags: Flags::SYN,
        window: 65_535,
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        ..Outgoing::default()
    };
    frame(link, &out, &[])
}

fn frame(link: &Link, out: &Outgoing, payload: &[u8]) -> Vec<u8> {
    let FourTuple { local_addr, remote_addr, local_port, .. } = TUPLE;
    let theirs = FourTuple {
        local_addr: remote_addr,
        remote_addr: local_addr,
        local_port: link.port,
        remote_port: local_port,
    };
    let mut frame = vec![0; MAX_CONTROL_LEN + payload.len()];
    let at = ethernet::emit(&mut frame, link.mac, PEER_MAC, None, ethernet::IPV4);
    let len = tcp::emit(&mut frame[at..], &theirs, out, 0, payload);
    frame.truncate(at + len);
    // As a device would: no frame is shorter than 60 bytes.
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A segment that the stack has sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The peer's port.
    pub port: u16,
    /// Its sequence number.
    pub seq: u32,
    /// Its control bits.
    pub flags: Flags,
    /// What it acknowledges.
    pub ack: u32,
    /// Ranges that it reports.
    pub sack: Vec<(u32, u32)>,
}

impl Sent {
    /// Reads a frame of the stack; nothing if it is no segment.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let TcpFrame { tuple, segment, header, payload, .. } =
            parse_tcp(frame, Default::default()).ok()?;
        let options = tcp::sack_blocks(&frame[usize::from(header)..usize::from(payload)]);
        let sack = options.to_vec();
        // Seen from whoever receives it.
        let port = tuple.local_port;
        Some(Self { port, seq: segment.seq, flags: segment.flags, ack: segment.ack, sack })
    }

    /// As `ACK 1100 SACK 1250-1450`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let names = [(Flags::SYN, "SYN "), (Flags::FIN, "FIN "), (Flags::RST, "RST ")];
        names.iter().filter(|(flag, _)| self.flags.has(*flag)).for_each(|(_, s)| text += s);
        if self.flags.has(Flags::ACK) {
            text += &format!("ACK {}", self.ack);
        }
        for (at, (start, end)) in self.sack.iter().enumerate() {
            text += if at == 0 { " SACK " } else { " " };
            text += &Span { seq: *start, len: end - start, fin: false }.to_string();
        }
        text.trim_end().to_owned()
    }
}
