//! `/tmp`: a directory that outlives a call and may be shared by shells.
//!
//! It is an ordinary directory of the host, on whatever file system the
//! operator keeps short-lived data (a tmpfs, say), reached only beneath its
//! root. Must never be shared across accounts; who gets a clone of the handle
//! is the caller's decision (the agent's sandbox scope).

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_files::{Access, Owner, Workspace};
use bailiwick_types::path::WorkspacePath;

use crate::error::ShellError;

/// A handle of one `/tmp`. Clones are the same directory, which is removed
/// with the last of them.
#[derive(Debug, Clone)]
pub struct SharedTmp {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    files: Workspace,
    max_bytes: u64,
}

impl SharedTmp {
    /// A new empty directory in `parent` for about `max_bytes`, given to `owner` where the server may. The bound is
    /// looked at when a call starts, so calls that run at the same time may
    /// each use what was left.
    ///
    /// # Errors
    /// [`ShellError::Tmp`] or [`ShellError::Start`] if it cannot be made.
    pub fn new(parent: &Path, max_bytes: u64, owner: Option<Owner>) -> Result<Self, ShellError> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random)
            .map_err(|_| ShellError::Start { source: std::io::ErrorKind::Unsupported.into() })?;
        let path = parent.join(format!("tmp-{:032x}", u128::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path).map_err(|source| ShellError::Start { source })?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid))
                .map_err(|source| ShellError::Start { source })?;
        }
        let files = Workspace::open(&path, Access::ReadWrite, owner).map_err(|source| ShellError::Tmp { source })?;
        Ok(Self { directory: Arc::new(Directory { path, files, max_bytes }) })
    }

    pub(crate) fn files(&self) -> &Workspace {
        &self.directory.files
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.directory.max_bytes
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let emptied = self.files.remove_all(&WorkspacePath::root());
        if emptied.is_err() || std::fs::remove_dir(&self.path).is_err() {
            tracing::warn!("a temporary directory could not be removed");
        }
    }
}
