//! What connections have from the listener that they are accepted from, as sockets of Linux do.
//!
//! Said when listening begins; each connection begins with it, before its first segment, on its lcore.
//! Nothing of it is looked at again: whoever has the stream may change it there.

use std::num::NonZeroU8;
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::tcb::{KeepAlive, LEAST_CLAMP, Linger2, Tcb};
use crate::tcp::{Cx, Settings};

use super::options::Options;

/// Options that the connections of a listener begin with.
///
/// Each is what the method of its name on [`TcpStream`](super::TcpStream) sets for one connection, and
/// means the same; by default all are as without a listener's wish.
///
/// ```
/// use std::time::Duration;
///
/// use prequeue::socket::SocketOptions;
/// use prequeue::tcp::tcb::KeepAlive;
///
/// let options = SocketOptions {
///     receive_buffer: Some(4 << 20),
///     keepalive: Some(KeepAlive::default()),
///     read_timeout: Some(Duration::from_secs(30)),
///     ..SocketOptions::default()
/// };
/// assert_eq!(options.low_latency, None, "as the setting tcp_low_latency says");
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SocketOptions {
    /// SO_RCVBUF in bytes, of which twice as many are granted: see
    /// [`set_receive_buffer`](super::TcpStream::set_receive_buffer). The handshake goes by it already, so
    /// that windows are scaled for a large one.
    pub receive_buffer: Option<u32>,
    /// SO_RCVLOWAT in bytes.
    pub receive_low_water: Option<u32>,
    /// SO_RCVTIMEO; zero is as none.
    pub read_timeout: Option<Duration>,
    /// SO_LINGER.
    pub linger: Option<Duration>,
    /// SO_OOBINLINE.
    pub out_of_band_inline: bool,
    /// SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT. Values that
    /// [`KeepAlive::is_valid`] refuses are as none.
    pub keepalive: Option<KeepAlive>,
    /// TCP_WINDOW_CLAMP in bytes. The handshake goes by it already.
    pub window_clamp: Option<u32>,
    /// TCP_USER_TIMEOUT.
    pub user_timeout: Option<Duration>,
    /// TCP_LINGER2.
    pub linger2: Linger2,
    /// IP_TOS; the SYN-ACK has none.
    pub tos: u8,
    /// IP_TTL; the SYN-ACK goes by the setting.
    pub ttl: Option<NonZeroU8>,
    /// Whether connections begin in low-latency mode; as the setting `tcp_low_latency` says if `None`.
    pub low_latency: Option<bool>,
}

impl SocketOptions {
    /// The settings that the connections of this listener go by, if they are others than the stack's.
    pub(crate) fn narrow(&self, settings: &Settings) -> Option<Settings> {
        let rcvbuf = settings.granted_rcvbuf(self.receive_buffer?);
        let mut narrowed = settings.clone();
        narrowed.tcp_rmem[1] = rcvbuf;
        Some(narrowed)
    }

    /// The largest window that the answer to a SYN is to make room for, in bytes; 0 if there is no limit.
    ///
    /// A buffer that was asked for is the largest there will be, and half of it is what payload is taken to
    /// be at first.
    pub(crate) fn first_clamp(&self, settings: &Settings) -> u32 {
        let clamp = self.window_clamp.map_or(0, |bytes| bytes.max(LEAST_CLAMP));
        let Some(asked) = self.receive_buffer else { return clamp };
        let full = settings.granted_rcvbuf(asked) / 2;
        if clamp == 0 { full } else { clamp.min(full) }
    }

    /// Has a connection that is being made begin with the options of the connection. Returns the
    /// low-water mark that was granted.
    pub(crate) fn apply<B: PacketBuf>(&self, cx: &Cx<'_>, tcb: &mut Tcb<B>) -> Option<u32> {
        let Self {
            receive_buffer,
            receive_low_water,
            read_timeout: _,
            linger: _,
            out_of_band_inline: _,
            keepalive,
            window_clamp,
            user_timeout,
            linger2,
            tos,
            ttl,
            low_latency: _,
        } = self;
        if receive_buffer.is_some() {
            tcb.keep_rcvbuf();
        }
        if let Some(bytes) = *window_clamp {
            // Unless the buffer holds less.
            tcb.set_window_clamp(bytes.min(tcb.window_clamp()));
        }
        if user_timeout.is_some() {
            tcb.set_user_timeout(*user_timeout);
        }
        if *linger2 != Linger2::Setting {
            tcb.set_linger2(*linger2);
        }
        if *tos != 0 {
            tcb.set_tos(*tos);
        }
        if ttl.is_some() {
            tcb.set_ttl(*ttl);
        }
        if let Some(keepalive) = keepalive.filter(KeepAlive::is_valid) {
            tcb.set_keepalive(Some(keepalive));
            tcb.on_options(cx);
        }
        receive_low_water.map(|bytes| tcb.make_room(bytes.max(1)))
    }

    /// Stores the options that calls look at.
    pub(super) fn store(&self, low_water: Option<u32>, options: &Options) {
        if let Some(low_water) = low_water {
            options.set_low_water(low_water);
        }
        if self.read_timeout.is_some_and(|timeout| !timeout.is_zero()) {
            options.set_timeout(self.read_timeout);
        }
        if self.out_of_band_inline {
            options.set_urgent_inline(true);
        }
    }
}
