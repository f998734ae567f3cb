//! The state of a workspace: kept, compared, and put back.
//!
//! A [`Tree`] says what there was; the bytes lie in [`Contents`], by their hash, in a folder of the operator's that
//! nothing in a workspace can reach. What cannot be kept is in the tree with the reason, and is left alone when the
//! tree is put back.
//!
//! Must never name content that was not read as such: a file goes by the descriptor that was checked, and its copy is
//! what is hashed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bailiwick_types::path::WorkspacePath;
use rustix::fs::{AtFlags, Gid, Uid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::beneath::{self, Node};
use crate::error::{FileError, Refusal};
use crate::read::OpenFile;
use crate::tree::{is_dot, read_names};
use crate::workspace::{EntryKind, Workspace};
use crate::write::{Expect, TICK, fresh_name, is_temporary};

/// The longest target of a symbolic link that is kept, bytes.
const LONGEST_LINK: usize = 4096;
const KEEPING: &str = "keep the file";
/// In the place of an error's code: it would have been lost.
const NOT_KEPT: &str = "not_kept";

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries of a tree; one with more is not kept.
    pub entries: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files that were not kept before.
    pub new_bytes: u64,
}

/// Why something is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// The file is larger than [`Bounds::file_bytes`].
    TooLarge,
    /// There was no more room: [`Bounds::new_bytes`].
    NoRoom,
    /// The file has a second name.
    HardLink,
    /// A FIFO, socket or device.
    Special,
    /// Its name, or the target of a link, is no text that can be written down.
    Name,
    /// It could not be read, or changed all the time.
    Unreadable,
}

/// What stood at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Item {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Bytes.
        size: u64,
        /// SHA-256 of the content, in hexadecimal.
        content: String,
        /// Last change of the content: seconds since 1970, and nanoseconds.
        modified: (i64, u32),
        /// The inode and its last change, by which it is known again. Not of a file that had just changed: the next
        /// change may have the same stamp.
        mark: Option<(u64, i64, u32)>,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        to: String,
    },
    /// Something that was not kept.
    LeftOut {
        /// Why.
        why: LeftOut,
    },
}

impl Item {
    /// Whether both say the same of what can be put back.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { mode, content, .. }, Self::File { mode: other_mode, content: other_content, .. }) => {
                (mode, content) == (other_mode, other_content)
            }
            (one, other) => one == other,
        }
    }
}

/// The state of a workspace, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// What stood where. A name that is none is escaped, with a backslash, which no path has.
    pub items: BTreeMap<String, Item>,
}

/// How a path differs between two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is there in the later one alone.
    Added,
    /// It is another thing.
    Changed,
    /// It is there in the earlier one alone.
    Removed,
}

impl Tree {
    /// What is other in `later`.
    pub fn changes<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = (&'a str, Change)> {
        let gone = self.items.keys().filter(|path| !later.items.contains_key(*path));
        let gone = gone.map(|path| (path.as_str(), Change::Removed));
        let other = later.items.iter().filter_map(|(path, item)| match self.items.get(path) {
            None => Some((path.as_str(), Change::Added)),
            Some(before) => (!before.is_like(item)).then_some((path.as_str(), Change::Changed)),
        });
        gone.chain(other)
    }

    /// The hashes of its contents.
    pub fn contents(&self) -> impl Iterator<Item = &str> {
        self.items.values().filter_map(|item| match item {
            Item::File { content, .. } => Some(content.as_str()),
            _ => None,
        })
    }
}

/// What was done to put a state back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutBack {
    /// Files and links written.
    pub written: u64,
    /// Paths removed, a directory counting as one.
    pub removed: u64,
    /// Paths that could not be put back, with the code of the error.
    pub failed: Vec<(String, &'static str)>,
}

/// Bytes by their hash, in a folder of the operator's.
#[derive(Debug)]
pub struct Contents {
    dir: PathBuf,
}

