//! The Internet checksum (RFC 1071): a ones' complement sum in host order, folded at the end.
//!
//! Called by the parsers when the device verified nothing, and by every emitter, on lcores and in
//! tests. It never looks at what the bytes mean.

use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A running ones' complement sum.
///
/// The sum is kept in the byte order of the host, which a ones' complement sum does not mind (RFC
/// 1071 §2 (B)), and unfolded: 64 bits hold the sum of 2^32 words of 32 bits, far beyond a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const fn new() -> Self {
        Self(0)
    }

    /// The sum of a TCP pseudo header (RFC 9293 §3.1). `len` is header and payload in bytes.
    #[inline]
    pub fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u16) -> Self {
        let [high, low] = len.to_be_bytes();
        let word = |bytes| u64::from(u32::from_ne_bytes(bytes));
        Self(word(src.octets()) + word(dst.octets()) + word([0, protocol, high, low]))
    }

    /// The sum of a pseudo header of IPv6 (RFC 8200 §8.1). `len` is header and payload in bytes.
    #[inline]
    pub fn pseudo_header_v6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, len: u32) -> Self {
        Self::pseudo_header_tail(next_header, len).plus(&src.octets()).plus(&dst.octets())
    }

    /// The sum of a pseudo header of IPv6 without its addresses, for whoever adds them as they stand.
    #[inline]
    pub(super) fn pseudo_header_tail(next_header: u8, len: u32) -> Self {
        Self(u64::from(len.to_be()) + u64::from(u32::from(next_header).to_be()))
    }

    /// Adds `bytes`, which must begin at an even offset of what is summed. An odd last byte is
    /// padded with zero, so only the last piece may have one.
    #[inline]
    #[must_use]
    pub fn plus(self, bytes: &[u8]) -> Self {
        // Eight lanes of 32 bits, widened: LLVM turns this into vector code on the baseline target,
        // faster by a sixth on full-sized segments than a chain of additions with carry.
        const LANES: usize = 8;
        let (blocks, rest) = bytes.as_chunks::<{ 4 * LANES }>();
        let mut sum = self.0;
        if !blocks.is_empty() {
            let mut lanes = [0_u64; LANES];
            for block in blocks {
                for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                    *lane += u64::from(u32::from_ne_bytes(*word));
                }
            }
            sum += lanes.iter().sum::<u64>();
        }
        let (words, tail) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        sum += match *tail {
            [] => 0,
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a, b, c, ..] => u64::from(u32::from_ne_bytes([a, b, c, 0])),
        };
        Self(sum)
    }

    /// Adds `bytes` that begin at `offset` of what is summed, which may be odd: the bytes of a message
    /// that lies in pieces.
    #[must_use]
    pub fn plus_at(self, offset: usize, bytes: &[u8]) -> Self {
        if offset.is_multiple_of(2) {
            return self.plus(bytes);
        }
        // RFC 1071 §2 (B): every byte stands in the other half of its word.
        Self(self.0 + u64::from(Self::new().plus(bytes).folded().swap_bytes()))
    }

    /// Whether the sum, checksum field included, is that of an intact message.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.folded() == 0xffff
    }

    /// The bytes of the checksum field that make the message valid; the field counted as zero.
    #[inline]
    pub const fn field(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// The sum of both.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    const fn folded(self) -> u16 {
        // Added to itself with the halves exchanged, the upper half is the sum of both with the carry
        // of the lower one: the ones' complement sum.
        let sum = (self.0.wrapping_add(self.0.rotate_right(32)) >> 32) as u32;
        (sum.wrapping_add(sum.rotate_right(16)) >> 16) as u16
    }
}

/// Words of 32 bits written one behind the other, and added up on the way: what has just been in a
/// register need not be read again for the checksum.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    /// What is not written yet.
    room: &'a mut [[u8; 4]],
    /// Words that there was room for at the beginning.
    most: usize,
    sum: u64,
}

impl<'a> Writer<'a> {
    /// Writes into the front of `buf`.
    #[inline(always)]
    pub(super) fn new(buf: &'a mut [u8]) -> Self {
        let room = buf.as_chunks_mut().0;
        Self { most: room.len(), room, sum: 0 }
    }

    /// Writes words, in network order.
    ///
    /// # Panics
    /// If there is no room for them.
    #[inline(always)] // their number says all there is to ask
    pub(super) fn words<const N: usize>(&mut self, words: [u32; N]) {
        let room = mem::take(&mut self.room);
        let (places, rest) = room.split_first_chunk_mut::<N>().expect("room for the words");
        self.room = rest;
        for (place, word) in places.iter_mut().zip(words) {
            *place = word.to_be_bytes();
            self.sum += u64::from(word.to_be());
        }
    }

    /// Bytes written.
    #[inline(always)]
    pub(super) const fn len(&self) -> usize {
        4 * (self.most - self.room.len())
    }

    /// The sum of what was written.
    #[inline(always)]
    pub(super) const fn sum(&self) -> Sum {
        Sum(self.sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn fast(bytes: &[u8]) -> u16 {
        !u16::from_be_bytes(Sum::new().plus(bytes).field())
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fast(&bytes), 0xddf2);
    }

    #[test]
    fn all_ones_do_not_overflow() {
        assert_eq!(fast(&[0xff; 65_536]), 0xffff);
        assert_eq!(fast(&[]), 0);
    }

    proptest! {
        #[test]
        fn pieces_sum_up_like_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(0_usize..200, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut sum = Sum::new();
            for ends in cuts.windows(2) {
                sum = sum.plus_at(ends[0], &bytes[ends[0]..ends[1]]);
            }
            prop_assert_eq!(sum.folded() % 0xffff, Sum::new().plus(&bytes).folded() % 0xffff);
        }

        #[test]
        fn equals_the_naive_sum(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(fast(&bytes), naive(&bytes));
        }

        #[test]
        fn pieces_add_up(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..150) {
            let cut = (2 * cut).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(Sum::new().plus(a).plus(b).field(), Sum::new().plus(&bytes).field());
        }

        #[test]
        fn field_makes_valid_and_a_flipped_bit_does_not(
            mut bytes in prop::collection::vec(any::<u8>(), 2..300),
            bit in any::<prop::sample::Index>(),
        ) {
            bytes[0..2].fill(0);
            let field = Sum::new().plus(&bytes).field();
            bytes[0..2].copy_from_slice(&field);
            prop_assert!(Sum::new().plus(&bytes).is_valid());
            let bit = bit.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!Sum::new().plus(&bytes).is_valid());
        }
    }
}
