//! Sequence arithmetic: all comparisons are modulo 2^32 (RFC 9293 §3.4).

use std::fmt;

/// A sequence number.
///
/// `a.before(b)` holds when `b` is less than 2^31 ahead of `a`. That relation is not transitive
/// around the circle, which is why the type has no `Ord`.
///
/// ```
/// use prequeue::tcp::SeqNum;
///
/// let before_the_wrap = SeqNum::new(u32::MAX);
/// let behind_it = before_the_wrap.plus(2);
/// assert_eq!(behind_it.raw(), 1);
/// assert!(behind_it.after(before_the_wrap));
/// ```
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct SeqNum(u32);

impl SeqNum {
    /// The number as it stands in a header.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it stands in a header.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The number `n` octets later.
    #[must_use]
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// The number `n` octets earlier.
    #[must_use]
    pub const fn minus(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// Octets from `earlier` to `self`, modulo 2^32: right only if `earlier` is not after `self`.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Signed distance from `other` to `self`.
    pub const fn offset_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether `self` comes before `other`.
    pub const fn before(self, other: Self) -> bool {
        self.offset_from(other) < 0
    }

    /// Whether `self` comes after `other`.
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Whether `self` is `other` or before it.
    pub const fn at_or_before(self, other: Self) -> bool {
        !self.after(other)
    }

    /// Whether `self` is `other` or after it.
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// The later of the two.
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A half-open range of sequence numbers, `[start, end)`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct SeqRange {
    /// First number of the range.
    pub start: SeqNum,
    /// First number behind the range.
    pub end: SeqNum,
}

impl SeqRange {
    /// `[start, end)`; `end` must not be before `start`.
    pub const fn new(start: SeqNum, end: SeqNum) -> Self {
        debug_assert!(start.at_or_before(end));
        Self { start, end }
    }

    /// Octets in the range.
    pub const fn len(self) -> u32 {
        self.end.since(self.start)
    }

    /// Whether the range has no octet.
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether the ranges share an octet or meet at an end.
    pub const fn touches(self, other: Self) -> bool {
        self.start.at_or_before(other.end) && other.start.at_or_before(self.end)
    }
}

impl fmt::Debug for SeqRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?},{:?})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        for base in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 49] {
            let a = SeqNum::new(base);
            let b = a.plus(100);
            assert!(a.before(b) && b.after(a) && !b.before(a));
            assert!(a.at_or_before(a) && a.at_or_after(a));
            assert_eq!(b.since(a), 100);
            assert_eq!((a.max(b), a.min(b)), (b, a));
        }
    }
}
