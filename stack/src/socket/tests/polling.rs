//! Pollers on threads of their own, and in the loops of others, against an lcore at full speed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::lcore::{Buf, End, Lcore, Plan, byte_at};
use crate::socket::{Events, Interest, Poller, RecvFlags, TcpStream, Token, Trigger, Waiting};

const BYTES: u64 = if cfg!(debug_assertions) { 1 << 20 } else { 16 << 20 };
/// A poll that takes longer has missed its event.
const LONG: Option<Duration> = Some(Duration::from_secs(20));

/// What was read, compared with what should have been.
#[derive(Default)]
struct Checked(u64);

impl Checked {
    /// Reads once; whether there may be more, and whether the stream has ended.
    fn read(&mut self, stream: &TcpStream<Buf>, buf: &mut [u8]) -> (bool, bool) {
        match stream.recv(buf, RecvFlags::DONTWAIT) {
            Ok(n) => {
                self.check(&buf[..n]);
                (n != 0, n == 0)
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                (false, false)
            }
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            assert_eq!(byte, byte_at(self.0), "at {}", self.0);
            self.0 += 1;
        }
    }
}

fn polled(plan: Plan, trigger: Trigger, waiting: Waiting) {
    let (lcore, handle) = Lcore::start(plan);
    let stream = TcpStream::from(handle);
    let poller = Poller::with_waiting(waiting).unwrap();
    poller.register(&stream, Token(1), Interest::READ, trigger).unwrap();
    let mut events = Events::with_capacity(4);
    let mut checked = Checked::default();
    let mut buf = [0; 10_000];
    let mut ended = false;
    while !ended {
        assert_eq!(poller.poll(&mut events, LONG).unwrap(), 1, "missed after {}", checked.0);
        loop {
            let (more, end) = checked.read(&stream, &mut buf);
            ended = end;
            if !more || trigger == Trigger::Level {
                break;
            }
        }
        if trigger == Trigger::Oneshot {
            poller.reregister(&stream, Token(1), Interest::READ, trigger).unwrap();
        }
    }
    assert_eq!(checked.0, plan.bytes);
    drop(stream);
    lcore.assert_all_comes_back();
    assert_eq!(poller.poll(&mut events, Some(Duration::ZERO)).unwrap(), 0);
}

#[test]
fn no_event_is_missed_however_a_poll_waits() {
    let pause = Duration::from_micros(100);
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Oneshot] {
        for waiting in [Waiting::Spin, Waiting::SpinThenPark, Waiting::Park] {
            polled(Plan::new(BYTES), trigger, waiting);
            polled(Plan { pause, ..Plan::new(BYTES / 8) }, trigger, waiting);
        }
    }
}

#[test]
fn timeouts_end_and_wake_ups_are_no_events() {
    let (_lcore, handle) = Lcore::start(Plan { end: End::Silence, ..Plan::new(0) });
    let stream = TcpStream::from(handle);
    let poller = Arc::new(Poller::new().unwrap());
    poller.register(&stream, Token(1), Interest::READ, Trigger::Level).unwrap();
    let mut events = Events::with_capacity(4);
    for waiting in [Waiting::Spin, Waiting::SpinThenPark, Waiting::Park] {
        let start = Instant::now();
        let wait = Duration::from_millis(20);
        assert_eq!(poller.poll_with(&mut events, Some(wait), waiting).unwrap(), 0);
        assert!(start.elapsed() >= wait, "{waiting:?}");
        let waker = thread::spawn({
            let poller = poller.clone();
            move || {
                thread::sleep(wait);
                poller.wake();
            }
        });
        assert_eq!(poller.poll_with(&mut events, LONG, waiting).unwrap(), 0);
        assert!(start.elapsed() < Duration::from_secs(15), "{waiting:?}");
        waker.join().unwrap();
    }
}

