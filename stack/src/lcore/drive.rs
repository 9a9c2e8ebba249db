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
use crate::wire::frame::MAX_CONTROL_LEN;
use crate::wire::{MacAddr, ethernet};

use super::claims::Role;
use super::engine::Engine;
use super::fault::{BadWire, Faults};
use super::groups::BURST;
use super::{Pressure, Transmit};

/// Frames that wait to be sent: two bursts, so that one may be refused while another is made.
const STAGED: usize = 2 * BURST;

/// Bytes of a frame before its type, or its tag.
const ADDRS_LEN: usize = 2 * size_of::<MacAddr>();

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
    /// The VLAN whose frames are taken.
    vlan: Option<u16>,
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
            gauge: Gauge::new(&pool, plan),
            rx,
            out: Out {
                tx,
                pool: tx_pool,
                staged: Burst::new(),
                dropped: 0,
                tag: engine.interface().vlan().map(ethernet::tag),
            },
            vlan: engine.interface().vlan(),
            pool,
            spare,
            clock,
            now: Instant::default(),
            wire: (!faults.are_none()).then(|| BadWire::new(faults)),
            claiming: None,
            engine,
        }
    }

    /// Has the engine claim its addresses as soon as there is a link: what is asked before, nobody hears.
    pub fn claim_addresses(&mut self, role: Role) {
        self.claiming = Some((role, Instant::ZERO));
    }

    /// The frames of a VLAN, without their tags. The others are dropped.
    fn without_tags(&mut self, mut burst: Burst<BURST>, vlan: u16) -> Burst<BURST> {
        let came = burst.len();
        let mut ours = Burst::new();
        for mut mbuf in burst.drain() {
            if mbuf.take_vlan() == Some(vlan) {
                // There is room: it is as long as the one that they were in.
                let _ = ours.push(mbuf);
            }
        }
        self.engine.count(Counter::OtherVlan, (came - ours.len()) as u64);
        ours
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
        let mut came = self.rx.rx(&mut burst);
        if let Some(vlan) = self.vlan
            && came > 0
        {
            burst = self.without_tags(burst, vlan);
            came = burst.len();
        }
        let now = self.clock.now();
        self.now = now;
        if came > 0 {
            match &mut self.wire {
                None => {
                    self.engine.input(&mut burst.take_places(), now, &mut self.out);
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
        self.gauge.look(&self.pool, &mut self.engine, now);
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

/// The way out: frames are put into mbufs of a pool of their own and staged until the burst ends.
#[derive(Debug)]
struct Out {
    tx: TxQueue,
    pool: Mempool,
    staged: Burst<STAGED>,
    /// Frames that found neither an mbuf nor a place since this was last asked.
    dropped: u64,
    /// What stands in each frame behind the addresses.
    tag: Option<[u8; ethernet::VLAN_LEN]>,
}

impl Transmit for Out {
    fn send(&mut self, frame: &[u8]) {
        self.stage(|mbuf| mbuf.append(frame));
    }

    #[inline]
    fn send_written(&mut self, write: impl FnOnce(&mut [u8; MAX_CONTROL_LEN]) -> usize) {
        self.stage(|mbuf| mbuf.append_written(write));
    }
}

impl Out {
    /// Stages an mbuf into which `fill` puts a frame, behind what there is in it; it says whether it could.
    #[inline]
    fn stage(&mut self, fill: impl FnOnce(&mut Mbuf) -> bool) {
        if self.staged.is_full() {
            self.flush();
        }
        // A peer sends again what an ACK was lost for; waiting here would stop the lcore.
        let sent = !self.staged.is_full()
            && self.pool.alloc().is_some_and(|mut mbuf| {
                let filled = match self.tag {
                    None => fill(&mut mbuf),
                    Some(tag) => {
                        mbuf.append(&tag) && fill(&mut mbuf) && put_behind_addrs(&tag, &mut mbuf)
                    }
                };
                filled && self.staged.push(mbuf).is_ok()
            });
        self.dropped += u64::from(!sent);
    }

    /// Sends what the device takes; the rest stays for the next time.
    fn flush(&mut self) {
        if !self.staged.is_empty() {
            self.tx.send(&mut self.staged);
        }
    }
}

/// Puts the tag where it belongs in an mbuf that begins with room for it; whether the frame has addresses.
fn put_behind_addrs(tag: &[u8; ethernet::VLAN_LEN], mbuf: &mut Mbuf) -> bool {
    let Some(head) = mbuf.data_mut().get_mut(..ADDRS_LEN + tag.len()) else { return false };
    head.copy_within(tag.len().., 0);
    head[ADDRS_LEN..].copy_from_slice(tag);
    true
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
    fn look<M: Mode<Mbuf>>(&mut self, pool: &Mempool, engine: &mut Engine<Mbuf, M>, now: Instant) {
        if self.polls > 0 {
            self.polls -= 1;
            return;
        }
        let held = pool.in_use().saturating_sub(self.descriptors);
        let room = self.holdable.saturating_sub(held);
        engine.set_pressure(Pressure::of(room, self.holdable), now);
        self.polls = (room / (2 * BURST as u32)).clamp(1, 256);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crate::buf::Checksum;
    use crate::dpdk::ring_port::RingPort;
    use crate::dpdk::{Eal, PoolConfig, PortConfig, Sharing, TEST_ARGS};
    use crate::lcore::hash::HashKey;
    use crate::lcore::{EngineConfig, Interface, local_engine};
    use crate::socket::Local;
    use crate::tcp::Settings;
    use crate::tcp::isn::Secret;
    use crate::wire::arp::{self, Arp, Operation};
    use crate::wire::{Flags, FourTuple, Outgoing, parse_tcp, tcp};

    use super::*;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    /// A drive of an interface over rings, and the other end of them.
    struct Bench {
        drive: Drive<Local>,
        rx: RxQueue,
        tx: TxQueue,
        pool: Mempool,
    }

    impl Bench {
        fn new(interface: Interface) -> Self {
            let eal = Eal::init(TEST_ARGS).unwrap();
            let pool = || {
                let sharing = Sharing::AnyThread;
                let config = PoolConfig { mbufs: 511, cache: 32, sharing, ..PoolConfig::default() };
                Mempool::new(eal, &config).unwrap()
            };
            let (near_pool, tx_pool, pool) = (pool(), pool(), pool());
            let (near, far) = RingPort::pair(eal, 1, 64).unwrap();
            let of =
                |pool: &Mempool| PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
            let pair = near.configure(of(&near_pool)).unwrap().start().unwrap().remove(0);
            let (rx, tx) = far.configure(of(&pool)).unwrap().start().unwrap().remove(0);
            let config = EngineConfig {
                settings: Settings::default(),
                interface,
                secret: Secret::from_seed(1),
                key: HashKey::new([1, 2]),
                max_connections: 10,
            };
            let spare = SpareMbufs::new(eal, 511, None).unwrap();
            let plan = PoolPlan { rx_descriptors: 0, tx_descriptors: 0, held: 0, cache: 32 };
            let pools = (near_pool, tx_pool, spare);
            let (engine, _) = local_engine(&config);
            let clock = Clock::new(eal);
            let drive = Drive::new(engine, pair, pools, plan, clock, Faults::default());
            Self { drive, rx, tx, pool }
        }

        /// Gives the drive a question for our address in this VLAN; what it answers.
        fn ask(&mut self, vlan: Option<u16>) -> Vec<Vec<u8>> {
            let question = Arp {
                operation: Operation::Request,
                sender_mac: PEER,
                sender_addr: Ipv4Addr::new(10, 0, 0, 9),
                target_mac: MacAddr([0; 6]),
                target_addr: OUR_ADDR,
            };
            let mut frame = [0; 64];
            let at = ethernet::emit(&mut frame, MacAddr::BROADCAST, PEER, vlan, ethernet::ARP);
            arp::emit(&mut frame[at..], &question);
            self.answers_to(&frame)
        }

        /// Gives the drive a frame; what it sends then.
        fn answers_to(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
            let mut mbuf = self.pool.alloc().unwrap();
            assert!(mbuf.append(frame));
            let mut burst = Burst::<1>::new();
            burst.push(mbuf).unwrap();
            self.tx.send(&mut burst);
            self.drive.poll();
            self.received()
        }

        fn received(&mut self) -> Vec<Vec<u8>> {
            let mut burst = Burst::<8>::new();
            self.rx.rx(&mut burst);
            burst.as_slice().iter().map(|mbuf| mbuf.data().to_vec()).collect()
        }
    }

    fn interface() -> Interface {
        Interface::new(US, 1500).with_address(OUR_ADDR, 24)
    }

    #[test]
    fn a_member_of_a_vlan_hears_and_says_nothing_outside_of_it() {
        let mut bench = Bench::new(interface().with_vlan(77));
        for vlan in [None, Some(0), Some(78), Some(76)] {
            assert!(bench.ask(vlan).is_empty(), "{vlan:?}");
        }
        assert_eq!(bench.drive.engine.counters().value(Counter::OtherVlan), 4);
        let answer = bench.ask(Some(77)).remove(0);
        let header = ethernet::parse(&answer).unwrap();
        assert_eq!((header.dst, header.src, header.vlan), (PEER, US, Some(77)));
        assert_eq!(arp::parse(&answer[header.header_len..]).unwrap().sender_addr, OUR_ADDR);
        assert_eq!(bench.drive.engine.counters().value(Counter::OtherVlan), 4);
        bench.drive.stop();
    }

    #[test]
    fn segments_are_written_with_the_tag_and_without_one() {
        let from_peer = FourTuple {
            local_addr: Ipv4Addr::new(10, 0, 0, 9).into(),
            remote_addr: OUR_ADDR.into(),
            local_port: 5000,
            remote_port: 80,
        };
        for vlan in [None, Some(77)] {
            let interface = interface();
            let mut bench = Bench::new(vlan.map_or(interface, |vlan| interface.with_vlan(vlan)));
            assert_eq!(bench.ask(vlan).len(), 1, "it knows from now on where the peer is");
            let mut frame = [0; MAX_CONTROL_LEN];
            let at = ethernet::emit(&mut frame, US, PEER, vlan, ethernet::IPV4);
            let out = Outgoing { ack: 4711, flags: Flags::ACK, ..Outgoing::default() };
            let len = at + tcp::emit(&mut frame[at..], &from_peer, &out, 0, &[]);

            let reset = bench.answers_to(&frame[..len]).remove(0);
            let header = ethernet::parse(&reset).unwrap();
            assert_eq!((header.dst, header.src, header.vlan), (PEER, US, vlan));
            assert_eq!(reset.len(), header.header_len + 40, "IPv4 and TCP, and nothing behind");
            let parsed = parse_tcp(&reset, Checksum::Unknown).unwrap();
            assert_eq!((parsed.tuple.remote_port, parsed.segment.seq), (80, 4711));
            assert_eq!(parsed.segment.flags, Flags::RST);
            bench.drive.stop();
        }
    }

    #[test]
    fn who_is_in_no_vlan_is_not_heard_in_one() {
        let mut bench = Bench::new(interface());
        assert!(bench.ask(Some(77)).is_empty());
        for vlan in [None, Some(0)] {
            let answer = bench.ask(vlan).remove(0);
            assert_eq!(ethernet::parse(&answer).unwrap().vlan, None, "a priority is no VLAN");
        }
        bench.drive.stop();
    }

    #[test]
    fn addresses_are_claimed_when_there_is_a_link() {
        let mut bench = Bench::new(interface());
        bench.drive.poll();
        assert!(bench.received().is_empty(), "nobody has asked for it");
        bench.drive.claim_addresses(Role::Speaks);
        bench.drive.poll();
        let probe = bench.received().remove(0);
        let arp = arp::parse(&probe[14..]).unwrap();
        assert_eq!((arp.sender_addr, arp.target_addr), (Ipv4Addr::UNSPECIFIED, OUR_ADDR));
        bench.drive.stop();
    }
}
