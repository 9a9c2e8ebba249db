//! The packet buffer as the rooms above see it: one trait, its FIFO, its way home, and a heap twin.
//!
//! In production the buffer is an mbuf and the FIFO an intrusive list through its private area, so
//! that queueing a segment allocates nothing. Tests, fuzzers and model checkers use [`HeapBuf`].

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use crate::time::Instant;
use crate::watch::{Moment, Seen, Span};
use crate::wire::Family;

/// What travels with a queued segment: its place in the stream, and where the buffer belongs.
///
/// For an mbuf this lives in the pool's private area, one cache line behind the header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct SegCb {
    /// Sequence number of the first byte of [`PacketBuf::data`].
    pub seq: u32,
    /// The segment carried FIN: the number after the last byte is taken by it.
    pub fin: bool,
    /// When the burst that brought the segment was read.
    pub rx_time: Instant,
    /// Socket that is charged for the buffer.
    pub owner: Owner,
}

/// A socket that buffers are charged to: its index in its lcore's table, and the generation of that index,
/// so that a late return does not credit its next user. One number, which is written and compared at once.
///
/// ```
/// use prequeue::buf::Owner;
///
/// let owner = Owner::new(7, 2);
/// assert_eq!((owner.socket(), owner.generation()), (7, 2));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Owner(u64);

impl Owner {
    /// The socket with this index and generation.
    #[inline]
    pub const fn new(socket: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | socket as u64)
    }

    /// Index of the socket.
    #[inline]
    pub const fn socket(self) -> u32 {
        self.0 as u32
    }

    /// Generation of the index.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What the device said of a received frame's IP and TCP checksums.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Checksum {
    /// Nothing: verify in software.
    #[default]
    Unknown,
    /// Both were verified and are right.
    Good,
    /// That of TCP was verified and is right; the IP header's was not looked at, or there is none, as
    /// in IPv6.
    Transport,
    /// One of them is wrong.
    Bad,
}

/// An exclusively owned packet buffer. Dropping it gives the memory back.
///
/// An mbuf must be dropped on the lcore that owns its pool; every other thread hands it to that
/// lcore's [`Returns`].
pub trait PacketBuf: Debug + Send + Sized + 'static {
    /// FIFO of such buffers. Dropping it frees all of them, in bulk where that is cheaper.
    type Queue: BufQueue<Self>;

    /// The way back from application threads to the lcore that owns the pool.
    type Returns: Returns<Self>;

    /// The bytes that are left after trimming.
    fn data(&self) -> &[u8];

    /// Number of bytes in [`Self::data`].
    fn len(&self) -> usize {
        self.data().len()
    }

    /// Whether no byte is left.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts `n` bytes off the front. `n` must not exceed `len()`. Leaves the control block alone.
    fn trim_front(&mut self, n: usize);

    /// Keeps the first `len` bytes. `len` must not exceed `len()`.
    fn truncate(&mut self, len: usize);

    /// Keeps `len` bytes from `start` on: what trimming and truncating do, in one step. The range
    /// must lie within the data.
    fn narrow(&mut self, start: usize, len: usize) {
        self.trim_front(start);
        self.truncate(len);
    }

    /// Copies `bytes` behind the data if the buffer has room for all of them, else does nothing.
    fn append(&mut self, bytes: &[u8]) -> bool;

    /// What the device said of the checksums.
    fn checksum(&self) -> Checksum {
        Checksum::Unknown
    }

    /// Payload in bytes of the segments that the device has put together into this one (LRO); `None`
    /// if it is as it was sent.
    fn merged_from(&self) -> Option<u32> {
        None
    }

    /// When the device received the frame, in ticks of the device's own clock, if it said.
    fn device_time(&self) -> Option<u64> {
        None
    }

    /// What the buffer costs while it is held: its metadata and whole data room, not its payload.
    fn truesize(&self) -> u32;

    /// The buffer that is chained behind this one: a received frame that is longer than a buffer lies
    /// in several. All else here sees the one buffer only; nothing that is queued is chained.
    fn rest(&self) -> Option<&Self> {
        None
    }

    /// What this buffer and all that are chained behind it cost.
    fn chain_truesize(&self) -> u32 {
        std::iter::successors(Some(self), |buf| buf.rest()).map(Self::truesize).sum()
    }

    /// Unchains what is behind this buffer, itself perhaps a chain.
    fn take_rest(&mut self) -> Option<Self> {
        None
    }

    /// Moves bytes here from the front of what is chained, until there are `len` of them in this
    /// buffer; whether there are, for the chain may be shorter, or the buffer without room.
    fn gather(&mut self, len: usize) -> bool {
        self.len() >= len
    }

    /// Keeps the first `len` bytes of the chain, if it has more.
    fn cut_chain(&mut self, len: usize) {
        self.truncate(len.min(self.len()));
    }

    /// The control block.
    fn cb(&self) -> &SegCb;

    /// The control block, to be written.
    fn cb_mut(&mut self) -> &mut SegCb;

    /// The place of the segment in the stream.
    fn span(&self) -> Span {
        let SegCb { seq, fin, .. } = *self.cb();
        Span { seq, len: self.len() as u32, fin }
    }

    /// A reader of such buffers is in the middle of its step; `look` shows it the connection, as
    /// often as it is asked. For simulations, which may let other things happen in this moment, as
    /// far as they need neither the reader token nor what the reader owns. Other buffers leave it
    /// as it is: nothing.
    #[inline(always)]
    fn watch(_moment: Moment, _look: &mut dyn FnMut() -> Seen) {}
}

