//! How the lcores of one stack reach each other: each has a ring to the next, and so round.
//!
//! RSS, and a tap's own choice of queue, keep a connection on one queue, so a segment seldom arrives
//! on an lcore that does not know its connection. That lcore then passes it on, once around all the
//! others, and judges it itself when it comes home; hence no directory and no lock is shared. An
//! lcore's thread owns its two ring ends; a full ring drops, and never waits.

use std::net::IpAddr;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::tcp::icmp::Report;
use crate::wire::FourTuple;

use super::neighbour::News;

/// An ICMP error about a TCP segment of this host's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Told {
    /// The connection that the segment is of.
    pub tuple: FourTuple,
    /// Its sequence number.
    pub seq: u32,
    /// What is said of it; nothing if it is to be ignored.
    pub report: Option<Report>,
}

/// Messages a ring holds: a few bursts. What is passed on is rare; a peer retransmits what is lost.
const CAPACITY: usize = 256;

/// What one lcore tells the next.
#[derive(Debug)]
pub enum Message<B> {
    /// A frame with a TCP segment that `origin` and whoever passed it on had no connection for.
    Segment {
        /// The frame, untouched.
        frame: B,
        /// The lcore that received it, which judges it in the end.
        origin: usize,
    },
    /// An ICMP error about a segment of a connection that whoever had it so far does not know.
    Error {
        /// What it says.
        told: Told,
        /// The lcore that received it, which knows in the end that there is no such connection.
        origin: usize,
    },
    /// An address of ours that `origin` has heard to be somebody else's.
    Lost {
        /// The address.
        addr: IpAddr,
        /// The lcore that heard it, which stops the round.
        origin: usize,
    },
    /// A neighbour that `origin` has learnt of.
    Neighbour {
        /// The mapping.
        news: News,
        /// The lcore that learnt it, which stops the round.
        origin: usize,
    },
}

/// One lcore's ends of the two rings it shares.
#[derive(Debug)]
pub struct Mesh<B> {
    id: usize,
    next: Producer<Message<B>>,
    previous: Consumer<Message<B>>,
}

/// The ends for `lcores` lcores, in their order. Empty for a single one, which has nobody to ask.
pub fn mesh<B>(lcores: usize) -> Vec<Mesh<B>> {
    if lcores < 2 {
        return Vec::new();
    }
    let (producers, mut consumers): (Vec<_>, Vec<_>) =
        (0..lcores).map(|_| RingBuffer::new(CAPACITY)).unzip();
    // The ring that lcore n writes is read by lcore n + 1.
    consumers.rotate_right(1);
    let ends = producers.into_iter().zip(consumers).enumerate();
    ends.map(|(id, (next, previous))| Mesh { id, next, previous }).collect()
}

impl<B> Mesh<B> {
    /// This lcore's number.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Sends a frame round that this lcore received itself; gives it back if the ring is full.
    pub fn ask(&mut self, frame: B) -> Result<(), B> {
        self.pass_on(frame, self.id)
    }

    /// Passes on a frame that `origin` received; gives it back if the ring is full.
    pub fn pass_on(&mut self, frame: B, origin: usize) -> Result<(), B> {
        match self.next.push(Message::Segment { frame, origin }) {
            Err(rtrb::PushError::Full(Message::Segment { frame, .. })) => Err(frame),
            _ => Ok(()),
        }
    }

    /// Tells the others of a neighbour. News that finds the ring full is lost: whoever needs it asks.
    pub fn tell(&mut self, news: News) {
        self.tell_of(news, self.id);
    }

    /// Passes on what `origin` told.
    pub fn tell_of(&mut self, news: News, origin: usize) {
        let _ = self.next.push(Message::Neighbour { news, origin });
    }

    /// Passes on an error that `origin` received. One that finds the ring full is lost: it is advice.
    pub(super) fn tell_error(&mut self, told: Told, origin: usize) {
        let _ = self.next.push(Message::Error { told, origin });
    }

    /// Tells the others that `addr` is somebody else's, as `origin` has heard; whether they can be told now.
    pub fn tell_lost(&mut self, addr: IpAddr, origin: usize) -> bool {
        self.next.push(Message::Lost { addr, origin }).is_ok()
    }

    /// The oldest message that has arrived.
    pub fn take(&mut self) -> Option<Message<B>> {
        self.previous.pop().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_once_around_and_comes_home() {
        let mut lcores = mesh::<u32>(3);
        lcores[1].ask(42).unwrap();
        let mut visited = Vec::new();
        for id in [2, 0, 1] {
            let Some(Message::Segment { frame: 42, origin: 1 }) = lcores[id].take() else {
                panic!("lcore {id} should have got the frame");
            };
            visited.push(id);
            if lcores[id].id() != 1 {
                lcores[id].pass_on(42, 1).unwrap();
            }
        }
        assert_eq!(visited, [2, 0, 1]);
        assert!(lcores.iter_mut().all(|lcore| lcore.take().is_none()));
    }

    #[test]
    fn a_full_ring_gives_back() {
        let mut lcores = mesh::<usize>(2);
        let refused = (0..CAPACITY + 5).find_map(|n| lcores[0].ask(n).err());
        assert_eq!(refused, Some(CAPACITY));
        lcores[0].tell(News { addr: [10, 0, 0, 9].into(), mac: crate::wire::MacAddr([2; 6]) });
        assert!(matches!(lcores[1].take(), Some(Message::Segment { frame: 0, origin: 0 })));
    }

    #[test]
    fn one_lcore_has_nobody_to_ask() {
        assert!(mesh::<u32>(1).is_empty());
    }
}
