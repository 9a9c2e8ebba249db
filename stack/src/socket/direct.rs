//! Direct copy: memory of a waiting reader that the lcore fills itself, in low-latency mode.
//!
//! A reader that has to wait lends the rest of its buffer for as long as it waits ([`lend`]); the
//! lcore, holding the reader token and the [`Slot`]'s word, takes the [`Loan`] out of the slot, copies
//! in-sequence bytes into it and puts it back before it gives the word up. Nothing here waits but for
//! that word, which nobody holds for longer, and nothing here knows TCP. All `unsafe` of it is in this
//! file.
//!
//! What keeps it sound: the memory is borrowed by [`lend`] until it returns, and it does not return,
//! nor unwind, before it has taken the loan back itself, the slot's word in hand. A loan that is not in its
//! slot then would be one that somebody can still write through: the process aborts.
#![allow(unsafe_code)]

use std::mem;
use std::ptr::NonNull;

use crate::tcp::SeqNum;

use super::owner::{Owned, ThreadClaim};
#[cfg(all(test, loom))]
use super::sync::Arc;
use super::sync::{AtomicBool, Ordering, mutant};

#[cfg(all(test, loom))]
use super::owner::Watched;

/// Bytes that the lcore copies for one socket before it turns to the next: some ten microseconds.
/// What else has come is queued.
const MOST_PER_CLAIM: usize = 64 * 1024;

/// Bytes that are lent at once: so many pages are touched whenever a reader begins to wait.
const MOST_LENT: usize = 1024 * 1024;

/// The smallest page there is.
const PAGE: usize = 4096;

/// Memory that a waiting reader has lent: writable, touched, and nobody else's until it is taken back.
#[derive(Debug)]
pub(super) struct Loan {
    at: NonNull<u8>,
    room: usize,
    filled: usize,
    /// Sequence number of the byte that comes next: what is older has been read.
    next: SeqNum,
    /// Bytes that may still be copied before the lcore turns to another socket.
    allowance: usize,
    #[cfg(all(test, loom))]
    watched: Arc<Watched>,
}

// SAFETY: a loan is an exclusive borrow of plain bytes, which may be written by any one thread.
unsafe impl Send for Loan {}

impl Loan {
    /// Copies as much of `bytes`, which start at `seq`, as there is room for; how much that is. None
    /// unless they are the next.
    pub(super) fn copy(&mut self, seq: SeqNum, bytes: &[u8]) -> usize {
        if seq != self.next && !mutant!(DirectBehindQueued) {
            return 0;
        }
        let n = bytes.len().min(self.room - self.filled).min(self.allowance);
        #[cfg(all(test, loom))]
        self.watched.write();
        // SAFETY: `lend` borrows `room` bytes from `at` on for as long as the loan exists, and gives
        // nobody but us a way to them; `filled + n <= room`; what is copied is a live reference.
        unsafe {
            self.at.add(self.filled).copy_from_nonoverlapping(NonNull::from(bytes).cast(), n);
        }
        self.filled += n;
        self.next = self.next.plus(n as u32);
        self.allowance -= n;
        n
    }
}

/// A reader's loan, or its absence. Behind an owner word of its own, which is taken after the reader
/// token by those who take both: the lcore. A lender that took the token to end its loan might find an
/// exclusive reader there, and wait for ever.
#[derive(Debug, Default)]
pub(super) enum Slot {
    /// Nobody lends.
    #[default]
    Empty,
    /// A reader lends, and the lcore is not using it.
    Lent(Loan),
    /// The lcore, which holds the slot, has taken it out.
    Out,
}

