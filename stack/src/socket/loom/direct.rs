//! Direct copy: readers that lend their memory against an lcore that fills it, and modes that change.
//!
//! Each loan is watched: loom complains of an access by the lcore and one by the reader that are not
//! ordered, which is what writing to memory that has gone comes to.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use loom::thread;

use super::stream::{Play, Toy, read_singly, two_readers};
use crate::buf::HeapBuf;
use crate::socket::recv::{Call, Source};
use crate::socket::sync::mutants::{self, Mutant};
use crate::socket::{Handle, Recv, RecvFlags, Step, TcpStream};
use crate::time::Instant;

type Stream = TcpStream<HeapBuf, Toy>;

/// In low-latency mode from the beginning.
const LOW_LATENCY: Play = Play { switches: 2, bytes: 3, low_latency: true };

/// A reader that waits for a byte, and then for two at once, which go to two places.
fn patient_readers() {
    LOW_LATENCY.run(|handle| {
        let stream = Stream::from(handle);
        let mut read = read_singly(&stream, 1);
        let mut bufs = [[9], [9]];
        let mut pieces = bufs.each_mut().map(|buf| IoSliceMut::new(buf));
        assert_eq!(stream.recv_vectored(&mut pieces, RecvFlags::WAITALL).unwrap(), 2);
        read.extend(bufs.concat());
        read
    });
}

#[test]
fn loom_lent_memory_is_filled_in_order() {
    patient_readers();
}

/// While one call lends another one reads, and may leave older data behind that it took together with
/// its own.
fn overtaken_lender() {
    LOW_LATENCY.run(|handle| {
        let other = Stream::from(handle.another());
        let mut buf = [9];
        let mut call = Recv::new(&handle, &mut buf, RecvFlags::NONE, || Instant::ZERO);
        let mut read = Vec::new();
        if let Step::Sleep(_) = call.step(Instant::ZERO) {
            read = call.lending(|| read_singly(&other, 1));
            if call.step(Instant::ZERO) == Step::Done(1) {
                drop(call);
                read.push(buf[0]);
            }
        } else {
            drop(call);
            read.push(buf[0]);
        }
        read.sort_unstable();
        let left = 3 - read.len() as u8;
        read.extend(read_singly(&other, left));
        read
    });
}

#[test]
fn loom_lent_memory_is_filled_behind_what_is_older() {
    overtaken_lender();
}

#[test]
fn loom_mutant_direct_behind_queued() {
    mutants::must_fail(
        Mutant::DirectBehindQueued,
        "loom_lent_memory_is_filled_behind_what_is_older",
    );
}

/// One try to read a byte: the reader lends, does not wait at all, and goes; whether it got one.
fn impatient(handle: &Handle<HeapBuf, Toy>) -> Option<u8> {
    let mut buf = [9];
    let mut call = Recv::new(handle, &mut buf, RecvFlags::NONE, || Instant::ZERO);
    let mut step = call.step(Instant::ZERO);
    if let Step::Sleep(_) = step {
        call.lending(|| ());
        step = call.step(Instant::ZERO);
    }
    drop(call);
    (step == Step::Done(1)).then_some(buf[0])
}

/// Explores a reader whose time is up at any moment, and who reads on later. Now and then something
/// must have gone straight to it.
fn impatient_reader(read: fn(Handle<HeapBuf, Toy>) -> Vec<u8>) {
    let filled = Arc::new(AtomicU32::new(0));
    let counted = filled.clone();
    let play = Play { switches: 3, bytes: 2, low_latency: true };
    play.run_then(read, move |lcore| {
        counted.fetch_add(lcore.direct_copies(), Ordering::Relaxed);
    });
    assert_ne!(filled.load(Ordering::Relaxed), 0, "nothing was ever copied directly");
}

/// What `read` has got of two bytes, and then the others.
fn read_on(mut read: Vec<u8>, handle: Handle<HeapBuf, Toy>) -> Vec<u8> {
    let left = 2 - read.len() as u8;
    read.extend(read_singly(&handle.into(), left));
    read
}

#[test]
fn loom_nobody_writes_to_memory_that_was_taken_back() {
    impatient_reader(|handle| read_on(Vec::from_iter(impatient(&handle)), handle));
}

#[test]
fn loom_mutant_direct_without_token() {
    mutants::must_fail(
        Mutant::DirectWithoutToken,
        "loom_nobody_writes_to_memory_that_was_taken_back",
    );
}

