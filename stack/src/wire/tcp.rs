//! TCP headers (RFC 9293 §3.1): parsing of a segment, emission of a whole datagram around one.
//!
//! Called by the lcore for every segment in and out. It validates what a header can say wrong by
//! itself; what a segment means is decided by the protocol core.

use std::net::IpAddr;

use super::checksum::{Sum, Writer};
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use super::{Flags, FourTuple, Outgoing, SackBlocks, Segment, SynOptions, Timestamps, options};
use crate::buf::Checksum;

pub use options::max_sack_blocks;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Bytes of the longest TCP header: a data offset of 15 words.
pub const MAX_HEADER_LEN: usize = HEADER_LEN + options::MAX_LEN;

/// Bytes of the longest IP and TCP headers that [`emit`] writes: enough for a buffer on the stack.
pub const MAX_HEADERS_LEN: usize = ipv6::HEADER_LEN + MAX_HEADER_LEN;

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

/// What a segment has to know of the header before it.
pub trait Datagram {
    /// The ECN field: 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE (RFC 3168 §5).
    fn ecn(&self) -> u8;

    /// The sum of the pseudo header for a segment of `len` bytes, which came out of the datagram.
    fn pseudo_header(&self, len: usize) -> Sum;
}

impl Datagram for Ipv4 {
    fn ecn(&self) -> u8 {
        Self::ecn(self)
    }

    fn pseudo_header(&self, len: usize) -> Sum {
        // What comes out of a datagram has a length that fits in 16 bits.
        Sum::pseudo_header(self.src, self.dst, ipv4::TCP, len as u16)
    }
}

impl Datagram for Ipv6 {
    fn ecn(&self) -> u8 {
        Self::ecn(self)
    }

