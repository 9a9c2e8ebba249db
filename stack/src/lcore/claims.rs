//! Our claims to our addresses: whether somebody else has one is asked when a stack starts (RFC 4862 §5.4,
//! RFC 5227), then they are announced, and defended for as long as it runs.
//!
//! Each lcore keeps its own, by the same schedule, because any may be the one that hears an objection; one
//! of them speaks for all. Nothing here waits, and whatever is heard, an address is defended once in ten
//! seconds at most.

use std::net::IpAddr;
use std::time::Duration;

use smallvec::SmallVec;

use crate::tcp::Settings;
use crate::tcp::isn::Secret;
use crate::time::Instant;
use crate::wire::icmpv6::Nonce;

use super::{Interface, MOST_ADDRESSES, Standing};

/// How often it is asked whether somebody has an address of IPv4 (RFC 5227 §1.1, PROBE_NUM).
const PROBES_V4: u8 = 3;
/// Between these questions: PROBE_MIN, and as much again at random up to PROBE_MAX.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// How long an answer to the last of them may take: ANNOUNCE_WAIT.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// How long an answer takes over IPv6 (RFC 4861 §10, RETRANS_TIMER).
const RETRANS_TIMER: Duration = Duration::from_secs(1);

/// Announcements and the time between them (RFC 5227 §1.1). The first may be lost.
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// Between two times that an address is defended (RFC 5227 §1.1): two who both insist would fill the link.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Hosts that are switched on together do not all ask at once (RFC 4861 §10, MAX_RTR_SOLICITATION_DELAY;
/// RFC 5227 §1.1, PROBE_WAIT). Only where addresses are not used before they are sure.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// The claims of one lcore.
#[derive(Debug)]
pub(super) struct Claims {
    claims: SmallVec<[Claim; MOST_ADDRESSES + 1]>,
    secret: Secret,
    drawn: u64,
    role: Role,
    /// Times that it is asked for an address of IPv6.
    probes_v6: u8,
    announces: bool,
}

/// What an lcore does about the addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It asks, announces and defends for all lcores.
    Speaks,
    /// It only listens.
    Listens,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    addr: IpAddr,
    phase: Phase,
    /// When the next step of that is due.
    due: Instant,
    nonce: Nonce,
    defended: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// It has been asked so often.
    Probing(u8),
    /// It has been announced so often.
    Announcing(u8),
    Held,
    Lost,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Ask whether somebody has it.
    Probe(IpAddr, Nonce),
    /// Nobody has it.
    Settle(IpAddr),
    /// Tell all that we have it.
    Announce(IpAddr),
}

/// What somebody else was heard to say of an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// It has it.
    Has,
    /// It would like to have it, and asks whether it is free.
    Wants,
}

/// What follows from what was heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is none of our addresses, or nothing new.
    Nothing,
    /// It is given up.
    Lost,
    /// It is ours nevertheless.
    Contested {
        /// All are to be told.
        defend: bool,
    },
}

impl Claims {
    /// None: addresses are used without a word until [`Self::begin`].
    pub fn new(secret: Secret) -> Self {
        Self {
            claims: SmallVec::new(),
            secret,
            drawn: 0,
            role: Role::Listens,
            probes_v6: 0,
            announces: false,
        }
    }

    /// Begins to claim the addresses of `interface`, whose standing is set by that.
    pub fn begin(
        &mut self,
        interface: &mut Interface,
        settings: &Settings,
        role: Role,
        now: Instant,
    ) {
        let Settings { accept_dad, dad_transmits, optimistic_dad, arp_notify, .. } = *settings;
        self.role = role;
        self.probes_v6 = dad_transmits;
        self.announces = arp_notify;
        self.claims.clear();
        let addresses: SmallVec<[IpAddr; MOST_ADDRESSES + 1]> = interface.addresses().collect();
        for addr in addresses {
            let asks = accept_dad;
            let standing = match (asks, optimistic_dad) {
                (false, _) => Standing::Held,
                (true, true) => Standing::Doubtful,
                (true, false) => Standing::Withheld,
            };
            interface.set_standing(addr, standing);
            let delay = match standing {
                Standing::Withheld => self.below(MAX_DELAY),
                Standing::Held | Standing::Doubtful => Duration::ZERO,
            };
            let [n0, n1, n2, n3, n4, n5, ..] = self.draw().to_le_bytes();
            let phase = if asks { Phase::Probing(0) } else { self.settled() };
            self.claims.push(Claim {
                addr,
                phase,
                due: now + delay,
                nonce: [n0, n1, n2, n3, n4, n5],
                defended: None,
            });
        }
    }

    /// Whether this lcore is to send what is to be said.
    pub fn role(&self) -> Role {
        self.role
    }

