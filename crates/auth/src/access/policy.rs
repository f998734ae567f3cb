//! The policy engine: the house's base policy in Cedar, and what an account adds to it.
//!
//! Default deny; a forbid wins; an error while a policy is evaluated is a denial, because a forbid
//! that cannot be read must not be a forbid that is skipped. An account's policies may only forbid, or
//! turn a tool call into a question (`@approval("required")`); they can never permit.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use cedar_policy::{
    Authorizer, Context, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet,
    Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use serde_json::{Map, Value};

use super::resource::{Account, Agent, Approval, Host, Resource, Session, Space, ToolCall, User};
use super::scope::Standing;
use crate::principal::{Bounds, Tenant};

/// The policy's answer. Ordered: of two answers the larger holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// Permitted.
    Allow,
    /// Permitted if a person says so; why a person is asked.
    Ask(&'static str),
    /// Refused, with the reason code.
    Deny(&'static str),
}

/// What is wrong with an account's policies.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not Cedar.
    #[error("the policy cannot be read: {0}")]
    Syntax(String),
    /// A permit, which an account may not write.
    #[error("policy {0} is a permit: an account's policies may only forbid")]
    Permits(String),
    /// Does not fit the schema.
    #[error("the policy does not fit the schema: {0}")]
    Schema(String),
    /// A template, which would need a link.
    #[error("templates are not supported: write the policy out")]
    Template,
    /// Longer than allowed.
    #[error("too long: at most {0} bytes")]
    TooLong(usize),
    /// More nested, chained or long-worded than a policy needs to be.
    #[error("too complex: {0}")]
    TooComplex(&'static str),
    /// The checker did not come back.
    #[error("the policy could not be checked")]
    Unchecked,
}

/// Longest text of an account's policies, bytes.
const LONGEST_POLICY: usize = 32 * 1024;
/// Brackets inside brackets.
const DEEPEST: usize = 12;
/// Operators and branches of one policy.
const OPERATORS: usize = 150;
/// Longest text in quotes, bytes: a pattern costs its length times that of what it is held against.
const LONGEST_WORD: usize = 512;
/// The policy engine recurses; this is more stack than a policy within the bounds above can use.
const CHECKER_STACK: usize = 64 * 1024 * 1024;
/// Text of a call's arguments that an account's policies look through. A call with more asks.
const LONGEST_ARGUMENTS: usize = 64 * 1024;

/// Refuses what would cost the engine more than a policy is worth. The engine's parser and evaluator
/// recurse on the caller's stack, and a stack that overflows ends the server for everybody.
fn bounded(text: &str) -> Result<(), PolicyError> {
    if text.len() > LONGEST_POLICY {
        return Err(PolicyError::TooLong(LONGEST_POLICY));
    }
    let (mut depth, mut operators, mut word) = (0usize, 0usize, None::<usize>);
    let mut letters = text.bytes().peekable();
    let mut previous = b' ';
    while let Some(letter) = letters.next() {
        if let Some(length) = &mut word {
            *length += 1;
            match letter {
                b'\\' => drop(letters.next()),
                b'"' => word = None,
                _ if *length > LONGEST_WORD => return Err(PolicyError::TooComplex("a text in quotes is too long")),
                _ => {}
            }
            continue;
        }
        match letter {
            b'"' => word = Some(0),
            b'/' if letters.peek() == Some(&b'/') => while letters.next_if(|next| *next != b'\n').is_some() {},
            b'(' | b'[' | b'{' => {
                depth += 1;
                operators += 1;
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'!' | b'.' | b'<' | b'>' | b'=' | b'&' | b'|' => operators += 1,
            b';' => operators = 0,
            // A word of the language begins: `if`, `like`, `in`, `has`, `is` nest as operators do.
            b'a'..=b'z' if !previous.is_ascii_alphanumeric() => operators += 1,
            _ => {}
        }
        previous = letter;
        if depth > DEEPEST {
            return Err(PolicyError::TooComplex("brackets are nested too deep"));
        }
        if operators > OPERATORS {
            return Err(PolicyError::TooComplex("one policy has too many operators: write several"));
        }
    }
    Ok(())
}

/// What an account adds to the base policy: forbids and demands for approval.
pub struct AccountPolicies {
    set: PolicySet,
    own: Own,
}

impl AccountPolicies {
    /// Nothing beyond the base policy.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<AccountPolicies>> =
            LazyLock::new(|| Arc::new(AccountPolicies { set: BASE.policies.clone(), own: Own::None }));
        Arc::clone(&NONE)
    }

    /// Reads and checks an account's policies.
    ///
    /// # Errors
    /// What is wrong, for the admin who wrote them.
    pub fn parse(text: &str) -> Result<Arc<Self>, PolicyError> {
        bounded(text)?;
        let text = text.to_owned();
        let checker = std::thread::Builder::new().name("policy".to_owned()).stack_size(CHECKER_STACK);
        let checked = checker.spawn(move || Self::check(&text)).map_err(|_| PolicyError::Unchecked)?;
        checked.join().map_err(|_| PolicyError::Unchecked)?
    }

    fn check(text: &str) -> Result<Arc<Self>, PolicyError> {
        let own: PolicySet = text.parse().map_err(|error| PolicyError::Syntax(format!("{error}")))?;
        if own.templates().next().is_some() {
            return Err(PolicyError::Template);
        }
        if let Some(permit) = own.policies().find(|policy| policy.effect() == Effect::Permit) {
            return Err(PolicyError::Permits(permit.annotation("id").unwrap_or("without @id").to_owned()));
        }
        let checked = Validator::new(BASE.schema.clone()).validate(&own, ValidationMode::Strict);
        if let Some(error) = checked.validation_errors().next() {
            return Err(PolicyError::Schema(error.to_string()));
        }
        let mut set = BASE.policies.clone();
        for (n, policy) in own.policies().enumerate() {
            // Renamed, so that no account's policy can stand in the place of one of the base.
            let renamed = policy.new_id(PolicyId::new(format!("account:{n}")));
            set.add(renamed).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        }
        Ok(Arc::new(Self { set, own: Own::Some }))
    }
}

/// Whether an account has policies of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    Some,
    None,
}

