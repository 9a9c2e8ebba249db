//! The same over real mbufs: what unread data costs, and a pool that one connection would empty.
//!
//! Frames are put into mbufs of a pool as a device would; the pool's fill decides about pressure by
//! the poll loop's rule.

use super::*;
use crate::buf::PacketBuf;
use crate::dpdk::{Eal, Mbuf, Mempool, PoolConfig, PoolOwner, SpareMbufs, TEST_ARGS};

pub(super) struct MbufWorld {
    pub(super) engine: Engine<Mbuf>,
    spare: SpareMbufs,
    pub(super) pool: Mempool,
    pub(super) now: Instant,
    pub(super) sent: Vec<Vec<u8>>,
    /// Mbufs that sockets may hold: the others stand for the descriptors of a device.
    holdable: u32,
    peers: u16,
    pub(super) listener: TcpListener<Mbuf>,
    _owners: Vec<PoolOwner>,
}

impl MbufWorld {
    pub(super) fn new(mbufs: u32, rcvbuf: u32) -> Self {
        Self::with_interface(
            mbufs,
            rcvbuf,
            Interface::new(OUR_MAC, 1500).with_address(OUR_ADDR, 24),
        )
    }

    pub(super) fn with_interface(mbufs: u32, rcvbuf: u32, interface: Interface) -> Self {
        let eal = Eal::init(TEST_ARGS).unwrap();
        let pool =
            Mempool::new(eal, &PoolConfig { mbufs, cache: 32, ..PoolConfig::default() }).unwrap();
        let spare = SpareMbufs::new(eal, mbufs, None).unwrap();
        let [small, large] = spare.pools();
        let owners = [&pool, small, large].map(|pool| pool.own().unwrap());
        let mut settings = Settings::default();
        settings.tcp_rmem[1] = rcvbuf;
        let config = EngineConfig {
            settings,
            interface,
            secret: Secret::from_seed(1),
            key: HashKey::new([3, 4]),
            max_connections: 1000,
        };
        let (mut engines, listeners) = engines(&config, 1);
        let queue = listeners.listen(PORT, 1000).unwrap();
        let mut world = Self {
            engine: engines.pop().unwrap(),
            holdable: mbufs - mbufs / 4,
            spare,
            pool,
            now: Instant::from_millis(1000),
            sent: Vec::new(),
            peers: 0,
            listener: TcpListener::new(queue, SocketAddrV4::new(OUR_ADDR, PORT)),
            _owners: owners.into(),
        };
        world.turn();
        world
    }

    pub(super) fn turn(&mut self) {
        let news = News { addr: PEER_ADDR.into(), mac: PEER_MAC };
        self.engine.learn_neighbour(news, self.now, &mut self.sent);
        while self.engine.turn(self.now, &mut self.sent) {}
    }

    /// One poll with these frames; the device must always find mbufs for them.
    pub(super) fn poll(&mut self, frames: &[Vec<u8>]) {
        let mbuf = |frame: &Vec<u8>| {
            let mut mbuf = self.pool.alloc().expect("the device can always receive");
            assert!(mbuf.append(frame));
            Some(mbuf)
        };
        let mut burst: Vec<_> = frames.iter().map(mbuf).collect();
        self.engine.input(&mut burst, self.now, &mut self.sent);
        self.turn();
        let room = self.holdable.saturating_sub(self.pool.in_use());
        self.engine.set_pressure(Pressure::of(room, self.holdable), self.now);
        if self.engine.pressure() != Pressure::None {
            self.engine.relieve(self.now, &mut self.sent, &mut self.spare);
        }
    }

    pub(super) fn connect(&mut self) -> (Peer, TcpStream<Mbuf>) {
        self.peers += 1;
        let mut peer = Peer::new(30_000 + self.peers);
        self.poll(&[peer.syn()]);
        let syn_ack = self.last_sent();
        peer.seq += 1;
        peer.ack = syn_ack.seq.wrapping_add(1);
        self.poll(&[peer.ack()]);
        self.listener.set_nonblocking(true).unwrap();
        (peer, self.listener.accept().unwrap().0)
    }

    pub(super) fn last_sent(&self) -> Segment {
        let frame = self.sent.last().expect("something was sent");
        parse_tcp(frame, Default::default()).unwrap().segment
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().value(counter)
    }

    /// Frees what is still held, on the lcore.
    pub(super) fn end(mut self) {
        self.turn();
        self.engine.stop();
    }
}

pub(super) fn recv(stream: &TcpStream<Mbuf>, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    let n = stream.recv(&mut buf, RecvFlags::DONTWAIT).unwrap();
    buf.truncate(n);
    buf
}

/// Message `n`.
fn message(n: u32) -> [u8; 64] {
    let mut message = [0; 64];
    message.as_chunks_mut::<4>().0.iter_mut().for_each(|word| *word = n.to_le_bytes());
    message
}

