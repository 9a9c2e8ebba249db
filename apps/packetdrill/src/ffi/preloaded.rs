//! Functions of the C library that are ours in packetdrill's process, since the object is preloaded.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicI64, Ordering};

use libc::socklen_t;

use super::ADAPTER;
use super::sockets::getsockopt_of_script;

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
