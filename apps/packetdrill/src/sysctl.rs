//! The stack's settings and counters as files, where scripts and their shell commands see them.
//!
//! Settings are read below `$SO_SYSCTL_ROOT` under the names that /proc/sys has, whenever a socket
//! is made, begins to listen, or a SYN arrives; counters are written to `$SO_COUNTERS`, one
//! `name value` a line with nstat's names. Called under the clock's lock. What a file does not hold, or cannot,
//! keeps its default.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use prequeue::tcp::{Counter, Counters, Settings, SynCookies};

/// Where both are found.
#[derive(Debug, Default)]
pub struct Sysctl {
    root: Option<PathBuf>,
    counters: Option<PathBuf>,
    /// The counts that were last written.
    written: Vec<u64>,
}

impl Sysctl {
    /// As the environment says.
    pub fn from_env() -> Self {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Self { root: path("SO_SYSCTL_ROOT"), counters: path("SO_COUNTERS"), written: Vec::new() }
    }

    /// The settings of this moment.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        // Every field is named, so that a new one is given a file, or none on purpose.
        let Settings {
            tcp_rmem,
            rmem_max,
            tcp_timestamps,
            tcp_window_scaling,
            tcp_sack,
            tcp_dsack,
            somaxconn,
            tcp_max_syn_backlog,
            tcp_syncookies,
            tcp_synack_retries,
            tcp_rto_max_ms,
            tcp_abort_on_overflow,
            tcp_fin_timeout,
            tcp_max_orphans,
            tcp_orphan_retries,
            tcp_retries2,
            tcp_max_tw_buckets,
            tcp_rfc1337,
            tcp_invalid_ratelimit,
            // Nobody reads through a ring under virtual time in a way that a script could see.
            tcp_low_latency: _,
            tcp_stdurg,
        } = &mut settings;
        self.read_triple("net/ipv4/tcp_rmem", tcp_rmem);
        self.read("net/core/rmem_max", rmem_max);
        self.read_flag("net/ipv4/tcp_timestamps", tcp_timestamps);
        self.read_flag("net/ipv4/tcp_window_scaling", tcp_window_scaling);
        self.read_flag("net/ipv4/tcp_sack", tcp_sack);
        self.read_flag("net/ipv4/tcp_dsack", tcp_dsack);
        self.read("net/core/somaxconn", somaxconn);
        self.read("net/ipv4/tcp_max_syn_backlog", tcp_max_syn_backlog);
        let mut cookies = tcp_syncookies.sysctl();
        self.read("net/ipv4/tcp_syncookies", &mut cookies);
        *tcp_syncookies = SynCookies::from_sysctl(cookies).unwrap_or(*tcp_syncookies);
        self.read("net/ipv4/tcp_synack_retries", tcp_synack_retries);
        self.read_flag("net/ipv4/tcp_abort_on_overflow", tcp_abort_on_overflow);
        self.read_span("net/ipv4/tcp_fin_timeout", Duration::from_secs, tcp_fin_timeout);
        self.read("net/ipv4/tcp_max_orphans", tcp_max_orphans);
        self.read("net/ipv4/tcp_orphan_retries", tcp_orphan_retries);
        self.read("net/ipv4/tcp_retries2", tcp_retries2);
        self.read("net/ipv4/tcp_max_tw_buckets", tcp_max_tw_buckets);
        self.read_flag("net/ipv4/tcp_rfc1337", tcp_rfc1337);
        let millis = Duration::from_millis;
        self.read_span("net/ipv4/tcp_invalid_ratelimit", millis, tcp_invalid_ratelimit);
        self.read_span("net/ipv4/tcp_rto_max_ms", millis, tcp_rto_max_ms);
        self.read_flag("net/ipv4/tcp_stdurg", tcp_stdurg);
        settings
    }

    /// Writes the counters if any has changed. A file that cannot be written shows in the script.
    pub fn publish(&mut self, counters: &Counters) {
        let Some(path) = &self.counters else { return };
        if self.written == counters.values() {
            return;
        }
        self.written = counters.values().to_vec();
        let line = |&counter: &Counter| {
            let name = counter.name();
            format!("{}{name} {}\n", prefix(counter), counters.value(counter))
        };
        let text: String = Counter::ALL.iter().map(line).collect();
        // Nothing can be told to anybody from here.
        let _ = fs::write(path, text);
    }

    fn words<T: FromStr>(&self, name: &str) -> Vec<T> {
        let read = |root: &PathBuf| fs::read_to_string(root.join(name)).ok();
        let text = self.root.as_ref().and_then(read).unwrap_or_default();
        text.split_whitespace().map_while(|word| word.parse().ok()).collect()
    }

    fn read<T: FromStr>(&self, name: &str, value: &mut T) {
        if let Some(word) = self.words(name).into_iter().next() {
            *value = word;
        }
    }

    fn read_flag(&self, name: &str, value: &mut bool) {
        let mut number = i64::from(*value);
        self.read(name, &mut number);
        *value = number != 0;
    }

    fn read_span(&self, name: &str, unit: impl Fn(u64) -> Duration, value: &mut Duration) {
        if let Some(number) = self.words(name).into_iter().next() {
            *value = unit(number);
        }
    }

    fn read_triple(&self, name: &str, value: &mut [u32; 3]) {
        if let Ok(triple) = self.words(name).try_into() {
            *value = triple;
        }
    }
}

