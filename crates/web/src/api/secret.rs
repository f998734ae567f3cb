//! Secrets of the account. A value goes in and never comes out again: what is shown are names, grants and dates.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{DeleteSecret, GrantSecret, ListSecrets, SetSecret};
use bailiwick_store::secret::{Change, Expect, Grant, Sealing, SecretRow};
use bailiwick_types::host::HostPattern;
use bailiwick_types::{AgentName, LeaseTerm, SecretKind, SecretName, Timestamp, UsedBy};
use bailiwick_vault::{DataKey, RefreshGrant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::api::vault;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread, typed};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/secrets" list, Known, [ListSecrets], Nothing, "The account's secrets: names, grants, dates; never a value";
    PUT "/api/v1/secrets/{secret}" set, Known, [SetSecret], Json, "Give a secret a value, or an OAuth client's refresh grant (oauth); the one before is gone (expect: existing, for one that must be there)";
    DELETE "/api/v1/secrets/{secret}" delete, Known, [DeleteSecret], Nothing, "Delete a secret with its grants";
    PUT "/api/v1/secrets/{secret}/grants/{agent}/{hosts}" give, Known, [GrantSecret], Nothing, "Let an agent's sandboxes, or the calls of its model, use a secret for a host, or `*.` and a name (used_by: sandbox or model; lease: minute, call or approved_call)";
    DELETE "/api/v1/secrets/{secret}/grants/{agent}/{hosts}" take, Known, [GrantSecret], Nothing, "Take a grant back; it holds for a minute at most (used_by)";
}

/// Shortest value, bytes: a shorter one can be guessed, and cannot be told from other text where it comes back.
const SHORTEST: usize = 8;
/// Longest value, bytes. Keys in PEM fit.
const LONGEST: usize = 16 * 1024;
/// Longest note, letters.
const LONGEST_NOTE: usize = 200;

/// A value or a grant, and what it is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    value: Option<Zeroizing<String>>,
    oauth: Option<Value>,
    note: Option<String>,
    #[serde(default)]
    expect: Wanted,
}

/// Whether there has to be such a secret.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    #[default]
    Either,
    Existing,
}

impl From<Wanted> for Expect {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Either => Self::Either,
            Wanted::Existing => Self::Existing,
        }
    }
}

/// What a secret is given.
pub(crate) enum Given {
    /// A value.
    Value(Zeroizing<String>),
    /// A refresh grant.
    Grant(Box<RefreshGrant>),
}

impl Given {
    /// Reads a value or a grant as somebody wrote it; the error is for them.
    pub(crate) fn read(kind: SecretKind, text: Zeroizing<String>, note: Option<&str>) -> Result<Self, String> {
        if note.is_some_and(|note| note.chars().count() > LONGEST_NOTE || note.contains(char::is_control)) {
            return Err(format!("note: has at most {LONGEST_NOTE} letters, on one line"));
        }
        match kind {
            SecretKind::Value => fits(&text).map(|()| Self::Value(text)),
            SecretKind::OAuth => {
                let grant = RefreshGrant::parse(&text).map_err(|error| format!("oauth: {error}"))?;
                Ok(Self::Grant(Box::new(grant)))
            }
        }
    }

    /// An access token is one line.
    fn fits_in(&self) -> FitsIn {
        match self {
            Self::Value(value) => FitsIn::of(value),
            Self::Grant(_) => FitsIn::AnyHeader,
        }
    }
}

/// For which use a grant is, and for how long at a time.
#[derive(Deserialize)]
struct Use {
    #[serde(default)]
    used_by: UsedBy,
    #[serde(default)]
    lease: LeaseTerm,
}

/// Where a value can be put.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum FitsIn {
    /// Everywhere: it is one line.
    AnyHeader,
    /// It has line ends, which no header can have: `Basic` encodes them.
    BasicAlone,
}

impl FitsIn {
    fn of(value: &str) -> Self {
        if value.contains('\n') { Self::BasicAlone } else { Self::AnyHeader }
    }
}

#[derive(Serialize)]
pub(crate) struct Shown {
    pub(crate) name: SecretName,
    pub(crate) kind: SecretKind,
    /// The error for which a grant has to be set again.
    pub(crate) set_again: Option<String>,
    pub(crate) note: String,
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
    pub(crate) released_at: Option<Timestamp>,
    pub(crate) grants: Vec<ShownGrant>,
}

#[derive(Serialize)]
pub(crate) struct ShownGrant {
    pub(crate) agent: AgentName,
    pub(crate) used_by: UsedBy,
    pub(crate) hosts: String,
    pub(crate) lease: LeaseTerm,
}

