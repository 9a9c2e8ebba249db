//! Sockets of one thread: the thread that polls is the one that reads, and nobody else comes near.
//!
//! So there is nothing to own, to wait for or to wake: in-sequence buffers are taken where the
//! connection has queued them, what is read is freed on the spot, and what the application wants of
//! the engine waits in lists until the next turn. No atomic operation, no lock, no ring; the step of a read is the one
//! that shared sockets use. The cells are never borrowed while the application's code runs.

mod blocking;
mod listener;
mod stream;

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::num::NonZeroU8;
use std::rc::Rc;

use crate::buf::{BufQueue, Owner, PacketBuf, Returns};
use crate::tcp::tcb::{ConnError, MemInfo, NoSink, Tcb, TcpInfo};
use crate::tcp::{Counters, SeqNum};
use crate::time::Instant;
use crate::watch::Span;
use crate::wire::FourTuple;

use super::handle::Requests;
use super::inherit::SocketOptions;
use super::lcore_ref::Deferred;
use super::mode::{Claimed, Mode};
use super::options::Options;
use super::park::{Status, UrgentRead, UrgentWord};
use super::recv::{ReaderSide, RecvError, Source};
use super::slice::WayBack;
use super::socket::SocketId;

pub use blocking::LocalBlocking;
pub use listener::{LocalAccept, LocalListener, LocalRoom};
pub use stream::{LocalSegments, LocalStream};

/// Sockets that belong to the thread that polls: run to completion.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::lcore::Engine;
/// use prequeue::socket::Local;
///
/// /// The application's own thread runs TCP, and reads where it has run it.
/// type OwnEngine = Engine<HeapBuf, Local>;
/// fn is_idle(engine: &OwnEngine) -> bool {
///     engine.population().sockets == 0
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Local;

/// What the sockets of an engine leave for it and for the application.
///
/// It stays on its thread. See [`LocalStream`] for an example of what it serves.
#[derive(Debug)]
pub struct LocalHome<B: PacketBuf> {
    /// Sockets that want the engine to look at them.
    bells: RefCell<VecDeque<Rc<LocalSocket<B>>>>,
    /// Sockets that the application had better look at.
    ready: RefCell<VecDeque<Rc<LocalSocket<B>>>>,
    closed: Cell<bool>,
    clock: OnceCell<Clock>,
}

