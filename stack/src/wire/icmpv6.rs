//! ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861): what a message says, and those that are sent.
//!
//! Called by the lcore that received the message. Whom to answer, how often, who is believed and what an
//! error means to a connection is decided there; what a message must be to be one is judged here.

use std::net::Ipv6Addr;

use super::MacAddr;
use super::checksum::Sum;
use super::icmp::{Malformed, QUOTED_LEN, Quoted};
use super::ipv6::{self, Ipv6, Problem};
use super::mld::{self, Query};

const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Types below this are errors.
const FIRST_QUERY: u8 = 128;

/// Bytes of any message before what it carries.
const HEADER_LEN: usize = 8;

/// Bytes of a solicitation or advertisement before its options.
const DISCOVERY_LEN: usize = 24;

/// Bytes of one with the option that names an Ethernet address: the longest that is sent.
const DISCOVERY_LEN_WITH_MAC: usize = DISCOVERY_LEN + 8;

/// Bytes of a datagram with the longest message of neighbour discovery that is sent.
pub const MAX_DISCOVERY_LEN: usize = ipv6::HEADER_LEN + DISCOVERY_LEN_WITH_MAC;

/// Hop limit of neighbour discovery: whoever sees less knows that a router was on the way.
const ON_LINK: u8 = 255;

/// Option: the sender's Ethernet address.
const SOURCE_MAC: u8 = 1;
/// Option: the target's Ethernet address.
const TARGET_MAC: u8 = 2;
/// Option: a number that only its sender knows, by which it tells its own question from another's (RFC
/// 7527 §4.1).
const NONCE: u8 = 14;

/// Flags of an advertisement: it answers; it replaces what is known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Bytes of the longest datagram that carries an error: one that every link takes (RFC 4443 §2.4 (c)).
pub const MAX_ERROR_LEN: usize = 1280;

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// A ping, to be answered by [`echo_reply`].
    EchoRequest,
    /// The answer to one.
    EchoReply,
    /// Who has this address?
    Solicitation(Solicitation),
    /// An address is there.
    Advertisement(Advertisement),
    /// Which groups are there listeners of?
    Query(Query),
    /// A datagram of ours did not arrive.
    Error(Error),
    /// One of the others, which a host with an address of its own has no use for.
    Other,
}

/// A neighbour solicitation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Solicitation {
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// Where its sender is. Whoever only looks whether the address is free does not say.
    pub source_mac: Option<MacAddr>,
    /// What whoever only looks may know it by.
    pub nonce: Option<Nonce>,
}

/// By what somebody knows a question of its own.
pub type Nonce = [u8; 6];

/// A neighbour advertisement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Advertisement {
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// Where that is.
    pub target_mac: Option<MacAddr>,
    /// It answers a question.
    pub solicited: bool,
    /// It replaces what is known.
    pub overrides: bool,
}

/// An error: what is said of which datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Error {
    /// What is said.
    pub kind: Kind,
    /// The datagram that it is said of, as far as it is quoted.
    pub quoted: Quoted<Ipv6Addr>,
}

/// What an error says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The destination cannot be reached, for the reason of the code.
    Unreachable(u8),
    /// The datagram is larger than the next link takes: the MTU of that.
    TooBig(u32),
    /// It was under way for too long, or its fragments were: the code says which.
    TimeExceeded(u8),
    /// A header is wrong, or not known.
    ParameterProblem,
}

/// Says what a message is, which is the payload of `ip`.
///
/// # Errors
/// See [`Malformed`]. A message of neighbour discovery that RFC 4861 §7.1 has dropped is none.
pub fn parse(ip: &Ipv6, message: &[u8]) -> Result<Message, Malformed> {
    let (header, rest) = message.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::BadMessage)?;
    if !pseudo_header(ip.src, ip.dst, message.len()).plus(message).is_valid() {
        return Err(Malformed::BadChecksum);
    }
    let [kind, code, _, _, b0, b1, b2, b3] = *header;
    let kind = match kind {
        ECHO_REQUEST => return Ok(Message::EchoRequest),
        ECHO_REPLY => return Ok(Message::EchoReply),
        SOLICITATION => return solicitation(ip, code, message).ok_or(Malformed::BadMessage),
        ADVERTISEMENT => return advertisement(ip, code, message).ok_or(Malformed::BadMessage),
        mld::QUERY => {
            return mld::parse_query(ip, message).map(Message::Query).ok_or(Malformed::BadMessage);
        }
        UNREACHABLE => Kind::Unreachable(code),
        TOO_BIG => Kind::TooBig(u32::from_be_bytes([b0, b1, b2, b3])),
        TIME_EXCEEDED => Kind::TimeExceeded(code),
        PARAMETER_PROBLEM => Kind::ParameterProblem,
        _ => return Ok(Message::Other),
    };
    let quoted = quoted(rest).ok_or(Malformed::BadMessage)?;
    Ok(Message::Error(Error { kind, quoted }))
}

