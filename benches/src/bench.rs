//! The bench: a pool, two ports made of rings, and the loop that is timed.
//!
//! What arrives is built beforehand and waits in the ring, so that the loop sees what an lcore sees:
//! rx_burst gives 32 mbufs, the receiver works, the buffers are free again.

use std::rc::Rc;
use std::time::{Duration, Instant};

use prequeue::buf::Checksum;
use prequeue::dpdk::ring_port::RingPort;
use prequeue::dpdk::{
    Clock, Eal, EalThread, Mempool, PoolConfig, PoolOwner, PortConfig, RxQueue, TEST_ARGS, TxQueue,
    run_args,
};

use crate::contender::{Application, BURST, Burst, Careless, Contender};
use crate::frames::Client;
use crate::memory::Memory;
use crate::minima::Minima;
use crate::verify::{Mismatch, Verifier};
use crate::workload::{Piece, Workload};

/// Segments of a chunk: the unit whose minimum over the rounds is taken. Short enough (some tens of
/// microseconds) to be undisturbed once in a few rounds.
pub const CHUNK: usize = 8 * BURST;

/// Chunks at the beginning of each connection that are not counted: the window opens.
const WARM_UP: usize = 2;

/// Counted chunks of a connection. Long enough that what a connection costs once does not show.
pub const CHUNKS: usize = 64;

/// The device side of the bench, for the thread that made it.
#[derive(Debug)]
pub struct Bench {
    eal: &'static Eal,
    pool: PoolOwner,
    near_rx: RxQueue,
    near_tx: Option<TxQueue>,
    far_rx: RxQueue,
    far_tx: TxQueue,
    stream: Rc<[u8]>,
    _registered: EalThread,
}

/// One contender's result on one workload.
#[derive(Clone, Debug)]
pub struct Row {
    /// The workload.
    pub workload: Workload,
    /// The contender.
    pub name: &'static str,
    /// Sum over the chunks of the minimum over the rounds, per segment.
    pub ns_per_segment: f64,
    /// Bytes that went in, over all rounds.
    pub sent: usize,
    /// Bytes that came out.
    pub delivered: usize,
}

