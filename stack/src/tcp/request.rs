//! A connection request: what is kept between a SYN and the ACK that completes the handshake.
//!
//! The lcore keeps one per half-open connection (SYN-RECEIVED without a socket), at most 128
//! bytes and nothing on the heap, and feeds it segments and timer expiries. It sends nothing
//! itself and never creates the connection: it returns an [`Opened`] to start one from.

use std::time::Duration;

use crate::time::Instant;
use crate::wire::{Family, Flags, FourTuple, Outgoing, Segment, SynOptions, Timestamps};

use super::icmp::Report;
use super::isn::Numbers;
use super::listen::{INITIAL_TIMEOUT, QueueState};
use super::negotiate::{Bounds, Negotiated, Scale, unscaled};
use super::ratelimit::ReplyStamp;
use super::settings::RTO_MAX;
use super::timestamps::{TsState, ts_val};
use super::{Counter, Cx, SeqNum, reset};

/// Everything that an established connection starts from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The version of IP that it goes by.
    pub family: Family,
    /// Our initial sequence number; the SYN-ACK took it, and the peer acknowledged it.
    pub iss: SeqNum,
    /// The peer's initial sequence number; rcv_nxt is one more.
    pub irs: SeqNum,
    /// The window in bytes that our SYN-ACK has opened at rcv_nxt = irs + 1, though its header, which is
    /// never scaled, may not have been able to say so.
    pub rcv_wnd: u32,
    /// The window field of the segment that has completed the handshake, as it stood there.
    pub snd_wnd: u16,
    /// Shifts of all further windows; `None` means that none was agreed on, and no window may
    /// exceed 65535.
    pub scale: Option<Scale>,
    /// The peer's MSS, at least 48.
    pub mss: u16,
    /// The payload of a full segment from the peer: our MSS less the room of timestamps.
    pub advmss: u16,
    /// SACK blocks may be sent.
    pub sack_ok: bool,
    /// Congestion marks are echoed.
    pub ecn_ok: bool,
    /// Timestamps, if both sides send them.
    pub ts: Option<TsState>,
    /// Time from the SYN-ACK to its ACK, if it was sent only once (RFC 6298 §3, Karn) or the ACK echoes
    /// when (RFC 7323 §4.1).
    pub synack_rtt: Option<Duration>,
}

impl Opened {
    /// The first sequence number that we send next.
    pub const fn snd_nxt(&self) -> SeqNum {
        self.iss.plus(1)
    }

    /// The first sequence number that we wait for.
    pub const fn rcv_nxt(&self) -> SeqNum {
        self.irs.plus(1)
    }

    /// The window that the peer has opened with, in bytes.
    pub(super) fn peer_window(&self) -> u32 {
        u32::from(self.snd_wnd) << self.scale.map_or(0, |scale| scale.snd)
    }
}

/// A half-open connection.
#[derive(Clone, Debug)]
pub struct Request {
    tuple: FourTuple,
    iss: SeqNum,
    irs: SeqNum,
    rcv_wnd: u32,
    mss: u16,
    mss_option: u16,
    advmss: u16,
    scale: Option<Scale>,
    sack_ok: bool,
    ecn_ok: bool,
    ts: Option<RequestTs>,
    /// When the first SYN-ACK was made.
    born: Instant,
    deadline: Instant,
    replies: ReplyStamp,
    /// Timer expiries so far; the timeout has doubled that often.
    expiries: u8,
    /// The SYN-ACK was sent again, by timer or because the SYN was.
    repeated: bool,
    acked: Acked,
}

/// Timestamps of a request.
#[derive(Clone, Copy, Debug)]
struct RequestTs {
    recent: u32,
    offset: u32,
    /// First and last TSval that we sent: an honest TSecr lies between.
    sent: (u32, u32),
}

/// Whether the peer has completed the handshake without getting a connection for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Acked {
    No,
    /// A good ACK met a full accept queue, or brought no data: every further one tries again.
    Yes,
}

/// What to do after a request has seen a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum RequestVerdict {
    /// Nothing.
    Ignore,
    /// Send this and keep the request. Its deadline may have moved.
    Send(Outgoing),
    /// Keep the request, and let the listener judge the segment as if it had found no request: it
    /// acknowledges something else, which an older connection may have sent or a cookie.
    Foreign,
    /// Remove the request and send this, if anything.
    Remove(Option<Outgoing>),
    /// The handshake is complete. If the accept queue has room, count `PassiveOpens`, remove the
    /// request, start a connection from this and run the *same segment* through it, which may
    /// carry payload and FIN; if not, call [`Request::on_overflow`].
    Complete(Opened),
}

/// What to do after a request's timer was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum RequestTimer {
    /// Not due yet.
    Wait,
    /// Send this; the next deadline is set, and the request is no longer young.
    Retransmit(Outgoing),
    /// Remove the request, silently.
    Expired,
}

