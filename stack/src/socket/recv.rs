//! recv as a step function: (socket, call, now) to done, sleep until, or error.
//!
//! Run by application threads. A step takes the reader token, copies what there is from the taken
//! list, the ring and the receive queue, in this order, and never sleeps but for the token and the
//! owner word; sleeping for data and the clock are the caller's, so that real threads, a virtual
//! clock and a packetdrill adapter run the same code. It never runs TCP and never frees a buffer.
//!
//! ```text
//!   older ◀────────────────────────────────────────────────▶ newer
//!   reader:  taken list │ ring │ receive queue │ (out of order)
//!            └── token ────────┘└──── owner ──────────────────┘
//! ```

mod call;
mod flags;
mod urgent;

use std::mem;
use std::time::Duration;

use crate::buf::{BufQueue, PacketBuf, Returns};
use crate::tcp::SeqNum;
use crate::tcp::tcb::ConnError;
use crate::time::Instant;
use crate::watch::{Moment, ReaderSeen};

use super::conn::Connection;
use super::direct;
use super::options::Options;
use super::owner::{Ref, ThreadClaim};
use super::park::{Status, UrgentRead, UrgentWord};
use super::ring::{Consumer, Producer};
use super::socket::{Handle, Socket};
use super::sync::mutant;
use super::wait::Waiting;

pub(super) use call::{Call, Slices};
pub use flags::{Received, RecvError, RecvFlags};
use urgent::{ReadUrgent, Urgency};

/// How long a thread sleeps between looks at a reader token that another one holds for a step.
const PATIENCE: Duration = Duration::from_micros(50);

/// Buffers that a reader gives back at once: one compare-exchange per chain, and at most this many
/// withheld from the lcore by a reader that is preempted.
const CHAIN: usize = 32;

/// What a step came to.
///
/// See [`Recv`] for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The call returns this number of bytes; 0 is the end of the stream.
    Done(usize),
    /// Call again when there is news, or at the deadline.
    Sleep(Sleep),
    /// The call fails.
    Failed(RecvError),
}

/// What a call waits for.
///
/// See [`Recv`] for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sleep {
    /// The edge that it wants to see reached.
    wanted: SeqNum,
    /// What it has read so far.
    read: SeqNum,
    /// What it knows of urgent data, or that it waits for an exclusive reader to go.
    seen: Seen,
    /// When it gives up; never if `None`.
    pub until: Option<Instant>,
}

/// What is no news besides the edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// The urgent mark is as it was.
    Urgent(UrgentWord),
    /// The reader token is an exclusive reader's.
    ExclusiveReader,
}

/// What the reader token guards: the consuming end, and everything older than it.
#[derive(Debug)]
pub(super) struct ReaderSide<B: PacketBuf> {
    /// In-sequence buffers older than the ring; the first may be read in part.
    pub(super) taken: B::Queue,
    pub(super) ring: Option<Consumer<B>>,
    pub(super) copied_seq: SeqNum,
    /// Buffers that are read and not yet given back, but for those that came by the ring.
    pub(super) spent: B::Queue,
    /// Calls that keep the ring installed.
    pub(super) installed_for: u32,
    pub(super) urgency: Urgency,
}

impl<B: PacketBuf> ReaderSide<B> {
    pub(super) fn new(copied_seq: SeqNum) -> Self {
        Self {
            taken: B::Queue::default(),
            ring: None,
            copied_seq,
            spent: B::Queue::default(),
            installed_for: 0,
            urgency: Urgency::new(copied_seq),
        }
    }

    /// The first sequence number that has not been read.
    pub(super) fn copied_seq(&self) -> SeqNum {
        self.copied_seq
    }

    /// Notes what was copied straight to a reader.
    pub(super) fn read_up_to(&mut self, copied_seq: SeqNum) {
        self.copied_seq = copied_seq;
    }

