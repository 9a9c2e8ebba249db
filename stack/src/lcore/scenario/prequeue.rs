//! The prequeue: what goes through the ring, what beside it, and who takes the ring away.

use super::*;
use crate::tcp::tcb::Tcb;

/// Elements of a ring.
const RING: usize = 256;

fn connected() -> (World, Peer, TcpStream<HeapBuf>) {
    let mut world =
        World::new(Settings { tcp_rmem: [4096, 4 << 20, 8 << 20], ..Settings::default() });
    let listener = listening(&mut world, 5);
    let (peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    (world, peer, stream)
}

#[track_caller]
fn sleeps(call: &mut Recv<'_, HeapBuf, Tcb<HeapBuf>>) {
    assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)), "the call should wait");
}

/// Segments that went through a ring, and those that were queued.
fn ways(world: &World) -> (u64, u64) {
    (world.count(Counter::ToPrequeue), world.count(Counter::ToReceiveQueue))
}

#[test]
fn what_spills_takes_what_follows_with_it_until_the_queue_is_taken() {
    const LEN: usize = 300;
    let (mut world, mut peer, stream) = connected();
    let mut buf = vec![0; 80_000];
    let mut waits = call(&stream, &mut buf, RecvFlags::WAITALL);
    sleeps(&mut waits);
    // Each fills a buffer of its own: too long to be copied together with others.
    let message = |n: u32| n.to_be_bytes().repeat(LEN / 4);
    for n in 0..RING as u32 + 2 {
        world.receive([peer.data(&message(n))]);
    }
    assert_eq!(ways(&world), (RING as u64, 2));

    // Another reader makes room in the ring; what comes then is newer than what was queued.
    assert_eq!(read(&stream, 2 * LEN).unwrap(), [message(0), message(1)].concat());
    world.receive([peer.data(&message(RING as u32 + 2))]);
    assert_eq!(ways(&world), (RING as u64, 3), "the spill is sticky");

    sleeps(&mut waits);
    world.receive([peer.data(&message(RING as u32 + 3))]);
    assert_eq!(ways(&world), (RING as u64 + 1, 3), "the queue was taken");
    world.receive([peer.fin()]);
    assert_eq!(waits.step(Instant::ZERO), Step::Done(LEN * (RING + 2)));
    drop(waits);
    for (at, number) in buf[..LEN * (RING + 2)].chunks(LEN).enumerate() {
        assert_eq!(number, message(at as u32 + 2));
    }
}

#[test]
fn what_was_taken_is_older_than_the_ring() {
    let (mut world, mut peer, stream) = connected();
    world.receive([peer.data(b"abcdef"), peer.data(b"ghi")]);
    // Takes the queue, and leaves most of it.
    assert_eq!(read(&stream, 1).unwrap(), b"a");
    let mut buf = [0; 20];
    let mut waits = call(&stream, &mut buf, RecvFlags::WAITALL);
    sleeps(&mut waits);
    world.receive([peer.data(b"jkl")]);
    assert_eq!(ways(&world), (1, 2));
    // What the sleeper has was copied by it; the rest goes through the ring.
    assert_eq!(read(&stream, 2).unwrap(), b"jk");
    world.receive([peer.data(b"mn"), peer.fin()]);
    assert_eq!(waits.step(Instant::ZERO), Step::Done(11));
    drop(waits);
    assert_eq!(&buf[..11], b"bcdefghilmn");
}

#[test]
fn the_last_to_leave_takes_the_ring_away_and_puts_back_what_is_in_it() {
    let (mut world, mut peer, stream) = connected();
    let (mut first, mut second) = ([0; 1], [0; 9]);
    let mut brief = call(&stream, &mut first, RecvFlags::NONE);
    let mut long = call(&stream, &mut second, RecvFlags::WAITALL);
    sleeps(&mut brief);
    sleeps(&mut long);
    world.receive([peer.data(b"abc")]);
    assert_eq!(brief.step(Instant::ZERO), Step::Done(1));
    drop(brief);
    world.receive([peer.data(b"def")]);
    assert_eq!(ways(&world), (2, 0), "the other call keeps the ring");

    // It gives up without a further step: a half-read head and a whole one go back.
    drop(long);
    world.receive([peer.data(b"ghi")]);
    assert_eq!(ways(&world), (2, 1), "the ring has gone");
    assert!(stream.lock().connection().has_queued());
    assert_eq!(read(&stream, 20).unwrap(), b"bcdefghi");
}

#[test]
fn a_call_for_more_than_the_buffer_holds_completes() {
    for low_latency in [false, true] {
        let mut world = World::new(Settings {
            tcp_rmem: [4096, 16_384, 16_384],
            tcp_low_latency: low_latency,
            ..Settings::default()
        });
        let listener = listening(&mut world, 5);
        let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
        let mut buf = vec![0; 200_000];
        let mut waits = call(&stream, &mut buf, RecvFlags::WAITALL);
        let mut sent = 0;
        let mut turns = 0;
        loop {
            let sleep = match waits.step(Instant::ZERO) {
                Step::Sleep(sleep) => sleep,
                step => break assert_eq!(step, Step::Done(200_000)),
            };
            // The peer sends as much as it may before anybody wakes the reader.
            let mut idle = [];
            let looks = call(&stream, &mut idle, RecvFlags::NONE);
            waits.lending(|| {
                while !looks.has_news(&sleep) {
                    let open = stream.lock().connection().offered_window() as usize;
                    let len = open.min(1460).min(200_000 - sent);
                    assert_ne!(len, 0, "the window is closed and the reader asleep");
                    world.receive([peer.data(&vec![sent as u8; len])]);
                    sent += len;
                    world.wait(Duration::from_millis(1));
                }
            });
            world.turn();
            turns += 1;
        }
        assert!(
            low_latency || turns > 4,
            "the reader should have been woken because memory is short"
        );
    }
}
