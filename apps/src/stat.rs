//! Looking at a running program from outside: the way to its telemetry socket, and what is printed.
//!
//! For `pq-stat`. What is asked is answered by the library, in the other process; here nothing knows how
//! it comes by the numbers.

pub mod client;
pub mod print;
