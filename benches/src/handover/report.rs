//! The table of one run of the hand-over: what was measured, what it is to be, and whether it is.

use std::fmt;

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What was measured.
    what: String,
    value: String,
    target: Option<Target>,
}

/// What a figure is held against.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    text: String,
    reached: bool,
}

/// All figures of one run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Report {
    /// A figure that is told and held against nothing.
    pub fn tell(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.lines.push(Line { what: what.into(), value: value.into(), target: None });
    }

    /// A figure that is to be at most `limit`, both in `unit`.
    pub fn at_most(&mut self, what: impl Into<String>, value: f64, limit: f64, unit: &str) {
        self.hold(what, value, value <= limit, format!("<= {}", short(limit)), unit);
    }

    /// A figure that is to be at least `limit`, both in `unit`.
    pub fn at_least(&mut self, what: impl Into<String>, value: f64, limit: f64, unit: &str) {
        self.hold(what, value, value >= limit, format!(">= {}", short(limit)), unit);
    }

    /// Something to be known of the figures.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn hold(
        &mut self,
        what: impl Into<String>,
        value: f64,
        reached: bool,
        text: String,
        unit: &str,
    ) {
        let value = format!("{} {unit}", short(value));
        let target = Some(Target { text, reached });
        self.lines.push(Line { what: what.into(), value: value.trim_end().into(), target });
    }
}

/// Three digits, or four.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        ..10.0 => 3,
        _ => 1,
    };
    format!("{value:.digits$}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |of: fn(&Line) -> &str| self.lines.iter().map(|l| of(l).len()).max().unwrap_or(0);
        let (what, value) = (width(|line| &line.what), width(|line| &line.value));
        for line in &self.lines {
            let verdict = line.target.as_ref().map_or(String::new(), |target| {
                let reached = if target.reached { "reached" } else { "not yet" };
                format!("{}: {reached}", target.text)
            });
            let text = format!("{:what$}  {:>value$}  {verdict}", line.what, line.value);
            writeln!(f, "{}", text.trim_end())?;
        }
        for note in &self.notes {
            writeln!(f, "({note})")?;
        }
        Ok(())
    }
}

/// Times of single messages, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<u64>);

impl Times {
    /// Room for so many.
    pub fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n))
    }

    /// One more.
    pub fn record(&mut self, nanos: u64) {
        self.0.push(nanos);
    }

    /// The values that `per_mille` of 1000 do not exceed, one for each; all 0 if nothing was recorded.
    pub fn quantiles<const N: usize>(&mut self, per_mille: [usize; N]) -> [f64; N] {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        per_mille
            .map(|q| self.0.get((self.0.len() * q / 1000).min(last)).map_or(0.0, |&t| t as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_told_with_its_target_and_whether_it_is_reached() {
        let mut report = Report::default();
        report.tell("a", "7 ns");
        report.at_most("to be small", 12.0, 15.0, "ns");
        report.at_least("large", 0.1, 0.154, "");
        report.note("of one run");
        let lines: Vec<_> = report.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "a             7 ns");
        assert_eq!(lines[1], "to be small  12 ns  <= 15: reached");
        assert_eq!(lines[2], "large        0.100  >= 0.154: not yet");
        assert_eq!(lines[3], "(of one run)");
    }

    #[test]
    fn quantiles_are_of_sorted_times() {
        let mut times = Times::default();
        assert_eq!(times.quantiles([500]), [0.0]);
        (0..1000).rev().for_each(|t| times.record(t));
        assert_eq!(times.quantiles([0, 500, 990, 1000]), [0.0, 500.0, 990.0, 999.0]);
    }
}
