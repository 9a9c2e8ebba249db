//! The window to advertise: from free truesize, opened slowly, never shrunk, never silly.
//!
//! Called by the rest of the connection when it builds an ACK, takes data or gets memory back.
//! It accounts and computes; it never decides that something is to be sent.

use crate::tcp::request::Opened;
use crate::tcp::{Counter, Cx, SeqNum, Settings};

/// Share of truesize that is taken to be payload before any has been seen, of 256.
const INITIAL_RATIO: u8 = 128;

/// The largest buffer: twice the largest window (RFC 7323 §2.3), and sums stay within 32 bits.
const RCVBUF_MAX: u32 = 1 << 31;

/// Memory came back since the reader's progress was last looked at.
const FREED: u8 = 1;

/// The pool was running out when the connection was last asked to help, and nothing has come back
/// since.
const SQUEEZED: u8 = 2;

/// tcp_shrink_window, as it was when the window was last advertised.
const MAY_SHRINK: u8 = 1;

/// The largest window field.
const MAX_FIELD: u32 = 65_535;

/// Receive memory and what has been promised of it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Window {
    /// rcv_nxt when the window was last advertised.
    pub(super) wup: SeqNum,
    /// The window advertised then, in bytes: also what no header could tell.
    pub(super) wnd: u32,
    /// Truesize charged: receive queue, out-of-order queue, readers' hands.
    pub(super) rmem: u32,
    /// Limit of `rmem`. Autotuning raises it, up to the third value of tcp_rmem.
    pub(super) rcvbuf: u32,
    /// The window is opened no further than this, which grows with well-filled segments.
    pub(super) ssthresh: u32,
    /// The window is opened no further than this: what the buffer is expected to hold, or the
    /// application's wish.
    pub(super) clamp: u32,
    /// Share of truesize that is payload, of 256, as measured on full segments.
    ratio: u8,
    /// Windows are shifted right by this on the wire.
    shift: u8,
    /// [`FREED`] and [`SQUEEZED`], in one byte so that the in-order path's lines suffice.
    marks: u8,
    /// [`MAY_SHRINK`].
    modes: u8,
}

/// The window that free memory allows, before what was promised is honoured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Target {
    /// Bytes.
    pub(super) window: u32,
    /// Less than half of the buffer is free: no quick ACKs that would pull in more.
    pub(super) low: bool,
}

impl Window {
    pub(super) fn new(settings: &Settings, opened: &Opened, rcv_nxt: SeqNum) -> Self {
        let shift = opened.scale.map_or(0, |scale| scale.rcv);
        let mut window = Self {
            wup: rcv_nxt,
            // The first ACK tells it, as far as the scale goes.
            wnd: opened.rcv_wnd,
            rmem: 0,
            rcvbuf: settings.tcp_rmem[1].min(RCVBUF_MAX),
            ssthresh: opened.rcv_wnd,
            clamp: 0,
            ratio: INITIAL_RATIO,
            shift,
            marks: 0,
            modes: if settings.tcp_shrink_window { MAY_SHRINK } else { 0 },
        };
        window.clamp = window.payload_of(window.rcvbuf).min(MAX_FIELD << window.shift);
        window.reserve(opened.advmss.into());
        window
    }

    /// Keeps one segment's worth of the buffer out of the window, as Linux does until the filling of
    /// buffers was measured: a segment that overshoots then finds room.
    fn reserve(&mut self, advmss: u32) {
        let most = self.payload_of(self.rcvbuf);
        if self.clamp > 2 * advmss && self.clamp + advmss > most {
            self.clamp = (most - advmss).max(2 * advmss);
        }
        self.ssthresh = self.ssthresh.min(self.clamp);
    }

    /// Bytes that the peer may still send: zero if it has sent beyond the edge (a bare FIN may).
    pub(super) const fn open(&self, rcv_nxt: SeqNum) -> u32 {
        let left = self.right_edge().offset_from(rcv_nxt);
        if left > 0 { left as u32 } else { 0 }
    }

    /// The right edge as last advertised.
    pub(super) const fn right_edge(&self) -> SeqNum {
        self.wup.plus(self.wnd)
    }

    /// Whether less may be advertised than was: an unscaled window never shrinks, as in Linux.
    const fn shrinks(&self) -> bool {
        self.modes & MAY_SHRINK != 0 && self.shift != 0
    }

    /// Whether the window last advertised was not zero.
    pub(super) const fn is_open(&self) -> bool {
        self.wnd != 0
    }

    /// Whether more is charged than the buffer may hold. One arrival may overshoot.
    pub(super) const fn is_over(&self) -> bool {
        self.rmem > self.rcvbuf
    }

