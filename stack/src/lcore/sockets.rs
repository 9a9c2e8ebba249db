//! Running connections: what a claimed socket is given, and what follows when it is left.
//!
//! Called by the engine on its lcore's thread, once per socket and burst: what was deferred comes
//! first, then the segments, then the one ACK decision. A socket that a thread owns gets everything
//! as deferred work instead; nothing here waits for a thread.

use std::marker::PhantomData;

use crate::buf::{Owner, PacketBuf, Spare};
use crate::socket::{Claimed, Deferred, Mode, SocketId, SocketOptions};
use crate::tcp::request::Opened;
use crate::tcp::tcb::{Replies, State, Tcb, Verdict, Won};
use crate::tcp::time_wait::Ending;
use crate::tcp::{Counter, SeqNum};
use crate::time::Instant;
use crate::watch::Span;
use crate::wire::frame::{self, TcpFrame};
use crate::wire::{FourTuple, Segment};

use super::Pressure;
use super::Transmit;
use super::chain;
use super::flow::Target;
use super::groups::Members;
use super::hoards::{Account, HOARD};
use super::memory::Holder;
use super::roll::Listed;
use super::shared::Count;
use super::slab::Key;
use super::tables::{SocketSlot, Tables};
use super::work::Work;

/// No deadline.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// What a socket left behind when it was left.
#[derive(Debug)]
struct Left {
    deadline: Option<Instant>,
    wants_memory: bool,
    /// Truesize charged to it.
    rmem: u32,
    /// Its application has gone with this visit, and the connection has not.
    became_orphan: bool,
    end: End,
}

