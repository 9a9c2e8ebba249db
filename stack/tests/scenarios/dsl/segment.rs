//! Segments of the scripted peer, and expectations of what the subject sends.
//!
//! The peer's segments are written byte by byte, not by the library's writer: a scenario may send
//! what that would never write.

use std::fmt;
use std::net::Ipv4Addr;

use prequeue::wire::checksum::Sum;
use prequeue::wire::{Flags, MacAddr, SackBlocks, SynOptions, Timestamps, ethernet, ipv4};

/// The peer's byte at a (relative) sequence number.
pub fn pattern(seq: u32) -> u8 {
    (seq.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// A segment of the peer, sequence numbers relative.
#[derive(Clone, Debug)]
pub struct Seg {
    pub seq: u32,
    pub ack: u32,
    pub flags: Flags,
    pub len: u32,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
    fill: Option<u8>,
    bad_checksum: bool,
    data_offset: Option<u8>,
    cut_to: Option<usize>,
}

/// Any segment, without payload and options.
pub fn seg(flags: Flags, seq: u32) -> Seg {
    Seg {
        seq,
        ack: 1,
        flags,
        len: 0,
        window: 64_000,
        urgent: 0,
        options: Vec::new(),
        fill: None,
        bad_checksum: false,
        data_offset: None,
        cut_to: None,
    }
}

/// The SYN, with an MSS of 1460 and no other option.
pub fn syn() -> Seg {
    seg(Flags::SYN, 0).mss(1460)
}

/// A pure ACK, at sequence number 1.
pub fn ack(ack: u32) -> Seg {
    seg(Flags::ACK, 1).ack(ack)
}

/// Payload with the bytes of [`pattern`], acknowledging 1.
pub fn data(seq: u32, len: u32) -> Seg {
    Seg { len, ..seg(Flags::ACK, seq) }
}

/// FIN, acknowledging 1.
pub fn fin(seq: u32) -> Seg {
    seg(Flags::FIN.with(Flags::ACK), seq)
}

/// A RST without ACK.
pub fn rst(seq: u32) -> Seg {
    seg(Flags::RST, seq)
}

impl Seg {
    pub fn seq(self, seq: u32) -> Self {
        Self { seq, ..self }
    }

    /// Sets the acknowledgement number, not the flag.
    pub fn ack(self, ack: u32) -> Self {
        Self { ack, ..self }
    }

    pub fn and(self, flags: Flags) -> Self {
        Self { flags: self.flags.with(flags), ..self }
    }

    pub fn without(self, flags: Flags) -> Self {
        Self { flags: Flags(self.flags.0 & !flags.0), ..self }
    }

    pub fn len(self, len: u32) -> Self {
        Self { len, ..self }
    }

    /// Payload of this byte alone, for overlaps that differ.
    pub fn fill(self, byte: u8) -> Self {
        Self { fill: Some(byte), ..self }
    }

    pub fn urgent(self, pointer: u16) -> Self {
        Self { urgent: pointer, ..self }.and(Flags::URG)
    }

    /// Appends option bytes as they are; the list is padded with end-of-list at the end.
    pub fn option(mut self, bytes: &[u8]) -> Self {
        self.options.extend(bytes);
        self
    }

    pub fn mss(self, mss: u16) -> Self {
        let [a, b] = mss.to_be_bytes();
        self.option(&[2, 4, a, b])
    }

    pub fn scale(self, shift: u8) -> Self {
        self.option(&[1, 3, 3, shift])
    }

    pub fn sack_permitted(self) -> Self {
        self.option(&[1, 1, 4, 2])
    }

    pub fn ts(self, val: u32, ecr: u32) -> Self {
        let (val, ecr) = (val.to_be_bytes(), ecr.to_be_bytes());
        self.option(&[1, 1, 8, 10]).option(&val).option(&ecr)
    }

    pub fn bad_checksum(self) -> Self {
        Self { bad_checksum: true, ..self }
    }

    /// A data offset (in words) that is not the header's length.
    pub fn data_offset(self, words: u8) -> Self {
        Self { data_offset: Some(words), ..self }
    }

    /// Keeps this many bytes of the TCP segment.
    pub fn cut_to(self, bytes: usize) -> Self {
        Self { cut_to: Some(bytes), ..self }
    }

    /// The Ethernet frame, with absolute numbers. Short ones are padded to 60 bytes.
    pub(super) fn frame(&self, from: &End, to: &End, irs: u32, iss: u32) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[0..2].copy_from_slice(&from.port.to_be_bytes());
        tcp[2..4].copy_from_slice(&to.port.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.wrapping_add(irs).to_be_bytes());
        if self.flags.has(Flags::ACK) {
            tcp[8..12].copy_from_slice(&self.ack.wrapping_add(iss).to_be_bytes());
        }
        tcp[13] = self.flags.0;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        tcp.extend(&self.options);
        tcp.resize(tcp.len().next_multiple_of(4), 0);
        tcp[12] = self.data_offset.unwrap_or((tcp.len() / 4) as u8) << 4;
        let first = self.seq.wrapping_add(u32::from(self.flags.has(Flags::SYN)));
        tcp.extend((0..self.len).map(|i| self.fill.unwrap_or(pattern(first.wrapping_add(i)))));
        tcp.truncate(self.cut_to.unwrap_or(tcp.len()));
        let sum = Sum::pseudo_header(from.addr, to.addr, ipv4::TCP, tcp.len() as u16).plus(&tcp);
        if tcp.len() >= 18 {
            tcp[16..18].copy_from_slice(&sum.field());
            tcp[16] ^= u8::from(self.bad_checksum);
        }

        let mut frame = vec![0; 34];
        ethernet::emit(&mut frame, to.mac, from.mac, None, ethernet::IPV4);
        ipv4::emit(&mut frame[14..], from.addr, to.addr, ipv4::TCP, 0, tcp.len());
        frame.extend(tcp);
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

impl fmt::Display for Seg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seq {} len {}", Named(self.flags), self.seq as i32, self.len)?;
        if self.flags.has(Flags::ACK) {
            write!(f, " ack {}", self.ack as i32)?;
        }
        Ok(())
    }
}

/// One end of the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) mac: MacAddr,
    pub(super) addr: Ipv4Addr,
    pub(super) port: u16,
}

