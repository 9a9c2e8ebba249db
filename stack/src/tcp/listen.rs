//! What a listener does with a segment, and whether a SYN is let in: decisions only.
//!
//! Asked by the lcore for segments that match a listener and neither a connection nor a request.
//! It owns no queue: lengths come in as [`QueueState`], and the caller keeps the queues.

use crate::wire::{Flags, Outgoing, Segment};

use super::{Counter, Cx, Settings, reset};

/// What to do with a segment that reached a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum ListenVerdict {
    /// Nothing; not even a counter.
    Ignore,
    /// Answer with this RST, within the limit of
    /// [`RstLimiter`](super::ratelimit::RstLimiter); a SYN cookie would be tried here first.
    Reset(Outgoing),
    /// It asks for a connection: [`on_syn`] decides.
    Syn,
}

/// Decides by the flags of a segment, first match (RFC 9293 §3.10.7.2).
///
/// ACK comes before RST, but a RST is never answered with one; a SYN may carry PSH, URG, ECE, CWR
/// and payload, of which only the SYN is acknowledged. SYN with FIN is no connection request.
pub fn on_segment(seg: &Segment) -> ListenVerdict {
    if seg.flags.has(Flags::ACK) {
        return reset::reply(seg).map_or(ListenVerdict::Ignore, ListenVerdict::Reset);
    }
    let named = Flags::SYN.with(Flags::FIN).with(Flags::RST);
    if Flags(seg.flags.0 & named.0) == Flags::SYN {
        ListenVerdict::Syn
    } else {
        ListenVerdict::Ignore
    }
}

/// How full a listener is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueState {
    /// Requests in the SYN queue.
    pub syn_queue: u32,
    /// Those of them whose timer has not expired yet ([`Request::is_young`]).
    ///
    /// [`Request::is_young`]: super::request::Request::is_young
    pub young: u32,
    /// Connections that wait to be accepted.
    pub accept_queue: u32,
    /// The listener's backlog, from [`backlog`].
    pub backlog: u32,
}

impl QueueState {
    /// Whether no further connection may wait to be accepted.
    ///
    /// As in Linux there is room for one more than the backlog, so that a backlog of 0 holds one.
    pub const fn accept_queue_is_full(&self) -> bool {
        self.accept_queue > self.backlog
    }

    /// Whether no further request is let in (Linux since 6.13: one more than the backlog).
    pub const fn syn_queue_is_full(&self) -> bool {
        self.syn_queue > self.backlog
    }

    /// How often a SYN-ACK is sent again under the present load.
    ///
    /// When requests fill half of the backlog, old ones are given up sooner, so that young ones
    /// get about half of the room. At least two retransmissions are left.
    pub fn synack_retries(&self, settings: &Settings) -> u8 {
        let mut retries = settings.tcp_synack_retries;
        if self.syn_queue.saturating_mul(2) <= self.backlog.max(8) {
            return retries;
        }
        let mut young = self.young.saturating_mul(2);
        while retries > 2 && self.syn_queue >= young {
            retries -= 1;
            young = young.saturating_mul(2);
        }
        retries
    }
}

/// The backlog that a listener gets: what was asked for, at most `somaxconn`.
///
/// A negative number asks for the most there is, as in POSIX listen() on Linux.
pub fn backlog(settings: &Settings, asked: i32) -> u32 {
    (asked as u32).min(settings.somaxconn)
}

/// Where a SYN came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SynOrigin {
    /// It matched the listener itself.
    Wire,
    /// It replaced a TIME-WAIT entry, which chose its ISN: the limits of the SYN queue do not
    /// apply, the one of the accept queue does.
    TimeWait,
}

/// Whether a SYN becomes a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum SynVerdict {
    /// Drop it silently; it has been counted.
    Drop,
    /// Make a request of it.
    Admit,
}

/// Decides on a connection request.
///
/// The order is Linux's: a full SYN queue, a full accept queue, then the last quarter of
/// `tcp_max_syn_backlog`, which without SYN cookies is kept for peers known to be alive; we keep
/// no such knowledge, so it stays empty. A dropped SYN is not answered: the client tries again.
pub fn on_syn(cx: &mut Cx<'_>, origin: SynOrigin, queue: &QueueState) -> SynVerdict {
    let from_wire = origin == SynOrigin::Wire;
    let most = cx.settings.tcp_max_syn_backlog;
    if from_wire && queue.syn_queue_is_full() {
        cx.counters.bump(Counter::TCPReqQFullDrop);
    } else if queue.accept_queue_is_full() {
        cx.counters.bump(Counter::ListenOverflows);
    } else if !from_wire || most.saturating_sub(queue.syn_queue) >= most / 4 {
        return SynVerdict::Admit;
    }
    cx.counters.bump(Counter::ListenDrops);
    SynVerdict::Drop
}