impl Contents {
    /// The folder, which is made if it is missing, for this user alone.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Copies a file; its hash. Where the file system can share blocks, it does.
    fn put(&self, file: &File, most: u64) -> Result<(String, u64), FileError> {
        let failed = |error| FileError::of_io(error, KEEPING);
        let temporary = self.dir.join(fresh_name()?);
        let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary);
        let copied = made.map_err(failed).and_then(|mut copy| {
            if rustix::fs::ioctl_ficlone(&copy, file).is_ok() {
                return hashed(&mut copy, &mut io::sink(), most);
            }
            let mut from = file;
            hashed(&mut from, &mut copy, most)
        });
        let kept = copied.and_then(|(hash, size)| {
            let place = self.dir.join(&hash);
            if !place.exists() {
                fs::rename(&temporary, place).map_err(failed)?;
            }
            Ok((hash, size))
        });
        // Gone if it was renamed.
        let _ = fs::remove_file(&temporary);
        kept
    }

    fn get(&self, hash: &str) -> Result<File, FileError> {
        let is_hash = hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hash {
            return Err(FileError::NotFound);
        }
        File::open(self.dir.join(hash)).map_err(|error| FileError::of_io(error, "read what was kept"))
    }

    /// Removes what is not among these; the bytes that stay.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn sweep(&self, used: &HashSet<&str>) -> io::Result<u64> {
        let mut stay = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| used.contains(name)) {
                stay += entry.metadata()?.len();
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(stay)
    }
}

/// Copies at most `most` bytes, and hashes them.
fn hashed(from: &mut impl Read, to: &mut impl Write, most: u64) -> Result<(String, u64), FileError> {
    let mut hasher = Sha256::new();
    let (mut size, mut buffer) = (0_u64, vec![0; 64 * 1024]);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FileError::of_io(error, KEEPING)),
        };
        size += count as u64;
        if size > most {
            return Err(FileError::TooLarge { limit: most });
        }
        let read = buffer.get(..count).unwrap_or_default();
        hasher.update(read);
        to.write_all(read).map_err(|error| FileError::of_io(error, KEEPING))?;
    }
    let hash: [u8; 32] = hasher.finalize().into();
    Ok((hash.iter().map(|byte| format!("{byte:02x}")).collect(), size))
}

/// Something that was found in a workspace.
struct Found {
    path: WorkspacePath,
    node: Node,
}

impl Workspace {
    /// Keeps the state of the workspace, and says how many bytes were copied. Files that are as in `last` are not read
    /// again.
    ///
    /// # Errors
    /// [`FileError::TooLarge`] if it has more entries than are kept; else what the host answered of the root.
    pub fn keep(&self, contents: &Contents, last: Option<&Tree>, bounds: Bounds) -> Result<(Tree, u64), FileError> {
        self.state(Some(contents), last, bounds)
    }

    /// What the state is, to be compared with one that was kept. Nothing is copied; files that are as in `last` are not
    /// read.
    ///
    /// # Errors
    /// As for [`Workspace::keep`].
    pub fn look(&self, last: Option<&Tree>, entries: usize, file_bytes: u64) -> Result<Tree, FileError> {
        Ok(self.state(None, last, Bounds { entries, file_bytes, new_bytes: u64::MAX })?.0)
    }

    fn state(
        &self,
        contents: Option<&Contents>,
        last: Option<&Tree>,
        bounds: Bounds,
    ) -> Result<(Tree, u64), FileError> {
        let began = SystemTime::now();
        let mut tree = Tree::default();
        let mut left = bounds.new_bytes;
        self.each(bounds.entries, &mut |found| {
            let (key, item) = match found {
                Ok(Found { path, node }) => {
                    let before = last.and_then(|last| last.items.get(path.as_str()));
                    let item = self.item(&path, &node, before, (contents, bounds.file_bytes, &mut left), began);
                    // What went before it could be looked at was never there.
                    let Some(item) = item else { return };
                    (path.as_str().to_owned(), item)
                }
                Err(name) => (name, Item::LeftOut { why: LeftOut::Name }),
            };
            tree.items.insert(key, item);
        })?;
        Ok((tree, bounds.new_bytes - left))
    }

    fn item(
        &self,
        path: &WorkspacePath,
        node: &Node,
        before: Option<&Item>,
        (contents, most, left): (Option<&Contents>, u64, &mut u64),
        began: SystemTime,
    ) -> Option<Item> {
        let left_out = |why| Some(Item::LeftOut { why });
        match node.kind() {
            EntryKind::Directory => Some(Item::Directory { mode: node.permissions() }),
            EntryKind::Symlink => match self.link(path) {
                Ok(Some(to)) => Some(Item::Link { to }),
                Ok(None) => left_out(LeftOut::Name),
                Err(FileError::NotFound) => None,
                Err(_) => left_out(LeftOut::Unreadable),
            },
            EntryKind::Special | EntryKind::Unnameable => left_out(LeftOut::Special),
            EntryKind::File if node.links > 1 => left_out(LeftOut::HardLink),
            EntryKind::File if node.size > most => left_out(LeftOut::TooLarge),
            EntryKind::File => {
                if let Some(Item::File { content, size, mark: Some(mark), .. }) = before
                    && *mark == mark_of(node)
                    && *size == node.size
                {
                    return Some(file_item(node, content.clone(), node.size, began));
                }
                if node.size > *left {
                    return left_out(LeftOut::NoRoom);
                }
                match self.reader(path).and_then(|file| kept(contents, file, most.min(*left))) {
                    Ok((opened, content, size)) => {
                        *left = left.saturating_sub(size);
                        Some(file_item(&opened, content, size, began))
                    }
                    Err(FileError::NotFound) => None,
                    Err(FileError::NoSpace | FileError::TooLarge { .. }) => left_out(LeftOut::NoRoom),
                    Err(FileError::Refused { reason: Refusal::HardLink }) => left_out(LeftOut::HardLink),
                    Err(_) => left_out(LeftOut::Unreadable),
                }
            }
        }
    }

