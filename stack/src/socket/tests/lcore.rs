//! A fake lcore on a thread of its own: real connections, a peer that respects their window, and
//! buffers that know where they may be freed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use crate::buf::{HeapBuf, Owner, PacketBuf, Returns, SegCb};
use crate::socket::{Claim, Deferred, Handle, Home, LcoreRef, SocketId};
use crate::tcp::negotiate::Scale;
use crate::tcp::request::Opened;
use crate::tcp::tcb::{State, Tcb, Verdict};
use crate::tcp::{Counters, Cx, SeqNum, Settings};
use crate::time::Instant;
use crate::wire::{Family, Flags, FourTuple, Outgoing, Segment};

const OWNER: Owner = Owner::new(3, 9);

/// Shortly before the wrap.
const IRS: u32 = u32::MAX - 100_000;
const SHIFT: u8 = 7;
const MSS: u32 = 1460;

/// Buffers alive, and the thread that may free them.
#[derive(Debug, Default)]
pub(super) struct Live {
    count: AtomicUsize,
    owner: OnceLock<ThreadId>,
    /// The lcore has stopped: whoever is last frees.
    released: AtomicBool,
}

impl Live {
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// A heap buffer that counts itself and notices being freed on an application thread.
#[derive(Debug)]
pub(super) struct Buf {
    inner: HeapBuf,
    live: Arc<Live>,
}

impl Buf {
    fn new(bytes: &[u8], live: &Arc<Live>) -> Self {
        live.count.fetch_add(1, Ordering::SeqCst);
        Self { inner: HeapBuf::new(bytes), live: live.clone() }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.live.count.fetch_sub(1, Ordering::SeqCst);
        let here = thread::current().id();
        let released = self.live.released.load(Ordering::SeqCst);
        if !released && !thread::panicking() {
            assert_eq!(self.live.owner.get(), Some(&here), "freed on an application thread");
        }
    }
}

impl PacketBuf for Buf {
    type Queue = VecDeque<Self>;
    type Returns = Given;

    fn data(&self) -> &[u8] {
        self.inner.data()
    }
    fn trim_front(&mut self, n: usize) {
        self.inner.trim_front(n);
    }
    fn truncate(&mut self, len: usize) {
        self.inner.truncate(len);
    }
    fn append(&mut self, bytes: &[u8]) -> bool {
        self.inner.append(bytes)
    }
    fn truesize(&self) -> u32 {
        self.inner.truesize()
    }
    fn cb(&self) -> &SegCb {
        self.inner.cb()
    }
    fn cb_mut(&mut self) -> &mut SegCb {
        self.inner.cb_mut()
    }
}

#[derive(Debug, Default)]
pub(super) struct Given(Mutex<VecDeque<Buf>>);

impl Given {
    /// By trying: what a thread does that has to wait for a mutex is hidden from the thread sanitizer.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Buf>> {
        loop {
            match self.0.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::WouldBlock) => thread::yield_now(),
                Err(TryLockError::Poisoned(error)) => panic!("{error}"),
            }
        }
    }
}

impl Returns<Buf> for Given {
    type Batch = VecDeque<Buf>;

    fn collect(batch: &mut VecDeque<Buf>, buf: Buf, truesize: u32) {
        assert_eq!(truesize, buf.truesize());
        batch.push_back(buf);
    }

    fn batch_len(batch: &VecDeque<Buf>) -> usize {
        batch.len()
    }

    fn give_batch(&self, batch: VecDeque<Buf>) {
        self.give(batch);
    }

    fn give(&self, mut chain: VecDeque<Buf>) {
        self.lock().append(&mut chain);
    }

    fn free_batch(batch: VecDeque<Buf>) -> u32 {
        batch.iter().map(PacketBuf::truesize).sum()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn free_all(&self, mut told: impl FnMut(Owner, u32)) {
        let given = std::mem::take(&mut *self.lock());
        for buf in given {
            told(buf.cb().owner, buf.truesize());
        }
    }
}

/// The byte at an offset of the stream.
pub(super) fn byte_at(offset: u64) -> u8 {
    // Mixed, so that few bytes tell where they stand.
    let mut x = offset.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x >> 56) as u8
}

