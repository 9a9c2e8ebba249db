//! What a stack did in one step, in numbers that can be compared with the other's.

use std::fmt;

use crate::packet::{ACK, Answer, Flags, RST};
use crate::scenario::Got;
use crate::side::View;

/// TSvals of the same timer may differ by so many milliseconds: it may have run several times.
const CLOCKS_DIFFER_BY: u32 = 60;

/// And by this share of them: the kernel's timers are the coarser, the longer they are.
const SHARE: u32 = 16;

/// What one stack did in one step, in numbers that can be compared.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    pub answers: Vec<Reply>,
    pub got: Option<Got>,
    pub accepted: bool,
    pub unread: Option<u64>,
    pub ready: Option<Ready>,
    /// The buffer, where it may grow.
    pub rcvbuf: Option<u64>,
}

/// The bits of poll(2) that are about reading, by their Linux numbers.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Ready(pub u32);

/// POLLPRI.
const PRI: u32 = 2;

/// POLLHUP.
const HUP: u32 = 16;

/// POLLRDHUP.
const RDHUP: u32 = 0x2000;

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(1, "in "), (2, "pri "), (8, "err "), (16, "hup "), (0x2000, "rdhup ")];
        names
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .try_for_each(|(_, name)| f.write_str(name))
    }
}

/// An answer, relative to the initial sequence numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    pub flags: u16,
    pub seq: Relative,
    pub ack: u32,
    pub window: u16,
    pub sack: Vec<(u32, u32)>,
    /// TSval from the first on, and TSecr.
    pub ts: Option<(Millis, u32)>,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    pub tos: u8,
    pub others: Vec<u8>,
}

/// A sequence number relative to the stack's initial one, or the number zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Relative {
    Zero,
    To(u32),
}

/// Milliseconds that are equal if they are close.
#[derive(Clone, Copy, Debug, Eq)]
pub struct Millis(pub u32);

impl PartialEq for Millis {
    fn eq(&self, other: &Self) -> bool {
        self.0.abs_diff(other.0) <= CLOCKS_DIFFER_BY + self.0.max(other.0) / SHARE
    }
}

impl Seen {
    /// Takes over what differs of buffers that grow only because the reader's progress is looked at at
    /// other times: by Linux with each buffer that is copied, by us with segments, too. What one of
    /// them reckons with may be a burst's segment more, and what it makes of it up to a third.
    pub fn liken(&mut self, linux: &Self, after_read: bool) {
        for (ours, linux) in self.answers.iter_mut().zip(&linux.answers) {
            if is_near(ours.window.into(), linux.window.into()) {
                ours.window = linux.window;
            }
        }
        if let (Some(ours), Some(linux)) = (&mut self.rcvbuf, linux.rcvbuf)
            && (!after_read || is_near(*ours, linux))
        {
            *ours = linux;
        }
    }

    /// Whether the reading side is over.
    pub fn is_at_end(&self) -> bool {
        self.ready.is_some_and(|Ready(bits)| bits & RDHUP != 0)
    }

    /// Whether both directions are over. Data that is refused then may have had an urgent byte.
    pub fn is_over(&self) -> bool {
        self.ready.is_some_and(|Ready(bits)| bits & HUP != 0)
    }

    /// Leaves POLLPRI out of what is compared.
    pub fn forget_pri(&mut self) {
        self.ready = self.ready.map(|Ready(bits)| Ready(bits & !PRI));
    }
}

fn is_near(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / 3
}

impl Reply {
    pub fn new(answer: &Answer, view: &View, is_first: bool) -> Self {
        let peers = |n: u32| n.wrapping_sub(view.irs);
        let seq = match answer.seq {
            0 if answer.has(RST) => Relative::Zero,
            seq => Relative::To(seq.wrapping_sub(view.iss)),
        };
        let first_val = view.ts.map_or(0, |(_, first)| first);
        Self {
            flags: answer.flags,
            seq,
            ack: if answer.has(ACK) { peers(answer.ack) } else { answer.ack },
            window: answer.window,
            sack: answer.sack.iter().map(|&(start, end)| (peers(start), peers(end))).collect(),
            ts: answer.ts.map(|(val, ecr)| {
                let since = if is_first { 0 } else { val.wrapping_sub(first_val) };
                (Millis(since), ecr)
            }),
            mss: answer.mss,
            scale: answer.scale,
            sack_permitted: answer.sack_permitted,
            tos: answer.tos,
            others: answer.others.clone(),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.accepted {
            write!(f, "accepted; ")?;
        }
        if let Some(got) = &self.got {
            write!(f, "got {got:?}; ")?;
        }
        if let Some(unread) = self.unread {
            write!(f, "{unread} unread; ")?;
        }
        if let Some(rcvbuf) = self.rcvbuf {
            write!(f, "buffer {rcvbuf}; ")?;
        }
        if let Some(ready) = self.ready {
            write!(f, "{ready:?}; ")?;
        }
        for reply in &self.answers {
            write!(f, "{reply}; ")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flags, seq, ack, window, sack, ts, mss, scale, sack_permitted, tos, others } =
            self;
        write!(f, "{}", Flags(*flags))?;
        match seq {
            Relative::Zero => write!(f, " seq zero")?,
            Relative::To(seq) => write!(f, " seq {seq}")?,
        }
        write!(f, " ack {ack} win {window}")?;
        if !sack.is_empty() {
            write!(f, " sack {sack:?}")?;
        }
        if let Some((Millis(val), ecr)) = ts {
            write!(f, " ts {val} {ecr}")?;
        }
        if let Some(mss) = mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(scale) = scale {
            write!(f, " ws {scale}")?;
        }
        if *sack_permitted {
            write!(f, " sackok")?;
        }
        if *tos != 0 {
            write!(f, " tos {tos:#x}")?;
        }
        if !others.is_empty() {
            write!(f, " options {others:?}")?;
        }
        Ok(())
    }
}
