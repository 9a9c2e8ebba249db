//! The socket held for a millisecond at a time while segments arrive as fast as they can.
//!
//! The reader reads for a few milliseconds, then takes the socket away from its lcore for one, in
//! which everything goes to the backlog; and so on. Every byte must come, in order, and the lcore must
//! never wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use prequeue::dpdk::Mbuf;
use prequeue::socket::{RecvFlags, TcpStream};
use prequeue::tcp::Counter;

use crate::contender::{Burst, READ_BUFFER};

use super::Setting;
use super::lcore::now;
use super::report::{Report, Times};
use super::throughput::{MBUFS, Read, Traffic, wait_for};

/// How long the socket is held, and read, in turns.
const HOLD: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(4);

const LEN: usize = 64;

pub(super) fn measure(setting: Setting<'_>, report: &mut Report) {
    let Setting { lcore, bench, places, effort } = setting;
    let span = Duration::from_millis(effort.of(3000) as u64);
    let stream = lcore.open(bench.pool());
    let pool = bench.small_pool(MBUFS);
    let pool = pool.pool();
    let progress = Read::default();
    let mut traffic = Traffic::new(lcore, pool, &progress);
    let [ready, over] = [const { AtomicBool::new(false) }; 2];
    let before = [Counter::ToBacklog, Counter::TCPBacklogDrop].map(|c| lcore.count(c));
    let mut polls = Times::default();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            places.pin_reader();
            read(stream, [&ready, &over], &progress)
        });
        wait_for(&ready);
        let began = Instant::now();
        let mut last = now();
        while began.elapsed() < span {
            let mut burst = Burst::new();
            traffic.next(&mut burst);
            lcore.input(&mut burst);
            let at = now();
            polls.record(at - last);
            last = at;
        }
        over.store(true, Ordering::Relaxed);
        while !reader.is_finished() {
            lcore.turn();
        }
        let (read, held) = reader.join().expect("a reader that does not fail");
        let [backlog, dropped] =
            [Counter::ToBacklog, Counter::TCPBacklogDrop].map(|c| lcore.count(c));
        let [p50, p999] = polls.quantiles([500, 999]);
        let segments = read / LEN;
        let rate = segments as f64 / span.as_secs_f64() / 1e6;
        report.tell(
            "guard held for 1 ms of 5, full load",
            format!("{rate:.1} M/s, {held} times, {} by backlog", backlog - before[0]),
        );
        report.tell(
            "  a poll of the lcore meanwhile: p50, p99.9",
            format!("{:.1} {:.1} us", p50 / 1e3, p999 / 1e3),
        );
        report.at_most("  dropped by the backlog", (dropped - before[1]) as f64, 0.0, "");
        assert_eq!(read, traffic.bytes(), "all that was sent is read");
    });
    lcore.turn();
}

/// Reads and holds in turns until it is over; the bytes read, and how often it held.
fn read(
    stream: TcpStream<Mbuf>,
    [ready, over]: [&AtomicBool; 2],
    progress: &Read,
) -> (usize, usize) {
    let mut buf = vec![0; READ_BUFFER];
    let (mut total, mut held) = (0, 0);
    ready.store(true, Ordering::Relaxed);
    loop {
        let last = over.load(Ordering::Relaxed);
        let began = Instant::now();
        // The last time: until nothing comes any more, for longer than the lcore takes.
        let mut heard = began;
        while if last { heard.elapsed() < 10 * PAUSE } else { began.elapsed() < PAUSE } {
            let Ok(n) = stream.recv(&mut buf, RecvFlags::DONTWAIT) else { continue };
            heard = Instant::now();
            total += n;
            progress.tell(total);
        }
        if last {
            return (total, held);
        }
        let guard = stream.lock();
        let began = Instant::now();
        while began.elapsed() < HOLD {
            std::hint::spin_loop();
        }
        drop(guard);
        held += 1;
    }
}
