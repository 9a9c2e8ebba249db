//! Where things stand in a picture, and in which colour: numbers only.

use prequeue::watch::{Owner, Span};

use crate::figures::row::Row;

/// Width of a picture, in its own units.
pub(super) const WIDTH: f64 = 1360.0;
/// Height of a row.
pub(super) const ROW: f64 = 46.0;
/// Height of the title and the lanes' heads, without what the scenario is about.
pub(super) const HEAD: f64 = 124.0;
/// Where the time stands.
pub(super) const TIME: f64 = 24.0;
/// Where the events begin.
pub(super) const EVENT: f64 = 60.0;
/// Arrows to and from the peer.
pub(super) const WIRE: Column = Column { x: 346.0, width: 164.0 };
/// The owner.
pub(super) const OWNER: Column = Column { x: 522.0, width: 64.0 };
/// The readers.
pub(super) const READER: Column = Column { x: 1244.0, width: 92.0 };

/// Where the queues begin, and how wide each is with the gap behind it.
const QUEUES: f64 = 602.0;
const PITCH: f64 = 128.0;

/// The queues, in the order in which segments go through them.
pub(super) const LANES: [Lane; 5] =
    [Lane::Backlog, Lane::OutOfOrder, Lane::Receive, Lane::Prequeue, Lane::Taken];

/// A column of the picture.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) x: f64,
    pub(super) width: f64,
}

impl Column {
    pub(super) const fn middle(&self) -> f64 {
        self.x + self.width / 2.0
    }

    pub(super) const fn end(&self) -> f64 {
        self.x + self.width
    }

    /// Columns side by side in its place.
    pub(super) fn split(self, parts: usize) -> impl Iterator<Item = Self> {
        let width = self.width / parts as f64;
        (0..parts).map(move |at| Self { x: self.x + width * at as f64, width: width - 1.0 })
    }
}

/// A queue.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Lane {
    Backlog,
    OutOfOrder,
    Receive,
    Prequeue,
    Taken,
}

impl Lane {
    pub(super) const fn column(self) -> Column {
        Column { x: QUEUES + PITCH * self as usize as f64, width: PITCH - 12.0 }
    }

    pub(super) const fn titles(self) -> (&'static str, &'static str) {
        match self {
            Self::Backlog => ("backlog", "socket was owned"),
            Self::OutOfOrder => ("out of order", "above a hole"),
            Self::Receive => ("receive queue", "in sequence"),
            Self::Prequeue => ("prequeue", "ring to the reader"),
            Self::Taken => ("taken list", "reader's own"),
        }
    }

    pub(super) const fn colour(self) -> &'static str {
        match self {
            Self::Backlog => "#d1495b",
            Self::OutOfOrder => "#d08a1d",
            Self::Receive => "#3d7fc4",
            Self::Prequeue => "#2e8b57",
            Self::Taken => "#7a5ba6",
        }
    }

    pub(super) const fn pale(self) -> &'static str {
        match self {
            Self::Backlog => "#fbeff0",
            Self::OutOfOrder => "#fcf5e8",
            Self::Receive => "#eef4fb",
            Self::Prequeue => "#ecf6f0",
            Self::Taken => "#f4f0f9",
        }
    }
}

/// The owner's band: its colour and its label, nothing while the socket is free.
pub(super) fn owner_band(owner: Owner) -> Option<(&'static str, String)> {
    match owner {
        Owner::Nobody => None,
        Owner::Lcore => Some(("#2f6db5", "lcore".to_owned())),
        Owner::Thread => Some(("#f2a65a", "thread".to_owned())),
        Owner::LcoreDue => Some(("#a9c8e8", "lcore due".to_owned())),
    }
}

/// Segments and their places.
pub(super) struct Lanes {
    named: Vec<(&'static str, Span)>,
    /// More segments than can be drawn one by one.
    joins: bool,
    first: u32,
    bytes: f64,
}

/// More segments than this are drawn as the range they make together.
const ONE_BY_ONE: usize = 6;

/// The narrowest bar into which a letter fits.
const NARROWEST: f64 = 13.0;

impl Lanes {
    pub(super) fn of(rows: &[Row]) -> Self {
        let all = rows.iter().flat_map(|row| row.arrived.iter().copied());
        let named: Vec<_> = all.filter(|(_, span)| span.len > 0).collect();
        let first = named.iter().map(|(_, span)| span.seq).min().unwrap_or(0);
        let end = named.iter().map(|(_, span)| span.seq + span.len).max().unwrap_or(first + 1);
        let joins = named.len() > ONE_BY_ONE;
        Self { named, joins, first, bytes: f64::from(end - first) }
    }

    /// What is in a lane.
    pub(super) fn spans(&self, lane: Lane, row: &Row) -> Vec<Span> {
        let spans = match lane {
            Lane::Backlog => &row.backlog,
            Lane::OutOfOrder => &row.out_of_order,
            Lane::Receive => &row.receive,
            Lane::Prequeue => row.prequeue.as_ref().unwrap_or(const { &Vec::new() }),
            Lane::Taken => &row.taken,
        };
        let mut joined: Vec<Span> = Vec::new();
        for span in spans.iter().filter(|span| span.len > 0) {
            match joined.last_mut().filter(|last| self.joins && last.seq + last.len == span.seq) {
                Some(last) => last.len += span.len,
                None => joined.push(*span),
            }
        }
        joined
    }

    /// Where a segment stands in a lane: its left end and its width.
    pub(super) fn place(&self, lane: Lane, span: &Span) -> (f64, f64) {
        let column = lane.column();
        let scale = (column.width - 4.0) / self.bytes;
        let x = column.x + 2.0 + scale * f64::from(span.seq - self.first);
        (x, (scale * f64::from(span.len) - 1.0).max(NARROWEST))
    }

    /// What to write on a segment: its name, or how long it is if it is several.
    pub(super) fn label(&self, span: &Span) -> String {
        let within = |of: &Span| of.seq <= span.seq && span.seq + span.len <= of.seq + of.len;
        let name = self.named.iter().find(|(_, of)| within(of)).map(|(name, _)| *name);
        let end = if span.fin { " F" } else { "" };
        name.map_or_else(|| format!("{} bytes", span.len), |name| format!("{name}{end}"))
    }
}
