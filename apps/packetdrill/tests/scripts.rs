//! The project's own packetdrill scripts: what stands in them, and that they pass where there is a packetdrill.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn scripts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let files =
        folders.filter(|path| path.is_dir()).flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut scripts: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pkt"))
        .collect();
    scripts.sort();
    scripts
}

#[test]
fn every_script_starts_from_the_same_settings_and_expects_something() {
    let scripts = scripts();
    assert!(scripts.len() > 100, "{} scripts", scripts.len());
    for path in scripts {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("`../common/defaults.sh`"), "{}", path.display());
        // A SYN-ACK says only that somebody listens.
        let expects = |line: &&str| line.contains("> ") || line.contains(" = ");
        let is_syn_ack = |line: &&str| {
            let sent = line.split_once("> ").map_or("", |(_, sent)| sent);
            sent.trim_start_matches("[noecn] ").starts_with('S')
        };
        let after = text.lines().skip_while(|line| !is_syn_ack(line)).skip(1);
        assert!(after.filter(expects).count() > 0, "{} expects nothing", path.display());
    }
}

#[test]
fn the_scripts_pass_over_ipv4() {
    run_over("ipv4");
}

#[test]
fn the_scripts_pass_over_ipv6() {
    run_over("ipv6");
}

#[test]
fn the_scripts_pass_over_ipv4_in_sockets_of_ipv6() {
    run_over("ipv4-mapped-ipv6");
}

fn run_over(version: &str) {
    if std::env::var_os("PD").is_none() {
        println!("passed over: PD names no packetdrill binary");
        return;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let run = Command::new(top.join("scripts/packetdrill"))
        .arg(format!("--ip_version={version}"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    let failed: Vec<_> = told.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(run.status.success(), "{failed:#?}{}", String::from_utf8_lossy(&run.stderr));
}
