//! What a segment must do to a connection, written a second time, from the RFCs and from what
//! Linux does: one function from top to bottom, over marks.
//!
//! It is told what cannot be known from outside (whether memory was found for a payload), and says
//! what has become of the segment and what the peer must be told.

use std::time::Duration;

use prequeue::tcp::tcb::{ConnError, State};
use prequeue::time::Instant;
use prequeue::wire::{Flags, Outgoing, Segment};

use super::marks::{FIN, Marks, Symbol};

/// TS.Recent says nothing any more after this.
const OUTDATED: Duration = Duration::from_secs(2147);

/// The largest window that the peer has ever advertised: the model's peer does so in the handshake.
pub const PEER_WINDOW: u16 = u16::MAX;

/// The connection as the model sees it.
#[derive(Debug)]
pub struct Model {
    pub marks: Marks,
    /// Sequence number of offset 0, the byte behind the SYN.
    pub base: u32,
    /// Our number behind our SYN.
    pub ours: u32,
    pub state: State,
    pub error: Option<ConnError>,
    /// TS.Recent, and when it was learnt.
    pub ts: Option<(u32, Instant)>,
    pub sack: bool,
    pub dsack: bool,
    pub shift: u8,
    /// The acknowledgement last sent.
    pub acked: i64,
    /// The right edge last advertised.
    pub promised: i64,
    pub fin_sent: bool,
    pub fin_acked: bool,
    pub read_shut: bool,
}

/// What is known about the moment of an arrival beside the segment.
#[derive(Debug)]
pub struct Seen<'a> {
    pub now: Instant,
    /// Charged before the arrival, and the limit.
    pub rmem: u32,
    pub rcvbuf: u32,
    /// Charged after it.
    pub rmem_after: u32,
    /// The segment was dropped because no memory was found for it.
    pub refused: bool,
    /// A RST that may be taken or challenged was taken.
    pub reset: bool,
    /// The in-order edge has moved.
    pub advanced: bool,
    /// The end of the window after it.
    pub right: u32,
    /// What was sent at once.
    pub reply: Option<&'a Outgoing>,
}

/// What the peer must be told.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Expect {
    /// A challenge ACK, if the limit of replies permits it.
    pub challenge: bool,
    /// A RST in reply.
    pub rst: bool,
    /// An ACK by the end of the burst.
    pub now: bool,
    /// An ACK for this segment alone, even within a burst.
    pub each: bool,
    /// What the next ACK reports as duplicate.
    pub duplicate: Option<(i64, i64)>,
    /// What the first block of the next ACK holds.
    pub trigger: Option<(i64, i64)>,
    /// What was reported of the out-of-order queue is void.
    pub forget: bool,
    /// It was dropped for want of memory: the next ACK closes the window.
    pub shut: bool,
    /// The reply went before the segment was taken, and is accounted for.
    pub early: bool,
}

impl Model {
    /// Our next number.
    pub fn snd_nxt(&self) -> u32 {
        self.ours.wrapping_add(u32::from(self.fin_sent))
    }

    fn snd_una(&self) -> u32 {
        self.ours.wrapping_add(u32::from(self.fin_acked))
    }

    /// The sequence number at an offset.
    pub fn seq_at(&self, at: i64) -> u32 {
        self.base.wrapping_add(at as u32)
    }

    /// The offset of a sequence number: within half the circle of the edge.
    pub fn offset_of(&self, seq: u32) -> i64 {
        let edge = self.marks.edge();
        edge + i64::from(seq.wrapping_sub(self.seq_at(edge)) as i32)
    }

    /// The number behind what the peer may send.
    pub fn right(&self) -> i64 {
        self.promised.max(self.marks.edge())
    }

    fn after_fin(&self) -> bool {
        matches!(self.state, State::CloseWait | State::LastAck | State::Closing)
    }

    pub fn die(&mut self, error: Option<ConnError>) {
        self.state = State::Closed;
        self.error = self.error.or(error);
        self.marks.clear();
    }

    fn reset(&mut self) {
        let broken = self.state == State::CloseWait;
        self.die(Some(if broken { ConnError::BrokenPipe } else { ConnError::Reset }));
    }

    /// An ACK has left. `right` is the end of the window that the connection goes by from now on: where
    /// the header can say no more it may lie beyond what it says.
    pub fn sent(&mut self, out: &Outgoing, right: u32) {
        self.acked = self.marks.edge();
        let said = self.acked + (i64::from(out.window) << self.shift);
        self.promised = match out.window {
            u16::MAX => said.max(self.offset_of(right)),
            _ => said,
        };
    }

