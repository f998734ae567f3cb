//! Databases: one an account and one for the host, each with many readers and one writer.
//!
//! With SQLite that is one file each; with PostgreSQL it is one schema whose rows are shown by tenant.
//! Writes are committed in groups: the acts that wait for one database are run in one transaction, a
//! savepoint each, and acknowledged after one flush to disk. A small pool of threads serves all of them,
//! so ten thousand accounts cost no threads. Nothing is acknowledged that is not on disk.

mod file;
pub(crate) mod postgres;
mod writers;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bailiwick_audit::Frontier;
use bailiwick_audit::event::LogId;
use bailiwick_auth::Scope;
use bailiwick_types::SessionId;
use tokio::sync::watch;

use crate::engine::file::File;
use crate::engine::postgres::{Context, Pool, Reader};
use crate::error::StoreError;
use crate::migrate::Schema;
use crate::sql::Sql;
use writers::Queue;

pub(crate) use writers::Writers;

/// One tenant's database, or the host's.
pub(crate) struct Database {
    place: Place,
    tenant: String,
    log: LogId,
    queue: Mutex<Queue>,
    log_grew: watch::Sender<u64>,
    grown: Arc<Grown>,
    sessions: Mutex<HashMap<SessionId, watch::Sender<u64>>>,
}

/// The logs that grew since they were last asked for, so that whoever signs their heads looks at no others.
#[derive(Default)]
pub(crate) struct Grown {
    logs: Mutex<HashSet<String>>,
    /// Those of accounts that have something to tell their targets of notifications.
    told: Mutex<HashSet<String>>,
    wake: tokio::sync::Notify,
}

impl Grown {
    /// Notes that a log grew.
    pub(crate) fn note(&self, log: &LogId) {
        let mut logs = lock(&self.logs);
        if !logs.contains(log.as_str()) {
            logs.insert(log.as_str().to_owned());
        }
    }

    /// All of them, once.
    pub(crate) fn take(&self) -> HashSet<String> {
        std::mem::take(&mut *lock(&self.logs))
    }

    fn note_told(&self, log: &LogId) {
        lock(&self.told).insert(log.as_str().to_owned());
        self.wake.notify_one();
    }

    /// The logs of the accounts that have something to tell, once.
    pub(crate) fn take_told(&self) -> HashSet<String> {
        std::mem::take(&mut *lock(&self.told))
    }

    /// Returns when there are some, for the one who asks.
    pub(crate) async fn wait_told(&self) {
        self.wake.notified().await;
    }
}

/// Where the rows are.
enum Place {
    /// In a file of its own.
    File(File),
    /// In a database that many share, as seen by this one alone.
    Server(Arc<Pool>, Context),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside a lock is caught per job; the data behind these locks stays whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// Opens a file, makes it if it is missing, and migrates it.
    pub(crate) fn in_file(path: PathBuf, log: LogId, schema: Schema) -> Result<Self, StoreError> {
        Ok(Self::at(Place::File(File::open(path, schema)?), log))
    }

    /// What a server shows of one tenant.
    pub(crate) fn on_server(pool: Arc<Pool>, context: Context, log: LogId) -> Self {
        Self::at(Place::Server(pool, context), log)
    }

    fn at(place: Place, log: LogId) -> Self {
        Self {
            place,
            // A log is of one tenant, and is called as they are.
            tenant: log.as_str().to_owned(),
            log,
            queue: Mutex::new(Queue::default()),
            log_grew: watch::Sender::new(0),
            grown: Arc::default(),
            sessions: Mutex::new(HashMap::new()),
        }
    }

    /// With the list on which the growth of its log is noted.
    pub(crate) fn noting(self, grown: &Arc<Grown>) -> Self {
        Self { grown: Arc::clone(grown), ..self }
    }

    /// Reads. From a file in the caller's thread: a look-up takes microseconds, a change of thread takes
    /// more. Listings, which can take long, are read in a thread of their own by whoever asks for them.
    pub(crate) async fn read<T>(&self, work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.read_as(Reader::Server, work).await
    }

    /// As [`Self::read`], for the scope's caller: where the database can, it shows no other user's spaces and
    /// conversations, whatever the statement says.
    pub(crate) async fn read_for<T>(
        &self,
        scope: &Scope,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let reader = match (scope.user(), scope.role()) {
            (Some(user), Some(role)) => Reader::User(user, role),
            _ => Reader::Server,
        };
        self.read_as(reader, work).await
    }

