//! How calls wait: what they were told, and what a reader that spins tells late.

use std::time::Duration;

use super::hand::open;
use super::lcore::{Lcore, Plan, byte_at};
use crate::socket::{RecvFlags, TcpStream, Waiting};

const ALL: [Waiting; 3] = [Waiting::Spin, Waiting::SpinThenPark, Waiting::Park];

#[test]
fn flags_say_how_to_wait_and_else_the_stream_does() {
    let (spin, park) = (RecvFlags::SPIN, RecvFlags::PARK);
    for of_stream in ALL {
        assert_eq!(RecvFlags::NONE.waiting(of_stream), of_stream);
        assert_eq!(RecvFlags::WAITALL.waiting(of_stream), of_stream);
        assert_eq!(spin.waiting(of_stream), Waiting::Spin);
        assert_eq!(park.with(RecvFlags::PEEK).waiting(of_stream), Waiting::Park);
        assert_eq!(spin.with(park).waiting(of_stream), Waiting::SpinThenPark);
    }
    let (_hand, stream) = open();
    assert_eq!(stream.waiting(), Waiting::SpinThenPark);
    for waiting in ALL {
        stream.set_waiting(waiting);
        assert_eq!(stream.try_clone().unwrap().waiting(), waiting);
    }
}

#[test]
fn every_way_of_waiting_gets_every_byte_from_a_sleepy_lcore() {
    for flags in [RecvFlags::SPIN, RecvFlags::PARK, RecvFlags::SPIN.with(RecvFlags::PARK)] {
        for exclusive in [false, true] {
            let plan = Plan { pause: Duration::from_micros(200), ..Plan::new(300_000) };
            let (lcore, handle) = Lcore::start(plan);
            let mut stream = TcpStream::from(handle);
            let mut buf = vec![0; 10_000];
            let mut offset = 0;
            let mut check = |bytes: &[u8]| {
                for byte in bytes {
                    assert_eq!(*byte, byte_at(offset), "byte {offset} ({flags:?})");
                    offset += 1;
                }
                !bytes.is_empty()
            };
            if exclusive {
                let mut reader = stream.reader().unwrap();
                while let n = reader.recv(&mut buf, flags).unwrap()
                    && check(&buf[..n])
                {}
            } else {
                while let n = stream.recv(&mut buf, flags).unwrap()
                    && check(&buf[..n])
                {}
            }
            assert_eq!(offset, plan.bytes);
            drop(stream);
            lcore.assert_all_comes_back();
        }
    }
}

/// A window so small that the peer needs every update that the reader owes.
#[test]
fn a_spinning_reader_with_a_small_window_is_never_left_waiting() {
    let plan = Plan { rcvbuf: 8 * 1024, segment: 100, ..Plan::new(400_000) };
    let (lcore, handle) = Lcore::start(plan);
    let mut stream = TcpStream::from(handle);
    let mut reader = stream.reader().unwrap();
    let (mut buf, mut offset) = ([0; 64], 0);
    while let n @ 1.. = reader.recv(&mut buf, RecvFlags::SPIN).unwrap() {
        for byte in &buf[..n] {
            assert_eq!(*byte, byte_at(offset));
            offset += 1;
        }
    }
    assert_eq!(offset, plan.bytes);
    drop(reader);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn a_spinning_reader_tells_what_it_has_read_when_it_finds_nothing_more() {
    let (mut hand, mut stream) = open();
    let watched = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    let mut buf = [0; 100];
    for (flags, told) in [(RecvFlags::NONE, true), (RecvFlags::SPIN, false)] {
        hand.data(b"12345");
        assert_eq!(reader.recv(&mut buf, flags).unwrap(), 5);
        assert_eq!(watched.readable(), if told { 0 } else { 5 }, "{flags:?}");
    }
    let nothing = RecvFlags::SPIN.with(RecvFlags::DONTWAIT);
    reader.recv(&mut buf, nothing).unwrap_err();
    assert_eq!(watched.readable(), 0);

    hand.data(b"12345");
    assert_eq!(reader.recv(&mut buf, RecvFlags::SPIN).unwrap(), 5);
    drop(reader);
    assert_eq!(watched.readable(), 0, "nor does it leave without telling");
}

#[test]
fn a_spinning_reader_returns_with_what_suffices_and_the_rest_is_there_for_the_next_call() {
    const SEGMENTS: usize = 300;
    let (mut hand, mut stream) = open();
    let watched = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    let mut buf = [0; SEGMENTS];
    // Who wants more than came by the ring gets it.
    let whole = RecvFlags::SPIN.with(RecvFlags::WAITALL);
    for (flags, calls) in [(RecvFlags::SPIN, 2), (RecvFlags::NONE, 1), (whole, 1)] {
        // More small ones than are passed by the ring; the others wait in the receive queue.
        (0..SEGMENTS).for_each(|n| hand.data(&[n as u8]));
        assert_eq!(watched.readable() as usize, SEGMENTS);
        let mut read = 0;
        for _ in 0..calls {
            assert!(read < SEGMENTS, "the ring holds no more than {read}");
            read += reader.recv(&mut buf[read..], flags).unwrap();
        }
        assert!(buf.iter().copied().eq((0..SEGMENTS).map(|n| n as u8)), "{read}, {flags:?}");
        let nothing = RecvFlags::SPIN.with(RecvFlags::DONTWAIT);
        reader.recv(&mut buf, nothing).unwrap_err();
        buf.fill(0xff);
    }
}
