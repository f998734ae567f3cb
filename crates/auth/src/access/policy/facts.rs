//! A question to the policy as plain facts: who, what, on which resource, and all that is known of them.
//!
//! The policy engine's answer depends on these facts and the policies alone. So two questions with the same
//! facts have the same answer, and the facts themselves are what an answer is remembered by.

use std::collections::HashSet;

use bailiwick_types::GrantLevel;
use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression};
use serde_json::{Map, Value};

use super::own::PoliciesId;
use super::{BASE, Base, Caller};
use crate::access::resource::{
    Account, Agent, Approval, Host, Job, Notification, Resource, Sandbox, SecretUse, Session, Space, ToolCall, User,
};
use crate::access::scope::Standing;
use crate::principal::{Bounds, Tenant};

/// A fact that could not be put into Cedar's form. Denied.
pub(super) struct Unreadable;

impl<E: std::error::Error> From<E> for Unreadable {
    fn from(_: E) -> Self {
        Self
    }
}

/// The kinds of things in the policy's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Host,
    Operator,
    Account,
    User,
    Agent,
    Space,
    Session,
    Job,
    Sandbox,
    Approval,
    ToolCall,
    SecretUse,
    Notification,
}

impl Kind {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Host, "Host"),
        (Self::Operator, "Operator"),
        (Self::Account, "Account"),
        (Self::User, "User"),
        (Self::Agent, "Agent"),
        (Self::Space, "Space"),
        (Self::Session, "Session"),
        (Self::Job, "Job"),
        (Self::Sandbox, "Sandbox"),
        (Self::Approval, "Approval"),
        (Self::ToolCall, "ToolCall"),
        (Self::SecretUse, "SecretUse"),
        (Self::Notification, "Notification"),
    ];

    /// The kind of that name.
    pub(super) fn named(name: &EntityTypeName) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|(_, known)| name.basename() == *known);
        known.map(|(kind, _)| kind)
    }
}

/// One of the two things that a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Of {
    Principal,
    Resource,
}

/// The kinds' names as Cedar has them; parsing one costs more than a decision.
pub(super) struct Types(Vec<(Kind, EntityTypeName)>);

impl Types {
    pub(super) fn read() -> Result<Self, String> {
        let parsed = Kind::ALL.into_iter().map(|(kind, name)| {
            name.parse::<EntityTypeName>().map(|name| (kind, name)).map_err(|error| error.to_string())
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    fn uid(&self, name: &Name) -> Result<EntityUid, Unreadable> {
        let (_, kind) = self.0.iter().find(|(kind, _)| *kind == name.kind).ok_or(Unreadable)?;
        Ok(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(&name.id)))
    }
}

/// A thing's name: unique in the house.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    kind: Kind,
    id: String,
}

impl Name {
    fn new(kind: Kind, id: impl ToString) -> Self {
        Self { kind, id: id.to_string() }
    }

    fn account(tenant: &Tenant) -> Self {
        Self::new(Kind::Account, tenant.incarnation())
    }

    /// Users of two accounts may have one name; never one key.
    fn user(tenant: &Tenant, name: &str) -> Self {
        Self::new(Kind::User, format_args!("{}/{name}", tenant.incarnation()))
    }
}

/// One fact.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Fact {
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Name(Name),
    Names(Vec<Name>),
    Record(Vec<(&'static str, String)>),
}

impl Fact {
    fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    fn cedar(&self, types: &Types) -> Result<RestrictedExpression, Unreadable> {
        let text = |text: &String| RestrictedExpression::new_string(text.clone());
        let uid = |name: &Name| types.uid(name).map(RestrictedExpression::new_entity_uid);
        Ok(match self {
            Self::Bool(value) => RestrictedExpression::new_bool(*value),
            Self::Text(value) => text(value),
            Self::Texts(values) => RestrictedExpression::new_set(values.iter().map(text)),
            Self::Name(name) => uid(name)?,
            Self::Names(names) => RestrictedExpression::new_set(names.iter().map(uid).collect::<Result<Vec<_>, _>>()?),
            Self::Record(pairs) => {
                let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), text(value)));
                RestrictedExpression::new_record(pairs)?
            }
        })
    }

    fn length(&self) -> usize {
        match self {
            Self::Bool(_) => 1,
            Self::Text(text) => text.len(),
            Self::Texts(texts) => texts.iter().map(String::len).sum(),
            Self::Name(name) => name.id.len(),
            Self::Names(names) => names.iter().map(|name| name.id.len()).sum(),
            Self::Record(pairs) => pairs.iter().map(|(name, value)| name.len() + value.len()).sum(),
        }
    }
}

