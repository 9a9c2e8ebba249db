//! The three scenarios with real threads: a poll thread, a reader, and a peer behind two rings.
//!
//! What the stage plays under a virtual clock happens here in real time, so that what is printed
//! differs from run to run. No device, no privilege: DPDK's ring ports stand in for the wire.

use std::error::Error;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use prequeue::buf::PacketBuf;
use prequeue::dpdk::ring_port::RingPort;
use prequeue::dpdk::{
    Burst, Eal, Mempool, PoolConfig, PortConfig, RxQueue, Sharing, TxQueue, run_args,
};
use prequeue::socket::RecvFlags;
use prequeue::watch::Seen;
use prequeue::wire::Flags;
use prequeue::{Stack, TcpListener, TcpStream};

use super::peer::{Arrival, Link, OUR_ADDR, PORT, Sent, byte_at, syn};
use super::row;

/// One CPU polls; ordinary memory; no NICs; DPDK speaks of errors only.
const EAL_ARGS: [&str; 7] = ["-l", "0", "--no-pci", "--no-huge", "-m", "64", "--log-level=error"];

/// Long enough for a reader to have gone to sleep, and for a thread to be scheduled.
const MOMENT: Duration = Duration::from_millis(50);

/// Nothing takes as long as this, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

const S1: Arrival = Arrival::data("A", 1000, 1100);
const S2: Arrival = Arrival::data("B", 1100, 1250);
const S3: Arrival = Arrival::data("C", 1250, 1450);

/// Plays all three and prints what happened, when.
///
/// # Errors
/// If DPDK or the stack cannot be started.
pub fn run() -> Result<(), Box<dyn Error>> {
    let args = run_args(EAL_ARGS);
    let eal = Eal::init(args)?;
    let (near, far) = RingPort::pair(eal, 1, 512)?;
    let config = PoolConfig { mbufs: 1023, sharing: Sharing::AnyThread, ..PoolConfig::default() };
    let pool = Mempool::new(eal, &config)?;
    let config = PortConfig { pools: vec![pool.clone()], ..PortConfig::default() };
    let mut far = far.configure(config)?;
    let (rx, tx) = far.start()?.pop().ok_or("the peer's port has no queues")?;
    let stack = Stack::builder()
        .eal_args(EAL_ARGS)
        .port(near.id().number().to_string())
        .address(format!("{OUR_ADDR}/24"))
        .mbufs(4095)
        .start()?;
    let listener = stack.listen(PORT)?;
    let link = Link { mac: stack.interface().mac, port: 0 };
    let mut peer = Peer { rx, tx, pool, link, ack: 0 };
    peer.send(&Link::arp_request());
    type Play = fn(&Story, &mut Peer, &TcpStream);
    let plays: [(&str, Play); 3] = [
        ("1: everything arrives before recv", one),
        ("2: the reader sleeps", two),
        ("3: a hole fills while the reader sleeps; it wants 400 bytes", three),
    ];
    for (port, (title, play)) in (40_001..).zip(plays) {
        let stream = peer.connect(port, &listener)?;
        let story = Story { start: Instant::now(), lines: Mutex::new(Vec::new()) };
        play(&story, &mut peer, &stream);
        println!("Scenario {title}\n\n{}", story.told());
    }
    let counters = stack.counters();
    println!("counters that are not 0:");
    for counter in prequeue::tcp::Counter::ALL {
        let value = counters.value(*counter);
        if value != 0 {
            println!("  {:16} {value:4}  {}", counter.name(), counter.meaning());
        }
    }
    // The port on our side of the rings ends before the rings do.
    drop((listener, stack));
    Ok(())
}

fn one(story: &Story, peer: &mut Peer, stream: &TcpStream) {
    peer.says(story, S1);
    peer.hears(story, S1);
    peer.says(story, S3);
    peer.hears_of_hole(story);
    peer.says(story, S2);
    peer.hears(story, S3);
    story.looks(stream);
    reads(story, stream);
}

fn two(story: &Story, peer: &mut Peer, stream: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| reads(story, stream));
        thread::sleep(MOMENT);
        story.looks(stream);
        peer.says(story, S1);
        peer.hears(story, S1);
    });
}

fn three(story: &Story, peer: &mut Peer, stream: &TcpStream) {
    stream.set_receive_low_water(400).expect("400 bytes fit");
    peer.says(story, S1);
    peer.hears(story, S1);
    thread::scope(|scope| {
        scope.spawn(|| reads(story, stream));
        thread::sleep(MOMENT);
        peer.says(story, S3);
        peer.hears_of_hole(story);
        story.looks(stream);
        peer.says(story, S2);
        peer.hears(story, S3);
    });
}

