//! The stage: who has sent what, what time it is, and what is still to be expected.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use prequeue::buf::Checksum;
use prequeue::tcp::Counter;
use prequeue::time::Instant;
use prequeue::wire::arp::{self, Arp, Operation};
use prequeue::wire::{Flags, MacAddr, ethernet, parse_tcp, tcp};

use super::segment::{End, Seg, Sent, Want, pattern};
use super::subject::{Conn, How, Received, Subject};

/// The subject's end of every connection. Port 7000 listens, with a backlog of 16.
const US: End = End { mac: crate::OUR_MAC, addr: crate::OUR_ADDR, port: 7000 };
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Peer number n sends from this port plus n.
const FIRST_PEER_PORT: u16 = 40_000;

/// A scripted peer: one four-tuple.
#[derive(Clone, Copy, Debug)]
struct Peer {
    irs: u32,
    /// Our initial sequence number, once a SYN-ACK has told it.
    iss: Option<u32>,
    /// The (relative) number that we send next.
    snd_nxt: u32,
    conn: Option<Conn>,
    /// The (relative) number of the next byte that the application reads.
    read_next: u32,
}

/// A scenario being played.
#[derive(Debug)]
pub struct Scene {
    subject: Box<dyn Subject>,
    now: Instant,
    port: u16,
    isn: u32,
    peers: Vec<Peer>,
    current: usize,
    sent: VecDeque<Sent>,
    trace: Vec<String>,
}

impl Scene {
    pub(super) fn new(name: &str, subject: Box<dyn Subject>, isn: u32) -> Self {
        let mut scene = Self {
            subject,
            // Not the origin: a stamp of zero must not be taken for "never".
            now: Instant::from_millis(10_000),
            port: US.port,
            isn,
            peers: Vec::new(),
            current: 0,
            sent: VecDeque::new(),
            trace: vec![format!("subject {name}, peer's initial sequence number {isn}")],
        };
        scene.subject.listen(US.port, 16, scene.now);
        scene.peer(0);
        scene
    }

    /// Whatever follows is between the subject and this peer; each has a port of its own.
    pub fn peer(&mut self, n: usize) -> &mut Self {
        while self.peers.len() <= n {
            let irs = self.isn.wrapping_add(0x0101_0101 * self.peers.len() as u32);
            self.peers.push(Peer { irs, iss: None, snd_nxt: 0, conn: None, read_next: 1 });
        }
        self.current = n;
        self
    }

    /// The peer opens the same four-tuple once more: its new 0 is `seq`, and ours is not known.
    ///
    /// Returns our old initial sequence number.
    pub fn reborn(&mut self, seq: u32) -> u32 {
        let peer = &mut self.peers[self.current];
        let old = peer.iss.expect("there was a first life");
        let irs = peer.irs.wrapping_add(seq);
        *peer = Peer { irs, iss: None, snd_nxt: 0, conn: None, read_next: 1 };
        old
    }

    /// Our initial sequence number, absolute.
    pub fn iss(&self) -> u32 {
        self.peers[self.current].iss.expect("a SYN-ACK was sent")
    }

    /// Whatever follows is sent to this port.
    pub fn aims_at(&mut self, port: u16) -> &mut Self {
        self.port = port;
        self
    }

    /// Listens on a further port.
    pub fn listen(&mut self, port: u16, backlog: i32) -> &mut Self {
        self.subject.listen(port, backlog, self.now);
        self.aims_at(port)
    }

    /// Completes a handshake without options but MSS, and accepts.
    #[track_caller]
    pub fn opens(&mut self) -> &mut Self {
        self.opens_with(super::syn())
    }

    /// Completes a handshake with this SYN, and accepts.
    #[track_caller]
    pub fn opens_with(&mut self, syn: Seg) -> &mut Self {
        self.send(syn).expect(super::syn_ack());
        self.send(super::ack(1)).accepts()
    }

    /// A segment arrives, alone in its burst.
    #[track_caller]
    pub fn send(&mut self, seg: Seg) -> &mut Self {
        self.send_burst(&[seg])
    }

