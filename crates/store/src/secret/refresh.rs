//! Refreshes of the grants among the secrets: who asks the token endpoint, and what came of it. A refresh token may be
//! good for one time, so of all servers on a database one asks, and what it got is here before anybody uses it.

use std::time::Duration;

use bailiwick_audit::Verdict;
use bailiwick_auth::access::verb::RefreshSecret;
use bailiwick_auth::{Permit, Recorded};
use bailiwick_types::{SecretKind, SecretName, Timestamp};
use serde_json::{Map, Value, json};

use super::Sealing;
use crate::data_key::{data_key, keep};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::sql::{Row, args};
use crate::store::Store;

const RUNNING: &str = "running";
const WAITING: &str = "waiting";

/// What is with a grant's refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// Nothing.
    Idle,
    /// Somebody asks, and is believed to until then.
    Running(Timestamp),
    /// It failed, and nobody asks before then.
    Waiting(Timestamp),
    /// The token endpoint refused it with this error of the standard: it has to be set again.
    Failed(String),
}

impl Refresh {
    pub(super) fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        let (state, until) = (row.text(at)?, row.time(at + 1)?);
        Ok(match state.as_str() {
            "" => Self::Idle,
            RUNNING => Self::Running(until),
            WAITING => Self::Waiting(until),
            _ => Self::Failed(state),
        })
    }

    /// The error for which it has to be set again.
    pub(super) fn failed(self) -> Option<String> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Idle | Self::Running(_) | Self::Waiting(_) => None,
        }
    }
}

/// The right to ask the token endpoint, of one grant as it was at one version.
#[derive(Debug)]
pub struct Taken {
    version: u64,
    until: Timestamp,
}

impl Store {
    /// Takes the refresh of a grant that is at this version, for so long; `None` if somebody else has it, the grant is
    /// another one by now, or it is not to be asked for.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn secret_refresh_take(
        &self,
        permit: &Permit<RefreshSecret>,
        version: u64,
        time: Duration,
    ) -> Result<Option<Taken>, StoreError> {
        let name = permit.resource().secret().clone();
        self.write(permit.tenant(), move |tx| {
            let now = Timestamp::now();
            let until = now.after(time);
            let taken = tx.exec(
                "UPDATE secret SET refresh = 'running', refresh_until = ?5 \
                 WHERE account = ?1 AND name = ?2 AND version = ?3 AND kind = 'oauth' \
                 AND (refresh = '' OR (refresh IN ('running', 'waiting') AND refresh_until <= ?4))",
                args![&name, version, now, until],
            )?;
            Ok((taken == 1).then_some(Taken { version, until }))
        })
        .await
    }

    /// Keeps what a refresh brought as the next version, with the act's outcome, in one transaction. Says the version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the grant is another one by now, or what `sealing` says. The outcome is then not
    /// on record.
    pub async fn secret_refreshed(
        &self,
        act: &Recorded<RefreshSecret>,
        taken: &Taken,
        mut detail: Map<String, Value>,
        sealing: Sealing,
    ) -> Result<u64, StoreError> {
        let (name, at) = (act.resource().secret().clone(), (taken.version, taken.until));
        let version = taken.version + 1;
        detail.insert("version".to_owned(), json!(version));
        let draft = act.outcome(Verdict::Ok, detail);
        self.write(act.scope().tenant(), move |tx| {
            held(tx, &name, at)?;
            let key = data_key(tx)?;
            let (used, sealed) = sealing(key.clone(), version)?;
            if key.as_ref() != Some(&used) {
                keep(tx, &used)?;
            }
            tx.exec(
                "UPDATE secret SET version = ?3, sealed = ?4, refresh = '', refresh_until = 0 \
                 WHERE account = ?1 AND name = ?2",
                args![&name, version, sealed.as_slice()],
            )?;
            log::append(tx, draft)?;
            Ok(version)
        })
        .await
    }

    /// Notes that a refresh brought nothing, with the act's outcome, in one transaction: nobody asks before `next`
    /// says so.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the grant is another one by now; the outcome is then not on record.
    pub async fn secret_refresh_failed(
        &self,
        act: &Recorded<RefreshSecret>,
        taken: &Taken,
        next: Refresh,
        detail: Map<String, Value>,
    ) -> Result<(), StoreError> {
        let (name, at) = (act.resource().secret().clone(), (taken.version, taken.until));
        let draft = act.outcome(Verdict::Fail, detail);
        let (state, until) = match next {
            Refresh::Idle => (String::new(), Timestamp::from_micros(0)),
            Refresh::Running(until) => (RUNNING.to_owned(), until),
            Refresh::Waiting(until) => (WAITING.to_owned(), until),
            Refresh::Failed(error) => (error, Timestamp::from_micros(0)),
        };
        self.write(act.scope().tenant(), move |tx| {
            held(tx, &name, at)?;
            tx.exec(
                "UPDATE secret SET refresh = ?3, refresh_until = ?4 WHERE account = ?1 AND name = ?2",
                args![&name, state.as_str(), until],
            )?;
            log::append(tx, draft).map(drop)
        })
        .await
    }
}

/// Whether the refresh is still whose it was taken to be.
fn held(tx: &Tx<'_>, name: &SecretName, (version, until): (u64, Timestamp)) -> Result<(), StoreError> {
    let there = tx.one(
        "SELECT version, refresh, refresh_until, kind FROM secret WHERE account = ?1 AND name = ?2",
        args![name],
        |row| Ok((row.count(0)?, Refresh::read(row, 1)?, super::kind(row, 3)?)),
    )?;
    if there == Some((version, Refresh::Running(until), SecretKind::OAuth)) {
        return Ok(());
    }
    Err(StoreError::not_found("secret", name))
}
