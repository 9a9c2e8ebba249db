//! TX queues: what is sent, in bursts of as many as the device takes.
//!
//! Each belongs to one thread; it never waits, and keeps nothing.

use std::sync::Arc;

use dpdk_sys as sys;

use super::core::PortCore;
use crate::dpdk::burst::Burst;

/// One TX queue, for the one thread that sends on it.
///
/// See [`Port`](super::Port) for an example.
#[derive(Debug)]
pub struct TxQueue {
    pub(super) core: Arc<PortCore>,
    pub(super) queue: u16,
    pub(super) descriptors: u16,
}

impl TxQueue {
    /// Sends from the front of `burst` what the device takes; the rest stays in it, in order, to be
    /// sent again. Returns how many were taken.
    #[inline]
    pub fn send<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let mbufs = burst.filled();
        if mbufs.is_empty() {
            return 0;
        }
        let n = mbufs.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: a started port, `n` mbufs of ours, and `&mut self` is the only handle to the
        // queue.
        let sent =
            unsafe { sys::pqs_tx_burst(self.core.id.number(), self.queue, mbufs.as_mut_ptr(), n) };
        let sent = usize::from(sent);
        burst.forget_front(sent);
        sent
    }

    /// Mbufs that the device may be keeping.
    pub fn descriptors(&self) -> u16 {
        self.descriptors
    }

    /// Number of the queue on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }
}
