//! Targets of notifications. An address goes in and never comes out again: what is shown are services, hosts, and how
//! it went.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{
    CreateNotification, DeleteNotification, ListNotifications, TestNotification, UpdateNotification,
};
use bailiwick_auth::{Permit, Scope};
use bailiwick_store::notification::{NewTarget, Outcome, Paused, TargetChange, TargetRow};
use bailiwick_store::secret::Sealing;
use bailiwick_types::host::HostName;
use bailiwick_types::notification::{Address, Occasion, TargetKind};
use bailiwick_types::{TargetName, Timestamp, UserName};
use bailiwick_vault::DataKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::api::vault;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread, typed};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/notifications" list, Known, [ListNotifications], Nothing, "The account's targets of notifications: where, about what, how the last message went; never an address";
    POST "/api/v1/notifications" create, Known, [CreateNotification], Json, "Add a target (name, kind, address: the webhook's URL or the bot's token, chat, events)";
    PATCH "/api/v1/notifications/{notification}" update, Known, [UpdateNotification], Json, "Change a target (address with chat, events), pause it or let it go on (paused); it is the caller's from then on";
    DELETE "/api/v1/notifications/{notification}" delete, Known, [DeleteNotification], Nothing, "Remove a target with what waits for it";
    POST "/api/v1/notifications/{notification}/test" test, Known, [TestNotification], Nothing, "Send a target a test at once, and say how the far side took it";
}

/// A target as somebody wants it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    pub(crate) name: TargetName,
    pub(crate) kind: TargetKind,
    pub(crate) address: Zeroizing<String>,
    pub(crate) chat: Option<String>,
    pub(crate) events: Vec<Occasion>,
}

/// What somebody wants otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    address: Option<Zeroizing<String>>,
    chat: Option<String>,
    events: Option<Vec<Occasion>>,
    paused: Option<bool>,
}

#[derive(Serialize)]
pub(crate) struct Shown {
    pub(crate) name: TargetName,
    pub(crate) kind: TargetKind,
    pub(crate) host: HostName,
    pub(crate) chat: Option<String>,
    pub(crate) events: Vec<Occasion>,
    pub(crate) paused: Option<String>,
    pub(crate) owner: UserName,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) last_at: Option<Timestamp>,
    pub(crate) last_state: Option<String>,
    pub(crate) waiting: u64,
    pub(crate) dropped: u64,
}

impl From<TargetRow> for Shown {
    fn from(row: TargetRow) -> Self {
        let TargetRow { name, kind, host, chat, events, paused, owner, created_at, updated_at, .. } = row;
        let TargetRow { last_at, last_state, waiting, dropped, .. } = row;
        Self {
            name,
            kind,
            host,
            chat,
            events,
            paused,
            owner,
            created_at,
            updated_at,
            last_at,
            last_state,
            waiting,
            dropped,
        }
    }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListNotifications>(scope.account())?;
    let targets = app.store().notification_list(permit).await?;
    Ok(reply::done(targets.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<CreateNotification>(scope.account())?;
    let new = body.json().await?;
    Ok(reply::done(Shown::from(add(&app, &scope, permit, new).await?)))
}

/// Adds a target. It is the order of whoever asks.
pub(crate) async fn add(
    app: &App,
    scope: &Scope,
    permit: Permit<CreateNotification>,
    new: New,
) -> Result<TargetRow, Failure> {
    let New { name, kind, address, chat, events } = new;
    let host = looked_at(kind, &address, chat.as_deref())?;
    let (events, owner) = (chosen(events)?, owner(scope)?);
    let sealing = sealing(app, scope, name.clone(), address).await?;
    let new = NewTarget { name, kind, host, chat, events, owner };
    Ok(app.store().notification_create(permit, new, sealing).await?)
}

/// Changes a target. It is the order of whoever asks from then on.
pub(crate) async fn change(
    app: &App,
    scope: &Scope,
    permit: Permit<UpdateNotification>,
    name: TargetName,
    wanted: TargetChange,
) -> Result<TargetRow, Failure> {
    Ok(app.store().notification_update(permit, name, owner(scope)?, wanted).await?)
}

async fn update(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<UpdateNotification>(scope.account())?;
    let name = named(&name)?;
    let there = app.store().notification_read(&permit, &name).await?;
    let Changed { address, chat, events, paused } = typed(body.json_or_nothing().await?.unwrap_or_else(|| json!({})))?;
    let address = match address {
        Some(address) => {
            let host = looked_at(there.kind, &address, chat.as_deref())?;
            Some((host, chat, sealing(&app, &scope, name.clone(), address).await?))
        }
        None if chat.is_some() => {
            return Err(Failure::Parameters("chat: comes with the address that it belongs to".to_owned()));
        }
        None => None,
    };
    let events = events.map(chosen).transpose()?;
    let paused = paused.map(|paused| if paused { Paused::Yes } else { Paused::No });
    let row = change(&app, &scope, permit, name, TargetChange { address, events, paused }).await?;
    Ok(reply::done(Shown::from(row)))
}

async fn delete(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<DeleteNotification>(scope.account())?;
    app.store().notification_delete(permit, named(&name)?).await?;
    Ok(reply::done(json!({ "name": name, "deleted": true })))
}

async fn test(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    // Asked before the name is looked at: who may not is told nothing of it.
    drop(scope.authorize::<TestNotification>(scope.account())?);
    let outcome = app.notifier().test(&scope, &named(&name)?).await?;
    let delivered = outcome == Outcome::Delivered;
    Ok(reply::done(json!({ "name": name, "delivered": delivered, "state": outcome.state() })))
}

/// A target's name from a path: what cannot be one names none.
pub(crate) fn named(name: &str) -> Result<TargetName, Failure> {
    name.parse().map_err(|_| Failure::not_found("notification", name))
}

/// The user whose order a target is. The operator is none.
fn owner(scope: &Scope) -> Result<UserName, Failure> {
    let nobody = || Failure::Parameters("a target of notifications is the order of a user of the account".to_owned());
    scope.user().cloned().ok_or_else(nobody)
}

/// Looks at an address, and says which host it leads to.
fn looked_at(kind: TargetKind, address: &str, chat: Option<&str>) -> Result<HostName, Failure> {
    let parsed =
        Address::parse(kind, address, chat).map_err(|error| Failure::Parameters(format!("address: {error}")))?;
    HostName::parse(parsed.host()).map_err(|_| Failure::Defect("a service without a host"))
}

/// What a target is told: something, and nothing twice.
fn chosen(mut events: Vec<Occasion>) -> Result<Vec<Occasion>, Failure> {
    events.sort();
    events.dedup();
    if events.is_empty() {
        let text = "events: name at least one of approval, question, failed and done";
        return Err(Failure::Parameters(text.to_owned()));
    }
    Ok(events)
}

/// Seals an address, as secrets are.
async fn sealing(app: &App, scope: &Scope, name: TargetName, address: Zeroizing<String>) -> Result<Sealing, Failure> {
    let found = app.store().notification_key(scope).await?;
    let seal = move |key: &DataKey, version| key.seal_target(&name, version, &address);
    vault::sealing(app, scope.tenant(), found, seal).await
}
