//! Direct copy: memory of a waiting reader that the lcore fills itself, in low-latency mode.
//!
//! A reader that has to wait lends the rest of its buffer, in one piece or several, for as long as it
//! waits ([`lend`]); the lcore, holding the [`Slot`]'s word, and the reader token unless it is the lender
//! who has that, takes the [`Loan`] out of the slot, copies in-sequence bytes into it and puts it back
//! before it gives the word up. Nothing here waits but for that word, which nobody holds for longer, and
//! nothing here knows TCP. All `unsafe` of it is in this file.
//!
//! What keeps it sound: the memory is borrowed by [`lend`] until it returns, and it does not return,
//! nor unwind, before it has taken the loan back itself, the slot's word in hand. A loan that is not in its
//! slot then would be one that somebody can still write through: the process aborts.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::marker::PhantomData;
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
const MOST_PER_CLAIM: u32 = 64 * 1024;

/// Bytes that are lent at once: so many pages are touched whenever a reader begins to wait.
const MOST_LENT: usize = 1024 * 1024;

/// Pieces that are lent at once.
const MOST_PIECES: usize = u16::MAX as usize;

/// The smallest page there is.
const PAGE: usize = 4096;

/// Memory that a reader may lend: touched, and borrowed for as long as this lives.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    piece: Piece,
    rest: Rest,
    /// Bytes to be lent, of which there are not fewer.
    room: u32,
    _borrowed: PhantomData<&'a mut [u8]>,
}

/// Bytes in a row: no more of a piece than can be lent.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: NonNull<u8>,
    len: u32,
}

/// The pieces behind the first, each looked at when it is its turn. How long each is borrowed does not
/// matter here: at least as long as the array that they are in.
#[derive(Clone, Copy, Debug)]
struct Rest {
    at: NonNull<IoSliceMut<'static>>,
    left: u16,
}

impl<'a> Memory<'a> {
    /// The beginning of `bytes`: at most as much as is reasonable.
    pub(super) fn flat(bytes: &'a mut [u8]) -> Self {
        let room = bytes.len().min(MOST_LENT);
        touch(&mut bytes[..room]);
        let piece = Piece::of(bytes);
        Self { piece, rest: Rest::none(piece), room: room as u32, _borrowed: PhantomData }
    }

    /// What follows the first `skip` bytes of several pieces: `most` bytes, or as many as there are, or
    /// as is reasonable.
    pub(super) fn scattered(
        pieces: &'a mut [IoSliceMut<'_>],
        skip: usize,
        most: usize,
    ) -> Option<Self> {
        let most_pieces = pieces.len().min(MOST_PIECES);
        let (first, rest) = pieces[..most_pieces].split_first_mut()?;
        let first = first.get_mut(skip..)?;
        let most = most.min(MOST_LENT);
        let mut room = first.len().min(most);
        touch(&mut first[..room]);
        for piece in rest.iter_mut() {
            let part = piece.len().min(most - room);
            touch(&mut piece[..part]);
            room += part;
        }
        let (piece, rest) = (Piece::of(first), Rest::of(rest));
        Some(Self { piece, rest, room: room as u32, _borrowed: PhantomData })
    }
}

impl Piece {
    fn of(bytes: &mut [u8]) -> Self {
        Self { len: bytes.len().min(MOST_LENT) as u32, at: NonNull::from(bytes).cast() }
    }
}

impl Rest {
    /// Nothing behind the only piece, by which it is known all the same.
    fn none(only: Piece) -> Self {
        Self { at: only.at.cast(), left: 0 }
    }

    /// Where it ends, which stays as it is while pieces are taken: tells loans apart.
    fn end(self) -> *const IoSliceMut<'static> {
        self.at.as_ptr().wrapping_add(self.left.into())
    }

    fn of(pieces: &mut [IoSliceMut<'_>]) -> Self {
        Self { left: pieces.len().min(MOST_PIECES) as u16, at: NonNull::from(pieces).cast() }
    }

    /// The next piece.
    ///
    /// # Safety
    /// What [`Self::of`] was given must still be borrowed, and nobody else be at it.
    unsafe fn next(&mut self) -> Option<Piece> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: there was one more in the array that `of` was given, which the caller says is still
        // borrowed; each is taken once, and no reference outlives this function.
        unsafe {
            let piece = Piece::of(self.at.as_mut());
            self.at = self.at.add(1);
            Some(piece)
        }
    }
}

