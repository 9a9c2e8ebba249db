//! Virtual time for two threads: one that drives a script, and one that blocks in a call.
//!
//! Every call of the adapter enters through [`Clock::enter`], on whichever thread packetdrill makes
//! it. Time moves only when the driving thread says so, from deadline to deadline, and stands still
//! while a blocked call looks at what an event has changed and until its thread has read the clock.
//! Nothing here knows TCP, and nothing spins: the driving thread waits for the other to sleep.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prequeue::time::Instant;
use rustix::thread::{Pid, gettid};

/// What a reading of the clock costs. packetdrill spins on the clock for the last microseconds
/// before an event, so a clock that stood still would stop it.
const TICK: Duration = Duration::from_micros(1);

/// A driving thread that has been out of the adapter for so long, asleep, waits for the call that
/// is blocked. It makes calls every few microseconds otherwise; its patience ends after a second.
const SILENCE: Duration = Duration::from_millis(20);

/// Threads that have not done their part after so long are not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Deadlines that are taken at one instant before time is moved on by force: what asks for ever more
/// work at the same time would stop it.
const DEADLINES_PER_INSTANT: u32 = 1000;

/// Deadlines that pass while one packet is waited for: enough for days of any timer that sends.
const DEADLINES_PER_WAIT: u32 = 100_000;

/// What lives in virtual time.
pub trait Timed {
    /// When something will happen by itself next.
    fn next_deadline(&self) -> Option<Instant>;
    /// Lets everything happen that is due at `now`, which never goes back.
    fn run(&mut self, now: Instant);
}

/// A clock and what lives by it.
#[derive(Debug)]
pub struct Clock<W> {
    state: Mutex<State<W>>,
    /// A round has begun, a thread has done its part of one, or a thread has read the clock.
    changed: Condvar,
    /// The thread that drives the script.
    driver: Pid,
}

#[derive(Debug)]
struct State<W> {
    world: W,
    now: Instant,
    /// Counts the looks that blocked calls are to take.
    round: u64,
    blocked: Vec<Blocked>,
    /// The thread whose blocked call has ended, until it has read the clock.
    returning: Option<Pid>,
    /// When the driving thread left the adapter; `None` while it is inside.
    driver_left: Option<std::time::Instant>,
}

/// A call that sleeps.
#[derive(Debug)]
struct Blocked {
    thread: Pid,
    until: Option<Instant>,
    /// The last round in which it has looked.
    seen: u64,
}

/// What a call came to that may have to wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attempt<R> {
    /// It is over.
    Done(R),
    /// Try again when something has happened, or at this instant.
    Wait(Option<Instant>),
}

/// The driving thread would wait for itself: nothing will ever happen again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadlock;

impl<W: Timed> Clock<W> {
    /// A clock that begins at `now` and is driven by the calling thread.
    pub fn new(world: W, now: Instant) -> Self {
        let state =
            State { world, now, round: 0, blocked: Vec::new(), returning: None, driver_left: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), driver: gettid() }
    }

    /// Begins a call. Calls exclude each other, but for those that wait.
    pub fn enter(&self) -> Turn<'_, W> {
        // A panic under the lock has been reported as a failed call: the next one may go on.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = gettid();
        if thread == self.driver {
            state.driver_left = None;
        }
        Turn { clock: self, state: Some(state), thread }
    }
}

/// A call under way: access to the world and to its time.
#[derive(Debug)]
pub struct Turn<'a, W> {
    clock: &'a Clock<W>,
    /// Always there but while the call sleeps.
    state: Option<MutexGuard<'a, State<W>>>,
    thread: Pid,
}

