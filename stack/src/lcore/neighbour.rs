//! The neighbour table of one lcore: which Ethernet address an IP address is at.
//!
//! The lcore's thread asks it for the Ethernet header of every segment (`Neighbours::header`), sends
//! every other datagram through [`Neighbours::send`], and gives it every ARP packet; where an address is
//! not known it asks (RFC 826). News goes to the other lcores by way of the caller. It is bounded and keyed: nothing that arrives makes it grow or search.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::time::Instant;
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::{MacAddr, ethernet, ipv6};

use super::hash::HashKey;
use super::{Interface, Transmit};

/// Neighbours kept, as Linux's gc_thresh3.
const ENTRIES: usize = 1024;
/// An address may stand in one of this many places, so that finding and replacing look at four.
const WAYS: usize = 4;
const SETS: usize = ENTRIES / WAYS;

/// A mapping that was not confirmed for this long is asked for again, and used meanwhile. Between
/// the half and one and a half of Linux's base_reachable_time (30 s).
const REACHABLE: Duration = Duration::from_secs(30);

/// Requests for one address are this far apart (RFC 1122 §2.3.2.1: at most one a second).
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// After so many requests without a reply the neighbour counts as gone (Linux's mcast_solicit).
const REQUESTS: u8 = 3;

/// Longest frame that waits for a reply: any control segment. An ICMP reply may be longer; it is
/// not worth the memory, the next ping finds the address known.
const WAITING_LEN: usize = 128;

/// Frames that wait for replies, all addresses together, one each.
const WAITING: usize = 64;

/// Where a frame went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    /// To the device.
    Yes,
    /// It waits until its neighbour is known.
    Waits,
    /// Nowhere: it is too long to wait, or too many do already.
    Dropped,
    /// Nowhere: the address is off the link and there is no gateway.
    NoRoute,
}

/// A mapping that another lcore should know too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct News {
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Where it is.
    pub mac: MacAddr,
}

/// The table.
#[derive(Debug)]
pub struct Neighbours {
    interface: Interface,
    key: HashKey,
    entries: Vec<Entry>,
    waiting: Vec<Waiting>,
    /// Void when anything changes.
    last: Option<Last>,
}

/// The last destination whose next hop was known, since most frames go where the last one went.
#[derive(Clone, Copy, Debug)]
struct Last {
    dst: IpAddr,
    header: Header,
    until: Instant,
}

/// An Ethernet header as it is written before a datagram.
pub(super) type Header = [u8; ethernet::HEADER_LEN];

/// Why a datagram cannot be sent now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Nowhere {
    /// Nobody has said yet where this next hop is.
    Unknown(IpAddr),
    /// The address is off the link and there is no gateway.
    NoRoute,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    addr: IpAddr,
    mac: MacAddr,
    state: State,
    /// When the mapping was last confirmed.
    confirmed: Instant,
    /// When it was last asked for, and how often without a reply.
    asked: Instant,
    requests: u8,
    /// When it was last used or learnt: the oldest makes room.
    used: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Empty,
    /// Asked for, never heard of.
    Incomplete,
    Known,
}

/// A frame whose neighbour is not known yet; it has no Ethernet header.
#[derive(Debug)]
struct Waiting {
    addr: IpAddr,
    len: usize,
    bytes: [u8; WAITING_LEN],
}

const EMPTY: Entry = Entry {
    addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    mac: MacAddr([0; 6]),
    state: State::Empty,
    confirmed: Instant::ZERO,
    asked: Instant::ZERO,
    requests: 0,
    used: Instant::ZERO,
};

impl Neighbours {
    /// A table that knows nobody.
    pub fn new(interface: Interface, key: HashKey) -> Self {
        Self {
            interface,
            key,
            entries: vec![EMPTY; ENTRIES],
            waiting: Vec::with_capacity(WAITING),
            last: None,
        }
    }

    /// Sends a datagram to `dst`. `frame` is the datagram with [`ethernet::HEADER_LEN`] bytes of room
    /// before it, which the header is written into.
    pub fn send(
        &mut self,
        frame: &mut [u8],
        dst: IpAddr,
        now: Instant,
        tx: &mut impl Transmit,
    ) -> Sent {
        match self.header(dst, now, tx) {
            Ok(header) => {
                frame[..header.len()].copy_from_slice(&header);
                tx.send(frame);
                Sent::Yes
            }
            Err(nowhere) => self.keep(frame, nowhere),
        }
    }

