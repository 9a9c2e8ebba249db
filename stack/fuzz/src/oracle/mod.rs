//! The connection against an oracle: a byte array with marks, and the rules of TCP written twice.
//!
//! [`run`] plays a list of [`Op`]s: segments of a hostile or merely unlucky peer, an application
//! that reads when it likes, the clock. After each step it compares the connection with the model
//! and looks at everything that was sent. It panics if they differ.

mod marks;
mod model;
mod reader;
mod replies;

use std::time::Duration;

use prequeue::buf::{HeapBuf, PacketBuf};
use prequeue::tcp::negotiate::Scale;
use prequeue::tcp::request::Opened;
use prequeue::tcp::tcb::{ConnError, NoSink, State, Tcb, Verdict};
use prequeue::tcp::timestamps::TsState;
use prequeue::tcp::{Counter, Counters, Cx, SeqNum, Settings};
use prequeue::time::Instant;
use prequeue::wire::{Family, Flags, Outgoing, Segment, Timestamps};

use marks::Marks;
use model::{Model, PEER_WINDOW, Seen};
use reader::Reader;
use replies::Pending;

/// How the connection was opened, and for what application.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The peer's initial sequence number.
    pub irs: u32,
    /// Ours.
    pub iss: u32,
    pub sack: bool,
    pub dsack: bool,
    /// TS.Recent after the handshake.
    pub ts: Option<u32>,
    pub shift: Option<u8>,
    pub rcvbuf: u32,
    /// Places in the ring; none means that no ring is installed.
    pub room: usize,
    /// Whether replies to invalid segments are limited.
    pub ratelimit: bool,
}

/// One step.
#[derive(Clone, Debug)]
pub enum Op {
    /// Segments that arrive together.
    Burst(Vec<Arrival>),
    /// The reader takes the receive queue.
    Take,
    /// The reader reads so many bytes of what it has.
    Read(u16),
    /// The reader puts back what it has; a partly read buffer is cut if told so.
    PutBack(bool),
    /// Buffers that were read come back.
    Return,
    /// The reader's progress is looked at.
    Progress,
    /// The ring is exchanged for one of this many places.
    Room(u8),
    /// So many milliseconds pass.
    Wait(u32),
    ShutdownRead,
    ShutdownWrite,
    Close {
        linger: bool,
    },
    Abort,
}

/// A segment, relative to where the connection stands when it arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub place: Place,
    pub len: u16,
    pub flags: u8,
    pub ack: AckField,
    pub window: u16,
    pub urgent: u16,
    pub ts: Option<i32>,
    /// Which version of the stream this segment carries: a fickle peer has several.
    pub version: u8,
}

/// Where a segment starts.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// So far from the next expected number.
    Next(i32),
    /// So far from the right edge.
    Right(i32),
    /// So far from the right edge, but with its end.
    EndsAtRight(i32),
    /// So far from what was last acknowledged.
    Acked(i32),
    /// So far from the start or the end of some segment that is held.
    Held(u8, bool, i32),
}

/// What a segment acknowledges.
#[derive(Clone, Copy, Debug)]
pub enum AckField {
    /// All but our FIN.
    Data,
    /// All.
    All,
    /// So far from all.
    Off(i32),
}

/// When the handshake ended.
const START: Instant = Instant::from_millis(10_000);

/// Our offset of timestamps.
const TS_OFFSET: u32 = 77;

/// A connection, its model, and its world.
struct Bench {
    now: Instant,
    settings: Settings,
    counters: Counters,
    tcb: Tcb<HeapBuf>,
    model: Model,
    reader: Reader,
    pending: Pending,
    /// No handle is left.
    closed: bool,
    /// Nothing came back since the reader's progress was last looked at.
    nothing_returned: bool,
    /// Where the reader was then.
    progress_seen: i64,
}

/// Plays the steps.
pub fn run(setup: &Setup, ops: &[Op]) {
    let mut bench = Bench::new(setup);
    for op in ops {
        bench.step(op);
        bench.check();
    }
    bench.finish();
}