/// What the subject has sent, numbers relative.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) to_port: u16,
    pub(super) seq: u32,
    pub(super) raw_seq: u32,
    pub(super) ack: u32,
    pub(super) flags: Flags,
    pub(super) len: u32,
    pub(super) window: u16,
    pub(super) ts: Option<Timestamps>,
    pub(super) options: SynOptions,
    pub(super) sack: SackBlocks,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, ack, flags, len, window, ts, sack, .. } = self;
        write!(f, "{} seq {} len {len} win {window}", Named(*flags), *seq as i32)?;
        if flags.has(Flags::ACK) {
            write!(f, " ack {}", *ack as i32)?;
        }
        if let Some(ts) = ts {
            write!(f, " TS val {} ecr {}", ts.val, ts.ecr)?;
        }
        for (start, end) in sack.iter() {
            write!(f, " [{start},{end})")?;
        }
        Ok(())
    }
}

/// Flags by name.
struct Named(Flags);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set: Vec<_> = (0..8).filter(|i| self.0.0 & (1 << i) != 0).map(|i| names[i]).collect();
        f.write_str(&if set.is_empty() { "no flags".into() } else { set.join(",") })
    }
}

/// An expectation: everything that is not named may be anything, but for SACK blocks, of which
/// there must be none, and the sequence number of segments with ACK and without SYN and RST, which
/// must be the next that the subject has to send.
#[derive(Clone, Debug)]
pub struct Want {
    flags: Flags,
    seq: WantSeq,
    ack: Option<u32>,
    window: Option<u16>,
    ts_ecr: Option<Option<u32>>,
    options: Option<SynOptions>,
    sack: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
enum WantSeq {
    Next,
    Relative(u32),
    Raw(u32),
    Any,
}

/// Our SYN-ACK; the first one tells the scene our initial sequence number.
pub fn syn_ack() -> Want {
    want(Flags::SYN.with(Flags::ACK), WantSeq::Relative(0), Some(1))
}

/// A pure ACK.
pub fn acks(ack: u32) -> Want {
    want(Flags::ACK, WantSeq::Next, Some(ack))
}

/// Our FIN, acknowledging `ack`.
pub fn fin_ack(ack: u32) -> Want {
    want(Flags::FIN.with(Flags::ACK), WantSeq::Next, Some(ack))
}

/// A RST without ACK: the answer to an acknowledgement of `seq`.
pub fn rst_of(seq: u32) -> Want {
    want(Flags::RST, WantSeq::Relative(seq), None)
}

/// A RST from sequence number zero: the answer to a segment without ACK.
pub fn rst_ack(ack: u32) -> Want {
    want(Flags::RST.with(Flags::ACK), WantSeq::Raw(0), Some(ack))
}

fn want(flags: Flags, seq: WantSeq, ack: Option<u32>) -> Want {
    Want { flags, seq, ack, window: None, ts_ecr: None, options: None, sack: Vec::new() }
}

impl Want {
    /// A RST that a connection sends of itself: with ACK, and its next number.
    pub fn aborting(ack: u32) -> Self {
        want(Flags::RST.with(Flags::ACK), WantSeq::Next, Some(ack))
    }

