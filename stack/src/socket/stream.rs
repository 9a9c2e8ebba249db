//! A connection in the manner of [`std::net::TcpStream`].
//!
//! Used by application threads, several at once if they like. It reads; sending data is not part
//! of this library yet.

use std::io::{self, IoSliceMut, Read};
use std::net::{Shutdown, SocketAddr};

use crate::buf::PacketBuf;
use crate::tcp::tcb::{ConnError, Tcb};

use super::conn::Connection;
use super::handle::Handle;
use super::options::Options;
use super::ownership::SocketGuard;
use super::reader::Reader;
use super::recv::{Received, Recv, RecvError, RecvFlags, Slices, Step, read_by_recv};
use super::sync::Woken;
use super::wait::{ThreadWaiter, Waiter, wait};

/// A TCP connection. Dropping it closes the connection: with FIN, or with RST if data is unread.
///
/// Any number of threads may read through one stream, or through handles made by
/// [`try_clone`](Self::try_clone): each byte goes to one of them. Reads wait as [`Waiting`](super::Waiting)
/// says: if nobody says otherwise by spinning for some ten microseconds, then asleep. A thread that is the only reader gets most out of
/// [`reader`](Self::reader).
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
/// use std::io::{self, IoSliceMut, Read};
///
/// fn count(mut stream: TcpStream<HeapBuf>) -> io::Result<u64> {
///     let mut buf = vec![0; 64 * 1024];
///     let mut total = 0;
///     loop {
///         match stream.read(&mut buf)? {
///             0 => return Ok(total),
///             n => total += n as u64,
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct TcpStream<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    handle: Handle<B, C>,
}

impl<B: PacketBuf, C: Connection<B>> From<Handle<B, C>> for TcpStream<B, C> {
    fn from(handle: Handle<B, C>) -> Self {
        Self { handle }
    }
}

impl<B: PacketBuf, C: Connection<B>> TcpStream<B, C> {
    /// Reads into `buf` as `flags` say; the number of bytes, 0 at the end of the stream.
    ///
    /// Several threads may read at once: each byte goes to one of them. At most 2 GiB less a page are
    /// read at once. With no room in `buf` it waits for data too, and takes none.
    ///
    /// A read that takes ordinary data ends before an urgent byte; the next one passes over it, unless
    /// [`set_out_of_band_inline`](Self::set_out_of_band_inline) is on.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing and the call does not wait (or the read timeout has
    /// passed), `ConnectionReset`, `BrokenPipe` or `TimedOut` once if the connection has ended so,
    /// `Interrupted` if a signal was handled while the thread slept: as with sockets of the kernel, with
    /// a read timeout always, else if the handler was installed without SA_RESTART; a thread that still
    /// spins does not notice. `Deadlock` if the calling thread holds a guard, `ConnectionAborted` if the
    /// stack has stopped, `NotConnected` if this side has reset the connection, `InvalidInput` with
    /// [`RecvFlags::OOB`] if there is no urgent byte.
    ///
    /// While another thread has a [`Reader`], calls without a time limit wait until it has gone; with
    /// one they fail with `WouldBlock` when it has passed, those that do not wait at once.
    pub fn recv(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        self.run(Recv::new(&self.handle, buf, flags, || ThreadWaiter.now()))
    }

