//! The table of one run: times, ratios, and how far the targets are.

use std::fmt;

use crate::bench::Row;
use crate::workload::Workload;

/// Our own name in the table.
pub const OURS: &str = "prequeue";

/// The floor that in-order workloads are held against.
const FLOOR: &str = "F2";

/// All rows of one run.
#[derive(Clone, Debug, Default)]
pub struct Table(pub Vec<Row>);

/// What a row's time is divided by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Against {
    /// The floor's time on the same workload.
    Floor,
    /// The same receiver's time on W1.
    OwnW1,
}

/// What is held against what, and the ratio that ours is to stay within.
const fn target(workload: Workload) -> (Against, f64) {
    match workload {
        Workload::W1 => (Against::Floor, 1.3),
        Workload::W2 => (Against::Floor, 1.5),
        Workload::W4 | Workload::W6 => (Against::OwnW1, 1.4),
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
            Against::Floor => self.find(row.workload, FLOOR),
            Against::OwnW1 => self.find(Workload::W1, row.name),
        };
        base.map(|base| row.ns_per_segment / base.ns_per_segment)
    }

    fn line(&self, row: &Row) -> String {
        let (against, limit) = target(row.workload);
        let ratio = self.ratio(row, against);
        let column = |which| match ratio {
            Some(ratio) if which == against => format!("{ratio:.2}"),
            _ => String::new(),
        };
        let verdict = match ratio {
            Some(ratio) if row.name == OURS => {
                let reached = if ratio <= limit { "reached" } else { "not yet" };
                format!("<= {limit:.2}: {reached}")
            }
            _ => String::new(),
        };
        let line = format!(
            "{:8}  {:9}  {:>10.1}  {:>5}  {:>5}  {:>9.3}  {verdict}",
            row.workload.name(),
            row.name,
            row.ns_per_segment,
            column(Against::Floor),
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
            row(Workload::W1, "F2", 40.0),
            row(Workload::W1, OURS, 50.0),
            row(Workload::W4, OURS, 80.0),
            row(Workload::W4, "peer", 10.0),
        ]);
        let lines: Vec<String> = table.0.iter().map(|row| table.line(row)).collect();
        assert_eq!(lines[0], "W1        F2               40.0   1.00             1.000");
        assert!(lines[1].ends_with(" 1.25             1.000  <= 1.30: reached"), "{}", lines[1]);
        assert!(lines[2].ends_with("  1.60      1.000  <= 1.40: not yet"), "{}", lines[2]);
        assert!(lines[3].ends_with(" 1.000"), "{}", lines[3]);
    }

    #[test]
    fn a_receiver_that_loses_a_byte_is_wrong() {
        let mut table = Table(vec![row(Workload::W1, OURS, 1.0), row(Workload::W2, OURS, 1.0)]);
        table.0[1].delivered -= 1;
        let wrong: Vec<_> = table.wrong().map(|row| row.workload).collect();
        assert_eq!(wrong, [Workload::W2]);
    }
}
