//! A look at the machine before the EAL starts, for the mistakes that the EAL reports poorly.
//!
//! Called once, by `main`. It reads `/sys`, `/proc` and `/dev` and changes nothing; what it lets
//! pass may still fail later, then with the library's error.

use std::{fs, io, path::Path};

/// Says what stands in the way of starting with these EAL arguments, and what to do about it.
///
/// # Errors
/// A sentence for people: hugepages that are wanted but absent, or a tap that may not be made.
pub fn check(eal: &[String]) -> Result<(), String> {
    if wants_hugepages(eal) && free_hugepages(Path::new("/sys/kernel/mm/hugepages")) == Some(0) {
        return Err("DPDK wants hugepages and none are free. Reserve some \
             (echo 128 > /proc/sys/vm/nr_hugepages, as root), \
             or do without, slower: put --no-huge -m 512 left of `--`"
            .into());
    }
    if wants_tap(eal) {
        check_tap()?;
    }
    Ok(())
}

fn wants_hugepages(eal: &[String]) -> bool {
    !eal.iter().any(|arg| arg == "--no-huge")
}

fn wants_tap(eal: &[String]) -> bool {
    eal.iter().any(|arg| arg.trim_start_matches("--vdev=").starts_with("net_tap"))
}

/// The free hugepages of all sizes; `None` if the kernel does not tell.
fn free_hugepages(sizes: &Path) -> Option<u64> {
    let mut free = 0;
    for size in fs::read_dir(sizes).ok()? {
        let count = fs::read_to_string(size.ok()?.path().join("free_hugepages")).ok()?;
        free += count.trim().parse::<u64>().ok()?;
    }
    Some(free)
}

fn check_tap() -> Result<(), String> {
    let opened = fs::File::options().read(true).write(true).open("/dev/net/tun");
    match opened.map_err(|error| error.kind()) {
        Ok(_) if !may_administer_network() => Err("net_tap needs CAP_NET_ADMIN to make its \
             interface. Run as root, or give it to the program: setcap cap_net_admin+ep PROGRAM"
            .into()),
        Ok(_) => Ok(()),
        Err(io::ErrorKind::NotFound) => Err("net_tap needs /dev/net/tun and it is not there. \
             Load the module (modprobe tun), or pass the device to the container \
             (--device /dev/net/tun)"
            .into()),
        Err(io::ErrorKind::PermissionDenied) => Err("net_tap may not open /dev/net/tun. \
             Run as root, or with CAP_NET_ADMIN and read and write permission on the device"
            .into()),
        Err(kind) => Err(format!("net_tap cannot open /dev/net/tun: {kind}")),
    }
}

/// Whether CAP_NET_ADMIN is among the effective capabilities. True if the kernel does not tell.
fn may_administer_network() -> bool {
    /// From linux/capability.h.
    const CAP_NET_ADMIN: u64 = 12;
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return true };
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_none_or(|mask| mask & (1 << CAP_NET_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eal(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn a_tap_is_known_in_both_spellings() {
        assert!(wants_tap(&eal("-l 1 --vdev net_tap0,iface=a")));
        assert!(wants_tap(&eal("--vdev=net_tap1")));
        assert!(!wants_tap(&eal("--vdev net_null0 --file-prefix net")));
    }

    #[test]
    fn no_huge_asks_for_no_hugepages() {
        assert!(wants_hugepages(&eal("--in-memory")));
        assert!(!wants_hugepages(&eal("--no-huge -m 64")));
    }

    #[test]
    fn hugepages_of_all_sizes_are_counted() {
        let dir = std::env::temp_dir().join(format!("pq-preflight-{}", std::process::id()));
        for (size, free) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "2\n")] {
            fs::create_dir_all(dir.join(size)).expect("a directory in the temporary one");
            fs::write(dir.join(size).join("free_hugepages"), free).expect("a file in it");
        }
        assert_eq!(free_hugepages(&dir), Some(5));
        fs::remove_dir_all(&dir).expect("what was made can be removed");
        assert_eq!(free_hugepages(&dir), None);
    }
}
