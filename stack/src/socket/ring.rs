//! The prequeue: a single-producer, single-consumer ring of in-sequence buffers.
//!
//! The lcore pushes as owner of the socket, the holder of the reader token pops. The ring itself is
//! rtrb's; under loom, which rtrb does not know, a plain twin with the same orderings takes its
//! place. It never waits, and a full ring refuses instead of losing.
#![allow(unsafe_code)]

use std::sync::Mutex;

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
    sizes: Sizes,
    /// The payload of a small segment: whoever reads it here fetches no line of the buffer.
    copy: [u8; SMALL],
    /// The buffer.
    pub(crate) buf: B,
}

/// Bytes of payload that travel in the ring: those of a message of market data.
const SMALL: usize = 64;

/// The truesize, and above it how many bytes of the copy are the payload; 0 if it did not fit.
#[derive(Clone, Copy, Debug)]
struct Sizes(u32);

impl Sizes {
    /// No buffer is so large that its truesize needs more bits.
    const LEN_AT: u32 = 24;

    fn new(truesize: u32, len: usize) -> Self {
        debug_assert!(truesize >> Self::LEN_AT == 0 && len <= SMALL);
        Self(truesize | (len as u32) << Self::LEN_AT)
    }

    const fn truesize(self) -> u32 {
        self.0 & ((1 << Self::LEN_AT) - 1)
    }

    const fn len(self) -> usize {
        (self.0 >> Self::LEN_AT) as usize
    }
}

impl<B: PacketBuf> Element<B> {
    #[inline]
    pub(crate) fn new(buf: B) -> Self {
        let data = buf.data();
        let mut copy = [0; SMALL];
        let mut len = 0;
        if data.len() <= SMALL {
            copy[..data.len()].copy_from_slice(data);
            len = data.len();
        }
        let sizes = Sizes::new(buf.truesize(), len);
        Self { seq: SeqNum::new(buf.cb().seq), sizes, copy, buf }
    }

    /// What the buffer costs.
    #[inline]
    pub(crate) fn truesize(&self) -> u32 {
        self.sizes.truesize()
    }

    /// The payload.
    #[inline]
    pub(crate) fn data(&self) -> &[u8] {
        match self.sizes.len() {
            0 => self.buf.data(),
            len => &self.copy[..len],
        }
    }
}

/// The lcore's end.
#[derive(Debug)]
pub(crate) struct Producer<B>(imp::Producer<Element<B>>);

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Consumer<B>(imp::Consumer<Element<B>>);

/// An empty ring.
pub(crate) fn new<B: PacketBuf>() -> (Producer<B>, Consumer<B>) {
    let (producer, consumer) = imp::new(CAPACITY);
    (Producer(producer), Consumer(consumer))
}

/// Empty rings that nobody uses, both ends of each: a read that has to wait finds one here instead of
/// allocating it. A few per lcore, for as many are installed at the same time at most by threads that
/// come and go.
#[derive(Debug)]
pub(crate) struct Spares<B: PacketBuf>([Place<B>; SPARES]);

/// Where a ring can be left. It is only ever tried, so that nobody waits.
type Place<B> = Mutex<Option<(Producer<B>, Consumer<B>)>>;

/// Of 4 KiB each. None in models: what they would show is a mutex.
const SPARES: usize = if cfg!(loom) { 0 } else { 16 };

impl<B: PacketBuf> Default for Spares<B> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(None)))
    }
}

impl<B: PacketBuf> Spares<B> {
    /// A ring that was left, or a new one.
    pub(crate) fn take(&self) -> (Producer<B>, Consumer<B>) {
        let spare = self.0.iter().find_map(|place| place.try_lock().ok()?.take());
        spare.unwrap_or_else(new)
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn count(&self) -> usize {
        self.0.iter().filter(|place| place.lock().is_ok_and(|ring| ring.is_some())).count()
    }

    /// Leaves a ring, which must be empty, to the next that needs one.
    pub(crate) fn give(&self, producer: Producer<B>, consumer: Consumer<B>) {
        debug_assert!(consumer.is_empty(), "a ring with data was given up");
        let free = |place: &&Place<B>| place.try_lock().is_ok_and(|ring| ring.is_none());
        if let Some(place) = self.0.iter().find(free)
            && let Ok(mut place) = place.try_lock()
        {
            // Somebody may have been faster: one ring more is freed then.
            *place = Some((producer, consumer));
        }
    }
}

impl<B: PacketBuf> Producer<B> {
    /// Appends the buffer, or gives it back if the ring is full.
    pub(crate) fn push(&mut self, buf: B) -> Result<(), B> {
        imp::push(&mut self.0, Element::new(buf)).map_err(|element| element.buf)
    }

