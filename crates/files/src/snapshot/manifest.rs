//! What a kept state names, how two of them differ, and their text.
//!
//! Must never hold a path that is no [`WorkspacePath`]: what is read back is parsed as such.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bailiwick_types::path::WorkspacePath;

use super::{Items, hex};
use crate::beneath::Node;

/// The state of a tree at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    pub(super) items: Items,
    pub(super) left_out: BTreeMap<String, LeftOut>,
    pub(super) unnamed: u64,
}

/// One entry of a kept state.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        /// SHA-256 of the content that is kept.
        sha256: [u8; 32],
        /// What tells that the file is still this one. None where it was changed too shortly before to tell.
        stamp: Option<Stamp>,
    },
    /// A symbolic link.
    Link {
        /// Where it says that it leads.
        text: Vec<u8>,
    },
}

/// Which inode, and when it was changed. The kernel moves the change time with everything but writes through a
/// mapping that is dirty already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: (u32, u32),
    inode: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

/// Why something of the tree was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// A file beyond the limit of one file.
    TooLarge,
    /// A file with a second name, which may lie outside.
    HardLink,
    /// A FIFO, socket or device.
    Special,
    /// The server may not read it, or it would not hold still.
    Unreadable,
    /// Something in this directory has a name that no path can hold, or lies too deep.
    Unnameable,
}

/// How a path differs between two states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the later state has it.
    Added,
    /// Both have it, with another kind, content or mode.
    Changed,
    /// Only the earlier state has it.
    Removed,
}

/// The differences of two states, with as many names as were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Paths with what became of them, in the order of names.
    pub paths: Vec<(String, Change)>,
    /// How many differ in all.
    pub total: u64,
}

impl Stamp {
    pub(super) fn of(node: &Node) -> Self {
        Self { device: node.device, inode: node.inode, modified: node.modified, changed: node.changed }
    }
}

impl LeftOut {
    /// The stable code of the reason.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::HardLink => "hard_link",
            Self::Special => "special",
            Self::Unreadable => "unreadable",
            Self::Unnameable => "unnameable",
        }
    }

    fn of_code(code: &str) -> Option<Self> {
        [Self::TooLarge, Self::HardLink, Self::Special, Self::Unreadable, Self::Unnameable]
            .into_iter()
            .find(|reason| reason.code() == code)
    }
}

impl Item {
    /// Whether a person would say that nothing changed: when something was written does not count.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { mode, sha256, .. }, Self::File { mode: other_mode, sha256: other_hash, .. }) => {
                (mode, sha256) == (other_mode, other_hash)
            }
            _ => self == other,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }
}

impl Manifest {
    /// What is kept, by path.
    pub fn items(&self) -> impl Iterator<Item = (&str, &Item)> {
        self.items.iter().map(|(path, item)| (path.as_str(), item))
    }

