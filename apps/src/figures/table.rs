//! Tables: what is stated of a scenario, and how tables are printed.
//!
//! Each scenario has a text in `tables/`: the kernel's table, which is stated and cannot be run; ours,
//! which a test compares with what is observed, row by row; and the reasons why the two differ.

use std::fmt;

use super::row::OUR_COLUMNS;

/// The columns of the kernel's tables: it has no taken list.
pub const KERNEL_COLUMNS: [&str; 11] = [
    "event",
    "receive",
    "out of order",
    "prequeue",
    "backlog",
    "rcv_nxt",
    "copied_seq",
    "owner",
    "reader",
    "cop",
    "sent",
];

/// What is stated of a scenario.
pub struct Stated {
    /// What it is about, in a line.
    pub title: &'static str,
    /// What happens, for somebody who has not seen it before.
    pub about: &'static str,
    /// Which Linux the kernel's table is of.
    pub linux: &'static str,
    /// The kernel's table.
    pub kernel: Table,
    /// Ours.
    pub ours: Table,
    /// Why they differ.
    pub why: Vec<&'static str>,
}

/// A table with its columns' names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    columns: &'static [&'static str],
    /// The rows, each as long as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of what was observed.
    pub fn observed(rows: impl IntoIterator<Item = [String; OUR_COLUMNS.len()]>) -> Self {
        Self { columns: &OUR_COLUMNS, rows: rows.into_iter().map(Vec::from).collect() }
    }

    fn stated(columns: &'static [&'static str], text: &str) -> Self {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let rows: Vec<Vec<String>> = text.trim().lines().map(cells).collect();
        for row in &rows {
            assert_eq!(row.len(), columns.len(), "a row has a cell per column: {row:?}");
        }
        Self { columns, rows }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |at: usize| {
            let rows = self.rows.iter().map(move |row| row[at].as_str());
            std::iter::once(self.columns[at]).chain(rows)
        };
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| cells(at).map(|cell| cell.chars().count()).max().unwrap_or_default())
            .collect();
        for line in 0..=self.rows.len() {
            let mut text = String::new();
            for (at, width) in widths.iter().enumerate() {
                let cell = cells(at).nth(line).unwrap_or_default();
                text += &format!("{cell:width$}  ");
            }
            writeln!(f, "{}", text.trim_end())?;
            if line == 0 {
                let rules: Vec<_> = widths.iter().map(|width| "─".repeat(*width)).collect();
                writeln!(f, "{}", rules.join("  "))?;
            }
        }
        Ok(())
    }
}

impl Stated {
    /// Reads the text of a scenario; the texts are part of the program.
    ///
    /// # Panics
    /// If the text is not as the others are.
    pub fn read(text: &'static str) -> Self {
        let line = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("no line begins with {name}"))
                .trim()
        };
        let section = |from: &str, to: &str| {
            let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from}"));
            if to.is_empty() { rest } else { rest.split_once(to).expect(to).0 }
        };
        Self {
            title: line("title:"),
            about: line("about:"),
            linux: line("linux:"),
            kernel: Table::stated(&KERNEL_COLUMNS, section("\nkernel:\n", "\nours:\n")),
            ours: Table::stated(&OUR_COLUMNS, section("\nours:\n", "\nwhy:\n")),
            why: section("\nwhy:\n", "")
                .lines()
                .map(|line| line.trim_start_matches("- "))
                .collect(),
        }
    }
}
