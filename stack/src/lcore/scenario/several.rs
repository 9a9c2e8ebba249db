//! Several lcores: segments on the wrong queue, shared listeners, news of neighbours.

use crate::wire::arp::{self, Arp};

use super::*;

#[test]
fn a_segment_on_the_wrong_queue_finds_its_lcore() {
    let mut world = World::with_lcores(Settings::default(), 3);
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    assert_eq!(world.engines[0].population().sockets, 1);

    world.receive_on(2, [peer.data(b"lost "), peer.data(b"and ")]);
    world.receive_on(1, [peer.data(b"found")]);
    assert_eq!(read(&stream, 100).unwrap(), b"lost and found");
    world.sent.clear();

    // The SYN and the ACK went round from lcore 0; the data from 2 by way of 0, from 1 by 2 to 0.
    assert_eq!(world.count(Counter::LcorePassed), 3 + 2 + 2);
    assert_eq!(world.count(Counter::LcorePassDrop), 0);
    assert_eq!(world.engines[1].population().sockets + world.engines[2].population().sockets, 0);
}

#[test]
fn a_stranger_is_judged_at_home() {
    let mut world = World::with_lcores(Settings::default(), 2);
    let _listener = listening(&mut world, 5);
    let peer = Peer::new(40_000);
    world.receive_on(1, [peer.syn()]);
    assert_eq!(world.expect_segment().segment.flags, SYN.with(ACK));
    assert_eq!(world.engines[1].population().requests, 1);
    world.receive_on(0, [Peer::new(40_001).ack()]);
    assert_eq!(world.expect_segment().segment.flags, RST);
    world.expect_nothing();
    assert_eq!(world.count(Counter::InSegs), 2, "each counted once, by whoever judged it");
}

#[test]
fn all_lcores_fill_one_accept_queue() {
    let mut world = World::with_lcores(Settings::default(), 2);
    let listener = listening(&mut world, 1);
    let mut connected = 0;
    for (n, lcore) in [0, 1, 0, 1].into_iter().enumerate() {
        let mut peer = Peer::new(40_000 + n as u16);
        world.receive_on(lcore, [peer.syn()]);
        if !world.sent.is_empty() {
            peer.take(&world.expect_segment());
            world.receive_on(lcore, [peer.ack()]);
            connected += 1;
        }
    }
    assert_eq!((connected, listener.queue().len()), (2, 2));
    assert_eq!(world.count(Counter::ListenOverflows), 2);
}

#[test]
fn what_one_hears_of_a_neighbour_all_know() {
    let mut world = World::with_lcores(Settings::default(), 3);
    let stranger = Ipv4Addr::new(10, 0, 0, 50);
    let mac = MacAddr([2, 0, 0, 0, 0, 50]);
    let mut frame = vec![0; 60];
    let at = ethernet::emit(&mut frame, MacAddr::BROADCAST, mac, None, ethernet::ARP);
    arp::emit(&mut frame[at..], &Arp::question(mac, stranger, OUR_ADDR));
    world.receive_on(1, [frame]);
    assert_eq!(world.sent.len(), 1, "the answer");
    world.sent.clear();
    for lcore in 0..3 {
        let tuple = FourTuple {
            local_addr: stranger.into(),
            remote_addr: OUR_ADDR.into(),
            local_port: 1,
            remote_port: 2,
        };
        let syn = super::frame(&tuple, &Outgoing { flags: SYN, ..Outgoing::default() }, &[]);
        world.receive_on(lcore, [syn]);
        let reset = world.sent.pop_front().expect("nobody has to ask");
        assert_eq!(&reset[..6], &mac.0);
    }
}