struct Base {
    schema: Schema,
    policies: PolicySet,
    codes: HashMap<PolicyId, &'static str>,
    actions: HashMap<String, Vec<Entity>>,
    types: Types,
}

/// Parsed once; parsing a name costs more than a decision.
struct Types {
    host: EntityTypeName,
    operator: EntityTypeName,
    account: EntityTypeName,
    user: EntityTypeName,
    agent: EntityTypeName,
    space: EntityTypeName,
    session: EntityTypeName,
    approval: EntityTypeName,
    tool_call: EntityTypeName,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "compiled in; the test `the_base_policy_fits_its_schema` reads it")]
    Base::read(include_str!("../../policy/base.cedarschema"), include_str!("../../policy/base.cedar"))
        .expect("the base policy that is compiled in can be read")
});

impl Base {
    fn read(schema: &str, policies: &'static str) -> Result<Self, String> {
        let (schema, _) = Schema::from_cedarschema_str(schema).map_err(|error| error.to_string())?;
        let parsed: PolicySet = policies.parse().map_err(|error| format!("{error}"))?;
        let mut set = PolicySet::new();
        let mut codes = HashMap::new();
        for policy in parsed.policies() {
            let id = PolicyId::new(policy.annotation("id").ok_or("a base policy without @id")?);
            if let Some(code) = code_of(policy) {
                codes.insert(id.clone(), code);
            } else if policy.effect() == Effect::Forbid {
                return Err(format!("the forbid {id} has no known @code"));
            }
            set.add(policy.new_id(id)).map_err(|error| error.to_string())?;
        }
        let checked = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = checked.validation_errors().next() {
            return Err(error.to_string());
        }
        let all = schema.action_entities().map_err(|error| error.to_string())?;
        let actions = all
            .iter()
            .map(|action| {
                let groups = all.ancestors(&action.uid()).into_iter().flatten().filter_map(|uid| all.get(uid));
                let mut entities: Vec<Entity> = groups.cloned().collect();
                entities.insert(0, action.clone());
                (action.uid().id().unescaped().to_owned(), entities)
            })
            .collect();
        let name = |text: &str| text.parse::<EntityTypeName>().map_err(|error| error.to_string());
        let types = Types {
            host: name("Host")?,
            operator: name("Operator")?,
            account: name("Account")?,
            user: name("User")?,
            agent: name("Agent")?,
            space: name("Space")?,
            session: name("Session")?,
            approval: name("Approval")?,
            tool_call: name("ToolCall")?,
        };
        Ok(Self { schema, policies: set, codes, actions, types })
    }
}

