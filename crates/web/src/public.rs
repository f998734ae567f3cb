//! What anyone may ask: whether the server is well, what it is, and what it can do.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::access::verb::ReadHostAudit;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::api::user::role_word;
use crate::app::App;
use crate::caller::{Caller, MaybeCaller};
use crate::error::Failure;
use crate::openapi;
use crate::route::routes;

routes! {
    GET "/health" health, Greeting, [], Nothing, "Whether the server runs, and as whom a key is known";
    GET "/ready" ready, Public, [], Nothing, "Whether the server can work";
    GET "/metrics" metrics, Known, [ReadHostAudit], Nothing, "Numbers for the operator, as Prometheus text";
    GET "/openapi.json" document, Greeting, [], Nothing, "This document";
}

async fn health(State(app): State<App>, MaybeCaller(caller): MaybeCaller) -> Response {
    let mut body = json!({
        "status": "ok",
        "healthy": true,
        "version": env!("CARGO_PKG_VERSION"),
        "auth_mode": app.settings().auth_mode.as_str(),
    });
    if let Some(Caller { principal, .. }) = caller {
        let role = if principal.is_operator() { Some("root") } else { principal.role().map(role_word) };
        body["account_id"] = json!(principal.tenant().map(bailiwick_auth::Tenant::account));
        body["user_id"] = json!(principal.user());
        body["role"] = json!(role);
    }
    Json(body).into_response()
}

async fn ready(State(app): State<App>) -> Response {
    let (status, word, database) = match app.store().ready().await {
        Ok(()) => (StatusCode::OK, "ready", "ok"),
        Err(error) => {
            tracing::error!(%error, "the database does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "failed")
        }
    };
    (status, Json(json!({ "status": word, "checks": { "database": database } }))).into_response()
}

/// Who may read the host's log may read its numbers, which say less.
async fn metrics(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let _permit = caller.host().authorize::<ReadHostAudit>()?;
    let text = app.meters().text(app.store().lost_observations(), app.sandboxes().count());
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

async fn document(State(app): State<App>, MaybeCaller(caller): MaybeCaller) -> Json<Value> {
    let whole = if caller.is_some() { openapi::Part::Whole } else { openapi::Part::Public };
    Json(openapi::document(app.settings(), whole))
}
