//! Low-latency mode with real threads: bytes reach readers exactly, whoever copies them, and nobody
//! writes to memory that has gone back to its owner.

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::lcore::{Buf, End, Lcore, Plan, byte_at};
use super::reading::{BYTES, SIZES, read_all};
use crate::socket::{RecvFlags, TcpStream};
use crate::tcp::{Counter, Counters};

fn start(plan: Plan) -> (Lcore, TcpStream<Buf>) {
    let (lcore, handle) = Lcore::start_held(plan);
    handle.set_low_latency(true);
    lcore.go.store(true, Ordering::SeqCst);
    (lcore, handle.into())
}

/// The end of a test: everything comes back; what was counted.
fn finish(mut lcore: Lcore, stream: TcpStream<Buf>) -> Counters {
    drop(stream);
    lcore.assert_all_comes_back();
    lcore.stop()
}

fn one_reader(plan: Plan) {
    let (lcore, stream) = start(plan);
    let recv = |buf: &mut [u8]| stream.recv(buf, RecvFlags::NONE).unwrap();
    assert_eq!(read_all(recv, &SIZES), plan.bytes);
    let counters = finish(lcore, stream);
    assert_eq!(counters.value(Counter::ToPrequeue), 0);
    assert_ne!(counters.value(Counter::DirectCopies), 0, "the reader never waited");
}

#[test]
fn a_reader_that_spins() {
    one_reader(Plan::new(BYTES));
}

#[test]
fn a_reader_that_parks() {
    one_reader(Plan { pause: Duration::from_micros(300), ..Plan::new(BYTES / 8) });
}

#[test]
fn small_segments_and_a_small_buffer() {
    one_reader(Plan { rcvbuf: 20_000, segment: 100, ..Plan::new(BYTES / 8) });
}

#[test]
fn an_exclusive_reader() {
    for pause in [Duration::ZERO, Duration::from_micros(300)] {
        let plan = Plan { pause, ..Plan::new(BYTES / 8) };
        let (lcore, mut stream) = start(plan);
        let mut reader = stream.reader().unwrap();
        let recv = |buf: &mut [u8]| reader.recv(buf, RecvFlags::NONE).unwrap();
        assert_eq!(read_all(recv, &SIZES), plan.bytes);
        drop(reader);
        let counters = finish(lcore, stream);
        assert_eq!(counters.value(Counter::ToPrequeue), 0);
        assert_ne!(counters.value(Counter::DirectCopies), 0, "the reader never lent");
    }
}

#[test]
fn a_reader_of_several_pieces() {
    let plan = Plan { pause: Duration::from_micros(50), ..Plan::new(BYTES / 8) };
    let (lcore, stream) = start(plan);
    let mut turn = 0;
    let recv = |buf: &mut [u8]| {
        // Cut anew each time, some of them to nothing.
        turn += 1;
        let (first, rest) = buf.split_at_mut(buf.len() * (turn % 4) / 4);
        let (second, third) = rest.split_at_mut(rest.len() * (turn % 3) / 3);
        let mut pieces = [first, second, third].map(IoSliceMut::new);
        stream.recv_vectored(&mut pieces, RecvFlags::NONE).unwrap()
    };
    assert_eq!(read_all(recv, &SIZES), plan.bytes);
    let counters = finish(lcore, stream);
    assert_eq!(counters.value(Counter::ToPrequeue), 0);
    assert_ne!(counters.value(Counter::DirectCopies), 0, "the reader never lent");
}

#[test]
fn waitall_waits_for_more_than_the_buffer_holds() {
    let plan = Plan { rcvbuf: 20_000, ..Plan::new(3_000_001) };
    let (lcore, stream) = start(plan);
    let mut buf = vec![0; 3_000_000];
    assert_eq!(stream.recv(&mut buf, RecvFlags::WAITALL).unwrap(), buf.len());
    assert!(buf.iter().enumerate().all(|(at, byte)| *byte == byte_at(at as u64)));
    assert_eq!(stream.recv(&mut buf, RecvFlags::WAITALL).unwrap(), 1, "cut short by the end");
    finish(lcore, stream);
}

