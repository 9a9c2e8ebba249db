//! pq-figures as a program: what it lists, draws, and says of three scenarios with real threads.

use std::fs;
use std::process::{Command, Output};

fn pq_figures(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pq-figures"));
    command.args(args).output().expect("the program is there")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(err));
    String::from_utf8_lossy(out).into_owned()
}

#[test]
fn real_threads_get_what_the_tables_say() {
    let told = text(&pq_figures(&["--live"]));
    let returns: Vec<_> =
        told.lines().filter_map(|line| line.split_once("recv returns ")).map(|(_, n)| n).collect();
    assert_eq!(returns, ["450", "100", "450"], "{told}");
    assert_eq!(told.matches("the bytes are right").count(), 3, "{told}");
    assert_eq!(told.matches("hears ACK 1100 SACK 1250-1450").count(), 2, "{told}");
    assert!(!told.contains("hears no ACK"), "{told}");
}

#[test]
fn one_scenario_is_printed_or_drawn_alone() {
    let printed = text(&pq_figures(&["--scenario", "2n"]));
    assert!(printed.starts_with("Scenario 2n: Another thread locks"), "{printed}");
    assert_eq!(printed.matches("Scenario").count(), 1, "{printed}");

    let dir = std::env::temp_dir().join(format!("pq-figures-{}", std::process::id()));
    text(&pq_figures(&["--scenario", "2n", "--svg", dir.to_str().expect("ASCII")]));
    let names: Vec<_> = fs::read_dir(&dir)
        .expect("it was made")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"))
        .collect();
    fs::remove_dir_all(&dir).expect("ours");
    assert_eq!(names, ["scenario-2n.svg"]);
}

#[test]
fn a_name_that_is_none_is_answered_with_those_there_are() {
    let list = text(&pq_figures(&["--list"]));
    let output = pq_figures(&["--scenario", "4"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for line in list.lines() {
        let name = line.split_whitespace().next().expect("a name");
        assert!(said.contains(name), "{name} is not in {said}");
    }
}