impl Request {
    /// The request that `syn` makes, with its first timeout running from now. The caller sends
    /// [`Self::syn_ack`] next.
    pub fn new(
        cx: &Cx<'_>,
        tuple: FourTuple,
        syn: &Segment,
        options: &SynOptions,
        numbers: Numbers,
        bounds: Bounds,
    ) -> Self {
        let Numbers { isn, ts_offset } = numbers;
        let Negotiated { mss, mss_option, advmss, scale, sack_ok, ts_recent, ecn_ok, window } =
            Negotiated::from_syn(cx.settings, syn, options, tuple.family(), bounds);
        let offset = cx.settings.ts_offset(ts_offset);
        let val = ts_val(cx.now, offset);
        Self {
            tuple,
            iss: SeqNum::new(isn),
            irs: SeqNum::new(syn.seq),
            rcv_wnd: window,
            mss,
            mss_option,
            advmss,
            scale,
            sack_ok,
            ecn_ok,
            ts: ts_recent.map(|recent| RequestTs { recent, offset, sent: (val, val) }),
            born: cx.now,
            deadline: cx.now + INITIAL_TIMEOUT,
            replies: ReplyStamp::default(),
            expiries: 0,
            repeated: false,
            acked: Acked::No,
        }
    }

    /// The addresses and ports.
    pub const fn tuple(&self) -> &FourTuple {
        &self.tuple
    }

    /// When [`Self::on_timer`] wants to be called.
    pub const fn next_deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether no timeout has expired yet; `young` in [`QueueState`] counts these.
    pub const fn is_young(&self) -> bool {
        self.expiries == 0
    }

    /// Whether the peer has completed the handshake but found the accept queue full.
    pub fn is_acked(&self) -> bool {
        self.acked == Acked::Yes
    }

    /// The SYN-ACK: our numbers, a window that is never scaled, and the options agreed on.
    pub fn syn_ack(&mut self, cx: &Cx<'_>) -> Outgoing {
        let ts = self.ts.as_mut().map(|ts| {
            ts.sent.1 = ts_val(cx.now, ts.offset);
            Timestamps { val: ts.sent.1, ecr: ts.recent }
        });
        Outgoing {
            seq: self.iss.raw(),
            ack: self.rcv_nxt().raw(),
            flags: syn_ack_flags(self.ecn_ok),
            window: unscaled(self.rcv_wnd),
            mss: Some(self.mss_option),
            window_scale: self.scale.map(|scale| scale.rcv),
            sack_permitted: self.sack_ok,
            ts,
            ..Outgoing::default()
        }
    }

    /// A segment of this four-tuple has come (RFC 9293 §3.10.7.4 in SYN-RECEIVED, RFC 5961,
    /// RFC 7323).
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> RequestVerdict {
        let seq = SeqNum::new(seg.seq);
        let paws_rejects = self.paws_rejects(seg);

        // The SYN again: our SYN-ACK was lost. Its payload is ignored like the first one's.
        let opening = Flags::SYN.with(Flags::RST).with(Flags::ACK);
        let repeats_syn = Flags(seg.flags.0 & opening.0) == Flags::SYN && seq == self.irs;
        if repeats_syn && !paws_rejects {
            return self.repeat_syn_ack(cx, seg);
        }

        // An acknowledgement of something else comes from an older connection, which a RST
        // ends; this request does not suffer for it.
        if seg.flags.has(Flags::ACK) && seg.ack != self.snd_nxt().raw() {
            return RequestVerdict::Foreign;
        }

        let echo_rejected = self.echo_is_false(seg);
        if paws_rejects || echo_rejected || !self.in_window(seg) {
            if paws_rejects {
                cx.counters.bump(Counter::PAWSEstab);
            } else if echo_rejected {
                cx.counters.bump(Counter::TSEcrRejected);
            }
            if seg.flags.has(Flags::RST) {
                return RequestVerdict::Ignore;
            }
            return self.limited_ack(cx, seg);
        }

        if seg.flags.has(Flags::RST) {
            // RFC 5961 §3: only the exact number resets.
            if seq == self.rcv_nxt() {
                return self.fail(cx, None);
            }
            // However much payload it has: that makes no difference to a RST.
            if !self.replies.permits_challenge(cx, Counter::TCPACKSkippedSynRecv) {
                return RequestVerdict::Ignore;
            }
            cx.counters.bump(Counter::TCPChallengeACK);
            return RequestVerdict::Send(self.ack(cx));
        }

        // A SYN-ACK that repeats the peer's SYN is only an ACK to us; any other SYN ends it.
        if seg.flags.has(Flags::SYN) && seq != self.irs {
            return self.fail(cx, reset::reply(seg));
        }

        if !seg.flags.has(Flags::ACK) {
            return RequestVerdict::Ignore;
        }
        RequestVerdict::Complete(self.opened(cx.now, seg))
    }

