//! Segments reach their readers uncopied, each byte once, and their buffers come back.

use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind, Read};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::lcore::{Buf, End, Lcore, Plan, byte_at};
use crate::socket::{Arrival, Reader, RecvFlags, Slice, TcpStream, View};

const BYTES: u64 = if cfg!(debug_assertions) { 1 << 20 } else { 64 << 20 };

/// Checks bytes against the stream and its numbering, and goes on from them.
fn check(offset: &mut u64, first: &mut Option<u32>, view: View<'_, Buf>) {
    let sequence = view.sequence();
    let start = *first.get_or_insert(sequence.start.raw());
    assert_eq!(sequence.start.raw(), start.wrapping_add(*offset as u32));
    assert_eq!(sequence.len() as usize, view.data().len());
    assert!(!view.data().is_empty());
    assert!(matches!(view.arrival(), Arrival::Burst(when) if when == view.burst_time()));
    check_bytes(offset, view.data());
}

fn check_bytes(offset: &mut u64, bytes: &[u8]) {
    for byte in bytes {
        assert_eq!(*byte, byte_at(*offset), "at {offset}");
        *offset += 1;
    }
}

/// One way to read.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Copies so many bytes.
    Copy(usize),
    /// Lends so many segments, to the end of the last one or only so much of it.
    Lend(usize, Option<usize>),
    /// Lends a segment that is forgotten: it stays.
    Forget,
    /// Takes so many segments over, and drops the older half of those that are held.
    TakeOver(usize),
    Peek,
    BufRead(usize),
    /// Another reader goes on.
    Renew,
}

fn ways() -> impl Strategy<Value = Vec<Way>> {
    let way = prop_oneof![
        (1..4000_usize).prop_map(Way::Copy),
        (1..40_usize, prop::option::of(0..700_usize)).prop_map(|(n, part)| Way::Lend(n, part)),
        Just(Way::Forget),
        (1..10_usize).prop_map(Way::TakeOver),
        Just(Way::Peek),
        (1..2000_usize).prop_map(Way::BufRead),
        Just(Way::Renew),
    ];
    prop::collection::vec(way, 1..30)
}

