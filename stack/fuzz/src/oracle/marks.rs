//! What has been received of a stream: a plain array with a mark for every number.
//!
//! The model marks what a segment brings and asks what has become of it. It knows which copy of a
//! number wins where segments overlap, and nothing of queues, searches or buffers.

/// What stands at a number: a byte, or the FIN.
pub type Symbol = u16;

/// The FIN, which takes one number.
pub const FIN: Symbol = 256;

/// Bytes of a buffer beside its room, and the room of an ordinary one.
const OVERHEAD: u32 = 320;
const ROOM: usize = 2048;

/// Payloads of up to this are copied behind the segment that ends where they start.
const COPY_LIMIT: i64 = 256;

/// A segment that is held out of order, by its offsets in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Held {
    start: i64,
    end: i64,
    fin: bool,
    room: usize,
}

impl Held {
    fn truesize(&self) -> u32 {
        self.room as u32 + OVERHEAD
    }
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    symbol: Symbol,
    owner: Held,
}

/// Marks for the numbers of a stream; offset 0 is its first byte.
#[derive(Debug, Default)]
pub struct Marks {
    /// Everything below the in-order edge, FIN included.
    pub stream: Vec<Symbol>,
    above: Vec<Option<Mark>>,
    held: Vec<Held>,
}

/// The room of the buffer that a payload of this length comes in.
pub fn room_of(len: usize) -> usize {
    len.max(ROOM)
}

impl Marks {
    /// The in-order edge: the first number that was not received.
    pub fn edge(&self) -> i64 {
        self.stream.len() as i64
    }

    /// Whether the FIN is below the edge.
    pub fn eof(&self) -> bool {
        self.stream.last() == Some(&FIN)
    }

    /// Whether nothing is held above the edge.
    pub fn is_gapless(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether this number has been received, or lies before the stream.
    pub fn has(&self, at: i64) -> bool {
        at < self.edge() || self.mark(at).is_some()
    }

    /// Whether all of [start, end) is held above the edge.
    pub fn holds(&self, start: i64, end: i64) -> bool {
        (start..end).all(|at| at >= self.edge() && self.mark(at).is_some())
    }

    /// The first run of received numbers in [start, end).
    pub fn first_run(&self, start: i64, end: i64) -> Option<(i64, i64)> {
        let first = (start..end).find(|&at| self.has(at))?;
        Some((first, (first..end).find(|&at| !self.has(at)).unwrap_or(end)))
    }

    /// Truesize of what is held above the edge.
    pub fn truesize(&self) -> u32 {
        self.held.iter().map(Held::truesize).sum()
    }

    /// Offset of the start or end of some segment that is held.
    pub fn bound(&self, pick: usize, end: bool) -> Option<i64> {
        let held = self.held.get(pick.checked_rem(self.held.len())?)?;
        Some(if end { held.end } else { held.start })
    }

    /// The highest number behind a run that is held.
    pub fn run_ends_at(&self, at: i64) -> bool {
        at > self.edge() && self.mark(at - 1).is_some() && self.mark(at).is_none()
    }

    fn mark(&self, at: i64) -> Option<Mark> {
        let at = usize::try_from(at).ok()?;
        *self.above.get(at)?
    }

    /// A segment above the edge has been taken, in a buffer with this room.
    ///
    /// The smaller start wins, of equal starts the longer, of equals the older.
    pub fn insert(&mut self, start: i64, symbols: &[Symbol], room: usize) {
        let fin = symbols.last() == Some(&FIN);
        let new = Held { start, end: start + symbols.len() as i64, fin, room };
        if self.held.iter().any(|old| old.start <= new.start && new.end <= old.end) {
            return;
        }
        let owner = self.joined(&new);
        self.held.retain(|old| !(new.start <= old.start && old.end <= new.end));
        self.above.resize(self.above.len().max(new.end as usize + 1), None);
        for (i, &symbol) in symbols.iter().enumerate() {
            let mark = &mut self.above[new.start as usize + i];
            let wins = mark.is_none_or(|Mark { owner: old, .. }| {
                owner.start < old.start || (owner.start == old.start && owner.end > old.end)
            });
            if wins {
                *mark = Some(Mark { symbol, owner });
            }
        }
        self.held.push(owner);
    }

    /// Small payloads are copied behind the segment that ends where they start, and become part
    /// of it.
    fn joined(&mut self, new: &Held) -> Held {
        let len = new.end - new.start - i64::from(new.fin);
        let before = self.held.iter().filter(|old| old.start <= new.start);
        let Some(&before) = before.max_by_key(|old| old.start) else { return *new };
        let fits = before.end - before.start + len <= before.room as i64;
        if before.end != new.start || before.fin || len > COPY_LIMIT || !fits {
            return *new;
        }
        let owner = Held { start: before.start, room: before.room, ..*new };
        self.held.retain(|old| *old != before);
        for mark in self.above.iter_mut().flatten().filter(|mark| mark.owner == before) {
            mark.owner = owner;
        }
        owner
    }

    /// These numbers have been taken at the edge: they count, whatever was held there; what
    /// follows them is pulled in up to the next hole, or up to the FIN, behind which is nothing.
    pub fn advance(&mut self, symbols: &[Symbol]) {
        self.stream.extend(symbols);
        while !self.eof()
            && let Some(mark) = self.mark(self.edge())
        {
            self.stream.push(mark.symbol);
        }
        if self.eof() {
            self.clear();
        }
        let edge = self.edge();
        self.held.retain(|old| old.end > edge);
    }

    /// Memory is won back from the highest segment down, but none that starts before `keep`.
    /// Tells whether any was dropped.
    pub fn prune(&mut self, at_least: u32, keep: i64) -> bool {
        self.held.sort_by_key(|old| old.start);
        let mut freed = 0;
        while freed < at_least
            && let Some(last) = self.held.pop_if(|last| last.start >= keep)
        {
            freed += last.truesize();
            for mark in &mut self.above[last.start as usize..last.end as usize] {
                *mark = mark.filter(|mark| mark.owner != last);
            }
        }
        freed > 0
    }

    /// Nothing is held above the edge any more.
    pub fn clear(&mut self) {
        self.held.clear();
        self.above.clear();
    }
}
