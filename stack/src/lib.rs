//! prequeue: a poll-mode TCP receive stack.
//!
//! Poll-mode lcores pull mbufs from NIC RX queues, run the TCP receive path on them in place, and
//! pass in-sequence data to application threads through SPSC rings.
#![deny(unsafe_code)]

pub mod buf;
#[cfg(any(feature = "dpdk", test, loom))]
#[allow(unsafe_code)] // the safe wrapper over dpdk-sys
pub mod dpdk;
#[cfg(not(loom))]
pub mod lcore;
pub mod socket;
#[cfg(all(feature = "dpdk", not(loom)))]
pub mod stack;
pub mod tcp;
pub mod time;
pub mod wire;

#[cfg(all(feature = "dpdk", not(loom)))]
pub use stack::{
    ListenError, ListenOptions, Stack, StackBuilder, StartError, TcpListener, TcpStream,
};
