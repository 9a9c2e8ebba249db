//! Everything that an lcore has: what is found by a segment, a timer or a bell.
//!
//! Records only. What is done with them stands where it belongs: `opening.rs` and `closing.rs` for
//! requests and TIME-WAIT entries, `sockets.rs` for connections, `engine.rs` for the whole. All of it
//! belongs to the lcore's thread.

use std::sync::Arc;

use crate::buf::{PacketBuf, Reassembly};
use crate::socket::{Mode, SocketId, Threaded};
use crate::tcp::request::Request;
use crate::tcp::time_wait::TimeWait;
use crate::time::Instant;
use crate::wire::FourTuple;

use super::flow::{FlowTable, Target};
use super::hash::HashKey;
use super::hoards::{Account, Hoards};
use super::mesh::Mesh;
use super::shared::{Listening, Shared};
use super::slab::Slab;
use super::wheel::{Timer, Wheel};

/// Flows that the table of a new engine holds before it grows: 64 KiB.
const FLOWS: usize = 2048;

/// Requests per lcore, besides the limits of the listeners: some 20 MiB of them.
const MOST_REQUESTS: u32 = 1 << 17;

/// Everything that is found by a segment, a timer or a bell.
#[derive(Debug)]
pub(super) struct Tables<B: PacketBuf, M: Mode<B> = Threaded> {
    pub flows: FlowTable,
    pub wheel: Wheel,
    pub sockets: Slab<SocketSlot<B, M>>,
    pub requests: Slab<RequestSlot<B, M>>,
    pub time_waits: Slab<TimeWaitSlot>,
    /// By port.
    pub listeners: Vec<Arc<Listening<B, M>>>,
    /// Version of that list.
    pub version: u32,
    pub shared: Arc<Shared<B, M>>,
    pub home: M::Home,
    pub mesh: Option<Mesh<B>>,
    /// Where fragments wait for others, if they are put together.
    pub fragments: Option<Box<dyn Reassembly<B>>>,
    /// Sockets to which buffers came back.
    pub with_returns: Vec<u32>,
    /// Sockets that hold much.
    pub hoards: Hoards,
    /// Where the sweep over all sockets goes on when the pool runs out.
    pub swept: u32,
}

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// Empty ones, with room for so many connections and TIME-WAIT entries.
    pub fn new(
        key: HashKey,
        max_connections: u32,
        max_time_waits: u32,
        shared: Arc<Shared<B, M>>,
        mesh: Option<Mesh<B>>,
    ) -> Self {
        Self {
            flows: FlowTable::new(key, FLOWS),
            wheel: Wheel::default(),
            sockets: Slab::new(max_connections.min(Target::INDEX_LIMIT)),
            requests: Slab::new(MOST_REQUESTS),
            time_waits: Slab::new(max_time_waits.min(Target::INDEX_LIMIT)),
            listeners: Vec::new(),
            version: shared.version(),
            shared,
            home: M::Home::default(),
            mesh,
            fragments: None,
            with_returns: Vec::new(),
            hoards: Hoards::default(),
            swept: 0,
        }
    }
}

/// A connection that has a socket.
#[derive(Debug)]
pub(super) struct SocketSlot<B: PacketBuf, M: Mode<B> = Threaded> {
    pub lcore: M::Lcore,
    pub id: SocketId,
    pub tuple: FourTuple,
    pub timer: Timer,
    /// When the wheel will call, or [`NEVER`]: a deadline that is not earlier needs nothing.
    pub armed: Instant,
    /// Truesize that came back since the last claim.
    pub returned: u32,
    /// Buffers that come back are a reason to look at the window.
    pub wants_memory: bool,
    /// It counts against tcp_max_orphans.
    pub is_orphan: bool,
    /// What it holds.
    pub account: Account,
}

impl<B: PacketBuf, M: Mode<B>> SocketSlot<B, M> {
    /// Truesize that the socket holds.
    pub fn held(&self) -> u32 {
        self.account.held(self.returned)
    }

    /// What there may be to win of it.
    pub fn promises(&self) -> u32 {
        self.account.promises(self.returned)
    }
}

/// A request, and what the lcore needs to find its way around it.
#[derive(Debug)]
pub(super) struct RequestSlot<B: PacketBuf, M: Mode<B> = Threaded> {
    pub request: Request,
    pub listening: Arc<Listening<B, M>>,
    pub timer: Timer,
}

impl<B: PacketBuf, M: Mode<B>> RequestSlot<B, M> {
    pub const fn tuple(&self) -> &FourTuple {
        self.request.tuple()
    }
}

const _: () = assert!(size_of::<RequestSlot<crate::buf::HeapBuf>>() <= 128);

/// A TIME-WAIT entry and its timer.
#[derive(Debug)]
pub(super) struct TimeWaitSlot {
    pub entry: TimeWait,
    pub timer: Timer,
}

const _: () = assert!(size_of::<TimeWaitSlot>() <= 96);
