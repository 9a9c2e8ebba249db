//! Segments in several buffers against the same segments in one that costs as much.

use proptest::prelude::*;

use super::harness::*;
use crate::buf::{HeapBuf, PacketBuf};
use crate::tcp::Counter::*;
use crate::tcp::SeqNum;
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{NoSink, State, TcpInfo};
use crate::tcp::testing::World;
use crate::tcp::timestamps::TsState;
use crate::time::Instant;
use crate::wire::{Flags, Outgoing, Segment, Timestamps};

/// The payload of a segment in buffers of so many bytes, the last one taking what is left.
fn chain(seg: &Segment, lens: &[usize]) -> HeapBuf {
    let whole = payload(seg);
    let mut bytes = whole.data();
    let mut pieces = Vec::new();
    for &len in lens {
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        pieces.push(HeapBuf::new(piece));
        bytes = rest;
    }
    if !bytes.is_empty() {
        pieces.push(HeapBuf::new(bytes));
    }
    pieces.retain(|piece| !piece.is_empty());
    let chained = pieces.into_iter().rev().fold(None, |rest, buf| Some(buf.with_rest(rest)));
    chained.expect("a segment with payload")
}

/// The payload in one buffer that costs as much as the chain.
fn one(seg: &Segment, chain: &HeapBuf) -> HeapBuf {
    payload(seg).with_room(chain.chain_truesize() as usize - HeapBuf::OVERHEAD)
}

impl Conn {
    fn arrive_in_pieces(&mut self, seg: &Segment, lens: &[usize]) {
        let buf = chain(seg, lens);
        let seg =
            Segment { seq: seg.seq.wrapping_add(IRS), ack: seg.ack.wrapping_add(ISS), ..*seg };
        let cx = &mut self.world.cx();
        let verdict = if self.ring.room > 0 {
            self.tcb.on_chain(cx, &seg, buf, &mut self.ring)
        } else {
            self.tcb.on_chain(cx, &seg, buf, &mut NoSink)
        };
        self.follow(verdict);
    }

    fn on_pieces(&mut self, seg: Segment, lens: &[usize]) -> Vec<Out> {
        self.arrive_in_pieces(&seg, lens);
        self.end_burst();
        self.sent()
    }

    /// What a peer, a reader and an observer of counters can see. Not the memory: of a chain that is
    /// received twice in part only some buffers are kept twice, which also teaches the window's limit
    /// something else; nor where a report of what came below
    /// rcv_nxt begins when a hole was filled, for that is the first buffer that is not all old.
    fn seen(&self) -> String {
        let buffers = [ToPrequeue, ToReceiveQueue, TCPOFOMerge];
        let counted = self.counted().into_iter().filter(|(c, _)| !buffers.contains(c));
        let info = self.tcb.info(self.world.now);
        let told = info.tcpi_rcv_wnd.min(MOST_TOLD);
        let info = TcpInfo { tcpi_rcv_ssthresh: 0, tcpi_rcv_wnd: told, ..info };
        let tcb = &self.tcb;
        format!(
            "{:?} {:?} {:?} {} {:?} {:?} {info:?} {:?}",
            tcb.state(),
            tcb.error(),
            tcb.rcv_nxt(),
            told,
            tcb.urgent(),
            self.raw.iter().map(without_old_report).collect::<Vec<_>>(),
            counted.collect::<Vec<_>>(),
        )
    }
}

/// A segment that was sent, but for a DSACK block below what it acknowledges: its end is left.
fn without_old_report(out: &Outgoing) -> Outgoing {
    let mut out = *out;
    if let Some((start, end)) = out.sack.first_mut()
        && SeqNum::new(*start).before(SeqNum::new(out.ack))
    {
        *start = *end;
    }
    out
}

#[derive(Clone, Debug)]
struct Setup {
    ts: bool,
    sack: bool,
    ring: usize,
}

fn conn(setup: &Setup) -> Conn {
    let mut world = World::default();
    // Memory is taken buffer by buffer, and is another test's.
    world.settings.tcp_rmem[1] = 2 * HALF;
    let ts = TsState { recent: 500, offset: 7, recent_at: Instant::from_millis(1000) };
    let opened = Opened {
        advmss: 8948,
        mss: 8960,
        rcv_wnd: HALF,
        scale: Some(Scale { rcv: 7, snd: 3 }),
        sack_ok: setup.sack,
        ts: setup.ts.then_some(ts),
        ..opened()
    };
    let mut conn = Conn::in_world(world, &opened);
    conn.ring.room = setup.ring;
    conn
}

#[derive(Clone, Debug)]
enum Step {
    Burst(Vec<Arrival>),
    ReadAll,
    Wait(u64),
    ShutdownWrite,
}

