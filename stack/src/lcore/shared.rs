//! What the lcores of one stack share beyond rings: who listens, and the counts that have a limit.
//!
//! Application threads begin and end listening here, under a mutex; an lcore takes it only when an
//! atomic number says that something has changed, so never on the path of a connection. The counts
//! are touched when connections open and close.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buf::PacketBuf;
use crate::socket::{Mode, SocketOptions, Threaded};
use crate::tcp::Settings;
use crate::tcp::listen::{COOKIES_TAKEN, QueueState};
use crate::tcp::negotiate::{self, Bounds};
use crate::time::Instant;
use crate::wire::Family;

use super::Bind;

/// What an application asks of a listener besides its port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted, less one; bounds half-open ones too.
    pub backlog: u32,
    /// Largest MSS to announce, in bytes (TCP_MAXSEG); what the interface allows if `None`.
    pub mss: Option<u16>,
    /// What its connections begin with.
    pub sockets: SocketOptions,
    /// The addresses to listen at.
    pub bind: Bind,
}

impl Default for ListenOptions {
    /// At every address, with the backlog of the standard library.
    fn default() -> Self {
        Self { backlog: 128, mss: None, sockets: SocketOptions::default(), bind: Bind::ALL }
    }
}

/// A listener as the lcores see it.
#[derive(Debug)]
pub(crate) struct Listening<B: PacketBuf, M: Mode<B> = Threaded> {
    pub port: u16,
    pub queue: M::Accept,
    options: ListenOptions,
    /// Shared with what the listener was before its options were changed.
    pub requests: Arc<RequestCounts>,
    pub cookies: Arc<CookieStamp>,
}

/// When a listener has last sent a SYN cookie, on whichever lcore.
#[derive(Debug)]
pub(crate) struct CookieStamp(AtomicU64);

impl Default for CookieStamp {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NEVER))
    }
}

impl CookieStamp {
    /// No clock gets there.
    const NEVER: u64 = u64::MAX;

    /// A cookie is sent. Seconds will do: under a flood the line is then read by all lcores, and
    /// rarely written by one. Relaxed here and below: a number that stands for itself.
    pub fn note(&self, now: Instant) {
        let seconds = now.as_millis() / 1000;
        if self.0.load(Ordering::Relaxed) != seconds {
            self.0.store(seconds, Ordering::Relaxed);
        }
    }

    /// Whether cookies may come back.
    pub fn is_recent(&self, now: Instant) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        // Another lcore's clock may be ahead of ours.
        last != Self::NEVER
            && (now.as_millis() / 1000).saturating_sub(last) <= COOKIES_TAKEN.as_secs()
    }
}

/// The requests of a listener on all lcores: a shard of the SYN queue each, one limit.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts {
    all: AtomicU32,
    young: AtomicU32,
}

impl RequestCounts {
    /// A request has come or gone. Relaxed as everything here: a limit may be off by those that come
    /// at the same moment.
    pub fn add(&self, all: i32, young: i32) {
        self.all.fetch_add(all as u32, Ordering::Relaxed);
        self.young.fetch_add(young as u32, Ordering::Relaxed);
    }
}

impl<B: PacketBuf, M: Mode<B>> Listening<B, M> {
    /// How full the listener is.
    pub fn queues(&self) -> QueueState {
        QueueState {
            syn_queue: self.requests.all.load(Ordering::Relaxed),
            young: self.requests.young.load(Ordering::Relaxed),
            accept_queue: M::waiting(&self.queue),
            backlog: self.options.backlog,
            defer_accept: M::defer_accept(&self.queue),
            synack_retries: M::synack_retries(&self.queue),
        }
    }

    /// What its connections begin with.
    pub fn sockets(&self) -> &SocketOptions {
        &self.options.sockets
    }

    /// What bounds the connections of this listener on an interface with this MTU.
    pub fn bounds(&self, family: Family, interface_mtu: u16, settings: &Settings) -> Bounds {
        let headers = negotiate::headers(family);
        let wanted = self.options.mss.map(|mss| mss.saturating_add(headers));
        Bounds {
            mtu: wanted.map_or(interface_mtu, |mtu| mtu.min(interface_mtu)),
            window_clamp: self.options.sockets.first_clamp(settings),
        }
    }

    /// Whether it takes connections to this address and port of ours.
    pub fn takes(&self, local: SocketAddr) -> bool {
        self.port == local.port() && self.options.bind.takes(local.ip())
    }

    /// Whether the application still listens.
    pub fn is_open(&self) -> bool {
        !M::is_closed(&self.queue)
    }
}

/// The way to listen on all lcores of a stack, from any thread. Clones lead to the same stack.
///
/// See [`Engine`](super::Engine) for an example.
#[derive(Debug)]
pub struct Listeners<B: PacketBuf, M: Mode<B> = Threaded>(Arc<Shared<B, M>>);

