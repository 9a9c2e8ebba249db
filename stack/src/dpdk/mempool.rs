//! Packet buffer pools: who may use one, how full it is, and how long it lives.
//!
//! Set up by one thread, then owned by the lcore that polls with it: only the owner frees into the
//! pool without a lock, so that an application thread preempted in the middle of a free never holds
//! up the lcore. A pool goes when its last handle *and* its last mbuf have gone.

use std::ffi::CString;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dpdk_sys as sys;

use super::batch::NAMES_ROOM;
use super::burst::Burst;
use super::eal::{Eal, errno_text};
use super::mbuf::Mbuf;
use super::pool_core::{
    MBUF_OVERHEAD, NOBODY, OWNED, PoolCore, Private, Sharing, private, thread_token,
};
use super::pool_end::Visits;

/// A pool of mbufs, each with a control block in its private area. Clones are handles to one pool.
///
/// Any thread may ask how full it is; allocating is for the owning lcore, or for any thread while no
/// lcore owns it.
///
/// ```no_run
/// use prequeue::buf::PacketBuf;
/// use prequeue::dpdk::{Eal, Mempool, PoolConfig, TEST_ARGS};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let eal = Eal::init(TEST_ARGS)?;
/// let pool = Mempool::new(eal, &PoolConfig { mbufs: 1023, cache: 32, ..PoolConfig::default() })?;
/// let mut mbuf = pool.alloc().expect("a fresh pool is full");
/// assert!(mbuf.append(b"bytes"));
/// assert_eq!(pool.in_use(), 1);
/// drop(mbuf);
/// assert_eq!(pool.in_use(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mempool(Arc<Handle>);

/// How a pool is made.
///
/// ```
/// use prequeue::dpdk::{PoolConfig, Sharing};
///
/// // For frames of 9000 bytes, and for any thread.
/// let config =
///     PoolConfig { data_room: 9600, sharing: Sharing::AnyThread, ..PoolConfig::default() };
/// assert_eq!(config.mbufs, 8191);
/// ```
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Number of mbufs; 2ⁿ − 1 wastes no memory. See [`PoolPlan`].
    pub mbufs: u32,
    /// Mbufs that each lcore keeps apart, so that most allocations and frees touch no shared line.
    /// At most 512, and at most two thirds of `mbufs`.
    pub cache: u32,
    /// Bytes of a buffer, headroom of 128 included. A frame must fit, for none is scattered.
    pub data_room: u16,
    /// NUMA node of the memory; `None` for any.
    pub numa_node: Option<u32>,
    /// Who frees into the pool.
    pub sharing: Sharing,
}

/// Why a pool could not be made or owned.
///
/// ```no_run
/// use prequeue::dpdk::{Eal, Mempool, PoolConfig, PoolError};
///
/// fn as_large_as_there_is_room(eal: &'static Eal) -> Result<Mempool, PoolError> {
///     let config = PoolConfig { mbufs: 65_535, ..PoolConfig::default() };
///     match Mempool::new(eal, &config) {
///         Err(PoolError::NoMemory { .. }) => Mempool::new(eal, &PoolConfig::default()),
///         other => other,
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The numbers do not fit together.
    #[error(
        "a pool of {mbufs} mbufs with a cache of {cache}: want at least 1 mbuf, and a cache of at most 512 and two thirds of the mbufs"
    )]
    BadSize {
        /// Mbufs asked for.
        mbufs: u32,
        /// Cache asked for.
        cache: u32,
    },
    /// There is no memory for it.
    #[error(
        "no memory for a pool of {mib} MiB ({reason}): reserve more hugepages, or give the EAL more with -m when it runs with --no-huge"
    )]
    NoMemory {
        /// Size of the pool, rounded up.
        mib: u32,
        /// DPDK's word for it.
        reason: String,
    },
    /// Another thread, or another guard of this one, owns the pool.
    #[error("the pool is owned by another lcore already: give each its own")]
    Owned,
}

impl Default for PoolConfig {
    /// 8191 mbufs of the usual 2 KiB, for one lcore.
    fn default() -> Self {
        Self {
            mbufs: 8191,
            cache: 256,
            data_room: 2048 + sys::PQS_HEADROOM as u16,
            numa_node: None,
            sharing: Sharing::OneLcore,
        }
    }
}