    /// A segment has arrived, and this has become of it.
    pub fn arrived(&mut self, seg: &Segment, bytes: &[u8], room: usize, seen: &Seen<'_>) -> Expect {
        let mut expect = Expect::default();
        let has = |flag| seg.flags.has(flag);
        if matches!(self.state, State::Closed | State::TimeWait)
            || !(has(Flags::ACK) || has(Flags::RST) || has(Flags::SYN))
        {
            return expect;
        }
        let edge = self.marks.edge();
        let (seq, end) = (self.offset_of(seg.seq), self.offset_of(seg.end_seq()));
        let sack = self.sack;
        let old = |expect: &mut Expect| {
            if seg.len > 0 || has(Flags::FIN) {
                expect.now = true;
                expect.duplicate = (seq < edge).then_some((seq, end.min(edge)));
                expect.each = seq < edge && !sack;
            }
        };

        // PAWS.
        if let (Some((recent, at)), Some(option)) = (self.ts, seg.ts) {
            let back = recent.wrapping_sub(option.val) as i32;
            let rejects = back > 1 && recent != 0 && seen.now.since(at) < OUTDATED;
            if rejects && !has(Flags::RST) {
                if has(Flags::SYN) {
                    expect.challenge = true;
                } else {
                    old(&mut expect);
                }
                return expect;
            }
        }

        // Sequence. What starts inside the window and ends beyond is taken while nothing is unread, and a
        // FIN may lie beyond in any case.
        let stale = end < self.acked;
        let unread = seen.rmem > self.marks.truesize();
        let over = end - i64::from(has(Flags::FIN)) > self.right();
        let beyond = !stale && over && (seq > self.right() || unread);
        if beyond || stale {
            if has(Flags::RST) {
                if seq == edge - 1 && self.after_fin() {
                    self.reset();
                }
            } else if has(Flags::SYN) {
                expect.challenge = true;
            } else if !(beyond
                && seq == edge
                && has(Flags::ACK)
                && self.acknowledged(seg, &mut expect))
            {
                old(&mut expect);
            }
            return expect;
        }

        // RST, SYN.
        if has(Flags::RST) {
            let at_fin = seq == edge - 1 && self.after_fin();
            let at_run = self.sack && self.marks.run_ends_at(seq);
            if seq == edge || at_fin || (at_run && seen.reset) {
                self.reset();
            } else {
                expect.challenge = true;
            }
            return expect;
        }
        if has(Flags::SYN) {
            expect.challenge = true;
            return expect;
        }

        // ACK.
        if self.is_challenged(seg, seen.advanced || seen.refused) {
            expect.challenge = true;
            return expect;
        }
        if let (Some((recent, at)), Some(option)) = (self.ts, seg.ts) {
            let back = recent.wrapping_sub(option.val) as i32;
            let older = back > 0 && recent != 0 && seen.now.since(at) < OUTDATED;
            if seq <= self.acked && !older {
                self.ts = Some((option.val, seen.now));
            }
        }
        if self.fin_is_acknowledged(seg) {
            return expect;
        }

        // Payload and FIN.
        let len = i64::from(seg.len);
        if len == 0 && !has(Flags::FIN) {
            return expect;
        }
        if self.after_fin() && seq >= edge {
            return expect;
        }
        let nobody_reads = match self.state {
            State::Established => false,
            State::FinWait1 | State::FinWait2 => self.read_shut,
            _ => true,
        };
        if nobody_reads && seq + len > edge {
            self.reset();
            expect.rst = true;
            return expect;
        }
        let mut symbols: Vec<Symbol> = bytes.iter().map(|&byte| Symbol::from(byte)).collect();
        symbols.extend(has(Flags::FIN).then_some(FIN));

        let open = self.right() - edge;
        if seq > edge {
            if seq >= self.right() {
                expect.now = true;
                expect.each = !self.sack;
                return expect;
            }
            self.out_of_order(seq, symbols, room, seen, &mut expect);
            return expect;
        }
        // A stream has one FIN.
        if end <= edge || self.marks.eof() {
            expect.now = true;
            expect.each = !self.sack;
            expect.duplicate = Some((seq, end.min(edge)));
            return expect;
        }
        if seq < edge {
            expect.duplicate = Some((seq, edge));
            expect.now = seen.reply.is_some();
            // The report of an earlier duplicate went first, and with it a new right edge.
            if let Some(out) = seen.reply {
                self.sent(out, seen.right);
                expect.early = true;
            }
        }
        if open == 0 && seq + len > edge {
            expect.now = true;
            return expect;
        }
        symbols.drain(..(edge - seq) as usize);
        self.in_order(symbols, seen, &mut expect);
        expect
    }

