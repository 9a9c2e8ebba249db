//! Fragments in, whole datagrams out, and every mbuf back.

use super::*;
use crate::buf::{Headers, Lost, Reassembly};
use crate::time::Instant;
use crate::wire::{Family, ethernet, ipv4, ipv6};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// What stands before the payload of a fragment that [`fragment`] makes.
fn headers(family: Family) -> Headers {
    Headers { family, link: 14, ip: if family == Family::V4 { 20 } else { 48 } }
}

/// A fragment of datagram `id`, whose bytes are a function of their place.
fn fragment(
    pool: &Mempool,
    family: Family,
    id: u16,
    offset: usize,
    len: usize,
    more: bool,
) -> Mbuf {
    let payload: Vec<u8> = (offset..offset + len).map(byte_at).collect();
    let mut bytes = vec![0; 14];
    let mac = crate::wire::MacAddr([2, 0, 0, 0, 0, 1]);
    match family {
        Family::V4 => {
            ethernet::emit(&mut bytes, mac, mac, None, ethernet::IPV4);
            let mut header = [0; 20];
            ipv4::emit(&mut header, [10, 0, 0, 9].into(), [10, 0, 0, 1].into(), 6, 0, len);
            header[4..6].copy_from_slice(&id.to_be_bytes());
            let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            header[6..8].copy_from_slice(&field.to_be_bytes());
            ipv4::write_checksum(&mut header);
            bytes.extend(header);
        }
        Family::V6 => {
            ethernet::emit(&mut bytes, mac, mac, None, ethernet::IPV6);
            let mut header = [0; 48];
            let [src, dst] = ["fd00::9", "fd00::1"].map(|addr| addr.parse().unwrap());
            ipv6::emit(&mut header, src, dst, 44, 0, 8 + len);
            let field = offset as u16 | u16::from(more);
            header[40..44].copy_from_slice(&[6, 0, (field >> 8) as u8, field as u8]);
            header[44..].copy_from_slice(&u32::from(id).to_be_bytes());
            bytes.extend(header);
        }
    }
    bytes.extend(payload);
    frame(pool, &bytes)
}

fn byte_at(at: usize) -> u8 {
    (at ^ (at >> 8)) as u8
}

fn lost(failed: u32, timed_out: u32) -> Lost {
    Lost { failed, timed_out }
}

/// Gives all in this order; the payload that came out, if any did with the last.
fn put(table: &mut Fragments, family: Family, all: Vec<Mbuf>) -> (Option<Vec<u8>>, Lost) {
    let mut total = Lost::default();
    let mut out = None;
    for fragment in all {
        assert_eq!(out, None, "nothing is whole before the last");
        let (whole, lost) = table.take(fragment, headers(family), ms(1000));
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
            payload(family, &bytes[14..]).to_vec()
        });
    }
    (out, total)
}

/// That of a datagram, which must be intact and whole.
fn payload(family: Family, datagram: &[u8]) -> &[u8] {
    match family {
        Family::V4 => {
            let ip = ipv4::parse(datagram, Checksum::Unknown).expect("an intact header");
            assert!(!ip.fragment);
            ip.payload(datagram)
        }
        Family::V6 => {
            let ip = ipv6::parse(datagram).expect("an intact header");
            assert_eq!((ip.protocol, ip.header_len, ip.fragment), (6, 40, false));
            ip.payload(datagram)
        }
    }
}

#[test]
fn fragments_in_any_order_make_the_datagram() {
    let pool = pool();
    let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
    let expected: Vec<u8> = (0..3100).map(byte_at).collect();
    let parts = [(0, 1000, true), (1000, 1000, true), (2000, 1000, true), (3000, 100, false)];
    for (id, order) in (0..).zip([[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]]) {
        for family in FAMILIES {
            let all = order.map(|at: usize| {
                let (offset, len, more) = parts[at];
                fragment(&pool, family, id, offset, len, more)
            });
            let out = put(&mut table, family, all.into());
            assert_eq!(out, (Some(expected.clone()), Lost::default()));
        }
    }
    assert_eq!((table.held(), pool.in_use(), table.next_deadline()), (0, 0, None));
}

