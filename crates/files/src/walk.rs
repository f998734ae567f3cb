//! Walking a tree with a bound on its depth and on the number of entries.
//!
//! Every directory is opened anew beneath the root, so that a walk never
//! leaves it, whatever is swapped meanwhile, and holds one descriptor at a
//! time.

use std::vec;

use bailiwick_types::path::WorkspacePath;

use crate::beneath;
use crate::error::FileError;
use crate::tree::read_entries;
use crate::workspace::{Entry, EntryKind, Workspace};

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkLimits {
    /// Directories below the start that are entered; 0 lists the start only.
    pub depth: usize,
    /// Entries that are returned.
    pub entries: usize,
}

/// One entry of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// Its path from the root; for [`EntryKind::Unnameable`] the directory's.
    pub path: WorkspacePath,
    /// What it is.
    pub entry: Entry,
}

/// A depth-first walk in the order of names. Links are reported and not
/// entered; directories that vanish or cannot be opened are counted in
/// [`Walk::skipped`].
#[derive(Debug)]
pub struct Walk {
    workspace: Workspace,
    limits: WalkLimits,
    levels: Vec<Level>,
    /// The directory returned last, entered by the next step.
    pending: Option<WorkspacePath>,
    taken: usize,
    skipped: usize,
    truncated: bool,
}

#[derive(Debug)]
struct Level {
    path: WorkspacePath,
    entries: vec::IntoIter<Entry>,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self { depth: bailiwick_types::path::MAX_COMPONENTS, entries: 100_000 }
    }
}

impl Workspace {
    /// Walks everything below a directory.
    ///
    /// # Errors
    /// What opening the directory itself answers.
    pub fn walk(&self, path: &WorkspacePath, limits: WalkLimits) -> Result<Walk, FileError> {
        let mut walk = Walk {
            workspace: self.clone(),
            limits,
            levels: Vec::new(),
            pending: None,
            taken: 0,
            skipped: 0,
            truncated: false,
        };
        walk.enter(path.clone())?;
        Ok(walk)
    }
}

impl Walk {
    /// Whether entries were left out because of a limit.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// How many directories could not be opened.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Does not enter the directory that was returned last.
    pub fn skip_directory(&mut self) {
        self.pending = None;
    }

    fn enter(&mut self, path: WorkspacePath) -> Result<(), FileError> {
        // Entries read but not yet returned count as well, so that memory is
        // bounded by the limit and not by the number of levels times it.
        let waiting: usize = self.levels.iter().map(|level| level.entries.len()).sum();
        let room = self.limits.entries.saturating_sub(self.taken + waiting);
        let fd = beneath::open_dir_entries(&self.workspace.inner.root, path.as_str())?;
        let listing = read_entries(fd, room)?;
        self.truncated |= listing.truncated;
        self.levels.push(Level { path, entries: listing.entries.into_iter() });
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Walked;

    fn next(&mut self) -> Option<Walked> {
        if let Some(path) = self.pending.take() {
            if self.levels.len() > self.limits.depth {
                self.truncated = true;
            } else if self.enter(path).is_err() {
                self.skipped += 1;
            }
        }
        loop {
            let level = self.levels.last_mut()?;
            let Some(entry) = level.entries.next() else {
                self.levels.pop();
                continue;
            };
            self.taken += 1;
            let path = match level.path.join(&entry.name) {
                Ok(path) if entry.kind != EntryKind::Unnameable => path,
                // Too deep or too long to be named from the root.
                Err(_) if entry.kind != EntryKind::Unnameable => {
                    self.truncated = true;
                    continue;
                }
                _ => level.path.clone(),
            };
            if entry.kind == EntryKind::Directory {
                self.pending = Some(path.clone());
            }
            return Some(Walked { path, entry });
        }
    }
}
