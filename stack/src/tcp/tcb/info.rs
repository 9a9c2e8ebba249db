//! What a connection tells of itself to whoever asks: TCP_INFO and SO_MEMINFO.
//!
//! Read by the application under the owner word, by the lcore for its census, and by tests. It changes
//! nothing; what it adds up besides is a count per segment beside the fields that an ACK reads anyway.

use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::SeqNum;
use crate::tcp::request::Opened;
use crate::time::Instant;
use crate::wire::Family;

use super::{State, Tcb};

/// What TCP_INFO tells of a connection: Linux's fields under Linux's names, numbers and units.
///
/// Those of the sending side that a receiver has no use for (congestion, pacing, what was delivered)
/// are left out; [`Self::to_bytes`] has zeros in their places.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
///
/// fn describe(stream: &TcpStream<HeapBuf>) -> std::io::Result<String> {
///     let info = stream.info()?;
///     Ok(format!(
///         "{} bytes in {} segments of {}, {} of them out of order, {} ms ago",
///         info.tcpi_bytes_received,
///         info.tcpi_data_segs_in,
///         info.tcpi_rcv_mss,
///         info.tcpi_rcv_ooopack,
///         info.tcpi_last_data_recv,
///     ))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TcpInfo {
    /// The state as Linux numbers it: see [`State::number`].
    pub tcpi_state: u8,
    /// Timeouts of our FIN without an answer.
    pub tcpi_retransmits: u8,
    /// Keepalive probes without an answer.
    pub tcpi_probes: u8,
    /// How often the retransmission timeout was doubled.
    pub tcpi_backoff: u8,
    /// What was agreed on: [`Self::TIMESTAMPS`], [`Self::SACK`], [`Self::WSCALE`], [`Self::ECN`]; and
    /// [`Self::ECN_SEEN`].
    pub tcpi_options: u8,
    /// Shift of the peer's window fields.
    pub tcpi_snd_wscale: u8,
    /// Shift of ours.
    pub tcpi_rcv_wscale: u8,
    /// Retransmission timeout, in microseconds.
    pub tcpi_rto: u32,
    /// Adaptive delay of ACKs, in microseconds; zero before the first data.
    pub tcpi_ato: u32,
    /// Payload that we would send in a segment, in bytes.
    pub tcpi_snd_mss: u32,
    /// Estimate of the payload in bytes that the peer's segments have.
    pub tcpi_rcv_mss: u32,
    /// Segments of ours without an acknowledgement: the FIN, or none.
    pub tcpi_unacked: u32,
    /// Never remembered, as in Linux: zero.
    pub tcpi_last_ack_sent: u32,
    /// Milliseconds since data last came, or since the connection was opened.
    pub tcpi_last_data_recv: u32,
    /// Milliseconds since an ACK last came (data that header prediction has taken not counted).
    pub tcpi_last_ack_recv: u32,
    /// MTU of the path, in bytes.
    pub tcpi_pmtu: u32,
    /// What the window may be opened to at present, in bytes.
    pub tcpi_rcv_ssthresh: u32,
    /// Smoothed round-trip time, in microseconds; zero if none was measured.
    pub tcpi_rtt: u32,
    /// Its mean deviation, in microseconds.
    pub tcpi_rttvar: u32,
    /// Payload of a full segment of the peer by the MSS that we announced, in bytes.
    pub tcpi_advmss: u32,
    /// Round-trip time as the receiver sees it, in microseconds; zero if none was measured.
    pub tcpi_rcv_rtt: u32,
    /// Bytes that the application is expected to read in a round trip.
    pub tcpi_rcv_space: u32,
    /// Bytes of ours that were acknowledged: our FIN counts as one, as in Linux.
    pub tcpi_bytes_acked: u64,
    /// Bytes received in sequence; the peer's FIN counts as one, as in Linux.
    pub tcpi_bytes_received: u64,
    /// Segments sent since the SYN-ACK.
    pub tcpi_segs_out: u32,
    /// Segments received, the SYN included.
    pub tcpi_segs_in: u32,
    /// Segments with payload received, whatever became of them.
    pub tcpi_data_segs_in: u32,
    /// Segments received out of order.
    pub tcpi_rcv_ooopack: u32,
    /// The window that the peer last advertised, in bytes.
    pub tcpi_snd_wnd: u32,
    /// The window that we last advertised, in bytes.
    pub tcpi_rcv_wnd: u32,
}

impl TcpInfo {
    /// Bit of [`Self::tcpi_options`]: timestamps (RFC 7323).
    pub const TIMESTAMPS: u8 = 1;
    /// Bit of [`Self::tcpi_options`]: SACK (RFC 2018).
    pub const SACK: u8 = 2;
    /// Bit of [`Self::tcpi_options`]: window scaling (RFC 7323).
    pub const WSCALE: u8 = 4;
    /// Bit of [`Self::tcpi_options`]: explicit congestion notification (RFC 3168).
    pub const ECN: u8 = 8;
    /// Bit of [`Self::tcpi_options`]: payload came whose sender takes part in it.
    pub const ECN_SEEN: u8 = 16;

