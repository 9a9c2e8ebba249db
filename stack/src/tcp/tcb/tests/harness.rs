//! A connection, its peer, its reader and its clock, in relative sequence numbers.
//!
//! Both initial sequence numbers are 0 to the tests, so that rcv_nxt is 1 after the handshake. In
//! truth they lie shortly before the wrap, so that every test crosses it. The byte at relative
//! number n is a function of n: whoever reads checks it.

use std::collections::VecDeque;

use crate::buf::{BufQueue, HeapBuf, PacketBuf};
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{NoSink, Sink, State, Tcb, Verdict};
use crate::tcp::testing::World;
use crate::tcp::timestamps::TsState;
use crate::tcp::{Counter, SeqNum};
use crate::time::Instant;
use crate::wire::{Family, Flags, Outgoing, Segment, Timestamps};

/// The peer's initial sequence number.
pub(super) const IRS: u32 = u32::MAX - 20;
/// Ours.
pub(super) const ISS: u32 = u32::MAX;

/// The window of the handshake: 44 segments of 1460 bytes.
pub(super) const W: u32 = 64_240;

/// A pure ACK.
pub(super) fn ack(seq: u32) -> Segment {
    Segment { seq, ack: 1, len: 0, window: 1000, urgent: 0, flags: Flags::ACK, ecn: 0, ts: None }
}

/// Payload.
pub(super) fn data(seq: u32, len: u32) -> Segment {
    Segment { len, ..ack(seq) }
}

/// A FIN without payload.
pub(super) fn fin(seq: u32) -> Segment {
    data_fin(seq, 0)
}

/// Payload and FIN.
pub(super) fn data_fin(seq: u32, len: u32) -> Segment {
    Segment { flags: Flags::ACK.with(Flags::FIN), ..data(seq, len) }
}

/// A RST without ACK.
pub(super) fn rst(seq: u32) -> Segment {
    Segment { flags: Flags::RST, ack: 0, ..ack(seq) }
}

/// A SYN.
pub(super) fn syn(seq: u32) -> Segment {
    Segment { flags: Flags::SYN, ack: 0, ..ack(seq) }
}

/// The changes that make one segment of another.
pub(super) trait With: Sized {
    fn acking(self, ack: u32) -> Self;
    fn flags(self, flags: Flags) -> Self;
    fn push(self) -> Self;
    fn urgent(self, pointer: u16) -> Self;
    fn window(self, window: u16) -> Self;
    fn ts(self, val: u32) -> Self;
}

impl With for Segment {
    fn acking(self, ack: u32) -> Self {
        Self { ack, ..self }
    }

    fn flags(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    fn push(self) -> Self {
        Self { flags: self.flags.with(Flags::PSH), ..self }
    }

    fn urgent(self, pointer: u16) -> Self {
        Self { urgent: pointer, flags: self.flags.with(Flags::URG), ..self }
    }

    fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    fn ts(self, val: u32) -> Self {
        Self { ts: Some(Timestamps { val, ecr: 0 }), ..self }
    }
}

/// What was sent, without window and timestamps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Out {
    /// An ACK of everything before the number.
    Ack(u32),
    /// The same with SACK blocks.
    Sack(u32, Vec<(u32, u32)>),
    /// FIN and ACK: our number, and the acknowledged one.
    Fin(u32, u32),
    /// A RST without ACK, at this number.
    Rst(u32),
    /// RST and ACK: our number, and the acknowledged one.
    RstAck(u32, u32),
}

impl Out {
    pub(super) fn of(out: &Outgoing) -> Self {
        let (seq, ack) = (out.seq.wrapping_sub(ISS), out.ack.wrapping_sub(IRS));
        if out.flags == Flags::RST {
            Self::Rst(seq)
        } else if out.flags.has(Flags::RST) {
            Self::RstAck(seq, ack)
        } else if out.flags.has(Flags::FIN) {
            Self::Fin(seq, ack)
        } else if out.sack.is_empty() {
            Self::Ack(ack)
        } else {
            let relative = |&(a, b): &(u32, u32)| (a.wrapping_sub(IRS), b.wrapping_sub(IRS));
            Self::Sack(ack, out.sack.iter().map(relative).collect())
        }
    }
}

/// The byte at a relative number.
fn byte_at(seq: u32) -> u8 {
    (seq ^ (seq >> 8)) as u8
}

/// The payload of a segment, in a buffer.
pub(super) fn payload(seg: &Segment) -> HeapBuf {
    let bytes: Vec<u8> = (0..seg.len).map(|i| byte_at(seg.seq.wrapping_add(i))).collect();
    HeapBuf::new(&bytes)
}

