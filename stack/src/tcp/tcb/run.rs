//! Runs of predicted segments: many at once, with the state they need in registers.
//!
//! The lcore offers the frames of a burst that belong to the connection; as many as are just the
//! next in order and teach nothing are taken, and the first other one ends the run: it goes through
//! [`Tcb::on_segment`]. Nothing is decided here that is not decided there, and in the same way.

use crate::buf::{BufQueue, PacketBuf, SegCb};
use crate::tcp::ofo::COPY_LIMIT;
use crate::tcp::{Counter, Cx, SeqNum};
use crate::time::Instant;
use crate::wire::frame::{Lens, Words};
use crate::wire::{Family, Flags, Timestamps};

use super::ack::{LEAST_MSS, Load, Owed};
use super::input::copy_from;
use super::window::Window;
use super::{Sink, State, Tcb, UNPREDICTABLE, Verdict};

/// PSH in [`Words::control`].
const PSH: u32 = Words::control(Words::WITHOUT_OPTIONS, Flags::PSH, 0)
    ^ Words::control(Words::WITHOUT_OPTIONS, Flags(0), 0);

/// Whose the buffers of a run are: what their control blocks shall say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// Socket that is charged.
    pub socket: u32,
    /// Its generation.
    pub generation: u32,
}

/// What the next segment of a run has to be, and how many there may be: few enough numbers to stay
/// in registers.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// As [`Words::numbers`].
    numbers: u64,
    /// As [`Words::control`], and the bits of it that count.
    control: u32,
    mask: u32,
    lens: Lens,
    /// Bytes up to the right edge.
    room: u32,
    /// TS.Recent, or 0 without timestamps.
    recent: u32,
    /// Truesize that may be charged before the run ends, the last segment overshooting.
    memory: i64,
}

impl Expected {
    #[inline(always)]
    fn is(&self, words: &Words) -> bool {
        words.numbers == self.numbers
            && words.control & self.mask == self.control
            && words.len <= self.room
            && self.memory > 0
            && words.ts_val.wrapping_sub(self.recent) as i32 >= 0
    }

    /// Goes on behind a segment.
    #[inline(always)]
    fn pass(&mut self, len: u32, truesize: u32) {
        self.numbers = self.numbers.wrapping_add(u64::from(len) << 32);
        self.room -= len;
        self.memory -= i64::from(truesize);
    }

    const fn seq(&self) -> u32 {
        (self.numbers >> 32) as u32
    }

    /// Makes buffers in sequence of frames, for as long as they are what is expected; their number.
    #[inline(always)]
    fn cut<const HEADERS: usize, B: PacketBuf>(
        &mut self,
        frames: &mut [Option<B>],
        cb: &SegCb,
    ) -> usize {
        let mut expected = *self;
        let most = frames.len();
        let mut places = frames.iter_mut();
        let left = loop {
            let left = places.len();
            let Some(Some(frame)) = places.next() else { break left };
            let Some(words) = Words::read::<HEADERS>(frame.data(), expected.lens) else {
                break left;
            };
            if !expected.is(&words) || frame.merged_from().is_some() {
                break left;
            }
            frame.narrow(HEADERS, words.len as usize);
            *frame.cb_mut() = SegCb { seq: expected.seq(), ..*cb };
            expected.pass(words.len, frame.truesize());
        };
        *self = expected;
        most - left
    }
}

/// What a run came to.
struct Run {
    /// Frames taken.
    len: usize,
    /// It ended behind one that taught something, whatever follows.
    is_cut_short: bool,
}

impl Run {
    const NONE: Self = Self { len: 0, is_cut_short: false };
}

