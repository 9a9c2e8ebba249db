//! FIFO of mbufs linked through their private areas: queueing a segment allocates nothing.
//!
//! Used by whoever owns the mbufs: the lcore for receive queues, a thread for chains on their way
//! back. Each operation is O(1); dropping the queue frees its mbufs in bulk.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::ptr::{self, NonNull};

use dpdk_sys as sys;

use super::batch::MbufBatch;
use super::bulk;
use super::mbuf::Mbuf;
use super::pool_core;
use crate::buf::{self, BufQueue, PacketBuf, SPENT_AT_ONCE};

/// A FIFO of mbufs.
///
/// It may go from thread to thread with its mbufs; dropping it is as dropping them. Pushing an mbuf
/// writes its link, so that an mbuf is on one queue at most.
///
/// ```no_run
/// use prequeue::buf::BufQueue;
/// use prequeue::dpdk::{MbufQueue, Mempool};
///
/// fn two(pool: &Mempool) -> Option<MbufQueue> {
///     let mut queue = MbufQueue::default();
///     queue.push_back(pool.alloc()?);
///     queue.push_front(pool.alloc()?);
///     assert_eq!(queue.iter().count(), 2);
///     Some(queue)
/// }
/// ```
#[derive(Default)]
pub struct MbufQueue {
    // Invariant: `head` and `tail` are the first and last mbuf, or null both; the links of the
    // private areas lead from one to the other; the last link is null; the queue owns them all.
    head: Link,
    tail: Link,
    len: usize,
}

// SAFETY: it owns its mbufs, which are Send; the links are plain pointers to them.
unsafe impl Send for MbufQueue {}

impl MbufQueue {
    /// The first and last mbuf of the chain, which is the caller's now. `None` if it is empty.
    pub(super) fn into_chain(self) -> Option<(NonNull<sys::rte_mbuf>, NonNull<sys::rte_mbuf>)> {
        let queue = ManuallyDrop::new(self);
        Some((NonNull::new(queue.head.0)?, NonNull::new(queue.tail.0)?))
    }

    /// Frees all, in bulk, having shown each; the queue is empty then.
    #[inline(always)]
    fn free_each(&mut self, each: impl FnMut(&Mbuf)) {
        // SAFETY: ours and linked; the queue has forgotten them.
        unsafe { free_linked(mem::take(self).into_head(), each) };
    }

    #[inline(never)]
    fn clear(&mut self) {
        self.free_each(|_| {});
    }

    /// The first mbuf of the chain, which is the caller's now; null if there is none.
    fn into_head(self) -> *mut sys::rte_mbuf {
        ManuallyDrop::new(self).head.0
    }

    /// Lends an mbuf to a closure, which must not exchange it for another.
    ///
    /// # Safety
    /// It is the head or the tail of a queue that the caller has borrowed mutably.
    #[inline(always)]
    unsafe fn with<R>(raw: NonNull<sys::rte_mbuf>, work: impl FnOnce(&mut Mbuf) -> R) -> R {
        // SAFETY: forwarded; the queue goes on owning it, for the double is not dropped.
        let mut lent = ManuallyDrop::new(unsafe { Mbuf::from_raw(raw) });
        work(&mut lent)
    }
}

impl BufQueue<Mbuf> for MbufQueue {
    #[inline]
    fn push_back(&mut self, mbuf: Mbuf) {
        let raw = mbuf.into_raw();
        // SAFETY: the mbuf is ours.
        unsafe { link(raw).write(ptr::null_mut()) };
        match NonNull::new(self.tail.0) {
            // SAFETY: the tail is ours.
            Some(tail) => unsafe { link(tail).write(raw.as_ptr()) },
            None => self.head = Link(raw.as_ptr()),
        }
        self.tail = Link(raw.as_ptr());
        self.len += 1;
    }

    #[inline(always)]
    fn push_each(&mut self, mut mbufs: impl Iterator<Item = Mbuf>) -> usize {
        // If the iterator panics they are lost, as if it had never given them.
        let Some(first) = mbufs.next().map(Mbuf::into_raw) else { return 0 };
        let (mut last, mut len) = (first, 1);
        for mbuf in mbufs {
            let raw = mbuf.into_raw();
            // SAFETY: given away to us, both.
            unsafe { link(last).write(raw.as_ptr()) };
            last = raw;
            len += 1;
        }
        // SAFETY: the mbuf is ours.
        unsafe { link(last).write(ptr::null_mut()) };
        self.append(&mut Self { head: Link(first.as_ptr()), tail: Link(last.as_ptr()), len });
        len
    }

    #[inline]
    fn push_front(&mut self, mbuf: Mbuf) {
        let raw = mbuf.into_raw();
        // SAFETY: the mbuf is ours.
        unsafe { link(raw).write(self.head.0) };
        self.head = Link(raw.as_ptr());
        if self.len == 0 {
            self.tail = Link(raw.as_ptr());
        }
        self.len += 1;
    }

    #[inline]
    fn pop_front(&mut self) -> Option<Mbuf> {
        let first = NonNull::new(self.head.0)?;
        // SAFETY: the head is ours and linked.
        self.head = Link(unsafe { link(first).read() });
        if self.head.0.is_null() {
            self.tail = Link(ptr::null_mut());
        }
        self.len -= 1;
        // SAFETY: ours until now; the queue has forgotten it.
        Some(unsafe { Mbuf::from_raw(first) })
    }

