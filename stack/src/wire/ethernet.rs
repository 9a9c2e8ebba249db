//! Ethernet II frames with at most one VLAN tag (IEEE 802.1Q).
//!
//! Called by the poll loop for every frame that the one-pass parser does not take, and for every
//! header that is sent. It keeps nothing and filters nothing.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of a VLAN tag.
pub const VLAN: u16 = 0x8100;

/// Bytes of a header without a VLAN tag.
pub const HEADER_LEN: usize = 14;
/// Bytes of a VLAN tag.
pub const VLAN_LEN: usize = 4;
/// The bits of a tag that name the VLAN; the others are a priority.
pub const VLAN_ID: u16 = 0x0fff;
/// Bytes of the longest header that is parsed or emitted.
pub const MAX_HEADER_LEN: usize = HEADER_LEN + VLAN_LEN;

/// An Ethernet address. Written as `02:00:00:00:00:01`.
///
/// ```
/// use prequeue::wire::MacAddr;
///
/// let mac: MacAddr = "02:00:00:00:00:01".parse()?;
/// assert_eq!(mac, MacAddr([2, 0, 0, 0, 0, 1]));
/// assert_eq!(mac.to_string(), "02:00:00:00:00:01");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the address is that of all stations.
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// Whether the address names a group, all stations included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(ParseMacAddrError)?;
            // from_str_radix alone would take a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ParseMacAddrError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| ParseMacAddrError)?;
        }
        if parts.next().is_some() { Err(ParseMacAddrError) } else { Ok(Self(octets)) }
    }
}

/// The text is not an Ethernet address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ParseMacAddrError;

impl fmt::Display for ParseMacAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ethernet address: write six pairs of hex digits, 02:00:00:00:00:01")
    }
}

impl Error for ParseMacAddrError {}

/// A parsed header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ethernet {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// EtherType of the payload; behind the tag if there is one.
    pub ethertype: u16,
    /// VLAN identifier (12 bits) if the frame is tagged; 0 is a tag with a priority only.
    pub vlan: Option<u16>,
    /// Bytes before the payload.
    pub header_len: usize,
}

/// Whom a frame is for, by its link-layer destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// This host.
    Us,
    /// All stations.
    Broadcast,
    /// A group.
    Multicast,
    /// Another host; seen because the port is promiscuous or the switch flooded it.
    Other,
}

/// Parses the header; `None` if the frame is too short for it.
pub fn parse(frame: &[u8]) -> Option<Ethernet> {
    let (header, rest) = frame.split_first_chunk::<HEADER_LEN>()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
    let dst = MacAddr([d0, d1, d2, d3, d4, d5]);
    let src = MacAddr([s0, s1, s2, s3, s4, s5]);
    match u16::from_be_bytes([t0, t1]) {
        VLAN => {
            let [v0, v1, t0, t1] = *rest.first_chunk::<VLAN_LEN>()?;
            let vlan = Some(u16::from_be_bytes([v0, v1]) & VLAN_ID);
            let ethertype = u16::from_be_bytes([t0, t1]);
            Some(Ethernet { dst, src, ethertype, vlan, header_len: MAX_HEADER_LEN })
        }
        ethertype => Some(Ethernet { dst, src, ethertype, vlan: None, header_len: HEADER_LEN }),
    }
}

/// Takes the tag out of a frame, which begins [`VLAN_LEN`] bytes later then, and says of which VLAN it is;
/// `None`, and nothing is changed, if it has none.
pub fn take_vlan(frame: &mut [u8]) -> Option<u16> {
    let header = frame.first_chunk_mut::<MAX_HEADER_LEN>()?;
    let [.., t0, t1, v0, v1, _, _] = *header;
    if u16::from_be_bytes([t0, t1]) != VLAN {
        return None;
    }
    header.copy_within(..2 * size_of::<MacAddr>(), VLAN_LEN);
    Some(u16::from_be_bytes([v0, v1]) & VLAN_ID)
}

/// The four bytes of a tag without priority.
pub const fn tag(vlan: u16) -> [u8; VLAN_LEN] {
    let ([t0, t1], [v0, v1]) = (VLAN.to_be_bytes(), (vlan & VLAN_ID).to_be_bytes());
    [t0, t1, v0, v1]
}

