//! The out-of-order queue: segments above a hole, one by one in order of sequence.
//!
//! The connection's state machine inserts what arrives beyond rcv_nxt and takes out what a filled
//! hole has made in sequence, on its lcore. The queue trims and drops buffers and says which
//! duplicate to report, but never decides what is acknowledged; whatever a peer sends, an arrival
//! costs O(log n) in what is queued, removals being paid by the arrival of what they remove.

mod segments;

use std::mem;
use std::ops::ControlFlow;

use segments::{Place, Segments, Slot};

use super::sack::note_duplicate;
use super::{SeqNum, SeqRange};
use crate::buf::PacketBuf;

/// Segments held at most.
///
/// Memory is charged by truesize, so this is no memory limit: it takes a receive buffer of some
/// 9 MiB to hold as many mbufs. It bounds the work of an arrival, and the time it takes to give
/// everything back, where an operator has set a far larger buffer.
pub const MAX_SEGMENTS: usize = 4096;

/// Payloads of up to this many bytes are copied behind their predecessor if it has the room.
///
/// A small segment pins a whole data room of 2 KiB; copying 256 bytes costs less than the cache
/// miss on that room's header later.
pub const COPY_LIMIT: usize = 256;

/// The out-of-order queue of one connection.
///
/// Every segment starts after rcv_nxt, starts and ends both rise strictly, so none lies within
/// another. A queue that was never needed is one null pointer. The first segment behind the first hole
/// allocates the place for itself and the next few, which is kept for the next hole.
#[derive(Debug)]
pub struct OutOfOrder<B>(Option<Box<Queue<B>>>);

#[derive(Debug)]
struct Queue<B> {
    segments: Segments<B>,
    /// The number behind the highest segment, if there is one.
    end: SeqNum,
    truesize: u32,
}

/// What became of an arrival.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is held as a segment of its own.
    Queued,
    /// It was copied behind the segment that ends where it starts (`TCPRcvCoalesce`).
    Merged,
    /// A single segment held all of it already; it was dropped.
    Duplicate,
    /// [`MAX_SEGMENTS`] are held; it was dropped (`TCPOFODrop`) and must not be reported as held.
    Full,
}

/// The result of [`OutOfOrder::insert`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Inserted {
    /// What became of the segment.
    pub outcome: Outcome,
    /// The segment's numbers, FIN included: to be noted in the SACK list unless it was dropped as
    /// [`Outcome::Full`].
    pub range: SeqRange,
    /// The numbers that were held before, to be reported once (RFC 2883).
    pub dsack: Option<SeqRange>,
    /// Truesize of the buffers that were dropped, the arriving one included if it was.
    pub freed: u32,
    /// Segments dropped because another holds all of their numbers (`TCPOFOMerge`).
    pub merged: u32,
}

impl Inserted {
    const fn stored(range: SeqRange) -> Self {
        Self { outcome: Outcome::Queued, range, dsack: None, freed: 0, merged: 0 }
    }
}

/// A walk along the queue after rcv_nxt has advanced, by [`OutOfOrder::drain_ready`]: make one with the
/// new rcv_nxt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Walk {
    began_at: SeqNum,
    /// The duplicate to be reported: what was noted before the walk, grown by the numbers that
    /// the queue held below the rcv_nxt that began the walk.
    pub dsack: Option<SeqRange>,
    /// Truesize of the segments that were dropped because all of their numbers are below rcv_nxt.
    pub freed: u32,
}

impl Walk {
    /// A walk from `rcv_nxt`, with the duplicate noted for the segment that advanced it.
    pub const fn new(rcv_nxt: SeqNum, dsack: Option<SeqRange>) -> Self {
        Self { began_at: rcv_nxt, dsack, freed: 0 }
    }
}

/// The result of [`OutOfOrder::prune`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    /// Truesize given back.
    pub freed: u32,
    /// Segments dropped.
    pub segments: u32,
}

