//! Real threads over real connections, with a fake lcore.

mod direct;
mod ending;
mod flags;
mod hand;
mod kernel;
mod lcore;
mod options;
mod polling;
mod reading;
mod signals;
mod stress;
mod table;
mod waiting;
mod waking;
mod zero_copy;
