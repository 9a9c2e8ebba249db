//! Parking against waking, and the reader's progress against the lcore's mark.

use loom::thread;

use super::explore;
use crate::socket::notice::{NotifyAt, Progress};
use crate::socket::park::{Park, Status};
use crate::socket::sync::Arc;
use crate::socket::sync::mutants::{self, Mutant};
use crate::tcp::SeqNum;

fn seq(n: u32) -> SeqNum {
    SeqNum::new(n)
}

/// Sleeps until the edge has reached `wanted` or the waiting is over.
fn read(park: &Park, wanted: SeqNum) {
    while !park.has_news(wanted, seq(0)) {
        let seen = park.announce(wanted);
        if !park.has_news(wanted, seq(0)) {
            let _ = park.word().wait(seen, None);
        }
    }
}

/// One reader; the edge comes in two steps, of which the second is the wanted one.
fn one_reader() {
    explore(|| {
        let park = Arc::new(Park::new(seq(0)));
        let reader = {
            let park = park.clone();
            thread::spawn(move || read(&park, seq(2)))
        };
        for edge in 1..=2 {
            park.publish_edge(seq(edge));
            park.fence();
            park.wake_if_wanted(seq(edge), false);
        }
        reader.join().unwrap();
    });
}

#[test]
fn loom_no_wake_up_is_lost() {
    one_reader();
}

#[test]
fn loom_mutant_park_without_fence() {
    mutants::must_fail(Mutant::ParkWithoutFence, "loom_no_wake_up_is_lost");
}

#[test]
fn loom_mutant_wake_without_fence() {
    mutants::must_fail(Mutant::WakeWithoutFence, "loom_no_wake_up_is_lost");
}

/// Two readers with different wishes, then the end.
fn two_readers() {
    explore(|| {
        let park = Arc::new(Park::new(seq(0)));
        let readers = [1, 2].map(|wanted| {
            let park = park.clone();
            thread::spawn(move || read(&park, seq(wanted)))
        });
        park.publish_edge(seq(1));
        park.publish_status(Status::EOF);
        park.fence();
        park.wake_if_wanted(seq(1), true);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_all_sleepers_are_woken() {
    two_readers();
}

#[test]
fn loom_mutant_wake_one() {
    mutants::must_fail(Mutant::WakeOne, "loom_all_sleepers_are_woken");
}

/// The owner publishes data; somebody who has seen that shuts the reading side; a third thread looks.
fn shut_behind_data() {
    explore(|| {
        let park = Arc::new(Park::new(seq(0)));
        let owner = {
            let park = park.clone();
            thread::spawn(move || park.publish_status(Status::QUEUED))
        };
        let shuts = {
            let park = park.clone();
            thread::spawn(move || {
                if park.status().has(Status::QUEUED) {
                    park.set(Status::SHUT);
                }
            })
        };
        let status = park.status();
        let sees_both = status.has(Status::QUEUED) || !status.has(Status::SHUT);
        assert!(sees_both, "the end is seen before the data that was there first");
        owner.join().unwrap();
        shuts.join().unwrap();
    });
}

#[test]
fn loom_nobody_sees_the_end_before_older_data() {
    shut_behind_data();
}

#[test]
fn loom_mutant_owned_status_first() {
    mutants::must_fail(Mutant::OwnedStatusFirst, "loom_nobody_sees_the_end_before_older_data");
}

/// The mark is published while the reader passes it: one of the two notices.
fn window() {
    explore(|| {
        let progress = Arc::new(Progress::new(seq(0)));
        let mark = Arc::new(NotifyAt::new());
        let fences = Park::new(seq(0));
        let reader = {
            let (progress, mark) = (progress.clone(), mark.clone());
            thread::spawn(move || progress.publish(seq(5), &mark))
        };
        mark.publish(Some(seq(5)));
        fences.fence();
        let lcore = !mutants::chosen().is_some_and(|m| m == Mutant::NoticeWithoutSecondLook)
            && mark.passed_by(progress.copied_seq());
        let rung = reader.join().unwrap();
        assert!(lcore || rung, "the window update is lost");
    });
}

#[test]
fn loom_no_window_update_is_lost() {
    window();
}

#[test]
fn loom_mutant_notice_without_fence() {
    mutants::must_fail(Mutant::NoticeWithoutFence, "loom_no_window_update_is_lost");
}

#[test]
fn loom_mutant_notice_without_second_look() {
    mutants::must_fail(Mutant::NoticeWithoutSecondLook, "loom_no_window_update_is_lost");
}

#[test]
fn loom_mutant_notice_without_the_lcores_fence() {
    mutants::must_fail(Mutant::WakeWithoutFence, "loom_no_window_update_is_lost");
}
