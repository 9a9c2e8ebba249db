//! What every part of an engine has at hand while it works: the time, the counters, the way out.
//!
//! Made anew for each burst by the engine on its lcore's thread. It writes each segment that is sent
//! where it is sent from, or waits until its neighbour is known; it knows no connection.

use std::net::IpAddr;
use std::num::NonZeroU8;

use crate::socket::SocketOptions;
use crate::tcp::isn::Secret;
use crate::tcp::ratelimit::RstLimiter;
use crate::tcp::{Counter, Counters, Cx, Settings, reset};
use crate::time::Instant;
use crate::wire::frame::MAX_CONTROL_LEN;
use crate::wire::{Flags, FourTuple, Outgoing, Segment, ipv4, tcp};

use super::limits::{EchoLimit, ProblemLimit};
use super::neighbour::{Header, Neighbours, Nowhere, Sent};
use super::presence::Presence;
use super::{Interface, Pressure, Transmit};

/// The ECN field of a type of service.
const ECN: u8 = 0x03;

/// What an engine has one of, and its tables do not own.
#[derive(Debug)]
pub(super) struct Base {
    pub settings: Settings,
    pub interface: Interface,
    pub secret: Secret,
    pub counters: Counters,
    pub neighbours: Neighbours,
    pub rsts: RstLimiter,
    pub echoes: EchoLimit,
    pub problems: ProblemLimit,
    pub pressure: Pressure,
    /// When that last was not none.
    pub pressed_since: Instant,
    pub presence: Presence,
}

impl Base {
    /// The interface with other standings of its addresses: everybody who asks has a copy.
    pub fn set_interface(&mut self, interface: Interface) {
        self.interface = interface;
        self.neighbours.set_interface(interface);
    }
}

/// The work of one burst, or of one look at the timers.
#[derive(Debug)]
pub(super) struct Work<'a, T> {
    pub base: &'a mut Base,
    pub now: Instant,
    pub tx: &'a mut T,
}

impl<T: Transmit> Work<'_, T> {
    /// The core's context.
    pub fn cx(&mut self) -> Cx<'_> {
        let Base { settings, counters, .. } = &mut *self.base;
        Cx { now: self.now, settings, counters }
    }

    /// The core's context for a connection of a listener with these options. `narrowed` is where settings of its own are kept.
    pub fn cx_of<'s>(
        &'s mut self,
        options: &SocketOptions,
        narrowed: &'s mut Option<Settings>,
    ) -> Cx<'s> {
        let Base { settings, counters, .. } = &mut *self.base;
        *narrowed = options.narrow(settings);
        Cx { now: self.now, settings: narrowed.as_ref().unwrap_or(settings), counters }
    }

    pub fn bump(&mut self, counter: Counter) {
        self.base.counters.bump(counter);
    }

    /// Sends a segment of a connection.
    pub fn send(&mut self, tuple: &FourTuple, out: &Outgoing) {
        self.send_with_tos(tuple, out, out.tos);
    }

    /// Sends what there is to send.
    pub fn send_any(&mut self, tuple: &FourTuple, out: Option<&Outgoing>) {
        if let Some(out) = out {
            self.send(tuple, out);
        }
    }

    /// Answers a segment of no connection with the RST it deserves, within the limits. The type of
    /// service is copied, as in Linux.
    pub fn reset(&mut self, tuple: &FourTuple, seg: &Segment, tos: u8) {
        if let Some(out) = reset::reply(seg) {
            self.send_reset(tuple, &out, tos);
        }
    }

    /// Sends a RST that belongs to no connection, within the limits. It is no ECN-capable transport,
    /// whatever it answers (RFC 3168 §6.1.1).
    pub fn send_reset(&mut self, tuple: &FourTuple, out: &Outgoing, tos: u8) {
        let Base { settings, counters, rsts, .. } = &mut *self.base;
        let mut cx = Cx { now: self.now, settings, counters };
        if rsts.permits(&mut cx, tuple.remote_addr) {
            self.send_with_tos(tuple, out, tos & !ECN);
        }
    }

    /// Sends a datagram that begins behind the room of a [`Header`] in `frame`.
    pub fn send_datagram(&mut self, frame: &mut [u8], dst: IpAddr) {
        let sent = self.base.neighbours.send(frame, dst, self.now, self.tx);
        self.account(sent);
    }

    fn account(&mut self, sent: Sent) {
        match sent {
            Sent::Yes | Sent::Waits => {}
            Sent::Dropped => self.bump(Counter::OutDiscards),
            Sent::NoRoute => self.bump(Counter::OutNoRoutes),
        }
    }

    #[inline(never)] // one for all who send: it is long
    fn send_with_tos(&mut self, tuple: &FourTuple, out: &Outgoing, tos: u8) {
        let Base { settings, counters, neighbours, .. } = &mut *self.base;
        counters.bump(Counter::OutSegs);
        if out.flags.has(Flags::RST) {
            counters.bump(Counter::OutRsts);
        }
        let ttl = out.ttl.map_or(settings.ip_default_ttl, NonZeroU8::get);
        match neighbours.header(tuple.remote_addr, self.now, self.tx) {
            Ok(header) => self.tx.send_written(|frame| write(frame, &header, tuple, out, tos, ttl)),
            Err(nowhere) => self.keep(nowhere, tuple, out, (tos, ttl)),
        }
    }

    /// What cannot be sent now waits as far as it may.
    #[cold]
    fn keep(&mut self, nowhere: Nowhere, tuple: &FourTuple, out: &Outgoing, (tos, ttl): (u8, u8)) {
        let mut frame = [0; MAX_CONTROL_LEN];
        let len = write(&mut frame, &Header::default(), tuple, out, tos, ttl);
        let sent = self.base.neighbours.keep(&frame[..len], nowhere);
        self.account(sent);
    }
}

/// Writes the frame of a segment, and returns its length.
#[inline(always)]
fn write(
    frame: &mut [u8; MAX_CONTROL_LEN],
    header: &Header,
    tuple: &FourTuple,
    out: &Outgoing,
    tos: u8,
    ttl: u8,
) -> usize {
    let (before, datagram) = frame.split_at_mut(header.len());
    before.copy_from_slice(header);
    let len = tcp::emit(datagram, tuple, out, tos, &[]);
    if ttl != ipv4::TTL {
        tcp::set_ttl(&mut datagram[..len], ttl);
    }
    header.len() + len
}
