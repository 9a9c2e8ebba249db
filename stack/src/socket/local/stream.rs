//! The application's side of a socket that belongs to its own thread.
//!
//! Nothing here waits; calls that poll until there is something are in `blocking.rs`. A read takes what the last poll brought, copied or in place, and frees what
//! was read at once; the engine hears of it at the next poll.

use std::io::{self, BufRead};
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;

use crate::buf::{BufQueue, PacketBuf};
use crate::tcp::SeqNum;
use crate::tcp::tcb::Tcb;
use crate::time::Instant;

use super::super::handle::Requests;
use super::super::options::Options;
use super::super::park::{Status, UrgentWord};
use super::super::recv::{Call, RecvError, RecvFlags, Source, Step, read_by_recv};
use super::super::slice::{Lent, Remains, Segment, View};
use super::super::socket::SocketId;
use super::{Inner, LocalHandle, LocalSocket};

/// A connection of a thread's own stack. Dropping it closes the connection: with FIN, or with RST if
/// data is unread.
///
/// It stays on its thread, which polls: what can be read changes in a poll and at no other time, so
/// that no read waits, whatever flags say, but those of a [`LocalBlocking`](super::LocalBlocking), which
/// polls meanwhile. Buffers that are read are free at once; windows open with the next poll.
///
/// ```
/// use std::io;
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::LocalStream;
///
/// /// Adds up what there is, where it lies. `None` at the end of the stream.
/// fn sum(stream: &mut LocalStream<HeapBuf>) -> io::Result<Option<u64>> {
///     let mut segments = match stream.segments() {
///         Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(0)),
///         other => other?,
///     };
///     if segments.is_end() {
///         return Ok(None);
///     }
///     let mut sum = 0;
///     while let Some(segment) = segments.next_segment() {
///         sum += segment.iter().map(|&byte| u64::from(byte)).sum::<u64>();
///     }
///     Ok(Some(sum))
/// }
/// ```
///
/// ```compile_fail,E0277
/// # use prequeue::buf::HeapBuf;
/// # use prequeue::socket::LocalStream;
/// fn elsewhere<T: Send>() {}
/// elsewhere::<LocalStream<HeapBuf>>();
/// ```
#[derive(Debug)]
pub struct LocalStream<B: PacketBuf> {
    socket: Rc<LocalSocket<B>>,
    lent: Lent<B>,
    /// Buffers taken out of the socket to be lent, and those that have been read.
    ahead: B::Queue,
    spent: B::Queue,
    /// Bytes read, of which the socket does not know yet.
    advance: u32,
    _handle: LocalHandle<B>,
}

impl<B: PacketBuf> LocalStream<B> {
    pub(super) fn new(handle: LocalHandle<B>) -> Self {
        let socket = handle.0.clone();
        socket.accepted.set(true);
        let stream = Self {
            socket,
            lent: Lent::NONE,
            ahead: B::Queue::default(),
            spent: B::Queue::default(),
            advance: 0,
            _handle: handle,
        };
        // What came before it was accepted.
        if stream.readable() > 0 || stream.socket.inner.borrow().status.ends_waiting() {
            stream.socket.list();
        }
        stream
    }

    /// Reads what there is into `buf` as `flags` say; the number of bytes, 0 at the end of the
    /// stream. It never waits: DONTWAIT is understood.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing, `ConnectionReset`, `BrokenPipe` or `TimedOut` once if the
    /// connection has ended so, `ConnectionAborted` if the stack has stopped.
    pub fn recv(&mut self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let flags = flags.with(RecvFlags::DONTWAIT);
        self.put_back();
        let socket = &*self.socket;
        let mut call = Call::new(buf, flags, &socket.options, || Instant::ZERO);
        self.step(&mut call)
    }

