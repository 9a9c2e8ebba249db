//! The list of all connections of an lcore, for whoever asks: what ss(8) shows of the kernel's.
//!
//! Gone through by the lcore between its bursts, a few at a time, into memory that the asking thread has
//! brought; a socket that a thread owns at that moment is listed by what the lcore knows without it.

use std::net::SocketAddr;

use crate::buf::PacketBuf;
use crate::socket::Mode;
use crate::tcp::tcb::{MemInfo, TcpInfo};
use crate::time::Instant;
use crate::wire::FourTuple;

use super::engine::Engine;
use super::slab::Slab;
use super::tables::Tables;

/// Sockets that one call looks at: each costs a claim and a few cache misses.
const SOCKETS: u32 = 32;

/// Small records that one call looks at.
const RECORDS: u32 = 128;

/// A connection as the lcore sees it: with a socket, half open, or in TIME-WAIT.
///
/// ```
/// use prequeue::lcore::Listed;
///
/// /// As ss(8) would: state, bytes that nobody has read, and both ends.
/// fn line(listed: &Listed) -> String {
///     let unread = listed.unread.unwrap_or(0);
///     format!("{:10} {unread:8} {} {}", listed.state_name(), listed.local, listed.peer)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listed {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// The state as TCP_INFO numbers it; `None` if a thread owned the socket.
    pub state: Option<u8>,
    /// In-sequence bytes that the application has not read; `None` if a thread owned the socket.
    pub unread: Option<u32>,
    /// Truesize charged to the connection, in bytes.
    pub rmem: u32,
    /// Segments in the backlog.
    pub backlog: u32,
    /// What TCP_INFO and SO_MEMINFO tell; `None` without a socket, or if a thread owned it.
    pub detail: Option<(TcpInfo, MemInfo)>,
}

/// Numbers of states that have no socket (Linux: TCP_SYN_RECV, TCP_FIN_WAIT2, TCP_TIME_WAIT).
const SYN_RECV: u8 = 3;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;

impl Listed {
    fn record(tuple: &FourTuple, state: u8) -> Self {
        let (local, peer) = (tuple.local(), tuple.remote());
        let (unread, rmem, backlog, detail) = (Some(0), 0, 0, None);
        Self { local, peer, state: Some(state), unread, rmem, backlog, detail }
    }

    /// The state as ss(8) spells it; `-` if it could not be asked for.
    pub const fn state_name(&self) -> &'static str {
        match self.state {
            Some(1) => "ESTAB",
            Some(SYN_RECV) => "SYN-RECV",
            Some(4) => "FIN-WAIT-1",
            Some(FIN_WAIT2) => "FIN-WAIT-2",
            Some(TIME_WAIT) => "TIME-WAIT",
            Some(7) => "UNCONN",
            Some(8) => "CLOSE-WAIT",
            Some(9) => "LAST-ACK",
            Some(11) => "CLOSING",
            _ => "-",
        }
    }
}

/// A list that is being made: see [`Engine::call_roll`].
#[derive(Clone, Debug, Default)]
pub struct Roll {
    /// Those listed so far. It never grows beyond the capacity it was made with: an lcore does not
    /// allocate for whoever asks.
    pub rows: Vec<Listed>,
    /// Those for which there was no room.
    pub omitted: u64,
    /// Which table is gone through, and how far.
    table: u8,
    next: u32,
}

impl Roll {
    /// A list with room for so many, in memory that was written to already.
    pub fn with_room_for(connections: usize) -> Self {
        let nowhere = SocketAddr::new([0; 4].into(), 0);
        let tuple = FourTuple {
            local_addr: nowhere.ip(),
            remote_addr: nowhere.ip(),
            local_port: 0,
            remote_port: 0,
        };
        let mut rows = vec![Listed::record(&tuple, 0); connections];
        rows.clear();
        Self { rows, ..Self::default() }
    }

    fn list(&mut self, listed: Listed) {
        if self.rows.len() < self.rows.capacity() {
            self.rows.push(listed);
        } else {
            self.omitted += 1;
        }
    }

    /// Goes on with the next `most` places of a table; whether that was its end.
    fn pass(&mut self, slots: u32, most: u32, mut each: impl FnMut(&mut Self, u32)) -> bool {
        let end = slots.min(self.next.saturating_add(most));
        for index in self.next..end {
            each(self, index);
        }
        self.next = end;
        if end < slots {
            return false;
        }
        (self.table, self.next) = (self.table + 1, 0);
        true
    }
}

impl<B: PacketBuf, M: Mode<B>> Engine<B, M> {
    /// Goes on listing all connections; whether all are listed. The work of a call is bounded, and
    /// nothing is allocated. A connection that opens or closes in the meantime may be missed.
    ///
    /// ```
    /// use prequeue::buf::HeapBuf;
    /// use prequeue::lcore::{Engine, Roll};
    /// use prequeue::time::Instant;
    ///
    /// fn all(engine: &mut Engine<HeapBuf>, now: Instant) -> Roll {
    ///     let mut roll = Roll::with_room_for(1000);
    ///     while !engine.call_roll(&mut roll, now) {}
    ///     roll
    /// }
    /// ```
    pub fn call_roll(&mut self, roll: &mut Roll, now: Instant) -> bool {
        self.tables_mut().call_roll(roll, now)
    }
}

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    fn call_roll(&mut self, roll: &mut Roll, now: Instant) -> bool {
        let Self { sockets, requests, time_waits, .. } = self;
        match roll.table {
            0 => {
                roll.pass(sockets.slots(), SOCKETS, |roll, index| {
                    if let Some(slot) = sockets.at(index) {
                        roll.list(slot.listed(now));
                    }
                });
            }
            1 => {
                pass_records(roll, requests, |slot| Listed::record(slot.tuple(), SYN_RECV));
            }
            _ => {
                return pass_records(roll, time_waits, |slot| {
                    let entry = &slot.entry;
                    let state = if entry.is_time_wait() { TIME_WAIT } else { FIN_WAIT2 };
                    Listed::record(entry.tuple(), state)
                });
            }
        }
        false
    }
}

fn pass_records<T>(roll: &mut Roll, slab: &Slab<T>, list: impl Fn(&T) -> Listed) -> bool {
    roll.pass(slab.slots(), RECORDS, |roll, index| {
        if let Some(slot) = slab.at(index) {
            roll.list(list(slot));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::tcb::State;

    #[test]
    fn states_are_spelt_as_ss_does() {
        let tuple = FourTuple {
            local_addr: [10, 0, 0, 1].into(),
            remote_addr: [10, 0, 0, 2].into(),
            local_port: 1,
            remote_port: 2,
        };
        let name = |state| Listed::record(&tuple, state).state_name();
        assert_eq!(name(State::Established.number()), "ESTAB");
        assert_eq!(name(State::FinWait2.number()), "FIN-WAIT-2");
        assert_eq!(name(State::CloseWait.number()), "CLOSE-WAIT");
        assert_eq!(Listed { state: None, ..Listed::record(&tuple, 1) }.state_name(), "-");
    }

    #[test]
    fn a_list_takes_no_more_than_it_has_room_for() {
        let mut roll = Roll::with_room_for(2);
        let tuple = FourTuple {
            local_addr: [10, 0, 0, 1].into(),
            remote_addr: [10, 0, 0, 2].into(),
            local_port: 1,
            remote_port: 2,
        };
        let capacity = roll.rows.capacity();
        for _ in 0..capacity + 3 {
            roll.list(Listed::record(&tuple, 1));
        }
        assert_eq!((roll.rows.len(), roll.rows.capacity(), roll.omitted), (capacity, capacity, 3));
    }
}
