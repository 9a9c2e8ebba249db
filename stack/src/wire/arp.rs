//! ARP for IPv4 over Ethernet (RFC 826).
//!
//! Called by the lcore that heard the packet or asks for a neighbour. Who is believed, and for how
//! long, is the neighbour table's business.

use std::net::Ipv4Addr;

use super::ethernet::{self, MacAddr};

/// Bytes of a packet.
pub const PACKET_LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = {
    let [high, low] = ethernet::IPV4.to_be_bytes();
    [0, 1, high, low, 6, 4]
};

/// What a packet wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// A packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Ethernet address of the sender.
    pub sender_mac: MacAddr,
    /// IPv4 address of the sender; unspecified in an address probe (RFC 5227).
    pub sender_addr: Ipv4Addr,
    /// Ethernet address of the target; without meaning in a request.
    pub target_mac: MacAddr,
    /// IPv4 address of the target.
    pub target_addr: Ipv4Addr,
}

impl Arp {
    /// The question, from whoever has `mac` and `addr`, who has `target`.
    #[must_use]
    pub const fn question(mac: MacAddr, addr: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender_addr: addr,
            target_mac: MacAddr([0; 6]),
            target_addr: target,
        }
    }

    /// The reply that says that `mac` has the address asked for.
    #[must_use]
    pub const fn reply(&self, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_addr: self.target_addr,
            target_mac: self.sender_mac,
            target_addr: self.sender_addr,
        }
    }
}

/// Parses the payload of an Ethernet frame, which may be padded.
///
/// `None` if it is too short, for other address families, or neither request nor reply.
pub fn parse(bytes: &[u8]) -> Option<Arp> {
    let packet = bytes.first_chunk::<PACKET_LEN>()?;
    let (kind, addresses) = packet.split_first_chunk::<8>()?;
    let operation = match kind.split_first_chunk::<6>()? {
        (&ETHERNET_IPV4, [0, 1]) => Operation::Request,
        (&ETHERNET_IPV4, [0, 2]) => Operation::Reply,
        _ => return None,
    };
    let (sender_mac, rest) = addresses.split_first_chunk::<6>()?;
    let (sender_addr, rest) = rest.split_first_chunk::<4>()?;
    let (target_mac, rest) = rest.split_first_chunk::<6>()?;
    let target_addr = rest.first_chunk::<4>()?;
    Some(Arp {
        operation,
        sender_mac: MacAddr(*sender_mac),
        sender_addr: Ipv4Addr::from(*sender_addr),
        target_mac: MacAddr(*target_mac),
        target_addr: Ipv4Addr::from(*target_addr),
    })
}

/// Writes `arp` into the front of `buf` and returns its length.
///
/// # Panics
/// If `buf` is shorter than [`PACKET_LEN`].
pub fn emit(buf: &mut [u8], arp: &Arp) -> usize {
    let Arp { operation, sender_mac, sender_addr, target_mac, target_addr } = arp;
    let operation: u16 = match operation {
        Operation::Request => 1,
        Operation::Reply => 2,
    };
    buf[0..6].copy_from_slice(&ETHERNET_IPV4);
    buf[6..8].copy_from_slice(&operation.to_be_bytes());
    buf[8..14].copy_from_slice(&sender_mac.0);
    buf[14..18].copy_from_slice(&sender_addr.octets());
    buf[18..24].copy_from_slice(&target_mac.0);
    buf[24..28].copy_from_slice(&target_addr.octets());
    PACKET_LEN
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: Arp = Arp::question(
        MacAddr([2, 0, 0, 0, 0, 9]),
        Ipv4Addr::new(10, 0, 0, 9),
        Ipv4Addr::new(10, 0, 0, 1),
    );

    #[test]
    fn a_reply_turns_the_request_around() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let reply = REQUEST.reply(mac);
        assert_eq!(reply.operation, Operation::Reply);
        assert_eq!((reply.sender_mac, reply.sender_addr), (mac, REQUEST.target_addr));
        assert_eq!(
            (reply.target_mac, reply.target_addr),
            (REQUEST.sender_mac, REQUEST.sender_addr)
        );
    }

    #[test]
    fn other_families_and_operations_are_refused() {
        let mut packet = [0; PACKET_LEN];
        for arp in [REQUEST, REQUEST.reply(MacAddr([2, 0, 0, 0, 0, 1]))] {
            emit(&mut packet, &arp);
            assert_eq!(parse(&packet), Some(arp));
            assert_eq!(parse(&packet[..27]), None);
            for at in 0..8 {
                let mut other = packet;
                other[at] ^= 0x40;
                assert_eq!(parse(&other), None, "byte {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            reply in any::<bool>(),
            sender in any::<([u8; 6], u32)>(),
            target in any::<([u8; 6], u32)>(),
            padding in 0_usize..20,
        ) {
            let arp = Arp {
                operation: if reply { Operation::Reply } else { Operation::Request },
                sender_mac: MacAddr(sender.0),
                sender_addr: Ipv4Addr::from(sender.1),
                target_mac: MacAddr(target.0),
                target_addr: Ipv4Addr::from(target.1),
            };
            let mut packet = vec![0xaa; PACKET_LEN + padding];
            emit(&mut packet, &arp);
            prop_assert_eq!(parse(&packet), Some(arp));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(arp) = parse(&bytes) {
                let mut again = [0; PACKET_LEN];
                emit(&mut again, &arp);
                prop_assert_eq!(&again, &bytes[..PACKET_LEN]);
            }
        }
    }
}
