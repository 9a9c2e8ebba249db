//! What is measured: something that takes bursts of mbufs and delivers a stream.

use std::fmt;

use prequeue::dpdk;

use crate::frames::Client;

/// Frames in a burst.
pub const BURST: usize = 32;

/// Bytes of the buffer that the application reads into.
pub const READ_BUFFER: usize = 64 * 1024;

/// A burst as it comes from the device.
pub type Burst = dpdk::Burst<BURST>;

/// A receiver under measurement: one thread, one connection, everything read at once.
pub trait Contender {
    /// Name in the table.
    fn name(&self) -> &'static str;

    /// Opens a fresh connection from `client`, forgetting the last. Returns our ISS.
    fn open(&mut self, client: &Client) -> u32;

    /// The part that is timed: takes one burst, lets the application read what is in order, answers,
    /// and gives the buffers back. Returns the number of bytes read.
    fn burst(&mut self, burst: &mut Burst) -> usize;
}

impl fmt::Debug for dyn Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
