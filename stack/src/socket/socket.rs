//! The socket: one connection, and everything that its lcore and application threads share of it.
//!
//! This file is about ownership: how a thread owns ([`Ownership`]), what handles ask for
//! ([`Requests`]), how it ends. The lcore's side is in `lcore_ref.rs`, reading in `recv.rs`.
//! A thread never runs TCP, never frees a buffer and never touches a counter.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::buf::{BufQueue, PacketBuf, Returns};
use crate::tcp::tcb::{ConnError, Sink, Tcb};
use crate::tcp::{PathError, SeqNum};
use crate::wire::FourTuple;

use super::conn::Connection;
use super::direct::{Loan, Offer, Slot};
use super::home::Home;
use super::notice::{NotifyAt, Progress};
use super::options::Options;
use super::owner::{Last, LcoreClaim, Owned, Parcel, Ref, Released, ThreadClaim};
use super::park::{Park, Status, UrgentRead, UrgentWord};
use super::poller::{Facts, Readiness, Watchers};
use super::recv::ReaderSide;
use super::ring::Producer;
use super::sync::{AtomicBool, AtomicU32, AtomicU64, FirstLine, Ordering};
use super::wait::{ThreadWaiter, Waiter, Waiting, wait};

/// Which socket: its place in its lcore's table, and how often the place was used before.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketId {
    /// Index in the lcore's table.
    pub slot: u32,
    /// Use of that index.
    pub generation: u32,
}

/// A connection with its owner word, its reader token and what both sides publish.
///
/// Three groups of cache lines: what threads and the lcore publish to each other, what the reader
/// writes, and what belongs to the owner.
#[derive(Debug)]
#[repr(C, align(128))] // the order is that of the groups, which begin pairs of lines
pub struct Socket<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    pub(super) shared: FirstLine<Shared>,
    // In the other line of the pair, and filling it: what is hardly ever written.
    pub(super) options: Options,
    watchers: Watchers,
    pub(super) home: Arc<Home<B, C>>,
    // Begins a pair of lines, and ends with them.
    pub(super) reader: Owned<ReaderSide<B>>,
    /// Written by the reader at its own pace, read by the lcore when it wants to know.
    pub(super) progress: FirstLine<Progress>,
    /// Handles that are not dropped; the last one closes.
    handles: AtomicU32,
    /// The lcore has given up its reference.
    retired: AtomicBool,
    /// The thread that holds a guard, so that it can be told instead of waiting for itself.
    pub(super) guarded_by: AtomicU64,
    // Seldom read: here is room.
    pub(super) tuple: FourTuple,
    id: SocketId,
    pub(super) inner: FirstLine<Owned<Inner<B, C>>>,
    /// The memory of a call that waits, in low-latency mode. Claimed last.
    pub(super) slot: Owned<Slot>,
}

/// What one side writes for the other to see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) park: Park,
    pub(super) notify_at: NotifyAt,
    /// Whether a waiting reader lends memory.
    pub(super) offer: Offer,
    requests: AtomicU32,
    /// The error that the next call returns, as [`encode`] has it; 0 for none.
    error: AtomicU32,
    pub(super) urgent_read: UrgentRead,
    /// An exclusive reader has the token.
    exclusive: AtomicBool,
}

/// What the owner word guards.
#[derive(Debug)]
pub(super) struct Inner<B: PacketBuf, C> {
    pub(super) tcb: C,
    pub(super) sink: RingSink<B>,
    /// The edge, status and mark as published: only owners publish them.
    pub(super) edge: SeqNum,
    pub(super) status: Status,
    pub(super) urgent: UrgentWord,
    pub(super) notify_at: Option<SeqNum>,
    /// Requests that the lcore has taken.
    pub(super) requests_taken: u32,
}

/// Where the connection puts in-sequence data: the ring, while a reader is installed; or, while the
/// lcore has a waiting reader's loan, that reader's memory.
#[derive(Debug)]
pub struct RingSink<B>(pub(super) Option<Producer<B>>, pub(super) Option<Loan>);

impl<B: PacketBuf> Sink<B> for RingSink<B> {
    fn push(&mut self, buf: B) -> Result<(), B> {
        match &mut self.0 {
            Some(ring) => ring.push(buf),
            None => Err(buf),
        }
    }