impl Bench {
    /// Sets up EAL, pool and ports; the calling thread becomes the lcore. Once per process.
    ///
    /// # Panics
    /// With the reason, if DPDK cannot be set up.
    pub fn new(memory: Memory) -> Self {
        let args: Vec<String> = match memory {
            Memory::Hugepages => run_args(["-l", "0", "--no-pci", "--log-level=error"]),
            Memory::Ordinary => TEST_ARGS.iter().map(ToString::to_string).collect(),
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
            eal,
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

    /// A pool of so few mbufs that whoever has none left has to wait for the reader.
    ///
    /// # Panics
    /// With the reason, if there is no memory for it.
    pub fn small_pool(&self, mbufs: u32) -> PoolOwner {
        let config = PoolConfig { mbufs, cache: 64, ..PoolConfig::default() };
        let pool = Mempool::new(self.eal, &config).unwrap_or_else(|error| panic!("{error}"));
        pool.own().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A clock that begins now.
    pub fn clock(&self) -> Clock {
        Clock::new(self.eal)
    }

    /// Runs every contender that fits over `chunks` chunks of the workload, `rounds` times, a fresh
    /// connection each time, chunk by chunk in turns.
    pub fn compare(
        &mut self,
        workload: Workload,
        contenders: &mut [Box<dyn Contender>],
        chunks: usize,
        rounds: usize,
    ) -> Vec<Row> {
        let mut contenders: Vec<_> = contenders.iter_mut().filter(|c| c.fits(workload)).collect();
        let pieces = workload.pieces((WARM_UP + chunks) * CHUNK);
        let mut minima = vec![Minima::new(chunks); contenders.len()];
        let mut bytes = vec![0; contenders.len()];
        for _ in 0..rounds {
            let client = Client::any();
            let iss: Vec<u32> = contenders.iter_mut().map(|c| c.open(&client)).collect();
            for (at, chunk) in pieces.chunks(CHUNK).enumerate() {
                for (i, contender) in contenders.iter_mut().enumerate() {
                    self.load(&client, iss[i], chunk);
                    let (time, read) = self.time(contender.as_mut(), &mut Careless);
                    bytes[i] += read;
                    if let Some(counted) = at.checked_sub(WARM_UP) {
                        minima[i].record(counted, time);
                    }
                }
            }
        }
        let sent = rounds * pieces.len() * workload.segment_len() as usize;
        contenders
            .iter()
            .zip(minima)
            .zip(bytes)
            .map(|((contender, minima), delivered)| Row {
                workload,
                name: contender.name(),
                ns_per_segment: minima.ns_per_segment(CHUNK),
                sent,
                delivered,
            })
            .collect()
    }

    /// Runs one contender over `chunks` counted chunks, on as many fresh connections as that takes,
    /// and returns the time of the counted part.
    pub fn run(
        &mut self,
        workload: Workload,
        contender: &mut dyn Contender,
        chunks: usize,
    ) -> Duration {
        let mut total = Duration::ZERO;
        for begin in (0..chunks).step_by(CHUNKS) {
            let pieces = workload.pieces((WARM_UP + CHUNKS.min(chunks - begin)) * CHUNK);
            let client = Client::any();
            let iss = contender.open(&client);
            for (at, chunk) in pieces.chunks(CHUNK).enumerate() {
                self.load(&client, iss, chunk);
                let (time, _) = self.time(contender, &mut Careless);
                if at >= WARM_UP {
                    total += time;
                }
            }
        }
        total
    }

    /// Runs one contender over one connection of the workload and compares every byte it delivers
    /// with the stream. Returns the number of segments.
    ///
    /// # Errors
    /// Where the stream that came out departs from the one that went in.
    pub fn verify(
        &mut self,
        workload: Workload,
        contender: &mut dyn Contender,
    ) -> Result<usize, Mismatch> {
        let pieces = workload.pieces((WARM_UP + CHUNKS) * CHUNK);
        let stream = self.stream.clone();
        let mut verifier = Verifier::new(workload, &stream);
        let client = Client::any();
        let iss = contender.open(&client);
        let mut read = 0;
        for chunk in pieces.chunks(CHUNK) {
            self.load(&client, iss, chunk);
            read += self.time(contender, &mut verifier).1;
        }
        let sent = pieces.len() * workload.segment_len() as usize;
        // Who does not give the bytes gives at least their number.
        let seen = if contender.delivers() { verifier.finish()? } else { read };
        if read == sent && seen == sent {
            Ok(pieces.len())
        } else {
            Err(Mismatch::Length { sent, read, seen })
        }
    }

    /// Puts the frames of the pieces into the ring, their checksums taken as verified.
    pub fn load(&mut self, client: &Client, iss: u32, pieces: &[Piece]) {
        let stream = self.stream.clone();
        for piece in pieces {
            self.load_frame(&client.data(iss, *piece, &stream));
        }
    }

    /// Puts a frame into the ring, its checksums taken as verified.
    pub fn load_frame(&mut self, frame: &[u8]) {
        let mut mbuf = self.pool.pool().alloc().expect("a pool larger than a chunk");
        mbuf.extend(frame.len()).expect("room for a frame").copy_from_slice(frame);
        mbuf.set_checksum(Checksum::Good);
        let mut burst = prequeue::dpdk::Burst::<1>::new();
        burst.push(mbuf).expect("room for one");
        assert_eq!(self.far_tx.send(&mut burst), 1, "a ring larger than a chunk");
    }

    /// Takes a burst out of the ring; how many frames.
    pub fn rx(&mut self, burst: &mut Burst) -> usize {
        self.near_rx.rx(burst)
    }

    /// Runs what waits in the ring through the contender; the time it took and the bytes read.
    pub fn time(
        &mut self,
        contender: &mut dyn Contender,
        application: &mut dyn Application,
    ) -> (Duration, usize) {
        let began = Instant::now();
        let read = timed_part(&mut self.near_rx, contender, application);
        let time = began.elapsed();
        let mut answers = Burst::new();
        while self.far_rx.rx(&mut answers) > 0 {
            answers.clear();
        }
        (time, read)
    }
}

/// What is timed, and what callgrind is told to collect: by its name.
#[inline(never)]
#[unsafe(no_mangle)]
fn timed_part(
    rx: &mut RxQueue,
    contender: &mut dyn Contender,
    application: &mut dyn Application,
) -> usize {
    let mut burst = Burst::new();
    let mut read = 0;
    while rx.rx(&mut burst) > 0 {
        read += contender.burst(&mut burst, application);
    }
    read
}
