//! Spare mbufs of other sizes than those that are received into: what is acknowledged is copied
//! there when the pool runs out.
//!
//! Made with the pool, owned and used by the same lcore. To everybody else they are mbufs like all
//! others: queued, read and given back in the same way, and charged by their own truesize.

use super::eal::Eal;
use super::mbuf::Mbuf;
use super::mempool::{Mempool, PoolConfig, PoolError};
use crate::buf::Spare;

/// Data room of a small one: a payload that is worth no mbuf of its own.
const SMALL_ROOM: u16 = 256;

/// Data room of a large one: what some eleven full frames, or a hundred small ones, have brought.
const LARGE_ROOM: u16 = 16 * 1024;

/// The headroom that every mbuf has.
const HEADROOM: u16 = 128;

/// Caches of both: nobody else takes from these pools, and only under pressure.
const CACHE: u32 = 0;

/// The spare mbufs of one lcore.
///
/// ```no_run
/// use prequeue::buf::Spare;
/// use prequeue::dpdk::{Eal, SpareMbufs, TEST_ARGS};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut spare = SpareMbufs::new(Eal::init(TEST_ARGS)?, 8191, None)?;
/// let large = spare.take(10_000).expect("there are some");
/// assert!(spare.is_from_here(&large));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SpareMbufs {
    small: Mempool,
    large: Mempool,
}

impl SpareMbufs {
    /// Spare mbufs for a pool of so many: half as many small ones, and a large one for each 64, which
    /// is some fifth of its memory.
    pub fn new(eal: &'static Eal, mbufs: u32, numa_node: Option<u32>) -> Result<Self, PoolError> {
        let pool = |mbufs: u32, room: u16| {
            let config = PoolConfig {
                mbufs: mbufs.max(1).next_power_of_two() - 1,
                cache: CACHE,
                data_room: room + HEADROOM,
                numa_node,
                ..PoolConfig::default()
            };
            Mempool::new(eal, &config)
        };
        Ok(Self { small: pool(mbufs / 2, SMALL_ROOM)?, large: pool(mbufs / 64, LARGE_ROOM)? })
    }

    /// Both pools, to be owned by the lcore.
    pub fn pools(&self) -> [&Mempool; 2] {
        [&self.small, &self.large]
    }
}

impl Spare<Mbuf> for SpareMbufs {
    fn take(&mut self, len: usize) -> Option<Mbuf> {
        let pool = if len <= usize::from(SMALL_ROOM) { &self.small } else { &self.large };
        pool.alloc()
    }

    fn largest(&self) -> usize {
        LARGE_ROOM.into()
    }

    fn is_from_here(&self, mbuf: &Mbuf) -> bool {
        self.large.has_made(mbuf) || self.small.has_made(mbuf)
    }
}
