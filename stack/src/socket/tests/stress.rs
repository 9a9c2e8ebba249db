//! Connection after connection at full speed, read in every way there is, every byte accounted for.
//!
//! An lcore on a thread of its own and one to three readers; beside them a thread that switches
//! low-latency mode on and off, one that holds guards, one that looks on. Connections end by FIN, by
//! reset, by the application's own reset in the middle, or not at all before the stack stops. What
//! comes next is drawn from a seed that is printed. `PREQUEUE_STRESS_SECONDS` says for how long it runs;
//! a second if it is not set.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::lcore::{Buf, End, Lcore, Plan, byte_at};
use crate::buf::Returns;
use crate::socket::{RecvFlags, TcpStream};

/// Bytes of a stream at most: some tens of milliseconds.
const LONGEST: u64 = 400_000;

/// Bytes by which a piece of the stream is recognised: it has no such sequence twice.
const KEY: usize = 8;

#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// The whole stream, and where each sequence of [`KEY`] bytes of it stands.
struct Stream {
    bytes: Vec<u8>,
    places: HashMap<[u8; KEY], usize>,
}

impl Stream {
    fn new() -> Self {
        let bytes: Vec<u8> = (0..LONGEST).map(byte_at).collect();
        let key = |(at, key): (usize, &[u8])| (key.try_into().unwrap(), at);
        let places: HashMap<_, _> = bytes.windows(KEY).enumerate().map(key).collect();
        assert_eq!(places.len(), bytes.len() + 1 - KEY, "no sequence is there twice");
        Self { bytes, places }
    }

    /// Sees to it that the chunks together are the first `total` bytes of the stream, each once. A byte's
    /// place is told by those behind it; the bytes of which too few are behind must be those that the
    /// others leave out.
    fn account_for(&self, chunks: &[Vec<u8>], total: usize, case: &str) {
        let mut seen = vec![false; total];
        let mut unplaced = Vec::new();
        for chunk in chunks {
            let mut before = None;
            for (at, &byte) in chunk.iter().enumerate() {
                before = chunk[at..].first_chunk::<KEY>().and_then(|key| {
                    // Mostly it goes on as it did.
                    let next = before.map(|place: usize| place + 1);
                    next.filter(|&place| self.bytes[place..].starts_with(key))
                        .or_else(|| self.places.get(key).copied())
                });
                match before {
                    None => unplaced.push(byte),
                    Some(place) => {
                        assert!(place < total, "{case}: byte {place} of {total} was read");
                        assert!(!seen[place], "{case}: byte {place} was read twice");
                        seen[place] = true;
                    }
                }
            }
        }
        let missing = seen.iter().zip(&self.bytes).filter(|(seen, _)| !**seen);
        let mut missing: Vec<u8> = missing.map(|(_, byte)| *byte).collect();
        missing.sort_unstable();
        unplaced.sort_unstable();
        assert!(missing == unplaced, "{case}: {} bytes for {}", unplaced.len(), missing.len());
    }
}

/// How the connection is over before its stream is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cut {
    No,
    /// Its handles are dropped, with a reset.
    Dropped,
    /// The lcore stops.
    Stopped,
}

/// How one reader reads, drawn anew for every call.
fn call(stream: &mut TcpStream<Buf>, random: &mut Random, alone: bool) -> Option<Vec<u8>> {
    let mut flags = random.of(&[RecvFlags::NONE, RecvFlags::SPIN, RecvFlags::PARK]);
    flags = flags.with(random.of(&[RecvFlags::NONE, RecvFlags::NONE, RecvFlags::WAITALL]));
    let mut buf = vec![0; 1 + random.below(random.clone().of(&[10, 200, 5_000, 60_000])) as usize];
    if random.one_in(16) {
        // What is seen is there, and is not taken.
        let n = stream.recv(&mut buf, RecvFlags::PEEK.with(RecvFlags::DONTWAIT)).unwrap_or(0);
        if alone {
            let mut again = vec![0; n];
            let same = stream.recv(&mut again, RecvFlags::PEEK.with(RecvFlags::DONTWAIT));
            assert!(n == 0 || same.unwrap() == n && buf[..n] == again, "a look changed something");
        }
    }
    let n = match random.below(8) {
        0 => stream.recv(&mut buf, flags.with(RecvFlags::DONTWAIT)).or_else(|error| {
            (error.kind() == std::io::ErrorKind::WouldBlock).then_some(usize::MAX).ok_or(error)
        }),
        1 if alone => {
            let mut reader = stream.reader().unwrap();
            let mut all = Vec::new();
            for _ in 0..random.below(20) {
                match reader.recv(&mut buf, flags) {
                    Ok(n @ 1..) => all.extend_from_slice(&buf[..n]),
                    // The next call is told the same.
                    _ => break,
                }
            }
            return Some(all);
        }
        2 if alone => {
            let mut reader = stream.reader().unwrap();
            let mut segments = reader.segments(flags).ok()?;
            if segments.is_end() {
                return None;
            }
            let mut all = Vec::new();
            let mut kept = Vec::new();
            while kept.len() < 20
                && let Some(segment) = segments.next_segment()
            {
                all.extend_from_slice(&segment);
                kept.push(segment.into_slice());
            }
            return Some(all);
        }
        _ => stream.recv(&mut buf, flags),
    };
    match n {
        Ok(usize::MAX) => Some(Vec::new()),
        Ok(n @ 1..) => {
            buf.truncate(n);
            Some(buf)
        }
        Ok(0) | Err(_) => None,
    }
}

