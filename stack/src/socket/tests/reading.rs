//! Bytes reach readers in order, each once, however they read.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::lcore::{Buf, Lcore, Plan, byte_at};
use crate::socket::{RecvFlags, TcpStream};

pub(super) const BYTES: u64 = if cfg!(debug_assertions) { 2 << 20 } else { 64 << 20 };

/// Reads to the end in pieces of the given sizes, and checks each byte.
pub(super) fn read_all(mut read: impl FnMut(&mut [u8]) -> usize, sizes: &[usize]) -> u64 {
    let mut offset = 0;
    let mut buf = vec![0; 1 << 16];
    for size in sizes.iter().cycle() {
        let n = read(&mut buf[..*size]);
        for (i, byte) in buf[..n].iter().enumerate() {
            assert_eq!(*byte, byte_at(offset + i as u64), "at {}", offset + i as u64);
        }
        offset += n as u64;
        if n == 0 {
            break;
        }
    }
    offset
}

pub(super) const SIZES: [usize; 6] = [1, 7000, 65_536, 100, 1460, 20_000];

fn shared(plan: Plan) {
    let (lcore, handle) = Lcore::start(plan);
    let stream = TcpStream::from(handle);
    let recv = |buf: &mut [u8]| stream.recv(buf, RecvFlags::NONE).unwrap();
    assert_eq!(read_all(recv, &SIZES), plan.bytes);
    assert_eq!(stream.recv(&mut [0], RecvFlags::NONE).unwrap(), 0, "the end stays");
    drop(stream);
    lcore.assert_all_comes_back();
}

