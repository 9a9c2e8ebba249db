use proptest::prelude::*;

use super::super::PathError;
use super::super::testing::{FREE, World};
use super::*;

/// Initial sequence numbers (ours, the peer's) that every script is run with.
const STARTS: [(u32, u32); 4] =
    [(0, 0), (0x1234_5678, 0x8765_4321), (u32::MAX, u32::MAX - 200), (0x7fff_ffff, 0x8000_0000)];

const ACK: Flags = Flags::ACK;
const SYN: Flags = Flags::SYN;
const RST: Flags = Flags::RST;
const FIN: Flags = Flags::FIN;

/// A request and the peer it talks to. Sequence numbers are relative to the initial ones.
struct Peer {
    world: World,
    request: Request,
    iss: u32,
    irs: u32,
}

impl Peer {
    fn new((iss, irs): (u32, u32)) -> Self {
        Self::with(World::default(), (iss, irs), None)
    }

    fn with_timestamps(val: u32) -> Self {
        Self::with(World::default(), STARTS[1], Some(Timestamps { val, ecr: 0 }))
    }

    fn with(mut world: World, (iss, irs): (u32, u32), ts: Option<Timestamps>) -> Self {
        let tuple = FourTuple {
            local_addr: [10, 99, 0, 2].into(),
            remote_addr: [10, 99, 0, 1].into(),
            local_port: 7000,
            remote_port: 40_000,
        };
        let syn = Segment { seq: irs, flags: SYN, ts, ..segment(SYN, 0, 0, 0) };
        let numbers = Numbers { isn: iss, ts_offset: 1_000_000 };
        let options = SynOptions { mss: Some(1460), window_scale: Some(7), sack_permitted: false };
        let mut request = Request::new(&world.cx(), tuple, &syn, &options, numbers, FREE);
        let _ = request.syn_ack(&world.cx());
        Self { world, request, iss, irs }
    }

    fn absolute(&self, seg: Segment) -> Segment {
        Segment {
            seq: seg.seq.wrapping_add(self.irs),
            ack: if seg.flags.has(ACK) { seg.ack.wrapping_add(self.iss) } else { 0 },
            ..seg
        }
    }

    fn hear(&mut self, seg: Segment) -> RequestVerdict {
        let seg = self.absolute(seg);
        self.request.on_segment(&mut self.world.cx(), &seg)
    }

    /// The verdict in short: "–", "open", "gone", or what is sent, relative numbers behind it.
    fn hears(&mut self, seg: Segment) -> String {
        match self.hear(seg) {
            RequestVerdict::Ignore => "–".into(),
            RequestVerdict::Send(out) => self.brief(&out),
            RequestVerdict::Foreign => {
                let seg = self.absolute(seg);
                reset::reply(&seg).map_or("–".into(), |out| self.brief(&out))
            }
            RequestVerdict::Remove(None) => "gone".into(),
            RequestVerdict::Remove(Some(out)) => format!("gone {}", self.brief(&out)),
            RequestVerdict::Complete(_) => "open".into(),
        }
    }

    fn brief(&self, out: &Outgoing) -> String {
        let (seq, ack) = (out.seq.wrapping_sub(self.iss), out.ack.wrapping_sub(self.irs));
        match out.flags {
            f if f == SYN.with(ACK) => {
                assert_eq!((seq, ack), (0, 1));
                "SA".into()
            }
            f if f == ACK => {
                assert_eq!(seq, 1);
                format!("A {ack}")
            }
            f if f == RST => format!("R {seq}"),
            f if f == RST.with(ACK) => {
                assert_eq!(out.seq, 0);
                format!("RA {ack}")
            }
            f => panic!("unexpected flags {f:?}"),
        }
    }

    fn timer(&mut self, ms: u64) -> RequestTimer {
        self.world.at_ms(ms);
        let queue = QueueState { syn_queue: 1, young: 1, backlog: 128, ..QueueState::default() };
        self.request.on_timer(&mut self.world.cx(), &queue)
    }
}

fn segment(flags: Flags, seq: u32, ack: u32, len: u32) -> Segment {
    Segment { seq, ack, len, window: 500, urgent: 0, flags, ecn: 0, ts: None }
}

fn good() -> Segment {
    segment(ACK, 1, 1, 0)
}

