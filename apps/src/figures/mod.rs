//! The three scenarios that the field's articles draw, played on the real stack and drawn.
//!
//! [`stage`] runs a script under a virtual clock and observes; [`scenario`] has the scripts and what
//! is stated of each.

pub mod buf;
pub mod live;
pub mod page;
pub mod peer;
mod play;
pub mod row;
pub mod scenario;
pub mod stage;
pub mod svg;
pub mod table;
