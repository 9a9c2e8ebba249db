//! What lies under a pool and its mbufs: the private area of an mbuf, and who frees it in which way.
//!
//! Raw pointers only, for the types that own mbufs one by one, in bursts and in queues: each gives
//! back here what it drops, on whatever thread that is. An owning lcore frees as it likes; all others
//! are visitors, who wait for nobody, and the last of them ends a pool whose handles have gone.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use dpdk_sys as sys;

use super::pool_end::{Left, Visits};
use crate::buf::SegCb;

/// What lies in the private area of an mbuf: our cache line behind its header.
#[repr(C)]
pub(super) struct Private {
    /// The segment's control block. Zero, which is valid, until it is first written.
    pub(super) cb: SegCb,
    /// Link of the queue or stack the mbuf is on. Not `rte_mbuf.next`: that is the segment chain,
    /// which freeing follows.
    pub(super) next: *mut sys::rte_mbuf,
    /// Mbufs that this one carries, named in its room: see [`super::batch`]. Zero but on the way
    /// back.
    pub(super) carried: u32,
    /// What all of its batch cost, in one of those that carry them. Zero but on the way back.
    pub(super) truesize: u32,
    /// The pool's core; written when the pool is made, never again.
    pub(super) core: *const PoolCore,
}

const _: () = assert!(size_of::<Private>() <= sys::PQS_PRIV_SIZE as usize);

/// Metadata of an mbuf: header and private area.
pub(super) const MBUF_OVERHEAD: u32 = sys::PQS_MBUF_SIZE + sys::PQS_PRIV_SIZE;

/// Gives mbufs back to their pools, in bulk where neighbours share one.
///
/// # Safety
/// The caller owns the mbufs, all from pools of ours, each of one segment with one reference, and
/// gives them away.
pub(super) unsafe fn free(mut mbufs: &mut [*mut sys::rte_mbuf]) {
    let me = thread_token();
    let mut stranger = false;
    while let Some(first) = mbufs.first() {
        // SAFETY: the mbuf is ours, and its pool lives as long as one of its mbufs is out.
        let core = unsafe { (*private(*first)).core };
        // SAFETY: as above. Relaxed: only this thread can have written its own token.
        let owned = unsafe { (*core).owner.load(Ordering::Relaxed) } == me;
        let n = if owned {
            // SAFETY: the guard that made us the owner keeps a handle, so the pool is not counting
            // down yet.
            unsafe { sys::pqs_free_run((*core).pool, mbufs.as_mut_ptr(), mbufs.len() as u32) }
        } else {
            // SAFETY: forwarded.
            let (n, allowed) = unsafe { PoolCore::free_visiting(core, mbufs) };
            stranger |= !allowed;
            n
        };
        mbufs = &mut mbufs[n as usize..];
    }
    debug_assert!(
        !stranger || std::thread::panicking(),
        "an mbuf was dropped on a thread that owns no pool: hand it back to its lcore"
    );
}

/// The pool of an mbuf, if the calling thread owns it and [`is_as_put`] holds.
///
/// # Safety
/// The caller owns the mbuf, which is of a pool of ours.
pub(super) unsafe fn takes_as_is(mbuf: *mut sys::rte_mbuf) -> Option<*mut sys::rte_mempool> {
    // SAFETY: the mbuf is out, so its core is there.
    let core = unsafe { &*(*private(mbuf)).core };
    // Relaxed: only this thread can have written its own token.
    let owned = core.owner.load(Ordering::Relaxed) == thread_token();
    // SAFETY: forwarded.
    (owned && unsafe { is_as_put(mbuf, core.pool) }).then_some(core.pool)
}

/// Whether it is an mbuf of this pool with one segment and one reference. All in the header's first
/// line, which a driver has just written.
///
/// # Safety
/// `mbuf` points to an mbuf that the caller owns.
#[inline(always)]
pub(super) unsafe fn is_plain(mbuf: *mut sys::rte_mbuf, pool: *mut sys::rte_mempool) -> bool {
    // Both counts are read at once.
    const { assert!(sys::PQS_OFF_NB_SEGS == sys::PQS_OFF_REFCNT + 2) };
    // SAFETY: forwarded.
    unsafe {
        mbuf.byte_add(sys::PQS_OFF_POOL as usize).cast::<*mut sys::rte_mempool>().read() == pool
            && mbuf.byte_add(sys::PQS_OFF_REFCNT as usize).cast::<u32>().read_unaligned()
                == 0x0001_0001
    }
}

