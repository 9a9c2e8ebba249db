//! Segments of 64 bytes as fast as the lcore and a reader go, beside a bare ring.
//!
//! The lcore makes its own traffic: it takes back what the reader has read, writes the next sequence
//! number into the frame that is still there, and takes the frame in as received. What that alone
//! costs is told apart. Beside it an rtrb carries numbers between the same two CPUs, in chunks of 32.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use prequeue::buf::Checksum;
use prequeue::dpdk::{Mbuf, Mempool};
use prequeue::socket::TcpStream;
use rtrb::RingBuffer;

use crate::bench::Bench;
use crate::contender::{BURST, Burst, READ_BUFFER};

use super::lcore::Lcore;
use super::report::{Report, Times};
use super::{Places, Setting};

/// Payload bytes of a segment.
const LEN: usize = 64;

/// Bytes of headers before it.
const HEADERS: usize = 54;

/// Where the sequence number lies in a frame.
const SEQ: std::ops::Range<usize> = 38..42;

/// Segments, and numbers through the bare ring, of a round; and of the parts of a round that are timed.
/// A part takes a millisecond or less, so that many are undisturbed.
const SEGMENTS: usize = 1 << 17;
const NUMBERS: usize = 1 << 19;
const PART: usize = 1 << 13;
const PART_OF_NUMBERS: usize = 1 << 15;

/// Mbufs of the traffic.
pub(super) const MBUFS: u32 = 383;

/// Rounds. Of all parts of each kind the medians are compared: the best would be parts that found the
/// ring empty, or everything read.
const ROUNDS: usize = 100;

/// Elements that the bare ring holds and that cross it at once: those of the figure that the target
/// was taken from.
const RING: usize = 1024;
const CHUNK: usize = 32;

/// 20 million segments beside 130 million elements.
const TARGET: f64 = 20.0 / 130.0;

/// Segments that may be unread: the window of a peer. More than the prequeue holds, less than a receive
/// buffer does.
const UNREAD: usize = 352;

/// Frames that are written once; what makes the next one of them is their sequence number. But on its way
/// back an mbuf may have been written to, from the beginning on: then it is written anew.
#[derive(Debug)]
pub(super) struct Traffic<'a> {
    pool: &'a Mempool,
    frame: Vec<u8>,
    client_isn: u32,
    sent: usize,
    read: &'a Read,
    /// Segments that were read when that was last looked at.
    seen: usize,
}

/// Bytes that the reader has read.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Read(AtomicUsize);

impl Read {
    /// So many by now.
    pub(super) fn tell(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl<'a> Traffic<'a> {
    /// Writes a frame of the lcore's connection into every mbuf of the pool that is free.
    pub(super) fn new(lcore: &Lcore, pool: &'a Mempool, read: &'a Read) -> Self {
        let frame = lcore.client.segment(lcore.iss, 0, &[7; LEN]);
        assert_eq!(frame.len(), HEADERS + LEN);
        let all: Vec<Mbuf> = std::iter::from_fn(|| {
            let mut mbuf = pool.alloc()?;
            mbuf.extend(frame.len())?.copy_from_slice(&frame);
            Some(mbuf)
        })
        .collect();
        assert_eq!(all.len(), pool.capacity() as usize, "mbufs are still elsewhere");
        drop(all);
        Self { pool, frame, client_isn: lcore.client.isn, sent: 0, read, seen: 0 }
    }

    /// The next burst of frames, if the window is open for it.
    pub(super) fn next(&mut self, burst: &mut Burst) {
        if self.sent - self.seen + BURST > UNREAD {
            self.seen = self.read.0.load(Ordering::Relaxed) / LEN;
            if self.sent - self.seen + BURST > UNREAD {
                return;
            }
        }
        // What was read may be on its way back.
        if !self.pool.alloc_bulk(burst, BURST) {
            return;
        }
        for mbuf in burst.as_mut_slice() {
            let seq = self.client_isn.wrapping_add(1).wrapping_add((self.sent * LEN) as u32);
            mbuf.set_checksum(Checksum::Good);
            let frame = mbuf.extend(HEADERS + LEN).expect("room for a frame");
            if frame.first_chunk::<8>() != self.frame.first_chunk() {
                frame.copy_from_slice(&self.frame);
            }
            frame[SEQ].copy_from_slice(&seq.to_be_bytes());
            frame[HEADERS..HEADERS + 4].copy_from_slice(&(self.sent as u32).to_be_bytes());
            self.sent += 1;
        }
    }

    /// Bytes sent so far.
    pub(super) fn bytes(&self) -> usize {
        self.sent * LEN
    }
}

pub(super) fn measure(setting: Setting<'_>, report: &mut Report) {
    let Setting { lcore, bench, places, effort } = setting;
    let pool = bench.small_pool(MBUFS);
    let [mut bare, mut rewriting, mut prequeue] = <[Times; 3]>::default();
    for _ in 0..effort.of(ROUNDS) {
        numbers(places, &mut bare);
        drop(lcore.open(bench.pool()));
        rewrite(lcore, pool.pool(), &mut rewriting);
        segments(lcore, bench, pool.pool(), places, &mut prequeue);
    }
    let rate = |n: usize, mut times: Times| n as f64 * 1e3 / times.quantiles([500])[0];
    let bare = rate(PART_OF_NUMBERS, bare);
    let prequeue = rate(PART, prequeue);
    report.tell("bare ring in chunks of 32", format!("{bare:.1} M/s"));
    report.tell("rewriting frames, alone", format!("{:.1} M/s", rate(PART, rewriting)));
    report.tell("segments of 64 B through the prequeue", format!("{prequeue:.1} M/s"));
    report.at_least("  of the bare ring's rate", prequeue / bare, TARGET, "");
}

/// Records the times of parts, of which the first is not counted.
#[derive(Debug)]
struct Parts<'a> {
    times: &'a mut Times,
    began: Instant,
    first: bool,
}

impl<'a> Parts<'a> {
    fn new(times: &'a mut Times) -> Self {
        Self { times, began: Instant::now(), first: true }
    }

