//! Low-latency mode: what goes straight to a waiting reader's memory, and what does not.

use std::io::IoSliceMut;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::socket::Slices;
use crate::tcp::tcb::ConnError;

use super::*;

const URG: Flags = Flags::URG;

/// A stack in low-latency mode, with a connection.
fn connected() -> (World, Peer, TcpStream<HeapBuf>) {
    connected_with(Settings { tcp_low_latency: true, ..Settings::default() })
}

fn connected_with(settings: Settings) -> (World, Peer, TcpStream<HeapBuf>) {
    let mut world = World::new(settings);
    let listener = listening(&mut world, 5);
    let (peer, stream) = Peer::connected(&mut world, 40_000, &listener);
    (world, peer, stream)
}

/// Waits while something happens, as a reader that found nothing; what the step after it says.
fn while_waiting(
    stream: &TcpStream<HeapBuf>,
    buf: &mut [u8],
    flags: RecvFlags,
    happens: impl FnOnce(),
) -> Step {
    let mut call = call(stream, buf, flags);
    assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)), "there is nothing yet");
    call.lending(happens);
    call.step(Instant::ZERO)
}

/// Segments that went straight to a reader, and those that were queued.
fn ways(world: &World) -> (u64, u64) {
    assert_eq!(world.count(Counter::ToPrequeue), 0, "there is no prequeue in this mode");
    (world.count(Counter::DirectCopies), world.count(Counter::ToReceiveQueue))
}

#[test]
fn what_comes_in_order_goes_straight_to_a_waiting_reader() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 100];
    let step = while_waiting(&stream, &mut buf, RecvFlags::NONE, || {
        world.receive([peer.data(b"straight "), peer.data(b"through")]);
    });
    assert_eq!((step, &buf[..16]), (Step::Done(16), b"straight through".as_slice()));
    assert_eq!(ways(&world), (2, 0));
    assert_eq!(world.count(Counter::DirectCopiedBytes), 16);
    assert_eq!(stream.lock().connection().rmem(), 0, "the buffers were freed at once");
    assert_eq!(stream.readable(), 0);
}

#[test]
fn several_buffers_of_a_waiting_reader_are_filled_in_order() {
    let (mut world, mut peer, stream) = connected();
    let (mut head, mut tail) = ([0; 4], [0; 9]);
    let mut bufs =
        [IoSliceMut::new(&mut head), IoSliceMut::new(&mut []), IoSliceMut::new(&mut tail)];
    let mut slices = Slices::new(&mut bufs);
    world.receive([peer.data(b"a")]);
    let now = Instant::ZERO;
    let mut call = Recv::vectored(stream.handle(), &mut slices, RecvFlags::WAITALL, || now);
    for (part, is_last) in [(&b"bc"[..], false), (b"defg", false), (b"hijklmn", true)] {
        assert!(matches!(call.step(now), Step::Sleep(_)));
        call.lending(|| world.receive([peer.data(part)]));
        assert_eq!(call.step(now) == Step::Done(13), is_last);
    }
    drop(call);
    assert_eq!((&head, &tail), (b"abcd", b"efghijklm"));
    assert_eq!(ways(&world), (3, 2), "the first was there, the last did not fit");
    assert_eq!(read(&stream, 9).unwrap(), b"n");
}

#[test]
fn an_exclusive_reader_lends_too() {
    let (mut world, mut peer, mut stream) = connected();
    let mut reader = stream.reader().unwrap();
    let mut buf = [0; 6];
    let step = reader.recv_while(&mut buf, RecvFlags::NONE, || {
        world.receive([peer.data(b"ab"), peer.data(b"c")]);
        world.receive([peer.data(b"defgh")]);
    });
    assert_eq!((step, &buf), (Step::Done(6), b"abcdef"));
    assert_eq!(ways(&world), (3, 1));
    let step = reader.recv_while(&mut buf, RecvFlags::NONE, || unreachable!("there is something"));
    assert_eq!((step, &buf[..2]), (Step::Done(2), &b"gh"[..]));
    // A hole, and what is behind it, is for the queues.
    peer.seq += 2;
    let behind = peer.segment(ACK, 0, b"kl");
    peer.seq -= 2;
    let step = reader.recv_while(&mut buf, RecvFlags::WAITALL, || {
        world.receive([behind]);
        world.receive([peer.data(b"ij")]);
        peer.seq += 2;
        world.receive([peer.data(b"mn")]);
    });
    assert_eq!((step, &buf), (Step::Done(6), b"ijklmn"));
    drop(reader);
    assert_eq!(stream.readable(), 0);
    assert_eq!(stream.lock().connection().rmem(), 0);
}

