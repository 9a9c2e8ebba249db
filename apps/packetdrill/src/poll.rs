//! Readiness: what poll(2) and epoll(7) report of a socket, as Linux computes it.
//!
//! Pure functions and the interest list of an epoll instance; the calls that wait are elsewhere.
//! Used under the clock's lock. Nothing here changes a socket.

use std::os::fd::RawFd;

use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLONESHOT,
    POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM, POLLWRNORM,
};
use prequeue::tcp::SeqNum;
use rustix::io::Errno;

/// What a socket can be asked for without waiting.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    /// As many bytes as a reader waits for, or fewer if there will not be more room.
    pub data: bool,
    /// A connection can be accepted.
    pub connection: bool,
    /// Nothing more will be read: the peer's FIN, or our own shutdown.
    pub read_shut: bool,
    /// FIN was sent, or is to be.
    pub write_shut: bool,
    /// There is no connection (any more).
    pub closed: bool,
    /// The next call fails with an error.
    pub error: bool,
    /// An urgent byte has come and was not read.
    pub urgent: bool,
    /// It listens: there is nothing to be written.
    pub listens: bool,
    /// Changes whenever a waiter would be woken: the end of the data, or the connections so far.
    pub news: SeqNum,
}

impl Readiness {
    /// Whether a waiter would have been woken since `before`: something has come, or an end. What is there
    /// no more wakes nobody.
    fn wakes_since(&self, before: &Self) -> bool {
        let ends = |it: &Self| (it.read_shut, it.write_shut, it.closed);
        self.news != before.news || ends(self) != ends(before) || self.bits() & !before.bits() != 0
    }

    /// The bits of poll(2), whether asked for or not. epoll has the same values for them.
    pub fn bits(&self) -> u32 {
        let &Self {
            data,
            connection,
            read_shut,
            write_shut,
            closed,
            error,
            urgent,
            listens,
            news: _,
        } = self;
        let over = closed || (read_shut && write_shut);
        let mut bits = 0;
        let mut set_if = |condition, more: i16| {
            if condition {
                // POLLRDNORM and its like are small positive numbers.
                bits |= more as u32;
            }
        };
        set_if(data || connection || read_shut, POLLIN | POLLRDNORM);
        set_if(read_shut, POLLRDHUP);
        set_if(over, POLLHUP);
        set_if(error, POLLERR);
        set_if(urgent, POLLPRI);
        set_if(!listens, POLLOUT | POLLWRNORM);
        bits
    }
}

/// What `events` of poll(2) is answered with.
pub fn revents(readiness: &Readiness, events: i16) -> i16 {
    let reported = readiness.bits() as i16;
    reported & (events | POLLERR | POLLHUP)
}

/// Bits that epoll reports unasked.
const ALWAYS: u32 = (EPOLLERR | EPOLLHUP) as u32;

/// What is not an event but a way of reporting.
const MODES: u32 = (EPOLLET | EPOLLONESHOT) as u32;

/// An epoll instance: who is interested in what.
#[derive(Debug, Default)]
pub struct Epoll(Vec<Interest>);

#[derive(Debug)]
struct Interest {
    fd: RawFd,
    events: u32,
    data: u64,
    /// A one-shot interest that was reported, until it is modified.
    is_spent: bool,
    /// What an edge-triggered interest has been told of.
    told: Option<Readiness>,
}