    pub(super) fn charge(&mut self, truesize: u32) {
        self.rmem += truesize;
    }

    pub(super) fn uncharge(&mut self, truesize: u32) {
        debug_assert!(truesize <= self.rmem, "more came back than was charged");
        self.rmem = self.rmem.saturating_sub(truesize);
        // A queue that was empty already has freed nothing that a window could be opened for.
        if truesize != 0 {
            self.note_freed();
        }
    }

    /// Notes that there may be room that there was not.
    pub(super) const fn note_freed(&mut self) {
        self.marks = FREED;
    }

    /// Our window shift.
    pub(super) const fn shift(&self) -> u8 {
        self.shift
    }

    /// Notes that the pool is running out.
    pub(super) fn squeeze(&mut self) {
        self.marks |= SQUEEZED;
    }

    /// Whether the pool was running out, and nothing has come back since.
    pub(super) const fn is_squeezed(&self) -> bool {
        self.marks & SQUEEZED != 0
    }

    /// Whether memory came back since the last call.
    pub(super) fn take_freed(&mut self) -> bool {
        let freed = self.marks & FREED != 0;
        self.marks &= !FREED;
        freed
    }

    /// The payload that so much truesize is expected to hold.
    const fn payload_of(&self, space: u32) -> u32 {
        ((space as u64 * self.ratio as u64) >> 8) as u32
    }

    /// The truesize that so much payload is expected to take.
    pub(super) const fn space_of(&self, window: u32) -> u64 {
        ((window as u64) << 8) / self.ratio as u64
    }

    /// Whether so much payload is expected to take more than the buffer may hold.
    pub(super) const fn is_outgrown_by(&self, window: u32) -> bool {
        (window as u64) << 8 >= (self.rcvbuf as u64 + 1) * self.ratio as u64
    }

    /// Payload for which there is room.
    const fn free(&self) -> u32 {
        self.payload_of(self.rcvbuf.saturating_sub(self.rmem))
    }

    /// Measures how much of a buffer a full segment of this connection fills.
    pub(super) fn measure(&mut self, len: u32, truesize: u32) {
        let ratio = (len.min(MAX_FIELD) << 8) / truesize.max(1);
        let before = self.ratio;
        self.ratio = ratio.clamp(1, 255) as u8;
        // As in Linux a new measurement overrides what the application has wished for, too. What the
        // header cannot say is left out when it is written.
        if self.ratio != before {
            self.set_clamp(self.payload_of(self.rcvbuf));
        }
    }

    /// The application limits the memory, in bytes of truesize. How far the window may open is left as
    /// it is, as in Linux: the next measurement of a buffer's filling lets it follow.
    pub(super) fn resize(&mut self, rcvbuf: u32) {
        self.rcvbuf = rcvbuf.min(RCVBUF_MAX);
        // There may be room now that the peer does not know of.
        self.marks |= FREED;
    }

    /// Lets the buffer grow to this, and the window with it; it does not shrink.
    pub(super) fn widen(&mut self, rcvbuf: u32) {
        let rcvbuf = rcvbuf.min(RCVBUF_MAX);
        if rcvbuf > self.rcvbuf {
            self.rcvbuf = rcvbuf;
            self.clamp = self.payload_of(rcvbuf);
            self.marks |= FREED;
        }
    }

    /// The application limits the window, in bytes, until the filling of buffers is found to be another.
    pub(super) fn clamp_to(&mut self, bytes: u32) {
        self.set_clamp(bytes);
        self.marks |= FREED;
    }

    fn set_clamp(&mut self, clamp: u32) {
        let before = self.clamp;
        if clamp == before {
            return;
        }
        self.clamp = clamp;
        // A smaller clamp bounds the limit; a larger one lets it be what was advertised already.
        self.ssthresh = if self.clamp < before {
            self.ssthresh.min(self.clamp)
        } else {
            self.ssthresh.max(self.wnd.min(self.clamp))
        };
    }

    /// Opens the limit by what a segment of this size allows; tells whether it did.
    ///
    /// A segment that fills its buffer as well as is assumed shows that the peer may send two more;
    /// one that does not, only as long as the window is small against the largest buffer.
    pub(super) fn grow(
        &mut self,
        settings: &Settings,
        len: u32,
        truesize: u32,
        advmss: u32,
        rcv_mss: u32,
    ) -> bool {
        if self.ssthresh >= self.clamp {
            return false;
        }
        let room = self.clamp.min(self.free()).saturating_sub(self.ssthresh);
        if room == 0 {
            return false;
        }
        let step = if self.payload_of(truesize) <= len {
            2 * advmss
        } else if self.affords(settings, len, truesize) {
            2 * rcv_mss
        } else {
            return false;
        };
        self.ssthresh += step.max(2 * len).min(room);
        true
    }

