//! `prequeue-benches`: the table of ratios, or one contender's run for callgrind.
//!
//! Without arguments it runs everything and prints the table. `--quick` takes fewer rounds.
//! `--only W1 F2` runs one contender over one workload once, for counting instructions.

use std::process::ExitCode;

use prequeue_benches::bench::Bench;
use prequeue_benches::contender::Contender;
use prequeue_benches::engine;
use prequeue_benches::floor::{Floor, FloorReceiver};
use prequeue_benches::peers;
use prequeue_benches::workload::Workload;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut bench = Bench::new();
    let (pool, tx) = (bench.pool().clone(), bench.take_tx().expect("not taken yet"));
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(FloorReceiver::new(Floor::F1)),
        Box::new(FloorReceiver::new(Floor::F2)),
        Box::new(engine::Receiver::new(&pool, tx)),
        Box::new(peers::smoltcp::Receiver::new()),
        Box::new(peers::fastcp::Receiver::new()),
    ];
    if let [.., "--only", workload, name] = args[..] {
        let workload = *Workload::ALL.iter().find(|w| w.name() == workload).expect("a workload");
        contenders.retain(|contender| contender.name() == name);
        let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        bench.compare(workload, &mut contenders, 64, rounds);
        return ExitCode::SUCCESS;
    }
    for workload in Workload::ALL {
        let rows = bench.compare(
            workload,
            &mut contenders,
            64,
            if args.contains(&"--quick") { 2 } else { 10 },
        );
        for row in rows {
            println!(
                "{} {:8} {:7.1} ns {:.3}",
                workload.name(),
                row.name,
                row.ns_per_segment,
                row.delivered
            );
        }
    }
    ExitCode::SUCCESS
}
