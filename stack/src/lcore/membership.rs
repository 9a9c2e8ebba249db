//! Membership in the groups of IPv6 in which we are asked for our Ethernet address: reported when a stack
//! starts, and whenever a router asks (RFC 3810), for switches that deliver groups only to who reports.
//!
//! Kept by each lcore, since any may hear the question; the one that hears it answers. One report is
//! pending at most, whatever is asked.

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::time::Instant;
use crate::wire::ipv6;
use crate::wire::mld::{Query, Reason, Version};

use super::Interface;

/// Times that a change is reported: one may be lost (RFC 3810 §9.1).
const ROBUSTNESS: u8 = 2;
/// Before it is reported again (RFC 3810 §9.11).
const UNSOLICITED_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be reported, and when.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// We have begun to report at all.
    reports: bool,
    /// That we have joined, so often yet.
    joining: Option<(Instant, u8)>,
    /// The answer to a question.
    answer: Option<(Instant, Version)>,
}

impl Membership {
    /// Begins to report, if there are groups; that they were joined at once if this lcore `speaks`.
    pub fn begin(&mut self, interface: &Interface, speaks: bool, now: Instant) {
        self.reports = groups(interface).next().is_some();
        self.joining = (self.reports && speaks).then_some((now, ROBUSTNESS));
    }

    /// There is an address now that reports can come from: those without were for switches alone (RFC
    /// 3590 §4).
    pub fn has_address(&mut self, speaks: bool, now: Instant) {
        if self.reports && speaks {
            self.joining = Some((now, ROBUSTNESS));
        }
    }

    /// A router asks. `delay` makes a random time of less than what it is given.
    pub fn on_query(
        &mut self,
        query: &Query,
        interface: &Interface,
        now: Instant,
        delay: impl FnOnce(Duration) -> Duration,
    ) {
        let Query { group, within, version } = *query;
        let concerns_us = group.is_unspecified() || groups(interface).any(|ours| ours == group);
        if !self.reports || !concerns_us {
            return;
        }
        let due = now + delay(within);
        let sooner = self.answer.is_none_or(|(pending, _)| due < pending);
        if sooner {
            self.answer = Some((due, version));
        }
    }

    /// When [`Self::step`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let joining = self.joining.map(|(due, _)| due);
        self.answer.map(|(due, _)| due).into_iter().chain(joining).min()
    }

    /// What is to be reported now, one after the other; to be called until there is nothing more.
    pub fn step(&mut self, now: Instant) -> Option<(Reason, Version)> {
        if let Some((due, left)) = self.joining
            && due <= now
        {
            self.joining = (left > 1).then_some((now + UNSOLICITED_INTERVAL, left - 1));
            return Some((Reason::Joined, Version::V2));
        }
        let (due, version) = self.answer?;
        if due > now {
            return None;
        }
        self.answer = None;
        Some((Reason::Asked, version))
    }
}

/// The groups that are reported: all but that of all nodes, which everybody is in (RFC 3810 §6).
pub(super) fn groups(interface: &Interface) -> impl Iterator<Item = Ipv6Addr> {
    interface.groups().filter(|group| *group != ipv6::ALL_NODES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MacAddr;

    const ADDR: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn interface() -> Interface {
        Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500).with_address(ADDR, 64)
    }

    fn query(group: Ipv6Addr, version: Version) -> Query {
        Query { group, within: Duration::from_secs(10), version }
    }

    #[test]
    fn joining_is_reported_twice() {
        let mut membership = Membership::default();
        membership.begin(&interface(), true, ms(1000));
        let joined = Some((Reason::Joined, Version::V2));
        assert_eq!((membership.step(ms(1000)), membership.step(ms(1999))), (joined, None));
        assert_eq!(membership.next_deadline(), Some(ms(2000)));
        membership.has_address(true, ms(2000));
        assert_eq!((membership.step(ms(2000)), membership.step(ms(3000))), (joined, joined));
        assert_eq!((membership.next_deadline(), membership.step(ms(9000))), (None, None));
        membership.begin(&interface(), false, ms(1000));
        membership.has_address(false, ms(1000));
        assert_eq!(membership.step(ms(9000)), None, "another lcore says it");
    }

    #[test]
    fn questions_are_answered_once_in_their_version_within_their_time() {
        let (mut membership, interface) = (Membership::default(), interface());
        membership.on_query(&query(Ipv6Addr::UNSPECIFIED, Version::V2), &interface, ms(0), |_| {
            panic!("nothing was begun")
        });
        membership.begin(&interface, false, ms(0));
        let asked = |membership: &mut Membership, group, version, seconds| {
            let delay = |within: Duration| within.min(Duration::from_secs(seconds));
            membership.on_query(&query(group, version), &interface, ms(0), delay);
        };
        let any = Ipv6Addr::UNSPECIFIED;
        asked(&mut membership, any, Version::V2, 7);
        asked(&mut membership, any, Version::V2, 9);
        assert_eq!(membership.next_deadline(), Some(ms(7000)));
        asked(&mut membership, ipv6::solicited_node(ADDR), Version::V1, 3);
        asked(&mut membership, "ff02::1:ff99:9999".parse().unwrap(), Version::V2, 1);
        asked(&mut membership, ipv6::ALL_NODES, Version::V2, 1);
        assert_eq!((membership.next_deadline(), membership.step(ms(2999))), (Some(ms(3000)), None));
        assert_eq!(membership.step(ms(3000)), Some((Reason::Asked, Version::V1)));
        assert_eq!(membership.step(ms(60_000)), None);
    }

    #[test]
    fn without_ipv6_there_is_nothing_to_report() {
        let interface = Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500);
        let mut membership = Membership::default();
        membership.begin(&interface.with_address([10, 0, 0, 1], 24), true, ms(0));
        assert_eq!(membership.next_deadline(), None);
    }
}
