//! A session's stream, as it is read: page by page, and a page is bounded by its bytes. Events are as long
//! as what people and models write, and one reader can follow many sessions.

use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::ReadSession;

use crate::error::StoreError;
use crate::sql::args;
use crate::store::Store;

/// Bytes of events in one page. Of each stream that is open, one page may wait for its reader.
const PAGE_BYTES: u64 = 512 * 1024;

/// How many of the next events make a page. An event that is a page by itself is one: a stream never stands
/// still because of it.
pub(crate) fn fitting(lengths: &[u64]) -> usize {
    let mut bytes = 0u64;
    let fit = lengths.iter().take_while(|length| {
        bytes = bytes.saturating_add(**length);
        bytes <= PAGE_BYTES
    });
    fit.count().max(1)
}

impl Store {
    /// Events of the session's stream from number `from` on, as JSON lines: at most `limit`, and fewer
    /// where they are long, but one if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session_events(
        &self,
        permit: &Permit<ReadSession>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let id = permit.resource().id();
        self.database(permit.tenant())?
            .read_for(permit.scope(), |sql| {
                // Their lengths first, which neither database reads the texts for.
                let lengths = sql.all(
                    "SELECT CAST(octet_length(body) AS BIGINT) FROM session_event \
                     WHERE account = ?1 AND session = ?2 AND n >= ?3 ORDER BY n LIMIT ?4",
                    args![id, from, limit],
                    |row| row.count(0),
                )?;
                sql.all(
                    "SELECT body FROM session_event WHERE account = ?1 AND session = ?2 AND n >= ?3 ORDER BY n LIMIT ?4",
                    args![id, from, fitting(&lengths)],
                    |row| row.text(0),
                )
            })
            .await
    }

    /// Woken when the session's stream grows.
    ///
    /// # Errors
    /// If the account's file cannot be opened.
    pub fn session_watch(&self, permit: &Permit<ReadSession>) -> Result<tokio::sync::watch::Receiver<u64>, StoreError> {
        Ok(self.database(permit.tenant())?.watch_session(permit.resource().id()))
    }
}
