//! Grants on a space: who else may read, write or manage it.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{GrantSpace, SeeSpace};
use bailiwick_types::{GrantLevel, UserName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::space::find;
use crate::api::user::named;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/spaces/{space}/grants" list, Known, [SeeSpace], Nothing, "Who has which grant on a space";
    PUT "/api/v1/spaces/{space}/grants" put, Known, [GrantSpace], Json, "Give or change a grant (user, level: read, write or manage)";
    DELETE "/api/v1/spaces/{space}/grants/{user}" delete, Known, [GrantSpace], Nothing, "Take a grant";
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    user: UserName,
    level: GrantLevel,
}

async fn list(State(app): State<App>, caller: Caller, Segments(space): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<SeeSpace>(find(&app, &scope, &space).await?)?;
    let grants = app.store().grant_list(permit).await?;
    Ok(reply::done(grants.into_iter().map(|(user, level)| Grant { user, level }).collect::<Vec<_>>()))
}

async fn put(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<GrantSpace>(find(&app, &scope, &space).await?)?;
    let grant: Grant = body.json().await?;
    app.store().grant_set(permit, grant.user.clone(), Some(grant.level)).await?;
    Ok(reply::done(grant))
}

async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segments((space, user)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<GrantSpace>(find(&app, &scope, &space).await?)?;
    app.store().grant_set(permit, named(&user)?, None).await?;
    Ok(reply::done(json!({ "user": user, "deleted": true })))
}
