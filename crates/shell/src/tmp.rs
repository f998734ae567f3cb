//! `/tmp`: files in memory that outlive a call and may be shared by shells.
//!
//! Must never be shared across accounts; who gets a clone of the handle is the
//! caller's decision (the agent's sandbox scope).

use std::fmt;
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bashkit::{
    DirEntry, FileSystem, FileSystemExt, FsLimits, FsUsage, InMemoryFs, Metadata, Result, async_trait,
};

use crate::gate::Gate;

/// A handle of one in-memory `/tmp`. Clones are the same directory.
#[derive(Clone)]
pub struct SharedTmp {
    files: Arc<InMemoryFs>,
}

/// Where the shared files stand in the in-memory tree, which comes with a few
/// system directories that must not show up in `/tmp`.
const BASE: &str = "/tmp";

impl SharedTmp {
    /// An empty directory for at most `max_bytes` of content.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let limits = FsLimits::new()
            .max_total_bytes(max_bytes)
            .max_file_size(max_bytes)
            .max_file_count(4096)
            .max_dir_count(4096);
        Self { files: Arc::new(InMemoryFs::with_limits(limits)) }
    }
}

impl fmt::Debug for SharedTmp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SharedTmp").finish_non_exhaustive()
    }
}

/// One call's view of a [`SharedTmp`].
pub(crate) struct TmpFs {
    files: Arc<InMemoryFs>,
    gate: Arc<Gate>,
}

impl TmpFs {
    pub(crate) fn new(tmp: &SharedTmp, gate: Arc<Gate>) -> Self {
        Self { files: Arc::clone(&tmp.files), gate }
    }

    fn at(&self, path: &Path) -> Result<PathBuf> {
        self.gate.pass()?;
        Ok(match path.strip_prefix("/") {
            Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from(BASE),
            Ok(rest) => Path::new(BASE).join(rest),
            Err(_) => Path::new(BASE).join(path),
        })
    }
}

#[async_trait]
impl FileSystemExt for TmpFs {
    fn usage(&self) -> FsUsage {
        self.files.usage()
    }

    fn limits(&self) -> FsLimits {
        self.files.limits()
    }

    async fn mkfifo(&self, path: &Path, mode: u32) -> Result<()> {
        self.files.mkfifo(&self.at(path)?, mode).await
    }
}

#[async_trait]
impl FileSystem for TmpFs {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        self.files.read_file(&self.at(path)?).await
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.files.write_file(&self.at(path)?, content).await
    }

    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.files.append_file(&self.at(path)?, content).await
    }

    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        self.files.mkdir(&self.at(path)?, recursive).await
    }

    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        let at = self.at(path)?;
        if at != Path::new(BASE) {
            return self.files.remove(&at, recursive).await;
        }
        // The mount point itself stays, as on a real system.
        if recursive {
            for entry in self.files.read_dir(&at).await? {
                self.files.remove(&at.join(&entry.name), true).await?;
            }
        }
        Err(IoError::new(ErrorKind::ResourceBusy, "Device or resource busy").into())
    }

    async fn stat(&self, path: &Path) -> Result<Metadata> {
        self.files.stat(&self.at(path)?).await
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.files.read_dir(&self.at(path)?).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.files.exists(&self.at(path)?).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.files.rename(&self.at(from)?, &self.at(to)?).await
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.files.copy(&self.at(from)?, &self.at(to)?).await
    }

    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        self.files.symlink(target, &self.at(link)?).await
    }

    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        self.files.read_link(&self.at(path)?).await
    }

    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        self.files.chmod(&self.at(path)?, mode).await
    }

    async fn set_modified_time(&self, path: &Path, time: SystemTime) -> Result<()> {
        self.files.set_modified_time(&self.at(path)?, time).await
    }
}
