//! The prequeue: a single-producer, single-consumer ring of in-sequence buffers.
//!
//! The lcore pushes as owner of the socket, the holder of the reader token pops. The ring itself is
//! rtrb's; under loom, which rtrb does not know, a plain twin with the same orderings takes its
//! place. It never waits, and a full ring refuses instead of losing.
#![allow(unsafe_code)]

use crate::buf::PacketBuf;
use crate::tcp::SeqNum;

#[cfg(not(loom))]
use self::real as imp;
#[cfg(loom)]
use self::twin as imp;

/// Buffers that the ring holds. A default receive buffer of 128 KiB holds some 55 mbufs by
/// truesize; 256 leaves room for a few times that and costs 4 KiB while a reader is installed.
/// What is beyond goes to the receive queue, which the reader takes whole.
pub(crate) const CAPACITY: usize = if cfg!(loom) { 2 } else { 256 };

/// What crosses the ring: the buffer, and what a reader knows of it before it touches it.
#[derive(Debug)]
pub(crate) struct Element<B> {
    /// Sequence number of the first byte.
    pub(crate) seq: SeqNum,
    /// The buffer.
    pub(crate) buf: B,
}

impl<B: PacketBuf> Element<B> {
    pub(crate) fn new(buf: B) -> Self {
        Self { seq: SeqNum::new(buf.cb().seq), buf }
    }
}

/// The lcore's end.
#[derive(Debug)]
pub(crate) struct Producer<B>(imp::Producer<Element<B>>);

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Consumer<B>(imp::Consumer<Element<B>>);

/// An empty ring.
pub(crate) fn new<B>() -> (Producer<B>, Consumer<B>) {
    let (producer, consumer) = imp::new(CAPACITY);
    (Producer(producer), Consumer(consumer))
}

impl<B: PacketBuf> Producer<B> {
    /// Appends the buffer, or gives it back if the ring is full.
    pub(crate) fn push(&mut self, buf: B) -> Result<(), B> {
        imp::push(&mut self.0, Element::new(buf)).map_err(|element| element.buf)
    }
}

impl<B> Consumer<B> {
    /// Takes the oldest element.
    pub(crate) fn pop(&mut self) -> Option<Element<B>> {
        imp::pop(&mut self.0)
    }

    /// Whether there is nothing at the moment.
    pub(crate) fn is_empty(&self) -> bool {
        imp::is_empty(&self.0)
    }
}

#[cfg(not(loom))]
mod real {
    pub(super) use rtrb::{Consumer, Producer};

    pub(super) fn new<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
        rtrb::RingBuffer::new(capacity)
    }

    pub(super) fn push<T>(ring: &mut Producer<T>, value: T) -> Result<(), T> {
        ring.push(value).map_err(|rtrb::PushError::Full(value)| value)
    }

    pub(super) fn pop<T>(ring: &mut Consumer<T>) -> Option<T> {
        ring.pop().ok()
    }

    pub(super) fn is_empty<T>(ring: &Consumer<T>) -> bool {
        ring.is_empty()
    }
}

#[cfg(loom)]
mod twin {
    use super::super::sync::{Arc, AtomicU32, Ordering, UnsafeCell};

    #[derive(Debug)]
    struct Shared<T> {
        /// Elements popped and pushed so far; a slot is the remainder by the capacity.
        head: AtomicU32,
        tail: AtomicU32,
        slots: Vec<UnsafeCell<Option<T>>>,
    }

    // SAFETY: a slot between head and tail is the consumer's, every other one the producer's.
    unsafe impl<T: Send> Sync for Shared<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send> Send for Shared<T> {}

    #[derive(Debug)]
    pub(super) struct Producer<T>(Arc<Shared<T>>);
    #[derive(Debug)]
    pub(super) struct Consumer<T>(Arc<Shared<T>>);

    pub(super) fn new<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let shared = Arc::new(Shared {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            slots: (0..capacity).map(|_| UnsafeCell::new(None)).collect(),
        });
        (Producer(shared.clone()), Consumer(shared))
    }

    pub(super) fn push<T>(ring: &mut Producer<T>, value: T) -> Result<(), T> {
        let ring = &*ring.0;
        let tail = ring.tail.load(Ordering::Relaxed);
        // Acquire pairs with the Release of `pop`.
        if (tail - ring.head.load(Ordering::Acquire)) as usize == ring.slots.len() {
            return Err(value);
        }
        let slot = &ring.slots[tail as usize % ring.slots.len()];
        // SAFETY: outside of head..tail, hence ours.
        slot.with_mut(|slot| unsafe { *slot = Some(value) });
        // Release pairs with the Acquire of `pop`.
        ring.tail.store(tail + 1, Ordering::Release);
        Ok(())
    }

    pub(super) fn pop<T>(ring: &mut Consumer<T>) -> Option<T> {
        let ring = &*ring.0;
        let head = ring.head.load(Ordering::Relaxed);
        // Acquire pairs with the Release of `push`.
        if head == ring.tail.load(Ordering::Acquire) {
            return None;
        }
        let slot = &ring.slots[head as usize % ring.slots.len()];
        // SAFETY: inside of head..tail, hence ours.
        let value = slot.with_mut(|slot| unsafe { (*slot).take() });
        // Release pairs with the Acquire of `push`.
        ring.head.store(head + 1, Ordering::Release);
        value
    }

    pub(super) fn is_empty<T>(ring: &Consumer<T>) -> bool {
        ring.0.head.load(Ordering::Relaxed) == ring.0.tail.load(Ordering::Acquire)
    }
}
