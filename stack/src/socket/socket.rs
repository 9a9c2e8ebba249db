//! The socket: one connection, and everything that its lcore and application threads share of it.
//!
//! This file is what there is, and what of it is published. How a thread owns is in `ownership.rs`,
//! what applications hold in `handle.rs`, the lcore's side in `lcore_ref.rs`, reading in `recv.rs`.
//! A thread never runs TCP, never frees a buffer and never touches a counter.

use std::sync::Arc;

use crate::buf::{BufQueue, PacketBuf, Returns};
use crate::tcp::tcb::{ConnError, Sink, Tcb};
use crate::tcp::{PathError, SeqNum};
use crate::wire::FourTuple;

use super::conn::Connection;
use super::direct::{Loan, Offer, Slot};
use super::handle::Requests;
use super::home::Home;
use super::notice::{NotifyAt, Progress};
use super::options::Options;
use super::owner::{Last, LcoreClaim, Owned, Parcel, Ref};
use super::park::{Park, Status, UrgentRead, UrgentWord};
use super::poller::{Facts, Readiness, Watchers};
use super::recv::ReaderSide;
use super::ring::Producer;
use super::sync::{AtomicBool, AtomicU32, AtomicU64, FirstLine, Ordering};

/// Which socket: its place in its lcore's table, and how often the place was used before.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketId {
    /// Index in the lcore's table.
    pub slot: u32,
    /// Use of that index.
    pub generation: u32,
}

/// A connection with its owner word, its reader token and what both sides publish.
///
/// Three groups of cache lines: what threads and the lcore publish to each other, what the reader
/// writes, and what belongs to the owner.
#[derive(Debug)]
#[repr(C, align(128))] // the order is that of the groups, which begin pairs of lines
pub struct Socket<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    pub(super) shared: FirstLine<Shared>,
    // In the other line of the pair, and filling it: what is hardly ever written.
    pub(super) options: Options,
    watchers: Watchers,
    pub(super) home: Arc<Home<B, C>>,
    // Begins a pair of lines, and ends with them.
    pub(super) reader: Owned<ReaderSide<B>>,
    /// Written by the reader at its own pace, read by the lcore when it wants to know.
    pub(super) progress: FirstLine<Progress>,
    /// Handles that are not dropped; the last one closes.
    pub(super) handles: AtomicU32,
    /// The lcore has given up its reference.
    retired: AtomicBool,
    /// The thread that holds a guard, so that it can be told instead of waiting for itself.
    pub(super) guarded_by: AtomicU64,
    // Seldom read: here is room.
    pub(super) tuple: FourTuple,
    id: SocketId,
    pub(super) inner: FirstLine<Owned<Inner<B, C>>>,
    /// The memory of a call that waits, in low-latency mode. Claimed last.
    pub(super) slot: Owned<Slot>,
}

/// What one side writes for the other to see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) park: Park,
    pub(super) notify_at: NotifyAt,
    /// Whether a waiting reader lends memory.
    pub(super) offer: Offer,
    requests: AtomicU32,
    /// The error that the next call returns, as [`encode`] has it; 0 for none.
    error: AtomicU32,
    pub(super) urgent_read: UrgentRead,
    /// An exclusive reader has the token.
    exclusive: AtomicBool,
}

/// What the owner word guards.
#[derive(Debug)]
pub(super) struct Inner<B: PacketBuf, C> {
    pub(super) tcb: C,
    pub(super) sink: RingSink<B>,
    /// The edge, status and mark as published: only owners publish them.
    pub(super) edge: SeqNum,
    pub(super) status: Status,
    pub(super) urgent: UrgentWord,
    pub(super) notify_at: Option<SeqNum>,
    /// Requests that the lcore has taken.
    pub(super) requests_taken: u32,
}

/// Where the connection puts in-sequence data: the ring, while a reader is installed; or, while the
/// lcore has a waiting reader's loan, that reader's memory.
#[derive(Debug)]
pub struct RingSink<B>(pub(super) Option<Producer<B>>, pub(super) Option<Loan>);

