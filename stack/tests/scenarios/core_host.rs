//! The protocol core with the least around it that makes a host: the subject that shows what
//! `prequeue::tcp` does by itself.
//!
//! One table, one listener per port, an application in the same thread; no device, no ARP, no
//! ownership. It is also the shortest account of how the pieces of the core are to be called.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;

use prequeue::buf::{Checksum, HeapBuf, PacketBuf};
use prequeue::tcp::isn::Secret;
use prequeue::tcp::listen::{
    self, COOKIES_TAKEN, ListenVerdict, QueueState, SynOrigin, SynVerdict,
};
use prequeue::tcp::negotiate::Bounds;
use prequeue::tcp::ratelimit::RstLimiter;
use prequeue::tcp::request::{Opened, Request, RequestTimer, RequestVerdict};
use prequeue::tcp::tcb::{ConnError, NoSink, State, Tcb, Verdict};
use prequeue::tcp::time_wait::{TimeWait, TwVerdict};
use prequeue::tcp::{Counter, Counters, Cx, SeqNum, Settings, cookie, reset};
use prequeue::time::Instant;
use prequeue::wire::frame::{Reject, TcpFrame};
use prequeue::wire::tcp::TcpError;
use prequeue::wire::{
    Flags, FourTuple, MacAddr, Outgoing, Segment, SynOptions, ethernet, parse_tcp, tcp,
};

use crate::dsl::{Conn, How, Received, Subject};

const BOUNDS: Bounds = Bounds { mtu: 1500, window_clamp: 0 };

/// A host made of the core alone.
pub fn make(settings: Settings, seed: u64) -> Box<dyn Subject> {
    let secret = Secret::from_seed(seed);
    Box::new(CoreHost {
        settings,
        counters: Counters::default(),
        secret,
        last_cookie: None,
        limiter: RstLimiter::new(secret),
        flows: HashMap::new(),
        connections: Vec::new(),
        listeners: HashMap::new(),
        sent: VecDeque::new(),
    })
}

#[derive(Debug)]
struct CoreHost {
    settings: Settings,
    counters: Counters,
    secret: Secret,
    /// When a cookie was last sent, by whichever listener.
    last_cookie: Option<Instant>,
    limiter: RstLimiter,
    flows: HashMap<FourTuple, Flow>,
    /// Never shrinks: an index is a [`Conn`].
    connections: Vec<Connection>,
    listeners: HashMap<u16, Listener>,
    sent: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
enum Flow {
    Request(Request),
    Connection(usize),
    TimeWait(TimeWait),
}

#[derive(Debug)]
struct Listener {
    backlog: u32,
    accept_queue: VecDeque<usize>,
}

#[derive(Debug)]
struct Connection {
    tuple: FourTuple,
    tcb: Tcb<HeapBuf>,
    copied_seq: SeqNum,
    read_shut: bool,
    error_told: bool,
}

/// A [`Cx`] that borrows from some fields of the host and leaves the others free.
macro_rules! cx {
    ($host:ident, $now:expr) => {
        Cx { now: $now, settings: &$host.settings, counters: &mut $host.counters }
    };
}

impl Subject for CoreHost {
    fn input(&mut self, burst: &[Vec<u8>], now: Instant) {
        let mut touched = Vec::new();
        for frame in burst {
            self.counters.bump(Counter::InSegs);
            match parse_tcp(frame, Checksum::Unknown) {
                Ok(parsed) => touched.extend(self.on_segment(frame, &parsed, now)),
                Err(Reject::Tcp { error, .. }) => self.count_bad(error),
                Err(other) => panic!("the script sends no {other:?}"),
            }
        }
        for index in touched {
            let connection = &mut self.connections[index];
            let tuple = connection.tuple;
            let out = connection.tcb.end_burst(&mut cx!(self, now));
            self.send_all(&tuple, out);
            self.settle(index, now);
        }
    }

