//! The mbuf: an exclusively owned packet buffer of one segment, its control block behind the header.
//!
//! Made by a pool or a received burst; read and trimmed by whoever owns it, on any thread; dropped
//! on an lcore. It is never cloned and never shared. A frame that has arrived in several is a chain
//! until the lcore takes it apart; nothing that is queued is one.

mod packet;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::sync::OnceLock;

use dpdk_sys as sys;

use super::pool_core;
use crate::buf::{Checksum, PacketBuf};
use crate::wire::ethernet;

// Each field is two bits: neither for unknown, one for good, one for bad, and both where the
// device did not look ("none").
const IP: u64 = sys::RTE_MBUF_F_RX_IP_CKSUM_MASK as u64;
const IP_GOOD: u64 = sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD as u64;
const IP_BAD: u64 = sys::RTE_MBUF_F_RX_IP_CKSUM_BAD as u64;
const L4: u64 = sys::RTE_MBUF_F_RX_L4_CKSUM_MASK as u64;
const L4_GOOD: u64 = sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD as u64;
const L4_BAD: u64 = sys::RTE_MBUF_F_RX_L4_CKSUM_BAD as u64;

/// An owned mbuf. Dropping it gives it back to its pool, on a thread that owns one.
///
/// A fresh one is empty. The control block of a fresh or received one is what its last user left:
/// write it before reading it.
///
/// It may go from thread to thread, and is never shared by two. In debug builds, dropping it on a thread
/// that owns no pool panics, unless the pool is for any thread: hand it to its lcore's
/// [`MbufReturns`](super::MbufReturns) instead.
///
/// ```no_run
/// use prequeue::buf::PacketBuf;
/// use prequeue::dpdk::Mempool;
///
/// fn greeting(pool: &Mempool) -> Option<usize> {
///     let mut mbuf = pool.alloc()?;
///     mbuf.extend(5)?.copy_from_slice(b"hello");
///     mbuf.trim_front(1);
///     assert_eq!(mbuf.data(), b"ello");
///     Some(mbuf.tailroom())
/// }
/// ```
#[repr(transparent)]
pub struct Mbuf {
    // Invariant: points to an mbuf of a pool of ours (so the private area is there), direct or with
    // an external buffer of the driver, with one reference, which is this. If it has more than one
    // segment the link to the next is its own reference to an mbuf of the same kind, whose segments
    // are one fewer.
    raw: NonNull<sys::rte_mbuf>,
    _not_sync: PhantomData<Cell<()>>,
}

const _: () = assert!(size_of::<Option<Mbuf>>() == 8);

