//! Our presence on the link: addresses are claimed, announced and defended, groups reported.
//!
//! Called by the engine on its lcore's thread, for its timers and for what it hears of others. It sends
//! what [`claims`](super::claims) and [`membership`](super::membership) say is due; nothing is done before
//! the engine is told to claim its addresses, which a simulation may leave out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tcp::Counter;
use crate::tcp::isn::Secret;
use crate::time::Instant;
use crate::wire::arp::{Arp, Operation};
use crate::wire::icmpv6::{self, Advertisement, MAX_DISCOVERY_LEN, Nonce, Solicitation};
use crate::wire::mld::{self, MAX_REPORT_LEN, Query, Reason, Version};
use crate::wire::{MacAddr, ethernet, ipv6};

use super::claims::{Claims, Heard, Role, Step, Verdict};
use super::dispatch::Frame;
use super::membership::{Membership, groups};
use super::work::Work;
use super::{Standing, Transmit};

/// What an lcore knows of its addresses and groups.
#[derive(Debug)]
pub(super) struct Presence {
    claims: Claims,
    membership: Membership,
    /// It begins with the next turn.
    begins: Option<Role>,
    /// When something is to be done.
    due: Option<Instant>,
}

impl Presence {
    /// One that says nothing.
    pub fn new(secret: Secret) -> Self {
        let claims = Claims::new(secret);
        Self { claims, membership: Membership::default(), begins: None, due: None }
    }

    /// Has the addresses be claimed from the next turn on.
    pub fn begin(&mut self, role: Role) {
        self.begins = Some(role);
        self.due = Some(Instant::ZERO);
    }

    /// When [`Work::keep_present`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    fn speaks(&self) -> bool {
        self.claims.role() == Role::Speaks
    }

    fn note_due(&mut self) {
        let membership = self.membership.next_deadline();
        self.due = self.claims.next_deadline().into_iter().chain(membership).min();
    }
}

