//! The scripts: what arrives when, and when the reader runs. What comes of it is observed.
//!
//! One function per variant, called by [`super::scenario`]. Segments and numbers are the same
//! throughout: A, B and C are the first three of a stream that begins at 1000.

pub(super) mod one;
pub(super) mod three;
pub(super) mod two;

use prequeue::socket::{RecvFlags, Step};
use prequeue::tcp::Settings;

use super::peer::Arrival;
use super::row::Row;
use super::stage::{Stage, Stream};

/// The segments of the articles' pictures: 100, 150 and 200 bytes.
const S1: Arrival = Arrival::data("A", 1000, 1100);
const S2: Arrival = Arrival::data("B", 1100, 1250);
const S3: Arrival = Arrival::data("C", 1250, 1450);
/// The one behind them.
const S4: Arrival = Arrival::data("D", 1450, 1500);

const NONE: RecvFlags = RecvFlags::NONE;

fn stage() -> (Stage, Stream) {
    Stage::new(Settings::default())
}

/// A whole call that must return at once.
fn read(stage: &Stage, stream: &Stream, len: usize, flags: RecvFlags) -> (Step, Vec<u8>) {
    let mut buf = vec![0; len];
    let mut call = stage.call("reader", stream, &mut buf, flags);
    let step = stage.run(&mut call);
    drop(call);
    if let Step::Done(n) = step {
        buf.truncate(n);
    }
    (step, buf)
}

fn end(stage: Stage, stream: Stream) -> Vec<Row> {
    let rows = stage.rows();
    drop(stream);
    rows
}