    pub fn window(self, window: u16) -> Self {
        Self { window: Some(window), ..self }
    }

    /// With these control bits, too.
    pub fn and(self, flags: Flags) -> Self {
        Self { flags: self.flags.with(flags), ..self }
    }

    /// With the timestamps option, echoing `ecr`.
    pub fn ts(self, ecr: u32) -> Self {
        Self { ts_ecr: Some(Some(ecr)), ..self }
    }

    pub fn without_ts(self) -> Self {
        Self { ts_ecr: Some(None), ..self }
    }

    pub fn options(self, mss: u16, window_scale: Option<u8>, sack_permitted: bool) -> Self {
        let options = SynOptions { mss: Some(mss), window_scale, sack_permitted };
        Self { options: Some(options), ..self }
    }

    /// With these SACK blocks, in this order.
    pub fn sack(self, blocks: &[(u32, u32)]) -> Self {
        Self { sack: blocks.to_vec(), ..self }
    }

    /// With any sequence number.
    pub fn any_seq(self) -> Self {
        Self { seq: WantSeq::Any, ..self }
    }

    pub(super) fn is_syn_ack(&self) -> bool {
        self.flags.has(Flags::SYN)
    }

    /// What is wrong with `sent`, if anything.
    pub(super) fn complaint(&self, sent: &Sent, next: u32) -> Option<String> {
        let differs =
            |what: &str, want: String, got: String| Some(format!("{what} {got}, not {want}"));
        if sent.flags != self.flags {
            return differs("sent", Named(self.flags).to_string(), Named(sent.flags).to_string());
        }
        let (got, wanted) = match self.seq {
            WantSeq::Any => (0, 0),
            WantSeq::Next => (sent.seq, next),
            WantSeq::Relative(seq) => (sent.seq, seq),
            WantSeq::Raw(seq) => (sent.raw_seq, seq),
        };
        if got != wanted {
            return differs("seq", wanted.to_string(), got.to_string());
        }
        if let Some(ack) = self.ack
            && sent.ack != ack
        {
            return differs("ack", ack.to_string(), sent.ack.to_string());
        }
        if let Some(window) = self.window
            && sent.window != window
        {
            return differs("window", window.to_string(), sent.window.to_string());
        }
        let ecr = sent.ts.map(|ts| ts.ecr);
        if let Some(wanted) = self.ts_ecr
            && wanted != ecr
        {
            return differs("TSecr", format!("{wanted:?}"), format!("{ecr:?}"));
        }
        if let Some(options) = self.options
            && sent.options != options
        {
            return differs("options", format!("{options:?}"), format!("{:?}", sent.options));
        }
        if sent.sack[..] != self.sack[..] {
            return differs("SACK", format!("{:?}", self.sack), format!("{:?}", sent.sack));
        }
        (sent.len != 0).then(|| format!("{} bytes of payload", sent.len))
    }
}
