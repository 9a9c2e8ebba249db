//! The mbuf as the rooms above know it: a packet buffer with queues and a way back of its own.
//!
//! Called by whoever owns the mbuf, on its thread. Everything here is a field of the header, or a copy.

use dpdk_sys as sys;

use super::{IP, IP_BAD, IP_GOOD, L4, L4_BAD, L4_GOOD, Mbuf};
use crate::buf::{Checksum, PacketBuf, SegCb};
use crate::dpdk::pool_core::MBUF_OVERHEAD;
use crate::dpdk::queue::MbufQueue;
use crate::dpdk::returns::MbufReturns;

impl PacketBuf for Mbuf {
    type Queue = MbufQueue;
    type Returns = MbufReturns;

    #[inline]
    fn data(&self) -> &[u8] {
        // SAFETY: `data_len` bytes from `data_off` on lie in the buffer; no one writes them while
        // the mbuf is borrowed.
        unsafe { std::slice::from_raw_parts(self.start(), self.len()) }
    }

    #[inline]
    fn len(&self) -> usize {
        // SAFETY: a field of our mbuf.
        usize::from(unsafe { self.field::<u16>(sys::PQS_OFF_DATA_LEN).read() })
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        let len = self.len();
        assert!(n <= len, "cannot trim {n} of {len} bytes");
        // SAFETY: a field of our mbuf, still within the buffer.
        unsafe {
            let start = self.field::<u16>(sys::PQS_OFF_DATA_OFF);
            start.write(start.read() + n as u16);
        }
        self.set_len(len - n);
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        let now = self.len();
        assert!(len <= now, "cannot keep {len} of {now} bytes");
        self.set_len(len);
    }

    #[inline]
    fn narrow(&mut self, start: usize, len: usize) {
        let old = self.len();
        assert!(start + len <= old, "cannot keep what is not there");
        // SAFETY: a field of our mbuf; `start` is within its data, which ends within 16 bits.
        unsafe {
            let at = self.field::<u16>(sys::PQS_OFF_DATA_OFF);
            at.write(at.read() + start as u16);
        }
        self.set_len(len);
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) -> bool {
        match self.extend(bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    #[inline]
    fn checksum(&self) -> Checksum {
        let flags = self.ol_flags() & (IP | L4);
        if flags == IP_GOOD | L4_GOOD {
            Checksum::Good
        } else if flags & IP == IP_BAD || flags & L4 == L4_BAD {
            Checksum::Bad
        } else if flags & L4 == L4_GOOD {
            Checksum::Transport
        } else {
            Checksum::Unknown
        }
    }

    fn device_time(&self) -> Option<u64> {
        self.rx_timestamp()
    }

    #[inline]
    fn truesize(&self) -> u32 {
        // SAFETY: a field of our mbuf.
        MBUF_OVERHEAD + u32::from(unsafe { self.field::<u16>(sys::PQS_OFF_BUF_LEN).read() })
    }

    #[inline]
    fn rest(&self) -> Option<&Self> {
        if self.segments() == 1 {
            return None;
        }
        // SAFETY: by the invariant the link holds what an `Mbuf` is, one pointer, or null; it is read
        // while we are borrowed.
        unsafe { (*self.field::<Option<Self>>(sys::PQS_OFF_NEXT)).as_ref() }
    }

    fn take_rest(&mut self) -> Option<Self> {
        if self.segments() == 1 {
            return None;
        }
        self.set_segments(1);
        self.set_len(self.len());
        // SAFETY: by the invariant the link is ours, and what it leads to the caller's now.
        unsafe { self.field::<Option<Self>>(sys::PQS_OFF_NEXT).replace(None) }
    }

    fn gather(&mut self, len: usize) -> bool {
        while let Some(missing) = len.checked_sub(self.len()).filter(|&n| n > 0) {
            let Some(mut rest) = self.take_rest() else { return false };
            let n = missing.min(rest.len());
            let fits = self.append(&rest.data()[..n]);
            if fits {
                rest.trim_front(n);
            }
            let rest = if rest.is_empty() { rest.take_rest() } else { Some(rest) };
            if let Some(rest) = rest {
                self.attach(rest);
            }
            if !fits {
                return false;
            }
        }
        true
    }

    fn cut_chain(&mut self, len: usize) {
        let more = len.saturating_sub(self.len());
        match self.take_rest() {
            Some(mut rest) if more > 0 => {
                rest.cut_chain(more);
                self.attach(rest);
            }
            _ => self.truncate(len.min(self.len())),
        }
    }

    #[inline]
    fn cb(&self) -> &SegCb {
        // SAFETY: the private area was zeroed when the pool was made, which is a valid block, and
        // has been written through this type since.
        unsafe { &(*self.private()).cb }
    }

    #[inline]
    fn cb_mut(&mut self) -> &mut SegCb {
        // SAFETY: as in `cb`, and ours alone.
        unsafe { &mut (*self.private()).cb }
    }
}