impl<B: PacketBuf> Sink<B> for RingSink<B> {
    fn push(&mut self, buf: B) -> Result<(), B> {
        match &mut self.0 {
            Some(ring) => ring.push(buf),
            None => Err(buf),
        }
    }

    fn push_each(&mut self, bufs: &mut impl ExactSizeIterator<Item = B>) -> (usize, Option<B>) {
        (self.0.as_mut().map_or(0, |ring| ring.push_each(bufs)), None)
    }

    #[inline]
    fn refuses_all(&self) -> bool {
        self.0.is_none()
    }

    fn copies(&self) -> bool {
        self.1.is_some()
    }

    fn copy(&mut self, buf: &B) -> usize {
        self.1.as_mut().map_or(0, |loan| loan.copy(SeqNum::new(buf.cb().seq), buf.data()))
    }
}

impl<B: PacketBuf, C: Connection<B>> Socket<B, C> {
    pub(super) fn new(tcb: C, home: &Arc<Home<B, C>>, id: SocketId, tuple: FourTuple) -> Ref<Self> {
        let edge = tcb.edge();
        Ref::new(Self {
            shared: FirstLine(Shared {
                park: Park::new(edge),
                notify_at: NotifyAt::new(),
                offer: Offer::new(),
                requests: AtomicU32::new(0),
                error: AtomicU32::new(0),
                urgent_read: UrgentRead::default(),
                exclusive: AtomicBool::new(false),
            }),
            progress: FirstLine(Progress::new(edge)),
            reader: Owned::new(ReaderSide::new(edge)),
            slot: Owned::new(Slot::default()),
            inner: FirstLine(Owned::new(Inner {
                tcb,
                sink: RingSink(None, None),
                edge,
                status: Status::default(),
                urgent: UrgentWord::default(),
                notify_at: None,
                requests_taken: 0,
            })),
            options: Options::default(),
            watchers: Watchers::default(),
            home: home.clone(),
            tuple,
            id,
            handles: AtomicU32::new(1),
            retired: AtomicBool::new(false),
            guarded_by: AtomicU64::new(0),
        })
    }

    pub(super) fn id(&self) -> SocketId {
        self.id
    }

    pub(super) fn park(&self) -> &Park {
        &self.shared.park
    }

    /// Marks the socket dead and wakes whoever sleeps on it: every call returns an error.
    pub(super) fn kill(&self) {
        self.park().set(Status::DEAD);
        self.park().wake_all();
        self.notify_pollers();
    }

    /// The pollers that watch the socket.
    pub(super) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// Tells pollers of what was published before [`Park::fence`].
    #[inline]
    pub(super) fn notify_pollers(&self) {
        self.watchers.notify(|| self.readiness());
    }

    /// What a poll would say: of published words alone, as `readable`.
    pub(super) fn readiness(&self) -> Readiness {
        // The status first: with the error goes the end, not the other way round.
        let status = self.park().status();
        let edge = self.park().edge();
        let read = self.progress.copied_seq();
        let shared = &self.shared;
        let urgent = self.park().urgent();
        let mark = urgent.mark().filter(|mark| mark.at_or_after(read));
        Facts {
            status,
            readable: if edge.after(read) { edge.since(read) } else { 0 },
            low_water: self.options.low_water() as u32,
            urgent: urgent.has_arrived() && mark.is_some_and(|mark| !shared.urgent_read.is(mark)),
            at_mark: mark == Some(read) && !self.options.is_urgent_inline(),
            write_shut: shared.requests.load(Ordering::Relaxed) & Requests::SHUT_WRITE != 0,
            error: shared.error.load(Ordering::Relaxed) != 0,
        }
        .readiness()
    }

    /// Whether an exclusive reader has the token, for calls that will not wait for it for ever.
    pub(super) fn is_exclusive(&self) -> bool {
        // Relaxed: who sleeps because of it has fenced in `Park::announce`.
        self.shared.exclusive.load(Ordering::Relaxed)
    }

