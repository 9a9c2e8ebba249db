//! Limits on what invalid segments can make this host send: sans-IO, bounded in memory.
//!
//! A connection (or request, or TIME-WAIT entry) carries one [`ReplyStamp`] that all of its
//! replies to invalid segments share; an lcore has one [`RstLimiter`] for segments that belong to
//! no connection. Neither sends anything or reads a clock.

use std::net::IpAddr;
use std::time::Duration;

use crate::time::Instant;
use crate::wire::{Flags, Segment};

use super::isn::Secret;
use super::{Counter, Cx};

/// When the last limited reply of a connection left.
///
/// One stamp for all kinds, as in Linux: two ends that each think the other is out of window
/// cannot keep each other busy, and the limit tells an off-path observer nothing about other
/// connections (CVE-2016-5696 was a host-wide counter).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplyStamp(Instant);

/// No reply has left yet. One word for stamp and none: every TIME-WAIT entry has it.
const NO_REPLY: Instant = Instant::from_nanos(u64::MAX);

impl Default for ReplyStamp {
    fn default() -> Self {
        Self(NO_REPLY)
    }
}

impl ReplyStamp {
    /// Whether `seg`, which is out of window or failed PAWS, may be answered now.
    ///
    /// Segments with payload or FIN always may, unless they carry SYN: they cannot be part of a
    /// loop of empty ACKs, and a sender that lost our ACK waits for the answer. A reply that is
    /// left out is counted under `skipped`.
    pub fn permits(&mut self, cx: &mut Cx<'_>, seg: &Segment, skipped: Counter) -> bool {
        let occupies = seg.end_seq() != seg.seq;
        if occupies && !seg.flags.has(Flags::SYN) {
            return true;
        }
        self.permits_now(cx, skipped)
    }

    /// Whether a challenge ACK (RFC 5961) may be sent now, whatever segment asks for it. One that is left
    /// out is counted under `skipped`.
    pub fn permits_challenge(&mut self, cx: &mut Cx<'_>, skipped: Counter) -> bool {
        self.permits_now(cx, skipped)
    }

    fn permits_now(&mut self, cx: &mut Cx<'_>, skipped: Counter) -> bool {
        let limit = cx.settings.tcp_invalid_ratelimit;
        if self.0 != NO_REPLY && cx.now.since(self.0) < limit {
            cx.counters.bump(skipped);
            return false;
        }
        self.0 = cx.now;
        true
    }
}

/// RSTs a second that one lcore sends to segments of no connection.
///
/// A reflected RST is no larger than what asked for it, so the limit only has to keep a flood from
/// doubling: under a thousandth of what a 10 Gbit/s port can receive in minimum frames.
pub const RSTS_PER_LCORE: u32 = 10_000;

/// RSTs a second that one source prefix gets from one lcore.
///
/// Enough for any honest client that meets a closed port, a tenth of the lcore's budget.
pub const RSTS_PER_PREFIX: u32 = 1_000;

/// Buckets for source prefixes. Prefixes that collide share one, under a keyed hash, so that who
/// shares with whom cannot be chosen from outside.
const PREFIX_BUCKETS: usize = 1024;

/// Limits RSTs to segments of no connection, per lcore and per /24 of the source, /64 in IPv6.
#[derive(Clone, Debug)]
pub struct RstLimiter {
    secret: Secret,
    lcore: Bucket,
    prefixes: Box<[Bucket]>,
}

impl RstLimiter {
    /// A limiter with full buckets. Allocates all that it will ever use (8 KiB).
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            lcore: Bucket::default(),
            prefixes: vec![Bucket::default(); PREFIX_BUCKETS].into(),
        }
    }

    /// Whether a RST may be sent to `source` now; takes the tokens if so, counts if not.
    pub fn permits(&mut self, cx: &mut Cx<'_>, source: IpAddr) -> bool {
        let slot = self.secret.prefix(source) as usize % PREFIX_BUCKETS;
        let prefix = &mut self.prefixes[slot];
        // The prefix is asked first: a source over its own limit must not drain the lcore's.
        let permitted =
            prefix.take(cx.now, RSTS_PER_PREFIX) && self.lcore.take(cx.now, RSTS_PER_LCORE);
        if !permitted {
            cx.counters.bump(Counter::RstsSkipped);
        }
        permitted
    }
}

