//! Spaces. The owner of a new one is the caller; a body that names another is refused.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Scope;
use bailiwick_auth::access::Space;
use bailiwick_auth::access::verb::{CreateSpace, DeleteSpace, ListSpaces, ReadSpace, SeeSpace, UpdateSpace};
use bailiwick_store::space::{Personal, SpaceRow};
use bailiwick_types::{SpaceId, Timestamp, UserName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::session;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread, line, page_rows};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/spaces" list, Known, [ListSpaces], Nothing, "The spaces that the caller owns or was granted";
    POST "/api/v1/spaces" create, Known, [CreateSpace], Json, "Create a space of the caller's own (name, description)";
    GET "/api/v1/spaces/{space}" show, Known, [SeeSpace], Nothing, "One space";
    PATCH "/api/v1/spaces/{space}" update, Known, [UpdateSpace], Json, "Rename or describe a space";
    DELETE "/api/v1/spaces/{space}" delete, Known, [DeleteSpace], Nothing, "Delete a space with its files and sessions";
    GET "/api/v1/spaces/{space}/sessions" sessions, Known, [ReadSpace], Nothing, "The sessions of a space that the caller may read (limit)";
}

const LONGEST_NAME: usize = 200;
const LONGEST_DESCRIPTION: usize = 2_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    name: Option<String>,
    description: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    id: SpaceId,
    name: String,
    description: String,
    owner: UserName,
    personal: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<SpaceRow> for Shown {
    fn from(row: SpaceRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            description: row.description,
            owner: row.owner,
            personal: row.personal == Personal::Yes,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The space that a path names, in the caller's tenant.
pub(crate) async fn find(app: &App, scope: &Scope, name: &str) -> Result<Space, Failure> {
    let missing = || Failure::not_found("space", name);
    let id: SpaceId = name.parse().map_err(|_| missing())?;
    app.store().space_find(scope, id).await?.ok_or_else(missing)
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListSpaces>(scope.account())?;
    let spaces: Vec<Shown> = app.store().space_list(permit).await?.into_iter().map(Shown::from).collect();
    Ok(reply::done(spaces))
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<CreateSpace>(scope.account())?;
    let new: New = body.json().await?;
    check(Some(&new.name), Some(&new.description))?;
    Ok(reply::done(Shown::from(app.store().space_create(permit, new.name, new.description).await?)))
}

async fn show(State(app): State<App>, caller: Caller, Segments(space): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<SeeSpace>(find(&app, &scope, &space).await?)?;
    Ok(reply::done(Shown::from(app.store().space_see(permit).await?)))
}

async fn update(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<UpdateSpace>(find(&app, &scope, &space).await?)?;
    let change: Change = body.json().await?;
    check(change.name.as_deref(), change.description.as_deref())?;
    Ok(reply::done(Shown::from(app.store().space_update(permit, change.name, change.description).await?)))
}

async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<DeleteSpace>(find(&app, &scope, &space).await?)?;
    app.runtime().space_delete(permit).await?;
    Ok(reply::done(json!({ "id": space, "deleted": true })))
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn sessions(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    Params(Limit { limit }): Params<Limit>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadSpace>(find(&app, &scope, &space).await?)?;
    let rows = app.store().session_list_in(&permit, page_rows(limit, 100)?).await?;
    Ok(reply::done(rows.into_iter().map(session::Shown::from).collect::<Vec<_>>()))
}

/// Whether a space can be called and described so.
pub(crate) fn check(name: Option<&str>, description: Option<&str>) -> Result<(), Failure> {
    if let Some(name) = name {
        if name.trim().is_empty() {
            return Err(Failure::Parameters("body.name: is empty".to_owned()));
        }
        line("name", name, LONGEST_NAME)?;
    }
    description.map_or(Ok(()), |text| line("description", text, LONGEST_DESCRIPTION))
}
