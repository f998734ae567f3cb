//! What verbs act on, as the policy sees it. Every fact here was read from the store under one
//! tenant; the fields are private, and the makers stand in `for_store`.

use bailiwick_types::host::HostName;
use bailiwick_types::notification::TargetKind;
use bailiwick_types::{
    AgentName, ApprovalId, CallId, GrantLevel, JobId, LeaseTerm, SandboxId, SecretName, SessionId, SpaceId, TargetName,
    ToolName, UsedBy, UserName,
};
use serde_json::Value;

use crate::principal::Tenant;

/// Something that verbs act on.
pub trait Resource: super::policy::Describe + Clone + Send + Sync + 'static {
    /// Its kind in the policy's schema.
    const KIND: &'static str;
    /// The verb without which the thing does not exist for a caller; `None` where existence is no secret.
    const SEEN_BY: Option<&'static str>;
    /// The tenant under which it was read; the host has none.
    fn tenant(&self) -> Option<&Tenant>;
    /// As the record names it: `kind:id`.
    fn label(&self) -> String;
    /// The space that it is in.
    fn space_id(&self) -> Option<SpaceId> {
        None
    }
    /// The agent that it is of.
    fn agent_name(&self) -> Option<&AgentName> {
        None
    }
}

/// The whole host.
#[derive(Clone)]
pub struct Host;

impl Resource for Host {
    const KIND: &'static str = "Host";
    const SEEN_BY: Option<&'static str> = None;
    fn tenant(&self) -> Option<&Tenant> {
        None
    }
    fn label(&self) -> String {
        "host:this".to_owned()
    }
}

/// The tenant itself.
#[derive(Clone)]
pub struct Account {
    pub(crate) tenant: Tenant,
}

impl Resource for Account {
    const KIND: &'static str = "Account";
    const SEEN_BY: Option<&'static str> = None;
    fn tenant(&self) -> Option<&Tenant> {
        Some(&self.tenant)
    }
    fn label(&self) -> String {
        format!("account:{}", self.tenant.account())
    }
}

/// A user of the tenant. Named by the caller, so it need not exist.
#[derive(Clone)]
pub struct User {
    pub(crate) tenant: Tenant,
    pub(crate) name: UserName,
}

impl User {
    /// The user's name.
    pub fn name(&self) -> &UserName {
        &self.name
    }
}

impl Resource for User {
    const KIND: &'static str = "User";
    const SEEN_BY: Option<&'static str> = None;
    fn tenant(&self) -> Option<&Tenant> {
        Some(&self.tenant)
    }
    fn label(&self) -> String {
        format!("user:{}", self.name)
    }
}

/// An agent of the tenant. Named by the caller, so it need not exist.
#[derive(Clone)]
pub struct Agent {
    pub(crate) tenant: Tenant,
    pub(crate) name: AgentName,
}

impl Agent {
    /// The agent's name.
    pub fn name(&self) -> &AgentName {
        &self.name
    }
}

impl Resource for Agent {
    const KIND: &'static str = "Agent";
    const SEEN_BY: Option<&'static str> = Some("agent.read");
    fn tenant(&self) -> Option<&Tenant> {
        Some(&self.tenant)
    }
    fn label(&self) -> String {
        format!("agent:{}", self.name)
    }
    fn agent_name(&self) -> Option<&AgentName> {
        Some(&self.name)
    }
}

/// A space, with who owns it and who has grants.
#[derive(Clone)]
pub struct Space {
    pub(crate) tenant: Tenant,
    pub(crate) id: SpaceId,
    pub(crate) owner: UserName,
    pub(crate) grants: Vec<(UserName, GrantLevel)>,
}

impl Space {
    /// The space's id.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// Who owns it.
    pub fn owner(&self) -> &UserName {
        &self.owner
    }
}

impl Resource for Space {
    const KIND: &'static str = "Space";
    const SEEN_BY: Option<&'static str> = Some("space.see");
    fn tenant(&self) -> Option<&Tenant> {
        Some(&self.tenant)
    }
    fn label(&self) -> String {
        format!("space:{}", self.id)
    }
    fn space_id(&self) -> Option<SpaceId> {
        Some(self.id)
    }
}

