//! The stack's beginning and end, from a program's point of view.
//!
//! Called by `main`. What can go wrong at the start is told by the library's own errors, which are
//! sentences for people and say what to do.

use std::{
    error::Error,
    fmt, thread,
    time::{Duration, Instant},
};

use prequeue::{LocalStack, Stack, StackBuilder, lcore::Holder, tcp::Counters};

use crate::{args::Network, settings::TuningError, stdout::without_usage};

/// How long [`finish`] waits for the farewells: a round trip or two, on any link.
const FAREWELL: Duration = Duration::from_millis(500);

/// Brings up DPDK with the EAL arguments, and the stack on its port.
///
/// # Errors
/// What stands in the way, and what to do about it.
pub fn start(eal: Vec<String>, network: &Network) -> Result<Stack, Box<dyn Error>> {
    let builder = builder(eal.clone(), network)?;
    let stack = without_usage(&eal, || builder.start())?;
    if stack.yields() {
        eprintln!(
            "note: every CPU has a poll thread, so these yield when idle; \
             with fewer CPUs in -l the rest is faster"
        );
    }
    Ok(stack)
}

/// The same, for this thread to poll.
///
/// # Errors
/// As [`start`].
pub fn start_local(eal: Vec<String>, network: &Network) -> Result<LocalStack, Box<dyn Error>> {
    let builder = builder(eal.clone(), network)?;
    Ok(without_usage(&eal, || builder.start_local())?)
}

/// The stack as the command line has it, not started.
fn builder(eal: Vec<String>, network: &Network) -> Result<StackBuilder, TuningError> {
    let Network { address, listen: _, port, gateway, mac, vlan, mtu, tuning } = network;
    let settings = tuning.settings()?;
    let builder = Stack::builder().eal_args(with_telemetry(eal));
    let mut builder = address.iter().fold(builder, StackBuilder::address).settings(settings);
    if let Some(port) = port {
        builder = builder.port(port);
    }
    builder = gateway.iter().fold(builder, StackBuilder::gateway);
    if let Some(mac) = mac {
        builder = builder.mac(mac);
    }
    if let Some(vlan) = *vlan {
        builder = builder.vlan(vlan);
    }
    if let Some(mtu) = *mtu {
        builder = builder.mtu(mtu);
    }
    Ok(builder)
}

/// EAL arguments that let pq-stat look at the program, unless they say that nobody shall.
fn with_telemetry(mut eal: Vec<String>) -> Vec<String> {
    if !eal.iter().any(|arg| arg == "--telemetry" || arg == "--no-telemetry") {
        eal.push("--telemetry".to_owned());
    }
    eal
}

/// Gives connections that are closing a moment to say so to their peers, then stops the stack.
/// Returns its last counters.
pub fn finish(stack: Stack) -> Counters {
    let end = Instant::now() + FAREWELL;
    while stack.population().sockets > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    let counters = stack.counters();
    let holders = stack.holders_at_pressure();
    if !holders.is_empty() {
        eprint!("{}", RanOut { holders: &holders });
    }
    stack.stop();
    counters
}

/// As [`finish`], for a stack that this thread polls.
pub fn finish_local(mut stack: LocalStack) -> Counters {
    let end = Instant::now() + FAREWELL;
    while stack.population().sockets > 0 && Instant::now() < end {
        stack.poll();
    }
    stack.counters().clone()
}

/// What to say when packet buffers ran out: who held them.
struct RanOut<'a> {
    holders: &'a [Holder],
}

/// Holders that are named.
const NAMED: usize = 5;

impl fmt::Display for RanOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "segments were dropped because packet buffers ran out; those that held most:")?;
        for holder in self.holders.iter().take(NAMED) {
            writeln!(f, "  {holder}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_can_be_looked_at_unless_their_user_objects() {
        let args = |words: &[&str]| with_telemetry(words.iter().map(|&w| w.to_owned()).collect());
        assert_eq!(args(&["-l", "1"]), ["-l", "1", "--telemetry"]);
        assert_eq!(args(&["--no-telemetry"]), ["--no-telemetry"]);
        assert_eq!(args(&["--telemetry", "-l", "1"]), ["--telemetry", "-l", "1"]);
    }

    #[test]
    fn the_largest_holders_are_named_one_a_line() {
        let holder = |n: u8| Holder {
            local: ([10, 0, 0, 1], 7000).into(),
            peer: ([10, 0, 0, n], 40_000).into(),
            rmem: 1 << 20,
            backlog: 0,
            queues: None,
        };
        let text = RanOut { holders: &[2, 3, 4, 5, 6, 7].map(holder) }.to_string();
        assert_eq!(text.lines().count(), 1 + NAMED);
        assert_eq!(text.lines().nth(1), Some("  10.0.0.2:40000 at port 7000: 1024 KiB"));
    }
}
