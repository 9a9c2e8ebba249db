//! Run to completion: the thread that polls reads in place.

use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind, Read};
use std::rc::Rc;

use proptest::prelude::*;

use crate::buf::HeapSpare;
use crate::socket::{Local, LocalListener, LocalSocket, LocalStream, RecvFlags, Slice};

use super::*;

/// An engine of our own, and its wire.
pub(super) struct Own {
    engine: Engine<HeapBuf, Local>,
    listeners: Listeners<HeapBuf, Local>,
    pub(super) now: Instant,
    pub(super) sent: VecDeque<Vec<u8>>,
    /// Shift of the windows that it offers.
    shift: u8,
}

impl Own {
    pub(super) fn new(rcvbuf: u32) -> Self {
        let config = EngineConfig {
            settings: Settings { tcp_rmem: [4096, rcvbuf, 1 << 25], ..Settings::default() },
            interface: Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24),
            secret: Secret::from_seed(1),
            key: HashKey::new([3, 4]),
            max_connections: 100,
        };
        let (engine, listeners) = local_engine(&config);
        let now = Instant::from_millis(1000);
        Self { engine, listeners, now, sent: VecDeque::new(), shift: 0 }
    }

    pub(super) fn listen(&mut self, backlog: u32) -> LocalListener<HeapBuf> {
        let queue = self.listeners.listen(PORT, backlog).expect("nobody listens yet");
        self.poll([]);
        LocalListener::new(queue, SocketAddrV4::new(OUR_ADDR, PORT))
    }

    pub(super) fn poll(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut tx = Vec::new();
        let mut burst: Vec<_> =
            frames.into_iter().map(|frame| Some(HeapBuf::new(&frame))).collect();
        let news = News { addr: PEER_ADDR.into(), mac: PEER_MAC };
        self.engine.learn_neighbour(news, self.now, &mut tx);
        self.engine.input(&mut burst, self.now, &mut tx);
        while self.engine.turn(self.now, &mut tx) {}
        self.sent.extend(tx);
    }

    pub(super) fn relieve(&mut self, spare: &mut HeapSpare) -> u32 {
        let mut tx = Vec::new();
        let won = self.engine.relieve(self.now, &mut tx, spare);
        self.sent.extend(tx);
        won
    }

    pub(super) fn holders(&mut self) -> Vec<Holder> {
        let mut scan = HolderScan::default();
        loop {
            if let Some(holders) = self.engine.find_holders(&mut scan) {
                return holders;
            }
        }
    }

    pub(super) fn sent(&mut self) -> Option<Segment> {
        let frame = self.sent.pop_front()?;
        Some(parse_tcp(&frame, Default::default()).expect("a segment").segment)
    }

    /// The last segment that was sent; all others are forgotten.
    pub(super) fn last_sent(&mut self) -> Segment {
        std::iter::from_fn(|| self.sent()).last().expect("a segment should have been sent")
    }

    pub(super) fn connect(&mut self, port: u16) -> Peer {
        let mut peer = Peer::new(port);
        self.poll([peer.syn()]);
        let frame = self.sent.pop_front().expect("a SYN-ACK");
        let TcpFrame { segment: syn_ack, header, payload, .. } =
            parse_tcp(&frame, Default::default()).expect("a segment");
        let options = tcp::syn_options(&frame[usize::from(header)..usize::from(payload)]);
        self.shift = options.window_scale.expect("scaling was asked for");
        assert_eq!(syn_ack.flags, SYN.with(ACK));
        peer.seq += 1;
        peer.ack = syn_ack.seq.wrapping_add(1);
        self.poll([peer.ack()]);
        peer
    }

    pub(super) fn connected(
        &mut self,
        listener: &LocalListener<HeapBuf>,
    ) -> (Peer, LocalStream<HeapBuf>) {
        let peer = self.connect(5000);
        let (stream, addr) = listener.accept().expect("the connection waits");
        assert_eq!(addr.port(), 5000);
        (peer, stream)
    }
}

/// The stream that peers send.
fn byte_at(offset: usize) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte_at).collect()
}