impl<B: PacketBuf> OutOfOrder<B> {
    /// A queue that holds nothing, and takes no memory.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Segments held.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.segments.len())
    }

    /// Whether nothing is held.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        match &self.0 {
            Some(queue) => queue.segments.is_empty(),
            None => true,
        }
    }

    /// Sum of the truesizes held.
    pub fn truesize(&self) -> u32 {
        self.0.as_ref().map_or(0, |queue| queue.truesize)
    }

    /// The number behind the highest segment.
    pub fn end(&self) -> Option<SeqNum> {
        self.0.as_ref().filter(|queue| !queue.segments.is_empty()).map(|queue| queue.end)
    }

    /// The segments held, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.0.iter().flat_map(|queue| queue.segments.iter()).map(|slot| &slot.buf)
    }

    /// Queues a segment: the buffer's bytes from `cb().seq` on, and its FIN.
    ///
    /// It must start after rcv_nxt and inside the window. Where copies of a byte differ, the
    /// segment with the smaller start wins, of equal starts the longer, of equals the older, as in
    /// Linux: an observer on the way can know what the application will read.
    pub fn insert(&mut self, buf: B) -> Inserted {
        let range = numbers_of(&buf);
        if range.is_empty() {
            let (outcome, freed) = (Outcome::Duplicate, buf.truesize());
            return Inserted { outcome, freed, ..Inserted::stored(range) };
        }
        self.0.get_or_insert_with(|| Box::new(Queue::new())).insert(buf, range)
    }

    /// What [`Self::insert`] does with most arrivals, which belong behind all others: nothing to search,
    /// nothing overlaps, the segment is held as one of its own. One for which that does not hold, or that
    /// might be copied, comes back to be inserted.
    #[inline(always)] // into the one place where there is one buffer
    pub fn push(&mut self, buf: B) -> Result<SeqRange, B> {
        let range = numbers_of(&buf);
        match &mut self.0 {
            Some(queue)
                if buf.len() > COPY_LIMIT
                    && queue.segments.len() < MAX_SEGMENTS
                    && (queue.segments.is_empty() || queue.end.at_or_before(range.start)) =>
            {
                queue.push_back(buf, range);
                Ok(range)
            }
            _ => Err(buf),
        }
    }

    /// Takes segments that stand one right behind the other, the first at `next`, for as long as they are
    /// too large to be copied and none has a FIN: as they are, they are the next of the stream. `next` is
    /// moved behind them.
    #[inline(always)] // into the one place where a hole is filled
    pub fn take_run<'a>(&'a mut self, next: &'a mut SeqNum) -> impl Iterator<Item = B> {
        Run { queue: self.0.as_deref_mut(), next }
    }

    /// Takes the segments that `rcv_nxt` has reached, lowest first, and gives them to `take`, each cut so
    /// that it starts there; its FIN may be all that is left. `take` returns the new rcv_nxt, or ends it.
    /// Segments wholly below are dropped on the way.
    ///
    /// After a segment with FIN nothing more belongs to the stream: [`Self::clear`] is due.
    #[inline(always)] // into the one place where a hole is filled
    pub fn drain_ready(
        &mut self,
        walk: &mut Walk,
        rcv_nxt: SeqNum,
        take: impl FnMut(B) -> ControlFlow<(), SeqNum>,
    ) {
        if let Some(queue) = &mut self.0 {
            queue.drain_ready(walk, rcv_nxt, take);
        }
    }

    /// Drops segments from the highest downwards until at least `at_least` of truesize is given
    /// back, but none that starts before `keep_up_to`: what is needed first goes last.
    ///
    /// The SACK list must be cleared if anything was dropped (RFC 2018 §8).
    pub fn prune(&mut self, at_least: u32, keep_up_to: SeqNum) -> Pruned {
        let mut pruned = Pruned::default();
        while pruned.freed < at_least
            && let Some(queue) = &mut self.0
            && let Some(slot) = queue.pop_last_from(keep_up_to)
        {
            pruned.freed += slot.buf.truesize();
            pruned.segments += 1;
        }
        pruned
    }

    /// Drops everything and tells its truesize.
    pub fn clear(&mut self) -> u32 {
        self.0.take().map_or(0, |queue| queue.truesize)
    }

    /// Gives everything up, lowest first.
    pub fn take_all(&mut self) -> impl Iterator<Item = B> + use<B> {
        self.0.take().into_iter().flat_map(|queue| queue.segments.into_buffers())
    }
}

