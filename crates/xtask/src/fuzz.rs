//! The fuzz targets of `fuzz/`, built and run on the stable toolchain: libFuzzer needs coverage counters,
//! which stable rustc can insert, and no sanitizer, which it cannot.
//!
//! What is found lies below the target directory. The corpus in the repository is only read, but by
//! [`keep`], which takes into it what adds coverage.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::console::{fail, say};
use crate::packages;
use crate::repository::Repository;

/// How long each target runs as a step of the tests.
pub(crate) const STEP: Duration = Duration::from_secs(10);
/// The longest input, bytes. Every parser here has its own limit; these are for what lies below it.
const LONGEST: u32 = 4096;
/// As `cargo fuzz` has them, without a sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16";

/// The targets, built.
struct Fuzz {
    /// `fuzz/`.
    folder: PathBuf,
    /// Where what is found lies.
    found: PathBuf,
    programs: PathBuf,
    names: Vec<String>,
}

/// Runs every target for so long, also after one has found something.
pub(crate) fn run(repository: &Repository, target: &Path, each: Duration) -> Result<(), String> {
    let fuzz = Fuzz::build(repository, target)?;
    let mut broken = Vec::new();
    for name in &fuzz.names {
        say(&format!("{name}: {} s", each.as_secs()));
        if !fuzz.target(name, each)? {
            broken.push(name.as_str());
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("the fuzzer found something in: {}", broken.join(", "))) }
}

/// Runs every target, all together for so many minutes.
pub(crate) fn for_minutes(repository: &Repository, target: &Path, minutes: &str) -> Result<(), String> {
    let minutes: u32 = minutes.parse().map_err(|_| format!("--minutes takes a whole number, not {minutes:?}"))?;
    let count = u32::try_from(names(&repository.root().join("fuzz"))?.len()).unwrap_or(1).max(1);
    run(repository, target, Duration::from_secs(60) * minutes / count)
}

/// Takes what was found into the repository's corpus, as far as it adds coverage.
pub(crate) fn keep(repository: &Repository, target: &Path) -> Result<(), String> {
    let fuzz = Fuzz::build(repository, target)?;
    for name in &fuzz.names {
        let (corpus, found) = (fuzz.folder.join("corpus").join(name), fuzz.found.join(name));
        std::fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
        let mut command = fuzz.command(name);
        command.arg("-merge=1").arg(corpus).arg(found);
        if !succeeds(&mut command)? {
            return Err(format!("the corpus of {name} could not be merged"));
        }
    }
    Ok(())
}

/// The targets, by their files: one that is not run is worth nothing.
fn names(folder: &Path) -> Result<Vec<String>, String> {
    let targets = folder.join("fuzz_targets");
    let entries = std::fs::read_dir(&targets).map_err(|error| format!("{}: {error}", targets.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    if names.is_empty() { Err(format!("{} has no targets", targets.display())) } else { Ok(names) }
}

impl Fuzz {
    fn build(repository: &Repository, target: &Path) -> Result<Self, String> {
        packages::debian()?;
        let folder = repository.root().join("fuzz");
        let names = names(&folder)?;
        // With a target of their own, build scripts and macros are left without counters.
        let host = host()?;
        let target = target.join("fuzz");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--locked", "--quiet", "--bins", "--target", &host]).arg("--manifest-path");
        cargo.arg(folder.join("Cargo.toml")).env("CARGO_TARGET_DIR", &target);
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", FLAGS);
        if !succeeds(&mut cargo)? {
            return Err("the fuzz targets could not be built".to_owned());
        }
        let programs = target.join(host).join("debug");
        Ok(Self { folder, found: target.join("found"), programs, names })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_funcs=0", "-close_fd_mask=1"]);
        command.arg(format!("-max_len={LONGEST}"));
        command
    }

    /// Runs one target. Whether it found nothing.
    fn target(&self, name: &str, time: Duration) -> Result<bool, String> {
        let failed = |at: &Path| {
            let at = at.display().to_string();
            move |error: std::io::Error| format!("{at}: {error}")
        };
        let (found, crashes) = (self.found.join(name), self.found.join("crashes").join(name));
        for dir in [&found, &crashes] {
            std::fs::create_dir_all(dir).map_err(failed(dir))?;
        }
        // Read as well, but only the first one is written to.
        let corpus = self.folder.join("corpus").join(name);
        if std::fs::read_dir(&corpus).map_err(failed(&corpus))?.next().is_none() {
            return Err(format!("{} has no inputs to begin with", corpus.display()));
        }
        let mut command = self.command(name);
        command.arg(format!("-max_total_time={}", time.as_secs().max(1)));
        command.arg(format!("-artifact_prefix={}/", crashes.display())).arg(&found).arg(&corpus);
        let before = inputs(&crashes)?;
        if succeeds(&mut command)? {
            return Ok(true);
        }
        fail(&format!("{name} found something"));
        for input in inputs(&crashes)?.into_iter().filter(|input| !before.contains(input)) {
            fail(&format!("the input: {}", input.display()));
            fail(&format!("again:     {} {}", self.programs.join(name).display(), input.display()));
        }
        Ok(false)
    }
}

fn inputs(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// The host's triple, as rustc names it.
fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("rustc cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not say what host this is".to_owned())
}

fn succeeds(command: &mut Command) -> Result<bool, String> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    Ok(status.success())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_binary_and_its_corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let names = names(&folder).unwrap();
        let manifest: toml::Table = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
        let bins = manifest["bin"].as_array().unwrap();
        let mut built: Vec<&str> = bins.iter().map(|bin| bin["name"].as_str().unwrap()).collect();
        built.sort_unstable();
        assert_eq!(names, built);
        for name in names {
            assert!(!inputs(&folder.join("corpus").join(&name)).unwrap().is_empty(), "{name}");
        }
    }
}
