//! SQLite: one file, with many readers and one writer.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::lock;
use crate::error::StoreError;
use crate::migrate::{self, Schema};
use crate::sql::Sql;

/// Idle readers kept for one file.
const READERS: usize = 4;
const BUSY: Duration = Duration::from_secs(10);
/// How long a writer's thread waits for one file that somebody else holds before it looks after others.
const HELD_LOOK: Duration = Duration::from_millis(50);

/// One database file.
pub(super) struct File {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Option<Connection>>,
}

impl File {
    /// Opens a file, makes it if it is missing, and migrates it.
    pub(super) fn open(path: PathBuf, schema: Schema) -> Result<Self, StoreError> {
        make_private(&path)?;
        let writer = connect(&path)?;
        migrate::apply(&writer, schema)?;
        Ok(Self { path, readers: Mutex::new(Vec::new()), writer: Mutex::new(Some(writer)) })
    }

    /// Reads in the caller's thread: a look-up takes microseconds, a change of thread takes more.
    pub(super) fn read<T>(
        &self,
        tenant: &str,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let result = work(&Sql::file(&connection, tenant));
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(connection);
        }
        result
    }

    /// Reads several statements' worth of one moment.
    pub(super) fn read_snapshot<T>(
        &self,
        tenant: &str,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = connect(&self.path)?;
        let snapshot = connection.transaction()?;
        work(&Sql::file(&snapshot, tenant))
    }

    /// Runs `work` in one transaction and flushes it to disk. Where it fails, nothing of it is there.
    pub(super) fn write(
        &self,
        tenant: &str,
        work: impl FnOnce(&Sql<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        let connection = match writer.as_mut() {
            Some(connection) => connection,
            None => writer.insert(connect(&self.path)?),
        };
        let result = transact(connection, tenant, work);
        if result.is_err() {
            // Whatever state it is in: a fresh connection has none.
            *writer = None;
        }
        result
    }

    /// Takes deleted content out of the write-ahead log, too, as far as nobody is reading just now.
    pub(super) fn forget_past(&self) -> Result<(), StoreError> {
        let connection = connect(&self.path)?;
        connection.busy_timeout(Duration::from_millis(200))?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

fn transact(
    connection: &mut Connection,
    tenant: &str,
    work: impl FnOnce(&Sql<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    connection.busy_timeout(HELD_LOOK)?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.busy_timeout(BUSY)?;
    work(&Sql::file(&tx, tenant))?;
    bailiwick_types::failpoint::reach("store.before_commit");
    tx.commit()?;
    bailiwick_types::failpoint::reach("store.after_commit");
    Ok(())
}

/// SQLite would make the file as wide as the umask allows; what it makes beside it follows the file.
fn make_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // A plan stays what it is: else every statement that compares an argument is planned anew each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // FULL: an acknowledged act survives a power cut. The page cache is small because there are many files.
    // What is deleted is overwritten: a deletion that leaves the text in free pages is none.
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-1024; \
         PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF; PRAGMA journal_size_limit=4194304; \
         PRAGMA secure_delete=ON;",
    )?;
    Ok(connection)
}
