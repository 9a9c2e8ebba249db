//! What a poller holds: its registrations, those that are ready, and who sleeps.
//!
//! Under one lock, taken by application threads alone; the lcore leaves watches on a list beside
//! it. A watch that has arrived is looked at when somebody polls, and stays among the ready ones
//! for as long as its trigger and the socket say so: what is not ready costs nothing.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::super::owner::Ref;
use super::super::sync::{EventFd, Mutex, MutexGuard, Ordering, OwnLines, mutant};
use super::Trigger;
use super::events::{Event, Events, Token};
use super::ready::{Interest, Readiness};
use super::watch::{Alarm, Arrived, Watch, Watchers};

/// Something that can be registered: a look at it takes nothing and waits for nobody.
pub trait Pollable: Send + Sync {
    /// Who is told of its news.
    fn watchers(&self) -> &Watchers;
    /// What is so, by what is published.
    fn readiness(&self) -> Readiness;
}

/// A poller as its threads and the watches share it.
#[derive(Debug)]
pub(in crate::socket) struct Core {
    pub(super) arrived: Arrived,
    pub(super) alarm: Alarm,
    registry: OwnLines<Mutex<Registry>>,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Entries to be looked at, by place and serial number: oldest news first.
    ready: VecDeque<(u32, u64)>,
    /// Tells an entry from an earlier one in the same place.
    serial: u64,
    /// Threads asleep, or about to be.
    pub(super) sleepers: u32,
    /// The descriptor was given out: somebody may wait for it at any time.
    pub(super) exposed: bool,
}

/// A registration.
struct Entry {
    watch: Ref<Watch>,
    source: Box<dyn Pollable>,
    token: Token,
    /// Bits wanted; none after a oneshot.
    wanted: u32,
    trigger: Trigger,
    serial: u64,
    /// It is among the ready ones.
    queued: bool,
}

/// Why a registration cannot be made or found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    Exists,
    Missing,
}

impl Core {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            arrived: Arrived::default(),
            alarm: Alarm::new(EventFd::new()?),
            registry: OwnLines(Mutex::new(Registry::default())),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        // A panic under the lock would be ours, between two operations on vectors: go on.
        self.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn add(
        self: &Arc<Self>,
        source: Box<dyn Pollable>,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> Result<(), Refused> {
        let watch = source.watchers().watch_of(self).clone();
        let mut registry = self.lock();
        if watch.place().is_some() {
            return Err(Refused::Exists);
        }
        registry.serial += 1;
        let serial = registry.serial;
        let wanted = interest.bits();
        let place = registry.place(Entry {
            watch: watch.clone(),
            source,
            token,
            wanted,
            trigger,
            serial,
            queued: false,
        });
        watch.set_place(Some(place));
        watch.set_interest(wanted);
        if let Some(entry) = &registry.entries[place as usize] {
            entry.source.watchers().joined();
            entry.look();
        }
        Ok(())
    }

    pub(super) fn change(
        self: &Arc<Self>,
        watchers: &Watchers,
        token: Token,
        interest: Interest,
        trigger: Trigger,
    ) -> Result<(), Refused> {
        let watch = watchers.watch_of(self);
        let mut registry = self.lock();
        let entry = watch.place().and_then(|place| registry.entries[place as usize].as_mut());
        let entry = entry.ok_or(Refused::Missing)?;
        (entry.token, entry.wanted, entry.trigger) = (token, interest.bits(), trigger);
        watch.set_interest(entry.wanted);
        entry.look();
        Ok(())
    }

    /// Ends a registration, if there is one.
    pub(super) fn remove(&self, watch: &Watch) -> bool {
        let entry = {
            let mut registry = self.lock();
            watch.place().and_then(|place| registry.take(place))
        };
        // The last share of a socket may go with it: not under the lock.
        entry.is_some()
    }

    /// Ends all registrations.
    pub(super) fn clear(&self) {
        let mut registry = self.lock();
        let all: Vec<Entry> =
            (0..registry.entries.len() as u32).filter_map(|place| registry.take(place)).collect();
        registry.ready.clear();
        registry.exposed = false;
        self.alarm.off();
        self.alarm.woken.store(false, Ordering::Relaxed);
        drop(registry);
        drop(all);
        drop(self.arrived.take());
    }

    /// Whether a look at the list, or at the request to return, would find something.
    pub(super) fn has_news(&self) -> bool {
        !self.arrived.is_empty() || self.alarm.woken.load(Ordering::Relaxed)
    }

    /// Moves events of what is ready to `events`, as many as there is room for.
    pub(super) fn harvest(&self, registry: &mut Registry, events: &mut Events) {
        registry.collect(&self.arrived);
        for _ in 0..registry.ready.len() {
            if events.is_full() {
                return;
            }
            let Some((place, serial)) = registry.ready.pop_front() else { return };
            let entry = registry.entries.get_mut(place as usize).and_then(Option::as_mut);
            let Some(entry) = entry.filter(|entry| entry.serial == serial) else { continue };
            let readiness = entry.source.readiness().wanted(entry.wanted);
            entry.queued = false;
            if readiness.is_empty() {
                continue;
            }
            events.push(Event { token: entry.token, readiness });
            match entry.trigger {
                Trigger::Edge => {}
                Trigger::Oneshot => {
                    entry.wanted = 0;
                    entry.watch.set_interest(0);
                }
                Trigger::Level => {
                    entry.queued = true;
                    registry.ready.push_back((place, serial));
                }
            }
        }
    }

    /// The end of a poll: the alarm is set again for others that sleep, and for a foreign loop.
    pub(super) fn settle(&self, registry: &Registry) {
        if (registry.sleepers > 0 && !mutant!(PollForgetsOthers)) || registry.exposed {
            self.alarm.set();
            if self.has_news() || registry.has_ready() {
                self.alarm.ring_if_set();
            }
        } else {
            self.alarm.off();
        }
    }
}

impl Registry {
    /// Entries are left that may be ready.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn place(&mut self, entry: Entry) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            // So that news never makes the queue grow.
            self.ready.reserve(self.entries.len() - self.ready.len().min(self.entries.len()));
            self.entries.len() as u32 - 1
        });
        self.entries[place as usize] = Some(entry);
        place
    }

    fn take(&mut self, place: u32) -> Option<Entry> {
        let entry = self.entries[place as usize].take()?;
        self.free.push(place);
        entry.watch.set_place(None);
        entry.watch.set_interest(0);
        entry.source.watchers().left();
        Some(entry)
    }

    /// Puts what has arrived behind what is ready.
    fn collect(&mut self, arrived: &Arrived) {
        let at = self.ready.len();
        for watch in arrived.take() {
            let Some(place) = watch.place() else { continue };
            let Some(entry) = &mut self.entries[place as usize] else { continue };
            if !std::mem::replace(&mut entry.queued, true) {
                self.ready.push_back((place, entry.serial));
            }
        }
        // The list gives the newest first.
        if self.ready.len() > at + 1 {
            self.ready.make_contiguous()[at..].reverse();
        }
    }
}

impl Entry {
    /// Looks at the source after a change of the registration: what is ready counts as news.
    fn look(&self) {
        self.source.watchers().fence();
        if !mutant!(RegisterWithoutLook) {
            Watch::tell(&self.watch, self.source.readiness());
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { watch, source: _, token, wanted: _, trigger, serial: _, queued } = self;
        f.debug_struct("Entry")
            .field("watch", watch)
            .field("token", token)
            .field("trigger", trigger)
            .field("queued", queued)
            .finish_non_exhaustive()
    }
}