/// Whether the mempool takes the mbuf back just as it is: it is one of this pool's, plain, and its
/// data is in its own room.
///
/// # Safety
/// As of [`is_plain`].
#[inline(always)]
pub(super) unsafe fn is_as_put(mbuf: *mut sys::rte_mbuf, pool: *mut sys::rte_mempool) -> bool {
    // SAFETY: forwarded.
    let flags = unsafe { mbuf.byte_add(sys::PQS_OFF_OL_FLAGS as usize).cast::<u64>().read() };
    let elsewhere = sys::RTE_MBUF_F_EXTERNAL | sys::RTE_MBUF_F_INDIRECT;
    // SAFETY: forwarded.
    flags & elsewhere == 0 && unsafe { is_plain(mbuf, pool) }
}

/// The private area of an mbuf.
///
/// # Safety
/// `mbuf` points to an mbuf of a pool of ours.
pub(super) unsafe fn private(mbuf: *mut sys::rte_mbuf) -> *mut Private {
    // SAFETY: rte_mbuf_to_priv: it begins where the header ends.
    unsafe { mbuf.byte_add(sys::PQS_MBUF_SIZE as usize).cast() }
}

/// What all handles and all mbufs of a pool point to.
pub(super) struct PoolCore {
    pub(super) pool: *mut sys::rte_mempool,
    pub(super) sharing: Sharing,
    /// Token of the thread that owns the pool, or [`NOBODY`].
    pub(super) owner: AtomicUsize,
    /// Whoever frees without owning, and whether there are handles.
    pub(super) visits: Visits,
}

impl PoolCore {
    /// Frees the leading mbufs of this pool on a thread that does not own it; returns how many, and
    /// whether this thread may do so.
    ///
    /// # Safety
    /// As of [`free`]; the first belongs to `core`.
    unsafe fn free_visiting(core: *const Self, mbufs: &mut [*mut sys::rte_mbuf]) -> (u32, bool) {
        // SAFETY: an mbuf is out, so the core is there; the borrow ends before it may go.
        let this = unsafe { &*core };
        this.visits.enter();
        // SAFETY: the mempool's own frees are safe against all others'; the pool stays while we are inside.
        let n = unsafe { sys::pqs_free_run(this.pool, mbufs.as_mut_ptr(), mbufs.len() as u32) };
        // Another lcore has a cache of this pool from which it never allocates. What stayed there
        // would count as in the pool, and never be received into again.
        // SAFETY: as above; the cache is the calling thread's own.
        unsafe { sys::pqs_pool_flush(this.pool) };
        let allowed = this.may_be_used_here() || OWNED.get() > 0 || this.visits.is_closed();
        // SAFETY: inside until now.
        unsafe { Self::leave(core) };
        (n, allowed)
    }

    /// The last handle goes.
    ///
    /// # Safety
    /// The caller has it, and does not use it again.
    pub(super) unsafe fn close(core: *const Self) {
        // SAFETY: a handle keeps the core.
        let this = unsafe { &*core };
        this.visits.enter();
        this.visits.close();
        // SAFETY: inside until now.
        unsafe { Self::leave(core) };
    }

    /// Ends a visit, and the pool if it was the last.
    ///
    /// # Safety
    /// The caller is inside, and does not use the core again.
    unsafe fn leave(core: *const Self) {
        // SAFETY: the core is there as long as we are inside; the borrow ends before it may go.
        let this = unsafe { &*core };
        // Exact when it matters: no thread owns the pool, for the guard would hold a handle, and whoever
        // frees without owning is inside.
        // SAFETY: the pool is there while we are inside.
        let is_full = || unsafe { sys::rte_mempool_in_use_count(this.pool) == 0 };
        if this.visits.leave(is_full) == Left::Last {
            // SAFETY: neither handle nor mbuf nor visitor is left.
            unsafe {
                sys::rte_mempool_free((*core).pool);
                drop(Box::from_raw(core.cast_mut()));
            }
        }
    }

    /// Whether this thread may allocate and free while nobody forbids it.
    pub(super) fn may_be_used_here(&self) -> bool {
        let owner = self.owner.load(Ordering::Relaxed);
        owner == NOBODY || owner == thread_token() || self.sharing == Sharing::AnyThread
    }
}

/// Who frees into a pool.
///
/// See [`PoolConfig`](super::PoolConfig) for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// One lcore. Others hand mbufs back to it; debug builds insist.
    OneLcore,
    /// Any thread, which costs some atomic operations: traffic generators, tests with ports made of rings.
    AnyThread,
}

/// Owner of a pool that no lcore owns.
pub(super) const NOBODY: usize = 0;

thread_local! {
    /// Its address names the thread.
    static TOKEN: u8 = const { 0 };
    /// Number of pools that the thread owns.
    pub(super) static OWNED: Cell<u32> = const { Cell::new(0) };
}

/// A word that no other living thread has. Never [`NOBODY`].
pub(super) fn thread_token() -> usize {
    TOKEN.with(|token| std::ptr::from_ref(token).addr())
}
