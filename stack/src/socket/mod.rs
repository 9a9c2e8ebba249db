//! Where the lcore and application threads meet: ownership, backlog, prequeue, waiting, reading.
#[cfg(all(test, loom))]
mod loom;
pub(crate) mod notice;
pub(crate) mod owner;
pub(crate) mod park;
pub(crate) mod sync;