/// Whether a datagram with this payload may be answered by an error: none that is one itself (RFC 4443
/// §2.4 (e)).
pub fn may_be_told(protocol: u8, payload: &[u8]) -> bool {
    protocol != ipv6::ICMP || payload.first().is_some_and(|kind| *kind >= FIRST_QUERY)
}

/// Reads the quoted datagram. We never send extension headers, so none is looked for.
fn quoted(datagram: &[u8]) -> Option<Quoted<Ipv6Addr>> {
    let (header, payload) = datagram.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    let [v0, _, _, _, _, _, protocol, _, addrs @ ..] = header;
    if v0 >> 4 != 6 {
        return None;
    }
    let (src, dst) = (addrs.first_chunk::<16>()?, addrs.last_chunk::<16>()?);
    let start = *payload.first_chunk::<QUOTED_LEN>()?;
    Some(Quoted { src: (*src).into(), dst: (*dst).into(), protocol: *protocol, start })
}

fn solicitation(ip: &Ipv6, code: u8, message: &[u8]) -> Option<Message> {
    let (target, options) = discovery(ip, code, message)?;
    let source_mac = short_option(options, SOURCE_MAC)?.map(MacAddr);
    let nonce = short_option(options, NONCE)?;
    // Somebody without an address yet asks the group of the address that it would like to have.
    if ip.src.is_unspecified() && (source_mac.is_some() || !is_solicited_node(ip.dst)) {
        return None;
    }
    Some(Message::Solicitation(Solicitation { target, source_mac, nonce }))
}

fn advertisement(ip: &Ipv6, code: u8, message: &[u8]) -> Option<Message> {
    let (target, options) = discovery(ip, code, message)?;
    let target_mac = short_option(options, TARGET_MAC)?.map(MacAddr);
    let flags = *message.get(4)?;
    let (solicited, overrides) = (flags & SOLICITED != 0, flags & OVERRIDE != 0);
    if solicited && ip.dst.is_multicast() {
        return None;
    }
    Some(Message::Advertisement(Advertisement { target, target_mac, solicited, overrides }))
}

/// The target and the options of a message that a neighbour has sent.
fn discovery<'a>(ip: &Ipv6, code: u8, message: &'a [u8]) -> Option<(Ipv6Addr, &'a [u8])> {
    let (fixed, options) = message.split_first_chunk::<DISCOVERY_LEN>()?;
    let target = Ipv6Addr::from(*fixed.last_chunk::<16>()?);
    let is_good = ip.hop_limit == ON_LINK && code == 0 && !target.is_multicast();
    is_good.then_some((target, options))
}

/// The six bytes in the option of this kind, if there is one; `None` if the options are none. Each takes
/// eight bytes at least, so the work is bounded by the length of a datagram.
fn short_option(mut options: &[u8], wanted: u8) -> Option<Option<[u8; 6]>> {
    let mut found = None;
    while let [kind, words, rest @ ..] = options {
        let len = usize::from(*words) * 8;
        if len == 0 || len > options.len() {
            return None;
        }
        if *kind == wanted && len == 8 {
            found = rest.first_chunk::<6>().copied();
        }
        options = &options[len..];
    }
    Some(found)
}

fn is_solicited_node(addr: Ipv6Addr) -> bool {
    ipv6::solicited_node(addr) == addr
}

/// Writes the reply to the echo request `message`, the payload of `request`, as an IPv6 datagram into
/// the front of `buf`, and returns its length; `None`, with nothing written, if `buf` is too short.
pub fn echo_reply(buf: &mut [u8], request: &Ipv6, message: &[u8]) -> Option<usize> {
    let len = ipv6::HEADER_LEN + message.len();
    let buf = buf.get_mut(..len)?;
    let Ipv6 { src, dst, tos, .. } = *request;
    let at = ipv6::emit(buf, dst, src, ipv6::ICMP, tos, message.len());
    let reply = &mut buf[at..];
    reply.copy_from_slice(message);
    reply[0] = ECHO_REPLY;
    seal(buf, dst, src);
    Some(len)
}

