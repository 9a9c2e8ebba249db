//! The numbers that a script's sockets go by: real descriptors of the kernel, as placeholders.
//!
//! packetdrill closes what a script leaves open with the kernel's close(2), so each number must be a
//! descriptor; an eventfd is the cheapest one. Used under the clock's lock, by whichever thread makes
//! the call. Nothing is ever read from or written to a placeholder.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// What is open, by number.
#[derive(Debug)]
pub struct Fds<T>(BTreeMap<RawFd, Open<T>>);

#[derive(Debug)]
struct Open<T> {
    fd: OwnedFd,
    what: T,
}

impl<T> Default for Fds<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Fds<T> {
    /// Opens a number for `what`.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub fn open(&mut self, what: T) -> Result<RawFd, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(self.insert(fd, what))
    }

    /// Takes in a descriptor of the kernel; its number.
    pub fn insert(&mut self, fd: OwnedFd, what: T) -> RawFd {
        let number = fd.as_raw_fd();
        if let Some(Open { fd: gone, .. }) = self.0.insert(number, Open { fd, what }) {
            // The kernel gave out a number that we hold: it was closed behind our back, and what
            // has it now is not ours to close.
            mem::forget(gone);
        }
        number
    }

    /// What is open under a number.
    ///
    /// # Errors
    /// EBADF.
    pub fn find(&self, number: RawFd) -> Result<&T, Errno> {
        self.0.get(&number).map(|open| &open.what).ok_or(Errno::BADF)
    }

    /// What is open under a number, to be changed.
    ///
    /// # Errors
    /// EBADF.
    pub fn find_mut(&mut self, number: RawFd) -> Result<&mut T, Errno> {
        self.0.get_mut(&number).map(|open| &mut open.what).ok_or(Errno::BADF)
    }

    /// The descriptor itself.
    ///
    /// # Errors
    /// EBADF.
    pub fn descriptor(&self, number: RawFd) -> Result<&OwnedFd, Errno> {
        self.0.get(&number).map(|open| &open.fd).ok_or(Errno::BADF)
    }

    /// Closes a number.
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&mut self, number: RawFd) -> Result<T, Errno> {
        self.0.remove(&number).map(|open| open.what).ok_or(Errno::BADF)
    }

    /// Everything that is open.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (RawFd, &mut T)> {
        self.0.iter_mut().map(|(&number, open)| (number, &mut open.what))
    }
}

impl<T> Drop for Fds<T> {
    fn drop(&mut self) {
        // Whatever is still open has been closed by its number, which may be somebody else's now.
        for Open { fd, .. } in mem::take(&mut self.0).into_values() {
            mem::forget(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_descriptors_of_the_kernel_until_they_are_closed() {
        let mut fds = Fds::default();
        let a = fds.open('a').unwrap();
        let b = fds.open('b').unwrap();
        assert_ne!(a, b);
        assert_eq!((fds.find(a), fds.find(b)), (Ok(&'a'), Ok(&'b')));
        assert!(rustix::io::fcntl_getfd(fds.descriptor(a).unwrap()).is_ok());
        assert_eq!(fds.close(a), Ok('a'));
        assert_eq!(fds.find(a), Err(Errno::BADF));
        assert_eq!(fds.close(a), Err(Errno::BADF));
        let entry = std::fs::read_link(format!("/proc/self/fd/{b}")).unwrap();
        assert_eq!(entry.to_str(), Some("anon_inode:[eventfd]"));
    }
}
