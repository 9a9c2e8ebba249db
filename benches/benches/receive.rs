//! Each receiver on each workload under Criterion: what one of them does over time.
//!
//! Criterion is the harness here, not the estimator: it times the receivers one after the other, so
//! that a neighbour's load falls on one and not on the next. For ratios run the table
//! (`scripts/bench`), which takes chunks of all receivers in turns. One iteration is a chunk of 256
//! segments, through the same loop as in the table.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prequeue_benches::bench::{Bench, CHUNK};
use prequeue_benches::contenders;
use prequeue_benches::memory::Memory;
use prequeue_benches::workload::Workload;

fn receive(criterion: &mut Criterion) {
    fastrand::seed(1);
    let memory = Memory::of_this_machine();
    let mut bench = Bench::new(memory);
    let mut contenders = contenders(&mut bench);
    for workload in Workload::ALL {
        let mut group = criterion.benchmark_group(match memory {
            Memory::Hugepages => workload.name().to_owned(),
            // Kept apart, so that no report compares the two.
            Memory::Ordinary => format!("{} without hugepages", workload.name()),
        });
        group.throughput(Throughput::Elements(CHUNK as u64));
        for contender in contenders.iter_mut().filter(|contender| contender.fits(workload)) {
            let name = BenchmarkId::from_parameter(contender.name());
            group.bench_function(name, |bencher| {
                bencher
                    .iter_custom(|chunks| bench.run(workload, contender.as_mut(), chunks as usize));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    // Building the frames takes several times as long as receiving them: short measurements.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = receive
}
criterion_main!(benches);
