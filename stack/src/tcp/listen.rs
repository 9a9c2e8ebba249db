//! What a listener does with a segment, and whether a SYN is let in: decisions only.
//!
//! Asked by the lcore for segments that match a listener and neither a connection nor a request.
//! It owns no queue: lengths come in as [`QueueState`], and the caller keeps the queues.

use std::time::Duration;

use crate::wire::{Flags, Outgoing, Segment};

use super::request::{INITIAL_TIMEOUT, MOST_TIMEOUT};
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
    /// Retransmissions for which a bare final ACK is passed over, from [`defer_accept`]; 0 for none.
    pub defer_accept: u8,
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

/// TCP_DEFER_ACCEPT as the kernel counts it: the retransmissions of a SYN-ACK that take this long.
pub fn defer_accept(wait: Duration) -> u8 {
    if wait.is_zero() {
        return 0;
    }
    let covers = |retransmissions: &u8| wait <= deferred(*retransmissions);
    (1..u8::MAX).find(covers).unwrap_or(u8::MAX)
}

/// The time that this many retransmissions of a SYN-ACK take.
pub fn deferred(retransmissions: u8) -> Duration {
    let timeouts = std::iter::successors(Some(INITIAL_TIMEOUT), |timeout| {
        Some((*timeout * 2).min(MOST_TIMEOUT))
    });
    timeouts.take(retransmissions.into()).sum()
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

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;

    #[test]
    fn deferring_is_counted_in_retransmissions() {
        let seconds = Duration::from_secs;
        for (wait, retransmissions, granted) in
            [(0, 0, 0), (1, 1, 1), (2, 2, 3), (3, 2, 3), (4, 3, 7), (100, 7, 127), (128, 8, 247)]
        {
            assert_eq!(defer_accept(seconds(wait)), retransmissions, "{wait} s");
            assert_eq!(deferred(retransmissions), seconds(granted), "{wait} s");
        }
        assert_eq!(defer_accept(Duration::MAX), 255);
    }

    fn seg(flags: Flags) -> Segment {
        Segment { seq: 100, ack: 77, len: 0, window: 1000, urgent: 0, flags, ecn: 0, ts: None }
    }

    fn rst_77() -> ListenVerdict {
        let rst = Outgoing { seq: 77, flags: Flags::RST, ..Outgoing::default() };
        ListenVerdict::Reset(rst)
    }

    #[test]
    fn any_segment_with_ack_is_reset_unless_it_is_a_rst() {
        for bits in (0..=u8::MAX).filter(|&bits| Flags(bits).has(Flags::ACK)) {
            let expected =
                if Flags(bits).has(Flags::RST) { ListenVerdict::Ignore } else { rst_77() };
            assert_eq!(on_segment(&seg(Flags(bits))), expected, "flags {bits:#x}");
        }
    }

    #[test]
    fn without_ack_only_a_syn_without_fin_and_rst_asks_for_a_connection() {
        for bits in (0..=u8::MAX).filter(|&bits| !Flags(bits).has(Flags::ACK)) {
            let flags = Flags(bits);
            let asks = flags.has(Flags::SYN) && !flags.any(Flags::FIN.with(Flags::RST));
            let expected = if asks { ListenVerdict::Syn } else { ListenVerdict::Ignore };
            assert_eq!(on_segment(&seg(flags)), expected, "flags {bits:#x}");
        }
    }

    #[test]
    fn a_syn_with_payload_asks_for_a_connection() {
        let syn = Segment { len: 500, ..seg(Flags::SYN) };
        assert_eq!(on_segment(&syn), ListenVerdict::Syn);
    }

    #[test]
    fn a_negative_backlog_asks_for_the_most() {
        let settings = Settings::default();
        for (asked, granted) in [(0, 0), (5, 5), (4096, 4096), (4097, 4096), (-1, 4096)] {
            assert_eq!(backlog(&settings, asked), granted);
        }
    }

    const ROOM: QueueState =
        QueueState { syn_queue: 0, young: 0, accept_queue: 0, backlog: 4, defer_accept: 0 };

    fn decide(world: &mut World, origin: SynOrigin, queue: QueueState) -> SynVerdict {
        on_syn(&mut world.cx(), origin, &queue)
    }

    #[test]
    fn there_is_room_for_one_more_than_the_backlog() {
        let mut world = World::default();
        for backlog in [0, 1, 4] {
            let queue = QueueState { syn_queue: backlog, accept_queue: backlog, backlog, ..ROOM };
            assert_eq!(decide(&mut world, SynOrigin::Wire, queue), SynVerdict::Admit);
        }
        assert_eq!(world.counted(), []);
    }

    #[test]
    fn a_full_syn_queue_drops_syns_but_those_that_replace_time_wait() {
        let mut world = World::default();
        let queue = QueueState { syn_queue: 5, ..ROOM };
        assert_eq!(decide(&mut world, SynOrigin::Wire, queue), SynVerdict::Drop);
        assert_eq!(world.counted(), [(Counter::ListenDrops, 1), (Counter::TCPReqQFullDrop, 1)]);
        assert_eq!(decide(&mut world, SynOrigin::TimeWait, queue), SynVerdict::Admit);
    }

    #[test]
    fn a_full_accept_queue_drops_every_syn() {
        for origin in [SynOrigin::Wire, SynOrigin::TimeWait] {
            let mut world = World::default();
            let queue = QueueState { accept_queue: 5, ..ROOM };
            assert_eq!(decide(&mut world, origin, queue), SynVerdict::Drop);
            assert_eq!(world.counted(), [(Counter::ListenOverflows, 1), (Counter::ListenDrops, 1)]);
        }
    }

    #[test]
    fn a_quarter_of_tcp_max_syn_backlog_stays_free() {
        let mut world = World::default();
        world.settings.tcp_max_syn_backlog = 100;
        let queue = |syn_queue| QueueState { syn_queue, backlog: 4096, ..ROOM };
        assert_eq!(decide(&mut world, SynOrigin::Wire, queue(75)), SynVerdict::Admit);
        assert_eq!(decide(&mut world, SynOrigin::Wire, queue(76)), SynVerdict::Drop);
        assert_eq!(decide(&mut world, SynOrigin::Wire, queue(500)), SynVerdict::Drop);
        assert_eq!(world.counted(), [(Counter::ListenDrops, 2)]);
        assert_eq!(decide(&mut world, SynOrigin::TimeWait, queue(500)), SynVerdict::Admit);
    }

    #[test]
    fn retries_shrink_when_old_requests_fill_half_of_the_backlog() {
        let settings = Settings::default();
        let retries = |syn_queue, young, backlog| {
            QueueState { syn_queue, young, backlog, ..ROOM }.synack_retries(&settings)
        };
        assert_eq!(retries(50, 0, 100), 5, "not more than half");
        assert_eq!(retries(4, 0, 0), 5, "a backlog counts as at least 8");
        assert_eq!(retries(5, 0, 0), 2);
        assert_eq!(retries(60, 60, 100), 5, "all are young");
        assert_eq!(retries(60, 31, 100), 5, "fewer than twice the young");
        assert_eq!(retries(60, 30, 100), 4);
        assert_eq!(retries(60, 15, 100), 3);
        assert_eq!(retries(60, 1, 100), 2, "two are always left");
    }

    #[test]
    fn few_configured_retries_are_kept_under_pressure() {
        let settings = Settings { tcp_synack_retries: 1, ..Settings::default() };
        let queue = QueueState { syn_queue: 60, backlog: 100, ..ROOM };
        assert_eq!(queue.synack_retries(&settings), 1);
    }
}
