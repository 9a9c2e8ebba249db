//! The C face: packetdrill's table of functions, and the preloaded ones.
//!
//! Called by packetdrill on its two threads. Pointers become slices and values here and nowhere else;
//! results become return values and errno. No panic crosses: it becomes EIO. Nothing here decides
//! anything about a socket.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_uint, c_ulong, c_void};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use libc::{
    cmsghdr, epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t,
    ssize_t, suseconds_t, time_t, timeval,
};
use rustix::io::Errno;

use crate::calls::{Adapter, Received};
use crate::flags::Flags;
use crate::socket::Family;
use crate::sysctl::Sysctl;

/// The adapter. packetdrill runs one script in a process; the preloaded functions have no other way
/// to it.
static ADAPTER: OnceLock<Adapter> = OnceLock::new();

/// The table of packetdrill's `struct packetdrill_interface`: a pointer for us, then functions that
/// are given it back, in this order.
#[derive(Debug)]
#[repr(C)]
pub struct Interface {
    userdata: *mut c_void,
    free: extern "C" fn(*mut c_void),
    socket: extern "C" fn(*mut c_void, c_int, c_int, c_int) -> c_int,
    bind: unsafe extern "C" fn(*mut c_void, c_int, *const sockaddr, socklen_t) -> c_int,
    listen: extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    accept: unsafe extern "C" fn(*mut c_void, c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    connect: extern "C" fn(*mut c_void, c_int, *const sockaddr, socklen_t) -> c_int,
    read: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, size_t) -> ssize_t,
    readv: unsafe extern "C" fn(*mut c_void, c_int, *const iovec, c_int) -> ssize_t,
    recv: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, size_t, c_int) -> ssize_t,
    recvfrom: unsafe extern "C" fn(
        *mut c_void,
        c_int,
        *mut c_void,
        size_t,
        c_int,
        *mut sockaddr,
        *mut socklen_t,
    ) -> ssize_t,
    recvmsg: unsafe extern "C" fn(*mut c_void, c_int, *mut msghdr, c_int) -> ssize_t,
    write: extern "C" fn(*mut c_void, c_int, *const c_void, size_t) -> ssize_t,
    writev: extern "C" fn(*mut c_void, c_int, *const iovec, c_int) -> ssize_t,
    send: extern "C" fn(*mut c_void, c_int, *const c_void, size_t, c_int) -> ssize_t,
    sendto: extern "C" fn(
        *mut c_void,
        c_int,
        *const c_void,
        size_t,
        c_int,
        *const sockaddr,
        socklen_t,
    ) -> ssize_t,
    sendmsg: extern "C" fn(*mut c_void, c_int, *const msghdr, c_int) -> ssize_t,
    fcntl: extern "C" fn(*mut c_void, c_int, c_int, c_int) -> c_int,
    ioctl: unsafe extern "C" fn(*mut c_void, c_int, c_ulong, *mut c_int) -> c_int,
    close: extern "C" fn(*mut c_void, c_int) -> c_int,
    shutdown: extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    getsockopt: unsafe extern "C" fn(
        *mut c_void,
        c_int,
        c_int,
        c_int,
        *mut c_void,
        *mut socklen_t,
    ) -> c_int,
    setsockopt:
        unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    poll: unsafe extern "C" fn(*mut c_void, *mut pollfd, nfds_t, c_int) -> c_int,
    netdev_send: unsafe extern "C" fn(*mut c_void, *const c_void, size_t) -> c_int,
    netdev_receive:
        unsafe extern "C" fn(*mut c_void, *mut c_void, *mut size_t, *mut c_longlong) -> c_int,
    usleep: extern "C" fn(*mut c_void, c_uint) -> c_int,
    gettimeofday: unsafe extern "C" fn(*mut c_void, *mut timeval, *mut c_void) -> c_int,
    epoll_create: extern "C" fn(*mut c_void, c_int) -> c_int,
    epoll_ctl: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *mut epoll_event) -> c_int,
    epoll_wait: unsafe extern "C" fn(*mut c_void, c_int, *mut epoll_event, c_int, c_int) -> c_int,
    pipe: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    splice: extern "C" fn(
        *mut c_void,
        c_int,
        *mut loff_t,
        c_int,
        *mut loff_t,
        size_t,
        c_uint,
    ) -> ssize_t,
}