/// A session, with the space that it is in.
#[derive(Clone)]
pub struct Session {
    pub(crate) space: Space,
    pub(crate) id: SessionId,
    pub(crate) agent: AgentName,
    pub(crate) initiator: UserName,
}

impl Session {
    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Its space.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Its agent.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// Who began it.
    pub fn initiator(&self) -> &UserName {
        &self.initiator
    }
}

impl Resource for Session {
    const KIND: &'static str = "Session";
    const SEEN_BY: Option<&'static str> = Some("session.read");
    fn tenant(&self) -> Option<&Tenant> {
        self.space.tenant()
    }
    fn label(&self) -> String {
        format!("session:{}", self.id)
    }
    fn space_id(&self) -> Option<SpaceId> {
        Some(self.space.id)
    }
    fn agent_name(&self) -> Option<&AgentName> {
        Some(&self.agent)
    }
}

/// A job, with the session that it is to its sandbox: one of the same number, and of no conversation.
#[derive(Clone)]
pub struct Job {
    pub(crate) id: JobId,
    pub(crate) session: Session,
}

impl Job {
    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// What it is to its sandbox.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Its space.
    pub fn space(&self) -> &Space {
        &self.session.space
    }

    /// Its agent.
    pub fn agent(&self) -> &AgentName {
        &self.session.agent
    }
}

impl Resource for Job {
    const KIND: &'static str = "Job";
    const SEEN_BY: Option<&'static str> = Some("job.read");
    fn tenant(&self) -> Option<&Tenant> {
        self.session.tenant()
    }
    fn label(&self) -> String {
        format!("job:{}", self.id)
    }
    fn space_id(&self) -> Option<SpaceId> {
        self.session.space_id()
    }
    fn agent_name(&self) -> Option<&AgentName> {
        self.session.agent_name()
    }
}

/// A running sandbox, with the session that entered it last.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) session: Session,
}

impl Sandbox {
    /// The sandbox that a session entered last, with what its space is now. `None` if that is another space.
    pub fn entered_by(session: &Session, space: Space, id: SandboxId) -> Option<Self> {
        let same = space.id == session.space.id && space.tenant == session.space.tenant;
        same.then(|| Self { id, session: Session { space, ..session.clone() } })
    }

    /// The sandbox's id.
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// Its space.
    pub fn space(&self) -> &Space {
        &self.session.space
    }
}

impl Resource for Sandbox {
    const KIND: &'static str = "Sandbox";
    const SEEN_BY: Option<&'static str> = Some("sandbox.see");
    fn tenant(&self) -> Option<&Tenant> {
        self.session.tenant()
    }
    fn label(&self) -> String {
        format!("sandbox:{}", self.id)
    }
    fn space_id(&self) -> Option<SpaceId> {
        self.session.space_id()
    }
    fn agent_name(&self) -> Option<&AgentName> {
        self.session.agent_name()
    }
}

/// A decision that is asked of a person.
#[derive(Clone)]
pub struct Approval {
    pub(crate) session: Session,
    pub(crate) id: ApprovalId,
    pub(crate) requester: UserName,
    pub(crate) approvers: Vec<UserName>,
}

impl Approval {
    /// The approval's id.
    pub fn id(&self) -> ApprovalId {
        self.id
    }

    /// The session that waits for it.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl Resource for Approval {
    const KIND: &'static str = "Approval";
    const SEEN_BY: Option<&'static str> = Some("approval.read");
    fn tenant(&self) -> Option<&Tenant> {
        self.session.tenant()
    }
    fn label(&self) -> String {
        format!("approval:{}", self.id)
    }
    fn space_id(&self) -> Option<SpaceId> {
        self.session.space_id()
    }
    fn agent_name(&self) -> Option<&AgentName> {
        self.session.agent_name()
    }
}

/// One call of one tool with one set of arguments, and what the agent was granted.
#[derive(Clone)]
pub struct ToolCall {
    pub(crate) session: Session,
    pub(crate) id: CallId,
    pub(crate) tool: ToolName,
    pub(crate) arguments: Value,
    pub(crate) granted: Vec<ToolName>,
    pub(crate) asks: Asks,
}

