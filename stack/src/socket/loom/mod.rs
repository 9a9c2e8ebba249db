//! The models: each protocol of this room, checked over all interleavings, and each with steps
//! left out to show that the model notices.

mod accept;
mod owner;
mod park;
mod stream;

use loom::model::Builder;

/// Explores with a bound on involuntary switches: two are known to find nearly every real bug, and
/// three keep each model within seconds.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}
