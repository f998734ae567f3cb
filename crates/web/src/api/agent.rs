//! Agent definitions of the account: admins write, all read.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{DeleteAgent, ListAgents, PutAgent, ReadAgent};
use bailiwick_store::agent::AgentRow;
use bailiwick_tools::is_known;
use bailiwick_types::{AgentDefinition, AgentName};
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread, typed};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/agents" list, Known, [ListAgents], Nothing, "The account's agents";
    GET "/api/v1/agents/{agent}" show, Known, [ReadAgent], Nothing, "One agent's definition";
    PUT "/api/v1/agents/{agent}" put, Known, [PutAgent], Json, "Create an agent, or a new version of it";
    DELETE "/api/v1/agents/{agent}" delete, Known, [DeleteAgent], Nothing, "Delete an agent; sessions keep the version that they began with";
}

/// What we add to a definition when we show it; ignored when it comes back, so that what was read can
/// be changed and sent.
const ADDED: [&str; 4] = ["id", "version", "source", "updated_at"];

#[derive(Serialize)]
struct Shown {
    id: AgentName,
    version: u64,
    source: String,
    updated_at: bailiwick_types::Timestamp,
    #[serde(flatten)]
    definition: AgentDefinition,
}

impl From<AgentRow> for Shown {
    fn from(row: AgentRow) -> Self {
        Self {
            id: row.name,
            version: row.version,
            source: row.source,
            updated_at: row.updated_at,
            definition: row.definition,
        }
    }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListAgents>(scope.account())?;
    let agents: Vec<Shown> = app.store().agent_list(permit).await?.into_iter().map(Shown::from).collect();
    Ok(reply::done(agents))
}

async fn show(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAgent>(scope.agent_named(named(&name)?))?;
    Ok(reply::done(Shown::from(app.store().agent_read(permit).await?)))
}

async fn put(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<PutAgent>(scope.account())?;
    let name: AgentName = name.parse()?;
    let mut sent = body.json_or_nothing().await?.unwrap_or_else(|| json!({}));
    if let Some(fields) = sent.as_object_mut() {
        if fields.get("id").is_some_and(|id| id.as_str() != Some(name.as_str())) {
            return Err(Failure::Parameters("body.id: is not the agent of the path".to_owned()));
        }
        for added in ADDED {
            fields.shift_remove(added);
        }
    }
    let definition: AgentDefinition = typed(sent)?;
    definition.check(is_known).map_err(|error| Failure::Parameters(format!("body: {error}")))?;
    let models = &app.settings().models;
    if !models.is_empty() && !models.contains(&definition.model) {
        return Err(Failure::Parameters(format!("body.model: there is no model {}", definition.model)));
    }
    let version = app.store().agent_put(permit, name.clone(), definition).await?;
    Ok(reply::done(json!({ "id": name, "version": version })))
}

async fn delete(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<DeleteAgent>(scope.agent_named(named(&name)?))?;
    app.store().agent_delete(permit).await?;
    Ok(reply::done(json!({ "id": name, "deleted": true })))
}

/// An agent's name from a path: what cannot be one names none.
fn named(name: &str) -> Result<AgentName, Failure> {
    name.parse().map_err(|_| Failure::not_found("agent", name))
}
