//! Fragments of TCP segments, in both versions of IP: where each has its place, and which cannot have one.
//!
//! Called by the lcore for frames that the parsers have found to be fragments, before anything is kept of
//! them. Nothing is put together here, and nothing is remembered from one fragment to the next.

use std::net::{IpAddr, Ipv4Addr};

use super::ipv6::{self, Ipv6, Ipv6Error, Problem};
use super::{Family, ipv4, tcp};

/// Bytes of the longest datagram of IPv4, and of the longest payload of one of IPv6.
const LONGEST: usize = 65_535;

/// Bytes of a fragment header of IPv6.
const HEADER6_LEN: usize = 8;

/// Bytes of the headers of a fragment of IPv6 without other extension headers.
pub const HEADERS6_LEN: usize = ipv6::HEADER_LEN + HEADER6_LEN;

/// Where the payload length stands in a header of IPv6.
const LEN6_AT: usize = 4;

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragment {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Bytes of the headers: options included, and the fragment header.
    pub header_len: usize,
    /// Bytes of its payload.
    pub len: usize,
    /// Where its payload begins in that of the datagram, in bytes.
    pub offset: usize,
    /// Others follow it.
    pub more: bool,
}

/// Why a fragment cannot be part of a TCP segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Misfit {
    /// What its sender may be told of it.
    pub problem: Option<Problem>,
}

impl Misfit {
    /// Nobody is told.
    const SILENT: Self = Self { problem: None };

    const fn told(problem: Problem) -> Self {
        Self { problem: Some(problem) }
    }
}

/// Reads the headers at the front of a fragment, which the parsers have found intact; all of them are in
/// `front`, and maybe no more.
///
/// # Errors
/// If it has no payload, ends where no other could begin (RFC 8200 §4.5), or beyond where a datagram ends;
/// one of IPv6 also if it is the first and does not hold all headers as far as TCP's (RFC 7112 §5), or if
/// they do not lead to TCP.
pub fn read(family: Family, front: &[u8]) -> Result<Fragment, Misfit> {
    match family {
        Family::V4 => read4(front),
        Family::V6 => read6(front),
    }
}

