//! What a device tells of itself while it runs: its link, its counters, and what a queue has found.
//!
//! Asked for by the thread that has the port, or a queue; nothing here waits for the device.

use dpdk_sys as sys;

use super::Port;
use super::core::PortCore;

/// State of the link.
///
/// See [`Port`] for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Whether it carries both ways at once.
    pub full_duplex: bool,
    /// Its speed, if the device knows.
    pub speed_mbps: Option<u32>,
}

/// The device's own counters, since it was started.
///
/// See [`Port`] for an example.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that came while no descriptor was free: the poll loop is too slow.
    pub rx_missed: u64,
    /// Packets that arrived broken.
    pub rx_errors: u64,
    /// Times the pool had no mbuf for a descriptor.
    pub rx_no_mbuf: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// What a queue's own checks found, since it was made.
///
/// See [`Port`] for an example.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RxCounters {
    /// Packets that came in several segments, because they are longer than one, and are left so.
    pub chained: u64,
    /// Packets that came in several segments and were copied into one.
    pub linearised: u64,
    /// Packets that came in several segments of which some are not ours alone, and do not fit one:
    /// dropped.
    pub rejected_chains: u64,
    /// Packets in mbufs of somebody else's pool, which have no control block: dropped.
    pub foreign: u64,
}

impl PortCore {
    /// The link, without waiting for it.
    pub fn link(&self) -> Link {
        let mut link = sys::pqs_port_link::default();
        // SAFETY: a valid port, and a place for the answer, which stays "down" if there is none.
        unsafe { sys::pqs_port_link(self.id.number(), &mut link) };
        let sys::pqs_port_link { up, full_duplex, speed_mbps } = link;
        let known = speed_mbps != 0 && speed_mbps != sys::RTE_ETH_SPEED_NUM_UNKNOWN;
        Link { up, full_duplex, speed_mbps: known.then_some(speed_mbps) }
    }
}

impl Port {
    /// The link, without waiting for it.
    pub fn link(&self) -> Link {
        self.core.link()
    }

    /// The device's counters.
    pub fn stats(&self) -> PortStats {
        // SAFETY: a struct of integers.
        let mut stats: sys::rte_eth_stats = unsafe { std::mem::zeroed() };
        // SAFETY: a valid port, and a place for the answer, which stays zero if there is none.
        unsafe { sys::rte_eth_stats_get(self.core.id.number(), &mut stats) };
        PortStats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_mbuf: stats.rx_nombuf,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        }
    }
}