    fn pseudo_header(&self, len: usize) -> Sum {
        Sum::pseudo_header_v6(self.src, self.dst, ipv4::TCP, len as u32)
    }
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
pub fn parse(ip: &impl Datagram, bytes: &[u8], checksum: Checksum) -> Result<TcpView, TcpError> {
    let (fixed, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(TcpError::Truncated)?;
    let options_len =
        (usize::from(fixed[12] >> 4) * 4).checked_sub(HEADER_LEN).ok_or(TcpError::BadOffset)?;
    let (list, payload) = rest.split_at_checked(options_len).ok_or(TcpError::BadLength)?;
    let is_verified = matches!(checksum, Checksum::Good | Checksum::Transport);
    if !is_verified && !ip.pseudo_header(bytes.len()).plus(bytes).is_valid() {
        return Err(TcpError::BadChecksum);
    }
    let [p0, p1, p2, p3, ..] = *fixed;
    Ok(TcpView {
        segment: segment(fixed, options::timestamps(list), payload.len() as u32, ip.ecn()),
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

/// Writes a datagram of the tuple's family with the segment `out` and `payload` into the front of
/// `buf`, with its checksums, and returns its length. The acknowledgement number is written only with ACK.
///
/// Options stand in Linux's order and alignment; SACK ranges beyond [`max_sack_blocks`] are left out.
///
/// # Panics
/// If `buf` is too short ([`MAX_HEADERS_LEN`] and the payload always suffice), or the payload is more
/// than a datagram holds.
#[inline(always)] // into the one place where all that is sent is written, with its room known
pub fn emit(buf: &mut [u8], tuple: &FourTuple, out: &Outgoing, tos: u8, payload: &[u8]) -> usize {
    if let (IpAddr::V4(src), IpAddr::V4(dst)) = (tuple.local_addr, tuple.remote_addr) {
        emit_behind::<{ ipv4::HEADER_LEN }>(buf, tuple, out, payload, |buf, len| {
            ipv4::emit(buf, src, dst, ipv4::TCP, tos, len);
            // A datagram's length fits in 16 bits, which ipv4::emit has asserted.
            Sum::pseudo_header(src, dst, ipv4::TCP, len as u16)
        })
    } else {
        emit_v6(buf, tuple, out, tos, payload)
    }
}

#[inline(never)]
fn emit_v6(buf: &mut [u8], tuple: &FourTuple, out: &Outgoing, tos: u8, payload: &[u8]) -> usize {
    let (src, dst) = (ipv6::or_mapped(tuple.local_addr), ipv6::or_mapped(tuple.remote_addr));
    emit_behind::<{ ipv6::HEADER_LEN }>(buf, tuple, out, payload, |buf, len| {
        ipv6::emit(buf, src, dst, ipv4::TCP, tos, len);
        Sum::pseudo_header_v6(src, dst, ipv4::TCP, len as u32)
    })
}

/// Writes a segment behind `AT` bytes for the IP header. That is written by `ip`, which is told the
/// segment's length and returns the sum of the pseudo header.
#[inline(always)]
fn emit_behind<const AT: usize>(
    buf: &mut [u8],
    tuple: &FourTuple,
    out: &Outgoing,
    payload: &[u8],
    ip: impl FnOnce(&mut [u8], usize) -> Sum,
) -> usize {
    let Outgoing { seq, ack, flags, window, .. } = *out;
    // The options first: the lengths in all headers hang on them.
    let mut list = Writer::new(&mut buf[AT + HEADER_LEN..]);
    options::emit(&mut list, out);
    let header_len = HEADER_LEN + list.len();
    let len = header_len + payload.len();
    let mut sum = list.sum().and(ip(buf, len));

    let (header, rest) = buf[AT..].split_first_chunk_mut::<HEADER_LEN>().expect("room for it");
    let mut words = Writer::new(header);
    let offset = (header_len / 4) as u32;
    words.words([
        u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port),
        seq,
        if flags.has(Flags::ACK) { ack } else { 0 },
        offset << 28 | u32::from(flags.0) << 16 | u32::from(window),
        0,
    ]);
    sum = sum.and(words.sum());
    if !payload.is_empty() {
        rest[header_len - HEADER_LEN..][..payload.len()].copy_from_slice(payload);
        sum = sum.plus(payload);
    }
    header[16..18].copy_from_slice(&sum.field());
    AT + len
}

/// Changes the time to live, or hop limit, of a datagram that [`emit`] has written.
///
/// # Panics
/// If `datagram` is shorter than its IP header.
pub fn set_ttl(datagram: &mut [u8], ttl: u8) {
    if datagram[0] >> 4 == 6 {
        datagram[7] = ttl;
        return;
    }
    datagram[8] = ttl;
    datagram[10..12].fill(0);
    let field = Sum::new().plus(&datagram[..ipv4::HEADER_LEN]).field();
    datagram[10..12].copy_from_slice(&field);
}

/// What the header says, its options having been read and its lengths checked.
#[inline]
pub(super) fn segment(
    fixed: &[u8; HEADER_LEN],
    ts: Option<Timestamps>,
    len: u32,
    ecn: u8,
) -> Segment {
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, flags, w0, w1, _, _, u0, u1] = *fixed;
    Segment {
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        len,
        window: u16::from_be_bytes([w0, w1]),
        urgent: u16::from_be_bytes([u0, u1]),
        flags: Flags(flags),
        ecn,
        ts,
    }
}

fn option_list(header: &[u8]) -> &[u8] {
    let Some((fixed, rest)) = header.split_first_chunk::<HEADER_LEN>() else { return &[] };
    let len = (usize::from(fixed[12] >> 4) * 4).saturating_sub(HEADER_LEN);
    rest.get(..len).unwrap_or(rest)
}

/// The checksum's sum over the pseudo header of a segment between two ends, whichever of them sends it.
pub fn pseudo_header(tuple: &FourTuple, len: u32) -> Sum {
    match (tuple.local_addr, tuple.remote_addr) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            Sum::pseudo_header(a, b, ipv4::TCP, len.min(u16::MAX.into()) as u16)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => Sum::pseudo_header_v6(a, b, ipv4::TCP, len),
        // A tuple is of one family.
        _ => Sum::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::samples::{TUPLE, outgoing, tuple};
    use super::*;

    const TS: Option<Timestamps> = Some(Timestamps { val: 0x0102_0304, ecr: 0x0506_0708 });

    /// The segment as it stands in an emitted datagram, and that datagram's header.
    fn emitted(out: &Outgoing, payload: &[u8]) -> (Ipv4, Vec<u8>) {
        let mut buf = vec![0xaa; MAX_HEADERS_LEN + payload.len()];
        let len = emit(&mut buf, &TUPLE, out, 0, payload);
        buf.truncate(len);
        let ip = ipv4::parse(&buf, Checksum::Unknown).unwrap();
        (ip, buf.split_off(ip.header_len))
    }

    /// Makes the checksum right again after a change.
    fn sealed(ip: &Ipv4, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[16..18].fill(0);
        let pseudo = Sum::pseudo_header(ip.src, ip.dst, ipv4::TCP, bytes.len() as u16);
        let field = pseudo.plus(&bytes).field();
        bytes[16..18].copy_from_slice(&field);
        bytes
    }

    fn syn_ack(sack_permitted: bool, ts: Option<Timestamps>, window_scale: Option<u8>) -> Outgoing {
        let flags = Flags::SYN.with(Flags::ACK);
        Outgoing { flags, mss: Some(1460), sack_permitted, ts, window_scale, ..Outgoing::default() }
    }

    #[test]
    fn options_of_a_syn_ack_stand_as_linux_lays_them_out() {
        let list = |out: &Outgoing| emitted(out, &[]).1.split_off(HEADER_LEN);
        let mss = [2, 4, 5, 0xb4];
        let ts = [1, 2, 3, 4, 5, 6, 7, 8];
        let scale = [1, 3, 3, 10];
        assert_eq!(
            list(&syn_ack(true, TS, Some(10))),
            [&mss[..], &[4, 2, 8, 10], &ts, &scale].concat()
        );
        assert_eq!(list(&syn_ack(true, None, Some(10))), [mss, [1, 1, 4, 2], scale].concat());
        assert_eq!(
            list(&syn_ack(false, TS, Some(10))),
            [&mss[..], &[1, 1, 8, 10], &ts, &scale].concat()
        );
        assert_eq!(list(&syn_ack(false, None, None)), mss);
    }

    #[test]
    fn options_of_an_established_connection_are_aligned() {
        let flags = Flags::ACK;
        let sack = [(1, 2), (3, 4)].into_iter().collect();
        let out = Outgoing { flags, ts: TS, sack, ..Outgoing::default() };
        let expected = [
            [1, 1, 8, 10],
            [1, 2, 3, 4],
            [5, 6, 7, 8],
            [1, 1, 5, 18],
            [0, 0, 0, 1],
            [0, 0, 0, 2],
            [0, 0, 0, 3],
            [0, 0, 0, 4],
        ];
        assert_eq!(emitted(&out, &[]).1[HEADER_LEN..], *expected.as_flattened());
        let out = Outgoing { ts: None, ..out };
        assert_eq!(emitted(&out, &[]).1[HEADER_LEN..], expected.as_flattened()[12..]);
        let out = Outgoing { sack: SackBlocks::new(), ..out };
        assert_eq!(emitted(&out, &[]).1.len(), HEADER_LEN);
    }

    #[test]
    fn the_acknowledgement_is_written_only_with_ack() {
        let out = Outgoing { ack: 77, flags: Flags::RST, ..Outgoing::default() };
        let (ip, bytes) = emitted(&out, &[]);
        assert_eq!(parse(&ip, &bytes, Checksum::Unknown).unwrap().segment.ack, 0);
    }

    #[test]
    fn a_bad_header_is_named_before_its_checksum() {
        let (ip, good) = emitted(&Outgoing::default(), &[]);
        let error = |bytes: &[u8]| parse(&ip, bytes, Checksum::Unknown).unwrap_err();
        let with_offset = |words: u8| {
            let mut bytes = good.clone();
            bytes[12] = words << 4;
            bytes
        };
        assert_eq!(error(&good[..19]), TcpError::Truncated);
        assert_eq!(error(&good[..10]), TcpError::Truncated);
        assert_eq!(error(&[]), TcpError::Truncated);
        assert_eq!(error(&with_offset(4)), TcpError::BadOffset);
        assert_eq!(error(&with_offset(0)), TcpError::BadOffset);
        assert_eq!(error(&with_offset(6)), TcpError::BadLength);
        assert_eq!(error(&with_offset(15)), TcpError::BadLength);
        assert_eq!(parse(&ip, &with_offset(4), Checksum::Good), Err(TcpError::BadOffset));
        assert_eq!(parse(&ip, &with_offset(15), Checksum::Good), Err(TcpError::BadLength));
    }

    #[test]
    fn only_a_device_that_found_it_good_spares_the_checksum() {
        let (ip, good) = emitted(&Outgoing::default(), b"odd");
        let mut bad = good.clone();
        bad[22] ^= 1;
        assert_eq!(parse(&ip, &bad, Checksum::Unknown), Err(TcpError::BadChecksum));
        assert_eq!(parse(&ip, &bad, Checksum::Bad), Err(TcpError::BadChecksum));
        assert!(parse(&ip, &bad, Checksum::Good).is_ok());
        assert!(parse(&ip, &good, Checksum::Bad).is_ok());
    }

    #[test]
    fn a_checksum_of_zero_is_not_absent() {
        let (ip, mut bytes) = emitted(&Outgoing::default(), &[]);
        bytes[16..18].fill(0);
        assert_eq!(parse(&ip, &bytes, Checksum::Unknown), Err(TcpError::BadChecksum));
        // Where 0 is the right sum it is accepted: the window field takes up what is missing.
        let field = sealed(&ip, bytes.clone())[16..18].to_owned();
        bytes[14..16].copy_from_slice(&field);
        let bytes = sealed(&ip, bytes);
        assert_eq!(bytes[16..18], [0, 0]);
        assert!(parse(&ip, &bytes, Checksum::Unknown).is_ok());
    }

    #[test]
    fn reserved_bits_are_ignored() {
        let (ip, bytes) = emitted(&Outgoing { flags: Flags::ACK, ..Outgoing::default() }, b"x");
        let mut reserved = bytes.clone();
        reserved[12] |= 0x0f;
        let reserved = sealed(&ip, reserved);
        assert_eq!(parse(&ip, &reserved, Checksum::Unknown), parse(&ip, &bytes, Checksum::Unknown));
    }

    #[test]
    fn malformed_options_do_not_cost_the_segment() {
        let out = Outgoing { flags: Flags::SYN, mss: Some(1460), ..Outgoing::default() };
        let (ip, bytes) = emitted(&Outgoing { window_scale: Some(7), ..out }, &[]);
        for nonsense in [[9, 0, 0, 0], [1, 1, 1, 8], [8, 10, 1, 1], [3, 4, 0, 0], [5, 1, 3, 0]] {
            let mut bytes = bytes.clone();
            bytes[24..28].copy_from_slice(&nonsense);
            let bytes = sealed(&ip, bytes);
            let view = parse(&ip, &bytes, Checksum::Unknown).unwrap();
            assert_eq!((view.header_len, view.segment.ts), (28, None), "{nonsense:?}");
            let expected = SynOptions { mss: Some(1460), ..SynOptions::default() };
            assert_eq!(syn_options(&bytes), expected, "{nonsense:?}");
        }
    }

    #[test]
    fn options_end_at_the_data_offset() {
        let (_, mut bytes) = emitted(&syn_ack(true, None, Some(7)), b"payload");
        bytes[12] = 6 << 4;
        assert_eq!(syn_options(&bytes), SynOptions { mss: Some(1460), ..SynOptions::default() });
        bytes[12] = 4 << 4;
        assert_eq!(syn_options(&bytes), SynOptions::default());
        assert_eq!(syn_options(&bytes[..19]), SynOptions::default());
        bytes[12] = 15 << 4;
        assert_eq!(
            syn_options(&bytes[..24]),
            SynOptions { mss: Some(1460), ..SynOptions::default() }
        );
    }

    proptest! {
        #[test]
        fn the_time_to_live_can_be_changed_afterwards(out in outgoing(), ttl in any::<u8>()) {
            let mut buf = [0xaa; MAX_HEADERS_LEN];
            let len = emit(&mut buf, &TUPLE, &out, 0, &[]);
            let before = buf;
            set_ttl(&mut buf[..len], ttl);
            let ip = ipv4::parse(&buf[..len], Checksum::Unknown).unwrap();
            prop_assert_eq!(ip.ttl, ttl);
            prop_assert_eq!(&buf[12..], &before[12..]);

            let [local_addr, remote_addr] = [1, 2].map(|n| IpAddr::from([0, 0, 0, 0, 0, 0, 0, n]));
            let tuple = FourTuple { local_addr, remote_addr, ..TUPLE };
            let mut buf = [0xaa; MAX_HEADERS_LEN];
            let len = emit(&mut buf, &tuple, &out, 0, &[]);
            let mut expected = buf;
            expected[7] = ttl;
            set_ttl(&mut buf[..len], ttl);
            prop_assert_eq!(buf, expected);
        }

        #[test]
        fn what_is_emitted_is_parsed(
            tuple in tuple(),
            out in outgoing(),
            tos in any::<u8>(),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut buf = vec![0xaa; MAX_HEADERS_LEN + payload.len()];
            let len = emit(&mut buf, &tuple, &out, tos, &payload);
            let ip = ipv4::parse(&buf[..len], Checksum::Unknown).unwrap();
            let ends = (IpAddr::V4(ip.src), IpAddr::V4(ip.dst));
            prop_assert_eq!(ends, (tuple.local_addr, tuple.remote_addr));
            prop_assert_eq!((ip.total_len, ip.protocol, ip.tos), (len, ipv4::TCP, tos));
            let bytes = ip.payload(&buf);
            let view = parse(&ip, bytes, Checksum::Unknown).unwrap();
            prop_assert_eq!((view.src_port, view.dst_port), (tuple.local_port, tuple.remote_port));
            prop_assert_eq!(view.header_len, header_len(&out));
            prop_assert_eq!(&bytes[view.header_len..], &payload[..]);
            let expected = Segment {
                seq: out.seq,
                ack: if out.flags.has(Flags::ACK) { out.ack } else { 0 },
                len: payload.len() as u32,
                window: out.window,
                urgent: 0,
                flags: out.flags,
                ecn: tos & 3,
                ts: out.ts,
            };
            prop_assert_eq!(view.segment, expected);
            let expected = SynOptions {
                mss: out.mss.filter(|mss| *mss != 0),
                window_scale: out.window_scale,
                sack_permitted: out.sack_permitted,
            };
            prop_assert_eq!(syn_options(bytes), expected);
            let sent = sack_blocks(bytes);
            prop_assert_eq!(&sent[..], &out.sack[..sent.len()]);
            if out.mss.is_none() && out.window_scale.is_none() && !out.sack_permitted {
                let most = max_sack_blocks(out.ts.is_some());
                prop_assert_eq!(sent.len(), out.sack.len().min(most));
            }
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..100), words in 0_u8..16) {
            if let Some(byte) = bytes.get_mut(12) {
                *byte = words << 4;
            }
            let _ = (syn_options(&bytes), sack_blocks(&bytes));
            let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
            let mut header = [0; ipv4::HEADER_LEN];
            ipv4::emit(&mut header, src, dst, ipv4::TCP, 0, 0);
            let ip = ipv4::parse(&header, Checksum::Unknown).unwrap();
            if let Ok(view) = parse(&ip, &bytes, Checksum::Good) {
                prop_assert!(HEADER_LEN <= view.header_len && view.header_len <= bytes.len());
                prop_assert_eq!(view.segment.len as usize, bytes.len() - view.header_len);
            }
            prop_assert_ne!(parse(&ip, &bytes, Checksum::Good), Err(TcpError::BadChecksum));
        }
    }
}