    /// Bytes of `struct tcp_info` in Linux 6.18.
    pub const LEN: usize = 280;

    /// Laid out as `struct tcp_info` of Linux is, in the machine's byte order.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let Self {
            tcpi_state,
            tcpi_retransmits,
            tcpi_probes,
            tcpi_backoff,
            tcpi_options,
            tcpi_snd_wscale,
            tcpi_rcv_wscale,
            tcpi_rto,
            tcpi_ato,
            tcpi_snd_mss,
            tcpi_rcv_mss,
            tcpi_unacked,
            tcpi_last_ack_sent,
            tcpi_last_data_recv,
            tcpi_last_ack_recv,
            tcpi_pmtu,
            tcpi_rcv_ssthresh,
            tcpi_rtt,
            tcpi_rttvar,
            tcpi_advmss,
            tcpi_rcv_rtt,
            tcpi_rcv_space,
            tcpi_bytes_acked,
            tcpi_bytes_received,
            tcpi_segs_out,
            tcpi_segs_in,
            tcpi_data_segs_in,
            tcpi_rcv_ooopack,
            tcpi_snd_wnd,
            tcpi_rcv_wnd,
        } = *self;
        let mut bytes = [0; Self::LEN];
        let scales = tcpi_snd_wscale & 15 | tcpi_rcv_wscale << 4;
        for (at, byte) in [
            (0, tcpi_state),
            (2, tcpi_retransmits),
            (3, tcpi_probes),
            (4, tcpi_backoff),
            (5, tcpi_options),
            (6, scales),
        ] {
            bytes[at] = byte;
        }
        for (at, word) in [
            (8, tcpi_rto),
            (12, tcpi_ato),
            (16, tcpi_snd_mss),
            (20, tcpi_rcv_mss),
            (24, tcpi_unacked),
            (48, tcpi_last_ack_sent),
            (52, tcpi_last_data_recv),
            (56, tcpi_last_ack_recv),
            (60, tcpi_pmtu),
            (64, tcpi_rcv_ssthresh),
            (68, tcpi_rtt),
            (72, tcpi_rttvar),
            (84, tcpi_advmss),
            (92, tcpi_rcv_rtt),
            (96, tcpi_rcv_space),
            (136, tcpi_segs_out),
            (140, tcpi_segs_in),
            (152, tcpi_data_segs_in),
            (224, tcpi_rcv_ooopack),
            (228, tcpi_snd_wnd),
            (232, tcpi_rcv_wnd),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        for (at, long) in [(120, tcpi_bytes_acked), (128, tcpi_bytes_received)] {
            bytes[at..at + 8].copy_from_slice(&long.to_ne_bytes());
        }
        bytes
    }
}

/// What SO_MEMINFO tells of a socket, in bytes: Linux's fields, those of the sending side left out.
///
/// ```
/// use prequeue::tcp::tcb::MemInfo;
///
/// /// How full the receive buffer is, in percent.
/// fn fill(memory: &MemInfo) -> u32 {
///     (u64::from(memory.rmem_alloc) * 100 / u64::from(memory.rcvbuf.max(1))) as u32
/// }
/// assert_eq!(fill(&MemInfo { rmem_alloc: 64, rcvbuf: 128, drops: 0 }), 50);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MemInfo {
    /// Truesize of what was received and has not come back from readers.
    pub rmem_alloc: u32,
    /// Its limit.
    pub rcvbuf: u32,
    /// Segments dropped, for whatever reason.
    pub drops: u32,
}

/// What is added up for whoever asks, beside what the connection needs for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    family: Family,
    /// Segments without payload received, and those with.
    bare_segs: u32,
    data_segs: u32,
    pub(super) segs_out: u32,
    pub(super) out_of_order: u32,
    /// Segments dropped.
    drops: u32,
    /// Bytes received in sequence when the window was last advertised.
    received: u64,
    /// When an ACK last came.
    last_ack: Instant,
}

impl Tally {
    pub(super) fn new(now: Instant, opened: &Opened) -> Self {
        Self {
            family: opened.family,
            // The SYN.
            bare_segs: 1,
            data_segs: 0,
            segs_out: 0,
            out_of_order: 0,
            drops: 0,
            received: 0,
            last_ack: now,
        }
    }

    /// Segments with payload have come.
    #[inline(always)]
    pub(super) fn data(&mut self, segments: u32) {
        self.data_segs = self.data_segs.wrapping_add(segments);
    }

    /// A segment without payload has come.
    #[inline(always)]
    pub(super) fn bare(&mut self) {
        self.bare_segs = self.bare_segs.wrapping_add(1);
    }

    /// A segment was dropped.
    pub(super) fn dropped(&mut self) {
        self.drops = self.drops.wrapping_add(1);
    }

