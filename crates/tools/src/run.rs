//! Runs what the gate let through.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_auth::access::verb::{CallTool, StartSandbox};
use bailiwick_auth::access::{Asks, Session, record};
use bailiwick_auth::{Recorded, Scope};
use bailiwick_files::{Access, FileError};
use bailiwick_sandbox::fetch::FetchError;
use bailiwick_sandbox::linux::Limits;
use bailiwick_sandbox::{CpuDemand, Demand, Inside, Running, SandboxError, Sandboxes, Share};
use bailiwick_store::area::WorkArea;
use bailiwick_store::storage::Full;
use bailiwick_store::turn::Lease;
use bailiwick_store::{Store, StoreError};
use bailiwick_types::AgentDefinition;
use bailiwick_types::agent::{SandboxMode, SandboxScope, WorkspaceMode};
use bailiwick_vault::Redactor;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::builtin;
use crate::catalogue::{self, Kind};

/// The operator's ceilings: an agent may only ask for less.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Of a sandbox.
    pub sandbox: Limits,
    /// Of one tool call.
    pub tool_time: Duration,
    /// MiB of one workspace while a sandbox's command runs in it, where there is such a limit.
    pub disk_mib: Option<u64>,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self { sandbox: Limits::default(), tool_time: bailiwick_types::limits::TOOL_TIME, disk_mib: None }
    }
}

/// How a call went, for the record and for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It ran.
    Completed,
    /// It could not do what was asked.
    Failed,
}

/// What a call gave.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it ran.
    pub verdict: Verdict,
    /// What the model and the client see. Cut, and cleared of known secrets.
    pub output: Value,
    /// Files whose content the session has seen by it.
    pub seen: Vec<(String, [u8; 32])>,
    /// For the record; never content.
    pub detail: Map<String, Value>,
}

/// A call failed in a way that the model may read.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The model can do something about it.
    #[error("{0}")]
    Said(String),
    /// A file of the workspace.
    #[error("{path}: {error}")]
    File {
        /// As the model named it.
        path: String,
        /// What is wrong.
        #[source]
        error: FileError,
    },
    /// A document of the web.
    #[error("{url}: {why}")]
    Fetch {
        /// As the model wrote it.
        url: String,
        /// What is wrong.
        #[source]
        why: FetchError,
    },
    /// There is no room for what it may write.
    #[error("{0}")]
    Full(Full),
    /// No sandbox, or it failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The store failed; the model is told no more than that.
    #[error("the server could not do this: try again later")]
    Store(#[from] StoreError),
    /// The record could not be written.
    #[error("the server could not do this: try again later")]
    Journal(#[from] bailiwick_auth::access::JournalError),
    /// A worker of the server ended.
    #[error("the server could not do this: try again later")]
    Stopped,
}

impl ToolError {
    /// A stable word for the record, which never holds what a model wrote.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Said(_) => "refused_by_tool",
            Self::File { error, .. } => error.code(),
            Self::Fetch { why: FetchError::Refused(_), .. } => "fetch_refused",
            Self::Fetch { .. } => "fetch_failed",
            Self::Full(_) => "storage_full",
            Self::Sandbox(error) => error.code(),
            Self::Store(_) => "store_failed",
            Self::Journal(_) => "journal_failed",
            Self::Stopped => "stopped",
        }
    }
}

/// The surroundings of one call.
pub struct Context<'a> {
    /// The session's lease.
    pub lease: &'a Lease,
    /// The agent.
    pub agent: &'a AgentDefinition,
    /// Whether a person drives the session in the foreground.
    pub main: Main,
    /// Stops the call.
    pub cancel: CancellationToken,
}

/// Whether a session is its caller's main one (seed 000's modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Main {
    /// A person drives it.
    Yes,
    /// A schedule, a channel or another agent does.
    No,
}

/// The tool manager.
pub struct ToolManager {
    store: Store,
    sandboxes: Arc<Sandboxes>,
    redactor: Arc<Redactor>,
    ceilings: Ceilings,
}

impl ToolManager {
    /// A manager over the server's parts.
    pub fn new(store: Store, sandboxes: Arc<Sandboxes>, redactor: Redactor, ceilings: Ceilings) -> Self {
        Self { store, sandboxes, redactor: Arc::new(redactor), ceilings }
    }

