//! Readiness: many sockets watched by one thread, in the manner of epoll and mio.
//!
//! Application threads register streams and listeners with a [`Poller`] and poll it; the lcore, when
//! it leaves a socket and something has changed, puts the socket on the poller's list and rings if
//! somebody sleeps. What is ready is judged by those that poll, from published words: a poll takes
//! neither the reader token nor the owner word, and what is not ready costs it nothing.

mod events;
#[cfg(not(loom))]
mod foreign;
#[cfg(all(feature = "mio", not(loom)))]
mod mio;
mod ready;
mod registry;
#[cfg(all(feature = "tokio", not(loom)))]
mod tokio;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::time::Instant;

#[cfg(all(feature = "tokio", not(loom)))]
pub use self::tokio::{AsyncTcpListener, AsyncTcpStream, Reactor};
use super::accept::AcceptQueue;
use super::conn::Connection;
use super::handle::Handle;
use super::listener::TcpListener;
use super::owner::Ref;
use super::socket::Socket;
use super::stream::TcpStream;
use super::sync::Ordering;
use super::wait::{ThreadWaiter, Waiter, Waiting};
pub use events::{Event, Events, Token};
pub(super) use ready::{Facts, of_listener};
pub use ready::{Interest, Readiness};
pub(super) use registry::Pollable;
use registry::{Core, Refused};
pub(super) use watch::Watchers;

/// When a socket that is ready is reported.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Interest, Poller, TcpStream, Token, Trigger};
///
/// /// Hears of a stream once, so that one of several workers gets it, and has to ask again.
/// fn hand_out(poller: &Poller, stream: &TcpStream<HeapBuf>, token: Token) -> std::io::Result<()> {
///     poller.reregister(stream, token, Interest::READ, Trigger::Oneshot)
/// }
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Trigger {
    /// By every poll for as long as it is ready.
    Level,
    /// Once for each time that something has come (EPOLLET): data that was not read out is reported
    /// again only when more has come.
    Edge,
    /// Once, and then not before [`Poller::reregister`] (EPOLLONESHOT).
    Oneshot,
}

