//! Scenarios over a real EAL without hugepages. All tests of the process share it; each makes pools
//! and ports of its own and leaves the pool full.

use std::collections::VecDeque;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr::NonNull;
use std::thread;
use std::time::Duration;

use dpdk_sys as sys;
use proptest::prelude::*;

use super::ring_port::RingPort;
use super::*;
use crate::buf::{BufQueue, Checksum, HeapBuf, Owner, PacketBuf, Returns, SegCb};

mod mbufs;
mod pools;
mod ports;
mod process;
mod queues;
mod reassembly;

fn eal() -> &'static Eal {
    Eal::init(TEST_ARGS).unwrap()
}

fn pool_of(mbufs: u32, sharing: Sharing) -> Mempool {
    let config = PoolConfig { mbufs, cache: 32, sharing, ..PoolConfig::default() };
    Mempool::new(eal(), &config).unwrap()
}

fn pool() -> Mempool {
    pool_of(255, Sharing::OneLcore)
}

fn frame(pool: &Mempool, bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    assert!(mbuf.append(bytes));
    mbuf
}

/// A number as a frame, to be told from others.
fn numbered(pool: &Mempool, n: u32) -> Mbuf {
    let mut mbuf = frame(pool, &n.to_be_bytes());
    *mbuf.cb_mut() = SegCb { seq: n, ..SegCb::default() };
    mbuf
}

fn number(mbuf: &Mbuf) -> u32 {
    u32::from_be_bytes(mbuf.data().try_into().unwrap())
}

/// # Safety
/// As of the field.
unsafe fn write<T>(mbuf: &Mbuf, offset: u32, value: T) {
    // SAFETY: forwarded.
    unsafe { mbuf.as_raw().as_ptr().byte_add(offset as usize).cast::<T>().write(value) }
}

#[test]
fn the_clock_agrees_with_the_systems() {
    let clock = Clock::new(eal());
    // A preemption between two readings spoils a round, not ten of them.
    let close = (0..10).any(|_| {
        let (start, begun) = (clock.now(), std::time::Instant::now());
        thread::sleep(Duration::from_millis(20));
        let (tsc, system) = (clock.now().since(start), begun.elapsed());
        tsc.abs_diff(system) < Duration::from_micros(200)
    });
    assert!(close);
}

#[test]
fn a_registered_thread_has_an_lcore_id_of_its_own() {
    let ids = thread::scope(|scope| {
        let here = EalThread::register(eal()).unwrap();
        let there = scope.spawn(|| EalThread::register(eal()).unwrap().lcore_id());
        [here.lcore_id(), EalThread::register(eal()).unwrap().lcore_id(), there.join().unwrap()]
    });
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}