    /// The sandboxes.
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    pub(crate) fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    pub(crate) fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Runs a recorded call. Whatever goes wrong becomes a result that the model can read.
    pub async fn run(&self, act: &Recorded<CallTool>, context: &Context<'_>) -> Outcome {
        let done = self.dispatch(act, context).await;
        let mut outcome = done.unwrap_or_else(|error| {
            tracing::debug!(%error, "a tool call failed");
            let mut detail = Map::new();
            detail.insert("error".to_owned(), json!(error.code()));
            if let ToolError::Sandbox(error) = &error
                && let differs = error.differs()
                && !differs.is_empty()
            {
                detail.insert("differs".to_owned(), json!(differs));
            }
            Outcome {
                verdict: Verdict::Failed,
                output: json!({ "error": error.to_string() }),
                seen: Vec::new(),
                detail,
            }
        });
        self.redact(&mut outcome.output);
        for value in outcome.detail.values_mut() {
            self.redact(value);
        }
        outcome
    }

    async fn dispatch(&self, act: &Recorded<CallTool>, context: &Context<'_>) -> Result<Outcome, ToolError> {
        let call = act.resource();
        let tool = catalogue::find(call.tool().as_str())
            .ok_or_else(|| ToolError::Said(format!("There is no tool named {}.", call.tool())))?;
        let arguments = call.arguments();
        match tool.kind {
            Kind::Bash => builtin::bash::run(self, act, context, arguments).await,
            Kind::ReadFile => builtin::file::read(self, act, context, arguments).await,
            Kind::WriteFile => builtin::file::write(self, act, context, arguments).await,
            Kind::EditFile => builtin::file::edit(self, act, context, arguments).await,
            Kind::Glob => builtin::search::glob(self, act, context, arguments).await,
            Kind::Grep => builtin::search::grep(self, act, context, arguments).await,
            Kind::WebFetch => builtin::web::fetch(self, act, context, arguments).await,
            Kind::Plan => builtin::plan::write(self, act, arguments).await,
            Kind::AskQuestion => Err(ToolError::Said("A question is answered by a person.".to_owned())),
        }
    }

    /// Enters the session's sandbox, on record, and opens the files that are in it.
    pub(crate) async fn enter(
        &self,
        act: &Recorded<CallTool>,
        context: &Context<'_>,
    ) -> Result<(Arc<Running>, WorkArea), ToolError> {
        let entering = self.entering(act).await?;
        let inside = match context.agent.sandbox.mode {
            _ if context.agent.elevated.contains(act.resource().tool()) => Inside::Host,
            SandboxMode::Off => Inside::Host,
            SandboxMode::NonMain if context.main == Main::Yes => Inside::Host,
            SandboxMode::NonMain | SandboxMode::All => Inside::Sandbox(context.agent.sandbox.backend),
        };
        self.enter_as(entering, context.agent, inside).await
    }

    /// Enters a sandbox as the agent asks for it, and writes down what came of it.
    pub(crate) async fn enter_as(
        &self,
        entering: Recorded<StartSandbox>,
        agent: &AgentDefinition,
        inside: Inside,
    ) -> Result<(Arc<Running>, WorkArea), ToolError> {
        let demand = self.demand(&entering, agent, inside).await?;
        let area = WorkArea { folder: demand.folder.clone(), files: demand.files.clone() };
        let entered = self.sandboxes.enter(&entering, demand).await;
        let mut detail = Map::new();
        let verdict = match &entered {
            Ok((_, backend)) => {
                detail.insert("backend".to_owned(), json!(backend.as_str()));
                bailiwick_audit::Verdict::Ok
            }
            Err(error) => {
                detail.insert("error".to_owned(), json!(error.code()));
                let differs = error.differs();
                if !differs.is_empty() {
                    detail.insert("differs".to_owned(), json!(differs));
                }
                bailiwick_audit::Verdict::Fail
            }
        };
        entering.settle(&self.store, verdict, detail).await?;
        Ok((entered?.0, area))
    }

    /// Opens the files of the session's sandbox, without starting it.
    pub(crate) async fn files(&self, act: &Recorded<CallTool>, context: &Context<'_>) -> Result<WorkArea, ToolError> {
        let entering = self.entering(act).await?;
        let area = self.area(&entering, context.agent).await?;
        let detail = Map::from_iter([("for".to_owned(), json!("files"))]);
        entering.settle(&self.store, bailiwick_audit::Verdict::Ok, detail).await?;
        Ok(area)
    }

    async fn entering(&self, act: &Recorded<CallTool>) -> Result<Recorded<StartSandbox>, ToolError> {
        let detail = Map::from_iter([("call".to_owned(), json!(act.resource().id()))]);
        self.entering_as(act.scope(), act.resource().session(), detail).await
    }

