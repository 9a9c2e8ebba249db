//! Pools: all they have, who may free into them, how long they live.

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
fn what_another_lcore_frees_can_be_allocated_again() {
    let (mine, other) = (pool(), pool());
    let _owner = other.own().unwrap();
    let mut queue = MbufQueue::default();
    (0..255).for_each(|n| queue.push_back(numbered(&other, n)));
    thread::scope(|scope| {
        scope.spawn(|| {
            // With a cache in every pool, as an lcore has.
            let _thread = EalThread::register(eal()).unwrap();
            let _owner = mine.own().unwrap();
            let mut in_bulk = MbufBatch::default();
            while queue.len() > 155 {
                queue.spend_front(100, &mut in_bulk, |_| true);
            }
            drop(in_bulk);
            while let Some(mbuf) = queue.pop_front() {
                drop(mbuf);
            }
        });
    });
    let all: Vec<_> = (0..255).map_while(|_| other.alloc()).collect();
    assert_eq!(all.len(), 255, "none is kept where nobody allocates");
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
    let make =
        |mbufs, cache| Mempool::new(eal(), &PoolConfig { mbufs, cache, ..PoolConfig::default() });
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