/// The one symbol that packetdrill looks up.
///
/// # Safety
/// `flags` is null or a C string; `interface` is the table to be filled, uninitialised or not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(
    flags: *const c_char,
    interface: *mut Interface,
) {
    // SAFETY: the caller says that it is null or a C string.
    let flags = unsafe { text(flags) };
    // SAFETY: the C library's environment is changed while no other thread reads it: packetdrill's
    // second thread sleeps until the first event, which comes after this call. Children of the script's
    // shell commands would otherwise load this object too.
    unsafe { std::env::remove_var("LD_PRELOAD") };
    ADAPTER.get_or_init(|| Adapter::new(Flags::parse(&flags), Sysctl::from_env()));
    let table = Interface {
        userdata: std::ptr::null_mut(),
        free,
        socket,
        bind,
        listen,
        accept,
        connect,
        read,
        readv,
        recv,
        recvfrom,
        recvmsg,
        write,
        writev,
        send,
        sendto,
        sendmsg,
        fcntl,
        ioctl,
        close,
        shutdown,
        getsockopt: getsockopt_of_script,
        setsockopt,
        poll,
        netdev_send,
        netdev_receive,
        usleep,
        gettimeofday,
        epoll_create,
        epoll_ctl,
        epoll_wait,
        pipe,
        splice,
    };
    // SAFETY: the caller says that it is the table; nothing of it is read or dropped.
    unsafe { interface.write(table) };
}

/// Runs a call and turns what comes of it into C's form.
fn call<R: Outcome>(body: impl FnOnce(&Adapter) -> Result<R, Errno>) -> R {
    let run = || body(ADAPTER.get().ok_or(Errno::IO)?);
    // A call that has panicked left nothing locked, and the next ones are answered as well as can be.
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Errno::IO));
    result.unwrap_or_else(|error| {
        // SAFETY: the C library's errno of this thread.
        unsafe { *libc::__errno_location() = error.raw_os_error() };
        R::FAILED
    })
}

/// What a C function returns.
trait Outcome {
    const FAILED: Self;
}

impl Outcome for c_int {
    const FAILED: Self = -1;
}

impl Outcome for ssize_t {
    const FAILED: Self = -1;
}

extern "C" fn free(_: *mut c_void) {
    // The process is about to end; the preloaded functions may still be called.
}

extern "C" fn socket(_: *mut c_void, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    call(|adapter| {
        let family = match domain {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::Mapped,
            _ => return Err(Errno::AFNOSUPPORT),
        };
        let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        let kind = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        if kind != libc::SOCK_STREAM || !matches!(protocol, 0 | libc::IPPROTO_TCP) {
            return Err(Errno::PROTONOSUPPORT);
        }
        adapter.socket(family, nonblocking)
    })
}

unsafe extern "C" fn bind(
    _: *mut c_void,
    fd: c_int,
    addr: *const sockaddr,
    len: socklen_t,
) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives as many bytes of address as it says.
        let bytes = unsafe { bytes(addr.cast(), len as usize) };
        adapter.bind(fd, parse_addr(bytes).ok_or(Errno::INVAL)?)?;
        Ok(0)
    })
}

extern "C" fn listen(_: *mut c_void, fd: c_int, backlog: c_int) -> c_int {
    call(|adapter| adapter.listen(fd, backlog).map(|()| 0))
}

unsafe extern "C" fn accept(
    _: *mut c_void,
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    call(|adapter| {
        let (number, peer, family) = adapter.accept(fd)?;
        // SAFETY: packetdrill gives room for as many bytes as the length says, or no room.
        unsafe { fill(&emit_addr(peer, family), addr.cast(), len) };
        Ok(number)
    })
}

extern "C" fn connect(_: *mut c_void, fd: c_int, _: *const sockaddr, _: socklen_t) -> c_int {
    call(|adapter| adapter.connect(fd).map(|()| 0))
}

unsafe extern "C" fn read(_: *mut c_void, fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: packetdrill gives a buffer of this length.
    call(|adapter| unsafe { into_buffer(buf, len, |buf| adapter.read(fd, buf)) })
}