    /// Moves every buffer to `chain`: the end of the socket, or of its last handle.
    pub(super) fn take_buffers(&mut self, chain: &mut B::Queue) {
        chain.append(&mut self.spent);
        self.empty_ring();
        chain.append(&mut self.taken);
    }

    /// What it guards, for whoever watches.
    pub(super) fn seen(&mut self) -> ReaderSeen {
        let mut ring = self.ring.as_ref().map(|_| Vec::new());
        if let (Some(consumer), Some(spans)) = (&mut self.ring, &mut ring) {
            consumer.each(|buf| spans.push(buf.span()));
        }
        let taken = self.taken.iter().map(PacketBuf::span).collect();
        ReaderSeen { copied_seq: self.copied_seq.raw(), taken, ring }
    }

    /// All that was taken or waits in the ring, as one queue.
    pub(super) fn unread(&mut self) -> &mut B::Queue {
        if mutant!(RingBeforeTaken) {
            let mut older = mem::take(&mut self.taken);
            self.empty_ring();
            self.taken.append(&mut older);
        }
        self.empty_ring();
        &mut self.taken
    }

    /// Moves what is in the ring behind what was taken.
    pub(super) fn empty_ring(&mut self) {
        if let Some(ring) = &mut self.ring {
            while let Some(element) = ring.pop() {
                self.taken.push_back(element.buf);
            }
        }
    }
}

/// A call under way. Dropping it leaves the socket: the ring is uninstalled with the last call.
///
/// For callers that have a clock or a way of waiting of their own; [`TcpStream`](super::TcpStream) is
/// for everybody else. Any thread may make one; each step holds the reader token, none is held between
/// steps.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::{Recv, RecvError, RecvFlags, Step, TcpStream};
/// use prequeue::time::Instant;
///
/// /// Reads in virtual time: `pass` lets things happen until the time given, or for a while.
/// fn read(
///     stream: &TcpStream<HeapBuf>,
///     buf: &mut [u8],
///     mut now: Instant,
///     mut pass: impl FnMut(Option<Instant>) -> Instant,
/// ) -> Result<usize, RecvError> {
///     let mut call = Recv::new(stream.handle(), buf, RecvFlags::NONE, || now);
///     loop {
///         match call.step(now) {
///             Step::Done(n) => return Ok(n),
///             Step::Failed(error) => return Err(error),
///             Step::Sleep(sleep) => now = pass(sleep.until),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Recv<'a, B: PacketBuf, C: Connection<B>> {
    socket: &'a Ref<Socket<B, C>>,
    call: Call<'a>,
}

impl<'a, B: PacketBuf, C: Connection<B>> Recv<'a, B, C> {
    /// Begins a call on a shared socket. `now` is asked only if there is a timeout.
    pub fn new(
        handle: &'a Handle<B, C>,
        dst: &'a mut [u8],
        flags: RecvFlags,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        Self::of(handle, Call::new(dst, flags, &handle.socket.options, now))
    }

    /// Begins a call that discards up to `len` bytes instead of copying them.
    pub fn discarding(
        handle: &'a Handle<B, C>,
        len: usize,
        flags: RecvFlags,
        now: impl FnOnce() -> Instant,
    ) -> Self {
        Self::of(handle, Call::discarding(len, flags, &handle.socket.options, now))
    }

    pub(super) fn of(handle: &'a Handle<B, C>, call: Call<'a>) -> Self {
        Self { socket: &handle.socket, call }
    }

    /// Does what can be done now. After [`Step::Done`] and [`Step::Failed`] the call is over.
    pub fn step(&mut self, now: Instant) -> Step {
        let socket = self.socket;
        if socket.is_guarded_by_this_thread() {
            return Step::Failed(RecvError::Deadlock);
        }
        let claim = match self.call.deadline {
            None => Some(socket.reader.claim_thread()),
            Some(_) => socket.claim_reader_unless_exclusive(),
        };
        let Some(mut side) = claim else { return socket.wait_for_reader(&self.call, now) };
        let step = socket.step(&mut side, &mut self.call, now);
        if !matches!(step, Step::Sleep(_)) {
            socket.leave(&mut side, &mut self.call);
        }
        step
    }

