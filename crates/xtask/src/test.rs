//! Everything that must hold before a commit, in the order in which it is cheap to know.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::console::{fail, say};
use crate::repository::Repository;
use crate::{checklist, fuzz, packages, schemathesis, tidy};

/// How much to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// Without clippy, and without what may need the network.
    Fast,
}

/// A step, and the extents that have it.
type Step = (&'static str, Extent, fn(&Tools<'_>) -> Result<Counts, String>);

const STEPS: &[Step] = &[
    // Names of files only: a whole diff says no more than `cargo fmt` would do.
    ("format", Extent::Fast, |tools| tools.cargo(&["fmt", "--all", "--check", "--", "-l"])),
    ("tidy", Extent::Fast, |tools| tidy::run(tools.repository).map(|()| Counts::default())),
    ("clippy", Extent::Whole, |tools| {
        tools.cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"])
    }),
    ("dependencies", Extent::Whole, |tools| {
        packages::cargo_deny()?;
        tools.cargo(&["deny", "--offline", "--log-level", "error", "check", "bans", "licenses", "sources"])
    }),
    ("packages", Extent::Whole, |tools| {
        packages::debian()?;
        packages::npm(tools.repository).map(|()| Counts::default())
    }),
    ("tests", Extent::Fast, |tools| tools.cargo(&["test", "--workspace", "--locked", "--no-fail-fast"])),
    ("schemathesis", Extent::Whole, |tools| {
        schemathesis::run(tools.repository, &target_directory(tools.repository)).map(|()| Counts::default())
    }),
    ("fuzz", Extent::Whole, |tools| {
        tools.cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check", "--", "-l"])?;
        fuzz::run(tools.repository, &target_directory(tools.repository), fuzz::STEP).map(|()| Counts::default())
    }),
    ("checklist", Extent::Fast, |tools| checklist::check(tools.repository).map(|()| Counts::default())),
];

/// Tests that ran, as cargo says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

struct Tools<'a> {
    repository: &'a Repository,
    target: Option<PathBuf>,
}

/// Runs all steps, also after one has failed, and says at the end what passed.
pub(crate) fn run(repository: &Repository, extent: Extent) -> Result<(), String> {
    let tools = Tools { repository, target: shared_target() };
    let mut total = Counts::default();
    let mut failed = Vec::new();
    let mut timed = Vec::new();
    for (name, at_least, step) in STEPS {
        if extent == Extent::Fast && *at_least == Extent::Whole {
            continue;
        }
        say(&format!("== {name}"));
        let begun = Instant::now();
        let ended = match step(&tools) {
            Ok(counts) => {
                total.passed += counts.passed;
                total.failed += counts.failed;
                if counts.failed == 0 { "ok" } else { "failed" }
            }
            Err(problem) => {
                fail(&problem);
                "failed"
            }
        };
        if ended == "failed" {
            failed.push(*name);
        }
        timed.push(format!("{name:<14} {ended:<7} {:>7.1} s", begun.elapsed().as_secs_f64()));
    }
    say("");
    timed.iter().for_each(|line| say(line));
    // A step that fails without any test is a failure as well: nobody should read this line and be content.
    let failures = total.failed.max(u64::try_from(failed.len()).unwrap_or(u64::MAX));
    say(&format!("{} passed, {failures} failed", total.passed));
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Where cargo builds.
pub(crate) fn target_directory(repository: &Repository) -> PathBuf {
    let said = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    // Below the root, if it is relative: we run in other places than the caller.
    repository.root().join(said.or_else(shared_target).unwrap_or_else(|| PathBuf::from("target")))
}

/// Where to build, if the caller has not said: a shared place outside the checkout, if there is one.
fn shared_target() -> Option<PathBuf> {
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        return None;
    }
    let shared = PathBuf::from(std::env::var_os("HOME")?).join(".cache/bailiwick/target");
    shared.is_dir().then_some(shared)
}

impl Tools<'_> {
    /// Runs cargo, shows what it says, and counts the tests in it.
    fn cargo(&self, arguments: &[&str]) -> Result<Counts, String> {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(self.repository.root()).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(target) = &self.target {
            command.env("CARGO_TARGET_DIR", target);
        }
        let mut child = command.spawn().map_err(|error| format!("cargo cannot be started: {error}"))?;
        let mut counts = Counts::default();
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n') {
                let line = line.map_err(|error| format!("cargo's output cannot be read: {error}"))?;
                let line = String::from_utf8_lossy(&line);
                counts.add(&line);
                say(&line);
            }
        }
        let status = child.wait().map_err(|error| format!("cargo was lost: {error}"))?;
        match (status.success(), counts.failed) {
            (true, _) => Ok(counts),
            // The failures are counted; the step's own failure would be one too many.
            (false, 1..) => Ok(counts),
            (false, 0) if counts.passed == 0 => Err(format!("cargo {} failed", arguments.join(" "))),
            (false, 0) => Ok(Counts { failed: 1, ..counts }),
        }
    }
}

impl Counts {
    /// Reads a line such as `test result: ok. 89 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, rest)) = line.split_once("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(number), Some(word)) =
                (words.next().and_then(|number| number.parse::<u64>().ok()), words.next())
            {
                match word {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_from_cargos_lines() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 89 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 6.96s",
            "test result: \u{1b}[31mFAILED\u{1b}[m. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "this line says 5 passed; 6 failed",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 90, failed: 2 });
    }

    #[test]
    fn fast_leaves_something_out_and_never_the_tests() {
        let fast: Vec<_> = STEPS.iter().filter(|(_, extent, _)| *extent == Extent::Fast).map(|step| step.0).collect();
        assert!(fast.contains(&"tests") && fast.contains(&"tidy"));
        assert!(fast.len() < STEPS.len());
    }
}
