//! Settings from the command line and from a file, by the names of Linux's sysctls.
//!
//! Read once, before anything starts: the file first, then each `--set` in its order. What they may be
//! is the library's table to say, which is also what `--list-settings` prints; here is only the way from
//! TOML and arguments to it, and where something wrong was written.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use prequeue::tcp::{Setting, SettingError, Settings, Unit};
use toml::de::{DeTable, DeValue};

/// Arguments about settings; the same for all programs.
#[derive(Args, Clone, Debug, Default)]
pub struct Tuning {
    /// Read settings from a TOML file, by the names of the sysctls, as in: tcp_rmem = [4096, 131072, 6291456]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a setting as sysctl(8) would, as in: --set tcp_rmem="4096 131072 6291456"; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Print all settings with their defaults, ranges and meanings, and end
    #[arg(long)]
    pub list_settings: bool,
}

/// What is wrong with what was written, and where.
#[derive(Debug)]
pub enum TuningError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The file is no TOML.
    NoToml(PathBuf, toml::de::Error),
    /// A line of the file is wrong.
    Line(PathBuf, usize, SettingError),
    /// `--set` without a value.
    NoValue(String),
    /// `--set` is wrong.
    Argument(SettingError),
}

impl Tuning {
    /// The settings, with what was asked for.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn settings(&self) -> Result<Settings, TuningError> {
        let mut settings = Settings::default();
        if let Some(path) = &self.config {
            let text = fs::read_to_string(path)
                .map_err(|error| TuningError::Unreadable(path.clone(), error))?;
            from_toml(path, &text, &mut settings)?;
        }
        for text in &self.set {
            let Some((name, value)) = text.split_once('=') else {
                return Err(TuningError::NoValue(text.clone()));
            };
            settings.set(name, value).map_err(TuningError::Argument)?;
        }
        Ok(settings)
    }
}

/// Takes over what a file sets.
fn from_toml(path: &Path, text: &str, settings: &mut Settings) -> Result<(), TuningError> {
    let table =
        DeTable::parse(text).map_err(|error| TuningError::NoToml(path.to_owned(), error))?;
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    from_table(table.get_ref(), "", settings)
        .map_err(|(at, error)| TuningError::Line(path.to_owned(), line(at), error))
}

/// Takes over a table, whose names follow `path`: `[net.ipv4]` and `net.ipv4.tcp_sack` are the same.
fn from_table(
    table: &DeTable<'_>,
    path: &str,
    settings: &mut Settings,
) -> Result<(), (usize, SettingError)> {
    for (key, value) in table {
        let name = format!("{path}{}", key.get_ref());
        let at = key.span().start;
        match value.get_ref() {
            DeValue::Table(inner) => from_table(inner, &format!("{name}."), settings)?,
            value => {
                let setting = Setting::named(&name).map_err(|error| (at, error))?;
                let text = match value {
                    DeValue::Boolean(yes) if setting.unit() != Unit::Switch => yes.to_string(),
                    value => written(value),
                };
                setting.set(settings, &text).map_err(|error| (at, error))?;
            }
        }
    }
    Ok(())
}

/// A value as sysctl(8) would have it. What can be none is written as it stands, to be refused so.
fn written(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.as_str().to_owned(),
        },
        DeValue::Boolean(true) => "1".to_owned(),
        DeValue::Boolean(false) => "0".to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(values) => {
            values.iter().map(|value| written(value.get_ref())).collect::<Vec<_>>().join(" ")
        }
        DeValue::Table(_) => "a table".to_owned(),
    }
}

impl fmt::Display for TuningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NoToml(path, error) => {
                let error = error.to_string();
                write!(f, "{} is no TOML: {}", path.display(), error.trim_end())
            }
            Self::Line(path, line, error) => {
                write!(f, "{}, line {line}: {error}; {LIST}", path.display())
            }
            Self::NoValue(text) => {
                write!(f, "--set {text}: write NAME=VALUE, as in --set tcp_sack=0; {LIST}")
            }
            Self::Argument(error) => write!(f, "--set: {error}; {LIST}"),
        }
    }
}

impl std::error::Error for TuningError {}

const LIST: &str = "--list-settings shows them all";

/// All settings, for people: each with its default and what may be written, and what it means.
pub struct List;

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for setting in Settings::ALL {
            let (name, default) = (setting.name(), setting.default_value());
            writeln!(f, "{name} = {default}")?;
            let place = place(setting);
            writeln!(
                f,
                "    {}.{place} It takes {}.",
                setting.meaning().trim_end_matches('.'),
                setting.allowed()
            )?;
        }
        Ok(())
    }
}

