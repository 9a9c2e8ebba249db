//! A call under way: where its bytes go, how many it wants, how long it waits.
//!
//! Made by a thread that reads, used by it alone, under the reader token while it copies. It knows
//! nothing of sockets but their options.

use crate::time::Instant;

use super::super::options::Options;
use super::Step;
use super::flags::{RecvError, RecvFlags};

/// recv takes no more in one call (Linux: `MAX_RW_COUNT`).
const MAX_LEN: usize = 0x7fff_f000;

/// What a call wants, and how far it is.
#[derive(Debug)]
pub(in crate::socket) struct Call<'a> {
    pub(super) dst: &'a mut [u8],
    pub(super) flags: RecvFlags,
    /// Bytes copied, discarded or looked at; and how many are enough, and the most.
    pub(super) copied: usize,
    pub(super) target: usize,
    pub(super) len: usize,
    pub(super) deadline: Option<Instant>,
    /// The call is counted in `installed_for`.
    pub(super) installed: bool,
}

impl<'a> Call<'a> {
    /// A call that fills `dst` (with TRUNC: counts up to its length), begun at `now`.
    pub(in crate::socket) fn new(
        dst: &'a mut [u8],
        flags: RecvFlags,
        options: &Options,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        let len = dst.len().min(MAX_LEN);
        let enough = if flags.has(RecvFlags::WAITALL) { len } else { options.low_water().min(len) };
        let deadline = if flags.has(RecvFlags::DONTWAIT) || options.is_nonblocking() {
            Some(Instant::ZERO)
        } else {
            options.timeout().map(|timeout| now() + timeout)
        };
        Self { dst, flags, copied: 0, target: enough.max(1), len, deadline, installed: false }
    }

    pub(super) fn is_full(&self) -> bool {
        self.copied == self.len && self.len != 0
    }

    /// Bytes that the call can still take.
    pub(super) fn room(&self) -> usize {
        self.len - self.copied
    }

    pub(super) fn is_peek(&self) -> bool {
        self.flags.has(RecvFlags::PEEK)
    }

    /// Takes all of `data` if there is room for it, else nothing; which of the two.
    #[inline]
    pub(super) fn take_whole(&mut self, data: &[u8]) -> bool {
        let fits = data.len() <= self.room();
        if fits {
            self.take(data);
        }
        fits
    }

    /// The end of a call that cannot go on: what it has taken comes before the error, which is the
    /// next call's.
    pub(super) fn break_off(&self, error: RecvError) -> Step {
        if self.copied > 0 { Step::Done(self.copied) } else { Step::Failed(error) }
    }

    /// Takes as much of `data` as is wanted; how much that is.
    #[inline]
    pub(super) fn take(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(self.room());
        if !self.flags.has(RecvFlags::TRUNC) {
            self.dst[self.copied..self.copied + n].copy_from_slice(&data[..n]);
        }
        self.copied += n;
        n
    }
}
