//! The programs that may act for one. No listing returns a token.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ListApplications, RevokeApplication};
use bailiwick_store::application::ApplicationRow;
use bailiwick_types::{AgentName, ApplicationId, ClientIdentifier, KeyScope, SpaceId, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Segments;
use crate::reply;
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/api/v1/applications" list, Known, [ListApplications], Nothing, "The programs that may act for one (OAuth)";
    DELETE "/api/v1/applications/{application}" revoke, Known, [RevokeApplication], Nothing, "Let a program act for one no more; its tokens die at once";
}

#[derive(Serialize)]
struct Shown {
    id: ApplicationId,
    client_id: ClientIdentifier,
    name: String,
    scopes: Vec<KeyScope>,
    agent_id: Option<AgentName>,
    space_id: Option<SpaceId>,
    resource: String,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
}

impl From<ApplicationRow> for Shown {
    fn from(row: ApplicationRow) -> Self {
        let terms = row.terms;
        Self {
            id: row.id,
            client_id: terms.client,
            name: terms.name,
            scopes: terms.scopes,
            agent_id: terms.agent,
            space_id: terms.space,
            resource: terms.resource,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        }
    }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListApplications>(scope.user_named(own_name(&caller.principal)?))?;
    let rows = app.store().application_list(permit).await?;
    Ok(reply::done(rows.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Segments(application): Segments<String>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<RevokeApplication>(scope.user_named(own_name(&caller.principal)?))?;
    let id: ApplicationId = application.parse().map_err(|_| Failure::not_found("application", &application))?;
    app.store().application_revoke(permit, id).await?;
    Ok(reply::done(json!({ "id": application, "deleted": true })))
}
