//! One setting as text: its name, what may be written, what is wrong with what was written.
//!
//! Used by programs when they start, and to show what a running stack goes by. Every value is one or
//! more whole numbers in a unit; types of the fields are a matter of [`Value`]. Nothing here is read on
//! the packet path.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Settings, SynCookies};

/// Where Linux keeps a setting: below /proc/sys.
pub(super) const IPV4: Option<&str> = Some("net/ipv4");
pub(super) const CORE: Option<&str> = Some("net/core");
pub(super) const IPV4CONF: Option<&str> = Some("net/ipv4/conf/default");
pub(super) const IPV6: Option<&str> = Some("net/ipv6/conf/default");
pub(super) const ROUTE: Option<&str> = Some("net/ipv4/route");

/// Linux has no such setting, or not any more.
pub(super) const OURS: Option<&str> = None;

/// Names that differ from all others by more than this part of their length are near to none.
const NEAR: usize = 3;

/// What is known of a setting. The table is [`Settings::ALL`].
///
/// ```
/// use prequeue::tcp::{Setting, Settings};
///
/// let setting = Setting::named("tcp_fin_timeout").unwrap();
/// assert_eq!(setting.sysctl().as_deref(), Some("net.ipv4.tcp_fin_timeout"));
/// assert_eq!(setting.value(&Settings::default()), "60");
/// assert_eq!(setting.allowed(), "a number of seconds from 0 to 2147483");
/// println!("{} = {}: {}", setting.name(), setting.default_value(), setting.meaning());
/// ```
#[derive(Clone, Debug)]
pub struct Setting {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) range: RangeInclusive<i64>,
    pub(super) place: Option<&'static str>,
    pub(super) meaning: &'static str,
    /// Numbers that make a value.
    pub(super) count: usize,
    pub(super) read: fn(&Settings) -> Vec<i64>,
    pub(super) write: fn(&mut Settings, &[i64]),
}

/// The unit of a setting's numbers.
///
/// ```
/// use prequeue::tcp::{Setting, Unit};
///
/// assert_eq!(Setting::named("tcp_rmem").unwrap().unit(), Unit::Bytes);
/// assert_eq!(Unit::Milliseconds.to_string(), "milliseconds");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// How many there are.
    Count,
    /// One of a few ways, by its number: the meaning tells which.
    Choice,
    /// 0 for no, 1 for yes.
    Switch,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// Why a setting was not set.
///
/// Each says in a sentence what is wrong and what would be right.
///
/// ```
/// use prequeue::tcp::Settings;
///
/// let error = Settings::default().set("tcp_sack", "maybe").unwrap_err();
/// assert_eq!(error.to_string(), "tcp_sack takes 0 or 1; not \"maybe\"");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no setting of this name.
    Unknown {
        /// The name given.
        name: String,
        /// The name most like it, if any is.
        nearest: Option<&'static str>,
    },
    /// The value is none for this setting.
    Unfit {
        /// The setting.
        setting: &'static Setting,
        /// The value given.
        value: String,
    },
}

impl Setting {
    /// The setting of a name, which may have the path of the sysctl before it.
    ///
    /// # Errors
    /// [`SettingError::Unknown`].
    pub fn named(name: &str) -> Result<&'static Self, SettingError> {
        let wanted = name.trim().replace('/', ".");
        let is_it = |setting: &&Self| {
            setting.name == wanted || setting.sysctl().as_deref() == Some(&wanted)
        };
        Settings::ALL.iter().find(is_it).ok_or_else(|| SettingError::Unknown {
            name: name.trim().to_owned(),
            nearest: nearest(&wanted),
        })
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The name with the path that Linux has it under, if it has it.
    pub fn sysctl(&self) -> Option<String> {
        Some(self.file()?.replace('/', "."))
    }

    /// Its file below /proc/sys, if Linux has it.
    pub fn file(&self) -> Option<String> {
        Some(format!("{}/{}", self.place?, self.name))
    }

    /// The unit of its numbers.
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// What each of its numbers may be.
    pub const fn range(&self) -> &RangeInclusive<i64> {
        &self.range
    }

