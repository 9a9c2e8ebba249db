//! A pool that runs out: the largest holders give first, nothing acknowledged is lost, all are named.

use super::*;
use crate::buf::HeapSpare;
use crate::tcp::tcb::ConnError;

const PLENTY: HeapSpare = HeapSpare { small: 1000, large: 1000 };
const TRUESIZE: u32 = (HeapBuf::ROOM + HeapBuf::OVERHEAD) as u32;

/// A world with a megabyte for each connection to receive into.
fn world() -> (World, TcpListener<HeapBuf>) {
    let mut settings = Settings::default();
    settings.tcp_rmem[1] = 1 << 20;
    let mut world = World::new(settings);
    let listener = listening(&mut world, 100);
    (world, listener)
}

impl World {
    fn relieve(&mut self, spare: &mut HeapSpare) -> u32 {
        let mut tx = Vec::new();
        let won = self.engines[0].relieve(self.now, &mut tx, spare);
        self.sent.extend(tx);
        won
    }

    fn holders(&mut self) -> Vec<Holder> {
        let mut scan = HolderScan::default();
        loop {
            if let Some(holders) = self.engines[0].find_holders(&mut scan) {
                return holders;
            }
        }
    }
}

/// Byte `at` of every stream.
fn byte(at: usize) -> u8 {
    (at ^ (at >> 8)) as u8
}

fn bytes(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(byte).collect()
}

/// Sends `n` segments of `len` bytes, beginning with byte `from` of the stream.
fn send(world: &mut World, peer: &mut Peer, from: usize, n: usize, len: usize) {
    for i in 0..n {
        let at = from + i * len;
        let frame = peer.data(&bytes(at..at + len));
        world.receive([frame]);
    }
}

#[test]
fn a_hoard_is_copied_together_and_every_byte_of_it_can_be_read() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    send(&mut world, &mut peer, 0, 100, 300);
    assert_eq!(world.holders()[0].rmem, 100 * TRUESIZE);
    let mut spare = PLENTY;
    assert_eq!(world.relieve(&mut spare), 100);
    assert!(world.holders()[0].rmem < 40_000);
    assert_eq!(world.count(Counter::TCPRcvCollapsed), 100);
    assert_eq!(world.relieve(&mut spare), 0, "there is no more to be won");
    send(&mut world, &mut peer, 30_000, 1, 300);
    assert_eq!(read(&stream, 100_000).unwrap(), bytes(0..30_300));
    world.turn();
    assert!(world.holders().is_empty());
}

#[test]
fn what_a_reader_has_taken_and_not_read_is_copied_too() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    send(&mut world, &mut peer, 0, 100, 300);
    assert_eq!(read(&stream, 1).unwrap(), bytes(0..1));
    send(&mut world, &mut peer, 30_000, 50, 300);
    let queues = world.holders()[0].queues.unwrap();
    assert_eq!((queues.receive_queue, queues.with_readers), (50, 29_999));
    assert_eq!(world.relieve(&mut PLENTY.clone()), 150);
    assert_eq!(read(&stream, 100_000).unwrap(), bytes(1..45_000));
}

#[test]
fn the_ring_is_emptied_into_spare_buffers_behind_what_was_taken() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let mut buf = vec![0; 1 << 20];
    let mut call = Recv::new(stream.handle(), &mut buf, RecvFlags::WAITALL, || Instant::ZERO);
    assert!(matches!(call.step(world.now), Step::Sleep(_)), "it has installed the ring");
    send(&mut world, &mut peer, 0, 300, 300);
    assert!(world.count(Counter::ToPrequeue) > 200);
    let mut spare = PLENTY;
    assert_eq!(world.relieve(&mut spare) + world.relieve(&mut spare), 300);
    send(&mut world, &mut peer, 90_000, 3, 300);
    assert!(matches!(call.step(world.now), Step::Sleep(_)));
    let fin = peer.fin();
    world.receive([fin]);
    assert_eq!(call.step(world.now), Step::Done(90_900));
    drop(call);
    assert_eq!(buf[..90_900], bytes(0..90_900));
}

#[test]
fn a_call_that_waits_for_more_is_woken_to_take_what_there_is() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    let mut buf = vec![0; 1 << 20];
    let mut call = Recv::new(stream.handle(), &mut buf, RecvFlags::WAITALL, || Instant::ZERO);
    let Step::Sleep(sleep) = call.step(world.now) else { panic!("nothing is there") };
    send(&mut world, &mut peer, 0, 100, 1000);
    assert!(!call.has_news(&sleep), "it wants more than that");
    // All of the pool is held, and there is nothing to copy to.
    world.relieve(&mut HeapSpare::default());
    assert!(call.has_news(&sleep));
    assert!(matches!(call.step(world.now), Step::Sleep(_)));
    world.turn();
    assert!(world.holders().is_empty(), "it has taken and given back all");
}