/// Writes a header into the front of `buf` and returns its length.
///
/// # Panics
/// If `buf` is shorter than the header: 14 bytes, 18 with a tag.
pub fn emit(
    buf: &mut [u8],
    dst: MacAddr,
    src: MacAddr,
    vlan: Option<u16>,
    ethertype: u16,
) -> usize {
    buf[0..6].copy_from_slice(&dst.0);
    buf[6..12].copy_from_slice(&src.0);
    let mut at = 12;
    if let Some(id) = vlan {
        buf[12..16].copy_from_slice(&tag(id));
        at = 16;
    }
    buf[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
    at + 2
}

/// Whom `frame` is for, `us` being this host's address. A frame too short to say is for others.
#[inline]
pub fn delivery(frame: &[u8], us: MacAddr) -> Delivery {
    match frame.first_chunk() {
        Some(dst) if *dst == us.0 => Delivery::Us,
        Some(dst) if MacAddr(*dst).is_broadcast() => Delivery::Broadcast,
        Some(dst) if MacAddr(*dst).is_multicast() => Delivery::Multicast,
        _ => Delivery::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let mac: MacAddr = "02:00:5e:AB:cd:0f".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:ab:cd:0f");
        assert!("02:00:5e:ab:cd".parse::<MacAddr>().is_err());
        assert!("02:00:5e:ab:cd:0f:00".parse::<MacAddr>().is_err());
        assert!("02:00:5e:ab:cd:f".parse::<MacAddr>().is_err());
        assert!("+2:00:5e:ab:cd:0f".parse::<MacAddr>().is_err());
        assert!("".parse::<MacAddr>().is_err());
    }

    #[test]
    fn delivery_by_destination() {
        let us = MacAddr([2, 0, 0, 0, 0, 1]);
        let mut frame = [0; 14];
        for (dst, expected) in [
            (us, Delivery::Us),
            (MacAddr::BROADCAST, Delivery::Broadcast),
            (MacAddr([1, 0, 0x5e, 0, 0, 1]), Delivery::Multicast),
            (MacAddr([2, 0, 0, 0, 0, 2]), Delivery::Other),
        ] {
            emit(&mut frame, dst, us, None, IPV4);
            assert_eq!(delivery(&frame, us), expected);
        }
        assert_eq!(delivery(&[], us), Delivery::Other);
    }

    #[test]
    fn a_tag_cut_in_two_is_no_header() {
        let mut frame = [0; 18];
        emit(&mut frame, MacAddr::BROADCAST, MacAddr::default(), Some(5), ARP);
        assert!(parse(&frame).is_some());
        assert!(parse(&frame[..17]).is_none());
        assert!(parse(&frame[..13]).is_none());
    }

    #[test]
    fn the_priority_is_no_part_of_the_vlan() {
        let mut frame = [0; 18];
        emit(&mut frame, MacAddr::BROADCAST, MacAddr::default(), Some(0xf005), ARP);
        assert_eq!(frame[14..16], [0, 5]);
        frame[14] = 0xe0;
        assert_eq!(parse(&frame).unwrap().vlan, Some(5));
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            dst in any::<[u8; 6]>(),
            src in any::<[u8; 6]>(),
            vlan in prop::option::of(0_u16..4096),
            ethertype in any::<u16>().prop_filter("a second tag", |ethertype| *ethertype != VLAN),
        ) {
            let mut frame = [0; MAX_HEADER_LEN];
            let (dst, src) = (MacAddr(dst), MacAddr(src));
            let header_len = emit(&mut frame, dst, src, vlan, ethertype);
            let expected = Ethernet { dst, src, ethertype, vlan, header_len };
            prop_assert_eq!(parse(&frame[..header_len]), Some(expected));
            // Without the tag it is the same frame, untagged.
            prop_assert_eq!(take_vlan(&mut frame[..header_len]), vlan);
            let untagged = &frame[if vlan.is_some() { VLAN_LEN } else { 0 }..header_len];
            let expected = Ethernet { vlan: None, header_len: HEADER_LEN, ..expected };
            prop_assert_eq!(parse(untagged), Some(expected));
        }
    }
}
