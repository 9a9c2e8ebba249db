//! A connection whose lcore and peer the test plays itself, step by step, under a virtual clock.

use std::sync::Arc;
use std::time::Duration;

use crate::buf::{HeapBuf, Owner, PacketBuf, Returns, SegCb};
use crate::socket::{
    Claim, Deferred, Home, LcoreRef, Recv, RecvError, RecvFlags, SocketId, Step, TcpStream,
};
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{State, Tcb, Verdict};
use crate::tcp::time_wait::Phase;
use crate::tcp::{Counters, Cx, SeqNum, Settings};
use crate::time::Instant;
use crate::wire::{Family, Flags, FourTuple, Outgoing, Segment};

/// Shortly before the wrap, so that the first bytes cross it.
const IRS: u32 = u32::MAX - 5;
const ISS: u32 = 1000;
const ID: SocketId = SocketId { slot: 1, generation: 1 };

/// What a read came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Bytes(usize),
    Waits,
    Fails(RecvError),
}

/// The lcore, and the peer.
pub(super) struct Hand {
    pub(super) now: Instant,
    pub(super) sent: Vec<Outgoing>,
    pub(super) counters: Counters,
    home: Arc<Home<HeapBuf>>,
    lcore: LcoreRef<HeapBuf>,
    settings: Settings,
    /// The peer's next number, and what it acknowledges.
    pub(super) seq: u32,
    pub(super) ack: u32,
}

pub(super) fn open() -> (Hand, TcpStream<HeapBuf>) {
    open_with(Settings::default())
}

pub(super) fn open_with(settings: Settings) -> (Hand, TcpStream<HeapBuf>) {
    let home = Arc::new(Home::<HeapBuf>::default());
    let mut counters = Counters::default();
    let opened = Opened {
        family: Family::V4,
        iss: SeqNum::new(ISS),
        irs: SeqNum::new(IRS),
        rcv_wnd: 64_240,
        snd_wnd: 65_535,
        scale: Some(Scale { snd: 7, rcv: 7 }),
        mss: 1460,
        advmss: 1460,
        sack_ok: true,
        ecn_ok: false,
        ts: None,
        synack_rtt: Some(Duration::from_millis(1)),
    };
    let now = Instant::from_millis(1000);
    let tcb = Tcb::new(&mut Cx { now, settings: &settings, counters: &mut counters }, &opened);
    let tuple = FourTuple {
        local_addr: [10, 0, 0, 1].into(),
        remote_addr: [10, 0, 0, 2].into(),
        local_port: 7000,
        remote_port: 40_000,
    };
    let (lcore, handle) = LcoreRef::new(tcb, &home, ID, tuple);
    let (seq, ack) = (IRS.wrapping_add(1), ISS + 1);
    (Hand { now, sent: vec![], counters, home, lcore, settings, seq, ack }, handle.into())
}