#[test]
fn what_waits_above_holes_is_pruned_where_copying_wins_nothing() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    send(&mut world, &mut peer, 0, 1, 10);
    for i in 0..60 {
        let frame = peer.segment(ACK, 100 + 600 * i, &bytes(0..500));
        world.receive([frame]);
    }
    let before = world.holders()[0];
    assert_eq!(before.queues.unwrap().out_of_order, 60);
    // An eighth of a megabyte, from above.
    assert_eq!(world.relieve(&mut HeapSpare::default()), 131_072_u32.div_ceil(TRUESIZE));
    assert_eq!(world.relieve(&mut HeapSpare::default()), 0, "not again before more has come");
    assert_eq!(world.count(Counter::OfoPruned), 1);
    assert_eq!(world.holders()[0].queues.unwrap().out_of_order, 60 - 56);
    assert_eq!(read(&stream, 100).unwrap(), bytes(0..10));
}

#[test]
fn the_largest_is_asked_first() {
    let (mut world, listener) = world();
    let mut peers: Vec<_> =
        (0..5).map(|i| Peer::connected(&mut world, 40_000 + i, &listener)).collect();
    for (i, n) in [40, 90, 60, 200, 30].into_iter().enumerate() {
        send(&mut world, &mut peers[i].0, 0, n, 400);
    }
    let ports = |holders: &[Holder]| holders.iter().map(|h| h.peer.port()).collect::<Vec<_>>();
    let holders = world.holders();
    assert_eq!(ports(&holders), [40_003, 40_001, 40_002, 40_000, 40_004]);
    let text = holders[0].to_string();
    assert!(text.starts_with("10.0.0.9:40003 at port 7000: 4"), "{text}");
    // One call copies a bounded amount, which is the largest one's.
    world.relieve(&mut PLENTY.clone());
    assert_eq!(*ports(&world.holders()).first().unwrap(), 40_001);
    for _ in 0..10 {
        world.relieve(&mut PLENTY.clone());
    }
    assert!(world.holders().iter().all(|holder| holder.rmem < 100_000));
    for (i, n) in [40, 90, 60, 200, 30].into_iter().enumerate() {
        assert_eq!(read(&peers[i].1, 100_000).unwrap(), bytes(0..n * 400));
    }
}

#[test]
fn a_hundred_that_hold_one_small_segment_each_are_swept_up() {
    let (mut world, listener) = world();
    let mut all: Vec<_> =
        (0..100).map(|i| Peer::connected(&mut world, 40_000 + i, &listener)).collect();
    for (peer, _) in &mut all {
        send(&mut world, peer, 0, 1, 64);
    }
    let mut spare = PLENTY;
    let mut won = 0;
    for calls in 1.. {
        won += world.relieve(&mut spare);
        if won == 100 {
            break;
        }
        assert!(calls < 100, "{won} after {calls} calls");
    }
    assert_eq!(PLENTY.small - spare.small, 100);
    for (_, stream) in &all {
        assert_eq!(read(stream, 100).unwrap(), bytes(0..64));
    }
}

#[test]
fn a_socket_that_a_thread_owns_is_named_and_left_alone() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    send(&mut world, &mut peer, 0, 50, 300);
    let guard = stream.lock();
    send(&mut world, &mut peer, 15_000, 3, 300);
    let [holder] = world.holders()[..] else { panic!("there is one") };
    assert_eq!((holder.rmem, holder.backlog, holder.queues), (50 * TRUESIZE, 3, None));
    assert_eq!(world.relieve(&mut PLENTY.clone()), 0);
    world.set_pressure(Pressure::Critical);
    send(&mut world, &mut peer, 15_900, 1, 300);
    assert_eq!(world.count(Counter::PoolPressureDrop), 1, "nor does its backlog grow then");
    drop(guard);
    world.set_pressure(Pressure::None);
    world.turn();
    assert_eq!(world.relieve(&mut PLENTY.clone()), 53);
    assert_eq!(read(&stream, 100_000).unwrap(), bytes(0..15_900));
}

#[test]
fn a_list_that_is_full_and_stale_does_not_hide_new_hoards() {
    let (mut world, listener) = world();
    let mut all: Vec<_> =
        (0..90).map(|i| Peer::connected(&mut world, 40_000 + i, &listener)).collect();
    for (peer, stream) in &mut all {
        send(&mut world, peer, 0, 30, 300);
        assert_eq!(read(stream, 100_000).unwrap().len(), 9000);
        world.turn();
    }
    let (peer, stream) = all.last_mut().unwrap();
    send(&mut world, peer, 9000, 60, 300);
    let won: u32 = (0..10).map(|_| world.relieve(&mut PLENTY.clone())).sum();
    assert_eq!(won, 54, "six are better left as they are");
    assert_eq!(read(stream, 100_000).unwrap(), bytes(9000..27_000));
}

