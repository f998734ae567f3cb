//! Changing content: a new file is written beside the old one and renamed
//! over it, so that readers see the old bytes or the new ones, and so that no
//! write ever goes through a name that someone else can swap.
//!
//! Must never open an existing file for truncation. Content is not synced to
//! the disk: a power cut may undo the last writes, but leaves whole files.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bailiwick_types::failpoint;
use bailiwick_types::path::WorkspacePath;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::beneath::{self, Node, Place};
use crate::error::FileError;
use crate::read::OpenFile;
use crate::walk::WalkLimits;
use crate::workspace::{Entry, EntryKind, Owner, Workspace};

/// What must be true of the target for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: create or replace.
    Anything,
    /// Nothing has the name; else [`FileError::Exists`].
    Absent,
    /// The content has this SHA-256; else [`FileError::Changed`]. Files above
    /// [`MAX_COMPARED_BYTES`] are [`FileError::TooLarge`].
    Hash([u8; 32]),
}

/// A write that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the new content.
    pub sha256: [u8; 32],
    /// Bytes of the new content.
    pub size: u64,
    /// Whether nothing had the name before.
    pub created: bool,
}

/// Largest file that [`Expect::Hash`] compares, in bytes. A hostile process
/// could otherwise make us hash a sparse file for hours.
pub const MAX_COMPARED_BYTES: u64 = 256 * 1024 * 1024;

const NEW_FILE_MODE: u32 = 0o644;
const NEW_DIRECTORY_MODE: u32 = 0o755;
const WRITING: &str = "write the file";

impl Workspace {
    /// Creates or replaces a file, with parents. A replaced file keeps its
    /// permission bits.
    ///
    /// # Errors
    /// [`FileError::Refused`] if a link or special file has the name.
    pub fn write(&self, path: &WorkspacePath, content: &[u8]) -> Result<Written, FileError> {
        self.write_if(path, content, Expect::Anything)
    }

    /// The same, if the target is as expected. Atomic among the writers that
    /// share this workspace's clones; against other processes the content is
    /// compared immediately before the rename.
    ///
    /// # Errors
    /// [`FileError::Exists`] or [`FileError::Changed`], with nothing written.
    pub fn write_if(&self, path: &WorkspacePath, content: &[u8], expect: Expect) -> Result<Written, FileError> {
        self.write_from(path, content, content.len() as u64, expect)
    }

    /// The same from a stream of at most `max` bytes.
    ///
    /// # Errors
    /// [`FileError::TooLarge`] if the stream is longer, with nothing written.
    pub fn write_from(
        &self,
        path: &WorkspacePath,
        content: impl Read,
        max: u64,
        expect: Expect,
    ) -> Result<Written, FileError> {
        self.require_writable()?;
        let place = self.place_creating(path)?;
        // A refusal should come before the bytes are copied.
        if let Some(node) = place.node()? {
            node.require_plain_file()?;
        }
        let mut fresh = Fresh::create(&place)?;
        let (sha256, size) = fresh.fill(content, max)?;
        let created = self.commit(&place, fresh, expect)?;
        Ok(Written { sha256, size, created })
    }

    /// Creates or replaces a file with content of which SHA-256 and size are known. Nothing is written of any other:
    /// [`FileError::Changed`].
    pub(crate) fn write_known(
        &self,
        path: &WorkspacePath,
        content: impl Read,
        known: ([u8; 32], u64),
        expect: Expect,
    ) -> Result<(), FileError> {
        self.require_writable()?;
        let place = self.place_creating(path)?;
        let mut fresh = Fresh::create(&place)?;
        match fresh.fill(content, known.1) {
            Ok(found) if found == known => self.commit(&place, fresh, expect).map(|_| ()),
            Ok(_) | Err(FileError::TooLarge { .. }) => Err(FileError::Changed),
            Err(error) => Err(error),
        }
    }

