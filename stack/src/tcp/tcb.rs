//! The connection in a synchronised state: sequence variables, queues, policies, closing.
//!
//! Owned by one socket and run by its lcore only: segments, timers and the application's wishes
//! come in as calls with the time, what is to be sent comes out as values. It never sleeps,
//! allocates on the in-order path, reads a clock, or sends anything by itself.

mod ack;
mod autotune;
mod chain;
mod close;
mod ecn;
mod hole;
mod info;
mod input;
mod keepalive;
mod options;
mod path;
mod progress;
mod relief;
mod run;
mod urgent;
mod validate;
mod window;

use crate::buf::{BufQueue, PacketBuf};
use crate::time::Instant;
use crate::watch::ConnectionSeen;
use crate::wire::Outgoing;

use super::icmp::PathError;
use super::ofo::OutOfOrder;
use super::ratelimit::ReplyStamp;
use super::request::Opened;
use super::sack::SackList;
use super::timestamps::TsState;
use super::{Counter, Cx, SeqNum, SeqRange};

use ack::{AckState, Owed};
use autotune::Autotune;
use close::Closing;
pub use hole::Replies;
use info::Tally;
pub use info::{MemInfo, TcpInfo};
pub use keepalive::KeepAlive;
pub(crate) use options::LEAST_CLAMP;
pub use options::Linger2;
use options::{Asked, Limits};
pub use relief::{Queues, Won};
pub use urgent::Urgent;
use window::Window;

/// A deadline that is not set.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The value of [`Tcb::prediction`] that no header matches.
const UNPREDICTABLE: u32 = u32::MAX;

/// Where in-sequence buffers go as long as the receive queue is empty.
pub trait Sink<B> {
    /// Takes the buffer, or gives it back if there is no room (or no reader).
    ///
    /// A buffer taken is charged to the connection until [`Tcb::uncharge`] says that it came back.
    fn push(&mut self, buf: B) -> Result<(), B>;

    /// Takes as many of the buffers, in order, as there is room for; how many, and the first one that was
    /// refused, unless that is still in the iterator.
    fn push_each(&mut self, bufs: &mut impl ExactSizeIterator<Item = B>) -> (usize, Option<B>) {
        let mut taken = 0;
        for buf in bufs {
            if let Err(refused) = self.push(buf) {
                return (taken, Some(refused));
            }
            taken += 1;
        }
        (taken, None)
    }

    /// Whether there is no use in trying now.
    fn refuses_all(&self) -> bool {
        false
    }

    /// Whether [`Self::copy`] may take something.
    fn copies(&self) -> bool {
        false
    }

    /// Copies as many bytes from the front of the buffer as it can, to somebody who waits for them;
    /// how many. They count as read; the caller keeps the buffer.
    fn copy(&mut self, _buf: &B) -> usize {
        0
    }
}

/// The sink of a connection without a reader: refuses everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl<B> Sink<B> for NoSink {
    fn push(&mut self, buf: B) -> Result<(), B> {
        Err(buf)
    }

    fn refuses_all(&self) -> bool {
        true
    }
}

/// States of RFC 9293 §3.3.2 from ESTABLISHED on; the earlier ones are a listener's requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    /// Data flows.
    Established,
    /// The peer has sent FIN, we have not.
    CloseWait,
    /// We have sent FIN; neither its ACK nor the peer's FIN has come.
    FinWait1,
    /// Our FIN is acknowledged, the peer's has not come.
    FinWait2,
    /// Both FINs are under way, ours is not acknowledged.
    Closing,
    /// The peer's FIN came first; ours is not acknowledged.
    LastAck,
    /// Both FINs are acknowledged; a [`TimeWait`](super::time_wait::TimeWait) record stands in on the wire.
    TimeWait,
    /// Nothing more is received or sent.
    Closed,
}

