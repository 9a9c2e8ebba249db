//! The C face: packetdrill's table of functions, which its parts fill, and the preloaded ones.
//!
//! Called by packetdrill on its two threads. Pointers become slices and values here and nowhere else;
//! results become return values and errno. No panic crosses: it becomes EIO. Nothing here decides
//! anything about a socket.
#![allow(unsafe_code)]

mod memory;
mod passing;
mod preloaded;
mod reading;
mod sockets;

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t,
    timeval,
};
use rustix::io::Errno;

use crate::calls::Adapter;
use crate::flags::Flags;
use crate::sysctl::Sysctl;

use passing::{
    epoll_create, epoll_ctl, epoll_wait, gettimeofday, netdev_receive, netdev_send, poll, usleep,
};
use reading::{
    pipe, read, readv, recv, recvfrom, recvmsg, send, sendmsg, sendto, splice, write, writev,
};
use sockets::{
    accept, bind, close, connect, fcntl, getsockopt_of_script, ioctl, listen, setsockopt, shutdown,
    socket,
};

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
    let flags = unsafe { memory::text(flags) };
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

#[cfg(test)]
mod tests {
    use std::mem;

    use super::*;

    #[test]
    fn the_table_has_a_pointer_and_32_functions() {
        assert_eq!(mem::size_of::<Interface>(), 33 * mem::size_of::<usize>());
    }
}
