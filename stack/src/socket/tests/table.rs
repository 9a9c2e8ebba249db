//! What reads return in every situation: each row a situation, each column a way of reading.

use std::net::Shutdown;
use std::time::Duration;

use super::hand::{Hand, Outcome, open_with, outcome};
use crate::buf::HeapBuf;
use crate::socket::{Recv, RecvError, RecvFlags, Step, TcpStream};
use crate::tcp::Settings;
use crate::tcp::tcb::ConnError;

use Outcome::{Bytes, Fails, Waits};

type Stream = TcpStream<HeapBuf>;
type Event = fn(&mut Hand, &Stream);

/// The bytes that are there before the end; WAITALL asks for more.
const D: &[u8] = b"0123456789";

const AGAIN: Outcome = Fails(RecvError::WouldBlock);
const RESET: Outcome = Fails(RecvError::Connection(ConnError::Reset));
const TIMED_OUT: Outcome = Fails(RecvError::Connection(ConnError::TimedOut));
const NOT_CONNECTED: Outcome = Fails(RecvError::NotConnected);

/// A row: what has happened before the first read, what happens while it sleeps if it does, and what
/// reads in a row return.
struct Row {
    name: &'static str,
    before: Event,
    asleep: Option<Event>,
    /// Without flags, waiting.
    blocking: &'static [Outcome],
    /// The same without waiting, by the option and by the flag.
    nonblocking: &'static [Outcome],
    /// With WAITALL, for more than there is.
    waitall: &'static [Outcome],
    /// The same without waiting.
    waitall_nonblocking: &'static [Outcome],
}

fn nothing(_: &mut Hand, _: &Stream) {}

