//! A sender: it opens a connection, sends a known stream, and says FIN. Lost segments are sent
//! again after three duplicate ACKs or a timeout, at other boundaries than before.

use std::net::Ipv4Addr;
use std::time::Duration;

use prequeue::buf::Checksum;
use prequeue::time::Instant;
use prequeue::wire::frame::MAX_CONTROL_LEN;
use prequeue::wire::{
    Flags, FourTuple, MacAddr, Outgoing, Segment, Timestamps, ethernet, parse_tcp, tcp,
};

use super::counted::Dice;

pub const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
pub const OUR_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
pub const PORT: u16 = 7000;

const RTO_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(5);

/// The byte of the stream at an offset.
pub fn byte_at(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    SynSent,
    Open,
}

/// The sender.
#[derive(Debug)]
pub struct Peer {
    state: State,
    iss: u32,
    /// The stack's next number, once it is known.
    rcv_nxt: u32,
    /// Bytes of the stream; the FIN stands behind them.
    len: u64,
    una: u64,
    nxt: u64,
    /// Everything below was sent at least once.
    sent: u64,
    /// The right edge that the stack offers.
    edge: u64,
    scale: Option<u8>,
    their_scale: u8,
    sack: bool,
    ts: Option<u32>,
    /// Payload of a full segment, and how many may be under way.
    mss: u64,
    flight: u64,
    dup_acks: u32,
    rto: Duration,
    timer: Option<Instant>,
    got_fin: bool,
    dice: Dice,
    out: Vec<Vec<u8>>,
}

impl Peer {
    pub fn new(len: u64, dice: &mut Dice) -> Self {
        let mut dice = Dice(dice.next());
        // Half of all streams cross a wrap.
        let edge = dice.of(&[0_u32, 1 << 31]);
        let near = edge.wrapping_sub(dice.below(len + 10) as u32);
        Self {
            state: State::SynSent,
            iss: if dice.one_in(2) { near } else { dice.next() as u32 },
            rcv_nxt: 0,
            len,
            una: 0,
            nxt: 0,
            sent: 0,
            edge: 0,
            scale: dice.of(&[None, Some(0), Some(7)]),
            their_scale: 0,
            sack: dice.one_in(2),
            ts: dice.one_in(2).then_some(0),
            mss: dice.of(&[60, 536, 1000, 1440]),
            flight: dice.of(&[2, 10, 64]),
            dup_acks: 0,
            rto: RTO_MIN,
            timer: None,
            got_fin: false,
            dice,
            out: Vec::new(),
        }
    }

    /// Sends the SYN.
    pub fn open(&mut self, now: Instant) {
        self.send_syn(now);
        self.timer = Some(now + self.rto);
    }

    /// Whether all has been acknowledged, and the stack's FIN been received.
    pub fn is_done(&self) -> bool {
        self.una == self.len + 1 && self.got_fin
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.timer
    }

