//! Waking: at what, and how often.

use crate::socket::park::{Park, Status};
use crate::socket::sync::Ordering;
use crate::tcp::SeqNum;

/// Shortly before the wrap.
const START: u32 = u32::MAX - 5;

fn seq(n: u32) -> SeqNum {
    SeqNum::new(n)
}

/// Publishes as an lcore does when it leaves; how often sleepers have been woken so far.
fn arrive(park: &Park, edge: u32) -> u32 {
    park.publish_edge(seq(edge));
    park.fence();
    park.wake_if_wanted(seq(edge), false);
    wakes(park)
}

/// Announces a sleeper, which has read nothing; whether it may sleep.
fn sleeps(park: &Park, wanted: u32) -> bool {
    let _ = park.announce(seq(wanted));
    !park.has_news(seq(wanted), seq(START))
}

fn wakes(park: &Park) -> u32 {
    park.word().value().load(Ordering::Relaxed)
}

#[test]
fn a_sleeper_is_woken_once_and_at_its_number() {
    let park = Park::new(seq(START));
    assert!(sleeps(&park, 10));
    assert_eq!(arrive(&park, 5), 0, "less than is wanted");
    assert_eq!(arrive(&park, 12), 1);
    // It has not run yet; what arrives meanwhile costs no further wake-up.
    assert_eq!(arrive(&park, 20), 1);
    assert_eq!(arrive(&park, 30), 1);
    assert!(sleeps(&park, 40));
    assert_eq!(arrive(&park, 40), 2);
}

#[test]
fn of_several_sleepers_the_least_wish_wakes_all_once() {
    let park = Park::new(seq(START));
    assert!(sleeps(&park, 20));
    assert!(sleeps(&park, 2));
    assert!(sleeps(&park, 30));
    assert_eq!(arrive(&park, u32::MAX), 0);
    assert_eq!(arrive(&park, 2), 1);
    assert_eq!(arrive(&park, 25), 1, "those who want more have to say so again");
}

#[test]
fn the_end_wakes_whatever_is_wanted() {
    for end in [Status::EOF, Status::ERROR, Status::CLOSED, Status::SHUT, Status::DEAD] {
        let park = Park::new(seq(START));
        assert!(sleeps(&park, 10));
        park.set(end);
        park.wake_all();
        assert_eq!(wakes(&park), 1);
        assert!(!sleeps(&park, 10), "nobody sleeps any more");
    }
}
