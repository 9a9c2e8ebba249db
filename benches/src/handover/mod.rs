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

/// Measures all of it, and tells what a single CPU cannot.
///
/// # Panics
/// If a byte that was read is not the one that was sent, or the connection fails.
pub fn run(bench: &mut Bench, places: Option<Places>, effort: Effort) -> Report {
    let mut report = Report::default();
    claim::measure(&mut report, effort);
    idle::measure_poller(&mut report, effort);
    let mut lcore = Lcore::new(bench.clock());
    idle::measure_reader(&mut lcore, bench, &mut report, effort);
    let Some(places) = places.filter(|places| places.pin_lcore()) else {
        report.note(
            "one CPU: nothing is handed from thread to thread at speed, and nothing measured of it",
        );
        return report;
    };
    latency::measure(&mut lcore, bench, places, &mut report, effort);
    throughput::measure(&mut lcore, bench, places, &mut report, effort);
    parked::measure(&mut lcore, bench, places, &mut report, effort);
    guard::measure(&mut lcore, bench, places, &mut report, effort);
    report
}