impl Mempool {
    /// Makes a pool. The memory is taken at once.
    pub fn new(_eal: &'static Eal, config: &PoolConfig) -> Result<Self, PoolError> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let PoolConfig { mbufs, cache, data_room, numa_node, sharing } = *config;
        // The mempool's flush threshold is one and a half times the cache.
        if mbufs == 0 || cache > 512 || u64::from(cache) * 3 > u64::from(mbufs) * 2 {
            return Err(PoolError::BadSize { mbufs, cache });
        }
        // Buffers on their way back are named in others.
        let data_room = data_room.max(NAMES_ROOM);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("prequeue_{serial}")).expect("no NUL in it");
        // Relaxed tail sync where threads may be preempted in a free: one that is then delays only
        // itself.
        let ops = match sharing {
            Sharing::OneLcore => c"ring_mp_mc",
            Sharing::AnyThread => c"ring_mt_rts",
        };
        let core = Box::into_raw(Box::new(PoolCore {
            pool: std::ptr::null_mut(),
            sharing,
            owner: AtomicUsize::new(NOBODY),
            visits: Visits::new(),
        }));
        // SAFETY: the EAL is up, the strings are NUL-terminated and outlive the call, and `core`
        // lives until the pool is freed.
        let pool = unsafe {
            sys::pqs_pool_create(
                name.as_ptr(),
                mbufs,
                cache,
                data_room,
                numa_node.map_or(-1, |node| node as i32),
                ops.as_ptr(),
                offset_of!(Private, core) as u32,
                core.cast(),
            )
        };
        if pool.is_null() {
            // SAFETY: no mbuf refers to it, for there is none.
            drop(unsafe { Box::from_raw(core) });
            let bytes = u64::from(mbufs) * (MBUF_OVERHEAD as u64 + u64::from(data_room));
            return Err(PoolError::NoMemory {
                mib: bytes.div_ceil(1 << 20) as u32,
                reason: errno_text(),
            });
        }
        // SAFETY: nobody else has seen it yet.
        unsafe { (*core).pool = pool };
        Ok(Self(Arc::new(Handle(NonNull::new(core).expect("from a Box")))))
    }

    /// Makes the calling thread the owner, until the guard is dropped. To be called on the thread
    /// that polls, after [`super::EalThread::register`], or it has no cache.
    pub fn own(&self) -> Result<PoolOwner, PoolError> {
        // Relaxed: the word is compared with the reader's own token only, which no other thread
        // writes; what the previous owner did is ordered by whatever handed the pool over.
        self.core()
            .owner
            .compare_exchange(NOBODY, thread_token(), Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| PoolError::Owned)?;
        OWNED.set(OWNED.get() + 1);
        Ok(PoolOwner { pool: self.clone(), _this_thread: PhantomData })
    }

    /// One mbuf, empty, or `None` if the pool is.
    pub fn alloc(&self) -> Option<Mbuf> {
        self.check_use();
        // SAFETY: the handle keeps the pool.
        let mbuf = NonNull::new(unsafe { sys::pqs_alloc(self.raw()) })?;
        // SAFETY: fresh from the pool, and ours.
        Some(unsafe { Mbuf::from_raw(mbuf) })
    }

    /// Appends `n` empty mbufs to `burst`, or none if the pool has fewer or the burst no room.
    pub fn alloc_bulk<const N: usize>(&self, burst: &mut Burst<N>, n: usize) -> bool {
        let Some(room) = burst.spare().get_mut(..n) else { return false };
        let filled = self.alloc_raw(room);
        if filled {
            // SAFETY: `n` more places hold mbufs that are ours.
            unsafe { burst.grow(n) };
        }
        filled
    }

    /// Mbufs that are not in the pool: in device rings, queued, handed out.
    ///
    /// Walks every lcore's cache: for statistics, not for the poll loop.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the handle keeps the pool.
        unsafe { sys::rte_mempool_in_use_count(self.raw()) }
    }

    /// Whether the mbuf is one of this pool's.
    pub fn has_made(&self, mbuf: &Mbuf) -> bool {
        // SAFETY: an mbuf of a pool of ours; the place is written when that is made, never again.
        std::ptr::eq(unsafe { (*private(mbuf.as_raw().as_ptr())).core }, self.0.0.as_ptr())
    }

    /// Mbufs the pool was made with.
    pub fn capacity(&self) -> u32 {
        // SAFETY: the handle keeps the pool.
        unsafe { sys::pqs_pool_size(self.raw()) }
    }

    /// Bytes that a frame may have: the data room behind the headroom.
    pub fn frame_room(&self) -> u32 {
        // SAFETY: the handle keeps the pool.
        let room = unsafe { sys::pqs_pool_data_room(self.raw()) };
        u32::from(room).saturating_sub(sys::PQS_HEADROOM)
    }

    pub(super) fn raw(&self) -> *mut sys::rte_mempool {
        self.core().pool
    }

    fn core(&self) -> &PoolCore {
        // SAFETY: the core lives as long as a handle does.
        unsafe { self.0.0.as_ref() }
    }

    fn check_use(&self) {
        debug_assert!(
            self.core().may_be_used_here(),
            "an mbuf is to be allocated by the lcore that owns the pool"
        );
    }

    fn alloc_raw(&self, places: &mut [MaybeUninit<*mut sys::rte_mbuf>]) -> bool {
        self.check_use();
        let (at, n) = (places.as_mut_ptr().cast(), places.len() as u32);
        // SAFETY: the handle keeps the pool; as many places as are asked for.
        unsafe { sys::pqs_alloc_bulk(self.raw(), at, n) == 0 }
    }
}

