//! What moves bytes out of a socket, or would move them in, as C calls it.

use std::ffi::{c_int, c_uint, c_void};
use std::mem;

use libc::{cmsghdr, iovec, loff_t, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use rustix::io::Errno;

use crate::calls::{Adapter, Received};

use super::call;
use super::memory::slice_mut;

pub(super) unsafe extern "C" fn read(
    _: *mut c_void,
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
) -> ssize_t {
    // SAFETY: packetdrill gives a buffer of this length.
    call(|adapter| unsafe { into_buffer(buf, len, |buf| adapter.read(fd, buf)) })
}

pub(super) unsafe extern "C" fn readv(
    _: *mut c_void,
    fd: c_int,
    iov: *const iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: packetdrill gives this many buffers.
    call(|adapter| unsafe { into_vector(iov, count as usize, |buf| adapter.read(fd, buf)) })
}

pub(super) unsafe extern "C" fn recv(
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

pub(super) unsafe extern "C" fn recvfrom(
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

pub(super) unsafe extern "C" fn recvmsg(
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

pub(super) extern "C" fn write(_: *mut c_void, fd: c_int, _: *const c_void, _: size_t) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

pub(super) extern "C" fn writev(_: *mut c_void, fd: c_int, _: *const iovec, _: c_int) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

pub(super) extern "C" fn send(
    _: *mut c_void,
    fd: c_int,
    _: *const c_void,
    _: size_t,
    _: c_int,
) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

pub(super) extern "C" fn sendto(
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

pub(super) extern "C" fn sendmsg(_: *mut c_void, fd: c_int, _: *const msghdr, _: c_int) -> ssize_t {
    call(|adapter| adapter.send(fd).map(|n| n as ssize_t))
}

pub(super) unsafe extern "C" fn pipe(_: *mut c_void, ends: *mut c_int) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives room for both numbers.
        unsafe { slice_mut(ends, 2) }.copy_from_slice(&adapter.pipe()?);
        Ok(0)
    })
}

pub(super) extern "C" fn splice(
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
