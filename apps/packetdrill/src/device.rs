//! The link between packetdrill, which speaks IP, and the engine, which speaks Ethernet.
//!
//! Called under the clock's lock. It puts a header in front of what comes in, takes it off what goes
//! out, keeps that in order until it is asked for, and is the one neighbour on the link: it answers
//! whoever is asked for, by ARP or neighbour discovery. It changes no packet and loses none.

use std::collections::VecDeque;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prequeue::buf::HeapBuf;
use prequeue::lcore::{Interface, Transmit};
use prequeue::time::Instant;
use prequeue::wire::arp::{self, Operation};
use prequeue::wire::icmpv6::{self, Message};
use prequeue::wire::{MacAddr, ethernet, ipv6};

use crate::address::Head;

/// Our address on the link, locally administered.
const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// Everybody else's.
const NEIGHBOUR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Of 255.255.0.0, the mask that packetdrill assumes for IPv4, and its prefix of IPv6.
const PREFIX_LEN: (u8, u8) = (16, 64);

/// Where packetdrill has us if nobody says another place.
const USUAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd3d, 0x0a0b, 0x17d6, 0, 0, 0, 0, 1)),
];

/// The router of IPv6, in the place where the interface has it.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);

/// Messages of ICMPv6 that are between the hosts of a link: groups, routers, neighbours.
const OF_THE_LINK: std::ops::RangeInclusive<u8> = 130..=143;

/// A packet that has left the stack.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// When it left.
    pub at: Instant,
}

/// The device.
#[derive(Debug, Default)]
pub struct Device {
    now: Instant,
    sent: VecDeque<Packet>,
    answers: Vec<HeapBuf>,
}

impl Device {
    /// The interface for a host at `addr`. Its gateway is the one to ask about everything off the
    /// link, at an address that packetdrill gives to nobody.
    pub fn interface(addr: IpAddr, mtu: u16) -> Interface {
        let interface = Interface::new(US, mtu);
        match addr {
            addr if addr.is_unspecified() => USUAL.into_iter().fold(interface, with),
            addr => with(interface, addr),
        }
    }

    /// The frame in which a packet arrives, put together from segments of `mss` bytes if it is larger,
    /// and the size is not 0.
    pub fn frame(packet: &[u8], head: &Head, mss: u32) -> HeapBuf {
        let mut frame = vec![0; ethernet::HEADER_LEN + packet.len()];
        let at = ethernet::emit(&mut frame, US, NEIGHBOUR, None, ethertype(head.to.ip()));
        frame[at..].copy_from_slice(packet);
        let buf = HeapBuf::new(&frame).with_room(truesize(packet.len()) - HeapBuf::OVERHEAD);
        let is_merged = mss != 0 && head.payload > mss as usize;
        if is_merged { buf.with_merged_from(mss) } else { buf }
    }

    /// Sets the time at which frames leave from now on.
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// The oldest packet that has left.
    pub fn take_sent(&mut self) -> Option<Packet> {
        self.sent.pop_front()
    }

    /// The neighbour's answers to what it was asked, for the engine.
    pub fn take_answers(&mut self) -> Vec<HeapBuf> {
        mem::take(&mut self.answers)
    }

    /// Answers a datagram of IPv6 that is between the hosts of the link; whether it is one.
    fn answers_on_link(&mut self, packet: &[u8]) -> bool {
        let Ok(ip) = ipv6::parse(packet) else { return false };
        let message = ip.payload(packet);
        let of_the_link = |kind| OF_THE_LINK.contains(kind);
        if ip.protocol != ipv6::ICMP || !message.first().is_some_and(of_the_link) {
            return false;
        }
        if let Ok(Message::Solicitation(asked)) = icmpv6::parse(&ip, message) {
            let mut frame = [0; ethernet::HEADER_LEN + icmpv6::MAX_DISCOVERY_LEN];
            let at = ethernet::emit(&mut frame, US, NEIGHBOUR, None, ethernet::IPV6);
            icmpv6::emit_advertisement(&mut frame[at..], (asked.target, NEIGHBOUR), ip.src, true);
            self.answers.push(HeapBuf::new(&frame));
        }
        true
    }

