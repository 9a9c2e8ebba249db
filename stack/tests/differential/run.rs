//! Runs a scenario on both stacks in step, and compares what they do.
//!
//! Time is the machine's: the kernel has no other, and ours is told what it is. Where a timer of one
//! stack has fired and the other's is about to, both are given a little more.

use std::net::SocketAddrV4;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::explained::{Explained, explanation};
use crate::kernel::Kernel;
use crate::ours::Ours;
use crate::packet::{ACK, Answer, CWR, ECE, FIN, Flags, RST, SYN, Segment, URG};
use crate::scenario::{Config, Got, Scenario, Spec, Step, byte_at};
use crate::side::{PEER, Side, US, View, before};

/// Ticks of 250 Hz, which add up over repeated timers, and what it takes to get a thread to run.
const TIMERS_DIFFER_BY: Duration = Duration::from_millis(40);

/// Duplicate ACKs are held back no longer.
const COMPRESSION: Duration = Duration::from_millis(1);

/// What the shortest timer of the kernel's may take.
const TICKS: Duration = Duration::from_millis(10);

/// TSvals of the same timer may differ by so many milliseconds: it may have run several times.
const CLOCKS_DIFFER_BY: u32 = 60;

/// Larger payloads fit behind none of their like: Linux has 624 bytes left behind one of 1000.
const SMALL: u32 = 999;

/// We copy what is small into a default buffer when it is a quarter full: not with fewer segments.
const BEFORE_COPIES: u32 = 10;

/// Both stacks, and a clock.
pub struct Lab {
    kernel: Kernel,
    ours: Ours,
    epoch: Instant,
    port: u16,
}

/// What both stacks did in one step.
#[derive(Clone, Debug)]
pub struct Difference {
    pub number: usize,
    pub step: Option<Step>,
    pub linux: Seen,
    pub ours: Seen,
    /// What has happened before, and may show only now.
    pub history: History,
}

/// What makes the two states differ though nothing is to be seen of it at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// Data was sent beyond the edge of the largest window that a header can say.
    pub unsayable: bool,
    /// A segment had options that were not agreed on, or lacked them.
    pub odd_options: bool,
    /// A segment had a list of options that breaks off.
    pub broken_options: bool,
    /// Data had an ACK field that is old.
    pub old_ack: bool,
    /// Our side's memory was used up, or nearly.
    pub full: bool,
    /// The peer has sent a FIN before.
    pub ended: bool,
    /// Our window is nearly as large as it can be.
    pub opened: bool,
    /// Our right edge has moved left, for which there is no excuse.
    pub retreats: bool,
    /// Data was sent above a hole.
    pub hole: bool,
    /// A FIN without data was sent, above a hole.
    pub fin_above: bool,
    /// Data beyond the window was sent behind a FIN.
    pub cut_after_end: bool,
    /// TCP_QUICKACK was set.
    pub quick_ack: bool,
    /// Data that ends beyond the window had an urgent pointer, or acknowledged our FIN.
    pub news_beyond: bool,
    /// The peer has told a window of zero.
    pub shut: bool,
    /// An urgent mark was announced.
    pub urgent: bool,
    /// Data was sent that Linux may have copied behind what was queued before.
    pub copied: bool,
}

/// What one stack did in one step, in numbers that can be compared.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    pub answers: Vec<Reply>,
    pub got: Option<Got>,
    pub accepted: bool,
    pub unread: Option<u64>,
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
        self.0.abs_diff(other.0) <= CLOCKS_DIFFER_BY
    }
}

/// How a run has ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Both did the same, in so many steps.
    Same(usize),
    /// They did not, for a reason that is known.
    Explained(&'static Explained),
    Different(Box<Difference>),
}

impl Lab {
    /// Both stacks; the calling thread moves to a namespace of its own.
    ///
    /// # Errors
    /// Those of [`Kernel::new`].
    pub fn new() -> Result<Self, String> {
        let kernel = Kernel::new()?;
        let port = 1024 + (std::process::id() % 1000) as u16;
        Ok(Self { kernel, ours: Ours::default(), epoch: Instant::now(), port })
    }