    fn advance(&mut self, now: Instant) {
        let tuples: Vec<_> = self.flows.keys().copied().collect();
        for tuple in tuples {
            self.on_timer(&tuple, now);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadline = |flow: &Flow| match flow {
            Flow::Request(request) => Some(request.next_deadline()),
            Flow::Connection(index) => self.connections[*index].tcb.next_deadline(),
            Flow::TimeWait(entry) => Some(entry.deadline()),
        };
        self.flows.values().filter_map(deadline).min()
    }

    fn output(&mut self) -> Option<Vec<u8>> {
        self.sent.pop_front()
    }

    fn listen(&mut self, port: u16, backlog: i32, _now: Instant) {
        let backlog = listen::backlog(&self.settings, backlog);
        self.listeners.insert(port, Listener { backlog, accept_queue: VecDeque::new() });
    }

    fn accept(&mut self, port: u16) -> Option<(Conn, u16)> {
        let index = self.listeners.get_mut(&port)?.accept_queue.pop_front()?;
        Some((Conn(index), self.connections[index].tuple.remote_port))
    }

    fn recv(&mut self, Conn(index): Conn, into: &mut [u8], now: Instant) -> Received {
        let connection = &mut self.connections[index];
        let tuple = connection.tuple;
        let copied = connection.copy(into);
        if copied == 0 {
            return connection.nothing_to_read();
        }
        let copied_seq = connection.copied_seq;
        let out = connection.tcb.reader_progress(&mut cx!(self, now), copied_seq);
        self.send_all(&tuple, out);
        Received::Bytes(copied)
    }

    fn shutdown(&mut self, Conn(index): Conn, how: How, now: Instant) {
        let connection = &mut self.connections[index];
        let tuple = connection.tuple;
        if how != How::Write {
            connection.read_shut = true;
            connection.tcb.shutdown_read();
        }
        if how != How::Read {
            let out = connection.tcb.shutdown_write(&mut cx!(self, now));
            self.send_all(&tuple, out);
        }
        self.settle(index, now);
    }

    fn close(&mut self, Conn(index): Conn, linger_zero: bool, now: Instant) {
        let connection = &mut self.connections[index];
        let (tuple, copied_seq) = (connection.tuple, connection.copied_seq);
        let out = connection.tcb.close(&mut cx!(self, now), copied_seq, linger_zero);
        self.send_all(&tuple, out);
        self.settle(index, now);
    }

    fn count(&self, counter: Counter) -> u64 {
        self.counters.value(counter)
    }
}

impl CoreHost {
    fn count_bad(&mut self, error: TcpError) {
        match error {
            TcpError::Truncated | TcpError::BadLength => {}
            TcpError::BadOffset => self.counters.bump(Counter::InErrs),
            TcpError::BadChecksum => {
                self.counters.bump(Counter::InErrs);
                self.counters.bump(Counter::InCsumErrors);
            }
        }
    }

    /// Returns the connection that has seen the segment, if one has.
    fn on_segment(&mut self, frame: &[u8], parsed: &TcpFrame, now: Instant) -> Option<usize> {
        let TcpFrame { tuple, segment, header, payload, .. } = *parsed;
        let options = tcp::syn_options(&frame[usize::from(header)..usize::from(payload)]);
        let data = &frame[usize::from(payload)..][..segment.len as usize];
        match self.flows.get_mut(&tuple) {
            None => return self.on_unknown(&tuple, &segment, &options, data, now),
            Some(Flow::Connection(index)) => {
                let index = *index;
                self.on_connection(index, &segment, data, now);
                return Some(index);
            }
            Some(Flow::Request(request)) => {
                let verdict = request.on_segment(&mut cx!(self, now), &segment);
                return self.on_request(&tuple, verdict, &segment, data, now);
            }
            Some(Flow::TimeWait(entry)) => {
                let verdict = entry.on_segment(&mut cx!(self, now), &segment);
                self.on_time_wait(&tuple, verdict, &segment, &options, now);
            }
        }
        None
    }

    fn on_unknown(
        &mut self,
        tuple: &FourTuple,
        seg: &Segment,
        options: &SynOptions,
        data: &[u8],
        now: Instant,
    ) -> Option<usize> {
        let verdict = match self.listeners.contains_key(&tuple.local_port) {
            true => listen::on_segment(seg),
            false => reset::reply(seg).map_or(ListenVerdict::Ignore, ListenVerdict::Reset),
        };
        match verdict {
            ListenVerdict::Ignore => {}
            ListenVerdict::Reset(rst) => {
                let cookies = self.last_cookie.is_some_and(|last| now <= last + COOKIES_TAKEN);
                if cookies
                    && self.listeners.contains_key(&tuple.local_port)
                    && listen::may_be_cookie(&self.settings, seg)
                    && let Some(opened) =
                        cookie::open(&mut cx!(self, now), &self.secret, tuple, seg, BOUNDS)
                {
                    if self.queue_state(tuple.local_port).accept_queue_is_full() {
                        self.counters.bump(Counter::ListenOverflows);
                        self.counters.bump(Counter::ListenDrops);
                        return None;
                    }
                    let index = self.open(tuple, &opened, now);
                    self.on_connection(index, seg, data, now);
                    return Some(index);
                }
                if self.limiter.permits(&mut cx!(self, now), tuple.remote_addr) {
                    self.send(tuple, &rst);
                }
            }
            ListenVerdict::Syn => self.on_syn(tuple, seg, options, SynOrigin::Wire, None, now),
        }
        None
    }