    fn answer(&mut self, packet: &[u8]) {
        let Some(question) = arp::parse(packet) else { return };
        if question.operation == Operation::Request {
            let mut frame = [0; ethernet::HEADER_LEN + arp::PACKET_LEN];
            let at = ethernet::emit(&mut frame, US, NEIGHBOUR, None, ethernet::ARP);
            arp::emit(&mut frame[at..], &question.reply(NEIGHBOUR));
            self.answers.push(HeapBuf::new(&frame));
        }
    }
}

/// An interface with an address more, and a router for its family.
fn with(interface: Interface, addr: IpAddr) -> Interface {
    match addr {
        IpAddr::V4(addr) => {
            let gateway = Ipv4Addr::from_bits(addr.to_bits() ^ 0xfe);
            interface.with_address(addr, PREFIX_LEN.0).with_gateway(gateway)
        }
        IpAddr::V6(addr) => interface.with_address(addr, PREFIX_LEN.1).with_gateway(ROUTER),
    }
}

fn ethertype(addr: IpAddr) -> u16 {
    if addr.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 }
}

/// What Linux charges for an IP packet from a TUN device, measured on 6.18 from 41 bytes to 60 KiB.
/// Scripts that were recorded there expect windows that follow from it.
fn truesize(packet: usize) -> usize {
    // Headroom and the packet in cache lines, and what the kernel keeps at the end of every buffer.
    let size = (64 + packet).next_multiple_of(64) + 320;
    let allocated = match size {
        ..=576 => 576,
        577..=8192 => size.next_power_of_two(),
        _ => size.next_multiple_of(4096),
    };
    allocated + 256
}

impl Transmit for Device {
    fn send(&mut self, frame: &[u8]) {
        let Some(header) = ethernet::parse(frame) else { return };
        let packet = &frame[header.header_len..];
        match header.ethertype {
            ethernet::IPV6 if self.answers_on_link(packet) => {}
            ethernet::IPV4 | ethernet::IPV6 => {
                self.sent.push_back(Packet { bytes: packet.to_vec(), at: self.now });
            }
            ethernet::ARP => self.answer(packet),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use prequeue::buf::PacketBuf;
    use prequeue::wire::Family;
    use prequeue::wire::arp::Arp;

    use super::*;

    fn sent_frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ethernet::HEADER_LEN];
        ethernet::emit(&mut frame, NEIGHBOUR, US, None, ethertype);
        frame.extend_from_slice(packet);
        frame
    }

    fn head(to: &str, payload: usize) -> Head {
        Head { to: SocketAddr::new(to.parse().unwrap(), 8080), payload }
    }

    #[test]
    fn packets_lose_their_frame_and_keep_order_and_time() {
        let mut device = Device::default();
        for (ms, packet) in [(5, [1, 2]), (7, [3, 4])] {
            device.set_now(Instant::from_millis(ms));
            device.send(&sent_frame(ethernet::IPV4, &packet));
        }
        device.send(&sent_frame(0x8847, &[9]));
        let sent: Vec<_> = std::iter::from_fn(|| device.take_sent()).collect();
        let times: Vec<_> = sent.iter().map(|packet| packet.at.as_millis()).collect();
        assert_eq!((times, &sent[1].bytes[..]), (vec![5, 7], &[3, 4][..]));
        for (to, ethertype) in [("192.168.0.1", [8, 0]), ("fd00::1", [0x86, 0xdd])] {
            let frame = Device::frame(&[3, 4], &head(to, 0), 0);
            assert_eq!(frame.data()[12..], [&ethertype[..], &[3, 4]].concat());
        }
    }

