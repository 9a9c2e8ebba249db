//! The Linux kernel's TCP as the peer, over a tap: what a sender's bytes go through before they are
//! an application's, all of it, with a peer that owes this library nothing.
//!
//! Needs root, /dev/net/tun and iproute2; as another user each test says that it is passed over.

mod below;
mod bytes;
mod cookies;
mod flags;
mod fragments;
mod harness;
mod in_place;
mod ipv6;
mod lab;
mod low_latency;
mod polling;
mod presence;
mod sight;
mod vlan;

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use prequeue::{
    Stack, TcpStream,
    lcore::{Population, fault::Faults},
    tcp::Counter,
};

use crate::{
    bytes::Bytes,
    harness::{resident_bytes, scenario},
    lab::{HERE, PORT, connect, eventually, stack, try_connect},
};

const MIB: u64 = 1 << 20;

/// A scenario that hangs ends here; the slowest takes a fraction of it.
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn one_gibibyte_arrives_bit_for_bit() {
    scenario("one_gibibyte_arrives_bit_for_bit", LIMIT, || {
        one_stream(&stack(1, Faults::default()), 1024 * MIB);
    });
}

#[test]
fn two_hundred_connections_at_once() {
    scenario("two_hundred_connections_at_once", LIMIT, || {
        many_streams(&stack(1, Faults::default()), 200, MIB / 4);
    });
}

#[test]
fn two_lcores_share_the_connections() {
    scenario("two_lcores_share_the_connections", LIMIT, || {
        if harness::cpus().len() < 2 {
            eprintln!("passed over: two lcores need two CPUs");
            return;
        }
        let stack = stack(2, Faults::default());
        many_streams(&stack, 32, 2 * MIB);
        for (lcore, counters) in stack.counters_by_lcore().iter().enumerate() {
            assert!(counters.value(Counter::PassiveOpens) > 0, "lcore {lcore} had nothing to do");
        }
    });
}

#[test]
fn five_thousand_connections_in_a_row_leave_nothing_behind() {
    scenario("five_thousand_connections_in_a_row_leave_nothing_behind", LIMIT, || {
        let stack = stack(1, Faults::default());
        // The first ones fill what is kept for good: the allocator's pools, the tables' first pages.
        in_a_row(&stack, 500);
        nothing_is_left(&stack);
        let (resident, mbufs) = (resident_bytes(), stack.mbufs_in_use());
        in_a_row(&stack, 5_000);
        nothing_is_left(&stack);
        let grown = resident_bytes().saturating_sub(resident);
        // 5,000 sockets of any size would be more than this.
        assert!(grown < MIB, "{grown} bytes more are resident");
        eventually("the packet buffers are back", || stack.mbufs_in_use() <= mbufs);
    });
}

#[test]
fn a_slow_reader_closes_the_window_and_loses_nothing() {
    scenario("a_slow_reader_closes_the_window_and_loses_nothing", LIMIT, || {
        let stack = stack(1, Faults::default());
        let listener = stack.listen(PORT).expect("the port is free");
        let client = thread::spawn(|| {
            let mut client = connect();
            Bytes::new(1).send(&mut client, 64 * MIB).expect("all is taken in the end");
        });
        let (mut stream, _) = listener.accept().expect("a client comes");
        let mut expected = Bytes::new(1);
        let mut buf = vec![0; MIB as usize];
        let mut seen = 0;
        for _ in 0..3 {
            // It may be closed before we look; and is to have closed anew since the last time.
            let mut closed = 0;
            eventually("the window closes while nobody reads", || {
                let counters = stack.counters();
                closed = counters.value(Counter::TCPToZeroWindowAdv);
                closed > seen && closed > counters.value(Counter::TCPFromZeroWindowAdv)
            });
            seen = closed;
            let mut wanted = 8 * MIB as usize;
            while wanted > 0 {
                let most = wanted.min(buf.len());
                let n = stream.read(&mut buf[..most]).expect("the connection lasts");
                assert_ne!(n, 0, "the stream ended at byte {}", expected.offset());
                expected.check(&buf[..n]);
                wanted -= n;
            }
        }
        assert_eq!(expected.check_all(&mut stream).expect("the connection lasts"), 64 * MIB);
        client.join().expect("the client does not panic");
        assert!(stack.counters().value(Counter::TCPFromZeroWindowAdv) >= 3);
    });
}

#[test]
fn a_client_killed_in_mid_stream_ends_the_stream() {
    scenario("a_client_killed_in_mid_stream_ends_the_stream", LIMIT, || {
        let stack = stack(1, Faults::default());
        let listener = stack.listen(PORT).expect("the port is free");
        // A process of its own, so that it can be killed: the kernel then closes its socket.
        let mut client = Command::new("bash")
            .args(["-c", &format!("exec cat /dev/zero >/dev/tcp/{HERE}/{PORT}")])
            .stdin(Stdio::null())
            .spawn()
            .expect("bash is installed");
        let (mut stream, _) = listener.accept().expect("the client comes");
        let mut buf = vec![0; MIB as usize];
        let mut read = 0;
        while read < 16 * MIB {
            let n = stream.read(&mut buf).expect("the client sends");
            assert_ne!(n, 0, "the client sends for ever");
            read += n as u64;
        }
        client.kill().expect("a child can be killed");
        client.wait().expect("a child can be waited for");
        // What the kernel had in its queue still comes, then its FIN.
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("20 s is not zero");
        loop {
            // The tap's driver has the kernel signal the process, whichever thread that meets; a wait
            // with a limit ends with it.
            let n = match stream.read(&mut buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.expect("the end of the stream comes in time"),
            };
            assert!(buf[..n].iter().all(|&byte| byte == 0));
            if n == 0 {
                break;
            }
        }
    });
}

