//! TCP headers (RFC 9293 §3.1): parsing of a segment, emission of a whole IPv4 datagram around one.
//!
//! Called by the lcore for every segment in and out. It validates what a header can say wrong by
//! itself; what a segment means is decided by the protocol core.

use super::checksum::Sum;
use super::ipv4::{self, Ipv4};
use super::{Flags, FourTuple, Outgoing, SackBlocks, Segment, SynOptions, options};
use crate::buf::Checksum;

pub use options::max_sack_blocks;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Bytes of the longest TCP header: a data offset of 15 words.
pub const MAX_HEADER_LEN: usize = HEADER_LEN + options::MAX_LEN;

/// Bytes of the longest IPv4 and TCP headers that [`emit`] writes: enough for a buffer on the stack.
pub const MAX_HEADERS_LEN: usize = ipv4::HEADER_LEN + MAX_HEADER_LEN;

/// A parsed segment: what its header says, and where its payload begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpView {
    /// Everything that matters to a connection.
    pub segment: Segment,
    /// The sender's port.
    pub src_port: u16,
    /// Our port.
    pub dst_port: u16,
    /// Bytes of the header, options included.
    pub header_len: usize,
}

/// Why bytes are not a TCP segment. All count as `InSegs` if they were sent to this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TcpError {
    /// Fewer than 20 bytes. Dropped without a further count.
    Truncated,
    /// The data offset is below 5 words. Counts as `InErrs`.
    BadOffset,
    /// The data offset is beyond the end of the segment. Dropped without a further count.
    BadLength,
    /// The checksum is wrong. Counts as `InErrs` and `InCsumErrors`.
    BadChecksum,
}

/// Parses the segment `bytes`, the payload of the datagram `ip`: cut to its total length.
///
/// The checksum is verified unless the device has found it good; a field of 0 is a checksum like any
/// other. As with the IPv4 header, the device's "bad" counts as unknown. Reserved bits are ignored.
///
/// # Errors
/// See [`TcpError`]; the checks are made in Linux's order. A malformed option list is no error.
pub fn parse(ip: &Ipv4, bytes: &[u8], checksum: Checksum) -> Result<TcpView, TcpError> {
    let (fixed, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(TcpError::Truncated)?;
    let options_len =
        (usize::from(fixed[12] >> 4) * 4).checked_sub(HEADER_LEN).ok_or(TcpError::BadOffset)?;
    let (list, payload) = rest.split_at_checked(options_len).ok_or(TcpError::BadLength)?;
    if checksum != Checksum::Good && !checksum_is_valid(ip, bytes) {
        return Err(TcpError::BadChecksum);
    }
    let [p0, p1, p2, p3, ..] = *fixed;
    Ok(TcpView {
        segment: segment(fixed, list, payload.len() as u32, ip.ecn()),
        src_port: u16::from_be_bytes([p0, p1]),
        dst_port: u16::from_be_bytes([p2, p3]),
        header_len: HEADER_LEN + options_len,
    })
}

/// The options of a SYN besides timestamps. `header` begins with a TCP header; its data offset, or
/// the end of the slice if that comes first, bounds the options.
pub fn syn_options(header: &[u8]) -> SynOptions {
    options::syn_options(option_list(header))
}

/// The ranges of the SACK option of a received segment, as sent; bounded like [`syn_options`].
pub fn sack_blocks(header: &[u8]) -> SackBlocks {
    options::sack_blocks(option_list(header))
}

/// Bytes of the TCP header of `out`, options included; a multiple of 4.
pub fn header_len(out: &Outgoing) -> usize {
    HEADER_LEN + options::len(out)
}

/// Writes an IPv4 datagram with the segment `out` and `payload` into the front of `buf`, with both
/// checksums, and returns its length. The acknowledgement number is written only with ACK.
///
/// Options stand in Linux's order and alignment; SACK ranges beyond [`max_sack_blocks`] are left out.
///
/// # Panics
/// If `buf` is too short ([`MAX_HEADERS_LEN`] and the payload always suffice), or the payload is more
/// than a datagram holds.
pub fn emit(buf: &mut [u8], tuple: &FourTuple, out: &Outgoing, tos: u8, payload: &[u8]) -> usize {
    let FourTuple { local_addr, remote_addr, local_port, remote_port } = *tuple;
    let Outgoing { seq, ack, flags, window, .. } = *out;
    let mut list = [0; options::MAX_LEN];
    let options_len = options::emit(&mut list, out);
    let header_len = HEADER_LEN + options_len;
    let tcp_len = header_len + payload.len();
    let at = ipv4::emit(buf, local_addr, remote_addr, ipv4::TCP, tos, tcp_len);

    let bytes = &mut buf[at..at + tcp_len];
    let ack = if flags.has(Flags::ACK) { ack } else { 0 };
    bytes[0..2].copy_from_slice(&local_port.to_be_bytes());
    bytes[2..4].copy_from_slice(&remote_port.to_be_bytes());
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    bytes[8..12].copy_from_slice(&ack.to_be_bytes());
    bytes[12..14].copy_from_slice(&[(header_len as u8) << 2, flags.0]);
    bytes[14..16].copy_from_slice(&window.to_be_bytes());
    bytes[16..20].fill(0);
    bytes[HEADER_LEN..header_len].copy_from_slice(&list[..options_len]);
    bytes[header_len..].copy_from_slice(payload);
    // A datagram's length fits in 16 bits, which ipv4::emit has asserted.
    let pseudo = Sum::pseudo_header(local_addr, remote_addr, ipv4::TCP, tcp_len as u16);
    let field = pseudo.plus(bytes).field();
    bytes[16..18].copy_from_slice(&field);
    at + tcp_len
}

/// What the header says, its options and lengths having been checked.
#[inline]
pub(super) fn segment(fixed: &[u8; HEADER_LEN], list: &[u8], len: u32, ecn: u8) -> Segment {
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, flags, w0, w1, _, _, u0, u1] = *fixed;
    Segment {
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        len,
        window: u16::from_be_bytes([w0, w1]),
        urgent: u16::from_be_bytes([u0, u1]),
        flags: Flags(flags),
        ecn,
        ts: options::timestamps(list),
    }
}

fn checksum_is_valid(ip: &Ipv4, bytes: &[u8]) -> bool {
    // The bytes come out of a datagram, so their number fits in 16 bits.
    Sum::pseudo_header(ip.src, ip.dst, ipv4::TCP, bytes.len() as u16).plus(bytes).is_valid()
}

fn option_list(header: &[u8]) -> &[u8] {
    let Some((fixed, rest)) = header.split_first_chunk::<HEADER_LEN>() else { return &[] };
    let len = (usize::from(fixed[12] >> 4) * 4).saturating_sub(HEADER_LEN);
    rest.get(..len).unwrap_or(rest)
}