#[test]
fn fragments_in_several_mbufs_count_as_such() {
    let pool = pool();
    let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
    // As a device leaves a fragment that is longer than its buffers.
    let long = |family, offset, more| {
        let mut first = fragment(&pool, family, 1, offset, 1600, more);
        let tail = frame(&pool, &first.data()[1000..]);
        first.truncate(1000);
        // SAFETY: the chain's fields, as a driver leaves them; taken over as such.
        unsafe {
            write(&first, sys::PQS_OFF_NB_SEGS, 2_u16);
            write(&first, sys::PQS_OFF_NEXT, tail.into_raw());
            Mbuf::from_raw_chain(first.into_raw())
        }
    };
    for family in FAMILIES {
        let all = vec![long(family, 1600, false), long(family, 0, true)];
        let (whole, _) = put(&mut table, family, all);
        assert_eq!(whole.unwrap(), (0..3200).map(byte_at).collect::<Vec<_>>());
        assert_eq!((table.held(), pool.in_use()), (0, 0));
    }
    // One that stays alone is freed with all it has.
    let alone = long(Family::V4, 0, true);
    assert!(table.take(alone, headers(Family::V4), ms(1000)).0.is_none());
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
        for family in FAMILIES {
            let pool = pool();
            let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
            let mut failed = 0;
            for &(offset, len, more) in parts {
                let fragment = fragment(&pool, family, 7, offset, len, more);
                let (whole, lost) = table.take(fragment, headers(family), ms(1000));
                assert!(whole.is_none(), "{parts:?}");
                failed += lost.failed;
            }
            failed += table.expire(ms(100_000)).failed;
            assert!(failed > 0, "{parts:?}");
            assert_eq!((table.held(), pool.in_use()), (0, 0), "{parts:?}");
        }
    }
}

#[test]
fn what_waits_for_too_long_is_given_up() {
    let pool = pool();
    let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
    for (id, at) in [(1, 1000), (1, 2000), (2, 5000)] {
        let offset = usize::from(at == 2000) * 800;
        let fragment = fragment(&pool, Family::V4, id, offset, 800, true);
        assert!(table.take(fragment, headers(Family::V4), ms(at)).0.is_none());
    }
    assert!(table.next_deadline().is_some());
    assert_eq!((table.expire(ms(30_900)), pool.in_use()), (lost(0, 0), 3));
    assert_eq!((table.expire(ms(31_100)), pool.in_use()), (lost(1, 1), 1));
    // The last one comes too late: it waits alone.
    let late = fragment(&pool, Family::V4, 1, 1600, 8, false);
    assert_eq!(table.take(late, headers(Family::V4), ms(31_200)).1, lost(0, 0));
    assert_eq!((table.expire(ms(99_000)), pool.in_use()), (lost(2, 2), 0));
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn tables_are_bounded_in_datagrams_and_fragments() {
    let pool = pool_of(1023, Sharing::OneLcore);
    let mut table = Fragments::new(eal(), 8, 30 * SECOND, None).unwrap();
    let mut refused = 0;
    for id in 0..200 {
        let family = FAMILIES[usize::from(id % 2)];
        let fragment = fragment(&pool, family, id, 0, 800, true);
        refused += table.take(fragment, headers(family), ms(1000)).1.failed;
    }
    assert!(refused >= 192, "{refused}");
    assert_eq!(pool.in_use(), 200 - refused);
    table.expire(ms(99_000));
    assert_eq!(pool.in_use(), 0);
    // One more fragment than may be.
    let mut failed = 0;
    for n in 0..=Fragments::MOST as usize {
        let fragment = fragment(&pool, Family::V6, 1, n * 80, 80, true);
        failed += table.take(fragment, headers(Family::V6), ms(1000)).1.failed;
    }
    assert_eq!(failed, 1);
    drop(table);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn what_stands_before_the_fragment_header_is_left_out() {
    let pool = pool();
    let mut table = Fragments::new(eal(), 16, 30 * SECOND, None).unwrap();
    let plain = |offset, more| fragment(&pool, Family::V6, 1, offset, 800, more);
    let mut bytes = plain(0, true).data().to_vec();
    // Options for the destination, which are only padding.
    bytes.splice(54..54, [44, 0, 1, 4, 0, 0, 0, 0]);
    bytes[20] = 60;
    bytes[18..20].copy_from_slice(&(8 + 8 + 800_u16).to_be_bytes());
    let longer = Headers { ip: 56, ..headers(Family::V6) };
    assert!(table.take(frame(&pool, &bytes), longer, ms(1000)).0.is_none());
    let (whole, _) = put(&mut table, Family::V6, vec![plain(800, false)]);
    assert_eq!(whole.unwrap(), (0..1600).map(byte_at).collect::<Vec<_>>());
    assert_eq!((table.held(), pool.in_use()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_nothing_is_kept_and_nothing_is_wrong(
        parts in proptest::collection::vec(
            (0_u16..4, 0_usize..12, 1_usize..6, any::<bool>(), 0_u64..20_000), 1..80),
        family in prop::sample::select(FAMILIES.to_vec()),
    ) {
        let pool = pool_of(511, Sharing::OneLcore);
        let mut table = Fragments::new(eal(), 4, 30 * SECOND, None).unwrap();
        let mut now = 1000;
        for (id, offset, len, more, later) in parts {
            now += later;
            let fragment = fragment(&pool, family, id, offset * 80, len * 80, more);
            let (whole, _) = table.take(fragment, headers(family), ms(now));
            if let Some(mut whole) = whole {
                whole.trim_front(if family == Family::V4 { 34 } else { 54 });
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
