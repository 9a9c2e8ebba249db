//! A long stream of bytes that both ends can make and compare without sending it twice.
//!
//! A block of random bytes, from a seed, is repeated; each repetition starts at another place of
//! it, so that bytes which are lost, doubled or moved by any distance do not go unnoticed. Making
//! and comparing are copies and compares of slices, fast also without optimisation.

use std::io::{self, Read, Write};

/// Length of the random block: a prime, so that no power of two in the code under test divides it.
const BLOCK: usize = 1_048_573;
/// How much further each repetition starts.
const STEP: usize = 350_377;

/// The stream of one seed, and a place in it.
pub struct Bytes {
    block: Vec<u8>,
    offset: u64,
}

impl Bytes {
    /// The stream of `seed`, from its beginning.
    pub fn new(seed: u64) -> Self {
        // xorshift64*; the constant spreads small seeds.
        let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut block = Vec::with_capacity(BLOCK + 8);
        while block.len() < BLOCK {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            block.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        block.truncate(BLOCK);
        Self { block, offset: 0 }
    }

    /// How far the stream has been made or compared.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, at most `most` and at least one.
    fn run(&self, most: usize) -> &[u8] {
        let round = self.offset / BLOCK as u64;
        let within = (self.offset % BLOCK as u64) as usize;
        let start = (within + (round as usize).wrapping_mul(STEP)) % BLOCK;
        let len = most.min(BLOCK - within).min(BLOCK - start);
        &self.block[start..start + len]
    }

    /// Writes the next `len` bytes to `to`.
    pub fn send(&mut self, to: &mut impl Write, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let n = to.write(self.run(len.min(256 * 1024) as usize))?;
            self.offset += n as u64;
            len -= n as u64;
        }
        Ok(())
    }

    /// Compares `got` with the next bytes.
    ///
    /// # Panics
    /// They differ.
    pub fn check(&mut self, mut got: &[u8]) {
        while !got.is_empty() {
            let want = self.run(got.len());
            let (head, tail) = got.split_at(want.len());
            if head != want {
                let at = head.iter().zip(want).position(|(a, b)| a != b).unwrap_or(0);
                panic!("byte {} of the stream is wrong", self.offset + at as u64);
            }
            self.offset += head.len() as u64;
            got = tail;
        }
    }

    /// Reads and compares until the end of the stream; returns how long it was.
    pub fn check_all(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let mut buf = vec![0; 256 * 1024];
        loop {
            match from.read(&mut buf)? {
                0 => return Ok(self.offset),
                n => self.check(&buf[..n]),
            }
        }
    }
}
