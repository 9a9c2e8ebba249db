//! The client's side of a connection: the frames it would send.

use std::net::Ipv4Addr;

use prequeue::wire::arp::{self, Arp};
use prequeue::wire::ethernet::{self, MacAddr};
use prequeue::wire::{self, Flags, FourTuple, Outgoing};

use crate::workload::Piece;

/// Our hardware address.
pub const OUR_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 2]);
/// The client's hardware address.
pub const CLIENT_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 1]);
/// Our address, as written in a configuration.
pub const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The client's address.
pub const CLIENT_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The port that is listened on.
pub const PORT: u16 = 7000;

/// A client that opens one connection.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its port.
    pub port: u16,
    /// Its initial sequence number.
    pub isn: u32,
}

impl Client {
    /// One that has not been seen before, as far as chance goes.
    pub fn any() -> Self {
        Self { port: fastrand::u16(1024..), isn: fastrand::u32(..) }
    }

    /// Its question for our hardware address, from which a receiver learns the client's.
    pub fn who_has(&self) -> Vec<u8> {
        let mut frame = vec![0; 60];
        let at = ethernet::emit(&mut frame, MacAddr::BROADCAST, CLIENT_MAC, None, ethernet::ARP);
        arp::emit(&mut frame[at..], &Arp::question(CLIENT_MAC, CLIENT_ADDR, OUR_ADDR));
        frame
    }

    /// Its SYN: MSS 1460, SACK, window scale 7, no timestamps.
    pub fn syn(&self) -> Vec<u8> {
        let out = Outgoing {
            seq: self.isn,
            flags: Flags::SYN,
            window: 64_240,
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            ..Outgoing::default()
        };
        self.frame(&out, &[])
    }

    /// The final ACK of the handshake with a server whose ISS is `iss`.
    pub fn ack(&self, iss: u32) -> Vec<u8> {
        let out = Outgoing {
            seq: self.isn.wrapping_add(1),
            ack: iss.wrapping_add(1),
            flags: Flags::ACK,
            window: 502,
            ..Outgoing::default()
        };
        self.frame(&out, &[])
    }

    /// One piece of the stream.
    pub fn data(&self, iss: u32, piece: Piece, stream: &[u8]) -> Vec<u8> {
        self.segment(iss, piece.offset, piece.bytes(stream))
    }

    /// A segment with the payload that stands at `offset` in the stream.
    pub fn segment(&self, iss: u32, offset: u32, payload: &[u8]) -> Vec<u8> {
        let out = Outgoing {
            seq: self.isn.wrapping_add(1).wrapping_add(offset),
            ack: iss.wrapping_add(1),
            flags: Flags::ACK,
            window: 502,
            ..Outgoing::default()
        };
        self.frame(&out, payload)
    }

    /// The ISS in a SYN-ACK sent to this client; `None` if the frame is something else.
    pub fn iss_of(&self, frame: &[u8]) -> Option<u32> {
        let parsed = wire::frame::parse_tcp(frame, prequeue::buf::Checksum::Good).ok()?;
        let syn_ack = parsed.segment.flags.has(Flags::SYN.with(Flags::ACK))
            && parsed.tuple.local_port == self.port;
        syn_ack.then_some(parsed.segment.seq)
    }

    fn frame(&self, out: &Outgoing, payload: &[u8]) -> Vec<u8> {
        let tuple = FourTuple {
            local_addr: CLIENT_ADDR.into(),
            remote_addr: OUR_ADDR.into(),
            local_port: self.port,
            remote_port: PORT,
        };
        let mut frame = vec![0; wire::frame::MAX_CONTROL_LEN + payload.len()];
        let at = ethernet::emit(&mut frame, OUR_MAC, CLIENT_MAC, None, ethernet::IPV4);
        let len = wire::tcp::emit(&mut frame[at..], &tuple, out, 0, payload);
        frame.truncate((at + len).max(60));
        frame
    }
}
