//! Runs against the general path: whatever comes, both leave the same behind.

use std::net::IpAddr;

use proptest::prelude::*;

use super::harness::*;
use crate::buf::{HeapBuf, Owner, PacketBuf};
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{NoSink, Replies, Verdict};
use crate::tcp::testing::World;
use crate::tcp::timestamps::TsState;
use crate::time::Instant;
use crate::wire::words::{Alike, Likeness};
use crate::wire::{
    Family, Flags, FourTuple, MacAddr, Outgoing, Segment, Timestamps, ethernet, frame, tcp,
};

const OWNER: Owner = Owner::new(3, 9);

#[derive(Clone, Debug)]
struct Setup {
    family: Family,
    ts: bool,
    sack: bool,
    ecn: bool,
    rcvbuf: u32,
    ring: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Burst(Vec<Arrival>),
    Read(u32),
    DrainRing,
    Wait(u64),
    ShutdownWrite,
}

/// A frame, relative to the one before it.
#[derive(Clone, Debug)]
struct Arrival {
    seq: i32,
    len: u32,
    flags: u8,
    ack: i32,
    window: u16,
    ts: Option<i32>,
    merged_from: Option<u32>,
    reserved: u8,
    /// The ECN field.
    mark: u8,
    /// By how many places it is delayed.
    delay: usize,
}

fn setup() -> impl Strategy<Value = Setup> {
    let rcvbuf = prop_oneof![Just(5000_u32), Just(20_000), Just(131_072)];
    let family = prop_oneof![2 => Just(Family::V4), 1 => Just(Family::V6)];
    let ring = prop_oneof![Just(0_usize), 1..40_usize];
    (family, any::<bool>(), any::<bool>(), any::<bool>(), rcvbuf, ring).prop_map(
        |(family, ts, sack, ecn, rcvbuf, ring)| Setup { family, ts, sack, ecn, rcvbuf, ring },
    )
}

/// Frames of about one size, most of them as predicted.
fn burst() -> impl Strategy<Value = Vec<Arrival>> {
    let len = prop_oneof![Just(1448_u32), Just(1460), Just(64), Just(87), Just(88), 1..1500_u32];
    (len, 1..33_usize, prop_oneof![Just(0x10_u8), Just(0x18)])
        .prop_flat_map(|(len, n, flags)| proptest::collection::vec(arrival(len, flags), n))
}