/// A sink that keeps up to so many buffers.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) bufs: VecDeque<HeapBuf>,
    pub(super) room: usize,
}

impl Sink<HeapBuf> for Ring {
    fn push(&mut self, buf: HeapBuf) -> Result<(), HeapBuf> {
        if self.bufs.len() < self.room {
            self.bufs.push_back(buf);
            Ok(())
        } else {
            Err(buf)
        }
    }
}

pub(super) fn opened() -> Opened {
    Opened {
        family: Family::V4,
        iss: SeqNum::new(ISS),
        irs: SeqNum::new(IRS),
        rcv_wnd: W,
        snd_wnd: 1000,
        scale: None,
        mss: 1460,
        advmss: 1460,
        sack_ok: false,
        ecn_ok: false,
        ts: None,
        synack_rtt: None,
    }
}

/// A connection under test.
pub(super) struct Conn {
    pub(super) world: World,
    pub(super) tcb: Tcb<HeapBuf>,
    pub(super) ring: Ring,
    /// Everything sent, as it was.
    pub(super) raw: Vec<Outgoing>,
    /// Relative copied_seq.
    pub(super) copied: u32,
    outs: Vec<Out>,
    /// The buffer of which the reader has read a part, and how much.
    partial: Option<(HeapBuf, usize)>,
}

impl Conn {
    pub(super) fn new() -> Self {
        Self::of(&opened())
    }

    pub(super) fn with_sack() -> Self {
        Self::of(&Opened { sack_ok: true, ..opened() })
    }

    /// With timestamps, TS.Recent being `recent`.
    pub(super) fn with_ts(recent: u32) -> Self {
        let recent_at = Instant::from_millis(1000);
        let ts = TsState { recent, offset: 0, recent_at };
        Self::of(&Opened { advmss: 1448, ts: Some(ts), ..opened() })
    }

    pub(super) fn with_scale(shift: u8) -> Self {
        let scale = Self::with_scale_of(shift);
        Self::of(&Opened { scale, sack_ok: true, ..opened() })
    }

    pub(super) fn with_scale_of(shift: u8) -> Option<Scale> {
        Some(Scale { rcv: shift, snd: 0 })
    }

    pub(super) fn of(opened: &Opened) -> Self {
        Self::in_world(World::default(), opened)
    }

    pub(super) fn in_world(mut world: World, opened: &Opened) -> Self {
        world.at_ms(1000);
        let tcb = Tcb::new(&mut world.cx(), opened);
        let mut conn = Self {
            world,
            tcb,
            ring: Ring::default(),
            raw: Vec::new(),
            copied: 1,
            outs: Vec::new(),
            partial: None,
        };
        // The limit on replies is tested where it matters.
        conn.world.settings.tcp_invalid_ratelimit = std::time::Duration::ZERO;
        conn
    }

    /// A burst of one segment; what was sent for it.
    pub(super) fn on(&mut self, seg: Segment) -> Vec<Out> {
        self.burst(&[seg])
    }

    /// A burst; what was sent for it.
    pub(super) fn burst(&mut self, segs: &[Segment]) -> Vec<Out> {
        for seg in segs {
            self.arrive(seg, payload(seg));
        }
        self.end_burst();
        self.sent()
    }

    /// One segment of a burst.
    pub(super) fn arrive(&mut self, seg: &Segment, buf: HeapBuf) {
        let seg =
            Segment { seq: seg.seq.wrapping_add(IRS), ack: seg.ack.wrapping_add(ISS), ..*seg };
        let cx = &mut self.world.cx();
        let verdict = if self.ring.room > 0 {
            self.tcb.on_segment(cx, &seg, buf, &mut self.ring)
        } else {
            self.tcb.on_segment(cx, &seg, buf, &mut NoSink)
        };
        self.follow(verdict);
    }

