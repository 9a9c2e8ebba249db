//! The calls of a script in safe form: numbers, slices and errors of the kernel, no pointers.
//!
//! Made by the C functions of `ffi.rs` on packetdrill's two threads, and by the tests directly. A
//! call that has to wait sleeps in the clock. Whatever a call changes happens before it returns.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::{SHUT_RD, SHUT_RDWR, SHUT_WR, pollfd};
use prequeue::lcore::ListenOptions;
use prequeue::socket::{Recv, RecvError, RecvFlags, Step, TcpStream};
use prequeue::tcp::tcb::{ConnError, Tcb};
use prequeue::time::Instant;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::clock::{Attempt, Clock, Deadlock, Timed, Turn};
use crate::device::Packet;
use crate::flags::Flags;
use crate::info;
use crate::options::{Effect, Timeout};
use crate::poll::{self, Epoll, Readiness};
use crate::socket::{Connected, Domain, Listening, Role, Socket};
use crate::sysctl::Sysctl;
use crate::world::{File, World};

/// When a script begins on the adapter's clock: late enough for everything that has a past.
const START: Instant = Instant::from_millis(1_000_000_000);

/// Ports given out by bind to port 0: those that Linux gives.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Room in a kernel's pipe.
const PIPE_ROOM: usize = 65_536;

/// A backlog of fewer than none is as many as there may be.
const NO_LIMIT: u32 = u32::MAX;

/// What packetdrill drives.
#[derive(Debug)]
pub struct Adapter {
    clock: Clock<World>,
}

/// What recvmsg(2) tells besides the number of bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// Bytes read.
    pub len: usize,
    /// Bytes left, if TCP_INQ is on.
    pub inq: Option<u32>,
}

impl Adapter {
    /// An adapter that is driven by the calling thread.
    pub fn new(flags: Flags, sysctl: Sysctl) -> Self {
        Self { clock: Clock::new(World::new(flags, sysctl), START) }
    }

    /// socket(2).
    pub fn socket(&self, domain: Domain, nonblocking: bool) -> Result<RawFd, Errno> {
        let mut turn = self.clock.enter();
        turn.reload();
        let rcvbuf = turn.settings.tcp_rmem[1];
        let socket = Box::new(Socket::new(domain, nonblocking, rcvbuf));
        turn.files.open(File::Socket(socket))
    }

    /// bind(2).
    pub fn bind(&self, fd: RawFd, addr: SocketAddr) -> Result<(), Errno> {
        let mut turn = self.clock.enter();
        match &mut turn.socket(fd)?.role {
            Role::Fresh { local: local @ None, .. } => *local = Some(addr),
            Role::Fresh { .. } | Role::Listener(_) | Role::Connected(_) => {
                return Err(Errno::INVAL);
            }
        }
        Ok(())
    }

    /// listen(2).
    pub fn listen(&self, fd: RawFd, backlog: i32) -> Result<(), Errno> {
        let mut turn = self.clock.enter();
        turn.reload();
        let socket = turn.socket(fd)?;
        let local = match &socket.role {
            Role::Fresh { local, .. } => {
                local.unwrap_or(SocketAddr::new(any(socket.domain), *EPHEMERAL.start()))
            }
            // The backlog of a listener does not change.
            Role::Listener(_) => return Ok(()),
            Role::Connected(_) => return Err(Errno::INVAL),
        };
        let backlog = u32::try_from(backlog).unwrap_or(NO_LIMIT);
        let options = ListenOptions { backlog, ..socket.options.of_listener(local.ip()) };
        let listener = turn.listen(local, options).ok_or(Errno::ADDRINUSE)?;
        let socket = turn.socket(fd)?;
        socket.role = Role::Listener(Listening { listener, local, accepted: 0 });
        socket.apply_options();
        turn.settle();
        Ok(())
    }

    /// accept(2): the new number, the peer, and the form in which its address is wanted.
    pub fn accept(&self, fd: RawFd) -> Result<(RawFd, SocketAddr, Domain), Errno> {
        let mut turn = self.clock.enter();
        let now = turn.now();
        let socket = turn.socket(fd)?;
        socket.listening()?;
        let deadline = deadline(socket, now);
        let (stream, peer) = turn.block(|world, now| match take_connection(world, fd) {
            Err(Errno::AGAIN) if deadline.is_none_or(|at| now < at) => Attempt::Wait(deadline),
            result => Attempt::Done(result),
        })??;
        let listener = turn.socket(fd)?;
        let (domain, options) = (listener.domain, listener.options.clone());
        let initial_rcvbuf = listener.initial_rcvbuf;
        let role = Role::Connected(Box::new(Connected::new(stream, options.maxseg)));
        let socket = Socket { domain, nonblocking: false, initial_rcvbuf, options, role };
        socket.apply_options();
        let number = turn.files.open(File::Socket(Box::new(socket)))?;
        turn.settle();
        Ok((number, peer, domain))
    }

