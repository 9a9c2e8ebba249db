//! What is measured: something that takes bursts of mbufs and delivers a stream.

use std::fmt;

use prequeue::dpdk;

use crate::frames::Client;
use crate::workload::Workload;

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

    /// Whether it can cope with what arrives. A floor takes data in order only.
    fn fits(&self, _workload: Workload) -> bool {
        true
    }

    /// Whether it gives the application the bytes, and not only their number.
    fn delivers(&self) -> bool {
        true
    }

    /// Opens a fresh connection from `client`, forgetting the last. Returns our ISS.
    fn open(&mut self, client: &Client) -> u32;

    /// The part that is timed: takes one burst, lets the application read what is in order, answers,
    /// and gives the buffers back. Returns the number of bytes read.
    fn burst(&mut self, burst: &mut Burst, application: &mut dyn Application) -> usize;
}

/// Who reads. Called once per read, not per segment, so that it costs the timed part nothing.
pub trait Application {
    /// Bytes that lie in the reader's buffer now; they continue what came before.
    fn read(&mut self, bytes: &[u8]);

    /// Whether it looks at what it reads. Who hands out segment by segment asks once per burst, and
    /// spares the careless one the call.
    fn looks(&self) -> bool {
        true
    }
}

/// An application that does not look at what it reads: the one that is timed.
#[derive(Clone, Copy, Debug)]
pub struct Careless;

impl Application for Careless {
    fn read(&mut self, _bytes: &[u8]) {}

    fn looks(&self) -> bool {
        false
    }
}

impl fmt::Debug for dyn Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
