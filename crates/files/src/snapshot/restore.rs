//! Putting a kept state back.
//!
//! Must never remove or replace what is not kept: only what the state of just before names is taken away, so
//! that putting back can itself be undone, also one that was ended in the middle.

use std::collections::BTreeMap;

use bailiwick_types::path::WorkspacePath;

use super::{CONTENTS, Item, Manifest, Snapshots, hex, named};
use crate::error::FileError;
use crate::workspace::Workspace;
use crate::write::Expect;

/// What was done to get back to a kept state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Files, links and directories that were written or made.
    pub written: u64,
    /// Files, links and directories that were taken away.
    pub removed: u64,
    /// Those of which the mode alone was changed.
    pub modes: u64,
    /// What is not as it was then, and why: a code by its path.
    pub left: BTreeMap<String, &'static str>,
}

impl Snapshots {
    /// Makes of the state `now` of the workspace the state `then`. `now` must be kept as well, and nothing may
    /// have changed since. Files get the workspace's owner and the time of now.
    ///
    /// # Errors
    /// [`FileError::ReadOnly`], and [`FileError::NoSpace`] where the disk is full: a part is done then. What
    /// fails of a single path stands in [`Restored::left`].
    pub fn restore(&self, space: &Workspace, then: &Manifest, now: &Manifest) -> Result<Restored, FileError> {
        space.require_writable()?;
        let mut restored = Restored::default();
        // From the inside out: a directory is removed when it is empty, and stays if there is something in it that
        // is not kept.
        for (path, item) in now.items.iter().rev() {
            let stays = match then.items.get(path) {
                Some(other) => other.is_directory() == item.is_directory(),
                None => then.may_have_had(path),
            };
            if !stays {
                let done = parse(path).and_then(|path| space.remove(&path));
                restored.removed += restored.count(path, done)?;
            }
        }
        for (path, item) in &then.items {
            if let Some(reason) = now.left_out.get(path)
                && !now.items.contains_key(path)
            {
                restored.left.insert(path.clone(), reason.code());
                continue;
            }
            let found = now.items.get(path).filter(|found| found.is_directory() == item.is_directory());
            match (found, item) {
                (Some(found), item) if found.is_same(item) => {}
                (Some(Item::Directory { .. }), Item::Directory { .. }) => {}
                (Some(Item::File { sha256: old, .. }), Item::File { mode, sha256, .. }) if old == sha256 => {
                    let done = parse(path).and_then(|path| space.set_mode(&path, *mode));
                    restored.modes += restored.count(path, done)?;
                }
                (found, item) => {
                    let done = parse(path).and_then(|path| self.put_back(space, &path, found, item));
                    restored.written += restored.count(path, done)?;
                }
            }
        }
        // Last, because a directory that may not be written is filled before.
        for (path, item) in then.items.iter().rev() {
            let Item::Directory { mode } = item else { continue };
            if now.items.get(path) == Some(item) || restored.left.contains_key(path) {
                continue;
            }
            let done = parse(path).and_then(|path| space.set_mode(&path, *mode));
            let done = restored.count(path, done)?;
            if now.items.get(path).is_some_and(Item::is_directory) {
                restored.modes += done;
            }
        }
        Ok(restored)
    }

    fn put_back(
        &self,
        space: &Workspace,
        path: &WorkspacePath,
        found: Option<&Item>,
        item: &Item,
    ) -> Result<(), FileError> {
        match item {
            Item::Directory { .. } => space.mkdir(path),
            Item::Link { text } => space.put_link(path, text, known(found)),
            Item::File { mode, size, sha256, .. } => {
                if matches!(found, Some(Item::Link { .. })) {
                    space.remove(path)?;
                }
                let content = self.folder.reader(&named(CONTENTS, &hex(sha256))?)?;
                let expect = match found {
                    Some(Item::File { .. }) => Expect::Anything,
                    _ => Expect::Absent,
                };
                space.write_known(path, content, (*sha256, *size), expect)?;
                space.set_mode(path, *mode)
            }
        }
    }
}

impl Restored {
    /// One if it was done. What failed of this path alone is noted; a disk that is full ends it all.
    fn count(&mut self, path: &str, done: Result<(), FileError>) -> Result<u64, FileError> {
        match done {
            Ok(()) => Ok(1),
            Err(error @ (FileError::NoSpace | FileError::ReadOnly)) => Err(error),
            Err(error) => {
                self.left.insert(path.to_owned(), error.code());
                Ok(0)
            }
        }
    }
}

/// What may be replaced: only what is kept.
fn known(found: Option<&Item>) -> Expect {
    match found {
        Some(_) => Expect::Anything,
        None => Expect::Absent,
    }
}

fn parse(path: &str) -> Result<WorkspacePath, FileError> {
    WorkspacePath::parse(path).map_err(|_| FileError::NotFound)
}