    /// What is to be written before a datagram to `dst`, for whoever sends it at once; else it is to be
    /// given to [`Self::keep`].
    #[inline]
    pub(super) fn header(
        &mut self,
        dst: IpAddr,
        now: Instant,
        tx: &mut impl Transmit,
    ) -> Result<Header, Nowhere> {
        match self.last {
            Some(ref last) if last.dst == dst && now < last.until => Ok(last.header),
            _ => self.new_header(dst, now, tx),
        }
    }

    #[inline(never)]
    fn new_header(
        &mut self,
        dst: IpAddr,
        now: Instant,
        tx: &mut impl Transmit,
    ) -> Result<Header, Nowhere> {
        let hop = self.interface.next_hop(dst).ok_or(Nowhere::NoRoute)?;
        let (mac, until) = self.look_up(hop, now, tx).ok_or(Nowhere::Unknown(hop))?;
        let mut header = Header::default();
        ethernet::emit(&mut header, mac, self.interface.mac, None, ethertype(dst));
        self.last = until.map(|until| Last { dst, header, until });
        Ok(header)
    }

    /// Lets a frame without a header wait for its neighbour, if it has one.
    pub(super) fn keep(&mut self, frame: &[u8], nowhere: Nowhere) -> Sent {
        match nowhere {
            Nowhere::Unknown(hop) => self.let_wait(frame, hop),
            Nowhere::NoRoute => Sent::NoRoute,
        }
    }

    /// Takes an ARP packet: answers a request for our address, learns from what is addressed to us,
    /// and corrects what is known already from anything (RFC 826). Returns what is new.
    pub fn on_arp(&mut self, arp: &Arp, now: Instant, tx: &mut impl Transmit) -> Option<News> {
        let Arp { operation, sender_mac, sender_addr, target_mac: _, target_addr } = *arp;
        let to_us = self.interface.is_ours(target_addr.into());
        if to_us && operation == Operation::Request && sender_addr != target_addr {
            self.transmit_arp(&arp.reply(self.interface.mac), sender_mac, tx);
        }
        // A probe for a free address has no sender address (RFC 5227), and teaches nothing.
        let sender_addr = IpAddr::V4(sender_addr);
        let believable = self.is_believable(sender_addr, sender_mac);
        if !believable || !(to_us || self.position(sender_addr).is_some()) {
            return None;
        }
        let news = News { addr: sender_addr, mac: sender_mac };
        self.learn(news, now, tx).then_some(news)
    }

    /// Whether a neighbour may be at an address: a host on the link, and not ourselves.
    pub(super) fn is_believable(&self, addr: IpAddr, mac: MacAddr) -> bool {
        !mac.is_multicast()
            && mac != MacAddr([0; 6])
            && !self.interface.is_ours(addr)
            && self.interface.is_on_link(addr)
    }

    /// Where a neighbour is, if that is known; `None` if nobody has asked for it.
    pub(super) fn known(&self, addr: IpAddr) -> Option<Option<MacAddr>> {
        let entry = &self.entries[self.position(addr)?];
        Some((entry.state == State::Known).then_some(entry.mac))
    }

    /// The interface that its neighbours are those of.
    pub(super) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Its addresses stand otherwise from now on.
    pub(super) fn set_interface(&mut self, interface: Interface) {
        self.interface = interface;
        self.last = None;
    }

    /// Takes a mapping, and sends what waited for it. Whether it was not known already.
    pub fn learn(&mut self, news: News, now: Instant, tx: &mut impl Transmit) -> bool {
        let News { addr, mac } = news;
        self.last = None;
        let at = self.position(addr).unwrap_or_else(|| self.make_room(addr));
        let entry = &mut self.entries[at];
        let is_new = entry.state != State::Known || entry.mac != mac;
        *entry = Entry { addr, mac, state: State::Known, confirmed: now, requests: 0, ..*entry };
        entry.used = now;
        if let Some(at) = self.waiting.iter().position(|frame| frame.addr == addr) {
            let mut frame = self.waiting.swap_remove(at);
            ethernet::emit(&mut frame.bytes, mac, self.interface.mac, None, ethertype(addr));
            tx.send(&frame.bytes[..frame.len]);
        }
        is_new
    }

