//! Ports: set up and started by one thread, then polled through queue handles, one thread each.
//!
//! A port stops and closes when its handle and all its queues have been dropped: no queue can be
//! polled on a port that is going away. Every queue has its pool; RSS spreads TCP over several.

mod core;
mod error;
mod rx;
mod stats;
mod tx;

use std::any::Any;
use std::ffi::{c_char, c_int};
use std::sync::{Arc, PoisonError};

use dpdk_sys as sys;

use self::core::{Lease, PortCore};
use super::eal::error_text;
use super::mbuf;
use super::mempool::Mempool;
use super::port_id::PortId;

pub use error::PortError;
pub use rx::RxQueue;
pub use stats::{Link, PortStats, RxCounters};
pub use tx::TxQueue;

/// How a port is set up.
///
/// See [`Port`] for an example.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// One pool for each RX queue; as many TX queues are made. With several, RSS is asked for.
    pub pools: Vec<Mempool>,
    /// RX descriptors of a queue; the device may round.
    pub rx_descriptors: u16,
    /// TX descriptors of a queue; the device may round.
    pub tx_descriptors: u16,
    /// Largest IP packet; `None` leaves the device's.
    pub mtu: Option<u16>,
    /// Ethernet address; `None` leaves the device's.
    pub mac: Option<[u8; 6]>,
    /// Let the device verify checksums, if it can.
    pub rx_checksum: bool,
    /// Let the device stamp received packets, if it can.
    pub rx_timestamps: bool,
    /// Let the device take VLAN tags off, if it can: [`Mbuf::take_vlan`](super::Mbuf::take_vlan) knows.
    pub rx_vlan_strip: bool,
}

impl Default for PortConfig {
    /// No pool yet, 1024 descriptors each way, the device's MTU and address, checksums by the
    /// device.
    fn default() -> Self {
        Self {
            pools: Vec::new(),
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            mac: None,
            rx_checksum: true,
            rx_timestamps: false,
            rx_vlan_strip: false,
        }
    }
}

/// A port that has been set up.
///
/// The port itself is set up, started and asked by one thread at a time; its queues go to the threads
/// that poll. Setting up and starting fail with [`PortError`].
///
/// ```no_run
/// use prequeue::dpdk::{Burst, Mempool, Port, PortConfig, PortError, PortId};
///
/// fn echo_a_burst(id: PortId, pool: &Mempool) -> Result<(), PortError> {
///     let config = PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
///     let mut port = Port::configure(id, config)?;
///     let Some((mut rx, mut tx)) = port.start()?.pop() else { return Ok(()) };
///     let mut burst = Burst::<32>::new();
///     rx.rx(&mut burst);
///     tx.send(&mut burst);
///     println!("{:?} {:?} {:?}", port.link(), port.stats(), rx.counters());
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Port {
    core: Arc<PortCore>,
    mac: [u8; 6],
    mtu: u16,
    rx_checksum: bool,
    rx_timestamps: bool,
    rss: bool,
    /// Taken by `start`.
    queues: Vec<(RxQueue, TxQueue)>,
}

impl Port {
    /// Sets a port up. It receives nothing until it is started.
    pub fn configure(id: PortId, config: PortConfig) -> Result<Self, PortError> {
        Self::configure_keeping(id, config, None)
    }