    /// Segments arrive in one burst.
    #[track_caller]
    pub fn send_burst(&mut self, segs: &[Seg]) -> &mut Self {
        self.expect_nothing();
        let peer = self.peers[self.current];
        let from = self.peer_end();
        let to = End { port: self.port, ..US };
        let mut burst = Vec::new();
        for seg in segs {
            self.note("in ", seg);
            burst.push(seg.frame(&from, &to, peer.irs, peer.iss.unwrap_or(0)));
        }
        self.subject.input(&burst, self.now);
        self.pump();
        self
    }

    /// The next thing the subject has sent is this.
    #[track_caller]
    pub fn expect(&mut self, want: Want) -> &mut Self {
        let Some(sent) = self.sent.pop_front() else {
            self.fail(format!("nothing was sent, but expected: {want:?}"));
        };
        let port = self.peer_end().port;
        if sent.to_port != port {
            self.fail(format!("sent to port {}, not {port}: {sent}", sent.to_port));
        }
        let next = self.peers[self.current].snd_nxt;
        if let Some(complaint) = want.complaint(&sent, next) {
            self.fail(complaint);
        }
        if want.is_syn_ack() {
            self.peers[self.current].snd_nxt = 1;
        } else if sent.flags.has(Flags::FIN) {
            let peer = &mut self.peers[self.current];
            peer.snd_nxt = peer.snd_nxt.max(sent.seq + 1);
        }
        self
    }

    /// This is sent within the given number of milliseconds from now, and not before the first.
    #[track_caller]
    pub fn expect_after(&mut self, ms: RangeInclusive<u64>, want: Want) -> &mut Self {
        let waited = self.wait_for_output(*ms.end());
        if !ms.contains(&waited) && !self.sent.is_empty() {
            self.fail(format!("sent after {waited} ms, not {ms:?}"));
        }
        self.expect(want)
    }

    /// Nothing (more) was sent.
    #[track_caller]
    pub fn expect_nothing(&mut self) -> &mut Self {
        if let Some(sent) = self.sent.front() {
            self.fail(format!("not expected: {sent}"));
        }
        self
    }

    /// Whether something was sent that is still to be expected.
    pub fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Sends full segments from number `seq` on until the window is closed, taking every ACK.
    ///
    /// Returns the first number that the window has no room for. Checks that the window's right
    /// edge never moves back. The connection must not have agreed on window scaling.
    #[track_caller]
    pub fn fills_the_window(&mut self, mut seq: u32) -> u32 {
        let mut edge = None;
        for _ in 0..1000 {
            let room = edge.map_or(1460, |edge: u32| edge - seq).min(1460);
            if room == 0 {
                return seq;
            }
            self.send(super::data(seq, room));
            seq += room;
            self.wait_for_output(500);
            let Some(sent) = self.sent.front() else { self.fail("never acknowledged") };
            let next_edge = sent.ack + u32::from(sent.window);
            if edge.is_some_and(|edge| next_edge < edge) {
                self.fail(format!("the right edge moved back from {edge:?}"));
            }
            edge = Some(next_edge);
            self.expect(super::acks(seq));
        }
        self.fail("the window never closes");
    }

    /// The subject has sent a pure ACK: returns its window.
    #[track_caller]
    pub fn window_update(&mut self) -> u16 {
        let Some(sent) = self.sent.pop_front() else { self.fail("no window update") };
        if sent.flags != Flags::ACK {
            self.fail(format!("no window update: {sent}"));
        }
        sent.window
    }

    /// Lets time pass, takes whatever is sent in it, and says how much that was.
    pub fn outputs_within(&mut self, ms: u64) -> usize {
        let end = self.now + Duration::from_millis(ms);
        let mut outputs = 0;
        while self.now < end {
            self.wait_for_output(1);
            outputs += self.sent.drain(..).count();
        }
        outputs
    }

    /// Time passes, in which nothing is sent.
    #[track_caller]
    pub fn wait(&mut self, ms: u64) -> &mut Self {
        self.expect_nothing();
        self.wait_for_output(ms);
        self.expect_nothing()
    }

    /// The application accepts the connection of the current peer.
    #[track_caller]
    pub fn accepts(&mut self) -> &mut Self {
        let Some((conn, port)) = self.subject.accept(self.port) else {
            self.fail("no connection to accept");
        };
        self.note("app", &"accept");
        if port != self.peer_end().port {
            self.fail(format!("accepted the connection from port {port}"));
        }
        self.peers[self.current].conn = Some(conn);
        self
    }

