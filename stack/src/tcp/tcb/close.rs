//! Closing: FINs of both sides, resets, orphans, and the retransmission of our FIN.
//!
//! Driven by segments, timers and the application's wishes, on the lcore. The FIN is all this
//! stack ever retransmits, so RFC 6298 and the tail loss probe of RFC 8985 are here in their
//! smallest form.

use std::time::Duration;

use crate::buf::{BufQueue, PacketBuf};
use crate::tcp::sack::SackList;
use crate::tcp::time_wait::{Ending, Phase, TIME_WAIT};
use crate::tcp::{Counter, Cx, SeqNum, reset};
use crate::time::Instant;
use crate::wire::{Flags, Outgoing, Segment};

use super::{ConnError, Linger2, NEVER, Owed, State, Tcb, UNPREDICTABLE, Verdict};

/// When a FIN is probed for before a round trip was measured (RFC 8985 §7.2).
const PROBE_INITIAL: u32 = 1000;

/// Retransmission timeout where the handshake has measured no round trip, because its SYN-ACK had to
/// be repeated or nothing is known of when it left (RFC 6298 §5.7).
const RTO_UNMEASURED: u32 = 3000;

/// Least retransmission timeout, in milliseconds. RFC 6298 §2.4 asks for a second; Linux has used
/// this for decades.
const RTO_MIN: u32 = 200;

/// The most that a measured round trip may make of it; the setting may ask for less.
const RTO_MAX: u32 = crate::tcp::settings::RTO_MAX.as_millis() as u32;

/// Retransmissions of an orphan's FIN if the setting is zero, unless the timeout is at its most.
const ORPHAN_RETRIES: u8 = 8;

/// What closing needs to remember: the timers of our FIN and of FIN-WAIT-2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    /// Retransmission of the FIN, or the end of a long FIN-WAIT-2; while no FIN of ours is under way,
    /// the next look at whether the peer is alive.
    pub(super) deadline: Instant,
    /// When our FIN was first sent; from then on when its timeout first made us repeat it, which limits
    /// are counted from.
    fin_sent: Instant,
    /// Smoothed round-trip time in microseconds; zero while unknown.
    srtt_us: u32,
    rttvar_us: u32,
    /// Retransmission timeout in milliseconds, backed off.
    rto: u32,
    /// Retransmissions of the FIN by its timeout so far.
    retries: u8,
    /// The deadline is that of a tail loss probe.
    probes: bool,
    /// The FIN was sent more than once: its ACK measures nothing (RFC 6298 §3).
    repeated: bool,
}

impl Closing {
    pub(super) fn new(rtt: Option<Duration>) -> Self {
        let mut closing = Self {
            deadline: NEVER,
            fin_sent: Instant::ZERO,
            srtt_us: 0,
            rttvar_us: 0,
            rto: RTO_UNMEASURED,
            retries: 0,
            probes: false,
            repeated: false,
        };
        if let Some(rtt) = rtt {
            closing.sample(rtt);
        }
        closing
    }

    /// RFC 6298 §2.2 and §2.3.
    fn sample(&mut self, rtt: Duration) {
        let rtt = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).clamp(1, RTO_MAX * 1000);
        if self.srtt_us == 0 {
            self.srtt_us = rtt;
            self.rttvar_us = rtt / 2;
        } else {
            let error = self.srtt_us.abs_diff(rtt);
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + error / 4;
            self.srtt_us = (self.srtt_us - self.srtt_us / 8 + rtt / 8).max(1);
        }
        let margin = (4 * u64::from(self.rttvar_us)).max(u64::from(RTO_MIN) * 1000);
        let rto = (u64::from(self.srtt_us) + margin).div_ceil(1000);
        self.rto = u32::try_from(rto).unwrap_or(RTO_MAX).min(RTO_MAX);
    }

    /// The retransmission timeout in milliseconds.
    pub(super) const fn rto_ms(&self) -> u32 {
        self.rto
    }

    /// The smoothed round-trip time, if one was measured.
    pub(super) fn srtt(&self) -> Option<Duration> {
        (self.srtt_us != 0).then(|| Duration::from_micros(u64::from(self.srtt_us)))
    }

    /// The same in whole milliseconds.
    pub(super) fn srtt_ms(&self) -> Option<u32> {
        (self.srtt_us != 0).then_some(self.srtt_us / 1000)
    }

    /// Its mean deviation.
    pub(super) fn rttvar(&self) -> Duration {
        Duration::from_micros(u64::from(self.rttvar_us))
    }

    /// Retransmissions of the FIN by its timeout so far.
    pub(super) const fn retries(&self) -> u8 {
        self.retries
    }

    /// Whether a FIN of ours was ever sent.
    pub(super) fn has_sent_fin(&self) -> bool {
        self.fin_sent != Instant::ZERO
    }

    /// Arms for the next retransmission, `patience` being for how long the FIN may be repeated.
    fn arm(&mut self, now: Instant, patience: Option<Duration>) {
        let rto = now + Duration::from_millis(u64::from(self.rto));
        let repeats = patience.filter(|_| self.retries != 0);
        let end = repeats.map_or(NEVER, |patience| self.fin_sent + patience);
        // Past its end it is given up with the next expiry.
        self.deadline = rto.min(end.max(now));
    }

    /// Arms for a tail loss probe (RFC 8985 §7.2): two round trips, and what the peer may delay the
    /// ACK of a single segment, but no later than the timeout. Linux takes its least timeout for
    /// the peer's delay.
    fn arm_probe(&mut self, now: Instant) {
        let probe = match self.srtt_us {
            0 => PROBE_INITIAL,
            srtt => srtt.saturating_mul(2).div_ceil(1000) + RTO_MIN,
        };
        self.deadline = now + Duration::from_millis(u64::from(probe.min(self.rto)));
        self.probes = true;
    }

    /// Doubles the timeout, up to `most` milliseconds (RFC 6298 §5.5).
    fn back_off(&mut self, most: u32) {
        self.retries = self.retries.saturating_add(1);
        self.rto = self.rto.saturating_mul(2).min(most);
    }
}

