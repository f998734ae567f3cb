//! Where the caller stands: as whom they are known, and what they used.

use std::num::NonZeroU32;

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ListSessions, ReadAccount};
use bailiwick_store::session::Tokens;
use bailiwick_types::limits::{BODY_BYTES, PAGE_ROWS, UPLOAD_BYTES};
use serde_json::json;

use crate::api::user::role_word;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/system/status" status, Known, [ReadAccount], Nothing, "Whether the server is set up, and as whom the caller is known";
    GET "/api/v1/limits" limits, Known, [ReadAccount], Nothing, "What holds for the caller: rates, and the lengths of bodies";
    GET "/api/v1/usage" usage, Known, [ListSessions], Nothing, "Tokens of the caller's newest sessions";
}

async fn status(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let principal = &caller.principal;
    if principal.tenant().is_some() {
        let scope = caller.scope()?;
        let _permit = scope.authorize::<ReadAccount>(scope.account())?;
    }
    Ok(reply::done(json!({
        "initialized": true,
        "user": principal.user(),
        "account": principal.tenant().map(bailiwick_auth::Tenant::account),
        "role": principal.role().map(role_word),
        "operator": principal.is_operator(),
        "server": app.settings().server_name,
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

async fn limits(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let _permit = scope.authorize::<ReadAccount>(scope.account())?;
    let rates = app.settings().rates;
    Ok(reply::done(json!({
        // 0: none.
        "requests_per_second_per_principal": rates.principal.map_or(0, NonZeroU32::get),
        "requests_per_second_per_address": rates.address.map_or(0, NonZeroU32::get),
        "body_bytes": BODY_BYTES, "upload_bytes": UPLOAD_BYTES, "page_rows": PAGE_ROWS,
    })))
}

async fn usage(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListSessions>(scope.account())?;
    let rows = app.store().session_list(permit, PAGE_ROWS).await?;
    let mut tokens = Tokens::default();
    for row in &rows {
        tokens.add(&row.tokens);
    }
    Ok(reply::done(json!({ "sessions": rows.len(), "tokens": tokens })))
}