/// Whether the connection goes on.
#[derive(Debug)]
enum End {
    GoesOn,
    /// A record takes its place in the flow table.
    Replaced(Ending),
    Closed,
}

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// Runs the frames of a burst that stand at the places of `members` through a socket, until
    /// there are no more or the connection has ended. What was no segment has left its place empty.
    #[inline(always)]
    pub(super) fn run<T: Transmit>(
        &mut self,
        work: &mut Work<'_, T>,
        index: u32,
        burst: &mut [Option<B>],
        members: &mut Members<'_>,
    ) {
        let Some(slot) = self.sockets.at_mut(index) else { return };
        let returned = std::mem::take(&mut slot.returned);
        let slot = &*slot;
        let (claim, uncharge) = match M::claim(&slot.lcore) {
            Some(claim) => (claim, returned),
            None => match slot.defer(work, returned, burst, members) {
                Some(claim) => (claim, 0),
                None => return,
            },
        };
        let mut visit = Visit::new(claim, &slot.tuple, work);
        visit.uncharge(uncharge);
        visit.work_off();
        if !visit.is_over() {
            visit.frames(burst, members, slot.id);
        }
        let left = visit.leave(&self.shared.orphans);
        self.settle(work, index, left);
    }

    /// Runs a single frame through a socket.
    pub(super) fn run_one(&mut self, work: &mut Work<'_, impl Transmit>, index: u32, frame: B) {
        self.run(work, index, &mut [Some(frame)], &mut Members::single());
    }

    /// Does one thing to a socket, or leaves it to whoever owns it.
    pub(super) fn visit(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        index: u32,
        what: Deferred<B>,
    ) {
        let Some(slot) = self.sockets.at_mut(index) else { return };
        let SocketSlot { lcore, tuple, returned, .. } = slot;
        let (claim, what) = match M::claim(lcore) {
            Some(claim) => (claim, Some(what)),
            None => match M::defer(lcore, what, &mut work.base.counters) {
                Some(claim) => (claim, None),
                None => return,
            },
        };
        let mut visit = Visit::new(claim, tuple, work);
        // Whoever claims takes this along, for only the first return after a claim is noted.
        visit.uncharge(std::mem::take(returned));
        visit.work_off();
        if let Some(what) = what {
            visit.work_on(what);
        }
        let left = visit.leave(&self.shared.orphans);
        self.settle(work, index, left);
    }

    /// What waits in a socket's backlog.
    pub(super) fn backlog(&self, index: u32) -> Vec<Span> {
        self.sockets.at(index).map(|slot| M::backlog(&slot.lcore)).unwrap_or_default()
    }

    /// The doorbell has rung for a socket.
    pub(super) fn on_bell(&mut self, work: &mut Work<'_, impl Transmit>, id: SocketId) {
        let key = Key { index: id.slot, generation: id.generation };
        if self.sockets.get(key).is_some() {
            self.visit(work, id.slot, Deferred::Bell);
        }
    }

    /// The wheel has called for a socket, perhaps too early.
    pub(super) fn on_socket_timer(&mut self, work: &mut Work<'_, impl Transmit>, index: u32) {
        if let Some(slot) = self.sockets.at_mut(index) {
            slot.armed = NEVER;
            self.visit(work, index, Deferred::Timer);
        }
    }

    /// Frees the buffers that threads gave back, together, and notes for each socket what it is to
    /// be uncharged when it is next claimed.
    #[inline]
    pub(super) fn free_returned(&mut self) {
        if M::has_returned(&self.home) {
            self.free_some_returned();
        }
    }

    #[inline(never)]
    fn free_some_returned(&mut self) {
        let Self { home, sockets, with_returns, .. } = self;
        M::free_returned(home, |owner, truesize| {
            let key = Key { index: owner.socket(), generation: owner.generation() };
            if let Some(slot) = sockets.get_mut(key) {
                if slot.wants_memory && slot.returned == 0 {
                    with_returns.push(key.index);
                }
                slot.returned += truesize;
            }
        });
    }

    /// Sockets to which something came back, and no segment since.
    pub(super) fn visit_returned(&mut self, work: &mut Work<'_, impl Transmit>) {
        while let Some(index) = self.with_returns.pop() {
            let Some(slot) = self.sockets.at_mut(index) else { continue };
            let returned = std::mem::take(&mut slot.returned);
            if returned != 0 {
                self.visit(work, index, Deferred::Uncharge(returned));
            }
        }
    }

    /// Wins back what one socket can give, copying `most` bytes and a buffer's worth at most. Nothing
    /// if a thread owns it.
    pub(super) fn relieve_one(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        index: u32,
        spare: &mut impl Spare<B>,
        most: usize,
    ) -> Won {
        let Some(slot) = self.sockets.at_mut(index) else { return Won::default() };
        let SocketSlot { lcore, tuple, returned, account, .. } = slot;
        let Some(claim) = M::claim(lcore) else { return Won::default() };
        let mut visit = Visit::new(claim, tuple, work);
        visit.uncharge(std::mem::take(returned));
        visit.work_off();
        let won = visit.relieve(spare, most);
        let left = visit.leave(&self.shared.orphans);
        // There may be more to copy where the limit has ended it.
        account.tried(if won.copied < most { left.rmem } else { 0 });
        self.settle(work, index, left);
        won
    }

    /// What one of the largest holders holds, and where as far as that is known.
    pub(super) fn holder(&mut self, key: Key) -> Option<Holder> {
        let slot = self.sockets.get(key)?;
        let mut holder = Holder::new(&slot.tuple, slot.held(), M::backlog_len(&slot.lcore));
        // Whoever claims works off what was deferred, which is not for here.
        if !M::has_deferred(&slot.lcore)
            && let Some(mut claim) = M::claim(&slot.lcore)
        {
            let copied_seq = claim.copied_seq();
            holder.queues = Some(claim.tcb().queues(copied_seq));
            claim.leave();
        }
        Some(holder)
    }

    /// Makes the socket of a connection that has just been established.
    pub(super) fn open(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        tuple: &FourTuple,
        opened: &Opened,
        options: &SocketOptions,
    ) -> Option<(u32, M::Handle)> {
        let Self { sockets, wheel, flows, home, .. } = self;
        let mut first = None;
        let key = sockets.insert_with(|key| {
            let id = SocketId { slot: key.index, generation: key.generation };
            let mut narrowed = None;
            let mut cx = work.cx_of(options, &mut narrowed);
            let mut tcb = Tcb::new(&mut cx, opened);
            let low_water = options.apply(&cx, &mut tcb);
            let (lcore, handle) = M::open(tcb, home, id, *tuple);
            M::inherit(&handle, options, low_water);
            if options.low_latency.unwrap_or(work.base.settings.tcp_low_latency) {
                M::begin_low_latency(&handle);
            }
            first = Some(handle);
            let timer = wheel.add(Target::Socket(key.index));
            SocketSlot {
                lcore,
                id,
                tuple: *tuple,
                timer,
                armed: NEVER,
                returned: 0,
                wants_memory: false,
                is_orphan: false,
                account: Account::default(),
            }
        })?;
        flows.insert(tuple, Target::Socket(key.index));
        first.map(|handle| (key.index, handle))
    }

    /// Does what follows from a visit, the socket having been left.
    fn settle(&mut self, work: &mut Work<'_, impl Transmit>, index: u32, left: Left) {
        let Some(slot) = self.sockets.at_mut(index) else { return };
        let Left { deadline, wants_memory, rmem, became_orphan, end } = left;
        slot.wants_memory = wants_memory;
        slot.is_orphan |= became_orphan;
        if slot.account.settle(rmem) {
            let key = Key { index: slot.id.slot, generation: slot.id.generation };
            self.hoards.list(key, &mut slot.account);
        }
        match end {
            End::GoesOn => {
                if let Some(deadline) = deadline.filter(|&deadline| deadline < slot.armed) {
                    slot.armed = deadline;
                    self.wheel.arm(slot.timer, deadline);
                }
            }
            End::Replaced(ending) => {
                let tuple = slot.tuple;
                self.begin_time_wait(work, &tuple, &ending);
                self.let_go(index);
            }
            End::Closed => {
                let tuple = slot.tuple;
                self.flows.remove(&tuple);
                self.let_go(index);
            }
        }
    }

    /// Gives up a socket whose connection is over. The application may hold it still: it finds
    /// there what it has not read.
    fn let_go(&mut self, index: u32) {
        if let Some(slot) = self.sockets.remove(index) {
            self.wheel.remove(slot.timer);
            if slot.is_orphan {
                self.shared.orphans.remove();
            }
        }
    }

    /// The lcore stops: whoever sleeps on a socket is woken, and every call returns an error.
    pub(super) fn let_go_of_all(&mut self) {
        let all: Vec<u32> = self.sockets.iter().map(|(index, _)| index).collect();
        for index in all {
            if let Some(slot) = self.sockets.at(index) {
                M::kill(&slot.lcore);
            }
            self.let_go(index);
        }
    }
}

