//! What an application holds of a socket, what it can ask of the lcore by it, and what follows when
//! the last handle is dropped.
//!
//! Used by application threads, any number at once, and never by the lcore but to read what was asked
//! for ([`Requests`]). Requests are bits and a ring; facts are published words. Nothing here owns the
//! socket, or reads.

use std::net::SocketAddr;
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::tcb::{ConnError, Tcb};

use super::conn::Connection;
use super::owner::Ref;
use super::park::Status;
use super::socket::Socket;
use super::sync::Ordering;
use super::wait::{ThreadWaiter, Waiter, Waiting, wait};

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

    /// Tells addresses of IPv4 as those of IPv6 that stand for them, from now on.
    pub(super) fn map_addresses(&self) {
        self.socket.options.set_mapped();
    }

    /// Our address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.options.form(self.socket.tuple.local())
    }

    /// The peer's address and port.
    pub fn peer_addr(&self) -> SocketAddr {
        self.socket.options.form(self.socket.tuple.remote())
    }

    /// Bytes that can be read without waiting (FIONREAD), before the urgent byte if there is one: takes
    /// neither word.
    pub fn readable(&self) -> u32 {
        let unread = self.unread();
        if self.socket.options.is_urgent_inline() {
            return unread;
        }
        self.socket.park().urgent().before(self.socket.progress.copied_seq(), unread)
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
            if let Some(mut side) = self.socket.reader.try_claim_thread() {
                side.give_all(self.socket.home.returns());
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
