//! Flags and options of single calls: looking, discarding, waiting for more, urgent data.

use std::io::{ErrorKind, IoSliceMut, Read};
use std::thread;
use std::time::Duration;

use super::hand::{Hand, Outcome, open, open_with, outcome};
use crate::buf::HeapBuf;
use crate::socket::{Received, Recv, RecvError, RecvFlags, Step, TcpStream};
use crate::tcp::Settings;

use Outcome::{Bytes, Fails, Waits};

const NONE: RecvFlags = RecvFlags::NONE;
const PEEK: RecvFlags = RecvFlags::PEEK;
const TRUNC: RecvFlags = RecvFlags::TRUNC;
const OOB: RecvFlags = RecvFlags::OOB;
const DONTWAIT: RecvFlags = RecvFlags::DONTWAIT;
const WAITALL: RecvFlags = RecvFlags::WAITALL;
const AGAIN: Outcome = Fails(RecvError::WouldBlock);
const INVALID: Outcome = Fails(RecvError::NoUrgentByte);

/// A connection with one segment of five bytes, of which the third is urgent.
fn abcde() -> (Hand, TcpStream<HeapBuf>) {
    let (mut hand, stream) = open();
    hand.urgent(b"abcde", 3);
    (hand, stream)
}

#[test]
fn looking_takes_nothing_and_discarding_copies_nothing() {
    let (mut hand, stream) = open();
    hand.data(b"0123");
    hand.data(b"456789");
    assert_eq!(hand.read(&stream, 6, PEEK), b"012345");
    assert_eq!(hand.recv(&stream, 100, PEEK.with(TRUNC)).0, Bytes(10), "how much there is");
    assert_eq!(hand.recv(&stream, 3, TRUNC), (Bytes(3), vec![0; 3]), "discarded, not copied");
    assert_eq!(hand.read(&stream, 3, NONE), b"345");
    assert_eq!(stream.discard(usize::MAX, PEEK).unwrap(), 4, "clamped, and still there");
    assert_eq!(stream.discard(usize::MAX, NONE).unwrap(), 4);
    assert_eq!(hand.recv(&stream, 1, DONTWAIT).0, AGAIN);
}

#[test]
fn looking_waits_for_all_but_not_beyond_what_fits() {
    let small = Settings { tcp_rmem: [4096, 8192, 8192], ..Settings::default() };
    let (mut hand, stream) = open_with(small);
    let mut buf = [0; 100_000];
    {
        let mut call = Recv::new(stream.handle(), &mut buf[..8], PEEK.with(WAITALL), || hand.now);
        hand.data(b"0123");
        assert_eq!(outcome(call.step(hand.now)), Waits);
        hand.data(b"4567");
        assert_eq!(outcome(call.step(hand.now)), Bytes(8));
    }
    assert_eq!(&buf[..8], b"01234567");
    let mut call = Recv::new(stream.handle(), &mut buf, PEEK.with(WAITALL), || hand.now);
    let mut sent = 8;
    loop {
        match call.step(hand.now) {
            Step::Sleep(sleep) => {
                assert!(sent < 20_000, "waits for more than can ever come");
                while !call.has_news(&sleep) && sent < 20_000 {
                    hand.data(&[b'x'; 500]);
                    sent += 500;
                }
            }
            step => break assert!(matches!(outcome(step), Bytes(1000..20_000)), "{step:?}"),
        }
    }
}

#[test]
fn reads_that_wait_use_the_same_ring_again() {
    let (mut hand, stream) = open();
    for _ in 0..3 {
        assert_eq!(hand.recv(&stream, 9, NONE).0, Waits);
        assert_eq!(hand.spare_rings(), 1);
    }
    let mut buf = [0; 9];
    let mut call = Recv::new(stream.handle(), &mut buf, NONE, || hand.now);
    assert_eq!(outcome(call.step(hand.now)), Waits);
    assert_eq!(hand.spare_rings(), 0);
    hand.data(b"0");
    assert_eq!(outcome(call.step(hand.now)), Bytes(1));
    assert_eq!(hand.spare_rings(), 1);
}

#[test]
fn reading_nothing_waits_for_something() {
    let (mut hand, stream) = open();
    assert_eq!(hand.recv(&stream, 0, NONE).0, Waits);
    assert_eq!(hand.recv(&stream, 0, DONTWAIT).0, AGAIN);
    assert_eq!((&stream).read(&mut []).unwrap(), 0, "unlike read");
    assert_eq!((&stream).read_vectored(&mut [IoSliceMut::new(&mut [])]).unwrap(), 0);
    hand.data(b"0");
    assert_eq!(hand.recv(&stream, 0, NONE).0, Bytes(0));
    assert_eq!(hand.recv(&stream, 0, WAITALL).0, Bytes(0));
    assert_eq!(hand.read(&stream, 9, NONE), b"0");
}

