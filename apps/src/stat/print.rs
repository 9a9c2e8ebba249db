//! What `pq-stat` prints: counters as nstat does, connections as ss does, tables of the rest, or JSON.
//!
//! Pure text of what a program has answered; order and names are the program's.

use std::{fmt, time::Duration};

use prequeue::tcp::Counter;
use serde_json::{Map, Value, json};

/// Counters, with what has changed since an earlier look.
#[derive(Clone, Debug)]
pub struct Counters<'a> {
    /// The answer.
    pub now: &'a Value,
    /// An earlier one and how long ago it was: then increments and rates are printed.
    pub before: Option<(&'a Value, Duration)>,
    /// Print those that are zero, too.
    pub zeros: bool,
    /// Print only names that fit one of these, in which `*` is anything; all if there is none.
    pub patterns: &'a [String],
}

impl Counters<'_> {
    /// Names, values and rates per second that are printed.
    fn lines(&self) -> Vec<(&str, u64, f64)> {
        let Some(all) = self.now.as_object() else { return Vec::new() };
        let value = |answer: &Value, name: &str| answer.get(name).and_then(Value::as_u64);
        let line = |name: &str| {
            let now = value(self.now, name)?;
            Some(match self.before {
                // What is so now does not grow.
                Some(_) if is_gauge(name) => (now, 0.0),
                None => (now, 0.0),
                Some((before, span)) => {
                    let grown = now.saturating_sub(value(before, name).unwrap_or(0));
                    (grown, grown as f64 / span.as_secs_f64().max(1e-9))
                }
            })
        };
        let wanted = |name: &str| {
            self.patterns.is_empty() || self.patterns.iter().any(|pattern| fits(pattern, name))
        };
        all.keys()
            .filter(|name| wanted(name))
            .filter_map(|name| line(name).map(|(value, rate)| (name.as_str(), value, rate)))
            .filter(|(_, value, _)| self.zeros || *value != 0)
            .collect()
    }

    /// The same as a JSON object.
    pub fn to_json(&self) -> Value {
        let pairs =
            self.lines().into_iter().map(|(name, value, _)| (name.to_owned(), json!(value)));
        Value::Object(pairs.collect())
    }
}

impl fmt::Display for Counters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines()
            .iter()
            .try_for_each(|(name, value, rate)| writeln!(f, "{name:<32}{value:<16}{rate:.1}"))
    }
}

/// Whether it is the name of what is so now, instead of how often something has happened.
fn is_gauge(name: &str) -> bool {
    Counter::ALL.iter().any(|counter| counter.is_gauge() && counter.nstat_name() == name)
}

/// Whether a name fits a pattern in which `*` is anything and `?` any one character.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and what it was tried to stand for.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, tried)) => {
                    star = Some((at, tried + 1));
                    (p, n) = (at + 1, tried + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Connections, one a line, and who listens before them.
#[derive(Clone, Debug)]
pub struct Sockets<'a> {
    /// What the program says of itself.
    pub info: &'a Value,
    /// Its connections.
    pub rows: &'a [Value],
    /// How many more there were.
    pub omitted: u64,
    /// Print what TCP_INFO tells below each.
    pub details: bool,
}

/// What is in the line itself, or makes no sense below it.
const IN_LINE: [&str; 10] = [
    "state",
    "local",
    "peer",
    "lcore",
    "rmem",
    "backlog",
    "recv_q",
    "rcvbuf",
    "snd_wscale",
    "rcv_wscale",
];

impl fmt::Display for Sockets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { info, rows, omitted, details } = self;
        let widths = |name: &str| {
            let longest = rows.iter().map(|row| word(row, name).len()).max().unwrap_or(0);
            longest.max(24)
        };
        let local = widths("local");
        writeln!(
            f,
            "State          Recv-Q       Rmem     Rcvbuf  Backlog Lcore  {:<local$}  Peer",
            "Local"
        )?;
        for n in 0.. {
            let Some(listener) = info.get(format!("listener{n}")) else { break };
            writeln!(
                f,
                "{:<11}{:>10} {:>10} {:>10} {:>8} {:>5}  {:<local$}  *:*",
                "LISTEN",
                word(listener, "waiting"),
                "-",
                "-",
                word(listener, "backlog"),
                "-",
                format!("*:{}", word(listener, "port")),
            )?;
        }
        for row in *rows {
            writeln!(
                f,
                "{:<11}{:>10} {:>10} {:>10} {:>8} {:>5}  {:<local$}  {}",
                word(row, "state"),
                word(row, "recv_q"),
                word(row, "rmem"),
                word(row, "rcvbuf"),
                word(row, "backlog"),
                word(row, "lcore"),
                word(row, "local"),
                word(row, "peer"),
            )?;
            if *details && let Some(all) = row.as_object() {
                write_details(f, all)?;
            }
        }
        if *omitted > 0 {
            writeln!(f, "({omitted} more were not listed)")?;
        }
        Ok(())
    }
}

