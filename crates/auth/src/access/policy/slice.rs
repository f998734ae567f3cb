//! Policy slicing: of all policies, those that a question can concern. What is left out is what would not have
//! held, so the answer is the same; a test asks both ways.

use std::collections::HashMap;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, PatternElem, Var};
use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint, Schema,
};

use super::BASE;
use super::facts::{Kind, Known, Of, Question};

/// The base policies by what their heads say: the action, who asks, and of what.
pub(super) struct Slices(HashMap<String, Vec<(Kind, Kind, PolicySet)>>);

impl Slices {
    pub(super) fn of(policies: &PolicySet, schema: &Schema) -> Result<Self, String> {
        let groups = schema.action_entities().map_err(|error| error.to_string())?;
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for environment in schema.request_envs() {
            let (principal, resource) = (environment.principal(), environment.resource());
            let mut slice = PolicySet::new();
            for policy in policies.policies() {
                let named =
                    |uid: &EntityUid| uid == environment.action() || groups.is_ancestor_of(uid, environment.action());
                if concerns(policy, principal, named, resource) {
                    slice.add(policy.clone()).map_err(|error| error.to_string())?;
                }
            }
            let action = environment.action().id().unescaped();
            let kinds = Kind::named(principal).zip(Kind::named(resource));
            let (principal, resource) = kinds.ok_or_else(|| format!("{action} is for a kind that is not known"))?;
            slices.entry(action.to_owned()).or_default().push((principal, resource, slice));
        }
        Ok(Self(slices))
    }

    /// Those that the question can concern; nothing for one that the schema does not know.
    pub(super) fn concerned(&self, question: &Question) -> Option<&PolicySet> {
        let (principal, resource) = question.kinds();
        let of_action = self.0.get(question.action())?;
        let found = of_action.iter().find(|(who, what, _)| (*who, *what) == (principal, resource));
        found.map(|(_, _, slice)| slice)
    }
}

fn concerns(
    policy: &Policy,
    principal: &EntityTypeName,
    action: impl Fn(&EntityUid) -> bool,
    resource: &EntityTypeName,
) -> bool {
    let of_principal = match policy.principal_constraint() {
        PrincipalConstraint::Is(kind) | PrincipalConstraint::IsIn(kind, _) => kind == *principal,
        _ => true,
    };
    let of_resource = match policy.resource_constraint() {
        ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => kind == *resource,
        _ => true,
    };
    let of_action = match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => action(&uid),
        ActionConstraint::In(uids) => uids.iter().any(action),
    };
    of_principal && of_resource && of_action
}

/// An account's policy.
pub(super) struct Rule {
    /// The policy alone.
    pub(super) policy: PolicySet,
    /// Whether it asks for approval; else it forbids.
    pub(super) asks: bool,
    /// What tells quickly that it does not hold, after the guard that it is sorted by.
    guards: Vec<Guard>,
}

/// Policies by the guard that stands first: many have one in common, and it is looked at once.
type ByGuard = HashMap<Option<Guard>, Vec<usize>>;

/// An account's policies, by the actions that their heads name.
#[derive(Default)]
pub(super) struct Rules {
    all: Vec<Rule>,
    /// Of those that name no action.
    of_any: ByGuard,
    /// By the name of an action or a group of them.
    of_action: HashMap<String, ByGuard>,
}

impl Rules {
    /// Adds a policy, under an id that is its own.
    pub(super) fn add(&mut self, policy: Policy) -> Result<(), String> {
        let which = self.all.len();
        let mut guards = guards(&policy).map_err(|error| error.to_string())?.into_iter();
        let first = guards.next();
        let guards = guards.collect();
        let put = |named: &mut ByGuard| {
            let sorted = named.entry(first.clone()).or_default();
            if sorted.last() != Some(&which) {
                sorted.push(which);
            }
        };
        match policy.action_constraint() {
            ActionConstraint::Any => put(&mut self.of_any),
            ActionConstraint::Eq(uid) => put(self.of_action.entry(uid.id().unescaped().to_owned()).or_default()),
            ActionConstraint::In(uids) => {
                for uid in uids {
                    put(self.of_action.entry(uid.id().unescaped().to_owned()).or_default());
                }
            }
        }
        let asks = policy.annotation("approval") == Some("required");
        let policy = PolicySet::from_policies([policy]).map_err(|error| error.to_string())?;
        self.all.push(Rule { policy, asks, guards });
        Ok(())
    }

    /// Those that may hold for the question.
    pub(super) fn concerned(&self, question: &Question) -> Vec<&Rule> {
        let names = BASE.actions.get(question.action()).into_iter().flat_map(|action| &action.names);
        let named = names.filter_map(|name| self.of_action.get(name));
        let known = question.known();
        let mut concerned = Vec::new();
        for (guard, rules) in std::iter::once(&self.of_any).chain(named).flatten() {
            let holds = guard.as_ref().map_or(Some(true), |guard| guard.holds(&known));
            if holds == Some(false) {
                continue;
            }
            let rules = rules.iter().filter_map(|which| self.all.get(*which));
            concerned.extend(rules.filter(|rule| holds.is_none() || rule.may_hold(&known)));
        }
        concerned
    }
}

