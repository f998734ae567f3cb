//! Jobs: commands that run beside the requests. The row says where a job stands; what it said stands in
//! numbered events, and the last of them is always its end.

mod run;
mod stream;

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb::{CallTool, CancelJob, CreateJob, ListJobs, ReadJob, UseAgent};
use bailiwick_auth::access::{Job, Resource, Space};
use bailiwick_auth::{Permit, Scope, for_store};
use bailiwick_types::limits::{
    BUILD_JOB_TIME, CLONE_JOB_TIME, JOBS_KEPT, JOBS_WAITING, SHORT_JOB_TIME, USER_JOBS_WAITING,
};
use bailiwick_types::notification::What;
use bailiwick_types::{AgentName, JobId, SpaceId, Timestamp, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::agent::{self, AgentRow};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::notification::{self, Place};
use crate::session::Caller;
use crate::sql::{Row, Sql, args};
use crate::store::Store;
use crate::usage::{self, Spending};
use crate::{log, quota, space};

pub(crate) use run::{GoesWith, go_with};
pub use run::{JOB_SILENT, Unfinished};

/// What a job is for, which says how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Anything else.
    #[default]
    Short,
    /// Copying a repository.
    Clone,
    /// Building something.
    Build,
}

impl JobKind {
    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Clone => "clone",
            Self::Build => "build",
        }
    }

    /// How long such a job may take, seconds.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Short => SHORT_JOB_TIME.as_secs(),
            Self::Clone => CLONE_JOB_TIME.as_secs(),
            Self::Build => BUILD_JOB_TIME.as_secs(),
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_value(json!(text)).map_err(|_| StoreError::Corrupt("a job's kind"))
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Its command runs, or is about to.
    Running,
    /// Ended with the code 0.
    Ok,
    /// Ended otherwise; the ending says how.
    Failed,
    /// Stopped, because its time was over.
    Timeout,
    /// Stopped, because somebody wanted it.
    Canceled,
}

impl JobState {
    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing more comes of it.
    pub const fn is_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_value(json!(text)).map_err(|_| StoreError::Corrupt("a job's state"))
    }
}

/// How a job ended, beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ending {
    /// The code of its command, if that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal by which its command ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// A stable word for whatever is no exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Ending {
    /// An end that is no exit.
    pub fn because(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: Some(reason.to_owned()), message: Some(message.into()), ..Self::default() }
    }
}

/// A job's row.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its space.
    pub space: SpaceId,
    /// Its agent.
    pub agent: AgentName,
    /// Who put it into the queue.
    pub initiator: UserName,
    /// What it is for.
    pub kind: JobKind,
    /// What runs.
    pub command: String,
    /// How long it may take, seconds.
    pub timeout_seconds: u64,
    /// Where it stands.
    pub state: JobState,
    /// How it ended.
    pub ending: Option<Ending>,
    /// The number of its newest event.
    pub events: u64,
    /// When it was put into the queue.
    pub created_at: Timestamp,
    /// When its command began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A job as it is asked for.
pub struct NewJob {
    /// The job.
    pub job: Job,
    /// What it is for.
    pub kind: JobKind,
    /// What runs.
    pub command: String,
    /// How long it may take, seconds.
    pub timeout_seconds: u64,
}

const ROW: &str = "SELECT id, space, agent, initiator, kind, command, timeout_seconds, state, ending, events, created_at, \
     started_at, ended_at FROM job WHERE account = ?1 AND id = ?2";

fn job_row(row: &Row<'_>) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        id: row.parse(0)?,
        space: row.parse(1)?,
        agent: row.parse(2)?,
        initiator: row.parse(3)?,
        kind: JobKind::parse(&row.text(4)?)?,
        command: row.text(5)?,
        timeout_seconds: row.count(6)?,
        state: JobState::parse(&row.text(7)?)?,
        ending: row.optional_json(8)?,
        events: row.count(9)?,
        created_at: row.time(10)?,
        started_at: row.optional_time(11)?,
        ended_at: row.optional_time(12)?,
    })
}

fn read_row(sql: &Sql<'_>, id: JobId) -> Result<JobRow, StoreError> {
    sql.one(ROW, args![id], job_row)?.ok_or_else(|| StoreError::not_found("job", id))
}

