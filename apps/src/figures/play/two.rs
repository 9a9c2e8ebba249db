//! Scenario 2: the reader sleeps when the first segment comes.

use std::time::Duration;

use prequeue::socket::{RecvFlags, Step};

use super::{NONE, S1, S2, S3, Stage, Stream, end, read, stage};
use crate::figures::peer::Arrival;
use crate::figures::row::Row;
use crate::figures::stage::During;

/// A reader goes to sleep; `then` happens, and is to run it as often as it likes.
fn asleep<'a>(
    stage: &Stage,
    stream: &'a Stream,
    buf: &'a mut [u8],
    flags: RecvFlags,
) -> crate::figures::stage::Call<'a> {
    let mut call = stage.call("reader", stream, buf, flags);
    assert!(matches!(stage.run(&mut call), Step::Sleep(_)), "nothing is there yet");
    call
}

/// The whole story of one sleeper that is woken once: `first` happens while it sleeps.
fn one_sleeper(len: usize, first: impl FnOnce(&Stage)) -> (Stage, Stream, Step) {
    let (stage, stream) = stage();
    let mut buf = vec![0; len];
    let mut call = asleep(&stage, &stream, &mut buf, NONE);
    first(&stage);
    let step = stage.run(&mut call);
    drop(call);
    if let Step::Done(n) = step {
        stage.check(&buf[..n], 1000);
    }
    (stage, stream, step)
}

pub fn base() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| stage.arrive(&[S1]));
    end(stage, stream)
}

pub fn a() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| {
        stage.arrive(&[S1]);
        stage.arrive(&[S2]);
    });
    end(stage, stream)
}

pub fn b() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| {
        stage.arrive(&[S1]);
        stage.meanwhile(During::Copies, &[S2]);
    });
    end(stage, stream)
}

pub fn c() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| {
        stage.arrive(&[S1]);
        stage.meanwhile(During::Uninstalls, &[S2]);
    });
    let (_, rest) = read(&stage, &stream, 4096, NONE);
    stage.check(&rest, 1100);
    end(stage, stream)
}

pub fn d() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| {
        stage.arrive(&[S1]);
        stage.wait(Duration::from_millis(150));
    });
    end(stage, stream)
}

pub fn e() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| {
        let all: Vec<_> =
            (0..32).map(|i| Arrival::data("A", 1000 + 100 * i, 1100 + 100 * i)).collect();
        stage.arrive(&all[..1]);
        stage.arrive(&all[1..]);
        stage.arrive(&[Arrival::data("B", 4200, 4300)]);
    });
    end(stage, stream)
}

pub fn f() -> Vec<Row> {
    let (stage, stream) = stage();
    let mut buf = [0; 4096];
    let mut call = asleep(&stage, &stream, &mut buf, NONE);
    stage.arrive(&[Arrival::ack(1000)]);
    stage.arrive(&[S1]);
    stage.run(&mut call);
    drop(call);
    stage.check(&buf[..100], 1000);
    end(stage, stream)
}

pub fn g() -> Vec<Row> {
    let (stage, stream) = stage();
    let mut buf = [0; 4096];
    let mut call = asleep(&stage, &stream, &mut buf, NONE);
    stage.arrive(&[S3]);
    stage.arrive(&[Arrival::data("AB", 1000, 1250)]);
    stage.run(&mut call);
    drop(call);
    stage.check(&buf[..450], 1000);
    end(stage, stream)
}

pub fn h() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(40, |stage| stage.arrive(&[S1]));
    let (_, rest) = read(&stage, &stream, 4096, NONE);
    stage.check(&rest, 1040);
    end(stage, stream)
}

pub fn i() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| stage.arrive(&[Arrival::rst(1000)]));
    end(stage, stream)
}

/// 2i's second half: the RST comes behind data.
pub fn i_behind_data() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| {
        stage.arrive(&[S1]);
        stage.arrive(&[Arrival::rst(1100)]);
    });
    read(&stage, &stream, 4096, NONE);
    read(&stage, &stream, 4096, NONE);
    end(stage, stream)
}

pub fn j() -> Vec<Row> {
    let (stage, stream, _) = one_sleeper(4096, |stage| stage.arrive(&[S1.and_fin()]));
    read(&stage, &stream, 4096, NONE);
    stage.wait(Duration::from_millis(50));
    end(stage, stream)
}

pub fn k() -> Vec<Row> {
    let (stage, stream) = stage();
    let limit = Duration::from_millis(100);
    stream.set_read_timeout(Some(limit)).expect("not zero");
    let mut buf = [0; 4096];
    let mut call = asleep(&stage, &stream, &mut buf, NONE);
    stage.wait(limit);
    stage.run(&mut call);
    drop(call);
    stage.arrive(&[S1]);
    end(stage, stream)
}

pub fn l() -> Vec<Row> {
    let (stage, stream) = stage();
    let mut buf = [0; 4096];
    let mut call = asleep(&stage, &stream, &mut buf, RecvFlags::PEEK);
    stage.arrive(&[S1]);
    stage.run(&mut call);
    drop(call);
    stage.check(&buf[..100], 1000);
    let (_, bytes) = read(&stage, &stream, 4096, NONE);
    stage.check(&bytes, 1000);
    end(stage, stream)
}

pub fn m() -> Vec<Row> {
    let (stage, stream) = stage();
    let (mut one, mut other) = ([0; 4096], [0; 4096]);
    let mut first = stage.call("first", &stream, &mut one, NONE);
    let mut second = stage.call("second", &stream, &mut other, NONE);
    stage.run(&mut first);
    stage.run(&mut second);
    stage.arrive(&[S1]);
    stage.run(&mut second);
    stage.run(&mut first);
    stage.arrive(&[S2]);
    stage.run(&mut first);
    drop((first, second));
    stage.check(&other[..100], 1000);
    stage.check(&one[..150], 1100);
    end(stage, stream)
}

pub fn n() -> Vec<Row> {
    let (stage, stream, _) = {
        let (stage, stream) = stage();
        let mut buf = [0; 4096];
        let mut call = asleep(&stage, &stream, &mut buf, NONE);
        stage.arrive(&[S1]);
        let guard = stage.lock(&stream);
        stage.arrive(&[S2]);
        stage.unlock(guard);
        let step = stage.run(&mut call);
        drop(call);
        stage.check(&buf[..250], 1000);
        (stage, stream, step)
    };
    end(stage, stream)
}