/// See [`OutOfOrder::take_run`].
struct Run<'a, B> {
    queue: Option<&'a mut Queue<B>>,
    next: &'a mut SeqNum,
}

impl<B: PacketBuf> Iterator for Run<'_, B> {
    type Item = B;

    #[inline(always)]
    fn next(&mut self) -> Option<B> {
        let queue = self.queue.as_deref_mut()?;
        let next = *self.next;
        let follows = |Slot { range, buf }: &Slot<B>| {
            range.start == next && buf.len() > COPY_LIMIT && !buf.cb().fin
        };
        let Slot { range, buf } = queue.segments.pop_first_if(follows)?;
        *self.next = range.end;
        queue.truesize -= buf.truesize();
        Some(buf)
    }
}

impl<B: PacketBuf> Default for OutOfOrder<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: PacketBuf> Queue<B> {
    fn new() -> Self {
        Self { segments: Segments::new(), end: SeqNum::default(), truesize: 0 }
    }

    fn insert(&mut self, buf: B, range: SeqRange) -> Inserted {
        let stored = Inserted::stored(range);
        let buf = match self.segments.last_mut() {
            // Some segment reaches beyond the start of this one.
            Some(last) if range.start.before(last.range.end) => {
                let inserted = self.insert_among(buf, stored);
                self.end = self.segments.last().map_or(range.end, |last| last.range.end);
                return inserted;
            }
            Some(last) if range.start == last.range.end => match take_small(last, buf, range) {
                Ok(freed) => {
                    self.end = range.end;
                    return Inserted { outcome: Outcome::Merged, freed, ..stored };
                }
                Err(buf) => buf,
            },
            Some(_) | None => buf,
        };
        self.store(None, buf, stored)
    }

    /// Queues a segment that starts before the end of the last one.
    fn insert_among(&mut self, buf: B, mut result: Inserted) -> Inserted {
        let range = result.range;
        let place = self.segments.place_behind(range.start);
        // Of all segments that start at or before this one, the last also reaches farthest.
        let unplaced = match self.segments.before(place).map(|before| (before.range, before)) {
            Some((held, _)) if range.end.at_or_before(held.end) => {
                let (outcome, freed) = (Outcome::Duplicate, buf.truesize());
                return Inserted { outcome, dsack: Some(range), freed, merged: 1, ..result };
            }
            Some((held, before)) if range.start == held.start => {
                self.truesize += buf.truesize();
                let covered = mem::replace(before, Slot { range, buf });
                self.count_covered(&covered, &mut result);
                None
            }
            Some((held, _)) if range.start.before(held.end) => {
                result.dsack = Some(SeqRange::new(range.start, held.end));
                Some(buf)
            }
            Some((held, before)) if range.start == held.end => {
                match take_small(before, buf, range) {
                    Ok(freed) => {
                        result = Inserted { outcome: Outcome::Merged, freed, ..result };
                        None
                    }
                    Err(buf) => Some(buf),
                }
            }
            Some(_) | None => Some(buf),
        };

        while let Some(next) = self.segments.after(place).map(|slot| slot.range)
            && next.start.before(range.end)
        {
            if next.end.after(range.end) {
                note_duplicate(&mut result.dsack, SeqRange::new(next.start, range.end));
                break;
            }
            if let Some(covered) = self.segments.remove_after(place) {
                self.count_covered(&covered, &mut result);
            }
        }

        if let Some(buf) = unplaced {
            result = self.store(Some(place), buf, result);
        }
        if result.merged > 0 {
            self.segments.tidy(place);
        }
        result
    }

