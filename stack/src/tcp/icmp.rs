//! What an ICMP error means to a connection (RFC 1122 §4.2.3.9, RFC 5927, RFC 9293 MUST-54 to -56).
//!
//! Made by the lcore from a message whose quoted segment may have been ours, for the connection, request
//! or nobody that has sent it. Errors are advice: none ends a connection, and what a path takes is only
//! ever believed downwards.

use crate::wire::icmp::Kind;
use crate::wire::icmpv6;

/// The MTU that every link of IPv6 has (RFC 8200 §5).
const LEAST_MTU_6: u16 = 1280;

/// Why the network says that it could not deliver a segment of ours, by Linux's choice of errno.
///
/// Kept until the peer acknowledges something; a connection that times out meanwhile ends by this instead.
///
/// ```
/// use prequeue::tcp::PathError;
///
/// let refused = std::io::Error::from_raw_os_error(PathError::Refused.errno());
/// assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum PathError {
    /// No route to the network (ENETUNREACH).
    NetworkUnreachable,
    /// No route to the host, or the way there is too long or forbidden (EHOSTUNREACH).
    HostUnreachable,
    /// The host does not speak TCP (ENOPROTOOPT).
    NoProtocol,
    /// Nobody is at that port (ECONNREFUSED).
    Refused,
    /// The segment was too long for the path (EMSGSIZE).
    TooLong,
    /// The source route failed (EOPNOTSUPP).
    SourceRoute,
    /// The host is unknown (EHOSTDOWN).
    HostDown,
    /// We are cut off (ENONET).
    Isolated,
    /// Something in the header was wrong (EPROTO).
    Protocol,
    /// A policy forbids it (EACCES; IPv6 alone).
    Prohibited,
}

impl PathError {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NetworkUnreachable,
        Self::HostUnreachable,
        Self::NoProtocol,
        Self::Refused,
        Self::TooLong,
        Self::SourceRoute,
        Self::HostDown,
        Self::Isolated,
        Self::Protocol,
        Self::Prohibited,
    ];

    /// The name of that errno.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkUnreachable => "ENETUNREACH",
            Self::HostUnreachable => "EHOSTUNREACH",
            Self::NoProtocol => "ENOPROTOOPT",
            Self::Refused => "ECONNREFUSED",
            Self::TooLong => "EMSGSIZE",
            Self::SourceRoute => "EOPNOTSUPP",
            Self::HostDown => "EHOSTDOWN",
            Self::Isolated => "ENONET",
            Self::Protocol => "EPROTO",
            Self::Prohibited => "EACCES",
        }
    }

    /// The errno that Linux has for it.
    pub const fn errno(self) -> i32 {
        match self {
            Self::NetworkUnreachable => 101,
            Self::HostUnreachable => 113,
            Self::NoProtocol => 92,
            Self::Refused => 111,
            Self::TooLong => 90,
            Self::SourceRoute => 95,
            Self::HostDown => 112,
            Self::Isolated => 64,
            Self::Protocol => 71,
            Self::Prohibited => 13,
        }
    }
}

/// What an error tells whoever has sent the segment that it quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Report {
    /// Datagrams of more than so many bytes do not arrive.
    TooBig {
        /// The MTU, already raised to the least that is believed.
        mtu: u16,
    },
    /// The segment did not arrive.
    Lost {
        /// Why.
        error: PathError,
        /// Whether the peer of a half-open connection is given up for it.
        ends_requests: bool,
    },
}

impl Report {
    /// What an error of IPv4 tells; nothing if it is one to be ignored: source quench (RFC 6633),
    /// redirects, fragments that came too late, codes that nobody knows.
    ///
    /// An MTU below `min_pmtu`, 0 from old routers included, is taken for that: smaller segments would
    /// be a flood of our own.
    pub fn of_v4(kind: Kind, min_pmtu: u16) -> Option<Self> {
        use PathError as E;

        let lost = |error, ends_requests| Some(Self::Lost { error, ends_requests });
        match kind {
            Kind::TooBig(mtu) => Some(Self::TooBig { mtu: mtu.max(min_pmtu) }),
            Kind::Unreachable(code) => match code {
                0 => lost(E::NetworkUnreachable, true),
                1 => lost(E::HostUnreachable, true),
                2 => lost(E::NoProtocol, false),
                3 => lost(E::Refused, false),
                5 => lost(E::SourceRoute, false),
                6 | 9 | 11 => lost(E::NetworkUnreachable, false),
                7 => lost(E::HostDown, false),
                8 => lost(E::Isolated, false),
                10 | 12..=15 => lost(E::HostUnreachable, false),
                _ => None,
            },
            Kind::TimeExceeded(0) => lost(E::HostUnreachable, true),
            Kind::ParameterProblem => lost(E::Protocol, true),
            Kind::TimeExceeded(_) | Kind::SourceQuench | Kind::Redirect => None,
        }
    }

