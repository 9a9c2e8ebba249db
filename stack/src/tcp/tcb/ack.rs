//! When to acknowledge: quick mode, the adaptive delay, compression of duplicate ACKs.
//!
//! Fed by every segment that is taken; asked once per burst, or per segment where each deserves an
//! ACK of its own. The delays are Linux's, within RFC 9293 §3.8.6.3: no ACK waits for half a second
//! (MUST-40), and two full segments are not both left without one (SHLD-19).

use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::negotiate::TIMESTAMPS_ROOM;
use crate::tcp::request::Opened;
use crate::tcp::{Counter, Cx};
use crate::time::Instant;
use crate::wire::{Flags, Outgoing, SackBlocks};

use super::close::Closing;
use super::window::Window;
use super::{NEVER, Tcb};

/// Least delay of an ACK, in milliseconds, and what the adaptive delay starts from.
const ATO_MIN: u32 = 40;

/// Delay of an ACK before any data has come, in milliseconds: nothing says that the peer would wait
/// for more. Linux's timers fire at the next tick then.
const TICK: u32 = 1;

/// Gaps of up to this bring the adaptive delay back to its least.
const QUICK_SUCCESSION: Duration = Duration::from_millis(ATO_MIN as u64 / 2);

/// Most delay in interactive mode or behind small segments: the peer may be waiting for us.
const DELAY_MAX: u32 = 200;

/// No delay reaches this: one tick less than the least retransmission timeout of the peer.
const DELAY_CAP: u32 = 199;

/// Most delay by RFC 1122 §4.2.3.2.
const DELAY_ABSOLUTE: u32 = 500;

/// ACKs sent at once in a row at most.
const QUICK_MAX: u32 = 16;

/// Segment size assumed before any was seen (RFC 9293 §3.7.1).
const DEFAULT_MSS: u16 = 536;

/// Smaller estimates would make every segment look full.
pub(super) const LEAST_MSS: u16 = 88;

/// Duplicate ACKs sent at once for a hole: enough for the peer's fast retransmit (RFC 5681 §3.2).
const DUP_ACKS_AT_ONCE: u8 = 3;

/// Duplicate ACKs left out in a row at most.
const COMPRESSED_MAX: u8 = 44;

/// Longest time that a duplicate ACK is held back.
const COMPRESSION_MAX: Duration = Duration::from_millis(1);

/// What a segment with payload teaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) truesize: u32,
    /// Payload.
    len: u32,
    /// Payload of a segment as it was sent: all of it, unless the device has merged some.
    unit: u32,
    flags: Flags,
}

impl Load {
    /// Segments as the peer has sent them.
    #[inline]
    pub(super) const fn segments(&self) -> u32 {
        if self.len == self.unit { 1 } else { self.len.div_ceil(self.unit) }
    }

    #[inline]
    pub(super) fn of(len: u32, flags: Flags, buf: &impl PacketBuf) -> Self {
        let unit = buf.merged_from().unwrap_or(len);
        Self { truesize: buf.truesize(), len, unit, flags }
    }

    /// Of a segment whose payload lies in buffers that take so much.
    pub(super) const fn of_many(len: u32, flags: Flags, truesize: u32) -> Self {
        Self { truesize, len, unit: len, flags }
    }
}

/// What an ACK is owed for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Owed(u8);

