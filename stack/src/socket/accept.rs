//! The accept queue of a listener: lcores put connections in, threads accept them in order.
//!
//! Putting one in is a compare-exchange for the room and one for the list, so that no lcore waits
//! for another or for a thread. Taking is behind a token among acceptors. A connection waits for
//! its acceptor as an ordinary established one: it receives and acknowledges.

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::sync::Arc;

use crate::buf::PacketBuf;
use crate::tcp::tcb::Tcb;

use super::conn::Connection;
use super::handle::Handle;
use super::owner::{List, Owned};
use super::poller::{Readiness, Watchers, of_listener};
use super::socket::Socket;
use super::sync::{AtomicBool, AtomicU32, FutexWord, Ordering, OwnLines, fence, mutant};

/// Kind of list that an accept queue is: a socket may be on the doorbell's at the same time.
const ACCEPT: usize = 1;

/// A listener as its lcores and its acceptors share it.
#[derive(Debug)]
pub struct AcceptQueue<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    arrived: List<Socket<B, C>, ACCEPT>,
    counts: OwnLines<Counts>,
    /// In order of arrival: what acceptors have taken off the list. Older than the list.
    ready: Owned<VecDeque<Handle<B, C>>>,
    /// Connections that may wait: backlog + 1.
    capacity: u32,
    /// Retransmissions for which handshakes without data are not completed.
    defer_accept: AtomicU32,
    /// Retransmissions of a SYN-ACK; 0 for as many as the setting says.
    synack_retries: AtomicU32,
}

#[derive(Debug)]
struct Counts {
    /// Rooms taken: connections in the queue, and those about to be.
    taken: AtomicU32,
    /// Connections put in and not accepted, modulo 2^32: a put may be counted after its take.
    available: AtomicU32,
    /// Acceptors that are about to sleep, or asleep.
    waiting: AtomicU32,
    /// Changes with every wake-up; what acceptors sleep on.
    wakes: FutexWord,
    closed: AtomicBool,
    watchers: Watchers,
}

/// A room in the accept queue; given up when dropped without a connection.
#[derive(Debug)]
#[must_use = "dropping the room gives it up"]
pub struct Room<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    /// There until the connection is put in.
    queue: Option<Arc<AcceptQueue<B, C>>>,
}

/// What an acceptor that found nothing sleeps on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Nothing;

impl<B: PacketBuf, C: Connection<B>> AcceptQueue<B, C> {
    /// An empty queue. It holds one connection more than `backlog`, as in Linux.
    pub fn new(backlog: u32) -> Arc<Self> {
        Arc::new(Self {
            arrived: List::default(),
            counts: OwnLines(Counts {
                taken: AtomicU32::new(0),
                available: AtomicU32::new(0),
                waiting: AtomicU32::new(0),
                wakes: FutexWord::new(0),
                closed: AtomicBool::new(false),
                watchers: Watchers::default(),
            }),
            ready: Owned::new(VecDeque::new()),
            capacity: backlog.saturating_add(1),
            defer_accept: AtomicU32::new(0),
            synack_retries: AtomicU32::new(0),
        })
    }

    /// Has connections wait for their first data before they are made, for so many retransmissions of
    /// the SYN-ACK (TCP_DEFER_ACCEPT).
    pub fn set_defer_accept(&self, retransmissions: u8) {
        // Relaxed here and below: a number that stands for itself.
        self.defer_accept.store(retransmissions.into(), Ordering::Relaxed);
    }

    /// Has SYN-ACKs be sent again so often (TCP_SYNCNT), or as often as the setting says.
    pub fn set_synack_retries(&self, retransmissions: Option<NonZeroU8>) {
        self.synack_retries
            .store(retransmissions.map_or(0, NonZeroU8::get).into(), Ordering::Relaxed);
    }

    /// What [`Self::set_synack_retries`] has set.
    pub fn synack_retries(&self) -> Option<NonZeroU8> {
        NonZeroU8::new(self.synack_retries.load(Ordering::Relaxed) as u8)
    }

    /// What [`Self::set_defer_accept`] has set.
    pub fn defer_accept(&self) -> u8 {
        self.defer_accept.load(Ordering::Relaxed) as u8
    }

