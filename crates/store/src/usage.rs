//! What an account has spent, by day and by user. Counted in the transaction that writes what was spent for,
//! so that no count is lost and none is made up.

use bailiwick_audit::Verdict;
use bailiwick_auth::access::verb::{CallModel, ReadAccountUsage, ReadUsage};
use bailiwick_auth::{Permit, Recorded, Tenant};
use bailiwick_types::quota::Resource;
use bailiwick_types::{Day, Exhausted, Quotas, Timestamp, UserName};
use serde_json::{Map, json};

use crate::error::StoreError;
use crate::session::Tokens;
use crate::sql::{Row, Sql, args};
use crate::store::Store;
use crate::{log, quota};

/// Days that are shown, today among them.
const DAYS_SHOWN: i64 = 30;
/// Rows by user that are shown.
const ROWS_SHOWN: usize = 1_000;
/// No answer has so many tokens. A model that claims more must not make a sum too large to be written.
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// What was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Tokens that models read.
    pub tokens_in: u64,
    /// Tokens that models wrote.
    pub tokens_out: u64,
    /// Calls of models that were begun.
    pub model_calls: u64,
    /// Calls of tools that were begun.
    pub tool_calls: u64,
}

impl Spent {
    /// Input and output together.
    pub fn tokens(&self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }
}

/// What one user, or all of them, spent in a day.
#[derive(Debug, Clone)]
pub struct SpentRow {
    /// The day.
    pub day: Day,
    /// Who; `None` stands for users who are gone.
    pub user: Option<UserName>,
    /// What.
    pub spent: Spent,
}

/// What everybody may know of the account, and the caller of themselves.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Today.
    pub day: Day,
    /// What the whole account spent today: this is what its budgets are held against.
    pub today: Spent,
    /// Sessions of the account with a turn under way.
    pub sessions: u64,
    /// What the caller spent on each of the last 30 days, newest first.
    pub own: Vec<SpentRow>,
}

/// What the account's admins may know.
#[derive(Debug, Clone)]
pub struct AccountUsage {
    /// What the account spent on each of the last 30 days, newest first.
    pub days: Vec<SpentRow>,
    /// The same by user, the newest thousand rows.
    pub users: Vec<SpentRow>,
}

/// What is about to be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spending {
    /// A call of a model, whose tokens are counted when it has answered.
    ModelCall,
    /// A call of a tool.
    ToolCall,
}

impl Spending {
    /// What must be left of it.
    const fn needs(self) -> &'static [Resource] {
        match self {
            Self::ModelCall => &[Resource::TokensPerDay, Resource::ModelCallsPerDay],
            Self::ToolCall => &[Resource::ToolCallsPerDay],
        }
    }

    const fn counted(self) -> Spent {
        let nothing = Spent { tokens_in: 0, tokens_out: 0, model_calls: 0, tool_calls: 0 };
        match self {
            Self::ModelCall => Spent { model_calls: 1, ..nothing },
            Self::ToolCall => Spent { tool_calls: 1, ..nothing },
        }
    }
}

/// Counts a call that is about to begin, or says which budget is used up and counts nothing.
pub(crate) fn spend(
    sql: &Sql<'_>,
    defaults: &Quotas,
    who: Option<&UserName>,
    what: Spending,
) -> Result<Result<(), Exhausted>, StoreError> {
    let day = Day::today();
    let limits = quota::in_force(sql, defaults)?;
    if what.needs().iter().any(|resource| limits.of(*resource).most().is_some()) {
        let spent = of_day(sql, day)?;
        for resource in what.needs().iter().copied() {
            let used = match resource {
                Resource::TokensPerDay => spent.tokens(),
                Resource::ModelCallsPerDay => spent.model_calls,
                Resource::ToolCallsPerDay => spent.tool_calls,
                Resource::StorageMib | Resource::ConcurrentSessions => continue,
            };
            if let Some(most) = limits.of(resource).most().filter(|most| used >= *most) {
                return Ok(Err(Exhausted { resource, most, opens_at: Some(day.end()) }));
            }
        }
    }
    add(sql, day, who, &what.counted()).map(Ok)
}

/// Counts what was spent now.
pub(crate) fn count(sql: &Sql<'_>, who: Option<&UserName>, spent: &Spent) -> Result<(), StoreError> {
    add(sql, Day::of(Timestamp::now()), who, spent)
}

fn add(sql: &Sql<'_>, day: Day, who: Option<&UserName>, spent: &Spent) -> Result<(), StoreError> {
    sql.exec(
        "INSERT INTO usage_day (account, day, spender, tokens_in, tokens_out, model_calls, tool_calls) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (account, day, spender) DO UPDATE \
         SET tokens_in = usage_day.tokens_in + excluded.tokens_in, \
         tokens_out = usage_day.tokens_out + excluded.tokens_out, \
         model_calls = usage_day.model_calls + excluded.model_calls, \
         tool_calls = usage_day.tool_calls + excluded.tool_calls",
        args![
            day.to_number(),
            who.map_or("", UserName::as_str),
            spent.tokens_in.min(MOST_TOKENS),
            spent.tokens_out.min(MOST_TOKENS),
            spent.model_calls,
            spent.tool_calls,
        ],
    )?;
    Ok(())
}

