//! Builds the release binary and the bench beside it, runs them, and keeps the table in `docs/benchmarks.md`.

use std::process::Command;

use crate::console::say;
use crate::postgres::Postgres;
use crate::repository::Repository;
use crate::test;

const PAGE: &str = "docs/benchmarks.md";
/// What stands before the table is made here; what people write about it stands after this line.
const NOTES: &str = "## What the figures say";

/// Runs it with these arguments. With none, everything is measured and the page is written.
pub(crate) fn run(repository: &Repository, arguments: &[&str]) -> Result<(), String> {
    crate::packages::debian()?;
    let target = test::target_directory(repository);
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--locked", "-p", "bailiwick", "-p", "bailiwick-bench"]);
    good("the release build", build.current_dir(repository.root()).env("CARGO_TARGET_DIR", &target))?;
    let postgres = Postgres::start_durable()?;
    let table = postgres.dir().join("table.md");
    let release = target.join("release");
    let mut bench = Command::new(release.join("bailiwick-bench"));
    bench.arg("--server").arg(release.join("bailiwick")).args(["--postgres", &postgres.url()]);
    bench.arg("--out").arg(&table).args(arguments);
    let measured = good("the bench", &mut bench);
    if arguments.is_empty() {
        write(repository, &std::fs::read_to_string(&table).map_err(|error| format!("no table: {error}"))?)?;
    }
    measured
}

fn write(repository: &Repository, table: &str) -> Result<(), String> {
    let path = repository.root().join(PAGE);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let notes = old.find(NOTES).map_or_else(|| format!("{NOTES}\n"), |at| old[at..].to_owned());
    let page = format!(
        "# Benchmarks\n\nMade by `cargo xtask bench`. Every figure stands beside a peer or a limit that was measured or \
         promised, because a time alone says more about the machine. The machine: {}. Load and server share it.\n\n\
         {table}\n{notes}",
        machine(),
    );
    std::fs::write(&path, page).map_err(|error| format!("{PAGE} cannot be written: {error}"))?;
    say(&format!("{PAGE} is written"));
    Ok(())
}

/// The machine in a line.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let gib = memory.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024 / 1024;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({cpu}), {gib} GiB, Linux {}", kernel.trim())
}

fn good(what: &str, command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what}: {status}")),
        Err(error) => Err(format!("{what} cannot be started: {error}")),
    }
}
