//! The sandboxes that run on this server, for whoever uses one, whoever manages the space whose files are inside, and
//! admins. What runs in them is shown to nobody here: that something does, since when, and what the kernel says holds
//! it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use axum::extract::State;
use axum::response::Response;
use bailiwick_audit::Verdict;
use bailiwick_auth::access::verb::{EndSandbox, ListSandboxes, SeeSandbox};
use bailiwick_auth::access::{Sandbox, Space, record};
use bailiwick_auth::{Permit, Scope};
use bailiwick_sandbox::{Seen, Share};
use bailiwick_types::{AgentName, SandboxId, SessionId, SpaceId, Timestamp, UserName};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Segments;
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/sandboxes" list, Known, [ListSandboxes], Nothing, "The running sandboxes that the caller may see";
    DELETE "/api/v1/sandboxes/{sandbox}" end, Known, [EndSandbox], Nothing, "End a running sandbox with whatever runs in it";
}

#[derive(Serialize)]
struct Shown {
    id: SandboxId,
    space_id: SpaceId,
    agent: AgentName,
    user: UserName,
    session_id: SessionId,
    backend: &'static str,
    scope: &'static str,
    network: &'static str,
    started_at: Timestamp,
    unused_seconds: u64,
    commands: u64,
    running: u32,
    receipt: Option<Value>,
}

impl From<Seen> for Shown {
    fn from(seen: Seen) -> Self {
        Self {
            id: seen.id,
            space_id: seen.space,
            scope: scope_word(&seen.share),
            network: network_word(&seen),
            agent: seen.agent,
            user: seen.user,
            session_id: seen.session,
            backend: seen.backend.as_str(),
            started_at: seen.began,
            unused_seconds: seen.unused.as_secs(),
            commands: seen.commands,
            running: seen.busy,
            receipt: seen.receipt.map(|receipt| receipt.record()),
        }
    }
}

/// As in an agent's definition (`sandbox.scope`).
const fn scope_word(share: &Share) -> &'static str {
    match share {
        Share::Session(_) => "session",
        Share::Agent(_) => "agent",
        Share::Account => "shared",
    }
}

/// Whether anything can leave it.
pub(crate) fn network_word(seen: &Seen) -> &'static str {
    match seen.backend {
        bailiwick_sandbox::Backend::Host => "host",
        _ if seen.goes_out => "gate",
        _ => "none",
    }
}

/// All that the caller may see.
pub(crate) async fn visible(app: &App, permit: Permit<ListSandboxes>) -> Result<Vec<Seen>, Failure> {
    let scope = permit.scope();
    let mut spaces: BTreeMap<SpaceId, Option<Space>> = BTreeMap::new();
    let mut seen = Vec::new();
    for (id, session) in app.sandboxes().running(scope) {
        let space = match spaces.entry(session.space().id()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(app.store().space_find(scope, session.space().id()).await?),
        };
        let sandbox = space.clone().and_then(|space| Sandbox::entered_by(&session, space, id));
        if let Some(sandbox) = sandbox.filter(|sandbox| scope.may::<SeeSandbox>(sandbox)) {
            seen.extend(app.sandboxes().seen(scope.authorize::<SeeSandbox>(sandbox)?));
        }
    }
    Ok(seen)
}

/// The sandbox that a path names, with what its space is now.
async fn find(app: &App, scope: &Scope, name: &str) -> Result<Sandbox, Failure> {
    let missing = || Failure::not_found("sandbox", name);
    let id: SandboxId = name.parse().map_err(|_| missing())?;
    let running = app.sandboxes().running(scope).into_iter().find(|(sandbox, _)| *sandbox == id);
    let (_, session) = running.ok_or_else(missing)?;
    let space = app.store().space_find(scope, session.space().id()).await?.ok_or_else(missing)?;
    Sandbox::entered_by(&session, space, id).ok_or_else(missing)
}

/// Ends one, on record before and after.
pub(crate) async fn end_one(app: &App, scope: &Scope, name: &str) -> Result<SandboxId, Failure> {
    let permit = scope.authorize::<EndSandbox>(find(app, scope, name).await?)?;
    let act = record(app.store(), permit, Map::new()).await?;
    let (id, there) = (act.resource().id(), app.sandboxes().end_one(&act));
    act.settle(app.store(), if there { Verdict::Ok } else { Verdict::Fail }, Map::new()).await?;
    // It ended by itself in between.
    if there { Ok(id) } else { Err(Failure::not_found("sandbox", name)) }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let seen = visible(&app, scope.authorize::<ListSandboxes>(scope.account())?).await?;
    Ok(reply::done(seen.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

async fn end(State(app): State<App>, caller: Caller, Segments(sandbox): Segments<String>) -> Result<Response, Failure> {
    let id = end_one(&app, &caller.scope()?, &sandbox).await?;
    Ok(reply::done(json!({ "id": id, "ended": true })))
}
