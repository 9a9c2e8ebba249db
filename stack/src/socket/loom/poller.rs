//! Pollers: news against registering, news against sleeping, several that poll, and the end.

use std::sync::Arc;

use loom::thread;

use super::explore_bounded;
use super::stream::{Lcore, Toy, open};
use crate::buf::HeapBuf;
use crate::socket::sync::mutants::{self, Mutant};
use crate::socket::{
    AcceptQueue, Events, Handle, Interest, Poller, RecvFlags, TcpListener, TcpStream, Token,
    Trigger,
};

type Stream = TcpStream<HeapBuf, Toy>;

fn opened() -> (Lcore, Stream) {
    let (lcore, handle): (Lcore, Handle<HeapBuf, Toy>) = open();
    (lcore, handle.into())
}

/// The token of the one event that a poll waits for.
fn next(poller: &Poller) -> Token {
    let mut events = Events::with_capacity(1);
    assert_eq!(poller.poll(&mut events, None).unwrap(), 1);
    let event = *events.iter().next().unwrap();
    assert!(event.readiness().is_readable());
    event.token()
}

/// A stream is registered while its byte comes, and read when it is reported; then the next.
fn one_stream() {
    explore_bounded(2, || {
        let (mut lcore, stream) = opened();
        let reader = thread::spawn(move || {
            let poller = Poller::new().unwrap();
            poller.register(&stream, Token(7), Interest::READ, Trigger::Edge).unwrap();
            let mut read = 0;
            while read < 2 {
                assert_eq!(next(&poller), Token(7));
                let mut buf = [0; 2];
                // An edge may be told of a byte that was read with the one before.
                if let Ok(n) = stream.recv(&mut buf, RecvFlags::DONTWAIT) {
                    read += n;
                }
            }
        });
        lcore.push(0);
        lcore.push(1);
        lcore.settle();
        reader.join().unwrap();
        lcore.finish();
    });
}

#[test]
fn loom_a_watched_stream_is_reported() {
    one_stream();
}

#[test]
fn loom_mutant_register_without_look() {
    mutants::must_fail(Mutant::RegisterWithoutLook, "loom_a_watched_stream_is_reported");
}

#[test]
fn loom_mutant_register_without_fence() {
    mutants::must_fail(Mutant::RegisterWithoutFence, "loom_a_watched_stream_is_reported");
}

#[test]
fn loom_mutant_publish_without_fence() {
    mutants::must_fail(Mutant::WakeWithoutFence, "loom_a_watched_stream_is_reported");
}

#[test]
fn loom_mutant_doze_without_fence() {
    mutants::must_fail(Mutant::DozeWithoutFence, "loom_a_watched_stream_is_reported");
}

#[test]
fn loom_mutant_alarm_without_fence() {
    mutants::must_fail(Mutant::AlarmWithoutFence, "loom_a_watched_stream_is_reported");
}

/// Two threads poll, each for one of two streams: the ring of one is not taken for the other's.
fn two_threads() {
    explore_bounded(2, || {
        let poller = Arc::new(Poller::new().unwrap());
        let mut lcores = Vec::new();
        let mut streams = Vec::new();
        for token in 0..2 {
            let (lcore, stream) = opened();
            poller.register(&stream, Token(token), Interest::READ, Trigger::Oneshot).unwrap();
            lcores.push(lcore);
            streams.push(stream);
        }
        let other = {
            let poller = poller.clone();
            thread::spawn(move || next(&poller).0)
        };
        let both = {
            let poller = poller.clone();
            thread::spawn(move || next(&poller).0)
        };
        for lcore in &mut lcores {
            lcore.push(0);
        }
        let mut tokens = [other.join().unwrap(), both.join().unwrap()];
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1]);
        drop(streams);
        lcores.into_iter().for_each(Lcore::finish);
    });
}

#[test]
fn loom_two_threads_share_a_poller() {
    two_threads();
}

#[test]
fn loom_mutant_poll_forgets_others() {
    mutants::must_fail(Mutant::PollForgetsOthers, "loom_two_threads_share_a_poller");
}

/// A connection comes while its listener is registered.
#[test]
fn loom_a_watched_listener_is_reported() {
    explore_bounded(2, || {
        let queue = AcceptQueue::<HeapBuf, Toy>::new(0);
        let listener =
            TcpListener::new(queue.clone(), "10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap());
        let acceptor = thread::spawn(move || {
            let poller = Poller::new().unwrap();
            poller.register(&listener, Token(1), Interest::ACCEPT, Trigger::Level).unwrap();
            assert_eq!(next(&poller), Token(1));
            drop(listener.accept().unwrap());
        });
        let (lcore, handle) = open();
        queue.reserve().unwrap().put(handle);
        acceptor.join().unwrap();
        lcore.finish();
    });
}

/// The last handle goes, or the poller, while a byte comes: no link keeps the socket alive.
#[test]
fn loom_a_registration_ends_with_either_side() {
    for poller_first in [true, false] {
        explore_bounded(2, move || {
            let (mut lcore, stream) = opened();
            let closer = thread::spawn(move || {
                let poller = Poller::new().unwrap();
                poller.register(&stream, Token(7), Interest::READ, Trigger::Level).unwrap();
                if poller_first {
                    drop(poller);
                    drop(stream);
                } else {
                    drop(stream);
                    drop(poller);
                }
            });
            lcore.push(0);
            closer.join().unwrap();
            lcore.finish();
        });
    }
}

/// A stream leaves while its byte comes: what is left on the poller's list is nobody's news.
#[test]
fn loom_nothing_is_reported_of_what_has_left() {
    explore_bounded(2, || {
        let (mut lcore, stream) = opened();
        let poller = Poller::new().unwrap();
        poller.register(&stream, Token(7), Interest::READ, Trigger::Level).unwrap();
        let waker = thread::spawn(move || {
            poller.deregister(&stream).unwrap();
            poller.wake();
            let mut events = Events::with_capacity(1);
            assert_eq!(poller.poll(&mut events, None).unwrap(), 0);
        });
        lcore.push(0);
        waker.join().unwrap();
        lcore.finish();
    });
}
