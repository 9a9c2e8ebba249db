//! Which segments are looked at further: PAWS, sequence, RST, SYN, ACK, in the order of the RFC.
//!
//! The slow path asks it first for every segment, once, on the lcore. It answers invalid segments,
//! at most twice a second where they are empty, and takes no payload.

use crate::buf::PacketBuf;
use crate::tcp::{Counter, Cx, SeqNum, SeqRange, reset};
use crate::wire::{Flags, Outgoing, Segment};

use super::{ConnError, Owed, State, Tcb, Verdict};

/// PAWS rejects what is older than TS.Recent by more ticks than this; Linux tolerates one step
/// back, which some stacks make when segments leave on several processors.
const TOLERANCE: i32 = 1;

impl<B: PacketBuf> Tcb<B> {
    /// The checks of RFC 9293 §3.10.7.4 up to the ACK field; `Err` if the segment ends there.
    pub(super) fn validate(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        if !seg.flags.any(Flags::ACK.with(Flags::RST).with(Flags::SYN)) {
            return Err(Verdict::Later);
        }
        self.check_timestamp(cx, seg)?;
        self.check_sequence(cx, seg)?;
        if seg.flags.has(Flags::RST) {
            return Err(self.on_rst(cx, seg));
        }
        if seg.flags.has(Flags::SYN) {
            return Err(self.on_syn(cx));
        }
        if !seg.flags.has(Flags::ACK) {
            return Err(Verdict::Later);
        }
        self.check_ack(cx, seg)?;
        self.learn_timestamp(cx, seg);
        self.on_ack(cx, seg)
    }

    /// PAWS (RFC 7323 §5.3). A RST is never dropped by it; a segment without timestamps is
    /// accepted although the connection negotiated them, as Linux does.
    fn check_timestamp(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        let (Some(ts), Some(option)) = (&self.ts, seg.ts) else {
            return Ok(());
        };
        if !ts.rejects(option.val, cx.now, TOLERANCE) || seg.flags.has(Flags::RST) {
            return Ok(());
        }
        if seg.flags.has(Flags::SYN) {
            return Err(self.on_syn(cx));
        }
        let age = ts.recent.wrapping_sub(option.val);
        if is_pure_ack(seg) {
            let seq = SeqNum::new(seg.seq);
            if seq.before(self.rcv_nxt) {
                // Old ACKs are common where the path reorders; they deserve no answer.
                cx.counters.bump(Counter::PAWSOldAck);
                return Err(Verdict::Later);
            }
            if seq == self.rcv_nxt && self.repeats_last_ack(seg) && age <= self.replay_window() {
                return Ok(());
            }
        }
        cx.counters.bump(Counter::PAWSEstab);
        Err(self.reply_to_unacceptable(cx, seg, Counter::TCPACKSkippedPAWS))
    }

    /// Whether an ACK says nothing new: such a duplicate may have been overtaken on its way.
    fn repeats_last_ack(&self, seg: &Segment) -> bool {
        SeqNum::new(seg.ack) == self.snd_una && !self.updates_window(seg)
    }

    /// How old in ticks an overtaken duplicate ACK may be: 1.2 retransmission timeouts.
    fn replay_window(&self) -> u32 {
        let rto = self.closing.rto_ms();
        rto + rto / 5
    }

    /// The acceptability test of RFC 9293 §3.4, with Linux's bounds: the number behind the segment
    /// not before the last ACK sent, and none of it but a FIN beyond the right edge.
    fn check_sequence(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        let seq = SeqNum::new(seg.seq);
        let old = SeqNum::new(seg.end_seq()).before(self.window.wup);
        let beyond = !old && self.is_beyond(seg);
        if !beyond && !old {
            return Ok(());
        }
        if seg.flags.has(Flags::RST) {
            if self.is_rst_at_fin(seq) {
                self.reset(cx);
            }
            return Err(Verdict::Later);
        }
        if seg.flags.has(Flags::SYN) {
            return Err(self.on_syn(cx));
        }
        if beyond {
            cx.counters.bump(Counter::BeyondWindow);
            self.heed_at_edge(cx, seg)?;
        }
        Err(self.reply_to_unacceptable(cx, seg, Counter::TCPACKSkippedSeq))
    }

    /// Whether the segment has more than its FIN beyond the right edge. One that starts inside, or
    /// at it, is taken whole while nothing is unread, as in Linux since 6.18: a sender that
    /// overshoots is not to starve a small buffer.
    fn is_beyond(&self, seg: &Segment) -> bool {
        let edge = self.right_edge();
        let fin = u32::from(seg.flags.has(Flags::FIN));
        SeqNum::new(seg.end_seq()).minus(fin).after(edge)
            && (SeqNum::new(seg.seq).after(edge) || self.has_unread())
    }

