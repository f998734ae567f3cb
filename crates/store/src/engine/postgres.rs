//! PostgreSQL: a pool of connections, each of which belongs to one tenant for one transaction.
//!
//! The tenant is set by `SET LOCAL` in the message that begins the transaction, so it ends with it. A
//! connection goes back into the pool only after its transaction has ended well; in every other case
//! (an error, a panic, a time limit, a caller that went away) it is closed, and the server rolls back.
//! Row-level security is the second fence: every statement names its tenant as well.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bailiwick_types::{Incarnation, Role, UserName};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryMessage, Statement};

use super::lock;
use crate::error::StoreError;
use crate::sql::{Arg, Sql};
use crate::url::PostgresUrl;

/// Connections at most.
const CONNECTIONS: usize = 24;
/// How long a caller waits for a free connection.
const WAIT: Duration = Duration::from_secs(10);
/// How long the server may take for one answer. Its own limits (below) are shorter; this one is for a
/// server that does not answer at all.
const ANSWER: Duration = Duration::from_secs(25);
/// How long a connection that lay idle may take for its first answer: it may have been cut without a word,
/// and a new one is made in milliseconds.
const FIRST_ANSWER: Duration = Duration::from_secs(4);
/// How long the end of a transaction is asked for after the connection broke at its commit.
const IN_DOUBT: Duration = Duration::from_secs(30);
/// What every connection begins with. Plans are made once: a plan for each tenant's statistics costs more
/// than it gains.
pub(crate) const OPTIONS: &str = "-c plan_cache_mode=force_generic_plan -c statement_timeout=20s -c lock_timeout=15s \
     -c idle_in_transaction_session_timeout=60s";

/// Whose rows a transaction may touch: a typed id, because it is written into the statement's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// The host's own tables and its log.
    Host,
    /// One life of an account.
    Account(Incarnation),
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Account(incarnation) => write!(f, "{incarnation}"),
        }
    }
}

/// For whom a tenant's rows are read. A second fence inside the tenant's: whoever reads for a user is shown
/// the spaces and the conversations of that user alone, whatever the statement forgets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reader<'a> {
    /// A part of the server, which keeps users apart by its own statements.
    Server,
    /// One user of the tenant.
    User(&'a UserName, Role),
}

impl std::fmt::Display for Reader<'_> {
    /// As statements. A user's name holds letters, digits and `_ . @ -` alone.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server => Ok(()),
            Self::User(name, role) => {
                write!(f, "; SET LOCAL app.user_id = '{name}'; SET LOCAL app.role = '{role}'")
            }
        }
    }
}

/// The connections to one database.
pub(crate) struct Pool {
    url: Arc<PostgresUrl>,
    idle: Mutex<Vec<Session>>,
    free: Arc<Semaphore>,
    handle: Handle,
    /// Drives the connections; apart from the server's own threads, which wait for it.
    runtime: Mutex<Option<Runtime>>,
}

/// The right to use one connection.
pub(crate) struct Turn(#[expect(dead_code, reason = "held until the connection is back")] OwnedSemaphorePermit);

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Committed,
    RolledBack,
    Unknown,
}

