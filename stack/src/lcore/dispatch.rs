//! What a frame is, before any connection is asked: admission, ARP, which datagrams are ICMP.
//!
//! Called by the engine on its lcore's thread. A segment that finds its connection in the flow table
//! is not examined here beyond its Ethernet address and VLAN, because whatever made that entry was; all
//! else is admitted by the rules of RFC 1122 §3.2 and counted. Nothing is put together.

use std::net::IpAddr;

use crate::buf::{Checksum, PacketBuf};
use crate::tcp::Counter;
use crate::wire::ethernet::{self, Delivery};
use crate::wire::frame::{self, Reject, TcpFrame};
use crate::wire::tcp::TcpError;
use crate::wire::{FourTuple, arp, ipv4, ipv6, parse_tcp};

use super::Transmit;
use super::chain;
use super::mesh::Told;
use super::neighbour::News;
use super::work::Work;

/// What became of a frame.
#[derive(Debug)]
pub(super) enum Frame {
    /// It is a TCP segment for our Ethernet address, to be looked up.
    Tcp(TcpFrame),
    /// It was dealt with, or dropped, and counted.
    Done,
    /// It taught us about a neighbour that the other lcores do not know.
    News(News),
    /// Somebody else has an address of ours, which is given up.
    Lost(IpAddr),
    /// It tells of a segment of ours that did not arrive.
    Told(Told),
    /// It is a fragment of a TCP segment, for our Ethernet address.
    Fragment,
}

