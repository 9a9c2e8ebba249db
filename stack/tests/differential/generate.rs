//! Scenarios out of seeds: mostly a connection as any, in which now and then something is wrong.

use std::time::Duration;

use crate::packet::{ACK, CWR, ECE, FIN, PSH, RESERVED, RST, SYN, URG};
use crate::scenario::{Config, How, Len, MOST, Place, Read, Scenario, Spec, Stamp, Step};
use crate::tuning;

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        least + self.below((most - least + 1) as u64) as i64
    }

    /// Once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// One of them, each as often as its weight says.
    fn weighed<T: Copy>(&mut self, all: &[(u64, T)]) -> T {
        let sum = all.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(sum);
        for &(weight, item) in all {
            if at < weight {
                return item;
            }
            at -= weight;
        }
        unreachable!("the weights are summed up")
    }
}

/// Once in so many scenarios buffers grow: they take long.
const TUNED: u64 = 30;

/// What a scenario is mostly about.
#[derive(Clone, Copy, Debug)]
enum Mood {
    /// Data in order and not.
    Data,
    /// The window's edges, and a reader that does not read.
    Window,
    /// Ends of all kinds.
    Closing,
    /// Anything.
    Hostile,
}

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut dice = Dice::new(seed);
    let mood = dice.of(&[Mood::Data, Mood::Window, Mood::Closing, Mood::Hostile]);
    let mut config = config(&mut dice, mood);
    let mut kind = Dice::new(!seed);
    config.ipv6 = kind.once_in(3);
    if kind.once_in(TUNED) {
        return tuning::scenario(dice, config);
    }
    // Linux 6.18 takes the ECN of a cookie for the accurate one, which is another protocol.
    config.ecn &= !config.cookies;
    let small = dice.once_in(3);
    let timestamps = config.timestamps;
    let ecn = config.ecn;
    let most = if config.ipv6 { MOST - 20 } else { MOST } as u16;
    let mut maker = Maker { dice, mood, timestamps, small, ecn, most, window: 1000 };
    let mut steps = Vec::new();
    if maker.dice.once_in(6) {
        for _ in 0..maker.dice.between(1, 3) {
            steps.push(maker.segment());
        }
    }
    steps.push(maker.final_ack());
    let waits = maker.dice.once_in(5);
    for _ in 0..maker.dice.weighed(&[(4, 8), (4, 20), (2, 60)]) {
        steps.push(maker.step(waits));
    }
    Scenario { config, steps }
}

fn config(dice: &mut Dice, mood: Mood) -> Config {
    let near_wrap = dice.once_in(3);
    let irs =
        if near_wrap { 0_u32.wrapping_sub(dice.below(20_000) as u32) } else { dice.next() as u32 };
    let rcvbuf = match mood {
        Mood::Window => dice.of(&[Some(4608), Some(8192), Some(20_000), Some(65_536), None]),
        _ => dice.of(&[Some(30_000), Some(262_144), None, None]),
    };
    Config {
        ipv6: false,
        moderate: false,
        irs,
        rmem: dice.of(&[[4096, 131_072, 33_554_432], [4096, 131_072, 6_291_456]]),
        rcvbuf,
        dsack: !dice.once_in(6),
        stdurg: dice.once_in(8),
        rfc1337: dice.once_in(4),
        ratelimit: Duration::from_millis(dice.of(&[0, 0, 500])),
        cookies: dice.once_in(20),
        ecn: dice.once_in(5),
        mss: dice.of(&[Some(1460), Some(1460), Some(536), Some(9000), Some(1), Some(0), None]),
        scale: dice.of(&[Some(7), Some(7), Some(0), Some(14), Some(15), None]),
        sack: !dice.once_in(4),
        timestamps: dice.once_in(2),
        clock: if dice.once_in(3) { 0_u32.wrapping_sub(20) } else { dice.next() as u32 | 1 },
        window: dice.of(&[65_535, 65_535, 1000, 0]),
    }
}

struct Maker {
    dice: Dice,
    mood: Mood,
    timestamps: bool,
    /// Sends small segments, too.
    small: bool,
    /// Is ECN-capable, and meets with congestion.
    ecn: bool,
    /// The largest payload.
    most: u16,
    /// The peer's window, which seldom changes.
    window: u16,
}