impl<B: PacketBuf, M: Mode<B>> Clone for Listeners<B, M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: PacketBuf, M: Mode<B>> Default for Listeners<B, M> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<B: PacketBuf, M: Mode<B>> Listeners<B, M> {
    /// Begins to listen on a port, at every address, with room for `backlog` connections and one.
    /// `None` if somebody listens there already.
    pub fn listen(&self, port: u16, backlog: u32) -> Option<M::Accept> {
        self.listen_with(port, ListenOptions { backlog, ..ListenOptions::default() })
    }

    /// As [`Self::listen`], with more to be asked for. Several may share a port if none of their
    /// addresses are the same.
    pub fn listen_with(&self, port: u16, options: ListenOptions) -> Option<M::Accept> {
        let mut list = self.0.lock();
        list.retain(|listening| listening.is_open());
        let overlaps = |other: &Listening<B, M>| {
            other.port == port && other.options.bind.overlaps(&options.bind)
        };
        if list.iter().any(|other| overlaps(other)) {
            return None;
        }
        let queue = M::accept_queue(options.backlog);
        let (requests, cookies) = (Arc::default(), Arc::default());
        list.push(Arc::new(Listening { port, queue: queue.clone(), options, requests, cookies }));
        self.0.changed();
        Some(queue)
    }

    /// Has the listener at this port and these addresses go by other options; whether there is one. Requests
    /// whose SYN has come keep theirs, and the backlog stays.
    pub fn change(&self, port: u16, options: ListenOptions) -> bool {
        let mut list = self.0.lock();
        let is_meant = |listening: &Listening<B, M>| {
            listening.port == port && listening.options.bind == options.bind && listening.is_open()
        };
        let Some(place) = list.iter_mut().find(|listening| is_meant(listening)) else {
            return false;
        };
        let Listening { port, queue, options: before, requests, cookies } = &**place;
        let options = ListenOptions { backlog: before.backlog, ..options };
        let (requests, cookies) = (requests.clone(), cookies.clone());
        *place =
            Arc::new(Listening { port: *port, queue: queue.clone(), options, requests, cookies });
        drop(list);
        self.0.changed();
        true
    }

    /// The version of the list: an engine that knows it knows every listener there is.
    pub fn version(&self) -> u32 {
        self.0.version()
    }

    /// Who listens, by port, and how full its queues are.
    #[cfg(feature = "dpdk")]
    pub(crate) fn queues(&self) -> Vec<(u16, QueueState)> {
        let all = self.0.listeners();
        let open = all.iter().filter(|listening| listening.is_open());
        open.map(|listening| (listening.port, listening.queues())).collect()
    }

    /// The stack stops: whoever waits for a connection gets an error.
    pub fn close_all(&self) {
        self.0.close_all();
    }

    pub(super) fn shared(&self) -> &Arc<Shared<B, M>> {
        &self.0
    }
}

/// The shared part of a stack.
#[derive(Debug)]
pub(crate) struct Shared<B: PacketBuf, M: Mode<B> = Threaded> {
    /// Changes with the list.
    version: AtomicU32,
    listeners: Mutex<Vec<Arc<Listening<B, M>>>>,
    pub time_waits: Count,
    pub orphans: Count,
}

impl<B: PacketBuf, M: Mode<B>> Default for Shared<B, M> {
    fn default() -> Self {
        Self {
            version: AtomicU32::new(0),
            listeners: Mutex::new(Vec::new()),
            time_waits: Count::default(),
            orphans: Count::default(),
        }
    }
}

impl<B: PacketBuf, M: Mode<B>> Shared<B, M> {
    /// The version of the list.
    pub fn version(&self) -> u32 {
        // Acquire pairs with the Release of `changed`: whoever then locks finds that list or a newer.
        self.version.load(Ordering::Acquire)
    }

    /// The listeners of this moment.
    pub fn listeners(&self) -> Vec<Arc<Listening<B, M>>> {
        self.lock().clone()
    }

    /// Whoever waits for a connection gets an error.
    pub fn close_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        self.changed();
        for listening in all {
            M::close_queue(&listening.queue);
        }
    }

    /// The list is whole at every moment, so that a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Listening<B, M>>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        // Release pairs with the Acquire of `version`.
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// A number of records with a limit, over all lcores.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU32);

impl Count {
    /// Counts one more, unless there are `limit` already. Two lcores at once may both find the last
    /// place: the limit is then exceeded by one, which is harmless.
    pub fn try_add(&self, limit: u32) -> bool {
        let free = self.0.load(Ordering::Relaxed) < limit;
        if free {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        free
    }

    /// One has gone.
    pub fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
