//! Fragments in, whole datagrams out, and every mbuf back.

use super::*;
use crate::buf::{Headers, Lost, Reassembly};
use crate::time::Instant;
use crate::wire::{ethernet, ipv4};

const HEADERS: Headers = Headers { link: 14, ip: 20 };

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// A fragment of datagram `id`, whose bytes are a function of their place.
fn fragment(pool: &Mempool, id: u16, offset: usize, len: usize, more: bool) -> Mbuf {
    let mut bytes = vec![0; 34 + len];
    let mac = crate::wire::MacAddr([2, 0, 0, 0, 0, 1]);
    ethernet::emit(&mut bytes, mac, mac, None, ethernet::IPV4);
    ipv4::emit(&mut bytes[14..], [10, 0, 0, 9].into(), [10, 0, 0, 1].into(), 6, 0, len);
    bytes[18..20].copy_from_slice(&id.to_be_bytes());
    let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    bytes[20..22].copy_from_slice(&field.to_be_bytes());
    ipv4::write_checksum(&mut bytes[14..34]);
    (0..len).for_each(|at| bytes[34 + at] = byte_at(offset + at));
    frame(pool, &bytes)
}

fn byte_at(at: usize) -> u8 {
    (at ^ (at >> 8)) as u8
}

fn lost(failed: u32, timed_out: u32) -> Lost {
    Lost { failed, timed_out }
}

/// Gives all in this order; the payload that came out, if any did with the last.
fn put(table: &mut Fragments, all: Vec<Mbuf>) -> (Option<Vec<u8>>, Lost) {
    let mut total = Lost::default();
    let mut out = None;
    for fragment in all {
        assert_eq!(out, None, "nothing is whole before the last");
        let (whole, lost) = table.take(fragment, HEADERS, ms(1000));
        total.failed += lost.failed;
        total.timed_out += lost.timed_out;
        out = whole.map(|whole| {
            assert_eq!(whole.checksum(), Checksum::Unknown);
            let mut bytes = Vec::new();
            let mut next = Some(&whole);
            while let Some(buf) = next {
                bytes.extend_from_slice(buf.data());
                next = buf.rest();
            }
            let ip = ipv4::parse(&bytes[14..], Checksum::Unknown).expect("an intact header");
            assert!(!ip.fragment);
            ip.payload(&bytes[14..]).to_vec()
        });
    }
    (out, total)
}

#[test]
fn fragments_in_any_order_make_the_datagram() {
    let pool = pool();
    let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
    let expected: Vec<u8> = (0..3100).map(byte_at).collect();
    let parts = [(0, 1000, true), (1000, 1000, true), (2000, 1000, true), (3000, 100, false)];
    for (id, order) in (0..).zip([[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]]) {
        let all = order.map(|at: usize| {
            let (offset, len, more) = parts[at];
            fragment(&pool, id, offset, len, more)
        });
        assert_eq!(put(&mut table, all.into()), (Some(expected.clone()), Lost::default()));
    }
    assert_eq!((table.held(), pool.in_use(), table.next_deadline()), (0, 0, None));
}

