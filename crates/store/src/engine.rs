//! Databases: one an account and one for the host, each with many readers and one writer.
//!
//! With SQLite that is one file each; with PostgreSQL it is one schema whose rows are shown by tenant.
//! Writes are committed in groups: the acts that wait for one database are run in one transaction, a
//! savepoint each, and acknowledged after one flush to disk. A small pool of threads serves all of them,
//! so ten thousand accounts cost no threads. Nothing is acknowledged that is not on disk.

mod file;
pub(crate) mod postgres;

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bailiwick_audit::Frontier;
use bailiwick_audit::event::LogId;
use bailiwick_auth::Scope;
use bailiwick_types::SessionId;
use tokio::sync::{oneshot, watch};

use crate::engine::file::File;
use crate::engine::postgres::{Context, Pool, Reader};
use crate::error::StoreError;
use crate::migrate::Schema;
use crate::sql::Sql;

/// Acts in one transaction at most: more would make the first of them wait too long.
const GROUP: usize = 256;
/// How long acts wait for a database that somebody else holds.
const HELD: Duration = Duration::from_secs(10);
/// Threads that write.
const WRITERS: usize = 3;

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
pub(crate) struct Grown(Mutex<HashSet<String>>);

impl Grown {
    /// Notes that a log grew.
    pub(crate) fn note(&self, log: &LogId) {
        let mut logs = lock(&self.0);
        if !logs.contains(log.as_str()) {
            logs.insert(log.as_str().to_owned());
        }
    }

    /// All of them, once.
    pub(crate) fn take(&self) -> HashSet<String> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// Where the rows are.
enum Place {
    /// In a file of its own.
    File(File),
    /// In a database that many share, as seen by this one alone.
    Server(Arc<Pool>, Context),
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Job>>,
    scheduled: bool,
    /// Since when somebody else has held the database, if somebody does.
    held_since: Option<Instant>,
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
                tokio::task::block_in_place(|| pool.read(turn, (*context, reader), &self.tenant, work))
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

    /// Wakes those who watch the log, once this is committed.
    pub(crate) fn logged(&mut self) {
        self.group.notices.log = true;
    }
}

trait Job: Send {
    /// Runs inside a savepoint; whether to keep what it did.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Tells the one who waits.
    fn finish(self: Box<Self>, committed: Committed);
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    Yes,
    No(Reason),
}

/// Why a group is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// It was rolled back.
    RolledBack,
    /// The database was away before anything was done.
    Unavailable,
    /// Nobody knows whether it is.
    InDoubt,
}

impl Reason {
    fn of(error: &StoreError) -> Self {
        match error {
            StoreError::InDoubt => Self::InDoubt,
            StoreError::Unavailable(_) => Self::Unavailable,
            _ => Self::RolledBack,
        }
    }

    fn error(self) -> StoreError {
        match self {
            Self::RolledBack => StoreError::Commit,
            Self::Unavailable => StoreError::Unavailable("the database is away"),
            Self::InDoubt => StoreError::InDoubt,
        }
    }
}

struct Task<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    waiter: Option<Waiter<T>>,
}

/// Who is told how it ended.
enum Waiter<T> {
    Caller(oneshot::Sender<Result<T, StoreError>>),
    /// Nobody waits, but a failure must be noticed.
    OnFailure(Box<dyn FnOnce(StoreError) + Send>),
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        // An act that panics must not take the writer and everybody else's acts with it.
        let result = catch_unwind(AssertUnwindSafe(|| work(tx)));
        let result = result.unwrap_or(Err(StoreError::Corrupt("an act of the store panicked")));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn finish(mut self: Box<Self>, committed: Committed) {
        let result = match (self.result.take(), committed) {
            (Some(Ok(_)) | None, Committed::No(reason)) => Err(reason.error()),
            (Some(result), _) => result,
            (None, Committed::Yes) => Err(StoreError::Commit),
        };
        match (self.waiter.take(), result) {
            // The one who asked may have gone away; the act is done all the same.
            (Some(Waiter::Caller(reply)), result) => drop(reply.send(result)),
            (Some(Waiter::OnFailure(tell)), Err(error)) => tell(error),
            (Some(Waiter::OnFailure(_)), Ok(_)) | (None, _) => {}
        }
    }
}