/// What the peer does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Bytes before the end.
    pub(super) bytes: u64,
    pub(super) end: End,
    pub(super) rcvbuf: u32,
    /// Largest segment.
    pub(super) segment: u32,
    /// The lcore sleeps between bursts, so that readers park.
    pub(super) pause: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Fin,
    Reset,
    /// Nothing more comes, and nothing ends it.
    Silence,
    /// The same, but one segment comes that is not the next.
    Hole,
}

impl Plan {
    pub(super) const fn new(bytes: u64) -> Self {
        let pause = Duration::ZERO;
        Self { bytes, end: End::Fin, rcvbuf: 1 << 20, segment: MSS, pause }
    }
}

/// What the test sees of the lcore.
pub(super) struct Lcore {
    pub(super) home: Arc<Home<Buf>>,
    pub(super) live: Arc<Live>,
    stop: Arc<AtomicBool>,
    pub(super) go: Arc<AtomicBool>,
    /// Sockets that have come to their end.
    pub(super) reaped: Arc<AtomicU64>,
    /// Segments that found the socket owned.
    pub(super) deferred: Arc<AtomicU64>,
    thread: Option<JoinHandle<Counters>>,
}

impl Lcore {
    /// Starts one with a connection.
    pub(super) fn start(plan: Plan) -> (Self, Handle<Buf>) {
        let (lcore, handle) = Self::start_held(plan);
        lcore.go.store(true, Ordering::SeqCst);
        (lcore, handle)
    }

    /// The same, but it does not poll before `go` is set.
    pub(super) fn start_held(plan: Plan) -> (Self, Handle<Buf>) {
        let go = Arc::new(AtomicBool::new(false));
        let home = Arc::new(Home::<Buf>::default());
        let live = Arc::new(Live::default());
        let stop = Arc::new(AtomicBool::new(false));
        let reaped = Arc::new(AtomicU64::new(0));
        let deferred = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn({
            let (home, live) = (home.clone(), live.clone());
            let (stop, reaped) = (stop.clone(), reaped.clone());
            let (deferred, go) = (deferred.clone(), go.clone());
            move || {
                live.owner.set(thread::current().id()).unwrap();
                let (mut running, handle) = Running::new(plan, home, live, deferred);
                sender.send(handle).unwrap();
                while !go.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                while !stop.load(Ordering::SeqCst) {
                    running.poll();
                    reaped.fetch_add(running.home.reap() as u64, Ordering::SeqCst);
                    if plan.pause != Duration::ZERO {
                        thread::sleep(plan.pause);
                    }
                }
                running.stop(&reaped)
            }
        });
        let handle = receiver.recv().unwrap();
        (Self { home, live, stop, go, reaped, deferred, thread: Some(thread) }, handle)
    }

    /// Stops the lcore; what it counted.
    pub(super) fn stop(&mut self) -> Counters {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits until the socket has come to its end and every buffer is freed.
    pub(super) fn assert_all_comes_back(&self) {
        let start = std::time::Instant::now();
        while self.reaped.load(Ordering::SeqCst) != 1 || self.live.count() != 0 {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{} sockets reaped, {} buffers alive",
                self.reaped.load(Ordering::SeqCst),
                self.live.count()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.stop();
        }
    }
}

/// The lcore's own view.
struct Running {
    plan: Plan,
    home: Arc<Home<Buf>>,
    live: Arc<Live>,
    deferred: Arc<AtomicU64>,
    socket: Option<LcoreRef<Buf>>,
    settings: Settings,
    counters: Counters,
    start: std::time::Instant,
    peer: Peer,
    random: u64,
}

/// The sender at the other end.
#[derive(Debug)]
struct Peer {
    /// Offsets in the stream: the next to send, and the first not acknowledged.
    next: u64,
    acked: u64,
    /// Sequence number behind the window.
    edge: u32,
    /// When something was acknowledged last.
    progress: Instant,
    ended: bool,
    /// Our FIN has come, and is to be acknowledged.
    closing: bool,
}

impl Running {
    fn new(
        plan: Plan,
        home: Arc<Home<Buf>>,
        live: Arc<Live>,
        deferred: Arc<AtomicU64>,
    ) -> (Self, Handle<Buf>) {
        let settings =
            Settings { tcp_rmem: [4096, plan.rcvbuf, 33_554_432], ..Settings::default() };
        let mut counters = Counters::default();
        let opened = Opened {
            family: Family::V4,
            iss: SeqNum::new(1000),
            irs: SeqNum::new(IRS),
            rcv_wnd: 64_240,
            snd_wnd: 65_535,
            scale: Some(Scale { snd: SHIFT, rcv: SHIFT }),
            mss: MSS as u16,
            advmss: MSS as u16,
            sack_ok: true,
            ecn_ok: false,
            ts: None,
            synack_rtt: None,
        };
        let now = Instant::from_millis(1);
        let mut cx = Cx { now, settings: &settings, counters: &mut counters };
        let tcb = Tcb::new(&mut cx, &opened);
        let tuple = FourTuple {
            local_addr: [10, 0, 0, 1].into(),
            remote_addr: [10, 0, 0, 2].into(),
            local_port: 7000,
            remote_port: 40_000,
        };
        let id = SocketId { slot: 3, generation: 9 };
        let (socket, handle) = LcoreRef::new(tcb, &home, id, tuple);
        let peer = Peer {
            next: 0,
            acked: 0,
            edge: IRS.wrapping_add(1 + 64_240),
            progress: now,
            ended: false,
            closing: false,
        };
        let start = std::time::Instant::now();
        let socket = Some(socket);
        let random = 0x1234_5678_9abc_def1;
        (
            Self { plan, home, live, deferred, socket, settings, counters, start, peer, random },
            handle,
        )
    }