    /// connect(2): connections are only accepted.
    pub fn connect(&self, fd: RawFd) -> Result<(), Errno> {
        self.clock.enter().socket(fd)?;
        Err(Errno::OPNOTSUPP)
    }

    /// read(2) and readv(2).
    pub fn read(&self, fd: RawFd, buf: &mut [u8]) -> Result<usize, Errno> {
        let turn = self.clock.enter();
        if matches!(turn.files.find(fd)?, File::Pipe) {
            let pipe = turn.files.descriptor(fd)?.try_clone().map_err(errno)?;
            drop(turn);
            return rustix::io::read(pipe, buf);
        }
        // Unlike recv, read of nothing returns at once.
        if buf.is_empty() {
            return Ok(0);
        }
        drop(turn);
        self.recv(fd, buf, 0).map(|received| received.len)
    }

    /// recv(2), recvfrom(2), recvmsg(2).
    pub fn recv(&self, fd: RawFd, buf: &mut [u8], flags: i32) -> Result<Received, Errno> {
        let mut turn = self.clock.enter();
        let socket = turn.socket(fd)?;
        if flags & libc::MSG_ERRQUEUE != 0 {
            return Err(Errno::AGAIN);
        }
        if flags & libc::MSG_OOB != 0 && matches!(socket.role, Role::Fresh { .. }) {
            return Err(Errno::INVAL);
        }
        socket.connected()?;
        let len = recv_plain(&mut turn, fd, buf, recv_flags(flags))?;
        turn.settle();
        let socket = turn.socket(fd)?;
        let inq = socket.options.inq && flags & libc::MSG_OOB == 0;
        let handle = socket.connected()?.handle();
        Ok(Received { len, inq: inq.then(|| handle.left()) })
    }

    /// write(2), send(2) and their like: connections only receive.
    pub fn send(&self, fd: RawFd) -> Result<usize, Errno> {
        let mut turn = self.clock.enter();
        turn.socket(fd)?.connected()?;
        Err(Errno::OPNOTSUPP)
    }

    /// fcntl(2) with F_GETFL.
    pub fn file_status(&self, fd: RawFd) -> Result<i32, Errno> {
        let nonblocking = self.clock.enter().socket(fd)?.nonblocking;
        Ok(if nonblocking { libc::O_RDWR | libc::O_NONBLOCK } else { libc::O_RDWR })
    }

    /// fcntl(2) with F_SETFL.
    pub fn set_file_status(&self, fd: RawFd, status: i32) -> Result<(), Errno> {
        let mut turn = self.clock.enter();
        let socket = turn.socket(fd)?;
        socket.nonblocking = status & libc::O_NONBLOCK != 0;
        socket.apply_options();
        Ok(())
    }

    /// ioctl(2) with SIOCINQ.
    pub fn inq(&self, fd: RawFd) -> Result<u32, Errno> {
        let mut turn = self.clock.enter();
        let socket = turn.socket(fd)?;
        match &socket.role {
            Role::Fresh { .. } => Ok(0),
            Role::Listener(_) => Err(Errno::INVAL),
            Role::Connected(connected) => Ok(connected.stream.readable()),
        }
    }

    /// close(2).
    pub fn close(&self, fd: RawFd) -> Result<(), Errno> {
        let mut turn = self.clock.enter();
        turn.reload_for_calls();
        let file = turn.files.close(fd)?;
        if let File::Socket(socket) = &file
            && let (Role::Connected(connected), Some(0)) = (&socket.role, socket.options.linger)
        {
            connected.stream.set_linger_zero();
        }
        drop(file);
        for (_, file) in turn.files.iter_mut() {
            if let File::Epoll(epoll) = file {
                epoll.forget(fd);
            }
        }
        turn.settle();
        Ok(())
    }