    #[inline]
    fn refuses_all(&self) -> bool {
        self.0.is_none()
    }

    fn copies(&self) -> bool {
        self.1.is_some()
    }

    fn copy(&mut self, buf: &B) -> usize {
        self.1.as_mut().map_or(0, |loan| loan.copy(SeqNum::new(buf.cb().seq), buf.data()))
    }
}

impl<B: PacketBuf, C: Connection<B>> Socket<B, C> {
    pub(super) fn new(tcb: C, home: &Arc<Home<B, C>>, id: SocketId, tuple: FourTuple) -> Ref<Self> {
        let edge = tcb.edge();
        Ref::new(Self {
            shared: FirstLine(Shared {
                park: Park::new(edge),
                notify_at: NotifyAt::new(),
                offer: Offer::new(),
                requests: AtomicU32::new(0),
                error: AtomicU32::new(0),
                urgent_read: UrgentRead::default(),
                exclusive: AtomicBool::new(false),
            }),
            progress: FirstLine(Progress::new(edge)),
            reader: Owned::new(ReaderSide::new(edge)),
            slot: Owned::new(Slot::default()),
            inner: FirstLine(Owned::new(Inner {
                tcb,
                sink: RingSink(None, None),
                edge,
                status: Status::default(),
                urgent: UrgentWord::default(),
                notify_at: None,
                requests_taken: 0,
            })),
            options: Options::default(),
            watchers: Watchers::default(),
            home: home.clone(),
            tuple,
            id,
            handles: AtomicU32::new(1),
            retired: AtomicBool::new(false),
            guarded_by: AtomicU64::new(0),
        })
    }

    pub(super) fn id(&self) -> SocketId {
        self.id
    }

    pub(super) fn park(&self) -> &Park {
        &self.shared.park
    }

    /// Marks the socket dead and wakes whoever sleeps on it: every call returns an error.
    pub(super) fn kill(&self) {
        self.park().set(Status::DEAD);
        self.park().wake_all();
        self.notify_pollers();
    }

    /// The pollers that watch the socket.
    pub(super) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// Tells pollers of what was published before [`Park::fence`].
    #[inline]
    pub(super) fn notify_pollers(&self) {
        self.watchers.notify(|| self.readiness());
    }

    /// What a poll would say: of published words alone, as `readable`.
    pub(super) fn readiness(&self) -> Readiness {
        // The status first: with the error goes the end, not the other way round.
        let status = self.park().status();
        let edge = self.park().edge();
        let read = self.progress.copied_seq();
        let shared = &self.shared;
        let urgent = self.park().urgent();
        let mark = urgent.mark().filter(|mark| mark.at_or_after(read));
        Facts {
            status,
            readable: if edge.after(read) { edge.since(read) } else { 0 },
            low_water: self.options.low_water() as u32,
            urgent: urgent.has_arrived() && mark.is_some_and(|mark| !shared.urgent_read.is(mark)),
            at_mark: mark == Some(read) && !self.options.is_urgent_inline(),
            write_shut: shared.requests.load(Ordering::Relaxed) & Requests::SHUT_WRITE != 0,
            error: shared.error.load(Ordering::Relaxed) != 0,
        }
        .readiness()
    }

    /// Whether an exclusive reader has the token, for calls that will not wait for it for ever.
    pub(super) fn is_exclusive(&self) -> bool {
        // Relaxed: who sleeps because of it has fenced in `Park::announce`.
        self.shared.exclusive.load(Ordering::Relaxed)
    }

    /// An exclusive reader has taken the token, or is about to give it up.
    pub(super) fn set_exclusive(&self, exclusive: bool) {
        self.shared.exclusive.store(exclusive, Ordering::Relaxed);
        if !exclusive {
            // Calls with a time limit sleep where they would sleep for data. Its fence pairs with the
            // one of `Park::announce`.
            self.park().wake_all();
        }
    }

    /// The lcore gives up its reference: see [`Home::take_bells`].
    pub(super) fn retire(&self) {
        // Relaxed: read by the lcore itself, or by who takes its place after `Home::close`.
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Claims in the lcore's place when it has gone, so that threads can go on.
    pub(super) fn claim_for_nobody(&self) -> Option<LcoreClaim<'_, Inner<B, C>>> {
        // Of LCORE_DUE a claim fails only when WAITERS appears, once. Of anything else it may fail:
        // who owns then either frees the word or rings again.
        self.inner.claim_lcore().or_else(|| self.inner.claim_lcore())
    }

