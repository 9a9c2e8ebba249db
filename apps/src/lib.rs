//! What the programs share: their command line, their start and clean stop, and what they tell about
//! a run.
//!
//! Each program's own file in `src/bin/` then holds little more than its use of the library, and is
//! meant to be read as an example of it. Nothing here runs on an lcore.
#![deny(unsafe_code)]

pub mod args;
pub mod exit;
pub mod figures;
pub mod report;
pub mod settings;
pub mod signals;
pub mod start;
pub mod stat;
pub mod stdout;