    /// Nanoseconds; neither stack is used to a clock that begins at zero.
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64 + 1_000_000_000_000
    }

    /// Runs a scenario; what happens goes into `trace`.
    pub fn run(&mut self, scenario: &Scenario, trace: Option<&mut Vec<String>>) -> Outcome {
        let now = self.now();
        self.port = if self.port >= 60_000 { 1024 } else { self.port + 1 };
        self.kernel.start(&scenario.config, listener(self.port), now);
        self.kernel.take_sent();
        self.ours.start(&scenario.config, listener(self.port), now);
        self.ours.take_sent();
        let mut run = Run::new(self, &scenario.config, trace);
        let outcome = run.all(&scenario.steps);
        run.say(|run| {
            format!("Linux: {}prequeue: {}", run.lab.kernel.about(), run.lab.ours.about())
        });
        run.finish();
        match outcome {
            Outcome::Different(difference) => match explanation(&scenario.config, &difference) {
                Some(explained) => Outcome::Explained(explained),
                None => Outcome::Different(difference),
            },
            outcome => outcome,
        }
    }
}

struct Run<'a> {
    lab: &'a mut Lab,
    config: &'a Config,
    trace: Option<&'a mut Vec<String>>,
    /// Linux's, then ours.
    views: [View; 2],
    accepted: bool,
    /// The peer's clock.
    clock: u32,
    history: History,
    /// Segments sent.
    segments: u32,
}

impl<'a> Run<'a> {
    fn new(lab: &'a mut Lab, config: &'a Config, trace: Option<&'a mut Vec<String>>) -> Self {
        let view = View { irs: config.irs, ..View::default() };
        let views = [view.clone(), view];
        Self {
            lab,
            config,
            trace,
            views,
            accepted: false,
            clock: config.clock,
            history: History::default(),
            segments: 0,
        }
    }

    fn all(&mut self, steps: &[Step]) -> Outcome {
        if let Err(difference) = self.open() {
            return Outcome::Different(difference);
        }
        for (number, step) in steps.iter().enumerate() {
            if let Err(difference) = self.step(number, step) {
                return Outcome::Different(difference);
            }
        }
        Outcome::Same(steps.len() + 1)
    }

    /// The SYN.
    fn open(&mut self) -> Result<(), Box<Difference>> {
        let Config { irs, mss, scale, sack, timestamps, window, .. } = *self.config;
        let mut options = Vec::new();
        if let Some(mss) = mss {
            options.extend([2, 4]);
            options.extend(mss.to_be_bytes());
        }
        if sack {
            options.extend([4, 2]);
        }
        if timestamps {
            options.extend(timestamp(self.clock, 0));
        }
        if let Some(shift) = scale {
            options.extend([1, 3, 3, shift]);
        }
        let flags = if self.config.ecn { SYN | ECE | CWR } else { SYN };
        let syn = Segment { seq: irs, flags, window, options, ..Segment::default() };
        let packet = syn.packet(self.peer(), self.us());
        let now = self.lab.now();
        self.lab.kernel.receive(&packet, now);
        self.lab.ours.receive(&packet, now);
        self.compare(0, None, [None, None], Duration::ZERO)
    }

    fn step(&mut self, number: usize, step: &Step) -> Result<(), Box<Difference>> {
        self.say(|_| format!("{number:4} {step}"));
        let before = self.lab.now();
        self.lab.ours.pass(before);
        let mut patience = Duration::from_millis(2);
        let mut got = [None, None];
        match step {
            Step::Segment(spec) => {
                self.note(spec);
                self.segments += 1;
                self.note_options(spec);
                let packets = [0, 1].map(|side| self.segment(spec, side));
                if let Some(stamp) = spec.ts {
                    self.clock = self.clock.wrapping_add(stamp.val.max(0) as u32);
                }
                let now = self.lab.now();
                self.lab.kernel.receive(&packets[0], now);
                self.lab.ours.receive(&packets[1], now);
            }
            Step::Recv(read) => {
                got = [Some(self.lab.kernel.recv(*read)), Some(self.lab.ours.recv(*read))];
                if !read.peek && !read.oob {
                    for (view, got) in self.views.iter_mut().zip(&got) {
                        if let Some(Got::Bytes(bytes)) = got {
                            view.read += bytes.len() as u32;
                        }
                    }
                }
            }
            Step::Shutdown(how) => self.both(|side| side.shutdown(*how)),
            Step::Close { reset } => self.both(|side| side.close(*reset)),
            Step::TakeError => {
                got = [Some(self.lab.kernel.take_error()), Some(self.lab.ours.take_error())];
            }
            Step::QuickAck(on) => {
                self.history.quick_ack = true;
                self.both(|side| side.set_quickack(*on));
            }
            Step::Inline(on) => self.both(|side| side.set_inline(*on)),
            Step::Wait(ms) => {
                sleep(Duration::from_millis(u64::from(*ms)));
                let now = self.lab.now();
                self.lab.ours.pass(now);
                patience = TIMERS_DIFFER_BY;
            }
        }
        self.compare(number, Some(step), got, patience)?;
        self.history.full |= self.lab.ours.is_full();
        if let Step::Segment(spec) = step {
            self.history.ended |= spec.flags & FIN != 0;
        }
        Ok(())
    }

