//! Looking at a socket from outside of the packet path: see [`crate::watch`].
//!
//! Threads of simulations call it. Each part of the socket is looked at by who has it, or by way of
//! a claim like any other; nothing is changed.

use crate::buf::PacketBuf;
use crate::watch::{Moment, Seen};

use super::conn::Connection;
use super::handle::Handle;
use super::owner::Ref;
use super::ownership::Ownership;
use super::recv::ReaderSide;
use super::socket::Socket;

impl<B: PacketBuf, C: Connection<B>> Handle<B, C> {
    /// What can be seen of the connection now, without waiting for anybody.
    pub fn seen(&self) -> Seen {
        match self.socket.reader.try_claim_thread() {
            Some(mut side) => self.socket.seen(Some(&mut side), None),
            None => self.socket.seen(None, None),
        }
    }
}

impl<B: PacketBuf, C: Connection<B>> Ref<Socket<B, C>> {
    /// Tells whoever watches buffers of this kind how far a reader is in its step.
    #[inline(always)]
    pub(super) fn watch(
        &self,
        moment: Moment,
        side: &mut ReaderSide<B>,
        owner: Option<&Ownership<'_, B, C>>,
    ) {
        B::watch(moment, &mut || self.seen(Some(side), owner));
    }

    fn seen(&self, side: Option<&mut ReaderSide<B>>, owner: Option<&Ownership<'_, B, C>>) -> Seen {
        let connection = match owner {
            Some(owner) => Some(owner.tcb.seen()),
            None => self.try_own().map(|owner| owner.tcb.seen()),
        };
        Seen {
            owner: self.inner.owner(),
            wakes: self.park().wakes(),
            reader: side.map(ReaderSide::seen),
            connection,
        }
    }
}
