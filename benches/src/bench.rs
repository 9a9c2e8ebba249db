//! The bench: a pool, two ports made of rings, and the loop that is timed.
//!
//! What arrives is built beforehand and waits in the ring, so that the loop sees what an lcore sees:
//! rx_burst gives 32 mbufs, the receiver works, the buffers are free again.

use std::time::{Duration, Instant};

use prequeue::buf::Checksum;
use prequeue::dpdk::ring_port::RingPort;
use prequeue::dpdk::{
    Eal, EalThread, Mempool, PoolConfig, PoolOwner, PortConfig, RxQueue, TEST_ARGS, TxQueue,
    run_args,
};

use crate::contender::{BURST, Burst, Contender};
use crate::frames::Client;
use crate::minima::Minima;
use crate::workload::Workload;

/// Segments of a chunk: the unit whose minimum over the rounds is taken. Short enough (some tens of
/// microseconds) to be undisturbed once in a few rounds.
pub const CHUNK: usize = 8 * BURST;

/// Chunks at the beginning of each connection that are not counted: the window opens.
const WARM_UP: usize = 2;

/// The device side of the bench, for the thread that made it.
#[derive(Debug)]
pub struct Bench {
    pool: PoolOwner,
    near_rx: RxQueue,
    near_tx: Option<TxQueue>,
    far_rx: RxQueue,
    far_tx: TxQueue,
    stream: Vec<u8>,
    _registered: EalThread,
}

/// One contender's result on one workload.
#[derive(Clone, Debug)]
pub struct Row {
    /// The contender.
    pub name: &'static str,
    /// Sum over the chunks of the minimum over the rounds, per segment.
    pub ns_per_segment: f64,
    /// Bytes that came out, of those that went in.
    pub delivered: f64,
}

impl Bench {
    /// Sets up EAL, pool and ports; the calling thread becomes the lcore.
    ///
    /// Mbufs come from hugepages if there are any; `PREQUEUE_BENCH_NO_HUGE` does without, which is
    /// slower and for counting instructions only.
    ///
    /// # Panics
    /// With the reason, if DPDK cannot be set up.
    pub fn new() -> Self {
        let no_huge = std::env::var_os("PREQUEUE_BENCH_NO_HUGE").is_some();
        let args: Vec<String> = if no_huge {
            TEST_ARGS.iter().map(ToString::to_string).collect()
        } else {
            run_args(["-l", "0", "--no-pci"])
        };
        let eal = Eal::init(args).unwrap_or_else(|error| panic!("{error}"));
        let registered = EalThread::register(eal).unwrap_or_else(|error| panic!("{error}"));
        let config = PoolConfig { mbufs: 1023, ..PoolConfig::default() };
        let pool = Mempool::new(eal, &config).unwrap_or_else(|error| panic!("{error}"));
        let slots = (2 * CHUNK) as u32;
        let (near, far) = RingPort::pair(eal, 1, slots).unwrap_or_else(|error| panic!("{error}"));
        let [near, far] = [near, far].map(|port| {
            let config = PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
            let mut port = port.configure(config).unwrap_or_else(|error| panic!("{error}"));
            let mut queues = port.start().unwrap_or_else(|error| panic!("{error}"));
            // The port stays up for as long as its queues are used.
            std::mem::forget(port);
            queues.pop().expect("one queue pair")
        });
        let pool = pool.own().unwrap_or_else(|error| panic!("{error}"));
        let mut rng = fastrand::Rng::with_seed(1);
        let stream = (0..1 << 20).map(|_| rng.u8(..)).collect();
        Self {
            pool,
            near_rx: near.0,
            near_tx: Some(near.1),
            far_rx: far.0,
            far_tx: far.1,
            stream,
            _registered: registered,
        }
    }

    /// The receiver's TX queue; what it sends is thrown away. Can be taken once.
    pub fn take_tx(&mut self) -> Option<TxQueue> {
        self.near_tx.take()
    }

    /// The pool of all mbufs.
    pub fn pool(&self) -> &Mempool {
        self.pool.pool()
    }

    /// The bytes that the stream repeats.
    pub fn stream(&self) -> &[u8] {
        &self.stream
    }

    /// Runs every contender over `chunks` chunks of the workload, `rounds` times, a fresh connection
    /// each time, chunk by chunk in turns.
    pub fn compare(
        &mut self,
        workload: Workload,
        contenders: &mut [Box<dyn Contender>],
        chunks: usize,
        rounds: usize,
    ) -> Vec<Row> {
        let pieces = workload.pieces((WARM_UP + chunks) * CHUNK);
        let mut minima = vec![Minima::new(chunks); contenders.len()];
        let mut bytes = vec![0; contenders.len()];
        for round in 0..rounds {
            let client = Client { port: 10_000 + round as u16, isn: fastrand::u32(..) };
            let iss: Vec<u32> = contenders.iter_mut().map(|c| c.open(&client)).collect();
            for (at, chunk) in pieces.chunks(CHUNK).enumerate() {
                for (i, contender) in contenders.iter_mut().enumerate() {
                    for piece in chunk {
                        let frame = client.data(iss[i], *piece, &self.stream);
                        self.load(&frame);
                    }
                    let (time, read) = self.time(contender.as_mut());
                    bytes[i] += read;
                    if let Some(counted) = at.checked_sub(WARM_UP) {
                        minima[i].record(counted, time);
                    }
                }
            }
        }
        let sent = (rounds * pieces.len() * workload.segment_len() as usize) as f64;
        contenders
            .iter()
            .zip(minima)
            .zip(bytes)
            .map(|((contender, minima), bytes)| Row {
                name: contender.name(),
                ns_per_segment: minima.ns_per_segment(CHUNK),
                delivered: bytes as f64 / sent,
            })
            .collect()
    }

    /// Puts a frame into the ring, its checksums taken as verified.
    fn load(&mut self, frame: &[u8]) {
        let mut mbuf = self.pool.pool().alloc().expect("a pool larger than a chunk");
        mbuf.extend(frame.len()).expect("room for a frame").copy_from_slice(frame);
        mbuf.set_checksum(Checksum::Good);
        let mut burst = dpdk_burst_of(mbuf);
        assert_eq!(self.far_tx.send(&mut burst), 1, "a ring larger than a chunk");
    }

    /// Runs what waits in the ring through the contender.
    fn time(&mut self, contender: &mut dyn Contender) -> (Duration, usize) {
        let began = Instant::now();
        let read = timed_part(&mut self.near_rx, contender);
        let time = began.elapsed();
        let mut answers = Burst::new();
        while self.far_rx.rx(&mut answers) > 0 {
            answers.clear();
        }
        (time, read)
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// What is timed, and what callgrind is told to collect: by its name.
#[inline(never)]
#[unsafe(no_mangle)]
fn timed_part(rx: &mut RxQueue, contender: &mut dyn Contender) -> usize {
    let mut burst = Burst::new();
    let mut read = 0;
    while rx.rx(&mut burst) > 0 {
        read += contender.burst(&mut burst);
    }
    read
}

fn dpdk_burst_of(mbuf: prequeue::dpdk::Mbuf) -> prequeue::dpdk::Burst<1> {
    let mut burst = prequeue::dpdk::Burst::new();
    burst.push(mbuf).expect("room for one");
    burst
}
