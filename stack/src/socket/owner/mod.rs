//! Memory that lcore and threads share, behind safe doors: the only `unsafe` of ownership.
//!
//! [`Owned`] hands out what it holds to whoever has claimed its owner word; [`Ref`] counts a
//! socket's holders and says who is the last; [`List`] is the intrusive list behind the doorbell,
//! the accept queue and the reap list. None of them knows TCP, and none of them calls back while
//! it holds anything.
#![allow(unsafe_code)]

mod counted;
mod word;

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::watch::Owner;

use super::sync::UnsafeCell;
use word::OwnerWord;

#[cfg(all(test, loom))]
pub(crate) use counted::Taken;
pub(crate) use counted::{Last, List, Parcel, Parcels, Ref};
pub(crate) use word::Released;

/// A value that belongs to whoever has claimed the word beside it.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    word: OwnerWord,
    cell: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a claim, and `OwnerWord` gives at most one claim at a
// time, each ordered after the release of the one before; so T moves between threads but is never
// shared between them.
unsafe impl<T: Send> Sync for Owned<T> {}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { word: OwnerWord::new(), cell: UnsafeCell::new(value) }
    }

    /// Claims for the lcore if nobody owns. Never waits.
    pub(crate) fn claim_lcore(&self) -> Option<LcoreClaim<'_, T>> {
        self.word.claim_lcore().then(|| LcoreClaim { owned: self, _claimed: PhantomData })
    }

    /// Notes that the lcore has work here, and claims if nobody owns by then. Never waits.
    pub(crate) fn defer(&self) -> Option<LcoreClaim<'_, T>> {
        self.word.defer().then(|| LcoreClaim { owned: self, _claimed: PhantomData })
    }

    /// Claims for a thread, sleeping as long as it takes.
    pub(crate) fn claim_thread(&self) -> ThreadClaim<'_, T> {
        self.word.claim_thread();
        ThreadClaim { owned: self, _claimed: PhantomData }
    }

    /// Claims for a thread if nobody owns. Never waits.
    pub(crate) fn try_claim_thread(&self) -> Option<ThreadClaim<'_, T>> {
        let claimed = self.word.try_claim_thread();
        claimed.then(|| ThreadClaim { owned: self, _claimed: PhantomData })
    }

    /// A claim that was not made: a mutant's. It must be forgotten, not dropped.
    #[cfg(all(test, loom))]
    pub(crate) fn pretend_claim(&self) -> ThreadClaim<'_, T> {
        ThreadClaim { owned: self, _claimed: PhantomData }
    }

    /// Who owns at this moment; it may be over at once.
    pub(crate) fn owner(&self) -> Owner {
        self.word.owner()
    }

    /// The value, when nobody else can reach it.
    pub(crate) fn unshared(&mut self) -> &mut T {
        // SAFETY: `&mut self` is the proof that there is no claim.
        unsafe { &mut *self.pointer() }
    }

    fn pointer(&self) -> *mut T {
        #[cfg(not(loom))]
        return self.cell.get();
        // loom notes a write here, at the beginning of the access.
        #[cfg(loom)]
        return self.cell.with_mut(|value| value);
    }
}

/// The lcore's claim. Dropping it releases.
#[derive(Debug)]
pub(crate) struct LcoreClaim<'a, T> {
    owned: &'a Owned<T>,
    /// Sent and shared as what it is: a reference to T that excludes others.
    _claimed: PhantomData<&'a mut T>,
}

impl<T> Deref for LcoreClaim<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the claim is held, and is borrowed for as long as the reference lives.
        unsafe { &*self.owned.pointer() }
    }
}

impl<T> DerefMut for LcoreClaim<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { &mut *self.owned.pointer() }
    }
}

impl<T> Drop for LcoreClaim<'_, T> {
    fn drop(&mut self) {
        self.owned.word.release_lcore();
    }
}

/// A thread's claim. [`Self::release`] gives it up and says whether the lcore is due; dropping it
/// instead would leave the lcore unrung, so that only tokens that no lcore claims are dropped.
#[derive(Debug)]
pub(crate) struct ThreadClaim<'a, T> {
    owned: &'a Owned<T>,
    /// As in [`LcoreClaim`].
    _claimed: PhantomData<&'a mut T>,
}

impl<T> ThreadClaim<'_, T> {
    /// Gives the value up; with `due`, to nobody but the lcore.
    #[must_use = "Released::Due owes the lcore a ring"]
    pub(crate) fn release(self, due: bool) -> Released {
        let owned = self.owned;
        std::mem::forget(self);
        owned.word.release_thread(due)
    }
}

impl<T> Deref for ThreadClaim<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the claim is held, and is borrowed for as long as the reference lives.
        unsafe { &*self.owned.pointer() }
    }
}

impl<T> DerefMut for ThreadClaim<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { &mut *self.owned.pointer() }
    }
}

impl<T> Drop for ThreadClaim<'_, T> {
    fn drop(&mut self) {
        let released = self.owned.word.release_thread(false);
        debug_assert_eq!(released, Released::Free, "the lcore is due and nobody rings");
    }
}

/// A place that is read through `&` and written by whoever is alone: loom complains if the two are
/// not ordered.
#[cfg(all(test, loom))]
#[derive(Debug)]
pub(crate) struct Watched(UnsafeCell<()>);

// SAFETY: there is nothing in it.
#[cfg(all(test, loom))]
unsafe impl Sync for Watched {}

#[cfg(all(test, loom))]
impl Watched {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(()))
    }

    pub(crate) fn read(&self) {
        self.0.with(|_| ());
    }

    pub(crate) fn write(&self) {
        self.0.with_mut(|_| ());
    }
}
