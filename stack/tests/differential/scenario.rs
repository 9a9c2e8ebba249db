//! What a scenario is made of: how the connection is opened, and what the peer, the application and
//! the clock do then. Numbers are relative to what each stack has said itself.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::packet::Flags;
use crate::side::View;

/// A scenario: everything that is needed to repeat it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub config: Config,
    pub steps: Vec<Step>,
}

/// The settings, and the peer's SYN.
#[derive(Clone, Debug)]
pub struct Config {
    pub ipv6: bool,
    /// Buffers grow with what is read in a round trip.
    pub moderate: bool,
    /// The peer's initial sequence number.
    pub irs: u32,
    pub rmem: [u32; 3],
    /// The listener's SO_RCVBUF, as it is kept.
    pub rcvbuf: Option<u32>,
    pub dsack: bool,
    pub stdurg: bool,
    pub rfc1337: bool,
    pub ratelimit: Duration,
    /// Every SYN is answered by a cookie.
    pub cookies: bool,
    /// What the SYN offers: ECN, and the options.
    pub ecn: bool,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack: bool,
    pub timestamps: bool,
    /// TSval of the SYN.
    pub clock: u32,
    /// The window of the SYN.
    pub window: u16,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    Segment(Spec),
    Recv(Read),
    Shutdown(How),
    /// Close, perhaps by SO_LINGER with zero seconds.
    Close {
        reset: bool,
    },
    TakeError,
    QuickAck(bool),
    Inline(bool),
    /// Milliseconds.
    Wait(u16),
}

/// A read that does not wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    pub len: usize,
    pub peek: bool,
    pub oob: bool,
    pub waitall: bool,
    /// Throws away what it would take.
    pub trunc: bool,
}

/// What is shut down.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Read,
    Write,
    Both,
}

/// What a call has returned.
#[derive(Clone, Eq, PartialEq)]
pub enum Got {
    Bytes(Vec<u8>),
    Error(io::ErrorKind),
    NoSocket,
}

/// A place in the peer's sequence space.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The peer's SYN.
    Irs,
    /// What the stack expects next.
    Next,
    /// What it has acknowledged.
    Acked,
    /// The right edge of its window.
    Edge,
    /// Start and end of a block of its last SACK option; Next if there is none.
    SackStart(u8),
    SackEnd(u8),
}

/// A segment, in places instead of numbers.
#[derive(Clone, Debug)]
pub struct Spec {
    pub at: (Place, i32),
    pub len: Len,
    pub flags: u16,
    /// From the next number that the stack will send.
    pub ack: i32,
    pub window: u16,
    pub ts: Option<Stamp>,
    pub urgent: u16,
    /// Of the IP header, with the ECN field.
    pub tos: u8,
    /// Put before the timestamps, if there is room.
    pub junk: Vec<u8>,
    /// Bytes of the same place differ between variants.
    pub variant: u8,
    pub corrupt: bool,
}

/// How much payload.
#[derive(Clone, Copy, Debug)]
pub enum Len {
    Bytes(u16),
    /// Up to a place, but at most as many bytes as a packet of the link holds.
    Until(Place, i32),
}

/// A timestamps option.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Added to the peer's clock, which moves on if it is positive.
    pub val: i32,
    /// Added to the stack's last TSval.
    pub ecr: i32,
}

/// The most payload of a segment.
pub const MOST: u32 = 1460;

impl Place {
    pub fn of(self, view: &View) -> u32 {
        let block = |n: u8| view.sack.get(usize::from(n)).copied();
        match self {
            Self::Irs => view.irs,
            Self::Next => view.next(),
            Self::Acked => view.acked,
            Self::Edge => view.edge,
            Self::SackStart(n) => block(n).map_or(view.next(), |(start, _)| start),
            Self::SackEnd(n) => block(n).map_or(view.next(), |(_, end)| end),
        }
    }
}

impl Spec {
    /// The sequence number.
    pub fn seq(&self, view: &View) -> u32 {
        self.at.0.of(view).wrapping_add_signed(self.at.1)
    }

    /// The number of bytes.
    pub fn bytes(&self, view: &View) -> u32 {
        match self.len {
            Len::Bytes(n) => n.into(),
            Len::Until(place, offset) => {
                let end = place.of(view).wrapping_add_signed(offset);
                let len = end.wrapping_sub(self.seq(view)) as i32;
                (len.max(0) as u32).min(MOST)
            }
        }
    }
}

/// The byte of the stream at this distance from the SYN.
pub fn byte_at(offset: u32, variant: u8) -> u8 {
    let mixed = (offset ^ 0x9e37).wrapping_mul(0x9e37_79b1);
    (mixed >> 24) as u8 ^ variant
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.config)?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{number:4} {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Segment(spec) = self else { return write!(f, "{self:?}") };
        let Spec { at, len, flags, ack, window, ts, urgent, tos, junk, variant, corrupt } = spec;
        write!(f, "Segment {} at {:?}{:+}", Flags(*flags), at.0, at.1)?;
        match len {
            Len::Bytes(0) => {}
            Len::Bytes(n) => write!(f, " {n} bytes")?,
            Len::Until(place, offset) => write!(f, " until {place:?}{offset:+}")?,
        }
        write!(f, ", ack {ack:+}, win {window}")?;
        if let Some(Stamp { val, ecr }) = ts {
            write!(f, ", ts {val:+} {ecr:+}")?;
        }
        if *urgent != 0 {
            write!(f, ", urg {urgent}")?;
        }
        if *tos != 0 {
            write!(f, ", tos {tos:#x}")?;
        }
        if !junk.is_empty() {
            write!(f, ", junk {junk:02x?}")?;
        }
        if *variant != 0 {
            write!(f, ", other bytes")?;
        }
        if *corrupt {
            write!(f, ", corrupt")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) if bytes.len() <= 8 => write!(f, "{bytes:02x?}"),
            Self::Bytes(bytes) => {
                let sum = bytes
                    .iter()
                    .fold(0_u32, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                write!(f, "{} bytes ({sum:08x})", bytes.len())
            }
            Self::Error(kind) => write!(f, "{kind:?}"),
            Self::NoSocket => write!(f, "no socket"),
        }
    }
}
