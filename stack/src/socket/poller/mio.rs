//! A poller as an event source of mio's (feature `mio`).

use std::io;
use std::os::fd::AsRawFd;

use ::mio::event::Source;
use ::mio::unix::SourceFd;
use ::mio::{Interest, Registry, Token};

use super::Poller;

/// Readable while a poll would find something. mio tells of edges: poll with a timeout of zero until
/// there is no event.
///
/// ```
/// use std::time::Duration;
///
/// use prequeue::socket::Poller;
///
/// const STREAMS: mio::Token = mio::Token(0);
///
/// let mut outer = mio::Poll::new()?;
/// let mut streams = Poller::new()?;
/// outer.registry().register(&mut streams, STREAMS, mio::Interest::READABLE)?;
/// let mut events = mio::Events::with_capacity(8);
/// streams.wake();
/// outer.poll(&mut events, Some(Duration::from_secs(5)))?;
/// assert!(events.iter().any(|event| event.token() == STREAMS && event.is_readable()));
/// # std::io::Result::Ok(())
/// ```
impl Source for Poller {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}