    /// Tells that a signal was handled while the call slept: the next step is the last, and fails
    /// with [`RecvError::Interrupted`] if there is nothing to return.
    pub fn interrupt(&mut self) {
        self.call.interrupt();
    }

    /// How the call waits: as its flags say, or the socket.
    pub fn waiting(&self) -> Waiting {
        self.call.waiting
    }

    /// Says on the socket what the call sleeps for, as a thread does before it sleeps; whether it may,
    /// there being no news. Being woken is then a change of [`Seen::wakes`](crate::watch::Seen::wakes).
    pub fn announce(&self, sleep: &Sleep) -> bool {
        sleep.announce(self.socket).is_some()
    }

    /// Whether a step would find something to do; takes nothing.
    pub fn has_news(&self, sleep: &Sleep) -> bool {
        sleep.has_news(self.socket)
    }

    /// Waits as `wait` does, after a step that said to sleep: in low-latency mode with the rest of the
    /// call's memory lent to the lcore, which then copies what comes straight into it, as
    /// [`TcpStream::set_low_latency`](super::TcpStream::set_low_latency) tells. The next step counts it.
    ///
    /// Callers that wait without it lose nothing but time. `wait` may look, sleep, read through other
    /// handles and panic; the memory is taken back when it ends, however it does.
    pub fn lending<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        let socket = self.socket;
        if !socket.is_low_latency() {
            return wait();
        }
        let Some(dst) = self.call.lendable() else { return wait() };
        let (filled, result) = direct::lend(&socket.slot, &socket.shared.offer, dst, wait);
        self.call.copied += filled;
        socket.options.move_peek_offset(filled, false);
        result
    }
}

impl<B: PacketBuf, C: Connection<B>> Drop for Recv<'_, B, C> {
    fn drop(&mut self) {
        if self.call.installed {
            let mut side = self.socket.reader.claim_thread();
            self.socket.leave(&mut side, &mut self.call);
        }
    }
}

/// What the steps of a call read from: a socket that threads share, or one of a single thread.
///
/// The steps are the same for both, whoever owns what.
pub(super) trait Source<B: PacketBuf> {
    /// The facts that end or delay a call.
    fn status(&self) -> Status;
    /// Where urgent data is.
    fn urgent(&self) -> UrgentWord;
    /// The last urgent byte that was read by itself.
    fn urgent_read(&self) -> &UrgentRead;
    /// What was set for all calls.
    fn options(&self) -> &Options;
    /// Whether to wait for the owner would be to wait for oneself.
    fn is_guarded(&self) -> bool;
    /// Takes the error, once.
    fn pending_error(&self) -> Option<ConnError>;
    /// Gives back what is read, then says how far that is: whoever is told of the progress finds
    /// the memory.
    fn publish(&self, side: &mut ReaderSide<B>);
    /// Takes the whole receive queue behind what was taken before.
    fn take_queue(&self, side: &mut ReaderSide<B>);
    /// Takes the ring and the receive queue behind what was taken before, and looks at the mark.
    fn take_everything(&self, side: &mut ReaderSide<B>) -> Result<(), RecvError>;
    /// Installs a ring, for a call that is going to wait.
    fn install(&self, side: &mut ReaderSide<B>);
    /// Low-latency mode has begun: what is in the ring is older than whatever comes from now on.
    fn remove_ring(&self, side: &mut ReaderSide<B>);
    /// The call has copied as much by now; for whoever watches.
    #[inline(always)]
    fn has_copied(&self, _side: &mut ReaderSide<B>, _copied: usize) {}

