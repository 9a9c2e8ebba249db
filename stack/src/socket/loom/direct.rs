//! Direct copy: readers that lend their memory against an lcore that fills it, and modes that change.
//!
//! Each loan is watched: loom complains of an access by the lcore and one by the reader that are not
//! ordered, which is what writing to memory that has gone comes to.

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicU32, Ordering};

use loom::thread;

use super::explore_bounded;
use super::stream::{Toy, open, read_singly};
use crate::buf::HeapBuf;
use crate::socket::recv::{Call, Source};
use crate::socket::sync::mutants::{self, Mutant};
use crate::socket::{Handle, Recv, RecvFlags, Step, TcpStream};
use crate::time::Instant;

type Stream = TcpStream<HeapBuf, Toy>;

/// A reader that waits for a byte, and then for two at once, which go to two places.
fn patient_readers() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        handle.set_low_latency(true);
        let reader = thread::spawn(move || {
            let stream = Stream::from(handle);
            let first = read_singly(&stream, 1);
            let mut bufs = [[9], [9]];
            let mut pieces = bufs.each_mut().map(|buf| IoSliceMut::new(buf));
            assert_eq!(stream.recv_vectored(&mut pieces, RecvFlags::WAITALL).unwrap(), 2);
            [first[0], bufs[0][0], bufs[1][0]]
        });
        for seq in 0..3 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        lcore.finish();
    });
}

#[test]
fn loom_lent_memory_is_filled_in_order() {
    patient_readers();
}

/// While one call lends another one reads, and may leave older data behind that it took together with
/// its own.
fn overtaken_lender() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        handle.set_low_latency(true);
        let reader = thread::spawn(move || {
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
        for seq in 0..3 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        lcore.finish();
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

/// A reader whose time is up at any moment, and who reads on later.
fn impatient_reader() {
    static FILLED: AtomicU32 = AtomicU32::new(0);
    explore_bounded(3, || {
        let (mut lcore, handle) = open();
        handle.set_low_latency(true);
        let reader = thread::spawn(move || {
            let mut read = Vec::from_iter(impatient(&handle));
            let left = 2 - read.len() as u8;
            read.extend(read_singly(&handle.into(), left));
            read
        });
        for seq in 0..2 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1]);
        FILLED.fetch_add(lcore.direct_copies(), Ordering::Relaxed);
        lcore.finish();
    });
    assert_ne!(FILLED.load(Ordering::Relaxed), 0, "nothing was ever copied directly");
}

#[test]
fn loom_nobody_writes_to_memory_that_was_taken_back() {
    impatient_reader();
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
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        handle.set_low_latency(true);
        let reader = thread::spawn(move || {
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
        for seq in 0..3 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        lcore.finish();
    });
}

#[test]
fn loom_a_reader_with_the_token_lends_in_order() {
    patient_exclusive_reader();
}

/// A reader who has the token lends, does not wait at all, and takes its memory back at any moment.
fn impatient_exclusive_reader() {
    static FILLED: AtomicU32 = AtomicU32::new(0);
    explore_bounded(3, || {
        let (mut lcore, handle) = open();
        handle.set_low_latency(true);
        let reader = thread::spawn(move || {
            let socket = &handle.socket;
            let mut read = Vec::new();
            {
                let mut side = socket.reader.claim_thread();
                let mut buf = [9];
                let now = || Instant::ZERO;
                let mut call = Call::new(&mut buf, RecvFlags::NONE, &socket.options, now);
                let mut step = socket.step(&mut side, &mut call, now());
                if let Step::Sleep(_) = step {
                    socket.lending(&mut call, Some(&mut side.copied_seq), || ());
                    step = socket.step(&mut side, &mut call, now());
                }
                socket.leave(&mut side, &mut call);
                if step == Step::Done(1) {
                    read.push(buf[0]);
                }
                let told = socket.progress.copied_seq().raw();
                assert_eq!((side.copied_seq.raw(), told), (read.len() as u32, read.len() as u32));
            }
            let left = 2 - read.len() as u8;
            read.extend(read_singly(&handle.into(), left));
            read
        });
        for seq in 0..2 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1]);
        FILLED.fetch_add(lcore.direct_copies(), Ordering::Relaxed);
        lcore.finish();
    });
    assert_ne!(FILLED.load(Ordering::Relaxed), 0, "nothing was ever copied directly");
}

#[test]
fn loom_memory_of_a_reader_with_the_token_comes_back() {
    impatient_exclusive_reader();
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

/// Two readers, of which one at most lends.
fn two_lenders() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        handle.set_low_latency(true);
        let streams = [Stream::from(handle.another()), Stream::from(handle)];
        let readers = streams.map(|stream| thread::spawn(move || read_singly(&stream, 1)[0]));
        for seq in 0..2 {
            lcore.push(seq);
        }
        lcore.settle();
        let mut read = readers.map(|reader| reader.join().unwrap());
        read.sort_unstable();
        assert_eq!(read, [0, 1]);
        lcore.finish();
    });
}

#[test]
fn loom_two_lenders_get_each_byte_once() {
    two_lenders();
}

/// An exclusive reader whose ring goes while there is something in it, and comes back.
fn switched() {
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        let reader = thread::spawn(move || {
            let switch = handle.another();
            let mut stream = Stream::from(handle);
            let mut reader = stream.reader().unwrap();
            let mut read = Vec::new();
            let mut buf = [9; 8];
            assert_eq!(reader.recv(&mut buf[..1], RecvFlags::NONE).unwrap(), 1);
            read.push(buf[0]);
            switch.set_low_latency(true);
            while read.len() < 3 {
                let n = reader.recv(&mut buf, RecvFlags::NONE).unwrap();
                read.extend_from_slice(&buf[..n]);
            }
            read
        });
        for seq in 0..3 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        lcore.finish();
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
    explore_bounded(2, || {
        let (mut lcore, handle) = open();
        let switch = handle.another();
        let reader = thread::spawn(move || read_singly(&handle.into(), 2));
        let switcher = thread::spawn(move || {
            switch.set_low_latency(true);
        });
        for seq in 0..2 {
            lcore.push(seq);
        }
        lcore.settle();
        assert_eq!(reader.join().unwrap(), [0, 1]);
        switcher.join().unwrap();
        lcore.settle();
        lcore.finish();
    });
}

#[test]
fn loom_modes_change_under_a_reader() {
    switched_by_another();
}
