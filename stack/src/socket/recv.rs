//! recv as a step function: (socket, call, now) to done, sleep until, or error.
//!
//! Run by application threads. A step takes the reader token, copies what there is from the taken
//! list, the ring and the receive queue, in this order, and never sleeps but for the token and the
//! owner word; sleeping for data and the clock are the caller's, so that real threads, a virtual
//! clock and a packetdrill adapter run the same code. It never runs TCP and never frees a buffer.
//!
//! ```text
//!   older ◀────────────────────────────────────────────────▶ newer
//!   reader:  taken list │ ring │ receive queue │ (out of order)
//!            └── token ────────┘└──── owner ──────────────────┘
//! ```

mod call;
mod flags;
mod read;
mod shared;
mod spent;
mod step;
mod urgent;

use std::mem;

use crate::buf::{BufQueue, PacketBuf, Returns};
use crate::tcp::SeqNum;
use crate::time::Instant;
use crate::watch::ReaderSeen;

use super::conn::Connection;
use super::handle::Handle;
use super::owner::Ref;
use super::park::{Status, UrgentWord};
use super::ring::Consumer;
use super::socket::Socket;
use super::sync::mutant;
use super::wait::Waiting;

pub(super) use call::Call;
pub use call::Slices;
pub use flags::{Received, RecvError, RecvFlags};
pub(super) use read::read_by_recv;
use spent::Spent;
pub(super) use step::Source;
use urgent::Urgency;

/// What a step came to.
///
/// See [`Recv`] for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The call returns this number of bytes; 0 is the end of the stream.
    Done(usize),
    /// Call again when there is news, or at the deadline.
    Sleep(Sleep),
    /// The call fails.
    Failed(RecvError),
}

/// What a call waits for.
///
/// See [`Recv`] for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sleep {
    /// The edge that it wants to see reached.
    wanted: SeqNum,
    /// What it has read so far.
    read: SeqNum,
    /// What it knows of urgent data, or that it waits for an exclusive reader to go.
    seen: Seen,
    /// When it gives up; never if `None`.
    pub until: Option<Instant>,
}

/// What is no news besides the edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// The urgent mark is as it was.
    Urgent(UrgentWord),
    /// The reader token is an exclusive reader's.
    ExclusiveReader,
}

/// What the reader token guards: the consuming end, and everything older than it.
#[derive(Debug)]
pub(super) struct ReaderSide<B: PacketBuf> {
    /// In-sequence buffers older than the ring; the first may be read in part.
    pub(super) taken: B::Queue,
    pub(super) ring: Option<Consumer<B>>,
    pub(super) copied_seq: SeqNum,
    /// Buffers that are read and not yet given back.
    pub(super) spent: Spent<B>,
    /// Calls that keep the ring installed.
    pub(super) installed_for: u32,
    pub(super) urgency: Urgency,
}

impl<B: PacketBuf> ReaderSide<B> {
    pub(super) fn new(copied_seq: SeqNum) -> Self {
        Self {
            taken: B::Queue::default(),
            ring: None,
            copied_seq,
            spent: Spent::default(),
            installed_for: 0,
            urgency: Urgency::new(copied_seq),
        }
    }

    /// The first sequence number that has not been read.
    pub(super) fn copied_seq(&self) -> SeqNum {
        self.copied_seq
    }

    /// Notes what was copied straight to a reader.
    pub(super) fn read_up_to(&mut self, copied_seq: SeqNum) {
        self.copied_seq = copied_seq;
    }

    /// Gives every buffer back, read or not: the end of the socket, or of its last handle.
    pub(super) fn give_all(&mut self, returns: &B::Returns) {
        if let Some(batch) = self.spent.take() {
            returns.give_batch(batch);
        }
        self.empty_ring();
        if !self.taken.is_empty() {
            returns.give(mem::take(&mut self.taken));
        }
    }

    /// What it guards, for whoever watches.
    pub(super) fn seen(&mut self) -> ReaderSeen {
        let mut ring = self.ring.as_ref().map(|_| Vec::new());
        if let (Some(consumer), Some(spans)) = (&mut self.ring, &mut ring) {
            consumer.each(|buf| spans.push(buf.span()));
        }
        let taken = self.taken.iter().map(PacketBuf::span).collect();
        ReaderSeen { copied_seq: self.copied_seq.raw(), taken, ring }
    }

    /// All that was taken or waits in the ring, as one queue.
    pub(super) fn unread(&mut self) -> &mut B::Queue {
        if mutant!(RingBeforeTaken) {
            let mut older = mem::take(&mut self.taken);
            self.empty_ring();
            self.taken.append(&mut older);
        }
        self.empty_ring();
        &mut self.taken
    }

    /// Moves what is in the ring behind what was taken.
    pub(super) fn empty_ring(&mut self) {
        if let Some(ring) = &mut self.ring {
            while let Some(element) = ring.pop() {
                self.taken.push_back(element.buf);
            }
        }
    }
}

impl<B: PacketBuf> ReaderSide<B> {
    /// Whether there is anything that data could be in.
    #[inline(always)]
    pub(super) fn may_have_data(&self) -> bool {
        self.ring.is_some() || !self.taken.is_empty()
    }

    pub(super) fn has_data(&self) -> bool {
        !self.taken.is_empty() || self.ring.as_ref().is_some_and(|ring| !ring.is_empty())
    }
}

