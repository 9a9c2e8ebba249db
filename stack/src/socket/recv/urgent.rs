//! Urgent data from the reader's side: reads end before the mark, the byte is skipped or read alone.
//!
//! Run by threads that read, under the reader token. What is at or behind a mark never goes through
//! the ring, so that whoever takes the receive queue learns of the mark before it meets the byte;
//! reading without urgent data looks at nothing here but an option that is empty. The connection
//! itself is only looked at, under the owner word.

use crate::buf::{BufQueue, PacketBuf};
use crate::tcp::tcb::Urgent;
use crate::tcp::{SeqNum, SeqRange};

use super::super::park::{Status, UrgentWord};
use super::call::Call;
use super::{ReaderSide, RecvError, Source, Step};

/// The urgent mark as the holder of the reader token knows it.
#[derive(Debug)]
pub(in crate::socket) struct Urgency {
    pending: Option<Urgent>,
    /// What was published when the connection was last looked at: anything else is news.
    seen: UrgentWord,
    /// copied_seq at the beginning of the step: where the reader stood while it did nothing.
    stood: SeqNum,
    /// So many bytes at copied_seq were urgent until others took their place.
    skip_old: u32,
}

impl Urgency {
    pub(super) fn new(copied_seq: SeqNum) -> Self {
        Self { pending: None, seen: UrgentWord::default(), stood: copied_seq, skip_old: 0 }
    }

    /// Learns where the mark is: `urgent` as the connection has it.
    ///
    /// Who stands exactly at a mark when the next one is announced does not find the old byte in the
    /// stream any more, as in BSD and Linux.
    pub(in crate::socket) fn learn(&mut self, urgent: Option<Urgent>, copied_seq: SeqNum) {
        let word = UrgentWord::of(urgent);
        self.pending = urgent.filter(|urgent| urgent.mark.at_or_after(copied_seq));
        if let Some(urgent) = self.pending
            && self.seen.mark() != Some(urgent.mark)
        {
            // It stands where it did when it last looked; what was replaced before does not count.
            let since = self.seen.mark();
            let stands = |old: &SeqRange| {
                copied_seq == self.stood
                    && copied_seq.at_or_after(old.start)
                    && copied_seq.before(old.end)
                    && since.is_none_or(|since| copied_seq.at_or_after(since))
            };
            let old = urgent.replaced.filter(stands);
            self.skip_old = old.map_or(0, |old| old.end.since(copied_seq));
        }
        self.seen = word;
    }

    /// A step begins.
    #[inline]
    pub(super) fn begin(&mut self, copied_seq: SeqNum) {
        self.stood = copied_seq;
    }

    #[inline]
    pub(in crate::socket) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the mark is here.
    pub(super) fn is_at(&self, seq: SeqNum) -> bool {
        self.pending.is_some_and(|urgent| urgent.mark == seq)
    }

    pub(super) fn seen(&self) -> UrgentWord {
        self.seen
    }
}

impl<B: PacketBuf> ReaderSide<B> {
    /// Takes one byte from the front, which is not in the ring.
    fn skip_byte(&mut self) -> Option<B> {
        self.copied_seq = self.copied_seq.plus(1);
        match self.taken.front()?.len() {
            1 => self.taken.pop_front(),
            _ => {
                self.taken.trim_front(1);
                None
            }
        }
    }

    /// The byte with this number, if it is on the taken list.
    fn byte_at(&self, seq: SeqNum) -> Option<u8> {
        let mut at = seq.since(self.copied_seq) as usize;
        for buf in self.taken.iter() {
            match buf.data().get(at) {
                Some(byte) => return Some(*byte),
                None => at -= buf.len(),
            }
        }
        None
    }
}

impl<B: PacketBuf, S: Source<B> + ?Sized> ReadUrgent<B> for S {}

/// How any source of a call's bytes deals with the mark.
pub(super) trait ReadUrgent<B: PacketBuf>: Source<B> {
    /// Ends the call at the mark, or sets where it ends for now. With a mark pending only.
    #[cold]
    #[inline(never)]
    fn mind_mark(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) -> Option<Step> {
        if side.urgency.seen != self.urgent()
            && let Err(error) = self.take_everything(side)
        {
            return Some(call.break_off(error));
        }
        let offset = if call.is_peek() { call.offset } else { 0 };
        let inline = self.options().is_urgent_inline();
        self.skip_old(side, inline);
        let start = side.copied_seq.plus(offset);
        call.most = call.len;
        call.skip = offset;
        let urgent = side.urgency.pending?;
        if urgent.mark.after(start) {
            // A look starts again from where it did; a read goes on from where it is.
            let done = if call.is_peek() { 0 } else { call.copied };
            call.most = call.len.min(done + urgent.mark.since(start) as usize);
            return None;
        }
        if urgent.mark.before(start) {
            if urgent.mark.before(side.copied_seq) {
                side.urgency.pending = None;
            }
            return None;
        }
        if call.is_peek() {
            call.skip += u32::from(!inline);
            return None;
        }
        if call.copied > 0 {
            return Some(Step::Done(call.copied));
        }
        // A call that takes nothing does not pass over anything either.
        if !inline && call.len != 0 && self.has_byte_in_front(side) {
            side.urgency.pending = None;
            self.skip(side);
        }
        None
    }

    /// Passes over what was urgent where the reader stood when the next mark was announced.
    fn skip_old(&self, side: &mut ReaderSide<B>, inline: bool) {
        for _ in 0..std::mem::take(&mut side.urgency.skip_old) {
            if !inline && self.has_byte_in_front(side) {
                self.skip(side);
            }
        }
    }

    fn skip(&self, side: &mut ReaderSide<B>) {
        if let Some(spent) = side.skip_byte() {
            self.give_back(side, spent);
        }
    }

    /// Whether the byte at copied_seq is there. With a mark at it, it is not in the ring.
    fn has_byte_in_front(&self, side: &mut ReaderSide<B>) -> bool {
        if side.taken.is_empty() && self.status().has(Status::QUEUED) {
            // Fails under this thread's own guard alone, of which the call will hear soon enough.
            let _ = self.take_everything(side);
        }
        !side.taken.is_empty()
    }

    /// recv with MSG_OOB: the urgent byte, wherever it is in what was received. It stays in its place,
    /// where reads will skip it.
    fn recv_urgent(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) -> Step {
        if let Err(error) = self.take_everything(side) {
            return Step::Failed(error);
        }
        let inline = self.options().is_urgent_inline();
        self.skip_old(side, inline);
        let status = self.status();
        if status.has(Status::DEAD) {
            return Step::Failed(RecvError::Dead);
        }
        let unread = side.urgency.pending.filter(|urgent| !self.urgent_read().is(urgent.mark));
        let Some(urgent) = unread.filter(|_| !inline) else {
            return Step::Failed(RecvError::NoUrgentByte);
        };
        if status.has(Status::CLOSED) && !status.has(Status::EOF) {
            return Step::Failed(RecvError::NotConnected);
        }
        let Some(byte) = side.byte_at(urgent.mark) else {
            let over = status.ends_waiting();
            return if over { Step::Done(0) } else { Step::Failed(RecvError::WouldBlock) };
        };
        if !call.is_peek() {
            self.urgent_read().set(urgent.mark);
        }
        Step::Done(call.take(&[byte]))
    }
}
