//! Plays the three scenarios that articles on Linux's prequeue draw, on the real stack, and prints or draws
//! what was observed.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use prequeue_apps::figures::{
    live, page,
    row::Row,
    scenario::{ALL, Scenario},
};

const HELP: &str = "\
A segment that arrives can go into one of several queues:
  receive queue  in sequence, and nobody waits in recv
  out of order   above a hole: something before it is missing
  prequeue       in sequence, and a reader waits: a ring straight to it
  taken list     what a reader has taken out of the receive queue, to copy it
  backlog        a thread owned the socket when it arrived: not looked at yet

The scenarios:
  1  everything arrives before recv
  2  the reader sleeps when the first segment comes
  3  a hole fills while the reader sleeps and wants more than is there
Letters are variants: what if the reader only peeks, a second segment comes in between, a FIN, a RST...

For each, two tables are printed, a row per step: what Linux 4.13 does, as stated, and what this stack
did just now, under a virtual clock. Then the reasons why they differ.

Examples:
  pq-figures --scenario 2              the prequeue at work
  pq-figures --scenario 1c             a segment arrives at the wrong moment
  pq-figures --svg docs/figures        draw all, as committed there, with a page that shows them
  pq-figures --live                    1, 2 and 3 with real threads over DPDK rings in this process

Exit codes: 0 done; 1 files cannot be written, or DPDK does not start; 2 the command line makes no sense.";

/// Play the scenarios of the prequeue on the real stack, and print or draw what was observed
#[derive(Parser)]
#[command(name = "pq-figures", version, after_help = HELP)]
struct Arguments {
    /// Only this scenario, as 2 or 2c
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// List the scenarios' names and titles
    #[arg(long, conflicts_with_all = ["svg", "live", "rows"])]
    list: bool,
    /// Draw into this directory instead of printing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["live", "rows"])]
    svg: Option<PathBuf>,
    /// Print observed rows only, as apps/src/figures/tables/ has them, to state them anew
    #[arg(long, conflicts_with = "live")]
    rows: bool,
    /// Play scenarios 1 to 3 with real threads, and tell what happened
    #[arg(long, conflicts_with = "scenario")]
    live: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.live {
        live::run().map_err(|error| error.to_string())
    } else {
        run(&arguments)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pq-figures: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let chosen = chosen(arguments.scenario.as_deref());
    if let Some(dir) = &arguments.svg {
        let only = arguments.scenario.is_some().then(|| chosen[0].file_name());
        return draw(dir, only.as_deref());
    }
    let mut text = String::new();
    for scenario in chosen {
        text += &if arguments.list {
            format!("{:12}{}\n", scenario.name, scenario.stated().title)
        } else if arguments.rows {
            let row = |row: &Row| row.cells().join(" | ") + "\n";
            let rows: String = scenario.play().iter().map(row).collect();
            format!("== {}\n{rows}", scenario.name)
        } else {
            page::print(scenario) + "\n"
        };
    }
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever has seen enough closes the pipe.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The scenarios asked for. Ends the process if there is none of that name.
fn chosen(name: Option<&str>) -> Vec<&'static Scenario> {
    let Some(name) = name else { return ALL.iter().collect() };
    let Some(scenario) = Scenario::named(name) else {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        let text = format!("there is no scenario {name}: there is {}", names.join(", "));
        Arguments::command().error(ErrorKind::InvalidValue, text).exit()
    };
    vec![scenario]
}

/// Writes all files, or one of them.
fn draw(dir: &Path, only: Option<&str>) -> Result<(), String> {
    let fail = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(dir).map_err(|error| fail(dir, error))?;
    for (name, content) in page::files() {
        if only.is_none_or(|only| only == name) {
            let path = dir.join(name);
            fs::write(&path, content).map_err(|error| fail(&path, error))?;
        }
    }
    Ok(())
}