fn data(seq: u32, len: u32) -> Segment {
    segment(ACK, seq, 1, len)
}

/// Runs a script with all the initial sequence numbers and checks the counters after it.
fn script(steps: &[(Segment, &str)], counted: &[(Counter, u64)]) {
    for start in STARTS {
        let mut peer = Peer::new(start);
        for (i, (seg, reaction)) in steps.iter().enumerate() {
            assert_eq!(peer.hears(*seg), *reaction, "step {i} from {start:?}");
        }
        assert_eq!(peer.world.counted(), counted, "from {start:?}");
    }
}

#[test]
fn the_size_is_within_its_budget() {
    assert!(size_of::<Request>() <= 128);
}

#[test]
fn the_syn_ack_offers_a_subset_of_what_the_syn_did() {
    let mut peer = Peer::with_timestamps(77);
    peer.world.at_ms(5);
    let out = peer.request.syn_ack(&peer.world.cx());
    let expected = Outgoing {
        seq: peer.iss,
        ack: peer.irs.wrapping_add(1),
        flags: SYN.with(ACK),
        window: 65_160,
        mss: Some(1460),
        window_scale: Some(10),
        sack_permitted: false,
        ts: Some(Timestamps { val: 1_000_005, ecr: 77 }),
        ..Outgoing::default()
    };
    assert_eq!(out, expected);
}

#[test]
fn a_repeated_syn_is_answered_at_once_but_not_twice_within_500_ms() {
    let mut peer = Peer::new(STARTS[1]);
    let syn = segment(SYN, 0, 0, 0);
    for (ms, reaction) in [(100, "SA"), (150, "–"), (599, "–"), (600, "SA"), (1200, "SA")] {
        peer.world.at_ms(ms);
        assert_eq!(peer.hears(syn), reaction, "at {ms} ms");
    }
    let counted = [
        (Counter::RetransSegs, 3),
        (Counter::TCPSynRetrans, 3),
        (Counter::TCPACKSkippedSynRecv, 2),
    ];
    assert_eq!(peer.world.counted(), counted);
}

#[test]
fn a_repeated_syn_restarts_the_timer() {
    let mut peer = Peer::new(STARTS[1]);
    peer.world.at_ms(700);
    assert_eq!(peer.hears(segment(SYN, 0, 0, 0)), "SA");
    assert_eq!(peer.request.next_deadline(), Instant::from_millis(1700));
    assert!(peer.request.is_young());
}

#[test]
fn payload_of_a_repeated_syn_is_ignored() {
    script(
        &[(segment(SYN, 0, 0, 500), "SA"), (good(), "open")],
        &[(Counter::RetransSegs, 1), (Counter::TCPSynRetrans, 1)],
    );
}

#[test]
fn a_new_syn_in_the_window_ends_the_request() {
    script(
        &[(segment(SYN, 500, 0, 0), "gone RA 501")],
        &[(Counter::AttemptFails, 1), (Counter::EmbryonicRsts, 1)],
    );
}

#[test]
fn a_new_syn_with_a_good_ack_ends_the_request_too() {
    script(
        &[(segment(SYN.with(ACK), 500, 1, 0), "gone R 1")],
        &[(Counter::AttemptFails, 1), (Counter::EmbryonicRsts, 1)],
    );
}

#[test]
fn a_syn_before_the_window_gets_an_ack() {
    let old = 0_u32.wrapping_sub(500);
    script(&[(segment(SYN, old, 0, 0), "A 1"), (good(), "open")], &[]);
}

#[test]
fn an_exact_rst_ends_the_request_silently() {
    script(
        &[(segment(RST, 1, 0, 0), "gone")],
        &[(Counter::AttemptFails, 1), (Counter::EmbryonicRsts, 1)],
    );
}

#[test]
fn a_rst_elsewhere_in_the_window_is_challenged() {
    script(&[(segment(RST, 100, 0, 0), "A 1"), (good(), "open")], &[(Counter::TCPChallengeACK, 1)]);
}

#[test]
fn a_second_challenge_within_500_ms_is_left_out() {
    script(
        &[
            (segment(RST, 100, 0, 0), "A 1"),
            (segment(RST, 101, 0, 0), "–"),
            (segment(RST, 101, 0, 1000), "–"),
        ],
        &[(Counter::TCPChallengeACK, 1), (Counter::TCPACKSkippedSynRecv, 2)],
    );
}