/// One connection; its bytes that were read.
fn connection(stream: &Stream, random: &mut Random) -> usize {
    let plan = Plan {
        bytes: 1 + random.below(LONGEST - 1),
        end: random.of(&[End::Fin, End::Fin, End::Fin, End::Reset]),
        rcvbuf: random.of(&[6_000, 30_000, 131_072, 1 << 20]),
        segment: random.of(&[20, 64, 400, 1460]),
        pause: Duration::from_micros(random.of(&[0, 0, 0, 20, 300])),
    };
    let cut = random.of(&[Cut::No, Cut::No, Cut::No, Cut::Dropped, Cut::Stopped]);
    let (readers, switches) = (1 + random.below(3), random.one_in(2));
    let (guards, looks) = (random.one_in(2), random.one_in(2));
    let case = format!(
        "{plan:?}, {cut:?}, {readers} readers, switches {switches}, guards {guards}, looks {looks}"
    );
    let (mut lcore, handle) = Lcore::start(plan);
    let tcp = TcpStream::from(handle);
    let over = Arc::new(AtomicBool::new(false));
    let helper = |wanted: bool, pause: Duration, work: fn(&TcpStream<Buf>, bool)| {
        let (tcp, over) = (tcp.try_clone().unwrap(), over.clone());
        wanted.then(|| {
            thread::spawn(move || {
                let mut odd = false;
                while !over.load(Ordering::Relaxed) {
                    odd = !odd;
                    work(&tcp, odd);
                    thread::sleep(pause);
                }
            })
        })
    };
    let helpers = [
        helper(switches, Duration::from_micros(150), |tcp, on| tcp.set_low_latency(on)),
        helper(guards, Duration::from_micros(300), |tcp, long| {
            let guard = tcp.lock();
            if long {
                thread::sleep(Duration::from_micros(500));
            }
            drop(guard);
        }),
        helper(looks, Duration::from_micros(50), |tcp, _| {
            let (now, _) = (tcp.readable(), tcp.take_error());
            assert!(u64::from(now) <= LONGEST);
        }),
    ];
    let threads: Vec<_> = (0..readers)
        .map(|_| {
            let (mut tcp, mut random) = (tcp.try_clone().unwrap(), Random(random.below(u64::MAX)));
            let patience = if cut == Cut::Dropped { random.below(40) } else { u64::MAX };
            thread::spawn(move || {
                let mut chunks = Vec::new();
                for _ in 0..patience {
                    let Some(chunk) = call(&mut tcp, &mut random, readers == 1) else { break };
                    if !chunk.is_empty() {
                        chunks.push(chunk);
                    }
                }
                chunks
            })
        })
        .collect();
    if cut == Cut::Stopped {
        thread::sleep(Duration::from_micros(random.below(8_000)));
        lcore.stop();
    }
    let chunks: Vec<_> = threads.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    over.store(true, Ordering::Relaxed);
    helpers.into_iter().flatten().for_each(|helper| helper.join().unwrap());
    let read = chunks.iter().map(Vec::len).sum();
    if cut == Cut::No {
        assert_eq!(read as u64, plan.bytes, "{case}");
    }
    // What was cut is a beginning of the stream, with all readers together.
    stream.account_for(&chunks, read, &case);
    if cut == Cut::Dropped {
        tcp.set_linger_zero();
    }
    drop(tcp);
    if cut == Cut::Stopped {
        lcore.home.returns().free_all(|_, _| {});
        assert_eq!(lcore.live.count(), 0, "{case}: buffers are left");
    } else {
        lcore.assert_all_comes_back();
    }
    read
}

#[test]
fn every_byte_is_accounted_for_whatever_readers_and_others_do() {
    let seconds = std::env::var("PREQUEUE_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    let span = Duration::from_secs(seconds.unwrap_or(1));
    let seed = std::env::var("PREQUEUE_STRESS_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| std::process::id().into());
    println!("seed {seed}");
    let (stream, mut random) = (Stream::new(), Random(seed));
    let (began, mut connections, mut bytes) = (Instant::now(), 0_u32, 0_usize);
    while began.elapsed() < span {
        bytes += connection(&stream, &mut random);
        connections += 1;
    }
    println!("{connections} connections, {bytes} bytes read");
}
