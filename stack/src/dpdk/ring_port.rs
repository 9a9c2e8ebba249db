//! Ports made of rings in this process: what one sends, the other receives, the same mbufs.
//!
//! For tests and benchmarks: they need no device, no privilege and no kernel, and cost about 3 ns a
//! poll. The peer's side is an ordinary [`Port`]; whichever thread drops what it receives needs a
//! pool made with [`Sharing::AnyThread`](super::Sharing::AnyThread).

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys as sys;

use super::eal::{Eal, errno_text};
use super::mbuf::Mbuf;
use super::port::{Port, PortConfig, PortError};
use super::port_id::PortId;

/// A port whose queues are rings, not set up yet.
///
/// ```no_run
/// use prequeue::buf::PacketBuf;
/// use prequeue::dpdk::ring_port::RingPort;
/// use prequeue::dpdk::{Burst, Eal, Mempool, PoolConfig, PortConfig, Sharing, TEST_ARGS};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let eal = Eal::init(TEST_ARGS)?;
/// let config = PoolConfig { sharing: Sharing::AnyThread, ..PoolConfig::default() };
/// let pool = Mempool::new(eal, &config)?;
/// let config = PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
/// let (near, far) = RingPort::pair(eal, 1, 256)?;
/// let (mut near, mut far) = (near.configure(config.clone())?, far.configure(config)?);
/// let (_, mut tx) = near.start()?.remove(0);
/// let (mut rx, _) = far.start()?.remove(0);
///
/// let mut burst = Burst::<32>::new();
/// let mut frame = pool.alloc().expect("a fresh pool is full");
/// assert!(frame.append(b"a frame"));
/// assert!(burst.push(frame).is_ok());
/// tx.send(&mut burst);
/// assert_eq!(rx.rx(&mut burst), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RingPort {
    id: PortId,
    rings: Arc<Rings>,
}

/// The rings or the port could not be made.
///
/// See [`RingPort`] for an example.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot make a port of {queues} rings of {slots} mbufs: {reason}")]
pub struct RingError {
    queues: usize,
    slots: u32,
    reason: String,
}

impl RingPort {
    /// Two ports, each of `queues` queue pairs; queue `i` of one sends to queue `i` of the other. A
    /// ring holds `slots` mbufs.
    pub fn pair(_eal: &'static Eal, queues: usize, slots: u32) -> Result<(Self, Self), RingError> {
        let (forth, back) = (Rings::new(queues, slots)?, Rings::new(queues, slots)?);
        let near = attach(&back, &forth, slots)?;
        let far = attach(&forth, &back, slots)?;
        let rings = Arc::new(Rings(forth.0.iter().chain(&back.0).copied().collect()));
        std::mem::forget((forth, back));
        Ok((Self { id: near, rings: rings.clone() }, Self { id: far, rings }))
    }

    /// One port that receives what it sends.
    pub fn loopback(_eal: &'static Eal, queues: usize, slots: u32) -> Result<Self, RingError> {
        let rings = Rings::new(queues, slots)?;
        let id = attach(&rings, &rings, slots)?;
        Ok(Self { id, rings: Arc::new(rings) })
    }

    /// Its number.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Sets the port up. The rings live until both ports of a pair are closed; what is in them then
    /// is freed.
    pub fn configure(self, config: PortConfig) -> Result<Port, PortError> {
        Port::configure_keeping(self.id, config, Some(self.rings))
    }
}

/// Rings of mbufs, and the mbufs in them.
#[derive(Debug)]
struct Rings(Vec<NonNull<sys::rte_ring>>);

// SAFETY: a list of pointers, which only `drop` follows.
unsafe impl Send for Rings {}
// SAFETY: as above.
unsafe impl Sync for Rings {}

impl Rings {
    fn new(count: usize, slots: u32) -> Result<Self, RingError> {
        let mut rings = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let name = unique_name("prequeue_r");
            // SAFETY: the EAL is up; the name is copied. -1: memory of any NUMA node.
            let ring = unsafe { sys::pqs_ring_create(name.as_ptr(), slots, -1) };
            match NonNull::new(ring) {
                Some(ring) => rings.0.push(ring),
                None => return Err(RingError { queues: count, slots, reason: errno_text() }),
            }
        }
        Ok(rings)
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        for ring in &self.0 {
            // SAFETY: the ports that used the ring are closed, so what is in it is nobody else's;
            // only mbufs of our pools can be sent.
            unsafe {
                while let Some(mbuf) = NonNull::new(sys::pqs_ring_pop(ring.as_ptr())) {
                    drop(Mbuf::from_raw(mbuf));
                }
                sys::rte_ring_free(ring.as_ptr());
            }
        }
    }
}

/// Makes a port that receives from `rx` and sends to `tx`.
fn attach(rx: &Rings, tx: &Rings, slots: u32) -> Result<PortId, RingError> {
    let name = unique_name("prequeue_p");
    let pointers = |rings: &Rings| rings.0.iter().map(|ring| ring.as_ptr()).collect::<Vec<_>>();
    let (mut rx, mut tx) = (pointers(rx), pointers(tx));
    // SAFETY: the name and the arrays are copied.
    let id = unsafe {
        let (rx_len, tx_len) = (rx.len() as u32, tx.len() as u32);
        sys::rte_eth_from_rings(name.as_ptr(), rx.as_mut_ptr(), rx_len, tx.as_mut_ptr(), tx_len, 0)
    };
    match u16::try_from(id) {
        Ok(id) => Ok(PortId::new(id)),
        Err(_) => Err(RingError { queues: rx.len(), slots, reason: errno_text() }),
    }
}

/// Rings and ports are known by name in the whole process.
fn unique_name(prefix: &str) -> CString {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    CString::new(format!("{prefix}{serial}")).expect("no NUL in it")
}