/// Memory that a waiting reader has lent: writable, touched, and nobody else's until it is taken back.
///
/// A socket has room for two; so the lengths are no wider than they have to be.
#[derive(Debug)]
pub(super) struct Loan {
    /// Where the next byte goes, how much is left of that piece, and those behind it.
    at: NonNull<u8>,
    left: u32,
    rest_left: u16,
    /// The lender keeps the reader token while it lends, so that `next` is as it says.
    exclusive: bool,
    rest: NonNull<IoSliceMut<'static>>,
    room: u32,
    filled: u32,
    /// Sequence number of the byte that comes next: what is older has been read.
    next: SeqNum,
    /// Bytes that may still be copied before the lcore turns to another socket.
    allowance: u32,
    #[cfg(all(test, loom))]
    watched: Arc<Watched>,
}

#[cfg(not(all(test, loom)))]
const _: () = assert!(size_of::<Loan>() == 40 && size_of::<Slot>() == 40);

// SAFETY: a loan is an exclusive borrow of plain bytes, and of an array that says where they are; both
// may be used by any one thread.
unsafe impl Send for Loan {}

impl Loan {
    /// Copies as much of `bytes`, which start at `seq`, as there is room for; how much that is. None
    /// unless they are the next.
    pub(super) fn copy(&mut self, seq: SeqNum, bytes: &[u8]) -> usize {
        if seq != self.next && !mutant!(DirectBehindQueued) {
            return 0;
        }
        let n = bytes.len().min((self.room - self.filled).min(self.allowance) as usize);
        #[cfg(all(test, loom))]
        self.watched.write();
        let mut from = &bytes[..n];
        loop {
            let part = from.len().min(self.left as usize);
            // SAFETY: `lend` borrows the piece for as long as the loan exists, and gives nobody but us a
            // way to it; `part` is not more than is left of it; what is copied is a live reference.
            unsafe {
                self.at.copy_from_nonoverlapping(NonNull::from(from).cast(), part);
                self.at = self.at.add(part);
            }
            self.left -= part as u32;
            from = &from[part..];
            if from.is_empty() {
                break;
            }
            self.next_piece();
        }
        self.filled += n as u32;
        self.next = self.next.plus(n as u32);
        self.allowance -= n as u32;
        n
    }

    fn rest(&self) -> Rest {
        Rest { at: self.rest, left: self.rest_left }
    }

    fn next_piece(&mut self) {
        let mut rest = self.rest();
        // SAFETY: it is what `lend` borrows, as above.
        let piece = unsafe { rest.next() }.expect("there is no more room than the pieces have");
        (self.rest, self.rest_left) = (rest.at, rest.left);
        (self.at, self.left) = (piece.at, piece.len);
    }
}