fn read4(front: &[u8]) -> Result<Fragment, Misfit> {
    let header = front.first_chunk::<{ ipv4::HEADER_LEN }>().ok_or(Misfit::SILENT)?;
    let [vihl, _, l0, l1, _, _, f0, f1, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let field = u16::from_be_bytes([f0, f1]);
    let header_len = usize::from(vihl & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([l0, l1]));
    let fragment = Fragment {
        src: Ipv4Addr::new(s0, s1, s2, s3).into(),
        dst: Ipv4Addr::new(d0, d1, d2, d3).into(),
        header_len,
        len: total_len.checked_sub(header_len).ok_or(Misfit::SILENT)?,
        offset: usize::from(field & 0x1fff) * 8,
        more: field & 0x2000 != 0,
    };
    let Fragment { len, offset, .. } = fragment;
    let fits = len > 0 && fragment.joins() && offset + len + header_len <= LONGEST;
    if fits { Ok(fragment) } else { Err(Misfit::SILENT) }
}

fn read6(front: &[u8]) -> Result<Fragment, Misfit> {
    let ip = ipv6::parse_front(front).map_err(|_| Misfit::SILENT)?;
    let at = ip.header_len.checked_sub(HEADER6_LEN).ok_or(Misfit::SILENT)?;
    let header = front.get(at..ip.header_len).filter(|_| ip.fragment).ok_or(Misfit::SILENT)?;
    let [_, _, f0, f1, ..] = *header else { return Err(Misfit::SILENT) };
    let field = u16::from_be_bytes([f0, f1]);
    let fragment = Fragment {
        src: ip.src.into(),
        dst: ip.dst.into(),
        header_len: ip.header_len,
        len: ip.total_len - ip.header_len,
        offset: usize::from(field & 0xfff8),
        more: field & 1 != 0,
    };
    if !fragment.joins() {
        return Err(Misfit::told(Problem::of_field(LEN6_AT)));
    }
    if fragment.offset + fragment.len > LONGEST {
        return Err(Misfit::told(Problem::of_field(at + 2)));
    }
    if fragment.offset == 0 {
        leads_to_tcp(front, &ip)?;
    } else if ip.protocol != ipv4::TCP && !ipv6::is_extension(ip.protocol) {
        // What the first one says would count, but nobody says one thing there and another here.
        return Err(Misfit::SILENT);
    }
    if fragment.len > 0 { Ok(fragment) } else { Err(Misfit::SILENT) }
}

/// Whether a first fragment has all headers as far as TCP's.
fn leads_to_tcp(front: &[u8], ip: &Ipv6) -> Result<(), Misfit> {
    let behind = match ipv6::parse_behind_fragment_header(front, ip) {
        Ok(behind) => behind,
        Err(Ipv6Error::Truncated) => return Err(Misfit::told(Problem::INCOMPLETE)),
        Err(Ipv6Error::Problem(problem)) => return Err(Misfit::told(problem)),
        Err(Ipv6Error::BadVersion | Ipv6Error::TooMuch | Ipv6Error::Unwelcome) => {
            return Err(Misfit::SILENT);
        }
    };
    // A fragment of a fragment, or of something that is not for us.
    if behind.fragment || behind.protocol != ipv4::TCP {
        return Err(Misfit::SILENT);
    }
    if behind.header_len + tcp::HEADER_LEN > behind.total_len {
        return Err(Misfit::told(Problem::INCOMPLETE));
    }
    Ok(())
}

impl Fragment {
    /// Whether another one can begin where it ends, if there is another.
    fn joins(&self) -> bool {
        !self.more || self.len.is_multiple_of(8)
    }
}

/// Takes the extension headers away that stand before the fragment header of an IPv6 datagram, whose
/// headers are `header_len` bytes: none of them says anything to its destination. What is left begins so
/// many bytes later.
///
/// # Panics
/// If that is more than is there.
pub fn leave_out_extensions(datagram: &mut [u8], header_len: usize) -> usize {
    let Some(more) = header_len.checked_sub(HEADERS6_LEN).filter(|more| *more > 0) else {
        return 0;
    };
    let headers = &mut datagram[..header_len];
    headers.copy_within(..ipv6::HEADER_LEN, more);
    let header = &mut headers[more..];
    if let Some(total_len) = ipv6::total_len(header) {
        ipv6::set_total_len(header, total_len.saturating_sub(more));
    }
    ipv6::set_next_header(header, ipv6::FRAGMENT);
    more
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::super::ipv6::ProblemCode;
    use super::*;

    const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const US: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

    const OPTIONS: [u8; 8] = [ipv4::TCP, 0, 1, 4, 0, 0, 0, 0];

    /// A fragment of these bytes behind these extension headers, each with its number.
    fn fragment6(before: &[(u8, &[u8])], next: u8, field: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; ipv6::HEADER_LEN];
        let mut next_at = 6;
        let [f0, f1] = field.to_be_bytes();
        let own = [0, 0, f0, f1, 1, 2, 3, 4];
        for (number, header) in before.iter().copied().chain([(ipv6::FRAGMENT, &own[..])]) {
            bytes[next_at] = number;
            next_at = bytes.len();
            bytes.extend_from_slice(header);
        }
        bytes[next_at] = next;
        bytes.extend_from_slice(payload);
        let (first, len) = (bytes[6], bytes.len() - ipv6::HEADER_LEN);
        ipv6::emit(&mut bytes, PEER, US, first, 0, len);
        bytes
    }

    fn told(bytes: &[u8]) -> Option<(ProblemCode, u16)> {
        let Misfit { problem } = read(Family::V6, bytes).expect_err("a misfit");
        problem.map(|problem| (problem.code, problem.pointer))
    }

    #[test]
    fn a_fragment_of_ipv4_says_its_place() {
        let mut bytes = [0; 60];
        ipv4::emit(&mut bytes, [10, 0, 0, 2].into(), [10, 0, 0, 1].into(), ipv4::TCP, 0, 40);
        bytes[6..8].copy_from_slice(&[0x20, 3]);
        let fragment = read(Family::V4, &bytes).unwrap();
        assert_eq!((fragment.header_len, fragment.len, fragment.offset), (20, 40, 24));
        assert!(fragment.more);
        bytes[3] = 59;
        assert_eq!(read(Family::V4, &bytes), Err(Misfit::SILENT), "no multiple of eight");
        bytes[6] = 0;
        assert!(read(Family::V4, &bytes).is_ok_and(|fragment| !fragment.more));
        bytes[6..8].copy_from_slice(&[0x1f, 0xff]);
        assert_eq!(read(Family::V4, &bytes), Err(Misfit::SILENT), "beyond the end");
        assert_eq!(read(Family::V4, &bytes[..19]), Err(Misfit::SILENT));
    }

    #[test]
    fn a_fragment_of_ipv6_says_its_place_behind_other_headers() {
        let payload = [7; 40];
        for (before, header_len) in
            [(&[][..], 48), (&[(0, &OPTIONS[..]), (60, &OPTIONS[..])][..], 64)]
        {
            let bytes = fragment6(before, ipv4::TCP, 24 | 1, &payload);
            let expected = Fragment {
                src: PEER.into(),
                dst: US.into(),
                header_len,
                len: 40,
                offset: 24,
                more: true,
            };
            assert_eq!(read(Family::V6, &bytes), Ok(expected));
            // What is behind the headers need not be there.
            assert_eq!(read(Family::V6, &bytes[..header_len]), Ok(expected));
        }
    }

    #[test]
    fn a_first_fragment_holds_all_headers() {
        let tcp = [0; 24];
        assert!(read(Family::V6, &fragment6(&[], ipv4::TCP, 1, &tcp)).is_ok());
        let behind = [&OPTIONS[..], &tcp].concat();
        assert!(read(Family::V6, &fragment6(&[], 60, 1, &behind)).is_ok());
        let incomplete = Some((ProblemCode::Incomplete, 0));
        assert_eq!(told(&fragment6(&[], ipv4::TCP, 1, &tcp[..16])), incomplete);
        assert_eq!(told(&fragment6(&[], 60, 1, &OPTIONS)), incomplete);
        let long = [60, 4, 1, 4, 0, 0, 0, 0];
        assert_eq!(told(&fragment6(&[], 60, 1, &long)), incomplete);
        // Only the first one must.
        assert!(read(Family::V6, &fragment6(&[], 60, 8 | 1, &OPTIONS)).is_ok());
    }

    #[test]
    fn what_has_no_place_is_told_where_the_rfc_says_so() {
        assert_eq!(
            told(&fragment6(&[], ipv4::TCP, 8 | 1, &[0; 39])),
            Some((ProblemCode::Field, 4))
        );
        assert_eq!(
            told(&fragment6(&[(60, &OPTIONS)], ipv4::TCP, 0xfff8, &[0; 40])),
            Some((ProblemCode::Field, 50))
        );
        assert_eq!(told(&fragment6(&[], ipv4::TCP, 8, &[])), None, "empty");
        assert_eq!(told(&fragment6(&[], 17, 8, &[0; 8])), None, "UDP");
        assert_eq!(told(&fragment6(&[], 17, 1, &[0; 8])), None, "UDP");
        let unknown = [ipv4::TCP, 0, 0xde, 0, 1, 2, 0, 0];
        let bytes = fragment6(&[], 60, 1, &[&unknown[..], &[0; 24]].concat());
        assert_eq!(told(&bytes), Some((ProblemCode::Option, 50)));
        let nested = [ipv4::TCP, 0, 0, 1, 0, 0, 0, 9];
        let bytes = fragment6(&[], ipv6::FRAGMENT, 1, &[&nested[..], &[0; 24]].concat());
        assert_eq!(told(&bytes), None, "a fragment of a fragment");
    }

    #[test]
    fn extension_headers_before_the_fragment_header_are_left_out() {
        let plain = fragment6(&[], ipv4::TCP, 24 | 1, &[7; 40]);
        assert_eq!(leave_out_extensions(&mut plain.clone(), 48), 0);
        for before in [&[(60, &OPTIONS[..])][..], &[(0, &OPTIONS[..]), (60, &[0; 32])]] {
            let mut bytes = fragment6(before, ipv4::TCP, 24 | 1, &[7; 40]);
            let header_len = bytes.len() - 40;
            let more = leave_out_extensions(&mut bytes, header_len);
            assert_eq!(bytes[more..], plain);
        }
    }

    proptest! {
        #[test]
        fn any_fragment_is_survived(
            first in prop::sample::select(vec![0_u8, 6, 43, 44, 60]),
            mut bytes in prop::collection::vec(
                prop_oneof![4 => Just(0_u8), 2 => 0_u8..4, 1 => any::<u8>(),
                    1 => prop::sample::select(vec![0_u8, 6, 43, 44, 60])],
                0..200,
            ),
            len in prop::option::of(any::<u16>()),
        ) {
            let mut all = vec![0; ipv6::HEADER_LEN];
            let len = len.map_or(bytes.len(), usize::from);
            ipv6::emit(&mut all, PEER, US, first, 0, len);
            all.append(&mut bytes);
            if let Ok(Fragment { header_len, len, offset, more, .. }) = read(Family::V6, &all) {
                prop_assert!(header_len <= all.len() && len > 0 && offset + len <= LONGEST);
                let left_out = leave_out_extensions(&mut all, header_len);
                let again = read(Family::V6, &all[left_out..]);
                prop_assert_eq!(again.map(|it| (it.header_len, it.len, it.offset, it.more)),
                    Ok((HEADERS6_LEN, len, offset, more)));
            }
        }
    }
}
