//! Ports: set up and started by one thread, then polled through queue handles, one thread each.
//!
//! A port stops and closes when its handle and all its queues have been dropped: no queue can be
//! polled on a port that is going away. Every queue has its pool; RSS spreads TCP over several.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::iter::successors;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use dpdk_sys as sys;

use super::burst::Burst;
use super::eal::error_text;
use super::mbuf::{self, Mbuf};
use super::mempool::{Mempool, is_plain};
use crate::buf::PacketBuf;
use crate::wire::frame;

/// Number of a port.
///
/// ```no_run
/// use prequeue::dpdk::Eal;
///
/// fn number_of(eal: &Eal, name: &str) -> Option<u16> {
///     let port = eal.ports().into_iter().find(|port| port.name().as_deref() == Some(name))?;
///     Some(port.number())
/// }
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PortId(u16);

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
}

/// Why a port could not be set up or started.
///
/// Each says in a sentence what is wrong and what to do, for people to read.
///
/// ```no_run
/// use prequeue::dpdk::{Port, PortConfig, PortError, PortId};
///
/// fn up_to_two_queues(id: PortId, config: PortConfig) -> Result<Port, PortError> {
///     match Port::configure(id, config.clone()) {
///         Err(PortError::TooManyQueues { .. } | PortError::NoRss { .. }) => {
///             let pools = config.pools[..1].to_vec();
///             Port::configure(id, PortConfig { pools, ..config })
///         }
///         other => other,
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// There is no such port.
    #[error("there is no port {0}")]
    NoSuchPort(PortId),
    /// A port is set up once at a time.
    #[error("{0} is in use already")]
    InUse(PortId),
    /// No pool was given, so no queue was asked for.
    #[error("a port needs at least one queue, that is one pool")]
    NoQueues,
    /// More queues than the device has.
    #[error(
        "{port} has at most {have} queues, {want} were asked for: use as many lcores, or give the device more (rx_queues= where its driver has such an option)"
    )]
    TooManyQueues {
        /// The port.
        port: PortId,
        /// Queues asked for.
        want: usize,
        /// Queues it has, RX or TX, whichever are fewer.
        have: usize,
    },
    /// Several queues, and nothing to spread packets over them.
    #[error("{port} (driver {driver}) cannot spread TCP over several queues: use one lcore")]
    NoRss {
        /// The port.
        port: PortId,
        /// Its driver.
        driver: String,
    },
    /// A frame of that MTU does not fit an mbuf, and the device does not scatter it over several.
    #[error(
        "a frame of MTU {mtu} does not fit the pool's buffers, which take frames of {room} bytes, and the device does not scatter it over several: give the pool a larger data room"
    )]
    MtuTooLarge {
        /// MTU asked for, or the device's.
        mtu: u16,
        /// Bytes of frame that a buffer takes.
        room: u32,
    },
    /// The device does not take frames of that MTU.
    #[error("{port} takes an MTU of at most {most}, {mtu} was asked for")]
    MtuOverDevice {
        /// The port.
        port: PortId,
        /// MTU asked for.
        mtu: u16,
        /// The largest.
        most: u16,
    },
    /// The driver refused.
    #[error("{port}: {step} failed: {reason}")]
    Driver {
        /// The port.
        port: PortId,
        /// What was being done.
        step: &'static str,
        /// DPDK's word for the error.
        reason: String,
    },
}

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
        }
    }
}

