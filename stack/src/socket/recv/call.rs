//! A call under way: where its bytes go, how many it wants, how long it waits.
//!
//! Made by a thread that reads, used by it alone, under the reader token while it copies. It knows
//! nothing of sockets but their options.

use std::fmt::Debug;
use std::io::IoSliceMut;

use crate::buf::PacketBuf;
use crate::time::Instant;

use super::super::direct::Memory;
use super::super::options::Options;
use super::super::wait::Waiting;
use super::flags::{RecvError, RecvFlags};
use super::{ReaderSide, Step};

/// recv takes no more in one call (Linux: `MAX_RW_COUNT`).
const MAX_LEN: usize = 0x7fff_f000;

/// What a call wants, and how far it is.
#[derive(Debug)]
pub(in crate::socket) struct Call<'a> {
    dst: Dst<'a>,
    flags: RecvFlags,
    /// Bytes copied, discarded or looked at; and how many are enough, and the most.
    pub(super) copied: usize,
    pub(super) target: usize,
    pub(super) len: usize,
    /// Where the call ends for now: [`Self::len`], or before the urgent byte.
    pub(super) most: usize,
    /// Bytes behind copied_seq at which a look starts (SO_PEEK_OFF), and those that it passes over:
    /// the same and the urgent byte.
    pub(super) offset: u32,
    pub(super) skip: u32,
    pub(super) deadline: Option<Instant>,
    pub(in crate::socket) waiting: Waiting,
    /// It is of a reader that comes back at once: it returns with what suffices, without a look for more at
    /// lines that the lcore writes; what it has read is told, and given back, when the next call finds
    /// nothing to read.
    pub(in crate::socket) hurries: bool,
    /// The call is counted in `installed_for`.
    pub(super) installed: bool,
    /// A signal has come: the call does not wait any more.
    pub(super) interrupted: bool,
    /// It only waits: no peek offset counts, and none moves.
    looks: bool,
}

/// Where bytes go.
#[derive(Debug)]
enum Dst<'a> {
    Flat(&'a mut [u8]),
    Scattered(&'a mut dyn Scatter),
    /// They are only counted.
    Nowhere,
}

/// Memory in several pieces.
pub(in crate::socket) trait Scatter: Debug + Send {
    /// Copies to the place that is `at` bytes from the beginning of the first piece.
    fn put(&mut self, at: usize, data: &[u8]);
    /// `most` bytes from that place on, to be lent.
    fn memory(&mut self, at: usize, most: usize) -> Option<Memory<'_>>;
}

/// Buffers that a call fills one after the other: for [`Recv::vectored`](super::Recv::vectored).
///
/// ```
/// use std::io::IoSliceMut;
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Recv, RecvFlags, Slices, Step, TcpStream};
/// use prequeue::time::Instant;
///
/// /// A header and a body at once, if they are there.
/// fn read(stream: &TcpStream<HeapBuf>, header: &mut [u8], body: &mut [u8]) -> Option<usize> {
///     let mut bufs = [IoSliceMut::new(header), IoSliceMut::new(body)];
///     let mut slices = Slices::new(&mut bufs);
///     let now = || Instant::ZERO;
///     let mut call = Recv::vectored(stream.handle(), &mut slices, RecvFlags::DONTWAIT, now);
///     let Step::Done(n) = call.step(now()) else { return None };
///     Some(n)
/// }
/// ```
#[derive(Debug)]
pub struct Slices<'a, 'b> {
    slices: &'a mut [IoSliceMut<'b>],
    /// A slice, and the place at which it begins: where the last bytes were put.
    slice: usize,
    begin: usize,
}

impl<'a, 'b> Slices<'a, 'b> {
    /// In this order.
    pub fn new(slices: &'a mut [IoSliceMut<'b>]) -> Self {
        Self { slices, slice: 0, begin: 0 }
    }

    /// Bytes that they hold together.
    pub(in crate::socket) fn len(&self) -> usize {
        self.slices.iter().fold(0, |sum, slice| sum.saturating_add(slice.len()))
    }
}

