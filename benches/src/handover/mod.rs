//! The hand-over: from the lcore to the thread that reads, and what waiting and claiming cost.
//!
//! Two threads, each pinned to a CPU of its own: the lcore, which is the calling thread, and the
//! reader. Every figure that is held against a target is so beside a bare ring between the same two
//! CPUs, in turns with it, because what a cache line takes from one CPU to the other differs several
//! times with where a host places them.

pub mod claim;
pub mod guard;
pub mod idle;
pub mod latency;
pub mod lcore;
pub mod parked;
pub mod report;
pub mod throughput;

use core_affinity::CoreId;

use crate::bench::Bench;

use lcore::Lcore;
use report::Report;

/// How much is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effort {
    /// A few seconds, for a look.
    Quick,
    /// Half a minute, for figures to be quoted.
    Full,
}

impl Effort {
    /// `full`, or a tenth of it.
    pub const fn of(self, full: usize) -> usize {
        match self {
            Self::Quick => full / 10,
            Self::Full => full,
        }
    }
}

/// Where the two threads run.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The CPU of the lcore, which is the calling thread.
    lcore: CoreId,
    /// The reader's.
    reader: CoreId,
}

impl Places {
    /// The first two CPUs that the process may use; `None` if there is only one. To be asked before
    /// anything pins the calling thread.
    pub fn of_this_process() -> Option<Self> {
        let cpus = core_affinity::get_core_ids()?;
        match cpus[..] {
            [lcore, reader, ..] => Some(Self { lcore, reader }),
            _ => None,
        }
    }

    /// Pins the calling thread as the lcore.
    pub fn pin_lcore(self) -> bool {
        core_affinity::set_for_current(self.lcore)
    }

    /// Pins the calling thread as the reader.
    pub fn pin_reader(self) -> bool {
        core_affinity::set_for_current(self.reader)
    }
}

/// What a figure of two threads is taken with.
#[derive(Debug)]
struct Setting<'a> {
    lcore: &'a mut Lcore,
    bench: &'a mut Bench,
    places: Places,
    effort: Effort,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Part {
    /// Claim and release that nobody contends.
    Claim,
    /// A Poller with ten thousand idle connections; an idle reader.
    Idle,
    /// Message by message.
    Latency,
    /// As many segments as go through.
    Throughput,
    /// A reader that sleeps.
    Parked,
    /// The socket held for a millisecond at a time.
    Guard,
}

impl Part {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Claim, Self::Idle, Self::Latency, Self::Throughput, Self::Parked, Self::Guard];
}

/// Measures the parts, and tells what a single CPU cannot.
///
/// # Panics
/// If a byte that was read is not the one that was sent, or the connection fails.
pub fn run(bench: &mut Bench, places: Option<Places>, parts: &[Part], effort: Effort) -> Report {
    let mut report = Report::default();
    let mut lcore = Lcore::new(bench.clock());
    let two = places.filter(|places| places.pin_lcore());
    for part in parts {
        let measure = match part {
            Part::Claim => {
                claim::measure(&mut report, effort);
                continue;
            }
            Part::Idle => {
                idle::measure_poller(&mut report, effort);
                idle::measure_reader(&mut lcore, bench, &mut report, effort);
                continue;
            }
            Part::Latency => latency::measure,
            Part::Throughput => throughput::measure,
            Part::Parked => parked::measure,
            Part::Guard => guard::measure,
        };
        match two {
            Some(places) => {
                measure(Setting { lcore: &mut lcore, bench, places, effort }, &mut report);
            }
            None => report.note(format!("{part:?}: not measured, for it takes two CPUs")),
        }
    }
    report
}
