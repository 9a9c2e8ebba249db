//! Keepalive: probing a peer that has been silent for long (RFC 9293 §3.8.4), off unless asked for.
//!
//! Run by the lcore: its deadline is the one that our FIN would use, which is never under way at the
//! same time. A look at the clock when the deadline has passed, nothing per segment but noting when
//! an ACK came.

use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::{Counter, Cx, Settings};
use crate::time::Instant;
use crate::wire::Outgoing;

use super::{NEVER, State, Tcb};

/// When a silent peer is probed, and given up (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT). What is `None`,
/// as all is by default, is as the settings `tcp_keepalive_time`, `tcp_keepalive_intvl` and
/// `tcp_keepalive_probes` say: after two hours nine probes, 75 seconds apart.
///
/// ```
/// use std::time::Duration;
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
/// use prequeue::tcp::tcb::KeepAlive;
///
/// /// Notices within three minutes that the peer has vanished.
/// fn watch(stream: &TcpStream<HeapBuf>) -> std::io::Result<()> {
///     let (idle, interval) = (Duration::from_secs(120), Duration::from_secs(15));
///     stream.set_keepalive(Some(KeepAlive::new(idle, interval, 4)))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeepAlive {
    /// Silence before the first probe; 1 to 32767 seconds.
    pub idle: Option<Duration>,
    /// Between probes; 1 to 32767 seconds.
    pub interval: Option<Duration>,
    /// Probes without an answer after which the peer is given up; 1 to 127.
    pub probes: Option<u8>,
}

impl KeepAlive {
    /// One that says everything itself.
    pub const fn new(idle: Duration, interval: Duration, probes: u8) -> Self {
        Self { idle: Some(idle), interval: Some(interval), probes: Some(probes) }
    }

    /// Whether Linux would take these values.
    pub fn is_valid(&self) -> bool {
        let spans = Duration::from_secs(1)..=Duration::from_secs(32_767);
        let Self { idle, interval, probes } = self;
        idle.is_none_or(|idle| spans.contains(&idle))
            && interval.is_none_or(|interval| spans.contains(&interval))
            && probes.is_none_or(|probes| (1..=127).contains(&probes))
    }

    fn idle(&self, settings: &Settings) -> Duration {
        self.idle.unwrap_or(settings.tcp_keepalive_time)
    }
}

/// The state of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keeping {
    what: Option<KeepAlive>,
    /// Set since the lcore last looked.
    changed: bool,
    /// Probes since the peer was last heard.
    unanswered: u8,
    last_probe: Instant,
    /// When an ACK last came, or keepalive was turned on.
    last_ack: Instant,
}

impl Keeping {
    /// Whether it was changed; then silence counts from now on.
    pub(super) fn take_changed(&mut self, now: Instant) -> bool {
        if self.changed {
            self.last_ack = now;
            self.unanswered = 0;
        }
        std::mem::take(&mut self.changed)
    }
}

impl<B: PacketBuf> Tcb<B> {
    /// Has the peer be probed when it is silent, or not any more.
    pub fn set_keepalive(&mut self, keepalive: Option<KeepAlive>) {
        let keeping = &mut self.asked_mut().keeping;
        keeping.what = keepalive;
        keeping.changed = true;
    }

    /// What [`Self::set_keepalive`] has set.
    pub fn keepalive(&self) -> Option<KeepAlive> {
        self.asked.as_ref().and_then(|asked| asked.keeping.what)
    }

    /// The peer has acknowledged something, new or not.
    #[inline]
    pub(super) fn heard_ack(&mut self, now: Instant) {
        self.tally.heard_ack(now);
        if let Some(asked) = &mut self.asked {
            asked.keeping.last_ack = now;
        }
    }

    /// Sets when to look next, unless the deadline is needed for our FIN.
    pub(super) fn arm_keepalive(&mut self, cx: &Cx<'_>) {
        if !self.may_be_silent() {
            return;
        }
        self.closing.deadline = match self.keepalive() {
            Some(what) => (self.last_heard() + what.idle(cx.settings)).max(cx.now),
            None => NEVER,
        };
    }

    /// The deadline has passed.
    pub(super) fn on_keepalive_deadline(&mut self, cx: &mut Cx<'_>) -> Option<Outgoing> {
        let heard = self.last_heard();
        let asked = self.asked.as_mut()?;
        let user_timeout = u64::from(asked.user_timeout_ms);
        let keeping = &mut asked.keeping;
        let what = keeping.what?;
        let idle = what.idle(cx.settings);
        let interval = what.interval.unwrap_or(cx.settings.tcp_keepalive_intvl);
        let probes = what.probes.unwrap_or(cx.settings.tcp_keepalive_probes);
        if heard > keeping.last_probe {
            keeping.unanswered = 0;
        }
        if cx.now < heard + idle {
            self.closing.deadline = heard + idle;
            return None;
        }
        let is_given_up = match user_timeout {
            0 => keeping.unanswered >= probes,
            ms => keeping.unanswered > 0 && cx.now >= heard + Duration::from_millis(ms),
        };
        if is_given_up {
            cx.counters.bump(Counter::TCPAbortOnTimeout);
            let rst = self.outgoing_rst(cx);
            self.die(cx, Some(self.time_out()));
            return Some(rst);
        }
        keeping.unanswered += 1;
        keeping.last_probe = cx.now;
        self.closing.deadline = cx.now + interval;
        cx.counters.bump(Counter::TCPKeepAlive);
        // A number that the peer has acknowledged: it answers where it stands.
        let ack = self.outgoing_ack(cx);
        Some(Outgoing { seq: self.snd_una.minus(1).raw(), ..ack })
    }

    /// Probes that the peer has not answered.
    pub(super) fn unanswered_probes(&self) -> u8 {
        self.asked.as_ref().map_or(0, |asked| asked.keeping.unanswered)
    }

    fn last_heard(&self) -> Instant {
        let last_ack = self.asked.as_ref().map_or(Instant::ZERO, |asked| asked.keeping.last_ack);
        last_ack.max(self.ack.last_data())
    }

    /// Whether nothing of ours waits for an answer, in a connection that the application still holds.
    fn may_be_silent(&self) -> bool {
        matches!(self.state, State::Established | State::CloseWait | State::FinWait2)
            && !self.wants.orphan
    }
}