    fn poll(&mut self) {
        let now = Instant::from_nanos(1_000_000 + self.start.elapsed().as_nanos() as u64);
        let mut returned = 0;
        self.home.returns().free_all(|owner, truesize| {
            assert_eq!(owner, OWNER);
            returned += truesize;
        });
        let rung = self.home.take_bells().inspect(|id| assert_eq!(id.slot, 3)).count() != 0;
        let Some(socket) = self.socket.take() else { return };
        let burst = self.burst(now);
        if let Some(mut claim) = socket.claim() {
            self.work(&mut claim, now, returned, burst, rung);
            claim.leave();
        } else {
            let mut all = vec![];
            self.deferred.fetch_add(burst.len() as u64, Ordering::SeqCst);
            if returned != 0 {
                all.push(Deferred::Uncharge(returned));
            }
            all.extend(burst.into_iter().map(|(seg, buf)| Deferred::Segment(seg, buf)));
            if rung {
                all.push(Deferred::Bell);
            }
            for what in all {
                if let Some(mut claim) = socket.defer(what, &mut self.counters) {
                    self.work(&mut claim, now, 0, vec![], false);
                    claim.leave();
                }
            }
        }
        let over = socket.claim().is_some_and(|mut claim| {
            // What was deferred in between comes first, always.
            self.work(&mut claim, now, 0, vec![], false);
            claim.tcb().state() == State::Closed
        });
        if !over {
            self.socket = Some(socket);
        }
    }

    fn work(
        &mut self,
        claim: &mut Claim<'_, Buf>,
        now: Instant,
        returned: u32,
        burst: Vec<(Segment, Buf)>,
        rung: bool,
    ) {
        let mut out = Vec::new();
        let mut cx = Cx { now, settings: &self.settings, counters: &mut self.counters };
        let mut progress = rung || returned != 0;
        let mut segments = Vec::new();
        while let Some(what) = claim.next_deferred() {
            match what {
                Deferred::Segment(seg, buf) => segments.push((seg, buf)),
                Deferred::Uncharge(n) => {
                    claim.tcb().uncharge(n);
                    progress = true;
                }
                Deferred::Bell => progress = true,
                Deferred::Timer => {}
                Deferred::Icmp(seq, report) => claim.tcb().on_icmp(&mut cx, seq, report),
            }
        }
        claim.tcb().uncharge(returned);
        segments.extend(burst);
        for (seg, buf) in segments {
            let (tcb, sink) = claim.parts();
            match tcb.on_segment(&mut cx, &seg, buf, sink) {
                Verdict::Predicted | Verdict::Later => {}
                Verdict::Ack => out.push(tcb.ack_now(&mut cx)),
                Verdict::Send(segment) => out.push(segment),
            }
        }
        progress |= claim.return_memory();
        out.extend(claim.tcb().end_burst(&mut cx));
        let copied_seq = claim.copied_seq();
        if progress {
            out.extend(claim.tcb().reader_progress(&mut cx, copied_seq));
        }
        let requests = claim.take_requests();
        let tcb = claim.tcb();
        if requests.shut_read() {
            tcb.shutdown_read();
        }
        if requests.shut_write() {
            out.extend(tcb.shutdown_write(&mut cx));
        }
        if requests.abort() {
            out.extend(tcb.abort(&mut cx));
        }
        if let Some(linger_zero) = requests.close() {
            out.extend(tcb.close(&mut cx, copied_seq, linger_zero));
        }
        if tcb.next_deadline().is_some_and(|deadline| deadline <= now) {
            while let Some(segment) = tcb.on_timer(&mut cx) {
                out.push(segment);
            }
        }
        for segment in out {
            self.peer.receive(&segment, now);
        }
    }

