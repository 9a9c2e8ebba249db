//! The paper as its readers see it: tables of rows, counts by section, and what is out of scope.

use std::collections::BTreeMap;

/// The head of every table of requirements.
pub const HEAD: &str = "| Label | Requirement | Where | Shown by | State |";

/// The head of the table of counts.
const COUNTS: &str = "| | obeyed | deviates | not applicable | not yet |";

/// The section of labels that concern only senders.
const OUT_OF_SCOPE: &str = "Out of scope";

/// Whether a requirement is met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Obeyed,
    Deviates,
    NotApplicable,
    NotYet,
}

impl State {
    const NAMES: [(&str, Self); 4] = [
        ("obeyed", Self::Obeyed),
        ("deviates", Self::Deviates),
        ("not applicable", Self::NotApplicable),
        ("not yet", Self::NotYet),
    ];

    /// The state at the front of a cell, and the reason behind it.
    fn read(cell: &str) -> Option<(Self, &str)> {
        let (name, reason) = cell.split_once(':').unwrap_or((cell, ""));
        let (_, state) = Self::NAMES.into_iter().find(|(known, _)| *known == name.trim())?;
        Some((state, reason.trim()))
    }
}

/// A file, and what in it is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub file: String,
    pub items: Vec<String>,
}

/// One requirement.
#[derive(Clone, Debug)]
pub struct Row {
    pub section: String,
    pub label: String,
    pub requirement: String,
    pub places: Vec<Place>,
    pub tests: Vec<String>,
    pub state: State,
    pub reason: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Paper {
    pub rows: Vec<Row>,
    /// By section, and "all": numbers in the order of [`State`].
    pub counts: BTreeMap<String, [u32; 4]>,
    pub out_of_scope: Vec<String>,
}

/// What the lines that follow are.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Reading {
    Text,
    Counts,
    Rows,
}

impl Paper {
    /// Reads the paper; the error names the line that is none of what it may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut paper = Self::default();
        let mut section = String::new();
        let mut reading = Reading::Text;
        for (n, line) in text.lines().enumerate() {
            let fails = || format!("line {}: {line}", n + 1);
            if let Some(title) = line.strip_prefix("## ") {
                section = title.split([':', ',']).next().unwrap_or_default().trim().to_owned();
            }
            match (line, reading) {
                (HEAD, _) => reading = Reading::Rows,
                (COUNTS, _) => reading = Reading::Counts,
                (line, Reading::Rows | Reading::Counts) if !line.starts_with('|') => {
                    reading = Reading::Text;
                }
                (line, Reading::Rows | Reading::Counts) if line.starts_with("| ---") => {}
                (line, Reading::Rows) => {
                    paper.rows.push(row(&section, line).ok_or_else(fails)?);
                }
                (line, Reading::Counts) => {
                    let (name, counts) = count(line).ok_or_else(fails)?;
                    paper.counts.insert(name, counts);
                }
                (line, Reading::Text) if line.starts_with('|') && section.starts_with("RFC") => {
                    return Err(fails());
                }
                (line, Reading::Text) if section == OUT_OF_SCOPE => {
                    let labels = line.strip_prefix("- ").and_then(|rest| rest.split_once(':'));
                    if let Some((labels, _)) = labels {
                        let labels = labels.split(',').map(|label| label.trim().to_owned());
                        paper.out_of_scope.extend(labels);
                    }
                }
                (_, Reading::Text) => {}
            }
        }
        Ok(paper)
    }
}

/// A line of counts as it should stand.
pub fn count_line(section: &str, [obeyed, deviates, not_applicable, not_yet]: &[u32; 4]) -> String {
    format!("| {section} | {obeyed} | {deviates} | {not_applicable} | {not_yet} |")
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

fn count(line: &str) -> Option<(String, [u32; 4])> {
    let cells = cells(line)?;
    let [section, numbers @ ..] = &cells[..] else { return None };
    let numbers: Result<Vec<u32>, _> = numbers.iter().map(|number| number.parse()).collect();
    Some(((*section).to_owned(), numbers.ok()?.try_into().ok()?))
}

fn row(section: &str, line: &str) -> Option<Row> {
    let [label, requirement, places, tests, state] = cells(line)?.try_into().ok()?;
    let (state, reason) = State::read(state)?;
    let mut found: Vec<Place> = Vec::new();
    for span in spans(places) {
        if span.contains('/') {
            found.push(Place { file: span.to_owned(), items: Vec::new() });
        } else {
            // An item before any file is of none.
            found.last_mut()?.items.push(span.to_owned());
        }
    }
    Some(Row {
        section: section.to_owned(),
        label: label.to_owned(),
        requirement: requirement.to_owned(),
        places: found,
        tests: spans(tests).map(str::to_owned).collect(),
        state,
        reason: reason.to_owned(),
    })
}

/// What stands between backticks.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}
