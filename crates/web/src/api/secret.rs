//! Secrets of the account. A value goes in and never comes out again: what is shown are names, grants and dates.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Tenant;
use bailiwick_auth::access::verb::{DeleteSecret, GrantSecret, ListSecrets, SetSecret};
use bailiwick_store::StoreError;
use bailiwick_store::secret::{Change, Grant, Sealing, SecretRow, StoredKey};
use bailiwick_types::host::HostPattern;
use bailiwick_types::{AgentName, SecretName, Timestamp};
use bailiwick_vault::{SealError, WrappedKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread, typed};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/secrets" list, Known, [ListSecrets], Nothing, "The account's secrets: names, grants, dates; never a value";
    PUT "/api/v1/secrets/{secret}" set, Known, [SetSecret], Json, "Give a secret a value; the one before is gone";
    DELETE "/api/v1/secrets/{secret}" delete, Known, [DeleteSecret], Nothing, "Delete a secret with its grants";
    PUT "/api/v1/secrets/{secret}/grants/{agent}/{hosts}" give, Known, [GrantSecret], Nothing, "Let an agent's sandboxes use a secret for a host, or `*.` and a name";
    DELETE "/api/v1/secrets/{secret}/grants/{agent}/{hosts}" take, Known, [GrantSecret], Nothing, "Take a grant back; it holds for a minute at most";
}

/// Shortest value, bytes: a shorter one can be guessed, and cannot be told from other text where it comes back.
const SHORTEST: usize = 8;
/// Longest value, bytes. Keys in PEM fit.
const LONGEST: usize = 16 * 1024;
/// Longest note, letters.
const LONGEST_NOTE: usize = 200;

/// A value and what it is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    value: Zeroizing<String>,
    note: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Shown {
    pub(crate) name: SecretName,
    pub(crate) note: String,
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
    pub(crate) released_at: Option<Timestamp>,
    pub(crate) grants: Vec<ShownGrant>,
}

#[derive(Serialize)]
pub(crate) struct ShownGrant {
    pub(crate) agent: AgentName,
    pub(crate) hosts: String,
}

impl From<SecretRow> for Shown {
    fn from(row: SecretRow) -> Self {
        let grants = row.grants.into_iter();
        let grants = grants.map(|Grant { agent, hosts }| ShownGrant { agent, hosts: hosts.to_string() }).collect();
        let SecretRow { name, note, version, updated_at, released_at, .. } = row;
        Self { name, note, version, updated_at, released_at, grants }
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
    let Sent { value, note } = typed(body.json_or_nothing().await?.unwrap_or_else(|| json!({})))?;
    fits(&value, note.as_deref()).map_err(Failure::Parameters)?;
    let sealing = sealing(&app, scope.tenant().clone(), name.clone(), value);
    let version = app.store().secret_set(permit, name.clone(), note, sealing).await?;
    Ok(reply::done(json!({ "name": name, "version": version })))
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
) -> Result<Response, Failure> {
    change(app, caller, segments, Change::Give).await
}

async fn take(
    State(app): State<App>,
    caller: Caller,
    segments: Segments<(String, String, String)>,
) -> Result<Response, Failure> {
    change(app, caller, segments, Change::Take).await
}

async fn change(
    app: App,
    caller: Caller,
    Segments((name, agent, hosts)): Segments<(String, String, String)>,
    change: Change,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<GrantSecret>(scope.account())?;
    let name = named(&name)?;
    let grant = grant(&agent, &hosts).map_err(Failure::Parameters)?;
    let shown = json!({ "name": name, "agent": grant.agent, "hosts": grant.hosts.to_string(),
        "granted": change == Change::Give });
    app.store().secret_grant(permit, name, grant, change).await?;
    Ok(reply::done(shown))
}

/// A secret's name from a path: what cannot be one names none.
fn named(name: &str) -> Result<SecretName, Failure> {
    name.parse().map_err(|_| Failure::not_found("secret", name))
}

/// Reads a grant as somebody wrote it; the error is for them.
pub(crate) fn grant(agent: &str, hosts: &str) -> Result<Grant, String> {
    let agent: AgentName = agent.parse().map_err(|error| format!("agent: {error}"))?;
    let hosts = HostPattern::parse(hosts).map_err(|error| format!("hosts: {error}"))?;
    if hosts == HostPattern::Any {
        return Err("hosts: a secret is for a host, or `*.` and a name; not for everybody".to_owned());
    }
    Ok(Grant { agent, hosts })
}

/// Whether a value can be kept, and put into a header.
pub(crate) fn fits(value: &str, note: Option<&str>) -> Result<(), String> {
    if !(SHORTEST..=LONGEST).contains(&value.len()) {
        return Err(format!("value: a secret has {SHORTEST} to {LONGEST} bytes"));
    }
    if value.trim() != value || value.contains(|letter: char| letter.is_control() && letter != '\n') {
        return Err("value: a secret has no space at its ends, and no control characters but line ends".to_owned());
    }
    if note.is_some_and(|note| note.chars().count() > LONGEST_NOTE || note.contains(char::is_control)) {
        return Err(format!("note: has at most {LONGEST_NOTE} letters, on one line"));
    }
    Ok(())
}

/// Seals a value under the account's data key, which is made with its first secret.
pub(crate) fn sealing(app: &App, tenant: Tenant, name: SecretName, value: Zeroizing<String>) -> Sealing {
    let vault = app.vault();
    Box::new(move |key, version| {
        let failed = |error: SealError| StoreError::Io(std::io::Error::other(error));
        let key = match key {
            Some(StoredKey { by, bytes }) => WrappedKey { by, bytes },
            None => vault.new_key(tenant.incarnation()).map_err(failed)?,
        };
        let sealed = vault.seal(&tenant, &key, &name, version, &value).map_err(failed)?;
        Ok((StoredKey { by: key.by, bytes: key.bytes }, sealed.bytes))
    })
}