impl Owed {
    /// Something was received that takes an ACK, now or later.
    pub(super) const ACK: Self = Self(0x01);
    /// It must not be delayed.
    pub(super) const NOW: Self = Self(0x02);
    /// Data in sequence had to be dropped: the ACK closes the window.
    pub(super) const NO_MEMORY: Self = Self(0x04);
    /// A small or pushed segment came: when all is read, nothing will follow soon.
    pub(super) const PUSHED: Self = Self(0x08);
    /// Another one did.
    pub(super) const PUSHED_AGAIN: Self = Self(0x10);
    /// Something came since the last decision about the ACK: without news its delay just runs on.
    const UNDECIDED: Self = Self(0x20);

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The state of the ACK policy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct AckState {
    /// When a delayed or compressed ACK must go.
    pub(super) deadline: Instant,
    /// When data last came, or the connection began.
    last_data: Instant,
    /// Estimate of the peer's segment size.
    pub(super) rcv_mss: u16,
    /// The largest payload the peer may send in a segment.
    pub(super) advmss: u16,
    /// Length of the last segment if it was small, to recognise a second of the same size.
    last_small: u16,
    /// The adaptive delay in milliseconds; zero before the first data.
    pub(super) ato: u16,
    /// ACKs still to be sent at once.
    pub(super) quick: u8,
    /// Interactive mode: no quick ACKs.
    pub(super) pingpong: bool,
    pub(super) owed: Owed,
    /// Duplicate ACKs sent at once for [`Tcb::hole`].
    dup_acks: u8,
    /// Duplicate ACKs left out since the last ACK.
    compressed: u8,
}

impl AckState {
    pub(super) fn new(now: Instant, opened: &Opened, window: u32) -> Self {
        let half = u16::try_from(window / 2).unwrap_or(u16::MAX);
        let options = if opened.ts.is_some() { TIMESTAMPS_ROOM } else { 0 };
        // Nobody sends segments that fill more than half of the peer's window, if that is not tiny.
        let useful = match opened.peer_window() {
            0 => u32::MAX,
            tiny if tiny <= u32::from(DEFAULT_MSS) => tiny,
            window => window / 2,
        };
        let useful = u16::try_from(useful).unwrap_or(u16::MAX);
        let mss = opened.mss.saturating_sub(options).min(useful);
        let rcv_mss = opened.advmss.min(mss).min(half).clamp(LEAST_MSS, DEFAULT_MSS);
        Self {
            deadline: NEVER,
            last_data: now,
            rcv_mss,
            advmss: opened.advmss,
            last_small: 0,
            ato: 0,
            quick: 0,
            pingpong: false,
            owed: Owed::default(),
            dup_acks: 0,
            compressed: 0,
        }
    }

    /// When data last came, or the connection began.
    pub(super) const fn last_data(&self) -> Instant {
        self.last_data
    }

    /// Notes that an ACK is owed, and why.
    pub(super) fn owe(&mut self, what: Owed) {
        self.owed = self.owed.with(what).with(Owed::ACK).with(Owed::UNDECIDED);
    }

    /// Has the ACK that waits, or the next that is owed, sent at once.
    pub(super) fn hasten(&mut self) {
        let waits = if self.owed.has(Owed::ACK) { Owed::UNDECIDED } else { Owed::default() };
        self.owed = self.owed.with(Owed::NOW).with(waits);
    }

    /// Whether nothing has come since the last decision about an ACK.
    pub(super) const fn is_decided(&self) -> bool {
        !self.owed.has(Owed::UNDECIDED)
    }

    /// Raises the number of quick ACKs to what the open window is worth, `most` at most.
    fn refill_quick(&mut self, window: &Window, most: u32) {
        let segments = window.wnd / (2 * u32::from(self.rcv_mss));
        let quick = if segments == 0 { 2 } else { segments.min(most) };
        self.quick = self.quick.max(quick as u8);
    }

    /// The peer's view and ours differ, or it starts anew: ACK at once for a while.
    pub(super) fn enter_quick(&mut self, window: &Window) {
        self.quicken(window, QUICK_MAX);
        self.owe(Owed::NOW);
    }

    /// Quick mode for up to `most` of the next ACKs.
    pub(super) fn quicken(&mut self, window: &Window, most: u32) {
        self.refill_quick(window, most);
        self.pingpong = false;
        self.ato = ATO_MIN as u16;
    }

    /// Learns from a segment with payload in sequence.
    #[inline(always)]
    pub(super) fn on_data(
        &mut self,
        cx: &Cx<'_>,
        window: &mut Window,
        load: Load,
        closing: &Closing,
    ) {
        let is_small = load.len < u32::from(LEAST_MSS);
        let is_of_the_same = is_small
            || load.unit == u32::from(self.rcv_mss)
                && !load.flags.has(Flags::PSH)
                && window.is_about_opened(load.unit);
        if is_of_the_same && self.follows_quickly(cx.now) {
            return self.on_more_of_the_same(cx.now, is_small.into());
        }
        self.owed = self.owed.with(Owed::ACK.with(Owed::UNDECIDED));
        self.learn(cx, window, load, closing);
        self.last_data = cx.now;
    }

