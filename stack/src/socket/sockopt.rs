//! The socket options of streams, under the names of std where it has them.
//!
//! Written once for [`TcpStream`] and [`LocalStream`]. Of the former they are called by any thread,
//! several at once if they like: options of reading are atomics that the next call looks at; options of
//! the connection are changed under the owner word, for a moment, and the lcore is rung to act on them.
//! Of the latter they are called by the one thread there is. Nothing here runs TCP.

use std::io;
use std::num::NonZeroU8;
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::tcp::PathError;
use crate::tcp::tcb::{KeepAlive, Linger2};

use super::conn::Connection;
#[cfg(not(loom))]
use super::local::LocalStream;
use super::recv::RecvError;
use super::stream::TcpStream;
use super::wait::Waiting;

/// Options of reading.
macro_rules! options_of_reading {
    ([$($generics:tt)*] $stream:ty) => {
        impl<$($generics)*> $stream {
            /// How long a read may wait (SO_RCVTIMEO); for ever if `None`. It limits the whole call, however
            /// often that sleeps.
            ///
            /// # Errors
            /// `InvalidInput` for a duration of zero, as in std.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                if timeout == Some(Duration::ZERO) {
                    return Err(invalid(
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

            /// How many bytes a read waits for, unless it asks for fewer (SO_RCVLOWAT); at least 1. As in Linux
            /// the receive buffer grows to hold them, up to half of what the setting `tcp_rmem` allows at most;
            /// one that was set by [`set_receive_buffer`](Self::set_receive_buffer) stays, and half of it
            /// is the most. A read that has taken some of them already waits for the rest alone.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn set_receive_low_water(&self, bytes: u32) -> io::Result<()> {
                let granted = self.change(|tcb| tcb.make_room(bytes.max(1)))?;
                self.options().set_low_water(granted);
                self.low_water_has_changed();
                Ok(())
            }

            /// How many bytes a read waits for, unless it asks for fewer.
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
        }
    };
}

/// Options of the connection.
macro_rules! options_of_the_connection {
    ([$($generics:tt)*] $stream:ty) => {
        /// Options of the connection. Each waits while another thread holds a guard.
        impl<$($generics)*> $stream {
            /// How much memory unread data may take (SO_RCVBUF). As in Linux twice as many bytes are granted as
            /// are asked for, because memory is counted with what surrounds the payload; at most twice the
            /// setting `rmem_max`, at least 2304. How far the window can open was settled by the handshake: see
            /// the setting `tcp_rmem` for buffers that are large from the beginning.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn set_receive_buffer(&self, bytes: u32) -> io::Result<()> {
                self.change(|tcb| tcb.set_rcvbuf(bytes))
            }

            /// How much memory unread data may take, in bytes: the doubled number.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn receive_buffer(&self) -> io::Result<u32> {
                self.look(|tcb| tcb.rcvbuf())
            }

            /// Bytes that the window is opened no further than (TCP_WINDOW_CLAMP); at least 1152. What was
            /// offered stays offered. As in Linux 6.18 the limit is gone as soon as segments of another
            /// size show how much of a buffer they fill: who wants small windows for good asks for a small
            /// buffer.
            ///
            /// # Errors
            /// `InvalidInput` for 0, `Deadlock` if the calling thread holds a guard.
            pub fn set_window_clamp(&self, bytes: u32) -> io::Result<()> {
                if bytes == 0 {
                    return Err(invalid("a window that never opens: clamp it to 1152 bytes at least"));
                }
                self.change(|tcb| tcb.set_window_clamp(bytes))
            }

            /// Takes what an ICMP error has last said of the path to the peer, if nothing was acknowledged
            /// since. The connection goes on; in Linux SO_ERROR tells it when there is no other error.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn take_path_error(&self) -> io::Result<Option<PathError>> {
                self.look(|tcb| tcb.take_path_error())
            }

            /// Bytes that the window is opened no further than: what was set, or what the buffer is
            /// expected to hold.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn window_clamp(&self) -> io::Result<u32> {
                self.look(|tcb| tcb.window_clamp())
            }

            /// Has what comes acknowledged at once, or leaves ACKs to their delay (TCP_QUICKACK). Not for good:
            /// as in Linux it lasts until what comes, or is read, suggests otherwise.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard, which can do the same.
            pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
                self.change(|tcb| tcb.set_quick_ack(quickack))
            }

            /// Whether ACKs are sent at once at present.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn quickack(&self) -> io::Result<bool> {
                self.look(|tcb| tcb.is_quick_ack())
            }

            /// Has a silent peer be probed (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT), or not, as
            /// at the beginning. One that does not answer ends the connection: reads fail with `TimedOut`.
            ///
            /// # Errors
            /// `InvalidInput` for times outside of 1 to 32767 seconds or probes outside of 1 to 127, `Deadlock`
            /// if the calling thread holds a guard.
            pub fn set_keepalive(&self, keepalive: Option<KeepAlive>) -> io::Result<()> {
                if keepalive.is_some_and(|keepalive| !keepalive.is_valid()) {
                    return Err(invalid("keepalive takes 1 to 32767 seconds and 1 to 127 probes"));
                }
                self.change(|tcb| tcb.set_keepalive(keepalive))
            }

            /// How a silent peer is probed.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
                self.look(|tcb| tcb.keepalive())
            }

            /// How long our end of stream, or a keepalive probe, may stay without an answer before the
            /// connection is given up (TCP_USER_TIMEOUT); in whole milliseconds. With `None`, as at the
            /// beginning, it is given up after a number of repetitions.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                let timeout = timeout.filter(|timeout| !timeout.is_zero());
                self.change(|tcb| tcb.set_user_timeout(timeout))
            }

            /// How long the peer may leave us without an answer.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn user_timeout(&self) -> io::Result<Option<Duration>> {
                self.look(|tcb| tcb.user_timeout())
            }

            /// The Diffserv field of the segments that acknowledge (IP_TOS, IPV6_TCLASS): its upper six bits, the
            /// others are the network's. As long as it is not set it is 0.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                self.look(|tcb| tcb.set_tos(tos))
            }

            /// The Diffserv field of what is sent.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn tos(&self) -> io::Result<u8> {
                self.look(|tcb| tcb.tos())
            }

            /// The time to live, or hop limit, of what is sent (IP_TTL, IPV6_UNICAST_HOPS); `None`, as at the
            /// beginning, for the setting `ip_default_ttl`.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn set_ttl(&self, ttl: Option<NonZeroU8>) -> io::Result<()> {
                self.look(|tcb| tcb.set_ttl(ttl))
            }

            /// The time to live, or hop limit, that was set.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn ttl(&self) -> io::Result<Option<NonZeroU8>> {
                self.look(|tcb| tcb.ttl())
            }

            /// How long the connection waits for the peer's end of stream once the last handle was dropped
            /// (TCP_LINGER2).
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn set_linger2(&self, linger2: Linger2) -> io::Result<()> {
                self.change(|tcb| tcb.set_linger2(linger2))
            }

            /// How long the connection waits for the peer's end of stream.
            ///
            /// # Errors
            /// `Deadlock` if the calling thread holds a guard.
            pub fn linger2(&self) -> io::Result<Linger2> {
                self.look(|tcb| tcb.linger2())
            }
        }
    };
}

