//! FIFO of mbufs linked through their private areas: queueing a segment allocates nothing.
//!
//! Used by whoever owns the mbufs: the lcore for receive queues, a thread for chains on their way
//! back. Each operation is O(1); dropping the queue frees its mbufs in bulk.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ptr::{self, NonNull};

use dpdk_sys as sys;

use super::mbuf::Mbuf;
use super::mempool;
use crate::buf::BufQueue;

/// A FIFO of mbufs.
///
/// `front_mut` and `back_mut` are for trimming and appending. Exchanging the mbuf they lend for
/// another (by `mem::swap`) would tear the links; the next use of the queue panics then, and its
/// mbufs are leaked.
#[derive(Default)]
pub struct MbufQueue {
    // Invariant, unless one was exchanged: `front` and `back` are the first and last mbuf, or `None`
    // both; the links of the private areas lead from one to the other; the last link is null; the
    // queue owns them all. They are lent by reference, so they are kept twice: what `head` and
    // `tail` say is what was linked.
    front: ManuallyDrop<Option<Mbuf>>,
    back: ManuallyDrop<Option<Mbuf>>,
    head: Link,
    tail: Link,
    len: usize,
}

// SAFETY: it owns its mbufs, which are Send; the links are plain pointers to them.
unsafe impl Send for MbufQueue {}

impl MbufQueue {
    /// Takes over the chain from `first` to `last`, whose link is null, of `len` mbufs.
    ///
    /// # Safety
    /// The caller owns the mbufs of the chain, linked as described, and gives them away.
    pub(super) unsafe fn from_chain(
        first: NonNull<sys::rte_mbuf>,
        last: NonNull<sys::rte_mbuf>,
        len: usize,
    ) -> Self {
        let mut queue = Self::default();
        queue.len = len;
        queue.set_front(Some(first));
        queue.set_back(Some(last));
        queue
    }

    /// The first and last mbuf of the chain, which is the caller's now. `None` if it is empty.
    pub(super) fn into_chain(self) -> Option<(NonNull<sys::rte_mbuf>, NonNull<sys::rte_mbuf>)> {
        self.check();
        let queue = ManuallyDrop::new(self);
        Some((NonNull::new(queue.head.0)?, NonNull::new(queue.tail.0)?))
    }

    /// Panics if a lent mbuf was exchanged.
    #[inline(always)]
    fn check(&self) {
        assert!(self.intact(), "a queued mbuf was exchanged through front_mut or back_mut");
    }

    #[inline(always)]
    fn intact(&self) -> bool {
        raw_of(&self.front) == self.head.0 && raw_of(&self.back) == self.tail.0
    }

    #[inline(always)]
    fn set_front(&mut self, mbuf: Option<NonNull<sys::rte_mbuf>>) {
        // SAFETY: the queue owns what it links to; the double is never dropped.
        self.front = ManuallyDrop::new(mbuf.map(|mbuf| unsafe { Mbuf::from_raw(mbuf) }));
        self.head = Link(mbuf.map_or(ptr::null_mut(), NonNull::as_ptr));
    }

    #[inline(always)]
    fn set_back(&mut self, mbuf: Option<NonNull<sys::rte_mbuf>>) {
        // SAFETY: as in `set_front`.
        self.back = ManuallyDrop::new(mbuf.map(|mbuf| unsafe { Mbuf::from_raw(mbuf) }));
        self.tail = Link(mbuf.map_or(ptr::null_mut(), NonNull::as_ptr));
    }
}

impl BufQueue<Mbuf> for MbufQueue {
    #[inline]
    fn push_back(&mut self, mbuf: Mbuf) {
        self.check();
        let raw = mbuf.into_raw();
        // SAFETY: the mbuf is ours.
        unsafe { link(raw).write(ptr::null_mut()) };
        match NonNull::new(self.tail.0) {
            // SAFETY: the tail is ours.
            Some(tail) => unsafe { link(tail).write(raw.as_ptr()) },
            None => self.set_front(Some(raw)),
        }
        self.set_back(Some(raw));
        self.len += 1;
    }

    #[inline]
    fn push_front(&mut self, mbuf: Mbuf) {
        self.check();
        let raw = mbuf.into_raw();
        // SAFETY: the mbuf is ours.
        unsafe { link(raw).write(self.head.0) };
        self.set_front(Some(raw));
        if self.len == 0 {
            self.set_back(Some(raw));
        }
        self.len += 1;
    }