    /// Whether data that comes now follows the last quickly enough to leave the delay as it is. Segments
    /// of one size teach nothing new then: full ones once the window is about open, small ones but that
    /// one was seen since the last ACK, or two were.
    #[inline(always)]
    pub(super) fn follows_quickly(&self, now: Instant) -> bool {
        self.ato == ATO_MIN as u16 && now <= self.last_data + QUICK_SUCCESSION
    }

    /// Notes that data came of which nothing is to be learnt, so many small segments among it.
    #[inline(always)]
    pub(super) fn on_more_of_the_same(&mut self, now: Instant, small: u32) {
        self.owed = self.owed.with(Owed::ACK.with(Owed::UNDECIDED)).with(self.pushed_by(small));
        self.last_small = 0;
        self.last_data = now;
    }

    /// What is owed for so many segments that are small or pushed.
    #[inline(always)]
    const fn pushed_by(&self, segments: u32) -> Owed {
        match (segments, self.owed.has(Owed::PUSHED)) {
            (0, _) => Owed(0),
            (1, false) => Owed::PUSHED,
            (1, true) => Owed::PUSHED_AGAIN,
            _ => Owed::PUSHED.with(Owed::PUSHED_AGAIN),
        }
    }

    #[inline(never)]
    fn learn(&mut self, cx: &Cx<'_>, window: &mut Window, load: Load, closing: &Closing) {
        self.measure(window, load);
        if self.ato == 0 {
            self.ato = ATO_MIN as u16;
            self.refill_quick(window, QUICK_MAX);
        } else {
            self.adapt(cx, window, closing.rto_ms());
        }
        if load.len >= 128 {
            self.grow(cx, window, load);
        }
    }

    /// Opens the window's limit for a well-filled segment.
    pub(super) fn grow(&mut self, cx: &Cx<'_>, window: &mut Window, load: Load) {
        let Load { len, truesize, .. } = load;
        let (advmss, rcv_mss) = (u32::from(self.advmss), u32::from(self.rcv_mss));
        if window.grow(cx.settings, len, truesize, advmss, rcv_mss) {
            self.quick |= 1;
        }
    }

    /// Adapts the delay to the gap since the last data.
    fn adapt(&mut self, cx: &Cx<'_>, window: &Window, rto: u32) {
        let ato = u32::from(self.ato);
        if cx.now <= self.last_data + QUICK_SUCCESSION {
            self.set_ato(ato / 2 + ATO_MIN / 2);
            return;
        }
        let gap = u32::try_from(cx.now.since(self.last_data).as_millis()).unwrap_or(u32::MAX);
        if gap < ato {
            self.set_ato((ato / 2 + gap).min(rto));
        } else if gap > rto {
            // The peer paused for so long that it starts again with a small window.
            self.refill_quick(window, QUICK_MAX);
        }
    }

    fn set_ato(&mut self, ms: u32) {
        self.ato = ms.min(u32::from(u16::MAX)) as u16;
    }

    /// Keeps the estimate of the peer's segment size, and the share of buffers that it fills.
    ///
    /// A larger segment is believed at once. A smaller one only if a second of the same size
    /// follows, and if it is no mere end of a write.
    #[inline(always)]
    pub(super) fn measure(&mut self, window: &mut Window, load: Load) {
        if load.unit == u32::from(self.rcv_mss) && !load.flags.has(Flags::PSH) {
            // As large as the last ones.
            self.last_small = 0;
        } else {
            self.measure_other(window, load);
        }
    }

    #[inline(never)]
    fn measure_other(&mut self, window: &mut Window, load: Load) {
        let flags = load.flags;
        let len = load.unit.min(u32::from(u16::MAX)) as u16;
        let last = std::mem::take(&mut self.last_small);
        if len >= self.rcv_mss {
            if len != self.rcv_mss {
                window.measure(load.len, load.truesize);
                self.rcv_mss = len.min(self.advmss).max(LEAST_MSS);
            }
            if flags.has(Flags::PSH) {
                self.owed = self.owed.with(Owed::PUSHED);
            }
            return;
        }
        let ends_write = flags.any(Flags::PSH.with(Flags::FIN).with(Flags::URG));
        if len >= DEFAULT_MSS || (len >= LEAST_MSS && !ends_write) {
            self.last_small = len;
            if len == last {
                self.rcv_mss = len;
                return;
            }
        }
        self.owed = self.owed.with(self.pushed_by(1));
    }