options_of_reading!([B: PacketBuf, C: Connection<B>] TcpStream<B, C>);
options_of_the_connection!([B: PacketBuf] TcpStream<B>);

#[cfg(not(loom))]
options_of_reading!([B: PacketBuf] LocalStream<B>);
#[cfg(not(loom))]
options_of_the_connection!([B: PacketBuf] LocalStream<B>);

impl<B: PacketBuf, C: Connection<B>> TcpStream<B, C> {
    /// How reads wait, unless their flags say otherwise ([`RecvFlags::SPIN`](super::RecvFlags::SPIN),
    /// [`RecvFlags::PARK`](super::RecvFlags::PARK)). At the beginning it is what the listener says; a
    /// call under way goes on as it began. A thread that spins does not notice signals: see [`Waiting`].
    ///
    /// ```
    /// use prequeue::buf::HeapBuf;
    /// use prequeue::socket::{TcpStream, Waiting};
    ///
    /// /// For a thread whose CPU is its own.
    /// fn spin(stream: &TcpStream<HeapBuf>) {
    ///     stream.set_waiting(Waiting::Spin);
    ///     assert_eq!(stream.waiting(), Waiting::Spin);
    /// }
    /// ```
    pub fn set_waiting(&self, waiting: Waiting) {
        self.options().set_waiting(waiting);
    }

    /// How reads wait.
    pub fn waiting(&self) -> Waiting {
        self.options().waiting()
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

    fn low_water_has_changed(&self) {
        // What is there may be enough for a poller now.
        self.handle().socket.park().fence();
        self.handle().socket.notify_pollers();
    }

    /// Changes what the connection has been asked for, and has the lcore act on it.
    fn change<R>(&self, what: impl FnOnce(&mut C) -> R) -> io::Result<R> {
        let result = self.look(what)?;
        let socket = &self.handle().socket;
        socket.home.ring(socket);
        Ok(result)
    }

    fn look<R>(&self, what: impl FnOnce(&mut C) -> R) -> io::Result<R> {
        let socket = &self.handle().socket;
        if socket.is_guarded_by_this_thread() {
            return Err(RecvError::Deadlock.into());
        }
        Ok(what(&mut socket.own().tcb))
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