    /// One step of a call, with the token held. Leaves the token's state published.
    fn step(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>, now: Instant) -> Step {
        let before = call.copied;
        side.urgency.begin(side.copied_seq);
        let step = self.gather(side, call, now);
        // Who comes back at once tells it when it finds nothing: its bytes do not wait for two lines
        // that the lcore looks at.
        let later = call.tells_late && side.spent.is_empty() && matches!(step, Step::Done(_));
        if !later {
            self.publish(side);
        }
        match step {
            Step::Done(n) if call.is_peek() && !call.is_looking() => {
                self.options().move_peek_offset(n, true)
            }
            _ if call.is_peek() => {}
            _ => self.options().move_peek_offset(call.copied - before, false),
        }
        step
    }

    fn gather(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>, now: Instant) -> Step {
        if call.is_urgent() {
            return self.recv_urgent(side, call);
        }
        loop {
            if side.urgency.is_pending()
                && let Some(step) = self.mind_mark(side, call)
            {
                return step;
            }
            // The ring first: a reader that keeps up looks at nothing else that is shared.
            self.copy(side, call);
            if call.is_full() {
                return Step::Done(call.copied);
            }
            // The status, and then the ring again: what went into it before the status was
            // published is older than what the status speaks of.
            let status = self.status();
            if !mutant!(StatusBeforeRingNotRead) {
                self.copy(side, call);
            }
            if status.has(Status::DEAD) {
                return call.break_off(RecvError::Dead);
            }
            if call.is_full() {
                return Step::Done(call.copied);
            }
            // A call of length 0 waits for data too, and takes none: the ring keeps what it holds, and
            // the queue behind it must stay where it is.
            if call.len == 0 && side.has_data() {
                return Step::Done(0);
            }
            let low_latency = status.has(Status::LOW_LATENCY);
            if low_latency && side.ring.is_some() && !self.is_guarded() {
                self.remove_ring(side);
                continue;
            }
            let marked = status.has(Status::URGENT) && self.urgent() != side.urgency.seen();
            if status.has(Status::QUEUED) || marked {
                // For exclusive readers; other calls ask at the beginning of each step.
                if self.is_guarded() {
                    return call.break_off(RecvError::Deadlock);
                }
                self.take_queue(side);
                continue;
            }
            if call.copied >= call.target {
                return Step::Done(call.copied);
            }
            if let Some(step) = self.cannot_wait(call, status, now) {
                return step;
            }
            // A look frees nothing: where no more fits, no more will come.
            if call.is_peek() && call.copied > 0 && status.has(Status::PRESSED) {
                return Step::Done(call.copied);
            }
            if side.ring.is_none() && !call.is_peek() && !low_latency {
                self.install(side);
                self.count_in(side, call);
                continue;
            }
            if !call.is_peek() && !low_latency {
                self.count_in(side, call);
            }
            return Step::Sleep(self.sleep(side, call));
        }
    }

    /// What the call ends with instead of waiting, in the order of Linux.
    fn cannot_wait(&self, call: &Call<'_>, status: Status, now: Instant) -> Option<Step> {
        let expired = call.has_expired(now);
        if call.copied > 0 {
            let over = status.ends_waiting() || expired || call.interrupted;
            return over.then_some(Step::Done(call.copied));
        }
        if status.has(Status::EOF) {
            return Some(Step::Done(0));
        }
        if status.has(Status::ERROR) {
            // Taken already: the connection is over like one that has ended well.
            return Some(
                self.pending_error()
                    .map_or(Step::Done(0), |error| Step::Failed(RecvError::Connection(error))),
            );
        }
        if status.has(Status::SHUT) {
            return Some(Step::Done(0));
        }
        if status.has(Status::CLOSED) {
            return Some(Step::Failed(RecvError::NotConnected));
        }
        if expired {
            return Some(Step::Failed(RecvError::WouldBlock));
        }
        call.interrupted.then_some(Step::Failed(RecvError::Interrupted))
    }

