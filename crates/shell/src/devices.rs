//! The endless devices `/dev/zero`, `/dev/random` and `/dev/urandom`.
//!
//! The interpreter reads whole files, so an endless one has to end somewhere.
//! Reading one therefore leaves a notice: a command that wanted more got less.

use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bashkit::{DirEntry, FileSystem, FileSystemExt, FileType, Metadata, Result, async_trait};

use crate::gate::Notices;

/// What a device is full of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filling {
    Zeros,
    Noise,
}

/// One device, mounted at its own path.
pub(crate) struct Device {
    pub(crate) path: &'static str,
    pub(crate) filling: Filling,
    pub(crate) notices: Arc<Notices>,
}

/// Where the endless devices end.
const DEVICE_BYTES: usize = 1024 * 1024;

impl FileSystemExt for Device {}

#[async_trait]
impl FileSystem for Device {
    async fn read_file(&self, _: &Path) -> Result<Vec<u8>> {
        let path = self.path;
        self.notices.note(format!("{path} was read: here it ends after {DEVICE_BYTES} bytes"));
        let mut content = vec![0; DEVICE_BYTES];
        if self.filling == Filling::Noise {
            getrandom::fill(&mut content).map_err(|_| IoError::other("no randomness"))?;
        }
        Ok(content)
    }

    async fn write_file(&self, _: &Path, _: &[u8]) -> Result<()> {
        Ok(())
    }

    async fn append_file(&self, _: &Path, _: &[u8]) -> Result<()> {
        Ok(())
    }

    async fn stat(&self, _: &Path) -> Result<Metadata> {
        let now = SystemTime::now();
        Ok(Metadata { file_type: FileType::File, size: 0, mode: 0o666, modified: now, created: now })
    }

    async fn exists(&self, _: &Path) -> Result<bool> {
        Ok(true)
    }

    async fn mkdir(&self, _: &Path, _: bool) -> Result<()> {
        Err(denied())
    }

    async fn remove(&self, _: &Path, _: bool) -> Result<()> {
        Err(denied())
    }

    async fn read_dir(&self, _: &Path) -> Result<Vec<DirEntry>> {
        Err(denied())
    }

    async fn rename(&self, _: &Path, _: &Path) -> Result<()> {
        Err(denied())
    }

    async fn copy(&self, _: &Path, _: &Path) -> Result<()> {
        Err(denied())
    }

    async fn symlink(&self, _: &Path, _: &Path) -> Result<()> {
        Err(denied())
    }

    async fn read_link(&self, _: &Path) -> Result<PathBuf> {
        Err(denied())
    }

    async fn chmod(&self, _: &Path, _: u32) -> Result<()> {
        Err(denied())
    }
}

fn denied() -> bashkit::Error {
    IoError::new(ErrorKind::PermissionDenied, "Permission denied").into()
}
