//! How connections end: TIME-WAIT entries in the place of sockets, and what follows their removal.
//!
//! Called by the engine on its lcore's thread. A socket whose connection is over leaves the flow
//! table at once; the socket itself stays until the application has let go of it, too.

use crate::buf::PacketBuf;
use crate::socket::Mode;
use crate::tcp::Counter;
use crate::tcp::isn::Numbers;
use crate::tcp::listen::SynOrigin;
use crate::tcp::time_wait::{Ending, TimeWait, TwVerdict};
use crate::wire::FourTuple;
use crate::wire::frame::TcpFrame;

use super::Transmit;
use super::flow::Target;
use super::tables::{Tables, TimeWaitSlot};
use super::work::Work;

impl<B: PacketBuf, M: Mode<B>> Tables<B, M> {
    /// Puts an entry in the place of a connection that has ended, if there are not too many.
    pub(super) fn begin_time_wait(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        tuple: &FourTuple,
        ending: &Ending,
    ) {
        let entry = TimeWait::new(&work.cx(), *tuple, ending);
        let counter = entry.counter(&work.cx());
        let Self { time_waits, wheel, shared, .. } = self;
        let made = if shared.time_waits.try_add(work.base.settings.tcp_max_tw_buckets) {
            let made = time_waits.insert_with(|key| {
                let timer = wheel.add(Target::TimeWait(key.index));
                wheel.arm(timer, entry.deadline());
                TimeWaitSlot { entry, timer }
            });
            if made.is_none() {
                shared.time_waits.remove();
            }
            made
        } else {
            None
        };
        match made {
            Some(key) => {
                self.flows.insert(tuple, Target::TimeWait(key.index));
                work.bump(counter);
            }
            None => {
                self.flows.remove(tuple);
                work.bump(Counter::TCPTimeWaitOverflow);
            }
        }
    }

    /// A segment for a TIME-WAIT entry.
    pub(super) fn on_time_wait_segment(
        &mut self,
        work: &mut Work<'_, impl Transmit>,
        index: u32,
        tcp: &TcpFrame,
        frame: &B,
    ) {
        let Some(slot) = self.time_waits.at_mut(index) else { return };
        work.bump(Counter::InSegs);
        let mut verdict = slot.entry.on_segment(&mut work.cx(), &tcp.segment);
        if matches!(verdict, TwVerdict::NewConnection { .. })
            && self.listener(tcp.tuple.local()).is_none()
        {
            let Some(slot) = self.time_waits.at_mut(index) else { return };
            verdict = slot.entry.on_no_listener(&mut work.cx(), &tcp.segment);
        }
        match verdict {
            TwVerdict::Ignore => {}
            TwVerdict::Ack(out) => work.send(&tcp.tuple, &out),
            TwVerdict::Remove(out) => {
                work.send_any(&tcp.tuple, out.as_ref());
                self.remove_time_wait(index);
            }
            TwVerdict::NewConnection { isn } => {
                let Some(listening) = self.listener(tcp.tuple.local()) else { return };
                self.remove_time_wait(index);
                work.bump(Counter::TWRecycled);
                let numbers = work.base.secret.numbers(&tcp.tuple, work.now);
                let numbers = Numbers { isn, ..numbers };
                self.on_syn(work, tcp, frame, listening, SynOrigin::TimeWait, numbers);
            }
        }
    }

    /// A TIME-WAIT entry's timer has fired; its deadline may have moved since it was set.
    pub(super) fn on_time_wait_timer(&mut self, work: &mut Work<'_, impl Transmit>, index: u32) {
        let Some(slot) = self.time_waits.at_mut(index) else { return };
        if work.now < slot.entry.deadline() {
            self.wheel.arm(slot.timer, slot.entry.deadline());
        } else {
            self.remove_time_wait(index);
        }
    }

    fn remove_time_wait(&mut self, index: u32) {
        if let Some(TimeWaitSlot { entry, timer }) = self.time_waits.remove(index) {
            self.flows.remove(entry.tuple());
            self.wheel.remove(timer);
            self.shared.time_waits.remove();
        }
    }
}