    /// The same; `keep` is dropped after the port has been closed.
    pub(super) fn configure_keeping(
        id: PortId,
        config: PortConfig,
        keep: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Self, PortError> {
        let PortConfig {
            pools,
            rx_descriptors,
            tx_descriptors,
            mtu,
            mac,
            rx_checksum,
            rx_timestamps,
            rx_vlan_strip,
        } = config;
        // SAFETY: any number may be asked about.
        if unsafe { sys::rte_eth_dev_is_valid_port(id.number()) } == 0 {
            return Err(PortError::NoSuchPort(id));
        }
        let lease = Lease::take(id)?;
        let call = |step, ret: c_int| match ret {
            ret if ret >= 0 => Ok(()),
            ret => Err(PortError::Driver { port: id, step, reason: error_text(ret) }),
        };

        let mut info = sys::pqs_port_info::default();
        // SAFETY: a valid port, and a place for the answer.
        call("asking for its abilities", unsafe { sys::pqs_port_info(id.number(), &mut info) })?;
        let queues = pools.len();
        let have = usize::from(info.max_rx_queues.min(info.max_tx_queues));
        if queues == 0 {
            return Err(PortError::NoQueues);
        }
        if queues > have {
            return Err(PortError::TooManyQueues { port: id, want: queues, have });
        }
        // A port made of rings has no hash; whoever writes to its rings chooses.
        let driver = text(&info.driver);
        let rss = queues > 1 && info.rss;
        if queues > 1 && !rss && driver != "net_ring" {
            return Err(PortError::NoRss { port: id, driver });
        }
        let mut frame_mtu = mtu.unwrap_or(0);
        if frame_mtu == 0 {
            // SAFETY: a valid port, and a place for the answer.
            call("asking for its MTU", unsafe {
                sys::rte_eth_dev_get_mtu(id.number(), &mut frame_mtu)
            })?;
        }
        if let Some(mtu) = mtu.filter(|&mtu| mtu > info.max_mtu) {
            return Err(PortError::MtuOverDevice { port: id, mtu, most: info.max_mtu });
        }
        let room = pools.iter().map(Mempool::frame_room).min().unwrap_or(0);
        let scatters = u32::from(frame_mtu) + FRAME_OVERHEAD > room;
        if scatters && !info.rx_scatter {
            return Err(PortError::MtuTooLarge { mtu: frame_mtu, room });
        }

        let mut conf = sys::pqs_port_conf {
            rx_queues: queues as u16,
            tx_queues: queues as u16,
            rx_desc: rx_descriptors,
            tx_desc: tx_descriptors,
            // A driver that does not know how to set an MTU must not be told to leave it.
            mtu: mtu.unwrap_or(0),
            rss,
            rx_checksum: rx_checksum && info.rx_checksum,
            rx_timestamp: rx_timestamps && info.rx_timestamp && mbuf::enable_rx_timestamps(),
            rx_scatter: scatters,
            rx_vlan_strip: rx_vlan_strip && info.rx_vlan_strip,
        };
        // SAFETY: a valid port that we alone have set up; a stopped one.
        unsafe {
            call("configuring", sys::pqs_port_configure(id.number(), &mut conf))?;
            if let Some(mtu) = mtu {
                call("setting the MTU", sys::rte_eth_dev_set_mtu(id.number(), mtu))?;
            }
            if let Some(mac) = mac {
                call("setting the address", sys::pqs_port_set_mac(id.number(), mac.as_ptr()))?;
            }
        }
        let mut address = [0; 6];
        // SAFETY: six bytes of room.
        call("asking for its address", unsafe {
            sys::pqs_port_mac(id.number(), address.as_mut_ptr())
        })?;
        // From here on, what fails closes the port.
        let core =
            Arc::new(PortCore { id, started: false.into(), pools, _keep: keep, _lease: lease });
        for (queue, pool) in (0..).zip(&core.pools) {
            // SAFETY: within the number configured; the core keeps the pool until the port is
            // closed.
            unsafe {
                let rx = sys::pqs_port_rx_queue(id.number(), queue, conf.rx_desc, pool.raw());
                call("making an RX queue", rx)?;
                call(
                    "making a TX queue",
                    sys::pqs_port_tx_queue(id.number(), queue, conf.tx_desc),
                )?;
            }
        }
        let queues = (0..)
            .zip(&core.pools)
            .map(|(queue, pool)| {
                let rx = RxQueue {
                    core: core.clone(),
                    queue,
                    pool: pool.clone(),
                    descriptors: conf.rx_desc,
                    counters: RxCounters::default(),
                };
                (rx, TxQueue { core: core.clone(), queue, descriptors: conf.tx_desc })
            })
            .collect();
        Ok(Self {
            core,
            mac: address,
            mtu: frame_mtu,
            rx_checksum: conf.rx_checksum,
            rx_timestamps: conf.rx_timestamp,
            rss,
            queues,
        })
    }

    /// Starts the port and gives its queue pairs, in order: the first time; none afterwards.
    ///
    /// Takes the RX descriptors' mbufs from the pools, so no other thread may own them yet.
    pub fn start(&mut self) -> Result<Vec<(RxQueue, TxQueue)>, PortError> {
        if self.queues.is_empty() {
            return Ok(Vec::new());
        }
        let id = self.core.id;
        // SAFETY: set up, stopped, and no queue handle is out.
        let ret = unsafe { sys::rte_eth_dev_start(id.number()) };
        if ret < 0 {
            return Err(PortError::Driver { port: id, step: "starting", reason: error_text(ret) });
        }
        *self.core.started.lock().unwrap_or_else(PoisonError::into_inner) = true;
        // SAFETY: a started port. A device without such a mode is not in it: no error.
        unsafe { sys::rte_eth_promiscuous_disable(id.number()) };
        Ok(std::mem::take(&mut self.queues))
    }

    /// Has the port take frames to these groups too, in the place of any others; to all groups if it
    /// cannot tell them apart. A device without such a filter takes them anyway: no error.
    pub fn join(&mut self, groups: &mut [[u8; 6]]) {
        // SAFETY: a port that is set up, and as many addresses as are said, which the driver copies.
        unsafe {
            sys::pqs_port_join(self.core.id.number(), groups.as_mut_ptr(), groups.len() as u32)
        };
    }

    /// Its number.
    pub fn id(&self) -> PortId {
        self.core.id
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Its MTU.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether the device verifies checksums. Each mbuf says for itself.
    pub fn rx_checksum(&self) -> bool {
        self.rx_checksum
    }

    /// Whether the device notes when it received each frame: see [`Mbuf::rx_timestamp`](super::Mbuf::rx_timestamp).
    pub fn rx_timestamps(&self) -> bool {
        self.rx_timestamps
    }

    /// Whether the device spreads packets over the queues by their hash.
    pub fn rss(&self) -> bool {
        self.rss
    }
}

/// Bytes of a frame besides the IP packet: Ethernet header, one VLAN tag, frame check sequence.
const FRAME_OVERHEAD: u32 = 14 + 4 + 4;

fn text(chars: &[c_char]) -> String {
    chars.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
}
