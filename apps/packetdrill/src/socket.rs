//! A socket as a script has it: from socket(2) through listen or accept to close.
//!
//! A thin shell over the library's listener and stream: it keeps what POSIX has and the library has
//! not, such as the options of a socket that is none yet. Used under the clock's lock.

use std::net::SocketAddr;
use std::time::Duration;

use prequeue::buf::HeapBuf;
use prequeue::socket::{Handle, TcpListener, TcpStream};
use prequeue::tcp::SeqNum;
use prequeue::tcp::tcb::{ConnError, State, Tcb};
use rustix::io::Errno;

use crate::options::{Change, Options, Timeout};
use crate::poll::Readiness;

/// Which form of address a socket speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Domain {
    /// AF_INET.
    V4,
    /// AF_INET6: addresses of IPv6, and those of IPv4 mapped into them.
    V6,
}

/// A socket.
#[derive(Debug)]
pub struct Socket {
    /// Its form of address.
    pub domain: Domain,
    /// O_NONBLOCK.
    pub nonblocking: bool,
    /// The receive buffer that it was made with.
    pub initial_rcvbuf: u32,
    /// What setsockopt has set.
    pub options: Options,
    /// What it has become.
    pub role: Role,
}

/// What a socket has become.
#[derive(Debug)]
pub enum Role {
    /// Nothing yet.
    Fresh {
        /// What it is bound to.
        local: Option<SocketAddr>,
        /// shutdown of the reading side was asked for.
        read_shut: bool,
    },
    /// It listens.
    Listener(Listening),
    /// It was accepted.
    Connected(Box<Connected>),
}

/// A listening socket.
#[derive(Debug)]
pub struct Listening {
    /// The library's.
    pub listener: TcpListener<HeapBuf>,
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections accepted so far.
    pub accepted: u32,
}

/// An accepted socket.
#[derive(Debug)]
pub struct Connected {
    /// The library's.
    pub stream: TcpStream<HeapBuf>,
    /// TCP_MAXSEG of the listener: a later one changes nothing.
    pub maxseg: Option<u16>,
    /// shutdown of the reading side was asked for.
    pub read_shut: bool,
    /// shutdown of the writing side was asked for.
    pub write_shut: bool,
    /// The error was told already.
    pub error_told: bool,
}

impl Socket {
    /// As socket(2) makes it.
    pub fn new(domain: Domain, nonblocking: bool, initial_rcvbuf: u32) -> Self {
        let role = Role::Fresh { local: None, read_shut: false };
        Self { domain, nonblocking, initial_rcvbuf, options: Options::default(), role }
    }

    /// Whether it listens on a port.
    pub fn listens_on(&self, port: u16) -> bool {
        matches!(&self.role, Role::Listener(listening) if listening.local.port() == port)
    }

