//! How much a folder holds, whatever is in it.
//!
//! Measured for a limit, and so made for those who would hide from it: names that no path of ours can hold
//! are counted, and what cannot be looked at is said to be there. Must never recurse as deep as a hostile
//! tree is, and holds one descriptor at a time.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::error::FileError;
use crate::tree::is_dot;

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Bytes: of each entry what it holds or what it takes up on the disk, whichever is more; 4 KiB at least.
    pub bytes: u64,
    /// Files, folders and all else.
    pub entries: u64,
    /// Whether all of it was seen.
    pub seen: Seen,
}

/// Whether a measurement saw everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It did.
    Whole,
    /// There is more than is looked at, or something cannot be looked at: the figures are too low.
    Part,
}

/// Names of folders that wait to be entered, bytes: a hostile tree must not cost memory.
const NAMES_WAITING: usize = 32 * 1024 * 1024;

/// What each entry counts at least, bytes: a block of the usual file systems.
const LEAST: u64 = 4096;

impl Measured {
    const NOTHING: Self = Self { bytes: 0, entries: 0, seen: Seen::Whole };

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
            seen: if self.seen == Seen::Whole { other.seen } else { Seen::Part },
        }
    }
}

/// Measures everything below a directory of the operator's; no more than so many entries. A directory that
/// is not there holds nothing.
///
/// # Errors
/// If the directory itself cannot be opened.
pub fn measure(dir: &Path, most: u64) -> Result<Measured, FileError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::open(dir, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Measured::NOTHING),
        opened => opened.map_err(|errno| FileError::of(errno, "open the folder"))?,
    };
    let mut walk = Walk { root, most, waiting: vec![(0, c".".to_owned())], names: 0, found: Measured::NOTHING };
    walk.run();
    Ok(walk.found)
}

struct Walk {
    root: OwnedFd,
    most: u64,
    /// Folders to enter: how deep, and by which name in the one above.
    waiting: Vec<(usize, CString)>,
    /// Bytes of those names.
    names: usize,
    found: Measured,
}

impl Walk {
    fn run(&mut self) {
        // The names of the folders above the present one.
        let mut above: Vec<CString> = Vec::new();
        while let Some((depth, name)) = self.waiting.pop() {
            self.names -= name.as_bytes().len().min(self.names);
            above.truncate(depth);
            above.push(name);
            let path: Vec<&[u8]> = above.iter().map(|name| name.as_bytes()).collect();
            match beneath::open_at(&self.root, path.join(&b'/').as_slice(), DIRECTORY, Mode::empty()) {
                Ok(folder) => self.enter(&folder, depth + 1),
                // Gone, or swapped for something that holds nothing.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(_) => self.found.seen = Seen::Part,
            }
            if self.found.entries >= self.most && !self.waiting.is_empty() {
                self.found.seen = Seen::Part;
                return;
            }
        }
    }

    fn enter(&mut self, folder: &OwnedFd, depth: usize) {
        let Ok(mut dir) = beneath::read_dir(folder) else {
            self.found.seen = Seen::Part;
            return;
        };
        while let Some(read) = dir.read() {
            let Ok(read) = read else {
                self.found.seen = Seen::Part;
                return;
            };
            let name = read.file_name();
            if is_dot(name) {
                continue;
            }
            if self.found.entries >= self.most {
                self.found.seen = Seen::Part;
                return;
            }
            self.count(folder, name, depth);
        }
    }

    fn count(&mut self, folder: &OwnedFd, name: &CStr, depth: usize) {
        let statx = match rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(statx) => statx,
            Err(Errno::NOENT) => return,
            Err(_) => {
                self.found.seen = Seen::Part;
                return;
            }
        };
        self.found.entries += 1;
        let kind = FileType::from_raw_mode(u32::from(statx.stx_mode));
        // A sparse file is as long as it says, and one with room set aside is as large as it is. Whatever it is,
        // it has an inode and a name, of which a disk has not many either.
        let size = statx.stx_size.max(statx.stx_blocks.saturating_mul(512)).max(LEAST);
        // One file under several names is one file; a directory has its names for other reasons.
        let names = if kind == FileType::Directory { 1 } else { u64::from(statx.stx_nlink).max(1) };
        self.found.bytes = self.found.bytes.saturating_add(size.div_ceil(names));
        match kind {
            FileType::Directory if self.names < NAMES_WAITING => {
                self.names += name.to_bytes().len();
                self.waiting.push((depth, name.to_owned()));
            }
            FileType::Directory => self.found.seen = Seen::Part,
            _ => {}
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK);