    /// When [`Self::step`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.claims.iter().filter(|claim| claim.is_under_way()).map(|claim| claim.due).min()
    }

    /// What is due now, one after the other; to be called until there is nothing more.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        let at = self.claims.iter().position(|claim| claim.is_under_way() && claim.due <= now)?;
        let Claim { addr, phase, nonce, .. } = self.claims[at];
        let (phase, wait, step) = match phase {
            Phase::Probing(sent) if sent < self.probes(addr) => {
                let sent = sent + 1;
                let wait = self.wait_for_answers(addr, sent);
                (Phase::Probing(sent), wait, Step::Probe(addr, nonce))
            }
            Phase::Probing(_) => (self.settled(), Duration::ZERO, Step::Settle(addr)),
            Phase::Announcing(sent) if sent + 1 < ANNOUNCEMENTS => {
                (Phase::Announcing(sent + 1), ANNOUNCE_INTERVAL, Step::Announce(addr))
            }
            Phase::Announcing(_) | Phase::Held | Phase::Lost => {
                (Phase::Held, Duration::ZERO, Step::Announce(addr))
            }
        };
        let claim = &mut self.claims[at];
        (claim.phase, claim.due) = (phase, now + wait);
        Some(step)
    }

    /// Somebody else was heard. `addr` may be any address.
    pub fn hear(&mut self, addr: IpAddr, heard: Heard, now: Instant) -> Verdict {
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.addr == addr) else {
            return Verdict::Nothing;
        };
        match (claim.phase, heard) {
            (Phase::Lost, _) => Verdict::Nothing,
            // Two who ask at the same time both do without (RFC 4862 §5.4.3, RFC 5227 §2.1.1).
            (Phase::Probing(_), Heard::Has | Heard::Wants) => {
                claim.phase = Phase::Lost;
                Verdict::Lost
            }
            // The answer to its question tells it.
            (Phase::Announcing(_) | Phase::Held, Heard::Wants) => Verdict::Nothing,
            (Phase::Announcing(_) | Phase::Held, Heard::Has) => {
                let lately = claim.defended.is_some_and(|at| now.since(at) < DEFEND_INTERVAL);
                let defend = !lately && self.role == Role::Speaks;
                if defend {
                    claim.defended = Some(now);
                }
                Verdict::Contested { defend }
            }
        }
    }

    /// Another lcore has heard that `addr` is somebody else's. Whether that is news.
    pub fn lose(&mut self, addr: IpAddr) -> bool {
        let claim = self.claims.iter_mut().find(|claim| claim.addr == addr);
        claim.is_some_and(|claim| std::mem::replace(&mut claim.phase, Phase::Lost) != Phase::Lost)
    }

    /// Whether a question for `addr` is one of ours that has come back.
    pub fn is_own(&self, addr: IpAddr, nonce: Option<Nonce>) -> bool {
        self.claims.iter().any(|claim| claim.addr == addr && Some(claim.nonce) == nonce)
    }

    /// A random time of less than `span`.
    pub fn below(&mut self, span: Duration) -> Duration {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(((u128::from(self.draw()) * u128::from(span)) >> 64) as u64)
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.secret.number(self.drawn)
    }

    fn probes(&self, addr: IpAddr) -> u8 {
        if addr.is_ipv4() { PROBES_V4 } else { self.probes_v6 }
    }

    /// How long answers to the question are waited for that is the `sent`th.
    fn wait_for_answers(&mut self, addr: IpAddr, sent: u8) -> Duration {
        match addr {
            IpAddr::V6(_) => RETRANS_TIMER,
            IpAddr::V4(_) if sent == PROBES_V4 => ANNOUNCE_WAIT,
            IpAddr::V4(_) => PROBE_MIN + self.below(PROBE_MIN),
        }
    }

    fn settled(&self) -> Phase {
        if self.announces { Phase::Announcing(0) } else { Phase::Held }
    }
}

impl Claim {
    fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Probing(_) | Phase::Announcing(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MacAddr;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interface() -> Interface {
        Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500)
            .with_address([10, 0, 0, 1], 24)
            .with_address(addr("fd00::1"), 64)
    }

