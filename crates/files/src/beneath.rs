//! The only place that resolves names: one `openat2` beneath the root. `..` alone is resolved without, and
//! believed only if it leads to the directory that we came from.
//!
//! Must never be bypassed by an `open` of a longer path, and must never
//! return a descriptor of content that was not checked by [`Place::open`].

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

use bailiwick_types::path::WorkspacePath;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::error::{FileError, Refusal};
use crate::workspace::{EntryKind, Stat, Workspace};

/// How the kernel must walk: down only, no links of any kind, no mounts.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// How often an operation is tried again when something moved beneath it.
const ATTEMPTS: u32 = 64;

/// A name in an open directory. The directory is held, so that check and act
/// concern the same one.
#[derive(Debug)]
pub(crate) struct Place<'p> {
    pub(crate) dir: OwnedFd,
    pub(crate) name: &'p str,
}

/// One inode as the kernel described it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) links: u32,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, u32),
    /// Changes with every link, unlink, write and chmod.
    pub(crate) changed: (i64, u32),
}

impl Workspace {
    /// The directory that holds `path`, opened, and the name in it. The root
    /// has no such place: [`FileError::NotAFile`].
    pub(crate) fn place<'p>(&self, path: &'p WorkspacePath) -> Result<Place<'p>, FileError> {
        let name = path.file_name().ok_or(FileError::NotAFile)?;
        let parent = path.parent().unwrap_or_else(WorkspacePath::root);
        let dir = open_dir(&self.inner.root, parent.as_str())?;
        Ok(Place { dir, name })
    }
}

