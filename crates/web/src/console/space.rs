//! Spaces, and who is let into one.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{CreateSpace, GrantSpace, ListSpaces, SeeSpace};
use bailiwick_store::space::{Personal, SpaceRow};
use bailiwick_types::GrantLevel;
use serde::Deserialize;

use super::frame::{Frame, Notice, Said, again, go, moment, notice_of, page};
use crate::api::space::{check, find};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread};
use crate::route::routes;

routes! {
    GET "/spaces" list, Known, [ListSpaces], Nothing, "The spaces that one may see";
    POST "/spaces" create, Known, [CreateSpace], Form, "Make a space (name, description)";
    GET "/spaces/{space}" show, Known, [SeeSpace], Nothing, "A space, and who is let in";
    POST "/spaces/{space}/grant" grant, Known, [GrantSpace], Form, "Let somebody in (user, level)";
    POST "/spaces/{space}/revoke" revoke, Known, [GrantSpace], Form, "Take a grant (user)";
}

struct Row {
    id: String,
    name: String,
    description: String,
    owner: String,
    personal: bool,
    changed: String,
}

impl From<SpaceRow> for Row {
    fn from(row: SpaceRow) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name,
            description: row.description,
            owner: row.owner.to_string(),
            personal: row.personal == Personal::Yes,
            changed: moment(row.updated_at),
        }
    }
}

#[derive(Template)]
#[template(path = "spaces.html")]
struct ListPage {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "space.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    row: Row,
    grants: Vec<(String, &'static str)>,
    may_grant: bool,
}

async fn listed(app: &App, caller: &Caller, notice: Option<Notice>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let rows = app.store().space_list(scope.authorize::<ListSpaces>(scope.account())?).await?;
    let rows = rows.into_iter().map(Row::from).collect();
    page(&ListPage { frame: Frame::of(app, caller, "/spaces").await?, notice, rows })
}

async fn shown(app: &App, caller: &Caller, name: &str, notice: Option<Notice>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let space = find(app, &scope, name).await?;
    let may_grant = scope.may::<GrantSpace>(&space);
    let row = app.store().space_see(scope.authorize::<SeeSpace>(space.clone())?).await?.into();
    let grants = app.store().grant_list(scope.authorize::<SeeSpace>(space)?).await?;
    let grants = grants.into_iter().map(|(user, level)| (user.to_string(), level.as_str())).collect();
    page(&Page { frame: Frame::of(app, caller, "/spaces").await?, notice, row, grants, may_grant })
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    listed(&app, &caller, said.notice()).await
}

#[derive(Deserialize)]
struct New {
    name: String,
    #[serde(default)]
    description: String,
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<CreateSpace>(scope.account())?;
    let new: New = body.form().await?;
    let made = async {
        check(Some(&new.name), Some(&new.description))?;
        Ok(app.store().space_create(permit, new.name, new.description).await?)
    };
    match made.await {
        Ok(row) => Ok(go(&format!("/spaces/{}?ok=made", row.id))),
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(listed(&app, &caller, Some(notice)).await?, failure))
        }
    }
}

async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    Params(said): Params<Said>,
) -> Result<Response, Failure> {
    shown(&app, &caller, &space, said.notice()).await
}

#[derive(Deserialize)]
struct Grant {
    user: String,
    level: GrantLevel,
}

#[derive(Deserialize)]
struct Whom {
    user: String,
}

async fn changed(
    app: &App,
    caller: &Caller,
    (space, permit): (&str, Permit<GrantSpace>),
    user: &str,
    level: Option<GrantLevel>,
) -> Result<Response, Failure> {
    let set = async { Ok::<(), Failure>(app.store().grant_set(permit, user.trim().parse()?, level).await?) };
    match set.await {
        Ok(()) => Ok(go(&format!("/spaces/{space}?ok=changed"))),
        // Typed wrongly, and to be typed once more.
        Err(failure) if failure.missing().is_some_and(|(kind, _)| kind == "user") => {
            let notice = Notice::Failed(failure.message());
            Ok(again(shown(app, caller, space, Some(notice)).await?, failure))
        }
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(shown(app, caller, space, Some(notice)).await?, failure))
        }
    }
}

async fn grant(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<GrantSpace>(find(&app, &scope, &space).await?)?;
    let Grant { user, level }: Grant = body.form().await?;
    changed(&app, &caller, (&space, permit), &user, Some(level)).await
}

async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<GrantSpace>(find(&app, &scope, &space).await?)?;
    let Whom { user }: Whom = body.form().await?;
    changed(&app, &caller, (&space, permit), &user, None).await
}
