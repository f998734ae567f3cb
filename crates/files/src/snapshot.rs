//! Kept states of a workspace: what its files were at one moment, so that they can be put back.
//!
//! Contents lie by their SHA-256 in a folder of the server's own, beside the workspace and never in it. A
//! [`Manifest`] names them. A hostile process may change the tree during every call: whatever is kept was copied
//! first and hashed from the copy, so a manifest never names content that was not read as such. It may be a mix
//! of two states of a file that was written meanwhile.
//!
//! Must never follow a link, wait for a FIFO, or remove what is not kept.

mod manifest;
mod restore;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bailiwick_types::path::WorkspacePath;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

pub use manifest::{Change, Changes, Item, LeftOut, Manifest, Stamp};
pub use restore::Restored;

use crate::beneath::{self, Node, Place};
use crate::error::{FileError, Refusal};
use crate::tree::is_dot;
use crate::workspace::{Access, EntryKind, Workspace};
use crate::write::{TICK, fresh_name};

/// How much one kept state may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Entries of the tree. A tree with more is not kept at all.
    pub entries: usize,
    /// Bytes of one file. A larger one is left out, and named.
    pub file_bytes: u64,
    /// Bytes that may be added to what is kept already. A tree that needs more is not kept at all.
    pub new_bytes: u64,
}

/// A state that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What was there.
    pub manifest: Manifest,
    /// Files whose content was read; the others were as in the last manifest.
    pub read: u64,
    /// Bytes that were added to what is kept.
    pub added: u64,
}

/// What [`Snapshots::retain`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Files, of contents and of manifests.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The folder with the kept states of one workspace. Whoever uses it holds it alone: what one call keeps and has
/// not saved, [`Snapshots::retain`] of another would remove.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: Workspace,
}

const CONTENTS: &str = "contents";
const MANIFESTS: &str = "manifests";
const KEEPING: &str = "keep the file";
/// Largest manifest that is read back, bytes.
const MANIFEST_BYTES: u64 = 256 * 1024 * 1024;

impl Snapshots {
    /// Opens the folder, and makes it if it is not there: for the server's user alone.
    ///
    /// # Errors
    /// What the host answered.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        match rustix::fs::mkdir(dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError::of(errno, "make the folder of kept states")),
        }
        let folder = Workspace::open(dir, Access::ReadWrite, None)?;
        for name in [CONTENTS, MANIFESTS] {
            match rustix::fs::mkdirat(&folder.inner.root, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(FileError::of(errno, "make the folder of kept states")),
            }
        }
        Ok(Self { folder })
    }

    /// Keeps the state of `space`. What is as it was in `last` is not read again; `last` must be of this folder.
    /// The manifest itself is not written: see [`Snapshots::save`].
    ///
    /// # Errors
    /// [`FileError::TooLarge`] for a tree with too many entries, [`FileError::NoSpace`] where it needs more bytes
    /// than there may be. Nothing is kept then.
    pub fn take(&self, space: &Workspace, last: Option<&Manifest>, limits: SnapshotLimits) -> Result<Taken, FileError> {
        let mut taking = Taking {
            contents: beneath::open_dir(&self.folder.inner.root, CONTENTS)?,
            last,
            limits,
            found: 0,
            fresh: Vec::new(),
            taken: Taken { manifest: Manifest::default(), read: 0, added: 0 },
        };
        match taking.walk(space) {
            Ok(()) => Ok(taking.taken),
            Err(error) => {
                for name in &taking.fresh {
                    // What stays is removed by the next `retain`.
                    let _ = rustix::fs::unlinkat(&taking.contents, name.as_str(), AtFlags::empty());
                }
                Err(error)
            }
        }
    }

    /// Writes a manifest under a name.
    ///
    /// # Errors
    /// [`FileError::Exists`] if the name is taken.
    pub fn save(&self, name: &str, manifest: &Manifest) -> Result<(), FileError> {
        let path = named(MANIFESTS, name)?;
        self.folder.write_if(&path, manifest.encode().as_bytes(), crate::Expect::Absent)?;
        self.folder.set_mode(&path, 0o600)
    }

    /// Reads a manifest back.
    ///
    /// # Errors
    /// [`FileError::NotFound`], and [`FileError::Changed`] for one that is not whole.
    pub fn load(&self, name: &str) -> Result<Manifest, FileError> {
        let text = self.folder.read(&named(MANIFESTS, name)?, MANIFEST_BYTES)?;
        std::str::from_utf8(&text).ok().and_then(Manifest::decode).ok_or(FileError::Changed)
    }

    /// Removes all manifests but those of these names, and every content that none of them names: also what a
    /// server left that was killed while it kept something.
    ///
    /// # Errors
    /// If a manifest of these names cannot be read: then nothing is removed.
    pub fn retain(&self, names: &[&str]) -> Result<Dropped, FileError> {
        let mut contents = std::collections::HashSet::new();
        for name in names {
            contents.extend(self.load(name)?.contents());
        }
        let mut dropped = Dropped::default();
        self.sweep(MANIFESTS, |name| names.contains(&name), &mut dropped)?;
        self.sweep(CONTENTS, |name| contents.contains(name), &mut dropped)?;
        Ok(dropped)
    }

    fn sweep(&self, folder: &str, stays: impl Fn(&str) -> bool, dropped: &mut Dropped) -> Result<(), FileError> {
        let dir = beneath::open_dir_entries(&self.folder.inner.root, folder)?;
        let mut entries = beneath::read_dir(&dir)?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(|errno| FileError::of(errno, "list what is kept"))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if is_dot(entry.file_name()) || stays(name) {
                continue;
            }
            let size = Node::at(&dir, name)?.size;
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())
                .map_err(|errno| FileError::of(errno, "remove what is kept no longer"))?;
            dropped.files += 1;
            dropped.bytes = dropped.bytes.saturating_add(size);
        }
        Ok(())
    }
}

