//! Steps for the oracle out of a fuzzer's bytes: every byte string means some connection.

use super::oracle::{AckField, Arrival, Op, Place, Setup};

/// Steps in a run at most: a fuzzer that finds long inputs interesting should not get slow.
const STEPS: usize = 200;

/// Bytes, and zeros behind them.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// Mostly near zero: one byte where three bits say so.
    fn off(&mut self) -> i32 {
        match self.u8() & 7 {
            0..=4 => i32::from(self.u8() as i8),
            5 | 6 => i32::from(self.u16() as i16),
            _ => self.u32() as i32,
        }
    }
}

/// A connection and what happens to it.
pub fn of(bytes: &[u8]) -> (Setup, Vec<Op>) {
    let mut bytes = Bytes(bytes);
    let setup = setup(&mut bytes);
    let mut ops = Vec::new();
    while !bytes.0.is_empty() && ops.len() < STEPS {
        ops.push(op(&mut bytes));
    }
    (setup, ops)
}

fn setup(bytes: &mut Bytes<'_>) -> Setup {
    let (flags, sizes) = (bytes.u8(), bytes.u8());
    let scaled = sizes >> 4 != 15;
    Setup {
        irs: bytes.u32(),
        iss: bytes.u32(),
        sack: flags & 1 != 0,
        dsack: flags & 2 != 0,
        ts: (flags & 4 != 0).then(|| bytes.u32()),
        shift: scaled.then_some((sizes >> 4).min(14)),
        rcvbuf: [5000, 20_000, 131_072, 1_000_000][usize::from(sizes & 3)],
        room: [0, 2, 5, 1000][usize::from(sizes >> 2 & 3)],
        ratelimit: flags & 8 != 0,
    }
}

fn op(bytes: &mut Bytes<'_>) -> Op {
    let first = bytes.u8();
    match first >> 4 {
        0..=7 => Op::Burst((0..=first & 7).map(|_| arrival(bytes)).collect()),
        8 => Op::Take,
        9 | 10 => Op::Read(bytes.u16()),
        11 => Op::PutBack(first & 1 != 0),
        12 => Op::Return,
        13 => Op::Progress,
        14 => Op::Wait(u32::from(bytes.u16()) >> (first & 15)),
        _ => match first & 15 {
            0 => Op::Wait(2_200_000),
            1..=3 => Op::ShutdownRead,
            4..=6 => Op::ShutdownWrite,
            7 | 8 => Op::Close { linger: first & 1 == 0 },
            9 => Op::Abort,
            room => Op::Room(room - 10),
        },
    }
}

fn arrival(bytes: &mut Bytes<'_>) -> Arrival {
    let kinds = bytes.u8();
    let place = match kinds & 7 {
        0 | 1 => Place::Next(0),
        2 => Place::Next(bytes.off()),
        3 if kinds & 32 != 0 => Place::EndsAtRight(bytes.off()),
        3 => Place::Right(bytes.off()),
        4 => Place::Acked(bytes.off()),
        end => Place::Held(bytes.u8(), end & 1 != 0, bytes.off()),
    };
    let len = match kinds >> 3 & 3 {
        0 => 0,
        1 => u16::from(bytes.u8()),
        2 => 1460,
        _ => bytes.u16() % 9001,
    };
    // Most segments are ordinary: every odd thing takes a bit of its own.
    let odd = bytes.u8();
    let odd_if = |bit: u8, usual: u16, bytes: &mut Bytes<'_>| {
        if odd & bit != 0 { bytes.u16() } else { usual }
    };
    let flags = odd_if(1, 0x10, bytes) as u8;
    let window = odd_if(2, u16::MAX, bytes);
    let urgent = odd_if(4, 0, bytes);
    let ack = match odd >> 3 & 3 {
        0 | 1 => AckField::Data,
        2 => AckField::All,
        _ => AckField::Off(bytes.off()),
    };
    let ts = match odd >> 5 & 3 {
        0 | 1 => Some(0),
        2 => None,
        _ => Some(bytes.off()),
    };
    Arrival { place, len, flags, ack, window, urgent, ts, version: kinds >> 5 }
}
