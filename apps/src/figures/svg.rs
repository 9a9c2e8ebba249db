//! A scenario as a picture: time runs downwards, a lane per queue, a bar for as long as bytes stay there.
//!
//! Within each lane a segment's place from left to right is its place in the stream, so that a hole is
//! seen as a hole. It draws rows as they were observed and knows nothing of TCP.

mod layout;
mod paint;

use prequeue::watch::Span;

use super::row::{ReaderState, Row};
use super::table::Stated;
use layout::{HEAD, LANES, Lane, Lanes, ROW, WIDTH};
use paint::{Paint, wrapped};

/// Draws a scenario.
pub fn draw(name: &str, stated: &Stated, rows: &[Row]) -> String {
    let lanes = Lanes::of(rows);
    let about = wrapped(stated.about, 150);
    let top = HEAD + 18.0 * about.len() as f64;
    let bottom = top + ROW * rows.len() as f64;
    let mut paint = Paint::default();
    heading(&mut paint, name, stated, &about, top);
    backgrounds(&mut paint, top, bottom);
    for (at, row) in rows.iter().enumerate() {
        let y = top + ROW * at as f64;
        caption(&mut paint, row, at.checked_sub(1).map(|before| &rows[before]), y);
        wire(&mut paint, row, y);
    }
    bands(&mut paint, rows, top);
    for lane in LANES {
        bars(&mut paint, &lanes, lane, rows, top);
    }
    moves(&mut paint, &lanes, rows, top);
    let end = footing(&mut paint, stated, bottom);
    paint.finish(&format!("Scenario {name}: {}", stated.title), stated.about, WIDTH, end)
}

fn heading(paint: &mut Paint, name: &str, stated: &Stated, about: &[String], top: f64) {
    paint.text(24.0, 38.0, "title", &format!("Scenario {name}: {}", stated.title));
    for (at, line) in about.iter().enumerate() {
        paint.text(24.0, 62.0 + 18.0 * at as f64, "about", line);
    }
    let y = top - 26.0;
    paint.text(layout::TIME, y, "head", "ms");
    paint.text(layout::EVENT, y, "head", "what happens, downwards in time");
    paint.text_in_middle(layout::WIRE.middle(), y, "head", "the wire");
    paint.text_in_middle(layout::OWNER.middle(), y, "head", "owner");
    for lane in LANES {
        let (title, note) = lane.titles();
        paint.text_in_middle(lane.column().middle(), y - 13.0, "head", title);
        paint.text_in_middle(lane.column().middle(), y + 2.0, "note", note);
    }
    paint.text_in_middle(layout::READER.middle(), y - 13.0, "head", "reader");
    paint.text_in_middle(layout::READER.middle(), y + 2.0, "note", "and bytes copied");
}

fn backgrounds(paint: &mut Paint, top: f64, bottom: f64) {
    let height = bottom - top;
    for lane in LANES {
        let column = lane.column();
        paint.rect(column.x, top, column.width, height, lane.pale(), "none");
    }
    for column in [layout::OWNER, layout::READER] {
        paint.rect(column.x, top, column.width, height, "#f6f7f9", "none");
    }
}

fn caption(paint: &mut Paint, row: &Row, before: Option<&Row>, y: f64) {
    paint.line(layout::TIME, y, WIDTH - 24.0, y, "rule");
    if before.is_none_or(|before| before.time != row.time) {
        paint.text(layout::TIME, y + 18.0, "note", &row.time.as_millis().to_string());
    }
    paint.text(layout::EVENT, y + 18.0, "event", &row.event);
    let moved = |now: u32, then: Option<u32>| then.is_some_and(|then| then != now);
    let nxt = moved(row.rcv_nxt, before.map(|before| before.rcv_nxt));
    let copied = moved(row.copied_seq, before.map(|before| before.copied_seq));
    let x = layout::EVENT;
    paint.text(
        x,
        y + 34.0,
        if nxt { "moved" } else { "note" },
        &format!("rcv_nxt {}", row.rcv_nxt),
    );
    let text = format!("copied_seq {}", row.copied_seq);
    paint.text(x + 92.0, y + 34.0, if copied { "moved" } else { "note" }, &text);
}

