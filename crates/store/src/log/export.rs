//! A log as a file, read in steps.
//!
//! No transaction is held open while somebody downloads: events are never changed but to be retired, so
//! the rows below the size of the first moment are those of that moment, whenever they are read. If some
//! are retired meanwhile the export breaks off, and its missing last line says so.

use std::sync::Arc;

use bailiwick_audit::checkpoint::{SignedNote, VerifierKey};
use bailiwick_audit::export::{self, WriteError, csv};
use bailiwick_auth::Permit;
use bailiwick_auth::access::HostPermit;
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadHostAudit};

use crate::engine::Database;
use crate::error::StoreError;
use crate::log::{Kept, STEP, kept};
use crate::sql::{Sql, args};
use crate::store::Store;

/// Rows in one piece.
const ROWS: usize = 200;

/// As what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportForm {
    /// JSON Lines with a signed head, which can be checked anywhere.
    JsonLines,
    /// A table, which proves nothing.
    Table,
}

/// A log on its way out, piece by piece.
pub struct Export {
    database: Arc<Database>,
    form: ExportForm,
    note: SignedNote,
    key: VerifierKey,
    size: u64,
    retired: u64,
    next: u64,
    begun: bool,
    ended: bool,
}

/// How many of the first events are retired.
pub(super) fn retired(sql: &Sql<'_>, size: u64) -> Result<u64, StoreError> {
    let first =
        sql.one("SELECT seq FROM event WHERE account = ?1 AND phase <> '' ORDER BY seq LIMIT 1", args![], |row| {
            row.count(0)
        })?;
    Ok(first.unwrap_or(size).min(size))
}

fn unwritten(error: WriteError) -> StoreError {
    match error {
        WriteError::Json(_) => StoreError::Corrupt("an event"),
        WriteError::TooLong => StoreError::Corrupt("an event that is too long to be exported"),
    }
}

impl Export {
    /// The log's origin, for a file's name.
    pub fn log(&self) -> &str {
        self.database.log().as_str()
    }

    /// The next piece; none after the last.
    ///
    /// # Errors
    /// If the database fails, or what was to be read has been retired meanwhile.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let database = Arc::clone(&self.database);
        let (next, size) = (self.next, self.size);
        let rows = tokio::task::spawn_blocking(move || {
            database.read_blocking(|sql| sql.all(STEP, args![next, size, ROWS], kept))
        });
        let rows = rows.await.map_err(|_| StoreError::Closed)??;
        let piece = match self.form {
            ExportForm::JsonLines => self.lines(&rows).map_err(unwritten)?,
            ExportForm::Table => self.table(&rows).map_err(unwritten)?,
        };
        for row in &rows {
            match row {
                Kept::Unreadable(_) => return Err(StoreError::Corrupt("an event: verify the log")),
                Kept::Retired(seq, _) if *seq >= self.retired => {
                    return Err(StoreError::Conflict {
                        code: "retired_meanwhile",
                        message: "events were retired meanwhile: export again",
                    });
                }
                Kept::Retired(seq, _) => self.next = seq + 1,
                Kept::Whole(event, _) => self.next = event.seq + 1,
            }
        }
        (self.begun, self.ended) = (true, rows.len() < ROWS);
        Ok(Some(piece))
    }

    fn lines(&self, rows: &[Kept]) -> Result<Vec<u8>, WriteError> {
        let mut out = Vec::new();
        if !self.begun {
            export::header_line(&mut out, self.database.log(), &self.key, &self.note, self.retired)?;
        }
        for row in rows {
            match row {
                Kept::Whole(event, hash) => export::event_line(&mut out, event, hash)?,
                Kept::Retired(seq, hash) => export::retired_line(&mut out, *seq, hash)?,
                Kept::Unreadable(_) => {}
            }
        }
        if rows.len() < ROWS {
            export::footer_line(&mut out, self.size)?;
        }
        Ok(out)
    }

    fn table(&self, rows: &[Kept]) -> Result<Vec<u8>, WriteError> {
        let mut out = String::new();
        if !self.begun {
            out.push_str(csv::HEADER);
        }
        for row in rows {
            match row {
                Kept::Whole(event, hash) => csv::event_row(&mut out, event, hash)?,
                Kept::Retired(seq, hash) => csv::retired_row(&mut out, *seq, hash),
                Kept::Unreadable(_) => {}
            }
        }
        Ok(out.into_bytes())
    }
}

impl Store {
    /// The account's whole log as a file.
    ///
    /// # Errors
    /// If the database fails, or this server does not sign.
    pub async fn event_export(&self, permit: Permit<ReadAccountAudit>, form: ExportForm) -> Result<Export, StoreError> {
        self.export(self.database(permit.tenant())?, form).await
    }

    /// The host's whole log as a file.
    ///
    /// # Errors
    /// If the database fails, or this server does not sign.
    pub async fn event_export_host(
        &self,
        _permit: HostPermit<ReadHostAudit>,
        form: ExportForm,
    ) -> Result<Export, StoreError> {
        self.export(Arc::clone(self.host()), form).await
    }

    async fn export(&self, database: Arc<Database>, form: ExportForm) -> Result<Export, StoreError> {
        let seal = self.seal()?;
        self.settle(&database).await;
        let reading = Arc::clone(&database);
        let begun = tokio::task::spawn_blocking(move || {
            reading.read_snapshot(|sql| {
                let head = crate::log::head(sql)?;
                let retired = retired(sql, head.size)?;
                Ok((head, retired))
            })
        });
        let (head, retired) = begun.await.map_err(|_| StoreError::Closed)??;
        let note = seal.signer().checkpoint(database.log(), &head, bailiwick_types::Timestamp::now());
        let key = seal.signer().verifier_key();
        Ok(Export { database, form, note, key, size: head.size, retired, next: 0, begun: false, ended: false })
    }
}