#[test]
fn registering_races_with_what_comes() {
    let pause = Duration::from_micros(20);
    let (lcore, handle) = Lcore::start(Plan { pause, ..Plan::new(BYTES / 4) });
    let stream = TcpStream::from(handle);
    let mut events = Events::with_capacity(1);
    let mut checked = Checked::default();
    let mut buf = [0; 3_000];
    let pollers = [Poller::new().unwrap(), Poller::new().unwrap()];
    // Leaves and comes back before each event, now here, now there, and sometimes to a new one.
    for round in 0.. {
        let fresh = (round % 5 == 0).then(|| Poller::new().unwrap());
        let poller = fresh.as_ref().unwrap_or(&pollers[round % 2]);
        poller.register(&stream, Token(round), Interest::READ, Trigger::Edge).unwrap();
        assert_eq!(poller.poll(&mut events, LONG).unwrap(), 1, "missed after {}", checked.0);
        assert_eq!(events.iter().next().unwrap().token(), Token(round));
        if checked.read(&stream, &mut buf).1 {
            break;
        }
        if fresh.is_none() {
            poller.deregister(&stream).unwrap();
        }
    }
    assert_eq!(checked.0, BYTES / 4);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[test]
fn a_stream_may_be_closed_while_others_poll() {
    let poller = Arc::new(Poller::new().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [(); 2].map(|()| {
        let (poller, stop) = (poller.clone(), stop.clone());
        thread::spawn(move || {
            let mut events = Events::with_capacity(2);
            while !stop.load(Ordering::SeqCst) {
                poller.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
            }
        })
    });
    for round in 0..20 {
        let (lcore, handle) = Lcore::start(Plan::new(1 << 30));
        let stream = TcpStream::from(handle);
        poller.register(&stream, Token(round), Interest::READ, Trigger::Level).unwrap();
        assert_ne!(stream.recv(&mut [0; 1000], RecvFlags::NONE).unwrap(), 0);
        drop(stream);
        lcore.assert_all_comes_back();
    }
    stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn epoll_sees_the_descriptor_of_a_poller() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pause = Duration::from_micros(100);
    let (lcore, handle) = Lcore::start(Plan { pause, ..Plan::new(BYTES / 8) });
    let stream = TcpStream::from(handle);
    let poller = Poller::new().unwrap();
    poller.register(&stream, Token(1), Interest::READ, Trigger::Level).unwrap();
    let mut events = Events::with_capacity(4);
    let mut checked = Checked::default();
    let mut buf = [0; 10_000];
    let mut ended = false;
    while !ended {
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&poller, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "missed after {}", checked.0);
        if poller.poll(&mut events, Some(Duration::ZERO)).unwrap() == 1 {
            ended = checked.read(&stream, &mut buf).1;
        }
    }
    assert_eq!(checked.0, BYTES / 8);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[cfg(feature = "mio")]
#[test]
fn mio_hears_of_every_edge() {
    let pause = Duration::from_micros(100);
    let (lcore, handle) = Lcore::start(Plan { pause, ..Plan::new(BYTES / 8) });
    let stream = TcpStream::from(handle);
    let mut poller = Poller::new().unwrap();
    poller.register(&stream, Token(1), Interest::READ, Trigger::Edge).unwrap();
    let mut outer = ::mio::Poll::new().unwrap();
    let interest = ::mio::Interest::READABLE;
    outer.registry().register(&mut poller, ::mio::Token(5), interest).unwrap();
    let mut outer_events = ::mio::Events::with_capacity(4);
    let mut events = Events::with_capacity(4);
    let mut checked = Checked::default();
    let mut buf = [0; 10_000];
    let mut ended = false;
    while !ended {
        outer.poll(&mut outer_events, LONG).unwrap();
        assert!(!outer_events.is_empty(), "missed after {}", checked.0);
        while poller.poll(&mut events, Some(Duration::ZERO)).unwrap() != 0 {
            loop {
                let (more, end) = checked.read(&stream, &mut buf);
                ended |= end;
                if !more {
                    break;
                }
            }
        }
    }
    assert_eq!(checked.0, BYTES / 8);
    drop(stream);
    lcore.assert_all_comes_back();
}

#[cfg(feature = "tokio")]
mod tasks {

    use super::*;
    use crate::socket::{AsyncTcpStream, Reactor};

    fn runtime() -> ::tokio::runtime::Runtime {
        ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn tasks_read_to_the_end() {
        let pause = Duration::from_micros(100);
        let plans =
            [Duration::ZERO, pause, pause].map(|pause| Plan { pause, ..Plan::new(200_000) });
        let connections = plans.map(Lcore::start);
        let (lcores, handles): (Vec<_>, Vec<_>) = connections.into_iter().unzip();
        runtime().block_on(async {
            let reactor = Reactor::new().unwrap();
            let mut tasks = Vec::new();
            for (i, handle) in handles.into_iter().enumerate() {
                let mut stream = AsyncTcpStream::new(&reactor, TcpStream::from(handle)).unwrap();
                tasks.push(::tokio::spawn(async move {
                    let mut checked = Checked::default();
                    let mut buf = vec![0; 3000];
                    loop {
                        let read = async {
                            match i {
                                0 => ::tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await,
                                1 => futures_util::AsyncReadExt::read(&mut stream, &mut buf).await,
                                _ => stream.recv(&mut buf, RecvFlags::NONE).await,
                            }
                        };
                        let read = ::tokio::time::timeout(Duration::from_secs(20), read).await;
                        let n = read.expect("an event was missed").unwrap();
                        checked.check(&buf[..n]);
                        if n == 0 {
                            return checked.0;
                        }
                    }
                }));
            }
            drop(reactor);
            for task in tasks {
                assert_eq!(task.await.unwrap(), 200_000);
            }
        });
        for lcore in lcores {
            lcore.assert_all_comes_back();
        }
    }
}
