//! A connection in the manner of [`std::net::TcpStream`].
//!
//! Used by application threads, several at once if they like. It reads; sending data is not part
//! of this library yet.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::tcb::{ConnError, Tcb};

use super::conn::Connection;
use super::recv::{Call, Exclusive, Recv, RecvError, RecvFlags, Step};
use super::socket::{Handle, SocketGuard};
use super::wait::{ThreadWaiter, Waiter, wait};

/// A TCP connection. Dropping it closes the connection: with FIN, or with RST if data is unread.
///
/// Any number of threads may read through one stream, or through handles made by
/// [`try_clone`](Self::try_clone): each byte goes to one of them. Reads wait by spinning for some ten
/// microseconds, then asleep. A thread that is the only reader gets most out of
/// [`reader`](Self::reader).
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
/// use std::io::{self, Read};
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
    /// Several threads may read at once: each byte goes to one of them.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing and the call does not wait (or the read timeout has
    /// passed), `ConnectionReset`, `BrokenPipe` or `TimedOut` once if the connection has ended so,
    /// `Deadlock` if the calling thread holds a guard, `ConnectionAborted` if the stack has stopped.
    pub fn recv(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let waiter = &ThreadWaiter;
        let mut recv = Recv::new(&self.handle, buf, flags, || waiter.now());
        let mut now = crate::time::Instant::ZERO;
        loop {
            match recv.step(now) {
                Step::Done(n) => return Ok(n),
                Step::Failed(error) => return Err(error.into()),
                Step::Sleep(sleep) => {
                    let socket = &self.handle.socket;
                    let word = socket.park().word();
                    let announce = || sleep.announce(socket);
                    wait(waiter, word, sleep.until, || recv.has_news(&sleep), announce);
                    if sleep.until.is_some() {
                        now = waiter.now();
                    }
                }
            }
        }
    }

    /// Reads without taking: the next read finds the same bytes.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf, RecvFlags::PEEK)
    }

    /// A reader that has the stream to itself and keeps its ring installed: no locking per read.
    ///
    /// Reads through other handles wait until it is dropped, whatever their time limit.
    ///
    /// # Errors
    /// `Deadlock` if the calling thread holds a guard.
    pub fn reader(&mut self) -> io::Result<Reader<'_, B, C>> {
        Ok(Reader(Exclusive::new(&self.handle.socket)?))
    }

    /// Shuts one side or both. The reading side sends nothing: reads return 0 once the data that
    /// is there, and what may still come, is read. The writing side sends FIN.
    ///
    /// # Errors
    /// None at present.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.handle.shutdown_read();
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.handle.shutdown_write();
        }
        Ok(())
    }

    /// How long a read may wait (SO_RCVTIMEO); for ever if `None`.
    ///
    /// # Errors
    /// `InvalidInput` for a duration of zero, as in std.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a read timeout of zero: use set_nonblocking, or None to wait for ever",
            ));
        }
        self.handle.socket.options.set_timeout(timeout);
        Ok(())
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// None at present.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.handle.socket.options.timeout())
    }

    /// How many bytes a read waits for (SO_RCVLOWAT), unless it asks for fewer; at least 1.
    pub fn set_receive_low_water(&self, bytes: u32) {
        self.handle.socket.options.set_low_water(bytes);
    }

    /// Whether reads return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None at present.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.handle.socket.options.set_nonblocking(nonblocking);
        Ok(())
    }

    /// Bytes that can be read without waiting (FIONREAD).
    pub fn readable(&self) -> u32 {
        self.handle.readable()
    }

    /// The peer's address and port.
    ///
    /// # Errors
    /// None at present.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.handle.peer_addr().into())
    }

    /// Our address and port.
    ///
    /// # Errors
    /// None at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.handle.local_addr().into())
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

    /// The socket behind it.
    pub fn handle(&self) -> &Handle<B, C> {
        &self.handle
    }
}

impl<B: PacketBuf, C: Connection<B>> Read for TcpStream<B, C> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buf)
    }
}

impl<B: PacketBuf, C: Connection<B>> Read for &TcpStream<B, C> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // Unlike recv, read of nothing returns at once.
        if buf.is_empty() { Ok(0) } else { self.recv(buf, RecvFlags::NONE) }
    }
}

/// The only reader of a stream: see [`TcpStream::reader`].
///
/// It belongs to one thread at a time; other handles of the stream can do everything but read, which
/// waits until the reader is gone. Data that it has not read is there for whoever reads next.
///
/// ```
/// use std::io::{self, Read};
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
///
/// fn count(mut stream: TcpStream<HeapBuf>) -> io::Result<u64> {
///     let mut reader = stream.reader()?;
///     let mut buf = vec![0; 64 * 1024];
///     let mut total = 0;
///     loop {
///         match reader.read(&mut buf)? {
///             0 => return Ok(total),
///             n => total += n as u64,
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Reader<'a, B: PacketBuf, C: Connection<B> = Tcb<B>>(Exclusive<'a, B, C>);

impl<B: PacketBuf, C: Connection<B>> Reader<'_, B, C> {
    /// As [`TcpStream::recv`].
    ///
    /// # Errors
    /// As [`TcpStream::recv`].
    pub fn recv(&mut self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let waiter = &ThreadWaiter;
        let socket = self.0.socket();
        let mut call = Call::new(buf, flags, &socket.options, || waiter.now());
        let mut now = crate::time::Instant::ZERO;
        loop {
            match self.0.step(&mut call, now) {
                Step::Done(n) => return Ok(n),
                Step::Failed(error) => return Err(error.into()),
                Step::Sleep(sleep) => {
                    let word = socket.park().word();
                    let announce = || sleep.announce(socket);
                    wait(waiter, word, sleep.until, || self.0.has_news(&sleep), announce);
                    if sleep.until.is_some() {
                        now = waiter.now();
                    }
                }
            }
        }
    }
}

impl<B: PacketBuf, C: Connection<B>> Read for Reader<'_, B, C> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() { Ok(0) } else { self.recv(buf, RecvFlags::NONE) }
    }
}
