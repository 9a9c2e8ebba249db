//! Mbufs on their way back, named by a few of them: what a reader collects while it copies.
//!
//! Used by application threads, which have read nothing of an mbuf but its payload, if that; and by
//! the lcore that takes them back. A chain through all the private areas would have each line fetched
//! twice, and the lcore wait for one after the other. So one mbuf in thirty-two is a *carrier*: the others
//! stay untouched, and are named in its room, whose content nobody needs any more; what they cost together
//! stands with it.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ptr::{self, NonNull};
use std::slice;

use dpdk_sys as sys;

use super::bulk;
use super::mbuf::{Mbuf, prefetch};
use super::pool_core;
use super::queue::link;
use super::return_stack::Node;
use crate::buf::{Owner, SPENT_AT_ONCE};

/// Bytes at the beginning of every mbuf's room, its headroom included, that names may stand in. Nobody
/// needs what was received there any more.
pub(super) const NAMES_ROOM: u16 = 256;

/// Mbufs that a carrier names, its own name not counted, which has a place too: with it a chain of what
/// readers collect.
const CARRIED: usize = NAMES_ROOM as usize / size_of::<*mut sys::rte_mbuf>() - 1;

const _: () = assert!(CARRIED + 1 >= SPENT_AT_ONCE, "one carrier is enough");

/// Mbufs of one socket to be given back together. Dropping it frees them.
///
/// It may go from thread to thread with its mbufs.
///
/// ```no_run
/// use prequeue::buf::{PacketBuf, Returns};
/// use prequeue::dpdk::{Mbuf, MbufBatch, MbufReturns};
///
/// fn give(returns: &MbufReturns, read: impl Iterator<Item = Mbuf>) {
///     let mut batch = MbufBatch::default();
///     for mbuf in read {
///         let truesize = mbuf.truesize();
///         MbufReturns::collect(&mut batch, mbuf, truesize);
///     }
///     returns.give_batch(batch);
/// }
/// ```
#[derive(Default)]
pub struct MbufBatch {
    // Invariant: `None` both, or the first and last of carriers that are linked as a queue is but for the
    // last one's link, each with as many mbufs named in its room as `carried` says, and a truesize of 0;
    // the batch owns them all.
    first: Option<NonNull<sys::rte_mbuf>>,
    last: Option<NonNull<sys::rte_mbuf>>,
    /// What they cost, and how many they are.
    truesize: u32,
    len: u32,
}

// SAFETY: it owns its mbufs, which are Send.
unsafe impl Send for MbufBatch {}

impl MbufBatch {
    /// Adds one.
    #[inline]
    pub(super) fn push(&mut self, mbuf: Mbuf, truesize: u32) {
        // SAFETY: ours, and given away.
        unsafe { self.extend(&[mbuf.into_raw()], truesize) };
    }

    /// Adds several that cost so much together.
    ///
    /// # Safety
    /// The caller owns them, mbufs of pools of ours, and gives them away.
    #[inline]
    pub(super) unsafe fn extend(&mut self, mut mbufs: &[NonNull<sys::rte_mbuf>], truesize: u32) {
        self.truesize += truesize;
        self.len += mbufs.len() as u32;
        while let Some((&next, others)) = mbufs.split_first() {
            if let Some(last) = self.last {
                // SAFETY: a carrier of ours, which names as many as it says, and has room for the others.
                unsafe {
                    let private = pool_core::private(last.as_ptr());
                    let carried = (*private).carried as usize;
                    let n = mbufs.len().min(CARRIED - carried);
                    if n > 0 {
                        let to = names(last).add(carried).cast();
                        ptr::copy_nonoverlapping(mbufs.as_ptr(), to, n);
                        (*private).carried = (carried + n) as u32;
                        mbufs = &mbufs[n..];
                        continue;
                    }
                    link(last).write(next.as_ptr());
                }
            } else {
                self.first = Some(next);
            }
            self.last = Some(next);
            mbufs = others;
        }
    }

    /// How many there are.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// The first and last carrier, linked; the caller's now. `None` if there is none.
    pub(super) fn into_chain(self) -> Option<(NonNull<sys::rte_mbuf>, NonNull<sys::rte_mbuf>)> {
        let batch = ManuallyDrop::new(self);
        batch.end()?;
        batch.first.zip(batch.last)
    }

    /// Marks the last carrier as the last. Not before somebody will walk: until then a batch of one has
    /// not been touched.
    fn end(&self) -> Option<()> {
        let last = self.last?;
        // SAFETY: the last carrier is ours.
        unsafe {
            (*pool_core::private(last.as_ptr())).truesize = self.truesize;
            link(last).write(ptr::null_mut());
        }
        Some(())
    }

    /// Frees all on the thread that owns the pool; what they cost.
    pub(super) fn free(self) -> u32 {
        let mut sum = 0;
        if let Some((first, _)) = self.into_chain() {
            // SAFETY: linked, and ours.
            unsafe { free_all(first, |_, truesize| sum += truesize) };
        }
        sum
    }
}

impl Drop for MbufBatch {
    fn drop(&mut self) {
        if let (Some(()), Some(first)) = (self.end(), self.first) {
            // SAFETY: linked, and ours.
            unsafe { free_all(first, |_, _| {}) };
        }
    }
}

impl fmt::Debug for MbufBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MbufBatch").finish_non_exhaustive()
    }
}

/// Frees a linked list of carriers with what they carry, having told of each whose it is and what is to be
/// uncharged for it.
///
/// # Safety
/// The caller owns them all, and gives them away.
#[inline(never)]
pub(super) unsafe fn free_all(first: NonNull<sys::rte_mbuf>, mut told: impl FnMut(Owner, u32)) {
    let mut next = Some(first);
    while let Some(carrier) = next {
        // SAFETY: ours, linked, and a segment of the socket that all of its batch are of. Behind the names
        // there is room for one more.
        let mbufs = unsafe {
            let private = pool_core::private(carrier.as_ptr());
            next = NonNull::new(Node::next(carrier));
            let carried = mem::take(&mut (*private).carried) as usize;
            told((*private).cb.owner, mem::take(&mut (*private).truesize));
            names(carrier).add(carried).write(carrier.as_ptr());
            slice::from_raw_parts_mut(names(carrier), carried + 1)
        };
        // What is about to be read, all at once.
        mbufs.iter().for_each(|mbuf| prefetch(mbuf.cast_const().cast()));
        if let Some(next) = next {
            // SAFETY: an mbuf of ours, which is only asked for.
            prefetch(unsafe { pool_core::private(next.as_ptr()) }.cast_const().cast());
        }
        // SAFETY: ours, and not looked at again; the names themselves lie where nobody reads any more
        // once they are in the mempool.
        unsafe { bulk::free(mbufs) };
    }
}

/// Where a carrier names others.
///
/// # Safety
/// `mbuf` is of a pool of ours. Writing takes owning it.
#[inline(always)]
unsafe fn names(mbuf: NonNull<sys::rte_mbuf>) -> *mut *mut sys::rte_mbuf {
    // Its own room, wherever its data may be: no pool is made with less than `NAMES_ROOM`.
    // SAFETY: within the mempool's object.
    unsafe { mbuf.as_ptr().byte_add(pool_core::MBUF_OVERHEAD as usize).cast() }
}
