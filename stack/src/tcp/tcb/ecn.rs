//! Explicit congestion notification as a receiver has it (RFC 3168 §6.1.3): marks are echoed until the
//! sender says that it has slowed down.
//!
//! Asked for every segment of a connection that has agreed on it, and for none of another. It sends
//! nothing by itself: [`Ecn::echo`] goes into the flags of whatever is sent.

use crate::buf::PacketBuf;
use crate::wire::{Flags, Segment};

use super::{Owed, Tcb, Verdict};

/// The IP header's ECN field of a packet that was marked instead of dropped.
const CE: u8 = 3;
/// The field of a packet whose sender does not take part.
const NOT_ECT: u8 = 0;

/// ACKs that a mark has sent at once: the sender's window may have become that small.
const QUICK_ACKS: u32 = 2;

/// What is known of marks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Ecn(u8);

impl Ecn {
    /// Both sides have agreed.
    const ON: u8 = 1;
    /// Payload came whose sender takes part.
    const SEEN: u8 = 2;
    /// A mark came, and nothing since that answers its echo.
    const ECHO: u8 = 4;

    pub(super) const fn new(agreed: bool) -> Self {
        Self(if agreed { Self::ON } else { 0 })
    }

    /// Whether it was agreed on.
    #[inline(always)]
    pub(super) const fn is_on(self) -> bool {
        self.0 & Self::ON != 0
    }

    /// Whether payload came with the field set.
    pub(super) const fn is_seen(self) -> bool {
        self.0 & Self::SEEN != 0
    }

    /// Whether payload with this field teaches nothing: none is looked at, or it only says again that the
    /// sender takes part.
    #[inline]
    pub(super) const fn expects(self, field: u8) -> bool {
        !self.is_on() || (self.is_seen() && field != CE && field != NOT_ECT)
    }

    /// What every segment carries until the sender answers: ECE, or nothing.
    pub(super) const fn echo(self) -> Flags {
        if self.0 & Self::ECHO == 0 { Flags(0) } else { Flags::ECE }
    }

    /// The sender has slowed down.
    const fn answered(&mut self) {
        self.0 &= !Self::ECHO;
    }

    /// Payload with this field was taken; whether ACKs are to go at once for a while. That is so for
    /// the first mark, and for payload without the field after some with it: it was probably sent again.
    const fn takes(&mut self, field: u8) -> bool {
        let before = self.0;
        match field {
            NOT_ECT => return self.is_seen(),
            CE => self.0 |= Self::SEEN | Self::ECHO,
            _ => self.0 |= Self::SEEN,
        }
        self.0 & !before & Self::ECHO != 0
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// Has a segment with payload or FIN taken, and minds its marks. Those of what is dropped do not
    /// count.
    pub(super) fn minding_marks(
        &mut self,
        seg: &Segment,
        take: impl FnOnce(&mut Self) -> Verdict,
    ) -> Verdict {
        if seg.flags.has(Flags::CWR) {
            self.ack.owe(Owed::NOW);
        }
        let before = (self.rcv_nxt, self.tally.out_of_order);
        let verdict = take(self);
        if seg.len > 0 && before != (self.rcv_nxt, self.tally.out_of_order) {
            let pingpong = self.ack.pingpong;
            self.note_mark(seg.ecn);
            // The FIN behind the marked payload has the last word: our own may carry the ACK.
            self.ack.pingpong |= pingpong && self.wants.eof;
        }
        verdict
    }

    /// CWR answers the echo with or without payload (RFC 3168 §6.1.3), and whether the payload is taken or
    /// not. Who sends some with so small a window hears of it at once: by an ACK that waits, or the
    /// next that is owed.
    ///
    /// Before the mark of the same segment, which is newer than what it answers.
    pub(super) fn on_cwr(&mut self, seg: &Segment) {
        if self.ecn.is_on() && seg.flags.has(Flags::CWR) {
            self.ecn.answered();
            if seg.len > 0 || seg.flags.has(Flags::FIN) {
                self.ack.hasten();
            }
        }
    }

    /// Payload with this ECN field was taken.
    pub(super) fn note_mark(&mut self, field: u8) {
        if self.ecn.takes(field) {
            self.ack.quicken(&self.window, QUICK_ACKS);
        }
    }
}
