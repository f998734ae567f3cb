//! The policy engine: the house's base policy in Cedar, and what an account adds to it.
//!
//! Default deny; a forbid wins; an error while a policy is evaluated is a denial, because a forbid
//! that cannot be read must not be a forbid that is skipped. An account's policies may only forbid, or
//! turn a tool call into a question (`@approval("required")`); they can never permit.

mod facts;
mod memo;
mod own;
mod slice;

use std::collections::HashMap;
use std::sync::LazyLock;

use cedar_policy::{
    Authorizer, Effect, Entity, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator,
};
use serde_json::{Map, Value};

use super::resource::Resource;
use super::scope::Standing;
use crate::principal::Tenant;
use facts::{Question, Types, Unreadable};
use memo::Memo;
use own::PoliciesId;
use slice::Slices;

pub(crate) use facts::Describe;
pub use own::{AccountPolicies, PolicyError};

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

/// Text of a call's arguments that an account's policies look through. A call with more asks.
const LONGEST_ARGUMENTS: usize = 64 * 1024;

struct Base {
    schema: Schema,
    policies: PolicySet,
    slices: Slices,
    codes: HashMap<PolicyId, &'static str>,
    actions: HashMap<String, Action>,
    types: Types,
    memo: Memo,
}

/// An act of the schema.
struct Action {
    uid: EntityUid,
    /// It and the groups that it is in.
    entities: Vec<Entity>,
    /// Their names.
    names: Vec<String>,
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
                let entities: Vec<Entity> = std::iter::once(action).chain(groups).cloned().collect();
                let names = entities.iter().map(|entity| entity.uid().id().unescaped().to_owned()).collect();
                (action.uid().id().unescaped().to_owned(), Action { uid: action.uid(), entities, names })
            })
            .collect();
        let slices = Slices::of(&set, &schema)?;
        Ok(Self { schema, policies: set, slices, codes, actions, types: Types::read()?, memo: Memo::new() })
    }
}

/// The codes that a base policy may carry, strongest word first: when several forbids hold, the caller
/// reads the first of these.
const CODES: [&str; 10] = [
    "not_found",
    "viewer_readonly",
    "admin_only",
    "operator_only",
    "key_scope",
    "tool_not_granted",
    "secret_not_granted",
    "no_call_running",
    "call_not_approved",
    "forbidden",
];

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

fn evaluate<R: Resource>(
    caller: &Caller<'_>,
    action: &'static str,
    resource: &R,
    arguments: Option<&Map<String, Value>>,
) -> Result<Decision, Unreadable> {
    // An account's policies bind its users. The operator they could only lock out.
    let own = match (caller.standing, caller.tenant) {
        (Standing::User { .. }, Some(tenant)) => Some(&*tenant.0.policies),
        (Standing::Operator, _) | (_, None) => None,
    };
    let own = own.filter(|own| own.id != PoliciesId::BASE);
    let id = own.map_or(PoliciesId::BASE, |own| own.id);
    let too_long = own.is_some() && arguments.is_some_and(|arguments| length(arguments) > LONGEST_ARGUMENTS);
    let nothing = Map::new();
    let arguments = if too_long { Some(&nothing) } else { arguments };
    let question = Question::new(id, caller, action, resource, arguments)?;
    // What a model wrote seldom comes twice, and is nothing to keep.
    let Some(_) = arguments else { return remembered(question, own) };
    // What the account's policies could not look through, a person looks at.
    Ok(match ask(&question, own)? {
        Decision::Allow if too_long => Decision::Ask("account_policy"),
        decision => decision,
    })
}

fn remembered(question: Question, own: Option<&AccountPolicies>) -> Result<Decision, Unreadable> {
    if let Some(decision) = BASE.memo.get(&question) {
        return Ok(decision);
    }
    let decision = ask(&question, own)?;
    BASE.memo.keep(question, decision);
    Ok(decision)
}

/// Asks the policy engine: first the house, and where it permits, the account. So what nobody permitted is
/// nothing that an account's policy could have a person approve.
fn ask(question: &Question, own: Option<&AccountPolicies>) -> Result<Decision, Unreadable> {
    let (request, entities) = question.cedar()?;
    let house = BASE.slices.concerned(question).unwrap_or(&BASE.policies);
    let response = Authorizer::new().is_authorized(&request, house, &entities);
    if response.diagnostics().errors().next().is_some() {
        return Ok(Decision::Deny("forbidden"));
    }
    if response.decision() != cedar_policy::Decision::Allow {
        return Ok(why(response.diagnostics().reason()));
    }
    let Some(own) = own else { return Ok(Decision::Allow) };
    let mut decision = Decision::Allow;
    for rule in own.rules.concerned(question) {
        // It can only forbid, so an answer without a reason is that it does not hold.
        let response = Authorizer::new().is_authorized(&request, &rule.policy, &entities);
        if response.diagnostics().errors().next().is_some() {
            return Ok(Decision::Deny("forbidden"));
        }
        if response.diagnostics().reason().next().is_some() {
            let said = if rule.asks { Decision::Ask("account_policy") } else { Decision::Deny("account_policy") };
            decision = decision.max(said);
        }
    }
    Ok(decision)
}

/// Turns the house's forbids that held into one answer. None held: nothing permitted it.
fn why<'a>(reasons: impl Iterator<Item = &'a PolicyId>) -> Decision {
    let codes = reasons.filter_map(|id| BASE.codes.get(id).copied());
    Decision::Deny(codes.min_by_key(|code| rank(code)).unwrap_or("forbidden"))
}

/// Where a code stands among the codes: the first is told.
fn rank(code: &str) -> usize {
    CODES.iter().position(|known| *known == code).unwrap_or(CODES.len())
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
