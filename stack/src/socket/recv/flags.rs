//! What a call asks for besides a buffer, why it fails, and what it tells besides a length.
//!
//! Plain values in the terms of recv(2), used by whoever reads, on any thread. Nothing here touches
//! a socket.

use std::io;

use crate::tcp::tcb::ConnError;

use super::super::wait::Waiting;

/// What a call asks for besides a buffer: the `MSG_` flags of POSIX and Linux, and how to wait.
///
/// All of them go together. [`OOB`](Self::OOB) never waits, and of the others only
/// [`PEEK`](Self::PEEK) and [`TRUNC`](Self::TRUNC) mean anything to it.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{RecvFlags, TcpStream};
///
/// /// A header of eight bytes if all of it is there, without taking it.
/// fn header(stream: &TcpStream<HeapBuf>) -> std::io::Result<Option<[u8; 8]>> {
///     let mut header = [0; 8];
///     let n = stream.recv(&mut header, RecvFlags::PEEK.with(RecvFlags::DONTWAIT))?;
///     Ok((n == header.len()).then_some(header))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecvFlags(u32);

impl RecvFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Look without taking. Together with [`Self::WAITALL`] the call ends with what there is once
    /// the receive buffer takes no more: looking frees nothing.
    pub const PEEK: Self = Self(1);
    /// Wait for the whole length; end early on error, end of stream, timeout, signal, or before
    /// urgent data.
    pub const WAITALL: Self = Self(1 << 1);
    /// Do not wait.
    pub const DONTWAIT: Self = Self(1 << 2);
    /// Discard instead of copying; the count is of the bytes discarded. With [`Self::PEEK`] it is of
    /// those that could be read.
    pub const TRUNC: Self = Self(1 << 3);
    /// The urgent byte alone, if it is not to be read with the others.
    pub const OOB: Self = Self(1 << 4);
    /// Wait by spinning this time ([`Waiting::Spin`]), whatever the stream's strategy is. Together with
    /// [`Self::PARK`]: spin, then park.
    pub const SPIN: Self = Self(1 << 5);
    /// Wait asleep this time ([`Waiting::Park`]), whatever the stream's strategy is.
    pub const PARK: Self = Self(1 << 6);

    /// Whether every flag of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The strategy that they ask for, or the one of the socket.
    pub(in crate::socket) const fn waiting(self, of_socket: Waiting) -> Waiting {
        match (self.has(Self::SPIN), self.has(Self::PARK)) {
            (false, false) => of_socket,
            (true, false) => Waiting::Spin,
            (true, true) => Waiting::SpinThenPark,
            (false, true) => Waiting::Park,
        }
    }

    /// The flags of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why a call failed.
///
/// ```
/// use std::io;
///
/// use prequeue::socket::RecvError;
/// use prequeue::tcp::tcb::ConnError;
///
/// let error = io::Error::from(RecvError::Connection(ConnError::Reset));
/// assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecvError {
    /// Nothing there, and the call does not wait, or not any longer (EAGAIN).
    WouldBlock,
    /// A signal was handled while the thread slept, and nothing was there (EINTR).
    Interrupted,
    /// There is no urgent byte, or it was read already, or it is read with the others (EINVAL).
    NoUrgentByte,
    /// The connection is over: this side has reset it, or there is nothing left to shut (ENOTCONN).
    NotConnected,
    /// The connection has ended by an error; told once.
    Connection(ConnError),
    /// The calling thread holds a guard on the socket: it would wait for itself (EDEADLK).
    Deadlock,
    /// The stack has stopped, or failed while it owned the socket.
    Dead,
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        use io::ErrorKind;

        let (kind, text) = match error {
            RecvError::WouldBlock => (ErrorKind::WouldBlock, "no data within the time allowed"),
            RecvError::Interrupted => (ErrorKind::Interrupted, "interrupted by a signal"),
            RecvError::NoUrgentByte => (
                ErrorKind::InvalidInput,
                "no urgent byte: none came, it was read, or it is read with the others",
            ),
            RecvError::NotConnected => (ErrorKind::NotConnected, "the connection is over"),
            RecvError::Connection(ConnError::Reset) => {
                (ErrorKind::ConnectionReset, "connection reset by peer")
            }
            RecvError::Connection(ConnError::BrokenPipe) => {
                (ErrorKind::BrokenPipe, "connection reset by peer after its end of stream")
            }
            RecvError::Connection(ConnError::TimedOut) => {
                (ErrorKind::TimedOut, "the peer does not answer any more")
            }
            RecvError::Connection(ConnError::Path(error)) => {
                return Self::from_raw_os_error(error.errno());
            }
            RecvError::Deadlock => {
                (ErrorKind::Deadlock, "this thread holds a guard on the socket: drop it first")
            }
            RecvError::Dead => {
                (ErrorKind::ConnectionAborted, "the stack has stopped: the connection is gone")
            }
        };
        Self::new(kind, text)
    }
}

/// What a message-like read tells: see [`TcpStream::recv_message`](super::super::TcpStream::recv_message).
///
/// ```
/// use std::io::{self, IoSliceMut};
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{RecvFlags, TcpStream};
///
/// /// Reads until nothing is left for the moment, without a call that finds nothing.
/// fn drain(stream: &TcpStream<HeapBuf>, sink: &mut Vec<u8>) -> io::Result<()> {
///     let mut buf = [0; 4096];
///     loop {
///         let received = stream.recv_message(&mut [IoSliceMut::new(&mut buf)], RecvFlags::NONE)?;
///         sink.extend_from_slice(&buf[..received.len]);
///         if received.left == 0 || received.len == 0 {
///             return Ok(());
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// Bytes read, looked at or discarded; 0 at the end of the stream.
    pub len: usize,
    /// Bytes left to be read (TCP_INQ). The end of the stream counts as one: there is something to be
    /// learnt by another read.
    pub left: u32,
    /// The byte is urgent (MSG_OOB in msg_flags).
    pub urgent: bool,
    /// There was no room for the urgent byte (MSG_TRUNC in msg_flags).
    pub truncated: bool,
}

impl Received {
    /// What a call with these flags tells that has read `len` bytes, into memory with room or without.
    pub(in crate::socket) fn new(len: usize, left: u32, flags: RecvFlags, has_room: bool) -> Self {
        let is_urgent = flags.has(RecvFlags::OOB);
        Self {
            len,
            left,
            urgent: is_urgent && (len != 0 || !has_room),
            truncated: is_urgent && !has_room,
        }
    }
}
