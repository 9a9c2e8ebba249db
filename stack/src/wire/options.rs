//! TCP options: the walk over a received list, and the layout of a sent one.
//!
//! Called by the TCP parsers and emitter. A malformed list never costs the segment: the walk stops
//! where the list makes no sense, and what was read before stays (RFC 9293 §3.1, MUST-6, MUST-7).

use super::checksum::Writer;
use super::{Outgoing, SackBlocks, SynOptions, Timestamps};

/// Most bytes that options take: a data offset of 15 words less the fixed header.
pub const MAX_LEN: usize = 40;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Lengths of the options with a fixed one, kind and length byte included.
const MSS_LEN: u8 = 4;
const WINDOW_SCALE_LEN: u8 = 3;
const SACK_PERMITTED_LEN: u8 = 2;
const TIMESTAMPS_LEN: u8 = 10;

/// Bytes of one range in a SACK option.
const SACK_BLOCK_LEN: usize = 8;

/// How established connections lay out timestamps, so that the values are aligned (RFC 7323
/// appendix A).
const ALIGNED_TIMESTAMPS: [u8; 4] = [NOP, NOP, TIMESTAMPS, TIMESTAMPS_LEN];

/// Bytes of a list that is nothing but aligned timestamps.
pub(super) const TIMESTAMPS_ONLY_LEN: usize = 12;

/// How many ranges a SACK option holds beside the timestamps option, if there is one: 3, else 4
/// (RFC 2018 §3).
pub const fn max_sack_blocks(timestamps: bool) -> usize {
    let taken = if timestamps { TIMESTAMPS_ONLY_LEN } else { 0 };
    (MAX_LEN - taken - 4) / SACK_BLOCK_LEN
}

/// The timestamps of a list that is nothing but the aligned option: that of nearly every segment.
#[inline]
pub(super) fn aligned_timestamps(list: &[u8; TIMESTAMPS_ONLY_LEN]) -> Option<Timestamps> {
    let (head, body) = list.split_first_chunk()?;
    if *head == ALIGNED_TIMESTAMPS { Some(read_timestamps(body.first_chunk()?)) } else { None }
}

/// The timestamps option of a list. Of several the last counts.
pub(super) fn timestamps(list: &[u8]) -> Option<Timestamps> {
    let mut found = None;
    for RawOption { kind, body } in Walk(list) {
        if kind == TIMESTAMPS
            && let Ok(body) = body.try_into()
        {
            found = Some(read_timestamps(body));
        }
    }
    found
}

#[inline]
fn read_timestamps(body: &[u8; 8]) -> Timestamps {
    let [v0, v1, v2, v3, e0, e1, e2, e3] = *body;
    Timestamps {
        val: u32::from_be_bytes([v0, v1, v2, v3]),
        ecr: u32::from_be_bytes([e0, e1, e2, e3]),
    }
}

/// The options of a SYN. Of several of a kind the last counts; an MSS of 0 does not count at all.
pub(super) fn syn_options(list: &[u8]) -> SynOptions {
    let mut options = SynOptions::default();
    for RawOption { kind, body } in Walk(list) {
        match (kind, body) {
            (MSS, &[0, 0]) => {}
            (MSS, &[high, low]) => options.mss = Some(u16::from_be_bytes([high, low])),
            (WINDOW_SCALE, &[shift]) => options.window_scale = Some(shift),
            (SACK_PERMITTED, []) => options.sack_permitted = true,
            _ => {}
        }
    }
    options
}

/// The ranges of the SACK option of a list, as sent. Of several options the last counts.
pub(super) fn sack_blocks(list: &[u8]) -> SackBlocks {
    let mut found = SackBlocks::new();
    for RawOption { kind, body } in Walk(list) {
        if kind == SACK
            && let (blocks @ [_, ..], []) = body.as_chunks::<SACK_BLOCK_LEN>()
        {
            let range = |&[l0, l1, l2, l3, r0, r1, r2, r3]: &[u8; SACK_BLOCK_LEN]| {
                (u32::from_be_bytes([l0, l1, l2, l3]), u32::from_be_bytes([r0, r1, r2, r3]))
            };
            found = blocks.iter().map(range).collect();
        }
    }
    found
}

/// Bytes of the options of `out`, a multiple of 4.
pub(super) fn len(out: &Outgoing) -> usize {
    let mut scratch = [0; MAX_LEN];
    let mut list = Writer::new(&mut scratch);
    emit(&mut list, out);
    list.len()
}

