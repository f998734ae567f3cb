//! Jobs at work: the queue, the one that runs each, and how it ends.
//!
//! A job runs with the rights that its caller has when it begins, and is stopped when they are gone. What it says is
//! written in groups by a loop of its own, so that neither the database nor a reader ever holds the command up. Every
//! job ends with one event, also if the server dies: the next start writes it.

mod board;
mod run;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_auth::access::verb::{CallTool, CancelJob, CreateJob, StartJob, UseAgent};
use bailiwick_auth::access::{Job, Space};
use bailiwick_auth::authn::Rejection;
use bailiwick_auth::{Credential, Permit, Scope};
use bailiwick_store::StoreError;
use bailiwick_store::job::{Ending, JobKind, JobRow, JobState, NewJob};
use bailiwick_store::session::Caller;
use bailiwick_tools::gate::Refused;
use bailiwick_tools::job;
use bailiwick_types::{AgentDefinition, AgentName, RequestId};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::runtime::{Inner, Runtime, RuntimeError, whole};
use board::{Board, Place};

/// How often the rights of a running job's caller are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A job as a caller wants it.
pub struct Wanted {
    /// As which agent.
    pub agent: AgentName,
    /// What runs.
    pub command: String,
    /// What it is for.
    pub kind: JobKind,
    /// How long it may take, seconds; what its kind allows if missing.
    pub timeout_seconds: Option<u64>,
}

/// How often servers that share a database look for jobs that another one left.
const SWEEP: Duration = Duration::from_secs(30);
/// Between two of these looks, which ask for each account, lies so often the time that the last one took.
const PAUSES: u32 = 50;

/// The jobs that run and wait.
#[derive(Default)]
pub(crate) struct Jobs {
    board: Mutex<Board<Arc<Stop>>>,
}

/// Ends a job's command.
#[derive(Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    why: Mutex<Option<(JobState, Ending)>>,
}

impl Stop {
    /// Ends it; the first who does says why.
    fn now(&self, state: JobState, ending: Ending) {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.get_or_insert((state, ending));
        drop(why);
        self.token.cancel();
    }

    fn why(&self) -> Option<(JobState, Ending)> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Jobs {
    fn board(&self) -> std::sync::MutexGuard<'_, Board<Arc<Stop>>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the jobs of what was deleted.
    pub(crate) fn end(&self, fits: impl Fn(&Place) -> bool) {
        let mut board = self.board();
        board.forget(&fits);
        for (_, stop) in board.running().filter(|(place, _)| fits(place)) {
            stop.now(JobState::Canceled, Ending::because("deleted", "its space was deleted"));
        }
    }
}

/// What a job takes to begin.
struct Ready {
    starting: Permit<StartJob>,
    calling: Permit<CallTool>,
    agent: AgentDefinition,
}

impl Runtime {
    /// Puts a job into the queue of a space.
    ///
    /// # Errors
    /// A refusal; `approval_required` and `job_on_host` for agents that no job is for; `job_queue_full`.
    pub async fn job_create(&self, scope: &Scope, space: Space, wanted: Wanted) -> Result<JobRow, RuntimeError> {
        let invalid = |code, message: &str| RuntimeError::Invalid { code, message: message.to_owned() };
        let creating = scope.authorize::<CreateJob>(space.clone())?;
        let using = scope.authorize::<UseAgent>(scope.agent_named(wanted.agent.clone()))?;
        let most = wanted.kind.seconds();
        let timeout_seconds = wanted.timeout_seconds.unwrap_or(most);
        if timeout_seconds == 0 || timeout_seconds > most {
            let message = format!("timeout_seconds: from 1 to {most} for a job of the kind {}", wanted.kind.as_str());
            return Err(RuntimeError::Invalid { code: "job_timeout", message });
        }
        let agent = self.0.store.job_agent(&using).await?.definition;
        let job =
            scope.new_job(space, wanted.agent).ok_or_else(|| invalid("no_user", "only a user can start a job"))?;
        let calling = match job::judge(scope, &job, &agent, &wanted.command) {
            Ok(permit) => permit,
            Err(Refused { refusal: Some(refusal), .. }) => return Err(refusal.into()),
            Err(refused) => return Err(RuntimeError::Invalid { code: refused.code, message: refused.message }),
        };
        let place = Place {
            tenant: scope.tenant().clone(),
            user: job.session().initiator().clone(),
            space: job.space().id(),
            id: job.id(),
        };
        let new = NewJob { job, kind: wanted.kind, command: wanted.command, timeout_seconds };
        let this = self.clone();
        whole(async move {
            let row = this.0.store.job_create(creating, using, calling, new).await?;
            this.0.jobs.board().wait(place);
            this.0.start_jobs();
            Ok(row)
        })
        .await
    }

