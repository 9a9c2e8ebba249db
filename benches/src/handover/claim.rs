//! A claim and a release that nobody contends, in nanoseconds: the lcore's and a thread's.
//!
//! The two functions that are timed have names, so that `scripts/bench --handover` can count their
//! locked instructions under callgrind.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use prequeue::buf::HeapBuf;
use prequeue::socket::{Handle, Home, LcoreRef, SocketId};
use prequeue::tcp::negotiate::Scale;
use prequeue::tcp::request::Opened;
use prequeue::tcp::tcb::Tcb;
use prequeue::tcp::{Counters, Cx, SeqNum, Settings};
use prequeue::time::Instant;
use prequeue::wire::{Family, FourTuple};

use crate::frames;

use super::Effort;
use super::report::Report;

/// Claims that are timed together, and how often: the best time counts.
const CLAIMS: u32 = 10_000;
const ROUNDS: usize = 200;

/// A connection, and both ends of its socket.
#[derive(Debug)]
pub struct Pair {
    lcore: LcoreRef<HeapBuf>,
    handle: Handle<HeapBuf>,
    _home: Arc<Home<HeapBuf>>,
}

impl Default for Pair {
    fn default() -> Self {
        let settings = Settings::default();
        let mut counters = Counters::default();
        let now = Instant::from_millis(1000);
        let mut cx = Cx { now, settings: &settings, counters: &mut counters };
        let opened = Opened {
            family: Family::V4,
            iss: SeqNum::new(1),
            irs: SeqNum::new(1),
            rcv_wnd: 64_240,
            snd_wnd: 64_240,
            scale: Some(Scale { rcv: 7, snd: 7 }),
            mss: 1460,
            advmss: 1460,
            sack_ok: true,
            ecn_ok: false,
            ts: None,
            synack_rtt: None,
        };
        let tcb = Tcb::new(&mut cx, &opened);
        let home = Arc::new(Home::default());
        let tuple = FourTuple {
            local_addr: frames::OUR_ADDR.into(),
            remote_addr: frames::CLIENT_ADDR.into(),
            local_port: frames::PORT,
            remote_port: 1024,
        };
        let id = SocketId { slot: 0, generation: 0 };
        let (lcore, handle) = LcoreRef::new(tcb, &home, id, tuple);
        Self { lcore, handle, _home: home }
    }
}

impl Pair {
    /// Claims, and leaves, so many times: as an lcore and as a thread.
    pub fn run(&self, times: u32) {
        for _ in 0..times {
            claim_by_lcore(&self.lcore);
        }
        for _ in 0..times {
            claim_by_thread(&self.handle);
        }
    }
}

pub(super) fn measure(report: &mut Report, effort: Effort) {
    let pair = Pair::default();
    let [mut lcore, mut visit, mut thread] = [Duration::MAX; 3];
    for _ in 0..effort.of(ROUNDS) {
        lcore = lcore.min(time(|| claim_by_lcore(&pair.lcore)));
        visit = visit.min(time(|| visit_by_lcore(&pair.lcore)));
        thread = thread.min(time(|| claim_by_thread(&pair.handle)));
    }
    let nanos = |time: Duration| time.as_nanos() as f64 / f64::from(CLAIMS);
    report.at_most("claim and release, lcore", nanos(lcore), 15.0, "ns");
    report.tell(
        "  with a look at what there is to do, and to publish",
        format!("{:.1} ns", nanos(visit)),
    );
    report.at_most("claim and release, thread", nanos(thread), 15.0, "ns");
}

fn time(mut what: impl FnMut()) -> Duration {
    let began = Clock::now();
    (0..CLAIMS).for_each(|_| what());
    began.elapsed()
}

#[inline(never)]
#[unsafe(no_mangle)]
fn claim_by_lcore(lcore: &LcoreRef<HeapBuf>) {
    lcore.claim().expect("nobody else owns").leave();
}

/// What a visit does besides, though nothing has happened.
#[inline(never)]
fn visit_by_lcore(lcore: &LcoreRef<HeapBuf>) {
    let mut claim = lcore.claim().expect("nobody else owns");
    assert!(claim.next_deferred().is_none());
    black_box(claim.tcb().rmem());
    claim.leave();
}

#[inline(never)]
#[unsafe(no_mangle)]
fn claim_by_thread(handle: &Handle<HeapBuf>) {
    drop(handle.lock());
}