/// Writes the options of `out` in the order and alignment of Linux: whole words, [`MAX_LEN`] bytes at
/// most. SACK ranges that do not fit are left out, the first ones are kept.
#[inline(always)] // as what it is part of
pub(super) fn emit(list: &mut Writer<'_>, out: &Outgoing) {
    if let Some(mss) = out.mss {
        let [high, low] = mss.to_be_bytes();
        list.words([u32::from_be_bytes([MSS, MSS_LEN, high, low])]);
    }
    let alone = [NOP, NOP, SACK_PERMITTED, SACK_PERMITTED_LEN];
    match (out.ts, out.sack_permitted) {
        (Some(Timestamps { val, ecr }), both) => {
            let with_sack = [SACK_PERMITTED, SACK_PERMITTED_LEN, TIMESTAMPS, TIMESTAMPS_LEN];
            let head = if both { with_sack } else { ALIGNED_TIMESTAMPS };
            list.words([u32::from_be_bytes(head), val, ecr]);
        }
        (None, true) => list.words([u32::from_be_bytes(alone)]),
        (None, false) => {}
    }
    if let Some(shift) = out.window_scale {
        list.words([u32::from_be_bytes([NOP, WINDOW_SCALE, WINDOW_SCALE_LEN, shift])]);
    }
    if !out.sack.is_empty() {
        emit_sack(list, &out.sack);
    }
}

/// Writes the SACK option behind all others.
#[inline]
fn emit_sack(list: &mut Writer<'_>, blocks: &[(u32, u32)]) {
    // All there is besides takes 24 bytes of the 40, so that this cannot be less than nothing.
    let fit = (MAX_LEN - list.len()).saturating_sub(4) / SACK_BLOCK_LEN;
    let blocks = blocks.get(..fit).unwrap_or(blocks);
    let len = 2 + SACK_BLOCK_LEN * blocks.len();
    if !blocks.is_empty() {
        list.words([u32::from_be_bytes([NOP, NOP, SACK, len as u8])]);
    }
    for (start, end) in blocks {
        list.words([*start, *end]);
    }
}

/// An option as it stands in the list, of any kind but END and NOP.
struct RawOption<'a> {
    kind: u8,
    /// What follows the length byte.
    body: &'a [u8],
}

/// The walk over a list, at any alignment. It ends at END, and where the length byte is missing,
/// below 2 or beyond the end; the length byte is read only if it is there.
struct Walk<'a>(&'a [u8]);

impl<'a> Iterator for Walk<'a> {
    type Item = RawOption<'a>;