/// Fifty thousand messages of 64 bytes, in bursts of 32, that nobody reads; what they are charged,
/// and how many mbufs they take.
fn fifty_thousand(installed: bool) -> (u32, u32) {
    const MESSAGES: u32 = 50_000;
    let mut world = MbufWorld::new(4095, 6 << 20);
    let (mut peer, stream) = world.connect();
    let mut buf = vec![0; 64 * MESSAGES as usize];
    let mut call = installed.then(|| {
        let mut call = Recv::new(stream.handle(), &mut buf, RecvFlags::WAITALL, || Instant::ZERO);
        assert!(matches!(call.step(Instant::ZERO), Step::Sleep(_)));
        call
    });
    for burst in 0..MESSAGES / 32 + 1 {
        let numbers = burst * 32..(burst * 32 + 32).min(MESSAGES);
        let frames: Vec<_> = numbers.map(|n| peer.data(&message(n))).collect();
        world.poll(&frames);
        world.now = world.now + Duration::from_micros(100);
        assert!(world.last_sent().window > 0, "the window stays open");
    }
    let held = world.engine.find_holders(&mut HolderScan::default()).unwrap()[0];
    let mbufs = world.pool.in_use();
    assert_eq!(stream.readable(), 64 * MESSAGES);
    for dropped in [Counter::TCPRcvQDrop, Counter::PoolPressureDrop, Counter::TCPZeroWindowDrop] {
        assert_eq!(world.count(dropped), 0);
    }
    let mut queued = Vec::new();
    match &mut call {
        Some(call) => assert_eq!(call.step(Instant::ZERO), Step::Done(64 * MESSAGES as usize)),
        None => queued = recv(&stream, 64 * MESSAGES as usize),
    }
    drop(call);
    let all = if installed { buf } else { queued };
    assert!((0..MESSAGES).zip(all.as_chunks::<64>().0).all(|(n, bytes)| *bytes == message(n)));
    world.turn();
    assert_eq!(world.pool.in_use(), 0);
    drop(stream);
    world.end();
    (held.rmem, mbufs)
}

#[test]
fn fifty_thousand_unread_messages_of_64_bytes_fit_in_a_few_megabytes() {
    for installed in [false, true] {
        let (charged, mbufs) = fifty_thousand(installed);
        println!(
            "3.2 MB in 50,000 messages, ring installed: {installed}: {:.2} MiB in {mbufs} mbufs",
            f64::from(charged) / f64::from(1 << 20),
        );
        assert!(charged < 4 << 20 && mbufs < 1800, "{charged} {mbufs}");
    }
}

#[test]
fn a_hoard_in_one_connection_starves_no_other() {
    // Its buffer would take all mbufs three times over.
    let mut world = MbufWorld::new(1023, 8 << 20);
    let (mut hoarder, hoard) = world.connect();
    let (mut other, stream) = world.connect();
    let mut held = 0;
    for round in 0..300_u32 {
        if world.count(Counter::PoolPressureDrop) == 0 {
            // Small enough to waste their mbufs, too large to be copied together as they come.
            let first = round * 16;
            let frames: Vec<_> =
                (first..first + 16).map(|n| hoarder.data(&[n as u8; 300])).collect();
            world.poll(&frames);
        } else if held == 0 {
            held = hoard.readable() as usize / 300;
        } else {
            let again = hoarder.segment(ACK, 0, &[0; 300]);
            world.poll(&[again]);
        }
        let frame = other.data(&[round as u8; 1000]);
        world.poll(&[frame]);
        assert_eq!(recv(&stream, 2000), [round as u8; 1000], "the other gets through at once");
        world.turn();
    }
    println!("{held} frames of one connection held, {} mbufs in use", world.pool.in_use());
    // More than the pool has, and all of it is there.
    assert!(held > 1023, "{held}");
    assert!(world.count(Counter::PoolPressureDrop) > 100, "it has tried to hold more");
    let all = recv(&hoard, held * 300);
    assert!(all.chunks(300).zip(0_u32..).all(|(chunk, n)| chunk == [n as u8; 300]));
    drop((hoard, stream));
    world.end();
}

#[test]
fn a_flood_above_holes_is_pruned_and_the_others_go_on() {
    let mut world = MbufWorld::new(1023, 8 << 20);
    let (mut other, stream) = world.connect();
    let attackers: Vec<_> = (0..20).map(|_| world.connect()).collect();
    for round in 0..200_u32 {
        for (peer, _) in &attackers {
            let frame = peer.segment(ACK, 100 + 400 * round, &[7; 300]);
            world.poll(&[frame]);
        }
        let frame = other.data(&[round as u8; 1000]);
        world.poll(&[frame]);
        assert_eq!(recv(&stream, 2000), [round as u8; 1000], "the other gets through at once");
        world.turn();
    }
    assert!(world.count(Counter::OfoPruned) > 0 && world.count(Counter::PoolPressureDrop) > 0);
    let holders = world.engine.find_holders(&mut HolderScan::default()).unwrap();
    assert_eq!(holders.len(), 16);
    assert!(holders.is_sorted_by_key(|holder| std::cmp::Reverse(holder.rmem)));
    drop((attackers, stream));
    world.end();
}

#[test]
fn many_connections_with_one_small_segment_each_do_not_empty_the_pool() {
    let mut world = MbufWorld::new(511, 131_072);
    let mut all = Vec::new();
    for n in 0..700_u32 {
        let (mut peer, stream) = world.connect();
        let frame = peer.data(&message(n));
        world.poll(&[frame]);
        all.push(stream);
    }
    println!(
        "{} refused, {} mbufs in use",
        world.count(Counter::PoolPressureDrop),
        world.pool.in_use()
    );
    let held = all.iter().filter(|stream| stream.readable() > 0).count();
    assert!(held > 511, "{held} of 700 are held, more than there are mbufs");
    for (stream, n) in all.iter().zip(0..).filter(|(stream, _)| stream.readable() > 0) {
        assert_eq!(recv(stream, 100), message(n));
    }
    drop(all);
    world.end();
}
