//! Socket options: what setsockopt(2) stores and getsockopt(2) answers, as bytes of the C ABI.
//!
//! A listener's options are those of the sockets accepted from it. Used under the clock's lock. What
//! depends on the connection is answered by the caller; unknown options are refused, not ignored.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use prequeue::lcore::{Bind, ListenOptions};
use prequeue::socket::SocketOptions;
use prequeue::tcp::tcb::{KeepAlive, Linger2};
use prequeue::tcp::{Settings, listen};
use rustix::io::Errno;

/// `{on or off, seconds}`.
pub const LINGER_LEN: usize = 8;

/// The kernel's `struct timeval` on 64-bit machines.
const TIMEVAL_LEN: usize = 16;

/// The least receive buffer that SO_RCVBUF gives, in bytes.
const LEAST_RCVBUF: u32 = 2304;

/// `TCP_WINDOW_CLAMP` and `TCP_FASTOPEN` of Linux by their numbers.
const TCP_WINDOW_CLAMP: i32 = libc::TCP_WINDOW_CLAMP;

/// `SO_PEEK_OFF` of Linux.
const SO_PEEK_OFF: i32 = libc::SO_PEEK_OFF;

/// Options that are stored and given back, without effect on receiving.
const INERT: &[(i32, i32)] = &[
    (SOL_SOCKET, libc::SO_REUSEADDR),
    (SOL_SOCKET, libc::SO_REUSEPORT),
    (SOL_SOCKET, libc::SO_SNDBUF),
    (SOL_SOCKET, libc::SO_SNDLOWAT),
    (SOL_SOCKET, libc::SO_SNDTIMEO),
    (SOL_SOCKET, libc::SO_PRIORITY),
    (SOL_SOCKET, libc::SO_MARK),
    (SOL_SOCKET, libc::SO_ZEROCOPY),
    (SOL_SOCKET, libc::SO_TIMESTAMP),
    (SOL_SOCKET, libc::SO_TIMESTAMPING),
    (SOL_SOCKET, libc::SO_MAX_PACING_RATE),
    (SOL_SOCKET, libc::SO_DONTROUTE),
    (SOL_SOCKET, libc::SO_BROADCAST),
    (IPPROTO_TCP, libc::TCP_NODELAY),
    (IPPROTO_TCP, libc::TCP_CORK),
    (IPPROTO_TCP, libc::TCP_FASTOPEN),
    (IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT),
    (IPPROTO_TCP, libc::TCP_FASTOPEN_NO_COOKIE),
    (IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
    (IPPROTO_TCP, libc::TCP_THIN_DUPACK),
    (IPPROTO_TCP, libc::TCP_TIMESTAMP),
    (IPPROTO_IP, libc::IP_FREEBIND),
    (IPPROTO_IP, libc::IP_TOS),
    (IPPROTO_IP, libc::IP_TTL),
    (IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (IPPROTO_IP, libc::IP_RECVERR),
    (IPPROTO_IPV6, libc::IPV6_FREEBIND),
    (IPPROTO_IPV6, libc::IPV6_TCLASS),
    (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    (IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    (IPPROTO_IPV6, libc::IPV6_RECVERR),
];

/// TCP_MAXSEG outside of these is refused.
const MAXSEG: std::ops::RangeInclusive<i32> = 88..=32_767;

/// TCP_SYNCNT beyond this is refused.
const MOST_SYNCNT: NonZeroU8 = NonZeroU8::new(127).unwrap();

/// TCP_LINGER2 beyond this is this.
const MOST_LINGER2: Duration = Duration::from_secs(120);

/// A socket's options.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// SO_RCVBUF as set, doubled; `None` while the system chooses.
    pub rcvbuf: Option<u32>,
    /// SO_RCVLOWAT in bytes.
    pub low_water: u32,
    /// SO_RCVTIMEO.
    pub timeout: Timeout,
    /// SO_LINGER: the seconds if it is on.
    pub linger: Option<i32>,
    /// SO_OOBINLINE.
    pub urgent_inline: bool,
    /// TCP_MAXSEG as set.
    pub maxseg: Option<u16>,
    /// TCP_INQ: tell with each message how much is left.
    pub inq: bool,
    /// TCP_DEFER_ACCEPT, in retransmissions.
    pub defer_accept: u8,
    /// TCP_SYNCNT.
    pub syncnt: Option<NonZeroU8>,
    /// TCP_LINGER2.
    pub linger2: Linger2,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
    /// TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT.
    pub keep: KeepAlive,
    /// TCP_USER_TIMEOUT in milliseconds; 0 if there is none.
    pub user_timeout: u32,
    /// TCP_WINDOW_CLAMP; 0 if there is none.
    pub window_clamp: u32,
    /// IPV6_V6ONLY.
    pub only_v6: bool,
    /// SO_PEEK_OFF; negative if it is off.
    pub peek_offset: i32,
    /// Options that are stored and given back, without effect on receiving.
    inert: Vec<(i32, i32, i32)>,
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timeout {
    /// For ever.
    Never,
    /// Not at all.
    Now,
    /// So long in all.
    After(Duration),
}

/// What remains to be done after an option was stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing.
    Stored,
    /// An option of the connection: it is to be told.
    Changed(Change),
}

/// Which option of a connection was set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// TCP_QUICKACK: leave or enter quick mode.
    QuickAck(bool),
    /// SO_RCVBUF, in bytes as asked for.
    Rcvbuf(u32),
    /// TCP_WINDOW_CLAMP.
    WindowClamp,
    /// SO_RCVLOWAT.
    LowWater,
    /// Any about silent peers.
    KeepAlive,
    /// TCP_USER_TIMEOUT.
    UserTimeout,
    /// TCP_LINGER2.
    Linger2,
    /// SO_PEEK_OFF.
    PeekOffset,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rcvbuf: None,
            low_water: 1,
            timeout: Timeout::Never,
            linger: None,
            urgent_inline: false,
            maxseg: None,
            inq: false,
            defer_accept: 0,
            syncnt: None,
            linger2: Linger2::Setting,
            keepalive: false,
            keep: KeepAlive::default(),
            user_timeout: 0,
            window_clamp: 0,
            only_v6: false,
            peek_offset: -1,
            inert: Vec::new(),
        }
    }
}