#[test]
fn a_rst_outside_of_the_window_is_ignored() {
    let before = segment(RST, 0_u32.wrapping_sub(100), 0, 0);
    let beyond = segment(RST, 200_000, 0, 0);
    script(&[(before, "–"), (beyond, "–"), (good(), "open")], &[]);
}

#[test]
fn an_ack_of_something_else_is_reset_and_the_request_kept() {
    script(
        &[
            (segment(ACK, 1, 2, 0), "R 2"),
            (segment(ACK, 1, 0, 10), "R 0"),
            (segment(ACK.with(RST), 1, 2, 0), "–"),
            (segment(ACK.with(SYN), 0, 0, 0), "R 0"),
            (good(), "open"),
        ],
        &[],
    );
}

#[test]
fn an_ack_beyond_the_window_gets_an_ack_twice_a_second() {
    let far = segment(ACK, 200_000, 1, 0);
    script(&[(far, "A 1"), (far, "–"), (good(), "open")], &[(Counter::TCPACKSkippedSynRecv, 1)]);
}

#[test]
fn data_beyond_the_window_gets_an_ack_every_time() {
    script(&[(data(200_000, 10), "A 1"), (data(200_000, 10), "A 1"), (good(), "open")], &[]);
}

#[test]
fn a_plain_final_ack_opens() {
    script(&[(good(), "open")], &[]);
}

#[test]
fn payload_and_fin_of_the_final_ack_open() {
    script(&[(data(1, 5), "open")], &[]);
    script(&[(segment(ACK.with(FIN), 1, 1, 5), "open")], &[]);
}

#[test]
fn data_without_ack_is_ignored() {
    script(&[(segment(Flags::PSH, 1, 0, 5), "–"), (good(), "open")], &[]);
}

#[test]
fn a_fin_without_ack_is_ignored() {
    script(&[(segment(FIN, 1, 0, 0), "–"), (good(), "open")], &[]);
}

#[test]
fn data_ahead_of_its_turn_opens() {
    script(&[(data(11, 5), "open")], &[]);
}

#[test]
fn data_that_begins_inside_the_window_and_ends_beyond_opens() {
    script(&[(data(1 + 64_239, 100), "open")], &[]);
}

#[test]
fn an_empty_ack_at_the_right_edge_opens_but_not_one_beyond_or_with_data() {
    script(&[(segment(ACK, 1 + 64_240, 1, 0), "open")], &[]);
    script(&[(segment(ACK, 2 + 64_240, 1, 0), "A 1")], &[]);
    script(&[(data(1 + 64_240, 1), "A 1")], &[]);
}

#[test]
fn an_empty_ack_before_the_window_gets_an_ack() {
    script(&[(segment(ACK, 0, 1, 0), "A 1"), (good(), "open")], &[]);
}

#[test]
fn a_syn_ack_that_repeats_the_syn_gets_an_ack() {
    script(&[(segment(SYN.with(ACK), 0, 1, 0), "A 1"), (good(), "open")], &[]);
}

#[test]
fn the_syn_of_a_repeated_first_segment_with_data_and_good_ack_does_not_count() {
    script(&[(segment(SYN.with(ACK), 0, 1, 10), "open")], &[]);
}

#[test]
fn our_acks_carry_a_shifted_window() {
    let mut peer = Peer::new(STARTS[1]);
    let RequestVerdict::Send(out) = peer.hear(data(200_000, 1)) else { panic!() };
    assert_eq!(out.window, 64_240 >> 10);
}

#[test]
fn an_older_timestamp_is_rejected_and_answered() {
    let mut peer = Peer::with_timestamps(100);
    let stamped = |seg, val| Segment { ts: Some(Timestamps { val, ecr: 1_000_000 }), ..seg };
    assert_eq!(peer.hears(stamped(good(), 99)), "A 1");
    assert_eq!(peer.hears(stamped(segment(RST, 1, 0, 0), 99)), "–");
    assert_eq!(peer.hears(stamped(good(), 100)), "open");
    assert_eq!(peer.world.counted(), [(Counter::PAWSEstab, 2)]);
}

