//! Low-latency mode: the lcore copies to the readers' memory what the kernel sends.

use std::{
    io::{Read, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use prequeue::{
    Stack,
    lcore::fault::Faults,
    socket::RecvFlags,
    tcp::{Counter, Settings},
};

use crate::{
    LIMIT, MIB,
    bytes::Bytes,
    harness::scenario,
    lab::{PORT, connect, eventually, stack_with},
    many_streams, one_stream,
};

/// A stack whose connections begin in low-latency mode, over a wire as bad as `faults`.
fn low_latency_stack(faults: Faults) -> Stack {
    stack_with(1, faults, Settings { tcp_low_latency: true, ..Settings::default() })
}

fn assert_direct(stack: &Stack) {
    let counters = stack.counters();
    assert_eq!(counters.value(Counter::ToPrequeue), 0, "there is no prequeue in this mode");
    assert_ne!(counters.value(Counter::DirectCopies), 0, "no reader has ever waited");
}

#[test]
fn a_stream_arrives_in_low_latency_mode() {
    scenario("low_latency::a_stream_arrives_in_low_latency_mode", LIMIT, || {
        let stack = low_latency_stack(Faults::default());
        one_stream(&stack, 256 * MIB);
        assert_direct(&stack);
    });
}

#[test]
fn many_streams_arrive_in_low_latency_mode() {
    scenario("low_latency::many_streams_arrive_in_low_latency_mode", LIMIT, || {
        let stack = low_latency_stack(Faults::default());
        many_streams(&stack, 50, MIB / 4);
        assert_direct(&stack);
    });
}

#[test]
fn a_bad_wire_does_not_show_in_low_latency_mode() {
    scenario("low_latency::a_bad_wire_does_not_show_in_low_latency_mode", LIMIT, || {
        let bad =
            Faults { seed: 7, loss: 0.01, duplicate: 0.01, reorder: 0.02, ..Faults::default() };
        let stack = low_latency_stack(bad);
        one_stream(&stack, 32 * MIB);
        assert_direct(&stack);
        assert_ne!(stack.counters().value(Counter::TCPOFOQueue), 0);
    });
}

#[test]
fn small_messages_never_enter_a_queue() {
    scenario("low_latency::small_messages_never_enter_a_queue", LIMIT, || {
        let stack = low_latency_stack(Faults::default());
        let listener = stack.listen(PORT).expect("the port is free");
        let mut client = connect();
        let (stream, _) = listener.accept().expect("the client comes");
        client.set_nodelay(true).expect("a socket takes the option");
        let sent = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200_u64 {
                    // Long enough for the reader to be asleep.
                    thread::sleep(Duration::from_millis(2));
                    client.write_all(&[number as u8; 64]).expect("the connection stands");
                }
                sent.store(true, Ordering::Relaxed);
            });
            for number in 0..200_u64 {
                let mut message = [0; 64];
                let n = stream.recv(&mut message, RecvFlags::WAITALL).expect("it lasts");
                assert_eq!((n, message), (64, [number as u8; 64]));
            }
        });
        assert!(sent.load(Ordering::Relaxed));
        let direct = || stack.counters().value(Counter::DirectCopiedBytes);
        // A reader that was kept from its CPU finds a message or two in the queue.
        eventually("most of it was copied directly", || direct() > 150 * 64);
    });
}

#[test]
fn a_slow_and_a_fast_reader_whose_mode_changes() {
    scenario("low_latency::a_slow_and_a_fast_reader_whose_mode_changes", LIMIT, || {
        let stack = low_latency_stack(Faults::default());
        for nap in [Duration::ZERO, Duration::from_micros(200)] {
            let listener = stack.listen(PORT).expect("the port is free");
            let client = thread::spawn(|| {
                let mut client = connect();
                Bytes::new(3).send(&mut client, 32 * MIB).expect("all is taken");
            });
            let (stream, _) = listener.accept().expect("a client comes");
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut on = false;
                    while !over.load(Ordering::Relaxed) {
                        on = !on;
                        stream.set_low_latency(on);
                        thread::sleep(Duration::from_micros(700));
                    }
                });
                let mut expected = Bytes::new(3);
                let mut buf = vec![0; 50_000];
                loop {
                    let n = (&stream).read(&mut buf).expect("the connection lasts");
                    if n == 0 {
                        break;
                    }
                    expected.check(&buf[..n]);
                    thread::sleep(nap);
                }
                over.store(true, Ordering::Relaxed);
                assert_eq!(expected.offset(), 32 * MIB);
            });
            client.join().expect("the client does not panic");
        }
        let counters = stack.counters();
        assert_ne!(counters.value(Counter::DirectCopies), 0);
        assert_ne!(counters.value(Counter::ToPrequeue), 0);
    });
}