    /// Whether the ACK field names what was never sent, or what was acknowledged before. That reaches
    /// further back in a segment that header prediction has foreseen.
    fn is_challenged(&self, seg: &Segment, foreseen: bool) -> bool {
        let ahead = seg.ack.wrapping_sub(self.snd_nxt()) as i32;
        let behind = self.snd_una().wrapping_sub(seg.ack) as i32;
        let foreseen = foreseen && seg.len > 0 && self.offset_of(seg.seq) == self.marks.edge();
        let back =
            if foreseen { PEER_WINDOW.into() } else { i32::from(self.state == State::FinWait2) };
        ahead > 0 || behind > back
    }

    /// Our FIN was acknowledged, if it is; whether that has ended the connection.
    fn fin_is_acknowledged(&mut self, seg: &Segment) -> bool {
        if !self.fin_sent || self.fin_acked || seg.ack != self.snd_nxt() {
            return false;
        }
        self.fin_acked = true;
        match self.state {
            State::FinWait1 => self.state = State::FinWait2,
            State::Closing => self.state = State::TimeWait,
            State::LastAck => self.die(None),
            _ => {}
        }
        matches!(self.state, State::TimeWait | State::Closed)
    }

    /// The ACK of a segment that has no room at the edge counts; whether nothing more is said of it.
    fn acknowledged(&mut self, seg: &Segment, expect: &mut Expect) -> bool {
        // Old ones are challenged unless header prediction has foreseen the segment, which nobody can tell
        // from outside: nor whether an answer was left out because of their limit.
        expect.challenge = self.is_challenged(seg, true);
        self.is_challenged(seg, false) || self.fin_is_acknowledged(seg)
    }

    fn out_of_order(
        &mut self,
        seq: i64,
        symbols: Vec<Symbol>,
        room: usize,
        seen: &Seen<'_>,
        expect: &mut Expect,
    ) {
        let before = self.marks.truesize();
        if seen.rmem > seen.rcvbuf {
            expect.forget = self.reclaim(seq, seen);
        }
        let over = seen.rmem - (before - self.marks.truesize()) > seen.rcvbuf;
        assert_eq!(seen.refused, over, "dropped for another reason than memory");
        if seen.refused {
            return;
        }
        let end = seq + symbols.len() as i64;
        let duplicate = self.marks.first_run(seq, end);
        self.marks.insert(seq, &symbols, room);
        expect.trigger = Some((seq, end));
        expect.duplicate = duplicate;
        expect.now = duplicate.is_some() || !self.sack;
        expect.each = expect.now;
    }

    fn in_order(&mut self, symbols: Vec<Symbol>, seen: &Seen<'_>, expect: &mut Expect) {
        let edge = self.marks.edge();
        if seen.rmem > seen.rcvbuf && symbols.first() == Some(&FIN) {
            // It takes no memory, but where there is none for more the window is closed.
            let before = self.marks.truesize();
            expect.forget = self.reclaim(edge, seen);
            let starved = seen.rmem - (before - self.marks.truesize()) > seen.rcvbuf;
            (expect.shut, expect.now) = (starved, starved);
        } else if seen.rmem > seen.rcvbuf {
            let before = self.marks.truesize();
            expect.forget = self.reclaim(edge, seen);
            let now = seen.rmem - (before - self.marks.truesize());
            let starved = now > seen.rcvbuf;
            if seen.refused {
                assert!(starved, "dropped for no reason");
                (expect.shut, expect.now) = (true, true);
                return;
            }
            // Only into what is charged already.
            assert!(!starved || seen.rmem_after == now, "taken without memory");
        }
        let gap = !self.marks.is_gapless();
        self.marks.advance(&symbols);
        // A gap that is filled is told at once.
        expect.now |= gap && self.marks.is_gapless() && !self.marks.eof();
        if self.marks.eof() {
            match self.state {
                State::Established => self.state = State::CloseWait,
                State::FinWait1 => (self.state, expect.now) = (State::Closing, true),
                State::FinWait2 => (self.state, expect.now) = (State::TimeWait, true),
                _ => unreachable!("a FIN in {:?}", self.state),
            }
        }
    }

    /// More is charged than may be: an eighth of the buffer is won back, if there is so much.
    fn reclaim(&mut self, keep: i64, seen: &Seen<'_>) -> bool {
        let excess = seen.rmem - seen.rcvbuf;
        self.marks.prune(excess.max(seen.rcvbuf / 8), keep)
    }
}
