//! Queues and returns against plain ones; nothing lost, nothing freed twice.

use super::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    PushBack,
    PushFront,
    Pop,
    AppendTo { newer: usize },
    SpendFront { most: usize, stop: usize },
    TrimFront,
    ExtendBack,
    Return,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::PushBack),
        2 => Just(Op::PushFront),
        3 => Just(Op::Pop),
        1 => (0..4_usize).prop_map(|newer| Op::AppendTo { newer }),
        2 => (0..5_usize, 0..5_usize).prop_map(|(most, stop)| Op::SpendFront { most, stop }),
        1 => Just(Op::TrimFront),
        1 => Just(Op::ExtendBack),
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
                Op::SpendFront { most, stop } => {
                    let mut seen = Vec::new();
                    let mut batch = MbufBatch::default();
                    let spent = queue.spend_front(most, &mut batch, |mbuf| {
                        let takes = seen.len() < stop;
                        if takes {
                            seen.push(mbuf.data().to_vec());
                        }
                        takes
                    });
                    let expected = most.min(stop).min(32).min(oracle.len());
                    prop_assert!(oracle.drain(..expected).eq(seen));
                    prop_assert_eq!(spent, expected);
                    given += spent;
                    returns.give_batch(batch);
                }
                Op::TrimFront => {
                    if let Some(bytes) = oracle.front_mut().filter(|bytes| !bytes.is_empty()) {
                        let seq = queue.front().unwrap().cb().seq;
                        queue.trim_front(1);
                        bytes.remove(0);
                        prop_assert_eq!(queue.front().unwrap().cb().seq, seq.wrapping_add(1));
                    }
                }
                Op::ExtendBack => {
                    let extended = queue.extend_back(&bytes, n % 2 == 0);
                    prop_assert_eq!(extended, !oracle.is_empty());
                    if let (Some(last), Some(mbuf)) = (oracle.back_mut(), queue.back()) {
                        last.extend(bytes);
                        prop_assert_eq!(mbuf.cb().fin, n % 2 == 0);
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
        let mut freed = 0;
        returns.free_all(|_, truesize| freed += truesize as usize);
        prop_assert_eq!(freed, given * numbered(&pool, 0).truesize() as usize);
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
                // A chain and a batch in turns; the batch has up to three carriers.
                let (mut chain, mut batch, mut n) = (MbufQueue::default(), MbufBatch::default(), 0);
                for mbuf in reader {
                    if n % 40 < 5 {
                        chain.push_back(mbuf);
                    } else {
                        let truesize = mbuf.truesize();
                        MbufReturns::collect(&mut batch, mbuf, truesize);
                    }
                    n += 1;
                    match n % 40 {
                        5 => returns.give(std::mem::take(&mut chain)),
                        6 | 12 | 39 => returns.give_batch(std::mem::take(&mut batch)),
                        _ => {}
                    }
                }
                returns.give(chain);
                returns.give_batch(batch);
            });
        }
        let _thread = EalThread::register(eal()).unwrap();
        let _owner = pool.own().unwrap();
        let each = numbered(&pool, 0).truesize();
        let came_back = || {
            let mut freed = 0;
            returns.free_all(|owner, truesize| {
                assert_eq!(owner, Owner::default());
                freed += truesize;
            });
            assert_eq!(freed % each, 0);
            freed / each
        };
        let (mut back, mut sent) = (0, 0);
        while sent < ROUNDS {
            back += came_back();
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
            back += came_back();
            thread::yield_now();
        }
        assert_eq!(back, ROUNDS);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn batches_of_all_lengths_come_back_and_can_be_freed_or_dropped_instead() {
    enum End {
        Given,
        Freed,
        Dropped,
    }
    let pool = pool();
    let returns = MbufReturns::default();
    for len in (0..=70).chain([1, 17, 33]) {
        for ends in [End::Given, End::Freed, End::Dropped] {
            let mut batch = MbufBatch::default();
            // What is uncharged is what the reader said.
            (0..len).for_each(|n| MbufReturns::collect(&mut batch, numbered(&pool, n), n + 1));
            assert_eq!(pool.in_use(), len);
            let sum = len * (len + 1) / 2;
            match ends {
                End::Given => {
                    returns.give_batch(batch);
                    let mut uncharged = 0;
                    returns.free_all(|_, truesize| uncharged += truesize);
                    assert_eq!(uncharged, sum);
                }
                End::Freed => assert_eq!(MbufReturns::free_batch(batch), sum),
                End::Dropped => drop(batch),
            }
            assert_eq!(pool.in_use(), 0, "{len} mbufs");
        }
    }
}

#[test]
fn a_dropped_return_stack_frees_what_is_in_it() {
    let pool = pool();
    let returns = MbufReturns::default();
    returns.give(MbufQueue::default());
    returns.free_all(|_, _| panic!("nothing was given"));
    for n in 0..10 {
        let mut chain = MbufQueue::default();
        chain.push_back(numbered(&pool, n));
        returns.give(chain);
    }
    let mut batch = MbufBatch::default();
    (0..20).for_each(|n| MbufReturns::collect(&mut batch, numbered(&pool, n), 1));
    returns.give_batch(batch);
    assert_eq!(pool.in_use(), 30);
    drop(returns);
    assert_eq!(pool.in_use(), 0);
}
