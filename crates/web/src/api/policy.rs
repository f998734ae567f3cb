//! The account's own policies: Cedar text that may only forbid, or ask for an approval.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{PutPolicy, ReadPolicy};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Unread;
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/policies" show, Known, [ReadPolicy], Nothing, "The account's own policies";
    PUT "/api/v1/policies" put, Known, [PutPolicy], Json, "Set the account's own policies, as {text} or as plain text";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    text: String,
}

async fn show(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadPolicy>(scope.account())?;
    let text = app.store().policy_read(permit).await?;
    Ok(reply::done(json!({ "text": text })))
}

async fn put(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<PutPolicy>(scope.account())?;
    let text = if body.is_of(&["application/json"]) {
        body.json::<New>().await?.text
    } else if body.is_of(&["text/plain"]) {
        let bytes = body.bytes().await?.to_vec();
        String::from_utf8(bytes).map_err(|_| Failure::Parameters("body: not valid UTF-8".to_owned()))?
    } else {
        return Err(Failure::MediaType("application/json or text/plain"));
    };
    let bytes = text.len();
    app.store().policy_put(permit, text).await?.map_err(|error| Failure::Parameters(format!("body.text: {error}")))?;
    Ok(reply::done(json!({ "bytes": bytes })))
}
