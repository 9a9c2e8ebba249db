//! How fast the receive path is: workloads, floors, peers, and the run that compares them.
//!
//! One thread; mbufs built beforehand; rx_burst on an in-process ring, then the receiver under
//! measurement, which reads everything and gives the buffers back. Quote ratios of one run only.

pub mod bench;
pub mod contender;
pub mod engine;
pub mod floor;
pub mod frames;
pub mod minima;
pub mod peers;
pub mod workload;
