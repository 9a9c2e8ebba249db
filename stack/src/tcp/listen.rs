//! What a listener does with a segment, and whether a SYN is let in: decisions only.
//!
//! Asked by the lcore for segments that match a listener and neither a connection nor a request.
//! It owns no queue: lengths come in as [`QueueState`], and the caller keeps the queues.

use std::num::NonZeroU8;
use std::time::Duration;

use crate::wire::{Flags, Outgoing, Segment};

use super::settings::RTO_MAX;
use super::{Counter, Cx, Settings, SynCookies, reset};

/// First retransmission timeout of the SYN-ACK (RFC 6298 §2, rule 2.1).
pub(super) const INITIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// What to do with a segment that reached a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum ListenVerdict {
    /// Nothing; not even a counter.
    Ignore,
    /// Answer with this RST, within the limit of
    /// [`RstLimiter`](super::ratelimit::RstLimiter), unless [`may_be_cookie`] and it is one.
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

/// For how long after it has sent one a listener takes cookies, as in Linux: twice the minute for
/// which a cookie is good at the least. At other times an ACK cannot guess one.
pub const COOKIES_TAKEN: Duration = Duration::from_secs(120);

/// Whether a segment for a listener that has sent cookies of late may bring one back.
pub fn may_be_cookie(settings: &Settings, seg: &Segment) -> bool {
    settings.tcp_syncookies != SynCookies::Never
        && seg.flags.has(Flags::ACK)
        && !seg.flags.any(Flags::SYN.with(Flags::RST))
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
    /// Retransmissions of a SYN-ACK, if not those of the setting.
    pub synack_retries: Option<NonZeroU8>,
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
        let mut retries = self.synack_retries.map_or(settings.tcp_synack_retries, NonZeroU8::get);
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
    let timeouts =
        std::iter::successors(Some(INITIAL_TIMEOUT), |timeout| Some((*timeout * 2).min(RTO_MAX)));
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
    /// Answer with a cookie ([`cookie::syn_ack`](super::cookie::syn_ack)) and keep nothing.
    Cookie,
}

/// Decides on a connection request.
///
/// The order is Linux's: a full SYN queue, which asks for a cookie if `tcp_syncookies` allows it; a
/// full accept queue; then, without cookies, the last quarter of `tcp_max_syn_backlog`, which is kept for
/// peers known to be alive; we keep no such knowledge, so it stays empty. A dropped SYN is not
/// answered: the client tries again.
pub fn on_syn(cx: &mut Cx<'_>, origin: SynOrigin, queue: &QueueState) -> SynVerdict {
    let from_wire = origin == SynOrigin::Wire;
    let cookies = cx.settings.tcp_syncookies;
    let mut admitted = SynVerdict::Admit;
    if from_wire && (queue.syn_queue_is_full() || cookies == SynCookies::Always) {
        if cookies == SynCookies::Never {
            cx.counters.bump(Counter::TCPReqQFullDrop);
            return drop_syn(cx);
        }
        cx.counters.bump(Counter::TCPReqQFullDoCookies);
        admitted = SynVerdict::Cookie;
    }
    if queue.accept_queue_is_full() {
        cx.counters.bump(Counter::ListenOverflows);
        return drop_syn(cx);
    }
    let most = cx.settings.tcp_max_syn_backlog;
    let few_places = most.saturating_sub(queue.syn_queue) < most / 4;
    if from_wire && cookies == SynCookies::Never && few_places {
        return drop_syn(cx);
    }
    admitted
}