    #[inline]
    fn pop_front(&mut self) -> Option<Mbuf> {
        self.check();
        let first = NonNull::new(self.head.0)?;
        // SAFETY: the head is ours and linked.
        let next = NonNull::new(unsafe { link(first).read() });
        self.set_front(next);
        if next.is_none() {
            self.set_back(None);
        }
        self.len -= 1;
        // SAFETY: ours until now; the queue has forgotten it.
        Some(unsafe { Mbuf::from_raw(first) })
    }

    #[inline]
    fn front(&self) -> Option<&Mbuf> {
        self.check();
        self.front.as_ref()
    }

    #[inline]
    fn front_mut(&mut self) -> Option<&mut Mbuf> {
        self.check();
        self.front.as_mut()
    }

    #[inline]
    fn back(&self) -> Option<&Mbuf> {
        self.check();
        self.back.as_ref()
    }

    #[inline]
    fn back_mut(&mut self) -> Option<&mut Mbuf> {
        self.check();
        self.back.as_mut()
    }

    #[inline]
    fn append(&mut self, newer: &mut Self) {
        self.check();
        newer.check();
        let newer = ManuallyDrop::new(mem::take(newer));
        let (Some(first), Some(last)) = (NonNull::new(newer.head.0), NonNull::new(newer.tail.0))
        else {
            return;
        };
        match NonNull::new(self.tail.0) {
            // SAFETY: both queues are ours.
            Some(tail) => unsafe { link(tail).write(first.as_ptr()) },
            None => self.set_front(Some(first)),
        }
        self.set_back(Some(last));
        self.len += newer.len;
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = &'a Mbuf>
    where
        Mbuf: 'a,
    {
        Iter::new(self)
    }

    #[inline]
    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for MbufQueue {
    fn drop(&mut self) {
        // Torn links: to leak is all that is safe. Whoever tore them gets the panic at the next use.
        if !self.intact() {
            return;
        }
        let mut next = self.head.0;
        let mut batch = [ptr::null_mut(); FREE_BATCH];
        while !next.is_null() {
            let mut n = 0;
            while let (Some(mbuf), true) = (NonNull::new(next), n < FREE_BATCH) {
                batch[n] = next;
                // SAFETY: ours and linked.
                next = unsafe { link(mbuf).read() };
                n += 1;
            }
            // SAFETY: ours, and past them all.
            unsafe { mempool::free(&mut batch[..n]) };
        }
    }
}

impl fmt::Debug for MbufQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The mbufs of a queue, oldest first.
#[derive(Debug)]
pub struct Iter<'a> {
    next: *mut sys::rte_mbuf,
    place: *const Mbuf,
    _queue: PhantomData<&'a MbufQueue>,
}

impl<'a> Iter<'a> {
    fn new(queue: &'a MbufQueue) -> Self {
        queue.check();
        Self { next: queue.head.0, place: (&raw const queue.head).cast(), _queue: PhantomData }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Mbuf;

    fn next(&mut self) -> Option<&'a Mbuf> {
        let mbuf = NonNull::new(self.next)?;
        // SAFETY: the place that links to the mbuf holds a pointer to it, which is what an `Mbuf`
        // is; nothing is unlinked while the queue is borrowed.
        unsafe {
            let lent = &*self.place;
            self.place = link(mbuf).cast_const().cast();
            self.next = link(mbuf).read();
            Some(lent)
        }
    }
}

/// Mbufs freed with one call: what the mempool's cache takes in a gulp.
const FREE_BATCH: usize = 64;

/// A plain link, null by default.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Link(*mut sys::rte_mbuf);

impl Default for Link {
    fn default() -> Self {
        Self(ptr::null_mut())
    }
}

#[inline(always)]
fn raw_of(mbuf: &Option<Mbuf>) -> *mut sys::rte_mbuf {
    mbuf.as_ref().map_or(ptr::null_mut(), |mbuf| mbuf.as_raw().as_ptr())
}

/// The place of an mbuf's link.
///
/// # Safety
/// `mbuf` is of a pool of ours; its owner alone may use the place.
#[inline(always)]
pub(super) unsafe fn link(mbuf: NonNull<sys::rte_mbuf>) -> *mut *mut sys::rte_mbuf {
    // SAFETY: forwarded.
    unsafe { &raw mut (*mempool::private(mbuf.as_ptr())).next }
}