    /// Notes what a segment may do that is not seen.
    fn note(&mut self, spec: &Spec) {
        for view in &self.views {
            let (seq, len) = (spec.seq(view), spec.bytes(view));
            self.history.unsayable |= view.edge.wrapping_sub(view.acked) == 65_535 << view.shift;
            // What is left of a segment that overlaps another may be small, too.
            let is_behind = self.config.rcvbuf.is_some_and(|rcvbuf| rcvbuf <= 65_536)
                || self.segments >= BEFORE_COPIES;
            let may_be_cut = is_behind && seq != view.next() && len > 0;
            self.history.copied |= (1..=SMALL).contains(&len) || may_be_cut;
            self.history.urgent |= spec.flags & URG != 0;
            self.history.hole |= before(view.next(), seq) && len > 0;
            let is_cut = before(view.edge, seq.wrapping_add(len));
            self.history.fin_above |= spec.flags & FIN != 0 && len == 0 && before(view.next(), seq);
            self.history.cut_after_end |= is_cut && self.history.ended;
            let has_news = spec.flags & URG != 0 || view.snd_nxt != view.iss.wrapping_add(1);
            self.history.news_beyond |= is_cut && has_news && seq == view.next();
        }
    }

    /// Notes what the options of a segment may do that is not seen.
    fn note_options(&mut self, spec: &Spec) {
        self.history.shut |= spec.window == 0;
        self.history.old_ack |= spec.flags & ACK != 0 && spec.ack < 0;
        let odd = !spec.junk.is_empty() || spec.ts.is_some() != self.config.timestamps;
        self.history.odd_options |= odd;
        self.history.broken_options |= breaks_off(&self.options(spec, &self.views[0]));
    }

    fn both(&mut self, mut act: impl FnMut(&mut dyn Side)) {
        act(&mut self.lab.kernel);
        act(&mut self.lab.ours);
    }

    /// The packet for one of the stacks.
    fn segment(&self, spec: &Spec, side: usize) -> Vec<u8> {
        let view = &self.views[side];
        let seq = spec.seq(view);
        let first = seq.wrapping_sub(view.irs);
        let payload =
            (0..spec.bytes(view)).map(|n| byte_at(first.wrapping_add(n), spec.variant)).collect();
        let segment = Segment {
            seq,
            ack: if spec.flags & ACK != 0 { view.snd_nxt.wrapping_add_signed(spec.ack) } else { 0 },
            flags: spec.flags,
            window: spec.window,
            urgent: spec.urgent,
            options: self.options(spec, view),
            payload,
            tos: spec.tos,
            corrupt: spec.corrupt,
        };
        segment.packet(self.peer(), self.us())
    }

    fn options(&self, spec: &Spec, view: &View) -> Vec<u8> {
        let mut options = spec.junk.clone();
        if let Some(stamp) = spec.ts {
            let val = self.clock.wrapping_add_signed(stamp.val);
            let ecr = view.ts.map_or(0, |(last, _)| last).wrapping_add_signed(stamp.ecr);
            if options.len() + 12 <= 40 {
                options.extend(timestamp(val, ecr));
            }
        }
        options
    }

    fn us(&self) -> SocketAddrV4 {
        SocketAddrV4::new(US, listener(self.lab.port))
    }

    fn peer(&self) -> SocketAddrV4 {
        SocketAddrV4::new(PEER, self.lab.port)
    }