    /// `seg` completed the handshake, but the accept queue is full.
    ///
    /// With `tcp_abort_on_overflow` the client is told by a RST. Without, its ACK is as good as
    /// lost: SYN-ACKs go on, and each further segment with a good ACK tries again.
    pub fn on_overflow(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> RequestVerdict {
        cx.counters.bump(Counter::ListenOverflows);
        cx.counters.bump(Counter::ListenDrops);
        if cx.settings.tcp_abort_on_overflow {
            cx.counters.bump(Counter::EmbryonicRsts);
            return RequestVerdict::Remove(reset::reply(seg));
        }
        self.acked = Acked::Yes;
        RequestVerdict::Ignore
    }

    /// `seg` completed the handshake; whether the connection is to wait for data (TCP_DEFER_ACCEPT), which
    /// a bare ACK does not bring. The client's kernel holds it to be open and sends them some time.
    pub fn waits_for_data(&mut self, cx: &mut Cx<'_>, seg: &Segment, queue: &QueueState) -> bool {
        let waits = self.expiries < queue.defer_accept && seg.end_seq() == self.rcv_nxt().raw();
        if waits {
            cx.counters.bump(Counter::TCPDeferAcceptDrop);
            self.acked = Acked::Yes;
        }
        waits
    }

    /// An ICMP error about a segment that began at `seq`; whether the request is to be removed.
    ///
    /// Nobody is told: the application has not heard of this connection, and a client that is there
    /// after all begins anew.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, seq: u32, report: Report) -> bool {
        if seq != self.iss.raw() {
            cx.counters.bump(Counter::OutOfWindowIcmps);
            return false;
        }
        let ends = matches!(report, Report::Lost { ends_requests: true, .. });
        if ends {
            cx.counters.bump(Counter::ListenDrops);
        }
        ends
    }

    /// Time has passed. `queue` decides how patient the listener can be.
    pub fn on_timer(&mut self, cx: &mut Cx<'_>, queue: &QueueState) -> RequestTimer {
        if cx.now < self.deadline {
            return RequestTimer::Wait;
        }
        cx.counters.bump(Counter::TCPTimeouts);
        let defer = queue.defer_accept;
        let waits_for_data = defer != 0 && self.is_acked();
        let is_kept = waits_for_data && self.expiries < defer;
        if self.expiries >= queue.synack_retries(cx.settings) && !is_kept {
            return RequestTimer::Expired;
        }
        self.expiries = self.expiries.saturating_add(1);
        if waits_for_data && self.expiries < defer {
            // Nothing is lost that would have to be sent again. Towards the end the client is asked
            // for an ACK that completes the handshake with or without data.
            self.deadline = cx.now + self.timeout();
            return RequestTimer::Wait;
        }
        RequestTimer::Retransmit(self.retransmission(cx))
    }

    /// First number of ours that follows the SYN-ACK.
    const fn snd_nxt(&self) -> SeqNum {
        self.iss.plus(1)
    }

    /// First number of the peer's that follows its SYN.
    const fn rcv_nxt(&self) -> SeqNum {
        self.irs.plus(1)
    }

    /// The SYN-ACK once more, with the timer started afresh.
    fn retransmission(&mut self, cx: &mut Cx<'_>) -> Outgoing {
        cx.counters.bump(Counter::TCPSynRetrans);
        cx.counters.bump(Counter::RetransSegs);
        self.repeated = true;
        self.deadline = cx.now + self.timeout();
        self.syn_ack(cx)
    }

    /// The present timeout: it has doubled with every expiry. `tcp_rto_max_ms` bounds those of
    /// connections alone, as in Linux 6.18.
    fn timeout(&self) -> Duration {
        let doubled = 1_u32.checked_shl(u32::from(self.expiries)).unwrap_or(u32::MAX);
        INITIAL_TIMEOUT.saturating_mul(doubled).min(RTO_MAX)
    }