#[test]
fn what_a_poll_brings_can_be_read_in_every_way() {
    let mut own = Own::new(131_072);
    let listener = own.listen(5);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let (mut peer, mut stream) = own.connected(&listener);
    assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(stream.segments().unwrap_err().kind(), ErrorKind::WouldBlock);

    own.poll([peer.data(b"copied"), peer.data(b"lent"), peer.data(b"in part"), peer.data(b"\nx")]);
    assert_eq!(own.engine.home().next_ready(), Some(stream.id()));
    assert_eq!(own.engine.home().next_ready(), None);
    assert_eq!(stream.readable(), 6 + 4 + 7 + 2);
    let mut buf = [0; 6];
    assert_eq!(stream.recv(&mut buf, RecvFlags::PEEK).unwrap(), 6);
    assert_eq!(stream.read(&mut buf).unwrap(), 6);
    assert_eq!(&buf, b"copied");
    let looked_at: Vec<_> = stream.peek_segments().unwrap().map(|view| view.data().len()).collect();
    assert_eq!(looked_at, [4, 7, 2]);
    {
        let mut segments = stream.segments().unwrap();
        let segment = segments.next_segment().unwrap();
        assert_eq!(&*segment, b"lent");
        assert_eq!(segment.view().burst_time(), own.now);
        // Polling goes on while bytes are lent.
        own.poll([peer.data(b"y\n")]);
        assert_eq!(&*segment, b"lent");
        drop(segment);
        segments.next_segment().unwrap().consume(3);
    }
    assert_eq!(stream.readable(), 4 + 2 + 2);
    let mut line = String::new();
    assert_eq!(stream.read_line(&mut line).unwrap(), 5);
    assert_eq!(line, "part\n");
    line.clear();
    assert_eq!(stream.read_line(&mut line).unwrap(), 3);
    assert_eq!(line, "xy\n");
    assert_eq!(stream.read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);

    own.poll([peer.fin()]);
    assert_eq!(own.engine.home().next_ready(), Some(stream.id()));
    assert!(stream.segments().unwrap().is_end());
    assert_eq!(stream.read(&mut buf).unwrap(), 0);
    own.sent.clear();
    drop(stream);
    own.poll([]);
    assert!(own.last_sent().flags.has(FIN), "all was read: closed in order");
}

#[test]
fn what_is_read_in_part_and_what_is_queued_are_copied_together_but_not_what_is_lent() {
    let mut own = Own::new(1 << 20);
    let listener = own.listen(5);
    let (mut peer, mut stream) = own.connected(&listener);
    for i in 0..100 {
        own.poll([peer.data(&bytes(300 * i, 300))]);
    }
    let mut one = [0];
    assert_eq!(stream.read(&mut one).unwrap(), 1);
    for i in 100..150 {
        own.poll([peer.data(&bytes(300 * i, 300))]);
    }
    let queues = own.holders()[0].queues.unwrap();
    assert_eq!((queues.receive_queue, queues.with_readers), (50, 29_999));
    let mut spare = HeapSpare { small: 1000, large: 1000 };
    let before = own.holders()[0].rmem;
    {
        let mut segments = stream.segments().unwrap();
        let segment = segments.next_segment().unwrap();
        assert_eq!(own.relieve(&mut spare), 0, "all of it is with the stream");
        assert_eq!(&*segment, bytes(1, 299));
    }
    for i in 150..170 {
        own.poll([peer.data(&bytes(300 * i, 300))]);
    }
    let mut rest = vec![0; 100_000];
    assert_eq!(stream.recv(&mut rest, RecvFlags::PEEK).unwrap(), 170 * 300 - 300);
    assert_eq!(own.relieve(&mut spare), 162, "the last seven are better left as they are");
    assert!(own.holders()[0].rmem < before / 3);
    assert_eq!(stream.read(&mut rest).unwrap(), 170 * 300 - 300);
    assert_eq!(rest[..170 * 300 - 300], bytes(300, 170 * 300 - 300));
    // What is freed is uncharged as what it was copied to, to the last byte.
    own.poll([peer.data(b"x")]);
    assert_eq!(stream.read(&mut rest).unwrap(), 1);
    own.poll([]);
    own.poll([peer.ack()]);
    assert!(own.holders().is_empty());
}

#[test]
fn a_connection_is_given_again_as_long_as_reading_it_leaves_something() {
    let mut own = Own::new(131_072);
    let listener = own.listen(5);
    let mut peer = own.connect(5000);
    own.poll([peer.data(b"before"), peer.data(b"it is accepted"), peer.fin()]);
    assert_eq!(own.engine.home().next_ready(), None, "nobody has it yet");
    let (mut stream, _) = listener.accept().unwrap();
    let next = || own.engine.home().next_ready();
    let mut buf = [0; 10];
    for expected in [10, 10, 0] {
        assert_eq!(next(), Some(stream.id()));
        assert_eq!(next(), None);
        assert_eq!(stream.read(&mut buf).unwrap(), expected);
    }
    assert_eq!(next(), None, "the end is told once");
    assert_eq!(stream.read(&mut buf).unwrap(), 0);
}