unsafe extern "C" fn readv(_: *mut c_void, fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: packetdrill gives this many buffers.
    call(|adapter| unsafe { into_vector(iov, count as usize, |buf| adapter.read(fd, buf)) })
}

unsafe extern "C" fn recv(
    _: *mut c_void,
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    let receive = |adapter: &Adapter, buf: &mut [u8]| Ok(adapter.recv(fd, buf, flags)?.len);
    // SAFETY: packetdrill gives a buffer of this length.
    call(|adapter| unsafe { into_buffer(buf, len, |buf| receive(adapter, buf)) })
}

unsafe extern "C" fn recvfrom(
    userdata: *mut c_void,
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    _addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: null, or a length; of a stream no address is told.
    if let Some(addr_len) = unsafe { addr_len.as_mut() } {
        *addr_len = 0;
    }
    // SAFETY: as recv.
    unsafe { recv(userdata, fd, buf, len, flags) }
}

unsafe extern "C" fn recvmsg(
    _: *mut c_void,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    call(|adapter| {
        // SAFETY: packetdrill gives a message header, and nobody else uses it meanwhile.
        let message = unsafe { message.as_mut() }.ok_or(Errno::FAULT)?;
        let mut inq = None;
        let receive = |buf: &mut [u8]| {
            let received = adapter.recv(fd, buf, flags)?;
            let Received { len, inq: left } = received;
            inq = left;
            Ok(len)
        };
        // SAFETY: the header names as many buffers as it says.
        let len = unsafe { into_vector(message.msg_iov, message.msg_iovlen, receive) }?;
        message.msg_namelen = 0;
        message.msg_flags = 0;
        // SAFETY: the header names as much room for control messages as it says.
        unsafe { put_control(message, inq) };
        Ok(len)
    })
}

extern "C" fn write(_: *mut c_void, fd: c_int, _: *const c_void, _: size_t) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

extern "C" fn writev(_: *mut c_void, fd: c_int, _: *const iovec, _: c_int) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

extern "C" fn send(_: *mut c_void, fd: c_int, _: *const c_void, _: size_t, _: c_int) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

extern "C" fn sendto(
    _: *mut c_void,
    fd: c_int,
    _: *const c_void,
    _: size_t,
    _: c_int,
    _: *const sockaddr,
    _: socklen_t,
) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

extern "C" fn sendmsg(_: *mut c_void, fd: c_int, _: *const msghdr, _: c_int) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

/// Variadic in C: with the calling conventions of Linux on 64-bit machines the argument is where a
/// named one would be, and is not looked at if the command has none.
extern "C" fn fcntl(_: *mut c_void, fd: c_int, command: c_int, argument: c_int) -> c_int {
    call(|adapter| match command {
        libc::F_GETFL => adapter.file_status(fd),
        libc::F_SETFL => adapter.set_file_status(fd, argument).map(|()| 0),
        _ => Err(Errno::INVAL),
    })
}

/// Variadic in C, as [`fcntl`].
unsafe extern "C" fn ioctl(
    _: *mut c_void,
    fd: c_int,
    request: c_ulong,
    argument: *mut c_int,
) -> c_int {
    call(|adapter| {
        if request != libc::FIONREAD as c_ulong {
            return Err(Errno::NOTTY);
        }
        let left = adapter.inq(fd)?;
        // SAFETY: of this request the argument is a pointer to an int.
        *unsafe { argument.as_mut() }.ok_or(Errno::FAULT)? = left as c_int;
        Ok(0)
    })
}

extern "C" fn close(_: *mut c_void, fd: c_int) -> c_int {
    call(|adapter| adapter.close(fd).map(|()| 0))
}

extern "C" fn shutdown(_: *mut c_void, fd: c_int, how: c_int) -> c_int {
    call(|adapter| adapter.shutdown(fd, how).map(|()| 0))
}

unsafe extern "C" fn getsockopt_of_script(
    _: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    call(|adapter| {
        let option = adapter.option(fd, level, name)?;
        // SAFETY: packetdrill gives room for as many bytes as the length says.
        unsafe { fill_option(&option, value, len) }?;
        Ok(0)
    })
}