    /// Makes a symbolic link with this text in the place of a file or a link, and follows neither. With
    /// [`Expect::Absent`] it replaces nothing.
    pub(crate) fn put_link(&self, path: &WorkspacePath, text: &[u8], expect: Expect) -> Result<(), FileError> {
        self.require_writable()?;
        let place = self.place_creating(path)?;
        let temporary = fresh_name()?;
        rustix::fs::symlinkat(text, &place.dir, temporary.as_str()).map_err(|errno| FileError::of(errno, WRITING))?;
        let owned = match self.inner.owner {
            None => Ok(()),
            Some(Owner { uid, gid }) => {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&place.dir, temporary.as_str(), Some(uid), Some(gid), flags)
            }
        };
        let flags = match expect {
            Expect::Absent => RenameFlags::NOREPLACE,
            Expect::Anything | Expect::Hash(_) => RenameFlags::empty(),
        };
        let put = owned
            .and_then(|()| rustix::fs::renameat_with(&place.dir, temporary.as_str(), &place.dir, place.name, flags));
        put.map_err(|errno| {
            // Best effort: the failure that brought us here is the one to tell.
            let _ = rustix::fs::unlinkat(&place.dir, temporary.as_str(), AtFlags::empty());
            FileError::of(errno, WRITING)
        })
    }

    /// Appends to a file, creating it with its parents if nothing has the
    /// name.
    ///
    /// # Errors
    /// [`FileError::Refused`] if a link or special file has the name. After
    /// [`FileError::NoSpace`] a part of `content` may have been written.
    pub fn append(&self, path: &WorkspacePath, content: &[u8]) -> Result<(), FileError> {
        self.require_writable()?;
        let place = self.place_creating(path)?;
        match place.open(OFlags::WRONLY | OFlags::APPEND) {
            Ok((fd, _)) => File::from(fd).write_all(content).map_err(|error| FileError::of_io(error, WRITING)),
            Err(FileError::NotFound) => match self.write_if(path, content, Expect::Absent) {
                Err(FileError::Exists) => Err(FileError::Changed),
                result => result.map(|_| ()),
            },
            Err(error) => Err(error),
        }
    }

    /// Copies a regular file of at most `max` bytes over `to`.
    ///
    /// # Errors
    /// As for reading `from` and writing `to`.
    pub fn copy(&self, from: &WorkspacePath, to: &WorkspacePath, max: u64) -> Result<Written, FileError> {
        self.require_writable()?;
        let source = self.reader(from)?;
        let mode = source.node.permissions();
        let written = self.write_from(to, source, max, Expect::Anything)?;
        if written.created && mode != NEW_FILE_MODE {
            self.set_mode(to, mode)?;
        }
        Ok(written)
    }

    /// Makes one directory.
    ///
    /// # Errors
    /// [`FileError::Exists`] if anything has the name; [`FileError::NotFound`]
    /// without a parent.
    pub fn mkdir(&self, path: &WorkspacePath) -> Result<(), FileError> {
        self.require_writable()?;
        let place = match self.place(path) {
            Err(FileError::NotAFile) => return Err(FileError::Exists),
            place => place?,
        };
        self.make_directory(&place.dir, place.name).map(|_| ())
    }

    /// Makes a directory and its parents; those that exist are fine.
    ///
    /// # Errors
    /// [`FileError::NotADirectory`] or a refusal if something else stands in
    /// the way.
    pub fn mkdir_all(&self, path: &WorkspacePath) -> Result<(), FileError> {
        self.require_writable()?;
        self.descend(path).map(|_| ())
    }

    /// Renames a file or directory; a file at `to` is replaced. A symbolic
    /// link is moved as such.
    ///
    /// # Errors
    /// [`FileError::Refused`] if `to` is a link or special file.
    pub fn rename(&self, from: &WorkspacePath, to: &WorkspacePath) -> Result<(), FileError> {
        self.require_writable()?;
        let (source, target) = (self.place(from)?, self.place(to)?);
        if let Some(node) = target.node()?
            && node.kind() != EntryKind::Directory
        {
            node.require_plain_file()?;
        }
        rustix::fs::renameat(&source.dir, source.name, &target.dir, target.name)
            .map_err(|errno| FileError::of(errno, "rename"))
    }

    /// Sets the permission bits (`0o777`) of a file or directory.
    ///
    /// # Errors
    /// [`FileError::Refused`] for links and special files.
    pub fn set_mode(&self, path: &WorkspacePath, mode: u32) -> Result<(), FileError> {
        self.require_writable()?;
        let fd = self.open_any(path)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o777))
            .map_err(|errno| FileError::of(errno, "change the mode"))
    }

    /// Sets the time of the last change of a file or directory.
    ///
    /// # Errors
    /// [`FileError::Refused`] for links and special files.
    pub fn set_modified(&self, path: &WorkspacePath, time: SystemTime) -> Result<(), FileError> {
        self.require_writable()?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let stamp = Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        };
        let fd = self.open_any(path)?;
        rustix::fs::futimens(&fd, &Timestamps { last_access: stamp, last_modification: stamp })
            .map_err(|errno| FileError::of(errno, "change the time"))
    }

    fn open_any(&self, path: &WorkspacePath) -> Result<OwnedFd, FileError> {
        match self.place(path).and_then(|place| place.open(OFlags::RDONLY)) {
            Ok((fd, _)) => Ok(fd),
            Err(FileError::NotAFile) => beneath::open_dir_entries(&self.inner.root, path.as_str()),
            Err(error) => Err(error),
        }
    }

    /// The place of `path`, making its parents where they are missing.
    fn place_creating<'p>(&self, path: &'p WorkspacePath) -> Result<Place<'p>, FileError> {
        match self.place(path) {
            Err(FileError::NotFound) => {
                let name = path.file_name().ok_or(FileError::NotAFile)?;
                let parent = path.parent().unwrap_or_else(WorkspacePath::root);
                Ok(Place { dir: self.descend(&parent)?, name })
            }
            place => place,
        }
    }

    /// Opens the directory `path`, making what is missing one by one.
    fn descend(&self, path: &WorkspacePath) -> Result<OwnedFd, FileError> {
        let mut dir = beneath::open_dir(&self.inner.root, ".")?;
        for name in path.components() {
            dir = match beneath::open_dir(&dir, name) {
                Err(FileError::NotFound) => match self.make_directory(&dir, name) {
                    // Another writer was faster; what it made is checked by
                    // opening it.
                    Err(FileError::Exists) => beneath::open_dir(&dir, name)?,
                    made => made?,
                },
                opened => opened?,
            };
        }
        Ok(dir)
    }

    /// Makes and opens one directory, and gives it to the owner.
    fn make_directory(&self, dir: &OwnedFd, name: &str) -> Result<OwnedFd, FileError> {
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(NEW_DIRECTORY_MODE))
            .map_err(|errno| FileError::of(errno, "make the directory"))?;
        // The name may already be another's directory by now. A directory has
        // no second name outside, so giving this one away is harmless.
        let made = beneath::open_dir_entries(dir, name)?;
        self.give_to_owner(&made)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(NEW_DIRECTORY_MODE))
            .map_err(|errno| FileError::of(errno, "make the directory"))?;
        Ok(made)
    }

    fn give_to_owner(&self, fd: impl AsFd) -> Result<(), FileError> {
        let Some(owner) = self.inner.owner else {
            return Ok(());
        };
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(fd, Some(uid), Some(gid))
            .map_err(|errno| FileError::of(errno, "give the file to the workspace's owner"))
    }

    /// Moves the fresh file to its name if the target is as expected. Returns
    /// whether the name was new.
    fn commit(&self, place: &Place<'_>, mut fresh: Fresh<'_>, expect: Expect) -> Result<bool, FileError> {
        let held = self.inner.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let target = match expect {
            Expect::Hash(hash) => Some(compare(place, hash)?),
            Expect::Anything | Expect::Absent => place.node()?,
        };
        if let Some(node) = target {
            node.require_plain_file()?;
            if expect == Expect::Absent {
                return Err(FileError::Exists);
            }
        }
        self.give_to_owner(&fresh.file)?;
        let mode = target.map_or(NEW_FILE_MODE, |node| node.permissions());
        rustix::fs::fchmod(&fresh.file, Mode::from_raw_mode(mode)).map_err(|errno| FileError::of(errno, WRITING))?;
        let flags = match expect {
            Expect::Absent => RenameFlags::NOREPLACE,
            Expect::Anything => RenameFlags::empty(),
            Expect::Hash(_) => {
                if place.node()? != target {
                    return Err(FileError::Changed);
                }
                RenameFlags::empty()
            }
        };
        failpoint::reach("file.temporary");
        fresh.rename(flags)?;
        failpoint::reach("file.renamed");
        drop(held);
        // A process in the workspace may have put something else under the
        // temporary name. Nothing left the space, but then nothing of ours was
        // written either.
        let expected = Node::of_fd(&fresh.file)?;
        match place.node()? {
            Some(node) if node.is_same_file(&expected) => Ok(target.is_none()),
            _ => Err(FileError::Changed),
        }
    }
}