    /// When [`Self::on_timer`] has something to do: while frames wait, questions are repeated.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.waiting.is_empty() { None } else { self.next_question() }
    }

    #[cold]
    fn next_question(&self) -> Option<Instant> {
        let asked = |frame: &Waiting| self.position(frame.addr).map(|at| self.entries[at].asked);
        Some(self.waiting.iter().filter_map(asked).min()? + REQUEST_INTERVAL)
    }

    /// Repeats the questions on whose answers frames wait; gives up after the third, and returns how
    /// many frames were dropped with that.
    pub fn on_timer(&mut self, now: Instant, tx: &mut impl Transmit) -> usize {
        let before = self.waiting.len();
        let addrs: smallvec::SmallVec<[IpAddr; WAITING]> =
            self.waiting.iter().map(|frame| frame.addr).collect();
        for addr in addrs {
            match self.position(addr) {
                Some(at) => self.ask(at, now, tx),
                // It had to make room for another.
                None => self.forget_waiting(addr),
            }
        }
        before - self.waiting.len()
    }

    /// The neighbour's address if it is known, and until when; asks for it if it is not, or not any
    /// more.
    fn look_up(
        &mut self,
        hop: IpAddr,
        now: Instant,
        tx: &mut impl Transmit,
    ) -> Option<(MacAddr, Option<Instant>)> {
        let at = self.position(hop).unwrap_or_else(|| {
            let at = self.make_room(hop);
            self.entries[at] = Entry { addr: hop, state: State::Incomplete, ..EMPTY };
            at
        });
        self.entries[at].used = now;
        let Entry { state, mac, confirmed, .. } = self.entries[at];
        if state == State::Known && now < confirmed + REACHABLE {
            return Some((mac, Some(confirmed + REACHABLE)));
        }
        self.ask(at, now, tx);
        (self.entries[at].state == State::Known).then_some((mac, None))
    }

    /// Sends a request for an entry's address unless one was sent just now; forgets the mapping when
    /// the third had no reply.
    fn ask(&mut self, at: usize, now: Instant, tx: &mut impl Transmit) {
        let entry = &mut self.entries[at];
        let asked_lately = entry.requests > 0 && now < entry.asked + REQUEST_INTERVAL;
        if asked_lately {
            return;
        }
        let addr = entry.addr;
        if entry.requests >= REQUESTS {
            entry.state = State::Incomplete;
            entry.requests = 0;
            self.forget_waiting(addr);
        }
        let entry = &mut self.entries[at];
        entry.requests += 1;
        entry.asked = now;
        let known_at = (entry.state == State::Known).then_some(entry.mac);
        match addr {
            IpAddr::V4(target) => self.request(target, known_at, tx),
            IpAddr::V6(target) => self.solicit(target, known_at, tx),
        }
    }

    /// Asks for an address by ARP: all on the link, or where it was when it was last heard of, which
    /// troubles nobody else (RFC 1122 §2.3.2.1, unicast poll).
    fn request(&self, target_addr: Ipv4Addr, at: Option<MacAddr>, tx: &mut impl Transmit) {
        let Some(IpAddr::V4(sender_addr)) = self.interface.source_for(target_addr.into()) else {
            return;
        };
        let question = Arp::question(self.interface.mac, sender_addr, target_addr);
        self.transmit_arp(&question, at.unwrap_or(MacAddr::BROADCAST), tx);
    }

    /// Keeps the frame until its neighbour is known. The newest for an address replaces the one
    /// before (RFC 1122 §2.3.2.2: keep at least the latest).
    fn let_wait(&mut self, frame: &[u8], hop: IpAddr) -> Sent {
        let mut bytes = [0; WAITING_LEN];
        let Some(room) = bytes.get_mut(..frame.len()) else { return Sent::Dropped };
        room.copy_from_slice(frame);
        let frame = Waiting { addr: hop, len: frame.len(), bytes };
        match self.waiting.iter().position(|waiting| waiting.addr == hop) {
            Some(at) => self.waiting[at] = frame,
            None if self.waiting.len() < WAITING => self.waiting.push(frame),
            None => return Sent::Dropped,
        }
        Sent::Waits
    }

    fn forget_waiting(&mut self, addr: IpAddr) {
        self.waiting.retain(|frame| frame.addr != addr);
    }

    pub(super) fn transmit_arp(&self, arp: &Arp, dst: MacAddr, tx: &mut impl Transmit) {
        let mut frame = [0; ethernet::HEADER_LEN + arp::PACKET_LEN];
        let at = ethernet::emit(&mut frame, dst, self.interface.mac, None, ethernet::ARP);
        arp::emit(&mut frame[at..], arp);
        tx.send(&frame);
    }

    fn set(&self, addr: IpAddr) -> usize {
        let bits = ipv6::or_mapped(addr).to_bits();
        (self.key.mix((bits >> 64) as u64, bits as u64) >> 32) as usize % SETS * WAYS
    }

    fn position(&self, addr: IpAddr) -> Option<usize> {
        let set = self.set(addr);
        let is_it = |entry: &Entry| entry.state != State::Empty && entry.addr == addr;
        Some(set + self.entries[set..set + WAYS].iter().position(is_it)?)
    }

    /// A place for `addr`: an empty one, else that of an address never heard of, else the one not
    /// used for the longest time. So whoever invents neighbours cannot push out one that is in use.
    fn make_room(&mut self, addr: IpAddr) -> usize {
        let set = self.set(addr);
        let value = |at: &usize| match self.entries[*at] {
            Entry { state: State::Empty, .. } => (0, Instant::ZERO),
            Entry { state: State::Incomplete, used, .. } => (1, used),
            Entry { state: State::Known, used, .. } => (2, used),
        };
        let at = (set..set + WAYS).min_by_key(value).unwrap_or(set);
        self.last = None;
        self.entries[at] = EMPTY;
        at
    }
}

