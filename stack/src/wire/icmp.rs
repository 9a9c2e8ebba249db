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