const ROWS: &[Row] = &[
    Row {
        name: "data, open",
        before: |hand, _| hand.data(D),
        asleep: None,
        blocking: &[Bytes(10), Waits],
        nonblocking: &[Bytes(10), AGAIN],
        waitall: &[Waits],
        waitall_nonblocking: &[Bytes(10), AGAIN],
    },
    Row {
        name: "nothing, open",
        before: nothing,
        asleep: None,
        blocking: &[Waits],
        nonblocking: &[AGAIN],
        waitall: &[Waits],
        waitall_nonblocking: &[AGAIN],
    },
    Row {
        name: "data comes to a sleeper",
        before: nothing,
        asleep: Some(|hand, _| hand.data(D)),
        blocking: &[Bytes(10), Waits],
        nonblocking: &[AGAIN],
        waitall: &[Waits],
        waitall_nonblocking: &[AGAIN],
    },
    Row {
        name: "data, end",
        before: |hand, _| {
            hand.data(D);
            hand.fin();
        },
        asleep: None,
        blocking: &[Bytes(10), Bytes(0), Bytes(0), Bytes(0)],
        nonblocking: &[Bytes(10), Bytes(0), Bytes(0)],
        waitall: &[Bytes(10), Bytes(0), Bytes(0)],
        waitall_nonblocking: &[Bytes(10), Bytes(0), Bytes(0)],
    },
    Row {
        name: "end",
        before: |hand, _| hand.fin(),
        asleep: None,
        blocking: &[Bytes(0), Bytes(0)],
        nonblocking: &[Bytes(0), Bytes(0)],
        waitall: &[Bytes(0), Bytes(0)],
        waitall_nonblocking: &[Bytes(0), Bytes(0)],
    },
    Row {
        name: "data, reset",
        before: |hand, _| {
            hand.data(D);
            hand.rst();
        },
        asleep: None,
        blocking: &[Bytes(10), RESET, Bytes(0), Bytes(0)],
        nonblocking: &[Bytes(10), RESET, Bytes(0)],
        waitall: &[Bytes(10), RESET, Bytes(0)],
        waitall_nonblocking: &[Bytes(10), RESET, Bytes(0)],
    },
    Row {
        name: "reset while asleep",
        before: nothing,
        asleep: Some(|hand, _| hand.rst()),
        blocking: &[RESET, Bytes(0), Bytes(0)],
        nonblocking: &[AGAIN],
        waitall: &[RESET, Bytes(0)],
        waitall_nonblocking: &[AGAIN],
    },
    Row {
        name: "reset while asleep with a part",
        before: |hand, _| hand.data(D),
        asleep: Some(|hand, _| hand.rst()),
        blocking: &[Bytes(10), RESET, Bytes(0)],
        nonblocking: &[Bytes(10), AGAIN],
        waitall: &[Bytes(10), RESET, Bytes(0)],
        waitall_nonblocking: &[Bytes(10), AGAIN],
    },
    Row {
        name: "data, end, reset",
        before: |hand, _| {
            hand.data(D);
            hand.fin();
            hand.rst();
        },
        asleep: None,
        blocking: &[Bytes(10), Bytes(0), Bytes(0)],
        nonblocking: &[Bytes(10), Bytes(0), Bytes(0)],
        waitall: &[Bytes(10), Bytes(0), Bytes(0)],
        waitall_nonblocking: &[Bytes(10), Bytes(0), Bytes(0)],
    },
    Row {
        name: "data, reset, SO_ERROR read",
        before: |hand, stream| {
            hand.data(D);
            hand.rst();
            assert!(stream.take_error().unwrap().is_some());
        },
        asleep: None,
        blocking: &[Bytes(10), Bytes(0), Bytes(0)],
        nonblocking: &[Bytes(10), Bytes(0)],
        waitall: &[Bytes(10), Bytes(0)],
        waitall_nonblocking: &[Bytes(10), Bytes(0)],
    },
    Row {
        name: "data, the peer answers no more",
        before: |hand, stream| {
            hand.data(D);
            stream.shutdown(Shutdown::Write).unwrap();
            hand.poll();
            hand.pass(Duration::from_secs(60));
        },
        asleep: None,
        blocking: &[Bytes(10), TIMED_OUT, Bytes(0)],
        nonblocking: &[Bytes(10), TIMED_OUT, Bytes(0)],
        waitall: &[Bytes(10), TIMED_OUT, Bytes(0)],
        waitall_nonblocking: &[Bytes(10), TIMED_OUT, Bytes(0)],
    },
    Row {
        name: "reading side shut",
        before: |_, stream| stream.shutdown(Shutdown::Read).unwrap(),
        asleep: None,
        blocking: &[Bytes(0), Bytes(0)],
        nonblocking: &[Bytes(0)],
        waitall: &[Bytes(0)],
        waitall_nonblocking: &[Bytes(0)],
    },
    Row {
        name: "reading side shut while asleep",
        before: nothing,
        asleep: Some(|_, stream| stream.shutdown(Shutdown::Read).unwrap()),
        blocking: &[Bytes(0), Bytes(0)],
        nonblocking: &[AGAIN],
        waitall: &[Bytes(0)],
        waitall_nonblocking: &[AGAIN],
    },
    Row {
        name: "reading side shut, data comes later",
        before: |hand, stream| {
            stream.shutdown(Shutdown::Read).unwrap();
            hand.poll();
            hand.data(D);
        },
        asleep: None,
        blocking: &[Bytes(10), Bytes(0)],
        nonblocking: &[Bytes(10), Bytes(0)],
        waitall: &[Bytes(10), Bytes(0)],
        waitall_nonblocking: &[Bytes(10), Bytes(0)],
    },
    Row {
        name: "reset by this side",
        before: |hand, stream| {
            stream.handle().abort();
            hand.poll();
        },
        asleep: None,
        blocking: &[NOT_CONNECTED, NOT_CONNECTED],
        nonblocking: &[NOT_CONNECTED],
        waitall: &[NOT_CONNECTED],
        waitall_nonblocking: &[NOT_CONNECTED],
    },
    Row {
        name: "our end, theirs, data",
        before: |hand, stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            hand.poll();
            hand.data(D);
            hand.ack_fin();
            hand.fin();
        },
        asleep: None,
        blocking: &[Bytes(10), Bytes(0)],
        nonblocking: &[Bytes(10), Bytes(0)],
        waitall: &[Bytes(10), Bytes(0)],
        waitall_nonblocking: &[Bytes(10), Bytes(0)],
    },
];

#[derive(Clone, Copy, Debug)]
enum Way {
    Option,
    Flag,
    Waiting,
}

