//! Scenarios of TCP, frame by frame, under a virtual clock: a scripted peer against the stack.
//!
//! The language is in `dsl`; the other modules are the scenarios, in the order of a connection's
//! life. Each runs against every [`SUBJECTS`] entry.

mod arrivals;
mod closing;
mod core_host;
mod dsl;
mod engine_host;
mod handshake;
mod hostile;
mod listener;
mod time_wait;

use std::net::Ipv4Addr;

use prequeue::tcp::Settings;
use prequeue::wire::MacAddr;

use dsl::Subject;

/// The addresses that a subject answers to, on a /24.
const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Makes a subject from settings and a seed for its secrets.
type Make = fn(Settings, u64) -> Box<dyn Subject>;

/// What every scenario is played against.
const SUBJECTS: [(&str, Make); 2] = [("core", core_host::make), ("engine", engine_host::make)];