    /// Copies from the taken list, then from the ring, until there is nothing or no room.
    fn copy(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        if call.is_peek() {
            side.empty_ring();
            call.copied = 0;
            let mut skip = call.skip as usize;
            for buf in side.taken.iter() {
                if call.is_full() {
                    break;
                }
                let data = buf.data();
                call.take(data.get(skip..).unwrap_or_default());
                skip = skip.saturating_sub(data.len());
            }
            return self.has_copied(side, call.copied);
        }
        while call.room() != 0 {
            if !side.taken.is_empty() {
                self.copy_taken(side, call);
                self.has_copied(side, call.copied);
                continue;
            }
            // From the ring to the caller's memory; only what is read in part stays here.
            let Some(element) = side.ring.as_mut().and_then(Consumer::pop) else { return };
            debug_assert_eq!(element.seq, side.copied_seq, "gap in the ring");
            let data = element.data();
            let n = call.take(data);
            side.copied_seq = side.copied_seq.plus(n as u32);
            let is_part = n < data.len();
            if is_part {
                side.taken.push_back(element.buf);
                side.taken.trim_front(n);
            } else {
                self.give_back(side, element.buf);
            }
            self.has_copied(side, call.copied);
            if is_part {
                return;
            }
        }
    }

    /// Copies whole buffers from the taken list as long as they fit, then part of one that does not.
    fn copy_taken(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        let before = call.copied;
        side.urgency.begin(side.copied_seq);
        let most = CHAIN.saturating_sub(side.spent.len());
        let mut spent = side.taken.split_front(most, |buf| call.take_whole(buf.data()));
        side.copied_seq = side.copied_seq.plus((call.copied - before) as u32);
        let chain_is_full = spent.len() == most;
        side.spent.append(&mut spent);
        if chain_is_full {
            return self.publish(side);
        }
        if let Some(head) = side.taken.front() {
            let n = call.take(head.data());
            side.copied_seq = side.copied_seq.plus(n as u32);
            side.taken.trim_front(n);
        }
    }

    fn give_back(&self, side: &mut ReaderSide<B>, spent: B) {
        let spent = match &mut side.ring {
            Some(ring) => ring.spend(spent),
            None => {
                side.spent.push_back(spent);
                side.spent.len()
            }
        };
        if spent >= CHAIN {
            self.publish(side);
        }
    }

    fn count_in(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        if !mem::replace(&mut call.installed, true) {
            side.installed_for += 1;
        }
    }

    /// What the call waits for now.
    fn sleep(&self, side: &ReaderSide<B>, call: &Call<'_>) -> Sleep {
        // Before a mark the call ends, however much it wants.
        let target = if call.most < call.len { call.target.min(call.most) } else { call.target };
        // A peek counts from where it began, everything else from what it has consumed.
        let (missing, read) = if call.is_peek() {
            let start = side.copied_seq.plus(call.skip);
            (target + call.skip as usize, start.plus(call.copied as u32))
        } else {
            let to_skip = usize::from(side.urgency.is_at(side.copied_seq));
            (target - call.copied + to_skip, side.copied_seq)
        };
        // Sequence numbers compare within 2^31, which a call's length respects.
        let wanted = side.copied_seq.plus(missing.min(i32::MAX as usize) as u32);
        let seen = Seen::Urgent(side.urgency.seen());
        Sleep { wanted, read, seen, until: call.deadline }
    }
}

impl<B: PacketBuf, C: Connection<B>> Source<B> for Ref<Socket<B, C>> {
    fn status(&self) -> Status {
        self.park().status()
    }

    fn urgent(&self) -> UrgentWord {
        self.park().urgent()
    }