    fn next(&mut self) -> Option<RawOption<'a>> {
        loop {
            match *self.0 {
                [NOP, ref rest @ ..] => self.0 = rest,
                [] | [END, ..] | [_] => return None,
                [kind, len, ref rest @ ..] => {
                    let body_len = usize::from(len).checked_sub(2)?;
                    let (body, rest) = rest.split_at_checked(body_len)?;
                    self.0 = rest;
                    return Some(RawOption { kind, body });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TS: [u8; 10] = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    const READ: Option<Timestamps> = Some(Timestamps { val: 1, ecr: 2 });

    fn joined(pieces: &[&[u8]]) -> Vec<u8> {
        pieces.concat()
    }

    #[test]
    fn timestamps_are_read_at_any_alignment() {
        assert_eq!(timestamps(&joined(&[&[1, 1], &TS])), READ);
        assert_eq!(timestamps(&joined(&[&TS, &[1, 1]])), READ);
        assert_eq!(timestamps(&joined(&[&[1], &TS, &[0]])), READ);
        assert_eq!(timestamps(&joined(&[&[1; 30], &TS])), READ);
        assert_eq!(
            timestamps(&joined(&[&[1, 1], &TS, &[1, 1, 5, 10, 0, 0, 0, 3, 0, 0, 0, 4]])),
            READ
        );
        assert_eq!(timestamps(&[1; 40]), None);
        assert_eq!(timestamps(&[]), None);
    }

    #[test]
    fn a_list_that_makes_no_sense_keeps_what_was_before() {
        for nonsense in [
            &[8][..],       // length byte missing
            &[9, 0],        // length below 2
            &[9, 1, 1, 1],  // length below 2
            &[9, 5, 1, 1],  // beyond the end
            &[2, 255, 5],   // beyond the end
            &[0, 8, 10, 7], // behind the end of the list
        ] {
            assert_eq!(timestamps(&joined(&[&TS, nonsense])), READ, "{nonsense:?}");
        }
    }

    #[test]
    fn nothing_is_read_behind_the_stop() {
        for stop in [&[0][..], &[0, 2], &[0, 3, 1], &[9, 0], &[9, 1], &[9, 40]] {
            assert_eq!(timestamps(&joined(&[stop, &TS])), None, "{stop:?}");
        }
    }

    #[test]
    fn a_known_kind_of_wrong_length_is_skipped() {
        assert_eq!(timestamps(&joined(&[&[8, 9, 0, 0, 0, 0, 0, 0, 0], &TS])), READ);
        assert_eq!(timestamps(&joined(&[&TS, &[8, 11, 9, 9, 9, 9, 9, 9, 9, 9, 9]])), READ);
        let list = [2, 3, 5, 2, 5, 0, 0, 0, 3, 2, 3, 4, 9, 9, 4, 3, 0, 2, 4, 5, 0xb4];
        let expected = SynOptions { mss: Some(1460), ..SynOptions::default() };
        assert_eq!(syn_options(&list), expected);
    }

    #[test]
    fn unknown_kinds_are_skipped() {
        let list = joined(&[&[253, 2], &[34, 4, 1, 2], &TS, &[172, 3, 0]]);
        assert_eq!(timestamps(&list), READ);
    }

    #[test]
    fn the_last_of_several_counts() {
        let later = [8, 10, 0, 0, 0, 3, 0, 0, 0, 4];
        assert_eq!(timestamps(&joined(&[&TS, &later])), Some(Timestamps { val: 3, ecr: 4 }));
        assert_eq!(timestamps(&joined(&[&[1, 1], &later, &TS])), READ);
        let options = syn_options(&[2, 4, 1, 0, 3, 3, 7, 2, 4, 2, 0, 3, 3, 15]);
        assert_eq!((options.mss, options.window_scale), (Some(0x200), Some(15)));
    }

    #[test]
    fn an_mss_of_zero_is_absent() {
        assert_eq!(syn_options(&[2, 4, 0, 0]).mss, None);
        assert_eq!(syn_options(&[2, 4, 5, 0xb4, 2, 4, 0, 0]).mss, Some(1460));
    }

    #[test]
    fn sack_needs_whole_blocks() {
        let block = [0, 0, 0, 3, 0, 0, 0, 4];
        assert_eq!(sack_blocks(&joined(&[&[5, 10], &block]))[..], [(3, 4)]);
        let later = [5, 10, 0, 0, 0, 5, 0, 0, 0, 6];
        assert_eq!(sack_blocks(&joined(&[&[5, 10], &block, &later]))[..], [(5, 6)]);
        assert!(sack_blocks(&[5, 2]).is_empty());
        assert!(sack_blocks(&joined(&[&[5, 11], &block, &[0]])).is_empty());
        assert!(sack_blocks(&[5, 0, 1, 1]).is_empty());
        assert!(sack_blocks(&[5, 7, 0, 0, 0, 0, 0]).is_empty());
    }

    #[test]
    fn three_blocks_fit_beside_timestamps_four_without() {
        for (ts, most) in [(None, 4), (READ, 3)] {
            assert_eq!(max_sack_blocks(ts.is_some()), most);
            let mut out = Outgoing { ts, ..Outgoing::default() };
            out.sack = (0..9).map(|n| (n, n + 1)).collect();
            let mut list = [0; MAX_LEN];
            let mut writer = Writer::new(&mut list);
            emit(&mut writer, &out);
            let len = writer.len();
            assert_eq!(sack_blocks(&list[..len])[..], out.sack[..most]);
        }
    }

    proptest! {
        #[test]
        fn any_list_is_survived(list in prop::collection::vec(0_u8..16, 0..=40)) {
            let _ = (timestamps(&list), syn_options(&list), sack_blocks(&list));
        }

        #[test]
        fn the_aligned_form_equals_the_walk(body in any::<[u8; 8]>(), at in 0_usize..4, mask in any::<u8>()) {
            let mut list = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
            list[4..].copy_from_slice(&body);
            prop_assert_eq!(aligned_timestamps(&list), timestamps(&list));
            list[at] ^= mask;
            if let Some(aligned) = aligned_timestamps(&list) {
                prop_assert_eq!(Some(aligned), timestamps(&list));
            }
        }
    }
}
