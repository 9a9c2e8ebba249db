//! What can be said about a socket without owning it: the bits of `poll(2)`, and who wants which.
//!
//! Computed from published words alone, by the lcore when something has changed and by threads
//! that poll. The numbers are Linux's, so that they can be handed to code that speaks epoll.

use std::fmt;

use super::super::park::Status;

/// Why a socket is reported: the bits of Linux's `EPOLL…`, with the same numbers.
///
/// | bit | stream | listener |
/// |---|---|---|
/// | `IN`, `RDNORM` | a read would return at once: the low-water mark is reached, or the reading side is over | a connection waits |
/// | `PRI` | an urgent byte has come and was not read | |
/// | `RDHUP` | the reading side is over: FIN, reset, or shut by us | the stack has stopped |
/// | `HUP` | both sides are over | the stack has stopped |
/// | `ERR` | an error waits for a read or for `take_error`; the stack has stopped | the stack has stopped |
///
/// `OUT` is not among them, since nothing can be written.
///
/// ```
/// use prequeue::socket::Readiness;
///
/// let end = Readiness::IN.with(Readiness::RDNORM).with(Readiness::RDHUP);
/// assert!(end.is_readable() && end.is_read_closed() && !end.is_error());
/// assert_eq!(end.bits(), 0x2041);
/// ```
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Readiness(u32);

impl Readiness {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A read, or accept, would not wait (`EPOLLIN`).
    pub const IN: Self = Self(0x001);
    /// There is urgent data (`EPOLLPRI`).
    pub const PRI: Self = Self(0x002);
    /// There is an error (`EPOLLERR`).
    pub const ERR: Self = Self(0x008);
    /// Both sides are over (`EPOLLHUP`).
    pub const HUP: Self = Self(0x010);
    /// As `IN` (`EPOLLRDNORM`).
    pub const RDNORM: Self = Self(0x040);
    /// The reading side is over (`EPOLLRDHUP`).
    pub const RDHUP: Self = Self(0x2000);

    /// The number that Linux has for it.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A read, or accept, would not wait.
    pub const fn is_readable(self) -> bool {
        self.has(Self::IN)
    }

    /// There is urgent data.
    pub const fn is_priority(self) -> bool {
        self.has(Self::PRI)
    }

    /// The reading side is over.
    pub const fn is_read_closed(self) -> bool {
        self.has(Self::RDHUP)
    }

    /// Both sides are over.
    pub const fn is_closed(self) -> bool {
        self.has(Self::HUP)
    }

    /// There is an error.
    pub const fn is_error(self) -> bool {
        self.has(Self::ERR)
    }

    /// The bits that are wanted.
    pub(super) const fn wanted(self, interest: u32) -> Self {
        Self(self.0 & interest)
    }

    const fn only_if(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Readiness, &str); 6] = [
            (Readiness::IN, "IN"),
            (Readiness::PRI, "PRI"),
            (Readiness::ERR, "ERR"),
            (Readiness::HUP, "HUP"),
            (Readiness::RDNORM, "RDNORM"),
            (Readiness::RDHUP, "RDHUP"),
        ];
        let mut names = NAMES.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name);
        f.write_str(names.next().unwrap_or("nothing"))?;
        names.try_for_each(|name| write!(f, "|{name}"))
    }
}

/// What a registration wants to hear of. Errors and the end of both sides are always told.
///
/// ```
/// use prequeue::socket::Interest;
///
/// let all_of_reading = Interest::READ.with(Interest::RDHUP);
/// assert!(all_of_reading.has(Interest::ERROR), "as with epoll, errors need no asking");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Interest(u32);

impl Interest {
    /// Errors and the end of both sides: what every registration hears of.
    pub const ERROR: Self = Self(Readiness::ERR.0 | Readiness::HUP.0);
    /// Data to be read, or the end of it.
    pub const READ: Self = Self(Self::ERROR.0 | Readiness::IN.0 | Readiness::RDNORM.0);
    /// Connections to be accepted: what [`READ`](Self::READ) means for a listener.
    pub const ACCEPT: Self = Self::READ;
    /// The end of the reading side by itself.
    pub const RDHUP: Self = Self(Self::ERROR.0 | Readiness::RDHUP.0);
    /// Urgent data.
    pub const PRIORITY: Self = Self(Self::ERROR.0 | Readiness::PRI.0);

    /// The interests of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is wanted.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }
}