    /// What it means, in a sentence or two.
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim_start()
    }

    /// Its value in `settings`, as [`Self::set`] would take it.
    pub fn value(&self, settings: &Settings) -> String {
        let numbers = (self.read)(settings);
        numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Its default value.
    pub fn default_value(&self) -> String {
        self.value(&Settings::default())
    }

    /// What may be written, in words.
    pub fn allowed(&self) -> String {
        let (least, most) = (self.range.start(), self.range.end());
        match (self.unit, self.count) {
            (Unit::Switch, _) => "0 or 1".to_owned(),
            (Unit::Count | Unit::Choice, 1) => format!("a number from {least} to {most}"),
            (unit, 1) => format!("a number of {unit} from {least} to {most}"),
            (unit, n) => format!(
                "{n} numbers of {unit} from {least} to {most}, as in \"{}\"",
                self.default_value()
            ),
        }
    }

    /// Sets it in `settings`.
    ///
    /// # Errors
    /// [`SettingError::Unfit`]; nothing has changed then.
    pub fn set(&'static self, settings: &mut Settings, value: &str) -> Result<(), SettingError> {
        let numbers: Option<Vec<i64>> =
            value.split_whitespace().map(|word| word.parse().ok()).collect();
        match numbers {
            Some(numbers)
                if numbers.len() == self.count
                    && numbers.iter().all(|number| self.range.contains(number)) =>
            {
                (self.write)(settings, &numbers);
                Ok(())
            }
            _ => Err(SettingError::Unfit { setting: self, value: value.trim().to_owned() }),
        }
    }
}

/// The name that is most like `wanted`, if it is near.
fn nearest(wanted: &str) -> Option<&'static str> {
    let wanted = wanted.to_lowercase();
    // The prefix that most names share makes none of them alike.
    let own = |name: &str| name.trim_start_matches("tcp_").to_owned();
    let wanted = own(wanted.rsplit('.').next().unwrap_or_default());
    let distance = |setting: &Setting| strsim::damerau_levenshtein(&own(setting.name), &wanted);
    let best = Settings::ALL.iter().min_by_key(|&setting| distance(setting))?;
    let length = wanted.len().max(own(best.name).len());
    (distance(best) <= length.div_ceil(NEAR)).then_some(best.name)
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Count => "number",
            Self::Choice => "choice",
            Self::Switch => "switch",
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
        })
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "there is no setting {name:?}: did you mean {nearest}?")
            }
            Self::Unknown { name, nearest: None } => {
                write!(f, "there is no setting {name:?}, nor one of a name like it")
            }
            Self::Unfit { setting, value } => {
                write!(f, "{} takes {}; not {value:?}", setting.name, setting.allowed())
            }
        }
    }
}

impl std::error::Error for SettingError {}

/// A type that settings have: so many numbers, in some unit.
pub(super) trait Value: Sized {
    /// How many.
    const COUNT: usize;
    /// The numbers of a value.
    fn numbers(&self, unit: Unit) -> Vec<i64>;
    /// The value of numbers within the setting's range; `None` if they are not [`Self::COUNT`], or too
    /// large for the type.
    fn of(numbers: &[i64], unit: Unit) -> Option<Self>;
}

/// Numbers that fit into others.
macro_rules! number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const COUNT: usize = 1;

            fn numbers(&self, _unit: Unit) -> Vec<i64> {
                vec![i64::from(*self)]
            }

            fn of(numbers: &[i64], _unit: Unit) -> Option<Self> {
                let [number] = *numbers else { return None };
                Self::try_from(number).ok()
            }
        }
    )*};
}

number!(u8, u16, u32);

impl Value for bool {
    const COUNT: usize = 1;

    fn numbers(&self, _unit: Unit) -> Vec<i64> {
        vec![i64::from(*self)]
    }

    fn of(numbers: &[i64], _unit: Unit) -> Option<Self> {
        let [number] = *numbers else { return None };
        Some(number != 0)
    }
}

impl Value for SynCookies {
    const COUNT: usize = 1;

    fn numbers(&self, _unit: Unit) -> Vec<i64> {
        vec![self.sysctl().into()]
    }

    fn of(numbers: &[i64], _unit: Unit) -> Option<Self> {
        let [number] = *numbers else { return None };
        Self::from_sysctl(u8::try_from(number).ok()?)
    }
}

impl Value for [u32; 3] {
    const COUNT: usize = 3;

    fn numbers(&self, _unit: Unit) -> Vec<i64> {
        self.iter().map(|&number| number.into()).collect()
    }

    fn of(numbers: &[i64], _unit: Unit) -> Option<Self> {
        let numbers: Option<Vec<u32>> = numbers.iter().map(|&n| u32::try_from(n).ok()).collect();
        numbers?.try_into().ok()
    }
}

impl Value for Duration {
    const COUNT: usize = 1;

    fn numbers(&self, unit: Unit) -> Vec<i64> {
        let number = match unit {
            Unit::Milliseconds => self.as_millis(),
            _ => u128::from(self.as_secs()),
        };
        vec![i64::try_from(number).unwrap_or(i64::MAX)]
    }

    fn of(numbers: &[i64], unit: Unit) -> Option<Self> {
        let [number] = *numbers else { return None };
        let number = u64::try_from(number).ok()?;
        Some(match unit {
            Unit::Milliseconds => Self::from_millis(number),
            _ => Self::from_secs(number),
        })
    }
}
