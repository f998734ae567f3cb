//! The crash harness: builds it with the server, and runs it. What it does stands in crate `crash`, which has
//! the HTTP client and the runtime that this crate should not have to compile.

use std::path::PathBuf;
use std::process::Command;

use crate::repository::Repository;
use crate::test;

/// Rounds of the short form: as many as it takes to come to every fail-point.
const SHORT: &str = "6";

/// Runs it with these arguments.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<(), String> {
    let target = match (test::target_directory(), std::env::var_os("CARGO_TARGET_DIR")) {
        (Some(shared), _) => shared,
        (None, Some(told)) => PathBuf::from(told),
        (None, None) => repository.root().join("target"),
    };
    let mut build = Command::new("cargo");
    build.args(["build", "--locked", "--workspace", "--bins"]).current_dir(repository.root());
    build.env("CARGO_TARGET_DIR", &target);
    good("the build for the crash harness", &mut build)?;
    let mut harness = Command::new(repository.root().join(target).join("debug/bailiwick-crash"));
    good("the crash harness", harness.args(arguments))
}

/// The form for every commit: every fail-point, and less than a minute.
pub(crate) fn short(repository: &Repository) -> Result<(), String> {
    run(repository, &["--rounds", SHORT, "--acts", "1"])
}

fn good(what: &str, command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what}: {status}")),
        Err(error) => Err(format!("{what} cannot be started: {error}")),
    }
}
