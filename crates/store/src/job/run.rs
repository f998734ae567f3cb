//! The work of a job: what the runtime writes while it runs one, and what a restart finds.
//!
//! A job is begun once: the step from `queued` to `running` is taken in the transaction that puts the intent on
//! record, and what the job says later is written against that record alone.

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{CallTool, StartJob};
use bailiwick_auth::{Permit, Recorded, Tenant, for_store};
use bailiwick_types::{JobId, SpaceId, Timestamp, UserName};
use serde_json::{Map, Value, json};

use super::{Ending, JobRow, JobState, end, read_row, write_event};
use crate::error::StoreError;
use crate::log;
use crate::session::Caller;
use crate::sql::args;
use crate::store::Store;

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
        let id = starting.resource().id();
        if calling.resource().session().id() != id.as_session() {
            return Err(StoreError::Conflict { code: "wrong_job", message: "the permits are for two jobs" });
        }
        let draft = starting.draft(Phase::Intent, Verdict::Begun, Map::new());
        let intent = self
            .write(starting.tenant(), move |tx| {
                let intent = log::append(tx, draft)?;
                let begun = tx.exec(
                    "UPDATE job SET state = 'running', intent = ?3, started_at = ?4 WHERE account = ?1 AND id = ?2 \
                     AND state = 'queued'",
                    args![id, intent, Timestamp::now()],
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

    /// Ends a job that ran: its state, the last event, the line on record.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was deleted meanwhile; its end is then on record all the same.
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
        let gone = self
            .write(act.scope().tenant(), move |tx| {
                let ended = end(tx, id, state, &ending);
                if matches!(ended, Err(StoreError::Conflict { .. })) {
                    return Ok(None);
                }
                log::append(tx, done)?;
                match ended {
                    Err(error @ StoreError::NotFound { .. }) => Ok(Some(error)),
                    other => other.map(|()| None),
                }
            })
            .await?;
        gone.map_or(Ok(()), Err)
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
            let draft = crate::account::startup("job.done", format!("job:{id}"));
            let phase = if intent.is_some() { Phase::Outcome } else { Phase::Act };
            log::append(
                tx,
                Draft {
                    actor: Actor::Service("jobs".to_owned()),
                    space: Some(row.space),
                    agent: Some(row.agent),
                    phase,
                    verdict: Verdict::Fail,
                    intent,
                    detail: told(state, &ending),
                    ..draft
                },
            )?;
            end(tx, id, state, &ending)
        })
        .await
    }

    /// The jobs that have not ended, of all accounts, in the order in which they came.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn jobs_unfinished(&self) -> Result<Vec<(Tenant, Unfinished)>, StoreError> {
        let tenants = self
            .host()
            .read(|sql| {
                sql.all(
                    "SELECT name, incarnation, jail_user, policy FROM account WHERE ?1 = 'host'",
                    args![],
                    crate::account::tenant_columns,
                )
            })
            .await?;
        let mut found = Vec::new();
        for columns in tenants {
            let name = columns.0.clone();
            // One account that cannot be read must not keep the others' jobs from running.
            match self.unfinished_jobs_of(columns).await {
                Ok(some) => found.extend(some),
                Err(error) => {
                    tracing::error!(account = %name, %error, "the unfinished jobs of an account could not be listed");
                }
            }
        }
        found.sort_by_key(|(_, job)| job.id);
        Ok(found)
    }

    async fn unfinished_jobs_of(
        &self,
        columns: crate::account::TenantColumns,
    ) -> Result<Vec<(Tenant, Unfinished)>, StoreError> {
        let tenant = crate::account::tenant_of_columns(columns)?;
        let jobs = self
            .database(&tenant)?
            .read(|sql| {
                sql.all(
                    "SELECT id, space, initiator, state FROM job WHERE account = ?1 AND state IN ('queued', 'running')",
                    args![],
                    |row| {
                        let state = JobState::parse(&row.text(3)?)?;
                        Ok(Unfinished { id: row.parse(0)?, space: row.parse(1)?, user: row.parse(2)?, state })
                    },
                )
            })
            .await?;
        Ok(jobs.into_iter().map(|job| (tenant.clone(), job)).collect())
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
