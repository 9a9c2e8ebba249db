//! C's memory as slices: the bytes and the room that pointers and lengths stand for.

use std::ffi::{CStr, c_char, c_void};
use std::slice;

use libc::socklen_t;
use rustix::io::Errno;

/// A C string, or nothing.
///
/// # Safety
/// `text` is null or a C string.
pub(super) unsafe fn text(text: *const c_char) -> String {
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
pub(super) unsafe fn bytes<'a>(at: *const u8, len: usize) -> &'a [u8] {
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
pub(super) unsafe fn slice_mut<'a, T>(at: *mut T, len: usize) -> &'a mut [T] {
    if at.is_null() || len == 0 {
        return &mut [];
    }
    // SAFETY: not null, so the caller says that they are there.
    unsafe { slice::from_raw_parts_mut(at, len) }
}

/// Copies as much of a value as there is room for, and tells its whole length.
///
/// # Safety
/// Each pointer is null, or `len` points to a length and `to` to as many bytes of room.
pub(super) unsafe fn fill(value: &[u8], to: *mut u8, len: *mut socklen_t) {
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
pub(super) unsafe fn fill_option(
    value: &[u8],
    to: *mut c_void,
    len: *mut socklen_t,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    let room = *unsafe { len.as_ref() }.ok_or(Errno::FAULT)?;
    let n = value.len().min(room as usize);
    // SAFETY: the caller's promise; no more than there is room for.
    unsafe { fill(&value[..n], to.cast(), len) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
