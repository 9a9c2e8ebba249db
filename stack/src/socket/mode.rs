//! What an engine's connections are made of: sockets that threads share, or sockets of one thread.
//!
//! The engine is the same code for both, compiled twice. [`Threaded`] is a socket with an owner
//! word, a ring and doorbells; [`Local`](super::Local) has none of them, because the thread that
//! polls is the one that reads. Nothing here does anything by itself.

use std::fmt::Debug;
use std::num::NonZeroU8;
use std::sync::Arc;

use crate::buf::{Owner, PacketBuf, Returns};
use crate::tcp::tcb::{Sink, Tcb};
use crate::tcp::{Counters, SeqNum};
use crate::watch::Span;
use crate::wire::FourTuple;

use super::accept::{AcceptQueue, Room};
use super::claim::Claim;
use super::handle::{Handle, Requests};
use super::home::Home;
use super::inherit::SocketOptions;
use super::lcore_ref::{Deferred, LcoreRef};
use super::socket::{RingSink, SocketId};

/// How an engine and the application meet.
///
/// For [`Engine`](../lcore/struct.Engine.html), which takes [`Threaded`] if nothing is said. Not to
/// be implemented by others than this library.
///
/// ```
/// use prequeue::buf::PacketBuf;
/// use prequeue::lcore::Engine;
/// use prequeue::socket::Mode;
///
/// /// Whoever the connections belong to.
/// fn connections<B: PacketBuf, M: Mode<B>>(engine: &Engine<B, M>) -> u32 {
///     engine.population().sockets
/// }
/// ```
pub trait Mode<B: PacketBuf>: Debug + Sized + 'static {
    /// Where the application leaves things for the lcore. Clones are the same place.
    type Home: Clone + Debug + Default;
    /// The lcore's reference to a socket.
    type Lcore: Debug;
    /// The lcore's ownership of a socket.
    type Claim<'a>: Claimed<B> + Debug;
    /// The application's reference to a socket.
    type Handle: Debug;
    /// A listener's queue of connections. Clones are the same queue.
    type Accept: Clone + Debug;
    /// A room in that queue, given up when dropped.
    type Room;

    /// Makes the socket of a connection.
    fn open(
        tcb: Tcb<B>,
        home: &Self::Home,
        id: SocketId,
        tuple: FourTuple,
    ) -> (Self::Lcore, Self::Handle);
    /// The settings want low-latency mode: nothing where there is no prequeue.
    fn begin_low_latency(_handle: &Self::Handle) {}
    /// A connection begins with its listener's options: those that calls look at. `low_water` is what
    /// was granted.
    fn inherit(handle: &Self::Handle, options: &SocketOptions, low_water: Option<u32>);
    /// Claims a socket for the lcore, unless somebody else owns it.
    fn claim(lcore: &Self::Lcore) -> Option<Self::Claim<'_>>;
    /// Leaves something to be done later, or claims after all: see [`LcoreRef::defer`].
    fn defer<'a>(
        lcore: &'a Self::Lcore,
        what: Deferred<B>,
        counters: &mut Counters,
    ) -> Option<Self::Claim<'a>>;
    /// The segments that were left so, oldest first.
    fn backlog(lcore: &Self::Lcore) -> Vec<Span>;
    /// How many those are.
    fn backlog_len(lcore: &Self::Lcore) -> usize;
    /// Whether anything was left that the next claim has to work off.
    fn has_deferred(lcore: &Self::Lcore) -> bool;
    /// The lcore stops: every call on the socket returns an error from now on.
    fn kill(lcore: &Self::Lcore);

    /// Whether buffers came back.
    fn has_returned(home: &Self::Home) -> bool;
    /// Frees the buffers that came back, having told whose they are and their truesize.
    fn free_returned(home: &Self::Home, told: impl FnMut(Owner, u32));
    /// The sockets for which the application wants something done.
    fn take_bells(home: &Self::Home) -> impl Iterator<Item = SocketId>;
    /// Frees sockets that nobody refers to any more; how many.
    fn reap(home: &Self::Home) -> usize;
    /// The lcore has stopped.
    fn close(home: &Self::Home);

    /// A queue for `backlog` connections and one.
    fn accept_queue(backlog: u32) -> Self::Accept;
    /// Connections that wait to be accepted.
    fn waiting(queue: &Self::Accept) -> u32;
    /// Retransmissions for which handshakes without data are not completed (TCP_DEFER_ACCEPT).
    fn defer_accept(queue: &Self::Accept) -> u8;
    /// Retransmissions of a SYN-ACK, if the application has set them (TCP_SYNCNT).
    fn synack_retries(queue: &Self::Accept) -> Option<NonZeroU8>;
    /// Whether nothing is accepted any more.
    fn is_closed(queue: &Self::Accept) -> bool;
    /// Closes the queue.
    fn close_queue(queue: &Self::Accept);
    /// A room for a connection that is about to be made, if there is one.
    fn reserve(queue: &Self::Accept) -> Option<Self::Room>;
    /// Puts the connection into its room.
    fn put(room: Self::Room, handle: Self::Handle);
}

