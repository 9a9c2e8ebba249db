//! Initial sequence numbers and timestamp offsets that cannot be guessed (RFC 6528, RFC 7323 §5.4).
//!
//! One secret per stack, drawn at its start by whoever has a source of randomness; the core only
//! keys a hash with it. Lcores ask here when a SYN is admitted.

use std::fmt;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;
use smallvec::SmallVec;

use crate::time::Instant;
use crate::wire::FourTuple;

/// The stack's key for what must not be guessed from outside.
#[derive(Clone, Copy)]
pub struct Secret {
    key: [u8; 16],
}

/// The numbers that a connection of one four-tuple starts from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Numbers {
    /// Our initial sequence number.
    pub isn: u32,
    /// Added to our clock in every TSval of the connection.
    pub ts_offset: u32,
}

impl Secret {
    /// A secret of 16 bytes, which should come from the operating system's random source.
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// A secret for tests and simulations, where runs have to be repeatable.
    pub fn from_seed(seed: u64) -> Self {
        let mut key = [0x5a; 16];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self { key }
    }

    /// ISN = M + F(four-tuple, secret), where M ticks every 64 ns as in Linux (RFC 6528 §3).
    ///
    /// The clock part makes the next incarnation of a four-tuple start above the last one; the
    /// hash part tells nothing about other four-tuples. The timestamp offset is constant per
    /// four-tuple, so that timestamps never step back from one incarnation to the next.
    pub fn numbers(&self, tuple: &FourTuple, now: Instant) -> Numbers {
        let mut message = message(tuple);
        message.push(Domain::Numbers as u8);
        // The two halves of a pseudo-random function's output tell nothing about each other.
        let hash = self.hash(&message);
        let ticks = (now.as_nanos() / 64) as u32;
        Numbers { isn: (hash as u32).wrapping_add(ticks), ts_offset: (hash >> 32) as u32 }
    }

    /// One of the two keyed hashes of a SYN cookie: that of the four-tuple alone, or that of a minute
    /// and the number that the peer began with.
    pub(super) fn cookie(&self, tuple: &FourTuple, of: Option<(u32, u32)>) -> u32 {
        let (domain, (minute, irs)) = match of {
            None => (Domain::Cookie, (0, 0)),
            Some(of) => (Domain::CookieOfMinute, of),
        };
        let mut message = message(tuple);
        message.extend_from_slice(&minute.to_be_bytes());
        message.extend_from_slice(&irs.to_be_bytes());
        message.push(domain as u8);
        self.hash(&message) as u32
    }

    /// Keyed hash of the prefix that names a network: all of an IPv4 address but its last octet,
    /// the upper half of an IPv6 address.
    pub(crate) fn prefix(&self, addr: IpAddr) -> u64 {
        match addr {
            IpAddr::V4(addr) => {
                let [a, b, c, _] = addr.octets();
                self.hash(&[a, b, c, Domain::Prefix as u8])
            }
            IpAddr::V6(addr) => {
                let [a, b, c, d, e, f, g, h, ..] = addr.octets();
                self.hash(&[a, b, c, d, e, f, g, h, Domain::Prefix as u8])
            }
        }
    }

    /// The `n`th of a row of numbers for what is seen on the wire besides connections: who knows some of
    /// them knows nothing of the others.
    pub(crate) fn number(&self, n: u64) -> u64 {
        let mut message = [Domain::Number as u8; 9];
        message[..8].copy_from_slice(&n.to_be_bytes());
        self.hash(&message)
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        SipHasher24::new_with_key(&self.key).hash(bytes)
    }
}

/// A four-tuple as the beginning of a message to be hashed, with room for the longest. Messages of
/// the two families differ in length, and so in what they are hashed to.
fn message(tuple: &FourTuple) -> SmallVec<[u8; 45]> {
    let FourTuple { local_addr, remote_addr, local_port, remote_port } = *tuple;
    let mut message = SmallVec::new();
    for addr in [local_addr, remote_addr] {
        match addr {
            IpAddr::V4(addr) => message.extend_from_slice(&addr.octets()),
            IpAddr::V6(addr) => message.extend_from_slice(&addr.octets()),
        }
    }
    message.extend_from_slice(&local_port.to_be_bytes());
    message.extend_from_slice(&remote_port.to_be_bytes());
    message
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Keeps the uses of the key apart: one byte of every hashed message.
#[derive(Clone, Copy)]
enum Domain {
    Numbers = 1,
    Prefix = 2,
    Cookie = 3,
    CookieOfMinute = 4,
    Number = 5,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TUPLE: FourTuple = FourTuple {
        local_addr: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
        remote_addr: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
        local_port: 7000,
        remote_port: 40_000,
    };

    #[test]
    fn the_clock_moves_the_isn_every_64_ns_and_leaves_the_offset_alone() {
        let secret = Secret::from_seed(1);
        let start = secret.numbers(&TUPLE, Instant::ZERO);
        for (ns, ticks) in [(63, 0), (64, 1), (6_400, 100), (1_000_000_000, 15_625_000)] {
            let later = secret.numbers(&TUPLE, Instant::from_nanos(ns));
            assert_eq!(later.isn.wrapping_sub(start.isn), ticks);
            assert_eq!(later.ts_offset, start.ts_offset);
        }
    }

    #[test]
    fn every_part_of_the_tuple_and_the_key_matters() {
        let now = Instant::ZERO;
        let base = Secret::from_seed(1).numbers(&TUPLE, now);
        let other = IpAddr::from([10, 99, 0, 3]);
        for tuple in [
            FourTuple { local_addr: other, ..TUPLE },
            FourTuple { remote_addr: other, ..TUPLE },
            FourTuple { local_port: 7001, ..TUPLE },
            FourTuple { remote_port: 40_001, ..TUPLE },
        ] {
            let numbers = Secret::from_seed(1).numbers(&tuple, now);
            assert_ne!(numbers.isn, base.isn);
            assert_ne!(numbers.ts_offset, base.ts_offset);
        }
        assert_ne!(Secret::from_seed(2).numbers(&TUPLE, now), base);
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new([7; 16])), "Secret(..)");
    }
}
