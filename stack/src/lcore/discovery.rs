//! Neighbour discovery of IPv6 (RFC 4861 §7): questions and answers around the one neighbour table.
//!
//! Called by the lcore's thread with messages that were found good, for addresses of ours or of the link.
//! It is what ARP is for IPv4, with the same table, limits and times. Routers are configured, not
//! discovered.

use std::net::{IpAddr, Ipv6Addr};

use crate::time::Instant;
use crate::wire::icmpv6::{self, Advertisement, MAX_DISCOVERY_LEN, Solicitation};
use crate::wire::{MacAddr, ethernet, ipv6};

use super::neighbour::{Neighbours, News};
use super::{Standing, Transmit};

impl Neighbours {
    /// Takes a question: answers it if it is for an address of ours, and learns where who asks is.
    /// Returns what is new.
    pub fn on_solicitation(
        &mut self,
        src: Ipv6Addr,
        asked: &Solicitation,
        now: Instant,
        tx: &mut impl Transmit,
    ) -> Option<News> {
        let Solicitation { target, source_mac, nonce: _ } = *asked;
        let interface = *self.interface();
        if !interface.is_ours(target.into()) || interface.is_ours(src.into()) {
            return None;
        }
        let mut news = None;
        if let Some(mac) = source_mac
            && self.is_believable(src.into(), mac)
        {
            let heard = News { addr: src.into(), mac };
            news = self.learn(heard, now, tx).then_some(heard);
        }
        let mut frame = [0; ethernet::HEADER_LEN + MAX_DISCOVERY_LEN];
        let ours = (target, interface.mac);
        // Before it is sure that nobody else has it, others may think what they thought (RFC 4429 §3.3).
        let overrides = interface.standing(target.into()) == Some(Standing::Held);
        if src.is_unspecified() {
            // Somebody would like to have our address: all are told that it is taken (RFC 4862 §5.4.3).
            icmpv6::emit_advertisement(room(&mut frame), ours, ipv6::ALL_NODES, overrides);
            self.transmit(&mut frame, ipv6::group_mac(ipv6::ALL_NODES), tx);
        } else {
            icmpv6::emit_advertisement(room(&mut frame), ours, src, overrides);
            self.send(&mut frame, src.into(), now, tx);
        }
        news
    }

    /// Takes an answer, or what a neighbour says unasked: only of those known or asked for. Returns what
    /// is new.
    pub fn on_advertisement(
        &mut self,
        told: &Advertisement,
        now: Instant,
        tx: &mut impl Transmit,
    ) -> Option<News> {
        let Advertisement { target, target_mac, solicited: _, overrides } = *told;
        let (addr, mac) = (IpAddr::V6(target), target_mac?);
        if !self.is_believable(addr, mac) {
            return None;
        }
        match self.known(addr) {
            // Nobody has asked for it (RFC 4861 §7.2.5).
            None => None,
            // One that does not replace what is known only casts doubt on it.
            Some(Some(known)) if known != mac && !overrides => None,
            Some(_) => {
                let heard = News { addr, mac };
                self.learn(heard, now, tx).then_some(heard)
            }
        }
    }

    /// Asks for an address: those who may have it, or where it was when it was last heard of.
    pub(super) fn solicit(&self, target: Ipv6Addr, at: Option<MacAddr>, tx: &mut impl Transmit) {
        let Some(IpAddr::V6(src)) = self.interface().source_for(target.into()) else { return };
        let group = ipv6::solicited_node(target);
        let (dst, dst_mac) = match at {
            Some(mac) => (target, mac),
            None => (group, ipv6::group_mac(group)),
        };
        let mut frame = [0; ethernet::HEADER_LEN + MAX_DISCOVERY_LEN];
        // Who answers asks back then, and does not replace what it knows (RFC 4429 §3.2).
        let is_sure = self.interface().standing(src.into()) == Some(Standing::Held);
        let ours = (src, is_sure.then_some(self.interface().mac));
        let len = icmpv6::emit_solicitation(room(&mut frame), ours, dst, target);
        self.transmit(&mut frame[..ethernet::HEADER_LEN + len], dst_mac, tx);
    }

