//! What an account may use: the server's defaults, what the operator set over them, and the refusal where
//! something is used up.
//!
//! A limit is read in the transaction that spends, so that it holds from the next spending on.

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{ReadAccount, ReadAccountLimits, SetAccountLimits};
use bailiwick_types::quota::Resource;
use bailiwick_types::{Exhausted, Quota, QuotaOverrides, Quotas, SessionId};
use serde_json::{Map, json};

use crate::error::StoreError;
use crate::log;
use crate::sql::{Row, Sql, args};
use crate::store::Store;

/// The limits of an account, and where they come from.
#[derive(Debug, Clone, Copy)]
pub struct AccountLimits {
    /// What holds.
    pub in_force: Quotas,
    /// What the operator set.
    pub set: QuotaOverrides,
    /// What holds where nothing is set.
    pub defaults: Quotas,
}

/// Sessions with a turn under way: those at work, those whose turn waits for a person, and those with
/// something in their queue. How many, and whether `?2` is among them. Without `ALL` the planner would have both
/// sides in order of their ids, and so read all sessions that there ever were.
const UNDER_WAY: &str = "SELECT count(DISTINCT id), coalesce(sum(CASE WHEN id = ?2 THEN 1 ELSE 0 END), 0) FROM \
     (SELECT id FROM session WHERE account = ?1 AND state NOT IN ('idle', 'failed', 'done', 'canceled') \
     UNION ALL SELECT session FROM delivery WHERE account = ?1) busy";

fn figure(row: &Row<'_>, at: usize) -> Result<Option<Quota>, StoreError> {
    row.optional_int(at)?
        .map(|figure| u64::try_from(figure).map(Quota::new).map_err(|_| StoreError::Corrupt("a limit below zero")))
        .transpose()
}

fn overrides(sql: &Sql<'_>) -> Result<QuotaOverrides, StoreError> {
    let set = sql.one(
        "SELECT tokens_per_day, model_calls_per_day, tool_calls_per_day, storage_mib, concurrent_sessions \
         FROM account_limits WHERE account = ?1",
        args![],
        |row| {
            Ok(QuotaOverrides {
                tokens_per_day: figure(row, 0)?,
                model_calls_per_day: figure(row, 1)?,
                tool_calls_per_day: figure(row, 2)?,
                storage_mib: figure(row, 3)?,
                concurrent_sessions: figure(row, 4)?,
            })
        },
    )?;
    Ok(set.unwrap_or_default())
}

/// The limits that hold for the account of this connection.
pub(crate) fn in_force(sql: &Sql<'_>, defaults: &Quotas) -> Result<Quotas, StoreError> {
    Ok(overrides(sql)?.over(defaults))
}

/// The record's line for a spending that is refused: the one that would have been its intent, denied.
pub(crate) fn denied(mut draft: Draft, exhausted: &Exhausted) -> Draft {
    draft.phase = Phase::Act;
    draft.verdict = Verdict::Denied;
    draft.detail.extend(refusal_detail(exhausted));
    draft
}

/// What the record says of a refusal.
pub fn refusal_detail(exhausted: &Exhausted) -> Map<String, serde_json::Value> {
    Map::from_iter([
        ("code".to_owned(), json!(exhausted.resource.reason())),
        ("limit".to_owned(), json!(exhausted.resource.as_str())),
        ("most".to_owned(), json!(exhausted.most)),
    ])
}

/// How many sessions have a turn under way.
pub(crate) fn under_way(sql: &Sql<'_>) -> Result<u64, StoreError> {
    Ok(sql.one(UNDER_WAY, args![""], |row| row.count(0))?.unwrap_or(0))
}

/// Whether a turn may begin in this session. One that is under way already takes what comes.
pub(crate) fn admit_turn(sql: &Sql<'_>, defaults: &Quotas, session: SessionId) -> Result<(), StoreError> {
    let Some(most) = in_force(sql, defaults)?.concurrent_sessions.most() else { return Ok(()) };
    let (busy, own) = sql.one(UNDER_WAY, args![session], |row| Ok((row.count(0)?, row.count(1)?)))?.unwrap_or_default();
    if own > 0 || busy < most {
        return Ok(());
    }
    Err(Exhausted { resource: Resource::ConcurrentSessions, most, opens_at: None }.into())
}

