//! The probe, inside and outside, for single questions. Its lists are in `attacks`.

use std::collections::BTreeMap;
use std::process::Command;

use bailiwick_sandbox::linux::{Exec, Jail};

use super::harness::{Host, Space, probe, run};

/// The probe's lines by name.
fn answers(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.rsplit_once('='))
        .map(|(name, answer)| (name.to_owned(), answer.to_owned()))
        .collect()
}

/// Puts the probe into a workspace.
pub(crate) fn place_probe(host: &Host, space: &Space) {
    let inside = space.workspace.join("probe");
    std::fs::copy(probe(), &inside).unwrap();
    host.give(&inside, space.user);
}

pub(crate) async fn probe_inside(jail: &Jail, arguments: &[&str]) -> BTreeMap<String, String> {
    let mut command = vec!["/workspace/probe".to_owned()];
    command.extend(arguments.iter().map(|one| (*one).to_owned()));
    let exec = Exec { command: bailiwick_sandbox::linux::CommandLine::Arguments(command), ..Exec::shell("") };
    let ran = run(jail, exec).await;
    assert_eq!(ran.stderr.text, "", "the probe itself ran: {:?}", ran.status);
    answers(&ran.stdout.text)
}

pub(crate) fn probe_outside(arguments: &[&str]) -> BTreeMap<String, String> {
    let ran = Command::new(probe()).args(arguments).output().unwrap();
    answers(&String::from_utf8(ran.stdout).unwrap())
}
