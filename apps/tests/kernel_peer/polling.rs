//! Two thousand clients of the kernel's, and one thread of ours that polls for all of them.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    thread,
    time::Duration,
};

use prequeue::{
    ListenOptions, TcpListener, TcpStream,
    lcore::fault::Faults,
    socket::{Events, Interest, Poller, RecvFlags, Token, Trigger},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    LIMIT,
    harness::scenario,
    lab::{PORT, connect, stack},
    nothing_is_left,
};

const CLIENTS: u64 = 2_000;
/// Threads that the clients are divided among, so that their handshakes overlap.
const THREADS: u64 = 20;
const LISTENER: Token = Token(usize::MAX);
/// What each client sends after its number.
const LEN: u64 = 16 * 1024;
/// Clients send their bytes in as many turns.
const TURNS: u64 = 4;

#[test]
fn two_thousand_connections_on_one_poller_by_level() {
    scenario("polling::two_thousand_connections_on_one_poller_by_level", LIMIT, || {
        two_thousand(Trigger::Level);
    });
}

#[test]
fn two_thousand_connections_on_one_poller_by_edge() {
    scenario("polling::two_thousand_connections_on_one_poller_by_edge", LIMIT, || {
        two_thousand(Trigger::Edge);
    });
}

fn two_thousand(trigger: Trigger) {
    raise_descriptor_limit(CLIENTS + 200);
    let stack = stack(1, Faults::default());
    // The backlog is not what is tested here.
    let backlog = ListenOptions { backlog: CLIENTS as i32, ..ListenOptions::default() };
    let listener = stack.listen_with(PORT, backlog).expect("the port is free");
    let clients: Vec<_> = (0..THREADS).map(|thread| thread::spawn(move || send(thread))).collect();
    let mut served = Served::new(&listener, trigger);
    while served.ended < CLIENTS {
        served.poll();
    }
    for thread in clients {
        thread.join().expect("the clients do not panic");
    }
    eprintln!("{} polls, {} events, {trigger:?}", served.polls, served.events_seen);
    drop(served);
    drop(listener);
    nothing_is_left(&stack);
}

/// The byte at some place of a client's stream.
fn byte(number: u64, offset: u64) -> u8 {
    number.wrapping_mul(31).wrapping_add(offset.wrapping_mul(7)).wrapping_add(offset >> 8) as u8
}

/// One thread's clients connect, then they take turns, and each ends its stream.
fn send(thread: u64) {
    let numbers = (thread..CLIENTS).step_by(THREADS as usize);
    let mut clients: Vec<_> = numbers.map(|number| (connect(), number)).collect();
    for (client, number) in &mut clients {
        client.write_all(&number.to_be_bytes()).expect("the connection stands");
    }
    for turn in 0..TURNS {
        for (client, number) in &mut clients {
            let offsets = turn * (LEN / TURNS)..(turn + 1) * (LEN / TURNS);
            let bytes: Vec<u8> = offsets.map(|offset| byte(*number, offset)).collect();
            client.write_all(&bytes).expect("all is taken");
        }
    }
    for (client, _) in &clients {
        client.shutdown(Shutdown::Write).expect("the connection stands");
    }
    for (client, _) in &mut clients {
        assert_eq!(client.read(&mut [0]).expect("the stream ends"), 0);
    }
}

/// A thread's worth of connections.
struct Served<'a> {
    listener: &'a TcpListener,
    poller: Poller,
    trigger: Trigger,
    connections: Vec<Option<(TcpStream, Vec<u8>)>>,
    events: Events,
    ended: u64,
    polls: u64,
    events_seen: u64,
}

impl<'a> Served<'a> {
    fn new(listener: &'a TcpListener, trigger: Trigger) -> Self {
        let poller = Poller::new().expect("a descriptor");
        listener.set_nonblocking(true).expect("it may not wait");
        poller.register(listener, LISTENER, Interest::ACCEPT, trigger).expect("not yet registered");
        Self {
            listener,
            poller,
            trigger,
            connections: Vec::new(),
            events: Events::with_capacity(256),
            ended: 0,
            polls: 0,
            events_seen: 0,
        }
    }

    fn poll(&mut self) {
        let limit = Some(Duration::from_secs(30));
        let n = match self.poller.poll(&mut self.events, limit) {
            // The tap's driver uses signals, and any thread may get them.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            polled => polled.expect("a poll is ended by nothing else"),
        };
        assert_ne!(n, 0, "nothing for 30 s, {} streams have ended", self.ended);
        self.polls += 1;
        self.events_seen += n as u64;
        let events: Vec<_> = self.events.iter().copied().collect();
        for event in events {
            assert!(event.readiness().is_readable());
            match event.token() {
                LISTENER => self.accept(),
                Token(place) => self.read(place),
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let token = Token(self.connections.len());
            let interest = Interest::READ.with(Interest::RDHUP);
            self.poller.register(&stream, token, interest, self.trigger).expect("a new stream");
            self.connections.push(Some((stream, Vec::new())));
            if self.trigger == Trigger::Level {
                return;
            }
        }
    }

    fn read(&mut self, place: usize) {
        let mut buf = [0; 4096];
        loop {
            let Some((stream, got)) = &mut self.connections[place] else {
                panic!("an event of a stream that is gone");
            };
            match stream.recv(&mut buf, RecvFlags::DONTWAIT) {
                Ok(0) => {
                    let (number, bytes) = got.split_at(8);
                    let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
                    assert_eq!(bytes.len() as u64, LEN);
                    for (offset, &got) in (0..).zip(bytes) {
                        assert_eq!(got, byte(number, offset), "client {number}, byte {offset}");
                    }
                    self.connections[place] = None;
                    self.ended += 1;
                    return;
                }
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return;
                }
            }
            if self.trigger == Trigger::Level {
                return;
            }
        }
    }
}

/// Each client is a descriptor of this process; the usual limit is 1,024.
fn raise_descriptor_limit(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        assert!(maximum.is_none_or(|maximum| maximum >= wanted), "ulimit -Hn is {maximum:?}");
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
            .expect("a process may raise its limit to the maximum");
    }
}