#[test]
fn several_buffers_are_filled_in_order() {
    let (mut hand, stream) = open();
    hand.data(b"0123456");
    let (mut a, mut b) = ([0; 2], [0; 3]);
    let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut []), IoSliceMut::new(&mut b)];
    assert_eq!(stream.recv_vectored(&mut bufs, PEEK).unwrap(), 5);
    let received = stream.recv_message(&mut bufs, WAITALL).unwrap();
    assert_eq!(received, Received { len: 5, left: 2, ..Received::default() });
    assert_eq!((&a, &b), (b"01", b"234"));
    hand.poll();
    hand.fin();
    let mut buf = [0; 9];
    let (n, peer) = stream.recv_from(&mut buf, NONE).unwrap();
    assert_eq!((&buf[..n], peer.port()), (&b"56"[..], 40_000));
    // The end is something to be learnt, before and after.
    assert_eq!(stream.recv_message(&mut [IoSliceMut::new(&mut buf)], NONE).unwrap().left, 1);
}

#[test]
fn the_peek_offset_moves_on_with_looks_and_back_with_reads() {
    let (mut hand, stream) = open();
    hand.data(b"0123456789");
    assert_eq!(stream.peek_offset(), None);
    stream.set_peek_offset(Some(0));
    assert_eq!(hand.read(&stream, 4, PEEK), b"0123");
    assert_eq!(hand.read(&stream, 4, PEEK), b"4567");
    assert_eq!(stream.peek_offset(), Some(8));
    assert_eq!(hand.read(&stream, 3, NONE), b"012");
    assert_eq!(stream.peek_offset(), Some(5));
    assert_eq!(hand.read(&stream, 9, PEEK), b"89");
    assert_eq!(hand.recv(&stream, 1, PEEK.with(DONTWAIT)).0, AGAIN, "beyond what is there");
    assert_eq!(hand.read(&stream, 100, NONE), b"3456789");
    assert_eq!(stream.peek_offset(), Some(0));
    hand.data(b"ab");
    stream.set_peek_offset(None);
    assert_eq!(hand.read(&stream, 1, PEEK), b"a");
    assert_eq!(hand.read(&stream, 1, PEEK), b"a");
    // A sleeper beyond what is there wakes when its first byte comes.
    stream.set_peek_offset(Some(3));
    let mut buf = [0; 9];
    let mut call = Recv::new(stream.handle(), &mut buf, PEEK, || hand.now);
    let Step::Sleep(sleep) = call.step(hand.now) else { panic!("nothing is there") };
    hand.data(b"c");
    assert!(!call.has_news(&sleep));
    hand.data(b"d");
    assert!(call.has_news(&sleep));
    assert_eq!(call.step(hand.now), Step::Done(1));
    drop(call);
    assert_eq!(buf[0], b'd');
}

#[test]
fn a_reader_that_has_a_part_is_woken_at_the_target_not_at_low_water_again() {
    let (mut hand, stream) = open();
    stream.set_receive_low_water(250).unwrap();
    hand.data(&[1; 100]);
    let mut buf = [0; 1000];
    let mut call = Recv::new(stream.handle(), &mut buf, NONE, || hand.now);
    let Step::Sleep(sleep) = call.step(hand.now) else { panic!("it has less than it wants") };
    hand.data(&[2; 149]);
    assert!(!call.has_news(&sleep), "woken for nothing");
    // Linux would let it sleep until 250 further bytes are unread.
    hand.data(&[3; 51]);
    assert!(call.has_news(&sleep));
    assert_eq!(call.step(hand.now), Step::Done(300));
    drop(call);
    // Nor does it wait for the mark if it asks for less.
    hand.data(&[4; 10]);
    assert_eq!(hand.recv(&stream, 10, NONE).0, Bytes(10));
}

#[test]
fn a_signal_ends_a_sleep_with_what_there_is() {
    let (mut hand, stream) = open();
    let mut buf = [0; 9];
    let mut call = Recv::new(stream.handle(), &mut buf, WAITALL, || hand.now);
    assert_eq!(outcome(call.step(hand.now)), Waits);
    call.interrupt();
    assert_eq!(outcome(call.step(hand.now)), Fails(RecvError::Interrupted));
    drop(call);
    let mut call = Recv::new(stream.handle(), &mut buf, WAITALL, || hand.now);
    assert_eq!(outcome(call.step(hand.now)), Waits);
    hand.data(b"0123");
    call.interrupt();
    assert_eq!(outcome(call.step(hand.now)), Bytes(4));
}

