//! The workloads: in which order the pieces of one stream arrive.
//!
//! Seeded, so that every contender and every round sees the same order. A piece is a place in the
//! stream and a length; what becomes a frame is decided by [`crate::frames`].

/// Bytes `[offset, offset + len)` of the stream, sent as one segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    /// First byte's place in the stream.
    pub offset: u32,
    /// Payload bytes.
    pub len: u32,
}

impl Piece {
    /// Its payload: the pattern that the stream repeats, never cut at its end.
    pub fn bytes(self, pattern: &[u8]) -> &[u8] {
        let from = self.offset as usize % (pattern.len() - self.len as usize);
        &pattern[from..][..self.len as usize]
    }
}

/// A named order of arrival.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workload {
    /// In order, 1460 bytes a segment.
    W1,
    /// In order, 64 bytes a segment: market data.
    W2,
    /// W1 with one segment in ten delayed by one to eight places.
    W4,
    /// W1 with every fiftieth segment delayed by 32 places.
    W6,
}

impl Workload {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::W1, Self::W2, Self::W4, Self::W6];

    /// The name used in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::W1 => "W1",
            Self::W2 => "W2",
            Self::W4 => "W4",
            Self::W6 => "W6",
        }
    }

    /// Whether nothing is delayed.
    pub const fn in_order(self) -> bool {
        matches!(self, Self::W1 | Self::W2)
    }

    /// Payload bytes of every segment.
    pub const fn segment_len(self) -> u32 {
        match self {
            Self::W1 | Self::W4 | Self::W6 => 1460,
            Self::W2 => 64,
        }
    }

    /// `count` pieces that together are the first `count * segment_len()` bytes of the stream.
    pub fn pieces(self, count: usize) -> Vec<Piece> {
        let mut rng = fastrand::Rng::with_seed(0x7072_6571_7565_7565);
        let len = self.segment_len();
        let mut order: Vec<(u64, Piece)> = (0..count as u64)
            .map(|i| {
                let delay = match self {
                    Self::W1 | Self::W2 => 0,
                    Self::W4 if rng.u32(..10) == 0 => rng.u64(1..=8),
                    Self::W6 if i % 50 == 49 => 32,
                    Self::W4 | Self::W6 => 0,
                };
                // A delayed piece comes right behind the one whose place it reaches.
                let key = 2 * (i + delay) + u64::from(delay > 0);
                (key, Piece { offset: i as u32 * len, len })
            })
            .collect();
        order.sort_by_key(|&(key, _)| key);
        order.into_iter().map(|(_, piece)| piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_a_permutation_of_its_stream() {
        for workload in Workload::ALL {
            let mut pieces = workload.pieces(1000);
            pieces.sort_by_key(|p| p.offset);
            for (i, piece) in pieces.iter().enumerate() {
                assert_eq!(piece.offset, i as u32 * workload.segment_len());
            }
        }
    }

    #[test]
    fn delays_are_as_the_name_says() {
        let late = |w: Workload| {
            let mut edge = 0;
            w.pieces(10_000)
                .iter()
                .filter(|p| {
                    let behind = p.offset < edge;
                    edge = edge.max(p.offset + p.len);
                    behind
                })
                .count()
        };
        assert_eq!((late(Workload::W1), late(Workload::W2)), (0, 0));
        assert!((900..1100).contains(&late(Workload::W4)), "{}", late(Workload::W4));
        assert!((199..=200).contains(&late(Workload::W6)), "{}", late(Workload::W6));
    }
}
