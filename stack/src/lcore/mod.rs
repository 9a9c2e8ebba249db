//! The poll loop of an lcore: burst in, look up, dispatch, timers, burst out.
//!
//! Each lcore has one of everything here and its own thread; lcores meet only through the rings of
//! [`mesh`]. Nothing here knows what application threads do with a socket.

#[cfg(feature = "dpdk")]
mod census;
mod closing;
mod dispatch;
#[cfg(feature = "dpdk")]
pub(crate) mod drive;
pub mod engine;
pub mod fault;
pub mod flow;
mod groups;
pub mod hash;
mod memory;
pub mod mesh;
pub mod neighbour;
mod opening;
#[cfg(feature = "dpdk")]
pub(crate) mod poll;
#[cfg(test)]
mod scenario;
mod shared;
pub mod slab;
mod sockets;
pub mod wheel;
mod work;

use std::net::Ipv4Addr;

use crate::wire::{MacAddr, ipv4};

pub use engine::{BURST, Engine, EngineConfig, Population, engines, local_engine};
pub use memory::{Holder, HolderScan};
pub use shared::{ListenOptions, Listeners};

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

/// The one interface of a stack: its addresses, and who is on the link.
///
/// ```
/// use prequeue::lcore::Interface;
/// use prequeue::wire::MacAddr;
///
/// let interface = Interface {
///     mac: MacAddr([2, 0, 0, 0, 0, 1]),
///     addr: [192, 0, 2, 10].into(),
///     prefix_len: 24,
///     gateway: Some([192, 0, 2, 1].into()),
///     mtu: 1500,
/// };
/// assert!(interface.is_on_link([192, 0, 2, 77].into()));
/// assert_eq!(interface.next_hop([198, 51, 100, 1].into()), interface.gateway);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// Our address.
    pub addr: Ipv4Addr,
    /// Bits of the address that name the link, 0 to 32.
    pub prefix_len: u8,
    /// Whom to give what is for others than those on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Bytes of the longest datagram.
    pub mtu: u16,
}

impl Interface {
    /// Whether `addr` is that of a host on our link; its broadcast addresses are not.
    pub fn is_on_link(&self, addr: Ipv4Addr) -> bool {
        let host_bits = u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
        (addr.to_bits() ^ self.addr.to_bits()) & !host_bits == 0 && !self.is_broadcast(addr)
    }

    /// Whom to send to for `dst`: itself, or the gateway if it is not on the link.
    pub fn next_hop(&self, dst: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.is_on_link(dst) { Some(dst) } else { self.gateway }
    }

    /// Whether `addr` means several hosts: a group, all of the link, all.
    pub fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        ipv4::is_multicast_or_broadcast(addr)
            || ipv4::is_subnet_broadcast(addr, self.addr, self.prefix_len)
    }
}
