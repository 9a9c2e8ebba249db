//! Who holds the pool's buffers, and how they are won back when it runs out.
//!
//! Called by the engine on its lcore's thread: at each end of a visit, which costs a comparison, and
//! once per poll while the pool is under pressure, or somebody asks who its holders are. The work of
//! each call is bounded, however many sockets there are; nothing here waits for a thread that owns one.

use std::fmt;
use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::buf::{PacketBuf, Spare};
use crate::socket::Mode;
use crate::tcp::tcb::Queues;
use crate::wire::FourTuple;

use super::Transmit;
use super::hoards::{HOARD, Hoards};
use super::slab::Key;
use super::tables::{SocketSlot, Tables};
use super::work::Work;

/// Bytes copied in one call of [`Tables::relieve`], and a buffer's worth: a few microseconds.
const COPIED: usize = 64 * 1024;

/// Sockets that one call looks at beside the list, and how many of all it asks at most.
const SWEPT: u32 = 32;
const ASKED: usize = 8;

/// Sockets that one call of [`Tables::find_holders`] looks at.
const SCANNED: u32 = 256;

/// Holders that are told.
const TOLD: usize = 16;

/// One of the largest holders of an lcore's buffers.
///
/// ```
/// use prequeue::lcore::Holder;
///
/// /// The peer that makes us hold most.
/// fn worst(holders: &[Holder]) -> Option<std::net::SocketAddr> {
///     holders.iter().max_by_key(|holder| holder.rmem).map(|holder| holder.peer)
/// }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// Truesize charged to the connection, in bytes: its queues, what readers have, slices handed
    /// out. The backlog is not in it.
    pub rmem: u32,
    /// Buffers in the backlog.
    pub backlog: usize,
    /// Where the buffers are; `None` if a thread owns the socket.
    pub queues: Option<Queues>,
}

impl Holder {
    pub(super) fn new(tuple: &FourTuple, rmem: u32, backlog: usize) -> Self {
        Self { local: tuple.local(), peer: tuple.remote(), rmem, backlog, queues: None }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, peer, rmem, backlog, queues } = self;
        write!(f, "{peer} at port {}: {} KiB", local.port(), rmem.div_ceil(1024))?;
        if let Some(Queues { receive_queue, out_of_order, with_readers }) = queues {
            write!(
                f,
                " ({receive_queue} buffers in the receive queue, {out_of_order} above holes, \
                 {with_readers} bytes with readers)"
            )?;
        }
        if *backlog > 0 {
            write!(f, ", {backlog} segments in the backlog of a guard")?;
        }
        Ok(())
    }
}

/// A look for the largest holders that is under way: see
/// [`Engine::find_holders`](super::Engine::find_holders).
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::lcore::{Engine, Holder, HolderScan};
///
/// fn holders(engine: &mut Engine<HeapBuf>) -> Vec<Holder> {
///     let mut scan = HolderScan::default();
///     loop {
///         if let Some(holders) = engine.find_holders(&mut scan) {
///             return holders;
///         }
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct HolderScan {
    next: u32,
    /// The largest so far, largest first.
    largest: SmallVec<[(u32, Key); TOLD]>,
}

impl HolderScan {
    fn note(&mut self, held: u32, key: Key) {
        let place = self.largest.partition_point(|(other, _)| *other >= held);
        if place < TOLD {
            self.largest.truncate(TOLD - 1);
            self.largest.insert(place, (held, key));
        }
    }
}

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// Asks the largest holders on the list, and then a few sockets in turn, until enough was copied.
    pub(super) fn relieve(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        spare: &mut impl Spare<B>,
    ) -> u32 {
        let (mut copied, mut won, mut asked) = (0, 0, 0);
        while copied < COPIED
            && asked < ASKED
            && let Some(index) = self.largest_hoard().or_else(|| self.next_of_all())
        {
            asked += 1;
            let one = self.relieve_one(work, index, spare, COPIED - copied);
            copied += one.copied;
            won += one.buffers;
        }
        won
    }

    /// The one on the list that promises most.
    fn largest_hoard(&mut self) -> Option<u32> {
        let Self { hoards: Hoards(list), sockets, .. } = self;
        list.retain(|key| match sockets.get_mut(*key) {
            Some(slot) => {
                slot.account.listed = slot.held() >= HOARD;
                slot.account.listed
            }
            None => false,
        });
        let promises = |key: &Key| sockets.get(*key).map_or(0, SocketSlot::promises);
        let (promised, key) =
            list.iter().map(|key| (promises(key), key)).max_by_key(|(n, _)| *n)?;
        (promised > 0).then_some(key.index)
    }

    /// The next of all sockets that promises anything, if it is not far.
    fn next_of_all(&mut self) -> Option<u32> {
        let slots = self.sockets.slots();
        for _ in 0..SWEPT.min(slots) {
            let index = self.swept % slots;
            self.swept = index + 1;
            if self.sockets.at(index).is_some_and(|slot| slot.promises() > 0) {
                return Some(index);
            }
        }
        None
    }

    pub(super) fn find_holders(&mut self, scan: &mut HolderScan) -> Option<Vec<Holder>> {
        let slots = self.sockets.slots();
        let end = slots.min(scan.next.saturating_add(SCANNED));
        for index in scan.next..end {
            if let Some(slot) = self.sockets.at(index)
                && let Some(key) = self.sockets.key_at(index)
                && slot.held() > 0
            {
                scan.note(slot.held(), key);
            }
        }
        scan.next = end;
        if end < slots {
            return None;
        }
        let HolderScan { largest, .. } = std::mem::take(scan);
        Some(largest.into_iter().filter_map(|(_, key)| self.holder(key)).collect())
    }
}
