//! What a Poller costs with one active connection among many idle ones, on heap buffers.
//!
//! One iteration is one segment of 64 bytes: the engine takes it, a poll that does not wait reports
//! it, a read takes it. The time of the poll by itself is what must not grow with the idle ones.

use std::time::{Duration, Instant as Clock};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prequeue::socket::{Events, Interest, Poller, Token, Trigger};
use prequeue_benches::many::Many;

fn poller(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("poller");
    for idle in [0, 100, 10_000] {
        let mut many = Many::new(idle);
        group.bench_function(BenchmarkId::new("segment, unwatched", idle), |bencher| {
            bencher.iter_custom(|n| {
                let one = |_| {
                    let time = many.segment();
                    many.read();
                    time
                };
                (0..n).map(one).sum()
            });
        });
        let poller = Poller::new().expect("a descriptor");
        for (i, stream) in many.streams.iter().enumerate() {
            poller.register(stream, Token(i), Interest::READ, Trigger::Level).expect("new");
        }
        let mut events = Events::with_capacity(256);
        let mut poll = || {
            let start = Clock::now();
            let n = poller.poll(&mut events, Some(Duration::ZERO)).expect("does not sleep");
            (start.elapsed(), n)
        };
        group.bench_function(BenchmarkId::new("segment, watched", idle), |bencher| {
            bencher.iter_custom(|n| {
                let one = |_| {
                    let time = many.segment();
                    assert_eq!(poll().1, 1);
                    many.read();
                    time
                };
                (0..n).map(one).sum()
            });
        });
        group.bench_function(BenchmarkId::new("poll, one ready", idle), |bencher| {
            bencher.iter_custom(|n| {
                let one = |_| {
                    many.segment();
                    let (time, ready) = poll();
                    assert_eq!(ready, 1);
                    many.read();
                    time
                };
                (0..n).map(one).sum()
            });
        });
        group.bench_function(BenchmarkId::new("poll, none ready", idle), |bencher| {
            poll();
            bencher.iter(&mut poll);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = poller
}
criterion_main!(benches);
