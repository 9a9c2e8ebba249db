//! The models: each protocol of this room, checked over all interleavings, and each with steps
//! left out to show that the model notices.

mod accept;
mod direct;
mod owner;
mod park;
mod poller;
mod stream;

use loom::model::Builder;

/// Explores all interleavings with at most three involuntary switches.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_bounded(3, model);
}

/// Explores with a bound on involuntary switches: two are known to find nearly every real bug, and
/// keep a model of the whole socket within seconds.
fn explore_bounded(switches: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}