/// The engine's clock.
struct Clock(Box<dyn Fn() -> Instant>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl<B: PacketBuf> Default for LocalHome<B> {
    fn default() -> Self {
        Self {
            bells: RefCell::default(),
            ready: RefCell::default(),
            closed: Cell::new(false),
            clock: OnceCell::new(),
        }
    }
}

impl<B: PacketBuf> LocalHome<B> {
    /// Says how the engine's clock is read. Only the first says so.
    pub fn set_clock(&self, clock: impl Fn() -> Instant + 'static) {
        let _ = self.clock.set(Clock(Box::new(clock)));
    }

    /// The next connection to which something has happened since it was last given: data, the end,
    /// an error. One that is read in part, or has an end behind its data, is given again; one that is
    /// not read at all is not.
    pub fn next_ready(&self) -> Option<SocketId> {
        let socket = self.ready.borrow_mut().pop_front()?;
        socket.listed.set(false);
        Some(socket.id)
    }
}

/// One connection, and what its engine and its stream share of it.
#[derive(Debug)]
pub struct LocalSocket<B: PacketBuf> {
    inner: RefCell<Inner<B>>,
    options: Options,
    urgent_read: UrgentRead,
    home: Rc<LocalHome<B>>,
    id: SocketId,
    tuple: FourTuple,
    /// All requests ever made.
    requests: Cell<u32>,
    /// It is on the list of bells; on that of the ready ones.
    rung: Cell<bool>,
    listed: Cell<bool>,
    /// There is a stream, to which it makes sense to list it.
    accepted: Cell<bool>,
}

#[derive(Debug)]
struct Inner<B: PacketBuf> {
    tcb: Tcb<B>,
    side: ReaderSide<B>,
    /// Nobody else reads: in-sequence data is best off in the receive queue, which is taken whole.
    sink: NoSink,
    /// As of the engine's last visit, QUEUED excepted; SHUT and DEAD as they were set.
    status: Status,
    edge: SeqNum,
    /// The error that the next call returns.
    error: Option<ConnError>,
    requests_taken: u32,
    /// Truesize of what was freed and is still charged.
    returned: u32,
    /// What the reader's progress was when the engine was last told.
    told: SeqNum,
}

impl<B: PacketBuf> LocalSocket<B> {
    /// What the connection tells of itself.
    pub(super) fn info(&self) -> TcpInfo {
        let tcb = &self.inner.borrow().tcb;
        // Without a clock it is the moment when something last came.
        let now = self.home.clock.get().map_or_else(|| tcb.last_heard_at(), |clock| (clock.0)());
        tcb.info(now)
    }

    /// The memory that it takes.
    pub(super) fn mem_info(&self) -> MemInfo {
        let inner = self.inner.borrow();
        let MemInfo { rmem_alloc, rcvbuf, drops } = inner.tcb.mem_info();
        MemInfo { rmem_alloc: rmem_alloc - inner.returned, rcvbuf, drops }
    }

    /// Has the engine look at the socket in its next turn.
    fn ring(self: &Rc<Self>) {
        if !self.home.closed.get() && !self.rung.replace(true) {
            self.home.bells.borrow_mut().push_back(self.clone());
        }
    }

    fn request(self: &Rc<Self>, bits: u32) {
        self.requests.set(self.requests.get() | bits);
        self.ring();
    }

    /// Puts the socket on the list of those that the application had better look at.
    fn list(self: &Rc<Self>) {
        if self.accepted.get() && !self.listed.replace(true) {
            self.home.ready.borrow_mut().push_back(self.clone());
        }
    }

    /// The application has read: if a window update may be owed by that, the engine looks.
    fn tell(self: &Rc<Self>, inner: &mut Inner<B>) {
        let copied_seq = inner.side.copied_seq;
        let read = mem::replace(&mut inner.told, copied_seq) != copied_seq;
        let passed = || inner.tcb.notify_at().is_some_and(|mark| copied_seq.at_or_after(mark));
        if read && passed() || inner.returned != 0 && inner.tcb.wants_memory() {
            self.ring();
        }
        // Something was read, and something is left to be read or to be told.
        if read && (copied_seq != inner.edge || inner.status.ends_waiting()) {
            self.list();
        }
    }
}

/// What is read is freed where it stands, and uncharged at the engine's next visit.
impl<B: PacketBuf> WayBack<B> for Rc<LocalSocket<B>> {
    fn give(&self, buf: B) {
        let inner = &mut *self.inner.borrow_mut();
        inner.returned += buf.truesize();
        self.tell(inner);
    }
}

/// The source that a step reads from while the cell is borrowed.
#[derive(Debug)]
struct Open<'a, B: PacketBuf> {
    socket: &'a LocalSocket<B>,
    tcb: RefCell<&'a mut Tcb<B>>,
    status: Status,
    error: RefCell<&'a mut Option<ConnError>>,
    returned: Cell<u32>,
}

impl<B: PacketBuf> Source<B> for Open<'_, B> {
    const PREQUEUE: bool = false;

    fn status(&self) -> Status {
        self.status.with(Status::QUEUED.only_if(self.tcb.borrow().has_queued()))
    }

    fn urgent(&self) -> UrgentWord {
        UrgentWord::of(self.tcb.borrow().urgent())
    }

    fn urgent_read(&self) -> &UrgentRead {
        &self.socket.urgent_read
    }

    fn options(&self) -> &Options {
        &self.socket.options
    }

    fn is_guarded(&self) -> bool {
        false
    }

    fn pending_error(&self) -> Option<ConnError> {
        self.error.borrow_mut().take()
    }

    fn publish(&self, side: &mut ReaderSide<B>) {
        if let Some(batch) = side.spent.take() {
            self.returned.set(self.returned.get() + B::Returns::free_batch(batch));
        }
    }

    fn take_queue(&self, side: &mut ReaderSide<B>) {
        let tcb = &mut *self.tcb.borrow_mut();
        side.taken.append(&mut tcb.take_receive_queue());
        side.urgency.learn(tcb.urgent(), side.copied_seq);
    }

    fn take_everything(&self, side: &mut ReaderSide<B>) -> Result<(), RecvError> {
        self.take_queue(side);
        Ok(())
    }

    /// Nothing: see [`Self::PREQUEUE`].
    fn install(&self, _side: &mut ReaderSide<B>) {}

    /// Nothing: there is never a ring.
    fn remove_ring(&self, _side: &mut ReaderSide<B>) {}
}