#[test]
fn reads_end_before_the_urgent_byte_and_the_next_passes_over_it() {
    let (mut hand, stream) = abcde();
    assert_eq!(stream.readable(), 2);
    assert!(!stream.is_at_mark());
    assert!(stream.handle().has_urgent_byte());
    assert_eq!(hand.read(&stream, 100, PEEK), b"ab");
    assert_eq!(hand.read(&stream, 100, WAITALL), b"ab", "whatever it waits for");
    assert!(stream.is_at_mark());
    assert_eq!(stream.readable(), 0);
    assert_eq!(hand.read(&stream, 100, PEEK), b"de");
    assert!(stream.is_at_mark());
    assert_eq!(hand.read(&stream, 1, NONE), b"d");
    assert!(!stream.is_at_mark());
    assert!(!stream.handle().has_urgent_byte());
    assert_eq!(stream.readable(), 1);
    assert_eq!(hand.read(&stream, 100, NONE), b"e");
    assert_eq!(hand.recv(&stream, 1, OOB).0, INVALID, "passed");
}

#[test]
fn the_urgent_byte_is_read_alone_once() {
    for read_before in [false, true] {
        let (mut hand, stream) = abcde();
        if read_before {
            assert_eq!(hand.read(&stream, 100, NONE), b"ab");
        }
        assert_eq!(hand.read(&stream, 9, OOB.with(PEEK)), b"c");
        assert_eq!(hand.read(&stream, 9, OOB), b"c");
        assert!(!stream.handle().has_urgent_byte());
        assert_eq!(hand.recv(&stream, 9, OOB).0, INVALID, "read already");
        let mut rest = vec![];
        while rest.len() < if read_before { 2 } else { 4 } {
            rest.extend(hand.read(&stream, 100, NONE));
        }
        assert!(b"abde".ends_with(&rest), "{rest:?}");
    }
    let (mut hand, stream) = abcde();
    let received = stream.recv_message(&mut [], OOB).unwrap();
    let expected = Received { len: 0, left: 5, urgent: true, truncated: true };
    assert_eq!(received, expected);
    assert_eq!(hand.recv(&stream, 9, OOB).0, INVALID, "lost for want of room");
    let (mut hand, stream) = abcde();
    assert_eq!(hand.recv(&stream, 9, OOB.with(TRUNC)), (Bytes(1), vec![0]));
}

#[test]
fn an_urgent_byte_in_line_is_read_with_the_others_but_not_across() {
    let (mut hand, stream) = abcde();
    stream.set_out_of_band_inline(true);
    assert_eq!(stream.readable(), 5);
    assert_eq!(hand.recv(&stream, 1, OOB).0, INVALID);
    assert_eq!(hand.read(&stream, 100, PEEK), b"ab");
    assert_eq!(hand.read(&stream, 100, NONE), b"ab");
    assert!(stream.is_at_mark());
    assert_eq!(hand.read(&stream, 100, NONE), b"cde");
}

#[test]
fn an_urgent_byte_that_has_not_come_is_waited_for_by_nobody() {
    let (mut hand, stream) = open();
    assert_eq!(hand.recv(&stream, 1, OOB).0, INVALID, "nothing is announced");
    hand.urgent(b"ab", 5);
    assert_eq!(hand.recv(&stream, 1, OOB).0, AGAIN);
    assert!(!stream.handle().has_urgent_byte());
    assert_eq!(stream.readable(), 2, "the mark is not within what has come");
    hand.data(b"cd");
    assert_eq!(hand.read(&stream, 100, NONE), b"abcd");
    assert!(stream.is_at_mark());
    let mut buf = [0; 9];
    let mut call = Recv::new(stream.handle(), &mut buf, NONE, || hand.now);
    let Step::Sleep(_) = call.step(hand.now) else { panic!("nothing is there") };
    // The urgent byte alone wakes nobody for good, and is passed over by whoever looks.
    hand.data(b"E");
    assert_eq!(outcome(call.step(hand.now)), Waits);
    assert_eq!(hand.recv(&stream, 1, OOB).0, INVALID);
    hand.data(b"f");
    assert_eq!(outcome(call.step(hand.now)), Bytes(1));
    drop(call);
    assert_eq!(buf[0], b'f');
    hand.urgent(b"", 3);
    hand.fin();
    assert_eq!(hand.recv(&stream, 1, OOB).0, Bytes(0), "it will not come");
}