#[test]
fn loom_mutant_direct_without_slot() {
    mutants::must_fail(
        Mutant::DirectWithoutSlot,
        "loom_nobody_writes_to_memory_that_was_taken_back",
    );
}

#[test]
fn loom_mutant_withdraw_without_slot() {
    mutants::must_fail(
        Mutant::WithdrawWithoutSlot,
        "loom_nobody_writes_to_memory_that_was_taken_back",
    );
}

#[test]
fn loom_mutant_loan_left_behind() {
    mutants::must_fail(Mutant::LoanLeftBehind, "loom_nobody_writes_to_memory_that_was_taken_back");
}

/// An exclusive reader, who has the token for good, and lends without giving it up.
fn patient_exclusive_reader() {
    LOW_LATENCY.run(|handle| {
        let mut stream = Stream::from(handle);
        let mut reader = stream.reader().unwrap();
        let mut read = Vec::new();
        let mut buf = [9; 2];
        while read.len() < 3 {
            let n = reader.recv(&mut buf, RecvFlags::NONE).unwrap();
            read.extend_from_slice(&buf[..n]);
        }
        read
    });
}

#[test]
fn loom_a_reader_with_the_token_lends_in_order() {
    patient_exclusive_reader();
}

/// One try of a reader who has the token, lends, and does not wait at all; whether it got a byte.
fn impatient_exclusive(handle: &Handle<HeapBuf, Toy>) -> Option<u8> {
    let socket = &handle.socket;
    let now = || Instant::ZERO;
    let mut side = socket.reader.claim_thread();
    let mut buf = [9];
    let mut call = Call::new(&mut buf, RecvFlags::NONE, &socket.options, now);
    let mut step = socket.step(&mut side, &mut call, now());
    if let Step::Sleep(_) = step {
        socket.lending(&mut call, Some(&mut side.copied_seq), || ());
        step = socket.step(&mut side, &mut call, now());
    }
    socket.leave(&mut side, &mut call);
    let got = step == Step::Done(1);
    assert_eq!(side.copied_seq.raw(), u32::from(got));
    assert_eq!(socket.progress.copied_seq(), side.copied_seq);
    got.then_some(buf[0])
}

#[test]
fn loom_memory_of_a_reader_with_the_token_comes_back() {
    impatient_reader(|handle| read_on(Vec::from_iter(impatient_exclusive(&handle)), handle));
}

#[test]
fn loom_mutant_reader_misses_filled() {
    mutants::must_fail(
        Mutant::ReaderMissesFilled,
        "loom_memory_of_a_reader_with_the_token_comes_back",
    );
}

#[test]
fn loom_mutant_exclusive_direct_without_slot() {
    mutants::must_fail(
        Mutant::DirectWithoutSlot,
        "loom_memory_of_a_reader_with_the_token_comes_back",
    );
}

#[test]
fn loom_mutant_exclusive_withdraw_without_slot() {
    mutants::must_fail(
        Mutant::WithdrawWithoutSlot,
        "loom_memory_of_a_reader_with_the_token_comes_back",
    );
}

#[test]
fn loom_two_lenders_get_each_byte_once() {
    // Of whom one at most lends.
    two_readers(true);
}

/// An exclusive reader whose ring goes while there is something in it, and comes back.
fn switched() {
    let play = Play { low_latency: false, ..LOW_LATENCY };
    play.run(|handle| {
        let switch = handle.another();
        let mut stream = Stream::from(handle);
        let mut reader = stream.reader().unwrap();
        let mut buf = [9; 8];
        assert_eq!(reader.recv(&mut buf[..1], RecvFlags::NONE).unwrap(), 1);
        let mut read = vec![buf[0]];
        switch.set_low_latency(true);
        while read.len() < 3 {
            let n = reader.recv(&mut buf, RecvFlags::NONE).unwrap();
            read.extend_from_slice(&buf[..n]);
        }
        read
    });
}

#[test]
fn loom_a_switch_reads_the_ring_first() {
    switched();
}

#[test]
fn loom_mutant_switch_forgets_ring() {
    mutants::must_fail(Mutant::SwitchForgetsRing, "loom_a_switch_reads_the_ring_first");
}

/// The mode changes under a reader that sleeps, or is about to.
fn switched_by_another() {
    let play = Play { switches: 2, bytes: 2, low_latency: false };
    play.run(|handle| {
        let switch = handle.another();
        let switcher = thread::spawn(move || switch.set_low_latency(true));
        let read = read_singly(&handle.into(), 2);
        switcher.join().unwrap();
        read
    });
}

#[test]
fn loom_modes_change_under_a_reader() {
    switched_by_another();
}