    /// Where a symbolic link leads, if that is text.
    fn link(&self, path: &WorkspacePath) -> Result<Option<String>, FileError> {
        let place = self.place(path)?;
        let to = rustix::fs::readlinkat(&place.dir, place.name, Vec::new())
            .map_err(|errno| FileError::of(errno, "read the link"))?;
        Ok(to.into_string().ok().filter(|to| to.len() <= LONGEST_LINK))
    }

    /// Shows every entry, directories before what they hold; a name that is none as an error, escaped.
    fn each(&self, most: usize, show: &mut dyn FnMut(Result<Found, String>)) -> Result<(), FileError> {
        let mut waiting = vec![WorkspacePath::root()];
        let mut seen = 0;
        while let Some(dir) = waiting.pop() {
            let fd = match beneath::open_dir_entries(&self.inner.root, dir.as_str()) {
                Err(error) if dir.is_root() => return Err(error),
                // Gone, or closed by whoever owns it: it stands in the tree, and what it holds does not.
                Err(_) => continue,
                Ok(fd) => fd,
            };
            let mut names = Vec::new();
            read_names(&fd, most - seen + 1, &mut |name| {
                if !is_dot(name) {
                    names.push(name.to_owned());
                }
            })?;
            seen += names.len();
            if seen > most {
                return Err(FileError::TooLarge { limit: most as u64 });
            }
            for name in names {
                let path = name.to_str().ok().and_then(|name| dir.join(name).ok());
                let Some(path) = path else {
                    let escaped = name.to_bytes().escape_ascii().to_string().replace('/', "\\x2f");
                    let above = if dir.is_root() { String::new() } else { format!("{}/", dir.as_str()) };
                    show(Err(format!("{above}\\{escaped}")));
                    continue;
                };
                if path.file_name().is_some_and(is_temporary) {
                    continue;
                }
                let Ok(node) = Node::at(&fd, path.file_name().unwrap_or_default()) else { continue };
                if node.kind() == EntryKind::Directory {
                    waiting.push(path.clone());
                }
                show(Ok(Found { path, node }));
            }
        }
        Ok(())
    }

    /// Makes the workspace what it was, as far as it was kept. What was left out stays as it is; and so does what would
    /// be lost, because `now`, the state that was kept just before, has left it out: that is in [`PutBack::failed`] as
    /// `not_kept`. `most` is how many entries are looked at.
    ///
    /// # Errors
    /// [`FileError::TooLarge`] if there are more, with nothing changed; [`FileError::ReadOnly`]. What could not be put
    /// back is in [`PutBack::failed`].
    pub fn put_back(&self, tree: &Tree, now: &Tree, contents: &Contents, most: usize) -> Result<PutBack, FileError> {
        self.require_writable()?;
        let spared = now.spared();
        let mut there = BTreeMap::new();
        self.each(most, &mut |found| {
            if let Ok(Found { path, node }) = found {
                there.insert(path, node);
            }
        })?;
        let mut done = PutBack::default();
        let mut removed: Option<WorkspacePath> = None;
        for (path, node) in &there {
            if removed.as_ref().is_some_and(|above| path.is_within(above)) {
                continue;
            }
            if tree.items.get(path.as_str()).is_some_and(|item| may_stay(item, node)) {
                continue;
            }
            if spared.hold(path.as_str()) {
                done.failed.push((path.as_str().to_owned(), NOT_KEPT));
                continue;
            }
            match self.remove_all(path) {
                Ok(()) | Err(FileError::NotFound) => done.removed += 1,
                Err(error) => done.failed.push((path.as_str().to_owned(), error.code())),
            }
            removed = Some(path.clone());
        }
        let mut modes = Vec::new();
        for (text, item) in &tree.items {
            let Ok(path) = WorkspacePath::parse(text) else { continue };
            let put = match item {
                Item::LeftOut { .. } => Ok(false),
                _ if spared.0.contains(text.as_str()) => {
                    if !done.failed.iter().any(|(path, _)| path == text) {
                        done.failed.push((text.clone(), NOT_KEPT));
                    }
                    continue;
                }
                Item::Directory { mode } => {
                    modes.push((path.clone(), *mode));
                    self.mkdir_all(&path).map(|()| false)
                }
                Item::Link { to } => self.put_link(&path, to),
                Item::File { .. } => self.put_file(&path, item, there.get(&path), contents),
            };
            match put {
                Ok(written) => done.written += u64::from(written),
                Err(error) => done.failed.push((text.clone(), error.code())),
            }
        }
        // At last, and the deepest first: a directory that nobody may write in is filled by now.
        for (path, mode) in modes.into_iter().rev() {
            if self.stat(&path).is_ok_and(|stat| stat.mode != mode)
                && let Err(error) = self.set_mode(&path, mode)
            {
                done.failed.push((path.as_str().to_owned(), error.code()));
            }
        }
        Ok(done)
    }

