//! The stack's beginning and end, from a program's point of view.
//!
//! Called by `main`. What can go wrong at the start is told by the library's own errors, which are
//! sentences for people and say what to do.

use std::{
    thread,
    time::{Duration, Instant},
};

use prequeue::{LocalStack, Stack, StackBuilder, StartError, tcp::Counters};

use crate::args::Network;

/// How long [`finish`] waits for the farewells: a round trip or two, on any link.
const FAREWELL: Duration = Duration::from_millis(500);

/// Brings up DPDK with the EAL arguments, and the stack on its port.
///
/// # Errors
/// What stands in the way, and what to do about it.
pub fn start(eal: Vec<String>, network: &Network) -> Result<Stack, StartError> {
    let stack = builder(eal, network).start()?;
    if stack.yields() {
        eprintln!(
            "note: every CPU has a poll thread, so these yield when idle; \
             with fewer CPUs in -l the rest is faster"
        );
    }
    Ok(stack)
}

/// The stack as the command line has it, not started.
pub fn builder(eal: Vec<String>, network: &Network) -> StackBuilder {
    let Network { address, listen: _, port, gateway, mac, mtu } = network;
    let mut builder = Stack::builder().eal_args(eal).address(address);
    if let Some(port) = port {
        builder = builder.port(port);
    }
    if let Some(gateway) = gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(mac) = mac {
        builder = builder.mac(mac);
    }
    if let Some(mtu) = *mtu {
        builder = builder.mtu(mtu);
    }
    builder
}

/// Gives connections that are closing a moment to say so to their peers, then stops the stack.
/// Returns its last counters.
pub fn finish(stack: Stack) -> Counters {
    let end = Instant::now() + FAREWELL;
    while stack.population().sockets > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    let counters = stack.counters();
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