impl Slot {
    /// Takes the loan out, to be filled from `next` on. For the lcore, which [puts it back](Self::put_back).
    pub(super) fn take_out(&mut self, next: SeqNum) -> Option<Loan> {
        match mem::replace(self, Self::Out) {
            Self::Lent(loan) => Some(Loan { next, allowance: MOST_PER_CLAIM, ..loan }),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Puts the loan back; what is to be read next.
    pub(super) fn put_back(&mut self, loan: Loan) -> SeqNum {
        debug_assert!(matches!(self, Self::Out), "a loan from elsewhere");
        let next = loan.next;
        *self = Self::Lent(loan);
        next
    }
}

/// Whether somebody lends, to be asked without claiming anything: a hint, which saves the lcore a useless try.
#[derive(Debug)]
pub(super) struct Offer(AtomicBool);

impl Offer {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    // Relaxed throughout: who believes a wrong answer either queues the data or finds an empty slot.
    pub(super) fn is_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn make(&self, made: bool) {
        self.0.store(made, Ordering::Relaxed);
    }
}

/// Lends `dst`, or as much of it as is reasonable, while `wait` runs. Tells how many bytes from its
/// beginning on have been filled: none if another reader lends already.
///
/// The caller must not hold the slot, nor must `wait` claim it and keep it.
pub(super) fn lend<R>(
    slot: &Owned<Slot>,
    offer: &Offer,
    dst: &mut [u8],
    wait: impl FnOnce() -> R,
) -> (usize, R) {
    let room = dst.len().min(MOST_LENT);
    touch(&mut dst[..room]);
    #[cfg(all(test, loom))]
    let watched = Arc::new(Watched::new());
    #[cfg(all(test, loom))]
    watched.write();
    let mut place = slot.claim_thread();
    if !matches!(*place, Slot::Empty) {
        drop(place);
        return (0, wait());
    }
    let at = NonNull::from(&mut *dst).cast();
    *place = Slot::Lent(Loan {
        at,
        room,
        filled: 0,
        next: SeqNum::new(0),
        allowance: 0,
        #[cfg(all(test, loom))]
        watched: watched.clone(),
    });
    offer.make(true);
    // Made before the slot is released: from then on the lcore may write.
    let mut lender = Lender { slot, offer, at, filled: 0, withdrawn: false };
    drop(place);
    let result = wait();
    lender.withdraw();
    #[cfg(all(test, loom))]
    watched.write();
    (lender.filled, result)
}

/// Has each page mapped and writable, so that the lcore does not have to wait for the kernel to do it.
fn touch(dst: &mut [u8]) {
    for page in dst.chunks_mut(PAGE) {
        page[0] = std::hint::black_box(page[0]);
    }
    // The chunks need not begin where pages do.
    if let Some(last) = dst.last_mut() {
        *last = std::hint::black_box(*last);
    }
}

/// A reader that lends. Withdraws when dropped: also while a panic unwinds the reader's stack.
struct Lender<'a> {
    slot: &'a Owned<Slot>,
    offer: &'a Offer,
    /// What was lent.
    at: NonNull<u8>,
    filled: usize,
    withdrawn: bool,
}

impl Lender<'_> {
    /// Takes the loan back. While the lcore copies it holds the slot, so that this waits for it.
    fn withdraw(&mut self) {
        let mut place = claim(self.slot);
        match &*place {
            Slot::Lent(loan) if loan.at == self.at => self.filled = loan.filled,
            // Somebody could still write to memory that is about to be somebody else's.
            Slot::Lent(_) | Slot::Empty | Slot::Out => std::process::abort(),
        }
        if !mutant!(LoanLeftBehind) {
            *place = Slot::Empty;
            self.offer.make(false);
        }
        self.withdrawn = true;
        unclaim(place);
    }
}

fn claim(slot: &Owned<Slot>) -> ThreadClaim<'_, Slot> {
    #[cfg(all(test, loom))]
    if mutant!(WithdrawWithoutSlot) {
        return slot.pretend_claim();
    }
    slot.claim_thread()
}

fn unclaim(place: ThreadClaim<'_, Slot>) {
    if mutant!(WithdrawWithoutSlot) {
        mem::forget(place);
    }
}

