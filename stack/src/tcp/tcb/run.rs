//! Runs of predicted segments: many at once, with the state they need in registers.
//!
//! The lcore offers the frames of a burst that belong to the connection; as many as are just the
//! next in order and teach nothing are taken, and the first other one ends the run: it goes through
//! [`Tcb::on_segment`]. Nothing is decided here that is not decided there, and in the same way.

use std::slice;

use smallvec::SmallVec;

use crate::buf::{BufQueue, Owner, PacketBuf, SegCb};
use crate::tcp::ofo::COPY_LIMIT;
use crate::tcp::{Counter, Cx, SeqNum};
use crate::time::Instant;
use crate::wire::words::{Alike, Lens, Words};
use crate::wire::{Family, Flags, Timestamps};

use super::ack::{LEAST_MSS, Load};
use super::input::copy_from;
use super::window::Window;
use super::{Sink, Tcb, UNPREDICTABLE};

/// PSH in [`Words::control`].
pub(super) const PSH: u32 = Words::control(Words::WITHOUT_OPTIONS, Flags::PSH, 0)
    ^ Words::control(Words::WITHOUT_OPTIONS, Flags(0), 0);

/// Buffers that are made before the first is handed on: as many as a device gives at once.
const AT_ONCE: usize = 32;

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
    /// Payload of the last segment that was taken.
    last_len: u32,
}

impl Expected {
    #[inline(always)]
    fn is(&self, words: &Words) -> bool {
        words.control & self.mask == self.control && words.len <= self.room && self.is_next(words)
    }

    /// The same of words whose control bits and length have been looked at.
    #[inline(always)]
    fn is_next(&self, words: &Words) -> bool {
        words.numbers == self.numbers
            && self.memory > 0
            && words.ts_val.wrapping_sub(self.recent) as i32 >= 0
    }

    /// Goes on behind a segment.
    #[inline(always)]
    fn pass(&mut self, len: u32, truesize: u32) {
        self.last_len = len;
        self.numbers = self.numbers.wrapping_add(u64::from(len) << 32);
        self.memory -= i64::from(truesize);
    }

    const fn seq(&self) -> u32 {
        (self.numbers >> 32) as u32
    }
}

/// Buffers in sequence made of frames, which are taken out of their places for as long as they are what is
/// expected.
struct Cut<'a, const HEADERS: usize, B, F> {
    expected: &'a mut Expected,
    places: slice::IterMut<'a, Option<B>>,
    cb: SegCb,
    /// The length of a frame's payload, if it is.
    accepts: F,
}

