//! SQLite: one file an account and one for the host, each with many readers and one writer.
//!
//! Writes are committed in groups: the acts that wait for one file are run in one transaction, a
//! savepoint each, and acknowledged after one flush to disk. A small pool of threads serves all files,
//! so ten thousand accounts cost no threads. Nothing is acknowledged that is not on disk.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bailiwick_audit::Frontier;
use bailiwick_audit::event::LogId;
use bailiwick_types::SessionId;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{oneshot, watch};

use crate::error::StoreError;
use crate::migrate::{self, Schema};
use crate::sql::Sql;

/// Acts in one transaction at most: more would make the first of them wait too long.
const GROUP: usize = 256;
/// Idle readers kept for one file.
const READERS: usize = 4;
/// Threads that write.
const WRITERS: usize = 3;
const BUSY: Duration = Duration::from_secs(10);

/// One database file.
pub(crate) struct Database {
    path: PathBuf,
    tenant: Option<String>,
    log: LogId,
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Option<Connection>>,
    queue: Mutex<Queue>,
    log_grew: watch::Sender<u64>,
    sessions: Mutex<HashMap<SessionId, watch::Sender<u64>>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Job>>,
    scheduled: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside a lock is caught per job; the data behind these locks stays whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// Opens a file, makes it if it is missing, and migrates it.
    pub(crate) fn open(path: PathBuf, tenant: Option<String>, log: LogId, schema: Schema) -> Result<Self, StoreError> {
        make_private(&path)?;
        let writer = connect(&path)?;
        migrate::apply(&writer, schema)?;
        Ok(Self {
            path,
            tenant,
            log,
            readers: Mutex::new(Vec::new()),
            writer: Mutex::new(Some(writer)),
            queue: Mutex::new(Queue::default()),
            log_grew: watch::Sender::new(0),
            sessions: Mutex::new(HashMap::new()),
        })
    }

    /// Reads in the caller's thread: a look-up takes microseconds, a change of thread takes more. Listings,
    /// which can take long, are read in a thread of their own by whoever asks for them.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let result = work(&Sql::new(&connection, self.tenant.as_deref()));
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(connection);
        }
        result
    }

    /// Reads several statements' worth of one moment.
    pub(crate) fn read_snapshot<T>(
        &self,
        work: impl FnOnce(&Sql<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = connect(&self.path)?;
        let snapshot = connection.transaction()?;
        work(&Sql::new(&snapshot, self.tenant.as_deref()))
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

    /// Takes deleted content out of the write-ahead log, too, as far as nobody is reading just now.
    pub(crate) fn forget_past(&self) -> Result<(), StoreError> {
        let connection = connect(&self.path)?;
        connection.busy_timeout(Duration::from_millis(200))?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    pub(crate) fn log(&self) -> &LogId {
        &self.log
    }

    fn publish(&self, notices: &Notices) {
        if notices.log {
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

/// SQLite would make the file as wide as the umask allows; what it makes beside it follows the file.
fn make_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // FULL: an acknowledged act survives a power cut. The page cache is small because there are many files.
    // What is deleted is overwritten: a deletion that leaves the text in free pages is none.
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-1024; \
         PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF; PRAGMA journal_size_limit=4194304; \
         PRAGMA secure_delete=ON;",
    )?;
    Ok(connection)
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
    pub(crate) sql: Sql<'c>,
    pub(crate) log: &'c LogId,
    pub(crate) group: &'c mut Group,
}

impl<'c> std::ops::Deref for Tx<'c> {
    type Target = Sql<'c>;
    fn deref(&self) -> &Sql<'c> {
        &self.sql
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
    fn finish(self: Box<Self>, committed: bool);
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

    fn finish(mut self: Box<Self>, committed: bool) {
        let result = match self.result.take() {
            Some(Ok(_)) if !committed => Err(StoreError::Commit),
            Some(result) => result,
            None => Err(StoreError::Commit),
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
    let committed = commit(database, &mut jobs, &mut group);
    if let Err(error) = &committed {
        tracing::error!(%error, "a group of writes failed");
    }
    if committed.is_ok() {
        database.publish(&group.notices);
    }
    for job in jobs {
        job.finish(committed.is_ok());
    }
    let mut queue = lock(&database.queue);
    queue.scheduled = !queue.waiting.is_empty();
    !queue.scheduled
}

/// Runs one group. Where it fails, nothing of it is there.
fn commit(database: &Database, jobs: &mut [Box<dyn Job>], group: &mut Group) -> Result<(), StoreError> {
    let mut writer = lock(&database.writer);
    let connection = match writer.as_mut() {
        Some(connection) => connection,
        None => writer.insert(connect(&database.path)?),
    };
    let result = run_group(database, connection, jobs, group);
    if result.is_err() {
        // Whatever state it is in: a fresh connection has none.
        *writer = None;
    }
    result
}

fn run_group(
    database: &Database,
    connection: &mut Connection,
    jobs: &mut [Box<dyn Job>],
    group: &mut Group,
) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for job in jobs.iter_mut() {
        tx.prepare_cached("SAVEPOINT act")?.execute([])?;
        let before = (group.frontier.clone(), group.grown);
        let sql = Sql::new(&tx, database.tenant.as_deref());
        if !job.run(&mut Tx { sql, log: &database.log, group }) {
            tx.prepare_cached("ROLLBACK TO act")?.execute([])?;
            (group.frontier, group.grown) = before;
        }
        tx.prepare_cached("RELEASE act")?.execute([])?;
    }
    if group.grown
        && let Some(frontier) = &group.frontier
    {
        crate::log::write_head(&Sql::new(&tx, database.tenant.as_deref()), frontier)?;
    }
    bailiwick_types::failpoint::reach("store.before_commit");
    tx.commit()?;
    bailiwick_types::failpoint::reach("store.after_commit");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
