//! What a program tells about a run: rates while it lasts, a summary at its end.
//!
//! Threads that read connections add to a [`Tally`]; `main`, or a reporting thread, turns it and the
//! stack's counters into text. Nothing here prints to stdout, which belongs to the data.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prequeue::tcp::{
    Counter::{self, *},
    Counters,
};

/// What the program itself has seen, added to by any thread. The numbers are independent of each
/// other, so relaxed ordering is enough.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: AtomicU64,
    opened: AtomicU64,
    ended: AtomicU64,
    cut: AtomicU64,
    span: Mutex<Option<(Instant, Instant)>>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The peer's FIN, after all of its bytes.
    Complete,
    /// Anything else: some bytes may be missing.
    Cut,
}

impl Tally {
    /// A connection was accepted. The span that the mean rate is taken over begins at the first.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
        self.touch();
    }

    /// Bytes were read.
    pub fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A connection ended; the span reaches at least to here.
    pub fn ended(&self, how: Ending) {
        self.ended.fetch_add(1, Relaxed);
        self.cut.fetch_add(u64::from(how == Ending::Cut), Relaxed);
        self.touch();
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        let ended = self.ended.load(Relaxed);
        self.opened.load(Relaxed).saturating_sub(ended)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// From the first connection's accept to the last event.
    pub fn span(&self) -> Duration {
        let span = self.span.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        span.map_or(Duration::ZERO, |(first, last)| last - first)
    }

    fn touch(&self) {
        let now = Instant::now();
        let mut span = self.span.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *span = Some((span.map_or(now, |(first, _)| first), now));
    }
}

/// The end of a run, for people: what the program saw, then how the stack came by it.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// What the program saw.
    pub tally: &'a Tally,
    /// The stack's counters, summed over lcores.
    pub counters: &'a Counters,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, counters } = *self;
        let sum = |of: &[Counter]| of.iter().map(|&one| counters.value(one)).sum::<u64>();
        let n = |of| counters.value(of);
        let cut = tally.cut.load(Relaxed);
        let span = tally.span();
        let rate = Rate { bytes: tally.bytes(), elapsed: span };
        let bad = n(InErrs);
        let no_room =
            sum(&[TCPRcvQDrop, TCPOFODrop, TCPBacklogDrop, TCPZeroWindowDrop, BeyondWindow]);
        let rows = [
            ("connections", format!("{} ({cut} cut)", tally.accepted())),
            ("bytes", Bytes(tally.bytes()).to_string()),
            ("time", format!("{:.3} s", span.as_secs_f64())),
            ("rate", rate.to_string()),
            ("segments", format!("{} in, {} out", n(InSegs), n(OutSegs))),
            ("out of order", format!("{} segments", n(TCPOFOQueue))),
            ("duplicates", format!("{} segments", n(DelayedACKLost) + n(TCPOFOMerge))),
            ("dropped", format!("{bad} damaged, {no_room} for want of room")),
            ("prequeue", format!("{} segments, straight to a reader", n(ToPrequeue))),
            ("receive queue", format!("{} segments, for a reader to come", n(ToReceiveQueue))),
            ("backlog", format!("{} segments, while a reader owned the socket", n(ToBacklog))),
            ("ACKs sent", format!("{} ({} delayed)", n(OutSegs) - n(OutRsts), n(DelayedACKs))),
        ];
        writeln!(f, "summary")?;
        rows.iter().try_for_each(|(name, text)| writeln!(f, "  {name:<14}{text}"))
    }
}

/// A number of bytes, exact and for people.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        write!(f, "{} bytes", self.0)?;
        let mut scaled = self.0 as f64;
        let mut unit = None;
        for name in units {
            if scaled < 1024.0 {
                break;
            }
            scaled /= 1024.0;
            unit = Some(name);
        }
        unit.map_or(Ok(()), |unit| write!(f, " ({scaled:.1} {unit})"))
    }
}

/// A rate of payload, in Gbit/s.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Payload bytes.
    pub bytes: u64,
    /// The time they took.
    pub elapsed: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        if seconds == 0.0 {
            return f.write_str("- Gbit/s");
        }
        write!(f, "{:.3} Gbit/s", self.bytes as f64 * 8.0 / 1e9 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_exact_number() {
        assert_eq!(Bytes(1023).to_string(), "1023 bytes");
        assert_eq!(Bytes(268_435_456).to_string(), "268435456 bytes (256.0 MiB)");
    }

    #[test]
    fn a_rate_over_no_time_is_no_number() {
        let rate = |bytes, elapsed| Rate { bytes, elapsed }.to_string();
        assert_eq!(rate(5, Duration::ZERO), "- Gbit/s");
        assert_eq!(rate(125_000_000, Duration::from_millis(500)), "2.000 Gbit/s");
    }

    #[test]
    fn the_tally_counts_cut_connections_among_the_ended() {
        let tally = Tally::default();
        for _ in 0..3 {
            tally.opened();
        }
        tally.read(7);
        tally.ended(Ending::Cut);
        tally.ended(Ending::Complete);
        assert_eq!((tally.open(), tally.accepted(), tally.bytes()), (1, 3, 7));
        assert_eq!(tally.cut.load(Relaxed), 1);
    }
}