#[test]
fn an_urgent_byte_alone_is_passed_over_by_a_read_that_finds_nothing() {
    let (mut hand, stream) = open();
    hand.urgent(b"!", 1);
    assert_eq!(hand.recv(&stream, 9, PEEK.with(DONTWAIT)).0, AGAIN);
    assert_eq!(hand.read(&stream, 9, OOB.with(PEEK)), b"!");
    assert_eq!(hand.recv(&stream, 9, DONTWAIT).0, AGAIN);
    assert_eq!(hand.recv(&stream, 9, OOB).0, INVALID);
    hand.data(b"on");
    assert_eq!(hand.read(&stream, 9, NONE), b"on");
}

#[test]
fn news_of_urgent_data_ends_a_sleep_before_the_mark() {
    let (mut hand, stream) = open();
    hand.data(b"ab");
    let mut buf = [0; 100];
    let mut call = Recv::new(stream.handle(), &mut buf, WAITALL, || hand.now);
    let Step::Sleep(sleep) = call.step(hand.now) else { panic!("it wants more") };
    hand.urgent(b"cd!ef", 3);
    assert!(call.has_news(&sleep));
    assert_eq!(call.step(hand.now), Step::Done(4));
    drop(call);
    assert_eq!(&buf[..4], b"abcd");
    assert_eq!(hand.read(&stream, 100, NONE), b"ef");
}

#[test]
fn a_new_mark_takes_the_place_of_the_old_one() {
    let (mut hand, stream) = open();
    hand.urgent(b"aBc", 2);
    hand.urgent(b"dEf", 2);
    assert_eq!(hand.read(&stream, 9, OOB), b"E");
    assert_eq!(hand.read(&stream, 100, NONE), b"aBcd", "the old byte is as any other");
    assert_eq!(hand.read(&stream, 100, NONE), b"f");

    // Unless somebody stands there: as in BSD and Linux it is gone then.
    hand.urgent(b"gHi", 2);
    assert_eq!(hand.read(&stream, 100, NONE), b"g");
    hand.urgent(b"jKl", 2);
    assert_eq!(hand.read(&stream, 100, NONE), b"ij");
    assert_eq!(hand.read(&stream, 100, NONE), b"l");

    hand.rst();
    assert_eq!(hand.recv(&stream, 9, OOB).0, INVALID);
    let (mut hand, stream) = abcde();
    hand.rst();
    assert_eq!(hand.recv(&stream, 9, OOB).0, Fails(RecvError::NotConnected));
}

#[test]
fn marks_hold_while_a_ring_is_installed() {
    let (mut hand, mut stream) = open();
    let other = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    hand.data(b"ab");
    hand.urgent(b"cD", 2);
    hand.data(b"ef");
    let mut buf = [0; 9];
    assert_eq!(reader.recv(&mut buf, NONE).unwrap(), 3);
    assert_eq!(&buf[..3], b"abc");
    assert!(other.is_at_mark());
    assert_eq!(reader.recv(&mut buf, OOB).unwrap(), 1);
    assert_eq!(buf[0], b'D');
    assert_eq!(reader.recv(&mut buf, WAITALL.with(DONTWAIT)).unwrap(), 2);
    assert_eq!(&buf[..2], b"ef");
    hand.poll();
    hand.data(b"g");
    assert_eq!(reader.recv(&mut buf, NONE).unwrap(), 1, "through the ring again");
}

#[test]
fn calls_with_a_limit_do_not_wait_for_an_exclusive_reader_beyond_it() {
    let (mut hand, mut stream) = open();
    let other = stream.try_clone().unwrap();
    hand.data(b"0123456789");
    let reader = stream.reader().unwrap();
    for flags in [DONTWAIT, DONTWAIT.with(PEEK), DONTWAIT.with(OOB)] {
        let error = other.recv(&mut [0; 9], flags).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    other.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    assert_eq!(other.recv(&mut [0; 9], NONE).unwrap_err().kind(), ErrorKind::WouldBlock);
    other.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut buf = [0; 4];
            other.recv(&mut buf, NONE).map(|_| buf)
        });
        thread::sleep(Duration::from_millis(5));
        drop(reader);
        assert_eq!(waiting.join().unwrap().unwrap(), *b"0123", "woken when it has gone");
    });
    assert_eq!(hand.read(&other, 9, DONTWAIT), b"456789");
}

#[test]
fn a_peek_that_waits_forgets_what_another_call_has_read() {
    let (mut hand, stream) = open();
    let now = hand.now;
    hand.data(b"12345");
    let mut seen = [0; 10];
    let mut peek = Recv::new(stream.handle(), &mut seen, PEEK.with(WAITALL), || now);
    assert!(matches!(peek.step(now), Step::Sleep(_)));
    assert_eq!(stream.recv(&mut [0; 5], NONE).unwrap(), 5);
    assert!(matches!(peek.step(now), Step::Sleep(_)));
    hand.fin();
    assert_eq!(peek.step(now), Step::Done(0), "none of the five is left");
}
