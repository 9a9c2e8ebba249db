//! What can be seen of a connection from outside, wherever its bytes are.

use super::*;
use crate::watch::{ConnectionSeen, Owner, ReaderSeen, Seen, Span};

/// The peer's first byte has this number.
const FIRST: u32 = 1001;

fn span(offset: u32, len: u32) -> Span {
    Span { seq: FIRST + offset, len, fin: false }
}

#[test]
fn every_queue_shows_what_is_in_it() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 4000, &listener);
    let frame = peer.data(b"in sequence");
    world.receive([frame]);
    world.receive([peer.segment(ACK, 5, b"above a hole")]);
    let Seen { owner, reader, connection, wakes } = stream.handle().seen();
    assert_eq!((owner, wakes), (Owner::Nobody, 0));
    assert_eq!(reader, Some(ReaderSeen { copied_seq: FIRST, taken: vec![], ring: None }));
    let queues = ConnectionSeen {
        rcv_nxt: FIRST + 11,
        receive: vec![span(0, 11)],
        out_of_order: vec![span(16, 12)],
    };
    assert_eq!(connection, Some(queues));

    // A read in part leaves the rest with the reader; one that waits installs the ring.
    assert_eq!(read(&stream, 3).unwrap(), b"in ");
    let reader = stream.handle().seen().reader.expect("nobody reads");
    assert_eq!((reader.copied_seq, reader.taken), (FIRST + 3, vec![span(3, 8)]));
    let mut buf = [0; 100];
    let mut recv = Recv::new(stream.handle(), &mut buf, RecvFlags::WAITALL, || Instant::ZERO);
    let Step::Sleep(sleep) = recv.step(Instant::ZERO) else { panic!("100 bytes are not there") };
    assert!(recv.announce(&sleep), "there is no news");
    let frame = peer.data(b"hole!");
    world.receive([frame]);
    let Seen { reader, wakes, .. } = stream.handle().seen();
    let ring = Some(vec![span(11, 5), span(16, 12)]);
    let copied_seq = FIRST + 11;
    assert_eq!(reader, Some(ReaderSeen { copied_seq, taken: vec![], ring }));
    assert_eq!(wakes, 0, "not enough yet");

    peer.seq += 12;
    let frame = peer.data(&[1; 100]);
    world.receive([frame]);
    assert_eq!(stream.handle().seen().wakes, 1);
    assert!(!recv.announce(&sleep), "there is news");
}

#[test]
fn a_guard_sends_what_comes_to_the_backlog_and_leaves_it_to_the_lcore() {
    let mut world = World::new(Settings::default());
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 4000, &listener);
    let ours = FourTuple {
        local_addr: OUR_ADDR.into(),
        remote_addr: PEER_ADDR.into(),
        local_port: PORT,
        remote_port: 4000,
    };
    let guard = stream.lock();
    let frame = peer.data(b"waits");
    world.receive([frame]);
    assert_eq!(world.engines[0].backlog(&ours), [span(0, 5)]);
    let Seen { owner, connection, reader, .. } = stream.handle().seen();
    assert_eq!((owner, connection), (Owner::Thread, None));
    assert!(reader.is_some(), "a guard is not for reading");
    drop(guard);
    let Seen { owner, connection, .. } = stream.handle().seen();
    assert_eq!((owner, connection), (Owner::LcoreDue, None), "nobody but the lcore may");
    world.turn();
    let Seen { owner, connection, .. } = stream.handle().seen();
    assert_eq!(owner, Owner::Nobody);
    assert_eq!(connection.expect("it is free").receive, [span(0, 5)]);
    assert_eq!(world.engines[0].backlog(&ours), []);
    assert_eq!(world.engines[0].backlog(&FourTuple { remote_port: 4001, ..ours }), []);
}