/// A reader's loan, or its absence. Behind an owner word of its own, which is taken after the reader
/// token by those who take both: the lcore, and an exclusive reader, which has that already. Another
/// lender that took the token to end its loan might find such a reader there, and wait for ever.
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
    /// Takes the loan out. For the lcore, which [puts it back](Self::put_back). Holding the reader token
    /// it says with `next` where it is to be filled from; without, it gets a loan only of somebody who
    /// keeps the token, and fills that from where the lender stands.
    pub(super) fn take_out(&mut self, next: Option<SeqNum>) -> Option<Loan> {
        match mem::replace(self, Self::Out) {
            Self::Lent(loan) if loan.exclusive || next.is_some() => {
                let next = next.filter(|_| !loan.exclusive).unwrap_or(loan.next);
                Some(Loan { next, allowance: MOST_PER_CLAIM, ..loan })
            }
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

/// Lends `memory` while `wait` runs. Tells how many bytes from its beginning on have been filled: none
/// if another reader lends already. Who has the reader token, and keeps it, says how far it has read by
/// `copied_seq`, which is then moved on, however this ends.
///
/// The caller must not hold the slot, nor must `wait` claim it and keep it.
pub(super) fn lend<R>(
    slot: &Owned<Slot>,
    offer: &Offer,
    memory: Memory<'_>,
    copied_seq: Option<&mut SeqNum>,
    wait: impl FnOnce() -> R,
) -> (usize, R) {
    #[cfg(all(test, loom))]
    let watched = Arc::new(Watched::new());
    #[cfg(all(test, loom))]
    watched.write();
    let mut place = slot.claim_thread();
    if !matches!(*place, Slot::Empty) {
        drop(place);
        return (0, wait());
    }
    let Memory { piece, rest, room, _borrowed } = memory;
    *place = Slot::Lent(Loan {
        at: piece.at,
        left: piece.len,
        rest: rest.at,
        rest_left: rest.left,
        room,
        filled: 0,
        next: copied_seq.as_deref().copied().unwrap_or_default(),
        exclusive: copied_seq.is_some(),
        allowance: 0,
        #[cfg(all(test, loom))]
        watched: watched.clone(),
    });
    offer.make(true);
    // Made before the slot is released: from then on the lcore may write.
    let end = rest.end();
    let mut lender = Lender { slot, offer, end, copied_seq, filled: 0, withdrawn: false };
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
    /// Which loan is its own.
    end: *const IoSliceMut<'static>,
    /// Of a lender that has the token: how far it has read.
    copied_seq: Option<&'a mut SeqNum>,
    filled: usize,
    withdrawn: bool,
}

impl Lender<'_> {
    /// Takes the loan back. While the lcore copies it holds the slot, so that this waits for it.
    fn withdraw(&mut self) {
        let mut place = claim(self.slot);
        match &*place {
            Slot::Lent(loan) if loan.rest().end() == self.end => {
                self.filled = loan.filled as usize;
                if let Some(copied_seq) = &mut self.copied_seq
                    && !mutant!(ReaderMissesFilled)
                {
                    **copied_seq = loan.next;
                }
            }
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
        let mut loan = place.take_out(Some(seq(next)))?;
        let n = loan.copy(seq(at), bytes);
        assert_eq!(place.put_back(loan), seq(next + n as u32));
        Some(n)
    }

    #[test]
    fn bytes_fill_the_loan_in_order_up_to_its_end() {
        let (slot, offer) = place();
        let mut buf = [0; 5];
        let (filled, ()) = lend(&slot, &offer, Memory::flat(&mut buf), None, || {
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
    fn pieces_are_filled_one_after_the_other() {
        let (slot, offer) = place();
        // What is behind the first two bytes, which the call has already, up to its end.
        for most in [3, 4, 5, 100] {
            let (mut a, mut b, mut c, mut d) = ([0; 3], [0; 0], [0; 2], [0; 2]);
            let mut pieces = [&mut a[..], &mut b, &mut c, &mut d].map(IoSliceMut::new);
            let memory = Memory::scattered(&mut pieces, 2, most).unwrap();
            let (filled, ()) = lend(&slot, &offer, memory, None, || {
                assert_eq!(copy(&slot, 1, 1, b""), Some(0));
                assert_eq!(copy(&slot, 1, 1, b"1"), Some(1));
                assert_eq!(copy(&slot, 2, 2, b"23456789"), Some(most.min(5) - 1));
            });
            assert_eq!(filled, most.min(5));
            assert_eq!([&a[..], &c, &d].concat()[2..2 + filled], b"12345"[..filled]);
            assert!([&a[..], &c, &d].concat()[2 + filled..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn what_is_lent_in_pieces_has_the_same_limit() {
        let (slot, offer) = place();
        let (mut a, mut b) = (vec![0; MOST_LENT - 1], vec![0; 2]);
        let mut pieces = [&mut a, &mut b].map(|piece| IoSliceMut::new(piece));
        let memory = Memory::scattered(&mut pieces, 0, usize::MAX).unwrap();
        lend(&slot, &offer, memory, None, || {
            let place = slot.try_claim_thread().unwrap();
            assert!(matches!(&*place, Slot::Lent(loan) if loan.room as usize == MOST_LENT));
        });
        assert!(Memory::scattered(&mut [], 0, 1).is_none());
    }

    #[test]
    fn who_has_the_token_is_moved_on_however_it_ends() {
        let (slot, offer) = place();
        let mut copied_seq = seq(7);
        let fill = || {
            let mut place = slot.try_claim_thread().unwrap();
            let mut loan = place.take_out(None).expect("the token is not needed");
            assert_eq!((loan.copy(seq(6), b"x"), loan.copy(seq(7), b"ab")), (0, 2));
            place.put_back(loan);
        };
        let mut buf = [0; 4];
        let memory = Memory::flat(&mut buf);
        assert_eq!(lend(&slot, &offer, memory, Some(&mut copied_seq), fill), (2, ()));
        assert_eq!((copied_seq, &buf), (seq(9), b"ab\0\0"));
        copied_seq = seq(7);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            lend(&slot, &offer, Memory::flat(&mut buf), Some(&mut copied_seq), || {
                fill();
                panic!("while it lends");
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(copied_seq, seq(9));
    }

    #[test]
    fn nobody_fills_memory_without_the_token_unless_its_lender_has_it() {
        let (slot, offer) = place();
        lend(&slot, &offer, Memory::flat(&mut [0; 2]), None, || {
            let mut place = slot.try_claim_thread().unwrap();
            assert!(place.take_out(None).is_none() && matches!(&*place, Slot::Lent(_)));
        });
    }

    #[test]
    fn a_claim_copies_its_allowance_and_no_more() {
        let (slot, offer) = place();
        let most = MOST_PER_CLAIM as usize;
        let mut buf = vec![0; 3 * most];
        let bytes = vec![1; 2 * most];
        let (filled, ()) = lend(&slot, &offer, Memory::flat(&mut buf), None, || {
            assert_eq!(copy(&slot, 0, 0, &bytes), Some(most));
            assert_eq!(copy(&slot, 9, 9, &bytes), Some(most), "the next claim");
        });
        assert_eq!(filled, 2 * most);
    }

    #[test]
    fn what_is_lent_at_once_has_a_limit() {
        let (slot, offer) = place();
        let mut buf = vec![0; MOST_LENT + 1];
        lend(&slot, &offer, Memory::flat(&mut buf), None, || {
            let place = slot.try_claim_thread().unwrap();
            assert!(matches!(&*place, Slot::Lent(loan) if loan.room as usize == MOST_LENT));
        });
    }

    #[test]
    fn a_second_lender_only_waits() {
        let (slot, offer) = place();
        let (mut first, mut second) = ([0; 2], [0; 2]);
        let (filled, ()) = lend(&slot, &offer, Memory::flat(&mut first), None, || {
            let (filled, n) = lend(&slot, &offer, Memory::flat(&mut second), None, || {
                copy(&slot, 0, 0, b"abc").unwrap()
            });
            assert_eq!((filled, n), (0, 2));
        });
        assert_eq!((filled, &first, &second), (2, b"ab", &[0; 2]));
    }

    #[test]
    fn a_panic_takes_the_loan_back() {
        let (slot, offer) = place();
        let mut buf = [7; 2];
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            lend(&slot, &offer, Memory::flat(&mut buf), None, || panic!("while it lends"));
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
                let mut bufs = [1 + turn as usize % 3, turn as usize % 2, 1].map(|n| vec![0xee; n]);
                let mut pieces = bufs.each_mut().map(|buf| IoSliceMut::new(buf));
                let memory = Memory::scattered(&mut pieces, 0, 4).unwrap();
                let (filled, ()) = lend(&slot, &offer, memory, None, thread::yield_now);
                let buf = bufs.concat();
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
