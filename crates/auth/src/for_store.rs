//! The makers of facts, for crate `store` alone: what stands here turns rows into resources, tenants
//! and records. `xtask tidy` refuses any other crate that names this module.

use std::sync::Arc;

use bailiwick_types::host::HostName;
use bailiwick_types::notification::TargetKind;
use bailiwick_types::{
    AccountName, AgentName, ApprovalId, GrantLevel, Incarnation, JobId, LeaseTerm, SecretName, SessionId, SpaceId,
    TargetName, UsedBy, UserName,
};

use crate::access::policy::AccountPolicies;
use crate::access::verb::{CallTool, Verb};
use crate::access::{Approval, During, Job, Notification, Permit, Recorded, SecretUse, Session, Space, Unapproved};
use crate::principal::{Tenant, TenantFacts};

/// A tenant, from its row.
pub fn tenant(
    account: AccountName,
    incarnation: Incarnation,
    jail_user: u32,
    policies: Arc<AccountPolicies>,
) -> Tenant {
    Tenant(Arc::new(TenantFacts { account, incarnation, jail_user, policies }))
}

/// A space, from its rows, read under `tenant`.
pub fn space(tenant: &Tenant, id: SpaceId, owner: UserName, grants: Vec<(UserName, GrantLevel)>) -> Space {
    Space { tenant: tenant.clone(), id, owner, grants }
}

/// A session, from its row and its space.
pub fn session(space: Space, id: SessionId, agent: AgentName, initiator: UserName) -> Session {
    Session { space, id, agent, initiator }
}

/// A job, from its row and its space.
pub fn job(space: Space, id: JobId, agent: AgentName, initiator: UserName) -> Job {
    Job { id, session: session(space, id.as_session(), agent, initiator) }
}

/// An approval, from its row and its session.
pub fn approval(session: Session, id: ApprovalId, requester: UserName, approvers: Vec<UserName>) -> Approval {
    Approval { session, id, requester, approvers }
}

/// The use of a secret for a host, from its grants: the agents that were granted it for that host and that use, and
/// for how long the session's agent was.
pub fn secret_use(
    session: Session,
    secret: SecretName,
    host: HostName,
    (used_by, during): (UsedBy, During),
    granted: Vec<AgentName>,
    lease: LeaseTerm,
) -> SecretUse {
    SecretUse { session, secret, host, used_by, granted, lease, during }
}

/// A target of notifications, from its row.
pub fn notification(tenant: &Tenant, name: TargetName, kind: TargetKind, host: HostName) -> Notification {
    Notification { tenant: tenant.clone(), name, kind, host }
}

/// An act whose intent was written in a transaction of the store.
pub fn recorded<V: Verb>(permit: Permit<V>, intent: u64) -> Recorded<V> {
    Recorded::new(permit, intent)
}

/// A call whose approval was used up and whose intent was written, in one transaction of the store.
pub fn recorded_with_approval(call: Unapproved, intent: u64) -> Recorded<CallTool> {
    Recorded::approved(call.into_permit(), intent)
}
