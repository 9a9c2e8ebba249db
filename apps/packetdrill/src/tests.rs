//! Small scenarios through the adapter's safe face, as packetdrill would drive them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use libc::{MSG_DONTWAIT, MSG_PEEK, POLLHUP, POLLIN, POLLRDHUP, SHUT_WR, pollfd};
use prequeue::time::Instant;
use prequeue::wire::{Flags as Bits, FourTuple, Outgoing, ipv4, ipv6, tcp};
use rustix::io::Errno;

use crate::calls::Adapter;
use crate::flags::Flags;
use crate::socket::Domain;
use crate::sysctl::Sysctl;

/// Our end and the peer's, and the form in which the script's sockets have them: packetdrill's three
/// versions of IP.
const V4: (&str, &str, Domain) = ("192.168.0.1:8080", "192.0.2.1:40000", Domain::V4);
const MAPPED: (&str, &str, Domain) = (V4.0, V4.1, Domain::V6);
const V6: (&str, &str, Domain) =
    ("[fd3d:a0b:17d6::1]:8080", "[fd3d:fa7b:d17d::1]:40000", Domain::V6);

const ACK: Bits = Bits::ACK;

/// A script's two sides: the adapter's calls, and the peer's packets. The peer's numbers begin at 0;
/// ours are told relative to the SYN-ACK's.
struct Script {
    adapter: Adapter,
    us: SocketAddr,
    peer: SocketAddr,
    domain: Domain,
    listener: RawFd,
    isn: u32,
}

/// A segment that has left: flags, numbers, time.
#[derive(Debug, Eq, PartialEq)]
struct Sent {
    flags: Bits,
    seq: u32,
    ack: u32,
    at: Instant,
}

impl Script {
    fn new((us, peer, domain): (&str, &str, Domain)) -> Self {
        let adapter = Adapter::new(Flags::default(), Sysctl::default());
        let listener = adapter.socket(domain, false).unwrap();
        let (us, peer) = (us.parse().unwrap(), peer.parse().unwrap());
        adapter.bind(listener, us).unwrap();
        adapter.listen(listener, 10).unwrap();
        Self { adapter, us, peer, domain, listener, isn: 0 }
    }

    /// A script with a connection, accepted.
    fn connected() -> (Self, RawFd) {
        Self::connected_over(V4)
    }

    fn connected_over(version: (&str, &str, Domain)) -> (Self, RawFd) {
        let mut script = Self::new(version);
        script.open();
        let (fd, peer, domain) = script.adapter.accept(script.listener).unwrap();
        assert_eq!((peer, domain), (script.peer, script.domain));
        (script, fd)
    }

    fn open(&mut self) {
        self.send(Bits::SYN, 0, 0, 0);
        let syn_ack = self.receive().unwrap();
        assert_eq!((syn_ack.flags, syn_ack.ack), (Bits::SYN.with(ACK), 1));
        self.isn = syn_ack.seq;
        self.send(ACK, 1, 1, 0);
    }

    /// The peer sends a segment with this many bytes.
    fn send(&self, flags: Bits, seq: u32, ack: u32, len: usize) {
        let tuple = FourTuple {
            local_addr: self.peer.ip(),
            remote_addr: self.us.ip(),
            local_port: self.peer.port(),
            remote_port: self.us.port(),
        };
        let ack = self.isn.wrapping_add(ack);
        let out = Outgoing { seq, ack, flags, window: 10_000, ..Outgoing::default() };
        let payload: Vec<u8> = (seq..).take(len).map(|seq| seq as u8).collect();
        let mut packet = vec![0; 80 + len];
        let len = tcp::emit(&mut packet, &tuple, &out, 0, &payload);
        self.adapter.network_send(&packet[..len]);
    }

    /// The next segment that leaves.
    fn receive(&self) -> Option<Sent> {
        let packet = self.adapter.network_receive()?;
        let bytes = &packet.bytes;
        let (src, dst, segment) = if self.us.is_ipv4() {
            let ip = ipv4::parse(bytes, Default::default()).unwrap();
            let tcp = tcp::parse(&ip, &bytes[ip.header_len..], Default::default()).unwrap();
            (IpAddr::V4(ip.src), IpAddr::V4(ip.dst), tcp.segment)
        } else {
            let ip = ipv6::parse(bytes).unwrap();
            let tcp = tcp::parse(&ip, &bytes[ip.header_len..], Default::default()).unwrap();
            (IpAddr::V6(ip.src), IpAddr::V6(ip.dst), tcp.segment)
        };
        assert_eq!((src, dst), (self.us.ip(), self.peer.ip()));
        let seq = segment.seq.wrapping_sub(self.isn);
        Some(Sent { flags: segment.flags, seq, ack: segment.ack, at: packet.at })
    }

    #[track_caller]
    fn expect(&self, flags: Bits, seq: u32, ack: u32) -> Instant {
        let sent = self.receive().expect("a segment should have been sent");
        assert_eq!((sent.flags, sent.seq, sent.ack), (flags, seq, ack));
        sent.at
    }

