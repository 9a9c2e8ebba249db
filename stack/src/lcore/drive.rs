//! An engine with its device: bursts from the RX queue, frames to the TX queue, an eye on the pool.
//!
//! Driven by whoever polls, on its own thread: a poll loop of the stack, or an application that runs
//! to completion. One look at the clock per burst; it never waits, and what the device does not take
//! is kept for the next time or dropped.

use std::time::Duration;

use crate::buf::PacketBuf;
use crate::dpdk::{Burst, Clock, Mbuf, Mempool, PoolPlan, RxQueue, SpareMbufs, TxQueue};
use crate::socket::Mode;
use crate::tcp::Counter;
use crate::time::Instant;

use super::claims::Role;
use super::engine::Engine;
use super::fault::{BadWire, Faults};
use super::groups::BURST;
use super::{Pressure, Transmit};

/// Frames that wait to be sent: two bursts, so that one may be refused while another is made.
const STAGED: usize = 2 * BURST;

/// Between two looks whether there is a link.
const LINK_INTERVAL: Duration = Duration::from_millis(20);

/// A queue pair and the engine behind it.
#[derive(Debug)]
pub(crate) struct Drive<M: Mode<Mbuf>> {
    pub engine: Engine<Mbuf, M>,
    rx: RxQueue,
    out: Out,
    pool: Mempool,
    spare: SpareMbufs,
    pub clock: Clock,
    /// When the last burst was taken.
    pub now: Instant,
    wire: Option<BadWire<Mbuf>>,
    gauge: Gauge,
    /// What is to be done about the addresses when there is a link, and when to look for one again.
    claiming: Option<(Role, Instant)>,
}

impl<M: Mode<Mbuf>> Drive<M> {
    /// Of the pools the first is for what is received, the second for what is sent, the third for
    /// what is acknowledged and not read when the first runs out.
    pub fn new(
        engine: Engine<Mbuf, M>,
        (rx, tx): (RxQueue, TxQueue),
        (pool, tx_pool, spare): (Mempool, Mempool, SpareMbufs),
        plan: PoolPlan,
        clock: Clock,
        faults: Faults,
    ) -> Self {
        Self {
            engine,
            gauge: Gauge::new(&pool, plan),
            rx,
            out: Out { tx, pool: tx_pool, staged: Burst::new(), dropped: 0 },
            pool,
            spare,
            clock,
            now: Instant::default(),
            wire: (!faults.are_none()).then(|| BadWire::new(faults)),
            claiming: None,
        }
    }

    /// Has the engine claim its addresses as soon as there is a link: what is asked before, nobody hears.
    pub fn claim_addresses(&mut self, role: Role) {
        self.claiming = Some((role, Instant::ZERO));
    }

    #[cold]
    fn look_for_link(&mut self, role: Role, next: Instant) {
        if self.now < next {
            return;
        }
        if self.rx.link().up {
            self.claiming = None;
            self.engine.claim_addresses(role);
        } else {
            self.claiming = Some((role, self.now + LINK_INTERVAL));
        }
    }

    /// One burst and one turn. Whether there was anything to do.
    pub fn poll(&mut self) -> bool {
        let mut burst = Burst::<BURST>::new();
        let came = self.rx.rx(&mut burst);
        let now = self.clock.now();
        self.now = now;
        if came > 0 {
            match &mut self.wire {
                None => {
                    let mut frames = burst.into_places();
                    self.engine.input(&mut frames[..came], now, &mut self.out);
                }
                Some(wire) => {
                    let mut frames = Vec::new();
                    for mbuf in burst.drain() {
                        wire.carry(mbuf, now, || self.pool.alloc(), &mut frames);
                    }
                    let mut frames: Vec<_> = frames.into_iter().map(Some).collect();
                    self.engine.input(&mut frames, now, &mut self.out);
                }
            }
        } else if let Some(wire) = &mut self.wire {
            let mut frames: Vec<Mbuf> = Vec::new();
            wire.wait(now, &mut frames);
            let mut frames: Vec<_> = frames.into_iter().map(Some).collect();
            self.engine.input(&mut frames, now, &mut self.out);
        }
        if let Some((role, next)) = self.claiming {
            self.look_for_link(role, next);
        }
        let busy = self.engine.turn(now, &mut self.out);
        if self.engine.pressure() != Pressure::None {
            self.engine.relieve(now, &mut self.out, &mut self.spare);
        }
        self.out.flush();
        self.engine.count(Counter::OutDiscards, std::mem::take(&mut self.out.dropped));
        self.gauge.look(&self.pool, &mut self.engine);
        came > 0 || busy
    }

    /// One turn of the engine, and nothing received.
    pub fn turn(&mut self) {
        self.engine.turn(self.clock.now(), &mut self.out);
        self.out.flush();
    }

    /// Ends everything: no socket is left alive, and no frame of ours unsent that the device takes.
    pub fn stop(&mut self) {
        self.engine.stop();
        self.out.flush();
    }
}

/// The way out: frames are copied into mbufs of a pool of their own and staged until the burst ends.
#[derive(Debug)]
struct Out {
    tx: TxQueue,
    pool: Mempool,
    staged: Burst<STAGED>,
    /// Frames that found neither an mbuf nor a place since this was last asked.
    dropped: u64,
}

impl Transmit for Out {
    fn send(&mut self, frame: &[u8]) {
        if self.staged.is_full() {
            self.flush();
        }
        // A peer sends again what an ACK was lost for; waiting here would stop the lcore.
        let sent = !self.staged.is_full()
            && self
                .pool
                .alloc()
                .is_some_and(|mut mbuf| mbuf.append(frame) && self.staged.push(mbuf).is_ok());
        self.dropped += u64::from(!sent);
    }
}

impl Out {
    /// Sends what the device takes; the rest stays for the next time.
    fn flush(&mut self) {
        if !self.staged.is_empty() {
            self.tx.send(&mut self.staged);
        }
    }
}

/// Watches how much of the pool is held, as often as it could change the answer.
#[derive(Debug)]
struct Gauge {
    /// Mbufs that sockets may hold.
    holdable: u32,
    /// Mbufs that the device holds.
    descriptors: u32,
    polls: u32,
}

impl Gauge {
    fn new(pool: &Mempool, plan: PoolPlan) -> Self {
        Self {
            holdable: plan.holdable(pool.capacity()),
            descriptors: plan.rx_descriptors,
            polls: 0,
        }
    }

    /// A poll takes a burst at most: as long as there is room for all that may come, the pool, whose
    /// caches have to be walked to count it, is left alone.
    fn look<M: Mode<Mbuf>>(&mut self, pool: &Mempool, engine: &mut Engine<Mbuf, M>) {
        if self.polls > 0 {
            self.polls -= 1;
            return;
        }
        let held = pool.in_use().saturating_sub(self.descriptors);
        let room = self.holdable.saturating_sub(held);
        engine.set_pressure(Pressure::of(room, self.holdable));
        self.polls = (room / (2 * BURST as u32)).clamp(1, 256);
    }
}
