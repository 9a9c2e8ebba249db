//! Our side: an engine with sockets over heap buffers, under a virtual clock.

use std::net::SocketAddr;
use std::time::Duration;

use prequeue::buf::HeapBuf;
use prequeue::lcore::hash::HashKey;
use prequeue::lcore::neighbour::News;
use prequeue::lcore::{Engine, EngineConfig, Interface, engines};
use prequeue::socket::{
    Events, Interest, Poller, Recv, RecvFlags, Step, TcpListener, TcpStream, Token, Trigger,
};
use prequeue::tcp::isn::Secret;
use prequeue::tcp::{Settings, SynCookies};
use prequeue::time::Instant;
use prequeue::wire::{MacAddr, ethernet};

use crate::scenario::{Config, Got, How, Read};
use crate::seen::Ready;
use crate::side::{Side, peer, us};

const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// A stack with at most one connection.
#[derive(Default)]
pub struct Ours {
    engine: Option<Engine<HeapBuf>>,
    listener: Option<TcpListener<HeapBuf>>,
    stream: Option<TcpStream<HeapBuf>>,
    poller: Option<Poller>,
    settings: Settings,
    /// The listener's SO_RCVBUF.
    rcvbuf: Option<u32>,
    sent: Vec<Vec<u8>>,
    now: u64,
}

impl Ours {
    /// What the connection says of itself: for reports.
    pub fn about(&self) -> String {
        self.stream.as_ref().map_or(String::new(), |stream| {
            format!("{:?}", stream.lock().connection().info(Instant::from_nanos(self.now)))
        })
    }

    /// Whether a timer will run within a span of time.
    pub fn is_due_within(&self, span: Duration) -> bool {
        let end = Instant::from_nanos(self.now) + span;
        self.engine.as_ref().and_then(Engine::next_deadline).is_some_and(|next| next <= end)
    }

    /// Whether there is no room for another segment; if we may have copied what Linux has charged, for
    /// a few of them.
    pub fn is_full(&self, copied: bool) -> bool {
        self.stream.as_ref().is_some_and(|stream| {
            let guard = stream.lock();
            let connection = guard.connection();
            let segment = truesize(1500) as u32;
            let margin = if copied { segment.max(connection.rcvbuf() / 4) } else { segment };
            connection.rmem() + margin > connection.rcvbuf()
        })
    }

    /// Whether less than half of the buffer is free, or nearly.
    pub fn is_half_full(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| {
            let guard = stream.lock();
            let connection = guard.connection();
            2 * (connection.rmem() + truesize(1500) as u32) > connection.rcvbuf()
        })
    }

    /// Whether the window is open to within an eighth of what the buffer would hold of full segments.
    pub fn is_opened(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| {
            let guard = stream.lock();
            let connection = guard.connection();
            let mss = u64::from(connection.rcv_mss());
            let most = u64::from(connection.rcvbuf()) * mss / truesize(1500) as u64;
            let info = connection.info(Instant::from_nanos(self.now));
            u64::from(info.tcpi_rcv_ssthresh) >= most - most / 8
        })
    }

    fn engine(&mut self) -> &mut Engine<HeapBuf> {
        self.engine.as_mut().expect("a scenario has begun")
    }

    /// The settings as the listener has narrowed them: the stack has them for all connections.
    ///
    /// A buffer that was set is the largest there will be: the window scale that a SYN is answered
    /// with covers the half of it that Linux takes to be payload.
    fn settings_for(&self, packet: &[u8]) -> Settings {
        let mut settings = self.settings.clone();
        if let Some(rcvbuf) = self.rcvbuf {
            settings.tcp_rmem[1] = rcvbuf;
            // A cookie remembers nothing: what was offered is worked out again.
            let by_cookie = settings.tcp_syncookies == SynCookies::Always;
            let opens = by_cookie && self.stream.is_none();
            if flags(packet) & 0x12 == 0x02 || opens {
                let most = settings.tcp_rmem[2].max(settings.rmem_max).min(rcvbuf / 2);
                settings.tcp_rmem[2] = most;
                settings.rmem_max = most;
            }
        }
        settings
    }

    /// Lets everything happen that is due now.
    fn turn(&mut self) {
        let now = Instant::from_nanos(self.now);
        let mut sent = Vec::new();
        let engine = self.engine();
        // The peer's address never grows old: these are tests of TCP.
        for addr in [false, true].map(peer) {
            engine.learn_neighbour(News { addr, mac: PEER_MAC }, now, &mut sent);
        }
        while engine.turn(now, &mut sent) {}
        self.keep(sent);
    }

    fn keep(&mut self, sent: Vec<Vec<u8>>) {
        for mut frame in sent {
            let header = ethernet::parse(&frame).expect("a frame");
            if [ethernet::IPV4, ethernet::IPV6].contains(&header.ethertype) {
                self.sent.push(frame.split_off(header.header_len));
            }
        }
    }
}

