//! ICMP (RFC 792): what a message is, the answer to a ping, and which datagram an error quotes.
//!
//! Called by the lcore that received the message. Whom to answer, how often, and what an error means to
//! a connection is decided there: a request to a group or to all hosts should get no answer (RFC 1122
//! §3.2.2.6), and an error is believed only if what it quotes could have been sent (RFC 5927).

use std::net::Ipv4Addr;

use super::checksum::Sum;
use super::ipv4::{self, Ipv4};

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// The highest type that is known to anybody: Linux counts what is above as errors.
const LAST_TYPE: u8 = 18;

/// Bytes of an echo message before its data.
pub const ECHO_HEADER_LEN: usize = 8;

/// Bytes of any message before what it carries.
const HEADER_LEN: usize = 8;

/// Bytes of the quoted datagram's payload that an error carries at least (RFC 792): of a TCP segment
/// the ports and the sequence number.
pub(super) const QUOTED_LEN: usize = 8;

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// A ping, to be answered by [`echo_reply`].
    EchoRequest,
    /// The answer to one.
    EchoReply,
    /// A datagram of ours did not arrive.
    Error(Error),
    /// One of the others, which a receiver of TCP has no use for.
    Other,
}

/// Why a message is not one, or of no use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// The checksum is wrong.
    BadChecksum,
    /// It is too short for its header, or of an error for what it has to quote; or its type is unknown,
    /// or the quoted header is none.
    BadMessage,
}

/// An error: what is said of which datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Error {
    /// What is said.
    pub kind: Kind,
    /// The datagram that it is said of, as far as it is quoted.
    pub quoted: Quoted,
}

/// What an error says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The destination cannot be reached, for the reason of the code.
    Unreachable(u8),
    /// The datagram is larger than the next link takes: the MTU of that, or 0 from routers that are
    /// older than RFC 1191.
    TooBig(u16),
    /// A router is overloaded (deprecated by RFC 6633).
    SourceQuench,
    /// There is a better way.
    Redirect,
    /// It was under way for too long, or its fragments were: the code says which.
    TimeExceeded(u8),
    /// The header is wrong.
    ParameterProblem,
}

/// The datagram that an error quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quoted<A = Ipv4Addr> {
    /// Source: an address of ours, if we have sent it.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// Protocol of its payload.
    pub protocol: u8,
    /// The first bytes of its payload.
    pub start: [u8; QUOTED_LEN],
}

impl<A> Quoted<A> {
    /// Source port, destination port and sequence number, if it was a TCP segment.
    pub const fn tcp(&self) -> (u16, u16, u32) {
        let [s0, s1, d0, d1, q0, q1, q2, q3] = self.start;
        let (src, dst) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        (src, dst, u32::from_be_bytes([q0, q1, q2, q3]))
    }
}

/// Code of "fragmentation needed and don't-fragment set".
const FRAGMENTATION_NEEDED: u8 = 4;

/// Says what a message is, its checksum being right.
///
/// # Errors
/// See [`Malformed`]: the checks are Linux's.
pub fn parse(message: &[u8]) -> Result<Message, Malformed> {
    let (header, rest) = message.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::BadMessage)?;
    if !Sum::new().plus(message).is_valid() {
        return Err(Malformed::BadChecksum);
    }
    let [kind, code, _, _, _, _, m0, m1] = *header;
    let kind = match (kind, code) {
        (ECHO_REQUEST, _) => return Ok(Message::EchoRequest),
        (ECHO_REPLY, _) => return Ok(Message::EchoReply),
        (UNREACHABLE, FRAGMENTATION_NEEDED) => Kind::TooBig(u16::from_be_bytes([m0, m1])),
        (UNREACHABLE, code) => Kind::Unreachable(code),
        (SOURCE_QUENCH, _) => Kind::SourceQuench,
        (REDIRECT, _) => Kind::Redirect,
        (TIME_EXCEEDED, code) => Kind::TimeExceeded(code),
        (PARAMETER_PROBLEM, _) => Kind::ParameterProblem,
        (..=LAST_TYPE, _) => return Ok(Message::Other),
        _ => return Err(Malformed::BadMessage),
    };
    let quoted = quoted(rest).ok_or(Malformed::BadMessage)?;
    Ok(Message::Error(Error { kind, quoted }))
}

