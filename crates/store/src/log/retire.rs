//! Retention: what the oldest events say is erased; their numbers and leaf hashes stay, and so does every
//! proof.
//!
//! The event that says so is written first, in one transaction with the first rows that it covers. Longer
//! retirements go on in transactions of their own. A crash in between leaves fewer rows erased than the
//! event allows, which is whole; the next retirement goes on from there.

use std::sync::Arc;

use bailiwick_audit::{Actor, Draft, Phase, RETIRE, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::HostPermit;
use bailiwick_auth::access::verb::{RetireAudit, RetireHostAudit};
use bailiwick_types::{Incarnation, Timestamp};
use serde_json::{Map, json};

use crate::engine::Database;
use crate::error::StoreError;
use crate::log::{append, export, head};
use crate::sql::{Sql, args};
use crate::store::Store;

/// Rows in one transaction.
const ROWS: u64 = 1_000;

/// What was retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// Every event with a smaller number is retired.
    pub below: u64,
    /// How many of them only now.
    pub erased: u64,
}

/// The numbers to retire: from the first event that is whole, to the first that is not older.
fn due(sql: &Sql<'_>, before: Timestamp, signed: u64) -> Result<(u64, u64), StoreError> {
    let size = head(sql)?.size;
    let first = export::retired(sql, size)?;
    // Events are in the order of their numbers, not of the clock: the first younger one ends it.
    let younger = sql.one(
        "SELECT seq FROM event WHERE account = ?1 AND seq >= ?2 AND at >= ?3 ORDER BY seq LIMIT 1",
        args![first, before],
        |row| row.count(0),
    )?;
    Ok((first, younger.unwrap_or(size).min(signed)))
}

fn erase(sql: &Sql<'_>, from: u64, below: u64) -> Result<(), StoreError> {
    sql.exec(
        "UPDATE event SET at = 0, actor = '', credential = '', address = '', request = NULL, action = 'retired', \
         resource = '', space = NULL, agent = NULL, phase = '', verdict = '', intent = NULL, detail = '{}', untold = 1 \
         WHERE account = ?1 AND seq >= ?2 AND seq < ?3",
        args![from, below],
    )
    .map(drop)
}

impl Store {
    /// Retires what is older than `before` in the account's log.
    ///
    /// # Errors
    /// `too_young` if that is younger than the least age; or if the database fails.
    pub async fn event_retire(&self, permit: Permit<RetireAudit>, before: Timestamp) -> Result<Retired, StoreError> {
        let draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.retire_as_asked(self.database(permit.tenant())?, draft, before).await
    }

    /// The same in the host's log.
    ///
    /// # Errors
    /// The same.
    pub async fn event_retire_host(
        &self,
        permit: HostPermit<RetireHostAudit>,
        before: Timestamp,
    ) -> Result<Retired, StoreError> {
        let draft =
            Draft { action: RETIRE.to_owned(), ..permit.draft("host:this".to_owned(), Verdict::Ok, Map::new()) };
        self.retire_as_asked(Arc::clone(self.host()), draft, before).await
    }

    /// What a person asked for is on record, also where there was nothing to do.
    async fn retire_as_asked(
        &self,
        database: Arc<Database>,
        mut draft: Draft,
        before: Timestamp,
    ) -> Result<Retired, StoreError> {
        let retired = self.retire(Arc::clone(&database), draft.clone(), before).await?;
        if retired.erased == 0 {
            draft.detail.insert("below".to_owned(), serde_json::json!(retired.below));
            self.writers().write(&database, move |tx| super::append(tx, draft).map(drop)).await?;
        }
        Ok(retired)
    }

    /// Retires what is older than `before` in every log, those of deleted accounts among them, as the part
    /// of the server that keeps the configured retention. Says in how many logs something was retired.
    ///
    /// # Errors
    /// If the logs cannot be listed. A log that fails is told in the server's own log, and the others go on.
    pub async fn event_retire_all(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut logs = vec![(None, "host:this".to_owned())];
        for entry in std::fs::read_dir(self.accounts_dir())?.flatten() {
            let life = entry.file_name().to_str().and_then(|name| name.parse::<Incarnation>().ok());
            logs.extend(life.map(|life| (Some(life), format!("log:{life}"))));
        }
        let mut changed = 0;
        for (life, resource) in logs {
            let draft = Draft {
                actor: Actor::Service("retention".to_owned()),
                ..crate::account::startup(RETIRE, resource.clone())
            };
            let database = match life {
                None => Ok(Arc::clone(self.host())),
                Some(life) => self.database_of(life),
            };
            let retired = match database {
                Ok(database) => self.retire(database, draft, before).await,
                // It is being made, or was not.
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => Err(error),
            };
            match retired {
                Ok(retired) => changed += usize::from(retired.erased > 0),
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                Err(error) => tracing::warn!(%error, log = resource, "old events could not be retired"),
            }
        }
        Ok(changed)
    }

    async fn retire(&self, database: Arc<Database>, draft: Draft, before: Timestamp) -> Result<Retired, StoreError> {
        let seal = self.seal()?;
        let least = i64::try_from(seal.least_age().as_micros()).unwrap_or(i64::MAX);
        if before.as_micros() > Timestamp::now().as_micros().saturating_sub(least) {
            return Err(StoreError::Conflict {
                code: "too_young",
                message: "events are kept for a while, whatever is asked: choose an earlier time (audit.least_age_hours)",
            });
        }
        // Nothing is looked for twice where nothing is due, and nothing is signed.
        let reading = Arc::clone(&database);
        let looked = tokio::task::spawn_blocking(move || reading.read_snapshot(|sql| due(sql, before, u64::MAX)));
        let (first, below) = looked.await.map_err(|_| StoreError::Closed)??;
        if first >= below {
            return Ok(Retired { below: first, erased: 0 });
        }
        // What is erased must be covered by a head that is kept outside of the database.
        let signed = self.sign_kept(&database).await?;
        let (first, below) = self
            .writers()
            .write(&database, move |tx| {
                let (first, below) = due(tx.sql, before, signed)?;
                if first < below {
                    let detail =
                        Map::from_iter([("below".to_owned(), json!(below)), ("before".to_owned(), json!(before))]);
                    append(tx, Draft { detail, ..draft })?;
                    erase(tx.sql, first, below.min(first + ROWS))?;
                }
                Ok((first, below.max(first)))
            })
            .await?;
        let mut next = first + ROWS;
        while next < below {
            let until = below.min(next + ROWS);
            self.writers().write(&database, move |tx| erase(tx.sql, next, until)).await?;
            next = until;
        }
        // What is erased shall not stay in the write-ahead log.
        let forgetting = tokio::task::spawn_blocking(move || database.forget_past());
        if let Ok(Err(error)) = forgetting.await {
            tracing::warn!(%error, "the write-ahead log was not shortened after a retirement");
        }
        Ok(Retired { below, erased: below - first })
    }
}
