//! The exclusive reader: the reader token for life, and with it the ring and zero copy.
//!
//! Used by one application thread at a time. Its ring stays installed between calls, so that a
//! busy reader shares with the lcore nothing but the ring and its own line. It never runs TCP and
//! never frees a buffer.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use crate::buf::{BufQueue, PacketBuf};
use crate::tcp::tcb::Tcb;
use crate::time::Instant;

use super::conn::Connection;
use super::handle::Handle;
use super::home::Home;
use super::owner::{Ref, ThreadClaim};
use super::recv::{Call, ReaderSide, RecvError, RecvFlags, Source, Step};
use super::slice::{Lent, Remains, Segment, View};
use super::socket::Socket;
use super::sync::Woken;
use super::wait::{ThreadWaiter, Waiter, Waiting, wait};

/// The only reader of a stream: see [`TcpStream::reader`](super::TcpStream::reader).
///
/// It belongs to one thread at a time; other handles of the stream can do everything but read, which
/// waits until the reader is gone. Data that it has not read is there for whoever reads next. It reads
/// as a stream does ([`recv`](Self::recv), [`Read`]), and without a copy, one segment after the other
/// ([`segments`](Self::segments), or [`BufRead`] if the bytes are all that is wanted).
///
/// What was read opens the window again, and frees its buffers, when the call returns. A reader that
/// spins ([`Waiting::Spin`](super::Waiting::Spin)) is expected back at once and tells later: when a call
/// finds nothing to read, after 32 buffers, and when it is dropped. If it stays away instead, as much of
/// the window stays closed, and [`TcpStream::readable`](super::TcpStream::readable) and pollers count
/// those bytes as unread.
///
/// ```
/// use std::io::{self, Read};
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
///
/// fn count(mut stream: TcpStream<HeapBuf>) -> io::Result<u64> {
///     let mut reader = stream.reader()?;
///     let mut buf = vec![0; 64 * 1024];
///     let mut total = 0;
///     loop {
///         match reader.read(&mut buf)? {
///             0 => return Ok(total),
///             n => total += n as u64,
///         }
///     }
/// }
/// ```
///
/// One stream has one reader:
///
/// ```compile_fail,E0499
/// # use prequeue::buf::HeapBuf;
/// # use prequeue::socket::TcpStream;
/// fn two(mut stream: TcpStream<HeapBuf>) {
///     let one = stream.reader();
///     let two = stream.reader();
///     drop((one, two));
/// }
/// ```
#[derive(Debug)]
pub struct Reader<'a, B: PacketBuf, C: Connection<B> = Tcb<B>> {
    // Dropped before the token is given up: see `Drop`.
    lent: Lent<B>,
    exclusive: Exclusive<'a, B, C>,
}

impl<'a, B: PacketBuf, C: Connection<B>> Reader<'a, B, C> {
    /// Takes the token of a socket and installs the ring.
    pub(super) fn new(handle: &'a Handle<B, C>) -> Result<Self, RecvError> {
        Ok(Self { lent: Lent::NONE, exclusive: Exclusive::new(&handle.socket)? })
    }

    /// As [`TcpStream::recv`](super::TcpStream::recv).
    ///
    /// # Errors
    /// As [`TcpStream::recv`](super::TcpStream::recv).
    pub fn recv(&mut self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        self.settle();
        let waiter = &ThreadWaiter;
        let options = &self.exclusive.socket.options;
        let call = Call::new(buf, flags, options, || waiter.now());
        self.exclusive.finish(call, waiter)
    }

