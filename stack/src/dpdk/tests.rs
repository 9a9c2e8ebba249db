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
use crate::buf::{BufQueue, Checksum, HeapBuf, PacketBuf, Returns, SegCb};

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
    frame(pool, &n.to_be_bytes())
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

mod mbufs {
    use super::*;

    #[test]
    fn a_fresh_one_is_empty_and_takes_a_data_room() {
        let pool = pool();
        let mut mbuf = pool.alloc().unwrap();
        assert_eq!((mbuf.len(), mbuf.data(), mbuf.tailroom()), (0, &[][..], 2048));
        assert!(mbuf.append(&[7; 2048]));
        assert!(!mbuf.append(&[8]));
        assert_eq!(mbuf.data(), [7; 2048]);
        assert_eq!(pool.in_use(), 1);
        drop(mbuf);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn costs_its_header_its_block_and_its_whole_buffer() {
        let pool = pool();
        let mut mbuf = frame(&pool, &[1]);
        assert_eq!(mbuf.truesize(), 128 + 64 + 128 + 2048);
        mbuf.trim_front(1);
        assert_eq!(mbuf.truesize(), 128 + 64 + 128 + 2048);
    }

    #[test]
    fn the_control_block_is_apart_from_data_and_link() {
        let pool = pool();
        let mut mbuf = frame(&pool, &[0xa5; 64]);
        let block =
            SegCb { seq: u32::MAX, fin: true, socket: 7, generation: 9, ..SegCb::default() };
        *mbuf.cb_mut() = block;
        mbuf.data_mut().fill(0xff);
        mbuf.trim_front(10);
        let mut queue = MbufQueue::default();
        queue.push_back(mbuf);
        queue.push_back(frame(&pool, &[1]));
        let mbuf = queue.pop_front().unwrap();
        assert_eq!(*mbuf.cb(), block);
        assert_eq!(mbuf.data(), [0xff; 54]);
    }

    #[test]
    fn checksum_flags_mean_good_only_if_both_are() {
        const IP_BAD: u32 = sys::RTE_MBUF_F_RX_IP_CKSUM_BAD;
        const IP_GOOD: u32 = sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD;
        const L4_BAD: u32 = sys::RTE_MBUF_F_RX_L4_CKSUM_BAD;
        const L4_GOOD: u32 = sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        let pool = pool();
        let mbuf = pool.alloc().unwrap();
        for (flags, meaning) in [
            (0, Checksum::Unknown),
            (IP_GOOD | L4_GOOD, Checksum::Good),
            (IP_GOOD, Checksum::Unknown),
            (L4_GOOD, Checksum::Unknown),
            (IP_BAD | L4_GOOD, Checksum::Bad),
            (IP_GOOD | L4_BAD, Checksum::Bad),
            (IP_GOOD | L4_BAD | L4_GOOD, Checksum::Unknown), // the device did not look
        ] {
            // SAFETY: the flags, 64 bits.
            unsafe { write(&mbuf, sys::PQS_OFF_OL_FLAGS, u64::from(flags)) };
            assert_eq!(mbuf.checksum(), meaning, "{flags:#x}");
        }
    }

    #[test]
    fn the_hash_is_there_only_if_the_device_says_so() {
        let pool = pool();
        let mbuf = pool.alloc().unwrap();
        // SAFETY: the hash, 32 bits, and the flags, 64.
        unsafe {
            write(&mbuf, sys::PQS_OFF_RSS_HASH, 0x1234_5678_u32);
            assert_eq!(mbuf.rss_hash(), None);
            write(&mbuf, sys::PQS_OFF_OL_FLAGS, u64::from(sys::RTE_MBUF_F_RX_RSS_HASH));
        }
        assert_eq!(mbuf.rss_hash(), Some(0x1234_5678));
        assert_eq!(mbuf.rx_timestamp(), None);
    }

    #[test]
    fn trimming_more_than_there_is_panics() {
        let pool = pool();
        let mut mbuf = frame(&pool, &[1, 2, 3]);
        assert!(catch_unwind(AssertUnwindSafe(|| mbuf.trim_front(4))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| mbuf.truncate(4))).is_err());
        assert_eq!(mbuf.data(), [1, 2, 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_heap_buffer(
            ops in prop::collection::vec((0..3_u8, 0..700_usize), 1..40),
        ) {
            let pool = pool();
            let (mut mbuf, mut heap) = (pool.alloc().unwrap(), HeapBuf::new(&[]));
            for (op, n) in ops {
                match op {
                    0 => {
                        let n = n.min(heap.len());
                        mbuf.trim_front(n);
                        heap.trim_front(n);
                    }
                    1 => {
                        mbuf.truncate(n.min(heap.len()));
                        heap.truncate(n.min(heap.len()));
                    }
                    _ => {
                        let bytes: Vec<_> = (0..n).map(|i| (i * 31 + n) as u8).collect();
                        prop_assert_eq!(mbuf.append(&bytes), heap.append(&bytes));
                    }
                }
                prop_assert_eq!(mbuf.data(), heap.data());
            }
            drop(mbuf);
            prop_assert_eq!(pool.in_use(), 0);
        }
    }
}

mod pools {
    use super::*;

    #[test]
    fn gives_all_it_has_and_no_more() {
        let pool = pool_of(63, Sharing::OneLcore);
        let mut burst = Burst::<64>::new();
        assert!(!pool.alloc_bulk(&mut burst, 64));
        assert!(burst.is_empty());
        assert!(pool.alloc_bulk(&mut burst, 63));
        assert!(pool.alloc().is_none());
        assert!(!pool.alloc_bulk(&mut burst, 2), "one place is left");
        assert_eq!((burst.len(), pool.in_use(), pool.capacity()), (63, 63, 63));
        burst.clear();
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn a_burst_frees_what_is_not_taken() {
        let pool = pool();
        let mut burst = Burst::<32>::new();
        assert!(pool.alloc_bulk(&mut burst, 32));
        let kept: Vec<_> = burst.drain().take(5).collect();
        assert_eq!((burst.len(), pool.in_use()), (0, 5));
        for mbuf in kept {
            burst.push(mbuf).unwrap();
        }
        burst.as_mut_slice().swap(0, 4);
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn mbufs_of_several_pools_go_home_each() {
        let pools = [pool(), pool(), pool()];
        let mut burst = Burst::<30>::new();
        for i in 0..30 {
            burst.push(pools[i * 7 % 3].alloc().unwrap()).unwrap();
        }
        assert!(pools.iter().all(|pool| pool.in_use() == 10));
        drop(burst);
        assert!(pools.iter().all(|pool| pool.in_use() == 0));
    }

    #[test]
    fn has_one_owner_at_a_time() {
        let pool = pool();
        let owner = pool.own().unwrap();
        assert_eq!(pool.own().unwrap_err(), PoolError::Owned);
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(pool.own().unwrap_err(), PoolError::Owned));
        });
        assert_eq!(owner.pool(), &pool);
        drop(owner);
        thread::scope(|scope| {
            scope.spawn(|| drop(pool.own().unwrap()));
        });
        pool.own().unwrap();
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_thread_without_a_pool_must_not_drop_an_owned_one() {
        let pool = pool();
        let _owner = pool.own().unwrap();
        let mbuf = pool.alloc().unwrap();
        let dropped = thread::scope(|scope| scope.spawn(|| drop(mbuf)).join());
        assert!(dropped.is_err());
        assert_eq!(pool.in_use(), 0, "freed all the same");
    }

    #[test]
    fn an_lcore_may_drop_another_lcores_mbuf() {
        let (mine, other) = (pool(), pool());
        let _owner = other.own().unwrap();
        let mbuf = other.alloc().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _owner = mine.own().unwrap();
                drop(mbuf);
            });
        });
        assert_eq!(other.in_use(), 0);
    }

    #[test]
    fn lives_until_its_last_mbuf_and_no_longer() {
        // Together far more memory than the EAL was given: pools that stayed would exhaust it.
        for round in 0..60 {
            let pool = pool_of(2047, Sharing::OneLcore);
            let owner = pool.own().unwrap();
            let mut queue = MbufQueue::default();
            (0..40).for_each(|n| queue.push_back(numbered(&pool, n)));
            let slice = numbered(&pool, round);
            drop((owner, pool));
            let threads = [0, 1].map(|_| {
                let some: Vec<_> = (0..20).map_while(|_| queue.pop_front()).collect();
                thread::spawn(move || assert_eq!(some.iter().map(number).count(), 20))
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(number(&slice), round);
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let make = |mbufs, cache| {
            Mempool::new(eal(), &PoolConfig { mbufs, cache, ..PoolConfig::default() })
        };
        assert_eq!(make(0, 0).unwrap_err(), PoolError::BadSize { mbufs: 0, cache: 0 });
        assert!(matches!(make(100, 100), Err(PoolError::BadSize { .. })));
    }

    #[test]
    fn a_plan_never_lends_what_the_device_needs() {
        let plan = PoolPlan { rx_descriptors: 1024, tx_descriptors: 0, held: 5000, cache: 256 };
        let mbufs = plan.mbufs();
        assert!((mbufs + 1).is_power_of_two());
        assert!(plan.holdable(mbufs) >= 5000);
        assert_eq!(plan.holdable(mbufs) + plan.reserve(), mbufs);
        assert_eq!(plan.holdable(1000), 0);
    }
}

mod queues {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        PushBack,
        PushFront,
        Pop,
        AppendTo { newer: usize },
        TrimFront,
        AppendToBack,
        Return,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => Just(Op::PushBack),
            2 => Just(Op::PushFront),
            3 => Just(Op::Pop),
            1 => (0..4_usize).prop_map(|newer| Op::AppendTo { newer }),
            1 => Just(Op::TrimFront),
            1 => Just(Op::AppendToBack),
            1 => Just(Op::Return),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn behave_like_a_deque(ops in prop::collection::vec(op(), 1..80)) {
            let pool = pool();
            let returns = MbufReturns::default();
            let (mut queue, mut oracle) = (MbufQueue::default(), VecDeque::<Vec<u8>>::new());
            let mut given = 0;
            for (n, op) in (0_u32..).zip(ops) {
                let bytes = n.to_be_bytes().to_vec();
                match op {
                    Op::PushBack => {
                        queue.push_back(frame(&pool, &bytes));
                        oracle.push_back(bytes);
                    }
                    Op::PushFront => {
                        queue.push_front(frame(&pool, &bytes));
                        oracle.push_front(bytes);
                    }
                    Op::Pop => {
                        let popped = queue.pop_front().map(|mbuf| mbuf.data().to_vec());
                        prop_assert_eq!(popped, oracle.pop_front());
                    }
                    Op::AppendTo { newer } => {
                        let mut more = MbufQueue::default();
                        (0..newer).for_each(|_| more.push_back(frame(&pool, &bytes)));
                        queue.append(&mut more);
                        prop_assert!(more.is_empty() && more.front().is_none());
                        oracle.extend((0..newer).map(|_| bytes.clone()));
                    }
                    Op::TrimFront => {
                        if let (Some(mbuf), Some(bytes)) = (queue.front_mut(), oracle.front_mut())
                            && !bytes.is_empty()
                        {
                            mbuf.trim_front(1);
                            bytes.remove(0);
                        }
                    }
                    Op::AppendToBack => {
                        if let (Some(mbuf), Some(last)) = (queue.back_mut(), oracle.back_mut()) {
                            prop_assert!(mbuf.append(&bytes));
                            last.extend(bytes);
                        }
                    }
                    Op::Return => {
                        given += queue.len();
                        returns.give(std::mem::take(&mut queue));
                        oracle.clear();
                    }
                }
                prop_assert!(queue.iter().map(Mbuf::data).eq(oracle.iter().map(Vec::as_slice)));
                prop_assert_eq!(queue.len(), oracle.len());
                prop_assert_eq!(queue.front().map(Mbuf::data), oracle.front().map(Vec::as_slice));
                prop_assert_eq!(queue.back().map(Mbuf::data), oracle.back().map(Vec::as_slice));
                prop_assert_eq!(pool.in_use() as usize, queue.len() + given);
            }
            prop_assert_eq!(returns.take_all().len(), given);
            drop(queue);
            prop_assert_eq!(pool.in_use(), 0);
        }
    }

    #[test]
    fn dropping_a_long_one_frees_all() {
        let pool = pool();
        let mut queue = MbufQueue::default();
        (0..255).for_each(|n| queue.push_back(numbered(&pool, n)));
        assert_eq!(pool.in_use(), 255);
        drop(queue);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn an_exchanged_mbuf_is_noticed_and_freed_once() {
        let pool = pool();
        for at_front in [true, false] {
            let mut queue = MbufQueue::default();
            (0..3).for_each(|n| queue.push_back(numbered(&pool, n)));
            let mut other = numbered(&pool, 9);
            let lent = if at_front { queue.front_mut() } else { queue.back_mut() };
            std::mem::swap(lent.unwrap(), &mut other);
            drop(other);
            assert!(catch_unwind(AssertUnwindSafe(|| queue.pop_front())).is_err());
            assert!(catch_unwind(AssertUnwindSafe(|| queue.iter().count())).is_err());
        }
        // Of each four, one was freed and three are leaked, which is what the queue promises.
        assert_eq!(pool.in_use(), 6);
    }

    #[test]
    fn what_threads_return_reaches_the_lcore_once() {
        const ROUNDS: u32 = 2_000;
        let pool = pool();
        let returns = MbufReturns::default();
        let (to_readers, readers): (Vec<_>, Vec<_>) =
            (0..3).map(|_| std::sync::mpsc::sync_channel::<Mbuf>(32)).unzip();
        thread::scope(|scope| {
            for reader in readers {
                let returns = &returns;
                scope.spawn(move || {
                    let mut chain = MbufQueue::default();
                    for mbuf in reader {
                        chain.push_back(mbuf);
                        if chain.len() == 5 {
                            returns.give(std::mem::take(&mut chain));
                        }
                    }
                    returns.give(chain);
                });
            }
            let _thread = EalThread::register(eal()).unwrap();
            let _owner = pool.own().unwrap();
            let (mut sum, mut sent) = (0_u64, 0);
            let came_back = |sum: &mut u64| {
                let chain = returns.take_all();
                *sum += chain.iter().map(|mbuf| u64::from(number(mbuf))).sum::<u64>();
                chain.len() as u32
            };
            let mut back = 0;
            while sent < ROUNDS {
                back += came_back(&mut sum);
                if sent - back < 200 {
                    to_readers[sent as usize % 3].send(numbered(&pool, sent)).unwrap();
                    sent += 1;
                } else {
                    // What is missing sits in incomplete chains and full channels.
                    thread::yield_now();
                }
            }
            drop(to_readers);
            while back < ROUNDS {
                back += came_back(&mut sum);
                thread::yield_now();
            }
            assert_eq!(sum, u64::from(ROUNDS) * u64::from(ROUNDS - 1) / 2);
            assert_eq!(pool.in_use(), 0);
        });
    }

    #[test]
    fn a_dropped_return_stack_frees_what_is_in_it() {
        let pool = pool();
        let returns = MbufReturns::default();
        returns.give(MbufQueue::default());
        assert!(returns.take_all().is_empty());
        for n in 0..10 {
            let mut chain = MbufQueue::default();
            chain.push_back(numbered(&pool, n));
            returns.give(chain);
        }
        assert_eq!(pool.in_use(), 10);
        drop(returns);
        assert_eq!(pool.in_use(), 0);
    }
}

mod ports {
    use super::*;

    fn config(pools: &[&Mempool]) -> PortConfig {
        PortConfig {
            pools: pools.iter().map(|pool| (*pool).clone()).collect(),
            rx_descriptors: 64,
            tx_descriptors: 64,
            ..PortConfig::default()
        }
    }

    #[test]
    fn a_pair_carries_frames_both_ways_in_order() {
        let (near_pool, far_pool) = (pool(), pool());
        let (near, far) = RingPort::pair(eal(), 2, 64).unwrap();
        let mut near = near.configure(config(&[&near_pool, &near_pool])).unwrap();
        let mut far = far.configure(config(&[&far_pool, &far_pool])).unwrap();
        let mut ends = [near.start().unwrap(), far.start().unwrap()];
        assert!(near.start().unwrap().is_empty(), "queues are given once");
        assert!(near.link().up && !near.rss());
        let mut burst = Burst::<32>::new();
        for round in 0..50 {
            for (queue, end) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let pool = [&near_pool, &far_pool][end];
                (0..20).for_each(|n| burst.push(numbered(pool, round * 100 + n)).unwrap());
                assert_eq!(ends[end][queue].1.send(&mut burst), 20);
                assert!(burst.is_empty());
                let other = &mut ends[1 - end][queue].0;
                assert_eq!(other.rx(&mut burst), 20);
                assert!(
                    burst.drain().map(|mbuf| number(&mbuf)).eq((0..20).map(|n| round * 100 + n))
                );
            }
        }
        assert_eq!(near.stats().rx_packets, 2000);
        assert_eq!(far.stats().tx_packets, 2000);
        drop((ends, near, far));
        assert_eq!((near_pool.in_use(), far_pool.in_use()), (0, 0));
    }

    #[test]
    fn what_a_full_device_refuses_stays_in_order() {
        let pool = pool();
        let port = RingPort::loopback(eal(), 1, 40).unwrap();
        let mut port = port.configure(config(&[&pool])).unwrap();
        let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
        let mut burst = Burst::<64>::new();
        (0..64).for_each(|n| burst.push(numbered(&pool, n)).unwrap());
        assert_eq!(tx.send(&mut burst), 40);
        assert!(burst.as_slice().iter().map(number).eq(40..64));
        let mut came = Burst::<64>::new();
        assert_eq!(rx.rx(&mut came), 40);
        assert_eq!(tx.send(&mut burst), 24);
        assert_eq!(rx.rx(&mut came), 24, "behind what the burst holds");
        assert!(came.as_slice().iter().map(number).eq(0..64));
        assert_eq!(rx.rx(&mut came), 0, "no place is left");
        // What is still in the ring when the port goes is freed with it.
        assert_eq!(tx.send(&mut came), 40);
        drop((came, rx, tx, port));
        assert_eq!(pool.in_use(), 0);
    }

    /// Two mbufs as one packet of two segments.
    fn chained(pool: &Mempool, first: &[u8], second: &[u8]) -> Mbuf {
        let (first, second) = (frame(pool, first), frame(pool, second));
        let len = (first.len() + second.len()) as u32;
        // SAFETY: the chain's fields, as DPDK has them; the burst hands it straight to the device.
        unsafe {
            write(&first, sys::PQS_OFF_NB_SEGS, 2_u16);
            write(&first, sys::PQS_OFF_PKT_LEN, len);
            write(&first, sys::PQS_OFF_NEXT, second.into_raw());
        }
        first
    }

    #[test]
    fn chains_are_made_one_segment_or_refused() {
        let pool = pool();
        let port = RingPort::loopback(eal(), 1, 64).unwrap();
        let mut port = port.configure(config(&[&pool])).unwrap();
        let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
        let mut burst = Burst::<8>::new();
        burst.push(numbered(&pool, 1)).unwrap();
        burst.push(chained(&pool, &[1; 2000], &[2; 100])).unwrap();
        burst.push(chained(&pool, &[1, 2], &[3, 4, 5])).unwrap();
        burst.push(numbered(&pool, 2)).unwrap();
        assert_eq!(pool.in_use(), 6);
        assert_eq!(tx.send(&mut burst), 4);
        assert_eq!(rx.rx(&mut burst), 3);
        assert!(burst.as_slice().iter().map(|mbuf| mbuf.len()).eq([4, 5, 4]));
        assert_eq!(burst.as_slice()[1].data(), [1, 2, 3, 4, 5]);
        assert_eq!(rx.counters(), RxCounters { linearised: 1, rejected_chains: 1, foreign: 0 },);
        assert_eq!(pool.in_use(), 3);
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn mbufs_of_somebody_elses_pool_are_dropped_and_counted() {
        // SAFETY: the EAL is up; a plain DPDK pool, freed below.
        let strange = unsafe {
            eal();
            sys::rte_pktmbuf_pool_create(c"strange".as_ptr(), 31, 0, 0, 2176, -1)
        };
        assert!(!strange.is_null());
        let (pool, other) = (pool(), pool_of(63, Sharing::AnyThread));
        let port = RingPort::loopback(eal(), 1, 64).unwrap();
        let mut port = port.configure(config(&[&pool])).unwrap();
        let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
        let mut burst = Burst::<8>::new();
        let mut raw = std::ptr::null_mut();
        // SAFETY: one place; the mbuf goes to the device without being touched as one of ours.
        unsafe {
            assert_eq!(sys::pqs_alloc_bulk(strange, &mut raw, 1), 0);
            burst.push(Mbuf::from_raw(NonNull::new(raw).unwrap())).unwrap();
        }
        burst.push(numbered(&other, 5)).unwrap();
        assert_eq!(tx.send(&mut burst), 2);
        assert_eq!(rx.rx(&mut burst), 1, "another pool of ours is welcome");
        assert_eq!(number(&burst.as_slice()[0]), 5);
        assert_eq!(rx.counters().foreign, 1);
        // SAFETY: its only mbuf is back.
        unsafe {
            assert_eq!(sys::rte_mempool_in_use_count(strange), 0);
            sys::rte_mempool_free(strange);
        }
        drop(burst);
        assert_eq!(other.in_use(), 0);
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        let pool = pool();
        let eal = eal();
        let configure = |config: PortConfig| {
            RingPort::loopback(eal, 1, 64).unwrap().configure(config).unwrap_err()
        };
        assert_eq!(configure(config(&[])), PortError::NoQueues);
        let error = configure(config(&[&pool; 100]));
        assert!(matches!(error, PortError::TooManyQueues { want: 100, .. }), "{error}");
        let error = configure(PortConfig { mtu: Some(9000), ..config(&[&pool]) });
        assert_eq!(error, PortError::MtuTooLarge { mtu: 9000, room: 2048 });

        let port = RingPort::loopback(eal, 1, 64).unwrap();
        let id = port.id();
        let _port = port.configure(config(&[&pool])).unwrap();
        let again = Port::configure(id, config(&[&pool])).unwrap_err();
        assert_eq!(again, PortError::InUse(id));
    }

    #[test]
    fn an_lcore_thread_polls_while_another_sends() {
        const FRAMES: u32 = 20_000;
        let (pool, peer_pool) = (pool(), pool_of(255, Sharing::AnyThread));
        let (near, far) = RingPort::pair(eal(), 1, 64).unwrap();
        let mut near = near.configure(config(&[&pool])).unwrap();
        let mut far = far.configure(config(&[&peer_pool])).unwrap();
        let (mut rx, _) = near.start().unwrap().pop().unwrap();
        let (_, mut tx) = far.start().unwrap().pop().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _thread = EalThread::register(eal()).unwrap();
                let _owner = pool.own().unwrap();
                let (mut burst, mut next) = (Burst::<32>::new(), 0);
                while next < FRAMES {
                    if rx.rx(&mut burst) == 0 {
                        thread::yield_now();
                    }
                    for mbuf in burst.drain() {
                        assert_eq!(number(&mbuf), next);
                        next += 1;
                    }
                }
            });
            let (mut burst, mut next) = (Burst::<32>::new(), 0);
            while next < FRAMES || !burst.is_empty() {
                while next < FRAMES && !burst.is_full() {
                    let Some(mut mbuf) = peer_pool.alloc() else { break };
                    assert!(mbuf.append(&next.to_be_bytes()));
                    burst.push(mbuf).unwrap();
                    next += 1;
                }
                if tx.send(&mut burst) == 0 {
                    thread::yield_now();
                }
            }
        });
        assert_eq!((pool.in_use(), peer_pool.in_use()), (0, 0));
    }
}