    /// What was there and is not kept, by path.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, LeftOut)> {
        self.left_out.iter().map(|(path, reason)| (path.as_str(), *reason))
    }

    /// How many entries no path can name. Their directories are in [`Manifest::left_out`].
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Whether both name the same files, contents and modes.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.left_out, self.unnamed) == (&other.left_out, other.unnamed) && self.changes_to(other, 0).total == 0
    }

    /// What changed from this state to a later one, with at most `max` names.
    #[must_use]
    pub fn changes_to(&self, later: &Self, max: usize) -> Changes {
        let mut changed: BTreeMap<&str, Change> = BTreeMap::new();
        for (path, item) in &self.items {
            match later.items.get(path) {
                None => drop(changed.insert(path, Change::Removed)),
                Some(other) if !item.is_same(other) => drop(changed.insert(path, Change::Changed)),
                Some(_) => {}
            }
        }
        let added = later.items.keys().filter(|path| !self.items.contains_key(*path));
        changed.extend(added.map(|path| (path.as_str(), Change::Added)));
        let total = changed.len() as u64;
        let paths = changed.into_iter().take(max).map(|(path, change)| (path.to_owned(), change)).collect();
        Changes { paths, total }
    }

    /// Whether the path may have been there although it is not kept: it was left out, or a directory above it
    /// could not be read.
    pub(super) fn may_have_had(&self, path: &str) -> bool {
        let unread = |path: &str| self.left_out.get(path) == Some(&LeftOut::Unreadable);
        let mut above = path.rmatch_indices('/').filter_map(|(at, _)| path.get(..at));
        self.left_out.contains_key(path) || unread(".") || above.any(unread)
    }

    /// The names under which its contents lie.
    pub(super) fn contents(&self) -> impl Iterator<Item = String> {
        self.items.values().filter_map(|item| match item {
            Item::File { sha256, .. } => Some(hex(sha256)),
            Item::Directory { .. } | Item::Link { .. } => None,
        })
    }

    /// Lines of words, the path last: it holds no line break. The last line says that the text is whole.
    pub(super) fn encode(&self) -> String {
        let mut text = String::from("bailiwick-snapshot 1\n");
        for (path, item) in &self.items {
            // Writing to a string does not fail.
            let _ = match item {
                Item::Directory { mode } => writeln!(text, "d {mode:o} {path}"),
                Item::Link { text: to } => {
                    let to: String = to.iter().map(|byte| format!("{byte:02x}")).collect();
                    writeln!(text, "l {to} {path}")
                }
                Item::File { mode, size, sha256, stamp } => {
                    let stamp = stamp.map_or_else(|| String::from("-"), |stamp| stamp.encode());
                    writeln!(text, "f {mode:o} {size} {} {stamp} {path}", hex(sha256))
                }
            };
        }
        for (path, reason) in &self.left_out {
            let _ = writeln!(text, "o {} {path}", reason.code());
        }
        let _ = writeln!(text, "end {}", self.unnamed);
        text
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut lines = text.strip_prefix("bailiwick-snapshot 1\n")?.strip_suffix('\n')?.split('\n');
        let mut manifest = Self { unnamed: lines.next_back()?.strip_prefix("end ")?.parse().ok()?, ..Self::default() };
        for line in lines {
            let (kind, rest) = line.split_once(' ')?;
            match kind {
                "o" => {
                    let (code, path) = rest.split_once(' ')?;
                    manifest.left_out.insert(parsed(path)?, LeftOut::of_code(code)?);
                }
                "d" => {
                    let (mode, path) = rest.split_once(' ')?;
                    manifest.items.insert(parsed(path)?, Item::Directory { mode: octal(mode)? });
                }
                "l" => {
                    let (to, path) = rest.split_once(' ')?;
                    manifest.items.insert(parsed(path)?, Item::Link { text: unhex(to)? });
                }
                "f" => {
                    let mut words = rest.splitn(5, ' ');
                    let mode = octal(words.next()?)?;
                    let size = words.next()?.parse().ok()?;
                    let sha256 = unhex(words.next()?)?.try_into().ok()?;
                    let stamp = match words.next()? {
                        "-" => None,
                        stamp => Some(Stamp::decode(stamp)?),
                    };
                    manifest.items.insert(parsed(words.next()?)?, Item::File { mode, size, sha256, stamp });
                }
                _ => return None,
            }
        }
        Some(manifest)
    }
}

impl Stamp {
    fn encode(self) -> String {
        let Self { device, inode, modified, changed } = self;
        let (seconds, nanos) = modified;
        format!("{},{},{inode},{seconds},{nanos},{},{}", device.0, device.1, changed.0, changed.1)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(',');
        let device = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let inode = words.next()?.parse().ok()?;
        let modified = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let changed = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self { device, inode, modified, changed })
    }
}

/// The path, if it is the normal spelling of one in a workspace. `.` is what was left out of the root.
fn parsed(path: &str) -> Option<String> {
    WorkspacePath::parse(path).ok().filter(|parsed| parsed.as_str() == path).map(|parsed| parsed.as_str().to_owned())
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_directory_that_could_not_be_read_may_have_been_there() {
        let left_out = [("closed", LeftOut::Unreadable), ("odd", LeftOut::Unnameable), ("fifo", LeftOut::Special)];
        let left_out = left_out.map(|(path, reason)| (path.to_owned(), reason));
        let mut manifest = Manifest { left_out: left_out.into(), ..Manifest::default() };
        for path in ["closed", "closed/a", "closed/a/b", "fifo", "odd"] {
            assert!(manifest.may_have_had(path), "{path}");
        }
        // What could be read names all that it held, but for what no path can name.
        for path in ["open", "open/closed", "closed2", "odd/a"] {
            assert!(!manifest.may_have_had(path), "{path}");
        }
        manifest.left_out.insert(".".to_owned(), LeftOut::Unreadable);
        assert!(manifest.may_have_had("open"));
    }
}
