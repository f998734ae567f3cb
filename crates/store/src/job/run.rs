//! The work of a job: what the runtime writes while it runs one, and what a restart finds.
//!
//! A job is begun once: the step from `queued` to `running` is taken in the transaction that puts the intent on
//! record, and what the job says later is written against that record alone.

use std::time::Duration;

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{CallTool, StartJob};
use bailiwick_auth::{Permit, Recorded, Tenant, for_store};
use bailiwick_types::{AgentName, JobId, SpaceId, Timestamp, UserName};
use serde_json::{Map, Value, json};

use super::{Ending, JobRow, JobState, end, read_row, write_event};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::session::Caller;
use crate::sql::{Row, args};
use crate::store::Store;

/// How long a job is believed to be worked on of which nothing is heard, where several servers share a database. Their
/// clocks may differ by less than that.
pub const JOB_SILENT: Duration = Duration::from_secs(60);

/// A job that has not ended.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// Its id.
    pub id: JobId,
    /// Its space.
    pub space: SpaceId,
    /// Who put it into the queue.
    pub user: UserName,
    /// Where it stands.
    pub state: JobState,
}

impl Store {
    /// A job that waits, with the one who asked for it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was deleted meanwhile.
    pub async fn job_waiting(&self, tenant: &Tenant, id: JobId) -> Result<(JobRow, Caller), StoreError> {
        self.database(tenant)?
            .read(|sql| {
                let row = read_row(sql, id)?;
                let caller =
                    sql.one("SELECT caller FROM job WHERE account = ?1 AND id = ?2", args![id], |row| row.json(0))?;
                caller.map(|caller| (row, caller)).ok_or_else(|| StoreError::not_found("job", id))
            })
            .await
    }

    /// Puts the intent of a job on record and takes it out of the queue, in one transaction. Takes the right to make
    /// the call of `bash` that it is, besides.
    ///
    /// # Errors
    /// `job_ended` if it does not wait any more, or if the record cannot be written: nothing must run.
    pub async fn job_begin(
        &self,
        starting: Permit<StartJob>,
        calling: Permit<CallTool>,
    ) -> Result<Recorded<StartJob>, StoreError> {
        let (id, server) = (starting.resource().id(), self.server());
        if calling.resource().session().id() != id.as_session() {
            return Err(StoreError::Conflict { code: "wrong_job", message: "the permits are for two jobs" });
        }
        let draft = starting.draft(Phase::Intent, Verdict::Begun, Map::new());
        let intent = self
            .write(starting.tenant(), move |tx| {
                let intent = log::append(tx, draft)?;
                let begun = tx.exec(
                    "UPDATE job SET state = 'running', intent = ?3, started_at = ?4, server = ?5, beat_at = ?4 \
                     WHERE account = ?1 AND id = ?2 AND state = 'queued'",
                    args![id, intent, Timestamp::now(), server],
                )?;
                if begun == 0 {
                    return Err(StoreError::Conflict { code: "job_ended", message: "the job does not wait any more" });
                }
                write_event(tx, id, "state", json!({ "state": JobState::Running }))?;
                Ok(intent)
            })
            .await?;
        Ok(for_store::recorded(starting, intent))
    }

    /// Says that a job is still worked on, and asks whether somebody wants it ended: who.
    ///
    /// # Errors
    /// `job_ended` if another server ended it, which took this one for dead: its command must be stopped.
    pub async fn job_beat(&self, act: &Recorded<StartJob>) -> Result<Option<UserName>, StoreError> {
        let (id, server) = (act.resource().id(), self.server());
        self.write(act.scope().tenant(), move |tx| {
            let held = tx.exec(
                "UPDATE job SET beat_at = ?4 WHERE account = ?1 AND id = ?2 AND server = ?3 AND state = 'running'",
                args![id, server, Timestamp::now()],
            )?;
            if held == 0 {
                read_row(tx, id)?;
                return Err(StoreError::Conflict { code: "job_ended", message: "the job has ended" });
            }
            let wanted = "SELECT cancel_by FROM job WHERE account = ?1 AND id = ?2";
            Ok(tx.one(wanted, args![id], |row| row.optional_parse(0))?.flatten())
        })
        .await
    }

    /// Writes what a job said, a group at a time: `said` are the fields of each event. The events of the
    /// numbers in `gone` go, for there is only so much room. Says the new ones' numbers.
    ///
    /// # Errors
    /// `job_ended` if it does not run any more.
    pub async fn job_say(
        &self,
        act: &Recorded<StartJob>,
        said: Vec<Value>,
        gone: Vec<u64>,
    ) -> Result<Vec<u64>, StoreError> {
        let id = act.resource().id();
        self.write(act.scope().tenant(), move |tx| {
            if read_row(tx, id)?.state != JobState::Running {
                return Err(StoreError::Conflict { code: "job_ended", message: "the job has ended" });
            }
            let written = said.into_iter().map(|fields| write_event(tx, id, "output", fields));
            let written = written.collect::<Result<_, _>>()?;
            for n in gone {
                tx.exec("DELETE FROM job_event WHERE account = ?1 AND job = ?2 AND n = ?3", args![id, n])?;
            }
            Ok(written)
        })
        .await
    }