#[test]
fn a_reader_whose_mode_ends_while_it_lends_gets_everything_in_order() {
    let (mut world, mut peer, mut stream) = connected();
    let switch = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    let mut buf = [0; 4];
    let step = reader.recv_while(&mut buf, RecvFlags::WAITALL, || {
        world.receive([peer.data(b"a")]);
        switch.set_low_latency(false);
        world.receive([peer.data(b"b")]);
    });
    assert!(matches!(step, Step::Sleep(_)), "two are missing, and will be in the ring");
    let step = reader.recv_while(&mut buf[2..], RecvFlags::WAITALL, || {
        world.receive([peer.data(b"c")]);
        switch.set_low_latency(true);
        world.receive([peer.data(b"d")]);
    });
    assert_eq!((step, &buf), (Step::Done(2), b"abcd"));
}

#[test]
fn what_was_copied_is_acknowledged_as_read() {
    let (mut world, mut peer, stream) = connected();
    for _ in 0..40 {
        // Out of the first quick ACKs.
        let mut buf = [0; 10];
        while_waiting(&stream, &mut buf, RecvFlags::NONE, || world.receive([peer.data(b"x")]));
        world.sent.clear();
    }
    let mut buf = [0; 10];
    while_waiting(&stream, &mut buf, RecvFlags::NONE, || world.receive([peer.data(b"x")]));
    // Linux acknowledges a small segment when all is read: here that is when it comes.
    world.expect_segment().is(ACK, peer.ack, peer.seq);
    world.expect_nothing();
}

#[test]
fn what_does_not_fit_is_queued() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 3];
    let step = while_waiting(&stream, &mut buf, RecvFlags::NONE, || {
        world.receive([peer.data(b"abcd"), peer.data(b"ef")]);
    });
    assert_eq!((step, &buf), (Step::Done(3), b"abc"));
    assert_eq!(ways(&world), (1, 2), "the rest of the first counts as queued, too");
    assert_eq!(stream.readable(), 3);
    assert_eq!(read(&stream, 9).unwrap(), b"def");
}

#[test]
fn a_call_for_more_gathers_it_bit_by_bit() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 6];
    let mut call = call(&stream, &mut buf, RecvFlags::WAITALL);
    for part in [b"ab", b"cd"] {
        assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)));
        call.lending(|| world.receive([peer.data(part)]));
    }
    let Step::Sleep(sleep) = call.step(Instant::ZERO) else { panic!("two are missing") };
    let mut nothing = [];
    let looks = self::call(&stream, &mut nothing, RecvFlags::NONE);
    call.lending(|| {
        world.receive([peer.data(b"e")]);
        assert!(!looks.has_news(&sleep), "one is missing");
        world.receive([peer.data(b"f")]);
        assert!(looks.has_news(&sleep));
    });
    assert_eq!(call.step(Instant::ZERO), Step::Done(6));
    drop(call);
    assert_eq!(&buf, b"abcdef");
    assert_eq!(ways(&world), (4, 0));
}

#[test]
fn nothing_overtakes_older_data() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 9];
    let mut call = call(&stream, &mut buf, RecvFlags::NONE);
    assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)));
    // Just before the reader lends.
    world.receive([peer.data(b"old")]);
    call.lending(|| world.receive([peer.data(b"new")]));
    assert_eq!(call.step(Instant::ZERO), Step::Done(6));
    drop(call);
    assert_eq!(&buf[..6], b"oldnew");
    assert_eq!(ways(&world), (0, 2));
}

#[test]
fn a_filled_hole_goes_straight_with_all_behind_it() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 9];
    let step = while_waiting(&stream, &mut buf, RecvFlags::NONE, || {
        world.receive([peer.segment(ACK, 3, b"def"), peer.segment(ACK, 6, b"ghi")]);
        assert_eq!(world.count(Counter::TCPOFOQueue), 2);
        world.receive([peer.data(b"abc")]);
    });
    assert_eq!((step, &buf), (Step::Done(9), b"abcdefghi"));
    assert_eq!(ways(&world), (2, 0), "those above the hole had been put together");
    assert_eq!(stream.lock().connection().rmem(), 0);
}

