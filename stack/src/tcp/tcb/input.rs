//! What becomes of a segment: header prediction, then the checks, then one of five cases.
//!
//! The lcore calls it for every segment of the connection, as its owner. Buffers leave it into the
//! sink, the receive queue, the out-of-order queue, or are dropped; nothing is sent from here.

use std::mem;
use std::ops::ControlFlow;

use crate::buf::{BufQueue, PacketBuf, advance};
use crate::tcp::ofo::{COPY_LIMIT, Outcome, Walk};
use crate::tcp::{Counter, Cx, SeqNum, SeqRange};
use crate::wire::{Flags, Segment};

use super::ack::Load;
use super::urgent::Gate;
use super::{Owed, Sink, State, Tcb, UNPREDICTABLE, Verdict};

/// The prediction for a peer whose last window field was `window`: that window, and ACK alone.
pub(super) const fn predicted_header(window: u16) -> u32 {
    header(window, Flags::ACK)
}

/// What is compared with the prediction: PSH makes no difference.
const fn header(window: u16, flags: Flags) -> u32 {
    (window as u32) << 8 | (flags.0 & !Flags::PSH.0) as u32
}

impl<B: PacketBuf> Tcb<B> {
    /// A segment of this connection, and its payload in a buffer from which the headers are
    /// trimmed: `buf.len() == seg.len`. The socket, generation and arrival time in the control
    /// block are the caller's.
    #[inline(always)]
    pub fn on_segment(
        &mut self,
        cx: &mut Cx<'_>,
        seg: &Segment,
        buf: B,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        debug_assert_eq!(buf.len(), seg.len as usize, "payload and header disagree");
        if self.is_predicted(seg) {
            self.on_predicted(cx, seg, buf, sink);
            self.check();
            return Verdict::Predicted;
        }
        // Handed over as a copy, so that the predicted segment can stay in registers.
        let verdict = self.on_unpredicted(cx, *seg, buf, sink);
        self.check();
        verdict
    }

    /// Whether the segment is the next in order of a connection in which nothing else goes on.
    ///
    /// We have no data to send: in ESTABLISHED the one ACK field that says nothing is SND.NXT.
    /// Older ones, however old, are for the checks (RFC 5961 §5).
    #[inline(always)]
    pub(super) fn is_predicted(&self, seg: &Segment) -> bool {
        self.matches_prediction(seg)
            && seg.ack == self.snd_nxt.raw()
            // What is in order in ESTABLISHED never passed the edge.
            && seg.len <= self.window.right_edge().since(self.rcv_nxt)
            && self.window.rmem < self.window.rcvbuf
            && match (&self.ts, seg.ts) {
                (None, _) => true,
                (Some(ts), Some(option)) => option.val.wrapping_sub(ts.recent) as i32 >= 0,
                (Some(_), None) => false,
            }
    }

    /// Whether header and number are those of the next in order.
    #[inline(always)]
    pub(super) fn matches_prediction(&self, seg: &Segment) -> bool {
        header(seg.window, seg.flags) == self.prediction && seg.seq == self.rcv_nxt.raw()
    }

    #[inline(always)]
    fn on_predicted(
        &mut self,
        cx: &mut Cx<'_>,
        seg: &Segment,
        mut buf: B,
        sink: &mut impl Sink<B>,
    ) {
        self.begin_predicted(cx, seg);
        if seg.len == 0 {
            cx.counters.bump(Counter::TCPHPAcks);
            self.tally.bare();
            self.heard_ack(cx.now);
            return;
        }
        cx.counters.bump(Counter::TCPHPHits);
        if let Some(ts) = seg.ts {
            self.on_echo(cx.now, ts, seg.len);
        }
        let load = Load::of(seg.len, seg.flags, &buf);
        self.tally.data(load.segments());
        let cb = buf.cb_mut();
        cb.seq = seg.seq;
        cb.fin = false;
        self.enqueue(cx, buf, sink);
        self.end_predicted(cx, seg, load);
    }

    /// What the header of a predicted segment says.
    #[inline(always)]
    pub(super) fn begin_predicted(&mut self, cx: &Cx<'_>, seg: &Segment) {
        if self.rcv_nxt == self.window.wup
            && let (Some(ts), Some(option)) = (&mut self.ts, seg.ts)
        {
            ts.learn(option.val, cx.now);
        }
        self.snd_wl1 = self.rcv_nxt;
    }

