//! Structures that scripts look into: TCP_INFO, TCP_CC_INFO, SO_MEMINFO.
//!
//! Laid out as Linux has them, field by field. What a receiving stack does not know of itself stays
//! zero. Used under the clock's lock.

use prequeue::tcp::Settings;
use prequeue::tcp::tcb::{Tcb, TcpInfo};
use prequeue::time::Instant;

use crate::socket::{Connected, Role, Socket};

/// `SO_MEMINFO` of Linux.
pub const SO_MEMINFO: i32 = 55;

/// `TCP_CC_INFO` of Linux.
pub const TCP_CC_INFO: i32 = 26;

/// Words of SO_MEMINFO, and the place of those that are known.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_RMEM_ALLOC: usize = 0;
const MEMINFO_RCVBUF: usize = 1;
const MEMINFO_DROPS: usize = 8;

/// States as TCP_INFO numbers them.
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

/// `struct tcp_info`.
pub fn tcp(socket: &Socket, now: Instant) -> Vec<u8> {
    let info = match &socket.role {
        Role::Fresh { .. } => TcpInfo { tcpi_state: TCP_CLOSE, ..TcpInfo::default() },
        Role::Listener(_) => TcpInfo { tcpi_state: TCP_LISTEN, ..TcpInfo::default() },
        Role::Connected(connected) => {
            let tcpi_snd_mss = send_mss(connected, now) as u32;
            TcpInfo { tcpi_snd_mss, ..connected.look(|tcb| tcb.info(now)) }
        }
    };
    info.to_bytes().to_vec()
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
        let memory = connected.look(Tcb::mem_info);
        words[MEMINFO_RMEM_ALLOC] = memory.rmem_alloc;
        words[MEMINFO_RCVBUF] = memory.rcvbuf;
        words[MEMINFO_DROPS] = memory.drops;
    }
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The payload that we would send in a segment: what the peer announced, or less if TCP_MAXSEG of the
/// listener said so, and less the room of timestamps.
pub fn send_mss(connected: &Connected, now: Instant) -> i32 {
    let info = connected.look(|tcb| tcb.info(now));
    let room = if info.tcpi_options & TcpInfo::TIMESTAMPS != 0 { TIMESTAMPS_ROOM } else { 0 };
    let mss = connected.maxseg.map_or(info.tcpi_snd_mss, |maxseg| {
        info.tcpi_snd_mss.min(u32::from(maxseg).saturating_sub(room))
    });
    mss as i32
}

/// Bytes of the timestamps option with its padding.
const TIMESTAMPS_ROOM: u32 = 12;
