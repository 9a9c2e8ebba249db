//! Buffers that a reader has read and not yet given back.
//!
//! Collected by whoever has the reader token, from the ring and from the taken list alike, and handed over
//! together. It does not know to whom.

use std::mem;

use crate::buf::{Batch, BufQueue, PacketBuf, Returns};

/// See the module's head.
#[derive(Debug)]
pub(in crate::socket) struct Spent<B: PacketBuf>(Batch<B>);

impl<B: PacketBuf> Default for Spent<B> {
    fn default() -> Self {
        Self(Batch::<B>::default())
    }
}

impl<B: PacketBuf> Spent<B> {
    /// Adds a buffer of this truesize.
    #[inline(always)]
    pub(super) fn add(&mut self, buf: B, truesize: u32) {
        B::Returns::collect(&mut self.0, buf, truesize);
    }

    /// Adds buffers from the front of a queue for as long as `takes` says yes, `most` at most; how many.
    #[inline(always)]
    pub(super) fn add_front(
        &mut self,
        queue: &mut B::Queue,
        most: usize,
        takes: impl FnMut(&B) -> bool,
    ) -> usize {
        queue.spend_front(most, &mut self.0, takes)
    }

    /// Takes all, if there is anything.
    #[inline]
    pub(in crate::socket) fn take(&mut self) -> Option<Batch<B>> {
        (self.len() != 0).then(|| mem::take(&mut self.0))
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        B::Returns::batch_len(&self.0)
    }
}
