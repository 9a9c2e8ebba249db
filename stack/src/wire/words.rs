//! Headers as few wide words: what a burst of one connection is told by.
//!
//! Called by the lcore in its loop over a burst, where frames that are like the one before are noted, and by
//! the core, which holds the words of a segment against those that it expects. It knows the usual shapes
//! alone, and judges nothing: whatever differs is looked at field by field elsewhere.

use std::ops::Range;

use super::frame::{HEADERS_LEN, IPV4_WITHOUT_OPTIONS, TCP_AT, word};
use super::{Flags, ethernet, frame6, options, tcp};

/// The headers of a segment with payload as few wide words, to be compared with what is expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Words {
    /// Sequence number, and the acknowledgement number below it.
    pub numbers: u64,
    /// Data offset, control bits and window as they stand in the header: see [`Self::control`].
    pub control: u32,
    /// TSval; 0 where the headers have no timestamps.
    pub ts_val: u32,
    /// Bytes of payload, at least one. They begin behind the headers.
    pub len: u32,
}

/// Lengths of payload that are looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lens {
    least: u32,
    /// By how much they may be more.
    span: u32,
}

impl Lens {
    /// Every one but 0.
    pub const ANY: Self = Self::new(1, u16::MAX as u32);

    /// From `least`, which is not 0, to `most`, which is not less.
    pub const fn new(least: u32, most: u32) -> Self {
        assert!(least != 0 && least <= most);
        Self { least, span: most - least }
    }
}

impl Words {
    /// Bytes of the headers of the usual shape, with aligned timestamps or without options.
    pub const WITH_TIMESTAMPS: usize = HEADERS_LEN + options::TIMESTAMPS_ONLY_LEN;
    /// See [`Self::WITH_TIMESTAMPS`].
    pub const WITHOUT_OPTIONS: usize = HEADERS_LEN;
    /// The same with IPv6.
    pub const WITH_TIMESTAMPS_6: usize = frame6::HEADERS_LEN + options::TIMESTAMPS_ONLY_LEN;
    /// See [`Self::WITH_TIMESTAMPS_6`].
    pub const WITHOUT_OPTIONS_6: usize = frame6::HEADERS_LEN;

    /// Data offset, control bits and window of headers of `headers` bytes, nothing reserved set.
    pub const fn control(headers: usize, flags: Flags, window: u16) -> u32 {
        let offset = (headers - tcp_at(headers)) as u32 / 4;
        offset << 28 | (flags.0 as u32) << 16 | window as u32
    }

    /// TSecr of a frame that was read [`Self::WITH_TIMESTAMPS`].
    #[inline(always)]
    pub fn echo(frame: &[u8]) -> u32 {
        let word =
            frame.first_chunk::<{ Self::WITH_TIMESTAMPS }>().and_then(|all| all.last_chunk());
        word.map_or(0, |word| u32::from_be_bytes(*word))
    }

    /// The ECN field of a frame that was read with these `HEADERS`.
    #[inline(always)]
    pub fn ecn<const HEADERS: usize>(frame: &[u8]) -> u8 {
        let Some(headers) = frame.first_chunk::<HEADERS>() else { return 0 };
        if const { tcp_at(HEADERS) == frame6::TCP_AT } {
            headers[15] >> 4 & 3
        } else {
            headers[15] & 3
        }
    }

