//! schemathesis: calls every operation of a running server's `/openapi.json` with what fits the document and
//! with what does not. The work is `tests/schemathesis/run.py`'s; here it gets its interpreter, its packages
//! (exactly those of `requirements.txt`, by their hashes) and a server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::console::say;
use crate::packages;
use crate::repository::Repository;

/// Runs it. Everything that is made on the way lies below the target directory.
pub(crate) fn run(repository: &Repository, target: &Path) -> Result<(), String> {
    packages::debian()?;
    let folder = repository.root().join("tests/schemathesis");
    let python = environment(&folder, &target.join("schemathesis"))?;
    ran(Command::new("cargo")
        .args(["build", "--locked", "--quiet", "-p", "bailiwick"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(repository.root()))?;
    ran(Command::new(python).arg(folder.join("run.py")).arg(target.join("debug/bailiwick")))
}

/// The interpreter of a virtual environment with the packages in it. It is made anew when they change.
fn environment(folder: &Path, at: &Path) -> Result<PathBuf, String> {
    let requirements = folder.join("requirements.txt");
    let wanted = std::fs::read(&requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    let (python, stamp) = (at.join("bin/python"), at.join("requirements.txt"));
    if python.exists() && std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    say("installing schemathesis");
    ran(Command::new("python3").args(["-m", "venv", "--clear"]).arg(at))?;
    ran(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"])
        .arg(&requirements))?;
    // Written last, so that half an installation is not taken for a whole one.
    std::fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(python)
}

fn ran(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            Err(format!("{name} {} ended with {status}", words.join(" ")))
        }
        Err(error) => Err(format!("{name} cannot be started: {error}")),
    }
}
