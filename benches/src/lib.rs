//! How fast the receive path is: workloads, floors, peers, and the run that compares them.
//!
//! One thread; mbufs built beforehand; rx_burst on an in-process ring, then the receiver under
//! measurement, which reads everything and gives the buffers back. Quote ratios of one run only.

pub mod bench;
pub mod contender;
pub mod engine;
pub mod floor;
pub mod frames;
pub mod handover;
pub mod local;
pub mod many;
pub mod memory;
pub mod minima;
pub mod peers;
pub mod table;
pub mod verify;
pub mod workload;

use bench::Bench;
use contender::Contender;
use floor::{Floor, FloorReceiver};
use local::Reading;

/// Everyone who takes part, floors first, ours next.
///
/// # Panics
/// If the bench's TX queue was taken before.
pub fn contenders(bench: &mut Bench) -> Vec<Box<dyn Contender>> {
    let tx = bench.take_tx().expect("the contenders are made once");
    let tx = engine::Tx::new(bench.pool(), tx);
    vec![
        Box::new(FloorReceiver::new(Floor::F1)),
        Box::new(FloorReceiver::new(Floor::F2)),
        Box::new(engine::Receiver::new(bench.pool(), tx.clone())),
        Box::new(local::Receiver::new(bench.pool(), tx.clone(), Reading::Copy)),
        Box::new(local::Receiver::new(bench.pool(), tx, Reading::InPlace)),
        Box::new(peers::smoltcp::Receiver::new()),
        Box::new(peers::fastcp::Receiver::new()),
    ]
}