    /// The listener.
    ///
    /// # Errors
    /// EINVAL if it is none.
    pub fn listening(&mut self) -> Result<&mut Listening, Errno> {
        match &mut self.role {
            Role::Listener(listening) => Ok(listening),
            Role::Fresh { .. } | Role::Connected(_) => Err(Errno::INVAL),
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// ENOTCONN if there is none.
    pub fn connected(&mut self) -> Result<&mut Connected, Errno> {
        match &mut self.role {
            Role::Connected(connected) => Ok(connected),
            Role::Fresh { .. } | Role::Listener(_) => Err(Errno::NOTCONN),
        }
    }

    /// What calls on the library's stream are to know of the options: whether and for how long they
    /// wait.
    pub fn apply_options(&self) {
        let connected = match &self.role {
            Role::Fresh { .. } => return,
            Role::Listener(Listening { listener, .. }) => {
                listener.queue().set_defer_accept(self.options.defer_accept);
                return listener.set_syncnt(self.options.syncnt);
            }
            Role::Connected(connected) => connected,
        };
        let stream = &connected.stream;
        let wait = match self.options.timeout {
            Timeout::Never | Timeout::Now => None,
            Timeout::After(span) => Some(span),
        };
        let nonblocking = self.nonblocking || self.options.timeout == Timeout::Now;
        // Neither fails: there is no duration of zero here.
        let _ = stream.set_read_timeout(wait);
        let _ = stream.set_nonblocking(nonblocking);
        stream.set_out_of_band_inline(self.options.urgent_inline);
    }

    /// Tells the connection of an option that was set.
    ///
    /// # Errors
    /// EINVAL for what a connection refuses.
    pub fn apply(&self, change: Change) -> Result<(), Errno> {
        let connected = match &self.role {
            Role::Connected(connected) => connected,
            Role::Listener(_) | Role::Fresh { .. } => return Ok(()),
        };
        let (stream, options) = (&connected.stream, &self.options);
        let result = match change {
            Change::QuickAck(quick) => stream.set_quickack(quick),
            Change::Rcvbuf(asked) => stream.set_receive_buffer(asked),
            Change::WindowClamp => stream.set_window_clamp(options.window_clamp),
            Change::LowWater => stream.set_receive_low_water(options.low_water),
            Change::KeepAlive => stream.set_keepalive(options.keepalive.then_some(options.keep)),
            Change::UserTimeout => {
                let patience = Duration::from_millis(options.user_timeout.into());
                stream.set_user_timeout(Some(patience))
            }
            Change::Linger2 => stream.set_linger2(options.linger2),
            Change::PeekOffset => {
                stream.set_peek_offset(u32::try_from(options.peek_offset).ok());
                Ok(())
            }
        };
        result.map_err(|_| Errno::INVAL)
    }

    /// What it can be asked for without waiting.
    pub fn readiness(&self) -> Readiness {
        match &self.role {
            &Role::Fresh { read_shut, .. } => {
                Readiness { closed: true, read_shut, ..Readiness::default() }
            }
            Role::Listener(listening) => {
                let waiting = listening.listener.queue().len();
                Readiness {
                    connection: waiting != 0,
                    listens: true,
                    news: SeqNum::new(listening.accepted.wrapping_add(waiting)),
                    ..Readiness::default()
                }
            }
            Role::Connected(connected) => connected.readiness(&self.options),
        }
    }
}

impl Connected {
    /// A connection just accepted.
    pub fn new(stream: TcpStream<HeapBuf>, maxseg: Option<u16>) -> Self {
        Self { stream, maxseg, read_shut: false, write_shut: false, error_told: false }
    }

    /// The library's handle.
    pub fn handle(&self) -> &Handle<HeapBuf> {
        self.stream.handle()
    }

    /// Looks at the connection.
    pub fn look<R>(&self, at: impl FnOnce(&Tcb<HeapBuf>) -> R) -> R {
        at(self.handle().lock().connection())
    }

    /// Whether the connection is over.
    pub fn is_over(&self) -> bool {
        self.look(|tcb| matches!(tcb.state(), State::Closed | State::TimeWait))
    }

    /// Takes the error that the next call would be told (SO_ERROR).
    pub fn take_error(&mut self) -> Option<ConnError> {
        let path = || self.stream.take_path_error().ok().flatten().map(ConnError::Path);
        let error = self.pending_error().or_else(path);
        if let Some(ConnError::Path(_)) = error
            && !self.is_over()
        {
            return error;
        }
        self.error_told |= error.is_some();
        // Taken from the library too, or the next read would tell it.
        let _ = self.handle().take_error();
        error
    }

    /// The error that the next call will be told (SO_ERROR).
    pub fn pending_error(&self) -> Option<ConnError> {
        if self.error_told { None } else { self.look(Tcb::error) }
    }

    fn readiness(&self, options: &Options) -> Readiness {
        let urgent = self.handle().has_urgent_byte();
        let passes_over = urgent && self.stream.is_at_mark() && !options.urgent_inline;
        let target = options.low_water + u32::from(passes_over);
        let readable = self.handle().unread();
        let (eof, state, pressed, edge) = self.look(|tcb| {
            let pressed = tcb.over_seven_eighths() || tcb.offered_window() <= tcb.rcv_mss();
            (tcb.eof(), tcb.state(), pressed, tcb.edge())
        });
        let closed = matches!(state, State::Closed | State::TimeWait);
        Readiness {
            data: readable >= target || (readable != 0 && pressed),
            connection: false,
            read_shut: self.read_shut || eof || closed,
            write_shut: self.write_shut || closed,
            closed,
            error: self.pending_error().is_some(),
            urgent,
            listens: false,
            news: edge,
        }
    }
}
