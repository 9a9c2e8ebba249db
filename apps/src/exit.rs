//! How the programs end: one place for the exit codes that `--help` lists.

use std::{error::Error, process::ExitCode};

use prequeue::StartError;

use crate::settings::TuningError;

/// Why a program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// All went well; SIGINT, SIGTERM and a closed stdout count as well too.
    Done = 0,
    /// The stream to write out was cut: reset by the peer, timed out, or stopped by a signal.
    Cut = 1,
    /// The command line, or the file that it names, made no sense (clap's own choice of number).
    Usage = 2,
    /// DPDK, the port or the stack did not start.
    Start = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit codes in words, for the end of `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done, or stopped by SIGINT or SIGTERM
  1  (pq-cat) a stream was cut: the peer reset it, or pq-cat was stopped in mid-stream
  2  the command line makes no sense, or the file of settings
  3  DPDK, the port or the stack did not start";

/// Says on stderr why the program cannot start, and whose fault that is.
pub fn cannot_start(program: &str, why: &(dyn Error + 'static)) -> Exit {
    eprintln!("{program}: {why}");
    if is_misspelt(why) { Exit::Usage } else { Exit::Start }
}

/// Whether something was written wrong, on whatever machine this is.
fn is_misspelt(why: &(dyn Error + 'static)) -> bool {
    why.is::<TuningError>()
        || matches!(
            why.downcast_ref(),
            Some(
                StartError::NoEalArguments
                    | StartError::NoAddress
                    | StartError::BadAddress(_)
                    | StartError::TooManyAddresses(_)
                    | StartError::BadGateway { .. }
                    | StartError::BadMac(_)
                    | StartError::BadMtu(_)
            )
        )
}
