//! What can go wrong in the store, and whose fault it is.

use bailiwick_files::FileError;
use bailiwick_types::Exhausted;

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
    /// The account has used up what it may use.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Another server, or a later turn, holds the session.
    #[error("the session is driven by another turn")]
    Fenced,
    /// The database refused or failed: disk full, read-only, busy.
    #[error("the database failed")]
    Database(#[source] rusqlite::Error),
    /// PostgreSQL refused or failed.
    #[error("the database failed")]
    Server(#[source] tokio_postgres::Error),
    /// The database is away, or too busy to answer in time. Nothing was done.
    #[error("{0}: try again later")]
    Unavailable(&'static str),
    /// The connection broke while the act was being committed, and the database did not come back in time
    /// to say whether it was.
    #[error("the database did not say whether this was done: look before you repeat it")]
    InDoubt,
    /// Somebody else is writing for this tenant.
    #[error("the database is held by somebody else: try again later")]
    Held,
    /// The database or the role does not keep tenants apart as it must.
    #[error("the database is not safe to use: {0}")]
    Unsafe(String),
    /// The commit that held this act and others failed; none of them is there.
    #[error("the transaction could not be committed")]
    Commit,
    /// What is stored is not what we wrote.
    #[error("stored data cannot be read: {0}")]
    Corrupt(&'static str),
    /// A migration is missing, or the data is of a newer version.
    #[error("the database is of version {found}, this program is of version {known}")]
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

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        use tokio_postgres::error::SqlState;
        // What ends by waiting is told apart from what does not.
        match error.code() {
            Some(&SqlState::QUERY_CANCELED) => Self::Unavailable("the database is busy"),
            Some(&SqlState::TOO_MANY_CONNECTIONS) => Self::Unavailable("the database has no connection left"),
            Some(code) if code.code().starts_with("57P") || code.code().starts_with("08") => {
                Self::Unavailable("the database is being stopped or started")
            }
            Some(_) => Self::Server(error),
            None if error.is_closed() || is_io(&error) => Self::Unavailable("the database cannot be reached"),
            None => Self::Server(error),
        }
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
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
            Self::Commit | Self::Held => true,
            Self::Database(error) => error.sqlite_error_code().is_some_and(|code| {
                matches!(code, CannotOpen | DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure)
            }),
            Self::Server(error) => {
                use tokio_postgres::error::SqlState;
                matches!(error.code(), Some(&SqlState::DISK_FULL | &SqlState::OUT_OF_MEMORY | &SqlState::IO_ERROR))
            }
            Self::Io(error) => {
                matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    /// Whether somebody else holds the database, and nothing was begun.
    pub(crate) fn is_held(&self) -> bool {
        match self {
            Self::Held => true,
            Self::Database(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy),
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
