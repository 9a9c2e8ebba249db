//! Fragments of TCP segments: which are given to the reassembly, if there is one, and what is counted.
//!
//! Called by the engine on its lcore's thread. Most stacks have none: a segment that is fragmented has
//! lost its protection against being spoofed, and path MTU discovery leaves no reason for it. What is
//! put together is checked as a frame that has just come.

use crate::buf::{Headers, Lost, PacketBuf};
use crate::socket::Mode;
use crate::tcp::Counter;
use crate::wire::ethernet;
use crate::wire::frame::end_of_datagram;
use crate::wire::ipv4::{self, Fragment};

use super::tables::Tables;
use super::work::Work;
use super::{Pressure, Transmit};

/// The longest datagram.
const LONGEST: usize = 65_535;

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// Takes a fragment for our Ethernet address; the frame of the whole segment if it is there now.
    pub(super) fn put_together(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        mut frame: B,
    ) -> Option<B> {
        work.bump(Counter::ReasmReqds);
        let headers = is_sound(&mut frame).filter(|_| work.base.pressure == Pressure::None);
        let (Some((headers, fragment)), Some(table)) = (headers, &mut self.fragments) else {
            work.bump(Counter::ReasmFails);
            return None;
        };
        // Before it takes memory: nobody else's, and from nobody who cannot be.
        if !work.admits_ends(fragment.src.into(), fragment.dst.into()) {
            return None;
        }
        let (whole, lost) = table.take(frame, headers, work.now);
        count(work, lost);
        if whole.is_some() {
            work.bump(Counter::ReasmOKs);
        }
        whole
    }

    /// Gives up what is too old, if it is time to look; whether there was something.
    pub(super) fn expire_fragments(&mut self, work: &mut Work<'_, impl Transmit>) -> bool {
        let Some(table) = &mut self.fragments else { return false };
        if table.next_deadline().is_none_or(|deadline| work.now < deadline) {
            return false;
        }
        let lost = table.expire(work.now);
        count(work, lost);
        true
    }
}

fn count(work: &mut Work<'_, impl Transmit>, lost: Lost) {
    let Lost { failed, timed_out } = lost;
    work.base.counters.add(Counter::ReasmFails, failed.into());
    work.base.counters.add(Counter::ReasmTimeout, timed_out.into());
}

/// Cuts the padding off a fragment; where its headers end, unless it cannot be part of a datagram: it has
/// no payload, ends where no other could begin, or beyond where a datagram ends.
fn is_sound<B: PacketBuf>(frame: &mut B) -> Option<(Headers, Fragment)> {
    let end = end_of_datagram(frame.data())?;
    let ethernet = ethernet::parse(frame.data())?;
    let link = ethernet.header_len;
    // Those of IPv6 are not put together.
    if ethernet.ethertype != ethernet::IPV4 {
        return None;
    }
    let fragment = ipv4::fragment(frame.data().get(link..)?)?;
    let headers = Headers { link, ip: fragment.header_len };
    let len = end.checked_sub(link + headers.ip)?;
    frame.cut_chain(end);
    let fits = fragment.offset + len + headers.ip <= LONGEST;
    let joins = !fragment.more || len.is_multiple_of(8);
    (len > 0 && fits && joins).then_some((headers, fragment))
}