/// Switches the mode at irregular times for as long as `work` runs.
fn while_switching<T>(stream: &TcpStream<Buf>, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 0x9e37_79b9_u32;
            while !over.load(Ordering::Relaxed) {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                stream.set_low_latency(random >> 31 != 0);
                match random >> 24 & 7 {
                    0 => thread::sleep(Duration::from_micros(u64::from(random >> 16 & 0xff))),
                    n => (0..n * 50).for_each(|_| std::hint::spin_loop()),
                }
            }
        });
        // Also when it panics, or the test would hang.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_reader_whose_mode_changes_all_the_time() {
    for pause in [Duration::ZERO, Duration::from_micros(100)] {
        let plan = Plan { pause, rcvbuf: 200_000, ..Plan::new(BYTES / 4) };
        let (lcore, stream) = start(plan);
        let recv = |buf: &mut [u8]| stream.recv(buf, RecvFlags::NONE).unwrap();
        let read = while_switching(&stream, || read_all(recv, &SIZES));
        assert_eq!(read, plan.bytes);
        finish(lcore, stream);
    }
}

#[test]
fn an_exclusive_reader_whose_mode_changes_all_the_time() {
    let plan = Plan { rcvbuf: 200_000, ..Plan::new(BYTES / 4) };
    let (lcore, mut stream) = start(plan);
    let switch = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    let recv = |buf: &mut [u8]| reader.recv(buf, RecvFlags::NONE).unwrap();
    let read = while_switching(&switch, || read_all(recv, &SIZES));
    assert_eq!(read, plan.bytes);
    drop(reader);
    drop(switch);
    finish(lcore, stream);
}

#[test]
fn several_readers_whose_mode_changes_all_the_time() {
    for readers in 2..=3 {
        let pause = Duration::from_micros(50);
        let plan = Plan { pause, rcvbuf: 200_000, ..Plan::new(BYTES / 8) };
        let (lcore, stream) = start(plan);
        let shared = &stream;
        let counts = while_switching(shared, || {
            thread::scope(|scope| {
                let all: Vec<_> =
                    (0..readers).map(|i| scope.spawn(move || count(shared, 1000 << i))).collect();
                all.into_iter()
                    .map(|reader| reader.join().unwrap())
                    .fold([0; 256], |sum, counts| {
                        std::array::from_fn(|byte| sum[byte] + counts[byte])
                    })
            })
        });
        let mut expected = [0_u64; 256];
        (0..plan.bytes).for_each(|at| expected[usize::from(byte_at(at))] += 1);
        assert_eq!(counts, expected);
        finish(lcore, stream);
    }
}

/// Reads to the end; how often each byte came.
fn count(stream: &TcpStream<Buf>, size: usize) -> [u64; 256] {
    let mut counts = [0; 256];
    let mut buf = vec![0; size];
    loop {
        match stream.recv(&mut buf, RecvFlags::NONE).unwrap() {
            0 => return counts,
            n => buf[..n].iter().for_each(|byte| counts[usize::from(*byte)] += 1),
        }
    }
}

#[test]
fn nobody_writes_to_the_memory_of_a_call_that_has_timed_out() {
    let plan = Plan {
        pause: Duration::from_micros(150),
        segment: 400,
        rcvbuf: 30_000,
        end: End::Fin,
        ..Plan::new(BYTES / 8)
    };
    let (lcore, stream) = start(plan);
    stream.set_read_timeout(Some(Duration::from_micros(120))).unwrap();
    let mut timeouts = 0;
    // Memory of calls that are over stays as they have left it.
    let mut over = vec![vec![]; 64];
    let mut turn = 0;
    let mut offset = 0;
    loop {
        let mut buf = vec![0xee; 5000];
        let result = stream.recv(&mut buf, RecvFlags::WAITALL);
        let n = match result {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                timeouts += 1;
                0
            }
        };
        assert!(buf[n..].iter().all(|byte| *byte == 0xee), "written beyond what was returned");
        assert!(buf[..n].iter().enumerate().all(|(at, byte)| *byte == byte_at(offset + at as u64)));
        timeouts += u64::from(n < buf.len());
        offset += n as u64;
        buf.fill(0x55);
        let old = std::mem::replace(&mut over[turn], buf);
        assert!(old.iter().all(|byte| *byte == 0x55), "written after the call");
        turn = (turn + 1) % over.len();
    }
    assert_eq!(offset, plan.bytes);
    assert_ne!(timeouts, 0, "no call has timed out");
    assert!(over.concat().iter().all(|byte| *byte == 0x55), "written after the call");
    finish(lcore, stream);
}

#[test]
fn a_call_that_lends_times_out_though_a_reader_has_come() {
    let (lcore, stream) = start(Plan { end: End::Silence, ..Plan::new(0) });
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut other = stream.try_clone().unwrap();
    thread::scope(|scope| {
        let timed = scope.spawn(|| stream.recv(&mut [0; 100], RecvFlags::NONE));
        thread::sleep(Duration::from_millis(20));
        let reader = other.reader().unwrap();
        let error = timed.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        drop(reader);
    });
    drop((lcore, other, stream));
}
