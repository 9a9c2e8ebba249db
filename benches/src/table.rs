//! The table of one run: times, ratios, and how far the targets are.

use std::fmt;

use crate::bench::Row;
use crate::workload::Workload;

/// Our own name in the table: read through a shared stream.
pub const OURS: &str = "prequeue";
/// Run to completion, copied to the reader's buffer.
pub const LOCAL: &str = "local";
/// Run to completion, looked at in place.
pub const LOCAL_IN_PLACE: &str = "local-0";

/// All rows of one run.
#[derive(Clone, Debug, Default)]
pub struct Table(pub Vec<Row>);

/// What a row's time is divided by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Against {
    /// The time of a floor on the same workload.
    Floor(&'static str),
    /// The same receiver's time on W1.
    OwnW1,
}

const F1: Against = Against::Floor("F1");
const F2: Against = Against::Floor("F2");

/// What all receivers' times are shown against.
const fn shown(workload: Workload) -> Against {
    if workload.in_order() { F2 } else { Against::OwnW1 }
}

/// What one of ours is held against, and the ratio that it is to stay within.
fn target(workload: Workload, name: &str) -> Option<(Against, f64)> {
    use Workload::{W1, W2, W4, W6};
    match (name, workload) {
        (OURS, W1) => Some((F2, 1.3)),
        (OURS, W2) => Some((F2, 1.5)),
        (OURS, W4 | W6) => Some((Against::OwnW1, 1.4)),
        (LOCAL, W1) => Some((F2, 1.2)),
        (LOCAL, W2) => Some((F2, 1.3)),
        // Who copies nothing is held against the floor that copies nothing.
        (LOCAL_IN_PLACE, W1 | W2) => Some((F1, 1.5)),
        _ => None,
    }
}

impl Table {
    /// Rows of receivers that did not deliver exactly what was sent.
    pub fn wrong(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(|row| row.delivered != row.sent)
    }

    fn find(&self, workload: Workload, name: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.workload == workload && row.name == name)
    }

    fn ratio(&self, row: &Row, against: Against) -> Option<f64> {
        let base = match against {
            Against::Floor(name) => self.find(row.workload, name),
            Against::OwnW1 => self.find(Workload::W1, row.name),
        };
        base.map(|base| row.ns_per_segment / base.ns_per_segment)
    }

    fn line(&self, row: &Row) -> String {
        let column = |which: Against| {
            let ratio = self.ratio(row, which).filter(|_| which == shown(row.workload));
            ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
        };
        let verdict = target(row.workload, row.name).and_then(|(against, limit)| {
            let ratio = self.ratio(row, against)?;
            let reached = if ratio <= limit { "reached" } else { "not yet" };
            Some(match against {
                F1 => format!("{ratio:.2} of F1 <= {limit:.2}: {reached}"),
                _ => format!("<= {limit:.2}: {reached}"),
            })
        });
        let verdict = verdict.unwrap_or_default();
        let line = format!(
            "{:8}  {:9}  {:>10.1}  {:>5}  {:>5}  {:>9.3}  {verdict}",
            row.workload.name(),
            row.name,
            row.ns_per_segment,
            column(F2),
            column(Against::OwnW1),
            row.delivered as f64 / row.sent as f64,
        );
        line.trim_end().into()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "workload  receiver   ns/segment   / F2   / W1  delivered  target")?;
        let mut last = None;
        for row in &self.0 {
            if last.replace(row.workload).is_some_and(|workload| workload != row.workload) {
                writeln!(f)?;
            }
            writeln!(f, "{}", self.line(row))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: Workload, name: &'static str, ns_per_segment: f64) -> Row {
        Row { workload, name, ns_per_segment, sent: 1000, delivered: 1000 }
    }

    #[test]
    fn in_order_is_held_against_the_floor_and_the_rest_against_own_w1() {
        let table = Table(vec![
            row(Workload::W1, "F1", 10.0),
            row(Workload::W1, "F2", 40.0),
            row(Workload::W1, OURS, 50.0),
            row(Workload::W1, LOCAL_IN_PLACE, 30.0),
            row(Workload::W4, OURS, 80.0),
            row(Workload::W4, "peer", 10.0),
        ]);
        let lines: Vec<String> = table.0.iter().map(|row| table.line(row)).collect();
        assert_eq!(lines[1], "W1        F2               40.0   1.00             1.000");
        assert!(lines[2].ends_with(" 1.25             1.000  <= 1.30: reached"), "{}", lines[2]);
        let in_place = " 0.75             1.000  3.00 of F1 <= 1.50: not yet";
        assert!(lines[3].ends_with(in_place), "{}", lines[3]);
        assert!(lines[4].ends_with("  1.60      1.000  <= 1.40: not yet"), "{}", lines[4]);
        assert!(lines[5].ends_with(" 1.000"), "{}", lines[5]);
    }

    #[test]
    fn a_receiver_that_loses_a_byte_is_wrong() {
        let mut table = Table(vec![row(Workload::W1, OURS, 1.0), row(Workload::W2, OURS, 1.0)]);
        table.0[1].delivered -= 1;
        let wrong: Vec<_> = table.wrong().map(|row| row.workload).collect();
        assert_eq!(wrong, [Workload::W2]);
    }
}
