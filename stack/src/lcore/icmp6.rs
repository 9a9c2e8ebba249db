//! What comes over IPv6 besides TCP: neighbour discovery, pings, errors, and what is answered by one.
//!
//! Called by the engine on its lcore's thread, for frames to our Ethernet address or to a group of ours.
//! Whatever arrives, the work is bounded and what is sent is limited; errors about connections go the
//! same way as those of IPv4.

use std::net::IpAddr;

use crate::tcp::Counter;
use crate::tcp::icmp::Report;
use crate::wire::fragment::Misfit;
use crate::wire::icmpv6::{self, Kind, MAX_ERROR_LEN, Message};
use crate::wire::ipv6::{self, Ipv6, Ipv6Error, Problem};
use crate::wire::{FourTuple, ethernet, ipv4};

use super::Transmit;
use super::dispatch::Frame;
use super::mesh::Told;
use super::work::Work;

impl<T: Transmit> Work<'_, T> {
    /// A datagram that is not a TCP segment as such, for our Ethernet address or that of a group.
    #[cold]
    pub(super) fn on_datagram6(&mut self, datagram: &[u8], to_group: bool) -> Frame {
        let ip = match ipv6::parse(datagram) {
            Ok(ip) => ip,
            Err(error) => {
                self.on_bad_datagram6(datagram, error, to_group);
                return Frame::Done;
            }
        };
        let interface = &self.base.interface;
        let is_for_us =
            if to_group { self.is_in_group(&ip) } else { interface.is_ours(ip.dst.into()) };
        // Groups of others come by for want of a better filter.
        if !is_for_us {
            if !to_group {
                self.bump(Counter::InAddrErrors);
            }
            return Frame::Done;
        }
        // Somebody else may say that it has an address of ours, from that address.
        if interface.is_ours(ip.src.into())
            && ip.protocol == ipv6::ICMP
            && !ip.fragment
            && let Ok(Message::Advertisement(told)) = icmpv6::parse(&ip, ip.payload(datagram))
        {
            return self.on_advertisement(&told);
        }
        // Whoever has no address yet may only ask whether one is free.
        let is_nobody = ip.src.is_unspecified() && ip.protocol == ipv6::ICMP;
        if interface.is_ours(ip.src.into()) || !(is_nobody || ipv6::is_unicast(ip.src)) {
            self.bump(Counter::InAddrErrors);
            return Frame::Done;
        }
        if ip.fragment {
            self.bump(Counter::ReasmReqds);
            self.bump(Counter::ReasmFails);
            return Frame::Done;
        }
        if ip.protocol == ipv6::ICMP {
            return self.on_icmp6(&ip, ip.payload(datagram), to_group);
        }
        // TCP is not sent to groups, and that to us was taken before.
        if !ipv6::is_empty(&ip) && ip.protocol != ipv4::TCP {
            self.bump(Counter::InUnknownProtos);
            self.tell_problem(datagram, Problem::of_protocol(&ip), to_group);
        }
        Frame::Done
    }

    /// An ICMPv6 message for an address of ours, or for a group that we are in.
    fn on_icmp6(&mut self, ip: &Ipv6, message: &[u8], to_group: bool) -> Frame {
        self.bump(Counter::IcmpInMsgs);
        match icmpv6::parse(ip, message) {
            Ok(Message::Solicitation(asked)) => return self.on_solicitation(ip.src, &asked),
            Ok(Message::Advertisement(told)) => return self.on_advertisement(&told),
            Ok(Message::Query(query)) => self.on_query(&query),
            Ok(Message::EchoRequest) => {
                // As with IPv4, a ping to a group gets no answer.
                if !to_group && !ip.src.is_unspecified() {
                    self.answer_echo(ip.src.into(), |room| icmpv6::echo_reply(room, ip, message));
                }
            }
            Ok(Message::Error(error)) => {
                return self.on_icmp6_error(&error).map_or(Frame::Done, Frame::Told);
            }
            Ok(Message::EchoReply | Message::Other) => {}
            Err(malformed) => self.count_malformed(malformed),
        }
        Frame::Done
    }

    fn on_icmp6_error(&mut self, error: &icmpv6::Error) -> Option<Told> {
        let icmpv6::Error { kind, quoted } = *error;
        self.bump(match kind {
            Kind::Unreachable(_) | Kind::TooBig(_) => Counter::IcmpInDestUnreachs,
            Kind::TimeExceeded(_) => Counter::IcmpInTimeExcds,
            Kind::ParameterProblem => Counter::IcmpInParmProbs,
        });
        if quoted.protocol != ipv4::TCP {
            return None;
        }
        let (local_addr, remote_addr) = (IpAddr::V6(quoted.src), IpAddr::V6(quoted.dst));
        if !self.base.interface.is_ours(local_addr) {
            self.bump(Counter::IcmpInErrors);
            return None;
        }
        let (local_port, remote_port, seq) = quoted.tcp();
        let tuple = FourTuple { local_addr, remote_addr, local_port, remote_port };
        Some(Told { tuple, seq, report: Report::of_v6(kind) })
    }

    /// What is not taken; whoever sent it is told if it has asked for that.
    fn on_bad_datagram6(&mut self, datagram: &[u8], error: Ipv6Error, to_group: bool) {
        if !to_group {
            self.bump(Counter::InHdrErrors);
        }
        if let Ipv6Error::Problem(problem) = error {
            self.tell_problem(datagram, problem, to_group);
        }
    }

    /// A fragment that cannot have a place, in a frame for our Ethernet address.
    #[cold]
    pub(super) fn on_misfit(&mut self, frame: &[u8], misfit: Misfit) {
        let Misfit { problem: Some(problem) } = misfit else { return };
        let link = ethernet::parse(frame).map_or(frame.len(), |ethernet| ethernet.header_len);
        self.tell_problem(&frame[link..], problem, false);
    }

    /// Tells the sender of a datagram what is wrong with it, within the limits (RFC 4443 §2.4).
    fn tell_problem(&mut self, datagram: &[u8], problem: Problem, to_group: bool) {
        let Some(ip) = ipv6::parse_fixed(datagram) else { return };
        let interface = &self.base.interface;
        let is_for_us = interface.is_ours(ip.dst.into()) || to_group && self.is_in_group(&ip);
        let may_be_told = is_for_us
            && (!to_group || problem.of_groups_too)
            && ipv6::is_unicast(ip.src)
            && !interface.is_ours(ip.src.into())
            && icmpv6::may_be_told(ip.protocol, ip.payload(datagram));
        let Some(IpAddr::V6(src)) =
            (if to_group { interface.source_for(ip.src.into()) } else { Some(ip.dst.into()) })
        else {
            return;
        };
        if !may_be_told || !self.base.problems.permits(self.now) {
            return;
        }
        self.bump(Counter::Icmp6OutParmProblems);
        let mut frame = [0; ethernet::HEADER_LEN + MAX_ERROR_LEN];
        let at = ethernet::HEADER_LEN;
        let datagram = &datagram[..ip.total_len];
        let len = icmpv6::emit_problem(&mut frame[at..], src, ip.src, problem, datagram);
        self.send_datagram(&mut frame[..at + len], ip.src.into());
    }

    /// Whether a datagram is for a group that we are in.
    fn is_in_group(&self, ip: &Ipv6) -> bool {
        self.base.interface.groups().any(|group| group == ip.dst)
    }
}
