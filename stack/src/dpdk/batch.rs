//! Mbufs on their way back, named by a few of them: what a reader collects while it copies.
//!
//! Used by application threads, which have read nothing of an mbuf but its payload, if that; and by
//! the lcore that takes them back. A chain through all the private areas would have each line fetched
//! twice, and the lcore wait for one after the other. So one mbuf in sixteen is a *carrier*: the others
//! stay untouched, and stand in its headroom, which nobody needs any more.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use dpdk_sys as sys;

use super::mbuf::{Mbuf, prefetch};
use super::pool_core;
use super::queue::link;
use super::return_stack::Node;

/// Mbufs that a carrier names besides itself: as many as its headroom has words for, less one.
const CARRIED: u32 = sys::PQS_HEADROOM / size_of::<*mut sys::rte_mbuf>() as u32 - 1;

/// Mbufs to be given back together. Dropping it frees them.
///
/// It may go from thread to thread with its mbufs.
///
/// ```no_run
/// use prequeue::buf::Returns;
/// use prequeue::dpdk::{Mbuf, MbufBatch, MbufReturns};
///
/// fn give(returns: &MbufReturns, read: impl Iterator<Item = Mbuf>) {
///     let mut batch = MbufBatch::default();
///     for mbuf in read {
///         MbufReturns::collect(&mut batch, mbuf);
///     }
///     returns.give_batch(batch);
/// }
/// ```
#[derive(Default)]
pub struct MbufBatch {
    // Invariant: null both, or the first and last of carriers that are linked as a queue is but for
    // the last one's link, each with as many mbufs in its headroom as `carried` says; the batch owns
    // them all.
    first: Option<NonNull<sys::rte_mbuf>>,
    last: Option<NonNull<sys::rte_mbuf>>,
}

// SAFETY: it owns its mbufs, which are Send.
unsafe impl Send for MbufBatch {}

impl MbufBatch {
    /// Adds one.
    #[inline]
    pub(super) fn push(&mut self, mbuf: Mbuf) {
        let raw = mbuf.into_raw();
        if let Some(last) = self.last {
            // SAFETY: a carrier of ours, which names as many as it says, and has room for one more.
            unsafe {
                let private = pool_core::private(last.as_ptr());
                let n = (*private).carried;
                if n < CARRIED {
                    names(last).add(n as usize).write(raw.as_ptr());
                    (*private).carried = n + 1;
                    return;
                }
                link(last).write(raw.as_ptr());
            }
        } else {
            self.first = Some(raw);
        }
        self.last = Some(raw);
    }

    /// The first and last carrier, linked; the caller's now. `None` if there is none.
    pub(super) fn into_chain(self) -> Option<(NonNull<sys::rte_mbuf>, NonNull<sys::rte_mbuf>)> {
        let batch = ManuallyDrop::new(self);
        batch.end();
        batch.first.zip(batch.last)
    }

    /// Marks the last carrier as the last. Not before somebody will walk: until then a batch of one has
    /// not been touched.
    fn end(&self) {
        if let Some(last) = self.last {
            // SAFETY: the last carrier is ours.
            unsafe { link(last).write(ptr::null_mut()) };
        }
    }
}

impl Drop for MbufBatch {
    fn drop(&mut self) {
        self.end();
        for mbuf in Walk::new(self.first) {
            // SAFETY: ours, each once.
            unsafe { pool_core::free(&mut [mbuf]) };
        }
    }
}

impl fmt::Debug for MbufBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MbufBatch").finish_non_exhaustive()
    }
}

/// All mbufs of a linked list of carriers, and of those that carry nothing; each carrier behind what it
/// names. Whoever walks owns them.
pub(super) struct Walk {
    carrier: *mut sys::rte_mbuf,
    /// Names of the carrier that are still to be told.
    left: u32,
}

impl Walk {
    pub(super) fn new(first: Option<NonNull<sys::rte_mbuf>>) -> Self {
        let mut walk = Self { carrier: ptr::null_mut(), left: 0 };
        walk.begin(first.map_or(ptr::null_mut(), NonNull::as_ptr));
        walk
    }

    /// Goes to the next carrier.
    #[inline(always)]
    fn begin(&mut self, carrier: *mut sys::rte_mbuf) {
        self.carrier = carrier;
        let Some(carrier) = NonNull::new(carrier) else { return };
        // SAFETY: it is ours, and linked.
        self.left = unsafe { (*pool_core::private(carrier.as_ptr())).carried };
        if self.left > 0 {
            self.fetch(carrier);
        }
    }

    /// What is about to be read, all at once.
    #[inline(never)]
    fn fetch(&self, carrier: NonNull<sys::rte_mbuf>) {
        // SAFETY: ours and linked, and it names `left` mbufs; those are only asked for.
        unsafe {
            prefetch(pool_core::private(Node::next(carrier)).cast_const().cast());
            for at in 0..self.left as usize {
                let named = names(carrier).add(at).read();
                prefetch(named.cast_const().cast());
                prefetch(pool_core::private(named).cast_const().cast());
            }
        }
    }
}

impl Iterator for Walk {
    type Item = *mut sys::rte_mbuf;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let carrier = NonNull::new(self.carrier)?;
        if self.left > 0 {
            self.left -= 1;
            // SAFETY: it names as many.
            return Some(unsafe { names(carrier).add(self.left as usize).read() });
        }
        // SAFETY: ours and linked.
        let next = unsafe {
            (*pool_core::private(carrier.as_ptr())).carried = 0;
            Node::next(carrier)
        };
        self.begin(next);
        Some(carrier.as_ptr())
    }
}

/// Where a carrier names others.
///
/// # Safety
/// `mbuf` is of a pool of ours. Writing takes owning it.
#[inline(always)]
unsafe fn names(mbuf: NonNull<sys::rte_mbuf>) -> *mut *mut sys::rte_mbuf {
    // Its own room, wherever its data may be: `PoolConfig` has no room that is smaller than a headroom.
    // SAFETY: within the mempool's object.
    unsafe { mbuf.as_ptr().byte_add(pool_core::MBUF_OVERHEAD as usize).cast() }
}