/// The target's node, if its content has the hash.
fn compare(place: &Place<'_>, hash: [u8; 32]) -> Result<Node, FileError> {
    let (fd, node) = match place.open(OFlags::RDONLY) {
        Err(FileError::NotFound) => return Err(FileError::Changed),
        opened => opened?,
    };
    if node.size > MAX_COMPARED_BYTES {
        return Err(FileError::TooLarge { limit: MAX_COMPARED_BYTES });
    }
    match OpenFile::new(fd, node).hash(MAX_COMPARED_BYTES)? == hash {
        true => Ok(node),
        false => Err(FileError::Changed),
    }
}

/// A new file under a temporary name, removed when dropped before its rename.
struct Fresh<'p> {
    place: &'p Place<'p>,
    temporary: Option<String>,
    file: File,
}

impl<'p> Fresh<'p> {
    fn create(place: &'p Place<'p>) -> Result<Self, FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let temporary = fresh_name()?;
        let fd = beneath::open_at(&place.dir, &temporary, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| FileError::of(errno, WRITING))?;
        Ok(Self { place, temporary: Some(temporary), file: File::from(fd) })
    }

    fn fill(&mut self, mut content: impl Read, max: u64) -> Result<([u8; 32], u64), FileError> {
        let mut hasher = Sha256::new();
        let mut size = 0_u64;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => return Ok((hasher.finalize().into(), size)),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FileError::of_io(error, "read what is to be written")),
            };
            size += count as u64;
            if size > max {
                return Err(FileError::TooLarge { limit: max });
            }
            hasher.update(&buffer[..count]);
            self.file.write_all(&buffer[..count]).map_err(|error| FileError::of_io(error, WRITING))?;
        }
    }

    fn rename(&mut self, flags: RenameFlags) -> Result<(), FileError> {
        let Some(temporary) = &self.temporary else {
            return Err(FileError::Changed);
        };
        let Place { dir, name } = self.place;
        rustix::fs::renameat_with(dir, temporary.as_str(), dir, *name, flags).map_err(|errno| {
            match errno {
                // The temporary name is gone: someone in the workspace took it.
                Errno::NOENT => FileError::Changed,
                errno => FileError::of(errno, WRITING),
            }
        })?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Best effort: the failure that brought us here is the one to tell.
            let _ = rustix::fs::unlinkat(&self.place.dir, temporary.as_str(), AtFlags::empty());
        }
    }
}

