//! Run to completion: reads that poll until there is what they want, and options of streams and
//! listeners.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSliceMut, Read};
use std::num::NonZeroU8;

use crate::socket::{LocalListener, LocalStream, RecvFlags};
use crate::tcp::tcb::{KeepAlive, Linger2};

use super::local::Own;
use super::*;

const URG: Flags = Flags::URG;

/// Time that passes with each poll.
const TICK: Duration = Duration::from_millis(10);

fn connected() -> (Own, LocalListener<HeapBuf>, Peer, LocalStream<HeapBuf>) {
    let mut own = Own::new(131_072);
    let listener = own.listen(5);
    let (peer, stream) = own.connected(&listener);
    (own, listener, peer, stream)
}

/// Polls, each of which brings what was sent in the meantime.
struct Polls {
    own: Own,
    bursts: VecDeque<Vec<Vec<u8>>>,
    polled: u32,
}

impl Polls {
    fn new(own: Own) -> Self {
        Self { own, bursts: VecDeque::new(), polled: 0 }
    }

    /// What the next polls bring, and that they were all made when this is called again.
    fn next<const N: usize>(&mut self, bursts: [&[Vec<u8>]; N]) {
        assert!(self.bursts.is_empty(), "it has not polled for all");
        self.bursts = bursts.map(<[_]>::to_vec).into();
        self.polled = 0;
    }

    fn poll(&mut self) -> Instant {
        self.own.now = self.own.now + TICK;
        self.own.poll(self.bursts.pop_front().unwrap_or_default());
        self.polled += 1;
        assert!(self.polled < 1000, "it would poll for ever");
        self.own.now
    }
}

#[test]
fn a_read_polls_until_there_is_what_it_wants() {
    let (own, _listener, mut peer, mut stream) = connected();
    let mut polls = Polls::new(own);
    let mut buf = [0; 6];
    polls.next([&[], &[peer.data(b"ab")]]);
    assert_eq!(stream.polling(|| polls.poll()).recv(&mut buf, RecvFlags::NONE).unwrap(), 2);
    polls.next([&[peer.data(b"cd")], &[], &[peer.data(b"e"), peer.data(b"fghi")]]);
    assert_eq!(stream.polling(|| polls.poll()).recv(&mut buf, RecvFlags::WAITALL).unwrap(), 6);
    assert_eq!(&buf, b"cdefgh");
    // What is there is read without a poll.
    polls.next([]);
    assert_eq!(stream.polling(|| polls.poll()).read(&mut buf).unwrap(), 1);
    assert_eq!(polls.polled, 0);
    stream.set_receive_low_water(3).unwrap();
    polls.next([&[peer.data(b"jk")], &[peer.data(b"lm")]]);
    assert_eq!(stream.polling(|| polls.poll()).read(&mut buf).unwrap(), 4);
    // With the end of the stream nothing more is waited for.
    polls.next([&[peer.data(b"n")], &[peer.fin()]]);
    assert_eq!(stream.polling(|| polls.poll()).recv(&mut buf, RecvFlags::WAITALL).unwrap(), 1);
    polls.next([]);
    assert_eq!(stream.polling(|| polls.poll()).read(&mut buf).unwrap(), 0);
}

#[test]
fn every_way_to_read_waits_by_polling() {
    let (own, _listener, mut peer, mut stream) = connected();
    let mut polls = Polls::new(own);
    let (mut head, mut tail) = ([0; 2], [0; 9]);
    polls.next([&[], &[peer.data(b"abcde")]]);
    assert_eq!(stream.polling(|| polls.poll()).peek(&mut tail).unwrap(), 5);
    let mut bufs = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
    polls.next([&[peer.data(b"fg")], &[peer.data(b"hijklm")]]);
    let mut reads = stream.polling(|| polls.poll());
    let received = reads.recv_message(&mut bufs, RecvFlags::WAITALL).unwrap();
    assert_eq!((received.len, received.left), (11, 2));
    assert_eq!(reads.discard(2, RecvFlags::NONE).unwrap(), 2);
    assert_eq!((&head, &tail), (b"ab", b"cdefghijk"));

    polls.next([&[], &[], &[peer.data(b"in place")]]);
    assert!(stream.polling(|| polls.poll()).wait().unwrap());
    assert_eq!(&**stream.segments().unwrap().next_segment().as_ref().unwrap(), b"in place");
    polls.next([&[], &[peer.fin()]]);
    assert!(!stream.polling(|| polls.poll()).wait().unwrap());

    // And without waiting.
    assert_eq!(stream.recv_vectored(&mut [], RecvFlags::NONE).unwrap(), 0);
    let received = stream.recv_message(&mut [], RecvFlags::NONE).unwrap();
    assert_eq!((received.len, received.left), (0, 1), "the end is left to be learnt");
}