    /// shutdown(2).
    pub fn shutdown(&self, fd: RawFd, how: i32) -> Result<(), Errno> {
        let mut turn = self.clock.enter();
        turn.reload_for_calls();
        let socket = turn.socket(fd)?;
        let (read, write) = match how {
            SHUT_RD => (true, false),
            SHUT_WR => (false, true),
            SHUT_RDWR => (true, true),
            _ => return Err(Errno::INVAL),
        };
        match &mut socket.role {
            Role::Fresh { read_shut, .. } => {
                // It fails, and has an effect.
                *read_shut |= read;
                return Err(Errno::NOTCONN);
            }
            Role::Listener(listening) if read => {
                let local = Some(listening.local);
                socket.role = Role::Fresh { local, read_shut: false };
            }
            Role::Listener(_) => {}
            Role::Connected(connected) => {
                if connected.is_over() {
                    return Err(Errno::NOTCONN);
                }
                connected.read_shut |= read;
                connected.write_shut |= write;
                if read {
                    connected.handle().shutdown_read();
                }
                if write {
                    connected.handle().shutdown_write();
                }
            }
        }
        turn.settle();
        Ok(())
    }

    /// getsockopt(2): the value's bytes.
    pub fn option(&self, fd: RawFd, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        let mut turn = self.clock.enter();
        let now = turn.now();
        let world = &mut *turn;
        let settings = world.settings.clone();
        let syn_retries = world.sysctl.syn_retries();
        let socket = world.socket(fd)?;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => {
                let error = match &mut socket.role {
                    Role::Connected(connected) => connected.take_error(),
                    Role::Fresh { .. } | Role::Listener(_) => None,
                };
                let number = error.map_or(0, |error| conn_errno(error).raw_os_error());
                Ok(number.to_ne_bytes().to_vec())
            }
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => {
                let listens = i32::from(matches!(socket.role, Role::Listener(_)));
                Ok(listens.to_ne_bytes().to_vec())
            }
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG)
                if let Role::Connected(connected) = &socket.role =>
            {
                Ok(info::send_mss(connected, now).to_ne_bytes().to_vec())
            }
            (libc::IPPROTO_TCP, libc::TCP_SYNCNT) => {
                let retries = socket.options.syncnt.map_or(syn_retries, NonZeroU8::get);
                Ok(i32::from(retries).to_ne_bytes().to_vec())
            }
            (libc::IPPROTO_TCP, libc::TCP_QUICKACK)
                if let Role::Connected(connected) = &socket.role =>
            {
                Ok(i32::from(connected.look(Tcb::is_quick_ack)).to_ne_bytes().to_vec())
            }
            (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP)
                if let Role::Connected(connected) = &socket.role =>
            {
                let clamp = connected.look(Tcb::window_clamp);
                Ok((clamp as i32).to_ne_bytes().to_vec())
            }
            (libc::SOL_SOCKET, info::SO_MEMINFO) => Ok(info::memory(socket, &settings)),
            (libc::IPPROTO_TCP, libc::TCP_INFO) => Ok(info::tcp(socket, now)),
            (libc::IPPROTO_TCP, info::TCP_CC_INFO) => Ok(info::congestion()),
            _ => socket.options.get(&settings, level, name),
        }
    }

    /// setsockopt(2).
    pub fn set_option(&self, fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let mut turn = self.clock.enter();
        turn.reload_for_calls();
        let settings = turn.settings.clone();
        let socket = turn.socket(fd)?;
        let result = match socket.options.set(&settings, level, name, value)? {
            Effect::Stored => Ok(()),
            Effect::Changed(change) => socket.apply(change),
        };
        socket.apply_options();
        if let Role::Listener(Listening { local, .. }) = socket.role {
            let options = socket.options.of_listener(local.ip());
            turn.change(local, options);
        }
        turn.settle();
        result
    }

    /// Whether a number is one of ours.
    pub fn has_socket(&self, fd: RawFd) -> bool {
        self.clock.enter().files.find(fd).is_ok()
    }

    /// Whether a call of another thread sleeps.
    #[cfg(test)]
    pub fn has_sleeper(&self) -> bool {
        self.clock.enter().has_sleeper()
    }

    /// poll(2).
    pub fn poll(&self, fds: &mut [pollfd], timeout: i32) -> Result<usize, Errno> {
        let mut turn = self.clock.enter();
        let deadline = poll_deadline(turn.now(), timeout);
        let ready = turn.block(|world, now| {
            let mut ready = 0;
            for entry in &mut *fds {
                entry.revents = match (entry.fd, readiness(world, entry.fd)) {
                    (..0, _) => 0,
                    (_, None) => libc::POLLNVAL,
                    (_, Some(readiness)) => poll::revents(&readiness, entry.events),
                };
                ready += usize::from(entry.revents != 0);
            }
            until_ready(ready, ready != 0, deadline, now)
        })?;
        Ok(ready)
    }

    /// epoll_create(2).
    pub fn epoll_create(&self) -> Result<RawFd, Errno> {
        self.clock.enter().files.open(File::Epoll(Epoll::default()))
    }

    /// epoll_ctl(2).
    pub fn epoll_control(
        &self,
        epoll: RawFd,
        operation: i32,
        fd: RawFd,
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        let mut turn = self.clock.enter();
        turn.files.find(fd)?;
        match turn.files.find_mut(epoll)? {
            File::Epoll(list) if fd != epoll => list.control(operation, fd, events, data)?,
            File::Epoll(_) | File::Socket(_) | File::Pipe => return Err(Errno::INVAL),
        }
        turn.settle();
        Ok(())
    }

    /// epoll_wait(2): events and data.
    pub fn epoll_wait(
        &self,
        epoll: RawFd,
        most: usize,
        timeout: i32,
    ) -> Result<Vec<(u32, u64)>, Errno> {
        let mut turn = self.clock.enter();
        if !matches!(turn.files.find(epoll)?, File::Epoll(_)) || most == 0 {
            return Err(Errno::INVAL);
        }
        let deadline = poll_deadline(turn.now(), timeout);
        let events = turn.block(|world, now| {
            // Taken out meanwhile, so that the sockets can be looked at.
            let mut list = match world.files.find_mut(epoll) {
                Ok(File::Epoll(list)) => std::mem::take(list),
                _ => return Attempt::Done(Err(Errno::BADF)),
            };
            let events = list.collect(most, |fd| readiness(world, fd));
            if let Ok(File::Epoll(place)) = world.files.find_mut(epoll) {
                *place = list;
            }
            let is_ready = !events.is_empty();
            match until_ready(events, is_ready, deadline, now) {
                Attempt::Done(events) => Attempt::Done(Ok(events)),
                Attempt::Wait(until) => Attempt::Wait(until),
            }
        })??;
        Ok(events)
    }

    /// pipe(2): the reading end, the writing end.
    pub fn pipe(&self) -> Result<[RawFd; 2], Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut turn = self.clock.enter();
        Ok([read, write].map(|end| turn.files.insert(end, File::Pipe)))
    }

    /// splice(2) from a socket into a pipe.
    pub fn splice(&self, from: RawFd, to: RawFd, len: usize, flags: u32) -> Result<usize, Errno> {
        let pipe = {
            let turn = self.clock.enter();
            if !matches!(turn.files.find(to)?, File::Pipe) {
                return Err(Errno::INVAL);
            }
            turn.files.descriptor(to)?.try_clone().map_err(errno)?
        };
        let mut bytes = vec![0; len.min(PIPE_ROOM)];
        let nonblocking = flags & libc::SPLICE_F_NONBLOCK != 0;
        {
            // Urgent data is not spliced, and not waited for either.
            let mut turn = self.clock.enter();
            let socket = turn.socket(from)?;
            let may_wait = !nonblocking && !socket.nonblocking;
            let connected = socket.connected()?;
            if connected.stream.is_at_mark() && connected.handle().unread() != 0 {
                return if may_wait { Ok(0) } else { Err(Errno::AGAIN) };
            }
        }
        let flags = if nonblocking { libc::MSG_DONTWAIT } else { 0 };
        let received = self.recv(from, &mut bytes, flags)?;
        let mut rest = &bytes[..received.len];
        while !rest.is_empty() {
            let written = rustix::io::write(&pipe, rest)?;
            rest = &rest[written..];
        }
        Ok(received.len)
    }

    /// A packet arrives from the network.
    pub fn network_send(&self, packet: &[u8]) {
        let mut turn = self.clock.enter();
        let now = turn.now();
        turn.receive(packet, now);
        turn.settle();
    }

    /// The next packet that leaves for the network; `None` if none will.
    pub fn network_receive(&self) -> Option<Packet> {
        self.clock.enter().until(World::take_sent)
    }

    /// usleep(3).
    pub fn sleep(&self, span: Duration) {
        self.clock.enter().pass(span);
    }

    /// gettimeofday(2).
    pub fn time(&self) -> Instant {
        self.clock.enter().read()
    }
}

