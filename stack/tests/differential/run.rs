//! Runs a scenario on both stacks in step, and compares what they do.
//!
//! Time is the machine's: the kernel has no other, and ours is told what it is. Where a timer of one
//! stack has fired and the other's is about to, both are given a little more.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::explained::{Explained, explanation};
use crate::history::History;
use crate::kernel::Kernel;
use crate::ours::Ours;
use crate::packet::{ACK, Answer, CWR, ECE, FIN, RST, SYN, Segment};
use crate::scenario::{Config, Got, Scenario, Spec, Step, byte_at};
use crate::seen::{Millis, Reply, Seen};
use crate::side::{Side, View, peer, us};

/// Ticks of 250 Hz, which add up over repeated timers, and what it takes to get a thread to run.
const TIMERS_DIFFER_BY: Duration = Duration::from_millis(40);

/// Duplicate ACKs are held back no longer.
const COMPRESSION: Duration = Duration::from_millis(1);

/// What the shortest timer of the kernel's may take.
const TICKS: Duration = Duration::from_millis(10);

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
        // Nobody can be asked once it is closed.
        self.history.opened = self.lab.ours.is_opened();
        self.history.half_full = self.lab.ours.is_half_full();
        let before = self.lab.now();
        self.lab.ours.pass(before);
        let mut patience = Duration::from_millis(2);
        let mut got = [None, None];
        match step {
            Step::Segment(spec) => {
                for view in &self.views {
                    self.history.note(self.config, spec, view);
                }
                let options = self.options(spec, &self.views[0]);
                self.history.note_header(self.config, spec, &options);
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
                if self.config.moderate {
                    // Or it would measure less than a tick.
                    self.views
                        .iter_mut()
                        .for_each(|view| view.echo = view.ts.map(|(last, _)| last));
                }
                sleep(Duration::from_millis(u64::from(*ms)));
                let now = self.lab.now();
                self.lab.ours.pass(now);
                patience = TIMERS_DIFFER_BY;
            }
        }
        self.compare(number, Some(step), got, patience)?;
        self.history.full |= self.lab.ours.is_full(self.history.copied);
        if let Step::Segment(spec) = step {
            self.history.ended |= spec.flags & FIN != 0;
        }
        Ok(())
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
            let last = view.ts.map_or(0, |(last, _)| last);
            let ecr = view.echo.unwrap_or(last).wrapping_add_signed(stamp.ecr);
            if options.len() + 12 <= 40 {
                options.extend(timestamp(val, ecr));
            }
        }
        options
    }

    fn us(&self) -> SocketAddr {
        SocketAddr::new(us(self.config.ipv6), listener(self.lab.port))
    }

    fn peer(&self) -> SocketAddr {
        SocketAddr::new(peer(self.config.ipv6), self.lab.port)
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
            if self.history.forgives_pri() || (self.history.urgent && ours.is_over()) {
                linux.forget_pri();
                ours.forget_pri();
            }
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
        if self.config.moderate {
            let first = Some(self.config.rmem[1].into());
            self.history.grows |= [ours.rcvbuf, linux.rcvbuf].iter().any(|&now| now > first);
            ours.liken(&linux, matches!(step, Some(Step::Recv(_))));
        }
        // A cookie may agree on a scale that the SYN did not offer.
        let retreats = self.views[1].has_retreated && !self.config.cookies;
        if linux == ours && !retreats {
            return Ok(());
        }
        self.history.retreats = retreats;
        self.history.full |= self.lab.ours.is_full(self.history.copied);
        self.history.opened |= self.lab.ours.is_opened();
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
        seen.ready = side.ready();
        if self.config.moderate {
            seen.rcvbuf = side.rcvbuf();
        }
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

/// Where the scenario's listener listens whose peer has this port: another one each time, as sockets
/// that end slowly may still hold the last.
fn listener(peer: u16) -> u16 {
    2000 + peer % 4000
}

/// The usual form of the timestamps option.
fn timestamp(val: u32, ecr: u32) -> [u8; 12] {
    let mut option = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    option[4..8].copy_from_slice(&val.to_be_bytes());
    option[8..12].copy_from_slice(&ecr.to_be_bytes());
    option
}
