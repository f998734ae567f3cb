//! What can go wrong in the store, and whose fault it is.

use bailiwick_files::FileError;

/// An act or a read of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller named something that is not there.
    #[error("{kind} not found: {name}")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// As the caller named it.
        name: String,
    },
    /// The caller's name is taken.
    #[error("{kind} already exists: {name}")]
    Exists {
        /// What kind of thing.
        kind: &'static str,
        /// As the caller named it.
        name: String,
    },
    /// The act does not fit the present state. `code` is stable.
    #[error("{message}")]
    Conflict {
        /// A stable word.
        code: &'static str,
        /// For the caller.
        message: &'static str,
    },
    /// Another server, or a later turn, holds the session.
    #[error("the session is driven by another turn")]
    Fenced,
    /// The database refused or failed: disk full, read-only, busy.
    #[error("the database failed")]
    Database(#[source] rusqlite::Error),
    /// The commit that held this act and others failed; none of them is there.
    #[error("the transaction could not be committed")]
    Commit,
    /// What is stored is not what we wrote.
    #[error("stored data cannot be read: {0}")]
    Corrupt(&'static str),
    /// A migration is missing, or the data is of a newer version.
    #[error("the data directory is of version {found}, this program knows up to {known}")]
    Version {
        /// What the file says.
        found: i64,
        /// What we know.
        known: i64,
    },
    /// Another server runs on this data directory.
    #[error("another server is using this data directory: stop it first")]
    Locked,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Closed,
    /// The system gave no random bytes.
    #[error("the system's random source failed")]
    NoEntropy,
    /// A file of the data directory could not be read or written.
    #[error("the data directory could not be used")]
    Io(#[from] std::io::Error),
    /// A file of a space.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(_: serde_json::Error) -> Self {
        Self::Corrupt("a value that is no JSON")
    }
}

impl StoreError {
    /// Whether the storage failed in a way that passes, and nothing was changed: the disk is full, or
    /// somebody else holds the file. The same act may go well later.
    pub fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        match self {
            Self::Commit => true,
            Self::Database(error) => error.sqlite_error_code().is_some_and(|code| {
                matches!(code, CannotOpen | DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure)
            }),
            Self::Io(error) => {
                matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    pub(crate) fn not_found(kind: &'static str, name: impl ToString) -> Self {
        Self::NotFound { kind, name: name.to_string() }
    }

    pub(crate) fn exists(kind: &'static str, name: impl ToString) -> Self {
        Self::Exists { kind, name: name.to_string() }
    }
}
