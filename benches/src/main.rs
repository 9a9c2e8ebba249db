//! `prequeue-benches`: the table of one run, or one receiver once for callgrind or perf.

use std::process::ExitCode;

use clap::Parser;
use prequeue_benches::bench::{Bench, CHUNKS};
use prequeue_benches::contender::Contender;
use prequeue_benches::contenders;
use prequeue_benches::handover::claim::Pair;
use prequeue_benches::handover::{self, Effort, Part, Places};
use prequeue_benches::memory::{Memory, WANTED_MIB};
use prequeue_benches::table::Table;
use prequeue_benches::workload::Workload;

/// Measures the receive path beside floors and peers, on mbufs from an in-process port.
///
/// Before anything is timed, every receiver runs every workload once and each byte that it delivers
/// is compared with the stream that was sent. Then all receivers take chunks of 256 segments in
/// turns, on fresh connections, and the table shows the sum of the chunks' best times:
///
///   / F2        of the floor: parse, look up, copy to the reader's buffer, nothing else
///   / W1        of the same receiver's time with everything in order
///   delivered   bytes out of bytes in; anything but 1.000 is an error
///
/// Times of a shared machine drift: quote ratios of one run, never a time alone.
#[derive(Debug, Parser)]
#[command(
    version,
    verbatim_doc_comment,
    after_help = "\
Workloads: W1 in order, 1460 bytes a segment; W2 in order, 64 bytes; W4 is W1 with one segment in ten
delayed by 1 to 8 places; W6 is W1 with every fiftieth delayed by 32 places.
Receivers: F1 F2 (floors: in order only); prequeue, local, local-0 (ours: by a shared stream; by the
thread that polls, copied and in place); smoltcp, fastcp.

  scripts/bench                                 sees to hugepages, builds, and runs all of it
  cargo run --release -p prequeue-benches       the table alone
  prequeue-benches --handover                   from the lcore to a thread that reads, on two CPUs
  prequeue-benches --only W1 prequeue           one of them once; set PREQUEUE_BENCH_NO_HUGE=1 to run
                                                it under valgrind --tool=callgrind
                                                --toggle-collect=timed_part

Exit status: 0, or 1 if a receiver delivered anything but what was sent. A target that is not reached
is not an error."
)]
struct Args {
    /// Fewer rounds: seconds instead of half a minute, and rougher figures.
    #[arg(long)]
    quick: bool,
    /// Fresh connections per receiver and workload, of whose times the best are taken [12; 3 if
    /// quick; 1 with --only].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Measures the hand-over to a thread that reads instead: latency, throughput, claiming, waiting;
    /// all of it, or the parts that are named.
    #[arg(long, value_name = "PART", num_args = 0.., value_enum,
          conflicts_with_all = ["rounds", "only", "claims"])]
    handover: Option<Vec<Part>>,
    /// Claims and releases a socket so many times, as an lcore and as a thread, for callgrind.
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["quick", "rounds", "only"])]
    claims: Option<u32>,
    /// Runs one receiver over one workload and prints the number of segments it was given.
    #[arg(long, num_args = 2, value_names = ["WORKLOAD", "RECEIVER"])]
    only: Option<Vec<String>>,
}

fn main() -> ExitCode {
    // Whatever Rust's hash maps do, ports, sequence numbers and keys are the same in every run.
    fastrand::seed(1);
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("prequeue-benches: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let only = match args.only.as_deref() {
        Some([name, receiver]) => Some((workload(name)?, receiver.as_str())),
        _ => None,
    };
    if let Some(times) = args.claims {
        Pair::default().run(times);
        return Ok(());
    }
    let places = Places::of_this_process();
    let memory = Memory::of_this_machine();
    let mut bench = Bench::new(memory);
    if let Some(parts) = &args.handover {
        let parts = if parts.is_empty() { &Part::ALL[..] } else { parts };
        let effort = if args.quick { Effort::Quick } else { Effort::Full };
        warn_of(memory);
        print!("{}", handover::run(&mut bench, places, parts, effort));
        return Ok(());
    }
    let mut contenders = contenders(&mut bench);
    if let Some((workload, receiver)) = only {
        return once(&mut bench, workload, receiver, &mut contenders, args.rounds.unwrap_or(1));
    }
    warn_of(memory);
    verify(&mut bench, &mut contenders)?;
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 12 });
    let table = Table(
        Workload::ALL
            .into_iter()
            .flat_map(|workload| bench.compare(workload, &mut contenders, CHUNKS, rounds.into()))
            .collect(),
    );
    print!("{table}");
    all_delivered(&table)
}

fn warn_of(memory: Memory) {
    if memory == Memory::Ordinary {
        eprintln!(
            "prequeue-benches: less than {WANTED_MIB} MiB of hugepages are free (or their use was \
             forbidden): every buffer costs TLB misses, these figures are not to be quoted"
        );
    }
}

fn workload(name: &str) -> Result<Workload, String> {
    let all = Workload::ALL;
    all.into_iter().find(|workload| workload.name() == name).ok_or_else(|| {
        format!("no workload {name}; there are {}", all.map(Workload::name).join(" "))
    })
}

fn once(
    bench: &mut Bench,
    workload: Workload,
    receiver: &str,
    contenders: &mut [Box<dyn Contender>],
    rounds: u16,
) -> Result<(), String> {
    let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
    let place = names
        .iter()
        .position(|name| *name == receiver)
        .ok_or_else(|| format!("no receiver {receiver}; there are {}", names.join(" ")))?;
    let rows = bench.compare(workload, &mut contenders[place..=place], CHUNKS, rounds.into());
    let table = Table(rows);
    let row = table.0.first();
    let row = row.ok_or_else(|| format!("{receiver} takes no data out of order"))?;
    println!("segments {}", row.sent / workload.segment_len() as usize);
    all_delivered(&table)
}

/// Fails if any receiver lost or made up a byte.
fn all_delivered(table: &Table) -> Result<(), String> {
    table.wrong().next().map_or(Ok(()), |row| {
        Err(format!(
            "{} on {}: {} bytes sent, {} delivered",
            row.name,
            row.workload.name(),
            row.sent,
            row.delivered
        ))
    })
}

fn verify(bench: &mut Bench, contenders: &mut [Box<dyn Contender>]) -> Result<(), String> {
    for workload in Workload::ALL {
        for contender in contenders.iter_mut().filter(|contender| contender.fits(workload)) {
            let verdict = bench.verify(workload, contender.as_mut());
            verdict
                .map_err(|wrong| format!("{} on {}: {wrong}", contender.name(), workload.name()))?;
        }
    }
    Ok(())
}
