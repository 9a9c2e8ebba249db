//! Streams and listeners for tasks (feature `tokio`): a task that finds nothing leaves its waker.
//!
//! A [`Reactor`] is a poller whose descriptor one task of the runtime waits for; that task wakes
//! those whose streams are ready. Reads themselves are ordinary ones that do not wait.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncRead, Interest as FdInterest, ReadBuf};
use ::tokio::task::JoinHandle;

use super::super::conn::Connection;
use super::super::listener::TcpListener;
use super::super::recv::RecvFlags;
use super::super::stream::TcpStream;
use super::{Events, Interest, Poller, Source, Token, Trigger};
use crate::buf::PacketBuf;
use crate::tcp::tcb::Tcb;

/// Events that are looked at together.
const EVENTS: usize = 256;

/// Wakes the tasks whose streams and listeners are ready. One per runtime is enough; streams and
/// listeners keep what they need of it, so that it may be dropped before them.
///
/// ```no_run
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{AsyncTcpListener, Reactor, TcpListener};
/// use tokio::io::AsyncReadExt;
///
/// /// A task for each connection. To be called within a runtime that has I/O enabled.
/// async fn serve(listener: TcpListener<HeapBuf>) -> std::io::Result<()> {
///     let reactor = Reactor::new()?;
///     let listener = AsyncTcpListener::new(&reactor, listener)?;
///     loop {
///         let (mut stream, peer) = listener.accept().await?;
///         tokio::spawn(async move {
///             let mut bytes = Vec::new();
///             let result = stream.read_to_end(&mut bytes).await;
///             println!("{peer}: {result:?}");
///         });
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Reactor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Arc<Waiting>,
    task: JoinHandle<()>,
}

/// What the reactor's task shares with streams.
#[derive(Debug)]
struct Waiting {
    poller: Poller,
    tasks: Mutex<Tasks>,
}

/// Who waits for what, by token.
#[derive(Debug, Default)]
struct Tasks {
    wakers: HashMap<usize, Waker>,
    last: usize,
}

impl Reactor {
    /// Starts one in the runtime of the calling task.
    ///
    /// # Errors
    /// The system's, if it has no descriptor left.
    ///
    /// # Panics
    /// Outside of a tokio runtime that has I/O enabled.
    pub fn new() -> io::Result<Self> {
        let waiting = Arc::new(Waiting { poller: Poller::new()?, tasks: Mutex::default() });
        // The descriptor belongs to what is passed, and lives as long; the successor of this call
        // differs in having that promised by an `unsafe` block.
        #[allow(deprecated)]
        let fd = AsyncFd::with_interest(OfReactor(waiting.clone()), FdInterest::READABLE)?;
        let task = ::tokio::spawn(run(fd));
        Ok(Self(Arc::new(Shared { waiting, task })))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The descriptor of a reactor's poller.
#[derive(Debug)]
struct OfReactor(Arc<Waiting>);

impl std::os::fd::AsRawFd for OfReactor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0.poller)
    }
}

