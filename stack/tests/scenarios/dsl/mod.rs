//! A small language for scenarios: a scripted peer, a subject, a virtual clock.
//!
//! ```text
//! scenario(|s| {
//!     s.send(syn()).expect(syn_ack());
//!     s.send(ack(1)).accepts();
//!     s.send(data(1, 100)).expect(acks(101));
//!     s.reads(1..101);
//! });
//! ```
//!
//! Sequence numbers are relative: the peer's SYN is its 0, our SYN-ACK is ours. Every scenario is
//! played from several initial sequence numbers, two of which wrap on the way, against every
//! subject there is. What the subject sends must be expected before anything else happens; what is
//! not expected fails the scenario, and the failure shows everything that happened until then.

mod scene;
mod segment;
mod subject;

use prequeue::tcp::Settings;

pub use scene::Scene;
pub use segment::{Seg, Want, ack, acks, data, fin, fin_ack, pattern, rst, rst_ack, seg, syn};
pub use segment::{rst_of, syn_ack};
pub use subject::{Conn, How, Received, Subject};

/// The peer's initial sequence numbers: the last two wrap after 200 and 5000 numbers.
const PEER_ISNS: [u32; 4] = [0, 0x1234_5678, u32::MAX - 199, u32::MAX - 4999];

/// Plays a scenario with the default settings.
#[track_caller]
pub fn scenario(play: impl Fn(&mut Scene)) {
    scenario_with(|_| {}, play);
}

/// Plays a scenario with settings that `tune` has changed.
#[track_caller]
pub fn scenario_with(tune: impl Fn(&mut Settings), play: impl Fn(&mut Scene)) {
    let mut settings = Settings::default();
    tune(&mut settings);
    for (name, make) in super::SUBJECTS {
        for (seed, isn) in PEER_ISNS.into_iter().enumerate() {
            let subject = make(settings.clone(), seed as u64);
            let mut scene = Scene::new(name, subject, isn);
            play(&mut scene);
            scene.ends();
        }
    }
}
