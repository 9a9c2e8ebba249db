//! Where mbufs come from: hugepages, without which times are not worth quoting.

use std::fs;

/// MiB of free hugepages that a run wants: pool, rings, and what EAL itself takes.
pub const WANTED_MIB: u64 = 64;

/// What packet memory is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Memory {
    /// Hugepages, as in production.
    Hugepages,
    /// Ordinary pages: every buffer costs TLB misses. Good for counting instructions and for tests.
    Ordinary,
}

impl Memory {
    /// Hugepages if this machine has enough of them free, unless `PREQUEUE_BENCH_NO_HUGE` is set
    /// (valgrind needs that).
    pub fn of_this_machine() -> Self {
        let forbidden = std::env::var_os("PREQUEUE_BENCH_NO_HUGE").is_some();
        let free = fs::read_to_string("/proc/meminfo").map_or(0, |text| free_mib(&text));
        if !forbidden && free >= WANTED_MIB { Self::Hugepages } else { Self::Ordinary }
    }
}

/// MiB of free hugepages by the text of `/proc/meminfo`.
fn free_mib(meminfo: &str) -> u64 {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let pages = value("HugePages_Free:").unwrap_or(0);
    pages * value("Hugepagesize:").unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_hugepages_are_read_from_meminfo() {
        let text = "MemTotal: 24 kB\nHugePages_Free:      40\nHugepagesize:       2048 kB\n";
        assert_eq!(free_mib(text), 80);
        assert_eq!(free_mib("MemTotal: 24 kB\n"), 0);
    }
}