    /// Reads a frame whose ends were taken as those of a segment, as if its headers were `HEADERS`
    /// bytes long, one of the four lengths above. Whether they are is for the caller to see in the
    /// words; if so they say what [`parse_usual`](super::frame::parse_usual) does.
    ///
    /// `None` if the frame has another shape or its payload another length.
    #[inline(always)]
    pub fn read<const HEADERS: usize>(frame: &[u8], lens: Lens) -> Option<Self> {
        let headers = frame.first_chunk::<HEADERS>()?;
        let is_v6 = const { tcp_at(HEADERS) == frame6::TCP_AT };
        // A datagram shorter than its headers has a length beyond all that are looked for.
        let (len, is_usual) = if is_v6 {
            let len = word::<18, HEADERS>(headers) >> 16;
            (len.wrapping_sub((HEADERS - frame6::TCP_AT) as u32), frame6::is_usual(headers))
        } else {
            let len = word::<14, HEADERS>(headers) & 0xffff;
            let is_usual = word::<12, HEADERS>(headers) & 0xffff_ff00 == IPV4_WITHOUT_OPTIONS;
            (len.wrapping_sub((HEADERS - ethernet::HEADER_LEN) as u32), is_usual)
        };
        if !is_usual
            || len.wrapping_sub(lens.least) > lens.span
            || HEADERS + len as usize > frame.len()
        {
            return None;
        }
        let control = if is_v6 {
            word_at(headers, frame6::TCP_AT + 12)
        } else {
            word::<{ TCP_AT + 12 }, HEADERS>(headers)
        };
        let (numbers, ts_val) = numbers(headers)?;
        Some(Self { numbers, control, ts_val, len })
    }

    /// Reads a frame that has the [`Likeness`] of the one that these words were read of, with the same
    /// `HEADERS`: what [`Self::read`] would say.
    #[inline(always)]
    pub fn of_like<const HEADERS: usize>(&self, frame: &[u8]) -> Option<Self> {
        let frame = frame.get(..HEADERS + self.len as usize)?;
        let (numbers, ts_val) = numbers(frame.first_chunk::<HEADERS>()?)?;
        Some(Self { numbers, ts_val, ..*self })
    }
}

/// The numbers of a segment and TSval, if it has no other options.
#[inline(always)]
fn numbers<const HEADERS: usize>(headers: &[u8; HEADERS]) -> Option<(u64, u32)> {
    let mut ts_val = 0;
    if HEADERS > tcp_at(HEADERS) + tcp::HEADER_LEN {
        let list = headers.last_chunk()?;
        ts_val = options::aligned_timestamps(list)?.val;
    }
    let numbers = headers[tcp_at(HEADERS) + 4..].first_chunk()?;
    Some((u64::from_be_bytes(*numbers), ts_val))
}

/// What frames are told by to be like one: its length, and all that [`usual_ends`](super::frame::usual_ends)
/// and [`Words::read`] look at but numbers and timestamps.
///
/// Most frames of a burst are like the one before: they are known by a few wide words, wherever the fields
/// are, and only once.
#[derive(Clone, Copy, Debug)]
pub struct Likeness<'a> {
    len: usize,
    headers: &'a [u8; HEADERS_LEN],
}

impl<'a> Likeness<'a> {
    /// That of a frame whose ends were taken by `usual_ends`.
    #[inline(always)]
    pub fn of(frame: &'a [u8]) -> Option<Self> {
        Some(Self { len: frame.len(), headers: frame.first_chunk()? })
    }

    /// Whether a frame has it: then its ends are the same, and so are its words but for the numbers.
    #[inline(always)]
    pub fn is_that_of(&self, frame: &[u8]) -> bool {
        /// What counts of each word: the destination's address, EtherType, version, lengths and type of
        /// service; fragmentation (not whether it is forbidden), protocol and addresses; ports, data
        /// offset, control bits and window.
        const MASKS: [[u8; 16]; 3] = [
            [!0, !0, !0, !0, 0, 0, 0, 0, 0, 0, !0, !0, !0, !0, !0, !0],
            [0, 0, 0x3f, !0, 0, !0, 0, 0, !0, !0, !0, !0, !0, !0, !0, !0],
            [!0, !0, !0, !0, 0, 0, 0, 0, 0, 0, 0, 0, !0, !0, !0, !0],
        ];
        if frame.len() != self.len {
            return false;
        }
        let Some(headers) = frame.first_chunk() else { return false };
        let [a, b, c] = MASKS.map(u128::from_ne_bytes);
        // Both sides are read just here: so each word is a register of the vector unit.
        let differs = differing::<2>(headers, self.headers) & a
            | differing::<18>(headers, self.headers) & b
            | differing::<34>(headers, self.headers) & c;
        // The wide words leave out the first two bytes.
        headers[..2] == self.headers[..2] && differs == 0
    }
}

