//! Every flag and option of reading by real calls, with the kernel as the sender.

use std::{
    io::{ErrorKind, IoSliceMut, Read, Write},
    net::{Shutdown, TcpStream as Client},
    thread,
    time::{Duration, Instant},
};

use prequeue::{
    TcpListener, TcpStream,
    lcore::fault::Faults,
    socket::{Received, RecvFlags},
    tcp::{Counter, tcb::KeepAlive},
};
use rustix::net::{SendFlags, send, sockopt};

use crate::lab::{PORT, connect, eventually, stack};

const NONE: RecvFlags = RecvFlags::NONE;
const PEEK: RecvFlags = RecvFlags::PEEK;
const TRUNC: RecvFlags = RecvFlags::TRUNC;
const OOB: RecvFlags = RecvFlags::OOB;
const DONTWAIT: RecvFlags = RecvFlags::DONTWAIT;
const WAITALL: RecvFlags = RecvFlags::WAITALL;

/// Longer than a byte takes from the client to us, shorter than anybody notices.
const MOMENT: Duration = Duration::from_millis(50);

/// One connection after the other, a subject each.
pub fn every_flag() {
    let stack = stack(1, Faults::default());
    let listener = stack.listen(PORT).expect("the port is free");
    let subjects: [fn(&TcpListener); 7] =
        [looks, waits, time_limits, peek_offset, urgent_data, ends, lingering];
    for subject in subjects {
        subject(&listener);
    }
    keepalive(&listener, || stack.counters().value(Counter::TCPKeepAlive));
}

fn pair(listener: &TcpListener) -> (Client, TcpStream) {
    let client = connect();
    client.set_nodelay(true).expect("the kernel knows it");
    let (stream, _) = listener.accept().expect("the client has come");
    (client, stream)
}

/// Sends, and waits until all of it can be read.
fn send_and_wait(client: &mut Client, stream: &TcpStream, bytes: &[u8]) {
    let before = stream.handle().unread();
    client.write_all(bytes).expect("the connection stands");
    let expected = before + bytes.len() as u32;
    eventually("the bytes come", || stream.handle().unread() == expected);
}

fn read(stream: &TcpStream, most: usize, flags: RecvFlags) -> Vec<u8> {
    let mut buf = vec![0; most];
    let n = stream.recv(&mut buf, flags).expect("there is something to read");
    buf.truncate(n);
    buf
}

fn error(stream: &TcpStream, flags: RecvFlags) -> ErrorKind {
    stream.recv(&mut [0; 9], flags).expect_err("there is nothing to read").kind()
}

fn looks(listener: &TcpListener) {
    let (mut client, stream) = pair(listener);
    for flags in [DONTWAIT, DONTWAIT.with(PEEK), DONTWAIT.with(TRUNC), DONTWAIT.with(WAITALL)] {
        assert_eq!(error(&stream, flags), ErrorKind::WouldBlock);
    }
    send_and_wait(&mut client, &stream, b"0123456789");
    assert_eq!(read(&stream, 5, PEEK), b"01234");
    assert_eq!(stream.discard(usize::MAX, PEEK).expect("there is something"), 10);
    assert_eq!(stream.discard(2, NONE).expect("there is something"), 2);
    let (mut a, mut b) = ([0; 1], [0; 3]);
    let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
    let received = stream.recv_message(&mut bufs, NONE).expect("there is something");
    assert_eq!(received, Received { len: 4, left: 4, ..Received::default() });
    assert_eq!((&a, &b), (b"2", b"345"));
    let (rest, from) = {
        let mut buf = [0; 9];
        let (n, from) = stream.recv_from(&mut buf, NONE).expect("there is something");
        (buf[..n].to_vec(), from)
    };
    assert_eq!(rest, b"6789");
    assert_eq!(Some(from), client.local_addr().ok());
    stream.set_nonblocking(true).expect("it never fails");
    assert_eq!(error(&stream, WAITALL), ErrorKind::WouldBlock);
}

fn waits(listener: &TcpListener) {
    let (mut client, stream) = pair(listener);
    let sends_slowly = |client: &mut Client, parts: &[&[u8]]| {
        for part in parts {
            thread::sleep(MOMENT);
            client.write_all(part).expect("the connection stands");
        }
    };
    for flags in [WAITALL, WAITALL.with(PEEK), WAITALL.with(TRUNC)] {
        thread::scope(|scope| {
            scope.spawn(|| sends_slowly(&mut client, &[b"abc", b"def", b"gh"]));
            assert_eq!(read(&stream, 8, flags).len(), 8);
        });
        if flags.has(PEEK) {
            assert_eq!(read(&stream, 100, NONE), b"abcdefgh");
        }
    }
    stream.set_receive_low_water(6).expect("no guard is held");
    thread::scope(|scope| {
        scope.spawn(|| sends_slowly(&mut client, &[b"abc", b"d", b"ef"]));
        assert_eq!(read(&stream, 100, NONE), b"abcdef");
    });
    send_and_wait(&mut client, &stream, b"xyz");
    assert_eq!(read(&stream, 3, NONE), b"xyz", "no more was asked for");
}

