//! The plan of a space. People and the `plan` tool write it under one schema, the tool's.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ReadSpace, WriteSpace};
use serde_json::json;

use crate::api::space::find;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/spaces/{space}/plan" show, Known, [ReadSpace], Nothing, "The space's plan";
    PUT "/api/v1/spaces/{space}/plan" put, Known, [WriteSpace], Json, "Write the whole plan: {items: [{text, status}]}";
}

async fn show(State(app): State<App>, caller: Caller, Segments(space): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadSpace>(find(&app, &scope, &space).await?)?;
    Ok(reply::done(json!({ "items": app.store().plan_read(&permit).await? })))
}

async fn put(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<WriteSpace>(find(&app, &scope, &space).await?)?;
    let mut plan = body.json_or_nothing().await?.unwrap_or_else(|| json!({}));
    let schema = bailiwick_tools::catalogue::find("plan").ok_or(Failure::Defect("there is no tool `plan`"))?;
    schema.check(&plan).map_err(|problem| Failure::Parameters(format!("body: {problem}")))?;
    let items = plan["items"].take();
    app.store().plan_write(permit, items.clone()).await?;
    Ok(reply::done(json!({ "items": items })))
}
