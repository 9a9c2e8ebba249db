//! The one interface of a stack: its addresses of both families, and who is on the link.
//!
//! A value that every engine, and every table that asks, has a copy of; it is made before anything
//! starts. Only the standing of its addresses changes, when somebody else turns out to have one. It judges
//! addresses and sends nothing.

use std::error::Error;
use std::fmt;
#[cfg(feature = "dpdk")]
use std::net::SocketAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use siphasher::sip::SipHasher24;

use crate::wire::{Family, MacAddr, ipv4, ipv6};

/// Addresses that an interface may have: one of each family for most, a few services' own for some.
pub const MOST_ADDRESSES: usize = 8;

/// Keeps the addresses apart that others make of the same Ethernet address. No secret.
const LINK_LOCAL_KEY: &[u8; 16] = b"prequeue, fe80::";

/// An address of ours and the length of the prefix that it shares with its link.
///
/// ```
/// use prequeue::lcore::Net;
///
/// let net: Net = "2001:db8::5/64".parse()?;
/// assert!(net.contains("2001:db8::77".parse()?));
/// assert!("192.0.2.1".parse::<Net>().is_err(), "the length of the prefix is missing");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Net {
    /// Our address.
    pub addr: IpAddr,
    /// Bits of the address that name the link: 0 to 32, or to 128.
    pub prefix_len: u8,
}

/// Why text is no [`Net`].
///
/// ```
/// use prequeue::lcore::{Net, NetError};
///
/// assert_eq!("10.0.0.1/33".parse::<Net>(), Err(NetError));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NetError;

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "write an address and the length of its prefix, as 10.99.0.2/24 or fd00:99::2/64",
        )
    }
}

impl Error for NetError {}

impl Net {
    /// The address `addr` with a prefix of `prefix_len` bits.
    pub fn new(addr: impl Into<IpAddr>, prefix_len: u8) -> Self {
        Self { addr: addr.into(), prefix_len }
    }

    /// Whether `addr` is on this link, as that of a host or as a broadcast address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(ours), IpAddr::V4(addr)) => {
                let host_bits = u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
                (ours.to_bits() ^ addr.to_bits()) & !host_bits == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(addr)) => {
                let host_bits = u128::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
                (ours.to_bits() ^ addr.to_bits()) & !host_bits == 0
            }
            _ => false,
        }
    }

    /// Whether `addr` means all hosts of this link. There are no such addresses in IPv6.
    fn is_broadcast(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(ours), IpAddr::V4(addr)) => {
                ipv4::is_subnet_broadcast(addr, ours, self.prefix_len)
            }
            _ => false,
        }
    }

    /// Whether a host can have this address, on a link with this prefix.
    pub fn is_of_a_host(&self) -> bool {
        match self.addr {
            IpAddr::V4(addr) => {
                let group = ipv4::is_multicast_or_broadcast(addr);
                let none = addr.is_unspecified() || addr.is_loopback() || group;
                self.prefix_len <= 32 && !none && !self.is_broadcast(self.addr)
            }
            IpAddr::V6(addr) => self.prefix_len <= 128 && ipv6::is_unicast(addr),
        }
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let (addr, prefix_len) = text.split_once('/').ok_or(NetError)?;
        let addr: IpAddr = addr.parse().map_err(|_| NetError)?;
        let prefix_len = prefix_len.parse().map_err(|_| NetError)?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        if prefix_len > most {
            return Err(NetError);
        }
        Ok(Self { addr, prefix_len })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

/// How sure it is that an address of ours is ours alone.
///
/// ```
/// use prequeue::lcore::{Interface, Standing};
/// use prequeue::wire::MacAddr;
///
/// let interface = Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500).with_address([192, 0, 2, 10], 24);
/// assert_eq!(interface.standing([192, 0, 2, 10].into()), Some(Standing::Held));
/// assert_eq!(interface.standing([192, 0, 2, 11].into()), None);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Standing {
    /// It is used, and defended.
    #[default]
    Held,
    /// Others are still being asked whether they have it; it is used meanwhile, and overrides nobody
    /// (RFC 4429).
    Doubtful,
    /// Not used: others are still being asked, or one has it.
    Withheld,
}

