//! API keys of one's own.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{CreateKey, ListAgents, ListKeys, ListSpaces, RevokeKey};
use bailiwick_store::key::KeyRow;
use bailiwick_types::{AgentName, KeyId, KeyScope, SpaceId, Timestamp};
use serde::Deserialize;

use super::frame::{Frame, Notice, Said, again, go, moment, notice_of, page};
use crate::api::key::New;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread};
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/keys" list, Known, [ListKeys], Nothing, "One's API keys";
    POST "/keys" create, Known, [CreateKey], Form, "Make a key (name, scope, agent, space, days)";
    POST "/keys/{mine}/revoke" revoke, Known, [RevokeKey], Form, "Revoke a key";
}

struct Row {
    id: KeyId,
    name: String,
    scopes: String,
    bound: String,
    ends: String,
    used: String,
}

impl From<KeyRow> for Row {
    fn from(row: KeyRow) -> Self {
        let terms = row.terms;
        let bound = [terms.agent.map(|agent| agent.to_string()), terms.space.map(|space| space.to_string())];
        let bound = bound.into_iter().flatten().collect::<Vec<_>>().join(", ");
        Self {
            id: row.id,
            name: terms.name,
            scopes: terms.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", "),
            bound: if bound.is_empty() { "nothing".to_owned() } else { bound },
            ends: terms.expires_at.map_or_else(|| "never".to_owned(), moment),
            used: row.last_used_at.map_or_else(|| "never".to_owned(), moment),
        }
    }
}

#[derive(Template)]
#[template(path = "keys.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    made: Option<String>,
    rows: Vec<Row>,
    agents: Vec<AgentName>,
    spaces: Vec<(SpaceId, String)>,
}

async fn shown(app: &App, caller: &Caller, notice: Option<Notice>, made: Option<String>) -> Result<Response, Failure> {
    let (scope, store) = (caller.scope()?, app.store());
    let permit = scope.authorize::<ListKeys>(scope.user_named(own_name(&caller.principal)?))?;
    let rows = store.key_list(permit).await?.into_iter().map(Row::from).collect();
    let agents = store.agent_list(scope.authorize::<ListAgents>(scope.account())?).await?;
    let spaces = store.space_list(scope.authorize::<ListSpaces>(scope.account())?).await?;
    let agents = agents.into_iter().map(|row| row.name).collect();
    let spaces = spaces.into_iter().map(|row| (row.id, row.name)).collect();
    page(&Page { frame: Frame::of(app, caller, "/keys").await?, notice, made, rows, agents, spaces })
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    shown(&app, &caller, said.notice(), None).await
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
    scope: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    space: String,
    #[serde(default)]
    days: String,
}

impl Wanted {
    fn new_key(self) -> Result<New, Failure> {
        let chosen = |field: &'static str| move |_| Failure::Parameters(format!("{field}: choose one of the list"));
        let days: Option<i64> = match self.days.trim() {
            "" => None,
            days => {
                let days = days.parse::<i64>().ok().filter(|days| (1..=3650).contains(days));
                Some(days.ok_or_else(|| Failure::Parameters("days: a number from 1 to 3650".to_owned()))?)
            }
        };
        let end = |days: i64| Timestamp::from_micros(Timestamp::now().as_micros() + days * 24 * 3600 * 1_000_000);
        Ok(New {
            name: self.name,
            scopes: match self.scope.as_str() {
                "read" => Some(vec![KeyScope::Read]),
                "write" => None,
                _ => return Err(Failure::Parameters("scope: read or write".to_owned())),
            },
            agent_id: if self.agent.is_empty() {
                None
            } else {
                Some(self.agent.parse().map_err(|_| chosen("agent")(()))?)
            },
            space_id: if self.space.is_empty() {
                None
            } else {
                Some(self.space.parse().map_err(|_| chosen("space")(()))?)
            },
            expires_at: days.map(end),
        })
    }
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<CreateKey>(scope.user_named(own_name(&caller.principal)?))?;
    let wanted: Wanted = body.form().await?;
    let made = async {
        let terms = wanted.new_key()?.terms()?;
        let key = app.walk().ring().make()?;
        app.store().key_create(permit, &key, terms).await?;
        Ok(key.into_text().to_string())
    };
    match made.await {
        Ok(text) => shown(&app, &caller, None, Some(text)).await,
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(shown(&app, &caller, Some(notice), None).await?, failure))
        }
    }
}

async fn revoke(State(app): State<App>, caller: Caller, Segments(key): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<RevokeKey>(scope.user_named(own_name(&caller.principal)?))?;
    let id: KeyId = key.parse().map_err(|_| Failure::not_found("key", &key))?;
    app.store().key_revoke(permit, id).await?;
    Ok(go("/keys?ok=revoked"))
}
