use super::super::testing::World;
use super::*;
use crate::wire::Timestamps;

const ACK: Flags = Flags::ACK;
const SYN: Flags = Flags::SYN;
const RST: Flags = Flags::RST;
const FIN: Flags = Flags::FIN;

/// snd_nxt and rcv_nxt are what scripts call 0.
const SND_NXT: u32 = u32::MAX - 30_000;
const RCV_NXT: u32 = u32::MAX - 10;
const WINDOW: u32 = 64_000;

struct Peer {
    world: World,
    entry: TimeWait,
}

impl Peer {
    fn new(phase: Phase, recent: Option<u32>) -> Self {
        let mut world = World::default();
        world.at_ms(1000);
        let ts = recent.map(|recent| TsState { recent, offset: 5000, recent_at: world.now });
        let tuple = FourTuple {
            local_addr: [10, 99, 0, 2].into(),
            remote_addr: [10, 99, 0, 1].into(),
            local_port: 7000,
            remote_port: 40_000,
        };
        let ending = Ending {
            snd_nxt: SeqNum::new(SND_NXT),
            rcv_nxt: SeqNum::new(RCV_NXT),
            rcv_wnd: WINDOW,
            rcv_wscale: 4,
            ts,
            tos: 0x20,
            ttl: NonZeroU8::new(7),
            phase,
        };
        let entry = TimeWait::new(&world.cx(), tuple, &ending);
        Self { world, entry }
    }

    fn time_wait() -> Self {
        Self::new(Phase::TimeWait, None)
    }

    fn fin_wait_2() -> Self {
        Self::new(Phase::FinWait2(Duration::from_secs(30)), None)
    }

    fn hear(&mut self, seg: Segment) -> TwVerdict {
        self.entry.on_segment(&mut self.world.cx(), &seg)
    }

    /// The verdict in short.
    fn hears(&mut self, seg: Segment) -> String {
        let verdict = self.hear(seg);
        match verdict {
            TwVerdict::Ignore => "–".into(),
            TwVerdict::Ack(out) => {
                assert_eq!((out.flags, out.seq), (ACK, SND_NXT));
                assert_eq!(out.window, (WINDOW >> 4) as u16);
                format!("A {}", out.ack.wrapping_sub(RCV_NXT))
            }
            TwVerdict::Remove(None) => "gone".into(),
            TwVerdict::Remove(Some(out)) => {
                assert!(out.flags.has(RST));
                "gone R".into()
            }
            TwVerdict::NewConnection { isn } => {
                format!("new {}", isn.wrapping_sub(SND_NXT))
            }
        }
    }

    /// Seconds from the first moment of the script to the deadline.
    fn deadline(&self) -> u64 {
        self.entry.deadline().since(Instant::from_millis(1000)).as_secs()
    }
}

/// A segment at `at` numbers from rcv_nxt.
fn seg(flags: Flags, at: i32, len: u32) -> Segment {
    let seq = RCV_NXT.wrapping_add(at as u32);
    Segment { seq, ack: SND_NXT, len, window: 500, urgent: 0, flags, ecn: 0, ts: None }
}

fn stamped(seg: Segment, val: u32) -> Segment {
    Segment { ts: Some(Timestamps { val, ecr: 0 }), ..seg }
}

#[test]
fn the_size_is_within_its_budget() {
    assert!(size_of::<TimeWait>() <= 96);
}

#[test]
fn time_wait_lasts_60_s_and_fin_wait_2_as_long_as_is_asked_for() {
    assert_eq!(Peer::time_wait().deadline(), 60);
    assert!(Peer::time_wait().entry.is_time_wait());
    assert_eq!(Peer::fin_wait_2().deadline(), 30);
    assert!(!Peer::fin_wait_2().entry.is_time_wait());
}

#[test]
fn an_empty_ack_at_rcv_nxt_restarts_the_minute_without_an_answer() {
    let mut peer = Peer::time_wait();
    peer.world.at_ms(11_000);
    assert_eq!(peer.hears(seg(ACK, 0, 0)), "–");
    assert_eq!(peer.deadline(), 70);
    assert_eq!(peer.world.counted(), []);
}

#[test]
fn an_exact_rst_removes_the_entry() {
    let mut peer = Peer::time_wait();
    assert_eq!(peer.hears(seg(RST, 0, 0)), "gone");
    assert_eq!(peer.world.counted(), []);
}

#[test]
fn tcp_rfc1337_ignores_an_exact_rst_and_does_not_restart_the_minute() {
    let mut peer = Peer::time_wait();
    peer.world.settings.tcp_rfc1337 = true;
    peer.world.at_ms(11_000);
    assert_eq!(peer.hears(seg(RST, 0, 0)), "–");
    assert_eq!(peer.deadline(), 60);
}

