//! What one lcore shares with all threads: its doorbell, the way back for buffers, the reap list.
//!
//! Threads push, the lcore takes everything once per poll. Nothing here can fill, and nobody waits
//! for anybody. When the lcore stops it closes its home; what arrives later is dealt with by
//! whoever brings it.

use std::fmt;
use std::sync::OnceLock;

use crate::buf::PacketBuf;
use crate::tcp::tcb::Tcb;
use crate::time::Instant;

use super::conn::Connection;
use super::owner::{List, Parcel, Parcels, Ref};
use super::ring::Spares;
use super::socket::{Socket, SocketId};
use super::sync::{AtomicBool, Ordering, fence, mutant};

/// Kind of list that the doorbell is.
pub(super) const BELL: usize = 0;

/// One lcore's place to leave things at.
pub struct Home<B: PacketBuf, C: Connection<B> = Tcb<B>> {
    bells: List<Socket<B, C>, BELL>,
    reap: Parcels<Socket<B, C>>,
    returns: B::Returns,
    /// Rings for reads that wait.
    pub(super) rings: Spares<B>,
    closed: AtomicBool,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
    /// Reads the lcore's clock, from any thread.
    clock: OnceLock<Box<dyn Fn() -> Instant + Send + Sync>>,
}

impl<B: PacketBuf, C: Connection<B>> Default for Home<B, C> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<B: PacketBuf, C: Connection<B>> Home<B, C> {
    /// A home whose lcore is woken by `wake` when the doorbell rings; one that polls needs none.
    pub fn new(wake: Option<Box<dyn Fn() + Send + Sync>>) -> Self {
        Self {
            bells: List::default(),
            reap: Parcels::default(),
            returns: B::Returns::default(),
            rings: Spares::default(),
            closed: AtomicBool::new(false),
            wake,
            clock: OnceLock::new(),
        }
    }

    /// Says how the lcore's clock is read, which application threads do that want to know how long ago
    /// something was. Only the first says so.
    pub fn set_clock(&self, clock: impl Fn() -> Instant + Send + Sync + 'static) {
        let _ = self.clock.set(Box::new(clock));
    }

    /// The lcore's time of this moment, if it was said how that is read.
    #[cfg(not(loom))]
    pub(super) fn now(&self) -> Option<Instant> {
        self.clock.get().map(|clock| clock())
    }

    /// Where buffers are given back.
    pub fn returns(&self) -> &B::Returns {
        &self.returns
    }

    /// Takes the doorbell's list: sockets with requests, with work that had to wait, or whose
    /// reader has passed the mark. For the lcore, which claims each or defers
    /// [`Bell`](super::Deferred::Bell).
    pub fn take_bells(&self) -> impl Iterator<Item = SocketId> + use<'_, B, C> {
        self.bells.take().filter_map(|socket| {
            if socket.is_retired() {
                // Nobody else will turn LCORE_DUE into FREE again.
                drop(socket.claim_for_nobody());
                None
            } else {
                Some(socket.id())
            }
        })
    }

    /// Frees the sockets that nobody refers to any more; how many. For the lcore.
    pub fn reap(&self) -> usize {
        self.reap.take().map(drop).count()
    }

    /// The lcore has stopped: it has killed its sockets and dropped its references to them. What
    /// comes to its end from now on gives its buffers to [`Self::returns`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Pairs with the fence of `is_closed_after_push`.
        fence(Ordering::SeqCst);
        self.serve();
    }

    /// Puts the socket on the doorbell's list.
    pub(super) fn ring(&self, socket: &Ref<Socket<B, C>>) {
        if self.bells.push(socket) {
            if self.is_closed_after_push() {
                self.serve();
            } else if let Some(wake) = &self.wake {
                wake();
            }
        }
    }

    /// Takes what nobody refers to any more.
    pub(super) fn bury(&self, parcel: Parcel<Socket<B, C>>) {
        self.reap.push(parcel);
        if self.is_closed_after_push() {
            self.serve();
        }
    }

    fn is_closed_after_push(&self) -> bool {
        if mutant!(ReapWithoutSecondLook) {
            return false;
        }
        // Pairs with the fence of `close`: either it finds what was pushed or we see it closed.
        fence(Ordering::SeqCst);
        self.closed.load(Ordering::Relaxed)
    }

    /// What the lcore would do, when there is none any more.
    fn serve(&self) {
        for socket in self.bells.take() {
            drop(socket.claim_for_nobody());
        }
        for mut parcel in self.reap.take() {
            parcel.give_all(&self.returns);
        }
    }
}

impl<B: PacketBuf, C: Connection<B>> fmt::Debug for Home<B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("bells", &self.bells).finish_non_exhaustive()
    }
}
