//! A caller in a tenant in a request; the permits that come of it; and refusals.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use bailiwick_audit::event::UNTOLD;
use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_types::{RequestId, Role, UserName};
use serde_json::{Map, Value, json};

use super::policy::{self, Caller, Decision};
use super::resource::{Account, Host, Resource, User};
use super::verb::Verb;
use crate::principal::{Bounds, Credential, HostScope, Tenant};

/// As what the caller acts in the tenant.
#[derive(Clone)]
pub(crate) enum Standing {
    Operator,
    User { user: UserName, role: Role, bounds: Bounds },
}

/// A caller in a tenant in a request. Every read of tenant data takes one; by itself it permits nothing.
#[derive(Clone)]
pub struct Scope(Arc<ScopeFacts>);

struct ScopeFacts {
    tenant: Tenant,
    standing: Standing,
    actor: Actor,
    credential: Credential,
    address: IpAddr,
    request: RequestId,
}

impl Scope {
    pub(crate) fn new(
        tenant: Tenant,
        standing: Standing,
        actor: Actor,
        credential: Credential,
        address: IpAddr,
        request: RequestId,
    ) -> Self {
        Self(Arc::new(ScopeFacts { tenant, standing, actor, credential, address, request }))
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// The user whose rights are used; the operator without tenant headers has none.
    pub fn user(&self) -> Option<&UserName> {
        match &self.0.standing {
            Standing::User { user, .. } => Some(user),
            Standing::Operator => None,
        }
    }

    /// The user's role.
    pub fn role(&self) -> Option<Role> {
        match &self.0.standing {
            Standing::User { role, .. } => Some(*role),
            Standing::Operator => None,
        }
    }

    /// What the credential allows.
    pub fn bounds(&self) -> Bounds {
        match &self.0.standing {
            Standing::User { bounds, .. } => bounds.clone(),
            Standing::Operator => Bounds::none(),
        }
    }

    /// Who, as the record shows it.
    pub fn actor(&self) -> &Actor {
        &self.0.actor
    }

    /// By which credential.
    pub fn credential(&self) -> &Credential {
        &self.0.credential
    }

    /// From where.
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// In which request.
    pub fn request(&self) -> RequestId {
        self.0.request
    }

    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { tenant: Some(&self.0.tenant), standing: &self.0.standing }
    }

    pub(crate) fn decide<R: Resource>(
        &self,
        verb: &'static str,
        resource: &R,
        arguments: Option<&Map<String, Value>>,
    ) -> Decision {
        policy::decide(&self.caller(), verb, resource, arguments)
    }

    /// The tenant as a resource.
    pub fn account(&self) -> Account {
        Account { tenant: self.tenant().clone() }
    }

    /// A user of this tenant as a resource, whether or not there is one of that name.
    pub fn user_named(&self, name: UserName) -> User {
        User { tenant: self.tenant().clone(), name }
    }

    /// An agent of this tenant as a resource, whether or not there is one of that name.
    pub fn agent_named(&self, name: bailiwick_types::AgentName) -> super::Agent {
        super::Agent { tenant: self.tenant().clone(), name }
    }

    /// A job of the caller's that is not there yet, in a space of this tenant. `None` for the operator without
    /// tenant headers, who is nobody's user.
    pub fn new_job(&self, space: super::Space, agent: bailiwick_types::AgentName) -> Option<super::Job> {
        let (id, initiator) = (bailiwick_types::JobId::new(), self.user()?.clone());
        Some(super::Job { id, session: super::Session { space, id: id.as_session(), agent, initiator } })
    }

    /// Asks the policy. The permit is for this verb on this resource, once.
    ///
    /// # Errors
    /// A refusal, which says whether the caller may know that the thing exists.
    pub fn authorize<V: Verb>(&self, resource: V::Resource) -> Result<Permit<V>, Refusal> {
        match self.decide(V::NAME, &resource, None) {
            Decision::Allow => Ok(Permit { scope: self.clone(), resource, verb: PhantomData }),
            // Only tool calls can be answered by asking; for anything else, not allowed is not allowed.
            Decision::Ask(code) | Decision::Deny(code) => Err(self.refuse::<V::Resource>(V::NAME, &resource, code)),
        }
    }

    /// Whether the policy would permit it; for lists that show only what one may see.
    pub fn may<V: Verb>(&self, resource: &V::Resource) -> bool {
        self.decide(V::NAME, resource, None) == Decision::Allow
    }

    pub(crate) fn permit<V: Verb>(&self, resource: V::Resource) -> Permit<V> {
        Permit { scope: self.clone(), resource, verb: PhantomData }
    }

    pub(crate) fn refuse<R: Resource>(&self, verb: &'static str, resource: &R, code: &'static str) -> Refusal {
        let hidden = code == "not_found"
            || R::SEEN_BY.is_some_and(|see| see == verb || self.decide(see, resource, None) != Decision::Allow);
        let mut draft = self.draft(verb, resource, Phase::Act, Verdict::Denied);
        draft.detail.insert("code".to_owned(), json!(code));
        if hidden {
            draft.detail.insert(UNTOLD.to_owned(), json!(true));
        }
        let kind = if hidden { RefusalKind::NotFound } else { RefusalKind::Forbidden(code) };
        Refusal { kind, verb, draft: Box::new(draft) }
    }