    fn poll(&self, fd: RawFd, timeout: i32) -> (usize, i16) {
        let mut fds = [pollfd { fd, events: POLLIN | POLLRDHUP, revents: 0 }];
        (self.adapter.poll(&mut fds, timeout).unwrap(), fds[0].revents)
    }
}

#[test]
fn a_connection_from_handshake_to_close() {
    for version in [V4, MAPPED, V6] {
        from_handshake_to_close(version);
    }
}

fn from_handshake_to_close(version: (&str, &str, Domain)) {
    let (script, fd) = Script::connected_over(version);
    let adapter = &script.adapter;
    assert_eq!(adapter.recv(fd, &mut [0; 10], MSG_DONTWAIT), Err(Errno::AGAIN));
    assert_eq!(script.poll(fd, 0), (0, 0));

    script.send(ACK, 1, 1, 100);
    script.expect(ACK, 1, 101);
    assert_eq!((adapter.inq(fd), script.poll(fd, 0)), (Ok(100), (1, POLLIN)));
    let mut buf = [0; 200];
    assert_eq!(adapter.recv(fd, &mut buf, MSG_PEEK).unwrap().len, 100);
    assert_eq!(adapter.read(fd, &mut buf), Ok(100));
    let sent: Vec<u8> = (1..=100).collect();
    assert_eq!(&buf[..100], &sent[..]);

    script.send(Bits::FIN.with(ACK), 101, 1, 0);
    assert_eq!(script.poll(fd, 0), (1, POLLIN | POLLRDHUP));
    assert_eq!(adapter.read(fd, &mut buf), Ok(0));
    let before = adapter.time();
    let delayed = script.expect(ACK, 1, 102).since(before);
    assert!(delayed > Duration::from_millis(30) && delayed < Duration::from_millis(41));
    assert_eq!(adapter.close(fd), Ok(()));
    script.expect(Bits::FIN.with(ACK), 1, 102);
    script.send(ACK, 102, 2, 0);
    assert_eq!(script.receive(), None, "nothing is left to be done");
    assert_eq!(adapter.read(fd, &mut buf), Err(Errno::BADF));
}

#[test]
fn a_reset_is_told_once() {
    let (script, fd) = Script::connected();
    script.send(Bits::RST, 1, 0, 0);
    let all = POLLIN | POLLRDHUP | POLLHUP | libc::POLLERR;
    assert_eq!(script.poll(fd, 0), (1, all));
    assert_eq!(script.adapter.read(fd, &mut [0; 10]), Err(Errno::CONNRESET));
    assert_eq!(script.poll(fd, 0), (1, all & !libc::POLLERR));
    assert_eq!(script.adapter.read(fd, &mut [0; 10]), Ok(0));
}

#[test]
fn a_listener_that_closes_resets_who_was_not_accepted() {
    let mut script = Script::new(V4);
    script.open();
    assert_eq!(script.poll(script.listener, 0), (1, POLLIN));
    script.adapter.close(script.listener).unwrap();
    assert!(script.receive().unwrap().flags.has(Bits::RST));
    script.send(Bits::SYN, 5000, 0, 0);
    assert!(script.receive().unwrap().flags.has(Bits::RST), "the port is closed");
}

#[test]
fn a_blocked_read_is_woken_by_the_packet_it_waits_for() {
    let (script, fd) = Script::connected();
    let begun = script.adapter.time();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let n = script.adapter.read(fd, &mut [0; 100]);
            (n, script.adapter.time())
        });
        while !script.adapter.has_sleeper() {
            std::thread::yield_now();
        }
        script.adapter.sleep(Duration::from_secs(3600));
        script.send(ACK, 1, 1, 10);
        script.adapter.sleep(Duration::from_secs(3600));
        let (n, at) = reader.join().unwrap();
        assert_eq!(n, Ok(10));
        let waited = at.since(begun);
        let hour = Duration::from_secs(3600);
        assert!(waited >= hour && waited < hour + Duration::from_millis(1), "{waited:?}");
    });
}

#[test]
fn what_is_not_there_yet_is_refused() {
    let (script, fd) = Script::connected();
    let adapter = &script.adapter;
    assert_eq!(adapter.send(fd), Err(Errno::OPNOTSUPP));
    assert_eq!(adapter.shutdown(fd, SHUT_WR), Ok(()));
    let fresh = adapter.socket(Domain::V4, true).unwrap();
    assert_eq!(adapter.connect(fresh), Err(Errno::OPNOTSUPP));
    assert_eq!(adapter.read(fresh, &mut [0; 1]), Err(Errno::NOTCONN));
    assert_eq!(adapter.accept(fresh), Err(Errno::INVAL));
    assert_eq!(adapter.accept(script.listener), Err(Errno::DEADLK), "nobody will come");
}