#[test]
fn urgent_data_is_left_to_the_reader() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 9];
    let step = while_waiting(&stream, &mut buf, RecvFlags::NONE, || {
        // The urgent byte is the first.
        world.receive([peer.segment(ACK.with(URG), 0, b"abc"), peer.segment(ACK, 3, b"def")]);
        peer.seq = peer.seq.wrapping_add(6);
    });
    assert!(matches!(step, Step::Done(1..)));
    assert_eq!(ways(&world), (0, 2));
}

#[test]
fn looks_and_discarding_reads_lend_nothing() {
    for flags in [RecvFlags::PEEK, RecvFlags::TRUNC] {
        let (mut world, mut peer, stream) = connected();
        let mut buf = [7; 9];
        let step = while_waiting(&stream, &mut buf, flags, || world.receive([peer.data(b"abc")]));
        assert_eq!(step, Step::Done(3));
        assert_eq!(ways(&world), (0, 1), "{flags:?}");
        assert_eq!(buf[..3] == *b"abc", flags == RecvFlags::PEEK);
    }
}

#[test]
fn a_call_without_room_waits_and_takes_nothing() {
    let (mut world, mut peer, stream) = connected();
    let step =
        while_waiting(&stream, &mut [], RecvFlags::NONE, || world.receive([peer.data(b"abc")]));
    assert_eq!(step, Step::Done(0));
    assert_eq!(read(&stream, 9).unwrap(), b"abc");
}

#[test]
fn what_waited_for_a_guard_goes_straight_afterwards() {
    let (mut world, mut peer, stream) = connected();
    let other = stream.try_clone().unwrap();
    let mut buf = [0; 9];
    let step = while_waiting(&stream, &mut buf, RecvFlags::NONE, || {
        let guard = other.lock();
        world.receive([peer.data(b"abc")]);
        assert_eq!(world.count(Counter::ToBacklog), 1);
        drop(guard);
        world.turn();
    });
    assert_eq!((step, &buf[..3]), (Step::Done(3), b"abc".as_slice()));
    assert_eq!(ways(&world), (1, 0));
}

#[test]
fn a_call_that_has_gone_is_not_written_to() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [7; 9];
    let mut call = call(&stream, &mut buf, RecvFlags::NONE);
    assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)));
    call.lending(|| ());
    world.receive([peer.data(b"late")]);
    drop(call);
    assert_eq!(buf, [7; 9]);
    assert_eq!(read(&stream, 9).unwrap(), b"late");
    assert_eq!(ways(&world), (0, 1));
}

#[test]
fn a_timeout_returns_what_was_copied() {
    let (mut world, mut peer, stream) = connected();
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buf = [0; 9];
    let start = Instant::from_millis(2000);
    let mut call = Recv::new(stream.handle(), &mut buf, RecvFlags::WAITALL, || start);
    let Step::Sleep(sleep) = call.step(start) else { panic!("nothing is there yet") };
    call.lending(|| world.receive([peer.data(b"part")]));
    assert_eq!(call.step(sleep.until.unwrap()), Step::Done(4));
    drop(call);
    assert_eq!(&buf[..4], b"part");
}

#[test]
fn a_reset_comes_behind_what_was_copied() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 9];
    let step = while_waiting(&stream, &mut buf, RecvFlags::WAITALL, || {
        world.receive([peer.data(b"abc"), peer.segment(RST.with(ACK), 0, &[])]);
    });
    assert_eq!((step, &buf[..3]), (Step::Done(3), b"abc".as_slice()));
    assert_eq!(read(&stream, 9), Err(RecvError::Connection(ConnError::Reset)));
}

#[test]
fn the_end_comes_behind_what_was_copied() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [0; 9];
    let step = while_waiting(&stream, &mut buf, RecvFlags::WAITALL, || {
        let frame = peer.segment(FIN.with(ACK), 0, b"abc");
        peer.seq = peer.seq.wrapping_add(4);
        world.receive([frame]);
    });
    assert_eq!((step, &buf[..3]), (Step::Done(3), b"abc".as_slice()));
    assert_eq!(read(&stream, 9).unwrap(), b"");
    assert_eq!(ways(&world), (1, 0));
}

#[test]
fn a_panic_takes_the_memory_back() {
    let (mut world, mut peer, stream) = connected();
    let mut buf = [7; 9];
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        while_waiting(&stream, &mut buf, RecvFlags::NONE, || panic!("while it lends"));
    }));
    assert!(panicked.is_err());
    world.receive([peer.data(b"abc")]);
    assert_eq!(buf, [7; 9]);
    assert_eq!(read(&stream, 9).unwrap(), b"abc");
}