impl Bench {
    fn new(setup: &Setup) -> Self {
        // A buffer that grows by itself would have to be modelled, too.
        let mut settings =
            Settings { tcp_dsack: setup.dsack, tcp_moderate_rcvbuf: false, ..Settings::default() };
        settings.tcp_rmem[1] = setup.rcvbuf;
        if !setup.ratelimit {
            settings.tcp_invalid_ratelimit = Duration::ZERO;
        }
        let space = setup.rcvbuf / 2;
        // What the SYN-ACK stands for, whether or not its header has room for it.
        let promised = space - space % 1460;
        let opened = Opened {
            family: Family::V4,
            iss: SeqNum::new(setup.iss),
            irs: SeqNum::new(setup.irs),
            rcv_wnd: promised,
            snd_wnd: PEER_WINDOW,
            scale: setup.shift.map(|rcv| Scale { rcv, snd: 0 }),
            mss: 1460,
            advmss: 1460,
            sack_ok: setup.sack,
            ecn_ok: false,
            ts: setup.ts.map(|recent| TsState { recent, offset: TS_OFFSET, recent_at: START }),
            synack_rtt: None,
        };
        let mut counters = Counters::default();
        let cx = &mut Cx { now: START, settings: &settings, counters: &mut counters };
        let tcb = Tcb::new(cx, &opened);
        let base = setup.irs.wrapping_add(1);
        let model = Model {
            marks: Marks::default(),
            base,
            ours: setup.iss.wrapping_add(1),
            state: State::Established,
            error: None,
            ts: setup.ts.map(|recent| (recent, START)),
            sack: setup.sack,
            dsack: setup.dsack,
            shift: setup.shift.unwrap_or(0),
            acked: 0,
            promised: i64::from(promised),
            fin_sent: false,
            fin_acked: false,
            read_shut: false,
        };
        Self {
            now: START,
            settings,
            counters,
            tcb,
            model,
            reader: Reader::new(setup.room, base),
            pending: Pending::default(),
            closed: false,
            nothing_returned: true,
            progress_seen: 0,
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Burst(arrivals) => {
                for arrival in arrivals {
                    self.arrive(arrival);
                }
                self.end_burst();
            }
            Op::Wait(ms) => self.wait(*ms),
            Op::ShutdownRead => {
                self.tcb.shutdown_read();
                self.model.read_shut = true;
            }
            Op::ShutdownWrite => {
                let out = with_cx(self, |tcb, cx| tcb.shutdown_write(cx));
                self.on_fin_sent(out);
            }
            // The rest takes a handle.
            _ if self.closed => {}
            Op::Take => self.take(),
            Op::Read(len) => self.reader.read(usize::from(*len), &self.model.marks.stream),
            Op::PutBack(cut) => self.tcb.put_back(self.reader.uninstall(*cut)),
            Op::Return => self.give_back(),
            Op::Progress => self.progress(),
            Op::Room(room) => self.reader.room = usize::from(*room),
            Op::Close { linger } => self.close(*linger),
            Op::Abort => {
                let out = with_cx(self, |tcb, cx| tcb.abort(cx));
                self.on_abort(out);
            }
        }
    }

    /// A segment of a burst.
    fn arrive(&mut self, arrival: &Arrival) {
        let (seg, bytes) = self.segment(arrival);
        self.deliver(&seg, &bytes);
    }

    fn segment(&self, arrival: &Arrival) -> (Segment, Vec<u8>) {
        let Arrival { place, len, flags, ack, window, urgent, ts, version } = *arrival;
        let (model, marks) = (&self.model, &self.model.marks);
        let start = match place {
            Place::Next(off) => marks.edge() + i64::from(off),
            Place::Right(off) => model.right() + i64::from(off),
            Place::EndsAtRight(off) => model.right() + i64::from(off) - i64::from(len),
            Place::Acked(off) => model.acked + i64::from(off),
            Place::Held(pick, end, off) => {
                marks.bound(usize::from(pick), end).unwrap_or(marks.edge()) + i64::from(off)
            }
        };
        let ack = match ack {
            AckField::Data => model.ours,
            AckField::All => model.snd_nxt(),
            AckField::Off(off) => model.snd_nxt().wrapping_add_signed(off),
        };
        let recent = model.ts.map_or(0, |(recent, _)| recent);
        let seg = Segment {
            seq: model.seq_at(start),
            ack,
            len: u32::from(len),
            window,
            urgent,
            flags: Flags(flags),
            ecn: 0,
            ts: ts.map(|ts| Timestamps { val: recent.wrapping_add_signed(ts), ecr: 0 }),
        };
        let byte = |at: i64| (at as u8) ^ ((at >> 8) as u8).wrapping_mul(31) ^ version;
        (seg, (start..start + i64::from(len)).map(byte).collect())
    }