    /// Asks for the right to enter the sandbox of a session, and puts on record that it is entered, and for what.
    pub(crate) async fn entering_as(
        &self,
        scope: &Scope,
        session: &Session,
        detail: Map<String, Value>,
    ) -> Result<Recorded<StartSandbox>, ToolError> {
        let permit = scope
            .authorize::<StartSandbox>(session.clone())
            .map_err(|refusal| ToolError::Said(refusal.message().to_owned()))?;
        Ok(record(&self.store, permit, detail).await?)
    }

    async fn area(&self, entering: &Recorded<StartSandbox>, agent: &AgentDefinition) -> Result<WorkArea, ToolError> {
        Ok(match agent.sandbox.workspace {
            WorkspaceMode::Rw => self.store.area_space(entering, Access::ReadWrite).await?,
            WorkspaceMode::Ro => self.store.area_space(entering, Access::ReadOnly).await?,
            WorkspaceMode::None => self.store.area_scratch(entering, &work_name(&share(entering, agent)))?,
        })
    }

    async fn demand(
        &self,
        entering: &Recorded<StartSandbox>,
        agent: &AgentDefinition,
        inside: Inside,
    ) -> Result<Demand, ToolError> {
        let area = self.area(entering, agent).await?;
        let share = share(entering, agent);
        let shared_tmp = match &share {
            Share::Session(_) => None,
            shared => Some(self.store.area_scratch(entering, &format!("tmp-{}", share_name(shared)))?.folder),
        };
        let tenant = entering.scope().tenant();
        Ok(Demand {
            tenant: tenant.incarnation(),
            share,
            space: entering.resource().space().id(),
            folder: area.folder,
            files: area.files,
            shared_tmp,
            user: tenant.jail_user(),
            inside,
            egress: agent.egress.clone(),
            cpu: if agent.limits.cpu.is_some() { CpuDemand::Enforced } else { CpuDemand::WherePossible },
            limits: self.limits(agent),
        })
    }

    /// The agent's limits, cut to the operator's.
    fn limits(&self, agent: &AgentDefinition) -> Limits {
        let top = self.ceilings.sandbox;
        let asked = &agent.limits;
        let memory = asked.memory_mib.map_or(top.memory_bytes, |mib| mib.saturating_mul(1 << 20));
        let pids = asked.pids.map_or(top.pids, |n| u32::try_from(n).unwrap_or(u32::MAX));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked positive; `as` saturates")]
        let cpu = asked.cpu.map_or(top.cpu_millis, |cores| (cores * 1000.0).ceil() as u32);
        let memory_bytes = memory.min(top.memory_bytes);
        Limits {
            memory_bytes,
            pids: pids.min(top.pids),
            cpu_millis: cpu.min(top.cpu_millis),
            // A private `/tmp` is memory too: whoever fills it is to be told, and not to lose the sandbox.
            tmp_bytes: top.tmp_bytes.min(memory_bytes / 4),
            ..top
        }
    }

    /// How long a call may take: what the model asks, at most what the agent says, at most what the
    /// operator says.
    pub(crate) fn time(&self, agent: &AgentDefinition, asked: Option<u64>) -> Duration {
        let agents = agent.limits.tool_timeout_seconds.map_or(self.ceilings.tool_time, Duration::from_secs);
        let most = agents.min(self.ceilings.tool_time);
        asked.map_or(most, |seconds| Duration::from_secs(seconds).min(most))
    }

    fn redact(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let std::borrow::Cow::Owned(clean) = self.redactor.redact(text) {
                    *text = clean;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact(item)),
            Value::Object(map) => map.values_mut().for_each(|item| self.redact(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

fn share(entering: &Recorded<StartSandbox>, agent: &AgentDefinition) -> Share {
    let session = entering.resource();
    match agent.sandbox.scope {
        SandboxScope::Session => Share::Session(session.id()),
        SandboxScope::Agent => Share::Agent(session.agent().clone()),
        SandboxScope::Shared => Share::Account,
    }
}

/// The folder of those who have no space's files.
pub(crate) fn work_name(share: &Share) -> String {
    format!("work-{}", share_name(share))
}

/// A folder's name for those who share; opaque, because it can be seen from inside.
fn share_name(share: &Share) -> String {
    use sha2::{Digest, Sha256};
    let text = match share {
        Share::Session(id) => id.to_string(),
        Share::Agent(name) => format!("agent {name}"),
        Share::Account => "account".to_owned(),
    };
    bailiwick_audit::event::hex(&Sha256::digest(text)[..12])
}

/// Whether a definition makes a tool ask, whatever the arguments.
pub fn asks(agent: &AgentDefinition, tool: &bailiwick_types::ToolName) -> Asks {
    if agent.elevated.contains(tool) {
        Asks::Elevated
    } else if agent.require_approval.contains(tool) {
        Asks::Required
    } else {
        Asks::No
    }
}