fn named(folder: &str, name: &str) -> Result<WorkspacePath, FileError> {
    let folder = WorkspacePath::parse(folder).map_err(|_| FileError::NotFound)?;
    folder.join(name).map_err(|_| FileError::NotFound)
}

pub(crate) fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Taking<'l> {
    contents: OwnedFd,
    last: Option<&'l Manifest>,
    limits: SnapshotLimits,
    found: usize,
    /// Contents that were not there before.
    fresh: Vec<String>,
    taken: Taken,
}

impl Taking<'_> {
    fn walk(&mut self, space: &Workspace) -> Result<(), FileError> {
        let mut waiting = vec![WorkspacePath::root()];
        while let Some(path) = waiting.pop() {
            match beneath::open_dir_entries(&space.inner.root, path.as_str()) {
                Ok(dir) => self.directory(&dir, &path, &mut waiting)?,
                Err(error) if path.is_root() => return Err(error),
                // Gone since it was seen: then it was not there.
                Err(FileError::NotFound) => drop(self.taken.manifest.items.remove(path.as_str())),
                Err(_) => self.leave_out(&path, LeftOut::Unreadable),
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        dir: &OwnedFd,
        path: &WorkspacePath,
        waiting: &mut Vec<WorkspacePath>,
    ) -> Result<(), FileError> {
        let mut entries = beneath::read_dir(dir)?;
        while let Some(entry) = entries.read() {
            let Ok(entry) = entry else {
                self.leave_out(path, LeftOut::Unreadable);
                return Ok(());
            };
            if is_dot(entry.file_name()) {
                continue;
            }
            self.found += 1;
            if self.found > self.limits.entries {
                return Err(FileError::TooLarge { limit: self.limits.entries as u64 });
            }
            let Some((name, inner)) =
                entry.file_name().to_str().ok().and_then(|name| Some((name, path.join(name).ok()?)))
            else {
                // Of what has no name that we could say, its directory is named.
                self.taken.manifest.unnamed += 1;
                self.leave_out(path, LeftOut::Unnameable);
                continue;
            };
            self.entry(dir, name, &inner, waiting)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &str,
        path: &WorkspacePath,
        waiting: &mut Vec<WorkspacePath>,
    ) -> Result<(), FileError> {
        let node = match Node::at(dir, name) {
            Ok(node) => node,
            Err(FileError::NotFound) => return Ok(()),
            Err(_) => {
                self.leave_out(path, LeftOut::Unreadable);
                return Ok(());
            }
        };
        let item = match node.kind() {
            EntryKind::Directory => {
                waiting.push(path.clone());
                Ok(Item::Directory { mode: node.permissions() })
            }
            EntryKind::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Ok(text) => Ok(Item::Link { text: text.into_bytes() }),
                Err(Errno::NOENT) => return Ok(()),
                Err(_) => Err(LeftOut::Unreadable),
            },
            EntryKind::File => match self.file(dir, name, path, &node) {
                Ok(item) => Ok(item),
                Err(FileError::NotFound) => return Ok(()),
                Err(FileError::NoSpace) => return Err(FileError::NoSpace),
                Err(FileError::TooLarge { .. }) => Err(LeftOut::TooLarge),
                Err(FileError::Refused { reason: Refusal::HardLink }) => Err(LeftOut::HardLink),
                Err(_) => Err(LeftOut::Unreadable),
            },
            EntryKind::Special | EntryKind::Unnameable => Err(LeftOut::Special),
        };
        match item {
            Ok(item) => drop(self.taken.manifest.items.insert(path.as_str().to_owned(), item)),
            Err(reason) => self.leave_out(path, reason),
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &WorkspacePath, reason: LeftOut) {
        self.taken.manifest.left_out.insert(path.as_str().to_owned(), reason);
    }

    fn file(&mut self, dir: &OwnedFd, name: &str, path: &WorkspacePath, node: &Node) -> Result<Item, FileError> {
        node.require_plain_file()?;
        if node.size > self.limits.file_bytes {
            return Err(FileError::TooLarge { limit: self.limits.file_bytes });
        }
        if let Some(Item::File { size, sha256, stamp: Some(stamp), .. }) =
            self.last.and_then(|last| last.items.get(path.as_str()))
            && *stamp == Stamp::of(node)
            && *size == node.size
        {
            let (size, sha256, stamp) = (*size, *sha256, Some(*stamp));
            return Ok(Item::File { mode: node.permissions(), size, sha256, stamp });
        }
        let began = SystemTime::now();
        let place = Place { dir: beneath::open_dir(dir, ".")?, name };
        let (fd, opened) = place.open(OFlags::RDONLY)?;
        let source = File::from(fd);
        let (sha256, size) = self.keep(&source)?;
        self.taken.read += 1;
        let after = Node::of_fd(&source)?;
        // A stamp is worth something if nothing can have changed under it: it was not moved while we read, and it
        // was older than a tick of the kernel's clock when we began.
        let settled = settled(opened.changed, began) && after.changed == opened.changed && after.size == size;
        let stamp = settled.then(|| Stamp::of(&opened));
        Ok(Item::File { mode: opened.permissions(), size, sha256, stamp })
    }

    /// Copies the file into the folder and hashes the copy, which nobody else can change.
    fn keep(&mut self, source: &File) -> Result<([u8; 32], u64), FileError> {
        let temporary = fresh_name()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = beneath::open_at(&self.contents, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| FileError::of(errno, KEEPING))?;
        let kept = self.keep_as(source, File::from(fd), &temporary);
        if kept.is_err() {
            let _ = rustix::fs::unlinkat(&self.contents, temporary.as_str(), AtFlags::empty());
        }
        kept
    }

    fn keep_as(&mut self, source: &File, mut copy: File, temporary: &str) -> Result<([u8; 32], u64), FileError> {
        let (sha256, size) = match rustix::fs::ioctl_ficlone(&copy, source) {
            Ok(()) => self.hash(&copy, &mut io::sink())?,
            // This file system shares no blocks, or not between these two.
            Err(_) => self.hash(source, &mut copy)?,
        };
        let name = hex(&sha256);
        match Node::at(&self.contents, &name) {
            Ok(_) => {
                rustix::fs::unlinkat(&self.contents, temporary, AtFlags::empty())
                    .map_err(|errno| FileError::of(errno, KEEPING))?;
            }
            Err(FileError::NotFound) => {
                let added = self.taken.added.saturating_add(size);
                if added > self.limits.new_bytes {
                    return Err(FileError::NoSpace);
                }
                rustix::fs::renameat(&self.contents, temporary, &self.contents, name.as_str())
                    .map_err(|errno| FileError::of(errno, KEEPING))?;
                self.taken.added = added;
                self.fresh.push(name);
            }
            Err(error) => return Err(error),
        }
        Ok((sha256, size))
    }

    /// Hashes what it reads, and hands it on. A file that grows meanwhile is not read for ever.
    fn hash(&self, content: &File, to: &mut impl Write) -> Result<([u8; 32], u64), FileError> {
        let max = self.limits.file_bytes;
        let mut hashing = Hashing { hasher: Sha256::new(), to };
        let size = io::copy(&mut content.take(max.saturating_add(1)), &mut hashing)
            .map_err(|error| FileError::of_io(error, KEEPING))?;
        if size > max {
            return Err(FileError::TooLarge { limit: max });
        }
        Ok((hashing.hasher.finalize().into(), size))
    }
}

struct Hashing<'w, W> {
    hasher: Sha256,
    to: &'w mut W,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Whether a stamp is older than a tick of the clock that makes stamps.
fn settled((seconds, nanos): (i64, u32), now: SystemTime) -> bool {
    let Ok(seconds) = u64::try_from(seconds) else { return true };
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::new(seconds, nanos))
        .and_then(|changed| changed.checked_add(TICK))
        .is_some_and(|changed| changed < now)
}

/// Items by their paths, in the order in which a directory comes before what is in it.
pub(crate) type Items = BTreeMap<String, Item>;
