//! What is printed of a scenario, and the page that shows all of them with their pictures.
//!
//! Text only; called by the program, and by the test that the committed page is what it would write.

use std::fmt::Write;

use super::row::Row;
use super::scenario::{ALL, Scenario};
use super::svg;
use super::table::{Stated, Table};

/// A scenario in print: the kernel's table as stated, ours as observed, and the reasons.
pub fn print(scenario: &Scenario) -> String {
    let Stated { title, about, linux, kernel, why, .. } = scenario.stated();
    let ours = Table::observed(scenario.play().iter().map(Row::cells));
    let why: String = why.iter().map(|reason| format!("  - {reason}\n")).collect();
    format!(
        "Scenario {}: {title}\n{about}\n\nLinux {linux}, as stated (it is not run here):\n\n{kernel}\n\
         prequeue, as observed just now:\n\n{ours}\nWhy they differ:\n{why}",
        scenario.name
    )
}

const HEAD: &str = "\
# The scenarios, drawn

Three situations that articles on Linux's receive path like to draw, and what can happen in them. Each was played on the
real stack under a virtual clock, and drawn from what was observed, by `pq-figures --svg docs/figures`; a test sees to
it that pictures and tables here are what the stack does now.

How to read a picture: time runs downwards, one row per step, and a row shows what is so after it. Segments arrive at
the left. A bar is a segment in a queue, in that queue's colour, for as long as it is there; its place from left to
right in the lane is its place in the stream, so a hole looks like one. A socket belongs to nobody, to its lcore for the
moment in which that works on it, to a thread, or (lcore due) to the lcore as soon as that looks. Segments A, B and C
are the bytes 1000-1100, 1100-1250 and 1250-1450.

The words: *rcv_nxt* is the next number expected of the peer, *copied_seq* the next byte to be read, *cop* what the call
has copied so far. `-` is an empty queue; a prequeue of `none` is not there, because no reader waits.
";

/// The page, in Markdown, and the pictures that it shows: names and contents.
pub fn files() -> Vec<(String, String)> {
    let mut page = HEAD.to_owned();
    let mut files = Vec::new();
    for scenario in ALL {
        let (name, file) = (scenario.name, scenario.file_name());
        let stated = scenario.stated();
        let rows = scenario.play();
        let ours = Table::observed(rows.iter().map(Row::cells));
        let picture = svg::draw(name, &stated, &rows);
        let Stated { title, about, linux, kernel, why, .. } = stated;
        let why: String = why.iter().map(|reason| format!("- {reason}\n")).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            "\n## {name}: {title}\n\n{about}\n\n![Scenario {name}: {title}]({file})\n\n{why}\n\
             <details><summary>The tables</summary>\n\nLinux {linux}:\n\n```text\n{kernel}```\n\n\
             prequeue:\n\n```text\n{ours}```\n\n</details>\n"
        );
        files.push((file, picture));
    }
    files.push(("README.md".to_owned(), page));
    files
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_pictures_are_what_is_drawn_now() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/figures");
        let files = files();
        for (name, drawn) in &files {
            let path = dir.join(name);
            let committed = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(committed == *drawn, "{name} is old: pq-figures --svg docs/figures draws anew");
        }
        let there = fs::read_dir(&dir).expect("the folder was read before").count();
        assert_eq!(there, files.len(), "pictures that nobody draws any more");
    }
}
