//! Receive buffer autotuning: how fast the application reads decides how much may be on the way.
//!
//! Fed by the lcore with what segments tell of the round trip, and with the reader's progress; once in a
//! round trip at most it compares what was read in one with what was read in the one before, and lets the
//! buffer hold twice as much of the larger. Linux's dynamic right-sizing, by the numbers of 6.18: buffers
//! only grow, up to the third value of `tcp_rmem`, and never one that the application has set.

use crate::buf::PacketBuf;
use crate::tcp::{Cx, SeqNum};
use crate::time::Instant;
use crate::wire::Timestamps;

use super::Tcb;

/// In a round trip shorter than this a buffer fills before the kernel's scheduler turns around: there the
/// growth is the smaller, the shorter it is. In microseconds.
const LOW_RTT: u32 = 1000;

/// Segments that Linux expects to be on the way at first (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;

/// Time in units of 16 microseconds, modulo 19 hours: precise enough, and half as large.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Tick(u32);

impl Tick {
    const NANOS: u64 = 16_000;

    /// Stands for no time at all; a measurement that begins just then is lost.
    const NONE: Self = Self(0);

    fn at(now: Instant) -> Self {
        Self((now.as_nanos() / Self::NANOS) as u32)
    }

    /// Microseconds from `then` to here.
    fn us_since(self, then: Self) -> u32 {
        self.0.wrapping_sub(then.0).saturating_mul(16)
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Autotune {
    /// When the present measurement began, and with which byte.
    begun: Tick,
    from: SeqNum,
    /// Most bytes read in a round trip.
    space: u32,
    /// The round trip as the receiver sees it, smoothed, in eighths of a microsecond; 0 if unknown.
    rtt: u32,
    /// The number at which a window's worth will have come since `window_sent`: at once before the first
    /// data in sequence, which starts it.
    window_end: SeqNum,
    window_sent: Tick,
    /// The last TSecr that was looked at: one sample from each.
    last_echo: u32,
}

impl Autotune {
    /// `window` is the first one, `advmss` the payload of a full segment.
    pub(super) fn new(now: Instant, rcv_nxt: SeqNum, window: u32, advmss: u16) -> Self {
        Self {
            begun: Tick::at(now),
            from: rcv_nxt,
            space: window.min(INITIAL_SEGMENTS * u32::from(advmss)),
            rtt: 0,
            window_end: rcv_nxt,
            window_sent: Tick::NONE,
            last_echo: 0,
        }
    }

    /// Bytes that the application is expected to read in a round trip.
    pub(super) const fn space(&self) -> u32 {
        self.space
    }

    /// The round trip in microseconds; 0 if unknown.
    pub(super) const fn rtt_us(&self) -> u32 {
        self.rtt / 8
    }

    /// Whether the reader's progress is to be looked at, though nothing else asks for it.
    #[inline(always)]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.rtt != 0 && Tick::at(now).us_since(self.begun) >= self.rtt_us()
    }

    /// Takes a sample in microseconds. One by the window only shows that the round trip is no longer.
    /// `is_read`: nothing waits for the reader, who may be what took the time.
    fn sample(&mut self, us: u32, by_window: bool, is_read: bool) {
        let sample = us.saturating_mul(8);
        self.rtt = if self.rtt == 0 || sample < self.rtt {
            sample
        } else if by_window || !is_read {
            return;
        } else {
            self.rtt - self.rtt / 8 + us
        };
    }

    /// Bytes behind `rcv_nxt` that do not end the measurement by the window.
    #[inline(always)]
    pub(super) fn room(&self, rcv_nxt: SeqNum) -> u32 {
        self.window_end.offset_from(rcv_nxt).max(1) as u32 - 1
    }

    /// The window that `read` bytes in a round trip call for, `span` of which are above a hole.
    #[inline]
    fn window_for(&self, read: u32, before: u32, span: u32) -> u32 {
        // What is measured is a round trip old by the time it is made room for.
        let window = u64::from(read) * 2;
        let growth = if self.rtt_us() < LOW_RTT {
            window * u64::from(self.rtt_us()) / u64::from(LOW_RTT)
        } else if read > before {
            // In slow start the sender doubles its rate.
            window * 2 * u64::from(read - before) / u64::from(before.max(1))
        } else {
            0
        };
        u32::try_from(window + growth + u64::from(span)).unwrap_or(u32::MAX)
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// A segment of full size has come with this echo of our clock. To be told before rcv_nxt moves: it is
    /// what was there before that a reader may have kept waiting.
    #[inline]
    pub(super) fn on_echo(&mut self, now: Instant, ts: Timestamps, len: u32) {
        if ts.ecr != self.autotune.last_echo {
            self.on_new_echo(now, ts, len);
        }
    }

    #[inline(never)]
    fn on_new_echo(&mut self, now: Instant, echo: Timestamps, len: u32) {
        self.autotune.last_echo = echo.ecr;
        let Some(ts) = self.ts else { return };
        let ms = ts.val(now).wrapping_sub(echo.ecr);
        if len >= self.rcv_mss() && ms > 0 && ms < u32::MAX / 2000 {
            let is_read = self.copied_seen == self.rcv_nxt;
            self.autotune.sample(ms * 1000, false, is_read);
        }
    }

    /// Data in sequence has come: measures the time that a window's worth takes.
    #[inline]
    pub(super) fn on_window_progress(&mut self, now: Instant) {
        if self.rcv_nxt.at_or_after(self.autotune.window_end) {
            self.on_window_end(now);
        }
    }

    #[inline(never)]
    fn on_window_end(&mut self, now: Instant) {
        let tune = &mut self.autotune;
        if tune.window_sent != Tick::NONE {
            tune.sample(Tick::at(now).us_since(tune.window_sent).max(1), true, false);
        }
        tune.window_end = self.rcv_nxt.plus(self.window.wnd.max(1));
        tune.window_sent = Tick::at(now);
    }

    /// Whether the reader's progress had better be looked at now, to know what it reads in a round
    /// trip; [`Self::reader_progress`] is due then.
    #[inline(always)]
    pub fn measures_reader(&self, now: Instant) -> bool {
        self.autotune.is_due(now)
    }

    /// The number behind which the reader has read more than ever in a round trip, if that matters.
    pub(super) fn space_outgrown_at(&self) -> Option<SeqNum> {
        let tune = &self.autotune;
        let seq = tune.from.plus(tune.space.min(self.window.clamp)).plus(1);
        (tune.rtt != 0 && seq.at_or_before(self.edge())).then_some(seq)
    }

    /// The reader has come to `copied_seen`: compares what it has read in a round trip.
    pub(super) fn adjust_space(&mut self, cx: &Cx<'_>) {
        let tune = &self.autotune;
        if !tune.is_due(cx.now) {
            return;
        }
        let read = self.copied_seen.since(tune.from);
        let unread = self.rcv_nxt.since(self.copied_seen);
        let read = read.saturating_sub(unread);
        if read > tune.space.min(self.window.clamp) {
            self.grow_buffer(cx, read);
        }
        let tune = &mut self.autotune;
        tune.from = self.copied_seen;
        tune.begun = Tick::at(cx.now);
    }

    /// Data above a hole takes room that the reader cannot win back.
    pub(super) fn make_room_above_hole(&mut self, cx: &Cx<'_>) {
        self.grow_buffer(cx, self.autotune.space.min(self.window.clamp));
    }

    #[inline]
    fn grow_buffer(&mut self, cx: &Cx<'_>, read: u32) {
        let before = self.autotune.space.min(self.window.clamp);
        self.autotune.space = read;
        if !cx.settings.tcp_moderate_rcvbuf || self.rcvbuf_is_set() {
            return;
        }
        let span = self.ofo.end().map_or(0, |end| end.since(self.rcv_nxt));
        let window = self.autotune.window_for(read, before, span);
        // It seldom grows: that is found out without a division.
        if self.window.is_outgrown_by(window) {
            self.widen_for(cx, window);
        }
    }

    #[cold]
    fn widen_for(&mut self, cx: &Cx<'_>, window: u32) {
        let most = u64::from(cx.settings.tcp_rmem[2]);
        self.window.widen(self.window.space_of(window).min(most) as u32);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tuned(rtt_us: u32) -> Autotune {
        let mut tune = Autotune::new(Instant::ZERO, SeqNum::new(1), 65_535, 1460);
        tune.sample(rtt_us, true, false);
        tune
    }

    #[test]
    fn the_round_trip_is_the_shortest_seen_and_grows_only_while_all_is_read() {
        let mut tune = tuned(8000);
        assert_eq!(tune.rtt_us(), 8000);
        tune.sample(16_000, true, true);
        tune.sample(16_000, false, false);
        assert_eq!(tune.rtt_us(), 8000);
        tune.sample(16_000, false, true);
        assert_eq!(tune.rtt_us(), 9000, "an eighth of the difference");
        tune.sample(2000, true, false);
        assert_eq!(tune.rtt_us(), 2000);
        assert!(!tune.is_due(Instant::ZERO + Duration::from_micros(1990)));
        assert!(tune.is_due(Instant::ZERO + Duration::from_micros(2000)));
    }

    #[test]
    fn the_window_makes_room_for_twice_what_was_read_and_for_its_growth() {
        let tune = tuned(10_000);
        assert_eq!(tune.window_for(20_000, 20_000, 0), 40_000);
        assert_eq!(tune.window_for(20_000, 10_000, 0), 40_000 + 80_000);
        assert_eq!(tune.window_for(20_000, 20_000, 7), 40_007);
        // Below a millisecond growth is not judged by the rate.
        assert_eq!(tuned(500).window_for(20_000, 10_000, 0), 40_000 + 20_000);
    }
}