    /// Whether the next ACK is to be sent at once because of quick mode.
    const fn is_quick(&self) -> bool {
        self.quick > 0 && !self.pingpong
    }

    /// An ACK leaves.
    fn sent(&mut self, cx: &mut Cx<'_>) {
        if self.compressed > 0 {
            cx.counters.add(Counter::TCPAckCompressed, u64::from(self.compressed));
            self.compressed = 0;
        }
        // An ACK that nothing was owed for, as that of a FIN or RST, is none of the quick ones.
        if self.quick > 0 && self.owed.has(Owed::ACK) {
            self.quick -= 1;
            if self.quick == 0 {
                self.ato = ATO_MIN as u16;
            }
        }
        self.owed = Owed::default();
        self.deadline = NEVER;
    }

    /// Nothing is owed any more, and nothing will be sent.
    pub(super) fn settle(&mut self) {
        self.owed = Owed::default();
        self.compressed = 0;
        self.deadline = NEVER;
    }

    /// Starts the delay, or tells that the ACK had better go now because it is about to end.
    fn delay(&mut self, now: Instant, srtt: Option<u32>) -> bool {
        let mut ato = u32::from(self.ato).max(TICK);
        if ato > ATO_MIN {
            let interactive = self.pingpong || self.owed.has(Owed::PUSHED);
            let mut most = if interactive { DELAY_MAX } else { DELAY_ABSOLUTE };
            if let Some(srtt) = srtt {
                most = most.min(srtt.max(ATO_MIN));
            }
            ato = ato.min(most);
        }
        ato = ato.min(DELAY_CAP);
        let wait = |ms: u32| now + Duration::from_millis(u64::from(ms));
        // A quarter of it in whole ticks of 4 ms, as many Linux kernels reckon.
        if self.deadline != NEVER && self.deadline <= wait(ato / 16 * 4) {
            return true;
        }
        self.deadline = self.deadline.min(wait(ato));
        false
    }

    /// Whether one more duplicate ACK goes at once, or is held back until the deadline.
    #[inline]
    fn hold_back(&mut self, now: Instant, new_hole: bool, closing: &Closing) -> bool {
        if self.compressed >= COMPRESSED_MAX {
            return false;
        }
        if new_hole {
            self.dup_acks = 0;
        }
        if self.dup_acks < DUP_ACKS_AT_ONCE {
            self.dup_acks += 1;
            return false;
        }
        if self.is_quick() {
            // Not held back longer than the burst.
            self.owe(Owed::NOW);
            return true;
        }
        self.compressed += 1;
        if self.compressed == 1 {
            let wait = closing.srtt().map_or(COMPRESSION_MAX, |srtt| srtt / 20);
            self.deadline = self.deadline.min(now + wait.min(COMPRESSION_MAX));
        }
        true
    }

