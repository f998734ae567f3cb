//! The policy's decisions, in this process: with an account's own policies beside those of the house.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::{CreateSession, CreateSpace, PutAgent, PutPolicy, ReadSpace, UseAgent};
use bailiwick_auth::access::{Asks, Session, Space, ToolCall, ToolVerdict};
use bailiwick_auth::authn::{Step, Walk};
use bailiwick_auth::key::KeyRing;
use bailiwick_store::account::NewAccount;
use bailiwick_store::session::NewSession;
use bailiwick_store::{DatabaseUrl, Store};
use bailiwick_types::{AgentDefinition, CallId, RequestId};
use serde_json::json;

use super::key::presented;
use crate::report::{Report, Target};

/// An account's policies.
const POLICIES: usize = 1_000;
/// Questions of each kind in a round; fewer than are remembered.
const QUESTIONS: usize = 2_000;
/// Rounds of which the middle one counts, because what else the machine does falls into some of them.
const ROUNDS: usize = 5;
/// What a decision may take.
const MOST: Duration = Duration::from_micros(50);

pub(super) async fn measure(report: &mut Report) {
    let account = Account::open().await;
    account.measure(report, "the house's policies alone").await;
    let text = policies(POLICIES);
    let scope = account.scope().await;
    let put = scope.authorize::<PutPolicy>(scope.account()).unwrap();
    let begun = Instant::now();
    account.store.policy_put(put, text.clone()).await.unwrap().unwrap();
    let took = begun.elapsed().as_secs_f64() * 1e3;
    report.add(
        format!("{POLICIES} policies of an account, {} KiB, checked and kept", text.len() / 1024),
        format!("{took:.0} ms"),
        "",
        0.0,
        Target::None,
    );
    account.measure(report, &format!("{POLICIES} account policies")).await;
}

/// As people write them: half about what tools are given, a quarter about a space, a quarter about a user.
fn policies(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let (action, when) = match n % 4 {
            0 => ("tool.call", format!("resource.tool == \"bash\" && context.arguments_json like \"*word-{n}*\"")),
            1 => ("tool.call", format!("context.arguments has path && context.arguments.path like \"secret-{n}/*\"")),
            2 => ("space.read", format!("resource.key == \"spc_{n:026}\"")),
            _ => ("space.write", format!("resource.key == \"spc_{n:026}\"")),
        };
        let _ = writeln!(text, "forbid (principal, action == Action::\"{action}\", resource) when {{ {when} }};");
    }
    text
}

struct Account {
    store: Store,
    walk: Walk,
    key: String,
    spaces: Vec<Space>,
    session: Session,
    _dir: tempfile::TempDir,
}

impl Account {
    /// A user with an agent, a session, and as many spaces as there are questions.
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &DatabaseUrl::Sqlite).unwrap();
        let walk = Walk::new(vec![Step::ApiKey], KeyRing::new([7; 32]), None);
        let made = walk.ring().make().unwrap();
        let admin = Some(("alice".parse().unwrap(), &made));
        let new = NewAccount { name: "acme".parse().unwrap(), admin, agents: Vec::new() };
        store.account_bootstrap(new).await.unwrap();
        let key = made.into_text().to_string();
        let scope = scope(&store, &walk, &key).await;
        let mut spaces = Vec::new();
        for n in 0..ROUNDS * QUESTIONS {
            let permit = scope.authorize::<CreateSpace>(scope.account()).unwrap();
            let row = store.space_create(permit, format!("space {n}"), String::new()).await.unwrap();
            spaces.push(store.space_find(&scope, row.id).await.unwrap().unwrap());
        }
        let definition: AgentDefinition = serde_json::from_value(json!({ "tools": ["bash"] })).unwrap();
        let permit = scope.authorize::<PutAgent>(scope.account()).unwrap();
        store.agent_put(permit, "coder".parse().unwrap(), definition).await.unwrap();
        let space = scope.authorize::<CreateSession>(spaces[0].clone()).unwrap();
        let agent = scope.authorize::<UseAgent>(scope.agent_named("coder".parse().unwrap())).unwrap();
        let session = store.session_create(space, agent, NewSession { operation: None, first: None }).await.unwrap();
        Self { store, walk, key, spaces, session: session.session, _dir: dir }
    }

    /// The user, under the policies of now.
    async fn scope(&self) -> Scope {
        scope(&self.store, &self.walk, &self.key).await
    }

    async fn measure(&self, report: &mut Report, under: &str) {
        let scope = self.scope().await;
        let (mut fresh, mut remembered, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Of each space once: nobody asked before. Then again.
            for times in [&mut fresh, &mut remembered] {
                times.push(asked(|n| assert!(scope.may::<ReadSpace>(&self.spaces[round * QUESTIONS + n]))));
            }
            calls.push(self.calls(&scope));
        }
        line(report, &format!("a decision about a space, fresh, {under}"), fresh);
        line(report, &format!("a decision about a space, remembered, {under}"), remembered);
        line(report, &format!("a decision about a tool call, {under}"), calls);
    }

    /// What was taken for calls of a tool.
    fn calls(&self, scope: &Scope) -> Times {
        // What a model wants is never remembered.
        let call = |n: usize| {
            let arguments = json!({ "command": format!("cargo test --package example-{n}") });
            let tool = || "bash".parse().unwrap();
            ToolCall::asked(self.session.clone(), CallId::new(), tool(), arguments, vec![tool()], Asks::No)
        };
        let mut calls: Vec<_> = (0..QUESTIONS).map(|n| Some(call(n))).collect();
        asked(|n| assert!(matches!(scope.judge(calls[n].take().unwrap()), Ok(ToolVerdict::Go(_)))))
    }
}

async fn scope(store: &Store, walk: &Walk, key: &str) -> Scope {
    walk.authenticate(store, &presented(key)).await.unwrap().scope(RequestId::new()).unwrap()
}

/// How long each question of a round took, in order of length.
struct Times(Vec<Duration>);

impl Times {
    fn percentile(&self, part: usize) -> f64 {
        self.0[self.0.len() * part / 100].as_secs_f64() * 1e6
    }
}

/// Asks every question once.
fn asked(mut ask: impl FnMut(usize)) -> Times {
    let mut times: Vec<Duration> = (0..QUESTIONS)
        .map(|n| {
            let begun = Instant::now();
            ask(n);
            begun.elapsed()
        })
        .collect();
    times.sort();
    Times(times)
}

/// Reports the ninety-ninth of a hundred.
fn line(report: &mut Report, what: &str, mut rounds: Vec<Times>) {
    rounds.sort_by(|one, other| one.percentile(99).total_cmp(&other.percentile(99)));
    let middle = &rounds[rounds.len() / 2];
    report.add(
        format!("{what}, p99"),
        format!("{:.1} µs (p50 {:.1})", middle.percentile(99), middle.percentile(50)),
        format!("{} µs", MOST.as_micros()),
        middle.percentile(99) / (MOST.as_secs_f64() * 1e6),
        Target::AtMost(1.0),
    );
}