#[test]
fn a_repeated_syn_with_an_older_timestamp_gets_an_ack_only() {
    let mut peer = Peer::with_timestamps(100);
    let ts = Some(Timestamps { val: 99, ecr: 0 });
    assert_eq!(peer.hears(Segment { ts, ..segment(SYN, 0, 0, 0) }), "A 1");
    assert_eq!(peer.world.counted(), [(Counter::PAWSEstab, 1)]);
}

#[test]
fn an_echo_of_a_timestamp_that_we_never_sent_is_rejected() {
    let mut peer = Peer::with_timestamps(100);
    peer.world.at_ms(1000);
    assert!(matches!(peer.timer(1000), RequestTimer::Retransmit(_)));
    let good = |ecr| Segment { ts: Some(Timestamps { val: 100, ecr }), ..data(1, 1) };
    assert_eq!(peer.hears(good(999_999)), "A 1");
    assert_eq!(peer.hears(good(1_001_001)), "A 1");
    assert_eq!(peer.world.count(Counter::TSEcrRejected), 2);
    for sent in [1_000_000, 1_000_500, 1_001_000, 0] {
        assert_eq!(peer.hears(good(sent)), "open", "TSecr {sent}");
    }
}

#[test]
fn a_final_ack_without_the_timestamp_agreed_on_opens() {
    assert_eq!(Peer::with_timestamps(100).hears(good()), "open");
}

#[test]
fn timestamps_begin_at_an_offset_only_where_the_setting_says_so() {
    for (setting, offset) in [(0, None), (1, Some(1_000_000)), (2, Some(0)), (255, Some(0))] {
        let mut world = World::default();
        world.settings.tcp_timestamps = setting;
        let ts = Some(Timestamps { val: 100, ecr: 0 });
        let mut peer = Peer::with(world, STARTS[1], ts);
        let sent = peer.request.syn_ack(&peer.world.cx()).ts;
        let expected = offset.map(|offset| ts_val(peer.world.now, offset));
        assert_eq!(sent.map(|ts| ts.val), expected, "{setting}");
        let echo = sent.map(|ts| Timestamps { val: 100, ecr: ts.val });
        let RequestVerdict::Complete(opened) = peer.hear(Segment { ts: echo, ..good() }) else {
            panic!("{setting}")
        };
        assert_eq!(opened.ts.map(|ts| ts.offset), offset, "{setting}");
    }
}

#[test]
fn a_timestamp_not_agreed_on_is_ignored() {
    let mut peer = Peer::new(STARTS[0]);
    let odd = Segment { ts: Some(Timestamps { val: 5, ecr: 12_345 }), ..good() };
    let RequestVerdict::Complete(opened) = peer.hear(odd) else { panic!() };
    assert_eq!(opened.ts, None);
}

#[test]
fn only_a_segment_at_its_turn_updates_the_timestamp() {
    for (seq, recent) in [(1, 150), (2, 100)] {
        let mut peer = Peer::with_timestamps(100);
        let ts = Some(Timestamps { val: 150, ecr: 1_000_000 });
        let RequestVerdict::Complete(opened) = peer.hear(Segment { ts, ..data(seq, 5) }) else {
            panic!()
        };
        let now = peer.world.now;
        let expected = TsState { recent, offset: 1_000_000, recent_at: now };
        assert_eq!(opened.ts, Some(expected));
    }
}

#[test]
fn a_segment_that_does_not_open_leaves_the_timestamp() {
    let ts = Some(Timestamps { val: 150, ecr: 1_000_000 });
    for flags in [Flags(0), Flags::FIN, Flags::PSH] {
        let mut peer = Peer::with_timestamps(100);
        assert_eq!(peer.hears(Segment { ts, flags, ..data(1, 5) }), "–");
        let RequestVerdict::Complete(opened) = peer.hear(good()) else { panic!() };
        assert_eq!(opened.ts.map(|ts| ts.recent), Some(100), "{flags:?}");
    }
}

#[test]
fn the_connection_starts_from_what_was_agreed_on() {
    let mut peer = Peer::new(STARTS[1]);
    peer.world.at_ms(40);
    let RequestVerdict::Complete(opened) = peer.hear(good()) else { panic!() };
    let expected = Opened {
        family: Family::V4,
        iss: SeqNum::new(peer.iss),
        irs: SeqNum::new(peer.irs),
        rcv_wnd: 64_240,
        snd_wnd: 500,
        scale: Some(Scale { rcv: 10, snd: 7 }),
        mss: 1460,
        advmss: 1460,
        sack_ok: false,
        ecn_ok: false,
        ts: None,
        synack_rtt: Some(Duration::from_millis(40)),
    };
    assert_eq!(opened, expected);
    assert_eq!((opened.snd_nxt(), opened.rcv_nxt()), (expected.iss.plus(1), expected.irs.plus(1)));
}