impl<B: PacketBuf> Tcb<B> {
    /// Takes frames of this connection from the front of `frames` for as long as each is what
    /// [`Self::on_segment`] would say [`Verdict::Predicted`] of and has a payload. Their places are
    /// left empty; returns their number.
    ///
    /// The frames are whole, their checksums right, and they are segments of this connection. What
    /// `on_segment` does for each of them has been done; the one behind them, if there is one, is to
    /// be given to it.
    #[inline]
    pub fn on_frames(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> usize {
        // A reader that waits for the bytes themselves gets them one segment after the other.
        if sink.copies() {
            return 0;
        }
        // Marks are looked at one by one.
        if self.prediction == UNPREDICTABLE || self.ecn.is_on() {
            return 0;
        }
        let mut taken = 0;
        loop {
            let rest = &mut frames[taken..];
            let run = match (self.family(), self.ts) {
                (Family::V4, Some(_)) => {
                    self.run::<{ Words::WITH_TIMESTAMPS }>(cx, rest, owner, sink)
                }
                (Family::V4, None) => self.run::<{ Words::WITHOUT_OPTIONS }>(cx, rest, owner, sink),
                (Family::V6, Some(_)) => {
                    self.run::<{ Words::WITH_TIMESTAMPS_6 }>(cx, rest, owner, sink)
                }
                (Family::V6, None) => {
                    self.run::<{ Words::WITHOUT_OPTIONS_6 }>(cx, rest, owner, sink)
                }
            };
            self.check();
            taken += run.len;
            if !run.is_cut_short {
                return taken;
            }
        }
    }

    fn run<const HEADERS: usize>(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> Run {
        let Some(Some(first)) = frames.first() else { return Run::NONE };
        let Some(words) = Words::read::<HEADERS>(first.data(), Lens::ANY) else {
            return Run::NONE;
        };
        let mut expected = self.expect::<HEADERS>(words.len);
        // What teaches something is taken alone.
        let teaches = !self.teaches_nothing(cx.now, &words);
        if teaches {
            expected.mask = !PSH;
        }
        if !expected.is(&words) || first.merged_from().is_some() {
            return Run::NONE;
        }
        let most = if teaches { 1 } else { frames.len() };
        // Only the first can have nothing between itself and the last ACK: its timestamp counts.
        if self.rcv_nxt == self.window.wup
            && let Some(ts) = &mut self.ts
        {
            expected.recent = words.ts_val;
            ts.learn(words.ts_val, cx.now);
        }
        let echo = (HEADERS == Words::WITH_TIMESTAMPS).then(|| Words::echo(first.data()));
        let Owner { socket, generation } = owner;
        let cb = SegCb { seq: 0, fin: false, rx_time: cx.now, socket, generation };
        let memory = expected.memory;
        let taken = expected.cut::<HEADERS, B>(&mut frames[..most], &cb);
        let taken = &mut frames[..taken];
        if let Some(Some(last)) = taken.last() {
            self.snd_wl1 = SeqNum::new(last.cb().seq);
        }
        if let Some(ecr) = echo {
            self.on_echo(cx.now, Timestamps { val: words.ts_val, ecr }, words.len);
        }
        self.rcv_nxt = SeqNum::new(expected.seq());
        self.window.rmem += (memory - expected.memory) as u32;
        self.tally.data(taken.len() as u32);
        if !teaches {
            self.ack.on_more_of_the_same(cx.now);
        } else if let [Some(only)] = taken {
            let load = Load::of(words.len, flags_of(words.control), only);
            self.ack.on_data(cx, &mut self.window, load, &self.closing);
        }

        let mut sunk = 0;
        if self.receive.is_empty() && !sink.refuses_all() {
            sunk = self.sink(taken, sink);
        }
        self.receive.push_all(&mut taken[sunk..]);
        cx.counters.add(Counter::TCPHPHits, taken.len() as u64);
        cx.counters.add(Counter::ToPrequeue, sunk as u64);
        cx.counters.add(Counter::ToReceiveQueue, (taken.len() - sunk) as u64);
        Run { len: taken.len(), is_cut_short: teaches }
    }

    /// Hands buffers to the sink until it refuses one; how many it took.
    #[inline(never)]
    fn sink(&mut self, bufs: &mut [Option<B>], sink: &mut impl Sink<B>) -> usize {
        for (at, place) in bufs.iter_mut().enumerate() {
            let Some(buf) = place.take() else { continue };
            if let Err(refused) = sink.push(buf) {
                *place = Some(refused);
                return at;
            }
        }
        bufs.len()
    }

    /// Takes a frame of this connection that is data above a hole or begins to fill one, and has
    /// nothing else to say; what [`Self::on_segment`] would have said. `None`, and the frame stays,
    /// if it is anything else.
    ///
    /// The frame is as those of [`Self::on_frames`].
    pub fn on_frame_at_hole(
        &mut self,
        cx: &mut Cx<'_>,
        place: &mut Option<B>,
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> Option<Verdict> {
        let verdict = match (self.family(), self.ts) {
            (Family::V4, Some(_)) => {
                self.at_hole::<{ Words::WITH_TIMESTAMPS }>(cx, place, owner, sink)
            }
            (Family::V4, None) => {
                self.at_hole::<{ Words::WITHOUT_OPTIONS }>(cx, place, owner, sink)
            }
            (Family::V6, Some(_)) => {
                self.at_hole::<{ Words::WITH_TIMESTAMPS_6 }>(cx, place, owner, sink)
            }
            (Family::V6, None) => {
                self.at_hole::<{ Words::WITHOUT_OPTIONS_6 }>(cx, place, owner, sink)
            }
        };
        self.check();
        verdict
    }

    #[inline]
    fn at_hole<const HEADERS: usize>(
        &mut self,
        cx: &mut Cx<'_>,
        place: &mut Option<B>,
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> Option<Verdict> {
        let words = Words::read::<HEADERS>(place.as_ref()?.data(), Lens::ANY)?;
        let Words { numbers, control, ts_val, len } = words;
        let seq = SeqNum::new((numbers >> 32) as u32);
        // Neither older than the last ACK nor beyond the edge, nothing but ACK and perhaps PSH, the
        // window and the ACK field as they were: all checks are passed, and nothing is learnt. Where
        // urgent data may go is not known here.
        let is_usual = self.state == State::Established
            && !self.urgent.is_pending()
            && !self.ecn.is_on()
            && (seq.after(self.rcv_nxt) || seq == self.rcv_nxt && !self.ofo.is_empty())
            && seq.plus(len).at_or_before(self.window.right_edge())
            && control & !PSH == Words::control(HEADERS, Flags::ACK, self.snd_window)
            && numbers as u32 == self.snd_nxt.raw()
            && self.snd_una == self.snd_nxt
            && self.ts.is_none_or(|ts| ts_val.wrapping_sub(ts.recent) as i32 >= 0)
            && !self.window.is_over();
        if !is_usual {
            return None;
        }
        let mut buf = place.take()?;
        buf.narrow(HEADERS, len as usize);
        let Owner { socket, generation } = owner;
        *buf.cb_mut() = SegCb { seq: seq.raw(), fin: false, rx_time: cx.now, socket, generation };
        if seq.after(self.snd_wl1) {
            self.take_window(seq, self.snd_window);
        }
        let flags = flags_of(control);
        self.tally.data(Load::of(len, flags, &buf).segments());
        self.heard_ack(cx.now);
        if seq == self.rcv_nxt {
            if seq == self.window.wup
                && let Some(ts) = &mut self.ts
            {
                ts.learn(ts_val, cx.now);
            }
            return Some(self.on_text_in_order(cx, len, flags, buf, sink));
        }
        Some(self.queue_above_hole(cx, len, flags, buf))
    }

    /// Whether the ACK policy learns nothing from a segment: full ones teach nothing once the window
    /// is about open, small ones once two were seen since the last ACK.
    #[inline(always)]
    fn teaches_nothing(&self, now: Instant, words: &Words) -> bool {
        let nothing_new = if words.len < u32::from(LEAST_MSS) {
            self.ack.owed.has(Owed::PUSHED_AGAIN)
        } else {
            words.len == u32::from(self.ack.rcv_mss)
                && words.control & PSH == 0
                && self.window.is_about_opened(words.len)
        };
        nothing_new && self.ack.follows_quickly(now)
    }

    /// What segments of about this length have to be.
    #[inline(always)]
    fn expect<const HEADERS: usize>(&self, len: u32) -> Expected {
        let small = len < u32::from(LEAST_MSS);
        let (lens, mask) = if small {
            (Lens::new(1, u32::from(LEAST_MSS) - 1), !PSH)
        } else {
            (Lens::new(len, len), u32::MAX)
        };
        // Small ones are copied together from a certain filling on.
        let Window { rcvbuf, rmem, .. } = self.window;
        let copies = len <= COPY_LIMIT as u32;
        let limit = if copies { rcvbuf.min(copy_from(rcvbuf) + 1) } else { rcvbuf };
        Expected {
            numbers: u64::from(self.rcv_nxt.raw()) << 32 | u64::from(self.snd_nxt.raw()),
            control: Words::control(HEADERS, Flags::ACK, (self.prediction >> 8) as u16),
            mask,
            lens,
            // What is in order in ESTABLISHED never passed the edge. What ends a measurement is taken alone.
            room: self
                .window
                .right_edge()
                .since(self.rcv_nxt)
                .min(self.autotune.room(self.rcv_nxt)),
            recent: self.ts.map_or(0, |ts| ts.recent),
            memory: i64::from(limit) - i64::from(rmem),
        }
    }
}

/// The control bits of a segment with ACK and perhaps PSH.
const fn flags_of(control: u32) -> Flags {
    if control & PSH == 0 { Flags::ACK } else { Flags::ACK.with(Flags::PSH) }
}
