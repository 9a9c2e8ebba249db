//! A reader that sleeps: what waking it costs the lcore, and how long the bytes take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use prequeue::socket::RecvFlags;

use crate::contender::Burst;

use super::Setting;
use super::lcore::now;
use super::report::{Report, Times};
use super::throughput::wait_for;

const LEN: usize = 64;

/// Messages to a sleeping reader.
const MESSAGES: usize = 5_000;

/// How long the reader is left alone before the next: ten times what it spins.
const PAUSE: Duration = Duration::from_micros(200);

pub(super) fn measure(setting: Setting<'_>, report: &mut Report) {
    let Setting { lcore, bench, places, effort } = setting;
    let mut stream = lcore.open(bench.pool());
    let count = effort.of(MESSAGES);
    let (told, ready) = (AtomicU64::new(0), AtomicBool::new(false));
    let [mut way, mut work] = [Times::with_capacity(count), Times::with_capacity(count)];
    thread::scope(|scope| {
        scope.spawn(|| {
            places.pin_reader();
            ready.store(true, Ordering::Relaxed);
            let mut reader = stream.reader().expect("no guard is held");
            let mut buf = [0; LEN];
            for _ in 0..count {
                let n = reader.recv(&mut buf, RecvFlags::NONE).expect("a connection that lasts");
                let at = now();
                assert_eq!(n, LEN);
                told.store(at, Ordering::Release);
            }
        });
        wait_for(&ready);
        for i in 0..count {
            let pause = Instant::now();
            while pause.elapsed() < PAUSE {
                lcore.turn();
            }
            bench.load_frame(&lcore.client.segment(lcore.iss, (i * LEN) as u32, &[7; LEN]));
            let mut burst = Burst::new();
            assert_eq!(bench.rx(&mut burst), 1, "the frame in the ring");
            let began = now();
            lcore.input(&mut burst);
            work.record(now() - began);
            let at = loop {
                match told.swap(0, Ordering::Acquire) {
                    0 => std::hint::spin_loop(),
                    at => break at,
                }
            };
            way.record(at - began);
        }
    });
    drop(stream);
    lcore.turn();
    let quantiles = |mut times: Times| {
        let [p50, p99] = times.quantiles([500, 990]);
        format!("{:.1} {:.1} us", p50 / 1e3, p99 / 1e3)
    };
    report.tell("hand-over to a reader that sleeps: p50, p99", quantiles(way));
    report.tell("  the lcore's part of it: p50, p99", quantiles(work));
}