impl<T: Transmit> Work<'_, T> {
    /// Counts a datagram that is not for others by its ECN field, whatever it carries and may be wrong with
    /// it, as Linux does.
    pub fn count_ecn(&mut self, frame: &[u8]) {
        if ethernet::delivery(frame, self.base.interface.mac) != Delivery::Other
            && let Some(field) = frame::ecn(frame)
        {
            self.bump(Counter::of_ecn(field));
        }
    }

    /// Parses a segment that was found to be one, with right checksums; counts what is wrong.
    #[inline(always)]
    pub fn parse<B: PacketBuf>(&mut self, frame: &mut B) -> Option<TcpFrame> {
        let parsed = match frame.rest() {
            None => frame::parse_checked(frame.data()),
            Some(_) => chain::parse(frame, Checksum::Good),
        };
        match parsed {
            Ok(tcp) => Some(tcp),
            Err(reject) => {
                self.count_reject(reject);
                None
            }
        }
    }

    /// The same for a frame in several buffers, of which nothing is known yet. One that is not TCP is
    /// none of ours: what else is answered is shorter.
    pub fn classify_chain<B: PacketBuf>(&mut self, frame: &mut B) -> Frame {
        frame.gather(ethernet::HEADER_LEN);
        if ethernet::delivery(frame.data(), self.base.interface.mac) != Delivery::Us {
            return Frame::Done;
        }
        match chain::parse(frame, frame.checksum()) {
            Ok(tcp) if is_tagged(&tcp) => {
                self.bump(Counter::InAddrErrors);
                Frame::Done
            }
            Ok(tcp) => Frame::Tcp(tcp),
            Err(Reject::Fragment) => Frame::Fragment,
            Err(reject) => {
                self.count_reject(reject);
                Frame::Done
            }
        }
    }

    /// Parses any frame and deals with whatever is not TCP.
    pub fn classify(&mut self, frame: &[u8], checksum: Checksum) -> Frame {
        let delivery = ethernet::delivery(frame, self.base.interface.mac);
        if delivery == Delivery::Us {
            match parse_tcp(frame, checksum) {
                Ok(tcp) if is_tagged(&tcp) => {
                    self.bump(Counter::InAddrErrors);
                    return Frame::Done;
                }
                Ok(tcp) => return Frame::Tcp(tcp),
                // What is wrong with headers of IPv6 may have to be answered.
                Err(Reject::NotTcp | Reject::Ip6(_)) => {}
                Err(Reject::Fragment) => return Frame::Fragment,
                Err(reject) => {
                    self.count_reject(reject);
                    return Frame::Done;
                }
            }
        }
        self.classify_other(frame, checksum, delivery)
    }

    /// Whether a segment that has no connection may have one, or an answer: it must be for our
    /// address, and from an address to which an answer can be sent (RFC 1122 §3.2.1.3, RFC 9293
    /// MUST-57 and MUST-63).
    pub fn admits(&mut self, tcp: &TcpFrame) -> bool {
        let FourTuple { local_addr, remote_addr, .. } = tcp.tuple;
        self.admits_ends(remote_addr, local_addr)
    }

    /// The same, of any datagram. Nobody else has our address, whatever port it claims to send from.
    pub fn admits_ends(&mut self, src: IpAddr, dst: IpAddr) -> bool {
        let interface = &self.base.interface;
        let admitted = interface.is_ours(dst)
            && !is_martian_source(src)
            && !interface.is_group(src)
            && !interface.is_ours(src);
        if !admitted {
            self.bump(Counter::InAddrErrors);
        }
        admitted
    }

    /// ARP, ICMP, and what is for others.
    fn classify_other(&mut self, frame: &[u8], checksum: Checksum, delivery: Delivery) -> Frame {
        let Some(header) = ethernet::parse(frame) else { return Frame::Done };
        let payload = &frame[header.header_len..];
        let tagged = header.vlan.is_some_and(|id| id != 0);
        if tagged || delivery == Delivery::Other {
            return Frame::Done;
        }
        match (header.ethertype, delivery) {
            (ethernet::ARP, Delivery::Us | Delivery::Broadcast) => {
                arp::parse(payload).map_or(Frame::Done, |arp| self.on_arp(&arp))
            }
            (ethernet::IPV4, Delivery::Us) => {
                self.on_datagram(payload, checksum).map_or(Frame::Done, Frame::Told)
            }
            (ethernet::IPV6, Delivery::Us) => self.on_datagram6(payload, false),
            (ethernet::IPV6, Delivery::Multicast) => self.on_datagram6(payload, true),
            // TCP is not sent to groups, and a ping to one gets no answer (RFC 1122 §3.2.2.6).
            _ => Frame::Done,
        }
    }

    /// A datagram for our Ethernet address that is not TCP.
    fn on_datagram(&mut self, datagram: &[u8], checksum: Checksum) -> Option<Told> {
        let ip = match ipv4::parse(datagram, checksum) {
            Ok(ip) => ip,
            Err(error) => {
                self.count_reject(Reject::Ip(error));
                return None;
            }
        };
        let interface = &self.base.interface;
        let (src, dst) = (ip.src.into(), ip.dst.into());
        let counter = if !interface.is_ours(dst)
            || is_martian_source(src)
            || interface.is_group(src)
            || interface.is_ours(src)
        {
            Counter::InAddrErrors
        } else if ip.fragment {
            self.bump(Counter::ReasmReqds);
            Counter::ReasmFails
        } else if ip.protocol != ipv4::ICMP {
            Counter::InUnknownProtos
        } else {
            return self.on_icmp(&ip, ip.payload(datagram));
        };
        self.bump(counter);
        None
    }

    /// Counts what is wrong with a frame. Segments to other hosts are none of ours.
    #[cold]
    fn count_reject(&mut self, reject: Reject) {
        match reject {
            Reject::NotTcp => {}
            Reject::Fragment => {
                self.bump(Counter::ReasmReqds);
                self.bump(Counter::ReasmFails);
            }
            Reject::Ip(_) | Reject::Ip6(_) => self.bump(Counter::InHdrErrors),
            Reject::Tcp { dst, .. } if !self.base.interface.is_ours(dst) => {
                self.bump(Counter::InAddrErrors);
            }
            Reject::Tcp { error, .. } => {
                self.bump(Counter::InSegs);
                match error {
                    TcpError::Truncated | TcpError::BadLength => {}
                    TcpError::BadOffset => self.bump(Counter::InErrs),
                    TcpError::BadChecksum => {
                        self.bump(Counter::InErrs);
                        self.bump(Counter::InCsumErrors);
                    }
                }
            }
        }
    }
}

/// Whether a segment came by a VLAN: we are a member of none, and whoever is in one has no say in
/// the connections of this link. Identifier 0 is a priority alone (IEEE 802.1Q).
fn is_tagged(tcp: &TcpFrame) -> bool {
    tcp.vlan.is_some_and(|id| id != 0)
}

/// Whether no host may send from `addr` to another host: a segment from there is dropped silently.
fn is_martian_source(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => ipv4::is_martian_source(addr),
        IpAddr::V6(addr) => !ipv6::is_unicast(addr),
    }
}