// SAFETY: an mbuf is memory with one owner; its pool may be freed into by any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// The bytes, to be written.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        // SAFETY: `data_len` bytes from `data_off` on lie in the buffer, and it is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.start(), len) }
    }

    /// Makes the data `n` bytes longer and returns the new bytes, whose content is arbitrary; `None`
    /// if the buffer has no room for them.
    pub fn extend(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        let len = self.len();
        self.set_len(len + n);
        Some(&mut self.data_mut()[len..])
    }

    /// Appends what `write` puts into `N` bytes of room: as many of them as it says. Whether there was room;
    /// what that holds before is arbitrary.
    #[inline]
    pub fn append_written<const N: usize>(
        &mut self,
        write: impl FnOnce(&mut [u8; N]) -> usize,
    ) -> bool {
        let before = self.len();
        let Some(room) = self.extend(N).and_then(<[u8]>::first_chunk_mut) else { return false };
        let written = write(room);
        self.narrow(0, before + written);
        true
    }

    /// Bytes that can still be appended.
    pub fn tailroom(&self) -> usize {
        // SAFETY: fields of our mbuf.
        let (room, start, flags) = unsafe {
            (
                self.field::<u16>(sys::PQS_OFF_BUF_LEN).read(),
                self.field::<u16>(sys::PQS_OFF_DATA_OFF).read(),
                self.ol_flags(),
            )
        };
        // What lies behind the data of a driver's external buffer may be another packet.
        if flags & sys::RTE_MBUF_F_EXTERNAL != 0 {
            return 0;
        }
        usize::from(room) - usize::from(start) - self.len()
    }

    /// Writes the device's word on the checksums: for devices made of software, and for benchmarks.
    pub fn set_checksum(&mut self, checksum: Checksum) {
        let word = match checksum {
            Checksum::Unknown => 0,
            Checksum::Good => IP_GOOD | L4_GOOD,
            Checksum::Transport => L4_GOOD,
            Checksum::Bad => IP_BAD | L4_BAD,
        };
        let flags = self.ol_flags() & !(IP | L4) | word;
        // SAFETY: a field of our mbuf.
        unsafe { self.field::<u64>(sys::PQS_OFF_OL_FLAGS).write(flags) }
    }

    /// Takes the VLAN tag off, if the device has not, and says of which VLAN the frame is: 0 if it has a
    /// priority alone. `None` if there is no tag.
    pub fn take_vlan(&mut self) -> Option<u16> {
        let stripped = u64::from(sys::RTE_MBUF_F_RX_VLAN_STRIPPED);
        let flags = self.ol_flags();
        if flags & stripped != 0 {
            // SAFETY: fields of our mbuf.
            return Some(unsafe {
                self.field::<u64>(sys::PQS_OFF_OL_FLAGS).write(flags & !stripped);
                self.field::<u16>(sys::PQS_OFF_VLAN_TCI).read() & ethernet::VLAN_ID
            });
        }
        let vlan = ethernet::take_vlan(self.data_mut())?;
        self.trim_front(ethernet::VLAN_LEN);
        Some(vlan)
    }

    /// The hash that the device spread the packet over its queues by, if it said.
    pub fn rss_hash(&self) -> Option<u32> {
        let set = self.ol_flags() & u64::from(sys::RTE_MBUF_F_RX_RSS_HASH) != 0;
        // SAFETY: a field of our mbuf.
        set.then(|| unsafe { self.field::<u32>(sys::PQS_OFF_RSS_HASH).read() })
    }

    /// When the device received the packet, in ticks of its own clock, if it said.
    pub fn rx_timestamp(&self) -> Option<u64> {
        let field = RX_TIMESTAMP.get()?;
        let set = self.ol_flags() & field.flag != 0;
        // SAFETY: an offset inside the header, as registered. The field is aligned to eight bytes.
        set.then(|| unsafe { self.field::<u64>(field.offset).read() })
    }

    /// Asks the processor to fetch the control block, which lies in a line of its own.
    #[inline]
    pub fn prefetch_cb(&self) {
        prefetch(self.private().cast_const().cast());
    }

    /// Asks the processor to fetch the first line of the data. Reads the header to find it.
    #[inline]
    pub fn prefetch_data(&self) {
        prefetch(self.start().cast_const());
    }

    /// # Safety
    /// The invariant of `raw` holds, and the caller gives the mbuf away.
    pub(super) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self { raw, _not_sync: PhantomData }
    }

    /// The mbuf, now the caller's to free.
    pub(super) fn into_raw(self) -> NonNull<sys::rte_mbuf> {
        let raw = self.raw;
        mem::forget(self);
        raw
    }

    pub(super) fn as_raw(&self) -> NonNull<sys::rte_mbuf> {
        self.raw
    }

    /// # Safety
    /// `offset` is that of a field of type `T` in `rte_mbuf`.
    #[inline(always)]
    unsafe fn field<T>(&self, offset: u32) -> *mut T {
        // SAFETY: inside the header.
        unsafe { self.raw.as_ptr().byte_add(offset as usize).cast() }
    }

    #[inline(always)]
    fn ol_flags(&self) -> u64 {
        // SAFETY: a field of our mbuf.
        unsafe { self.field::<u64>(sys::PQS_OFF_OL_FLAGS).read() }
    }

    #[inline(always)]
    fn start(&self) -> *mut u8 {
        // SAFETY: fields of our mbuf; `data_off` lies in the buffer.
        unsafe {
            let buffer = self.field::<*mut u8>(sys::PQS_OFF_BUF_ADDR).read();
            buffer.add(usize::from(self.field::<u16>(sys::PQS_OFF_DATA_OFF).read()))
        }
    }

    /// Sets both lengths: of the segment, and of the packet as if it were the only one. That of a chain
    /// is never read.
    #[inline(always)]
    fn set_len(&mut self, len: usize) {
        // SAFETY: fields of our mbuf; callers stay within the buffer, whose length is 16 bits.
        unsafe {
            self.field::<u16>(sys::PQS_OFF_DATA_LEN).write(len as u16);
            self.field::<u32>(sys::PQS_OFF_PKT_LEN).write(len as u32);
        }
    }

    /// Takes a chain over from a driver or a library of DPDK, in which only the first segment knows of
    /// the others: each is told how many there are from it on.
    ///
    /// # Safety
    /// As of [`Self::from_raw`], but for that; every segment is as the invariant says.
    pub(super) unsafe fn from_raw_chain(raw: NonNull<sys::rte_mbuf>) -> Self {
        // SAFETY: the caller's; the links lead through as many segments as the first one counts.
        unsafe {
            let first = Self::from_raw(raw);
            let mut segments = first.segments();
            let mut next = raw.as_ptr();
            while let Some(segment) = NonNull::new(next) {
                let mut segment = mem::ManuallyDrop::new(Self::from_raw(segment));
                segment.set_segments(segments);
                segments = segments.saturating_sub(1);
                next = segment.field::<*mut sys::rte_mbuf>(sys::PQS_OFF_NEXT).read();
            }
            first
        }
    }

    /// Has the packet's length be that of all its segments, as DPDK's libraries read it.
    pub(super) fn set_whole_len(&mut self) {
        let len: usize = std::iter::successors(Some(&*self), |buf| buf.rest()).map(Self::len).sum();
        // SAFETY: a field of our mbuf.
        unsafe { self.field::<u32>(sys::PQS_OFF_PKT_LEN).write(len as u32) }
    }

    /// Chains `rest` behind this one segment.
    pub(crate) fn attach(&mut self, rest: Self) {
        debug_assert_eq!(self.segments(), 1);
        self.set_segments(1 + rest.segments());
        // SAFETY: a field of our mbuf, which links to nothing.
        unsafe { self.field::<Option<Self>>(sys::PQS_OFF_NEXT).write(Some(rest)) }
    }

    #[inline(always)]
    fn set_segments(&mut self, segments: u16) {
        // SAFETY: a field of our mbuf.
        unsafe { self.field::<u16>(sys::PQS_OFF_NB_SEGS).write(segments) }
    }

    /// Segments of the chain that begins with this one.
    #[inline(always)]
    pub(super) fn segments(&self) -> u16 {
        // SAFETY: a field of our mbuf.
        unsafe { self.field::<u16>(sys::PQS_OFF_NB_SEGS).read() }
    }

    #[inline(always)]
    fn private(&self) -> *mut pool_core::Private {
        // SAFETY: an mbuf of a pool of ours.
        unsafe { pool_core::private(self.raw.as_ptr()) }
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: ours, by the invariant, and not used again.
        unsafe { pool_core::free(&mut [self.raw.as_ptr()]) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("len", &self.len()).field("cb", self.cb()).finish()
    }
}

/// Registers the header field that drivers write RX timestamps to. Once per process; `false` if
/// there is no room for it.
pub(super) fn enable_rx_timestamps() -> bool {
    let (mut offset, mut flag) = (0, 0);
    // SAFETY: the EAL is up; both pointers are good for the call. A second registration finds the
    // first.
    if unsafe { sys::pqs_rx_timestamp(&mut offset, &mut flag) } != 0 {
        return false;
    }
    RX_TIMESTAMP.get_or_init(|| RxTimestamp { offset: offset as u32, flag });
    true
}

static RX_TIMESTAMP: OnceLock<RxTimestamp> = OnceLock::new();

/// Where an RX timestamp is, and the flag that says that it is there.
struct RxTimestamp {
    offset: u32,
    flag: u64,
}

/// Asks the processor to fetch a line.
#[inline(always)]
pub(super) fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
