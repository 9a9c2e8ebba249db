//! A bad wire: a device that loses, doubles, reorders, delays and corrupts what it passes.
//!
//! It stands between a port and an engine, on the lcore's thread, and is driven by a seeded generator
//! and the caller's clock, so that every run can be had again. Kernel tools that do this are not on
//! every machine; and it works on any buffer. It is for tests: a stack without faults has none of it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::buf::PacketBuf;
use crate::time::Instant;

/// What may happen to a frame, each with its probability from 0 to 1.
///
/// ```
/// use prequeue::lcore::fault::Faults;
///
/// let faults = Faults { loss: 0.01, reorder: 0.1, seed: 7, ..Faults::default() };
/// assert!(!faults.are_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Start of the generator: equal seeds, equal faults.
    pub seed: u64,
    /// The frame is dropped.
    pub loss: f64,
    /// The frame comes twice.
    pub duplicate: f64,
    /// One bit of the frame is turned over.
    pub corrupt: f64,
    /// The frame comes behind some of its successors.
    pub reorder: f64,
    /// Behind how many at most; each number from 1 is equally likely.
    pub reorder_span: u32,
    /// The frame comes late.
    pub delay: f64,
    /// How late.
    pub delay_by: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 1,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            reorder: 0.0,
            reorder_span: 3,
            delay: 0.0,
            delay_by: Duration::from_millis(5),
        }
    }
}

impl Faults {
    /// Whether nothing will ever happen.
    pub fn are_none(&self) -> bool {
        let Self {
            seed: _,
            loss,
            duplicate,
            corrupt,
            reorder,
            reorder_span: _,
            delay,
            delay_by: _,
        } = *self;
        [loss, duplicate, corrupt, reorder, delay].iter().all(|&probability| probability <= 0.0)
    }
}

/// How often each happened.
///
/// See [`BadWire`] for an example.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FaultCounts {
    /// Frames that came in.
    pub frames: u64,
    /// Frames dropped.
    pub lost: u64,
    /// Frames doubled.
    pub duplicated: u64,
    /// Frames with a bit turned over.
    pub corrupted: u64,
    /// Frames put behind successors.
    pub reordered: u64,
    /// Frames delayed.
    pub delayed: u64,
}

/// The device.
///
/// It belongs to one thread. Frames that it keeps back when it is dropped are gone.
///
/// ```
/// use prequeue::buf::HeapBuf;
/// use prequeue::lcore::fault::{BadWire, Faults};
/// use prequeue::time::Instant;
///
/// let mut wire = BadWire::new(Faults { loss: 0.5, seed: 3, ..Faults::default() });
/// let mut out = Vec::new();
/// for _ in 0..100 {
///     wire.carry(HeapBuf::new(b"frame"), Instant::ZERO, || None, &mut out);
/// }
/// assert_eq!(out.len() as u64 + wire.counts().lost, 100);
/// ```
#[derive(Debug)]
pub struct BadWire<B> {
    faults: Faults,
    random: Random,
    /// Frames that wait for others to overtake them, with how many still shall.
    overtaken: Vec<(u32, B)>,
    /// Frames that wait for their time, in order of it.
    late: VecDeque<(Instant, B)>,
    /// Since when no frame has come: who waits to be overtaken waits no longer than a late one.
    last_frame: Instant,
    counts: FaultCounts,
}

impl<B: PacketBuf> BadWire<B> {
    /// A wire with these faults.
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            random: Random(faults.seed),
            overtaken: Vec::new(),
            late: VecDeque::new(),
            last_frame: Instant::ZERO,
            counts: FaultCounts::default(),
        }
    }

    /// How often each fault happened.
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// Puts a frame in; what comes out of the other end, this frame and others, goes to `out`.
    ///
    /// `empty` allocates an empty buffer: doubling and corrupting copy, so that the device's word on
    /// the checksum does not vouch for the copy. Without one the frame passes as it is.
    pub fn carry(
        &mut self,
        frame: B,
        now: Instant,
        mut empty: impl FnMut() -> Option<B>,
        out: &mut impl Extend<B>,
    ) {
        self.counts.frames += 1;
        self.last_frame = now;
        if self.random.happens(self.faults.loss) {
            self.counts.lost += 1;
            return;
        }
        let mut frame = frame;
        if self.random.happens(self.faults.corrupt)
            && !frame.is_empty()
            && let Some(copy) = empty()
            && let Some(copy) = with_a_bit_turned(&frame, copy, self.random.next())
        {
            self.counts.corrupted += 1;
            frame = copy;
        }
        if self.random.happens(self.faults.duplicate)
            && let Some(mut copy) = empty()
            && copy.append(frame.data())
        {
            self.counts.duplicated += 1;
            self.overtake(out);
            out.extend([copy]);
        }
        if self.random.happens(self.faults.delay) {
            self.counts.delayed += 1;
            self.late.push_back((now + self.faults.delay_by, frame));
        } else if self.random.happens(self.faults.reorder) {
            self.counts.reordered += 1;
            let span = u64::from(self.faults.reorder_span.max(1));
            self.overtaken.push((1 + (self.random.next() % span) as u32, frame));
        } else {
            out.extend([frame]);
            self.overtake(out);
        }
    }

    /// Lets out what waited for its time, and, when nothing has come for as long as a delay, what
    /// waited for others.
    pub fn wait(&mut self, now: Instant, out: &mut impl Extend<B>) {
        while self.late.front().is_some_and(|(due, _)| *due <= now) {
            out.extend(self.late.pop_front().map(|(_, frame)| frame));
        }
        if now >= self.last_frame + self.faults.delay_by {
            out.extend(self.overtaken.drain(..).map(|(_, frame)| frame));
        }
    }

    /// When [`Self::wait`] should be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let late = self.late.front().map(|(due, _)| *due);
        let idle = (!self.overtaken.is_empty()).then(|| self.last_frame + self.faults.delay_by);
        late.into_iter().chain(idle).min()
    }

    /// A frame has passed those that wait to be overtaken.
    fn overtake(&mut self, out: &mut impl Extend<B>) {
        let mut passing = 1;
        // From the newest: one that is let out has passed those before it, too.
        for (left, _) in self.overtaken.iter_mut().rev() {
            *left = left.saturating_sub(passing);
            passing += u32::from(*left == 0);
        }
        out.extend(self.overtaken.extract_if(.., |(left, _)| *left == 0).map(|(_, frame)| frame));
    }
}