    fn on_syn(
        &mut self,
        tuple: &FourTuple,
        syn: &Segment,
        options: &SynOptions,
        origin: SynOrigin,
        isn: Option<u32>,
        now: Instant,
    ) {
        let queue = self.queue_state(tuple.local_port);
        match listen::on_syn(&mut cx!(self, now), origin, &queue) {
            SynVerdict::Admit => {}
            SynVerdict::Drop => return,
            SynVerdict::Cookie => {
                self.last_cookie = Some(now);
                let (cx, secret) = (&mut cx!(self, now), &self.secret);
                let out = cookie::syn_ack(cx, secret, tuple, syn, options, BOUNDS);
                return self.send(tuple, &out);
            }
        }
        let mut numbers = self.secret.numbers(tuple, now);
        numbers.isn = isn.unwrap_or(numbers.isn);
        let cx = cx!(self, now);
        let mut request = Request::new(&cx, *tuple, syn, options, numbers, BOUNDS);
        let out = request.syn_ack(&cx);
        self.flows.insert(*tuple, Flow::Request(request));
        self.send(tuple, &out);
    }

    fn on_request(
        &mut self,
        tuple: &FourTuple,
        verdict: RequestVerdict,
        seg: &Segment,
        data: &[u8],
        now: Instant,
    ) -> Option<usize> {
        match verdict {
            RequestVerdict::Ignore => None,
            RequestVerdict::Foreign => {
                // Only an ACK is, so that its options do not matter.
                self.on_unknown(tuple, seg, &SynOptions::default(), data, now)
            }
            RequestVerdict::Send(out) => {
                self.send(tuple, &out);
                None
            }
            RequestVerdict::Remove(out) => {
                self.flows.remove(tuple);
                self.send_all(tuple, out);
                None
            }
            RequestVerdict::Complete(_)
                if self.queue_state(tuple.local_port).accept_queue_is_full() =>
            {
                let Some(Flow::Request(request)) = self.flows.get_mut(tuple) else { return None };
                let verdict = request.on_overflow(&mut cx!(self, now), seg);
                self.on_request(tuple, verdict, seg, data, now)
            }
            RequestVerdict::Complete(opened) => {
                let index = self.open(tuple, &opened, now);
                self.on_connection(index, seg, data, now);
                Some(index)
            }
        }
    }

    fn open(&mut self, tuple: &FourTuple, opened: &Opened, now: Instant) -> usize {
        self.counters.bump(Counter::PassiveOpens);
        let index = self.connections.len();
        self.connections.push(Connection {
            tuple: *tuple,
            tcb: Tcb::new(&mut cx!(self, now), opened),
            copied_seq: opened.rcv_nxt(),
            read_shut: false,
            error_told: false,
        });
        self.flows.insert(*tuple, Flow::Connection(index));
        if let Some(listener) = self.listeners.get_mut(&tuple.local_port) {
            listener.accept_queue.push_back(index);
        }
        index
    }

    fn on_connection(&mut self, index: usize, seg: &Segment, data: &[u8], now: Instant) {
        let Connection { tuple, tcb, .. } = &mut self.connections[index];
        let tuple = *tuple;
        let mut cx = cx!(self, now);
        match tcb.on_segment(&mut cx, seg, HeapBuf::new(data), &mut NoSink) {
            Verdict::Predicted | Verdict::Later => {}
            Verdict::Ack => {
                let ack = tcb.ack_now(&mut cx);
                self.send(&tuple, &ack);
            }
            Verdict::Send(out) => self.send(&tuple, &out),
        }
    }

    fn on_time_wait(
        &mut self,
        tuple: &FourTuple,
        verdict: TwVerdict,
        seg: &Segment,
        options: &SynOptions,
        now: Instant,
    ) {
        match verdict {
            TwVerdict::Ignore => {}
            TwVerdict::Ack(out) => self.send(tuple, &out),
            TwVerdict::Remove(out) => {
                self.flows.remove(tuple);
                self.send_all(tuple, out);
            }
            TwVerdict::NewConnection { isn } if self.listeners.contains_key(&tuple.local_port) => {
                self.flows.remove(tuple);
                self.counters.bump(Counter::TWRecycled);
                self.on_syn(tuple, seg, options, SynOrigin::TimeWait, Some(isn), now);
            }
            TwVerdict::NewConnection { .. } => {
                if let Some(Flow::TimeWait(entry)) = self.flows.get_mut(tuple) {
                    let verdict = entry.on_no_listener(&mut cx!(self, now), seg);
                    self.on_time_wait(tuple, verdict, seg, options, now);
                }
            }
        }
    }

