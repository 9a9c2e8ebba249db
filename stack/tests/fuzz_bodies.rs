//! The bodies of the fuzz targets on random bytes: with every `cargo test`, without a fuzzer.

use proptest::collection::vec;
use proptest::prelude::*;

#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

/// Ethernet, IPv4 and TCP headers that parse if the bytes behind them are not too few.
const TCP_HEADERS: [u8; 54] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
    0x45, 0, 0, 100, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, // IPv4
    0x9c, 0x40, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x10, 1, 0, 0, 0, 0, 0, // TCP
];

/// The same over IPv6, with a header of options between.
const TCP6_HEADERS: [u8; 82] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, // Ethernet
    0x60, 0, 0, 0, 0, 100, 60, 64, // IPv6
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // from
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // to
    6, 0, 1, 4, 0, 0, 0, 0, // destination options
    0x9c, 0x40, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x10, 1, 0, 0, 0, 0, 0, // TCP
];

/// Random bytes over the front of headers that parse: `changes` of them.
fn nearly(headers: &'static [u8], behind: usize) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((0..headers.len(), any::<u8>()), 0..4);
    (changes, vec(prop_oneof![0_u8..12, any::<u8>()], 0..behind)).prop_map(
        move |(changes, behind)| {
            let mut bytes = [headers, &behind].concat();
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes
        },
    )
}

/// A request for 10.0.0.1 by 10.0.0.2.
const ARP: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 0x08, 0x06, // Ethernet
    0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0,
    1, // ARP
];

/// An echo request whose checksum is right for no data, or for zeros.
const ECHO: [u8; 42] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
    0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, // IPv4
    8, 0, 0xf7, 0xfd, 0, 1, 0, 1, // ICMP
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn tcp_frames(bytes in prop_oneof![
        nearly(&TCP_HEADERS, 120),
        nearly(&TCP6_HEADERS, 150),
        vec(any::<u8>(), 0..120),
    ]) {
        fuzz_bodies::tcp_frame(&bytes);
    }

    #[test]
    fn tcp_option_lists(bytes in vec(prop_oneof![4 => 0_u8..12, 1 => any::<u8>()], 0..44)) {
        fuzz_bodies::tcp_options(&bytes);
    }

    #[test]
    fn other_frames(
        bytes in prop_oneof![
            nearly(&ARP, 20),
            nearly(&ECHO, 20),
            nearly(&TCP6_HEADERS, 60),
            vec(any::<u8>(), 0..80),
        ],
    ) {
        fuzz_bodies::other_frame(&bytes);
    }

    #[test]
    fn connections(bytes in vec(any::<u8>(), 0..1500)) {
        fuzz_bodies::tcb(&bytes);
    }
}
