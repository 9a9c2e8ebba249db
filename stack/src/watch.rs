//! What a simulation sees of a connection that no program can see: its queues, and a reader midway.
//!
//! For figures, tests and teaching, under a virtual clock on one thread. Buffers that want to watch
//! say so by [`PacketBuf::watch`](crate::buf::PacketBuf::watch); from others nothing is asked, and
//! the packet path is compiled as if this file were not there.

use std::fmt;

/// Where a reader is in the middle of its step.
///
/// See [`Seen`] for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// It owns the socket, and has taken what was in the receive queue.
    Takes,
    /// It owns the socket, and has just made the ring through which data will cross.
    Installs,
    /// It owns the socket, has removed the ring, and has put back what it leaves unread.
    Uninstalls,
    /// It owns nothing but the reader token, and has copied, looked at or discarded bytes: so many
    /// in this call.
    Copied(usize),
}

/// Who owns a socket's TCP state: the owner word without its bits.
///
/// See [`Seen`] for an example.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Owner {
    /// Nobody: whoever comes first may.
    #[default]
    Nobody,
    /// The lcore.
    Lcore,
    /// An application thread.
    Thread,
    /// Nobody, and only the lcore may: it has work there that it could not do.
    LcoreDue,
}

/// A segment in a queue.
///
/// See [`Seen`] for an example.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Span {
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Bytes of payload.
    pub len: u32,
    /// The number behind them is a FIN's.
    pub fin: bool,
}

/// What may be seen of a connection at one moment.
///
/// Each part can be looked at only by who has it: the queues of the reader with the token, those of
/// the connection as its owner. A part that somebody else has at the moment is missing.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
/// use prequeue::watch::{Owner, Seen};
///
/// /// Bytes that wait in the receive queue, if nobody works on it.
/// fn queued(stream: &TcpStream<HeapBuf>) -> Option<u32> {
///     let Seen { owner, connection, .. } = stream.handle().seen();
///     assert_eq!(owner == Owner::Nobody, connection.is_some());
///     Some(connection?.receive.iter().map(|span| span.len).sum())
/// }
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// Who owns the socket.
    pub owner: Owner,
    /// Wake-ups of readers so far, modulo 2³².
    pub wakes: u32,
    /// What belongs to the reader token.
    pub reader: Option<ReaderSeen>,
    /// What belongs to the owner.
    pub connection: Option<ConnectionSeen>,
}

/// The reader's side of a connection.
///
/// See [`Seen`] for an example.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReaderSeen {
    /// Next byte to be read.
    pub copied_seq: u32,
    /// What was taken out of the receive queue: older than the ring.
    pub taken: Vec<Span>,
    /// What is in the prequeue's ring, if one is installed.
    pub ring: Option<Vec<Span>>,
}

/// The owner's side of a connection.
///
/// See [`Seen`] for an example.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConnectionSeen {
    /// The next number that is expected, the peer's FIN counted.
    pub rcv_nxt: u32,
    /// The receive queue.
    pub receive: Vec<Span>,
    /// What waits above a hole.
    pub out_of_order: Vec<Span>,
}

impl fmt::Display for Span {
    /// As `1000-1100`, with an `F` for the FIN.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, len, fin } = *self;
        write!(f, "{seq}-{}{}", seq.wrapping_add(len), if fin { "F" } else { "" })
    }
}