/// A segment, relative to rcv_nxt.
#[derive(Clone, Debug)]
struct Arrival {
    seq: i32,
    len: u32,
    flags: u8,
    ack: i32,
    ts: i32,
    urgent: u16,
    lens: Vec<usize>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    // In units in which neither an overlap nor an edge leaves so little that it would be copied.
    let seq = prop_oneof![6 => Just(0), 2 => -8..20_i32, 1 => -60..60_i32].prop_map(|n| n * 600);
    let len = prop_oneof![2 => Just(15_u32), 1 => 1..16_u32].prop_map(|n| n * 600);
    let flags = prop_oneof![20 => Just(0x10_u8), 5 => Just(0x18), 1 => Just(0x11), 1 => Just(0x30),
        1 => any::<u8>()];
    let ack = prop_oneof![20 => Just(0), 1 => -2..2];
    let ts = prop_oneof![20 => 0..2, 1 => -9..9];
    let lens = proptest::collection::vec(prop_oneof![Just(600_usize), Just(1800)], 1..6);
    (seq, len, flags, ack, ts, any::<u16>(), lens).prop_map(
        |(seq, len, flags, ack, ts, urgent, lens)| Arrival {
            seq,
            len,
            flags,
            ack,
            ts,
            urgent,
            lens,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => proptest::collection::vec(arrival(), 1..8).prop_map(Step::Burst),
        10 => Just(Step::ReadAll),
        6 => (0..50_u64).prop_map(Step::Wait),
        1 => Just(Step::ShutdownWrite),
    ]
}

fn segment(c: &Conn, a: &Arrival) -> Segment {
    let val = |ts: TsState| ts.recent.wrapping_add_signed(a.ts);
    Segment {
        seq: c.rcv_nxt().wrapping_add_signed(a.seq),
        ack: c.tcb.snd_nxt.raw().wrapping_sub(ISS).wrapping_add_signed(a.ack),
        // No peer sends on behind its FIN; whose bytes would win then is nobody's rule.
        flags: Flags(if a.seq == 0 { a.flags } else { a.flags & !Flags::FIN.0 }),
        urgent: a.urgent,
        ts: c.tcb.ts.map(|ts| Timestamps { val: val(ts), ecr: 0 }),
        ..data(0, a.len)
    }
}

/// Half of a buffer that nothing fills.
const HALF: u32 = 64 << 20;

/// The largest window that a header with a shift of seven tells.
const MOST_TOLD: u32 = 0xffff << 7;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_segment_in_pieces_is_a_segment(
        (ts, sack, ring) in (any::<bool>(), any::<bool>(), prop_oneof![Just(0_usize), Just(9)]),
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let setup = Setup { ts, sack, ring };
        let (mut whole, mut pieces) = (conn(&setup), conn(&setup));
        for step in &steps {
            match step {
                Step::Burst(arrivals) => {
                    for arrival in arrivals {
                        let seg = segment(&whole, arrival);
                        whole.arrive(&seg, one(&seg, &chain(&seg, &arrival.lens)));
                        pieces.arrive_in_pieces(&seg, &arrival.lens);
                        prop_assert_eq!(whole.seen(), pieces.seen(), "{:?}", seg);
                    }
                    whole.end_burst();
                    pieces.end_burst();
                }
                Step::ReadAll => {
                    whole.read_all();
                    pieces.read_all();
                }
                Step::Wait(ms) => {
                    whole.wait(*ms);
                    pieces.wait(*ms);
                }
                Step::ShutdownWrite => {
                    whole.shutdown_write();
                    pieces.shutdown_write();
                }
            }
            prop_assert_eq!(whole.seen(), pieces.seen());
        }
    }
}

#[test]
fn each_buffer_is_charged_and_read_in_its_place() {
    let mut c = conn(&Setup { ts: false, sack: true, ring: 2 });
    c.on_pieces(data(1, 8960), &[1900, 2048, 2048, 2048]);
    assert_eq!((c.rcv_nxt(), c.ring.bufs.len()), (8961, 2));
    assert_eq!(c.tcb.rmem(), 5 * HeapBuf::new(&[]).truesize());
    c.read_all();
    assert_eq!((c.copied, c.tcb.rmem()), (8961, 0));
}

#[test]
fn one_jumbo_segment_is_one_duplicate_ack() {
    let mut c = conn(&Setup { ts: false, sack: true, ring: 0 });
    let lens = [2048, 2048, 2048, 2048];
    assert_eq!(c.on_pieces(data(10_001, 8960), &lens), [Out::Sack(1, vec![(10_001, 18_961)])]);
    assert_eq!(c.count(TCPOFOQueue), 1);
    // All of it again: one report, of all.
    let again = c.on_pieces(data(10_001, 8960), &lens);
    assert_eq!(again, [Out::Sack(1, vec![(10_001, 18_961), (10_001, 18_961)])]);
    c.on_pieces(data(1, 10_000), &lens);
    c.read_all();
    assert_eq!((c.copied, c.tcb.rmem()), (18_961, 0));
}

#[test]
fn a_fin_behind_pieces_is_of_the_last() {
    let mut c = conn(&Setup { ts: false, sack: false, ring: 0 });
    c.on_pieces(data_fin(1, 5000), &[2048, 2048]);
    assert_eq!((c.rcv_nxt(), c.state()), (5002, State::CloseWait));
    // Only the FIN is new.
    let mut c = conn(&Setup { ts: false, sack: false, ring: 0 });
    c.on(data(1, 5000));
    c.on_pieces(data_fin(1, 5000), &[2048, 2048]);
    assert_eq!((c.rcv_nxt(), c.state()), (5002, State::CloseWait));
}

#[test]
fn what_memory_there_is_takes_the_first_buffers() {
    let mut c = Conn::new();
    c.tcb.set_rcvbuf(5000);
    assert_eq!(c.tcb.rcvbuf(), 10_000);
    c.on(data(9001, 600));
    c.on_pieces(data(1, 9000), &[1500, 1500, 1500, 1500, 1500]);
    // Each takes 2368, what waited above the hole goes first, and one may overshoot.
    assert_eq!((c.rcv_nxt(), c.tcb.rmem()), (7501, 5 * 2368));
    assert_eq!(c.count(TCPRcvQDrop), 1);
    assert_eq!(c.tcb.offered_window(), 0);
    c.read_all();
    assert_eq!((c.copied, c.tcb.rmem()), (7501, 0));
}