impl Options {
    /// setsockopt(2).
    ///
    /// # Errors
    /// EINVAL, EDOM, ENOPROTOOPT.
    pub fn set(
        &mut self,
        settings: &Settings,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<Effect, Errno> {
        match (level, name) {
            (SOL_SOCKET, libc::SO_RCVTIMEO) => self.timeout = timeout(value)?,
            (SOL_SOCKET, libc::SO_LINGER) => {
                let on = int(value)? != 0;
                let seconds = int(value.get(4..LINGER_LEN).ok_or(Errno::INVAL)?)?;
                self.linger = on.then_some(seconds);
            }
            (SOL_SOCKET, libc::SO_RCVBUF) => {
                let asked = u32::try_from(int(value)?).unwrap_or(settings.rmem_max);
                self.rcvbuf = Some((2 * asked.min(settings.rmem_max)).max(LEAST_RCVBUF));
                return Ok(Effect::Changed(Change::Rcvbuf(asked)));
            }
            (SOL_SOCKET, libc::SO_RCVLOWAT) => {
                let asked = match int(value)? {
                    0 => 1,
                    asked => u32::try_from(asked).unwrap_or(i32::MAX as u32),
                };
                let most = self.rcvbuf.unwrap_or(settings.tcp_rmem[2]) / 2;
                self.low_water = asked.min(most);
                return Ok(Effect::Changed(Change::LowWater));
            }
            (SOL_SOCKET, libc::SO_KEEPALIVE) => {
                self.keepalive = int(value)? != 0;
                return Ok(Effect::Changed(Change::KeepAlive));
            }
            (SOL_SOCKET, SO_PEEK_OFF) => {
                self.peek_offset = int(value)?;
                return Ok(Effect::Changed(Change::PeekOffset));
            }
            (SOL_SOCKET, libc::SO_OOBINLINE) => self.urgent_inline = int(value)? != 0,
            (IPPROTO_IPV6, libc::IPV6_V6ONLY) => self.only_v6 = int(value)? != 0,
            (IPPROTO_TCP, libc::TCP_MAXSEG) => match int(value)? {
                0 => self.maxseg = None,
                asked if MAXSEG.contains(&asked) => self.maxseg = Some(asked as u16),
                _ => return Err(Errno::INVAL),
            },
            (IPPROTO_TCP, libc::TCP_INQ) => match int(value)? {
                asked @ (0 | 1) => self.inq = asked == 1,
                _ => return Err(Errno::INVAL),
            },
            (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => {
                let seconds = u64::try_from(int(value)?).unwrap_or(0);
                self.defer_accept = listen::defer_accept(Duration::from_secs(seconds));
            }
            (IPPROTO_TCP, libc::TCP_SYNCNT) => {
                let asked = u8::try_from(int(value)?).ok().and_then(NonZeroU8::new);
                self.syncnt =
                    Some(asked.filter(|asked| *asked <= MOST_SYNCNT).ok_or(Errno::INVAL)?);
            }
            (IPPROTO_TCP, libc::TCP_LINGER2) => {
                self.linger2 = match int(value)? {
                    ..0 => Linger2::Reset,
                    0 => Linger2::Setting,
                    seconds => Linger2::For(Duration::from_secs(seconds as u64).min(MOST_LINGER2)),
                };
                return Ok(Effect::Changed(Change::Linger2));
            }
            (IPPROTO_TCP, libc::TCP_QUICKACK) => {
                return Ok(Effect::Changed(Change::QuickAck(int(value)? != 0)));
            }
            (IPPROTO_TCP, TCP_WINDOW_CLAMP) => {
                self.window_clamp = match int(value)? {
                    0 => 0,
                    asked => u32::try_from(asked).unwrap_or(0).max(LEAST_RCVBUF / 2),
                };
                return Ok(Effect::Changed(Change::WindowClamp));
            }
            (IPPROTO_TCP, libc::TCP_KEEPIDLE) => {
                return self.set_keep(|keep, n| keep.idle = Some(n), seconds(value)?);
            }
            (IPPROTO_TCP, libc::TCP_KEEPINTVL) => {
                return self.set_keep(|keep, n| keep.interval = Some(n), seconds(value)?);
            }
            (IPPROTO_TCP, libc::TCP_KEEPCNT) => match int(value)? {
                probes @ 1..=127 => {
                    self.keep.probes = Some(probes as u8);
                    return Ok(Effect::Changed(Change::KeepAlive));
                }
                _ => return Err(Errno::INVAL),
            },
            (IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => {
                self.user_timeout = u32::try_from(int(value)?).map_err(|_| Errno::INVAL)?;
                return Ok(Effect::Changed(Change::UserTimeout));
            }
            (IPPROTO_TCP, libc::TCP_CONGESTION | libc::TCP_FASTOPEN_KEY) => {}
            _ if INERT.contains(&(level, name)) => self.store(level, name, int(value)?),
            _ => return Err(Errno::NOPROTOOPT),
        }
        Ok(Effect::Stored)
    }

    /// getsockopt(2), for what does not depend on the connection.
    ///
    /// # Errors
    /// ENOPROTOOPT.
    pub fn get(&self, settings: &Settings, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        let number = match (level, name) {
            (SOL_SOCKET, libc::SO_RCVTIMEO) => return Ok(timeval(self.timeout)),
            (SOL_SOCKET, libc::SO_LINGER) => {
                let [on, seconds] = [self.linger.is_some().into(), self.linger.unwrap_or(0)];
                return Ok([i32::to_ne_bytes(on), seconds.to_ne_bytes()].concat());
            }
            (SOL_SOCKET, libc::SO_RCVBUF) => self.rcvbuf.unwrap_or(settings.tcp_rmem[1]) as i32,
            (SOL_SOCKET, libc::SO_RCVLOWAT) => self.low_water as i32,
            (SOL_SOCKET, libc::SO_OOBINLINE) => self.urgent_inline.into(),
            (IPPROTO_IPV6, libc::IPV6_V6ONLY) => self.only_v6.into(),
            (SOL_SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
            (SOL_SOCKET, libc::SO_PROTOCOL) => IPPROTO_TCP,
            (IPPROTO_TCP, libc::TCP_MAXSEG) => self.maxseg.unwrap_or(536).into(),
            (IPPROTO_TCP, libc::TCP_INQ) => self.inq.into(),
            (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => {
                listen::deferred(self.defer_accept).as_secs() as i32
            }
            (IPPROTO_TCP, libc::TCP_LINGER2) => match self.linger2 {
                Linger2::Reset => -1,
                Linger2::Setting => settings.tcp_fin_timeout.as_secs() as i32,
                Linger2::For(span) => span.as_secs() as i32,
            },
            (IPPROTO_TCP, libc::TCP_QUICKACK) => 1,
            (IPPROTO_TCP, TCP_WINDOW_CLAMP) => self.window_clamp as i32,
            (SOL_SOCKET, libc::SO_KEEPALIVE) => self.keepalive.into(),
            (SOL_SOCKET, SO_PEEK_OFF) => self.peek_offset,
            (IPPROTO_TCP, libc::TCP_KEEPIDLE) => {
                self.keep.idle.unwrap_or(settings.tcp_keepalive_time).as_secs() as i32
            }
            (IPPROTO_TCP, libc::TCP_KEEPINTVL) => {
                self.keep.interval.unwrap_or(settings.tcp_keepalive_intvl).as_secs() as i32
            }
            (IPPROTO_TCP, libc::TCP_KEEPCNT) => {
                self.keep.probes.unwrap_or(settings.tcp_keepalive_probes).into()
            }
            (IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => self.user_timeout as i32,
            _ => {
                let stored = |&&(l, n, _): &&(i32, i32, i32)| (l, n) == (level, name);
                let stored = self.inert.iter().find(stored).map(|&(_, _, value)| value);
                let known = INERT.contains(&(level, name)).then_some(0);
                stored.or(known).ok_or(Errno::NOPROTOOPT)?
            }
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    /// What a listener is told: whoever is accepted from it begins with this.
    pub fn of_listener(&self, local: IpAddr) -> ListenOptions {
        let sockets = SocketOptions {
            // As asked for: it is doubled again.
            receive_buffer: self.rcvbuf.map(|rcvbuf| rcvbuf / 2),
            receive_low_water: (self.low_water != 1).then_some(self.low_water),
            keepalive: self.keepalive.then_some(self.keep),
            window_clamp: (self.window_clamp != 0).then_some(self.window_clamp),
            user_timeout: (self.user_timeout != 0)
                .then_some(Duration::from_millis(self.user_timeout.into())),
            linger2: self.linger2,
            ..SocketOptions::default()
        };
        let bind = Bind::at(local, self.only_v6);
        ListenOptions { mss: self.maxseg, sockets, bind, ..ListenOptions::default() }
    }

    fn set_keep(
        &mut self,
        field: impl FnOnce(&mut KeepAlive, Duration),
        value: Duration,
    ) -> Result<Effect, Errno> {
        let mut keep = self.keep;
        field(&mut keep, value);
        if !keep.is_valid() {
            return Err(Errno::INVAL);
        }
        self.keep = keep;
        Ok(Effect::Changed(Change::KeepAlive))
    }

    fn store(&mut self, level: i32, name: i32, value: i32) {
        self.inert.retain(|&(l, n, _)| (l, n) != (level, name));
        self.inert.push((level, name, value));
    }
}

/// A whole number of seconds that is not negative.
fn seconds(value: &[u8]) -> Result<Duration, Errno> {
    let seconds = u64::try_from(int(value)?).map_err(|_| Errno::INVAL)?;
    Ok(Duration::from_secs(seconds))
}

fn int(value: &[u8]) -> Result<i32, Errno> {
    let bytes = value.first_chunk().ok_or(Errno::INVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

fn timeout(value: &[u8]) -> Result<Timeout, Errno> {
    let value: &[u8; TIMEVAL_LEN] = value.first_chunk().ok_or(Errno::INVAL)?;
    let half = |at| value[at..].first_chunk().map_or(0, |bytes| i64::from_ne_bytes(*bytes));
    let (seconds, micros) = (half(0), half(8));
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::DOM);
    }
    Ok(match (u64::try_from(seconds), micros as u64) {
        (Err(_), _) => Timeout::Now,
        (Ok(0), 0) => Timeout::Never,
        (Ok(seconds), micros) => {
            Timeout::After(Duration::from_secs(seconds) + Duration::from_micros(micros))
        }
    })
}

fn timeval(timeout: Timeout) -> Vec<u8> {
    let span = match timeout {
        Timeout::Never | Timeout::Now => Duration::ZERO,
        Timeout::After(span) => span,
    };
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    [seconds.to_ne_bytes(), i64::from(span.subsec_micros()).to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(options: &mut Options, level: i32, name: i32, value: i32) -> Result<Effect, Errno> {
        options.set(&Settings::default(), level, name, &value.to_ne_bytes())
    }

    fn get(options: &Options, level: i32, name: i32) -> i32 {
        int(&options.get(&Settings::default(), level, name).unwrap()).unwrap()
    }

    #[test]
    fn the_receive_buffer_is_doubled_and_bounded() {
        let mut options = Options::default();
        assert_eq!(get(&options, SOL_SOCKET, libc::SO_RCVBUF), 131_072);
        for (asked, given) in [(10_000, 20_000), (1, 2304), (i32::MAX, 8_388_608)] {
            set(&mut options, SOL_SOCKET, libc::SO_RCVBUF, asked).unwrap();
            assert_eq!(get(&options, SOL_SOCKET, libc::SO_RCVBUF), given);
        }
    }

    #[test]
    fn the_low_water_mark_is_at_least_one_and_at_most_half_a_buffer() {
        let mut options = Options::default();
        for (asked, given) in [(500, 500), (0, 1), (-1, 16_777_216)] {
            set(&mut options, SOL_SOCKET, libc::SO_RCVLOWAT, asked).unwrap();
            assert_eq!(get(&options, SOL_SOCKET, libc::SO_RCVLOWAT), given);
        }
    }

    #[test]
    fn timeouts_are_read_as_the_kernel_does() {
        let value = |seconds: i64, micros: i64| [seconds.to_ne_bytes(), micros.to_ne_bytes()];
        let read = |seconds, micros| timeout(value(seconds, micros).as_flattened());
        assert_eq!(read(0, 200_000), Ok(Timeout::After(Duration::from_millis(200))));
        assert_eq!(read(0, 0), Ok(Timeout::Never));
        assert_eq!(read(-1, 0), Ok(Timeout::Now));
        assert_eq!(read(0, 1_000_000), Err(Errno::DOM));
        assert_eq!(timeout(&[0; 8]), Err(Errno::INVAL));
        assert_eq!(timeval(read(3, 4).unwrap()), value(3, 4).as_flattened());
    }

    #[test]
    fn what_is_unknown_is_refused_and_what_has_no_effect_is_kept() {
        let mut options = Options::default();
        assert_eq!(set(&mut options, SOL_SOCKET, 9999, 1), Err(Errno::NOPROTOOPT));
        assert_eq!(
            set(&mut options, IPPROTO_TCP, libc::TCP_LINGER2, -1),
            Ok(Effect::Changed(Change::Linger2))
        );
        assert_eq!(get(&options, IPPROTO_TCP, libc::TCP_LINGER2), -1);
        assert_eq!(set(&mut options, IPPROTO_TCP, libc::TCP_SYNCNT, 0), Err(Errno::INVAL));
        assert_eq!(set(&mut options, IPPROTO_TCP, libc::TCP_SYNCNT, 128), Err(Errno::INVAL));
        assert_eq!(set(&mut options, IPPROTO_TCP, libc::TCP_MAXSEG, 40), Err(Errno::INVAL));
    }
}