/// The codes that a base policy may carry, strongest word first: when several forbids hold, the caller
/// reads the first of these.
const CODES: [&str; 7] =
    ["not_found", "viewer_readonly", "admin_only", "operator_only", "key_scope", "tool_not_granted", "forbidden"];

fn code_of(policy: &Policy) -> Option<&'static str> {
    let code = policy.annotation("code")?;
    CODES.iter().find(|known| **known == code).copied()
}

/// Who asks: in a tenant as a user or as the operator, or on the host.
pub(crate) struct Caller<'a> {
    pub(crate) tenant: Option<&'a Tenant>,
    pub(crate) standing: &'a Standing,
}

/// Decides. Anything that goes wrong on the way is a denial.
pub(crate) fn decide<R: Resource>(
    caller: &Caller<'_>,
    action: &'static str,
    resource: &R,
    arguments: Option<&Map<String, Value>>,
) -> Decision {
    // The tenants are compared before the policy is asked, and again by it: a resource read under
    // another tenant is not there.
    if let (Some(own), Some(its)) = (caller.tenant, resource.tenant())
        && own != its
    {
        return Decision::Deny("not_found");
    }
    evaluate(caller, action, resource, arguments).unwrap_or(Decision::Deny("forbidden"))
}

/// A fact that could not be put into Cedar's form. Denied.
pub struct Unreadable;

impl<E: std::error::Error> From<E> for Unreadable {
    fn from(_: E) -> Self {
        Self
    }
}

fn evaluate<R: Resource>(
    caller: &Caller<'_>,
    action: &'static str,
    resource: &R,
    arguments: Option<&Map<String, Value>>,
) -> Result<Decision, Unreadable> {
    let base = &*BASE;
    let mut facts = Facts::default();
    let principal = facts.principal(caller)?;
    let target = resource.describe(&mut facts)?;
    let action_entities = base.actions.get(action).ok_or(Unreadable)?;
    let action_uid = action_entities.first().ok_or(Unreadable)?.uid();
    let entities = Entities::from_entities(facts.entities.into_iter().chain(action_entities.iter().cloned()), None)?;
    // An account's policies bind its users. The operator they could only lock out.
    let (policies, own) = match (caller.standing, caller.tenant) {
        (Standing::User { .. }, Some(tenant)) => (&tenant.0.policies.set, tenant.0.policies.own),
        (Standing::Operator, _) | (_, None) => (&base.policies, Own::None),
    };
    let too_long = own == Own::Some && arguments.is_some_and(|arguments| length(arguments) > LONGEST_ARGUMENTS);
    let nothing = Map::new();
    let arguments = if too_long { Some(&nothing) } else { arguments };
    let context = context(caller, arguments)?;
    let request = Request::new(principal, action_uid, target, context, None)?;
    let response = Authorizer::new().is_authorized(&request, policies, &entities);
    if response.diagnostics().errors().next().is_some() {
        return Ok(Decision::Deny("forbidden"));
    }
    if response.decision() == cedar_policy::Decision::Allow {
        // What the account's policies could not look through, a person looks at.
        return Ok(if too_long { Decision::Ask("account_policy") } else { Decision::Allow });
    }
    Ok(why(response.diagnostics().reason(), policies))
}

