//! Sessions, as a list and by their row. Their streams and their turns are eve's routes.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Scope;
use bailiwick_auth::access::Session;
use bailiwick_auth::access::verb::{ListSessions, ReadSession};
use bailiwick_store::session::{SessionRow, SessionState, Tokens};
use bailiwick_types::{AgentName, SessionId, SpaceId, Timestamp, UserName};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, page_rows};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/sessions" list, Known, [ListSessions], Nothing, "The caller's sessions, newest first (limit)";
    GET "/api/v1/sessions/{session}" show, Known, [ReadSession], Nothing, "Where a session stands";
}

/// A session as it is shown.
#[derive(Serialize)]
pub(crate) struct Shown {
    id: SessionId,
    space_id: SpaceId,
    agent: AgentName,
    agent_version: u64,
    initiator: UserName,
    state: SessionState,
    turn: u64,
    events: u64,
    usage: Tokens,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<SessionRow> for Shown {
    fn from(row: SessionRow) -> Self {
        Self {
            id: row.id,
            space_id: row.space,
            agent: row.agent,
            agent_version: row.agent_version,
            initiator: row.initiator,
            state: row.state,
            turn: row.turn,
            events: row.events,
            usage: row.tokens,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The session that a path names, in the caller's tenant.
pub(crate) async fn find(app: &App, scope: &Scope, name: &str) -> Result<Session, Failure> {
    let missing = || Failure::not_found("session", name);
    let id: SessionId = name.parse().map_err(|_| missing())?;
    app.store().session_find(scope, id).await?.ok_or_else(missing)
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(Limit { limit }): Params<Limit>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListSessions>(scope.account())?;
    let rows = app.store().session_list(permit, page_rows(limit, 100)?).await?;
    Ok(reply::done(rows.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments(session): Segments<String>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadSession>(find(&app, &scope, &session).await?)?;
    Ok(reply::done(Shown::from(app.store().session_read(&permit).await?)))
}
