//! The files of the repository: those that git tracks or would track. Reads, never writes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A text file of the repository.
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

/// The checkout.
pub(crate) struct Repository {
    root: PathBuf,
}

impl Repository {
    /// Finds the checkout that this program was built from.
    pub(crate) fn open() -> io::Result<Self> {
        // As cargo says it when it runs us: what was compiled in may be of another checkout that shares the
        // target directory.
        let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let manifest = Path::new(&folder);
        let root = manifest.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { root: root.to_owned() })
    }

    /// Its root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Every text file that is tracked, or new and not ignored.
    pub(crate) fn files(&self) -> io::Result<Vec<File>> {
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(&self.root)
            .output()?;
        if !listed.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&listed.stderr).into_owned()));
        }
        let mut files = Vec::new();
        for path in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            match std::fs::read_to_string(self.root.join(path)) {
                Ok(text) => files.push(File { path: path.to_owned(), text }),
                // Deleted but still in the index, or no text.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }
}

/// The crate's folder that a path is in, if it is in one.
pub(crate) fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.split('/').next()
}
