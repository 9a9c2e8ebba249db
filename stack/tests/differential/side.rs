//! One of the two stacks as the peer and the application meet it, and what the peer knows of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{ACK, Answer, FIN, RST, SYN};
use crate::scenario::{Config, Got, How, Read};
use crate::seen::Ready;

/// The stacks' addresses, and the peer's: IPv4, IPv6.
const US: [IpAddr; 2] = addresses(1);
const PEER: [IpAddr; 2] = addresses(9);

const fn addresses(host: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, host)),
        IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host as u16)),
    ]
}

/// Where a stack is.
pub const fn us(ipv6: bool) -> IpAddr {
    US[ipv6 as usize]
}

/// Where its peer is.
pub const fn peer(ipv6: bool) -> IpAddr {
    PEER[ipv6 as usize]
}

/// A stack with one listener and at most one connection. Times are nanoseconds of one clock.
pub trait Side {
    /// Forgets what was, and listens on a port.
    fn start(&mut self, config: &Config, port: u16, now: u64);
    /// An IP packet arrives.
    fn receive(&mut self, packet: &[u8], now: u64);
    /// Lets timers run.
    fn pass(&mut self, now: u64);
    /// IP packets that have left.
    fn take_sent(&mut self) -> Vec<Vec<u8>>;
    /// Accepts a connection if one waits.
    fn accept(&mut self) -> bool;
    fn recv(&mut self, read: Read) -> Got;
    /// FIONREAD; `None` without a socket.
    fn unread(&mut self) -> Option<u64>;
    /// SO_RCVBUF, as it is kept; `None` without a socket.
    fn rcvbuf(&mut self) -> Option<u64>;
    /// The bits of poll(2) that are about reading; `None` without a socket.
    fn ready(&mut self) -> Option<Ready>;
    fn shutdown(&mut self, how: How);
    fn close(&mut self, reset: bool);
    fn take_error(&mut self) -> Got;
    fn set_quickack(&mut self, on: bool);
    fn set_inline(&mut self, on: bool);
    /// Closes everything.
    fn end(&mut self);
}

/// What the peer has learnt of one stack, in that stack's own numbers.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The stack's initial sequence number.
    pub iss: u32,
    /// The peer's.
    pub irs: u32,
    /// The next number that the stack will send.
    pub snd_nxt: u32,
    /// The highest number acknowledged.
    pub acked: u32,
    /// The right edge last advertised.
    pub edge: u32,
    /// The shift of the stack's windows.
    pub shift: u8,
    /// TSval last seen, and the first.
    pub ts: Option<(u32, u32)>,
    /// The TSval that a burst of the peer's echoes: what it had seen before it began.
    pub echo: Option<u32>,
    /// Blocks of the last SACK option.
    pub sack: Vec<(u32, u32)>,
    /// In-sequence bytes: those read, and those known to wait.
    pub read: u32,
    pub unread: u32,
    /// A SYN-ACK was seen.
    pub is_open: bool,
    /// The right edge has moved left, by more than a header may round and not to a window of zero.
    pub has_retreated: bool,
}

impl View {
    /// Takes an answer into account.
    pub fn learn(&mut self, answer: &Answer, scaling: bool) {
        if let Some((val, _)) = answer.ts {
            let first = self.ts.map_or(val, |(_, first)| first);
            self.ts = Some((val, first));
        }
        if answer.has(RST) {
            return;
        }
        if answer.has(SYN) {
            self.iss = answer.seq;
            self.is_open = true;
            self.acked = answer.ack;
            self.shift = answer.scale.filter(|_| scaling).unwrap_or(0);
            self.edge = answer.ack.wrapping_add(answer.window.into());
            self.snd_nxt = answer.seq.wrapping_add(1);
            return;
        }
        if !answer.has(ACK) || !self.is_open {
            return;
        }
        let end = answer.seq.wrapping_add(u32::from(answer.has(FIN)));
        if before(self.snd_nxt, end) {
            self.snd_nxt = end;
        }
        self.sack = answer.sack.clone();
        if before(answer.ack, self.acked) {
            return;
        }
        self.acked = answer.ack;
        let edge = answer.ack.wrapping_add(u32::from(answer.window) << self.shift);
        let rounding = (1 << self.shift) - 1;
        self.has_retreated |= answer.window != 0 && before(edge.wrapping_add(rounding), self.edge);
        self.edge = edge;
    }

    /// The next number that the stack expects, as far as can be known from outside.
    pub fn next(&self) -> u32 {
        let next = self.irs.wrapping_add(1).wrapping_add(self.read).wrapping_add(self.unread);
        if before(next, self.acked) { self.acked } else { next }
    }
}

/// Whether one sequence number comes before another.
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
