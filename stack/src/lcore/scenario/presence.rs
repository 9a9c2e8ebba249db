//! A stack comes to a link: it asks whether its addresses are free, announces and defends them, and reports
//! its groups.

use std::net::{IpAddr, Ipv6Addr};

use super::ipv6::{OUR_ADDR6, PEER_ADDR6, framed, syn};
use super::*;
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::icmpv6::{self, Message};
use crate::wire::{ipv6, mld};

/// What was sent, as far as it concerns us here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    /// An ARP packet to all: sender and target.
    Arp(Ipv4Addr, Ipv4Addr),
    Solicitation(Ipv6Addr),
    /// From an address of ours, and whether it overrides.
    Advertisement(Ipv6Addr, bool),
    /// A report of the group of [`OUR_ADDR6`], from here.
    Report(Ipv6Addr),
    Other,
}

fn world(settings: Settings, lcores: usize) -> World {
    let interface =
        Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24).with_address(OUR_ADDR6, 64);
    let mut world = World::with_interface(settings, interface, lcores);
    for (lcore, engine) in world.engines.iter_mut().enumerate() {
        engine.claim_addresses(if lcore == 0 { Role::Speaks } else { Role::Listens });
    }
    assert!(world.sent.is_empty());
    world.turn();
    world
}

fn said(frame: &[u8]) -> Said {
    let header = ethernet::parse(frame).unwrap();
    assert_eq!(header.src, OUR_MAC);
    let payload = &frame[14..];
    match header.ethertype {
        ethernet::ARP if header.dst == MacAddr::BROADCAST => {
            let arp = arp::parse(payload).unwrap();
            assert_eq!((arp.operation, arp.sender_mac), (Operation::Request, OUR_MAC));
            Said::Arp(arp.sender_addr, arp.target_addr)
        }
        ethernet::IPV6 => {
            let ip = ipv6::parse(payload).unwrap();
            let group = ipv6::solicited_node(OUR_ADDR6);
            if mld::is_reported(&ip, ip.payload(payload), group) {
                assert_eq!(header.dst, ipv6::group_mac(ip.dst));
                return Said::Report(ip.src);
            }
            match icmpv6::parse(&ip, ip.payload(payload)) {
                Ok(Message::Solicitation(asked)) if ip.src.is_unspecified() => {
                    assert_eq!(header.dst, ipv6::group_mac(ipv6::solicited_node(asked.target)));
                    Said::Solicitation(asked.target)
                }
                Ok(Message::Advertisement(told)) => {
                    assert_eq!(told.target_mac, Some(OUR_MAC));
                    Said::Advertisement(told.target, told.overrides)
                }
                _ => Said::Other,
            }
        }
        _ => Said::Other,
    }
}

fn all_said(world: &mut World) -> Vec<Said> {
    world.sent.drain(..).map(|frame| said(&frame)).collect()
}

fn count_of(world: &World, counter: Counter) -> u64 {
    world.engines.iter().map(|engine| engine.counters().value(counter)).sum()
}

fn arp_frame(arp: &Arp) -> Vec<u8> {
    let mut frame = vec![0; 60];
    let at = ethernet::emit(&mut frame, MacAddr::BROADCAST, arp.sender_mac, None, ethernet::ARP);
    arp::emit(&mut frame[at..], arp);
    frame
}

/// Somebody at this Ethernet address says that it has our address, or asks for it.
fn arp_of(mac: MacAddr, sender_addr: Ipv4Addr) -> Vec<u8> {
    arp_frame(&Arp {
        operation: Operation::Request,
        sender_mac: mac,
        sender_addr,
        target_mac: MacAddr([0; 6]),
        target_addr: OUR_ADDR,
    })
}

/// Somebody else says that it has our address of IPv6.
fn advertised(mac: MacAddr) -> Vec<u8> {
    let mut datagram = vec![0; icmpv6::MAX_DISCOVERY_LEN];
    let all = ipv6::ALL_NODES;
    icmpv6::emit_advertisement(&mut datagram, (OUR_ADDR6, mac), all, true);
    framed(ipv6::group_mac(all), &datagram)
}

/// Somebody would like to have our address of IPv6.
fn wanted(nonce: icmpv6::Nonce) -> Vec<u8> {
    let mut datagram = vec![0; icmpv6::MAX_DISCOVERY_LEN];
    icmpv6::emit_probe(&mut datagram, OUR_ADDR6, nonce);
    framed(ipv6::group_mac(ipv6::solicited_node(OUR_ADDR6)), &datagram)
}

/// A router asks which groups there are listeners of, in as many bytes.
fn query(code: u16, len: usize) -> Vec<u8> {
    let router: Ipv6Addr = "fe80::9".parse().unwrap();
    let mut datagram = vec![0; ipv6::HEADER_LEN + len];
    let (to, icmp) = (ipv6::ALL_NODES, ipv6::ICMP);
    let at = ipv6::emit_with_hop_limit(&mut datagram, router, to, icmp, 0, len, 1);
    datagram[at] = 130;
    datagram[at + 4..at + 6].copy_from_slice(&code.to_be_bytes());
    icmpv6::seal_message(&mut datagram[at..], router, to);
    framed(ipv6::group_mac(to), &datagram)
}