    /// A read in virtual time: `happens` where it would sleep, once; what it has come to then.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn recv_while(
        &mut self,
        buf: &mut [u8],
        flags: RecvFlags,
        happens: impl FnOnce(),
    ) -> Step {
        self.settle();
        let Exclusive { socket, side } = &mut self.exclusive;
        let now = Instant::ZERO;
        let mut call = Call::new(buf, flags, &socket.options, || now);
        let mut step = socket.step(side, &mut call, now);
        if let Step::Sleep(_) = step {
            let copied_seq = side.ring.is_none().then_some(&mut side.copied_seq);
            match copied_seq {
                None => happens(),
                copied_seq => socket.lending(&mut call, copied_seq, happens),
            }
            step = socket.step(side, &mut call, now);
        }
        socket.leave(side, &mut call);
        step
    }

    /// Waits as a read does, for the low-water mark or until the time is out, and then lends what
    /// is there, segment by segment and uncopied.
    ///
    /// Without a segment it is the end of the stream: [`Segments::is_end`]. Of the flags, those
    /// that say how to wait make a difference: nothing is copied whatever they say, and a length to be waited
    /// for is the low-water mark's business. For PEEK there is [`Self::peek_segments`].
    ///
    /// # Errors
    /// As [`TcpStream::recv`](super::TcpStream::recv); `InvalidInput` for PEEK.
    pub fn segments(&mut self, flags: RecvFlags) -> io::Result<Segments<'_, B, C>> {
        if flags.has(RecvFlags::PEEK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "segments are lent to be read: use peek_segments to look at them",
            ));
        }
        let end = !self.await_data(flags)?;
        let Exclusive { socket, side } = &mut self.exclusive;
        Ok(Segments { lent: &mut self.lent, side, socket, end })
    }

    /// Waits as [`Self::segments`] does, and shows what is there without taking any of it.
    ///
    /// ```
    /// use prequeue::buf::HeapBuf;
    /// use prequeue::socket::{Reader, RecvFlags};
    ///
    /// /// Where the first line ends, if it is there; nothing is read.
    /// fn line(reader: &mut Reader<'_, HeapBuf>) -> std::io::Result<Option<usize>> {
    ///     let mut before = 0;
    ///     for segment in reader.peek_segments(RecvFlags::DONTWAIT)? {
    ///         if let Some(at) = segment.data().iter().position(|&byte| byte == b'\n') {
    ///             return Ok(Some(before + at));
    ///         }
    ///         before += segment.data().len();
    ///     }
    ///     Ok(None)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`TcpStream::recv`](super::TcpStream::recv).
    pub fn peek_segments(
        &mut self,
        flags: RecvFlags,
    ) -> io::Result<impl Iterator<Item = View<'_, B>>> {
        self.await_data(flags)?;
        let side = &mut *self.exclusive.side;
        side.empty_ring();
        Ok(side.taken.iter().map(View::new))
    }

    /// Waits until there is data, as much as the low-water mark says; `false` at the end.
    fn await_data(&mut self, flags: RecvFlags) -> io::Result<bool> {
        self.settle();
        let options = &self.exclusive.socket.options;
        // As for a read: what is there comes before whatever else the socket has to say.
        if options.low_water() <= 1 && self.exclusive.side.has_data() {
            return Ok(true);
        }
        let waiter = &ThreadWaiter;
        let call = Call::looking(flags, options, || waiter.now());
        Ok(self.exclusive.finish(call, waiter)? > 0)
    }

    #[cfg(not(loom))]
    pub(super) fn socket(&self) -> &Ref<Socket<B, C>> {
        self.exclusive.socket
    }

    fn settle(&mut self) {
        let Exclusive { socket, side } = &mut self.exclusive;
        settle(socket, side, &mut self.lent);
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Reader<'_, B, C> {
    fn drop(&mut self) {
        self.settle();
        let Exclusive { socket, side } = &mut self.exclusive;
        socket.publish(side);
    }
}

impl<B: PacketBuf, C: Connection<B>> Read for Reader<'_, B, C> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() { Ok(0) } else { self.recv(buf, RecvFlags::NONE) }
    }
}

/// The buffer is the mbuf itself: nothing is copied. Waits as a read does.
impl<B: PacketBuf, C: Connection<B>> BufRead for Reader<'_, B, C> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.lent.rest().is_empty() {
            self.await_data(RecvFlags::NONE)?;
            let Exclusive { socket, side } = &mut self.exclusive;
            if let Some(buf) = side.first() {
                self.lent.lend(buf);
            }
            // Once for each buffer: what was read before it is told.
            socket.publish(side);
        }
        Ok(self.lent.rest())
    }

    fn consume(&mut self, n: usize) {
        self.lent.read(n);
    }
}

/// What was there when [`Reader::segments`] returned, and what comes while it is read.
///
/// Lends one segment at a time: see [`Segment`]. Dropping it tells the lcore how far the reader is;
/// what was not read is there for the next call.
///
/// ```
/// use std::io;
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Reader, RecvFlags};
///
/// /// Adds up all bytes to the end of the stream, where they lie.
/// fn sum(reader: &mut Reader<'_, HeapBuf>) -> io::Result<u64> {
///     let mut sum = 0;
///     loop {
///         let mut segments = reader.segments(RecvFlags::NONE)?;
///         if segments.is_end() {
///             return Ok(sum);
///         }
///         while let Some(segment) = segments.next_segment() {
///             sum += segment.iter().map(|&byte| u64::from(byte)).sum::<u64>();
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Segments<'r, B: PacketBuf, C: Connection<B> = Tcb<B>> {
    lent: &'r mut Lent<B>,
    side: &'r mut ReaderSide<B>,
    socket: &'r Ref<Socket<B, C>>,
    end: bool,
}