impl Store {
    /// Says what holds for every account for which the operator set nothing else. Before it, nothing is
    /// limited; said once, at the start.
    pub fn limit_accounts(&self, defaults: Quotas) {
        let _ = self.quota_slot().set(defaults);
    }

    pub(crate) fn default_quotas(&self) -> Quotas {
        self.quota_slot().get().copied().unwrap_or_default()
    }

    /// What the account may use.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn quotas(&self, permit: &Permit<ReadAccount>) -> Result<Quotas, StoreError> {
        let defaults = self.default_quotas();
        self.database(permit.tenant())?.read(|sql| in_force(sql, &defaults)).await
    }

    /// What the operator set for the account, and what comes of it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn limits_read(&self, permit: Permit<ReadAccountLimits>) -> Result<AccountLimits, StoreError> {
        let defaults = self.default_quotas();
        let set = self.database(permit.tenant())?.read(overrides).await?;
        Ok(AccountLimits { in_force: set.over(&defaults), set, defaults })
    }

    /// Sets the account's limits, all of them: what is left out is the default again.
    ///
    /// # Errors
    /// `limit_too_large`, or if the database fails.
    pub async fn limits_set(
        &self,
        permit: Permit<SetAccountLimits>,
        set: QuotaOverrides,
    ) -> Result<AccountLimits, StoreError> {
        if set.too_large().is_some() {
            let message = "a limit is larger than can be counted: use 0 for none";
            return Err(StoreError::Conflict { code: "limit_too_large", message });
        }
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let act = self.write(permit.tenant(), move |tx| {
            draft.detail.insert("from".to_owned(), json!(overrides(tx)?));
            draft.detail.insert("to".to_owned(), json!(set));
            let number = |quota: Option<Quota>| quota.map(Quota::to_number);
            tx.exec(
                "INSERT INTO account_limits (account, tokens_per_day, model_calls_per_day, tool_calls_per_day, \
                 storage_mib, concurrent_sessions) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (account) DO UPDATE \
                 SET tokens_per_day = excluded.tokens_per_day, model_calls_per_day = excluded.model_calls_per_day, \
                 tool_calls_per_day = excluded.tool_calls_per_day, storage_mib = excluded.storage_mib, \
                 concurrent_sessions = excluded.concurrent_sessions",
                args![
                    number(set.tokens_per_day),
                    number(set.model_calls_per_day),
                    number(set.tool_calls_per_day),
                    number(set.storage_mib),
                    number(set.concurrent_sessions),
                ],
            )?;
            log::append(tx, draft.clone())?;
            Ok(draft)
        });
        let act = act.await?;
        // The operator's own record has it as well. If that fails it is told, and may be repeated.
        self.writers().write(self.host(), move |tx| log::append(tx, act)).await?;
        let defaults = self.default_quotas();
        Ok(AccountLimits { in_force: set.over(&defaults), set, defaults })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use rusqlite::Connection;
    use rusqlite::config::DbConfig;

    use super::*;

    #[test]
    fn i17_what_is_under_way_is_counted_without_a_look_at_what_rests() {
        let connection = Connection::open_in_memory().unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).unwrap();
        connection.execute_batch(include_str!("schema/account_1.sql")).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {UNDER_WAY}")).unwrap();
        let rows = plan.query_map(["acc", "ses"], |row| row.get::<_, String>(3)).unwrap();
        let plan: Vec<String> = rows.map(Result::unwrap).collect();
        let looks: Vec<&String> = plan.iter().filter(|line| line.contains(" session ")).collect();
        assert!(!looks.is_empty() && looks.iter().all(|line| line.contains("session_state")), "{plan:#?}");
    }
}
