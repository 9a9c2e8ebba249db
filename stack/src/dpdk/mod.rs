//! The only safe wrapper over `dpdk-sys`: EAL, mempool, mbuf, burst, port, clock.
//!
//! One thread sets ports and pools up; after that every queue handle and every pool belongs to one
//! lcore. Knows nothing of TCP. The types make a double free, a use after free, two threads on one
//! queue and a pool that goes before its mbufs impossible in safe code.

// The stack below the return path, and the end of a pool, need no DPDK, so that a model checker can run
// them without one.
#[cfg_attr(not(feature = "dpdk"), allow(dead_code, reason = "for the models alone"))]
pub(crate) mod pool_end;
pub(crate) mod return_stack;

#[cfg(feature = "dpdk")]
mod batch;
#[cfg(feature = "dpdk")]
mod bulk;
#[cfg(feature = "dpdk")]
mod burst;
#[cfg(feature = "dpdk")]
mod clock;
#[cfg(feature = "dpdk")]
mod eal;
#[cfg(feature = "dpdk")]
mod mbuf;
#[cfg(feature = "dpdk")]
mod mempool;
#[cfg(feature = "dpdk")]
mod pool_core;
#[cfg(feature = "dpdk")]
mod port;
#[cfg(feature = "dpdk")]
mod port_id;
#[cfg(feature = "dpdk")]
mod queue;
#[cfg(feature = "dpdk")]
mod reassembly;
#[cfg(feature = "dpdk")]
mod returns;
#[cfg(feature = "dpdk")]
pub mod ring_port;
#[cfg(feature = "dpdk")]
mod spare;
#[cfg(feature = "dpdk")]
pub(crate) mod telemetry;
#[cfg(feature = "dpdk")]
mod thread;

#[cfg(all(test, feature = "dpdk", not(loom)))]
mod tests;

#[cfg(feature = "dpdk")]
pub use {
    batch::MbufBatch,
    burst::{Burst, Drain, Places},
    clock::Clock,
    eal::{Eal, EalError, Lcore, TEST_ARGS, run_args},
    mbuf::Mbuf,
    mempool::{Mempool, PoolConfig, PoolError, PoolOwner, PoolPlan},
    pool_core::Sharing,
    port::{Link, Port, PortConfig, PortError, PortStats, RxCounters, RxQueue, TxQueue},
    port_id::PortId,
    queue::{Iter, MbufQueue},
    reassembly::{Fragments, FragmentsError},
    returns::MbufReturns,
    spare::SpareMbufs,
    thread::{EalThread, RegisterError},
};