    fn begun(settings: &Settings, role: Role) -> (Claims, Interface) {
        let (mut claims, mut interface) = (Claims::new(Secret::from_seed(1)), interface());
        claims.begin(&mut interface, settings, role, ms(1000));
        (claims, interface)
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// All that is to be done, with the milliseconds since the start.
    fn all(claims: &mut Claims) -> Vec<(u64, Step)> {
        let mut all = Vec::new();
        while let Some(due) = claims.next_deadline() {
            let since = due.since(ms(1000)).as_millis() as u64;
            all.extend(std::iter::from_fn(|| claims.step(due)).map(|step| (since, step)));
        }
        all
    }

    fn of(all: &[(u64, Step)], wanted: &str) -> Vec<(u64, &'static str)> {
        let tell = |(at, step): &(u64, Step)| match *step {
            Step::Probe(addr, _) => (addr, (*at, "probe")),
            Step::Settle(addr) => (addr, (*at, "settle")),
            Step::Announce(addr) => (addr, (*at, "announce")),
        };
        all.iter().map(tell).filter(|(of, _)| *of == addr(wanted)).map(|(_, it)| it).collect()
    }

    #[test]
    fn addresses_are_asked_for_and_then_announced() {
        let (mut claims, interface) = begun(&Settings::default(), Role::Speaks);
        assert!(interface.addresses().all(|it| interface.standing(it) == Some(Standing::Doubtful)));
        let all = all(&mut claims);
        let six = [(0, "probe"), (1000, "settle"), (1000, "announce"), (3000, "announce")];
        assert_eq!(of(&all, "fd00::1"), six);
        let link_local = interface.link_local().unwrap().to_string();
        assert_eq!(of(&all, &link_local), six);
        let four = of(&all, "10.0.0.1");
        assert_eq!(
            four.iter().map(|it| it.1).collect::<Vec<_>>(),
            ["probe", "probe", "probe", "settle", "announce", "announce"]
        );
        assert_eq!(four[0].0, 0);
        for pair in four[..3].windows(2) {
            assert!((1000..2000).contains(&(pair[1].0 - pair[0].0)), "{four:?}");
        }
        assert_eq!((four[3].0 - four[2].0, four[5].0 - four[4].0), (2000, 2000));
    }

    #[test]
    fn settings_say_whether_it_is_asked_and_announced() {
        let quiet = Settings { accept_dad: false, arp_notify: false, ..Settings::default() };
        let (mut claims, interface) = begun(&quiet, Role::Speaks);
        assert_eq!(interface.standing(addr("10.0.0.1")), Some(Standing::Held));
        assert!(all(&mut claims).is_empty());
        let at_once = Settings { accept_dad: false, ..Settings::default() };
        let (mut claims, _) = begun(&at_once, Role::Speaks);
        assert_eq!(of(&all(&mut claims), "fd00::1"), [(0, "announce"), (2000, "announce")]);
        let careful = Settings { optimistic_dad: false, dad_transmits: 2, ..Settings::default() };
        let (mut claims, interface) = begun(&careful, Role::Speaks);
        assert_eq!(interface.standing(addr("fd00::1")), Some(Standing::Withheld));
        let all = all(&mut claims);
        let six = of(&all, "fd00::1");
        assert!(six[0].0 < 1000 && six[2].0 - six[0].0 == 2000, "{six:?}");
        assert_eq!(six.iter().filter(|it| it.1 == "probe").count(), 2);
    }

    #[test]
    fn an_address_that_somebody_has_or_wants_too_is_lost_while_it_is_asked_for() {
        for heard in [Heard::Has, Heard::Wants] {
            let (mut claims, _) = begun(&Settings::default(), Role::Listens);
            while claims.step(ms(1000)).is_some() {}
            assert_eq!(claims.hear(addr("10.0.0.1"), heard, ms(1500)), Verdict::Lost);
            assert_eq!(claims.hear(addr("10.0.0.1"), heard, ms(1501)), Verdict::Nothing);
            assert!(of(&all(&mut claims), "10.0.0.1").is_empty(), "nothing more is said of it");
            assert!(!claims.lose(addr("10.0.0.1")) && claims.lose(addr("fd00::1")));
        }
    }

    #[test]
    fn an_address_that_is_held_is_defended_once_in_ten_seconds() {
        let (mut claims, _) = begun(&Settings::default(), Role::Speaks);
        all(&mut claims);
        let mut hear = |address: &str, heard, at| claims.hear(addr(address), heard, ms(at));
        let contested = |defend| Verdict::Contested { defend };
        assert_eq!(hear("10.0.0.1", Heard::Wants, 20_000), Verdict::Nothing);
        assert_eq!(hear("10.0.0.1", Heard::Has, 20_000), contested(true));
        assert_eq!(hear("10.0.0.1", Heard::Has, 29_999), contested(false));
        assert_eq!(hear("fd00::1", Heard::Has, 29_999), contested(true));
        assert_eq!(hear("10.0.0.1", Heard::Has, 30_000), contested(true));
        assert_eq!(hear("10.0.0.2", Heard::Has, 30_000), Verdict::Nothing);
        let (mut claims, _) = begun(&Settings::default(), Role::Listens);
        all(&mut claims);
        assert_eq!(claims.hear(addr("fd00::1"), Heard::Has, ms(20_000)), contested(false));
    }

    #[test]
    fn own_questions_are_known_by_their_nonce() {
        let (mut claims, _) = begun(&Settings::default(), Role::Speaks);
        let asked = std::iter::from_fn(|| claims.step(ms(1000))).collect::<Vec<_>>();
        let nonces: Vec<_> = asked
            .iter()
            .filter_map(|step| match *step {
                Step::Probe(addr, nonce) => Some((addr, nonce)),
                _ => None,
            })
            .collect();
        assert_eq!(nonces.len(), 3);
        assert!(nonces.iter().all(|&(addr, nonce)| claims.is_own(addr, Some(nonce))));
        assert!(!claims.is_own(nonces[0].0, Some(nonces[1].1)), "each has its own");
        assert!(!claims.is_own(nonces[0].0, None));
    }
}
