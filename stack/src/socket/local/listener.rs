//! A listening port of a thread's own stack, and the queue that it shares with its engine.
//!
//! Cells of one thread: the engine reserves a room and puts a connection in, the application takes it.
//! Nothing here waits but by polling, which is the caller's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::rc::Rc;
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::listen;
use crate::time::Instant;

use super::super::handle::Requests;
use super::super::listener::options_of_a_listener;
use super::{LocalHandle, LocalStream};

/// A listening port of a thread's own stack.
///
/// It stays on its thread. Dropping it closes the port and resets those that still wait.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{LocalListener, LocalStream};
///
/// /// To be called after each poll.
/// fn accept_all(listener: &LocalListener<HeapBuf>, streams: &mut Vec<LocalStream<HeapBuf>>) {
///     while let Ok((stream, _peer)) = listener.accept() {
///         streams.push(stream);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct LocalListener<B: PacketBuf> {
    queue: Rc<LocalAccept<B>>,
    local: SocketAddr,
    /// Peers of IPv4 are told as addresses of IPv6 that stand for them.
    mapped: bool,
    timeout: Cell<Option<Duration>>,
}

impl<B: PacketBuf> LocalListener<B> {
    /// The application's side of `queue`; the engine has the other.
    pub fn new(queue: Rc<LocalAccept<B>>, local: impl Into<SocketAddr>) -> Self {
        Self { queue, local: local.into(), mapped: false, timeout: Cell::new(None) }
    }

    /// As a socket of IPv6 that takes connections of IPv4: the addresses of both their ends are told as
    /// those of IPv6 that stand for them (RFC 4291 §2.5.5.2).
    #[must_use]
    pub fn with_mapped_addresses(mut self) -> Self {
        self.mapped = true;
        self
    }

    /// Takes the oldest connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, `ConnectionAborted` if the stack has stopped.
    pub fn accept(&self) -> io::Result<(LocalStream<B>, SocketAddr)> {
        match self.queue.take() {
            Some(handle) => {
                let stream = LocalStream::new(handle);
                if self.mapped {
                    stream.options().set_mapped();
                }
                let peer = stream.peer_addr();
                Ok((stream, peer))
            }
            None if self.queue.is_closed() => Err(io::ErrorKind::ConnectionAborted.into()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Takes the oldest connection; while there is none `poll` is called, which polls the stack once and
    /// tells the time, for as long as [`set_accept_timeout`](Self::set_accept_timeout) allows.
    /// [`LocalStack::accept`](../local/struct.LocalStack.html#method.accept) does it for a whole stack.
    ///
    /// # Errors
    /// `WouldBlock` if none has come in time, `ConnectionAborted` if the stack has stopped.
    pub fn accept_polling(
        &self,
        mut poll: impl FnMut() -> Instant,
    ) -> io::Result<(LocalStream<B>, SocketAddr)> {
        let mut until = None;
        loop {
            match self.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let now = poll();
            if let Some(timeout) = self.timeout.get()
                && *until.get_or_insert(now + timeout) <= now
            {
                // What the last poll has brought is not left there.
                return self.accept();
            }
        }
    }

    /// How long accepting may wait that polls (SO_RCVTIMEO on the listener); for ever if `None`.
    pub fn set_accept_timeout(&self, timeout: Option<Duration>) {
        self.timeout.set(timeout);
    }

    /// Connections that wait to be accepted.
    pub fn waiting(&self) -> u32 {
        self.queue.len()
    }

    /// The address and port that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

options_of_a_listener!([B: PacketBuf] LocalListener<B>);

impl<B: PacketBuf> Drop for LocalListener<B> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A listener's queue.
#[derive(Debug)]
pub struct LocalAccept<B: PacketBuf> {
    queue: RefCell<VecDeque<LocalHandle<B>>>,
    /// Connections in the queue, and those about to be.
    taken: Cell<u32>,
    capacity: u32,
    closed: Cell<bool>,
    /// Retransmissions for which handshakes without data are not completed; of a SYN-ACK.
    defer_accept: Cell<u8>,
    synack_retries: Cell<Option<NonZeroU8>>,
}

impl<B: PacketBuf> LocalAccept<B> {
    /// A queue for `backlog` connections and one.
    pub(super) fn new(backlog: u32) -> Self {
        Self {
            queue: RefCell::default(),
            taken: Cell::new(0),
            capacity: backlog.saturating_add(1),
            closed: Cell::new(false),
            defer_accept: Cell::new(0),
            synack_retries: Cell::new(None),
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.taken.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn reserve(self: &Rc<Self>) -> Option<LocalRoom<B>> {
        let taken = self.taken.get();
        let free = taken < self.capacity && !self.closed.get();
        free.then(|| {
            self.taken.set(taken + 1);
            LocalRoom(self.clone())
        })
    }

    pub(in crate::socket) fn set_defer_accept(&self, retransmissions: u8) {
        self.defer_accept.set(retransmissions);
    }

    pub(in crate::socket) fn defer_accept(&self) -> u8 {
        self.defer_accept.get()
    }

    pub(in crate::socket) fn set_synack_retries(&self, retransmissions: Option<NonZeroU8>) {
        self.synack_retries.set(retransmissions);
    }

    pub(in crate::socket) fn synack_retries(&self) -> Option<NonZeroU8> {
        self.synack_retries.get()
    }

    fn take(&self) -> Option<LocalHandle<B>> {
        let handle = self.queue.borrow_mut().pop_front()?;
        self.taken.set(self.taken.get() - 1);
        Some(handle)
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        while let Some(handle) = self.take() {
            handle.0.request(Requests::ABORT);
        }
    }
}

/// A room in a listener's queue, given up when dropped.
#[derive(Debug)]
pub struct LocalRoom<B: PacketBuf>(Rc<LocalAccept<B>>);

impl<B: PacketBuf> LocalRoom<B> {
    pub(super) fn put(self, handle: LocalHandle<B>) {
        let queue = &self.0;
        // The room is the connection's now, and given up when that is taken.
        queue.taken.set(queue.taken.get() + 1);
        queue.queue.borrow_mut().push_back(handle);
    }
}

impl<B: PacketBuf> Drop for LocalRoom<B> {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
    }
}