/// What arrives and what leaves.
fn wire(paint: &mut Paint, row: &Row, y: f64) {
    let column = layout::WIRE;
    let label = match row.arrived.as_slice() {
        [] => None,
        [(name, span)] if span.len > 0 => Some(format!("{name} {span}")),
        [(name, _)] => Some((*name).to_owned()),
        [(_, first), .., (_, last)] => {
            let end = last.seq.wrapping_add(last.len);
            Some(format!("{} segments, {}-{end}", row.arrived.len(), first.seq))
        }
    };
    if let Some(label) = label {
        paint.text_in_middle(column.middle(), y + 12.0, "wire", &label);
        paint.arrow(column.x, y + 17.0, column.end(), y + 17.0, "arrives");
    }
    let sent = match row.sent.as_slice() {
        [] => return,
        [one] => one.clone(),
        [.., last] => format!("… {last}"),
    };
    paint.text_in_middle(column.middle(), y + 33.0, "wire", &sent);
    paint.arrow(column.end(), y + 39.0, column.x, y + 39.0, "leaves");
}

/// The owner and the readers: a band each, labelled where it changes.
fn bands(paint: &mut Paint, rows: &[Row], top: f64) {
    let owner = |row: &Row| layout::owner_band(row.owner);
    band(paint, rows, top, layout::OWNER, owner);
    for (at, row) in rows.iter().enumerate() {
        // The lcore's own moments are over when the row is written.
        if row.met == Some(prequeue::watch::Owner::Lcore) {
            let y = top + ROW * at as f64;
            let column = layout::OWNER;
            paint.rect(column.x, y + 3.0, column.width, 15.0, "#2f6db5", "none");
            paint.text_in_middle(column.middle(), y + 14.0, "white", "lcore");
        }
    }
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.readers) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let columns = layout::READER.split(names.len().max(1));
    for (name, column) in names.iter().zip(columns) {
        let state = |row: &Row| {
            let state = row.readers.iter().find(|(reader, _)| reader == name)?.1;
            let label = if *name == "reader" { state.text() } else { name };
            Some((state_colour(state), label.to_owned()))
        };
        band(paint, rows, top, column, state);
    }
    for (at, row) in rows.iter().enumerate() {
        let mut say = |below: f64, text: &str| {
            let y = top + ROW * at as f64 + below;
            paint.text_in_middle(layout::READER.middle(), y, "moved", text);
        };
        let before = at.checked_sub(1).and_then(|at| rows[at].copied).unwrap_or(0);
        if let Some(copied) = row.copied.filter(|copied| *copied != before && *copied > 0) {
            say(34.0, &format!("{copied} bytes"));
        }
        if let Some((_, end)) = row.event.split_once("recv returns ") {
            say(20.0, &format!("returns {end}"));
        } else if let Some((_, error)) = row.event.split_once("recv fails: ") {
            say(20.0, error);
        }
    }
}

const fn state_colour(state: ReaderState) -> &'static str {
    match state {
        ReaderState::Runs => "#8fd19e",
        ReaderState::Woken => "#ffe08a",
        ReaderState::Asleep => "#b9c2d0",
    }
}