    /// Lends what there is, segment by segment and uncopied. Without a segment it is the end of the
    /// stream: [`LocalSegments::is_end`].
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn segments(&mut self) -> io::Result<LocalSegments<'_, B>> {
        let end = !self.take_ahead()?;
        Ok(LocalSegments { stream: self, end })
    }

    /// Shows `each` segment that there is, uncopied, and frees them together when it has seen all;
    /// the number of bytes, 0 at the end of the stream. The cheapest way to read.
    ///
    /// If `each` panics nothing has been read.
    ///
    /// ```
    /// use prequeue::buf::HeapBuf;
    /// use prequeue::socket::LocalStream;
    ///
    /// fn newlines(stream: &mut LocalStream<HeapBuf>) -> std::io::Result<usize> {
    ///     let mut n = 0;
    ///     stream.read_in_place(|segment| {
    ///         n += segment.data().iter().filter(|&&byte| byte == b'\n').count();
    ///     })?;
    ///     Ok(n)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Self::recv`].
    #[inline]
    pub fn read_in_place(&mut self, mut each: impl FnMut(View<'_, B>)) -> io::Result<usize> {
        if !self.take_ahead()? {
            return Ok(0);
        }
        let mut bytes = 0;
        for buf in self.ahead.iter() {
            bytes += buf.len();
            each(View::new(buf));
        }
        self.spent.append(&mut self.ahead);
        self.advance = bytes as u32;
        self.put_back();
        Ok(bytes)
    }

    /// Shows what there is without taking any of it.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn peek_segments(&mut self) -> io::Result<impl Iterator<Item = View<'_, B>>> {
        self.take_ahead()?;
        Ok(self.ahead.iter().map(View::new))
    }

    /// Bytes that can be read, up to the urgent byte if there is one (FIONREAD).
    pub fn readable(&self) -> u32 {
        let inner = self.socket.inner.borrow();
        let (read, unread) = self.progress(&inner);
        let mark = UrgentWord::of(inner.tcb.urgent());
        if self.options().is_urgent_inline() { unread } else { mark.before(read, unread) }
    }

    /// What is left to be learnt by reading (TCP_INQ): bytes, and the end of the stream as one more.
    pub(super) fn left(&self) -> u32 {
        let inner = self.socket.inner.borrow();
        self.progress(&inner).1 + u32::from(inner.status.has(Status::EOF))
    }

    /// Whether the next byte to be read is the urgent one (SIOCATMARK, sockatmark(3)).
    pub fn is_at_mark(&self) -> bool {
        let inner = self.socket.inner.borrow();
        UrgentWord::of(inner.tcb.urgent()).mark() == Some(self.progress(&inner).0)
    }

    /// The first sequence number that was not read, and how many bytes follow from there.
    fn progress(&self, inner: &Inner<B>) -> (SeqNum, u32) {
        let ahead = self.advance + self.lent.progress();
        let read = inner.side.copied_seq.plus(ahead);
        (read, inner.edge.since(inner.side.copied_seq) - ahead)
    }

    /// Bytes that the connection is charged for: whole buffers that wait, are lent, or are held as
    /// slices.
    pub fn charged(&self) -> u32 {
        let inner = self.socket.inner.borrow();
        inner.tcb.rmem() - inner.returned
    }

    /// Which connection this is among those of its stack: what the list of readable ones says.
    pub fn id(&self) -> SocketId {
        self.socket.id
    }

    /// Shuts one side or both. The reading side sends nothing: reads return 0 once what is there,
    /// and what may still come, is read. The writing side sends FIN with the next poll.
    pub fn shutdown(&self, how: Shutdown) {
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            let inner = &mut *self.socket.inner.borrow_mut();
            inner.status = inner.status.with(Status::SHUT);
            self.socket.request(Requests::SHUT_READ);
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.socket.request(Requests::SHUT_WRITE);
        }
    }

    /// Has the connection reset instead of closed when it is dropped (SO_LINGER, time zero).
    pub fn set_linger_zero(&self) {
        self.socket.requests.set(self.socket.requests.get() | Requests::LINGER_ZERO);
    }

    /// The pending error (SO_ERROR), which is taken: reads do not return it any more.
    pub fn take_error(&self) -> Option<io::Error> {
        let error = self.socket.inner.borrow_mut().error.take()?;
        Some(RecvError::Connection(error).into())
    }

    /// The peer's address and port.
    pub fn peer_addr(&self) -> SocketAddr {
        self.socket.options.form(self.socket.tuple.remote())
    }

    /// Our address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.options.form(self.socket.tuple.local())
    }

    pub(in crate::socket) fn socket(&self) -> &LocalSocket<B> {
        &self.socket
    }

    pub(in crate::socket) fn options(&self) -> &Options {
        &self.socket.options
    }

    /// Nothing: what there is is told however little it is.
    pub(in crate::socket) fn low_water_has_changed(&self) {}

    /// Changes what the connection has been asked for, and has the engine act on it in the next poll.
    pub(in crate::socket) fn change<R>(
        &self,
        what: impl FnOnce(&mut Tcb<B>) -> R,
    ) -> io::Result<R> {
        let result = self.look(what);
        self.socket.ring();
        result
    }

    pub(in crate::socket) fn look<R>(&self, what: impl FnOnce(&mut Tcb<B>) -> R) -> io::Result<R> {
        Ok(what(&mut self.socket.inner.borrow_mut().tcb))
    }

    /// Takes everything that is in sequence out of the socket, to be lent; `false` at the end.
    fn take_ahead(&mut self) -> io::Result<bool> {
        self.put_back();
        let inner = &mut *self.socket.inner.borrow_mut();
        inner.take_queue();
        mem::swap(&mut self.ahead, &mut inner.side.taken);
        if !self.ahead.is_empty() {
            return Ok(true);
        }
        let options = &self.socket.options;
        let mut call = Call::looking(RecvFlags::DONTWAIT, options, || Instant::ZERO);
        outcome(
            inner.with_source(&self.socket, |source, side| {
                source.step(side, &mut call, Instant::ZERO)
            }),
        )
        .map(|n| n > 0)
    }

    /// Takes note of what became of the last loan.
    #[inline]
    fn settle(&mut self) {
        let settled = self.lent.settle();
        self.advance += settled.advance;
        match settled.buf {
            Remains::Nothing => {}
            Remains::Spent(buf) => self.spent.push_back(buf),
            Remains::Next(buf) => self.ahead.push_front(buf),
        }
    }

    /// Puts what was not read back into the socket, frees what was, and tells how far that is.
    pub(super) fn put_back(&mut self) {
        self.settle();
        if self.advance == 0 && self.ahead.is_empty() {
            return;
        }
        let inner = &mut *self.socket.inner.borrow_mut();
        let side = &mut inner.side;
        let advance = mem::take(&mut self.advance);
        side.copied_seq = side.copied_seq.plus(advance);
        self.socket.options.move_peek_offset(advance as usize, false);
        if !self.ahead.is_empty() {
            // What a poll has brought in the meantime is newer.
            self.ahead.append(&mut side.taken);
            mem::swap(&mut self.ahead, &mut side.taken);
        }
        inner.returned += mem::take(&mut self.spent).free();
        inner.with_source(&self.socket, |source, side| source.publish(side));
        self.socket.tell(inner);
    }

    fn step(&mut self, call: &mut Call<'_>) -> io::Result<usize> {
        outcome(self.step_at(call, Instant::ZERO))
    }

    pub(super) fn step_at(&mut self, call: &mut Call<'_>, now: Instant) -> Step {
        let inner = &mut *self.socket.inner.borrow_mut();
        // Here and not in the step, for what has come is to be read when the stack has stopped, too.
        inner.take_queue();
        let step = inner.with_source(&self.socket, |source, side| source.step(side, call, now));
        self.socket.tell(inner);
        step
    }
}

