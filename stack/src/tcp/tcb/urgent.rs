//! The urgent pointer: where the mark is, and whether its byte has come.
//!
//! Fed by segments with URG before their payload is looked at. The byte stays in the stream; what
//! a reader does at the mark is the reader's business. While a mark is pending nothing goes into the
//! sink: whoever then takes the receive queue can ask for the mark before it reads what is behind it.

use crate::buf::PacketBuf;
use crate::tcp::{Cx, SeqNum, SeqRange};
use crate::wire::{Flags, Segment};

use super::{Sink, Tcb, UNPREDICTABLE};

/// An urgent mark that the reader has not passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Urgent {
    /// The sequence number of the urgent byte.
    pub mark: SeqNum,
    /// Whether that byte is in sequence.
    pub arrived: bool,
    /// Bytes that were urgent, one after the other, until the next mark was announced: whoever stood
    /// there has them in the stream no more.
    pub replaced: Option<SeqRange>,
}

/// The mark that the reader has not passed, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UrgentState {
    mark: Option<SeqNum>,
    /// The first marks in a row whose place it has taken.
    replaced: Option<SeqRange>,
}

impl UrgentState {
    pub(super) const fn is_pending(&self) -> bool {
        self.mark.is_some()
    }

    pub(super) const fn mark(&self) -> Option<SeqNum> {
        self.mark
    }

    /// Puts the mark further, the reader having come to `copied_seq` as far as is known. A byte at
    /// `rcv_nxt` or behind was never there: once it comes it is as any other.
    fn announce(&mut self, mark: SeqNum, copied_seq: SeqNum, rcv_nxt: SeqNum) {
        if let Some(old) = self.mark.filter(|old| old.before(rcv_nxt)) {
            let unread = self.replaced.filter(|replaced| replaced.end.after(copied_seq));
            self.replaced = Some(match unread {
                Some(replaced) if replaced.end == old => SeqRange::new(replaced.start, old.plus(1)),
                Some(replaced) => replaced,
                None => SeqRange::new(old, old.plus(1)),
            });
        }
        self.mark = Some(mark);
    }

    /// The reader has come to `copied_seq`; tells whether that ended the urgency.
    pub(super) fn pass(&mut self, copied_seq: SeqNum) -> bool {
        let passed = self.mark.is_some_and(|mark| copied_seq.after(mark));
        if passed {
            *self = Self::default();
        }
        passed
    }
}

/// A sink that is closed while urgent data is pending.
#[derive(Debug)]
pub(super) struct Gate<'a, S> {
    pub(super) sink: &'a mut S,
    pub(super) is_open: bool,
}

impl<B, S: Sink<B>> Sink<B> for Gate<'_, S> {
    fn push(&mut self, buf: B) -> Result<(), B> {
        if self.is_open { self.sink.push(buf) } else { Err(buf) }
    }

    fn copies(&self) -> bool {
        self.is_open && self.sink.copies()
    }

    fn copy(&mut self, buf: &B) -> usize {
        self.sink.copy(buf)
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// The urgent mark, until [`Self::reader_progress`] has told that it was passed.
    pub fn urgent(&self) -> Option<Urgent> {
        // In the line that every visit has at hand: header prediction is off while a mark is pending.
        if self.prediction != UNPREDICTABLE {
            return None;
        }
        let UrgentState { mark, replaced } = self.urgent;
        mark.map(|mark| Urgent { mark, arrived: self.edge().after(mark), replaced })
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
        let old = mark.before(self.rcv_nxt) || self.urgent.mark.is_some_and(|at| !mark.after(at));
        if !old {
            self.urgent.announce(mark, self.copied_seen, self.rcv_nxt);
            self.predict();
        }
    }
}
