//! The log: an admin reads the account's, others what they did themselves, readers of a space what was
//! done in it, the operator the host's.

use axum::extract::State;
use axum::response::Response;
use bailiwick_audit::event::hex;
use bailiwick_audit::{Event, Problem, Verdict};
use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadAudit, ReadHostAudit, ReadSpace};
use bailiwick_store::StoreError;
use bailiwick_store::log::{EventFilter, Order, Verified};
use bailiwick_types::{AgentName, SpaceId, Timestamp, UserName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::proof::{
    checkpoint, checkpoint_host, consistency, consistency_host, export, export_host, inclusion, inclusion_host, retire,
    retire_host,
};
use crate::api::space;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, page_rows};
use crate::reply::{self, More};
use crate::route::routes;

routes! {
    GET "/api/v1/audit" list, Known, [ReadAccountAudit, ReadAudit], Nothing, "Events, newest first (action, result, user, agent, space, from, to, limit; after: from there on, oldest first)";
    GET "/api/v1/audit/verify" verify, Known, [ReadAccountAudit], Nothing, "Read the account's whole log and compare it with its tree";
    POST "/api/v1/audit/verify" verify, Known, [ReadAccountAudit], Nothing, "The same";
    GET "/api/v1/admin/audit" list_host, Known, [ReadHostAudit], Nothing, "Events of the host's own log";
    GET "/api/v1/admin/audit/verify" verify_host, Known, [ReadHostAudit], Nothing, "Read the host's whole log and compare it with its tree";
    POST "/api/v1/admin/audit/verify" verify_host, Known, [ReadHostAudit], Nothing, "The same";
    GET "/api/v1/audit/checkpoint" checkpoint, Known, [ReadAccountAudit], Nothing, "The signed head of the account's log; as a signed note with Accept: text/plain";
    GET "/api/v1/audit/proof/inclusion" inclusion, Known, [ReadAccountAudit], Nothing, "That an event is in the log of so many events (seq, size)";
    GET "/api/v1/audit/proof/consistency" consistency, Known, [ReadAccountAudit], Nothing, "That the log of so many events continues an earlier one (from, to)";
    GET "/api/v1/audit/export" export, Known, [ReadAccountAudit], Nothing, "The whole log as a file (format: jsonl, which can be checked, or csv)";
    POST "/api/v1/audit/retire" retire, Known, [RetireAudit], Json, "Erase what the events before a time said; numbers, hashes and proofs stay (before)";
    GET "/api/v1/admin/audit/checkpoint" checkpoint_host, Known, [ReadHostAudit], Nothing, "The signed head of the host's log";
    GET "/api/v1/admin/audit/proof/inclusion" inclusion_host, Known, [ReadHostAudit], Nothing, "That an event is in the host's log";
    GET "/api/v1/admin/audit/proof/consistency" consistency_host, Known, [ReadHostAudit], Nothing, "That the host's log continues an earlier one";
    GET "/api/v1/admin/audit/export" export_host, Known, [ReadHostAudit], Nothing, "The host's whole log as a file";
    POST "/api/v1/admin/audit/retire" retire_host, Known, [RetireHostAudit], Json, "Erase what the host's events before a time said";
    GET "/api/v1/spaces/{space}/events" list_space, Known, [ReadSpace], Nothing, "Events in one space";
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Wanted {
    action: Option<String>,
    result: Option<String>,
    user: Option<UserName>,
    agent: Option<AgentName>,
    space: Option<SpaceId>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    limit: Option<usize>,
    pub(crate) after: Option<u64>,
}

impl Wanted {
    /// The store's filter; one row more than wanted, to know whether there is more.
    pub(crate) fn filter(&self) -> Result<(EventFilter, usize), Failure> {
        let limit = page_rows(self.limit, 100)?;
        let verdict = match &self.result {
            None => None,
            Some(word) => Some(
                Verdict::parse(&word.to_ascii_uppercase())
                    .ok_or_else(|| Failure::Parameters("query.result: use OK, FAIL, DENIED or BEGUN".to_owned()))?,
            ),
        };
        let filter = EventFilter {
            from_seq: self.after.map_or(0, |after| after.saturating_add(1)),
            before_seq: None,
            action: self.action.clone(),
            verdict,
            user: self.user.clone(),
            agent: self.agent.as_ref().map(ToString::to_string),
            space: self.space,
            from: self.from,
            to: self.to,
            limit: limit + 1,
            order: if self.after.is_some() { Order::Oldest } else { Order::Newest },
        };
        Ok((filter, limit))
    }
}

/// An event as it is shown.
pub(crate) fn shown(event: &Event) -> Value {
    let draft = &event.draft;
    json!({
        "seq": event.seq,
        "at": event.at,
        "actor": draft.actor.to_text(),
        "user": draft.actor.user(),
        "credential": draft.credential,
        "address": draft.address,
        "request": draft.request,
        "action": draft.action,
        "resource": draft.resource,
        "space": draft.space,
        "agent": draft.agent,
        "phase": draft.phase.as_str(),
        "result": draft.verdict.as_str(),
        "intent": draft.intent,
        "detail": draft.detail,
    })
}

/// Events that the caller may see: the account's for an admin, else their own.
pub(crate) async fn read(app: &App, scope: &Scope, filter: EventFilter) -> Result<Vec<Event>, Failure> {
    if scope.may::<ReadAccountAudit>(&scope.account()) {
        let permit = scope.authorize::<ReadAccountAudit>(scope.account())?;
        return Ok(app.store().event_list(permit, filter).await?);
    }
    let permit = scope.authorize::<ReadAudit>(scope.account())?;
    Ok(app.store().event_list_own(permit, filter).await?)
}

/// An event as those see it who share a space: what was done, not from where and with which key.
fn shown_among(scope: &Scope, event: &Event) -> Value {
    let mut row = shown(event);
    if event.draft.actor.user() != scope.user() {
        row["credential"] = Value::Null;
        row["address"] = Value::Null;
    }
    row
}

fn page(mut events: Vec<Event>, limit: usize, shown: impl Fn(&Event) -> Value) -> Response {
    let more = if events.len() > limit { More::Yes } else { More::No };
    events.truncate(limit);
    reply::page(events.iter().map(shown).collect(), more)
}

async fn list(State(app): State<App>, caller: Caller, Params(wanted): Params<Wanted>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let (filter, limit) = wanted.filter()?;
    Ok(page(read(&app, &scope, filter).await?, limit, shown))
}

async fn list_space(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadSpace>(space::find(&app, &scope, &name).await?)?;
    let (filter, limit) = wanted.filter()?;
    let events = app.store().event_list_space(&permit, filter).await?;
    Ok(page(events, limit, |event| shown_among(&scope, event)))
}

async fn list_host(
    State(app): State<App>,
    caller: Caller,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ReadHostAudit>()?;
    let (filter, limit) = wanted.filter()?;
    Ok(page(app.store().event_list_host(permit, filter).await?, limit, shown))
}

async fn verify(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAccountAudit>(scope.account())?;
    let (store, place) = (app.store().clone(), app.verification_place().await?);
    whole(&app, place, async move { store.event_verify(permit).await }).await
}

async fn verify_host(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ReadHostAudit>()?;
    let (store, place) = (app.store().clone(), app.verification_place().await?);
    whole(&app, place, async move { store.event_verify_host(permit).await }).await
}

/// Reads a log to its end and keeps the place till then, also if the caller goes away meanwhile.
async fn whole(
    app: &App,
    place: OwnedSemaphorePermit,
    reading: impl Future<Output = Result<Result<Verified, Problem>, StoreError>> + Send + 'static,
) -> Result<Response, Failure> {
    let read = tokio::spawn(async move {
        let found = reading.await;
        drop(place);
        found
    });
    let found = read.await.map_err(|_| Failure::Defect("the reading of a log panicked"))??;
    Ok(verdict(app, found))
}

/// That a log is not whole is what was asked, not a failure of asking.
fn verdict(app: &App, found: Result<Verified, Problem>) -> Response {
    match found {
        Ok(whole) => reply::done(json!({
            "ok": true,
            "size": whole.head.size,
            "root": hex(&whole.head.root),
            "retired": whole.retired,
            "continues": whole.continued,
            "checkpoint": whole.checkpoint.map(|note| note.to_string()),
            "key": app.store().verifier_key().ok().map(|key| key.to_string()),
        })),
        Err(problem) => reply::done(json!({ "ok": false, "problem": problem.to_string() })),
    }
}
