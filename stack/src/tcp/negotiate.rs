//! What a SYN offers and what we agree to: MSS, window scale, SACK, timestamps, initial window.
//!
//! Called once per admitted SYN on an lcore; pure arithmetic over the settings. It sends nothing
//! and agrees to nothing that the peer did not offer.

use crate::wire::{Family, Flags, Segment, SynOptions};

use super::Settings;

/// IP and TCP header without options: what the MSS option leaves of the MTU (RFC 6691).
pub(crate) const fn headers(family: Family) -> u16 {
    match family {
        Family::V4 => 40,
        Family::V6 => 60,
    }
}

/// Room that the timestamps option takes in every segment, padding included.
pub(super) const TIMESTAMPS_ROOM: u16 = 12;

/// The peer's MSS if it names none (RFC 9293 §3.7.1, MUST-15): what the least MTU of all leaves.
const fn default_mss(family: Family) -> u16 {
    match family {
        Family::V4 => 536,
        Family::V6 => 1220,
    }
}

/// Smaller values are taken as this: a tiny MSS would make every reply a flood of segments.
pub(super) const LEAST_MSS: u16 = 48;

/// The largest shift (RFC 7323 §2.3); larger ones are read as this.
const MOST_SHIFT: u8 = 14;

/// The outcome of the option exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Negotiated {
    /// The peer's MSS: the most payload, options included, that we may send in a segment.
    pub mss: u16,
    /// The MSS that we announce: MTU − 40, − 60 with IPv6, whatever options segments will carry (RFC 6691).
    pub mss_option: u16,
    /// The payload that a full segment of the peer carries: `mss_option` less the room of
    /// timestamps if they are on.
    pub advmss: u16,
    /// Shifts of both directions; `None` unless both sides offered one.
    pub scale: Option<Scale>,
    /// We may report SACK blocks (RFC 2018).
    pub sack_ok: bool,
    /// Both sides send timestamps; the peer's first TSval.
    pub ts_recent: Option<u32>,
    /// Congestion marks are echoed (RFC 3168): the SYN asked for it, by both flags and unmarked itself.
    pub ecn_ok: bool,
    /// The window in bytes that the SYN-ACK opens, though its header may not be able to say so: windows in
    /// SYNs are never scaled (RFC 7323 §2.2).
    pub window: u32,
}

/// What bounds a connection from the outside: the link, and the listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// MTU in bytes, at least 68.
    pub mtu: u16,
    /// The largest window in bytes that there is to be; none if 0.
    pub window_clamp: u32,
}

/// What the header of a segment whose window is not scaled can say of a window.
pub(super) fn unscaled(window: u32) -> u16 {
    window.try_into().unwrap_or(u16::MAX)
}

/// Window-scale shifts that were agreed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scale {
    /// Ours: windows that we advertise are shifted right by it.
    pub rcv: u8,
    /// The peer's: windows that it advertises are shifted left by it; at most 14.
    pub snd: u8,
}

impl Negotiated {
    /// What comes of a SYN with these options within these bounds.
    pub fn from_syn(
        settings: &Settings,
        syn: &Segment,
        options: &SynOptions,
        family: Family,
        bounds: Bounds,
    ) -> Self {
        let SynOptions { mss, window_scale, sack_permitted } = *options;
        let ts_recent = syn.ts.filter(|_| settings.takes_timestamps()).map(|ts| ts.val);
        let mss_option = bounds.mtu.saturating_sub(headers(family)).max(LEAST_MSS);
        let advmss = match ts_recent {
            Some(_) => mss_option.saturating_sub(TIMESTAMPS_ROOM),
            None => mss_option,
        };
        let scale = window_scale
            .filter(|_| settings.tcp_window_scaling)
            .map(|shift| Scale { rcv: our_shift(settings, bounds), snd: shift.min(MOST_SHIFT) });
        Self {
            mss: mss.filter(|&mss| mss != 0).unwrap_or(default_mss(family)).max(LEAST_MSS),
            mss_option,
            advmss,
            scale,
            sack_ok: sack_permitted && settings.tcp_sack,
            ts_recent,
            ecn_ok: settings.tcp_ecn != 0 && syn.ecn == 0 && asks_for_ecn(syn.flags),
            window: initial_window(settings, advmss, bounds),
        }
    }
}