/// A call under way. Dropping it leaves the socket: the ring is uninstalled with the last call.
///
/// For callers that have a clock or a way of waiting of their own; [`TcpStream`](super::TcpStream) is
/// for everybody else. Any thread may make one; each step holds the reader token, none is held between
/// steps.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Recv, RecvError, RecvFlags, Step, TcpStream};
/// use prequeue::time::Instant;
///
/// /// Reads in virtual time: `pass` lets things happen until the time given, or for a while.
/// fn read(
///     stream: &TcpStream<HeapBuf>,
///     buf: &mut [u8],
///     mut now: Instant,
///     mut pass: impl FnMut(Option<Instant>) -> Instant,
/// ) -> Result<usize, RecvError> {
///     let mut call = Recv::new(stream.handle(), buf, RecvFlags::NONE, || now);
///     loop {
///         match call.step(now) {
///             Step::Done(n) => return Ok(n),
///             Step::Failed(error) => return Err(error),
///             Step::Sleep(sleep) => now = pass(sleep.until),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Recv<'a, B: PacketBuf, C: Connection<B>> {
    socket: &'a Ref<Socket<B, C>>,
    call: Call<'a>,
}

impl<'a, B: PacketBuf, C: Connection<B>> Recv<'a, B, C> {
    /// Begins a call on a shared socket. `now` is asked only if there is a timeout.
    pub fn new(
        handle: &'a Handle<B, C>,
        dst: &'a mut [u8],
        flags: RecvFlags,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        Self::of(handle, Call::new(dst, flags, &handle.socket.options, now))
    }

    /// Begins a call that fills several buffers, one after the other.
    pub fn vectored(
        handle: &'a Handle<B, C>,
        slices: &'a mut Slices<'_, '_>,
        flags: RecvFlags,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        let len = slices.len();
        Self::of(handle, Call::scattered(slices, len, flags, &handle.socket.options, now))
    }

    /// Begins a call that discards up to `len` bytes instead of copying them.
    pub fn discarding(
        handle: &'a Handle<B, C>,
        len: usize,
        flags: RecvFlags,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        Self::of(handle, Call::discarding(len, flags, &handle.socket.options, now))
    }

    fn of(handle: &'a Handle<B, C>, call: Call<'a>) -> Self {
        Self { socket: &handle.socket, call }
    }

    /// Does what can be done now. After [`Step::Done`] and [`Step::Failed`] the call is over.
    pub fn step(&mut self, now: Instant) -> Step {
        let socket = self.socket;
        if socket.is_guarded_by_this_thread() {
            return Step::Failed(RecvError::Deadlock);
        }
        let claim = match self.call.deadline {
            None => Some(socket.reader.claim_thread()),
            Some(_) => socket.claim_reader_unless_exclusive(),
        };
        let Some(mut side) = claim else { return socket.wait_for_reader(&self.call, now) };
        let step = socket.step(&mut side, &mut self.call, now);
        if !matches!(step, Step::Sleep(_)) {
            socket.leave(&mut side, &mut self.call);
        }
        step
    }

    /// Tells that a signal was handled while the call slept: the next step is the last, and fails
    /// with [`RecvError::Interrupted`] if there is nothing to return.
    pub fn interrupt(&mut self) {
        self.call.interrupt();
    }

    /// How the call waits: as its flags say, or the socket.
    pub fn waiting(&self) -> Waiting {
        self.call.waiting
    }

    /// Says on the socket what the call sleeps for, as a thread does before it sleeps; whether it may,
    /// there being no news. Being woken is then a change of [`Seen::wakes`](crate::watch::Seen::wakes).
    pub fn announce(&self, sleep: &Sleep) -> bool {
        sleep.announce(self.socket).is_some()
    }

    /// Whether a step would find something to do; takes nothing.
    pub fn has_news(&self, sleep: &Sleep) -> bool {
        sleep.has_news(self.socket)
    }

    /// Waits as `wait` does, after a step that said to sleep: in low-latency mode with the rest of the
    /// call's memory lent to the lcore, which then copies what comes straight into it, as
    /// [`TcpStream::set_low_latency`](super::TcpStream::set_low_latency) tells. The next step counts it.
    ///
    /// Callers that wait without it lose nothing but time. `wait` may look, sleep, read through other
    /// handles and panic; the memory is taken back when it ends, however it does.
    pub fn lending<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        self.socket.lending(&mut self.call, None, wait)
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Recv<'_, B, C> {
    fn drop(&mut self) {
        if self.call.installed {
            let mut side = self.socket.reader.claim_thread();
            self.socket.leave(&mut side, &mut self.call);
        }
    }
}

impl Sleep {
    /// Announces the sleep on the socket; what to give to the word's `wait`, or nothing if there
    /// is news already.
    pub(super) fn announce<B: PacketBuf, C: Connection<B>>(
        &self,
        socket: &Socket<B, C>,
    ) -> Option<u32> {
        // All that is news is published before the same fences.
        let seen = socket.park().announce(self.wanted);
        (!self.has_news(socket)).then_some(seen)
    }

    /// Whether a step would find something to do.
    pub(super) fn has_news<B: PacketBuf, C: Connection<B>>(&self, socket: &Socket<B, C>) -> bool {
        let park = socket.park();
        match self.seen {
            Seen::Urgent(seen) => {
                park.has_news(self.wanted, self.read)
                    || park.status().has(Status::URGENT) && park.urgent() != seen
            }
            Seen::ExclusiveReader => !socket.is_exclusive() || park.status().has(Status::DEAD),
        }
    }
}
