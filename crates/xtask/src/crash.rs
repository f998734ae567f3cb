//! The crash harness: builds it with the server, and runs it. What it does stands in crate `crash`, which has
//! the HTTP client and the runtime that this crate should not have to compile.

use std::path::Path;
use std::process::Command;

use crate::postgres::Postgres;
use crate::repository::Repository;
use crate::test;

/// Rounds of the short form: as many as it takes to come to every fail-point.
const SHORT: &str = "6";

/// Runs it with these arguments.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<(), String> {
    let target = test::target_directory(repository);
    let mut build = Command::new("cargo");
    build.args(["build", "--locked", "--workspace", "--bins"]).current_dir(repository.root());
    build.env("CARGO_TARGET_DIR", &target);
    good("the build for the crash harness", &mut build)?;
    let programs = target.join("debug");
    let mut harness = Command::new(programs.join("bailiwick-crash"));
    let Some(at) = arguments.windows(2).position(|pair| pair == ["--database", "postgres"]) else {
        return good("the crash harness", harness.args(arguments));
    };
    // A server of its own, which keeps what it acknowledged as one in production does.
    crate::packages::debian()?;
    let postgres = Postgres::start_durable()?;
    let url = prepared(&postgres, &programs.join("bailiwick"))?;
    let mut arguments = arguments.to_vec();
    arguments[at + 1] = &url;
    good("the crash harness", harness.args(arguments))
}

/// A database made ready for the server's role.
fn prepared(postgres: &Postgres, binary: &Path) -> Result<String, String> {
    let password = postgres.password();
    for role in ["crash_owner", "crash_app"] {
        postgres.ask(&format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"))?;
    }
    postgres.ask("CREATE DATABASE crash OWNER crash_owner")?;
    let mut prepare = Command::new(binary);
    prepare.args(["database", "prepare", "--role", "crash_app"]);
    prepare.env("BAILIWICK_DATABASE_OWNER_URL", postgres.url_of("crash_owner", "crash"));
    good("bailiwick database prepare", &mut prepare)?;
    Ok(postgres.url_of("crash_app", "crash"))
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
