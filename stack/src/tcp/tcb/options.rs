//! What the application asks of its connection, and what it may ask for.
//!
//! Set by application threads that own the socket for a moment, which must not know the time or send
//! anything: the lcore, rung afterwards, does what follows from it. Buffer, window, how long to wait
//! for a peer that does not answer; most connections ask for nothing and keep a pointer's worth.

use std::num::NonZeroU8;
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::settings::{LEAST_RCVBUF, granted_rcvbuf};
use crate::tcp::{Cx, Settings};

use super::Tcb;
use super::keepalive::Keeping;
use super::path::Path;

/// The least limit of the window.
pub(crate) const LEAST_CLAMP: u32 = LEAST_RCVBUF / 2;

/// Longer than this no orphan waits by wish of the application.
const MOST_LINGER2: Duration = Duration::from_secs(120);

/// The ECN bits of the former type of service: not the application's to set (RFC 3168 §5).
const ECN_BITS: u8 = 0x03;

/// How long a connection whose application has gone waits for the peer's FIN (TCP_LINGER2).
///
/// ```
/// use std::time::Duration;
///
/// use prequeue::buf::HeapBuf;
/// use prequeue::socket::TcpStream;
/// use prequeue::tcp::tcb::Linger2;
///
/// fn soon(stream: &TcpStream<HeapBuf>) -> std::io::Result<()> {
///     stream.set_linger2(Linger2::For(Duration::from_secs(5)))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Linger2 {
    /// As long as the setting `tcp_fin_timeout` says.
    #[default]
    Setting,
    /// So long; at most two minutes.
    For(Duration),
    /// Not at all: the connection is reset (a negative value in Linux).
    Reset,
}

/// What of the stack's settings limits the application's wishes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The largest SO_RCVBUF that can be asked for.
    rmem_max: u32,
    /// The largest buffer that connections get otherwise.
    rmem_most: u32,
    /// Seconds for which a lowered path MTU is remembered.
    mtu_expires: u32,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        let mtu_expires = u32::try_from(settings.mtu_expires.as_secs()).unwrap_or(u32::MAX);
        Self { rmem_max: settings.rmem_max, rmem_most: settings.tcp_rmem[2], mtu_expires }
    }

    pub(super) const fn mtu_expires(&self) -> Duration {
        Duration::from_secs(self.mtu_expires as u64)
    }
}

/// What the application has asked for, and what else few connections have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// SO_RCVBUF was set: nothing else changes the buffer.
    rcvbuf_is_set: bool,
    /// TCP_USER_TIMEOUT in milliseconds; 0 if there is none.
    pub(super) user_timeout_ms: u32,
    linger2: Linger2,
    /// IP_TOS, without its ECN bits.
    tos: u8,
    /// IP_TTL, if it was set.
    ttl: Option<NonZeroU8>,
    pub(super) keeping: Keeping,
    pub(super) path: Path,
}

impl<B: PacketBuf> Tcb<B> {
    pub(super) fn asked_mut(&mut self) -> &mut Asked {
        self.asked.get_or_insert_default()
    }