impl PartialEq for Mempool {
    fn eq(&self, other: &Self) -> bool {
        self.raw() == other.raw()
    }
}

impl Eq for Mempool {}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool")
            .field("capacity", &self.capacity())
            .field("in_use", &self.in_use())
            .field("sharing", &self.core().sharing)
            .finish()
    }
}

/// The calling thread owns a pool as long as this lives.
///
/// It stays on its thread. See [`EalThread`](super::EalThread) for an example.
#[derive(Debug)]
pub struct PoolOwner {
    pool: Mempool,
    _this_thread: PhantomData<*const ()>,
}

impl PoolOwner {
    /// The pool.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }
}

impl Drop for PoolOwner {
    fn drop(&mut self) {
        // Release pairs with the Acquire of the next owner's exchange.
        self.pool.core().owner.store(NOBODY, Ordering::Release);
        OWNED.set(OWNED.get() - 1);
    }
}

/// How many mbufs an lcore's pool needs, and how many of them sockets may hold.
///
/// A queue that cannot refill its descriptors is deaf, to ACKs and resets too. So what the device
/// and the poll loop need is never lent to sockets.
///
/// ```
/// use prequeue::dpdk::PoolPlan;
///
/// let plan = PoolPlan { rx_descriptors: 1024, tx_descriptors: 0, held: 4000, cache: 256 };
/// assert_eq!(plan.mbufs(), 8191);
/// assert!(plan.holdable(plan.mbufs()) >= 4000);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PoolPlan {
    /// RX descriptors of all queues that draw on the pool.
    pub rx_descriptors: u32,
    /// TX descriptors of queues that are sent mbufs of this pool.
    pub tx_descriptors: u32,
    /// Mbufs that sockets and readers shall be able to hold.
    pub held: u32,
    /// Cache of the owning lcore.
    pub cache: u32,
}

impl PoolPlan {
    /// Mbufs in the poll loop's hands: a burst received and one to be sent.
    const IN_FLIGHT: u32 = 2 * 32;

    /// What is never lent: descriptors, bursts under way, and as much as a cache may hoard.
    pub fn reserve(&self) -> u32 {
        self.rx_descriptors + self.tx_descriptors + Self::IN_FLIGHT + self.cache * 3 / 2
    }

    /// Mbufs to make the pool with: the next 2ⁿ − 1, which its ring fills exactly.
    pub fn mbufs(&self) -> u32 {
        (self.reserve() + self.held + 1).next_power_of_two() - 1
    }

    /// What sockets may hold of a pool of that many mbufs.
    pub fn holdable(&self, mbufs: u32) -> u32 {
        mbufs.saturating_sub(self.reserve())
    }
}

/// Keeps a pool from counting down.
struct Handle(NonNull<PoolCore>);

// SAFETY: the core is atomics, and a mempool that any thread may use under the rules above.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: ours, and the last there is: clones share it.
        unsafe { PoolCore::close(self.0.as_ptr()) };
    }
}