    /// Appends buffers as long as there is room; how many. They become visible together, for a reader that
    /// watches takes the line of the index away each time that it is written.
    pub(crate) fn push_each(&mut self, bufs: &mut impl ExactSizeIterator<Item = B>) -> usize {
        let wanted = bufs.len();
        imp::push_each(&mut self.0, wanted, bufs.map(Element::new))
    }
}

impl<B: PacketBuf> Consumer<B> {
    /// Takes the oldest element.
    pub(crate) fn pop(&mut self) -> Option<Element<B>> {
        imp::pop(&mut self.0)
    }

    /// Looks at what there is, oldest first.
    pub(crate) fn each(&mut self, mut look: impl FnMut(&B)) {
        imp::each(&mut self.0, |element| look(&element.buf));
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

    /// As many of the first `wanted` as there is room for; no other is taken out of the iterator.
    pub(super) fn push_each<T>(
        ring: &mut Producer<T>,
        wanted: usize,
        values: impl Iterator<Item = T>,
    ) -> usize {
        use rtrb::chunks::ChunkError::TooFewSlots;
        let room = match ring.write_chunk_uninit(wanted) {
            Ok(chunk) => return chunk.fill_from_iter(values),
            Err(TooFewSlots(room)) => room,
        };
        ring.write_chunk_uninit(room).map_or(0, |chunk| chunk.fill_from_iter(values))
    }

    pub(super) fn pop<T>(ring: &mut Consumer<T>) -> Option<T> {
        ring.pop().ok()
    }

    pub(super) fn each<T>(ring: &mut Consumer<T>, mut look: impl FnMut(&T)) {
        // A chunk that is dropped without being committed stays in the ring.
        if let Ok(chunk) = ring.read_chunk(ring.slots()) {
            let (first, second) = chunk.as_slices();
            first.iter().chain(second).for_each(&mut look);
        }
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

    pub(super) fn push_each<T>(
        ring: &mut Producer<T>,
        wanted: usize,
        values: impl Iterator<Item = T>,
    ) -> usize {
        let ring = &*ring.0;
        let tail = ring.tail.load(Ordering::Relaxed);
        // Acquire pairs with the Release of `pop`.
        let used = tail - ring.head.load(Ordering::Acquire);
        let room = ring.slots.len() - used as usize;
        let mut end = tail;
        for value in values.take(wanted.min(room)) {
            let slot = &ring.slots[end as usize % ring.slots.len()];
            // SAFETY: outside of head..tail, hence ours.
            slot.with_mut(|slot| unsafe { *slot = Some(value) });
            end += 1;
        }
        // Release pairs with the Acquire of `pop`.
        ring.tail.store(end, Ordering::Release);
        (end - tail) as usize
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

    pub(super) fn each<T>(ring: &mut Consumer<T>, mut look: impl FnMut(&T)) {
        let ring = &*ring.0;
        // Acquire pairs with the Release of `push`.
        for at in ring.head.load(Ordering::Relaxed)..ring.tail.load(Ordering::Acquire) {
            let slot = &ring.slots[at as usize % ring.slots.len()];
            // SAFETY: inside of head..tail, hence ours.
            slot.with(|slot| unsafe { (*slot).iter().for_each(&mut look) });
        }
    }

    pub(super) fn is_empty<T>(ring: &Consumer<T>) -> bool {
        ring.0.head.load(Ordering::Relaxed) == ring.0.tail.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::buf::HeapBuf;

    #[test]
    fn rings_are_used_again_up_to_a_number() {
        let spares = Spares::<HeapBuf>::default();
        let rings: Vec<_> = (0..2 * SPARES).map(|_| spares.take()).collect();
        for (producer, consumer) in rings {
            spares.give(producer, consumer);
        }
        assert_eq!(spares.count(), SPARES);
        let (mut producer, mut consumer) = spares.take();
        assert_eq!(spares.count(), SPARES - 1);
        // A used ring is as good as a new one.
        for _ in 0..3 * CAPACITY {
            producer.push(HeapBuf::new(b"x")).unwrap();
            assert_eq!(consumer.pop().unwrap().buf.data(), b"x");
        }
        spares.give(producer, consumer);
        assert_eq!(spares.count(), SPARES);
    }
}