    /// There is no connection to accept.
    #[track_caller]
    pub fn accepts_nothing(&mut self) -> &mut Self {
        if let Some((_, port)) = self.subject.accept(self.port) {
            self.fail(format!("accepted a connection from port {port}"));
        }
        self
    }

    /// One read gives exactly the peer's bytes with these numbers.
    #[track_caller]
    pub fn reads(&mut self, seqs: Range<u32>) -> &mut Self {
        self.reads_up_to(1 << 20, seqs)
    }

    /// One read with room for `room` bytes gives exactly the peer's bytes with these numbers.
    #[track_caller]
    pub fn reads_up_to(&mut self, room: usize, seqs: Range<u32>) -> &mut Self {
        let expected: Vec<u8> = seqs.clone().map(pattern).collect();
        if seqs.start != self.peers[self.current].read_next {
            self.fail(format!("the script skips bytes: {seqs:?}"));
        }
        self.reads_bytes(room, &expected)
    }

    /// One read with room for `room` bytes gives exactly these.
    #[track_caller]
    pub fn reads_bytes(&mut self, room: usize, expected: &[u8]) -> &mut Self {
        let mut into = vec![0; room];
        match self.recv(&mut into) {
            Received::Bytes(n) if n == expected.len() && into[..n] == *expected => {}
            Received::Bytes(n) if n == expected.len() => {
                let at = into.iter().zip(expected).position(|(a, b)| a != b);
                self.fail(format!("read {n} bytes, the first wrong one at {at:?}"));
            }
            other => self.fail(format!("read {other:?}, not {} bytes", expected.len())),
        }
        self.peers[self.current].read_next += expected.len() as u32;
        self
    }

    /// A read would block.
    #[track_caller]
    pub fn reads_nothing(&mut self) -> &mut Self {
        self.reads_as(Received::WouldBlock)
    }

    /// A read finds the end of the stream.
    #[track_caller]
    pub fn reads_eof(&mut self) -> &mut Self {
        self.reads_as(Received::Eof)
    }

    /// A read fails like this.
    #[track_caller]
    pub fn reads_error(&mut self, kind: ErrorKind) -> &mut Self {
        self.reads_as(Received::Failed(kind))
    }

    /// The application shuts down.
    #[track_caller]
    pub fn shuts_down(&mut self, how: How) -> &mut Self {
        self.expect_nothing();
        self.note("app", &format!("shutdown {how:?}"));
        let conn = self.conn();
        self.subject.shutdown(conn, how, self.now);
        self.pump();
        self
    }

    /// The application closes.
    #[track_caller]
    pub fn closes(&mut self) -> &mut Self {
        self.close(false)
    }

    /// The application closes with SO_LINGER on and zero.
    #[track_caller]
    pub fn aborts(&mut self) -> &mut Self {
        self.close(true)
    }

    /// A counter has this value.
    #[track_caller]
    pub fn counted(&mut self, counter: Counter, n: u64) -> &mut Self {
        let count = self.subject.count(counter);
        if count != n {
            self.fail(format!("{} is {count}, not {n}", counter.name()));
        }
        self
    }

    /// The play is over: nothing unexpected is left.
    #[track_caller]
    pub(super) fn ends(&mut self) {
        self.expect_nothing();
    }

    #[track_caller]
    fn close(&mut self, linger_zero: bool) -> &mut Self {
        self.expect_nothing();
        self.note("app", &format!("close, linger zero: {linger_zero}"));
        let conn = self.conn();
        self.subject.close(conn, linger_zero, self.now);
        self.pump();
        self
    }

    #[track_caller]
    fn reads_as(&mut self, expected: Received) -> &mut Self {
        let received = self.recv(&mut [0; 4096]);
        if received != expected {
            self.fail(format!("read {received:?}, not {expected:?}"));
        }
        self
    }

    #[track_caller]
    fn recv(&mut self, into: &mut [u8]) -> Received {
        self.expect_nothing();
        let conn = self.conn();
        let received = self.subject.recv(conn, into, self.now);
        self.note("app", &format!("recv {}: {received:?}", into.len()));
        self.pump();
        received
    }