impl Maker {
    fn step(&mut self, waits: bool) -> Step {
        if waits && self.dice.once_in(8) {
            return Step::Wait(self.dice.of(&[5, 70, 70, 280, 620]));
        }
        let app = match self.mood {
            Mood::Data => 6,
            Mood::Window => 5,
            Mood::Closing => 4,
            Mood::Hostile => 8,
        };
        if self.dice.once_in(app) { self.call() } else { self.segment() }
    }

    fn call(&mut self) -> Step {
        let ends: u64 = if matches!(self.mood, Mood::Closing) { 6 } else { 1 };
        match self.dice.weighed(&[(24, 0), (ends, 1), (ends, 2), (1, 3), (1, 4), (1, 5)]) {
            0 => Step::Recv(Read {
                len: self.dice.weighed(&[
                    (1, 0),
                    (2, 1),
                    (3, 100),
                    (3, 1000),
                    (2, 4000),
                    (4, 200_000),
                ]),
                peek: self.dice.once_in(6),
                oob: self.dice.once_in(12),
                waitall: self.dice.once_in(12),
                trunc: self.dice.once_in(16),
            }),
            1 => Step::Shutdown(self.dice.of(&[How::Read, How::Write, How::Write, How::Both])),
            2 => Step::Close { reset: self.dice.once_in(4) },
            3 => Step::TakeError,
            4 => Step::QuickAck(self.dice.once_in(2)),
            _ => Step::Inline(self.dice.once_in(2)),
        }
    }

    /// What completes the handshake.
    fn final_ack(&mut self) -> Step {
        let mut spec = self.plain();
        if self.dice.once_in(6) {
            spec.len = self.len();
        }
        Step::Segment(spec)
    }

    /// The next segment of a peer that has nothing to say.
    fn plain(&mut self) -> Spec {
        if self.dice.once_in(12) {
            self.window = self.dice.weighed(&[(1, 0), (2, 1), (4, 500), (4, 1000), (4, 65_535)]);
        }
        let (mut tos, mut flags) = (0, ACK);
        if self.ecn {
            tos = self.dice.weighed(&[(8, 2), (1, 3), (1, 0), (1, 1)]);
            flags |= self.dice.weighed(&[(8, 0), (1, CWR), (1, ECE)]);
        }
        let ts = self.timestamps.then(|| Stamp { val: self.dice.of(&[0, 0, 1, 3]), ecr: 0 });
        Spec {
            at: (Place::Next, 0),
            len: Len::Bytes(0),
            flags,
            ack: 0,
            window: self.window,
            ts,
            urgent: 0,
            tos,
            junk: Vec::new(),
            variant: 0,
            corrupt: false,
        }
    }

    fn len(&mut self) -> Len {
        if !self.small {
            let stamped = self.most - 12;
            return Len::Bytes(self.dice.of(&[1000, 1200, stamped, stamped, self.most]));
        }
        let small = self.dice.between(1, 40) as u16;
        Len::Bytes(self.dice.weighed(&[
            (2, 1),
            (3, small),
            (3, 100),
            (2, 256),
            (2, 257),
            (3, 536),
            (4, 1000),
            (4, self.most - 12),
            (4, self.most),
        ]))
    }

    fn segment(&mut self) -> Step {
        let mut spec = self.plain();
        spec.at = self.place();
        let at_edge = matches!(spec.at, (Place::Edge, 0));
        spec.len = match self.dice.below(8) {
            0 => Len::Bytes(0),
            1 if self.small => Len::Until(self.anchor(), self.dice.between(-1, 1) as i32),
            _ => self.len(),
        };
        if let (true, Len::Bytes(len)) = (at_edge, spec.len) {
            // Its end is what is near the edge.
            let over = self.dice.weighed(&[(4, 0), (4, -1), (1, 1), (1, 2)]);
            spec.at.1 = over - i32::from(len);
        }
        if self.dice.once_in(3) {
            spec.flags |= PSH;
        }
        spec.variant = u8::from(self.dice.once_in(4));
        match self.mood {
            Mood::Data => self.spoil(&mut spec, 12),
            Mood::Window => self.spoil(&mut spec, 12),
            Mood::Closing => {
                if self.dice.once_in(5) {
                    spec.flags |= FIN;
                }
                self.spoil(&mut spec, 8);
            }
            Mood::Hostile => self.spoil(&mut spec, 2),
        }
        Step::Segment(spec)
    }

