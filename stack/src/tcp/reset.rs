//! The RST that answers a segment of no connection (RFC 9293 §3.10.7.1).
//!
//! Also used by listeners, requests and orphans, on lcores. It neither limits nor counts: that is
//! for whoever sends.

use crate::wire::{Flags, Outgoing, Segment};

/// The RST that `seg` deserves; none if it is a RST itself.
///
/// A segment with ACK is told its own acknowledgement number, so that the RST is acceptable to
/// whoever sent it; one without is acknowledged from sequence number zero. The window is zero and
/// there are no options, as in Linux.
pub fn reply(seg: &Segment) -> Option<Outgoing> {
    if seg.flags.has(Flags::RST) {
        return None;
    }
    Some(if seg.flags.has(Flags::ACK) {
        Outgoing { seq: seg.ack, flags: Flags::RST, ..Outgoing::default() }
    } else {
        let flags = Flags::RST.with(Flags::ACK);
        Outgoing { seq: 0, ack: seg.end_seq(), flags, ..Outgoing::default() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seg(flags: Flags, seq: u32, ack: u32, len: u32) -> Segment {
        Segment { seq, ack, len, window: 1000, urgent: 0, flags, ecn: 0, ts: None }
    }

    #[test]
    fn a_syn_is_acknowledged_from_zero() {
        let rst = reply(&seg(Flags::SYN, 100, 0, 0)).unwrap();
        assert_eq!((rst.seq, rst.ack, rst.flags), (0, 101, Flags::RST.with(Flags::ACK)));
        assert_eq!(rst.window, 0);
    }

    #[test]
    fn an_ack_is_told_its_own_number_without_an_ack_flag() {
        let rst = reply(&seg(Flags::ACK, 7, 555, 0)).unwrap();
        assert_eq!(rst, Outgoing { seq: 555, flags: Flags::RST, ..Outgoing::default() });
    }

    #[test]
    fn fin_and_payload_count_in_the_acknowledgement() {
        let rst = reply(&seg(Flags::FIN, 100, 0, 3)).unwrap();
        assert_eq!((rst.seq, rst.ack, rst.flags), (0, 104, Flags::RST.with(Flags::ACK)));
        let wrapped = reply(&seg(Flags::FIN, u32::MAX, 0, 3)).unwrap();
        assert_eq!(wrapped.ack, 3);
    }

    #[test]
    fn a_rst_is_never_answered() {
        assert_eq!(reply(&seg(Flags::RST, 1, 0, 0)), None);
        assert_eq!(reply(&seg(Flags::RST.with(Flags::ACK), 1, 5, 0)), None);
        assert_eq!(reply(&seg(Flags::RST.with(Flags::SYN), 1, 5, 9)), None);
    }
}