impl Place<'_> {
    /// What has the name now; a link is not followed.
    pub(crate) fn node(&self) -> Result<Option<Node>, FileError> {
        match Node::at(&self.dir, self.name) {
            Ok(node) => Ok(Some(node)),
            Err(FileError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the regular file of this name with `flags` and proves that it is
    /// one, under this one name only.
    ///
    /// `nlink == 1` on the descriptor is not enough: a process may make a
    /// hard link to a file outside, let us open it, and unlink it again, after
    /// which the file outside has one name. So the name is looked up once more
    /// and must lead to the same inode with the same change time, which every
    /// link and unlink moves. The kernel lowers the count a moment before the
    /// name is gone, so between the two looks we wait for the directory.
    ///
    /// Kernels before 6.13 stamp in steps of some milliseconds; there, a link
    /// and an unlink within one step and around our look could pass. It takes
    /// a process that may make links to the file outside to begin with.
    pub(crate) fn open(&self, flags: OFlags) -> Result<(OwnedFd, Node), FileError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        for _ in 0..ATTEMPTS {
            let fd = match open_at(&self.dir, self.name, flags, Mode::empty()) {
                Ok(fd) => fd,
                // With NONBLOCK, a lease that another process holds answers
                // so instead of making us wait for its holder.
                Err(Errno::AGAIN) => continue,
                Err(errno) => return Err(FileError::of(errno, "open the file")),
            };
            let opened = Node::of_fd(&fd)?;
            opened.require_plain_file()?;
            self.await_pending_changes()?;
            let Some(named) = self.node()? else { continue };
            if !named.is_same_file(&opened) {
                continue;
            }
            named.require_plain_file()?;
            if named.changed != opened.changed {
                continue;
            }
            let access = flags.difference(OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY);
            rustix::fs::fcntl_setfl(&fd, access).map_err(|errno| FileError::of(errno, "open the file"))?;
            return Ok((fd, named));
        }
        Err(FileError::Changed)
    }

    /// Returns once every change of the directory that was under way is done:
    /// reading entries takes the lock that `link`, `unlink` and `rename` hold.
    fn await_pending_changes(&self) -> Result<(), FileError> {
        match read_dir(&self.dir)?.read() {
            Some(Err(errno)) => Err(FileError::of(errno, "look at the directory")),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

impl Node {
    pub(crate) fn of_fd(fd: impl AsFd) -> Result<Self, FileError> {
        Self::read(fd, "", AtFlags::EMPTY_PATH)
    }

    pub(crate) fn at(dir: impl AsFd, name: &str) -> Result<Self, FileError> {
        Self::read(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn read(fd: impl AsFd, name: &str, flags: AtFlags) -> Result<Self, FileError> {
        rustix::fs::statx(fd, name, flags, StatxFlags::BASIC_STATS)
            .map(|statx| Self::from_statx(&statx))
            .map_err(|errno| FileError::of(errno, "look at the file"))
    }

    pub(crate) fn from_statx(statx: &Statx) -> Self {
        let time = |stamp: StatxTimestamp| (stamp.tv_sec, stamp.tv_nsec);
        Self {
            device: (statx.stx_dev_major, statx.stx_dev_minor),
            inode: statx.stx_ino,
            links: statx.stx_nlink,
            mode: statx.stx_mode,
            size: statx.stx_size,
            owner: (statx.stx_uid, statx.stx_gid),
            modified: time(statx.stx_mtime),
            changed: time(statx.stx_ctime),
        }
    }

    pub(crate) fn kind(&self) -> EntryKind {
        match FileType::from_raw_mode(u32::from(self.mode)) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Symlink,
            _ => EntryKind::Special,
        }
    }

    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Permission bits; set-id and sticky are never handed on.
    pub(crate) fn permissions(&self) -> u32 {
        u32::from(self.mode) & 0o777
    }

    pub(crate) fn require_plain_file(&self) -> Result<(), FileError> {
        match self.kind() {
            EntryKind::File if self.links > 1 => Err(FileError::refused(Refusal::HardLink)),
            EntryKind::File => Ok(()),
            EntryKind::Directory => Err(FileError::NotAFile),
            EntryKind::Symlink => Err(FileError::refused(Refusal::Symlink)),
            EntryKind::Special | EntryKind::Unnameable => Err(FileError::refused(Refusal::Special)),
        }
    }

    pub(crate) fn modified(&self) -> SystemTime {
        let (seconds, nanos) = self.modified;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(whole)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(whole)
        };
        base.and_then(|base| base.checked_add(Duration::from_nanos(u64::from(nanos)))).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(crate) fn stat(&self) -> Stat {
        let kind = self.kind();
        let size = if kind == EntryKind::File { self.size } else { 0 };
        Stat { kind, size, modified: self.modified(), mode: self.permissions() }
    }
}

/// Opens a directory beneath `dir` for looking up names only.
pub(crate) fn open_dir(dir: impl AsFd, path: &str) -> Result<OwnedFd, FileError> {
    // Without NOFOLLOW, which would turn the answer for a link from "link"
    // (by NO_SYMLINKS) into "not a directory".
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    open_at(dir, path, flags, Mode::empty()).map_err(|errno| FileError::of(errno, "open the directory"))
}

/// Opens a directory beneath `dir` for reading its entries.
pub(crate) fn open_dir_entries(dir: impl AsFd, path: &str) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    open_at(dir, path, flags, Mode::empty()).map_err(|errno| FileError::of(errno, "open the directory"))
}

/// Opens the directory `name` for reading its entries, and makes it openable where it is the server's own and
/// whoever made it closed it: then it was made by what runs as the server's user, and it keeps nothing from us.
/// Root asks no bits, and leaves them as they are.
pub(crate) fn open_own_dir(dir: impl AsFd, name: &CStr, need: Mode) -> Result<(OwnedFd, Node), Errno> {
    let found = open_at(dir, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let node = Node::from_statx(&rustix::fs::statx(&found, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?);
    let bits = Mode::from_raw_mode(u32::from(node.mode));
    if !bits.contains(need) {
        let user = rustix::process::geteuid();
        if !user.is_root() && node.owner.0 == user.as_raw() {
            // By the descriptor, which leads to what was looked at, whatever has the name now. The kernel takes no
            // `fchmod` of one that is for looking up names only.
            rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), bits.union(need))?;
        }
    }
    let open = open_at(&found, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK, Mode::empty())?;
    Ok((open, node))
}

/// The directory that `dir` is in, if it is the one that it was found in. It is not where somebody moved `dir`
/// meanwhile: then `..` may be outside, and nothing is done with it but to look which one it is.
pub(crate) fn open_above(dir: impl AsFd, expected: &Node) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above = rustix::fs::openat(dir, "..", flags, Mode::empty())?;
    let node = Node::from_statx(&rustix::fs::statx(&above, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?);
    if node.is_same_file(expected) { Ok(above) } else { Err(Errno::XDEV) }
}

/// The entries of an open directory, from the first on and whatever was read
/// through `dir` before.
pub(crate) fn read_dir(dir: impl AsFd) -> Result<Dir, FileError> {
    let own = open_dir_entries(dir, ".")?;
    Dir::new(own).map_err(|errno| FileError::of(errno, "list the directory"))
}

/// `openat2` with our rules. The kernel answers `EAGAIN` when a rename
/// anywhere made it unsure whether the walk stayed beneath; such a walk is
/// tried again a bounded number of times.
pub(crate) fn open_at(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result = rustix::fs::openat2(&dir, path, flags | OFlags::CLOEXEC, mode, RESOLVE);
        match result {
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => break,
        }
    }
    result
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a05_the_way_up_leads_where_the_way_down_began_or_nowhere() {
        let top = tempfile::TempDir::new().unwrap();
        std::fs::create_dir_all(top.path().join("a/b")).unwrap();
        std::fs::create_dir(top.path().join("elsewhere")).unwrap();
        let root = rustix::fs::open(top.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (a, node) = open_own_dir(&root, c"a", Mode::RWXU).unwrap();
        let (b, _) = open_own_dir(&a, c"b", Mode::RWXU).unwrap();
        assert!(Node::of_fd(open_above(&b, &node).unwrap()).unwrap().is_same_file(&node));
        std::fs::rename(top.path().join("a/b"), top.path().join("elsewhere/b")).unwrap();
        assert_eq!(open_above(&b, &node).unwrap_err(), Errno::XDEV);
    }
}