impl From<Deadlock> for Errno {
    fn from(_: Deadlock) -> Self {
        Self::DEADLK
    }
}

/// The oldest connection of a listener.
fn take_connection(
    world: &mut World,
    fd: RawFd,
) -> Result<(TcpStream<prequeue::buf::HeapBuf>, SocketAddr), Errno> {
    let listening = world.socket(fd)?.listening()?;
    // The waiting is ours.
    let _ = listening.listener.set_nonblocking(true);
    let accepted = listening.listener.accept().map_err(errno)?;
    listening.accepted = listening.accepted.wrapping_add(1);
    Ok(accepted)
}

/// Reads what there is, or waits for it.
fn recv_plain(
    turn: &mut Turn<'_, World>,
    fd: RawFd,
    buf: &mut [u8],
    flags: RecvFlags,
) -> Result<usize, Errno> {
    let now = turn.now();
    // A handle of its own, since the lock is given up while the call sleeps.
    let handle = turn.socket(fd)?.connected()?.handle().another();
    let mut recv = Recv::new(&handle, buf, flags, || now);
    let result = turn.block(|world, now| {
        let step = recv.step(now);
        // What was read may have opened the window, and shows how fast the application reads.
        handle.lock().tell_progress();
        world.run(now);
        match step {
            Step::Done(n) => Attempt::Done(Ok(n)),
            Step::Failed(error) => Attempt::Done(Err(error)),
            Step::Sleep(sleep) => Attempt::Wait(sleep.until),
        }
    });
    drop(recv);
    drop(handle);
    let error = match result? {
        Ok(n) => return Ok(n),
        Err(error) => error,
    };
    if matches!(error, RecvError::Connection(_)) {
        turn.socket(fd)?.connected()?.error_told = true;
    }
    Err(match error {
        RecvError::WouldBlock => Errno::AGAIN,
        RecvError::Interrupted => Errno::INTR,
        RecvError::NoUrgentByte => Errno::INVAL,
        RecvError::NotConnected => Errno::NOTCONN,
        RecvError::Connection(error) => conn_errno(error),
        RecvError::Deadlock => Errno::DEADLK,
        RecvError::Dead => Errno::CONNABORTED,
    })
}

