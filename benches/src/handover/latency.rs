//! Message by message: how long 64 bytes take from the lcore to a thread that spins for them.
//!
//! Two ways in turns, so that whatever disturbs the machine disturbs both: a bare ring that carries a
//! pointer to the bytes, and all of the stack, from the moment that the device has given the burst to
//! the bytes in the reader's buffer. The next message goes when the last one has been told of.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use prequeue::dpdk::Mbuf;
use prequeue::socket::{RecvFlags, TcpStream};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::bench::Bench;
use crate::contender::Burst;

use super::lcore::{Lcore, now};
use super::report::{Report, Times};
use super::throughput::wait_for;
use super::{Places, Setting};

/// Payload bytes of a message.
const LEN: usize = 64;

/// Bytes of the buffer that is read into.
const READ: usize = 4096;

/// Messages each way, of which the first are not counted.
const MESSAGES: usize = 400_000;
const WARM_UP: usize = 2_000;

/// Polls that find nothing between two messages: a microsecond's, in which the reader begins to spin
/// and the lcore takes back what was read before.
const POLLS_BETWEEN: usize = 20;

/// Bytes with a number in them, in a cache line of their own.
#[derive(Debug)]
#[repr(align(64))]
struct Block([u8; LEN]);

/// When the reader had a message: nanoseconds, 0 before.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Told(AtomicU64);

impl Told {
    fn tell(&self, nanos: u64) {
        // Release pairs with the Acquire of `wait`: the reader is done with the message.
        self.0.store(nanos, Ordering::Release);
    }

    fn wait(&self) -> u64 {
        loop {
            // Acquire pairs with the Release of `tell`.
            let nanos = self.0.load(Ordering::Acquire);
            if nanos != 0 {
                self.0.store(0, Ordering::Relaxed);
                return nanos;
            }
            spin_loop();
        }
    }
}

/// Nanoseconds that messages took.
#[derive(Debug, Default)]
struct Both {
    bare: Times,
    full: Times,
}

pub(super) fn measure(setting: Setting<'_>, report: &mut Report) {
    let Setting { lcore, bench, places, effort } = setting;
    let mut times = messages(lcore, bench, places, effort.of(MESSAGES));
    let bare = times.bare.quantiles([500, 990]);
    let full = times.full.quantiles([500, 990]);
    report.tell("hand-over, bare ring: p50, p99", format!("{} {} ns", bare[0], bare[1]));
    report.tell("hand-over, whole path: p50, p99", format!("{} {} ns", full[0], full[1]));
    report.at_most("  p50, whole path less bare ring", full[0] - bare[0], 100.0, "ns");
    report.at_most("  p99, whole path less bare ring", full[1] - bare[1], 250.0, "ns");
}

fn messages(lcore: &mut Lcore, bench: &mut Bench, places: Places, count: usize) -> Both {
    let stream = lcore.open(bench.pool());
    let (told, ready) = (Told::default(), AtomicBool::new(false));
    let (mut to_reader, from_lcore) = RingBuffer::new(256);
    let (to_lcore, mut blocks) = RingBuffer::new(4);
    let mut both = Both { bare: Times::with_capacity(count), full: Times::with_capacity(count) };
    let mut block = Some(Box::new(Block([0; LEN])));
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(places.pin_reader(), "the reader's CPU was there a moment ago");
            ready.store(true, Ordering::Relaxed);
            read(stream, from_lcore, to_lcore, &told, WARM_UP + count);
        });
        wait_for(&ready);
        for i in 0..WARM_UP + count {
            idle(lcore);
            let mut next = block.take().or_else(|| blocks.pop().ok()).expect("one that was read");
            next.0 = payload(i);
            let began = now();
            to_reader.push(next).expect("a ring with room");
            let bare = told.wait() - began;

            idle(lcore);
            bench.load_frame(&lcore.client.segment(lcore.iss, (i * LEN) as u32, &payload(i)));
            let mut burst = Burst::new();
            assert_eq!(bench.rx(&mut burst), 1, "the frame in the ring");
            let began = now();
            lcore.input(&mut burst);
            let full = told.wait() - began;
            if i >= WARM_UP {
                both.bare.record(bare);
                both.full.record(full);
            }
        }
    });
    lcore.turn();
    both
}

/// Polls without frames, as an lcore makes them between messages that are this far apart.
fn idle(lcore: &mut Lcore) {
    (0..POLLS_BETWEEN).for_each(|_| lcore.turn());
}

/// The reader: a message from the ring, a message from the stream, and so on.
fn read(
    mut stream: TcpStream<Mbuf>,
    mut from_lcore: Consumer<Box<Block>>,
    mut to_lcore: Producer<Box<Block>>,
    told: &Told,
    count: usize,
) {
    let mut reader = stream.reader().expect("no guard is held");
    // Larger than the message: the call has to find out that this was all.
    let mut buf = [0; READ];
    for i in 0..count {
        let block = loop {
            match from_lcore.pop() {
                Ok(block) => break block,
                Err(_) => spin_loop(),
            }
        };
        buf[..LEN].copy_from_slice(black_box(&block.0));
        let at = now();
        assert_eq!(black_box(&buf[..LEN]), &payload(i), "message {i} of the bare ring");
        to_lcore.push(block).expect("a ring with room");
        told.tell(at);

        let n = reader.recv(&mut buf, RecvFlags::SPIN).expect("a connection that lasts");
        let at = now();
        assert_eq!(
            (n, black_box(&buf[..LEN])),
            (LEN, &payload(i)[..]),
            "message {i} of the stream"
        );
        told.tell(at);
    }
}

/// What message `i` says.
fn payload(i: usize) -> [u8; LEN] {
    let mut bytes = [i as u8; LEN];
    bytes[..8].copy_from_slice(&(i as u64).to_le_bytes());
    bytes
}