impl Hand {
    /// In-order data.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        self.segment(Flags::ACK, 0, bytes);
    }

    /// In-order data with an urgent pointer.
    pub(super) fn urgent(&mut self, bytes: &[u8], pointer: u16) {
        self.segment(Flags::ACK.with(Flags::URG), pointer, bytes);
    }

    pub(super) fn fin(&mut self) {
        self.segment(Flags::ACK.with(Flags::FIN), 0, b"");
    }

    pub(super) fn rst(&mut self) {
        self.segment(Flags::ACK.with(Flags::RST), 0, b"");
    }

    /// The peer acknowledges our FIN.
    pub(super) fn ack_fin(&mut self) {
        self.ack += 1;
        self.data(b"");
    }

    /// The next segment of the peer.
    pub(super) fn segment(&mut self, flags: Flags, urgent: u16, bytes: &[u8]) {
        let (seq, len) = (self.seq, bytes.len() as u32);
        self.seq = seq.wrapping_add(len + u32::from(flags.has(Flags::FIN)));
        self.raw_segment(seq, flags, urgent, bytes);
    }

    /// A segment of the peer, wherever it belongs.
    pub(super) fn raw_segment(&mut self, seq: u32, flags: Flags, urgent: u16, bytes: &[u8]) {
        let len = bytes.len() as u32;
        let segment =
            Segment { seq, ack: self.ack, len, window: 500, urgent, flags, ecn: 0, ts: None };
        let mut buf = HeapBuf::new(bytes);
        let fin = flags.has(Flags::FIN);
        *buf.cb_mut() =
            SegCb { seq, fin, rx_time: self.now, owner: Owner::new(ID.slot, ID.generation) };
        self.visit(Some((segment, buf)));
    }

    /// The lcore looks at its doorbell, at what came back, and at its timers.
    pub(super) fn poll(&mut self) {
        self.visit(None);
    }

    /// Time passes; deadlines are kept.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(deadline) = self.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.poll();
        }
        self.now = end;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.claim().tcb().next_deadline()
    }

    pub(super) fn state(&self) -> State {
        self.claim().tcb().state()
    }

    /// How long the record that would take the connection's place now would wait for a FIN.
    pub(super) fn last_life(&self) -> Option<Duration> {
        match self.claim().tcb().time_wait(&self.settings)?.phase {
            Phase::FinWait2(life) => Some(life),
            Phase::TimeWait => None,
        }
    }

    fn claim(&self) -> Claim<'_, HeapBuf> {
        self.lcore.claim().expect("nobody owns the socket")
    }

    /// Rings that were made and are not installed.
    pub(super) fn spare_rings(&self) -> usize {
        self.home.rings.count()
    }

    /// What was sent since the last time.
    pub(super) fn take_sent(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.sent)
    }

    fn visit(&mut self, arrived: Option<(Segment, HeapBuf)>) {
        self.home.take_bells().for_each(drop);
        let mut returned = 0;
        self.home.returns().free_all(|_, truesize| returned += truesize);
        let lcore = &self.lcore;
        let mut cx = Cx { now: self.now, settings: &self.settings, counters: &mut self.counters };
        let claim = lcore.claim().or_else(|| {
            let (segment, buf) = arrived.clone()?;
            lcore.defer(Deferred::Segment(segment, buf), cx.counters)
        });
        let Some(mut claim) = claim else { return };
        while let Some(what) = claim.next_deferred() {
            if let Deferred::Segment(segment, buf) = what {
                take(&mut claim, &mut cx, &segment, buf, &mut self.sent);
            }
        }
        if let Some((segment, buf)) = arrived {
            take(&mut claim, &mut cx, &segment, buf, &mut self.sent);
        }
        claim.tcb().uncharge(returned);
        let copied_seq = claim.copied_seq();
        let requests = claim.take_requests();
        let sent = &mut self.sent;
        let tcb = claim.tcb();
        tcb.on_options(&cx);
        if requests.shut_read() {
            tcb.shutdown_read();
        }
        if requests.abort() {
            sent.extend(tcb.abort(&mut cx));
        }
        if requests.shut_write() {
            sent.extend(tcb.shutdown_write(&mut cx));
        }
        if let Some(linger_zero) = requests.close() {
            sent.extend(tcb.close(&mut cx, copied_seq, linger_zero));
        }
        while tcb.next_deadline().is_some_and(|deadline| deadline <= cx.now) {
            let before = tcb.next_deadline();
            let out = tcb.on_timer(&mut cx);
            if out.is_none() && tcb.next_deadline() == before {
                break;
            }
            sent.extend(out);
        }
        sent.extend(tcb.end_burst(&mut cx));
        sent.extend(tcb.reader_progress(&mut cx, copied_seq));
        claim.leave();
    }

    /// Reads once: what comes of it at this moment.
    pub(super) fn recv(
        &mut self,
        stream: &TcpStream<HeapBuf>,
        len: usize,
        flags: RecvFlags,
    ) -> (Outcome, Vec<u8>) {
        let mut buf = vec![0; len];
        let outcome = {
            let mut call = Recv::new(stream.handle(), &mut buf, flags, || self.now);
            outcome(call.step(self.now))
        };
        let n = if let Outcome::Bytes(n) = outcome { n } else { 0 };
        buf.truncate(n);
        self.poll();
        (outcome, buf)
    }

    /// The bytes that a read returns.
    ///
    /// # Panics
    /// It returns none.
    pub(super) fn read(
        &mut self,
        stream: &TcpStream<HeapBuf>,
        len: usize,
        flags: RecvFlags,
    ) -> Vec<u8> {
        let (outcome, bytes) = self.recv(stream, len, flags);
        assert_eq!(outcome, Outcome::Bytes(bytes.len()));
        bytes
    }
}

fn take(
    claim: &mut Claim<'_, HeapBuf>,
    cx: &mut Cx<'_>,
    segment: &Segment,
    buf: HeapBuf,
    sent: &mut Vec<Outgoing>,
) {
    let (tcb, sink) = claim.parts();
    match tcb.on_segment(cx, segment, buf, sink) {
        Verdict::Predicted | Verdict::Later => {}
        Verdict::Ack => sent.push(tcb.ack_now(cx)),
        Verdict::Send(out) => sent.push(out),
    }
}

pub(super) fn outcome(step: Step) -> Outcome {
    match step {
        Step::Done(n) => Outcome::Bytes(n),
        Step::Sleep(_) => Outcome::Waits,
        Step::Failed(error) => Outcome::Fails(error),
    }
}
