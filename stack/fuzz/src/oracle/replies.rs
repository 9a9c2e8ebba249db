//! What may stand in an ACK, and what must.

use prequeue::wire::{Flags, Outgoing, Segment};

use super::model::{Expect, Model};

/// What has happened since the last ACK that the next one has to tell.
#[derive(Debug, Default)]
pub struct Pending {
    /// The duplicate to be reported.
    duplicate: Option<(i64, i64)>,
    /// Numbers that arrived although they had been received.
    duplicates: Vec<(i64, i64)>,
    /// What the first block about held data has to contain.
    pub trigger: Option<(i64, i64)>,
    /// An ACK must leave with this burst.
    pub now: bool,
    /// The window has to be closed: there was no memory.
    shut: bool,
}

impl Pending {
    /// Before a segment is taken: which of its numbers were received before.
    pub fn arrived(&mut self, model: &Model, seg: &Segment) {
        let (mut at, end) = (model.offset_of(seg.seq), model.offset_of(seg.end_seq()));
        while at < end
            && let Some(run) = model.marks.first_run(at, end)
        {
            self.duplicates.push(run);
            at = run.1;
        }
    }

    /// After a segment was taken while the edge was at `before`.
    pub fn expect(&mut self, model: &Model, expect: &Expect, before: i64) {
        if expect.forget || model.marks.edge() > before {
            self.trigger = None;
        }
        self.trigger = expect.trigger.filter(|_| model.sack).or(self.trigger);
        // A FIN that comes in order ends all reports.
        let ended = model.marks.eof() && model.marks.edge() > before;
        if ended {
            self.duplicate = None;
        }
        if let Some(range) = expect.duplicate.filter(|_| model.sack && model.dsack && !ended) {
            assert_eq!(self.duplicate, None, "a duplicate was not reported");
            self.duplicate = Some(range);
        }
        self.now |= expect.now;
        self.shut |= expect.shut;
    }

    /// An ACK that was made while a segment was taken begins with what of it came twice, if it does.
    pub fn may_report(&mut self, model: &Model, seg: &Segment, ack: &Outgoing) {
        let (start, end) = (model.offset_of(seg.seq), model.offset_of(seg.end_seq()));
        let above = model.dsack && start > model.marks.edge();
        let twice = model.marks.first_run(start, end).filter(|_| above);
        let first = |&(start, end): &(i64, i64)| {
            ack.sack.first() == Some(&(model.seq_at(start), model.seq_at(end)))
        };
        self.duplicate = twice.filter(first).or(self.duplicate);
    }

    /// The burst has ended without an ACK: the duplicate may still be reported, but what comes next may
    /// take its place.
    pub fn put_off(&mut self) {
        self.duplicate = None;
    }

    /// An ACK leaves; of `rcvbuf` bytes of memory `free` are not charged.
    pub fn look_at(&mut self, model: &Model, out: &Outgoing, rcvbuf: u32, free: u32) {
        let fin = out.flags == Flags::ACK.with(Flags::FIN);
        assert!(fin || out.flags == Flags::ACK, "{:?}", out.flags);
        assert!(!fin || model.fin_sent);
        assert_eq!(out.seq, model.snd_nxt().wrapping_sub(u32::from(fin)));
        let edge = model.marks.edge();
        assert_eq!(out.ack, model.seq_at(edge), "acknowledged something else than the edge");
        assert_eq!((out.mss, out.window_scale, out.sack_permitted), (None, None, false));

        let unit = 1 << model.shift;
        let scarce = free < rcvbuf / 2 && i64::from(rcvbuf) <= 65_535 * unit;
        let window = i64::from(out.window) * unit;
        let right = edge + window;
        if self.shut {
            assert_eq!(window, 0, "there was no memory");
        } else {
            // A header that can say no more may say less than was promised by one with an older edge.
            let is_full = out.window == u16::MAX;
            assert!(is_full || right >= model.right(), "the right edge moved left");
        }
        if right >= model.right() + unit {
            // Where memory is scarce the unit of the window does not round it up.
            let most = if scarce { i64::from(free) } else { i64::from(free) + unit - 1 };
            assert!(window <= most, "{window} promised, {free} free");
        }
        self.look_at_sack(model, out);
        *self = Self::default();
    }

    fn look_at_sack(&self, model: &Model, out: &Outgoing) {
        // Nothing is held beyond the largest window: what seems to be was half a circle old, and the
        // edge has moved since.
        let near = |seq| match model.offset_of(seq) {
            at if at > model.marks.edge() + (1 << 30) => at - (1 << 32),
            at => at,
        };
        let offset = |&(a, b): &(u32, u32)| (near(a), near(b));
        let blocks: Vec<_> = out.sack.iter().map(offset).collect();
        assert!(blocks.len() <= if model.ts.is_some() { 3 } else { 4 });
        assert!(model.sack || blocks.is_empty());
        let edge = model.marks.edge();
        let within = |a: (i64, i64), b: (i64, i64)| b.0 <= a.0 && a.1 <= b.1;
        let reports = self.duplicate.is_some()
            || blocks.first().is_some_and(|&first| {
                first.0 < edge || blocks.get(1).is_some_and(|&second| within(first, second))
            });
        let (dsack, held) = blocks.split_at(usize::from(reports).min(blocks.len()));
        if let Some(range) = self.duplicate {
            assert!(within(range, *dsack.first().expect("a DSACK")), "{dsack:?}, not {range:?}");
        }
        if let Some(&(start, end)) = dsack.first() {
            assert!(model.dsack && start < end);
            let around = held.iter().position(|&block| within((start, end), block));
            assert!(around.is_none_or(|at| at == 0), "{dsack:?} is not followed by what holds it");
            let known = |at| self.duplicates.iter().any(|run| (run.0..run.1).contains(&at));
            assert!((start..end).all(known), "[{start},{end}) did not come twice");
        }
        for (i, &(start, end)) in held.iter().enumerate() {
            assert!(edge < start && start < end);
            assert!(model.marks.holds(start, end), "[{start},{end}) is reported, but not held");
            let touches = |other: &(i64, i64)| start <= other.1 && other.0 <= end;
            assert!(!held[..i].iter().any(touches), "blocks touch: {held:?}");
        }
        if let Some(range) = self.trigger {
            // Behind a duplicate stands the block that holds it, be it of an earlier segment.
            let around = |&&block: &&_| dsack.first().is_none_or(|&dsack| !within(dsack, block));
            let first = held.iter().take(1).find(|&&block| within(range, block));
            let first = first.or_else(|| held.iter().find(around));
            assert!(first.is_some_and(|&first| within(range, first)), "{range:?} not in {held:?}");
        }
    }
}
