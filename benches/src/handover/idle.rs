//! What costs something while nothing happens: a reader that is installed, connections on a Poller.

use std::time::{Duration, Instant};

use prequeue::socket::{Events, Interest, Poller, RecvFlags, Token, Trigger};

use crate::bench::Bench;
use crate::many::Many;

use super::Effort;
use super::lcore::Lcore;
use super::report::Report;

/// Turns, or looks, that are timed together, and how often: the best time counts.
const TURNS: u32 = 10_000;
const ROUNDS: usize = 100;

/// Connections on the Poller.
const IDLE: u16 = 10_000;

/// Times that a poll is timed.
const POLLS: usize = 10_000;

/// A reader that is installed and has nothing to read: the lcore's poll beside one without it, and a
/// look of the reader.
pub(super) fn measure_reader(
    lcore: &mut Lcore,
    bench: &Bench,
    report: &mut Report,
    effort: Effort,
) {
    let mut stream = lcore.open(bench.pool());
    let without = best(effort, || lcore.turn());
    let mut reader = stream.reader().expect("no guard is held");
    let with = best(effort, || lcore.turn());
    let mut buf = [0; 64];
    let look = best(effort, || drop(reader.recv(&mut buf, RecvFlags::DONTWAIT)));
    report.tell("a poll without frames, no reader", format!("{without:.1} ns"));
    report.tell("  with an idle installed reader", format!("{with:.1} ns"));
    report.tell("  a look of that reader, in vain", format!("{look:.1} ns"));
}

/// The best of some rounds, in nanoseconds for each turn.
fn best(effort: Effort, mut turn: impl FnMut()) -> f64 {
    let round = |_| {
        let began = Instant::now();
        (0..TURNS).for_each(|_| turn());
        began.elapsed()
    };
    let best = (0..effort.of(ROUNDS)).map(round).min().unwrap_or_default();
    best.as_nanos() as f64 / f64::from(TURNS)
}

/// A poll that finds the one connection that is ready, alone and among many idle ones.
pub(super) fn measure_poller(report: &mut Report, effort: Effort) {
    let [alone, among] = [0, IDLE].map(|idle| poll(idle, effort));
    report.tell("a poll with one ready connection", format!("{alone:.1} ns"));
    report.tell(format!("  among {IDLE} idle ones"), format!("{among:.1} ns"));
}

fn poll(idle: u16, effort: Effort) -> f64 {
    let mut many = Many::new(idle);
    let poller = Poller::new().expect("a descriptor");
    for (i, stream) in many.streams.iter().enumerate() {
        poller.register(stream, Token(i), Interest::READ, Trigger::Level).expect("new");
    }
    let mut events = Events::with_capacity(256);
    let mut times: Vec<Duration> = (0..effort.of(POLLS))
        .map(|_| {
            many.segment();
            let began = Instant::now();
            let ready = poller.poll(&mut events, Some(Duration::ZERO));
            let time = began.elapsed();
            assert_eq!(ready.expect("does not sleep"), 1);
            many.read();
            time
        })
        .collect();
    // The median: single polls are too short for a minimum to mean much, beside the clock's own time.
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64
}
