//! The clean stop: SIGINT and SIGTERM.
//!
//! Called once, by `main`, after the stack has started. The waiting happens on a thread of its own,
//! which tells `main` through a channel.

use std::{io, process, sync::mpsc::Sender, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Sends through `stop` at the first SIGINT or SIGTERM. A second one ends the process at once with
/// the status of a process that the signal killed, for whoever does not want to wait.
///
/// # Errors
/// The signal handlers or the thread could not be set up.
pub fn on_stop(stop: Sender<()>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let wait = move || {
        let mut again = false;
        for signal in signals.forever() {
            if again || stop.send(()).is_err() {
                process::exit(128 + signal);
            }
            again = true;
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