type Attributes = Vec<(&'static str, Fact)>;

/// The things that a question speaks of, each with what is known of it.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts(Vec<(Name, Attributes)>);

/// A question: everything that the answer depends on, and nothing else.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    policies: PoliciesId,
    principal: Name,
    action: &'static str,
    resource: Name,
    facts: Facts,
    context: Attributes,
}

impl Question {
    /// What `caller` asks of `resource`, under the policies of that id. `arguments`: of a tool call.
    pub(super) fn new<R: Resource>(
        policies: PoliciesId,
        caller: &Caller<'_>,
        action: &'static str,
        resource: &R,
        arguments: Option<&Map<String, Value>>,
    ) -> Result<Self, Unreadable> {
        let mut facts = Facts::default();
        let principal = facts.principal(caller)?;
        let mut resource = resource.describe(&mut facts);
        if policies == PoliciesId::BASE {
            facts.forget_which(&mut resource);
        }
        let context = context(caller, arguments)?;
        Ok(Self { policies, principal, action, resource, facts, context })
    }

    /// The question in Cedar's form.
    pub(super) fn cedar(&self) -> Result<(Request, Entities), Unreadable> {
        let Base { types, actions, .. } = &*BASE;
        let action = actions.get(self.action).ok_or(Unreadable)?;
        let mut entities = action.entities.clone();
        for (name, attributes) in &self.facts.0 {
            let read = attributes.iter().map(|(name, fact)| Ok(((*name).to_owned(), fact.cedar(types)?)));
            let read = read.collect::<Result<_, Unreadable>>()?;
            entities.push(Entity::new(types.uid(name)?, read, HashSet::new())?);
        }
        let pairs = self.context.iter().map(|(name, fact)| Ok(((*name).to_owned(), fact.cedar(types)?)));
        let context = Context::from_pairs(pairs.collect::<Result<Vec<_>, Unreadable>>()?)?;
        let (principal, resource) = (types.uid(&self.principal)?, types.uid(&self.resource)?);
        let request = Request::new(principal, action.uid.clone(), resource, context, None)?;
        Ok((request, Entities::from_entities(entities, None)?))
    }

    pub(super) fn action(&self) -> &'static str {
        self.action
    }

    /// Of what kinds the principal and the resource are.
    pub(super) fn kinds(&self) -> (Kind, Kind) {
        (self.principal.kind, self.resource.kind)
    }

    /// What it says that policies often begin with.
    pub(super) fn known(&self) -> Known<'_> {
        let of = |named: &Name| self.facts.0.iter().find(|(name, _)| name == named).map(|(_, known)| &**known);
        let arguments = self.context.iter().find(|(name, _)| *name == "arguments").map(|(_, fact)| fact);
        let arguments = if let Some(Fact::Record(pairs)) = arguments { Some(&**pairs) } else { None };
        let arguments_json = text(&self.context, "arguments_json");
        Known { principal: of(&self.principal), resource: of(&self.resource), arguments, arguments_json }
    }

    /// How much memory it takes, bytes, roughly.
    pub(super) fn length(&self) -> usize {
        let attributes = |attributes: &Attributes| attributes.iter().map(|(_, fact)| 48 + fact.length()).sum::<usize>();
        let things = self.facts.0.iter().map(|(name, known)| 64 + name.id.len() + attributes(known)).sum::<usize>();
        256 + self.principal.id.len() + self.resource.id.len() + things + attributes(&self.context)
    }
}

/// What is known of the two things that a question is about, and of the call.
pub(super) struct Known<'a> {
    principal: Option<&'a [(&'static str, Fact)]>,
    resource: Option<&'a [(&'static str, Fact)]>,
    arguments: Option<&'a [(&'static str, String)]>,
    /// All arguments of a tool call, as canonical JSON.
    pub(super) arguments_json: Option<&'a str>,
}

impl<'a> Known<'a> {
    /// An attribute that is text.
    pub(super) fn text(&self, of: Of, attribute: &str) -> Option<&'a str> {
        let attributes = match of {
            Of::Principal => self.principal,
            Of::Resource => self.resource,
        };
        text(attributes?, attribute)
    }

    /// One of the text arguments of a tool call, if it has that; nothing where the question is about no call.
    #[expect(clippy::option_option, reason = "a call without the argument is not a question without a call")]
    pub(super) fn argument(&self, wanted: &str) -> Option<Option<&'a str>> {
        let pairs = self.arguments?;
        Some(pairs.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.as_str()))
    }
}

