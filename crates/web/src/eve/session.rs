//! Beginning sessions, sending into them, and commanding them. A session of somebody else is told
//! apart from none by nobody.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_agent::{Control, ControlAnswer, RuntimeError};
use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::{ControlSession, CreateSession, ReadSession, SendSession, UseAgent};
use bailiwick_auth::access::{Session, Space};
use bailiwick_types::AgentName;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::api::session::find;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::eve::message::{self, FollowUp};
use crate::input::{Segments, Unread};
use crate::route::routes;

routes! {
    POST "/eve/v1/session" create, Known, [CreateSession, UseAgent], Json, "Begin a session, with a first message or without";
    POST "/eve/v1/session/{session}" follow_up, Known, [SendSession], Json, "Send a message, or answer what a turn waits for";
    POST "/eve/v1/session/{session}/cancel" cancel, Known, [ControlSession], Json, "End the present turn";
    POST "/eve/v1/session/{session}/clear" clear, Known, [ControlSession], Json, "Forget the conversation";
    POST "/eve/v1/session/{session}/compact" compact, Known, [ControlSession], Json, "Summarise the conversation";
    POST "/eve/v1/session/{session}/reset" reset, Known, [ControlSession], Json, "End the session";
    GET "/eve/v1/session/{session}/stubs" stubs, Known, [], Nothing, "Not here: tools are never stubbed";
    GET "/eve/v1/session/{session}/subagents/{call}/{child}/stream" subagent, Known, [], Nothing, "Not here: there are no remote agents";
}

/// The session's id in a reply's head.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("x-eve-session-id");

/// Which agent: the key's, else the header's, else the account's default.
pub(crate) fn agent_of(caller: &Caller, scope: &Scope) -> AgentName {
    scope.bounds().agent.or_else(|| caller.wanted.agent.clone()).unwrap_or_else(AgentName::first)
}

/// Which space: the key's, else the header's, else the caller's own.
async fn space_of(app: &App, caller: &Caller, scope: &Scope) -> Result<Space, Failure> {
    if let Some(bound) = scope.bounds().space {
        let found = app.store().space_find(scope, bound).await?;
        return found.ok_or_else(|| Failure::not_found("space", &bound.to_string()));
    }
    match &caller.wanted.space {
        Some(name) => crate::api::space::find(app, scope, name).await,
        None => Ok(app.store().space_personal(scope).await?),
    }
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let space = space_of(&app, &caller, &scope).await?;
    let agent = agent_of(&caller, &scope);
    let _permits = (
        scope.authorize::<UseAgent>(scope.agent_named(agent.clone()))?,
        scope.authorize::<CreateSession>(space.clone())?,
    );
    let new = message::create(message::object(body.json_or_nothing().await?)?)?;
    let id = app.runtime().create(&scope, space, agent, new.operation, new.message).await?;
    Ok(about(&id.to_string(), accepted(json!({ "ok": true, "sessionId": id, "status": "accepted" }))))
}

/// Names the session in the reply's head.
fn about(id: &str, mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(SESSION_ID, id);
    }
    response
}

async fn follow_up(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let delivery = send(&app, &caller, &name, async || body.json_or_nothing().await).await?;
    Ok(about(&name, accepted(json!({ "ok": true, "sessionId": name, "status": "accepted", "deliveryId": delivery }))))
}

/// Sends into a session. The body is read when the right was asked for.
pub(crate) async fn send(
    app: &App,
    caller: &Caller,
    name: &str,
    body: impl AsyncFnOnce() -> Result<Option<Value>, Failure>,
) -> Result<String, Failure> {
    let (scope, session) = own::<SendSession>(app, caller, name).await?;
    let sent = match message::follow_up(message::object(body().await?)?)? {
        FollowUp::Message(message) => app.runtime().send(&scope, session, message).await,
        FollowUp::Answers(answers) => app.runtime().respond(&scope, session, answers).await,
    };
    match sent {
        Err(RuntimeError::NotFound) => Err(Failure::not_found("request", "of this session")),
        other => Ok(other?),
    }
}

async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let answer = end_turn(&app, &caller, &name, async || body.json_or_nothing().await).await?;
    Ok(match answer {
        ControlAnswer::Accepted => accepted(json!({ "ok": true, "sessionId": name, "status": "accepted" })),
        ControlAnswer::NoActive => done(json!({ "ok": true, "status": "no_active_turn" })),
    })
}

/// Ends a session's present turn. The body is read when the right was asked for.
pub(crate) async fn end_turn(
    app: &App,
    caller: &Caller,
    name: &str,
    body: impl AsyncFnOnce() -> Result<Option<Value>, Failure>,
) -> Result<ControlAnswer, Failure> {
    let (scope, session) = own::<ControlSession>(app, caller, name).await?;
    let body = message::object(body().await?)?;
    let turn = message::text(&body, "turnId", "Expected 'turnId' to be a non-empty string.")?;
    Ok(app.runtime().control(&scope, session, Control::Cancel { turn }).await?)
}

async fn clear(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    command(&app, &caller, name, Control::Clear).await
}

async fn compact(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Response, Failure> {
    command(&app, &caller, name, Control::Compact).await
}

async fn command(app: &App, caller: &Caller, name: String, control: Control) -> Result<Response, Failure> {
    let (scope, session) = own::<ControlSession>(app, caller, &name).await?;
    Ok(match app.runtime().control(&scope, session, control).await? {
        ControlAnswer::Accepted => accepted(json!({ "ok": true, "sessionId": name, "status": "accepted" })),
        ControlAnswer::NoActive => done(json!({ "ok": true, "status": "no_active_session" })),
    })
}

async fn reset(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let (scope, session) = own::<ControlSession>(&app, &caller, &name).await?;
    let body = message::object(body.json_or_nothing().await?)?;
    message::text(&body, "reason", "Expected 'reason' to be a non-empty string.")?;
    Ok(match app.runtime().control(&scope, session, Control::Reset).await? {
        ControlAnswer::Accepted => done(json!({ "ok": true, "previousSessionId": name, "status": "reset" })),
        ControlAnswer::NoActive => done(json!({ "ok": true, "status": "no_active_session" })),
    })
}

async fn stubs(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    // Found or not, the answer is the same.
    let _ = own::<ReadSession>(&app, &caller, &name).await?;
    Err(Failure::not_found("session", &name))
}

async fn subagent(
    caller: Caller,
    Segments((name, _, _)): Segments<(String, String, String)>,
) -> Result<Response, Failure> {
    caller.scope()?;
    Err(Failure::not_found("session", &name))
}

/// The session of that name, if the caller has the right; asked before the body is read, and by the
/// runtime again when it acts.
async fn own<V>(app: &App, caller: &Caller, name: &str) -> Result<(Scope, Session), Failure>
where
    V: bailiwick_auth::access::Verb<Resource = Session>,
{
    let scope = caller.scope()?;
    let session = find(app, &scope, name).await?;
    let _permit = scope.authorize::<V>(session.clone())?;
    Ok((scope, session))
}

fn accepted(body: Value) -> Response {
    (StatusCode::ACCEPTED, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn done(body: Value) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
