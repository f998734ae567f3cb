//! What anyone may ask: whether the server is well, what it is, and what it can do.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::access::verb::ReadHostAudit;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::api::user::role_word;
use crate::app::App;
use crate::caller::{Caller, MaybeCaller};
use crate::error::Failure;
use crate::openapi;
use crate::route::routes;

routes! {
    GET "/" home, Public, [], Nothing, "A page that says what this server is";
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

async fn home(State(app): State<App>) -> Response {
    let page = include_str!("home.html")
        .replace("{{name}}", &escape(&app.settings().server_name))
        .replace("{{version}}", env!("CARGO_PKG_VERSION"));
    let mut response = page.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(HOME_POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// No script at all; the style is the page's own, named by its hash.
const HOME_POLICY: &str = "default-src 'none'; style-src 'sha256-ChP8w/zlcsFpmsAofZwmh9UvQzd61HATu6C83M+9Q60='; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use base64::Engine;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_pages_policy_names_its_own_style_and_it_has_no_script() {
        let page = include_str!("home.html");
        let style = page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).unwrap().0;
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style));
        assert!(HOME_POLICY.contains(&format!("'sha256-{hash}'")), "put 'sha256-{hash}' into HOME_POLICY");
        assert!(!page.contains("<script") && !page.contains("style="));
    }
}