/// Where Linux has it, if that is not where most are.
fn place(setting: &Setting) -> String {
    match setting.sysctl() {
        Some(name) if name == format!("net.ipv4.{}", setting.name()) => String::new(),
        Some(name) => format!(" In Linux {name}."),
        None => " Linux has none of this name today.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let parsed = from_toml(Path::new("pq.toml"), text, &mut settings);
        parsed.map(|()| settings).map_err(|error| error.to_string())
    }

    fn set(arguments: &[&str]) -> Result<Settings, String> {
        let set = arguments.iter().map(|&text| text.to_owned()).collect();
        let tuning = Tuning { set, ..Tuning::default() };
        tuning.settings().map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_may_write_values_in_several_ways() {
        let text = "
            tcp_rmem = [4096, 0x20000, 6_291_456]
            tcp_sack = false
            tcp_dsack = 0
            tcp_invalid_ratelimit = \"250\"
            net.core.somaxconn = 16

            [net.ipv4]
            tcp_fin_timeout = 7
        ";
        let expected = Settings {
            tcp_rmem: [4096, 131_072, 6_291_456],
            tcp_sack: false,
            tcp_dsack: false,
            tcp_invalid_ratelimit: Duration::from_millis(250),
            somaxconn: 16,
            tcp_fin_timeout: Duration::from_secs(7),
            ..Settings::default()
        };
        assert_eq!(file(text), Ok(expected));
        assert_eq!(file(""), Ok(Settings::default()));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_its_line() {
        for (text, sentence) in [
            (
                "tcp_sack = 1\ntcp_rmen = 1\n",
                "pq.toml, line 2: there is no setting \"tcp_rmen\": did you mean tcp_rmem?",
            ),
            ("\n\ntcp_rmem = [1, 2]", "line 3: tcp_rmem takes 3 numbers of bytes"),
            ("tcp_sack = \"on\"", "line 1: tcp_sack takes 0 or 1; not \"on\""),
            ("tcp_fin_timeout = 1.5", "not \"1.5\""),
            ("tcp_fin_timeout = true", "not \"true\""),
            ("tcp_fin_timeout = 99999999999999999999", "not \"99999999999999999999\""),
            ("tcp_fin_timeout = 2026-01-01", "not \"2026-01-01\""),
            (
                "[net.core]\ntcp_sack = 1",
                "line 2: there is no setting \"net.core.tcp_sack\": did you mean tcp_sack?",
            ),
            ("[tcp_sack]\non = 1", "there is no setting \"tcp_sack.on\""),
            ("tcp_rmem = [{ a = 1 }, 2, 3]", "not \"a table 2 3\""),
            ("tcp_sack = 1\ntcp_sack = 0", "is no TOML"),
            ("tcp_sack", "is no TOML"),
            ("\u{0}", "is no TOML"),
        ] {
            match file(text) {
                Err(error) => assert!(error.contains(sentence), "{text:?} gave {error}"),
                Ok(_) => panic!("{text:?} was taken"),
            }
        }
    }

    #[test]
    fn arguments_are_taken_in_their_order() {
        let settings = set(&["tcp_rmem=1 2 3", "net.ipv4.tcp_sack=0", "tcp_rmem=4\t5  6"]).unwrap();
        assert_eq!((settings.tcp_rmem, settings.tcp_sack), ([4, 5, 6], false));
    }

    #[test]
    fn what_is_wrong_in_an_argument_is_told() {
        for (argument, sentence) in [
            ("tcp_rmem", "--set tcp_rmem: write NAME=VALUE"),
            ("tcp_rmem=", "--set: tcp_rmem takes 3 numbers of bytes"),
            ("=1", "there is no setting \"\""),
            ("rmem=1 2 3", "did you mean tcp_rmem?; --list-settings shows them all"),
        ] {
            let error = set(&[argument]).unwrap_err();
            assert!(error.contains(sentence), "{argument:?} gave {error}");
        }
    }

    #[test]
    fn the_list_has_every_setting_with_its_default() {
        let list = List.to_string();
        for setting in Settings::ALL {
            let line = format!("{} = {}", setting.name(), setting.default_value());
            assert!(list.lines().any(|l| l == line), "{line}");
        }
        assert!(list.contains("In Linux net.core.somaxconn."));
    }

    #[test]
    fn no_text_has_a_file_fail_otherwise_than_by_a_sentence() {
        // Pieces that mean something, in all orders of four.
        let pieces = [
            "tcp_sack", "=", "1", "[", "]", "\"", "\n", ".", "net.ipv4", "{", "}", ",", "é", "'''",
        ];
        let n = pieces.len();
        for at in 0..n.pow(4) {
            let text: String = (0..4).map(|digit| pieces[at / n.pow(digit) % n]).collect();
            if let Err(sentence) = file(&text) {
                assert!(sentence.starts_with("pq.toml"), "{text:?} gave {sentence}");
            }
        }
    }
}