/// Writes a datagram that asks `dst`, which is `target` or its group, for the Ethernet address of
/// `target`, and tells it ours if it should know; returns its length.
///
/// # Panics
/// If `buf` is shorter than [`MAX_DISCOVERY_LEN`].
pub fn emit_solicitation(
    buf: &mut [u8],
    (src, mac): (Ipv6Addr, Option<MacAddr>),
    dst: Ipv6Addr,
    target: Ipv6Addr,
) -> usize {
    let option = mac.map(|mac| (SOURCE_MAC, mac.0));
    emit_discovery(buf, (src, dst), [SOLICITATION, 0], target, option)
}

/// Writes a datagram that asks whether anybody has `target` (RFC 4862 §5.4.2); returns its length. Its
/// sender has no address yet, and knows it by the nonce if it comes back.
///
/// # Panics
/// If `buf` is shorter than [`MAX_DISCOVERY_LEN`].
pub fn emit_probe(buf: &mut [u8], target: Ipv6Addr, nonce: Nonce) -> usize {
    let ends = (Ipv6Addr::UNSPECIFIED, ipv6::solicited_node(target));
    emit_discovery(buf, ends, [SOLICITATION, 0], target, Some((NONCE, nonce)))
}

/// Writes a datagram that tells `dst` that `target` is at `mac`; returns its length. It answers a
/// question unless it goes to a group, and may have to leave what others know as it is.
///
/// # Panics
/// If `buf` is shorter than [`MAX_DISCOVERY_LEN`].
pub fn emit_advertisement(
    buf: &mut [u8],
    (target, mac): (Ipv6Addr, MacAddr),
    dst: Ipv6Addr,
    overrides: bool,
) -> usize {
    let solicited = if dst.is_multicast() { 0 } else { SOLICITED };
    let flags = solicited | if overrides { OVERRIDE } else { 0 };
    let option = Some((TARGET_MAC, mac.0));
    emit_discovery(buf, (target, dst), [ADVERTISEMENT, flags], target, option)
}

fn emit_discovery(
    buf: &mut [u8],
    (src, dst): (Ipv6Addr, Ipv6Addr),
    [kind, flags]: [u8; 2],
    target: Ipv6Addr,
    option: Option<(u8, [u8; 6])>,
) -> usize {
    let len = if option.is_some() { DISCOVERY_LEN_WITH_MAC } else { DISCOVERY_LEN };
    let protocol = ipv6::ICMP;
    let at = ipv6::emit_with_hop_limit(buf, src, dst, protocol, 0, len, ON_LINK);
    let message = &mut buf[at..at + len];
    message[..8].copy_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
    message[8..DISCOVERY_LEN].copy_from_slice(&target.octets());
    if let Some((option, value)) = option {
        message[DISCOVERY_LEN..DISCOVERY_LEN + 2].copy_from_slice(&[option, 1]);
        message[DISCOVERY_LEN + 2..].copy_from_slice(&value);
    }
    seal(&mut buf[..at + len], src, dst);
    at + len
}

/// Writes a datagram that tells `dst` what is wrong with the one it has sent, of which as much is quoted
/// as fits; returns its length.
///
/// # Panics
/// If `buf` is shorter than [`MAX_ERROR_LEN`].
pub fn emit_problem(
    buf: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    problem: Problem,
    datagram: &[u8],
) -> usize {
    let Problem { code, pointer, of_groups_too: _ } = problem;
    let quoted = datagram.len().min(MAX_ERROR_LEN - ipv6::HEADER_LEN - HEADER_LEN);
    let len = HEADER_LEN + quoted;
    let at = ipv6::emit(buf, src, dst, ipv6::ICMP, 0, len);
    let message = &mut buf[at..at + len];
    message[..4].copy_from_slice(&[PARAMETER_PROBLEM, code as u8, 0, 0]);
    message[4..8].copy_from_slice(&u32::from(pointer).to_be_bytes());
    message[8..].copy_from_slice(&datagram[..quoted]);
    seal(&mut buf[..at + len], src, dst);
    at + len
}

/// Makes the checksum right of a message behind a header without extensions.
fn seal(datagram: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) {
    seal_message(&mut datagram[ipv6::HEADER_LEN..], src, dst);
}