impl Slices<'_, '_> {
    /// Goes to the slice that holds the byte at `at`; where in it that is.
    fn seek(&mut self, at: usize) -> usize {
        if at < self.begin {
            // A look that begins again.
            (self.slice, self.begin) = (0, 0);
        }
        while let Some(slice) = self.slices.get(self.slice)
            && at - self.begin >= slice.len()
        {
            self.begin += slice.len();
            self.slice += 1;
        }
        at - self.begin
    }
}

impl Scatter for Slices<'_, '_> {
    fn put(&mut self, mut at: usize, mut data: &[u8]) {
        while !data.is_empty() {
            let within = self.seek(at);
            let slice = &mut self.slices[self.slice];
            let n = data.len().min(slice.len() - within);
            slice[within..within + n].copy_from_slice(&data[..n]);
            at += n;
            data = &data[n..];
        }
    }

    fn memory(&mut self, at: usize, most: usize) -> Option<Memory<'_>> {
        let within = self.seek(at);
        Memory::scattered(&mut self.slices[self.slice..], within, most)
    }
}

impl<'a> Call<'a> {
    /// A call that fills `dst` (with TRUNC: counts up to its length), begun at `now`.
    pub(in crate::socket) fn new(
        dst: &'a mut [u8],
        flags: RecvFlags,
        options: &Options,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        let len = dst.len();
        Self::begin(Dst::Flat(dst), len, flags, options, now)
    }

    /// A call that fills memory in pieces, `len` bytes together.
    pub(in crate::socket) fn scattered(
        dst: &'a mut dyn Scatter,
        len: usize,
        flags: RecvFlags,
        options: &Options,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        Self::begin(Dst::Scattered(dst), len, flags, options, now)
    }

    /// A call that discards up to `len` bytes.
    pub(in crate::socket) fn discarding(
        len: usize,
        flags: RecvFlags,
        options: &Options,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        Self::begin(Dst::Nowhere, len, flags.with(RecvFlags::TRUNC), options, now)
    }

    fn begin(
        dst: Dst<'a>,
        len: usize,
        flags: RecvFlags,
        options: &Options,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        let len = len.min(MAX_LEN);
        let enough = if flags.has(RecvFlags::WAITALL) { len } else { options.low_water().min(len) };
        let deadline = if flags.has(RecvFlags::DONTWAIT) || options.is_nonblocking() {
            Some(Instant::ZERO)
        } else {
            options.timeout().map(|timeout| now() + timeout)
        };
        let offset = flags.has(RecvFlags::PEEK).then(|| options.peek_offset()).flatten();
        let offset = offset.unwrap_or(0);
        Self {
            dst: if flags.has(RecvFlags::TRUNC) { Dst::Nowhere } else { dst },
            flags,
            copied: 0,
            target: enough.max(1),
            len,
            most: len,
            offset,
            skip: offset,
            deadline,
            waiting: flags.waiting(options.waiting()),
            hurries: false,
            installed: false,
            interrupted: false,
            looks: false,
        }
    }

    /// A call that waits until it could read as much as is enough, and reads nothing.
    pub(in crate::socket) fn looking(
        flags: RecvFlags,
        options: &Options,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        let look = RecvFlags::PEEK.with(RecvFlags::TRUNC);
        let how = [RecvFlags::DONTWAIT, RecvFlags::SPIN, RecvFlags::PARK];
        let how = how.into_iter().filter(|&flag| flags.has(flag));
        let flags = how.fold(look, RecvFlags::with);
        let call = Self::begin(Dst::Nowhere, options.low_water(), flags, options, now);
        Self { offset: 0, skip: 0, looks: true, ..call }
    }

    /// Whether it only waits.
    pub(super) fn is_looking(&self) -> bool {
        self.looks
    }

    /// A signal has come while the call slept: the next step is its last.
    pub(in crate::socket) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    pub(super) fn is_full(&self) -> bool {
        self.copied == self.most && self.len != 0
    }

    /// Bytes that the call can still take.
    pub(super) fn room(&self) -> usize {
        self.most - self.copied
    }

