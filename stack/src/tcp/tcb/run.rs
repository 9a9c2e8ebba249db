//! Runs of predicted segments: many at once, with the state they need in registers.
//!
//! The lcore offers the frames of a burst that belong to the connection; as many as are just the
//! next in order and teach nothing are taken, and the first other one ends the run: it goes through
//! [`Tcb::on_segment`]. Nothing is decided here that is not decided there, and in the same way.

use crate::buf::{BufQueue, PacketBuf, SegCb};
use crate::tcp::ofo::COPY_LIMIT;
use crate::tcp::{Counter, Cx, SeqNum};
use crate::wire::Flags;
use crate::wire::frame::Words;

use super::ack::{LEAST_MSS, Owed};
use super::input::COPY_FROM;
use super::{Sink, Tcb, UNPREDICTABLE};

/// PSH in [`Words::control`].
const PSH: u32 = Words::control(Words::WITHOUT_OPTIONS, Flags::PSH, 0)
    ^ Words::control(Words::WITHOUT_OPTIONS, Flags(0), 0);

/// Whose the buffers of a run are: what their control blocks shall say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// Socket that is charged.
    pub socket: u32,
    /// Its generation.
    pub generation: u32,
}

impl<B: PacketBuf> Tcb<B> {
    /// Takes frames of this connection from the front of `frames` for as long as each is what
    /// [`Self::on_segment`] would say [`Verdict::Predicted`](super::Verdict::Predicted) of, and
    /// teaches the ACK policy nothing. Their places are left empty; returns their number.
    ///
    /// The frames are whole, their checksums right, and they are segments of this connection. What
    /// `on_segment` does for each of them has been done; the one behind them, if there is one, is to
    /// be given to it.
    #[inline]
    pub fn on_frames(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> usize {
        if self.prediction == UNPREDICTABLE || !self.ack.follows_quickly(cx.now) {
            return 0;
        }
        let taken = match self.ts {
            Some(_) => self.run::<{ Words::WITH_TIMESTAMPS }>(cx, frames, owner, sink),
            None => self.run::<{ Words::WITHOUT_OPTIONS }>(cx, frames, owner, sink),
        };
        self.check();
        taken
    }

    fn run<const HEADERS: usize>(
        &mut self,
        cx: &mut Cx<'_>,
        frames: &mut [Option<B>],
        owner: Owner,
        sink: &mut impl Sink<B>,
    ) -> usize {
        let control = Words::control(HEADERS, Flags::ACK, (self.prediction >> 8) as u16);
        let mut numbers = u64::from(self.rcv_nxt.raw()) << 32 | u64::from(self.snd_nxt.raw());
        let mut room = self.window.right_edge().since(self.rcv_nxt);
        let mut rmem = self.window.rmem;

        // What the ACK policy learns nothing of: full segments once the window is about open, small
        // ones once two were seen since the last ACK.
        let full = if self.window.is_about_opened() { u32::from(self.ack.rcv_mss) } else { 0 };
        let limit = self.window.rcvbuf;
        // From there on small ones are copied together.
        let copy_limit = limit.min(limit / COPY_FROM + 1);
        let full_limit = if full <= COPY_LIMIT as u32 { copy_limit } else { limit };
        let small_limit = if self.ack.owed.has(Owed::PUSHED_AGAIN) { copy_limit } else { 0 };

        // Only the first can have nothing between itself and the last ACK.
        let learns = self.rcv_nxt == self.window.wup;
        let mut recent = self.ts.map_or(0, |ts| ts.recent);

        let mut chain = B::Queue::default();
        let mut goes_to_sink = self.receive.is_empty();
        let (mut taken, mut sunk) = (0_usize, 0_usize);
        let mut last_len = 0;
        for slot in &mut *frames {
            let Some(frame) = slot else { break };
            let Some(words) = Words::read::<HEADERS>(frame.data()) else { break };
            let Words { len, .. } = words;
            if words.numbers != numbers || len > room {
                break;
            }
            let limit = if len == full && words.control == control {
                if frame.merged_from().is_some() {
                    break;
                }
                full_limit
            } else if len < u32::from(LEAST_MSS) && words.control & !PSH == control {
                small_limit
            } else {
                break;
            };
            if rmem >= limit || (words.ts_val.wrapping_sub(recent) as i32) < 0 {
                break;
            }
            let Some(mut buf) = slot.take() else { break };
            if learns && taken == 0 {
                recent = words.ts_val;
            }
            buf.narrow(HEADERS, len as usize);
            *buf.cb_mut() = SegCb {
                seq: (numbers >> 32) as u32,
                fin: false,
                rx_time: cx.now,
                socket: owner.socket,
                generation: owner.generation,
            };
            rmem += buf.truesize();
            room -= len;
            numbers = numbers.wrapping_add(u64::from(len) << 32);
            last_len = len;
            taken += 1;
            if goes_to_sink {
                match sink.push(buf) {
                    Ok(()) => {
                        sunk += 1;
                        continue;
                    }
                    Err(refused) => {
                        goes_to_sink = false;
                        buf = refused;
                    }
                }
            }
            chain.push_back(buf);
        }
        if taken == 0 {
            return 0;
        }
        self.rcv_nxt = SeqNum::new((numbers >> 32) as u32);
        self.snd_wl1 = self.rcv_nxt.minus(last_len);
        self.window.rmem = rmem;
        self.ack.on_more_of_the_same(cx.now);
        if learns && let Some(ts) = &mut self.ts {
            ts.learn(recent, cx.now);
        }
        self.receive.append(&mut chain);
        cx.counters.add(Counter::TCPHPHits, taken as u64);
        cx.counters.add(Counter::ToPrequeue, sunk as u64);
        cx.counters.add(Counter::ToReceiveQueue, (taken - sunk) as u64);
        taken
    }
}