/// Makes the checksum right of a message.
pub(crate) fn seal_message(message: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) {
    message[2..4].fill(0);
    let field = pseudo_header(src, dst, message.len()).plus(message).field();
    message[2..4].copy_from_slice(&field);
}

fn pseudo_header(src: Ipv6Addr, dst: Ipv6Addr, len: usize) -> Sum {
    Sum::pseudo_header_v6(src, dst, ipv6::ICMP, len as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn read(datagram: &[u8]) -> Result<Message, Malformed> {
        let ip = ipv6::parse(datagram).unwrap();
        parse(&ip, ip.payload(datagram))
    }

    fn sealed(mut datagram: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Result<Message, Malformed> {
        change(&mut datagram);
        let payload_len = (datagram.len() - ipv6::HEADER_LEN) as u16;
        datagram[4..6].copy_from_slice(&payload_len.to_be_bytes());
        let ip = ipv6::parse(&datagram).unwrap();
        seal(&mut datagram, ip.src, ip.dst);
        read(&datagram)
    }

    fn question(src: Ipv6Addr) -> Vec<u8> {
        let mut buf = vec![0; MAX_DISCOVERY_LEN];
        emit_solicitation(&mut buf, (src, Some(MAC)), ipv6::solicited_node(PEER), PEER);
        buf
    }

    #[test]
    fn questions_and_answers_are_read_as_they_are_written() {
        let asked = Solicitation { target: PEER, source_mac: Some(MAC), nonce: None };
        assert_eq!(read(&question(US)), Ok(Message::Solicitation(asked)));
        let mut buf = vec![0; MAX_DISCOVERY_LEN];
        for (dst, solicited) in [(US, true), (ipv6::ALL_NODES, false)] {
            for overrides in [true, false] {
                emit_advertisement(&mut buf, (PEER, MAC), dst, overrides);
                let target_mac = Some(MAC);
                let told = Advertisement { target: PEER, target_mac, solicited, overrides };
                assert_eq!(read(&buf), Ok(Message::Advertisement(told)));
            }
        }
        let len = emit_solicitation(&mut buf, (US, None), ipv6::solicited_node(PEER), PEER);
        let asked = Solicitation { source_mac: None, ..asked };
        assert_eq!((len, read(&buf[..len])), (64, Ok(Message::Solicitation(asked))));
        let len = emit_probe(&mut buf, PEER, [1, 2, 3, 4, 5, 6]);
        let asked = Solicitation { nonce: Some([1, 2, 3, 4, 5, 6]), ..asked };
        assert_eq!(read(&buf[..len]), Ok(Message::Solicitation(asked)));
    }

    #[test]
    fn what_did_not_come_from_a_neighbour_is_none() {
        let bad = Err(Malformed::BadMessage);
        let good = question(US);
        assert_eq!(sealed(good.clone(), |all| all[7] = 254), bad, "a router was on the way");
        assert_eq!(sealed(good.clone(), |all| all[41] = 1), bad, "code");
        assert_eq!(sealed(good.clone(), |all| all[48] = 0xff), bad, "target");
        assert_eq!(sealed(good.clone(), |all| all[65] = 0), bad, "an option of no length");
        assert_eq!(sealed(good.clone(), |all| all[65] = 2), bad, "an option beyond the end");
        assert_eq!(sealed(good.clone(), |all| all.truncate(63)), bad, "too short");
        let mut flipped = good;
        flipped[60] ^= 1;
        assert_eq!(read(&flipped), Err(Malformed::BadChecksum));
    }

    #[test]
    fn whoever_has_no_address_yet_asks_the_group_and_does_not_say_where_it_is() {
        let none = question(Ipv6Addr::UNSPECIFIED);
        assert_eq!(read(&none), Err(Malformed::BadMessage));
        let probe = Solicitation { target: PEER, source_mac: None, nonce: None };
        let without = |all: &mut Vec<u8>| all.truncate(64);
        assert_eq!(sealed(none.clone(), without), Ok(Message::Solicitation(probe)));
        let to_one = |all: &mut Vec<u8>| {
            all.truncate(64);
            all[24..40].copy_from_slice(&PEER.octets());
        };
        assert_eq!(sealed(none, to_one), Err(Malformed::BadMessage));
    }

    #[test]
    fn an_answer_to_all_answers_nobody() {
        let mut buf = vec![0; MAX_DISCOVERY_LEN];
        let all = "ff02::1".parse().unwrap();
        emit_advertisement(&mut buf, (PEER, MAC), all, true);
        assert!(read(&buf).is_ok());
        assert_eq!(sealed(buf, |all| all[44] |= SOLICITED), Err(Malformed::BadMessage));
    }

    #[test]
    fn a_problem_quotes_as_much_as_every_link_takes() {
        let mut datagram = vec![7; 2000];
        ipv6::emit(&mut datagram, PEER, US, 6, 0, 2000 - ipv6::HEADER_LEN);
        let code = super::ipv6::ProblemCode::Option;
        let problem = Problem { code, pointer: 0x1234, of_groups_too: false };
        let mut buf = vec![0; MAX_ERROR_LEN];
        assert_eq!(emit_problem(&mut buf, US, PEER, problem, &datagram), MAX_ERROR_LEN);
        assert_eq!(buf[40..42], [4, 2]);
        assert_eq!(buf[44..48], [0, 0, 0x12, 0x34]);
        let quoted = Quoted { src: PEER, dst: US, protocol: 6, start: [7; 8] };
        let error = Error { kind: Kind::ParameterProblem, quoted };
        assert_eq!(read(&buf), Ok(Message::Error(error)));
        assert!(!may_be_told(ipv6::ICMP, &buf[40..]) && may_be_told(6, &buf[40..]));
    }

    #[test]
    fn errors_quote_what_was_sent() {
        let mut quoted = vec![0; ipv6::HEADER_LEN];
        ipv6::emit(&mut quoted, US, PEER, 6, 0, 8);
        quoted.extend([0x1b, 0x58, 0x9c, 0x40, 1, 2, 3, 4]);
        let error = |kind: u8, code: u8, body: &[u8]| {
            let mut all = vec![0; ipv6::HEADER_LEN];
            ipv6::emit(&mut all, PEER, US, ipv6::ICMP, 0, 0);
            all.extend([kind, code, 0, 0, 0, 0, 5, 0]);
            all.extend(body);
            sealed(all, |_| {})
        };
        for (kind, code, expected) in [
            (1, 4, Kind::Unreachable(4)),
            (2, 0, Kind::TooBig(1280)),
            (3, 1, Kind::TimeExceeded(1)),
            (4, 1, Kind::ParameterProblem),
        ] {
            let Ok(Message::Error(error)) = error(kind, code, &quoted) else {
                panic!("{kind} is an error");
            };
            assert_eq!(error.kind, expected);
            assert_eq!((error.quoted.src, error.quoted.dst), (US, PEER));
            assert_eq!(error.quoted.tcp(), (7000, 40_000, 0x0102_0304));
        }
        assert_eq!(error(1, 0, &quoted[..47]), Err(Malformed::BadMessage));
        assert_eq!(error(143, 0, &quoted), Ok(Message::Other));
        assert_eq!(error(100, 0, &quoted), Ok(Message::Other));
    }

    proptest! {
        #[test]
        fn a_ping_comes_back(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut request = vec![0; ipv6::HEADER_LEN];
            ipv6::emit(&mut request, PEER, US, ipv6::ICMP, 0x10, 8 + data.len());
            request.extend([ECHO_REQUEST, 0, 0, 0, 1, 2, 3, 4]);
            request.extend(&data);
            seal(&mut request, PEER, US);
            prop_assert_eq!(read(&request), Ok(Message::EchoRequest));
            let ip = ipv6::parse(&request).unwrap();
            let mut reply = [0; 300];
            let len = echo_reply(&mut reply, &ip, ip.payload(&request)).unwrap();
            prop_assert_eq!(read(&reply[..len]), Ok(Message::EchoReply));
            let back = ipv6::parse(&reply[..len]).unwrap();
            prop_assert_eq!((back.src, back.dst, back.tos), (US, PEER, 0x10));
            prop_assert_eq!(&reply[44..len], &request[44..]);
        }

        #[test]
        fn any_message_is_survived(
            kind in prop_oneof![1..=4_u8, 128..=137_u8, any::<u8>()],
            body in prop::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 0..100),
        ) {
            let mut all = vec![0; ipv6::HEADER_LEN];
            ipv6::emit_with_hop_limit(&mut all, PEER, US, ipv6::ICMP, 0, body.len() + 4, 255);
            all.extend([kind, 0, 0, 0]);
            all.extend(body);
            seal(&mut all, PEER, US);
            let _ = read(&all);
        }
    }
}
