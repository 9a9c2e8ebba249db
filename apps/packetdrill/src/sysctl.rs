//! The stack's settings and counters as files, where scripts and their shell commands see them.
//!
//! Settings are read below `$SO_SYSCTL_ROOT` under the names that /proc/sys has, whenever a socket
//! is made, begins to listen, or a SYN arrives; counters are written to `$SO_COUNTERS`, one
//! `name value` a line with nstat's names. Called under the clock's lock. What a file does not hold, or cannot,
//! keeps its default.

use std::fs;
use std::path::PathBuf;

use prequeue::tcp::{Counter, Counters, Settings};

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

    /// The settings of this moment. Numbers that Linux takes and the stack does not are brought into
    /// the setting's range.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        for setting in Settings::ALL {
            // Nobody reads through a ring under virtual time in a way that a script could see; and other
            // settings that Linux does not have cannot be in its files either.
            let Some(text) = setting.file().and_then(|file| self.text(&file)) else { continue };
            let range = setting.range();
            let numbers = text.split_whitespace().map_while(|word| word.parse::<i64>().ok());
            let numbers = numbers.map(|n| n.clamp(*range.start(), *range.end()).to_string());
            // What is none of its values leaves the default.
            let _ = setting.set(&mut settings, &numbers.collect::<Vec<_>>().join(" "));
        }
        settings
    }

    /// `tcp_syn_retries`: a number that the stack has no use for, but the default of TCP_SYNCNT.
    pub fn syn_retries(&self) -> u8 {
        let text = self.text("net/ipv4/tcp_syn_retries");
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(6)
    }

    /// Writes the counters if any has changed. A file that cannot be written shows in the script.
    pub fn publish(&mut self, counters: &Counters) {
        let Some(path) = &self.counters else { return };
        if self.written == counters.values() {
            return;
        }
        self.written = counters.values().to_vec();
        let line =
            |&counter: &Counter| format!("{} {}\n", counter.nstat_name(), counters.value(counter));
        let text: String = Counter::ALL.iter().map(line).collect();
        // Nothing can be told to anybody from here.
        let _ = fs::write(path, text);
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.as_ref()?.join(name)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prequeue::tcp::SynCookies;

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
