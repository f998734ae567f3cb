//! Files that hold a secret: private to their owner, or they are not used.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// The longest secret that makes sense, bytes.
const LONGEST: u64 = 8 * 1024;

/// A secret's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, #[source] io::Error),
    #[error("{0} can be read by others (mode {1:04o}): run `chmod 600 {0}`")]
    TooWide(String, u32),
    #[error("{0} is empty")]
    Empty(String),
    #[error("{0} is no text, or longer than a secret is")]
    NoText(String),
}

/// Why a file with a secret in it is too open, if it is.
pub(crate) fn width_problem(path: &Path, file: &File) -> Option<SecretFileError> {
    let mode = file.metadata().ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then(|| SecretFileError::TooWide(path.display().to_string(), mode))
}

/// Reads a secret from its own file, without the newline at its end. The mode is read from the opened
/// file, so that the file which is judged is the file which is read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let name = || path.display().to_string();
    let failed = |error| SecretFileError::Unreadable(name(), error);
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(SecretFileError::NoText(name()));
    }
    if let Some(problem) = width_problem(path, &file) {
        return Err(problem);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LONGEST {
        return Err(SecretFileError::NoText(name()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretFileError::NoText(name()))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(SecretFileError::Empty(name())),
        secret => Ok(Zeroizing::new(secret.to_owned())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn u06_a_private_file_is_read_and_a_wide_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "s3cret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path).unwrap().as_str(), "s3cret");
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read_secret(&path), Err(SecretFileError::TooWide(..))), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(read_secret(&path), Err(SecretFileError::Empty(_))));
        assert!(matches!(read_secret(dir.path()), Err(SecretFileError::NoText(_))));
    }
}
