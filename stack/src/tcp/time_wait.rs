//! The small record that a closed connection leaves behind: TIME-WAIT, and FIN-WAIT-2 of orphans.
//!
//! The lcore puts it into the flow table in the place of the socket, feeds it segments, and
//! removes it at its deadline. It sends nothing itself.

use std::num::NonZeroU8;
use std::time::Duration;

use crate::time::Instant;
use crate::wire::{Flags, FourTuple, Outgoing, Segment};

use super::ratelimit::ReplyStamp;
use super::request::in_window;
use super::timestamps::TsState;
use super::{Counter, Cx, SeqNum, reset};

/// How long TIME-WAIT lasts; fixed, as in Linux.
pub const TIME_WAIT: Duration = Duration::from_secs(60);

/// How long a segment may be on its way (MSL), as PAWS sees it in Linux.
const LIFETIME: Duration = Duration::from_secs(60);

/// How far the ISN of a connection that replaces a TIME-WAIT entry lies beyond the last number
/// that the old one sent: beyond any window without scaling, as in Linux.
const ISN_GAP: u32 = 65_537;

/// Entries made for no longer than this are counted apart, as in Linux.
const SHORT: Duration = Duration::from_secs(4);

/// No clock gets there.
const NO_TIMESTAMPS: Instant = Instant::from_nanos(u64::MAX);

/// What a connection leaves to its [`TimeWait`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ending {
    /// The number after our FIN.
    pub snd_nxt: SeqNum,
    /// The number that we wait for: after the peer's FIN in TIME-WAIT.
    pub rcv_nxt: SeqNum,
    /// What is still open of the receive window, in bytes.
    pub rcv_wnd: u32,
    /// Our window shift.
    pub rcv_wscale: u8,
    /// Timestamps, if they are on.
    pub ts: Option<TsState>,
    /// Diffserv field of what we send.
    pub tos: u8,
    /// Its time to live, unless it is the stack's.
    pub ttl: Option<NonZeroU8>,
    /// Whether the peer's FIN has come.
    pub phase: Phase,
}

/// How far the closing has got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// FIN-WAIT-2 of an orphan: the peer's FIN has not come, and is waited for this long.
    FinWait2(Duration),
    /// TIME-WAIT.
    TimeWait,
}

/// A connection in TIME-WAIT, or an orphan in FIN-WAIT-2.
#[derive(Clone, Debug)]
pub struct TimeWait {
    tuple: FourTuple,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    rcv_wnd: u32,
    rcv_wscale: u8,
    substate: Substate,
    /// Learnt at [`NO_TIMESTAMPS`] if they are off: a word less than an `Option`, in each of what
    /// may be a million entries.
    ts: TsState,
    tos: u8,
    ttl: Option<NonZeroU8>,
    replies: ReplyStamp,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Substate {
    FinWait2,
    TimeWait,
}

/// What to do after an entry has seen a segment. The deadline may have moved with any of them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum TwVerdict {
    /// Nothing.
    Ignore,
    /// Send this ACK.
    Ack(Outgoing),
    /// Remove the entry and send this RST, if any.
    Remove(Option<Outgoing>),
    /// The segment is a SYN that may open the same four-tuple again. If there is a listener,
    /// remove the entry, count `TWRecycled`, and hand the SYN to it with this ISN and
    /// [`SynOrigin::TimeWait`](super::listen::SynOrigin); if not, call
    /// [`TimeWait::on_no_listener`].
    NewConnection {
        /// Our initial sequence number for the new connection.
        isn: u32,
    },
}

impl TimeWait {
    /// The entry that replaces a connection now.
    pub fn new(cx: &Cx<'_>, tuple: FourTuple, ending: &Ending) -> Self {
        let Ending { snd_nxt, rcv_nxt, rcv_wnd, rcv_wscale, ts, tos, ttl, phase } = *ending;
        let (substate, life) = match phase {
            Phase::FinWait2(life) => (Substate::FinWait2, life),
            Phase::TimeWait => (Substate::TimeWait, TIME_WAIT),
        };
        Self {
            tuple,
            snd_nxt,
            rcv_nxt,
            rcv_wnd,
            rcv_wscale,
            substate,
            ts: ts.unwrap_or(TsState { recent: 0, offset: 0, recent_at: NO_TIMESTAMPS }),
            tos,
            ttl,
            replies: ReplyStamp::default(),
            deadline: cx.now + life,
        }
    }

    /// What a new entry is to be counted as, once it has its place.
    pub fn counter(&self, cx: &Cx<'_>) -> Counter {
        if self.deadline.since(cx.now) <= SHORT { Counter::TWKilled } else { Counter::TW }
    }

    /// The addresses and ports.
    pub const fn tuple(&self) -> &FourTuple {
        &self.tuple
    }

    /// When the entry is to be removed, silently.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the peer's FIN has come.
    pub fn is_time_wait(&self) -> bool {
        self.substate == Substate::TimeWait
    }