/// A user goes; what they spent stays spent, and is nobody's. A namesake who comes later has spent nothing.
pub(crate) fn forget_user(sql: &Sql<'_>, name: &UserName) -> Result<(), StoreError> {
    let rows = sql.all(
        "SELECT day, spender, tokens_in, tokens_out, model_calls, tool_calls FROM usage_day \
         WHERE account = ?1 AND spender = ?2",
        args![name],
        spent_row,
    )?;
    for row in rows {
        add(sql, row.day, None, &row.spent)?;
    }
    sql.exec("DELETE FROM usage_day WHERE account = ?1 AND spender = ?2", args![name])?;
    Ok(())
}

fn spent_at(row: &Row<'_>, at: usize) -> Result<Spent, StoreError> {
    Ok(Spent {
        tokens_in: row.count(at)?,
        tokens_out: row.count(at + 1)?,
        model_calls: row.count(at + 2)?,
        tool_calls: row.count(at + 3)?,
    })
}

fn spent_row(row: &Row<'_>) -> Result<SpentRow, StoreError> {
    let name = row.text(1)?;
    let user = match name.as_str() {
        "" => None,
        name => Some(name.parse().map_err(|_| StoreError::Corrupt("a stored name or id"))?),
    };
    Ok(SpentRow { day: Day::from_number(row.int(0)?), user, spent: spent_at(row, 2)? })
}

fn of_day(sql: &Sql<'_>, day: Day) -> Result<Spent, StoreError> {
    let spent = sql.one(
        // A sum of PostgreSQL's is of another type than what it sums up.
        "SELECT CAST(coalesce(sum(tokens_in), 0) AS BIGINT), CAST(coalesce(sum(tokens_out), 0) AS BIGINT), \
         CAST(coalesce(sum(model_calls), 0) AS BIGINT), CAST(coalesce(sum(tool_calls), 0) AS BIGINT) \
         FROM usage_day WHERE account = ?1 AND day = ?2",
        args![day.to_number()],
        |row| spent_at(row, 0),
    )?;
    Ok(spent.unwrap_or_default())
}

impl Store {
    /// How far the account's budgets are used up, and what the caller spent.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn usage_read(&self, permit: &Permit<ReadUsage>) -> Result<Usage, StoreError> {
        let user = permit.scope().user();
        let day = Day::today();
        self.database(permit.tenant())?
            .read(|sql| {
                let own = match user {
                    None => Vec::new(),
                    Some(user) => sql.all(
                        "SELECT day, spender, tokens_in, tokens_out, model_calls, tool_calls FROM usage_day \
                         WHERE account = ?1 AND day > ?2 AND spender = ?3 ORDER BY day DESC",
                        args![day.earlier(DAYS_SHOWN).to_number(), user],
                        spent_row,
                    )?,
                };
                Ok(Usage { day, today: of_day(sql, day)?, sessions: quota::under_way(sql)?, own })
            })
            .await
    }

    /// What the account spent, day by day and user by user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn usage_read_account(&self, permit: &Permit<ReadAccountUsage>) -> Result<AccountUsage, StoreError> {
        let since = Day::today().earlier(DAYS_SHOWN).to_number();
        self.database(permit.tenant())?
            .read(|sql| {
                let days = sql.all(
                    "SELECT day, '', CAST(sum(tokens_in) AS BIGINT), CAST(sum(tokens_out) AS BIGINT), \
                     CAST(sum(model_calls) AS BIGINT), CAST(sum(tool_calls) AS BIGINT) FROM usage_day \
                     WHERE account = ?1 AND day > ?2 GROUP BY day ORDER BY day DESC",
                    args![since],
                    spent_row,
                )?;
                let users = sql.all(
                    "SELECT day, spender, tokens_in, tokens_out, model_calls, tool_calls FROM usage_day \
                     WHERE account = ?1 AND day > ?2 ORDER BY day DESC, spender LIMIT ?3",
                    args![since, ROWS_SHOWN],
                    spent_row,
                )?;
                Ok(AccountUsage { days, users })
            })
            .await
    }

    /// Counts what a call of a model cost whose session was deleted before it was heard to its end, and puts
    /// on record how the call ended. One that another driver has taken over is that driver's to count.
    ///
    /// # Errors
    /// If the database fails, or the account is gone as well.
    pub async fn usage_count_gone(&self, act: &Recorded<CallModel>, tokens: &Tokens) -> Result<(), StoreError> {
        let detail = Map::from_iter([("ended".to_owned(), json!("session deleted"))]);
        let draft = act.outcome(Verdict::Fail, detail);
        let spent = Spent { tokens_in: tokens.input_tokens, tokens_out: tokens.output_tokens, ..Spent::default() };
        let (session, user) = (act.resource().id(), act.scope().user().cloned());
        self.write(act.scope().tenant(), move |tx| {
            let there = tx.one("SELECT 1 FROM session WHERE account = ?1 AND id = ?2", args![session], |_| Ok(()))?;
            let users = tx.one("SELECT count(*) FROM account_user WHERE account = ?1", args![], |row| row.count(0))?;
            if there.is_some() || users.unwrap_or(0) == 0 {
                return Ok(());
            }
            let known = match &user {
                Some(name) => tx
                    .one("SELECT 1 FROM account_user WHERE account = ?1 AND name = ?2", args![name], |_| Ok(()))?
                    .and(user.as_ref()),
                None => None,
            };
            count(tx, known, &spent)?;
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// The bytes of the account's files.
    ///
    /// # Errors
    /// If they cannot be measured.
    pub async fn usage_storage(&self, permit: &Permit<ReadUsage>) -> Result<bailiwick_files::Measured, StoreError> {
        let tenant: &Tenant = permit.tenant();
        self.storage_measured(tenant).await
    }
}
