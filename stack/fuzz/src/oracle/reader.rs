//! The application's side: a ring of bounded length, a list of what was taken, and what was read.
//!
//! It reads in order of sequence, checks every byte against the stream, and gives buffers back
//! when it likes to, not when it is done with them.

use std::collections::VecDeque;

use prequeue::buf::{HeapBuf, PacketBuf};
use prequeue::tcp::tcb::Sink;

use super::marks::{FIN, Symbol};

/// Where the reader stands.
#[derive(Debug)]
pub struct Reader {
    ring: VecDeque<HeapBuf>,
    /// Places in the ring.
    pub room: usize,
    /// Taken out of the ring or the receive queue: older than what is there now.
    taken: VecDeque<HeapBuf>,
    /// Read, but not given back.
    used: Vec<HeapBuf>,
    /// Offset of the next byte to be read.
    pub copied: i64,
    /// The sequence number of offset 0.
    pub base: u32,
}

impl Sink<HeapBuf> for Reader {
    fn push(&mut self, buf: HeapBuf) -> Result<(), HeapBuf> {
        if self.ring.len() >= self.room {
            return Err(buf);
        }
        self.ring.push_back(buf);
        Ok(())
    }
}

impl Reader {
    pub fn new(room: usize, base: u32) -> Self {
        let (ring, taken) = Default::default();
        Self { ring, room, taken, used: Vec::new(), copied: 0, base }
    }

    /// Splices the receive queue behind all that is older.
    pub fn take(&mut self, mut queue: VecDeque<HeapBuf>) {
        self.taken.append(&mut self.ring);
        self.taken.append(&mut queue);
    }

    /// What has to go back in front of the receive queue; a partly read head is cut or not.
    pub fn uninstall(&mut self, cut: bool) -> VecDeque<HeapBuf> {
        self.taken.append(&mut self.ring);
        let read = self.read_of_head();
        if let Some(head) = self.taken.front_mut().filter(|_| cut && read > 0) {
            head.trim_front(read);
            head.cb_mut().seq = head.cb().seq.wrapping_add(read as u32);
        }
        std::mem::take(&mut self.taken)
    }

    /// Reads up to `len` bytes of what was taken and of the ring.
    pub fn read(&mut self, mut len: usize, stream: &[Symbol]) {
        self.taken.append(&mut self.ring);
        while len > 0 {
            let skip = self.read_of_head();
            let Some(head) = self.taken.front() else { return };
            let n = len.min(head.len() - skip);
            for &byte in &head.data()[skip..skip + n] {
                let expected = stream.get(self.copied as usize);
                assert_eq!(Some(&u16::from(byte)), expected, "byte {} is wrong", self.copied);
                self.copied += 1;
            }
            len -= n;
            if skip + n == head.len() {
                self.used.extend(self.taken.pop_front());
            }
        }
    }

    /// Gives back what was read, and tells its truesize.
    pub fn give_back(&mut self) -> u32 {
        self.used.drain(..).map(|buf| buf.truesize()).sum()
    }

    /// Gives back everything, read or not.
    pub fn give_up(&mut self) -> u32 {
        self.taken.append(&mut self.ring);
        self.used.extend(self.taken.drain(..));
        self.give_back()
    }

    /// Truesize of all that was not given back.
    pub fn truesize(&self) -> u32 {
        let held = self.taken.iter().chain(&self.ring).chain(&self.used);
        held.map(HeapBuf::truesize).sum()
    }

    /// Checks that what was taken, the ring and the receive queue are one run without gaps, from
    /// the next byte to be read up to the edge.
    pub fn check_run(&self, receive: &VecDeque<HeapBuf>, stream: &[Symbol]) {
        let end = stream.len() as i64 - i64::from(stream.last() == Some(&FIN));
        let mut next = None;
        for buf in self.taken.iter().chain(&self.ring).chain(receive) {
            let start = i64::from(buf.cb().seq.wrapping_sub(self.base));
            match next {
                None => assert!(start <= self.copied, "gap before {start}"),
                Some(next) => assert_eq!(start, next, "gap or overlap between buffers"),
            }
            assert!(!buf.is_empty(), "empty buffer");
            next = Some(start + buf.len() as i64);
        }
        assert_eq!(next.unwrap_or(self.copied), end, "the run ends elsewhere than the stream");
    }

    /// Bytes of the first buffer that were read already.
    fn read_of_head(&self) -> usize {
        let seq = self.base.wrapping_add(self.copied as u32);
        self.taken.front().map_or(0, |head| seq.wrapping_sub(head.cb().seq) as usize)
    }
}
