//! The sockets of an lcore: claimed for what arrives, opened, and let go of when they have ended.
//!
//! Called by the engine on its lcore's thread, once per socket and burst: what was deferred comes
//! first, then the segments, then the one ACK decision. A socket that a thread owns gets everything
//! as deferred work instead; nothing here waits for a thread.

use crate::buf::{PacketBuf, Spare};
use crate::socket::{Claimed, Deferred, Mode, SocketId, SocketOptions};
use crate::tcp::Counter;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{Tcb, Won};
use crate::time::Instant;
use crate::watch::Span;
use crate::wire::FourTuple;

use super::Pressure;
use super::Transmit;
use super::flow::Target;
use super::groups::Members;
use super::hoards::Account;
use super::memory::Holder;
use super::roll::Listed;
use super::slab::Key;
use super::tables::{SocketSlot, Tables};
use super::visit::{End, Left, Visit, any_payload};
use super::work::Work;

/// No deadline.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

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