/// FIFO of packet buffers; every operation is O(1) and none allocates on the mbuf form.
pub trait BufQueue<B>: Debug + Default + Send {
    /// Appends one buffer.
    fn push_back(&mut self, buf: B);
    /// Appends all that an iterator gives; how many.
    fn push_each(&mut self, bufs: impl Iterator<Item = B>) -> usize {
        bufs.map(|buf| self.push_back(buf)).count()
    }
    /// Puts one buffer in front of all others.
    fn push_front(&mut self, buf: B);
    /// Takes the oldest buffer.
    fn pop_front(&mut self) -> Option<B>;
    /// Moves buffers from the front to a batch for as long as `takes` says yes, at most `most` and
    /// [`SPENT_AT_ONCE`] of them; how many.
    fn spend_front(
        &mut self,
        most: usize,
        batch: &mut Batch<B>,
        takes: impl FnMut(&B) -> bool,
    ) -> usize
    where
        B: PacketBuf;
    /// The oldest buffer.
    fn front(&self) -> Option<&B>;
    /// The newest buffer.
    fn back(&self) -> Option<&B>;
    /// Cuts `n` bytes off the front of the oldest buffer and moves its sequence number on by as
    /// many. There must be one, and it must have them.
    fn trim_front(&mut self, n: usize);
    /// Copies `bytes`, and a FIN behind them, to the end of the newest buffer if it has room for
    /// all of them, else does nothing.
    fn extend_back(&mut self, bytes: &[u8], fin: bool) -> bool;
    /// Moves all of `newer` behind what is here, leaving it empty.
    fn append(&mut self, newer: &mut Self);
    /// The buffers from oldest to newest.
    fn iter<'a>(&'a self) -> impl Iterator<Item = &'a B>
    where
        B: 'a;
    /// Frees all of them; the sum of their truesizes.
    fn free(self) -> u32
    where
        Self: Sized,
        B: PacketBuf,
    {
        self.iter().map(PacketBuf::truesize).sum()
    }
    /// Number of buffers.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Buffers that are moved to a batch at once, at most.
pub const SPENT_AT_ONCE: usize = 32;

/// Buffers on their way back.
pub type Batch<B> = <<B as PacketBuf>::Returns as Returns<B>>::Batch;

/// The way back for buffers: many threads give, one lcore takes. Never full, nobody waits.
pub trait Returns<B: PacketBuf>: Debug + Default + Send + Sync + 'static {
    /// Buffers of one socket that go back together, collected one by one. Dropping it frees them.
    type Batch: Debug + Default + Send;

    /// Adds a buffer of this truesize to a batch without reading it, nor writing to it if that can be
    /// helped: its lines are the lcore's.
    fn collect(batch: &mut Self::Batch, buf: B, truesize: u32);

    /// How many buffers a batch has.
    fn batch_len(batch: &Self::Batch) -> usize;

    /// Hands over a batch, as [`Self::give`] a chain.
    fn give_batch(&self, batch: Self::Batch);

    /// Frees a batch where it is: for the thread that owns the pool. The sum of the truesizes.
    fn free_batch(batch: Self::Batch) -> u32;

    /// Hands over a chain of buffers, in any order; one atomic exchange however long it is.
    fn give(&self, chain: B::Queue);

    /// Whether nothing was given that a look sees.
    fn is_empty(&self) -> bool;

    /// Takes whatever has been given so far and frees it, having told whose it is and the truesize,
    /// buffer by buffer or of several at once. For the one lcore that owns the pool.
    fn free_all(&self, told: impl FnMut(Owner, u32));
}

/// Buffers set apart for the moment when the pool runs out: what is acknowledged is copied there, so
/// that the buffers it came in can be received into again.
///
/// Bounded, and made beforehand. For the lcore that owns the pool.
pub trait Spare<B: PacketBuf> {
    /// An empty buffer with room for `len` bytes, of the size that suits them best; `None` if none
    /// is left, or none suits.
    fn take(&mut self, len: usize) -> Option<B>;