    /// Goes on behind a predicted segment whose payload has been queued.
    #[inline(always)]
    pub(super) fn end_predicted(&mut self, cx: &Cx<'_>, seg: &Segment, load: Load) {
        self.rcv_nxt = self.rcv_nxt.plus(seg.len);
        self.on_window_progress(cx.now);
        self.ack.on_data(cx, &mut self.window, load, &self.closing);
        if self.ecn.is_on() {
            self.note_mark(seg.ecn);
        }
    }

    #[cold]
    #[inline(never)]
    fn on_unpredicted(
        &mut self,
        cx: &mut Cx<'_>,
        seg: Segment,
        mut buf: B,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        let seg = &seg;
        match seg.len {
            0 => self.tally.bare(),
            len => self.tally.data(Load::of(len, seg.flags, &buf).segments()),
        }
        if matches!(self.state, State::Closed | State::TimeWait) {
            return Verdict::Later;
        }
        if let Err(verdict) = self.admit_text(cx, seg) {
            return verdict;
        }
        let cb = buf.cb_mut();
        cb.seq = seg.seq;
        cb.fin = seg.flags.has(Flags::FIN);
        let mut gate = Gate { is_open: !self.urgent.is_pending(), sink };
        if self.ecn.is_on() {
            return self.minding_marks(seg, |tcb| tcb.on_text(cx, seg, buf, &mut gate));
        }
        self.on_text(cx, seg, buf, &mut gate)
    }

    /// Everything before the payload; `Err` if the segment ends there, or has neither payload nor FIN.
    pub(super) fn admit_text(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        if let Err(verdict) = self.validate(cx, seg) {
            self.tally.dropped();
            return Err(verdict);
        }
        self.on_cwr(seg);
        self.on_urgent(cx, seg);
        if seg.len == 0 && !seg.flags.has(Flags::FIN) {
            return Err(Verdict::Later);
        }
        if let Some(ts) = seg.ts {
            self.on_echo(cx.now, ts, seg.len);
        }
        self.on_text_after_close(cx, seg).map_or(Ok(()), Err)
    }

