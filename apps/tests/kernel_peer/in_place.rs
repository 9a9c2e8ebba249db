//! Without a copy: segments lent and handed over, on a reader's thread and on the thread that polls.

use std::{
    collections::HashMap,
    io::{ErrorKind, Write},
    net::Shutdown,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use prequeue::{
    LocalStack,
    dpdk::Mbuf,
    lcore::{Population, fault::Faults},
    socket::{Arrival, RecvFlags, Slice},
    tcp::Counter,
};

use crate::{
    LIMIT, MIB,
    bytes::Bytes,
    harness::scenario,
    lab::{PORT, connect, eventually, local_stack, stack},
};

#[test]
fn slices_are_dropped_by_another_thread_and_the_pool_is_full_again() {
    scenario(
        "in_place::slices_are_dropped_by_another_thread_and_the_pool_is_full_again",
        LIMIT,
        || {
            let stack = stack(1, Faults::default());
            let listener = stack.listen(PORT).expect("the port is free");
            let idle = stack.mbufs_in_use();
            let client = thread::spawn(|| {
                Bytes::new(7).send(&mut connect(), 128 * MIB).expect("all is taken");
            });
            let (mut stream, _) = listener.accept().expect("a client comes");
            let (to, from) = mpsc::sync_channel::<Slice<Mbuf>>(64);
            let checker = thread::spawn(move || {
                let mut expected = Bytes::new(7);
                from.iter().for_each(|slice| expected.check(&slice));
                expected.offset()
            });
            let mut reader = stream.reader().expect("no guard is held");
            let clock = stack.clock();
            loop {
                let mut segments = reader.segments(RecvFlags::NONE).expect("the connection lasts");
                if segments.is_end() {
                    break;
                }
                while let Some(segment) = segments.next_segment() {
                    if let Arrival::Burst(when) = segment.view().arrival() {
                        assert!(when <= clock.now(), "it came before now");
                    }
                    to.send(segment.into_slice()).expect("the checker lives");
                }
            }
            drop((to, reader));
            drop(stream);
            assert_eq!(checker.join().expect("every byte is right"), 128 * MIB);
            client.join().expect("the client does not panic");
            eventually("the packet buffers are back", || {
                stack.mbufs_in_use() <= idle.max(1024 + 64)
            });
        },
    );
}

/// Polls until `done`, which is given the stack after each poll.
fn poll_until(stack: &mut LocalStack, what: &str, mut done: impl FnMut(&mut LocalStack) -> bool) {
    let start = Instant::now();
    while !done(stack) {
        stack.poll();
        assert!(start.elapsed() < Duration::from_secs(120), "in vain: {what}");
    }
}

#[test]
fn one_thread_polls_and_reads_many_connections_in_place() {
    scenario("in_place::one_thread_polls_and_reads_many_connections_in_place", LIMIT, || {
        const CLIENTS: u64 = 50;
        let mut stack = local_stack();
        let listener = stack.listen(PORT).expect("the port is free");
        let clients = thread::spawn(|| {
            let mut clients: Vec<_> =
                (0..CLIENTS).map(|number| (connect(), Bytes::new(number), number)).collect();
            for (client, bytes, number) in &mut clients {
                client.write_all(&[*number as u8]).expect("the connection stands");
                bytes.send(client, 2 * MIB).expect("all is taken");
                client.shutdown(Shutdown::Write).expect("the connection stands");
            }
        });
        let mut streams = HashMap::new();
        let mut ended = 0;
        poll_until(&mut stack, "all clients send all they have", |stack| {
            while let Ok((stream, _)) = listener.accept() {
                streams.insert(stream.id(), (stream, None));
            }
            while let Some(id) = stack.next_readable() {
                let (stream, expected) = streams.get_mut(&id).expect("it was accepted");
                let mut segments = match stream.segments() {
                    Ok(segments) => segments,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => panic!("the connection lasts: {error}"),
                };
                if segments.is_end() {
                    let all = expected.as_ref().map(Bytes::offset);
                    assert_eq!(all, Some(2 * MIB), "the whole stream of a client");
                    drop(segments);
                    streams.remove(&id);
                    ended += 1;
                    continue;
                }
                while let Some(segment) = segments.next_segment() {
                    match expected {
                        Some(expected) => expected.check(&segment),
                        None => {
                            let mut bytes = Bytes::new(segment[0].into());
                            bytes.check(&segment[1..]);
                            *expected = Some(bytes);
                        }
                    }
                }
            }
            ended == CLIENTS
        });
        clients.join().expect("the clients do not panic");
        poll_until(&mut stack, "nothing is left", |stack| {
            let Population { sockets, requests, .. } = stack.population();
            (sockets, requests) == (0, 0)
        });
        assert_eq!(stack.counters().value(Counter::ToPrequeue), 0, "there is no ring");
        assert!(stack.mbufs_in_use() <= 1024 + 64, "{} mbufs are out", stack.mbufs_in_use());
    });
}

#[test]
fn a_thread_that_reads_late_closes_the_window_and_loses_nothing() {
    scenario(
        "in_place::a_thread_that_reads_late_closes_the_window_and_loses_nothing",
        LIMIT,
        || {
            let mut stack = local_stack();
            let listener = stack.listen(PORT).expect("the port is free");
            let client = thread::spawn(|| {
                Bytes::new(3).send(&mut connect(), 8 * MIB).expect("all is taken in the end");
            });
            let mut accepted = None;
            poll_until(&mut stack, "a client comes", |_| {
                accepted = listener.accept().ok();
                accepted.is_some()
            });
            let (mut stream, _) = accepted.expect("a client has come");
            let mut expected = Bytes::new(3);
            let mut buf = vec![0; 100_000];
            for _ in 0..3 {
                let closed = stack.counters().value(Counter::TCPToZeroWindowAdv);
                poll_until(&mut stack, "the window closes while nobody reads", |stack| {
                    stack.counters().value(Counter::TCPToZeroWindowAdv) > closed
                });
                // All at once, and slices of it that are held while it goes on.
                let n = stream.recv(&mut buf, RecvFlags::NONE).expect("there is data");
                expected.check(&buf[..n]);
                let mut held = Vec::new();
                let mut segments = match stream.segments() {
                    Ok(segments) => segments,
                    Err(_) => continue,
                };
                while let Some(segment) = segments.next_segment() {
                    held.push(segment.into_slice());
                }
                drop(segments);
                stack.poll();
                held.iter().for_each(|slice| expected.check(slice));
            }
            poll_until(&mut stack, "the rest comes", |_| {
                loop {
                    match stream.recv(&mut buf, RecvFlags::NONE) {
                        Ok(0) => return true,
                        Ok(n) => expected.check(&buf[..n]),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::WouldBlock);
                            return false;
                        }
                    }
                }
            });
            assert_eq!(expected.offset(), 8 * MIB);
            client.join().expect("the client does not panic");
            drop(stream);
            // A stack may go while the port is still listened on.
            drop(stack);
            assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::ConnectionAborted);
        },
    );
}