/// Whether two frames, of which one has been taken as a segment, have the same ports: whether it may be
/// worth comparing more of them.
#[inline(always)]
pub fn have_same_ports(one: &[u8], other: &[u8]) -> bool {
    let ports = |frame: &[u8]| frame.first_chunk().map(word::<TCP_AT, HEADERS_LEN>);
    ports(one) == ports(other)
}

/// In which bits sixteen bytes of two frames' headers differ, as they stand.
#[inline(always)]
fn differing<const AT: usize>(one: &[u8; HEADERS_LEN], other: &[u8; HEADERS_LEN]) -> u128 {
    const { assert!(AT + 16 <= HEADERS_LEN) };
    let word = |headers: &[u8; HEADERS_LEN]| {
        headers[AT..].first_chunk().map_or(0, |bytes| u128::from_ne_bytes(*bytes))
    };
    word(one) ^ word(other)
}

/// Which frames of a burst, or of a part of one, are each like the one before it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Alike(u32);

impl Alike {
    /// Notes that the frames at these places, of the first 32, are each like the one before.
    #[inline]
    pub fn note(&mut self, places: Range<usize>) {
        let below = |at: usize| ((1_u64 << at) - 1) as u32;
        self.0 |= below(places.end) & !below(places.start);
    }

    /// Those of the part that begins at a place.
    #[inline]
    #[must_use]
    pub const fn from(self, at: usize) -> Self {
        // There may be none behind the last of the 32.
        Self((self.0 as u64 >> at) as u32)
    }

    /// Frames that follow the first one and are like it.
    #[inline]
    pub const fn behind_first(self) -> usize {
        (self.0 >> 1).trailing_ones() as usize
    }
}

/// Where the TCP header stands in headers of this length.
const fn tcp_at(headers: usize) -> usize {
    if headers < frame6::HEADERS_LEN { TCP_AT } else { frame6::TCP_AT }
}

