//! The threads that write, and the lines in which acts and observations wait for them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Database, Group, Notices, Tx, lock};
use crate::error::StoreError;
use crate::sql::Sql;

/// Acts in one transaction at most: more would make the first of them wait too long.
const GROUP: usize = 256;
/// How long acts wait for a database that somebody else holds.
const HELD: Duration = Duration::from_secs(10);
/// Threads that write.
const WRITERS: usize = 3;
/// How long an observation waits for company: a flush costs as much for one as for a hundred.
const LINGER: Duration = Duration::from_millis(10);

/// What waits to be written into one database.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Box<dyn Job>>,
    /// Those among them that somebody waits for.
    awaited: usize,
    line: Line,
    /// Since when somebody else has held the database, if somebody does.
    held_since: Option<Instant>,
}

/// Where a database stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    /// In no line: nothing waits for it.
    #[default]
    Out,
    /// Among those that will stand in line soon.
    Soon,
    /// In line for a thread, or at one.
    In,
}

impl Queue {
    fn push(&mut self, job: Box<dyn Job>) {
        self.awaited += usize::from(job.is_awaited());
        self.waiting.push_back(job);
    }

    fn take(&mut self) -> Vec<Box<dyn Job>> {
        let count = self.waiting.len().min(GROUP);
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        self.awaited -= taken.iter().filter(|job| job.is_awaited()).count();
        taken
    }

    fn put_back(&mut self, jobs: &mut Vec<Box<dyn Job>>) {
        for job in jobs.drain(..).rev() {
            self.awaited += usize::from(job.is_awaited());
            self.waiting.push_front(job);
        }
    }

    /// Where the database belongs now.
    fn due(&self) -> Line {
        match self.waiting.len() {
            0 => Line::Out,
            _ if self.awaited > 0 => Line::In,
            GROUP.. => Line::In,
            _ => Line::Soon,
        }
    }
}

trait Job: Send {
    /// Whether somebody waits for it.
    fn is_awaited(&self) -> bool;
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
    fn is_awaited(&self) -> bool {
        matches!(self.waiter, Some(Waiter::Caller(_)))
    }

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

/// The threads that write, for all databases.
pub(crate) struct Writers {
    lines: Mutex<Option<Arc<Lines>>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// The databases that have something to write.
struct Lines {
    now: Sender<Arc<Database>>,
    soon: Sender<(Instant, Arc<Database>)>,
}

impl Lines {
    /// Puts a database where it belongs, if it is not there yet.
    fn place(&self, database: &Arc<Database>, queue: &mut Queue) -> Result<(), StoreError> {
        let sent = match (queue.line, queue.due()) {
            (Line::In, _) | (Line::Soon, Line::Soon) | (_, Line::Out) => return Ok(()),
            (_, Line::In) => self.now.send(Arc::clone(database)).is_ok(),
            (Line::Out, Line::Soon) => self.soon.send((Instant::now() + LINGER, Arc::clone(database))).is_ok(),
        };
        queue.line = queue.due();
        if sent { Ok(()) } else { Err(StoreError::Closed) }
    }
}

impl Writers {
    pub(crate) fn start() -> Result<Self, StoreError> {
        let ((now, receiver), (soon, lingering)) = (channel::<Arc<Database>>(), channel());
        let (receiver, lines) = (Arc::new(Mutex::new(receiver)), Arc::new(Lines { now, soon }));
        // Weak, so that the threads end when nobody else can send.
        let thread = |name: String| (std::thread::Builder::new().name(name), Arc::downgrade(&lines));
        let (builder, weak) = thread("store-soon".to_owned());
        let mut threads = vec![builder.spawn(move || linger(&lingering, &weak))?];
        for n in 0..WRITERS {
            let receiver = Arc::clone(&receiver);
            let (builder, weak) = thread(format!("store-{n}"));
            threads.push(builder.spawn(move || serve(&receiver, &weak))?);
        }
        Ok(Self { lines: Mutex::new(Some(lines)), threads: Mutex::new(threads) })
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

    /// Returns when everything that was asked for so far is on disk, observations too.
    pub(crate) async fn settle(&self, database: &Arc<Database>) -> Result<(), StoreError> {
        let idle = lock(&database.queue).line == Line::Out;
        if idle { Ok(()) } else { self.write(database, |_| Ok(())).await }
    }

    fn enqueue(&self, database: &Arc<Database>, job: Box<dyn Job>) -> Result<(), StoreError> {
        let guard = lock(&self.lines);
        let lines = guard.as_ref().ok_or(StoreError::Closed)?;
        let mut queue = lock(&database.queue);
        queue.push(job);
        lines.place(database, &mut queue)
    }

    /// Finishes what waits, then ends the threads.
    pub(crate) fn close(&self) {
        drop(lock(&self.lines).take());
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

/// Lets databases wait for company, and then into the line.
fn linger(receiver: &Receiver<(Instant, Arc<Database>)>, lines: &Weak<Lines>) {
    while let Ok((due, database)) = receiver.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut queue = lock(&database.queue);
        // Somebody came who would not wait.
        if queue.line != Line::Soon {
            continue;
        }
        queue.line = Line::In;
        drop(queue);
        match lines.upgrade() {
            Some(lines) => drop(lines.now.send(database)),
            None => empty(&database),
        }
    }
}

fn serve(receiver: &Mutex<Receiver<Arc<Database>>>, lines: &Weak<Lines>) {
    loop {
        let next = lock(receiver).recv();
        let Ok(database) = next else { return };
        one_group(&database);
        // One group, and then to the back of the line: a busy account must not keep a thread from the
        // others.
        match lines.upgrade() {
            Some(lines) => {
                let mut queue = lock(&database.queue);
                queue.line = Line::Out;
                let _ = lines.place(&database, &mut queue);
            }
            None => empty(&database),
        }
    }
}

/// Writes all that waits. While the server closes there is no line to stand in.
fn empty(database: &Database) {
    while lock(&database.queue).due() != Line::Out {
        one_group(database);
    }
    lock(&database.queue).line = Line::Out;
}

/// Commits one group.
fn one_group(database: &Database) {
    let mut jobs = lock(&database.queue).take();
    let mut group = Group { frontier: None, grown: false, notices: Notices::default() };
    let mut begun = false;
    let ran = database.transact(|sql| {
        begun = true;
        run_group(database, sql, &mut jobs, &mut group)
    });
    if !begun && matches!(&ran, Err(error) if error.is_held()) && put_back(database, &mut jobs) {
        return;
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
    lock(&database.queue).held_since = None;
}

/// Puts acts back into the line because somebody else holds the database: a thread that waited for one
/// would keep all others from theirs. Says no when they have waited long enough.
fn put_back(database: &Database, jobs: &mut Vec<Box<dyn Job>>) -> bool {
    let mut queue = lock(&database.queue);
    if queue.held_since.get_or_insert_with(Instant::now).elapsed() > HELD {
        return false;
    }
    queue.put_back(jobs);
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