    /// Whether low-latency mode is on.
    pub(super) fn is_low_latency(&self) -> bool {
        self.park().status().has(Status::LOW_LATENCY)
    }

    /// Stores the error that one call will return.
    pub(super) fn put_error(&self, error: ConnError) {
        // Relaxed: the status bit that is set next carries it.
        self.shared.error.store(encode(error), Ordering::Relaxed);
    }

    /// Takes the error, once.
    pub(super) fn take_error(&self) -> Option<ConnError> {
        // Relaxed: whoever has seen the status bit sees it; taken by one caller only.
        match self.shared.error.load(Ordering::Relaxed) {
            0 => None,
            _ => decode(self.shared.error.swap(0, Ordering::Relaxed)),
        }
    }

    /// All requests ever made.
    pub(super) fn requests(&self) -> u32 {
        // Acquire pairs with the Release of `Ref::request`.
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Moves every buffer that the socket still holds to `chain`. For whoever has it alone.
    pub(super) fn take_buffers(&mut self, chain: &mut B::Queue) {
        self.reader.unshared().take_buffers(chain);
        chain.append(&mut self.inner.0.unshared().tcb.take_all());
    }
}

/// What a socket costs while nothing is installed or queued.
#[cfg(all(test, feature = "dpdk", not(loom)))]
#[test]
fn an_idle_socket_takes_fourteen_lines() {
    use std::mem::offset_of;
    type Real = Socket<crate::dpdk::Mbuf>;
    assert_eq!((size_of::<Real>(), offset_of!(Real, reader)), (14 * 64, 128));
}

impl<B: PacketBuf, C: Connection<B>> Last for Socket<B, C> {
    fn last(parcel: Parcel<Self>) {
        let home = parcel.home.clone();
        home.bury(parcel);
    }
}

impl<B: PacketBuf, C: Connection<B>> Ref<Socket<B, C>> {
    /// Owns the socket for a moment. The caller may hold the reader token.
    pub(super) fn own(&self) -> Ownership<'_, B, C> {
        Ownership {
            claim: Some(self.inner.claim_thread()),
            socket: self,
            on_panic: if std::thread::panicking() { OnPanic::Release } else { OnPanic::Kill },
        }
    }

    /// Owns the socket for a moment if nobody else does. Never waits.
    pub(super) fn try_own(&self) -> Option<Ownership<'_, B, C>> {
        let claim = Some(self.inner.try_claim_thread()?);
        Some(Ownership { claim, socket: self, on_panic: OnPanic::Release })
    }

    /// Asks the lcore for something; it is told by the doorbell.
    pub(super) fn request(&self, bits: u32) {
        // Release pairs with the Acquire of `requests`. The doorbell's own operations order it
        // before the lcore's next look, whether the socket was on the list already or not.
        self.shared.requests.fetch_or(bits, Ordering::Release);
        self.home.ring(self);
    }
}

impl<B: PacketBuf, C: Connection<B>> Socket<B, C> {
    /// Waits until the peer has acknowledged our FIN, at most for `span`.
    fn linger(&self, span: Duration) {
        let waiter = &ThreadWaiter;
        let park = self.park();
        let until = waiter.now() + span;
        let end = Status::FLUSHED.with(Status::CLOSED).with(Status::DEAD);
        // No sequence number is wanted: FLUSHED wakes whatever is.
        let far = park.edge().plus(i32::MAX as u32);
        while !park.status().has_any(end) && waiter.now() < until {
            let has_news = || park.status().has_any(end);
            let announce = || {
                let seen = park.announce(far);
                (!has_news()).then_some(seen)
            };
            wait(waiter, Waiting::Park, park.word(), Some(until), has_news, announce);
        }
    }
}

thread_local! {
    /// Names the thread by a number other than 0.
    static THREAD: u64 = {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    };
}

impl<B: PacketBuf, C: Connection<B>> Socket<B, C> {
    /// Whether the calling thread holds a guard: reading would wait for itself.
    pub(super) fn is_guarded_by_this_thread(&self) -> bool {
        // Relaxed: a thread sees what it wrote itself, and others' values do not match.
        match self.guarded_by.load(Ordering::Relaxed) {
            0 => false,
            thread => THREAD.with(|own| *own == thread),
        }
    }
}