fn band(
    paint: &mut Paint,
    rows: &[Row],
    top: f64,
    column: layout::Column,
    of: impl Fn(&Row) -> Option<(&'static str, String)>,
) {
    let mut at = 0;
    while at < rows.len() {
        let now = of(&rows[at]);
        let until = (at..rows.len()).find(|next| of(&rows[*next]) != now).unwrap_or(rows.len());
        if let Some((colour, label)) = now {
            let (y, height) = (top + ROW * at as f64, ROW * (until - at) as f64);
            paint.rect(column.x, y + 1.0, column.width, height - 2.0, colour, "none");
            paint.text_in_middle(column.middle(), y + 17.0, "band", &label);
        }
        at = until;
    }
}

/// A bar for as long as the same bytes stay in the lane.
fn bars(paint: &mut Paint, lanes: &Lanes, lane: Lane, rows: &[Row], top: f64) {
    for (at, row) in rows.iter().enumerate() {
        if lane == Lane::Prequeue && row.prequeue.is_some() {
            // The ring: there, whether or not anything is in it.
            let (column, y) = (lane.column(), top + ROW * at as f64);
            paint.line(column.x, y, column.x, y + ROW, "ring");
            paint.line(column.end(), y, column.end(), y + ROW, "ring");
        }
        for span in lanes.spans(lane, row) {
            let was =
                at.checked_sub(1).is_some_and(|at| lanes.spans(lane, &rows[at]).contains(&span));
            if was {
                continue;
            }
            let until = (at..rows.len())
                .find(|next| !lanes.spans(lane, &rows[*next]).contains(&span))
                .unwrap_or(rows.len());
            let (x, width) = lanes.place(lane, &span);
            let (y, height) = (top + ROW * at as f64 + 4.0, ROW * (until - at) as f64 - 6.0);
            paint.rect(x, y, width, height, lane.colour(), "bar");
            let label = lanes.label(&span);
            paint.text_in_middle(x + width / 2.0, y + height.min(ROW) / 2.0 + 4.0, "white", &label);
        }
    }
}

/// Thin lines from where bytes were to where they are now.
fn moves(paint: &mut Paint, lanes: &Lanes, rows: &[Row], top: f64) {
    for (at, pair) in rows.windows(2).enumerate() {
        let [before, after] = pair else { continue };
        let y = top + ROW * (at + 1) as f64;
        for to in LANES {
            let old = lanes.spans(to, before);
            for span in lanes.spans(to, after).iter().filter(|span| !old.contains(span)) {
                let from = LANES.into_iter().find(|from| {
                    *from != to && lanes.spans(*from, before).iter().any(|was| overlap(was, span))
                });
                let (x, width) = lanes.place(to, span);
                if let Some(from) = from {
                    let (from_x, from_width) = lanes.place(from, span);
                    paint.move_arrow(from_x + from_width / 2.0, x + width / 2.0, y);
                } else {
                    paint.arrow(layout::OWNER.end(), y + 10.0, x, y + 10.0, "moves");
                }
            }
        }
        if after.copied_seq != before.copied_seq {
            if !after.arrived.is_empty() {
                // The lcore copies to memory that a reader lends: what has just come is in no queue.
                let x = layout::READER.x;
                paint.arrow(layout::OWNER.end(), y + 10.0, x, y + 10.0, "moves");
            }
            let copied = Span {
                seq: before.copied_seq,
                len: after.copied_seq.wrapping_sub(before.copied_seq),
                fin: false,
            };
            let held =
                |lane: &Lane| lanes.spans(*lane, before).iter().any(|was| overlap(was, &copied));
            // What is on its way through the ring is read from the last of the lanes that held it.
            if let Some(lane) = LANES.into_iter().rev().find(held) {
                let (x, width) = lanes.place(lane, &copied);
                paint.move_arrow(x + width / 2.0, layout::READER.x + 10.0, y);
            }
        }
    }
}

fn overlap(one: &Span, other: &Span) -> bool {
    one.seq < other.seq + other.len && other.seq < one.seq + one.len
}

/// The legend and the reasons; where the picture ends.
fn footing(paint: &mut Paint, stated: &Stated, bottom: f64) -> f64 {
    paint.line(layout::TIME, bottom, WIDTH - 24.0, bottom, "rule");
    let mut y = bottom + 28.0;
    let mut x = 24.0;
    let keys: [(&str, &str); 6] = [
        ("#2f6db5", "the lcore owns, for a moment"),
        ("#a9c8e8", "or will, as soon as it looks (lcore due)"),
        ("#f2a65a", "a thread owns"),
        ("#b9c2d0", "reader asleep"),
        ("#ffe08a", "woken, does not run yet"),
        ("#8fd19e", "runs"),
    ];
    for (colour, text) in keys {
        paint.rect(x, y - 11.0, 14.0, 14.0, colour, "none");
        paint.text(x + 20.0, y, "about", text);
        x += 46.0 + 6.9 * text.chars().count() as f64;
    }
    y += 24.0;
    paint.line(26.0, y - 12.0, 26.0, y + 3.0, "ring");
    paint.line(36.0, y - 12.0, 36.0, y + 3.0, "ring");
    let text = "a ring is installed. From left to right in a lane: place in the stream. \
                Dashed: where bytes go. Between two lines: what is so after the step.";
    paint.text(44.0, y, "about", text);
    y += 32.0;
    paint.text(24.0, y, "head", &format!("Where it differs from Linux {}, and why", stated.linux));
    for reason in &stated.why {
        for (at, line) in wrapped(reason, 172).iter().enumerate() {
            y += 19.0;
            if at == 0 {
                paint.text(24.0, y, "about", "•");
            }
            paint.text(38.0, y, "about", line);
        }
        y += 3.0;
    }
    y + 24.0
}
