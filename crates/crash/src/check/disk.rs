//! What the calls left on the disk: each token at most once, exactly once where the stream says that the
//! call ran, and never where it says that it did not. And nothing half-written beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Checking;
use super::sessions::{Call, End};

/// How long the start's cleaning may take.
const CLEANED: Duration = Duration::from_secs(5);

pub(super) async fn check(checking: &Checking<'_>, calls: &[Call], findings: &mut Vec<String>) -> Result<(), String> {
    let spaces = spaces(checking.data);
    let mut explained: BTreeSet<PathBuf> = BTreeSet::new();
    for call in calls {
        let Some(folder) = spaces.get(&call.space) else { continue };
        let file = folder.join(if call.tool == "bash" { "log" } else { "notes" }).join(&call.token);
        explained.insert(file.clone());
        let lines = std::fs::read_to_string(&file).ok().map(|text| (text.lines().count(), text));
        let times = lines.as_ref().map_or(0, |(count, _)| *count);
        let (least, most) = match call.end {
            Some(End::Completed) => (1, 1),
            Some(End::Interrupted | End::Failed(_)) => (0, 1),
            Some(End::Rejected) | None => (0, 0),
        };
        let said = call.end.as_ref();
        if times < least || times > most {
            findings.push(format!(
                "the call {} ({}, {}) is {said:?} and its token is there {times} times",
                call.id, call.tool, call.token
            ));
        } else if let Some((_, text)) = &lines
            && times > 0
            && *text != format!("{}\n", call.token)
        {
            findings.push(format!("the file of {} holds something else: {text:?}", call.token));
        }
    }
    for folder in spaces.values() {
        for kind in ["log", "notes"] {
            for path in entries(&folder.join(kind)) {
                if !explained.contains(&path) && !is_temporary(&path) {
                    findings.push(format!("{}: no call in any stream made it", path.display()));
                }
            }
        }
    }
    leftovers(checking, findings).await
}

/// The folders of spaces, by the spaces' ids.
fn spaces(data: &Path) -> BTreeMap<String, PathBuf> {
    let accounts = entries(&data.join("accounts"));
    let folders = accounts.iter().flat_map(|account| entries(&account.join("spaces")));
    folders.filter_map(|folder| Some((folder.file_name()?.to_str()?.to_owned(), folder))).collect()
}

pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".bailiwick-"))
}

fn temporaries(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() {
            temporaries(&path, found);
        } else if is_temporary(&path) {
            found.push(path);
        }
    }
}

/// Folders of accounts that were never made; where accounts have files of their own at all.
fn unmade(data: &Path) -> Vec<String> {
    let accounts = entries(&data.join("accounts"));
    let (made, unmade): (Vec<_>, Vec<_>) = accounts.iter().partition(|account| account.join("account.db").exists());
    if made.is_empty() {
        return Vec::new();
    }
    unmade.iter().map(|account| format!("{}: an account's folder without its database", account.display())).collect()
}

/// Temporary files and folders without a space. They are cleaned up beside the serving of requests, so they
/// have a moment to go.
async fn leftovers(checking: &Checking<'_>, findings: &mut Vec<String>) -> Result<(), String> {
    let mut known = BTreeSet::new();
    for person in checking.world.people.iter() {
        let listed = checking.client.done("GET", "/api/v1/spaces", &person.key, None).await?;
        known.extend(listed.as_array().into_iter().flatten().filter_map(|row| row["id"].as_str().map(str::to_owned)));
    }
    let begun = Instant::now();
    loop {
        let mut found = unmade(checking.data);
        for (id, folder) in spaces(checking.data) {
            if !known.contains(&id) {
                found.push(format!("{}: a folder without its space", folder.display()));
            }
            let mut left = Vec::new();
            temporaries(&folder, &mut left);
            found.extend(left.iter().map(|path| format!("{}: a temporary file is left", path.display())));
        }
        if found.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > CLEANED {
            findings.append(&mut found);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
