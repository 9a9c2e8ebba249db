//! Reads of a thread's own streams that wait: by polling, as there is nobody else who could.
//!
//! The step is that of every read; between two steps the stack is polled once, by whatever the caller
//! gives for it. Time limits, low-water marks and WAITALL mean what they mean to a stream that threads
//! share. Nothing here sleeps.

use std::io::{self, IoSliceMut};

use crate::buf::PacketBuf;
use crate::time::Instant;

use super::super::recv::{Call, Received, RecvFlags, Slices, Step, read_by_recv};
use super::LocalStream;
use super::stream::outcome;

/// A stream whose reads poll its stack until there is what they want: see
/// [`LocalStream::polling`], and [`LocalStack::blocking`](../local/struct.LocalStack.html#method.blocking)
/// for a whole stack.
///
/// Other connections are served meanwhile, but nobody reads them. Signals are not noticed: a time limit
/// ([`LocalStream::set_read_timeout`]) ends a read whose peer stays silent.
///
/// ```
/// use std::io::{self, Read};
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::LocalStream;
/// use prequeue::time::Instant;
///
/// /// The body behind a length of four bytes, however long it takes; `poll` polls and tells the time.
/// fn message(
///     stream: &mut LocalStream<HeapBuf>,
///     poll: impl FnMut() -> Instant,
/// ) -> io::Result<Vec<u8>> {
///     let mut reads = stream.polling(poll);
///     let mut len = [0; 4];
///     reads.read_exact(&mut len)?;
///     let mut body = vec![0; u32::from_be_bytes(len).min(1 << 20) as usize];
///     reads.read_exact(&mut body)?;
///     Ok(body)
/// }
/// ```
#[derive(Debug)]
pub struct LocalBlocking<'a, B: PacketBuf, P> {
    stream: &'a mut LocalStream<B>,
    poll: P,
}

impl<B: PacketBuf> LocalStream<B> {
    /// Reads that wait: while there is less than they want `poll` is called, which polls the stack once
    /// and tells the time.
    pub fn polling<P: FnMut() -> Instant>(&mut self, poll: P) -> LocalBlocking<'_, B, P> {
        LocalBlocking { stream: self, poll }
    }

    /// As [`recv`](Self::recv), into several buffers, of which each is filled before the next.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_vectored(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> io::Result<usize> {
        self.at_once().recv_vectored(bufs, flags.with(RecvFlags::DONTWAIT))
    }

    /// As [`recv_vectored`](Self::recv_vectored); tells what recvmsg does besides: how much is left, and
    /// what is urgent.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_message(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> io::Result<Received> {
        self.at_once().recv_message(bufs, flags.with(RecvFlags::DONTWAIT))
    }

    /// Reads without taking: the next read finds the same bytes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf, RecvFlags::PEEK)
    }

    /// Throws up to `len` bytes of what there is away; how many.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn discard(&mut self, len: usize, flags: RecvFlags) -> io::Result<usize> {
        self.at_once().discard(len, flags.with(RecvFlags::DONTWAIT))
    }

    /// For calls that do not wait.
    fn at_once(&mut self) -> LocalBlocking<'_, B, fn() -> Instant> {
        self.polling(|| Instant::ZERO)
    }
}

impl<B: PacketBuf, P: FnMut() -> Instant> LocalBlocking<'_, B, P> {
    /// As [`TcpStream::recv`](super::super::TcpStream::recv).
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing and the call does not wait (or the read timeout has passed),
    /// `ConnectionReset`, `BrokenPipe` or `TimedOut` once if the connection has ended so, `NotConnected`
    /// if this side has reset it, `ConnectionAborted` if the stack has stopped, `InvalidInput` with
    /// [`RecvFlags::OOB`] if there is no urgent byte.
    pub fn recv(&mut self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        self.stream.put_back();
        let call = Call::new(buf, flags, self.stream.options(), &mut self.poll);
        self.run(call)
    }

    /// As [`recv`](Self::recv), into several buffers, of which each is filled before the next.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_vectored(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> io::Result<usize> {
        self.stream.put_back();
        let mut slices = Slices::new(bufs);
        let (len, options) = (slices.len(), self.stream.options());
        let call = Call::scattered(&mut slices, len, flags, options, &mut self.poll);
        self.run(call)
    }

    /// As [`recv_vectored`](Self::recv_vectored); tells what recvmsg does besides: how much is left, and
    /// what is urgent.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_message(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> io::Result<Received> {
        let has_room = bufs.iter().any(|buf| !buf.is_empty());
        let len = self.recv_vectored(bufs, flags)?;
        Ok(Received::new(len, self.stream.left(), flags, has_room))
    }

    /// Reads without taking: the next read finds the same bytes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf, RecvFlags::PEEK)
    }

    /// Throws up to `len` bytes away; how many.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn discard(&mut self, len: usize, flags: RecvFlags) -> io::Result<usize> {
        self.stream.put_back();
        let call = Call::discarding(len, flags, self.stream.options(), &mut self.poll);
        self.run(call)
    }

    /// Waits until as much as the low-water mark says can be read, and takes nothing: what there is can
    /// then be lent ([`LocalStream::segments`]). `false` at the end of the stream.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn wait(&mut self) -> io::Result<bool> {
        self.stream.put_back();
        let call = Call::looking(RecvFlags::NONE, self.stream.options(), &mut self.poll);
        Ok(self.run(call)? > 0)
    }

    /// Takes the steps of a call, and polls between them.
    fn run(&mut self, mut call: Call<'_>) -> io::Result<usize> {
        let mut now = Instant::ZERO;
        loop {
            match self.stream.step_at(&mut call, now) {
                Step::Sleep(_) => now = (self.poll)(),
                over => return outcome(over),
            }
        }
    }
}

read_by_recv!([B: PacketBuf, P: FnMut() -> Instant] LocalBlocking<'_, B, P>);