    async fn read_as<T>(
        &self,
        reader: Reader<'_>,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.place {
            Place::File(file) => file.read(&self.tenant, work),
            Place::Server(pool, context) => {
                let turn = pool.turn().await?;
                let waker = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
                let read = tokio::task::block_in_place(|| pool.read(turn, (*context, reader), &self.tenant, work));
                // Waiting in here parks the thread. In the future that a runtime blocks on (a program's outermost, a
                // test's) that is what wakes it, so what came for something that is joined with this would be lost.
                waker.wake();
                read
            }
        }
    }

    /// As [`Self::read`], in a thread that may block.
    pub(crate) fn read_blocking<T>(
        &self,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.place {
            Place::File(file) => file.read(&self.tenant, work),
            Place::Server(pool, context) => {
                pool.read(pool.turn_blocking()?, (*context, Reader::Server), &self.tenant, work)
            }
        }
    }

    /// Reads several statements' worth of one moment, in a thread that may block.
    pub(crate) fn read_snapshot<T>(
        &self,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.place {
            Place::File(file) => file.read_snapshot(&self.tenant, work),
            Place::Server(..) => self.read_blocking(work),
        }
    }

    /// Woken when the log grows. The value is of no meaning but that it changes.
    pub(crate) fn watch_log(&self) -> watch::Receiver<u64> {
        self.log_grew.subscribe()
    }

    /// Woken when the session's stream grows.
    pub(crate) fn watch_session(&self, session: SessionId) -> watch::Receiver<u64> {
        let mut sessions = lock(&self.sessions);
        if sessions.len() > 1024 {
            sessions.retain(|_, sender| sender.receiver_count() > 0);
        }
        sessions.entry(session).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Whether somebody waits to be woken: such a file must stay open, or they wait for ever.
    pub(crate) fn is_watched(&self) -> bool {
        self.log_grew.receiver_count() > 0 || lock(&self.sessions).values().any(|sender| sender.receiver_count() > 0)
    }

    /// Takes deleted content out of the write-ahead log, too. What a server keeps in its own log and in
    /// dead rows is its operator's to clear (VACUUM, and how long WAL archives are kept).
    pub(crate) fn forget_past(&self) -> Result<(), StoreError> {
        match &self.place {
            Place::File(file) => file.forget_past(),
            Place::Server(..) => Ok(()),
        }
    }

    fn transact(&self, work: impl FnOnce(&Sql<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        match &self.place {
            Place::File(file) => file.write(&self.tenant, work),
            Place::Server(pool, context) => pool.write(*context, &self.tenant, work),
        }
    }

    pub(crate) fn log(&self) -> &LogId {
        &self.log
    }

    fn publish(&self, notices: &Notices) {
        if notices.log {
            self.grown.note(&self.log);
            self.log_grew.send_modify(|n| *n += 1);
        }
        if notices.told {
            self.grown.note_told(&self.log);
        }
        if !notices.sessions.is_empty() {
            let sessions = lock(&self.sessions);
            for id in &notices.sessions {
                if let Some(sender) = sessions.get(id) {
                    sender.send_modify(|n| *n += 1);
                }
            }
        }
    }
}

/// What a transaction made grow.
#[derive(Default)]
pub(crate) struct Notices {
    log: bool,
    told: bool,
    sessions: Vec<SessionId>,
}

/// A group's shared state: the log's right edge, read once and written once.
pub(crate) struct Group {
    pub(crate) frontier: Option<Frontier>,
    pub(crate) grown: bool,
    pub(crate) notices: Notices,
}

/// A transaction: an act's statements, and the audit rows that belong to it.
pub(crate) struct Tx<'c> {
    pub(crate) sql: &'c Sql<'c>,
    pub(crate) log: &'c LogId,
    pub(crate) group: &'c mut Group,
}

impl<'c> std::ops::Deref for Tx<'c> {
    type Target = Sql<'c>;
    fn deref(&self) -> &Sql<'c> {
        self.sql
    }
}

impl Tx<'_> {
    /// Wakes those who watch the session, once this is committed.
    pub(crate) fn touched(&mut self, session: SessionId) {
        if !self.group.notices.sessions.contains(&session) {
            self.group.notices.sessions.push(session);
        }
    }

    /// Wakes whoever tells the account's targets of notifications, once this is committed.
    pub(crate) fn told(&mut self) {
        self.group.notices.told = true;
    }

    /// Wakes those who watch the log, once this is committed.
    pub(crate) fn logged(&mut self) {
        self.group.notices.log = true;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