impl<B: PacketBuf> Inner<B> {
    /// Moves all that is in sequence to the taken list.
    #[inline]
    fn take_queue(&mut self) {
        if self.tcb.has_queued() {
            self.side.taken.append(&mut self.tcb.take_receive_queue());
        }
        let urgent = self.tcb.urgent();
        if urgent.is_some() || self.side.urgency.is_pending() {
            self.side.urgency.learn(urgent, self.side.copied_seq);
        }
    }

    /// Lends side and source to a step; what it has freed is noted.
    fn with_source<R>(
        &mut self,
        socket: &LocalSocket<B>,
        work: impl FnOnce(&Open<'_, B>, &mut ReaderSide<B>) -> R,
    ) -> R {
        let Self { tcb, side, status, error, returned, .. } = self;
        let source = Open {
            socket,
            tcb: RefCell::new(tcb),
            status: *status,
            error: RefCell::new(error),
            returned: Cell::new(*returned),
        };
        let result = work(&source, side);
        *returned = source.returned.get();
        result
    }
}

/// The engine's reference to a socket.
#[derive(Debug)]
pub struct LocalRef<B: PacketBuf>(Rc<LocalSocket<B>>);

/// The engine at work on a socket.
#[derive(Debug)]
pub struct LocalClaim<'a, B: PacketBuf> {
    socket: &'a Rc<LocalSocket<B>>,
    inner: RefMut<'a, Inner<B>>,
}

/// The application's share of a connection; dropping it closes the connection.
#[derive(Debug)]
pub struct LocalHandle<B: PacketBuf>(Rc<LocalSocket<B>>);

impl<B: PacketBuf> Drop for LocalHandle<B> {
    fn drop(&mut self) {
        self.0.accepted.set(false);
        self.0.request(Requests::CLOSE);
    }
}

impl<B: PacketBuf> Claimed<B> for LocalClaim<'_, B> {
    type Sink = NoSink;

    #[inline]
    fn tcb(&mut self) -> &mut Tcb<B> {
        &mut self.inner.tcb
    }

    #[inline]
    fn parts(&mut self) -> (&mut Tcb<B>, &mut Self::Sink) {
        let Inner { tcb, sink, .. } = &mut *self.inner;
        (tcb, sink)
    }

    #[inline]
    fn next_deferred(&mut self) -> Option<Deferred<B>> {
        match mem::take(&mut self.inner.returned) {
            0 => None,
            returned => Some(Deferred::Uncharge(returned)),
        }
    }

    fn take_requests(&mut self) -> Requests {
        let all = self.socket.requests.get();
        let taken = mem::replace(&mut self.inner.requests_taken, all);
        Requests::news(all, taken)
    }

    #[inline]
    fn copied_seq(&self) -> SeqNum {
        self.inner.side.copied_seq
    }

    /// All but what the stream has taken out of the socket to lend it.
    fn with_unread<R>(&mut self, work: impl FnOnce(&mut Tcb<B>, &mut B::Queue) -> R) -> Option<R> {
        let Inner { tcb, side, .. } = &mut *self.inner;
        Some(work(tcb, &mut side.taken))
    }

    #[inline]
    fn leave(self) {}
}

impl<B: PacketBuf> Drop for LocalClaim<'_, B> {
    #[inline]
    fn drop(&mut self) {
        let inner = &mut *self.inner;
        let status =
            Status::of(&inner.tcb).with(inner.status.only(Status::SHUT.with(Status::DEAD)));
        let news = status.without(inner.status);
        if news.has(Status::ERROR) {
            inner.error = inner.tcb.error();
        }
        inner.status = status.without(Status::QUEUED);
        let edge = inner.tcb.edge();
        let advanced = mem::replace(&mut inner.edge, edge) != edge;
        if advanced || news.ends_waiting() {
            self.socket.list();
        }
    }
}

