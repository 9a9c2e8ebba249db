//! Where the two stacks are allowed to differ, and why.

use crate::history::History;
use crate::packet::{ACK, CWR, ECE, FIN, RESERVED, RST, SYN};
use crate::run::Difference;
use crate::scenario::{Config, Got, Len, Spec, Step};
use crate::seen::{Relative, Reply, Seen};

/// A difference that is meant to be.
#[derive(Debug)]
pub struct Explained {
    pub name: &'static str,
    /// Why we do otherwise.
    pub reason: &'static str,
    pub matches: fn(&Config, &Difference) -> bool,
}

/// All of them.
pub static ALL: [Explained; 33] = [
    Explained {
        name: "data with an ACK field that is old",
        reason: "RFC 5961 §5 lets it reach back by the largest window that the peer ever advertised. \
                 Linux takes the same data or drops it, as its fast path is taken or not, which hangs \
                 on the memory that it has set aside for the socket; its slow path takes none that is \
                 older than what was ever acknowledged. We go by the RFC on all paths.",
        matches: |_, difference| difference.history.old_ack,
    },
    Explained {
        name: "the ACK field or urgent pointer of data beyond the window",
        reason: "Where there is no room for all of the payload Linux looks at nothing of the segment. Of \
                 the next one in order we take both (RFC 9293 §3.10.7.4, MUST-66).",
        matches: |_, difference| difference.history.news_beyond,
    },
    Explained {
        name: "an ACK that TCP_QUICKACK has left",
        reason: "With each segment of the slow path Linux decides anew about an ACK that waits, and the \
                 option may have changed its mind. We decide when something came that is owed one.",
        matches: |_, difference| difference.history.quick_ack && difference.is_about_an_ack(),
    },
    Explained {
        name: "data across the right edge behind a FIN",
        reason: "A FIN that nobody has read yet is an empty buffer in Linux's queue, and so there is \
                 something unread; to us there is not. Either way none of the data is taken.",
        matches: |_, difference| difference.history.cut_after_end,
    },
    Explained {
        name: "an ACK by a read that takes nothing",
        reason: "Linux looks for an ACK that waits at the end of every read, even if it was a peek or has \
                 failed. Our lcore hears of readers that have taken something.",
        matches: |_, difference| {
            let took = |got: &Got| matches!(got, Got::Bytes(bytes) if !bytes.is_empty());
            let takes_nothing = match &difference.step {
                Some(Step::Recv(read)) => {
                    read.peek || !difference.ours.got.as_ref().is_some_and(took)
                }
                _ => false,
            };
            takes_nothing && difference.is_about_an_ack()
        },
    },
    Explained {
        name: "a window after a FIN above a hole",
        reason: "Linux merges a bare FIN with the data before it, and takes it for a well-filled segment, \
                 for which the window opens by two.",
        matches: |_, difference| {
            difference.history.fin_above
                && (difference.but(|reply| reply.window = 0) || difference.is_about_an_ack())
        },
    },
    Explained {
        name: "a number beside that of a cookie",
        reason: "To Linux a sequence number that is off by one or two makes another MSS of the cookie. We \
                 find the cookie wrong.",
        matches: |config, difference| {
            let Difference { linux, ours, .. } = difference;
            let resets = |reply: &Reply| reply.flags & RST != 0;
            let is_taken = !linux.answers.iter().any(resets);
            let refused = !ours.answers.is_empty() && ours.answers.iter().all(resets);
            config.cookies && is_taken && refused
        },
    },
    Explained {
        name: "accurate ECN by a cookie",
        reason: "Linux 6.18 reads the flags of the ACK that brings a cookie back as those of accurate ECN, \
                 which nobody has offered.",
        matches: |config, difference| {
            let counts = |reply: &Reply| reply.flags & (CWR | RESERVED) != 0;
            config.cookies && difference.linux.answers.iter().any(counts)
        },
    },
    Explained {
        name: "the memory of a FIN",
        reason: "Linux charges the buffer of a bare FIN, which waits in its queue, and opens the window for \
                 one behind old data: but behind it nothing can be sent. We keep no buffer.",
        matches: |_, difference| {
            let is_fin = difference.segment().is_some_and(|spec| spec.flags & FIN != 0);
            (difference.history.ended || is_fin) && difference.but(|reply| reply.window = 0)
        },
    },
    Explained {
        name: "which copy of a byte is kept, after small segments above a hole",
        reason: "What was copied behind another segment is a part of it, and a later one that covers the small \
                 one alone does not replace it. Linux copies what fits, we what is small.",
        matches: |_, difference| {
            let Difference { linux, ours, history, .. } = difference;
            let mut alike = difference.clone();
            alike.ours.got.clone_from(&linux.got);
            let (Some(Got::Bytes(theirs)), Some(Got::Bytes(bytes))) = (&linux.got, &ours.got)
            else {
                return false;
            };
            let as_many = theirs.len() == bytes.len();
            as_many && history.copied && history.above && alike.but(|reply| reply.window = 0)
        },
    },
    Explained {
        name: "a FIN behind old data at a closed window",
        reason: "Linux drops it with the data, and takes only a bare one. It takes no more memory than that: \
                 we take it.",
        matches: |_, difference| {
            let is_fin = difference.segment().is_some_and(|spec| spec.flags & FIN != 0);
            let is_closed = |reply: &Reply| reply.flags & !ECE == ACK && reply.window == 0;
            let Difference { linux, ours, .. } = difference;
            let told = !linux.answers.is_empty() && linux.answers.iter().all(is_closed);
            is_fin && told && !linux.is_at_end() && ours.is_at_end()
        },
    },
    Explained {
        name: "our FIN at a closed window",
        reason: "Linux keeps its FIN back while the peer's window is closed, and probes it. We send it: \
                 it takes no memory of the peer, which may well take it as we would, and it asks for \
                 the ACK that a probe would ask for.",
        matches: |_, difference| {
            let sends_fin = |seen: &Seen| seen.answers.iter().any(|reply| reply.flags & FIN != 0);
            difference.history.shut && !sends_fin(&difference.linux) && sends_fin(&difference.ours)
        },
    },
    Explained {
        name: "windows, and ACKs that hang on them, after small segments",
        reason: "Linux copies what fits into the room behind what is queued; we do so only once the \
                 reader is behind, and never more than 256 bytes. So different sums are charged, and \
                 different windows are left; and whether the window has moved decides on ACKs.",
        matches: |_, difference| {
            difference.history.copied
                && (difference.but(|reply| reply.window = 0) || difference.is_about_an_ack())
        },
    },
    Explained {
        name: "ACKs and windows after options that were not agreed on",
        reason: "Linux's estimate of the peer's segment size takes options beyond the timestamps that \
                 were agreed on, and lacking ones, for payload. So it finds segments full or not that \
                 are not to us, and rounds windows to other sizes. We look at the payload.",
        matches: |_, difference| {
            difference.history.odd_options
                && (difference.but(|reply| reply.window = 0) || difference.is_about_an_ack())
        },
    },
    Explained {
        name: "options broken before a signature could follow, or a signature",
        reason: "Where there is room for an MD5 signature Linux looks for one, and drops the segment if \
                 it meets a broken option; or one that nobody has agreed on. We know no such option, and \
                 keep the segment (RFC 9293 §3.1, MUST-6 and -7).",
        matches: |_, difference| difference.history.broken_options,
    },
    Explained {
        name: "memory won back by copying",
        reason: "When the buffer is full Linux copies what is queued together, and has room again; what is \
                 one buffer then is not replaced by a segment that covers a part of it. We prune what is \
                 above holes, and then drop.",
        matches: |_, difference| difference.history.full,
    },
    Explained {
        name: "the step in which a buffer grows",
        reason: "Linux looks at the reader's progress with each buffer that it copies, we after each call and \
                 when a segment comes: a round trip is over at another byte, and what was read in it is \
                 another sum, of which the buffer and the window follow.",
        matches: |config, difference| {
            let mut all_but = difference.clone();
            all_but.linux.rcvbuf = all_but.ours.rcvbuf;
            config.moderate
                && difference.history.grows
                && (all_but.but(|reply| reply.window = 0) || all_but.is_about_an_ack())
        },
    },
    Explained {
        name: "a second FIN",
        reason: "Linux takes data and another FIN of a segment that begins where the FIN stood. A stream \
                 has one end: we take neither.",
        matches: |_, difference| {
            let another = |spec: &Spec| spec.flags & FIN != 0 && !matches!(spec.len, Len::Bytes(0));
            difference.history.ended && difference.segment().is_some_and(another)
        },
    },
    Explained {
        name: "data behind a FIN above a hole",
        reason: "Linux merges both, and finds the FIN at the end of what it has merged. To us the stream \
                 ends where the FIN stood, or goes on if other data came to stand there first.",
        matches: |_, difference| difference.history.behind_fin,
    },
    Explained {
        name: "an urgent mark behind the FIN",
        reason: "Linux takes it. RFC 9293 §3.10.7.4 lets us ignore it, for nothing can follow.",
        matches: |_, difference| {
            let Difference { step, history, .. } = difference;
            // What is unread behind it decides between FIN and RST.
            let closes = matches!(step, Some(Step::Close { .. }));
            history.ended && history.urgent && (closes || difference.is_alike())
        },
    },
    Explained {
        name: "a window update before a RST",
        reason: "When what was half read comes back before the close is heard of, the window that has \
                 opened by it is told once more.",
        matches: |_, difference| {
            let Difference { step, linux, ours, .. } = difference;
            let [update, rest @ ..] = &ours.answers[..] else { return false };
            let [mut linux, mut rest] = [linux.answers.clone(), rest.to_vec()];
            for reply in linux.iter_mut().chain(&mut rest) {
                // What the update reports is reported.
                reply.sack.clear();
                reply.window = if difference.any_window() { 0 } else { reply.window };
            }
            matches!(step, Some(Step::Close { .. })) && update.flags & !ECE == ACK && rest == linux
        },
    },
    Explained {
        name: "the last hundredth of the window",
        reason: "Once a window has opened to within a segment, or less than a hundredth, of what it can be, \
                 we do not look with every segment of one size whether it can be opened further, for \
                 which Linux grants a quick ACK.",
        matches: |_, difference| {
            let pairs = difference.linux.answers.iter().zip(&difference.ours.answers);
            let is_less = |(linux, ours): (&Reply, &Reply)| {
                linux.window >= ours.window && linux.window - ours.window <= ours.window / 16
            };
            let window = pairs.into_iter().all(is_less) && difference.but(|reply| reply.window = 0);
            difference.history.opened && (window || difference.is_about_an_ack())
        },
    },
    Explained {
        name: "an urgent byte above a hole",
        reason: "Linux takes it from a segment that comes after the mark was announced, in sequence or not, \
                 even out of the header of one that begins just behind it, and keeps it even if another \
                 byte comes to stand there. To us it is a byte of the stream, and comes in sequence.",
        matches: |_, difference| {
            let Difference { step, history, .. } = difference;
            let reads_it = matches!(step, Some(Step::Recv(read)) if read.oob);
            history.urgent && history.above && reads_it && difference.is_alike()
        },
    },
    Explained {
        name: "the byte at an urgent mark that was replaced",
        reason: "Linux takes it out of the stream when the new mark is announced and a reader stands at \
                 the old one; we do when a reader comes back to it, even if it was not there yet. Until \
                 then FIONREAD counts it, and its buffer is charged.",
        matches: |_, difference| {
            let Difference { linux, ours, history, .. } = difference;
            let bytes = |seen: &Seen| match &seen.got {
                Some(Got::Bytes(bytes)) => bytes.len() as u64,
                _ => 0,
            };
            let rest = |seen: &Seen| bytes(seen) + seen.unread.unwrap_or(0);
            let is_read = bytes(ours) > 0 && rest(linux) == rest(ours) + 1;
            let is_left = ours.unread == linux.unread.map(|unread| unread + 1);
            let mut alike = difference.clone();
            alike.ours.unread = linux.unread;
            alike.ours.got.clone_from(&linux.got);
            history.urgent
                && (is_read || is_left)
                && (alike.has_like_answers(true) || alike.is_about_an_ack())
        },
    },
    Explained {
        name: "a duplicate while the buffer is half full",
        reason: "Linux has quick ACKs send its ACK, of which none is left if it has just found less than \
                 half of the buffer free; then it waits. We answer every duplicate at once \
                 (RFC 9293 §3.10.7.4, MUST-58).",
        matches: |_, difference| {
            let Difference { linux, ours, history, .. } = difference;
            let is_ack = |seen: &Seen| seen.answers.iter().all(|reply| reply.flags & !ECE == ACK);
            let has_data =
                difference.segment().is_some_and(|spec| !matches!(spec.len, Len::Bytes(0)));
            history.half_full && has_data && linux.answers.is_empty() && is_ack(ours)
        },
    },
    Explained {
        name: "a RST out of window after close",
        reason: "Linux's record of an orphan in FIN-WAIT-2 answers it like any segment out of window. We \
                 drop it (RFC 9293 §3.10.7.4, first step).",
        matches: |_, difference| {
            let is_rst = difference.segment().is_some_and(|spec| spec.flags & RST != 0);
            let Difference { linux, ours, .. } = difference;
            // Ours is behind the initial number and the FIN.
            let of_the_record = |reply: &Reply| reply.flags == ACK && reply.seq == Relative::To(2);
            is_rst && ours.answers.is_empty() && linux.answers.iter().all(of_the_record)
        },
    },
    Explained {
        name: "a handshake completed by SYN and ACK",
        reason: "Linux has made the socket by then, and leaves it in SYN-RECEIVED for the SYN: there a wrong \
                 ACK field is answered by RST. Ours is open, and challenges.",
        matches: |_, difference| {
            let resets = |seen: &Seen| seen.answers.iter().any(|reply| reply.flags & RST != 0);
            difference.history.syn_ack && resets(&difference.linux) && !resets(&difference.ours)
        },
    },
    Explained {
        name: "the timestamp of a RST that is ignored in TIME-WAIT",
        reason: "With tcp_rfc1337 Linux does nothing of what it asks for, but echoes its timestamp. We leave \
                 TS.Recent as it is (RFC 7323 §5.2).",
        matches: |config, difference| {
            config.rfc1337
                && difference.history.ended
                && difference.but(|reply| reply.ts = reply.ts.map(|(val, _)| (val, 0)))
        },
    },
    Explained {
        name: "a SYN to an orphan whose FIN was acknowledged by one",
        reason: "Linux keeps that socket, which challenges, for the peer's FIN, even if it was old. We have a \
                 record as of any orphan, which resets.",
        matches: |_, difference| {
            let is_syn = difference.segment().is_some_and(|spec| spec.flags & SYN != 0);
            let resets = |seen: &Seen| seen.answers.iter().any(|reply| reply.flags & RST != 0);
            difference.history.ended && is_syn && resets(&difference.ours)
        },
    },
    Explained {
        name: "a SYN with FIN in TIME-WAIT",
        reason: "Linux ends TIME-WAIT for it as for a SYN that opens the next connection, and then drops \
                 it. To us it is none.",
        matches: |_, difference| difference.history.syn_fin && difference.history.ended,
    },
    Explained {
        name: "the type of service of a reply",
        reason: "Linux copies it from the segment to each RST and to ACKs for half-open connections. We \
                 copy it where there is no connection; what is told of a segment beyond has none.",
        matches: |_, difference| difference.but(|reply| reply.tos = 0),
    },
    Explained {
        name: "the report of a duplicate whose ACK was put off",
        reason: "Linux forgets it with the next segment of its slow path; its fast path, which is taken or \
                 not as memory is set aside for the socket, leaves it. With us newer data always ends it \
                 (RFC 2883 §4).",
        matches: |_, difference| {
            let Difference { linux, ours, .. } = difference;
            let reports =
                |reply: &Reply| reply.sack.first().is_some_and(|&(_, end)| end <= reply.ack);
            !ours.answers.iter().any(reports)
                && difference.but(|reply| {
                    if reports(reply) {
                        reply.sack.remove(0);
                    }
                    if difference.any_window() {
                        reply.window = 0;
                    }
                })
                && linux.answers.iter().any(reports)
        },
    },
    Explained {
        name: "SACK of what a FIN has ended",
        reason: "When the peer's FIN comes and our own is out, Linux sends its ACK before it clears its \
                 list, and reports blocks below the FIN, or behind it, and a window without their \
                 memory. We report none.",
        matches: |_, difference| {
            // Ours is behind the initial number.
            let has_ended = |reply: &Reply| reply.seq == Relative::To(2);
            difference.linux.answers.iter().all(has_ended)
                && difference.ours.answers.iter().all(|reply| reply.sack.is_empty())
                && difference.but(|reply| {
                    reply.sack.clear();
                    reply.window = 0;
                })
        },
    },
];

