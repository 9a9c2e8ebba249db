//! Signals that meet a thread which sleeps in a read.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use super::hand::open;
use crate::socket::RecvFlags;

const PAUSE: Duration = Duration::from_millis(1);

#[test]
fn signals_end_sleeps_with_a_time_limit_and_others_go_on_after_handlers_that_restart() {
    // Installed with SA_RESTART.
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::new(AtomicBool::new(false)))
        .unwrap();
    let (mut hand, stream) = open();
    let stream = &stream;
    let read = |thread: mpsc::Sender<_>| {
        thread.send(pthread_self()).unwrap();
        stream.recv(&mut [0; 9], RecvFlags::NONE)
    };
    stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let reader = scope.spawn(|| read(sender));
        let thread = receiver.recv().unwrap();
        // It spins at first, and notices nothing.
        while !reader.is_finished() {
            pthread_kill(thread, Signal::SIGUSR1).unwrap();
            thread::sleep(PAUSE);
        }
        assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
    });
    stream.set_read_timeout(None).unwrap();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let reader = scope.spawn(|| read(sender));
        let thread = receiver.recv().unwrap();
        for _ in 0..20 {
            pthread_kill(thread, Signal::SIGUSR1).unwrap();
            thread::sleep(PAUSE);
        }
        assert!(!reader.is_finished());
        hand.data(b"0");
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
}