impl State {
    /// Whether the peer's FIN has been received and the connection still waits for something.
    const fn after_peer_fin(self) -> bool {
        matches!(self, Self::CloseWait | Self::LastAck | Self::Closing)
    }
}

/// Why a connection ended otherwise than by FIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnError {
    /// The peer reset it, or we did because data came after the application had closed
    /// (ECONNRESET).
    Reset,
    /// The same after the peer's FIN (EPIPE).
    BrokenPipe,
    /// Our FIN was never acknowledged (ETIMEDOUT).
    TimedOut,
    /// The same, and the network has said why.
    Path(PathError),
}

/// What the caller of [`Tcb::on_segment`] has to do at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing, and nothing has changed but that there is more data: the segment was predicted.
    Predicted,
    /// Nothing: [`Tcb::end_burst`] decides about the ACK.
    Later,
    /// Send [`Tcb::ack_now`] before the next segment is looked at.
    Ack,
    /// Send this: a challenge ACK, an ACK with the previous duplicate's report, or a RST.
    Send(Outgoing),
}

/// A connection.
///
/// The order of calls is: any number of [`on_segment`](Self::on_segment), then
/// [`end_burst`](Self::end_burst) once, even if the connection has ended; buffers that came back
/// through [`uncharge`](Self::uncharge), then [`reader_progress`](Self::reader_progress) once;
/// [`on_timer`](Self::on_timer) until it returns `None` whenever
/// [`next_deadline`](Self::next_deadline) has passed. `Cx::now` never goes back. Whoever sends
/// counts `OutSegs` and `OutRsts`.
#[derive(Debug)]
#[repr(C)]
pub struct Tcb<B: PacketBuf> {
    // What the in-order path reads and writes comes first, in two cache lines.
    rcv_nxt: SeqNum,
    /// Window and control bits of the header that the fast path expects, or [`UNPREDICTABLE`].
    prediction: u32,
    /// Next number we send. Without data to send it moves only by the FIN.
    snd_nxt: SeqNum,
    /// Sequence number of the segment that last updated the peer's window (SND.WL1).
    snd_wl1: SeqNum,
    window: Window,
    state: State,
    wants: Wants,
    ack: AckState,
    ts: Option<TsState>,
    receive: B::Queue,

    // Cold from here; an ACK, and so each burst, looks at the first of it.
    tally: Tally,
    /// Apart, so that the connection keeps its number of lines.
    autotune: Box<Autotune>,
    snd_una: SeqNum,
    /// rcv_nxt at which duplicate ACKs were last counted.
    hole: SeqNum,
    ofo: OutOfOrder<B>,
    sack: SackList,
    /// SACK was negotiated.
    sack_ok: bool,
    ecn: ecn::Ecn,
    /// The duplicate that the next ACK reports.
    dsack: Option<SeqRange>,
    /// The window field of the peer's last window update, unscaled.
    snd_window: u16,
    /// Shift of the peer's window fields.
    snd_shift: u8,
    /// Window scaling was agreed on.
    scaled: bool,
    /// The peer's MSS.
    snd_mss: u16,
    /// The largest window that the peer ever advertised, in bytes.
    max_window: u32,
    replies: ReplyStamp,
    urgent: urgent::UrgentState,
    /// copied_seq as last heard of.
    copied_seen: SeqNum,
    closing: Closing,
    error: Option<ConnError>,
    limits: Limits,
    /// What the application has asked for, if it ever has.
    asked: Option<Box<Asked>>,
}

/// What the application has said about its ends, and what the peer's FIN said about ours.
#[derive(Clone, Copy, Debug, Default)]
struct Wants {
    /// The peer's FIN is in sequence: nothing follows.
    eof: bool,
    /// The application will not read any more.
    read_shut: bool,
    /// No handle is left.
    orphan: bool,
}

