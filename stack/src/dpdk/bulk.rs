//! Mbufs on their way back into a mempool: named one behind the other, or collected one by one while
//! something else is read of them.
//!
//! Used where the lcore walks over mbufs that it frees: what came back from readers, and queues that
//! are dropped. Those that the mempool takes as they are go there in bulk; it never waits for others.

use std::mem::MaybeUninit;

use dpdk_sys as sys;

use super::pool_core;

/// Mbufs freed with one call: what the mempool's cache takes in a gulp.
const MOST: usize = 64;

/// Frees mbufs that are named one behind the other, which most often are just what one mempool takes.
///
/// # Safety
/// As of [`pool_core::free`].
#[inline(always)]
pub(super) unsafe fn free(mbufs: &mut [*mut sys::rte_mbuf]) {
    let Some(&first) = mbufs.first() else { return };
    // SAFETY: ours, all of them.
    unsafe {
        match pool_core::takes_as_is(first) {
            Some(pool) if mbufs.iter().all(|&mbuf| pool_core::is_as_put(mbuf, pool)) => {
                sys::pqs_put_bulk(pool, mbufs.as_mut_ptr(), mbufs.len() as u32);
            }
            _ => pool_core::free(mbufs),
        }
    }
}

/// Frees what an iterator gives until it ends, each mbuf some time after it was given.
///
/// # Safety
/// As of [`pool_core::free`], of all that it gives.
#[inline(always)]
pub(super) unsafe fn free_each(mut mbufs: impl Iterator<Item = *mut sys::rte_mbuf>) {
    let mut bulk = [const { MaybeUninit::uninit() }; MOST];
    let mut next = mbufs.next();
    while let Some(first) = next {
        next = None;
        // SAFETY: ours.
        let Some(pool) = (unsafe { pool_core::takes_as_is(first) }) else {
            // SAFETY: forwarded.
            unsafe { pool_core::free(&mut [first]) };
            next = mbufs.next();
            continue;
        };
        bulk[0].write(first);
        let mut n = 1;
        while n < MOST
            && let Some(mbuf) = mbufs.next()
        {
            // SAFETY: ours.
            if unsafe { !pool_core::is_as_put(mbuf, pool) } {
                next = Some(mbuf);
                break;
            }
            bulk[n].write(mbuf);
            n += 1;
        }
        // SAFETY: `n` are written, mbufs of this pool, which this thread owns, as it wants them.
        unsafe { sys::pqs_put_bulk(pool, bulk.as_mut_ptr().cast(), n as u32) };
        next = next.or_else(|| mbufs.next());
    }
}