#[test]
fn a_client_that_resets_is_an_error_to_the_reader() {
    scenario("a_client_that_resets_is_an_error_to_the_reader", LIMIT, || {
        let stack = stack(1, Faults::default());
        let listener = stack.listen(PORT).expect("the port is free");
        let mut client = connect();
        client.write_all(b"half a").expect("the connection stands");
        let (mut stream, _) = listener.accept().expect("the client comes");
        stream.read_exact(&mut [0; 6]).expect("the bytes come");
        // Linger of zero makes close send an RST.
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))
            .expect("a socket takes the option");
        drop(client);
        let error = stream.read(&mut [0; 6]).expect_err("the RST is not an end of the stream");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_closed_port_refuses() {
    scenario("a_closed_port_refuses", LIMIT, || {
        let stack = stack(1, Faults::default());
        let error = try_connect(PORT).expect_err("nobody listens yet");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let listener = stack.listen(PORT).expect("the port is free");
        let client = connect();
        listener.accept().expect("the client comes");
        let error = try_connect(PORT + 1).expect_err("nobody listens there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        drop((client, listener));
        eventually("a dropped listener refuses", || {
            try_connect(PORT).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
    });
}

#[test]
fn a_bad_wire_does_not_show_in_the_stream() {
    scenario("a_bad_wire_does_not_show_in_the_stream", LIMIT, || {
        let one_percent = Faults {
            seed: 20_260,
            loss: 0.01,
            duplicate: 0.01,
            corrupt: 0.01,
            reorder: 0.01,
            delay: 0.01,
            ..Faults::default()
        };
        let stack = stack(1, one_percent);
        one_stream(&stack, 32 * MIB);
        let counters = stack.counters();
        for counter in [Counter::TCPOFOQueue, Counter::InCsumErrors, Counter::DelayedACKLost] {
            assert_ne!(counters.value(counter), 0, "{} stayed 0", counter.name());
        }
    });
}

#[test]
fn heavy_reordering_does_not_show_in_the_stream() {
    scenario("heavy_reordering_does_not_show_in_the_stream", LIMIT, || {
        let reorder = Faults { seed: 10, reorder: 0.1, ..Faults::default() };
        let stack = stack(1, reorder);
        one_stream(&stack, 128 * MIB);
        assert_ne!(stack.counters().value(Counter::TCPOFOQueue), 0);
    });
}

#[test]
fn every_flag_and_option_of_reading() {
    scenario("every_flag_and_option_of_reading", LIMIT, flags::every_flag);
}

/// One client sends `len` bytes; all must arrive, in order, and nothing after them. The stream, read.
fn one_stream(stack: &Stack, len: u64) -> TcpStream {
    let listener = stack.listen(PORT).expect("the port is free");
    let client = thread::spawn(move || {
        let mut client = connect();
        Bytes::new(0).send(&mut client, len).expect("all is taken");
    });
    let (mut stream, _) = listener.accept().expect("a client comes");
    assert_eq!(Bytes::new(0).check_all(&mut stream).expect("the connection lasts"), len);
    client.join().expect("the client does not panic");
    stream
}

/// `count` clients, all connected before the first byte is sent, take turns; each sends its own
/// number and then `len` bytes that belong to it.
fn many_streams(stack: &Stack, count: u64, len: u64) {
    let listener = stack.listen(PORT).expect("the port is free");
    let clients = thread::spawn(move || {
        let mut clients: Vec<_> =
            (0..count).map(|number| (connect(), Bytes::new(number), number)).collect();
        for (client, _, number) in &mut clients {
            client.write_all(&number.to_be_bytes()).expect("the connection stands");
        }
        let turns = 8;
        for _ in 0..turns {
            for (client, bytes, _) in &mut clients {
                bytes.send(client, len / turns).expect("all is taken");
            }
        }
        for (client, ..) in &clients {
            client.shutdown(Shutdown::Write).expect("the connection stands");
        }
    });
    thread::scope(|scope| {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().expect("a client comes");
            scope.spawn(move || {
                let mut number = [0; 8];
                stream.read_exact(&mut number).expect("the client's number comes");
                let mut expected = Bytes::new(u64::from_be_bytes(number));
                let got = expected.check_all(&mut stream).expect("the connection lasts");
                assert_eq!(got, len);
            });
        }
    });
    clients.join().expect("the clients do not panic");
}

/// `count` clients, one after the other: each connects, sends a little and closes.
fn in_a_row(stack: &Stack, count: u64) {
    let listener = stack.listen(PORT).expect("the port is free");
    let clients = thread::spawn(move || {
        for number in 0..count {
            connect().write_all(&number.to_be_bytes()).expect("the connection stands");
        }
    });
    for number in 0..count {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("the connection lasts");
        assert_eq!(got, number.to_be_bytes());
    }
    clients.join().expect("the clients do not panic");
}

/// Waits until the stack has forgotten all connections.
fn nothing_is_left(stack: &Stack) {
    eventually("no socket, request or TIME-WAIT is left", || {
        let Population { sockets, requests, time_waits } = stack.population();
        (sockets, requests, time_waits) == (0, 0, 0)
    });
}