    fn urgent_read(&self) -> &UrgentRead {
        &self.shared.urgent_read
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn is_guarded(&self) -> bool {
        self.is_guarded_by_this_thread()
    }

    fn pending_error(&self) -> Option<ConnError> {
        self.take_error()
    }

    fn publish(&self, side: &mut ReaderSide<B>) {
        if let Some(batch) = side.ring.as_mut().and_then(Consumer::take_spent) {
            self.home.returns().give_batch(batch);
        }
        if !side.spent.is_empty() {
            self.home.returns().give(mem::take(&mut side.spent));
        }
        if self.progress.is_behind(side.copied_seq)
            && self.progress.publish(side.copied_seq, &self.shared.notify_at)
        {
            self.home.ring(self);
        }
    }

    /// The ring is empty, and stays so until the queue is: the lcore puts nothing into it while older
    /// data waits elsewhere.
    fn take_queue(&self, side: &mut ReaderSide<B>) {
        let mut owner = self.own();
        debug_assert!(
            mutant!(StatusBeforeRingNotRead) || side.ring.as_ref().is_none_or(Consumer::is_empty),
            "the ring holds data older than the receive queue"
        );
        side.taken.append(&mut owner.take_receive_queue());
        side.urgency.learn(owner.tcb.urgent(), side.copied_seq);
        self.watch(Moment::Takes, side, Some(&owner));
    }

    fn take_everything(&self, side: &mut ReaderSide<B>) -> Result<(), RecvError> {
        if self.is_guarded_by_this_thread() {
            return Err(RecvError::Deadlock);
        }
        let mut owner = self.own();
        side.empty_ring();
        side.taken.append(&mut owner.take_receive_queue());
        side.urgency.learn(owner.tcb.urgent(), side.copied_seq);
        self.watch(Moment::Takes, side, Some(&owner));
        Ok(())
    }

    /// What has come to the receive queue in the meantime is taken with it.
    fn install(&self, side: &mut ReaderSide<B>) {
        let (producer, consumer) = self.home.rings.take();
        let mut owner = self.own();
        side.taken.append(&mut owner.take_receive_queue());
        side.urgency.learn(owner.tcb.urgent(), side.copied_seq);
        owner.sink.0 = Some(producer);
        side.ring = Some(consumer);
        self.watch(Moment::Installs, side, Some(&owner));
    }

    fn remove_ring(&self, side: &mut ReaderSide<B>) {
        let mut owner = self.own();
        let producer = owner.sink.0.take();
        if !mutant!(SwitchForgetsRing) {
            side.empty_ring();
        }
        let consumer = side.ring.take();
        self.watch(Moment::Uninstalls, side, Some(&owner));
        drop(owner);
        self.give_up_ring(producer, consumer);
    }

    #[inline(always)]
    fn has_copied(&self, side: &mut ReaderSide<B>, copied: usize) {
        self.watch(Moment::Copied(copied), side, None);
    }
}

impl<B: PacketBuf, C: Connection<B>> Ref<Socket<B, C>> {
    /// Begins low-latency mode or ends it, for calls that wait from now on; those that sleep look
    /// again. What is in the ring is read first.
    pub(super) fn set_low_latency(&self, on: bool) {
        let park = self.park();
        if on {
            park.set(Status::LOW_LATENCY);
            // A reader that always finds enough in the ring would not look at the status for long.
            // If the token is taken, its holder does what the status says when it finds no more.
            if !self.is_guarded_by_this_thread()
                && let Some(mut side) = self.reader.try_claim_thread()
                && side.ring.is_some()
            {
                self.remove_ring(&mut side);
            }
        } else {
            park.clear(Status::LOW_LATENCY);
        }
        park.wake_all();
    }

    /// The end of a call: the last one uninstalls the ring.
    pub(super) fn leave(&self, side: &mut ReaderSide<B>, call: &mut Call<'_>) {
        if mem::take(&mut call.installed) {
            side.installed_for -= 1;
            if side.installed_for == 0 {
                self.uninstall(side);
            }
        }
    }