impl<B: PacketBuf> Mode<B> for Local {
    type Home = Rc<LocalHome<B>>;
    type Lcore = LocalRef<B>;
    type Claim<'a> = LocalClaim<'a, B>;
    type Handle = LocalHandle<B>;
    type Accept = Rc<LocalAccept<B>>;
    type Room = LocalRoom<B>;

    fn open(
        tcb: Tcb<B>,
        home: &Self::Home,
        id: SocketId,
        tuple: FourTuple,
    ) -> (Self::Lcore, Self::Handle) {
        let edge = tcb.edge();
        let inner = Inner {
            tcb,
            side: ReaderSide::new(edge),
            sink: NoSink,
            status: Status::default(),
            edge,
            error: None,
            requests_taken: 0,
            returned: 0,
            told: edge,
        };
        let socket = Rc::new(LocalSocket {
            inner: RefCell::new(inner),
            options: Options::default(),
            urgent_read: UrgentRead::default(),
            home: home.clone(),
            id,
            tuple,
            requests: Cell::new(0),
            rung: Cell::new(false),
            listed: Cell::new(false),
            accepted: Cell::new(false),
        });
        (LocalRef(socket.clone()), LocalHandle(socket))
    }

    fn inherit(handle: &Self::Handle, options: &SocketOptions, low_water: Option<u32>) {
        let socket = &handle.0;
        options.store(low_water, &socket.options);
        if options.linger.is_some_and(|linger| linger.is_zero()) {
            socket.requests.set(socket.requests.get() | Requests::LINGER_ZERO);
        }
    }

    #[inline]
    fn claim(lcore: &Self::Lcore) -> Option<Self::Claim<'_>> {
        let socket = &lcore.0;
        Some(LocalClaim { socket, inner: socket.inner.borrow_mut() })
    }

    /// Never called: a claim never fails.
    fn defer<'a>(
        lcore: &'a Self::Lcore,
        _what: Deferred<B>,
        _counters: &mut Counters,
    ) -> Option<Self::Claim<'a>> {
        Self::claim(lcore)
    }

    /// Always empty, for the same reason.
    fn backlog(_lcore: &Self::Lcore) -> Vec<Span> {
        Vec::new()
    }

    fn backlog_len(_lcore: &Self::Lcore) -> usize {
        0
    }

    /// Nothing but truesize to be uncharged, which waits for whoever comes next.
    fn has_deferred(_lcore: &Self::Lcore) -> bool {
        false
    }

    fn kill(lcore: &Self::Lcore) {
        let inner = &mut *lcore.0.inner.borrow_mut();
        inner.status = inner.status.with(Status::DEAD);
    }

    /// Nothing does: buffers are freed where they are read.
    #[inline]
    fn has_returned(_home: &Self::Home) -> bool {
        false
    }

    #[inline]
    fn free_returned(_home: &Self::Home, _told: impl FnMut(Owner, u32)) {}

    fn take_bells(home: &Self::Home) -> impl Iterator<Item = SocketId> {
        // Those that ring while these are looked at are for the next turn.
        let rung = home.bells.borrow().len();
        (0..rung).filter_map(|_| {
            let socket = home.bells.borrow_mut().pop_front()?;
            socket.rung.set(false);
            Some(socket.id)
        })
    }

    fn reap(_home: &Self::Home) -> usize {
        0
    }

    fn close(home: &Self::Home) {
        home.closed.set(true);
        // Outside of the cells: a socket that goes with its place on a list looks at them.
        drop((mem::take(&mut *home.bells.borrow_mut()), mem::take(&mut *home.ready.borrow_mut())));
    }

    fn accept_queue(backlog: u32) -> Self::Accept {
        Rc::new(LocalAccept::new(backlog))
    }

    fn waiting(queue: &Self::Accept) -> u32 {
        queue.len()
    }

    fn defer_accept(queue: &Self::Accept) -> u8 {
        queue.defer_accept()
    }

    fn synack_retries(queue: &Self::Accept) -> Option<NonZeroU8> {
        queue.synack_retries()
    }

    fn is_closed(queue: &Self::Accept) -> bool {
        queue.is_closed()
    }

    fn close_queue(queue: &Self::Accept) {
        queue.close();
    }

    fn reserve(queue: &Self::Accept) -> Option<Self::Room> {
        queue.reserve()
    }

    fn put(room: Self::Room, handle: Self::Handle) {
        room.put(handle);
    }
}
