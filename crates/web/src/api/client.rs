//! Clients of the authorization server, for the operator: those that registered themselves, and those that
//! the operator registers, which a page of consent says and which never expire.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{CreateClient, DeleteClient, ListClients};
use bailiwick_store::client::ClientRow;
use bailiwick_types::{ClientId, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread};
use crate::oauth::register::{Wanted, answered};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/admin/clients" list, Known, [ListClients], Nothing, "The registered clients of the authorization server";
    POST "/api/v1/admin/clients" create, Known, [CreateClient], Json, "Register a client (as RFC 7591 has it); its secret is shown once";
    DELETE "/api/v1/admin/clients/{client}" delete, Known, [DeleteClient], Nothing, "Take a registration away; its applications get no more tokens";
}

#[derive(Serialize)]
struct Shown {
    client_id: ClientId,
    client_name: String,
    redirect_uris: Vec<String>,
    confidential: bool,
    registered_by: &'static str,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
}

impl From<ClientRow> for Shown {
    fn from(row: ClientRow) -> Self {
        Self {
            client_id: row.id,
            client_name: row.name,
            redirect_uris: row.redirect_uris,
            confidential: row.secret.is_some(),
            registered_by: row.source.as_str(),
            created_at: row.created_at,
            last_used_at: row.used_at,
        }
    }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ListClients>()?;
    let rows = app.store().client_list(permit).await?;
    Ok(reply::done(rows.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<CreateClient>()?;
    let wanted: Wanted = body.json().await?;
    let (new, answer) = wanted.make(&app)?.parts();
    let at = app.store().client_create(permit, new).await?;
    Ok(reply::done(answered(answer, at)))
}

async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segments(client): Segments<String>,
) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<DeleteClient>()?;
    let id: ClientId = client.parse().map_err(|_| Failure::not_found("client", &client))?;
    app.store().client_delete(permit, id).await?;
    Ok(reply::done(json!({ "id": client, "deleted": true })))
}
