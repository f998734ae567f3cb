//! Targets of notifications: who is told what, and how the last message went. An address goes in and is never shown.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{
    CreateNotification, DeleteNotification, ListNotifications, TestNotification, UpdateNotification,
};
use bailiwick_store::notification::{Outcome, Paused, TargetChange, TargetRow};
use bailiwick_types::TargetName;
use bailiwick_types::notification::{Occasion, TargetKind};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::frame::{Frame, Notice, Said, again, go, moment, notice_of, page};
use crate::api::notification::{New, add, change, named};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread};
use crate::route::routes;

routes! {
    GET "/notifications" list, Known, [ListNotifications], Nothing, "The account's targets of notifications";
    POST "/notifications" create, Known, [CreateNotification], Form, "Add a target (name, kind, address, chat, approval, question, failed, done)";
    POST "/notifications/{notification}/pause" pause, Known, [UpdateNotification], Form, "Tell a target nothing for the time being";
    POST "/notifications/{notification}/resume" resume, Known, [UpdateNotification], Form, "Let a target go on";
    POST "/notifications/{notification}/test" test, Known, [TestNotification], Form, "Send a target a test at once";
    POST "/notifications/{notification}/delete" delete, Known, [DeleteNotification], Form, "Remove a target";
}

struct Row {
    name: TargetName,
    place: String,
    events: String,
    paused: Option<String>,
    last: String,
    waiting: u64,
    dropped: u64,
}

impl From<TargetRow> for Row {
    fn from(row: TargetRow) -> Self {
        let place = match &row.chat {
            Some(chat) => format!("{}, chat {chat}", row.host),
            None => row.host.to_string(),
        };
        let events = row.events.iter().map(|event| event.as_str()).collect::<Vec<_>>().join(", ");
        let last = match (row.last_at, &row.last_state) {
            (Some(at), Some(state)) => format!("{} UTC: {state}", moment(at)),
            _ => "none yet".to_owned(),
        };
        Self { name: row.name, place, events, paused: row.paused, last, waiting: row.waiting, dropped: row.dropped }
    }
}

#[derive(Template)]
#[template(path = "notifications.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
}

async fn shown(app: &App, caller: &Caller, notice: Option<Notice>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListNotifications>(scope.account())?;
    let rows = app.store().notification_list(permit).await?.into_iter().map(Row::from).collect();
    page(&Page { frame: Frame::of(app, caller, "/notifications").await?, notice, rows })
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    shown(&app, &caller, said.notice()).await
}

/// What came of a form: the page of it, with the reason where the sender can mend it.
async fn done(app: &App, caller: &Caller, word: &str, did: Result<(), Failure>) -> Result<Response, Failure> {
    match did {
        Ok(()) => Ok(go(&format!("/notifications?ok={word}"))),
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(shown(app, caller, Some(notice)).await?, failure))
        }
    }
}

/// A form sends the boxes that are ticked, and not the others.
#[derive(Deserialize)]
struct Wanted {
    name: String,
    kind: TargetKind,
    address: Zeroizing<String>,
    #[serde(default)]
    chat: String,
    approval: Option<String>,
    question: Option<String>,
    failed: Option<String>,
    done: Option<String>,
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<CreateNotification>(scope.account())?;
    let Wanted { name, kind, address, chat, approval, question, failed, done: ended } = body.form().await?;
    let boxes = [
        (approval, Occasion::Approval),
        (question, Occasion::Question),
        (failed, Occasion::Failed),
        (ended, Occasion::Done),
    ];
    let events = boxes.into_iter().filter_map(|(ticked, event)| ticked.map(|_| event)).collect();
    let did = async {
        let name = name.trim().parse().map_err(|error| Failure::Parameters(format!("name: {error}")))?;
        let address = Zeroizing::new(address.trim().to_owned());
        let chat = Some(chat.trim().to_owned()).filter(|chat| !chat.is_empty());
        add(&app, &scope, permit, New { name, kind, address, chat, events }).await.map(drop)
    };
    let did = did.await;
    done(&app, &caller, "target_made", did).await
}

async fn pause(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    turn(&app, &caller, &name, Paused::Yes).await
}

async fn resume(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    turn(&app, &caller, &name, Paused::No).await
}

async fn turn(app: &App, caller: &Caller, name: &str, paused: Paused) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<UpdateNotification>(scope.account())?;
    let wanted = TargetChange { address: None, events: None, paused: Some(paused) };
    change(app, &scope, permit, named(name)?, wanted).await?;
    Ok(go("/notifications?ok=changed"))
}

async fn test(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    // Asked before the name is looked at: who may not is told nothing of it.
    drop(scope.authorize::<TestNotification>(scope.account())?);
    let outcome = app.notifier().test(&scope, &named(&name)?).await?;
    let notice = match outcome {
        Outcome::Delivered => Notice::Done("The test was delivered."),
        other => Notice::Failed(format!("The test was not delivered: {}", other.state())),
    };
    shown(&app, &caller, Some(notice)).await
}

async fn delete(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<DeleteNotification>(scope.account())?;
    app.store().notification_delete(permit, named(&name)?).await?;
    Ok(go("/notifications?ok=removed"))
}
