//! The accept queue: rooms, order, wake-up of one acceptor, closing.

use std::sync::Arc;

use loom::thread;

use super::explore;
use super::stream::{Toy, open};
use crate::buf::HeapBuf;
use crate::socket::sync::mutants::{self, Mutant};
use crate::socket::{AcceptQueue, TcpListener};

type Queue = AcceptQueue<HeapBuf, Toy>;

fn listener(queue: &Arc<Queue>) -> TcpListener<HeapBuf, Toy> {
    TcpListener::new(queue.clone(), "10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap())
}

/// An acceptor that waits, and a connection that comes.
fn one_acceptor() {
    explore(|| {
        let queue = Queue::new(0);
        let acceptor = {
            let queue = queue.clone();
            thread::spawn(move || drop(listener(&queue).accept().unwrap()))
        };
        let (lcore, handle) = open();
        queue.reserve().unwrap().put(handle);
        acceptor.join().unwrap();
        assert!(queue.is_empty());
        lcore.finish();
    });
}

#[test]
fn loom_an_acceptor_is_woken() {
    one_acceptor();
}

#[test]
fn loom_mutant_accept_without_fence() {
    mutants::must_fail(Mutant::AcceptWithoutFence, "loom_an_acceptor_is_woken");
}

/// Two lcores want the only room.
fn one_room() {
    explore(|| {
        let queue = Queue::new(0);
        let others = {
            let queue = queue.clone();
            thread::spawn(move || queue.reserve().map(std::mem::forget).is_some())
        };
        let ours = queue.reserve().map(std::mem::forget).is_some();
        assert!(ours != others.join().unwrap());
    });
}

#[test]
fn loom_a_room_is_given_once() {
    one_room();
}

#[test]
fn loom_mutant_reserve_without_exchange() {
    mutants::must_fail(Mutant::ReserveWithoutExchange, "loom_a_room_is_given_once");
}

/// The listener is closed while a connection comes: it is reset, by one side or the other.
#[test]
fn loom_closing_resets_what_nobody_accepts() {
    explore(|| {
        let queue = Queue::new(0);
        let (mut lcore, handle) = open();
        let closer = {
            let queue = queue.clone();
            thread::spawn(move || queue.close())
        };
        if let Some(room) = queue.reserve() {
            room.put(handle);
        } else {
            handle.abort();
            drop(handle);
        }
        closer.join().unwrap();
        assert!(lcore.is_to_be_reset());
        lcore.finish();
    });
}
