//! Jobs: commands that run longer than a tool call, as an agent and inside its sandbox.
//!
//! A job is a call of `bash` to the policy: whoever may not make that call may not start the job, and what a person
//! would have to approve is refused, for nobody waits who could be asked. It never runs on the host.

mod log;

use bailiwick_auth::access::verb::{CallTool, StartJob};
use bailiwick_auth::access::{Asks, Job};
use bailiwick_auth::{Permit, Recorded, Scope};
use bailiwick_sandbox::{Inside, Share};
use bailiwick_store::StoreError;
use bailiwick_store::storage::Full;
use bailiwick_types::agent::{BackendChoice, SandboxMode, SandboxScope, WorkspaceMode};
use bailiwick_types::{AgentDefinition, CallId, ToolName};
use serde_json::{Map, json};

use crate::gate::{self, Judged, Refused, ToolRequest};
use crate::run::{ToolError, ToolManager, asks, work_name};

pub use bailiwick_sandbox::{Finished, NoRoom, RanStatus, Run};
pub use log::{End, JobLog, Part, Said};

/// The tool that a job is a call of.
const TOOL: &str = "bash";

fn refused(code: &'static str, message: &str) -> Refused {
    Refused { message: message.to_owned(), code, refusal: None }
}

/// Judges a job as the call of `bash` that it is.
///
/// # Errors
/// Why it must not run: the policy's refusal, `approval_required`, `job_on_host`.
pub fn judge(scope: &Scope, job: &Job, agent: &AgentDefinition, command: &str) -> Result<Permit<CallTool>, Refused> {
    let request = ToolRequest { id: CallId::new(), name: TOOL.to_owned(), arguments: json!({ "command": command }) };
    let judged = gate::judge(scope, job.session(), agent, &request);
    let elevated = TOOL.parse::<ToolName>().is_ok_and(|tool| asks(agent, &tool) == Asks::Elevated);
    let on_host = elevated || agent.sandbox.mode == SandboxMode::Off || agent.sandbox.backend == BackendChoice::Host;
    match judged {
        Judged::Refused(refused) => Err(refused),
        _ if on_host => {
            Err(refused("job_on_host", "this agent's commands run on the host: jobs run in a sandbox only"))
        }
        Judged::Ask(_) => Err(refused(
            "approval_required",
            "a person has to approve this agent's commands, and a job cannot ask: let the agent run it in a session",
        )),
        Judged::Question(..) => Err(refused("tool_unknown", "this server has no shell for jobs")),
        Judged::Go(permit, _) => Ok(permit),
    }
}

impl ToolManager {
    /// An empty log, from which known secrets are kept.
    pub fn job_log(&self) -> JobLog {
        JobLog::new(std::sync::Arc::clone(self.redactor()))
    }

    /// Runs the command of a recorded job in its sandbox, until nothing of it is left.
    ///
    /// # Errors
    /// If it could not be run; how it ended is no error.
    pub async fn run_job(
        &self,
        act: &Recorded<StartJob>,
        agent: &AgentDefinition,
        run: Run,
        log: &JobLog,
    ) -> Result<Finished, ToolError> {
        let job = act.resource();
        self.store().storage_admit(act.scope().tenant()).await.map_err(|error| match error {
            StoreError::Exhausted(exhausted) => ToolError::Full(Full::Account(exhausted)),
            error => error.into(),
        })?;
        let detail = Map::from_iter([("job".to_owned(), json!(job.id()))]);
        let entering = self.entering_as(act.scope(), job.session(), detail).await?;
        let (sandbox, area) = self.enter_as(entering, agent, Inside::Sandbox(agent.sandbox.backend)).await?;
        let no_room = run.no_room.clone();
        let take = |stream, bytes: &[u8]| log.write(stream, bytes);
        let place = (act.scope().tenant(), agent, &area);
        let finished = self.while_there_is_room(place, &no_room, sandbox.stream(act, run, &take)).await;
        drop(sandbox);
        // One that was this job's alone has no other use; where it is shared, this finds none.
        self.sandboxes().end_session(job.session().id());
        if (agent.sandbox.workspace, agent.sandbox.scope) == (WorkspaceMode::None, SandboxScope::Session) {
            self.store().area_scratch_clear(act, &work_name(&Share::Session(job.session().id()))).await;
        }
        Ok(finished??)
    }
}
