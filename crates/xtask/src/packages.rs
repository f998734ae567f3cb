//! What the tests need of the machine: programs from Debian's packages, npm packages, cargo's tools.
//!
//! Nothing is installed that is there already, and nothing by force: without the right to install, the
//! answer is a sentence that says what to do.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::console::say;
use crate::repository::Repository;

/// A Debian package, and how one sees that it is there.
type Package = (&'static str, fn() -> bool);

const DEBIAN: &[Package] = &[
    ("bubblewrap", || is_on_path("bwrap")),
    // Containers, with the runtime that works where control groups of both versions are, and what is in an image.
    ("podman", || is_on_path("podman")),
    ("runc", || is_on_path("runc")),
    ("busybox-static", || is_on_path("busybox")),
    ("chromium", || is_on_path("chromium")),
    ("postgresql", || crate::postgres::programs().is_some()),
    // libFuzzer is written in C++.
    ("g++", || is_on_path("c++")),
    ("python3", || is_on_path("python3")),
    ("python3-pip", || succeeds(Command::new("/usr/bin/python3").args(["-m", "pip", "--version"]))),
    ("curl", || is_on_path("curl")),
    ("git", || is_on_path("git")),
    ("python3-venv", || is_on_path("python3") && can_make_environments()),
];

/// Folders with a `package-lock.json` of their own.
const NPM: &[&str] = &["conformance/eve", "conformance/console", "conformance/mcp", "conformance/oidc"];

/// Makes sure of the Debian packages.
pub(crate) fn debian() -> Result<(), String> {
    let missing: Vec<&str> = DEBIAN.iter().filter(|(_, is_there)| !is_there()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let wanted = missing.join(" ");
    let before: &[&str] = if is_root() {
        &[]
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        &["sudo", "-n"]
    } else {
        return Err(format!("these packages are missing: {wanted}\nInstall them as root: apt-get install {wanted}"));
    };
    say(&format!("installing {wanted}"));
    apt(before, &["update", "-q"])?;
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(&missing);
    apt(before, &install)?;
    match DEBIAN.iter().find(|(_, is_there)| !is_there()) {
        None => Ok(()),
        Some((package, _)) => Err(format!("{package} was installed, and its programs are not to be found")),
    }
}

fn apt(before: &[&str], arguments: &[&str]) -> Result<(), String> {
    let mut words = before.iter().copied().chain(["apt-get"]).chain(arguments.iter().copied());
    let mut command = Command::new(words.next().unwrap_or("apt-get"));
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    if succeeds(&mut command) { Ok(()) } else { Err(format!("apt-get {} failed", arguments.join(" "))) }
}

/// Makes sure of the npm packages, each exactly as its lock file says.
pub(crate) fn npm(repository: &Repository) -> Result<(), String> {
    for folder in NPM {
        let folder = repository.root().join(folder);
        let lock = folder.join("package-lock.json");
        if !lock.exists() || is_newer(&folder.join("node_modules/.package-lock.json"), &lock) {
            continue;
        }
        if !is_on_path("npm") {
            return Err(
                "npm is missing, which the checks with the real eve client and a real browser need\nInstall it: apt-get install npm"
                    .to_owned(),
            );
        }
        say(&format!("npm ci in {}", folder.display()));
        let mut command = Command::new("npm");
        command.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
        if !succeeds(&mut command) {
            return Err(format!("npm ci in {} failed", folder.display()));
        }
    }
    Ok(())
}

/// Makes sure that there is `cargo deny`.
pub(crate) fn cargo_deny() -> Result<(), String> {
    if is_on_path("cargo-deny") {
        return Ok(());
    }
    say("installing cargo-deny, which takes some minutes");
    let mut command = Command::new("cargo");
    command.args(["install", "--locked", "--quiet", "cargo-deny"]);
    if succeeds(&mut command) { Ok(()) } else { Err("cargo install --locked cargo-deny failed".to_owned()) }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Debian has Python's `venv` in a package of its own; without it the module is there and does not work.
fn can_make_environments() -> bool {
    succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]).stderr(Stdio::null()))
}

fn is_newer(one: &Path, other: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    changed(one).zip(changed(other)).is_some_and(|(one, other)| one >= other)
}

fn is_on_path(program: &str) -> bool {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin"));
    std::env::split_paths(&places).chain(cargo).any(|place| place.join(program).is_file())
}

fn is_root() -> bool {
    // The owner of what we are: the kernel makes this file the process's own.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("a-program-that-nobody-has"));
    }

    #[test]
    fn the_newer_of_two_files_is_known() {
        let older = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(is_newer(&older, &older));
        assert!(!is_newer(Path::new("/no/such/file"), &older), "what is missing is not newer");
    }
}