impl Bounds {
    /// As much of a window as there may be.
    const fn of(self, window: u32) -> u32 {
        if self.window_clamp != 0 && self.window_clamp < window {
            self.window_clamp
        } else {
            window
        }
    }
}

/// Whether a SYN with these flags asks for ECN (RFC 3168 §6.1.1).
const fn asks_for_ecn(flags: Flags) -> bool {
    let both = Flags::ECE.with(Flags::CWR);
    flags.0 & both.0 == both.0
}

/// The smallest shift with which the largest receive buffer that the settings allow can be
/// advertised, or the largest window that there is to be.
fn our_shift(settings: &Settings, bounds: Bounds) -> u8 {
    let most = bounds.of(settings.tcp_rmem[2].max(settings.rmem_max));
    (0..MOST_SHIFT).find(|&shift| most <= u32::from(u16::MAX) << shift).unwrap_or(MOST_SHIFT)
}

/// The first window: half the initial buffer in whole segments. Like Linux since 6.10 we go by it even
/// where the SYN-ACK cannot say so.
///
/// Half is what Linux assumes payload to be of its truesize before it has seen any. With the
/// default buffer this gives 64240 for an MSS of 1460 and 65160 for one of 1448.
pub(super) fn initial_window(settings: &Settings, advmss: u16, bounds: Bounds) -> u32 {
    let space = bounds.of(settings.tcp_rmem[1] / 2);
    let advmss = u32::from(advmss);
    if space > advmss { space - space % advmss } else { space }
}

#[cfg(test)]
mod tests {
    use super::super::testing::FREE;
    use super::*;
    use crate::wire::{Flags, Timestamps};

    const SYN: Segment = Segment {
        seq: 0,
        ack: 0,
        len: 0,
        window: 64_240,
        urgent: 0,
        flags: Flags::SYN,
        ecn: 0,
        ts: None,
    };
    const SYN_TS: Segment = Segment { ts: Some(Timestamps { val: 77, ecr: 0 }), ..SYN };
    const ALL: SynOptions =
        SynOptions { mss: Some(1460), window_scale: Some(7), sack_permitted: true };

    fn negotiate(settings: &Settings, syn: &Segment, options: &SynOptions) -> Negotiated {
        Negotiated::from_syn(settings, syn, options, Family::V4, FREE)
    }

    #[test]
    fn everything_offered_is_agreed_to() {
        let n = negotiate(&Settings::default(), &SYN_TS, &ALL);
        let Negotiated { mss, mss_option, advmss, scale, sack_ok, ts_recent, ecn_ok: _, window } =
            n;
        assert_eq!((mss, mss_option, advmss), (1460, 1460, 1448));
        assert_eq!(scale, Some(Scale { rcv: 10, snd: 7 }));
        assert!(sack_ok);
        assert_eq!(ts_recent, Some(77));
        assert_eq!(window, 65_160);
    }

    #[test]
    fn nothing_offered_is_nothing_agreed_to() {
        let n = negotiate(&Settings::default(), &SYN, &SynOptions::default());
        let Negotiated { mss, mss_option, advmss, scale, sack_ok, ts_recent, ecn_ok: _, window } =
            n;
        assert_eq!((mss, mss_option, advmss), (536, 1460, 1460));
        assert_eq!((scale, sack_ok, ts_recent), (None, false, None));
        assert_eq!(window, 64_240);
    }

    #[test]
    fn settings_switch_options_off() {
        let settings = Settings {
            tcp_timestamps: 0,
            tcp_window_scaling: false,
            tcp_sack: false,
            ..Settings::default()
        };
        let n = negotiate(&settings, &SYN_TS, &ALL);
        assert_eq!((n.scale, n.sack_ok, n.ts_recent, n.advmss), (None, false, None, 1460));
    }

    #[test]
    fn ecn_is_agreed_to_if_both_flags_ask_for_it_and_the_syn_is_unmarked_itself() {
        let both = Flags::ECE.with(Flags::CWR);
        for (tcp_ecn, flags, ecn, agreed) in [
            (2, both, 0, true),
            (1, both, 0, true),
            (3, both, 0, true),
            (0, both, 0, false),
            (2, Flags::ECE, 0, false),
            (2, Flags::CWR, 0, false),
            (2, Flags(0), 0, false),
            (2, both, 1, false),
            (2, both, 2, false),
            (2, both, 3, false),
        ] {
            let settings = Settings { tcp_ecn, ..Settings::default() };
            let syn = Segment { flags: Flags::SYN.with(flags), ecn, ..SYN };
            let n = negotiate(&settings, &syn, &ALL);
            assert_eq!(n.ecn_ok, agreed, "tcp_ecn {tcp_ecn}, {flags:?}, field {ecn}");
        }
    }

