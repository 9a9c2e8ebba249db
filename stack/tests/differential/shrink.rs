//! Makes a scenario that fails smaller, as long as it fails.

use std::time::{Duration, Instant};

use crate::run::{Difference, Lab, Outcome};
use crate::scenario::{Config, Len, Scenario, Stamp, Step};

/// A failure that takes longer to make small is reported as it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a scenario until it has failed as often as this, or succeeded once.
const TIMES: usize = 3;

/// The difference that a scenario shows each time it is run.
pub fn fails(lab: &mut Lab, scenario: &Scenario) -> Option<Box<Difference>> {
    let mut last = None;
    for _ in 0..TIMES {
        match lab.run(scenario, None) {
            Outcome::Different(difference) => last = Some(difference),
            Outcome::Same(_) | Outcome::Explained(_) => return None,
        }
    }
    last
}

/// The smallest scenario found that still fails.
pub fn shrink(lab: &mut Lab, scenario: &Scenario, difference: &Difference) -> Scenario {
    let begun = Instant::now();
    let mut best = scenario.clone();
    if difference.step.is_some() {
        best.steps.truncate(difference.number + 1);
    }
    let mut progress = true;
    while progress {
        progress = false;
        let mut chunk = (best.steps.len() / 2).max(1);
        loop {
            let mut at = 0;
            while at < best.steps.len() {
                if begun.elapsed() > PATIENCE {
                    return best;
                }
                let mut smaller = best.clone();
                let end = (at + chunk).min(smaller.steps.len());
                smaller.steps.drain(at..end);
                if fails(lab, &smaller).is_some() {
                    best = smaller;
                    progress = true;
                } else {
                    at += chunk;
                }
            }
            if chunk == 1 {
                break;
            }
            chunk /= 2;
        }
        for simpler in simpler(&best) {
            if begun.elapsed() > PATIENCE {
                return best;
            }
            if fails(lab, &simpler).is_some() {
                best = simpler;
                progress = true;
                break;
            }
        }
    }
    best
}

/// Scenarios in which one thing is more usual.
fn simpler(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut plain = scenario.clone();
    plain.config.timestamps = false;
    for step in &mut plain.steps {
        if let Step::Segment(spec) = step {
            spec.ts = None;
        }
    }
    if scenario.config.timestamps {
        all.push(plain);
    }
    let mut with = |change: &dyn Fn(&mut Config)| {
        let mut changed = scenario.clone();
        change(&mut changed.config);
        if format!("{:?}", changed.config) != format!("{:?}", scenario.config) {
            all.push(changed);
        }
    };
    with(&|config| config.ipv6 = false);
    with(&|config| config.sack = false);
    with(&|config| config.irs = 1000);
    with(&|config| config.rcvbuf = None);
    with(&|config| config.rmem = [4096, 131_072, 6_291_456]);
    with(&|config| config.dsack = true);
    with(&|config| config.stdurg = false);
    with(&|config| config.rfc1337 = false);
    with(&|config| config.ecn = false);
    with(&|config| config.cookies = false);
    with(&|config| config.ratelimit = Duration::ZERO);
    with(&|config| config.mss = Some(1460));
    with(&|config| config.scale = Some(7));
    with(&|config| config.clock = 1_000_000);
    with(&|config| config.window = 65_535);
    let timestamps = scenario.config.timestamps;
    for at in 0..scenario.steps.len() {
        let mut with = |change: &dyn Fn(&mut Step) -> bool| {
            let mut changed = scenario.clone();
            if change(&mut changed.steps[at]) {
                all.push(changed);
            }
        };
        macro_rules! segment {
            ($spec:ident, $is:expr, $change:expr) => {
                with(&|step| {
                    let Step::Segment($spec) = step else { return false };
                    let unusual = $is;
                    $change;
                    unusual
                });
            };
        }
        segment!(
            spec,
            spec.ts.is_some() != timestamps,
            spec.ts = timestamps.then_some(Stamp { val: 1, ecr: 0 })
        );
        segment!(spec, spec.variant != 0, spec.variant = 0);
        segment!(spec, spec.window != 1000, spec.window = 1000);
        segment!(spec, !spec.junk.is_empty(), spec.junk.clear());
        segment!(spec, spec.ack != 0, spec.ack = 0);
        segment!(spec, spec.urgent != 0, spec.urgent = 0);
        segment!(spec, spec.tos != 0, spec.tos = 0);
        segment!(spec, spec.flags & 0xfe8 != 0, spec.flags &= !0xfe8);
        segment!(spec, spec.flags & 1 != 0, spec.flags &= !1);
        segment!(spec, spec.at.1 != 0, spec.at.1 = 0);
        segment!(spec, matches!(spec.len, Len::Bytes(n) if n > 100), spec.len = Len::Bytes(100));
        segment!(spec, !matches!(spec.len, Len::Bytes(0)), spec.len = Len::Bytes(0));
    }
    all
}