    /// Connections that wait to be accepted.
    pub fn len(&self) -> u32 {
        // Relaxed: a snapshot.
        self.counts.taken.load(Ordering::Relaxed)
    }

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Takes a room for a connection that is about to be made. For lcores; `None` if the queue is
    /// full or closed.
    pub fn reserve(self: &Arc<Self>) -> Option<Room<B, C>> {
        if self.is_closed() {
            return None;
        }
        let taken = &self.counts.taken;
        let mut seen = taken.load(Ordering::Relaxed);
        // Relaxed: the count orders nothing, the list does. Fails only when another lcore or an
        // acceptor has changed it: each failure is somebody's success.
        loop {
            if seen >= self.capacity {
                return None;
            }
            if mutant!(ReserveWithoutExchange) {
                taken.store(seen + 1, Ordering::Relaxed);
                return Some(Room { queue: Some(self.clone()) });
            }
            match taken.compare_exchange_weak(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(Room { queue: Some(self.clone()) }),
                Err(changed) => seen = changed,
            }
        }
    }

    /// Whether nothing is accepted any more.
    pub fn is_closed(&self) -> bool {
        // Relaxed: `Room::put` looks again after a fence.
        self.counts.closed.load(Ordering::Relaxed)
    }

    /// Closes: who waits in accept gets an error, connections that nobody has accepted are reset
    /// by their lcores.
    pub fn close(&self) {
        self.counts.closed.store(true, Ordering::Relaxed);
        // Pairs with the fences of `Room::put` and `announce`.
        fence(Ordering::SeqCst);
        while let Ok(handle) = self.take() {
            handle.abort();
        }
        self.counts.wakes.value().fetch_add(1, Ordering::Relaxed);
        self.counts.wakes.wake_all();
        self.counts.watchers.notify(|| self.readiness());
    }

    /// The pollers that watch the listener.
    pub(super) fn watchers(&self) -> &Watchers {
        &self.counts.watchers
    }

    /// What a poll would say.
    pub(super) fn readiness(&self) -> Readiness {
        of_listener(self.counts.available.load(Ordering::Acquire) != 0, self.is_closed())
    }

    /// Takes the oldest connection.
    pub(super) fn take(&self) -> Result<Handle<B, C>, Nothing> {
        let mut ready = self.ready.claim_thread();
        self.collect(&mut ready);
        let handle = ready.pop_front().ok_or(Nothing)?;
        self.count_out();
        Ok(handle)
    }

    /// Whether a connection can be taken.
    pub(super) fn has_news(&self) -> bool {
        self.counts.available.load(Ordering::Relaxed) != 0 || self.is_closed()
    }

    /// Announces an acceptor that is about to sleep; what to sleep on, or nothing if it had
    /// better look again. Followed by [`Self::woken`] in either case.
    pub(super) fn announce(&self) -> Option<u32> {
        let counts = &*self.counts;
        // Acquire: read before the announcement can be seen.
        let seen = counts.wakes.value().load(Ordering::Acquire);
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fences of `Room::put` and `close`.
        if !mutant!(AcceptWithoutFence) {
            fence(Ordering::SeqCst);
        }
        (!self.has_news()).then_some(seen)
    }

    /// The acceptor looks again.
    pub(super) fn woken(&self) {
        self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// The word that acceptors sleep on.
    pub(super) fn word(&self) -> &FutexWord {
        &self.counts.wakes
    }

    /// Moves what has arrived behind what is ready.
    fn collect(&self, ready: &mut VecDeque<Handle<B, C>>) {
        let at = ready.len();
        ready.extend(self.arrived.take().map(Handle::first));
        // The list gives the newest first.
        ready.make_contiguous()[at..].reverse();
    }

    /// Resets what has arrived at a closed queue, without the token: for lcores.
    fn turn_away(&self) {
        for socket in self.arrived.take() {
            self.count_out();
            Handle::first(socket).abort();
        }
    }

    fn count_out(&self) {
        self.counts.available.fetch_sub(1, Ordering::Relaxed);
        self.counts.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for AcceptQueue<B, C> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<B: PacketBuf, C: Connection<B>> Room<B, C> {
    /// Puts the connection into the room and wakes one acceptor.
    pub fn put(mut self, handle: Handle<B, C>) {
        let Some(queue) = self.queue.take() else { return };
        let pushed = queue.arrived.push(&handle.into_socket());
        debug_assert!(pushed, "a connection waits in two accept queues");
        let counts = &*queue.counts;
        // Release pairs with the Acquire of `readiness`: what is counted can be taken.
        counts.available.fetch_add(1, Ordering::Release);
        // Pairs with the fences of `announce` and `close`: either they find the connection, or we
        // see them.
        fence(Ordering::SeqCst);
        if queue.is_closed() {
            queue.turn_away();
        } else if counts.waiting.load(Ordering::Relaxed) != 0 {
            counts.wakes.value().fetch_add(1, Ordering::Relaxed);
            counts.wakes.wake(1);
        }
        counts.watchers.notify(|| queue.readiness());
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Room<B, C> {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.counts.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