impl<W: Timed> Turn<'_, W> {
    /// The time.
    pub fn now(&self) -> Instant {
        self.state().now
    }

    /// Reads the clock, which ticks by it. A thread whose call has ended lets time go on.
    pub fn read(&mut self) -> Instant {
        if self.state().returning == Some(self.thread) {
            self.state_mut().returning = None;
            self.clock.changed.notify_all();
        }
        let now = self.now() + TICK;
        self.advance(now);
        now
    }

    /// Lets a span of time pass.
    pub fn pass(&mut self, span: Duration) {
        let to = self.now() + span;
        self.advance(to);
    }

    /// Tells that something has changed: blocked calls look, and those that end return, before
    /// anything else happens.
    pub fn settle(&mut self) {
        let thread = self.thread;
        let state = self.state_mut();
        let now = state.now;
        state.world.run(now);
        state.round += 1;
        let round = state.round;
        let waited_for = |state: &State<W>| {
            state.returning.is_some_and(|returning| returning != thread)
                || state.blocked.iter().any(|call| call.thread != thread && call.seen < round)
        };
        if !waited_for(state) {
            return;
        }
        self.clock.changed.notify_all();
        let begun = std::time::Instant::now();
        while waited_for(self.state()) && begun.elapsed() < PATIENCE {
            self.sleep(PATIENCE);
        }
    }

    /// Lets time pass from deadline to deadline until `ready` has a result; `None` if nothing is
    /// left that could happen.
    pub fn until<R>(&mut self, mut ready: impl FnMut(&mut W) -> Option<R>) -> Option<R> {
        for _ in 0..DEADLINES_PER_WAIT {
            let result = ready(self);
            if result.is_some() {
                return result;
            }
            let next = self.next_deadline()?;
            self.advance(next);
        }
        None
    }

    /// Repeats `attempt` until it is over; in between the thread sleeps, and if it is the driving
    /// one time passes instead.
    ///
    /// # Errors
    /// [`Deadlock`] if that thread would sleep for ever.
    pub fn block<R>(
        &mut self,
        mut attempt: impl FnMut(&mut W, Instant) -> Attempt<R>,
    ) -> Result<R, Deadlock> {
        let drives = self.thread == self.clock.driver;
        let mut has_slept = false;
        loop {
            let now = self.now();
            match attempt(self, now) {
                Attempt::Done(result) => {
                    if has_slept {
                        self.wake();
                    }
                    return Ok(result);
                }
                Attempt::Wait(until) if drives => {
                    let next = self.next_deadline().into_iter().chain(until).min();
                    self.advance(next.ok_or(Deadlock)?);
                }
                Attempt::Wait(until) => {
                    self.sleep_until(until);
                    has_slept = true;
                }
            }
        }
    }

    /// Whether another thread's call sleeps.
    #[cfg(test)]
    pub fn has_sleeper(&self) -> bool {
        self.state().blocked.iter().any(|call| call.thread != self.thread)
    }

    /// The first deadline of the world or of a blocked call.
    fn next_deadline(&self) -> Option<Instant> {
        let state = self.state();
        let calls = state.blocked.iter().filter_map(|call| call.until);
        state.world.next_deadline().into_iter().chain(calls).min()
    }

    /// Moves time to `to`, stopping at every deadline on the way.
    fn advance(&mut self, to: Instant) {
        let mut here = 0;
        while let Some(next) = self.next_deadline()
            && next <= to
            && here < DEADLINES_PER_INSTANT
        {
            let now = self.now();
            here = if next > now { 0 } else { here + 1 };
            self.state_mut().now = now.max(next);
            self.settle();
        }
        let state = self.state_mut();
        state.now = state.now.max(to);
    }

    /// Sleeps as a blocked call for one round.
    fn sleep_until(&mut self, until: Option<Instant>) {
        let thread = self.thread;
        let state = self.state_mut();
        let round = state.round;
        match state.blocked.iter_mut().find(|call| call.thread == thread) {
            Some(call) => (call.until, call.seen) = (until, round),
            None => state.blocked.push(Blocked { thread, until, seen: round }),
        }
        self.clock.changed.notify_all();
        while self.state().round == round {
            let in_time = self.sleep(SILENCE);
            if !in_time && self.state().round == round && self.is_driver_silent() {
                // Nobody will move time but us.
                if let Some(next) = self.next_deadline() {
                    self.advance(next);
                    return;
                }
            }
        }
    }

    /// A call that has slept is over: time stands still until its thread has read the clock.
    fn wake(&mut self) {
        let thread = self.thread;
        let state = self.state_mut();
        state.blocked.retain(|call| call.thread != thread);
        state.returning = Some(thread);
        self.clock.changed.notify_all();
    }

    /// Whether the driving thread waits for somebody else than us, and not for a child process.
    fn is_driver_silent(&self) -> bool {
        let driver = self.clock.driver;
        let left = self.state().driver_left;
        left.is_some_and(|left| left.elapsed() >= SILENCE) && is_in_futex(driver)
    }

    /// Sleeps until the condition variable is notified; false if `timeout` of real time has passed.
    fn sleep(&mut self, timeout: Duration) -> bool {
        let state = self.state.take().expect("given back below");
        let (state, result) =
            self.clock.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner);
        self.state = Some(state);
        !result.timed_out()
    }
}

impl<W> Turn<'_, W> {
    fn state(&self) -> &State<W> {
        self.state.as_ref().expect("there but while the call sleeps")
    }

    fn state_mut(&mut self) -> &mut State<W> {
        self.state.as_mut().expect("there but while the call sleeps")
    }
}

impl<W> Deref for Turn<'_, W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.state().world
    }
}

impl<W> DerefMut for Turn<'_, W> {
    fn deref_mut(&mut self) -> &mut W {
        &mut self.state_mut().world
    }
}

impl<W> Drop for Turn<'_, W> {
    fn drop(&mut self) {
        if self.thread == self.clock.driver
            && let Some(state) = &mut self.state
        {
            state.driver_left = Some(std::time::Instant::now());
        }
    }
}