/// The threads that write, for all files.
pub(crate) struct Writers {
    sender: Mutex<Option<Arc<Sender<Arc<Database>>>>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Writers {
    pub(crate) fn start() -> Result<Self, StoreError> {
        let (sender, receiver) = channel::<Arc<Database>>();
        let (receiver, sender) = (Arc::new(Mutex::new(receiver)), Arc::new(sender));
        let threads = (0..WRITERS)
            .map(|n| {
                // Weak, so that the threads end when nobody else can send.
                let (receiver, sender) = (Arc::clone(&receiver), Arc::downgrade(&sender));
                std::thread::Builder::new().name(format!("store-{n}")).spawn(move || serve(&receiver, &sender))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sender: Mutex::new(Some(sender)), threads: Mutex::new(threads) })
    }

    /// Runs `work` in a transaction of `database`, and returns when it is on disk.
    pub(crate) async fn write<T, F>(&self, database: &Arc<Database>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let waiter = Some(Waiter::Caller(reply));
        self.enqueue(database, Box::new(Task { work: Some(work), result: None, waiter }))?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` in a transaction of `database`, some time soon. Nobody waits; `failed` is told if it
    /// came to nothing after all.
    pub(crate) fn write_later<F>(
        &self,
        database: &Arc<Database>,
        work: F,
        failed: impl FnOnce(StoreError) + Send + 'static,
    ) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        let waiter = Some(Waiter::OnFailure(Box::new(failed)));
        self.enqueue(database, Box::new(Task { work: Some(work), result: None, waiter }))
    }

    /// Acts that wait for this file.
    pub(crate) fn backlog(database: &Database) -> usize {
        lock(&database.queue).waiting.len()
    }

    fn enqueue(&self, database: &Arc<Database>, job: Box<dyn Job>) -> Result<(), StoreError> {
        let guard = lock(&self.sender);
        let sender = guard.as_ref().ok_or(StoreError::Closed)?;
        let mut queue = lock(&database.queue);
        queue.waiting.push_back(job);
        if !queue.scheduled {
            queue.scheduled = true;
            sender.send(Arc::clone(database)).map_err(|_| StoreError::Closed)?;
        }
        Ok(())
    }

    /// Finishes what waits, then ends the threads.
    pub(crate) fn close(&self) {
        drop(lock(&self.sender).take());
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    /// Whoever drops the store without closing it still gets what was queued onto the disk, and the
    /// directory's lock is let go only after that.
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(receiver: &Mutex<Receiver<Arc<Database>>>, sender: &Weak<Sender<Arc<Database>>>) {
    loop {
        let next = lock(receiver).recv();
        let Ok(database) = next else { return };
        // One group, and then to the back of the line: a busy account must not keep a thread from the
        // others. While the server closes there is no line, and the file is emptied at once.
        while !one_group(&database) {
            if sender.upgrade().is_some_and(|sender| sender.send(Arc::clone(&database)).is_ok()) {
                break;
            }
        }
    }
}

/// Commits one group. Whether nothing waits for this file any more.
fn one_group(database: &Database) -> bool {
    let mut jobs: Vec<Box<dyn Job>> = {
        let mut queue = lock(&database.queue);
        let count = queue.waiting.len().min(GROUP);
        queue.waiting.drain(..count).collect()
    };
    let mut group = Group { frontier: None, grown: false, notices: Notices::default() };
    let mut begun = false;
    let ran = database.transact(|sql| {
        begun = true;
        run_group(database, sql, &mut jobs, &mut group)
    });
    if !begun && matches!(&ran, Err(error) if error.is_held()) && put_back(database, &mut jobs) {
        return false;
    }
    let committed = match ran {
        Ok(()) => {
            database.publish(&group.notices);
            Committed::Yes
        }
        Err(error) => {
            tracing::error!(%error, "a group of writes failed");
            Committed::No(Reason::of(&error))
        }
    };
    for job in jobs {
        job.finish(committed);
    }
    let mut queue = lock(&database.queue);
    queue.held_since = None;
    queue.scheduled = !queue.waiting.is_empty();
    !queue.scheduled
}

/// Puts acts back into the line because somebody else holds the database: a thread that waited for one
/// would keep all others from theirs. Says no when they have waited long enough.
fn put_back(database: &Database, jobs: &mut Vec<Box<dyn Job>>) -> bool {
    let mut queue = lock(&database.queue);
    if queue.held_since.get_or_insert_with(Instant::now).elapsed() > HELD {
        return false;
    }
    for job in jobs.drain(..).rev() {
        queue.waiting.push_front(job);
    }
    true
}

/// Runs one group inside its transaction.
fn run_group(
    database: &Database,
    sql: &Sql<'_>,
    jobs: &mut [Box<dyn Job>],
    group: &mut Group,
) -> Result<(), StoreError> {
    for job in jobs.iter_mut() {
        sql.savepoint()?;
        let before = (group.frontier.clone(), group.grown);
        if !job.run(&mut Tx { sql, log: &database.log, group }) {
            sql.take_back()?;
            (group.frontier, group.grown) = before;
        }
        sql.release()?;
    }
    if group.grown
        && let Some(frontier) = &group.frontier
    {
        crate::log::write_head(sql, frontier)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
