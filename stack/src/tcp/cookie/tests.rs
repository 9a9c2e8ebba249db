use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::super::testing::{FREE, World};
use super::super::{Settings, SynCookies};
use super::*;
use crate::tcp::negotiate::Scale;
use crate::wire::Flags;

const TUPLE: FourTuple = FourTuple {
    local_addr: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
    remote_addr: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
    local_port: 7000,
    remote_port: 40_000,
};

const MSS: [u16; 4] = table(Family::V4);

const ALL: SynOptions = SynOptions { mss: Some(1460), window_scale: Some(7), sack_permitted: true };

#[test]
fn the_values_of_ipv6_are_its_own() {
    let six = FourTuple {
        local_addr: [0xfd00, 0, 0, 0, 0, 0, 0, 2].into(),
        remote_addr: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
        ..TUPLE
    };
    for (offered, taken) in
        [(None, 1220), (Some(500), 1220), (Some(1439), 1420), (Some(9000), 8940)]
    {
        let mut table = Table::new();
        let options = SynOptions { mss: offered, ..ALL };
        let secret = table.secret;
        let sent = syn_ack(&mut table.world.cx(), &secret, &six, &syn(100, None), &options, FREE);
        assert_eq!(sent.mss, Some(1440));
        let opened = open(&mut table.world.cx(), &secret, &six, &ack_of(&sent), FREE).unwrap();
        assert_eq!((opened.mss, opened.family), (taken, Family::V6));
        assert_eq!(open(&mut table.world.cx(), &secret, &TUPLE, &ack_of(&sent), FREE), None);
    }
}

/// A listener in the middle of a minute, and a client that plays by the rules unless told otherwise.
struct Table {
    world: World,
    secret: Secret,
}

impl Table {
    fn new() -> Self {
        let settings = Settings { tcp_syncookies: SynCookies::Always, ..Settings::default() };
        let world = World { now: at(1000 * 60 + 30), settings, ..World::default() };
        Self { world, secret: Secret::from_seed(1) }
    }

    fn syn_ack(&mut self, syn: &Segment, options: &SynOptions) -> Outgoing {
        syn_ack(&mut self.world.cx(), &self.secret, &TUPLE, syn, options, FREE)
    }

