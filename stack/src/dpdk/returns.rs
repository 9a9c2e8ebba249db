//! The way back of mbufs: application threads give chains, the lcore that owns the pool takes all.
//!
//! [`ReturnStack`](super::return_stack) over the link in the private area. Giving is one exchange
//! and never waits; the lcore takes once per poll. Neither side touches the mempool here.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use dpdk_sys as sys;

use super::batch::{MbufBatch, Walk};
use super::bulk;
use super::mbuf::Mbuf;
use super::queue::{self, MbufQueue};
use super::return_stack::{Node, ReturnStack};
use crate::buf::{PacketBuf, Returns, SegCb};

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
pub struct MbufReturns(ReturnStack<sys::rte_mbuf>);

impl Returns<Mbuf> for MbufReturns {
    type Batch = MbufBatch;

    #[inline]
    fn collect(batch: &mut MbufBatch, mbuf: Mbuf) -> usize {
        batch.push(mbuf)
    }

    fn give_batch(&self, batch: MbufBatch) {
        if let Some((first, last)) = batch.into_chain() {
            // SAFETY: the carriers are ours, linked from first to last, with what they carry; mbufs
            // are Send.
            unsafe { self.0.push_chain(first, last) };
        }
    }

    fn give(&self, chain: MbufQueue) {
        if let Some((first, last)) = chain.into_chain() {
            // SAFETY: the chain is ours, linked from first to last; mbufs are Send.
            unsafe { self.0.push_chain(first, last) };
        }
    }

    fn free_all(&self, mut each: impl FnMut(&SegCb, u32)) {
        let mbufs = Walk::new(self.0.take_all()).map(|mbuf| {
            // SAFETY: what was taken is ours; the double is not dropped.
            let lent = unsafe { ManuallyDrop::new(Mbuf::from_raw(NonNull::new_unchecked(mbuf))) };
            each(lent.cb(), lent.truesize());
            mbuf
        });
        // SAFETY: ours, and not looked at again.
        unsafe { bulk::free_each(mbufs) };
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
