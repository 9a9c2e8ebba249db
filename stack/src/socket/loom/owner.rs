//! Claim, backlog and release with PENDING, LCORE_DUE and WAITERS; doorbell and count.

use loom::thread;

use super::explore;
use crate::socket::owner::{Last, LcoreClaim, List, Owned, Parcel, Ref, Released, Watched};
use crate::socket::sync::mutants::{self, Mutant};
use crate::socket::sync::{Arc, AtomicU32, Ordering};

/// Counts what reached it; as a plain integer, so that loom sees every unordered access.
type Tcb = Owned<u32>;

/// The lcore's side of one socket: work that found it owned.
struct Lcore<'a> {
    tcb: &'a Tcb,
    deferred: u32,
}

impl Lcore<'_> {
    fn segment(&mut self) {
        match self.tcb.claim_lcore() {
            Some(mut claim) => *claim += 1 + std::mem::take(&mut self.deferred),
            None => {
                self.deferred += 1;
                if let Some(claim) = self.tcb.defer() {
                    self.drain(claim);
                }
            }
        }
    }

    fn bell(&mut self) {
        if let Some(claim) = self.tcb.claim_lcore() {
            self.drain(claim);
        } else if let Some(claim) = self.tcb.defer() {
            self.drain(claim);
        }
    }

    fn drain(&mut self, mut claim: LcoreClaim<'_, u32>) {
        *claim += std::mem::take(&mut self.deferred);
    }
}

/// Two segments against a thread that owns now and then: none is lost, none is stranded.
fn backlog() {
    explore(|| {
        let tcb = Arc::new(Tcb::new(0));
        let bell = Arc::new(AtomicU32::new(0));
        let reader = {
            let (tcb, bell) = (tcb.clone(), bell.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let mut claim = tcb.claim_thread();
                    *claim += 10;
                    if claim.release(false) == Released::Due {
                        bell.fetch_add(1, Ordering::Release);
                    }
                }
            })
        };
        let mut lcore = Lcore { tcb: &tcb, deferred: 0 };
        for _ in 0..2 {
            lcore.segment();
            if bell.swap(0, Ordering::Acquire) != 0 {
                lcore.bell();
            }
        }
        // The thread may sleep until a due lcore has come: poll until nothing can come any more.
        while lcore.deferred != 0 || bell.load(Ordering::Relaxed) != 0 {
            if bell.swap(0, Ordering::Acquire) != 0 {
                lcore.bell();
            } else {
                thread::yield_now();
            }
        }
        reader.join().unwrap();
        if bell.swap(0, Ordering::Acquire) != 0 {
            lcore.bell();
        }
        assert_eq!(lcore.deferred, 0, "stranded");
        assert_eq!(*tcb.claim_lcore().expect("free"), 22);
    });
}

#[test]
fn loom_backlog_is_never_stranded() {
    backlog();
}

#[test]
fn loom_mutant_release_ignores_pending() {
    mutants::must_fail(Mutant::ReleaseIgnoresPending, "loom_backlog_is_never_stranded");
}

#[test]
fn loom_mutant_defer_does_not_claim() {
    mutants::must_fail(Mutant::DeferDoesNotClaim, "loom_backlog_is_never_stranded");
}

#[test]
fn loom_mutant_claim_relaxed() {
    mutants::must_fail(Mutant::ClaimRelaxed, "loom_backlog_is_never_stranded");
}

/// Two threads and the lcore want the word: each gets it, nobody sleeps for ever.
fn waiters() {
    explore(|| {
        let tcb = Arc::new(Tcb::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let tcb = tcb.clone();
                thread::spawn(move || {
                    let mut claim = tcb.claim_thread();
                    *claim += 1;
                    // Due is impossible: the lcore of this model only claims.
                    assert_eq!(claim.release(false), Released::Free);
                })
            })
            .collect();
        if let Some(mut claim) = tcb.claim_lcore() {
            *claim += 1;
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let total = *tcb.claim_lcore().expect("free");
        assert!(total == 2 || total == 3);
    });
}

#[test]
fn loom_every_waiter_is_woken() {
    waiters();
}

#[test]
fn loom_mutant_release_wakes_nobody() {
    mutants::must_fail(Mutant::ReleaseWakesNobody, "loom_every_waiter_is_woken");
}

/// Three threads: the second sleeper is woken by the first, which cannot know of it.
fn chain() {
    explore(|| {
        let tcb = Arc::new(Tcb::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let tcb = tcb.clone();
                thread::spawn(move || drop(tcb.claim_thread()))
            })
            .collect();
        drop(tcb.claim_thread());
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn loom_a_woken_thread_wakes_the_next() {
    chain();
}

#[test]
fn loom_mutant_sleeper_forgets_others() {
    mutants::must_fail(Mutant::SleeperForgetsOthers, "loom_a_woken_thread_wakes_the_next");
}

/// A rung socket: requests made before the ring, and a mark that is set by its end.
struct Rung {
    requests: AtomicU32,
    touched: Watched,
    ended: Arc<AtomicU32>,
}

impl Last for Rung {
    fn last(parcel: Parcel<Self>) {
        // loom complains if a holder's access is not ordered before this one.
        parcel.touched.write();
        assert_eq!(parcel.ended.fetch_add(1, Ordering::Relaxed), 0);
    }
}

/// Two threads ask and ring while the lcore takes: nothing asked is lost, the end comes once.
fn doorbell() {
    explore(|| {
        let bells = Arc::new(List::<Rung, 0>::default());
        let ended = Arc::new(AtomicU32::new(0));
        let socket = Ref::new(Rung {
            requests: AtomicU32::new(0),
            touched: Watched::new(),
            ended: ended.clone(),
        });
        let threads: Vec<_> = [1, 2]
            .map(|bit| {
                let (bells, socket) = (bells.clone(), socket.clone());
                thread::spawn(move || {
                    socket.touched.read();
                    socket.requests.fetch_or(bit, Ordering::Relaxed);
                    bells.push(&socket);
                })
            })
            .into_iter()
            .collect();
        let mut seen = 0;
        let mut poll = || {
            for rung in bells.take() {
                // Relaxed: the bell alone has to carry it.
                seen |= rung.requests.load(Ordering::Relaxed);
                if mutants::chosen() == Some(Mutant::BellClearedLate) {
                    crate::socket::owner::Taken::<Rung, 0>::clear_late(&rung);
                }
            }
        };
        poll();
        drop(socket);
        for thread in threads {
            thread.join().unwrap();
        }
        poll();
        assert_eq!(seen, 3, "a ring was lost");
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn loom_no_ring_is_lost() {
    doorbell();
}

#[test]
fn loom_mutant_bell_cleared_late() {
    mutants::must_fail(Mutant::BellClearedLate, "loom_no_ring_is_lost");
}

#[test]
fn loom_mutant_count_off_relaxed() {
    mutants::must_fail(Mutant::CountOffRelaxed, "loom_no_ring_is_lost");
}