unsafe extern "C" fn setsockopt(
    _: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives as many bytes as it says.
        let value = unsafe { bytes(value.cast(), len as usize) };
        adapter.set_option(fd, level, name, value).map(|()| 0)
    })
}

unsafe extern "C" fn poll(
    _: *mut c_void,
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives this many entries.
        let fds = unsafe { slice_mut(fds, count as usize) };
        adapter.poll(fds, timeout).map(|ready| ready as c_int)
    })
}

unsafe extern "C" fn netdev_send(_: *mut c_void, packet: *const c_void, len: size_t) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives a packet of this length.
        adapter.network_send(unsafe { bytes(packet.cast(), len) });
        Ok(0)
    })
}

unsafe extern "C" fn netdev_receive(
    _: *mut c_void,
    buf: *mut c_void,
    len: *mut size_t,
    micros: *mut c_longlong,
) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives pointers to both, and a buffer of the length that is there.
        let (len, micros) = unsafe { (&mut *len, &mut *micros) };
        // SAFETY: as above.
        let buf = unsafe { slice_mut(buf.cast::<u8>(), *len) };
        *len = 0;
        if let Some(packet) = adapter.network_receive() {
            *len = packet.bytes.len().min(buf.len());
            buf[..*len].copy_from_slice(&packet.bytes[..*len]);
            *micros = (packet.at.as_nanos() / 1000) as c_longlong;
        }
        // Of no packet the length says so: an error would be tried again for ever.
        Ok(0)
    })
}

extern "C" fn usleep(_: *mut c_void, micros: c_uint) -> c_int {
    call(|adapter| {
        adapter.sleep(Duration::from_micros(micros.into()));
        Ok(0)
    })
}

unsafe extern "C" fn gettimeofday(_: *mut c_void, time: *mut timeval, _zone: *mut c_void) -> c_int {
    call(|adapter| {
        let micros = adapter.time().as_nanos() / 1000;
        // SAFETY: packetdrill gives a place for the time.
        if let Some(time) = unsafe { time.as_mut() } {
            time.tv_sec = (micros / 1_000_000) as time_t;
            time.tv_usec = (micros % 1_000_000) as suseconds_t;
        }
        Ok(0)
    })
}

extern "C" fn epoll_create(_: *mut c_void, size: c_int) -> c_int {
    call(|adapter| if size > 0 { adapter.epoll_create() } else { Err(Errno::INVAL) })
}

unsafe extern "C" fn epoll_ctl(
    _: *mut c_void,
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    call(|adapter| {
        // SAFETY: null, or one event.
        let (events, data) = unsafe { event.as_ref() }.map_or((0, 0), |e| (e.events, e.u64));
        adapter.epoll_control(epoll, operation, fd, events, data).map(|()| 0)
    })
}

unsafe extern "C" fn epoll_wait(
    _: *mut c_void,
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    call(|adapter| {
        let most = usize::try_from(most).map_err(|_| Errno::INVAL)?;
        // SAFETY: packetdrill gives room for this many events.
        let places = unsafe { slice_mut(events, most) };
        let ready = adapter.epoll_wait(epoll, most, timeout)?;
        for (place, &(events, data)) in places.iter_mut().zip(&ready) {
            *place = epoll_event { events, u64: data };
        }
        Ok(ready.len() as c_int)
    })
}

unsafe extern "C" fn pipe(_: *mut c_void, ends: *mut c_int) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives room for both numbers.
        unsafe { slice_mut(ends, 2) }.copy_from_slice(&adapter.pipe()?);
        Ok(0)
    })
}

extern "C" fn splice(
    _: *mut c_void,
    from: c_int,
    _: *mut loff_t,
    to: c_int,
    _: *mut loff_t,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    call(|adapter| adapter.splice(from, to, len, flags).map(|n| n as ssize_t))
}