    #[inline]
    fn spend_front(
        &mut self,
        most: usize,
        batch: &mut MbufBatch,
        mut takes: impl FnMut(&Mbuf) -> bool,
    ) -> usize {
        // If it panics what is left here is lost, as if it had never been queued.
        let Self { mut head, tail, len } = *ManuallyDrop::new(mem::take(self));
        let mut spent = [const { MaybeUninit::uninit() }; SPENT_AT_ONCE];
        let (most, mut n, mut truesize) = (most.min(SPENT_AT_ONCE), 0, 0);
        while n < most
            && let Some(raw) = NonNull::new(head.0)
        {
            // SAFETY: linked, so ours; the double is not dropped.
            let mbuf = ManuallyDrop::new(unsafe { Mbuf::from_raw(raw) });
            if !takes(&mbuf) {
                break;
            }
            spent[n].write(raw);
            n += 1;
            truesize += mbuf.truesize();
            // SAFETY: as above.
            head = Link(unsafe { link(raw).read() });
        }
        if !head.0.is_null() {
            *self = Self { head, tail, len: len - n };
        }
        // SAFETY: `n` are written, mbufs that were ours until now.
        unsafe { batch.extend(spent[..n].assume_init_ref(), truesize) };
        n
    }

    #[inline]
    fn front(&self) -> Option<&Mbuf> {
        lend(&self.head)
    }

    #[inline]
    fn back(&self) -> Option<&Mbuf> {
        lend(&self.tail)
    }

    fn trim_front(&mut self, n: usize) {
        let head = NonNull::new(self.head.0).expect("a buffer to be trimmed");
        // SAFETY: our head.
        unsafe { Self::with(head, |mbuf| buf::advance(mbuf, n)) }
    }

    fn extend_back(&mut self, bytes: &[u8], fin: bool) -> bool {
        let Some(tail) = NonNull::new(self.tail.0) else { return false };
        // SAFETY: our tail.
        unsafe { Self::with(tail, |mbuf| buf::extend(mbuf, bytes, fin)) }
    }

    #[inline]
    fn append(&mut self, newer: &mut Self) {
        let newer = ManuallyDrop::new(mem::take(newer));
        if newer.head.0.is_null() {
            return;
        }
        match NonNull::new(self.tail.0) {
            // SAFETY: both queues are ours.
            Some(tail) => unsafe { link(tail).write(newer.head.0) },
            None => self.head = Link(newer.head.0),
        }
        self.tail = Link(newer.tail.0);
        self.len += newer.len;
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = &'a Mbuf>
    where
        Mbuf: 'a,
    {
        Iter::new(self)
    }

    fn free(mut self) -> u32 {
        let mut truesize = 0;
        self.free_each(|mbuf| truesize += mbuf.truesize());
        truesize
    }

    #[inline]
    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for MbufQueue {
    #[inline]
    fn drop(&mut self) {
        if !self.head.0.is_null() {
            self.clear();
        }
    }
}

impl fmt::Debug for MbufQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The mbufs of a queue, oldest first.
///
/// See [`MbufQueue`] for an example.
#[derive(Debug)]
pub struct Iter<'a> {
    next: *mut sys::rte_mbuf,
    place: *const Mbuf,
    _queue: PhantomData<&'a MbufQueue>,
}

impl<'a> Iter<'a> {
    fn new(queue: &'a MbufQueue) -> Self {
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

/// A plain link, null by default.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Link(*mut sys::rte_mbuf);

impl Default for Link {
    fn default() -> Self {
        Self(ptr::null_mut())
    }
}

/// The mbuf that a link leads to.
#[inline(always)]
fn lend(link: &Link) -> Option<&Mbuf> {
    // SAFETY: both are one pointer, null for none; while the queue is borrowed what its links lead
    // to stays linked.
    unsafe { (*ptr::from_ref(link).cast::<Option<Mbuf>>()).as_ref() }
}

/// Frees linked mbufs, in bulk, having shown each.
///
/// # Safety
/// The caller owns them, mbufs of pools of ours whose last link is null, and gives them away.
#[inline(always)]
pub(super) unsafe fn free_linked(mut next: *mut sys::rte_mbuf, mut each: impl FnMut(&Mbuf)) {
    let mbufs = std::iter::from_fn(|| {
        let mbuf = NonNull::new(next)?;
        // SAFETY: forwarded; the double is not dropped.
        let lent = unsafe {
            next = link(mbuf).read();
            ManuallyDrop::new(Mbuf::from_raw(mbuf))
        };
        each(&lent);
        Some(mbuf.as_ptr())
    });
    // SAFETY: forwarded; not looked at again.
    unsafe { bulk::free_each(mbufs) };
}

/// The place of an mbuf's link.
///
/// # Safety
/// `mbuf` is of a pool of ours; its owner alone may use the place.
#[inline(always)]
pub(super) unsafe fn link(mbuf: NonNull<sys::rte_mbuf>) -> *mut *mut sys::rte_mbuf {
    // SAFETY: forwarded.
    unsafe { &raw mut (*pool_core::private(mbuf.as_ptr())).next }
}
