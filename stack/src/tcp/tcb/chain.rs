//! Segments whose payload lies in several buffers: judged as one, queued buffer by buffer.
//!
//! Given by the lcore what a device or the reassembly has left in a chain. The checks, the ACK, the
//! report of a duplicate and what is learnt of the peer are those of one segment; only memory is taken
//! buffer by buffer, so that what is queued is never a chain.

use smallvec::SmallVec;

use crate::buf::PacketBuf;
use crate::tcp::ofo::Outcome;
use crate::tcp::{Counter, Cx, SeqNum, SeqRange};
use crate::wire::{Flags, Segment};

use super::ack::Load;
use super::input::Admission;
use super::urgent::Gate;
use super::{Owed, Sink, State, Tcb, UNPREDICTABLE, Verdict};

/// Buffers of a segment: five for a jumbo frame of 9000 bytes in the usual ones.
type Pieces<B> = SmallVec<[B; 6]>;

impl<B: PacketBuf> Tcb<B> {
    /// A segment of this connection, as [`on_segment`](Self::on_segment), whose payload is all of a
    /// chain of buffers: their lengths add up to `seg.len`.
    pub fn on_chain(
        &mut self,
        cx: &mut Cx<'_>,
        seg: &Segment,
        chain: B,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        let mut pieces = apart(chain, seg);
        self.tally.data(1);
        let verdict = if self.is_predicted(seg) && !pieces.is_empty() {
            self.on_predicted_chain(cx, seg, pieces, sink);
            Verdict::Predicted
        } else if matches!(self.state, State::Closed | State::TimeWait) {
            Verdict::Later
        } else if let Err(verdict) = self.admit_text(cx, seg) {
            verdict
        } else {
            let mut gate = Gate { is_open: !self.urgent.is_pending(), sink };
            let mut take = |tcb: &mut Self| tcb.on_text_in_pieces(cx, seg, &mut pieces, &mut gate);
            if self.ecn.is_on() { self.minding_marks(seg, take) } else { take(self) }
        };
        self.check();
        verdict
    }

    /// What header prediction does with one buffer.
    fn on_predicted_chain(
        &mut self,
        cx: &mut Cx<'_>,
        seg: &Segment,
        pieces: Pieces<B>,
        sink: &mut impl Sink<B>,
    ) {
        self.begin_predicted(cx, seg);
        cx.counters.bump(Counter::TCPHPHits);
        if let Some(ts) = seg.ts {
            self.on_echo(cx.now, ts, seg.len);
        }
        let load = Load::of_many(seg.len, seg.flags, truesize(&pieces));
        for piece in pieces {
            self.enqueue(cx, piece, sink);
        }
        self.end_predicted(cx, seg, load);
    }

    /// The five cases: see `on_text`, of which this is the form for many buffers.
    fn on_text_in_pieces(
        &mut self,
        cx: &mut Cx<'_>,
        seg: &Segment,
        pieces: &mut Pieces<B>,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        let (seq, end) = (SeqNum::new(seg.seq), SeqNum::new(seg.end_seq()));
        let open = self.window.open(self.rcv_nxt);
        let load = Load::of_many(seg.len, seg.flags, truesize(pieces));
        self.forget_late_dsack();
        if end.at_or_before(self.rcv_nxt) {
            self.tally.dropped();
            return self.on_duplicate(cx, SeqRange::new(seq, end));
        }
        if seq.after(self.rcv_nxt) {
            if seq.at_or_after(self.rcv_nxt.plus(open)) {
                self.tally.dropped();
                self.ack.enter_quick(&self.window);
                return self.answer(None);
            }
            return self.queue_pieces_above_hole(cx, load, pieces);
        }
        let earlier = if seq.before(self.rcv_nxt) {
            self.note_dsack(cx, SeqRange::new(seq, self.rcv_nxt))
        } else {
            None
        };
        let verdict = if open == 0 && seq.plus(seg.len).after(self.rcv_nxt) {
            self.drop_segment(cx, Counter::TCPZeroWindowDrop);
            self.ack.enter_quick(&self.window);
            Verdict::Later
        } else {
            cut_front(pieces, self.rcv_nxt);
            self.take_pieces_in_order(cx, load, pieces, sink)
        };
        match earlier {
            Some(ack) => {
                self.ack.owe(Owed::NOW);
                Verdict::Send(ack)
            }
            None => verdict,
        }
    }

