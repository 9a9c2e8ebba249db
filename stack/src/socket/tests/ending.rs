//! Ends of streams, of handles, of lcores; errors, time limits, panics.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use super::lcore::{Buf, End, Lcore, Plan, byte_at};
use crate::buf::Returns;
use crate::socket::owner::{LcoreClaim, ThreadClaim};
use crate::socket::{AcceptQueue, Reader, RecvFlags, SocketGuard, TcpListener, TcpStream};

fn start(plan: Plan) -> (Lcore, TcpStream<Buf>) {
    let (lcore, handle) = Lcore::start(plan);
    (lcore, handle.into())
}

fn silent(bytes: u64) -> Plan {
    Plan { end: End::Silence, ..Plan::new(bytes) }
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_reset_is_told_once_behind_the_data() {
    let (lcore, stream) = start(Plan { end: End::Reset, ..Plan::new(5000) });
    let mut buf = vec![0; 5000];
    assert_eq!(stream.recv(&mut buf, RecvFlags::WAITALL).unwrap(), 5000);
    assert_eq!(kind(stream.recv(&mut buf, RecvFlags::NONE)), ErrorKind::ConnectionReset);
    assert_eq!(stream.recv(&mut buf, RecvFlags::NONE).unwrap(), 0);
    drop(stream);
    drop(lcore);
}

#[test]
fn an_error_that_was_taken_is_not_told_again() {
    let (_lcore, stream) = start(Plan { end: End::Reset, ..Plan::new(0) });
    let error = loop {
        if let Some(error) = stream.take_error().unwrap() {
            break error;
        }
        thread::yield_now();
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(stream.recv(&mut [0; 9], RecvFlags::NONE).unwrap(), 0);
}

#[test]
fn a_call_that_does_not_wait_takes_what_there_is() {
    let (_lcore, stream) = start(silent(10));
    let mut buf = [0; 100];
    while stream.readable() < 10 {
        thread::yield_now();
    }
    let flags = RecvFlags::DONTWAIT.with(RecvFlags::WAITALL);
    assert_eq!(stream.recv(&mut buf, flags).unwrap(), 10);
    assert_eq!(kind(stream.recv(&mut buf, flags)), ErrorKind::WouldBlock);
    stream.set_nonblocking(true).unwrap();
    assert_eq!(kind(stream.recv(&mut [], RecvFlags::NONE)), ErrorKind::WouldBlock);
}

#[test]
fn a_read_timeout_is_a_limit_on_the_whole_call() {
    let (_lcore, stream) = start(silent(10));
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    while stream.readable() < 10 {
        thread::yield_now();
    }
    let start = Instant::now();
    let mut buf = [0; 100];
    assert_eq!(stream.recv(&mut buf, RecvFlags::WAITALL).unwrap(), 10);
    assert_eq!(kind(stream.recv(&mut buf, RecvFlags::NONE)), ErrorKind::WouldBlock);
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert_eq!(kind(stream.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
}

#[test]
fn low_water_is_waited_for_unless_less_is_asked() {
    let (_lcore, stream) = start(silent(10));
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    stream.set_receive_low_water(50).unwrap();
    while stream.readable() < 10 {
        thread::yield_now();
    }
    let start = Instant::now();
    assert_eq!(stream.recv(&mut [0; 4], RecvFlags::NONE).unwrap(), 4);
    assert_eq!(stream.recv(&mut [0; 100], RecvFlags::NONE).unwrap(), 6);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn shutting_the_reading_side_wakes_readers() {
    let (lcore, stream) = start(silent(0));
    let reader = {
        let stream = stream.try_clone().unwrap();
        thread::spawn(move || stream.recv(&mut [0; 9], RecvFlags::NONE))
    };
    thread::sleep(Duration::from_millis(5));
    stream.shutdown(Shutdown::Read).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), 0);
    drop(stream);
    drop(lcore);
}

#[test]
fn dropping_the_stream_in_the_middle_resets_it_and_frees_everything() {
    for at in [0, 1, 5000, 100_000] {
        let (lcore, stream) = start(Plan::new(10 << 20));
        let mut buf = vec![0; at];
        if at != 0 {
            assert_eq!(stream.recv(&mut buf, RecvFlags::WAITALL).unwrap(), at);
        }
        while stream.readable() == 0 {
            thread::yield_now();
        }
        drop(stream);
        lcore.assert_all_comes_back();
    }
}

#[test]
fn an_lcore_that_stops_wakes_its_readers_with_an_error() {
    let (mut lcore, stream) = start(silent(0));
    let reader = {
        let stream = stream.try_clone().unwrap();
        thread::spawn(move || stream.recv(&mut [0; 9], RecvFlags::NONE))
    };
    thread::sleep(Duration::from_millis(5));
    lcore.stop();
    assert_eq!(kind(reader.join().unwrap()), ErrorKind::ConnectionAborted);
    assert_eq!(kind(stream.recv(&mut [0; 9], RecvFlags::NONE)), ErrorKind::ConnectionAborted);
}

#[test]
fn buffers_outlive_an_lcore_and_come_back() {
    let (mut lcore, stream) = start(silent(100_000));
    while stream.readable() < 100_000 {
        thread::yield_now();
    }
    lcore.stop();
    assert!(lcore.live.count() > 0);
    drop(stream);
    lcore.home.returns().free_all(|_, _| {});
    assert_eq!(lcore.live.count(), 0);
}

#[test]
fn what_waits_above_a_hole_comes_back_after_its_lcore_too() {
    let (mut lcore, stream) = start(Plan { end: End::Hole, ..Plan::new(10) });
    while !stream.lock().connection().has_out_of_order() {
        thread::yield_now();
    }
    lcore.stop();
    let before = lcore.live.count();
    assert!(before >= 2, "one in sequence, one above the hole");
    drop(stream);
    assert_eq!(lcore.live.count(), before, "none was freed by this thread");
    lcore.home.returns().free_all(|_, _| {});
    assert_eq!(lcore.live.count(), 0);
}

#[test]
fn reading_under_ones_own_guard_is_an_error() {
    let (_lcore, stream) = start(silent(10));
    let guard = stream.lock();
    assert_eq!(kind(stream.recv(&mut [0; 9], RecvFlags::NONE)), ErrorKind::Deadlock);
    drop(guard);
    assert_eq!(stream.recv(&mut [0; 9], RecvFlags::WAITALL).unwrap(), 9);
}

/// Calls that are ambiguous, and so do not compile, for what can be sent or shared.
trait Unsendable<Case> {
    const HOLDS: bool = true;
}
impl<T> Unsendable<()> for T {}
impl<T: Send> Unsendable<u8> for T {}
trait Unshareable<Case> {
    const HOLDS: bool = true;
}
impl<T> Unshareable<()> for T {}
impl<T: Sync> Unshareable<u8> for T {}

#[test]
fn a_guard_stays_with_its_thread_and_a_reader_need_not() {
    // A guard shows the connection, which is Send alone, to whoever can see it.
    const { assert!(<SocketGuard<'_, Buf> as Unsendable<_>>::HOLDS) };
    const { assert!(<SocketGuard<'_, Buf> as Unshareable<_>>::HOLDS) };
    const { assert!(<ThreadClaim<'_, Cell<u8>> as Unshareable<_>>::HOLDS) };
    const { assert!(<LcoreClaim<'_, Cell<u8>> as Unshareable<_>>::HOLDS) };
    fn send<T: Send>() {}
    send::<ThreadClaim<'_, Cell<u8>>>();
    send::<Reader<'_, Buf>>();
}

/// Runs what might wait for ever.
fn within_ten_seconds(work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        sender.send(()).unwrap();
    });
    let outcome = receiver.recv_timeout(Duration::from_secs(10));
    assert_ne!(outcome, Err(RecvTimeoutError::Timeout), "waits for itself");
    thread.join().unwrap();
}

#[test]
fn an_exclusive_reader_notices_its_threads_own_guard() {
    within_ten_seconds(|| {
        let (lcore, handle) = Lcore::start_held(Plan { segment: 100, ..silent(50_000) });
        let mut stream = TcpStream::from(handle);
        let other = stream.try_clone().unwrap();
        let mut reader = stream.reader().unwrap();
        lcore.go.store(true, Ordering::SeqCst);
        // More than a ring holds: some of it is in the receive queue.
        while other.readable() < 50_000 {
            thread::yield_now();
        }
        let guard = other.lock();
        let mut read = 0;
        let error = loop {
            match reader.recv(&mut [0; 9000], RecvFlags::NONE) {
                Ok(n) => read += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Deadlock);
        drop(reader);
        drop(guard);
        let mut rest = vec![0; 50_000 - read];
        assert_eq!(other.recv(&mut rest, RecvFlags::WAITALL).unwrap(), rest.len());
        let expected = (read as u64..50_000).map(byte_at);
        assert!(rest.into_iter().eq(expected), "in order, whatever was read before");
    });
}

#[test]
fn a_reader_that_is_forgotten_does_not_hold_up_the_end() {
    within_ten_seconds(|| {
        let (lcore, mut stream) = start(silent(100_000));
        let mut reader = stream.reader().unwrap();
        reader.recv(&mut [0; 10], RecvFlags::WAITALL).unwrap();
        std::mem::forget(reader);
        drop(stream);
        lcore.assert_all_comes_back();
    });
}

#[test]
fn a_panic_under_a_guard_does_no_harm() {
    let (_lcore, stream) = start(silent(10));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = stream.lock();
        panic!("the application's own");
    }));
    assert!(panicked.is_err());
    assert_eq!(stream.recv(&mut [0; 10], RecvFlags::WAITALL).unwrap(), 10);
}

#[test]
fn a_panic_of_the_library_while_owning_kills_the_socket() {
    let (lcore, stream) = start(silent(10));
    let socket = stream.handle().socket.clone();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _owner = socket.own();
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    assert_eq!(kind(stream.recv(&mut [0; 9], RecvFlags::NONE)), ErrorKind::ConnectionAborted);
    // The lcore was rung and has made the word free again.
    drop(stream.lock());
    drop(socket);
    drop(lcore);
}

#[test]
fn a_panic_of_the_library_leaves_nobody_asleep() {
    let (lcore, stream) = start(silent(10));
    let socket = stream.handle().socket.clone();
    let (reader, waiter) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
    // One sleeps for more than there is, one for the word.
    let reader = std::thread::spawn(move || reader.recv(&mut [0; 20], RecvFlags::WAITALL));
    std::thread::sleep(Duration::from_millis(50));
    let panicked = std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            let _owner = socket.own();
            scope.spawn(move || drop(waiter.lock()));
            std::thread::sleep(Duration::from_millis(20));
            panic!("a bug");
        });
        failing.join()
    });
    assert!(panicked.is_err());
    within_ten_seconds(move || {
        // What it had is not lost to it; whoever calls next gets the error.
        assert_eq!(reader.join().unwrap().unwrap(), 10);
    });
    assert_eq!(kind(stream.recv(&mut [0; 9], RecvFlags::NONE)), ErrorKind::ConnectionAborted);
    drop((socket, stream));
    lcore.assert_all_comes_back();
}

#[test]
fn acceptors_get_connections_in_order_up_to_the_limit() {
    let queue = AcceptQueue::<Buf>::new(1);
    let listener = TcpListener::new(queue.clone(), SocketAddr::from(([10, 0, 0, 1], 7000)));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(kind(listener.accept()), ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    listener.set_accept_timeout(Some(Duration::from_millis(5)));
    assert_eq!(kind(listener.accept()), ErrorKind::WouldBlock);
    let mut lcores = vec![];
    for bytes in [1, 2] {
        let (lcore, handle) = Lcore::start(silent(bytes));
        queue.reserve().unwrap().put(handle);
        lcores.push(lcore);
    }
    assert!(queue.reserve().is_none(), "backlog + 1 is the limit");
    for bytes in [1, 2] {
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.port(), 40_000);
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(stream.recv(&mut [0; 9], RecvFlags::WAITALL).unwrap(), bytes);
    }
    assert!(queue.reserve().is_some());
}

#[test]
fn waiting_acceptors_are_woken_one_by_one_and_all_at_the_end() {
    let queue = AcceptQueue::<Buf>::new(10);
    let listener =
        Arc::new(TcpListener::new(queue.clone(), SocketAddr::from(([10, 0, 0, 1], 7000))));
    let acceptors: Vec<_> = (0..3)
        .map(|_| {
            let listener = listener.clone();
            thread::spawn(move || listener.accept().map(|_| ()))
        })
        .collect();
    let mut lcores = vec![];
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(2));
        let (lcore, handle) = Lcore::start(silent(0));
        queue.reserve().unwrap().put(handle);
        lcores.push(lcore);
    }
    while !queue.is_empty() {
        thread::yield_now();
    }
    queue.close();
    let results: Vec<_> = acceptors.into_iter().map(|acceptor| acceptor.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
}
