//! The urgent pointer: where the mark is, and whether its byte has come.
//!
//! Fed by segments with URG before their payload is looked at. The byte stays in the stream; what
//! a reader does at the mark is the reader's business.

use crate::buf::PacketBuf;
use crate::tcp::{Cx, SeqNum};
use crate::wire::{Flags, Segment};

use super::Tcb;

/// An urgent mark that the reader has not passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Urgent {
    /// The sequence number of the urgent byte.
    pub mark: SeqNum,
    /// Whether that byte is in sequence.
    pub arrived: bool,
}

/// The mark that the reader has not passed, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UrgentState(Option<SeqNum>);

impl UrgentState {
    pub(super) const fn is_pending(&self) -> bool {
        self.0.is_some()
    }

    pub(super) const fn mark(&self) -> Option<SeqNum> {
        self.0
    }

    /// The reader has come to `copied_seq`; tells whether that ended the urgency.
    pub(super) fn pass(&mut self, copied_seq: SeqNum) -> bool {
        let passed = self.0.is_some_and(|mark| copied_seq.after(mark));
        if passed {
            self.0 = None;
        }
        passed
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// The urgent mark, until [`Self::reader_progress`] has told that it was passed.
    pub fn urgent(&self) -> Option<Urgent> {
        let mark = self.urgent.0?;
        Some(Urgent { mark, arrived: self.edge().after(mark) })
    }

    /// Takes notice of an urgent pointer (RFC 9293 §3.8.5), also at window zero (MUST-66).
    ///
    /// The pointer names the byte behind the urgent one, as in BSD, or the byte itself if
    /// tcp_stdurg is set. A mark that was passed, or is no newer than the one pending, is ignored.
    pub(super) fn on_urgent(&mut self, cx: &Cx<'_>, seg: &Segment) {
        if !seg.flags.has(Flags::URG) || self.wants.eof {
            return;
        }
        let back = u32::from(!cx.settings.tcp_stdurg && seg.urgent != 0);
        let mark = SeqNum::new(seg.seq).plus(u32::from(seg.urgent)).minus(back);
        let old =
            mark.before(self.rcv_nxt) || self.urgent.0.is_some_and(|pending| !mark.after(pending));
        if !old {
            self.urgent.0 = Some(mark);
            self.predict();
        }
    }
}