    /// Frames to be sent.
    pub fn take_out(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out)
    }

    /// A frame has come, perhaps damaged.
    pub fn on_frame(&mut self, frame: &[u8], now: Instant) {
        let Ok(parsed) = parse_tcp(frame, Checksum::Unknown) else { return };
        let header = &frame[usize::from(parsed.header)..usize::from(parsed.payload)];
        let seg = parsed.segment;
        let has = |flag| seg.flags.has(flag);
        if has(Flags::SYN) {
            return self.on_syn_ack(&seg, header, now);
        }
        if has(Flags::RST) {
            // Old segments of ours may meet no connection any more.
            assert!(self.is_done(), "reset in the middle: {self:?}");
            return;
        }
        if self.state == State::SynSent || !has(Flags::ACK) {
            return;
        }
        if let Some(option) = seg.ts {
            assert!(self.ts.is_some(), "timestamps were not negotiated");
            assert!(option.ecr <= now.as_millis() as u32, "an echo of what was never sent");
            self.ts = Some(option.val);
        }
        for (start, end) in tcp::sack_blocks(header).iter().copied() {
            assert!(self.sack);
            let (start, end) = (self.offset_of(start), self.offset_of(end));
            assert!(start < end && end <= self.sent as i64, "SACK of what was not sent");
        }
        self.on_ack(&seg, now);
        if has(Flags::FIN) && seg.seq == self.rcv_nxt {
            self.got_fin = true;
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        }
        if has(Flags::FIN) {
            self.send_ack(now);
        }
        self.pump(now);
    }

    fn on_syn_ack(&mut self, seg: &Segment, header: &[u8], now: Instant) {
        assert_eq!(seg.flags, Flags::SYN.with(Flags::ACK));
        if self.is_done() {
            // The answer to an old SYN of ours.
            let out = Outgoing { seq: seg.ack, flags: Flags::RST, ..Outgoing::default() };
            return self.emit(&out, &[]);
        }
        assert_eq!(seg.ack, self.iss.wrapping_add(1));
        if self.state == State::Open {
            return self.send_ack(now);
        }
        let options = tcp::syn_options(header);
        assert!(options.sack_permitted <= self.sack);
        assert!(options.window_scale.is_none() || self.scale.is_some());
        self.state = State::Open;
        self.rcv_nxt = seg.seq.wrapping_add(1);
        self.their_scale = options.window_scale.unwrap_or(0);
        self.sack = options.sack_permitted;
        self.ts = seg.ts.map(|option| option.val);
        self.edge = u64::from(seg.window);
        self.timer = None;
        self.rto = RTO_MIN;
        self.send_ack(now);
        self.pump(now);
    }

    fn on_ack(&mut self, seg: &Segment, now: Instant) {
        let ack = self.offset_of(seg.ack);
        assert!(ack <= self.sent as i64, "acknowledges {ack}, sent {}", self.sent);
        if ack < self.una as i64 {
            return;
        }
        let ack = ack as u64;
        let edge = ack + (u64::from(seg.window) << self.their_scale);
        if ack > self.una {
            self.una = ack;
            self.nxt = self.nxt.max(ack);
            self.dup_acks = 0;
            self.rto = RTO_MIN;
            self.timer = None;
        } else if edge == self.edge && self.una < self.nxt {
            self.dup_acks += 1;
            if self.dup_acks == 3 {
                self.send_at(self.una, now);
            }
        }
        self.edge = edge;
    }

    pub fn on_timer(&mut self, now: Instant) {
        if self.timer.is_none_or(|at| at > now) {
            return;
        }
        self.rto = (self.rto * 2).min(RTO_MAX);
        self.timer = Some(now + self.rto);
        if self.state == State::SynSent {
            return self.send_syn(now);
        }
        // Go back to the first that was not acknowledged; at a closed window it is a probe.
        self.nxt = self.una;
        self.dup_acks = 0;
        self.nxt += self.send_at(self.una, now);
        self.sent = self.sent.max(self.nxt);
    }

    /// Sends what the window and the flight allow.
    fn pump(&mut self, now: Instant) {
        while self.nxt <= self.len
            && self.nxt < self.una + self.flight * self.mss
            && (self.nxt < self.edge || self.nxt == self.len)
        {
            self.nxt += self.send_at(self.nxt, now);
            self.sent = self.sent.max(self.nxt);
        }
        if self.una <= self.len {
            let timer = now + self.rto;
            self.timer.get_or_insert(timer);
        } else {
            self.timer = None;
        }
    }

    /// Sends one segment from an offset on; how many numbers it takes.
    fn send_at(&mut self, at: u64, now: Instant) -> u64 {
        let full = if self.dice.one_in(8) { 1 + self.dice.below(self.mss) } else { self.mss };
        let open = self.edge.saturating_sub(at).max(1);
        let n = full.min(open).min(self.len.saturating_sub(at));
        let payload: Vec<u8> = (at..at + n).map(byte_at).collect();
        // The FIN comes with the last bytes or behind them.
        let fin = at + n == self.len && (n == 0 || !self.dice.one_in(3));
        let mut flags = Flags::ACK;
        if fin {
            flags = flags.with(Flags::FIN);
        }
        if self.dice.one_in(4) {
            flags = flags.with(Flags::PSH);
        }
        let seq = self.iss.wrapping_add(1).wrapping_add(at as u32);
        let out = Outgoing { seq, flags, ..self.usual(now) };
        self.emit(&out, &payload);
        n + u64::from(fin)
    }

    fn send_ack(&mut self, now: Instant) {
        let seq = self.iss.wrapping_add(1).wrapping_add(self.nxt as u32);
        let out = Outgoing { seq, flags: Flags::ACK, ..self.usual(now) };
        self.emit(&out, &[]);
    }

    fn send_syn(&mut self, now: Instant) {
        let out = Outgoing {
            seq: self.iss,
            flags: Flags::SYN,
            mss: Some(1460),
            window_scale: self.scale,
            sack_permitted: self.sack,
            ..self.usual(now)
        };
        self.emit(&out, &[]);
    }

    fn usual(&self, now: Instant) -> Outgoing {
        let val = now.as_millis() as u32;
        Outgoing {
            ack: self.rcv_nxt,
            window: 65_535,
            ts: self.ts.map(|ecr| Timestamps { val, ecr }),
            ..Outgoing::default()
        }
    }

    fn emit(&mut self, out: &Outgoing, payload: &[u8]) {
        let tuple = FourTuple {
            local_addr: PEER_ADDR.into(),
            remote_addr: OUR_ADDR.into(),
            local_port: 40_000,
            remote_port: PORT,
        };
        let mut frame = vec![0; MAX_CONTROL_LEN + payload.len()];
        let at = ethernet::emit(&mut frame, OUR_MAC, PEER_MAC, None, ethernet::IPV4);
        let len = tcp::emit(&mut frame[at..], &tuple, out, 0, payload);
        frame.truncate(at + len);
        // As a device would: no frame is shorter than 60 bytes.
        frame.resize(frame.len().max(60), 0xee);
        self.out.push(frame);
    }

    /// The offset of a number, within half the circle of what is acknowledged.
    fn offset_of(&self, seq: u32) -> i64 {
        let una = self.iss.wrapping_add(1).wrapping_add(self.una as u32);
        self.una as i64 + i64::from(seq.wrapping_sub(una) as i32)
    }
}
