//! What a job said, as it is read: page by page, and a page is bounded by its bytes.

use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::ReadJob;

use crate::error::StoreError;
use crate::session::fitting;
use crate::sql::args;
use crate::store::Store;

impl Store {
    /// Events of the job after number `after`, as JSON lines with their numbers: at most `limit`, and fewer where
    /// they are long, but one if there is one. A number that is left out is one that there was no room for.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn job_events(
        &self,
        permit: &Permit<ReadJob>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        let id = permit.resource().id();
        self.database(permit.tenant())?
            .read_for(permit.scope(), |sql| {
                let lengths = sql.all(
                    "SELECT CAST(octet_length(body) AS BIGINT) FROM job_event \
                     WHERE account = ?1 AND job = ?2 AND n > ?3 ORDER BY n LIMIT ?4",
                    args![id, after, limit],
                    |row| row.count(0),
                )?;
                sql.all(
                    "SELECT n, body FROM job_event WHERE account = ?1 AND job = ?2 AND n > ?3 ORDER BY n LIMIT ?4",
                    args![id, after, fitting(&lengths)],
                    |row| Ok((row.count(0)?, row.text(1)?)),
                )
            })
            .await
    }

    /// Woken when the job says something or its state changes.
    ///
    /// # Errors
    /// If the account's file cannot be opened.
    pub fn job_watch(&self, permit: &Permit<ReadJob>) -> Result<tokio::sync::watch::Receiver<u64>, StoreError> {
        Ok(self.database(permit.tenant())?.watch_session(permit.resource().id().as_session()))
    }
}