fn standing(world: &World, lcore: usize, addr: impl Into<IpAddr>) -> Option<Standing> {
    world.engines[lcore].interface().standing(addr.into())
}

#[test]
fn addresses_are_asked_for_announced_and_their_groups_reported() {
    let mut world = world(Settings::default(), 1);
    let ours = world.engines[0].interface().link_local().unwrap();
    let none = Ipv6Addr::UNSPECIFIED;
    assert_eq!(
        all_said(&mut world),
        [
            Said::Report(none),
            Said::Arp(Ipv4Addr::UNSPECIFIED, OUR_ADDR),
            Said::Solicitation(OUR_ADDR6),
            Said::Solicitation(ours),
        ]
    );
    // Meanwhile it is used, but nobody is told to forget who had it.
    world.receive([syn(40_000, None)]);
    let asked = all_said(&mut world);
    assert!(!asked.is_empty(), "the SYN is answered, or its sender asked for");
    world.wait(Duration::from_secs(20));
    let rest = all_said(&mut world);
    let times = |wanted: Said| rest.iter().filter(|said| **said == wanted).count();
    assert_eq!(times(Said::Arp(Ipv4Addr::UNSPECIFIED, OUR_ADDR)), 2);
    assert_eq!(times(Said::Arp(OUR_ADDR, OUR_ADDR)), 2);
    for addr in [OUR_ADDR6, ours] {
        assert_eq!(times(Said::Advertisement(addr, true)), 2);
    }
    assert_eq!(times(Said::Report(ours)), 2);
    let counters = [Counter::AddrConflicts, Counter::AddrsLost];
    assert_eq!(counters.map(|counter| count_of(&world, counter)), [0, 0]);
}

#[test]
fn an_address_that_somebody_has_is_given_up_by_all_lcores() {
    for lcore in [0, 1, 2] {
        let mut world = world(Settings::default(), 3);
        world.sent.clear();
        world.receive_on(lcore, [arp_of(PEER_MAC, OUR_ADDR), advertised(PEER_MAC)]);
        for at in 0..3 {
            assert_eq!(standing(&world, at, OUR_ADDR), Some(Standing::Withheld));
            assert_eq!(standing(&world, at, OUR_ADDR6), Some(Standing::Withheld));
        }
        let counters = [Counter::AddrConflicts, Counter::AddrsLost];
        assert_eq!(counters.map(|counter| count_of(&world, counter)), [2, 2]);
        assert!(world.sent.is_empty(), "and nothing is said");
        // Neither connections nor questions are answered.
        let peer = Peer::new(40_000);
        world.receive([peer.syn(), syn(40_000, None), arp_of(PEER_MAC, PEER_ADDR)]);
        assert!(world.sent.is_empty());
        world.wait(Duration::from_secs(20));
        let ours = world.engines[0].interface().link_local().unwrap();
        let of_ours = |said: &Said| {
            matches!(said, Said::Arp(..))
                || *said == Said::Solicitation(OUR_ADDR6)
                || matches!(said, Said::Advertisement(addr, _) if *addr != ours)
        };
        assert!(!all_said(&mut world).iter().any(of_ours));
    }
}

#[test]
fn two_who_ask_at_the_same_time_both_do_without() {
    let mut world = world(Settings::default(), 1);
    world.receive([arp_of(PEER_MAC, Ipv4Addr::UNSPECIFIED), wanted([1; 6])]);
    assert_eq!(standing(&world, 0, OUR_ADDR), Some(Standing::Withheld));
    assert_eq!(standing(&world, 0, OUR_ADDR6), Some(Standing::Withheld));
}

#[test]
fn what_comes_back_of_our_own_is_nobody_elses() {
    let mut world = world(Settings::default(), 1);
    let own: Vec<_> = world.sent.drain(..).collect();
    world.receive(own);
    world.receive([arp_of(OUR_MAC, OUR_ADDR), advertised(OUR_MAC)]);
    assert_eq!(count_of(&world, Counter::AddrConflicts), 0);
    assert_eq!(standing(&world, 0, OUR_ADDR6), Some(Standing::Doubtful));
    assert!(!all_said(&mut world).iter().any(|said| matches!(said, Said::Advertisement(..))));
}

#[test]
fn an_address_that_is_held_is_defended_and_not_given_up() {
    let mut world = world(Settings::default(), 1);
    world.wait(Duration::from_secs(20));
    world.sent.clear();
    for defended in [true, false] {
        world.receive([arp_of(PEER_MAC, OUR_ADDR), advertised(PEER_MAC)]);
        let expected = [Said::Arp(OUR_ADDR, OUR_ADDR), Said::Advertisement(OUR_ADDR6, true)];
        assert_eq!(all_said(&mut world), if defended { &expected[..] } else { &[] });
        world.wait(Duration::from_secs(5));
    }
    let counters = [Counter::AddrConflicts, Counter::AddrsLost];
    assert_eq!(counters.map(|counter| count_of(&world, counter)), [4, 0]);
    // Whoever asks before taking it is answered each time.
    for _ in 0..2 {
        world.receive([wanted([1; 6])]);
        assert_eq!(all_said(&mut world), [Said::Advertisement(OUR_ADDR6, true)]);
    }
    assert_eq!(count_of(&world, Counter::AddrConflicts), 4);
}

