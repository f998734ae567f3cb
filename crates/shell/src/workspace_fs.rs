//! `/workspace` and `/tmp`: the interpreter's file system calls, answered from
//! directories of the host.
//!
//! Every path is parsed anew and every file is opened beneath the root
//! by [`bailiwick_files`]; symbolic links are shown but never followed and
//! never made. Must never touch the host's files any other way.

use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bailiwick_files::{EntryKind, FileError, Stat, Workspace};
use bailiwick_types::path::WorkspacePath;
use bashkit::{DirEntry, FileSystem, FileSystemExt, FileType, FsLimits, Metadata, Result, async_trait};

use crate::gate::Gate;
use crate::spec::ShellLimits;

/// One call's view of a directory. Blocks while it works, which only ever
/// blocks the call's own thread.
pub(crate) struct WorkspaceFs {
    workspace: Workspace,
    gate: Gate,
    limits: ShellLimits,
}

impl WorkspaceFs {
    pub(crate) fn new(workspace: Workspace, gate: Gate, limits: ShellLimits) -> Self {
        Self { workspace, gate, limits }
    }

    fn at(&self, path: &Path) -> Result<WorkspacePath> {
        self.gate.pass()?;
        parse(path)
    }

    /// Fails unless the parent is a directory: the interpreter's `>` does not
    /// make directories, and what lies beneath does.
    fn require_parent(&self, path: &WorkspacePath) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        match self.workspace.stat(&parent).map_err(answer)?.kind {
            EntryKind::Directory => Ok(()),
            EntryKind::Symlink => Err(not_followed()),
            _ => Err(answer(FileError::NotADirectory)),
        }
    }
}

#[async_trait]
impl FileSystemExt for WorkspaceFs {
    fn limits(&self) -> FsLimits {
        FsLimits::new().max_total_bytes(self.limits.written_bytes).max_file_size(self.limits.file_bytes)
    }
}

#[async_trait]
impl FileSystem for WorkspaceFs {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        self.workspace.read(&self.at(path)?, self.limits.file_bytes).map_err(answer)
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        let at = self.at(path)?;
        self.require_parent(&at)?;
        self.check_size(content.len() as u64)?;
        self.gate.pass_write(content.len())?;
        self.workspace.write(&at, content).map_err(answer)?;
        Ok(())
    }

    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        let at = self.at(path)?;
        self.require_parent(&at)?;
        let size = self.workspace.stat(&at).map_or(0, |stat| stat.size);
        self.check_size(size.saturating_add(content.len() as u64))?;
        self.gate.pass_write(content.len())?;
        self.workspace.append(&at, content).map_err(answer)
    }

    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        let at = self.at(path)?;
        self.gate.pass_write(0)?;
        let made = if recursive { self.workspace.mkdir_all(&at) } else { self.workspace.mkdir(&at) };
        made.map_err(answer)
    }

    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        let at = self.at(path)?;
        let removed = if recursive { self.workspace.remove_all(&at) } else { self.workspace.remove(&at) };
        removed.map_err(answer)?;
        if at.is_root() {
            return Err(IoError::new(ErrorKind::ResourceBusy, "Device or resource busy").into());
        }
        Ok(())
    }

    async fn stat(&self, path: &Path) -> Result<Metadata> {
        let stat = self.workspace.stat(&self.at(path)?).map_err(answer)?;
        Ok(metadata(stat))
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let max = self.limits.directory_entries;
        let listing = self.workspace.list(&self.at(path)?, max).map_err(answer)?;
        if listing.truncated {
            // A part of the names would look like all of them.
            return Err(answer(FileError::TooLarge { limit: max as u64 }));
        }
        let entries = listing.entries.into_iter().map(|entry| DirEntry {
            metadata: metadata(Stat { kind: entry.kind, size: entry.size, modified: entry.modified, mode: entry.mode }),
            name: entry.name,
        });
        Ok(entries.collect())
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        match self.workspace.stat(&self.at(path)?) {
            Ok(_) => Ok(true),
            Err(FileError::NotFound | FileError::NotADirectory) => Ok(false),
            Err(error) => Err(answer(error)),
        }
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        self.require_parent(&to)?;
        self.gate.pass_write(0)?;
        self.workspace.rename(&from, &to).map_err(answer)
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        self.require_parent(&to)?;
        let size = self.workspace.stat(&from).map_err(answer)?.size;
        self.gate.pass_write(usize::try_from(size).unwrap_or(usize::MAX))?;
        self.workspace.copy(&from, &to, self.limits.file_bytes).map_err(answer)?;
        Ok(())
    }

    async fn symlink(&self, _target: &Path, _link: &Path) -> Result<()> {
        self.gate.pass()?;
        let text = "links cannot be made here: copy the file instead";
        Err(IoError::new(ErrorKind::PermissionDenied, text).into())
    }

    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        match self.workspace.stat(&self.at(path)?).map_err(answer)?.kind {
            // Without a target the interpreter cannot follow it, not even to
            // a file of its own tree.
            EntryKind::Symlink => Err(not_followed()),
            _ => Err(IoError::new(ErrorKind::InvalidInput, "Invalid argument").into()),
        }
    }

    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        self.workspace.set_mode(&self.at(path)?, mode).map_err(answer)
    }

    async fn set_modified_time(&self, path: &Path, time: SystemTime) -> Result<()> {
        self.workspace.set_modified(&self.at(path)?, time).map_err(answer)
    }
}

