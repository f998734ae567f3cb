//! An agent's definition: what `agents/<id>/AGENT.md` and `PUT /agents/{id}` say, as one type.
//!
//! Strict: unknown keys are errors, because a misspelt `require_aproval` must not mean "no approval".
//! This is what the agent's author asks for; the operator's ceilings may narrow it, never widen it.

use serde::{Deserialize, Serialize};

use crate::egress::Egress;
use crate::name::{ModelName, ToolName, UserName};

/// What an agent is: instructions, model, tools, approvals, sandbox, egress and limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentDefinition {
    /// Shown to people; the agent's id is its folder or its place in the API.
    #[serde(default)]
    pub name: String,
    /// A line for people who choose among agents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Which `[model.<name>]` of the configuration answers.
    #[serde(default = "ModelName::first")]
    pub model: ModelName,
    /// The tools that the agent is granted. A tool that is not listed does not exist for it.
    #[serde(default)]
    pub tools: Vec<ToolName>,
    /// Tools whose every call a person must approve.
    #[serde(default)]
    pub require_approval: Vec<ToolName>,
    /// Who may decide besides the requester. Empty: only the requester.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<UserName>,
    /// Where its tools run.
    #[serde(default)]
    pub sandbox: SandboxDemand,
    /// Tools that run outside the sandbox, and therefore always ask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elevated: Vec<ToolName>,
    /// What its sandbox may reach.
    #[serde(default)]
    pub egress: Egress,
    /// Its limits; missing ones are the server's.
    #[serde(default)]
    pub limits: AgentLimits,
    /// Skills by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// What the model is told, Markdown.
    #[serde(default)]
    pub instructions: String,
}

/// Which sessions are sandboxed (seed 000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    /// None: tools run on the host. Only where the server's configuration allows it.
    Off,
    /// All but sessions that a person drives in the foreground.
    NonMain,
    /// Every session.
    #[default]
    All,
}

/// Who shares one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxScope {
    /// One a session.
    #[default]
    Session,
    /// One an agent; `viber` is seed 000's word for it.
    #[serde(alias = "viber")]
    Agent,
    /// One for all sandboxed sessions of the account.
    Shared,
}

/// What of the space's files a sandbox has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkspaceMode {
    /// Nothing: a workspace of its own, empty at first.
    None,
    /// The space's files, unchangeable.
    Ro,
    /// The space's files.
    #[default]
    Rw,
}

/// Which walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendChoice {
    /// The strongest that this host has and that keeps the agent's promises.
    #[default]
    Auto,
    /// The in-process shell.
    Virtual,
    /// Namespaces, Landlock, seccomp.
    Linux,
    /// A container engine.
    Container,
    /// No walls at all.
    Host,
}

impl BackendChoice {
    /// The word as written in a definition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Virtual => "virtual",
            Self::Linux => "linux",
            Self::Container => "container",
            Self::Host => "host",
        }
    }
}

/// The sandbox that an agent asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxDemand {
    /// Which sessions are sandboxed.
    pub mode: SandboxMode,
    /// Who shares one.
    pub scope: SandboxScope,
    /// What of the space's files is inside.
    pub workspace: WorkspaceMode,
    /// Which walls.
    pub backend: BackendChoice,
}

/// Limits of an agent. A value may only be lower than the server's ceiling; a higher one is cut to it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentLimits {
    /// Longest tool call, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_timeout_seconds: Option<u64>,
    /// How long an approval waits, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_timeout_seconds: Option<u64>,
    /// Memory of a sandbox, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// All files of the workspace that its tools write to, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Processes in a sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Cores, 1.0 is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Model calls in one turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Tokens of one session, in and out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_tokens: Option<u64>,
    /// Tokens that one answer may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u32>,
}

/// What is wrong with a definition, for the person who wrote it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DefinitionError {
    /// A tool is asked for approval or elevation that the agent does not have.
    #[error("{field} names the tool {tool}, which is not among the agent's tools: add it to tools, or remove it here")]
    NotGranted {
        /// The field that names it.
        field: &'static str,
        /// The tool.
        tool: ToolName,
    },
    /// A tool that does not exist.
    #[error("there is no tool named {0}: see the list of built-in tools")]
    UnknownTool(ToolName),
    /// A limit of zero, or one that is no number.
    #[error("limits.{0} must be more than zero")]
    Zero(&'static str),
}

impl AgentDefinition {
    /// Checks what the shape alone cannot: that every named tool exists and is granted, and limits
    /// are positive. `known` says whether a tool exists.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, known: impl Fn(&ToolName) -> bool) -> Result<(), DefinitionError> {
        if let Some(tool) = self.tools.iter().find(|tool| !known(tool)) {
            return Err(DefinitionError::UnknownTool(tool.clone()));
        }
        for (field, list) in [("require_approval", &self.require_approval), ("elevated", &self.elevated)] {
            if let Some(tool) = list.iter().find(|tool| !self.tools.contains(tool)) {
                return Err(DefinitionError::NotGranted { field, tool: tool.clone() });
            }
        }
        let l = &self.limits;
        let zero = [
            ("tool_timeout_seconds", l.tool_timeout_seconds == Some(0)),
            ("approval_timeout_seconds", l.approval_timeout_seconds == Some(0)),
            ("memory_mib", l.memory_mib == Some(0)),
            ("disk_mib", l.disk_mib == Some(0)),
            ("pids", l.pids == Some(0)),
            ("cpu", l.cpu.is_some_and(|cpu| !(cpu.is_finite() && cpu > 0.0))),
            ("steps", l.steps == Some(0)),
            ("session_tokens", l.session_tokens == Some(0)),
            ("output_tokens", l.output_tokens == Some(0)),
        ];
        match zero.iter().find(|(_, bad)| *bad) {
            Some((name, _)) => Err(DefinitionError::Zero(name)),
            None => Ok(()),
        }
    }
}