    /// As [`Self::recv`]; tells the peer's address as well, which Linux leaves out for TCP.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_from(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<(usize, SocketAddr)> {
        Ok((self.recv(buf, flags)?, self.handle.peer_addr()))
    }

    /// As [`Self::recv`], into several buffers, of which each is filled before the next.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_vectored(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> io::Result<usize> {
        let mut slices = Slices::new(bufs);
        self.run(Recv::vectored(&self.handle, &mut slices, flags, || ThreadWaiter.now()))
    }

    /// As [`Self::recv_vectored`]; tells what recvmsg does besides: how much is left, and what is
    /// urgent.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_message(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> io::Result<Received> {
        let has_room = bufs.iter().any(|buf| !buf.is_empty());
        let len = self.recv_vectored(bufs, flags)?;
        Ok(Received::new(len, self.handle.left(), flags, has_room))
    }

    /// Reads without taking: the next read finds the same bytes.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf, RecvFlags::PEEK)
    }

    /// Throws up to `len` bytes away; how many. As [`Self::recv`] with [`RecvFlags::TRUNC`] and no
    /// buffer.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn discard(&self, len: usize, flags: RecvFlags) -> io::Result<usize> {
        self.run(Recv::discarding(&self.handle, len, flags, || ThreadWaiter.now()))
    }

    /// Takes the steps of a call, and waits between them.
    fn run(&self, mut recv: Recv<'_, B, C>) -> io::Result<usize> {
        let waiter = &ThreadWaiter;
        let mut now = crate::time::Instant::ZERO;
        loop {
            match recv.step(now) {
                Step::Done(n) => return Ok(n),
                Step::Failed(error) => return Err(error.into()),
                Step::Sleep(sleep) => {
                    let socket = &self.handle.socket;
                    let word = socket.park().word();
                    let announce = || sleep.announce(socket);
                    let has_news = || sleep.has_news(socket);
                    let waiting = recv.waiting();
                    let woken = recv
                        .lending(|| wait(waiter, waiting, word, sleep.until, has_news, announce));
                    if woken == Woken::BySignal {
                        recv.interrupt();
                    }
                    if sleep.until.is_some() {
                        now = waiter.now();
                    }
                }
            }
        }
    }

    /// A reader that has the stream to itself and keeps its ring installed: no locking per read.
    ///
    /// Reads through other handles wait until it is dropped, those with a time limit as long as that
    /// lasts; those that do not wait fail with `WouldBlock`.
    ///
    /// # Errors
    /// `Deadlock` if the calling thread holds a guard.
    pub fn reader(&mut self) -> io::Result<Reader<'_, B, C>> {
        Ok(Reader::new(&self.handle)?)
    }

    /// Shuts one side or both. The reading side sends nothing: reads return 0 once the data that
    /// is there, and what may still come, is read. The writing side sends FIN.
    ///
    /// # Errors
    /// `NotConnected` if the connection is over; readers are woken all the same.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let was_closed = self.handle.is_closed();
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.handle.shutdown_read();
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.handle.shutdown_write();
        }
        if was_closed {
            return Err(RecvError::NotConnected.into());
        }
        Ok(())
    }

    /// Begins low-latency mode (`tcp_low_latency`) or ends it, at any time and for all handles: nothing
    /// is lost or reordered. Connections begin as the stack's settings say.
    ///
    /// In this mode there is no prequeue. The lcore copies what comes in order straight into the buffer
    /// of a read that waits, at most 64 KiB at a time; it queues what comes while nobody waits, while
    /// somebody else reads, above a hole, or with urgent data ahead. That suits small messages to a
    /// blocked reader; a reader that has more to do than to copy gets more out of the prequeue.
    ///
    /// The lcore writes to memory of the application then: a buffer in a mapped file, or in memory that
    /// was never touched and that the system may refuse, makes all its connections wait, or ends the
    /// process, when the page cannot be had. Reads into several buffers and those of a [`Reader`] are
    /// helped as well; peeks, discarding reads and segments that are lent are not.
    pub fn set_low_latency(&self, on: bool) {
        self.handle.set_low_latency(on);
    }

    /// Whether low-latency mode is on.
    pub fn is_low_latency(&self) -> bool {
        self.handle.is_low_latency()
    }

    /// Bytes that can be read without waiting, up to the urgent byte if there is one (FIONREAD).
    pub fn readable(&self) -> u32 {
        self.handle.readable()
    }

    /// The peer's address and port.
    ///
    /// # Errors
    /// None at present.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.handle.peer_addr())
    }

    /// Our address and port.
    ///
    /// # Errors
    /// None at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.handle.local_addr())
    }

    /// The pending error (SO_ERROR), which is taken: reads do not return it any more.
    ///
    /// # Errors
    /// None at present.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.handle.take_error().map(|error: ConnError| RecvError::Connection(error).into()))
    }

    /// A second handle on the same connection, which is closed when both are dropped.
    ///
    /// # Errors
    /// None at present.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { handle: self.handle.another() })
    }

    /// Has the connection reset instead of closed when it is dropped (SO_LINGER, time zero).
    pub fn set_linger_zero(&self) {
        self.handle.set_linger_zero();
    }

    /// Takes the socket away from its lcore until the guard is dropped; waits while another thread
    /// has it. A thread that holds a guard must not ask for a second one: it would wait for itself.
    pub fn lock(&self) -> SocketGuard<'_, B, C> {
        self.handle.lock()
    }

    pub(super) fn options(&self) -> &Options {
        &self.handle.socket.options
    }

    /// The socket behind it.
    pub fn handle(&self) -> &Handle<B, C> {
        &self.handle
    }
}

impl<B: PacketBuf, C: Connection<B>> Read for TcpStream<B, C> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Read::read_vectored(&mut &*self, bufs)
    }
}

read_by_recv!([B: PacketBuf, C: Connection<B>] &TcpStream<B, C>);