/// Four bytes of the headers, read as one.
#[inline(always)]
fn word_at(headers: &[u8], at: usize) -> u32 {
    headers[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{self, Station, TcpFrame, parse_usual};
    use super::super::samples::{frame, frame6, spoiled, spoiled_frame};
    use super::super::{MacAddr, frame6};
    use super::*;
    use crate::buf::Checksum;

    /// Words of headers of that length, if the frame has them and a payload, and only then.
    fn same_words<const HEADERS: usize>(
        bytes: &[u8],
        parsed: Option<TcpFrame>,
        (least, most): (u32, u32),
    ) -> Result<(), TestCaseError> {
        let lens = Lens::new(least, most);
        let offset = |words: &Words| words.control >> 28 == (HEADERS - tcp_at(HEADERS)) as u32 / 4;
        let words = Words::read::<HEADERS>(bytes, lens).filter(offset);
        let parsed = parsed.filter(|parsed| {
            usize::from(parsed.payload) == HEADERS && (least..=most).contains(&parsed.segment.len)
        });
        let expected = parsed.map(|TcpFrame { segment, .. }| Words {
            numbers: u64::from(segment.seq) << 32 | u64::from(segment.ack),
            control: Words::control(HEADERS, segment.flags, segment.window),
            ts_val: segment.ts.map_or(0, |ts| ts.val),
            len: segment.len,
        });
        let without_reserved =
            words.map(|words| Words { control: words.control & 0xf0ff_ffff, ..words });
        prop_assert_eq!(without_reserved, expected);
        Ok(())
    }

    fn is_like(frame: &[u8], other: &[u8]) -> bool {
        Likeness::of(other).is_some_and(|likeness| likeness.is_that_of(frame))
    }

    /// A frame, and another that differs in some bytes of the headers, or is longer.
    fn two_frames() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let change = (0..80_usize, prop_oneof![Just(0x40_u8), Just(8), any::<u8>()]);
        let changes = prop::collection::vec(change, 0..3);
        let longer = prop_oneof![9 => Just(0_usize), 1 => 1..4_usize];
        (frame(), changes, longer).prop_map(|(one, changes, longer)| {
            let mut other = one.clone();
            for (at, bits) in changes {
                if let Some(byte) = other.get_mut(at) {
                    *byte ^= bits;
                }
            }
            other.resize(one.len() + longer, 0);
            (one, other)
        })
    }

    /// Words of a frame, and those that another is said to have for being like it.
    fn words_of_both<const HEADERS: usize>(one: &[u8], other: &[u8]) -> Result<(), TestCaseError> {
        if let Some(words) = Words::read::<HEADERS>(one, Lens::ANY) {
            prop_assert_eq!(
                words.of_like::<HEADERS>(other),
                Words::read::<HEADERS>(other, Lens::ANY)
            );
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn words_say_what_is_parsed(bytes in prop_oneof![frame(), spoiled_frame()]) {
            let parsed = parse_usual(&bytes);
            for lens in [(1, u32::from(u16::MAX)), (1, 5), (6, 20)] {
                same_words::<{ Words::WITHOUT_OPTIONS }>(&bytes, parsed, lens)?;
                same_words::<{ Words::WITH_TIMESTAMPS }>(&bytes, parsed, lens)?;
            }
        }

        #[test]
        fn words_say_what_is_parsed_of_ipv6(bytes in prop_oneof![frame6(), spoiled(frame6())]) {
            let parsed = frame6::parse_usual(&bytes);
            for lens in [(1, u32::from(u16::MAX)), (1, 5), (6, 20)] {
                same_words::<{ Words::WITHOUT_OPTIONS_6 }>(&bytes, parsed, lens)?;
                same_words::<{ Words::WITH_TIMESTAMPS_6 }>(&bytes, parsed, lens)?;
                // Whose family it is not of they say nothing.
                prop_assert_eq!(Words::read::<{ Words::WITHOUT_OPTIONS }>(&bytes, Lens::ANY), None);
            }
        }

        #[test]
        fn what_is_like_another_has_its_ends_and_words((one, other) in two_frames()) {
            let us = Station::new(MacAddr(*one.first_chunk().expect("a frame")));
            let ends = |frame: &[u8]| frame::usual_ends(frame, us, Checksum::Good);
            if ends(&one).is_some() && is_like(&other, &one) {
                prop_assert_eq!(ends(&other), ends(&one));
                words_of_both::<{ Words::WITHOUT_OPTIONS }>(&one, &other)?;
                words_of_both::<{ Words::WITH_TIMESTAMPS }>(&one, &other)?;
            }
        }

        #[test]
        fn numbers_and_checksums_make_no_difference(
            one in frame(),
            numbers in any::<[u8; 8]>(),
            (id, ttl, sum, window) in any::<(u16, u8, u16, bool)>(),
        ) {
            let mut other = one.clone();
            prop_assume!(other.len() >= HEADERS_LEN);
            other[18..20].copy_from_slice(&id.to_be_bytes());
            other[22] = ttl;
            other[24..26].copy_from_slice(&sum.to_be_bytes());
            other[38..46].copy_from_slice(&numbers);
            other[50..52].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(is_like(&other, &one));
            other[49] ^= u8::from(window);
            prop_assert_eq!(is_like(&other, &one), !window);
        }
    }

    #[test]
    fn those_behind_the_first_end_with_one_that_differs() {
        let mut alike = Alike::default();
        [1..4, 5..6, 9..9, 31..32].into_iter().for_each(|places| alike.note(places));
        let behind = |at| alike.from(at).behind_first();
        assert_eq!([0, 1, 3, 4, 30, 31, 32].map(behind), [3, 2, 0, 1, 1, 0, 0]);
    }
}