    /// One more is done.
    fn done(&mut self) {
        let now = Instant::now();
        let began = std::mem::replace(&mut self.began, now);
        if !std::mem::take(&mut self.first) {
            self.times.record((now - began).as_nanos() as u64);
        }
    }
}

/// The times that numbers take through a bare ring.
fn numbers(places: Places, times: &mut Times) {
    let (mut producer, mut consumer) = RingBuffer::<usize>::new(RING);
    let ready = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            places.pin_reader();
            ready.store(true, Ordering::Relaxed);
            let (mut read, mut sum) = (0, 0);
            while read < NUMBERS {
                let Ok(chunk) = consumer.read_chunk(consumer.slots().min(CHUNK)) else { continue };
                read += chunk.len();
                sum += chunk.into_iter().sum::<usize>();
            }
            sum
        });
        wait_for(&ready);
        let mut parts = Parts::new(times);
        for begin in (0..NUMBERS).step_by(CHUNK) {
            let chunk = loop {
                match producer.write_chunk_uninit(CHUNK) {
                    Ok(chunk) => break chunk,
                    Err(_) => spin_loop(),
                }
            };
            chunk.fill_from_iter(begin..begin + CHUNK);
            if (begin + CHUNK).is_multiple_of(PART_OF_NUMBERS) {
                parts.done();
            }
        }
        let sum = reader.join().expect("a reader that does not fail");
        assert_eq!(sum, NUMBERS * (NUMBERS - 1) / 2);
    });
}

/// The times that making the traffic takes, and freeing it.
fn rewrite(lcore: &Lcore, pool: &Mempool, times: &mut Times) {
    let read = Read::default();
    let mut traffic = Traffic::new(lcore, pool, &read);
    let mut parts = Parts::new(times);
    while traffic.sent < SEGMENTS {
        let mut burst = Burst::new();
        traffic.next(&mut burst);
        read.tell(traffic.bytes());
        std::hint::black_box(&burst);
        burst.clear();
        if traffic.sent.is_multiple_of(PART) {
            parts.done();
        }
    }
}

/// The times that segments take to a reader that spins.
fn segments(lcore: &mut Lcore, bench: &Bench, pool: &Mempool, places: Places, times: &mut Times) {
    let stream = lcore.open(bench.pool());
    let progress = Read::default();
    let mut traffic = Traffic::new(lcore, pool, &progress);
    let ready = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            places.pin_reader();
            read(stream, &ready, &progress);
        });
        wait_for(&ready);
        let mut parts = Parts::new(times);
        while traffic.sent < SEGMENTS {
            let mut burst = Burst::new();
            traffic.next(&mut burst);
            let part_ends = !burst.is_empty() && traffic.sent.is_multiple_of(PART);
            lcore.input(&mut burst);
            if part_ends {
                parts.done();
            }
        }
        while !reader.is_finished() {
            lcore.turn();
        }
        reader.join().expect("a reader that does not fail");
    });
    lcore.turn();
}

/// Reads all segments of a round; looks at the number in the last of each read.
fn read(mut stream: TcpStream<Mbuf>, ready: &AtomicBool, progress: &Read) {
    let mut reader = stream.reader().expect("no guard is held");
    let mut buf = vec![0; READ_BUFFER];
    let mut total = 0;
    ready.store(true, Ordering::Relaxed);
    while total < SEGMENTS * LEN {
        let n = std::io::Read::read(&mut reader, &mut buf).expect("a connection that lasts");
        assert!(n > 0, "the stream ended after {total} bytes");
        total += n;
        progress.tell(total);
        // Of the last segment that has begun in this read: its number.
        let begins = (total - 1) / LEN * LEN;
        if let Some(at) = (begins + n).checked_sub(total)
            && let Some(number) = buf[..n].get(at..at + 4)
        {
            assert_eq!(number, ((begins / LEN) as u32).to_be_bytes());
        }
    }
}

/// Waits until the other thread has come to its CPU: until then it may wait for this one.
pub(super) fn wait_for(ready: &AtomicBool) {
    while !ready.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
}
