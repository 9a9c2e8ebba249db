//! One count per socket, and the intrusive lists that hold a share of it.
//!
//! Handles, the lcore and a place on a list each hold a [`Ref`]. Whoever drops the last one is
//! alone and gets the memory as a [`Parcel`], to be passed on ([`Last`]). Lists are pushed by any
//! thread with a compare-exchange and taken whole by a swap, so that there is no ABA and nobody
//! waits for anybody.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use super::super::sync::{AtomicPtr, AtomicU32, Ordering, fence, mutant};

/// Kinds of list that a node can be on at the same time.
const KINDS: usize = 2;

/// More holders than this can only be a leak of references.
const TOO_MANY: u32 = u32::MAX / 2;

/// What becomes of a value that nobody refers to any more.
pub(crate) trait Last: Sized {
    /// Called once, by whoever dropped the last [`Ref`], with nobody else left.
    fn last(parcel: Parcel<Self>);
}

/// A counted value with its list links, at a stable address.
struct Node<T> {
    count: AtomicU32,
    /// Bit `1 << KIND`: the node is on a list of that kind, or about to be.
    on: AtomicU32,
    links: [AtomicPtr<Node<T>>; KINDS],
    value: T,
}

/// A share of a counted value.
pub(crate) struct Ref<T: Last>(NonNull<Node<T>>, PhantomData<Node<T>>);

// SAFETY: a Ref gives `&T` on any thread and may be the one that passes T on: T must be both.
unsafe impl<T: Last + Send + Sync> Send for Ref<T> {}
// SAFETY: as above; a `&Ref` can be cloned into a Ref.
unsafe impl<T: Last + Send + Sync> Sync for Ref<T> {}

impl<T: Last> Ref<T> {
    /// The first share of `value`.
    pub(crate) fn new(value: T) -> Self {
        let node = Box::new(Node {
            count: AtomicU32::new(1),
            on: AtomicU32::new(0),
            links: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            value,
        });
        Self(NonNull::from(Box::leak(node)), PhantomData)
    }

    fn node(&self) -> &Node<T> {
        // SAFETY: the node lives until its count is zero, and self holds one.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Last> Clone for Ref<T> {
    fn clone(&self) -> Self {
        // Relaxed: the new share is made from one that is held.
        let before = self.node().count.fetch_add(1, Ordering::Relaxed);
        if before > TOO_MANY {
            // A wrapped count would free memory in use.
            std::process::abort();
        }
        Self(self.0, PhantomData)
    }
}

impl<T: Last> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.node().value
    }
}

impl<T: Last> Drop for Ref<T> {
    fn drop(&mut self) {
        // Release pairs with the Acquire fence of whoever is last: all uses come before the end.
        let order = if mutant!(CountOffRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        if self.node().count.fetch_sub(1, order) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: the count is zero, so that no other Ref is left; a list holds Refs. The node
            // came out of a Box in `new`.
            let node = unsafe { Box::from_raw(self.0.as_ptr()) };
            T::last(Parcel(node));
        }
    }
}

impl<T: Last + fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node().value.fmt(f)
    }
}

/// The sole owner of a value whose count has come to zero.
pub(crate) struct Parcel<T>(Box<Node<T>>);

impl<T> Deref for Parcel<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> DerefMut for Parcel<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}

/// A list of shares: any thread pushes, whoever takes gets all of them. A value is on at most one
/// list of a kind at a time.
pub(crate) struct List<T: Last, const KIND: usize> {
    head: AtomicPtr<Node<T>>,
    _shares: PhantomData<Ref<T>>,
}

impl<T: Last, const KIND: usize> Default for List<T, KIND> {
    fn default() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()), _shares: PhantomData }
    }
}

impl<T: Last, const KIND: usize> List<T, KIND> {
    /// Puts the value on the list unless it is on one of this kind already. Either way, what the
    /// caller did before is seen by whoever takes it next.
    pub(crate) fn push(&self, share: &Ref<T>) -> bool {
        let node = share.node();
        // AcqRel pairs with the clearing in `Taken::next`: if the bit is found set, the taker has
        // yet to clear it, reads from this operation then, and sees what was done before it.
        if node.on.fetch_or(1 << KIND, Ordering::AcqRel) & (1 << KIND) != 0 {
            return false;
        }
        let share = share.clone();
        push_raw(&self.head, share.0, KIND);
        std::mem::forget(share);
        true
    }

    /// Takes everything, newest first.
    pub(crate) fn take(&self) -> Taken<T, KIND> {
        // A look first: an empty list is left alone, and its cache line shared.
        if self.is_empty() {
            return Taken { next: ptr::null_mut(), _shares: PhantomData };
        }
        // Acquire pairs with the Release of `push_raw`.
        Taken { next: self.head.swap(ptr::null_mut(), Ordering::Acquire), _shares: PhantomData }
    }