/// Turns the forbids that held into one answer. None held: nothing permitted it.
fn why<'a>(reasons: impl Iterator<Item = &'a PolicyId>, policies: &PolicySet) -> Decision {
    let mut worst: Option<Decision> = None;
    for id in reasons {
        let decision = match BASE.codes.get(id) {
            Some(code) => Decision::Deny(code),
            None if policies.policy(id).and_then(|p| p.annotation("approval")) == Some("required") => {
                Decision::Ask("account_policy")
            }
            None => Decision::Deny("account_policy"),
        };
        worst = Some(match worst {
            None => decision,
            Some(other) if rank(decision) > rank(other) => decision,
            Some(other) => other,
        });
    }
    worst.unwrap_or(Decision::Deny("forbidden"))
}

fn rank(decision: Decision) -> usize {
    match decision {
        Decision::Allow => 0,
        Decision::Ask(_) => 1,
        Decision::Deny(code) => 3 + CODES.iter().rev().position(|known| *known == code).unwrap_or(0),
    }
}

/// Bytes of text in a call's arguments.
fn length(arguments: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(of).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + of(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        }
    }
    arguments.values().map(of).sum()
}

fn context(caller: &Caller<'_>, arguments: Option<&Map<String, Value>>) -> Result<Context, Unreadable> {
    let none = Bounds::none();
    let bounds = match caller.standing {
        Standing::User { bounds, .. } => bounds,
        Standing::Operator => &none,
    };
    let scopes = bounds.scopes.iter().map(|scope| text(scope.as_str()));
    let mut pairs = vec![
        ("scopes".to_owned(), RestrictedExpression::new_set(scopes)),
        ("limited".to_owned(), RestrictedExpression::new_bool(bounds.is_limited())),
    ];
    if let Some(space) = bounds.space {
        pairs.push(("bound_space".to_owned(), text(&space.to_string())));
    }
    if let Some(agent) = &bounds.agent {
        pairs.push(("bound_agent".to_owned(), text(agent.as_str())));
    }
    if let Some(arguments) = arguments {
        const KNOWN: [&str; 10] =
            ["command", "path", "pattern", "url", "content", "old", "new", "glob", "question", "message"];
        let texts = KNOWN.iter().filter_map(|name| Some(((*name).to_owned(), text(arguments.get(*name)?.as_str()?))));
        pairs.push(("arguments".to_owned(), RestrictedExpression::new_record(texts)?));
        let canonical = bailiwick_audit::canonical(&Value::Object(arguments.clone()))?;
        pairs.push(("arguments_json".to_owned(), text(&String::from_utf8_lossy(&canonical))));
    }
    Ok(Context::from_pairs(pairs)?)
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

/// The entities of one question.
#[derive(Default)]
pub struct Facts {
    entities: Vec<Entity>,
}

impl Facts {
    fn add<const N: usize>(
        &mut self,
        kind: &EntityTypeName,
        id: &str,
        attributes: [(&str, RestrictedExpression); N],
    ) -> Result<EntityUid, Unreadable> {
        let uid = EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.entities.push(Entity::new(uid.clone(), attributes, HashSet::new())?);
        Ok(uid)
    }

    fn principal(&mut self, caller: &Caller<'_>) -> Result<EntityUid, Unreadable> {
        let types = &BASE.types;
        match (caller.standing, caller.tenant) {
            (Standing::Operator, _) => self.add(&types.operator, "operator", []),
            (Standing::User { user, role, .. }, Some(tenant)) => self.add(
                &types.user,
                &user_key(tenant, user.as_str()),
                [("account", account(tenant)), ("role", text(role.as_str()))],
            ),
            (Standing::User { .. }, None) => Err(Unreadable),
        }
    }

    fn space(&mut self, space: &Space) -> Result<EntityUid, Unreadable> {
        let tenant = &space.tenant;
        let holders = |least| {
            let users = space.grants.iter().filter(move |(_, level)| *level >= least);
            RestrictedExpression::new_set(users.map(|(name, _)| user(tenant, name.as_str())).collect::<Vec<_>>())
        };
        self.add(
            &BASE.types.space,
            &space.id.to_string(),
            [
                ("account", account(tenant)),
                ("key", text(&space.id.to_string())),
                ("owner", user(tenant, space.owner.as_str())),
                ("readers", holders(bailiwick_types::GrantLevel::Read)),
                ("writers", holders(bailiwick_types::GrantLevel::Write)),
                ("managers", holders(bailiwick_types::GrantLevel::Manage)),
            ],
        )
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id)))
}

