//! The way back of mbufs: application threads give chains, the lcore that owns the pool takes all.
//!
//! [`ReturnStack`](super::return_stack) over the link in the private area. Giving is one exchange
//! and never waits; the lcore takes once per poll. Neither side touches the mempool here.

use std::ptr::NonNull;

use dpdk_sys as sys;

use super::mbuf::Mbuf;
use super::queue::{self, MbufQueue};
use super::return_stack::{Node, ReturnStack};
use crate::buf::Returns;

/// Mbufs on their way back to one lcore. What is still in it when it is dropped is freed.
#[derive(Debug, Default)]
pub struct MbufReturns(ReturnStack<sys::rte_mbuf>);

impl Returns<Mbuf> for MbufReturns {
    fn give(&self, chain: MbufQueue) {
        if let Some((first, last)) = chain.into_chain() {
            // SAFETY: the chain is ours, linked from first to last; mbufs are Send.
            unsafe { self.0.push_chain(first, last) };
        }
    }

    fn take_all(&self) -> MbufQueue {
        let Some(first) = self.0.take_all() else { return MbufQueue::default() };
        let (mut last, mut len) = (first, 1);
        // Each step touches a control block, which the caller is about to read anyway.
        // SAFETY: what was taken is ours, and linked.
        while let Some(next) = NonNull::new(unsafe { Node::next(last) }) {
            last = next;
            len += 1;
        }
        // SAFETY: as above; the last link is null.
        unsafe { MbufQueue::from_chain(first, last, len) }
    }
}

impl Drop for MbufReturns {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

// SAFETY: the link is a field of the private area that only this and `MbufQueue` write, and no mbuf
// is on both.
unsafe impl Node for sys::rte_mbuf {
    unsafe fn next(node: NonNull<Self>) -> *mut Self {
        // SAFETY: the caller owns the mbuf, which is of a pool of ours.
        unsafe { queue::link(node).read() }
    }

    unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
        // SAFETY: as above.
        unsafe { queue::link(node).write(next) }
    }
}
