//! Prints the counters, connections, memory and settings of a running prequeue program.

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use prequeue_apps::{
    exit::{self, Exit},
    stat::{
        client::{Choice, Client, runtime_dirs},
        print::{Counters, Sockets, Table},
    },
};
use serde_json::{Value, json};

const HELP: &str = "\
The program asked is one with a prequeue stack that runs on this machine, as pq-sink; it must have been
started without --no-telemetry, by the same user. (A program of yours: with --telemetry among its EAL
arguments.) dpdk-telemetry.py reads the same by the commands /prequeue/counters, /prequeue/sockets, ...

Examples:
  pq-stat                     counters that are not zero, since the program was started
  pq-stat -d 1                what was counted in each second, and at what rate, until Ctrl-C
  pq-stat counters '*Drop*'   those whose names fit
  pq-stat sockets -i          connections, largest holders of memory first, with what TCP_INFO tells
  pq-stat --json memory       packet buffers, for other programs to read
  pq-stat --stack net_tap1    of the stack on that device, where a program has several

Exit codes:
  0  done
  2  the command line makes no sense
  3  there is nobody to ask, or no answer";

/// Print the counters, connections, memory and settings of a running prequeue program
#[derive(Parser)]
#[command(name = "pq-stat", version, after_help = HELP)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Ask the program with this process number
    #[arg(long, global = true)]
    pid: Option<u64>,
    /// Ask the program that has this --file-prefix among its EAL arguments
    #[arg(long, global = true, value_name = "PREFIX")]
    file_prefix: Option<String>,
    /// Ask at this telemetry socket
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Of several stacks in the program ask this one: its name (its device's), or its number in
    /// `pq-stat stacks`
    #[arg(long, global = true, value_name = "STACK")]
    stack: Option<String>,
    /// Print JSON
    #[arg(long, short, global = true)]
    json: bool,
    /// Print counters that are zero, too
    #[arg(long, short, global = true)]
    zeros: bool,
    /// Print what has been counted in each so many seconds, until Ctrl-C
    #[arg(long, short, global = true, value_name = "SECONDS", value_parser = seconds)]
    delta: Option<Duration>,
    /// With --delta, end after so many times
    #[arg(long, short, global = true, value_name = "TIMES", requires = "delta")]
    count: Option<u64>,
}

#[derive(Clone, Subcommand)]
enum What {
    /// Counters by the names of nstat; this if nothing is said
    Counters {
        /// Only those whose names fit; * is anything
        #[arg(value_name = "PATTERN")]
        patterns: Vec<String>,
        /// Only of this lcore
        #[arg(long)]
        lcore: Option<u32>,
    },
    /// Connections, those that hold most memory first, and listeners
    Sockets {
        /// Print what TCP_INFO tells of each
        #[arg(long, short)]
        info: bool,
    },
    /// What each lcore holds and has done
    Lcores,
    /// The use of packet buffers
    Memory,
    /// The settings
    Settings,
    /// What runs: version, addresses, device
    Info,
    /// The stacks that the program has, oldest first
    Stacks,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match run(&arguments) {
        Ok(()) => Exit::Done,
        Err(error) => match error.downcast_ref::<io::Error>() {
            // Whoever read the rest has gone.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            _ => exit::cannot_start("pq-stat", &*error),
        },
    };
    outcome.into()
}

fn run(own: &Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { pid, file_prefix, socket, stack, json, .. } = own;
    let choice = Choice {
        pid: *pid,
        file_prefix: file_prefix.clone(),
        socket: socket.clone(),
        stack: stack.clone(),
    };
    let client = Client::find(&runtime_dirs(), &choice)?;
    let what = own.what.clone().unwrap_or(What::Counters { patterns: Vec::new(), lcore: None });
    if stack.is_none() && !matches!(what, What::Stacks) {
        let stacks = client.stacks();
        if let [first, _, ..] = &stacks[..] {
            eprintln!(
                "pq-stat: {} stacks run; this is {first}: choose one with --stack",
                stacks.len()
            );
        }
    }
    let table = |name: &str| -> Result<(), Box<dyn Error>> {
        let answer = client.ask(name)?;
        say(*json, &answer, &Table(&answer))
    };
    match what {
        What::Counters { patterns, lcore } => counters(own, &client, &patterns, lcore),
        What::Sockets { info } => {
            let (rows, omitted) = client.sockets()?;
            let answer = json!({"sockets": rows, "omitted": omitted});
            say(
                *json,
                &answer,
                &Sockets { info: &client.info, rows: &rows, omitted, details: info },
            )
        }
        What::Lcores => table("lcores"),
        What::Memory => table("memory"),
        What::Settings => table("settings"),
        What::Info => table("info"),
        What::Stacks => table("stacks"),
    }
}

/// Counters once, or again and again.
fn counters(
    own: &Arguments,
    client: &Client,
    patterns: &[String],
    lcore: Option<u32>,
) -> Result<(), Box<dyn Error>> {
    let command = lcore.map_or_else(|| "counters".to_owned(), |id| format!("counters,{id}"));
    let look = || -> Result<(Value, Instant), Box<dyn Error>> {
        Ok((client.ask(&command)?, Instant::now()))
    };
    let print = |now: &Value, before: Option<(&Value, Duration)>| {
        let counters = Counters { now, before, zeros: own.zeros, patterns };
        say(own.json, &counters.to_json(), &counters)
    };
    let (mut before, mut at) = look()?;
    let Some(span) = own.delta else {
        return print(&before, None);
    };
    let mut times = 0;
    while own.count.is_none_or(|count| times < count) {
        thread::sleep(span.saturating_sub(at.elapsed()));
        let (now, then) = look()?;
        writeln!(io::stdout(), "#{}", client.info["address0"].as_str().unwrap_or_default())?;
        print(&now, Some((&before, then - at)))?;
        (before, at) = (now, then);
        times += 1;
    }
    Ok(())
}

/// Prints an answer for programs or for people.
fn say(json: bool, answer: &Value, text: &impl std::fmt::Display) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{answer}")?;
    } else {
        write!(out, "{text}")?;
    }
    Ok(out.flush()?)
}

/// A span of at least a hundredth of a second.
fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number of seconds from 0.01 to 86400, as 1 or 0.5".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.01..=86_400.0).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}