/// A token bucket that holds one second's worth of tokens and refills evenly.
///
/// It is one word: the instant at which it will be full again. A token taken moves that instant
/// on by the token's share of a second, and may be taken as long as it stays within a second of
/// now (the "generic cell rate algorithm").
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, per_second: u32) -> bool {
        let depth = Duration::from_secs(1);
        let full_at = self.full_at.max(now) + depth / per_second;
        let permitted = full_at <= now + depth;
        if permitted {
            self.full_at = full_at;
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;

    fn addr(bits: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(bits).into()
    }

    const EMPTY: Segment = Segment {
        seq: 5,
        ack: 1,
        len: 0,
        window: 100,
        urgent: 0,
        flags: Flags::ACK,
        ecn: 0,
        ts: None,
    };

    #[test]
    fn empty_segments_and_syns_are_answered_twice_a_second() {
        for flags in [Flags::ACK, Flags::SYN] {
            let mut world = World::default();
            let mut stamp = ReplyStamp::default();
            let seg = Segment { flags, ..EMPTY };
            let mut permits = |world: &mut World, ms| {
                world.at_ms(ms);
                stamp.permits(&mut world.cx(), &seg, Counter::TCPACKSkippedSeq)
            };
            assert!(permits(&mut world, 0));
            assert!(!permits(&mut world, 499));
            assert!(permits(&mut world, 500));
            assert!(!permits(&mut world, 501));
            assert_eq!(world.count(Counter::TCPACKSkippedSeq), 2);
        }
    }

    #[test]
    fn segments_with_payload_or_fin_are_answered_always_and_leave_the_stamp_alone() {
        let mut world = World::default();
        let mut stamp = ReplyStamp::default();
        let skipped = Counter::TCPACKSkippedSeq;
        for seg in
            [Segment { len: 1, ..EMPTY }, Segment { flags: Flags::ACK.with(Flags::FIN), ..EMPTY }]
        {
            assert!(stamp.permits(&mut world.cx(), &seg, skipped));
            assert!(stamp.permits(&mut world.cx(), &seg, skipped));
        }
        assert_eq!(stamp, ReplyStamp::default());
    }

    #[test]
    fn challenges_share_the_stamp_of_other_replies() {
        let mut world = World::default();
        let mut stamp = ReplyStamp::default();
        assert!(stamp.permits(&mut world.cx(), &EMPTY, Counter::TCPACKSkippedSeq));
        assert!(!stamp.permits_challenge(&mut world.cx(), Counter::TCPACKSkippedChallenge));
        assert_eq!(world.count(Counter::TCPACKSkippedChallenge), 1);
    }

    #[test]
    fn a_limit_of_zero_limits_nothing() {
        let mut world = World::default();
        world.settings.tcp_invalid_ratelimit = Duration::ZERO;
        let mut stamp = ReplyStamp::default();
        assert!(
            (0..10)
                .all(|_| stamp.permits_challenge(&mut world.cx(), Counter::TCPACKSkippedChallenge))
        );
    }

    #[test]
    fn a_prefix_gets_its_rsts_and_refills_evenly() {
        let mut world = World::default();
        let mut limiter = RstLimiter::new(Secret::from_seed(7));
        let source = |i: u32| addr(0x0a63_0000 + i % 256);
        let granted =
            (0..5000).filter(|&i| limiter.permits(&mut world.cx(), source(i))).count() as u32;
        assert_eq!(granted, RSTS_PER_PREFIX);
        assert_eq!(world.count(Counter::RstsSkipped), 4000);
        world.at_ms(10);
        let granted =
            (0..5000).filter(|&i| limiter.permits(&mut world.cx(), source(i))).count() as u32;
        assert_eq!(granted, RSTS_PER_PREFIX / 100);
    }

    #[test]
    fn many_prefixes_together_get_the_lcores_limit() {
        let mut world = World::default();
        let mut limiter = RstLimiter::new(Secret::from_seed(7));
        let granted = (0..100_000_u32)
            .filter(|&i| limiter.permits(&mut world.cx(), addr(i << 8)))
            .count() as u32;
        assert_eq!(granted, RSTS_PER_LCORE);
    }

    #[test]
    fn one_flooding_prefix_leaves_room_for_others() {
        let mut world = World::default();
        let mut limiter = RstLimiter::new(Secret::from_seed(7));
        for i in 0..100_000_u32 {
            limiter.permits(&mut world.cx(), addr(0x0a00_0000 + i % 256));
        }
        assert!(limiter.permits(&mut world.cx(), [192, 0, 2, 1].into()));
    }
}