/// What nstat puts before the name: the group of the counter.
fn prefix(counter: Counter) -> &'static str {
    match counter {
        Counter::InSegs
        | Counter::OutSegs
        | Counter::InErrs
        | Counter::InCsumErrors
        | Counter::OutRsts
        | Counter::RetransSegs
        | Counter::PassiveOpens
        | Counter::AttemptFails
        | Counter::EstabResets => "Tcp",
        Counter::InHdrErrors
        | Counter::InAddrErrors
        | Counter::InUnknownProtos
        | Counter::ReasmFails
        | Counter::OutNoRoutes
        | Counter::OutDiscards => "Ip",
        Counter::InEchos | Counter::OutEchoReps => "Icmp",
        _ => "TcpExt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with the test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let dir = format!("prequeue-packetdrill-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(dir);
            fs::create_dir_all(path.join("net/ipv4")).unwrap();
            Self(path)
        }

        fn sysctl(&self) -> Sysctl {
            let counters = Some(self.0.join("counters"));
            Sysctl { root: Some(self.0.clone()), counters, written: Vec::new() }
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_not_there_keeps_its_default() {
        assert_eq!(Sysctl::default().settings(), Settings::default());
        assert_eq!(Root::new("empty").sysctl().settings(), Settings::default());
    }

    #[test]
    fn files_are_read_anew_each_time() {
        let root = Root::new("anew");
        let sysctl = root.sysctl();
        for (rmem, sack) in [([1, 2, 3], true), ([4, 5, 6], false)] {
            let [a, b, c] = rmem;
            fs::write(root.0.join("net/ipv4/tcp_rmem"), format!("{a}\t{b} {c}\n")).unwrap();
            fs::write(root.0.join("net/ipv4/tcp_sack"), format!("{}\n", u8::from(sack))).unwrap();
            fs::write(root.0.join("net/ipv4/tcp_invalid_ratelimit"), "0\n").unwrap();
            fs::write(root.0.join("net/ipv4/tcp_syncookies"), "2\n").unwrap();
            fs::write(root.0.join("net/ipv4/tcp_rto_max_ms"), "2500\n").unwrap();
            fs::write(root.0.join("net/ipv4/tcp_retries2"), "many\n").unwrap();
            let expected = Settings {
                tcp_rmem: rmem,
                tcp_sack: sack,
                tcp_invalid_ratelimit: Duration::ZERO,
                tcp_syncookies: SynCookies::Always,
                tcp_rto_max_ms: Duration::from_millis(2500),
                ..Settings::default()
            };
            assert_eq!(sysctl.settings(), expected);
        }
    }

    #[test]
    fn counters_go_by_the_names_of_nstat() {
        let root = Root::new("counters");
        let mut sysctl = root.sysctl();
        let mut counters = Counters::default();
        counters.add(Counter::OutRsts, 3);
        counters.bump(Counter::BeyondWindow);
        sysctl.publish(&counters);
        let text = fs::read_to_string(root.0.join("counters")).unwrap();
        for line in ["TcpOutRsts 3", "TcpExtBeyondWindow 1", "TcpExtTCPRcvQDrop 0"] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
