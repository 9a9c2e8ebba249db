//! The protocol core, sans-IO: no threads, no atomics, no clock, no DPDK, no `unsafe`.
//!
//! Generic over the packet buffer; takes the time as an argument; returns what to send.

pub mod cookie;
pub mod counters;
pub mod icmp;
pub mod isn;
pub mod listen;
pub mod negotiate;
pub mod ofo;
pub mod ratelimit;
pub mod request;
pub mod reset;
pub mod sack;
pub mod seq;
pub mod settings;
pub mod tcb;
#[cfg(test)]
mod testing;
pub mod time_wait;
pub mod timestamps;

use crate::time::Instant;

pub use counters::{Counter, Counters};
pub use icmp::PathError;
pub use seq::{SeqNum, SeqRange};
pub use settings::{Setting, SettingError, Settings, SynCookies, Unit};

/// What every entry point of the core is given: the time, the settings, the counters.
#[derive(Debug)]
pub struct Cx<'a> {
    /// When the burst was read, or the timer looked at.
    pub now: Instant,
    /// The stack's settings.
    pub settings: &'a Settings,
    /// The calling lcore's counters.
    pub counters: &'a mut Counters,
}
