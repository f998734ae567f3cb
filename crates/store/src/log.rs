//! The audit log: rows that are only ever added, and the tree over them.
//!
//! An act calls [`append`] inside its own transaction, so an act without its event cannot be
//! committed. The same tables stand in an account's file and in the host's.

use bailiwick_audit::event::UNTOLD;
use bailiwick_audit::{Actor, Draft, Event, Frontier, Hash, Head, Phase, Verdict};
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadAudit, ReadHostAudit, ReadSpace};
use bailiwick_auth::access::{HostPermit, Journal, JournalError};
use bailiwick_auth::{Permit, Scope, Tenant};
use bailiwick_types::{SpaceId, Timestamp, UserName};

use crate::engine::{Database, Tx};
use crate::error::StoreError;
use crate::sql::{Row, Sql, args};
use crate::store::Store;

mod export;
pub(crate) mod proof;
mod retire;
mod verify;

pub use export::{Export, ExportForm};
pub use proof::{ConsistencyProof, InclusionProof};
pub use retire::Retired;
pub use verify::Verified;

/// Observations that may wait in one file's queue. Beyond, they are counted as lost: an observation
/// must never hold up a request.
const OBSERVATIONS_WAITING: usize = 10_000;

/// Writes one event in the transaction of its act, and says its number.
pub(crate) fn append(tx: &mut Tx<'_>, draft: Draft) -> Result<u64, StoreError> {
    let event = Event { seq: next_seq(tx)?, at: Timestamp::now(), draft };
    let log = tx.log;
    let frontier = tx.group.frontier.get_or_insert_default();
    let (hash, detail) = event.seal(log)?;
    let tiles = frontier.append(hash);
    tx.group.grown = true;
    let d = &event.draft;
    tx.exec(
        "INSERT INTO event (account, seq, at, actor, credential, address, request, action, resource, space, agent, \
         phase, verdict, intent, detail, leaf_hash, untold) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        args![
            event.seq,
            event.at,
            d.actor.to_text(),
            &d.credential,
            &d.address,
            d.request.map(|id| id.to_string()),
            &d.action,
            &d.resource,
            d.space,
            d.agent.as_ref(),
            d.phase.as_str(),
            d.verdict.as_str(),
            d.intent,
            detail,
            &hash,
            i64::from(d.detail.contains_key(UNTOLD)),
        ],
    )?;
    proof::keep(tx.sql, &tiles)?;
    tx.logged();
    Ok(event.seq)
}

/// The number that the next event will have.
pub(crate) fn next_seq(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    if tx.group.frontier.is_none() {
        tx.group.frontier = Some(frontier(tx)?);
    }
    Ok(tx.group.frontier.get_or_insert_default().size())
}

fn frontier(sql: &Sql<'_>) -> Result<Frontier, StoreError> {
    let stored = sql.one("SELECT size, frontier FROM tree_head WHERE account = ?1", args![], |row| {
        Frontier::from_parts(row.count(0)?, &row.blob(1)?).ok_or(StoreError::Corrupt("the tree's right edge"))
    })?;
    Ok(stored.unwrap_or_default())
}

/// Writes the head at the end of a group.
pub(crate) fn write_head(sql: &Sql<'_>, frontier: &Frontier) -> Result<(), StoreError> {
    sql.exec(
        "INSERT INTO tree_head (account, size, root, frontier) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (account) DO UPDATE SET size = excluded.size, root = excluded.root, frontier = excluded.frontier",
        args![frontier.size(), &frontier.root(), frontier.node_bytes().as_slice()],
    )?;
    Ok(())
}

/// Columns before the last one that [`event`] reads.
const COLUMNS_READ: usize = 15;

/// The statement that reads whole rows from a number on, below another, retired ones among them.
pub(crate) const STEP: &str = "SELECT seq, at, actor, credential, address, request, action, resource, space, agent, phase, \
     verdict, intent, detail, leaf_hash, untold FROM event WHERE account = ?1 AND seq >= ?2 AND seq < ?3 \
     ORDER BY seq LIMIT ?4";

/// A row of a log as it is kept.
pub(crate) enum Kept {
    /// All that was written.
    Whole(Box<Event>, Hash),
    /// What is left of a retired event.
    Retired(u64, Hash),
    /// Something that we could not have written so.
    Unreadable(u64),
}

/// Reads a row of [`STEP`].
pub(crate) fn kept(row: &Row<'_>) -> Result<Kept, StoreError> {
    let seq = row.count(0)?;
    // Every event that was written has a phase; the database lets it be taken away from all at once alone.
    let retired = row.text(10).is_ok_and(|phase| phase.is_empty());
    Ok(match (retired, row.blob(COLUMNS_READ - 1).ok().and_then(|hash| hash.try_into().ok())) {
        (_, None) => Kept::Unreadable(seq),
        (true, Some(hash)) => Kept::Retired(seq, hash),
        (false, Some(_)) => {
            event(row).map_or(Kept::Unreadable(seq), |(event, hash)| Kept::Whole(Box::new(event), hash))
        }
    })
}