impl From<SecretRow> for Shown {
    fn from(row: SecretRow) -> Self {
        let grants = row.grants.into_iter();
        let shown = |Grant { agent, used_by, hosts, lease }| {
            let hosts = hosts.to_string();
            ShownGrant { agent, used_by, hosts, lease }
        };
        let grants = grants.map(shown).collect();
        let SecretRow { name, kind, set_again, note, version, updated_at, released_at, .. } = row;
        Self { name, kind, set_again, note, version, updated_at, released_at, grants }
    }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListSecrets>(scope.account())?;
    let secrets: Vec<Shown> = app.store().secret_list(permit).await?.into_iter().map(Shown::from).collect();
    Ok(reply::done(secrets))
}

async fn set(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<SetSecret>(scope.account())?;
    let name: SecretName = name.parse()?;
    let Sent { value, oauth, note, expect } = typed(body.json_or_nothing().await?.unwrap_or_else(|| json!({})))?;
    let (kind, text) = match (value, oauth) {
        (Some(value), None) => (SecretKind::Value, value),
        (None, Some(grant)) => (SecretKind::OAuth, Zeroizing::new(grant.to_string())),
        _ => return Err(Failure::Parameters("give one of value and oauth".to_owned())),
    };
    let given = Given::read(kind, text, note.as_deref()).map_err(Failure::Parameters)?;
    let fits_in = given.fits_in();
    let sealing = sealing(&app, &permit, name.clone(), given).await?;
    let version = app.store().secret_set(permit, name.clone(), kind, note, expect.into(), sealing).await?;
    Ok(reply::done(json!({ "name": name, "kind": kind, "version": version, "fits_in": fits_in })))
}

async fn delete(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<DeleteSecret>(scope.account())?;
    app.store().secret_delete(permit, named(&name)?).await?;
    Ok(reply::done(json!({ "name": name, "deleted": true })))
}

async fn give(
    State(app): State<App>,
    caller: Caller,
    segments: Segments<(String, String, String)>,
    Params(wanted): Params<Use>,
) -> Result<Response, Failure> {
    change(app, caller, segments, wanted, Change::Give).await
}

async fn take(
    State(app): State<App>,
    caller: Caller,
    segments: Segments<(String, String, String)>,
    Params(wanted): Params<Use>,
) -> Result<Response, Failure> {
    change(app, caller, segments, wanted, Change::Take).await
}

async fn change(
    app: App,
    caller: Caller,
    Segments((name, agent, hosts)): Segments<(String, String, String)>,
    wanted: Use,
    change: Change,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<GrantSecret>(scope.account())?;
    let name = named(&name)?;
    let grant = grant(&agent, wanted.used_by, &hosts, wanted.lease).map_err(Failure::Parameters)?;
    let shown = json!({ "name": name, "agent": grant.agent, "used_by": grant.used_by,
        "hosts": grant.hosts.to_string(), "lease": grant.lease, "granted": change == Change::Give });
    app.store().secret_grant(permit, name, grant, change).await?;
    Ok(reply::done(shown))
}

/// A secret's name from a path: what cannot be one names none.
fn named(name: &str) -> Result<SecretName, Failure> {
    name.parse().map_err(|_| Failure::not_found("secret", name))
}

/// Reads a grant as somebody wrote it; the error is for them.
pub(crate) fn grant(agent: &str, used_by: UsedBy, hosts: &str, lease: LeaseTerm) -> Result<Grant, String> {
    let agent: AgentName = agent.parse().map_err(|error| format!("agent: {error}"))?;
    let hosts = HostPattern::parse(hosts).map_err(|error| format!("hosts: {error}"))?;
    if hosts == HostPattern::Any {
        return Err("hosts: a secret is for a host, or `*.` and a name; not for everybody".to_owned());
    }
    if used_by == UsedBy::Model && lease != LeaseTerm::Minute {
        return Err("lease: is for sandboxes; a call of a model has its key for that call alone".to_owned());
    }
    Ok(Grant { agent, used_by, hosts, lease })
}

/// Whether a value can be kept, and put into a header.
fn fits(value: &str) -> Result<(), String> {
    if !(SHORTEST..=LONGEST).contains(&value.len()) {
        return Err(format!("value: a secret has {SHORTEST} to {LONGEST} bytes"));
    }
    if value.trim() != value || value.contains(|letter: char| letter.is_control() && letter != '\n') {
        return Err("value: a secret has no space at its ends, and no control characters but line ends".to_owned());
    }
    Ok(())
}

/// Seals what a secret is given.
pub(crate) async fn sealing(
    app: &App,
    permit: &Permit<SetSecret>,
    name: SecretName,
    given: Given,
) -> Result<Sealing, Failure> {
    let found = app.store().secret_key(permit).await?;
    let seal = move |key: &DataKey, version| match &given {
        Given::Value(value) => key.seal(&name, version, value),
        Given::Grant(grant) => key.seal_grant(&name, version, grant),
    };
    vault::sealing(app, permit.tenant(), found, seal).await
}
