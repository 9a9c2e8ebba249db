//! A listening port in the manner of [`std::net::TcpListener`].
//!
//! Used by application threads, several at once if they like. Dropping it closes the port;
//! connections that nobody has accepted are reset.

use std::io;
use std::iter::FusedIterator;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::listen;
use crate::tcp::tcb::Tcb;

use super::accept::AcceptQueue;
use super::conn::Connection;
use super::stream::TcpStream;
use super::sync::Woken;
use super::wait::{ThreadWaiter, Waiter, Waiting, wait};

const FOREVER: u64 = u64::MAX;

/// A listening port.
///
/// Any number of threads may accept at once: each connection goes to one of them, in the order of
/// arrival. Connections receive and acknowledge while they wait to be accepted. Dropping it closes the
/// port and resets those that still wait.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpListener;
/// use std::io::{self, Read};
///
/// fn serve(listener: TcpListener<HeapBuf>) -> io::Result<()> {
///     for stream in listener.incoming() {
///         let mut text = String::new();
///         stream?.read_to_string(&mut text)?;
///         println!("{text}");
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct TcpListener<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    queue: Arc<AcceptQueue<B, C>>,
    local: SocketAddr,
    /// Peers of IPv4 are told as addresses of IPv6 that stand for them.
    mapped: bool,
    /// Relaxed throughout: nothing else hangs on these.
    nonblocking: AtomicBool,
    timeout: AtomicU64,
    /// As [`Waiting::code`].
    waiting: AtomicU8,
}

impl<B: PacketBuf, C: Connection<B>> TcpListener<B, C> {
    /// The application's side of `queue`; its lcores have the other.
    pub fn new(queue: Arc<AcceptQueue<B, C>>, local: impl Into<SocketAddr>) -> Self {
        let (nonblocking, timeout) = (AtomicBool::new(false), AtomicU64::new(FOREVER));
        let waiting = AtomicU8::new(Waiting::default().code());
        Self { queue, local: local.into(), mapped: false, nonblocking, timeout, waiting }
    }

    /// As a socket of IPv6 that takes connections of IPv4: the addresses of both their ends are told as
    /// those of IPv6 that stand for them (RFC 4291 §2.5.5.2).
    #[must_use]
    pub fn with_mapped_addresses(mut self) -> Self {
        self.mapped = true;
        self
    }

    /// Takes the oldest connection, and waits for one if there is none.
    ///
    /// # Errors
    /// `WouldBlock` if there is none and the listener does not wait (or the timeout has passed),
    /// `Interrupted` if a signal was handled while the thread slept (with a timeout always, else if the
    /// handler was installed without SA_RESTART), `ConnectionAborted` if the stack has stopped.
    pub fn accept(&self) -> io::Result<(TcpStream<B, C>, SocketAddr)> {
        let waiter = &ThreadWaiter;
        let queue = &*self.queue;
        let timeout = match self.timeout.load(Ordering::Relaxed) {
            FOREVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        };
        let nonblocking = self.nonblocking.load(Ordering::Relaxed);
        let deadline = timeout.map(|timeout| waiter.now() + timeout);
        let mut woken = Woken::Otherwise;
        loop {
            if let Ok(handle) = queue.take() {
                if self.mapped {
                    handle.map_addresses();
                }
                let peer = handle.peer_addr();
                return Ok((handle.into(), peer));
            }
            if queue.is_closed() {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the stack has stopped: no connection will come",
                ));
            }
            if nonblocking || deadline.is_some_and(|deadline| deadline <= waiter.now()) {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "no connection within the time allowed",
                ));
            }
            if woken == Woken::BySignal {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut announced = false;
            let announce = || {
                announced = true;
                queue.announce()
            };
            let has_news = || queue.has_news();
            woken = wait(waiter, self.waiting(), queue.word(), deadline, has_news, announce);
            if announced {
                queue.woken();
            }
        }
    }

    /// Accepts for ever; ends never, as in std.
    pub fn incoming(&self) -> Incoming<'_, B, C> {
        Incoming { listener: self }
    }

    /// Whether accept returns `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None at present.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// How long accept may wait (SO_RCVTIMEO on the listener); for ever if `None`.
    pub fn set_accept_timeout(&self, timeout: Option<Duration>) {
        let nanos = timeout.map_or(FOREVER, |t| u64::try_from(t.as_nanos()).unwrap_or(FOREVER));
        self.timeout.store(nanos, Ordering::Relaxed);
    }

    /// How calls wait: those of [`accept`](Self::accept), and of the streams that it gives from now on
    /// unless they say otherwise. At the beginning it is what the stack was built with.
    ///
    /// A thread that spins does not notice signals: see [`Waiting`].
    pub fn set_waiting(&self, waiting: Waiting) {
        self.waiting.store(waiting.code(), Ordering::Relaxed);
    }

    /// How calls wait.
    pub fn waiting(&self) -> Waiting {
        Waiting::of_code(self.waiting.load(Ordering::Relaxed))
    }

    /// The address and port that it listens on.
    ///
    /// # Errors
    /// None at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// The queue that it shares with the lcores.
    pub fn queue(&self) -> &Arc<AcceptQueue<B, C>> {
        &self.queue
    }
}

/// Options of a listener that its queue has.
macro_rules! options_of_a_listener {
    ([$($generics:tt)*] $listener:ty) => {
        impl<$($generics)*> $listener {
            /// Has connections come to [`accept`](Self::accept) only once their first data has
            /// (TCP_DEFER_ACCEPT); those that stay silent come after about this time. As in Linux it is counted
            /// in retransmissions of the SYN-ACK: 1, 3, 7, 15 seconds and so on. Zero, as at the beginning,
            /// waits for nothing.
            pub fn set_deferaccept(&self, wait: Duration) {
                self.queue.set_defer_accept(listen::defer_accept(wait));
            }

            /// How long a connection is waited for to send data, in the steps of [`Self::set_deferaccept`].
            pub fn deferaccept(&self) -> Duration {
                listen::deferred(self.queue.defer_accept())
            }

            /// How often a SYN-ACK is sent again before the client is given up (TCP_SYNCNT); `None` for as often as
            /// `tcp_synack_retries` says. For clients that are half-way in, too.
            pub fn set_syncnt(&self, retransmissions: Option<NonZeroU8>) {
                self.queue.set_synack_retries(retransmissions);
            }

            /// What [`Self::set_syncnt`] has set.
            pub fn syncnt(&self) -> Option<NonZeroU8> {
                self.queue.synack_retries()
            }
        }
    };
}

#[cfg(not(loom))]
pub(super) use options_of_a_listener;

options_of_a_listener!([B: PacketBuf, C: Connection<B>] TcpListener<B, C>);

impl<B: PacketBuf, C: Connection<B>> Drop for TcpListener<B, C> {
    fn drop(&mut self) {
        self.queue.watchers().forget();
        self.queue.close();
    }
}

/// Connections as they come: see [`TcpListener::incoming`].
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpListener;
///
/// fn first(listener: &TcpListener<HeapBuf>) -> std::io::Result<()> {
///     let stream = listener.incoming().next().expect("it never ends")?;
///     println!("{} is the first", stream.peer_addr()?);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Incoming<'a, B: PacketBuf, C: Connection<B> = Tcb<B>> {
    listener: &'a TcpListener<B, C>,
}

impl<B: PacketBuf, C: Connection<B>> Iterator for Incoming<'_, B, C> {
    type Item = io::Result<TcpStream<B, C>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl<B: PacketBuf, C: Connection<B>> FusedIterator for Incoming<'_, B, C> {}