/// When this process opened its first workspace. Temporary files of before are nobody's.
pub(crate) fn begun() -> SystemTime {
    static BEGUN: OnceLock<SystemTime> = OnceLock::new();
    *BEGUN.get_or_init(SystemTime::now)
}

/// The kernel's stamps of files are a tick behind the clock: a file this much older may be of now.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// Entries that are looked at for leftovers, at most.
const LOOKED_AT: usize = 1_000_000;
const TEMPORARY: &str = ".bailiwick-";

fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix(TEMPORARY);
    random.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

impl Workspace {
    /// Removes what writers left that were ended in the middle of a write, before this process began. For the
    /// start of the server. Says how many files it removed.
    ///
    /// # Errors
    /// If the workspace cannot be walked. A file that cannot be removed stays.
    pub fn remove_leftovers(&self) -> Result<usize, FileError> {
        self.require_writable()?;
        let limits = WalkLimits { entries: LOOKED_AT, ..WalkLimits::default() };
        let old = |entry: &Entry| entry.modified.checked_add(TICK).is_none_or(|modified| modified < begun());
        let left = self.walk(&WorkspacePath::root(), limits)?;
        let left = left.filter(|walked| {
            walked.entry.kind == EntryKind::File && is_temporary(&walked.entry.name) && old(&walked.entry)
        });
        Ok(left.filter(|walked| self.remove(&walked.path).is_ok()).count())
    }
}

/// A name nobody can guess, for a file that stands beside its target.
pub(crate) fn fresh_name() -> Result<String, FileError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)
        .map_err(|_| FileError::Io { doing: "draw a random name", source: std::io::ErrorKind::Unsupported.into() })?;
    Ok(format!("{TEMPORARY}{:032x}", u128::from_ne_bytes(random)))
}