#[test]
fn fragments_in_several_mbufs_count_as_such() {
    let pool = pool();
    let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
    // As a device leaves a fragment that is longer than its buffers.
    let long = |offset, more| {
        let mut first = fragment(&pool, 1, offset, 1600, more);
        let tail = frame(&pool, &first.data()[1000..]);
        first.truncate(1000);
        // SAFETY: the chain's fields, as a driver leaves them; taken over as such.
        unsafe {
            write(&first, sys::PQS_OFF_NB_SEGS, 2_u16);
            write(&first, sys::PQS_OFF_NEXT, tail.into_raw());
            Mbuf::from_raw_chain(first.into_raw())
        }
    };
    let (whole, _) = put(&mut table, vec![long(1600, false), long(0, true)]);
    assert_eq!(whole.unwrap(), (0..3200).map(byte_at).collect::<Vec<_>>());
    assert_eq!((table.held(), pool.in_use()), (0, 0));
    // One that stays alone is freed with all it has.
    assert!(table.take(long(0, true), HEADERS, ms(1000)).0.is_none());
    assert_eq!((table.held(), pool.in_use()), (2, 2));
    drop(table);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn what_overlaps_is_dropped() {
    for parts in [
        // One byte's worth of a unit twice.
        &[(0, 808, true), (800, 200, false)][..],
        // The second inside of the first; the same place twice; a gap made up for by an overlap.
        &[(0, 1000, true), (496, 496, true), (1000, 100, false)],
        &[(0, 800, true), (0, 800, true), (800, 8, false)],
        &[(0, 800, true), (400, 800, true), (1600, 0x10, false), (1200, 400, true)],
    ] {
        let pool = pool();
        let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
        let mut failed = 0;
        for &(offset, len, more) in parts {
            let (whole, lost) =
                table.take(fragment(&pool, 7, offset, len, more), HEADERS, ms(1000));
            assert!(whole.is_none(), "{parts:?}");
            failed += lost.failed;
        }
        failed += table.expire(ms(100_000)).failed;
        assert!(failed > 0, "{parts:?}");
        assert_eq!((table.held(), pool.in_use()), (0, 0), "{parts:?}");
    }
}

#[test]
fn what_waits_for_too_long_is_given_up() {
    let pool = pool();
    let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
    for (id, at) in [(1, 1000), (1, 2000), (2, 5000)] {
        let offset = usize::from(at == 2000) * 800;
        assert!(table.take(fragment(&pool, id, offset, 800, true), HEADERS, ms(at)).0.is_none());
    }
    assert!(table.next_deadline().is_some());
    assert_eq!((table.expire(ms(30_900)), pool.in_use()), (lost(0, 0), 3));
    assert_eq!((table.expire(ms(31_100)), pool.in_use()), (lost(1, 1), 1));
    // The last one comes too late: it waits alone.
    let late = fragment(&pool, 1, 1600, 8, false);
    assert_eq!(table.take(late, HEADERS, ms(31_200)).1, lost(0, 0));
    assert_eq!((table.expire(ms(99_000)), pool.in_use()), (lost(2, 2), 0));
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn tables_are_bounded_in_datagrams_and_fragments() {
    let pool = pool_of(1023, Sharing::OneLcore);
    let mut table = Fragments::new(eal(), 8, 30 * SECOND, None).unwrap();
    let mut refused = 0;
    for id in 0..200 {
        refused += table.take(fragment(&pool, id, 0, 800, true), HEADERS, ms(1000)).1.failed;
    }
    assert!(refused >= 192, "{refused}");
    assert_eq!(pool.in_use(), 200 - refused);
    table.expire(ms(99_000));
    assert_eq!(pool.in_use(), 0);
    // One more fragment than may be.
    let mut failed = 0;
    for n in 0..=Fragments::MOST as usize {
        failed += table.take(fragment(&pool, 1, n * 80, 80, true), HEADERS, ms(1000)).1.failed;
    }
    assert_eq!(failed, 1);
    drop(table);
    assert_eq!(pool.in_use(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_nothing_is_kept_and_nothing_is_wrong(
        parts in proptest::collection::vec(
            (0_u16..4, 0_usize..12, 1_usize..6, any::<bool>(), 0_u64..20_000), 1..80),
    ) {
        let pool = pool_of(511, Sharing::OneLcore);
        let mut table = Fragments::new(eal(), 4, 30 * SECOND, None).unwrap();
        let mut now = 1000;
        for (id, offset, len, more, later) in parts {
            now += later;
            let fragment = fragment(&pool, id, offset * 80, len * 80, more);
            let (whole, _) = table.take(fragment, HEADERS, ms(now));
            if let Some(mut whole) = whole {
                whole.trim_front(34);
                let (mut at, mut next) = (0, Some(&whole));
                while let Some(buf) = next {
                    for &byte in buf.data() {
                        prop_assert_eq!(byte, byte_at(at));
                        at += 1;
                    }
                    next = buf.rest();
                }
            }
            if later > 15_000 {
                table.expire(ms(now));
            }
            prop_assert_eq!(table.held(), pool.in_use());
        }
        drop(table);
        prop_assert_eq!(pool.in_use(), 0);
    }
}