mod process {
    use super::*;

    /// Runs `body` in a process of its own, whose EAL nobody has started: this very test again.
    fn alone(test: &str, body: impl FnOnce()) {
        const CHILD: &str = "PREQUEUE_TEST_CHILD";
        if env::var_os(CHILD).is_some() {
            return body();
        }
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("dpdk::tests::process::{test}"), "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("1 passed"), "the child ran nothing: {said}");
    }

    fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
        TEST_ARGS.into_iter().chain(more.iter().copied()).collect()
    }

    fn affinity() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
    }

    #[test]
    fn starts_once_and_leaves_the_host_thread_alone() {
        alone("starts_once_and_leaves_the_host_thread_alone", || {
            assert_eq!(Eal::adopt().unwrap_err(), EalError::NotUp);
            let before = affinity();
            let eal = Eal::init(TEST_ARGS).unwrap();
            assert_eq!(affinity(), before);
            assert!(std::ptr::eq(eal, Eal::init(TEST_ARGS).unwrap()));
            assert!(std::ptr::eq(eal, Eal::adopt().unwrap()));
            let error = Eal::init(["-l", "0"]).unwrap_err();
            assert_eq!(error, EalError::OtherArguments(TEST_ARGS.join(" ")));
            assert_eq!(eal.lcores().len(), 1);
            assert!(eal.version().starts_with("DPDK "));
            assert_eq!(eal.require_ports().unwrap_err(), EalError::NoPorts);
        });
    }

    #[test]
    fn a_host_that_runs_dpdk_is_adopted() {
        alone("a_host_that_runs_dpdk_is_adopted", || {
            let argv: Vec<_> = ["host"]
                .into_iter()
                .chain(TEST_ARGS)
                .map(|arg| std::ffi::CString::new(arg).unwrap().into_raw())
                .collect();
            // SAFETY: as main() gets it; leaked.
            let ret = unsafe { sys::rte_eal_init(argv.len() as i32, argv.leak().as_mut_ptr()) };
            assert!(ret >= 0);
            assert_eq!(Eal::init(TEST_ARGS).unwrap_err(), EalError::AlreadyUp);
            let eal = Eal::adopt().unwrap();
            assert_eq!(eal.lcores().len(), 1);
            assert_eq!(Eal::init(TEST_ARGS).unwrap_err(), EalError::AlreadyUp);
            drop(Mempool::new(eal, &PoolConfig::default()).unwrap());
        });
    }

    #[test]
    fn bad_arguments_are_refused_for_good() {
        alone("bad_arguments_are_refused_for_good", || {
            let nul = Eal::init(["-l\0"]).unwrap_err();
            assert_eq!(nul, EalError::NulInArgument("-l\0".to_owned()));
            let args = with(&["--vdev=net_nosuch0"]);
            let error = Eal::init(args.clone()).unwrap_err();
            assert!(matches!(error, EalError::Refused { .. }), "{error}");
            assert_eq!(Eal::init(args).unwrap_err(), error);
        });
    }

    #[test]
    fn a_device_that_does_not_come_up_is_named() {
        alone("a_device_that_does_not_come_up_is_named", || {
            let eal =
                Eal::init(with(&["--vdev=net_null0", "--vdev=net_null7,nonsense=1"])).unwrap();
            assert_eq!(eal.ports().len(), 1);
            assert_eq!(eal.ports()[0].name().unwrap(), "net_null0");
            let error = eal.require_ports().unwrap_err();
            assert_eq!(error, EalError::VdevFailed("net_null7".to_owned()));
        });
    }

    #[test]
    fn lcores_come_in_the_users_order() {
        alone("lcores_come_in_the_users_order", || {
            let args = TEST_ARGS.into_iter().filter(|arg| !["-l", "0"].contains(arg));
            let eal = Eal::init(args.chain(["--lcores=5@0,2@0,7@0", "--main-lcore=2"])).unwrap();
            let lcores: Vec<_> = eal.lcores().iter().map(|lcore| (lcore.id, lcore.cpu)).collect();
            assert_eq!(lcores, [(5, 0), (2, 0), (7, 0)]);
        });
    }

    #[test]
    fn a_pool_larger_than_the_memory_leaves_it_whole() {
        // Alone, because it takes all memory before it gives up.
        alone("a_pool_larger_than_the_memory_leaves_it_whole", || {
            let eal = eal();
            let config = PoolConfig { mbufs: 1 << 20, ..PoolConfig::default() };
            for _ in 0..3 {
                let error = Mempool::new(eal, &config).unwrap_err();
                assert!(matches!(error, PoolError::NoMemory { mib: 2368, .. }), "{error}");
                assert!(error.to_string().contains("hugepages"));
            }
            drop(Mempool::new(eal, &PoolConfig::default()).unwrap());
        });
    }

    #[test]
    fn a_null_device_is_polled_like_any_other() {
        alone("a_null_device_is_polled_like_any_other", || {
            let eal = Eal::init(with(&["--vdev=net_null0,size=64"])).unwrap();
            let id = eal.require_ports().unwrap()[0];
            let pool = PoolConfig { mbufs: 4095, ..PoolConfig::default() };
            let pool = Mempool::new(eal, &pool).unwrap();
            let config = PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
            let mut port = Port::configure(id, config.clone()).unwrap();
            let (mut rx, mut tx) = port.start().unwrap().pop().unwrap();
            let mut burst = Burst::<32>::new();
            assert_eq!(rx.rx(&mut burst), 32);
            assert!(burst.as_slice().iter().all(|mbuf| mbuf.len() == 64));
            assert_eq!(tx.send(&mut burst), 32);
            assert_eq!((port.stats().rx_packets, port.stats().tx_packets), (32, 32));
            drop((burst, rx, tx, port));
            assert_eq!(pool.in_use(), 0);
            assert!(eal.ports().is_empty(), "closed");
            assert_eq!(Port::configure(id, config).unwrap_err(), PortError::NoSuchPort(id));
        });
    }
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