/// The socket held by an application thread (Linux: `lock_sock`): segments and timers wait in the
/// backlog, and other threads that want the socket sleep, until the guard is dropped.
///
/// It is not for reading: the thread that holds it gets EDEADLK from reads of the same socket.
/// A panic of the application's code under a guard does no harm to the connection.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
///
/// /// Bytes that the peer may still send, and bytes that wait to be read: of one moment.
/// fn window_and_queue(stream: &TcpStream<HeapBuf>) -> (u32, u32) {
///     let guard = stream.lock();
///     (guard.connection().offered_window(), stream.readable())
/// }
/// ```
#[derive(Debug)]
pub struct SocketGuard<'a, B: PacketBuf, C: Connection<B> = Tcb<B>> {
    owner: Ownership<'a, B, C>,
    /// It is known which thread holds it.
    _this_thread: PhantomData<*const ()>,
}

impl<B: PacketBuf, C: Connection<B>> Handle<B, C> {
    /// Takes the socket away from the lcore until the guard is dropped; waits while another thread
    /// has it. A thread that holds a guard must not ask for a second one: it would wait for itself.
    pub fn lock(&self) -> SocketGuard<'_, B, C> {
        let owner = self.socket.own().for_the_application();
        self.socket.guarded_by.store(THREAD.with(|own| *own), Ordering::Relaxed);
        SocketGuard { owner, _this_thread: PhantomData }
    }
}

impl<B: PacketBuf, C: Connection<B>> SocketGuard<'_, B, C> {
    /// The connection, to be looked at: it does not change while the guard lives.
    pub fn connection(&self) -> &C {
        &self.owner.tcb
    }
}

impl<B: PacketBuf> SocketGuard<'_, B> {
    /// Has what comes acknowledged at once, or leaves ACKs to their delay (TCP_QUICKACK). Linux's
    /// rule: it lasts until what comes, or is read, suggests otherwise.
    pub fn set_quick_ack(&mut self, quick: bool) {
        self.owner.tcb.set_quick_ack(quick);
        // The lcore sends the ACK that may be due by it.
        self.owner.socket.home.ring(self.owner.socket);
    }

    /// Has the lcore look at what was read, though nothing is owed for it yet. It does so by itself where
    /// a window update hangs on it, and once in a round trip; a simulation may want it at each read.
    pub fn tell_progress(&self) {
        self.owner.socket.home.ring(self.owner.socket);
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for SocketGuard<'_, B, C> {
    fn drop(&mut self) {
        self.owner.socket.guarded_by.store(0, Ordering::Relaxed);
    }
}

/// What becomes of the socket if the thread that owns it panics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OnPanic {
    /// The library's own code failed: nobody knows the state, the lcore resets the connection.
    Kill,
    /// The application's code failed: the socket is as sound as before.
    Release,
}

/// A thread's ownership of a socket; released when dropped, with a ring if the lcore is due.
#[derive(Debug)]
pub(super) struct Ownership<'a, B: PacketBuf, C: Connection<B>> {
    /// Always there until dropped.
    claim: Option<ThreadClaim<'a, Inner<B, C>>>,
    socket: &'a Ref<Socket<B, C>>,
    on_panic: OnPanic,
}

impl<B: PacketBuf, C: Connection<B>> Ownership<'_, B, C> {
    /// From here on the application's code runs.
    pub(super) fn for_the_application(mut self) -> Self {
        self.on_panic = OnPanic::Release;
        self
    }

    /// Takes the receive queue, and says so in the status.
    pub(super) fn take_receive_queue(&mut self) -> B::Queue {
        let socket = self.socket;
        let queue = self.tcb.take_receive_queue();
        if self.status.has(Status::QUEUED) {
            self.status = self.status.without(Status::QUEUED);
            socket.park().clear(Status::QUEUED);
        }
        queue
    }

    /// Puts buffers in front of the receive queue, and says so in the status.
    pub(super) fn put_back(&mut self, older: B::Queue) {
        let socket = self.socket;
        if !older.is_empty() {
            self.tcb.put_back(older);
            self.status = self.status.with(Status::QUEUED);
            socket.park().set(Status::QUEUED);
        }
    }
}

