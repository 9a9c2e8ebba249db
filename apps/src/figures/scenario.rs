//! The scenarios by name: the script that plays each, and what is stated of it.

use super::play::{one, three, two};
use super::row::Row;
use super::table::Stated;

/// One scenario, or a variant of it.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, as `2c`.
    pub name: &'static str,
    play: fn() -> Vec<Row>,
    stated: &'static str,
}

impl Scenario {
    /// The scenario of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Plays it: what was observed, step by step.
    pub fn play(&self) -> Vec<Row> {
        (self.play)()
    }

    /// What is stated of it.
    pub fn stated(&self) -> Stated {
        Stated::read(self.stated)
    }

    /// The name of its picture.
    pub fn file_name(&self) -> String {
        format!("scenario-{}.svg", self.name)
    }
}

macro_rules! scenarios {
    ($($name:literal = $play:path,)*) => {
        /// All scenarios in the order of their names.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: $name,
            play: $play,
            stated: include_str!(concat!("tables/", $name, ".txt")),
        },)*];
    };
}

scenarios! {
    "1" = one::base,
    "1a" = one::a,
    "1b" = one::b,
    "1c" = one::c,
    "1c-copying" = one::c_copying,
    "2" = two::base,
    "2a" = two::a,
    "2b" = two::b,
    "2c" = two::c,
    "2d" = two::d,
    "2e" = two::e,
    "2f" = two::f,
    "2g" = two::g,
    "2h" = two::h,
    "2i" = two::i,
    "2i-data" = two::i_behind_data,
    "2j" = two::j,
    "2k" = two::k,
    "2l" = two::l,
    "2m" = two::m,
    "2n" = two::n,
    "3" = three::base,
    "3a" = three::a,
    "3b" = three::b,
    "3c" = three::c,
    "3d" = three::d,
    "3e" = three::e,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::table::Table;

    #[test]
    fn every_row_is_as_stated() {
        for scenario in ALL {
            let observed = Table::observed(scenario.play().iter().map(Row::cells));
            let stated = scenario.stated().ours;
            for (at, (observed, stated)) in observed.rows.iter().zip(&stated.rows).enumerate() {
                assert_eq!(observed, stated, "row {at} of scenario {}", scenario.name);
            }
            assert_eq!(observed.rows.len(), stated.rows.len(), "rows of {}", scenario.name);
        }
    }

    #[test]
    fn every_difference_has_a_reason() {
        for scenario in ALL {
            let stated = scenario.stated();
            let name = scenario.name;
            assert!(!stated.title.is_empty() && !stated.about.is_empty(), "{name}");
            assert!(stated.why.iter().all(|reason| !reason.is_empty()), "{name}");
            assert!(!stated.why.is_empty() && !stated.kernel.rows.is_empty(), "{name}");
        }
    }

    /// What must come out the same whoever runs it, but where the text says why not.
    #[test]
    fn readers_get_what_the_kernel_gives_them() {
        let returns = |table: &Table| -> Vec<String> {
            let event = |row: &Vec<String>| row[0].split("recv ").nth(1).map(str::to_owned);
            let ends = |event: &String| event.starts_with("returns") || event.starts_with("fails");
            table.rows.iter().filter_map(event).filter(ends).collect()
        };
        for scenario in ALL {
            let Stated { kernel, ours, .. } = scenario.stated();
            match scenario.name {
                "1c" => assert_eq!(returns(&ours), ["returns 450", "returns 50"]),
                "2c" => assert_eq!(returns(&ours), ["returns 100", "returns 150"]),
                // For ever asleep on today's kernels.
                "3c" => assert_eq!((returns(&kernel).len(), returns(&ours).len()), (0, 1)),
                name => assert_eq!(returns(&ours), returns(&kernel), "scenario {name}"),
            }
        }
    }
}
