//! Where the caller stands: whether the server is set up, and as whom they are known.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::ReadAccount;
use serde_json::json;

use crate::api::user::role_word;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/system/status" status, Known, [ReadAccount], Nothing, "Whether the server is set up, and as whom the caller is known";
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