/// A recv on the calling thread.
fn reads(story: &Story, stream: &TcpStream) {
    let mut buf = [0; 4096];
    story.tell("reader: recv(4096)".to_owned());
    let result = stream.recv(&mut buf, RecvFlags::NONE);
    story.tell(match &result {
        Ok(n) => format!("reader: recv returns {n}"),
        Err(error) => format!("reader: recv fails: {error}"),
    });
    let n = result.unwrap_or(0);
    let right = buf[..n].iter().zip(1000..).all(|(byte, seq)| *byte == byte_at(seq));
    story.tell(format!("reader: the bytes are {}", if right { "right" } else { "WRONG" }));
}

/// What happened when, told by several threads.
struct Story {
    start: Instant,
    lines: Mutex<Vec<(Duration, String)>>,
}

impl Story {
    fn tell(&self, line: String) {
        self.tell_of(self.start.elapsed(), line);
    }

    fn tell_of(&self, time: Duration, line: String) {
        self.lines.lock().unwrap_or_else(|lines| lines.into_inner()).push((time, line));
    }

    /// Looks at the queues.
    fn looks(&self, stream: &TcpStream) {
        let Seen { owner, reader, connection, .. } = stream.handle().seen();
        let mut text = format!("queues: owner {}", row::owner(owner));
        if let Some(connection) = connection {
            text += &format!(
                ", rcv_nxt {}, receive {}, out of order {}",
                connection.rcv_nxt,
                row::ranges(&connection.receive),
                row::ranges(&connection.out_of_order),
            );
        }
        if let Some(reader) = reader {
            let ring = reader.ring.map_or_else(|| "none".to_owned(), |ring| row::ranges(&ring));
            text += &format!(", copied_seq {}, prequeue {ring}", reader.copied_seq);
        }
        self.tell(text);
    }

    fn told(self) -> String {
        let mut lines = self.lines.into_inner().unwrap_or_else(|lines| lines.into_inner());
        lines.sort();
        let line = |(time, line): &(Duration, String)| {
            format!("  {:9.1} µs  {line}\n", time.as_nanos() as f64 / 1000.0)
        };
        lines.iter().map(line).collect()
    }
}

/// The sender, which talks in frames from the calling thread.
struct Peer {
    rx: RxQueue,
    tx: TxQueue,
    pool: Mempool,
    link: Link,
    /// What it acknowledges.
    ack: u32,
}

impl Peer {
    /// Opens a connection.
    fn connect(&mut self, port: u16, listener: &TcpListener) -> Result<TcpStream, Box<dyn Error>> {
        self.link.port = port;
        self.send(&syn(&self.link));
        let syn_ack = self.receive(|sent| sent.flags.has(Flags::SYN)).ok_or("no SYN-ACK came")?;
        self.ack = syn_ack.seq.wrapping_add(1);
        let frame = Arrival::ack(super::peer::FIRST).frame(&self.link, self.ack);
        self.send(&frame);
        Ok(listener.accept()?.0)
    }

    fn says(&mut self, story: &Story, segment: Arrival) {
        let frame = segment.frame(&self.link, self.ack);
        let time = story.start.elapsed();
        self.send(&frame);
        story.tell_of(time, format!("peer: sends {}", segment.text()));
    }

    /// Waits for the ACK of a segment.
    fn hears(&mut self, story: &Story, segment: Arrival) {
        let (_, span) = segment.named_span();
        let heard = self.receive(|sent| sent.ack == span.seq + span.len);
        self.tells(story, heard, &segment.text());
    }

    /// Waits for an ACK that reports what is above a hole.
    fn hears_of_hole(&mut self, story: &Story) {
        let heard = self.receive(|sent| !sent.sack.is_empty());
        self.tells(story, heard, "a hole");
    }

    fn tells(&self, story: &Story, heard: Option<Sent>, what: &str) {
        story.tell(match heard {
            Some(sent) => format!("peer: hears {}", sent.text()),
            None => format!("peer: hears no ACK of {what}"),
        });
    }

    /// The next segment of the connection for which `wanted` holds.
    fn receive(&mut self, wanted: impl Fn(&Sent) -> bool) -> Option<Sent> {
        let end = Instant::now() + PATIENCE;
        let mut burst = Burst::<1>::new();
        while Instant::now() < end {
            if self.rx.rx(&mut burst) == 0 {
                thread::yield_now();
                continue;
            }
            let sent = Sent::read(burst.as_slice()[0].data());
            // The buffer is the lcore's to free. Sent back as it is, the frame is for somebody else, and
            // the lcore drops it.
            self.tx.send(&mut burst);
            if let Some(sent) = sent.filter(|sent| sent.port == self.link.port && wanted(sent)) {
                return Some(sent);
            }
        }
        None
    }

    fn send(&mut self, frame: &[u8]) {
        let mut burst = Burst::<1>::new();
        let mut mbuf = self.pool.alloc().expect("the peer has few buffers under way");
        let fits = mbuf.append(frame) && burst.push(mbuf).is_ok();
        assert!(fits, "frames are small");
        self.tx.send(&mut burst);
    }
}
