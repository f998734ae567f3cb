//! Ratios that must not grow. Ratios and not times: a time says more about the machine than about us.

use std::process::Command;

use crate::repository::Repository;

/// Crates that have a bench target named `ratios`.
const CRATES: &[&str] = &["bailiwick-store"];

/// Runs them one after another, with nothing else of ours beside them.
pub(crate) fn run(repository: &Repository) -> Result<(), String> {
    for name in CRATES {
        let mut command = Command::new("cargo");
        command.args(["bench", "--locked", "-p", name, "--bench", "ratios"]).current_dir(repository.root());
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(_) => return Err(format!("the ratios of {name} could not be measured, or are too high")),
            Err(error) => return Err(format!("cargo cannot be started: {error}")),
        }
    }
    Ok(())
}
