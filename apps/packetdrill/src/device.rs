//! The link between packetdrill, which speaks IP, and the engine, which speaks Ethernet.
//!
//! Called under the clock's lock. It puts a header in front of what comes in, takes it off what goes
//! out, keeps that in order until it is asked for, and is the one neighbour on the link: it answers
//! whoever is asked for by ARP. It changes no packet and loses none.

use std::collections::VecDeque;
use std::mem;
use std::net::Ipv4Addr;

use prequeue::buf::HeapBuf;
use prequeue::lcore::{Interface, Transmit};
use prequeue::time::Instant;
use prequeue::wire::arp::{self, Operation};
use prequeue::wire::{MacAddr, ethernet};

/// Our address on the link, locally administered.
const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// Everybody else's.
const NEIGHBOUR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Of 255.255.0.0, the mask that packetdrill assumes for IPv4.
const PREFIX_LEN: u8 = 16;

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
    pub fn interface(addr: Ipv4Addr, mtu: u16) -> Interface {
        let gateway = Ipv4Addr::from_bits(addr.to_bits() ^ 0xfe);
        Interface::new(US, mtu).with_address(addr, PREFIX_LEN).with_gateway(gateway)
    }

    /// The frame in which an IPv4 packet arrives, put together from segments of `mss` bytes if it
    /// is larger, and the size is not 0.
    pub fn frame(packet: &[u8], mss: u32) -> HeapBuf {
        let mut frame = vec![0; ethernet::HEADER_LEN + packet.len()];
        let at = ethernet::emit(&mut frame, US, NEIGHBOUR, None, ethernet::IPV4);
        frame[at..].copy_from_slice(packet);
        let buf = HeapBuf::new(&frame).with_room(truesize(packet.len()) - HeapBuf::OVERHEAD);
        let is_merged = mss != 0 && payload_len(packet) > mss as usize;
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

/// The payload in bytes of an IPv4 packet with TCP.
fn payload_len(packet: &[u8]) -> usize {
    let words = |byte: u8| usize::from(byte) * 4;
    let ip = packet.first().map_or(0, |first| words(first & 0xf));
    let tcp = packet.get(ip + 12).map_or(0, |offset| words(offset >> 4));
    packet.len().saturating_sub(ip + tcp)
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
            ethernet::IPV4 => {
                self.sent.push_back(Packet { bytes: packet.to_vec(), at: self.now });
            }
            ethernet::ARP => self.answer(packet),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

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

    #[test]
    fn packets_lose_their_frame_and_keep_order_and_time() {
        let mut device = Device::default();
        for (ms, packet) in [(5, [1, 2]), (7, [3, 4])] {
            device.set_now(Instant::from_millis(ms));
            device.send(&sent_frame(ethernet::IPV4, &packet));
        }
        device.send(&sent_frame(0x86dd, &[9]));
        let sent: Vec<_> = std::iter::from_fn(|| device.take_sent()).collect();
        let times: Vec<_> = sent.iter().map(|packet| packet.at.as_millis()).collect();
        assert_eq!((times, &sent[1].bytes[..]), (vec![5, 7], &[3, 4][..]));
        assert_eq!(&Device::frame(&[3, 4], 0).data()[12..], [8, 0, 3, 4]);
    }

    #[test]
    fn what_is_larger_than_a_segment_was_merged() {
        let packet = |payload: usize| {
            let mut packet = vec![0; 20 + 32 + payload];
            (packet[0], packet[32]) = (0x45, 0x80);
            packet
        };
        for (payload, mss, merged_from) in
            [(1000, 1000, None), (1001, 1000, Some(1000)), (9000, 0, None), (0, 1000, None)]
        {
            assert_eq!(Device::frame(&packet(payload), mss).merged_from(), merged_from);
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
            assert_eq!(Device::frame(&vec![0; 40 + payload], 0).truesize(), charged, "{payload}");
        }
    }

    #[test]
    fn every_arp_request_is_answered_by_the_neighbour() {
        let ours = Ipv4Addr::new(192, 168, 0, 1);
        let interface = Device::interface(ours, 1500);
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
}
