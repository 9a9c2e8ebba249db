//! Random connections against the oracle of `fuzz/src/oracle`.

use proptest::collection::vec;
use proptest::prelude::*;

#[path = "../fuzz/src/oracle/mod.rs"]
mod oracle;

use oracle::{AckField, Arrival, Op, Place, Setup};

fn near(edge: u32) -> impl Strategy<Value = u32> {
    (0..20_000_u32).prop_map(move |n| edge.wrapping_sub(n))
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![near(0), near(1 << 31), any::<u32>()]
}

fn setup() -> impl Strategy<Value = Setup> {
    let ts = prop::option::of(prop_oneof![Just(0), Just(500), Just(u32::MAX), any::<u32>()]);
    let shift = prop::option::of(0..=14_u8);
    let rcvbuf = prop_oneof![Just(5000_u32), Just(20_000), Just(131_072), Just(1_000_000)];
    let room = prop_oneof![Just(0_usize), 1..6_usize, Just(1000_usize)];
    let flags = (any::<bool>(), prop::bool::weighted(0.8), prop::bool::weighted(0.3));
    (number(), number(), flags, ts, shift, rcvbuf, room).prop_map(
        |(irs, iss, (sack, dsack, ratelimit), ts, shift, rcvbuf, room)| Setup {
            irs,
            iss,
            sack,
            dsack,
            ts,
            shift,
            rcvbuf,
            room,
            ratelimit,
        },
    )
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        20 => Just(Place::Next(0)),
        6 => (-3000..10_000).prop_map(Place::Next),
        6 => (-40..40).prop_map(Place::Next),
        2 => (-3000..5).prop_map(Place::Right),
        2 => (-3..5).prop_map(Place::Right),
        2 => (-3..5).prop_map(Place::EndsAtRight),
        2 => (-50..3).prop_map(Place::Acked),
        10 => (any::<u8>(), any::<bool>(), -3..4).prop_map(|(i, end, off)| Place::Held(i, end, off)),
        5 => (any::<u8>(), any::<bool>(), -600..600)
            .prop_map(|(i, end, off)| Place::Held(i, end, off)),
        1 => any::<i32>().prop_map(Place::Next),
    ]
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let len = prop_oneof![
        4 => Just(0_u16),
        6 => 1..8_u16,
        6 => 1..300_u16,
        8 => Just(1460_u16),
        3 => 1..3000_u16,
        1 => Just(9000_u16),
    ];
    let flags = prop_oneof![
        60 => Just(0x10_u8),
        10 => Just(0x18),
        3 => Just(0x11),
        2 => Just(0x30),
        1 => Just(0x04),
        1 => Just(0x14),
        1 => Just(0x02),
        1 => any::<u8>(),
    ];
    let ack = prop_oneof![
        40 => Just(AckField::Data),
        4 => Just(AckField::All),
        2 => (-3..3).prop_map(AckField::Off),
        1 => (-65_540..-65_530).prop_map(AckField::Off),
        1 => any::<i32>().prop_map(AckField::Off),
    ];
    let window = prop_oneof![9 => Just(u16::MAX), 1 => Just(0), 1 => any::<u16>()];
    let ts = prop_oneof![
        1 => Just(None),
        20 => (0..50).prop_map(Some),
        2 => (-3..1).prop_map(Some),
        1 => any::<i32>().prop_map(Some),
    ];
    (place(), len, flags, ack, window, any::<u16>(), ts, 0..3_u8).prop_map(
        |(place, len, flags, ack, window, urgent, ts, version)| Arrival {
            place,
            len,
            flags,
            ack,
            window,
            urgent,
            ts,
            version,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let wait = prop_oneof![
        6 => 0..3_u32,
        6 => 0..300_u32,
        3 => 0..3000_u32,
        1 => Just(2_200_000_u32),
    ];
    prop_oneof![
        60 => vec(arrival(), 1..4).prop_map(Op::Burst),
        8 => vec(arrival(), 1..24).prop_map(Op::Burst),
        8 => Just(Op::Take),
        12 => (0..4000_u16).prop_map(Op::Read),
        4 => (0..4_u16).prop_map(Op::Read),
        4 => any::<u16>().prop_map(Op::Read),
        6 => any::<bool>().prop_map(Op::PutBack),
        8 => Just(Op::Return),
        6 => Just(Op::Progress),
        2 => (0..6_u8).prop_map(Op::Room),
        12 => wait.prop_map(Op::Wait),
    ]
}

/// Steps that mean something together, or a single one.
fn phrase() -> impl Strategy<Value = Vec<Op>> {
    let lone = |arrival| Op::Burst(vec![arrival]);
    let above = (arrival(), 1..9000_i32).prop_map(|(arrival, gap)| Arrival {
        place: Place::Next(gap),
        flags: 0x10,
        ..arrival
    });
    let end = prop_oneof![
        Just(Place::Held(0, true, 0)),
        Just(Place::Next(0)),
        (-1..2).prop_map(Place::EndsAtRight),
    ];
    let last = (arrival(), end, 0..300_u16).prop_map(|(arrival, place, len)| Arrival {
        place,
        flags: 0x11,
        len,
        ..arrival
    });
    prop_oneof![
        60 => op().prop_map(|op| vec![op]),
        2 => Just(drained()),
        // One that gives back later than it tells its progress.
        2 => Just([&drained()[..3], &[Op::Progress, Op::Return]].concat()),
        // A reader that looks at every byte.
        3 => (1..3_u16).prop_map(|n| vec![Op::Take, Op::Read(n), Op::Progress]),
        // Duplicate ACKs until they are held back.
        1 => vec(above.prop_map(lone), 8..30),
        1 => vec(last.prop_map(lone), 1..3),
    ]
}

/// The reader comes to the end of what there is.
fn drained() -> Vec<Op> {
    vec![Op::Take, Op::Read(u16::MAX), Op::Read(u16::MAX), Op::Return]
}

/// What ends a connection, to be put somewhere among the other steps.
fn ending() -> impl Strategy<Value = Vec<Op>> {
    let close = any::<bool>().prop_map(|linger| Op::Close { linger });
    prop_oneof![
        2 => Just(vec![Op::ShutdownRead]),
        4 => Just(vec![Op::ShutdownWrite]),
        2 => close.clone().prop_map(|close| vec![close]),
        2 => close.prop_map(|close| [drained(), vec![close]].concat()),
        1 => Just(vec![Op::Abort]),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let endings = vec((any::<prop::sample::Index>(), ending()), 0..3);
    (vec(phrase(), 1..80), endings).prop_map(|(mut phrases, endings)| {
        for (at, ending) in endings {
            phrases.insert(at.index(phrases.len() + 1), ending);
        }
        phrases.concat()
    })
}

proptest! {
    // PROPTEST_CASES says how many; 100,000 take a minute of an optimised build.
    #[test]
    fn a_connection_does_what_marks_on_an_array_do(setup in setup(), ops in ops()) {
        oracle::run(&setup, &ops);
    }
}