    /// Puts what was taken, and then what is in the ring, back in front of the receive queue. Under
    /// the thread's own guard the ring stays, and the next call to leave does it.
    pub(super) fn uninstall(&self, side: &mut ReaderSide<B>) {
        if self.is_guarded_by_this_thread() {
            return;
        }
        let mut owner = self.own();
        let producer = owner.sink.0.take();
        side.empty_ring();
        let consumer = side.ring.take();
        let older = mem::take(&mut side.taken);
        if mutant!(PutBackBehind) {
            let mut queue = owner.take_receive_queue();
            let mut older = older;
            queue.append(&mut older);
            owner.put_back(queue);
        } else {
            owner.put_back(older);
        }
        self.watch(Moment::Uninstalls, side, Some(&owner));
        drop(owner);
        self.give_up_ring(producer, consumer);
    }

    /// Leaves an empty ring to whoever needs one next, and gives back what was read of it.
    fn give_up_ring(&self, producer: Option<Producer<B>>, consumer: Option<Consumer<B>>) {
        if let (Some(producer), Some(mut consumer)) = (producer, consumer) {
            if let Some(batch) = consumer.take_spent() {
                self.home.returns().give_batch(batch);
            }
            self.home.rings.give(producer, consumer);
        }
    }

    /// The reader token, or nothing while an exclusive reader has it. Others hold it for a step, for
    /// which this waits as one waits for a lock.
    fn claim_reader_unless_exclusive(&self) -> Option<ThreadClaim<'_, ReaderSide<B>>> {
        let mut turn = 0_u32;
        loop {
            if let Some(side) = self.reader.try_claim_thread() {
                return Some(side);
            }
            if self.is_exclusive() {
                return None;
            }
            // The holder may be a thread that waits for this CPU, in which case yielding to it may not
            // be enough.
            match turn {
                0..64 => std::hint::spin_loop(),
                64..128 => std::thread::yield_now(),
                _ => std::thread::sleep(PATIENCE),
            }
            turn = turn.saturating_add(1);
        }
    }

    /// What becomes of a call that finds an exclusive reader.
    #[cold]
    fn wait_for_reader(&self, call: &Call<'_>, now: Instant) -> Step {
        if self.park().status().has(Status::DEAD) {
            return Step::Failed(RecvError::Dead);
        }
        if call.has_expired(now) {
            return call.break_off(RecvError::WouldBlock);
        }
        if call.interrupted {
            return call.break_off(RecvError::Interrupted);
        }
        // Nothing that arrives concerns it; who looks for nothing is in nobody's way at the far end.
        let read = self.progress.copied_seq();
        let wanted = read.plus(i32::MAX as u32);
        Step::Sleep(Sleep { wanted, read, seen: Seen::ExclusiveReader, until: call.deadline })
    }
}

impl<B: PacketBuf> ReaderSide<B> {
    pub(super) fn has_data(&self) -> bool {
        !self.taken.is_empty() || self.ring.as_ref().is_some_and(|ring| !ring.is_empty())
    }
}

impl Sleep {
    /// Announces the sleep on the socket; what to give to the word's `wait`, or nothing if there
    /// is news already.
    pub(super) fn announce<B: PacketBuf, C: Connection<B>>(
        &self,
        socket: &Socket<B, C>,
    ) -> Option<u32> {
        // All that is news is published before the same fences.
        let seen = socket.park().announce(self.wanted);
        (!self.has_news(socket)).then_some(seen)
    }

    /// Whether a step would find something to do.
    pub(super) fn has_news<B: PacketBuf, C: Connection<B>>(&self, socket: &Socket<B, C>) -> bool {
        let park = socket.park();
        match self.seen {
            Seen::Urgent(seen) => {
                park.has_news(self.wanted, self.read)
                    || park.status().has(Status::URGENT) && park.urgent() != seen
            }
            Seen::ExclusiveReader => !socket.is_exclusive() || park.status().has(Status::DEAD),
        }
    }
}