impl<B: PacketBuf, M: Mode<B>> SocketSlot<B, M> {
    /// What there is to list, as far as it is known without waiting for a thread.
    pub(super) fn listed(&self, now: Instant) -> Listed {
        let mut listed = Listed {
            local: self.tuple.local(),
            peer: self.tuple.remote(),
            state: None,
            unread: None,
            rmem: self.held(),
            backlog: u32::try_from(M::backlog_len(&self.lcore)).unwrap_or(u32::MAX),
            detail: None,
        };
        // Whoever claims works off what was deferred, which is not for here.
        if !M::has_deferred(&self.lcore)
            && let Some(mut claim) = M::claim(&self.lcore)
        {
            let copied_seq = claim.copied_seq();
            let tcb = claim.tcb();
            listed.state = Some(tcb.state().number());
            listed.unread = Some(tcb.unread(copied_seq));
            listed.detail = Some((tcb.info(now), tcb.mem_info()));
            claim.leave();
        }
        listed
    }

    /// A thread owns the socket: everything is left to later, unless it goes in the meantime.
    #[cold]
    #[inline(never)]
    fn defer<T: Transmit>(
        &self,
        work: &mut Work<'_, T>,
        returned: u32,
        burst: &mut [Option<B>],
        members: &mut Members<'_>,
    ) -> Option<M::Claim<'_>> {
        if returned != 0 {
            let what = Deferred::Uncharge(returned);
            if let Some(claim) = M::defer(&self.lcore, what, &mut work.base.counters) {
                return Some(claim);
            }
        }
        for at in members {
            let Some(mut frame) = burst[at].take() else { continue };
            let Some(tcp) = work.parse(&mut frame) else { continue };
            work.bump(Counter::InSegs);
            if work.base.pressure == Pressure::Critical && tcp.segment.len > 0 {
                work.bump(Counter::PoolPressureDrop);
                continue;
            }
            let buf = any_payload(frame, &tcp, self.id, work.now);
            let what = Deferred::Segment(tcp.segment, buf);
            if let Some(claim) = M::defer(&self.lcore, what, &mut work.base.counters) {
                return Some(claim);
            }
        }
        None
    }
}