impl<T: Transmit> Work<'_, T> {
    /// Does what is due; whether there was something.
    #[inline]
    pub(super) fn keep_present(&mut self) -> bool {
        let is_due = self.base.presence.due.is_some_and(|due| due <= self.now);
        if is_due {
            self.keep_present_now();
        }
        is_due
    }

    #[cold]
    fn keep_present_now(&mut self) {
        let now = self.now;
        if let Some(role) = self.base.presence.begins.take() {
            let mut interface = self.base.interface;
            self.base.presence.claims.begin(&mut interface, &self.base.settings, role, now);
            self.base.set_interface(interface);
            self.base.presence.membership.begin(&interface, role == Role::Speaks, now);
        }
        // Before an address is asked for, its group is joined: the answer may come there.
        self.report();
        while let Some(step) = self.base.presence.claims.step(now) {
            let speaks = self.base.presence.speaks();
            match step {
                Step::Probe(addr, nonce) if speaks => self.probe(addr, nonce),
                Step::Announce(addr) if speaks => self.announce(addr),
                Step::Probe(..) | Step::Announce(_) => {}
                Step::Settle(addr) => {
                    self.set_standing(addr, Standing::Held);
                    if self.base.interface.link_local().map(IpAddr::V6) == Some(addr) {
                        self.base.presence.membership.has_address(speaks, now);
                    }
                }
            }
        }
        self.report();
        self.base.presence.note_due();
    }

    /// An ARP packet, which may say that somebody else has an address of ours.
    pub(super) fn on_arp(&mut self, arp: &Arp) -> Frame {
        let Arp { operation, sender_mac, sender_addr, target_addr, .. } = *arp;
        if sender_mac != self.base.interface.mac {
            let probes = operation == Operation::Request && sender_addr.is_unspecified();
            let (addr, heard) =
                if probes { (target_addr, Heard::Wants) } else { (sender_addr, Heard::Has) };
            if let Some(lost) = self.on_rival(addr.into(), heard) {
                return lost;
            }
        }
        let news = self.base.neighbours.on_arp(arp, self.now, self.tx);
        news.map_or(Frame::Done, Frame::News)
    }

    /// A neighbour solicitation: somebody who has no address yet may want one of ours.
    pub(super) fn on_solicitation(&mut self, src: Ipv6Addr, asked: &Solicitation) -> Frame {
        let target = asked.target.into();
        if src.is_unspecified() {
            // Our own question, which has come back: no answer to that.
            if self.base.presence.claims.is_own(target, asked.nonce) {
                return Frame::Done;
            }
            if let Some(lost) = self.on_rival(target, Heard::Wants) {
                return lost;
            }
        }
        let news = self.base.neighbours.on_solicitation(src, asked, self.now, self.tx);
        news.map_or(Frame::Done, Frame::News)
    }

    /// A neighbour advertisement: it may be about an address of ours.
    pub(super) fn on_advertisement(&mut self, told: &Advertisement) -> Frame {
        if told.target_mac != Some(self.base.interface.mac)
            && let Some(lost) = self.on_rival(told.target.into(), Heard::Has)
        {
            return lost;
        }
        let news = self.base.neighbours.on_advertisement(told, self.now, self.tx);
        news.map_or(Frame::Done, Frame::News)
    }

    /// A router asks which groups we are in.
    pub(super) fn on_query(&mut self, query: &Query) {
        let presence = &mut self.base.presence;
        let Presence { claims, membership, .. } = presence;
        membership.on_query(query, &self.base.interface, self.now, |within| claims.below(within));
        presence.note_due();
    }

    /// Somebody else was heard about an address. What there is to tell the other lcores, if it was one of
    /// ours and is lost.
    fn on_rival(&mut self, addr: IpAddr, heard: Heard) -> Option<Frame> {
        match self.base.presence.claims.hear(addr, heard, self.now) {
            Verdict::Nothing => None,
            Verdict::Lost => {
                self.bump(Counter::AddrConflicts);
                self.bump(Counter::AddrsLost);
                self.set_standing(addr, Standing::Withheld);
                self.base.presence.note_due();
                Some(Frame::Lost(addr))
            }
            Verdict::Contested { defend } => {
                self.bump(Counter::AddrConflicts);
                if defend {
                    self.announce(addr);
                }
                None
            }
        }
    }

    /// Another lcore has heard that an address is somebody else's. Whether that is news here.
    pub(super) fn lose(&mut self, addr: IpAddr) -> bool {
        let is_news = self.base.presence.claims.lose(addr);
        if is_news {
            self.set_standing(addr, Standing::Withheld);
            self.base.presence.note_due();
        }
        is_news
    }

    fn set_standing(&mut self, addr: IpAddr, standing: Standing) {
        let mut interface = self.base.interface;
        interface.set_standing(addr, standing);
        self.base.set_interface(interface);
    }

    /// Asks whether somebody has an address.
    fn probe(&mut self, addr: IpAddr, nonce: Nonce) {
        match addr {
            IpAddr::V4(addr) => self.ask_by_arp(Ipv4Addr::UNSPECIFIED, addr),
            IpAddr::V6(addr) => {
                let mut frame = [0; ethernet::HEADER_LEN + MAX_DISCOVERY_LEN];
                let len = icmpv6::emit_probe(&mut frame[ethernet::HEADER_LEN..], addr, nonce);
                self.send_to_group(&mut frame, len, ipv6::solicited_node(addr));
            }
        }
    }

    /// Tells all on the link that we have an address.
    fn announce(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => self.ask_by_arp(addr, addr),
            IpAddr::V6(addr) => {
                let mut frame = [0; ethernet::HEADER_LEN + MAX_DISCOVERY_LEN];
                let ours = (addr, self.base.interface.mac);
                let (room, all) = (&mut frame[ethernet::HEADER_LEN..], ipv6::ALL_NODES);
                let len = icmpv6::emit_advertisement(room, ours, all, true);
                self.send_to_group(&mut frame, len, all);
            }
        }
    }

    /// Asks all for an address by ARP: probes have no sender (RFC 5227 §2.1.1), announcements are from the
    /// address itself (§2.3).
    fn ask_by_arp(&mut self, sender: Ipv4Addr, target: Ipv4Addr) {
        let question = Arp::question(self.base.interface.mac, sender, target);
        self.base.neighbours.transmit_arp(&question, MacAddr::BROADCAST, self.tx);
    }

    /// Sends what is to be reported of our groups.
    fn report(&mut self) {
        let interface = self.base.interface;
        // Routers take no reports without an address, but switches do (RFC 3810 §5.2.13).
        let ours = interface.link_local();
        let is_held = |addr: &Ipv6Addr| interface.standing((*addr).into()) == Some(Standing::Held);
        let src = ours.filter(is_held).unwrap_or(Ipv6Addr::UNSPECIFIED);
        while let Some((reason, version)) = self.base.presence.membership.step(self.now) {
            let mut frame = [0; ethernet::HEADER_LEN + MAX_REPORT_LEN];
            let at = ethernet::HEADER_LEN;
            match version {
                Version::V2 => {
                    let len = mld::emit_report(&mut frame[at..], src, groups(&interface), reason);
                    self.send_to_group(&mut frame, len, mld::ALL_ROUTERS);
                }
                Version::V1 => {
                    for group in groups(&interface) {
                        let len = mld::emit_report_v1(&mut frame[at..], src, group);
                        self.send_to_group(&mut frame, len, group);
                    }
                }
            }
            debug_assert!(reason == Reason::Asked || version == Version::V2);
        }
    }

    /// Sends a datagram of `len` bytes behind room for the Ethernet header.
    fn send_to_group(&mut self, frame: &mut [u8], len: usize, group: Ipv6Addr) {
        let frame = &mut frame[..ethernet::HEADER_LEN + len];
        let (dst, src) = (ipv6::group_mac(group), self.base.interface.mac);
        ethernet::emit(frame, dst, src, None, ethernet::IPV6);
        self.tx.send(frame);
    }
}
