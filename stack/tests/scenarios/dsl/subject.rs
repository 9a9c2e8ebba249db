//! What a scenario is played against.

use std::fmt::Debug;
use std::io::ErrorKind;

use prequeue::tcp::Counter;
use prequeue::time::Instant;

/// A connection that was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Conn(pub usize);

/// Which direction to shut down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    Read,
    Write,
    Both,
}

/// What one non-blocking read has given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The stream has ended.
    Eof,
    /// Nothing yet.
    WouldBlock,
    /// The connection failed; told once.
    Failed(ErrorKind),
}

/// A stack under test: frames in and out, time, and the calls of an application.
///
/// A call has done all that follows from it when it returns: what it made the stack send is in
/// [`Self::output`]. Time never goes back.
pub trait Subject: Debug {
    /// These frames have arrived together.
    fn input(&mut self, burst: &[Vec<u8>], now: Instant);

    /// It is `now`: whatever is due happens.
    fn advance(&mut self, now: Instant);

    /// When [`Self::advance`] wants to be called next.
    fn next_deadline(&self) -> Option<Instant>;

    /// The next frame sent.
    fn output(&mut self) -> Option<Vec<u8>>;

    /// Begins to listen.
    fn listen(&mut self, port: u16, backlog: i32, now: Instant);

    /// Takes a connection that waits to be accepted, and says which port it comes from.
    fn accept(&mut self, port: u16) -> Option<(Conn, u16)>;

    /// Reads without waiting.
    fn recv(&mut self, conn: Conn, into: &mut [u8], now: Instant) -> Received;

    /// shutdown(2).
    fn shutdown(&mut self, conn: Conn, how: How, now: Instant);

    /// close(2), with SO_LINGER on and zero if `linger_zero`.
    fn close(&mut self, conn: Conn, linger_zero: bool, now: Instant);

    /// A counter's value.
    fn count(&self, counter: Counter) -> u64;
}