fn drop_syn(cx: &mut Cx<'_>) -> SynVerdict {
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

    /// Room in both queues.
    const ROOM: QueueState = QueueState {
        syn_queue: 0,
        young: 0,
        accept_queue: 0,
        backlog: 4,
        defer_accept: 0,
        synack_retries: None,
    };

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

    fn world(tcp_syncookies: SynCookies) -> World {
        World { settings: Settings { tcp_syncookies, ..Settings::default() }, ..World::default() }
    }

    const FULL: QueueState = QueueState { syn_queue: 5, ..ROOM };
    const NO_ROOM: QueueState = QueueState { accept_queue: 5, ..ROOM };
    const NEITHER: QueueState = QueueState { accept_queue: 5, ..FULL };

    #[test]
    fn what_becomes_of_a_syn_depends_on_queues_and_cookies() {
        use Counter::{ListenDrops, ListenOverflows, TCPReqQFullDoCookies, TCPReqQFullDrop};
        use SynCookies::{Always, Never, OnOverflow};
        use SynVerdict::{Admit, Cookie, Drop};
        let dropped = [(ListenOverflows, 1), (ListenDrops, 1)];
        let cookie = [(TCPReqQFullDoCookies, 1)];
        let neither = [(ListenOverflows, 1), (ListenDrops, 1), (TCPReqQFullDoCookies, 1)];
        let full = [(ListenDrops, 1), (TCPReqQFullDrop, 1)];
        for (cookies, queue, verdict, counted) in [
            (Never, ROOM, Admit, &[][..]),
            (Never, FULL, Drop, &full),
            (Never, NO_ROOM, Drop, &dropped),
            (Never, NEITHER, Drop, &full),
            (OnOverflow, ROOM, Admit, &[]),
            (OnOverflow, FULL, Cookie, &cookie),
            (OnOverflow, NO_ROOM, Drop, &dropped),
            (OnOverflow, NEITHER, Drop, &neither),
            (Always, ROOM, Cookie, &cookie),
            (Always, FULL, Cookie, &cookie),
            (Always, NO_ROOM, Drop, &neither),
            (Always, NEITHER, Drop, &neither),
        ] {
            let mut from_wire = world(cookies);
            assert_eq!(decide(&mut from_wire, SynOrigin::Wire, queue), verdict, "{queue:?}");
            assert_eq!(from_wire.counted(), counted, "{cookies:?} {queue:?}");

            // One that replaces a TIME-WAIT entry meets no limit but that of the accept queue.
            let mut replaces = world(cookies);
            let (verdict, counted) = match queue.accept_queue_is_full() {
                true => (Drop, &dropped[..]),
                false => (Admit, &[][..]),
            };
            assert_eq!(decide(&mut replaces, SynOrigin::TimeWait, queue), verdict);
            assert_eq!(replaces.counted(), counted, "{cookies:?} {queue:?}");
        }
    }

    #[test]
    fn without_cookies_a_quarter_of_tcp_max_syn_backlog_stays_free() {
        let mut never = world(SynCookies::Never);
        let mut on_overflow = world(SynCookies::OnOverflow);
        for world in [&mut never, &mut on_overflow] {
            world.settings.tcp_max_syn_backlog = 100;
        }
        let queue = |syn_queue| QueueState { syn_queue, backlog: 4096, ..ROOM };
        for (length, verdict) in
            [(75, SynVerdict::Admit), (76, SynVerdict::Drop), (500, SynVerdict::Drop)]
        {
            assert_eq!(decide(&mut never, SynOrigin::Wire, queue(length)), verdict);
            assert_eq!(decide(&mut on_overflow, SynOrigin::Wire, queue(length)), SynVerdict::Admit);
        }
        assert_eq!(never.counted(), [(Counter::ListenDrops, 2)]);
        assert_eq!(decide(&mut never, SynOrigin::TimeWait, queue(500)), SynVerdict::Admit);
    }

    #[test]
    fn only_an_ack_without_syn_and_rst_may_bring_a_cookie() {
        for bits in 0..=u8::MAX {
            let flags = Flags(bits);
            let may = flags.has(Flags::ACK) && !flags.any(Flags::SYN.with(Flags::RST));
            for cookies in [SynCookies::Never, SynCookies::OnOverflow, SynCookies::Always] {
                let expected = may && cookies != SynCookies::Never;
                assert_eq!(may_be_cookie(&world(cookies).settings, &seg(flags)), expected);
            }
        }
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
    fn a_listener_may_have_retries_of_its_own() {
        let settings = Settings::default();
        for (own, calm, crowded) in
            [(None, 5, 2), (NonZeroU8::new(1), 1, 1), (NonZeroU8::new(9), 9, 4)]
        {
            let queue = |syn_queue, young| QueueState {
                syn_queue,
                young,
                backlog: 100,
                synack_retries: own,
                ..ROOM
            };
            assert_eq!(queue(1, 1).synack_retries(&settings), calm);
            assert_eq!(queue(60, 1).synack_retries(&settings), crowded);
        }
    }

    #[test]
    fn few_configured_retries_are_kept_under_pressure() {
        let settings = Settings { tcp_synack_retries: 1, ..Settings::default() };
        let queue = QueueState { syn_queue: 60, backlog: 100, ..ROOM };
        assert_eq!(queue.synack_retries(&settings), 1);
    }
}