/// Adds an event to the job's log, and says its number.
fn write_event(tx: &mut Tx<'_>, job: JobId, kind: &str, fields: Value) -> Result<u64, StoreError> {
    tx.exec("UPDATE job SET events = events + 1 WHERE account = ?1 AND id = ?2", args![job])?;
    let n = tx
        .one("SELECT events FROM job WHERE account = ?1 AND id = ?2", args![job], |row| row.count(0))?
        .ok_or_else(|| StoreError::not_found("job", job))?;
    let mut body = json!({ "n": n, "type": kind, "at": Timestamp::now() });
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    tx.exec("INSERT INTO job_event (account, job, n, body) VALUES (?1, ?2, ?3, ?4)", args![job, n, body.to_string()])?;
    tx.touched(job.as_session());
    Ok(n)
}

/// Ends a job that has not ended: its state, its last event. What goes on record is the caller's to say.
fn end(tx: &mut Tx<'_>, id: JobId, state: JobState, ending: &Ending) -> Result<(), StoreError> {
    let ending = serde_json::to_value(ending)?;
    let ended = tx.exec(
        "UPDATE job SET state = ?3, ending = ?4, ended_at = ?5 WHERE account = ?1 AND id = ?2 \
         AND state IN ('queued', 'running')",
        args![id, state.as_str(), ending.to_string(), Timestamp::now()],
    )?;
    if ended == 0 {
        read_row(tx, id)?;
        return Err(StoreError::Conflict { code: "job_ended", message: "the job has ended" });
    }
    let mut fields = ending;
    fields["state"] = json!(state);
    write_event(tx, id, "done", fields)?;
    let place = tx.one("SELECT agent, space FROM job WHERE account = ?1 AND id = ?2", args![id], |row| {
        Ok(Place { agent: row.parse(0)?, space: row.parse(1)? })
    })?;
    let what = What::JobEnded { state: state.as_str().to_owned() };
    place.map_or(Ok(()), |place| notification::tell(tx, what, &place))
}

/// Makes room for one more: the oldest that have ended go, with what they said.
fn forget_oldest(tx: &Tx<'_>) -> Result<(), StoreError> {
    let ended = tx.all(
        "SELECT id FROM job WHERE account = ?1 AND state NOT IN ('queued', 'running') ORDER BY id DESC",
        args![],
        |row| row.parse::<JobId>(0),
    )?;
    let keep = usize::try_from(JOBS_KEPT).unwrap_or(usize::MAX).saturating_sub(1);
    for id in ended.into_iter().skip(keep) {
        tx.exec("DELETE FROM job WHERE account = ?1 AND id = ?2", args![id])?;
    }
    Ok(())
}

fn full(message: &'static str) -> StoreError {
    StoreError::Conflict { code: "job_queue_full", message }
}

