//! Scenario 3: a reader that wants more than is there, and a hole that fills while it sleeps.

use std::time::Duration;

use prequeue::socket::Step;
use prequeue::tcp::Settings;

use super::{NONE, S1, S2, S3, Stage, Stream, end, read};
use crate::figures::peer::Arrival;
use crate::figures::row::Row;
use crate::figures::stage::During;

fn stage(low_latency: bool, low_water: u32) -> (Stage, Stream) {
    let settings = Settings { tcp_low_latency: low_latency, ..Settings::default() };
    let (stage, stream) = Stage::new(settings);
    stream.set_receive_low_water(low_water).expect("they fit");
    stage.arrive(&[S1]);
    (stage, stream)
}

/// The first segment is read, the third arrives meanwhile, the second ends the wait.
fn play(low_latency: bool) -> Vec<Row> {
    let (stage, stream) = stage(low_latency, 400);
    stage.meanwhile(During::Copies, &[S3]);
    let mut buf = [0; 4096];
    let mut call = stage.call("reader", &stream, &mut buf, NONE);
    stage.run(&mut call);
    stage.asleep(&mut call, || stage.arrive(&[S2]));
    stage.run(&mut call);
    drop(call);
    stage.check(&buf[..450], 1000);
    end(stage, stream)
}

pub fn base() -> Vec<Row> {
    play(true)
}

pub fn a() -> Vec<Row> {
    play(false)
}

pub fn b() -> Vec<Row> {
    let (stage, stream) = stage(true, 451);
    let limit = Duration::from_millis(500);
    stream.set_read_timeout(Some(limit)).expect("not zero");
    stage.meanwhile(During::Copies, &[S3]);
    let mut buf = [0; 4096];
    let mut call = stage.call("reader", &stream, &mut buf, NONE);
    stage.run(&mut call);
    stage.asleep(&mut call, || {
        stage.arrive(&[S2]);
        stage.wait(limit);
    });
    stage.run(&mut call);
    drop(call);
    stage.check(&buf[..450], 1000);
    end(stage, stream)
}

/// The case in which today's kernels sleep on: 100 bytes are read, 200 more come, 250 are wanted.
pub fn c() -> Vec<Row> {
    let (stage, stream) = stage(true, 250);
    let mut buf = [0; 4096];
    let mut call = stage.call("reader", &stream, &mut buf, NONE);
    assert!(matches!(stage.run(&mut call), Step::Sleep(_)));
    stage.asleep(&mut call, || stage.arrive(&[Arrival::data("B", 1100, 1300)]));
    stage.run(&mut call);
    drop(call);
    stage.check(&buf[..300], 1000);
    end(stage, stream)
}

pub fn d() -> Vec<Row> {
    let (stage, stream) = stage(true, 400);
    stage.meanwhile(During::Copies, &[S3]);
    let mut buf = [0; 4096];
    let mut call = stage.call("reader", &stream, &mut buf, NONE);
    stage.run(&mut call);
    stage.asleep(&mut call, || stage.arrive(&[Arrival::fin(1100)]));
    stage.run(&mut call);
    drop(call);
    stage.check(&buf[..100], 1000);
    read(&stage, &stream, 4096, NONE);
    stage.wait(Duration::from_millis(50));
    end(stage, stream)
}

/// One segment of 200 bytes and 88 of ten fill the backlog of a default buffer; one more does not fit.
pub fn e() -> Vec<Row> {
    let (stage, stream) = stage(true, 400);
    let small = |i: u32| Arrival::data("D", 1450 + 10 * i, 1460 + 10 * i);
    let all: Vec<_> = [S3].into_iter().chain((0..89).map(small)).collect();
    stage.meanwhile(During::Takes, &all);
    stage.meanwhile(During::Copies, &[]);
    let mut buf = [0; 4096];
    let mut call = stage.call("reader", &stream, &mut buf, NONE);
    stage.run(&mut call);
    stage.asleep(&mut call, || {
        stage.arrive(&[S2]);
        // What was dropped was not acknowledged: the peer sends it again.
        stage.arrive(&[small(88)]);
    });
    let step = stage.run(&mut call);
    drop(call);
    if let Step::Done(n) = step {
        stage.check(&buf[..n], 1000);
    }
    end(stage, stream)
}