    /// Bytes that the largest holds.
    fn largest(&self) -> usize;

    /// Whether the buffer came from here: copying it would win nothing.
    fn is_from_here(&self, buf: &B) -> bool;
}

/// Fragments put together. Bounded; for the lcore that owns the pool.
pub trait Reassembly<B: PacketBuf>: Debug + Send {
    /// Takes a fragment, whose headers are intact and which ends where its datagram does. The frame of
    /// the whole datagram, a chain that begins with the first fragment's headers, if it was the last
    /// that was missing; and what was given up.
    fn take(&mut self, fragment: B, headers: Headers, now: Instant) -> (Option<B>, Lost);

    /// Gives up what is too old.
    fn expire(&mut self, now: Instant) -> Lost;

    /// When [`Self::expire`] wants to be called.
    fn next_deadline(&self) -> Option<Instant>;
}

/// The headers in front of a fragment's payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Headers {
    /// The version of IP.
    pub family: Family,
    /// Bytes of that of the link: Ethernet, tag included.
    pub link: usize,
    /// Bytes of those of IP: options included, or extension headers, the last of which is the fragment's.
    pub ip: usize,
}

/// Datagrams of which not all fragments will be put together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lost {
    /// All of them.
    pub failed: u32,
    /// Those that were too old.
    pub timed_out: u32,
}

impl<B: PacketBuf> BufQueue<B> for VecDeque<B> {
    fn push_back(&mut self, buf: B) {
        self.push_back(buf);
    }

    fn push_front(&mut self, buf: B) {
        self.push_front(buf);
    }

    fn pop_front(&mut self) -> Option<B> {
        self.pop_front()
    }

    fn spend_front(
        &mut self,
        most: usize,
        batch: &mut Batch<B>,
        mut takes: impl FnMut(&B) -> bool,
    ) -> usize
    where
        B: PacketBuf,
    {
        let spent = self.iter().take(most.min(SPENT_AT_ONCE)).take_while(|buf| takes(buf)).count();
        for buf in self.drain(..spent) {
            let truesize = buf.truesize();
            B::Returns::collect(batch, buf, truesize);
        }
        spent
    }

    fn front(&self) -> Option<&B> {
        self.front()
    }

    fn back(&self) -> Option<&B> {
        self.back()
    }

    fn trim_front(&mut self, n: usize) {
        advance(self.front_mut().expect("a buffer to be trimmed"), n);
    }

    fn extend_back(&mut self, bytes: &[u8], fin: bool) -> bool {
        self.back_mut().is_some_and(|last| extend(last, bytes, fin))
    }

    fn append(&mut self, newer: &mut Self) {
        self.append(newer);
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = &'a B>
    where
        B: 'a,
    {
        self.iter()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// Cuts `n` bytes off the front of a segment.
pub fn advance<B: PacketBuf>(buf: &mut B, n: usize) {
    buf.trim_front(n);
    let cb = buf.cb_mut();
    cb.seq = cb.seq.wrapping_add(n as u32);
}

/// Copies `bytes`, and a FIN behind them, to the end of a segment if it has room for all of them.
pub fn extend<B: PacketBuf>(buf: &mut B, bytes: &[u8], fin: bool) -> bool {
    let fits = buf.append(bytes);
    if fits {
        buf.cb_mut().fin = fin;
    }
    fits
}

/// A packet buffer on the heap, with the room of an ordinary mbuf.
///
/// ```
/// use prequeue::buf::{HeapBuf, PacketBuf};
///
/// let mut buf = HeapBuf::new(b"header and payload");
/// buf.trim_front(11);
/// assert_eq!(buf.data(), b"payload");
/// assert!(buf.truesize() > 2048);
/// ```
#[derive(Clone, Debug, Default)]
pub struct HeapBuf {
    bytes: Vec<u8>,
    start: usize,
    room: usize,
    merged_from: Option<u32>,
    checksum: Checksum,
    cb: SegCb,
    rest: Option<Box<Self>>,
}

impl HeapBuf {
    /// Data room of a default mbuf, without its headroom.
    pub const ROOM: usize = 2048;
    /// Bytes of metadata charged beside the data room: mbuf header, private area, headroom.
    pub const OVERHEAD: usize = 128 + 64 + 128;

    /// A buffer holding a copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let room = bytes.len().max(Self::ROOM);
        Self { bytes: bytes.to_vec(), room, ..Self::default() }
    }

    /// The same buffer, as if put together from segments with this much payload.
    #[must_use]
    pub fn with_merged_from(mut self, payload: u32) -> Self {
        self.merged_from = Some(payload);
        self
    }

    /// The same buffer, with so many bytes of data room. What it holds must fit.
    #[must_use]
    pub fn with_room(mut self, room: usize) -> Self {
        assert!(self.bytes.len() <= room);
        self.room = room;
        self
    }

    /// The same buffer, with another chained behind it and what is behind that.
    #[must_use]
    pub fn with_rest(mut self, rest: Option<Self>) -> Self {
        self.rest = rest.map(Box::new);
        self
    }

    /// The same buffer, with the device's word on its checksums.
    #[must_use]
    pub fn with_checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }
}

/// The heap twin of a set of spare buffers: so many of 256 bytes, and so many of 16 KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapSpare {
    /// Small ones that are left.
    pub small: u32,
    /// Large ones that are left.
    pub large: u32,
}

