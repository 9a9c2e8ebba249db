//! Where a listener listens: at every address, at those of a family, or at one.
//!
//! Application threads make a [`Bind`] and compare it with those there are; an lcore asks it for each
//! segment without a connection. It knows no ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a listener takes connections at, by Linux's rules for a socket that is bound there.
///
/// ```
/// use prequeue::lcore::Bind;
///
/// let both = Bind::at("::".parse()?, false);
/// assert!(both.takes("192.0.2.1".parse()?) && both.takes("2001:db8::1".parse()?));
/// assert!(both.overlaps(&Bind::at("192.0.2.1".parse()?, false)));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bind {
    v4: Addresses<Ipv4Addr>,
    v6: Addresses<Ipv6Addr>,
}

/// Those of a family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Addresses<A> {
    None,
    One(A),
    All,
}

impl<A: Copy + PartialEq> Addresses<A> {
    fn have(self, addr: A) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one == addr,
            Self::All => true,
        }
    }

    fn overlap(self, other: Self) -> bool {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => false,
            (Self::All, _) | (_, Self::All) => true,
            (Self::One(one), Self::One(other)) => one == other,
        }
    }
}

impl Bind {
    /// At every address of the stack.
    pub const ALL: Self = Self { v4: Addresses::All, v6: Addresses::All };

    /// At `addr`. The unspecified one stands for all of its family; that of IPv6 for those of IPv4 too
    /// unless `only_v6` (IPV6_V6ONLY). One that stands for an address of IPv4 is that, and none at all
    /// if `only_v6`.
    pub fn at(addr: IpAddr, only_v6: bool) -> Self {
        let v4 = |addr: Ipv4Addr| match addr {
            Ipv4Addr::UNSPECIFIED => Addresses::All,
            addr => Addresses::One(addr),
        };
        match addr {
            IpAddr::V4(addr) => Self { v4: v4(addr), v6: Addresses::None },
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                let v4 = if only_v6 { Addresses::None } else { Addresses::All };
                Self { v4, v6: Addresses::All }
            }
            IpAddr::V6(addr) => match addr.to_ipv4_mapped() {
                Some(_) if only_v6 => Self { v4: Addresses::None, v6: Addresses::None },
                Some(addr) => Self { v4: v4(addr), v6: Addresses::None },
                None => Self { v4: Addresses::None, v6: Addresses::One(addr) },
            },
        }
    }

    /// Whether a connection to this address of ours is for it.
    pub fn takes(&self, local: IpAddr) -> bool {
        match local {
            IpAddr::V4(addr) => self.v4.have(addr),
            IpAddr::V6(addr) => self.v6.have(addr),
        }
    }

    /// Whether there is an address that both take connections at.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.v4.overlap(other.v4) || self.v6.overlap(other.v6)
    }

    /// The addresses that it names, for whoever knows which are ours.
    #[cfg(feature = "dpdk")]
    pub(crate) fn named(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = match self.v4 {
            Addresses::One(addr) => Some(IpAddr::V4(addr)),
            _ => None,
        };
        let v6 = match self.v6 {
            Addresses::One(addr) => Some(IpAddr::V6(addr)),
            _ => None,
        };
        v4.into_iter().chain(v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Bind {
        Bind::at(text.parse().unwrap(), false)
    }

    fn takes(bind: Bind) -> [bool; 4] {
        ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"].map(|addr| bind.takes(addr.parse().unwrap()))
    }

    #[test]
    fn what_is_bound_where_is_as_in_linux() {
        assert_eq!(takes(Bind::ALL), [true; 4]);
        assert_eq!(takes(at("::")), [true; 4]);
        assert_eq!(takes(at("0.0.0.0")), [true, true, false, false]);
        assert_eq!(takes(at("10.0.0.2")), [false, true, false, false]);
        assert_eq!(takes(at("fd00::1")), [false, false, true, false]);
        assert_eq!(takes(at("::ffff:10.0.0.1")), [true, false, false, false]);
        assert_eq!(takes(at("::ffff:0.0.0.0")), [true, true, false, false]);
        let only_v6 = |text: &str| Bind::at(text.parse().unwrap(), true);
        assert_eq!(takes(only_v6("::")), [false, false, true, true]);
        assert_eq!(takes(only_v6("::ffff:10.0.0.1")), [false; 4]);
    }

    #[test]
    fn two_may_share_a_port_if_no_address_is_of_both() {
        let only_v6 = Bind::at("::".parse().unwrap(), true);
        for (one, other, overlap) in [
            (at("::"), at("0.0.0.0"), true),
            (only_v6, at("0.0.0.0"), false),
            (only_v6, at("fd00::1"), true),
            (at("::"), at("::ffff:10.0.0.1"), true),
            (at("10.0.0.1"), at("10.0.0.2"), false),
            (at("10.0.0.1"), at("::ffff:10.0.0.1"), true),
            (at("10.0.0.1"), at("fd00::1"), false),
            (Bind::ALL, at("fd00::1"), true),
        ] {
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (overlap, overlap));
        }
    }
}