impl PortId {
    pub(super) fn new(id: u16) -> Self {
        Self(id)
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The device's name: a PCI address, or what `--vdev` said.
    pub fn name(self) -> Option<String> {
        let mut name = [0 as c_char; sys::RTE_ETH_NAME_MAX_LEN as usize];
        // SAFETY: the buffer has the length that the call may write.
        unsafe {
            let ret = sys::rte_eth_dev_get_name_by_port(self.0, name.as_mut_ptr());
            (ret == 0).then(|| CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
        }
    }
}

impl PortId {
    /// Whether the device can scatter a frame over several mbufs that is longer than one.
    pub fn scatters(self) -> bool {
        let mut info = sys::pqs_port_info::default();
        // SAFETY: any number may be asked about; a place for the answer.
        unsafe {
            sys::rte_eth_dev_is_valid_port(self.0) != 0
                && sys::pqs_port_info(self.0, &mut info) == 0
                && info.rx_scatter
        }
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "port {} ({name})", self.0),
            None => write!(f, "port {}", self.0),
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
        } = config;
        // SAFETY: any number may be asked about.
        if unsafe { sys::rte_eth_dev_is_valid_port(id.0) } == 0 {
            return Err(PortError::NoSuchPort(id));
        }
        let lease = Lease::take(id)?;
        let call = |step, ret: c_int| match ret {
            ret if ret >= 0 => Ok(()),
            ret => Err(PortError::Driver { port: id, step, reason: error_text(ret) }),
        };

        let mut info = sys::pqs_port_info::default();
        // SAFETY: a valid port, and a place for the answer.
        call("asking for its abilities", unsafe { sys::pqs_port_info(id.0, &mut info) })?;
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
            call("asking for its MTU", unsafe { sys::rte_eth_dev_get_mtu(id.0, &mut frame_mtu) })?;
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
        };
        // SAFETY: a valid port that we alone have set up; a stopped one.
        unsafe {
            call("configuring", sys::pqs_port_configure(id.0, &mut conf))?;
            if let Some(mtu) = mtu {
                call("setting the MTU", sys::rte_eth_dev_set_mtu(id.0, mtu))?;
            }
            if let Some(mac) = mac {
                call("setting the address", sys::pqs_port_set_mac(id.0, mac.as_ptr()))?;
            }
        }
        let mut address = [0; 6];
        // SAFETY: six bytes of room.
        call("asking for its address", unsafe { sys::pqs_port_mac(id.0, address.as_mut_ptr()) })?;
        // From here on, what fails closes the port.
        let core =
            Arc::new(PortCore { id, started: false.into(), pools, _keep: keep, _lease: lease });
        for (queue, pool) in (0..).zip(&core.pools) {
            // SAFETY: within the number configured; the core keeps the pool until the port is
            // closed.
            unsafe {
                let rx = sys::pqs_port_rx_queue(id.0, queue, conf.rx_desc, pool.raw());
                call("making an RX queue", rx)?;
                call("making a TX queue", sys::pqs_port_tx_queue(id.0, queue, conf.tx_desc))?;
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
        let ret = unsafe { sys::rte_eth_dev_start(id.0) };
        if ret < 0 {
            return Err(PortError::Driver { port: id, step: "starting", reason: error_text(ret) });
        }
        *self.core.started.lock().unwrap_or_else(PoisonError::into_inner) = true;
        // SAFETY: a started port. A device without such a mode is not in it: no error.
        unsafe { sys::rte_eth_promiscuous_disable(id.0) };
        Ok(std::mem::take(&mut self.queues))
    }

    /// Has the port take frames to these groups too, in the place of any others; to all groups if it
    /// cannot tell them apart. A device without such a filter takes them anyway: no error.
    pub fn join(&mut self, groups: &mut [[u8; 6]]) {
        // SAFETY: a port that is set up, and as many addresses as are said, which the driver copies.
        unsafe { sys::pqs_port_join(self.core.id.0, groups.as_mut_ptr(), groups.len() as u32) };
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

    /// The link, without waiting for it.
    pub fn link(&self) -> Link {
        let mut link = sys::pqs_port_link::default();
        // SAFETY: a valid port, and a place for the answer, which stays "down" if there is none.
        unsafe { sys::pqs_port_link(self.core.id.0, &mut link) };
        let sys::pqs_port_link { up, full_duplex, speed_mbps } = link;
        let known = speed_mbps != 0 && speed_mbps != sys::RTE_ETH_SPEED_NUM_UNKNOWN;
        Link { up, full_duplex, speed_mbps: known.then_some(speed_mbps) }
    }

    /// The device's counters.
    pub fn stats(&self) -> PortStats {
        // SAFETY: a struct of integers.
        let mut stats: sys::rte_eth_stats = unsafe { std::mem::zeroed() };
        // SAFETY: a valid port, and a place for the answer, which stays zero if there is none.
        unsafe { sys::rte_eth_stats_get(self.core.id.0, &mut stats) };
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

/// One RX queue, for the one thread that polls it.
///
/// See [`Port`] for an example.
#[derive(Debug)]
pub struct RxQueue {
    core: Arc<PortCore>,
    queue: u16,
    pool: Mempool,
    descriptors: u16,
    counters: RxCounters,
}

impl RxQueue {
    /// Receives what is there into the free places of `burst`; returns how many mbufs came.
    ///
    /// Never waits. Vector drivers want at least four places, better 32.
    #[inline]
    pub fn rx<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let places = burst.spare();
        let room = places.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: a started port, `room` places, and `&mut self` is the only handle to the queue.
        let came =
            unsafe { sys::pqs_rx_burst(self.core.id.0, self.queue, places.as_mut_ptr(), room) };
        let came = usize::from(came);
        let pool = self.pool.raw();
        let mut kept = 0;
        for i in 0..came {
            let mbuf = places[i];
            // SAFETY: the driver has just given it to us.
            if unsafe { is_plain(mbuf, pool) } || self.make_plain(mbuf) {
                // While the header is at hand: what the caller reads first, and where it writes.
                // SAFETY: plain, so an mbuf of ours; the double is not dropped.
                let lent =
                    ManuallyDrop::new(unsafe { Mbuf::from_raw(NonNull::new_unchecked(mbuf)) });
                lent.prefetch_data();
                lent.prefetch_cb();
                places[kept] = mbuf;
                kept += 1;
            }
        }
        // SAFETY: `kept` places hold mbufs of ours with one reference.
        unsafe { burst.grow(kept) };
        kept
    }

    /// The pool that the queue fills its descriptors from.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// Mbufs that the device keeps for what will arrive. Never to be lent: see
    /// [`PoolPlan`](super::PoolPlan).
    pub fn descriptors(&self) -> u16 {
        self.descriptors
    }

    /// What the queue's own checks found.
    pub fn counters(&self) -> RxCounters {
        self.counters
    }

    /// Number of the queue on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Makes a received mbuf what [`super::Mbuf`] promises to be, or frees it.
    #[cold]
    fn make_plain(&mut self, mbuf: *mut sys::rte_mbuf) -> bool {
        // SAFETY: the driver has given it to us; chains are freed whole by DPDK's own function.
        unsafe {
            let pool = field::<*mut sys::rte_mempool>(mbuf, sys::PQS_OFF_POOL).read();
            match kind(mbuf) {
                Kind::Foreign => {
                    self.counters.foreign += 1;
                    sys::pqs_free(mbuf);
                    return false;
                }
                Kind::Ours if is_plain(mbuf, pool) => return true,
                Kind::Ours => {}
                Kind::Shared => {
                    if sys::pqs_linearize(mbuf) != 0 || !is_plain(mbuf, pool) {
                        self.counters.rejected_chains += 1;
                        sys::pqs_free(mbuf);
                        return false;
                    }
                    self.counters.linearised += 1;
                    return true;
                }
            }
            let mut chain = Mbuf::from_raw_chain(NonNull::new_unchecked(mbuf));
            // Or padding would keep buffers that nobody is charged for.
            if let Some(end) = frame::end_of_datagram(chain.data()) {
                chain.cut_chain(end);
            }
            let first = chain.len();
            let rest: usize = successors(chain.rest(), |buf| buf.rest()).map(Mbuf::len).sum();
            if rest <= COPIED && chain.gather(first + rest) {
                self.counters.linearised += 1;
            } else {
                self.counters.chained += 1;
            }
            mem::forget(chain);
            true
        }
    }
}

/// Bytes behind the first segment that had better be copied there than take a buffer of their own.
const COPIED: usize = 256;

/// Whose the segments of a received packet are.
enum Kind {
    /// All are ours alone.
    Ours,
    /// Somebody else refers to one, or it refers to somebody else's.
    Shared,
    /// One is of a pool that is not ours.
    Foreign,
}

/// # Safety
/// `mbuf` is the first of a packet that the caller owns.
unsafe fn kind(mbuf: *mut sys::rte_mbuf) -> Kind {
    let mut kind = Kind::Ours;
    let mut next = mbuf;
    while !next.is_null() {
        // SAFETY: forwarded; the links lead through the packet.
        unsafe {
            if !sys::pqs_pool_is_ours(
                field::<*mut sys::rte_mempool>(next, sys::PQS_OFF_POOL).read(),
            ) {
                return Kind::Foreign;
            }
            let references = field::<u16>(next, sys::PQS_OFF_REFCNT).read();
            let flags = field::<u64>(next, sys::PQS_OFF_OL_FLAGS).read();
            if references != 1 || flags & sys::RTE_MBUF_F_INDIRECT != 0 {
                kind = Kind::Shared;
            }
            next = field::<*mut sys::rte_mbuf>(next, sys::PQS_OFF_NEXT).read();
        }
    }
    kind
}

/// One TX queue, for the one thread that sends on it.
///
/// See [`Port`] for an example.
#[derive(Debug)]
pub struct TxQueue {
    core: Arc<PortCore>,
    queue: u16,
    descriptors: u16,
}

impl TxQueue {
    /// Sends from the front of `burst` what the device takes; the rest stays in it, in order, to be
    /// sent again. Returns how many were taken.
    #[inline]
    pub fn send<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let mbufs = burst.filled();
        if mbufs.is_empty() {
            return 0;
        }
        let n = mbufs.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: a started port, `n` mbufs of ours, and `&mut self` is the only handle to the
        // queue.
        let sent = unsafe { sys::pqs_tx_burst(self.core.id.0, self.queue, mbufs.as_mut_ptr(), n) };
        let sent = usize::from(sent);
        burst.forget_front(sent);
        sent
    }

    /// Mbufs that the device may be keeping.
    pub fn descriptors(&self) -> u16 {
        self.descriptors
    }

    /// Number of the queue on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }
}

/// Bytes of a frame besides the IP packet: Ethernet header, one VLAN tag, frame check sequence.
const FRAME_OVERHEAD: u32 = 14 + 4 + 4;

/// What the port's handle and all its queues share. The last to go closes the port.
struct PortCore {
    id: PortId,
    started: Mutex<bool>,
    // In order: the port is closed by `drop`, then its pools may go, then what it was made of, and
    // only then may somebody else have its number.
    pools: Vec<Mempool>,
    _keep: Option<Arc<dyn Any + Send + Sync>>,
    _lease: Lease,
}

impl fmt::Debug for PortCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortCore").field("id", &self.id).field("pools", &self.pools).finish()
    }
}