#[test]
fn the_lcore_copies_so_much_and_queues_the_rest() {
    let rmem = 4 << 20;
    let (mut world, mut peer, stream) = connected_with(Settings {
        tcp_low_latency: true,
        tcp_rmem: [4096, rmem, rmem],
        ..Settings::default()
    });
    let full = [1; 1460];
    while stream.lock().connection().offered_window() < 100_000 {
        world.receive([peer.data(&full), peer.data(&full)]);
        read(&stream, 9000).unwrap();
    }
    let (direct, queued) = ways(&world);
    assert_eq!(direct, 0, "nobody has waited");
    let mut buf = vec![0; 100_000];
    let step = while_waiting(&stream, &mut buf, RecvFlags::NONE, || {
        let burst: Vec<_> = (0..10).map(|n| peer.data(&[n; 8000])).collect();
        world.receive(burst);
    });
    // Whole, that is 80,000 bytes; 64 KiB are eight segments and part of the ninth.
    assert_eq!(step, Step::Done(80_000));
    assert!(buf[..80_000].iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 8000));
    assert_eq!(world.count(Counter::DirectCopiedBytes), 65_536);
    assert_eq!(ways(&world), (9, queued + 2));
}

#[test]
fn of_two_calls_one_lends() {
    let (mut world, mut peer, stream) = connected();
    let (mut first, mut second) = ([7; 4], [7; 4]);
    let mut waits = call(&stream, &mut second, RecvFlags::NONE);
    let step = while_waiting(&stream, &mut first, RecvFlags::NONE, || {
        assert!(matches!(waits.step(Instant::ZERO), Step::Sleep(_)));
        waits.lending(|| world.receive([peer.data(b"abcdef")]));
        assert_eq!(waits.step(Instant::ZERO), Step::Done(2), "what did not fit");
    });
    drop(waits);
    assert_eq!(step, Step::Done(4));
    assert_eq!((&first, &second[..2]), (b"abcd", b"ef".as_slice()));
}

#[test]
fn a_switch_while_data_is_in_the_ring_loses_and_reorders_nothing() {
    let (mut world, mut peer, stream) = connected_with(Settings::default());
    let mut buf = [0; 6];
    let mut call = call(&stream, &mut buf, RecvFlags::WAITALL);
    assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)));
    world.receive([peer.data(b"a"), peer.data(b"b")]);
    assert_eq!(world.count(Counter::ToPrequeue), 2);
    stream.set_low_latency(true);
    assert!(stream.is_low_latency());
    world.receive([peer.data(b"c")]);
    assert_eq!(world.count(Counter::ToPrequeue), 2, "the ring has gone at once");
    assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)));
    call.lending(|| world.receive([peer.data(b"d")]));
    stream.set_low_latency(false);
    world.receive([peer.data(b"e")]);
    assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)));
    world.receive([peer.data(b"f")]);
    assert_eq!(call.step(Instant::ZERO), Step::Done(6));
    drop(call);
    assert_eq!(&buf, b"abcdef");
    let count = |counter| world.count(counter);
    assert_eq!(count(Counter::ToPrequeue), 3);
    assert_eq!((count(Counter::DirectCopies), count(Counter::ToReceiveQueue)), (1, 2));
}

#[test]
fn an_exclusive_reader_gives_up_its_ring() {
    let (mut world, mut peer, mut stream) = connected_with(Settings::default());
    let switch = stream.try_clone().unwrap();
    let mut reader = stream.reader().unwrap();
    world.receive([peer.data(b"abc")]);
    // The reader has the token: it will see by itself.
    switch.set_low_latency(true);
    world.receive([peer.data(b"def")]);
    assert_eq!(world.count(Counter::ToPrequeue), 2);
    let mut buf = [0; 4];
    assert_eq!(reader.recv(&mut buf, RecvFlags::DONTWAIT).unwrap(), 4);
    assert_eq!(reader.recv(&mut buf[2..], RecvFlags::WAITALL).unwrap(), 2);
    let error = reader.recv(&mut buf, RecvFlags::DONTWAIT).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    world.receive([peer.data(b"ghi")]);
    assert_eq!(world.count(Counter::ToPrequeue), 2, "the ring was found empty and removed");
    assert_eq!(reader.recv(&mut buf, RecvFlags::DONTWAIT).unwrap(), 3);
    drop(reader);
    drop(stream);
}
