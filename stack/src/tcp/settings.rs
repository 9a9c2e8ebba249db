//! The settings of the receive path under their sysctl names, with the defaults of Linux 6.18.

use std::time::Duration;

/// Stack-wide settings. Fields carry the sysctl's name; units are in the comment of each.
///
/// ```
/// use std::time::Duration;
///
/// use prequeue::tcp::Settings;
///
/// let settings = Settings {
///     tcp_rmem: [4096, 4 << 20, 32 << 20],
///     tcp_fin_timeout: Duration::from_secs(10),
///     ..Settings::default()
/// };
/// assert!(settings.tcp_sack);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Receive buffer in bytes of truesize: least, initial, most. Buffers keep their initial size;
    /// the most decides on the window scale that is offered.
    pub tcp_rmem: [u32; 3],
    /// Largest value that SO_RCVBUF may ask for, in bytes: decides on the window scale, too.
    pub rmem_max: u32,
    /// Offer and accept timestamps (RFC 7323).
    pub tcp_timestamps: bool,
    /// Offer and accept window scaling (RFC 7323).
    pub tcp_window_scaling: bool,
    /// Accept SACK (RFC 2018).
    pub tcp_sack: bool,
    /// Report duplicates by DSACK (RFC 2883).
    pub tcp_dsack: bool,
    /// Listen backlogs are cut to this.
    pub somaxconn: u32,
    /// Bound on half-open connections of a listener besides its backlog, where there are no cookies.
    pub tcp_max_syn_backlog: u32,
    /// When SYNs are answered with cookies.
    pub tcp_syncookies: SynCookies,
    /// SYN-ACKs are sent again this often.
    pub tcp_synack_retries: u8,
    /// Retransmission timeouts grow up to this, at most [`RTO_MAX`] and at least a second.
    pub tcp_rto_max_ms: Duration,
    /// Answer a final ACK that meets a full accept queue with RST.
    pub tcp_abort_on_overflow: bool,
    /// How long an orphan stays in FIN-WAIT-2.
    pub tcp_fin_timeout: Duration,
    /// Orphans beyond this number are reset.
    pub tcp_max_orphans: u32,
    /// Retransmissions of an orphan's FIN; 0 means 8.
    pub tcp_orphan_retries: u8,
    /// Retransmissions of a FIN while the application still holds the socket.
    pub tcp_retries2: u8,
    /// TIME-WAIT entries beyond this number are not made.
    pub tcp_max_tw_buckets: u32,
    /// Ignore RST in TIME-WAIT (RFC 1337).
    pub tcp_rfc1337: bool,
    /// Replies to invalid segments are at least this far apart, per connection.
    pub tcp_invalid_ratelimit: Duration,
    /// Connections begin without a prequeue: the lcore copies straight to readers that wait. Without
    /// effect in a `LocalStack`, where nobody waits.
    pub tcp_low_latency: bool,
    /// Take the urgent pointer as RFC 1122 has it instead of BSD's way.
    pub tcp_stdurg: bool,
}

/// The most that `tcp_rto_max_ms` may be, and its default.
pub const RTO_MAX: Duration = Duration::from_secs(120);

/// `tcp_syncookies`: when a SYN is answered with a cookie (RFC 4987 §3.6) instead of being kept.
///
/// ```
/// use prequeue::tcp::{Settings, SynCookies};
///
/// assert_eq!(Settings::default().tcp_syncookies, SynCookies::OnOverflow);
/// assert_eq!(SynCookies::from_sysctl(2), Some(SynCookies::Always));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SynCookies {
    /// Never: SYNs that find the SYN queue full are dropped, and its last quarter of
    /// `tcp_max_syn_backlog` stays free.
    Never,
    /// When the SYN queue is full.
    #[default]
    OnOverflow,
    /// Always, but for SYNs that replace a TIME-WAIT entry.
    Always,
}

impl SynCookies {
    /// From the number that the sysctl has.
    pub const fn from_sysctl(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Never),
            1 => Some(Self::OnOverflow),
            2 => Some(Self::Always),
            _ => None,
        }
    }

    /// The number that the sysctl has.
    pub const fn sysctl(self) -> u8 {
        match self {
            Self::Never => 0,
            Self::OnOverflow => 1,
            Self::Always => 2,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tcp_rmem: [4096, 131_072, 33_554_432],
            rmem_max: 4_194_304,
            tcp_timestamps: true,
            tcp_window_scaling: true,
            tcp_sack: true,
            tcp_dsack: true,
            somaxconn: 4096,
            tcp_max_syn_backlog: 4096,
            tcp_syncookies: SynCookies::OnOverflow,
            tcp_synack_retries: 5,
            tcp_rto_max_ms: RTO_MAX,
            tcp_abort_on_overflow: false,
            tcp_fin_timeout: Duration::from_secs(60),
            tcp_max_orphans: 65_536,
            tcp_orphan_retries: 0,
            tcp_retries2: 15,
            tcp_max_tw_buckets: 65_536,
            tcp_rfc1337: false,
            tcp_invalid_ratelimit: Duration::from_millis(500),
            tcp_low_latency: false,
            tcp_stdurg: false,
        }
    }
}
