//! The checks: what is there, against what was acknowledged. Everything is read anew, through the API and
//! from the disk; each finding is a sentence.

mod disk;
mod log;
mod sessions;
mod things;

use std::path::Path;

use crate::client::Client;
use crate::history::Facts;
use crate::world::World;

/// What is compared with what.
pub struct Checking<'a> {
    /// The server, at rest.
    pub client: &'a Client,
    /// The people.
    pub world: &'a World,
    /// What was acknowledged.
    pub facts: &'a Facts,
    /// The data directory.
    pub data: &'a Path,
}

/// Everything that is not as it must be.
///
/// # Errors
/// If something cannot be read at all.
pub async fn check(checking: &Checking<'_>) -> Result<Vec<String>, String> {
    let mut findings = Vec::new();
    let calls = sessions::check(checking, &mut findings).await?;
    disk::check(checking, &calls, &mut findings).await?;
    things::check(checking, &mut findings).await?;
    log::check(checking, &calls, &mut findings).await?;
    Ok(findings)
}