#[test]
fn what_is_there_can_be_read_in_every_way_without_a_poll() {
    let (mut own, _listener, mut peer, mut stream) = connected();
    let (mut head, mut tail) = ([0; 2], [0; 2]);
    assert_eq!(stream.discard(1, RecvFlags::NONE).unwrap_err().kind(), ErrorKind::WouldBlock);
    own.poll([peer.data(b"abcdefgh")]);
    assert_eq!(stream.peek(&mut head).unwrap(), 2);
    assert_eq!(stream.discard(1, RecvFlags::NONE).unwrap(), 1);
    let mut bufs = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
    assert_eq!(stream.recv_vectored(&mut bufs, RecvFlags::NONE).unwrap(), 4);
    let received = stream.recv_message(&mut bufs, RecvFlags::WAITALL).unwrap();
    assert_eq!((received.len, received.left), (3, 0));
    assert_eq!((&head, &tail), (b"fg", b"he"));
    assert_eq!(stream.readable(), 0);
}

#[test]
fn a_read_that_polls_ends_with_its_time_limit_the_connection_or_at_once() {
    let (own, _listener, mut peer, mut stream) = connected();
    let mut polls = Polls::new(own);
    let mut buf = [0; 6];
    assert_eq!(
        stream.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    stream.set_read_timeout(Some(5 * TICK / 2)).unwrap();
    let would_block = |result: std::io::Result<usize>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
    };
    would_block(stream.polling(|| polls.poll()).read(&mut buf));
    assert_eq!(polls.polled, 4, "one to learn the time, and three of ten milliseconds");
    polls.next([&[], &[peer.data(b"ab")]]);
    assert_eq!(stream.polling(|| polls.poll()).recv(&mut buf, RecvFlags::WAITALL).unwrap(), 2);
    assert_eq!(polls.polled, 4);
    polls.next([]);
    would_block(stream.polling(|| polls.poll()).recv(&mut buf, RecvFlags::DONTWAIT));
    stream.set_nonblocking(true).unwrap();
    would_block(stream.polling(|| polls.poll()).read(&mut buf));
    assert_eq!(polls.polled, 0);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(None).unwrap();
    polls.next([&[], &[peer.data(b"cd")], &[peer.segment(RST, 0, b"")]]);
    let mut reads = stream.polling(|| polls.poll());
    assert_eq!(reads.recv(&mut buf, RecvFlags::WAITALL).unwrap(), 2);
    assert_eq!(reads.read(&mut buf).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(reads.read(&mut buf).unwrap(), 0);
}

#[test]
fn accepting_polls_for_as_long_as_it_may() {
    let mut own = Own::new(131_072);
    let listener = own.listen(5);
    let mut polls = Polls::new(own);
    listener.set_accept_timeout(Some(2 * TICK));
    let error = listener.accept_polling(|| polls.poll()).unwrap_err();
    assert_eq!((error.kind(), polls.polled), (ErrorKind::WouldBlock, 3));
    listener.set_accept_timeout(None);
    let mut peer = Peer::new(5000);
    polls.next([&[], &[peer.syn()]]);
    let mut polled = 0;
    let accepted = listener.accept_polling(|| {
        polled += 1;
        let now = polls.poll();
        if let Some(segment) = polls.own.sent() {
            peer.seq += 1;
            peer.ack = segment.seq.wrapping_add(1);
            polls.bursts.push_back(vec![peer.ack()]);
        }
        now
    });
    assert_eq!((accepted.unwrap().1.port(), polled), (5000, 3));
}

#[test]
fn options_of_a_stream_are_those_of_one_that_threads_share() {
    let (mut own, _listener, mut peer, stream) = connected();
    stream.set_receive_buffer(10_000).unwrap();
    assert_eq!(stream.receive_buffer().unwrap(), 20_000);
    stream.set_window_clamp(1_000_000).unwrap();
    assert_eq!(stream.window_clamp().unwrap(), 1_000_000);
    assert_eq!(stream.set_window_clamp(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    stream.set_user_timeout(Some(Duration::from_secs(9))).unwrap();
    assert_eq!(stream.user_timeout().unwrap(), Some(Duration::from_secs(9)));
    stream.set_linger2(Linger2::Reset).unwrap();
    assert_eq!(stream.linger2().unwrap(), Linger2::Reset);
    stream.set_peek_offset(Some(2));
    stream.set_out_of_band_inline(true);
    assert!(stream.out_of_band_inline());
    stream.set_tos(0x20).unwrap();
    stream.set_ttl(NonZeroU8::new(9)).unwrap();
    stream.set_quickack(true).unwrap();
    assert!(stream.quickack().unwrap());
    own.sent.clear();
    own.poll([peer.data(b"abc")]);
    let ack = own.sent.pop_front().expect("at once");
    assert_eq!((ack[15], ack[22]), (0x20, 9), "TOS and TTL of the IPv4 header");
    let mut stream = stream;
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
    assert_eq!(stream.peek_offset(), Some(3));
}

#[test]
fn a_silent_peer_is_probed_and_given_up() {
    let (mut own, _listener, _peer, mut stream) = connected();
    let second = Duration::from_secs(1);
    let keepalive = KeepAlive { idle: Some(5 * second), interval: Some(second), probes: Some(2) };
    stream.set_keepalive(Some(keepalive)).unwrap();
    assert_eq!(stream.keepalive().unwrap(), Some(keepalive));
    own.sent.clear();
    let mut probes = 0;
    for _ in 0..100 {
        own.now = own.now + Duration::from_millis(100);
        own.poll([]);
        while let Some(sent) = own.sent() {
            probes += u32::from(!sent.flags.has(RST));
        }
    }
    assert_eq!(probes, 2);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn urgent_data_is_met_as_by_threads() {
    let (mut own, _listener, mut peer, mut stream) = connected();
    // With a pointer of zero the urgent byte is the first.
    own.poll([peer.data(b"ab"), peer.segment(ACK.with(URG), 0, b"cd")]);
    let mut buf = [0; 9];
    assert_eq!(stream.readable(), 2, "up to the urgent byte");
    assert_eq!(stream.read(&mut buf).unwrap(), 2);
    assert!(stream.is_at_mark());
    let received = stream.recv_message(&mut [IoSliceMut::new(&mut buf)], RecvFlags::OOB).unwrap();
    assert!(received.len == 1 && received.urgent && buf[0] == b'c');
    assert_eq!(stream.read(&mut buf).unwrap(), 1);
    assert_eq!(buf[0], b'd');
    assert!(!stream.is_at_mark());
}

#[test]
fn a_listener_defers_and_repeats_as_it_is_told() {
    let mut own = Own::new(131_072);
    let listener = own.listen(5);
    listener.set_deferaccept(Duration::from_secs(3));
    assert_eq!(listener.deferaccept(), Duration::from_secs(3));
    let mut peer = own.connect(5000);
    assert!(listener.accept().is_err(), "it has brought nothing");
    own.poll([peer.data(b"hello")]);
    let (mut stream, _) = listener.accept().expect("it has now");
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 5);

    listener.set_syncnt(NonZeroU8::new(2));
    assert_eq!(listener.syncnt(), NonZeroU8::new(2));
    own.poll([]);
    own.sent.clear();
    own.poll([Peer::new(5001).syn()]);
    for _ in 0..100 {
        own.now = own.now + Duration::from_secs(1);
        own.poll([]);
    }
    let syn_acks = std::iter::from_fn(|| own.sent()).filter(|sent| sent.flags.has(SYN)).count();
    assert_eq!(syn_acks, 3);
}
