//! Runs of segments at a hole: many at once, each acknowledged as it would be alone.
//!
//! The lcore offers the frames of a burst that belong to the connection, behind those that were predicted;
//! as many as are data above a hole, or begin to fill one, and say nothing else are taken. The first other
//! one ends the run: it goes through [`Tcb::on_segment`]. Nothing is decided here that is not decided there,
//! and in the same way.

use smallvec::SmallVec;

use crate::buf::{Owner, PacketBuf, SegCb};
use crate::tcp::{Cx, SeqNum};
use crate::wire::words::{Lens, Words};
use crate::wire::{Family, Flags, Outgoing};

use super::ack::Load;
use super::run::{PSH, flags_of};
use super::{Sink, State, Tcb, Verdict};

/// Replies that a run makes at most before it ends, to be sent.
const REPLIES: usize = 8;

/// What is to be sent for the frames of a run, in order, before anything else is looked at.
pub type Replies = SmallVec<[Outgoing; REPLIES]>;

impl<B: PacketBuf> Tcb<B> {
    /// Takes frames of this connection from the front of `frames` for as long as each is data above a hole
    /// or begins to fill one, and has nothing else to say; each as [`Self::on_segment`] would. Their places
    /// are left empty; returns their number. It ends behind one that leaves no hole, too, and when there are
    /// many `replies`, which must be none before.
    ///
    /// The frames are as those of [`Self::on_frames`].
    pub fn on_frames_at_hole(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        owner: Owner,
        sink: &mut impl Sink<B>,
        replies: &mut Replies,
    ) -> usize {
        const TIMED: usize = Words::WITH_TIMESTAMPS;
        const BARE: usize = Words::WITHOUT_OPTIONS;
        const TIMED_6: usize = Words::WITH_TIMESTAMPS_6;
        const BARE_6: usize = Words::WITHOUT_OPTIONS_6;
        match (self.family(), self.ts) {
            (Family::V4, Some(_)) => self.at_hole::<TIMED>(cx, frames, owner, sink, replies),
            (Family::V4, None) => self.at_hole::<BARE>(cx, frames, owner, sink, replies),
            (Family::V6, Some(_)) => self.at_hole::<TIMED_6>(cx, frames, owner, sink, replies),
            (Family::V6, None) => self.at_hole::<BARE_6>(cx, frames, owner, sink, replies),
        }
    }

    fn at_hole<const HEADERS: usize>(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        owner: Owner,
        sink: &mut impl Sink<B>,
        replies: &mut Replies,
    ) -> usize {
        for (at, place) in frames.iter_mut().enumerate() {
            let Some(frame) = place else { return at };
            let Some(words) = Words::read::<HEADERS>(frame.data(), Lens::ANY) else { return at };
            let seq = SeqNum::new((words.numbers >> 32) as u32);
            if !self.is_usual_at_hole::<HEADERS>(&words, seq) {
                return at;
            }
            let Some(mut buf) = place.take() else { return at };
            buf.narrow(HEADERS, words.len as usize);
            *buf.cb_mut() = SegCb { seq: seq.raw(), fin: false, rx_time: cx.now, owner };
            match self.take_at_hole(cx, &words, seq, buf, sink) {
                Verdict::Predicted | Verdict::Later => {}
                Verdict::Ack => replies.push(self.outgoing_ack(cx)),
                Verdict::Send(out) => replies.push(out),
            }
            self.check();
            if self.ofo.is_empty() || replies.len() == REPLIES {
                return at + 1;
            }
        }
        frames.len()
    }

    /// Whether a segment is above a hole or fills one, neither older than the last ACK nor beyond the edge,
    /// with nothing but ACK and perhaps PSH, the window and the ACK field as they were: all checks are passed
    /// then, and nothing is learnt. Where urgent data may go is not known here.
    #[inline(always)]
    fn is_usual_at_hole<const HEADERS: usize>(&self, words: &Words, seq: SeqNum) -> bool {
        let Words { numbers, control, ts_val, len } = *words;
        self.state == State::Established
            && !self.urgent.is_pending()
            && !self.ecn.is_on()
            && (seq.after(self.rcv_nxt) || seq == self.rcv_nxt && !self.ofo.is_empty())
            && seq.plus(len).at_or_before(self.window.right_edge())
            && control & !PSH == Words::control(HEADERS, Flags::ACK, self.snd_window)
            && numbers as u32 == self.snd_nxt.raw()
            && self.snd_una == self.snd_nxt
            && self.ts.is_none_or(|ts| ts_val.wrapping_sub(ts.recent) as i32 >= 0)
            && !self.window.is_over()
    }

    /// What follows for its header and its payload.
    #[inline(always)]
    fn take_at_hole(
        &mut self,
        cx: &mut Cx<'_>,
        words: &Words,
        seq: SeqNum,
        buf: B,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        let Words { numbers: _, control, ts_val, len } = *words;
        if seq.after(self.snd_wl1) {
            self.take_window(seq, self.snd_window);
        }
        let flags = flags_of(control);
        self.tally.data(Load::of(len, flags, &buf).segments());
        self.heard_ack(cx.now);
        if seq != self.rcv_nxt {
            return self.queue_above_hole(cx, len, flags, buf);
        }
        if seq == self.window.wup
            && let Some(ts) = &mut self.ts
        {
            ts.learn(ts_val, cx.now);
        }
        self.on_text_in_order(cx, len, flags, buf, sink)
    }
}