    /// An ACK has come that was looked at.
    #[inline]
    pub(super) fn heard_ack(&mut self, now: Instant) {
        self.last_ack = now;
    }

    /// Whether an ACK has told of payload.
    pub(super) const fn has_received(&self) -> bool {
        self.received != 0
    }

    /// The window is about to be advertised, `advance` behind where it last was.
    #[inline]
    pub(super) fn advertises(&mut self, advance: u32) {
        self.received += u64::from(advance);
        self.segs_out = self.segs_out.wrapping_add(1);
    }
}

impl State {
    /// The state as TCP_INFO numbers it.
    ///
    /// ```
    /// assert_eq!(prequeue::tcp::tcb::State::Established.number(), 1);
    /// ```
    pub const fn number(self) -> u8 {
        match self {
            Self::Established => 1,
            Self::FinWait1 => 4,
            Self::FinWait2 => 5,
            Self::TimeWait => 6,
            Self::Closed => 7,
            Self::CloseWait => 8,
            Self::LastAck => 9,
            Self::Closing => 11,
        }
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// What there is to tell at `now`.
    pub fn info(&self, now: Instant) -> TcpInfo {
        let since = |then: Instant| millis(now.since(then));
        let option = |agreed, bit| if agreed { bit } else { 0 };
        let advmss = self.ack.advmss;
        let our_fin = self.fin_is_sent();
        let fin_acked = our_fin && self.snd_una == self.snd_nxt;
        TcpInfo {
            tcpi_state: self.state.number(),
            tcpi_retransmits: self.closing.retries(),
            tcpi_probes: self.unanswered_probes(),
            tcpi_backoff: self.closing.retries(),
            tcpi_options: option(self.ts.is_some(), TcpInfo::TIMESTAMPS)
                | option(self.sack_ok, TcpInfo::SACK)
                | option(self.scaled, TcpInfo::WSCALE)
                | option(self.ecn.is_on(), TcpInfo::ECN)
                | option(self.ecn.is_seen(), TcpInfo::ECN_SEEN),
            tcpi_snd_wscale: self.snd_shift,
            tcpi_rcv_wscale: if self.scaled { self.window.shift() } else { 0 },
            tcpi_rto: self.closing.rto_ms().saturating_mul(1000),
            tcpi_ato: u32::from(self.ack.ato) * 1000,
            tcpi_snd_mss: u32::from(self.effective_mss(now).min(advmss)),
            tcpi_rcv_mss: self.rcv_mss(),
            tcpi_unacked: u32::from(our_fin && !fin_acked && self.state != State::Closed),
            tcpi_last_ack_sent: 0,
            tcpi_last_data_recv: since(self.ack.last_data()),
            tcpi_last_ack_recv: since(self.tally.last_ack),
            tcpi_pmtu: self.path_mtu(now).into(),
            tcpi_rcv_ssthresh: self.window.ssthresh,
            tcpi_rtt: self.closing.srtt().map_or(0, micros),
            tcpi_rttvar: micros(self.closing.rttvar()),
            tcpi_advmss: advmss.into(),
            tcpi_rcv_rtt: self.autotune.rtt_us(),
            tcpi_rcv_space: self.autotune.space(),
            tcpi_bytes_acked: fin_acked.into(),
            tcpi_bytes_received: self.tally.received
                + u64::from(self.rcv_nxt.since(self.window.wup)),
            tcpi_segs_out: self.tally.segs_out,
            tcpi_segs_in: self.tally.bare_segs.wrapping_add(self.tally.data_segs),
            tcpi_data_segs_in: self.tally.data_segs,
            tcpi_rcv_ooopack: self.tally.out_of_order,
            tcpi_snd_wnd: u32::from(self.snd_window) << self.snd_shift,
            tcpi_rcv_wnd: self.window.wnd,
        }
    }

    /// The version of IP that it goes by.
    pub(super) const fn family(&self) -> Family {
        self.tally.family
    }

    /// What SO_MEMINFO tells.
    pub fn mem_info(&self) -> MemInfo {
        MemInfo { rmem_alloc: self.rmem(), rcvbuf: self.rcvbuf(), drops: self.tally.drops }
    }

    /// The last moment that the connection knows of: when a segment came that it has looked at.
    pub fn last_heard_at(&self) -> Instant {
        self.ack.last_data().max(self.tally.last_ack)
    }

    /// In-sequence bytes behind `copied_seq`: what SIOCINQ tells, and Recv-Q.
    pub fn unread(&self, copied_seq: SeqNum) -> u32 {
        self.edge().offset_from(copied_seq).max(0) as u32
    }

    fn fin_is_sent(&self) -> bool {
        match self.state {
            State::Established | State::CloseWait => false,
            State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => true,
            // Nobody asks a closed connection what it has sent: but for an abort it was a FIN.
            State::Closed => self.error.is_none() && self.closing.has_sent_fin(),
        }
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
