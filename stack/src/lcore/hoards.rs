//! Which sockets hold much: an account of each, and a short list of the largest.
//!
//! Kept by whoever leaves a socket, on its lcore's thread, which costs a comparison; read by
//! `memory.rs` when the pool runs out. Nothing here touches a socket.

use smallvec::SmallVec;

use super::slab::Key;

/// Truesize from which a socket is on the list of those that are asked first, and gets no more while
/// the pool runs out: some 28 mbufs, which no connection needs for long whose reader keeps up.
pub(super) const HOARD: u32 = 64 * 1024;

/// Sockets on that list. Whoever does not fit is found when others have left it, or by the sweep.
const LISTED: usize = 64;

/// A socket is asked again when it holds so much more than the last time: then what it costs to ask
/// is paid by what has arrived since.
const AGAIN: u32 = 16 * 1024;

/// What a socket was charged when it was last left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    held: u32,
    /// What it held, or has fallen to, after it was last asked to give something back.
    tried: u32,
    /// It is on the list, or was until it held too little.
    pub listed: bool,
}

impl Account {
    /// The socket was left with this much; whether it has to be listed.
    #[inline]
    pub fn settle(&mut self, rmem: u32) -> bool {
        self.held = rmem;
        self.tried = self.tried.min(rmem);
        rmem >= HOARD && !self.listed
    }

    /// It was asked to give something back, and this is left.
    pub fn tried(&mut self, rmem: u32) {
        self.tried = rmem;
    }

    /// Truesize that is held, of which so much has come back since.
    pub fn held(&self, returned: u32) -> u32 {
        self.held.saturating_sub(returned)
    }

    /// What there may be to win.
    pub fn promises(&self, returned: u32) -> u32 {
        let held = self.held(returned);
        match self.tried {
            0 => held,
            tried => held.saturating_sub(tried.saturating_add(AGAIN)),
        }
    }
}

/// Sockets that hold much, in no order. An entry may be of a socket that holds less by now, or is
/// gone: whoever looks at it takes it off.
#[derive(Debug, Default)]
pub(super) struct Hoards(pub SmallVec<[Key; LISTED]>);

impl Hoards {
    /// Lists a socket if there is room.
    #[cold]
    pub fn list(&mut self, key: Key, account: &mut Account) {
        if self.0.len() < LISTED {
            self.0.push(key);
            account.listed = true;
        }
    }
}
