//! Sockets from socket(2) to close(2), and their options and flags, as C calls them.

use std::ffi::{c_int, c_ulong, c_void};

use libc::{sockaddr, socklen_t};
use rustix::io::Errno;

use crate::address::{emit_addr, parse_addr};
use crate::socket::Domain;

use super::call;
use super::memory::{bytes, fill, fill_option};

pub(super) extern "C" fn socket(
    _: *mut c_void,
    domain: c_int,
    kind: c_int,
    protocol: c_int,
) -> c_int {
    call(|adapter| {
        let domain = match domain {
            libc::AF_INET => Domain::V4,
            libc::AF_INET6 => Domain::V6,
            _ => return Err(Errno::AFNOSUPPORT),
        };
        let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        let kind = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        if kind != libc::SOCK_STREAM || !matches!(protocol, 0 | libc::IPPROTO_TCP) {
            return Err(Errno::PROTONOSUPPORT);
        }
        adapter.socket(domain, nonblocking)
    })
}

pub(super) unsafe extern "C" fn bind(
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

pub(super) extern "C" fn listen(_: *mut c_void, fd: c_int, backlog: c_int) -> c_int {
    call(|adapter| adapter.listen(fd, backlog).map(|()| 0))
}

pub(super) unsafe extern "C" fn accept(
    _: *mut c_void,
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    call(|adapter| {
        let (number, peer, domain) = adapter.accept(fd)?;
        // SAFETY: packetdrill gives room for as many bytes as the length says, or no room.
        unsafe { fill(&emit_addr(peer, domain), addr.cast(), len) };
        Ok(number)
    })
}

pub(super) extern "C" fn connect(
    _: *mut c_void,
    fd: c_int,
    _: *const sockaddr,
    _: socklen_t,
) -> c_int {
    call(|adapter| adapter.connect(fd).map(|()| 0))
}

/// Variadic in C: with the calling conventions of Linux on 64-bit machines the argument is where a
/// named one would be, and is not looked at if the command has none.
pub(super) extern "C" fn fcntl(
    _: *mut c_void,
    fd: c_int,
    command: c_int,
    argument: c_int,
) -> c_int {
    call(|adapter| match command {
        libc::F_GETFL => adapter.file_status(fd),
        libc::F_SETFL => adapter.set_file_status(fd, argument).map(|()| 0),
        _ => Err(Errno::INVAL),
    })
}

/// Variadic in C, as [`fcntl`].
pub(super) unsafe extern "C" fn ioctl(
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

pub(super) extern "C" fn close(_: *mut c_void, fd: c_int) -> c_int {
    call(|adapter| adapter.close(fd).map(|()| 0))
}

pub(super) extern "C" fn shutdown(_: *mut c_void, fd: c_int, how: c_int) -> c_int {
    call(|adapter| adapter.shutdown(fd, how).map(|()| 0))
}

pub(super) unsafe extern "C" fn getsockopt_of_script(
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

pub(super) unsafe extern "C" fn setsockopt(
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
