//! What a connection gives back when the pool runs out, though its own buffer is not full.
//!
//! The lcore asks the largest holders first. What is acknowledged is copied together into spare
//! buffers, never given up; what waits above holes is dropped in batches, highest first, and its
//! SACK blocks are forgotten. The work of a call is bounded by what it is allowed to copy, and by a
//! walk over the buffers that this takes.

use std::mem;

use crate::buf::{BufQueue, PacketBuf, Spare, extend};
use crate::tcp::{Counter, Cx, SeqNum, SeqRange};
use crate::wire::Segment;

use super::{Owed, State, Tcb, Verdict};

/// What was won for the pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Won {
    /// Buffers given back to the pool.
    pub buffers: u32,
    /// Truesize by which the connection is charged less.
    pub truesize: u32,
    /// Bytes copied for it.
    pub copied: usize,
}

impl Won {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            buffers: self.buffers + other.buffers,
            truesize: self.truesize + other.truesize,
            copied: self.copied + other.copied,
        }
    }
}

/// Where a connection's buffers are, as far as it knows itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Queues {
    /// Buffers in the receive queue.
    pub receive_queue: usize,
    /// Buffers above holes.
    pub out_of_order: usize,
    /// In-sequence bytes that are not read, and not in the receive queue: readers have them, or
    /// find them in the ring.
    pub with_readers: u32,
}

