//! Scenario 1: everything is there before the reader comes.

use prequeue::socket::{RecvFlags, Step};

use super::{NONE, S1, S2, S3, S4, Stage, Stream, end, read, stage};
use crate::figures::row::Row;
use crate::figures::stage::During;

fn three_arrive() -> (Stage, Stream) {
    let (stage, stream) = stage();
    stage.arrive(&[S1]);
    stage.arrive(&[S3]);
    stage.arrive(&[S2]);
    (stage, stream)
}

pub fn base() -> Vec<Row> {
    let (stage, stream) = three_arrive();
    let (_, bytes) = read(&stage, &stream, 4096, NONE);
    stage.check(&bytes, 1000);
    end(stage, stream)
}

pub fn a() -> Vec<Row> {
    let (stage, stream) = three_arrive();
    let (_, peeked) = read(&stage, &stream, 4096, RecvFlags::PEEK);
    let (_, bytes) = read(&stage, &stream, 4096, NONE);
    assert_eq!(peeked, bytes);
    stage.check(&bytes, 1000);
    end(stage, stream)
}

pub fn b() -> Vec<Row> {
    let (stage, stream) = three_arrive();
    let (_, bytes) = read(&stage, &stream, 120, NONE);
    stage.check(&bytes, 1000);
    end(stage, stream)
}

pub fn c() -> Vec<Row> {
    let (stage, stream) = three_arrive();
    stage.meanwhile(During::Takes, &[S4]);
    let (step, bytes) = read(&stage, &stream, 4096, NONE);
    stage.check(&bytes, 1000);
    if let Step::Done(n) = step {
        let (_, rest) = read(&stage, &stream, 4096, NONE);
        stage.check(&rest, 1000 + n as u32);
    }
    end(stage, stream)
}

/// As 1c, but the segment comes while the reader copies.
pub fn c_copying() -> Vec<Row> {
    let (stage, stream) = three_arrive();
    stage.meanwhile(During::Copies, &[S4]);
    let (_, bytes) = read(&stage, &stream, 4096, NONE);
    stage.check(&bytes, 1000);
    end(stage, stream)
}
