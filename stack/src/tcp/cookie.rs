//! SYN cookies (RFC 4987 §3.6): what a SYN said, kept by the client instead of by us.
//!
//! Asked by the lcore when a listener's SYN queue is full, and again for an ACK that may bring a cookie
//! back. Our ISN names the client's MSS and the minute under a keyed hash; the low bits of our first
//! TSval name the other options. Nothing is stored, so that a SYN costs its sender more than us.

use crate::time::Instant;
use crate::wire::{Family, FourTuple, Outgoing, Segment, SynOptions, Timestamps};

use super::isn::Secret;
use super::negotiate::{Bounds, Negotiated, initial_window, unscaled};
use super::request::{Opened, echoed, syn_ack_flags};
use super::timestamps::{TsState, ts_val};
use super::{Counter, Cx, SeqNum};

/// The values that an MSS is rounded down to, as in Linux: two bits of a cookie. They stand for
/// the default, for tunnels, for PPPoE, and for Ethernet; with IPv6 for the default, for tunnels, for
/// Ethernet, and for its jumbo frames.
const fn table(family: Family) -> [u16; 4] {
    match family {
        Family::V4 => [536, 1300, 1440, 1460],
        Family::V6 => [1220, 1420, 1440, 8940],
    }
}

/// Seconds of a minute of the cookies' clock.
const MINUTE: u64 = 60;

/// A cookie is good in the minute in which it was made and in so many more; together with the time
/// for which a listener remembers that it has sent any this is Linux's MAX_SYNCOOKIE_AGE.
const MINUTES: u32 = 2;

/// Bits of a cookie that hold the index of the MSS under the hash of the minute; the minute is above.
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;

/// Low bits of a TSval that hold what else was agreed on.
const TS_BITS: u32 = 6;
const TS_SHIFT: u32 = 0xf;
const TS_SACK: u32 = 1 << 4;
const TS_ECN: u32 = 1 << 5;

/// The SYN-ACK that answers `syn` with a cookie. It is sent once, and nothing is kept of it.
///
/// Without timestamps there is no place for options but the MSS, so that none is agreed on.
pub fn syn_ack(
    cx: &mut Cx<'_>,
    secret: &Secret,
    tuple: &FourTuple,
    syn: &Segment,
    options: &SynOptions,
    bounds: Bounds,
) -> Outgoing {
    cx.counters.bump(Counter::SyncookiesSent);
    let Negotiated { mss, mss_option, advmss: _, scale, sack_ok, ts_recent, ecn_ok, window } =
        Negotiated::from_syn(cx.settings, syn, options, tuple.family(), bounds);
    let offset = cx.settings.ts_offset(secret.numbers(tuple, cx.now).ts_offset);
    let agreed = Agreed { scale: scale.map(|scale| scale.snd), sack_ok, ecn_ok };
    let ts = ts_recent
        .map(|recent| Timestamps { val: agreed.stamp(cx.now).wrapping_add(offset), ecr: recent });
    Outgoing {
        seq: isn(secret, tuple, syn.seq, index(tuple.family(), mss), cx.now),
        ack: syn.seq.wrapping_add(1),
        flags: syn_ack_flags(ecn_ok && ts.is_some()),
        window: unscaled(window),
        mss: Some(mss_option),
        window_scale: scale.filter(|_| ts.is_some()).map(|scale| scale.rcv),
        sack_permitted: sack_ok && ts.is_some(),
        ts,
        ..Outgoing::default()
    }
}