    /// Cancels a job, and says where it stands. One that has ended stays as it ended.
    ///
    /// # Errors
    /// A refusal.
    pub async fn job_cancel(&self, scope: &Scope, job: Job) -> Result<JobRow, RuntimeError> {
        let id = job.id();
        let permit = scope.authorize::<CancelJob>(job)?;
        let by = scope.user().map_or_else(|| "the operator".to_owned(), ToString::to_string);
        let this = self.clone();
        whole(async move {
            let row = this.0.store.job_cancel(permit).await?;
            let mut board = this.0.jobs.board();
            board.forget(|place| place.id == id && row.state.is_ended());
            // It has its place, and its handle, before it is begun.
            for (_, stop) in board.running().filter(|(place, _)| place.id == id) {
                stop.now(JobState::Canceled, run::canceled_by(&by));
            }
            drop(board);
            Ok(row)
        })
        .await
    }
}

impl Inner {
    /// Starts the jobs for which there is a place.
    fn start_jobs(self: &Arc<Self>) {
        loop {
            let mut board = self.jobs.board();
            if self.stopping.is_cancelled() {
                return;
            }
            let Some((place, stop)) = board.next(Arc::default) else { return };
            let stop = Arc::clone(stop);
            drop(board);
            let inner = Arc::clone(self);
            self.tasks.spawn(async move {
                let _left = Leave { inner: &inner, id: place.id };
                inner.keep_working(&place, &stop).await;
            });
        }
    }