#[test]
fn who_asks_meanwhile_is_answered_without_overriding_anybody() {
    let mut world = world(Settings::default(), 1);
    world.sent.clear();
    let mut datagram = vec![0; icmpv6::MAX_DISCOVERY_LEN];
    let group = ipv6::solicited_node(OUR_ADDR6);
    icmpv6::emit_solicitation(&mut datagram, (PEER_ADDR6, Some(PEER_MAC)), group, OUR_ADDR6);
    let asked = framed(ipv6::group_mac(group), &datagram);
    world.receive([asked.clone()]);
    assert_eq!(all_said(&mut world), [Said::Advertisement(OUR_ADDR6, false)]);
    world.wait(Duration::from_secs(20));
    world.sent.clear();
    world.receive([asked]);
    assert_eq!(all_said(&mut world), [Said::Advertisement(OUR_ADDR6, true)]);
}

#[test]
fn where_it_is_wished_nothing_is_used_before_it_is_sure() {
    let settings = Settings { optimistic_dad: false, ..Settings::default() };
    let mut world = world(settings, 1);
    let peer = Peer::new(40_000);
    world.receive([peer.syn()]);
    assert!(!all_said(&mut world).contains(&Said::Other));
    assert_eq!(count_of(&world, Counter::InAddrErrors), 1);
    world.wait(Duration::from_secs(9));
    assert_eq!(standing(&world, 0, OUR_ADDR), Some(Standing::Held));
    assert_eq!(standing(&world, 0, OUR_ADDR6), Some(Standing::Held));
    world.sent.clear();
    world.receive([peer.syn()]);
    assert_eq!(world.expect_segment().segment.flags, RST.with(ACK), "nobody listens");
}

#[test]
fn routers_that_ask_for_groups_are_answered() {
    let mut world = world(Settings::default(), 2);
    world.wait(Duration::from_secs(20));
    world.sent.clear();
    let ours = world.engines[0].interface().link_local().unwrap();
    let asked = query(10_000, 28);
    // Whichever lcore hears it answers, once.
    for lcore in [0, 1] {
        world.receive_on(lcore, [asked.clone(), asked.clone()]);
        assert!(world.sent.is_empty(), "in its own time");
        world.wait(Duration::from_secs(10));
        assert_eq!(all_said(&mut world), [Said::Report(ours)]);
    }
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    /// A frame of somebody who means harm, or has lost his mind.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let addr = prop_oneof![Just(OUR_ADDR), Just(PEER_ADDR), Just(Ipv4Addr::UNSPECIFIED)];
        let mac = prop_oneof![Just(PEER_MAC), Just(OUR_MAC), any::<[u8; 6]>().prop_map(MacAddr)];
        let whole = prop_oneof![
            (mac.clone(), addr).prop_map(|(mac, addr)| arp_of(mac, addr)),
            mac.prop_map(advertised),
            any::<[u8; 6]>().prop_map(wanted),
            (any::<u16>(), 24_usize..40).prop_map(|(code, len)| query(code, len)),
        ];
        let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
        (whole, change).prop_map(|(mut frame, change)| {
            if let Some((at, value)) = change {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            frame
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn whatever_is_heard_little_is_said(
            heard in prop::collection::vec((0_usize..2, frame(), 0_u64..3000), 1..60),
            optimistic_dad in any::<bool>(),
            accept_dad in any::<bool>(),
        ) {
            let settings = Settings { optimistic_dad, accept_dad, ..Settings::default() };
            let mut world = world(settings, 2);
            let (begun, mut all) = (world.now, Vec::new());
            let n = heard.len();
            for (lcore, frame, pause) in heard {
                world.receive_on(lcore, [frame]);
                world.wait(Duration::from_millis(pause));
                all.extend(all_said(&mut world));
            }
            let seconds = world.now.since(begun).as_secs() as usize;
            let times = |wanted: &dyn Fn(&Said) -> bool| all.iter().filter(|said| wanted(said)).count();
            // Three probes, and two announcements, and one more for each ten seconds.
            let arp = times(&|said| matches!(said, Said::Arp(..)));
            prop_assert!(arp <= 3 + 2 + 1 + seconds / 10, "{arp} in {seconds} s");
            // An answer to each question at most, besides.
            let advertised = times(&|said| matches!(said, Said::Advertisement(..)));
            prop_assert!(advertised <= n + 2 * (2 + 1 + seconds / 10));
            prop_assert!(times(&|said| matches!(said, Said::Report(_))) <= 4 + n);
            // All agree on what is lost.
            for addr in world.engines[0].interface().addresses().collect::<Vec<_>>() {
                let lost = |lcore: usize| {
                    standing(&world, lcore, addr) == Some(Standing::Withheld)
                };
                prop_assert!(lost(0) == lost(1) || seconds < 10);
            }
        }
    }
}