/// Reads the next of the stream in one way; `false` at the end.
fn read(
    reader: &mut Reader<'_, Buf>,
    way: Way,
    offset: &mut u64,
    held: &mut VecDeque<Slice<Buf>>,
) -> bool {
    let first = &mut Some(u32::MAX - 100_000 + 1);
    match way {
        Way::Copy(n) => {
            let mut buf = vec![0; n];
            let n = reader.read(&mut buf).unwrap();
            check_bytes(offset, &buf[..n]);
            n != 0
        }
        Way::Lend(n, part) => {
            let mut segments = reader.segments(RecvFlags::NONE).unwrap();
            for _ in 0..n {
                let Some(segment) = segments.next_segment() else { break };
                check(offset, first, segment.view());
            }
            if let Some(part) = part
                && let Some(segment) = segments.next_segment()
            {
                let part = part.min(segment.len());
                check_bytes(offset, &segment[..part]);
                segment.consume(part);
            }
            !segments.is_end()
        }
        Way::Forget => {
            let mut segments = reader.segments(RecvFlags::NONE).unwrap();
            if let Some(segment) = segments.next_segment() {
                let mut at = *offset;
                check(&mut at, first, segment.view());
                std::mem::forget(segment);
            }
            let end = segments.is_end();
            std::mem::forget(segments);
            !end
        }
        Way::TakeOver(n) => {
            let mut segments = reader.segments(RecvFlags::NONE).unwrap();
            for _ in 0..n {
                let Some(segment) = segments.next_segment() else { break };
                let slice = segment.into_slice();
                check(offset, first, slice.view());
                held.push_back(slice);
            }
            held.drain(..held.len() / 2);
            !segments.is_end()
        }
        Way::Peek => {
            let mut at = *offset;
            let mut any = false;
            for view in reader.peek_segments(RecvFlags::NONE).unwrap() {
                check(&mut at, first, view);
                any = true;
            }
            any
        }
        Way::BufRead(most) => {
            let bytes = reader.fill_buf().unwrap();
            let n = bytes.len().min(most);
            check_bytes(offset, &bytes[..n]);
            reader.consume(n);
            n != 0
        }
        Way::Renew => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn each_byte_is_read_once_in_every_way(
        ways in ways(),
        segment in prop_oneof![Just(1460_u32), Just(100)],
        rcvbuf in prop_oneof![Just(1_u32 << 20), Just(60_000)],
    ) {
        // Something that reads must be among them.
        let mut ways = ways;
        ways.push(Way::Copy(5000));
        let plan = Plan { segment, rcvbuf, ..Plan::new(BYTES / 4) };
        let (lcore, handle) = Lcore::start(plan);
        let mut stream = TcpStream::from(handle);
        let mut offset = 0;
        let mut held = VecDeque::new();
        let mut ways = ways.iter().copied().cycle();
        let mut reading = true;
        while reading {
            let mut reader = stream.reader().unwrap();
            loop {
                // Who keeps all that it is given waits for ever.
                held.drain(..held.len().saturating_sub(8));
                let way = ways.next().unwrap();
                if matches!(way, Way::Renew) {
                    break;
                }
                if !read(&mut reader, way, &mut offset, &mut held) {
                    reading = false;
                    break;
                }
            }
        }
        prop_assert_eq!(offset, plan.bytes);
        drop((held, stream));
        lcore.assert_all_comes_back();
    }
}

#[test]
fn slices_go_back_from_whatever_thread_drops_them() {
    let plan = Plan { rcvbuf: 200_000, ..Plan::new(BYTES) };
    let (lcore, handle) = Lcore::start(plan);
    let mut stream = TcpStream::from(handle);
    let (to, from) = mpsc::sync_channel::<Slice<Buf>>(16);
    let other = thread::spawn(move || {
        let (mut offset, mut first) = (0, None);
        for slice in from {
            check(&mut offset, &mut first, slice.view());
        }
        offset
    });
    let mut reader = stream.reader().unwrap();
    loop {
        let mut segments = reader.segments(RecvFlags::NONE).unwrap();
        if segments.is_end() {
            break;
        }
        while let Some(segment) = segments.next_segment() {
            to.send(segment.into_slice()).unwrap();
        }
    }
    drop((to, reader));
    assert_eq!(other.join().unwrap(), plan.bytes);
    drop(stream);
    lcore.assert_all_comes_back();
}

/// Waits until a condition holds.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "in vain: {what}");
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn what_is_held_is_charged_and_closes_the_window_until_it_is_dropped() {
    let plan = Plan { rcvbuf: 100_000, end: End::Silence, ..Plan::new(1 << 20) };
    let (lcore, handle) = Lcore::start(plan);
    let mut stream = TcpStream::from(handle);
    let other = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    let mut held = Vec::new();
    let mut rmem = 0;
    // A reader that reads all it gets and drops nothing is given what the buffer holds, no more.
    eventually("the window closes", || {
        if let Ok(mut segments) = reader.segments(RecvFlags::DONTWAIT) {
            while let Some(segment) = segments.next_segment() {
                held.push(segment.into_slice());
            }
        }
        // Under the lock, so that nothing comes between one look and the next.
        let locked = other.lock();
        rmem = locked.connection().rmem();
        other.readable() == 0 && locked.connection().offered_window() < 1460
    });
    let charge: u32 = held.iter().map(|slice| slice.view().truesize()).sum();
    assert_eq!(rmem, charge);
    assert!(charge + 1460 * 2 > plan.rcvbuf / 2, "{charge} bytes fill it");
    let before = held.iter().map(|slice| slice.len() as u64).sum::<u64>();

    // Dropped elsewhere, they open it again.
    thread::spawn(move || drop(held)).join().unwrap();
    let mut offset = before;
    while offset < plan.bytes {
        let mut segments = reader.segments(RecvFlags::NONE).unwrap();
        while let Some(segment) = segments.next_segment() {
            check_bytes(&mut offset, &segment);
        }
    }
    eventually("nothing is charged", || other.lock().connection().rmem() == 0);
    drop(reader);
    drop((stream, other));
    drop(lcore);
}

#[test]
fn a_slice_outlives_stream_and_lcore() {
    let (mut lcore, handle) = Lcore::start(Plan { end: End::Silence, ..Plan::new(20_000) });
    let mut stream = TcpStream::from(handle);
    let mut reader = stream.reader().unwrap();
    let slice = {
        let mut segments = reader.segments(RecvFlags::NONE).unwrap();
        segments.next_segment().unwrap().into_slice()
    };
    drop(reader);
    drop(stream);
    lcore.stop();
    check_bytes(&mut 0, &slice);
    assert_ne!(lcore.live.count(), 0);
    let live = lcore.live.clone();
    drop(lcore);
    drop(slice);
    assert_eq!(live.count(), 0, "the last one frees all that came back late");
}

#[test]
fn segments_wait_for_the_low_water_mark_and_for_no_longer_than_the_timeout() {
    let pause = Duration::from_millis(1);
    let plan = Plan { segment: 100, end: End::Silence, pause, ..Plan::new(30_000) };
    let (lcore, handle) = Lcore::start_held(plan);
    let mut stream = TcpStream::from(handle);
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let options = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    let kind = |reader: &mut Reader<'_, Buf>, flags| reader.segments(flags).unwrap_err().kind();
    assert_eq!(kind(&mut reader, RecvFlags::PEEK), ErrorKind::InvalidInput);
    assert_eq!(kind(&mut reader, RecvFlags::DONTWAIT), ErrorKind::WouldBlock);
    let start = Instant::now();
    assert_eq!(kind(&mut reader, RecvFlags::NONE), ErrorKind::WouldBlock);
    assert!(start.elapsed() >= Duration::from_millis(30));

    options.set_receive_low_water(7_000).unwrap();
    options.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    lcore.go.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut offset = 0;
    for _ in 0..4 {
        let there: usize =
            reader.peek_segments(RecvFlags::NONE).unwrap().map(|view| view.data().len()).sum();
        assert!(there >= 7_000, "woken for {there} bytes");
        let mut segments = reader.segments(RecvFlags::NONE).unwrap();
        let before = offset;
        while offset - before < 7_000 {
            check_bytes(&mut offset, &segments.next_segment().unwrap());
        }
    }
    // Less than the mark is left, and time passes in vain; what is there is returned.
    options.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    while offset < plan.bytes {
        let mut segments = reader.segments(RecvFlags::NONE).unwrap();
        while let Some(segment) = segments.next_segment() {
            check_bytes(&mut offset, &segment);
        }
    }
    assert_eq!(kind(&mut reader, RecvFlags::NONE), ErrorKind::WouldBlock);
    drop(reader);
}

#[test]
fn the_end_and_errors_come_behind_the_data() {
    for (end, last) in [(End::Fin, Ok(true)), (End::Reset, Err(ErrorKind::ConnectionReset))] {
        let (_lcore, handle) = Lcore::start(Plan { end, ..Plan::new(10_000) });
        let mut stream = TcpStream::from(handle);
        let mut reader = stream.reader().unwrap();
        let mut offset = 0;
        let outcome = loop {
            match reader.segments(RecvFlags::NONE) {
                Err(error) => break Err(error.kind()),
                Ok(segments) if segments.is_end() => break Ok(true),
                Ok(mut segments) => {
                    while let Some(segment) = segments.next_segment() {
                        check_bytes(&mut offset, &segment);
                    }
                }
            }
        };
        assert_eq!((offset, outcome), (10_000, last));
        assert!(reader.segments(RecvFlags::NONE).unwrap().is_end(), "from then on it is the end");
    }
}