/// The address of a socket that was not bound.
fn any(domain: Domain) -> IpAddr {
    match domain {
        Domain::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Domain::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn recv_flags(flags: i32) -> RecvFlags {
    [
        (libc::MSG_PEEK, RecvFlags::PEEK),
        (libc::MSG_WAITALL, RecvFlags::WAITALL),
        (libc::MSG_DONTWAIT, RecvFlags::DONTWAIT),
        (libc::MSG_TRUNC, RecvFlags::TRUNC),
        (libc::MSG_OOB, RecvFlags::OOB),
    ]
    .into_iter()
    .filter(|(bit, _)| flags & bit != 0)
    .fold(RecvFlags::NONE, |all, (_, flag)| all.with(flag))
}

/// When a call on this socket gives up.
fn deadline(socket: &Socket, now: Instant) -> Option<Instant> {
    match socket.options.timeout {
        _ if socket.nonblocking => Some(now),
        Timeout::Never => None,
        Timeout::Now => Some(now),
        Timeout::After(span) => Some(now + span),
    }
}

/// When poll gives up that was called with this many milliseconds.
fn poll_deadline(now: Instant, timeout: i32) -> Option<Instant> {
    let millis = u64::try_from(timeout).ok()?;
    Some(now + Duration::from_millis(millis))
}

fn until_ready<R>(
    result: R,
    is_ready: bool,
    deadline: Option<Instant>,
    now: Instant,
) -> Attempt<R> {
    let over = is_ready || deadline.is_some_and(|deadline| deadline <= now);
    if over { Attempt::Done(result) } else { Attempt::Wait(deadline) }
}

fn readiness(world: &World, fd: RawFd) -> Option<Readiness> {
    match world.files.find(fd).ok()? {
        File::Socket(socket) => Some(socket.readiness()),
        File::Epoll(_) | File::Pipe => Some(Readiness { listens: true, ..Readiness::default() }),
    }
}

fn conn_errno(error: ConnError) -> Errno {
    match error {
        ConnError::Reset => Errno::CONNRESET,
        ConnError::BrokenPipe => Errno::PIPE,
        ConnError::TimedOut => Errno::TIMEDOUT,
        ConnError::Path(error) => Errno::from_raw_os_error(error.errno()),
    }
}

/// The kernel's number for an error of std.
fn errno(error: io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::WouldBlock => Errno::AGAIN,
        io::ErrorKind::ConnectionAborted => Errno::CONNABORTED,
        _ => Errno::from_io_error(&error).unwrap_or(Errno::IO),
    }
}