impl<B: PacketBuf, C: Connection<B>> Segments<'_, B, C> {
    /// Whether there was nothing, and nothing will come: the end of the stream.
    pub fn is_end(&self) -> bool {
        self.end
    }

    /// The next segment, if one is there: this does not wait.
    #[inline]
    pub fn next_segment(&mut self) -> Option<Segment<'_, B, Arc<Home<B, C>>>> {
        settle(self.socket, self.side, self.lent);
        let buf = self.side.first()?;
        Some(Segment::new(self.lent.lend(buf), &self.socket.home))
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Segments<'_, B, C> {
    fn drop(&mut self) {
        settle(self.socket, self.side, self.lent);
        self.socket.publish(self.side);
    }
}

/// Takes note of what became of the last loan.
#[inline]
fn settle<B: PacketBuf, C: Connection<B>>(
    socket: &Ref<Socket<B, C>>,
    side: &mut ReaderSide<B>,
    lent: &mut Lent<B>,
) {
    let settled = lent.settle();
    if settled.advance != 0 {
        side.copied_seq = side.copied_seq.plus(settled.advance);
        socket.options.move_peek_offset(settled.advance as usize, false);
    }
    match settled.buf {
        Remains::Nothing => {}
        Remains::Spent(buf) => socket.give_back(side, buf),
        Remains::Next(buf) => side.taken.push_front(buf),
    }
}

impl<B: PacketBuf> ReaderSide<B> {
    /// Takes the oldest buffer off the taken list, or off the ring. What waits in the receive queue
    /// is taken by a step.
    #[inline]
    fn first(&mut self) -> Option<B> {
        self.taken.pop_front().or_else(|| Some(self.ring.as_mut()?.pop()?.buf))
    }
}

/// The reader token for life, and the ring installed for as long.
#[derive(Debug)]
struct Exclusive<'a, B: PacketBuf, C: Connection<B>> {
    socket: &'a Ref<Socket<B, C>>,
    side: ThreadClaim<'a, ReaderSide<B>>,
}

impl<'a, B: PacketBuf, C: Connection<B>> Exclusive<'a, B, C> {
    /// Takes the token, and installs the ring unless low-latency mode is on.
    fn new(socket: &'a Ref<Socket<B, C>>) -> Result<Self, RecvError> {
        if socket.is_guarded_by_this_thread() {
            return Err(RecvError::Deadlock);
        }
        let mut side = socket.reader.claim_thread();
        if side.ring.is_none() && !socket.is_low_latency() {
            socket.install(&mut side);
        }
        side.installed_for += 1;
        socket.set_exclusive(true);
        Ok(Self { socket, side })
    }

    /// Steps and waits until the call is over.
    fn finish(&mut self, mut call: Call<'_>, waiter: &impl Waiter) -> io::Result<usize> {
        let socket = self.socket;
        let mut now = Instant::ZERO;
        call.hurries = call.waiting == Waiting::Spin;
        loop {
            match socket.step(&mut self.side, &mut call, now) {
                Step::Done(n) => {
                    socket.leave(&mut self.side, &mut call);
                    return Ok(n);
                }
                Step::Failed(error) => {
                    socket.leave(&mut self.side, &mut call);
                    return Err(error.into());
                }
                Step::Sleep(sleep) => {
                    let word = socket.park().word();
                    let announce = || sleep.announce(socket);
                    let waiting = call.waiting;
                    let ReaderSide { ring, copied_seq, .. } = &mut *self.side;
                    // Where a busy reader looks: at the ring, and at the status if that is empty.
                    let has_news = || {
                        ring.as_ref().is_some_and(|ring| !ring.is_empty()) || sleep.has_news(socket)
                    };
                    let wait = || wait(waiter, waiting, word, sleep.until, has_news, announce);
                    // With a ring it is the other mode, or nearly.
                    let woken = match ring {
                        None => socket.lending(&mut call, Some(copied_seq), wait),
                        Some(_) => wait(),
                    };
                    if woken == Woken::BySignal {
                        call.interrupt();
                    }
                    if sleep.until.is_some() {
                        now = waiter.now();
                    }
                }
            }
        }
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Exclusive<'_, B, C> {
    fn drop(&mut self) {
        self.socket.set_exclusive(false);
        self.side.installed_for -= 1;
        if self.side.installed_for == 0 {
            self.socket.uninstall(&mut self.side);
        }
    }
}