fn arrival(len: u32, flags: u8) -> impl Strategy<Value = Arrival> {
    let seq = prop_oneof![60 => Just(0), 1 => -3000..5000];
    let len = prop_oneof![60 => Just(len), 1 => Just(0_u32), 2 => 1..1500_u32];
    let flags = prop_oneof![60 => Just(flags), 2 => Just(0x18), 1 => Just(0x11), 1 => any::<u8>()];
    let ack = prop_oneof![60 => Just(0), 1 => -2..2];
    let window = prop_oneof![60 => Just(1000_u16), 1 => any::<u16>()];
    let ts = prop_oneof![1 => Just(None), 60 => (0..2).prop_map(Some), 1 => (-9..9).prop_map(Some)];
    let merged = prop_oneof![60 => Just(None), 1 => (1..1500_u32).prop_map(Some)];
    let reserved = prop_oneof![60 => Just(0_u8), 1 => 0..16_u8];
    let mark = prop_oneof![60 => Just(2_u8), 1 => 0..4_u8];
    let delay = prop_oneof![20 => Just(0_usize), 1 => 1..16_usize];
    (seq, len, flags, ack, window, ts, merged, (reserved, mark), delay).prop_map(
        |(seq, len, flags, ack, window, ts, merged_from, (reserved, mark), delay)| Arrival {
            seq,
            len,
            flags,
            ack,
            window,
            ts,
            merged_from,
            reserved,
            mark,
            delay,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => burst().prop_map(Step::Burst),
        14 => (0..100_000_u32).prop_map(Step::Read),
        5 => Just(Step::DrainRing),
        6 => (0..50_u64).prop_map(Step::Wait),
        1 => Just(Step::ShutdownWrite),
    ]
}

fn conn(setup: &Setup) -> Conn {
    let mut world = World::default();
    world.settings.tcp_rmem[1] = setup.rcvbuf;
    let ts = TsState { recent: 500, offset: 7, recent_at: Instant::from_millis(1000) };
    let opened = Opened {
        family: setup.family,
        rcv_wnd: (setup.rcvbuf / 2).min(W),
        scale: Some(Scale { rcv: 7, snd: 3 }),
        sack_ok: setup.sack,
        ecn_ok: setup.ecn,
        ts: setup.ts.then_some(ts),
        ..opened()
    };
    let mut conn = Conn::in_world(world, &opened);
    conn.ring.room = setup.ring;
    conn
}

/// The frames of a burst, each relative to where the one before it would have led.
fn frames(c: &Conn, arrivals: &[Arrival]) -> Vec<HeapBuf> {
    let (local_addr, remote_addr): (IpAddr, IpAddr) = match c.tcb.family() {
        Family::V4 => ([10, 0, 0, 2].into(), [10, 0, 0, 1].into()),
        Family::V6 => ([0xfd00, 0, 0, 0, 0, 0, 0, 2].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
    };
    let tuple = FourTuple { local_addr, remote_addr, local_port: 5000, remote_port: 80 };
    let (ethertype, offset_at) = match c.tcb.family() {
        Family::V4 => (ethernet::IPV4, 46),
        Family::V6 => (ethernet::IPV6, 66),
    };
    let mut next = c.rcv_nxt();
    let mut clock = c.tcb.ts.map_or(0, |ts| ts.recent);
    let frame = |a: &Arrival| {
        let seq = next.wrapping_add_signed(a.seq);
        if a.seq == 0 {
            next = seq.wrapping_add(a.len);
        }
        clock = clock.wrapping_add_signed(a.ts.unwrap_or(0).max(0));
        let val = clock.wrapping_add_signed(a.ts.unwrap_or(0).min(0));
        let out = Outgoing {
            seq: seq.wrapping_add(IRS),
            ack: c.tcb.snd_nxt.raw().wrapping_add_signed(a.ack),
            flags: Flags(a.flags),
            window: a.window,
            ts: c.tcb.ts.and(a.ts).map(|_| Timestamps { val, ecr: 0 }),
            ..Outgoing::default()
        };
        let payload = payload(&data(seq, a.len));
        let mut bytes = vec![0; frame::MAX_CONTROL_LEN + payload.len()];
        let (us, peer) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let at = ethernet::emit(&mut bytes, us, peer, None, ethertype);
        let len = tcp::emit(&mut bytes[at..], &tuple, &out, a.mark, payload.data());
        bytes.truncate(at + len);
        bytes[offset_at] |= a.reserved;
        // The padding of a short frame.
        bytes.resize(bytes.len().max(60), 0xee);
        let buf = HeapBuf::new(&bytes);
        match a.merged_from {
            Some(payload) => buf.with_merged_from(payload),
            None => buf,
        }
    };
    let mut frames: Vec<_> = arrivals.iter().map(frame).enumerate().collect();
    frames.sort_by_key(|(at, _)| {
        2 * (at + arrivals[*at].delay) + usize::from(arrivals[*at].delay > 0)
    });
    frames.into_iter().map(|(_, frame)| frame).collect()
}

impl Conn {
    /// One frame by the general path.
    fn frame(&mut self, mut buf: HeapBuf) {
        let parsed = frame::parse_checked(buf.data()).expect("a segment");
        buf.narrow(usize::from(parsed.payload), parsed.segment.len as usize);
        let cb = buf.cb_mut();
        cb.owner = OWNER;
        cb.rx_time = self.world.now;
        let segment = parsed.segment;
        let (seq, ack) = (segment.seq.wrapping_sub(IRS), segment.ack.wrapping_sub(ISS));
        self.arrive(&Segment { seq, ack, ..segment }, buf);
    }

    /// A burst by runs, and what ends them by the general path; how many were taken by runs.
    fn run(&mut self, frames: Vec<HeapBuf>) -> usize {
        let mut alike = Alike::default();
        for at in 1..frames.len() {
            let [before, frame] = [at - 1, at].map(|at| frames[at].data());
            if self.tcb.family() == Family::V4
                && Likeness::of(before).is_some_and(|likeness| likeness.is_that_of(frame))
            {
                alike.note(at..at + 1);
            }
        }
        let mut frames: Vec<_> = frames.into_iter().map(Some).collect();
        let (mut at, mut taken) = (0, 0);
        while at < frames.len() {
            let cx = &mut self.world.cx();
            let alike = alike.from(at);
            let n = if self.ring.room > 0 {
                self.tcb.on_frames(cx, &mut frames[at..], alike, OWNER, &mut self.ring)
            } else {
                self.tcb.on_frames(cx, &mut frames[at..], alike, OWNER, &mut NoSink)
            };
            assert!(frames[at..at + n].iter().all(Option::is_none));
            taken += n;
            at += n;
            let Some(rest) = frames.get_mut(at..).filter(|rest| !rest.is_empty()) else { break };
            let cx = &mut self.world.cx();
            let mut replies = Replies::new();
            let n = if self.ring.room > 0 {
                self.tcb.on_frames_at_hole(cx, rest, OWNER, &mut self.ring, &mut replies)
            } else {
                self.tcb.on_frames_at_hole(cx, rest, OWNER, &mut NoSink, &mut replies)
            };
            assert!(rest[..n].iter().all(Option::is_none) && rest[n..].iter().all(Option::is_some));
            assert!(replies.len() <= n);
            replies.into_iter().for_each(|out| self.follow(Verdict::Send(out)));
            if n == 0 {
                self.frame(rest[0].take().expect("not taken"));
            }
            at += n.max(1);
        }
        taken
    }

    /// All that can be seen of it.
    fn all(&self) -> String {
        let Self { tcb, ring, raw, copied, .. } = self;
        format!("{tcb:?} {ring:?} {raw:?} {copied} {:?}", self.counted())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn runs_leave_behind_what_single_segments_do(
        setup in setup(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let (mut single, mut by_runs) = (conn(&setup), conn(&setup));
        for step in &steps {
            if let Step::Burst(arrivals) = step {
                let frames = frames(&single, arrivals);
                frames.iter().for_each(|buf| single.frame(buf.clone()));
                by_runs.run(frames);
            }
            for c in [&mut single, &mut by_runs] {
                match step {
                    Step::Burst(_) => c.end_burst(),
                    Step::Read(len) => drop(c.read(*len)),
                    Step::DrainRing => drop(c.read_all()),
                    Step::Wait(ms) => drop(c.wait(*ms)),
                    Step::ShutdownWrite => drop(c.shutdown_write()),
                }
            }
            prop_assert_eq!(single.all(), by_runs.all());
        }
    }
}

#[test]
fn what_is_as_predicted_is_taken_by_runs() {
    let all = [(false, 0, 1460), (true, 0, 1448), (false, 64, 1460), (true, 40, 64)];
    let of = |family, ecn| all.map(|(ts, ring, len)| (family, ecn, ts, ring, len));
    let rows = [of(Family::V4, false), of(Family::V4, true), of(Family::V6, false)];
    for (family, ecn, ts, ring, len) in rows.into_iter().flatten() {
        let mut c = conn(&Setup { family, ts, sack: true, ecn, rcvbuf: 400_000, ring });
        let arrival = Arrival {
            seq: 0,
            len,
            flags: 0x10,
            ack: 0,
            window: 1000,
            ts: Some(1),
            merged_from: None,
            reserved: 0,
            mark: 2,
            delay: 0,
        };
        let arrivals = vec![arrival; 32];
        let mut taken = 0;
        for _ in 0..50 {
            let frames = frames(&c, &arrivals);
            taken = c.run(frames);
            c.end_burst();
            c.read_all();
        }
        assert_eq!(taken, 32, "{ecn} {ts} {ring} {len}");
    }
}

#[test]
fn what_fills_a_hole_stays_out_of_the_ring_while_urgent_data_is_pending() {
    let (family, rcvbuf) = (Family::V4, 131_072);
    let setup = Setup { family, ts: false, sack: true, ecn: false, rcvbuf, ring: 40 };
    let (mut single, mut by_runs) = (conn(&setup), conn(&setup));
    let arrival = |flags, delay| Arrival {
        seq: 0,
        len: 100,
        flags,
        ack: 0,
        window: 1000,
        ts: None,
        merged_from: None,
        reserved: 0,
        mark: 0,
        delay,
    };
    // The one with URG comes first, above the hole that the other fills.
    let arrivals = [arrival(0x10, 1), arrival(0x30, 0)];
    let frames = frames(&single, &arrivals);
    frames.iter().for_each(|buf| single.frame(buf.clone()));
    by_runs.run(frames);
    assert_eq!(by_runs.rcv_nxt(), single.rcv_nxt());
    assert!(by_runs.tcb.urgent().is_some());
    assert_eq!(single.all(), by_runs.all());
}