    /// Payload or FIN in a state in which not all of it is welcome.
    fn on_text_after_close(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Option<Verdict> {
        let ignores = match self.state {
            State::Established => return None,
            State::FinWait1 | State::FinWait2 => false,
            State::CloseWait | State::Closing | State::LastAck => true,
            State::TimeWait | State::Closed => return Some(Verdict::Later),
        };
        let seq = SeqNum::new(seg.seq);
        if ignores && seq.at_or_after(self.rcv_nxt) {
            return Some(Verdict::Later);
        }
        let nobody_reads = ignores || self.wants.read_shut;
        // A FIN above a hole speaks of data that is to come.
        let is_new = seq.plus(seg.len).after(self.rcv_nxt);
        if nobody_reads && is_new {
            return Some(self.refuse_data(cx, seg));
        }
        // A stream has one FIN: what stands behind it, be it another, has no number to take.
        let beyond = ignores && SeqNum::new(seg.end_seq()).after(self.rcv_nxt);
        beyond.then(|| self.on_duplicate(cx, SeqRange::new(seq, self.rcv_nxt)))
    }

    /// The five cases: in order, duplicate, beyond the window, overlapping rcv_nxt, above a hole
    /// (RFC 9293 §3.10.7.4, seventh and eighth step).
    pub(super) fn on_text(
        &mut self,
        cx: &mut Cx<'_>,
        seg: &Segment,
        mut buf: B,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        let (seq, end) = (SeqNum::new(seg.seq), SeqNum::new(seg.end_seq()));
        let open = self.window.open(self.rcv_nxt);
        self.forget_late_dsack();
        if seq == self.rcv_nxt {
            // A bare FIN takes no memory: it is taken even if the window is closed.
            if open == 0 && seg.len > 0 {
                self.drop_segment(cx, Counter::TCPZeroWindowDrop);
                self.ack.enter_quick(&self.window);
                return Verdict::Later;
            }
            return self.on_text_in_order(cx, seg.len, seg.flags, buf, sink);
        }
        if end.at_or_before(self.rcv_nxt) {
            self.tally.dropped();
            return self.on_duplicate(cx, SeqRange::new(seq, end));
        }
        if seq.at_or_after(self.rcv_nxt.plus(open)) {
            self.tally.dropped();
            self.ack.enter_quick(&self.window);
            return self.answer(None);
        }
        if seq.after(self.rcv_nxt) {
            return self.on_text_out_of_order(cx, seg, buf);
        }
        // Some of it is old. The report is made before that is cut off.
        let earlier = self.note_dsack(cx, SeqRange::new(seq, self.rcv_nxt));
        let verdict = if open == 0 && seq.plus(seg.len).after(self.rcv_nxt) {
            self.drop_segment(cx, Counter::TCPZeroWindowDrop);
            self.ack.enter_quick(&self.window);
            Verdict::Later
        } else {
            let old = self.rcv_nxt.since(seq) as usize;
            buf.trim_front(old.min(buf.len()));
            buf.cb_mut().seq = self.rcv_nxt.raw();
            self.on_text_in_order(cx, seg.len, seg.flags, buf, sink)
        };
        match earlier {
            Some(ack) => {
                self.ack.owe(Owed::NOW);
                Verdict::Send(ack)
            }
            None => verdict,
        }
    }

    /// Case 1: the buffer starts at rcv_nxt.
    pub(super) fn on_text_in_order(
        &mut self,
        cx: &mut Cx<'_>,
        len: u32,
        flags: Flags,
        mut buf: B,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        let load = Load::of(len, flags, &buf);
        if !buf.is_empty() {
            match self.admit(cx, buf) {
                Admission::Admitted(admitted) => buf = admitted,
                Admission::Copied { len, fin } => {
                    self.rcv_nxt = self.rcv_nxt.plus(len);
                    return self.has_advanced(cx, len, fin, load, sink);
                }
                Admission::Refused => return Verdict::Later,
            }
        } else if self.window.is_over() && !self.reclaim(cx, self.rcv_nxt) {
            // A bare FIN is taken, but where there was no room for more the peer had better know.
            self.ack.owe(Owed::NOW.with(Owed::NO_MEMORY));
        }
        let (len, fin) = (buf.len() as u32, buf.cb().fin);
        if len > 0 {
            self.enqueue(cx, buf, sink);
        }
        self.rcv_nxt = self.rcv_nxt.plus(len);
        self.has_advanced(cx, len, fin, load, sink)
    }

    /// `len` bytes, and perhaps the FIN, have been taken: rcv_nxt is behind the bytes.
    pub(super) fn has_advanced(
        &mut self,
        cx: &mut Cx<'_>,
        len: u32,
        fin: bool,
        load: Load,
        sink: &mut impl Sink<B>,
    ) -> Verdict {
        if len > 0 {
            self.on_window_progress(cx.now);
            self.ack.on_data(cx, &mut self.window, load, &self.closing);
        }
        if fin {
            self.on_fin();
        } else if !self.ofo.is_empty() {
            self.pull_ready(cx, sink);
        }
        self.predict();
        // A socket in TIME-WAIT is about to be replaced by its record: the ACK must not be lost.
        if self.state == State::TimeWait { Verdict::Ack } else { Verdict::Later }
    }

    /// Moves what a filled hole has made in sequence out of the out-of-order queue.
    fn pull_ready(&mut self, cx: &mut Cx<'_>, sink: &mut impl Sink<B>) {
        let reports = self.sack_ok && cx.settings.tcp_dsack;
        let mut walk = Walk::new(self.rcv_nxt, self.dsack);
        if self.queues_all(sink) {
            let run = self.ofo.take_run(&mut self.rcv_nxt);
            let queued = self.receive.push_each(run);
            if queued > 0 {
                cx.counters.add(Counter::ToReceiveQueue, queued as u64);
                // They stay charged, but the reader can win them back now.
                self.window.note_freed();
            }
        }
        let mut ends = false;
        let mut ofo = mem::take(&mut self.ofo);
        ofo.drain_ready(&mut walk, self.rcv_nxt, |buf| {
            let (len, fin) = (buf.len() as u32, buf.cb().fin);
            self.window.uncharge(buf.truesize());
            if len > 0 {
                self.enqueue(cx, buf, sink);
            }
            self.rcv_nxt = self.rcv_nxt.plus(len);
            ends = fin;
            if fin { ControlFlow::Break(()) } else { ControlFlow::Continue(self.rcv_nxt) }
        });
        self.ofo = ofo;
        if ends {
            self.on_fin();
        }
        self.window.uncharge(walk.freed);
        if reports && let Some(range) = walk.dsack {
            if self.dsack.is_none() {
                self.count_dsack(cx, range);
            }
            // A FIN ends all reports.
            self.dsack = walk.dsack.filter(|_| !self.wants.eof);
        }
        if self.ofo.is_empty() {
            // RFC 5681 §4.2: an ACK at once when a gap is filled.
            self.ack.owe(Owed::NOW);
            self.sack.clear();
        } else {
            self.sack.advance(self.rcv_nxt);
        }
    }

    /// Case 5: there is a hole below.
    #[inline(never)]
    fn on_text_out_of_order(&mut self, cx: &mut Cx<'_>, seg: &Segment, buf: B) -> Verdict {
        let seq = SeqNum::new(seg.seq);
        if self.window.is_over() && !self.reclaim(cx, seq) {
            self.drop_segment(cx, Counter::TCPOFODrop);
            return Verdict::Later;
        }
        self.queue_above_hole(cx, seg.len, seg.flags, buf)
    }

    /// Queues a segment above a hole, all of which is inside the window.
    #[inline(always)] // into the run of such segments, and once elsewhere
    pub(super) fn queue_above_hole(
        &mut self,
        cx: &mut Cx<'_>,
        len: u32,
        flags: Flags,
        buf: B,
    ) -> Verdict {
        let load = Load::of(len, flags, &buf);
        self.tally.out_of_order += load.segments();
        self.forget_late_dsack();
        self.ack.measure(&mut self.window, load);
        match self.ofo.push(buf) {
            Ok(range) => {
                // Without SACK a window that grows would make a duplicate ACK an update. Before the segment
                // is charged, as in Linux.
                if self.sack_ok {
                    self.ack.grow(cx, &mut self.window, load);
                }
                self.window.charge(load.truesize);
                cx.counters.bump(Counter::TCPOFOQueue);
                self.queued_above_hole(cx, range, None)
            }
            Err(buf) => self.insert_above_hole(cx, load, buf),
        }
    }

    /// The same of a segment that belongs among others, or may be copied.
    #[inline(never)]
    fn insert_above_hole(&mut self, cx: &mut Cx<'_>, load: Load, buf: B) -> Verdict {
        let inserted = self.ofo.insert(buf);
        if inserted.outcome == Outcome::Full {
            self.drop_segment(cx, Counter::TCPOFODrop);
            return Verdict::Later;
        }
        let is_new = inserted.outcome == Outcome::Queued;
        if is_new {
            self.window.uncharge(inserted.freed);
        }
        if self.sack_ok && inserted.outcome != Outcome::Duplicate {
            self.ack.grow(cx, &mut self.window, load);
        }
        self.window.charge(load.truesize);
        if !is_new {
            self.window.uncharge(inserted.freed);
        }
        cx.counters.bump(Counter::TCPOFOQueue);
        cx.counters.add(Counter::TCPOFOMerge, u64::from(inserted.merged));
        if inserted.outcome == Outcome::Merged {
            cx.counters.bump(Counter::TCPRcvCoalesce);
        }
        self.queued_above_hole(cx, inserted.range, inserted.dsack)
    }

    /// What follows when a segment with these numbers was queued, of which `duplicate` was there.
    #[inline(always)]
    pub(super) fn queued_above_hole(
        &mut self,
        cx: &mut Cx<'_>,
        range: SeqRange,
        duplicate: Option<SeqRange>,
    ) -> Verdict {
        // It stays so until the hole is filled.
        if self.prediction != UNPREDICTABLE {
            self.predict();
        }

        let mut earlier = duplicate.and_then(|range| self.note_dsack(cx, range));
        if self.sack_ok {
            // A range that comes to stand before two others would keep one of them out of the option
            // of an ACK that was held back: that one goes first, as it would have been.
            if self.holds_acks_back() && self.sack.place_of(range) >= 2 {
                earlier = Some(self.outgoing_ack(cx));
            }
            self.sack.note(range);
        }
        self.make_room_above_hole(cx);
        let is_due = duplicate.is_some() || self.is_duplicate_ack_due(cx);
        if is_due {
            self.ack.owe(Owed::NOW);
        }
        match earlier {
            Some(ack) => Verdict::Send(ack),
            None if is_due => Verdict::Ack,
            None => Verdict::Later,
        }
    }

    /// Whether what is in sequence goes to the receive queue, unless it is small.
    #[inline(always)]
    fn queues_all(&self, sink: &impl Sink<B>) -> bool {
        !self.receive.is_empty() || (sink.refuses_all() && !sink.copies())
    }

    /// Takes an in-sequence buffer against the memory limit.
    pub(super) fn admit(&mut self, cx: &mut Cx<'_>, buf: B) -> Admission<B> {
        if !self.window.is_over() || self.reclaim(cx, self.rcv_nxt) {
            return Admission::Admitted(buf);
        }
        let (len, fin) = (buf.len() as u32, buf.cb().fin);
        if self.copy_into_tail(cx, &buf) {
            return Admission::Copied { len, fin };
        }
        // The next ACK closes the window, or the peer would only send more to be dropped.
        self.ack.owe(Owed::NOW.with(Owed::NO_MEMORY));
        if !self.has_unread() {
            // The reader could not win anything back: without this one the stream would stand still.
            return Admission::Admitted(buf);
        }
        self.drop_segment(cx, Counter::TCPRcvQDrop);
        Admission::Refused
    }

    /// Counts a segment that is dropped.
    pub(super) fn drop_segment(&mut self, cx: &mut Cx<'_>, reason: Counter) {
        cx.counters.bump(reason);
        self.tally.dropped();
    }

    /// Wins memory back for a segment that starts at `incoming`; tells whether it was enough.
    ///
    /// An eighth of the buffer at once, so that a flood of tiny segments pays for it once in many.
    pub(super) fn reclaim(&mut self, cx: &mut Cx<'_>, incoming: SeqNum) -> bool {
        cx.counters.bump(Counter::PruneCalled);
        self.window.tighten(u32::from(self.ack.advmss));
        let excess = self.window.rmem - self.window.rcvbuf;
        let pruned = self.ofo.prune(excess.max(self.window.rcvbuf / 8), incoming);
        if pruned.segments > 0 {
            cx.counters.bump(Counter::OfoPruned);
            self.window.uncharge(pruned.freed);
            self.sack.clear();
        }
        let enough = !self.window.is_over();
        if !enough {
            cx.counters.bump(Counter::RcvPruned);
        }
        enough
    }

    /// Hands an in-sequence buffer on and charges it: to the sink if nothing older waits, else to
    /// the receive queue. A small one goes there too when the reader is behind, to be copied to
    /// those before it, whether there is a sink or not.
    #[inline(always)]
    pub(super) fn enqueue(&mut self, cx: &mut Cx<'_>, mut buf: B, sink: &mut impl Sink<B>) {
        let truesize = buf.truesize();
        let copies = buf.len() <= COPY_LIMIT && self.window.rmem > copy_from(self.window.rcvbuf);
        if copies {
            if self.copy_into_tail(cx, &buf) {
                return;
            }
        } else if self.receive.is_empty() {
            match sink.push(buf) {
                Ok(()) => {
                    cx.counters.bump(Counter::ToPrequeue);
                    self.window.charge(truesize);
                    return;
                }
                Err(refused) => buf = refused,
            }
            if sink.copies() {
                match self.copy_to_reader(cx, buf, sink) {
                    Some(rest) => buf = rest,
                    None => return,
                }
            }
        }
        cx.counters.bump(Counter::ToReceiveQueue);
        self.window.charge(truesize);
        self.receive.push_back(buf);
    }

    /// Copies to a reader that waits; what is left of the buffer, if anything. What was copied is never
    /// charged.
    #[cold]
    #[inline(never)]
    fn copy_to_reader(
        &mut self,
        cx: &mut Cx<'_>,
        mut buf: B,
        sink: &mut impl Sink<B>,
    ) -> Option<B> {
        let n = sink.copy(&buf);
        if n == 0 {
            return Some(buf);
        }
        cx.counters.bump(Counter::DirectCopies);
        cx.counters.add(Counter::DirectCopiedBytes, n as u64);
        if n == buf.len() {
            return None;
        }
        advance(&mut buf, n);
        Some(buf)
    }

    /// Copies a payload behind the last one queued if that buffer has the room: a small one would
    /// pin a whole buffer of its own.
    fn copy_into_tail(&mut self, cx: &mut Cx<'_>, buf: &B) -> bool {
        if !self.receive.extend_back(buf.data(), buf.cb().fin) {
            return false;
        }
        cx.counters.bump(Counter::TCPRcvCoalesce);
        true
    }
}

/// The truesize charged beyond which small payloads are copied together: the reader is so far behind
/// then. Until then it will have read them sooner than a copy could pay.
pub(super) const fn copy_from(rcvbuf: u32) -> u32 {
    /// However large the buffer is: 64-byte messages that stay apart cost 38 times what they carry.
    const AT_MOST: u32 = 256 * 1024;
    let quarter = rcvbuf / 4;
    if quarter < AT_MOST { quarter } else { AT_MOST }
}

/// Whether an in-sequence buffer may be kept.
pub(super) enum Admission<B> {
    /// It may.
    Admitted(B),
    /// Its bytes were copied behind the last ones queued; the buffer is gone.
    Copied { len: u32, fin: bool },
    /// It was dropped.
    Refused,
}
