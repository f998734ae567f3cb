//! Hardships other than death: an orderly end under load, a full disk, a data directory that cannot be
//! written, a busy database, a clock that jumps, a database server that is cut off. Each scenario has its own
//! server and two accounts, and says what was not as it must be.

mod clock;
mod database;
mod disk;
mod drain;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

pub use clock::clock;
pub use database::{Forwarder, busy, cut_off};
pub use disk::{full_disk, read_only};
pub use drain::drain;

use crate::rounds::Plan;

/// A scenario that runs.
pub type Scenario<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// All of them that fit the plan's database.
pub fn all(plan: &Plan) -> Vec<(&'static str, Scenario<'_>)> {
    let mut all: Vec<(&'static str, Scenario<'_>)> =
        vec![("drain", Box::pin(drain(plan))), ("clock", Box::pin(clock(plan)))];
    match &plan.database {
        None => {
            all.push(("full disk", Box::pin(full_disk(plan))));
            all.push(("read-only", Box::pin(read_only(plan))));
            all.push(("busy", Box::pin(busy(plan))));
        }
        Some(url) => all.push(("database cut off", Box::pin(cut_off(plan, url)))),
    }
    all
}

/// A finding, unless it is so.
fn must(so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(what()) }
}

/// Findings as one problem.
fn none(findings: Vec<String>) -> Result<(), String> {
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

/// A folder that something is mounted on until this is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// Mounts; as root alone.
    fn new(on: &'a Path, arguments: &[&str]) -> Result<Self, String> {
        std::fs::create_dir_all(on).map_err(|error| error.to_string())?;
        let done = std::process::Command::new("mount").args(arguments).arg(on).output();
        let done = done.map_err(|error| format!("mount: {error}"))?;
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(Self(on)) } else { Err(format!("nothing can be mounted here: {told}")) }
    }

    /// Changes what is mounted.
    fn again(&self, options: &str) -> Result<(), String> {
        let done = std::process::Command::new("mount").args(["-o", options]).arg(self.0).status();
        let done = done.map_err(|error| format!("mount: {error}"))?;
        must(done.success(), || format!("mount -o {options} was refused"))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Lazily: a process that still has a file there must not keep the folder from being removed.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}
