//! What packetdrill itself calls between a script's lines: packets, time, and waiting for readiness.

use std::ffi::{c_int, c_longlong, c_uint, c_void};
use std::time::Duration;

use libc::{epoll_event, nfds_t, pollfd, size_t, suseconds_t, time_t, timeval};
use rustix::io::Errno;

use super::call;
use super::memory::{bytes, slice_mut};

pub(super) unsafe extern "C" fn poll(
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

pub(super) unsafe extern "C" fn netdev_send(
    _: *mut c_void,
    packet: *const c_void,
    len: size_t,
) -> c_int {
    call(|adapter| {
        // SAFETY: packetdrill gives a packet of this length.
        adapter.network_send(unsafe { bytes(packet.cast(), len) });
        Ok(0)
    })
}

pub(super) unsafe extern "C" fn netdev_receive(
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

pub(super) extern "C" fn usleep(_: *mut c_void, micros: c_uint) -> c_int {
    call(|adapter| {
        adapter.sleep(Duration::from_micros(micros.into()));
        Ok(0)
    })
}

pub(super) unsafe extern "C" fn gettimeofday(
    _: *mut c_void,
    time: *mut timeval,
    _zone: *mut c_void,
) -> c_int {
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

pub(super) extern "C" fn epoll_create(_: *mut c_void, size: c_int) -> c_int {
    call(|adapter| if size > 0 { adapter.epoll_create() } else { Err(Errno::INVAL) })
}

pub(super) unsafe extern "C" fn epoll_ctl(
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

pub(super) unsafe extern "C" fn epoll_wait(
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
