//! What a call asks for besides a buffer, and why it fails: the flags and errors of recv(2).
//!
//! Plain values, used by whoever reads, on any thread. Nothing here touches a socket.

use std::io;

use crate::tcp::tcb::ConnError;

/// What a call asks for besides a buffer: the `MSG_` flags of POSIX and Linux.
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
    /// Look without taking.
    pub const PEEK: Self = Self(1);
    /// Wait for the whole length; end early on error, end of stream or timeout.
    pub const WAITALL: Self = Self(1 << 1);
    /// Do not wait.
    pub const DONTWAIT: Self = Self(1 << 2);
    /// Discard instead of copying; the count is of the bytes discarded.
    pub const TRUNC: Self = Self(1 << 3);

    /// Whether every flag of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
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
    /// The connection has ended by an error; told once.
    Connection(ConnError),
    /// The calling thread holds a guard on the socket: it would wait for itself (EDEADLK).
    Deadlock,
    /// The stack has stopped, or failed while it owned the socket.
    Dead,
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        let (kind, text) = match error {
            RecvError::WouldBlock => (io::ErrorKind::WouldBlock, "no data within the time allowed"),
            RecvError::Connection(ConnError::Reset) => {
                (io::ErrorKind::ConnectionReset, "connection reset by peer")
            }
            RecvError::Connection(ConnError::BrokenPipe) => {
                (io::ErrorKind::BrokenPipe, "connection reset by peer after its end of stream")
            }
            RecvError::Connection(ConnError::TimedOut) => {
                (io::ErrorKind::TimedOut, "the peer does not answer any more")
            }
            RecvError::Deadlock => (
                io::ErrorKind::Deadlock,
                "this thread holds a guard on the socket: drop it before reading",
            ),
            RecvError::Dead => {
                (io::ErrorKind::ConnectionAborted, "the stack has stopped: the connection is gone")
            }
        };
        Self::new(kind, text)
    }
}