/// `frame`'s bytes in `copy`, with a bit turned over that `random` chooses.
fn with_a_bit_turned<B: PacketBuf>(frame: &B, mut copy: B, random: u64) -> Option<B> {
    let bytes = frame.data();
    let bit = random as usize % (bytes.len() * 8);
    let (before, rest) = bytes.split_at(bit / 8);
    let (byte, after) = rest.split_first()?;
    let turned = byte ^ (1 << (bit % 8));
    (copy.append(before) && copy.append(&[turned]) && copy.append(after)).then_some(copy)
}

/// splitmix64: a full-period generator of one word, good enough to throw dice.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn happens(&mut self, probability: f64) -> bool {
        // 53 bits are what a double holds.
        let dice = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        dice < probability
    }
}

#[cfg(test)]
mod tests {
    use crate::buf::{Checksum, HeapBuf};

    use super::*;

    /// Sends `frames` numbered frames, a microsecond apart, and waits for the last.
    fn run(faults: Faults, frames: u32) -> (Vec<HeapBuf>, FaultCounts) {
        let mut wire = BadWire::new(faults);
        let (mut out, mut now) = (Vec::new(), Instant::ZERO);
        for n in 0..frames {
            now = now + Duration::from_micros(1);
            let frame = HeapBuf::new(&n.to_be_bytes()).with_checksum(Checksum::Good);
            wire.carry(frame, now, || Some(HeapBuf::new(&[])), &mut out);
            wire.wait(now, &mut out);
        }
        while let Some(at) = wire.next_deadline() {
            wire.wait(at, &mut out);
        }
        (out, wire.counts())
    }

    fn numbers(frames: &[HeapBuf]) -> Vec<u32> {
        frames.iter().map(|frame| u32::from_be_bytes(frame.data().try_into().unwrap())).collect()
    }

    #[test]
    fn a_good_wire_changes_nothing() {
        let (out, counts) = run(Faults::default(), 100);
        assert_eq!(numbers(&out), (0..100).collect::<Vec<_>>());
        assert_eq!(counts, FaultCounts { frames: 100, ..FaultCounts::default() });
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let faults =
            Faults { loss: 0.1, duplicate: 0.1, reorder: 0.1, delay: 0.1, ..Faults::default() };
        assert_eq!(numbers(&run(faults, 1000).0), numbers(&run(faults, 1000).0));
        let other = Faults { seed: 2, ..faults };
        assert_ne!(numbers(&run(faults, 1000).0), numbers(&run(other, 1000).0));
    }

    #[test]
    fn nothing_but_what_was_lost_is_missing_and_nothing_comes_thrice() {
        let faults =
            Faults { loss: 0.05, duplicate: 0.05, reorder: 0.2, delay: 0.05, ..Faults::default() };
        let (out, counts) = run(faults, 10_000);
        assert_eq!(out.len() as u64, 10_000 - counts.lost + counts.duplicated);
        let mut all = numbers(&out);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() as u64, 10_000 - counts.lost);
        for (count, probability) in [
            (counts.lost, 0.05),
            (counts.duplicated, 0.05 * 0.95),
            (counts.delayed, 0.05 * 0.95),
            (counts.reordered, 0.2 * 0.95 * 0.95),
        ] {
            let expected = 10_000.0 * probability;
            assert!((count as f64 - expected).abs() < 0.2 * expected, "{counts:?}");
        }
    }

    #[test]
    fn who_is_overtaken_is_overtaken_by_at_most_the_span() {
        let faults = Faults { reorder: 0.2, reorder_span: 3, ..Faults::default() };
        let (out, counts) = run(faults, 1000);
        assert!(counts.reordered > 100);
        let numbers = numbers(&out);
        assert_ne!(numbers, (0..1000).collect::<Vec<_>>());
        // The last few may have found too few successors.
        for (at, &number) in numbers.iter().enumerate().take(990) {
            let overtook = numbers[..at].iter().filter(|&&earlier| earlier > number).count();
            assert!(overtook <= 3, "{number} was overtaken by {overtook}");
        }
    }

    #[test]
    fn a_corrupted_frame_differs_in_one_bit_and_nobody_vouches_for_it() {
        let (out, counts) = run(Faults { corrupt: 1.0, ..Faults::default() }, 50);
        assert_eq!(counts.corrupted, 50);
        for (n, frame) in numbers(&out).into_iter().enumerate() {
            assert_eq!((frame ^ n as u32).count_ones(), 1);
        }
        assert!(out.iter().all(|frame| frame.checksum() == Checksum::Unknown));
    }
}