impl<const HEADERS: usize, B, F> Iterator for Cut<'_, HEADERS, B, F>
where
    B: PacketBuf,
    F: FnMut(&mut Expected, &[u8]) -> Option<u32>,
{
    type Item = B;

    #[inline(always)]
    fn next(&mut self) -> Option<B> {
        let place = self.places.next()?;
        let frame = place.as_ref()?;
        let len = (self.accepts)(self.expected, frame.data())?;
        if frame.merged_from().is_some() {
            return None;
        }
        let mut buf = place.take()?;
        buf.narrow(HEADERS, len as usize);
        *buf.cb_mut() = SegCb { seq: self.expected.seq(), ..self.cb };
        self.expected.pass(len, buf.truesize());
        Some(buf)
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

/// Where the buffers of a run went.
struct Went {
    sunk: usize,
    queued: usize,
}

impl Went {
    const fn taken(&self) -> usize {
        self.sunk + self.queued
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// Takes frames of this connection from the front of `frames` for as long as each is what
    /// [`Self::on_segment`] would say [`Predicted`](super::Verdict::Predicted) of and has a payload. Their
    /// places are left empty; returns their number.
    ///
    /// The frames are whole, their checksums right, and they are segments of this connection; `alike` are
    /// those of them that are known to be like the one before. What `on_segment` does for each of them has
    /// been done; the one behind them, if there is one, is to be given to it.
    #[inline]
    pub fn on_frames(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        alike: Alike,
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> usize {
        // A reader that waits for the bytes themselves gets them one segment after the other.
        if self.prediction == UNPREDICTABLE || sink.copies() {
            return 0;
        }
        self.on_predictable_frames(cx, frames, alike, owner, sink)
    }

    #[inline(never)] // or what cannot be predicted would pay for its frame
    fn on_predictable_frames(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        alike: Alike,
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> usize {
        let mut taken = 0;
        loop {
            let rest = &mut frames[taken..];
            let alike = alike.from(taken).behind_first();
            let run = match (self.family(), self.ts) {
                (Family::V4, Some(_)) => {
                    self.run::<{ Words::WITH_TIMESTAMPS }>(cx, rest, alike, owner, sink)
                }
                (Family::V4, None) => {
                    self.run::<{ Words::WITHOUT_OPTIONS }>(cx, rest, alike, owner, sink)
                }
                (Family::V6, Some(_)) => {
                    self.run::<{ Words::WITH_TIMESTAMPS_6 }>(cx, rest, alike, owner, sink)
                }
                (Family::V6, None) => {
                    self.run::<{ Words::WITHOUT_OPTIONS_6 }>(cx, rest, alike, owner, sink)
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
        alike: usize,
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
        if !expected.is(&words)
            || first.merged_from().is_some()
            || !self.ecn.expects(Words::ecn::<HEADERS>(first.data()))
        {
            return Run::NONE;
        }
        // Where marks are looked at, only those that are known to have the same.
        let most = match teaches {
            true => 1,
            false if self.ecn.is_on() => frames.len().min(1 + alike),
            false => frames.len(),
        };
        // Only the first can have nothing between itself and the last ACK: its timestamp counts.
        if self.rcv_nxt == self.window.wup
            && let Some(ts) = &mut self.ts
        {
            expected.recent = words.ts_val;
            ts.learn(words.ts_val, cx.now);
        }
        let echo = (HEADERS == Words::WITH_TIMESTAMPS).then(|| Words::echo(first.data()));
        let cb = SegCb { seq: 0, fin: false, rx_time: cx.now, owner };
        let memory = expected.memory;
        let fit = (expected.room / words.len) as usize;
        let (same, others) = frames[..most].split_at_mut(most.min(1 + alike).min(fit));
        let all_alike = same.len();
        let accepts = |expected: &mut Expected, frame: &[u8]| {
            let words = words.of_like::<HEADERS>(frame)?;
            expected.is_next(&words).then_some(words.len)
        };
        let places = same.iter_mut();
        let cut = Cut::<HEADERS, _, _> { expected: &mut expected, places, cb, accepts };
        let mut went = self.hand_on(cut, sink);
        if went.taken() == all_alike && !others.is_empty() {
            expected.room -= all_alike as u32 * words.len;
            let accepts = |expected: &mut Expected, frame: &[u8]| {
                let words = Words::read::<HEADERS>(frame, expected.lens)?;
                expected.is(&words).then(|| {
                    expected.room -= words.len;
                    words.len
                })
            };
            let places = others.iter_mut();
            let cut = Cut::<HEADERS, _, _> { expected: &mut expected, places, cb, accepts };
            let more = self.hand_on(cut, sink);
            went = Went { sunk: went.sunk + more.sunk, queued: went.queued + more.queued };
        }
        if let Some(ecr) = echo {
            self.on_echo(cx.now, Timestamps { val: words.ts_val, ecr }, words.len);
        }
        let charged = (memory - expected.memory) as u32;
        self.rcv_nxt = SeqNum::new(expected.seq());
        self.snd_wl1 = self.rcv_nxt.minus(expected.last_len);
        self.window.rmem += charged;
        self.tally.data(went.taken() as u32);
        if teaches {
            let load = Load::of_many(words.len, flags_of(words.control), charged);
            self.ack.on_data(cx, &mut self.window, load, &self.closing);
        } else {
            let small = if is_small(words.len) { went.taken() as u32 } else { 0 };
            self.ack.on_more_of_the_same(cx.now, small);
        }
        cx.counters.add(Counter::TCPHPHits, went.taken() as u64);
        cx.counters.add(Counter::ToPrequeue, went.sunk as u64);
        cx.counters.add(Counter::ToReceiveQueue, went.queued as u64);
        Run { len: went.taken(), is_cut_short: teaches }
    }

    /// Hands buffers in sequence on, until there is none: to the sink as long as nothing older waits and it
    /// takes them, the others to the receive queue.
    #[inline(always)]
    fn hand_on(&mut self, bufs: impl Iterator<Item = B>, sink: &mut impl Sink<B>) -> Went {
        if !self.receive.is_empty() || sink.refuses_all() {
            return Went { sunk: 0, queued: self.receive.push_each(bufs) };
        }
        let ready: SmallVec<[B; AT_ONCE]> = bufs.collect();
        self.sink(ready, sink)
    }

    /// Hands them to the sink together: a reader that watches takes the ring's lines away, if it is given
    /// the time.
    #[inline(never)]
    fn sink(&mut self, ready: SmallVec<[B; AT_ONCE]>, sink: &mut impl Sink<B>) -> Went {
        let mut ready = ready.into_iter();
        let (sunk, refused) = sink.push_each(&mut ready);
        let rest = refused.into_iter().chain(ready);
        Went { sunk, queued: self.receive.push_each(rest) }
    }

    /// Whether the ACK policy learns nothing from a segment but, perhaps, that it is small: full ones
    /// teach nothing once the window is about open.
    #[inline(always)]
    fn teaches_nothing(&self, now: Instant, words: &Words) -> bool {
        let nothing_new = is_small(words.len)
            || words.len == u32::from(self.ack.rcv_mss)
                && words.control & PSH == 0
                && self.window.is_about_opened(words.len);
        nothing_new && self.ack.follows_quickly(now)
    }

    /// What segments of about this length have to be.
    #[inline(always)]
    fn expect<const HEADERS: usize>(&self, len: u32) -> Expected {
        let (lens, mask) = if is_small(len) {
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
            last_len: len,
        }
    }
}

/// Whether every segment of this payload is a small one, whatever the peer's segment size.
const fn is_small(len: u32) -> bool {
    len < LEAST_MSS as u32
}

/// The control bits of a segment with ACK and perhaps PSH.
pub(super) const fn flags_of(control: u32) -> Flags {
    if control & PSH == 0 { Flags::ACK } else { Flags::ACK.with(Flags::PSH) }
}
