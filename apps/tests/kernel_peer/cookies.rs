//! SYN cookies, with the kernel as the client: options that timestamps carry, and a flood beside it.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use prequeue::{
    lcore::fault::Faults,
    tcp::{Counter, Settings, SynCookies},
    wire::{Flags, FourTuple, Outgoing, tcp},
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::{
    LIMIT, MIB,
    harness::scenario,
    lab::{HERE, PORT, stack_with},
    many_streams, one_stream,
};

/// Half-open connections and one that the listener of the flood holds.
const BACKLOG: u32 = 16;

#[test]
fn streams_arrive_through_cookies() {
    scenario("cookies::streams_arrive_through_cookies", LIMIT, || {
        let settings = Settings { tcp_syncookies: SynCookies::Always, ..Settings::default() };
        let stack = stack_with(1, Faults::default(), settings);
        one_stream(&stack, 256 * MIB);
        many_streams(&stack, 100, MIB / 8);
        let counters = stack.counters();
        assert_eq!(counters.value(Counter::SyncookiesRecv), 101);
        assert_eq!(counters.value(Counter::PassiveOpens), 101);
        assert_eq!(counters.value(Counter::SyncookiesFailed), 0);
    });
}

#[test]
fn clients_get_in_through_a_flood_of_syns() {
    scenario("cookies::clients_get_in_through_a_flood_of_syns", LIMIT, || {
        let settings = Settings { somaxconn: BACKLOG, ..Settings::default() };
        let stack = stack_with(1, Faults::default(), settings);
        let over = AtomicBool::new(false);
        let most = thread::scope(|scope| {
            let flood = scope.spawn(|| flood(&over));
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(stack.population().requests);
                    thread::sleep(Duration::from_millis(1));
                }
                most
            });
            // The flood comes first.
            thread::sleep(Duration::from_millis(200));
            many_streams(&stack, 50, MIB / 8);
            over.store(true, Ordering::Relaxed);
            flood.join().expect("the flood does not panic");
            watch.join().expect("the watch does not panic")
        });
        let count = |counter| stack.counters().value(counter);
        assert!(most <= BACKLOG + 1, "{most} requests were kept");
        assert!(count(Counter::SyncookiesSent) > 1000);
        assert_ne!(count(Counter::SyncookiesRecv), 0);
        assert_eq!(count(Counter::PassiveOpens), 50);
    });
}

/// SYNs of hosts that are not there, some thousands a second, until it is over.
fn flood(over: &AtomicBool) {
    let wire = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))
        .expect("root may send what it likes");
    let to = SocketAddrV4::new(HERE, 0);
    let mut packet = [0; 100];
    for number in 0_u32.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let nobody = Ipv4Addr::new(10, 99, 0, 50 + (number % 200) as u8);
        // As the kernel sends it: what is theirs is local here.
        let tuple = FourTuple {
            local_addr: nobody.into(),
            remote_addr: HERE.into(),
            local_port: 1024 + (number / 200 % 60_000) as u16,
            remote_port: PORT,
        };
        let syn = Outgoing {
            seq: number.wrapping_mul(0x9e37_79b9),
            flags: Flags::SYN,
            window: 64_240,
            mss: Some(1460),
            ..Outgoing::default()
        };
        let len = tcp::emit(&mut packet, &tuple, &syn, 0, &[]);
        // A full queue of the tap loses some, which is no matter.
        let _ = sendto(&wire, &packet[..len], SendFlags::empty(), &to);
        if number % 20 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
