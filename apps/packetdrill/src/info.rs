//! Structures that scripts look into: TCP_INFO, TCP_CC_INFO, SO_MEMINFO.
//!
//! Laid out as Linux has them, field by field. What a receiving stack does not know of itself stays
//! zero. Used under the clock's lock.

use std::time::Duration;

use prequeue::tcp::Settings;
use prequeue::tcp::tcb::{State, Tcb};

use crate::options::Options;
use crate::socket::{Connected, Role, Socket};

/// `SO_MEMINFO` of Linux.
pub const SO_MEMINFO: i32 = 55;

/// `TCP_CC_INFO` of Linux.
pub const TCP_CC_INFO: i32 = 26;

/// Bytes of `struct tcp_info` in Linux 6.18, of which readers insist on 280.
const TCP_INFO_LEN: usize = 280;

/// Words of SO_MEMINFO, and the place of those that are known.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_RMEM_ALLOC: usize = 0;
const MEMINFO_RCVBUF: usize = 1;

/// Bits of its options byte.
const TCPI_OPT_TIMESTAMPS: u8 = 1;
const TCPI_OPT_SACK: u8 = 2;
const TCPI_OPT_WSCALE: u8 = 4;

/// States as TCP_INFO numbers them.
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

/// `struct tcp_info`.
pub fn tcp(socket: &Socket) -> Vec<u8> {
    let mut info = Info(vec![0; TCP_INFO_LEN]);
    match &socket.role {
        Role::Fresh { .. } => info.byte(0, TCP_CLOSE),
        Role::Listener(_) => info.byte(0, TCP_LISTEN),
        Role::Connected(connected) => connection(&mut info, connected, &socket.options),
    }
    info.0
}

/// `union tcp_cc_info`, of which nothing is known.
pub fn congestion() -> Vec<u8> {
    vec![0; 20]
}

/// The words of SO_MEMINFO.
pub fn memory(socket: &Socket, settings: &Settings) -> Vec<u8> {
    let mut words = [0_u32; MEMINFO_WORDS];
    words[MEMINFO_RCVBUF] = socket.options.rcvbuf.unwrap_or(settings.tcp_rmem[1]);
    if let Role::Connected(connected) = &socket.role {
        connected.look(|tcb| {
            words[MEMINFO_RMEM_ALLOC] = tcb.rmem();
            words[MEMINFO_RCVBUF] = tcb.rcvbuf();
        });
    }
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn connection(info: &mut Info, connected: &Connected, options: &Options) {
    let tcb = connected.look(Tcb::info);
    let option = |condition, bit: u8| if condition { bit } else { 0 };
    let (rcv_shift, snd_shift) = tcb.scale.unwrap_or_default();
    info.byte(0, state_number(tcb.state));
    info.byte(
        5,
        option(tcb.timestamps, TCPI_OPT_TIMESTAMPS)
            | option(tcb.sack, TCPI_OPT_SACK)
            | option(tcb.scale.is_some(), TCPI_OPT_WSCALE),
    );
    info.byte(6, snd_shift | rcv_shift << 4);
    info.word(8, micros(tcb.rto));
    info.word(12, micros(tcb.ato));
    info.word(16, send_mss(connected, options) as u32);
    info.word(20, tcb.rcv_mss.into());
    info.word(64, tcb.rcv_ssthresh);
    info.word(68, tcb.srtt.map_or(0, micros));
    info.word(84, tcb.advmss.into());
    // The low half of a 64-bit number: no script sends as much as would fill it.
    info.word(128, tcb.bytes_received);
    info.word(232, tcb.rcv_wnd);
}

/// The payload that we would send in a segment: what the peer announced, or less if TCP_MAXSEG says
/// so, and less the room of timestamps.
pub fn send_mss(connected: &Connected, options: &Options) -> i32 {
    let tcb = connected.look(Tcb::info);
    let mss = options.maxseg.map_or(tcb.snd_mss, |maxseg| maxseg.min(tcb.snd_mss));
    let mss = mss.min(tcb.advmss + timestamps_room(tcb.timestamps));
    i32::from(mss - timestamps_room(tcb.timestamps))
}

const fn timestamps_room(timestamps: bool) -> u16 {
    if timestamps { 12 } else { 0 }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

fn state_number(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => TCP_CLOSE,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Closing => 11,
    }
}

/// The structure's bytes.
#[derive(Debug)]
struct Info(Vec<u8>);

impl Info {
    fn byte(&mut self, at: usize, value: u8) {
        self.0[at] = value;
    }

    fn word(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
}