impl<B: PacketBuf> Tcb<B> {
    /// A segment with payload for which the pool has no room: all that it says counts, but its payload
    /// and FIN are as if they had not come.
    ///
    /// What was the next in order is answered at once with a window of zero, as Linux does where memory is
    /// refused: a peer that knows stops and probes, where one that is told nothing repeats what it sent.
    #[cold]
    pub fn refuse(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Verdict {
        self.tally.data(1);
        if matches!(self.state, State::Closed | State::TimeWait) {
            return Verdict::Later;
        }
        let verdict = match self.admit_text(cx, seg) {
            Ok(()) => self.refuse_text(cx, seg),
            Err(verdict) => verdict,
        };
        self.check();
        verdict
    }

    /// The five cases, none of which takes anything.
    fn refuse_text(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Verdict {
        let (seq, end) = (SeqNum::new(seg.seq), SeqNum::new(seg.end_seq()));
        let open = self.window.open(self.rcv_nxt);
        self.forget_late_dsack();
        if end.at_or_before(self.rcv_nxt) {
            self.tally.dropped();
            return self.on_duplicate(cx, SeqRange::new(seq, end));
        }
        if seq.after(self.rcv_nxt) && seq.before(self.rcv_nxt.plus(open)) {
            self.drop_segment(cx, Counter::TCPOFODrop);
            return Verdict::Later;
        }
        if seq.after(self.rcv_nxt) {
            self.tally.dropped();
            self.ack.enter_quick(&self.window);
            return self.answer(None);
        }
        let is_probe = open == 0;
        let reason = if is_probe { Counter::TCPZeroWindowDrop } else { Counter::TCPRcvQDrop };
        self.drop_segment(cx, reason);
        self.ack.owe(Owed::NOW.with(Owed::NO_MEMORY));
        Verdict::Later
    }

    /// Copies what is in the receive queue together, `most` bytes and a buffer's worth at most.
    pub fn compact(&mut self, cx: &mut Cx<'_>, spare: &mut impl Spare<B>, most: usize) -> Won {
        let mut queue = mem::take(&mut self.receive);
        let won = self.compact_lent(cx, &mut queue, spare, most);
        self.receive = queue;
        self.check();
        won
    }

    /// The same for in-sequence buffers of this connection that readers have taken and not read.
    pub fn compact_lent(
        &mut self,
        cx: &mut Cx<'_>,
        queue: &mut B::Queue,
        spare: &mut impl Spare<B>,
        most: usize,
    ) -> Won {
        let won = compact(queue, spare, most);
        cx.counters.add(Counter::TCPRcvCollapsed, won.buffers.into());
        self.window.uncharge(won.truesize);
        won
    }

    /// Drops an eighth of the buffer's worth of what waits above holes, highest first.
    ///
    /// Nothing of it is acknowledged but by SACK blocks, which are forgotten (RFC 2018 §8): the peer
    /// sends it again.
    pub fn prune(&mut self, cx: &mut Cx<'_>) -> Won {
        if self.ofo.is_empty() {
            return Won::default();
        }
        cx.counters.bump(Counter::PruneCalled);
        let pruned = self.ofo.prune((self.window.rcvbuf / 8).max(1), self.rcv_nxt);
        if pruned.segments > 0 {
            cx.counters.bump(Counter::OfoPruned);
            self.window.uncharge(pruned.freed);
            self.sack.clear();
            self.predict();
        }
        self.check();
        Won { buffers: pruned.segments, truesize: pruned.freed, copied: 0 }
    }

    /// Notes that the pool is running out: readers are to take what there is, and the peer is
    /// offered two segments more than that at most, once the window moves again.
    pub fn squeeze(&mut self) {
        self.window.squeeze();
        self.window.tighten(self.ack.advmss.into());
    }

    /// Whether the pool was running out, and nothing has come back since.
    pub const fn is_squeezed(&self) -> bool {
        self.window.is_squeezed()
    }

    /// Where the buffers are, in a time that does not depend on their number.
    pub fn queues(&self, copied_seq: SeqNum) -> Queues {
        let queued_from = self.receive.front().map_or(self.edge(), |buf| SeqNum::new(buf.cb().seq));
        let ahead = queued_from.offset_from(copied_seq);
        Queues {
            receive_queue: self.receive.len(),
            out_of_order: self.ofo.len(),
            with_readers: ahead.max(0) as u32,
        }
    }
}

/// Copies runs of buffers into spare ones where that costs less truesize than it wins.
fn compact<B: PacketBuf>(queue: &mut B::Queue, spare: &mut impl Spare<B>, most: usize) -> Won {
    let mut won = Won::default();
    let mut cost = 0;
    let mut rest = mem::take(queue);
    // Buffers that were looked at together, and are to stay as they are.
    let mut stay = 0;
    while let Some(buf) = rest.pop_front() {
        if stay > 0 || spare.is_from_here(&buf) {
            stay -= u32::from(stay > 0);
            queue.push_back(buf);
            continue;
        }
        if queue.back().is_some_and(|back| spare.is_from_here(back))
            && queue.extend_back(buf.data(), buf.cb().fin)
        {
            won.take(&buf);
            continue;
        }
        if won.copied >= most {
            queue.push_back(buf);
            break;
        }
        let (mut len, mut truesize, mut others) = (buf.len(), buf.truesize(), 0);
        for next in rest.iter() {
            if len + next.len() > spare.largest() || spare.is_from_here(next) {
                break;
            }
            len += next.len();
            truesize = truesize.saturating_add(next.truesize());
            others += 1;
        }
        let better = spare.take(len).filter(|better| better.truesize() < truesize);
        let filled = |mut better: B| extend(&mut better, buf.data(), false).then_some(better);
        match better.and_then(filled) {
            Some(mut better) => {
                *better.cb_mut() = *buf.cb();
                cost += better.truesize();
                queue.push_back(better);
                won.take(&buf);
            }
            None => {
                stay = others;
                queue.push_back(buf);
            }
        }
    }
    queue.append(&mut rest);
    debug_assert!(cost <= won.truesize, "copying has cost more than it has won");
    won.truesize = won.truesize.saturating_sub(cost);
    won
}

impl Won {
    /// The buffer was copied, and goes back.
    fn take<B: PacketBuf>(&mut self, buf: &B) {
        self.buffers += 1;
        self.truesize += buf.truesize();
        self.copied += buf.len();
    }
}
