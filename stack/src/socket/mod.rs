//! Where the lcore and application threads meet: ownership, backlog, prequeue, waiting, reading.
//!
//! The lcore's side is [`LcoreRef`] and [`Home`]; the application's is [`TcpStream`]; reading as a
//! step function is [`Recv`]. Nothing here runs TCP, knows DPDK or frees a packet buffer on an
//! application thread. `unsafe` is in `owner/`, `ring.rs` and `direct.rs` alone.

mod accept;
mod claim;
mod conn;
mod direct;
mod handle;
mod home;
#[cfg(not(loom))]
mod inherit;
mod lcore_ref;
mod listener;
#[cfg(not(loom))]
mod local;
#[cfg(all(test, loom))]
mod loom;
#[cfg(not(loom))]
mod mode;
mod notice;
mod options;
mod owner;
mod ownership;
mod park;
mod poller;
mod reader;
mod recv;
mod ring;
#[cfg(not(loom))]
mod sight;
mod slice;
#[expect(clippy::module_inception, reason = "the room is named after its one big thing")]
mod socket;
mod sockopt;
mod stream;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod wait;
mod watch;

pub use accept::{AcceptQueue, Room};
pub use claim::Claim;
pub use conn::Connection;
pub use handle::{Handle, Requests};
pub use home::Home;
#[cfg(not(loom))]
pub use inherit::SocketOptions;
pub use lcore_ref::{Deferred, LcoreRef};
pub use listener::{Incoming, TcpListener};
#[cfg(not(loom))]
pub use local::{
    Local, LocalAccept, LocalBlocking, LocalClaim, LocalHandle, LocalHome, LocalListener, LocalRef,
    LocalRoom, LocalSegments, LocalSocket, LocalStream,
};
#[cfg(not(loom))]
pub use mode::{Claimed, Mode, Threaded};
pub use ownership::SocketGuard;
#[cfg(all(feature = "tokio", not(loom)))]
pub use poller::{AsyncTcpListener, AsyncTcpStream, Reactor};
pub use poller::{Event, Events, Interest, Poller, Readiness, Source, Token, Trigger};
pub use reader::{Reader, Segments};
pub use recv::{Received, Recv, RecvError, RecvFlags, Sleep, Slices, Step};
pub use slice::{Arrival, Segment, Slice, View, WayBack};
pub use socket::{RingSink, Socket, SocketId};
pub use stream::TcpStream;
pub use wait::Waiting;