    /// Whether nothing is on the list at the moment.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a push that is missed now is found at the next look.
        self.head.load(Ordering::Relaxed).is_null()
    }
}

impl<T: Last, const KIND: usize> Drop for List<T, KIND> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T: Last, const KIND: usize> fmt::Debug for List<T, KIND> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("empty", &self.is_empty()).finish()
    }
}

// SAFETY: a list is a place for Refs, and gives them to whatever thread takes them.
unsafe impl<T: Last + Send + Sync, const KIND: usize> Send for List<T, KIND> {}
// SAFETY: as above; all access to the head is atomic.
unsafe impl<T: Last + Send + Sync, const KIND: usize> Sync for List<T, KIND> {}

/// What was on a list, newest first.
pub(crate) struct Taken<T: Last, const KIND: usize> {
    next: *mut Node<T>,
    _shares: PhantomData<Ref<T>>,
}

impl<T: Last, const KIND: usize> Iterator for Taken<T, KIND> {
    type Item = Ref<T>;

    fn next(&mut self) -> Option<Ref<T>> {
        let share = Ref(NonNull::new(self.next)?, PhantomData);
        let node = share.node();
        // Relaxed: written before the push that `take` has seen. Before the bit is cleared, for
        // the next push writes it.
        self.next = node.links[KIND].load(Ordering::Relaxed);
        if !mutant!(BellClearedLate) {
            // AcqRel pairs with the setting in `push`: see there.
            node.on.fetch_and(!(1 << KIND), Ordering::AcqRel);
        }
        Some(share)
    }
}

impl<T: Last, const KIND: usize> Taken<T, KIND> {
    /// Clears the bit where it is too late: what the model must notice.
    #[cfg(all(test, loom))]
    pub(crate) fn clear_late(share: &Ref<T>) {
        share.node().on.fetch_and(!(1 << KIND), Ordering::AcqRel);
    }
}

impl<T: Last, const KIND: usize> Drop for Taken<T, KIND> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// A list of parcels: what has come to its end and waits to be freed.
pub(crate) struct Parcels<T> {
    head: AtomicPtr<Node<T>>,
    _parcels: PhantomData<Parcel<T>>,
}

// SAFETY: a place for boxed values that go from thread to thread.
unsafe impl<T: Send> Send for Parcels<T> {}
// SAFETY: as above; all access to the head is atomic.
unsafe impl<T: Send> Sync for Parcels<T> {}

impl<T> Default for Parcels<T> {
    fn default() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()), _parcels: PhantomData }
    }
}

impl<T> Parcels<T> {
    /// Adds one.
    pub(crate) fn push(&self, parcel: Parcel<T>) {
        // Link 0: a parcel's count is zero, so that it is on no other list.
        push_raw(&self.head, NonNull::from(Box::leak(parcel.0)), 0);
    }

    /// Takes everything, newest first.
    pub(crate) fn take(&self) -> impl Iterator<Item = Parcel<T>> + use<T> {
        // Relaxed look first; then Acquire pairs with the Release of `push_raw`.
        let mut next = self.head.load(Ordering::Relaxed);
        if !next.is_null() {
            next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        }
        std::iter::from_fn(move || {
            let node = NonNull::new(next)?;
            // SAFETY: pushed as a parcel, hence out of a Box with nobody else left, and taken off
            // the list by the swap, hence once.
            let node = unsafe { Box::from_raw(node.as_ptr()) };
            next = node.links[0].load(Ordering::Relaxed);
            Some(Parcel(node))
        })
    }
}

impl<T> Drop for Parcels<T> {
    fn drop(&mut self) {
        self.take().for_each(drop);
    }
}

impl<T> fmt::Debug for Parcels<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcels").finish_non_exhaustive()
    }
}

/// Links a node that the caller has to itself in front of the list.
fn push_raw<T>(head: &AtomicPtr<Node<T>>, node: NonNull<Node<T>>, kind: usize) {
    let mut first = head.load(Ordering::Relaxed);
    loop {
        // SAFETY: the list is given a share of the node, or the whole of it, with this push.
        unsafe { node.as_ref() }.links[kind].store(first, Ordering::Relaxed);
        // Release pairs with the Acquire of the swap that takes the list: link and value.
        match head.compare_exchange_weak(first, node.as_ptr(), Ordering::Release, Ordering::Relaxed)
        {
            Ok(_) => return,
            Err(changed) => first = changed,
        }
    }
}
