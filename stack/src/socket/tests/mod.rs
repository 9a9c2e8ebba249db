//! Real threads over real connections, with a fake lcore.

mod ending;
mod lcore;
mod reading;
