//! The socket options of a stream, under the names of std where it has them.
//!
//! Called by application threads, several at once if they like. Options of reading are atomics that
//! the next call looks at; options of the connection are changed under the owner word, for a moment,
//! and the lcore is rung to act on them. Nothing here runs TCP.

use std::io;
use std::time::Duration;

use crate::buf::PacketBuf;

use super::conn::Connection;
use super::stream::TcpStream;

impl<B: PacketBuf, C: Connection<B>> TcpStream<B, C> {
    /// How long a read may wait (SO_RCVTIMEO); for ever if `None`. It limits the whole call, however
    /// often that sleeps.
    ///
    /// # Errors
    /// `InvalidInput` for a duration of zero, as in std.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a read timeout of zero: use set_nonblocking, or None to wait for ever",
            ));
        }
        self.options().set_timeout(timeout);
        Ok(())
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// None at present.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.options().timeout())
    }

    /// Whether reads return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None at present.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.options().set_nonblocking(nonblocking);
        Ok(())
    }

    /// Whether reads return `WouldBlock` instead of waiting.
    pub fn is_nonblocking(&self) -> bool {
        self.options().is_nonblocking()
    }

    /// How many bytes a read waits for, unless it asks for fewer (SO_RCVLOWAT).
    pub fn receive_low_water(&self) -> u32 {
        self.options().low_water() as u32
    }

    /// At how many bytes from the first unread one a peek starts (SO_PEEK_OFF); each peek moves it on
    /// behind what it has seen, each read back by what it has taken. `None`, as at the beginning, has
    /// every peek start at the first byte.
    pub fn set_peek_offset(&self, bytes: Option<u32>) {
        self.options().set_peek_offset(bytes);
    }

    /// Where the next peek starts, if [`Self::set_peek_offset`] is on.
    pub fn peek_offset(&self) -> Option<u32> {
        self.options().peek_offset()
    }

    /// Whether the urgent byte is read with the others, in its place (SO_OOBINLINE). Reads end before
    /// it all the same.
    pub fn set_out_of_band_inline(&self, inline: bool) {
        self.options().set_urgent_inline(inline);
    }

    /// Whether the urgent byte is read with the others.
    pub fn out_of_band_inline(&self) -> bool {
        self.options().is_urgent_inline()
    }

    /// What closing does when the last handle is dropped (SO_LINGER): with a duration the drop waits
    /// so long for the peer to acknowledge the end of the stream; with zero the connection is reset;
    /// with `None`, as at the beginning, it is closed while the program goes on. Data that was not read
    /// has it reset in any case.
    ///
    /// # Errors
    /// None at present.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.handle().set_linger(linger);
        Ok(())
    }

    /// What closing does.
    ///
    /// # Errors
    /// None at present.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(self.handle().linger())
    }

    /// Whether the next byte to be read is the urgent one (SIOCATMARK, sockatmark(3)).
    pub fn is_at_mark(&self) -> bool {
        self.handle().is_at_mark()
    }
}
