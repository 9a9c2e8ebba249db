//! Packet buffers that let the stage watch: an ordinary heap buffer, and two ways of being told.
//!
//! The stage puts an observer up for as long as a scenario is played. A reader that is in the middle of
//! its step stops in [`PacketBuf::watch`]; the lcore narrows a frame to its payload at the moment in
//! which it has found out who owns the socket. Everything happens on the thread that plays.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use prequeue::buf::{HeapBuf, HeapReturns, PacketBuf, SegCb};
use prequeue::watch::{Moment, Owner, Seen};

/// What is called when a reader is in the middle of its step.
type Observer = Box<dyn FnMut(Moment, &mut dyn FnMut() -> Seen)>;

thread_local! {
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
    static ASK: RefCell<Option<Box<dyn Fn() -> Owner>>> = const { RefCell::new(None) };
    static MET: Cell<Option<Owner>> = const { Cell::new(None) };
}

/// Runs a reader's step with `observer` told of each moment of it.
pub(super) fn observed<T>(observer: Observer, step: impl FnOnce() -> T) -> T {
    OBSERVER.set(Some(observer));
    let result = step();
    OBSERVER.set(None);
    result
}

/// Says how to find out who owns the socket when a segment reaches it.
pub(super) fn ask_owner(ask: Option<Box<dyn Fn() -> Owner>>) {
    ASK.set(ask);
}

/// Notes who owns the socket at this moment, unless that is known of an earlier one.
pub(super) fn note_owner() {
    if MET.get().is_none() {
        ASK.with_borrow(|ask| MET.set(ask.as_ref().map(|ask| ask())));
    }
}

/// Who owned the socket at the moment that was noted; told once.
pub(super) fn met() -> Option<Owner> {
    MET.take()
}

/// A packet buffer on stage.
#[derive(Debug)]
pub struct StageBuf(HeapBuf);

impl StageBuf {
    /// A buffer that holds a frame.
    pub fn new(frame: &[u8]) -> Self {
        Self(HeapBuf::new(frame))
    }
}

impl PacketBuf for StageBuf {
    type Queue = VecDeque<Self>;
    type Returns = HeapReturns<Self>;

    fn data(&self) -> &[u8] {
        self.0.data()
    }

    fn trim_front(&mut self, n: usize) {
        self.0.trim_front(n);
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn narrow(&mut self, start: usize, len: usize) {
        note_owner();
        self.0.narrow(start, len);
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        self.0.append(bytes)
    }

    fn truesize(&self) -> u32 {
        self.0.truesize()
    }

    fn cb(&self) -> &SegCb {
        self.0.cb()
    }

    fn cb_mut(&mut self) -> &mut SegCb {
        self.0.cb_mut()
    }

    fn watch(moment: Moment, look: &mut dyn FnMut() -> Seen) {
        // Taken out for the time of the call: what is observed may call back here.
        if let Some(mut observer) = OBSERVER.take() {
            observer(moment, look);
            OBSERVER.set(Some(observer));
        }
    }
}