impl<B: PacketBuf> Tcb<B> {
    /// The connection that a completed handshake has opened, in ESTABLISHED.
    pub fn new(cx: &mut Cx<'_>, opened: &Opened) -> Self {
        cx.counters.bump(Counter::CurrEstab);
        let rcv_nxt = opened.rcv_nxt();
        let snd_nxt = opened.snd_nxt();
        let window = Window::new(cx.settings, opened, rcv_nxt);
        let tally = Tally::new(cx.now, opened);
        let first = window.wnd.min(window.ssthresh);
        let mut tcb = Self {
            tally,
            autotune: Box::new(Autotune::new(cx.now, rcv_nxt, first, opened.advmss)),
            rcv_nxt,
            prediction: UNPREDICTABLE,
            snd_nxt,
            snd_una: snd_nxt,
            ack: AckState::new(cx.now, opened, window.open(rcv_nxt)),
            window,
            state: State::Established,
            wants: Wants::default(),
            ts: opened.ts,
            receive: B::Queue::default(),
            hole: rcv_nxt,
            ofo: OutOfOrder::new(),
            sack: SackList::new(),
            sack_ok: opened.sack_ok,
            ecn: ecn::Ecn::new(opened.ecn_ok),
            dsack: None,
            snd_wl1: opened.irs,
            snd_window: opened.snd_wnd,
            snd_shift: opened.scale.map_or(0, |scale| scale.snd),
            scaled: opened.scale.is_some(),
            snd_mss: opened.mss,
            max_window: opened.peer_window(),
            replies: ReplyStamp::default(),
            urgent: urgent::UrgentState::default(),
            copied_seen: rcv_nxt,
            closing: Closing::new(opened.synack_rtt),
            error: None,
            limits: Limits::new(cx.settings),
            asked: None,
        };
        tcb.predict();
        tcb
    }

    /// The ACK that is due, with the window of this moment. Counts as sent.
    pub fn ack_now(&mut self, cx: &mut Cx<'_>) -> Outgoing {
        self.outgoing_ack(cx)
    }

    /// Tells that buffers of this truesize came back; [`Self::reader_progress`] is due.
    pub fn uncharge(&mut self, truesize: u32) {
        self.window.uncharge(truesize);
        self.check();
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The next number that is expected.
    pub const fn rcv_nxt(&self) -> SeqNum {
        self.rcv_nxt
    }

    /// The number behind the last in-sequence byte: rcv_nxt without the peer's FIN.
    pub const fn edge(&self) -> SeqNum {
        self.rcv_nxt.minus(self.wants.eof as u32)
    }

    /// Whether the peer's FIN is in sequence: nothing follows behind [`Self::edge`].
    pub const fn eof(&self) -> bool {
        self.wants.eof
    }

    /// Why the connection ended, if not by FIN.
    pub const fn error(&self) -> Option<ConnError> {
        self.error
    }

    /// When [`Self::on_timer`] wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = self.ack.deadline.min(self.closing.deadline);
        (first != NEVER).then_some(first)
    }

    /// The estimate of the peer's segment size, in bytes.
    pub const fn rcv_mss(&self) -> u32 {
        self.ack.rcv_mss as u32
    }

    /// Bytes that the peer may still send.
    pub const fn offered_window(&self) -> u32 {
        self.window.open(self.rcv_nxt)
    }

    /// The right edge of the offered window.
    pub const fn right_edge(&self) -> SeqNum {
        self.rcv_nxt.plus(self.window.open(self.rcv_nxt))
    }

    /// Truesize charged to the connection, in bytes.
    pub const fn rmem(&self) -> u32 {
        self.window.rmem
    }

    /// Limit of [`Self::rmem`], in bytes.
    pub const fn rcvbuf(&self) -> u32 {
        self.window.rcvbuf
    }

    /// Whether less than an eighth of the buffer is free: readers are woken whatever they wait for.
    pub const fn over_seven_eighths(&self) -> bool {
        self.window.rmem > self.window.rcvbuf - self.window.rcvbuf / 8
    }