impl Rule {
    /// Whether it is worth asking the engine.
    fn may_hold(&self, known: &Known<'_>) -> bool {
        for guard in &self.guards {
            match guard.holds(known) {
                Some(true) => {}
                Some(false) => return false,
                // From here on the engine alone knows, and it reports what cannot be evaluated.
                None => return true,
            }
        }
        true
    }
}

/// A condition that stands first in a policy, so that nothing after it is evaluated where it does not hold, and
/// that the facts of a question answer by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Guard {
    /// `resource.tool == "bash"`, or one of several.
    OneOf(Of, String, Vec<String>),
    /// `context.arguments has path`.
    Has(String),
    /// `context.arguments.command like "*deploy*"`: some text that whatever fits has in it. Nothing for the
    /// arguments as JSON.
    Holds(Option<String>, String),
}

impl Guard {
    /// Nothing if the engine has to be asked.
    fn holds(&self, known: &Known<'_>) -> Option<bool> {
        match self {
            Self::OneOf(of, attribute, texts) => {
                let said = known.text(*of, attribute)?;
                Some(texts.iter().any(|text| text == said))
            }
            Self::Has(argument) => Some(known.argument(argument)?.is_some()),
            Self::Holds(argument, text) => {
                let said = match argument {
                    Some(argument) => known.argument(argument)??,
                    None => known.arguments_json?,
                };
                if said.contains(text.as_str()) { None } else { Some(false) }
            }
        }
    }
}

/// The guards of a policy, in the order in which they are evaluated.
pub(super) fn guards(policy: &Policy) -> Result<Vec<Guard>, impl std::error::Error> {
    policy.to_pst().map(|policy| {
        let mut guards = Vec::new();
        if let cedar_policy::pst::Policy::Static(policy) = &policy
            && let Some(Clause::When(condition)) = policy.body().clauses().first()
        {
            lead(condition, &mut guards);
        }
        guards
    })
}

/// Reads the first of the conditions that are joined by `&&`, and says whether that was all of them.
fn lead(condition: &Expr, guards: &mut Vec<Guard>) -> bool {
    if let Expr::BinaryOp { op: BinaryOp::And, left, right } = condition {
        return lead(left, guards) && lead(right, guards);
    }
    let guard = guard(condition);
    let read = guard.is_some();
    guards.extend(guard);
    read
}

fn guard(condition: &Expr) -> Option<Guard> {
    match condition {
        Expr::BinaryOp { op: BinaryOp::Eq, left, right } => {
            let ((of, attribute), text) =
                attribute(left).zip(literal(right)).or_else(|| attribute(right).zip(literal(left)))?;
            Some(Guard::OneOf(of, attribute, vec![text]))
        }
        Expr::BinaryOp { op: BinaryOp::Contains, left, right } => {
            let (Expr::Set(texts), (of, attribute)) = (&**left, attribute(right)?) else { return None };
            let texts = texts.iter().map(|text| literal(text)).collect::<Option<_>>()?;
            Some(Guard::OneOf(of, attribute, texts))
        }
        Expr::HasAttr { expr, attrs } if is_arguments(expr) && attrs.len() == 1 => {
            Some(Guard::Has(attrs.first().to_string()))
        }
        Expr::Like { expr, pattern } => {
            let Expr::GetAttr { expr: of, attr } = &**expr else { return None };
            let argument = match &**of {
                Expr::Var(Var::Context) if attr == "arguments_json" => None,
                of if is_arguments(of) => Some(attr.to_string()),
                _ => return None,
            };
            Some(Guard::Holds(argument, longest(pattern)))
        }
        _ => None,
    }
}

/// `principal.role`, `resource.key`: of whom, and what.
fn attribute(expression: &Expr) -> Option<(Of, String)> {
    let Expr::GetAttr { expr, attr } = expression else { return None };
    let of = match &**expr {
        Expr::Var(Var::Principal) => Of::Principal,
        Expr::Var(Var::Resource) => Of::Resource,
        _ => return None,
    };
    Some((of, attr.to_string()))
}

fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Literal(Literal::String(text)) => Some(text.to_string()),
        _ => None,
    }
}

fn is_arguments(expression: &Expr) -> bool {
    matches!(expression, Expr::GetAttr { expr, attr } if attr == "arguments" && **expr == Expr::Var(Var::Context))
}

/// The longest text of a pattern between two wildcards.
fn longest(pattern: &[PatternElem]) -> String {
    let texts = pattern.split(|element| matches!(element, PatternElem::Wildcard));
    let text = |part: &[PatternElem]| {
        part.iter()
            .filter_map(|element| if let PatternElem::Char(letter) = element { Some(*letter) } else { None })
            .collect()
    };
    texts.map(text).max_by_key(String::len).unwrap_or_default()
}
