//! A buffer that is counted as long as it lives, and dice.

use std::cell::Cell;
use std::collections::VecDeque;

use prequeue::buf::{Checksum, HeapBuf, HeapReturns, PacketBuf, SegCb};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

/// Buffers of this thread that are alive.
pub fn live() -> usize {
    LIVE.get()
}

/// A heap buffer that is counted.
#[derive(Debug)]
pub struct Counted(HeapBuf);

impl Counted {
    pub fn new(bytes: &[u8]) -> Self {
        LIVE.set(LIVE.get() + 1);
        Self(HeapBuf::new(bytes))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.set(LIVE.get() - 1);
    }
}

impl PacketBuf for Counted {
    type Queue = VecDeque<Self>;
    type Returns = HeapReturns<Self>;

    fn data(&self) -> &[u8] {
        self.0.data()
    }

    fn trim_front(&mut self, n: usize) {
        self.0.trim_front(n);
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        self.0.append(bytes)
    }

    fn checksum(&self) -> Checksum {
        self.0.checksum()
    }

    fn truesize(&self) -> u32 {
        self.0.truesize()
    }

    fn cb(&self) -> &SegCb {
        self.0.cb()
    }

    fn cb_mut(&mut self) -> &mut SegCb {
        self.0.cb_mut()
    }
}

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize]
    }
}
