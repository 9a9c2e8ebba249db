//! Addresses that the kernel has, or would like to have, besides us.

use std::{net::IpAddr, process::Command};

use prequeue::{
    lcore::{Standing, fault::Faults},
    tcp::Counter,
};

use crate::{
    LIMIT,
    harness::scenario,
    lab::{HERE, eventually, ip, stack, stack_at},
};

#[test]
fn an_address_that_the_kernel_has_is_given_up() {
    scenario("presence::an_address_that_the_kernel_has_is_given_up", LIMIT, || {
        let stack = stack(1, Faults::default());
        // Both ends of a tap have one Ethernet address, and who has that is no stranger.
        ip("link set pqtap0 address 02:00:00:00:99:01");
        ip(&format!("address add {HERE}/24 dev pqtap0"));
        let standing = || stack.interface().standing(HERE.into());
        eventually("the kernel's answer is heard", || standing() == Some(Standing::Withheld));
        let counters = stack.counters();
        assert_eq!(counters.value(Counter::AddrsLost), 1);
        assert!(stack.interface().to_string().contains("not used"));
    });
}

#[test]
fn an_address_that_the_kernel_would_like_to_have_is_defended() {
    scenario("presence::an_address_that_the_kernel_would_like_to_have_is_defended", LIMIT, || {
        let ours = "fd00:99::2".parse::<IpAddr>().expect("an address");
        let stack = stack_at(&["fd00:99::2/64"], Faults::default());
        ip("link set pqtap0 address 02:00:00:00:99:01");
        eventually("nobody objects", || stack.interface().standing(ours) == Some(Standing::Held));
        ip("-6 address add fd00:99::2/64 dev pqtap0");
        eventually("the kernel finds that it is taken", || {
            let shown =
                Command::new("ip").args(["-6", "address", "show", "dev", "pqtap0"]).output();
            let shown = shown.expect("ip is installed").stdout;
            String::from_utf8_lossy(&shown).contains("dadfailed")
        });
        assert_eq!(stack.interface().standing(ours), Some(Standing::Held));
        assert_eq!(stack.counters().value(Counter::AddrsLost), 0);
    });
}