/// The first that matches.
pub fn explanation(config: &Config, difference: &Difference) -> Option<&'static Explained> {
    let mut all = ALL.iter().filter(|_| !difference.history.retreats);
    all.find(|one| (one.matches)(config, difference))
}

impl Difference {
    /// Whether nothing is left of it but for what is wiped out of the answers.
    fn but(&self, wipe: impl Fn(&mut Reply)) -> bool {
        let mut both = [self.linux.clone(), self.ours.clone()];
        both.iter_mut().flat_map(|seen| &mut seen.answers).for_each(wipe);
        both[0] == both[1]
    }

    /// Whether the answers are the same, windows left aside if they hang on what was before.
    fn is_alike(&self) -> bool {
        self.has_like_answers(self.any_window())
    }

    /// Whether windows may differ for reasons that lie further back.
    fn any_window(&self) -> bool {
        let History { copied, odd_options, ended, .. } = self.history;
        copied || odd_options || ended
    }

    /// Whether the answers are the same, windows left aside or not.
    fn has_like_answers(&self, any_window: bool) -> bool {
        let [mut linux, mut ours] = [self.linux.answers.clone(), self.ours.answers.clone()];
        if any_window {
            linux.iter_mut().chain(&mut ours).for_each(|reply| reply.window = 0);
        }
        linux == ours
    }

    /// Whether one of them sends an ACK that the other does not, now or after a delay, and nothing else.
    fn is_about_an_ack(&self) -> bool {
        let mut both = [self.linux.clone(), self.ours.clone()];
        both.iter_mut().for_each(|seen| seen.answers.retain(|reply| reply.flags & !ECE != ACK));
        both[0] == both[1]
    }

    /// The segment that was answered differently.
    fn segment(&self) -> Option<&Spec> {
        match &self.step {
            Some(Step::Segment(spec)) => Some(spec),
            _ => None,
        }
    }
}
