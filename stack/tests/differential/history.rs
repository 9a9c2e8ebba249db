//! What has happened in a scenario that makes the two states differ though nothing is to be seen of it
//! at first.

use crate::packet::{ACK, FIN, SYN, URG};
use crate::scenario::{Config, Spec};
use crate::side::{View, before};

/// Larger payloads fit behind none of their like: Linux has 624 bytes left behind one of 1000.
const SMALL: u32 = 999;

/// We copy what is small into a default buffer when it is a quarter full: not with fewer segments.
const BEFORE_COPIES: u32 = 10;

/// What makes the two states differ though nothing is to be seen of it at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// A segment had options that were not agreed on, or lacked them.
    pub odd_options: bool,
    /// A segment had a list of options that breaks off.
    pub broken_options: bool,
    /// Data had an ACK field that is old.
    pub old_ack: bool,
    /// Our side's memory was used up, or nearly.
    pub full: bool,
    /// The peer has sent a FIN before.
    pub ended: bool,
    /// Our window is nearly as large as it can be.
    pub opened: bool,
    /// Our right edge has moved left, for which there is no excuse.
    pub retreats: bool,
    /// Something was sent above a hole.
    pub above: bool,
    /// A FIN without data was sent, above a hole.
    pub fin_above: bool,
    /// Data beyond the window was sent behind a FIN.
    pub cut_after_end: bool,
    /// TCP_QUICKACK was set.
    pub quick_ack: bool,
    /// Data that ends beyond the window had an urgent pointer, or acknowledged our FIN.
    pub news_beyond: bool,
    /// The peer has told a window of zero.
    pub shut: bool,
    /// An urgent mark was announced.
    pub urgent: bool,
    /// Data was sent that Linux may have copied behind what was queued before.
    pub copied: bool,
    /// Where a FIN was sent above a hole, from the peer's SYN on.
    fin_at: Option<u32>,
    /// Where the highest data ended that was sent above a hole.
    above_to: Option<u32>,
    /// Data or another FIN was sent behind a FIN above a hole, before or after it.
    pub behind_fin: bool,
    /// A segment had SYN and ACK.
    pub syn_ack: bool,
    /// A segment had SYN and FIN.
    pub syn_fin: bool,
    /// Our buffer was at least half full when the last segment came.
    pub half_full: bool,
    /// One of the buffers has grown, where they may.
    pub grows: bool,
    /// How far the ACK field has gone beyond what was sent: a number beside a cookie may be another one.
    acked: i32,
    /// Segments sent.
    pub segments: u32,
}

impl History {
    /// Notes what a segment may do to a stack that is not seen.
    pub fn note(&mut self, config: &Config, spec: &Spec, view: &View) {
        let (seq, len) = (spec.seq(view), spec.bytes(view));
        let is_above = before(view.next(), seq);
        // What is left of a segment that overlaps another may be small, too.
        let is_behind =
            config.rcvbuf.is_some_and(|rcvbuf| rcvbuf <= 65_536) || self.segments >= BEFORE_COPIES;
        // With an urgent mark it is not known from outside what comes next.
        let may_overlap = seq != view.next() || self.urgent;
        let may_be_cut = is_behind && may_overlap && len > 0;
        self.copied |= (1..=SMALL).contains(&len) || may_be_cut;
        self.urgent |= spec.flags & URG != 0;
        self.above |= is_above;
        self.fin_above |= spec.flags & FIN != 0 && len == 0 && is_above;
        let fin = spec.flags & FIN != 0;
        let end = seq.wrapping_sub(view.irs).wrapping_add(len);
        self.behind_fin |=
            self.fin_at.is_some_and(|at| before(at, end.wrapping_add(fin.into()).wrapping_sub(1)));
        if fin && is_above {
            self.behind_fin |= self.above_to.is_some_and(|to| before(end, to));
            self.fin_at.get_or_insert(end);
        }
        if is_above && len > 0 && self.above_to.is_none_or(|to| before(to, end)) {
            self.above_to = Some(end);
        }
        let is_cut = before(view.edge, seq.wrapping_add(len));
        self.cut_after_end |= is_cut && self.ended;
        let has_news = spec.flags & URG != 0 || view.snd_nxt != view.iss.wrapping_add(1);
        self.news_beyond |= is_cut && has_news && seq == view.next();
    }

    /// Whether the urgent byte may have come for one of the stacks alone: above a hole Linux takes it
    /// already, and behind a FIN it takes marks.
    pub fn forgives_pri(&self) -> bool {
        self.urgent && (self.above || self.ended)
    }

    /// Notes what the rest of a segment may do, and its options.
    pub fn note_header(&mut self, config: &Config, spec: &Spec, options: &[u8]) {
        self.segments += 1;
        self.shut |= spec.window == 0;
        self.syn_ack |= spec.flags & (SYN | ACK) == SYN | ACK;
        self.syn_fin |= spec.flags & (SYN | FIN) == SYN | FIN;
        if spec.flags & ACK != 0 {
            self.old_ack |= spec.ack < self.acked;
            if config.cookies && (1..=2).contains(&spec.ack) {
                self.acked = spec.ack;
            }
        }
        self.odd_options |= !spec.junk.is_empty() || spec.ts.is_some() != config.timestamps;
        self.broken_options |= breaks_off(options);
    }
}

/// Whether a list of options breaks off where an MD5 signature might still come (18 bytes), or has one.
fn breaks_off(options: &[u8]) -> bool {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let mut options = &padded[..];
    while options.len() >= 18 {
        match options[0] {
            0 => return false,
            1 => options = &options[1..],
            // Signatures that nobody has agreed on.
            19 | 29 => return true,
            _ if options[1] < 2 || usize::from(options[1]) > options.len() => return true,
            _ => options = &options[usize::from(options[1])..],
        }
    }
    false
}