/// What a datagram to `dst` is announced as.
const fn ethertype(dst: IpAddr) -> u16 {
    match dst {
        IpAddr::V4(_) => ethernet::IPV4,
        IpAddr::V6(_) => ethernet::IPV6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

    fn interface() -> Interface {
        Interface::new(US, 1500).with_address(OUR_ADDR, 24).with_gateway(GATEWAY)
    }

    fn table() -> Neighbours {
        Neighbours::new(interface(), HashKey::new([1, 2]))
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn arp_from(operation: Operation, addr: Ipv4Addr, mac: MacAddr, target: Ipv4Addr) -> Arp {
        Arp { operation, sender_mac: mac, sender_addr: addr, target_mac: US, target_addr: target }
    }

    fn parse(frame: &[u8]) -> (MacAddr, Option<Arp>) {
        let ethernet = ethernet::parse(frame).unwrap();
        assert_eq!(ethernet.src, US);
        let arp = (ethernet.ethertype == ethernet::ARP).then(|| arp::parse(&frame[14..]).unwrap());
        (ethernet.dst, arp)
    }

    #[test]
    fn a_frame_waits_for_the_reply_to_the_question_it_caused() {
        let (mut table, mut tx) = (table(), Vec::new());
        assert_eq!(table.send(&mut [7; 60], PEER_ADDR.into(), ms(0), &mut tx), Sent::Waits);
        assert_eq!(table.send(&mut [8; 61], PEER_ADDR.into(), ms(1), &mut tx), Sent::Waits);
        let (dst, request) = parse(&tx.pop().unwrap());
        assert!(tx.is_empty(), "asked once");
        assert_eq!((dst, request.unwrap().target_addr), (MacAddr::BROADCAST, PEER_ADDR));

        let reply = arp_from(Operation::Reply, PEER_ADDR, PEER, OUR_ADDR);
        let news = table.on_arp(&reply, ms(2), &mut tx);
        assert_eq!(news, Some(News { addr: PEER_ADDR.into(), mac: PEER }));
        let frame = tx.pop().unwrap();
        assert!(tx.is_empty(), "only the newer frame waited");
        assert_eq!((parse(&frame).0, frame.len(), &frame[14..]), (PEER, 61, &[8; 47][..]));

        assert_eq!(table.send(&mut [9; 60], PEER_ADDR.into(), ms(3), &mut tx), Sent::Yes);
        assert_eq!((tx.len(), table.next_deadline()), (1, None));
    }

    #[test]
    fn questions_are_repeated_and_given_up() {
        let (mut table, mut tx) = (table(), Vec::new());
        table.send(&mut [7; 60], PEER_ADDR.into(), ms(0), &mut tx);
        let mut dropped = Vec::new();
        while let Some(at) = table.next_deadline() {
            assert_eq!(at, ms(1000 * (dropped.len() as u64 + 1)));
            dropped.push(table.on_timer(at, &mut tx));
        }
        assert_eq!(dropped, [0, 0, 1]);
    }

    #[test]
    fn requests_for_us_are_answered_and_learnt_from() {
        let (mut table, mut tx) = (table(), Vec::new());
        let request = arp_from(Operation::Request, PEER_ADDR, PEER, OUR_ADDR);
        assert!(table.on_arp(&request, ms(0), &mut tx).is_some());
        let (dst, reply) = parse(&tx.pop().unwrap());
        let reply = reply.unwrap();
        assert_eq!((dst, reply.operation, reply.sender_mac), (PEER, Operation::Reply, US));
        assert_eq!(table.send(&mut [7; 60], PEER_ADDR.into(), ms(1), &mut tx), Sent::Yes);
        assert!(table.on_arp(&request, ms(2), &mut tx).is_none(), "no news");
    }

    #[test]
    fn others_talk_teaches_only_about_those_known() {
        let (mut table, mut tx) = (table(), Vec::new());
        let talk = |mac| arp_from(Operation::Request, PEER_ADDR, mac, Ipv4Addr::new(10, 0, 0, 77));
        assert_eq!(table.on_arp(&talk(PEER), ms(0), &mut tx), None);
        table.learn(News { addr: PEER_ADDR.into(), mac: PEER }, ms(0), &mut tx);
        let moved = MacAddr([2, 0, 0, 0, 0, 10]);
        assert!(table.on_arp(&talk(moved), ms(1), &mut tx).is_some());
        table.send(&mut [7; 60], PEER_ADDR.into(), ms(1), &mut tx);
        assert_eq!(parse(&tx.pop().unwrap()).0, moved);
        assert!(tx.is_empty());
    }

    #[test]
    fn nobody_may_claim_our_address_or_one_that_is_not_on_the_link() {
        let (mut table, mut tx) = (table(), Vec::new());
        let us = OUR_ADDR;
        for addr in
            [us, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(10, 0, 0, 255)]
        {
            assert_eq!(
                table.on_arp(&arp_from(Operation::Reply, addr, PEER, us), ms(0), &mut tx),
                None
            );
        }
        let multicast = MacAddr([1, 0, 0x5e, 0, 0, 1]);
        let reply = arp_from(Operation::Reply, PEER_ADDR, multicast, us);
        assert_eq!(table.on_arp(&reply, ms(0), &mut tx), None);
        let probe = arp_from(Operation::Request, Ipv4Addr::UNSPECIFIED, PEER, us);
        assert_eq!(table.on_arp(&probe, ms(0), &mut tx), None);
        assert_eq!(tx.len(), 1, "a probe for our address is answered: it is taken");
    }

    #[test]
    fn what_is_off_the_link_goes_to_the_gateway() {
        let (mut table, mut tx) = (table(), Vec::new());
        table.learn(News { addr: GATEWAY.into(), mac: PEER }, ms(0), &mut tx);
        let far = Ipv4Addr::new(8, 8, 8, 8);
        assert_eq!(table.send(&mut [7; 60], far.into(), ms(1), &mut tx), Sent::Yes);
        assert_eq!(parse(&tx[0]).0, PEER);
        let isolated = Interface::new(US, 1500).with_address(OUR_ADDR, 24);
        let mut table = Neighbours::new(isolated, HashKey::new([1, 2]));
        assert_eq!(table.send(&mut [7; 60], far.into(), ms(1), &mut tx), Sent::NoRoute);
    }

    #[test]
    fn an_old_mapping_is_used_while_it_is_asked_for_again() {
        let (mut table, mut tx) = (table(), Vec::new());
        table.learn(News { addr: PEER_ADDR.into(), mac: PEER }, ms(0), &mut tx);
        let mut sent = Vec::new();
        for second in [29, 31, 32, 33, 34] {
            sent.push(table.send(&mut [7; 60], PEER_ADDR.into(), ms(second * 1000), &mut tx));
        }
        assert_eq!(sent, [Sent::Yes, Sent::Yes, Sent::Yes, Sent::Yes, Sent::Waits]);
        let parsed = tx.iter().map(|frame| parse(frame));
        let asked = parsed.filter(|(_, arp)| arp.is_some()).map(|(dst, _)| dst);
        assert_eq!(
            asked.collect::<Vec<_>>(),
            [PEER, PEER, PEER, MacAddr::BROADCAST],
            "where it was, and then everybody"
        );
    }

    #[test]
    fn invented_neighbours_do_not_push_out_one_in_use() {
        let interface = Interface::new(US, 1500).with_address(OUR_ADDR, 8);
        let mut table = Neighbours::new(interface, HashKey::new([1, 2]));
        let mut tx = Vec::new();
        table.learn(News { addr: PEER_ADDR.into(), mac: PEER }, ms(0), &mut tx);
        for n in 0..20_000u32 {
            let addr = Ipv4Addr::from_bits(0x0a10_0000 + n);
            let now = ms(u64::from(n));
            table.on_arp(&arp_from(Operation::Request, addr, US, OUR_ADDR), now, &mut tx);
            tx.clear();
            assert_eq!(table.send(&mut [7; 60], PEER_ADDR.into(), now, &mut tx), Sent::Yes);
            assert!(parse(&tx[0]).1.is_none() || n > 30_000 / 2);
            if n % 10_000 == 0 {
                table.learn(News { addr: PEER_ADDR.into(), mac: PEER }, now, &mut tx);
            }
        }
        assert_eq!(table.entries.len(), ENTRIES);
    }
}
