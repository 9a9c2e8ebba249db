//! What the receive path allocates once it runs: nothing, or a number that is written down here.
//!
//! Over real mbufs from an in-process port. Allocations are counted for each thread by itself; DPDK
//! takes its memory when it is set up and is not seen by the counter.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use allocation_counter::measure;
use prequeue::socket::RecvFlags;
use prequeue_benches::bench::{Bench, CHUNK};
use prequeue_benches::contender::{Burst, Careless, Contender, READ_BUFFER};
use prequeue_benches::engine::{Receiver, Tx};
use prequeue_benches::frames::Client;
use prequeue_benches::memory::Memory;
use prequeue_benches::workload::{Piece, Workload};

/// Segments that are counted, at least.
const SEGMENTS: usize = 10_000;

/// Segments before them: windows open, and what grows has grown.
const WARM_UP: usize = 4 * CHUNK;

/// A bench with our receiver on it and an open connection.
struct Scene {
    bench: Bench,
    receiver: Receiver,
    client: Client,
    iss: u32,
}

impl Scene {
    fn new() -> Self {
        let mut bench = Bench::new(Memory::Ordinary);
        let tx = bench.take_tx().unwrap();
        let tx = Tx::new(bench.pool(), tx);
        let receiver = Receiver::new(bench.pool(), tx);
        Self { bench, receiver, client: Client::any(), iss: 0 }
    }

    /// A fresh connection.
    fn open(&mut self) {
        self.client = Client::any();
        self.iss = self.receiver.open(&self.client);
    }

    /// Receives the pieces, a chunk at most; how often that allocated, and how much was read.
    fn receive(&mut self, pieces: &[Piece]) -> (u64, usize) {
        self.bench.load(&self.client, self.iss, pieces);
        let mut read = 0;
        let count = measure(|| read = self.bench.time(&mut self.receiver, &mut Careless).1);
        (count.count_total, read)
    }

    /// A turn of the lcore with nothing received.
    fn idle(&mut self) -> u64 {
        measure(|| {
            self.receiver.burst(&mut Burst::new(), &mut Careless);
        })
        .count_total
    }
}

#[test]
fn segments_in_order_allocate_nothing() {
    let mut scene = Scene::new();
    for workload in [Workload::W1, Workload::W2] {
        scene.open();
        let pieces = workload.pieces(WARM_UP + SEGMENTS);
        let (warm_up, counted) = pieces.split_at(WARM_UP);
        for chunk in warm_up.chunks(CHUNK) {
            scene.receive(chunk);
        }
        let (mut allocations, mut read) = (0, 0);
        for chunk in counted.chunks(CHUNK) {
            let (count, bytes) = scene.receive(chunk);
            allocations += count;
            read += bytes;
        }
        assert_eq!(read, SEGMENTS * workload.segment_len() as usize);
        assert_eq!(allocations, 0, "{workload:?}");
    }
}

/// Runs [`SEGMENTS`] to a thread that reads them all, through its ring or, where it owns the socket
/// at the time, through the backlog. Returns allocations of the lcore and of the reader, and the
/// reader's calls.
fn beside_a_reader(scene: &mut Scene, exclusive: bool, workload: Workload) -> (u64, u64, u64) {
    scene.open();
    let mut stream = scene.receiver.take_stream().unwrap();
    let len = workload.segment_len() as usize;
    let pieces = workload.pieces(WARM_UP + SEGMENTS);
    let total = pieces.len() * len;
    let progress = &AtomicUsize::new(0);
    // Nobody can tell how much will wait in the backlog while the reader owns the socket, a chunk at
    // most: it grows to that now.
    let guard = stream.lock();
    scene.receive(&pieces[..CHUNK]);
    drop(guard);
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut buf = vec![0; READ_BUFFER];
            let mut calls = 0;
            let mut allocations = 0;
            let mut read = 0;
            let mut until = |end, recv: &mut dyn FnMut(&mut [u8]) -> usize| {
                let count = measure(|| {
                    while read < end {
                        read += recv(&mut buf);
                        calls += 1;
                        progress.store(read, Ordering::Release);
                    }
                });
                allocations = count.count_total;
            };
            let mut both = |recv: &mut dyn FnMut(&mut [u8]) -> usize| {
                until(WARM_UP * len, recv);
                until(total, recv);
            };
            if exclusive {
                let mut reader = stream.reader().unwrap();
                both(&mut |buf| reader.recv(buf, RecvFlags::NONE).unwrap());
            } else {
                both(&mut |buf| stream.recv(buf, RecvFlags::NONE).unwrap());
            }
            (allocations, calls)
        });
        let mut allocations = 0;
        for (at, chunk) in pieces.chunks(CHUNK).enumerate() {
            let mut count = if at == 0 { 0 } else { scene.receive(chunk).0 };
            // The pool is not much larger than a chunk: the next must wait for the buffers.
            let end = (at * CHUNK + chunk.len()) * len;
            while progress.load(Ordering::Acquire) < end {
                count += scene.idle();
                thread::yield_now();
            }
            if at * CHUNK >= WARM_UP {
                allocations += count;
            }
        }
        let (reader, calls) = reader.join().unwrap();
        (allocations, reader, calls)
    })
}

#[test]
fn a_reader_with_its_ring_installed_allocates_nothing_and_neither_does_the_lcore() {
    let mut scene = Scene::new();
    for workload in [Workload::W1, Workload::W2] {
        let (lcore, reader, _) = beside_a_reader(&mut scene, true, workload);
        assert_eq!((lcore, reader), (0, 0), "lcore and reader, {workload:?}");
    }
}

#[test]
fn a_call_that_waits_on_a_shared_stream_allocates_no_more_than_its_ring() {
    let (lcore, reader, calls) = beside_a_reader(&mut Scene::new(), false, Workload::W1);
    println!("lcore {lcore}, reader {reader} in {calls} calls");
    assert_eq!(lcore, 0);
    assert!(reader <= 2 * calls, "{reader} allocations in {calls} calls");
}

#[test]
fn a_hole_allocates_for_the_nodes_of_its_tree_and_never_for_each_segment() {
    let mut scene = Scene::new();
    for behind in [1, 4, 8, 16, 32, 64, 128, 200] {
        scene.open();
        let pieces = Workload::W1.pieces(60 * CHUNK);
        for (holes, chunk) in pieces.chunks(CHUNK).enumerate() {
            let mut chunk = chunk.to_vec();
            chunk[..=behind].rotate_left(1);
            let (count, _) = scene.receive(&chunk);
            assert!(count <= 2 + behind as u64 / 8, "{count} for {behind} segments behind a hole");
            // The room of the first hole is kept.
            assert!(count == 0 || holes == 0 || behind > 16, "{count} for one more hole");
        }
    }
}