    #[test]
    fn an_mss_of_zero_is_none_and_small_ones_are_floored() {
        for (offered, taken) in [(0, 536), (1, 48), (48, 48), (88, 88), (65_535, 65_535)] {
            let options = SynOptions { mss: Some(offered), ..ALL };
            assert_eq!(negotiate(&Settings::default(), &SYN, &options).mss, taken);
        }
    }

    #[test]
    fn an_ipv6_peer_without_mss_takes_what_the_least_mtu_leaves() {
        let settings = Settings::default();
        let n = Negotiated::from_syn(&settings, &SYN, &SynOptions::default(), Family::V6, FREE);
        assert_eq!((n.mss, n.mss_option, n.advmss), (1220, 1440, 1440));
    }

    #[test]
    fn a_shift_beyond_14_is_read_as_14() {
        for (offered, taken) in [(0, 0), (14, 14), (15, 14), (255, 14)] {
            let options = SynOptions { window_scale: Some(offered), ..ALL };
            let scale = negotiate(&Settings::default(), &SYN, &options).scale.unwrap();
            assert_eq!(scale.snd, taken);
        }
    }

    #[test]
    fn our_shift_covers_the_largest_buffer() {
        for (most, shift) in [
            (1, 0),
            (65_535, 0),
            (65_536, 1),
            (6_291_456, 7),
            (33_554_432, 10),
            (65_535 << 14, 14),
            (u32::MAX, 14),
        ] {
            let settings =
                Settings { tcp_rmem: [4096, 131_072, most], rmem_max: 0, ..Settings::default() };
            assert_eq!(our_shift(&settings, FREE), shift, "for {most}");
            let settings = Settings { tcp_rmem: [0; 3], rmem_max: most, ..settings };
            assert_eq!(our_shift(&settings, FREE), shift, "for rmem_max {most}");
        }
    }

    #[test]
    fn the_initial_window_is_whole_segments() {
        for (rcvbuf, advmss, window) in [
            (131_072, 1460, 64_240),
            (131_072, 1448, 65_160),
            (131_072, 8960, 62_720),
            (20_000, 1460, 8_760),
            (2_000, 1460, 1_000),
            (1_000_000, 1460, 499_320),
        ] {
            let settings = Settings { tcp_rmem: [4096, rcvbuf, rcvbuf], ..Settings::default() };
            assert_eq!(initial_window(&settings, advmss, FREE), window, "{rcvbuf} {advmss}");
        }
        assert_eq!((unscaled(499_320), unscaled(64_240)), (65_535, 64_240));
    }

    #[test]
    fn a_clamp_bounds_the_first_window_and_its_scale() {
        for (window_clamp, window, shift) in
            [(0, 64_240, 10), (10_000, 8760, 0), (70_000, 64_240, 1), (1152, 1152, 0)]
        {
            let bounds = Bounds { window_clamp, ..FREE };
            let settings = Settings::default();
            let n = Negotiated::from_syn(&settings, &SYN, &ALL, Family::V4, bounds);
            assert_eq!((n.window, n.scale.unwrap().rcv), (window, shift), "{window_clamp}");
        }
    }

    #[test]
    fn the_mss_option_follows_the_mtu() {
        let v4 = [(1500, 1460), (9000, 8960), (576, 536), (68, 48), (0, 48)];
        let v6 = [(1500, 1440), (9000, 8940), (1280, 1220), (68, 48), (0, 48)];
        let all =
            v4.map(|row| (Family::V4, row)).into_iter().chain(v6.map(|row| (Family::V6, row)));
        for (family, (mtu, mss)) in all {
            let bounds = Bounds { mtu, ..FREE };
            let n = Negotiated::from_syn(&Settings::default(), &SYN, &ALL, family, bounds);
            assert_eq!(n.mss_option, mss);
        }
    }
}