    /// Sends what a segment demands at once.
    pub(super) fn follow(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Predicted | Verdict::Later => {}
            Verdict::Ack => {
                let ack = self.tcb.ack_now(&mut self.world.cx());
                self.send(ack);
            }
            Verdict::Send(out) => self.send(out),
        }
    }

    pub(super) fn end_burst(&mut self) {
        let out = self.tcb.end_burst(&mut self.world.cx());
        out.into_iter().for_each(|out| self.send(out));
    }

    pub(super) fn send(&mut self, out: Outgoing) {
        self.outs.push(Out::of(&out));
        self.raw.push(out);
    }

    /// What was sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.outs)
    }

    /// Lets so many milliseconds pass, every timer firing in time; what was sent.
    pub(super) fn wait(&mut self, ms: u64) -> Vec<Out> {
        let end = Instant::from_nanos(self.world.now.as_nanos() + ms * 1_000_000);
        while let Some(at) = self.tcb.next_deadline().filter(|&at| at <= end) {
            self.world.now = self.world.now.max(at);
            while let Some(out) = self.tcb.on_timer(&mut self.world.cx()) {
                self.send(out);
            }
        }
        self.world.now = end;
        self.sent()
    }

    /// Milliseconds until the next deadline.
    pub(super) fn due_in(&self) -> Option<u64> {
        let ns = self.tcb.next_deadline()?.since(self.world.now).as_nanos();
        Some(u64::try_from(ns.div_ceil(1_000_000)).unwrap())
    }

    /// In-sequence bytes that were not read.
    pub(super) fn readable(&self) -> u32 {
        self.tcb.edge().raw().wrapping_sub(IRS).wrapping_sub(self.copied)
    }

    /// Reads up to `len` bytes as a reader does: takes the queue, copies, gives used-up buffers
    /// back, puts back the rest, tells its progress. What was sent.
    pub(super) fn read(&mut self, len: u32) -> Vec<Out> {
        let mut left = len.min(self.readable()) as usize;
        let mut queue = std::mem::take(&mut self.ring.bufs);
        BufQueue::append(&mut queue, &mut self.tcb.take_receive_queue());
        let mut freed = 0;
        while left > 0 {
            let (buf, start) = self
                .partial
                .take()
                .unwrap_or_else(|| (queue.pop_front().expect("the edge promised data"), 0));
            let n = left.min(buf.len() - start);
            for &byte in &buf.data()[start..start + n] {
                assert_eq!(byte, byte_at(self.copied), "wrong byte at {}", self.copied);
                self.copied += 1;
            }
            left -= n;
            if start + n == buf.len() {
                freed += buf.truesize();
            } else {
                self.partial = Some((buf, start + n));
            }
        }
        self.tcb.put_back(queue);
        self.tcb.uncharge(freed);
        let copied = SeqNum::new(self.copied.wrapping_add(IRS));
        let out = self.tcb.reader_progress(&mut self.world.cx(), copied);
        out.into_iter().for_each(|out| self.send(out));
        self.sent()
    }

    pub(super) fn read_all(&mut self) -> Vec<Out> {
        self.read(u32::MAX)
    }

    pub(super) fn close(&mut self) -> Vec<Out> {
        let copied = SeqNum::new(self.copied.wrapping_add(IRS));
        let out = self.tcb.close(&mut self.world.cx(), copied, false);
        out.into_iter().for_each(|out| self.send(out));
        self.sent()
    }

    pub(super) fn shutdown_write(&mut self) -> Vec<Out> {
        let out = self.tcb.shutdown_write(&mut self.world.cx());
        out.into_iter().for_each(|out| self.send(out));
        self.sent()
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.world.count(counter)
    }

    /// The counters that moved, as (counter, count).
    pub(super) fn counted(&self) -> Vec<(Counter, u64)> {
        self.world.counted()
    }

    pub(super) fn rcv_nxt(&self) -> u32 {
        self.tcb.rcv_nxt().raw().wrapping_sub(IRS)
    }

    pub(super) fn right_edge(&self) -> u32 {
        self.tcb.right_edge().raw().wrapping_sub(IRS)
    }

    pub(super) fn state(&self) -> State {
        self.tcb.state()
    }

    /// Uses up quick mode with small segments, so that ACKs are delayed; returns the next number.
    pub(super) fn settle(&mut self) -> u32 {
        let mut seq = 1;
        while !self.on(data(seq, 100)).is_empty() {
            seq += 100;
        }
        seq += 100;
        self.wait(300);
        self.read_all();
        // A window that has been opened fully brings no quick ACKs.
        self.tcb.window.ssthresh = u32::MAX;
        seq
    }

    /// Takes everything out of readers' hands; its truesize is to be uncharged.
    pub(super) fn release_all(&mut self) -> u32 {
        let handed = self.ring.bufs.drain(..).chain(self.partial.take().map(|(buf, _)| buf));
        handed.map(|buf| buf.truesize()).sum()
    }

    /// Truesize of everything the connection is charged for.
    pub(super) fn held(&self) -> u32 {
        let queued: u32 = self.tcb.receive.iter().map(HeapBuf::truesize).sum();
        let handed: u32 = self.ring.bufs.iter().map(HeapBuf::truesize).sum();
        let partial = self.partial.as_ref().map_or(0, |(buf, _)| buf.truesize());
        queued + handed + partial + self.tcb.ofo.truesize()
    }
}
