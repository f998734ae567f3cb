//! How much a folder holds, whatever is in it.
//!
//! Measured for a limit, and so made for those who would hide from it: names that no path of ours can hold
//! are counted, and what cannot be looked at is said to be there. Must never recurse as deep as a hostile
//! tree is, nor hold a descriptor for each folder of it.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::beneath::{self, Node};
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
/// is not there holds nothing. Folders of the server's own user that nobody may look into are opened for it.
///
/// # Errors
/// If the directory itself cannot be opened.
pub fn measure(dir: &Path, most: u64) -> Result<Measured, FileError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::open(dir, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Measured::NOTHING),
        opened => opened.map_err(|errno| FileError::of(errno, "open the folder"))?,
    };
    let line = Line { root, held: Vec::new(), nodes: Vec::new(), last: None };
    let mut walk = Walk { line, most, waiting: vec![(0, c".".to_owned())], names: 0, found: Measured::NOTHING };
    walk.run();
    Ok(walk.found)
}

/// Folders that are held open on the way down. Usual trees are not as deep, and so nobody who moves folders
/// about makes us lose the way in them.
const HELD: usize = 32;

/// What is asked of a folder's bits, to list it and to look at what is in it.
const LOOK: Mode = Mode::RUSR.union(Mode::XUSR);

/// The folders from the root to the present one. However many they are, [`HELD`] and one are open: a path
/// would have to be short, and a descriptor for each would have to be many.
struct Line {
    root: OwnedFd,
    held: Vec<OwnedFd>,
    /// Of each folder, so that the way up is known again.
    nodes: Vec<Node>,
    /// The present folder, where it is deeper than those that are held.
    last: Option<OwnedFd>,
}

impl Line {
    /// The folder that the next one is looked up in.
    fn present(&self) -> &OwnedFd {
        self.last.as_ref().or(self.held.last()).unwrap_or(&self.root)
    }

    /// Goes up until there are so many folders on the line.
    fn up(&mut self, depth: usize) -> Result<(), Errno> {
        if depth <= HELD {
            self.last = None;
            self.held.truncate(depth);
            self.nodes.truncate(depth);
        }
        while self.nodes.len() > depth {
            self.nodes.pop();
            if let (Some(last), Some(above)) = (&self.last, self.nodes.last()) {
                self.last = Some(beneath::open_above(last, above)?);
            }
        }
        Ok(())
    }

    /// Goes down into a folder of the present one.
    fn down(&mut self, name: &CStr) -> Result<(), Errno> {
        let (folder, node) = beneath::open_own_dir(self.present(), name, LOOK)?;
        self.nodes.push(node);
        if self.held.len() < HELD {
            self.held.push(folder)
        } else {
            self.last = Some(folder)
        }
        Ok(())
    }
}

struct Walk {
    line: Line,
    most: u64,
    /// Folders to enter: how deep, and by which name in the one above. The deepest are the last.
    waiting: Vec<(usize, CString)>,
    /// Bytes of those names.
    names: usize,
    found: Measured,
}

impl Walk {
    fn run(&mut self) {
        while let Some((depth, name)) = self.waiting.pop() {
            self.names -= name.as_bytes().len().min(self.names);
            if self.line.up(depth).is_err() {
                self.lose_the_way();
                continue;
            }
            match self.line.down(&name) {
                Ok(()) => self.enter(),
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

    /// Somebody moved a folder while we were below it. What waits so deep is not looked at; the rest is.
    fn lose_the_way(&mut self) {
        self.found.seen = Seen::Part;
        while let Some((_, name)) = self.waiting.pop_if(|(depth, _)| *depth > HELD) {
            self.names -= name.as_bytes().len().min(self.names);
        }
    }

    fn enter(&mut self) {
        let Ok(mut dir) = beneath::read_dir(self.line.present()) else {
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
            self.count(name);
        }
    }

    fn count(&mut self, name: &CStr) {
        let statx =
            match rustix::fs::statx(self.line.present(), name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
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
                self.waiting.push((self.line.nodes.len(), name.to_owned()));
            }
            FileType::Directory => self.found.seen = Seen::Part,
            _ => {}
        }
    }
}