impl Epoll {
    /// epoll_ctl(2).
    ///
    /// # Errors
    /// EEXIST, ENOENT, EINVAL.
    pub fn control(
        &mut self,
        operation: i32,
        fd: RawFd,
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        let at = self.0.iter().position(|interest| interest.fd == fd);
        let interest = Interest { fd, events, data, is_spent: false, told: None };
        match (operation, at) {
            (EPOLL_CTL_ADD, None) => self.0.push(interest),
            (EPOLL_CTL_ADD, Some(_)) => return Err(Errno::EXIST),
            (EPOLL_CTL_MOD, Some(at)) => self.0[at] = interest,
            (EPOLL_CTL_DEL, Some(at)) => drop(self.0.remove(at)),
            (EPOLL_CTL_MOD | EPOLL_CTL_DEL, None) => return Err(Errno::NOENT),
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// A closed socket leaves every list.
    pub fn forget(&mut self, fd: RawFd) {
        self.0.retain(|interest| interest.fd != fd);
    }

    /// What epoll_wait(2) returns: events and data of at most `most` sockets.
    pub fn collect(
        &mut self,
        most: usize,
        readiness: impl Fn(RawFd) -> Option<Readiness>,
    ) -> Vec<(u32, u64)> {
        let ready = |interest: &mut Interest| {
            let now = readiness(interest.fd)?;
            let events = interest.report(&now)?;
            Some((events, interest.data))
        };
        self.0.iter_mut().filter_map(ready).take(most).collect()
    }
}

impl Interest {
    fn report(&mut self, now: &Readiness) -> Option<u32> {
        let events = now.bits() & (self.events | ALWAYS) & !MODES;
        let is_edge = self.events & EPOLLET as u32 != 0;
        let told_already = is_edge && self.told.is_some_and(|told| !now.wakes_since(&told));
        if events == 0 || self.is_spent || told_already {
            return None;
        }
        self.told = Some(*now);
        self.is_spent = self.events & EPOLLONESHOT as u32 != 0;
        Some(events)
    }
}

#[cfg(test)]
mod tests {
    use libc::EPOLLIN;

    use super::*;

    const IDLE: Readiness = Readiness {
        data: false,
        connection: false,
        read_shut: false,
        write_shut: false,
        closed: false,
        error: false,
        urgent: false,
        listens: false,
        news: SeqNum::new(1),
    };
    const DATA: Readiness = Readiness { data: true, news: SeqNum::new(101), ..IDLE };
    const ALL: i16 = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;

    #[test]
    fn bits_are_those_of_linux() {
        let fin = Readiness { read_shut: true, ..IDLE };
        let both_fins = Readiness { write_shut: true, ..fin };
        let reset = Readiness { closed: true, error: true, ..both_fins };
        let fresh = Readiness { closed: true, ..IDLE };
        let listener = Readiness { listens: true, ..IDLE };
        let urgent = Readiness { urgent: true, ..IDLE };
        for (readiness, revents_expected) in [
            (IDLE, POLLOUT),
            (DATA, POLLIN | POLLOUT),
            (fin, POLLIN | POLLRDHUP | POLLOUT),
            (both_fins, POLLIN | POLLRDHUP | POLLHUP | POLLOUT),
            (reset, POLLIN | POLLRDHUP | POLLHUP | POLLERR | POLLOUT),
            (fresh, POLLHUP | POLLOUT),
            (listener, 0),
            (Readiness { connection: true, ..listener }, POLLIN),
            (urgent, POLLPRI | POLLOUT),
        ] {
            assert_eq!(revents(&readiness, ALL), revents_expected, "{readiness:?}");
        }
        assert_eq!(revents(&reset, 0), POLLHUP | POLLERR, "unasked");
    }

    fn epoll(modes: i32) -> Epoll {
        let mut epoll = Epoll::default();
        epoll.control(EPOLL_CTL_ADD, 4, (EPOLLIN | modes) as u32, 44).unwrap();
        epoll
    }

    fn collect(epoll: &mut Epoll, readiness: Readiness) -> usize {
        let events = epoll.collect(8, |fd| (fd == 4).then_some(readiness));
        assert!(events.iter().all(|&event| event == (EPOLLIN as u32, 44)));
        events.len()
    }

    #[test]
    fn a_level_is_reported_as_long_as_it_lasts() {
        let mut epoll = epoll(0);
        let reports = [IDLE, DATA, DATA, IDLE].map(|now| collect(&mut epoll, now));
        assert_eq!(reports, [0, 1, 1, 0]);
    }

    #[test]
    fn an_edge_is_reported_once() {
        let mut epoll = epoll(EPOLLET);
        let more = Readiness { news: SeqNum::new(201), ..DATA };
        let reports = [DATA, DATA, more, more].map(|now| collect(&mut epoll, now));
        assert_eq!(reports, [1, 0, 1, 0]);
    }

    #[test]
    fn what_is_there_no_more_is_no_edge() {
        let mut epoll = epoll(EPOLLET);
        let urgent = Readiness { urgent: true, ..DATA };
        let more = Readiness { news: SeqNum::new(201), ..urgent };
        let reports = [urgent, DATA, more].map(|now| collect(&mut epoll, now));
        assert_eq!(reports, [1, 0, 1]);
    }

    #[test]
    fn a_one_shot_interest_is_renewed_by_modifying() {
        let mut epoll = epoll(EPOLLONESHOT);
        assert_eq!((collect(&mut epoll, DATA), collect(&mut epoll, DATA)), (1, 0));
        epoll.control(EPOLL_CTL_MOD, 4, EPOLLIN as u32, 44).unwrap();
        assert_eq!(collect(&mut epoll, DATA), 1);
    }

    #[test]
    fn the_list_is_kept_as_epoll_ctl_says() {
        let mut epoll = epoll(0);
        assert_eq!(epoll.control(EPOLL_CTL_ADD, 4, 0, 0), Err(Errno::EXIST));
        assert_eq!(epoll.control(EPOLL_CTL_MOD, 5, 0, 0), Err(Errno::NOENT));
        assert_eq!(epoll.control(EPOLL_CTL_DEL, 4, 0, 0), Ok(()));
        assert_eq!(epoll.control(EPOLL_CTL_DEL, 4, 0, 0), Err(Errno::NOENT));
        assert_eq!(collect(&mut epoll, DATA), 0);
    }
}
