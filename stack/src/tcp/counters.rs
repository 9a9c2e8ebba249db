//! Counters under the names that Linux users know from nstat.
//!
//! On the packet path a reason is a counter. The core adds to plain integers that one lcore owns;
//! whoever shows them to other threads does so outside of the core.

/// Declares [`Counter`] with the Linux name and the meaning of each.
macro_rules! counters {
    ($($name:ident = $meaning:literal,)*) => {
        /// A counter's name, spelled as in Linux where Linux has it. See [`Counters`] for an example.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(usize)]
        pub enum Counter {
            $(#[doc = $meaning] $name,)*
        }

        impl Counter {
            /// All counters, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name as nstat spells it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What it counts.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

counters! {
    InSegs = "segments addressed to this host, bad ones included",
    OutSegs = "segments sent, RSTs included",
    InErrs = "segments with a bad header or checksum",
    InCsumErrors = "segments with a bad checksum",
    OutRsts = "RSTs sent",
    RetransSegs = "segments sent again",
    PassiveOpens = "connections created by a listener",
    AttemptFails = "openings that failed",
    EstabResets = "established connections that were reset",
    CurrEstab = "connections that are in ESTABLISHED or CLOSE-WAIT now",
    TCPDeferAcceptDrop = "bare ACKs that completed a handshake, passed over until data comes",
    ListenOverflows = "openings that met a full accept queue",
    ListenDrops = "openings dropped for any reason",
    SyncookiesSent = "SYNs answered with a cookie",
    SyncookiesRecv = "ACKs that brought a good cookie back",
    SyncookiesFailed = "ACKs that brought no good cookie, while cookies were out",
    EmbryonicRsts = "requests removed by RST, by a bad SYN or by tcp_abort_on_overflow",
    TCPReqQFullDoCookies = "SYNs that found the SYN queue full, or tcp_syncookies at 2, and were to get a cookie",
    TCPReqQFullDrop = "SYNs dropped because the SYN queue was full",
    TCPTimeouts = "retransmission timers that expired",
    TCPLossProbes = "FINs sent again before their timeout, as tail loss probes",
    TCPKeepAlive = "probes sent to peers that were silent",
    TCPSynRetrans = "SYN-ACKs sent again",
    TCPHPHits = "data segments taken by header prediction",
    TCPHPAcks = "pure ACKs taken by header prediction",
    TCPPureAcks = "pure ACKs taken by the slow path",
    TCPBacklogDrop = "segments dropped because the backlog of an owned socket was full",
    TCPRcvCoalesce = "segments copied into the buffer of their predecessor",
    TCPOFOQueue = "segments queued out of order",
    TCPOFOMerge = "out-of-order content that was there already",
    TCPOFODrop = "out-of-order segments dropped for memory",
    TCPRcvQDrop = "in-order segments dropped for memory",
    TCPZeroWindowDrop = "data that met a closed window",
    BeyondWindow = "data beyond the right edge of the window",
    PruneCalled = "times memory had to be won back",
    TCPRcvCollapsed = "buffers given back after what they held was copied together",
    RcvPruned = "segments dropped because pruning was not enough",
    OfoPruned = "times the out-of-order queue was pruned",
    DelayedACKs = "ACKs sent by the delayed-ACK timer",
    DelayedACKLocked = "delayed-ACK timers that found the socket owned",
    DelayedACKLost = "duplicate data received: our ACK was late or lost",
    TCPDSACKOldSent = "DSACKs sent for data below rcv_nxt",
    TCPDSACKOfoSent = "DSACKs sent for out-of-order data",
    TCPAckCompressed = "duplicate ACKs left out by SACK compression",
    TCPChallengeACK = "challenge ACKs sent",
    TCPSYNChallenge = "SYNs met in a synchronised state",
    TCPACKSkippedSynRecv = "replies left out by the 500 ms limit in SYN-RECEIVED",
    TCPACKSkippedPAWS = "replies to PAWS rejects left out by the 500 ms limit",
    TCPACKSkippedSeq = "replies to out-of-window segments left out by the 500 ms limit",
    TCPACKSkippedFinWait2 = "replies left out by the 500 ms limit in FIN-WAIT-2",
    TCPACKSkippedTimeWait = "replies left out by the 500 ms limit in TIME-WAIT",
    TCPACKSkippedChallenge = "challenge ACKs left out by the 500 ms limit",
    PAWSEstab = "segments rejected by PAWS on a connection",
    PAWSOldAck = "old pure ACKs rejected by PAWS",
    TSEcrRejected = "segments that echo a timestamp we never sent",
    PAWSTimewait = "segments rejected by PAWS in TIME-WAIT",
    TCPToZeroWindowAdv = "window closings advertised",
    TCPFromZeroWindowAdv = "window openings advertised",
    TCPWantZeroWindowAdv = "windows that should have closed but must not shrink",
    TCPAbortOnData = "connections aborted by data after close, or by linger 0",
    TCPAbortOnClose = "connections aborted by close with unread data",
    TCPAbortOnMemory = "orphans aborted by a limit",
    TCPAbortOnTimeout = "connections aborted by a timer",
    TCPAbortOnLinger = "orphans aborted by a negative TCP_LINGER2",
    TW = "TIME-WAIT entries made, those of orphans in FIN-WAIT-2 included",
    TWRecycled = "TIME-WAIT entries replaced by a new connection",
    TWKilled = "entries of orphans in FIN-WAIT-2 made for four seconds or less",
    TCPTimeWaitOverflow = "TIME-WAIT entries not made because there were too many",
    ToPrequeue = "segments handed straight to a reader, through its ring",
    DirectCopies = "segments copied straight into the memory of a reader that waited, in low-latency mode",
    DirectCopiedBytes = "bytes of them",
    ToReceiveQueue = "segments put into a receive queue",
    ToBacklog = "segments that waited because an application thread owned the socket",
    RstsSkipped = "RSTs to segments of no connection left out by the rate limit",
    InHdrErrors = "datagrams with a bad IP header",
    InAddrErrors = "datagrams for another host, or from an address no host may send from",
    InUnknownProtos = "datagrams of a protocol other than TCP, ICMP and ICMPv6",
    ReasmReqds = "fragments",
    ReasmOKs = "datagrams put together of fragments",
    ReasmFails = "fragments not taken, and datagrams of which not all came or that did not fit together",
    ReasmTimeout = "datagrams of which not all fragments came in time",
    OtherVlan = "frames of another VLAN than ours, or of none where we are a member of one",
    AddrConflicts = "times somebody else was heard that has an address of ours",
    AddrsLost = "addresses of ours given up because somebody else has them",
    InNoECTPkts = "datagrams of no ECN-capable transport",
    InECT1Pkts = "datagrams of an ECN-capable transport, by ECT(1)",
    InECT0Pkts = "datagrams of an ECN-capable transport, by ECT(0)",
    InCEPkts = "datagrams with the mark of a congested router",
    OutNoRoutes = "datagrams not sent because neither link nor gateway leads there",
    OutDiscards = "datagrams not sent because their neighbour did not answer",
    IcmpInMsgs = "ICMP messages",
    IcmpInErrors = "ICMP messages that were malformed, or errors about a segment of no connection",
    IcmpInCsumErrors = "ICMP messages with a bad checksum",
    IcmpInDestUnreachs = "ICMP errors: destination unreachable, or datagram too big",
    IcmpInTimeExcds = "ICMP errors: time exceeded",
    IcmpInParmProbs = "ICMP errors: parameter problem",
    IcmpInSrcQuenchs = "ICMP source quenches, which are ignored",
    IcmpInRedirects = "ICMP redirects, which are ignored",
    Icmp6OutParmProblems = "ICMPv6 errors sent about headers that are not known here",
    OutOfWindowIcmps = "ICMP errors about a segment that cannot be under way",
    LockDroppedIcmps = "ICMP errors that met a socket owned by an application thread, and waited",
    InEchos = "ICMP echo requests",
    OutEchoReps = "ICMP echo replies",
    EchosSkipped = "ICMP echo requests not answered because there were too many",
    LcorePassed = "segments passed on to another lcore because this one had no connection for them",
    LcorePassDrop = "segments dropped because the ring to the next lcore was full",
    TCPMemoryPressures = "times that three quarters of the buffers that sockets may hold were held",
    TCPMemoryPressuresChrono = "milliseconds for which they were, added when that ends",
    PoolPressureDrop = "segments dropped because the pool was running out of buffers",
}

impl Counter {
    /// That of datagrams with this ECN field, of which the lower two bits are looked at.
    pub const fn of_ecn(field: u8) -> Self {
        match field & 3 {
            0 => Self::InNoECTPkts,
            1 => Self::InECT1Pkts,
            2 => Self::InECT0Pkts,
            _ => Self::InCEPkts,
        }
    }

    /// Whether it tells what is so now, instead of how often something has happened.
    pub const fn is_gauge(self) -> bool {
        matches!(self, Self::CurrEstab)
    }

    /// What nstat puts before the name: the group, or `Pq` for what only this stack counts. Nothing
    /// before names that begin with their group already.
    pub fn group(self) -> &'static str {
        match self {
            Self::InSegs
            | Self::OutSegs
            | Self::InErrs
            | Self::InCsumErrors
            | Self::OutRsts
            | Self::RetransSegs
            | Self::PassiveOpens
            | Self::AttemptFails
            | Self::EstabResets
            | Self::CurrEstab => "Tcp",
            Self::InHdrErrors
            | Self::InAddrErrors
            | Self::InUnknownProtos
            | Self::ReasmReqds
            | Self::ReasmOKs
            | Self::ReasmFails
            | Self::ReasmTimeout
            | Self::OutNoRoutes
            | Self::OutDiscards => "Ip",
            Self::InNoECTPkts | Self::InECT1Pkts | Self::InECT0Pkts | Self::InCEPkts => "IpExt",
            Self::InEchos | Self::OutEchoReps => "Icmp",
            Self::ToPrequeue
            | Self::DirectCopies
            | Self::DirectCopiedBytes
            | Self::ToReceiveQueue
            | Self::ToBacklog
            | Self::RstsSkipped
            | Self::EchosSkipped
            | Self::LcorePassed
            | Self::LcorePassDrop
            | Self::OtherVlan
            | Self::AddrConflicts
            | Self::AddrsLost
            | Self::PoolPressureDrop => "Pq",
            _ if self.name().starts_with("Icmp") || self.name().starts_with("Ip") => "",
            _ => "TcpExt",
        }
    }

    /// The name as nstat prints it: with its group.
    ///
    /// ```
    /// use prequeue::tcp::Counter;
    ///
    /// assert_eq!(Counter::InSegs.nstat_name(), "TcpInSegs");
    /// assert_eq!(Counter::TCPHPHits.nstat_name(), "TcpExtTCPHPHits");
    /// assert_eq!(Counter::ToPrequeue.nstat_name(), "PqToPrequeue");
    /// ```
    pub fn nstat_name(self) -> String {
        format!("{}{}", self.group(), self.name())
    }
}

/// One lcore's counters.
///
/// ```
/// use prequeue::tcp::{Counter, Counters};
///
/// fn print(counters: &Counters) {
///     for counter in Counter::ALL {
///         println!("{:24} {:12} {}", counter.name(), counters.value(*counter), counter.meaning());
///     }
/// }
/// # print(&Counters::default());
/// ```
#[derive(Clone, Debug)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// Adds one.
    pub fn bump(&mut self, counter: Counter) {
        self.0[counter as usize] += 1;
    }

    /// Adds `n`.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] += n;
    }

    /// Takes one off a gauge.
    pub fn lower(&mut self, gauge: Counter) {
        debug_assert!(gauge.is_gauge());
        let value = &mut self.0[gauge as usize];
        *value = value.wrapping_sub(1);
    }

    /// The count.
    pub fn value(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// All counts, in the order of [`Counter::ALL`].
    pub fn values(&self) -> &[u64] {
        &self.0
    }
}
