//! Zero copy: a segment's payload where the device has put it, lent or handed over.
//!
//! A [`Segment`] is lent by a reader and lives no longer than the borrow; a [`Slice`] owns its
//! buffer, goes wherever it likes, and gives the buffer back when it is dropped. Either way the
//! connection is charged for the buffer until then, and its window is smaller by as much. Nothing
//! here copies, waits or frees.

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;

use crate::buf::{BufQueue, PacketBuf, Returns, advance};
use crate::tcp::{SeqNum, SeqRange};
use crate::time::Instant;

use super::conn::Connection;
use super::home::Home;

/// When a segment arrived.
///
/// Of bytes that were copied behind those of an earlier segment (small ones, when the reader is far
/// behind) it is the earlier one's.
///
/// ```
/// use prequeue::socket::Arrival;
/// use prequeue::time::Instant;
///
/// /// Nanoseconds, for a device whose clock ticks `hz` times a second.
/// fn nanos(arrival: Arrival, hz: u64) -> u64 {
///     match arrival {
///         Arrival::Device(ticks) => (u128::from(ticks) * 1_000_000_000 / u128::from(hz)) as u64,
///         Arrival::Burst(when) => when.as_nanos(),
///     }
/// }
/// assert_eq!(nanos(Arrival::Device(5), 1_000), 5_000_000);
/// assert_eq!(nanos(Arrival::Burst(Instant::from_millis(1)), 1_000), 1_000_000);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// The device's own RX timestamp, in ticks of its own clock.
    Device(u64),
    /// The device says nothing, or the bytes were copied together since because packet buffers were
    /// running out: when the burst that brought the first was taken, on the clock of the stack.
    Burst(Instant),
}

/// A look at a segment's payload and what is known of it.
///
/// See [`Reader::peek_segments`](super::Reader::peek_segments) for an example.
pub struct View<'a, B>(&'a B);

impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for View<'_, B> {}

impl<'a, B: PacketBuf> View<'a, B> {
    pub(super) fn new(buf: &'a B) -> Self {
        Self(buf)
    }

    /// The bytes that have not been read before.
    pub fn data(self) -> &'a [u8] {
        self.0.data()
    }

    /// Their sequence numbers.
    pub fn sequence(self) -> SeqRange {
        let start = SeqNum::new(self.0.cb().seq);
        SeqRange::new(start, start.plus(self.0.len() as u32))
    }

    /// When they arrived, as exactly as is known.
    pub fn arrival(self) -> Arrival {
        self.0.device_time().map_or(Arrival::Burst(self.burst_time()), Arrival::Device)
    }

    /// When the burst that brought them was taken from the device, on the clock of the stack: one
    /// look at the clock for up to 32 segments.
    pub fn burst_time(self) -> Instant {
        self.0.cb().rx_time
    }

    /// What the connection is charged for as long as the buffer is not given back, in bytes.
    pub fn truesize(self) -> u32 {
        self.0.truesize()
    }
}

impl<B: PacketBuf> fmt::Debug for View<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SeqRange { start, end } = self.sequence();
        f.debug_struct("Segment")
            .field("start", &start)
            .field("end", &end)
            .field("arrival", &self.arrival())
            .finish_non_exhaustive()
    }
}

/// How a buffer goes back to the lcore that owns its pool. Not to be implemented by others than
/// this library: what comes back is accounted for.
pub trait WayBack<B: PacketBuf>: Clone {
    /// Gives the buffer back.
    fn give(&self, buf: B);
}

impl<B: PacketBuf, C: Connection<B>> WayBack<B> for Arc<Home<B, C>> {
    fn give(&self, buf: B) {
        let mut chain = B::Queue::default();
        chain.push_back(buf);
        self.returns().give(chain);
    }
}

/// The one buffer that is lent at the moment, and what became of it.
#[derive(Debug)]
pub(super) struct Lent<B> {
    buf: Option<B>,
    /// Bytes of it that are read; and of what was handed over before.
    read: usize,
    handed_over: u32,
}

/// What a loan has come to.
#[derive(Debug)]
pub(super) struct Settled<B> {
    /// Bytes by which the reader has advanced, whatever became of the buffer.
    pub(super) advance: u32,
    pub(super) buf: Remains<B>,
}

/// What is left of a buffer that was lent.
#[derive(Debug)]
pub(super) enum Remains<B> {
    /// Nothing: there was none, or it was handed over.
    Nothing,
    /// It is read.
    Spent(B),
    /// Its rest is next.
    Next(B),
}

impl<B: PacketBuf> Lent<B> {
    pub(super) const NONE: Self = Self { buf: None, read: 0, handed_over: 0 };

    pub(super) fn lend(&mut self, buf: B) -> &mut Self {
        debug_assert!(self.buf.is_none(), "the last loan is not settled");
        self.buf = Some(buf);
        self
    }

    /// The buffer under loan, if it was not handed over.
    pub(super) fn buf(&self) -> Option<&B> {
        self.buf.as_ref()
    }

    /// The first `n` bytes of what is left are read.
    pub(super) fn read(&mut self, n: usize) {
        self.read += n;
        debug_assert!(self.buf.as_ref().is_none_or(|buf| self.read <= buf.len()));
    }

    /// Bytes by which the reader has advanced since the last settlement.
    #[cfg(not(loom))]
    pub(super) fn progress(&self) -> u32 {
        self.handed_over + self.read as u32
    }

    /// The bytes that are left.
    pub(super) fn rest(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], |buf| &buf.data()[self.read..])
    }

    #[inline]
    pub(super) fn settle(&mut self) -> Settled<B> {
        let read = mem::take(&mut self.read);
        let advanced = mem::take(&mut self.handed_over) + read as u32;
        let buf = match self.buf.take() {
            None => Remains::Nothing,
            Some(buf) if read == buf.len() => Remains::Spent(buf),
            Some(mut buf) => {
                advance(&mut buf, read);
                Remains::Next(buf)
            }
        };
        Settled { advance: advanced, buf }
    }
}

