//! What the runner tells the adapter: the `key=value,…` string of packetdrill's `--so_flags`.
//!
//! Read once at the start. Unknown keys and values that are none keep the defaults.

use std::net::IpAddr;
use std::str::FromStr;

/// The flags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flags {
    /// `mtu`: that of the interface, in bytes.
    pub mtu: u16,
    /// `mss`: how large the segments are that an arriving packet was put together from, in bytes; 0
    /// if it is what it looks like. packetdrill's `--mss`.
    pub mss: u32,
    /// `local_ip`: our address, if not the first one that is seen.
    pub local_addr: Option<IpAddr>,
}

impl Default for Flags {
    fn default() -> Self {
        Self { mtu: 1500, mss: 0, local_addr: None }
    }
}

impl Flags {
    /// Reads the string.
    pub fn parse(text: &str) -> Self {
        let mut flags = Self::default();
        for (key, value) in text.split(',').filter_map(|pair| pair.split_once('=')) {
            match key.trim() {
                "mtu" => set(&mut flags.mtu, value),
                "mss" => set(&mut flags.mss, value),
                "local_ip" => flags.local_addr = value.trim().parse().ok(),
                _ => {}
            }
        }
        // The least that an IPv4 link carries (RFC 791).
        flags.mtu = flags.mtu.max(68);
        flags
    }
}

fn set<T: FromStr>(flag: &mut T, value: &str) {
    if let Ok(value) = value.trim().parse() {
        *flag = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_keeps_its_default() {
        assert_eq!(Flags::parse(""), Flags::default());
        assert_eq!(Flags::parse("mtu=big,colour=7,,mss"), Flags::default());
        for addr in ["10.0.0.1", "fd3d::1"] {
            let local_addr = Some(addr.parse().unwrap());
            let flags = Flags { mtu: 9000, mss: 1000, local_addr };
            assert_eq!(Flags::parse(&format!("mss=1000, mtu=9000,local_ip={addr}")), flags);
        }
        assert_eq!(Flags::parse("mtu=1").mtu, 68);
    }
}
