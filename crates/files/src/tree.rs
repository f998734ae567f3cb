//! Directories: listing, and removing whole trees.
//!
//! Must never recurse as deep as a hostile tree is, nor hold memory or
//! descriptors in proportion to it.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use bailiwick_types::path::WorkspacePath;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::beneath::{self, Node};
use crate::error::FileError;
use crate::workspace::{Entry, EntryKind, Workspace};
use crate::write::fresh_name;

/// The entries of a directory, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, without `.` and `..`.
    pub entries: Vec<Entry>,
    /// Whether the directory has more entries than were asked for.
    pub truncated: bool,
}

/// How many entries one removal takes away before it gives up, so that a
/// process that keeps adding files cannot keep us busy for ever.
const MAX_REMOVED: u64 = 4_000_000;
const REMOVING: &str = "remove";

impl Workspace {
    /// At most `max` entries of a directory.
    ///
    /// # Errors
    /// [`FileError::NotADirectory`] for a file, a refusal for a link.
    pub fn list(&self, path: &WorkspacePath, max: usize) -> Result<Listing, FileError> {
        let fd = beneath::open_dir_entries(&self.inner.root, path.as_str())?;
        read_entries(fd, max)
    }

    /// Removes a file, a symbolic link itself, or an empty directory.
    ///
    /// # Errors
    /// [`FileError::NotEmpty`] for a directory with entries.
    pub fn remove(&self, path: &WorkspacePath) -> Result<(), FileError> {
        self.require_writable()?;
        let place = self.place(path)?;
        let node = place.node()?.ok_or(FileError::NotFound)?;
        let flags = match node.kind() {
            EntryKind::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        rustix::fs::unlinkat(&place.dir, place.name, flags).map_err(|errno| FileError::of(errno, REMOVING))
    }

    /// Removes a file, or a directory with everything in it. Links are
    /// removed, not followed. The root is emptied but stays.
    ///
    /// # Errors
    /// [`FileError::TooLarge`] if entries keep appearing.
    pub fn remove_all(&self, path: &WorkspacePath) -> Result<(), FileError> {
        self.require_writable()?;
        match self.remove(path) {
            Err(FileError::NotEmpty) => {}
            Err(FileError::NotAFile) if path.is_root() => {}
            result => return result,
        }
        let top = match path.is_root() {
            true => open_to_empty(&self.inner.root, c".")?,
            false => {
                let place = self.place(path)?;
                let name = CString::new(place.name).map_err(|_| FileError::NotFound)?;
                open_to_empty(&place.dir, &name)?
            }
        };
        empty(&top)?;
        if path.is_root() { Ok(()) } else { self.remove(path) }
    }
}

/// Removes a directory of the operator's with everything in it, as [`Workspace::remove_all`] does. One that is
/// not there is removed already.
///
/// # Errors
/// [`FileError::TooLarge`] if entries keep appearing, else what the host answered.
pub fn remove_tree(dir: &Path) -> Result<(), FileError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::open(dir, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(|errno| FileError::of(errno, REMOVING))?,
    };
    empty(&open_to_empty(&root, c".")?)?;
    match rustix::fs::rmdir(dir) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(FileError::of(errno, REMOVING)),
    }
}

/// Opens a directory that is about to be emptied, whatever its bits say of it.
fn open_to_empty(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, FileError> {
    beneath::open_own_dir(dir, name, Mode::RWXU).map(|(top, _)| top).map_err(|errno| FileError::of(errno, REMOVING))
}

/// Reads a directory through its descriptor.
pub(crate) fn read_entries(fd: OwnedFd, max: usize) -> Result<Listing, FileError> {
    let mut entries = Vec::new();
    let mut truncated = false;
    let mut dir = beneath::read_dir(&fd)?;
    while let Some(read) = dir.read() {
        let read = read.map_err(|errno| FileError::of(errno, "list the directory"))?;
        let name = read.file_name();
        if is_dot(name) {
            continue;
        }
        if entries.len() >= max {
            truncated = true;
            break;
        }
        entries.extend(entry(&fd, name)?);
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Listing { entries, truncated })
}

/// One entry, or `None` if it was gone before it could be looked at.
fn entry(dir: &OwnedFd, name: &CStr) -> Result<Option<Entry>, FileError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let node = match rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS) {
        Ok(statx) => Node::from_statx(&statx),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(FileError::of(errno, "list the directory")),
    };
    let stat = node.stat();
    let nameable = name.to_str().ok().filter(|name| WorkspacePath::root().join(name).is_ok());
    let (name, kind) = match nameable {
        Some(name) => (name.to_owned(), stat.kind),
        None => (name.to_bytes().escape_ascii().to_string(), EntryKind::Unnameable),
    };
    Ok(Some(Entry { name, kind, size: stat.size, modified: stat.modified, mode: stat.mode }))
}

pub(crate) fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Removes everything in the directory. A directory found inside a
/// subdirectory is first moved up to `top`, so that two descriptors suffice
/// for a tree of any depth.
fn empty(top: &OwnedFd) -> Result<(), FileError> {
    let mut budget = MAX_REMOVED;
    loop {
        let mut found = false;
        for_each_name(top, &mut |name| {
            found = true;
            spend(&mut budget)?;
            if unlink(top, name)? == Removal::IsDirectory {
                hollow_out(top, name, &mut budget)?;
                match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
                    // Someone filled it again: the next round sees it.
                    Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    Err(errno) => return Err(FileError::of(errno, REMOVING)),
                }
            }
            Ok(())
        })?;
        if !found {
            return Ok(());
        }
    }
}

/// Removes the files of `top/name` and moves its directories up to `top`.
fn hollow_out(top: &OwnedFd, name: &CStr, budget: &mut u64) -> Result<(), FileError> {
    let dir = match beneath::open_own_dir(top, name, Mode::RWXU) {
        Ok((dir, _)) => dir,
        // Gone, or swapped for something that the next round unlinks.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(FileError::of(errno, REMOVING)),
    };
    for_each_name(&dir, &mut |inner| {
        spend(budget)?;
        if unlink(&dir, inner)? == Removal::IsDirectory {
            let moved = fresh_name()?;
            // Whoever moves a directory writes in it: its `..` is another then.
            if let Err(errno) = beneath::open_own_dir(&dir, inner, Mode::RWXU)
                && !matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
            {
                return Err(FileError::of(errno, REMOVING));
            }
            match rustix::fs::renameat(&dir, inner, top, moved.as_str()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(FileError::of(errno, REMOVING)),
            }
        }
        Ok(())
    })
}

#[derive(PartialEq, Eq)]
enum Removal {
    Done,
    IsDirectory,
}

fn unlink(dir: &OwnedFd, name: &CStr) -> Result<Removal, FileError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removal::Done),
        Err(Errno::ISDIR) => Ok(Removal::IsDirectory),
        Err(errno) => Err(FileError::of(errno, REMOVING)),
    }
}

fn spend(budget: &mut u64) -> Result<(), FileError> {
    *budget = budget.checked_sub(1).ok_or(FileError::TooLarge { limit: MAX_REMOVED })?;
    Ok(())
}

fn for_each_name(fd: &OwnedFd, each: &mut dyn FnMut(&CStr) -> Result<(), FileError>) -> Result<(), FileError> {
    let mut dir = beneath::read_dir(fd)?;
    while let Some(read) = dir.read() {
        let read = read.map_err(|errno| FileError::of(errno, REMOVING))?;
        if !is_dot(read.file_name()) {
            each(read.file_name())?;
        }
    }
    Ok(())
}
