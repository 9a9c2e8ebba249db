//! One mbuf: its bytes, its cost, its control block, what the device said of it.

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
    let block = SegCb { seq: u32::MAX, fin: true, owner: Owner::new(7, 9), ..SegCb::default() };
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
        (L4_GOOD, Checksum::Transport),
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

#[test]
fn a_vlan_tag_is_taken_off_unless_the_device_has_done_it() {
    use crate::wire::{MacAddr, ethernet};

    let pool = pool();
    let (dst, src) = (MacAddr([2; 6]), MacAddr([4; 6]));
    let tagged = |vlan| {
        let mut bytes = [0xaa; 24];
        ethernet::emit(&mut bytes, dst, src, vlan, ethernet::IPV4);
        frame(&pool, &bytes)
    };
    let mut in_frame = tagged(Some(77));
    assert_eq!(in_frame.take_vlan(), Some(77));
    let header = ethernet::parse(in_frame.data()).unwrap();
    assert_eq!((header.dst, header.src, header.vlan, in_frame.len()), (dst, src, None, 20));
    assert_eq!((in_frame.take_vlan(), in_frame.len()), (None, 20));

    let mut stripped = tagged(None);
    // SAFETY: fields of an mbuf, as a driver leaves them: a priority of 7 besides.
    unsafe {
        write(&stripped, sys::PQS_OFF_OL_FLAGS, u64::from(sys::RTE_MBUF_F_RX_VLAN_STRIPPED));
        write(&stripped, sys::PQS_OFF_VLAN_TCI, 0xe000_u16 | 78);
    }
    assert_eq!((stripped.take_vlan(), stripped.len()), (Some(78), 24));
    assert_eq!(stripped.take_vlan(), None, "once");
    let mut short = frame(&pool, &[0x81; 17]);
    assert_eq!((short.take_vlan(), short.len()), (None, 17));
}
