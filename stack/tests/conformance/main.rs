//! Holds CONFORMANCE.md to what it says: what its rows name exists, the tests they name assert
//! something, its counts are right, and no requirement of RFC 9293 is left out or there twice.

mod source;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use source::Tree;
use table::{Paper, Row, State};

/// The labels of RFC 9293, appendix B: how many of each kind, numbered from one.
const LABELS: [(&str, u32); 4] = [("MUST", 69), ("SHLD", 31), ("MAY", 18), ("REC", 1)];

/// What else has a section of its own.
const SECTIONS: [&str; 13] = [
    "RFC 7323", "RFC 2018", "RFC 2883", "RFC 5961", "RFC 5681", "RFC 3168", "RFC 6528", "RFC 4987",
    "RFC 6298", "RFC 5927", "RFC 8200", "RFC 4443", "RFC 4861",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace above").to_owned()
}

fn paper() -> Paper {
    let text = fs::read_to_string(root().join("CONFORMANCE.md")).expect("CONFORMANCE.md");
    Paper::parse(&text).unwrap_or_else(|error| panic!("CONFORMANCE.md {error}"))
}

/// What is wrong with a row, if anything.
fn faults(row: &Row, tree: &mut Tree) -> Vec<String> {
    let mut faults = Vec::new();
    if row.state == State::Obeyed || row.state == State::Deviates {
        if row.places.is_empty() {
            faults.push("names no place".to_owned());
        }
        if row.tests.is_empty() {
            faults.push("names no test".to_owned());
        }
    }
    if row.state != State::Obeyed && row.reason.len() < 20 {
        faults.push("gives no reason".to_owned());
    }
    if row.requirement.len() < 10 {
        faults.push("says no requirement".to_owned());
    }
    for place in &row.places {
        if place.items.is_empty() {
            faults.push(format!("names no item of {}", place.file));
        }
        faults.extend(place.items.iter().filter_map(|item| tree.item(&place.file, item).err()));
    }
    faults.extend(row.tests.iter().filter_map(|test| tree.test(test).err()));
    faults
}

#[test]
fn every_row_names_what_exists_and_tests_that_assert() {
    let mut tree = Tree::new(root());
    let faults: Vec<String> = (paper().rows.iter())
        .flat_map(|row| {
            let faults = faults(row, &mut tree);
            faults.into_iter().map(|fault| format!("{}, {}: {fault}", row.section, row.label))
        })
        .collect();
    assert!(faults.is_empty(), "CONFORMANCE.md:\n{}", faults.join("\n"));
}

#[test]
fn the_counts_are_those_of_the_table() {
    let paper = paper();
    let mut counted: BTreeMap<String, [u32; 4]> = BTreeMap::new();
    for row in &paper.rows {
        for section in [row.section.as_str(), "all"] {
            counted.entry(section.to_owned()).or_default()[row.state as usize] += 1;
        }
    }
    let lines: Vec<String> =
        counted.iter().map(|(section, counts)| table::count_line(section, counts)).collect();
    assert_eq!(paper.counts, counted, "the lines should be\n{}", lines.join("\n"));
}

#[test]
fn every_requirement_of_rfc_9293_is_there_once() {
    let paper = paper();
    let in_table = paper.rows.iter().filter(|row| row.section == "RFC 9293").map(|row| &row.label);
    let mut found: BTreeMap<&str, u32> = BTreeMap::new();
    for label in in_table.chain(&paper.out_of_scope) {
        *found.entry(label).or_default() += 1;
    }
    for (kind, most) in LABELS {
        for n in 1..=most {
            let label = format!("{kind}-{n}");
            assert_eq!(found.remove(label.as_str()), Some(1), "{label}");
        }
    }
    // What is left are clauses without a label: each once, and none that looks like a label.
    for (label, times) in found {
        assert!(label.starts_with('§') && times == 1, "{label}, {times} times");
    }
}

#[test]
fn every_rfc_has_its_section() {
    let paper = paper();
    for section in SECTIONS {
        let rows = paper.rows.iter().filter(|row| row.section == section).count();
        assert!(rows >= 4, "{section} has {rows} rows");
    }
}

#[test]
fn no_label_of_a_section_is_there_twice() {
    let mut seen = BTreeMap::new();
    for row in paper().rows {
        let twice = seen.insert((row.section.clone(), row.label.clone()), ());
        assert_eq!(twice, None, "{}, {}", row.section, row.label);
    }
}

/// What [`faults`] says of one row of a table, given without its outer bars.
fn faults_of(cells: &str) -> Vec<String> {
    let text = format!("## RFC 9293: all\n\n{}\n| --- |\n| {cells} |\n", table::HEAD);
    let paper = Paper::parse(&text).expect("a row");
    faults(&paper.rows[0], &mut Tree::new(root()))
}

const GOOD: &str = "SHLD-2 | A RST may carry data. | `stack/src/tcp/reset.rs` `reply` | \
                    `tcp::reset::tests::a_rst_is_never_answered` | obeyed";

#[test]
fn a_good_row_is_good() {
    assert_eq!(faults_of(GOOD), [""; 0]);
}

#[test]
fn a_row_that_names_what_does_not_exist_is_found() {
    for (there, not_there) in [
        ("tcp/reset.rs`", "tcp/resets.rs`"),
        ("`reply`", "`replies`"),
        ("`reply`", "`Tcb::reply`"),
        ("tests::a_rst", "tests::no_rst"),
        ("reset::tests", "reset::nothing"),
        ("reset::tests", "resets::tests"),
        ("tests::a_rst_is_never_answered", "reply"),
        ("tests::a_rst_is_never_answered", "tests::seg"),
        ("`tcp::reset::tests::a_rst_is_never_answered`", "`scripts/none.pkt`"),
        ("`tcp::reset::tests::a_rst_is_never_answered`", ""),
        ("`reply`", ""),
        ("obeyed", "deviates"),
        ("obeyed", "not yet: soon"),
    ] {
        let row = GOOD.replace(there, not_there);
        assert_ne!(row, GOOD);
        assert_eq!(faults_of(&row).len(), 1, "{row}");
    }
}
