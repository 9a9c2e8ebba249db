//! What a connection tells of itself to whoever asks: what was agreed on, and where it stands.
//!
//! Read by the application under a guard, and by tests. It changes nothing.

use std::time::Duration;

use crate::buf::PacketBuf;

use super::{State, Tcb};

/// A connection's parameters and estimates (Linux: TCP_INFO).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Info {
    /// The state.
    pub state: State,
    /// SACK was agreed on.
    pub sack: bool,
    /// Timestamps were agreed on.
    pub timestamps: bool,
    /// Shifts of our windows and of the peer's, if scaling was agreed on.
    pub scale: Option<(u8, u8)>,
    /// The peer's MSS in bytes, as it stood in the SYN.
    pub snd_mss: u16,
    /// The payload in bytes of a full segment of the peer, by our MSS.
    pub advmss: u16,
    /// The estimate of the payload in bytes that the peer's segments have.
    pub rcv_mss: u16,
    /// What the window may be opened to at present, in bytes.
    pub rcv_ssthresh: u32,
    /// Bytes that the peer may still send.
    pub rcv_wnd: u32,
    /// Truesize charged, in bytes.
    pub rmem: u32,
    /// Its limit.
    pub rcvbuf: u32,
    /// Bytes received in sequence, SYN and FIN not counted, modulo 2^32.
    pub bytes_received: u32,
    /// Interactive mode: ACKs are delayed in the hope of something to send with them.
    pub pingpong: bool,
    /// The adaptive delay of ACKs; zero before the first data.
    pub ato: Duration,
    /// The smoothed round-trip time, if one was measured.
    pub srtt: Option<Duration>,
    /// The retransmission timeout.
    pub rto: Duration,
}

impl<B: PacketBuf> Tcb<B> {
    /// What there is to tell.
    pub fn info(&self) -> Info {
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        Info {
            state: self.state,
            sack: self.sack_ok,
            timestamps: self.ts.is_some(),
            scale: self.scaled.then_some((self.window.shift(), self.snd_shift)),
            snd_mss: self.snd_mss,
            advmss: self.ack.advmss,
            rcv_mss: self.ack.rcv_mss,
            rcv_ssthresh: self.window.ssthresh,
            rcv_wnd: self.offered_window(),
            rmem: self.rmem(),
            rcvbuf: self.rcvbuf(),
            bytes_received: self.edge().since(self.irs.plus(1)),
            pingpong: self.ack.pingpong,
            ato: millis(self.ack.ato.into()),
            srtt: self.closing.srtt(),
            rto: millis(self.closing.rto_ms()),
        }
    }
}
