//! The sandboxes that run on this server, for those who manage a space whose files are inside, and for admins. What
//! runs in them is shown to nobody here: that something does, since when, and what the kernel says holds it.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use bailiwick_audit::Verdict;
use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::{EndSandbox, SeeSandboxes};
use bailiwick_auth::access::{Space, record};
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
    GET "/api/v1/sandboxes" list, Known, [SeeSandboxes], Nothing, "The running sandboxes of the spaces that the caller manages; an admin's are all";
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
pub(crate) const fn scope_word(share: &Share) -> &'static str {
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

/// All that the caller may see, by space.
pub(crate) async fn visible(app: &App, scope: &Scope) -> Result<Vec<Seen>, Failure> {
    let spaces: BTreeSet<SpaceId> = app.sandboxes().spaces(scope).into_iter().map(|(_, space)| space).collect();
    let mut seen = Vec::new();
    for id in spaces {
        let Some(space) = app.store().space_find(scope, id).await? else { continue };
        if scope.may::<SeeSandboxes>(&space) {
            seen.extend(app.sandboxes().seen(scope.authorize::<SeeSandboxes>(space)?));
        }
    }
    Ok(seen)
}

/// The space whose files are in the sandbox that a path names.
async fn find(app: &App, scope: &Scope, name: &str) -> Result<(SandboxId, Space), Failure> {
    let missing = || Failure::not_found("sandbox", name);
    let id: SandboxId = name.parse().map_err(|_| missing())?;
    let running = app.sandboxes().spaces(scope).into_iter().find(|(sandbox, _)| *sandbox == id);
    let (_, space) = running.ok_or_else(missing)?;
    let space = app.store().space_find(scope, space).await?.ok_or_else(missing)?;
    // Whoever may not see it is told nothing by its being there.
    if scope.may::<SeeSandboxes>(&space) { Ok((id, space)) } else { Err(missing()) }
}

/// Ends one, on record before and after.
pub(crate) async fn end_one(app: &App, scope: &Scope, name: &str) -> Result<SandboxId, Failure> {
    let (id, space) = find(app, scope, name).await?;
    let permit = scope.authorize::<EndSandbox>(space)?;
    let detail = Map::from_iter([("sandbox".to_owned(), json!(id))]);
    let act = record(app.store(), permit, detail.clone()).await?;
    let there = app.sandboxes().end_one(&act, id);
    act.settle(app.store(), if there { Verdict::Ok } else { Verdict::Fail }, detail).await?;
    // It ended by itself in between.
    if there { Ok(id) } else { Err(Failure::not_found("sandbox", name)) }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let seen = visible(&app, &caller.scope()?).await?;
    Ok(reply::done(seen.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

async fn end(State(app): State<App>, caller: Caller, Segments(sandbox): Segments<String>) -> Result<Response, Failure> {
    let id = end_one(&app, &caller.scope()?, &sandbox).await?;
    Ok(reply::done(json!({ "id": id, "ended": true })))
}