    /// What an error of IPv6 tells. An MTU below the least that every link has is taken for that
    /// (RFC 8201 §4).
    pub fn of_v6(kind: icmpv6::Kind) -> Option<Self> {
        use PathError as E;
        use icmpv6::Kind;

        let lost = |error, ends_requests| Some(Self::Lost { error, ends_requests });
        match kind {
            Kind::TooBig(mtu) => {
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                Some(Self::TooBig { mtu: mtu.max(LEAST_MTU_6) })
            }
            Kind::Unreachable(code) => match code {
                0 => lost(E::NetworkUnreachable, false),
                1 | 5 | 6 => lost(E::Prohibited, true),
                2 | 3 => lost(E::HostUnreachable, false),
                4 => lost(E::Refused, true),
                _ => lost(E::Protocol, true),
            },
            Kind::TimeExceeded(_) => lost(E::HostUnreachable, false),
            Kind::ParameterProblem => lost(E::Protocol, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_ipv6_has_linuxs_error() {
        let told = |kind| match Report::of_v6(kind) {
            Some(Report::Lost { error, ends_requests }) => (error.errno(), ends_requests),
            other => panic!("{kind:?} is {other:?}"),
        };
        let expected = [
            (101, false),
            (13, true),
            (113, false),
            (113, false),
            (111, true),
            (13, true),
            (13, true),
            (71, true),
        ];
        for (code, expected) in (0..).zip(expected) {
            assert_eq!(told(icmpv6::Kind::Unreachable(code)), expected, "code {code}");
        }
        assert_eq!(told(icmpv6::Kind::TimeExceeded(0)), (113, false));
        assert_eq!(told(icmpv6::Kind::ParameterProblem), (71, true));
        for (mtu, believed) in [(0, 1280), (1279, 1280), (1400, 1400), (70_000, 65_535)] {
            let report = Report::of_v6(icmpv6::Kind::TooBig(mtu));
            assert_eq!(report, Some(Report::TooBig { mtu: believed }));
        }
    }

    #[test]
    fn each_code_has_linuxs_error() {
        // ENETUNREACH and so on by code, as icmp_err_convert has them; 4 is no error of this kind.
        let errnos =
            [101, 113, 92, 111, 0, 95, 101, 112, 64, 101, 113, 101, 113, 113, 113, 113, 0, 0];
        for (code, errno) in (0..).zip(errnos) {
            let got = match Report::of_v4(Kind::Unreachable(code), 552) {
                Some(Report::Lost { error, .. }) => error.errno(),
                Some(Report::TooBig { .. }) => panic!("code {code} says nothing of an MTU"),
                None => 0,
            };
            assert_eq!(got, errno, "code {code}");
        }
    }

    #[test]
    fn a_half_open_connection_ends_by_few() {
        let ends = |kind| match Report::of_v4(kind, 552) {
            Some(Report::Lost { ends_requests, .. }) => ends_requests,
            _ => false,
        };
        for code in 0..=16 {
            assert_eq!(ends(Kind::Unreachable(code)), code < 2, "code {code}");
        }
        assert!(ends(Kind::TimeExceeded(0)) && ends(Kind::ParameterProblem));
        assert!(!ends(Kind::TooBig(600)));
    }

    #[test]
    fn what_is_to_be_ignored_says_nothing() {
        for kind in [Kind::SourceQuench, Kind::Redirect, Kind::TimeExceeded(1)] {
            assert_eq!(Report::of_v4(kind, 552), None);
        }
    }

    #[test]
    fn no_path_is_narrower_than_the_least() {
        for (said, believed) in [(0, 552), (68, 552), (551, 552), (552, 552), (1400, 1400)] {
            assert_eq!(
                Report::of_v4(Kind::TooBig(said), 552),
                Some(Report::TooBig { mtu: believed })
            );
        }
    }
}