    #[test]
    fn what_is_larger_than_a_segment_was_merged() {
        for (payload, mss, merged_from) in
            [(1000, 1000, None), (1001, 1000, Some(1000)), (9000, 0, None), (0, 1000, None)]
        {
            let head = head("192.168.0.1", payload);
            let frame = Device::frame(&vec![0; 52 + payload], &head, mss);
            assert_eq!(frame.merged_from(), merged_from);
        }
    }

    #[test]
    fn packets_cost_what_they_cost_in_linux() {
        for (payload, charged) in [
            (1, 832),
            (100, 832),
            (200, 1280),
            (600, 1280),
            (700, 2304),
            (1600, 2304),
            (1700, 4352),
            (3600, 4352),
            (4000, 8448),
            (8000, 12_544),
            (20_000, 20_736),
            (30_000, 33_024),
            (50_000, 53_504),
            (60_000, 61_696),
        ] {
            let frame = Device::frame(&vec![0; 40 + payload], &head("192.168.0.1", payload), 0);
            assert_eq!(frame.truesize(), charged, "{payload}");
        }
    }

    #[test]
    fn every_arp_request_is_answered_by_the_neighbour() {
        let ours = Ipv4Addr::new(192, 168, 0, 1);
        let interface = Device::interface(ours.into(), 1500);
        let Some(IpAddr::V4(gateway)) = interface.gateway(Family::V4) else {
            panic!("there is a gateway")
        };
        assert!(interface.is_on_link(gateway.into()) && gateway != ours);
        let question = Arp {
            operation: Operation::Request,
            sender_mac: US,
            sender_addr: ours,
            target_mac: MacAddr::default(),
            target_addr: gateway,
        };
        let mut packet = [0; arp::PACKET_LEN];
        arp::emit(&mut packet, &question);
        let mut device = Device::default();
        device.send(&sent_frame(ethernet::ARP, &packet));
        let answers = device.take_answers();
        let answer = arp::parse(&answers[0].data()[ethernet::HEADER_LEN..]).unwrap();
        assert_eq!((answer.operation, answer.sender_addr), (Operation::Reply, gateway));
        assert_eq!((answer.sender_mac, answer.target_mac), (NEIGHBOUR, US));
        assert!(device.take_answers().is_empty() && device.take_sent().is_none());
    }

    #[test]
    fn every_solicitation_is_answered_by_the_neighbour_and_no_packet() {
        let ours: Ipv6Addr = "fd3d::1".parse().unwrap();
        let interface = Device::interface(ours.into(), 1500);
        assert_eq!(interface.next_hop("2001:db8::1".parse().unwrap()), Some(ROUTER.into()));
        assert!(interface.is_on_link(ROUTER.into()));
        let mut device = Device::default();
        let mut packet = [0; icmpv6::MAX_DISCOVERY_LEN];
        icmpv6::emit_solicitation(
            &mut packet,
            (ours, Some(US)),
            ipv6::solicited_node(ROUTER),
            ROUTER,
        );
        device.send(&sent_frame(ethernet::IPV6, &packet));
        let answers = device.take_answers();
        let answer = &answers[0].data()[ethernet::HEADER_LEN..];
        let ip = ipv6::parse(answer).unwrap();
        let told = icmpv6::parse(&ip, ip.payload(answer)).unwrap();
        let Message::Advertisement(told) = told else { panic!("{told:?}") };
        assert_eq!((told.target, told.target_mac, ip.dst), (ROUTER, Some(NEIGHBOUR), ours));
        assert!(device.take_answers().is_empty() && device.take_sent().is_none());
    }

    #[test]
    fn who_listens_everywhere_is_where_packetdrill_has_us() {
        let interface = Device::interface(Ipv4Addr::UNSPECIFIED.into(), 1500);
        for ours in ["192.168.0.1", "fd3d:a0b:17d6::1"] {
            assert!(interface.is_ours(ours.parse().unwrap()), "{ours}");
        }
    }
}
