//! What was observed after a step, and how it is written in a table.
//!
//! A row is plain data: the stage fills it, tables and pictures read it.

use std::time::Duration;

use prequeue::watch::{Owner, Span};

/// The state of the connection after one step of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Virtual time since the beginning of the scenario.
    pub time: Duration,
    /// Who has done something.
    pub actor: Actor,
    /// What has happened.
    pub event: String,
    /// The receive queue.
    pub receive: Vec<Span>,
    /// The out-of-order queue.
    pub out_of_order: Vec<Span>,
    /// The prequeue's ring; none if no reader is installed.
    pub prequeue: Option<Vec<Span>>,
    /// What a reader has taken out of the receive queue.
    pub taken: Vec<Span>,
    /// The backlog.
    pub backlog: Vec<Span>,
    /// The next number that is expected.
    pub rcv_nxt: u32,
    /// The next byte to be read.
    pub copied_seq: u32,
    /// Who owns the socket.
    pub owner: Owner,
    /// Who owned it when the segment of this step reached it, or when the lcore sent something.
    pub met: Option<Owner>,
    /// The threads in recv, by name.
    pub readers: Vec<(&'static str, ReaderState)>,
    /// Bytes that the call has copied so far.
    pub copied: Option<usize>,
    /// Segments that arrived in this step, with what the tables call them.
    pub arrived: Vec<(&'static str, Span)>,
    /// Segments sent in this step.
    pub sent: Vec<String>,
}

/// Who does something in a step.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Actor {
    /// The lcore.
    #[default]
    Lcore,
    /// An application thread.
    Thread,
}

/// What a thread that has called recv does; the nearer to running, the greater.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ReaderState {
    /// It sleeps.
    Asleep,
    /// It has been woken and does not run yet.
    Woken,
    /// It runs.
    Runs,
}

/// The columns of our tables.
pub const OUR_COLUMNS: [&str; 12] = [
    "event",
    "receive",
    "out of order",
    "prequeue",
    "taken",
    "backlog",
    "rcv_nxt",
    "copied_seq",
    "owner",
    "reader",
    "cop",
    "sent",
];

impl Row {
    /// The row as the table has it, one string per column.
    pub fn cells(&self) -> [String; OUR_COLUMNS.len()] {
        [
            self.event.clone(),
            ranges(&self.receive),
            ranges(&self.out_of_order),
            self.prequeue.as_ref().map_or_else(|| "none".to_owned(), |spans| ranges(spans)),
            ranges(&self.taken),
            ranges(&self.backlog),
            self.rcv_nxt.to_string(),
            self.copied_seq.to_string(),
            owner(self.owner).to_owned(),
            self.reader_text(),
            self.copied.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            if self.sent.is_empty() { "-".to_owned() } else { self.sent.join(", ") },
        ]
    }

    /// The readers' states in words.
    pub fn reader_text(&self) -> String {
        let text = |(name, state): &(&str, ReaderState)| match *name {
            "reader" => state.text().to_owned(),
            name => format!("{name} {}", state.text()),
        };
        let texts: Vec<_> = self.readers.iter().map(text).collect();
        if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
    }
}

impl ReaderState {
    /// The state in a word.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Asleep => "asleep",
            Self::Woken => "woken",
        }
    }
}

/// The owner in a word.
pub const fn owner(owner: Owner) -> &'static str {
    match owner {
        Owner::Nobody => "free",
        Owner::Lcore => "lcore",
        Owner::Thread => "thread",
        Owner::LcoreDue => "lcore due",
    }
}

/// The bytes of a queue, neighbours joined: how many buffers hold them is nobody's business.
pub fn ranges(spans: &[Span]) -> String {
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.seq.wrapping_add(last.len) == span.seq && !last.fin => {
                last.len += span.len;
                last.fin = span.fin;
            }
            _ => joined.push(*span),
        }
    }
    let texts: Vec<_> = joined.iter().map(Span::to_string).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_holes_are_not() {
        let span = |seq, len| Span { seq, len, fin: false };
        assert_eq!(ranges(&[]), "-");
        assert_eq!(ranges(&[span(1000, 100), span(1100, 150)]), "1000-1250");
        assert_eq!(ranges(&[span(1000, 100), span(1250, 200)]), "1000-1100 1250-1450");
        let last = Span { fin: true, ..span(1100, 150) };
        assert_eq!(ranges(&[span(1000, 100), last]), "1000-1250F");
    }
}