    /// Where a segment is put.
    fn place(&mut self) -> (Place, i32) {
        let near = self.dice.between(-2, 2) as i32;
        let some = self.dice.between(1, 3000) as i32;
        let units = 1000 * self.dice.between(1, 12) as i32;
        let edge = if matches!(self.mood, Mood::Window) { 6 } else { 2 };
        match self.dice.weighed(&[
            (12, 0),
            (2, 1),
            (3, 2),
            (5, 3),
            (3, 4),
            (edge, 5),
            (3, 6),
            (1, 7),
            (1, 8),
            (1, 9),
        ]) {
            0 => (Place::Next, 0),
            1 => (Place::Next, near),
            2 => (Place::Next, -some),
            3 => (Place::Next, units),
            4 => (Place::Next, some),
            5 if self.dice.once_in(4) => (Place::Edge, near.max(1)),
            5 => (Place::Edge, 0),
            6 => (self.anchor(), near),
            7 => (Place::Irs, near),
            8 => (Place::Edge, some),
            _ => (Place::Next, self.dice.next() as i32),
        }
    }

    fn anchor(&mut self) -> Place {
        let block = self.dice.below(4) as u8;
        self.dice.of(&[
            Place::Next,
            Place::Acked,
            Place::Edge,
            Place::SackStart(block),
            Place::SackEnd(block),
            Place::SackEnd(0),
        ])
    }

    /// Makes something of the segment wrong, or odd, once in `n` times.
    fn spoil(&mut self, spec: &mut Spec, n: u64) {
        if !self.dice.once_in(n) {
            return;
        }
        match self.dice.below(13) {
            0 => spec.flags |= FIN,
            1 => self.make_rst(spec),
            2 => spec.flags |= SYN,
            3 => {
                spec.ack = self.dice.weighed(&[
                    (6, 1),
                    (1, -1),
                    (1, -2),
                    (1, -1000),
                    (1, -65_000),
                    (1, -70_000),
                    (4, 1000),
                    (1, i32::MIN),
                ]);
            }
            4 | 5 => {
                spec.ts = match self.dice.below(4) {
                    0 if self.timestamps => None,
                    0 => Some(Stamp { val: 5, ecr: 0 }),
                    1 => Some(Stamp { val: self.dice.of(&[-1, -2, -3, -500, -100_000]), ecr: 0 }),
                    2 => Some(Stamp { val: self.dice.of(&[1000, 100_000, i32::MAX]), ecr: 0 }),
                    _ => Some(Stamp { val: 1, ecr: self.dice.of(&[-1, -1000, 1000, i32::MIN]) }),
                };
            }
            6 => {
                spec.flags |= URG;
                spec.urgent = self.dice.of(&[0, 1, 2, 5, 100, 1000, 1460, 2000, 65_535]);
            }
            7 => {
                spec.tos = self.dice.of(&[1, 2, 3, 0x10, 0xb8, 0xbb]);
                spec.flags |= self.dice.of(&[0, ECE, CWR, ECE | CWR]);
            }
            8 => spec.flags &= !ACK,
            9 => spec.flags = self.dice.next() as u16 & 0xff,
            10 => spec.flags |= (self.dice.next() as u16) & RESERVED,
            11 => spec.junk = self.junk(),
            _ => spec.corrupt = true,
        }
    }

    fn make_rst(&mut self, spec: &mut Spec) {
        spec.flags = if self.dice.once_in(2) { RST } else { RST | ACK };
        if !self.dice.once_in(4) {
            spec.len = Len::Bytes(0);
        }
        if !self.dice.once_in(3) {
            let near = self.dice.between(-1, 1) as i32;
            spec.at = (self.anchor(), near);
        }
    }

    /// Options that nobody would send.
    fn junk(&mut self) -> Vec<u8> {
        match self.dice.below(9) {
            0 => vec![5],
            1 => vec![5, 0, 1, 1],
            2 => vec![5, 1, 1, 1],
            3 => vec![8, 40, 1, 1],
            4 => vec![2, 4, 5, 0xb4],
            5 => vec![0, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9],
            6 => vec![3, 3, 7, 1],
            7 => vec![1; 28],
            _ => {
                let words = self.dice.below(7) as usize;
                (0..4 * words).map(|_| self.dice.next() as u8).collect()
            }
        }
    }
}