fn time_limits(listener: &TcpListener) {
    let (mut client, stream) = pair(listener);
    stream.set_read_timeout(Some(2 * MOMENT)).expect("it is not zero");
    let start = Instant::now();
    assert_eq!(error(&stream, NONE), ErrorKind::WouldBlock);
    assert!(start.elapsed() >= 2 * MOMENT);
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(MOMENT);
            client.write_all(b"abc").expect("the connection stands");
        });
        assert_eq!(read(&stream, 9, WAITALL), b"abc", "what there is at the end of the time");
    });
    assert!(start.elapsed() >= 2 * MOMENT);
}

fn peek_offset(listener: &TcpListener) {
    let (mut client, stream) = pair(listener);
    stream.set_peek_offset(Some(0));
    send_and_wait(&mut client, &stream, b"0123456789");
    assert_eq!(read(&stream, 4, PEEK), b"0123");
    assert_eq!(read(&stream, 4, PEEK), b"4567");
    assert_eq!(read(&stream, 3, NONE), b"012");
    assert_eq!(stream.peek_offset(), Some(5));
    assert_eq!(read(&stream, 4, PEEK), b"89");
    assert_eq!(error(&stream, PEEK.with(DONTWAIT)), ErrorKind::WouldBlock);
    stream.set_peek_offset(None);
    assert_eq!(read(&stream, 1, PEEK), b"3");
}

fn urgent_data(listener: &TcpListener) {
    let (mut client, stream) = pair(listener);
    let send_urgent = |client: &Client, bytes: &[u8]| {
        send(client, bytes, SendFlags::OOB).expect("the connection stands");
        let came = || stream.handle().has_urgent_byte();
        eventually("the urgent byte comes", came);
    };
    assert_eq!(error(&stream, OOB), ErrorKind::InvalidInput);
    send_urgent(&client, b"abC");
    client.write_all(b"de").expect("the connection stands");
    eventually("all has come", || stream.handle().unread() == 5);
    assert_eq!(stream.readable(), 2);
    assert_eq!(read(&stream, 9, OOB.with(PEEK)), b"C");
    assert_eq!(read(&stream, 9, WAITALL), b"ab");
    assert!(stream.is_at_mark());
    assert_eq!(read(&stream, 9, OOB), b"C");
    assert_eq!(error(&stream, OOB), ErrorKind::InvalidInput);
    assert_eq!(read(&stream, 9, NONE), b"de");

    stream.set_out_of_band_inline(true);
    send_urgent(&client, b"xyZ");
    assert_eq!(error(&stream, OOB), ErrorKind::InvalidInput);
    assert_eq!(read(&stream, 9, NONE), b"xy");
    assert_eq!(read(&stream, 9, NONE), b"Z");
    // Behind it everything is as before.
    send_and_wait(&mut client, &stream, b"on");
    assert_eq!(read(&stream, 9, NONE), b"on");
}

fn ends(listener: &TcpListener) {
    let (mut client, stream) = pair(listener);
    send_and_wait(&mut client, &stream, b"last");
    client.shutdown(Shutdown::Write).expect("the connection stands");
    assert_eq!(read(&stream, 100, WAITALL), b"last");
    assert_eq!(read(&stream, 100, NONE), b"");
    assert_eq!(read(&stream, 100, PEEK), b"");

    let (mut client, stream) = pair(listener);
    send_and_wait(&mut client, &stream, b"lost");
    sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("the kernel knows it");
    drop(client);
    eventually("the reset comes", || stream.handle().is_closed());
    assert_eq!(read(&stream, 100, WAITALL), b"lost");
    assert_eq!(error(&stream, NONE), ErrorKind::ConnectionReset);
    assert_eq!(read(&stream, 100, NONE), b"");

    let (mut client, stream) = pair(listener);
    stream.shutdown(Shutdown::Read).expect("the connection stands");
    assert_eq!(read(&stream, 100, NONE), b"");
    send_and_wait(&mut client, &stream, b"all the same");
    assert_eq!(read(&stream, 100, NONE), b"all the same");
}

/// Closing waits for the client's kernel to acknowledge it, which takes no time.
fn lingering(listener: &TcpListener) {
    let (mut client, stream) = pair(listener);
    stream.set_linger(Some(Duration::from_secs(60))).expect("it never fails");
    let start = Instant::now();
    drop(stream);
    assert!(start.elapsed() < Duration::from_secs(10), "nobody noticed the ACK");
    assert_eq!(client.read(&mut [0]).expect("it was closed, not reset"), 0);
}

/// The client's kernel answers probes, and the connection lives.
fn keepalive(listener: &TcpListener, probes: impl Fn() -> u64) {
    let (mut client, stream) = pair(listener);
    let second = Duration::from_secs(1);
    stream.set_keepalive(Some(KeepAlive::new(second, second, 2))).expect("a second is the least");
    eventually("probes are sent", || probes() >= 4);
    send_and_wait(&mut client, &stream, b"alive");
    assert_eq!(read(&stream, 9, NONE), b"alive");
}
