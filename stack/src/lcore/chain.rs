//! Frames in several buffers: what a device leaves of one that is longer than a buffer, and what
//! fragments have been put together to.
//!
//! Called by the engine on its lcore's thread where a frame is found not to be as usual, which one whose
//! buffer ends before its datagram never is. Headers are gathered into the first buffer; payload stays
//! where it is, to be queued buffer by buffer.

use crate::buf::{Checksum, PacketBuf};
use crate::wire::ethernet;
use crate::wire::frame::{self, MAX_CONTROL_LEN, Reject, TcpFrame};
use crate::wire::tcp::TcpError;
use crate::wire::{ipv4, ipv6, tcp};

/// Parses a TCP segment in several buffers, as [`frame::parse_tcp`] does one in one buffer. Its headers are in
/// the first buffer then.
pub(super) fn parse<B: PacketBuf>(frame: &mut B, checksum: Checksum) -> Result<TcpFrame, Reject> {
    let present = len(frame);
    // A frame that is all headers, and too long for the buffer with that, is none of ours.
    frame.gather(present.min(MAX_CONTROL_LEN));
    let data = frame.data();
    let mut head = [0; MAX_CONTROL_LEN];
    let head = &mut head[..data.len().min(MAX_CONTROL_LEN)];
    head.copy_from_slice(&data[..head.len()]);

    let ethernet = ethernet::parse(head).ok_or(Reject::NotTcp)?;
    let at = ethernet.header_len;
    let datagram = &mut head[at..];
    if checksum != Checksum::Good && ethernet.ethertype == ethernet::IPV4 {
        // The device has not seen it as a whole either, or found it wrong.
        ipv4::verify_header(datagram).map_err(Reject::Ip)?;
    }
    let end = frame::end_of_datagram(frame.data()).ok_or(Reject::NotTcp)?;
    if end <= present {
        // The parser is shown as much of the datagram as there is at hand, and told that this is all.
        let len = datagram.len().min(end - at);
        match ethernet.ethertype {
            ethernet::IPV4 => ipv4::set_total_len(datagram, len),
            _ => ipv6::set_total_len(datagram, len),
        }
    }
    let mut tcp = frame::parse_tcp(head, Checksum::Good)?;
    tcp.segment.len = (end - usize::from(tcp.payload)) as u32;
    if checksum != Checksum::Good && !is_intact(frame, &tcp, end) {
        let dst = tcp.tuple.local_addr;
        return Err(Reject::Tcp { dst, error: TcpError::BadChecksum });
    }
    Ok(tcp)
}

/// Cuts a frame that [`parse`] has parsed down to its payload, still in several buffers, unless all of
/// it was in the first.
pub(super) fn cut_to_payload<B: PacketBuf>(frame: &mut B, tcp: &TcpFrame) {
    frame.trim_front(usize::from(tcp.payload));
    frame.cut_chain(tcp.segment.len as usize);
}

/// Bytes in all its buffers.
fn len<B: PacketBuf>(frame: &B) -> usize {
    buffers(frame).map(PacketBuf::len).sum()
}

fn buffers<B: PacketBuf>(frame: &B) -> impl Iterator<Item = &B> {
    std::iter::successors(Some(frame), |buf| buf.rest())
}

/// Whether the TCP checksum of a segment that ends at `end` is right.
fn is_intact<B: PacketBuf>(frame: &B, tcp: &TcpFrame, end: usize) -> bool {
    let start = usize::from(tcp.header);
    let mut sum = tcp::pseudo_header(&tcp.tuple, (end - start) as u32);
    let mut at = 0;
    for buf in buffers(frame) {
        let data = buf.data();
        let first = start.saturating_sub(at).min(data.len());
        let last = end.saturating_sub(at).min(data.len());
        if first < last {
            sum = sum.plus_at(at + first - start, &data[first..last]);
        }
        at += data.len();
    }
    sum.is_valid()
}