/// What the last step of a call has come to. Nothing is allocated for the usual refusal.
pub(super) fn outcome(step: Step) -> io::Result<usize> {
    match step {
        Step::Done(n) => Ok(n),
        Step::Failed(RecvError::WouldBlock) | Step::Sleep(_) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        Step::Failed(error) => Err(error.into()),
    }
}

impl<B: PacketBuf> Drop for LocalStream<B> {
    fn drop(&mut self) {
        // Before the handle asks for the close: what is unread makes a difference to it.
        self.put_back();
    }
}

read_by_recv!([B: PacketBuf] LocalStream<B>);

/// The buffer is the mbuf itself: nothing is copied.
impl<B: PacketBuf> BufRead for LocalStream<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.lent.rest().is_empty() {
            self.settle();
            if self.ahead.is_empty() {
                self.take_ahead()?;
            }
            if let Some(buf) = self.ahead.pop_front() {
                self.lent.lend(buf);
            }
        }
        Ok(self.lent.rest())
    }

    fn consume(&mut self, n: usize) {
        self.lent.read(n);
    }
}

/// What there was when [`LocalStream::segments`] was called.
///
/// Lends one segment at a time; dropping it frees what was read, and leaves the rest to the next
/// call. See [`LocalStream`] for an example.
#[derive(Debug)]
pub struct LocalSegments<'r, B: PacketBuf> {
    stream: &'r mut LocalStream<B>,
    end: bool,
}

impl<B: PacketBuf> LocalSegments<'_, B> {
    /// Whether there was nothing, and nothing will come: the end of the stream.
    pub fn is_end(&self) -> bool {
        self.end
    }

    /// The next segment.
    #[inline]
    pub fn next_segment(&mut self) -> Option<Segment<'_, B, Rc<LocalSocket<B>>>> {
        let stream = &mut *self.stream;
        stream.settle();
        let buf = stream.ahead.pop_front()?;
        Some(Segment::new(stream.lent.lend(buf), &stream.socket))
    }
}

impl<B: PacketBuf> Drop for LocalSegments<'_, B> {
    fn drop(&mut self) {
        self.stream.put_back();
    }
}