    /// The deadline was that of a delayed ACK: the next may wait longer.
    fn delay_expired(&mut self, rto: u32) {
        if self.pingpong {
            self.pingpong = false;
            self.ato = ATO_MIN as u16;
        } else {
            self.set_ato((u32::from(self.ato) * 2).min(rto));
        }
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// The one ACK decision of a burst (RFC 9293 §3.10.7.4, MUST-58 and -59).
    pub fn end_burst(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        if !self.ack.owed.has(Owed::UNDECIDED) {
            return None;
        }
        self.ack.owed = self.ack.owed.without(Owed::UNDECIDED);
        if !self.ack.owed.has(Owed::NOW)
            // Before quick mode is looked at: a buffer half full ends it.
            && self.rcv_nxt.since(self.window.wup) > u32::from(self.ack.rcv_mss)
        {
            // If the edge would not move on by what came, the reader will make it, and the ACK.
            let target = self.window_target();
            if target >= self.window.wnd {
                return Some(self.outgoing_ack_with(cx, target));
            }
        }
        self.is_ack_due(cx).then(|| self.outgoing_ack(cx))
    }

    /// Whether there is a reason for an ACK besides what has come since the last one.
    fn is_ack_due(&mut self, cx: &Cx<'_>) -> bool {
        if self.ack.owed.has(Owed::NOW) || self.ack.is_quick() {
            return true;
        }
        if self.ofo.is_empty() {
            return self.ack.delay(cx.now, self.closing.srtt_ms());
        }
        self.is_duplicate_ack_due(cx)
    }

    /// Whether a segment above a hole is acknowledged at once. Without SACK each one is: the peer
    /// counts them (RFC 5681 §3.2).
    pub(super) fn is_duplicate_ack_due(&mut self, cx: &Cx<'_>) -> bool {
        if !self.sack_ok {
            return true;
        }
        let new_hole = std::mem::replace(&mut self.hole, self.rcv_nxt) != self.rcv_nxt;
        !self.ack.hold_back(cx.now, new_hole, &self.closing)
    }

    /// Whether duplicate ACKs are being held back.
    pub(super) const fn holds_acks_back(&self) -> bool {
        self.ack.compressed > 0
    }

    /// The application wants ACKs at once, or leaves them to their delay (TCP_QUICKACK). Not for
    /// good: what comes may change it, as in Linux. An ACK that waits goes with the next
    /// [`Self::end_burst`] if a full segment or nothing at all is unread.
    pub fn set_quick_ack(&mut self, quick: bool) {
        self.ack.pingpong = !quick;
        let is_due = self.rcv_nxt.since(self.window.wup) > u32::from(self.ack.rcv_mss)
            || self.copied_seen == self.edge();
        if quick && is_due && self.ack.owed.has(Owed::ACK) {
            self.ack.owe(Owed::NOW);
        }
    }

    /// The window that would be advertised now.
    #[inline]
    pub(super) fn window_target(&mut self) -> u32 {
        let target = self.window.target(u32::from(self.ack.rcv_mss));
        if target.low {
            self.ack.quick = 0;
        }
        target.window
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>` with window, timestamps, SACK; everything that was
    /// owed is settled by it.
    #[inline(never)]
    pub(super) fn outgoing_ack(&mut self, cx: &mut Cx<'_>) -> Outgoing {
        let target = self.window_target();
        self.outgoing_ack_with(cx, target)
    }

    /// The same with the window that would be advertised, which is known.
    #[inline(always)] // into the two decisions that know it, and the one place for all others
    pub(super) fn outgoing_ack_with(&mut self, cx: &mut Cx<'_>, target: u32) -> Outgoing {
        let no_memory = self.ack.owed.has(Owed::NO_MEMORY);
        let was_open = self.window.is_open();
        self.tally.advertises(self.rcv_nxt.since(self.window.wup));
        let overshot = self.rcv_nxt.after(self.window.right_edge());
        let window = self.window.advertise(cx, self.rcv_nxt, target, no_memory);
        self.ack.sent(cx);
        if was_open != self.window.is_open() || overshot {
            self.predict();
        }
        let out = Outgoing {
            seq: self.snd_nxt.raw(),
            ack: self.rcv_nxt.raw(),
            flags: Flags::ACK.with(self.ecn.echo()),
            window,
            ts: self.ts.map(|ts| ts.option(cx.now)),
            sack: self.take_sack_blocks(),
            tos: self.tos(),
            ttl: self.ttl(),
            ..Outgoing::default()
        };
        self.check();
        out
    }

    /// The SACK option of the next ACK; the duplicate is reported once (RFC 2883 §4).
    #[inline(always)]
    pub(super) fn take_sack_blocks(&mut self) -> SackBlocks {
        // 40 bytes of options hold four blocks, three beside timestamps.
        let room = if self.ts.is_some() { 3 } else { 4 };
        let dsack = self.dsack.take();
        if dsack.is_none() && self.sack.is_empty() {
            return SackBlocks::new();
        }
        if dsack.is_some() {
            self.predict();
        }
        self.sack.blocks(dsack, room)
    }

    /// Whether the timer of a delayed ACK has expired, and the ACK is still owed.
    pub fn is_delayed_ack_due(&self, now: Instant) -> bool {
        self.ack.deadline <= now && self.ack.compressed == 0 && self.ack.owed.has(Owed::ACK)
    }

    /// The ACK deadline has passed.
    pub(super) fn on_ack_deadline(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        if self.ack.compressed == 0 {
            if !self.ack.owed.has(Owed::ACK) {
                self.ack.deadline = NEVER;
                return None;
            }
            self.ack.delay_expired(self.closing.rto_ms());
            cx.counters.bump(Counter::DelayedACKs);
        }
        Some(self.outgoing_ack(cx))
    }
}