impl Store {
    /// The definition of the agent as which a new job in the space would run.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job_agent(&self, permit: &Permit<UseAgent>) -> Result<AgentRow, StoreError> {
        let name = permit.resource().name();
        self.database(permit.tenant())?
            .read(|sql| agent::newest(sql, name))
            .await?
            .ok_or_else(|| StoreError::not_found("agent", name))
    }

    /// Puts a job into the queue. Takes the right to put one into its space, to use its agent, and to make the call
    /// of `bash` that it is.
    ///
    /// # Errors
    /// `job_queue_full` if too many wait; [`StoreError::Exhausted`] if the day's budget is used up.
    pub async fn job_create(
        &self,
        creating: Permit<CreateJob>,
        using: Permit<UseAgent>,
        calling: Permit<CallTool>,
        new: NewJob,
    ) -> Result<JobRow, StoreError> {
        let no_user = StoreError::Conflict { code: "no_user", message: "only a user can start a job" };
        let caller = Caller::of(creating.scope()).ok_or(no_user)?;
        let id = new.job.id();
        let same = new.job.space().id() == creating.resource().id()
            && new.job.agent() == using.resource().name()
            && calling.resource().session().id() == id.as_session();
        if !same {
            return Err(StoreError::Conflict { code: "wrong_job", message: "the permits are for another job" });
        }
        let mut draft = creating.draft(Phase::Act, Verdict::Ok, detail(&new));
        draft.resource = new.job.label();
        draft.agent = Some(new.job.agent().clone());
        let quotas = self.default_quotas();
        let made = self
            .write(creating.tenant(), move |tx| {
                space::must_be_there(tx, new.job.space().id())?;
                let (all, own) = tx
                    .one(
                        "SELECT count(*), coalesce(sum(CASE WHEN initiator = ?2 THEN 1 ELSE 0 END), 0) FROM job \
                         WHERE account = ?1 AND state = 'queued'",
                        args![&caller.user],
                        |row| Ok((row.count(0)?, row.count(1)?)),
                    )?
                    .unwrap_or_default();
                if own >= USER_JOBS_WAITING {
                    return Err(full("too many of your jobs wait: wait for some to end, or cancel them"));
                }
                if all >= JOBS_WAITING {
                    return Err(full("too many jobs of the account wait: wait for some to end"));
                }
                if let Err(exhausted) = usage::spend(tx, &quotas, Some(&caller.user), Spending::ToolCall)? {
                    log::append(tx, quota::denied(draft, &exhausted))?;
                    return Ok(Err(exhausted));
                }
                forget_oldest(tx)?;
                tx.exec(
                    "INSERT INTO job (account, id, space, agent, initiator, caller, kind, command, timeout_seconds, \
                     state, events, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'queued', 0, ?10)",
                    args![
                        id,
                        new.job.space().id(),
                        new.job.agent(),
                        &caller.user,
                        serde_json::to_string(&caller)?,
                        new.kind.as_str(),
                        &new.command,
                        new.timeout_seconds,
                        Timestamp::now(),
                    ],
                )?;
                write_event(tx, id, "state", json!({ "state": JobState::Queued }))?;
                log::append(tx, draft)?;
                read_row(tx, id).map(Ok)
            })
            .await?;
        Ok(made?)
    }

    /// Finds a job of a space, as the policy sees it. `None` if there is none of that id in it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn job_find(&self, scope: &Scope, space: &Space, id: JobId) -> Result<Option<Job>, StoreError> {
        let found = self
            .database(scope.tenant())?
            .read_for(scope, |sql| {
                sql.one(
                    "SELECT agent, initiator FROM job WHERE account = ?1 AND id = ?2 AND space = ?3",
                    args![id, space.id()],
                    |row| Ok((row.parse(0)?, row.parse(1)?)),
                )
            })
            .await?;
        Ok(found.map(|(agent, initiator)| for_store::job(space.clone(), id, agent, initiator)))
    }

    /// A job's row.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was deleted meanwhile.
    pub async fn job_read(&self, permit: &Permit<ReadJob>) -> Result<JobRow, StoreError> {
        let id = permit.resource().id();
        self.database(permit.tenant())?.read_for(permit.scope(), |sql| read_row(sql, id)).await
    }

    /// The jobs of a space that the caller may read, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn job_list(&self, permit: Permit<ListJobs>, limit: usize) -> Result<Vec<JobRow>, StoreError> {
        let space = permit.resource();
        let rows = self
            .database(permit.tenant())?
            .read_for(permit.scope(), |sql| {
                sql.all(
                    "SELECT id, space, agent, initiator, kind, command, timeout_seconds, state, ending, events, \
                     created_at, started_at, ended_at FROM job WHERE account = ?1 AND space = ?2 \
                     ORDER BY id DESC",
                    args![space.id()],
                    job_row,
                )
            })
            .await?;
        let may = |row: &JobRow| {
            let job = for_store::job(space.clone(), row.id, row.agent.clone(), row.initiator.clone());
            permit.scope().may::<ReadJob>(&job)
        };
        // An account has some hundred at most, and whose newest are others' finds their own all the same.
        Ok(rows.into_iter().filter(may).take(limit).collect())
    }

    /// Notes that somebody cancels a job. One that waits ends at once; of one that runs, this is the word on record,
    /// and whoever runs it finds it at its next beat ([`Store::job_beat`]) if nobody tells them before. Says where it stands now; one that has ended stays as it ended.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was deleted meanwhile.
    pub async fn job_cancel(&self, permit: Permit<CancelJob>) -> Result<JobRow, StoreError> {
        let id = permit.resource().id();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let mut done = permit.draft(Phase::Act, Verdict::Fail, Map::new());
        "job.done".clone_into(&mut done.action);
        let by = permit.scope().user().cloned();
        self.write(permit.tenant(), move |tx| {
            let row = read_row(tx, id)?;
            draft.detail.insert("state".to_owned(), json!(row.state));
            log::append(tx, draft)?;
            tx.exec(
                "UPDATE job SET cancel_by = ?3 WHERE account = ?1 AND id = ?2 AND state = 'running'",
                args![id, by.as_ref()],
            )?;
            if row.state == JobState::Queued {
                let message = by.map_or_else(|| "canceled".to_owned(), |user| format!("canceled by {user}"));
                end(tx, id, JobState::Canceled, &Ending::because("canceled", message))?;
                done.detail.insert("state".to_owned(), json!(JobState::Canceled));
                log::append(tx, done)?;
            }
            read_row(tx, id)
        })
        .await
    }
}

/// What the record says of a job: never what it runs.
fn detail(new: &NewJob) -> Map<String, Value> {
    Map::from_iter([("kind".to_owned(), json!(new.kind)), ("timeout_seconds".to_owned(), json!(new.timeout_seconds))])
}