/// Reads the quoted datagram. Its length and its checksum may be anything: routers on the way have
/// changed the header, and cut off the rest.
fn quoted(datagram: &[u8]) -> Option<Quoted> {
    let header = datagram.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let [vihl, _, _, _, _, _, _, _, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_len = usize::from(vihl & 0x0f) * 4;
    if header_len < ipv4::HEADER_LEN {
        return None;
    }
    Some(Quoted {
        src: Ipv4Addr::new(s0, s1, s2, s3),
        dst: Ipv4Addr::new(d0, d1, d2, d3),
        protocol,
        start: *datagram.get(header_len..)?.first_chunk()?,
    })
}

/// Writes the reply to the echo request `message`, the payload of `request`, as an IPv4 datagram
/// into the front of `buf`, and returns its length.
///
/// `None`, with nothing written, if the message is no intact echo request or `buf` is too short. The
/// type of service is copied (RFC 1349 §5.1).
pub fn echo_reply(buf: &mut [u8], request: &Ipv4, message: &[u8]) -> Option<usize> {
    let [ECHO_REQUEST, 0, _, _, _, _, _, _, ..] = *message else { return None };
    if !Sum::new().plus(message).is_valid() {
        return None;
    }
    let len = ipv4::HEADER_LEN + message.len();
    if len > usize::from(u16::MAX) {
        return None;
    }
    let buf = buf.get_mut(..len)?;
    let Ipv4 { src, dst, tos, .. } = *request;
    let at = ipv4::emit(buf, dst, src, ipv4::ICMP, tos, message.len());
    let reply = &mut buf[at..];
    reply.copy_from_slice(message);
    reply[0] = ECHO_REPLY;
    reply[2..4].fill(0);
    let field = Sum::new().plus(reply).field();
    reply[2..4].copy_from_slice(&field);
    Some(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buf::Checksum;

    fn request(data: &[u8]) -> Vec<u8> {
        let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0x12, 0x34, 0, 1];
        message.extend_from_slice(data);
        let field = Sum::new().plus(&message).field();
        message[2..4].copy_from_slice(&field);
        message
    }

    fn ip(message: &[u8]) -> Ipv4 {
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 9), Ipv4Addr::new(10, 0, 0, 1));
        let mut header = vec![0; ipv4::HEADER_LEN + message.len()];
        ipv4::emit(&mut header, src, dst, ipv4::ICMP, 0x10, message.len());
        ipv4::parse(&header, Checksum::Unknown).unwrap()
    }

    #[test]
    fn other_messages_get_no_reply() {
        let good = request(b"ping");
        let ip = ip(&good);
        let reply = |message: &[u8]| echo_reply(&mut [0; 100], &ip, message);
        assert_eq!(reply(&good), Some(32));
        assert_eq!(reply(&good[..7]), None);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(reply(&bad), None, "byte {at}");
        }
        for (kind, code) in [(3, 0), (ECHO_REPLY, 0), (ECHO_REQUEST, 1)] {
            let mut other = good.clone();
            (other[0], other[1]) = (kind, code);
            other[2..4].fill(0);
            let field = Sum::new().plus(&other).field();
            other[2..4].copy_from_slice(&field);
            assert_eq!(reply(&other), None, "type {kind} code {code}");
        }
    }

    #[test]
    fn a_short_buffer_is_left_alone() {
        let good = request(b"ping");
        let mut buf = [0xaa; 31];
        assert_eq!(echo_reply(&mut buf, &ip(&good), &good), None);
        assert_eq!(buf, [0xaa; 31]);
    }

    /// An error about a segment of `A` to `B`, `header` its first eight bytes up to the checksum.
    fn error(kind: u8, code: u8, mtu: u16, options: usize, quoted: usize) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        let mut datagram = vec![0; 20 + options + 8];
        datagram[0] = 0x45 + (options / 4) as u8;
        datagram[9] = ipv4::TCP;
        datagram[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 9]);
        datagram[20 + options..].copy_from_slice(&[0x1b, 0x58, 0x9c, 0x40, 1, 2, 3, 4]);
        datagram.truncate(quoted);
        message.extend(datagram);
        let field = Sum::new().plus(&message).field();
        message[2..4].copy_from_slice(&field);
        message
    }

    #[test]
    fn an_error_names_the_segment_it_is_about() {
        for (bytes, kind) in [
            ((3, 0), Kind::Unreachable(0)),
            ((3, 3), Kind::Unreachable(3)),
            ((3, 4), Kind::TooBig(1400)),
            ((3, 200), Kind::Unreachable(200)),
            ((4, 0), Kind::SourceQuench),
            ((5, 1), Kind::Redirect),
            ((11, 1), Kind::TimeExceeded(1)),
            ((12, 0), Kind::ParameterProblem),
        ] {
            for options in [0, 40] {
                let message = error(bytes.0, bytes.1, 1400, options, 100);
                let Ok(Message::Error(Error { kind: got, quoted })) = parse(&message) else {
                    panic!("{kind:?} is an error");
                };
                assert_eq!((got, quoted.protocol), (kind, ipv4::TCP));
                assert_eq!(quoted.src, Ipv4Addr::new(10, 0, 0, 1));
                assert_eq!(quoted.dst, Ipv4Addr::new(10, 0, 0, 9));
                assert_eq!(quoted.tcp(), (7000, 40_000, 0x0102_0304));
            }
        }
    }

    #[test]
    fn an_error_that_quotes_too_little_is_none() {
        assert!(matches!(parse(&error(3, 1, 0, 0, 28)), Ok(Message::Error(_))));
        for (options, quoted) in [(0, 27), (0, 20), (0, 19), (0, 0), (40, 67)] {
            assert_eq!(parse(&error(3, 1, 0, options, quoted)), Err(Malformed::BadMessage));
        }
        let mut no_header = error(3, 1, 0, 0, 28);
        no_header[8] = 0x44;
        no_header[2..4].fill(0);
        let field = Sum::new().plus(&no_header).field();
        no_header[2..4].copy_from_slice(&field);
        assert_eq!(parse(&no_header), Err(Malformed::BadMessage));
    }

    #[test]
    fn only_an_intact_message_is_one() {
        let good = error(3, 1, 0, 0, 28);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(parse(&bad), Err(Malformed::BadChecksum), "byte {at}");
        }
        assert_eq!(parse(&good[..7]), Err(Malformed::BadMessage));
        assert_eq!(parse(&request(b"ping")), Ok(Message::EchoRequest));
        assert_eq!(parse(&error(14, 0, 0, 0, 0)), Ok(Message::Other));
        assert_eq!(parse(&error(19, 0, 0, 0, 28)), Err(Malformed::BadMessage));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let _ = parse(&bytes);
            if bytes.len() >= 4 {
                bytes[2..4].fill(0);
                let field = Sum::new().plus(&bytes).field();
                bytes[2..4].copy_from_slice(&field);
                prop_assert_ne!(parse(&bytes), Err(Malformed::BadChecksum));
            }
        }

        #[test]
        fn the_reply_carries_the_data_back(data in prop::collection::vec(any::<u8>(), 0..100)) {
            let message = request(&data);
            let request = ip(&message);
            let mut buf = [0; 200];
            let len = echo_reply(&mut buf, &request, &message).unwrap();
            let reply = ipv4::parse(&buf[..len], Checksum::Unknown).unwrap();
            prop_assert_eq!((reply.src, reply.dst), (request.dst, request.src));
            prop_assert_eq!((reply.protocol, reply.tos), (ipv4::ICMP, 0x10));
            let body = reply.payload(&buf[..len]);
            prop_assert!(Sum::new().plus(body).is_valid());
            prop_assert_eq!(&body[..2], &[ECHO_REPLY, 0]);
            prop_assert_eq!(&body[4..], &message[4..]);
        }
    }
}