    /// Makes the arrival a segment of its own, at `place` or behind all others.
    fn store(&mut self, place: Option<Place>, buf: B, result: Inserted) -> Inserted {
        let truesize = buf.truesize();
        if self.segments.len() >= MAX_SEGMENTS {
            // Nothing was dropped for it, or there would be room.
            return Inserted { outcome: Outcome::Full, dsack: None, freed: truesize, ..result };
        }
        match place {
            Some(place) => {
                self.truesize += truesize;
                self.segments.insert(place, Slot { range: result.range, buf });
            }
            None => self.push_back(buf, result.range),
        }
        result
    }

    #[inline(always)]
    fn push_back(&mut self, buf: B, range: SeqRange) {
        self.truesize += buf.truesize();
        self.end = range.end;
        self.segments.push_back(Slot { range, buf });
    }

    /// Accounts for a segment that goes because the arriving one holds all of its numbers.
    fn count_covered(&mut self, covered: &Slot<B>, result: &mut Inserted) {
        let truesize = covered.buf.truesize();
        self.truesize -= truesize;
        result.freed += truesize;
        result.merged += 1;
        note_duplicate(&mut result.dsack, covered.range);
    }

    #[inline(always)]
    fn drain_ready(
        &mut self,
        walk: &mut Walk,
        mut rcv_nxt: SeqNum,
        mut take: impl FnMut(B) -> ControlFlow<(), SeqNum>,
    ) {
        loop {
            let is_due = |slot: &Slot<B>| !slot.range.start.after(rcv_nxt);
            let Some(Slot { range, mut buf }) = self.segments.pop_first_if(is_due) else { return };
            self.truesize -= buf.truesize();
            if range.start.before(walk.began_at) {
                // What overlaps beyond that point was reported when it was queued.
                let end = range.end.min(walk.began_at);
                note_duplicate(&mut walk.dsack, SeqRange::new(range.start, end));
            }
            if range.end.at_or_before(rcv_nxt) {
                walk.freed += buf.truesize();
                continue;
            }
            // At most all bytes: what ends after rcv_nxt has a byte or its FIN left.
            let old = rcv_nxt.since(range.start) as usize;
            if old > 0 {
                buf.trim_front(old);
                buf.cb_mut().seq = rcv_nxt.raw();
            }
            match take(buf) {
                ControlFlow::Continue(next) => rcv_nxt = next,
                ControlFlow::Break(()) => return,
            }
        }
    }

    /// Takes the highest segment unless it starts before `lowest`.
    fn pop_last_from(&mut self, lowest: SeqNum) -> Option<Slot<B>> {
        if self.segments.last()?.range.start.before(lowest) {
            return None;
        }
        let slot = self.segments.pop_last()?;
        self.end = self.segments.last().map_or(lowest, |last| last.range.end);
        self.truesize -= slot.buf.truesize();
        Some(slot)
    }
}

/// The sequence numbers of a buffer's bytes and its FIN.
fn numbers_of<B: PacketBuf>(buf: &B) -> SeqRange {
    let start = SeqNum::new(buf.cb().seq);
    SeqRange::new(start, start.plus(buf.len() as u32 + u32::from(buf.cb().fin)))
}

/// Copies a small payload, and takes over its FIN, behind the segment that ends where it starts.
/// Tells the truesize of the buffer, or gives it back if that cannot be.
fn take_small<B: PacketBuf>(before: &mut Slot<B>, buf: B, range: SeqRange) -> Result<u32, B> {
    // Behind a FIN there are no bytes to be put.
    if buf.len() > COPY_LIMIT || before.buf.cb().fin || !before.buf.append(buf.data()) {
        return Err(buf);
    }
    before.buf.cb_mut().fin = buf.cb().fin;
    before.range.end = range.end;
    Ok(buf.truesize())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
