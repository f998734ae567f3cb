//! The inbox of decisions.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{DecideApproval, ListApprovals};
use serde::Deserialize;

use super::frame::{Frame, Notice, Said, again, go, moment, notice_of, page};
use crate::api::approval::{Word, decided, find};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread};
use crate::route::routes;

routes! {
    GET "/approvals" list, Known, [ListApprovals], Nothing, "What waits for the caller's decision";
    POST "/approvals/{approval}" decide, Known, [DecideApproval], Form, "Decide (decision: approve or deny)";
}

struct Row {
    id: String,
    agent: String,
    tool: String,
    requester: String,
    until: String,
    session: String,
    prompt: String,
    arguments: String,
}

#[derive(Template)]
#[template(path = "approvals.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
}

async fn shown(app: &App, caller: &Caller, notice: Option<Notice>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let rows = app.store().approval_list(scope.authorize::<ListApprovals>(scope.account())?).await?;
    let rows = rows.into_iter().map(|pending| {
        let row = pending.approval;
        Row {
            id: row.id.to_string(),
            agent: pending.agent.to_string(),
            tool: row.tool.to_string(),
            requester: row.requester.to_string(),
            until: moment(row.expires_at),
            session: row.session.to_string(),
            prompt: row.prompt,
            arguments: serde_json::to_string_pretty(&row.arguments).unwrap_or_default(),
        }
    });
    let rows = rows.collect();
    page(&Page { frame: Frame::of(app, caller, "/approvals").await?, notice, rows })
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    shown(&app, &caller, said.notice()).await
}

#[derive(Deserialize)]
struct Answer {
    decision: Word,
}

async fn decide(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let approval = find(&app, &scope, &name).await?;
    let id = approval.id();
    let _permit = scope.authorize::<DecideApproval>(approval)?;
    let Answer { decision }: Answer = body.form().await?;
    match decided(&app, &scope, id, decision, None).await {
        Ok(_) => {
            Ok(go(if matches!(decision, Word::Approve) { "/approvals?ok=approved" } else { "/approvals?ok=denied" }))
        }
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(shown(&app, &caller, Some(notice)).await?, failure))
        }
    }
}
