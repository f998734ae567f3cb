//! Reading content, always with a bound.
//!
//! Must never hand out a descriptor that [`Place::open`](crate::beneath::Place)
//! did not check.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;

use bailiwick_types::path::WorkspacePath;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::beneath::Node;
use crate::error::FileError;
use crate::workspace::{Stat, Workspace};

/// A regular file that was checked and is open for reading.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    pub(crate) node: Node,
}

impl Workspace {
    /// The content of a file of at most `max` bytes.
    ///
    /// # Errors
    /// [`FileError::TooLarge`] for a longer file, even one that grows while
    /// it is read.
    pub fn read(&self, path: &WorkspacePath, max: u64) -> Result<Vec<u8>, FileError> {
        let mut file = self.reader(path)?;
        if file.node.size > max {
            return Err(FileError::TooLarge { limit: max });
        }
        let mut content = Vec::new();
        file.by_ref()
            .take(max.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|error| FileError::of_io(error, "read the file"))?;
        if content.len() as u64 > max {
            return Err(FileError::TooLarge { limit: max });
        }
        Ok(content)
    }

    /// At most `max` bytes from `offset` on; empty behind the end.
    ///
    /// # Errors
    /// As for [`Workspace::reader`].
    pub fn read_range(&self, path: &WorkspacePath, offset: u64, max: u64) -> Result<Vec<u8>, FileError> {
        let mut file = self.reader(path)?;
        let mut content = Vec::new();
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.by_ref().take(max).read_to_end(&mut content))
            .map_err(|error| FileError::of_io(error, "read the file"))?;
        Ok(content)
    }

    /// Opens a file to stream it. The caller bounds what it reads.
    ///
    /// # Errors
    /// [`FileError::Refused`] for links and special files, without blocking.
    pub fn reader(&self, path: &WorkspacePath) -> Result<OpenFile, FileError> {
        let (fd, node) = self.place(path)?.open(OFlags::RDONLY)?;
        Ok(OpenFile::new(fd, node))
    }
}

impl OpenFile {
    pub(crate) fn new(fd: OwnedFd, node: Node) -> Self {
        Self { file: File::from(fd), node }
    }

    /// What was known of the file when it was opened.
    #[must_use]
    pub fn stat(&self) -> Stat {
        self.node.stat()
    }

    /// The bare file, for callers that need an asynchronous one.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// SHA-256 of the content, of which at most `max` bytes are looked at.
    pub(crate) fn hash(self, max: u64) -> Result<[u8; 32], FileError> {
        let mut content = self.file.take(max);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finalize().into()),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::of_io(error, "read the file")),
            }
        }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for OpenFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// SHA-256 of `content`, as [`crate::Expect::Hash`] and [`crate::Written`]
/// use it.
#[must_use]
pub fn content_hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}