    fn put_file(
        &self,
        path: &WorkspacePath,
        item: &Item,
        there: Option<&Node>,
        contents: &Contents,
    ) -> Result<bool, FileError> {
        let Item::File { mode, size, content, modified, mark } = item else { return Ok(false) };
        let is_it = |node: &Node| mark.is_some_and(|mark| mark == mark_of(node)) && *size == node.size;
        if there.is_some_and(is_it) {
            return Ok(false);
        }
        self.write_from(path, contents.get(content)?, *size, Expect::Anything)?;
        self.set_mode(path, *mode)?;
        let (seconds, nanos) = *modified;
        let since = Duration::new(u64::try_from(seconds).unwrap_or(0), nanos);
        self.set_modified(path, SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH))?;
        Ok(true)
    }

    fn put_link(&self, path: &WorkspacePath, to: &str) -> Result<bool, FileError> {
        match self.link(path) {
            Ok(Some(there)) if there == to => return Ok(false),
            Ok(_) => self.remove(path)?,
            Err(_) => {}
        }
        let place = self.place(path)?;
        let failed = |errno| FileError::of(errno, "make the link");
        rustix::fs::symlinkat(to, &place.dir, place.name).map_err(failed)?;
        if let Some(owner) = self.inner.owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::chownat(place.dir.as_fd(), place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed)?;
        }
        Ok(true)
    }
}

/// What would be lost if it was removed.
struct Spared<'a>(BTreeSet<&'a str>);

impl Spared<'_> {
    /// Whether it is one of them, or above one.
    fn hold(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.0.contains(path) || self.0.range(below.as_str()..).next().is_some_and(|next| next.starts_with(&below))
    }
}

impl Tree {
    fn spared(&self) -> Spared<'_> {
        let lost = |item: &Item| matches!(item, Item::LeftOut { why } if *why != LeftOut::Special);
        Spared(self.items.iter().filter(|(_, item)| lost(item)).map(|(path, _)| path.as_str()).collect())
    }
}

/// Whether what stands there now can stay, to be changed where it has to be.
fn may_stay(item: &Item, node: &Node) -> bool {
    match (item, node.kind()) {
        (Item::LeftOut { .. }, _) | (Item::Directory { .. }, EntryKind::Directory) => true,
        (Item::Link { .. }, EntryKind::Symlink) => true,
        (Item::File { .. }, EntryKind::File) => node.links == 1,
        _ => false,
    }
}

fn kept(contents: Option<&Contents>, file: OpenFile, most: u64) -> Result<(Node, String, u64), FileError> {
    let node = file.node;
    let mut file = file.into_file();
    let (content, size) = match contents {
        Some(contents) => contents.put(&file, most)?,
        None => hashed(&mut file, &mut io::sink(), most)?,
    };
    Ok((node, content, size))
}

fn mark_of(node: &Node) -> (u64, i64, u32) {
    (node.inode, node.changed.0, node.changed.1)
}

fn file_item(node: &Node, content: String, size: u64, began: SystemTime) -> Item {
    let changed = Duration::new(u64::try_from(node.changed.0).unwrap_or(0), node.changed.1) + TICK;
    let settled = SystemTime::UNIX_EPOCH.checked_add(changed).is_some_and(|changed| changed < began);
    // A copy that is of another length was made while the file was written.
    let mark = (settled && size == node.size).then(|| mark_of(node));
    Item::File { mode: node.permissions(), size, content, modified: node.modified, mark }
}

#[cfg(test)]
mod tests;