#[test]
fn a_repeated_syn_ack_yields_no_round_trip_time() {
    for by_timer in [false, true] {
        let mut peer = Peer::new(STARTS[1]);
        if by_timer {
            assert!(matches!(peer.timer(1000), RequestTimer::Retransmit(_)));
        } else {
            assert_eq!(peer.hears(segment(SYN, 0, 0, 0)), "SA");
        }
        let RequestVerdict::Complete(opened) = peer.hear(good()) else { panic!() };
        assert_eq!(opened.synack_rtt, None);
    }
}

#[test]
fn an_echo_tells_which_of_several_syn_acks_came_to_its_end() {
    let mut peer = Peer::with_timestamps(100);
    assert!(matches!(peer.timer(1000), RequestTimer::Retransmit(_)));
    peer.world.at_ms(1025);
    for (ecr, rtt) in [(1_000_000, Some(1025)), (1_001_000, Some(25)), (0, None)] {
        let ack = Segment { ts: Some(Timestamps { val: 101, ecr }), ..good() };
        let RequestVerdict::Complete(opened) = peer.hear(ack) else { panic!() };
        assert_eq!(opened.synack_rtt, rtt.map(Duration::from_millis), "{ecr}");
    }
}

#[test]
fn syn_acks_leave_after_1_3_7_15_31_s_and_the_request_ends_after_63_s() {
    let mut peer = Peer::new(STARTS[1]);
    let first = peer.request.syn_ack(&peer.world.cx());
    for seconds in [1, 3, 7, 15, 31] {
        assert_eq!(peer.timer(seconds * 1000 - 1), RequestTimer::Wait);
        assert_eq!(peer.timer(seconds * 1000), RequestTimer::Retransmit(first));
        assert!(!peer.request.is_young());
    }
    assert_eq!(peer.timer(62_999), RequestTimer::Wait);
    assert_eq!(peer.timer(63_000), RequestTimer::Expired);
    let counted =
        [(Counter::RetransSegs, 5), (Counter::TCPTimeouts, 6), (Counter::TCPSynRetrans, 5)];
    assert_eq!(peer.world.counted(), counted);
}

#[test]
fn the_timeout_stops_doubling_at_120_s() {
    let world = World {
        settings: super::super::Settings {
            tcp_synack_retries: u8::MAX,
            ..super::super::Settings::default()
        },
        ..World::default()
    };
    let mut peer = Peer::with(world, STARTS[0], None);
    let mut gaps = Vec::new();
    let mut last = 0;
    loop {
        let at = peer.request.next_deadline().as_millis();
        gaps.push((at - last) / 1000);
        last = at;
        if peer.timer(at) == RequestTimer::Expired {
            break;
        }
    }
    assert_eq!(gaps[..9], [1, 2, 4, 8, 16, 32, 64, 120, 120]);
    assert_eq!(gaps.len(), 256);
    assert!(gaps[8..].iter().all(|&gap| gap == 120));
}

#[test]
fn tcp_rto_max_ms_does_not_hold_for_syn_acks() {
    let mut peer = Peer::new(STARTS[1]);
    peer.world.settings.tcp_rto_max_ms = Duration::from_secs(3);
    for seconds in [1, 3, 7, 15] {
        assert_eq!(peer.timer(seconds * 1000 - 1), RequestTimer::Wait);
        assert!(matches!(peer.timer(seconds * 1000), RequestTimer::Retransmit(_)), "{seconds} s");
    }
}

#[test]
fn pressure_ends_an_old_request_sooner() {
    let mut peer = Peer::new(STARTS[1]);
    let crowded = QueueState { syn_queue: 100, young: 10, backlog: 128, ..QueueState::default() };
    for (seconds, expires) in [(1, false), (3, false), (7, true)] {
        peer.world.at_ms(seconds * 1000);
        let timer = peer.request.on_timer(&mut peer.world.cx(), &crowded);
        assert_eq!(timer == RequestTimer::Expired, expires, "at {seconds} s");
    }
}