impl Drop for PortCore {
    fn drop(&mut self) {
        // SAFETY: no queue handle is left, so nobody polls.
        unsafe {
            if *self.started.get_mut().unwrap_or_else(PoisonError::into_inner) {
                sys::rte_eth_dev_stop(self.id.0);
            }
            sys::rte_eth_dev_close(self.id.0);
        }
    }
}

/// The right to set a port up, which one [`Port`] at a time has.
struct Lease(PortId);

static LEASED: Mutex<[bool; sys::PQS_MAX_PORTS as usize]> =
    Mutex::new([false; sys::PQS_MAX_PORTS as usize]);

impl Lease {
    fn take(id: PortId) -> Result<Self, PortError> {
        let mut leased = LEASED.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = &mut leased[usize::from(id.0)];
        if *mine {
            return Err(PortError::InUse(id));
        }
        *mine = true;
        Ok(Self(id))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        LEASED.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(self.0.0)] = false;
    }
}

/// # Safety
/// `offset` is that of a field of type `T` in `rte_mbuf`.
#[inline(always)]
unsafe fn field<T>(mbuf: *mut sys::rte_mbuf, offset: u32) -> *mut T {
    // SAFETY: forwarded.
    unsafe { NonNull::new_unchecked(mbuf).byte_add(offset as usize).cast().as_ptr() }
}

fn text(chars: &[c_char]) -> String {
    chars.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
}
