//! A socket that the lcore has claimed: what was deferred for it, its frames, its timers, and the one
//! decision about an ACK when it is left.
//!
//! Made by the engine on its lcore's thread, once per socket and burst. It sends what the connection says
//! is to be sent; where the frames came from, and what becomes of a socket that has ended, it does not know.

use std::marker::PhantomData;

use crate::buf::{Owner, PacketBuf, Spare};
use crate::socket::{Claimed, Deferred, SocketId};
use crate::tcp::tcb::{Replies, State, Tcb, Verdict, Won};
use crate::tcp::time_wait::Ending;
use crate::tcp::{Counter, SeqNum};
use crate::time::Instant;
use crate::wire::frame::{self, TcpFrame};
use crate::wire::{FourTuple, Segment};

use super::Pressure;
use super::Transmit;
use super::chain;
use super::groups::Members;
use super::hoards::HOARD;
use super::shared::Count;
use super::work::Work;

/// What a socket left behind when it was left.
#[derive(Debug)]
pub(super) struct Left {
    pub deadline: Option<Instant>,
    pub wants_memory: bool,
    /// Truesize charged to it.
    pub rmem: u32,
    /// Its application has gone with this visit, and the connection has not.
    pub became_orphan: bool,
    pub end: End,
}

/// Whether the connection goes on.
#[derive(Debug)]
pub(super) enum End {
    GoesOn,
    /// A record takes its place in the flow table.
    Replaced(Ending),
    Closed,
}

/// The lcore with a socket that it has claimed.
#[derive(Debug)]
pub(super) struct Visit<'a, 'w, B, K, T> {
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
    pub fn new(claim: K, tuple: &'a FourTuple, work: &'a mut Work<'w, T>) -> Self {
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
    pub fn work_off(&mut self) {
        while let Some(what) = self.claim.next_deferred() {
            if matches!(what, Deferred::Timer) {
                self.count_locked_timer();
            }
            self.work_on(what);
        }
    }

    pub fn work_on(&mut self, what: Deferred<B>) {
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
    pub fn frames(&mut self, burst: &mut [Option<B>], members: &mut Members<'_>, id: SocketId) {
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
    pub fn relieve(&mut self, spare: &mut impl Spare<B>, most: usize) -> Won {
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

    pub fn uncharge(&mut self, truesize: u32) {
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

    pub fn is_over(&mut self) -> bool {
        matches!(self.claim.tcb().state(), State::TimeWait | State::Closed)
    }

    /// Decides about the ACK and the window, and gives the socket up, which is to drop the claim.
    #[inline(always)] // or it would be moved there
    pub fn leave(mut self, orphans: &Count) -> Left {
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

/// The same of a frame that may lie in several buffers, and then does so still.
pub(super) fn any_payload<B: PacketBuf>(
    mut frame: B,
    tcp: &TcpFrame,
    id: SocketId,
    now: Instant,
) -> B {
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
