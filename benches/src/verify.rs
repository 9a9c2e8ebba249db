//! The verifying run's application: compares every byte it reads with the stream.
//!
//! Never part of what is timed.

use std::fmt;

use crate::contender::Application;
use crate::workload::{Piece, Workload};

/// Reads a stream of the workload's pieces and remembers the first byte that is wrong.
#[derive(Debug)]
pub struct Verifier<'a> {
    pattern: &'a [u8],
    segment_len: usize,
    seen: usize,
    wrong: Option<usize>,
}

/// The stream that came out is not the one that went in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mismatch {
    /// A byte has another value.
    Byte {
        /// Its place in the stream.
        offset: usize,
    },
    /// The number of bytes is another one.
    Length {
        /// Bytes sent.
        sent: usize,
        /// Bytes that the receiver says it has delivered.
        read: usize,
        /// Bytes that the application has seen.
        seen: usize,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte { offset } => write!(f, "byte {offset} of the stream came out wrong"),
            Self::Length { sent, read, seen } => {
                write!(f, "{sent} bytes sent, {read} reported as read, {seen} seen by the reader")
            }
        }
    }
}

impl std::error::Error for Mismatch {}

impl<'a> Verifier<'a> {
    /// A reader at the beginning of the workload's stream, which is made of `pattern`.
    pub fn new(workload: Workload, pattern: &'a [u8]) -> Self {
        let segment_len = workload.segment_len() as usize;
        Self { pattern, segment_len, seen: 0, wrong: None }
    }

    /// How many bytes were read.
    ///
    /// # Errors
    /// The first byte that was wrong.
    pub fn finish(self) -> Result<usize, Mismatch> {
        match self.wrong {
            Some(offset) => Err(Mismatch::Byte { offset }),
            None => Ok(self.seen),
        }
    }
}

impl Application for Verifier<'_> {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = self.seen % self.segment_len;
            let offset = (self.seen - within) as u32;
            let piece = Piece { offset, len: self.segment_len as u32 };
            let expected = &piece.bytes(self.pattern)[within..];
            let n = expected.len().min(bytes.len());
            if self.wrong.is_none() && bytes[..n] != expected[..n] {
                let differs = bytes.iter().zip(expected).position(|(a, b)| a != b);
                self.wrong = differs.map(|at| self.seen + at);
            }
            self.seen += n;
            bytes = &bytes[n..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern() -> Vec<u8> {
        (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn stream(pattern: &[u8], segments: usize) -> Vec<u8> {
        let pieces = Workload::W1.pieces(segments);
        pieces.iter().flat_map(|piece| piece.bytes(pattern)).copied().collect()
    }

    #[test]
    fn the_stream_in_any_portions_is_right() {
        let pattern = pattern();
        let stream = stream(&pattern, 20);
        let mut verifier = Verifier::new(Workload::W1, &pattern);
        for portion in stream.chunks(977) {
            verifier.read(portion);
        }
        assert_eq!(verifier.finish(), Ok(20 * 1460));
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let pattern = pattern();
        let mut stream = stream(&pattern, 20);
        stream[12_345] ^= 1;
        stream[23_456] ^= 1;
        let mut verifier = Verifier::new(Workload::W1, &pattern);
        for portion in stream.chunks(977) {
            verifier.read(portion);
        }
        assert_eq!(verifier.finish(), Err(Mismatch::Byte { offset: 12_345 }));
    }
}