/// Preloaded: packetdrill asks the kernel for the state of a socket that is only ours.
///
/// # Safety
/// As getsockopt(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if ADAPTER.get().is_some_and(|adapter| adapter.has_socket(fd)) {
        // SAFETY: the caller's promise is the same.
        return unsafe { getsockopt_of_script(std::ptr::null_mut(), fd, level, name, value, len) };
    }
    // SAFETY: the caller's promise is the kernel's; it checks the pointers itself.
    unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, len) as c_int }
}

/// Preloaded: locking all memory to come would fault in every arena, for a measurement's sake that
/// virtual time has no use for.
#[unsafe(no_mangle)]
pub extern "C" fn mlockall(_flags: c_int) -> c_int {
    0
}

/// Preloaded: real-time priority is of no use in virtual time.
#[unsafe(no_mangle)]
pub extern "C" fn sched_setscheduler(
    _pid: libc::pid_t,
    _policy: c_int,
    _parameters: *const c_void,
) -> c_int {
    0
}

/// Preloaded: packetdrill spins on this for ten ticks before it starts. Each call is a tick.
///
/// # Safety
/// `tms` is null or a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn times(tms: *mut libc::tms) -> c_long {
    static TICKS: AtomicI64 = AtomicI64::new(1);
    // SAFETY: the caller says that it is null or a place for the result.
    if let Some(tms) = unsafe { tms.as_mut() } {
        *tms = libc::tms { tms_utime: 0, tms_stime: 0, tms_cutime: 0, tms_cstime: 0 };
    }
    // Relaxed: a number that grows is all that is asked for.
    TICKS.fetch_add(1, Ordering::Relaxed)
}

/// A C string, or nothing.
///
/// # Safety
/// `text` is null or a C string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller says that it is a C string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Bytes that C has given.
///
/// # Safety
/// `at` is null, or `len` readable bytes are there for as long as the call lasts.
unsafe fn bytes<'a>(at: *const u8, len: usize) -> &'a [u8] {
    if at.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: not null, so the caller says that they are there.
    unsafe { slice::from_raw_parts(at, len) }
}

/// Room that C has given.
///
/// # Safety
/// `at` is null, or `len` values are there for as long as the call lasts, used by nobody else.
unsafe fn slice_mut<'a, T>(at: *mut T, len: usize) -> &'a mut [T] {
    if at.is_null() || len == 0 {
        return &mut [];
    }
    // SAFETY: not null, so the caller says that they are there.
    unsafe { slice::from_raw_parts_mut(at, len) }
}

