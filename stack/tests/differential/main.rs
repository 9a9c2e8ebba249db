//! The differential test: the same segments, calls and pauses for the kernel's TCP and for ours.
//!
//! Each thread has a network namespace of its own with a TUN device in it, and an engine over heap
//! buffers. Scenarios come out of seeds: hostile ones, placed to the byte around what each stack has
//! said itself. After every step all that can be seen is compared: answers, reads, ends. What is
//! allowed to differ stands in `explained.rs`.
//!
//! Needs root, /dev/net/tun and iproute2; without them it says so and passes.
//!
//! * `PREQUEUE_DIFFERENTIAL_SECONDS`: how long it runs.
//! * `PREQUEUE_DIFFERENTIAL_FROM`: a number that other scenarios than usual come out of.
//! * `PREQUEUE_DIFFERENTIAL_SEED`: runs the scenario of one seed, and tells each step.
//! * `PREQUEUE_DIFFERENTIAL_THREADS`: how many scenarios at once; most of them wait most of the time.
#![cfg(target_os = "linux")]

mod explained;
mod generate;
mod history;
mod kernel;
mod ours;
mod packet;
mod run;
mod scenario;
mod seen;
mod shrink;
mod side;
mod tuning;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use generate::{Dice, scenario};
use run::{Lab, Outcome};

/// How long it runs if nothing else is said: to notice what is plainly broken.
const SECONDS: u64 = 5;

/// Scenarios that are worked on at once.
const THREADS: u64 = 6;

/// What all threads have seen together.
#[derive(Default)]
struct Tally {
    scenarios: AtomicU64,
    steps: AtomicU64,
    /// Differences that were there once and not again: a timer, a thread that was not run.
    passing: AtomicU64,
    explained: Mutex<BTreeMap<&'static str, u64>>,
    failed: AtomicBool,
}

#[test]
fn random_scenarios_are_the_same_with_the_kernel() {
    if let Err(reason) = thread::spawn(|| Lab::new().map(drop)).join().expect("no panic") {
        eprintln!("PASSED OVER: the kernel cannot be compared with: {reason}");
        return;
    }
    if let Some(seed) = number("PREQUEUE_DIFFERENTIAL_SEED") {
        return one(seed);
    }
    let seconds = number("PREQUEUE_DIFFERENTIAL_SECONDS").unwrap_or(SECONDS);
    let threads = number("PREQUEUE_DIFFERENTIAL_THREADS").unwrap_or(THREADS);
    let end = Instant::now() + Duration::from_secs(seconds);
    // The same each time if nothing is said: a test that fails, fails again.
    let first = number("PREQUEUE_DIFFERENTIAL_FROM").unwrap_or(0);
    let tally = Tally::default();
    thread::scope(|scope| {
        for thread in 0..threads {
            let tally = &tally;
            scope.spawn(move || many(Dice::new(first ^ thread << 32), end, tally));
        }
    });
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    eprintln!(
        "{} scenarios, {} steps in {seconds} s from {first} on; {} differences did not repeat",
        count(&tally.scenarios),
        count(&tally.steps),
        count(&tally.passing),
    );
    for (name, times) in &*tally.explained.lock().expect("no panic") {
        eprintln!("  {times:6} × {name}");
    }
    assert!(!tally.failed.load(Ordering::Relaxed), "the stacks differ: see above");
}

/// Scenarios until it is time to end, or one fails.
fn many(mut seeds: Dice, end: Instant, tally: &Tally) {
    let mut lab = Lab::new().expect("it was possible a moment ago");
    while Instant::now() < end && !tally.failed.load(Ordering::Relaxed) {
        let seed = seeds.next();
        let scenario = scenario(seed);
        let outcome = lab.run(&scenario, None);
        tally.scenarios.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Same(steps) => {
                tally.steps.fetch_add(steps as u64, Ordering::Relaxed);
            }
            Outcome::Explained(explained) => {
                let mut all = tally.explained.lock().expect("no panic");
                *all.entry(explained.name).or_default() += 1;
            }
            Outcome::Different(_) => match shrink::fails(&mut lab, &scenario) {
                None => {
                    tally.passing.fetch_add(1, Ordering::Relaxed);
                }
                Some(difference) => {
                    if number("PREQUEUE_DIFFERENTIAL_GO_ON").is_none() {
                        tally.failed.store(true, Ordering::Relaxed);
                    }
                    let small = shrink::shrink(&mut lab, &scenario, &difference);
                    let mut trace = Vec::new();
                    lab.run(&small, Some(&mut trace));
                    eprintln!(
                        "DIFFERENT with PREQUEUE_DIFFERENTIAL_SEED={seed}, made smaller:\n{small}\n{}\n",
                        trace.join("\n")
                    );
                }
            },
        }
    }
}

/// The scenario of one seed, step by step.
fn one(seed: u64) {
    let told = thread::spawn(move || {
        let mut lab = Lab::new().expect("it was possible a moment ago");
        let scenario = scenario(seed);
        eprintln!("{scenario}");
        let mut trace = Vec::new();
        let outcome = lab.run(&scenario, Some(&mut trace));
        eprintln!("{}", trace.join("\n"));
        outcome
    });
    let outcome = told.join().expect("no panic");
    if let Outcome::Explained(explained) = &outcome {
        eprintln!(
            "It is known that they differ in this: {}.\n{}",
            explained.name, explained.reason
        );
    }
    assert!(!matches!(outcome, Outcome::Different(_)), "the stacks differ: {outcome:?}");
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is to be a number: {text:?}")))
}