/// Watches any number of streams and listeners, and tells which are ready (Linux: an epoll
/// instance).
///
/// A poll costs what is ready, however many are registered. A socket may be registered with several
/// pollers, once with each; it leaves them when its last handle is dropped, or the listener is.
/// Registering tells of what is ready already, as epoll does.
///
/// Any thread may register, and several may poll at once: an edge or a oneshot goes to one of them.
/// A poll waits as [`Waiting`] says; the lcore makes a system call only to wake a thread that sleeps,
/// once, however many sockets become ready until it looks.
///
/// ```
/// use std::io;
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{
///     Events, Interest, Poller, RecvFlags, TcpListener, TcpStream, Token, Trigger,
/// };
///
/// const LISTENER: Token = Token(usize::MAX);
///
/// /// Serves all connections from one thread.
/// fn serve(listener: &TcpListener<HeapBuf>, mut work: impl FnMut(&[u8])) -> io::Result<()> {
///     let poller = Poller::new()?;
///     listener.set_nonblocking(true)?;
///     poller.register(listener, LISTENER, Interest::ACCEPT, Trigger::Level)?;
///     let mut streams: Vec<Option<TcpStream<HeapBuf>>> = Vec::new();
///     let mut events = Events::with_capacity(256);
///     let mut buf = vec![0; 64 * 1024];
///     loop {
///         match poller.poll(&mut events, None) {
///             Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
///             polled => polled?,
///         };
///         for event in &events {
///             if event.token() == LISTENER {
///                 // Another thread may have been faster.
///                 let Ok((stream, _peer)) = listener.accept() else { continue };
///                 poller.register(&stream, Token(streams.len()), Interest::READ, Trigger::Level)?;
///                 streams.push(Some(stream));
///                 continue;
///             }
///             let place = &mut streams[event.token().0];
///             let Some(stream) = place else { continue };
///             match stream.recv(&mut buf, RecvFlags::DONTWAIT) {
///                 // Dropping the stream ends its registration.
///                 Ok(0) => *place = None,
///                 Ok(n) => work(&buf[..n]),
///                 Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
///                 Err(_reset) => *place = None,
///             }
///         }
///     }
/// }
/// ```
///
/// # In another event loop
///
/// A poller has a descriptor ([`AsFd`](std::os::fd::AsFd)) that is readable while a poll would find something, for
/// epoll or mio (feature `mio`: the poller is an `event::Source`). When it is, poll with a timeout of
/// zero until there is no event. Asking for the descriptor has its price: from then on each poll is
/// followed by a system call or two, since the poller cannot know whether somebody sleeps on it.
#[derive(Debug)]
pub struct Poller {
    core: Arc<Core>,
    waiting: Waiting,
}

impl Poller {
    /// A poller of no sockets, which waits by spinning a little and then sleeping.
    ///
    /// # Errors
    /// The system's, if it has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Self::with_waiting(Waiting::default())
    }

    /// The same, with another way of waiting.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_waiting(waiting: Waiting) -> io::Result<Self> {
        Ok(Self { core: spare::take().map_or_else(Core::new, Ok)?, waiting })
    }

    /// Begins to watch a stream or a listener; if it is ready, the next poll says so.
    ///
    /// # Errors
    /// `AlreadyExists` if it is registered with this poller.
    pub fn register(
        &self,
        source: &(impl Source + ?Sized),
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        Ok(self.core.add(source.pollable(), token, interest, trigger)?)
    }

    /// Changes a registration, and begins anew: what is ready is told again, also after a oneshot.
    ///
    /// # Errors
    /// `NotFound` if it is not registered with this poller.
    pub fn reregister(
        &self,
        source: &(impl Source + ?Sized),
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        Ok(self.core.change(source.pollable().watchers(), token, interest, trigger)?)
    }

    /// Ends a registration: no poll that begins later reports it.
    ///
    /// # Errors
    /// `NotFound` if it is not registered with this poller.
    pub fn deregister(&self, source: &(impl Source + ?Sized)) -> io::Result<()> {
        let source = source.pollable();
        let removed = self.core.remove(source.watchers().watch_of(&self.core));
        if removed { Ok(()) } else { Err(Refused::Missing.into()) }
    }

    /// Waits until something is ready, or the timeout has passed, or [`Self::wake`] was called;
    /// how many events there are. For ever if there is no timeout, not at all if it is zero.
    ///
    /// # Errors
    /// `Interrupted` if a signal was handled while the thread slept, as with epoll whatever
    /// SA_RESTART says: poll again. DPDK's tap driver uses signals. Spinning does not see them.
    pub fn poll(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        self.poll_with(events, timeout, self.waiting)
    }

    /// As [`Self::poll`], waiting another way this time.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub fn poll_with(
        &self,
        events: &mut Events,
        timeout: Option<Duration>,
        waiting: Waiting,
    ) -> io::Result<usize> {
        events.clear();
        let core = &*self.core;
        // Zero needs no clock.
        let deadline = timeout.map(|timeout| match timeout {
            Duration::ZERO => Instant::ZERO,
            _ => ThreadWaiter.now() + timeout,
        });
        let mut registry = core.lock();
        if registry.exposed {
            core.alarm.fd.clear();
        }
        loop {
            core.harvest(&mut registry, events);
            let woken = core.alarm.woken.load(Ordering::Relaxed)
                && core.alarm.woken.swap(false, Ordering::Relaxed);
            if !events.is_empty() || woken || has_passed(deadline) {
                core.settle(&registry);
                return Ok(events.len());
            }
            drop(registry);
            let spun = waiting.spin(&ThreadWaiter, deadline, || core.has_news());
            registry = core.lock();
            if spun {
                continue;
            }
            registry.sleepers += 1;
            core.alarm.set();
            let mut slept = Ok(());
            // What has become ready while the lock was not held is on the list, or with the
            // entries that somebody else has polled.
            if !core.has_news() && !registry.has_ready() {
                drop(registry);
                slept = core.alarm.fd.wait(deadline.map(|end| end.since(ThreadWaiter.now())));
                registry = core.lock();
            }
            registry.sleepers -= 1;
            core.alarm.fd.clear();
            if let Err(error) = slept {
                core.settle(&registry);
                return Err(error);
            }
        }
    }

    /// Ends the poll that waits, or the next one, without an event. From any thread.
    pub fn wake(&self) {
        // Relaxed: the alarm's fence orders it before the look at the alarm.
        self.core.alarm.woken.store(true, Ordering::Relaxed);
        self.core.alarm.ring_if_set();
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.core.clear();
        spare::put(&self.core);
    }
}

fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|end| end == Instant::ZERO || end <= ThreadWaiter.now())
}

/// What can be registered with a [`Poller`]: streams and listeners, and handles of sockets.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Interest, Poller, Source, TcpListener, TcpStream, Token, Trigger};
///
/// fn watch(poller: &Poller, source: &impl Source) -> std::io::Result<()> {
///     poller.register(source, Token(1), Interest::READ, Trigger::Edge)
/// }
///
/// fn both(poller: &Poller, listener: &TcpListener<HeapBuf>, stream: &TcpStream<HeapBuf>) {
///     let _ = watch(poller, listener).and(watch(poller, stream));
/// }
/// ```
pub trait Source: sealed::Source {}

mod sealed {
    /// Out of reach, so that only this library's sockets can be registered.
    pub trait Source {
        fn pollable(&self) -> Box<dyn super::Pollable>;
    }
}

impl<B: PacketBuf, C: Connection<B>> Source for TcpStream<B, C> {}
impl<B: PacketBuf, C: Connection<B>> Source for TcpListener<B, C> {}
impl<B: PacketBuf, C: Connection<B>> Source for Handle<B, C> {}

impl<B: PacketBuf, C: Connection<B>> sealed::Source for TcpStream<B, C> {
    fn pollable(&self) -> Box<dyn Pollable> {
        self.handle().pollable()
    }
}

impl<B: PacketBuf, C: Connection<B>> sealed::Source for TcpListener<B, C> {
    fn pollable(&self) -> Box<dyn Pollable> {
        Box::new(self.queue().clone())
    }
}

impl<B: PacketBuf, C: Connection<B>> sealed::Source for Handle<B, C> {
    fn pollable(&self) -> Box<dyn Pollable> {
        Box::new(self.socket.clone())
    }
}

impl<B: PacketBuf, C: Connection<B>> Pollable for Ref<Socket<B, C>> {
    fn watchers(&self) -> &Watchers {
        Socket::watchers(self)
    }

    fn readiness(&self) -> Readiness {
        Socket::readiness(self)
    }
}

impl<B: PacketBuf, C: Connection<B>> Pollable for Arc<AcceptQueue<B, C>> {
    fn watchers(&self) -> &Watchers {
        AcceptQueue::watchers(self)
    }

    fn readiness(&self) -> Readiness {
        AcceptQueue::readiness(self)
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exists => Self::new(
                io::ErrorKind::AlreadyExists,
                "this socket is registered with this poller: use reregister to change that",
            ),
            Refused::Missing => Self::new(
                io::ErrorKind::NotFound,
                "this socket is not registered with this poller: use register",
            ),
        }
    }
}

/// Pollers that were dropped, for the next ones. A socket keeps a link to each that it was ever
/// registered with, since its lcore may walk along them at any time; so that a program which makes a
/// poller per call does not make the links, and the descriptors, more and more.
mod spare {
    use std::sync::Arc;

    use super::Core;

    #[cfg(not(loom))]
    static SPARE: std::sync::Mutex<Vec<Arc<Core>>> = std::sync::Mutex::new(Vec::new());

    #[cfg(not(loom))]
    pub(super) fn take() -> Option<Arc<Core>> {
        SPARE.lock().ok()?.pop()
    }

    #[cfg(not(loom))]
    pub(super) fn put(core: &Arc<Core>) {
        core.alarm.fd.clear();
        if let Ok(mut spare) = SPARE.lock() {
            spare.push(core.clone());
        }
    }

    /// loom's objects do not outlive a run.
    #[cfg(loom)]
    pub(super) fn take() -> Option<Arc<Core>> {
        None
    }

    #[cfg(loom)]
    pub(super) fn put(_: &Arc<Core>) {}
}
