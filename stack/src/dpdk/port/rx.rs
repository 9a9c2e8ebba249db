//! RX queues: bursts of mbufs as a driver leaves them, made what an [`Mbuf`] promises to be.
//!
//! Each is polled by one thread. Packets in several segments are left so, or copied into one if they are
//! short; what is not ours alone, and cannot be made so, is dropped and counted.

use std::iter::successors;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as sys;

use super::core::PortCore;
use super::stats::{Link, RxCounters};
use crate::buf::PacketBuf;
use crate::dpdk::burst::Burst;
use crate::dpdk::mbuf::Mbuf;
use crate::dpdk::mempool::Mempool;
use crate::dpdk::pool_core::is_plain;
use crate::wire::frame;

/// One RX queue, for the one thread that polls it.
///
/// See [`Port`](super::Port) for an example.
#[derive(Debug)]
pub struct RxQueue {
    pub(super) core: Arc<PortCore>,
    pub(super) queue: u16,
    pub(super) pool: Mempool,
    pub(super) descriptors: u16,
    pub(super) counters: RxCounters,
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
        let came = unsafe {
            sys::pqs_rx_burst(self.core.id.number(), self.queue, places.as_mut_ptr().cast(), room)
        };
        let came = usize::from(came);
        let pool = self.pool.raw();
        let mut kept = 0;
        for i in 0..came {
            // SAFETY: the driver has just written it, and given it to us.
            let mbuf = unsafe { places[i].assume_init() };
            // SAFETY: as above.
            if unsafe { is_plain(mbuf, pool) } || self.make_plain(mbuf) {
                // While the header is at hand: what the caller reads first, and where it writes.
                // SAFETY: plain, so an mbuf of ours; the double is not dropped.
                let lent =
                    ManuallyDrop::new(unsafe { Mbuf::from_raw(NonNull::new_unchecked(mbuf)) });
                lent.prefetch_data();
                lent.prefetch_cb();
                places[kept].write(mbuf);
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
    /// [`PoolPlan`](crate::dpdk::PoolPlan).
    pub fn descriptors(&self) -> u16 {
        self.descriptors
    }

    /// The port's link, without waiting for it. Asks the driver, which may ask the kernel.
    pub fn link(&self) -> Link {
        self.core.link()
    }

    /// What the queue's own checks found.
    pub fn counters(&self) -> RxCounters {
        self.counters
    }

    /// Number of the queue on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Makes a received mbuf what [`Mbuf`] promises to be, or frees it.
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

/// # Safety
/// `offset` is that of a field of type `T` in `rte_mbuf`.
#[inline(always)]
unsafe fn field<T>(mbuf: *mut sys::rte_mbuf, offset: u32) -> *mut T {
    // SAFETY: forwarded.
    unsafe { NonNull::new_unchecked(mbuf).byte_add(offset as usize).cast().as_ptr() }
}
