//! The path to the peer: what ICMP errors say of it, and the segment size that it takes.
//!
//! Told by the lcore, as the connection's owner. An error changes what a later time-out is called, or
//! how large our segments may be; it never ends the connection (RFC 9293 MUST-54 to -56), and one about
//! a segment that is not under way is none (RFC 5927 §4.1).

use crate::buf::PacketBuf;
use crate::tcp::icmp::{PathError, Report};
use crate::tcp::negotiate::{LEAST_MSS, TIMESTAMPS_ROOM, headers};
use crate::tcp::{Counter, Cx, SeqNum};
use crate::time::Instant;

use super::{ConnError, State, Tcb};

/// What ICMP errors have said of the path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    /// The last error that nothing was acknowledged since.
    error: Option<PathError>,
    /// What a router has said last of the largest datagram.
    lowered: Option<Lowered>,
}

#[derive(Clone, Copy, Debug)]
struct Lowered {
    mtu: u16,
    since: Instant,
}

impl<B: PacketBuf> Tcb<B> {
    /// An ICMP error about a segment of this connection that began at `seq`.
    ///
    /// Counts `OutOfWindowIcmps`, and does nothing, if no such segment can be under way.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, seq: u32, report: Report) {
        if matches!(self.state, State::Closed | State::TimeWait) {
            return;
        }
        let seq = SeqNum::new(seq);
        if seq.before(self.snd_una) || seq.after(self.snd_nxt) {
            return cx.counters.bump(Counter::OutOfWindowIcmps);
        }
        match report {
            Report::Lost { error, .. } => self.asked_mut().path.error = Some(error),
            Report::TooBig { mtu } if mtu < self.path_mtu(cx.now) => {
                let lowered = Some(Lowered { mtu, since: cx.now });
                self.asked_mut().path = Path { error: Some(PathError::TooLong), lowered };
            }
            Report::TooBig { .. } => return,
        }
        // The next ACK goes the long way, on which it clears the error.
        self.predict();
    }

    /// Takes what was last said of the path, if nothing was acknowledged since: what SO_ERROR tells in Linux
    /// of a connection that goes on.
    pub fn take_path_error(&mut self) -> Option<PathError> {
        let error = self.asked.as_mut()?.path.error.take();
        self.predict();
        error
    }

    /// Bytes of the largest datagram that the path to the peer takes, as far as is known. What a router
    /// has said is forgotten after the setting `mtu_expires` (RFC 1191 §6.3).
    pub fn path_mtu(&self, now: Instant) -> u16 {
        // The link's is what our MSS was made of.
        let link = self.ack.advmss.saturating_add(self.options_room() + headers(self.family()));
        match self.asked.as_ref().and_then(|asked| asked.path.lowered) {
            Some(Lowered { mtu, since }) if now < since + self.limits.mtu_expires() => mtu,
            _ => link,
        }
    }

    /// The most payload of a segment of ours: what the path takes and the peer has allowed, the options
    /// that every segment carries deducted (RFC 9293 §3.7.1, RFC 6691). The MSS that we announce is
    /// another, and never changes.
    pub fn effective_mss(&self, now: Instant) -> u16 {
        let room = self.path_mtu(now).saturating_sub(headers(self.family()));
        room.min(self.snd_mss).max(LEAST_MSS) - self.options_room()
    }

    /// Whether there is an error that the next ACK makes forgotten.
    pub(super) fn has_path_error(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.path.error.is_some())
    }

    /// The peer has acknowledged something; whether that has made an error forgotten.
    pub(super) fn path_works(&mut self) -> bool {
        self.asked.as_mut().is_some_and(|asked| asked.path.error.take().is_some())
    }

    /// What a connection that has waited in vain ends by.
    pub(super) fn time_out(&self) -> ConnError {
        let error = self.asked.as_ref().and_then(|asked| asked.path.error);
        error.map_or(ConnError::TimedOut, ConnError::Path)
    }

    /// Bytes of the options that every segment carries.
    const fn options_room(&self) -> u16 {
        if self.ts.is_some() { TIMESTAMPS_ROOM } else { 0 }
    }
}
