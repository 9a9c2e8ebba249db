//! A keyed hash of a few words, fast enough for every frame.
//!
//! The flow table and the neighbour table index by it, each lcore on its own thread. The key is
//! secret and random: whoever knows only the RSS key (which is public) cannot aim at one place of a
//! table. It is no message authentication and never leaves the lcore.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Odd constants without structure (digits of pi), as multipliers of the second round.
const PI: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345];

/// A secret key of 128 bits.
#[derive(Clone, Copy, Debug)]
pub struct HashKey([u64; 2]);

impl HashKey {
    /// A key from 128 random bits.
    pub const fn new(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// A key from the operating system's randomness.
    pub fn random() -> Self {
        let word = || RandomState::new().build_hasher().finish();
        Self([word(), word()])
    }

    /// Hashes two words. Folded multiplication (the high half of the product is mixed into the low
    /// one) needs two rounds before each input bit reaches each output bit.
    pub fn mix(self, a: u64, b: u64) -> u64 {
        let once = fold(a ^ self.0[0], b ^ self.0[1]);
        fold(once ^ PI[0], self.0[0] ^ PI[1])
    }
}

/// The product's two halves, mixed.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_inputs_spread_over_the_buckets() {
        let key = HashKey::new([0x0123_4567_89ab_cdef, 0xfeed_face_cafe_beef]);
        for shift in [0, 16, 32, 48] {
            let mut buckets = [0u32; 256];
            for n in 0..65_536u64 {
                buckets[(key.mix(n << shift, 0) >> 56) as usize] += 1;
            }
            // 256 are expected in each; seven standard deviations are 112.
            assert!(
                buckets.iter().all(|&n| (144..=368).contains(&n)),
                "shift {shift}: {buckets:?}"
            );
        }
    }

    #[test]
    fn the_key_decides() {
        assert_ne!(HashKey::random().mix(1, 2), HashKey::random().mix(1, 2));
    }
}