fn exclusive(plan: Plan) {
    let (lcore, handle) = Lcore::start(plan);
    let mut stream = TcpStream::from(handle);
    let mut reader = stream.reader().unwrap();
    assert_eq!(read_all(|buf| reader.read(buf).unwrap(), &SIZES), plan.bytes);
    drop(reader);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn shared_reader_that_spins() {
    shared(Plan::new(BYTES));
}

#[test]
fn shared_reader_that_parks() {
    let pause = Duration::from_micros(300);
    shared(Plan { pause, ..Plan::new(BYTES / 8) });
}

#[test]
fn exclusive_reader_that_spins() {
    exclusive(Plan::new(BYTES));
}

#[test]
fn exclusive_reader_that_parks() {
    let pause = Duration::from_micros(300);
    exclusive(Plan { pause, ..Plan::new(BYTES / 8) });
}

#[test]
fn small_segments_and_a_small_buffer() {
    shared(Plan { rcvbuf: 20_000, segment: 100, ..Plan::new(BYTES / 8) });
}

#[test]
fn a_slow_reader_lets_the_ring_spill_and_the_window_close() {
    let (lcore, handle) = Lcore::start(Plan { rcvbuf: 4 << 20, segment: 300, ..Plan::new(BYTES) });
    let mut stream = TcpStream::from(handle);
    let mut reader = stream.reader().unwrap();
    let mut passes = 0;
    let read = |buf: &mut [u8]| {
        passes += 1;
        if passes % 64 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
        reader.read(buf).unwrap()
    };
    assert_eq!(read_all(read, &[30_000]), BYTES);
    drop(reader);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn several_readers_share_the_stream() {
    let plan = Plan { pause: Duration::from_micros(50), ..Plan::new(BYTES / 4) };
    let (lcore, handle) = Lcore::start(plan);
    let stream = TcpStream::from(handle);
    let mut counts = [0_u64; 256];
    let readers: Vec<_> = (0..3)
        .map(|i| {
            let stream = stream.try_clone().unwrap();
            thread::spawn(move || {
                let mut counts = [0_u64; 256];
                let mut buf = vec![0; 1000 << i];
                loop {
                    let n = stream.recv(&mut buf, RecvFlags::NONE).unwrap();
                    if n == 0 {
                        return counts;
                    }
                    buf[..n].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
                }
            })
        })
        .collect();
    for reader in readers {
        let theirs = reader.join().unwrap();
        counts.iter_mut().zip(theirs).for_each(|(sum, n)| *sum += n);
    }
    let mut expected = [0_u64; 256];
    (0..plan.bytes).for_each(|at| expected[usize::from(byte_at(at))] += 1);
    assert_eq!(counts, expected);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn guards_send_segments_to_the_backlog_and_lose_nothing() {
    let plan = Plan { rcvbuf: 50_000, ..Plan::new(BYTES / 4) };
    let (lcore, handle) = Lcore::start_held(plan);
    let stream = TcpStream::<Buf>::from(handle);
    // The first burst meets a guard for certain, others by chance.
    let guard = stream.lock();
    lcore.go.store(true, Ordering::SeqCst);
    while lcore.deferred.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert_eq!(stream.readable(), 0, "TCP ran under a guard");
    drop(guard);
    let locker = {
        let stream = stream.try_clone().unwrap();
        thread::spawn(move || {
            for round in 0..200 {
                let guard = stream.lock();
                let edge = guard.connection().edge();
                if round % 20 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                assert_eq!(guard.connection().edge(), edge, "TCP ran under a guard");
                drop(guard);
                thread::sleep(Duration::from_micros(50));
            }
        })
    };
    let recv = |buf: &mut [u8]| stream.recv(buf, RecvFlags::NONE).unwrap();
    assert_eq!(read_all(recv, &SIZES), plan.bytes);
    locker.join().unwrap();
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn threads_in_tight_loops_do_not_keep_the_lcore_out() {
    let plan = Plan { rcvbuf: 50_000, ..Plan::new(BYTES / 4) };
    let (lcore, stream) = {
        let (lcore, handle) = Lcore::start(plan);
        (lcore, TcpStream::<Buf>::from(handle))
    };
    // Whoever releases with the lcore due cannot claim again before it: the stream goes on, however
    // quickly these two come back.
    let done = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let locker = scope.spawn(|| {
            let mut rounds = 0_u64;
            while !done.load(Ordering::SeqCst) {
                drop(stream.lock());
                rounds += 1;
            }
            rounds
        });
        let recv = |buf: &mut [u8]| loop {
            // Never waits for data: install, claim, uninstall as fast as it can.
            match stream.recv(buf, RecvFlags::DONTWAIT) {
                Ok(n) => return n,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(read_all(recv, &SIZES), plan.bytes);
        done.store(true, Ordering::SeqCst);
        locker.join().unwrap()
    });
    assert!(rounds > 0);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn peek_shows_what_the_next_read_takes() {
    let plan = Plan { pause: Duration::from_micros(100), ..Plan::new(100_000) };
    let (lcore, handle) = Lcore::start(plan);
    let stream = TcpStream::from(handle);
    let mut seen = vec![0; 5000];
    let read = |buf: &mut [u8]| {
        let n = stream.peek(&mut seen).unwrap().min(buf.len());
        if n == 0 {
            return 0;
        }
        let m = stream.recv(&mut buf[..n], RecvFlags::WAITALL).unwrap();
        assert_eq!((m, &buf[..n]), (n, &seen[..n]));
        n
    };
    assert_eq!(read_all(read, &[3000, 10, 5000]), plan.bytes);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn waitall_waits_for_more_than_the_buffer_holds() {
    let plan = Plan { rcvbuf: 20_000, ..Plan::new(300_000) };
    let (lcore, handle) = Lcore::start(plan);
    let stream = TcpStream::from(handle);
    let mut buf = vec![0; 299_999];
    assert_eq!(stream.recv(&mut buf, RecvFlags::WAITALL).unwrap(), buf.len());
    assert!(buf.iter().enumerate().all(|(at, byte)| *byte == byte_at(at as u64)));
    assert_eq!(stream.recv(&mut buf, RecvFlags::WAITALL).unwrap(), 1, "cut short by the end");
    drop(stream);
    lcore.assert_all_comes_back();
}
