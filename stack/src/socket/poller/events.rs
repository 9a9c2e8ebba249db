//! What a poll returns: tokens with the reasons for their being reported.

use super::ready::Readiness;

/// A number that the application chooses for a registration, and finds in its events.
///
/// ```
/// use prequeue::socket::Token;
///
/// const LISTENER: Token = Token(usize::MAX);
/// assert_ne!(LISTENER, Token(0));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token(pub usize);

/// One socket that is ready.
///
/// See [`Poller`](super::Poller) for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Event {
    pub(super) token: Token,
    pub(super) readiness: Readiness,
}

impl Event {
    /// The token of the registration.
    pub const fn token(&self) -> Token {
        self.token
    }

    /// What is so, as of the poll, of what the registration wants to hear of.
    pub const fn readiness(&self) -> Readiness {
        self.readiness
    }
}

/// Room for the events of a poll, and those of the last one.
///
/// ```
/// use prequeue::socket::Events;
///
/// let events = Events::with_capacity(1024);
/// assert!(events.is_empty());
/// ```
#[derive(Debug)]
pub struct Events {
    list: Vec<Event>,
    capacity: usize,
}

impl Events {
    /// Room for this many events at a time, at least one. What finds no room is reported by the
    /// next poll.
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { list: Vec::with_capacity(capacity), capacity }
    }

    /// The events of the last poll, in the order in which the sockets became ready.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many events a poll may return.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= self.capacity
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    pub(super) fn push(&mut self, event: Event) {
        self.list.push(event);
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
