//! The programs that may act for one, and their end.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ListApplications, RevokeApplication};
use bailiwick_store::application::ApplicationRow;
use bailiwick_types::ApplicationId;

use super::frame::{Frame, Notice, Said, go, moment, page};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments};
use crate::oauth::scopes_text;
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/applications" list, Known, [ListApplications], Nothing, "The programs that may act for one";
    POST "/applications/{application}/end" end, Known, [RevokeApplication], Form, "Let a program act for one no more";
}

struct Row {
    id: ApplicationId,
    name: String,
    may: String,
    bound: String,
    since: String,
    used: String,
}

impl From<ApplicationRow> for Row {
    fn from(row: ApplicationRow) -> Self {
        let terms = row.terms;
        let bound = [terms.agent.map(|agent| agent.to_string()), terms.space.map(|space| space.to_string())];
        let part = Some(terms.resource).filter(|part| !part.is_empty());
        let bound = bound.into_iter().chain([part]).flatten().collect::<Vec<_>>().join(", ");
        Self {
            id: row.id,
            name: terms.name,
            may: scopes_text(&terms.scopes),
            bound: if bound.is_empty() { "nothing".to_owned() } else { bound },
            since: moment(row.created_at),
            used: row.last_used_at.map_or_else(|| "never".to_owned(), moment),
        }
    }
}

#[derive(Template)]
#[template(path = "applications.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListApplications>(scope.user_named(own_name(&caller.principal)?))?;
    let rows = app.store().application_list(permit).await?.into_iter().map(Row::from).collect();
    page(&Page { frame: Frame::of(&app, &caller, "/applications").await?, notice: said.notice(), rows })
}

async fn end(State(app): State<App>, caller: Caller, Segments(id): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<RevokeApplication>(scope.user_named(own_name(&caller.principal)?))?;
    let id: ApplicationId = id.parse().map_err(|_| Failure::not_found("application", &id))?;
    app.store().application_revoke(permit, id).await?;
    Ok(go("/applications?ok=application_ended"))
}