    /// What the peer sends now.
    fn burst(&mut self, now: Instant) -> Vec<(Segment, Buf)> {
        let mut burst = Vec::new();
        if self.peer.closing {
            // Behind our own FIN.
            let seq = IRS.wrapping_add(2).wrapping_add(self.plan.bytes as u32);
            return vec![self.segment(seq, &[], Flags::ACK, now)];
        }
        // A backlog that overflowed: the peer sends again.
        if self.peer.next > self.peer.acked && now.since(self.peer.progress).as_millis() > 20 {
            self.peer.next = self.peer.acked;
            self.peer.progress = now;
        }
        while burst.len() < 32 && !self.peer.ended {
            let left = self.plan.bytes - self.peer.next;
            let seq = IRS.wrapping_add(1).wrapping_add(self.peer.next as u32);
            let room = self.peer.edge.wrapping_sub(seq) as i32;
            if left == 0 {
                if self.peer.acked == self.plan.bytes || self.plan.end == End::Fin {
                    burst.extend(self.the_end(seq));
                }
                break;
            }
            if room <= 0 {
                break;
            }
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let wish = 1 + (self.random >> 33) as u32 % self.plan.segment;
            let len = wish.min(room as u32).min(left.min(u64::from(u32::MAX)) as u32);
            let bytes: Vec<u8> = (0..u64::from(len)).map(|i| byte_at(self.peer.next + i)).collect();
            burst.push(self.segment(seq, &bytes, Flags::ACK, now));
            self.peer.next += u64::from(len);
        }
        burst
    }

    fn the_end(&mut self, seq: u32) -> Option<(Segment, Buf)> {
        let flags = match self.plan.end {
            End::Fin => Flags::ACK.with(Flags::FIN),
            End::Reset => Flags::ACK.with(Flags::RST),
            End::Silence => return None,
            End::Hole => {
                return Some(self.segment(
                    seq.wrapping_add(1),
                    b"above",
                    Flags::ACK,
                    Instant::ZERO,
                ));
            }
        };
        // Sent again until it is heard.
        Some(self.segment(seq, &[], flags, Instant::ZERO))
    }

    fn segment(&self, seq: u32, bytes: &[u8], flags: Flags, now: Instant) -> (Segment, Buf) {
        let mut buf = Buf::new(bytes, &self.live);
        *buf.cb_mut() = SegCb { seq, fin: flags.has(Flags::FIN), rx_time: now, owner: OWNER };
        let (len, ack) = (bytes.len() as u32, 1001 + u32::from(self.peer.closing));
        let segment = Segment { seq, ack, len, window: 1000, urgent: 0, flags, ecn: 0, ts: None };
        (segment, buf)
    }

    fn stop(mut self, reaped: &AtomicU64) -> Counters {
        if let Some(socket) = self.socket.take() {
            socket.kill();
        }
        self.home.returns().free_all(|_, _| {});
        self.home.take_bells().for_each(drop);
        reaped.fetch_add(self.home.reap() as u64, Ordering::SeqCst);
        self.live.released.store(true, Ordering::SeqCst);
        self.home.close();
        self.counters
    }
}

impl Peer {
    fn receive(&mut self, segment: &Outgoing, now: Instant) {
        if segment.flags.has(Flags::RST) {
            self.ended = true;
            return;
        }
        self.closing |= segment.flags.has(Flags::FIN);
        let acked = segment.ack.wrapping_sub(IRS.wrapping_add(1));
        // Streams of these tests are shorter than 2^32.
        if u64::from(acked) > self.acked {
            self.acked = u64::from(acked).min(self.next.max(self.acked));
            self.progress = now;
            self.next = self.next.max(self.acked);
        }
        self.edge = segment.ack.wrapping_add(u32::from(segment.window) << SHIFT);
    }
}
