//! The largest holders of an lcore's buffers, and lists of its connections, for whoever asks; the former
//! are kept from when the pool ran out, too.
//!
//! Threads ask at a [`Desk`] and look there for the answer; the lcore looks there once per poll and
//! goes through its sockets a few hundred at a time. It never waits for the lock on the answer: what
//! cannot be told now is told with a later poll.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::socket::Mode;
use crate::tcp::Counter;
use crate::time::Instant;

use super::engine::Engine;
use super::{Holder, HolderScan, Roll};

/// Where threads ask, and the lcore answers.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Questions asked so far: the lower half counts those for holders, the upper half those for lists.
    /// Relaxed: a number that stands for itself.
    asked: AtomicU64,
    told: Mutex<Told>,
}

/// One question for a list, in [`Desk::asked`].
const LIST: u64 = 1 << 32;

/// What the lcore has said.
#[derive(Debug, Default)]
struct Told {
    /// The question, by number, that was answered last.
    answered: u32,
    now: Vec<Holder>,
    /// Those of the last time that segments were dropped because the pool was running out.
    at_pressure: Vec<Holder>,
    /// The question for a list, by number, that was asked last, and what was listed so far.
    roll: Option<(u32, Roll)>,
    /// The question for a list, by number, that was answered last.
    listed: u32,
}

impl Desk {
    /// Asks who holds most; the number of the question.
    pub fn ask(&self) -> u32 {
        (self.asked.fetch_add(1, Ordering::Relaxed) as u32).wrapping_add(1)
    }

    /// The answer to a question, when there is one.
    pub fn answer(&self, question: u32) -> Option<Vec<Holder>> {
        let told = self.told();
        (told.answered.wrapping_sub(question) as i32 >= 0).then(|| told.now.clone())
    }

    /// Asks for a list of the connections, to be written to this; the number of the question. A list
    /// that was asked for before and is not ready is given up.
    pub fn ask_for_list(&self, list: Roll) -> u32 {
        // Under the lock, so that the number is that of what is there.
        let mut told = self.told();
        let question = list_number(self.asked.fetch_add(LIST, Ordering::Relaxed)).wrapping_add(1);
        told.roll = Some((question, list));
        question
    }

    /// The list, once, when it is ready.
    pub fn take_list(&self, question: u32) -> Option<Roll> {
        let mut told = self.told();
        let Told { roll, listed, .. } = &mut *told;
        let ready = roll.take_if(|(number, _)| *number == question && *listed == question);
        ready.map(|(_, list)| list)
    }

