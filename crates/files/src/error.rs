//! What can go wrong with a file of a space, and whose fault it is.
//!
//! Messages never name a path of the host: the caller knows the path it asked
//! for, and the rest is nobody's business.

use std::io;

use rustix::io::Errno;

/// Failure of one operation on a [`crate::Workspace`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Nothing has that name.
    #[error("no such file or directory")]
    NotFound,
    /// A file was wanted and the name belongs to something else.
    #[error("not a file: name a regular file")]
    NotAFile,
    /// A directory was wanted, here or on the way.
    #[error("not a directory: a part of the path is a file")]
    NotADirectory,
    /// The directory still has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// What stands there could lead outside the space.
    #[error("refused: {reason}")]
    Refused {
        /// What was found.
        reason: Refusal,
    },
    /// The file, or the list of entries, is larger than the caller allows.
    #[error("too large: the limit is {limit}")]
    TooLarge {
        /// The limit, in bytes or entries.
        limit: u64,
    },
    /// The workspace may only be read.
    #[error("the workspace is read-only")]
    ReadOnly,
    /// Something already has that name.
    #[error("already exists")]
    Exists,
    /// The file is not, or did not stay, what the caller expected.
    #[error("the file has changed: read it again")]
    Changed,
    /// Disk or quota is full.
    #[error("no space left in the workspace")]
    NoSpace,
    /// The kernel cannot open files safely, so none is opened.
    #[error("this kernel has no openat2: Linux 5.6 or later is needed to open workspace files safely")]
    Unsupported,
    /// The host failed.
    #[error("could not {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// What stood in the way of staying inside the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A component is a symbolic link.
    #[error("symbolic links are not followed")]
    Symlink,
    /// The file has a second name, which may lie outside.
    #[error("the file has more than one hard link")]
    HardLink,
    /// A FIFO, socket or device.
    #[error("not a regular file or directory")]
    Special,
    /// The path leaves the root or crosses into another file system.
    #[error("the path leaves the workspace")]
    Escapes,
}

impl FileError {
    /// The stable code of the reply at the HTTP edge.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NotAFile => "not_a_file",
            Self::NotADirectory => "not_a_directory",
            Self::NotEmpty => "not_empty",
            Self::Refused { .. } => "path_traversal",
            Self::TooLarge { .. } => "too_large",
            Self::ReadOnly => "read_only",
            Self::Exists => "exists",
            Self::Changed => "changed",
            Self::NoSpace => "no_space",
            Self::Unsupported => "unsupported",
            Self::Io { .. } => "io",
        }
    }

    /// Turns the kernel's answer into ours. `doing` completes "could not …".
    pub(crate) fn of(errno: Errno, doing: &'static str) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            Errno::NOTDIR => Self::NotADirectory,
            Errno::ISDIR => Self::NotAFile,
            Errno::NOTEMPTY => Self::NotEmpty,
            Errno::EXIST => Self::Exists,
            Errno::LOOP => Self::refused(Refusal::Symlink),
            Errno::XDEV => Self::refused(Refusal::Escapes),
            // Opening a FIFO for writing without a reader, a socket, or a
            // device without a driver.
            Errno::NXIO | Errno::NODEV => Self::refused(Refusal::Special),
            Errno::ROFS => Self::ReadOnly,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::NoSpace,
            Errno::NOSYS => Self::Unsupported,
            _ => Self::Io { doing, source: errno.into() },
        }
    }

    pub(crate) const fn refused(reason: Refusal) -> Self {
        Self::Refused { reason }
    }

    /// The same for errors of `std::io`, keeping the kernel's number if any.
    pub(crate) fn of_io(error: io::Error, doing: &'static str) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => Self::of(errno, doing),
            None => Self::Io { doing, source: error },
        }
    }
}
