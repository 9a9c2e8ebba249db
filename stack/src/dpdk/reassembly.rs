//! Fragments put together, by DPDK's librte_ip_frag: one table per lcore, with limits.
//!
//! Used by the lcore that owns the pool, from its engine, and only if the stack was told to. What comes
//! out is a chain of the mbufs that came in; what does not fit together, overlaps, comes twice in a way
//! that the library cannot tell apart, or takes too long is freed and counted.

use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;

use dpdk_sys as sys;

use super::eal::{Eal, errno_text};
use super::mbuf::Mbuf;
use crate::buf::{Checksum, Headers, Lost, Owner, PacketBuf, Reassembly, SegCb};
use crate::time::Instant;
use crate::wire::{Family, fragment, ipv4, ipv6};

/// Fragments that are too old are looked for this often.
const LOOK: Duration = Duration::from_secs(1);

/// A table of datagrams of which some fragments have come.
///
/// ```no_run
/// use std::time::Duration;
///
/// use prequeue::dpdk::{Eal, Fragments, FragmentsError, TEST_ARGS};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let eal = Eal::init(TEST_ARGS)?;
/// let fragments: Result<Fragments, FragmentsError> =
///     Fragments::new(eal, 64, Duration::from_secs(30), None);
/// assert_eq!(fragments?.held(), 0);
/// # Ok(())
/// # }
/// ```
pub struct Fragments {
    raw: NonNull<sys::pqs_reassembly>,
    /// Mbufs in the table.
    held: u32,
    /// When the table was last looked through.
    looked: Instant,
}

/// The table could not be made.
///
/// See [`Fragments`] for an example.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no table for the fragments of {datagrams} datagrams: {reason}")]
pub struct FragmentsError {
    datagrams: u32,
    reason: String,
}

// SAFETY: a table that whoever has this alone uses, and mbufs, which are Send.
unsafe impl Send for Fragments {}

impl Fragments {
    /// Fragments of which a datagram may have at most; one of more is dropped.
    pub const MOST: u32 = sys::PQS_MAX_FRAGMENTS;

    /// A table for at most so many datagrams at once, each of which is given up when its fragments have
    /// not all come in time.
    pub fn new(
        _eal: &'static Eal,
        datagrams: u32,
        patience: Duration,
        numa_node: Option<u32>,
    ) -> Result<Self, FragmentsError> {
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX / 2);
        let node = numa_node.map_or(-1, |node| node as i32);
        // SAFETY: the EAL is up.
        let raw = unsafe { sys::pqs_reassembly_create(datagrams.max(1), patience, node) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, held: 0, looked: Instant::ZERO }),
            None => Err(FragmentsError { datagrams, reason: errno_text() }),
        }
    }

    /// Mbufs that wait in the table.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Frees what the library has given up. Datagrams are told apart by what [`name`] wrote; one that is
    /// not `current` was given up for its age.
    fn bury(&mut self, current: Option<SegCb>) -> Lost {
        let mut lost = Lost::default();
        let mut last = None;
        let mut mbuf = std::ptr::null_mut();
        // SAFETY: our table, and a place; what is taken out of the row is ours.
        while unsafe { sys::pqs_reassembly_dead(self.raw.as_ptr(), &mut mbuf) } {
            // SAFETY: an mbuf that we have put in, as it was then.
            let dead = unsafe { Mbuf::from_raw(NonNull::new_unchecked(mbuf)) };
            self.held -= dead.segments() as u32;
            let named = *dead.cb();
            if last != Some(named) {
                lost.failed += 1;
                lost.timed_out += u32::from(current != Some(named));
            }
            last = Some(named);
        }
        lost
    }
}

impl Reassembly<Mbuf> for Fragments {
    fn take(&mut self, mut fragment: Mbuf, headers: Headers, now: Instant) -> (Option<Mbuf>, Lost) {
        let Headers { family, link, ip } = headers;
        if family == Family::V6 {
            leave_out_extensions(&mut fragment, headers);
        }
        let named = name(&fragment, headers);
        *fragment.cb_mut() = named;
        fragment.set_whole_len();
        self.held += u32::from(fragment.segments());
        let (table, raw) = (self.raw.as_ptr(), fragment.into_raw().as_ptr());
        let (link_len, ip_len, now) = (link as u16, ip as u16, now.as_nanos());
        // SAFETY: our table; an mbuf of ours, given away, whose headers have these lengths.
        let whole = unsafe {
            match family {
                Family::V4 => sys::pqs_reassemble4(table, raw, link_len, ip_len, now),
                Family::V6 => sys::pqs_reassemble6(table, raw, link_len, now),
            }
        };
        let lost = self.bury(Some(named));
        let Some(whole) = NonNull::new(whole) else { return (None, lost) };
        // SAFETY: a chain of mbufs of ours, which the library has done with.
        let mut whole = unsafe { Mbuf::from_raw_chain(whole) };
        self.held -= u32::from(whole.segments());
        // What the device has said of the first fragment is not of the whole.
        whole.set_checksum(Checksum::Unknown);
        if let (Family::V4, Some(header)) = (family, whole.data_mut().get_mut(link..link + ip)) {
            ipv4::write_checksum(header);
        }
        (Some(whole), lost)
    }

    fn expire(&mut self, now: Instant) -> Lost {
        self.looked = now;
        let mut lost = Lost::default();
        loop {
            let before = self.held;
            // SAFETY: our table.
            unsafe { sys::pqs_reassembly_expire(self.raw.as_ptr(), now.as_nanos()) };
            let more = self.bury(None);
            lost.failed += more.failed;
            lost.timed_out += more.timed_out;
            // It stops where its row is full.
            if self.held == before || self.held == 0 {
                return lost;
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        (self.held > 0).then_some(self.looked + LOOK)
    }
}

impl Drop for Fragments {
    fn drop(&mut self) {
        self.expire(Instant::from_nanos(u64::MAX));
        debug_assert_eq!(self.held, 0, "fragments were left in the table");
        // SAFETY: our table, and not used again.
        unsafe { sys::pqs_reassembly_destroy(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragments").field("held", &self.held).finish()
    }
}

/// Leaves nothing between the header of IPv6 and that of the fragment, as the library wants it.
fn leave_out_extensions(fragment: &mut Mbuf, Headers { link, ip, .. }: Headers) {
    let frame = fragment.data_mut();
    let more = fragment::leave_out_extensions(&mut frame[link..], ip);
    frame.copy_within(..link, more);
    fragment.trim_front(more);
}

/// What tells a fragment's datagram from others, in a control block that nobody needs yet.
fn name(fragment: &Mbuf, headers: Headers) -> SegCb {
    let header = fragment.data().get(headers.link..).unwrap_or_default();
    let word = |at: usize| match header.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    };
    let (src, dst, id) = match headers.family {
        Family::V4 => (word(12), word(16), word(4) >> 16),
        Family::V6 => {
            let fold =
                |at: usize| (0..4).fold(0, |sum: u32, n| sum.rotate_left(7) ^ word(at + 4 * n));
            (fold(8), fold(24), word(ipv6::HEADER_LEN + 4))
        }
    };
    SegCb { seq: src, owner: Owner::new(dst, id), ..SegCb::default() }
}