impl<B: PacketBuf, C: Connection<B>> Deref for Ownership<'_, B, C> {
    type Target = Inner<B, C>;

    fn deref(&self) -> &Inner<B, C> {
        self.claim.as_ref().expect("owned until dropped")
    }
}

impl<B: PacketBuf, C: Connection<B>> DerefMut for Ownership<'_, B, C> {
    fn deref_mut(&mut self) -> &mut Inner<B, C> {
        self.claim.as_mut().expect("owned until dropped")
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Ownership<'_, B, C> {
    fn drop(&mut self) {
        let failed = self.on_panic == OnPanic::Kill && std::thread::panicking();
        if failed {
            self.socket.kill();
        }
        if let Some(claim) = self.claim.take()
            && claim.release(failed) == Released::Due
        {
            self.socket.home.ring(self.socket);
        }
    }
}

/// What handles have asked of the lcore since it last looked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Requests(pub(super) u32);

impl Requests {
    pub(super) const SHUT_READ: u32 = 1;
    pub(super) const SHUT_WRITE: u32 = 1 << 1;
    pub(super) const CLOSE: u32 = 1 << 2;
    pub(super) const LINGER_ZERO: u32 = 1 << 3;
    pub(super) const ABORT: u32 = 1 << 4;

    /// What is new among all that was ever asked for, of which `taken` was seen.
    pub(super) const fn news(all: u32, taken: u32) -> Self {
        let news = Self(all & !taken);
        // What was said about lingering, however long ago, is part of the close.
        if news.close().is_some() { Self(news.0 | all & Self::LINGER_ZERO) } else { news }
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// shutdown of the reading side.
    pub const fn shut_read(self) -> bool {
        self.0 & Self::SHUT_READ != 0
    }

    /// shutdown of the writing side: a FIN is to be sent.
    pub const fn shut_write(self) -> bool {
        self.0 & Self::SHUT_WRITE != 0
    }

    /// The last handle was dropped: whether SO_LINGER with time zero was set.
    pub const fn close(self) -> Option<bool> {
        if self.0 & Self::CLOSE != 0 { Some(self.0 & Self::LINGER_ZERO != 0) } else { None }
    }

    /// The connection is to be reset: its listener was closed before anybody accepted it, or the
    /// library failed while it owned it.
    pub const fn abort(self) -> bool {
        self.0 & Self::ABORT != 0
    }
}

/// An application's share of a socket. Dropping the last one closes the connection.
#[derive(Debug)]
pub struct Handle<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    pub(super) socket: Ref<Socket<B, C>>,
}

impl<B: PacketBuf, C: Connection<B>> Handle<B, C> {
    /// The first handle.
    pub(super) fn first(socket: Ref<Socket<B, C>>) -> Self {
        Self { socket }
    }

    /// The socket without its handle, to be made a handle again by [`Self::first`].
    pub(super) fn into_socket(self) -> Ref<Socket<B, C>> {
        // Counted once more, so that dropping self does not close.
        self.socket.handles.fetch_add(1, Ordering::Relaxed);
        self.socket.clone()
    }

