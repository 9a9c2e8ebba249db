//! ICMP: pings are answered, and errors find the connection, request or record that they are about.
//!
//! Called by the engine on its lcore's thread. RSS brings an error to any lcore: what it says goes round
//! the others until one knows the connection. An error never makes anything grow, and is told nobody if
//! it quotes what we cannot have sent.

use std::net::IpAddr;

use crate::buf::PacketBuf;
use crate::socket::{Deferred, Mode};
use crate::tcp::Counter;
use crate::tcp::icmp::Report;
use crate::wire::icmp::{self, Kind, Malformed, Message};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{FourTuple, ethernet};

use super::Transmit;
use super::flow::Target;
use super::mesh::Told;
use super::tables::Tables;
use super::work::Work;

/// Longest echo request that is answered: the frame is built on the stack.
const ECHO_LEN: usize = ethernet::HEADER_LEN + 1500;

impl<T: Transmit> Work<'_, T> {
    /// An ICMP message for our address: a ping is answered, an error about a TCP segment of ours
    /// returned, everything counted.
    pub(super) fn on_icmp(&mut self, ip: &Ipv4, message: &[u8]) -> Option<Told> {
        self.bump(Counter::IcmpInMsgs);
        match icmp::parse(message) {
            Ok(Message::EchoRequest) => {
                self.answer_echo(ip.src.into(), |room| icmp::echo_reply(room, ip, message));
                None
            }
            Ok(Message::EchoReply | Message::Other) => None,
            Ok(Message::Error(error)) => self.on_icmp_error(&error),
            Err(malformed) => {
                self.count_malformed(malformed);
                None
            }
        }
    }

    pub(super) fn count_malformed(&mut self, malformed: Malformed) {
        self.bump(Counter::IcmpInErrors);
        if malformed == Malformed::BadChecksum {
            self.bump(Counter::IcmpInCsumErrors);
        }
    }

    fn on_icmp_error(&mut self, error: &icmp::Error) -> Option<Told> {
        let icmp::Error { kind, quoted } = *error;
        self.bump(match kind {
            Kind::Unreachable(_) | Kind::TooBig(_) => Counter::IcmpInDestUnreachs,
            Kind::SourceQuench => Counter::IcmpInSrcQuenchs,
            Kind::Redirect => Counter::IcmpInRedirects,
            Kind::TimeExceeded(_) => Counter::IcmpInTimeExcds,
            Kind::ParameterProblem => Counter::IcmpInParmProbs,
        });
        let report = Report::of_v4(kind, self.base.settings.min_pmtu);
        // Linux asks the connection even about a source quench, and only then ignores it.
        let is_asked = report.is_some() || kind == Kind::SourceQuench;
        if !is_asked || quoted.protocol != ipv4::TCP {
            return None;
        }
        let (local_addr, remote_addr) = (quoted.src.into(), quoted.dst.into());
        if !self.base.interface.is_ours(local_addr) {
            self.bump(Counter::IcmpInErrors);
            return None;
        }
        let (local_port, remote_port, seq) = quoted.tcp();
        let tuple = FourTuple { local_addr, remote_addr, local_port, remote_port };
        Some(Told { tuple, seq, report })
    }

    /// Answers the ping of `src` with what `reply` writes, within the limit; one too long for the room is
    /// not answered.
    pub(super) fn answer_echo(
        &mut self,
        src: IpAddr,
        reply: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let mut frame = [0; ECHO_LEN];
        let at = ethernet::HEADER_LEN;
        let Some(len) = reply(&mut frame[at..]) else { return };
        self.bump(Counter::InEchos);
        if self.base.echoes.permits(self.now) {
            self.bump(Counter::OutEchoReps);
            self.send_datagram(&mut frame[..at + len], src);
        } else {
            self.bump(Counter::EchosSkipped);
        }
    }
}

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// An error about a segment of some connection. `origin` is the lcore that received it, if another.
    #[cold]
    pub(super) fn on_told(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        told: &Told,
        origin: Option<usize>,
    ) {
        let Told { tuple, seq, report } = *told;
        match self.flows.look_up(&tuple) {
            Some(Target::Socket(index)) => {
                if let Some(report) = report {
                    self.visit(work, index, Deferred::Icmp(seq, report));
                }
            }
            Some(Target::Request(index)) => {
                if let Some(report) = report {
                    self.on_request_icmp(work, index, seq, report);
                }
            }
            Some(Target::TimeWait(_)) => {}
            None => match &mut self.mesh {
                Some(mesh) if origin != Some(mesh.id()) => {
                    mesh.tell_error(*told, origin.unwrap_or(mesh.id()));
                }
                _ => work.bump(Counter::IcmpInErrors),
            },
        }
    }
}
