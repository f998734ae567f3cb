//! One job at work: its command, what it says, and its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::StartJob;
use bailiwick_store::job::{Ending, JOB_SILENT, JobRow, JobState};
use bailiwick_store::session::Caller;
use bailiwick_store::{Store, StoreError};
use bailiwick_tools::job::{End, Finished, JobLog, NoRoom, Part, RanStatus, Run, Said};
use bailiwick_tools::run::ToolError;
use bailiwick_types::AgentDefinition;
use bailiwick_types::limits::JOB_LOG_TAIL;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::board::Place;
use super::{LOOK_AGAIN, Ready, Stop};
use crate::runtime::Inner;

/// Between two groups of the beginning of a log.
const GROUP_EACH: Duration = Duration::from_millis(200);
/// Between two groups of what comes later: who prints without end is written seldom.
const LATER_EACH: Duration = Duration::from_secs(2);
/// The longest pause before an end that the database did not take is written again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Inner {
    /// Runs a job that was begun, and ends it, whatever happens.
    pub(super) async fn run_begun(
        &self,
        place: &Place,
        (row, caller): (&JobRow, &Caller),
        (act, agent): (&Recorded<StartJob>, &AgentDefinition),
        stop: &Arc<Stop>,
    ) {
        let log = self.tools.job_log();
        let over = CancellationToken::new();
        let run = Run {
            script: row.command.clone(),
            timeout: Duration::from_secs(row.timeout_seconds),
            cancel: stop.token.clone(),
            no_room: NoRoom::default(),
        };
        let command = async {
            let ran = self.tools.run_job(act, agent, run, &log).await;
            over.cancel();
            ran
        };
        let mut writer = Writer::new(&self.store, act);
        let writing = writer.follow(&log, &over);
        let watching = async {
            tokio::select! {
                () = over.cancelled() => {}
                () = self.watch(place, (row, caller), (act, agent), stop) => {}
            }
        };
        // Side by side: while the one waits for the database, the other empties the pipes.
        let (ran, (), ()) = tokio::join!(command, writing, watching);
        writer.write(log.take(End::Yes)).await;
        let mut detail = Map::new();
        if let Ok(finished) = &ran {
            detail.insert("ms".to_owned(), json!(u64::try_from(finished.wall.as_millis()).unwrap_or(u64::MAX)));
            detail.insert("sandbox".to_owned(), finished.receipt.record());
        }
        let (state, ending) = end_of(ran, stop, row.timeout_seconds);
        self.write_end(act, state, &ending, &detail).await;
    }

    /// Stops the job when it would not be begun any more, or would be in another sandbox, or the server stops; and when
    /// another server was told to, or has taken this one for dead.
    async fn watch(
        &self,
        place: &Place,
        (row, caller): (&JobRow, &Caller),
        (act, begun_as): (&Recorded<StartJob>, &AgentDefinition),
        stop: &Stop,
    ) {
        let mut beaten = Instant::now();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => {
                    let ending = Ending::because("server_ended", "the server was stopped while it ran");
                    return stop.now(JobState::Failed, ending);
                }
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            match self.store.job_beat(act).await {
                Ok(None) => beaten = Instant::now(),
                Ok(Some(by)) => return stop.now(JobState::Canceled, canceled_by(&by)),
                Err(StoreError::Conflict { .. }) => {
                    let ending = Ending::because("server_ended", "another server took this one for dead and ended it");
                    return stop.now(JobState::Failed, ending);
                }
                // Before somebody else may think that nobody runs it, nobody does.
                Err(_) if self.store.is_shared() && beaten.elapsed() + 2 * LOOK_AGAIN >= JOB_SILENT => {
                    let ending = Ending::because("database_away", "the database was away for too long");
                    return stop.now(JobState::Failed, ending);
                }
                // What was deleted is told below; that the database is away says nothing about the job.
                Err(_) => {}
            }
            let ending = match self.ready(place, row, caller).await {
                Ok(Ok(Ready { agent, .. })) if same_walls(&agent, begun_as) => continue,
                Ok(Ok(_)) => Ending::because("agent_changed", "its agent has another sandbox or other rules now"),
                Ok(Err(ending)) => ending,
                Err(StoreError::NotFound { .. }) => Ending::because("deleted", "its space was deleted"),
                // That the database is away says nothing about the caller.
                Err(_) => continue,
            };
            return stop.now(JobState::Canceled, ending);
        }
    }

    /// Writes the end until it is written: a job without an end would be waited for.
    async fn write_end(&self, act: &Recorded<StartJob>, state: JobState, ending: &Ending, detail: &Map<String, Value>) {
        let mut pause = Duration::from_millis(500);
        loop {
            match self.store.job_end(act, state, ending.clone(), detail.clone()).await {
                // Deleted with its space: its end is on record.
                Ok(()) | Err(StoreError::NotFound { .. }) => return,
                Err(error) => {
                    tracing::error!(job = %act.resource().id(), %error, "the end of a job could not be written");
                }
            }
            if self.stopping.is_cancelled() {
                // The next start finds it and ends it.
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The end of a job that somebody canceled.
pub(super) fn canceled_by(who: &impl std::fmt::Display) -> Ending {
    Ending::because("canceled", format!("canceled by {who}"))
}

/// Whether what runs as the one would run as the other: what changes between walls does not end a job.
fn same_walls(now: &AgentDefinition, then: &AgentDefinition) -> bool {
    (&now.sandbox, &now.egress, &now.limits) == (&then.sandbox, &then.egress, &then.limits)
}

/// How a job ended, of how its command did.
fn end_of(ran: Result<Finished, ToolError>, stop: &Stop, seconds: u64) -> (JobState, Ending) {
    let status = match ran {
        Ok(finished) => finished.status,
        // Whoever stopped it may have stopped its sandbox as well.
        Err(error) => {
            return stop.why().unwrap_or_else(|| (JobState::Failed, Ending::because(error.code(), error.to_string())));
        }
    };
    match status {
        RanStatus::Exited(0) => (JobState::Ok, Ending { exit: Some(0), ..Ending::default() }),
        RanStatus::Exited(code) => (JobState::Failed, Ending { exit: Some(code), ..Ending::default() }),
        RanStatus::Signaled(signal) => (JobState::Failed, Ending { signal: Some(signal), ..Ending::default() }),
        RanStatus::OutOfMemory => {
            (JobState::Failed, Ending::because("out_of_memory", "stopped, because the sandbox's memory was used up"))
        }
        RanStatus::StorageFull(why) => {
            (JobState::Failed, Ending::because("storage_full", format!("stopped, because {why}")))
        }
        RanStatus::LimitReached(limit) => {
            let message = format!("cut short at a limit of the sandbox: {limit}");
            (JobState::Failed, Ending::because("limit_reached", message))
        }
        RanStatus::TimedOut => {
            (JobState::Timeout, Ending::because("timeout", format!("stopped after {seconds} seconds")))
        }
        RanStatus::Canceled => {
            stop.why().unwrap_or_else(|| (JobState::Canceled, Ending::because("canceled", "canceled")))
        }
    }
}

/// Writes what a job says, and keeps count of what there is room for.
pub(super) struct Writer<'a> {
    store: &'a Store,
    act: &'a Recorded<StartJob>,
    /// What was written of the end of the log, oldest first: number and bytes.
    tail: VecDeque<(u64, usize)>,
    tail_bytes: usize,
    /// Bytes that the database did not take.
    lost: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(store: &'a Store, act: &'a Recorded<StartJob>) -> Self {
        Self { store, act, tail: VecDeque::new(), tail_bytes: 0, lost: 0 }
    }

    /// Writes what comes, in groups, until the command is over.
    async fn follow(&mut self, log: &JobLog, over: &CancellationToken) {
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                () = log.grown() => {}
            }
            let pause = if self.tail.is_empty() { GROUP_EACH } else { LATER_EACH };
            if tokio::time::timeout(pause, over.cancelled()).await.is_ok() {
                return;
            }
            self.write(log.take(End::No)).await;
        }
    }

    async fn write(&mut self, said: Vec<Said>) {
        if said.is_empty() {
            return;
        }
        let coming: usize = said.iter().filter(|said| said.part == Part::Tail).map(|said| said.bytes).sum();
        let mut gone = Vec::new();
        while self.tail_bytes + coming > JOB_LOG_TAIL {
            let Some((n, bytes)) = self.tail.pop_front() else { break };
            self.tail_bytes -= bytes;
            gone.push(n);
        }
        let parts: Vec<_> = said.iter().map(|said| (said.part, said.bytes)).collect();
        let mut fields: Vec<Value> = said.into_iter().map(|said| said.fields).collect();
        if let (true, Some(first)) = (self.lost > 0, fields.first_mut()) {
            let before = first["left_out"].as_u64().unwrap_or(0);
            first["left_out"] = json!(before + self.lost as u64);
        }
        match self.store.job_say(self.act, fields, gone).await {
            Ok(numbers) => {
                self.lost = 0;
                for (n, (_, bytes)) in numbers.into_iter().zip(parts).filter(|(_, (part, _))| *part == Part::Tail) {
                    self.tail.push_back((n, bytes));
                    self.tail_bytes += bytes;
                }
            }
            Err(error) => {
                tracing::error!(job = %self.act.resource().id(), %error, "what a job said could not be written");
                self.lost += parts.iter().map(|(_, bytes)| bytes).sum::<usize>();
            }
        }
    }
}
