//! A poller inside somebody else's event loop: its descriptor.
//!
//! Application threads give it to epoll, mio or tokio. Once it has been asked for, every poll ends
//! with the alarm set, and rings it itself if something is left to be reported.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::Poller;

impl Poller {
    /// From now on somebody may sleep on the descriptor at any time.
    fn expose(&self) {
        let mut registry = self.core.lock();
        if !registry.exposed {
            registry.exposed = true;
            self.core.settle(&registry);
        }
    }
}

/// Readable while a poll would find something. It is the poller's own: do not read, write or close it.
///
/// ```
/// use std::os::fd::AsFd;
///
/// use prequeue::socket::{Events, Poller};
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// let poller = Poller::new()?;
/// let mut fds = [PollFd::new(&poller, PollFlags::IN)];
/// poller.wake();
/// assert_eq!(poll(&mut fds, None)?, 1);
/// // Somebody has woken it, and no socket is ready.
/// assert_eq!(poller.poll(&mut Events::with_capacity(8), Some(std::time::Duration::ZERO))?, 0);
/// assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?, 0);
/// # std::io::Result::Ok(())
/// ```
impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.expose();
        self.core.alarm.fd.as_fd()
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