fn event(row: &Row<'_>) -> Result<(Event, Hash), StoreError> {
    let unknown = || StoreError::Corrupt("an event's words");
    let draft = Draft {
        actor: Actor::parse(&row.text(2)?).ok_or_else(unknown)?,
        credential: row.text(3)?,
        address: row.text(4)?,
        request: row.optional_parse(5)?,
        action: row.text(6)?,
        resource: row.text(7)?,
        space: row.optional_parse(8)?,
        agent: row.optional_parse(9)?,
        phase: Phase::parse(&row.text(10)?).ok_or_else(unknown)?,
        verdict: Verdict::parse(&row.text(11)?).ok_or_else(unknown)?,
        intent: row.optional_int(12)?.and_then(|n| u64::try_from(n).ok()),
        detail: row.json(13)?,
    };
    let hash = row.blob(COLUMNS_READ - 1)?.try_into().map_err(|_| unknown())?;
    // Beside the leaf, for the sake of an index, and so worth what the detail says.
    if (row.int(COLUMNS_READ)? != 0) != draft.detail.contains_key(UNTOLD) {
        return Err(unknown());
    }
    Ok((Event { seq: row.count(0)?, at: row.time(1)?, draft }, hash))
}

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// From this number on.
    pub from_seq: u64,
    /// Below this number.
    pub before_seq: Option<u64>,
    /// Only this action, or all that begin with it and a dot.
    pub action: Option<String>,
    /// Only this verdict.
    pub verdict: Option<Verdict>,
    /// Only what this user did.
    pub user: Option<UserName>,
    /// Only what this agent did.
    pub agent: Option<String>,
    /// Only in this space.
    pub space: Option<SpaceId>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
    /// From the newest down, instead of from the oldest up.
    pub order: Order,
}

/// In which order to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Oldest,
    /// Newest first.
    Newest,
}

/// Which refusals to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusals {
    /// All.
    All,
    /// Not those whose caller was told that there is no such thing: the line would say that there is.
    Told,
}

fn list(sql: &Sql<'_>, filter: &EventFilter, refusals: Refusals) -> Result<Vec<Event>, StoreError> {
    // One statement for both orders: the sign of `seq` turns it round.
    let text = match filter.order {
        Order::Oldest => LIST_OLDEST,
        Order::Newest => LIST_NEWEST,
    };
    let user = filter.user.as_ref();
    let untold = i64::from(refusals == Refusals::All);
    sql.all(
        text,
        args![
            filter.from_seq,
            filter.action.as_ref(),
            filter.verdict.map(Verdict::as_str),
            user.map(|name| Actor::User(name.clone()).to_text()),
            user.map(|name| Actor::OperatorFor(name.clone()).to_text()),
            filter.agent.as_ref(),
            filter.space,
            filter.from,
            filter.to,
            untold,
            filter.limit,
            filter.before_seq,
        ],
        |row| event(row).map(|(event, _)| event),
    )
}

macro_rules! list_statement {
    ($order:literal) => {
        concat!(
            "SELECT seq, at, actor, credential, address, request, action, resource, space, agent, phase, verdict, \
             intent, detail, leaf_hash, untold FROM event WHERE account = ?1 AND seq >= ?2 \
             AND (?3 IS NULL OR action = ?3 OR substr(action, 1, length(?3) + 1) = ?3 || '.') \
             AND (?4 IS NULL OR verdict = ?4) AND (?5 IS NULL OR actor IN (?5, ?6)) \
             AND (?7 IS NULL OR agent = ?7) AND (?8 IS NULL OR space = ?8) \
             AND (?9 IS NULL OR at >= ?9) AND (?10 IS NULL OR at < ?10) \
             AND untold <= ?11 AND phase <> '' AND (?13 IS NULL OR seq < ?13) ORDER BY seq ",
            $order,
            " LIMIT ?12"
        )
    };
}
const LIST_OLDEST: &str = list_statement!("ASC");
const LIST_NEWEST: &str = list_statement!("DESC");

pub(crate) fn head(sql: &Sql<'_>) -> Result<Head, StoreError> {
    let stored = sql.one("SELECT size, root FROM tree_head WHERE account = ?1", args![], |row| {
        let root = row.blob(1)?.try_into().map_err(|_| StoreError::Corrupt("the tree's root"))?;
        Ok(Head { size: row.count(0)?, root })
    })?;
    Ok(stored.unwrap_or_else(|| {
        let empty = Frontier::new();
        Head { size: 0, root: empty.root() }
    }))
}

