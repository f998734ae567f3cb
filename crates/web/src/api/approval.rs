//! What waits for a person's decision.

use axum::extract::State;
use axum::response::Response;
use bailiwick_agent::RuntimeError;
use bailiwick_auth::Scope;
use bailiwick_auth::access::Approval;
use bailiwick_auth::access::verb::{DecideApproval, ListApprovals, ReadApproval};
use bailiwick_store::approval::{ApprovalState, Choice, Decision, Kind, PendingApproval};
use bailiwick_types::{AgentName, ApprovalId, SessionId, SpaceId, Timestamp, ToolName, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/approvals" list, Known, [ListApprovals], Nothing, "What waits for the caller's decision";
    GET "/api/v1/approvals/{approval}" show, Known, [ReadApproval], Nothing, "One approval, and what came of it";
    POST "/api/v1/approvals/{approval}" decide, Known, [DecideApproval], Json, "Decide: {decision: approve or deny, reason?}";
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    Approve,
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decided {
    decision: Word,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    id: ApprovalId,
    session_id: SessionId,
    space_id: SpaceId,
    agent: AgentName,
    kind: Kind,
    tool: ToolName,
    prompt: String,
    arguments: Value,
    options: Vec<Choice>,
    requester: UserName,
    state: ApprovalState,
    decided_by: Option<UserName>,
    reason: Option<String>,
    created_at: Timestamp,
    expires_at: Timestamp,
}

impl From<PendingApproval> for Shown {
    fn from(pending: PendingApproval) -> Self {
        let row = pending.approval;
        Self {
            id: row.id,
            session_id: row.session,
            space_id: pending.space,
            agent: pending.agent,
            kind: row.kind,
            tool: row.tool,
            prompt: row.prompt,
            arguments: row.arguments,
            options: row.options,
            requester: row.requester,
            state: row.state,
            decided_by: row.decided_by,
            reason: row.reason,
            created_at: row.created_at,
            expires_at: row.expires_at,
        }
    }
}

pub(crate) async fn find(app: &App, scope: &Scope, name: &str) -> Result<Approval, Failure> {
    let missing = || Failure::not_found("approval", name);
    let id: ApprovalId = name.parse().map_err(|_| missing())?;
    app.store().approval_find(scope, id).await?.ok_or_else(missing)
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListApprovals>(scope.account())?;
    let rows = app.store().approval_list(permit).await?;
    Ok(reply::done(rows.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

async fn show(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadApproval>(find(&app, &scope, &name).await?)?;
    Ok(reply::done(Shown::from(app.store().approval_read(&permit).await?)))
}

/// The runtime asks for the right again when it decides; here it is asked before the body is read.
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
    let Decided { decision, reason } = body.json().await?;
    fits(reason.as_deref())?;
    let state = decided(&app, &scope, id, decision, reason).await?;
    Ok(reply::done(json!({ "id": id, "state": state })))
}

/// Whether a reason is one that can be kept.
pub(crate) fn fits(reason: Option<&str>) -> Result<(), Failure> {
    match reason {
        Some(reason) if reason.chars().count() > 2_000 => {
            Err(Failure::Parameters("reason: at most 2000 characters".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Decides, and says what the approval is then.
pub(crate) async fn decided(
    app: &App,
    scope: &Scope,
    id: ApprovalId,
    decision: Word,
    reason: Option<String>,
) -> Result<ApprovalState, Failure> {
    let (decision, state) = match decision {
        Word::Approve => (Decision::Approve, ApprovalState::Approved),
        Word::Deny => (Decision::Deny, ApprovalState::Denied),
    };
    match app.runtime().decide(scope, id, decision, reason).await {
        Err(RuntimeError::NotFound) => Err(Failure::not_found("approval", &id.to_string())),
        other => Ok(other.map(|_| state)?),
    }
}
