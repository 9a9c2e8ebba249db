//! How a thread owns a socket: for a moment, by the library, or as long as the application keeps a
//! guard.
//!
//! Run by application threads; the lcore's way to own is in `claim.rs`. Who owns here keeps segments
//! and timers waiting in the backlog, runs no TCP, and gives up with a ring if the lcore is due. What
//! becomes of a socket whose owner panics is decided here.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::buf::{BufQueue, PacketBuf};
use crate::tcp::tcb::Tcb;

use super::conn::Connection;
use super::handle::Handle;
use super::owner::{Ref, Released, ThreadClaim};
use super::park::Status;
use super::socket::{Inner, Socket};
use super::sync::Ordering;

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
            socket.park().publish_status(self.status);
        }
        queue
    }

    /// Puts buffers in front of the receive queue, and says so in the status.
    pub(super) fn put_back(&mut self, older: B::Queue) {
        let socket = self.socket;
        if !older.is_empty() {
            self.tcb.put_back(older);
            self.status = self.status.with(Status::QUEUED);
            socket.park().publish_status(self.status);
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