#[test]
fn any_other_rst_is_ignored() {
    let mut peer = Peer::new(Phase::TimeWait, Some(100));
    for rst in [
        seg(RST, -1, 0),
        seg(RST, 1, 0),
        seg(RST.with(ACK), 100, 0),
        seg(RST.with(SYN), 100, 0),
        stamped(seg(RST, 0, 0), 99),
    ] {
        assert_eq!(peer.hears(rst), "–");
    }
    assert_eq!(peer.deadline(), 60);
    assert_eq!(peer.world.counted(), [(Counter::PAWSTimewait, 1)]);
}

#[test]
fn the_timestamp_of_a_rst_says_nothing_after_a_minute_without_another() {
    for (ms, reaction) in [(69_999, "–"), (70_000, "gone")] {
        let mut peer = Peer::new(Phase::TimeWait, Some(100));
        peer.world.at_ms(10_000);
        assert_eq!(peer.hears(stamped(seg(ACK, 0, 0), 101)), "–");
        // What PAWS rejects restarts the minute, and teaches nothing.
        peer.world.at_ms(30_000);
        assert_eq!(peer.hears(stamped(seg(ACK, 0, 0), 99)), "A 0");
        peer.world.at_ms(ms);
        assert_eq!(peer.hears(stamped(seg(RST, 0, 0), 99)), reaction, "at {ms} ms");
    }
}

#[test]
fn entries_that_last_four_seconds_or_less_are_counted_apart() {
    for (phase, counter) in [
        (Phase::TimeWait, Counter::TW),
        (Phase::FinWait2(Duration::from_millis(4001)), Counter::TW),
        (Phase::FinWait2(Duration::from_secs(4)), Counter::TWKilled),
    ] {
        let mut peer = Peer::new(phase, None);
        assert_eq!(peer.entry.counter(&peer.world.cx()), counter);
    }
}

#[test]
fn a_repeated_fin_gets_an_ack_and_another_minute() {
    let mut peer = Peer::time_wait();
    for at_ms in [11_000, 11_010] {
        peer.world.at_ms(at_ms);
        assert_eq!(peer.hears(seg(FIN.with(ACK), -1, 0)), "A 0", "not limited");
    }
    assert_eq!(peer.deadline(), 70);
}

#[test]
fn data_gets_an_ack_never_a_rst() {
    let mut peer = Peer::time_wait();
    for data in [seg(ACK, 0, 100), seg(ACK, -50, 100), seg(ACK, 100, 1), seg(ACK, 1 << 20, 5)] {
        assert_eq!(peer.hears(data), "A 0");
    }
}

#[test]
fn empty_acks_elsewhere_are_answered_twice_a_second() {
    let mut peer = Peer::time_wait();
    assert_eq!(peer.hears(seg(ACK, -1, 0)), "A 0");
    assert_eq!(peer.hears(seg(ACK, 1, 0)), "–");
    peer.world.at_ms(1500);
    assert_eq!(peer.hears(seg(ACK, 1, 0)), "A 0");
    assert_eq!(peer.world.counted(), [(Counter::TCPACKSkippedTimeWait, 1)]);
}

#[test]
fn a_newer_syn_opens_a_new_connection_beyond_the_old_one() {
    for ahead in [1, 2, 100_000, 0x7fff_fffe] {
        assert_eq!(Peer::time_wait().hears(seg(SYN, ahead, 0)), "new 65537");
    }
}

#[test]
fn an_older_syn_gets_an_ack_and_no_further_time() {
    let mut peer = Peer::time_wait();
    peer.world.at_ms(11_000);
    assert_eq!(peer.hears(seg(SYN, 0, 0)), "A 0");
    assert_eq!(peer.hears(seg(SYN, -5, 0)), "–", "limited");
    assert_eq!(peer.deadline(), 60);
}

#[test]
fn a_syn_with_ack_or_fin_opens_nothing() {
    let mut peer = Peer::time_wait();
    assert_eq!(peer.hears(seg(SYN.with(ACK), 5, 0)), "A 0");
    peer.world.at_ms(2000);
    assert_eq!(peer.hears(seg(SYN.with(FIN), 5, 0)), "A 0");
}

#[test]
fn a_newer_timestamp_lets_a_lower_syn_through() {
    let peer = || Peer::new(Phase::TimeWait, Some(100));
    assert_eq!(peer().hears(stamped(seg(SYN, -1000, 0), 101)), "new 65537");
    assert_eq!(peer().hears(stamped(seg(SYN, -1000, 0), 100)), "A 0");
}

#[test]
fn an_older_timestamp_keeps_a_higher_syn_out_and_restarts_the_minute() {
    let mut peer = Peer::new(Phase::TimeWait, Some(100));
    peer.world.at_ms(11_000);
    assert_eq!(peer.hears(stamped(seg(SYN, 1000, 0), 99)), "A 0");
    assert_eq!(peer.deadline(), 70);
    assert_eq!(peer.world.counted(), [(Counter::PAWSTimewait, 1)]);
}