fn text<'a>(attributes: &'a [(&'static str, Fact)], wanted: &str) -> Option<&'a str> {
    match attributes.iter().find(|(name, _)| *name == wanted) {
        Some((_, Fact::Text(text))) => Some(text),
        _ => None,
    }
}

fn context(caller: &Caller<'_>, arguments: Option<&Map<String, Value>>) -> Result<Attributes, Unreadable> {
    let none = Bounds::none();
    let bounds = match caller.standing {
        Standing::User { bounds, .. } => bounds,
        Standing::Operator => &none,
    };
    let scopes = bounds.scopes.iter().map(|scope| scope.as_str().to_owned());
    let mut facts = vec![("scopes", Fact::Texts(scopes.collect())), ("limited", Fact::Bool(bounds.is_limited()))];
    if let Some(space) = bounds.space {
        facts.push(("bound_space", Fact::text(space)));
    }
    if let Some(agent) = &bounds.agent {
        facts.push(("bound_agent", Fact::text(agent)));
    }
    if let Some(arguments) = arguments {
        const KNOWN: [&str; 10] =
            ["command", "path", "pattern", "url", "content", "old", "new", "glob", "question", "message"];
        let texts = KNOWN.iter().filter_map(|name| Some((*name, arguments.get(*name)?.as_str()?.to_owned())));
        facts.push(("arguments", Fact::Record(texts.collect())));
        let canonical = bailiwick_audit::canonical(&Value::Object(arguments.clone()))?;
        facts.push(("arguments_json", Fact::text(String::from_utf8_lossy(&canonical))));
    }
    Ok(facts)
}

impl Facts {
    fn add(&mut self, name: Name, attributes: Attributes) -> Name {
        self.0.push((name.clone(), attributes));
        name
    }

    /// Takes the id off a session, a job, a sandbox, an approval or a call. The base policy names no single thing, and nothing
    /// refers to one of these, so which one it is decides nothing: what is known of it does.
    fn forget_which(&mut self, name: &mut Name) {
        if matches!(
            name.kind,
            Kind::Session | Kind::Job | Kind::Sandbox | Kind::Approval | Kind::ToolCall | Kind::SecretUse
        ) {
            self.0.iter_mut().filter(|(known, _)| known == name).for_each(|(known, _)| known.id.clear());
            name.id.clear();
        }
    }

    fn principal(&mut self, caller: &Caller<'_>) -> Result<Name, Unreadable> {
        match (caller.standing, caller.tenant) {
            (Standing::Operator, _) => Ok(self.add(Name::new(Kind::Operator, "operator"), Vec::new())),
            (Standing::User { user, role, .. }, Some(tenant)) => Ok(self.add(
                Name::user(tenant, user.as_str()),
                vec![("account", Fact::Name(Name::account(tenant))), ("role", Fact::text(role.as_str()))],
            )),
            (Standing::User { .. }, None) => Err(Unreadable),
        }
    }

    /// A session, or what is one to the policy.
    fn of_session(&mut self, name: Name, session: &Session) -> Name {
        let (space, tenant) = (self.space(&session.space), &session.space.tenant);
        self.add(
            name,
            vec![
                ("account", Fact::Name(Name::account(tenant))),
                ("space", Fact::Name(space)),
                ("agent", Fact::text(&session.agent)),
                ("initiator", Fact::Name(Name::user(tenant, session.initiator.as_str()))),
            ],
        )
    }

    fn space(&mut self, space: &Space) -> Name {
        let tenant = &space.tenant;
        let holders = |least| {
            let users = space.grants.iter().filter(|(_, level)| *level >= least);
            Fact::Names(users.map(|(name, _)| Name::user(tenant, name.as_str())).collect())
        };
        self.add(
            Name::new(Kind::Space, space.id),
            vec![
                ("account", Fact::Name(Name::account(tenant))),
                ("key", Fact::text(space.id)),
                ("owner", Fact::Name(Name::user(tenant, space.owner.as_str()))),
                ("readers", holders(GrantLevel::Read)),
                ("writers", holders(GrantLevel::Write)),
                ("managers", holders(GrantLevel::Manage)),
            ],
        )
    }
}

/// A resource as the policy sees it. Sealed: this module is not reachable from outside.
pub trait Describe {
    /// Adds the resource and what it refers to, and names it.
    fn describe(&self, facts: &mut Facts) -> Name;
}

impl Describe for Host {
    fn describe(&self, facts: &mut Facts) -> Name {
        facts.add(Name::new(Kind::Host, "this"), Vec::new())
    }
}

impl Describe for Account {
    fn describe(&self, facts: &mut Facts) -> Name {
        facts.add(Name::account(&self.tenant), Vec::new())
    }
}

impl Describe for User {
    fn describe(&self, facts: &mut Facts) -> Name {
        let name = Name::user(&self.tenant, self.name.as_str());
        // A caller who acts on themselves is already there, with their role.
        if facts.0.iter().any(|(known, _)| *known == name) {
            return name;
        }
        // The role of the user acted upon decides nothing, so the least is said of them.
        let account = Fact::Name(Name::account(&self.tenant));
        facts.add(name, vec![("account", account), ("role", Fact::text("viewer"))])
    }
}

impl Describe for Agent {
    fn describe(&self, facts: &mut Facts) -> Name {
        let id = format_args!("{}/{}", self.tenant.incarnation(), self.name);
        facts.add(
            Name::new(Kind::Agent, id),
            vec![("account", Fact::Name(Name::account(&self.tenant))), ("key", Fact::text(&self.name))],
        )
    }
}

impl Describe for Space {
    fn describe(&self, facts: &mut Facts) -> Name {
        facts.space(self)
    }
}

impl Describe for Session {
    fn describe(&self, facts: &mut Facts) -> Name {
        facts.of_session(Name::new(Kind::Session, self.id), self)
    }
}

impl Describe for Job {
    fn describe(&self, facts: &mut Facts) -> Name {
        facts.of_session(Name::new(Kind::Job, self.id), &self.session)
    }
}

impl Describe for Sandbox {
    fn describe(&self, facts: &mut Facts) -> Name {
        facts.of_session(Name::new(Kind::Sandbox, self.id), &self.session)
    }
}

impl Describe for Approval {
    fn describe(&self, facts: &mut Facts) -> Name {
        let session = &self.session;
        let (space, tenant) = (facts.space(&session.space), &session.space.tenant);
        let approvers = self.approvers.iter().map(|name| Name::user(tenant, name.as_str()));
        facts.add(
            Name::new(Kind::Approval, self.id),
            vec![
                ("account", Fact::Name(Name::account(tenant))),
                ("space", Fact::Name(space)),
                ("agent", Fact::text(&session.agent)),
                ("requester", Fact::Name(Name::user(tenant, self.requester.as_str()))),
                ("approvers", Fact::Names(approvers.collect())),
            ],
        )
    }
}

impl Describe for ToolCall {
    fn describe(&self, facts: &mut Facts) -> Name {
        let session = &self.session;
        let (space, tenant) = (facts.space(&session.space), &session.space.tenant);
        facts.add(
            Name::new(Kind::ToolCall, self.id),
            vec![
                ("account", Fact::Name(Name::account(tenant))),
                ("space", Fact::Name(space)),
                ("agent", Fact::text(&session.agent)),
                ("initiator", Fact::Name(Name::user(tenant, session.initiator.as_str()))),
                ("tool", Fact::text(&self.tool)),
                ("granted", Fact::Texts(self.granted.iter().map(ToString::to_string).collect())),
            ],
        )
    }
}

impl Describe for SecretUse {
    fn describe(&self, facts: &mut Facts) -> Name {
        let session = &self.session;
        let (space, tenant) = (facts.space(&session.space), &session.space.tenant);
        let id = format_args!("{}/{}/{}/{}", session.id, self.secret, self.host, self.used_by);
        facts.add(
            Name::new(Kind::SecretUse, id),
            vec![
                ("account", Fact::Name(Name::account(tenant))),
                ("space", Fact::Name(space)),
                ("agent", Fact::text(&session.agent)),
                ("initiator", Fact::Name(Name::user(tenant, session.initiator.as_str()))),
                ("secret", Fact::text(&self.secret)),
                ("host", Fact::text(&self.host)),
                ("used_by", Fact::text(self.used_by.as_str())),
                ("lease", Fact::text(self.lease.as_str())),
                ("during", Fact::text(self.during.as_str())),
                ("granted", Fact::Texts(self.granted.iter().map(ToString::to_string).collect())),
            ],
        )
    }
}

impl Describe for Notification {
    fn describe(&self, facts: &mut Facts) -> Name {
        facts.add(
            Name::new(Kind::Notification, &self.name),
            vec![
                ("account", Fact::Name(Name::account(&self.tenant))),
                ("name", Fact::text(&self.name)),
                ("kind", Fact::text(self.kind.as_str())),
                ("host", Fact::text(&self.host)),
            ],
        )
    }
}