/// Reads as often as a row says. What happens to sleepers happens once.
fn check(row: &Row, way: Way, flags: RecvFlags, expected: &[Outcome], peek: bool) {
    // A FIN that nobody acknowledges is given up soon.
    let (mut hand, stream) = open_with(Settings { tcp_retries2: 2, ..Settings::default() });
    (row.before)(&mut hand, &stream);
    stream.set_nonblocking(matches!(way, Way::Option)).unwrap();
    let flags = if matches!(way, Way::Flag) { flags.with(RecvFlags::DONTWAIT) } else { flags };
    let len = if flags.has(RecvFlags::WAITALL) { 2 * D.len() } else { 100 };
    let mut asleep = row.asleep;
    for (nth, expected) in expected.iter().enumerate() {
        let context = format!("{}: read {nth}, {way:?} {flags:?}, peek {peek}", row.name);
        if peek && matches!(expected, Bytes(1..)) {
            // Whatever is there is seen before it is read, and stays.
            let flags = flags.with(RecvFlags::PEEK).with(RecvFlags::DONTWAIT);
            let n = hand.recv(&stream, len, flags).0;
            assert!(matches!(n, Bytes(10) | AGAIN), "{context}: {n:?}");
        }
        let mut buf = vec![0; len];
        let mut call = Recv::new(stream.handle(), &mut buf, flags, || hand.now);
        let mut step = call.step(hand.now);
        if let Step::Sleep(sleep) = step
            && let Some(event) = asleep.take()
        {
            assert!(!call.has_news(&sleep), "{context}");
            event(&mut hand, &stream);
            if call.has_news(&sleep) {
                step = call.step(hand.now);
            }
        }
        drop(call);
        assert_eq!(outcome(step), *expected, "{context}");
        if let Bytes(n @ 1..) = expected {
            assert_eq!(buf[..*n], D[..*n], "{context}");
        }
        hand.poll();
    }
}

#[test]
fn every_cell_of_the_table_of_return_values() {
    for row in ROWS {
        for peek in [false, true] {
            check(row, Way::Waiting, RecvFlags::NONE, row.blocking, peek);
            check(row, Way::Waiting, RecvFlags::WAITALL, row.waitall, peek);
            for way in [Way::Option, Way::Flag] {
                check(row, way, RecvFlags::NONE, row.nonblocking, peek);
                check(row, way, RecvFlags::WAITALL, row.waitall_nonblocking, peek);
            }
        }
    }
}

/// The same by an exclusive reader, in either mode: in low-latency mode it lends what it waits with.
fn check_reader(row: &Row, low_latency: bool, flags: RecvFlags, expected: &[Outcome]) {
    let (mut hand, mut stream) = open_with(Settings { tcp_retries2: 2, ..Settings::default() });
    stream.set_low_latency(low_latency);
    (row.before)(&mut hand, &stream);
    let other = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    let len = if flags.has(RecvFlags::WAITALL) { 2 * D.len() } else { 100 };
    let mut asleep = row.asleep;
    for (nth, expected) in expected.iter().enumerate() {
        let context = format!("{}: read {nth} of a reader, {flags:?}", row.name);
        let mut buf = vec![0; len];
        let step = reader.recv_while(&mut buf, flags, || {
            if let Some(event) = asleep.take() {
                event(&mut hand, &other);
            }
        });
        assert_eq!(outcome(step), *expected, "{context}");
        if let Bytes(n @ 1..) = expected {
            assert_eq!(buf[..*n], D[..*n], "{context}");
        }
        hand.poll();
    }
}

#[test]
fn every_cell_of_the_table_holds_for_exclusive_readers() {
    for row in ROWS {
        for low_latency in [false, true] {
            check_reader(row, low_latency, RecvFlags::NONE, row.blocking);
            check_reader(row, low_latency, RecvFlags::WAITALL, row.waitall);
            let once = RecvFlags::DONTWAIT;
            check_reader(row, low_latency, once, row.nonblocking);
            check_reader(row, low_latency, once.with(RecvFlags::WAITALL), row.waitall_nonblocking);
        }
    }
}

#[test]
fn an_error_behind_the_end_is_told_by_so_error_alone() {
    let (mut hand, stream) = open_with(Settings::default());
    hand.fin();
    hand.rst();
    assert_eq!(hand.recv(&stream, 9, RecvFlags::NONE).0, Bytes(0));
    let error = stream.take_error().unwrap().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(stream.take_error().unwrap().is_none());
    assert_eq!(hand.recv(&stream, 9, RecvFlags::NONE).0, Bytes(0));
}

#[test]
fn shutting_what_is_over_is_an_error_that_changes_nothing() {
    let (mut hand, stream) = open_with(Settings::default());
    hand.data(D);
    hand.rst();
    let error = stream.shutdown(Shutdown::Both).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    assert_eq!(hand.read(&stream, 9, RecvFlags::NONE), D[..9]);
}