    fn transmit(&self, frame: &mut [u8], dst: MacAddr, tx: &mut impl Transmit) {
        ethernet::emit(frame, dst, self.interface().mac, None, ethernet::IPV6);
        tx.send(frame);
    }
}

/// What is behind the Ethernet header.
fn room(frame: &mut [u8]) -> &mut [u8] {
    &mut frame[ethernet::HEADER_LEN..]
}

#[cfg(test)]
mod tests {
    use super::super::Interface;
    use super::super::hash::HashKey;
    use super::super::neighbour::Sent;
    use super::*;
    use crate::wire::icmpv6::Message;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const OUR_ADDR: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const PEER_ADDR: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x77, 9);

    fn table() -> Neighbours {
        let interface = Interface::new(US, 1500)
            .with_address(OUR_ADDR, 64)
            .with_gateway("fe80::1".parse::<Ipv6Addr>().unwrap());
        Neighbours::new(interface, HashKey::new([1, 2]))
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// Destinations, source, and what a frame says.
    fn parse(frame: &[u8]) -> (MacAddr, Ipv6Addr, Ipv6Addr, Message) {
        let header = ethernet::parse(frame).unwrap();
        assert_eq!((header.src, header.ethertype), (US, ethernet::IPV6));
        let ip = ipv6::parse(&frame[14..]).unwrap();
        let message = icmpv6::parse(&ip, ip.payload(&frame[14..])).unwrap();
        (header.dst, ip.dst, ip.src, message)
    }

    fn answer(mac: MacAddr, overrides: bool) -> Advertisement {
        Advertisement { target: PEER_ADDR, target_mac: Some(mac), solicited: true, overrides }
    }

    fn question(source_mac: Option<MacAddr>) -> Solicitation {
        Solicitation { target: OUR_ADDR, source_mac, nonce: None }
    }

    #[test]
    fn a_frame_waits_for_the_answer_to_the_question_it_caused() {
        let (mut table, mut tx) = (table(), Vec::new());
        assert_eq!(table.send(&mut [7; 80], PEER_ADDR.into(), ms(0), &mut tx), Sent::Waits);
        let (mac, dst, src, message) = parse(&tx.pop().unwrap());
        assert_eq!(mac, MacAddr([0x33, 0x33, 0xff, 0x77, 0, 9]));
        assert_eq!((dst, src), ("ff02::1:ff77:9".parse().unwrap(), OUR_ADDR));
        let asked = Solicitation { target: PEER_ADDR, source_mac: Some(US), nonce: None };
        assert_eq!(message, Message::Solicitation(asked));

        let news = table.on_advertisement(&answer(PEER, true), ms(2), &mut tx);
        assert_eq!(news, Some(News { addr: PEER_ADDR.into(), mac: PEER }));
        let frame = tx.pop().unwrap();
        let header = ethernet::parse(&frame).unwrap();
        assert_eq!((header.dst, header.ethertype, frame.len()), (PEER, ethernet::IPV6, 80));
        assert!(tx.is_empty());
    }

    #[test]
    fn an_old_mapping_is_asked_for_where_it_was() {
        let (mut table, mut tx) = (table(), Vec::new());
        table.learn(News { addr: PEER_ADDR.into(), mac: PEER }, ms(0), &mut tx);
        assert_eq!(table.send(&mut [7; 80], PEER_ADDR.into(), ms(60_000), &mut tx), Sent::Yes);
        let (mac, dst, _, message) = parse(&tx[0]);
        assert_eq!((mac, dst), (PEER, PEER_ADDR));
        assert!(matches!(message, Message::Solicitation(asked) if asked.target == PEER_ADDR));
        assert_eq!(tx[1].len(), 80);
    }

    #[test]
    fn questions_for_us_are_answered_and_learnt_from() {
        let (mut table, mut tx) = (table(), Vec::new());
        let news = table.on_solicitation(PEER_ADDR, &question(Some(PEER)), ms(0), &mut tx);
        assert_eq!(news, Some(News { addr: PEER_ADDR.into(), mac: PEER }));
        let (mac, dst, src, message) = parse(&tx.pop().unwrap());
        assert_eq!((mac, dst, src), (PEER, PEER_ADDR, OUR_ADDR));
        let Message::Advertisement(told) = message else { panic!("an answer") };
        assert_eq!((told.target, told.target_mac, told.solicited), (OUR_ADDR, Some(US), true));
        // One that does not say where it is was heard of before.
        assert_eq!(table.on_solicitation(PEER_ADDR, &question(None), ms(1), &mut tx), None);
        assert_eq!(parse(&tx.pop().unwrap()).0, PEER);

        let other = Solicitation { target: PEER_ADDR, source_mac: Some(PEER), nonce: None };
        assert_eq!(table.on_solicitation(PEER_ADDR, &other, ms(2), &mut tx), None);
        let ours = table.interface().link_local().unwrap();
        let link_local = Solicitation { target: ours, source_mac: Some(PEER), nonce: None };
        table.on_solicitation(PEER_ADDR, &link_local, ms(3), &mut tx);
        assert_eq!(parse(&tx.pop().unwrap()).2, ours);
        assert!(tx.is_empty());
    }

    #[test]
    fn whoever_would_like_our_address_is_told_that_it_is_taken() {
        let (mut table, mut tx) = (table(), Vec::new());
        let none = Ipv6Addr::UNSPECIFIED;
        assert_eq!(table.on_solicitation(none, &question(None), ms(0), &mut tx), None);
        let (mac, dst, _, message) = parse(&tx.pop().unwrap());
        assert_eq!((mac, dst), (MacAddr([0x33, 0x33, 0, 0, 0, 1]), ipv6::ALL_NODES));
        assert!(matches!(message, Message::Advertisement(told) if !told.solicited));
    }

    #[test]
    fn nobody_is_believed_about_what_was_not_asked_or_is_ours() {
        let (mut table, mut tx) = (table(), Vec::new());
        assert_eq!(table.on_advertisement(&answer(PEER, true), ms(0), &mut tx), None, "not asked");
        table.learn(News { addr: PEER_ADDR.into(), mac: PEER }, ms(0), &mut tx);
        let moved = MacAddr([2, 0, 0, 0, 0, 10]);
        assert_eq!(table.on_advertisement(&answer(moved, false), ms(1), &mut tx), None);
        assert!(table.on_advertisement(&answer(moved, true), ms(2), &mut tx).is_some());
        for target in [OUR_ADDR, Ipv6Addr::UNSPECIFIED, "2001:db8::1".parse().unwrap()] {
            let told = Advertisement { target, ..answer(PEER, true) };
            assert_eq!(table.on_advertisement(&told, ms(3), &mut tx), None, "{target}");
        }
        let group = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(table.on_advertisement(&answer(group, true), ms(4), &mut tx), None);
        let spoofed = table.on_solicitation(OUR_ADDR, &question(Some(PEER)), ms(5), &mut tx);
        assert!(spoofed.is_none() && tx.is_empty());
    }

    #[test]
    fn what_is_off_the_link_goes_to_the_gateway() {
        let (mut table, mut tx) = (table(), Vec::new());
        let far = "2001:db8::7".parse().unwrap();
        assert_eq!(table.send(&mut [7; 80], far, ms(0), &mut tx), Sent::Waits);
        let (_, _, src, message) = parse(&tx.pop().unwrap());
        // The router is asked for from the address that it shares a link with.
        assert_eq!(Some(src), table.interface().link_local());
        let router: Ipv6Addr = "fe80::1".parse().unwrap();
        assert!(matches!(message, Message::Solicitation(asked) if asked.target == router));
        table.learn(News { addr: router.into(), mac: PEER }, ms(1), &mut tx);
        assert_eq!(ethernet::parse(&tx[0]).unwrap().dst, PEER);
    }
}