/// What the lcore can do with a socket that it owns: see [`Claim`], which says what each means.
pub trait Claimed<B: PacketBuf> {
    /// Where in-sequence data goes.
    type Sink: Sink<B>;
    /// The connection.
    fn tcb(&mut self) -> &mut Tcb<B>;
    /// The connection, and where it puts in-sequence data.
    fn parts(&mut self) -> (&mut Tcb<B>, &mut Self::Sink);
    /// What is to be worked off before anything new.
    fn next_deferred(&mut self) -> Option<Deferred<B>>;
    /// What handles have asked for since the last time.
    fn take_requests(&mut self) -> Requests;
    /// The reader's progress.
    fn copied_seq(&self) -> SeqNum;
    /// Gives back what a reader has lent, before the progress is looked at for the last time; whether
    /// that has moved it. Nothing where nobody lends.
    #[inline]
    fn return_memory(&mut self) -> bool {
        false
    }
    /// Lends what was taken from the connection and is not read, if it can be had now.
    fn with_unread<R>(&mut self, work: impl FnOnce(&mut Tcb<B>, &mut B::Queue) -> R) -> Option<R>;
    /// Publishes what has changed, and gives the socket up. Dropping it is the same.
    fn leave(self);
}

/// Sockets that any thread may read while an lcore runs them: the usual mode.
///
/// See [`Mode`] for an example.
#[derive(Clone, Copy, Debug)]
pub struct Threaded;

impl<B: PacketBuf> Mode<B> for Threaded {
    type Home = Arc<Home<B>>;
    type Lcore = LcoreRef<B>;
    type Claim<'a> = Claim<'a, B>;
    type Handle = Handle<B>;
    type Accept = Arc<AcceptQueue<B>>;
    type Room = Room<B>;

    fn open(
        tcb: Tcb<B>,
        home: &Self::Home,
        id: SocketId,
        tuple: FourTuple,
    ) -> (Self::Lcore, Self::Handle) {
        LcoreRef::new(tcb, home, id, tuple)
    }

    fn begin_low_latency(handle: &Self::Handle) {
        handle.set_low_latency(true);
    }

    fn inherit(handle: &Self::Handle, options: &SocketOptions, low_water: Option<u32>) {
        options.store(low_water, &handle.socket.options);
        if options.linger.is_some() {
            handle.set_linger(options.linger);
        }
    }

    #[inline]
    fn claim(lcore: &Self::Lcore) -> Option<Self::Claim<'_>> {
        lcore.claim()
    }

    fn defer<'a>(
        lcore: &'a Self::Lcore,
        what: Deferred<B>,
        counters: &mut Counters,
    ) -> Option<Self::Claim<'a>> {
        lcore.defer(what, counters)
    }

    fn backlog(lcore: &Self::Lcore) -> Vec<Span> {
        lcore.backlog()
    }

    fn backlog_len(lcore: &Self::Lcore) -> usize {
        lcore.backlog_len()
    }

    fn has_deferred(lcore: &Self::Lcore) -> bool {
        lcore.has_deferred()
    }

    fn kill(lcore: &Self::Lcore) {
        lcore.kill();
    }

    #[inline]
    fn has_returned(home: &Self::Home) -> bool {
        !home.returns().is_empty()
    }

    #[inline]
    fn free_returned(home: &Self::Home, told: impl FnMut(Owner, u32)) {
        home.returns().free_all(told);
    }

    fn take_bells(home: &Self::Home) -> impl Iterator<Item = SocketId> {
        home.take_bells()
    }

    fn reap(home: &Self::Home) -> usize {
        home.reap()
    }

    fn close(home: &Self::Home) {
        home.close();
        // What came back until now is freed here, on the lcore that owns the pool.
        home.returns().free_all(|_, _| {});
        home.reap();
    }

    fn accept_queue(backlog: u32) -> Self::Accept {
        AcceptQueue::new(backlog)
    }

    fn waiting(queue: &Self::Accept) -> u32 {
        queue.len()
    }

    fn defer_accept(queue: &Self::Accept) -> u8 {
        queue.defer_accept()
    }

    fn synack_retries(queue: &Self::Accept) -> Option<NonZeroU8> {
        queue.synack_retries()
    }

    fn is_closed(queue: &Self::Accept) -> bool {
        queue.is_closed()
    }

    fn close_queue(queue: &Self::Accept) {
        queue.close();
    }

    fn reserve(queue: &Self::Accept) -> Option<Self::Room> {
        queue.reserve()
    }

    fn put(room: Self::Room, handle: Self::Handle) {
        room.put(handle);
    }
}

impl<B: PacketBuf> Claimed<B> for Claim<'_, B> {
    type Sink = RingSink<B>;

    #[inline]
    fn tcb(&mut self) -> &mut Tcb<B> {
        self.tcb()
    }

    #[inline]
    fn parts(&mut self) -> (&mut Tcb<B>, &mut Self::Sink) {
        self.parts()
    }

    #[inline]
    fn next_deferred(&mut self) -> Option<Deferred<B>> {
        self.next_deferred()
    }

    fn take_requests(&mut self) -> Requests {
        self.take_requests()
    }

    #[inline]
    fn copied_seq(&self) -> SeqNum {
        self.copied_seq()
    }

    fn with_unread<R>(&mut self, work: impl FnOnce(&mut Tcb<B>, &mut B::Queue) -> R) -> Option<R> {
        self.with_unread(work)
    }

    #[inline]
    fn return_memory(&mut self) -> bool {
        self.return_memory()
    }

    #[inline]
    fn leave(self) {
        self.leave();
    }
}
