//! ICMP echo (RFC 792): the answer to a ping, so that a host can be seen to live.
//!
//! Called by the lcore that received the request. Whom to answer, and how often, is decided there:
//! a request to a group or to all hosts should get no answer (RFC 1122 §3.2.2.6).

use super::checksum::Sum;
use super::ipv4::{self, Ipv4};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// Bytes of an echo message before its data.
pub const ECHO_HEADER_LEN: usize = 8;

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
    use std::net::Ipv4Addr;

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

    proptest! {
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