/// The same of a frame that may lie in several buffers, and then does so still.
fn any_payload<B: PacketBuf>(mut frame: B, tcp: &TcpFrame, id: SocketId, now: Instant) -> B {
    if frame.rest().is_none() {
        return payload(frame, tcp, id, now);
    }
    chain::cut_to_payload(&mut frame, tcp);
    let cb = frame.cb_mut();
    cb.owner = Owner::new(id.slot, id.generation);
    cb.rx_time = now;
    frame
}

/// Cuts a frame down to its segment's payload, and notes whose it is. Behind the payload is the
/// padding of a short frame.
#[inline(always)]
fn payload<B: PacketBuf>(mut frame: B, tcp: &TcpFrame, id: SocketId, now: Instant) -> B {
    frame.narrow(usize::from(tcp.payload), tcp.segment.len as usize);
    let cb = frame.cb_mut();
    cb.owner = Owner::new(id.slot, id.generation);
    cb.rx_time = now;
    frame
}

/// The lcore with a socket that it has claimed.
#[derive(Debug)]
struct Visit<'a, 'w, B, K, T> {
    claim: K,
    tuple: &'a FourTuple,
    work: &'a mut Work<'w, T>,
    /// The reader may have made progress, or memory came back: a window update may be owed.
    look_at_reader: bool,
    /// The last handle was dropped.
    closed_by_application: bool,
    _bufs: PhantomData<B>,
}

impl<'a, 'w, B: PacketBuf, K: Claimed<B>, T: Transmit> Visit<'a, 'w, B, K, T> {
    fn new(claim: K, tuple: &'a FourTuple, work: &'a mut Work<'w, T>) -> Self {
        Self {
            claim,
            tuple,
            work,
            look_at_reader: false,
            closed_by_application: false,
            _bufs: PhantomData,
        }
    }

    /// Works off what was deferred, oldest first.
    fn work_off(&mut self) {
        while let Some(what) = self.claim.next_deferred() {
            if matches!(what, Deferred::Timer) {
                self.count_locked_timer();
            }
            self.work_on(what);
        }
    }

    fn work_on(&mut self, what: Deferred<B>) {
        match what {
            Deferred::Segment(segment, buf) => self.segment(&segment, buf),
            Deferred::Timer => self.timer(),
            Deferred::Bell => self.bell(),
            Deferred::Uncharge(truesize) => self.uncharge(truesize),
            Deferred::Icmp(seq, report) => {
                self.claim.tcb().on_icmp(&mut self.work.cx(), seq, report);
            }
        }
    }

    /// Frames that are segments of this connection, until it ends.
    #[inline(always)]
    fn frames(&mut self, burst: &mut [Option<B>], members: &mut Members<'_>, id: SocketId) {
        let owner = Owner::new(id.slot, id.generation);
        loop {
            let run = members.run();
            if run.is_empty() {
                return;
            }
            let alike = members.alike();
            if self.work.base.pressure == Pressure::None {
                let (tcb, sink) = self.claim.parts();
                let run = &mut burst[run];
                let taken = tcb.on_frames(&mut self.work.cx(), run, alike, owner, sink);
                self.work.base.counters.add(Counter::InSegs, taken as u64);
                members.skip_places(taken);
                if taken == run.len() {
                    continue;
                }
                let rest = &mut run[taken..];
                let mut replies = Replies::new();
                let cx = &mut self.work.cx();
                let held = tcb.on_frames_at_hole(cx, rest, owner, sink, &mut replies);
                if held > 0 {
                    self.work.base.counters.add(Counter::InSegs, held as u64);
                    members.skip_places(held);
                    replies.iter().for_each(|out| self.work.send(self.tuple, out));
                    continue;
                }
            }
            let Some(at) = members.next() else { return };
            if let Some(frame) = burst[at].take()
                && !self.frame(frame, id)
            {
                return;
            }
        }
    }