/// A segment's payload, lent by a reader; dropping it means that it was read.
///
/// It borrows the reader, so that the compiler sees to it that no byte is looked at after its buffer
/// has gone back:
///
/// ```compile_fail,E0499
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Reader, RecvFlags};
///
/// fn two_at_once(reader: &mut Reader<'_, HeapBuf>) -> Option<u8> {
///     let mut segments = reader.segments(RecvFlags::NONE).ok()?;
///     let first = segments.next_segment()?;
///     let second = segments.next_segment()?; // the first one is still lent
///     Some(first[0] + second[0])
/// }
/// ```
///
/// ```compile_fail,E0597
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{RecvFlags, TcpStream};
///
/// fn bytes_outlive_the_reader(mut stream: TcpStream<HeapBuf>) -> usize {
///     let bytes: &[u8];
///     {
///         let mut reader = stream.reader().unwrap();
///         let mut segments = reader.segments(RecvFlags::NONE).unwrap();
///         let segment = segments.next_segment().unwrap();
///         bytes = segment.data();
///     }
///     bytes.len()
/// }
/// ```
///
/// What shall live longer is made a [`Slice`]. See [`Segments`](super::Segments) for an example.
pub struct Segment<'r, B: PacketBuf, W: WayBack<B> = Arc<Home<B>>> {
    // Invariant: holds a buffer of which nothing is read.
    lent: &'r mut Lent<B>,
    way: &'r W,
    /// Read, as far as that goes.
    done: bool,
}

impl<'r, B: PacketBuf, W: WayBack<B>> Segment<'r, B, W> {
    pub(super) fn new(lent: &'r mut Lent<B>, way: &'r W) -> Self {
        Self { lent, way, done: false }
    }

    /// The bytes that have not been read before; at least one.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.buf().data()
    }

    /// Bytes, sequence numbers, time of arrival.
    pub fn view(&self) -> View<'_, B> {
        View(self.buf())
    }

    /// The first `n` bytes are read, or all if there are fewer; the rest is the next segment.
    pub fn consume(mut self, n: usize) {
        self.lent.read(n.min(self.buf().len()));
        self.done = true;
    }

    /// Hands the buffer over: it counts as read, and the connection is charged for it until the
    /// slice is dropped.
    pub fn into_slice(mut self) -> Slice<B, W> {
        self.done = true;
        let buf = self.lent.buf.take().expect("a segment has its buffer");
        self.lent.handed_over = buf.len() as u32;
        Slice { buf: Some(buf), way: self.way.clone() }
    }

    #[inline]
    fn buf(&self) -> &B {
        self.lent.buf().expect("a segment has its buffer")
    }
}

impl<B: PacketBuf, W: WayBack<B>> Deref for Segment<'_, B, W> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.data()
    }
}

impl<B: PacketBuf, W: WayBack<B>> Drop for Segment<'_, B, W> {
    #[inline]
    fn drop(&mut self) {
        // Under a panic it was perhaps not looked at: it is there for whoever reads next.
        if !self.done && !std::thread::panicking() {
            self.lent.read = self.buf().len();
        }
    }
}

impl<B: PacketBuf, W: WayBack<B>> fmt::Debug for Segment<'_, B, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// A segment's payload, owned. Dropping it gives the buffer back, on any thread.
///
/// The connection is charged for the whole buffer, some 2.3 KiB however few bytes are in it, until
/// the slice is dropped: who keeps many closes the window. It may outlive the stream, and the stack.
/// It may go from thread to thread and is not shared by two.
///
/// ```
/// use std::sync::mpsc::Sender;
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Reader, RecvFlags, Slice};
///
/// /// Passes on what comes, uncopied, to a thread that drops it when it is done.
/// fn pass_on(reader: &mut Reader<'_, HeapBuf>, to: &Sender<Slice<HeapBuf>>) -> std::io::Result<()> {
///     loop {
///         let mut segments = reader.segments(RecvFlags::NONE)?;
///         if segments.is_end() {
///             return Ok(());
///         }
///         while let Some(segment) = segments.next_segment() {
///             if to.send(segment.into_slice()).is_err() {
///                 return Ok(());
///             }
///         }
///     }
/// }
/// ```
///
/// ```compile_fail,E0277
/// # use prequeue::buf::HeapBuf;
/// # use prequeue::socket::Slice;
/// fn shared<T: Sync>() {}
/// // An mbuf has one owner at a time.
/// shared::<Slice<prequeue::dpdk::Mbuf>>();
/// ```
pub struct Slice<B: PacketBuf, W: WayBack<B> = Arc<Home<B>>> {
    /// There until dropped.
    buf: Option<B>,
    way: W,
}

impl<B: PacketBuf, W: WayBack<B>> Slice<B, W> {
    /// The bytes.
    pub fn data(&self) -> &[u8] {
        self.buf().data()
    }

    /// Bytes, sequence numbers, time of arrival.
    pub fn view(&self) -> View<'_, B> {
        View(self.buf())
    }

    fn buf(&self) -> &B {
        self.buf.as_ref().expect("there until dropped")
    }
}

impl<B: PacketBuf, W: WayBack<B>> Deref for Slice<B, W> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data()
    }
}

impl<B: PacketBuf, W: WayBack<B>> Drop for Slice<B, W> {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take() {
            self.way.give(buf);
        }
    }
}

impl<B: PacketBuf, W: WayBack<B>> fmt::Debug for Slice<B, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}