    /// The record's line for an act of this caller.
    pub fn draft<R: Resource>(&self, action: &str, resource: &R, phase: Phase, verdict: Verdict) -> Draft {
        Draft {
            actor: self.0.actor.clone(),
            credential: self.0.credential.to_text(),
            address: self.0.address.to_string(),
            request: Some(self.0.request),
            action: action.to_owned(),
            resource: resource.label(),
            space: resource.space_id(),
            agent: resource.agent_name().cloned(),
            phase,
            verdict,
            intent: None,
            detail: Map::new(),
        }
    }
}

impl HostScope {
    /// Asks the policy about an act on the whole host.
    ///
    /// # Errors
    /// A refusal.
    pub fn authorize<V: Verb<Resource = Host>>(&self) -> Result<HostPermit<V>, Refusal> {
        let standing = match &self.member {
            None => Standing::Operator,
            Some(m) => Standing::User { user: m.user.clone(), role: m.role, bounds: m.bounds.clone() },
        };
        let caller = Caller { tenant: self.member.as_ref().map(|m| &m.tenant), standing: &standing };
        match policy::decide(&caller, V::NAME, &Host, None) {
            Decision::Allow => Ok(HostPermit { scope: self.clone(), verb: PhantomData }),
            Decision::Ask(code) | Decision::Deny(code) => {
                let mut draft = self.draft(V::NAME, "host:this".to_owned(), Verdict::Denied);
                draft.detail.insert("code".to_owned(), json!(code));
                Err(Refusal { kind: RefusalKind::Forbidden(code), verb: V::NAME, draft: Box::new(draft) })
            }
        }
    }

    /// The record's line for an act of this caller on the host.
    pub fn draft(&self, action: &str, resource: String, verdict: Verdict) -> Draft {
        Draft {
            actor: self.actor.clone(),
            credential: self.credential.to_text(),
            address: self.address.to_string(),
            request: Some(self.request),
            action: action.to_owned(),
            resource,
            space: None,
            agent: None,
            phase: Phase::Act,
            verdict,
            intent: None,
            detail: Map::new(),
        }
    }
}

/// Permission for one act on the whole host. Spent by value, like [`Permit`].
#[must_use = "a permit that is not spent permits nothing"]
pub struct HostPermit<V: Verb<Resource = Host>> {
    scope: HostScope,
    verb: PhantomData<fn() -> V>,
}

impl<V: Verb<Resource = Host>> HostPermit<V> {
    /// For whom.
    pub fn scope(&self) -> &HostScope {
        &self.scope
    }

    /// The record's line for this act on the named thing (`account:acme`).
    pub fn draft(&self, resource: String, verdict: Verdict, detail: Map<String, Value>) -> Draft {
        Draft { detail, ..self.scope.draft(V::NAME, resource, verdict) }
    }
}

/// Permission for one verb on one resource. Not `Clone`, not `Serialize`; the act takes it by value.
#[must_use = "a permit that is not spent permits nothing"]
pub struct Permit<V: Verb> {
    scope: Scope,
    resource: V::Resource,
    verb: PhantomData<fn() -> V>,
}

impl<V: Verb> Permit<V> {
    /// On what.
    pub fn resource(&self) -> &V::Resource {
        &self.resource
    }

    /// For whom.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// In which tenant.
    pub fn tenant(&self) -> &Tenant {
        self.scope.tenant()
    }

    /// The record's line for this act.
    pub fn draft(&self, phase: Phase, verdict: Verdict, detail: Map<String, Value>) -> Draft {
        Draft { detail, ..self.scope.draft(V::NAME, &self.resource, phase, verdict) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RefusalKind {
    NotFound,
    Forbidden(&'static str),
}

/// The policy said no.
#[derive(Debug)]
pub struct Refusal {
    kind: RefusalKind,
    verb: &'static str,
    draft: Box<Draft>,
}

impl Refusal {
    /// The reason code for the caller; `None` if for this caller the thing does not exist.
    pub fn code(&self) -> Option<&'static str> {
        match self.kind {
            RefusalKind::NotFound => None,
            RefusalKind::Forbidden(code) => Some(code),
        }
    }

    /// What to tell the caller about the code.
    pub fn message(&self) -> &'static str {
        match self.kind {
            RefusalKind::NotFound => "Not found.",
            RefusalKind::Forbidden(code) => match code {
                "viewer_readonly" => "Your role is viewer: you can read, but not change anything.",
                "admin_only" => "Requires role: admin",
                "operator_only" => "Requires role: root",
                "key_scope" => "This key does not allow that: use a key with a wider scope.",
                "tool_not_granted" => "The agent was not granted this tool.",
                "secret_not_granted" => "The agent was not granted this secret for this host.",
                "no_call_running" => "The agent has this secret during its calls only, and none is running.",
                "call_not_approved" => "The agent has this secret during calls only that a person approved.",
                "account_policy" => "A policy of your account forbids this.",
                _ => "You do not have the right to do this.",
            },
        }
    }

    /// Which verb was refused.
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// The record's line for the refusal.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Refusal {}