    /// The first buffer starts at rcv_nxt. Those that there is memory for are taken.
    fn take_pieces_in_order(
        &mut self,
        cx: &mut Cx<'_>,
        load: Load,
        pieces: &mut Pieces<B>,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        let (mut taken, mut fin) = (0, false);
        // What is pulled out of the out-of-order queue, and the FIN, come when all are taken.
        self.prediction = UNPREDICTABLE;
        for piece in pieces.drain(..) {
            let (len, ends) = (piece.len() as u32, piece.cb().fin);
            if len > 0 {
                match self.admit(cx, piece) {
                    Admission::Admitted(piece) => self.enqueue(cx, piece, sink),
                    Admission::Copied { .. } => {}
                    Admission::Refused => break,
                }
            }
            self.rcv_nxt = self.rcv_nxt.plus(len);
            (taken, fin) = (taken + len, ends);
        }
        if taken == 0 && !fin {
            self.predict();
            return Verdict::Later;
        }
        self.has_advanced(cx, taken, fin, load, sink)
    }

    /// Queues all above a hole, with one ACK, one SACK block and one duplicate's report in the end.
    fn queue_pieces_above_hole(
        &mut self,
        cx: &mut Cx<'_>,
        load: Load,
        pieces: &mut Pieces<B>,
    ) -> Verdict {
        let Some(first) = pieces.first() else { return Verdict::Later };
        if self.window.is_over() && !self.reclaim(cx, SeqNum::new(first.cb().seq)) {
            self.drop_segment(cx, Counter::TCPOFODrop);
            return Verdict::Later;
        }
        self.tally.out_of_order += 1;
        self.ack.measure(&mut self.window, load);
        let (mut range, mut dsack): (Option<SeqRange>, Option<SeqRange>) = (None, None);
        let (mut charged, mut freed, mut is_new) = (0, 0, false);
        for piece in pieces.drain(..) {
            let charge = piece.truesize();
            let inserted = self.ofo.insert(piece);
            if inserted.outcome == Outcome::Full {
                break;
            }
            charged += charge;
            freed += inserted.freed;
            is_new |= inserted.outcome == Outcome::Queued;
            cx.counters.add(Counter::TCPOFOMerge, u64::from(inserted.merged));
            range = Some(match range {
                Some(range) => SeqRange::new(range.start, inserted.range.end),
                None => inserted.range,
            });
            // One duplicate of a segment is reported, the first (RFC 2883 §4).
            dsack = match (dsack, inserted.dsack) {
                (Some(first), Some(next)) if first.end == next.start => {
                    Some(SeqRange::new(first.start, next.end))
                }
                (first, next) => first.or(next),
            };
        }
        let Some(range) = range else {
            self.drop_segment(cx, Counter::TCPOFODrop);
            return Verdict::Later;
        };
        // Before the segment is charged, as of one buffer.
        if self.sack_ok && is_new && dsack != Some(range) {
            self.ack.grow(cx, &mut self.window, load);
        }
        self.window.charge(charged);
        self.window.uncharge(freed);
        cx.counters.bump(Counter::TCPOFOQueue);
        self.queued_above_hole(cx, range, dsack)
    }
}

/// Takes a chain apart. Each buffer is told its place, and is charged to whom the first says.
fn apart<B: PacketBuf>(mut chain: B, seg: &Segment) -> Pieces<B> {
    let owner = *chain.cb();
    let mut pieces = Pieces::new();
    let mut seq = seg.seq;
    loop {
        let rest = chain.take_rest();
        if !chain.is_empty() {
            let cb = chain.cb_mut();
            *cb = owner;
            cb.seq = seq;
            cb.fin = false;
            seq = seq.wrapping_add(chain.len() as u32);
            pieces.push(chain);
        }
        match rest {
            Some(rest) => chain = rest,
            None => break,
        }
    }
    debug_assert_eq!(seq, seg.seq.wrapping_add(seg.len), "payload and header disagree");
    if let Some(last) = pieces.last_mut() {
        last.cb_mut().fin = seg.flags.has(Flags::FIN);
    }
    pieces
}

/// Drops what is before `rcv_nxt`.
fn cut_front<B: PacketBuf>(pieces: &mut Pieces<B>, rcv_nxt: SeqNum) {
    let end = |piece: &B| SeqNum::new(piece.cb().seq).plus(piece.len() as u32);
    let last = pieces.len() - 1;
    let mut at = 0;
    // The last one may be left with nothing but the FIN.
    pieces.retain(|piece| {
        at += 1;
        end(piece).after(rcv_nxt) || at > last
    });
    if let Some(first) = pieces.first_mut() {
        let old = rcv_nxt.offset_from(SeqNum::new(first.cb().seq)).max(0) as usize;
        first.trim_front(old.min(first.len()));
        first.cb_mut().seq = rcv_nxt.raw();
    }
}

fn truesize<B: PacketBuf>(pieces: &Pieces<B>) -> u32 {
    pieces.iter().map(B::truesize).sum()
}