/// The reactor's task.
async fn run(fd: AsyncFd<OfReactor>) {
    let mut events = Events::with_capacity(EVENTS);
    while let Ok(mut ready) = fd.readable().await {
        // Before the poll: what comes after it makes the descriptor readable anew.
        ready.clear_ready();
        let waiting = &fd.get_ref().0;
        // Does not sleep, hence does not fail.
        while waiting.poller.poll(&mut events, Some(Duration::ZERO)).is_ok_and(|n| n != 0) {
            for event in &events {
                let waker = waiting.tasks().wakers.remove(&event.token().0);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

impl Waiting {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registration with a reactor.
#[derive(Debug)]
struct Watched {
    reactor: Reactor,
    token: usize,
}

impl Watched {
    fn new(reactor: &Reactor, source: &impl Source) -> io::Result<Self> {
        let waiting = &reactor.0.waiting;
        let token = {
            let mut tasks = waiting.tasks();
            tasks.last += 1;
            tasks.last
        };
        // By edge: a task reads until there is nothing, and leaves its waker then.
        waiting.poller.register(source, Token(token), Interest::READ, Trigger::Edge)?;
        Ok(Self { reactor: reactor.clone(), token })
    }

    /// Does what does not wait; if there is nothing, leaves the task's waker and tries again, for
    /// what has come in between found no waker.
    fn poll<T>(
        &self,
        context: &Context<'_>,
        mut step: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let mut once = || match step() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done),
        };
        if let Poll::Ready(done) = once() {
            return Poll::Ready(done);
        }
        let tasks = &self.reactor.0.waiting;
        let before = tasks.tasks().wakers.insert(self.token, context.waker().clone());
        // Not under the lock: a waker is the runtime's code.
        drop(before);
        once()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let waker = self.reactor.0.waiting.tasks().wakers.remove(&self.token);
        drop(waker);
    }
}

/// A stream that a task can read from: tokio's `AsyncRead`, and that of futures.
///
/// One task reads at a time. Dropping it closes the connection as dropping a [`TcpStream`] does.
///
/// See [`Reactor`] for an example.
#[derive(Debug)]
pub struct AsyncTcpStream<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    stream: TcpStream<B, C>,
    watched: Watched,
}

impl<B: PacketBuf, C: Connection<B>> AsyncTcpStream<B, C> {
    /// Has a stream read by tasks.
    ///
    /// # Errors
    /// None at present.
    pub fn new(reactor: &Reactor, stream: TcpStream<B, C>) -> io::Result<Self> {
        let watched = Watched::new(reactor, &stream)?;
        Ok(Self { stream, watched })
    }

    /// Reads as `flags` say, waiting for data as a task does: see [`TcpStream::recv`].
    ///
    /// # Errors
    /// As [`TcpStream::recv`], but for `WouldBlock`.
    pub async fn recv(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let flags = flags.with(RecvFlags::DONTWAIT);
        poll_fn(|context| self.watched.poll(context, || self.stream.recv(buf, flags))).await
    }

    /// The stream, for everything that does not wait.
    pub fn get_ref(&self) -> &TcpStream<B, C> {
        &self.stream
    }

    fn poll_recv(&self, context: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.watched.poll(context, || self.stream.recv(buf, RecvFlags::DONTWAIT))
    }
}

impl<B: PacketBuf, C: Connection<B>> AsyncRead for AsyncTcpStream<B, C> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = ready!(self.poll_recv(context, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<B: PacketBuf, C: Connection<B>> futures_io::AsyncRead for AsyncTcpStream<B, C> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_recv(context, buf)
    }
}

/// A listener that a task can accept from. One task accepts at a time.
///
/// See [`Reactor`] for an example.
#[derive(Debug)]
pub struct AsyncTcpListener<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    listener: TcpListener<B, C>,
    watched: Watched,
}

impl<B: PacketBuf, C: Connection<B>> AsyncTcpListener<B, C> {
    /// Has a listener accepted from by tasks; it does not wait any more.
    ///
    /// # Errors
    /// None at present.
    pub fn new(reactor: &Reactor, listener: TcpListener<B, C>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let watched = Watched::new(reactor, &listener)?;
        Ok(Self { listener, watched })
    }

    /// Takes the oldest connection, and waits for one as a task does.
    ///
    /// # Errors
    /// As [`TcpListener::accept`], but for `WouldBlock`.
    pub async fn accept(&self) -> io::Result<(AsyncTcpStream<B, C>, SocketAddr)> {
        let accepted = poll_fn(|context| self.watched.poll(context, || self.listener.accept()));
        let (stream, peer) = accepted.await?;
        Ok((AsyncTcpStream::new(&self.watched.reactor, stream)?, peer))
    }

    /// The listener.
    pub fn get_ref(&self) -> &TcpListener<B, C> {
        &self.listener
    }
}