    /// Whether segments so poorly filled would still fit if the window were doubled until it
    /// reached the largest buffer.
    fn affords(&self, settings: &Settings, len: u32, truesize: u32) -> bool {
        let mut share = self.payload_of(truesize) >> 1;
        let mut window = self.payload_of(settings.tcp_rmem[2]) >> 1;
        while self.ssthresh <= window {
            if share <= len {
                return true;
            }
            share >>= 1;
            window >>= 1;
        }
        false
    }

    /// Whether the limit has grown to within a segment of this length of all that it can: no more is left
    /// of the buffer while that segment is in it. Of a large one a rest of less than a hundredth is not worth
    /// looking for with every segment.
    pub(super) const fn is_about_opened(&self, len: u32) -> bool {
        let rest = self.clamp / 128;
        self.ssthresh >= self.clamp.saturating_sub(if rest > len { rest } else { len })
    }

    /// Closes the limit to two segments: memory had to be won back.
    pub(super) fn tighten(&mut self, advmss: u32) {
        self.ssthresh = self.clamp.min(2 * advmss);
    }

    /// The window that free memory allows (RFC 9293 §3.8.6.2.2, MUST-39: it moves by a worthwhile
    /// amount or not at all).
    pub(super) fn target(&self, rcv_mss: u32) -> Target {
        let most = self.payload_of(self.rcvbuf);
        let full = self.clamp.min(most);
        let mss = rcv_mss.min(full);
        if mss == 0 {
            return Target { window: 0, low: true };
        }
        let mut free = self.free();
        if self.shrinks() {
            free &= !self.unit_mask();
        }
        let low = free < full / 2;
        if low {
            // It might become the window: the shift must not round it up beyond what is there.
            free &= !self.unit_mask();
            if free < most >> 4 || free < mss || free == 0 {
                return Target { window: 0, low };
            }
        }
        // The limit may have been set for smaller segments than come now: below one of them the
        // window would stay closed for ever.
        free = free.min(self.ssthresh.max(mss));
        let window = if self.shift != 0 {
            self.round_up(free)
        } else if self.wnd > free || self.wnd <= free.saturating_sub(mss) {
            free - free % mss
        } else if mss == full && free > self.wnd + full / 2 {
            free
        } else {
            self.wnd
        };
        Target { window, low }
    }

    /// Advertises a window from `rcv_nxt` on and returns the header field.
    ///
    /// The right edge does not move left (RFC 9293 §3.8.6, SHLD-14), but where tcp_shrink_window lets a
    /// scaled one, and for `no_memory`: what was promised could not be kept, and the peer had better know.
    pub(super) fn advertise(
        &mut self,
        cx: &mut Cx<'_>,
        rcv_nxt: SeqNum,
        target: u32,
        no_memory: bool,
    ) -> u16 {
        let open = self.open(rcv_nxt);
        self.modes &= !MAY_SHRINK;
        self.modes |= if cx.settings.tcp_shrink_window { MAY_SHRINK } else { 0 };
        let shrinks = self.shrinks();
        let was_closed = self.wnd == 0;
        let mut window = target;
        if no_memory {
            window = 0;
        } else if window < open && !shrinks {
            if window == 0 {
                cx.counters.bump(Counter::TCPWantZeroWindowAdv);
            }
            window = self.round_up(open);
        }
        debug_assert!(no_memory || shrinks || window >= open, "the right edge moved left");
        self.wnd = window;
        self.wup = rcv_nxt;
        match (was_closed, window == 0) {
            (false, true) => cx.counters.bump(Counter::TCPToZeroWindowAdv),
            (true, false) => cx.counters.bump(Counter::TCPFromZeroWindowAdv),
            _ => {}
        }
        (window >> self.shift).min(MAX_FIELD) as u16
    }

    /// Whether the window could be at least doubled if memory were free. The limit is that of
    /// [`Self::target`], which one segment is never above.
    pub(super) fn may_double(&self, rcv_nxt: SeqNum, rcv_mss: u32) -> bool {
        let limit = self.ssthresh.max(rcv_mss);
        self.open(rcv_nxt) <= self.clamp.min(self.round_up(limit)) / 2
    }

    const fn unit_mask(&self) -> u32 {
        (1 << self.shift) - 1
    }

    const fn round_up(&self, window: u32) -> u32 {
        window.saturating_add(self.unit_mask()) & !self.unit_mask()
    }
}