/// Reads into a buffer of C. Without one there is room only for bytes that are discarded.
///
/// # Safety
/// As [`slice_mut`].
unsafe fn into_buffer(
    buf: *mut c_void,
    len: usize,
    read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Result<ssize_t, Errno> {
    let mut discarded = if buf.is_null() { vec![0; len] } else { Vec::new() };
    // SAFETY: the caller's promise.
    let room = unsafe { slice_mut(buf.cast(), len) };
    let room = if buf.is_null() { &mut discarded[..] } else { room };
    read(room).map(|n| n as ssize_t)
}

/// Reads into several buffers of C, one behind the other.
///
/// # Safety
/// `iov` is null, or there are `count` descriptions of buffers, each as [`slice_mut`] has it.
unsafe fn into_vector(
    iov: *const iovec,
    count: usize,
    read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Result<ssize_t, Errno> {
    // SAFETY: the caller's promise.
    let vectors = unsafe { slice_mut(iov.cast_mut(), count) };
    let mut gathered = vec![0; vectors.iter().map(|vector| vector.iov_len).sum()];
    let n = read(&mut gathered)?;
    let mut rest = &gathered[..n];
    for vector in vectors {
        // SAFETY: the caller's promise.
        let room = unsafe { slice_mut(vector.iov_base.cast::<u8>(), vector.iov_len) };
        let (now, later) = rest.split_at(room.len().min(rest.len()));
        room[..now.len()].copy_from_slice(now);
        rest = later;
    }
    Ok(n as ssize_t)
}

/// Copies as much of a value as there is room for, and tells its whole length.
///
/// # Safety
/// Each pointer is null, or `len` points to a length and `to` to as many bytes of room.
unsafe fn fill(value: &[u8], to: *mut u8, len: *mut socklen_t) {
    // SAFETY: the caller's promise.
    let Some(len) = (unsafe { len.as_mut() }) else { return };
    // SAFETY: the caller's promise.
    let room = unsafe { slice_mut(to, *len as usize) };
    let n = value.len().min(room.len());
    room[..n].copy_from_slice(&value[..n]);
    *len = value.len() as socklen_t;
}

/// As [`fill`], but tells how much was copied: getsockopt's way.
///
/// # Safety
/// As [`fill`].
unsafe fn fill_option(value: &[u8], to: *mut c_void, len: *mut socklen_t) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    let room = *unsafe { len.as_ref() }.ok_or(Errno::FAULT)?;
    let n = value.len().min(room as usize);
    // SAFETY: the caller's promise; no more than there is room for.
    unsafe { fill(&value[..n], to.cast(), len) };
    Ok(())
}

/// Writes the one control message there is, or none.
///
/// # Safety
/// The message's control buffer is as long as it says, and aligned for a control message.
unsafe fn put_control(message: &mut msghdr, inq: Option<u32>) {
    let room = message.msg_controllen;
    message.msg_controllen = 0;
    let Some(left) = inq else { return };
    let data = mem::size_of::<c_int>() as c_uint;
    // SAFETY: plain arithmetic.
    let (space, len) = unsafe { (libc::CMSG_SPACE(data) as usize, libc::CMSG_LEN(data) as usize) };
    if message.msg_control.is_null() || room < space {
        message.msg_flags |= libc::MSG_CTRUNC;
        return;
    }
    let header = message.msg_control.cast::<cmsghdr>();
    // SAFETY: there is room for the header and an int behind it, as just compared; the int is
    // written unaligned.
    unsafe {
        (*header).cmsg_len = len;
        (*header).cmsg_level = libc::IPPROTO_TCP;
        // TCP_CM_INQ has the number of the option that asks for it.
        (*header).cmsg_type = libc::TCP_INQ;
        libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(left as c_int);
    }
    message.msg_controllen = space;
}

/// The address in a `struct sockaddr_in`, or mapped in a `struct sockaddr_in6`.
fn parse_addr(bytes: &[u8]) -> Option<SocketAddrV4> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let addr = match c_int::from(family) {
        libc::AF_INET => Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?),
        libc::AF_INET6 => {
            let addr = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
            if addr.is_unspecified() { Ipv4Addr::UNSPECIFIED } else { addr.to_ipv4_mapped()? }
        }
        _ => return None,
    };
    Some(SocketAddrV4::new(addr, port))
}

/// The bytes of the structure that [`parse_addr`] reads.
fn emit_addr(addr: SocketAddrV4, family: Family) -> Vec<u8> {
    let mut bytes = Vec::new();
    match family {
        Family::V4 => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(addr.port().to_be_bytes());
            bytes.extend(addr.ip().octets());
            bytes.resize(mem::size_of::<libc::sockaddr_in>(), 0);
        }
        Family::Mapped => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(addr.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(addr.ip().to_ipv6_mapped().octets());
            bytes.resize(mem::size_of::<libc::sockaddr_in6>(), 0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let addr = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8080);
        for family in [Family::V4, Family::Mapped] {
            let bytes = emit_addr(addr, family);
            assert_eq!(parse_addr(&bytes), Some(addr));
            assert_eq!(parse_addr(&bytes[..7]), None);
        }
    }

    #[test]
    fn the_table_has_a_pointer_and_32_functions() {
        assert_eq!(mem::size_of::<Interface>(), 33 * mem::size_of::<usize>());
    }

    #[test]
    fn values_are_cut_to_the_room_there_is() {
        let mut room = [9_u8; 8];
        let mut len = 4;
        // SAFETY: there are eight bytes, of which four are offered.
        unsafe { fill_option(&[1, 2, 3, 4, 5, 6], room.as_mut_ptr().cast(), &mut len) }.unwrap();
        assert_eq!((room, len), ([1, 2, 3, 4, 9, 9, 9, 9], 4));
        len = 8;
        // SAFETY: there are eight bytes.
        unsafe { fill_option(&[7], room.as_mut_ptr().cast(), &mut len) }.unwrap();
        assert_eq!((room[0], len), (7, 1));
    }
}
