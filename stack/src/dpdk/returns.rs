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
pub struct MbufReturns {
    /// Mbufs that are linked one to the other.
    chains: ReturnStack<sys::rte_mbuf>,
    /// Carriers, and with them what they carry.
    batches: ReturnStack<sys::rte_mbuf>,
}

impl Returns<Mbuf> for MbufReturns {
    type Batch = MbufBatch;

    #[inline]
    fn collect(batch: &mut MbufBatch, mbuf: Mbuf) {
        batch.push(mbuf);
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

    fn free_all(&self, mut each: impl FnMut(&SegCb, u32)) {
        let mut next = self.chains.take_all();
        let linked = std::iter::from_fn(|| {
            let mbuf = next?;
            // SAFETY: what was taken is ours, and linked.
            unsafe {
                next = NonNull::new(Node::next(mbuf));
                show(mbuf, &mut each);
            }
            Some(mbuf.as_ptr())
        });
        // SAFETY: ours, and not looked at again.
        unsafe { bulk::free_each(linked) };
        if let Some(first) = self.batches.take_all() {
            free_batches(first, &mut each);
        }
    }
}

/// Frees what a list of carriers has.
#[inline(never)]
fn free_batches(first: NonNull<sys::rte_mbuf>, each: &mut impl FnMut(&SegCb, u32)) {
    let mbufs = Walk::new(Some(first)).inspect(|&mbuf| {
        if let Some(mbuf) = NonNull::new(mbuf) {
            // SAFETY: what was taken is ours.
            unsafe { show(mbuf, each) };
        }
    });
    // SAFETY: ours, and not looked at again.
    unsafe { bulk::free_each(mbufs) };
}

/// Tells whose an mbuf is.
///
/// # Safety
/// The caller owns it.
#[inline(always)]
unsafe fn show(mbuf: NonNull<sys::rte_mbuf>, each: &mut impl FnMut(&SegCb, u32)) {
    // SAFETY: forwarded; the double is not dropped.
    let lent = ManuallyDrop::new(unsafe { Mbuf::from_raw(mbuf) });
    each(lent.cb(), lent.truesize());
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
