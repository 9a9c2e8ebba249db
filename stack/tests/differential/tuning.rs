//! Scenarios in which buffers grow: a peer that sends in bursts over a path of some length, and a reader
//! that keeps up with it, or nearly.
//!
//! What a stack makes of it hangs on the time between the reads and on the round trip. So both are long
//! against what the machine's clock may add, and no round trip is just over when a read comes. A read
//! takes one segment: Linux looks at the reader's progress with each buffer that it copies, we after
//! each call.

use crate::generate::Dice;
use crate::packet::{ACK, PSH};
use crate::scenario::{Config, Len, MOST, Place, Read, Scenario, Spec, Stamp, Step};

/// A scenario of this kind; what the peer offers besides is random.
pub fn scenario(mut dice: Dice, mut config: Config) -> Scenario {
    config.moderate = true;
    config.rcvbuf = None;
    config.cookies = false;
    config.ecn = false;
    config.window = 65_535;
    config.mss = Some(1460);
    config.scale = dice.of(&[Some(7), Some(7), Some(7), Some(0), None]);
    let (ip, options) = (if config.ipv6 { 20 } else { 0 }, if config.timestamps { 12 } else { 0 });
    let mut sender = Sender {
        payload: MOST as u16 - ip - options,
        timestamps: config.timestamps,
        pushes: dice.once_in(2),
    };
    let mut steps = vec![sender.segment((Place::Next, 0), 0)];
    let round_trip = dice.of(&[12, 20, 28]);
    let keeps_up = !dice.once_in(4);
    let payload = sender.payload;
    let read = Step::Recv(Read { len: payload.into(), ..Read::default() });
    let mut burst = dice.between(6, 24);
    for _ in 0..dice.between(3, 8) {
        // The first segment behind the pause measures a round trip, the first read what was read in one.
        steps.push(Step::Wait(round_trip + round_trip / 2));
        if dice.once_in(4) {
            steps.push(sender.segment((Place::Next, i32::from(payload)), payload));
        }
        for _ in 0..burst {
            steps.push(sender.segment((Place::Next, 0), payload));
            if keeps_up {
                steps.push(read.clone());
            }
        }
        let unread = if keeps_up { dice.between(0, 1) } else { burst };
        steps.extend((0..unread).map(|_| read.clone()));
        // As in slow start, or as the application limits it.
        burst = if dice.once_in(3) { burst } else { (burst * 2).min(40) };
    }
    Scenario { config, steps }
}

struct Sender {
    /// Of a full segment.
    payload: u16,
    timestamps: bool,
    pushes: bool,
}

impl Sender {
    fn segment(&mut self, at: (Place, i32), len: u16) -> Step {
        Step::Segment(Spec {
            at,
            len: Len::Bytes(len),
            flags: if self.pushes && len > 0 { ACK | PSH } else { ACK },
            ack: 0,
            window: 1000,
            ts: self.timestamps.then_some(Stamp { val: 1, ecr: 0 }),
            urgent: 0,
            tos: 0,
            junk: Vec::new(),
            variant: 0,
            corrupt: false,
        })
    }
}