/// Whether the kernel has a thread of this process asleep in futex(2).
fn is_in_futex(thread: Pid) -> bool {
    let path = format!("/proc/self/task/{}/syscall", thread.as_raw_nonzero());
    let number = std::fs::read_to_string(path)
        .ok()
        .and_then(|line| line.split(' ').next().and_then(|number| number.parse().ok()));
    number == Some(libc::SYS_futex)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Alarms that ring once each.
    #[derive(Debug, Default)]
    struct Alarms {
        set: Vec<Instant>,
        rung: Vec<Instant>,
    }

    impl Timed for Alarms {
        fn next_deadline(&self) -> Option<Instant> {
            self.set.iter().min().copied()
        }

        fn run(&mut self, now: Instant) {
            let (due, left) = self.set.drain(..).partition(|at| *at <= now);
            self.set = left;
            self.rung.extend(Vec::into_iter(due).map(|_| now));
        }
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn clock(alarms: &[u64]) -> Clock<Alarms> {
        let set = alarms.iter().map(|&at| ms(at)).collect();
        Clock::new(Alarms { set, rung: Vec::new() }, Instant::ZERO)
    }

    #[test]
    fn reading_ticks() {
        let clock = clock(&[]);
        let first = clock.enter().read();
        assert!(clock.enter().read() > first);
    }

    #[test]
    fn alarms_ring_at_their_time_on_the_way() {
        let clock = clock(&[30, 10, 50]);
        clock.enter().pass(Duration::from_millis(40));
        let turn = clock.enter();
        assert_eq!((turn.now(), &turn.rung[..]), (ms(40), &[ms(10), ms(30)][..]));
    }

    #[test]
    fn waiting_jumps_to_what_is_waited_for_and_ends_when_nothing_is_left() {
        let clock = clock(&[10, 3_600_000]);
        let mut turn = clock.enter();
        assert_eq!(turn.until(|alarms| (alarms.rung.len() == 2).then_some(7)), Some(7));
        assert_eq!(turn.now(), ms(3_600_000));
        assert_eq!(turn.until(|_| None::<()>), None);
    }

    #[test]
    fn the_driver_lets_time_pass_instead_of_sleeping() {
        let clock = clock(&[10]);
        let mut turn = clock.enter();
        let ringing = |alarms: &mut Alarms, _| match alarms.rung.len() {
            0 => Attempt::Wait(None),
            _ => Attempt::Done(()),
        };
        assert_eq!(turn.block(ringing), Ok(()));
        assert_eq!(turn.now(), ms(10));
        assert_eq!(turn.block(|_, _| Attempt::<()>::Wait(None)), Err(Deadlock));
    }

    /// Blocks on another thread until an alarm has rung; returns when it said so.
    fn blocked<'a>(
        scope: &'a std::thread::Scope<'a, '_>,
        clock: &'a Clock<Alarms>,
        until: Option<Instant>,
    ) -> mpsc::Receiver<(bool, Instant)> {
        let (tell, told) = mpsc::channel();
        scope.spawn(move || {
            let rang = clock.enter().block(|alarms, now| {
                if !alarms.rung.is_empty() {
                    Attempt::Done(true)
                } else if until.is_some_and(|until| until <= now) {
                    Attempt::Done(false)
                } else {
                    Attempt::Wait(until)
                }
            });
            let at = clock.enter().read();
            tell.send((rang.unwrap(), at)).unwrap();
        });
        while !clock.enter().has_sleeper() {
            std::thread::yield_now();
        }
        told
    }

    #[test]
    fn time_stands_still_until_a_woken_call_has_read_the_clock() {
        for _ in 0..100 {
            let clock = clock(&[10, 20]);
            std::thread::scope(|scope| {
                let told = blocked(scope, &clock, None);
                clock.enter().pass(Duration::from_millis(100));
                assert_eq!(told.recv().unwrap(), (true, ms(10) + TICK));
            });
        }
    }

    #[test]
    fn a_call_times_out_at_its_own_deadline() {
        let clock = clock(&[]);
        std::thread::scope(|scope| {
            let told = blocked(scope, &clock, Some(ms(30)));
            clock.enter().pass(Duration::from_millis(100));
            assert_eq!(told.recv().unwrap(), (false, ms(30) + TICK));
        });
    }

    #[test]
    fn a_blocked_call_moves_time_itself_when_the_driver_is_silent() {
        let clock = clock(&[]);
        std::thread::scope(|scope| {
            let told = blocked(scope, &clock, Some(ms(30)));
            // Asleep in a futex, as packetdrill is in pthread_cond_timedwait.
            assert_eq!(told.recv().unwrap(), (false, ms(30) + TICK));
        });
    }

    #[test]
    fn a_driver_that_waits_for_a_child_is_not_silent() {
        let clock = clock(&[]);
        std::thread::scope(|scope| {
            let told = blocked(scope, &clock, Some(ms(30)));
            std::thread::sleep(SILENCE * 3);
            assert_eq!(clock.enter().now(), Instant::ZERO, "asleep, but not in a futex");
            clock.enter().pass(Duration::from_millis(30));
            assert!(told.recv().is_ok());
        });
    }
}