#[test]
fn unread_data_resets_and_so_does_a_closed_listener() {
    let mut own = Own::new(131_072);
    let listener = own.listen(5);
    let (mut peer, mut stream) = own.connected(&listener);
    own.poll([peer.data(b"read"), peer.data(b"unread")]);
    {
        let mut segments = stream.segments().unwrap();
        assert_eq!(&*segments.next_segment().unwrap(), b"read");
    }
    drop(stream);
    own.sent.clear();
    own.poll([]);
    assert!(own.last_sent().flags.has(RST));

    let peer = own.connect(5001);
    drop(listener);
    own.poll([]);
    let rst = own.last_sent();
    assert!(rst.flags.has(RST));
    assert_eq!(rst.seq, peer.ack);
    assert_eq!(own.engine.population().sockets, 0);
    own.poll([Peer::new(5002).syn()]);
    assert!(own.last_sent().flags.has(RST), "nobody listens there any more");
}

#[test]
fn errors_come_once_and_behind_the_data() {
    let mut own = Own::new(131_072);
    let listener = own.listen(5);
    let (mut peer, mut stream) = own.connected(&listener);
    own.poll([peer.data(b"data"), peer.segment(RST, 0, &[])]);
    let mut buf = [0; 9];
    assert_eq!(stream.read(&mut buf).unwrap(), 4);
    assert_eq!(stream.read(&mut buf).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(stream.read(&mut buf).unwrap(), 0);
    drop(stream);

    let (mut peer, mut stream) = own.connected(&listener);
    own.poll([peer.data(b"data")]);
    own.engine.stop();
    assert_eq!(stream.read(&mut buf).unwrap(), 4);
    assert_eq!(stream.read(&mut buf).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[test]
fn the_backlog_bounds_those_that_wait() {
    let mut own = Own::new(131_072);
    let listener = own.listen(1);
    own.connect(5000);
    own.connect(5001);
    assert_eq!(listener.waiting(), 2);
    let peer = Peer::new(5002);
    own.poll([peer.syn()]);
    assert_eq!(own.sent(), None, "there is no room");
    drop(listener.accept().unwrap());
    assert_eq!(listener.waiting(), 1);
    own.poll([]);
    own.sent.clear();
    own.poll([peer.syn()]);
    assert!(own.last_sent().flags.has(SYN));
}

#[test]
fn held_slices_close_the_window_and_dropping_them_opens_it() {
    let mut own = Own::new(60_000);
    let listener = own.listen(5);
    let (mut peer, mut stream) = own.connected(&listener);
    let shift = own.shift;
    let window = |segment: &Segment| u32::from(segment.window) << shift;
    let mut held: Vec<Slice<HeapBuf, Rc<LocalSocket<HeapBuf>>>> = Vec::new();
    let mut offset = 0;
    let mut last = u32::MAX;
    for _ in 0..100 {
        let before = peer;
        own.poll([peer.data(&bytes(offset, 1000))]);
        if let Ok(mut segments) = stream.segments() {
            while let Some(segment) = segments.next_segment() {
                held.push(segment.into_slice());
            }
            offset += 1000;
        } else {
            peer = before;
        }
        own.now = own.now + Duration::from_millis(250);
        own.poll([]);
        if !own.sent.is_empty() {
            last = window(&own.last_sent());
        }
        if last < 1000 {
            break;
        }
    }
    assert!(last < 1000, "{} slices are held, and the window is {last}", held.len());
    let charge: u32 = held.iter().map(|slice| slice.view().truesize()).sum();
    assert_eq!(stream.charged(), charge);
    let all: Vec<u8> = held.iter().flat_map(|slice| slice.to_vec()).collect();
    assert_eq!(all, bytes(0, offset));
    drop(held);
    assert_eq!(stream.charged(), 0);
    own.poll([]);
    let update = own.last_sent();
    // Two segments, as in Linux after the buffer has overflowed; it grows again from there.
    assert!(window(&update) >= 2 * 1460, "a window of {}", window(&update));
    assert_eq!(update.ack, peer.seq);
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Segments of these lengths arrive, the second before the first.
    Arrive(usize, usize),
    Copy(usize),
    Lend(usize, usize),
    TakeOver(usize),
    Release(usize),
    Peek,
    BufRead(usize),
    InPlace,
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..1400_usize, 1..1400_usize).prop_map(|(a, b)| Event::Arrive(a, b)),
        1 => (1..300_usize, 1..300_usize).prop_map(|(a, b)| Event::Arrive(a, b)),
        1 => (1..3000_usize).prop_map(Event::Copy),
        1 => (0..5_usize, 0..1000_usize).prop_map(|(n, part)| Event::Lend(n, part)),
        1 => (0..5_usize).prop_map(Event::TakeOver),
        1 => (0..10_usize).prop_map(Event::Release),
        1 => Just(Event::Peek),
        1 => Just(Event::InPlace),
        1 => (1..1000_usize).prop_map(Event::BufRead),
        1 => (1..300_u64).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..120)
}

proptest! {
    #[test]
    fn every_byte_is_read_once_whatever_happens_in_between(events in events()) {
        let mut own = Own::new(131_072);
        let listener = own.listen(5);
        let (mut peer, mut stream) = own.connected(&listener);
        let mut held = VecDeque::new();
        let (mut arrived, mut read) = (0, 0);
        let mut open = 14_600;
        let mut lost = false;
        for event in events {
            match event {
                Event::Arrive(a, b) if a + b <= open => {
                    let first = peer.data(&bytes(arrived, a));
                    let second = peer.data(&bytes(arrived + a, b));
                    own.poll([second, first]);
                    // What was dropped for want of memory, and what is above it, comes again.
                    let now = read + stream.readable() as usize;
                    lost |= now != arrived + a + b;
                    peer.seq = peer.seq.wrapping_sub((arrived + a + b).wrapping_sub(now) as u32);
                    arrived = now;
                }
                Event::Arrive(..) => {}
                Event::Copy(n) => {
                    let mut buf = vec![0; n];
                    match stream.read(&mut buf) {
                        Ok(n) => {
                            prop_assert_eq!(&buf[..n], &bytes(read, n));
                            read += n;
                        }
                        Err(error) => {
                            prop_assert_eq!(error.kind(), ErrorKind::WouldBlock);
                            prop_assert_eq!(read, arrived);
                        }
                    }
                }
                Event::Lend(n, part) => {
                    let Ok(mut segments) = stream.segments() else { continue };
                    for _ in 0..n {
                        let Some(segment) = segments.next_segment() else { break };
                        prop_assert_eq!(&*segment, &bytes(read, segment.len()));
                        read += segment.len();
                    }
                    if let Some(segment) = segments.next_segment() {
                        let part = part.min(segment.len());
                        prop_assert_eq!(&segment[..part], &bytes(read, part));
                        read += part;
                        segment.consume(part);
                    }
                }
                Event::TakeOver(n) => {
                    let Ok(mut segments) = stream.segments() else { continue };
                    for _ in 0..n {
                        let Some(segment) = segments.next_segment() else { break };
                        held.push_back((read, segment.into_slice()));
                        read += held.back().map_or(0, |(_, slice)| slice.len());
                    }
                }
                Event::Release(n) => {
                    for (at, slice) in held.drain(..n.min(held.len())) {
                        prop_assert_eq!(&*slice, &bytes(at, slice.len()));
                    }
                }
                Event::Peek => {
                    let Ok(views) = stream.peek_segments() else { continue };
                    let all: Vec<u8> = views.flat_map(|view| view.data().to_vec()).collect();
                    prop_assert_eq!(&all, &bytes(read, arrived - read));
                }
                Event::InPlace => {
                    let mut all = Vec::new();
                    let n = stream.read_in_place(|view| all.extend_from_slice(view.data()));
                    prop_assert_eq!(n.unwrap_or(0), arrived - read);
                    prop_assert_eq!(&all, &bytes(read, arrived - read));
                    read = arrived;
                }
                Event::BufRead(n) => {
                    let Ok(bytes_there) = stream.fill_buf() else { continue };
                    let n = n.min(bytes_there.len());
                    prop_assert_eq!(&bytes_there[..n], &bytes(read, n));
                    stream.consume(n);
                    read += n;
                }
                Event::Wait(millis) => {
                    own.now = own.now + Duration::from_millis(millis);
                    own.poll([]);
                }
            }
            prop_assert_eq!(stream.readable() as usize, arrived - read);
            if let Some(last) = std::iter::from_fn(|| own.sent()).last() {
                let edge = last.ack.wrapping_add(u32::from(last.window) << own.shift);
                open = edge.wrapping_sub(peer.seq).min(1 << 20) as usize;
            }
        }
        held.clear();
        let mut rest = Vec::new();
        if lost {
            let more = stream.read_to_end(&mut rest);
            prop_assert_eq!(more.unwrap_err().kind(), ErrorKind::WouldBlock);
            own.now = own.now + Duration::from_secs(1);
            own.poll([]);
            own.poll([peer.data(&bytes(arrived, 1400))]);
            own.poll([peer.data(&bytes(arrived + 1400, 1400))]);
            arrived += 2800;
        }
        own.poll([peer.fin()]);
        stream.read_to_end(&mut rest).unwrap();
        prop_assert_eq!(rest, bytes(read, arrived - read));
        prop_assert_eq!(stream.charged(), 0);
    }
}