    /// An exclusive reader has taken the token, or is about to give it up.
    pub(super) fn set_exclusive(&self, exclusive: bool) {
        self.shared.exclusive.store(exclusive, Ordering::Relaxed);
        if !exclusive {
            // Calls with a time limit sleep where they would sleep for data. Its fence pairs with the
            // one of `Park::announce`.
            self.park().wake_all();
        }
    }

    /// The lcore gives up its reference: see [`Home::take_bells`].
    pub(super) fn retire(&self) {
        // Relaxed: read by the lcore itself, or by who takes its place after `Home::close`.
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Claims in the lcore's place when it has gone, so that threads can go on.
    pub(super) fn claim_for_nobody(&self) -> Option<LcoreClaim<'_, Inner<B, C>>> {
        // Of LCORE_DUE a claim fails only when WAITERS appears, once. Of anything else it may fail:
        // who owns then either frees the word or rings again.
        self.inner.claim_lcore().or_else(|| self.inner.claim_lcore())
    }

    /// Whether low-latency mode is on.
    pub(super) fn is_low_latency(&self) -> bool {
        self.park().status().has(Status::LOW_LATENCY)
    }

    /// Stores the error that one call will return.
    pub(super) fn put_error(&self, error: ConnError) {
        // Relaxed: the status bit that is set next carries it.
        self.shared.error.store(encode(error), Ordering::Relaxed);
    }

    /// Takes the error, once.
    pub(super) fn take_error(&self) -> Option<ConnError> {
        // Relaxed: whoever has seen the status bit sees it; taken by one caller only.
        match self.shared.error.load(Ordering::Relaxed) {
            0 => None,
            _ => decode(self.shared.error.swap(0, Ordering::Relaxed)),
        }
    }

    /// All requests ever made.
    pub(super) fn requests(&self) -> u32 {
        // Acquire pairs with the Release of `Ref::request`.
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Gives every buffer back that the socket still holds. For whoever has it alone.
    pub(super) fn give_all(&mut self, returns: &B::Returns) {
        self.reader.unshared().give_all(returns);
        let rest = self.inner.0.unshared().tcb.take_all();
        if !rest.is_empty() {
            returns.give(rest);
        }
    }
}

impl<B: PacketBuf, C: Connection<B>> Last for Socket<B, C> {
    fn last(parcel: Parcel<Self>) {
        let home = parcel.home.clone();
        home.bury(parcel);
    }
}

impl<B: PacketBuf, C: Connection<B>> Ref<Socket<B, C>> {
    /// Asks the lcore for something; it is told by the doorbell.
    pub(super) fn request(&self, bits: u32) {
        // Release pairs with the Acquire of `requests`. The doorbell's own operations order it
        // before the lcore's next look, whether the socket was on the list already or not.
        self.shared.requests.fetch_or(bits, Ordering::Release);
        self.home.ring(self);
    }
}

/// The error as a number other than 0.
fn encode(error: ConnError) -> u32 {
    match error {
        ConnError::Reset => 1,
        ConnError::BrokenPipe => 2,
        ConnError::TimedOut => 3,
        ConnError::Path(error) => 4 + error as u32,
    }
}

fn decode(code: u32) -> Option<ConnError> {
    [ConnError::Reset, ConnError::BrokenPipe, ConnError::TimedOut]
        .into_iter()
        .chain(PathError::ALL.map(ConnError::Path))
        .find(|&error| encode(error) == code)
}

/// What a socket costs while nothing is installed or queued.
#[cfg(all(test, feature = "dpdk", not(loom)))]
#[test]
fn an_idle_socket_takes_fourteen_lines() {
    use std::mem::offset_of;
    type Real = Socket<crate::dpdk::Mbuf>;
    assert_eq!((size_of::<Real>(), offset_of!(Real, reader)), (14 * 64, 128));
}
