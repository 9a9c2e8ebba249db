//! The clean stop: SIGINT and SIGTERM.
//!
//! Called once, by `main`, after the stack has started. The waiting happens on a thread of its own,
//! so that the given action may lock and allocate.

use std::{io, process, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Runs `stop` at the first SIGINT or SIGTERM. A second one ends the process at once with the
/// status of a process that the signal killed, for whoever does not want to wait.
///
/// # Errors
/// The signal handlers or the thread could not be set up.
pub fn on_stop(stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let wait = move || {
        let mut stop = Some(stop);
        for signal in signals.forever() {
            match stop.take() {
                Some(stop) => stop(),
                None => process::exit(128 + signal),
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