/// `options, wscale:peer's,ours, name:value …`, as ss has it.
fn write_details(f: &mut fmt::Formatter<'_>, all: &Map<String, Value>) -> fmt::Result {
    let below = all.iter().filter(|(name, _)| !IN_LINE.contains(&name.as_str()));
    let mut words: Vec<String> = below
        .filter(|(_, value)| !matches!(value, Value::String(text) if text.is_empty()))
        .map(|(name, value)| match value {
            Value::String(text) if name == "options" => text.clone(),
            value => format!("{name}:{}", plain(value)),
        })
        .collect();
    if let (Some(theirs), Some(ours)) = (all.get("snd_wscale"), all.get("rcv_wscale")) {
        words.push(format!("wscale:{},{}", plain(theirs), plain(ours)));
    }
    if words.is_empty() {
        return Ok(());
    }
    writeln!(f, "\t {}", words.join(" "))
}

/// Names and values, one a line; what is a table itself, a heading with its lines below.
#[derive(Clone, Debug)]
pub struct Table<'a>(pub &'a Value);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(all) = self.0.as_object() else { return Ok(()) };
        for (name, value) in all {
            match value {
                Value::Object(inner) => {
                    writeln!(f, "{name}")?;
                    for (name, value) in inner {
                        writeln!(f, "  {name:<24}{}", plain(value))?;
                    }
                }
                value => writeln!(f, "{name:<26}{}", plain(value))?,
            }
        }
        Ok(())
    }
}

fn word(row: &Value, name: &str) -> String {
    row.get(name).map_or_else(|| "-".to_owned(), plain)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(now: &Value, zeros: bool, patterns: &[&str]) -> String {
        let patterns: Vec<_> = patterns.iter().map(|&p| p.to_owned()).collect();
        Counters { now, before: None, zeros, patterns: &patterns }.to_string()
    }

    #[test]
    fn counters_are_printed_as_nstat_does() {
        let now = json!({"TcpInSegs": 12, "TcpOutRsts": 0, "TcpExtTCPHPHits": 3});
        let expected = "\
TcpInSegs                       12              0.0
TcpExtTCPHPHits                 3               0.0
";
        assert_eq!(counters(&now, false, &[]), expected);
        assert_eq!(counters(&now, true, &[]).lines().count(), 3);
        assert_eq!(counters(&now, true, &["*Rsts"]).lines().count(), 1);
        assert_eq!(counters(&now, true, &["TcpIn*", "*Hits"]).lines().count(), 2);
    }

    #[test]
    fn what_has_changed_is_printed_with_its_rate() {
        let before = json!({"TcpInSegs": 12, "TcpOutSegs": 5});
        let now = json!({"TcpInSegs": 112, "TcpOutSegs": 5, "TcpOutRsts": 1});
        let counters = Counters {
            now: &now,
            before: Some((&before, Duration::from_secs(2))),
            zeros: false,
            patterns: &[],
        };
        let lines: Vec<_> = counters.lines();
        assert_eq!(lines, [("TcpInSegs", 100, 50.0), ("TcpOutRsts", 1, 0.5)]);
        assert_eq!(counters.to_json(), json!({"TcpInSegs": 100, "TcpOutRsts": 1}));
    }

    #[test]
    fn of_a_gauge_what_is_so_now_is_printed() {
        let (before, now) = (json!({"TcpCurrEstab": 7}), json!({"TcpCurrEstab": 5}));
        let before = Some((&before, Duration::from_secs(1)));
        let counters = Counters { now: &now, before, zeros: false, patterns: &[] };
        assert_eq!(counters.lines(), [("TcpCurrEstab", 5, 0.0)]);
    }

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name, does) in [
            ("TcpInSegs", "TcpInSegs", true),
            ("TcpInSegs", "TcpInSeg", false),
            ("Tcp*", "TcpInSegs", true),
            ("*Segs", "TcpInSegs", true),
            ("*In*gs*", "TcpInSegs", true),
            ("*a*b", "aXbXb", true),
            ("Tcp??Segs", "TcpInSegs", true),
            ("", "x", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), does, "{pattern} {name}");
        }
    }

    #[test]
    fn connections_are_printed_one_a_line() {
        let info = json!({"listener0": {"port": 7000, "waiting": 1, "backlog": 128}});
        let rows = [
            json!({"state": "ESTAB", "local": "10.0.0.2:7000", "peer": "10.0.0.1:40000", "lcore": 1,
                "rmem": 4608, "backlog": 0, "recv_q": 2896, "rcvbuf": 131_072, "options": "ts sack",
                "snd_wscale": 7, "rcv_wscale": 10, "rcv_mss": 1448}),
            json!({"state": "-", "local": "10.0.0.2:7000", "peer": "10.0.0.1:40001", "lcore": 0,
                "rmem": 0, "backlog": 3}),
        ];
        let text = Sockets { info: &info, rows: &rows, omitted: 2, details: true }.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[1].starts_with("LISTEN") && lines[1].contains("*:7000"));
        let words: Vec<_> = lines[2].split_whitespace().collect();
        let expected =
            ["ESTAB", "2896", "4608", "131072", "0", "1", "10.0.0.2:7000", "10.0.0.1:40000"];
        assert_eq!(words, expected);
        assert_eq!(lines[3], "\t ts sack rcv_mss:1448 wscale:7,10");
        assert_eq!(lines[4].split_whitespace().nth(1), Some("-"), "not known");
        assert_eq!(lines[5], "(2 more were not listed)");
    }

    #[test]
    fn tables_within_tables_have_a_heading() {
        let text = Table(&json!({"mbufs": 5, "0": {"cpu": 1}})).to_string();
        assert_eq!(text, "mbufs                     5\n0\n  cpu                     1\n");
    }
}