/// The one interface of a stack.
///
/// ```
/// use prequeue::lcore::Interface;
/// use prequeue::wire::MacAddr;
///
/// let interface = Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500)
///     .with_address([192, 0, 2, 10], 24)
///     .with_gateway([192, 0, 2, 1]);
/// assert!(interface.is_on_link([192, 0, 2, 77].into()));
/// assert_eq!(interface.next_hop([198, 51, 100, 1].into()), Some([192, 0, 2, 1].into()));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// Bytes of the longest datagram.
    pub mtu: u16,
    /// Whom to give what is for others than those on the link.
    gateways: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    vlan: Option<u16>,
    nets: [Net; MOST_ADDRESSES],
    used: u8,
    /// Of the addresses above, and of the link-local one, which comes last.
    standings: [Standing; MOST_ADDRESSES + 1],
}

impl Interface {
    /// An interface without addresses.
    pub fn new(mac: MacAddr, mtu: u16) -> Self {
        let none = Net { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix_len: 0 };
        Self {
            mac,
            mtu,
            gateways: (None, None),
            vlan: None,
            nets: [none; MOST_ADDRESSES],
            used: 0,
            standings: [Standing::Held; MOST_ADDRESSES + 1],
        }
    }

    /// With one address more.
    ///
    /// # Panics
    /// If there are [`MOST_ADDRESSES`] already.
    #[must_use]
    pub fn with_address(self, addr: impl Into<IpAddr>, prefix_len: u8) -> Self {
        self.with_net(Net::new(addr, prefix_len))
    }

    /// As [`Self::with_address`].
    ///
    /// # Panics
    /// As [`Self::with_address`].
    #[must_use]
    pub fn with_net(mut self, net: Net) -> Self {
        self.nets[usize::from(self.used)] = net;
        self.used += 1;
        self
    }

    /// With this router for its family, in the place of any other.
    #[must_use]
    pub fn with_gateway(mut self, gateway: impl Into<IpAddr>) -> Self {
        match gateway.into() {
            IpAddr::V4(gateway) => self.gateways.0 = Some(gateway),
            IpAddr::V6(gateway) => self.gateways.1 = Some(gateway),
        }
        self
    }

    /// As a member of this VLAN, 1 to 4094, and of no other: all its frames are tagged. The poll loop sees
    /// to that, so that an engine has to do with frames without tags alone.
    #[must_use]
    pub fn with_vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// The VLAN that it is a member of.
    pub fn vlan(&self) -> Option<u16> {
        self.vlan
    }

    /// Our addresses and their links, in the order in which they were given. The link-local one of
    /// IPv6 is not among them unless it was given: see [`Self::link_local`].
    pub fn nets(&self) -> &[Net] {
        &self.nets[..usize::from(self.used)]
    }

