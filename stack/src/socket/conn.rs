//! What a socket asks of the connection it guards: a narrow view of the protocol core.
//!
//! The models run the socket over a toy that only queues; production runs it over
//! [`Tcb`]. Called by whoever owns the socket; nothing here runs TCP.

use crate::buf::PacketBuf;
use crate::tcp::SeqNum;
use crate::tcp::tcb::{ConnError, State, Tcb, Urgent};
use crate::watch::ConnectionSeen;

/// Linux's initial send buffer (`tcp_wmem[1]`). Nothing is sent, but the backlog's limit counts it.
const SNDBUF: u32 = 16_384;

/// Linux's allowance on top of both buffers, for what arrives while the owner is busy.
const BACKLOG_HEADROOM: u32 = 64 * 1024;

/// The connection of a socket, as far as the socket has to know.
pub trait Connection<B: PacketBuf>: Send + 'static {
    /// The number behind the last in-sequence byte.
    fn edge(&self) -> SeqNum;
    /// Whether nothing follows behind the edge.
    fn eof(&self) -> bool;
    /// Why the connection ended, if not by FIN.
    fn error(&self) -> Option<ConnError>;
    /// Whether no data can arrive any more.
    fn is_closed(&self) -> bool;
    /// Whether data waits in the receive queue.
    fn has_queued(&self) -> bool;
    /// Whether readers had better take what there is: less than a segment's worth of window is
    /// open, less than an eighth of the buffer is free, or the pool is running out.
    fn is_pressed(&self) -> bool;
    /// The urgent mark, if there is one that the reader is not known to have passed. What is at or
    /// behind it does not go through the ring.
    fn urgent(&self) -> Option<Urgent> {
        None
    }
    /// Whether our FIN is acknowledged, or never will be.
    fn is_flushed(&self) -> bool {
        false
    }
    /// The progress of the reader at which a window update will be owed.
    fn notify_at(&self) -> Option<SeqNum>;
    /// Makes room for so many unread bytes, as far as it may; how many a reader can wait for.
    fn make_room(&mut self, low_water: u32) -> u32 {
        low_water
    }
    /// Bytes of truesize that the backlog may hold, seen from this moment.
    fn backlog_room(&self) -> u32;
    /// Takes the whole receive queue; its buffers stay charged.
    fn take_receive_queue(&mut self) -> B::Queue;
    /// Takes every buffer there is, for nothing more will be read or received.
    fn take_all(&mut self) -> B::Queue {
        self.take_receive_queue()
    }
    /// Puts buffers back that are older than everything in the receive queue.
    fn put_back(&mut self, older: B::Queue);
    /// Its queues, for whoever watches.
    fn seen(&self) -> ConnectionSeen {
        ConnectionSeen::default()
    }
}

impl<B: PacketBuf> Connection<B> for Tcb<B> {
    fn edge(&self) -> SeqNum {
        self.edge()
    }

    fn eof(&self) -> bool {
        self.eof()
    }

    fn error(&self) -> Option<ConnError> {
        self.error()
    }

    fn is_closed(&self) -> bool {
        matches!(self.state(), State::TimeWait | State::Closed)
    }

    fn has_queued(&self) -> bool {
        self.has_queued()
    }

    fn is_pressed(&self) -> bool {
        self.offered_window() <= self.rcv_mss() || self.over_seven_eighths() || self.is_squeezed()
    }

    fn urgent(&self) -> Option<Urgent> {
        self.urgent()
    }

    fn is_flushed(&self) -> bool {
        matches!(self.state(), State::FinWait2 | State::TimeWait | State::Closed)
    }

    fn notify_at(&self) -> Option<SeqNum> {
        self.notify_at()
    }

    fn make_room(&mut self, low_water: u32) -> u32 {
        self.make_room(low_water)
    }

    fn backlog_room(&self) -> u32 {
        (self.rcvbuf().saturating_add(SNDBUF + BACKLOG_HEADROOM)).saturating_sub(self.rmem())
    }

    fn take_receive_queue(&mut self) -> B::Queue {
        self.take_receive_queue()
    }

    fn take_all(&mut self) -> B::Queue {
        self.take_all()
    }

    fn put_back(&mut self, older: B::Queue) {
        self.put_back(older);
    }

    fn seen(&self) -> ConnectionSeen {
        self.seen()
    }
}