/// The flags of a segment without IP options.
fn flags(packet: &[u8]) -> u8 {
    packet[if packet[0] >> 4 == 6 { 53 } else { 33 }]
}

/// What Linux charges for an IP packet from a TUN device, as measured on 6.18: headroom and packet
/// in cache lines, what it keeps at the end of each buffer, and the size that its allocator gives.
fn truesize(packet: usize) -> usize {
    let size = (64 + packet).next_multiple_of(64) + 320;
    let allocated = match size {
        ..=576 => 576,
        577..=8192 => size.next_power_of_two(),
        _ => size.next_multiple_of(4096),
    };
    allocated + 256
}

impl Side for Ours {
    fn start(&mut self, config: &Config, port: u16, now: u64) {
        self.end();
        let settings = Settings {
            tcp_rmem: config.rmem,
            tcp_moderate_rcvbuf: config.moderate,
            tcp_dsack: config.dsack,
            tcp_stdurg: config.stdurg,
            tcp_rfc1337: config.rfc1337,
            tcp_invalid_ratelimit: config.ratelimit,
            tcp_syncookies: if config.cookies { SynCookies::Always } else { SynCookies::Never },
            ..Settings::default()
        };
        self.rcvbuf = config.rcvbuf;
        self.settings = settings.clone();
        let engine_config = EngineConfig {
            settings,
            interface: Interface::new(OUR_MAC, 1500)
                .with_address(us(false), 16)
                .with_address(us(true), 64),
            secret: Secret::from_seed(now),
            key: HashKey::new([now, 1]),
            max_connections: 16,
        };
        let (mut all, listeners) = engines(&engine_config, 1);
        self.engine = all.pop();
        let queue = listeners.listen(port, 16).expect("nobody listens yet");
        let listener = TcpListener::new(queue, SocketAddr::new(us(config.ipv6), port));
        listener.set_nonblocking(true).expect("it never fails");
        self.listener = Some(listener);
        self.now = now;
        self.turn();
    }

    fn receive(&mut self, packet: &[u8], now: u64) {
        self.pass(now);
        let settings = self.settings_for(packet);
        *self.engine().settings_mut() = settings;
        let mut frame = vec![0; ethernet::HEADER_LEN];
        let ethertype = if packet[0] >> 4 == 6 { ethernet::IPV6 } else { ethernet::IPV4 };
        ethernet::emit(&mut frame, OUR_MAC, PEER_MAC, None, ethertype);
        frame.extend_from_slice(packet);
        let buf = HeapBuf::new(&frame).with_room(truesize(packet.len()) - HeapBuf::OVERHEAD);
        let mut sent = Vec::new();
        let now = Instant::from_nanos(self.now);
        self.engine().input(&mut [Some(buf)], now, &mut sent);
        self.keep(sent);
        self.turn();
    }

    fn pass(&mut self, now: u64) {
        loop {
            let next = self.engine().next_deadline().map(Instant::as_nanos);
            let Some(next) = next.filter(|&next| next <= now) else { break };
            self.now = self.now.max(next);
            self.turn();
        }
        self.now = self.now.max(now);
        self.turn();
    }

    fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent)
    }

    fn accept(&mut self) -> bool {
        let Some(listener) = &self.listener else { return false };
        match listener.accept() {
            Ok((stream, _)) => {
                let poller = Poller::new().expect("a poller");
                let all = Interest::READ.with(Interest::RDHUP).with(Interest::PRIORITY);
                poller.register(&stream, Token(0), all, Trigger::Level).expect("it is new");
                self.poller = Some(poller);
                self.stream = Some(stream);
                self.turn();
                true
            }
            Err(_) => false,
        }
    }

    fn recv(&mut self, read: Read) -> Got {
        let Some(stream) = &self.stream else { return Got::NoSocket };
        let mut flags = RecvFlags::DONTWAIT;
        for (is_set, flag) in [
            (read.peek, RecvFlags::PEEK),
            (read.oob, RecvFlags::OOB),
            (read.waitall, RecvFlags::WAITALL),
            (read.trunc, RecvFlags::TRUNC),
        ] {
            if is_set {
                flags = flags.with(flag);
            }
        }
        let mut buf = vec![0; read.len];
        let now = Instant::from_nanos(self.now);
        let step = Recv::new(stream.handle(), &mut buf, flags, || now).step(now);
        let got = match step {
            Step::Done(n) => {
                buf.truncate(n);
                Got::Bytes(buf)
            }
            Step::Failed(error) => Got::Error(std::io::Error::from(error).kind()),
            Step::Sleep(_) => panic!("a read that does not wait sleeps"),
        };
        // An lcore that has told the reader nothing to wait for hears of its progress with the next
        // segment, Linux at once. It is made to look.
        if !read.oob {
            let _ = stream.set_user_timeout(None);
        }
        self.turn();
        got
    }

    fn unread(&mut self) -> Option<u64> {
        self.stream.as_ref().map(|stream| stream.readable().into())
    }

    fn rcvbuf(&mut self) -> Option<u64> {
        let stream = self.stream.as_ref()?;
        Some(stream.receive_buffer().expect("the stack runs").into())
    }

    fn ready(&mut self) -> Option<Ready> {
        self.stream.as_ref()?;
        let poller = self.poller.as_ref().expect("there is a stream");
        let mut events = Events::with_capacity(1);
        poller.poll(&mut events, Some(Duration::ZERO)).expect("it does not sleep");
        Some(Ready(events.iter().next().map_or(0, |event| event.readiness().bits())))
    }

    fn shutdown(&mut self, how: How) {
        if let Some(stream) = &self.stream {
            let how = match how {
                How::Read => std::net::Shutdown::Read,
                How::Write => std::net::Shutdown::Write,
                How::Both => std::net::Shutdown::Both,
            };
            // It fails if the connection is over.
            let _ = stream.shutdown(how);
            self.turn();
        }
    }

    fn close(&mut self, reset: bool) {
        if let Some(stream) = self.stream.take() {
            if reset {
                stream.set_linger_zero();
            }
            drop(stream);
            self.turn();
        }
    }

    fn take_error(&mut self) -> Got {
        match &self.stream {
            None => Got::NoSocket,
            Some(stream) => match stream.take_error().expect("the stack runs") {
                Some(error) => Got::Error(error.kind()),
                None => Got::Bytes(Vec::new()),
            },
        }
    }

    fn set_quickack(&mut self, on: bool) {
        if let Some(stream) = &self.stream {
            let _ = stream.set_quickack(on);
            self.turn();
        }
    }

    fn set_inline(&mut self, on: bool) {
        if let Some(stream) = &self.stream {
            stream.set_out_of_band_inline(on);
        }
    }

    fn end(&mut self) {
        self.stream = None;
        self.listener = None;
        if let Some(mut engine) = self.engine.take() {
            engine.stop();
        }
        self.sent.clear();
    }
}
