//! What the standards ask for by name and no other test shows.

use proptest::prelude::*;

use super::harness::Out::Ack;
use super::harness::*;
use crate::tcp::Counter::*;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{ConnError, State};
use crate::tcp::timestamps::TsState;
use crate::time::Instant;
use crate::wire::Segment;

#[test]
fn a_window_field_with_its_highest_bit_set_is_a_large_window() {
    let old = |by: u32| 1_u32.wrapping_sub(by);
    let mut c = Conn::new();
    c.on(data(1, 3).window(0x8000));
    c.on(data(4, 3).acking(old(0x8000)).window(0x8000));
    assert_eq!(c.readable(), 6, "an ACK may be as old as a window of 32768 bytes");
    c.on(data(7, 3).window(0xffff));
    c.on(data(10, 3).acking(old(0xffff)).window(0xffff));
    assert_eq!((c.readable(), c.count(TCPChallengeACK)), (12, 0));
    c.on(data(13, 3).acking(old(0x1_0000)).window(0xffff));
    assert_eq!((c.readable(), c.count(TCPChallengeACK)), (12, 1));
}

#[test]
fn what_belongs_to_a_handshake_is_in_no_later_segment() {
    let ts = TsState { recent: 1, offset: 0, recent_at: Instant::from_millis(1000) };
    let scale = Conn::with_scale_of(7);
    let mut c = Conn::of(&Opened { scale, sack_ok: true, ts: Some(ts), ..opened() });
    c.on(data(1, 100).ts(2));
    c.on(data(301, 100).ts(2));
    c.on(data(101, 200).ts(2));
    c.on(data(1, 100).ts(2));
    c.wait(1000);
    c.read_all();
    c.shutdown_write();
    c.wait(5000);
    let rst = c.tcb.abort(&mut c.world.cx()).unwrap();
    c.send(rst);
    assert!(c.raw.len() >= 6, "{:?}", c.raw);
    for out in &c.raw {
        let of_a_syn = (out.mss, out.window_scale, out.sack_permitted);
        assert_eq!(of_a_syn, (None, None, false), "{out:?}");
        assert!(out.ts.is_some(), "{out:?}");
    }
}

#[test]
fn a_rst_may_carry_data() {
    let mut c = Conn::new();
    assert_eq!(c.on(Segment { len: 20, ..rst(1) }), []);
    assert_eq!((c.state(), c.tcb.error()), (State::Closed, Some(ConnError::Reset)));
    assert_eq!(c.readable(), 0, "what it carries is no part of the stream");
}

#[test]
fn an_urgent_pointer_behind_the_end_is_ignored() {
    let mut c = Conn::new();
    c.on(fin(1));
    c.on(ack(2).urgent(5));
    assert_eq!(c.tcb.urgent(), None);
}

#[test]
fn what_fails_a_check_does_not_move_the_window_of_the_peer() {
    let mut c = Conn::with_ts(1000);
    let before = (c.tcb.snd_window, c.tcb.max_window);
    c.on(data(1, 3).ts(5).window(60_000));
    c.on(data(2 + W, 3).ts(1000).window(60_000));
    c.on(data(1, 3).ts(1000).acking(2).window(60_000));
    assert_eq!((c.tcb.snd_window, c.tcb.max_window), before);
    assert_eq!(c.on(data(1, 3).ts(1000).window(60_000)), [Ack(4)]);
    assert_eq!(c.tcb.snd_window, 60_000);
}

proptest! {
    #[test]
    fn no_segment_gets_more_than_one_ack(
        sack in any::<bool>(),
        pieces in proptest::collection::vec((0..60_u32, 1..4_u32, 0..3_u64), 1..200),
    ) {
        let mut c = Conn::of(&Opened { sack_ok: sack, ..opened() });
        for (sent, (at, len, ms)) in pieces.into_iter().enumerate() {
            c.on(data(1 + 100 * at, 100 * len));
            c.wait(ms);
            prop_assert!(c.raw.len() <= sent + 1, "{} ACKs", c.raw.len());
        }
    }
}
