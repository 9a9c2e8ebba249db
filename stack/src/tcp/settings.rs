//! The settings of the receive path under their sysctl names, with the defaults of Linux 6.18.
//!
//! One table has everything that is known of each: type, default, unit, range, where Linux keeps it, and
//! what it means. The fields, what is parsed and printed, the checks and the documentation are made of it.
//! Read on lcores as plain values; changed, by name, only before a stack starts.

mod setting;

use std::time::Duration;

use setting::{CORE, IPV4, IPV4CONF, IPV6, OURS, ROUTE};
pub use setting::{Setting, SettingError, Unit};

/// Declares [`Settings`] and the table of them: `name: type = default, unit, range, place`, below the
/// comment that is its meaning.
macro_rules! settings {
    ($(
        $(#[doc = $meaning:literal])+
        $name:ident: $type:ty = $default:expr, $unit:ident, $range:expr, $place:expr;
    )*) => {
        /// Stack-wide settings. Fields carry the sysctl's name.
        ///
        /// In a program they are fields, typed; for whoever configures one they are text, set by name and
        /// checked ([`Settings::set`]). [`Settings::ALL`] tells of each its unit, range and meaning.
        ///
        /// ```
        /// use std::time::Duration;
        ///
        /// use prequeue::tcp::Settings;
        ///
        /// let mut settings = Settings {
        ///     tcp_rmem: [4096, 4 << 20, 32 << 20],
        ///     tcp_fin_timeout: Duration::from_secs(10),
        ///     ..Settings::default()
        /// };
        /// settings.set("tcp_sack", "0")?;
        /// assert!(!settings.tcp_sack);
        /// let error = settings.set("tcp_fin_timeuot", "10").unwrap_err();
        /// assert!(error.to_string().contains("tcp_fin_timeout"));
        /// # Ok::<(), prequeue::tcp::SettingError>(())
        /// ```
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct Settings {
            $($(#[doc = $meaning])+ pub $name: $type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Settings {
            /// All of them, in order of declaration.
            pub const ALL: &'static [Setting] = &[$(
                Setting {
                    name: stringify!($name),
                    unit: Unit::$unit,
                    range: $range,
                    place: $place,
                    meaning: concat!($($meaning),+),
                    count: <$type as setting::Value>::COUNT,
                    read: |settings| setting::Value::numbers(&settings.$name, Unit::$unit),
                    write: |settings, numbers| {
                        if let Some(value) = setting::Value::of(numbers, Unit::$unit) {
                            settings.$name = value;
                        }
                    },
                },
            )*];
        }
    };
}

/// The largest value of most sysctls.
const MOST: i64 = i32::MAX as i64;

/// The most that `tcp_rto_max_ms` may be, and its default.
pub const RTO_MAX: Duration = Duration::from_secs(120);

/// The longest time that Linux can say in milliseconds, in seconds.
const LONGEST: i64 = MOST / 1000;

settings! {
    /// Receive buffer in bytes of truesize: least, initial, most. The most decides on the window scale
    /// that is offered, too.
    tcp_rmem: [u32; 3] = [4096, 131_072, 33_554_432], Bytes, 1..=MOST, IPV4;
    /// Largest value that SO_RCVBUF may ask for: decides on the window scale, too.
    rmem_max: u32 = 4_194_304, Bytes, 2304..=MOST, CORE;
    /// Let receive buffers grow with what the application reads in a round trip.
    tcp_moderate_rcvbuf: bool = true, Switch, 0..=1, IPV4;
    /// Let scaled windows shrink with the memory that is left, instead of keeping what was promised.
    tcp_shrink_window: bool = false, Switch, 0..=1, IPV4;
    /// Accept timestamps (RFC 7323): 0 never; 1 with an offset to the clock that is each connection's own;
    /// 2, and whatever else Linux takes, the clock as it is.
    tcp_timestamps: u8 = 1, Choice, 0..=255, IPV4;
    /// Offer and accept window scaling (RFC 7323).
    tcp_window_scaling: bool = true, Switch, 0..=1, IPV4;
    /// Accept SACK (RFC 2018).
    tcp_sack: bool = true, Switch, 0..=1, IPV4;
    /// Report duplicates by DSACK (RFC 2883).
    tcp_dsack: bool = true, Switch, 0..=1, IPV4;
    /// Explicit congestion notification (RFC 3168): 0 never; 1 to 5 when the peer asks. Accurate ECN
    /// (3 to 5) is not spoken: who asks for it is answered in the plain way.
    tcp_ecn: u8 = 2, Choice, 0..=5, IPV4;
    /// Listen backlogs are cut to this.
    somaxconn: u32 = 4096, Count, 0..=MOST, CORE;
    /// Bound on half-open connections of a listener besides its backlog, where there are no cookies.
    tcp_max_syn_backlog: u32 = 4096, Count, 0..=MOST, IPV4;
    /// When SYNs are answered with cookies: 0 never, 1 when the SYN queue is full, 2 always.
    tcp_syncookies: SynCookies = SynCookies::OnOverflow, Choice, 0..=2, IPV4;
    /// SYN-ACKs are sent again this often.
    tcp_synack_retries: u8 = 5, Count, 0..=255, IPV4;
    /// Retransmission timeouts grow up to this.
    tcp_rto_max_ms: Duration = RTO_MAX, Milliseconds, 1000..=120_000, IPV4;
    /// Answer a final ACK that meets a full accept queue with RST.
    tcp_abort_on_overflow: bool = false, Switch, 0..=1, IPV4;
    /// How long an orphan stays in FIN-WAIT-2.
    tcp_fin_timeout: Duration = Duration::from_secs(60), Seconds, 0..=LONGEST, IPV4;
    /// Orphans beyond this number are reset.
    tcp_max_orphans: u32 = 65_536, Count, 0..=MOST, IPV4;
    /// Retransmissions of an orphan's FIN; 0 means 8.
    tcp_orphan_retries: u8 = 0, Count, 0..=255, IPV4;
    /// Retransmissions of a FIN while the application still holds the socket.
    tcp_retries2: u8 = 15, Count, 0..=255, IPV4;
    /// TIME-WAIT entries beyond this number are not made.
    tcp_max_tw_buckets: u32 = 65_536, Count, 0..=MOST, IPV4;
    /// Time to live, or hop limit, of segments.
    ip_default_ttl: u8 = 64, Count, 1..=255, IPV4;
    /// Silence before the first probe, where keepalive is on and the socket does not say otherwise.
    tcp_keepalive_time: Duration = Duration::from_secs(7200), Seconds, 1..=LONGEST, IPV4;
    /// Between probes.
    tcp_keepalive_intvl: Duration = Duration::from_secs(75), Seconds, 1..=LONGEST, IPV4;
    /// Probes without an answer after which the peer is given up.
    tcp_keepalive_probes: u8 = 9, Count, 1..=127, IPV4;
    /// Ignore RST in TIME-WAIT (RFC 1337).
    tcp_rfc1337: bool = false, Switch, 0..=1, IPV4;
    /// Replies to invalid segments are at least this far apart, per connection.
    tcp_invalid_ratelimit: Duration = Duration::from_millis(500), Milliseconds, 0..=MOST, IPV4;
    /// Connections begin without a prequeue: the lcore copies straight to readers that wait. Without
    /// effect in a `LocalStack`, where nobody waits.
    tcp_low_latency: bool = false, Switch, 0..=1, OURS;
    /// Take the urgent pointer as RFC 1122 has it instead of BSD's way.
    tcp_stdurg: bool = false, Switch, 0..=1, IPV4;
    /// Put fragments of TCP segments together instead of dropping them. Linux always does.
    ip_reassembly: bool = false, Switch, 0..=1, OURS;
    /// How long the fragments of a datagram wait for the others.
    ipfrag_time: Duration = Duration::from_secs(30), Seconds, 1..=LONGEST, IPV4;
    /// How much memory fragments may take on an lcore, by truesize.
    ipfrag_high_thresh: u32 = 4_194_304, Bytes, 0..=MOST, IPV4;
    /// Ask on the link whether somebody else has an address of ours before it is used for good, and give
    /// it up if so.
    accept_dad: bool = true, Switch, 0..=1, IPV6;
    /// How often that is asked for an address of IPv6; for one of IPv4 it is three times.
    dad_transmits: u8 = 1, Count, 1..=10, IPV6;
    /// Use addresses while it is being asked, without overriding anybody. In Linux this is off.
    optimistic_dad: bool = true, Switch, 0..=1, IPV6;
    /// Announce our addresses to all on the link when they have been found to be ours alone. In Linux
    /// this is off.
    arp_notify: bool = true, Switch, 0..=1, IPV4CONF;
    /// A smaller path MTU than this is not believed.
    min_pmtu: u16 = 552, Bytes, 68..=65_535, ROUTE;
    /// How long a lowered path MTU is remembered.
    mtu_expires: Duration = Duration::from_secs(600), Seconds, 0..=LONGEST, ROUTE;
}

impl Settings {
    /// Sets one by its name, alone or with the path of the sysctl (`net.ipv4.tcp_rmem`,
    /// `net/ipv4/tcp_rmem`), to a value written as sysctl(8) writes it: whole numbers in its unit, several
    /// parted by blanks.
    ///
    /// # Errors
    /// If there is no such setting, or the value is none for it; nothing has changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        Setting::named(name)?.set(self, value)
    }

    /// Whether timestamps are agreed to.
    pub(crate) const fn takes_timestamps(&self) -> bool {
        self.tcp_timestamps != 0
    }

    /// What is added to the clock in TSvals of a connection whose own offset this is.
    pub(crate) const fn ts_offset(&self, own: u32) -> u32 {
        if self.tcp_timestamps == 1 { own } else { 0 }
    }

    /// Bytes of truesize that whoever asks for a receive buffer of `bytes` gets (SO_RCVBUF): twice as
    /// many, but at most twice `rmem_max`, and one small segment at least.
    #[cfg(not(loom))] // for listeners, which the models do without
    pub(crate) fn granted_rcvbuf(&self, bytes: u32) -> u32 {
        granted_rcvbuf(bytes, self.rmem_max)
    }
}

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

/// The least receive buffer that can be asked for, in bytes of truesize: one small segment, as in
/// Linux.
pub(super) const LEAST_RCVBUF: u32 = 2304;

/// As [`Settings::granted_rcvbuf`].
pub(super) fn granted_rcvbuf(bytes: u32, rmem_max: u32) -> u32 {
    bytes.min(rmem_max).saturating_mul(2).max(LEAST_RCVBUF)
}

#[cfg(test)]
mod tests;