    #[track_caller]
    fn conn(&self) -> Conn {
        match self.peers[self.current].conn {
            Some(conn) => conn,
            None => self.fail("the connection was not accepted"),
        }
    }

    fn peer_end(&self) -> End {
        let port = FIRST_PEER_PORT + self.current as u16;
        End { mac: PEER_MAC, addr: PEER_ADDR, port }
    }

    /// Lets time pass until something is sent; returns how many whole milliseconds that took.
    ///
    /// Time goes from one deadline of the subject to the next, so that a deadline which it does not
    /// tell is one that passes unheeded.
    fn wait_for_output(&mut self, at_most_ms: u64) -> u64 {
        let start = self.now;
        let end = start + Duration::from_millis(at_most_ms);
        while self.sent.is_empty() && self.now < end {
            let due = self.subject.next_deadline().unwrap_or(end);
            // A deadline that is still in the past has been looked at and was not served.
            self.now = due.max(self.now + Duration::from_micros(100)).min(end);
            self.subject.advance(self.now);
            self.pump();
        }
        self.now.since(start).as_millis() as u64
    }

    /// Takes what the subject has sent, and answers what the peer's host answers by itself.
    #[track_caller]
    fn pump(&mut self) {
        while let Some(frame) = self.subject.output() {
            let Some(ethernet) = ethernet::parse(&frame) else {
                self.fail(format!("sent a frame of {} bytes", frame.len()));
            };
            let packet = &frame[ethernet.header_len..];
            match ethernet.ethertype {
                ethernet::ARP => self.answer_arp(packet),
                _ => self.take(&frame),
            }
        }
    }

    #[track_caller]
    fn answer_arp(&mut self, packet: &[u8]) {
        let Some(arp) = arp::parse(packet) else { self.fail("sent a malformed ARP packet") };
        if (arp.operation, arp.target_addr) != (Operation::Request, PEER_ADDR) {
            return;
        }
        let Arp { sender_mac, .. } = arp;
        let mut reply = vec![0; 60];
        let at = ethernet::emit(&mut reply, sender_mac, PEER_MAC, None, ethernet::ARP);
        arp::emit(&mut reply[at..], &arp.reply(PEER_MAC));
        self.subject.input(&[reply], self.now);
    }

    #[track_caller]
    fn take(&mut self, frame: &[u8]) {
        let parsed = match parse_tcp(frame, Checksum::Unknown) {
            Ok(parsed) => parsed,
            Err(reject) => self.fail(format!("sent a bad frame: {reject:?}")),
        };
        let tuple = parsed.tuple;
        let to_us =
            (tuple.remote_addr, tuple.local_addr) == (IpAddr::V4(US.addr), IpAddr::V4(PEER_ADDR));
        let n = tuple.local_port.wrapping_sub(FIRST_PEER_PORT) as usize;
        let Some(peer) = self.peers.get_mut(n).filter(|_| to_us) else {
            self.fail(format!("sent to nobody: {tuple:?}"));
        };
        let segment = parsed.segment;
        if segment.flags == Flags::SYN.with(Flags::ACK) {
            peer.iss.get_or_insert(segment.seq);
        }
        let header = &frame[usize::from(parsed.header)..usize::from(parsed.payload)];
        let irs = peer.irs;
        let sent = Sent {
            to_port: tuple.local_port,
            seq: segment.seq.wrapping_sub(peer.iss.unwrap_or(0)),
            raw_seq: segment.seq,
            ack: segment.ack.wrapping_sub(irs),
            flags: segment.flags,
            len: segment.len,
            window: segment.window,
            ts: segment.ts,
            options: tcp::syn_options(header),
            sack: tcp::sack_blocks(header)
                .iter()
                .map(|(start, end)| (start.wrapping_sub(irs), end.wrapping_sub(irs)))
                .collect(),
        };
        self.note("out", &sent);
        self.sent.push_back(sent);
    }

    fn note(&mut self, who: &str, what: &dyn Display) {
        self.trace.push(format!("{:>9} ms  {who}  {what}", self.now.as_millis() - 10_000));
    }

    #[track_caller]
    fn fail(&self, why: impl Display) -> ! {
        panic!("{why}\n{}\n", self.trace.join("\n"));
    }
}