    /// Whether anything in sequence is charged: it was not read, or is still in a reader's hands.
    pub(super) fn has_unread(&self) -> bool {
        self.window.rmem > self.ofo.truesize()
    }

    /// What has no room for its payload at rcv_nxt, such as a probe of a closed window, has an ACK
    /// and an urgent pointer all the same (RFC 9293 §3.10.7.4, MUST-66).
    fn heed_at_edge(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        let at_edge = SeqNum::new(seg.seq) == self.rcv_nxt && seg.flags.has(Flags::ACK);
        // Where the number decides on the answer, a bad ACK field is not heeded, and no more.
        if !at_edge || !self.accepts_ack(seg) {
            return Ok(());
        }
        self.on_ack(cx, seg)?;
        self.on_urgent(cx, seg);
        Ok(())
    }

    /// A RST (RFC 5961 §3): believed only where an off-path attacker is unlikely to hit.
    fn on_rst(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Verdict {
        let seq = SeqNum::new(seg.seq);
        let at_highest_sack = self.sack_ok && self.sack.highest_right_edge() == Some(seq);
        if seq == self.rcv_nxt || self.is_rst_at_fin(seq) || at_highest_sack {
            self.reset(cx);
            return Verdict::Later;
        }
        self.challenge(cx)
    }

    /// Whether a RST repeats the number of the peer's FIN, as stacks do that reset after close.
    fn is_rst_at_fin(&self, seq: SeqNum) -> bool {
        seq.plus(1) == self.rcv_nxt && self.state.after_peer_fin()
    }

    fn reset(&mut self, cx: &mut Cx<'_>) {
        let error = match self.state {
            State::CloseWait => ConnError::BrokenPipe,
            _ => ConnError::Reset,
        };
        self.die(cx, Some(error));
    }

    /// A SYN in a synchronised state, whatever its number (RFC 5961 §4).
    fn on_syn(&mut self, cx: &mut Cx<'_>) -> Verdict {
        if self.state == State::Established {
            cx.counters.bump(Counter::InErrs);
        }
        cx.counters.bump(Counter::TCPSYNChallenge);
        self.challenge(cx)
    }

    /// The ACK field must lie in [SND.UNA − MAX.SND.WND, SND.NXT] (RFC 5961 §5). It may not reach
    /// further back than what the peer has ever acknowledged, as Linux has it since 6.8: of us that is but
    /// the FIN. What header prediction takes in Linux, it takes without looking so closely; but never the
    /// first payload of all, for which no memory is reserved yet.
    pub(super) fn check_ack(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        if self.accepts_ack(seg) { Ok(()) } else { Err(self.challenge(cx)) }
    }

    fn accepts_ack(&self, seg: &Segment) -> bool {
        let ack = SeqNum::new(seg.ack);
        let back = if self.is_foreseen(seg) && self.has_taken_payload() {
            self.max_window
        } else {
            self.max_window.min(u32::from(self.state == State::FinWait2))
        };
        !ack.after(self.snd_nxt) && !ack.before(self.snd_una.minus(back))
    }

    /// Whether any payload has been kept, in sequence or above a hole.
    fn has_taken_payload(&self) -> bool {
        self.window.rmem != 0 || self.tally.has_received() || self.rcv_nxt != self.window.wup
    }

    /// Whether the segment is what the fast path waits for, but for its ACK field.
    fn is_foreseen(&self, seg: &Segment) -> bool {
        seg.len > 0 && self.matches_prediction(seg)
    }

    /// TS.Recent is what the segment carries that the next ACK acknowledges first (RFC 7323 §4.3):
    /// not one above a hole, nor a second one since the last ACK.
    pub(super) fn learn_timestamp(&mut self, cx: &Cx<'_>, seg: &Segment) {
        if let (Some(ts), Some(option)) = (&mut self.ts, seg.ts)
            && SeqNum::new(seg.seq).at_or_before(self.window.wup)
            && !ts.rejects(option.val, cx.now, 0)
        {
            ts.learn(option.val, cx.now);
        }
    }

    /// An acceptable ACK: the peer's window, and perhaps our FIN.
    fn on_ack(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        if is_pure_ack(seg) {
            cx.counters.bump(Counter::TCPPureAcks);
        }
        let ack = SeqNum::new(seg.ack);
        if ack.before(self.snd_una) {
            return Ok(());
        }
        self.heard_ack(cx.now);
        let forgets = self.path_works();
        if self.updates_window(seg) {
            self.take_window(SeqNum::new(seg.seq), seg.window);
            self.predict();
        } else if forgets {
            self.predict();
        }
        if ack == self.snd_una {
            return Ok(());
        }
        self.snd_una = ack;
        self.on_fin_acked(cx, seg)
    }

    /// Notes the window field of a segment that starts at `seq`.
    pub(super) fn take_window(&mut self, seq: SeqNum, window: u16) {
        self.snd_wl1 = seq;
        self.snd_window = window;
        self.max_window = self.max_window.max(u32::from(window) << self.snd_shift);
    }

    /// RFC 9293 §3.10.7.4, fifth step: an older segment must not undo a newer window.
    fn updates_window(&self, seg: &Segment) -> bool {
        let seq = SeqNum::new(seg.seq);
        SeqNum::new(seg.ack).after(self.snd_una)
            || seq.after(self.snd_wl1)
            || (seq == self.snd_wl1 && (seg.window > self.snd_window || seg.window == 0))
    }

    /// A challenge ACK, at most one per half second.
    fn challenge(&mut self, cx: &mut Cx<'_>) -> Verdict {
        if !self.replies.permits_challenge(cx, Counter::TCPACKSkippedChallenge) {
            return Verdict::Later;
        }
        cx.counters.bump(Counter::TCPChallengeACK);
        Verdict::Send(self.outgoing_ack(cx))
    }

    /// The ACK for a segment out of window or too old. One that occupies numbers below rcv_nxt
    /// shows that the peer missed our ACK: it is told which (RFC 2883), and answered quickly.
    fn reply_to_unacceptable(
        &mut self,
        cx: &mut Cx<'_>,
        seg: &Segment,
        skipped: Counter,
    ) -> Verdict {
        if !self.replies.permits(cx, seg, skipped) {
            return Verdict::Later;
        }
        let (seq, end) = (SeqNum::new(seg.seq), SeqNum::new(seg.end_seq()));
        if seq != end && seq.before(self.rcv_nxt) {
            // None of the quick ACKs is spent on it, as in Linux: it says nothing of the peer's pace.
            let was_owed = self.ack.owed;
            let verdict = self.on_duplicate(cx, SeqRange::new(seq, end.min(self.rcv_nxt)));
            if !was_owed.has(Owed::ACK) {
                self.ack.owed = self.ack.owed.without(Owed::ACK);
            }
            return verdict;
        }
        Verdict::Send(self.outgoing_ack(cx))
    }

    /// All of a segment was received before: ACK at once, and report it.
    pub(super) fn on_duplicate(&mut self, cx: &mut Cx<'_>, range: SeqRange) -> Verdict {
        cx.counters.bump(Counter::DelayedACKLost);
        let earlier = self.note_dsack(cx, range);
        self.ack.enter_quick(&self.window);
        self.answer(earlier)
    }

    /// Puts a duplicate on record for the next ACK. Each is reported, once: the ACK that reports
    /// an earlier one is returned, and has to be sent before anything else.
    pub(super) fn note_dsack(&mut self, cx: &mut Cx<'_>, range: SeqRange) -> Option<Outgoing> {
        if !self.sack_ok || !cx.settings.tcp_dsack {
            return None;
        }
        self.forget_late_dsack();
        let earlier = self.dsack.is_some().then(|| self.outgoing_ack(cx));
        self.count_dsack(cx, range);
        self.dsack = Some(range);
        earlier
    }

    /// Only the most recent segment's duplicate is reported (RFC 2883 §4): not that of one whose ACK
    /// was put off.
    pub(super) fn forget_late_dsack(&mut self) {
        if self.ack.is_decided() {
            self.dsack = None;
        }
    }

    pub(super) fn count_dsack(&self, cx: &mut Cx<'_>, range: SeqRange) {
        cx.counters.bump(if range.start.before(self.rcv_nxt) {
            Counter::TCPDSACKOldSent
        } else {
            Counter::TCPDSACKOfoSent
        });
    }

    /// How a segment that must be answered is: with an earlier ACK first if there is one; without
    /// SACK each by an ACK of its own, since the peer counts them; else once per burst.
    pub(super) fn answer(&self, earlier: Option<Outgoing>) -> Verdict {
        match earlier {
            Some(ack) => Verdict::Send(ack),
            None if self.sack_ok => Verdict::Later,
            None => Verdict::Ack,
        }
    }

    /// New data after the application has closed: it would be lost, so the peer must know (RFC
    /// 9293 §3.6.1, SHLD-3).
    pub(super) fn refuse_data(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Verdict {
        cx.counters.bump(Counter::TCPAbortOnData);
        self.reset(cx);
        reset::reply(seg).map_or(Verdict::Later, Verdict::Send)
    }
}

/// A segment that occupies no number and has no other purpose than its ACK field.
fn is_pure_ack(seg: &Segment) -> bool {
    seg.flags.has(Flags::ACK) && seg.end_seq() == seg.seq
}