impl Store {
    /// Events of the caller's own doing.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn event_list_own(
        &self,
        permit: Permit<ReadAudit>,
        filter: EventFilter,
    ) -> Result<Vec<Event>, StoreError> {
        let Some(user) = permit.scope().user().cloned() else { return Ok(Vec::new()) };
        let database = self.database(permit.tenant())?;
        // Not before the user was made: an earlier user of that name is somebody else.
        let Some(first) = database.read(|sql| crate::user::first_event(sql, &user)).await? else {
            return Ok(Vec::new());
        };
        let bounds = permit.scope().bounds();
        // A key that is bound to one place reads of that place alone.
        let filter = EventFilter {
            user: Some(user),
            from_seq: filter.from_seq.max(first),
            space: bounds.space.or(filter.space),
            agent: bounds.agent.map(|name| name.to_string()).or(filter.agent.clone()),
            ..filter
        };
        self.listed(database, filter, Refusals::Told).await
    }

    /// Lists in a thread of its own: a log can be long. Whoever asks finds what they saw happen, observations
    /// that wait for company too.
    async fn listed(
        &self,
        database: std::sync::Arc<Database>,
        filter: EventFilter,
        refusals: Refusals,
    ) -> Result<Vec<Event>, StoreError> {
        self.settle(&database).await;
        tokio::task::spawn_blocking(move || database.read_blocking(|sql| list(sql, &filter, refusals)))
            .await
            .map_err(|_| StoreError::Closed)?
    }

    /// Waits a moment for observations that wait for company. A database that cannot be written just now
    /// can be read all the same, and is read most when something is wrong.
    pub(crate) async fn settle(&self, database: &std::sync::Arc<Database>) {
        const MOMENT: std::time::Duration = std::time::Duration::from_millis(100);
        if !matches!(tokio::time::timeout(MOMENT, self.writers().settle(database)).await, Ok(Ok(()))) {
            tracing::debug!("a log is read before its last observations are written");
        }
    }

    /// Events of the whole account.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn event_list(
        &self,
        permit: Permit<ReadAccountAudit>,
        filter: EventFilter,
    ) -> Result<Vec<Event>, StoreError> {
        self.listed(self.database(permit.tenant())?, filter, Refusals::All).await
    }

    /// Events in one space, by whomever.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn event_list_space(
        &self,
        permit: &Permit<ReadSpace>,
        filter: EventFilter,
    ) -> Result<Vec<Event>, StoreError> {
        let filter = EventFilter { space: Some(permit.resource().id()), ..filter };
        self.listed(self.database(permit.tenant())?, filter, Refusals::All).await
    }

    /// The number that the account's next event will have. For those who follow the log and must not
    /// read again what was not theirs.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn event_next(&self, tenant: &Tenant) -> Result<u64, StoreError> {
        Ok(self.database(tenant)?.read(head).await?.size)
    }

    /// Events of the host.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn event_list_host(
        &self,
        _permit: HostPermit<ReadHostAudit>,
        filter: EventFilter,
    ) -> Result<Vec<Event>, StoreError> {
        self.listed(std::sync::Arc::clone(self.host()), filter, Refusals::All).await
    }

    /// Woken when the account's log grows.
    ///
    /// # Errors
    /// If the account's file cannot be opened.
    pub fn event_watch(&self, tenant: &Tenant) -> Result<tokio::sync::watch::Receiver<u64>, StoreError> {
        Ok(self.database(tenant)?.watch_log())
    }

    /// Adds an observation, some time soon. Never waits; what cannot be kept is counted.
    pub fn observe(&self, tenant: Option<&Tenant>, draft: Draft) {
        let database = match tenant {
            Some(tenant) => match self.database(tenant) {
                Ok(database) => database,
                Err(_) => return self.lost().one_more(),
            },
            None => std::sync::Arc::clone(self.host()),
        };
        let full = crate::engine::Writers::backlog(&database) >= OBSERVATIONS_WAITING;
        if full {
            return self.lost().one_more();
        }
        let lost = std::sync::Arc::clone(self.lost());
        let failed = move |_| lost.one_more();
        if self.writers().write_later(&database, move |tx| append(tx, draft).map(drop), failed).is_err() {
            self.lost().one_more();
        }
    }
}

impl Journal for Store {
    async fn append(&self, scope: &Scope, draft: Draft) -> Result<u64, JournalError> {
        let written = async {
            let database = self.database(scope.tenant())?;
            self.writers().write(&database, move |tx| append(tx, draft)).await
        };
        written.await.map_err(|error: StoreError| JournalError(Box::new(error)))
    }
}
