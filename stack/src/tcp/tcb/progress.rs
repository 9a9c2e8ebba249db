//! What becomes due by reading: the ACK that waited for it, the update of a window that can open.
//!
//! Asked by the lcore with what the reader has published, or when buffers came back; and before it leaves a
//! socket, for the place in the stream at which the reader is to ring. It never looks at the reader itself.

use crate::buf::PacketBuf;
use crate::tcp::{Cx, SeqNum};
use crate::wire::Outgoing;

use super::{Owed, Tcb};

impl<B: PacketBuf> Tcb<B> {
    /// The application has read up to `copied_seq`, or its buffers have come back: the ACK that
    /// waited for that, or the window update that is worth sending (RFC 9293 §3.8.6.2.2).
    pub fn reader_progress(&mut self, cx: &mut Cx<'_>, copied_seq: SeqNum) -> Option<Outgoing> {
        let freed = self.window.take_freed();
        let read = copied_seq.after(self.copied_seen);
        if read {
            self.copied_seen = copied_seq.min(self.edge());
            if self.urgent.pass(self.copied_seen) {
                self.predict();
            }
        }
        self.adjust_space(cx);
        let progress = read || freed;
        if !progress {
            return None;
        }
        if self.is_ack_due_on_read(read) {
            return Some(self.outgoing_ack(cx));
        }
        self.update_due().map(|target| self.outgoing_ack_with(cx, target))
    }

    fn is_ack_due_on_read(&self, read: bool) -> bool {
        let owed = self.ack.owed;
        let small = owed.has(Owed::PUSHED_AGAIN) || (owed.has(Owed::PUSHED) && !self.ack.pingpong);
        owed.has(Owed::ACK)
            && (self.rcv_nxt.since(self.window.wup) > u32::from(self.ack.rcv_mss)
                || (read && small && self.copied_seen == self.edge()))
    }

    /// The window to tell of if it can be at least doubled. It is not worth telling when nothing more will
    /// be received, or when more than half of the most is open anyway.
    fn update_due(&mut self) -> Option<u32> {
        if !self.is_receiving() || !self.window.may_double(self.rcv_nxt, self.rcv_mss()) {
            return None;
        }
        let open = self.window.open(self.rcv_nxt);
        let target = self.window_target();
        (target != 0 && target / 2 >= open).then_some(target)
    }

    /// Whether [`Self::reader_progress`] may have something to send when buffers come back, though
    /// the reader is no further: the window waits for memory, or the limit is near.
    ///
    /// Changes only with a segment taken, an ACK sent, or memory that came back. Where it does not
    /// hold, what came back can be uncharged with the next segment.
    pub fn wants_memory(&self) -> bool {
        let ack_waits = self.ack.owed.has(Owed::ACK)
            && self.rcv_nxt.since(self.window.wup) > u32::from(self.ack.rcv_mss);
        ack_waits
            || (self.is_receiving() && self.window.may_double(self.rcv_nxt, self.rcv_mss()))
            || self.over_seven_eighths()
    }

    /// The copied_seq from which on [`Self::reader_progress`] may have something to send; `None`
    /// while nothing can be owed.
    ///
    /// Changes only with a segment taken, an ACK sent, or memory that came back. A reader that
    /// calls earlier costs time, one that calls later an update: it is an estimate on the early
    /// side, and buffers that come back are looked at in any case.
    pub fn notify_at(&self) -> Option<SeqNum> {
        let edge = self.edge();
        let mut at = None;
        let mut earlier = |seq: SeqNum| at = Some(at.map_or(seq, |at: SeqNum| at.min(seq)));
        // An ACK may wait for the reader behind the FIN as well.
        if self.ack.owed.has(Owed::ACK) {
            if self.rcv_nxt.since(self.window.wup) > u32::from(self.ack.rcv_mss) {
                earlier(self.copied_seen.plus(1));
            } else if self.ack.owed.has(Owed::PUSHED.with(Owed::PUSHED_AGAIN)) {
                earlier(edge);
            }
        }
        if self.is_receiving() {
            // Once it is behind the reader the next segment sees to it: it must not hide what is owed.
            if let Some(seq) = self.space_outgrown_at().filter(|seq| seq.after(self.copied_seen)) {
                earlier(seq);
            }
            if let Some(mark) = self.urgent.mark() {
                earlier(mark.plus(1));
            }
            if self.window.may_double(self.rcv_nxt, self.rcv_mss()) && self.window.rmem > 0 {
                let open = self.window.open(self.rcv_nxt);
                earlier(self.copied_seen.plus(self.bytes_until_update(open)).min(edge));
            }
        }
        at.filter(|at| at.after(self.copied_seen))
    }

    /// Bytes to be read, at the average filling of what is charged, until the window can double.
    fn bytes_until_update(&self, open: u32) -> u32 {
        let least = self.window.clamp >> 4;
        let wanted = self.window.space_of((2 * open).max(least).max(self.rcv_mss()));
        let rmem = u64::from(self.window.rmem);
        let free = u64::from(self.window.rcvbuf).saturating_sub(rmem);
        let unread = u64::from(self.edge().since(self.copied_seen));
        let bytes = wanted.saturating_sub(free).min(rmem) * unread / rmem.max(1);
        u32::try_from(bytes).unwrap_or(u32::MAX / 2).max(1)
    }

    /// Whether more data can come that the application would read.
    const fn is_receiving(&self) -> bool {
        use super::State::{Established, FinWait1, FinWait2};
        matches!(self.state, Established | FinWait1 | FinWait2)
            && !self.wants.eof
            && !self.wants.read_shut
    }
}
