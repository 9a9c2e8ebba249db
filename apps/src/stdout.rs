//! stdout, kept for a program's data.
//!
//! Called by `main`, before anything is started: DPDK, and the drivers that it loads, write where they
//! like. Afterwards descriptor 1 leads to stderr, and only what was taken here to where it led before.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    stdio::dup2_stdout,
};

/// Takes stdout: whatever else writes there goes to stderr from here.
///
/// # Errors
/// There is no stdout, or no descriptor left.
pub fn take() -> io::Result<File> {
    let out = io::stdout().as_fd().try_clone_to_owned()?;
    dup2_stdout(io::stderr())?;
    Ok(File::from(out))
}

/// Runs what starts the EAL with these arguments. If it does not like them it prints its usage, a hundred
/// lines that hide the one which says what is wrong: those are left out, unless they were asked for.
pub fn without_usage<T>(eal: &[String], start: impl FnOnce() -> T) -> T {
    let asked_for = eal.iter().any(|arg| arg == "-h" || arg == "--help");
    // If it cannot be kept it is shown.
    let Some((kept, before)) = (!asked_for).then(keep).and_then(Result::ok) else {
        return start();
    };
    let result = start();
    let _ = dup2_stdout(&before);
    // Whoever has no stderr does not miss it.
    let _ = io::stderr().write_all(but_usage(&read(kept)).as_bytes());
    result
}

/// A file in memory that descriptor 1 leads to from here, and where that has led.
fn keep() -> io::Result<(File, OwnedFd)> {
    let before = io::stdout().as_fd().try_clone_to_owned()?;
    let kept = memfd_create("stdout", MemfdFlags::CLOEXEC)?;
    dup2_stdout(&kept)?;
    Ok((File::from(kept), before))
}

fn read(mut file: File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read was not worth much: the reason for a failure goes to stderr.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What comes before the EAL's usage.
fn but_usage(text: &str) -> &str {
    text.split_once("Usage: ").map_or(text, |(before, _)| before).trim_start_matches('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usage_is_left_out() {
        assert_eq!(but_usage("\nUsage: prequeue [options]\n\nEAL common options:\n"), "");
        assert_eq!(but_usage("a driver's word\n\nUsage: prequeue\n"), "a driver's word\n\n");
        assert_eq!(but_usage("a driver's word\n"), "a driver's word\n");
    }
}
