//! SVG as text: rectangles, lines, arrows, words.

use std::fmt::Write;

/// A picture under way.
#[derive(Default)]
pub(super) struct Paint(String);

const STYLE: &str = "\
text{fill:#1d2733}\
.title{font-size:22px;font-weight:bold}\
.about{font-size:14px;fill:#3a4654}\
.head{font-size:14px;font-weight:bold}\
.note{font-size:12px;fill:#6b7684}\
.moved{font-size:12px;font-weight:bold}\
.event{font-size:14px}\
.wire{font-size:11.5px}\
.band{font-size:12px}\
.white{font-size:12px;font-weight:bold;fill:#fff}\
.rule{stroke:#d5dbe2;stroke-width:1}\
.ring{stroke:#2e8b57;stroke-width:2}\
.arrives{stroke:#1d2733;stroke-width:1.6;marker-end:url(#tip)}\
.leaves{stroke:#a33;stroke-width:1.6;marker-end:url(#back)}\
.moves{stroke:#1d2733;stroke-width:1.2;stroke-dasharray:3 2;fill:none;marker-end:url(#tip)}";

impl Paint {
    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        self.put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
    }

    pub(super) fn text_in_middle(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"middle\">{text}</text>"
        ));
    }

    /// A rectangle; `class` is `bar` for one with round corners.
    pub(super) fn rect(
        &mut self,
        x: f64,
        y: f64,
        width: f64,
        height: f64,
        fill: &str,
        class: &str,
    ) {
        let round = if class == "bar" { " rx=\"3\"" } else { "" };
        self.put(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"{round} fill=\"{fill}\"/>"
        ));
    }

    pub(super) fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, class: &str) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A line with a tip at its end.
    pub(super) fn arrow(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, class: &str) {
        self.line(x1, y1, x2, y2, class);
    }

    /// From a bar that ends at `y` to one that begins there.
    pub(super) fn move_arrow(&mut self, from: f64, to: f64, y: f64) {
        let back = if from < to { -4.0 } else { 4.0 };
        self.put(format_args!(
            "<path d=\"M{from:.1} {:.1}V{y:.1}H{:.1}Q{to:.1} {y:.1} {to:.1} {:.1}\" class=\"moves\"/>",
            y - 4.0,
            to + back,
            y + 5.0
        ));
    }

    pub(super) fn finish(self, title: &str, about: &str, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             font-family=\"Helvetica, Arial, sans-serif\">\n\
             <title>{}</title>\n<desc>{}</desc>\n<style>{STYLE}</style>\n<defs>\n\
             <marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" \
             markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 10 5 0 10z\" fill=\"#1d2733\"/></marker>\n\
             <marker id=\"back\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" \
             markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 10 5 0 10z\" fill=\"#a33\"/></marker>\n\
             </defs>\n<rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"#fff\"/>\n{}</svg>\n",
            escaped(title),
            escaped(about),
            self.0
        )
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text in lines of at most so many characters.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_and_lines_short() {
        assert_eq!(wrapped("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(wrapped("longer than that", 5), ["longer", "than", "that"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn what_means_something_in_xml_is_escaped() {
        assert_eq!(escaped("a < b && c > d"), "a &lt; b &amp;&amp; c &gt; d");
    }
}
