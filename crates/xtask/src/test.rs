//! Everything that must hold before a commit, in the order in which it is cheap to know.

use std::cell::OnceCell;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::console::{fail, say};
use crate::postgres::{self, Postgres};
use crate::repository::Repository;
use crate::{checklist, crash, fuzz, packages, schemathesis, tidy};

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
        // It reads the packages of all platforms, of which a build has fetched this one's alone.
        tools.cargo(&["fetch", "--locked", "--quiet"])?;
        tools.cargo(&["deny", "--offline", "--log-level", "error", "check", "bans", "licenses", "sources"])
    }),
    ("packages", Extent::Whole, |tools| {
        packages::debian()?;
        packages::npm(tools.repository).map(|()| Counts::default())
    }),
    ("tests", Extent::Fast, |tools| tools.cargo(&["test", "--workspace", "--locked", "--no-fail-fast"])),
    ("on PostgreSQL", Extent::Fast, |tools| tools.on_postgres()),
    ("crash", Extent::Whole, |tools| crash::short(tools.repository).map(|()| Counts::default())),
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
    /// For tests, from the first one that wants it to the last.
    postgres: OnceCell<Postgres>,
}

/// Crates whose tests run a whole server or its inside, and so run once more on PostgreSQL. The store's own
/// suite runs on both at once.
const ON_POSTGRES: &[&str] = &["bailiwick-agent", "bailiwick-web", "bailiwick"];
/// Databases that these tests must make: fewer, and tests have quietly run on something else.
const DATABASES: u64 = 100;

/// Runs all steps, also after one has failed, and says at the end what passed.
pub(crate) fn run(repository: &Repository, extent: Extent) -> Result<(), String> {
    let tools = Tools { repository, target: shared_target(), postgres: OnceCell::new() };
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
    /// The PostgreSQL server of this run.
    fn postgres(&self) -> Result<&Postgres, String> {
        if self.postgres.get().is_none() {
            packages::debian()?;
            let _ = self.postgres.set(Postgres::start()?);
        }
        self.postgres.get().ok_or_else(|| "no PostgreSQL".to_owned())
    }

    /// Runs the whole servers' tests once more, on PostgreSQL. The programs are those that were just run:
    /// built anew for some crates alone they would be other programs.
    fn on_postgres(&self) -> Result<Counts, String> {
        let mut counts = Counts::default();
        // The store's suite has made its own before.
        let before = self.postgres()?.databases_of_tests()?;
        for (package, program, folder) in self.test_programs()? {
            if !ON_POSTGRES.contains(&package.as_str()) {
                continue;
            }
            say(&format!("     Running {}", program.display()));
            let mut command = Command::new(&program);
            command.current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder).env(postgres::CHOICE, "postgres");
            let ran = self.counted(&mut command)?;
            counts.passed += ran.passed;
            counts.failed += ran.failed;
        }
        let made = self.postgres()?.databases_of_tests()?.saturating_sub(before);
        if made < DATABASES {
            return Err(format!("only {made} databases were made: tests have run on something else than PostgreSQL"));
        }
        say(&format!("{made} databases were made on PostgreSQL"));
        Ok(counts)
    }

    /// The programs with tests: package, path, folder of the package.
    fn test_programs(&self) -> Result<Vec<(String, PathBuf, PathBuf)>, String> {
        let mut command = self.cargo_command(&["test", "--workspace", "--locked", "--no-run", "--message-format=json"]);
        let output =
            command.stderr(Stdio::null()).output().map_err(|error| format!("cargo cannot be started: {error}"))?;
        let lines = String::from_utf8_lossy(&output.stdout);
        let mut programs = Vec::new();
        for line in lines.lines() {
            let Ok(said) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let (Some(program), Some(manifest)) = (said["executable"].as_str(), said["manifest_path"].as_str()) else {
                continue;
            };
            let folder = PathBuf::from(manifest).parent().map(PathBuf::from).unwrap_or_default();
            if said["profile"]["test"] == true {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let package = if name == "bailiwick" { name } else { format!("bailiwick-{name}") };
                programs.push((package, PathBuf::from(program), folder));
            }
        }
        if programs.is_empty() { Err("cargo named no program with tests".to_owned()) } else { Ok(programs) }
    }

    fn cargo_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(self.repository.root());
        if let Some(target) = &self.target {
            command.env("CARGO_TARGET_DIR", target);
        }
        command
    }

    /// Runs cargo, shows what it says, and counts the tests in it.
    fn cargo(&self, arguments: &[&str]) -> Result<Counts, String> {
        let mut command = self.cargo_command(arguments);
        if arguments.first() != Some(&"test") {
            return self.counted_without_server(&mut command);
        }
        self.counted(&mut command)
    }

    /// Runs a program with tests, PostgreSQL beside it.
    fn counted(&self, command: &mut Command) -> Result<Counts, String> {
        command.env(postgres::SERVER, self.postgres()?.url());
        self.counted_without_server(command)
    }

    fn counted_without_server(&self, command: &mut Command) -> Result<Counts, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let mut counts = Counts::default();
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n') {
                let line = line.map_err(|error| format!("{name}: its output cannot be read: {error}"))?;
                let line = String::from_utf8_lossy(&line);
                counts.add(&line);
                say(&line);
            }
        }
        let status = child.wait().map_err(|error| format!("{name} was lost: {error}"))?;
        match (status.success(), counts.failed) {
            (true, _) => Ok(counts),
            // The failures are counted; the step's own failure would be one too many.
            (false, 1..) => Ok(counts),
            (false, 0) if counts.passed == 0 => Err(format!("{name} failed")),
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
