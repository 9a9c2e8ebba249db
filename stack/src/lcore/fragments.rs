//! Fragments of TCP segments: which are given to the reassembly, if there is one, and what is counted.
//!
//! Called by the engine on its lcore's thread. Most stacks have none: a segment that is fragmented has
//! lost its protection against being spoofed, and path MTU discovery leaves no reason for it. What is
//! put together is checked as a frame that has just come.

use crate::buf::{Headers, Lost, PacketBuf};
use crate::socket::Mode;
use crate::tcp::Counter;
use crate::wire::fragment::{self, Fragment, Misfit};
use crate::wire::{Family, ethernet};

use super::tables::Tables;
use super::work::Work;
use super::{Pressure, Transmit};

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// Takes a fragment for our Ethernet address; the frame of the whole segment if it is there now.
    pub(super) fn put_together(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        mut frame: B,
    ) -> Option<B> {
        work.bump(Counter::ReasmReqds);
        let Some(table) = self.fragments.as_mut().filter(|_| work.base.pressure == Pressure::None)
        else {
            work.bump(Counter::ReasmFails);
            return None;
        };
        let (headers, fragment) = match read(&frame) {
            Ok(fragment) => fragment,
            Err(misfit) => {
                work.bump(Counter::ReasmFails);
                work.on_misfit(frame.data(), misfit);
                return None;
            }
        };
        // Before it takes memory: nobody else's, and from nobody who cannot be.
        if !work.admits_ends(fragment.src, fragment.dst) {
            return None;
        }
        // Without its padding.
        frame.cut_chain(headers.link + headers.ip + fragment.len);
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

/// Where the headers of a fragment end, and what they say.
fn read(frame: &impl PacketBuf) -> Result<(Headers, Fragment), Misfit> {
    let silent = Misfit { problem: None };
    let ethernet = ethernet::parse(frame.data()).ok_or(silent)?;
    let family = match ethernet.ethertype {
        ethernet::IPV4 => Family::V4,
        ethernet::IPV6 => Family::V6,
        _ => return Err(silent),
    };
    let link = ethernet.header_len;
    let fragment = fragment::read(family, frame.data().get(link..).unwrap_or_default())?;
    Ok((Headers { family, link, ip: fragment.header_len }, fragment))
}