    /// All our addresses, the link-local one last.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let link_local = self.link_local().map(IpAddr::V6);
        self.nets().iter().map(|net| net.addr).chain(link_local)
    }

    /// The first address of a family that is used, which stands for the interface where one has to.
    pub fn first(&self, family: Family) -> Option<IpAddr> {
        self.used_nets().map(|net| net.addr).find(|addr| Family::of(*addr) == family)
    }

    /// How an address of ours stands; `None` if it is none.
    pub fn standing(&self, addr: IpAddr) -> Option<Standing> {
        self.place(addr).map(|place| self.standings[place])
    }

    /// Changes how an address of ours stands.
    pub(super) fn set_standing(&mut self, addr: IpAddr, standing: Standing) {
        if let Some(place) = self.place(addr) {
            self.standings[place] = standing;
        }
    }

    /// How all addresses stand, in one word: two bits each.
    #[cfg(feature = "dpdk")]
    pub(crate) fn standings(&self) -> u32 {
        self.standings.iter().rev().fold(0, |word, standing| word << 2 | *standing as u32)
    }

    /// The same interface with its addresses standing as [`Self::standings`] said.
    #[cfg(feature = "dpdk")]
    pub(crate) fn with_standings(mut self, word: u32) -> Self {
        for (place, standing) in self.standings.iter_mut().enumerate() {
            *standing = match word >> (2 * place) & 3 {
                0 => Standing::Held,
                1 => Standing::Doubtful,
                _ => Standing::Withheld,
            };
        }
        self
    }

    /// Where the standing of an address is.
    fn place(&self, addr: IpAddr) -> Option<usize> {
        self.nets().iter().position(|net| net.addr == addr).or_else(|| {
            let is_it = matches!(addr, IpAddr::V6(addr) if self.link_local() == Some(addr));
            is_it.then_some(MOST_ADDRESSES)
        })
    }

    fn used_nets(&self) -> impl Iterator<Item = &Net> {
        let with_standings = self.nets().iter().zip(&self.standings);
        with_standings.filter(|(_, standing)| **standing != Standing::Withheld).map(|(net, _)| net)
    }

    /// Where a listener on a port says that it listens: at our first address.
    #[cfg(feature = "dpdk")]
    pub(crate) fn listening_at(&self, port: u16) -> SocketAddr {
        let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        SocketAddr::new(self.nets().first().map_or(none, |net| net.addr), port)
    }

    /// An address that a listener names and that is not ours.
    #[cfg(feature = "dpdk")]
    pub(crate) fn foreign(&self, bind: &super::Bind) -> Option<IpAddr> {
        bind.named().find(|addr| !self.is_ours(*addr))
    }

    /// The router of a family.
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.gateways.0.map(IpAddr::V4),
            Family::V6 => self.gateways.1.map(IpAddr::V6),
        }
    }

    /// The address that every interface with IPv6 has besides those it was given (RFC 4291 §2.8);
    /// `None` without IPv6.
    ///
    /// It is stable and says nothing of the Ethernet address that it is made of (RFC 7217, RFC 8064). A
    /// tap has the same one at both of its ends: what the kernel makes of it is another address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let name = || SipHasher24::new_with_key(LINK_LOCAL_KEY).hash(&self.mac.0);
        let has_v6 = self.nets().iter().any(|net| net.addr.is_ipv6());
        has_v6.then(|| ipv6::link_local(name()))
    }

    /// The groups of IPv6 that we are in: all nodes, and for each address the one in which it is asked
    /// for (RFC 4861 §7.2.1).
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        let v6 = self.nets().iter().filter_map(|net| match net.addr {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None,
        });
        let all = self.link_local().map(|_| ipv6::ALL_NODES);
        all.into_iter().chain(v6.chain(self.link_local()).map(ipv6::solicited_node))
    }

    /// Whether `addr` is one of our addresses, and used.
    pub fn is_ours(&self, addr: IpAddr) -> bool {
        self.standing(addr).is_some_and(|standing| standing != Standing::Withheld)
    }

    /// Whether `addr` is that of a host on our link; its broadcast addresses are not.
    pub fn is_on_link(&self, addr: IpAddr) -> bool {
        let link_local = match addr {
            IpAddr::V4(_) => false,
            IpAddr::V6(addr) => addr.is_unicast_link_local() && self.link_local().is_some(),
        };
        (link_local || self.nets().iter().any(|net| net.contains(addr))) && !self.is_group(addr)
    }

    /// Whom to send to for `dst`: itself, or the gateway if it is not on the link.
    pub fn next_hop(&self, dst: IpAddr) -> Option<IpAddr> {
        if self.is_on_link(dst) { Some(dst) } else { self.gateway(Family::of(dst)) }
    }

    /// Our address on the link that `hop` is on; the first of its family if it is on none.
    pub fn source_for(&self, hop: IpAddr) -> Option<IpAddr> {
        let family = Family::of(hop);
        if let (IpAddr::V6(hop), Some(ours)) = (hop, self.link_local())
            && hop.is_unicast_link_local()
            && self.is_ours(ours.into())
        {
            return Some(ours.into());
        }
        let on_its_link = self.used_nets().find(|net| net.contains(hop));
        on_its_link.map(|net| net.addr).or_else(|| self.first(family))
    }

    /// Whether `addr` means several hosts: a group, all of a link of ours, all.
    pub fn is_group(&self, addr: IpAddr) -> bool {
        let group = match addr {
            IpAddr::V4(addr) => ipv4::is_multicast_or_broadcast(addr),
            IpAddr::V6(addr) => addr.is_multicast(),
        };
        group || self.nets().iter().any(|net| net.is_broadcast(addr))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mac, mtu, gateways, vlan, .. } = self;
        for (place, net) in self.nets().iter().enumerate() {
            write!(f, "{}{net}", if place == 0 { "" } else { ", " })?;
            if self.standings[place] == Standing::Withheld {
                f.write_str(" (not used: somebody else may have it)")?;
            }
        }
        write!(f, " ({mac}, MTU {mtu}")?;
        let gateways = [gateways.0.map(IpAddr::V4), gateways.1.map(IpAddr::V6)];
        for gateway in gateways.into_iter().flatten() {
            write!(f, ", gateway {gateway}")?;
        }
        if let Some(vlan) = vlan {
            write!(f, ", VLAN {vlan}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn both() -> Interface {
        Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500)
            .with_address([10, 0, 0, 1], 24)
            .with_net("2001:db8::1/64".parse().unwrap())
            .with_gateway([10, 0, 0, 254])
            .with_gateway(addr("fe80::1"))
    }

    #[test]
    fn each_family_has_its_link_and_its_router() {
        let interface = both();
        for (dst, hop) in [
            ("10.0.0.9", "10.0.0.9"),
            ("10.0.1.9", "10.0.0.254"),
            ("2001:db8::9", "2001:db8::9"),
            ("2001:db8:0:1::9", "fe80::1"),
            ("fe80::77", "fe80::77"),
        ] {
            assert_eq!(interface.next_hop(addr(dst)), Some(addr(hop)), "{dst}");
        }
        let alone = Interface::new(interface.mac, 1500).with_address([10, 0, 0, 1], 24);
        for dst in ["10.0.1.9", "2001:db8::9", "fe80::77"] {
            assert_eq!(alone.next_hop(addr(dst)), None, "{dst}");
        }
    }

    #[test]
    fn the_link_local_address_is_made_of_the_ethernet_address() {
        let interface = both();
        let ours = interface.link_local().unwrap();
        assert!(ours.is_unicast_link_local() && interface.is_ours(ours.into()));
        // What others make of the same Ethernet address.
        assert!(!interface.is_ours(addr("fe80::ff:fe00:1")));
        assert_eq!(interface.source_for(addr("fe80::9")), Some(ours.into()));
        assert_eq!(interface.source_for(addr("2001:db8::9")), Some(addr("2001:db8::1")));
        assert_eq!(interface.source_for(addr("10.0.0.9")), Some(addr("10.0.0.1")));
        let other = Interface { mac: MacAddr([2, 0, 0, 0, 0, 2]), ..interface };
        assert_ne!(other.link_local(), Some(ours));
        let without = Interface::new(interface.mac, 1500).with_address([10, 0, 0, 1], 24);
        assert_eq!(without.link_local(), None);
    }

    #[test]
    fn an_address_that_is_withheld_is_none_of_ours() {
        let mut interface = both().with_address([10, 0, 0, 2], 24);
        let (first, second) = (addr("10.0.0.1"), addr("10.0.0.2"));
        interface.set_standing(first, Standing::Withheld);
        assert!(!interface.is_ours(first) && interface.is_ours(second));
        assert_eq!(interface.first(Family::V4), Some(second));
        assert_eq!(interface.source_for(addr("10.0.0.9")), Some(second));
        assert_eq!(interface.addresses().count(), 4);
        let link_local = IpAddr::V6(interface.link_local().unwrap());
        interface.set_standing(addr("2001:db8::1"), Standing::Withheld);
        assert!(interface.is_ours(link_local), "it is there still");
        interface.set_standing(link_local, Standing::Withheld);
        assert_eq!(interface.source_for(addr("fe80::9")), None);
        interface.set_standing(link_local, Standing::Doubtful);
        assert!(interface.is_ours(link_local));
        assert!(interface.to_string().starts_with("10.0.0.1/24 (not used"), "{interface}");
        #[cfg(feature = "dpdk")]
        assert_eq!(
            both().with_address([10, 0, 0, 2], 24).with_standings(interface.standings()),
            interface
        );
        interface.set_standing(addr("10.0.0.77"), Standing::Withheld);
    }

    #[test]
    fn groups_are_no_hosts() {
        let interface = both();
        for group in ["10.0.0.255", "10.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1"] {
            assert!(interface.is_group(addr(group)) && !interface.is_on_link(addr(group)));
        }
        for host in ["10.0.0.9", "10.0.1.255", "2001:db8::ffff", "2001:db8::"] {
            assert!(!interface.is_group(addr(host)), "{host}");
        }
    }

    #[test]
    fn nets_are_read_and_written_alike() {
        for text in ["10.0.0.1/24", "2001:db8::1/64", "::1/128", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), text);
        }
        for text in ["", "/", "10.0.0.1", "10.0.0.1/33", "::1/129", "10.0.0/8", "::1/x", "x/8"] {
            assert_eq!(text.parse::<Net>(), Err(NetError), "{text}");
        }
        for text in ["::1/128", "::/64", "ff02::1/64", "::ffff:10.0.0.1/96", "127.0.0.1/8"] {
            assert!(!text.parse::<Net>().unwrap().is_of_a_host(), "{text}");
        }
        for text in ["10.0.0.1/24", "10.0.0.1/32", "fe80::5/64", "2001:db8::/64"] {
            assert!(text.parse::<Net>().unwrap().is_of_a_host(), "{text}");
        }
    }

    #[test]
    fn it_is_told_in_a_line() {
        assert_eq!(
            both().to_string(),
            "10.0.0.1/24, 2001:db8::1/64 (02:00:00:00:00:01, MTU 1500, \
             gateway 10.0.0.254, gateway fe80::1)"
        );
        assert!(both().with_vlan(5).to_string().ends_with(", VLAN 5)"));
    }
}