impl Drop for Lender<'_> {
    fn drop(&mut self) {
        if !self.withdrawn {
            self.withdraw();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    fn seq(n: u32) -> SeqNum {
        SeqNum::new(n)
    }

    fn place() -> (Owned<Slot>, Offer) {
        (Owned::new(Slot::default()), Offer::new())
    }

    /// What an lcore does: copies bytes that start at `at`, if somebody lends; how many.
    fn copy(slot: &Owned<Slot>, next: u32, at: u32, bytes: &[u8]) -> Option<usize> {
        let mut place = slot.try_claim_thread()?;
        let mut loan = place.take_out(seq(next))?;
        let n = loan.copy(seq(at), bytes);
        assert_eq!(place.put_back(loan), seq(next + n as u32));
        Some(n)
    }

    #[test]
    fn bytes_fill_the_loan_in_order_up_to_its_end() {
        let (slot, offer) = place();
        let mut buf = [0; 5];
        let (filled, ()) = lend(&slot, &offer, &mut buf, || {
            assert!(offer.is_made());
            assert_eq!(copy(&slot, 10, 10, b"ab"), Some(2));
            assert_eq!(copy(&slot, 12, 13, b"x"), Some(0), "not the next");
            assert_eq!(copy(&slot, 12, 11, b"x"), Some(0), "read already");
            assert_eq!(copy(&slot, 12, 12, b"cdef"), Some(3));
            assert_eq!(copy(&slot, 15, 15, b"g"), Some(0), "full");
        });
        assert_eq!((filled, &buf), (5, b"abcde"));
        assert!(!offer.is_made());
        assert_eq!(copy(&slot, 15, 15, b"g"), None, "nobody lends");
    }

    #[test]
    fn a_claim_copies_its_allowance_and_no_more() {
        let (slot, offer) = place();
        let mut buf = vec![0; 3 * MOST_PER_CLAIM];
        let bytes = vec![1; 2 * MOST_PER_CLAIM];
        let (filled, ()) = lend(&slot, &offer, &mut buf, || {
            assert_eq!(copy(&slot, 0, 0, &bytes), Some(MOST_PER_CLAIM));
            assert_eq!(copy(&slot, 9, 9, &bytes), Some(MOST_PER_CLAIM), "the next claim");
        });
        assert_eq!(filled, 2 * MOST_PER_CLAIM);
    }

    #[test]
    fn what_is_lent_at_once_has_a_limit() {
        let (slot, offer) = place();
        let mut buf = vec![0; MOST_LENT + 1];
        lend(&slot, &offer, &mut buf, || {
            let place = slot.try_claim_thread().unwrap();
            assert!(matches!(&*place, Slot::Lent(loan) if loan.room == MOST_LENT));
        });
    }

    #[test]
    fn a_second_lender_only_waits() {
        let (slot, offer) = place();
        let (mut first, mut second) = ([0; 2], [0; 2]);
        let (filled, ()) = lend(&slot, &offer, &mut first, || {
            let (filled, n) =
                lend(&slot, &offer, &mut second, || copy(&slot, 0, 0, b"abc").unwrap());
            assert_eq!((filled, n), (0, 2));
        });
        assert_eq!((filled, &first, &second), (2, b"ab", &[0; 2]));
    }

    #[test]
    fn a_panic_takes_the_loan_back() {
        let (slot, offer) = place();
        let mut buf = [7; 2];
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            lend(&slot, &offer, &mut buf, || panic!("while it lends"));
        }));
        assert!(panicked.is_err() && !offer.is_made());
        assert_eq!(copy(&slot, 0, 0, b"a"), None);
        assert_eq!(buf, [7; 2]);
    }

    #[test]
    fn lenders_come_and_go_while_another_thread_copies() {
        const TURNS: u32 = if cfg!(miri) { 30 } else { 20_000 };
        let (slot, offer) = place();
        let done = AtomicBool::new(false);
        let (mut read, mut written) = (0, 0);
        thread::scope(|scope| {
            let lcore = scope.spawn(|| {
                let mut written = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    let bytes = [written as u8, (written + 1) as u8];
                    written += copy(&slot, written, written, &bytes).unwrap_or(0) as u32;
                    thread::yield_now();
                }
                written
            });
            for turn in 0..TURNS {
                let mut buf = vec![0xee; 1 + turn as usize % 3];
                let (filled, ()) = lend(&slot, &offer, &mut buf, thread::yield_now);
                for byte in &buf[..filled] {
                    assert_eq!(*byte, read as u8);
                    read += 1;
                }
                assert!(buf[filled..].iter().all(|byte| *byte == 0xee));
            }
            done.store(true, Ordering::Relaxed);
            written = lcore.join().unwrap();
        });
        assert_eq!(read, written);
    }
}
