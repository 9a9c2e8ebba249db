//! The floors: what no receiver can go under, in straightforward code over the same mbufs.
//!
//! F1 parses Ethernet, IPv4 and TCP, looks the connection up in a table under a keyed hash and
//! compares the sequence number. F2 copies the payload to the reader's buffer as well. Neither
//! verifies checksums, answers, or copes with anything but data in order.

use prequeue::buf::PacketBuf;

use crate::contender::{Application, BURST, Burst, Contender, READ_BUFFER};
use crate::frames::Client;
use crate::workload::Workload;

/// What is done with a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Floor {
    /// It is not touched.
    F1,
    /// It is copied into the reader's buffer.
    F2,
}

/// A floor, with its one connection among the empty places of a table.
#[derive(Debug)]
pub struct FloorReceiver {
    floor: Floor,
    key: u64,
    table: Box<[Option<Record>]>,
    out: Box<[u8]>,
    filled: usize,
}

/// A connection, inline in the table.
#[derive(Clone, Copy, Debug)]
struct Record {
    tuple: Tuple,
    rcv_nxt: u32,
}

/// Source and destination address, source and destination port, as they stand in the frame.
type Tuple = ([u8; 8], [u8; 4]);

/// Places of the table: a power of two.
const PLACES: usize = 1024;

impl FloorReceiver {
    /// A receiver without a connection.
    pub fn new(floor: Floor) -> Self {
        Self {
            floor,
            key: fastrand::u64(..) | 1,
            table: vec![None; PLACES].into(),
            out: vec![0; READ_BUFFER].into(),
            filled: 0,
        }
    }

    fn place(&self, tuple: &Tuple) -> usize {
        let (addresses, ports) = *tuple;
        let mixed = u128::from(u64::from_ne_bytes(addresses) ^ self.key)
            * u128::from(
                self.key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(u32::from_ne_bytes(ports)),
            );
        (mixed as u64 ^ (mixed >> 64) as u64) as usize & (PLACES - 1)
    }

    fn find(&mut self, tuple: &Tuple) -> Option<&mut Record> {
        let mut place = self.place(tuple);
        loop {
            match &self.table[place] {
                Some(record) if record.tuple == *tuple => break,
                Some(_) => place = (place + 1) & (PLACES - 1),
                None => return None,
            }
        }
        self.table[place].as_mut()
    }

    /// Begins the buffer again if a burst of full segments would not fit. Returns the next place.
    fn make_room(&mut self) -> usize {
        if self.out.len() - self.filled < BURST * 1460 {
            self.filled = 0;
        }
        self.filled
    }

    /// One frame; the number of bytes that were in order.
    fn take(&mut self, frame: &[u8]) -> Option<usize> {
        let parsed = parse(frame)?;
        let record = self.find(&parsed.tuple)?;
        if parsed.seq != record.rcv_nxt {
            return None;
        }
        let payload = &frame[parsed.payload..parsed.end];
        record.rcv_nxt = record.rcv_nxt.wrapping_add(payload.len() as u32);
        if self.floor == Floor::F2 {
            self.out[self.filled..][..payload.len()].copy_from_slice(payload);
            self.filled += payload.len();
        }
        Some(payload.len())
    }
}

impl Contender for FloorReceiver {
    fn name(&self) -> &'static str {
        match self.floor {
            Floor::F1 => "F1",
            Floor::F2 => "F2",
        }
    }

    fn fits(&self, workload: Workload) -> bool {
        workload.in_order()
    }

    fn delivers(&self) -> bool {
        self.floor == Floor::F2
    }

    fn open(&mut self, client: &Client) -> u32 {
        let parsed = parse(&client.syn()).expect("the client's SYN is a segment");
        self.table.fill(None);
        let place = self.place(&parsed.tuple);
        let rcv_nxt = parsed.seq.wrapping_add(1);
        self.table[place] = Some(Record { tuple: parsed.tuple, rcv_nxt });
        0
    }

    fn burst(&mut self, burst: &mut Burst, application: &mut dyn Application) -> usize {
        let mut bytes = 0;
        let begin = self.make_room();
        for mbuf in burst.as_slice() {
            bytes += self.take(mbuf.data()).unwrap_or(0);
        }
        burst.clear();
        application.read(&self.out[begin..self.filled]);
        bytes
    }
}

struct Parsed {
    tuple: Tuple,
    seq: u32,
    payload: usize,
    end: usize,
}

/// Where things are in an untagged Ethernet/IPv4/TCP frame.
fn parse(frame: &[u8]) -> Option<Parsed> {
    let ip = frame.get(14..)?;
    if frame[12..14] != [0x08, 0x00] || ip.len() < 20 || ip[0] >> 4 != 4 || ip[9] != 6 {
        return None;
    }
    let header = usize::from(ip[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = ip.get(header..total)?;
    if header < 20 || tcp.len() < 20 {
        return None;
    }
    let offset = usize::from(tcp[12] >> 4) * 4;
    if offset < 20 || offset > tcp.len() {
        return None;
    }
    Some(Parsed {
        tuple: (ip[12..20].try_into().ok()?, tcp[0..4].try_into().ok()?),
        seq: u32::from_be_bytes(tcp[4..8].try_into().ok()?),
        payload: 14 + header + offset,
        end: 14 + total,
    })
}