impl Pool {
    pub(crate) fn new(url: PostgresUrl) -> Result<Arc<Self>, StoreError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("store-pg").enable_all().build()?;
        Ok(Arc::new(Self {
            url: Arc::new(url),
            idle: Mutex::new(Vec::new()),
            free: Arc::new(Semaphore::new(CONNECTIONS)),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        }))
    }

    /// Waits for the right to use a connection.
    pub(crate) async fn turn(&self) -> Result<Turn, StoreError> {
        match tokio::time::timeout(WAIT, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::Unavailable("all connections to the database are busy")),
        }
    }

    /// As [`Self::turn`], in a thread that may block.
    pub(crate) fn turn_blocking(&self) -> Result<Turn, StoreError> {
        self.handle.block_on(self.turn())
    }

    /// Reads: one moment, one tenant. Blocks; not for a thread of the server's that must not.
    pub(crate) fn read<T>(
        self: &Arc<Self>,
        turn: Turn,
        (context, reader): (Context, Reader<'_>),
        tenant: &str,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let begin =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL app.account_id = '{context}'{reader}");
        let mut session = self.session()?;
        session.begin_with_next(begin);
        let session = RefCell::new(session);
        let result = work(&Sql::server(&session, tenant));
        let mut session = session.into_inner();
        if matches!(result, Err(StoreError::Unavailable(_))) {
            self.forget_idle();
        }
        if result.is_ok() {
            // Nobody waits for the end of a reading; the connection is free again when it has ended.
            let pool = Arc::clone(self);
            self.handle.spawn(async move {
                if session.finish().await.is_ok() {
                    pool.give_back(session);
                }
                drop(turn);
            });
        }
        result
    }

    /// Runs `work` in one transaction. Acts of one tenant come one after another, on however many servers:
    /// so it is with one file and one writer, and the acts are written for that.
    pub(crate) fn write(
        self: &Arc<Self>,
        context: Context,
        tenant: &str,
        work: impl FnOnce(&Sql<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _turn = self.turn_blocking()?;
        let begin = format!(
            "BEGIN; SET LOCAL app.account_id = '{context}'; SET LOCAL lock_timeout = '50ms'; \
             SELECT pg_advisory_xact_lock(hashtextextended('{context}', 0)); SELECT pg_current_xact_id()::text"
        );
        let (session, transaction) = match self.begun(&begin) {
            Err(StoreError::Server(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(StoreError::Held);
            }
            begun => begun?,
        };
        let session = RefCell::new(session);
        work(&Sql::server(&session, tenant))?;
        let mut session = session.into_inner();
        bailiwick_types::failpoint::reach("store.before_commit");
        match session.control("COMMIT") {
            Ok(()) => {
                bailiwick_types::failpoint::reach("store.after_commit");
                // It is committed, whatever becomes of the connection.
                if self.handle.block_on(session.assert_clean()).is_ok() {
                    self.give_back(session);
                }
                Ok(())
            }
            Err(error) => {
                drop(session);
                match self.ended(&transaction) {
                    Ended::Committed => Ok(()),
                    Ended::RolledBack => Err(error),
                    Ended::Unknown => Err(StoreError::InDoubt),
                }
            }
        }
    }

    /// A connection with its transaction begun.
    fn begun(&self, begin: &str) -> Result<(Session, String), StoreError> {
        let mut session = self.session()?;
        match session.begin(begin) {
            // It lay idle and was cut meanwhile. Nothing was done with it.
            Err(StoreError::Unavailable(_)) if session.lay_idle => {
                self.forget_idle();
                let mut session = self.connect()?;
                let transaction = session.begin(begin)?;
                Ok((session, transaction))
            }
            begun => begun.map(|transaction| (session, transaction)),
        }
    }

    /// Asks a new connection how a transaction ended whose own connection broke at its commit.
    fn ended(&self, transaction: &str) -> Ended {
        let until = Instant::now() + IN_DOUBT;
        loop {
            match self.connect().and_then(|mut session| session.status_of(transaction)) {
                Ok(Some(ended)) => return ended,
                // The broken connection's backend is still at it, or there is no server just now.
                Ok(None) | Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(250)),
                Ok(None) | Err(_) => return Ended::Unknown,
            }
        }
    }

    /// An idle connection, or a new one.
    fn session(&self) -> Result<Session, StoreError> {
        loop {
            let idle = lock(&self.idle).pop();
            match idle {
                Some(session) if session.client.is_closed() => {}
                Some(session) => return Ok(session),
                None => return self.connect(),
            }
        }
    }

    pub(crate) fn connect(&self) -> Result<Session, StoreError> {
        let client = self.block_on(self.url.connect())?;
        let url = self.url.clone();
        Ok(Session { client, url, prepared: HashMap::new(), begin: None, lay_idle: false, handle: self.handle.clone() })
    }

    /// Where one idle connection was dead the others are, too: whoever comes next makes a new one.
    fn forget_idle(&self) {
        lock(&self.idle).clear();
    }

    /// Waits for something in the pool's own runtime; in a thread that may block.
    pub(crate) fn block_on<T>(&self, asked: impl Future<Output = T>) -> T {
        match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::block_in_place(|| self.handle.block_on(asked)),
            Err(_) => self.handle.block_on(asked),
        }
    }

    fn give_back(&self, mut session: Session) {
        session.lay_idle = true;
        lock(&self.idle).push(session);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Not waited for: the last holder may be a thread that must not block.
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection, and what it has prepared.
pub(crate) struct Session {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
    /// Goes out together with the first statement.
    begin: Option<String>,
    /// Whether it comes from the pool: then it may have been cut meanwhile.
    lay_idle: bool,
    url: Arc<PostgresUrl>,
    handle: Handle,
}

impl Session {
    /// Begins with the next statement, in the same flight.
    fn begin_with_next(&mut self, text: String) {
        self.begin = Some(text);
    }

    /// Begins a transaction that writes, and says its number.
    fn begin(&mut self, text: &str) -> Result<String, StoreError> {
        let messages = self.answer(self.client.simple_query(text))?;
        self.lay_idle = false;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        rows.last().map(str::to_owned).ok_or(StoreError::Corrupt("a transaction without a number"))
    }

    fn first_limit(&self) -> Duration {
        if self.lay_idle { FIRST_ANSWER } else { ANSWER }
    }

    fn answer<T>(&self, asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        self.handle.block_on(async { within(self.first_limit(), asked).await })
    }

    /// A statement about the transaction itself.
    pub(crate) fn control(&mut self, text: &'static str) -> Result<(), StoreError> {
        self.answer(self.client.batch_execute(text))
    }

    pub(crate) fn execute(&mut self, text: &'static str, tenant: &str, args: &[Arg<'_>]) -> Result<usize, StoreError> {
        let statement = self.statement(text, args)?;
        let (tenant, values) = (Arg::Text(tenant), args);
        let count = self.answer(self.client.execute(&statement, &values_of(&tenant, values)))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(crate) fn query(&mut self, text: &'static str, tenant: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, StoreError> {
        let Some(begin) = self.begin.take() else {
            let statement = self.statement(text, args)?;
            let tenant = Arg::Text(tenant);
            return self.answer(self.client.query(&statement, &values_of(&tenant, args)));
        };
        let first = self.first_query(&begin, text, tenant, args);
        match first {
            // It lay idle and was cut meanwhile. Nothing was done with it.
            Err(StoreError::Unavailable(_)) if self.lay_idle => {
                self.client = self.handle.block_on(self.url.connect())?;
                self.prepared.clear();
                self.lay_idle = false;
                self.first_query(&begin, text, tenant, args)
            }
            rows => {
                self.lay_idle = false;
                rows
            }
        }
    }

    fn first_query(
        &mut self,
        begin: &str,
        text: &'static str,
        tenant: &str,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.statement(text, args)?;
        let tenant = Arg::Text(tenant);
        let values = values_of(&tenant, args);
        self.handle.block_on(async {
            let query = self.client.query(&statement, &values);
            // In this order: what is polled first is sent first.
            let both = async { Ok(tokio::join!(biased; self.client.batch_execute(begin), query)) };
            let (begun, rows) = within(self.first_limit(), both).await?;
            // Without its beginning the query ran for no tenant, and found nothing.
            begun?;
            Ok(rows?)
        })
    }

    fn statement(&mut self, text: &'static str, args: &[Arg<'_>]) -> Result<Statement, StoreError> {
        if let Some(statement) = self.prepared.get(text) {
            return Ok(statement.clone());
        }
        let tenant = Arg::Text("");
        let types: Vec<_> = std::iter::once(&tenant).chain(args).map(Arg::postgres_type).collect();
        let statement = self.answer(self.client.prepare_typed(&with_dollars(text), &types))?;
        self.prepared.insert(text, statement.clone());
        Ok(statement)
    }

    /// Ends a transaction that has only read.
    async fn finish(&mut self) -> Result<(), StoreError> {
        // If nothing was asked, nothing was begun.
        if self.begin.take().is_none() {
            within(ANSWER, self.client.batch_execute("COMMIT")).await?;
        }
        self.assert_clean().await
    }

    /// In builds for tests: that no tenant is left in a connection on its way back to the pool.
    async fn assert_clean(&self) -> Result<(), StoreError> {
        if cfg!(debug_assertions) {
            let left = "SELECT coalesce(current_setting('app.account_id', true), '') || \
                 coalesce(current_setting('app.user_id', true), '')";
            let rows = within(ANSWER, self.client.simple_query(left)).await?;
            let empty =
                rows.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("")));
            debug_assert!(empty, "a tenant was left in a pooled connection");
        }
        Ok(())
    }

    /// How a transaction ended, if it has.
    fn status_of(&mut self, transaction: &str) -> Result<Option<Ended>, StoreError> {
        let text = "SELECT pg_xact_status($1::text::xid8)";
        let rows = self.answer(self.client.query(text, &[&transaction]))?;
        let status: Option<&str> = rows.first().and_then(|row| row.get(0));
        Ok(match status {
            Some("committed") => Some(Ended::Committed),
            Some("aborted") => Some(Ended::RolledBack),
            Some("in progress") => None,
            // Too long ago for the server to know; it cannot be, for it was a moment ago.
            _ => Some(Ended::Unknown),
        })
    }

    /// The client itself, for the set-up.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(StoreError::from),
        Err(_) => Err(StoreError::Unavailable("the database does not answer")),
    }
}

fn values_of<'a>(tenant: &'a Arg<'_>, args: &'a [Arg<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    std::iter::once(tenant).chain(args).map(|arg| arg as &(dyn ToSql + Sync)).collect()
}

/// `?1` as PostgreSQL writes it. Our statements hold no other question mark.
fn with_dollars(text: &str) -> String {
    text.replace('?', "$")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