    /// Whether anything waits above a hole.
    pub const fn has_out_of_order(&self) -> bool {
        !self.ofo.is_empty()
    }

    /// Whether in-sequence data waits in the receive queue.
    pub fn has_queued(&self) -> bool {
        !self.receive.is_empty()
    }

    /// The queues as they are: for whoever wants to look, not for the packet path.
    pub fn seen(&self) -> ConnectionSeen {
        ConnectionSeen {
            rcv_nxt: self.rcv_nxt.raw(),
            receive: self.receive.iter().map(PacketBuf::span).collect(),
            out_of_order: self.ofo.iter().map(PacketBuf::span).collect(),
        }
    }

    /// Takes the whole receive queue; its buffers stay charged.
    pub fn take_receive_queue(&mut self) -> B::Queue {
        std::mem::take(&mut self.receive)
    }

    /// Takes every buffer there is, in sequence or not: the end of a connection whose lcore has
    /// gone. They stay charged.
    pub fn take_all(&mut self) -> B::Queue {
        let mut all = self.take_receive_queue();
        for buf in self.ofo.take_all() {
            all.push_back(buf);
        }
        self.sack = SackList::new();
        all
    }

    /// Puts buffers that are older than everything in the receive queue back in front of it.
    pub fn put_back(&mut self, mut older: B::Queue) {
        older.append(&mut self.receive);
        self.receive = older;
        self.check();
    }

    /// Sets the header that the fast path expects, or that none is expected.
    ///
    /// None while anything beyond "next data in order" can be found in a segment: a hole, a duplicate
    /// yet to be reported, a closed or overshot window, urgent data, another state, an error of the
    /// path that it disproves. Memory is looked at by the fast path itself.
    fn predict(&mut self) {
        let predictable = self.state == State::Established
            && self.window.is_open()
            && self.rcv_nxt.at_or_before(self.window.right_edge())
            && self.ofo.is_empty()
            && self.dsack.is_none()
            && !self.urgent.is_pending()
            // What is predicted moves it to rcv_nxt, and it must not move back.
            && self.snd_wl1.at_or_before(self.rcv_nxt)
            && !self.has_path_error();
        self.prediction =
            if predictable { input::predicted_header(self.snd_window) } else { UNPREDICTABLE };
    }

    /// Checks what must hold between calls; free in release builds.
    #[inline]
    fn check(&self) {
        #[cfg(debug_assertions)]
        self.invariants();
    }

    /// Panics if a relation between the fields is broken.
    #[cfg(debug_assertions)]
    fn invariants(&self) {
        /// Longer queues are looked at in part, or a test would take quadratic time.
        const LOOKED_AT: usize = 256;
        let mut charged = self.ofo.truesize();
        let mut next = None;
        for buf in self.receive.iter().take(LOOKED_AT) {
            let seq = SeqNum::new(buf.cb().seq);
            assert!(next.is_none_or(|next| next == seq), "gap in the receive queue");
            assert!(!buf.is_empty(), "empty buffer in the receive queue");
            next = Some(seq.plus(buf.len() as u32));
            charged += buf.truesize();
        }
        if let Some(end) = next
            && self.receive.len() <= LOOKED_AT
        {
            assert_eq!(end, self.edge(), "receive queue does not end at the edge");
        }
        assert!(charged <= self.window.rmem, "queued but not charged");
        assert!(self.copied_seen.at_or_before(self.edge()), "read beyond the edge");
        if let Some(end) = self.ofo.end() {
            assert!(end.after(self.rcv_nxt), "in-sequence data left out of order");
            assert_eq!(self.prediction, UNPREDICTABLE, "predicted over a hole");
        }
        assert!(self.ofo.is_empty() || !self.wants.eof, "data behind the FIN");
        assert!(
            self.sack.is_empty() || !self.ofo.is_empty(),
            "SACK blocks without out-of-order data"
        );
    }
}

#[cfg(test)]
mod tests;