    /// Ends what a server left behind, and puts what waits into the queue again: at the start, and now and then where
    /// other servers may have ended.
    pub(crate) async fn recover_jobs(self: &Arc<Self>) {
        let mut took = self.sweep_jobs().await;
        if !self.store.is_shared() {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = inner.stopping.cancelled() => return,
                    () = tokio::time::sleep(SWEEP.max(took * PAUSES)) => took = inner.sweep_jobs().await,
                }
            }
        });
    }

    /// Says how long the looking took.
    async fn sweep_jobs(self: &Arc<Self>) -> Duration {
        let begun = Instant::now();
        let found = self.store.jobs_unfinished().await.unwrap_or_else(|error| {
            tracing::error!(%error, "unfinished jobs could not be listed");
            Vec::new()
        });
        let took = begun.elapsed();
        for (tenant, left) in found {
            if left.state == JobState::Queued {
                let place = Place { tenant, user: left.user, space: left.space, id: left.id };
                self.jobs.board().wait(place);
                continue;
            }
            // One of this server's own: it began while we looked, or the database was away for its beats.
            if self.jobs.board().running().any(|(place, _)| place.id == left.id) {
                continue;
            }
            let ending = Ending::because("server_ended", "the server ended while it ran; what it did stays done");
            if let Err(error) = self.store.job_give_up(&tenant, left.id, JobState::Failed, ending).await {
                tracing::error!(job = %left.id, %error, "a job that a server left behind could not be ended");
            }
        }
        self.start_jobs();
        took
    }

    /// Works until the job has ended. What the database did not take is tried again after a pause.
    async fn keep_working(&self, place: &Place, stop: &Arc<Stop>) {
        let mut pause = Duration::from_secs(1);
        loop {
            let working = AssertUnwindSafe(self.work(place, stop)).catch_unwind();
            let worked = match working.await {
                Ok(worked) => worked,
                Err(_) => {
                    tracing::error!(job = %place.id, "the work of a job panicked");
                    let ending = Ending::because("server_failed", "the server failed while it ran");
                    self.store.job_give_up(&place.tenant, place.id, JobState::Failed, ending).await
                }
            };
            match worked {
                Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => return,
                Err(error) => tracing::error!(job = %place.id, %error, "a job could not be begun"),
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(Duration::from_secs(60));
        }
    }

    async fn work(&self, place: &Place, stop: &Arc<Stop>) -> Result<(), StoreError> {
        let (row, caller) = self.store.job_waiting(&place.tenant, place.id).await?;
        if row.state != JobState::Queued || self.stopping.is_cancelled() {
            return Ok(());
        }
        let ready = match self.ready(place, &row, &caller).await? {
            Ok(ready) => ready,
            Err(ending) => return self.store.job_give_up(&place.tenant, place.id, JobState::Failed, ending).await,
        };
        let Ready { starting, calling, agent } = ready;
        let act = self.store.job_begin(starting, calling).await?;
        self.run_begun(place, (&row, &caller), (&act, &agent), stop).await;
        Ok(())
    }

    /// The caller of a job with the rights of now.
    async fn scope_of(&self, caller: &Caller) -> Result<Result<Scope, Ending>, StoreError> {
        let gone =
            || Ending::because("caller_not_authorized", "its caller's credential or account is not valid any more");
        let Some(credential) = Credential::parse(&caller.credential) else { return Ok(Err(gone())) };
        let found = self.walk.resume(&self.store, &caller.account, &caller.user, &credential, caller.address).await;
        match found {
            Ok(principal) => Ok(principal.scope(RequestId::new()).map_err(|_| gone())),
            // That the directory cannot be read says nothing about the caller.
            Err(Rejection::Directory(_)) => Err(StoreError::Unavailable("the directory cannot be read")),
            Err(_) => Ok(Err(gone())),
        }
    }

    /// The job as the policy sees it now, for the one who asked for it.
    async fn found(&self, place: &Place, caller: &Caller) -> Result<Result<(Scope, Job), Ending>, StoreError> {
        let scope = match self.scope_of(caller).await? {
            Ok(scope) if scope.tenant() == &place.tenant => scope,
            Ok(_) => return Err(StoreError::NotFound { kind: "job", name: place.id.to_string() }),
            Err(ending) => return Ok(Err(ending)),
        };
        let Some(space) = self.store.space_find(&scope, place.space).await? else {
            // Gone with its space; or the space is there, and the database shows a user's spaces alone: that is how a
            // lost right looks.
            self.store.job_waiting(&place.tenant, place.id).await?;
            return Ok(Err(Ending::because("caller_not_authorized", "its caller may not work in the space any more")));
        };
        match self.store.job_find(&scope, &space, place.id).await? {
            Some(job) => Ok(Ok((scope, job))),
            // Where the database itself shows a user's spaces alone, that is how a lost right looks.
            None => Ok(Err(Ending::because("caller_not_authorized", "its caller may not work in the space any more"))),
        }
    }

    async fn ready(&self, place: &Place, row: &JobRow, caller: &Caller) -> Result<Result<Ready, Ending>, StoreError> {
        let (scope, job) = match self.found(place, caller).await? {
            Ok(found) => found,
            Err(ending) => return Ok(Err(ending)),
        };
        let refused = |refusal: bailiwick_auth::Refusal| {
            Ok(Err(Ending::because(refusal.code().unwrap_or("not_found"), refusal.message())))
        };
        let using = match scope.authorize::<UseAgent>(scope.agent_named(job.agent().clone())) {
            Ok(permit) => permit,
            Err(refusal) => return refused(refusal),
        };
        let agent = match self.store.job_agent(&using).await {
            Ok(row) => row.definition,
            Err(StoreError::NotFound { .. }) => {
                return Ok(Err(Ending::because("agent_gone", "its agent was deleted")));
            }
            Err(error) => return Err(error),
        };
        let calling = match job::judge(&scope, &job, &agent, &row.command) {
            Ok(permit) => permit,
            Err(refused) => return Ok(Err(Ending::because(refused.code, refused.message))),
        };
        match scope.authorize::<StartJob>(job) {
            Ok(starting) => Ok(Ok(Ready { starting, calling, agent })),
            Err(refusal) => refused(refusal),
        }
    }
}

/// Gives a job's place back, also if its task panicked.
struct Leave<'a> {
    inner: &'a Arc<Inner>,
    id: bailiwick_types::JobId,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.inner.jobs.board().leave(self.id);
        self.inner.start_jobs();
    }
}