    /// The largest holders when segments were last dropped for want of buffers.
    pub fn at_pressure(&self) -> Vec<Holder> {
        self.told().at_pressure.clone()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the question for a list that was asked last.
const fn list_number(asked: u64) -> u32 {
    (asked >> 32) as u32
}

/// Time between two looks while segments are being dropped.
const AGAIN: Duration = Duration::from_millis(10);

/// The lcore's side of the desk.
#[derive(Debug, Default)]
pub(super) struct Census {
    scan: HolderScan,
    under_way: Option<Occasion>,
    /// The questions that were answered last, as [`Desk::asked`] has them.
    answered: u64,
    /// Segments dropped for want of buffers when that was last looked into, and when that was.
    drops: u64,
    looked_at: Instant,
}

/// Why holders are looked for.
#[derive(Clone, Copy, Debug)]
enum Occasion {
    Question(u32),
    Drops(u64),
}

/// How to write down that a question of one kind was answered.
const fn with_half(answered: u64, asked: u64, half: u64) -> u64 {
    answered & !half | asked & half
}

/// The two halves of [`Desk::asked`].
const HOLDERS_HALF: u64 = LIST - 1;
const LISTS_HALF: u64 = !HOLDERS_HALF;

impl Census {
    /// One step, if there is anything to do.
    #[inline]
    pub fn work<B: PacketBuf, M: Mode<B>>(
        &mut self,
        engine: &mut Engine<B, M>,
        desk: &Desk,
        now: Instant,
    ) {
        let asked = desk.asked.load(Ordering::Relaxed);
        let drops = engine.counters().value(Counter::PoolPressureDrop);
        if self.under_way.is_some() || asked != self.answered || drops != self.drops {
            self.look(engine, desk, (asked, drops), now);
        }
    }

    #[cold]
    fn look<B: PacketBuf, M: Mode<B>>(
        &mut self,
        engine: &mut Engine<B, M>,
        desk: &Desk,
        (asked, drops): (u64, u64),
        now: Instant,
    ) {
        if list_number(asked) != list_number(self.answered) {
            self.list(engine, desk, asked, now);
        }
        let question = asked as u32;
        let is_asked = question != self.answered as u32;
        if self.under_way.is_none() && !is_asked && drops == self.drops {
            return;
        }
        let occasion = match self.under_way {
            Some(occasion) => occasion,
            None if is_asked => Occasion::Question(question),
            // The first time at once: what is looked for may be gone soon.
            None if self.drops != 0 && now.since(self.looked_at) < AGAIN => return,
            None => Occasion::Drops(drops),
        };
        self.under_way = Some(occasion);
        let Ok(mut told) = desk.told.try_lock() else { return };
        let Some(found) = engine.find_holders(&mut self.scan) else { return };
        self.under_way = None;
        match occasion {
            Occasion::Question(number) => {
                self.answered = with_half(self.answered, number.into(), HOLDERS_HALF);
                told.answered = number;
                told.now = found;
            }
            Occasion::Drops(drops) => {
                self.drops = drops;
                self.looked_at = now;
                told.at_pressure = found;
            }
        }
    }

    /// Goes on with the list that was asked for last.
    fn list<B: PacketBuf, M: Mode<B>>(
        &mut self,
        engine: &mut Engine<B, M>,
        desk: &Desk,
        asked: u64,
        now: Instant,
    ) {
        let Ok(mut told) = desk.told.try_lock() else { return };
        let Told { roll, listed, .. } = &mut *told;
        if let Some((question, roll)) = roll
            && *question == list_number(asked)
            && engine.call_roll(roll, now)
        {
            *listed = *question;
            self.answered = with_half(self.answered, asked, LISTS_HALF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapBuf;
    use crate::lcore::hash::HashKey;
    use crate::lcore::{EngineConfig, Interface, engines};
    use crate::tcp::Settings;
    use crate::tcp::isn::Secret;
    use crate::wire::MacAddr;

    fn engine() -> Engine<HeapBuf> {
        let config = EngineConfig {
            settings: Settings::default(),
            interface: Interface::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500)
                .with_address([10, 0, 0, 1], 24),
            secret: Secret::from_seed(1),
            key: HashKey::new([1, 2]),
            max_connections: 1,
        };
        engines(&config, 1).0.pop().expect("one was asked for")
    }

    #[test]
    fn a_question_is_answered_once_and_never_waited_for() {
        let (mut engine, desk, mut census) = (engine(), Desk::default(), Census::default());
        let now = Instant::from_millis(1);
        let (first, second) = (desk.ask(), desk.ask());
        assert!(desk.answer(first).is_none());
        {
            let _reader = desk.told.lock().unwrap();
            census.work(&mut engine, &desk, now);
        }
        assert!(desk.answer(first).is_none(), "the lock was held");
        census.work(&mut engine, &desk, now);
        assert!(desk.answer(first).is_some() && desk.answer(second).is_some());
        assert!(desk.answer(desk.ask()).is_none());
    }

    #[test]
    fn a_list_is_told_once_and_a_newer_question_takes_its_place() {
        let (mut engine, desk, mut census) = (engine(), Desk::default(), Census::default());
        let mut work = |polls| {
            for _ in 0..polls {
                census.work(&mut engine, &desk, Instant::from_millis(1));
            }
        };
        let first = desk.ask_for_list(Roll::with_room_for(1));
        let second = desk.ask_for_list(Roll::with_room_for(1));
        work(10);
        assert!(desk.take_list(first).is_none(), "nobody waits for it any more");
        assert!(desk.take_list(second).is_some());
        assert!(desk.take_list(second).is_none(), "it was taken");
        // Questions of the other kind are answered as well, before and after.
        let holders = desk.ask();
        let third = desk.ask_for_list(Roll::with_room_for(1));
        work(10);
        assert!(desk.answer(holders).is_some() && desk.take_list(third).is_some());
        assert_eq!(census.answered, desk.asked.load(Ordering::Relaxed), "there is nothing to do");
    }

    #[test]
    fn drops_are_looked_into_but_not_all_the_time() {
        let (mut engine, desk, mut census) = (engine(), Desk::default(), Census::default());
        for (ms, looked_at) in [(5, 5), (6, 5), (14, 5), (15, 15), (200, 200)] {
            engine.count(Counter::PoolPressureDrop, 1);
            census.work(&mut engine, &desk, Instant::from_millis(ms));
            assert_eq!(census.looked_at, Instant::from_millis(looked_at));
        }
    }
}