    /// `syn` could open the four-tuple again, but nobody listens: it is an old segment like others.
    pub fn on_no_listener(&mut self, cx: &mut Cx<'_>, syn: &Segment) -> TwVerdict {
        self.limited_ack(cx, syn, Counter::TCPACKSkippedTimeWait)
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`.
    pub fn ack(&self, now: Instant) -> Outgoing {
        Outgoing {
            seq: self.snd_nxt.raw(),
            ack: self.rcv_nxt.raw(),
            flags: Flags::ACK,
            window: (self.rcv_wnd >> self.rcv_wscale).min(u32::from(u16::MAX)) as u16,
            ts: self.ts().map(|ts| ts.option(now)),
            tos: self.tos,
            ttl: self.ttl,
            ..Outgoing::default()
        }
    }

    /// A segment of this four-tuple has come.
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> TwVerdict {
        match self.substate {
            Substate::FinWait2 => self.on_segment_in_fin_wait_2(cx, seg),
            Substate::TimeWait => self.on_segment_in_time_wait(cx, seg),
        }
    }

    /// The checks of a synchronised state, for an application that reads no more.
    fn on_segment_in_fin_wait_2(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> TwVerdict {
        let (seq, end) = (SeqNum::new(seg.seq), SeqNum::new(seg.end_seq()));
        let has = |flags| seg.flags.has(flags);
        if self.paws_rejects(seg, cx.now) || !in_window(seq, end, self.rcv_nxt, self.rcv_wnd) {
            // RFC 5961 §3: a RST outside the window is dropped, which Linux does not do here.
            if has(Flags::RST) {
                return TwVerdict::Ignore;
            }
            return self.limited_ack(cx, seg, Counter::TCPACKSkippedFinWait2);
        }
        if has(Flags::RST) {
            return TwVerdict::Remove(None);
        }
        if has(Flags::SYN) && seq.at_or_after(self.rcv_nxt) {
            return TwVerdict::Remove(reset::reply(seg));
        }
        if !has(Flags::ACK) || end.at_or_before(self.rcv_nxt) || end == seq {
            return TwVerdict::Ignore;
        }
        if !has(Flags::FIN) || end != self.rcv_nxt.plus(1) {
            // New data that nobody will read (RFC 9293 §3.6.1, SHLD-3).
            return TwVerdict::Remove(reset::reply(seg));
        }
        self.substate = Substate::TimeWait;
        self.rcv_nxt = end;
        self.learn(seg, cx.now);
        self.restart(cx.now);
        TwVerdict::Ack(self.ack(cx.now))
    }

    fn on_segment_in_time_wait(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> TwVerdict {
        let (seq, end) = (SeqNum::new(seg.seq), SeqNum::new(seg.end_seq()));
        let has = |flags| seg.flags.has(flags);
        let paws_rejects = self.paws_rejects(seg, cx.now);

        if !paws_rejects && seq == self.rcv_nxt && has(Flags::RST) {
            // RFC 1337: TIME-WAIT assassination, allowed unless it is switched off.
            if cx.settings.tcp_rfc1337 {
                return TwVerdict::Ignore;
            }
            return TwVerdict::Remove(None);
        }
        if !paws_rejects && seq == self.rcv_nxt && seq == end {
            self.restart(cx.now);
            self.learn(seg, cx.now);
            return TwVerdict::Ignore;
        }
        if has(Flags::RST) {
            if paws_rejects {
                cx.counters.bump(Counter::PAWSTimewait);
            }
            return TwVerdict::Ignore;
        }
        if has(Flags::SYN)
            && !seg.flags.any(Flags::ACK.with(Flags::FIN))
            && !paws_rejects
            && (seq.after(self.rcv_nxt) || self.has_newer_timestamp(seg))
        {
            return TwVerdict::NewConnection { isn: self.next_isn() };
        }
        if paws_rejects {
            cx.counters.bump(Counter::PAWSTimewait);
        }
        // A SYN without ACK may be a good one whose number happens to be low: it must be able to
        // come in when the time has run out.
        if paws_rejects || has(Flags::ACK) {
            self.restart(cx.now);
        }
        self.limited_ack(cx, seg, Counter::TCPACKSkippedTimeWait)
    }

    /// Timestamps, if they are on.
    fn ts(&self) -> Option<TsState> {
        (self.ts.recent_at != NO_TIMESTAMPS).then_some(self.ts)
    }

    fn limited_ack(&mut self, cx: &mut Cx<'_>, seg: &Segment, skipped: Counter) -> TwVerdict {
        if self.replies.permits(cx, seg, skipped) {
            TwVerdict::Ack(self.ack(cx.now))
        } else {
            TwVerdict::Ignore
        }
    }

    fn restart(&mut self, now: Instant) {
        self.deadline = now + TIME_WAIT;
    }

    fn learn(&mut self, seg: &Segment, now: Instant) {
        if let (Some(_), Some(theirs)) = (self.ts(), seg.ts) {
            self.ts.learn(theirs.val, now);
        }
    }

    /// PAWS, without tolerance (RFC 7323 §5.3). A RST need not have a timestamp that is worth anything;
    /// Linux believes in what it carries for as long as an old one may be on its way.
    fn paws_rejects(&self, seg: &Segment, now: Instant) -> bool {
        self.ts().zip(seg.ts).is_some_and(|(ours, theirs)| {
            let exempt = seg.flags.has(Flags::RST) && now.since(ours.recent_at) >= LIFETIME;
            ours.rejects(theirs.val, now, 0) && !exempt
        })
    }

    /// RFC 6191: a newer timestamp lets a lower ISN through.
    fn has_newer_timestamp(&self, seg: &Segment) -> bool {
        self.ts()
            .zip(seg.ts)
            .is_some_and(|(ours, theirs)| (ours.recent.wrapping_sub(theirs.val) as i32) < 0)
    }

    fn next_isn(&self) -> u32 {
        self.snd_nxt.plus(ISN_GAP).raw()
    }
}

const _: () = assert!(size_of::<TimeWait>() <= 88);

#[cfg(test)]
mod tests;