/// Whether the agent's definition itself asks for a person's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// It does not.
    No,
    /// The tool is under `require_approval`.
    Required,
    /// The tool is under `elevated`: it runs outside the sandbox.
    Elevated,
}

impl ToolCall {
    /// A call that a model asked for in `session`. The session's facts come from the store; the rest
    /// is what is asked, and is what the policy judges.
    pub fn asked(
        session: Session,
        id: CallId,
        tool: ToolName,
        arguments: Value,
        granted: Vec<ToolName>,
        asks: Asks,
    ) -> Self {
        Self { session, id, tool, arguments, granted, asks }
    }

    /// The session in which it was asked for.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The call's id.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Which tool.
    pub fn tool(&self) -> &ToolName {
        &self.tool
    }

    /// With which arguments.
    pub fn arguments(&self) -> &Value {
        &self.arguments
    }
}

impl Resource for ToolCall {
    const KIND: &'static str = "ToolCall";
    const SEEN_BY: Option<&'static str> = None;
    fn tenant(&self) -> Option<&Tenant> {
        self.session.tenant()
    }
    fn label(&self) -> String {
        format!("tool:{}", self.tool)
    }
    fn space_id(&self) -> Option<SpaceId> {
        self.session.space_id()
    }
    fn agent_name(&self) -> Option<&AgentName> {
        self.session.agent_name()
    }
}

/// What runs in a sandbox at the moment when a secret is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum During {
    /// Nothing of the session on whose behalf it is: what asks was left behind, or is somebody else's as well. Nor
    /// does a call of a model run in one.
    Nothing,
    /// Calls or a job.
    Call,
    /// Calls that a person approved, each of them, and nothing else.
    ApprovedCall,
}

impl During {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Call => "call",
            Self::ApprovedCall => "approved_call",
        }
    }
}

/// The use of one secret, on behalf of one session, for one host.
#[derive(Clone)]
pub struct SecretUse {
    pub(crate) session: Session,
    pub(crate) secret: SecretName,
    pub(crate) host: HostName,
    pub(crate) used_by: UsedBy,
    /// The agents that were granted it for this host and this use.
    pub(crate) granted: Vec<AgentName>,
    /// For how long, by the most specific grant of the session's agent.
    pub(crate) lease: LeaseTerm,
    pub(crate) during: During,
}

impl SecretUse {
    /// The secret's name.
    pub fn secret(&self) -> &SecretName {
        &self.secret
    }

    /// The host that gets it.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Whether the session's sandbox asks, or the server for its model.
    pub fn used_by(&self) -> UsedBy {
        self.used_by
    }

    /// The session on whose behalf it is asked for.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// For how long it is released.
    pub fn lease(&self) -> LeaseTerm {
        self.lease
    }
}

impl Resource for SecretUse {
    const KIND: &'static str = "SecretUse";
    const SEEN_BY: Option<&'static str> = None;
    fn tenant(&self) -> Option<&Tenant> {
        self.session.tenant()
    }
    fn label(&self) -> String {
        format!("secret:{}", self.secret)
    }
    fn space_id(&self) -> Option<SpaceId> {
        self.session.space_id()
    }
    fn agent_name(&self) -> Option<&AgentName> {
        self.session.agent_name()
    }
}

/// A target of notifications.
#[derive(Clone)]
pub struct Notification {
    pub(crate) tenant: Tenant,
    pub(crate) name: TargetName,
    pub(crate) kind: TargetKind,
    pub(crate) host: HostName,
}

impl Notification {
    /// Its name.
    pub fn name(&self) -> &TargetName {
        &self.name
    }

    /// The service.
    pub fn kind(&self) -> TargetKind {
        self.kind
    }

    /// The host that is called.
    pub fn host(&self) -> &HostName {
        &self.host
    }
}

impl Resource for Notification {
    const KIND: &'static str = "Notification";
    const SEEN_BY: Option<&'static str> = None;
    fn tenant(&self) -> Option<&Tenant> {
        Some(&self.tenant)
    }
    fn label(&self) -> String {
        format!("notification:{}", self.name)
    }
}