    /// A frame that is a segment of this connection; whether the connection goes on.
    ///
    /// The usual one is parsed and taken without a detour through memory: what was just written
    /// field by field cannot be read again as a whole without waiting for the stores.
    #[inline(always)]
    fn frame(&mut self, frame: B, id: SocketId) -> bool {
        if self.work.base.pressure == Pressure::None
            && let Some(tcp) = frame::parse_usual(frame.data())
        {
            self.work.bump(Counter::InSegs);
            let buf = payload(frame, &tcp, id, self.work.now);
            let (tcb, sink) = self.claim.parts();
            let verdict = tcb.on_segment(&mut self.work.cx(), &tcp.segment, buf, sink);
            return matches!(verdict, Verdict::Predicted) || self.follow(verdict);
        }
        self.unusual_frame(frame, id)
    }

    #[cold]
    #[inline(never)]
    fn unusual_frame(&mut self, mut frame: B, id: SocketId) -> bool {
        if let Some(tcp) = self.work.parse(&mut frame) {
            self.work.bump(Counter::InSegs);
            let buf = any_payload(frame, &tcp, id, self.work.now);
            self.segment(&tcp.segment, buf);
        }
        !self.is_over()
    }

    /// A segment that did not come the usual way, or not just now.
    #[inline(never)]
    fn segment(&mut self, segment: &Segment, buf: B) {
        if self.work.base.pressure != Pressure::None && self.is_refused(segment) {
            drop(buf);
            let verdict = self.claim.tcb().refuse(&mut self.work.cx(), segment);
            self.follow(verdict);
            return;
        }
        let (tcb, sink) = self.claim.parts();
        let verdict = if buf.rest().is_none() {
            tcb.on_segment(&mut self.work.cx(), segment, buf, sink)
        } else {
            tcb.on_chain(&mut self.work.cx(), segment, buf, sink)
        };
        self.follow(verdict);
    }

