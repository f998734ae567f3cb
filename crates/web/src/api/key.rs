//! Keys of a user: several, named, with scopes, bindings and an end. The text is in the one reply that
//! made it, and nowhere else.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{CreateKey, ListKeys, ReadUser, RevokeKey};
use bailiwick_store::key::{KeyRow, KeyTerms};
use bailiwick_types::{AgentName, KeyId, KeyScope, SpaceId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::user::named;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread, line};
use crate::reply;
use crate::route::routes;

routes! {
    POST "/api/v1/admin/accounts/{account}/users/{user}/key" rotate, Known, [CreateKey], Json, "Replace all keys of a user by a new one, which is shown once";
    POST "/api/v1/admin/accounts/{account}/users/{user}/keys" create, Known, [CreateKey], Json, "Add a key (name, scopes, agent_id, space_id, expires_at), which is shown once";
    GET "/api/v1/admin/accounts/{account}/users/{user}/keys" list, Known, [ListKeys, ReadUser], Nothing, "A user's keys, without their secrets";
    DELETE "/api/v1/admin/accounts/{account}/users/{user}/keys/{key}" revoke, Known, [RevokeKey], Nothing, "Revoke a key; it dies at once";
}

/// OpenViking can derive a key from a seed, so that whoever knows the seed has the key. A key of ours
/// is random; a request for another must not be answered as if it had been obeyed.
pub(crate) fn refuse_seed(seed: Option<&Value>) -> Result<(), Failure> {
    match seed {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(Failure::NotAccepted {
            reason: "seed_not_supported",
            message: "keys are random here: leave out `seed`",
        }),
    }
}

#[derive(Deserialize)]
struct Rotation {
    #[serde(default)]
    seed: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) scopes: Option<Vec<KeyScope>>,
    #[serde(default)]
    pub(crate) agent_id: Option<AgentName>,
    #[serde(default)]
    pub(crate) space_id: Option<SpaceId>,
    #[serde(default)]
    pub(crate) expires_at: Option<Timestamp>,
}

impl New {
    /// The terms, once they make sense.
    pub(crate) fn terms(self) -> Result<KeyTerms, Failure> {
        line("name", &self.name, 100)?;
        let scopes = self.scopes.unwrap_or_else(|| KeyScope::ALL.to_vec());
        if scopes.is_empty() {
            return Err(Failure::Parameters("body.scopes: name at least one of read and write".to_owned()));
        }
        if self.expires_at.is_some_and(|end| end <= Timestamp::now()) {
            return Err(Failure::Parameters("body.expires_at: lies in the past".to_owned()));
        }
        Ok(KeyTerms {
            name: self.name,
            scopes,
            agent: self.agent_id,
            space: self.space_id,
            expires_at: self.expires_at,
        })
    }
}

#[derive(Serialize)]
struct Shown {
    id: KeyId,
    name: String,
    scopes: Vec<KeyScope>,
    agent_id: Option<AgentName>,
    space_id: Option<SpaceId>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
}

impl From<KeyRow> for Shown {
    fn from(row: KeyRow) -> Self {
        let terms = row.terms;
        Self {
            id: row.id,
            name: terms.name,
            scopes: terms.scopes,
            agent_id: terms.agent,
            space_id: terms.space,
            expires_at: terms.expires_at,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        }
    }
}

async fn rotate(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
    body: Unread,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    let permit = scope.authorize::<CreateKey>(scope.user_named(named(&user)?))?;
    let Rotation { seed } = body.json().await?;
    refuse_seed(seed.as_ref())?;
    let key = app.walk().ring().make()?;
    app.store().key_rotate(permit, &key).await?;
    Ok(reply::done(json!({ "user_key": *key.into_text() })))
}

async fn create(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
    body: Unread,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    let permit = scope.authorize::<CreateKey>(scope.user_named(named(&user)?))?;
    let terms = body.json::<New>().await?.terms()?;
    let key = app.walk().ring().make()?;
    app.store().key_create(permit, &key, terms).await?;
    Ok(reply::done(json!({ "id": key.id, "key": *key.into_text() })))
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    let permit = scope.authorize::<ListKeys>(scope.user_named(named(&user)?))?;
    let keys: Vec<Shown> = app.store().key_list(permit).await?.into_iter().map(Shown::from).collect();
    if keys.is_empty() {
        // Somebody without keys, or nobody: the second is to be said.
        app.store().user_read(scope.authorize::<ReadUser>(scope.user_named(named(&user)?))?).await?;
    }
    Ok(reply::done(keys))
}

async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user, key)): Segments<(String, String, String)>,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    let permit = scope.authorize::<RevokeKey>(scope.user_named(named(&user)?))?;
    let id: KeyId = key.parse().map_err(|_| Failure::not_found("key", &key))?;
    app.store().key_revoke(permit, id).await?;
    Ok(reply::done(json!({ "id": key, "deleted": true })))
}