    fn repeat_syn_ack(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> RequestVerdict {
        if self.replies.permits(cx, seg, Counter::TCPACKSkippedSynRecv) {
            RequestVerdict::Send(self.retransmission(cx))
        } else {
            RequestVerdict::Ignore
        }
    }

    /// The answer to what is not acceptable: where we are, as of the ACK of the SYN.
    fn limited_ack(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> RequestVerdict {
        if !self.replies.permits(cx, seg, Counter::TCPACKSkippedSynRecv) {
            return RequestVerdict::Ignore;
        }
        RequestVerdict::Send(self.ack(cx))
    }

    /// What it has for a timestamp may be echoed as that of a SYN-ACK.
    fn ack(&mut self, cx: &Cx<'_>) -> Outgoing {
        let ts = self.ts.as_mut().map(|ts| {
            ts.sent.1 = ts_val(cx.now, ts.offset);
            Timestamps { val: ts.sent.1, ecr: ts.recent }
        });
        Outgoing {
            seq: self.snd_nxt().raw(),
            ack: self.rcv_nxt().raw(),
            flags: Flags::ACK,
            window: unscaled(self.rcv_wnd) >> self.scale.map_or(0, |scale| scale.rcv),
            ts,
            ..Outgoing::default()
        }
    }

    fn fail(&mut self, cx: &mut Cx<'_>, answer: Option<Outgoing>) -> RequestVerdict {
        cx.counters.bump(Counter::AttemptFails);
        cx.counters.bump(Counter::EmbryonicRsts);
        RequestVerdict::Remove(answer)
    }

    /// RFC 7323 §5.3, without tolerance. The age of TS.Recent does not matter: no request lives
    /// long enough.
    fn paws_rejects(&self, seg: &Segment) -> bool {
        self.ts.zip(seg.ts).is_some_and(|(ours, theirs)| {
            ours.recent != 0 && (ours.recent.wrapping_sub(theirs.val) as i32) > 0
        })
    }

    /// Whether the segment echoes a timestamp that no SYN-ACK of ours carried (as Linux 6.18 checks).
    fn echo_is_false(&self, seg: &Segment) -> bool {
        self.ts.zip(seg.ts).is_some_and(|(ours, theirs)| {
            let (first, last) = ours.sent;
            theirs.ecr != 0 && theirs.ecr.wrapping_sub(first) > last.wrapping_sub(first)
        })
    }

    /// Whether some of the segment lies in the window that the SYN-ACK could tell.
    fn in_window(&self, seg: &Segment) -> bool {
        let (seq, end) = (SeqNum::new(seg.seq), SeqNum::new(seg.end_seq()));
        in_window(seq, end, self.rcv_nxt(), unscaled(self.rcv_wnd).into())
    }

    /// What the connection starts from that `ack` opens.
    fn opened(&self, now: Instant, ack: &Segment) -> Opened {
        // The timestamp of a segment counts only if it completes the handshake: before, it may be
        // anybody's.
        let learnt = ack.ts.filter(|_| SeqNum::new(ack.seq).at_or_before(self.rcv_nxt()));
        let ts = |RequestTs { recent, offset, sent: _ }| {
            let recent = learnt.map_or(recent, |theirs| theirs.val);
            TsState { recent, offset, recent_at: now }
        };
        Opened {
            family: self.tuple.family(),
            iss: self.iss,
            irs: self.irs,
            rcv_wnd: self.rcv_wnd,
            snd_wnd: ack.window,
            scale: self.scale,
            mss: self.mss,
            advmss: self.advmss,
            sack_ok: self.sack_ok,
            ecn_ok: self.ecn_ok,
            ts: self.ts.map(ts),
            synack_rtt: self.round_trip(now, ack),
        }
    }

    /// The round trip of the handshake that `ack` completes, if it is known which SYN-ACK it answers.
    fn round_trip(&self, now: Instant, ack: &Segment) -> Option<Duration> {
        if !self.repeated {
            return Some(now.since(self.born));
        }
        let (ours, theirs) = self.ts.zip(ack.ts)?;
        echoed(now, ours.offset, theirs)
    }
}

/// The round trip that an echo of ours tells of, a millisecond at least; nothing if it cannot be that of a
/// handshake.
pub(super) fn echoed(now: Instant, offset: u32, theirs: Timestamps) -> Option<Duration> {
    let ticks = ts_val(now, offset).wrapping_sub(theirs.ecr);
    let rtt = Duration::from_millis(ticks.max(1).into());
    (theirs.ecr != 0 && rtt <= RTO_MAX).then_some(rtt)
}

/// Whether `[seq, end)` has a part in the window of `wnd` bytes at `rcv_nxt`: Linux's test for
/// requests and TIME-WAIT entries, which takes an empty segment at either edge.
pub(super) fn in_window(seq: SeqNum, end: SeqNum, rcv_nxt: SeqNum, wnd: u32) -> bool {
    let edge = rcv_nxt.plus(wnd);
    seq == rcv_nxt || (end.after(rcv_nxt) && seq.before(edge)) || (seq == edge && seq == end)
}

const _: () = assert!(size_of::<Request>() <= 128);

/// The control bits of a SYN-ACK: with ECE if ECN is agreed to (RFC 3168 §6.1.1).
pub(super) const fn syn_ack_flags(ecn_ok: bool) -> Flags {
    let flags = Flags::SYN.with(Flags::ACK);
    if ecn_ok { flags.with(Flags::ECE) } else { flags }
}

#[cfg(test)]
mod tests;