#[test]
fn a_full_accept_queue_keeps_the_request_and_each_segment_tries_again() {
    let mut peer = Peer::new(STARTS[1]);
    for seg in [good(), data(1, 100), data(1, 100)] {
        assert!(matches!(peer.hear(seg), RequestVerdict::Complete(_)));
        let seg = peer.absolute(seg);
        let verdict = peer.request.on_overflow(&mut peer.world.cx(), &seg);
        assert_eq!(verdict, RequestVerdict::Ignore);
        assert!(peer.request.is_acked());
    }
    assert!(matches!(peer.timer(1000), RequestTimer::Retransmit(_)), "SYN-ACKs go on");
    assert_eq!(peer.hears(data(1, 100)), "open");
    assert_eq!(peer.world.count(Counter::ListenOverflows), 3);
    assert_eq!(peer.world.count(Counter::ListenDrops), 3);
    assert_eq!(peer.world.count(Counter::EmbryonicRsts), 0);
}

#[test]
fn tcp_abort_on_overflow_resets() {
    let mut peer = Peer::new(STARTS[1]);
    peer.world.settings.tcp_abort_on_overflow = true;
    let seg = peer.absolute(good());
    assert!(matches!(peer.hear(good()), RequestVerdict::Complete(_)));
    let verdict = peer.request.on_overflow(&mut peer.world.cx(), &seg);
    let rst = Outgoing { seq: seg.ack, flags: RST, ..Outgoing::default() };
    assert_eq!(verdict, RequestVerdict::Remove(Some(rst)));
    let counted =
        [(Counter::ListenOverflows, 1), (Counter::ListenDrops, 1), (Counter::EmbryonicRsts, 1)];
    assert_eq!(peer.world.counted(), counted);
}

proptest! {
    /// Whatever comes, only a segment with the right ACK in the window opens, only SYN and RST
    /// end a request, and a RST is never answered with one.
    #[test]
    fn any_segment_is_taken_by_the_rules(
        bits in any::<u8>(),
        near in -70_000_i32..70_000,
        ack in 0_u32..3,
        len in 0_u32..2000,
        stamp in proptest::option::of((90_u32..110, 999_999_u32..1_000_002)),
        timestamps in any::<bool>(),
    ) {
        let mut peer =
            if timestamps { Peer::with_timestamps(100) } else { Peer::new(STARTS[2]) };
        let ts = stamp.map(|(val, ecr)| Timestamps { val, ecr });
        let seg = Segment { ts, ..segment(Flags(bits), near as u32, ack, len) };
        match peer.hear(seg) {
            RequestVerdict::Complete(_) => {
                prop_assert!(seg.flags.has(ACK) && ack == 1 && !seg.flags.has(RST));
                prop_assert!(near + len as i32 + 2 > 1 && near <= 65_536);
            }
            RequestVerdict::Remove(answer) => {
                prop_assert!(seg.flags.any(SYN.with(RST)));
                prop_assert_eq!(answer.is_some(), !seg.flags.has(RST));
            }
            RequestVerdict::Send(out) => {
                prop_assert!(!(seg.flags.has(RST) && out.flags.has(RST)));
            }
            RequestVerdict::Foreign => prop_assert!(seg.flags.has(ACK) && ack != 1),
            RequestVerdict::Ignore => {}
        }
    }
}

#[test]
fn an_icmp_error_ends_a_request_only_if_it_quotes_the_syn_ack() {
    let lost = |ends_requests| Report::Lost { error: PathError::HostUnreachable, ends_requests };
    for starts in STARTS {
        let mut peer = Peer::new(starts);
        let mut tell = |seq: u32, report| {
            let seq = seq.wrapping_add(peer.iss);
            peer.request.on_icmp(&mut peer.world.cx(), seq, report)
        };
        assert!(!tell(1, lost(true)) && !tell(u32::MAX, lost(true)));
        assert!(!tell(0, lost(false)) && !tell(0, Report::TooBig { mtu: 600 }));
        assert!(tell(0, lost(true)));
        let counted = [(Counter::ListenDrops, 1), (Counter::OutOfWindowIcmps, 2)];
        assert_eq!(peer.world.counted(), counted);
    }
}