    /// Whether the application has set the buffer: nothing else changes it then.
    pub(super) fn rcvbuf_is_set(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.rcvbuf_is_set)
    }

    /// Limits the memory that unread data may take (SO_RCVBUF). As in Linux twice as many bytes of
    /// truesize are granted as were asked for, at most twice the setting `rmem_max`, and at least 2304.
    pub fn set_rcvbuf(&mut self, bytes: u32) {
        let granted = granted_rcvbuf(bytes, self.limits.rmem_max);
        self.asked_mut().rcvbuf_is_set = true;
        self.window.resize(granted);
        self.check();
    }

    /// The buffer that the connection began with was asked for: nothing else changes it.
    #[cfg(not(loom))] // for listeners, which the models do without
    pub(crate) fn keep_rcvbuf(&mut self) {
        self.asked_mut().rcvbuf_is_set = true;
    }

    /// Has the window opened no further than this (TCP_WINDOW_CLAMP), 1152 bytes at least. What was
    /// offered already stays offered. As in Linux 6.18 the limit is gone as soon as segments of another
    /// size show how much of a buffer they fill.
    pub fn set_window_clamp(&mut self, bytes: u32) {
        self.window.clamp_to(bytes.max(LEAST_CLAMP));
        self.check();
    }

    /// The limit of the window in bytes.
    pub const fn window_clamp(&self) -> u32 {
        self.window.clamp
    }

    /// Makes room for so many bytes to be waited for (SO_RCVLOWAT); how many can be. As in Linux half
    /// of the largest buffer, or half of the one that was asked for, which then is not changed.
    pub fn make_room(&mut self, low_water: u32) -> u32 {
        let is_set = self.rcvbuf_is_set();
        let most = if is_set { self.window.rcvbuf } else { self.limits.rmem_most } / 2;
        let low_water = low_water.min(most).max(1);
        let needed = u32::try_from(self.window.space_of(low_water)).unwrap_or(u32::MAX);
        if !is_set {
            self.window.widen(needed);
            self.check();
        }
        low_water
    }

    /// How long the peer may leave our FIN or our probes unanswered (TCP_USER_TIMEOUT), in place of a
    /// number of repetitions; whole milliseconds, `None` for that number.
    pub fn set_user_timeout(&mut self, patience: Option<Duration>) {
        let ms = patience.map_or(0, |patience| patience.as_millis().max(1));
        self.asked_mut().user_timeout_ms = u32::try_from(ms).unwrap_or(u32::MAX);
    }

    /// What [`Self::set_user_timeout`] has set.
    pub fn user_timeout(&self) -> Option<Duration> {
        let ms = self.asked.as_ref().map_or(0, |asked| asked.user_timeout_ms);
        (ms != 0).then(|| Duration::from_millis(ms.into()))
    }

    /// How long the connection waits for the peer's FIN once its application has gone.
    pub fn set_linger2(&mut self, linger2: Linger2) {
        self.asked_mut().linger2 = match linger2 {
            Linger2::For(Duration::ZERO) => Linger2::Setting,
            Linger2::For(span) => Linger2::For(span.min(MOST_LINGER2)),
            other => other,
        };
    }

    /// What [`Self::set_linger2`] has set.
    pub fn linger2(&self) -> Linger2 {
        self.asked.as_ref().map_or(Linger2::Setting, |asked| asked.linger2)
    }

    /// The Diffserv field of what is sent from now on (IP_TOS): the upper six bits, the others stay clear.
    pub fn set_tos(&mut self, tos: u8) {
        self.asked_mut().tos = tos & !ECN_BITS;
    }

    /// What [`Self::set_tos`] has set; 0 at the beginning.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.asked.as_ref().map_or(0, |asked| asked.tos)
    }

    /// The time to live, or hop limit, of what is sent from now on (IP_TTL); `None` for the setting
    /// `ip_default_ttl`, as at the beginning.
    pub fn set_ttl(&mut self, ttl: Option<NonZeroU8>) {
        self.asked_mut().ttl = ttl;
    }

    /// What [`Self::set_ttl`] has set.
    #[inline]
    pub fn ttl(&self) -> Option<NonZeroU8> {
        self.asked.as_ref().and_then(|asked| asked.ttl)
    }

    /// Whether ACKs are sent at once at present: see [`Self::set_quick_ack`].
    pub const fn is_quick_ack(&self) -> bool {
        !self.ack.pingpong
    }

    /// The application may have asked for something since the last time: starts what takes time.
    /// [`Self::reader_progress`] is due.
    pub fn on_options(&mut self, cx: &Cx<'_>) {
        if let Some(asked) = &mut self.asked
            && asked.keeping.take_changed(cx.now)
        {
            self.arm_keepalive(cx);
        }
    }
}