/// How long so many retransmissions and the timeout after them would take from the first on, had the timeout begun
/// at its least. This is how Linux reads its limits: on a distant path there are fewer in that time.
fn span_of(retransmissions: u8, most: Duration) -> Duration {
    let timeouts = std::iter::successors(Some(Duration::from_millis(u64::from(RTO_MIN))), |rto| {
        Some((*rto * 2).min(most))
    });
    timeouts.take(usize::from(retransmissions) + 1).sum()
}

/// `tcp_rto_max_ms`, in milliseconds.
fn rto_max(cx: &Cx<'_>) -> u32 {
    u32::try_from(cx.settings.tcp_rto_max_ms.as_millis()).unwrap_or(RTO_MAX)
}

impl<B: PacketBuf> Tcb<B> {
    /// The application will not read any more. Nothing is sent; data that comes is still taken
    /// until both directions are shut, then it resets the connection.
    pub fn shutdown_read(&mut self) {
        self.wants.read_shut = true;
    }

    /// The application will not write any more: the FIN that tells the peer, once.
    pub fn shutdown_write(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait
            | State::Closed => return None,
        };
        cx.counters.lower(Counter::CurrEstab);
        self.prediction = UNPREDICTABLE;
        self.snd_nxt = self.snd_nxt.plus(1);
        self.closing.fin_sent = cx.now;
        if self.sack_ok {
            self.closing.arm_probe(cx.now);
        } else {
            self.closing.arm(cx.now, self.user_timeout());
        }
        Some(self.outgoing_fin(cx))
    }

    /// The last handle is gone, having read up to `copied_seq`.
    ///
    /// In-sequence data that nobody read means RST instead of FIN (RFC 9293 §3.6.1, SHLD-3);
    /// out-of-order data does not. `linger_zero` (SO_LINGER with zero seconds) means RST as well.
    /// From now on the connection is an orphan: new data resets it, and its FIN is repeated less
    /// often.
    pub fn close(
        &mut self,
        cx: &mut Cx<'_>,
        copied_seq: SeqNum,
        linger_zero: bool,
    ) -> Option<Outgoing> {
        self.wants.read_shut = true;
        self.wants.orphan = true;
        let unread = copied_seq.before(self.edge());
        self.drop_receive_queue();
        if matches!(self.state, State::TimeWait | State::Closed) {
            return None;
        }
        if unread {
            cx.counters.bump(Counter::TCPAbortOnClose);
            let rst = self.outgoing_rst(cx);
            self.die(cx, None);
            return Some(rst);
        }
        if linger_zero {
            cx.counters.bump(Counter::TCPAbortOnData);
            return self.abort(cx);
        }
        if self.state == State::FinWait2 {
            if self.linger2() == Linger2::Reset {
                cx.counters.bump(Counter::TCPAbortOnLinger);
                return self.abort(cx);
            }
            self.wait_as_orphan(cx);
        }
        self.shutdown_write(cx)
    }

    /// Ends the connection at once, by RST unless both sides have said FIN already. Queued data
    /// stays readable.
    pub fn abort(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        let rst = match self.state {
            State::Established | State::CloseWait | State::FinWait1 | State::FinWait2 => {
                Some(self.outgoing_rst(cx))
            }
            State::Closing | State::LastAck | State::TimeWait | State::Closed => None,
        };
        self.die(cx, None);
        rst
    }

    /// Ends an orphan because there are too many (tcp_max_orphans), or no memory for them.
    pub fn abort_orphan(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        cx.counters.bump(Counter::TCPAbortOnMemory);
        self.abort(cx)
    }

    /// Whether [`Self::close`] was called: the connection counts against tcp_max_orphans until it
    /// is closed or replaced.
    pub const fn is_orphan(&self) -> bool {
        self.wants.orphan
    }

    /// What is left to the small record that replaces the connection on the wire, when one can:
    /// in TIME-WAIT, and for an orphan in FIN-WAIT-2 of which at most a minute is left.
    pub fn time_wait(&self, settings: &crate::tcp::Settings) -> Option<Ending> {
        let phase = match self.state {
            State::TimeWait => Phase::TimeWait,
            State::FinWait2 if self.wants.orphan && self.closing.deadline == NEVER => {
                Phase::FinWait2(self.orphan_life(settings).min(TIME_WAIT))
            }
            _ => return None,
        };
        Some(Ending {
            snd_nxt: self.snd_nxt,
            rcv_nxt: self.rcv_nxt,
            rcv_wnd: self.offered_window(),
            rcv_wscale: self.window.shift(),
            ts: self.ts,
            tos: self.tos(),
            ttl: self.ttl(),
            phase,
        })
    }

    /// A deadline has passed: call again until there is nothing more to send.
    pub fn on_timer(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        if self.ack.deadline <= cx.now
            && let Some(ack) = self.on_ack_deadline(cx)
        {
            return Some(ack);
        }
        if self.closing.deadline > cx.now {
            return None;
        }
        let out = self.on_close_deadline(cx);
        self.check();
        out
    }

    fn on_close_deadline(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        self.closing.deadline = NEVER;
        match self.state {
            State::FinWait1 | State::Closing | State::LastAck => {}
            // The long part of an orphan's FIN-WAIT-2 is over: a record takes the rest.
            State::FinWait2 if self.wants.orphan => return None,
            State::Established | State::CloseWait | State::FinWait2 => {
                return self.on_keepalive_deadline(cx);
            }
            State::TimeWait | State::Closed => return None,
        }
        self.closing.repeated = true;
        if std::mem::take(&mut self.closing.probes) {
            // RFC 8985 §7.3: the probe is the last segment sent, and the timeout starts anew.
            cx.counters.bump(Counter::TCPLossProbes);
            cx.counters.bump(Counter::RetransSegs);
            self.closing.arm(cx.now, self.user_timeout());
            return Some(self.outgoing_fin(cx));
        }
        cx.counters.bump(Counter::TCPTimeouts);
        if self.is_given_up(cx) {
            // In silence, as Linux does: who has not answered for so long would not hear a RST.
            cx.counters.bump(Counter::TCPAbortOnTimeout);
            self.die(cx, Some(self.time_out()));
            return None;
        }
        cx.counters.bump(Counter::RetransSegs);
        if self.closing.retries == 0 {
            self.closing.fin_sent = cx.now;
        }
        self.closing.back_off(rto_max(cx));
        self.closing.arm(cx.now, self.user_timeout());
        Some(self.outgoing_fin(cx))
    }

    /// Whether our FIN has been repeated for long enough: as long as the application has said, or as so many
    /// retransmissions would take.
    fn is_given_up(&self, cx: &Cx<'_>) -> bool {
        if self.closing.retries == 0 {
            return false;
        }
        let span = match self.user_timeout() {
            Some(patience) => patience,
            None => span_of(self.most_retries(cx), cx.settings.tcp_rto_max_ms),
        };
        cx.now >= self.closing.fin_sent + span
    }

    fn most_retries(&self, cx: &Cx<'_>) -> u8 {
        let settings = cx.settings;
        match (self.wants.orphan, settings.tcp_orphan_retries) {
            (false, _) => settings.tcp_retries2,
            (true, 0) if self.closing.rto >= rto_max(cx) => 0,
            (true, 0) => ORPHAN_RETRIES,
            (true, retries) => retries,
        }
    }

    /// The peer's FIN is in sequence (RFC 9293 §3.10.7.4, eighth step). What lies behind it does
    /// not belong to the stream.
    pub(super) fn on_fin(&mut self) {
        self.rcv_nxt = self.rcv_nxt.plus(1);
        self.wants.eof = true;
        match self.state {
            State::Established => {
                self.state = State::CloseWait;
                // Our FIN may follow soon and carry the ACK.
                self.ack.pingpong = true;
                self.ack.owe(Owed::ACK);
            }
            State::FinWait1 => {
                self.state = State::Closing;
                self.ack.owe(Owed::NOW);
            }
            State::FinWait2 => {
                self.state = State::TimeWait;
                self.closing.deadline = NEVER;
                self.ack.owe(Owed::NOW);
            }
            State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait
            | State::Closed => {}
        }
        self.drop_out_of_order();
        // There is nothing left that the peer would have to send: Linux forgets the duplicate too.
        self.dsack = None;
        self.prediction = UNPREDICTABLE;
    }

    /// The ACK field covers our FIN.
    pub(super) fn on_fin_acked(&mut self, cx: &mut Cx<'_>, seg: &Segment) -> Result<(), Verdict> {
        if !self.closing.repeated {
            self.closing.sample(cx.now.since(self.closing.fin_sent));
        }
        self.closing.deadline = NEVER;
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                if !self.wants.orphan {
                    self.arm_keepalive(cx);
                } else if self.linger2() == Linger2::Reset {
                    cx.counters.bump(Counter::TCPAbortOnData);
                    self.die(cx, None);
                    return Err(reset::reply(seg).map_or(Verdict::Later, Verdict::Send));
                } else {
                    self.wait_as_orphan(cx);
                    // Nobody is left whom old data could concern: like Linux we do not answer it, but for
                    // a FIN.
                    let is_old = SeqNum::new(seg.end_seq()).at_or_before(self.rcv_nxt);
                    let is_fin = seg.flags.has(Flags::FIN);
                    if self.closing.deadline == NEVER && is_old && !is_fin {
                        return Err(Verdict::Later);
                    }
                }
                Ok(())
            }
            State::Closing => {
                self.state = State::TimeWait;
                Err(Verdict::Later)
            }
            State::LastAck => {
                self.die(cx, None);
                Err(Verdict::Later)
            }
            State::Established
            | State::CloseWait
            | State::FinWait2
            | State::TimeWait
            | State::Closed => Ok(()),
        }
    }

    /// Starts the part of an orphan's FIN-WAIT-2 that is longer than a record may last.
    fn wait_as_orphan(&mut self, cx: &Cx<'_>) {
        let life = self.orphan_life(cx.settings);
        self.closing.deadline = if life > TIME_WAIT { cx.now + (life - TIME_WAIT) } else { NEVER };
    }

    /// How long an orphan waits for the peer's FIN: what the application has asked for, else
    /// tcp_fin_timeout, but 3.5 timeouts at least.
    fn orphan_life(&self, settings: &crate::tcp::Settings) -> Duration {
        let rto = Duration::from_millis(u64::from(self.closing.rto));
        let asked = match self.linger2() {
            Linger2::For(span) => span,
            Linger2::Setting | Linger2::Reset => settings.tcp_fin_timeout,
        };
        asked.max(rto * 7 / 2)
    }

    /// The connection is over. Queued data stays readable, unless nobody is left to read it.
    pub(super) fn die(&mut self, cx: &mut Cx<'_>, error: Option<ConnError>) {
        if matches!(self.state, State::Established | State::CloseWait) {
            cx.counters.bump(Counter::EstabResets);
            cx.counters.lower(Counter::CurrEstab);
        }
        self.state = State::Closed;
        self.error = self.error.or(error);
        self.prediction = UNPREDICTABLE;
        self.ack.settle();
        self.dsack = None;
        self.closing.deadline = NEVER;
        self.drop_out_of_order();
    }

    fn drop_out_of_order(&mut self) {
        let freed = self.ofo.clear();
        self.window.uncharge(freed);
        self.sack = SackList::new();
    }

    fn drop_receive_queue(&mut self) {
        let queue = self.take_receive_queue();
        let freed = queue.iter().map(B::truesize).sum();
        self.window.uncharge(freed);
    }

    /// Our FIN, first or again; it carries the ACK.
    fn outgoing_fin(&mut self, cx: &mut Cx<'_>) -> Outgoing {
        let ack = self.outgoing_ack(cx);
        let flags = ack.flags.with(Flags::FIN);
        Outgoing { seq: self.snd_nxt.minus(1).raw(), flags, ..ack }
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=RST,ACK>`, with the options that any ACK would carry.
    pub(super) fn outgoing_rst(&mut self, cx: &mut Cx<'_>) -> Outgoing {
        self.tally.segs_out += 1;
        let target = self.window_target();
        let no_memory = self.ack.owed.has(Owed::NO_MEMORY);
        let window = self.window.advertise(cx, self.rcv_nxt, target, no_memory);
        Outgoing {
            seq: self.snd_nxt.raw(),
            ack: self.rcv_nxt.raw(),
            flags: Flags::RST.with(Flags::ACK).with(self.ecn.echo()),
            window,
            ts: self.ts.map(|ts| ts.option(cx.now)),
            sack: self.take_sack_blocks(),
            tos: self.tos(),
            ttl: self.ttl(),
            ..Outgoing::default()
        }
    }
}