    /// Ends a job that ran: its state, the last event, the line on record. One that has ended stays as it ended.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was deleted meanwhile; its end was put on record with that.
    pub async fn job_end(
        &self,
        act: &Recorded<StartJob>,
        state: JobState,
        ending: Ending,
        detail: Map<String, Value>,
    ) -> Result<(), StoreError> {
        let id = act.resource().id();
        let verdict = if state == JobState::Ok { Verdict::Ok } else { Verdict::Fail };
        let mut done = act.outcome(verdict, detail);
        "job.done".clone_into(&mut done.action);
        done.detail.extend(told(state, &ending));
        self.write(act.scope().tenant(), move |tx| match end(tx, id, state, &ending) {
            Err(StoreError::Conflict { .. }) => Ok(()),
            ended => {
                ended?;
                log::append(tx, done).map(drop)
            }
        })
        .await
    }

    /// Ends a job that nobody runs: one that may not begin, or one that a server left behind. One that has ended
    /// stays as it ended.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn job_give_up(
        &self,
        tenant: &Tenant,
        id: JobId,
        state: JobState,
        ending: Ending,
    ) -> Result<(), StoreError> {
        self.write(tenant, move |tx| {
            let row = read_row(tx, id)?;
            if row.state.is_ended() {
                return Ok(());
            }
            let intent =
                tx.one("SELECT intent FROM job WHERE account = ?1 AND id = ?2", args![id], |row| row.optional_int(0))?;
            let intent = intent.flatten().and_then(|intent| u64::try_from(intent).ok());
            log::append(tx, unheard(id, Ran { space: row.space, agent: row.agent, intent }, state, &ending))?;
            end(tx, id, state, &ending)
        })
        .await
    }

    /// The jobs of all accounts, in the order in which they came, that this server has to look after: those that wait,
    /// those that run on it or did before it was started again, and those of other servers of which nothing was heard
    /// for [`JOB_SILENT`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn jobs_unfinished(&self) -> Result<Vec<(Tenant, Unfinished)>, StoreError> {
        let heard = Timestamp::now().before(JOB_SILENT);
        let mut found = Vec::new();
        for tenant in self.all_tenants().await? {
            match self.unfinished_jobs_of(&tenant, heard).await {
                Ok(some) => found.extend(some.into_iter().map(|job| (tenant.clone(), job))),
                Err(error) => {
                    let account = tenant.account();
                    tracing::error!(%account, %error, "the unfinished jobs of an account could not be listed");
                }
            }
        }
        found.sort_by_key(|(_, job)| job.id);
        Ok(found)
    }

    async fn unfinished_jobs_of(&self, tenant: &Tenant, heard: Timestamp) -> Result<Vec<Unfinished>, StoreError> {
        let server = self.server();
        self.database(tenant)?
            .read(move |sql| {
                sql.all(
                    "SELECT id, space, initiator, state FROM job WHERE account = ?1 AND (state = 'queued' \
                     OR state = 'running' AND (server = ?2 OR beat_at < ?3))",
                    args![server, heard],
                    |row| {
                        let state = JobState::parse(&row.text(3)?)?;
                        Ok(Unfinished { id: row.parse(0)?, space: row.parse(1)?, user: row.parse(2)?, state })
                    },
                )
            })
            .await
    }
}

/// Writes the ends of jobs that go with what is being deleted: afterwards there is no row that could say them.
pub(crate) fn go_with(tx: &mut Tx<'_>, what: GoesWith<'_>) -> Result<(), StoreError> {
    const COLUMNS: fn(&Row<'_>) -> Result<(JobId, Ran), StoreError> = |row| {
        let intent = row.optional_int(3)?.and_then(|intent| u64::try_from(intent).ok());
        Ok((row.parse(0)?, Ran { space: row.parse(1)?, agent: row.parse(2)?, intent }))
    };
    let (found, why) = match what {
        GoesWith::Space(space) => (
            tx.all(
                "SELECT id, space, agent, intent FROM job WHERE account = ?1 AND space = ?2 \
                 AND state IN ('queued', 'running')",
                args![space],
                COLUMNS,
            )?,
            "its space was deleted",
        ),
        GoesWith::User(user) => (
            tx.all(
                "SELECT id, space, agent, intent FROM job WHERE account = ?1 AND initiator = ?2 \
                 AND state IN ('queued', 'running')",
                args![user],
                COLUMNS,
            )?,
            "its user was deleted",
        ),
    };
    for (id, ran) in found {
        log::append(tx, unheard(id, ran, JobState::Canceled, &Ending::because("deleted", why)))?;
    }
    Ok(())
}

/// What a job is deleted with.
pub(crate) enum GoesWith<'a> {
    /// Its space.
    Space(SpaceId),
    /// Who put it into the queue.
    User(&'a UserName),
}

/// What the record's line needs of a job.
struct Ran {
    space: SpaceId,
    agent: AgentName,
    /// Of its beginning, if it began.
    intent: Option<u64>,
}

/// The line for the end of a job that is not there to say it.
fn unheard(id: JobId, ran: Ran, state: JobState, ending: &Ending) -> Draft {
    Draft {
        actor: Actor::Service("jobs".to_owned()),
        space: Some(ran.space),
        agent: Some(ran.agent),
        phase: if ran.intent.is_some() { Phase::Outcome } else { Phase::Act },
        verdict: Verdict::Fail,
        intent: ran.intent,
        detail: told(state, ending),
        ..crate::account::startup("job.done", format!("job:{id}"))
    }
}

/// What the record says of an end.
fn told(state: JobState, ending: &Ending) -> Map<String, Value> {
    let mut detail = Map::from_iter([("state".to_owned(), json!(state))]);
    let more = [
        ("exit", ending.exit.map(|code| json!(code))),
        ("signal", ending.signal.map(|signal| json!(signal))),
        ("code", ending.reason.as_ref().map(|reason| json!(reason))),
    ];
    detail.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    detail
}