    fn deliver(&mut self, seg: &Segment, bytes: &[u8]) {
        let dropped = |counters: &Counters| {
            counters.value(Counter::TCPRcvQDrop) + counters.value(Counter::TCPOFODrop)
        };
        let (rmem, drops) = (self.tcb.rmem(), dropped(&self.counters));
        let pruned = self.counters.value(Counter::OfoPruned);
        let queued = self.counters.value(Counter::TCPOFOQueue);
        let before = self.tcb.rcv_nxt().raw();
        let buf = HeapBuf::new(bytes);
        let cx = &mut Cx { now: self.now, settings: &self.settings, counters: &mut self.counters };
        let verdict = if self.reader.room > 0 && !self.closed {
            self.tcb.on_segment(cx, seg, buf, &mut self.reader)
        } else {
            self.tcb.on_segment(cx, seg, buf, &mut NoSink)
        };

        // An ACK that is given back was made before the segment was taken.
        let reply = match &verdict {
            Verdict::Send(out) => Some(out),
            Verdict::Predicted | Verdict::Later | Verdict::Ack => None,
        };
        if let Some(ack) = reply.filter(|out| !out.flags.has(Flags::RST)) {
            if self.counters.value(Counter::OfoPruned) > pruned {
                self.pending.trigger = None;
            }
            // It may report that the segment has come twice all the same.
            self.pending.arrived(&self.model, seg);
            if self.counters.value(Counter::TCPOFOQueue) > queued {
                self.pending.may_report(&self.model, seg, ack);
            }
            self.look_at_ack(ack, rmem.min(self.tcb.rmem()));
        }
        self.pending.arrived(&self.model, seg);
        let seen = Seen {
            now: self.now,
            rmem,
            rmem_after: self.tcb.rmem(),
            rcvbuf: self.tcb.rcvbuf(),
            refused: dropped(&self.counters) > drops,
            reset: self.tcb.state() == State::Closed,
            advanced: self.tcb.rcv_nxt().raw() != before,
            right: self.tcb.right_edge().raw(),
            reply,
        };
        let edge = self.model.marks.edge();
        let mut expect = self.model.arrived(seg, bytes, marks::room_of(bytes.len()), &seen);
        if let (Some(out), Some((start, end))) = (reply, expect.duplicate)
            && out.sack.first() == Some(&(self.model.seq_at(start), self.model.seq_at(end)))
        {
            expect.duplicate = None;
        }
        if let Some(out) = reply {
            if out.flags.has(Flags::RST) {
                assert!(expect.rst, "RST to {seg:?}");
                assert_eq!((out.seq, out.flags), (seg.ack, Flags::RST));
                assert!(seg.flags.has(Flags::ACK));
            } else {
                assert_eq!(out.ts, self.expected_ts());
                if !expect.early {
                    self.model.sent(out, self.tcb.right_edge().raw());
                }
            }
        }
        let queued = self.counters.value(Counter::TCPOFOQueue) > queued;
        assert_eq!(queued, expect.trigger.is_some(), "queued above a hole: {seg:?}");
        let challenged = reply.is_some_and(|out| out.flags == Flags::ACK);
        if expect.challenge && self.settings.tcp_invalid_ratelimit.is_zero() {
            assert!(challenged, "no challenge to {seg:?}");
        }
        assert!(!expect.rst || reply.is_some(), "no RST to {seg:?}");
        let lone = reply.is_some() || verdict == Verdict::Ack;
        assert!(!expect.each || lone, "no ACK of its own for {seg:?}");
        if self.model.state == State::Closed {
            self.pending = Pending::default();
        } else {
            self.pending.expect(&self.model, &expect, edge);
            // The reply itself was the ACK that is owed, unless it was made for an earlier segment.
            if reply.is_some() && expect.duplicate.is_none() && !expect.early {
                self.pending.now = false;
            }
        }
        assert_eq!(self.tcb.state(), self.model.state, "after {seg:?}");
        let edge = self.model.marks.edge();
        assert_eq!(
            self.tcb.rcv_nxt().raw(),
            self.model.seq_at(edge),
            "edge {edge} after {seg:?}, {expect:?}"
        );
        if verdict == Verdict::Ack {
            let out = with_cx(self, |tcb, cx| tcb.ack_now(cx));
            self.on_ack(&out);
        }
    }

