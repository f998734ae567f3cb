//! The handle of one workspace directory, and what is known of an entry.
//!
//! The root's descriptor leaves this crate for one purpose, to be inherited
//! by a worker process that makes a [`Workspace`] of it again: with it, a
//! caller could open by rules other than ours.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bailiwick_types::path::WorkspacePath;
use rustix::fs::{Mode, OFlags};

use crate::beneath::{self, Node};
use crate::error::FileError;
use crate::walk::{WalkLimits, Walked};
use crate::write;

/// One space's directory. Clones share the same open root.
#[derive(Clone, Debug)]
pub struct Workspace {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: OwnedFd,
    pub(crate) access: Access,
    pub(crate) owner: Option<Owner>,
    /// Held from the comparison to the rename of a conditional write, so that
    /// two writers of this process cannot both see the old content.
    pub(crate) commit: Mutex<()>,
}

/// What may be done with a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every change fails with [`FileError::ReadOnly`].
    ReadOnly,
    /// Files may be read and changed.
    ReadWrite,
}

/// To whom new files and directories are given. Needs a privileged server
/// unless it is the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What an entry is. Links are reported, never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; it cannot be opened.
    Symlink,
    /// A FIFO, socket or device; it cannot be opened.
    Special,
    /// A name that no [`WorkspacePath`] can hold (not UTF-8, or with control
    /// characters). Shown escaped; it cannot be opened.
    Unnameable,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file name.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes, for a regular file; else 0.
    pub size: u64,
    /// Last change of the content.
    pub modified: SystemTime,
    /// Permission bits, without set-id and sticky.
    pub mode: u32,
}

/// What is known of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: EntryKind,
    /// Bytes, for a regular file; else 0.
    pub size: u64,
    /// Last change of the content.
    pub modified: SystemTime,
    /// Permission bits, without set-id and sticky.
    pub mode: u32,
}

/// How much a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Sum of the sizes of regular files, in bytes.
    pub bytes: u64,
    /// Entries seen.
    pub entries: u64,
    /// Whether counting stopped at a limit, so that both numbers are too low.
    pub truncated: bool,
}

impl Workspace {
    /// Opens the directory of a space. `dir` is the operator's path; its last
    /// component may not be a symbolic link.
    ///
    /// # Errors
    /// [`FileError::Unsupported`] on a kernel without `openat2`, else what
    /// the host answered.
    pub fn open(dir: &Path, access: Access, owner: Option<Owner>) -> Result<Self, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(dir, flags, Mode::empty()).map_err(|errno| FileError::of(errno, "open the workspace"))?;
        Self::from_root_fd(root, access, owner)
    }

    /// The workspace of a directory that is open already, as inherited from
    /// [`Workspace::root_fd`] of another process.
    ///
    /// # Errors
    /// [`FileError::NotADirectory`] for anything else, and
    /// [`FileError::Unsupported`] on a kernel without `openat2`.
    pub fn from_root_fd(root: OwnedFd, access: Access, owner: Option<Owner>) -> Result<Self, FileError> {
        // Proves at once that the kernel resolves beneath a descriptor, and
        // not at the first request of a tenant.
        beneath::open_dir(&root, ".")?;
        write::begun();
        Ok(Self { inner: Arc::new(Inner { root, access, owner, commit: Mutex::new(()) }) })
    }

    /// A second descriptor of the root, to be handed to a worker process and
    /// to nothing else. It allows looking up names only (`O_PATH`).
    ///
    /// # Errors
    /// What the host answered when the root was opened again.
    pub fn root_fd(&self) -> Result<OwnedFd, FileError> {
        beneath::open_dir(&self.inner.root, ".")
    }

    /// To whom new files are given.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.inner.owner
    }

    /// What may be done here.
    #[must_use]
    pub fn access(&self) -> Access {
        self.inner.access
    }

    /// The same directory, but only for reading.
    ///
    /// # Errors
    /// What the host answered when the root was opened again.
    pub fn read_only(&self) -> Result<Self, FileError> {
        let root = beneath::open_dir(&self.inner.root, ".")?;
        let owner = self.inner.owner;
        Ok(Self { inner: Arc::new(Inner { root, access: Access::ReadOnly, owner, commit: Mutex::new(()) }) })
    }

    /// What stands at `path`; a symbolic link is reported as such.
    ///
    /// # Errors
    /// [`FileError::NotFound`], or a refusal if a directory on the way is a
    /// link.
    pub fn stat(&self, path: &WorkspacePath) -> Result<Stat, FileError> {
        let node = match self.place(path) {
            Ok(place) => place.node()?.ok_or(FileError::NotFound)?,
            Err(FileError::NotAFile) => Node::of_fd(&self.inner.root)?,
            Err(error) => return Err(error),
        };
        Ok(node.stat())
    }

    /// Adds up the sizes of everything below `path`.
    ///
    /// # Errors
    /// As for [`Workspace::walk`].
    pub fn usage(&self, path: &WorkspacePath, limits: WalkLimits) -> Result<Usage, FileError> {
        let mut usage = Usage::default();
        let mut walk = self.walk(path, limits)?;
        for Walked { entry, .. } in walk.by_ref() {
            usage.entries += 1;
            usage.bytes = usage.bytes.saturating_add(entry.size);
        }
        usage.truncated = walk.truncated();
        Ok(usage)
    }

    pub(crate) fn require_writable(&self) -> Result<(), FileError> {
        match self.inner.access {
            Access::ReadOnly => Err(FileError::ReadOnly),
            Access::ReadWrite => Ok(()),
        }
    }
}
