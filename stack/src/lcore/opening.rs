//! How connections begin: segments that meet a listener or a request, and the timers of requests.
//!
//! Called by the engine on its lcore's thread for segments that belong to no synchronised
//! connection. Requests are small records in the flow table; a socket exists only from the ACK that
//! completes a handshake on, and only if the accept queue has room for it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::buf::PacketBuf;
use crate::socket::{Mode, SocketOptions};
use crate::tcp::icmp::Report;
use crate::tcp::isn::Numbers;
use crate::tcp::listen::{self, ListenVerdict, SynOrigin, SynVerdict};
use crate::tcp::request::{Opened, Request, RequestTimer, RequestVerdict};
use crate::tcp::{Counter, cookie};
use crate::wire::frame::TcpFrame;
use crate::wire::tcp;

use super::Transmit;
use super::flow::Target;
use super::shared::Listening;
use super::tables::{RequestSlot, Tables};
use super::work::Work;

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// Judges a segment without a connection, a request or a TIME-WAIT entry on any lcore, and
    /// counts it.
    pub(super) fn judge(&mut self, work: &mut Work<'_, impl Transmit>, tcp: &TcpFrame, frame: B) {
        let Some(listening) = self.listener(tcp.tuple.local()) else {
            work.bump(Counter::InSegs);
            return work.reset(&tcp.tuple, &tcp.segment, tcp.tos);
        };
        let verdict = listen::on_segment(&tcp.segment);
        if matches!(verdict, ListenVerdict::Reset(_))
            && let Some(opened) = self.cookie(work, tcp, &listening)
        {
            return self.open_by_cookie(work, &opened, &listening, tcp, frame);
        }
        work.bump(Counter::InSegs);
        match verdict {
            ListenVerdict::Ignore => {}
            ListenVerdict::Reset(out) => work.send_reset(&tcp.tuple, &out, tcp.tos),
            ListenVerdict::Syn => {
                let numbers = work.base.secret.numbers(&tcp.tuple, work.now);
                self.on_syn(work, tcp, &frame, listening, SynOrigin::Wire, numbers);
            }
        }
    }

    /// What a segment opens that brings a cookie of this listener back.
    fn cookie(
        &self,
        work: &mut Work<'_, impl Transmit>,
        tcp: &TcpFrame,
        listening: &Listening<B, M>,
    ) -> Option<Opened> {
        if !listen::may_be_cookie(&work.base.settings, &tcp.segment)
            || !listening.cookies.is_recent(work.now)
        {
            return None;
        }
        let bounds =
            listening.bounds(tcp.tuple.family(), work.base.interface.mtu, &work.base.settings);
        let secret = work.base.secret;
        let mut narrowed = None;
        let mut cx = work.cx_of(listening.sockets(), &mut narrowed);
        cookie::open(&mut cx, &secret, &tcp.tuple, &tcp.segment, bounds)
    }

    /// A good cookie has come back. If there is no room for the connection nothing is said,
    /// whatever `tcp_abort_on_overflow` is: there is no request to be aborted.
    fn open_by_cookie(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        opened: &Opened,
        listening: &Listening<B, M>,
        tcp: &TcpFrame,
        frame: B,
    ) {
        if !self.sockets.is_full()
            && let Some(room) = M::reserve(&listening.queue)
        {
            return self.complete(work, opened, listening.sockets(), room, tcp, frame);
        }
        work.bump(Counter::InSegs);
        work.bump(Counter::ListenOverflows);
        work.bump(Counter::ListenDrops);
    }

    /// A SYN for a listener.
    pub(super) fn on_syn(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        tcp: &TcpFrame,
        frame: &B,
        listening: Arc<Listening<B, M>>,
        origin: SynOrigin,
        numbers: Numbers,
    ) {
        let mut queues = listening.queues();
        if self.requests.is_full() {
            queues.syn_queue = u32::MAX;
        }
        let header = &frame.data()[usize::from(tcp.header)..usize::from(tcp.payload)];
        let options = tcp::syn_options(header);
        let bounds =
            listening.bounds(tcp.tuple.family(), work.base.interface.mtu, &work.base.settings);
        let mut narrowed = None;
        match listen::on_syn(&mut work.cx(), origin, &queues) {
            SynVerdict::Drop => return,
            SynVerdict::Cookie => {
                listening.cookies.note(work.now);
                let (secret, syn) = (work.base.secret, &tcp.segment);
                let mut cx = work.cx_of(listening.sockets(), &mut narrowed);
                let out = cookie::syn_ack(&mut cx, &secret, &tcp.tuple, syn, &options, bounds);
                return work.send(&tcp.tuple, &out);
            }
            SynVerdict::Admit => {}
        }
        let cx = work.cx_of(listening.sockets(), &mut narrowed);
        let mut request = Request::new(&cx, tcp.tuple, &tcp.segment, &options, numbers, bounds);
        let syn_ack = request.syn_ack(&work.cx());
        let deadline = request.next_deadline();
        let Self { requests, wheel, flows, .. } = self;
        let made = requests.insert_with(|key| {
            listening.requests.add(1, 1);
            let timer = wheel.add(Target::Request(key.index));
            wheel.arm(timer, deadline);
            RequestSlot { request, listening, timer }
        });
        match made {
            Some(key) => {
                flows.insert(&tcp.tuple, Target::Request(key.index));
                work.send(&tcp.tuple, &syn_ack);
            }
            None => work.bump(Counter::ListenDrops),
        }
    }

    /// A segment for a request. If it completes the handshake, the connection begins, and the same
    /// segment is run through it: it may carry payload and FIN.
    pub(super) fn on_request_segment(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        index: u32,
        tcp: &TcpFrame,
        frame: B,
    ) {
        let Some(slot) = self.requests.at_mut(index) else { return };
        if !slot.listening.is_open() {
            // Requests vanish with their listener, and the segment looks for another.
            self.remove_request(index);
            return self.judge(work, tcp, frame);
        }
        let mut verdict = slot.request.on_segment(&mut work.cx(), &tcp.segment);
        if verdict == RequestVerdict::Foreign {
            return self.judge(work, tcp, frame);
        }
        if let RequestVerdict::Complete(opened) = &verdict {
            let queues = slot.listening.queues();
            if queues.defer_accept != 0
                && slot.request.waits_for_data(&mut work.cx(), &tcp.segment, &queues)
            {
                work.bump(Counter::InSegs);
                return;
            }
            if !self.sockets.is_full()
                && let Some(room) = M::reserve(&slot.listening.queue)
            {
                let opened = *opened;
                let sockets = *slot.listening.sockets();
                return self.complete(work, &opened, &sockets, room, tcp, frame);
            }
            verdict = slot.request.on_overflow(&mut work.cx(), &tcp.segment);
        }
        // One that completes is counted by the connection.
        work.bump(Counter::InSegs);
        match verdict {
            RequestVerdict::Ignore | RequestVerdict::Foreign | RequestVerdict::Complete(_) => {}
            RequestVerdict::Send(out) => work.send(&tcp.tuple, &out),
            RequestVerdict::Remove(out) => {
                work.send_any(&tcp.tuple, out.as_ref());
                self.remove_request(index);
            }
        }
    }

    /// Makes the connection that a request has become, or a cookie, and queues it to be accepted.
    fn complete(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        opened: &Opened,
        sockets: &SocketOptions,
        room: M::Room,
        tcp: &TcpFrame,
        frame: B,
    ) {
        if let Some(Target::Request(index)) = self.flows.look_up(&tcp.tuple) {
            self.remove_request(index);
        }
        let Some((socket, handle)) = self.open(work, &tcp.tuple, opened, sockets) else { return };
        work.bump(Counter::PassiveOpens);
        self.run_one(work, socket, frame);
        // What the segment has brought is there when the connection is accepted. If the listener was
        // closed at this very moment, the room resets the connection.
        M::put(room, handle);
    }

    /// A request's timer has fired.
    pub(super) fn on_request_timer(&mut self, work: &mut Work<'_, impl Transmit>, index: u32) {
        let Some(slot) = self.requests.at_mut(index) else { return };
        if !slot.listening.is_open() {
            self.remove_request(index);
            return;
        }
        let was_young = slot.request.is_young();
        let verdict = slot.request.on_timer(&mut work.cx(), &slot.listening.queues());
        if let RequestTimer::Retransmit(out) = &verdict {
            work.send(slot.request.tuple(), out);
        }
        if was_young && !slot.request.is_young() {
            slot.listening.requests.add(0, -1);
        }
        match verdict {
            RequestTimer::Wait | RequestTimer::Retransmit(_) => {
                self.wheel.arm(slot.timer, slot.request.next_deadline());
            }
            RequestTimer::Expired => self.remove_request(index),
        }
    }

    /// An ICMP error about a segment of a request.
    pub(super) fn on_request_icmp(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        index: u32,
        seq: u32,
        report: Report,
    ) {
        let Some(slot) = self.requests.at_mut(index) else { return };
        if slot.request.on_icmp(&mut work.cx(), seq, report) {
            self.remove_request(index);
        }
    }

    /// The listener at an address and port of ours, if the application listens there. Where several
    /// share the port, no two take the same address.
    pub(super) fn listener(&self, local: SocketAddr) -> Option<Arc<Listening<B, M>>> {
        let from = self.listeners.partition_point(|listening| listening.port < local.port());
        self.listeners[from..]
            .iter()
            .take_while(|listening| listening.port == local.port())
            .find(|listening| listening.takes(local) && listening.is_open())
            .cloned()
    }

    fn remove_request(&mut self, index: u32) {
        let Some(RequestSlot { request, listening, timer }) = self.requests.remove(index) else {
            return;
        };
        self.flows.remove(request.tuple());
        self.wheel.remove(timer);
        listening.requests.add(-1, -i32::from(request.is_young()));
    }
}