impl WorkspaceFs {
    fn check_size(&self, size: u64) -> Result<()> {
        let limit = self.limits.file_bytes;
        if size > limit { Err(answer(FileError::TooLarge { limit })) } else { Ok(()) }
    }
}

/// The interpreter hands over absolute paths below the mount point.
fn parse(path: &Path) -> Result<WorkspacePath> {
    let text = path.to_str().ok_or_else(|| invalid("the name is not UTF-8".to_owned()))?;
    match text.trim_start_matches('/') {
        "" => Ok(WorkspacePath::root()),
        relative => WorkspacePath::parse(relative).map_err(|error| invalid(error.to_string())),
    }
}

fn invalid(text: String) -> bashkit::Error {
    IoError::new(ErrorKind::InvalidInput, text).into()
}

fn not_followed() -> bashkit::Error {
    IoError::new(ErrorKind::PermissionDenied, "Permission denied (symbolic links are not followed)").into()
}

/// The words of a real system where there are any, since both models and
/// scripts know them.
fn answer(error: FileError) -> bashkit::Error {
    let (kind, text) = match &error {
        FileError::NotFound => (ErrorKind::NotFound, "No such file or directory".to_owned()),
        FileError::NotAFile => (ErrorKind::IsADirectory, "Is a directory".to_owned()),
        FileError::NotADirectory => (ErrorKind::NotADirectory, "Not a directory".to_owned()),
        FileError::NotEmpty => (ErrorKind::DirectoryNotEmpty, "Directory not empty".to_owned()),
        FileError::Exists => (ErrorKind::AlreadyExists, "File exists".to_owned()),
        FileError::ReadOnly => (ErrorKind::ReadOnlyFilesystem, "Read-only file system".to_owned()),
        FileError::NoSpace => (ErrorKind::StorageFull, "No space left on device".to_owned()),
        FileError::TooLarge { limit } => (ErrorKind::FileTooLarge, format!("File too large (limit {limit})")),
        FileError::Refused { reason } => (ErrorKind::PermissionDenied, format!("Permission denied ({reason})")),
        _ => (ErrorKind::Other, "Input/output error".to_owned()),
    };
    IoError::new(kind, text).into()
}

fn metadata(stat: Stat) -> Metadata {
    Metadata {
        file_type: match stat.kind {
            EntryKind::File => FileType::File,
            EntryKind::Directory => FileType::Directory,
            EntryKind::Symlink => FileType::Symlink,
            EntryKind::Special | EntryKind::Unnameable => FileType::Fifo,
        },
        size: stat.size,
        mode: stat.mode,
        modified: stat.modified,
        created: stat.modified,
    }
}