#[test]
fn an_empty_ack_with_an_older_timestamp_is_answered() {
    let mut peer = Peer::new(Phase::TimeWait, Some(100));
    assert_eq!(peer.hears(stamped(seg(ACK, 0, 0), 99)), "A 0");
    assert_eq!(peer.world.counted(), [(Counter::PAWSTimewait, 1)]);
}

#[test]
fn our_acks_echo_the_newest_timestamp_taken() {
    let mut peer = Peer::new(Phase::TimeWait, Some(100));
    assert_eq!(peer.hears(stamped(seg(ACK, 0, 0), 105)), "–");
    let TwVerdict::Ack(out) = peer.hear(stamped(seg(ACK, 0, 5), 200)) else { panic!() };
    assert_eq!(out.ts, Some(Timestamps { val: 6000, ecr: 105 }));
}

#[test]
fn a_timestamp_not_agreed_on_says_nothing() {
    let mut peer = Peer::time_wait();
    assert_eq!(peer.hears(stamped(seg(SYN, -1000, 0), 101)), "A 0");
}

#[test]
fn without_a_listener_a_new_syn_gets_an_ack_twice_a_second() {
    let mut peer = Peer::time_wait();
    let syn = seg(SYN, 5, 0);
    let refused = peer.entry.on_no_listener(&mut peer.world.cx(), &syn);
    assert!(matches!(refused, TwVerdict::Ack(_)));
    let refused = peer.entry.on_no_listener(&mut peer.world.cx(), &syn);
    assert_eq!(refused, TwVerdict::Ignore);
}

#[test]
fn in_fin_wait_2_the_fin_begins_time_wait() {
    let mut peer = Peer::fin_wait_2();
    peer.world.at_ms(11_000);
    assert_eq!(peer.hears(seg(FIN.with(ACK), 0, 0)), "A 1");
    assert!(peer.entry.is_time_wait());
    assert_eq!(peer.deadline(), 70);
}

#[test]
fn in_fin_wait_2_new_data_is_reset_even_with_a_fin() {
    for data in [
        seg(ACK, 0, 1),
        seg(ACK.with(FIN), 0, 1),
        seg(ACK, 100, 5),
        seg(ACK, -5, 6),
        seg(ACK.with(FIN), 1, 0),
    ] {
        let mut peer = Peer::fin_wait_2();
        assert_eq!(peer.hears(data), "gone R");
        assert_eq!(peer.world.counted(), []);
    }
}

#[test]
fn in_fin_wait_2_empty_and_ackless_segments_are_ignored() {
    let mut peer = Peer::fin_wait_2();
    for seg in [seg(ACK, 0, 0), seg(ACK, 100, 0), seg(FIN, 0, 0), seg(Flags::PSH, 0, 10)] {
        assert_eq!(peer.hears(seg), "–");
    }
    assert_eq!(peer.deadline(), 30);
}

#[test]
fn in_fin_wait_2_segments_outside_of_the_window_get_an_ack() {
    let mut peer = Peer::fin_wait_2();
    let beyond = WINDOW as i32;
    assert_eq!(peer.hears(seg(ACK, beyond, 10)), "A 0");
    assert_eq!(peer.hears(seg(ACK, -10, 10)), "A 0", "old data is not limited");
    assert_eq!(peer.hears(seg(ACK, beyond + 1, 0)), "A 0");
    assert_eq!(peer.hears(seg(ACK, -1, 0)), "–", "empty ones are");
    assert_eq!(peer.world.counted(), [(Counter::TCPACKSkippedFinWait2, 1)]);
}

#[test]
fn in_fin_wait_2_a_rst_in_the_window_removes_the_entry() {
    for at in [0, 100, WINDOW as i32] {
        assert_eq!(Peer::fin_wait_2().hears(seg(RST, at, 0)), "gone");
    }
    for at in [-1, WINDOW as i32 + 1] {
        assert_eq!(Peer::fin_wait_2().hears(seg(RST, at, 0)), "–");
    }
}

#[test]
fn in_fin_wait_2_a_syn_in_the_window_is_reset() {
    assert_eq!(Peer::fin_wait_2().hears(seg(SYN, 0, 0)), "gone R");
    assert_eq!(Peer::fin_wait_2().hears(seg(SYN, 100, 0)), "gone R");
    assert_eq!(Peer::fin_wait_2().hears(seg(SYN, -100, 0)), "A 0");
}

#[test]
fn in_fin_wait_2_an_older_timestamp_gets_an_ack() {
    let mut peer = Peer::new(Phase::FinWait2(Duration::from_secs(30)), Some(100));
    assert_eq!(peer.hears(stamped(seg(FIN.with(ACK), 0, 0), 99)), "A 0");
    assert!(!peer.entry.is_time_wait());
    assert_eq!(peer.hears(stamped(seg(FIN.with(ACK), 0, 0), 150)), "A 1");
    let out = peer.entry.ack(peer.world.now);
    assert_eq!(out.ts, Some(Timestamps { val: 6000, ecr: 150 }));
}
