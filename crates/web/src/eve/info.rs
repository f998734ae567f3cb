//! What an agent is, in the shape of eve's inspection. The client's schema is strict at every level:
//! no key may be missing or be added. No path of this host is in it.

use axum::Json;
use axum::extract::State;
use bailiwick_auth::access::verb::ReadAgent;
use bailiwick_store::agent::AgentRow;
use bailiwick_tools::catalogue;
use serde_json::{Value, json};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::eve::session::agent_of;
use crate::route::routes;

routes! {
    GET "/eve/v1/info" info, Known, [ReadAgent], Nothing, "The chosen agent, as eve inspects it";
}

async fn info(State(app): State<App>, caller: Caller) -> Result<Json<Value>, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAgent>(scope.agent_named(agent_of(&caller, &scope)))?;
    let row = app.store().agent_read(permit).await?;
    Ok(Json(shown(&row)))
}

/// Where a part comes from. The client compares two of these objects as text, so they are made once.
fn source(logical_path: &str, more: Value) -> Value {
    let owner = json!({ "kind": "framework", "feature": "bailiwick" });
    let backing = json!({
        "kind": "programmatic", "moduleId": logical_path, "registryId": "bailiwick",
        "revision": concat!("bailiwick@", env!("CARGO_PKG_VERSION")),
    });
    let mut source = json!({
        "logicalPath": logical_path,
        "owner": owner,
        "sourceId": format!("bailiwick:{logical_path}"),
        "sourceKind": "module",
        "binding": { "backing": backing, "logicalPath": logical_path, "owner": owner },
    });
    if let (Some(source), Value::Object(more)) = (source.as_object_mut(), more) {
        source.extend(more);
    }
    source
}

fn shown(row: &AgentRow) -> Value {
    let agent = &row.definition;
    let model = json!({
        "id": agent.model, "routing": { "kind": "external", "provider": "bailiwick" },
    });
    let tools: Vec<Value> = catalogue::granted(agent)
        .map(|tool| {
            let asks = agent.require_approval.contains(&tool.name) || agent.elevated.contains(&tool.name);
            let more = json!({
                "name": tool.name, "description": tool.description, "hasAuth": false, "hasExecute": true,
                "hasModelOutputProjection": false, "hasOutputSchema": false, "inputSchema": tool.schema,
                "requiresApproval": asks,
            });
            source(&format!("tools/{}", tool.name), more)
        })
        .collect();
    let instructions = if agent.instructions.is_empty() {
        Vec::new()
    } else {
        vec![source(
            "instructions",
            json!({
                "name": "instructions", "content": agent.instructions, "role": "system",
            }),
        )]
    };
    let mut about = json!({
        "agentRoot": "", "appRoot": "", "name": row.name, "nodeId": "__root__",
        "config": source("agent", json!({})), "model": model,
    });
    if !agent.description.is_empty() {
        about["description"] = json!(agent.description);
    }
    let nothing = json!({ "dynamic": [], "static": [] });
    json!({
        "kind": "eve-agent-info",
        "version": 5,
        "mode": "production",
        "agent": about,
        "capabilities": { "devRoutes": false },
        "channels": { "routes": [], "shadowed": [] },
        "composition": { "disabled": [], "shadowed": [] },
        "connections": [],
        "diagnostics": { "discoveryErrors": 0, "discoveryWarnings": 0 },
        "hooks": [],
        "instructions": { "dynamic": [], "static": instructions },
        "kernelEffects": [],
        "memories": [],
        "remoteAgents": { "entries": [], "total": 0 },
        "sandbox": source("sandbox", json!({ "provider": "bailiwick", "revisionHash": "" })),
        "schedules": [],
        "skills": nothing,
        "subagents": { "local": [], "total": 0 },
        "tools": { "dynamic": [], "static": tools },
        "workspace": { "resourceRoot": null, "rootEntries": [] },
    })
}