#[test]
fn a_backlog_takes_what_linux_lets_it_take_and_drops_the_rest() {
    let mut settings = Settings::default();
    settings.tcp_rmem[1] = 60_000;
    let mut world = World::new(settings);
    let listener = listening(&mut world, 5);
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    send(&mut world, &mut peer, 0, 2, 300);
    let guard = stream.lock();
    let seq = peer.seq;
    send(&mut world, &mut peer, 600, 100, 300);
    // rcvbuf + sndbuf + 64 KiB, less what is queued; one segment may overshoot.
    let room = 60_000 + 16_384 + 65_536 - 2 * TRUESIZE;
    let kept = u64::from(room / TRUESIZE + 1);
    assert_eq!(world.count(Counter::ToBacklog), kept);
    assert_eq!(world.count(Counter::TCPBacklogDrop), 100 - kept);
    assert_eq!((world.holders()[0].backlog, stream.readable()), (kept as usize, 600));
    drop(guard);
    world.turn();
    assert!(world.holders()[0].backlog == 0 && stream.readable() > 600);
    // The peer sends again what was dropped, and it arrives.
    let mut read_so_far = 0;
    for _ in 0..50 {
        let rest = read(&stream, 100_000).unwrap_or_default();
        assert_eq!(rest, bytes(read_so_far..read_so_far + rest.len()));
        read_so_far += rest.len();
        peer.seq = seq.wrapping_add((read_so_far + stream.readable() as usize - 600) as u32);
        let from = read_so_far + stream.readable() as usize;
        send(&mut world, &mut peer, from, 3.min((30_600 - from) / 300), 300);
        world.wait(Duration::from_millis(50));
    }
    assert_eq!(read_so_far, 30_600);
}

#[test]
fn what_the_pool_has_no_room_for_is_answered_with_a_closed_window() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    send(&mut world, &mut peer, 0, 1, 300);
    world.sent.clear();
    world.set_pressure(Pressure::Critical);
    let refused = peer.segment(ACK, 0, &bytes(300..600));
    world.receive([refused.clone(), refused.clone()]);
    let answer = world.expect_segment();
    answer.is(ACK, peer.ack, peer.seq);
    assert_eq!(answer.segment.window, 0, "one answer for all that came at once");
    world.expect_nothing();
    assert_eq!(world.count(Counter::PoolPressureDrop), 2);
    assert_eq!(world.count(Counter::TCPRcvQDrop), 2);
    assert_eq!(world.count(Counter::TCPToZeroWindowAdv), 1);
    for pressure in [Pressure::Critical, Pressure::None] {
        world.set_pressure(pressure);
        // The peer probes with the next bytes. Its buffer has room: it may try again.
        world.receive([refused.clone()]);
        assert_ne!(world.expect_segment().segment.window, 0);
        world.receive([refused.clone()]);
        assert_eq!(world.expect_segment().segment.window == 0, pressure == Pressure::Critical);
    }
    assert_eq!(world.count(Counter::TCPRcvQDrop), 3);
    assert_eq!(read(&stream, 1000).unwrap(), bytes(0..600));
}

#[test]
fn what_the_pool_has_no_room_for_still_counts_but_for_its_payload() {
    let (mut world, listener) = world();
    let (mut peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    world.set_pressure(Pressure::Critical);
    world.sent.clear();
    // Above a hole, as in Linux: dropped, and not answered.
    world.receive([peer.segment(ACK, 1000, &bytes(0..300))]);
    world.expect_nothing();
    assert_eq!(world.count(Counter::TCPOFODrop), 1);
    // Bytes that were received long ago.
    world.set_pressure(Pressure::None);
    send(&mut world, &mut peer, 0, 1, 300);
    world.sent.clear();
    world.set_pressure(Pressure::Critical);
    peer.seq -= 300;
    world.receive([peer.segment(ACK, 0, &bytes(0..300))]);
    peer.seq += 300;
    let answer = world.expect_segment();
    answer.is(ACK, peer.ack, peer.seq);
    assert_ne!(answer.segment.window, 0, "a duplicate wants no memory");
    // A reset is one, whatever it carries.
    world.receive([peer.segment(RST, 0, &bytes(300..600))]);
    assert_eq!(read(&stream, 300).unwrap(), bytes(0..300));
    assert_eq!(read(&stream, 300).unwrap_err(), RecvError::Connection(ConnError::Reset));
}