    pub(super) fn is_peek(&self) -> bool {
        self.flags.has(RecvFlags::PEEK)
    }

    /// The memory that others may fill for the call: none if bytes would not stay there, or would not be
    /// taken.
    pub(super) fn lendable(&mut self) -> Option<Memory<'_>> {
        if self.flags.has(RecvFlags::PEEK) || self.flags.has(RecvFlags::OOB) || self.room() == 0 {
            return None;
        }
        let most = self.room();
        match &mut self.dst {
            Dst::Flat(dst) => Some(Memory::flat(&mut dst[self.copied..self.most])),
            Dst::Scattered(dst) => dst.memory(self.copied, most),
            Dst::Nowhere => None,
        }
    }

    /// What is left of memory that is one piece.
    #[inline]
    pub(super) fn flat_room(&mut self) -> Option<&mut [u8]> {
        match &mut self.dst {
            Dst::Flat(dst) => Some(&mut dst[self.copied..self.most]),
            Dst::Scattered(_) | Dst::Nowhere => None,
        }
    }

    /// Whether the call has anything to do with what a reader has: a peek finds out anew, by each look,
    /// what is left of what it has seen.
    #[inline(always)]
    pub(super) fn looks_at<B: PacketBuf>(&self, side: &ReaderSide<B>) -> bool {
        side.may_have_data() || self.is_peek()
    }

    /// Whether there is enough for a call that hurries.
    #[inline(always)]
    pub(super) fn suffices(&self) -> bool {
        self.hurries && self.copied >= self.target && self.copied > 0 && !self.is_peek()
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.flags.has(RecvFlags::OOB)
    }

    /// Whether the time allowed has passed.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Takes all of `data` if there is room for it, else nothing; which of the two.
    #[inline]
    pub(super) fn take_whole(&mut self, data: &[u8]) -> bool {
        let fits = data.len() <= self.room();
        if fits {
            self.take(data);
        }
        fits
    }

    /// The end of a call that cannot go on: what it has taken comes before the error, which is the
    /// next call's.
    pub(super) fn break_off(&self, error: RecvError) -> Step {
        if self.copied > 0 { Step::Done(self.copied) } else { Step::Failed(error) }
    }

    /// Takes as much of `data` as is wanted; how much that is.
    #[inline]
    pub(super) fn take(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(self.room());
        match &mut self.dst {
            Dst::Flat(dst) => dst[self.copied..self.copied + n].copy_from_slice(&data[..n]),
            Dst::Scattered(dst) => dst.put(self.copied, &data[..n]),
            Dst::Nowhere => {}
        }
        self.copied += n;
        n
    }
}

/// Copies all of `data` to the front of `room`, which is what is left of it then; nothing if it does not
/// fit. Whether it did.
#[inline(always)]
pub(super) fn fill(room: &mut &mut [u8], data: &[u8]) -> bool {
    let fits = data.len() <= room.len();
    if fits {
        let (front, rest) = std::mem::take(room).split_at_mut(data.len());
        front.copy_from_slice(data);
        *room = rest;
    }
    fits
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bytes_fill_slices_in_order_and_anew_when_looked_at_again() {
        let (mut a, mut b, mut c) = ([0; 3], [0; 0], [0; 4]);
        let mut slices = [&mut a[..], &mut b[..], &mut c[..]].map(IoSliceMut::new);
        let mut slices = Slices::new(&mut slices);
        assert_eq!(slices.len(), 7);
        slices.put(0, b"12");
        slices.put(2, b"345");
        slices.put(5, b"67");
        slices.put(0, b"a");
        slices.put(1, b"bcd");
        assert_eq!((&a, &c), (b"abc", b"d567"));
    }

    #[test]
    fn no_call_takes_more_than_two_gibibytes() {
        for len in [MAX_LEN + 1, isize::MAX as usize, usize::MAX] {
            let flags = RecvFlags::WAITALL;
            let call = Call::discarding(len, flags, &Options::default(), || Instant::ZERO);
            assert_eq!((call.len, call.target), (MAX_LEN, MAX_LEN));
        }
    }
}
