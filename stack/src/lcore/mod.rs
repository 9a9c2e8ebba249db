//! The poll loop of an lcore: burst in, look up, dispatch, timers, burst out.
//!
//! Each lcore has one of everything here and its own thread; lcores meet only through the rings of
//! [`mesh`]. Nothing here knows what application threads do with a socket.

mod bind;
#[cfg(feature = "dpdk")]
mod census;
mod chain;
mod claims;
mod closing;
mod discovery;
mod dispatch;
#[cfg(feature = "dpdk")]
pub(crate) mod drive;
pub mod engine;
pub mod fault;
pub mod flow;
mod fragments;
mod groups;
pub mod hash;
mod hoards;
mod icmp;
mod icmp6;
mod interface;
mod limits;
mod membership;
mod memory;
pub mod mesh;
pub mod neighbour;
mod opening;
#[cfg(feature = "dpdk")]
pub(crate) mod poll;
mod presence;
mod roll;
#[cfg(test)]
mod scenario;
mod shared;
pub mod slab;
mod sockets;
mod tables;
mod visit;
pub mod wheel;
mod work;

pub use bind::Bind;
pub use claims::Role;
pub use engine::{Engine, EngineConfig, Population, engines, local_engine};
pub use groups::BURST;
pub use interface::{Interface, MOST_ADDRESSES, Net, NetError, Standing};
pub use memory::{Holder, HolderScan};
pub use roll::{Listed, Roll};
pub use shared::{ListenOptions, Listeners};

use crate::wire::frame::MAX_CONTROL_LEN;

/// Where frames go: a device's TX queue, or a list in a test.
///
/// Whatever the device refuses for the moment is the implementation's business to keep and retry.
///
/// ```
/// use prequeue::lcore::Transmit;
///
/// #[derive(Default)]
/// struct Counting(usize);
///
/// impl Transmit for Counting {
///     fn send(&mut self, frame: &[u8]) {
///         self.0 += frame.len();
///     }
/// }
/// ```
pub trait Transmit {
    /// Takes a copy of the frame.
    fn send(&mut self, frame: &[u8]);

    /// Takes a frame that is still to be written: `write` is given room for any without payload, whose
    /// content is arbitrary, and returns the frame's length. Who can have it written where it is sent from
    /// saves the copy.
    #[inline]
    fn send_written(&mut self, write: impl FnOnce(&mut [u8; MAX_CONTROL_LEN]) -> usize) {
        let mut room = [0; MAX_CONTROL_LEN];
        let len = write(&mut room);
        self.send(&room[..len]);
    }
}

impl Transmit for Vec<Vec<u8>> {
    fn send(&mut self, frame: &[u8]) {
        self.push(frame.to_vec());
    }
}

/// How far the buffer pool has been used up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pressure {
    /// There is enough.
    #[default]
    None,
    /// Nothing more is queued above holes, where it could stay for long, nor for those that hold
    /// much already.
    High,
    /// No payload is taken: what is left is for the RX descriptors, without which everything stops.
    Critical,
}

impl Pressure {
    /// With room for so many more buffers, of all that sockets may hold.
    pub const fn of(room: u32, holdable: u32) -> Self {
        if room <= 2 * BURST as u32 {
            Self::Critical
        } else if room <= holdable / 4 {
            Self::High
        } else {
            Self::None
        }
    }
}