#[test]
fn a_thread_polls_for_as_long_as_its_reads_wait() {
    scenario("in_place::a_thread_polls_for_as_long_as_its_reads_wait", LIMIT, || {
        const PAUSE: Duration = Duration::from_millis(200);
        let mut stack = local_stack();
        let listener = stack.listen(PORT).expect("the port is free");
        let (go, told) = mpsc::channel();
        let client = thread::spawn(move || {
            let mut client = connect();
            let mut bytes = Bytes::new(11);
            bytes.send(&mut client, 4 * MIB).expect("all is taken");
            told.recv().expect("the reader lives");
            bytes.send(&mut client, 1000).expect("all is taken");
        });
        let (mut stream, _) = stack.accept(&listener).expect("a client comes");
        let mut expected = Bytes::new(11);
        let mut buf = vec![0; 3 * MIB as usize];
        let n = stack.blocking(&mut stream).recv(&mut buf, RecvFlags::WAITALL);
        assert_eq!(n.expect("the connection lasts"), buf.len());
        expected.check(&buf);
        assert!(stack.blocking(&mut stream).wait().expect("the connection lasts"));
        stream.set_read_timeout(Some(PAUSE)).expect("it is not zero");
        // More than there will be before the time is out.
        let start = Instant::now();
        let n = stack.blocking(&mut stream).recv(&mut buf, RecvFlags::WAITALL);
        expected.check(&buf[..n.expect("the rest is there")]);
        assert_eq!(expected.offset(), 4 * MIB);
        assert!(start.elapsed() >= PAUSE);
        let error = stack.blocking(&mut stream).recv(&mut buf, RecvFlags::NONE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        go.send(()).expect("the client lives");
        stream.set_read_timeout(None).expect("no limit");
        let all = expected.check_all(&mut stack.blocking(&mut stream));
        assert_eq!(all.expect("to the end"), 4 * MIB + 1000);
        client.join().expect("the client does not panic");
    });
}