    fn on_timer(&mut self, tuple: &FourTuple, now: Instant) {
        let queue = self.queue_state(tuple.local_port);
        match self.flows.get_mut(tuple) {
            None => {}
            Some(Flow::Request(request)) => match request.on_timer(&mut cx!(self, now), &queue) {
                RequestTimer::Wait => {}
                RequestTimer::Retransmit(out) => self.send(tuple, &out),
                RequestTimer::Expired => {
                    self.flows.remove(tuple);
                }
            },
            Some(Flow::TimeWait(entry)) if entry.deadline() <= now => {
                self.flows.remove(tuple);
            }
            Some(Flow::TimeWait(_)) => {}
            Some(Flow::Connection(index)) => {
                let index = *index;
                while self.connections[index].tcb.next_deadline().is_some_and(|at| at <= now) {
                    let out = self.connections[index].tcb.on_timer(&mut cx!(self, now));
                    self.send_all(tuple, out);
                }
                self.settle(index, now);
            }
        }
    }

    /// Takes a connection off the wire that has ended, or needs no more than a record.
    fn settle(&mut self, index: usize, now: Instant) {
        let Connection { tuple, tcb, .. } = &self.connections[index];
        let tuple = *tuple;
        if !matches!(self.flows.get(&tuple), Some(Flow::Connection(i)) if *i == index) {
            return;
        }
        if let Some(ending) = tcb.time_wait(&self.settings) {
            let entry = TimeWait::new(&cx!(self, now), tuple, &ending);
            let counter = entry.counter(&cx!(self, now));
            self.counters.bump(counter);
            self.flows.insert(tuple, Flow::TimeWait(entry));
        } else if tcb.state() == State::Closed {
            self.flows.remove(&tuple);
        }
    }

    fn queue_state(&self, port: u16) -> QueueState {
        let requests = || {
            self.flows.values().filter_map(|flow| match flow {
                Flow::Request(request) if request.tuple().local_port == port => Some(request),
                _ => None,
            })
        };
        let listener = self.listeners.get(&port);
        QueueState {
            syn_queue: requests().count() as u32,
            young: requests().filter(|request| request.is_young()).count() as u32,
            accept_queue: listener.map_or(0, |listener| listener.accept_queue.len() as u32),
            backlog: listener.map_or(0, |listener| listener.backlog),
            defer_accept: 0,
            synack_retries: None,
        }
    }

    fn send_all(&mut self, tuple: &FourTuple, out: Option<Outgoing>) {
        if let Some(out) = out {
            self.send(tuple, &out);
        }
    }

    fn send(&mut self, tuple: &FourTuple, out: &Outgoing) {
        self.counters.bump(Counter::OutSegs);
        if out.flags.has(Flags::RST) {
            self.counters.bump(Counter::OutRsts);
        }
        let mut frame = vec![0; ethernet::HEADER_LEN + tcp::MAX_HEADERS_LEN];
        let to = MacAddr([2, 0, 0, 0, 0, 1]);
        let at = ethernet::emit(&mut frame, to, crate::OUR_MAC, None, ethernet::IPV4);
        let len = tcp::emit(&mut frame[at..], tuple, out, 0, &[]);
        frame.truncate(at + len);
        self.sent.push_back(frame);
    }
}

impl Connection {
    /// Copies what is in the receive queue and fits; gives the buffers back.
    fn copy(&mut self, into: &mut [u8]) -> usize {
        let mut queue = self.tcb.take_receive_queue();
        let (mut copied, mut freed) = (0, 0);
        while let Some(buf) = queue.front_mut() {
            let n = buf.len().min(into.len() - copied);
            into[copied..copied + n].copy_from_slice(&buf.data()[..n]);
            copied += n;
            if n < buf.len() {
                buf.trim_front(n);
                buf.cb_mut().seq = buf.cb().seq.wrapping_add(n as u32);
                break;
            }
            freed += buf.truesize();
            queue.pop_front();
        }
        self.tcb.put_back(queue);
        self.tcb.uncharge(freed);
        self.copied_seq = self.copied_seq.plus(copied as u32);
        copied
    }

    fn nothing_to_read(&mut self) -> Received {
        let told = std::mem::replace(&mut self.error_told, self.tcb.error().is_some());
        match self.tcb.error() {
            _ if self.tcb.eof() => Received::Eof,
            Some(_) if told => Received::Eof,
            Some(ConnError::Reset) => Received::Failed(ErrorKind::ConnectionReset),
            Some(ConnError::BrokenPipe) => Received::Failed(ErrorKind::BrokenPipe),
            Some(ConnError::TimedOut) => Received::Failed(ErrorKind::TimedOut),
            Some(ConnError::Path(error)) => {
                Received::Failed(std::io::Error::from_raw_os_error(error.errno()).kind())
            }
            None if self.read_shut => Received::Eof,
            None => Received::WouldBlock,
        }
    }
}