    /// Our address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.tuple.local()
    }

    /// The peer's address and port.
    pub fn peer_addr(&self) -> SocketAddr {
        self.socket.tuple.remote()
    }

    /// Bytes that can be read without waiting (FIONREAD), before the urgent byte if there is one: takes
    /// neither word.
    pub fn readable(&self) -> u32 {
        let unread = self.unread();
        let read = self.socket.progress.copied_seq();
        match self.socket.park().urgent().mark() {
            Some(mark) if !self.socket.options.is_urgent_inline() && mark.at_or_after(read) => {
                unread.min(mark.since(read))
            }
            _ => unread,
        }
    }

    /// Bytes that are in sequence and not read, urgent or not: what readiness goes by.
    pub fn unread(&self) -> u32 {
        let read = self.socket.progress.copied_seq();
        let edge = self.socket.park().edge();
        // Through the ring data can be read before the edge is published.
        if edge.after(read) { edge.since(read) } else { 0 }
    }

    /// What is left to be learnt by reading (TCP_INQ): bytes, and the end of the stream as one more.
    pub fn left(&self) -> u32 {
        self.unread() + u32::from(self.socket.park().status().has(Status::EOF))
    }

    /// Whether the next byte to be read is the urgent one, or will be (SIOCATMARK).
    pub fn is_at_mark(&self) -> bool {
        self.socket.park().urgent().mark() == Some(self.socket.progress.copied_seq())
    }

    /// Whether there is an urgent byte that was neither read nor passed (EPOLLPRI).
    pub fn has_urgent_byte(&self) -> bool {
        let urgent = self.socket.park().urgent();
        let read = self.socket.progress.copied_seq();
        urgent.has_arrived()
            && urgent.mark().is_some_and(|mark| {
                mark.at_or_after(read) && !self.socket.shared.urgent_read.is(mark)
            })
    }

    /// Whether the connection is over: no data can arrive any more, and shutting it is pointless.
    pub fn is_closed(&self) -> bool {
        self.socket.park().status().has(Status::CLOSED)
    }

    /// Reads that find nothing return 0 from now on, and so do those that wait.
    pub fn shutdown_read(&self) {
        self.socket.park().set(Status::SHUT);
        self.socket.park().wake_all();
        self.socket.notify_pollers();
        self.socket.request(Requests::SHUT_READ);
    }

    /// Sends FIN.
    pub fn shutdown_write(&self) {
        self.socket.request(Requests::SHUT_WRITE);
        // With the other side shut this is the end of both.
        self.socket.park().fence();
        self.socket.notify_pollers();
    }

    /// Has the connection reset when the last handle is dropped (SO_LINGER with time zero).
    pub fn set_linger_zero(&self) {
        self.set_linger(Some(Duration::ZERO));
    }

    /// What happens when the last handle is dropped (SO_LINGER): the drop waits this long for the peer
    /// to acknowledge the end of the stream; zero has the connection reset; `None` does not wait.
    pub fn set_linger(&self, linger: Option<Duration>) {
        self.socket.options.set_linger(linger);
    }

    /// What was set by [`Self::set_linger`].
    pub fn linger(&self) -> Option<Duration> {
        self.socket.options.linger()
    }

    /// Begins low-latency mode or ends it: see
    /// [`TcpStream::set_low_latency`](super::TcpStream::set_low_latency).
    pub fn set_low_latency(&self, on: bool) {
        self.socket.set_low_latency(on);
    }

    /// Whether low-latency mode is on.
    pub fn is_low_latency(&self) -> bool {
        self.socket.is_low_latency()
    }

    /// Resets the connection.
    pub fn abort(&self) {
        self.socket.request(Requests::ABORT);
    }

    /// The pending error, which is taken (SO_ERROR).
    pub fn take_error(&self) -> Option<ConnError> {
        self.socket.take_error()
    }

    /// Another handle on the same socket.
    pub fn another(&self) -> Self {
        self.socket.handles.fetch_add(1, Ordering::Relaxed);
        Self { socket: self.socket.clone() }
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Handle<B, C> {
    fn drop(&mut self) {
        // AcqRel pairs with itself: what other handles did comes before the close.
        if self.socket.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.socket.watchers().forget();
            // No call is left: the token is free, unless a reader was forgotten, which nobody waits
            // for. What was taken and not read goes home at once; the lcore learns from copied_seq
            // that there was something.
            let mut chain = B::Queue::default();
            if let Some(mut side) = self.socket.reader.try_claim_thread() {
                side.take_buffers(&mut chain);
            }
            if !chain.is_empty() {
                self.socket.home.returns().give(chain);
            }
            match self.socket.options.linger() {
                None => self.socket.request(Requests::CLOSE),
                Some(Duration::ZERO) => {
                    self.socket.request(Requests::CLOSE | Requests::LINGER_ZERO);
                }
                Some(span) => {
                    self.socket.request(Requests::CLOSE);
                    self.socket.linger(span);
                }
            }
        }
    }
}

/// The error as a number other than 0.
fn encode(error: ConnError) -> u32 {
    match error {
        ConnError::Reset => 1,
        ConnError::BrokenPipe => 2,
        ConnError::TimedOut => 3,
        ConnError::Path(error) => 4 + error as u32,
    }
}

fn decode(code: u32) -> Option<ConnError> {
    [ConnError::Reset, ConnError::BrokenPipe, ConnError::TimedOut]
        .into_iter()
        .chain(PathError::ALL.map(ConnError::Path))
        .find(|&error| encode(error) == code)
}
