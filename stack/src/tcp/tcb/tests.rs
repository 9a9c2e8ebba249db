//! Tests of the connection, by subject. [`harness`] makes them readable.

mod ack;
mod chain;
mod closing;
mod ecn;
mod harness;
mod info;
mod layout;
mod memory;
mod path;
mod random;
mod relief;
mod rows;
mod runs;
mod standards;
mod validate;
mod window;