    fn open(&mut self, ack: &Segment) -> Option<Opened> {
        open(&mut self.world.cx(), &self.secret, &TUPLE, ack, FREE)
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

fn syn(seq: u32, ts: Option<u32>) -> Segment {
    let ts = ts.map(|val| Timestamps { val, ecr: 0 });
    Segment { seq, ack: 0, len: 0, window: 500, urgent: 0, flags: Flags::SYN, ecn: 0, ts }
}

/// The ACK of a client that got this SYN-ACK.
fn ack_of(syn_ack: &Outgoing) -> Segment {
    Segment {
        seq: syn_ack.ack,
        ack: syn_ack.seq.wrapping_add(1),
        window: 700,
        flags: Flags::ACK,
        ts: syn_ack.ts.map(|ts| Timestamps { val: ts.ecr.wrapping_add(1), ecr: ts.val }),
        ..syn(0, None)
    }
}

#[test]
fn a_syn_ack_with_a_cookie_offers_what_timestamps_can_remember() {
    let mut table = Table::new();
    let with = table.syn_ack(&syn(100, Some(77)), &ALL);
    assert_eq!((with.flags, with.ack), (Flags::SYN.with(Flags::ACK), 101));
    assert_eq!((with.mss, with.window), (Some(1460), 65_160));
    assert_eq!((with.window_scale, with.sack_permitted), (Some(10), true));
    assert_eq!(with.ts.map(|ts| ts.ecr), Some(77));

    let without = table.syn_ack(&syn(100, None), &ALL);
    assert_eq!((without.mss, without.window), (Some(1460), 64_240));
    assert_eq!((without.window_scale, without.sack_permitted, without.ts), (None, false, None));
    assert_eq!(table.world.counted(), [(Counter::SyncookiesSent, 2)]);
}

#[test]
fn a_cookie_that_comes_back_opens_what_the_syn_ack_said() {
    let mut table = Table::new();
    let sent = table.syn_ack(&syn(100, Some(77)), &ALL);
    let stamp = sent.ts.expect("timestamps").val;
    table.world.now = table.world.now + Duration::from_millis(20);
    let opened = table.open(&ack_of(&sent)).expect("a good cookie");
    let offset = table.secret.numbers(&TUPLE, table.world.now).ts_offset;
    let expected = Opened {
        family: Family::V4,
        iss: SeqNum::new(sent.seq),
        irs: SeqNum::new(100),
        rcv_wnd: 64_240,
        snd_wnd: 700,
        scale: Some(Scale { rcv: 10, snd: 7 }),
        mss: 1460,
        advmss: 1448,
        sack_ok: true,
        ecn_ok: false,
        ts: Some(TsState { recent: 78, offset, recent_at: table.world.now }),
        // As the timestamp has it, which is up to 127 ms older than the SYN-ACK.
        synack_rtt: Some(Duration::from_millis(u64::from(
            ts_val(table.world.now, offset).wrapping_sub(stamp),
        ))),
    };
    assert_eq!(opened, expected);

    let sent = table.syn_ack(&syn(100, None), &ALL);
    let opened = table.open(&ack_of(&sent)).expect("a good cookie");
    assert_eq!((opened.rcv_wnd, opened.advmss, opened.mss), (sent.window.into(), 1460, 1460));
    assert_eq!((opened.scale, opened.sack_ok, opened.ts), (None, false, None));
    assert_eq!(table.world.counted(), [(Counter::SyncookiesSent, 2), (Counter::SyncookiesRecv, 2)]);
}

#[test]
fn the_mss_is_rounded_down_to_one_of_four() {
    for (offered, remembered) in [
        (None, 536),
        (Some(1), 536),
        (Some(535), 536),
        (Some(536), 536),
        (Some(1299), 536),
        (Some(1300), 1300),
        (Some(1439), 1300),
        (Some(1440), 1440),
        (Some(1459), 1440),
        (Some(1460), 1460),
        (Some(8960), 1460),
        (Some(u16::MAX), 1460),
    ] {
        let mut table = Table::new();
        let sent = table.syn_ack(&syn(1, None), &SynOptions { mss: offered, ..ALL });
        let opened = table.open(&ack_of(&sent)).expect("a good cookie");
        assert_eq!(opened.mss, remembered, "{offered:?}");
    }
}

#[test]
fn a_cookie_is_good_in_its_minute_and_in_the_next() {
    // Made at half past: 30 s are left of its minute.
    for (later, good) in
        [(0, true), (29, true), (30, true), (89, true), (90, false), (150, false), (3600, false)]
    {
        let mut table = Table::new();
        let sent = table.syn_ack(&syn(100, Some(77)), &ALL);
        table.world.now = at(1000 * 60 + 30 + later);
        assert_eq!(table.open(&ack_of(&sent)).is_some(), good, "{later} s later");
        let counter = if good { Counter::SyncookiesRecv } else { Counter::SyncookiesFailed };
        assert_eq!(table.world.counted(), [(Counter::SyncookiesSent, 1), (counter, 1)]);
    }
}

#[test]
fn a_cookie_is_good_for_its_four_tuple_its_numbers_and_its_secret_alone() {
    let mut table = Table::new();
    let sent = table.syn_ack(&syn(100, None), &ALL);
    let good = ack_of(&sent);
    let other = IpAddr::from([10, 99, 0, 3]);
    for tuple in [
        FourTuple { local_addr: other, ..TUPLE },
        FourTuple { remote_addr: other, ..TUPLE },
        FourTuple { local_port: 7001, ..TUPLE },
        FourTuple { remote_port: 40_001, ..TUPLE },
    ] {
        assert_eq!(open(&mut table.world.cx(), &table.secret, &tuple, &good, FREE), None);
    }
    for lost in [1, 2, 3, 1460] {
        assert_eq!(table.open(&Segment { seq: good.seq + lost, ..good }), None, "{lost} bytes");
    }
    assert_eq!(table.open(&Segment { ack: good.ack + 4, ..good }), None);
    let secret = Secret::from_seed(2);
    assert_eq!(open(&mut table.world.cx(), &secret, &TUPLE, &good, FREE), None);
    assert_eq!(table.world.count(Counter::SyncookiesFailed), 10);
    assert!(table.open(&good).is_some(), "none of which has spoilt it");
}

#[test]
fn an_ack_without_the_timestamp_opens_without_options() {
    let mut table = Table::new();
    let sent = table.syn_ack(&syn(100, Some(77)), &ALL);
    let opened = table.open(&Segment { ts: None, ..ack_of(&sent) }).expect("a good cookie");
    assert_eq!((opened.scale, opened.sack_ok, opened.ts), (None, false, None));
}

#[test]
fn timestamps_without_an_offset_carry_the_options_too() {
    let mut table = Table::new();
    table.world.settings.tcp_timestamps = 2;
    let sent = table.syn_ack(&syn(100, Some(77)), &ALL);
    let stamp = sent.ts.expect("timestamps are agreed to").val;
    assert!(ts_val(table.world.now, 0).wrapping_sub(stamp) < 64, "the clock but for its last bits");
    let opened = table.open(&ack_of(&sent)).expect("a good cookie");
    assert_eq!((opened.scale, opened.sack_ok), (Some(Scale { rcv: 10, snd: 7 }), true));
    assert_eq!(opened.ts.expect("timestamps are agreed to").offset, 0);
}

#[test]
fn an_echo_of_nought_says_no_sack_and_a_shift_of_nought() {
    let mut table = Table::new();
    let sent = table.syn_ack(&syn(100, Some(77)), &ALL);
    let ts = Some(Timestamps { val: 78, ecr: 0 });
    let opened = table.open(&Segment { ts, ..ack_of(&sent) }).expect("a good cookie");
    assert_eq!((opened.scale, opened.sack_ok), (Some(Scale { rcv: 10, snd: 0 }), false));
}

#[test]
fn options_that_are_switched_off_meanwhile_refuse_the_cookie_and_timestamps_are_ignored() {
    let all = Settings::default();
    for (settings, opens) in [
        (Settings { tcp_sack: false, ..all.clone() }, false),
        (Settings { tcp_window_scaling: false, ..all.clone() }, false),
        (Settings { tcp_timestamps: 0, ..all }, true),
    ] {
        let mut table = Table::new();
        let sent = table.syn_ack(&syn(100, Some(77)), &ALL);
        table.world.settings = settings;
        let opened = table.open(&ack_of(&sent));
        assert_eq!(opened.is_some(), opens);
        assert!(opened.is_none_or(|opened| opened.ts.is_none() && !opened.sack_ok));
    }
}

#[test]
fn options_that_the_syn_does_not_offer_are_not_remembered() {
    for (window_scale, sack_permitted) in
        [(None, false), (None, true), (Some(0), false), (Some(14), true)]
    {
        let mut table = Table::new();
        let options = SynOptions { window_scale, sack_permitted, ..ALL };
        let sent = table.syn_ack(&syn(100, Some(77)), &options);
        assert_eq!(
            (sent.window_scale.is_some(), sent.sack_permitted),
            (window_scale.is_some(), sack_permitted)
        );
        let opened = table.open(&ack_of(&sent)).expect("a good cookie");
        assert_eq!(opened.scale.map(|scale| scale.snd), window_scale);
        assert_eq!(opened.sack_ok, sack_permitted);
    }
}

#[test]
fn timestamps_remember_that_ecn_was_agreed_on() {
    let flags = Flags::SYN.with(Flags::ECE).with(Flags::CWR);
    for (ts, tcp_ecn, agreed, kept) in
        [(Some(77), 2, true, true), (Some(77), 0, true, false), (None, 2, false, false)]
    {
        let mut table = Table::new();
        let sent = table.syn_ack(&Segment { flags, ..syn(100, ts) }, &ALL);
        assert_eq!(sent.flags.has(Flags::ECE), agreed);
        assert!(!sent.flags.has(Flags::CWR));
        table.world.settings.tcp_ecn = tcp_ecn;
        assert_eq!(table.open(&ack_of(&sent)).map(|opened| opened.ecn_ok), Some(kept));
    }
}

proptest! {
    /// Whatever a SYN says, its cookie brings back, at any time while it is good.
    #[test]
    fn cookies_come_back_as_they_went(
        seed in any::<u64>(),
        addrs in any::<(u32, u32)>(),
        ports in any::<(u16, u16)>(),
        seq in any::<u32>(),
        mss in any::<u16>(),
        shift in proptest::option::of(any::<u8>()),
        sack in any::<bool>(),
        ts in proptest::option::of(any::<u32>()),
        sent_at in 0_u64..1 << 42,
        later in 0_u64..60_000,
    ) {
        let tuple = FourTuple {
            local_addr: Ipv4Addr::from_bits(addrs.0).into(),
            remote_addr: Ipv4Addr::from_bits(addrs.1).into(),
            local_port: ports.0,
            remote_port: ports.1,
        };
        let secret = Secret::from_seed(seed);
        let mut world = World { now: Instant::from_millis(sent_at), ..World::default() };
        let options = SynOptions { mss: Some(mss), window_scale: shift, sack_permitted: sack };
        let sent = syn_ack(&mut world.cx(), &secret, &tuple, &syn(seq, ts), &options, FREE);
        if let Some(ts) = sent.ts {
            // Later TSvals of the connection must not seem to be older than this one.
            let clock = ts_val(world.now, secret.numbers(&tuple, world.now).ts_offset);
            prop_assert!(clock.wrapping_sub(ts.val) < 1 << (TS_BITS + 1));
        }

        world.now = Instant::from_millis(sent_at + later);
        let opened = open(&mut world.cx(), &secret, &tuple, &ack_of(&sent), FREE);
        let opened = opened.expect("a good cookie");
        prop_assert_eq!((opened.iss.raw(), opened.irs.raw()), (sent.seq, seq));
        prop_assert_eq!(opened.rcv_wnd, 65_536 - 65_536 % u32::from(opened.mss));
        let least = MSS.into_iter().rev().find(|&least| least <= mss).unwrap_or(MSS[0]);
        prop_assert_eq!(opened.mss, least);
        let remembers = ts.is_some() && sent.ts.is_some_and(|ts| ts.val != 0);
        if remembers {
            prop_assert_eq!(opened.scale.map(|scale| scale.snd), shift.map(|shift| shift.min(14)));
            prop_assert_eq!(opened.sack_ok, sack);
        } else if ts.is_none() {
            prop_assert_eq!((opened.scale, opened.sack_ok), (None, false));
        }
    }

    /// Any other number than the one that was sent is refused, but for the four MSS that the cookie
    /// could have named.
    #[test]
    fn other_numbers_are_no_cookies(seq in any::<u32>(), off in 1_u32..=u32::MAX) {
        let mut table = Table::new();
        let sent = table.syn_ack(&syn(seq, None), &ALL);
        let ack = ack_of(&sent);
        let forged = Segment { ack: ack.ack.wrapping_add(off), ..ack };
        if let Some(opened) = table.open(&forged) {
            prop_assert!(off.wrapping_neg() < 4, "only smaller MSS lie next to the largest");
            prop_assert_eq!(opened.mss, MSS[3 - off.wrapping_neg() as usize]);
        }
    }
}

#[test]
fn guesses_open_as_rarely_as_they_should() {
    // Four MSS in two minutes of 256: one guess in 2^29 is good. None of these is.
    let mut table = Table::new();
    let mut guess = 1_u32;
    for _ in 0..100_000 {
        guess = guess.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let ack = Segment { flags: Flags::ACK, ack: guess, ..syn(5, None) };
        assert_eq!(table.open(&ack), None);
    }
    assert_eq!(table.world.count(Counter::SyncookiesFailed), 100_000);
}