    fn end_burst(&mut self) {
        let out = with_cx(self, |tcb, cx| tcb.end_burst(cx));
        if out.is_none() {
            self.pending.put_off();
        }
        self.on_acks(out);
        if self.model.state == State::Closed {
            return;
        }
        assert!(!self.pending.now, "an ACK is owed at once: {:?}", self.pending);
        let within = |most: Duration| {
            let at = self.tcb.next_deadline();
            assert!(at.is_some_and(|at| at <= self.now + most), "no timer for the ACK: {at:?}");
        };
        if self.model.acked < self.model.marks.edge() {
            within(Duration::from_millis(500));
        }
        if self.pending.trigger.is_some() {
            within(Duration::from_millis(1));
        }
    }

    /// Time passes, and every timer fires when it is due.
    fn wait(&mut self, ms: u32) {
        let end = self.now + Duration::from_millis(u64::from(ms));
        let mut fired = 0;
        while let Some(at) = self.tcb.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            fired += 1;
            assert!(fired < 1000, "a timer that never stops");
            while let Some(out) = with_cx(self, |tcb, cx| tcb.on_timer(cx)) {
                self.on_ack(&out);
            }
            // In silence, as Linux does: the peer has not answered for minutes.
            if self.tcb.state() == State::Closed && self.model.state != State::Closed {
                assert!(self.model.fin_sent && !self.model.fin_acked, "gave up for nothing");
                self.model.die(Some(ConnError::TimedOut));
                self.pending = Pending::default();
            }
        }
        self.now = end;
    }

    fn take(&mut self) {
        let queue = self.tcb.take_receive_queue();
        self.reader.take(queue);
    }

    fn give_back(&mut self) {
        let freed = self.reader.give_back();
        self.tcb.uncharge(freed);
        self.nothing_returned = false;
        self.progress();
        if self.receives() && self.tcb.rmem() == 0 {
            // Half a segment at least, where two would fit: or an update had been due.
            let least = if self.tcb.rcvbuf() < 20_000 { 1 } else { 1460 / 2 };
            let open = self.tcb.offered_window();
            assert!(open >= least, "nothing is held, and the window at {open}");
        }
    }

    fn progress(&mut self) {
        let copied = SeqNum::new(self.model.seq_at(self.reader.copied));
        let notify = self.tcb.notify_at();
        let out = with_cx(self, |tcb, cx| tcb.reader_progress(cx, copied));
        let read = self.reader.copied > self.progress_seen;
        if out.is_some() && read && self.nothing_returned {
            let rings = notify.is_some_and(|at| at.at_or_before(copied));
            assert!(rings, "the reader at {copied:?} would not have rung: {notify:?}");
        }
        self.progress_seen = self.reader.copied;
        self.nothing_returned = true;
        self.on_acks(out);
    }

    fn close(&mut self, linger: bool) {
        let unread =
            self.reader.copied < self.model.marks.edge() - i64::from(self.model.marks.eof());
        let freed = self.reader.give_up();
        let copied = SeqNum::new(self.model.seq_at(self.reader.copied));
        let out = with_cx(self, |tcb, cx| tcb.close(cx, copied, linger));
        self.tcb.uncharge(freed);
        self.closed = true;
        self.model.read_shut = true;
        match self.model.state {
            State::TimeWait | State::Closed => assert_eq!(out, None),
            _ if unread => {
                self.look_at_rst(&out.expect("unread data resets"));
                self.model.die(None);
                self.pending = Pending::default();
            }
            _ if linger => self.on_abort(out),
            _ => self.on_fin_sent(out),
        }
    }

    fn on_abort(&mut self, out: Option<Outgoing>) {
        use State::{CloseWait, Established, FinWait1, FinWait2};
        if matches!(self.model.state, Established | CloseWait | FinWait1 | FinWait2) {
            self.look_at_rst(&out.expect("a RST"));
        } else {
            assert_eq!(out, None);
        }
        self.model.die(None);
        self.pending = Pending::default();
    }

    fn on_fin_sent(&mut self, out: Option<Outgoing>) {
        self.model.state = match self.model.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            _ => return assert_eq!(out, None),
        };
        self.model.fin_sent = true;
        let out = out.expect("a FIN");
        assert!(out.flags.has(Flags::FIN));
        self.on_ack(&out);
    }

    fn on_acks(&mut self, out: Option<Outgoing>) {
        if let Some(out) = out {
            self.on_ack(&out);
        }
    }

    /// An ACK leaves, made of the present state.
    fn on_ack(&mut self, out: &Outgoing) {
        self.look_at_ack(out, self.tcb.rmem());
        assert_eq!(out.ts, self.expected_ts());
        self.model.sent(out, self.tcb.right_edge().raw());
        if !self.model.fin_sent {
            assert_eq!(self.tcb.next_deadline(), None, "a timer for an ACK that has left");
        }
    }

    /// An ACK that was made while so much was charged.
    fn look_at_ack(&mut self, out: &Outgoing, rmem: u32) {
        let rcvbuf = self.tcb.rcvbuf();
        self.pending.look_at(&self.model, out, rcvbuf, rcvbuf.saturating_sub(rmem));
    }

    fn look_at_rst(&self, out: &Outgoing) {
        assert_eq!(out.flags, Flags::RST.with(Flags::ACK));
        assert_eq!(
            (out.seq, out.ack),
            (self.model.snd_nxt(), self.model.seq_at(self.model.marks.edge()))
        );
        assert_eq!(out.ts, self.expected_ts());
        assert!(self.model.sack || out.sack.is_empty());
    }

    fn expected_ts(&self) -> Option<Timestamps> {
        let val = (self.now.as_millis() as u32).wrapping_add(TS_OFFSET);
        self.model.ts.map(|(ecr, _)| Timestamps { val, ecr })
    }

    /// Compares the connection with its model.
    fn check(&mut self) {
        let (tcb, model) = (&mut self.tcb, &self.model);
        let (edge, eof) = (model.marks.edge(), model.marks.eof());
        assert_eq!((tcb.state(), tcb.error()), (model.state, model.error));
        assert_eq!(tcb.rcv_nxt().raw(), model.seq_at(edge));
        assert_eq!(tcb.edge().raw(), model.seq_at(edge - i64::from(eof)));
        assert_eq!(tcb.eof(), eof);
        // A RST names a window of its own, and is the last that is said.
        if model.state != State::Closed {
            assert_eq!(tcb.right_edge().raw(), model.seq_at(model.right()), "right edge");
        }
        assert_eq!(tcb.has_out_of_order(), !model.marks.is_gapless());
        let queue = tcb.take_receive_queue();
        let queued: u32 = queue.iter().map(HeapBuf::truesize).sum();
        if self.closed {
            assert!(queue.is_empty());
        } else {
            self.reader.check_run(&queue, &model.marks.stream);
        }
        tcb.put_back(queue);
        let held = queued + self.reader.truesize() + model.marks.truesize();
        assert_eq!(tcb.rmem(), held, "charged, against held");
        assert!(tcb.next_deadline().is_none_or(|at| at > self.now), "a timer was missed");
        if model.state == State::Closed {
            assert_eq!(tcb.next_deadline(), None);
        }
    }

    /// The peer comes to its senses and the reader to life: nothing may be stuck.
    fn finish(&mut self) {
        for _ in 0..3 {
            let edge = self.model.marks.edge();
            for _ in 0..8 {
                self.read_everything();
                if !self.receives() {
                    return;
                }
                self.wait(1000);
                let len = (self.model.right() - edge).clamp(1, 1000) as u16;
                self.step(&Op::Burst(vec![Arrival {
                    place: Place::Next(0),
                    len,
                    flags: Flags::ACK.0,
                    ack: AckField::Data,
                    window: PEER_WINDOW,
                    urgent: 0,
                    ts: Some(1),
                    version: 0,
                }]));
                self.check();
                if self.model.marks.edge() > edge {
                    break;
                }
            }
            assert!(self.model.marks.edge() > edge, "the connection is stuck at {edge}");
        }
        self.read_everything();
    }

    fn receives(&self) -> bool {
        use State::{Established, FinWait1, FinWait2};
        matches!(self.model.state, Established | FinWait1 | FinWait2) && !self.model.read_shut
    }

    fn read_everything(&mut self) {
        if self.closed {
            return;
        }
        self.take();
        self.reader.read(usize::MAX, &self.model.marks.stream);
        self.give_back();
        let edge = self.model.marks.edge() - i64::from(self.model.marks.eof());
        assert_eq!(self.reader.copied, edge, "acknowledged but not delivered");
        assert_eq!(self.tcb.rmem(), self.model.marks.truesize());
    }
}

/// Calls the connection with the time, the settings and the counters.
fn with_cx<T>(bench: &mut Bench, call: impl FnOnce(&mut Tcb<HeapBuf>, &mut Cx<'_>) -> T) -> T {
    let Bench { now, settings, counters, tcb, .. } = bench;
    call(tcb, &mut Cx { now: *now, settings, counters })
}