/// What is published about a stream, as of one look.
#[derive(Clone, Copy, Debug)]
pub(in crate::socket) struct Facts {
    pub(in crate::socket) status: Status,
    /// Bytes that can be read, FIN not counted.
    pub(in crate::socket) readable: u32,
    /// SO_RCVLOWAT.
    pub(in crate::socket) low_water: u32,
    /// An urgent byte has come and was not read.
    pub(in crate::socket) urgent: bool,
    /// The next byte is that one, and does not count as data.
    pub(in crate::socket) at_mark: bool,
    /// The application has shut the writing side.
    pub(in crate::socket) write_shut: bool,
    /// An error waits to be told.
    pub(in crate::socket) error: bool,
}

impl Facts {
    /// The bits, by the rules of Linux's `tcp_poll` since 5.10.
    pub(in crate::socket) fn readiness(self) -> Readiness {
        let Self { status, readable, low_water, urgent, at_mark, write_shut, error } = self;
        let dead = status.has(Status::DEAD);
        // A connection that is gone has both sides shut.
        let gone = dead || status.has(Status::CLOSED) || status.has(Status::ERROR);
        let read_shut = gone || status.has(Status::EOF) || status.has(Status::SHUT);
        let target = low_water.saturating_add(at_mark.into());
        let pressed = status.has(Status::PRESSED) && readable > 0;
        let readable = read_shut || readable >= target || pressed;
        (Readiness::IN.with(Readiness::RDNORM).only_if(readable))
            .with(Readiness::PRI.only_if(urgent))
            .with(Readiness::ERR.only_if(error || dead))
            .with(Readiness::RDHUP.only_if(read_shut))
            .with(Readiness::HUP.only_if(gone || read_shut && write_shut))
    }
}

/// What is to be said of a listener.
pub(in crate::socket) fn of_listener(waiting: bool, closed: bool) -> Readiness {
    let end = Readiness::RDHUP.with(Readiness::HUP).with(Readiness::ERR);
    (Readiness::IN.with(Readiness::RDNORM).only_if(waiting || closed)).with(end.only_if(closed))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const QUIET: Facts = Facts {
        status: Status::QUEUED,
        readable: 0,
        low_water: 1,
        urgent: false,
        at_mark: false,
        write_shut: false,
        error: false,
    };

    fn with(status: Status) -> Facts {
        Facts { status, ..QUIET }
    }

    #[test]
    fn the_bits_are_those_of_linux() {
        const RST: Status = Status::ERROR.with(Status::CLOSED);
        let table = [
            (QUIET, "nothing"),
            (Facts { readable: 1, ..QUIET }, "IN|RDNORM"),
            (Facts { readable: 9, low_water: 10, ..QUIET }, "nothing"),
            (Facts { readable: 10, low_water: 10, ..QUIET }, "IN|RDNORM"),
            // FIN overrides the low-water mark, and so do memory and window when short.
            (Facts { low_water: 10, ..with(Status::EOF) }, "IN|RDNORM|RDHUP"),
            (Facts { readable: 1, low_water: 10, ..with(Status::PRESSED) }, "IN|RDNORM"),
            (with(Status::PRESSED), "nothing"),
            // The urgent byte is not data where it stands out of line.
            (Facts { readable: 1, urgent: true, at_mark: true, ..QUIET }, "PRI"),
            (Facts { readable: 2, urgent: true, at_mark: true, ..QUIET }, "IN|PRI|RDNORM"),
            // The ends.
            (with(Status::EOF), "IN|RDNORM|RDHUP"),
            (with(Status::SHUT), "IN|RDNORM|RDHUP"),
            (Facts { write_shut: true, ..QUIET }, "nothing"),
            (Facts { write_shut: true, ..with(Status::EOF) }, "IN|HUP|RDNORM|RDHUP"),
            (Facts { write_shut: true, ..with(Status::SHUT) }, "IN|HUP|RDNORM|RDHUP"),
            (with(Status::CLOSED), "IN|HUP|RDNORM|RDHUP"),
            (Facts { error: true, ..with(RST) }, "IN|ERR|HUP|RDNORM|RDHUP"),
            // After the error was told.
            (with(RST), "IN|HUP|RDNORM|RDHUP"),
            (with(Status::DEAD), "IN|ERR|HUP|RDNORM|RDHUP"),
        ];
        for (facts, expected) in table {
            assert_eq!(format!("{:?}", facts.readiness()), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_listener_is_readable_when_a_connection_waits() {
        assert_eq!(of_listener(false, false), Readiness::NONE);
        assert_eq!(format!("{:?}", of_listener(true, false)), "IN|RDNORM");
        assert_eq!(format!("{:?}", of_listener(false, true)), "IN|ERR|HUP|RDNORM|RDHUP");
    }
}