fn account(tenant: &Tenant) -> RestrictedExpression {
    uid(&BASE.types.account, &tenant.incarnation().to_string())
}

/// Users of two accounts may have one name; never one key.
fn user_key(tenant: &Tenant, name: &str) -> String {
    format!("{}/{name}", tenant.incarnation())
}

fn user(tenant: &Tenant, name: &str) -> RestrictedExpression {
    uid(&BASE.types.user, &user_key(tenant, name))
}

/// A resource in the policy's form. Sealed: this module is not reachable from outside.
pub trait Describe {
    /// Adds the resource and what it refers to, and names it.
    ///
    /// # Errors
    /// If a fact cannot be put into Cedar's form.
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable>;
}

impl Describe for Host {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        facts.add(&BASE.types.host, "this", [])
    }
}

impl Describe for Account {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        facts.add(&BASE.types.account, &self.tenant.incarnation().to_string(), [])
    }
}

impl Describe for User {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        let key = user_key(&self.tenant, self.name.as_str());
        let uid = EntityUid::from_type_name_and_id(BASE.types.user.clone(), EntityId::new(&key));
        // A caller who acts on themselves is already there, with their role.
        if facts.entities.iter().any(|entity| entity.uid() == uid) {
            return Ok(uid);
        }
        // The role of the user acted upon decides nothing, so the least is said of them.
        facts.add(&BASE.types.user, &key, [("account", account(&self.tenant)), ("role", text("viewer"))])
    }
}

impl Describe for Agent {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        facts.add(
            &BASE.types.agent,
            &user_key(&self.tenant, self.name.as_str()),
            [("account", account(&self.tenant)), ("key", text(self.name.as_str()))],
        )
    }
}

impl Describe for Space {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        facts.space(self)
    }
}

impl Describe for Session {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        facts.space(&self.space)?;
        let tenant = &self.space.tenant;
        facts.add(
            &BASE.types.session,
            &self.id.to_string(),
            [
                ("account", account(tenant)),
                ("space", uid(&BASE.types.space, &self.space.id.to_string())),
                ("agent", text(self.agent.as_str())),
                ("initiator", user(tenant, self.initiator.as_str())),
            ],
        )
    }
}

impl Describe for Approval {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        let session = &self.session;
        facts.space(&session.space)?;
        let tenant = &session.space.tenant;
        let approvers = self.approvers.iter().map(|name| user(tenant, name.as_str()));
        facts.add(
            &BASE.types.approval,
            &self.id.to_string(),
            [
                ("account", account(tenant)),
                ("space", uid(&BASE.types.space, &session.space.id.to_string())),
                ("agent", text(session.agent.as_str())),
                ("requester", user(tenant, self.requester.as_str())),
                ("approvers", RestrictedExpression::new_set(approvers.collect::<Vec<_>>())),
            ],
        )
    }
}

impl Describe for ToolCall {
    fn describe(&self, facts: &mut Facts) -> Result<EntityUid, Unreadable> {
        let session = &self.session;
        facts.space(&session.space)?;
        let tenant = &session.space.tenant;
        let granted = self.granted.iter().map(|name| text(name.as_str()));
        facts.add(
            &BASE.types.tool_call,
            &self.id.to_string(),
            [
                ("account", account(tenant)),
                ("space", uid(&BASE.types.space, &session.space.id.to_string())),
                ("agent", text(session.agent.as_str())),
                ("initiator", user(tenant, session.initiator.as_str())),
                ("tool", text(self.tool.as_str())),
                ("granted", RestrictedExpression::new_set(granted.collect::<Vec<_>>())),
            ],
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
