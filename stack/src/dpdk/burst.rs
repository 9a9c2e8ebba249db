//! A burst: up to `N` owned mbufs in an array, as devices take and give them.
//!
//! Lives on the stack of the poll loop, which fills it from a queue, drains it, or hands it to one.
//! Never allocates; what is left in it when it is dropped is freed in bulk.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use dpdk_sys as sys;

use super::mbuf::Mbuf;
use super::pool_core;

/// Up to `N` mbufs in order.
///
/// Dropping it frees what is left in it, on a thread that may do so: see [`Mbuf`].
///
/// ```no_run
/// use prequeue::buf::PacketBuf;
/// use prequeue::dpdk::{Burst, RxQueue};
///
/// fn bytes_of_a_burst(queue: &mut RxQueue) -> usize {
///     let mut burst = Burst::<32>::new();
///     queue.rx(&mut burst);
///     burst.drain().map(|mbuf| mbuf.len()).sum()
/// }
/// ```
pub struct Burst<const N: usize> {
    // Invariant: the first `len` places hold mbufs that the burst owns; the others may never have been
    // written, for who polls makes a burst each time.
    mbufs: [MaybeUninit<*mut sys::rte_mbuf>; N],
    len: usize,
}

// SAFETY: it owns mbufs, which are Send.
unsafe impl<const N: usize> Send for Burst<N> {}

impl<const N: usize> Burst<N> {
    /// An empty burst.
    pub const fn new() -> Self {
        Self { mbufs: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// Number of mbufs.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is no room for another.
    pub const fn is_full(&self) -> bool {
        self.len == N
    }

    /// Appends an mbuf, or gives it back if the burst is full.
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        match self.mbufs.get_mut(self.len) {
            Some(place) => {
                place.write(mbuf.into_raw().as_ptr());
                self.len += 1;
                Ok(())
            }
            None => Err(mbuf),
        }
    }

    /// The mbufs.
    pub fn as_slice(&self) -> &[Mbuf] {
        // SAFETY: `len` places hold mbufs; an `Mbuf` is one such pointer.
        unsafe { std::slice::from_raw_parts(self.mbufs.as_ptr().cast(), self.len) }
    }

    /// The mbufs, to be written or exchanged.
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        // SAFETY: as in `as_slice`; an exchange leaves an mbuf in each place.
        unsafe { std::slice::from_raw_parts_mut(self.mbufs.as_mut_ptr().cast(), self.len) }
    }

    /// Lends the mbufs as places, each of which they can be taken out of, or exchanged in. The burst is
    /// empty then; what is left in the places is freed with them.
    #[inline]
    pub fn take_places(&mut self) -> Places<'_> {
        let len = self.len;
        // Places that are forgotten leak their mbufs; they must not be here as well.
        self.len = 0;
        // SAFETY: an `Option<Mbuf>` is one pointer, null for none; these are mbufs that the burst gives
        // away.
        Places(unsafe { std::slice::from_raw_parts_mut(self.mbufs.as_mut_ptr().cast(), len) })
    }

    /// Takes all mbufs out, first to last. Those that are not taken are freed with the iterator.
    pub fn drain(&mut self) -> Drain<'_, N> {
        let end = self.len;
        // A drain that is forgotten leaks its mbufs; it must not leave them here as well.
        self.len = 0;
        Drain { burst: self, next: 0, end }
    }

    /// Frees all mbufs, in bulk.
    #[inline]
    pub fn clear(&mut self) {
        let len = std::mem::take(&mut self.len);
        if len == 0 {
            return;
        }
        // SAFETY: they were ours until now.
        unsafe { pool_core::free(self.mbufs[..len].assume_init_mut()) };
    }

    /// The free places.
    pub(super) fn spare(&mut self) -> &mut [MaybeUninit<*mut sys::rte_mbuf>] {
        &mut self.mbufs[self.len..]
    }

    /// Declares `n` more places filled.
    ///
    /// # Safety
    /// The first `n` free places hold mbufs that the caller gives to the burst.
    pub(super) unsafe fn grow(&mut self, n: usize) {
        self.len += n;
    }

    /// The mbufs, to be given to a device.
    pub(super) fn filled(&mut self) -> &mut [*mut sys::rte_mbuf] {
        // SAFETY: these are written.
        unsafe { self.mbufs[..self.len].assume_init_mut() }
    }

    /// Forgets the first `n` mbufs, which are somebody else's now, and closes up.
    pub(super) fn forget_front(&mut self, n: usize) {
        self.mbufs.copy_within(n..self.len, 0);
        self.len -= n;
    }
}

impl<const N: usize> Default for Burst<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Drop for Burst<N> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<const N: usize> fmt::Debug for Burst<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Owning iterator over a burst.
///
/// See [`Burst`] for an example.
#[derive(Debug)]
pub struct Drain<'a, const N: usize> {
    burst: &'a mut Burst<N>,
    next: usize,
    end: usize,
}

impl<const N: usize> Iterator for Drain<'_, N> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        let raw = self.burst.mbufs[self.next];
        self.next += 1;
        // SAFETY: places below `end` held mbufs of the burst's; each is passed over once.
        Some(unsafe { Mbuf::from_raw(NonNull::new_unchecked(raw.assume_init())) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl<const N: usize> ExactSizeIterator for Drain<'_, N> {}

impl<const N: usize> Drop for Drain<'_, N> {
    fn drop(&mut self) {
        // SAFETY: not taken, so still the burst's.
        unsafe { pool_core::free(self.burst.mbufs[self.next..self.end].assume_init_mut()) };
    }
}

/// The places of a burst: a slice of what may be taken out of each.
///
/// ```no_run
/// use prequeue::dpdk::{Burst, RxQueue};
///
/// fn every_second(queue: &mut RxQueue) {
///     let mut burst = Burst::<32>::new();
///     queue.rx(&mut burst);
///     for place in burst.take_places().iter_mut().step_by(2) {
///         drop(place.take());
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Places<'a>(&'a mut [Option<Mbuf>]);

impl Deref for Places<'_> {
    type Target = [Option<Mbuf>];

    #[inline]
    fn deref(&self) -> &[Option<Mbuf>] {
        self.0
    }
}

impl DerefMut for Places<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Option<Mbuf>] {
        self.0
    }
}

impl Drop for Places<'_> {
    #[inline]
    fn drop(&mut self) {
        // Mostly there is none left, which is seen by adding up bits, without a branch for each.
        let address =
            |place: &Option<Mbuf>| place.as_ref().map_or(0, |mbuf| mbuf.as_raw().addr().get());
        if self.0.iter().fold(0, |any, place| any | address(place)) != 0 {
            self.0.fill_with(|| None);
        }
    }
}