    /// Sends what a segment demands at once; whether the connection goes on.
    #[inline(never)]
    fn follow(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Predicted | Verdict::Later => {}
            Verdict::Ack => {
                let out = self.claim.tcb().ack_now(&mut self.work.cx());
                self.work.send(self.tuple, &out);
            }
            Verdict::Send(out) => self.work.send(self.tuple, &out),
        }
        !self.is_over()
    }

    /// Whether the pool is too empty to hold this segment. The peer sends it again; what is
    /// acknowledged is never given up.
    #[cold]
    fn is_refused(&mut self, segment: &Segment) -> bool {
        let tcb = self.claim.tcb();
        let above_hole = SeqNum::new(segment.seq).after(tcb.rcv_nxt());
        let refused = segment.len > 0
            && match self.work.base.pressure {
                Pressure::None => false,
                // What is left then is for those who hold little: a hoard must not take it.
                Pressure::High => above_hole || tcb.rmem() >= HOARD,
                Pressure::Critical => true,
            };
        if refused {
            self.work.bump(Counter::PoolPressureDrop);
        }
        refused
    }

    /// A timer has met a thread that owned the socket.
    #[cold]
    fn count_locked_timer(&mut self) {
        if self.claim.tcb().is_delayed_ack_due(self.work.now) {
            self.work.bump(Counter::DelayedACKLocked);
        }
    }

    fn timer(&mut self) {
        let due = |tcb: &Tcb<B>, now| tcb.next_deadline().is_some_and(|deadline| deadline <= now);
        // A deadline either sends or moves; one that has not moved has nothing more to say.
        while due(self.claim.tcb(), self.work.now) {
            let before = self.claim.tcb().next_deadline();
            let out = self.claim.tcb().on_timer(&mut self.work.cx());
            let stuck = out.is_none() && self.claim.tcb().next_deadline() == before;
            self.work.send_any(self.tuple, out.as_ref());
            if stuck {
                break;
            }
        }
    }

    /// Copies together what is acknowledged, wherever it is; if that wins little, drops some of what
    /// waits above holes. Readers are woken to take what there is.
    fn relieve(&mut self, spare: &mut impl Spare<B>, most: usize) -> Won {
        let mut won = Won::default();
        if self.is_over() {
            return won;
        }
        let mut cx = self.work.cx();
        let older =
            self.claim.with_unread(|tcb, queue| tcb.compact_lent(&mut cx, queue, spare, most));
        won = won.and(older.unwrap_or_default());
        let tcb = self.claim.tcb();
        if won.copied < most {
            won = won.and(tcb.compact(&mut cx, spare, most - won.copied));
        }
        if won.truesize < tcb.rcvbuf() / 8 {
            won = won.and(tcb.prune(&mut cx));
        }
        tcb.squeeze();
        won
    }

    fn uncharge(&mut self, truesize: u32) {
        if truesize != 0 {
            self.claim.tcb().uncharge(truesize);
            self.look_at_reader = true;
        }
    }

    /// What handles ask for, in the order in which a program would.
    fn bell(&mut self) {
        self.look_at_reader = true;
        let requests = self.claim.take_requests();
        let copied_seq = self.claim.copied_seq();
        let tcb = self.claim.tcb();
        tcb.on_options(&self.work.cx());
        if requests.shut_read() {
            tcb.shutdown_read();
        }
        let mut out = None;
        if requests.abort() {
            out = tcb.abort(&mut self.work.cx());
        } else if requests.shut_write() {
            out = tcb.shutdown_write(&mut self.work.cx());
        }
        self.work.send_any(self.tuple, out.as_ref());
        if let Some(linger_zero) = requests.close() {
            self.closed_by_application = true;
            let out = self.claim.tcb().close(&mut self.work.cx(), copied_seq, linger_zero);
            self.work.send_any(self.tuple, out.as_ref());
        }
    }

    fn is_over(&mut self) -> bool {
        matches!(self.claim.tcb().state(), State::TimeWait | State::Closed)
    }

    /// Decides about the ACK and the window, and gives the socket up, which is to drop the claim.
    #[inline(always)] // or it would be moved there
    fn leave(mut self, orphans: &Count) -> Left {
        self.look_at_reader |= self.claim.return_memory();
        let copied_seq = self.claim.copied_seq();
        let tcb = self.claim.tcb();
        self.look_at_reader |= tcb.measures_reader(self.work.now);
        // Looked at where they are: they are too long to be moved about.
        let ack = tcb.end_burst(&mut self.work.cx());
        self.work.send_any(self.tuple, ack.as_ref());
        if self.look_at_reader {
            let tcb = self.claim.tcb();
            let update = tcb.reader_progress(&mut self.work.cx(), copied_seq);
            self.work.send_any(self.tuple, update.as_ref());
        }
        let mut became_orphan = false;
        if self.closed_by_application && !self.is_over() {
            became_orphan = orphans.try_add(self.work.base.settings.tcp_max_orphans);
            if !became_orphan {
                let out = self.claim.tcb().abort_orphan(&mut self.work.cx());
                self.work.send_any(self.tuple, out.as_ref());
            }
        }
        let tcb = self.claim.tcb();
        let deadline = tcb.next_deadline();
        let wants_memory = tcb.wants_memory();
        let rmem = tcb.rmem();
        // What it takes to replace a connection is not carried along where none ends.
        let left = |end| Left { deadline, wants_memory, rmem, became_orphan, end };
        if !matches!(tcb.state(), State::TimeWait | State::FinWait2 | State::Closed) {
            return left(End::GoesOn);
        }
        left(match tcb.time_wait(&self.work.base.settings) {
            Some(ending) => End::Replaced(ending),
            None if tcb.state() == State::Closed => End::Closed,
            None => End::GoesOn,
        })
    }
}
