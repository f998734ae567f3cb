//! The policy as it really answers: the matrix of roles, verbs and resources, and the walls.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bailiwick_audit::Actor;
use bailiwick_types::{
    ApprovalId, CallId, GrantLevel, Incarnation, JobId, KeyScope, RequestId, Role, SandboxId, SessionId, SpaceId,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::access::resource::{
    Account, Agent, Approval, Asks, During, Host, Job, Notification, Sandbox, SecretUse, Session, Space, ToolCall, User,
};
use crate::access::scope::{Scope, Standing};
use crate::access::tool::ToolVerdict;
use crate::access::verb::{self, Verb as _};
use crate::for_store;
use crate::principal::{Bounds, Credential};

fn tenant(name: &str, policies: Arc<AccountPolicies>) -> Tenant {
    for_store::tenant(name.parse().unwrap(), Incarnation::new(), 200_000, policies)
}

fn scope(tenant: &Tenant, standing: Standing) -> Scope {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Scope::new(tenant.clone(), standing, Actor::Unknown, Credential::Anonymous, address, RequestId::new())
}

fn user(tenant: &Tenant, name: &str, role: Role, bounds: Bounds) -> Scope {
    scope(tenant, Standing::User { user: name.parse().unwrap(), role, bounds })
}

/// What `alice` can be to the space that the matrix is about.
#[derive(Clone, Copy)]
enum Relation {
    Owner,
    Granted(GrantLevel),
    Nothing,
}

struct World {
    acme: Tenant,
    space: SpaceId,
}

impl World {
    fn new() -> Self {
        Self { acme: tenant("acme", AccountPolicies::none()), space: SpaceId::new() }
    }

    fn space(&self, relation: Relation) -> Space {
        let (owner, grants) = match relation {
            Relation::Owner => ("alice", vec![]),
            Relation::Granted(level) => ("bob", vec![("alice".parse().unwrap(), level)]),
            Relation::Nothing => ("bob", vec![]),
        };
        for_store::space(&self.acme, self.space, owner.parse().unwrap(), grants)
    }

    /// A session that alice began, whatever her rights in the space are now.
    fn session(&self, relation: Relation) -> Session {
        for_store::session(self.space(relation), SessionId::new(), "coder".parse().unwrap(), "alice".parse().unwrap())
    }

    fn others_session(&self, relation: Relation) -> Session {
        for_store::session(self.space(relation), SessionId::new(), "coder".parse().unwrap(), "bob".parse().unwrap())
    }

    fn approval(&self, requester: &str, approvers: &[&str]) -> Approval {
        let approvers = approvers.iter().map(|name| name.parse().unwrap()).collect();
        for_store::approval(self.session(Relation::Owner), ApprovalId::new(), requester.parse().unwrap(), approvers)
    }

    fn call(&self, relation: Relation, granted: &[&str], arguments: Value, asks: Asks) -> ToolCall {
        let granted = granted.iter().map(|name| name.parse().unwrap()).collect();
        ToolCall::asked(self.session(relation), CallId::new(), "bash".parse().unwrap(), arguments, granted, asks)
    }
}

fn answer<R: Resource>(scope: &Scope, verb: &'static str, resource: &R) -> String {
    match scope.decide(verb, resource, (R::KIND == "ToolCall").then(Map::new).as_ref()) {
        Decision::Allow => "yes".to_owned(),
        Decision::Ask(_) => "ask".to_owned(),
        Decision::Deny(code) => {
            let refusal = scope.refuse(verb, resource, code);
            refusal.code().map_or_else(|| "404".to_owned(), str::to_owned)
        }
    }
}

#[test]
fn r07_the_matrix_is_the_committed_one() {
    let world = World::new();
    let foreign = tenant("globex", AccountPolicies::none());
    let columns: Vec<(&str, Scope)> = vec![
        ("operator", scope(&world.acme, Standing::Operator)),
        ("admin", user(&world.acme, "alice", Role::Admin, Bounds::none())),
        ("member", user(&world.acme, "alice", Role::Member, Bounds::none())),
        ("viewer", user(&world.acme, "alice", Role::Viewer, Bounds::none())),
        ("read-key", {
            let bounds = Bounds { scopes: vec![KeyScope::Read], ..Bounds::none() };
            user(&world.acme, "alice", Role::Admin, bounds)
        }),
        ("other-space-key", {
            let bounds = Bounds { space: Some(SpaceId::new()), ..Bounds::none() };
            user(&world.acme, "alice", Role::Admin, bounds)
        }),
        ("other-agent-key", {
            let bounds = Bounds { agent: Some("writer".parse().unwrap()), ..Bounds::none() };
            user(&world.acme, "alice", Role::Admin, bounds)
        }),
        ("foreign-admin", user(&foreign, "alice", Role::Admin, Bounds::none())),
    ];
    let mut text = String::from(
        "# Who may do what. Made by a test from the policy that runs; do not edit.\n\
         # yes = permitted, 404 = does not exist for this caller, else the reason code of a 403.\n\n",
    );
    let mut line = |verb: &str, what: &str, answers: Vec<String>| {
        text.push_str(&format!("{verb:<20} {what:<22}"));
        for answer in answers {
            text.push_str(&format!(" {answer:<16}"));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    };
    line("", "", columns.iter().map(|(name, _)| (*name).to_owned()).collect());
    let relations = [
        ("own", Relation::Owner),
        ("managed", Relation::Granted(GrantLevel::Manage)),
        ("written", Relation::Granted(GrantLevel::Write)),
        ("read", Relation::Granted(GrantLevel::Read)),
        ("another's", Relation::Nothing),
    ];
    let sessions: Vec<(String, Session)> = relations
        .iter()
        .flat_map(|(what, relation)| {
            [("my", world.session(*relation)), ("other", world.others_session(*relation))]
                .map(|(whose, session)| (format!("{whose}, {what} space"), session))
        })
        .collect();
    let of_sessions = |answer: &dyn Fn(&Scope, &Session) -> String| {
        let row = |session| columns.iter().map(|(_, s)| answer(s, session)).collect();
        sessions.iter().map(|(whose, session)| (whose.clone(), row(session))).collect()
    };
    for (verb, kind) in verb::ALL {
        let rows: Vec<(String, Vec<String>)> = match *kind {
            "Host" => vec![("host".to_owned(), columns.iter().map(|(_, s)| answer(s, verb, &Host)).collect())],
            "Account" => {
                let account = Account { tenant: world.acme.clone() };
                vec![("account".to_owned(), columns.iter().map(|(_, s)| answer(s, verb, &account)).collect())]
            }
            "User" => ["alice", "bob"]
                .into_iter()
                .map(|name| {
                    let target = User { tenant: world.acme.clone(), name: name.parse().unwrap() };
                    let whose = if name == "alice" { "oneself" } else { "another user" };
                    (whose.to_owned(), columns.iter().map(|(_, s)| answer(s, verb, &target)).collect())
                })
                .collect(),
            "Agent" => {
                let agent = Agent { tenant: world.acme.clone(), name: "coder".parse().unwrap() };
                vec![("agent".to_owned(), columns.iter().map(|(_, s)| answer(s, verb, &agent)).collect())]
            }
            "Space" => relations
                .iter()
                .map(|(what, relation)| {
                    let space = world.space(*relation);
                    (format!("{what} space"), columns.iter().map(|(_, s)| answer(s, verb, &space)).collect())
                })
                .collect(),
            "Session" => of_sessions(&|s, session| answer(s, verb, session)),
            "Job" => of_sessions(&|s, session| answer(s, verb, &Job { id: JobId::new(), session: session.clone() })),
            "Sandbox" => {
                of_sessions(&|s, session| answer(s, verb, &Sandbox { id: SandboxId::new(), session: session.clone() }))
            }
            "Approval" => [
                ("requested by me", world.approval("alice", &[])),
                ("I am an approver", world.approval("bob", &["carol", "alice"])),
                ("of others", world.approval("bob", &["carol"])),
            ]
            .into_iter()
            .map(|(what, approval)| {
                (what.to_owned(), columns.iter().map(|(_, s)| answer(s, verb, &approval)).collect())
            })
            .collect(),
            "ToolCall" => relations
                .iter()
                .flat_map(|(what, relation)| {
                    [("granted", vec!["bash"]), ("not granted", vec![])].map(|(has, granted)| {
                        let call = world.call(*relation, &granted, json!({}), Asks::No);
                        let row = columns.iter().map(|(_, s)| answer(s, verb, &call)).collect();
                        (format!("{has}, {what}"), row)
                    })
                })
                .collect(),
            "SecretUse" => relations
                .iter()
                .flat_map(|(what, relation)| {
                    let minute = (bailiwick_types::LeaseTerm::Minute, During::Nothing);
                    [
                        ("granted", vec!["coder"], minute),
                        ("not granted", vec!["other"], minute),
                        ("for calls, in none", vec!["coder"], (bailiwick_types::LeaseTerm::Call, During::Nothing)),
                        ("for calls, in one", vec!["coder"], (bailiwick_types::LeaseTerm::Call, During::Call)),
                        (
                            "for approved calls, in one",
                            vec!["coder"],
                            (bailiwick_types::LeaseTerm::ApprovedCall, During::Call),
                        ),
                        (
                            "for approved calls, in such",
                            vec!["coder"],
                            (bailiwick_types::LeaseTerm::ApprovedCall, During::ApprovedCall),
                        ),
                        (
                            "for approved calls, in none",
                            vec!["coder"],
                            (bailiwick_types::LeaseTerm::ApprovedCall, During::Nothing),
                        ),
                    ]
                    .map(|(has, granted, (lease, during))| {
                        let asked = SecretUse {
                            session: world.session(*relation),
                            secret: "token".parse().unwrap(),
                            host: "api.example".parse().unwrap(),
                            used_by: bailiwick_types::UsedBy::Sandbox,
                            granted: granted.into_iter().map(|name| name.parse().unwrap()).collect(),
                            lease,
                            during,
                        };
                        (format!("{has}, {what}"), columns.iter().map(|(_, s)| answer(s, verb, &asked)).collect())
                    })
                })
                .collect(),
            "Notification" => {
                let target = Notification {
                    tenant: world.acme.clone(),
                    name: "ops".parse().unwrap(),
                    kind: bailiwick_types::notification::TargetKind::Slack,
                    host: "hooks.slack.com".parse().unwrap(),
                };
                vec![("target".to_owned(), columns.iter().map(|(_, s)| answer(s, verb, &target)).collect())]
            }
            other => panic!("the matrix does not know {other}"),
        };
        for (what, answers) in rows {
            line(verb, &what, answers);
        }
    }
    let path =
        std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/permissions.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "docs/permissions.txt is not what the policy answers; run with UPDATE_EXPECT=1\n{text}");
}

#[test]
fn verbs_and_schema_name_the_same_acts() {
    let groups = ["read", "write", "admin", "host", "own"];
    let mut in_schema: Vec<&str> =
        BASE.actions.keys().map(String::as_str).filter(|name| !groups.contains(name)).collect();
    let mut in_code: Vec<&str> = verb::ALL.iter().map(|(name, _)| *name).collect();
    in_schema.sort_unstable();
    in_code.sort_unstable();
    assert_eq!(in_schema, in_code);
}

#[test]
fn v01_a_foreign_thing_is_not_there_even_for_a_namesake_and_an_admin() {
    let world = World::new();
    let foreign = tenant("globex", AccountPolicies::none());
    let namesake = user(&foreign, "alice", Role::Admin, Bounds::none());
    let own = user(&world.acme, "alice", Role::Member, Bounds::none());
    let space = world.space(Relation::Owner);
    assert!(own.authorize::<verb::DeleteSpace>(space.clone()).is_ok(), "positive control");
    let refusal = namesake.authorize::<verb::DeleteSpace>(space).err().unwrap();
    assert_eq!(refusal.code(), None);
}

#[test]
fn a12_an_admin_sees_grants_and_deletes_but_does_not_read() {
    let world = World::new();
    let admin = user(&world.acme, "alice", Role::Admin, Bounds::none());
    let others = world.space(Relation::Nothing);
    assert!(admin.may::<verb::SeeSpace>(&others));
    assert!(admin.may::<verb::GrantSpace>(&others));
    assert!(admin.may::<verb::DeleteSpace>(&others));
    assert!(!admin.may::<verb::ReadSpace>(&others));
    assert!(!admin.may::<verb::CreateSession>(&others));
}

#[test]
fn account_policies_forbid_and_ask_but_never_permit() {
    let permit = "permit (principal, action, resource);";
    assert!(matches!(AccountPolicies::parse(permit), Err(PolicyError::Permits(_))));
    let misspelt = r#"forbid (principal, action == Action::"tool.cal", resource);"#;
    assert!(matches!(AccountPolicies::parse(misspelt), Err(PolicyError::Schema(_))));
    assert!(matches!(AccountPolicies::parse("forbid all of it"), Err(PolicyError::Syntax(_))));

    let policies = AccountPolicies::parse(
        r#"
        @id("no-rm") forbid (principal, action == Action::"tool.call", resource)
        when { context.arguments has command && context.arguments.command like "*rm -rf*" };
        @id("ask-deploy") @approval("required") forbid (principal, action == Action::"tool.call", resource)
        when { context.arguments has command && context.arguments.command like "*deploy*" };
        "#,
    )
    .unwrap();
    let world = World { acme: tenant("acme", policies), space: SpaceId::new() };
    let alice = user(&world.acme, "alice", Role::Member, Bounds::none());
    let call = |command: &str, asks| world.call(Relation::Owner, &["bash"], json!({ "command": command }), asks);
    assert!(matches!(alice.judge(call("ls", Asks::No)), Ok(ToolVerdict::Go(_))), "positive control");
    assert_eq!(alice.judge(call("rm -rf /", Asks::No)).err().unwrap().code(), Some("account_policy"));
    // A denial stands above a question, and a question of the definition above the policy's silence.
    assert!(alice.judge(call("deploy; rm -rf /", Asks::Required)).is_err());
    let Ok(ToolVerdict::Ask(asked)) = alice.judge(call("deploy now", Asks::No)) else { panic!("not asked") };
    assert_eq!(asked.because(), "account_policy");
    let Ok(ToolVerdict::Ask(asked)) = alice.judge(call("ls", Asks::Elevated)) else { panic!("not asked") };
    assert_eq!(asked.because(), "elevated");
}

#[test]
fn t01_a_tool_that_was_not_granted_is_refused() {
    let world = World::new();
    let alice = user(&world.acme, "alice", Role::Admin, Bounds::none());
    let granted = world.call(Relation::Owner, &["bash"], json!({}), Asks::No);
    assert!(alice.judge(granted).is_ok(), "positive control");
    let other = world.call(Relation::Owner, &["read_file"], json!({}), Asks::No);
    assert_eq!(alice.judge(other).err().unwrap().code(), Some("tool_not_granted"));
}

#[test]
fn a_policy_that_would_overflow_the_stack_is_refused_before_it_is_read() {
    let when = |text: &str| format!("forbid (principal, action, resource) when {{ {text} }};");
    for (what, text) in [
        ("brackets", format!("{}true{}", "(".repeat(50), ")".repeat(50))),
        ("lists", format!("{}1{} == 1", "[".repeat(50), "]".repeat(50))),
        ("negations", format!("{}true", "!".repeat(5_000))),
        ("branches", format!("{}true{}", "if true then ".repeat(300), " else false".repeat(300))),
        ("sums", format!("1{} == 1", " + 1".repeat(5_000))),
        ("conjunctions", format!("true{}", " && true".repeat(3_000))),
        ("words", format!("\"{}\" == \"\"", "x".repeat(10_000))),
    ] {
        let refused = AccountPolicies::parse(&when(&text));
        assert!(
            matches!(refused, Err(PolicyError::TooComplex(_) | PolicyError::TooLong(_))),
            "{what} were not refused"
        );
    }
    // Positive control: as much as is allowed is read, and evaluated on an ordinary stack.
    let most = when(&format!("context.limited{}", " || true == false".repeat(20)));
    let world = World { acme: tenant("acme", AccountPolicies::parse(&most).unwrap()), space: SpaceId::new() };
    let alice = user(&world.acme, "alice", Role::Member, Bounds::none());
    assert!(alice.may::<verb::ReadSpace>(&world.space(Relation::Owner)));
}

#[test]
fn r08_an_accounts_policies_do_not_lock_the_operator_out() {
    let policies = AccountPolicies::parse("forbid (principal, action, resource);").unwrap();
    let acme = tenant("acme", policies);
    let account = Account { tenant: acme.clone() };
    assert!(!user(&acme, "alice", Role::Admin, Bounds::none()).may::<verb::PutPolicy>(&account), "positive control");
    assert!(scope(&acme, Standing::Operator).may::<verb::PutPolicy>(&account));
}

#[test]
fn i15_a_limited_key_makes_no_other_key() {
    let world = World::new();
    let me = |bounds| user(&world.acme, "alice", Role::Admin, bounds);
    let target = User { tenant: world.acme.clone(), name: "alice".parse().unwrap() };
    assert!(me(Bounds::none()).may::<verb::CreateKey>(&target), "positive control");
    let ends = Bounds { expires_at: Some(bailiwick_types::Timestamp::now()), ..Bounds::none() };
    assert!(!me(ends).may::<verb::CreateKey>(&target));
    let writes = Bounds { scopes: vec![KeyScope::Write], ..Bounds::none() };
    assert!(!me(writes).may::<verb::CreateKey>(&target));
}

#[test]
fn what_a_policy_cannot_look_through_a_person_looks_at() {
    let policies = AccountPolicies::parse(
        r#"forbid (principal, action == Action::"tool.call", resource) when { context.arguments_json like "*secret*" };"#,
    )
    .unwrap();
    let world = World { acme: tenant("acme", policies), space: SpaceId::new() };
    let alice = user(&world.acme, "alice", Role::Member, Bounds::none());
    let call = |text: String| world.call(Relation::Owner, &["bash"], json!({ "command": text }), Asks::No);
    assert!(matches!(alice.judge(call("ls".to_owned())), Ok(ToolVerdict::Go(_))), "positive control");
    assert!(alice.judge(call("secret".to_owned())).is_err());
    assert!(matches!(alice.judge(call(format!("{}secret", "x".repeat(70_000)))), Ok(ToolVerdict::Ask(_))));
}

#[test]
fn the_base_policy_names_no_single_thing() {
    // What answers are remembered by has no ids of sessions, approvals and calls because of this.
    let text = include_str!("../../../policy/base.cedar");
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named: Vec<&str> =
        code.flat_map(|line| line.split("::\"").collect::<Vec<_>>().into_iter().rev().skip(1)).collect();
    assert!(!named.is_empty());
    for before in named {
        assert!(before.ends_with("Action"), "{before}");
    }
}

#[test]
fn an_accounts_policy_may_name_a_session() {
    let world = World::new();
    let (one, other) = (world.session(Relation::Owner), world.session(Relation::Owner));
    let policy = format!("forbid (principal, action, resource == Session::\"{}\");", one.id());
    let bound = tenant("acme", AccountPolicies::parse(&policy).unwrap());
    let own = |session: &Session| {
        let space = for_store::space(&bound, world.space, "alice".parse().unwrap(), vec![]);
        for_store::session(space, session.id(), "coder".parse().unwrap(), "alice".parse().unwrap())
    };
    let alice = user(&bound, "alice", Role::Member, Bounds::none());
    for _ in 0..2 {
        assert_eq!(alice.decide(verb::ReadSession::NAME, &own(&one), None), Decision::Deny("account_policy"));
        assert_eq!(alice.decide(verb::ReadSession::NAME, &own(&other), None), Decision::Allow);
    }
    // The control: under the base policy both are hers.
    let free = user(&world.acme, "alice", Role::Member, Bounds::none());
    for session in [&one, &other] {
        assert_eq!(free.decide(verb::ReadSession::NAME, session, None), Decision::Allow);
    }
}

#[test]
fn a_remembered_answer_is_the_one_that_the_engine_gives() {
    let world = World::new();
    let roles = [Role::Admin, Role::Member, Role::Viewer];
    let relations = [
        Relation::Owner,
        Relation::Granted(GrantLevel::Manage),
        Relation::Granted(GrantLevel::Write),
        Relation::Granted(GrantLevel::Read),
        Relation::Nothing,
    ];
    // Asked in a row, so that a fact which were not part of the question would show as the answer before.
    for _ in 0..2 {
        for (verb, kind) in verb::ALL {
            for (role, relation) in roles.iter().flat_map(|role| relations.map(|relation| (*role, relation))) {
                let alice = user(&world.acme, "alice", role, Bounds::none());
                let caller = alice.caller();
                let (said, asked) = match *kind {
                    "Space" => both(&caller, verb, &world.space(relation)),
                    "Session" => both(&caller, verb, &world.session(relation)),
                    "Job" => both(&caller, verb, &Job { id: JobId::new(), session: world.session(relation) }),
                    "Sandbox" => {
                        both(&caller, verb, &Sandbox { id: SandboxId::new(), session: world.session(relation) })
                    }
                    _ => continue,
                };
                assert_eq!(said, asked, "{verb} {role:?}");
            }
        }
    }
}

/// What is answered, and what the engine answers to all policies of the house at once.
fn both<R: Resource>(caller: &Caller<'_>, verb: &'static str, resource: &R) -> (Decision, Decision) {
    let question = Question::new(PoliciesId::BASE, caller, verb, resource, None).ok().unwrap();
    (decide(caller, verb, resource, None), whole(&question, None))
}

/// The answer without slices and guards: the house's policies in one set, and then the account's.
fn whole(question: &Question, own: Option<&PolicySet>) -> Decision {
    let (request, entities) = question.cedar().ok().unwrap();
    let house = Authorizer::new().is_authorized(&request, &BASE.policies, &entities);
    assert_eq!(house.diagnostics().errors().count(), 0);
    if house.decision() != cedar_policy::Decision::Allow {
        return why(house.diagnostics().reason());
    }
    let Some(own) = own else { return Decision::Allow };
    let response = Authorizer::new().is_authorized(&request, own, &entities);
    if response.diagnostics().errors().next().is_some() {
        return Decision::Deny("forbidden");
    }
    let asks = |id| own.policy(id).unwrap().annotation("approval") == Some("required");
    let said = response.diagnostics().reason().map(|id| match asks(id) {
        true => Decision::Ask("account_policy"),
        false => Decision::Deny("account_policy"),
    });
    said.max().unwrap_or(Decision::Allow)
}

#[test]
fn t03_an_account_asks_a_person_about_nothing_that_nobody_permitted() {
    let ask = r#"@approval("required") forbid (principal, action == Action::"tool.call", resource);"#;
    let world = World { acme: tenant("acme", AccountPolicies::parse(ask).unwrap()), space: SpaceId::new() };
    let alice = user(&world.acme, "alice", Role::Member, Bounds::none());
    let call = |relation| world.call(relation, &["bash"], json!({ "command": "ls" }), Asks::No);
    assert!(matches!(alice.judge(call(Relation::Owner)), Ok(ToolVerdict::Ask(_))), "positive control");
    // She began it when she could work there. No forbid says that she may not now: no permit says that she may.
    for relation in [Relation::Granted(GrantLevel::Read), Relation::Nothing] {
        assert!(alice.judge(call(relation)).is_err());
    }
}

#[test]
fn what_stands_first_in_a_policy_is_read_and_nothing_after_what_is_not() {
    let read = |when: &str| {
        let text = format!("forbid (principal, action == Action::\"tool.call\", resource) {when};");
        assert!(AccountPolicies::parse(&text).is_ok(), "{when}");
        slice::guards(&text.parse().unwrap()).ok().unwrap().len()
    };
    assert_eq!(read(r#"when { resource.tool == "bash" && context.arguments has path && context.limited }"#), 2);
    assert_eq!(read(r#"when { resource.tool == "a" && (resource.agent == "b" && ["c"].contains(resource.tool)) }"#), 3);
    assert_eq!(read(r#"when { context.arguments_json like "*a*" } unless { resource.tool == "a" }"#), 1);
    assert_eq!(read(r#"when { context.limited && resource.tool == "a" }"#), 0);
    assert_eq!(read(r#"unless { resource.tool == "a" }"#), 0);
    assert_eq!(read(r#"when { resource.tool == "a" || resource.tool == "b" }"#), 0);
    assert_eq!(read(r#"when { resource.space.key == "a" }"#), 0);
    assert_eq!(read(r#"when { resource == ToolCall::"a" }"#), 0);
}

/// Conditions as people write them, some of which cannot be evaluated. `{}`: a word.
const CONDITIONS: [&str; 16] = [
    "resource.tool == \"{}\"",
    "\"{}\" == resource.agent",
    "[\"{}\", \"bash\"].contains(resource.tool)",
    "principal.role == \"{}\"",
    "context.arguments has path",
    "context.arguments has command && context.arguments.command like \"*{}*\"",
    "context.arguments has path && context.arguments.path like \"{}/*\"",
    "context.arguments_json like \"*{}*\"",
    "context.arguments_json like \"{}*\"",
    "context.arguments_json like \"*\"",
    "9223372036854775807 + 1 > 0",
    "context has bound_space",
    "resource.space.key == \"{}\"",
    "resource.tool != \"{}\"",
    "!(resource.tool == \"{}\")",
    "(resource.tool == \"{}\" || context.limited)",
];
const WORDS: [&str; 6] = ["bash", "read_file", "coder", "member", "secret", "src"];
const HEADS: [&str; 6] = [
    "action",
    "action == Action::\"tool.call\"",
    "action in [Action::\"tool.call\"]",
    "action in [Action::\"tool.call\", Action::\"tool.call\"]",
    "action in [Action::\"write\", Action::\"tool.call\"]",
    "action in Action::\"read\"",
];

/// A policy about tool calls.
fn a_policy() -> impl Strategy<Value = String> {
    let condition = (0..CONDITIONS.len(), 0..WORDS.len()).prop_map(|(c, w)| CONDITIONS[c].replace("{}", WORDS[w]));
    let clause =
        (any::<bool>(), prop::collection::vec(condition, 1..4), any::<bool>()).prop_map(|(unless, all, right)| {
            let word = if unless { "unless" } else { "when" };
            let joined = match right {
                true => all.join(" && "),
                false => all.into_iter().reduce(|one, other| format!("{one} && ({other})")).unwrap(),
            };
            format!("{word} {{ {joined} }}")
        });
    let clauses = prop::collection::vec(clause, 0..3);
    (any::<bool>(), 0..HEADS.len(), clauses).prop_map(|(asks, head, clauses)| {
        let approval = if asks { "@approval(\"required\") " } else { "" };
        format!("{approval}forbid (principal, {}, resource is ToolCall) {};\n", HEADS[head], clauses.join(" "))
    })
}

fn some_arguments() -> impl Strategy<Value = Value> {
    let text = prop::collection::vec(0..WORDS.len(), 0..3)
        .prop_map(|all| all.into_iter().map(|word| WORDS[word]).collect::<Vec<_>>().join("/"));
    let name = prop::sample::select(vec!["command", "path", "url"]);
    prop::collection::btree_map(name, text, 0..3).prop_map(|map| json!(map))
}

proptest! {
    // Each reads up to eight policies, each on a thread of its own.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_left_out_would_not_have_held(
        policies in prop::collection::vec(a_policy(), 1..8),
        arguments in some_arguments(),
        tool in prop::sample::select(vec!["bash", "read_file"]),
        role in prop::sample::select(vec![Role::Admin, Role::Member, Role::Viewer]),
    ) {
        // What does not fit the schema is no policy: some conditions want a clause before them.
        let text: String = policies.into_iter().filter(|one| AccountPolicies::parse(one).is_ok()).collect();
        prop_assume!(!text.is_empty());
        let parsed = AccountPolicies::parse(&text).unwrap();
        let own: PolicySet = text.parse().unwrap();
        let world = World { acme: tenant("acme", parsed), space: SpaceId::new() };
        let alice = user(&world.acme, "alice", role, Bounds::none());
        let tool: bailiwick_types::ToolName = tool.parse().unwrap();
        let session = world.session(Relation::Owner);
        let call = ToolCall::asked(session, CallId::new(), tool.clone(), arguments, vec![tool], Asks::No);
        let arguments = call.arguments.as_object();
        let caller = alice.caller();
        let question = Question::new(PoliciesId::BASE, &caller, "tool.call", &call, arguments).ok().unwrap();
        prop_assert_eq!(alice.decide("tool.call", &call, arguments), whole(&question, Some(&own)), "{}", text);
    }
}