/// The connection that `ack` opens if it brings a good cookie of the last two minutes back.
///
/// The caller has made sure that the listener has sent cookies of late, and that `ack` has ACK and
/// neither SYN nor RST. What it asks for within these bounds must be what
/// [`syn_ack`] was given.
pub fn open(
    cx: &mut Cx<'_>,
    secret: &Secret,
    tuple: &FourTuple,
    ack: &Segment,
    bounds: Bounds,
) -> Option<Opened> {
    let (iss, irs) = (SeqNum::new(ack.ack).minus(1), SeqNum::new(ack.seq).minus(1));
    let Some(mss) = mss(secret, tuple, irs.raw(), iss.raw(), cx.now) else {
        cx.counters.bump(Counter::SyncookiesFailed);
        return None;
    };
    cx.counters.bump(Counter::SyncookiesRecv);
    let ts = ack.ts.filter(|_| cx.settings.takes_timestamps());
    let offset = cx.settings.ts_offset(secret.numbers(tuple, cx.now).ts_offset);
    // An echo of nought is none at all, and reads as in Linux: a shift of nought, and no SACK.
    let agreed = match ts {
        Some(Timestamps { ecr: 0, .. }) => Agreed { scale: Some(0), ..Agreed::default() },
        Some(Timestamps { ecr, .. }) => Agreed::from_stamp(ecr.wrapping_sub(offset)),
        None => Agreed::default(),
    };
    let Agreed { scale, sack_ok, ecn_ok } = agreed;
    // The settings may have changed since: then the client goes by what it must not.
    if (sack_ok && !cx.settings.tcp_sack) || (scale.is_some() && !cx.settings.tcp_window_scaling) {
        return None;
    }
    let syn = Segment { ts, ..*ack };
    let options = SynOptions { mss: Some(mss), window_scale: scale, sack_permitted: sack_ok };
    let Negotiated { mss, mss_option: _, advmss, scale, sack_ok, ts_recent, ecn_ok: _, window: _ } =
        Negotiated::from_syn(cx.settings, &syn, &options, tuple.family(), bounds);
    Some(Opened {
        family: tuple.family(),
        iss,
        irs,
        // Whole segments of the peer's size, by which Linux reckons here: nearly what the SYN-ACK stood for.
        rcv_wnd: initial_window(cx.settings, mss, bounds),
        snd_wnd: ack.window,
        scale,
        mss,
        advmss,
        sack_ok,
        ecn_ok: ecn_ok && cx.settings.tcp_ecn != 0,
        ts: ts_recent.map(|recent| TsState { recent, offset, recent_at: cx.now }),
        synack_rtt: ts.and_then(|theirs| echoed(cx.now, offset, theirs)),
    })
}

/// What timestamps remember of a SYN.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Agreed {
    /// The peer's shift; `None` if windows are not scaled.
    scale: Option<u8>,
    sack_ok: bool,
    ecn_ok: bool,
}

impl Agreed {
    /// The last TSval not after the clock, before the connection's offset, that says so.
    fn stamp(self, now: Instant) -> u32 {
        let clock = ts_val(now, 0);
        let shift = self.scale.map_or(TS_SHIFT, u32::from);
        let says =
            shift | if self.sack_ok { TS_SACK } else { 0 } | if self.ecn_ok { TS_ECN } else { 0 };
        let stamp = clock >> TS_BITS << TS_BITS | says;
        if stamp > clock { stamp.wrapping_sub(1 << TS_BITS) } else { stamp }
    }

    /// Reverses [`Self::stamp`], whatever the time.
    fn from_stamp(stamp: u32) -> Self {
        let scale = Some(stamp & TS_SHIFT).filter(|&shift| shift != TS_SHIFT);
        Self {
            scale: scale.map(|shift| shift as u8),
            sack_ok: stamp & TS_SACK != 0,
            ecn_ok: stamp & TS_ECN != 0,
        }
    }
}

/// The place in the table of the largest value that is not above this MSS; the first if all are.
fn index(family: Family, mss: u16) -> u32 {
    table(family).iter().rposition(|&least| least <= mss).unwrap_or(0) as u32
}

/// The cookie itself: the number that our SYN-ACK begins with.
///
/// The hash of the minute has the peer's number in it, which Linux only adds: there, where a client's first
/// one to three bytes are lost, those that follow bring a good cookie of a smaller MSS, and open a connection
/// from which the first ones are missing.
fn isn(secret: &Secret, tuple: &FourTuple, irs: u32, index: u32, now: Instant) -> u32 {
    let minute = minute(now);
    let says = secret.cookie(tuple, Some((minute, irs))).wrapping_add(index) & MASK;
    secret.cookie(tuple, None).wrapping_add(irs).wrapping_add(minute << BITS).wrapping_add(says)
}

/// The MSS that a cookie names, if it is one of ours for this four-tuple and `irs`, and not too old.
fn mss(secret: &Secret, tuple: &FourTuple, irs: u32, iss: u32, now: Instant) -> Option<u16> {
    let cookie = iss.wrapping_sub(secret.cookie(tuple, None)).wrapping_sub(irs);
    let minute = minute(now);
    // Minutes are known modulo 256 from here on: a guess is as good as any other.
    let age = minute.wrapping_sub(cookie >> BITS) & (u32::MAX >> BITS);
    if age >= MINUTES {
        return None;
    }
    let made = secret.cookie(tuple, Some((minute.wrapping_sub(age), irs)));
    let index = cookie.wrapping_sub(made) & MASK;
    table(tuple.family()).get(index as usize).copied()
}

/// The clock of the cookies.
fn minute(now: Instant) -> u32 {
    (now.as_millis() / (MINUTE * 1000)) as u32
}

#[cfg(test)]
mod tests;