impl HeapSpare {
    /// Data room of a small one, and of a large one.
    pub const ROOMS: [usize; 2] = [256, 16_384];
}

impl Spare<HeapBuf> for HeapSpare {
    fn take(&mut self, len: usize) -> Option<HeapBuf> {
        let [small, large] = Self::ROOMS;
        let (left, room) =
            if len <= small { (&mut self.small, small) } else { (&mut self.large, large) };
        *left = left.checked_sub(1)?;
        Some(HeapBuf { room, ..HeapBuf::default() })
    }

    fn largest(&self) -> usize {
        Self::ROOMS[1]
    }

    fn is_from_here(&self, buf: &HeapBuf) -> bool {
        Self::ROOMS.contains(&buf.room)
    }
}

/// The heap twin of the return stack: a locked queue, for tests only. It takes any buffer that is queued
/// as heap buffers are.
#[derive(Debug)]
pub struct HeapReturns<B = HeapBuf>(Mutex<VecDeque<B>>);

impl<B> Default for HeapReturns<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B: PacketBuf<Queue = VecDeque<B>>> Returns<B> for HeapReturns<B> {
    type Batch = VecDeque<B>;

    fn collect(batch: &mut VecDeque<B>, buf: B, truesize: u32) {
        debug_assert_eq!(truesize, buf.truesize());
        batch.push_back(buf);
    }

    fn batch_len(batch: &VecDeque<B>) -> usize {
        batch.len()
    }

    fn give_batch(&self, batch: VecDeque<B>) {
        self.give(batch);
    }

    fn give(&self, mut chain: VecDeque<B>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(&mut chain);
    }

    fn free_batch(batch: VecDeque<B>) -> u32 {
        batch.iter().map(PacketBuf::truesize).sum()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn free_all(&self, mut told: impl FnMut(Owner, u32)) {
        let given = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for buf in &given {
            told(buf.cb().owner, buf.truesize());
        }
    }
}

impl PacketBuf for HeapBuf {
    type Queue = VecDeque<Self>;
    type Returns = HeapReturns;

    fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn trim_front(&mut self, n: usize) {
        assert!(n <= self.len());
        self.start += n;
    }

    fn truncate(&mut self, len: usize) {
        assert!(len <= self.len());
        self.bytes.truncate(self.start + len);
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        let fits = self.bytes.len() + bytes.len() <= self.room;
        if fits {
            self.bytes.extend_from_slice(bytes);
        }
        fits
    }

    fn checksum(&self) -> Checksum {
        self.checksum
    }

    fn merged_from(&self) -> Option<u32> {
        self.merged_from
    }

    fn truesize(&self) -> u32 {
        (self.room + Self::OVERHEAD) as u32
    }

    fn rest(&self) -> Option<&Self> {
        self.rest.as_deref()
    }

    fn take_rest(&mut self) -> Option<Self> {
        self.rest.take().map(|rest| *rest)
    }

    fn gather(&mut self, len: usize) -> bool {
        while let Some(missing) = len.checked_sub(self.len()).filter(|&n| n > 0) {
            let Some(mut rest) = self.rest.take() else { return false };
            let n = missing.min(rest.len());
            let fits = self.append(&rest.data()[..n]);
            if fits {
                rest.trim_front(n);
            }
            self.rest = if rest.is_empty() { rest.rest } else { Some(rest) };
            if !fits {
                return false;
            }
        }
        true
    }

    fn cut_chain(&mut self, len: usize) {
        match (len.checked_sub(self.len()), &mut self.rest) {
            (Some(n @ 1..), Some(rest)) => rest.cut_chain(n),
            _ => {
                self.truncate(len.min(self.len()));
                self.rest = None;
            }
        }
    }

    fn cb(&self) -> &SegCb {
        &self.cb
    }

    fn cb_mut(&mut self) -> &mut SegCb {
        &mut self.cb
    }
}
