//! `std::io::Read` by way of `recv`, for every stream that has it.
//!
//! Written once as a macro, because the trait is `std`'s and each stream a type of its own. On whatever
//! thread reads; it adds nothing to `recv` but that a read of nothing returns at once.

/// Reads of a stream that has `recv` and `recv_vectored`.
macro_rules! read_by_recv {
    ([$($generics:tt)*] $stream:ty) => {
        impl<$($generics)*> std::io::Read for $stream {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                // Unlike recv, read of nothing returns at once.
                if buf.is_empty() { Ok(0) } else { self.recv(buf, RecvFlags::NONE) }
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                if bufs.iter().all(|buf| buf.is_empty()) {
                    return Ok(0);
                }
                self.recv_vectored(bufs, RecvFlags::NONE)
            }
        }
    };
}

pub(in crate::socket) use read_by_recv;
