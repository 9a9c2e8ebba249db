//! The way back of mbufs: application threads give chains, the lcore that owns the pool takes all.
//!
//! [`ReturnStack`](super::return_stack) over the link in the private area. Giving is one exchange
//! and never waits; the lcore takes once per poll. Neither side touches the mempool here.

use std::ptr::NonNull;

use dpdk_sys as sys;

use super::batch::{self, MbufBatch};
use super::mbuf::Mbuf;
use super::queue::{self, MbufQueue};
use super::return_stack::{Node, ReturnStack};
use crate::buf::{Owner, PacketBuf, Returns};

/// Mbufs on their way back to one lcore. What is still in it when it is dropped is freed.
///
/// Any thread gives; the lcore that owns the pool takes.
///
/// ```no_run
/// use prequeue::buf::Returns;
/// use prequeue::dpdk::{MbufQueue, MbufReturns};
///
/// fn give(returns: &MbufReturns, read: MbufQueue) {
///     returns.give(read);
/// }
///
/// fn take(returns: &MbufReturns) -> u32 {
///     let mut truesize = 0;
///     returns.free_all(|_whose, size| truesize += size);
///     truesize
/// }
/// ```
#[derive(Debug, Default)]
pub struct MbufReturns {
    /// Mbufs that are linked one to the other.
    chains: ReturnStack<sys::rte_mbuf>,
    /// Carriers, and with them what they carry.
    batches: ReturnStack<sys::rte_mbuf>,
}

impl Returns<Mbuf> for MbufReturns {
    type Batch = MbufBatch;

    #[inline]
    fn collect(batch: &mut MbufBatch, mbuf: Mbuf, truesize: u32) {
        batch.push(mbuf, truesize);
    }

    #[inline]
    fn batch_len(batch: &MbufBatch) -> usize {
        batch.len()
    }

    fn give_batch(&self, batch: MbufBatch) {
        if let Some((first, last)) = batch.into_chain() {
            // SAFETY: the carriers are ours, linked from first to last, with what they carry; mbufs
            // are Send.
            unsafe { self.batches.push_chain(first, last) };
        }
    }

    fn give(&self, chain: MbufQueue) {
        if let Some((first, last)) = chain.into_chain() {
            // SAFETY: the chain is ours, linked from first to last; mbufs are Send.
            unsafe { self.chains.push_chain(first, last) };
        }
    }

    fn free_batch(batch: MbufBatch) -> u32 {
        batch.free()
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.batches.is_empty()
    }

    fn free_all(&self, mut told: impl FnMut(Owner, u32)) {
        if let Some(first) = self.chains.take_all() {
            let each = |mbuf: &Mbuf| told(mbuf.cb().owner, mbuf.truesize());
            // SAFETY: what was taken is ours, and linked.
            unsafe { queue::free_linked(first.as_ptr(), each) };
        }
        if let Some(first) = self.batches.take_all() {
            // SAFETY: what was taken is ours.
            unsafe { batch::free_all(first, told) };
        }
    }
}

impl Drop for MbufReturns {
    fn drop(&mut self) {
        self.free_all(|_, _| {});
    }
}

// SAFETY: the link is a field of the private area that only this and `MbufQueue` write, and no mbuf
// is on both.
unsafe impl Node for sys::rte_mbuf {
    unsafe fn next(node: NonNull<Self>) -> *mut Self {
        // SAFETY: the caller owns the mbuf, which is of a pool of ours.
        unsafe { queue::link(node).read() }
    }

    unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
        // SAFETY: as above.
        unsafe { queue::link(node).write(next) }
    }
}