    /// Compares what both have done by now; who is behind is given a while.
    fn compare(
        &mut self,
        number: usize,
        step: Option<&Step>,
        got: [Option<Got>; 2],
        mut patience: Duration,
    ) -> Result<(), Box<Difference>> {
        let begun = Instant::now();
        let [linux_got, ours_got] = got;
        let mut linux = Seen { got: linux_got, ..Seen::default() };
        let mut ours = Seen { got: ours_got, ..Seen::default() };
        loop {
            self.collect(&mut linux, 0);
            self.collect(&mut ours, 1);
            let behind = linux.answers.len() != ours.answers.len();
            // A compressed ACK is about to leave: before or after the next segment, who knows.
            let is_due = self.lab.ours.is_due_within(COMPRESSION);
            if is_due {
                patience = patience.max(TICKS);
            }
            if !(behind || is_due) || begun.elapsed() >= patience {
                break;
            }
            sleep(Duration::from_micros(200));
            let now = self.lab.now();
            self.lab.ours.pass(now);
        }
        self.say(|_| {
            if linux == ours {
                format!("       both {ours}")
            } else {
                format!("       Linux    {linux}\n       prequeue {ours}")
            }
        });
        // A cookie may agree on a scale that the SYN did not offer.
        let retreats = self.views[1].has_retreated && !self.config.cookies;
        if linux == ours && !retreats {
            return Ok(());
        }
        self.history.retreats = retreats;
        self.history.full |= self.lab.ours.is_full();
        self.history.opened = self.lab.ours.is_opened();
        Err(Box::new(Difference {
            number,
            step: step.cloned(),
            linux,
            ours,
            history: self.history,
        }))
    }

    /// What a stack has done since the last look.
    fn collect(&mut self, seen: &mut Seen, which: usize) {
        let port = self.lab.port;
        let side: &mut dyn Side =
            if which == 0 { &mut self.lab.kernel } else { &mut self.lab.ours };
        if !self.accepted && side.accept() {
            seen.accepted = true;
        }
        let view = &mut self.views[which];
        for packet in side.take_sent() {
            let Some(answer) = Answer::parse(&packet, port) else { continue };
            let first = answer.has(SYN) && !view.is_open;
            view.learn(&answer, self.config.scale.is_some());
            let mut reply = Reply::new(&answer, view, first);
            if let (true, Some((since, _))) = (self.config.cookies, &mut reply.ts) {
                // The first was rounded to tell what was agreed on.
                *since = Millis(0);
            }
            seen.answers.push(reply);
        }
        seen.unread = side.unread();
        view.unread = seen.unread.unwrap_or(0) as u32;
        if which == 1 && seen.accepted {
            self.accepted = true;
        }
    }

    fn say(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = what(self);
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// Ends what is left of the connection, that it may not disturb the next.
    fn finish(&mut self) {
        for side in [0, 1] {
            let view = &self.views[side];
            let kill = |seq: u32| Segment { seq, flags: RST, ..Segment::default() };
            for seq in [view.next(), view.acked] {
                let packet = kill(seq).packet(self.peer(), self.us());
                let now = self.lab.now();
                match side {
                    0 => self.lab.kernel.receive(&packet, now),
                    _ => self.lab.ours.receive(&packet, now),
                }
            }
        }
        self.both(|side| side.end());
        self.both(|side| drop(side.take_sent()));
    }
}

impl Reply {
    fn new(answer: &Answer, view: &View, is_first: bool) -> Self {
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

/// Where the scenario's listener listens whose peer has this port: another one each time, as sockets
/// that end slowly may still hold the last.
fn listener(peer: u16) -> u16 {
    2000 + peer % 4000
}

/// Whether a list of options breaks off where an MD5 signature might still come (18 bytes), or has one.
fn breaks_off(options: &[u8]) -> bool {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let mut options = &padded[..];
    while options.len() >= 18 {
        match options[0] {
            0 => return false,
            1 => options = &options[1..],
            // Signatures that nobody has agreed on.
            19 | 29 => return true,
            _ if options[1] < 2 || usize::from(options[1]) > options.len() => return true,
            _ => options = &options[usize::from(options[1])..],
        }
    }
    false
}

/// The usual form of the timestamps option.
fn timestamp(val: u32, ecr: u32) -> [u8; 12] {
    let mut option = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    option[4..8].copy_from_slice(&val.to_be_bytes());
    option[8..12].copy_from_slice(&ecr.to_be_bytes());
    option
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.accepted {
            write!(f, "accepted; ")?;
        }
        if let Some(got) = &self.got {
            write!(f, "got {got:?}; ")?;
        }
        if let Some(unread) = self.unread {
            write!(f, "{unread} unread; ")?;
        }
        for reply in &self.answers {
            write!(f, "{reply}; ")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
