//! Random segments, readers, timers and wishes: nothing panics, every byte comes once and in order,
//! memory adds up, and the right edge never moves left.

use proptest::prelude::*;

use super::harness::*;
use crate::tcp::Counter::*;
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::State;
use crate::tcp::testing::World;
use crate::tcp::timestamps::TsState;
use crate::time::Instant;
use crate::wire::{Flags, Segment, Timestamps};

/// How the connection was opened.
#[derive(Clone, Debug)]
struct Setup {
    sack: bool,
    ts: bool,
    shift: Option<u8>,
    rcvbuf: u32,
    ring: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Burst(Vec<Arrival>),
    Read(u32),
    DrainRing,
    Wait(u64),
    ShutdownRead,
    ShutdownWrite,
    Close,
}

/// A segment, relative to where the connection stands.
#[derive(Clone, Debug)]
struct Arrival {
    seq: i32,
    len: u32,
    flags: u8,
    ack: i32,
    window: u16,
    urgent: u16,
    ts: Option<i32>,
}

fn setup() -> impl Strategy<Value = Setup> {
    let shift = prop_oneof![Just(None), (0..=14_u8).prop_map(Some)];
    let rcvbuf = prop_oneof![Just(5000_u32), Just(20_000), Just(131_072)];
    (any::<bool>(), any::<bool>(), shift, rcvbuf, prop_oneof![Just(0_usize), 1..20_usize])
        .prop_map(|(sack, ts, shift, rcvbuf, ring)| Setup { sack, ts, shift, rcvbuf, ring })
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let seq = prop_oneof![
        6 => Just(0),
        4 => -3000..10_000,
        1 => -100_000..100_000,
        1 => any::<i32>(),
    ];
    let len = prop_oneof![2 => Just(0_u32), 3 => 1..300_u32, 4 => Just(1460_u32), 1 => 1..3000_u32];
    let flags = prop_oneof![
        20 => Just(0x10_u8),
        4 => Just(0x18),
        1 => Just(0x11),
        1 => Just(0x30),
        1 => any::<u8>(),
    ];
    let ack = prop_oneof![10 => Just(0), 1 => -2..2, 1 => any::<i32>()];
    let window = prop_oneof![6 => Just(1000_u16), 1 => any::<u16>()];
    let ts = prop_oneof![1 => Just(None), 8 => (-3..50).prop_map(Some), 1 => any::<i32>().prop_map(Some)];
    (seq, len, flags, ack, window, any::<u16>(), ts).prop_map(
        |(seq, len, flags, ack, window, urgent, ts)| Arrival {
            seq,
            len,
            flags,
            ack,
            window,
            urgent,
            ts,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => proptest::collection::vec(arrival(), 1..12).prop_map(Step::Burst),
        6 => (0..20_000_u32).prop_map(Step::Read),
        3 => Just(Step::DrainRing),
        4 => (0..3000_u64).prop_map(Step::Wait),
        1 => Just(Step::ShutdownRead),
        1 => Just(Step::ShutdownWrite),
        1 => Just(Step::Close),
    ]
}

fn conn(setup: &Setup) -> Conn {
    let mut world = World::default();
    world.settings.tcp_rmem[1] = setup.rcvbuf;
    let ts = TsState { recent: 500, offset: 7, recent_at: Instant::from_millis(1000) };
    let opened = Opened {
        rcv_wnd: (setup.rcvbuf / 2).min(W),
        scale: setup.shift.map(|rcv| Scale { rcv, snd: 3 }),
        sack_ok: setup.sack,
        ecn_ok: false,
        ts: setup.ts.then_some(ts),
        ..opened()
    };
    let mut conn = Conn::in_world(world, &opened);
    conn.ring.room = setup.ring;
    conn
}

fn segment(c: &Conn, a: &Arrival) -> Segment {
    let recent = c.tcb.ts.map_or(0, |ts| ts.recent);
    let una = c.tcb.snd_nxt.raw().wrapping_sub(ISS);
    Segment {
        seq: c.rcv_nxt().wrapping_add_signed(a.seq),
        ack: una.wrapping_add_signed(a.ack),
        len: a.len,
        window: a.window,
        urgent: a.urgent,
        flags: Flags(a.flags),
        ecn: 0,
        ts: a.ts.map(|ts| Timestamps { val: recent.wrapping_add_signed(ts), ecr: 0 }),
    }
}

/// The right edge that an ACK advertises.
fn advertised(c: &Conn, out: &crate::wire::Outgoing, shift: u8) -> Option<u32> {
    let promises = out.flags.has(Flags::ACK) && !out.flags.has(Flags::RST);
    let ack = out.ack.wrapping_sub(IRS);
    (promises && c.state() != State::Closed)
        .then(|| ack.wrapping_add(u32::from(out.window) << shift))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_comes_once_memory_adds_up_and_the_edge_never_moves_left(
        setup in setup(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut c = conn(&setup);
        let shift = setup.shift.unwrap_or(0);
        let mut edge = c.right_edge();
        let mut drops = 0;
        let mut closed = false;
        for step in &steps {
            let seen = c.raw.len();
            match step {
                Step::Burst(arrivals) => {
                    for a in arrivals {
                        let seg = segment(&c, a);
                        c.arrive(&seg, payload(&seg));
                    }
                    c.end_burst();
                }
                Step::Read(len) if !closed => drop(c.read(*len)),
                Step::DrainRing if !closed => drop(c.read_all()),
                Step::Read(_) | Step::DrainRing => {}
                Step::Wait(ms) => drop(c.wait(*ms)),
                Step::ShutdownRead => c.tcb.shutdown_read(),
                Step::ShutdownWrite => drop(c.shutdown_write()),
                Step::Close if !closed => {
                    closed = true;
                    // What is in the reader's hands goes back before the last handle.
                    let freed = c.release_all();
                    c.close();
                    c.tcb.uncharge(freed);
                }
                Step::Close => {}
            }
            prop_assert_eq!(c.held(), c.tcb.rmem());
            prop_assert!(c.tcb.rmem() <= c.tcb.rcvbuf() + 12 * 3400);
            // A window of zero may go back on what was promised where memory has run out.
            let dropped = c.count(PruneCalled) != drops;
            drops = c.count(PruneCalled);
            for out in &c.raw[seen..] {
                prop_assert!(!out.flags.has(Flags::SYN));
                let most = if setup.ts { 3 } else { 4 };
                prop_assert!(out.sack.len() <= most);
                prop_assert!(setup.sack || out.sack.is_empty());
                prop_assert_eq!(setup.ts && !(out.flags == Flags::RST), out.ts.is_some());
                if let Some(now) = advertised(&c, out, shift) {
                    let back = edge.wrapping_sub(now) as i32;
                    prop_assert!(back <= 0 || (out.window == 0 && dropped), "moved left by {}", back);
                    edge = now;
                }
            }
            if c.state() == State::Closed {
                prop_assert_eq!(c.tcb.next_deadline(), None);
            }
            if let Some(at) = c.tcb.notify_at() {
                prop_assert!(at.at_or_before(c.tcb.edge()) || c.tcb.urgent().is_some());
            }
        }
        if !closed {
            c.read_all();
            prop_assert_eq!(c.readable(), 0);
        }
    }

    #[test]
    fn a_stream_in_random_pieces_arrives_whole(
        setup in setup(),
        order in proptest::collection::vec((0..40_usize, 1..4_usize), 1..80),
    ) {
        // 40 pieces of 97 bytes, sent in random order and in random groups, then all in order.
        let mut c = conn(&setup);
        let piece = |i: usize, n: usize| {
            let n = n.min(40 - i);
            data(1 + 97 * i as u32, 97 * n as u32)
        };
        for (i, n) in order {
            c.on(piece(i, n));
        }
        for i in 0..40 {
            c.on(piece(i, 1));
            c.read_all();
        }
        for _ in 0..3 {
            for i in 0..40 {
                c.on(piece(i, 1));
            }
            c.wait(300);
            c.read_all();
        }
        prop_assert_eq!(c.copied, 1 + 97 * 40);
        prop_assert_eq!((c.tcb.rmem(), c.tcb.ofo.len()), (0, 0));
    }
}
